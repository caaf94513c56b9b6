/*
 * Native side of the differential test.
 *
 * A child process maps code and data at their fixed addresses, loads the registers of a case from
 * fixed addresses (no register needs to be spared for that), jumps, and always comes back by a
 * signal: SIGTRAP of the INT3 behind the instruction, or that of a fault. The handler copies the
 * state out of the signal frame and leaves by siglongjmp.
 *
 * A timer ends cases that do not end by themselves.
 *
 * References: [SDM1 13.7], Linux signal frames: arch/x86/include/uapi/asm/sigcontext.h for the
 * layout. Threads:    one.
 */
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "diff.h"

/* At DIFF_CTX: addresses that the entry code has as constants. */
struct native_ctx {
	uint64_t r[16]; /* 0x000 */
	uint64_t flags; /* 0x080 */
	uint64_t rip;   /* 0x088: near target */
	uint32_t off32; /* 0x090: far target for 32-bit code */
	uint16_t cs32;
	uint8_t pad[0x100 - 0x96];
	uint8_t xsave[DIFF_XSAVE]; /* 0x100 */
};
_Static_assert(offsetof(struct native_ctx, xsave) == 0x100, "used by the entry code");

static sigjmp_buf native_back;
static struct diff_result *native_out;
static struct diff_result *volatile native_ticked; /* the case that the timer has seen */
static unsigned native_ticks;
enum { NATIVE_TICK = 10000 /* us of processor time */, NATIVE_TICKS = 4 };
static struct native_ctx *const native_ctx = (struct native_ctx *)DIFF_CTX;

/* Order of struct diff_state.r in a signal frame. */
static const int native_greg[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				     REG_R12, REG_R13, REG_R14, REG_R15 };

void diff_timer(void (*tick)(int), unsigned us, int flags)
{
	struct itimerval t = { { 0, (suseconds_t)us }, { 0, (suseconds_t)us } };
	struct sigaction sa = { .sa_handler = tick, .sa_flags = flags | SA_RESTART };

	sigaction(SIGVTALRM, &sa, NULL);
	setitimer(ITIMER_VIRTUAL, &t, NULL);
}

/* A case that is still there after some ticks does not end. */
static void native_tick(int sig)
{
	if (native_ticked != native_out) {
		native_ticked = native_out;
		native_ticks = 0;
	} else if (++native_ticks >= NATIVE_TICKS && native_out->vec == DIFF_LOST) {
		__asm__ volatile("pushfq; andl $0xfffbffff, (%%rsp); popfq" ::: "memory", "cc");
		native_out->vec = DIFF_STUCK;
		siglongjmp(native_back, 1);
	}
}

static void native_signal(int sig, siginfo_t *si, void *ctx)
{
	const ucontext_t *uc = ctx;
	const greg_t *g = uc->uc_mcontext.gregs;
	struct diff_result *o = native_out;

	/* AC may be set: unaligned accesses of our own would be the next #AC. */
	__asm__ volatile("pushfq; andl $0xfffbffff, (%%rsp); popfq" ::: "memory", "cc");
	for (unsigned n = 0; n < 16; n++)
		o->out.r[n] = (uint64_t)g[native_greg[n]];
	o->out.rip = (uint64_t)g[REG_RIP];
	o->out.flags = (uint64_t)g[REG_EFL];
	memcpy(o->out.xsave, uc->uc_mcontext.fpregs, DIFF_XSAVE);
	o->vec = (int)g[REG_TRAPNO];
	o->error = (uint32_t)g[REG_ERR];
	o->cr2 = (uint64_t)g[REG_CR2];
	if (o->vec == 3) {
		o->vec = DIFF_OK;
		o->out.rip--;
	}
	siglongjmp(native_back, 1);
}

#define CTX_LOAD \
	"movl $7, %%eax\n\t" \
	"xorl %%edx, %%edx\n\t" \
	"xrstor64 0x6a5c3100\n\t" \
	"movl $0x6a5c3080, %%esp\n\t" \
	"popfq\n\t" \
	"movq 0x6a5c3000, %%rax\n\t" \
	"movq 0x6a5c3008, %%rcx\n\t" \
	"movq 0x6a5c3010, %%rdx\n\t" \
	"movq 0x6a5c3018, %%rbx\n\t" \
	"movq 0x6a5c3020, %%rsp\n\t" \
	"movq 0x6a5c3028, %%rbp\n\t" \
	"movq 0x6a5c3030, %%rsi\n\t" \
	"movq 0x6a5c3038, %%rdi\n\t" \
	"movq 0x6a5c3040, %%r8\n\t" \
	"movq 0x6a5c3048, %%r9\n\t" \
	"movq 0x6a5c3050, %%r10\n\t" \
	"movq 0x6a5c3058, %%r11\n\t" \
	"movq 0x6a5c3060, %%r12\n\t" \
	"movq 0x6a5c3068, %%r13\n\t" \
	"movq 0x6a5c3070, %%r14\n\t" \
	"movq 0x6a5c3078, %%r15\n\t"

static __attribute__((noinline)) void native_enter(bool mode32)
{
	if (mode32)
		__asm__ volatile(CTX_LOAD "ljmpl *0x6a5c3090" ::: "memory");
	else
		__asm__ volatile(CTX_LOAD "jmp *0x6a5c3088" ::: "memory");
	__builtin_unreachable();
}

static void *native_map(unsigned long at, size_t size, int prot)
{
	void *p = mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		       -1, 0);

	if (p != (void *)at) {
		perror("native_map");
		_exit(1);
	}
	return p;
}

static void native_setup(void)
{
	static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
	struct sigaction sa = { .sa_sigaction = native_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	struct rlimit none = { 0, 0 };
	size_t size = 65536;
	stack_t ss = { .ss_size = size };
	uint8_t *data;

	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ss.ss_sp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaltstack(&ss, NULL);
	sigemptyset(&sa.sa_mask);
	for (unsigned n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
		sigaction(signals[n], &sa, NULL);
	native_map(DIFF_CTX, 4096, PROT_READ | PROT_WRITE);
	data = native_map(DIFF_DATA, DIFF_RW_SIZE, PROT_READ | PROT_WRITE);
	data = native_map(DIFF_DATA + DIFF_RO_OFF, 4096, PROT_READ | PROT_WRITE);
	memcpy(data, diff_template + DIFF_RO_OFF, 4096);
	mprotect(data, 4096, PROT_READ);
}

static void native_child(const struct diff_case *c, unsigned first, unsigned n,
			 struct diff_result *out)
{
	uint8_t *data = (uint8_t *)DIFF_DATA, *code, *smc;

	native_setup();
	code = native_map(DIFF_CODE, DIFF_CODE_SIZE, PROT_READ | PROT_WRITE);
	memset(code, 0xcc, DIFF_CODE_SIZE);
	for (unsigned k = 0; k < n; k++)
		if (!c[k].smc)
			memcpy(code + (c[k].in.rip - DIFF_CODE), c[k].code, c[k].len);
	mprotect(code, DIFF_CODE_SIZE, PROT_READ | PROT_EXEC);
	smc = native_map(DIFF_SMC, DIFF_SMC_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
	alarm(60);
	native_out = &out[first];
	diff_timer(native_tick, NATIVE_TICK, SA_ONSTACK | SA_NODEFER);
	/* what goes astray may come to a SYSCALL: that is the end of it */
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
	for (volatile unsigned k = first; k < n; k++) {
		if (c[k].smc) {
			memset(smc, 0xcc, DIFF_SMC_SIZE);
			memcpy(smc + (c[k].in.rip - DIFF_SMC), c[k].code, c[k].len);
		}
		memcpy(data, diff_template, DIFF_RW_SIZE);
		if (c[k].patch_at + c[k].patch_len <= DIFF_RW_SIZE)
			memcpy(data + c[k].patch_at, c[k].patch, c[k].patch_len);
		memcpy(native_ctx->r, c[k].in.r, sizeof(native_ctx->r));
		memcpy(native_ctx->xsave, c[k].in.xsave, DIFF_XSAVE);
		native_ctx->flags = c[k].in.flags;
		native_ctx->rip = c[k].in.rip;
		native_ctx->off32 = (uint32_t)c[k].in.rip;
		native_ctx->cs32 = 0x23;
		native_out = &out[k];
		/* 64-bit code leaves these null; 32-bit code needs them flat. */
		__asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x2b));
		__asm__ volatile("mov %0, %%gs; wrgsbase %1" : : "r"(0), "r"(DIFF_DATA));
		if (!sigsetjmp(native_back, 0))
			native_enter(c[k].mode32);
		/* The signal frame has the guest's FPU state, which is still loaded. */
		__asm__ volatile("cld; fninit");
		__builtin_ia32_ldmxcsr(0x1f80);
		memcpy(out[k].mem, data, DIFF_RW_SIZE);
	}
	syscall(SYS_exit, 0); /* _exit() uses another one */
	__builtin_unreachable();
}

void diff_native(const struct diff_case *c, unsigned n, struct diff_result *out)
{
	unsigned first = 0;

	for (unsigned k = 0; k < n; k++)
		out[k].vec = DIFF_LOST;
	while (first < n) {
		int status;
		pid_t pid;

		fflush(NULL);
		pid = fork();
		if (pid < 0) {
			perror("fork");
			exit(1);
		}
		if (!pid)
			native_child(c, first, n, out);
		waitpid(pid, &status, 0);
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			return;
		if (WIFEXITED(status)) {
			fprintf(stderr, "native: cannot set up\n");
			exit(1);
		}
		/* The case that killed it is the first without a result. */
		while (first < n && out[first].vec != DIFF_LOST)
			first++;
		first++;
	}
}
