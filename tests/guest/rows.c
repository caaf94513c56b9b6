/*
 * Instructions that nothing else in the tests executes, found by tests/coverage.py: far pointers
 * into segment registers, POP SS, SLDT, string output by bytes, cache control, RDPID, hypercalls.
 * References: [SDM2], [KVM "hypercalls"].
 */
#include "cpu.h"

#define S0         SEL_FREE
#define S1         (SEL_FREE + 8)
#define POST_PORT  0x80
#define KVM_ENOSYS 1000

struct far_ptr {
	u32 off;
	u16 sel;
} __attribute__((packed));

static u64 rows_word = 0x1122334455667788;

#define FAR_LOAD(name, reg) \
	do { \
		struct far_ptr p = { 0x12345678, S0 }; \
		u32 off = 0; \
		ulong was, now; \
\
		__asm__ volatile("mov %%" reg ", %1\n\t" name " %3, %0\n\tmov %%" reg \
				 ", %2\n\tmov %1, %%" reg \
				 : "=&r"(off), "=&r"(was), "=&r"(now) \
				 : "m"(p)); \
		CHECK_EQ(off, 0x12345678); \
		CHECK_EQ(now & 0xffff, S0); \
	} while (0)

TEST(far_pointers)
{
	struct far_ptr bad = { 1, S1 };
	struct trap t;

	gdt_set(S0, make_desc(0, 0xfffff, 0x93, 0xc));
	gdt_set(S1, make_desc(0, 0xfffff, 0x13, 0xc)); /* not present */
	FAR_LOAD("lfs", "fs");
	FAR_LOAD("lgs", "gs");
	FAR_LOAD("lss", "ss");
#ifndef GUEST64
	FAR_LOAD("les", "es");
	FAR_LOAD("lds", "ds");
	CATCH(t, __asm__ volatile("les %0, %%eax" ::"m"(bad) : "eax"));
	CHECK_TRAP(t, VEC_NP, S1);
#endif
	CATCH(t, __asm__ volatile("lfs %0, %%eax" ::"m"(bad) : "rax"));
	CHECK_TRAP(t, VEC_NP, S1);
	CATCH(t, __asm__ volatile("lss %0, %%eax" ::"m"(bad) : "rax"));
	CHECK_TRAP(t, VEC_SS, S1);
}

#ifndef GUEST64
TEST(pop_ss)
{
	u32 now;

	gdt_set(S0, make_desc(0, 0xfffff, 0x93, 0xc));
	__asm__ volatile("mov %%ss, %%edx\n\tpush %1\n\tpop %%ss\n\tmov %%ss, %0\n\tmov %%edx, %%ss"
			 : "=&r"(now)
			 : "i"(S0)
			 : "edx");
	CHECK_EQ(now & 0xffff, S0);
}
#endif

TEST(sldt)
{
	volatile u16 mem[2] = { 0xffff, 0xffff };
	ulong reg = ~0ul;

	gdt_set(S0, make_desc((u32)(ulong)&rows_word, 7, 0x82, 0));
	gdt_set(S1, 0);
	lldt(S0);
	__asm__ volatile("sldt %0" : "=m"(mem[0]));
	CHECK_EQ(mem[0], S0);
	CHECK_EQ(mem[1], 0xffff); /* memory gets 16 bits */
	__asm__ volatile("sldtl %k0" : "+r"(reg));
	CHECK_EQ(reg & 0xffff, S0);
	lldt(0);
	__asm__ volatile("sldtl %k0" : "+r"(reg));
	CHECK_EQ(reg & 0xffff, 0);
}

TEST(outs_bytes)
{
	static const u8 text[4] = { 1, 2, 3, 4 };
	const u8 *p = text;
	ulong n = 3;

	__asm__ volatile("cld\n\toutsb" : "+S"(p) : "d"(POST_PORT) : "memory");
	CHECK_EQ(p - text, 1);
	__asm__ volatile("cld\n\trep outsb" : "+S"(p), "+c"(n) : "d"(POST_PORT) : "memory");
	CHECK_EQ(p - text, 4);
	CHECK_EQ(n, 0);
}

TEST(caches)
{
	struct trap t;

	rows_word = 5;
	__asm__ volatile("wbinvd" ::: "memory");
	CATCH(t, __asm__ volatile(".byte 0xf3, 0x0f, 0x09" ::: "memory")); /* wbnoinvd or wbinvd */
	CHECK_EQ(t.vec, -1);
	CATCH(t, __asm__ volatile("invd" ::: "memory"));
	CHECK_EQ(t.vec, -1);
}

TEST(rdpid)
{
	struct trap t;
	ulong id = 0;

	if (!(cpuid(7, 0).c & 1u << 22)) {
		CATCH(t, __asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" ::: "rax"));
		CHECK_TRAP(t, VEC_UD, 0);
		return;
	}
	wrmsr(0xc0000103, 0x765);                                    /* IA32_TSC_AUX */
	__asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(id)); /* rdpid rax */
	CHECK_EQ(id, 0x765);
}

TEST(hypercalls)
{
	ulong r;

	if (cpuid(0x40000000, 0).b != 0x4b4d564b)
		SKIP("not KVM's hypercalls");
	__asm__ volatile("vmcall" : "=a"(r) : "a"(0x7777) : "memory");
	CHECK_EQ((long)r, -KVM_ENOSYS);
	__asm__ volatile("vmmcall" : "=a"(r) : "a"(0x7777) : "memory");
	CHECK_EQ((long)r, -KVM_ENOSYS);
}
