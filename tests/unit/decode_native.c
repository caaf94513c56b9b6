/*
 * The decoder and the table against the processor this test runs on: is a sequence of bytes #UD,
 * how long is the instruction, how many bytes of memory does it touch, must they be aligned, and
 * which flags does it change?
 *
 * Each instruction is run in a child, all registers pointing into a scratch area, with INT3 bytes
 * behind it. SIGILL at its first byte is #UD; SIGTRAP behind it tells its length; any other signal
 * means that it exists. Valid ones run again with the memory operand at the end of a page (a byte
 * less must fault), misaligned, and with all arithmetic flags set and clear. Every opcode of every
 * map is tried with each mandatory prefix, LOCK, REX.W, REX.RB, and W, L, pp and vvvv of VEX. What
 * would leave the child (branches, system calls, changes of FS and GS) is left out. Rows whose
 * CPUID feature this processor lacks are left out too, and so are the differences listed in
 * native_known(), each with its reason.
 *
 * Only run on x86-64 hosts; every third sequence is run, with the argument "all" every one.
 */
/* With _GNU_SOURCE <signal.h> declares REG_RAX and so on, which x86/insn.h uses for its own. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <cpuid.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "x86/decode.h"
#include "x86/features.h"

enum { SCRATCH = 1 << 17, CODE = 4096, TEXT = 12, GREG_RIP = 16, GREG_EFL = 17 };

/* What parent and children share; next is the sequence after the one being run. */
struct shared {
	unsigned long next, run, differ;
};

static struct native {
	uint8_t *code, *middle, *edge; /* edge: no page behind it */
	uint8_t *pointer;              /* RBX */
	unsigned long flags_in;
	unsigned long cs;
	enum decode_mode mode;
	volatile unsigned long flags_out;
	struct shared *shared;
	sigjmp_buf back;
	volatile int signal;
	volatile long where; /* RIP relative to code */
	uint8_t seq[16];
	bool have[INSN_FEATURES];
} native; /* file scope: the signal handler and the assembly need it */

static void native_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *c = context;

	native.signal = sig;
	native.flags_out = (unsigned long)c->uc_mcontext.gregs[GREG_EFL];
	native.where = (long)c->uc_mcontext.gregs[GREG_RIP] - (long)native.code;
	siglongjmp(native.back, 1);
}

/*
 * Loads the registers and goes to the code by a far return, as it may be 32-bit code; DS and ES are
 * null in a 64-bit process. Never returns but through native_signal(). All registers are lost.
 */
static __attribute__((noinline)) void native_enter(void)
{
	__asm__ volatile("mov %0, %%rax\n\t"
			 "mov %1, %%rcx\n\t"
			 "mov %2, %%rbx\n\t"
			 "mov %3, %%rdx\n\t"
			 "mov %4, %%rsi\n\t"
			 "mov $0x2b, %%edi\n\tmov %%edi, %%ds\n\tmov %%edi, %%es\n\t"
			 "mov %%rcx, %%rsp\n\tpush %%rsi\n\tpush %%rax\n\tpush %%rdx\n\t"
			 "mov %%rcx, %%rsi\n\tmov %%rcx, %%rdi\n\tmov %%rcx, %%rbp\n\t"
			 "mov %%rcx, %%r8\n\tmov %%rcx, %%r9\n\tmov %%rcx, %%r10\n\t"
			 "mov %%rcx, %%r11\n\tmov %%rcx, %%r12\n\tmov %%rcx, %%r13\n\t"
			 "mov %%rcx, %%r14\n\tmov %%rcx, %%r15\n\t"
			 "mov %%rcx, %%rax\n\tmov %%rcx, %%rdx\n\t"
			 "popf\n\tlretq"
			 :
			 : "m"(native.code), "m"(native.middle), "m"(native.pointer),
			   "m"(native.flags_in), "m"(native.cs)
			 : "memory");
	__builtin_unreachable();
}

static bool native_skip(const struct insn *insn)
{
	const struct insn_info *info = &insn_info[insn->id];

	/* CR4 decides whether these are #UD: OSPKE, SMAP, FSGSBASE. MONITOR: at CPL 3. */
	if (info->attr & A_BRANCH || !native.have[info->feature])
		return true;
	switch (insn->id) {
	case I_WRFSBASE_Ry:
	case I_WRGSBASE_Ry:
	case I_RDFSBASE_Ry:
	case I_RDGSBASE_Ry:
	case I_POP_FS:
	case I_POP_GS:
	case I_LFS_GvMp:
	case I_LGS_GvMp:
	case I_LSS_GvMp:
	case I_MOV_SwEw:
	case I_POPF:
	case I_ENTER:
	case I_XRSTOR:
	case I_VMCALL:
	case I_VMMCALL:
	case I_RDPKRU:
	case I_WRPKRU:
	case I_CLAC:
	case I_STAC:
	case I_MONITOR:
	case I_MWAIT:
	case I_RDPID_Ry:
	case I_UD0:
	case I_POP_ES:
	case I_POP_SS:
	case I_POP_DS:
	case I_LES_GzMp:
	case I_LDS_GzMp: return true;
	default: return insn->flags & (IF_REP | IF_REPNE) && info->attr & A_REP;
	}
}

/* Sequences that insn_decode() refuses although some processors run them. */
static bool native_known(const uint8_t *b)
{
	while (*b == 0x66 || *b == 0xf2 || *b == 0xf3 || *b == 0xf0 ||
	       (native.mode == DECODE_64 && (*b & 0xf0) == 0x40))
		b++;
	/* Features that no vCPU offers: SVM, MONITORX, CLZERO, RDPRU, SEV-SNP, shadow stacks, RTM.
	 */
	if (b[0] == 0x0f && (b[1] == 0x01 || b[1] == 0xae || b[1] == 0xc7 || b[1] == 0x37 ||
			     b[1] == 0x78 || b[1] == 0x79 || b[1] == 0x0d || b[1] == 0xaa))
		return true;
	if (b[0] == 0x0f && b[1] == 0x38 && (b[2] >= 0x80 && b[2] <= 0x82))
		return true; /* INVEPT, INVVPID, INVPCID */
	if (b[0] == 0x0f && b[1] == 0x38 && b[2] >= 0xd8 && b[2] != 0xdb)
		return true; /* key locker, MOVDIR, ENQCMD, shadow stacks */
	if ((b[0] == 0xc6 || b[0] == 0xc7) && b[1] >= 0xf8)
		return true; /* RTM */
	if (b[0] == 0x0f && (b[1] == 0x20 || b[1] == 0x22))
		return true; /* note 5 */
	if (b[0] == 0x0f && (b[1] == 0x0f || b[1] == 0x0e || b[1] == 0xa6 || b[1] == 0xa7))
		return true; /* 3DNow!, PadLock */
	/* LOCK VERW m16 runs on processors whose microcode made VERW clear buffers (AMD Zen 4). */
	if (b[0] == 0x0f && b[1] == 0x00 && b[2] == 0x2b)
		return true;
	if (b[0] != 0xc4)
		return false;
	switch (b[1] & 31) {
	case 1: /* mask registers (AVX-512) */
		return (b[3] >= 0x41 && b[3] <= 0x4b) || (b[3] >= 0x90 && b[3] <= 0x99);
	case 2: /* VNNI, IFMA, NE-CONVERT, AMX, CMPccXADD, SHA512, SM3, SM4 */
		return b[3] == 0xb4 || b[3] == 0xb5 || (b[3] >= 0x49 && b[3] <= 0x6c) ||
		       b[3] == 0x72 || b[3] >= 0xb0;
	default: /* mask registers, note 10, FMA4, SM3 */
		return b[3] <= 1 || (b[3] >= 0x30 && b[3] <= 0x33) || b[3] == 0x48 ||
		       b[3] == 0x49 || b[3] >= 0x5c;
	}
}

/* Run the sequence in place, with RBX and the arithmetic flags as given; sets native.signal. */
static void native_execute(uint8_t *pointer, unsigned long flags)
{
	static const unsigned mxcsr = 0x1f80;

	native.pointer = pointer;
	native.flags_in = 2 | flags;
	memset(native.middle - 64, 0x11, 256);
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
	if (native.have[FEAT_AVX])
		__asm__ volatile("vzeroall");
	if (!sigsetjmp(native.back, 0))
		native_enter();
	__asm__ volatile("cld\n\tfninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

static void native_differ(unsigned long index, const struct insn *insn, const char *what)
{
	native.shared->differ++;
	printf("%lu:", index);
	for (unsigned i = 0; i < TEXT; i++)
		printf(" %02x", native.seq[i]);
	printf(": %s, length %u: %s; processor: signal %d at %ld\n", insn_info[insn->id].name,
	       insn->len, what, native.signal, native.where);
	fflush(stdout);
}

/* The instruction is valid and ran: now its memory operand. */
static void native_memory(unsigned long index, const struct insn *insn)
{
	unsigned size = insn_memory_size(insn);

	/* A bit string may reach anywhere, a masked move or gather touches what it likes. */
	if (!size || insn->base != REG_RBX || insn->id == I_NOP_Ev || insn->id == I_BT_EvGv ||
	    insn->id == I_BTS_EvGv || insn->id == I_BTR_EvGv || insn->id == I_BTC_EvGv ||
	    insn->id == I_CMPXCHG16B ||
	    (insn_info[insn->id].attr & A_AVX && insn_info[insn->id].how == CALL && size > 4))
		return;
	/* Note 2 of insn.def. */
	if (insn->id == I_MOVSXD_GvEd && insn->osize == 2)
		return;
	native_execute(native.edge - size, 0);
	if (native.signal != SIGTRAP)
		native_differ(index, insn, "touches more memory than its row says");
	native_execute(native.edge - size + 1, 0);
	if (native.signal != SIGSEGV)
		native_differ(index, insn, "touches less memory than its row says");
	/* Note 11 of insn.def. */
	if (insn_info[insn->id].feature == FEAT_SHA)
		return;
	native_execute(native.middle + 1, 0);
	if ((native.signal == SIGSEGV) != !!(insn_info[insn->id].attr & A_ALIGN))
		native_differ(index, insn, "alignment");
}

static void native_flags(unsigned long index, const struct insn *insn)
{
	const struct insn_info *info = &insn_info[insn->id];
	unsigned long clear, set, changed;

	/* Its bit may lie where nothing puts it back between the two runs. */
	if (insn->id == I_BTC_EvGv && insn->flags & IF_MEM)
		return;
	native_execute(native.middle, 0);
	clear = native.flags_out & F_ARITH;
	if (native.signal != SIGTRAP)
		return;
	native_execute(native.middle, F_ARITH);
	set = native.flags_out & F_ARITH;
	changed = clear | (set ^ F_ARITH);
	if (changed & ~(unsigned long)info->writes)
		native_differ(index, insn, "changes flags its row does not write");
	if (!(info->reads & F_ARITH) && (clear ^ set) & info->writes & ~info->undef)
		native_differ(index, insn, "flags depend on flags its row does not read");
}

static void native_run(unsigned long index)
{
	struct insn insn;
	enum decode_result r = insn_decode(native.seq, 15, native.mode, false, &insn);
	bool ours = r != DECODE_OK || insn_info[insn.id].attr & A_UD, theirs;

	if (r == DECODE_OK ? native_skip(&insn) : native_known(native.seq))
		return;
	memset(native.code, 0xcc, 64);
	memcpy(native.code, native.seq, r == DECODE_OK ? insn.len : 15);
	__builtin___clear_cache((char *)native.code, (char *)native.code + 64);
	native.shared->run++;
	native_execute(native.middle, 0);
	theirs = native.signal == SIGILL && native.where == 0;
	if (theirs != ours)
		native_differ(index, &insn, ours ? "should be #UD" : "should be valid");
	else if (!ours && native.signal == SIGTRAP && native.where != insn.len + 1)
		native_differ(index, &insn, "wrong length");
	else if (!ours && native.signal == SIGTRAP) {
		native_memory(index, &insn);
		native_flags(index, &insn);
	}
}

static bool native_legacy(unsigned prefix, unsigned rex, unsigned map, unsigned op, unsigned modrm)
{
	static const uint8_t prefixes[] = { 0, 0x66, 0xf3, 0xf2, 0xf0 },
			     rexes[] = { 0, 0x48, 0x45 };
	static const uint8_t tail[] = { 0x24, 0x10, 0x20, 0x30 };
	unsigned n = 0;

	/* Prefixes and escapes, EVEX, XOP; SYSCALL and SYSENTER in their unrecognised forms. */
	if (!map && (op == 0x0f || (op & 0xe7) == 0x26 || (op >= 0x64 && op < 0x68) || op == 0xf0 ||
		     op == 0xf2 || op == 0xf3 || op == 0x62 || op == 0xc4 || op == 0xc5 ||
		     op == 0x8f || (native.mode == DECODE_64 && (op & 0xf0) == 0x40)))
		return false;
	if (map == 1 && (op == 0x38 || op == 0x3a || op == 0x05 || op == 0x34))
		return false;
	memset(native.seq, 0, sizeof(native.seq));
	if (prefixes[prefix])
		native.seq[n++] = prefixes[prefix];
	if (rexes[rex] && native.mode != DECODE_64)
		return false;
	if (rexes[rex])
		native.seq[n++] = rexes[rex];
	if (map)
		native.seq[n++] = 0x0f;
	if (map > 1)
		native.seq[n++] = map == 2 ? 0x38 : 0x3a;
	native.seq[n++] = (uint8_t)op;
	native.seq[n++] = (uint8_t)modrm;
	memcpy(native.seq + n, tail, sizeof(tail));
	return true;
}

/* Set native.seq to sequence number i. False: not one to run, or (*end) none left. */
static bool native_sequence(unsigned long i, bool *end)
{
	/* ModRM: each reg with [rbx] and with a register, then every register form. */
	unsigned long legacy = 5ul * 3 * 4 * 256 * 80, vex = 3ul * 256 * 4 * 4 * 2 * 16;
	unsigned modrm, map, op;

	*end = i >= legacy + vex;
	if (i < legacy) {
		modrm = i % 80;
		op = i / 80 % 256;
		map = i / 80 / 256 % 4;
		/* All register forms only where they are told apart. */
		if (modrm >= 16 && !((map == 0 && op >= 0xd8 && op < 0xe0) ||
				     (map == 1 && (op == 1 || op == 0x1e || op == 0xae))))
			return false;
		modrm = modrm >= 16 ? 0xc0 + modrm - 16
				    : (modrm & 7) << 3 | (modrm & 8 ? 0xc1 : 0x03);
		return native_legacy((unsigned)(i / 80 / 256 / 4 % 5),
				     (unsigned)(i / 80 / 256 / 20), map, op, modrm);
	}
	if (*end)
		return false;
	i -= legacy;
	memset(native.seq, 0, sizeof(native.seq));
	native.seq[0] = 0xc4;
	native.seq[1] = (uint8_t)(0xe1 + i / 256 / 512);
	native.seq[2] = (uint8_t)((i / 256 & 3) | (i / 1024 & 1) << 2 | (i / 2048 & 1) << 7 |
				  (i / 4096 & 1 ? 10 : 15) << 3);
	native.seq[3] = (uint8_t)i;
	native.seq[4] = (uint8_t)((i / 8192 & 7) << 3 | (i / 65536 & 1 ? 0xc1 : 0x03));
	native.seq[5] = 0x24;
	return true;
}

static void native_child(unsigned step)
{
	static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGALRM, SIGSYS };
	struct sigaction sa = { .sa_sigaction = native_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	stack_t stack = { .ss_size = 1 << 16, .ss_sp = malloc(1 << 16) };
	bool end = false;

	sigaltstack(&stack, NULL);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
	/* A host without 32-bit code segments cannot take that part. */
	memset(native.code, 0xcc, 64);
	native_execute(native.middle, 0);
	if (native.signal != SIGTRAP || native.where != 1) {
		printf("no code segment 0x%lx: skipped\n", native.cs);
		_exit(0);
	}
	while (!end) {
		unsigned long i = native.shared->next;

		native.shared->next += step;
		alarm(10);
		if (native_sequence(i, &end))
			native_run(i);
	}
	_exit(0);
}

static void native_features(void)
{
	native.have[BASE] = true;
	for (unsigned f = 1; f < INSN_FEATURES; f++) {
		unsigned r[4];

		native.have[f] =
			__get_cpuid_count(insn_feature_bit[f].leaf, insn_feature_bit[f].subleaf,
					  &r[0], &r[1], &r[2], &r[3]) &&
			r[insn_feature_bit[f].reg] >> insn_feature_bit[f].bit & 1;
	}
}

static void *native_map(size_t size, int prot, int flags)
{
	void *p = mmap(NULL, size, prot, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	unsigned step = argc > 1 && !strcmp(argv[1], "all") ? 1 : 3, dead = 0;
	int status;

	native.code = native_map(CODE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_32BIT);
	native.middle = (uint8_t *)native_map(SCRATCH + CODE, PROT_READ | PROT_WRITE,
					      MAP_PRIVATE | MAP_32BIT) +
			SCRATCH / 2;
	native.edge = native.middle + SCRATCH / 2;
	if (mprotect(native.edge, CODE, PROT_NONE)) {
		perror("mprotect");
		return 1;
	}
	native.shared = native_map(sizeof(*native.shared), PROT_READ | PROT_WRITE, MAP_SHARED);
	native_features();
	for (unsigned m = 0; m < 2; m++) {
		native.mode = m ? DECODE_32 : DECODE_64;
		native.cs = m ? 0x23 : 0x33; /* Linux's user code segments */
		native.shared->next = 0;
		/* A child that an instruction killed is replaced, and goes on behind that one. */
		do {
			pid_t pid = fork();

			if (pid < 0) {
				perror("fork");
				return 1;
			}
			if (!pid)
				native_child(step);
			if (waitpid(pid, &status, 0) != pid)
				return 1;
		} while (status && ++dead < 1000);
	}
	printf("%lu sequences, %lu differences, %u children lost\n", native.shared->run,
	       native.shared->differ, dead);
	return native.shared->differ || native.shared->run < 50000 || dead > 20;
}
