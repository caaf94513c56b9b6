/*
 * Which code runs where: addresses that differ from those of known code only in bits that no
 * canonical address has, and kernel code of which each address space has its own.
 * References: [SDM3 4.10.2, 4.10.4.1], [SDM2 RET].
 */
#include "page.h"

#define STACK_VA 0x6000000000ul
#define TURNS    40

static u8 stack[PAGE] __attribute__((aligned(4096)));
static struct page_pool pool[6];

static void space(struct page_pool *p, ulong at)
{
	page_init(p, at);
	page_map(p, STACK_VA, (ulong)stack, PTE_P | PTE_W | PTE_U);
}

/* ---- Addresses that are not canonical -------------------------------------------------------- */

/* User code that returns to rdi. */
SNIPPET(forge, ".balign 4096\n\t"
	       ".global forge_ret, forge_pops\n"
	       "forge_ret: push %rdi\n\t"
	       "ret\n\t"
	       ".balign 16\n"
	       "forge_pops: push %rdi\n\t"
	       "push %rsi\n\t"
	       "push %rdx\n\t"
	       "nop\n\t"
	       "pop %rax\n\t"
	       "pop %rbx\n\t"
	       "ret\n\t"
	       ".balign 4096\n");
extern u8 forge_ret[], forge_pops[];
/* 32-bit code, which says so; narrow_say is where a branch may lead. */
SNIPPET(narrow, ".balign 4096\n\t"
		".global narrow_first, narrow_say\n"
		"narrow_first: mov %ss, %eax\n\t"
		"mov %eax, %ds\n\t"
		"mov %eax, %es\n"
		"narrow_say: mov $32, %esi\n\t"
		"int $0x40\n\t"
		".balign 4096\n");
extern u8 narrow_first[], narrow_say[];

static volatile u64 victims;
static __attribute__((noinline)) void victim(void)
{
	victims++;
}
static void (*volatile victim_at)(void) = victim;

static void user(struct trap *t, u16 cs, ulong ip, ulong sp, ulong di)
{
	const ulong r[4] = { di, 0, 0, 0 };

	run_at(t, cs, SEL_UDATA, ip, sp, 2, r);
}

/* Code at `at` returns there, and cannot. */
static bool check_forged(ulong at, const u8 *code, ulong target)
{
	struct trap t;

	user(&t, SEL_UCODE64, at + (ulong)(code - forge_ret), STACK_VA + PAGE - 64, target);
	CHECK_TRAP(t, VEC_GP, 0);
	return t.vec == VEC_GP;
}

/* 32-bit code at x, and the hole behind the lower half, x above its beginning. */
TEST(return_beyond_the_lower_half)
{
	const ulong old = read_cr3(), x = 0x70000000, code = 0x7f0000000000;
	const ulong beyond = 0x800000000000 + x + (ulong)(narrow_say - narrow_first);
	struct trap t;

	space(&pool[0], GUEST_FREE);
	*page_entry(&pool[0], x, 2) = 0;
	*page_entry(&pool[0], x - PAGE, 2) = 0;
	page_map(&pool[0], x, (ulong)narrow_first, PTE_P | PTE_U);
	page_map(&pool[0], x - PAGE, (ulong)stack, PTE_P | PTE_W | PTE_U);
	page_map(&pool[0], code, (ulong)forge_ret, PTE_P | PTE_U);
	write_cr3((ulong)pool[0].root);
	for (unsigned n = 0; n < TURNS; n++) {
		user(&t, SEL_UCODE32, x, x - 64, 0);
		CHECK_EQ(t.vec, VEC_USER_EXIT);
		CHECK_EQ(t.si, 32);
		if (!check_forged(code, forge_ret, beyond) ||
		    !check_forged(code, forge_pops, beyond))
			break;
	}
	write_cr3(old);
}

/* Bits that a table of branch targets might use to tell address spaces and levels apart. */
TEST(return_to_other_bits)
{
	const ulong old = read_cr3(), code = 0x7f0000000000;

	space(&pool[0], GUEST_FREE);
	page_map(&pool[0], code, (ulong)forge_ret, PTE_P | PTE_U);
	write_cr3((ulong)pool[0].root);
	for (ulong d = 1; d < 2048; d++) {
		const ulong bits = d << 48 ^ (d & 0xff) << 4;

		victims = 0;
		for (unsigned n = 0; n < 3; n++)
			victim_at();
		if (!check_forged(code, forge_ret, (ulong)victim ^ bits) ||
		    !check_forged(code, forge_pops, (ulong)victim ^ bits))
			break;
		CHECK_EQ(victims, 3);
	}
	write_cr3(old);
}

/* rdi turns of a call of the next page, by rcx and directly; then faults at an address in rdx. */
SNIPPET(high, ".balign 4096\n\t"
	      ".global high_first, high_second\n"
	      "high_first: xor %esi, %esi\n"
	      "1: call *%rcx\n\t"
	      "call high_second\n\t"
	      "dec %rdi\n\t"
	      "jnz 1b\n\t"
	      "mov (%rdx), %eax\n\t"
	      "int $0x40\n\t"
	      ".balign 4096\n"
	      "high_second: inc %rsi\n\t"
	      "ret\n\t"
	      ".balign 4096\n");
extern u8 high_first[], high_second[];

/* User code where kernels are, and programs usually are not. */
TEST(user_code_in_the_upper_half)
{
	const ulong old = read_cr3(), va = 0xffffc90000000000;

	space(&pool[0], GUEST_FREE);
	page_map(&pool[0], va, (ulong)high_first, PTE_P | PTE_U);
	page_map(&pool[0], va + PAGE, (ulong)high_second, PTE_P | PTE_U);
	write_cr3((ulong)pool[0].root);
	for (ulong n = 1; n < TURNS; n++) {
		const ulong r[4] = { n, 0, va + 2 * PAGE, va + PAGE };
		struct trap t;

		run_at(&t, SEL_UCODE64, SEL_UDATA, va, STACK_VA + PAGE - 64, 2, r);
		CHECK_TRAP(t, VEC_PF, PF_U);
		CHECK_EQ(t.cr2, va + 2 * PAGE);
		CHECK_EQ(t.si, 2 * n);
	}
	write_cr3(old);
}

/* ---- Kernel code of one address space -------------------------------------------------------- */

/* A page that calls the next one, of which there are two. */
SNIPPET(own, ".balign 4096\n\t"
	     ".global own_first, own_second\n"
	     "own_first: call own_second\n\t"
	     "add $0x10, %eax\n\t"
	     "ret\n\t"
	     ".balign 4096\n"
	     "own_second: mov $1, %eax\n\t"
	     "ret\n\t"
	     ".balign 4096\n\t"
	     "mov $2, %eax\n\t"
	     "ret\n\t"
	     ".balign 4096\n");
extern u8 own_first[], own_second[];

static void check_call(ulong va, unsigned n)
{
	for (unsigned k = 0; k < TURNS; k++) {
		CHECK_EQ(((unsigned (*)(void))(va + PAGE))(), 1 + n);
		CHECK_EQ(((unsigned (*)(void))va)(), 0x11 + n);
	}
}

static ulong own_page(unsigned n)
{
	return (ulong)own_second + n * PAGE;
}

/* This program's pages are everybody's. */
static void share(struct page_pool *p)
{
	for (ulong va = 0; va < 1ul << 30; va += 1ul << 21)
		*page_entry(p, va, 2) |= PTE_G;
}

/* Two address spaces that take turns, and one whose tables change. */
static void check_own(ulong va)
{
	const ulong old = read_cr3(), old_cr4 = read_cr4();

	write_cr4(old_cr4 | CR4_PGE);
	for (unsigned n = 0; n < 2; n++) {
		space(&pool[n], GUEST_FREE + n * (1ul << 20));
		share(&pool[n]);
		page_map(&pool[n], va, (ulong)own_first, PTE_P);
		page_map(&pool[n], va + PAGE, own_page(n), PTE_P);
	}
	for (unsigned n = 0; n < TURNS && !test_failed; n++) {
		write_cr3((ulong)pool[n & 1].root);
		check_call(va, n & 1);
	}
	for (unsigned n = 0; n < TURNS && !test_failed; n++) {
		*page_entry(&pool[1], va + PAGE, 1) = own_page(n & 1) | PTE_P;
		write_cr3((ulong)pool[1].root);
		check_call(va, n & 1);
	}
	write_cr3(old);
	write_cr4(old_cr4);
}

TEST(kernel_code_in_the_lower_half)
{
	check_own(0x7e0000000000);
}

TEST(kernel_code_in_the_upper_half)
{
	check_own(0xffffc90000000000);
}

/* The same with translations that stay over a load of CR3, until it is one that drops them. */
TEST(kernel_code_under_pcids)
{
	const ulong old = read_cr3(), old_cr4 = read_cr4(), va = 0xffffc90000000000;
	const ulong keep = 1ul << 63;

	if (!HAS_1C(17))
		SKIP("no PCID");
	write_cr4(old_cr4 | CR4_PGE | CR4_PCIDE);
	for (unsigned n = 0; n < 3; n++) {
		space(&pool[n], GUEST_FREE + n * (1ul << 20));
		share(&pool[n]);
		page_map(&pool[n], va, (ulong)own_first, PTE_P);
		page_map(&pool[n], va + PAGE, own_page(n & 1), PTE_P);
		write_cr3((ulong)pool[n].root | (n + 1));
		check_call(va, n & 1);
	}
	for (unsigned n = 0; n < 4 * TURNS && !test_failed; n++) {
		unsigned k = n % 3;

		write_cr3((ulong)pool[k].root | (k + 1) | keep);
		check_call(va, k & 1);
	}
	for (unsigned n = 0; n < TURNS && !test_failed; n++) {
		*page_entry(&pool[1], va + PAGE, 1) = own_page(n & 1) | PTE_P;
		write_cr3((ulong)pool[0].root | 1 | keep);
		check_call(va, 0);
		write_cr3((ulong)pool[1].root | 2);
		check_call(va, n & 1);
	}
	write_cr3(old);
	write_cr4(old_cr4);
}

/* More address spaces than may be remembered, each with code at many places far apart. */
TEST(kernel_code_of_many_spaces)
{
	const ulong old = read_cr3(), old_cr4 = read_cr4(), va = 0xffff900000000000;

	write_cr4(old_cr4 | CR4_PGE);
	for (unsigned n = 0; n < ARRAY_SIZE(pool); n++) {
		space(&pool[n], GUEST_FREE + n * (1ul << 20));
		share(&pool[n]);
		for (unsigned k = 0; k < 12; k++) {
			page_map(&pool[n], va + k * (1ul << 39), (ulong)own_first, PTE_P);
			page_map(&pool[n], va + k * (1ul << 39) + PAGE, own_page((n + k) & 1),
				 PTE_P);
		}
	}
	for (unsigned places = 1; places <= 12; places++)
		for (unsigned n = 0; n < 3 * ARRAY_SIZE(pool) && !test_failed; n++) {
			unsigned s = n * (places % 5 + 1) % ARRAY_SIZE(pool);

			write_cr3((ulong)pool[s].root);
			for (unsigned k = 0; k < places; k++)
				check_call(va + k * (1ul << 39), (s + k) & 1);
		}
	write_cr3(old);
	write_cr4(old_cr4);
}

/* The same page of code at more addresses than may be remembered. */
TEST(kernel_code_in_many_pages)
{
	const ulong old = read_cr3(), old_cr4 = read_cr4(), va = 0xffffc90000000000;
	enum { PAGES = 1200 };

	write_cr4(old_cr4 | CR4_PGE);
	for (unsigned n = 0; n < 2; n++) {
		space(&pool[n], GUEST_FREE + n * (1ul << 20));
		share(&pool[n]);
		for (unsigned k = 0; k < PAGES; k++)
			page_map(&pool[n], va + k * PAGE, own_page(n), PTE_P);
	}
	for (unsigned n = 0; n < 6 && !test_failed; n++) {
		write_cr3((ulong)pool[n & 1].root);
		for (unsigned k = 0; k < PAGES; k++)
			for (unsigned m = 0; m < 3; m++)
				CHECK_EQ(((unsigned (*)(void))(va + k * PAGE))(), 1 + (n & 1));
	}
	write_cr3(old);
	write_cr4(old_cr4);
}
