/*
 * Host thunks and the x87/SSE state: instructions run on the host against values worked out by
 * hand.
 *
 * The MMU and the run loop are replaced by a flat 64-KiB memory and a longjmp, so that only the
 * thunks and exec_host are under test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/thunk.h"

/* <sys/wait.h> includes <signal.h>, whose REG_RAX is another one. */
pid_t waitpid(pid_t pid, int *status, int options);

static struct vcpu *v;
static uint8_t mem[65536] __attribute__((aligned(4096)));
static unsigned buffered; /* accesses that went through mmu_read or mmu_write */

/* ---- What the thunks call ------------------------------------------------------------------- */

__attribute__((noreturn)) void vcpu_throw(struct vcpu *cpu, unsigned vec)
{
	siglongjmp(cpu->unwind, (int)vec + 1);
}

__attribute__((noreturn)) void vcpu_throw_error(struct vcpu *cpu, unsigned vec, uint32_t error)
{
	siglongjmp(cpu->unwind, (int)vec + 1);
}

gva_t mmu_segment_slow(struct vcpu *cpu, unsigned seg, uint64_t off, unsigned size, unsigned acc)
{
	vcpu_throw(cpu, VEC_GP);
}

void mmu_read(struct vcpu *cpu, gva_t la, void *buf, unsigned len, unsigned acc)
{
	buffered++;
	memcpy(buf, mem + la, len);
}

void mmu_write(struct vcpu *cpu, gva_t la, const void *buf, unsigned len, unsigned acc)
{
	buffered++;
	memcpy(mem + la, buf, len);
}

void mmu_probe(struct vcpu *cpu, gva_t la, unsigned len, unsigned acc)
{
}

uint64_t mmu_slow_load(struct vcpu *cpu, gva_t la, unsigned size, unsigned acc)
{
	uint64_t x = 0;

	memcpy(&x, mem + la, size);
	return x;
}

void mmu_slow_store(struct vcpu *cpu, gva_t la, uint64_t val, unsigned size, unsigned acc)
{
	memcpy(mem + la, &val, size);
}

void mmu_flush_all(struct vcpu *cpu)
{
}

/* ---- Helpers -------------------------------------------------------------------------------- */

static int setup(void **state)
{
	v = aligned_alloc(64, (sizeof(*v) + 63) & ~(size_t)63);
	memset(v, 0, sizeof(*v));
	fpu_reset(v);
	v->mode = DECODE_64;
	v->long64 = true;
	v->tlb = v->tlbs[TLB_USER];
	for (unsigned n = 0; n < TLB_SIZE; n++)
		v->tlb[n].rtag = v->tlb[n].wtag = TLB_EMPTY;
	/* Page 1 is in the TLB, the others are not. */
	v->tlb[1].rtag = v->tlb[1].wtag = 0x1000;
	v->tlb[1].addend = (uintptr_t)mem;
	v->xcr0 = 7;
	v->cr4 = CR4_OSFXSR | CR4_OSXSAVE | CR4_OSXMMEXCPT;
	buffered = 0;
	return 0;
}

static int teardown(void **state)
{
	free(v);
	host_thunk_set_full(false);
	return 0;
}

/* Run one instruction. Returns 0 or the vector that it raised. */
static int run(const char *bytes, size_t n)
{
	struct insn i;
	int vec = sigsetjmp(v->unwind, 0);

	if (vec)
		return vec - 1 ? vec - 1 : -1;
	assert_int_equal(insn_decode((const uint8_t *)bytes, n, DECODE_64, false, &i), DECODE_OK);
	assert_int_equal(i.len, n);
	assert_int_equal(insn_info[i.id].how, HOST);
	v->insn_rip = 0x12345678;
	exec_host(v, &i);
	return 0;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

static void set_xmm(unsigned n, uint64_t lo, uint64_t hi)
{
	memcpy(v->xsave + FX_XMM + 16 * n, &lo, 8);
	memcpy(v->xsave + FX_XMM + 16 * n + 8, &hi, 8);
}

static uint64_t get_xmm(unsigned n, unsigned half)
{
	uint64_t x;

	memcpy(&x, v->xsave + FX_XMM + 16 * n + 8 * half, 8);
	return x;
}

static uint64_t get_ymmh(unsigned n)
{
	uint64_t x;

	memcpy(&x, v->xsave + XS_YMMH + 16 * n, 8);
	return x;
}

static bool lacks(enum insn_feature f)
{
	return !host_has_feature(f);
}

/* ---- Tests ---------------------------------------------------------------------------------- */

__attribute__((target("sse4.2"))) static void test_integer(void **state)
{
	v->r[REG_R9] = 0xff00ff;
	v->r[REG_R13] = ~0ull;
	v->fl = FL_C | FL_O;
	assert_int_equal(RUN("\xf3\x45\x0f\xb8\xe9"), 0); /* popcnt r13d, r9d */
	assert_int_equal(v->r[REG_R13], 16);
	assert_int_equal(v->fl & (FL_C | FL_O | FL_Z | FL_S), 0);
	v->r[REG_R13] = ~0ull;
	assert_int_equal(RUN("\xf3\x66\x45\x0f\xb8\xe9"), 0); /* popcnt r13w, r9w */
	assert_int_equal(v->r[REG_R13], 0xffffffffffff0008);

	v->r[REG_RAX] = 0x1234; /* AH = 0x12: one byte register that needs no REX */
	v->r[REG_RDX] = 0;
	assert_int_equal(RUN("\xf2\x0f\x38\xf0\xd4"), 0); /* crc32 edx, ah */
	assert_int_equal(v->r[REG_RDX], __builtin_ia32_crc32qi(0, 0x12));
}

static void test_adx(void **state)
{
	if (lacks(FEAT_ADX))
		skip();
	v->r[REG_RBX] = ~0ull;
	v->r[REG_RSI] = 0;
	v->fl = FL_C | FL_Z | FL_O;
	assert_int_equal(RUN("\x66\x48\x0f\x38\xf6\xde"), 0); /* adcx rbx, rsi */
	assert_int_equal(v->r[REG_RBX], 0);
	assert_int_equal(v->fl & (FL_C | FL_Z | FL_O), FL_C | FL_Z | FL_O);
	assert_int_equal(RUN("\xf3\x48\x0f\x38\xf6\xde"), 0); /* adox rbx, rsi */
	assert_int_equal(v->r[REG_RBX], 1);
	assert_int_equal(v->fl & (FL_C | FL_Z | FL_O), FL_C | FL_Z);
}

static void test_mulx(void **state)
{
	if (lacks(FEAT_BMI2))
		skip();
	v->r[REG_RDX] = 1ull << 63;
	v->r[REG_RSI] = 6;
	assert_int_equal(RUN("\xc4\xe2\xe3\xf6\xc6"), 0); /* mulx rax, rbx, rsi */
	assert_int_equal(v->r[REG_RAX], 3);
	assert_int_equal(v->r[REG_RBX], 0);
	v->r[REG_RSI] = 7;
	assert_int_equal(RUN("\xc4\xe2\xe3\xf6\xde"), 0); /* mulx rbx, rbx, rsi: high half wins */
	assert_int_equal(v->r[REG_RBX], 3);
}

static void test_sse_merge(void **state)
{
	set_xmm(3, 0x4000000040000000, 0x1111111111111111);
	set_xmm(11, 0x3f8000003f800000, 0x2222222222222222);
	v->xsave[XS_YMMH + 16 * 3] = 0x77;
	assert_int_equal(RUN("\xf3\x41\x0f\x58\xdb"), 0); /* addss xmm3, xmm11: 2 + 1 */
	assert_int_equal(get_xmm(3, 0), 0x4000000040400000);
	assert_int_equal(get_xmm(3, 1), 0x1111111111111111);
	assert_int_equal(get_ymmh(3), 0x77); /* legacy forms keep the upper half */
}

static void test_avx(void **state)
{
	if (lacks(FEAT_AVX2))
		skip();
	set_xmm(4, 1, 2);
	v->xsave[XS_YMMH + 16 * 4] = 3;
	set_xmm(5, 10, 20);
	v->xsave[XS_YMMH + 16 * 5] = 30;
	assert_int_equal(RUN("\xc5\x5d\xd4\xcd"), 0); /* vpaddq ymm9, ymm4, ymm5 */
	assert_int_equal(get_xmm(9, 0), 11);
	assert_int_equal(get_xmm(9, 1), 22);
	assert_int_equal(get_ymmh(9), 33);
	assert_int_equal(RUN("\xc5\x59\xd4\xcd"), 0); /* vpaddq xmm9, xmm4, xmm5 */
	assert_int_equal(get_ymmh(9), 0);
	v->fl = 0;
	assert_int_equal(RUN("\xc4\xe2\x79\x17\xe5"), 0); /* vptest xmm4, xmm5: no destination */
	assert_int_equal(get_ymmh(4), 3);
	assert_int_equal(v->fl & FL_Z, FL_Z);
}

static void test_mxcsr(void **state)
{
	uint32_t host = __builtin_ia32_stmxcsr();

	set_xmm(0, 0x3ff0000000000000, 0);
	set_xmm(1, 0x4008000000000000, 0);
	assert_int_equal(RUN("\xf2\x0f\x5e\xc1"), 0); /* divsd xmm0, xmm1: 1/3 is inexact */
	assert_int_equal(get_xmm(0, 0), 0x3fd5555555555555);
	assert_int_equal(fpu_mxcsr(v), 0x1fa0);
	set_xmm(0, 0x3ff0000000000000, 0);
	fpu_set_mxcsr(v, 0x5f80); /* round up */
	assert_int_equal(RUN("\xf2\x0f\x5e\xc1"), 0);
	assert_int_equal(get_xmm(0, 0), 0x3fd5555555555556);
	assert_int_equal(__builtin_ia32_stmxcsr(), host);
}

/*
 * cmocka takes SIGFPE for itself while a test runs, as it would hide one of ours: this part runs
 * before, test_unmasked looks at what it saw.
 */
static struct {
	int xm, ud;
	uint64_t dest;
	uint32_t mxcsr, host_before, host_after;
} unmasked[2];

static void unmasked_run(void)
{
	for (unsigned full = 0; full < 2; full++) {
		/* divpd xmm8, xmm1 and divpd xmm9, xmm1; both lanes divide by 0 */
		const char *code = full ? "\x66\x44\x0f\x5e\xc9" : "\x66\x44\x0f\x5e\xc1";

		setup(NULL);
		host_thunk_set_full(full);
		set_xmm(8 + full, 0x3ff0000000000000, 5);
		fpu_set_mxcsr(v, 0x1f80 & ~0x200u); /* divide by zero unmasked */
		unmasked[full].host_before = __builtin_ia32_stmxcsr();
		unmasked[full].xm = run(code, 5);
		unmasked[full].dest = get_xmm(8 + full, 0);
		unmasked[full].mxcsr = fpu_mxcsr(v);
		v->cr4 &= ~CR4_OSXMMEXCPT;
		unmasked[full].ud = run(code, 5);
		unmasked[full].host_after = __builtin_ia32_stmxcsr();
		teardown(NULL);
	}
}

static void test_unmasked(void **state)
{
	for (unsigned full = 0; full < 2; full++) {
		assert_int_equal(unmasked[full].xm, VEC_XM);
		assert_int_equal(unmasked[full].ud, VEC_UD);
		assert_int_equal(unmasked[full].dest, 0x3ff0000000000000);
		assert_int_equal(unmasked[full].mxcsr & 4, 4);
		assert_int_equal(unmasked[full].host_before, unmasked[full].host_after);
	}
}

static void test_memory(void **state)
{
	v->r[REG_RBX] = 0x1010;
	memcpy(mem + 0x1010, "0123456789abcdef", 16);
	assert_int_equal(RUN("\x0f\x28\x13"), 0); /* movaps xmm2, [rbx] */
	assert_memory_equal(v->xsave + FX_XMM + 32, "0123456789abcdef", 16);
	assert_int_equal(buffered, 0);
	v->r[REG_RBX] = 0x1011;
	assert_int_equal(RUN("\x0f\x28\x13"), VEC_GP);
	v->r[REG_RBX] = 0x1ffc;                   /* into a page that the TLB lacks */
	assert_int_equal(RUN("\x0f\x11\x13"), 0); /* movups [rbx], xmm2 */
	assert_memory_equal(mem + 0x1ffc, "0123456789abcdef", 16);
	assert_int_equal(buffered, 1);
	assert_int_equal(RUN("\x66\x0f\x3a\x14\x53\x08\x03"), 0); /* pextrb [rbx + 8], xmm2, 3 */
	assert_int_equal(mem[0x2004], '3');
}

static void test_x87(void **state)
{
	double d = 1.5, r;
	uint16_t cw = 0x37f;

	memcpy(v->xsave + FX_FCW, &cw, 2);
	v->xsave[FX_FTW] = 0;
	v->r[REG_RBX] = 0x1100;
	memcpy(mem + 0x1100, &d, 8);
	assert_int_equal(RUN("\xdd\x03"), 0); /* fld qword [rbx] */
	assert_int_equal(RUN("\xd8\xc0"), 0); /* fadd st, st */
	assert_int_equal(v->xsave[FX_FTW], 0x80);
	assert_int_equal(RUN("\xdd\x5b\x08"), 0); /* fstp qword [rbx + 8] */
	memcpy(&r, mem + 0x1108, 8);
	assert_true(r == 3.0);
	assert_int_equal(v->xsave[FX_FTW], 0);
	/* The pointers are the guest's. */
	assert_int_equal(fpu_word(v, FX_FOP), 0x55b);
	assert_memory_equal(v->xsave + FX_FIP, "\x78\x56\x34\x12\0\0\0\0", 8);
	assert_memory_equal(v->xsave + FX_FDP, "\x08\x11\0\0\0\0\0\0", 8);
}

/* A store with an unmasked stack fault writes nothing, through a buffer either. */
static void test_x87_unmasked(void **state)
{
	uint16_t cw = 0x37e;

	memcpy(v->xsave + FX_FCW, &cw, 2);
	v->xsave[FX_FTW] = 0;
	memset(mem + 0x1ff0, 0xaa, 32);
	v->r[REG_RBX] = 0x1ffc;
	assert_int_equal(RUN("\xdd\x1b"), 0); /* fstp qword [rbx] */
	assert_int_equal(fpu_word(v, FX_FSW) & FSW_ES, FSW_ES);
	assert_int_equal(fpu_x87_pending(v), 1);
	for (unsigned n = 0; n < 32; n++)
		assert_int_equal(mem[0x1ff0 + n], 0xaa);
	/* The host's x87 unit is clean: this would trap. */
	__asm__ volatile("fwait");
}

static void test_string_compare(void **state)
{
	set_xmm(1, 0x6867666564636261, 0x706f6e6d6c6b6a69);
	set_xmm(2, 0x0000000000006a65, 0);
	assert_int_equal(RUN("\x66\x0f\x3a\x63\xd1\x00"), 0); /* pcmpistri xmm2, xmm1, 0 */
	assert_int_equal(v->r[REG_RCX], 4);
	assert_int_equal(v->fl & FL_C, FL_C);
	assert_int_equal(get_xmm(2, 0), 0x6a65);
}

/* The same results without the cache; and every encoding gets a thunk of its own. */
static void test_uncached(void **state)
{
	unsigned n0, n1, bytes;

	host_thunk_set_full(true);
	host_thunk_usage(&n0, &bytes);
	for (unsigned imm = 0; imm < 256; imm++) {
		char code[] = "\x66\x0f\x70\xf7\x00"; /* pshufd xmm6, xmm7, imm */

		code[4] = (char)imm;
		set_xmm(7, 0x0000000100000000, 0x0000000300000002);
		assert_int_equal(run(code, 5), 0);
		assert_int_equal(get_xmm(6, 0), (imm & 3) | (uint64_t)(imm >> 2 & 3) << 32);
		assert_int_equal(get_xmm(6, 1), (imm >> 4 & 3) | (uint64_t)(imm >> 6) << 32);
	}
	host_thunk_usage(&n1, &bytes);
	assert_int_equal(n0, n1);
}

/* As the block decoder has it run: availability checked. */
static int run_checked(const char *bytes, size_t n)
{
	struct insn i;
	int vec = sigsetjmp(v->unwind, 0);

	if (vec)
		return vec - 1 ? vec - 1 : -1;
	assert_int_equal(insn_decode((const uint8_t *)bytes, n, DECODE_64, false, &i), DECODE_OK);
	i.aux = host_thunk_get(&i, DECODE_64);
	assert_non_null(i.aux);
	exec_host_checked(v, &i);
	return 0;
}

/* [SDM3 table 12-1] and the manuals' exception lists; priorities where two apply. */
static void test_available(void **state)
{
	static const char sse[] = "\x0f\x58\xc1", avx[] = "\xc5\xf5\xfe\xc2",
			  mmx[] = "\x0f\xef\xc1", x87[] = "\xd8\xc0";
	uint64_t cr4 = v->cr4;

	assert_int_equal(run_checked(sse, 3), 0);
	v->cr0 = CR0_TS;
	assert_int_equal(run_checked(sse, 3), VEC_NM);
	assert_int_equal(run_checked(avx, 4), VEC_NM);
	assert_int_equal(run_checked(mmx, 3), VEC_NM);
	assert_int_equal(run_checked(x87, 2), VEC_NM);
	v->cr0 = CR0_EM | CR0_TS;
	assert_int_equal(run_checked(sse, 3), VEC_UD);
	assert_int_equal(run_checked(mmx, 3), VEC_UD);
	assert_int_equal(run_checked(x87, 2), VEC_NM);
	v->cr0 = CR0_EM;
	if (!lacks(FEAT_AVX2))
		assert_int_equal(run_checked(avx, 4), 0); /* EM is nothing to AVX */
	v->cr0 = 0;
	v->cr4 = cr4 & ~CR4_OSFXSR;
	assert_int_equal(run_checked(sse, 3), VEC_UD);
	assert_int_equal(run_checked(mmx, 3), 0);
	v->cr4 = cr4 & ~CR4_OSXSAVE;
	assert_int_equal(run_checked(avx, 4), VEC_UD);
	v->cr4 = cr4;
	v->xcr0 = 3;
	assert_int_equal(run_checked(avx, 4), VEC_UD);
	fpu_set_word(v, FX_FCW, 0x37e);
	fpu_set_word(v, FX_FSW, 1);
	fpu_x87_summary(v);
	assert_int_equal(run_checked(x87, 2), VEC_MF);
	assert_int_equal(run_checked(mmx, 3), VEC_MF);
	assert_int_equal(run_checked(sse, 3), 0);
}

/* Threads that ask for the same encodings at once get the same thunks. */
static void *thread_get(void *arg)
{
	void **out = arg;

	for (unsigned imm = 0; imm < 256; imm++) {
		uint8_t code[] = { 0x66, 0x0f, 0x70, 0xd9, (uint8_t)imm }; /* pshufd xmm3, xmm1 */
		struct insn i;

		if (insn_decode(code, 5, DECODE_64, false, &i) == DECODE_OK)
			out[imm] = host_thunk_get(&i, DECODE_64);
	}
	return NULL;
}

static void test_threads(void **state)
{
	enum { THREADS = 4 };
	static void *got[THREADS][256];
	pthread_t t[THREADS];

	for (unsigned n = 0; n < THREADS; n++)
		assert_int_equal(pthread_create(&t[n], NULL, thread_get, got[n]), 0);
	for (unsigned n = 0; n < THREADS; n++)
		pthread_join(t[n], NULL);
	for (unsigned n = 0; n < THREADS; n++)
		for (unsigned imm = 0; imm < 256; imm++) {
			assert_non_null(got[n][imm]);
			assert_ptr_equal(got[n][imm], got[0][imm]);
		}
}

/* Run pshufd xmm12, xmm1, imm for n immediates; false when a result is wrong. */
static bool shuffle_all(unsigned first, unsigned n)
{
	bool ok = true;

	set_xmm(1, 0x0000000100000000, 0x0000000300000002);
	for (unsigned imm = first; imm < first + n; imm++) {
		char code[] = "\x66\x44\x0f\x70\xe1\x00";

		code[5] = (char)imm;
		ok &= run(code, 6) == 0;
		ok &= get_xmm(12, 0) == ((imm & 3) | (uint64_t)(imm >> 2 & 3) << 32);
	}
	return ok;
}

/* After a fork parent and child make different code at the same addresses. */
static void test_fork(void **state)
{
	int to_child[2], status;
	char c;
	pid_t pid;

	assert_true(shuffle_all(0, 8));
	assert_int_equal(pipe(to_child), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		bool ok = shuffle_all(0, 8) && shuffle_all(64, 64);

		ok &= read(to_child[0], &c, 1) == 1; /* until the parent has made its own */
		_exit(ok && shuffle_all(64, 64) ? 0 : 1);
	}
	assert_true(shuffle_all(128, 64));
	assert_int_equal(write(to_child[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(shuffle_all(128, 64));
	close(to_child[0]);
	close(to_child[1]);
}

static void test_kvm_fpu(void **state)
{
	struct kvm_fpu f;
	struct kvm_xsave *x = calloc(1, sizeof(*x));

	kvm_fpu_get(v, &f);
	f.mxcsr = 0x1f80;
	f.fcw = 0x37e;
	f.fsw = 1;
	assert_int_equal(kvm_fpu_set(v, &f), 0);
	assert_int_equal(fpu_word(v, FX_FSW), 1 | FSW_ES | FSW_B);
	/* as the kernel: MXCSR is neither taken nor looked at here */
	f.mxcsr = 0x10000;
	assert_int_equal(kvm_fpu_set(v, &f), 0);
	kvm_xsave_get(v, x);
	assert_int_equal(x->region[6], 0x1f80);
	assert_int_equal(kvm_xsave_set(v, x), 0);
	/* The whole state goes out and comes back; components not named are initialised. */
	set_xmm(15, 0x1122, 0x3344);
	v->xsave[XS_YMMH + 240] = 0x55;
	kvm_xsave_get(v, x);
	set_xmm(15, 0, 0);
	v->xsave[XS_YMMH + 240] = 0;
	assert_int_equal(kvm_xsave_set(v, x), 0);
	assert_int_equal(get_xmm(15, 1), 0x3344);
	if (!lacks(FEAT_AVX))
		assert_int_equal(get_ymmh(15), 0x55);
	x->region[XS_XSTATE_BV / 4] &= ~(uint32_t)XSTATE_SSE;
	assert_int_equal(kvm_xsave_set(v, x), 0);
	assert_int_equal(get_xmm(15, 1), 0);
	x->region[XS_XCOMP_BV / 4] = 1; /* compacted areas are not for user space */
	assert_int_not_equal(kvm_xsave_set(v, x), 0);
	x->region[XS_XCOMP_BV / 4] = 0;
	x->region[XS_XSTATE_BV / 4] |= 1u << 5;
	assert_int_not_equal(kvm_xsave_set(v, x), 0);
	free(x);
}

static double time_ns(const char *bytes, size_t n)
{
	enum { REPEAT = 200000 };
	struct timespec a, b;
	struct insn i;

	assert_int_equal(insn_decode((const uint8_t *)bytes, n, DECODE_64, false, &i), DECODE_OK);
	i.aux = host_thunk_get(&i, DECODE_64);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned k = 0; k < REPEAT; k++)
		exec_host(v, &i);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / REPEAT;
}

/* Not a check, as the machine may be busy: shows what to expect. */
static void test_speed(void **state)
{
	v->r[REG_RBX] = 0x1010;
	fpu_set_word(v, FX_FCW, 0x37f);
	print_message("paddd %.1f ns, paddd mem %.1f ns, addps %.1f ns, vpaddd ymm %.1f ns, popcnt "
		      "%.1f ns, fadd %.1f ns, pxor mm %.1f ns\n",
		      time_ns("\x66\x0f\xfe\xc1", 4), time_ns("\x66\x0f\xfe\x03", 4),
		      time_ns("\x0f\x58\xc1", 3), time_ns("\xc5\xf5\xfe\xc2", 4),
		      time_ns("\xf3\x0f\xb8\xc1", 4), time_ns("\xd8\xc0", 2),
		      time_ns("\x0f\xef\xc1", 3));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_integer),   T(test_adx),          T(test_mulx),           T(test_sse_merge),
		T(test_avx),       T(test_mxcsr),        T(test_unmasked),       T(test_memory),
		T(test_x87),       T(test_x87_unmasked), T(test_string_compare), T(test_uncached),
		T(test_available), T(test_threads),      T(test_fork),           T(test_kvm_fpu),
		T(test_speed),
	};

	unmasked_run();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
