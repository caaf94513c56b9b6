/*
 * What kernels do at every entry and exit, many times over, so that it runs in code that the
 * translator has made: interrupts after STI, IRET and SYSRET, flags, AC, GS, strings.
 * References: [SDM2B STI, PUSHF, SYSRET, SWAPGS], [SDM2A IRET, CLAC], [SDM3 4.6.1, 6.8.3].
 */
#include "apic.h"
#include "page.h"

enum { IPI = 0x71, TICK = 0xd0 };

static volatile ulong got, got_ip, got_cs, got_flags;

static void on_irq(struct frame *f)
{
	got++;
	got_ip = f->ip;
	got_cs = f->cs;
	got_flags = f->flags;
	apic_eoi();
}

static void setup(void)
{
	apic_init(false);
	pic_init();
	trap_hook(IPI, on_irq);
	trap_hook(TICK, on_irq);
	got = 0;
}

static u32 my_id(void)
{
	return apic_read(APIC_ID) >> 24;
}

static void tick(bool on)
{
	apic_write(APIC_TDCR, 0xb);
	apic_write(APIC_LVTT, on ? 0x20000 | TICK : 0x10000);
	apic_write(APIC_TMICT, on ? 20000 : 0);
}

/* A timer that fires at any moment never gets in between STI and CLI. */
TEST(sti_cli)
{
	setup();
	tick(true);
	for (unsigned i = 0; i < 100000; i++)
		__asm__ volatile("sti\n\tcli" ::: "memory");
	CHECK_EQ(got, 0);
	for (unsigned i = 0; i < 300000000 && got < 3; i++) /* a busy host's timers are late */
		__asm__ volatile("sti\n\tnop\n\tcli" ::: "memory");
	CHECK(got >= 3);
	tick(false);
	__asm__ volatile("sti\n\tnop\n\tcli" ::: "memory");
}

/* The second of two STIs has no shadow, nor has one when IF was set. */
TEST(sti_sti)
{
	ulong before;

	setup();
	for (unsigned i = 1; i < 20; i++) {
		apic_ipi(my_id(), IPI);
		__asm__ volatile("sti\n\tsti\n\tmov %1, %0\n\tcli" : "=r"(before) : "m"(got));
		CHECK_EQ(before, i);
	}
}

/* It is the instruction after STI that runs, though a fault or a branch. */
TEST(sti_branch)
{
	ulong x;

	setup();
	for (unsigned i = 1; i < 20; i++) {
		apic_ipi(my_id(), IPI);
		__asm__ volatile("sti\n\tjmp 1f\n2:\tud2\n1:\tmov %1, %0\n\tcli\n\t"
				 ".pushsection .rodata\n\t.popsection"
				 : "=r"(x)
				 : "m"(got));
		CHECK_EQ(x, i);
		apic_ipi(my_id(), IPI);
		__asm__ volatile("lea 1f(%%rip), %0\n\tpush %0\n\tsti\n\tret\n1:\tcli\n\tmov %0, %0"
				 : "=&r"(x)
				 :
				 : "memory");
		CHECK_EQ(got_ip, x);
		got = i;
	}
}

TEST(pushf_popf)
{
	for (unsigned i = 0; i < 64; i++) {
		const ulong want = (i & 1 ? FL_CF : 0) | (i & 2 ? FL_AC : 0) | (i & 4 ? FL_DF : 0) |
				   (i & 8 ? FL_IOPL : 0) | (i & 16 ? FL_ID : 0) |
				   (i & 32 ? 0x8d4 : 0);
		ulong seen, off;

		__asm__ volatile("push %2\n\tpopf\n\tpushf\n\tcli\n\tpushf\n\tpop %1\n\tpop %0\n\t"
				 "push $2\n\tpopf"
				 : "=&r"(seen), "=&r"(off)
				 : "r"(want | 2)
				 : "memory", "cc");
		CHECK_EQ(seen, want | 2);
		CHECK_EQ(off, want | 2);
	}
}

SNIPPET(u_pushf, "mov $1, %eax\n\tadd $-1, %eax\n\tpushf\n\tpop %rbx\n\tcli\n\t" USER_END);

TEST(user_flags)
{
	struct trap t;

	setup();
	for (unsigned i = 0; i < 8; i++) {
		/* IOPL 0: CLI faults, and IF is seen */
		run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_pushf, (ulong)user_stack_top, 2 | FL_IF,
		       NULL);
		CHECK_TRAP(t, VEC_GP, 0);
		CHECK_EQ(t.bx & 0xffff & ~(ulong)FL_AF, 2 | FL_IF | FL_CF | FL_ZF | FL_PF);
		/* IOPL 3: CLI works */
		run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_pushf, (ulong)user_stack_top,
		       2 | FL_IF | FL_IOPL, NULL);
		CHECK_EQ(t.vec, VEC_USER_EXIT);
		CHECK_EQ(t.bx & (FL_IF | FL_IOPL), FL_IF | FL_IOPL);
		CHECK_EQ(t.flags & (FL_IF | FL_IOPL), FL_IOPL);
	}
}

SNIPPET(u_nothing, "nop\n\tnop\n\t" USER_END);
SNIPPET(k_sysret, "mov %rsi, %rsp\n\tmov %rdi, %rcx\n\tmov %rdx, %r11\n\tsysretq");

/* An interrupt that waits is taken before the first instruction at level 3. */
TEST(return_to_interrupt)
{
	struct trap t;
	const ulong r[4] = { (ulong)u_nothing, (ulong)user_stack_top, 2 | FL_IF };

	setup();
	wrmsr(MSR_STAR, 0x0020000800000000ull);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	for (unsigned i = 0; i < 20; i++) {
		got = 0;
		apic_ipi(my_id(), IPI);
		run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_nothing, (ulong)user_stack_top,
		       2 | FL_IF, NULL);
		CHECK_EQ(t.vec, VEC_USER_EXIT);
		CHECK_EQ(got, 1);
		CHECK_EQ(got_ip, (ulong)u_nothing);
		CHECK_EQ(got_cs, SEL_UCODE64);
		got = 0;
		apic_ipi(my_id(), IPI);
		CATCH(t, __asm__ volatile("jmp *%0" ::"r"(k_sysret), "D"(r[0]), "S"(r[1]), "d"(r[2])
					  : "memory"));
		CHECK_EQ(t.vec, VEC_USER_EXIT);
		CHECK_EQ(got, 1);
		CHECK_EQ(got_ip, (ulong)u_nothing);
		CHECK_EQ(got_cs, SEL_UCODE64);
		CHECK_EQ(got_flags, 2 | FL_IF);
	}
}

TEST(sysret_not_canonical)
{
	struct trap t;

	setup();
	wrmsr(MSR_STAR, 0x0020000800000000ull);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	for (unsigned i = 0; i < 4; i++) {
		CATCH(t, __asm__ volatile("jmp *%0" ::"r"(k_sysret), "D"(0x0000800000000000ull),
					  "S"(user_stack_top), "d"(2ul)
					  : "memory"));
		CHECK_TRAP(t, VEC_GP, 0);
		CHECK_EQ(t.cs, cpu_is_amd() ? SEL_UCODE64 : SEL_CODE64);
	}
}

/* IRET inside level 0, from a frame with every kind of flag; NT and bad frames fault. */
TEST(iret_here)
{
	struct trap t;

	for (unsigned i = 0; i < 20; i++) {
		const ulong want = 2 | (i & 1 ? FL_CF : 0) | (i & 2 ? FL_IOPL : 0) |
				   (i & 4 ? FL_DF : 0) | (i & 8 ? FL_AC : 0);
		ulong seen, sp;

		__asm__ volatile("mov %%rsp, %1\n\tpushq %3\n\tpush %1\n\tpush %2\n\tpushq %4\n\t"
				 "lea 1f(%%rip), %0\n\tpush %0\n\tiretq\n1:\tpushf\n\tpop %0\n\t"
				 "sub %%rsp, %1\n\tpush $2\n\tpopf"
				 : "=&r"(seen), "=&r"(sp)
				 : "r"(want), "i"(SEL_DATA), "i"(SEL_CODE64)
				 : "memory", "cc");
		CHECK_EQ(seen, want);
		CHECK_EQ(sp, 0);
		CATCH(t, __asm__ volatile("pushq %0\n\tpush %%rsp\n\tpushq $2\n\tpushq %1\n\t"
					  "pushq $0\n\tiretq" ::"i"(SEL_DATA),
					  "i"(SEL_CODE32 | 1)
					  : "memory"));
		CHECK_TRAP(t, VEC_GP, SEL_CODE32);
		CATCH(t, __asm__ volatile("pushf\n\torl $0x4000, (%%rsp)\n\tpopf\n\tiretq" ::
						  : "memory", "cc"));
		CHECK_TRAP(t, VEC_GP, 0);
		__asm__ volatile("push $2\n\tpopf" ::: "memory", "cc");
	}
}

TEST(swapgs_agrees)
{
	static u64 a[2] = { 11, 12 }, b[2] = { 21, 22 };
	u64 x, y;

	wrmsr(MSR_GS_BASE, (ulong)a);
	wrmsr(MSR_KERNEL_GS_BASE, (ulong)b);
	for (unsigned i = 0; i < 20; i++) {
		__asm__ volatile("mov %%gs:8, %0\n\tswapgs\n\tmov %%gs:8, %1" : "=&r"(x), "=r"(y));
		CHECK_EQ(x, i & 1 ? 22 : 12);
		CHECK_EQ(y, i & 1 ? 12 : 22);
		CHECK_EQ(rdmsr(MSR_GS_BASE), (ulong)(i & 1 ? a : b));
		CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), (ulong)(i & 1 ? b : a));
		wrmsr(MSR_KERNEL_GS_BASE, rdmsr(MSR_KERNEL_GS_BASE));
	}
	wrmsr(MSR_GS_BASE, 0);
}

/* AC lets a kernel into its user's pages, from the next access on, wherever the code came from. */
TEST(stac_clac)
{
	struct page_pool pool;
	const ulong va = 1ul << 40, old = read_cr3();
	struct trap t;

	if (!(cpuid(7, 0).b & 1u << 20))
		SKIP("no SMAP");
	page_init(&pool, GUEST_FREE);
	page_map(&pool, va, GUEST_FREE + 0x400000, PTE_P | PTE_W | PTE_U);
	write_cr3((ulong)pool.root);
	*(volatile u64 *)va = 5; /* SMAP is off */
	write_cr4(read_cr4() | CR4_SMAP);
	for (unsigned i = 0; i < 20; i++) {
		u64 x;

		__asm__ volatile("stac\n\tmov (%1), %0\n\tadd $1, %0\n\tmov %0, (%1)\n\tclac"
				 : "=&r"(x)
				 : "r"(va)
				 : "memory");
		CHECK_EQ(x, 6 + i);
		CATCH(t, x = *(volatile u64 *)va);
		CHECK_TRAP(t, VEC_PF, 1);
		__asm__ volatile("stac\n\tstac" ::: "memory");
		CHECK_EQ(*(volatile u64 *)va, 6 + i);
		__asm__ volatile("clac\n\tclac" ::: "memory");
		CATCH(t, *(volatile u64 *)va = x);
		CHECK_TRAP(t, VEC_PF, 3);
	}
	write_cr4(read_cr4() & ~(ulong)CR4_SMAP);
	/* without SMAP they change AC and nothing else */
	for (unsigned i = 0; i < 4; i++) {
		ulong with, without;

		__asm__ volatile("stac\n\tpushf\n\tpop %0\n\tclac\n\tpushf\n\tpop %1"
				 : "=&r"(with), "=r"(without)::"memory");
		CHECK_EQ(with & FL_AC, FL_AC);
		CHECK_EQ(without & FL_AC, 0);
		CHECK_EQ(*(volatile u64 *)va, 25);
	}
	write_cr3(old);
}

/* REP MOVS and STOS of all sizes over a page border, up and down, against one byte at a time. */
static u8 from[3 * 4096] __attribute__((aligned(4096))), to[sizeof(from)], want[sizeof(from)];

static void string(bool movs, unsigned log, bool down, ulong n, u8 *d, const u8 *s)
{
	const ulong bytes = n << log, last = down && n ? bytes - (1ul << log) : 0;
	ulong di, si, cx = n;

	for (ulong i = 0; i < bytes; i++)
		want[d - to + i] =
			movs ? s[i] : (u8)(0x8877665544332211ull >> 8 * (i & ((1u << log) - 1)));
	di = (ulong)d + last;
	si = (ulong)s + last;
	if (down)
		__asm__ volatile("std");
#define ONE(k, op) \
	if (log == k && movs) \
		__asm__ volatile("rep movs" op : "+D"(di), "+S"(si), "+c"(cx)::"memory"); \
	else if (log == k) \
	__asm__ volatile("rep stos" op : "+D"(di), "+c"(cx) : "a"(0x8877665544332211ull) : "memor" \
											   "y")
	ONE(0, "b");
	ONE(1, "w");
	ONE(2, "l");
	ONE(3, "q");
#undef ONE
	__asm__ volatile("cld");
	CHECK_EQ(cx, 0);
	CHECK_EQ(di, (ulong)d + last + (down ? -bytes : bytes));
	if (movs)
		CHECK_EQ(si, (ulong)s + last + (down ? -bytes : bytes));
}

TEST(strings)
{
	static const u16 at[] = { 0, 1, 4000, 4090, 4095, 4096 };
	static const u16 count[] = { 0, 1, 3, 8, 12, 100, 512 };

	for (unsigned i = 0; i < sizeof(from); i++)
		from[i] = (u8)(i * 7 + (i >> 8));
	for (unsigned a = 0; a < ARRAY_SIZE(at); a++)
		for (unsigned b = 0; b < ARRAY_SIZE(at); b++)
			for (unsigned c = 0; c < ARRAY_SIZE(count); c++)
				for (unsigned k = 0; k < 16; k++)
					string(k & 1, k >> 1 & 3, k >> 3, count[c], to + at[a],
					       from + at[b]);
	CHECK_EQ(guest_memcmp(to, want, sizeof(to)), 0);
}

/* A bit string reaches to both sides of its address, over pages. */
TEST(bit_strings)
{
	static const int bit[] = { 0, 7, 31, 63, 64, 4096 * 8 - 1, 4096 * 8, -1, -64, -4096 * 8 };
	u8 *mid = to + 4096;

	guest_memset(to, 0, sizeof(to));
	for (unsigned i = 0; i < 4 * ARRAY_SIZE(bit); i++) {
		const long n = bit[i % ARRAY_SIZE(bit)];
		const u8 *byte = mid + (n >> 3);
		bool was, is;

		__asm__ volatile("bt %2, %1" : "=@ccc"(was) : "m"(*mid), "r"(n) : "memory");
		CHECK_EQ(was, *byte >> (n & 7) & 1);
		if (i & 1)
			__asm__ volatile("lock btc %2, %1"
					 : "=@ccc"(is), "+m"(*(u64 *)mid)
					 : "r"(n)
					 : "memory");
		else
			__asm__ volatile("btsl %k2, %1"
					 : "=@ccc"(is), "+m"(*(u32 *)mid)
					 : "r"(n)
					 : "memory");
		CHECK_EQ(is, was);
		CHECK_EQ(*byte >> (n & 7) & 1, i & 1 ? !was : 1);
	}
}
