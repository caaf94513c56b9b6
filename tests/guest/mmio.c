/*
 * Device memory and ports in the middle of instructions: pc-testdev's 64 KiB of device memory at
 * FF000000h and its port latch, string instructions, read-modify-write, accesses of all widths and
 * over the border between RAM and nothing, PUSH, POP and far pointers in device memory.
 */
#include "page.h"

#define DEV       0xff000000ul
#define PORT_BYTE 0xe8 /* byte-wide latch */
#define PORT      0xe0 /* latch of 1, 2 and 4 bytes */

static u8 buf[8192] __attribute__((aligned(4096)));

TEST(widths)
{
	volatile u8 *d = (u8 *)DEV;

	*(volatile u32 *)(d + 0) = 0x44332211;
	*(volatile u32 *)(d + 4) = 0x88776655;
	CHECK_EQ(d[1], 0x22);
	CHECK_EQ(*(volatile u16 *)(d + 2), 0x4433);
	CHECK_EQ(*(volatile u64 *)d, 0x8877665544332211);
	*(volatile u64 *)(d + 8) = 0x0123456789abcdef;
	CHECK_EQ(*(volatile u32 *)(d + 12), 0x01234567);
	d[9] = 0;
	CHECK_EQ(*(volatile u32 *)(d + 8), 0x89ab00ef);
	CHECK_EQ(*(volatile u32 *)(d + 3), 0x77665544); /* unaligned */
}

TEST(read_modify_write)
{
	volatile u32 *d = (u32 *)(DEV + 0x100);
	u32 v;

	*d = 5;
	__asm__ volatile("addl $7, %0" : "+m"(*d)::"cc");
	CHECK_EQ(*d, 12);
	__asm__ volatile("lock incl %0" : "+m"(*d)::"cc");
	CHECK_EQ(*d, 13);
	v = 99;
	__asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(*d));
	CHECK_EQ(v, 13);
	CHECK_EQ(*d, 99);
	__asm__ volatile("lock cmpxchgl %2, %0" : "+m"(*d), "=a"(v) : "r"(7), "a"(99) : "cc");
	CHECK_EQ(*d, 7);
	__asm__ volatile("notl %0\n\tshll $4, %0" : "+m"(*d)::"cc");
	CHECK_EQ(*d, 0xffffff80);
	__asm__ volatile("btsl $0, %0" : "+m"(*d)::"cc");
	CHECK_EQ(*d, 0xffffff81);
	d[0] = 1;
	d[1] = 2;
	__asm__ volatile("lock cmpxchg8b %0"
			 : "+m"(*(volatile u64 *)d)
			 : "a"(1), "d"(2), "b"(3), "c"(4)
			 : "cc");
	CHECK_EQ(d[0], 3);
	CHECK_EQ(d[1], 4);
}

TEST(string_to_and_from)
{
	void *d = (void *)(DEV + 0x200);

	for (unsigned i = 0; i < 300; i++)
		buf[i] = (u8)(i * 7 + 1);
	guest_memcpy(d, buf, 300);
	guest_memset(buf + 1024, 0, 300);
	guest_memcpy(buf + 1024, d, 300);
	CHECK_EQ(guest_memcmp(buf, buf + 1024, 300), 0);
	__asm__ volatile("rep movsq" ::"S"(d), "D"(DEV + 0x400), "c"(32ul)
			 : "memory"); /* device to device */
	CHECK_EQ(*(volatile u32 *)(DEV + 0x400 + 252), *(u32 *)(buf + 252));
	__asm__ volatile("rep stosl" ::"D"(DEV + 0x600), "c"(16ul), "a"(0xabcd1234) : "memory");
	CHECK_EQ(*(volatile u32 *)(DEV + 0x63c), 0xabcd1234);
	{
		u64 n = 40;
		const u8 *a = buf, *b = d;

		*(volatile u8 *)(DEV + 0x200 + 20) ^= 1;
		__asm__ volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(n)::"memory", "cc");
		CHECK_EQ(n, 40 - 21);
	}
	/* backwards, words */
	__asm__ volatile("std\n\trep movsw\n\tcld" ::"S"(buf + 30), "D"(DEV + 0x700 + 30), "c"(16ul)
			 : "memory");
	CHECK_EQ(*(volatile u16 *)(DEV + 0x700), *(u16 *)buf);
	CHECK_EQ(*(volatile u16 *)(DEV + 0x71e), *(u16 *)(buf + 30));
}

TEST(stack_operands)
{
	volatile u64 *d = (u64 *)(DEV + 0x800);
	u64 v;

	*d = 0x1122334455667788;
	__asm__ volatile("pushq %1\n\tpop %0" : "=r"(v) : "m"(*d) : "memory");
	CHECK_EQ(v, 0x1122334455667788);
	__asm__ volatile("push %1\n\tpopq %0" : "=m"(*d) : "r"(0x5566ul) : "memory");
	CHECK_EQ(*d, 0x5566);
	/* the stack itself in device memory */
	__asm__ volatile("mov %%rsp, %%rbx\n\tmov %1, %%rsp\n\tpush $0x77\n\tcall 1f\n1:\tpop "
			 "%%rcx\n\tpop %0\n\t"
			 "mov %%rbx, %%rsp"
			 : "=&r"(v)
			 : "r"(DEV + 0x900)
			 : "rbx", "rcx", "memory");
	CHECK_EQ(v, 0x77);
	CHECK_EQ(*(volatile u64 *)(DEV + 0x8f8), 0x77);
}

TEST(vector_operands)
{
	u64 out[2];

	*(volatile u64 *)(DEV + 0xa00) = 1;
	*(volatile u64 *)(DEV + 0xa08) = 2;
	__asm__ volatile("movups %1, %%xmm1\n\tmovups %%xmm1, %0"
			 : "=m"(out)
			 : "m"(*(u64(*)[2])(DEV + 0xa00)));
	CHECK_EQ(out[0], 1);
	CHECK_EQ(out[1], 2);
	out[1] = 9;
	__asm__ volatile("movups %1, %%xmm1\n\tmovups %%xmm1, %0"
			 : "=m"(*(u64(*)[2])(DEV + 0xa10))
			 : "m"(out));
	CHECK_EQ(*(volatile u64 *)(DEV + 0xa18), 9);
	__asm__ volatile("fninit\n\tfildl %0\n\tfistpl %1" ::"m"(*(u32 *)(DEV + 0xa18)),
			 "m"(*(u32 *)(DEV + 0xa20))
			 : "memory");
	CHECK_EQ(*(volatile u32 *)(DEV + 0xa20), 9);
}

TEST(ports)
{
	outb(PORT_BYTE, 0x5a);
	CHECK_EQ(inb(PORT_BYTE), 0x5a);
	outl(PORT, 0x12345678);
	CHECK_EQ(inl(PORT), 0x12345678);
	outw(PORT, 0xbeef);
	CHECK_EQ(inw(PORT), 0xbeef);
	__asm__ volatile("xor %%eax, %%eax\n\tnot %%rax\n\tinl %%dx, %%eax\n\tmov %%rax, %0"
			 : "=m"(*(u64 *)buf)
			 : "d"(PORT)
			 : "rax");
	CHECK_EQ(*(u64 *)buf >> 32, 0); /* a 32-bit IN clears the rest */
}

TEST(rep_outs_ins)
{
	static const u32 words[4] = { 0x11111111, 0x22222222, 0x33333333, 0xcafe1234 };
	u64 rsi, rcx;

	__asm__ volatile("rep outsl"
			 : "=S"(rsi), "=c"(rcx)
			 : "0"(words), "1"(4ul), "d"(PORT)
			 : "memory");
	CHECK_EQ(rsi, (ulong)(words + 4));
	CHECK_EQ(rcx, 0);
	CHECK_EQ(inl(PORT), 0xcafe1234);
	guest_memset(buf, 0, 64);
	__asm__ volatile("rep insl" ::"D"(buf), "c"(3ul), "d"(PORT) : "memory");
	CHECK_EQ(*(u32 *)(buf + 8), 0xcafe1234);
	CHECK_EQ(*(u32 *)(buf + 12), 0);
	__asm__ volatile("rep insb" ::"D"(buf), "c"(0ul), "d"(PORT) : "memory");
	CHECK_EQ(*(u32 *)buf, 0xcafe1234);
	/* INS over a page boundary, and to device memory */
	__asm__ volatile("rep insl" ::"D"(buf + 4096 - 6), "c"(3ul), "d"(PORT) : "memory");
	CHECK_EQ(*(u32 *)(buf + 4096 - 6 + 8), 0xcafe1234);
	__asm__ volatile("rep insl" ::"D"(DEV + 0xb00), "c"(2ul), "d"(PORT) : "memory");
	CHECK_EQ(*(volatile u32 *)(DEV + 0xb04), 0xcafe1234);
	__asm__ volatile("rep outsl" ::"S"(DEV + 0xb00), "c"(2ul), "d"(PORT) : "memory");
	CHECK_EQ(inl(PORT), 0xcafe1234);
	__asm__ volatile("std\n\trep insb\n\tcld" ::"D"(buf + 10), "c"(4ul), "d"(PORT_BYTE)
			 : "memory");
	CHECK_EQ(buf[7], inb(PORT_BYTE));
}

/* INS that faults half-way goes on where it stood after the page is there. */
static struct page_pool pool;
static volatile unsigned faults;

static void on_fault(struct frame *f)
{
	faults++;
	page_map(&pool, read_cr2() & ~(PAGE - 1), (ulong)buf + 4096, PTE_P | PTE_W);
}

#define VA 0x10000000000ul

TEST(fault_and_restart)
{
	const ulong old = read_cr3();
	u64 rdi, rcx;

	page_init(&pool, GUEST_FREE);
	write_cr3((ulong)pool.root);
	page_map(&pool, VA, (ulong)buf, PTE_P | PTE_W);
	trap_hook(VEC_PF, on_fault);
	faults = 0;
	guest_memset(buf, 0, sizeof(buf));
	outl(PORT, 0x89abcdef);
	__asm__ volatile("rep insl"
			 : "=D"(rdi), "=c"(rcx)
			 : "0"(VA + 4096 - 8), "1"(4ul), "d"(PORT)
			 : "memory");
	CHECK_EQ(faults, 1);
	CHECK_EQ(rdi, VA + 4096 + 8);
	CHECK_EQ(*(u32 *)(buf + 4092), 0x89abcdef);
	CHECK_EQ(*(u32 *)(buf + 4100), 0x89abcdef);
	CHECK_EQ(*(u32 *)(buf + 4104), 0);
	trap_hook(VEC_PF, NULL);
	write_cr3(old);
}

/* An access half in RAM and half in device memory: neighbouring pages by mapping. */
TEST(ram_and_device)
{
	const ulong old = read_cr3();

	page_init(&pool, GUEST_FREE);
	write_cr3((ulong)pool.root);
	page_map(&pool, VA, (ulong)buf, PTE_P | PTE_W);
	page_map(&pool, VA + PAGE, DEV + 0x1000, PTE_P | PTE_W);
	*(volatile u64 *)(VA + PAGE - 4) = 0x1122334455667788;
	CHECK_EQ(*(u32 *)(buf + 4092), 0x55667788);
	CHECK_EQ(*(volatile u32 *)(DEV + 0x1000), 0x11223344);
	CHECK_EQ(*(volatile u64 *)(VA + PAGE - 4), 0x1122334455667788);
	*(volatile u32 *)(VA + PAGE - 1) = 0xddccbbaa;
	CHECK_EQ(buf[4095], 0xaa);
	CHECK_EQ(*(volatile u32 *)(DEV + 0x1000), 0x11ddccbb);
	__asm__ volatile("addq %1, %0"
			 : "+m"(*(volatile u64 *)(VA + PAGE - 4))
			 : "r"(1ul << 32)
			 : "cc");
	CHECK_EQ(*(volatile u32 *)(DEV + 0x1000), 0x11ddccbc);
	page_map(&pool, VA, DEV + 0x2000, PTE_P | PTE_W);
	page_map(&pool, VA + PAGE, (ulong)buf, PTE_P | PTE_W);
	*(volatile u64 *)(VA + PAGE - 2) = 0x1122334455667788;
	CHECK_EQ(*(volatile u16 *)(DEV + 0x2ffe), 0x7788);
	CHECK_EQ(*(u32 *)buf, 0x33445566);
	CHECK_EQ(*(volatile u64 *)(VA + PAGE - 2), 0x1122334455667788);
	/* REP over the border */
	page_map(&pool, VA, (ulong)buf, PTE_P | PTE_W);
	page_map(&pool, VA + PAGE, DEV + 0x3000, PTE_P | PTE_W);
	guest_memset((void *)(VA + PAGE - 16), 0x3c, 32);
	CHECK_EQ(buf[4095], 0x3c);
	CHECK_EQ(*(volatile u8 *)(DEV + 0x300f), 0x3c);
	write_cr3(old);
}
