/*
 * The I/O APIC: 24 pins whose changes become messages to the local APICs.
 *
 * Modelled:     redirection table, remote IRR, level and edge, all delivery modes that a LAPIC
 *               takes, the end of interrupt that LAPICs broadcast.
 * Not modelled: pin polarity (lines come as asserted or not, as in the kernel), delivery status
 *               (a message is delivered at once), the EOI register of version 20h chips, ExtINT
 *               from the 8259A through a pin (its INT output is wired to LINT0 only), the
 *               kernel's record of which CPUs still have an RTC tick to end.
 * References:   [IOAPIC 3.1, 3.2]. Version 11h with 24 pins, as the kernel's.
 * Threads:      vm->irq_lock over the state; handled[] is read without it.
 */
#include <errno.h>
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"

#define IOAPIC_BASE    0xfec00000ull
#define IOAPIC_LEN     0x100
#define IOAPIC_VERSION 0x11

/* Bits of a redirection entry. */
#define RTE_LOGICAL    BIT(11)
#define RTE_STATUS     BIT(12)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL      BIT(15)
#define RTE_MASKED     BIT(16)
#define RTE_WRITABLE   0xff0000000001afffull

static void ioapic_note_vectors(struct kvm_ioapic *io)
{
	uint64_t map[4] = { 0 };

	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++) {
		uint8_t vec = io->s.redirtbl[i].fields.vector;

		map[vec / 64] |= BIT(vec % 64);
	}
	for (unsigned i = 0; i < 4; i++)
		atomic_store_explicit(&io->handled[i], map[i], memory_order_relaxed);
}

/* Send pin's message if its entry lets it; < 0: it does not. */
static int ioapic_service(struct kvm_vm *vm, struct kvm_ioapic *io, unsigned pin)
{
	__u64 *rte = &io->s.redirtbl[pin].bits;
	struct apic_msg m = {
		.dest = *rte >> 56,
		.vector = *rte & 0xff,
		.mode = (*rte >> 8) & 7,
		.logical = *rte & RTE_LOGICAL,
		.level = *rte & RTE_LEVEL,
		.assert = true,
	};
	int n;

	if ((*rte & RTE_MASKED) || (m.level && (*rte & RTE_REMOTE_IRR)))
		return -1;
	if (!m.level)
		io->irr_delivered |= 1u << pin;
	n = kvm_apic_send(vm, NULL, &m);
	/* Only a vector in a LAPIC's ISR is ended: the other modes must not wait for that. */
	if (n > 0 && m.level && m.mode <= DM_LOWEST)
		*rte |= RTE_REMOTE_IRR;
	return n;
}

static int ioapic_input(struct kvm_vm *vm, struct kvm_ioapic *io, unsigned pin, bool level)
{
	uint32_t bit = 1u << pin, old = io->s.irr;

	if (!level) {
		io->s.irr &= ~bit;
		return 1;
	}
	io->s.irr |= bit;
	if (!(io->s.redirtbl[pin].bits & RTE_LEVEL)) {
		if (old & bit)
			return 0;
		io->irr_delivered &= ~bit;
	}
	return ioapic_service(vm, io, pin);
}

int kvm_ioapic_set_irq(struct kvm_vm *vm, unsigned pin, int source, int level)
{
	struct kvm_ioapic *io = &kvm_chips(vm)->ioapic;

	if (pin >= KVM_IOAPIC_NUM_PINS || source < 0 || source >= KVM_IRQ_SOURCES)
		return -1;
	if (level)
		io->lines[pin] |= (uint8_t)(1u << source);
	else
		io->lines[pin] &= (uint8_t) ~(1u << source);
	if (source == KVM_IRQ_SOURCE_PIT)
		io->pit_pins |= 1u << pin;
	return ioapic_input(vm, io, pin, io->lines[pin] != 0);
}

void kvm_ioapic_eoi(struct kvm_vm *vm, uint8_t vector, bool level, bool directed)
{
	struct kvm_ioapic *io = &kvm_chips(vm)->ioapic;
	uint32_t pins = 0, pit;

	if (!(atomic_load_explicit(&io->handled[vector / 64], memory_order_relaxed) &
	      BIT(vector % 64)))
		return;
	pthread_mutex_lock(&vm->irq_lock);
	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		if (io->s.redirtbl[i].fields.vector == vector)
			pins |= 1u << i;
	pit = pins & io->pit_pins;
	pthread_mutex_unlock(&vm->irq_lock);

	/* A resampling device lowers its line here, before it is looked at again. */
	if (pit)
		kvm_pit_acked(vm);
	for (uint32_t p = pins; p; p &= p - 1)
		kvm_notify_acked_irq(vm, KVM_IRQCHIP_IOAPIC, (unsigned)__builtin_ctz(p));
	if (!level || directed)
		return;

	pthread_mutex_lock(&vm->irq_lock);
	for (uint32_t p = pins; p; p &= p - 1) {
		unsigned pin = (unsigned)__builtin_ctz(p);
		__u64 *rte = &io->s.redirtbl[pin].bits;

		if (!(*rte & RTE_LEVEL) || (*rte & 0xff) != vector)
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		if (io->s.irr & (1u << pin))
			ioapic_service(vm, io, pin);
	}
	pthread_mutex_unlock(&vm->irq_lock);
}

static uint32_t ioapic_read_reg(const struct kvm_ioapic *io)
{
	unsigned sel = io->s.ioregsel, pin = (sel - 0x10) >> 1;
	uint64_t rte;

	switch (sel) {
	case 0: /* identification and arbitration are one number here */
	case 2: return io->s.id << 24;
	case 1: return IOAPIC_VERSION | (KVM_IOAPIC_NUM_PINS - 1) << 16;
	default: break;
	}
	if (sel < 0x10 || pin >= KVM_IOAPIC_NUM_PINS)
		return 0;
	rte = io->s.redirtbl[pin].bits;
	return (uint32_t)(sel & 1 ? rte >> 32 : rte);
}

static void ioapic_write_rte(struct kvm_vm *vm, struct kvm_ioapic *io, unsigned pin, bool high,
			     uint32_t val)
{
	__u64 *rte = &io->s.redirtbl[pin].bits;
	uint64_t old = *rte, new;

	new = high ? (old & 0xffffffff) | (uint64_t)val << 32 : (old & ~0xffffffffull) | val;
	*rte = (new &RTE_WRITABLE) | (old & (RTE_REMOTE_IRR | RTE_STATUS));
	/* Guests end a stuck level interrupt by making its pin an edge for a moment. */
	if (!(*rte & RTE_LEVEL))
		*rte &= ~RTE_REMOTE_IRR;
	ioapic_note_vectors(io);
	if ((old & RTE_MASKED) && !(*rte & RTE_MASKED) && (io->pit_pins & 1u << pin))
		kvm_pit_forget_ticks(vm);
	if ((*rte & RTE_LEVEL) && (io->s.irr & 1u << pin))
		ioapic_service(vm, io, pin);
}

static void ioapic_write_reg(struct kvm_vm *vm, struct kvm_ioapic *io, uint32_t val)
{
	unsigned sel = io->s.ioregsel, pin = (sel - 0x10) >> 1;

	if (sel == 0)
		io->s.id = (val >> 24) & 0xf;
	else if (sel >= 0x10 && pin < KVM_IOAPIC_NUM_PINS)
		ioapic_write_rte(vm, io, pin, sel & 1, val);
}

static int ioapic_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data)
{
	struct kvm_ioapic *io = container_of(d, struct kvm_ioapic, dev);
	uint64_t val = 0;

	pthread_mutex_lock(&v->vm->irq_lock);
	switch (addr & 0xff) {
	case 0x00: val = io->s.ioregsel; break;
	case 0x10: val = ioapic_read_reg(io); break;
	default: break;
	}
	pthread_mutex_unlock(&v->vm->irq_lock);
	memset(data, 0, (size_t)len);
	memcpy(data, &val, (size_t)MIN(len, 8));
	return 0;
}

static int ioapic_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			const void *data)
{
	struct kvm_ioapic *io = container_of(d, struct kvm_ioapic, dev);
	uint32_t val = 0;

	memcpy(&val, data, (size_t)MIN(len, 4));
	pthread_mutex_lock(&v->vm->irq_lock);
	switch (addr & 0xff) {
	case 0x00: io->s.ioregsel = val & 0xff; break;
	case 0x10: ioapic_write_reg(v->vm, io, val); break;
	default: break;
	}
	pthread_mutex_unlock(&v->vm->irq_lock);
	return 0;
}

static const struct kvm_io_ops ioapic_ops = { ioapic_read, ioapic_write };

void kvm_ioapic_init(struct kvm_vm *vm)
{
	struct kvm_ioapic *io = &kvm_chips(vm)->ioapic;

	memset(io, 0, sizeof(*io));
	io->s.base_address = IOAPIC_BASE;
	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		io->s.redirtbl[i].bits = RTE_MASKED;
	ioapic_note_vectors(io);
	io->dev.ops = &ioapic_ops;
}

int kvm_ioapic_register(struct kvm_vm *vm)
{
	return kvm_io_bus_register(vm, KVM_BUS_MMIO, IOAPIC_BASE, IOAPIC_LEN,
				   &kvm_chips(vm)->ioapic.dev);
}

void kvm_ioapic_get_state(struct kvm_vm *vm, struct kvm_ioapic_state *s)
{
	const struct kvm_ioapic *io = &kvm_chips(vm)->ioapic;

	*s = io->s;
	s->irr &= ~io->irr_delivered;
}

void kvm_ioapic_set_state(struct kvm_vm *vm, const struct kvm_ioapic_state *s)
{
	struct kvm_ioapic *io = &kvm_chips(vm)->ioapic;
	uint32_t irr;

	kvm_chip_state_load(&kvm_ioapic_table, &io->s, s);
	io->s.base_address = IOAPIC_BASE; /* the window does not move */
	io->irr_delivered = 0;
	irr = io->s.irr;
	io->s.irr = 0;
	ioapic_note_vectors(io);
	for (; irr; irr &= irr - 1)
		ioapic_input(vm, io, (unsigned)__builtin_ctz(irr), true);
}
