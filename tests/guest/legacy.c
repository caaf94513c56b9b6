/*
 * Fast system calls in 32-bit protected mode: SYSENTER and SYSEXIT, and SYSCALL and SYSRET, which
 * only AMD's processors have there; single step over them. References: [SDM2 SYSENTER SYSEXIT],
 * [APM3 SYSCALL SYSRET].
 */
#include "cpu.h"

/* The four descriptors in the order that SYSENTER and SYSEXIT expect. */
#define KCS SEL_FREE
#define KSS (SEL_FREE + 8)
#define UCS (SEL_FREE + 16 + 3)
#define USS (SEL_FREE + 24 + 3)

static u8 stack[512] __attribute__((aligned(16)));

SNIPPET(u_enter, "mov %esp, %ecx\n\tmov $1f, %edx\n\tsysenter\n"
		 "1:\tmov %cs, %eax\n\tmov %ss, %ebx\n\t" USER_END);
SNIPPET(k_exit, "mov %esp, %esi\n\tpushf\n\tpop %edi\n\tmov %cs, %ebp\n\tsysexit");
SNIPPET(k_report, "mov %cs, %eax\n\tmov %ss, %ebx\n\tint $0x41");
SNIPPET(u_sysexit, "sysexit\n\t" USER_END);
SNIPPET(u_call,
	"syscall\nu_call_after: mov %cs, %eax\n\tmov %ss, %ebx\n\tpushf\n\tpop %edx\n\t" USER_END);
SNIPPET(k_return, "pushf\n\tpop %edi\n\tmov %ecx, %esi\n\tmov %cs, %ebp\n\tsysret");
SNIPPET(u_sysret, "sysret\n\t" USER_END);
extern u8 u_call_after[];

static void setup(void)
{
	gdt_set(KCS, make_desc(0, 0xfffff, 0x9b, 0xc));
	gdt_set(KSS, make_desc(0, 0xfffff, 0x93, 0xc));
	gdt_set(UCS & ~3, make_desc(0, 0xfffff, 0xfb, 0xc));
	gdt_set(USS & ~3, make_desc(0, 0xfffff, 0xf3, 0xc));
}

static void enter_setup(const void *entry)
{
	setup();
	wrmsr(MSR_SYSENTER_CS, KCS);
	wrmsr(MSR_SYSENTER_ESP, (ulong)(stack + sizeof(stack)));
	wrmsr(MSR_SYSENTER_EIP, (ulong)entry);
}

static void user(struct trap *t, const void *code, ulong flags)
{
	run_at(t, SEL_UCODE32, SEL_UDATA, (ulong)code, (ulong)user_stack_top, 2 | flags, NULL);
}

TEST(sysenter)
{
	struct trap t;

	if (!HAS_1D(11))
		SKIP("no SYSENTER");
	enter_setup(k_report);
	user(&t, u_enter, FL_CF);
	CHECK_TRAP(t, 0x41, 0);
	CHECK_EQ(t.ax & 0xffff, KCS);
	CHECK_EQ(t.bx & 0xffff, KSS);
	CHECK_EQ(t.cx, (ulong)user_stack_top);
	CHECK_EQ(t.flags & (FL_CF | FL_IF), FL_CF); /* the others are kept */
	enter_setup(k_exit);
	user(&t, u_enter, FL_IOPL | FL_IF);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.si, (ulong)(stack + sizeof(stack)));
	CHECK_EQ(t.di & FL_IF, 0);
	CHECK_EQ(t.bp & 0xffff, KCS);
	CHECK_EQ(t.ax & 0xffff, UCS);
	CHECK_EQ(t.bx & 0xffff, USS);
	CHECK_EQ(t.sp, (ulong)user_stack_top);
	CHECK_EQ(t.flags & FL_IF, 0); /* SYSEXIT does not bring IF back */
}

TEST(sysenter_faults)
{
	struct trap t;

	if (!HAS_1D(11))
		SKIP("no SYSENTER");
	enter_setup(k_report);
	wrmsr(MSR_SYSENTER_CS, 0);
	user(&t, u_enter, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("sysexit"));
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_SYSENTER_CS, KCS);
	user(&t, u_sysexit, 0); /* not from ring 3 */
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(syscall_legacy)
{
	struct trap t;

	setup();
	if (!HAS_8D(11) || !cpu_is_amd()) {
		user(&t, u_call, 0);
		CHECK_TRAP(t, VEC_UD, 0);
		return;
	}
	wrmsr(MSR_STAR, (u64)(UCS & ~3) << 48 | (u64)KCS << 32 | (ulong)k_return);
	user(&t, u_call, 0); /* EFER.SCE is clear */
	CHECK_TRAP(t, VEC_UD, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	user(&t, u_call, FL_CF);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.si, (ulong)u_call_after);
	CHECK_EQ(t.di & FL_IF, 0);
	CHECK_EQ(t.bp & 0xffff, KCS);
	CHECK_EQ(t.ax & 0xffff, UCS);
	CHECK_EQ(t.bx & 0xffff, USS);
	CHECK_EQ(t.dx & FL_IF, FL_IF); /* SYSRET sets IF in this mode */
	user(&t, u_sysret, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
}

static volatile unsigned steps;
static volatile ulong first_ip;

static void on_db(struct frame *f)
{
	if (!steps++)
		first_ip = f->ip;
	f->flags &= ~(ulong)FL_TF;
	write_dr6(0xffff0ff0);
}

/* SYSENTER leaves TF set, so the kernel traps at its entry: every kernel has to cope with that. */
SNIPPET(u_enter_tf,
	"mov %esp, %ecx\n\tmov $1f, %edx\n\tpushf\n\torl $0x100, (%esp)\n\tpopf\n\tsysenter\n"
	"1:\t" USER_END);

TEST(sysenter_single_step)
{
	struct trap t;

	if (!HAS_1D(11))
		SKIP("no SYSENTER");
	enter_setup(k_report);
	trap_hook(VEC_DB, on_db);
	steps = 0;
	user(&t, u_enter_tf, 0);
	CHECK_EQ(t.vec, 0x41);
	CHECK_EQ(steps, 1);
	CHECK_EQ(first_ip, (ulong)k_report);
	trap_hook(VEC_DB, NULL);
}
