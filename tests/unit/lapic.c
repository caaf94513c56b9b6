/* The local APIC: registers, messages, modes, timer, state. [SDM3 10] */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "chipfake.h"

static int setup(void **state)
{
	fake_start(3, FAKE_FULL);
	for (unsigned i = 0; i < 3; i++) {
		apic_on(fake.v[i]);
		apic_write(fake.v[i], 0x350, 0x10000);
	}
	return 0;
}

static int setup_split(void **state)
{
	fake_start(1, FAKE_SPLIT);
	apic_on(fake.v[0]);
	return 0;
}

static int teardown(void **state)
{
	fake_stop();
	return 0;
}

static int take(unsigned cpu)
{
	return kvm_cpu_has_interrupt(fake.v[cpu]) ? kvm_cpu_get_interrupt(fake.v[cpu]) : -1;
}

static void eoi(unsigned cpu)
{
	apic_write(fake.v[cpu], 0xb0, 0);
}

static void ipi(unsigned cpu, uint32_t dest, uint32_t icr)
{
	apic_write(fake.v[cpu], 0x310, dest << 24);
	apic_write(fake.v[cpu], 0x300, icr);
}

/* Which CPUs have just got an interrupt: a bit for each; ends it. */
static unsigned who(int vec)
{
	unsigned set = 0;

	for (unsigned i = 0; i < fake.n; i++) {
		if (take(i) != vec)
			continue;
		set |= 1u << i;
		kvm_x2apic_msr_write(fake.v[i], 0x80b, 0); /* one of the two is the right EOI */
		if (kvm_lapic_claims(fake.v[i], 0xfee00000))
			eoi(i);
	}
	return set;
}

static int base(unsigned cpu, uint64_t val)
{
	return kvm_lapic_set_base(fake.v[cpu], val, false);
}

static void to_x2(unsigned cpu)
{
	assert_int_equal(base(cpu, fake.v[cpu]->msr.apic_base | APIC_BASE_X2), 0);
}

static uint64_t rdmsr(unsigned cpu, uint32_t index)
{
	uint64_t v = 0;

	assert_int_equal(kvm_x2apic_msr_read(fake.v[cpu], index, &v), 0);
	return v;
}

static int wrmsr(unsigned cpu, uint32_t index, uint64_t v)
{
	return kvm_x2apic_msr_write(fake.v[cpu], index, v);
}

static void test_reset(void **state)
{
	struct vcpu *v = fake.v[0], *ap = fake.v[1];

	kvm_lapic_reset(v, false);
	kvm_lapic_reset(ap, false);
	assert_int_equal(v->msr.apic_base, 0xfee00900);
	assert_int_equal(ap->msr.apic_base, 0xfee00800);
	assert_int_equal(atomic_load(&v->mp_state), KVM_MP_STATE_RUNNABLE);
	assert_int_equal(atomic_load(&ap->mp_state), KVM_MP_STATE_UNINITIALIZED);
	assert_int_equal(apic_read(ap, 0x20), 1 << 24);
	assert_int_equal(apic_read(v, 0x30), 0x50014);
	assert_int_equal(apic_read(v, 0xe0), 0xffffffff);
	assert_int_equal(apic_read(v, 0xf0), 0xff);
	assert_int_equal(apic_read(v, 0x320), 0x10000);
	assert_int_equal(apic_read(v, 0x350), 0x700); /* the kernel's quirk: virtual wire */
	assert_int_equal(apic_read(ap, 0x350), 0x10000);
	/* INIT: everything but id and mode */
	to_x2(1);
	wrmsr(1, 0x80f, 0x1ff);
	wrmsr(1, 0x808, 0x40);
	kvm_lapic_reset(ap, true);
	assert_int_equal(rdmsr(1, 0x80f), 0xff);
	assert_int_equal(rdmsr(1, 0x808), 0);
	assert_int_equal(rdmsr(1, 0x802), 1);
	assert_int_equal(ap->msr.apic_base & APIC_BASE_X2, APIC_BASE_X2);
}

static void test_page(void **state)
{
	struct vcpu *v = fake.v[0];
	uint8_t b[8];

	assert_true(kvm_lapic_claims(v, 0xfee00ffc));
	assert_false(kvm_lapic_claims(v, 0xfee01000));
	kvm_lapic_mmio_read(v, 0xfee00032, 1, b);
	assert_int_equal(b[0], 0x05); /* version, third byte */
	memset(b, 0xff, 8);
	kvm_lapic_mmio_read(v, 0xfee00034, 4, b); /* between registers */
	assert_int_equal(b[0] | b[1] | b[2] | b[3], 0);
	kvm_lapic_mmio_read(v, 0xfee00030, 8, b);
	assert_int_equal(b[0], 0);
	b[0] = 0x50;
	kvm_lapic_mmio_write(v, 0xfee00080, 1, b); /* only 32-bit writes count */
	assert_int_equal(apic_read(v, 0x80), 0);
	apic_write(v, 0x80, 0xfffffff3);
	assert_int_equal(apic_read(v, 0x80), 0xf3);
	apic_write(v, 0x80, 0);
	apic_write(v, 0xe0, 0x0fffffff);
	assert_int_equal(apic_read(v, 0xe0), 0x0fffffff);
	apic_write(v, 0x340, 0xffffffff);
	assert_int_equal(apic_read(v, 0x340), 0x107ff);
	apic_write(v, 0x360, 0xffffffff);
	assert_int_equal(apic_read(v, 0x360), 0x1a7ff); /* status and remote IRR are read-only */
	/* relocation */
	assert_int_equal(base(0, 0xfed00000 | 0x900), 0);
	assert_false(kvm_lapic_claims(v, 0xfee00000));
	assert_true(kvm_lapic_claims(v, 0xfed00000));
}

static void test_priority(void **state)
{
	struct vcpu *v = fake.v[0];

	ipi(0, 0, 0x4041);
	ipi(0, 0, 0x4051);
	apic_write(v, 0x80, 0x55);
	assert_int_equal(apic_read(v, 0xa0), 0x55);
	assert_false(kvm_cpu_has_interrupt(v)); /* 51h is not above class 5 */
	atomic_store(&v->requests, 0);
	apic_write(v, 0x80, 0x4f);
	assert_true(atomic_load(&v->requests) & REQ_EVENT);
	assert_int_equal(take(0), 0x51);
	assert_int_equal(apic_read(v, 0xa0), 0x50);
	assert_int_equal(apic_read(v, 0x100 + 0x20), 1 << 17);
	assert_int_equal(take(0), -1);
	ipi(0, 0, 0x4061);
	assert_int_equal(take(0), 0x61);
	eoi(0);
	assert_int_equal(apic_read(v, 0xa0), 0x50);
	eoi(0);
	assert_int_equal(apic_read(v, 0xa0), 0x4f);
	kvm_lapic_set_cr8(v, 3);
	assert_int_equal(apic_read(v, 0x80), 0x30);
	assert_int_equal(kvm_lapic_get_cr8(v), 3);
	assert_int_equal(take(0), 0x41);
	eoi(0);
	eoi(0); /* nothing in service: harmless */
}

static void test_destinations(void **state)
{
	ipi(0, 1, 0x4031);
	assert_int_equal(who(0x31), 2);
	ipi(0, 0xff, 0x4031);
	assert_int_equal(who(0x31), 7);
	ipi(0, 9, 0x4031);
	assert_int_equal(who(0x31), 0);
	ipi(1, 0, 0x44031); /* self */
	assert_int_equal(who(0x31), 2);
	ipi(1, 0, 0x84031); /* all */
	assert_int_equal(who(0x31), 7);
	ipi(1, 0, 0xc4031); /* all but self */
	assert_int_equal(who(0x31), 5);
	for (unsigned i = 0; i < 3; i++)
		apic_write(fake.v[i], 0xd0, 1u << (24 + i));
	ipi(0, 5, 0x4831); /* logical, flat */
	assert_int_equal(who(0x31), 5);
	for (unsigned i = 0; i < 3; i++) {
		apic_write(fake.v[i], 0xe0, 0x0fffffff); /* cluster */
		apic_write(fake.v[i], 0xd0, (i == 2 ? 0x21u : 0x11u << (i & 1)) << 24);
	}
	apic_write(fake.v[1], 0xd0, 0x12u << 24);
	ipi(0, 0x13, 0x4831);
	assert_int_equal(who(0x31), 3);
	ipi(0, 0x21, 0x4831);
	assert_int_equal(who(0x31), 4);
	ipi(0, 0xff, 0x4831);
	assert_int_equal(who(0x31), 7);
	apic_write(fake.v[1], 0x20, 7u << 24); /* another id */
	ipi(0, 7, 0x4031);
	assert_int_equal(who(0x31), 2);
}

static void test_x2apic_destinations(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		to_x2(i);
	assert_int_equal(rdmsr(2, 0x802), 2);
	assert_int_equal(rdmsr(2, 0x80d), 4);
	assert_int_equal(wrmsr(0, 0x830, 1ull << 32 | 0x4031), 0);
	assert_int_equal(rdmsr(0, 0x830), 1ull << 32 | 0x4031);
	assert_int_equal(who(0x31), 2);
	wrmsr(0, 0x830, 0xffffffffull << 32 | 0x4031);
	assert_int_equal(who(0x31), 7);
	wrmsr(0, 0x830, 0xffull << 32 | 0x4031); /* APIC 255, not broadcast */
	assert_int_equal(who(0x31), 0);
	wrmsr(0, 0x830, 6ull << 32 | 0x4831); /* logical: cluster 0, 1 and 2 */
	assert_int_equal(who(0x31), 6);
	wrmsr(0, 0x830, 0x10006ull << 32 | 0x4831);
	assert_int_equal(who(0x31), 0);
	assert_int_equal(wrmsr(1, 0x83f, 0x32), 0);
	assert_int_equal(who(0x32), 2);
	/* a device's 8-bit broadcast: all, unless the quirk is off */
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee00000 | 0xff000, 0x33), 3);
	assert_int_equal(who(0x33), 7);
	fake.vm.config.x2apic_no_bcast_quirk = true;
	assert_true(kvm_msi_deliver(&fake.vm, 0xfee00000 | 0xff000, 0x33) <= 0);
	fake.vm.config.x2apic_32bit_ids = true;
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0x100ull << 32 | 0xfee01000, 0x33), -1);
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee01000, 0x33), 1);
	assert_int_equal(who(0x33), 2);
}

static void test_msi(void **state)
{
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee02000, 0x41), 1);
	assert_int_equal(who(0x41), 4);
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee01000, 0x8041), 1);
	assert_true(apic_read(fake.v[1], 0x180 + 0x20) & 2); /* level: TMR */
	assert_int_equal(who(0x41), 2);
	kvm_msi_deliver(&fake.vm, 0xfee01000, 0x41);
	assert_false(apic_read(fake.v[1], 0x180 + 0x20) & 2);
	assert_int_equal(who(0x41), 2);
	/* lowest priority goes round */
	for (unsigned i = 0; i < 3; i++)
		apic_write(fake.v[i], 0xd0, 1u << (24 + i));
	unsigned seen = 0;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee07004, 0x141), 1);
		seen |= who(0x41);
	}
	assert_int_equal(seen, 7);
	assert_int_equal(kvm_msi_deliver(&fake.vm, 0xfee01000, 0x400), 1);
	assert_int_equal(atomic_load(&fake.v[1]->ev.nmi_pending), 1);
	kvm_inject_nmi(fake.v[1]);
	kvm_inject_nmi(fake.v[1]);
	assert_int_equal(atomic_load(&fake.v[1]->ev.nmi_pending), 2);
}

static void test_software_disable(void **state)
{
	struct vcpu *v = fake.v[0];

	apic_write(v, 0x320, 0x40);
	ipi(0, 0, 0x4041);
	apic_write(v, 0xf0, 0xff);
	assert_int_equal(apic_read(v, 0x320), 0x10040);
	apic_write(v, 0x320, 0x40);
	assert_int_equal(apic_read(v, 0x320), 0x10040); /* cannot be unmasked */
	ipi(1, 0, 0x4042);
	assert_int_equal(take(0), 0x41); /* what was pending stays, nothing new comes */
	eoi(0);
	assert_int_equal(take(0), -1);
	ipi(1, 0, 0x4400);
	assert_int_equal(atomic_load(&v->ev.nmi_pending), 1); /* NMI passes */
}

static void test_errors(void **state)
{
	struct vcpu *v = fake.v[0];

	apic_write(v, 0x370, 0xe0); /* LVT error */
	ipi(0, 1, 0x4005);
	assert_int_equal(take(0), 0xe0);
	eoi(0);
	assert_int_equal(apic_read(v, 0x280), 0); /* latched by a write only */
	apic_write(v, 0x280, 0);
	assert_int_equal(apic_read(v, 0x280), 0x20);
	assert_int_equal(take(1), -1);
	kvm_msi_deliver(&fake.vm, 0xfee00000, 0x0f);
	assert_int_equal(take(0), 0xe0);
	eoi(0);
	apic_read(v, 0x3f0);
	assert_int_equal(take(0), 0xe0);
	eoi(0);
	apic_write(v, 0x280, 0);
	assert_int_equal(apic_read(v, 0x280), 0xc0);
	apic_write(v, 0x280, 0);
	assert_int_equal(apic_read(v, 0x280), 0);
	apic_write(v, 0x370, 0x05); /* an illegal vector in LVTERR itself: no endless loop */
	apic_read(v, 0x3f0);
	assert_int_equal(take(0), -1);
}

static void test_base(void **state)
{
	const uint64_t off = APIC_BASE_ADDR | APIC_BASE_BSP, x = off | APIC_BASE_EN,
		       x2 = x | APIC_BASE_X2;
	struct vcpu *v = fake.v[0];

	assert_int_equal(base(0, x | 1), 1);
	assert_int_equal(base(0, x | BIT(9)), 1);
	assert_int_equal(base(0, x | BIT(40)), 1);
	assert_int_equal(base(0, off | APIC_BASE_X2), 1);
	assert_int_equal(base(0, x2), 0);
	assert_false(kvm_lapic_claims(v, 0xfee00000));
	assert_int_equal(base(0, x), 1); /* not back */
	assert_int_equal(base(0, x2), 0);
	assert_int_equal(base(0, off), 0);
	assert_int_equal(base(0, x2), 1); /* not from disabled */
	assert_int_equal(base(0, x), 0);
	assert_int_equal(apic_read(v, 0xf0), 0xff); /* as after power-up */
	assert_int_equal(kvm_lapic_set_base(v, x2, true), 0);
	assert_int_equal(kvm_lapic_set_base(v, x, true), 0); /* user space may */
	fake.cpuid.ecx = 0;
	assert_int_equal(base(0, x2), 1);
	assert_int_equal(kvm_lapic_set_base(v, x2, true), 1);
}

static void test_x2apic_msrs(void **state)
{
	static const uint16_t unreadable[] = { 0x800, 0x80b, 0x80e, 0x80c, 0x831,
					       0x83f, 0x82f, 0x840, 0x8ff };
	static const uint16_t unwritable[] = { 0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810,
					       0x827, 0x831, 0x839, 0x82f, 0x8ff };
	static const struct {
		uint16_t index;
		uint64_t val;
	} reserved[] = {
		{ 0x808, 0x100 },   { 0x80b, 1 },       { 0x80f, 0x800 },   { 0x828, 1 },
		{ 0x830, 1 << 20 }, { 0x832, 1 << 19 }, { 0x835, 1 << 17 }, { 0x83e, 4 },
		{ 0x83f, 0x100 },   { 0x808, BIT(32) }, { 0x838, BIT(32) },
	};
	uint64_t v;

	assert_int_equal(kvm_x2apic_msr_read(fake.v[0], 0x802, &v), 1); /* not in xAPIC mode */
	to_x2(0);
	for (unsigned i = 0; i < ARRAY_SIZE(unreadable); i++)
		assert_int_equal(kvm_x2apic_msr_read(fake.v[0], unreadable[i], &v), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(unwritable); i++)
		assert_int_equal(wrmsr(0, unwritable[i], 0), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(reserved); i++)
		assert_int_equal(wrmsr(0, reserved[i].index, reserved[i].val), 1);
	assert_int_equal(wrmsr(0, 0x80b, 0), 0);
	assert_int_equal(wrmsr(0, 0x828, 0), 0);
	assert_int_equal(wrmsr(0, 0x835, 0x1a7ff), 0);
	assert_int_equal(rdmsr(0, 0x835), 0x1a7ff);
}

static void test_init_sipi(void **state)
{
	struct vcpu *ap = fake.v[1];

	ap->r[REG_RIP] = 0xfff0;
	ipi(0, 1, 0x0c611); /* a SIPI first: not waiting for it */
	kvm_lapic_accept_events(ap);
	assert_int_equal(atomic_load(&ap->mp_state), KVM_MP_STATE_UNINITIALIZED);
	ipi(0, 1, 0xc500);
	ipi(0, 1, 0x8500); /* deassert: nothing */
	kvm_lapic_accept_events(ap);
	assert_int_equal(fake.resets, 1);
	assert_int_equal(atomic_load(&ap->mp_state), KVM_MP_STATE_INIT_RECEIVED);
	ipi(0, 1, 0x4612);
	ipi(0, 1, 0x4612);
	kvm_lapic_accept_events(ap);
	assert_int_equal(atomic_load(&ap->mp_state), KVM_MP_STATE_RUNNABLE);
	assert_int_equal(ap->seg[SEG_CS].sel, 0x1200);
	assert_int_equal(ap->seg[SEG_CS].base, 0x12000);
	assert_int_equal(ap->r[REG_RIP], 0);
	ipi(0, 1, 0x4620); /* running: ignored */
	kvm_lapic_accept_events(ap);
	assert_int_equal(ap->seg[SEG_CS].sel, 0x1200);
	/* both in one go; and the boot processor does not wait */
	ipi(0, 1, 0xc500);
	ipi(0, 1, 0x4630);
	kvm_lapic_accept_events(ap);
	assert_int_equal(ap->seg[SEG_CS].sel, 0x3000);
	ipi(1, 0, 0xc500);
	kvm_lapic_accept_events(fake.v[0]);
	assert_int_equal(atomic_load(&fake.v[0]->mp_state), KVM_MP_STATE_RUNNABLE);
}

static void test_timer_oneshot(void **state)
{
	struct vcpu *v = fake.v[0];

	apic_write(v, 0x320, 0x40);
	apic_write(v, 0x3e0, 0xb); /* divide by 1 */
	apic_write(v, 0x380, 1000000);
	fake_advance(400000);
	assert_int_equal(apic_read(v, 0x390), 600000);
	apic_write(v, 0x3e0, 0); /* divide by 2: the count stays, the time doubles */
	assert_int_equal(apic_read(v, 0x390), 600000);
	fake_advance(1199999);
	assert_int_equal(take(0), -1);
	fake_advance(1);
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(apic_read(v, 0x390), 0);
	fake_advance(100000000);
	assert_int_equal(take(0), -1);
	apic_write(v, 0x380, 1000);
	apic_write(v, 0x380, 0); /* stopped */
	fake_advance(100000000);
	assert_int_equal(take(0), -1);
	apic_write(v, 0x320, 0x10040); /* masked: counts, does not interrupt */
	apic_write(v, 0x380, 1000);
	assert_int_equal(apic_read(v, 0x390), 1000);
	fake_advance(2000);
	assert_int_equal(take(0), -1);
	for (unsigned tdcr = 0; tdcr < 16; tdcr++) {
		static const uint8_t div[] = { 2, 4, 8, 16, 32, 64, 128, 1 };

		apic_write(v, 0x3e0, tdcr);
		apic_write(v, 0x380, 1000);
		fake_advance(100 * div[(tdcr & 3) | (tdcr & 8) >> 1]);
		assert_int_equal(apic_read(v, 0x390), 900);
	}
}

static void test_timer_periodic(void **state)
{
	struct vcpu *v = fake.v[0];
	unsigned n = 0;

	apic_write(v, 0x3e0, 0xb);
	apic_write(v, 0x320, 0x20040);
	apic_write(v, 0x380, 1000003);
	for (int i = 0; i < 1000; i++) {
		fake_advance(1000003);
		assert_int_equal(take(0), 0x40); /* never a drift */
		eoi(0);
		assert_int_equal(take(0), -1);
	}
	/* a busy host: one interrupt, and the old phase */
	n = fake.fired;
	fake_jump(5 * 1000003ull + 500000);
	assert_int_equal(fake.fired - n, 1);
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(take(0), -1);
	fake_advance(500002);
	assert_int_equal(take(0), -1);
	fake_advance(1);
	assert_int_equal(take(0), 0x40);
	eoi(0);
	/* hostile: a period of one tick does not flood the host */
	apic_write(v, 0x380, 1);
	n = fake.fired;
	fake_advance(1000000000);
	assert_in_range(fake.fired - n, 1, 1000000000 / KVM_MIN_TIMER_PERIOD);
	assert_in_range(apic_read(v, 0x390), 0, 1);
	/* one-shot from here on: the running count ends it */
	apic_write(v, 0x320, 0x40);
	fake_advance(1000000);
	n = fake.fired;
	fake_advance(1000000000);
	assert_int_equal(fake.fired, n);
}

static void test_timer_deadline(void **state)
{
	struct vcpu *v = fake.v[0];
	uint64_t d;

	kvm_lapic_set_tsc_deadline(v, 1); /* not in that mode: ignored */
	assert_int_equal(kvm_lapic_get_tsc_deadline(v), 0);
	apic_write(v, 0x320, 0x40);
	apic_write(v, 0x380, 1000);
	apic_write(v, 0x320, 0x40040);
	assert_int_equal(apic_read(v, 0x380), 0); /* the change of mode stops the count */
	fake_advance(1000000);
	assert_int_equal(take(0), -1);
	apic_write(v, 0x380, 1000); /* ignored */
	assert_int_equal(apic_read(v, 0x380), 0);

	kvm_lapic_set_tsc_deadline(v, 1); /* past */
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(kvm_lapic_get_tsc_deadline(v), 0);

	d = kvm_read_tsc(v) + kvm_host_tsc_khz() * 20ull; /* 20 ms */
	kvm_lapic_set_tsc_deadline(v, d);
	assert_int_equal(kvm_lapic_get_tsc_deadline(v), d);
	assert_in_range(v->lapic->target - fake.now, 1, 20000001);
	/* The host's timer comes early by the guest's clock: armed again, nothing delivered. */
	fake.now = v->lapic->target;
	v->lapic->timer.fn(v->lapic);
	assert_int_equal(take(0), -1);
	assert_true(v->lapic->target > fake.now);
	while (kvm_read_tsc(v) < d)
		usleep(1000);
	fake.now = v->lapic->target;
	v->lapic->timer.fn(v->lapic);
	assert_int_equal(take(0), 0x40);
	eoi(0);
	assert_int_equal(kvm_lapic_get_tsc_deadline(v), 0);

	kvm_lapic_set_tsc_deadline(v, ~0ull);
	assert_true(v->lapic->target > fake.now + 1000000000000ull);
	kvm_write_tsc(v, 0 - kvm_host_tsc_khz() * 1000ull); /* the counter jumps to 1 s before */
	assert_in_range(v->lapic->target - fake.now, 1, 1000000000);
	kvm_lapic_set_tsc_deadline(v, 0);
	/* without the CPUID bit there is no such mode */
	fake.cpuid.ecx = 0;
	apic_write(v, 0x320, 0x40040);
	assert_int_equal(apic_read(v, 0x320), 0x40);
}

static void test_split_eoi(void **state)
{
	struct vcpu *v = fake.v[0];

	assert_int_equal(apic_read(v, 0x30), 0x01050014); /* directed EOI */
	kvm_msi_deliver(&fake.vm, 0xfee00000, 0x8041);
	assert_int_equal(take(0), 0x41);
	eoi(0);
	assert_true(v->ioapic_eoi_exit);
	assert_int_equal(v->run->eoi.vector, 0x41);
	v->ioapic_eoi_exit = false;
	kvm_msi_deliver(&fake.vm, 0xfee00000, 0x41); /* edge */
	assert_int_equal(take(0), 0x41);
	eoi(0);
	assert_false(v->ioapic_eoi_exit);
	apic_write(v, 0xf0, 0x11ff);
	kvm_msi_deliver(&fake.vm, 0xfee00000, 0x8041);
	assert_int_equal(take(0), 0x41);
	eoi(0);
	assert_false(v->ioapic_eoi_exit);
}

static void test_state(void **state)
{
	struct kvm_lapic_state a, b;
	struct vcpu *v = fake.v[1];

	apic_write(v, 0x80, 0x20);
	apic_write(v, 0xd0, 0x02000000);
	apic_write(v, 0x370, 0xe0);
	apic_write(v, 0x320, 0x20040);
	apic_write(v, 0x3e0, 0xb);
	apic_write(v, 0x380, 1000000);
	fake_advance(300000);
	ipi(1, 1, 0x4051);
	ipi(1, 1, 0x4061);
	assert_int_equal(take(1), 0x61);
	assert_int_equal(kvm_lapic_get(v, &a), 0);
	assert_int_equal(kvm_lapic_set(v, &a), 0);
	assert_int_equal(kvm_lapic_get(v, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	/* On another vCPU's power-up state: it goes on from there. */
	assert_int_equal(take(1), -1);
	eoi(1);
	assert_int_equal(take(1), 0x51);
	eoi(1);
	fake_advance(700000);
	assert_int_equal(take(1), 0x40); /* 70 % of the count were left */
	eoi(1);
	fake_advance(1000000);
	assert_int_equal(take(1), 0x40);

	/* x2APIC ids: the kernel's two formats */
	to_x2(2);
	assert_int_equal(kvm_lapic_get(fake.v[2], &a), 0);
	assert_int_equal(*(uint32_t *)(a.regs + 0x20), 2 << 24);
	assert_int_equal(kvm_lapic_set(fake.v[2], &a), 0);
	fake.vm.config.x2apic_32bit_ids = true;
	assert_int_equal(kvm_lapic_set(fake.v[2], &a), -EINVAL);
	assert_int_equal(kvm_lapic_get(fake.v[2], &b), 0);
	assert_int_equal(*(uint32_t *)(b.regs + 0x20), 2);
	assert_int_equal(kvm_lapic_set(fake.v[2], &b), 0);
	assert_int_equal(rdmsr(2, 0x802), 2);
}

static void exercise(unsigned cpu)
{
	struct vcpu *v = fake.v[cpu];
	unsigned fired = fake.fired;

	for (int i = 0; i < 4 && take(cpu) >= 0; i++)
		eoi(cpu);
	fake_advance(2000000);
	assert_true(fake.fired - fired <= 2000000 / KVM_MIN_TIMER_PERIOD + 2);
	for (unsigned off = 0; off < 0x400; off += 0x10)
		apic_read(v, off);
	ipi(cpu, 0xff, 0x4041);
	ipi(0, 3, 0x4841);
	kvm_cpu_has_interrupt(v);
}

static void test_hostile_state(void **state)
{
	struct kvm_lapic_state good, s;
	uint64_t seed = 3;

	assert_int_equal(kvm_lapic_get(fake.v[1], &good), 0);
	for (unsigned bit = 0; bit < sizeof(s) * 8; bit++) {
		if (bit / 8 % 16 >= 4)
			continue; /* not in a register: see below */
		s = good;
		s.regs[bit / 8] ^= (char)(1 << (bit % 8));
		assert_int_equal(kvm_lapic_set(fake.v[1], &s), 0);
		exercise(1);
	}
	for (int n = 0; n < 1000; n++) {
		for (unsigned i = 0; i < sizeof(s); i += 8) {
			uint64_t r = fake_random(&seed);

			memcpy(s.regs + i, &r, 8);
		}
		assert_int_equal(kvm_lapic_set(fake.v[1], &s), 0);
		exercise(1);
		assert_int_equal(kvm_lapic_get(fake.v[1], &s), 0);
		for (unsigned i = 0; i < sizeof(s); i++) /* bytes between registers stay empty */
			assert_true(i % 16 < 4 || s.regs[i] == 0);
	}
}

/* ---- Several threads --------------------------------------------------------------------------
 */

enum { STRESS_ROUNDS = 5000 };

static atomic_uint stress_handled[256];
static atomic_uint stress_senders;

static void *stress_sender(void *arg)
{
	unsigned vec = (unsigned)(uintptr_t)arg;

	for (unsigned n = 1; n <= STRESS_ROUNDS; n++) {
		kvm_msi_deliver(&fake.vm, 0xfee00000, vec);
		while (atomic_load(&stress_handled[vec]) < n)
			sched_yield();
	}
	atomic_fetch_sub(&stress_senders, 1);
	return NULL;
}

/* A bit set by another thread while this one acknowledges is never forgotten: else this hangs. */
static void test_threads(void **state)
{
	static const unsigned vecs[] = { 0x31, 0x32, 0xe1 };
	pthread_t t[ARRAY_SIZE(vecs)];
	unsigned long idle = 0;

	atomic_store(&stress_senders, ARRAY_SIZE(vecs));
	for (unsigned i = 0; i < ARRAY_SIZE(vecs); i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, stress_sender, (void *)(uintptr_t)vecs[i]), 0);
	while (atomic_load(&stress_senders) && idle < 50000000) {
		/* as the run loop does: only a request makes it look */
		if (atomic_fetch_and(&fake.v[0]->requests, ~(unsigned)REQ_EVENT) & REQ_EVENT) {
			int vec;

			while ((vec = take(0)) >= 0) {
				eoi(0);
				atomic_fetch_add(&stress_handled[vec], 1);
			}
			idle = 0;
		} else {
			idle++;
			sched_yield();
		}
	}
	assert_int_equal(atomic_load(&stress_senders), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(vecs); i++)
		pthread_join(t[i], NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_reset),
		T(test_page),
		T(test_priority),
		T(test_destinations),
		T(test_x2apic_destinations),
		T(test_msi),
		T(test_software_disable),
		T(test_errors),
		T(test_base),
		T(test_x2apic_msrs),
		T(test_init_sipi),
		T(test_timer_oneshot),
		T(test_timer_periodic),
		T(test_timer_deadline),
		cmocka_unit_test_setup_teardown(test_split_eoi, setup_split, teardown),
		T(test_threads),
		T(test_state),
		T(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
