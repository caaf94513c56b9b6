/*
 * Guest instructions per second: bare loops through libkvm, one vCPU, no kernel.
 *
 *     mips [-accel kvm|soft|auto] [-interp] [-bits 64|32|16] [-ms MILLISECONDS]
 *
 * Each loop is entered with a count in rcx and ends in OUT; the count is chosen so that a run takes
 * about the given time, and the best of three runs is printed as millions of instructions a second,
 * next to the same code called as a function of this program (so without the guest's page walks).
 * With -bits 32 they are 32-bit loops in flat segments (compatibility mode, the same page tables),
 * with -bits 16 loops in real mode as firmware has them; neither is run natively.
 *
 * References: libkvm.h. Threads: main's. Time: CLOCK_MONOTONIC.
 */
#include <errno.h>
#include <libkvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MIPS_PAGE      4096u
#define MIPS_RAM       (4u << 20)
#define MIPS_CODE      0x10000u
#define MIPS_DATA      0x100000u
#define MIPS_DATA_SIZE 65536u
#define MIPS_STACK     0x80000u

/*
 * A loop is code that runs rcx times, with rsi at 64 KiB of data. It may change rax, rdx, rdi,
 * r8 to r11 and xmm0 to xmm7. insns counts one turn. Position-independent.
 */
struct mips_loop {
	const char *name;
	const uint8_t *from, *to;
	unsigned insns;
};

/* clang-format off */
#define MIPS_LOOP(id, body) \
	__asm__(".pushsection .rodata\n" #id "_from:\n" body "\n\tret\n" #id "_to:\n.popsection\n"); \
	extern const uint8_t id##_from[], id##_to[]

MIPS_LOOP(mips_int, "1: add $3, %rax\n xor %rax, %rdx\n lea 5(%rax,%rdx,2), %r8\n shr $3, %r8\n"
	  " sub %r8, %rdx\n rol $7, %rax\n cmp %rdx, %rax\n cmovb %r8, %rax\n dec %rcx\n jnz 1b");
MIPS_LOOP(mips_mem, "1: mov (%rsi), %rax\n add 64(%rsi), %rax\n mov %rax, 4096(%rsi)\n"
	  " movzbl 8192(%rsi), %edx\n add %rdx, 128(%rsi)\n mov 12288(%rsi), %r8d\n"
	  " mov %r8, 192(%rsi)\n dec %rcx\n jnz 1b");
MIPS_LOOP(mips_call, "1: call 2f\n call 2f\n dec %rcx\n jnz 1b\n jmp 3f\n"
	  "2: push %rdx\n inc %rdx\n pop %rdx\n ret\n3:");
MIPS_LOOP(mips_branch, "1: test $1, %cl\n jz 2f\n inc %rax\n2: test $2, %cl\n jnz 3f\n inc %rax\n"
	  "3: test $4, %cl\n jz 4f\n inc %rax\n4: dec %rcx\n jnz 1b");
MIPS_LOOP(mips_indirect, "lea 2f(%rip), %r8\n lea 3f(%rip), %r9\n"
	  "1: mov %r8, %r10\n test $1, %cl\n cmovz %r9, %r10\n jmp *%r10\n"
	  "2: inc %rax\n jmp 4f\n3: inc %rdx\n jmp 4f\n4: dec %rcx\n jnz 1b");
MIPS_LOOP(mips_sse, "1: movaps (%rsi), %xmm0\n paddd 16(%rsi), %xmm0\n pxor %xmm0, %xmm1\n"
	  " pshufd $0x1b, %xmm1, %xmm2\n movaps %xmm2, 4096(%rsi)\n mulpd %xmm3, %xmm4\n"
	  " addpd %xmm3, %xmm4\n dec %rcx\n jnz 1b");
MIPS_LOOP(mips_x87, "1: fld1\n fldpi\n faddp\n fmuls (%rsi)\n fstpl 4096(%rsi)\n dec %rcx\n jnz 1b");
MIPS_LOOP(mips_atomic, "1: lock incq (%rsi)\n mov $1, %eax\n lock xadd %rax, 64(%rsi)\n"
	  " xchg %rax, 128(%rsi)\n dec %rcx\n jnz 1b");
MIPS_LOOP(mips_muldiv, "1: lea 12345(%rcx), %rax\n imul %rcx, %rax\n mul %rcx\n xor %edx, %edx\n"
	  " mov $77, %r8d\n div %r8\n dec %rcx\n jnz 1b");

#define MIPS_LOOP32(id, body) \
	__asm__(".pushsection .rodata\n.code32\n" #id "_from:\n" body "\n\tret\n" #id \
		"_to:\n.code64\n.popsection\n"); \
	extern const uint8_t id##_from[], id##_to[]

MIPS_LOOP32(mips32_int, "1: add $3, %eax\n xor %eax, %edx\n lea 5(%eax,%edx,2), %ebx\n"
	    " shr $3, %ebx\n sub %ebx, %edx\n rol $7, %eax\n cmp %edx, %eax\n cmovb %ebx, %eax\n"
	    " dec %ecx\n jnz 1b");
MIPS_LOOP32(mips32_mem, "1: mov (%esi), %eax\n add 64(%esi), %eax\n mov %eax, 4096(%esi)\n"
	    " movzbl 8192(%esi), %edx\n add %edx, 128(%esi)\n mov 12288(%esi), %ebx\n"
	    " mov %ebx, 192(%esi)\n dec %ecx\n jnz 1b");
MIPS_LOOP32(mips32_call, "1: push $5\n push 64(%esi)\n call 2f\n add $8, %esp\n dec %ecx\n"
	    " jnz 1b\n jmp 3f\n2: push %ebp\n mov %esp, %ebp\n mov 8(%ebp), %eax\n"
	    " add 12(%ebp), %eax\n leave\n ret\n3:");
MIPS_LOOP32(mips32_branch, "1: test $1, %cl\n jz 2f\n inc %eax\n2: test $2, %cl\n jnz 3f\n"
	    " inc %eax\n3: test $4, %cl\n jz 4f\n inc %eax\n4: dec %ecx\n jnz 1b");
MIPS_LOOP32(mips32_bytes, "1: mov (%esi), %eax\n movzbl %ah, %edx\n mov %dl, %dh\n"
	    " xor %ah, %bl\n mov %dh, 4(%esi)\n add %al, %ah\n dec %ecx\n jnz 1b");
MIPS_LOOP32(mips32_sse, "1: movaps (%esi), %xmm0\n paddd 16(%esi), %xmm0\n pxor %xmm0, %xmm1\n"
	    " pshufd $0x1b, %xmm1, %xmm2\n movaps %xmm2, 4096(%esi)\n mulpd %xmm3, %xmm4\n"
	    " addpd %xmm3, %xmm4\n dec %ecx\n jnz 1b");
MIPS_LOOP32(mips32_x87, "1: fld1\n fldpi\n faddp\n fmuls (%esi)\n fstpl 4096(%esi)\n"
	    " dec %ecx\n jnz 1b");

/* Real mode: ecx is the count, si leads to data in the segment of the code. */
#define MIPS_LOOP16(id, body) \
	__asm__(".pushsection .rodata\n.code16\n" #id "_from:\n" body "\n\tret\n" #id \
		"_to:\n.code64\n.popsection\n"); \
	extern const uint8_t id##_from[], id##_to[]

MIPS_LOOP16(mips16_int, "1: add $3, %ax\n xor %ax, %dx\n mov %ax, %bx\n shr $3, %bx\n"
	    " sub %bx, %dx\n rol $7, %ax\n cmp %dx, %ax\n dec %ecx\n jnz 1b");
MIPS_LOOP16(mips16_mem, "1: mov (%si), %ax\n add 64(%si), %ax\n mov %ax, %es:96(%si)\n"
	    " addl $1, 128(%si)\n movzbl 64(%esi), %edx\n mov %dx, 192(%si)\n dec %ecx\n jnz 1b");
/* As gcc -m16 makes it: 32-bit operands and addresses everywhere. */
MIPS_LOOP16(mips16_call, "1: pushl $5\n pushl 64(%esi)\n calll 2f\n addl $8, %esp\n dec %ecx\n"
	    " jnz 1b\n jmp 3f\n2: pushl %ebp\n movl %esp, %ebp\n movl 8(%ebp), %eax\n"
	    " addl 12(%ebp), %eax\n popl %ebp\n retl\n3:");

#define MIPS_ROW(text, id, n) { text, id##_from, id##_to, n }
static const struct mips_loop mips_loops[] = {
	MIPS_ROW("integer", mips_int, 10),
	MIPS_ROW("memory", mips_mem, 9),
	MIPS_ROW("call and return", mips_call, 12),
	MIPS_ROW("branches", mips_branch, 9), /* 8, and on average 1.5 of the increments */
	MIPS_ROW("indirect jumps", mips_indirect, 8),
	MIPS_ROW("SSE", mips_sse, 9),
	MIPS_ROW("x87", mips_x87, 7),
	MIPS_ROW("locked", mips_atomic, 6),
	MIPS_ROW("multiply, divide", mips_muldiv, 8),
}, mips_loops32[] = {
	MIPS_ROW("integer", mips32_int, 10),
	MIPS_ROW("memory", mips32_mem, 9),
	MIPS_ROW("call, arguments", mips32_call, 12),
	MIPS_ROW("branches", mips32_branch, 9),
	MIPS_ROW("high bytes", mips32_bytes, 8),
	MIPS_ROW("SSE", mips32_sse, 9),
	MIPS_ROW("x87", mips32_x87, 7),
}, mips_loops16[] = {
	MIPS_ROW("integer", mips16_int, 9),
	MIPS_ROW("memory", mips16_mem, 8),
	MIPS_ROW("call, arguments", mips16_call, 12),
};
/* clang-format on */
#define MIPS_LEN(a) (sizeof(a) / sizeof((a)[0]))

struct mips_vm {
	struct libkvm *k;
	struct libkvm_vm *vm;
	struct libkvm_vcpu *cpu;
	uint8_t *ram;
	unsigned bits; /* 64, 32, 16 */
};

static double mips_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

__attribute__((noreturn)) static void mips_die(const char *what, const char *why)
{
	fprintf(stderr, "mips: %s: %s\n", what, why);
	exit(1);
}

static void mips_check(const char *what, int r)
{
	if (r < 0)
		mips_die(what, strerror(-r));
}

/* Long mode at privilege 0, the first 4 MiB mapped by 4-KiB pages (1 GiB by larger is rarer). */
static void mips_long_mode(struct mips_vm *m)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = code;
	struct kvm_cpuid2 *cpuid;
	struct kvm_sregs s;
	uint64_t *p = (uint64_t *)m->ram;

	p[0x2000 / 8] = 0x3003;
	p[0x3000 / 8] = 0x4003;
	p[0x4000 / 8] = 0x5003;
	p[0x4008 / 8] = 0x6003;
	for (uint64_t i = 0; i < 1024; i++)
		p[0x5000 / 8 + i] = i << 12 | 3;
	mips_check("KVM_GET_SUPPORTED_CPUID", libkvm_supported_cpuid(m->k, &cpuid));
	mips_check("KVM_SET_CPUID2", libkvm_set_cpuid(m->cpu, cpuid));
	free(cpuid);
	data.selector = 16;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	mips_check("KVM_GET_SREGS", libkvm_get_sregs(m->cpu, &s));
	s.cr3 = 0x2000;
	s.cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
	s.cr0 = 0x80000033;
	s.efer = 0x500;
	if (m->bits == 32) {
		code.l = 0;
		code.db = 1;
	}
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	mips_check("KVM_SET_SREGS", libkvm_set_sregs(m->cpu, &s));
}

/* Segments of 64 KiB at the code, which the stack and the data are in as well. */
static void mips_real_mode(struct mips_vm *m)
{
	struct kvm_sregs s;

	mips_check("KVM_GET_SREGS", libkvm_get_sregs(m->cpu, &s));
	s.cs.base = MIPS_CODE;
	s.cs.selector = MIPS_CODE >> 4;
	s.ds = s.es = s.ss = s.cs;
	s.ds.type = s.es.type = s.ss.type = 3;
	mips_check("KVM_SET_SREGS", libkvm_set_sregs(m->cpu, &s));
}

static void mips_open(struct mips_vm *m, const struct libkvm_options *opt)
{
	struct libkvm_err e = { 0 };

	if (libkvm_open(opt, &m->k, &e) || libkvm_vm_create(m->k, &m->vm, &e) ||
	    libkvm_vcpu_create(m->vm, 0, &m->cpu, &e))
		mips_die("open", e.msg);
	m->ram = mmap(NULL, MIPS_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m->ram == MAP_FAILED)
		mips_die("mmap", strerror(errno));
	mips_check("memory", libkvm_mem_add(m->vm, 0, MIPS_RAM, m->ram, 0));
	if (m->bits == 16)
		mips_real_mode(m);
	else
		mips_long_mode(m);
}

static enum libkvm_next mips_pio(void *opaque, struct libkvm_vcpu *c, uint16_t port, void *data,
				 unsigned size, unsigned count, bool is_write)
{
	*(bool *)opaque = true;
	return LIBKVM_STOP;
}

/* Seconds that n turns take in the guest. */
static double mips_guest(struct mips_vm *m, const struct mips_loop *l, uint64_t n)
{
	static const struct libkvm_callbacks cb = { .pio = mips_pio };
	struct kvm_regs r = {
		.rip = MIPS_CODE, .rsp = MIPS_STACK, .rflags = 2, .rcx = n, .rsi = MIPS_DATA
	};
	bool done = false;
	double t;

	/* call 1f; out; 1: the loop */
	static const uint8_t entry[] = { 0xe8, 2, 0, 0, 0, 0xe6, 0x80 };
	static const uint8_t entry16[] = { 0x90, 0x90, 0xe8, 2, 0, 0xe6, 0x80 };

	memset(m->ram + MIPS_DATA, 0, MIPS_DATA_SIZE); /* no denormals left by another loop */
	if (m->bits == 16) {
		r.rip = 0;
		r.rsp = 0xf000;
		r.rsi = 0x4000;
	}
	memcpy(m->ram + MIPS_CODE, m->bits == 16 ? entry16 : entry, sizeof(entry));
	memcpy(m->ram + MIPS_CODE + sizeof(entry), l->from, (size_t)(l->to - l->from));
	libkvm_mem_written(m->vm, MIPS_CODE, MIPS_PAGE);
	mips_check("KVM_SET_REGS", libkvm_set_regs(m->cpu, &r));
	t = mips_now();
	mips_check("KVM_RUN", libkvm_vcpu_loop(m->cpu, &cb, &done));
	t = mips_now() - t;
	mips_check("KVM_GET_REGS", libkvm_get_regs(m->cpu, &r));
	if (r.rcx || !done)
		mips_die(l->name, "the guest did not finish");
	return t;
}

/* The same on the host. */
static double mips_native(void *code, void *data, const struct mips_loop *l, uint64_t n)
{
	double t;

	memset(data, 0, MIPS_DATA_SIZE);
	memcpy(code, l->from, (size_t)(l->to - l->from));
	t = mips_now();
	/* the callee pushes: keep clear of the red zone */
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tcall *%2\n\tlea 128(%%rsp), %%rsp"
			 : "+c"(n), "+S"(data)
			 : "b"(code)
			 : "rax", "rdx", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2",
			   "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "memory", "cc");
	return mips_now() - t;
}

int main(int argc, char **argv)
{
	struct libkvm_options opt = { .engine = LIBKVM_SOFT };
	const struct mips_loop *loops;
	double seconds = 0.2, product = 1;
	struct mips_vm m = { .bits = 64 };
	size_t nloops;
	void *code, *data;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-interp"))
			opt.no_jit = true;
		else if (!strcmp(argv[i], "-accel") && i + 1 < argc && !strcmp(argv[i + 1], "kvm"))
			opt.engine = LIBKVM_HOST, i++;
		else if (!strcmp(argv[i], "-accel") && i + 1 < argc && !strcmp(argv[i + 1], "auto"))
			opt.engine = LIBKVM_AUTO, i++;
		else if (!strcmp(argv[i], "-accel") && i + 1 < argc && !strcmp(argv[i + 1], "soft"))
			i++;
		else if (!strcmp(argv[i], "-bits") && i + 1 < argc)
			m.bits = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "-ms") && i + 1 < argc && atoi(argv[i + 1]) > 0)
			seconds = atoi(argv[++i]) / 1000.0;
		else
			mips_die("usage", "mips [-accel kvm|soft|auto] [-interp] [-bits 64|32|16] "
					  "[-ms N]");
	}
	loops = m.bits == 64 ? mips_loops : m.bits == 32 ? mips_loops32 : mips_loops16;
	nloops = m.bits == 64   ? MIPS_LEN(mips_loops)
		 : m.bits == 32 ? MIPS_LEN(mips_loops32)
				: MIPS_LEN(mips_loops16);
	setvbuf(stdout, NULL, _IOLBF, 0);
	mips_open(&m, &opt);
	code = mmap(NULL, MIPS_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	data = mmap(NULL, MIPS_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (code == MAP_FAILED || data == MAP_FAILED)
		mips_die("mmap", strerror(errno));
	printf("engine: %s%s (%s)\n\n", libkvm_engine_kind(m.k) == LIBKVM_HOST ? "kvm" : "soft",
	       opt.no_jit ? ", interpreter only" : "", libkvm_engine_reason(m.k));
	printf("| loop             | guest, M insn/s | native, M insn/s | slowdown |\n"
	       "|------------------|----------------:|-----------------:|---------:|\n");
	for (unsigned i = 0; i < nloops; i++) {
		const struct mips_loop *l = &loops[i];
		double guest = 1e9, native = 1e9, t;
		uint64_t n = 20000;

		while ((t = mips_guest(&m, l, n)) < seconds / 4)
			n *= 3;
		n = (uint64_t)((double)n * seconds / t) + 1;
		for (int run = 0; run < 3; run++) {
			double g = mips_guest(&m, l, n), h;

			guest = g < guest ? g : guest;
			if (m.bits != 64)
				continue;
			h = mips_native(code, data, l, n);
			native = h < native ? h : native;
		}
		if (m.bits != 64) {
			printf("| %-16s | %15.0f |                  |          |\n", l->name,
			       (double)n * l->insns / guest * 1e-6);
			continue;
		}
		printf("| %-16s | %15.0f | %16.0f | %8.1f |\n", l->name,
		       (double)n * l->insns / guest * 1e-6, (double)n * l->insns / native * 1e-6,
		       guest / native);
		product *= guest / native;
	}
	/* the root by bisection: no need for libm */
	if (m.bits == 64) {
		double lo = 0, hi = 1e6;

		for (int k = 0; k < 200; k++) {
			double mid = (lo + hi) / 2, p = 1;

			for (unsigned i = 0; i < nloops; i++)
				p *= mid;
			*(p < product ? &lo : &hi) = mid;
		}
		printf("| geometric mean   |                 |                  | %8.1f |\n", lo);
	}
	libkvm_vcpu_close(m.cpu);
	libkvm_vm_close(m.vm);
	libkvm_close(m.k);
	return 0;
}
