/*
 * Exceptions: each vector software can cause, which of two comes first, LOCK prefixes, instruction
 * length, coprocessor availability, alignment checks, MSR and CPUID rules. References: [SDM3 6],
 * [SDM2 LOCK CMPXCHG16B].
 */
#include "cpu.h"

static u8 code[64] __attribute__((aligned(64)));
static u64 data[8] __attribute__((aligned(64)));

/* Run bytes followed by RET; rbx points to data. */
static void run_bytes(struct trap *t, const u8 *bytes, unsigned n)
{
	guest_memset(code, 0xc3, sizeof(code));
	guest_memcpy(code, bytes, n);
	CATCH(*t, __asm__ volatile("call *%0" ::"r"(code), "b"(data)
				   : "rax", "rcx", "rdx", "rsi", "rdi", "memory", "cc"));
}

#define BYTES(t, ...) \
	do { \
		static const u8 bytes_[] = { __VA_ARGS__ }; \
		run_bytes(t, bytes_, sizeof(bytes_)); \
	} while (0)

TEST(divide)
{
	struct trap t;

	CATCH(t, __asm__ volatile("xor %%edx, %%edx\n\tdivl %0" ::"r"(0) : "rax", "rdx"));
	CHECK_TRAP(t, VEC_DE, 0);
	CATCH(t, __asm__ volatile("mov $1, %%edx\n\tdivl %0" ::"r"(1)
				  : "rax", "rdx")); /* too big */
	CHECK_TRAP(t, VEC_DE, 0);
	CATCH(t, __asm__ volatile("cqo\n\tidivq %0" ::"r"(-1l), "a"(1ul << 63) : "rdx"));
	CHECK_TRAP(t, VEC_DE, 0);
	CATCH(t, __asm__ volatile("mov $0x8000, %%eax\n\tmov $-1, %%cl\n\tidivb %%cl" ::
					  : "rax", "rcx"));
	CHECK_TRAP(t, VEC_DE, 0);
}

TEST(lock_prefix)
{
	struct trap t;

	BYTES(&t, 0xf0, 0x01, 0x03); /* lock add %eax, (%rbx) */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0x01, 0xc0); /* a register */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x03, 0x03); /* lock add (%rbx), %eax: not a memory destination */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x39, 0x03); /* cmp */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x89, 0x03); /* mov */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x87, 0x03); /* xchg */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0xff, 0x03); /* inc */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0xff, 0x33); /* push m */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0xf7, 0x13); /* not */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0xf7, 0x03, 1, 0, 0, 0); /* test */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x0f, 0xb1, 0x0b); /* cmpxchg */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0x0f, 0xc1, 0x0b); /* xadd */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0x0f, 0xab, 0x0b);    /* bts: ecx is whatever, near zero here */
	BYTES(&t, 0xf0, 0x0f, 0xba, 0x2b, 3); /* bts $3 */
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0xf0, 0x0f, 0xba, 0x23, 3); /* bt $3 */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0xd1, 0x23); /* shl */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0x90); /* nop */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xf0, 0xa4); /* movsb */
	CHECK_TRAP(t, VEC_UD, 0);
	/* #UD before any fault of the operand */
	CATCH(t, __asm__ volatile(".byte 0xf0\n\tmov (%0), %%eax" ::"r"(1ul << 63) : "rax"));
	CHECK_TRAP(t, VEC_UD, 0);
}

TEST(instruction_length)
{
	struct trap t;

	BYTES(&t, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	      0x66, 0x90);
	CHECK_EQ(t.vec, -1); /* 15 bytes */
	BYTES(&t, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	      0x66, 0x66, 0x90);
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.ip, (ulong)code);
	/* the immediate makes it too long */
	BYTES(&t, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x81, 0xc0, 1, 0, 0, 0);
	CHECK_EQ(t.vec, -1);
	BYTES(&t, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x81, 0xc0, 1, 0, 0,
	      0);
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(undefined_opcodes)
{
	struct trap t;

	BYTES(&t, 0x0f, 0x0b);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x0f, 0xff, 0xc0);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x0f, 0xb9, 0xc0);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x8d, 0xc0); /* lea of a register */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xc6, 0xc8, 0); /* group 11, /1 */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xff, 0xf8); /* group 5, /7 */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0xff, 0xd8); /* far call to a register */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x0f, 0x00, 0xf8);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x0f, 0xc7, 0xc8); /* cmpxchg8b of a register */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x8e, 0xc8); /* mov %eax, %cs */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x66, 0xc5, 0xf8, 0x57, 0xc0); /* VEX after 66 */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x48, 0xc5, 0xf8, 0x57, 0xc0); /* VEX after REX */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x48, 0x66, 0x90); /* a REX that is not last is ignored */
	CHECK_EQ(t.vec, -1);
}

TEST(availability)
{
	const ulong cr0 = read_cr0(), cr4 = read_cr4();
	struct trap t;

#define FNINIT  0xdb, 0xe3
#define FWAIT   0x9b
#define XORPS   0x0f, 0x57, 0xc0
#define PXOR_MM 0x0f, 0xef, 0xc0
#define VXORPS  0xc5, 0xf8, 0x57, 0xc0
	write_cr0(cr0 | CR0_TS);
	BYTES(&t, FNINIT);
	CHECK_TRAP(t, VEC_NM, 0);
	BYTES(&t, FWAIT);
	CHECK_TRAP(t, VEC_NM, 0);
	BYTES(&t, XORPS);
	CHECK_TRAP(t, VEC_NM, 0);
	BYTES(&t, PXOR_MM);
	CHECK_TRAP(t, VEC_NM, 0);
	BYTES(&t, 0x0f, 0xae, 0x03); /* fxsave */
	CHECK_TRAP(t, VEC_NM, 0);
	write_cr0((cr0 | CR0_TS) & ~(ulong)CR0_MP);
	BYTES(&t, FWAIT);
	CHECK_EQ(t.vec, -1);
	write_cr0(cr0 | CR0_EM);
	BYTES(&t, FNINIT);
	CHECK_TRAP(t, VEC_NM, 0);
	BYTES(&t, XORPS);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, PXOR_MM);
	CHECK_TRAP(t, VEC_UD, 0);
	write_cr0(cr0 | CR0_EM | CR0_TS);
	BYTES(&t, XORPS);
	CHECK_TRAP(t, VEC_UD, 0); /* EM before TS */
	write_cr0(cr0);
	write_cr4(cr4 & ~(ulong)CR4_OSFXSR);
	BYTES(&t, XORPS);
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, PXOR_MM);
	CHECK_EQ(t.vec, -1);
	write_cr4(cr4);
	BYTES(&t, FNINIT);
	BYTES(&t, VXORPS); /* no OSXSAVE */
	CHECK_TRAP(t, VEC_UD, 0);
	BYTES(&t, 0x31, 0xc9, 0x0f, 0x01, 0xd0); /* xgetbv */
	CHECK_TRAP(t, VEC_UD, 0);
	if (!HAS_1C(26) || !HAS_1C(28))
		return;
	write_cr4(cr4 | CR4_OSXSAVE);
	CHECK(HAS_1C(27));
	__asm__ volatile("xsetbv" ::"a"(3), "d"(0), "c"(0));
	BYTES(&t, VXORPS); /* XCR0 without AVX */
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, __asm__ volatile("xsetbv" ::"a"(5), "d"(0), "c"(0)));
	CHECK_TRAP(t, VEC_GP, 0); /* AVX without SSE */
	CATCH(t, __asm__ volatile("xsetbv" ::"a"(6), "d"(0), "c"(0)));
	CHECK_TRAP(t, VEC_GP, 0); /* without x87 */
	CATCH(t, __asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(1)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("xsetbv" ::"a"(7), "d"(0x40000000), "c"(0)));
	CHECK_TRAP(t, VEC_GP, 0);
	__asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
	BYTES(&t, VXORPS);
	CHECK_EQ(t.vec, -1);
	write_cr0(cr0 | CR0_TS);
	BYTES(&t, VXORPS);
	CHECK_TRAP(t, VEC_NM, 0);
	write_cr0(cr0);
	CHECK_EQ(cpuid(13, 0).b >= 832, 1);
	write_cr4(cr4);
}

TEST(priorities)
{
	const ulong cr0 = read_cr0();
	struct trap t;

	/* #NM before the operand's faults, #UD before everything */
	write_cr0(cr0 | CR0_TS);
	CATCH(t, __asm__ volatile("movups (%0), %%xmm0" ::"r"(1ul << 63)));
	CHECK_TRAP(t, VEC_NM, 0);
	write_cr0(cr0);
	/* alignment #GP before #PF */
	CATCH(t, __asm__ volatile("movaps (%0), %%xmm0" ::"r"(0x10000000001ul)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("movups (%0), %%xmm0" ::"r"(0x10000000001ul)));
	CHECK_EQ(t.vec, VEC_PF);
	CATCH(t, __asm__ volatile("lock cmpxchg16b (%0)" ::"r"((ulong)data + 8)
				  : "rax", "rdx", "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("lock cmpxchg16b (%0)" ::"r"(0x10000000008ul)
				  : "rax", "rdx", "memory"));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("lock cmpxchg8b (%0)" ::"r"((ulong)data + 3)
				  : "rax", "rdx", "memory"));
	CHECK_EQ(t.vec, -1);
	CATCH(t, __asm__ volatile("fxsave (%0)" ::"r"((ulong)data + 8) : "memory"));
	CHECK_EQ(t.vec, VEC_GP);
	/* a divide whose operand faults */
	CATCH(t, __asm__ volatile("divl (%0)" ::"r"(1ul << 63) : "rax", "rdx"));
	CHECK_TRAP(t, VEC_GP, 0);
}

SNIPPET(u_unaligned, "mov %rdi, %rbx\n\tmovl (%rbx), %eax\n\t" USER_END);
SNIPPET(u_unaligned_push, "mov %rdi, %rsp\n\tpush %rax\n\t" USER_END);

TEST(alignment_check)
{
	struct trap t;
	ulong r[4] = { (ulong)data + 1 };

	write_cr0(read_cr0() | CR0_AM);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_unaligned, (ulong)user_stack_top, 2 | FL_AC, r);
	CHECK_TRAP(t, VEC_AC, 0);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_unaligned, (ulong)user_stack_top, 2, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	r[0] = (ulong)data + 4;
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_unaligned, (ulong)user_stack_top, 2 | FL_AC, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	r[0] = (ulong)data + 60;
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_unaligned_push, (ulong)user_stack_top,
	       2 | FL_AC, r);
	CHECK_TRAP(t, VEC_AC, 0);
	CATCH(t, write_flags(2 | FL_AC); (void)*(volatile u32 *)((ulong)data + 1));
	write_flags(2);
	CHECK_EQ(t.vec, -1); /* ring 0 never */
	write_cr0(read_cr0() & ~(ulong)CR0_AM);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)u_unaligned, (ulong)user_stack_top, 2 | FL_AC, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
}

TEST(fault_pushes_rf)
{
	struct trap t;

	CATCH(t, __asm__ volatile("ud2"));
	CHECK_EQ(t.flags & FL_RF, FL_RF);
	CATCH(t, __asm__ volatile("int $0x51"));
	CHECK_EQ(t.flags & FL_RF, 0);
	CATCH(t, __asm__ volatile("int3"));
	CHECK_EQ(t.flags & FL_RF, 0);
}

TEST(cr2_kept)
{
	struct trap t;

	CATCH(t, (void)*(volatile u8 *)0x10000000123ul);
	CHECK_EQ(t.vec, VEC_PF);
	CHECK_EQ(t.cr2, 0x10000000123ul);
	CATCH(t, __asm__ volatile("ud2"));
	CHECK_EQ(t.cr2, 0x10000000123ul);
	write_cr2(0x55);
	CHECK_EQ(read_cr2(), 0x55);
}

TEST(msr_rules)
{
	struct trap t;

	CATCH(t, rdmsr(0x40000fff));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(0xc0001fff, 1));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_PAT, 0x0707070707070702ull)); /* 2 is no memory type */
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_APICBASE, rdmsr(MSR_APICBASE) | 1));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_APICBASE, rdmsr(MSR_APICBASE) | 1ull << 60));
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_TSC, 0x100000000000ull);
	CHECK(rdtsc() - 0x100000000000ull < 10000000000ull);
	CHECK_EQ(rdmsr(0xfe) & 0xff00ff00, rdmsr(0xfe) & 0x0500); /* MTRRcap, no reserved bits */
}

TEST(cpuid_sanity)
{
	const struct cpuid_regs top = cpuid(0, 0), ext = cpuid(0x80000000, 0);
	struct cpuid_regs r;

	CHECK(top.a >= 13);
	CHECK(ext.a >= 0x80000008);
	CHECK(HAS_8D(29)); /* long mode */
	r = cpuid(0x80000008, 0);
	CHECK((r.a & 0xff) >= 36 && (r.a & 0xff) <= 52);
	CHECK_EQ(r.a >> 8 & 0xff, 48);
	r = cpuid(1, 0);
	CHECK_EQ(r.d & 0x06000011, 0x06000011); /* SSE2, SSE, TSC, FPU */
	CHECK_EQ(r.c >> 27 & 1, 0);             /* OSXSAVE mirrors CR4 */
	if (r.c >> 26 & 1) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		CHECK_EQ(cpuid(1, 0).c >> 27 & 1, 1);
		write_cr4(read_cr4() & ~(ulong)CR4_OSXSAVE);
	}
	/* a 32-bit operation: the upper halves go */
	{
		ulong a = 0xffffffff00000000ul, b = -1ul, c = 0xffffffff00000000ul, d = -1ul;

		__asm__ volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
		CHECK_EQ(a >> 32 | b >> 32 | c >> 32 | d >> 32, 0);
	}
}

TEST(tsc_monotonic)
{
	u64 last = rdtsc();

	for (unsigned i = 0; i < 20000; i++) {
		u64 now = rdtsc();

		CHECK(now >= last);
		last = now;
	}
}
