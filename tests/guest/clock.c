/*
 * Clocks against each other: the TSC, the PIT, the local APIC timer, the RTC and, where the
 * hypervisor offers it, kvm-clock. References: [SDM3 18.17], [KVM-MSR].
 */
#include "apic.h"

enum { MSR_KVM_WALL_CLOCK = 0x4b564d00, MSR_KVM_SYSTEM_TIME = 0x4b564d01 };

struct pv_time {
	volatile u32 version;
	u32 pad0;
	u64 tsc, system;
	u32 mul;
	signed char shift;
	u8 flags, pad[2];
} __attribute__((packed, aligned(32)));

static struct pv_time pv;
static volatile struct {
	u32 version, sec, nsec;
} wall __attribute__((aligned(16)));

/* The features leaf of KVM, 0 elsewhere. */
static u32 kvm_features(void)
{
	const struct cpuid_regs r = cpuid(0x40000000, 0);

	if (r.b != 0x4b4d564b || r.c != 0x564b4d56 || r.d != 0x4d || r.a < 0x40000001)
		return 0;
	return cpuid(0x40000001, 0).a;
}

static u64 pv_read(void)
{
	u64 ns;
	u32 version;

	do {
		u64 delta;
		u64 high, low;

		version = pv.version & ~1u;
		BARRIER();
		delta = rdtsc() - pv.tsc;
		delta = pv.shift < 0 ? delta >> -pv.shift : delta << pv.shift;
		__asm__("mulq %3" : "=a"(low), "=d"(high) : "a"(delta), "r"((u64)pv.mul) : "cc");
		ns = pv.system + (high << 32 | low >> 32);
		BARRIER();
	} while (version != pv.version);
	return ns;
}

TEST(kvm_clock)
{
	u64 a, b, last;

	if (!(kvm_features() & 8))
		SKIP("no kvm-clock");
	wrmsr(MSR_KVM_SYSTEM_TIME, (ulong)&pv | 1);
	CHECK_EQ(rdmsr(MSR_KVM_SYSTEM_TIME), (ulong)&pv | 1);
	CHECK(pv.version != 0);
	CHECK_EQ(pv.version & 1, 0);
	CHECK(pv.mul != 0);
	a = last = pv_read();
	for (unsigned i = 0; i < 10000; i++) {
		const u64 now = pv_read();

		CHECK(now >= last);
		last = now;
	}
	a = pv_read();
	pit_delay_us(20000);
	b = pv_read();
	CHECK(b - a >= 19900000); /* never too short; how much longer is the host's business */
	CHECK(b - a < 5000000000ull);
	wrmsr(MSR_KVM_SYSTEM_TIME, 0);
	wrmsr(MSR_KVM_WALL_CLOCK, (ulong)&wall);
	CHECK_EQ(wall.version & 1, 0);
	CHECK(wall.version != 0);
	CHECK(wall.sec > 1600000000);
	CHECK(wall.nsec < 1000000000);
}

TEST(kvm_clock_hostile)
{
	struct trap t;

	if (!(kvm_features() & 8))
		SKIP("no kvm-clock");
	/* far outside RAM: refused or ignored, never fatal */
	CATCH(t, wrmsr(MSR_KVM_SYSTEM_TIME, 0x0000fffffffff001ull));
	CHECK(t.vec == -1 || t.vec == VEC_GP);
	CATCH(t, wrmsr(MSR_KVM_WALL_CLOCK, 0x0000fffffffff000ull));
	CHECK(t.vec == -1 || t.vec == VEC_GP);
	rdtsc();
	wrmsr(MSR_KVM_SYSTEM_TIME, 0);
}

/* Two stretches of the same length by the PIT last about the same by the TSC and the APIC timer. */
TEST(rates)
{
	u64 tsc;
	u32 apic;
	bool close = false;

	apic_init(false);
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, 1u << 16);
	for (unsigned try = 0; try < 20 && !close; try++) {
		u64 t0, t1, t2;
		u32 c0, c1, c2;

		apic_write(APIC_TMICT, 0xffffffff);
		t0 = rdtsc();
		c0 = apic_read(APIC_TMCCT);
		pit_delay_us(10000);
		t1 = rdtsc();
		c1 = apic_read(APIC_TMCCT);
		pit_delay_us(10000);
		t2 = rdtsc();
		c2 = apic_read(APIC_TMCCT);
		tsc = t1 - t0;
		apic = c0 - c1;
		/* a busy host stretches one of them now and then: some attempt comes out even */
		close = (t2 - t1) * 5 > tsc * 4 && (t2 - t1) * 4 < tsc * 5 &&
			(u64)(c1 - c2) * 5 > (u64)apic * 4 && (u64)(c1 - c2) * 4 < (u64)apic * 5;
	}
	CHECK(close);
	apic_write(APIC_TMICT, 0);
}

TEST(rtc_runs)
{
	u8 seconds;
	unsigned ms;

	outb(0x70, 0x0d);
	if (inb(0x71) == 0xff)
		SKIP("no RTC");
	CHECK_EQ(inb(0x71) & 0x80, 0x80); /* the battery is good */
	outb(0x70, 0x0b);
	outb(0x71, 0x02); /* BCD, 24 hours */
	outb(0x70, 0x00);
	seconds = inb(0x71);
	CHECK((seconds & 0xf) < 10 && seconds < 0x60);
	for (ms = 0; ms < 1500; ms++) {
		u8 now;

		pit_delay_us(1000);
		outb(0x70, 0x00);
		now = inb(0x71);
		if (now != seconds)
			break;
	}
	CHECK(ms < 1500);
	outb(0x70, 0x32);
	{
		const u8 century = inb(0x71);

		CHECK(century == 0x20);
	}
}
