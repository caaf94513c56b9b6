/*
 * Single step and the debug registers: TF over ordinary, REP, MOV SS, INT and SYSCALL
 * instructions; instruction, data and I/O breakpoints; RF, GD, DR4/DR5, the bits of DR6 and DR7.
 * References: [SDM3 18.2, 18.3].
 */
#include "cpu.h"

enum { STEPS = 32 };
static volatile ulong step_ip[STEPS], step_dr6[STEPS], step_flags[STEPS];
static volatile unsigned steps;
static bool set_rf;

static void on_db(struct frame *f)
{
	if (steps < STEPS) {
		step_ip[steps] = f->ip;
		step_dr6[steps] = read_dr6();
		step_flags[steps] = f->flags;
	}
	steps++;
	write_dr6(0xffff0ff0);
	if (set_rf)
		f->flags |= FL_RF;
}

static void start(void)
{
	trap_hook(VEC_DB, on_db);
	steps = 0;
	set_rf = false;
	write_dr7(0x400);
	write_dr6(0xffff0ff0);
}

static void stop(void)
{
	write_dr7(0x400);
	trap_hook(VEC_DB, NULL);
}

#define TF_ON      "pushfq\n\torl $0x100, (%%rsp)\n\tpopfq\n\t"
#define TF_OFF     "pushfq\n\tandl $~0x100, (%%rsp)\n\tpopfq\n\t"
#define HERE(name) ".global " #name "\n" #name ":\n\t"

TEST(step)
{
	extern u8 st2[], st3[];

	start();
	__asm__ volatile(TF_ON "nop\n\t" HERE(st2) "mov $1, %%eax\n\t" HERE(st3) TF_OFF ::
				 : "rax", "memory", "cc");
	/* after each instruction that began with TF set: not after the POPF that sets it, but after
	 * the one that clears it */
	CHECK_EQ(steps, 5);
	CHECK_EQ(step_ip[0], (ulong)st2);
	CHECK_EQ(step_ip[1], (ulong)st3);
	CHECK_EQ(step_dr6[0] & 0xe00f, 0x4000);
	CHECK_EQ(step_flags[0] & FL_TF, FL_TF);
	stop();
}

TEST(step_rep)
{
	static u8 buf[8];
	extern u8 rep1[], rep2[];

	start();
	__asm__ volatile(TF_ON HERE(rep1) "rep stosb\n\t" HERE(rep2) TF_OFF ::"D"(buf), "c"(4ul),
			 "a"(1)
			 : "memory", "cc");
	CHECK_EQ(steps, 4 + 3); /* after each iteration */
	CHECK_EQ(step_ip[0], (ulong)rep1);
	CHECK_EQ(step_ip[2], (ulong)rep1);
	CHECK_EQ(step_ip[3], (ulong)rep2);
	stop();
}

TEST(step_mov_ss)
{
	extern u8 ss3[];

	start();
	__asm__ volatile("mov %%ss, %%ebx\n\t" TF_ON HERE(ss1) "mov %%ebx, %%ss\n\t" HERE(
				 ss2) "nop\n\t" HERE(ss3) TF_OFF ::
				 : "rbx", "memory", "cc");
	CHECK_EQ(step_ip[0], (ulong)ss3); /* none between MOV SS and the next instruction */
	CHECK_EQ(steps, 4);
	stop();
}

static volatile ulong int_flags;

static void on_int(struct frame *f)
{
	int_flags = f->flags;
}

TEST(step_int)
{
	extern u8 in2[];

	start();
	trap_hook(0x51, on_int);
	__asm__ volatile(TF_ON "int $0x51\n\t" HERE(in1) "nop\n\t" HERE(in2) TF_OFF ::
				 : "memory", "cc");
	CHECK_EQ(int_flags & FL_TF,
		 FL_TF); /* pushed with TF, which the gate clears: the handler runs free */
	CHECK_EQ(step_ip[0],
		 (ulong)in2); /* the first trap is after the NOP, IRET restores TF for it */
	stop();
	trap_hook(0x51, NULL);
}

SNIPPET(dbg_sys_entry, "mov %rcx, %r8\n\tmov %r11, %r9\n\tjmp *%rcx");

TEST(step_syscall)
{

	start();
	wrmsr(MSR_STAR, 0x0020000800000000ull);
	wrmsr(MSR_LSTAR, (ulong)dbg_sys_entry);
	wrmsr(MSR_SFMASK, FL_TF);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	__asm__ volatile(TF_ON "syscall\n\t"
			       "nop" ::
				       : "rcx", "r8", "r9", "r11", "memory", "cc");
	CHECK_EQ(steps, 0); /* masked by the instruction itself: no trap */
	wrmsr(MSR_SFMASK, 0);
	__asm__ volatile(TF_ON "syscall\n\t" TF_OFF ::: "rcx", "r8", "r9", "r11", "memory", "cc");
	CHECK_EQ(step_ip[0], (ulong)dbg_sys_entry);
	stop();
}

SNIPPET(exec_target, "nop\n\tnop\n\tret");

TEST(exec_breakpoint)
{
	start();
	set_rf = true;
	write_dr0((ulong)exec_target + 1);
	write_dr7(0x402); /* G0, execute, one byte */
	__asm__ volatile("call exec_target" ::: "memory");
	CHECK_EQ(steps, 1);
	CHECK_EQ(step_ip[0], (ulong)exec_target + 1); /* a fault: before the instruction */
	CHECK_EQ(step_dr6[0] & 0xe00f, 1);
	CHECK_EQ(step_flags[0] & FL_RF, 0); /* set by faults, but not by this one */
	write_dr7(0x400);
	__asm__ volatile("call exec_target" ::: "memory");
	CHECK_EQ(steps, 1);
	stop();
}

static u64 watched[4] __attribute__((aligned(32)));

TEST(data_breakpoints)
{
	extern u8 db1[], db2[];

	start();
	write_dr1((ulong)&watched[1]);
	write_dr7(0x400 | 8 | 1u << 20 | 3u << 22); /* G1, write, four bytes */
	__asm__ volatile("movl $1, %0\n\t" HERE(db1) "nop" : "=m"(watched[1]));
	CHECK_EQ(steps, 1);
	CHECK_EQ(step_ip[0], (ulong)db1); /* a trap: after the instruction */
	CHECK_EQ(step_dr6[0] & 0xe00f, 2);
	CHECK_EQ(step_flags[0] & FL_RF, 0);
	(void)*(volatile u64 *)&watched[1];
	CHECK_EQ(steps, 1); /* reads do not count */
	*(volatile u8 *)((u8 *)&watched[1] + 3) = 1;
	CHECK_EQ(steps, 2);
	*(volatile u8 *)((u8 *)&watched[1] + 4) = 1;
	CHECK_EQ(steps, 2);
	*(volatile u32 *)((u8 *)&watched[0] + 5) = 1; /* overlaps the first byte */
	CHECK_EQ(steps, 3);
	write_dr7(0x400 | 8 | 3u << 20 | 2u << 22); /* read or write, eight bytes */
	(void)*(volatile u8 *)((u8 *)&watched[1] + 7);
	CHECK_EQ(steps, 4);
	__asm__ volatile("push %0\n\tpop %0" ::"r"(watched[1]) : "memory");
	__asm__ volatile("lock incl %0\n\t" HERE(db2) "nop" : "+m"(watched[1])::"cc");
	CHECK_EQ(step_ip[5], (ulong)db2);
	steps = 0;
	__asm__ volatile("rep movsb" ::"S"(watched), "D"((u8 *)watched + 16), "c"(16ul) : "memory");
	CHECK_EQ(steps, 8); /* in each iteration that touches it */
	/* two at once, and one that is not enabled but matches */
	write_dr0((ulong)&watched[2]);
	write_dr2((ulong)&watched[2]);
	write_dr7(0x400 | 2 | 1u << 16 | 1u << 24 | 3u << 18);
	steps = 0;
	watched[2] = 1;
	BARRIER();
	CHECK_EQ(steps, 1);
	CHECK_EQ(step_dr6[0] & 1, 1);
	stop();
}

TEST(io_breakpoint)
{
	struct trap t;

	start();
	write_dr0(0x80);
	CATCH(t, write_dr7(0x402 | 2u << 16));
	outb(0x80, 1); /* without CR4.DE the type is undefined; whatever it did is not checked */
	write_dr7(0x400);
	write_cr4(read_cr4() | CR4_DE);
	steps = 0;
	write_dr7(0x402 | 2u << 16);
	outb(0x80, 1);
	CHECK_EQ(steps, 1);
	CHECK_EQ(step_dr6[0] & 0xe00f, 1);
	inb(0x80);
	CHECK_EQ(steps, 2);
	outb(0x81, 1);
	CHECK_EQ(steps, 2);
	write_cr4(read_cr4() & ~(ulong)CR4_DE);
	stop();
}

TEST(general_detect)
{
	extern u8 gd1[];

	start();
	write_dr7(0x2400);
	__asm__ volatile(HERE(gd1) "mov %%dr0, %%rax" ::: "rax");
	CHECK_EQ(steps, 1); /* the handler ran with GD clear, so its own accesses were fine */
	CHECK_EQ(step_ip[0], (ulong)gd1);
	CHECK_EQ(step_dr6[0] & 0xe000, 0x2000);
	CHECK_EQ(read_dr7() & 0x2000, 0);
	stop();
}

TEST(dr4_dr5)
{
	struct trap t;
	ulong v;

	write_dr7(0x400);
	write_dr6(0xffff0ff0);
	__asm__ volatile("mov %%db4, %0" : "=r"(v));
	CHECK_EQ(v, 0xffff0ff0);
	__asm__ volatile("mov %%db5, %0" : "=r"(v));
	CHECK_EQ(v, 0x400);
	write_cr4(read_cr4() | CR4_DE);
	CATCH(t, __asm__ volatile("mov %%db4, %%rax" ::: "rax"));
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, __asm__ volatile("mov %%rax, %%db5" :::));
	CHECK_TRAP(t, VEC_UD, 0);
	write_cr4(read_cr4() & ~(ulong)CR4_DE);
}

TEST(dr_fixed_bits)
{
	struct trap t;

	write_dr6(0);
	CHECK_EQ(read_dr6(), 0xffff0ff0);
	write_dr6(0xffffffff);
	CHECK_EQ(read_dr6() & 0xe00f, 0xe00f);
	write_dr6(0xffff0ff0);
	write_dr7(0);
	CHECK_EQ(read_dr7(), 0x400);
	CATCH(t, write_dr7(1ul << 32));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_dr6(1ul << 32));
	CHECK_TRAP(t, VEC_GP, 0);
	write_dr7(0x400);
}

TEST(icebp_and_int3)
{
	struct trap t;
	extern u8 ice1[], ice2[];

	write_dr6(0xffff0ff0);
	CATCH(t, __asm__ volatile(".byte 0xf1\n\t" HERE(ice1) "nop"));
	CHECK_EQ(t.vec, VEC_DB);
	CHECK_EQ(t.ip, (ulong)ice1);
	CHECK_EQ(t.dr6 & 0xe00f, 0); /* no cause */
	CATCH(t, __asm__ volatile("int3\n\t" HERE(ice2) "nop"));
	CHECK_EQ(t.vec, VEC_BP);
	CHECK_EQ(t.ip, (ulong)ice2);
}

/* A data breakpoint on the operand of MOV SS is kept until after the next instruction. */
TEST(mov_ss_breakpoint)
{
	static u16 sel __attribute__((aligned(8))) = SEL_DATA;
	extern u8 ms2[];

	start();
	write_dr0((ulong)&sel);
	write_dr7(0x402 | 3u << 16 | 1u << 18);
	__asm__ volatile("movw %0, %%ss\n\t" HERE(ms1) "nop\n\t" HERE(ms2) "nop" ::"m"(sel)
			 : "memory");
	CHECK_EQ(steps, 1);
	CHECK_EQ(step_ip[0], (ulong)ms2);
	CHECK_EQ(step_dr6[0] & 0xf, 1);
	stop();
}

/* A fault in a stepped instruction is delivered without a step trap; TF is in the pushed flags. */
TEST(step_fault)
{
	struct trap t;

	start();
	CATCH(t, __asm__ volatile(TF_ON "ud2" ::: "memory", "cc"));
	CHECK_EQ(t.vec, VEC_UD);
	CHECK_EQ(t.flags & FL_TF, FL_TF);
	CHECK_EQ(t.flags & FL_RF, FL_RF);
	CHECK_EQ(steps, 0);
	stop();
}
