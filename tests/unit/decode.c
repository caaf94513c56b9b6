/*
 * The decoder's rules, one vector each; then properties of the whole table.
 *
 * A vector is bytes, mode and the expected text, or the expected refusal. Where the text does not
 * show what matters (operand size, segment, flags), a test looks at struct insn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "x86/decode.h"
#include "x86/features.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct vector {
	const char *hex;
	const char *text; /* NULL: refused with result */
	enum decode_result result;
};

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;

	while (*hex) {
		if (*hex == ' ') {
			hex++;
			continue;
		}
		out[n++] = (uint8_t)strtoul((char[]){ hex[0], hex[1], 0 }, NULL, 16);
		hex += 2;
	}
	return n;
}

static struct insn decode(const char *hex, enum decode_mode mode)
{
	struct insn insn;
	uint8_t bytes[32];
	size_t n = unhex(hex, bytes);

	if (insn_decode(bytes, n, mode, false, &insn) != DECODE_OK || insn.len != n)
		fail_msg("%s: refused or wrong length %u", hex, insn.len);
	return insn;
}

static void check(const struct vector *v, size_t n, enum decode_mode mode, bool real)
{
	for (size_t i = 0; i < n; i++) {
		struct insn insn;
		uint8_t bytes[32];
		char text[128] = "";
		size_t len = unhex(v[i].hex, bytes);
		enum decode_result r = insn_decode(bytes, len, mode, real, &insn);

		if (!v[i].text) {
			if (r != v[i].result)
				fail_msg("%s: result %d, expected %d", v[i].hex, r, v[i].result);
			continue;
		}
		if (r != DECODE_OK || insn.len != len)
			fail_msg("%s: result %d, length %u", v[i].hex, r, insn.len);
		insn_format(&insn, mode, 0x1000, text, sizeof(text));
		if (strcmp(text, v[i].text))
			fail_msg("%s: \"%s\", expected \"%s\"", v[i].hex, text, v[i].text);
	}
}

#define CHECK(mode, real, ...) \
	do { \
		static const struct vector v_[] = { __VA_ARGS__ }; \
		check(v_, COUNT(v_), mode, real); \
	} while (0)

static void test_prefixes(void **state)
{
	CHECK(DECODE_64, false, { "01 d8", "add eax, ebx" }, { "66 01 d8", "add ax, bx" },
	      { "48 01 d8", "add rax, rbx" }, { "66 48 01 d8", "add rax, rbx" },
	      /* REX counts only right before the opcode. */
	      { "48 66 01 d8", "add ax, bx" }, { "48 41 01 d8", "add r8d, ebx" },
	      /* The last of FS and GS wins; the others are ignored in 64-bit mode. */
	      { "64 65 8b 00", "mov eax, dword ptr gs:[rax]" },
	      { "65 64 8b 00", "mov eax, dword ptr fs:[rax]" },
	      { "64 2e 8b 00", "mov eax, dword ptr fs:[rax]" },
	      { "26 8b 45 00", "mov eax, dword ptr [rbp]" },
	      /* A mandatory prefix before 66, the last of F2 and F3. */
	      { "66 f3 0f 10 c1", "movss xmm0, xmm1" }, { "f3 66 0f 10 c1", "movss xmm0, xmm1" },
	      { "f3 f2 0f 10 c1", "movsd xmm0, xmm1" }, { "f2 f3 0f 10 c1", "movss xmm0, xmm1" },
	      { "66 0f 10 c1", "movupd xmm0, xmm1" }, { "66 f2 0f 38 f1 c1", "crc32 eax, cx" },
	      { "f2 48 0f 38 f0 c1", "crc32 rax, cl" }, { "f3 a4", "rep movsb" },
	      { "f2 a6", "repne cmpsb" }, { "f3 48 af", "repe scasq" },
	      { "64 ac", "lodsb al, byte ptr fs:[rsi]" }, { "67 a4", "movsb" });
	CHECK(DECODE_32, false, { "2e 8b 00", "mov eax, dword ptr cs:[eax]" },
	      { "2e 3e 8b 45 00", "mov eax, dword ptr ds:[ebp]" }, { "40", "inc eax" },
	      { "4f", "dec edi" });
	assert_int_equal(decode("f2 f3 a6", DECODE_64).flags & (IF_REP | IF_REPNE), IF_REP);
	assert_int_equal(decode("40 88 e0", DECODE_64).flags & IF_REX, IF_REX);
	assert_int_equal(decode("40 66 89 e0", DECODE_64).flags & IF_REX, 0);
}

static void test_lock(void **state)
{
	CHECK(DECODE_64, false, { "f0 01 18", "lock add dword ptr [rax], ebx" },
	      { "f0 0f c7 08", "lock cmpxchg8b qword ptr [rax]" },
	      { "f0 48 0f c7 08", "lock cmpxchg16b xmmword ptr [rax]" },
	      { "f0 87 00", "lock xchg dword ptr [rax], eax" },
	      { "f0 01 d8", NULL, DECODE_UD },    /* register */
	      { "f0 03 18", NULL, DECODE_UD },    /* memory is the source */
	      { "f0 39 18", NULL, DECODE_UD },    /* CMP */
	      { "f0 0f a3 18", NULL, DECODE_UD }, /* BT */
	      { "f0 0f ab 18", "lock bts dword ptr [rax], ebx" }, { "f0 89 18", NULL, DECODE_UD },
	      { "f0 90", NULL, DECODE_UD }, { "f0 0f 20 c0", NULL, DECODE_UD }); /* note 5 */
}

static void test_address(void **state)
{
	CHECK(DECODE_64, false, { "8b 05 10 00 00 00", "mov eax, dword ptr [rip+16]" },
	      { "67 8b 05 10 00 00 00", "mov eax, dword ptr [eip+16]" },
	      { "41 8b 05 10 00 00 00", "mov eax, dword ptr [rip+16]" },
	      { "8b 04 24", "mov eax, dword ptr [rsp]" },
	      { "42 8b 04 20", "mov eax, dword ptr [rax+r12*1]" },
	      { "8b 04 25 78 56 34 12", "mov eax, dword ptr ds:[0x12345678]" },
	      { "8b 04 25 00 00 00 80", "mov eax, dword ptr ds:[0xffffffff80000000]" },
	      { "8b 04 c5 10 00 00 00", "mov eax, dword ptr [rax*8+0x10]" },
	      { "43 8b 44 ed f8", "mov eax, dword ptr [r13+r13*8-0x8]" },
	      { "a1 88 77 66 55 44 33 22 11", "mov eax, dword ptr ds:0x1122334455667788" },
	      { "67 a1 44 33 22 11", "mov eax, dword ptr ds:0x11223344" },
	      { "64 a0 01 00 00 00 00 00 00 00", "mov al, byte ptr fs:0x1" });
	CHECK(DECODE_16, false, { "8b 00", "mov ax, word ptr [bx+si]" },
	      { "8b 01", "mov ax, word ptr [bx+di]" }, { "8b 02", "mov ax, word ptr [bp+si]" },
	      { "8b 43 fe", "mov ax, word ptr [bp+di-0x2]" }, { "8b 04", "mov ax, word ptr [si]" },
	      { "8b 46 00", "mov ax, word ptr [bp]" },
	      { "8b 06 34 12", "mov ax, word ptr ds:[0x1234]" },
	      { "8b 06 00 80", "mov ax, word ptr ds:[0x8000]" },
	      { "8b 87 34 12", "mov ax, word ptr [bx+0x1234]" },
	      { "67 8b 04 24", "mov ax, word ptr [esp]" },
	      { "67 66 8b 04 24", "mov eax, dword ptr [esp]" });
	assert_int_equal(decode("8b 45 00", DECODE_64).seg, SEG_SS);
	assert_int_equal(decode("8b 04 24", DECODE_64).seg, SEG_SS);
	assert_int_equal(decode("8b 46 00", DECODE_16).seg, SEG_SS);
	assert_int_equal(decode("8b 06 00 00", DECODE_16).seg, SEG_DS);
	assert_int_equal(decode("8b 04 2c", DECODE_32).seg, SEG_SS);
	assert_int_equal(decode("8b 44 25 00", DECODE_32).seg, SEG_SS);
	/* RBP as index does not choose SS, and R13 never does. */
	assert_int_equal(decode("8b 04 28", DECODE_64).seg, SEG_DS);
	assert_int_equal(decode("41 8b 45 00", DECODE_64).seg, SEG_DS);
	assert_int_equal(decode("8b 04 24", DECODE_64).index, REG_ZERO);
	assert_int_equal(decode("a1 00 00 00 00", DECODE_32).flags & IF_MEM, IF_MEM);
}

static void test_immediates(void **state)
{
	struct insn i = decode("c8 34 12 05", DECODE_32);

	assert_int_equal(i.imm, 0x1234);
	assert_int_equal(i.imm2, 5);
	i = decode("9a 78 56 34 12 08 00", DECODE_32);
	assert_int_equal(i.imm, 0x12345678);
	assert_int_equal(i.imm2, 8);
	i = decode("ea 00 00 ff ff", DECODE_16);
	assert_int_equal(i.imm, 0);
	assert_int_equal(i.imm2, 0xffff);
	assert_int_equal(decode("cd 80", DECODE_64).imm, 0x80);
	assert_true(decode("6a ff", DECODE_64).imm == UINT64_MAX);
	assert_true(decode("48 05 00 00 00 80", DECODE_64).imm == 0xffffffff80000000);
	CHECK(DECODE_64, false, { "48 b8 88 77 66 55 44 33 22 11", "mov rax, 0x1122334455667788" },
	      { "41 b8 01 00 00 00", "mov r8d, 0x1" }, { "66 b8 34 12", "mov ax, 0x1234" },
	      { "66 83 c0 ff", "add ax, 0xffff" }, { "eb fe", "jmp 0x1000" },
	      /* Note 1: the 66 prefix is ignored. */
	      { "66 e8 00 00 00 00", "call 0x1006" }, { "66 0f 84 10 00 00 00", "je 0x1017" },
	      { "c4 e3 79 4c c2 30", "vpblendvb xmm0, xmm0, xmm2, xmm3" },
	      { "66 0f 78 c1 08 04", "extrq xmm1, 0x8, 0x4" });
	CHECK(DECODE_16, false, { "e9 fd ef", "jmp 0x0" }, { "66 e9 00 00 00 00", "jmp 0x1006" });
}

static void test_sizes(void **state)
{
	static const struct {
		const char *hex;
		enum decode_mode mode;
		unsigned osize;
	} v[] = {
		{ "50", DECODE_64, 8 },
		{ "66 50", DECODE_64, 2 },
		{ "66 50", DECODE_16, 4 },
		{ "c3", DECODE_64, 8 },
		{ "66 c3", DECODE_64, 8 },
		{ "66 c3", DECODE_32, 2 },
		{ "cb", DECODE_64, 4 },
		{ "48 cb", DECODE_64, 8 },
		{ "cf", DECODE_16, 2 },
		{ "48 cf", DECODE_64, 8 },
		{ "9c", DECODE_64, 8 },
		{ "00 c0", DECODE_64, 1 },
		{ "48 00 c0", DECODE_64, 1 },
		{ "e4 10", DECODE_64, 1 },
		{ "e5 10", DECODE_16, 2 },
		{ "0f b6 c0", DECODE_64, 4 },
		{ "0f 20 c0", DECODE_64, 8 },
		{ "0f 20 c0", DECODE_16, 4 },
		{ "66 0f 6e c0", DECODE_64, 4 },
		{ "66 48 0f 6e c0", DECODE_64, 8 },
		{ "66 0f 6e c0", DECODE_16, 4 },
		{ "a5", DECODE_16, 2 },
		{ "66 f2 0f 2a c0", DECODE_64, 4 },
		{ "c4 e1 f9 6e c0", DECODE_64, 8 },
		{ "c4 e1 f9 6e c0", DECODE_32, 4 },
		{ "f3 0f c7 f8", DECODE_64, 8 },
		{ "66 0f c7 f0", DECODE_64, 2 },
		{ "e2 fe", DECODE_64, 8 },
		{ "ff e0", DECODE_64, 8 },
		{ "ff 28", DECODE_64, 4 },
	};

	for (size_t i = 0; i < COUNT(v); i++)
		if (decode(v[i].hex, v[i].mode).osize != v[i].osize)
			fail_msg("%s: operand size %u", v[i].hex,
				 decode(v[i].hex, v[i].mode).osize);
	assert_int_equal(decode("c4 e1 f9 6e c0", DECODE_32).flags & IF_W, 0);
}

static void test_modes(void **state)
{
	CHECK(DECODE_64, false, { "06", NULL, DECODE_UD }, { "27", NULL, DECODE_UD },
	      { "60", NULL, DECODE_UD }, { "62 00", NULL, DECODE_UD },
	      { "82 c0 01", NULL, DECODE_UD }, { "9a 00 00 00 00 00 00", NULL, DECODE_UD },
	      { "d6", NULL, DECODE_UD }, { "63 c8", "movsxd ecx, eax" },
	      { "48 63 c8", "movsxd rcx, eax" }, { "0f 01 f8", "swapgs" },
	      { "f3 0f ae c0", "rdfsbase eax" },
	      /* Note 4. */
	      { "90", "nop" }, { "f3 90", "pause" }, { "41 90", "xchg r8d, eax" },
	      { "48 90", "nop" }, { "49 90", "xchg r8, rax" },
	      { "62 f1 7c 48 58 c0", NULL, DECODE_UD }, { "8f e8 78 a2 c0 00", NULL, DECODE_UD });
	CHECK(DECODE_32, false, { "63 c8", "arpl ax, cx" }, { "82 c0 01", "add al, 0x1" },
	      { "06", "push es" }, { "c4 00", "les eax, fword ptr [eax]" },
	      { "c5 00", "lds eax, fword ptr [eax]" }, { "c5 f8 77", "vzeroupper" },
	      { "62 00", "bound eax, qword ptr [eax]" }, { "62 f1 7c 48 58 c0", NULL, DECODE_UD },
	      { "f3 0f ae c0", NULL, DECODE_UD }, { "0f 01 f8", NULL, DECODE_UD },
	      { "0f 05", "syscall" });
	/* Real mode: no VEX, no protected-mode instructions. */
	CHECK(DECODE_16, true, { "c5 f8 77", NULL, DECODE_UD },
	      { "c4 07", "les ax, dword ptr [bx]" }, { "63 c8", NULL, DECODE_UD },
	      { "0f 00 c0", NULL, DECODE_UD }, { "0f 02 c0", NULL, DECODE_UD },
	      { "0f 01 e0", "smsw ax" });
	CHECK(DECODE_16, false, { "0f 00 c0", "sldt ax" }, { "c5 f8 77", "vzeroupper" });
}

static void test_registers(void **state)
{
	CHECK(DECODE_64, false, { "88 e0", "mov al, ah" }, { "40 88 e0", "mov al, spl" },
	      { "0f 20 c0", "mov rax, cr0" }, { "44 0f 20 c0", "mov rax, cr8" },
	      /* ModRM.mod is ignored. */
	      { "0f 20 00", "mov rax, cr0" }, { "0f 22 45", "mov cr0, rbp" },
	      { "0f 20 c8", NULL, DECODE_UD }, { "44 0f 20 c8", NULL, DECODE_UD },
	      { "0f 21 f8", "mov rax, dr7" }, { "44 0f 21 c0", NULL, DECODE_UD },
	      { "8e d8", "mov ds, ax" }, { "8e c8", NULL, DECODE_UD }, { "8e f0", NULL, DECODE_UD },
	      { "8c f8", NULL, DECODE_UD }, { "8c d8", "mov eax, ds" },
	      { "66 8c d8", "mov ax, ds" }, { "44 8c d8", "mov eax, ds" },
	      { "45 0f 6f c8", "movq mm1, mm0" }, { "41 d8 c1", "fadd st, st(1)" },
	      { "66 44 0f 6f c9", "movdqa xmm9, xmm1" }, { "41 0f c8", "bswap r8d" },
	      { "0f c7 c8", NULL, DECODE_UD }, { "8d c0", NULL, DECODE_UD },
	      { "c6 c8 00", NULL, DECODE_UD }, { "ff f8", NULL, DECODE_UD },
	      { "ff d8", NULL, DECODE_UD }, { "fe d0", NULL, DECODE_UD });
}

static void test_vex(void **state)
{
	CHECK(DECODE_64, false, { "c5 f8 58 c1", "vaddps xmm0, xmm0, xmm1" },
	      { "c5 fc 58 c1", "vaddps ymm0, ymm0, ymm1" },
	      { "c4 c1 78 58 c1", "vaddps xmm0, xmm0, xmm9" },
	      { "c4 41 30 58 c1", "vaddps xmm8, xmm9, xmm9" },
	      { "c5 fa 58 c1", "vaddss xmm0, xmm0, xmm1" },
	      { "c4 e2 f1 98 c2", "vfmadd132pd xmm0, xmm1, xmm2" },
	      { "c4 e2 71 98 c2", "vfmadd132ps xmm0, xmm1, xmm2" },
	      { "c4 e2 7d 20 00", "vpmovsxbw ymm0, xmmword ptr [rax]" },
	      { "c4 e2 79 20 00", "vpmovsxbw xmm0, qword ptr [rax]" },
	      { "c4 e2 e9 90 04 08", "vpgatherdq xmm0, [rax+xmm1*1], xmm2" },
	      { "c4 e2 ed 90 04 08", "vpgatherdq ymm0, [rax+xmm1*1], ymm2" },
	      { "c4 e2 6d 90 04 20", "vpgatherdd ymm0, [rax+ymm4*1], ymm2" },
	      { "c4 e2 60 f2 c1", "andn eax, ebx, ecx" },
	      { "c4 e2 e0 f2 c1", "andn rax, rbx, rcx" }, { "66 c5 f8 58 c1", NULL, DECODE_UD },
	      { "f2 c5 f8 58 c1", NULL, DECODE_UD }, { "f3 c5 f8 58 c1", NULL, DECODE_UD },
	      { "f0 c5 f8 58 c1", NULL, DECODE_UD }, { "48 c5 f8 58 c1", NULL, DECODE_UD },
	      { "48 2e c5 f8 58 c1", "vaddps xmm0, xmm0, xmm1" }, /* that REX is cancelled */
	      { "67 c5 f8 58 00", "vaddps xmm0, xmm0, xmmword ptr [eax]" },
	      { "c4 e0 78 58 c1", NULL, DECODE_UD },
	      { "c4 e4 78 58 c1", NULL, DECODE_UD },     /* map */
	      { "c5 e8 77", NULL, DECODE_UD },           /* vvvv must be 1111b */
	      { "c4 e3 7d 00 c1 00", NULL, DECODE_UD },  /* W must be 1 */
	      { "c4 e3 79 06 c1 00", NULL, DECODE_UD },  /* L must be 1 */
	      { "c4 e2 64 f2 c1", NULL, DECODE_UD },     /* L must be 0 */
	      { "c4 e2 6d 90 00", NULL, DECODE_UD },     /* VSIB without SIB */
	      { "c4 e2 69 90 04 10", NULL, DECODE_UD },  /* mask is index */
	      { "c4 e2 69 90 14 08", NULL, DECODE_UD }); /* mask is destination */
	CHECK(DECODE_32, false, { "c4 c1 78 58 c1", "vaddps xmm0, xmm0, xmm1" }, /* B is ignored */
	      { "c4 e1 38 58 c1", "vaddps xmm0, xmm0, xmm1" }, /* and the top of vvvv */
	      { "c4 e3 79 4c c2 f0", "vpblendvb xmm0, xmm0, xmm2, xmm7" },
	      { "67 c4 e2 69 90 04 08", NULL, DECODE_UD }); /* VSIB with 16-bit addresses */
}

static void test_length(void **state)
{
	CHECK(DECODE_64, false, { "66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", "nop" },
	      { "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", NULL, DECODE_GP },
	      { "2e 2e 2e 2e 2e 81 84 c0 00 00 00 00 00 00 00 00", NULL, DECODE_GP },
	      { "2e 2e 2e 2e 81 84 c0 00 00 00 00 00 00 00 00", "add dword ptr [rax+rax*8], 0x0" },
	      { "0f", NULL, DECODE_MORE }, { "0f 38", NULL, DECODE_MORE },
	      { "", NULL, DECODE_MORE }, { "48", NULL, DECODE_MORE },
	      { "c5 f8", NULL, DECODE_MORE }, { "c4", NULL, DECODE_MORE },
	      { "81 c0 00", NULL, DECODE_MORE }, { "0f 04", NULL, DECODE_UD },
	      { "0f 0f", NULL, DECODE_UD });
}

/* What a row states about itself must be consistent. */
static void test_table(void **state)
{
	for (unsigned id = 0; id < I_COUNT; id++) {
		const struct insn_info *i = &insn_info[id];

		if (i->undef & ~i->writes)
			fail_msg("%s: undefined flags that are not written", i->name);
		if (!i->mnem || !*i->mnem || !i->sdm || !*i->sdm)
			fail_msg("%s: no mnemonic or reference", i->name);
		if (i->feature >= INSN_FEATURES || !insn_feature_bit[i->feature].name)
			fail_msg("%s: unknown feature", i->name);
		if (i->map >= V0F && i->pp > PF2)
			fail_msg("%s: VEX rows name their prefix", i->name);
		if (!!(i->attr & A_AVX) != (i->map >= V0F) && i->operand[0] != Gy &&
		    i->operand[0] != By)
			fail_msg("%s: A_AVX and the map disagree", i->name);
		if (i->attr & A_ALIGN && !(i->attr & (A_SSE | A_AVX)))
			fail_msg("%s: aligned, but not a vector instruction", i->name);
	}
}

/*
 * All prefixes, maps, opcodes and ModRM bytes. Every row must come up, the decoder must not change
 * its mind when it sees more or fewer bytes, and the text must fit.
 */
static void sweep(const uint8_t *bytes, enum decode_mode mode, bool *seen)
{
	struct insn a, b;
	char text[96];
	enum decode_result r = insn_decode(bytes, 15, mode, false, &a);

	if (r == DECODE_MORE || a.len > 15)
		fail_msg("%02x %02x %02x %02x: result %d", bytes[0], bytes[1], bytes[2], bytes[3],
			 r);
	if (insn_decode(bytes, a.len, mode, false, &b) != r || memcmp(&a, &b, sizeof(a)))
		fail_msg("%02x %02x %02x %02x: depends on bytes behind it", bytes[0], bytes[1],
			 bytes[2], bytes[3]);
	if (a.len && insn_decode(bytes, a.len - 1u, mode, false, &b) != DECODE_MORE)
		fail_msg("%02x %02x %02x %02x: wrong length", bytes[0], bytes[1], bytes[2],
			 bytes[3]);
	if (r != DECODE_OK)
		return;
	seen[a.id] = true;
	if (insn_format(&a, mode, 0x1000, text, sizeof(text)) >= (int)sizeof(text))
		fail_msg("%s: text too long", insn_info[a.id].name);
}

static void test_sweep(void **state)
{
	static const struct {
		uint8_t n, byte[4];
	} lead[] = {
		{ 0, { 0 } },    { 1, { 0x66 } },       { 1, { 0xf3 } }, { 1, { 0xf2 } },
		{ 1, { 0x48 } }, { 2, { 0x66, 0x48 } }, { 1, { 0xf0 } }, { 2, { 0x67, 0x41 } },
	};
	static const struct {
		uint8_t n, byte[2];
	} map[] = { { 0, { 0 } }, { 1, { 0x0f } }, { 2, { 0x0f, 0x38 } }, { 2, { 0x0f, 0x3a } } };
	static const enum decode_mode mode[] = { DECODE_16, DECODE_32, DECODE_64 };
	bool seen[I_COUNT] = { false };
	uint8_t b[32];

	for (unsigned m = 0; m < 3; m++)
		for (unsigned op = 0; op < 65536; op++) {
			memset(b, 0x24, sizeof(b));
			for (unsigned l = 0; l < COUNT(lead); l++)
				for (unsigned p = 0; p < COUNT(map); p++) {
					unsigned n = lead[l].n;

					memcpy(b, lead[l].byte, n);
					memcpy(b + n, map[p].byte, map[p].n);
					n += map[p].n;
					b[n] = (uint8_t)(op >> 8);
					b[n + 1] = (uint8_t)op;
					sweep(b, mode[m], seen);
				}
			/* VEX: pp, L, W and vvvv of 1111b and 1101b. */
			memset(b, 0x24, sizeof(b));
			for (unsigned k = 0; k < 96 && op % 256 % 3 == 0; k++) {
				b[0] = 0xc4;
				b[1] = (uint8_t)(0xe1 + k / 32);
				b[2] = (uint8_t)((k & 7) | (k & 8) << 4 | (k & 16 ? 0x78 : 0x68));
				b[3] = (uint8_t)(op >> 8);
				b[4] = (uint8_t)op;
				sweep(b, mode[m], seen);
			}
		}
	for (unsigned id = 0; id < I_COUNT; id++)
		if (!seen[id])
			fail_msg("%s: no bytes decode to this row", insn_info[id].name);
}

static void test_format_bounds(void **state)
{
	struct insn i = decode("48 b8 88 77 66 55 44 33 22 11", DECODE_64);
	char buf[40];

	for (size_t cap = 0; cap < sizeof(buf); cap++) {
		memset(buf, 'x', sizeof(buf));
		assert_int_equal(insn_format(&i, DECODE_64, 0, buf, cap), 27);
		if (cap)
			assert_true(strlen(buf) == (cap > 27 ? 27 : cap - 1));
		for (size_t k = cap; k < sizeof(buf); k++)
			assert_int_equal(buf[k], 'x');
	}
}

static void test_features(void **state)
{
	assert_int_equal(insn_fallback(I_TZCNT_GvEv), I_BSF_GvEv);
	assert_int_equal(insn_fallback(I_LZCNT_GvEv), I_BSR_GvEv);
	assert_int_equal(insn_fallback(I_WBNOINVD), I_WBINVD);
	assert_int_equal(insn_fallback(I_POPCNT_GvEv), I_POPCNT_GvEv);
	assert_string_equal(insn_feature_name(FEAT_AVX2), "avx2");
	assert_string_equal(insn_feature_name(BASE), "base");
	assert_string_equal(insn_feature_name(INSN_FEATURES), "?");
	for (unsigned f = 1; f < INSN_FEATURES; f++) {
		assert_in_range(insn_feature_bit[f].reg, 0, 3);
		assert_in_range(insn_feature_bit[f].bit, 0, 31);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefixes),  cmocka_unit_test(test_lock),
		cmocka_unit_test(test_address),   cmocka_unit_test(test_immediates),
		cmocka_unit_test(test_sizes),     cmocka_unit_test(test_modes),
		cmocka_unit_test(test_registers), cmocka_unit_test(test_vex),
		cmocka_unit_test(test_length),    cmocka_unit_test(test_table),
		cmocka_unit_test(test_sweep),     cmocka_unit_test(test_format_bounds),
		cmocka_unit_test(test_features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
