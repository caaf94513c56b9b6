/*
 * x87 and MMX registers in code that runs often: they survive interrupts, exits, exceptions and
 * others who use them; unmasked exceptions and CR0's bits have effect at the right instruction of
 * code that has run without them; the last instruction's pointers are the guest's own.
 * References: [SDM1 8.1.8, 8.7, 9.5, 9.6], [SDM3 2.5].
 */
#include "apic.h"

enum { NOWHERE = 1ul << 45 };
static u8 area[512] __attribute__((aligned(64))), other[512] __attribute__((aligned(64)));
static volatile unsigned ticks;
static double fnum[4];
static float fsmall[4];

static void fnum_set(unsigned n, u64 bits)
{
	*(u64 *)&fnum[n] = bits;
}

static void fx(u8 *to)
{
	__asm__ volatile("fxsave64 (%0)" ::"r"(to) : "memory");
}

static u16 at16(unsigned off)
{
	return *(u16 *)(area + off);
}

static u64 at64(unsigned off)
{
	return *(u64 *)(area + off);
}

static void fldcw(u16 v)
{
	__asm__ volatile("fldcw %0" ::"m"(v));
}

/* x = x * 0.75 + 1 - 1 / (i + 3), n times from 0.5; exits: a port read in each turn */
static void series(u64 n, bool exits)
{
	fnum_set(0, 0x3fe8000000000000); /* 0.75 */
	fnum_set(1, 0x3fe0000000000000); /* 0.5 */
	fnum_set(2, 3);
	__asm__ volatile("fninit\n\tfldl %[half]\n"
			 "1:\tfmull %[factor]\n\tfld1\n\tfaddp\n\tfildq %[i]\n\tfld1\n\t"
			 "fdivp\n\tfsubrp\n\tincq %[i]\n\t"
			 "test %[exits], %[exits]\n\tje 2f\n\tin $0x80, %%al\n"
			 "2:\tdec %[n]\n\tjne 1b"
			 : [n] "+r"(n), [i] "+m"(fnum[2])
			 : [half] "m"(fnum[1]), [factor] "m"(fnum[0]), [exits] "r"(exits)
			 : "rax", "cc", "memory");
}

/* The x87 registers and words; not the pointers. */
static bool same_x87(const u8 *a, const u8 *b)
{
	return !guest_memcmp(a, b, 6) && !guest_memcmp(a + 32, b + 32, 128);
}

TEST(loops_with_exits)
{
	series(20, false);
	fx(area);
	series(20, true);
	fx(other);
	CHECK_EQ(at16(32 + 8) & 0x7fff, 0x4000); /* about 3.8 */
	CHECK_EQ(at16(2) >> 11, 7);
	CHECK(same_x87(area, other));
}

/* An interrupt handler with x87 and MMX of its own. */
static void tick(struct frame *f)
{
	static u8 saved[512] __attribute__((aligned(64)));

	ticks++;
	fx(saved);
	__asm__ volatile("fninit\n\tfldpi\n\tfldpi\n\tfmulp\n\tfstp %%st(0)\n\tmovd %0, %%mm3\n\t"
			 "paddd %%mm3, %%mm4\n\temms\n\tfxrstor64 (%1)"
			 :
			 : "r"(ticks), "r"(saved)
			 : "memory");
	apic_eoi();
}

TEST(loops_with_interrupts)
{
	apic_init(false);
	trap_hook(0x41, tick);
	series(30000, false);
	fx(area);
	ticks = 0;
	apic_write(APIC_TDCR, 0xb); /* by 1 */
	apic_write(APIC_LVTT, 0x41 | 1u << 17);
	apic_write(APIC_TMICT, 200000);
	__asm__ volatile("sti");
	for (unsigned n = 0; n < 400 && ticks < 5; n++) {
		series(30000, false);
		fx(other);
		if (!same_x87(area, other))
			break;
	}
	__asm__ volatile("cli");
	apic_write(APIC_LVTT, 0x41 | 1u << 16);
	CHECK(ticks >= 5);
	CHECK(same_x87(area, other));
}

/* Code that the translator has seen with everything masked. */
SNIPPET(divide, "fld1\n\tfdivs (%rdi)\n\t.global divide_next\ndivide_next:\tfadd %st(0)\n\t"
		"fstp %st(0)\n\tret");
extern u8 divide_next[];

static void divide_call(const float *by)
{
	__asm__ volatile("call divide" ::"D"(by) : "memory");
}

static void divide_warm(void)
{
	*(u32 *)&fsmall[0] = 0;
	*(u32 *)&fsmall[1] = 0x40400000; /* 3 */
	__asm__ volatile("fninit");
	for (unsigned n = 0; n < 50; n++)
		divide_call(&fsmall[n & 1]);
	__asm__ volatile("fnclex");
}

TEST(unmasked_by_fldcw)
{
	struct trap t;
	u16 sw;

	divide_warm();
	fldcw(0x37b); /* zero divide */
	CATCH(t, divide_call(&fsmall[1]));
	CHECK_EQ(t.vec, -1);
	CATCH(t, divide_call(&fsmall[0]));
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, (ulong)divide_next);
	__asm__ volatile("fnstsw %0\n\tfnclex\n\tfninit" : "=a"(sw));
	CHECK_EQ(sw & 0x809f, 0x8084);
	CATCH(t, divide_call(&fsmall[0]));
	CHECK_EQ(t.vec, -1);
}

TEST(unmasked_in_a_block)
{
	struct trap t;
	u16 cw[2] = { 0x37f, 0x37f };
	extern u8 mf_block[];

	*(u32 *)&fsmall[0] = 0;
	for (unsigned n = 0; n < 40; n++) {
		if (n == 39)
			cw[0] = 0x37b;
		CATCH(t,
		      __asm__ volatile(
			      "fninit\n\tfld1\n\tfldcw %0\n\tfdivs %1\n\tnop\n\t"
			      ".global mf_block\nmf_block:\tfldcw %2\n\tfstp %%st(0)" ::"m"(cw[0]),
			      "m"(fsmall[0]), "m"(cw[1])));
		if (n < 39)
			CHECK_EQ(t.vec, -1);
	}
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, (ulong)mf_block);
	__asm__ volatile("fninit");
}

TEST(unmasked_by_environment)
{
	struct trap t;
	u32 env[7];

	divide_warm();
	divide_call(&fsmall[0]);
	__asm__ volatile("fnstenv %0" : "=m"(env));
	env[0] &= ~4u; /* ZE is set: pending at once */
	__asm__ volatile("fldenv %0" ::"m"(env));
	CATCH(t, divide_call(&fsmall[1]));
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, (ulong)divide);
	__asm__ volatile("fninit");
}

SNIPPET(mmx_add, "movd %edi, %mm1\n\tpaddd %mm1, %mm1\n\tmovd %mm1, %eax\n\tret");

static u32 mmx_call(u32 x)
{
	u32 r;

	__asm__ volatile("call mmx_add" : "=a"(r) : "D"(x) : "memory");
	return r;
}

TEST(task_switched)
{
	struct trap t;

	divide_warm();
	for (unsigned n = 0; n < 50; n++)
		CHECK_EQ(mmx_call(n), 2 * n);
	__asm__ volatile("emms\n\tfldpi");
	fx(area);
	write_cr0(read_cr0() | CR0_TS);
	CATCH(t, divide_call(&fsmall[1]));
	CHECK_TRAP(t, VEC_NM, 0);
	CHECK_EQ(t.ip, (ulong)divide);
	CATCH(t, mmx_call(1));
	CHECK_TRAP(t, VEC_NM, 0);
	CHECK_EQ(t.ip, (ulong)mmx_add);
	CATCH(t, __asm__ volatile("fwait"));
	CHECK_EQ(t.vec, read_cr0() & CR0_MP ? VEC_NM : -1);
	__asm__ volatile("clts");
	fx(other);
	CHECK(same_x87(area, other));
	write_cr0(read_cr0() | CR0_EM);
	CATCH(t, divide_call(&fsmall[1]));
	CHECK_TRAP(t, VEC_NM, 0);
	CATCH(t, mmx_call(1));
	CHECK_TRAP(t, VEC_UD, 0);
	CHECK_EQ(t.ip, (ulong)mmx_add);
	write_cr0(read_cr0() & ~(ulong)CR0_EM);
	fx(other);
	CHECK(same_x87(area, other));
	__asm__ volatile("fninit");
}

/*
 * What processors disagree on, and Kvasir does as Intel's older ones: set by each instruction.
 * Others save 0 unless an exception is pending. Never anything else.
 */
static void check_pointers(ulong ip, ulong data, unsigned op)
{
	fx(area);
	if (!at64(8) && !at64(16))
		return;
	CHECK_EQ(at64(8), ip);
	CHECK_EQ(at64(16), data);
	CHECK_EQ(at16(6), op);
}

TEST(pointers)
{
	extern u8 p_load[], p_pi[], p_store[];
	ulong n = 60, base, index = 2;

	fnum_set(1, 0x3ff0000000000000);
	fnum_set(2, 0x3ff0000000000000);
	/* FSTSW, FLDCW, MMX instructions are not among those that set them */
	__asm__ volatile("fninit\n"
			 "1:\t.global p_load\np_load:\tfldl %1\n\tmovd %%eax, %%mm3\n\temms\n\t"
			 "fnstsw %%ax\n\tdec %0\n\tjne 1b"
			 : "+r"(n)
			 : "m"(fnum[1])
			 : "rax", "cc");
	check_pointers((ulong)p_load, (ulong)&fnum[1], 0x500 | p_load[1]);
	n = 60;
	__asm__ volatile("fninit\n"
			 "1:\tfldl %1\n\t.global p_pi\np_pi:\tfldpi\n\tfnclex\n\temms\n\t"
			 "dec %0\n\tjne 1b"
			 : "+r"(n)
			 : "m"(fnum[2])
			 : "cc");
	check_pointers((ulong)p_pi, (ulong)&fnum[2], 0x1eb);
	n = 60;
	/* base and index are registers that live in memory */
	__asm__ volatile("fninit\n\tmov %2, %%r9\n\tmov %3, %%r10\n"
			 "1:\tfld1\n\t.global p_store\np_store:\tfstpl 8(%%r9,%%r10,4)\n\t"
			 "dec %0\n\tjne 1b\n\tlea 8(%%r9,%%r10,4), %1"
			 : "+r"(n), "=&r"(base)
			 : "r"(fnum), "r"(index)
			 : "r9", "r10", "cc", "memory");
	CHECK_EQ(base, (ulong)&fnum[2]);
	check_pointers((ulong)p_store, base, 0x500 | p_store[2]);
	__asm__ volatile("fninit");
	check_pointers(0, 0, 0);
}

/* A fault leaves state and pointers as the instruction before it made them. */
TEST(fault_in_a_block)
{
	struct trap t;
	extern u8 f_before[], f_at[];
	volatile ulong at = (ulong)&fnum[3];

	fnum_set(3, 0x4008000000000000); /* 3 */
	for (unsigned n = 0; n < 40; n++) {
		if (n == 39)
			at = NOWHERE;
		CATCH(t,
		      __asm__ volatile("fninit\n\tfld1\n\t.global f_before\nf_before:\tfaddl %0\n\t"
				       "mov %1, %%rdx\n\t.global f_at\nf_at:\tfmull (%%rdx)\n\t"
				       "fadd %%st(0)" ::"m"(fnum[3]),
				       "m"(at)
				       : "rdx"));
		if (n < 39)
			CHECK_EQ(t.vec, -1);
	}
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.ip, (ulong)f_at);
	CHECK_EQ(t.cr2, NOWHERE);
	check_pointers((ulong)f_before, (ulong)&fnum[3], 0x400 | f_before[1]);
	CHECK_EQ(at64(32), 0x8000000000000000); /* 4 */
	CHECK_EQ(at16(40), 0x4001);
	CHECK_EQ(at16(2) >> 11, 7);
	__asm__ volatile("fninit");
}

/* Registers of all kinds in one loop. */
TEST(x87_mmx_and_sse)
{
	ulong n = 100;
	u64 lo, sum;
	u32 word;

	__asm__ volatile("ldmxcsr %0" ::"m"(*(const u32[]){ 0x1f80 }));
	fnum_set(0, 0x4000000000000000); /* 2 */
	__asm__ volatile(
		"xorps %%xmm4, %%xmm4\n\tfninit\n\tpcmpeqd %%mm5, %%mm5\n\tpsubd %%mm6, %%mm6\n"
		"1:\tpsubd %%mm5, %%mm6\n\t" /* 1, 2, ... in both halves */
		"cvtpi2ps %%mm6, %%xmm1\n\t"
		"addps %%xmm1, %%xmm4\n\t"
		"movq2dq %%mm6, %%xmm2\n\t"
		"dec %0\n\tjne 1b\n\t"
		"cvtps2pi %%xmm4, %%mm0\n\t"
		"movq %%mm0, %1\n\t"
		"pextrw $2, %%mm0, %k2\n\t"
		"movdq2q %%xmm2, %%mm1\n\t"
		"movd %%mm1, %k3\n\t"
		"emms"
		: "+r"(n), "=m"(lo), "=&r"(sum), "=&r"(word)
		:
		: "cc", "memory");
	CHECK_EQ(lo, 5050ull << 32 | 5050);
	CHECK_EQ(sum, 5050);
	CHECK_EQ(word, 100);
	n = 50;
	__asm__ volatile(
		"fninit\n\tfldl %1\n\tmovsd %1, %%xmm3\n"
		"1:\tfsqrt\n\tsqrtsd %%xmm3, %%xmm3\n\tfmul %%st(0)\n\tmulsd %%xmm3, %%xmm3\n\t"
		"dec %0\n\tjne 1b\n\tfstpl %2\n\tmovsd %%xmm3, %3"
		: "+r"(n)
		: "m"(fnum[0]), "m"(fnum[1]), "m"(fnum[2])
		: "cc", "memory");
	CHECK_EQ(*(u64 *)&fnum[1], 0x4000000000000000);
	CHECK((*(u64 *)&fnum[2] - 0x3ffffffffffff000) < 0x2000);
}

/* The usual way to round to an integer: the control word changes twice in each turn. */
TEST(rounding_mode)
{
	u16 cw[2] = { 0x37f, 0xf7f };
	u32 r[2];

	fnum_set(0, 0x400d99999999999a); /* 3.7 */
	for (unsigned n = 0; n < 60; n++) {
		__asm__ volatile("fninit\n\tfldl %2\n\tfldl %2\n\tfldcw %4\n\tfistpl %0\n\t"
				 "fldcw %3\n\tfistpl %1"
				 : "=m"(r[0]), "=m"(r[1])
				 : "m"(fnum[0]), "m"(cw[0]), "m"(cw[1]));
		CHECK_EQ(r[0], 3);
		CHECK_EQ(r[1], 4);
	}
}

/* FCOMI and FCMOV use EFLAGS, with memory operands and their probes between. */
TEST(flags)
{
	fnum_set(0, 0x3ff0000000000000);
	fnum_set(1, 0x4000000000000000);
	for (unsigned n = 0; n < 60; n++) {
		u8 below, zero;
		u32 a = n & 1 ? 7 : 9, b = 9;

		__asm__ volatile("fninit\n\tfldl %2\n\tfldl %3\n\t" /* st0 = 2, st1 = 1 */
				 "cmp %5, %4\n\t"
				 "fcmovb %%st(1), %%st\n\t"
				 "fstpl %6\n\tfldl %6\n\t"
				 "fcomi %%st(1), %%st\n\t"
				 "setb %0\n\tsete %1"
				 : "=&r"(below), "=&r"(zero)
				 : "m"(fnum[0]), "m"(fnum[1]), "r"(a), "r"(b), "m"(fnum[2])
				 : "cc", "memory");
		CHECK_EQ(below, 0);
		CHECK_EQ(zero, n & 1);
	}
}
