/*
 * Paging in 32-bit protected mode: two levels with 4-KiB and 4-MiB pages, PAE with no-execute and
 * its four pointer entries, error codes for each permission bit, accessed and dirty bits.
 * References: [SDM3 4.3, 4.4].
 */
#include "cpu.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, RSVD = 8, I = 16 };
#define TEST_VA  0x40000000u
#define USER_VA  0x50000000u
#define USER_SP  (USER_VA + 0x101000u)
#define TEST_PA  (GUEST_FREE + 0x400000u)
#define STACK_PA (GUEST_FREE + 0x300000u)
#define PD       ((volatile u32 *)GUEST_FREE)
#define PT       ((volatile u32 *)(GUEST_FREE + 0x1000))
#define PT_USER  ((volatile u32 *)(GUEST_FREE + 0x2000))
#define PT_STACK ((volatile u32 *)(GUEST_FREE + 0x3000))
#define PDPT     ((volatile u64 *)(GUEST_FREE + 0x4000))
#define PAE_PD   ((volatile u64 *)(GUEST_FREE + 0x8000)) /* four pages */
#define PAE_PT   ((volatile u64 *)(GUEST_FREE + 0xc000))
#define PAE_USER ((volatile u64 *)(GUEST_FREE + 0xd000))

SNIPPET(u_read, "mov (%edi), %eax\n\t" USER_END);
SNIPPET(u_write, "movb $0x5a, (%edi)\n\t" USER_END);
SNIPPET(u_fetch, "call *%edi\n\t" USER_END);

static void flush(void)
{
	write_cr3(read_cr3());
}

static void legacy_on(void)
{
	guest_memset((void *)GUEST_FREE, 0, 0x4000);
	for (u32 i = 0; i < 1024; i++)
		PD[i] = i << 22 | P | W | PS;
	PD[TEST_VA >> 22] = (u32)PT | P | W | U;
	PD[USER_VA >> 22] = (u32)PT_USER | P | W | U;
	for (u32 i = 0; i < 64; i++)
		PT_USER[i] = (0x100000 + i * 4096) | P | U;
	PT_USER[0x100] = STACK_PA | P | W | U;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((ulong)PD);
	write_cr0(read_cr0() | 1u << 31 | CR0_WP);
}

static void paging_off(void)
{
	write_cr0(read_cr0() & ~(1u << 31 | CR0_WP));
	write_cr4(read_cr4() & ~(CR4_PSE | CR4_PAE | CR4_PGE));
}

static void user_run(struct trap *t, const void *code)
{
	const ulong r[4] = { TEST_VA };

	run_at(t, SEL_UCODE32, SEL_UDATA, USER_VA + ((ulong)code - 0x100000), USER_SP, 2, r);
}

static void kernel_access(struct trap *t, ulong va, bool write)
{
	CATCH(*t, if (write) __asm__ volatile("movb $0x5a, (%0)" ::"r"(va)
					      : "memory");
	      else __asm__ volatile("mov (%0), %%eax" ::"r"(va)
				    : "eax", "memory"));
}

TEST(two_level_matrix)
{
	struct trap t;

	legacy_on();
	for (unsigned wp = 0; wp < 2; wp++)
		for (unsigned c = 0; c < 64; c++)
			for (unsigned access = 0; access < 4; access++) {
				const bool user = access & 2, write = access & 1;
				const u32 pte = c & 7, pde = c >> 3;
				u32 err = (write ? W : 0) | (user ? U : 0);
				bool bad = false;

				write_cr0((read_cr0() & ~CR0_WP) | (wp ? CR0_WP : 0));
				PT[0] = TEST_PA | pte;
				PD[TEST_VA >> 22] = (u32)PT | pde;
				flush();
				if (user)
					user_run(&t, write ? u_write : u_read);
				else
					kernel_access(&t, TEST_VA, write);
				if (!(pte & pde & P)) {
					bad = true;
				} else {
					bad = (user && !(pte & pde & U)) ||
					      (write && !(pte & pde & W) && (user || wp));
					err |= P;
				}
				if (bad) {
					CHECK_TRAP(t, VEC_PF, err);
					CHECK_EQ(t.cr2, TEST_VA);
				} else {
					CHECK_EQ(t.vec, user ? VEC_USER_EXIT : -1);
					CHECK_EQ(PT[0] & (A | D), A | (write ? D : 0));
					CHECK_EQ(PD[TEST_VA >> 22] & A, A);
				}
				if (test_failed) {
					guest_printf("# pte %x pde %x wp %u access %u\n", pte, pde,
						     wp, access);
					paging_off();
					return;
				}
			}
	paging_off();
}

TEST(four_mib_pages)
{
	struct trap t;
	volatile u32 *pde = &PD[TEST_VA >> 22];

	legacy_on();
	*(volatile u32 *)(TEST_PA + 0x54320) = 0x600d;
	*pde = (TEST_PA & ~0x3fffffu) | P | W | PS;
	flush();
	CHECK_EQ(*(volatile u32 *)(TEST_VA + (TEST_PA & 0x3fffff) + 0x54320), 0x600d);
	CHECK_EQ(*pde & (A | D), A);
	*(volatile u32 *)TEST_VA = 1;
	CHECK_EQ(*pde & (A | D), A | D);
	*pde |= 1u << 21; /* reserved whatever PSE-36 does with the bits below */
	flush();
	kernel_access(&t, TEST_VA, false);
	CHECK_TRAP(t, VEC_PF, P | RSVD);
	paging_off();
}

TEST(fetches)
{
	struct trap t;

	legacy_on();
	*(volatile u8 *)TEST_PA = 0xc3;
	PT[0] = TEST_PA | P | U;
	flush();
	user_run(&t, u_fetch);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	PT[0] = TEST_PA | P;
	flush();
	user_run(&t, u_fetch);
	CHECK_TRAP(t, VEC_PF, P | U); /* no I bit: neither NX nor SMEP */
	CHECK_EQ(t.ip, TEST_VA);
	if (HAS_7B(7)) {
		write_cr4(read_cr4() | CR4_SMEP);
		PT[0] = TEST_PA | P | U;
		flush();
		CATCH(t, __asm__ volatile("call *%0" ::"r"(TEST_VA) : "memory"));
		CHECK_TRAP(t, VEC_PF, P | I);
		write_cr4(read_cr4() & ~CR4_SMEP);
	}
	paging_off();
}

TEST(straddle_32)
{
	struct trap t;

	legacy_on();
	PT[0] = TEST_PA | P | W;
	PT[1] = 0;
	flush();
	*(volatile u32 *)(TEST_PA + 4092) = 0x11111111;
	CATCH(t, *(volatile u32 *)(TEST_VA + 4094) = 0x22222222);
	CHECK_TRAP(t, VEC_PF, W);
	CHECK_EQ(t.cr2, TEST_VA + 4096);
	CHECK_EQ(*(volatile u32 *)(TEST_PA + 4092), 0x11111111);
	PT[1] = (TEST_PA + 0x2000) | P | W;
	*(volatile u32 *)(TEST_VA + 4094) = 0x44332211;
	CHECK_EQ(*(volatile u16 *)(TEST_PA + 4094), 0x2211);
	CHECK_EQ(*(volatile u16 *)(TEST_PA + 0x2000), 0x4433);
	paging_off();
}

static bool pae_on(bool nx)
{
	if (!HAS_1D(6))
		return false;
	guest_memset((void *)(GUEST_FREE + 0x4000), 0, 0xa000);
	for (u32 g = 0; g < 4; g++) {
		PDPT[g] = ((u32)PAE_PD + g * 4096) | P;
		for (u32 i = 0; i < 512; i++)
			PAE_PD[g * 512 + i] = (g << 30) + (i << 21) + (P | W | PS);
	}
	PAE_PD[TEST_VA >> 21] = (u32)PAE_PT | P | W | U;
	PAE_PD[USER_VA >> 21] = (u32)PAE_USER | P | W | U;
	for (u32 i = 0; i < 64; i++)
		PAE_USER[i] = (0x100000 + i * 4096) | P | U;
	PAE_USER[0x100] = STACK_PA | P | W | U;
	write_cr4(read_cr4() | CR4_PAE);
	wrmsr(MSR_EFER, nx ? EFER_NXE : 0);
	write_cr3((ulong)PDPT);
	write_cr0(read_cr0() | 1u << 31 | CR0_WP);
	return true;
}

TEST(pae_permissions)
{
	struct trap t;

	if (!pae_on(true))
		SKIP("no PAE");
	*(volatile u8 *)TEST_PA = 0xc3;
	for (unsigned c = 0; c < 32; c++) {
		const bool nx = c & 8, pde_nx = c & 16, u = c & U, w = c & W, p = c & P;

		PAE_PT[0] = TEST_PA | (c & 7) | (nx ? 1ull << 63 : 0);
		PAE_PD[TEST_VA >> 21] = (u32)PAE_PT | P | W | U | (pde_nx ? 1ull << 63 : 0);
		flush();
		user_run(&t, u_fetch);
		if (p && u && !nx && !pde_nx)
			CHECK_TRAP(t, VEC_USER_EXIT, 0);
		else
			CHECK_TRAP(t, VEC_PF, (p ? P : 0) | U | I);
		user_run(&t, u_write);
		*(volatile u8 *)TEST_PA = 0xc3;
		if (p && u && w)
			CHECK_TRAP(t, VEC_USER_EXIT, 0);
		else
			CHECK_TRAP(t, VEC_PF, (p ? P : 0) | U | W);
	}
	PAE_PD[TEST_VA >> 21] = (u32)PAE_PT | P | W | U;
	PAE_PT[0] = TEST_PA | P | W | 1ull << 62;
	flush();
	kernel_access(&t, TEST_VA, false);
	CHECK_TRAP(t, VEC_PF, P | RSVD); /* 62:52 are reserved in this mode */
	wrmsr(MSR_EFER, 0);
	PAE_PT[0] = TEST_PA | P | W | 1ull << 63;
	flush();
	kernel_access(&t, TEST_VA, true);
	CHECK_TRAP(t, VEC_PF, P | RSVD | W);
	PAE_PD[TEST_VA >> 21] = (TEST_PA & ~0x1fffffu) | P | W | PS | 1u << 13;
	flush();
	kernel_access(&t, TEST_VA, false);
	CHECK_TRAP(t, VEC_PF, P | RSVD);
	paging_off();
}

TEST(pae_pointer_entries)
{
	struct trap t;

	if (!pae_on(false))
		SKIP("no PAE");
	PAE_PT[0] = TEST_PA | P | W;
	kernel_access(&t, TEST_VA, false);
	CHECK_EQ(t.vec, -1);
	PDPT[2] = 0;
	flush(); /* loaded with CR3 */
	kernel_access(&t, 0x80000000, false);
	CHECK_TRAP(t, VEC_PF, 0);
	PDPT[2] = ((u32)PAE_PD + 2 * 4096) | P | W; /* bits 2:1 are reserved */
	if (!cmdline_has("vmm=tcg")) {
		CATCH(t, flush());
		CHECK_TRAP(t, VEC_GP, 0);
		PDPT[2] = ((u32)PAE_PD + 2 * 4096) | P | 1ull << 63;
		CATCH(t, flush());
		CHECK_TRAP(t, VEC_GP, 0);
	}
	PDPT[2] = ((u32)PAE_PD + 2 * 4096) | P;
	flush();
	kernel_access(&t, 0x80000000 - 4, false);
	CHECK_EQ(t.vec, -1);
	paging_off();
}

TEST(global_pages)
{
	legacy_on();
	write_cr4(read_cr4() | CR4_PGE);
	*(volatile u32 *)TEST_PA = 1;
	*(volatile u32 *)(TEST_PA + 4096) = 2;
	PT[0] = TEST_PA | P | W | G;
	invlpg(TEST_VA);
	CHECK_EQ(*(volatile u32 *)TEST_VA, 1);
	PT[0] = (TEST_PA + 4096) | P | W | G;
	invlpg(TEST_VA);
	CHECK_EQ(*(volatile u32 *)TEST_VA, 2);
	PT[0] = TEST_PA | P | W | G;
	write_cr4(read_cr4() & ~CR4_PGE);
	CHECK_EQ(*(volatile u32 *)TEST_VA, 1);
	paging_off();
}

TEST(cr0_rules)
{
	struct trap t;

	if (cmdline_has("vmm=tcg"))
		SKIP("TCG takes any CR0");
	CATCH(t, write_cr0((read_cr0() | 1u << 31) & ~CR0_PE));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr0((read_cr0() | CR0_NW) & ~CR0_CD));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr4(read_cr4() | 1u << 31));
	CHECK_TRAP(t, VEC_GP, 0);
	/* LME without PAE: paging cannot be enabled */
	legacy_on();
	paging_off();
	wrmsr(MSR_EFER, EFER_LME);
	CATCH(t, write_cr0(read_cr0() | 1u << 31));
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_EFER, 0);
}
