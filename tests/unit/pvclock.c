/* Guest TSC and kvm-clock. [KVM-MSR], [SDM3 17.17] */
#include <linux/kvm_para.h>
#include <time.h>
#include <unistd.h>

#include "chipfake.h"
#include "kvm/x86/tsc.h"

/* The area as [KVM-MSR] has it. */
struct area {
	uint32_t version, pad0;
	uint64_t tsc, system;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};

static int setup(void **state)
{
	fake_start(2, FAKE_SPLIT);
	return 0;
}

static int teardown(void **state)
{
	fake_stop();
	return 0;
}

static struct area *area(gpa_t gpa)
{
	return (struct area *)(fake.ram + gpa);
}

/* What a guest computes. */
static uint64_t guest_clock(const struct area *a, uint64_t tsc)
{
	uint64_t d = tsc - a->tsc;

	d = a->shift < 0 ? d >> -a->shift : d << a->shift;
	return a->system + (uint64_t)((unsigned __int128)d * a->mul >> 32);
}

static uint64_t near(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static void test_tsc(void **state)
{
	struct vcpu *v = fake.v[0], *w = fake.v[1];
	uint64_t a, b, khz = kvm_host_tsc_khz();
	struct timespec t0, t1;

	/* the calibration against a longer measurement: 0.1 % */
	clock_gettime(CLOCK_MONOTONIC, &t0);
	a = kvm_read_tsc(v);
	usleep(50000);
	b = kvm_read_tsc(v);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	double ns = (double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec);
	assert_in_range((uint64_t)((double)(b - a) * 1e6 / ns), khz - khz / 1000, khz + khz / 1000);

	/* in step */
	a = kvm_read_tsc(v);
	b = kvm_read_tsc(w);
	assert_true(b >= a);
	assert_int_equal(v->tsc_offset, w->tsc_offset);

	kvm_write_tsc(v, 1000000000000);
	assert_in_range(kvm_read_tsc(v), 1000000000000, 1000000000000 + khz * 1000);
	assert_int_equal(v->msr.tsc_adjust, v->tsc_offset - w->tsc_offset);
	kvm_write_tsc_adjust(v, 0, false); /* takes it back */
	assert_int_equal(v->tsc_offset, w->tsc_offset);
	kvm_write_tsc_adjust(v, 77, true); /* user space only tells the number */
	assert_int_equal(v->tsc_offset, w->tsc_offset);

	/* user space restores nearly equal counts one after the other */
	kvm_write_tsc_host(v, 5000000000000);
	assert_in_range(kvm_read_tsc(v), 5000000000000, 5000000000000 + khz * 1000);
	usleep(1000);
	kvm_write_tsc_host(w, 5000000000100);
	assert_int_equal(v->tsc_offset, w->tsc_offset);
	kvm_write_tsc_host(w, 9000000000000); /* far away: meant so */
	assert_in_range(kvm_read_tsc(w), 9000000000000, 9000000000000 + khz * 1000);
}

static void test_scaling(void **state)
{
	struct vcpu *v = fake.v[0];
	uint32_t host = kvm_host_tsc_khz();
	uint64_t a, b, h0, h1;

	assert_int_equal(kvm_scale_tsc(host, 12345), 12345);
	assert_int_equal(kvm_scale_tsc(host + host / 5000, 1ull << 60), 1ull << 60); /* 200 ppm */
	assert_int_equal(kvm_scale_tsc(host * 2, 1ull << 62), 1ull << 63);
	a = kvm_read_tsc(v);
	assert_int_equal(kvm_set_tsc_khz(v, host / 2), 0);
	b = kvm_read_tsc(v);
	assert_in_range(b, a, a + host * 100ull); /* goes on */
	h0 = kvm_host_tsc();
	a = kvm_read_tsc(v);
	usleep(20000);
	h1 = kvm_host_tsc();
	b = kvm_read_tsc(v);
	assert_true(near((b - a) * 2, h1 - h0) < (h1 - h0) / 100);
	/* a deadline in guest counts */
	a = kvm_tsc_to_ns(v, kvm_read_tsc(v) + host / 2 * 10ull);
	assert_true(near(a - fake.now, 10000000) < 1000000);
	assert_int_equal(kvm_tsc_to_ns(v, kvm_read_tsc(v)), 0);
	assert_int_equal(kvm_tsc_to_ns(v, 0), 0);
	assert_true(kvm_tsc_to_ns(v, ~0ull) > fake.now);
	assert_int_equal(kvm_set_tsc_khz(v, 0), 0);
	assert_int_equal(v->tsc_khz, host);
}

static void test_clock(void **state)
{
	struct vcpu *v = fake.v[0], *w = fake.v[1];
	struct kvm_clock_data c, set = { .clock = 1ull << 50 };
	uint64_t g;

	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_SYSTEM_TIME_NEW, 0x101), 0);
	assert_int_equal(area(0x100)->version, 0); /* outside the guest: at the next entry */
	assert_true(atomic_load(&v->requests) & REQ_STEAL);
	kvm_pvclock_update(v);
	assert_int_equal(area(0x100)->version, 2);
	assert_int_equal(area(0x100)->flags, 1);
	kvm_pvclock_update(v);
	assert_int_equal(area(0x100)->version, 2); /* nothing has changed */
	atomic_store(&w->in_guest, 1);
	assert_int_equal(kvm_pvclock_msr_write(w, MSR_KVM_SYSTEM_TIME, 0x201), 0);
	assert_int_equal(area(0x200)->version, 2); /* at once */

	/* both processors and KVM_GET_CLOCK tell one time, exactly */
	kvm_clock_get(&fake.vm, &c);
	assert_int_equal(c.flags, KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC);
	g = guest_clock(area(0x100), c.host_tsc + v->tsc_offset);
	assert_int_equal(g, c.clock);
	assert_int_equal(guest_clock(area(0x200), c.host_tsc + w->tsc_offset), c.clock);
	assert_true(near(c.realtime, (uint64_t)time(NULL) * 1000000000) < 3000000000ull);

	/* another offset and another frequency: still the same time */
	kvm_write_tsc(v, 3ull << 40);
	kvm_set_tsc_khz(w, kvm_host_tsc_khz() / 3);
	kvm_pvclock_update(v);
	kvm_pvclock_update(w);
	kvm_clock_get(&fake.vm, &c);
	assert_true(near(guest_clock(area(0x100), kvm_read_tsc(v)), c.clock) < 1000000);
	assert_true(near(guest_clock(area(0x200), kvm_read_tsc(w)), c.clock) < 10000000);

	assert_int_equal(kvm_clock_set(&fake.vm, &set), 0);
	kvm_pvclock_update(v);
	kvm_clock_get(&fake.vm, &c);
	assert_in_range(c.clock, 1ull << 50, (1ull << 50) + 1000000000);
	assert_true(near(guest_clock(area(0x100), kvm_read_tsc(v)), c.clock) < 1000000);
	/* a second later by the real time */
	c.clock = 5;
	c.realtime -= 1000000000;
	assert_int_equal(kvm_clock_set(&fake.vm, &c), 0);
	kvm_clock_get(&fake.vm, &c);
	assert_in_range(c.clock, 1000000000, 2000000000);
	set.flags = 1;
	assert_int_equal(kvm_clock_set(&fake.vm, &set), -EINVAL);
}

static void test_stopped(void **state)
{
	struct vcpu *v = fake.v[0];

	assert_int_equal(kvm_clock_ctrl(v), -EINVAL);
	kvm_pvclock_msr_write(v, MSR_KVM_SYSTEM_TIME_NEW, 1);
	kvm_pvclock_update(v);
	assert_int_equal(area(0)->flags, 1);
	assert_int_equal(kvm_clock_ctrl(v), 0);
	kvm_pvclock_update(v);
	assert_int_equal(area(0)->flags, 3);
	kvm_write_tsc(v, 0);
	kvm_pvclock_update(v);
	assert_int_equal(area(0)->flags, 3); /* until the guest clears it */
	area(0)->flags = 1;
	kvm_write_tsc(v, 0);
	kvm_pvclock_update(v);
	assert_int_equal(area(0)->flags, 1);
}

static void test_wall(void **state)
{
	struct vcpu *v = fake.v[0];
	struct {
		uint32_t version, sec, nsec;
	} w;
	struct kvm_clock_data c;

	atomic_store(&v->in_guest, 1);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_WALL_CLOCK_NEW, 0x400), 0);
	memcpy(&w, fake.ram + 0x400, sizeof(w));
	assert_int_equal(w.version, 2);
	kvm_clock_get(&fake.vm, &c);
	assert_true(near((uint64_t)w.sec * 1000000000 + w.nsec + c.clock, c.realtime) < 100000000);
}

static void test_msrs(void **state)
{
	struct vcpu *v = fake.v[0];
	struct kvm_steal_time st;
	uint64_t val;

	assert_int_equal(kvm_pvclock_msr_write(v, 0x10, 0), -1);
	assert_int_equal(kvm_pvclock_msr_read(v, 0x10, &val), -1);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_STEAL_TIME, 0x603), 1);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_STEAL_TIME, 0x601), 0);
	assert_int_equal(kvm_pvclock_msr_read(v, MSR_KVM_STEAL_TIME, &val), 0);
	assert_int_equal(val, 0x601);
	kvm_pvclock_update(v);
	memcpy(&st, fake.ram + 0x600, sizeof(st));
	assert_int_equal(st.version, 2);
	assert_int_equal(st.preempted, 0);
	kvm_pvclock_update(v); /* not again so soon */
	memcpy(&st, fake.ram + 0x600, sizeof(st));
	assert_int_equal(st.version, 2);
	fake.now += 20000000;
	kvm_pvclock_update(v);
	memcpy(&st, fake.ram + 0x600, sizeof(st));
	assert_int_equal(st.version, 4);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_PV_EOI_EN, 1), 1);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_PV_EOI_EN, 0), 0);
	/* areas outside RAM: no harm */
	atomic_store(&v->in_guest, 1);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_SYSTEM_TIME, ~0ull), 0);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_WALL_CLOCK, ~0ull), 0);
	assert_int_equal(kvm_pvclock_msr_write(v, MSR_KVM_STEAL_TIME, ~0ull << 6 | 1), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_tsc),     T(test_scaling), T(test_clock),
		T(test_stopped), T(test_wall),    T(test_msrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
