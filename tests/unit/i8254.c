/* The 8254 and port 61h. [8254] */
#include "chipfake.h"

#define HZ 1193182ull

static int setup(void **state)
{
	const struct kvm_pit_config config = { .flags = KVM_PIT_SPEAKER_DUMMY };

	fake_start(1, FAKE_FULL);
	assert_int_equal(kvm_pit_create(&fake.vm, &config), 0);
	assert_int_equal(kvm_pit_create(&fake.vm, &config), -EEXIST);
	/* IRQ 0 at vector 20h, nothing else */
	fake_outb(0x20, 0x11);
	fake_outb(0x21, 0x20);
	fake_outb(0x21, 0x04);
	fake_outb(0x21, 0x01);
	fake_outb(0x21, 0xfe);
	return 0;
}

static int teardown(void **state)
{
	fake_stop();
	return 0;
}

static uint64_t ns_of(uint64_t ticks)
{
	return (ticks * 1000000000 + HZ - 1) / HZ;
}

static int take(void)
{
	return kvm_cpu_has_interrupt(fake.v[0]) ? kvm_cpu_get_interrupt(fake.v[0]) : -1;
}

static void eoi(void)
{
	fake_outb(0x20, 0x20);
}

static void program(unsigned ch, unsigned mode, bool bcd, uint16_t count)
{
	fake_outb(0x43, (uint8_t)(ch << 6 | 0x30 | mode << 1 | bcd));
	fake_outb((uint16_t)(0x40 + ch), (uint8_t)count);
	fake_outb((uint16_t)(0x40 + ch), (uint8_t)(count >> 8));
}

static unsigned count(unsigned ch)
{
	unsigned lo;

	fake_outb(0x43, (uint8_t)(ch << 6)); /* latch */
	lo = fake_inb((uint16_t)(0x40 + ch));
	return lo | (unsigned)fake_inb((uint16_t)(0x40 + ch)) << 8;
}

static bool out2(void)
{
	return fake_inb(0x61) & 0x20;
}

static void test_count_modes(void **state)
{
	fake_outb(0x61, 1);
	program(2, 0, false, 1000);
	assert_false(out2());
	fake_advance(ns_of(400));
	assert_int_equal(count(2), 600);
	fake_outb(0x61, 0); /* GATE stops mode 0 */
	fake_advance(ns_of(5000));
	assert_int_equal(count(2), 600);
	fake_outb(0x61, 1);
	fake_advance(ns_of(599));
	assert_false(out2());
	fake_advance(ns_of(2));
	assert_true(out2());
	assert_in_range(count(2), 0xfffe, 0xffff); /* it counts on */

	program(2, 1, false, 1000); /* the one-shot waits for GATE */
	assert_true(out2());
	fake_advance(ns_of(5000));
	assert_true(out2());
	fake_outb(0x61, 0);
	fake_outb(0x61, 1);
	assert_false(out2());
	fake_advance(ns_of(500));
	fake_outb(0x61, 0);
	fake_outb(0x61, 1); /* retriggered */
	fake_advance(ns_of(999));
	assert_false(out2());
	fake_advance(ns_of(2));
	assert_true(out2());

	program(2, 2, false, 1000);
	for (int i = 0; i < 3; i++) {
		assert_true(out2());
		fake_advance(ns_of(1000) - 400); /* in the last clock */
		assert_false(out2());
		fake_advance(400);
	}
	assert_in_range(count(2), 999, 1000);
	fake_advance(ns_of(300));
	assert_in_range(count(2), 699, 700);
	fake_outb(0x61, 0);
	assert_true(out2());
	fake_outb(0x61, 1); /* starts over */
	assert_int_equal(count(2), 1000);

	program(2, 3, false, 1001);
	fake_advance(ns_of(500));
	assert_true(out2()); /* 501 high, 500 low */
	fake_advance(ns_of(1));
	assert_false(out2());
	fake_advance(ns_of(500));
	assert_true(out2());
	program(2, 3, false, 1000);
	fake_advance(ns_of(100));
	assert_int_equal(count(2), 800); /* by two */

	program(2, 4, false, 100);
	fake_advance(ns_of(99));
	assert_true(out2());
	fake_advance(ns_of(1));
	assert_false(out2()); /* the strobe */
	fake_advance(ns_of(1));
	assert_true(out2());

	program(2, 5, false, 100);
	fake_advance(ns_of(100));
	assert_true(out2());
	fake_outb(0x61, 0);
	fake_outb(0x61, 1);
	fake_advance(ns_of(100));
	assert_false(out2());
}

static void test_bcd(void **state)
{
	fake_outb(0x61, 1);
	program(2, 2, true, 0x1234);
	assert_int_equal(count(2), 0x1234);
	fake_advance(ns_of(35));
	assert_int_equal(count(2), 0x1199);
	program(2, 0, true, 0); /* ten thousand */
	assert_int_equal(count(2), 0);
	fake_advance(ns_of(1));
	assert_int_equal(count(2), 0x9999);
	program(2, 0, true, 0xffff); /* no such digits: no harm */
	count(2);
	program(2, 0, false, 0);
	fake_advance(ns_of(1));
	assert_int_equal(count(2), 0xffff);
}

static void test_access(void **state)
{
	fake_outb(0x61, 1);
	fake_outb(0x43, 0x94); /* channel 2, LSB, mode 2 */
	fake_outb(0x42, 0x80);
	assert_int_equal(fake_inb(0x42), 0x80);
	assert_int_equal(fake_inb(0x42), 0x80);
	fake_outb(0x43, 0xa4); /* MSB */
	fake_outb(0x42, 0x12);
	assert_int_equal(fake_inb(0x42), 0x12);
	fake_outb(0x43, 0x80); /* a latch gives the byte of the access mode */
	assert_int_equal(fake_inb(0x42), 0x12);
	assert_int_equal(fake_inb(0x42), 0x12);
	fake_outb(0x43, 0xb4); /* both */
	fake_outb(0x42, 0x34);
	fake_outb(0x42, 0x12);
	assert_int_equal(fake_inb(0x42), 0x34);
	assert_int_equal(fake_inb(0x42), 0x12);
	/* a latched count stands still and is read once */
	fake_outb(0x43, 0x80);
	fake_advance(ns_of(0x100));
	fake_outb(0x43, 0x80); /* the second latch does nothing */
	assert_int_equal(fake_inb(0x42), 0x34);
	assert_int_equal(fake_inb(0x42), 0x12);
	assert_int_equal(fake_inb(0x42), 0x34);
	assert_int_equal(fake_inb(0x42), 0x11);
	/* read-back: status, then count */
	fake_outb(0x43, 0xc8);
	assert_int_equal(fake_inb(0x42), 0xb4);
	assert_int_equal(fake_inb(0x42), 0x34);
	assert_int_equal(fake_inb(0x42), 0x11);
	fake_outb(0x43, 0xb0);
	fake_outb(0x43, 0xe8); /* status only: no count yet, OUT low */
	assert_int_equal(fake_inb(0x42), 0x70);
	assert_int_equal(fake_inb(0x43), 0);
	/* modes 6 and 7 are 2 and 3 */
	fake_outb(0x43, 0xbc);
	fake_outb(0x43, 0xe8);
	assert_int_equal(fake_inb(0x42) & 0x3e, 0x34);
	/* port 61h: what was written, and the refresh bit */
	fake_outb(0x61, 0xff);
	assert_int_equal(fake_inb(0x61) & 3, 3);
	uint8_t a = fake_inb(0x61);
	fake_advance(1 << 14);
	assert_int_equal((a ^ fake_inb(0x61)) & 0x10, 0x10);
}

static void test_periodic(void **state)
{
	uint64_t start = fake.now;

	program(0, 2, false, 11932);
	for (uint64_t i = 1; i <= 500; i++) {
		uint64_t at = start + ns_of(i * 11932);

		fake_advance(at - 1 - fake.now);
		assert_int_equal(take(), -1);
		fake_advance(1);
		assert_int_equal(take(), 0x20); /* exact to the ns, no drift */
		eoi();
	}
	fake_outb(0x43, 0x30); /* a control word stops it */
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
}

static void test_oneshot(void **state)
{
	program(0, 0, false, 5000);
	fake_advance(ns_of(4999));
	assert_int_equal(take(), -1);
	fake_advance(ns_of(1));
	assert_int_equal(take(), 0x20);
	eoi();
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
	program(0, 4, false, 5000);
	fake_advance(ns_of(5000));
	assert_int_equal(take(), 0x20);
	eoi();
	program(0, 1, false, 5000); /* GATE0 never rises */
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
}

static void test_reinject(void **state)
{
	unsigned n = 0;

	program(0, 2, false, 11932);
	fake_advance(ns_of(11932 * 10)); /* the guest sleeps over ten ticks */
	while (take() == 0x20) {
		n++;
		eoi();
	}
	assert_int_equal(n, 10);
	fake_jump(ns_of(11932 * 7)); /* the host sleeps */
	for (n = 0; take() == 0x20; n++)
		eoi();
	assert_int_equal(n, 7);
	fake_jump(3600ull * 1000000000); /* an hour: bounded */
	for (n = 0; take() == 0x20; n++)
		eoi();
	assert_int_equal(n, 10000);

	assert_int_equal(kvm_pit_reinject(&fake.vm, false), 0);
	fake_advance(ns_of(11932 * 10));
	for (n = 0; take() == 0x20; n++)
		eoi();
	assert_int_equal(n, 1);
	assert_int_equal(kvm_pit_reinject(&fake.vm, true), 0);

	/* masked everywhere: no debt, and it goes on when unmasked */
	fake_advance(ns_of(11932));
	assert_int_equal(take(), 0x20);
	eoi();
	fake_outb(0x21, 0xff);
	fake_advance(ns_of(11932 * 10));
	fake_outb(0x21, 0xfe);
	for (n = 0; take() == 0x20; n++)
		eoi();
	assert_in_range(n, 0, 1);
	fake_advance(ns_of(11932));
	assert_int_equal(take(), 0x20);
	/* reset of the PIC in the middle of a tick: the next ones still come */
	fake_outb(0x20, 0x11);
	fake_outb(0x21, 0x20);
	fake_outb(0x21, 0x04);
	fake_outb(0x21, 0x01);
	fake_outb(0x21, 0xfe);
	fake_advance(ns_of(11932));
	assert_int_equal(take(), 0x20);
}

/* The same through the IOAPIC: the LAPIC's EOI is the acknowledge. */
static void test_reinject_ioapic(void **state)
{
	struct vcpu *v = fake.v[0];
	unsigned n = 0;

	fake_outb(0x21, 0xff);
	apic_on(v);
	fake_writel(0xfec00000, 0x10);
	fake_writel(0xfec00010, 0x30);
	program(0, 2, false, 11932);
	fake_advance(ns_of(11932 * 5));
	while (take() == 0x30) {
		n++;
		apic_write(v, 0xb0, 0);
	}
	assert_int_equal(n, 5);
	/* LINT0 as the NMI watchdog */
	apic_write(v, 0x350, 0x400);
	fake_advance(ns_of(11932));
	assert_int_equal(atomic_load(&v->ev.nmi_pending), 1);
}

static void test_fast_period(void **state)
{
	unsigned n = fake.fired;

	kvm_pit_reinject(&fake.vm, false);
	program(0, 2, false, 2);
	fake_advance(100000000);
	assert_in_range(fake.fired - n, 1, 100000000 / KVM_MIN_TIMER_PERIOD + 1);
	program(0, 3, false, 1);
	fake_advance(100000000);
	count(0);
}

static void test_state(void **state)
{
	struct kvm_pit_state2 a, b;

	assert_int_equal(kvm_chip_state_hole(&kvm_pit_table, 0),
			 offsetof(struct kvm_pit_state2, reserved));
	program(0, 2, false, 11932);
	program(2, 3, true, 0x4321);
	fake_outb(0x61, 3);
	fake_advance(ns_of(5000));
	fake_outb(0x43, 0xca);
	fake_outb(0x42, 0x55);
	fake_inb(0x42);
	assert_int_equal(kvm_pit_get(&fake.vm, &a), 0);
	assert_int_equal(a.channels[0].count, 11932);
	assert_int_equal(a.flags, KVM_PIT_FLAGS_SPEAKER_DATA_ON);
	assert_int_equal(kvm_pit_set(&fake.vm, &a), 0);
	assert_int_equal(kvm_pit_get(&fake.vm, &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	/* the phase is kept, the past is not owed */
	fake_advance(ns_of(11932 - 5000) + 1);
	assert_int_equal(take(), 0x20);
	eoi();
	assert_int_equal(take(), -1);
	/* restored hours later: the next tick only */
	assert_int_equal(kvm_pit_get(&fake.vm, &a), 0);
	fake_outb(0x43, 0x30);
	fake_advance(3600ull * 1000000000);
	assert_int_equal(kvm_pit_set(&fake.vm, &a), 0);
	fake_advance(ns_of(11932));
	assert_int_equal(take(), 0x20);
	eoi();
	assert_int_equal(take(), -1);
	/* a stopped and an untriggered channel */
	fake_outb(0x61, 1);
	program(2, 0, false, 1000);
	fake_advance(ns_of(100));
	fake_outb(0x61, 0);
	fake_advance(ns_of(500));
	assert_int_equal(kvm_pit_get(&fake.vm, &a), 0);
	assert_int_equal(kvm_pit_set(&fake.vm, &a), 0);
	assert_int_equal(count(2), 900);
	program(2, 1, false, 1000);
	assert_int_equal(kvm_pit_get(&fake.vm, &a), 0);
	assert_int_equal(kvm_pit_set(&fake.vm, &a), 0);
	assert_true(out2());
	/* the HPET has taken IRQ 0 */
	a.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
	assert_int_equal(kvm_pit_set(&fake.vm, &a), 0);
	fake_advance(1000000000);
	assert_int_equal(take(), -1);
}

static void exercise(void)
{
	unsigned fired = fake.fired;

	fake_advance(2000000);
	assert_true(fake.fired - fired <= 2000000 / KVM_MIN_TIMER_PERIOD + 2);
	for (int i = 0; i < 3 && take() >= 0; i++)
		eoi();
	for (unsigned ch = 0; ch < 3; ch++) {
		count(ch);
		fake_inb((uint16_t)(0x40 + ch));
	}
	fake_outb(0x43, 0xce);
	fake_inb(0x40);
	fake_outb(0x42, 1);
	fake_outb(0x61, 1);
	fake_inb(0x61);
	fake_outb(0x61, 0);
}

static void test_hostile_state(void **state)
{
	struct kvm_pit_state2 good, s;
	uint64_t seed = 4;

	program(0, 2, false, 11932);
	program(2, 3, false, 100);
	assert_int_equal(kvm_pit_get(&fake.vm, &good), 0);
	for (unsigned bit = 0; bit < sizeof(s) * 8; bit++) {
		s = good;
		((uint8_t *)&s)[bit / 8] ^= (uint8_t)(1 << (bit % 8));
		assert_int_equal(kvm_pit_set(&fake.vm, &s), 0);
		exercise();
	}
	for (int n = 0; n < 3000; n++) {
		for (unsigned i = 0; i < sizeof(s); i++)
			((uint8_t *)&s)[i] = (uint8_t)fake_random(&seed);
		for (unsigned i = 0; i < 3; i++) /* or every one is "unprogrammed" */
			s.channels[i].mode &= 7;
		assert_int_equal(kvm_pit_set(&fake.vm, &s), 0);
		exercise();
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_count_modes),     T(test_bcd),         T(test_access),
		T(test_periodic),        T(test_oneshot),     T(test_reinject),
		T(test_reinject_ioapic), T(test_fast_period), T(test_state),
		T(test_hostile_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
