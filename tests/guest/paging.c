/*
 * Paging with four levels: each permission bit against each kind of access, with the error code;
 * reserved bits, accessed and dirty bits, large pages, accesses over two pages, invalidation,
 * process-context identifiers, protection keys. References: [SDM3 4].
 */
#include "page.h"

#define TEST_VA  0x10000000000ul
#define USER_VA  0x18000000000ul
#define TEST_PA  (GUEST_FREE + 0x400000)
#define TABLES   GUEST_FREE
#define STACK_PA (GUEST_FREE + 0x300000)

static struct page_pool pool;
static ulong old_cr3;

SNIPPET(u_read, "mov (%rdi), %rax\n\t" USER_END);
SNIPPET(u_write, "movb $0x5a, (%rdi)\n\t" USER_END);
SNIPPET(u_fetch, "call *%rdi\n\t" USER_END);
SNIPPET(u_locked, "xor %eax, %eax\n\tlock cmpxchg %rsi, (%rdi)\n\t" USER_END);
SNIPPET(u_load_fs, "mov %edi, %fs\n\t" USER_END);

/* Code pages of the image, reachable by ring 3. */
static ulong user_alias(const void *code)
{
	return USER_VA + ((ulong)code & 0xfffff);
}

static void paging_on(void)
{
	if (!pool.root) {
		page_init(&pool, TABLES);
		for (ulong off = 0; off < 0x20000; off += PAGE)
			page_map(&pool, USER_VA + off, 0x100000 + off, PTE_P | PTE_U);
		page_map(&pool, USER_VA + 0x200000, STACK_PA, PTE_P | PTE_W | PTE_U);
		old_cr3 = read_cr3();
	}
	write_cr3((ulong)pool.root);
}

static void paging_off(void)
{
	write_cr3(old_cr3);
}

static void user_run(struct trap *t, const void *code, ulong va, ulong flags)
{
	const ulong r[4] = { va };

	run_at(t, SEL_UCODE64, SEL_UDATA, user_alias(code), USER_VA + 0x201000, 2 | flags, r);
}

static void kernel_access(struct trap *t, ulong va, bool write, bool fetch, bool ac)
{
	CATCH(*t, if (ac) write_flags(2 | FL_AC); if (fetch) __asm__ volatile("call *%0" ::"r"(va)
									      : "memory");
	      else if (write) __asm__ volatile("movb $0x5a, (%0)" ::"r"(va)
					       : "memory");
	      else __asm__ volatile("mov (%0), %%rax" ::"r"(va)
				    : "rax", "memory"));
	write_flags(2);
}

enum {
	C_P = 1,
	C_W = 2,
	C_U = 4,
	C_NX = 8,
	C_RSVD = 16, /* the last level */
	C_DW = 32,
	C_DU = 64,
	C_DNX = 128, /* the one above */
	C_END = 256,
	M_WP = 1,
	M_NXE = 2,
	M_SMEP = 4,
	M_SMAP = 8,
	M_AC = 16,
	M_END = 32,
};

/* What the manual says: -1 or the error code. */
static long expected(unsigned c, unsigned m, bool user, bool write, bool fetch)
{
	ulong err = (write ? PF_W : 0) | (user ? PF_U : 0) |
		    (fetch && (m & (M_NXE | M_SMEP)) ? PF_I : 0);
	bool nx = c & (C_NX | C_DNX), upage = (c & C_U) && (c & C_DU), bad = false;

	if ((c & C_DNX) && !(m & M_NXE))
		return (long)(err | PF_P | PF_RSVD);
	if (!(c & C_P))
		return (long)err;
	if ((c & C_RSVD) || (nx && !(m & M_NXE)))
		return (long)(err | PF_P | PF_RSVD);
	if (user && !upage)
		bad = true;
	if (fetch && (nx || (!user && upage && (m & M_SMEP))))
		bad = true;
	if (!fetch && !user && upage && (m & M_SMAP) && !(m & M_AC))
		bad = true;
	if (write && !((c & C_W) && (c & C_DW)) && (user || (m & M_WP)))
		bad = true;
	return bad ? (long)(err | PF_P) : -1;
}

static void set_mode(unsigned m)
{
	write_cr0((read_cr0() & ~(ulong)CR0_WP) | (m & M_WP ? CR0_WP : 0));
	wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_NXE) | (m & M_NXE ? EFER_NXE : 0));
	write_cr4((read_cr4() & ~(ulong)(CR4_SMEP | CR4_SMAP)) | (m & M_SMEP ? CR4_SMEP : 0) |
		  (m & M_SMAP ? CR4_SMAP : 0));
}

static unsigned modes_absent(void)
{
	return (HAS_7B(7) ? 0 : M_SMEP) | (HAS_7B(20) ? 0 : M_SMAP | M_AC);
}

/* One kind of access against all combinations of one set of modes. */
static void matrix(bool user, bool write, bool fetch)
{
	u64 *pte = page_entry(&pool, TEST_VA, 1), *pde = page_entry(&pool, TEST_VA, 2);
	const u64 table = *pde & PTE_ADDR;
	const unsigned absent = modes_absent();
	struct trap t;

	*(volatile u8 *)TEST_PA = 0xc3;
	for (unsigned m = 0; m < M_END; m++) {
		if (m & absent)
			continue;
		set_mode(m);
		for (unsigned c = 0; c < C_END; c++) {
			const long want = expected(c, m, user, write, fetch);

			*pte = TEST_PA | (c & (C_P | C_W | C_U)) | (c & C_NX ? PTE_NX : 0) |
			       (c & C_RSVD ? 1ull << 51 : 0);
			*pde = table | PTE_P | (c & C_DW ? PTE_W : 0) | (c & C_DU ? PTE_U : 0) |
			       (c & C_DNX ? PTE_NX : 0);
			flush_all();
			if (user)
				user_run(&t,
					 write   ? u_write
					 : fetch ? u_fetch
						 : u_read,
					 TEST_VA, m & M_AC ? FL_AC : 0);
			else
				kernel_access(&t, TEST_VA, write, fetch, m & M_AC);
			if (write)
				*(volatile u8 *)TEST_PA = 0xc3;
			if (want < 0) {
				CHECK_EQ(t.vec, user ? VEC_USER_EXIT : -1);
				CHECK_EQ(*pde & PTE_A, PTE_A);
				CHECK_EQ(*pte & (PTE_A | PTE_D), PTE_A | (write ? PTE_D : 0));
			} else {
				CHECK_TRAP(t, VEC_PF, want);
				CHECK_EQ(t.cr2, TEST_VA);
				CHECK_EQ(*pte & PTE_D, 0);
			}
			if (test_failed) {
				guest_printf("# entry bits %x, mode bits %x\n", c, m);
				goto out;
			}
		}
	}
out:
	set_mode(M_WP | M_NXE);
	*pde = table | PTE_P | PTE_W | PTE_U;
	*pte = 0;
	flush_all();
	paging_off();
}

TEST(matrix_kernel_read)
{
	paging_on();
	matrix(false, false, false);
}

TEST(matrix_kernel_write)
{
	paging_on();
	matrix(false, true, false);
}

TEST(matrix_kernel_fetch)
{
	paging_on();
	matrix(false, false, true);
}

TEST(matrix_user_read)
{
	paging_on();
	matrix(true, false, false);
}

TEST(matrix_user_write)
{
	paging_on();
	matrix(true, true, false);
}

TEST(matrix_user_fetch)
{
	paging_on();
	matrix(true, false, true);
}

TEST(upper_levels)
{
	struct trap t;

	paging_on();
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W | PTE_U);
	for (unsigned level = 2; level <= 4; level++) {
		volatile u64 *e = page_entry(&pool, TEST_VA, level);
		const u64 save = *e;

		*e = save & ~(u64)PTE_P;
		flush_all();
		user_run(&t, u_write, TEST_VA, 0);
		CHECK_TRAP(t, VEC_PF, PF_U | PF_W);
		*e = save & ~(u64)PTE_W;
		flush_all();
		user_run(&t, u_write, TEST_VA, 0);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_W);
		*e = save & ~(u64)PTE_U;
		flush_all();
		user_run(&t, u_read, TEST_VA, 0);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_U);
		*e = save | PTE_NX;
		flush_all();
		user_run(&t, u_fetch, TEST_VA, 0);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_I);
		*e = save | 1ull << 51;
		flush_all();
		user_run(&t, u_read, TEST_VA, 0);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_RSVD);
		*e = save & ~(u64)PTE_A;
		flush_all();
		user_run(&t, u_read, TEST_VA, 0);
		CHECK_TRAP(t, VEC_USER_EXIT, 0);
		CHECK_EQ(*e, save | PTE_A);
		if (level == 4) {
			*e = save | PTE_PS;
			flush_all();
			user_run(&t, u_read, TEST_VA, 0);
			CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_RSVD);
		}
		*e = save;
	}
	paging_off();
}

TEST(large_pages)
{
	volatile u64 *pde, *pdpte;
	u64 save;
	struct trap t;

	paging_on();
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	pde = page_entry(&pool, TEST_VA, 2);
	save = *pde;
	*(volatile u64 *)(TEST_PA + 0x12345678 % 0x200000) = 0xabcdef;
	*pde = (TEST_PA & ~0x1ffffful) | PTE_P | PTE_PS | PTE_W;
	flush_all();
	CHECK_EQ(*(volatile u64 *)(TEST_VA + 0x12345678 % 0x200000), 0xabcdef);
	CHECK_EQ(*pde & (PTE_A | PTE_D), PTE_A);
	*(volatile u64 *)TEST_VA = 1;
	CHECK_EQ(*pde & (PTE_A | PTE_D), PTE_A | PTE_D);
	*pde |= 1u << 12; /* PAT */
	flush_all();
	kernel_access(&t, TEST_VA, false, false, false);
	CHECK_EQ(t.vec, -1);
	*pde |= 1u << 13;
	flush_all();
	kernel_access(&t, TEST_VA, false, false, false);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_RSVD);
	*pde = save;
	pdpte = page_entry(&pool, TEST_VA, 3);
	save = *pdpte;
	*pdpte = PTE_P | PTE_PS | PTE_W;
	flush_all();
	kernel_access(&t, TEST_VA + 0x100000, false, false, false);
	if (HAS_8D(26)) {
		CHECK_EQ(t.vec, -1);
		CHECK_EQ(*(volatile u32 *)(TEST_VA + 0x100000), 0x1badb002);
		*pdpte |= 1u << 20;
		flush_all();
		kernel_access(&t, TEST_VA, true, false, false);
	}
	CHECK_TRAP(t, VEC_PF, PF_P | PF_RSVD | (HAS_8D(26) ? PF_W : 0));
	*pdpte = save;
	flush_all();
	paging_off();
}

TEST(straddle)
{
	volatile u64 *first = (u64 *)(TEST_PA + PAGE - 8);
	struct trap t;

	paging_on();
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	page_map(&pool, TEST_VA + PAGE, 0, 0);
	*first = 0x1111111111111111;
	CATCH(t, *(volatile u64 *)(TEST_VA + PAGE - 3) = 0x2222222222222222);
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	CHECK_EQ(*first, 0x1111111111111111); /* nothing of it was written */
	CATCH(t, (void)*(volatile u64 *)(TEST_VA + PAGE - 1));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	page_map(&pool, TEST_VA + PAGE, TEST_PA + 2 * PAGE, PTE_P);
	CATCH(t, *(volatile u64 *)(TEST_VA + PAGE - 3) = 0x2222222222222222);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	CHECK_EQ(*first, 0x1111111111111111);
	CATCH(t, __asm__ volatile("lock addq $1, (%0)" ::"r"(TEST_VA + PAGE - 4) : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	page_map(&pool, TEST_VA, 0, 0);
	page_map(&pool, TEST_VA + PAGE, TEST_PA + 2 * PAGE, PTE_P | PTE_W);
	CATCH(t, *(volatile u64 *)(TEST_VA + PAGE - 3) = 0x2222222222222222);
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, TEST_VA + PAGE - 3);
	/* two pages that are not neighbours in memory */
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	*(volatile u64 *)(TEST_PA + 2 * PAGE) = 0;
	*(volatile u64 *)(TEST_VA + PAGE - 3) = 0x8877665544332211;
	CHECK_EQ(*first, 0x3322111111111111);
	CHECK_EQ(*(volatile u64 *)(TEST_PA + 2 * PAGE), 0x8877665544);
	CHECK_EQ(*(volatile u64 *)(TEST_VA + PAGE - 3), 0x8877665544332211);
	__asm__ volatile("lock addq %1, (%0)" ::"r"(TEST_VA + PAGE - 3), "r"(0x0101010101010101ul)
			 : "memory", "cc");
	CHECK_EQ(*(volatile u64 *)(TEST_VA + PAGE - 3), 0x8978675645342312);
	paging_off();
}

TEST(straddle_fetch)
{
	static const u8 movabs[10] = { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct trap t;
	ulong ax;

	paging_on();
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	page_map(&pool, TEST_VA + PAGE, TEST_PA + 2 * PAGE, PTE_P | PTE_NX);
	guest_memcpy((void *)(TEST_PA + PAGE - 5), movabs, 5);
	guest_memcpy((void *)(TEST_PA + 2 * PAGE), movabs + 5, 5);
	*(volatile u8 *)(TEST_PA + 2 * PAGE + 5) = 0xc3;
	CATCH(t, __asm__ volatile("call *%0" ::"r"(TEST_VA + PAGE - 5) : "rax", "memory"));
	CHECK_TRAP(t, VEC_PF, PF_P | PF_I);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	CHECK_EQ(t.ip, TEST_VA + PAGE - 5);
	page_map(&pool, TEST_VA + PAGE, TEST_PA + 2 * PAGE, PTE_P);
	__asm__ volatile("call *%1" : "=a"(ax) : "r"(TEST_VA + PAGE - 5) : "memory");
	CHECK_EQ(ax, 0x0807060504030201);
	/* the second half changes under the same address */
	page_map(&pool, TEST_VA + PAGE, TEST_PA + 3 * PAGE, PTE_P);
	guest_memset((void *)(TEST_PA + 3 * PAGE), 0x99, 5);
	*(volatile u8 *)(TEST_PA + 3 * PAGE + 5) = 0xc3;
	__asm__ volatile("call *%1" : "=a"(ax) : "r"(TEST_VA + PAGE - 5) : "memory");
	CHECK_EQ(ax, 0x9999999999030201);
	page_map(&pool, TEST_VA + PAGE, 0, 0);
	/* an instruction that ends with the page does not touch the next one */
	*(volatile u8 *)(TEST_PA + PAGE - 1) = 0xc3;
	__asm__ volatile("call *%0" ::"r"(TEST_VA + PAGE - 1) : "memory");
	paging_off();
}

TEST(invalidation)
{
	volatile u64 *pte, *p = (u64 *)TEST_VA;

	paging_on();
	*(volatile u64 *)TEST_PA = 1;
	*(volatile u64 *)(TEST_PA + PAGE) = 2;
	for (unsigned g = 0; g < 2; g++) {
		const u64 bits = PTE_P | PTE_W | (g ? PTE_G : 0);

		page_map(&pool, TEST_VA, TEST_PA, bits);
		pte = page_entry(&pool, TEST_VA, 1);
		CHECK_EQ(*p, 1);
		*pte = (TEST_PA + PAGE) | bits;
		invlpg(TEST_VA + 0x123);
		CHECK_EQ(*p, 2);
		*pte = TEST_PA | bits;
		if (!g) {
			flush_all();
			CHECK_EQ(*p, 1);
		}
		write_cr4(read_cr4() ^ CR4_PGE);
		CHECK_EQ(*p, 1);
		*pte = (TEST_PA + PAGE) | bits;
		write_cr4(read_cr4() ^ CR4_PGE);
		CHECK_EQ(*p, 2);
		*pte = TEST_PA | bits;
		write_cr0(read_cr0() & ~(ulong)CR0_WP); /* not a flush by itself */
		write_cr0(read_cr0() | CR0_WP);
		invlpg(TEST_VA);
		CHECK_EQ(*p, 1);
	}
	/* a page that becomes present needs no invalidation */
	page_map(&pool, TEST_VA, 0, 0);
	{
		struct trap t;

		kernel_access(&t, TEST_VA, false, false, false);
		CHECK_TRAP(t, VEC_PF, 0);
		*pte = TEST_PA | PTE_P;
		CHECK_EQ(*p, 1);
		kernel_access(&t, TEST_VA, true, false, false);
		CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
		*pte = TEST_PA | PTE_P | PTE_W; /* nor does one that was refused */
		kernel_access(&t, TEST_VA, true, false, false);
		CHECK_EQ(t.vec, -1);
	}
	paging_off();
}

static void invpcid(ulong type, u64 pcid, u64 addr)
{
	const u64 desc[2] = { pcid, addr };

	__asm__ volatile("invpcid %0, %1" ::"m"(desc), "r"(type) : "memory");
}

TEST(pcid)
{
	volatile u64 *pte, *p = (u64 *)TEST_VA;
	struct trap t;
	ulong root;

	if (cmdline_has("vmm=tcg"))
		SKIP("TCG takes any CR3, and then hangs");
	CATCH(t, write_cr3(read_cr3() | 1ul << 63));
	CHECK_TRAP(t, VEC_GP, 0);
	if (!HAS_1C(17)) {
		CATCH(t, write_cr4(read_cr4() | CR4_PCIDE));
		CHECK_TRAP(t, VEC_GP, 0);
		SKIP("no PCID");
	}
	paging_on();
	root = (ulong)pool.root;
	write_cr3(root | 0x18);
	CATCH(t, write_cr4(read_cr4() | CR4_PCIDE));
	CHECK_TRAP(t, VEC_GP, 0); /* CR3[11:0] is not 0 */
	write_cr3(root);
	write_cr4(read_cr4() | CR4_PCIDE);
	*(volatile u64 *)TEST_PA = 1;
	*(volatile u64 *)(TEST_PA + PAGE) = 2;
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	pte = page_entry(&pool, TEST_VA, 1);
	write_cr3(root | 5);
	CHECK_EQ(*p, 1);
	*pte = (TEST_PA + PAGE) | PTE_P | PTE_W;
	write_cr3(root | 6); /* flushes context 6 only, and nothing was cached there */
	CHECK_EQ(*p, 2);
	write_cr3(root | 5);
	CHECK_EQ(*p, 2); /* without bit 63 it flushes */
	write_cr3(root | 6 | 1ul << 63);
	CHECK_EQ(read_cr3(), root | 6); /* bit 63 is not kept */
	CHECK_EQ(*p, 2);
	if (HAS_7B(10)) {
		*pte = TEST_PA | PTE_P | PTE_W;
		invpcid(0, 6, TEST_VA);
		CHECK_EQ(*p, 1);
		*pte = (TEST_PA + PAGE) | PTE_P | PTE_W;
		invpcid(1, 6, 0);
		CHECK_EQ(*p, 2);
		*pte = TEST_PA | PTE_P | PTE_W;
		invpcid(2, 0, 0);
		CHECK_EQ(*p, 1);
		*pte = (TEST_PA + PAGE) | PTE_P | PTE_W;
		invpcid(3, 0, 0);
		CHECK_EQ(*p, 2);
		write_cr3(root | 5 | 1ul << 63);
		CHECK_EQ(*p, 2);
		CATCH(t, invpcid(4, 0, 0));
		CHECK_TRAP(t, VEC_GP, 0);
		CATCH(t, invpcid(0, 0x1000, TEST_VA));
		CHECK_TRAP(t, VEC_GP, 0);
		CATCH(t, invpcid(0, 1, 1ull << 63));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	/* PCIDE goes and comes: nothing stale */
	write_cr3(root);
	*pte = TEST_PA | PTE_P | PTE_W;
	write_cr4(read_cr4() & ~(ulong)CR4_PCIDE);
	CHECK_EQ(*p, 1);
	paging_off();
}

static void wrpkru(u32 v)
{
	__asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(v), "c"(0), "d"(0));
}

TEST(protection_keys)
{
	struct trap t;
	const u64 key = 3ull << 59;

	CATCH(t, wrpkru(0));
	CHECK_TRAP(t, VEC_UD, 0);
	if (!HAS_7C(3))
		SKIP("no PKU");
	paging_on();
	write_cr4(read_cr4() | CR4_PKE);
	CHECK(HAS_7C(4)); /* OSPKE */
	wrpkru(0);
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W | PTE_U | key);
	user_run(&t, u_read, TEST_VA, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	wrpkru(1u << 6);
	user_run(&t, u_read, TEST_VA, 0);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_PK);
	kernel_access(&t, TEST_VA, false, false, false);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_PK);
	*(volatile u8 *)TEST_PA = 0xc3;
	user_run(&t, u_fetch, TEST_VA, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT); /* keys do not concern fetches */
	wrpkru(2u << 6);
	user_run(&t, u_read, TEST_VA, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	user_run(&t, u_write, TEST_VA, 0);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_U | PF_W | PF_PK);
	kernel_access(&t, TEST_VA, true, false, false);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W | PF_PK);
	write_cr0(read_cr0() & ~(ulong)CR0_WP);
	kernel_access(&t, TEST_VA, true, false, false);
	CHECK_EQ(t.vec, -1);
	write_cr0(read_cr0() | CR0_WP);
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W | key); /* keys are for user pages */
	kernel_access(&t, TEST_VA, true, false, false);
	CHECK_EQ(t.vec, -1);
	wrpkru(0);
	write_cr4(read_cr4() & ~(ulong)CR4_PKE);
	paging_off();
}

TEST(cmpxchg_always_writes)
{
	struct trap t;

	paging_on();
	*(volatile u64 *)TEST_PA = 77; /* the compare with 0 fails */
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_U);
	user_run(&t, u_locked, TEST_VA, 0);
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W | PF_U);
	CATCH(t,
	      __asm__ volatile(
		      "xor %%eax, %%eax\n\txor %%edx, %%edx\n\tlock cmpxchg8b (%0)" ::"r"(TEST_VA)
		      : "rax", "rdx", "memory"));
	CHECK_TRAP(t, VEC_PF, PF_P | PF_W);
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_U | PTE_W);
	user_run(&t, u_locked, TEST_VA, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	CHECK_EQ(t.ax, 77);
	CHECK_EQ(*page_entry(&pool, TEST_VA, 1) & PTE_D, PTE_D);
	paging_off();
}

TEST(implicit_supervisor)
{
	static const struct table_reg normal = { GDT_ENTRIES * 8 - 1, (ulong)gdt };
	const struct table_reg moved = { GDT_ENTRIES * 8 - 1, TEST_VA };
	struct trap t;

	paging_on();
	guest_memcpy((void *)TEST_PA, gdt, GDT_ENTRIES * 8);
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	lgdt(&moved);
	user_run(&t, u_load_fs, SEL_UDATA, 0); /* ring 3, but the CPU reads the table as ring 0 */
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	lgdt(&normal);
	write_fs(0);
	CHECK_EQ(read_cr4() & CR4_SMAP, 0);
	paging_off();
}

TEST(push_and_string_faults)
{
	struct trap t;
	volatile u8 *b = (u8 *)TEST_PA;

	paging_on();
	page_map(&pool, TEST_VA, TEST_PA, PTE_P | PTE_W);
	page_map(&pool, TEST_VA + PAGE, 0, 0);
	guest_memset((void *)TEST_PA, 0, PAGE);
	/* REP STOSB stops on the second page with its registers at the byte that failed */
	CATCH(t, __asm__ volatile("rep stosb" ::"D"(TEST_VA + PAGE - 10), "c"(100ul), "a"(7)
				  : "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.cr2, TEST_VA + PAGE);
	CHECK_EQ(t.di, TEST_VA + PAGE);
	CHECK_EQ(t.cx, 90);
	CHECK_EQ(b[PAGE - 1], 7);
	/* backwards */
	CATCH(t, __asm__ volatile("std\n\trep stosb\n\tcld" ::"D"(TEST_VA + 2), "c"(100ul), "a"(9)
				  : "memory"));
	CHECK_EQ(t.vec, VEC_PF);
	CHECK_EQ(t.di, TEST_VA - 1);
	CHECK_EQ(t.cx, 97);
	CHECK_EQ(b[0], 9);
	/* source faults */
	CATCH(t,
	      __asm__ volatile("rep movsb" ::"S"(TEST_VA + PAGE - 4), "D"(TEST_PA + PAGE), "c"(8ul)
			       : "memory"));
	CHECK_TRAP(t, VEC_PF, 0);
	CHECK_EQ(t.si, TEST_VA + PAGE);
	CHECK_EQ(t.cx, 4);
	/* POP to memory that faults leaves rsp alone; so does PUSH from memory */
	CATCH(t, __asm__ volatile("mov %%rsp, %%rbx\n\tpopq (%0)" ::"r"(TEST_VA + PAGE)
				  : "rbx", "memory"));
	CHECK_EQ(t.vec, VEC_PF);
	CHECK_EQ(t.sp, t.bx);
	CATCH(t, __asm__ volatile("mov %%rsp, %%rbx\n\tpushq (%0)" ::"r"(TEST_VA + PAGE)
				  : "rbx", "memory"));
	CHECK_EQ(t.vec, VEC_PF);
	CHECK_EQ(t.sp, t.bx);
	/* XCHG, ADD: registers and flags untouched */
	CATCH(t, __asm__ volatile("mov $5, %%rbx\n\txchg %%rbx, (%0)" ::"r"(TEST_VA + PAGE)
				  : "rbx", "memory"));
	CHECK_TRAP(t, VEC_PF, PF_W);
	CHECK_EQ(t.bx, 5);
	paging_off();
}
