/*
 * Long mode: canonical addresses, segments and far transfers, gates and ISTs, IRETQ, control
 * registers. References: [SDM3 5, 6, 7], [APM2 4, 8].
 */
#include "cpu.h"

#define NONCANON 0x8000000000000000ull

TEST(noncanonical_data)
{
	struct trap t;

	CATCH(t, __asm__ volatile("mov (%0), %%rax" ::"r"(NONCANON) : "rax"));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("mov %%rax, (%0)" ::"r"(0x0000800000000000ull)));
	CHECK_TRAP(t, VEC_GP, 0);
	/* the last byte is not canonical */
	CATCH(t, __asm__ volatile("mov (%0), %%rax" ::"r"(0x00007ffffffffffcull) : "rax"));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t,
	      __asm__ volatile("push %%rbp\n\tmov %0, %%rbp\n\tmov (%%rbp), %%rax" ::"r"(NONCANON)
			       : "rax"));
	CHECK_TRAP(t, VEC_SS, 0);
	/* an override of fs is not the stack, one of ss is */
	CATCH(t, __asm__ volatile(
			 "push %%rbp\n\tmov %0, %%rbp\n\tmov %%fs:(%%rbp), %%rax" ::"r"(NONCANON)
			 : "rax"));
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(noncanonical_stack)
{
	struct trap t;

	idt_default(VEC_SS);
	idt[2 * VEC_SS] |= 2ull << 32; /* the fault cannot be pushed on the bad stack */
	CATCH(t, __asm__ volatile("mov %0, %%rsp\n\tpush %%rax" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_SS, 0);
	CHECK_EQ(t.sp, NONCANON);
	CATCH(t, __asm__ volatile("mov %0, %%rsp\n\tpop %%rax" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_SS, 0);
	CATCH(t, __asm__ volatile("mov %0, %%rsp\n\tret" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_SS, 0);
	idt_default(VEC_SS);
}

TEST(noncanonical_branch)
{
	struct trap t;

	CATCH(t, __asm__ volatile("jmp *%0" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("call *%0" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("push %0\n\tret" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("lidt (%0)" ::"r"(NONCANON)));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("invlpg (%0)" ::"r"(NONCANON)));
	CHECK_EQ(t.vec, -1); /* a no-operation, not a fault */
}

TEST(invalid_in_64bit)
{
	static const u8 op[] = { 0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37,
				 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea };
	static u8 code[16];
	struct trap t;

	for (unsigned i = 0; i < ARRAY_SIZE(op); i++) {
		guest_memset(code, 0x90, sizeof(code));
		code[0] = op[i];
		code[15] = 0xc3;
		CATCH(t, __asm__ volatile("call *%0" ::"r"(code) : "memory"));
		if (t.vec != VEC_UD)
			guest_printf("# opcode %x\n", op[i]);
		CHECK_TRAP(t, VEC_UD, 0);
		CHECK_EQ(t.ip, (ulong)code);
	}
}

/* 32-bit code in compatibility mode: takes edi, answers in eax; returns by a far jump. */
SNIPPET(compat_code, ".code32\n\t"
		     "mov %edi, %eax\n\t"
		     ".byte 0x40\n\t" /* inc eax there, a REX prefix in 64-bit mode */
		     "pushl %eax\n\t"
		     "popl %edx\n\t"
		     "pushal\n\tpopal\n\t"
		     "ljmp $0x08, $compat_back\n\t"
		     ".code64");

static ulong __attribute__((noinline)) compat_run(ulong arg)
{
	static struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) far_ptr;
	ulong ax;

	far_ptr.off = (u32)(ulong)compat_code;
	far_ptr.sel = SEL_CODE32;
	__asm__ volatile("mov %1, %%rdi\n\tpush %%rbx\n\tpush %%rbp\n\tljmpl *%2\n"
			 "compat_back:\n\tpop %%rbp\n\tpop %%rbx"
			 : "=a"(ax)
			 : "r"(arg), "m"(far_ptr)
			 : "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13",
			   "r14", "r15", "memory", "cc");
	return ax;
}

TEST(compat_mode)
{
	CHECK_EQ((u32)compat_run(41), 42);
	CHECK_EQ((u32)compat_run(0xffffffff), 0);
}

/* The same bytes at the same address in both modes: inc rax, or dec eax and inc eax. */
SNIPPET(both_code, ".byte 0x48, 0xff, 0xc0\n\tjmp *%rsi\n\t");
SNIPPET(both_from32, ".code32\n\t"
		     "mov $both_back, %esi\n\tmov $both_code, %ecx\n\tjmp *%ecx\n"
		     "both_back:\n\tljmp $0x08, $both_end\n\t"
		     ".code64");

static ulong both_long(ulong x)
{
	__asm__ volatile("lea 1f(%%rip), %%rsi\n\tjmp both_code\n1:" : "+a"(x)::"rsi", "cc");
	return x;
}

static ulong __attribute__((noinline)) both_compat(ulong x)
{
	static struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) far_ptr;

	far_ptr.off = (u32)(ulong)both_from32;
	far_ptr.sel = SEL_CODE32;
	__asm__ volatile("push %%rbx\n\tpush %%rbp\n\tljmpl *%1\n"
			 "both_end:\n\tpop %%rbp\n\tpop %%rbx"
			 : "+a"(x)
			 : "m"(far_ptr)
			 : "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13",
			   "r14", "r15", "memory", "cc");
	return x;
}

TEST(both_modes)
{
	for (ulong n = 0; n < 40; n++) {
		CHECK_EQ(both_long(n + 0xffffffff), n + 0x100000000);
		CHECK_EQ(both_compat(n + 0xf00000000), n);
		CHECK_EQ(both_compat(n), n);
	}
}

/* Ring 3, 32-bit: an access beyond the limit of ds faults in compatibility mode. */
SNIPPET(compat_limit, ".code32\n\t"
		      "mov %edi, %ds\n\tmov 0xffc, %eax\n\tmov 0xffd, %eax\n\t" USER_END ".code64");
SNIPPET(compat_wrap, ".code32\n\tmov $0xfffffffe, %ebx\n\tmov $2, %eax\n\t"
		     "lea 4(%ebx), %eax\n\tmov 0x100002(%ebx), %edx\n\t" USER_END ".code64");

TEST(compat_segment_limit)
{
	struct trap t;
	const ulong r[4] = { SEL_FREE | 3 };

	gdt_set(SEL_FREE, make_desc(0, 0xfff, 0xf3, 0x4));
	run_at(&t, SEL_UCODE32, SEL_UDATA, (ulong)compat_limit, (ulong)user_stack_top, 2, r);
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(t.cs, SEL_UCODE32);
	run_at(&t, SEL_UCODE32, SEL_UDATA, (ulong)compat_wrap, (ulong)user_stack_top, 2, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.ax, 2);
	CHECK_EQ((u32)t.dx, *(u32 *)0x100000);
	gdt_set(SEL_FREE, 0);
}

static void far_jump(struct trap *t, u16 sel)
{
	static struct {
		u32 off;
		u16 sel;
	} __attribute__((packed)) p;

	p.sel = sel;
	p.off = (u32)(ulong)compat_code;
	CATCH(*t, __asm__ volatile("ljmpl *%0" ::"m"(p) : "memory"));
}

TEST(far_jump_faults)
{
	struct trap t;

	far_jump(&t, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	far_jump(&t, 3);
	CHECK_TRAP(t, VEC_GP, 0);
	far_jump(&t, SEL_DATA);
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	far_jump(&t, GDT_ENTRIES * 8);
	CHECK_TRAP(t, VEC_GP, GDT_ENTRIES * 8);
	far_jump(&t, SEL_UCODE64);
	CHECK_TRAP(t, VEC_GP, SEL_UCODE64 & ~3u);
	far_jump(&t, SEL_TSS); /* a busy 64-bit TSS: no task switches in long mode */
	CHECK_TRAP(t, VEC_GP, SEL_TSS);
	gdt_set(SEL_FREE, make_desc(0, 0xfffff, 0x1b, 0xa));
	far_jump(&t, SEL_FREE);
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	gdt_set(SEL_FREE, make_desc(0, 0xfffff, 0x9b, 0xe)); /* L and D */
	far_jump(&t, SEL_FREE);
	CHECK_TRAP(t, VEC_GP, SEL_FREE);
	far_jump(&t, SEL_FREE | 4); /* no LDT */
	CHECK_TRAP(t, VEC_GP, SEL_FREE | 4);
	gdt_set(SEL_FREE, 0);
}

/* Call gate from ring 3: what the target finds on its stack. */
SNIPPET(gate_target, "mov %rsp, %rax\n\tmov (%rsp), %rbx\n\tmov 8(%rsp), %rcx\n\t"
		     "mov 16(%rsp), %rdx\n\tmov 24(%rsp), %rsi\n\tmov %ss, %edi\n\t" USER_END);
SNIPPET(gate_return, "mov $0x1234, %eax\n\tlretq");
static struct {
	u32 off;
	u16 sel;
} __attribute__((packed)) gate_ptr;
SNIPPET(gate_caller, "lcall *(%rdi)\n\t"
		     "gate_after: mov %cs, %ebx\n\tmov %ss, %ecx\n\t" USER_END);

static void gate_set(u16 sel, u16 target_sel, ulong off, u8 access)
{
	gdt_set(sel, (off & 0xffff) | (u64)target_sel << 16 | (u64)access << 40 |
			     (u64)(off >> 16 & 0xffff) << 48);
	gdt_set(sel + 8, off >> 32);
}

TEST(call_gate)
{
	extern u8 gate_after[];
	struct trap t;
	const ulong r[4] = { (ulong)&gate_ptr };

	gate_ptr.sel = SEL_FREE | 3;
	gate_set(SEL_FREE, SEL_CODE64, (ulong)gate_target, 0xec);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)gate_caller, (ulong)user_stack_top, 2, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.cs, SEL_CODE64);
	CHECK_EQ(t.ax, tss[0].rsp[0] - 32);
	CHECK_EQ(t.bx, (ulong)gate_after);
	CHECK_EQ(t.cx, SEL_UCODE64);
	CHECK_EQ(t.dx, (ulong)user_stack_top);
	CHECK_EQ(t.si, SEL_UDATA);
	CHECK_EQ(t.di, 0); /* a null ss */

	gate_set(SEL_FREE, SEL_CODE64, (ulong)gate_return, 0xec);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)gate_caller, (ulong)user_stack_top, 2, r);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ((u32)t.ax, 0x1234);
	CHECK_EQ(t.bx, SEL_UCODE64);
	CHECK_EQ(t.cx, SEL_UDATA);
	CHECK_EQ(t.sp, (ulong)user_stack_top);
	gdt_set(SEL_FREE, 0);
	gdt_set(SEL_FREE + 8, 0);
}

TEST(call_gate_faults)
{
	struct trap t;
	const ulong r[4] = { (ulong)&gate_ptr };

#define GATE_TRY() \
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)gate_caller, (ulong)user_stack_top, 2, r)
	gate_ptr.sel = SEL_FREE | 3;
	gate_set(SEL_FREE, SEL_CODE64, (ulong)gate_return, 0x8c);
	GATE_TRY(); /* DPL 0 */
	CHECK_TRAP(t, VEC_GP, SEL_FREE);
	gate_set(SEL_FREE, SEL_CODE64, (ulong)gate_return, 0x6c);
	GATE_TRY();
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	gate_set(SEL_FREE, SEL_CODE32, (ulong)gate_return, 0xec);
	GATE_TRY();
	CHECK_TRAP(t, VEC_GP, SEL_CODE32);
	gate_set(SEL_FREE, 0, (ulong)gate_return, 0xec);
	GATE_TRY();
	CHECK_TRAP(t, VEC_GP, 0);
	gate_set(SEL_FREE, SEL_DATA, (ulong)gate_return, 0xec);
	GATE_TRY();
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	gate_set(SEL_FREE, SEL_CODE64, NONCANON, 0xec);
	GATE_TRY();
	CHECK_EQ(t.vec, VEC_GP);
	gate_set(SEL_FREE, SEL_CODE64, (ulong)gate_return, 0xec);
	gdt_set(SEL_FREE + 8, 0x00000c0000000000ull); /* a type in the upper half */
	GATE_TRY();
	CHECK_TRAP(t, VEC_GP, SEL_FREE);
	gdt_set(SEL_FREE, 0);
	gdt_set(SEL_FREE + 8, 0);
}

static volatile ulong seen_frame, seen_sp, seen_ss, seen_ss_now;

static void look_at_frame(struct frame *f)
{
	seen_frame = (ulong)(f + 1);
	seen_sp = f->sp;
	seen_ss = f->ss;
	seen_ss_now = read_ss();
}

TEST(stack_alignment_and_ist)
{
	trap_hook(VEC_BP, look_at_frame);
	__asm__ volatile(
		"mov %%rsp, %%rbx\n\tand $-16, %%rsp\n\tsub $0x105, %%rsp\n\tmov %%rsp, %%rsi\n\t"
		"int3\n\tmov %%rbx, %%rsp\n\tmov %%rsi, %0"
		: "=m"(seen_ss)
		:
		: "rbx", "rsi", "memory");
	CHECK_EQ(seen_sp, seen_ss);
	CHECK_EQ(seen_frame & 15, 0);
	CHECK_EQ(seen_frame, seen_sp & ~15ul);
	idt[2 * VEC_BP] |= 3ull << 32;
	__asm__ volatile("int3" ::: "memory");
	CHECK_EQ(seen_frame, tss[0].ist[2]);
	CHECK_EQ(seen_ss, SEL_DATA);
	CHECK_EQ(seen_ss_now, SEL_DATA); /* no change of privilege: ss stays */
	idt_default(VEC_BP);
	trap_hook(VEC_BP, NULL);
}

static void call_iretq(struct trap *t, u16 cs, u16 ss, ulong ip, ulong flags)
{
	run_at(t, cs, ss, ip, (ulong)user_stack_top, flags, NULL);
}

SNIPPET(iret_target, "mov %ss, %eax\n\tpushfq\n\tpop %rbx\n\t" USER_END);
extern u8 run_iret_insn[];

TEST(iretq)
{
	struct trap t;

	call_iretq(&t, SEL_CODE64, 0, (ulong)iret_target, 2 | FL_AC | FL_ID | FL_IOPL);
	CHECK_TRAP(t, VEC_USER_EXIT, 0); /* null ss is fine in ring 0, 64-bit */
	CHECK_EQ(t.ax, 0);
	CHECK_EQ(t.bx, 2 | FL_AC | FL_ID | FL_IOPL);
	call_iretq(&t, SEL_UCODE64, 0, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, 0); /* null ss in ring 3 */
	CHECK_EQ(t.ip, (ulong)run_iret_insn);
	call_iretq(&t, SEL_CODE64, 3, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, 0);
	call_iretq(&t, SEL_UCODE64, SEL_DATA | 3, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	call_iretq(&t, SEL_UCODE64, SEL_UDATA & ~3, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, SEL_UDATA & ~3);
	call_iretq(&t, 0, SEL_DATA, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, 0);
	call_iretq(&t, SEL_DATA, SEL_DATA, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	call_iretq(&t, SEL_CODE64 | 3, SEL_UDATA, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_GP, SEL_CODE64);
	call_iretq(&t, SEL_CODE64, SEL_DATA, NONCANON, 2);
	CHECK_TRAP(t, VEC_GP, 0);
	gdt_set(SEL_FREE, make_desc(0, 0xfffff, 0x73, 0xc)); /* data, not present */
	call_iretq(&t, SEL_UCODE64, SEL_FREE | 3, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_SS, SEL_FREE);
	gdt_set(SEL_FREE, make_desc(0, 0xfffff, 0x7b, 0xa)); /* code, not present */
	call_iretq(&t, SEL_FREE | 3, SEL_UDATA, (ulong)iret_target, 2);
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	gdt_set(SEL_FREE, 0);
	CATCH(t, __asm__ volatile("pushfq\n\torl $0x4000, (%%rsp)\n\tpopfq\n\tiretq" ::: "memory"));
	CHECK_TRAP(t, VEC_GP, 0); /* NT: no task to return to */
}

SNIPPET(popf_user, "pushfq\n\torq $0x3200, (%rsp)\n\tpopfq\n\tpushfq\n\tpop %rax\n\t" USER_END);
SNIPPET(cli_user, "cli\n\t" USER_END);

TEST(popf_iopl)
{
	struct trap t;

	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)popf_user, (ulong)user_stack_top, 2, NULL);
	CHECK_EQ(t.vec, VEC_USER_EXIT);
	CHECK_EQ(t.ax & (FL_IF | FL_IOPL), 0); /* silently kept */
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)popf_user, (ulong)user_stack_top, 2 | FL_IOPL,
	       NULL);
	CHECK_EQ(t.ax & (FL_IF | FL_IOPL), FL_IF | FL_IOPL);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)cli_user, (ulong)user_stack_top, 2, NULL);
	CHECK_TRAP(t, VEC_GP, 0);
	run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)cli_user, (ulong)user_stack_top, 2 | FL_IOPL,
	       NULL);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
}

SNIPPET(inb_user, "mov %edi, %edx\n\tinb %dx, %al\n\t" USER_END);
SNIPPET(inw_user, "mov %edi, %edx\n\tinw %dx, %ax\n\t" USER_END);

TEST(io_bitmap)
{
	struct trap t;
	ulong r[4] = { 0x80 };

	guest_memset(tss[0].bitmap, 0xff, sizeof(tss[0].bitmap));
	tss[0].iomap = offsetof(struct tss64, bitmap);
#define IO_TRY(code) run_at(&t, SEL_UCODE64, SEL_UDATA, (ulong)(code), (ulong)user_stack_top, 2, r)
	IO_TRY(inb_user);
	CHECK_TRAP(t, VEC_GP, 0);
	tss[0].bitmap[0x80 / 8] = 0xfe;
	IO_TRY(inb_user);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	IO_TRY(inw_user); /* 81h is closed */
	CHECK_TRAP(t, VEC_GP, 0);
	tss[0].bitmap[0x80 / 8] = 0xfc;
	IO_TRY(inw_user);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	r[0] = 0x800; /* beyond the limit of the TSS */
	IO_TRY(inb_user);
	CHECK_TRAP(t, VEC_GP, 0);
	tss[0].iomap = sizeof(tss[0]);
}

TEST(idt_gate_faults)
{
	struct trap t;
	struct table_reg full = { sizeof(idt) - 1, (ulong)idt },
			 cut = { 0x50 * 16 - 1, (ulong)idt };
	ulong stub = (ulong)(idt[2 * 0x51] & 0xffff) | (ulong)(idt[2 * 0x51] >> 48) << 16;

#define INT51() CATCH(t, __asm__ volatile("int $0x51" ::: "memory"))
	INT51();
	CHECK_TRAP(t, 0x51, 0);
	lidt(&cut);
	INT51();
	lidt(&full);
	CHECK_TRAP(t, VEC_GP, 0x51 * 8 + 2);
	idt_set(0x51, SEL_CODE64, stub, 0x0e, 0);
	INT51();
	CHECK_TRAP(t, VEC_NP, 0x51 * 8 + 2);
	idt_set(0x51, SEL_CODE64, stub, 0x85, 0); /* a task gate */
	INT51();
	CHECK_TRAP(t, VEC_GP, 0x51 * 8 + 2);
	idt_set(0x51, SEL_CODE32, stub, 0x8e, 0);
	INT51();
	CHECK_TRAP(t, VEC_GP, SEL_CODE32);
	idt_set(0x51, 0, stub, 0x8e, 0);
	INT51();
	CHECK_TRAP(t, VEC_GP, 0);
	idt_set(0x51, SEL_DATA, stub, 0x8e, 0);
	INT51();
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	idt_default(0x51);
	INT51();
	CHECK_TRAP(t, 0x51, 0);
	/* a vector that pushes an error code as an exception does not as INT n */
	CATCH(t, __asm__ volatile("mov %%rsp, %%rbx\n\tint $0x52\n\t" ::: "rbx", "memory"));
	CHECK_TRAP(t, 0x52, 0);
}

SNIPPET(int51_user, "int $0x51\n\t" USER_END);

TEST(idt_gate_dpl)
{
	struct trap t;

	run_user(&t, int51_user, 0);
	CHECK_TRAP(t, VEC_GP, 0x51 * 8 + 2);
	CHECK_EQ(t.ip, (ulong)int51_user); /* a fault, although INT n is a trap */
	CHECK_EQ(t.cs, SEL_UCODE64);
}

static volatile ulong gate_flags;

static void keep_flags(struct frame *f)
{
	gate_flags = read_flags();
}

TEST(gate_if_tf_nt)
{
	trap_hook(0x53, keep_flags);
	__asm__ volatile("pushfq\n\torl $0x4000, (%%rsp)\n\tpopfq\n\tsti\n\tint $0x53\n\tcli" ::
				 : "memory", "cc");
	CHECK_EQ(gate_flags & (FL_IF | FL_TF | FL_NT), 0);
	idt[2 * 0x53] |= 0x0100ull << 32; /* a trap gate leaves IF alone */
	__asm__ volatile("sti\n\tint $0x53\n\tcli" ::: "memory", "cc");
	CHECK_EQ(gate_flags & (FL_IF | FL_TF | FL_NT), FL_IF);
	write_flags(2);
	idt_default(0x53);
	trap_hook(0x53, NULL);
}

TEST(double_fault)
{
	struct trap t;
	u64 save = idt[2 * VEC_GP];

	idt[2 * VEC_GP] &= ~(0x80ull << 40);
	CATCH(t, __asm__ volatile("mov (%0), %%rax" ::"r"(NONCANON) : "rax"));
	CHECK_TRAP(t, VEC_DF, 0);
	idt[2 * VEC_GP] = save;
	save = idt[2 * VEC_UD]; /* a benign exception first: the second one is delivered as it is */
	idt[2 * VEC_UD] &= ~(0x80ull << 40);
	CATCH(t, __asm__ volatile("ud2"));
	CHECK_TRAP(t, VEC_NP, VEC_UD * 8 + 3);
	idt[2 * VEC_UD] = save;
	save = idt[2 * VEC_DE];
	idt[2 * VEC_DE] &= ~(0x80ull << 40);
	CATCH(t, __asm__ volatile("xor %%edx, %%edx\n\tdivl %0" ::"r"(0) : "rdx", "rax"));
	CHECK_TRAP(t, VEC_DF, 0); /* contributory and contributory */
	idt[2 * VEC_DE] = save;
	CATCH(t, __asm__ volatile("ud2"));
	CHECK_TRAP(t, VEC_UD, 0);
}

TEST(segment_loads)
{
	struct trap t;

	gdt_set(SEL_FREE, make_desc(0x1000, 0, 0x93, 0x4)); /* base and limit count for nothing */
	CATCH(t, write_ds(SEL_FREE); CHECK_EQ(*(volatile u32 *)0x100000, 0x1badb002));
	CHECK_EQ(t.vec, -1);
	write_ds(SEL_DATA);
	CATCH(t, write_ss(0));
	CHECK_EQ(t.vec, -1);
	CATCH(t, write_ss(3));
	CHECK_TRAP(t, VEC_GP, 0);
	write_ss(SEL_DATA);
	CATCH(t, write_ss(SEL_CODE64));
	CHECK_TRAP(t, VEC_GP, SEL_CODE64);
	CATCH(t, write_ss(SEL_UDATA));
	CHECK_TRAP(t, VEC_GP, SEL_UDATA & ~3);
	CATCH(t, write_ds(SEL_TSS));
	CHECK_TRAP(t, VEC_GP, SEL_TSS);
	CATCH(t, write_es(GDT_ENTRIES * 8 | 3));
	CHECK_TRAP(t, VEC_GP, GDT_ENTRIES * 8);
	gdt_set(SEL_FREE, make_desc(0, 0, 0x13, 0x4));
	CATCH(t, write_fs(SEL_FREE));
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	CATCH(t, write_ss(SEL_FREE));
	CHECK_TRAP(t, VEC_SS, SEL_FREE);
	CATCH(t, __asm__ volatile("mov %0, %%cs" ::"r"(SEL_CODE64))); /* 8e /1 */
	CHECK_TRAP(t, VEC_UD, 0);
	gdt_set(SEL_FREE, make_desc(0, 0, 0x92, 0x4));
	CATCH(t, write_fs(SEL_FREE));
	CHECK_EQ(t.vec, -1);
	CHECK_EQ(gdt_get(SEL_FREE) >> 40 & 0xff, 0x93); /* accessed */
	write_fs(0);
	gdt_set(SEL_FREE, 0);
}

TEST(segment_bases)
{
	static u64 data[2] = { 0x1111, 0x2222 };
	ulong v;

	gdt_set(SEL_FREE, make_desc((u32)(ulong)data, 0xfffff, 0x93, 0xc));
	wrmsr(MSR_FS_BASE, 0xffff800000000000ull);
	write_fs(SEL_FREE); /* the upper half goes */
	CHECK_EQ(rdmsr(MSR_FS_BASE), (ulong)data);
	__asm__ volatile("mov %%fs:8, %0" : "=r"(v));
	CHECK_EQ(v, 0x2222);
	wrmsr(MSR_GS_BASE, (ulong)data - 0x100000000ull);
	__asm__ volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"(0x100000000ull));
	CHECK_EQ(v, 0x1111);
	write_fs(0);
	write_gs(0);
	wrmsr(MSR_GS_BASE, 0);
	wrmsr(MSR_FS_BASE, 0);
	gdt_set(SEL_FREE, 0);
}

TEST(ldt_and_tr)
{
	static u64 ldt[2];
	struct trap t;

	ldt[1] = make_desc(0, 0xfffff, 0x93, 0xc);
	gdt_set(SEL_FREE, make_desc((u32)(ulong)ldt, sizeof(ldt) - 1, 0x82, 0));
	gdt_set(SEL_FREE + 8, 0);
	lldt(SEL_FREE);
	CATCH(t, write_fs(8 | 4));
	CHECK_EQ(t.vec, -1);
	CATCH(t, write_fs(16 | 4));
	CHECK_TRAP(t, VEC_GP, 16 | 4);
	lldt(0);
	CATCH(t, write_fs(8 | 4));
	CHECK_TRAP(t, VEC_GP, 8 | 4);
	write_fs(0);
	CATCH(t, lldt(SEL_DATA));
	CHECK_TRAP(t, VEC_GP, SEL_DATA);
	CATCH(t, lldt(8 | 4));
	CHECK_TRAP(t, VEC_GP, 8 | 4);
	CATCH(t, __asm__ volatile("ltr %w0" ::"r"(SEL_TSS))); /* busy */
	CHECK_TRAP(t, VEC_GP, SEL_TSS);
	if (!cmdline_has("vmm=tcg")) { /* which loads it, and dies later */
		CATCH(t, __asm__ volatile("ltr %w0" ::"r"(0)));
		CHECK_TRAP(t, VEC_GP, 0);
	}
	gdt_set(SEL_FREE, make_desc((u32)(ulong)ldt, sizeof(ldt) - 1, 0x02, 0));
	CATCH(t, lldt(SEL_FREE));
	CHECK_TRAP(t, VEC_NP, SEL_FREE);
	gdt_set(SEL_FREE, 0);
}

static bool lar(u16 sel, u32 *v)
{
	u8 zf;
	ulong r = 0xdeadbeef;

	__asm__ volatile("lar %w2, %k0\n\tsetz %1" : "+r"(r), "=qm"(zf) : "r"(sel) : "cc");
	*v = (u32)r;
	return zf;
}

static bool lsl(u16 sel, u32 *v)
{
	u8 zf;
	ulong r = 0xdeadbeef;

	__asm__ volatile("lsl %w2, %k0\n\tsetz %1" : "+r"(r), "=qm"(zf) : "r"(sel) : "cc");
	*v = (u32)r;
	return zf;
}

TEST(lar_lsl_verr)
{
	u32 v;
	u8 zf;

	CHECK(lar(SEL_CODE64, &v));
	CHECK_EQ(v & 0x00f0ff00, 0x00a09b00);
	CHECK(lsl(SEL_DATA, &v));
	CHECK_EQ(v, 0xffffffff);
	CHECK(lsl(SEL_TSS, &v));
	CHECK_EQ(v, sizeof(tss[0]) - 1);
	CHECK(lar(SEL_TSS, &v));
	CHECK_EQ(v & 0xff00, 0x8b00);
	CHECK(!lar(0, &v));
	CHECK_EQ(v, 0xdeadbeef);
	CHECK(!lsl(GDT_ENTRIES * 8, &v));
	CHECK_EQ(v, 0xdeadbeef);
	gdt_set(SEL_FREE, make_desc(0, 0, 0x85, 0)); /* task gate: not in long mode */
	CHECK(!lar(SEL_FREE, &v));
	gdt_set(SEL_FREE, make_desc(0, 0, 0x8c, 0)); /* call gate: LAR yes, LSL no */
	CHECK(lar(SEL_FREE, &v));
	CHECK(!lsl(SEL_FREE, &v));
	gdt_set(SEL_FREE, make_desc(0, 0, 0x83, 0)); /* busy 16-bit TSS: no longer a type */
	CHECK(!lar(SEL_FREE, &v));
	gdt_set(SEL_FREE, 0);
	__asm__ volatile("verw %w1\n\tsetz %0" : "=qm"(zf) : "r"(SEL_CODE64) : "cc");
	CHECK_EQ(zf, 0);
	__asm__ volatile("verr %w1\n\tsetz %0" : "=qm"(zf) : "r"(SEL_CODE64) : "cc");
	CHECK_EQ(zf, 1);
	__asm__ volatile("verw %w1\n\tsetz %0" : "=qm"(zf) : "r"(SEL_DATA) : "cc");
	CHECK_EQ(zf, 1);
}

TEST(control_register_faults)
{
	struct trap t;
	ulong cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();

	if (cmdline_has("vmm=tcg"))
		SKIP("TCG leaves protected mode here");
	CATCH(t, write_cr0(cr0 & ~(ulong)CR0_PE));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr0((cr0 | CR0_NW) & ~(ulong)CR0_CD));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr0(cr0 | 1ul << 32));
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(read_cr0(), cr0);
	CATCH(t, write_cr4(cr4 & ~(ulong)CR4_PAE));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr4(cr4 | 1ul << 32));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, write_cr4(cr4 | 1ul << 15));
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(read_cr4(), cr4);
	CATCH(t, write_cr3(cr3 | 1ul << 60));
	CHECK_TRAP(t, VEC_GP, 0);
	CHECK_EQ(read_cr3(), cr3);
	CATCH(t, write_cr8(16));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile(".byte 0x0f, 0x20, 0xc8" ::: "rax")); /* mov cr1, eax */
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, __asm__ volatile(".byte 0x0f, 0x20, 0xe8" ::: "rax")); /* mov cr5, eax */
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_LME));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1u << 1 | 1u << 9));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, rdmsr(0x12345678));
	CHECK_TRAP(t, VEC_GP, 0);
	__asm__ volatile("lmsw %w0" ::"r"(0)); /* cannot clear PE */
	CHECK_EQ(read_cr0() & 1, 1);
	write_cr0(cr0);
}

SNIPPET(user_mov_cr, "mov %cr0, %rax\n\t" USER_END);
SNIPPET(user_hlt, "hlt\n\t" USER_END);
SNIPPET(user_rdmsr, "mov $0x10, %ecx\n\trdmsr\n\t" USER_END);
SNIPPET(user_lgdt, "lgdt (%rsp)\n\t" USER_END);
SNIPPET(user_ltr, "mov $0x100, %eax\n\tltr %ax\n\t" USER_END);
SNIPPET(user_clts, "clts\n\t" USER_END);
SNIPPET(user_invlpg, "invlpg (%rsp)\n\t" USER_END);
SNIPPET(user_swapgs, "swapgs\n\t" USER_END);
SNIPPET(user_wbinvd, "wbinvd\n\t" USER_END);
SNIPPET(user_dr, "mov %dr7, %rax\n\t" USER_END);
SNIPPET(user_sgdt, "sgdt -16(%rsp)\n\t" USER_END);
SNIPPET(user_smsw, "smsw %eax\n\t" USER_END);

TEST(privileged_in_ring3)
{
	static const u8 *const code[] = { user_mov_cr, user_hlt,  user_rdmsr,  user_lgdt,
					  user_ltr,    user_clts, user_invlpg, user_swapgs,
					  user_wbinvd, user_dr };
	struct trap t;

	for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
		run_user(&t, code[i], 0);
		if (t.vec != VEC_GP)
			guest_printf("# snippet %u\n", i);
		CHECK_TRAP(t, VEC_GP, 0);
	}
	run_user(&t, user_sgdt, 0);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	if (HAS_7C(2)) {
		write_cr4(read_cr4() | CR4_UMIP);
		run_user(&t, user_sgdt, 0);
		CHECK_TRAP(t, VEC_GP, 0);
		run_user(&t, user_smsw, 0);
		CHECK_TRAP(t, VEC_GP, 0);
		write_cr4(read_cr4() & ~(ulong)CR4_UMIP);
	}
}
