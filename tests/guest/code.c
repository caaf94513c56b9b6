/*
 * Self-modifying code on one CPU: the same block, the very next instruction, through an alias of
 * the page, by string instructions, straddling pages, at a reused address after a change of the
 * mapping. References: [SDM3 8.1.3].
 */
#include "page.h"

static u8 buf[4 * 4096] __attribute__((aligned(4096)));

static u32 call_at(const volatile void *p)
{
	u32 v;

	__asm__ volatile("call *%1"
			 : "=a"(v)
			 : "r"(p)
			 : "rcx", "rdx", "rsi", "rdi", "memory", "cc");
	return v;
}

/* mov $v, %eax; ret */
static void put_mov(volatile u8 *p, u32 v)
{
	p[0] = 0xb8;
	*(volatile u32 *)(p + 1) = v;
	p[5] = 0xc3;
}

TEST(rewrite_then_call)
{
	for (u32 i = 0; i < 1000; i++) {
		put_mov(buf, i);
		CHECK_EQ(call_at(buf), i);
	}
}

TEST(rewrite_next_instruction)
{
	u32 v;

	/* a store that changes the immediate of the instruction right behind it */
	for (u32 i = 1; i < 100; i++) {
		__asm__ volatile("movl %1, 1f+1(%%rip)\n"
				 "1:\tmov $0x11111111, %%eax"
				 : "=a"(v)
				 : "r"(i)
				 : "memory");
		CHECK_EQ(v, i);
	}
}

TEST(rewrite_own_opcode)
{
	static const u8 loop[] = {
		0xb9, 10,   0,    0,    0, /* mov $10, %ecx */
		0x31, 0xc0,                /* xor %eax, %eax */
		0xff, 0xc0,                /* 7: inc %eax */
		0xc6, 0x05, 0xf8, 0xff, 0xff,
		0xff, 0xc8, /* movb $0xc8, the ModRM of inc: now dec */
		0xff, 0xc9, /* dec %ecx */
		0x75, 0xf3, /* jnz 7 */
		0xc3,
	};

	guest_memcpy(buf + 64, loop, sizeof(loop));
	/* displacement counts from the end of the movb: 16; the byte is at 8 */
	CHECK_EQ(call_at(buf + 64), (u32)(1 - 9));
}

TEST(rewrite_by_string)
{
	static const u8 two[] = { 0xb8, 2, 0, 0, 0, 0xc3 };

	put_mov(buf, 1);
	CHECK_EQ(call_at(buf), 1);
	guest_memcpy(buf, two, sizeof(two));
	CHECK_EQ(call_at(buf), 2);
	guest_memset(buf + 1, 3, 1);
	CHECK_EQ(call_at(buf), 3);
	__asm__ volatile("lock xaddb %1, %0" : "+m"(buf[1]) : "q"((u8)4) : "memory", "cc");
	CHECK_EQ(call_at(buf), 7);
}

TEST(straddling_pages)
{
	volatile u8 *p = buf + 4096 - 3;

	for (u32 i = 1; i < 50; i++) {
		put_mov(p, i * 0x01010101);
		CHECK_EQ(call_at(p), i * 0x01010101);
		buf[4096] = (u8)(i + 1); /* only the half in the second page */
		CHECK_EQ(call_at(p), (i * 0x01010101 & 0xff00ffff) | (i + 1) << 16);
	}
}

#define ALIAS_VA 0x10000000000ul

TEST(through_an_alias)
{
	static struct page_pool pool;
	const ulong old = read_cr3();
	volatile u8 *alias = (u8 *)ALIAS_VA;

	page_init(&pool, GUEST_FREE);
	write_cr3((ulong)pool.root);
	page_map(&pool, ALIAS_VA, (ulong)buf, PTE_P | PTE_W);
	page_map(&pool, ALIAS_VA + PAGE, (ulong)buf + 2 * PAGE, PTE_P | PTE_W);
	for (u32 i = 0; i < 100; i++) {
		put_mov(alias, i);
		CHECK_EQ(call_at(buf), i);
		put_mov(buf, i + 7);
		CHECK_EQ(call_at(alias), i + 7);
	}
	/* the mapping changes: the same linear address is other code, none of it written */
	put_mov(buf, 1);
	put_mov(buf + 2 * PAGE, 2);
	CHECK_EQ(call_at(alias), 1);
	page_map(&pool, ALIAS_VA, (ulong)buf + 2 * PAGE, PTE_P);
	CHECK_EQ(call_at(alias), 2);
	page_map(&pool, ALIAS_VA, (ulong)buf, PTE_P);
	CHECK_EQ(call_at(alias), 1);
	/* code that runs from one page into the next */
	page_map(&pool, ALIAS_VA, (ulong)buf, PTE_P | PTE_W);
	put_mov(alias + PAGE - 2, 0x12345678);
	CHECK_EQ(call_at(alias + PAGE - 2), 0x12345678);
	page_map(&pool, ALIAS_VA + PAGE, (ulong)buf + 3 * PAGE, PTE_P | PTE_W);
	put_mov(alias + PAGE - 2, 0x9abcdef0);
	CHECK_EQ(call_at(alias + PAGE - 2), 0x9abcdef0);
	page_map(&pool, ALIAS_VA + PAGE, (ulong)buf + 2 * PAGE, PTE_P | PTE_W);
	CHECK_EQ(call_at(alias + PAGE - 2), 0x123456f0);
	write_cr3(old);
}

/* Data next to hot code: many writes to a page that is also executed. */
TEST(data_beside_code)
{
	put_mov(buf, 5);
	for (u32 i = 0; i < 5000; i++) {
		*(volatile u32 *)(buf + 512) = i;
		CHECK_EQ(call_at(buf), 5);
		CHECK_EQ(*(volatile u32 *)(buf + 512), i);
	}
}

/*
 * Where a branch leads that was never taken, other code is put: it wants a flag that what was there
 * overwrote. rdx: memory to read, rdi - 1 == 0: not taken.
 */
SNIPPET(ahead, ".balign 4096\n\t"
	       ".global ahead_first, ahead_taken\n"
	       "ahead_first: xor %eax, %eax\n\t"
	       "clc\n\t"
	       "mov (%rdx), %ecx\n\t"
	       "dec %edi\n\t"
	       "jnz ahead_taken\n\t"
	       "xor %ecx, %ecx\n\t"
	       "ret\n\t"
	       ".balign 256\n"
	       "ahead_taken: xor %ecx, %ecx\n\t"
	       "ret\n\t"
	       ".balign 4096\n");
extern u8 ahead_first[], ahead_taken[];

static u32 call_ahead(u32 di)
{
	static volatile u64 data;
	u32 v;

	__asm__ volatile("call *%2"
			 : "=a"(v), "+D"(di)
			 : "r"(ahead_first), "d"(&data)
			 : "rcx", "memory", "cc");
	return v;
}

TEST(other_code_where_none_has_run)
{
	static const u8 setc[] = { 0x0f, 0x92, 0xc0, 0xc3 };

	for (unsigned n = 0; n < 100; n++)
		CHECK_EQ(call_ahead(1), 0);
	guest_memcpy(ahead_taken, setc, sizeof(setc));
	for (unsigned n = 0; n < 100; n++) {
		CHECK_EQ(call_ahead(1), 0);
		CHECK_EQ(call_ahead(2), 0);
	}
}

/* A page table is changed by code that has run from the page it maps. */
TEST(write_protected_then_not)
{
	static struct page_pool pool;
	const ulong old = read_cr3();
	struct trap t;

	page_init(&pool, GUEST_FREE);
	write_cr3((ulong)pool.root);
	put_mov(buf, 5);
	page_map(&pool, ALIAS_VA, (ulong)buf, PTE_P);
	CHECK_EQ(call_at((void *)ALIAS_VA), 5);
	CATCH(t, *(volatile u8 *)(ALIAS_VA + 1) = 6);
	CHECK_EQ(t.vec, VEC_PF);
	CHECK_EQ(call_at((void *)ALIAS_VA), 5);
	page_map(&pool, ALIAS_VA, (ulong)buf, PTE_P | PTE_W);
	*(volatile u8 *)(ALIAS_VA + 1) = 6;
	CHECK_EQ(call_at((void *)ALIAS_VA), 6);
	write_cr3(old);
}
