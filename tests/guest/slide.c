/*
 * Programs that share pages of code at many addresses, as libraries do: at several in one address
 * space, at one in several address spaces, with other pages behind them. What code learns of its
 * own address, what it reads and where it goes relative to that, is what a translator that makes
 * such code once could get wrong. References: [SDM2 2.2.1.6, CALL], [SDM3 4.10].
 */
#include "page.h"

#define STACK_VA 0x6000000000ul
#define TOP      0x800000000000ul /* the end of the lower half */
#define TURNS    40

/*
 * Three pages. slide_a, rdi turns: rax, rbx = its own and the second page's address, rdx = where
 * the call returns to; rsi is increased by SECOND_ADD of the second page and the first word of the
 * third one. slide_cross: an instruction that crosses from the first to the second page.
 */
SNIPPET(slide_a, ".balign 4096\n\t"
		 ".global slide_first\n"
		 "slide_first: lea slide_first(%rip), %rax\n\t"
		 "call slide_second\n\t"
		 "slide_back: dec %rdi\n\t"
		 "jnz slide_first\n\t"
		 "int $0x40\n\t"
		 ".global slide_cross\n"
		 "slide_cross: call slide_over\n\t"
		 "dec %rdi\n\t"
		 "jnz slide_cross\n\t"
		 "int $0x40\n\t"
		 ".org slide_first + 4093\n"
		 "slide_over: .byte 0x81, 0xc6, 0x01\n\t" /* add imm32, %esi: the rest is behind */
		 ".global slide_b\n"
		 "slide_b: .byte 0x00, 0x00, 0x00\n\t"
		 "ret\n\t"
		 ".balign 16\n"
		 "slide_second: mov (%rsp), %rdx\n\t"
		 "lea slide_b(%rip), %rbx\n\t"
		 ".global slide_imm\n"
		 "slide_imm: add $0x11111111, %rsi\n\t"
		 "add slide_c(%rip), %rsi\n\t"
		 "ret\n\t"
		 ".balign 4096\n\t"
		 ".global slide_c\n"
		 "slide_c: .quad 0\n\t"
		 ".balign 4096\n\t");
extern u8 slide_first[], slide_b[], slide_imm[];
SNIPPET(slide_back_at, ".quad slide_back - slide_first");
SNIPPET(slide_cross_at, ".quad slide_cross - slide_first");
/* rdx turns of calls to rcx, in a module of its own */
SNIPPET(far_a, ".balign 4096\n"
	       ".global far_first\n"
	       "far_first: call *%rcx\n\t"
	       "lea far_first(%rip), %rax\n\t"
	       "dec %rdx\n\t"
	       "jnz far_first\n\t"
	       "int $0x40\n\t"
	       ".balign 4096\n");
SNIPPET(far_b, ".balign 4096\n"
	       ".global far_second\n"
	       "far_second: lea far_second(%rip), %rbx\n\t"
	       "add $3, %rsi\n\t"
	       "ret\n\t"
	       ".balign 4096\n");

extern u8 far_first[], far_second[];

static u8 second[2][PAGE] __attribute__((aligned(4096)));
static u8 third[2][PAGE] __attribute__((aligned(4096)));
static u8 stack[PAGE] __attribute__((aligned(4096)));

/* What a turn adds to rsi with each variant of the second and the third page. */
static const u32 second_add[2] = { 0x111, 0x70000 };
static const u32 third_add[2] = { 0x5000000, 0x1000 };
static const u32 cross_add[2] = { 0x7701, 0x120001 };

static void prepare(void)
{
	for (unsigned n = 0; n < 2; n++) {
		guest_memcpy(second[n], slide_b, PAGE);
		guest_memcpy(second[n] + (slide_imm - slide_b) + 3, &second_add[n], 4);
		second[n][0] = (u8)(cross_add[n] >> 8);
		second[n][1] = (u8)(cross_add[n] >> 16);
		*(u64 *)third[n] = third_add[n];
	}
}

static void space(struct page_pool *p, ulong at)
{
	page_init(p, at);
	page_map(p, STACK_VA, (ulong)stack, PTE_P | PTE_W | PTE_U);
}

static void map(struct page_pool *p, ulong va, unsigned b, unsigned c)
{
	page_map(p, va, (ulong)slide_first, PTE_P | PTE_U);
	page_map(p, va + PAGE, (ulong)second[b], PTE_P | PTE_U);
	page_map(p, va + 2 * PAGE, (ulong)third[c], PTE_P | PTE_U);
}

static void go(struct trap *t, ulong ip, ulong di, ulong dx, ulong cx)
{
	const ulong r[4] = { di, 0, dx, cx };

	run_at(t, SEL_UCODE64, SEL_UDATA, ip, STACK_VA + PAGE - 64, 2, r);
}

static void check(ulong va, unsigned b, unsigned c, unsigned turns)
{
	struct trap t;

	go(&t, va, turns, 0, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	CHECK_EQ(t.ax, va);
	CHECK_EQ(t.bx, va + PAGE);
	CHECK_EQ(t.dx, va + *(u64 *)slide_back_at);
	CHECK_EQ(t.si, turns * (ulong)(second_add[b] + third_add[c]));
}

static void check_cross(ulong va, unsigned b, unsigned turns)
{
	struct trap t;

	go(&t, va + *(u64 *)slide_cross_at, turns, 0, 0);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	CHECK_EQ(t.si, turns * (ulong)cross_add[b]);
}

static ulong address(unsigned n)
{
	static const ulong at[] = { 0x400000,       0x10000000000,  0x7f1234567000,
				    0x555555554000, 0x7ffff7dd0000, 0x1fffff000 };

	return at[n % 6] + n / 6 * 0x1235000ul;
}

TEST(one_after_the_other)
{
	static struct page_pool pool;
	const ulong old = read_cr3();

	prepare();
	for (unsigned n = 1; n < 40; n++) {
		space(&pool, GUEST_FREE);
		map(&pool, address(n) + (n % 6 == 0) * (1ul << 33), n & 1, n >> 1 & 1);
		write_cr3((ulong)pool.root);
		check(address(n) + (n % 6 == 0) * (1ul << 33), n & 1, n >> 1 & 1, TURNS);
		check_cross(address(n) + (n % 6 == 0) * (1ul << 33), n & 1, TURNS);
		write_cr3(old);
	}
}

TEST(two_in_one_space)
{
	static struct page_pool pool;
	const ulong old = read_cr3(), x = 0x7f0000000000, y = 0x7e1230000000;

	prepare();
	space(&pool, GUEST_FREE);
	map(&pool, x, 0, 1);
	map(&pool, y, 1, 0);
	map(&pool, y + 0x3000, 0, 0);
	write_cr3((ulong)pool.root);
	for (unsigned n = 0; n < 60; n++) {
		check(x, 0, 1, 1 + n);
		check(y, 1, 0, 1 + n);
		check(y + 0x3000, 0, 0, 1 + n);
		check_cross(x, 0, 1 + n);
		check_cross(y, 1, 1 + n);
	}
	write_cr3(old);
}

TEST(spaces_that_take_turns)
{
	static struct page_pool pool[3];
	const ulong old = read_cr3(), x = 0x7f0000000000;

	prepare();
	for (unsigned n = 0; n < 3; n++) {
		space(&pool[n], GUEST_FREE + n * (1ul << 20));
		map(&pool[n], x, n & 1, n == 2);
		map(&pool[n], x + (n + 1) * 0x7654000ul, !(n & 1), n == 1);
	}
	for (unsigned n = 0; n < 90; n++) {
		unsigned k = n % 3;

		write_cr3((ulong)pool[k].root);
		check(x, k & 1, k == 2, 1 + n);
		check_cross(x, k & 1, 1 + n);
		check(x + (k + 1) * 0x7654000ul, !(k & 1), k == 1, 1 + n);
	}
	write_cr3(old);
}

TEST(mapped_anew)
{
	static struct page_pool pool;
	const ulong old = read_cr3(), x = 0x7f0000000000;

	prepare();
	space(&pool, GUEST_FREE);
	map(&pool, x, 0, 0);
	write_cr3((ulong)pool.root);
	for (unsigned n = 0; n < 60; n++) {
		check(x, 0, 0, 1 + n);
		check_cross(x, 0, 1 + n);
		page_map(&pool, x + PAGE, (ulong)second[1], PTE_P | PTE_U);
		check(x, 1, 0, 1 + n);
		check_cross(x, 1, 1 + n);
		page_map(&pool, x + 2 * PAGE, (ulong)third[1], PTE_P | PTE_U);
		check(x, 1, 1, 1 + n);
		map(&pool, x, 0, 0);
	}
	write_cr3(old);
}

TEST(written)
{
	static struct page_pool pool;
	const ulong old = read_cr3(), x = 0x7f0000000000, y = 0x560000000000;
	const u64 base = third_add[0];

	prepare();
	space(&pool, GUEST_FREE);
	map(&pool, x, 0, 0);
	map(&pool, y, 0, 0);
	write_cr3((ulong)pool.root);
	for (u32 n = 0; n < 60; n++) {
		struct trap t;

		*(volatile u32 *)(second[0] + (slide_imm - slide_b) + 3) = n;
		for (unsigned k = 0; k < 2; k++) {
			go(&t, k ? x : y, TURNS, 0, 0);
			CHECK_EQ(t.vec, VEC_USER_EXIT);
			CHECK_EQ(t.si, TURNS * (base + n));
		}
		*(volatile u8 *)second[0] = (u8)n; /* of the instruction that crosses */
		go(&t, x + *(u64 *)slide_cross_at, TURNS, 0, 0);
		CHECK_EQ(t.si, TURNS * (ulong)(1 | n << 8));
	}
	prepare();
	write_cr3(old);
}

/* Two modules that call each other, as far apart as it comes. */
TEST(modules)
{
	static struct page_pool pool;
	const ulong old = read_cr3();

	for (unsigned n = 0; n < 40; n++) {
		ulong a = 0x550000000000 + n / 2 * 0x1000000ul, b = 0x7f0000000000 + n * 0x5000ul;
		struct trap t;

		space(&pool, GUEST_FREE);
		page_map(&pool, a, (ulong)far_first, PTE_P | PTE_U);
		page_map(&pool, b, (ulong)far_second, PTE_P | PTE_U);
		page_map(&pool, b + PAGE, (ulong)far_second, PTE_P | PTE_U);
		write_cr3((ulong)pool.root);
		for (unsigned k = 0; k < 6; k++) {
			go(&t, a, 0, TURNS, b + (k & 1) * PAGE);
			CHECK_EQ(t.vec, VEC_USER_EXIT);
			CHECK_EQ(t.ax, a);
			CHECK_EQ(t.bx, b + (k & 1) * PAGE);
			CHECK_EQ(t.si, TURNS * 3);
		}
		write_cr3(old);
	}
}

TEST(the_end_of_the_lower_half)
{
	static struct page_pool pool;
	const ulong old = read_cr3(), x = TOP - 4 * PAGE, y = 0x7f0000000000;

	prepare();
	space(&pool, GUEST_FREE);
	map(&pool, x, 0, 1);
	map(&pool, y, 1, 0);
	write_cr3((ulong)pool.root);
	for (unsigned n = 0; n < 60; n++) {
		check(x, 0, 1, 1 + n);
		check(y, 1, 0, 1 + n);
		check_cross(x, 0, 1 + n);
	}
	write_cr3(old);
}

/* Faults in such code tell where it is. */
TEST(faults)
{
	static struct page_pool pool;
	const ulong old = read_cr3();
	struct trap t;

	prepare();
	for (unsigned n = 0; n < 12; n++) {
		ulong x = 0x7f0000000000 + n * 0x123000ul;

		space(&pool, GUEST_FREE);
		map(&pool, x, 0, 0);
		write_cr3((ulong)pool.root);
		check(x, 0, 0, TURNS);
		page_map(&pool, x + 2 * PAGE, 0, 0);
		go(&t, x, TURNS, 0, 0);
		CHECK_TRAP(t, VEC_PF, PF_U);
		CHECK_EQ(t.cr2, x + 2 * PAGE);
		CHECK_EQ(t.ip, x + PAGE + (ulong)(slide_imm - slide_b) + 7);
		CHECK_EQ(t.ax, x);
		page_map(&pool, x + PAGE, 0, 0);
		go(&t, x, TURNS, 0, 0);
		CHECK_EQ(t.vec, VEC_PF);
		CHECK_EQ(t.cr2, t.ip);
		CHECK_EQ(t.ip & ~(PAGE - 1), x + PAGE);
		go(&t, x + *(u64 *)slide_cross_at, TURNS, 0, 0);
		CHECK_EQ(t.vec, VEC_PF);
		CHECK_EQ(t.cr2, x + PAGE);
		CHECK_EQ(t.ip, x + PAGE - 3);
		write_cr3(old);
	}
}
