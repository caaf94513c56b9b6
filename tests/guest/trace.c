/*
 * Loops that run often enough to become traces of the translator, and then meet what a trace must
 * not get wrong: the end of a page in the middle of a group of accesses, rights that differ between
 * a load and a store, base registers that change, device memory, code and mappings that change
 * under them, interrupts that wait. On a processor they are just loops. References:
 * [SDM3 4.7, 6.5, 8.1.3].
 */
#include "page.h"

#include "apic.h"

#define WINDOW 0x20000000000ul /* pages mapped as the tests like, a hole behind them */
#define TURNS  3000

static u8 ram[4 * PAGE] __attribute__((aligned(4096)));
static struct page_pool pool;

/* Two pages of RAM at WINDOW, the second with these bits; nothing behind it. */
static void window(u64 second)
{
	page_init(&pool, GUEST_FREE);
	page_map(&pool, WINDOW, (ulong)ram, PTE_P | PTE_W);
	page_map(&pool, WINDOW + PAGE, (ulong)ram + PAGE, second);
	write_cr3((ulong)pool.root);
	guest_memset(ram, 0, sizeof(ram));
}

/* ---- Groups --------------------------------------------------------------------------------- */

/* Three accesses off one base, up to the first that faults. Returns the base then. */
static ulong triple(ulong from, ulong step, struct trap *t)
{
	static volatile ulong at;

	CATCH(
		*t, for (at = from;;) {
			ulong p = at;

			__asm__ volatile("1: mov %0, %1\n\t"
					 "mov (%0), %%rax\n\t"
					 "add 8(%0), %%rax\n\t"
					 "mov %%rax, 16(%0)\n\t"
					 "add %2, %0\n\t"
					 "jmp 1b"
					 : "+r"(p), "=m"(at)
					 : "r"(step)
					 : "rax", "memory", "cc");
		});
	return at;
}

TEST(group_over_the_end)
{
	ulong cr3 = read_cr3(), at;
	struct trap t;

	window(PTE_P | PTE_W);
	for (ulong off = 0; off < 24; off++) {
		at = triple(WINDOW + off, 24, &t);
		CHECK_EQ(t.vec, VEC_PF);
		CHECK_EQ(t.err, at + 16 <= WINDOW + 2 * PAGE ? PF_W : 0); /* the store, or a load */
		CHECK(at + 24 > WINDOW + 2 * PAGE && at <= WINDOW + 2 * PAGE);
		CHECK_EQ(t.cr2, WINDOW + 2 * PAGE);
		CHECK_EQ((at - WINDOW - off) % 24, 0);
	}
	write_cr3(cr3);
}

TEST(group_into_read_only)
{
	ulong cr3 = read_cr3(), at;
	struct trap t;

	window(PTE_P);
	for (ulong off = 0; off < 16; off += 8) {
		at = triple(WINDOW + off, 8, &t);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
		CHECK_EQ(at, WINDOW + PAGE - 16);
		CHECK_EQ(t.cr2, WINDOW + PAGE);
	}
	/* the loads of a turn are right, its store is not */
	for (ulong off = 0; off < 64; off += 8) {
		CHECK_EQ(*(volatile u64 *)(WINDOW + PAGE + off), 0);
		at = triple(WINDOW + PAGE + off, 8, &t);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
		CHECK_EQ(at, WINDOW + PAGE + off);
		CHECK_EQ(t.cr2, at + 16);
	}
	write_cr3(cr3);
}

/* The base is the same in each turn, and the page's rights change between two runs. */
TEST(fixed_group_and_rights)
{
	volatile u64 *p = (u64 *)(WINDOW + PAGE + 64);
	ulong cr3 = read_cr3();
	volatile unsigned n = 0;
	struct trap t;

	window(PTE_P | PTE_W);
	for (unsigned k = 0; k < TURNS; k++)
		p[0] += p[1] + 1;
	CHECK_EQ(p[0], TURNS);
	page_map(&pool, WINDOW + PAGE, (ulong)ram + PAGE, PTE_P);
	CATCH(t, for (n = 0; n < TURNS; n++) p[0] += p[1] + 1);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(n, 0);
	CHECK_EQ(p[0], TURNS);
	/* the same address is other memory now */
	page_map(&pool, WINDOW + PAGE, (ulong)ram + 2 * PAGE, PTE_P | PTE_W);
	for (unsigned k = 0; k < TURNS; k++)
		p[0] += p[1] + 1;
	CHECK_EQ(p[0], TURNS);
	CHECK_EQ(*(u64 *)(ram + PAGE + 64), TURNS);
	CHECK_EQ(*(u64 *)(ram + 2 * PAGE + 64), TURNS);
	write_cr3(cr3);
}

TEST(base_from_the_stack)
{
	u64 chain[8], sum = 0;
	ulong p = (ulong)chain;

	for (unsigned k = 0; k < 8; k++)
		chain[k] = (ulong)&chain[(k + 3) % 8];
	for (unsigned k = 0; k < TURNS; k++) {
		__asm__ volatile("push (%0)\n\t"
				 "mov %0, %%rax\n\t"
				 "pop %0\n\t"
				 "sub (%0), %%rax\n\t"
				 "add %%rax, %1"
				 : "+r"(p), "+r"(sum)
				 :
				 : "rax", "memory", "cc");
		CHECK_EQ(p, (ulong)&chain[(k + 1) * 3 % 8]);
	}
	/* each turn adds p - chain[next]: the sum of a whole round is 0 */
	CHECK_EQ((long)sum % 8, 0);
}

/* gs:0 += gs:8 + 1, TURNS times; the same code for each base. */
static __attribute__((noinline)) void count_in_gs(void)
{
	for (unsigned k = 0; k < TURNS; k++)
		__asm__ volatile("mov %%gs:(%0), %%rax\n\t"
				 "add %%gs:8(%0), %%rax\n\t"
				 "inc %%rax\n\t"
				 "mov %%rax, %%gs:(%0)" ::"r"(0ul)
				 : "rax", "memory", "cc");
}

TEST(segment_bases)
{
	static u64 area[4];

	wrmsr(0xc0000101, (ulong)area);
	count_in_gs();
	CHECK_EQ(area[0], TURNS);
	wrmsr(0xc0000101, (ulong)(area + 2));
	count_in_gs();
	CHECK_EQ(area[2], TURNS);
	CHECK_EQ(area[0], TURNS);
	wrmsr(0xc0000101, 0);
}

#define DEV 0xff000000ul

/* RAM, then device memory, by the same loop. */
TEST(device_memory)
{
	volatile u32 *d = (u32 *)DEV, *m = (u32 *)ram;

	for (unsigned turn = 0; turn < 2; turn++) {
		volatile u32 *p = turn ? d : m;

		p[0] = 0;
		p[1] = 3;
		for (unsigned k = 0; k < 500; k++)
			p[0] += p[1];
		CHECK_EQ(p[0], 1500);
	}
}

/* ---- Code and mappings ----------------------------------------------------------------------- */

static u32 call_n(const volatile void *p, unsigned n)
{
	u32 sum = 0;

	while (n--) {
		u32 v;

		__asm__ volatile("call *%1" : "=a"(v) : "r"(p) : "rcx", "rdx", "memory", "cc");
		sum += v;
	}
	return sum;
}

/* mov $v, %eax; ret */
static void put_mov(volatile u8 *p, u8 v)
{
	p[0] = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	p[5] = 0xc3;
}

TEST(code_on_the_path_changes)
{
	for (u8 v = 1; v < 5; v++) {
		put_mov(ram, v);
		CHECK_EQ(call_n(ram, TURNS), TURNS * v);
	}
}

/* A path through two pages; the second is mapped elsewhere, nothing is written. */
TEST(page_on_the_path_is_remapped)
{
	static const u8 jump[] = { 0xe9, 0xfb, 0x0f, 0, 0 }; /* jmp to the same place a page on */
	ulong cr3 = read_cr3();

	window(PTE_P | PTE_W);
	guest_memcpy(ram, jump, sizeof(jump));
	for (u8 n = 1; n < 3; n++)
		put_mov(ram + n * PAGE, n);
	for (unsigned k = 0; k < 6; k++) {
		page_map(&pool, WINDOW + PAGE, (ulong)ram + (1 + (k & 1)) * PAGE, PTE_P | PTE_W);
		CHECK_EQ(call_n((void *)WINDOW, 500), 500 * (1 + (k & 1)));
	}
	write_cr3(cr3);
}

/* The same by a switch of address space, many times. */
TEST(address_spaces_take_turns)
{
	static const u8 jump[] = { 0xe9, 0xfb, 0x0f, 0, 0 };
	static struct page_pool other;
	ulong cr3 = read_cr3();

	window(PTE_P | PTE_W);
	page_init(&other, GUEST_FREE + 64 * PAGE);
	page_map(&other, WINDOW, (ulong)ram, PTE_P | PTE_W);
	page_map(&other, WINDOW + PAGE, (ulong)ram + 2 * PAGE, PTE_P | PTE_W);
	guest_memcpy(ram, jump, sizeof(jump));
	for (u8 n = 1; n < 3; n++)
		put_mov(ram + n * PAGE, n);
	for (unsigned k = 0; k < 100; k++) {
		write_cr3((ulong)(k & 1 ? other.root : pool.root));
		CHECK_EQ(call_n((void *)WINDOW, 40), 40 * (1 + (k & 1)));
	}
	write_cr3(cr3);
}

/* ---- Control -------------------------------------------------------------------------------- */

static u32 plus(u32 x)
{
	return x + 1;
}
static u32 twice(u32 x)
{
	return x * 2;
}

/* The target of an indirect call, and where a function returns to, change after a while. */
TEST(targets_change)
{
	u32 (*volatile f)(u32) = plus;
	u32 x = 0;

	for (unsigned k = 0; k < 2 * TURNS; k++) {
		if (k == TURNS)
			f = twice;
		x = f(x) % 1000;
	}
	CHECK_EQ(x, 0);
	f = plus;
	for (unsigned k = 0; k < TURNS; k++)
		x = f(x);
	for (unsigned k = 0; k < 5; k++)
		x = f(x);
	CHECK_EQ(x, TURNS + 5);
}

static volatile unsigned ticks;

static void tick(struct frame *f)
{
	ticks++;
	apic_eoi();
}

/* A loop goes on while an interrupt waits that is masked, and takes it when it is not. */
TEST(interrupts_that_wait)
{
	u64 sum = 0;

	apic_init(false);
	trap_hook(0x70, tick);
	ticks = 0;
	apic_ipi(apic_read(0x20) >> 24, 0x4070);
	for (unsigned k = 0; k < TURNS; k++)
		sum += k;
	CHECK_EQ(sum, (u64)TURNS * (TURNS - 1) / 2);
	CHECK_EQ(ticks, 0);
	__asm__ volatile("sti" ::: "memory");
	for (unsigned k = 0; k < TURNS && !ticks; k++)
		BARRIER();
	CHECK_EQ(ticks, 1);
	/* one in each turn of a loop that waits for it */
	for (unsigned k = 0; k < 200; k++) {
		apic_ipi(apic_read(0x20) >> 24, 0x4070);
		while (ticks != k + 2)
			BARRIER();
	}
	__asm__ volatile("cli" ::: "memory");
	CHECK_EQ(ticks, 201);
	trap_hook(0x70, NULL);
}

/* Of a comparison that finds a >= b, both small. */
static u64 flags_of_cmp(unsigned a, unsigned b)
{
	return (a == b ? 0x40 : 0) | ((a & 15) < (b & 15) ? 0x10 : 0) |
	       (__builtin_parity((a - b) & 0xff) ? 0 : 4);
}

/* Flags that are only read where the path is left. */
TEST(flags_at_an_exit)
{
	u64 flags = 0;

	for (unsigned k = 0; k < TURNS; k++) {
		u64 f;

		__asm__ volatile("mov %1, %%eax\n\t"
				 "cmp $2990, %%eax\n\t" /* CF while below */
				 "mov (%2), %%rcx\n\t"  /* a lookup in between */
				 "jae 1f\n\t"
				 "xor %k0, %k0\n\t"
				 "jmp 2f\n"
				 "1:\tpushf\n\t"
				 "pop %0\n"
				 "2:"
				 : "=&r"(f)
				 : "r"(k), "r"(ram)
				 : "rax", "rcx", "memory", "cc");
		if (k < 2990)
			CHECK_EQ(f, 0);
		else
			CHECK_EQ(f & 0x8d5, flags_of_cmp(k, 2990));
		flags += f;
	}
	CHECK(flags != 0);
}
