/*
 * Which code runs where: addresses that differ from those of known code only in bits that no
 * canonical address has. References: [SDM1 3.3.7.1], [SDM2 RET].
 */
#include "page.h"

#define STACK_VA 0x6000000000ul
#define TURNS    40

static u8 stack[PAGE] __attribute__((aligned(4096)));
static struct page_pool pool[2];

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
