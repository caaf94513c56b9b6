/* The I/O APIC, with real local APICs behind it. [IOAPIC] */
#include "chipfake.h"

#define BASE 0xfec00000ull

static int setup(void **state)
{
	fake_start(2, FAKE_FULL);
	apic_on(fake.v[0]);
	apic_on(fake.v[1]);
	for (unsigned i = 0; i < 2; i++)
		apic_write(fake.v[i], 0x350, 0x10000); /* keep the PIC out */
	return 0;
}

static int teardown(void **state)
{
	fake_stop();
	return 0;
}

static uint32_t rd(unsigned reg)
{
	fake_writel(BASE, reg);
	return fake_readl(BASE + 0x10);
}

static void wr(unsigned reg, uint32_t val)
{
	fake_writel(BASE, reg);
	fake_writel(BASE + 0x10, val);
}

static void rte(unsigned pin, uint64_t val)
{
	wr(0x11 + 2 * pin, (uint32_t)(val >> 32));
	wr(0x10 + 2 * pin, (uint32_t)val);
}

static int line(unsigned pin, int level)
{
	int r;

	pthread_mutex_lock(&fake.vm.irq_lock);
	r = kvm_ioapic_set_irq(&fake.vm, pin, KVM_IRQ_SOURCE_USER, level);
	pthread_mutex_unlock(&fake.vm.irq_lock);
	return r;
}

static int take(unsigned cpu)
{
	return kvm_cpu_has_interrupt(fake.v[cpu]) ? kvm_cpu_get_interrupt(fake.v[cpu]) : -1;
}

static void eoi(unsigned cpu)
{
	apic_write(fake.v[cpu], 0xb0, 0);
}

static void test_registers(void **state)
{
	assert_int_equal(rd(1), 0x00170011);
	assert_int_equal(rd(0x10), 0x10000); /* masked at reset */
	wr(0, 0xffffffff);
	assert_int_equal(rd(0), 0x0f000000);
	assert_int_equal(rd(2), 0x0f000000);
	wr(1, 0);
	assert_int_equal(rd(1), 0x00170011);
	rte(3, ~0ull);
	/* delivery status and remote IRR are not writable; the reserved bits are not there */
	assert_int_equal(rd(0x16), 0x0001afff);
	assert_int_equal(rd(0x17), 0xff000000);
	assert_int_equal(rd(0x40), 0);
	assert_int_equal(rd(0x0f), 0);
	wr(0xff, 1);
	assert_int_equal(fake_readl(BASE), 0xff);
	assert_int_equal(fake_readl(BASE + 0x40), 0); /* no EOI register in this version */
}

static void test_edge(void **state)
{
	rte(4, 0x34);
	assert_int_equal(line(4, 1), 1);
	assert_int_equal(take(1), -1);
	assert_int_equal(take(0), 0x34);
	eoi(0);
	assert_int_equal(fake.acks[KVM_IRQCHIP_IOAPIC][4], 1);
	assert_int_equal(take(0), -1);
	assert_int_equal(line(4, 1), 0); /* no edge */
	assert_int_equal(take(0), -1);
	line(4, 0);
	line(4, 1);
	assert_int_equal(take(0), 0x34);
	eoi(0);
	line(4, 0);
	rte(4, 0x10034);
	assert_true(line(4, 1) < 0); /* masked: the edge is lost, as on the chip */
	rte(4, 0x34);
	assert_int_equal(take(0), -1);
}

static void test_level(void **state)
{
	rte(10, 1ull << 56 | 0x8000 | 0x45); /* to CPU 1 */
	assert_true(line(10, 1) > 0);
	assert_int_equal(rd(0x10 + 20), 0xc045); /* remote IRR */
	assert_int_equal(take(1), 0x45);
	assert_true(apic_read(fake.v[1], 0x180 + 0x20) & 1 << 5); /* TMR */
	assert_true(line(10, 1) < 0);
	assert_int_equal(take(1), -1);
	eoi(1);
	assert_int_equal(take(1), 0x45); /* still asserted */
	line(10, 0);
	eoi(1);
	assert_int_equal(rd(0x10 + 20), 0x8045);
	assert_int_equal(take(1), -1);
	assert_int_equal(fake.acks[KVM_IRQCHIP_IOAPIC][10], 2);

	/* asserted while masked: delivered when it is unmasked */
	rte(10, 1ull << 56 | 0x18045);
	line(10, 1);
	assert_int_equal(take(1), -1);
	rte(10, 1ull << 56 | 0x8045);
	assert_int_equal(take(1), 0x45);
	/* made an edge for a moment: remote IRR goes */
	rte(10, 1ull << 56 | 0x10045);
	assert_int_equal(rd(0x10 + 20), 0x10045);
}

static void test_modes(void **state)
{
	rte(1, 1ull << 56 | DM_NMI << 8);
	line(1, 1);
	assert_int_equal(atomic_load(&fake.v[1]->ev.nmi_pending), 1);
	rte(2, 1ull << 56 | 0x8000 | DM_INIT << 8);
	line(2, 1);
	assert_true(atomic_load(&fake.v[1]->pending_events) & VCPU_EV_INIT);
	assert_false(rd(0x14) & 1 << 14); /* nobody would end it */
	rte(3, 1ull << 56 | DM_SMI << 8);
	line(3, 1);
	rte(5, 1ull << 56 | DM_EXTINT << 8 | 0x50);
	line(5, 1);
	assert_int_equal(take(1), -1);
	/* lowest priority, logical, both: the one with the lower PPR */
	apic_write(fake.v[0], 0xd0, 0x01000000);
	apic_write(fake.v[1], 0xd0, 0x02000000);
	apic_write(fake.v[0], 0x80, 0x20);
	rte(6, 3ull << 56 | 0x800 | DM_LOWEST << 8 | 0x61);
	for (int i = 0; i < 4; i++) {
		line(6, 1);
		line(6, 0);
		assert_int_equal(take(0), -1);
		assert_int_equal(take(1), 0x61);
		eoi(1);
	}
	/* fixed, logical, both */
	rte(7, 3ull << 56 | 0x800 | 0x62);
	assert_int_equal(line(7, 1), 2);
	assert_int_equal(take(0), 0x62);
	assert_int_equal(take(1), 0x62);
	/* nobody there */
	rte(8, 9ull << 56 | 0x63);
	assert_true(line(8, 1) < 0);
	assert_true(line(24, 1) < 0);
}

static void test_state(void **state)
{
	struct kvm_irqchip a = { .chip_id = KVM_IRQCHIP_IOAPIC }, b = a;

	assert_int_equal(kvm_chip_state_hole(&kvm_ioapic_table, 0),
			 offsetof(struct kvm_ioapic_state, pad)); /* nothing but the pad */
	assert_int_equal(
		kvm_chip_state_hole(&kvm_ioapic_table, offsetof(struct kvm_ioapic_state, redirtbl)),
		-1);
	rte(4, 0x34);
	rte(10, 1ull << 56 | 0x8045);
	rte(11, 1ull << 56 | 0x18046);
	line(4, 1);
	line(10, 1);
	line(11, 1);
	wr(0, 0x05000000);
	assert_int_equal(kvm_irqchip_get(&fake.vm, &a), 0);
	assert_int_equal(a.chip.ioapic.irr, 1 << 10 | 1 << 11); /* 4 was delivered */
	assert_int_equal(kvm_irqchip_set(&fake.vm, &a), 0);
	assert_int_equal(kvm_irqchip_get(&fake.vm, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	/* An unsent edge and an unsent level of the loaded state are sent. */
	take(0);
	take(1);
	eoi(0);
	a.chip.ioapic.irr = 1 << 4 | 1 << 10;
	a.chip.ioapic.redirtbl[10].fields.remote_irr = 0;
	assert_int_equal(kvm_irqchip_set(&fake.vm, &a), 0);
	assert_int_equal(take(0), 0x34);
}

static void exercise(void)
{
	for (unsigned i = 0; i < 24; i++) {
		line(i, 1);
		line(i, 0);
	}
	for (unsigned cpu = 0; cpu < 2; cpu++)
		for (int i = 0; i < 30 && take(cpu) >= 0; i++)
			eoi(cpu);
	for (unsigned i = 0; i < 0x40; i++)
		rd(i);
	rd(fake_readl(BASE));
}

static void test_hostile_state(void **state)
{
	struct kvm_irqchip good = { .chip_id = KVM_IRQCHIP_IOAPIC }, c;
	uint64_t seed = 2;

	rte(10, 1ull << 56 | 0x8045);
	assert_int_equal(kvm_irqchip_get(&fake.vm, &good), 0);
	for (unsigned bit = 0; bit < sizeof(struct kvm_ioapic_state) * 8; bit++) {
		c = good;
		c.chip.dummy[bit / 8] ^= (char)(1 << (bit % 8));
		assert_int_equal(kvm_irqchip_set(&fake.vm, &c), 0);
		exercise();
	}
	c.chip_id = KVM_IRQCHIP_IOAPIC;
	for (int n = 0; n < 500; n++) {
		for (unsigned i = 0; i < sizeof(struct kvm_ioapic_state); i++)
			c.chip.dummy[i] = (char)fake_random(&seed);
		assert_int_equal(kvm_irqchip_set(&fake.vm, &c), 0);
		exercise();
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_edge),  T(test_level),
		T(test_modes),     T(test_state), T(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
