/*
 * x87 and SSE state: FXSAVE and XSAVE layouts and their checks, #MF and when it comes, #XM,
 * denormals, MMX and the tag word, control and status registers. References: [SDM1 8, 10, 11, 13].
 */
#include "cpu.h"

static u8 area[4096] __attribute__((aligned(64)));
static double num[4];

static u16 fsw(void)
{
	u16 v;

	__asm__ volatile("fnstsw %0" : "=a"(v));
	return v;
}

static void fldcw(u16 v)
{
	__asm__ volatile("fldcw %0" ::"m"(v));
}

static void ldmxcsr(u32 v)
{
	__asm__ volatile("ldmxcsr %0" ::"m"(v));
}

static u32 stmxcsr(void)
{
	u32 v;

	__asm__ volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static u16 at16(unsigned off)
{
	return *(u16 *)(area + off);
}

static u32 at32(unsigned off)
{
	return *(u32 *)(area + off);
}

static u64 at64(unsigned off)
{
	return *(u64 *)(area + off);
}

TEST(fninit_defaults)
{
	u16 cw;

	__asm__ volatile("fninit\n\tfnstcw %0" : "=m"(cw));
	CHECK_EQ(cw, 0x37f);
	CHECK_EQ(fsw(), 0);
}

TEST(fxsave_layout)
{
	guest_memset(area, 0xaa, sizeof(area));
	ldmxcsr(0x1fa0);
	num[0] = 0;                           /* set as bits: no SSE in this file */
	*(u64 *)&num[0] = 0x3ff8000000000000; /* 1.5 */
	__asm__ volatile("fninit\n\tfldl %0\n\tfld1\n\t"
			 "movq %1, %%xmm3\n\tfxsave64 %2"
			 :
			 : "m"(num[0]), "r"(0x1122334455667788ul), "m"(*area)
			 : "memory");
	CHECK_EQ(at16(0), 0x37f);
	CHECK_EQ(at16(2), 6 << 11);
	CHECK_EQ(area[4], 0xc0); /* abridged tags: R6 and R7 in use */
	CHECK_EQ(at32(24), 0x1fa0);
	CHECK_EQ(at64(32), 0x8000000000000000); /* st0 = 1.0 */
	CHECK_EQ(at16(40), 0x3fff);
	CHECK_EQ(at64(48), 0xc000000000000000); /* st1 = 1.5 */
	CHECK_EQ(at64(160 + 3 * 16), 0x1122334455667788);
	CHECK_EQ(at64(160 + 3 * 16 + 8), 0);
	CHECK_EQ(at64(464), 0xaaaaaaaaaaaaaaaa); /* the last 48 bytes are software's */
	__asm__ volatile("fninit\n\tpxor %%xmm3, %%xmm3\n\tfxrstor64 %0" ::"m"(*area) : "memory");
	CHECK_EQ(fsw(), 6 << 11);
	__asm__ volatile("fninit");
	ldmxcsr(0x1f80);
}

TEST(fxrstor_checks)
{
	struct trap t;

	__asm__ volatile("fninit\n\tfxsave64 %0" : "=m"(*area)::"memory");
	*(u32 *)(area + 24) = 0x10000; /* reserved in MXCSR */
	CATCH(t, __asm__ volatile("fxrstor64 %0" ::"m"(*area) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, ldmxcsr(0x10000));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("fxsave64 %0" ::"m"(area[8]) : "memory"));
	CHECK_EQ(t.vec, VEC_GP);
	ldmxcsr(0x1f80);
}

TEST(mf_is_delayed)
{
	struct trap t;
	extern u8 mf1[], mf2[];

	__asm__ volatile("fninit");
	fldcw(0x37b); /* zero divide unmasked */
	CATCH(t,
	      __asm__ volatile("fld1\n\tfldz\n\tfdivrp\n\tnop\n\t.global mf1\nmf1:\tfwait\n\tnop"));
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, (ulong)mf1); /* at the next waiting instruction, not at the divide */
	CHECK_EQ(fsw() & 0x8084, 0x8084);
	__asm__ volatile("fnclex");
	CHECK_EQ(fsw() & 0x80ff, 0);
	__asm__ volatile("fninit");
	fldcw(0x37b);
	CATCH(t, __asm__ volatile("fld1\n\tfldz\n\tfdivrp\n\tfnstsw %%ax\n\tfnclex\n\tfwait" ::
					  : "rax"));
	CHECK_EQ(t.vec, -1); /* no-wait forms do not look */
	CATCH(t, __asm__ volatile("fld1\n\tfldz\n\tfdivrp\n\t.global mf2\nmf2:\tfld1"));
	CHECK_TRAP(t, VEC_MF, 0);
	CHECK_EQ(t.ip, (ulong)mf2);
	CATCH(t, __asm__ volatile("emms"));
	CHECK_TRAP(t, VEC_MF, 0); /* MMX instructions wait, too */
	__asm__ volatile("fnclex\n\tfninit");
}

TEST(mf_environment)
{
	struct trap t;
	extern u8 env1[];
	static u32 env[7];

	__asm__ volatile("fninit");
	fldcw(0x37b);
	*(u64 *)&num[1] = 0;
	CATCH(t, __asm__ volatile("fld1\n\t.global env1\nenv1:\tfdivl %0\n\tfwait" ::"m"(num[1])));
	CHECK_TRAP(t, VEC_MF, 0);
	__asm__ volatile("fnstenv %0" : "=m"(env));
	CHECK_EQ(env[0] & 0xffff, 0x37b);
	CHECK_EQ(env[3], (ulong)env1);
	CHECK_EQ(env[5], (ulong)&num[1]);
	CHECK_EQ(env[2] & 0xffff, 0x3fff); /* R7 in use, the others empty */
	__asm__ volatile("fnclex\n\tfninit");
}

TEST(mf_with_ne_clear)
{
	struct trap t;

	/* CR0.NE clear: the error goes out through FERR# and, unhandled, the CPU waits for IGNNE#
	 * or an interrupt; with the interrupt line masked nothing can be checked safely, so only
	 * that NE is writable is */
	write_cr0(read_cr0() & ~(ulong)CR0_NE);
	CHECK_EQ(read_cr0() & CR0_NE, 0);
	CATCH(t, __asm__ volatile("fninit\n\tfld1\n\tfwait\n\tfninit"));
	CHECK_EQ(t.vec, -1);
	write_cr0(read_cr0() | CR0_NE);
}

TEST(x87_stack)
{
	__asm__ volatile("fninit\n\tfstp %st(0)");
	CHECK_EQ(fsw() & 0x41, 0x41); /* invalid, stack fault; C1 clear: underflow */
	CHECK_EQ(fsw() & 0x200, 0);
	__asm__ volatile(
		"fninit\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1\n\tfld1");
	CHECK_EQ(fsw() & 0x241, 0x241); /* overflow */
	__asm__ volatile("fninit");
}

TEST(mmx_tags)
{
	__asm__ volatile("fninit\n\tmovd %%eax, %%mm2\n\tfxsave64 %0"
			 : "=m"(*area)
			 : "a"(0x1234)
			 : "memory");
	CHECK_EQ(area[4], 0xff); /* all valid */
	CHECK_EQ(at16(2) >> 11 & 7, 0);
	CHECK_EQ(at64(32 + 2 * 16), 0x1234);
	CHECK_EQ(at16(32 + 2 * 16 + 8), 0xffff); /* exponent all ones */
	__asm__ volatile("emms\n\tfxsave64 %0" : "=m"(*area)::"memory");
	CHECK_EQ(area[4], 0);
}

TEST(xm)
{
	struct trap t;
	extern u8 xm1[];

	*(u64 *)&num[0] = 0x3ff0000000000000;
	*(u64 *)&num[1] = 0;
	ldmxcsr(0x1f80 & ~(1u << 9)); /* zero divide unmasked */
	CATCH(t, __asm__ volatile(
			 "movsd %0, %%xmm0\n\t.global xm1\nxm1:\tdivsd %1, %%xmm0" ::"m"(num[0]),
			 "m"(num[1])));
	CHECK_TRAP(t, VEC_XM, 0);
	CHECK_EQ(t.ip, (ulong)xm1); /* at once */
	CHECK_EQ(stmxcsr() & 0x3f, 4);
	write_cr4(read_cr4() & ~(ulong)CR4_OSXMMEXCPT);
	CATCH(t, __asm__ volatile("divsd %0, %%xmm0" ::"m"(num[1])));
	CHECK_TRAP(t, VEC_UD, 0);
	write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	ldmxcsr(0x1f80);
	CATCH(t, __asm__ volatile("divsd %0, %%xmm0\n\tmovsd %%xmm0, %1" ::"m"(num[1]), "m"(num[2])
				  : "memory"));
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(*(u64 *)&num[2], 0x7ff0000000000000); /* infinity */
	CHECK_EQ(stmxcsr() & 0x3f, 4);
	ldmxcsr(0x1f80);
}

TEST(denormals)
{
	*(u64 *)&num[0] = 0x000fffffffffffff;
	*(u64 *)&num[1] = 0x3ff0000000000000;
	ldmxcsr(0x1f80);
	__asm__ volatile("movsd %0, %%xmm0\n\tmulsd %1, %%xmm0\n\tmovsd %%xmm0, %2" ::"m"(num[0]),
			 "m"(num[1]), "m"(num[2])
			 : "memory");
	CHECK_EQ(*(u64 *)&num[2], 0x000fffffffffffff);
	CHECK_EQ(stmxcsr() & 0x3f, 2); /* denormal operand */
	ldmxcsr(0x1f80 | 1u << 6);     /* denormals are zeros */
	__asm__ volatile("movsd %0, %%xmm0\n\tmulsd %1, %%xmm0\n\tmovsd %%xmm0, %2" ::"m"(num[0]),
			 "m"(num[1]), "m"(num[2])
			 : "memory");
	CHECK_EQ(*(u64 *)&num[2], 0);
	*(u64 *)&num[0] = 0x0010000000000000;
	*(u64 *)&num[1] = 0x3fe0000000000000;
	ldmxcsr(0x1f80 | 1u << 15); /* flush to zero */
	__asm__ volatile("movsd %0, %%xmm0\n\tmulsd %1, %%xmm0\n\tmovsd %%xmm0, %2" ::"m"(num[0]),
			 "m"(num[1]), "m"(num[2])
			 : "memory");
	CHECK_EQ(*(u64 *)&num[2], 0);
	CHECK_EQ(stmxcsr() & 0x30, 0x30);
	ldmxcsr(0x1f80);
}

TEST(rounding)
{
	static const u32 want[4] = { 2, 2, 3, 2 };

	*(u64 *)&num[0] = 0x4004000000000000; /* 2.5 */
	for (u32 rc = 0; rc < 4; rc++) {
		u32 v;

		ldmxcsr(0x1f80 | rc << 13);
		__asm__ volatile("cvtsd2si %1, %0" : "=r"(v) : "m"(num[0]));
		CHECK_EQ(v, want[rc]);
		fldcw((u16)(0x37f | rc << 10));
		__asm__ volatile("fldl %1\n\tfistpl %0" : "=m"(v) : "m"(num[0]));
		CHECK_EQ(v, want[rc]);
	}
	fldcw(0x37f);
	ldmxcsr(0x1f80);
}

TEST(xsave_layout)
{
	struct trap t;

	if (!HAS_1C(26) || !HAS_1C(28))
		SKIP("no XSAVE or AVX");
	write_cr4(read_cr4() | CR4_OSXSAVE);
	__asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
	CHECK_EQ(cpuid(13, 2).a, 256);
	CHECK_EQ(cpuid(13, 2).b, 576);
	guest_memset(area, 0, sizeof(area));
	__asm__ volatile("fninit\n\tvpcmpeqd %%xmm1, %%xmm1, %%xmm1\n\tvinsertf128 $1, %%xmm1, "
			 "%%ymm1, %%ymm1\n\t"
			 "xsave64 %0"
			 : "=m"(*area)
			 : "a"(7), "d"(0)
			 : "memory");
	CHECK_EQ(at64(512) & 6, 6); /* XSTATE_BV */
	CHECK_EQ(at64(520), 0);
	CHECK_EQ(at64(160 + 16), ~0ull);
	CHECK_EQ(at64(576 + 16), ~0ull);
	CHECK_EQ(at64(576), 0);
	/* a component whose bit is clear is initialised */
	*(u64 *)(area + 512) = 3;
	__asm__ volatile("xrstor64 %0" ::"m"(*area), "a"(7), "d"(0) : "memory");
	__asm__ volatile("vextractf128 $1, %%ymm1, %%xmm2\n\tmovups %%xmm2, %0\n\tmovups %%xmm1, %1"
			 : "=m"(num), "=m"(*(double(*)[2])(area + 1024)));
	CHECK_EQ(*(u64 *)&num[0], 0);
	CHECK_EQ(at64(1024), ~0ull);
	/* the instruction mask leaves the others alone */
	*(u64 *)(area + 512) = 0;
	__asm__ volatile("xrstor64 %0" ::"m"(*area), "a"(4), "d"(0) : "memory");
	__asm__ volatile("movups %%xmm1, %0" : "=m"(*(double(*)[2])(area + 1024)));
	CHECK_EQ(at64(1024), ~0ull);
	*(u64 *)(area + 512) = 1ull << 40; /* a component that XCR0 lacks */
	CATCH(t, __asm__ volatile("xrstor64 %0" ::"m"(*area), "a"(7), "d"(0) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	*(u64 *)(area + 512) = 0;
	*(u64 *)(area + 528) = 1; /* the header's reserved bytes */
	CATCH(t, __asm__ volatile("xrstor64 %0" ::"m"(*area), "a"(7), "d"(0) : "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	*(u64 *)(area + 528) = 0;
	CATCH(t, __asm__ volatile("xsave64 %0" ::"m"(area[16]), "a"(7), "d"(0) : "memory"));
	CHECK_EQ(t.vec, VEC_GP);
	/* a VEX.128 operation clears the upper half; a legacy one does not */
	__asm__ volatile(
		"vpcmpeqd %%xmm1, %%xmm1, %%xmm1\n\tvinsertf128 $1, %%xmm1, %%ymm1, %%ymm1\n\t"
		"pxor %%xmm1, %%xmm1\n\tvextractf128 $1, %%ymm1, %%xmm2\n\tmovups %%xmm2, %0"
		: "=m"(num));
	CHECK_EQ(*(u64 *)&num[0], ~0ull);
	__asm__ volatile("vpxor %%xmm1, %%xmm1, %%xmm1\n\tvextractf128 $1, %%ymm1, "
			 "%%xmm2\n\tmovups %%xmm2, %0"
			 : "=m"(num));
	CHECK_EQ(*(u64 *)&num[0], 0);
	if (cpuid(13, 1).a & 1) {
		guest_memset(area, 0x55, 1024);
		guest_memset(area + 512, 0, 64);
		__asm__ volatile("fninit\n\tvzeroall\n\txsaveopt64 %0"
				 : "=m"(*area)
				 : "a"(7), "d"(0)
				 : "memory");
		CHECK_EQ(at64(512) & 4, 0); /* init state: not written */
		CHECK_EQ(at64(576), 0x5555555555555555);
	}
	write_cr4(read_cr4() & ~(ulong)CR4_OSXSAVE);
}
