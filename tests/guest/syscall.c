/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FSGSBASE instructions. Where AMD's and Intel's
 * processors differ the vendor in CPUID decides. References: [SDM2 SYSCALL SYSRET], [APM3 SYSCALL].
 */
#include "cpu.h"

/* Kernel entry: reports by INT; rsp is the caller's, as SYSCALL leaves it. */
SNIPPET(sys_entry, "mov %rsp, %rdx\n\tmov %rcx, %rsi\n\tpushfq\n\tpop %rdi\n\tmov %cs, %eax\n\t"
		   "mov %ss, %ebx\n\tint $0x41");
SNIPPET(sys_return, "mov $0x77, %eax\n\tsysretq");
SNIPPET(sys_return32, "mov $0x78, %eax\n\tsysretl");
SNIPPET(u_syscall,
	"syscall\n\t"
	"u_syscall_after: mov %cs, %ebx\n\tmov %ss, %edx\n\tpushfq\n\tpop %rsi\n\t" USER_END);
SNIPPET(u_syscall32,
	".code32\n\tsyscall\n\t"
	"u_syscall32_after: mov %cs, %ebx\n\tmov %ss, %edx\n\tpushfl\n\tpopl %esi\n\t" USER_END
	".code64");
SNIPPET(u_sysret, "mov %rdi, %rcx\n\tmov $2, %r11d\n\tsysretq\n\t" USER_END);
SNIPPET(u_sysenter, "sysenter\n\t" USER_END);
SNIPPET(u_sysenter32, ".code32\n\tmov %esp, %ecx\n\tsysenter\n\t" USER_END ".code64");
SNIPPET(u_sysexit_after32,
	".code32\n\tmov %cs, %eax\n\tmov %ss, %ebx\n\tmov %esp, %ecx\n\t" USER_END ".code64");
SNIPPET(u_sysexit_after64, "mov %cs, %eax\n\tmov %ss, %ebx\n\tmov %rsp, %rcx\n\t" USER_END);
extern u8 u_syscall_after[], u_syscall32_after[];

static void syscall_setup(const void *entry)
{
	wrmsr(MSR_STAR, 0x0020000800000000ull);
	wrmsr(MSR_LSTAR, (ulong)entry);
	wrmsr(MSR_CSTAR, (ulong)entry);
	wrmsr(MSR_SFMASK, FL_IF | FL_DF | FL_TF | FL_AC);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
}

static void user(struct trap *t, u16 cs, const void *code, ulong flags, ulong arg)
{
	const ulong r[4] = { arg };

	run_at(t, cs, SEL_UDATA, (ulong)code, (ulong)user_stack_top, 2 | flags, r);
}

TEST(syscall_entry)
{
	struct trap t;

	syscall_setup(sys_entry);
	user(&t, SEL_UCODE64, u_syscall, FL_CF | FL_DF | FL_AC, 0);
	CHECK_TRAP(t, 0x41, 0);
	CHECK_EQ(t.ax, SEL_CODE64);
	CHECK_EQ(t.bx, SEL_DATA);
	CHECK_EQ(t.dx, (ulong)user_stack_top);
	CHECK_EQ(t.si, (ulong)u_syscall_after);
	CHECK_EQ(t.r11, 2 | FL_CF | FL_DF | FL_AC);
	CHECK_EQ(t.di, 2 | FL_CF); /* the flags mask */
}

TEST(syscall_in_ring0)
{
	struct trap t;

	syscall_setup(sys_entry);
	CATCH(t, __asm__ volatile("syscall" ::: "rcx", "r11", "memory"));
	CHECK_TRAP(t, 0x41, 0);
	CHECK_EQ(t.ax, SEL_CODE64);
}

TEST(syscall_disabled)
{
	struct trap t;

	syscall_setup(sys_entry);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
	user(&t, SEL_UCODE64, u_syscall, 0, 0);
	CHECK_TRAP(t, VEC_UD, 0);
	CATCH(t, __asm__ volatile("sysretq"));
	CHECK_TRAP(t, VEC_UD, 0);
	syscall_setup(sys_entry);
}

TEST(sysret64)
{
	struct trap t;

	syscall_setup(sys_return);
	user(&t, SEL_UCODE64, u_syscall, FL_CF | FL_DF, 0);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ((u32)t.ax, 0x77);
	CHECK_EQ(t.bx, SEL_UCODE64);
	CHECK_EQ(t.dx, SEL_UDATA);
	CHECK_EQ(t.si & ~(ulong)FL_IF, 2 | FL_CF | FL_DF); /* from r11 */
	user(&t, SEL_UCODE64, u_sysret, 0, (ulong)u_syscall_after);
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(sysret32)
{
	struct trap t;
	const ulong back = (ulong)u_syscall32_after;

	syscall_setup(sys_return32);
	CATCH(t, __asm__ volatile(
			 "mov %0, %%rcx\n\tmov $2, %%r11d\n\tmov %1, %%rsp\n\tsysretl" ::"r"(back),
			 "r"(user_stack_top)
			 : "memory"));
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ((u32)t.bx, SEL_UCODE32);
	CHECK_EQ((u32)t.dx, SEL_UDATA);
	user(&t, SEL_UCODE32, u_syscall32, 0, 0);
	if (cpu_is_amd()) {
		CHECK_TRAP(t, VEC_USER_EXIT, 0);
		CHECK_EQ((u32)t.ax, 0x78);
		CHECK_EQ((u32)t.bx, SEL_UCODE32);
	} else {
		CHECK_TRAP(t, VEC_UD, 0);
	}
}

/* SYSRET to ring 3 with TF in r11: the trap comes after the first user instruction on Intel and
 * AMD. */
TEST(sysret_tf)
{
	struct trap t;
	const ulong back = (ulong)u_syscall_after;

	syscall_setup(sys_return);
	CATCH(t,
	      __asm__ volatile(
		      "mov %0, %%rcx\n\tmov $0x102, %%r11d\n\tmov %1, %%rsp\n\tsysretq" ::"r"(back),
		      "r"(user_stack_top)
		      : "memory"));
	CHECK_EQ(t.vec, VEC_DB);
	CHECK_EQ(t.cs, SEL_UCODE64);
	CHECK(t.ip == back || t.ip == back + 2); /* models differ in the boundary */
}

TEST(syscall_msr_checks)
{
	struct trap t;

	CATCH(t, wrmsr(MSR_LSTAR, 0x8000000000000000ull));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_CSTAR, 0x0000800000000000ull));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_GS_BASE, 0x0000800000000000ull));
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, wrmsr(MSR_KERNEL_GS_BASE, 0x0000800000000000ull));
	CHECK_TRAP(t, VEC_GP, 0);
	wrmsr(MSR_STAR, 0x1122334455667788ull);
	CHECK_EQ(rdmsr(MSR_STAR), 0x1122334455667788ull);
	syscall_setup(sys_entry);
}

TEST(sysenter)
{
	struct trap t;

	wrmsr(MSR_SYSENTER_CS, SEL_CODE64);
	wrmsr(MSR_SYSENTER_ESP, 0x123450);
	wrmsr(MSR_SYSENTER_EIP, (ulong)sys_entry);
	CHECK_EQ(rdmsr(MSR_SYSENTER_ESP), 0x123450);
	user(&t, SEL_UCODE64, u_sysenter, FL_IF, 0);
	if (cpu_is_amd()) {
		CHECK_TRAP(t, VEC_UD, 0); /* legacy mode only */
		user(&t, SEL_UCODE32, u_sysenter32, 0, 0);
		CHECK_TRAP(t, VEC_UD, 0);
		CATCH(t, __asm__ volatile("sysexitl"));
		CHECK_TRAP(t, VEC_UD, 0);
		return;
	}
	/* the frame at 0x123450 is below the image's end; the entry only pushes there */
	CHECK_EQ(t.vec, 0x41);
	CHECK_EQ(t.ax, SEL_CODE64);
	CHECK_EQ(t.bx, SEL_DATA);
	CHECK_EQ(t.dx, 0x123450);
	CHECK_EQ(t.di & FL_IF, 0);
	wrmsr(MSR_SYSENTER_CS, 0);
	user(&t, SEL_UCODE64, u_sysenter, 0, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	CATCH(t, __asm__ volatile("sysexitl"));
	CHECK_TRAP(t, VEC_GP, 0);
}

TEST(swapgs)
{
	wrmsr(MSR_GS_BASE, 0x1111000);
	wrmsr(MSR_KERNEL_GS_BASE, 0xffff888800000000ull);
	__asm__ volatile("swapgs" ::: "memory");
	CHECK_EQ(rdmsr(MSR_GS_BASE), 0xffff888800000000ull);
	CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), 0x1111000);
	__asm__ volatile("swapgs" ::: "memory");
	CHECK_EQ(rdmsr(MSR_GS_BASE), 0x1111000);
	wrmsr(MSR_GS_BASE, 0);
}

SNIPPET(u_rdfsbase, "rdfsbase %rax\n\trdgsbase %rbx\n\twrfsbase %rdi\n\t" USER_END);

TEST(fsgsbase)
{
	struct trap t;

	user(&t, SEL_UCODE64, u_rdfsbase, 0, 0x1234);
	CHECK_TRAP(t, VEC_UD, 0); /* CR4.FSGSBASE is clear */
	if (!HAS_7B(0))
		SKIP("no FSGSBASE");
	write_cr4(read_cr4() | CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0xaaaa0000);
	wrmsr(MSR_GS_BASE, 0xbbbb0000);
	user(&t, SEL_UCODE64, u_rdfsbase, 0, 0xffff900000001234ul);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
	CHECK_EQ(t.ax, 0xaaaa0000);
	CHECK_EQ(rdmsr(MSR_FS_BASE), 0xffff900000001234ul);
	user(&t, SEL_UCODE64, u_rdfsbase, 0, 0x8000000000000000ul);
	CHECK_TRAP(t, VEC_GP, 0);
	user(&t, SEL_UCODE32, u_rdfsbase, 0, 0); /* other bytes there: dec eax; rdfsbase eax: #UD */
	CHECK_EQ(t.vec, VEC_UD);
	write_cr4(read_cr4() & ~(ulong)CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

SNIPPET(u_rdtsc, "rdtsc\n\t" USER_END);

TEST(rdtscp_and_tsd)
{
	struct trap t;
	u32 aux;

	if (HAS_8D(27)) {
		wrmsr(MSR_TSC_AUX, 0x12345678);
		__asm__ volatile("rdtscp" : "=c"(aux)::"rax", "rdx");
		CHECK_EQ(aux, 0x12345678);
	}
	CHECK(rdtsc() < rdtsc());
	write_cr4(read_cr4() | CR4_TSD);
	CATCH(t, rdtsc());
	CHECK_EQ(t.vec, -1); /* ring 0 may */
	user(&t, SEL_UCODE64, u_rdtsc, 0, 0);
	CHECK_TRAP(t, VEC_GP, 0);
	write_cr4(read_cr4() & ~(ulong)CR4_TSD);
	user(&t, SEL_UCODE64, u_rdtsc, 0, 0);
	CHECK_TRAP(t, VEC_USER_EXIT, 0);
}
