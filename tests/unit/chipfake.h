/*
 * A VM for the chips' unit tests: a clock that stands until it is moved, timers on it, the I/O
 * buses, direct routing (GSI n to PIC pin n and IOAPIC pin n), some RAM, and vCPUs that never run.
 * It defines the functions that the chips call, in place of the rest of kvm/. Include it once, in
 * the test's .c. Threads: one.
 */
#pragma once
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kvm/arch.h"
#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"

#define FAKE_RAM 8192

static struct fake {
	struct kvm_vm vm;
	struct vcpu *v[4];
	unsigned n;
	struct kvm_cpuid_entry2 cpuid;
	uint64_t now;
	struct kvm_timer *timers[16];
	unsigned fired;
	struct {
		enum kvm_bus bus;
		gpa_t addr;
		uint64_t len;
		struct kvm_io_device *d;
	} io[16];
	unsigned acks[3][24];
	unsigned resets;
	_Alignas(8) uint8_t ram[FAKE_RAM];
} fake;

uint64_t kvm_now_ns(void)
{
	return fake.now;
}

void kvm_timer_init(struct kvm_timer *t, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct kvm_timer){ .fn = fn, .opaque = opaque, .heap_index = -1 };
}

void kvm_timer_arm(struct kvm_vm *vm, struct kvm_timer *t, uint64_t deadline)
{
	t->deadline = deadline;
	for (unsigned i = 0; i < ARRAY_SIZE(fake.timers); i++)
		if (fake.timers[i] == t)
			return;
	for (unsigned i = 0; i < ARRAY_SIZE(fake.timers); i++)
		if (!fake.timers[i]) {
			fake.timers[i] = t;
			return;
		}
	fail_msg("too many timers");
}

void kvm_timer_cancel(struct kvm_vm *vm, struct kvm_timer *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake.timers); i++)
		if (fake.timers[i] == t)
			fake.timers[i] = NULL;
}

/* Move the clock, running timers on the way in their order. */
static inline void fake_advance(uint64_t ns)
{
	uint64_t end = fake.now + ns;

	for (;;) {
		struct kvm_timer *t = NULL;

		for (unsigned i = 0; i < ARRAY_SIZE(fake.timers); i++)
			if (fake.timers[i] && fake.timers[i]->deadline <= end &&
			    (!t || fake.timers[i]->deadline < t->deadline))
				t = fake.timers[i];
		if (!t)
			break;
		fake.now = MAX(fake.now, t->deadline);
		kvm_timer_cancel(&fake.vm, t);
		fake.fired++;
		t->fn(t->opaque);
	}
	fake.now = end;
}

/* Move the clock without running anything; then run what is due once: a host that was busy. */
static inline void fake_jump(uint64_t ns)
{
	fake.now += ns;
	fake_advance(0);
}

void kvm_make_request(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_or(&v->requests, bits);
}

int kvm_io_bus_register(struct kvm_vm *vm, enum kvm_bus bus, gpa_t addr, uint64_t len,
			struct kvm_io_device *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake.io); i++) {
		if (fake.io[i].d)
			continue;
		fake.io[i].bus = bus;
		fake.io[i].addr = addr;
		fake.io[i].len = len;
		fake.io[i].d = d;
		return 0;
	}
	return -ENOSPC;
}

void kvm_io_bus_unregister(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_device *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake.io); i++)
		if (fake.io[i].d == d)
			fake.io[i].d = NULL;
}

static inline struct kvm_io_device *fake_io(enum kvm_bus bus, gpa_t addr)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fake.io); i++)
		if (fake.io[i].d && fake.io[i].bus == bus && addr >= fake.io[i].addr &&
		    addr < fake.io[i].addr + fake.io[i].len)
			return fake.io[i].d;
	return NULL;
}

int kvm_set_irq(struct kvm_vm *vm, int source, uint32_t gsi, int level)
{
	int sum = -1, r;

	pthread_mutex_lock(&vm->irq_lock);
	if (gsi < 16) {
		r = kvm_pic_set_irq(vm, gsi, source, level);
		sum = r < 0 ? sum : r;
	}
	if (gsi < 24) {
		r = kvm_ioapic_set_irq(vm, gsi, source, level);
		if (r >= 0)
			sum = MAX(sum, 0) + r;
	}
	pthread_mutex_unlock(&vm->irq_lock);
	return sum;
}

void kvm_notify_acked_irq(struct kvm_vm *vm, unsigned irqchip, unsigned pin)
{
	assert_true(irqchip < 3 && pin < (irqchip == KVM_IRQCHIP_IOAPIC ? 24 : 8));
	fake.acks[irqchip][pin]++;
}

int kvm_write_guest(struct vcpu *v, gpa_t gpa, const void *data, uint32_t len)
{
	if (gpa >= FAKE_RAM || len > FAKE_RAM - gpa)
		return -EFAULT;
	memcpy(fake.ram + gpa, data, len);
	return 0;
}

int kvm_read_guest(struct vcpu *v, gpa_t gpa, void *data, uint32_t len)
{
	if (gpa >= FAKE_RAM || len > FAKE_RAM - gpa)
		return -EFAULT;
	memcpy(data, fake.ram + gpa, len);
	return 0;
}

void vcpu_reset(struct vcpu *v, bool init)
{
	fake.resets++;
	kvm_lapic_reset(v, init);
}

void vcpu_update_mode(struct vcpu *v)
{
}

/* ---- Use --------------------------------------------------------------------------------------
 */

enum fake_chips { FAKE_FULL, FAKE_SPLIT };

static inline void fake_start(unsigned ncpus, enum fake_chips chips)
{
	pthread_mutexattr_t attr;

	memset(&fake, 0, sizeof(fake));
	fake.now = 1000000000;
	fake.cpuid.function = 1;
	fake.cpuid.ecx = BIT(21) | BIT(24);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&fake.vm.irq_lock, &attr);
	pthread_mutexattr_destroy(&attr);
	assert_int_equal(kvm_chips_create(&fake.vm), 0);
	assert_int_equal(
		chips == FAKE_FULL ? kvm_irqchip_create(&fake.vm) : kvm_irqchip_split(&fake.vm), 0);
	for (unsigned i = 0; i < ncpus; i++) {
		struct vcpu *v = aligned_alloc(64, (sizeof(*v) + 63) & ~(size_t)63);

		assert_non_null(v);
		memset(v, 0, sizeof(*v));
		v->vm = &fake.vm;
		v->id = v->index = i;
		v->maxphyaddr = 40;
		v->cpuid = &fake.cpuid;
		v->ncpuid = 1;
		v->run = calloc(1, 4096);
		kvm_tsc_init(v);
		assert_int_equal(kvm_lapic_create(v), 0);
		fake.v[i] = v;
		atomic_store(&fake.vm.vcpus[i], v);
		atomic_store(&fake.vm.nvcpus, i + 1);
	}
	fake.n = ncpus;
}

static inline void fake_stop(void)
{
	for (unsigned i = 0; i < fake.n; i++) {
		kvm_lapic_free(fake.v[i]);
		free(fake.v[i]->run);
		free(fake.v[i]);
	}
	kvm_irqchip_destroy(&fake.vm);
	pthread_mutex_destroy(&fake.vm.irq_lock);
	for (unsigned i = 0; i < ARRAY_SIZE(fake.io); i++)
		assert_null(fake.io[i].d);
	for (unsigned i = 0; i < ARRAY_SIZE(fake.timers); i++)
		assert_null(fake.timers[i]);
}

static inline void fake_outb(uint16_t port, uint8_t val)
{
	struct kvm_io_device *d = fake_io(KVM_BUS_PIO, port);

	assert_non_null(d);
	assert_int_equal(d->ops->write(d, fake.v[0], port, 1, &val), 0);
}

static inline uint8_t fake_inb(uint16_t port)
{
	struct kvm_io_device *d = fake_io(KVM_BUS_PIO, port);
	uint8_t val = 0xee;

	assert_non_null(d);
	assert_int_equal(d->ops->read(d, fake.v[0], port, 1, &val), 0);
	return val;
}

static inline void fake_writel(gpa_t addr, uint32_t val)
{
	struct kvm_io_device *d = fake_io(KVM_BUS_MMIO, addr);

	assert_non_null(d);
	assert_int_equal(d->ops->write(d, fake.v[0], addr, 4, &val), 0);
}

static inline uint32_t fake_readl(gpa_t addr)
{
	struct kvm_io_device *d = fake_io(KVM_BUS_MMIO, addr);
	uint32_t val = 0xeeeeeeee;

	assert_non_null(d);
	assert_int_equal(d->ops->read(d, fake.v[0], addr, 4, &val), 0);
	return val;
}

/* A register of v's xAPIC page, by page offset. */
static inline uint32_t apic_read(struct vcpu *v, unsigned off)
{
	uint32_t val = 0xeeeeeeee;

	assert_true(kvm_lapic_claims(v, 0xfee00000 + off));
	kvm_lapic_mmio_read(v, 0xfee00000 + off, 4, &val);
	return val;
}

static inline void apic_write(struct vcpu *v, unsigned off, uint32_t val)
{
	kvm_lapic_mmio_write(v, 0xfee00000 + off, 4, &val);
}

/* Software-enable. */
static inline void apic_on(struct vcpu *v)
{
	apic_write(v, 0xf0, 0x1ff);
}

/* A cheap source of bytes for the hostile-state tests: the same in each run. */
static inline uint64_t fake_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}
