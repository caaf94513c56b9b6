/*
 * The pair of 8259A interrupt controllers of a PC, with the ELCR of the EISA chipsets.
 *
 * Modelled:     ICW1-ICW4, OCW1-OCW3, fully nested, special fully nested and special mask mode,
 *               rotation in all its forms, AEOI, poll, spurious IRQ7 and IRQ15, level and edge
 *               inputs by ELCR.
 * Not modelled: single mode (SNGL) and LTIM of ICW1, MCS-80 mode: a PC has no use for them, and
 *               the kernel's chip ignores them as well. An edge stays latched when its line
 *               falls before the acknowledge, as in the kernel.
 * References:   [8259A], [ICH9 13.4].
 * Threads:      vm->irq_lock over the state; the output flag is read without it.
 */
#include <errno.h>
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"

enum { CASCADE = 2 };

/* Distance of the highest-priority set bit from the top of the rotating order; 8: none set. */
static int pic_priority(const struct kvm_pic_state *s, unsigned mask)
{
	unsigned turned = mask >> s->priority_add | mask << (8 - s->priority_add);

	turned &= 0xff;
	return turned ? __builtin_ctz(turned) : 8;
}

/* The input that a chip would deliver now, or -1. */
static int pic_winner(const struct kvm_pic *pic, const struct kvm_pic_state *s)
{
	int want = pic_priority(s, s->irr & ~s->imr), busy;
	unsigned isr = s->isr;

	if (want == 8)
		return -1;
	if (s->special_mask)
		isr &= ~s->imr;
	/* A slave in service does not keep its other inputs out. */
	if (s->special_fully_nested_mode && s == &pic->s[0])
		isr &= ~(1u << CASCADE);
	busy = pic_priority(s, isr);
	return want < busy ? (want + s->priority_add) & 7 : -1;
}

/* Change the level of an input; > 0: it became pending, 0: it was, < 0: it is masked. */
static int pic_input(struct kvm_pic_state *s, unsigned irq, bool level)
{
	uint8_t bit = (uint8_t)(1u << irq);
	int result = 1;

	if (!level) {
		if (s->elcr & bit)
			s->irr &= (uint8_t)~bit;
		s->last_irr &= (uint8_t)~bit;
	} else if ((s->elcr & bit) || !(s->last_irr & bit)) {
		result = !(s->irr & bit);
		s->irr |= bit;
		s->last_irr |= bit;
	}
	return s->imr & bit ? -1 : result;
}

/* Somebody who takes ExtINT may have to look at the master's output. */
static void pic_wake(struct kvm_vm *vm)
{
	unsigned n = atomic_load(&vm->nvcpus);

	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (!v || (v->lapic && !kvm_apic_takes_extint(v->lapic)))
			continue;
		kvm_make_request(v, REQ_EVENT);
		break; /* one processor is wired to INTR */
	}
}

static void pic_update(struct kvm_vm *vm, struct kvm_pic *pic)
{
	bool out;

	/* The slave's INT as the master's edge: each change looks again. */
	if (pic_winner(pic, &pic->s[1]) >= 0) {
		pic_input(&pic->s[0], CASCADE, true);
		pic_input(&pic->s[0], CASCADE, false);
	}
	out = pic_winner(pic, &pic->s[0]) >= 0;
	atomic_store(&pic->output, out);
	if (out)
		pic_wake(vm);
}

/* Drop irq_lock, then tell those who wait for the end of an interrupt. */
static void pic_unlock(struct kvm_vm *vm, struct kvm_pic *pic)
{
	uint32_t acked = pic->acked, pit = acked & pic->pit_pins;

	pic->acked = 0;
	pthread_mutex_unlock(&vm->irq_lock);
	if (pit)
		kvm_pit_acked(vm);
	for (; acked; acked &= acked - 1) {
		unsigned pin = (unsigned)__builtin_ctz(acked);

		kvm_notify_acked_irq(vm, pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				     pin & 7);
	}
}

static void pic_end(struct kvm_pic *pic, struct kvm_pic_state *s, unsigned irq)
{
	s->isr &= (uint8_t) ~(1u << irq);
	pic->acked |= 1u << (irq + (s == &pic->s[1] ? 8 : 0));
}

/* An acknowledge cycle selects input irq. */
static void pic_intack(struct kvm_pic *pic, struct kvm_pic_state *s, unsigned irq)
{
	uint8_t bit = (uint8_t)(1u << irq);

	s->isr |= bit;
	if (!(s->elcr & bit))
		s->irr &= (uint8_t)~bit;
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (irq + 1) & 7;
		pic_end(pic, s, irq);
	}
}

int kvm_pic_read_irq(struct kvm_vm *vm)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;
	int irq, irq2, vector;

	pthread_mutex_lock(&vm->irq_lock);
	irq = pic_winner(pic, &pic->s[0]);
	if (irq < 0) {
		/* The request has gone: the master answers with its lowest input, not in service.
		 */
		vector = pic->s[0].irq_base + 7;
	} else {
		pic_intack(pic, &pic->s[0], (unsigned)irq);
		vector = pic->s[0].irq_base + irq;
		if (irq == CASCADE) {
			irq2 = pic_winner(pic, &pic->s[1]);
			if (irq2 >= 0)
				pic_intack(pic, &pic->s[1], (unsigned)irq2);
			vector = pic->s[1].irq_base + (irq2 >= 0 ? irq2 : 7);
		}
	}
	pic_update(vm, pic);
	pic_unlock(vm, pic);
	return vector;
}

int kvm_pic_set_irq(struct kvm_vm *vm, unsigned pin, int source, int level)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;
	int result;

	if (pin >= 16 || source < 0 || source >= KVM_IRQ_SOURCES)
		return -1;
	if (level)
		pic->lines[pin] |= (uint8_t)(1u << source);
	else
		pic->lines[pin] &= (uint8_t) ~(1u << source);
	if (source == KVM_IRQ_SOURCE_PIT)
		pic->pit_pins |= 1u << pin;
	result = pic_input(&pic->s[pin >> 3], pin & 7, pic->lines[pin] != 0);
	pic_update(vm, pic);
	return result;
}

/* ICW1 begins the initialization sequence. */
static void pic_icw1(struct kvm_pic *pic, struct kvm_pic_state *s, uint8_t val)
{
	unsigned base = s == &pic->s[1] ? 8 : 0;

	/* Edges that the guest will never end would leave their waiters waiting. */
	pic->acked |= (uint32_t)((s->irr & ~s->elcr) | s->isr) << base;
	s->init4 = val & 1;
	s->irr &= s->elcr;
	s->imr = s->isr = 0;
	s->priority_add = s->special_mask = s->read_reg_select = s->poll = 0;
	s->rotate_on_auto_eoi = 0;
	if (!s->init4)
		s->special_fully_nested_mode = s->auto_eoi = 0;
	s->init_state = 1;
}

static void pic_ocw2(struct kvm_pic *pic, struct kvm_pic_state *s, uint8_t val)
{
	unsigned irq = val & 7, command = val >> 5, isr = s->isr;
	int p;

	switch (command) {
	case 0: /* rotate in AEOI: clear, set */
	case 4: s->rotate_on_auto_eoi = command >> 2; break;
	case 1: /* non-specific EOI, and the same with rotation */
	case 5:
		/* In special mask mode the masked levels are not what it ends. */
		if (s->special_mask)
			isr &= ~s->imr;
		p = pic_priority(s, isr);
		if (p == 8)
			break;
		irq = (unsigned)(p + s->priority_add) & 7;
		if (command == 5)
			s->priority_add = (irq + 1) & 7;
		pic_end(pic, s, irq);
		break;
	case 3: pic_end(pic, s, irq); break;
	case 6: s->priority_add = (irq + 1) & 7; break;
	case 7:
		s->priority_add = (irq + 1) & 7;
		pic_end(pic, s, irq);
		break;
	default: break; /* 2: no operation */
	}
}

static void pic_command(struct kvm_pic *pic, struct kvm_pic_state *s, uint8_t val)
{
	if (val & 0x10) {
		pic_icw1(pic, s, val);
	} else if (val & 0x08) {
		if (val & 0x04)
			s->poll = 1;
		if (val & 0x02)
			s->read_reg_select = val & 1;
		if (val & 0x40)
			s->special_mask = (val >> 5) & 1;
	} else {
		pic_ocw2(pic, s, val);
	}
}

static void pic_data(struct kvm_vm *vm, struct kvm_pic *pic, struct kvm_pic_state *s, uint8_t val)
{
	uint8_t unmasked;

	switch (s->init_state) {
	case 0:
		unmasked = s->imr & ~val;
		s->imr = val;
		if ((uint32_t)unmasked << (s == &pic->s[1] ? 8 : 0) & pic->pit_pins)
			kvm_pit_forget_ticks(vm);
		break;
	case 1: /* ICW2 */
		s->irq_base = val & 0xf8;
		s->init_state = 2;
		break;
	case 2: /* ICW3: the wiring is fixed */ s->init_state = s->init4 ? 3 : 0; break;
	default: /* ICW4 */
		s->special_fully_nested_mode = (val >> 4) & 1;
		s->auto_eoi = (val >> 1) & 1;
		s->init_state = 0;
		break;
	}
}

static uint8_t pic_read(struct kvm_pic *pic, struct kvm_pic_state *s, unsigned port)
{
	int irq;

	if (s->poll) { /* the read is the acknowledge cycle */
		s->poll = 0;
		irq = pic_winner(pic, s);
		if (irq < 0)
			return 0;
		pic_intack(pic, s, (unsigned)irq);
		return (uint8_t)(0x80 | irq);
	}
	if (port & 1)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

static int pic_io_read(struct kvm_vm *vm, unsigned chip, gpa_t addr, int len, void *data)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;

	memset(data, 0, (size_t)len);
	if (len != 1)
		return 0;
	pthread_mutex_lock(&vm->irq_lock);
	*(uint8_t *)data = pic_read(pic, &pic->s[chip], addr & 1);
	pic_update(vm, pic);
	pic_unlock(vm, pic);
	return 0;
}

static int pic_io_write(struct kvm_vm *vm, unsigned chip, gpa_t addr, int len, const void *data)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;
	struct kvm_pic_state *s = &pic->s[chip];
	uint8_t val = *(const uint8_t *)data;

	if (len != 1)
		return 0;
	pthread_mutex_lock(&vm->irq_lock);
	if (addr & 1)
		pic_data(vm, pic, s, val);
	else
		pic_command(pic, s, val);
	pic_update(vm, pic);
	pic_unlock(vm, pic);
	return 0;
}

static int pic_master_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data)
{
	return pic_io_read(v->vm, 0, addr, len, data);
}

static int pic_master_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			    const void *data)
{
	return pic_io_write(v->vm, 0, addr, len, data);
}

static int pic_slave_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data)
{
	return pic_io_read(v->vm, 1, addr, len, data);
}

static int pic_slave_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			   const void *data)
{
	return pic_io_write(v->vm, 1, addr, len, data);
}

static int pic_elcr_read(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data)
{
	struct kvm_pic *pic = &kvm_chips(v->vm)->pic;
	uint8_t both[2];

	pthread_mutex_lock(&v->vm->irq_lock);
	both[0] = pic->s[0].elcr;
	both[1] = pic->s[1].elcr;
	pthread_mutex_unlock(&v->vm->irq_lock);
	memset(data, 0, (size_t)len);
	for (int i = 0; i < len && (addr & 1) + (unsigned)i < 2; i++)
		((uint8_t *)data)[i] = both[(addr & 1) + (unsigned)i];
	return 0;
}

static int pic_elcr_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			  const void *data)
{
	struct kvm_pic *pic = &kvm_chips(v->vm)->pic;

	pthread_mutex_lock(&v->vm->irq_lock);
	for (int i = 0; i < len && (addr & 1) + (unsigned)i < 2; i++) {
		struct kvm_pic_state *s = &pic->s[(addr & 1) + (unsigned)i];

		s->elcr = ((const uint8_t *)data)[i] & s->elcr_mask;
	}
	pic_update(v->vm, pic);
	pthread_mutex_unlock(&v->vm->irq_lock);
	return 0;
}

static const struct kvm_io_ops pic_master_ops = { pic_master_read, pic_master_write };
static const struct kvm_io_ops pic_slave_ops = { pic_slave_read, pic_slave_write };
static const struct kvm_io_ops pic_elcr_ops = { pic_elcr_read, pic_elcr_write };

void kvm_pic_init(struct kvm_vm *vm)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;

	memset(pic, 0, sizeof(*pic));
	/* Timer, keyboard, cascade, RTC and FPU inputs are edges whatever the guest says. */
	pic->s[0].elcr_mask = 0xf8;
	pic->s[1].elcr_mask = 0xde;
	pic->master_dev.ops = &pic_master_ops;
	pic->slave_dev.ops = &pic_slave_ops;
	pic->elcr_dev.ops = &pic_elcr_ops;
}

int kvm_pic_register(struct kvm_vm *vm)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;
	int r = kvm_io_bus_register(vm, KVM_BUS_PIO, 0x20, 2, &pic->master_dev);

	if (!r) {
		r = kvm_io_bus_register(vm, KVM_BUS_PIO, 0xa0, 2, &pic->slave_dev);
		if (r)
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pic->master_dev);
	}
	if (!r) {
		r = kvm_io_bus_register(vm, KVM_BUS_PIO, 0x4d0, 2, &pic->elcr_dev);
		if (r) {
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pic->slave_dev);
			kvm_io_bus_unregister(vm, KVM_BUS_PIO, &pic->master_dev);
		}
	}
	return r;
}

void kvm_pic_loaded(struct kvm_vm *vm)
{
	struct kvm_pic *pic = &kvm_chips(vm)->pic;

	/* The mask is wiring, not state. */
	pic->s[0].elcr_mask = 0xf8;
	pic->s[1].elcr_mask = 0xde;
	pic->s[0].elcr &= 0xf8;
	pic->s[1].elcr &= 0xde;
	pic_update(vm, pic);
}
