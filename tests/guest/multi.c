/*
 * Two or more vCPUs: LOCK atomics on aligned operands and on ones that straddle cache lines and
 * pages, store buffering, IPIs in each addressing form, NMI, INIT, cross-modifying code, TLB
 * shootdown, the common TSC. References: [SDM3 8, 11.6].
 */
#include "apic.h"
#include "page.h"

#define NEED_TWO() \
	do { \
		if (smp_boot() < 2) \
			SKIP("one CPU"); \
	} while (0)

enum { ROUNDS = 20000 };
static u8 arena[4 * 4096] __attribute__((aligned(4096)));
static volatile u32 go;

struct adder {
	volatile u8 *at;
	unsigned size;
};

static void add_loop(void *arg)
{
	const struct adder *a = arg;
	volatile u8 *p = a->at;

	for (unsigned i = 0; i < ROUNDS; i++)
		switch (a->size) {
		case 1: __asm__ volatile("lock addb $1, %0" : "+m"(*p)::"cc"); break;
		case 2: __asm__ volatile("lock incw %0" : "+m"(*(volatile u16 *)p)::"cc"); break;
		case 4: {
			u32 one = 1;

			__asm__ volatile("lock xadd %1, %0"
					 : "+m"(*(volatile u32 *)p), "+r"(one)::"cc");
			break;
		}
		case 8: {
			u64 old = *(volatile u64 *)p;

			while (!({
				u8 z;

				__asm__ volatile("lock cmpxchg %3, %0\n\tsetz %1"
						 : "+m"(*(volatile u64 *)p), "=qm"(z), "+a"(old)
						 : "r"(old + 1)
						 : "cc");
				z;
			}))
				;
			break;
		}
		}
}

static void both(volatile u8 *at, unsigned size)
{
	struct adder a = { at, size };

	guest_memset(arena, 0, sizeof(arena));
	smp_start(1, add_loop, &a);
	add_loop(&a);
	smp_wait(1);
}

TEST(atomics_aligned)
{
	NEED_TWO();
	both(arena + 64, 1);
	CHECK_EQ(arena[64], (2 * ROUNDS) & 0xff);
	both(arena + 64, 2);
	CHECK_EQ(*(u16 *)(arena + 64), (2 * ROUNDS) & 0xffff);
	both(arena + 64, 4);
	CHECK_EQ(*(u32 *)(arena + 64), 2 * ROUNDS);
	both(arena + 64, 8);
	CHECK_EQ(*(u64 *)(arena + 64), 2 * ROUNDS);
}

TEST(atomics_split_line)
{
	NEED_TWO();
	both(arena + 127, 2);
	CHECK_EQ(*(u16 *)(arena + 127), (2 * ROUNDS) & 0xffff);
	both(arena + 126, 4);
	CHECK_EQ(*(u32 *)(arena + 126), 2 * ROUNDS);
	both(arena + 123, 8);
	CHECK_EQ(*(u64 *)(arena + 123), 2 * ROUNDS);
}

TEST(atomics_split_page)
{
	NEED_TWO();
	both(arena + 4095, 2);
	CHECK_EQ(*(u16 *)(arena + 4095), (2 * ROUNDS) & 0xffff);
	both(arena + 4094, 4);
	CHECK_EQ(*(u32 *)(arena + 4094), 2 * ROUNDS);
	both(arena + 4089, 8);
	CHECK_EQ(*(u64 *)(arena + 4089), 2 * ROUNDS);
}

static volatile u64 pair[2] __attribute__((aligned(16)));

static void cmpxchg16_loop(void *arg)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		u64 lo = pair[0], hi = pair[1];
		u8 z;

		do {
			__asm__ volatile("lock cmpxchg16b %0\n\tsetz %1"
					 : "+m"(*(volatile __int128 *)pair), "=qm"(z), "+a"(lo),
					   "+d"(hi)
					 : "b"(lo + 1), "c"(hi + 3)
					 : "cc");
		} while (!z);
	}
}

TEST(cmpxchg16b)
{
	NEED_TWO();
	pair[0] = pair[1] = 0;
	smp_start(1, cmpxchg16_loop, NULL);
	cmpxchg16_loop(NULL);
	smp_wait(1);
	CHECK_EQ(pair[0], 2 * ROUNDS);
	CHECK_EQ(pair[1], 6 * ROUNDS);
}

static volatile u32 lock_word, guarded;

static void xchg_lock_loop(void *arg)
{
	for (unsigned i = 0; i < ROUNDS / 10; i++) {
		u32 v = 1;

		do {
			v = 1;
			__asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(lock_word)::"memory");
			if (v)
				cpu_pause();
		} while (v);
		guarded++;
		BARRIER();
		lock_word = 0;
	}
}

TEST(xchg_spinlock)
{
	NEED_TWO();
	guarded = 0;
	smp_start(1, xchg_lock_loop, NULL);
	xchg_lock_loop(NULL);
	smp_wait(1);
	CHECK_EQ(guarded, 2 * (ROUNDS / 10));
}

/* Message passing: x86 keeps stores in order and loads in order. */
static volatile u32 mp_data, mp_flag, mp_bad;

static void mp_reader(void *arg)
{
	u32 last = 0;

	while (last < ROUNDS) {
		u32 f = mp_flag, d = mp_data;

		if (d < f)
			mp_bad = 1;
		last = f;
	}
}

TEST(store_order)
{
	NEED_TWO();
	mp_data = mp_flag = mp_bad = 0;
	smp_start(1, mp_reader, NULL);
	for (u32 i = 1; i <= ROUNDS; i++) {
		mp_data = i;
		mp_flag = i;
	}
	smp_wait(1);
	CHECK_EQ(mp_bad, 0);
}

static volatile unsigned got[MAX_CPUS], got_nmi[MAX_CPUS];
static volatile u32 ap_stop, ap_ready;

static void on_ipi(struct frame *f)
{
	got[cpu_self()->index]++;
	apic_eoi();
}

static void on_nmi(struct frame *f)
{
	got_nmi[cpu_self()->index]++;
}

static void wait_with_interrupts(void *arg)
{
	__asm__ volatile("lock incl %0" : "+m"(ap_ready)::"memory");
	while (!ap_stop)
		__asm__ volatile("sti\n\thlt\n\tcli" ::: "memory");
}

static void take_pending(void *arg)
{
	sti_nop_cli();
}

/* It may have seen ap_stop before the interrupt that was to wake it for that: it takes it here. */
static void wait_ended(void)
{
	smp_wait(1);
	smp_start(1, take_pending, NULL);
	smp_wait(1);
}

static bool reached(unsigned cpu, unsigned want)
{
	for (unsigned tries = 0; tries < 50000 && got[cpu] < want; tries++)
		pit_delay_us(100);
	return got[cpu] == want;
}

TEST(ipis)
{
	unsigned n, id;

	NEED_TWO();
	n = smp_boot();
	id = cpus[1].apic_id;
	trap_hook(0x71, on_ipi);
	guest_memset((void *)got, 0, sizeof(got));
	ap_stop = ap_ready = 0;
	smp_start(1, wait_with_interrupts, NULL);
	while (!ap_ready)
		cpu_pause();
	apic_ipi(id, 0x71); /* physical */
	CHECK(reached(1, 1));
	apic_ipi(0, 0xc0000 | 0x71); /* all but self; others hold it until they look */
	CHECK(reached(1, 2));
	CHECK_EQ(got[0], 0);
	apic_ipi(0, 0x80000 | 0x71); /* all */
	sti_nop_cli();
	CHECK(reached(1, 3));
	CHECK_EQ(got[0], 1);
	apic_ipi(0xff, 0x71); /* the physical broadcast */
	sti_nop_cli();
	CHECK(reached(1, 4));
	CHECK_EQ(got[0], 2);
	ap_stop = 1;
	apic_ipi(id, 0x71);
	wait_ended();
	CHECK_EQ(got[1], 5);
	(void)n;
}

static void set_ldr(void *arg)
{
	apic_write(APIC_DFR, ((u32 *)arg)[0]);
	apic_write(APIC_LDR, ((u32 *)arg)[1]);
}

TEST(logical_destinations)
{
	u32 mine[2] = { 0xffffffff, 0x01000000 }, its[2] = { 0xffffffff, 0x02000000 };

	NEED_TWO();
	trap_hook(0x71, on_ipi);
	guest_memset((void *)got, 0, sizeof(got));
	for (unsigned cluster = 0; cluster < 2; cluster++) {
		if (cluster) {
			mine[0] = its[0] = 0x0fffffff;
			mine[1] = 0x21000000;
			its[1] = 0x22000000;
		}
		set_ldr(mine);
		smp_start(1, set_ldr, its);
		smp_wait(1);
		ap_stop = ap_ready = 0;
		got[0] = got[1] = 0;
		smp_start(1, wait_with_interrupts, NULL);
		while (!ap_ready)
			cpu_pause();
		apic_ipi(its[1] >> 24, 0x800 | 0x71);
		CHECK(reached(1, 1));
		apic_ipi((its[1] | mine[1]) >> 24, 0x800 | 0x71);
		sti_nop_cli();
		CHECK(reached(1, 2));
		CHECK_EQ(got[0], 1);
		apic_ipi(cluster ? 0x14 : 0x10, 0x800 | 0x71); /* nobody */
		sti_nop_cli();
		CHECK_EQ(got[0], 1);
		CHECK_EQ(got[1], 2);
		ap_stop = 1;
		apic_ipi(its[1] >> 24, 0x800 | 0x71);
		wait_ended();
	}
	set_ldr((u32[]){ 0xffffffff, 0 });
}

static void halt_until_nmi(void *arg)
{
	ap_ready = 1;
	while (!got_nmi[1])
		__asm__ volatile("cli\n\thlt" ::: "memory");
}

TEST(nmi_wakes_hlt)
{
	NEED_TWO();
	trap_hook(VEC_NMI, on_nmi);
	got_nmi[1] = ap_ready = 0;
	smp_start(1, halt_until_nmi, NULL);
	while (!ap_ready)
		cpu_pause();
	pit_delay_us(2000);
	apic_ipi(cpus[1].apic_id, 0x400);
	smp_wait(1);
	CHECK_EQ(got_nmi[1], 1);
}

/* Cross-modifying code: the other CPU calls a function whose immediate changes under it. */
static u8 code[64] __attribute__((aligned(64)));
volatile u32 xmc_want;
static volatile u32 xmc_seen, xmc_end, xmc_bad;

static u32 call_code(void)
{
	u32 v;

	__asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
	return v;
}

static void xmc_runner(void *arg)
{
	u32 last = 0;

	while (!xmc_end) {
		u32 want = xmc_want, v;

		cpuid(0, 0); /* serializing, as the protocol asks */
		v = call_code();
		if (v < want || v < last)
			xmc_bad = 1;
		last = v;
		xmc_seen = v;
	}
}

TEST(cross_modifying_code)
{
	NEED_TWO();
	code[0] = 0xb8; /* mov $imm32, %eax; ret: the immediate is within one aligned line */
	*(u32 *)(code + 1) = 0;
	code[5] = 0xc3;
	xmc_seen = xmc_want = xmc_end = xmc_bad = 0;
	smp_start(1, xmc_runner, NULL);
	for (u32 i = 1; i <= 500; i++) {
		*(volatile u32 *)(code + 1) = i;
		xmc_want = i;
		if (i % 50 == 0)
			for (unsigned ms = 0; ms < 10000 && xmc_seen != i; ms++)
				pit_delay_us(100);
		if (i % 50 == 0)
			CHECK_EQ(xmc_seen, i);
	}
	xmc_end = 1;
	smp_wait(1);
	CHECK_EQ(xmc_bad, 0);
}

/*
 * The same with all of the runner in one page, joined by direct branches, and much time between its
 * last jump back and the serializing instruction: nothing but that tells it that code has changed.
 * di = what was wanted before it, ax = what the code says.
 */
SNIPPET(xmc_page, ".balign 4096\n\t"
		  ".global xmc_turn, xmc_code\n"
		  "xmc_turn: push %rbx\n\t"
		  ".rept 12\n\t"
		  "xor %eax, %eax\n\t"
		  "cpuid\n\t"
		  ".endr\n\t"
		  "mov xmc_want(%rip), %edi\n\t"
		  "xor %eax, %eax\n\t"
		  "cpuid\n\t"
		  "call xmc_code\n\t"
		  "pop %rbx\n\t"
		  "ret\n\t"
		  ".balign 64\n"
		  "xmc_code: mov $0, %eax\n\t"
		  "ret\n\t"
		  ".balign 4096\n");
extern u8 xmc_turn[], xmc_code[];

static void xmc_direct_runner(void *arg)
{
	while (!xmc_end) {
		u32 v, want;

		__asm__ volatile("call *%2"
				 : "=a"(v), "=D"(want)
				 : "r"(xmc_turn)
				 : "rcx", "rdx", "memory", "cc");
		if (v < want)
			xmc_bad++;
		xmc_seen = v;
	}
}

TEST(cross_modifying_code_by_direct_calls)
{
	NEED_TWO();
	xmc_seen = xmc_want = xmc_end = xmc_bad = 0;
	smp_start(1, xmc_direct_runner, NULL);
	for (u32 i = 1; i <= 3000; i++) {
		*(volatile u32 *)(xmc_code + 1) = i;
		xmc_want = i;
		if (i % 10 == 0)
			for (unsigned ms = 0; ms < 10000 && xmc_seen != i; ms++)
				pit_delay_us(20);
		if (i % 10 == 0)
			CHECK_EQ(xmc_seen, i);
	}
	xmc_end = 1;
	smp_wait(1);
	CHECK_EQ(xmc_bad, 0);
}

/* Shootdown: CPU 1 uses a mapping, CPU 0 changes it and asks by IPI for INVLPG. */
#define SHOOT_VA 0x10000000000ul
static struct page_pool pool;
static volatile u32 shot;

static void on_shoot(struct frame *f)
{
	invlpg(SHOOT_VA);
	shot++;
	apic_eoi();
}

static void shoot_reader(void *arg)
{
	const ulong old = read_cr3();
	u64 last = 0;

	write_cr3((ulong)pool.root);
	ap_ready = 1;
	while (!ap_stop) {
		u32 s = shot;
		u64 v;

		BARRIER();
		v = *(volatile u64 *)SHOOT_VA;
		if (v < s || v < last)
			mp_bad = 1;
		last = v;
		sti_nop_cli();
	}
	write_cr3(old);
}

TEST(tlb_shootdown)
{
	const ulong frames = GUEST_FREE + 0x400000;
	const ulong old = read_cr3();

	NEED_TWO();
	page_init(&pool, GUEST_FREE);
	write_cr3((ulong)pool.root);
	trap_hook(0x72, on_shoot);
	shot = mp_bad = ap_stop = ap_ready = 0;
	for (u64 i = 0; i < 40; i++)
		*(volatile u64 *)(frames + i * PAGE) = i;
	page_map(&pool, SHOOT_VA, frames, PTE_P | PTE_W);
	smp_start(1, shoot_reader, NULL);
	while (!ap_ready)
		cpu_pause();
	for (u32 i = 1; i < 40; i++) {
		page_map(&pool, SHOOT_VA, frames + i * PAGE, PTE_P | PTE_W);
		apic_ipi(cpus[1].apic_id, 0x72);
		while (shot != i)
			cpu_pause();
	}
	ap_stop = 1;
	smp_wait(1);
	CHECK_EQ(mp_bad, 0);
	write_cr3(old);
}

static volatile u64 other_tsc;

/* RDTSC may run before loads that stand before it have their data ([SDM2B RDTSC]). */
static u64 tsc_in_order(void)
{
	u64 x;

	__asm__ volatile("mfence; lfence" ::: "memory");
	x = rdtsc();
	__asm__ volatile("lfence" ::: "memory");
	return x;
}

static void take_tsc(void *arg)
{
	other_tsc = tsc_in_order();
}

TEST(tsc_agrees)
{
	NEED_TWO();
	for (unsigned i = 0; i < 40; i++) {
		const u64 a = tsc_in_order();

		smp_start(1, take_tsc, NULL);
		smp_wait(1);
		CHECK(other_tsc >= a);
		CHECK(tsc_in_order() >= other_tsc);
	}
}

static void on_x2_ipi(struct frame *f)
{
	got[cpu_self()->index]++;
	wrmsr(0x80b, 0);
}

static void to_x2apic(void *arg)
{
	wrmsr(MSR_APICBASE, rdmsr(MSR_APICBASE) | 1u << 10);
}

/* There is no direct way back: disable, then enable. */
static void to_xapic(void *arg)
{
	const u64 base = rdmsr(MSR_APICBASE) & ~(3ull << 10);

	wrmsr(MSR_APICBASE, base);
	wrmsr(MSR_APICBASE, base | 1u << 11);
	apic_init(false);
}

TEST(x2apic_ipis)
{
	u64 id, logical;

	NEED_TWO();
	if (!HAS_1C(21))
		SKIP("no x2APIC");
	id = cpus[1].apic_id;
	logical = id >> 4 << 16 | 1u << (id & 15);
	smp_start(1, to_x2apic, NULL);
	smp_wait(1);
	to_x2apic(NULL);
	trap_hook(0x73, on_x2_ipi);
	guest_memset((void *)got, 0, sizeof(got));
	ap_stop = ap_ready = 0;
	smp_start(1, wait_with_interrupts, NULL);
	while (!ap_ready)
		cpu_pause();
	wrmsr(0x830, id << 32 | 0x73);
	CHECK(reached(1, 1));
	wrmsr(0x830, logical << 32 | 0x873);
	CHECK(reached(1, 2));
	wrmsr(0x830, (logical | rdmsr(0x80d)) << 32 | 0x873); /* one cluster */
	sti_nop_cli();
	CHECK(reached(1, 3));
	CHECK_EQ(got[0], 1);
	wrmsr(0x830, (logical | 0xffff0000) << 32 | 0x873); /* another cluster: nobody */
	wrmsr(0x830, 0xffffffffull << 32 | 0x73);           /* broadcast */
	sti_nop_cli();
	CHECK(reached(1, 4));
	CHECK_EQ(got[0], 2);
	wrmsr(0x830, 0xc0000 | 0x73); /* all but self */
	CHECK(reached(1, 5));
	sti_nop_cli();
	CHECK_EQ(got[0], 2);
	ap_stop = 1;
	wrmsr(0x830, id << 32 | 0x73);
	wait_ended();
	smp_start(1, to_xapic, NULL);
	smp_wait(1);
	to_xapic(NULL);
	CHECK_EQ(apic_read(APIC_ID) >> 24, cpus[0].apic_id);
}

/* INIT stops a CPU whatever it does; SIPI starts it again through the trampoline, as a new CPU. */
TEST(init_restarts)
{
	extern volatile u32 ap_next;
	unsigned n;

	NEED_TWO();
	n = smp_boot();
	if (n != 2)
		SKIP("for two CPUs");
	ap_next = 1;
	apic_ipi(cpus[1].apic_id, 0x4500);
	pit_delay_us(2000);
	gdt_set(SEL_TSS + 16, (gdt_get(SEL_TSS + 16) & ~(0xffull << 40)) | 0x89ull << 40);
	cpus[1].started = cpus[1].done = 0;
	apic_ipi(cpus[1].apic_id, 0x4600 | AP_TRAMPOLINE >> 12);
	other_tsc = 0;
	smp_start(1, take_tsc, NULL);
	for (unsigned ms = 0; ms < 5000 && !(other_tsc && ap_next == 2); ms++)
		pit_delay_us(1000);
	CHECK(other_tsc != 0);
	/* a second SIPI is ignored by a CPU that runs */
	apic_ipi(cpus[1].apic_id, 0x4600 | AP_TRAMPOLINE >> 12);
	pit_delay_us(2000);
	CHECK_EQ(ap_next, 2);
}
