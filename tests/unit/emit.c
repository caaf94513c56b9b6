/*
 * The encoder: known bytes, and every addressing form and register through the decoder and back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "x86/decode.h"
#include "x86/emit.h"

static uint8_t code[256];

#define EXPECT(call, bytes) \
	do { \
		struct emit e; \
		emit_init(&e, code, sizeof(code), 0); \
		call; \
		assert_false(e.full); \
		assert_int_equal(emit_size(&e), sizeof(bytes) - 1); \
		assert_memory_equal(code, bytes, sizeof(bytes) - 1); \
	} while (0)

static void test_bytes(void **state)
{
	EXPECT(emit_mov_load(&e, 8, REG_RAX, REG_RDI, 0x10), "\x48\x8b\x47\x10");
	EXPECT(emit_mov_load(&e, 4, REG_R8, REG_R13, 0), "\x45\x8b\x45\x00");
	EXPECT(emit_mov_load(&e, 2, REG_RAX, REG_RSP, 0), "\x0f\xb7\x04\x24");
	EXPECT(emit_mov_load(&e, 1, REG_RCX, REG_R12, 0x200),
	       "\x41\x0f\xb6\x8c\x24\x00\x02\x00\x00");
	EXPECT(emit_mov_store(&e, 1, REG_RDI, 0, REG_RSI), "\x40\x88\x37");
	EXPECT(emit_mov_store(&e, 2, REG_RDI, -1, REG_RAX), "\x66\x89\x47\xff");
	EXPECT(emit_mov_reg(&e, 8, REG_RAX, REG_R9), "\x4c\x89\xc8");
	EXPECT(emit_mov_imm(&e, REG_RBX, 0x11223344), "\xbb\x44\x33\x22\x11");
	EXPECT(emit_mov_imm(&e, REG_R9, 0x1122334455667788),
	       "\x49\xb9\x88\x77\x66\x55\x44\x33\x22\x11");
	EXPECT(emit_xor_self(&e, REG_R10), "\x45\x31\xd2");
	EXPECT(emit_movaps_load(&e, 9, REG_RDI, 0), "\x44\x0f\x28\x0f");
	EXPECT(emit_vmovaps_store(&e, REG_RDI, 16, 1), "\xc5\xf8\x29\x4f\x10");
	EXPECT(emit_vinsertf128(&e, 9, REG_RDI, 0), "\xc4\x63\x35\x18\x0f\x01");
	EXPECT(emit_vextractf128(&e, REG_RDI, 0, 9), "\xc4\x63\x7d\x19\x0f\x01");
	EXPECT(emit_ldmxcsr(&e, REG_RSP, -8), "\x0f\xae\x54\x24\xf8");
	EXPECT(emit_fxsave64(&e, REG_RDI, 0), "\x48\x0f\xae\x07");
	EXPECT(emit_xsave64(&e, REG_R11, 8), "\x49\x0f\xae\x63\x08");
}

/* Every base register and displacement size. */
static void test_memory_forms(void **state)
{
	static const int32_t disps[] = { 0, 1, -128, 127, 128, -129, 0x7fffffff, -0x7fffffff - 1 };
	struct insn i;
	struct emit e;

	for (unsigned base = 0; base < 16; base++)
		for (unsigned reg = 0; reg < 16; reg++)
			for (unsigned n = 0; n < sizeof(disps) / sizeof(disps[0]); n++) {
				emit_init(&e, code, sizeof(code), 0);
				emit_mov_store(&e, 8, base, disps[n], reg);
				assert_int_equal(
					insn_decode(code, emit_size(&e), DECODE_64, false, &i),
					DECODE_OK);
				assert_int_equal(i.len, emit_size(&e));
				assert_int_equal(i.id, I_MOV_EvGv);
				assert_int_equal(i.reg, reg);
				assert_int_equal(i.base, base);
				assert_int_equal(i.index, REG_ZERO);
				assert_int_equal(i.disp, disps[n]);
				assert_int_equal(i.osize, 8);
			}
}

static void test_vex_forms(void **state)
{
	struct insn i;
	struct emit e;

	for (unsigned n = 0; n < 16 * 16 * 16; n++) {
		struct emit_op x = { .map = V0F,
				     .pp = P66,
				     .opcode = 0xfe,
				     .modrm = true,
				     .reg = n & 15,
				     .rm = n >> 4 & 15,
				     .vvvv = n >> 8,
				     .l = n & 1 };

		emit_init(&e, code, sizeof(code), 0);
		emit_op(&e, &x);
		assert_int_equal(insn_decode(code, emit_size(&e), DECODE_64, false, &i), DECODE_OK);
		assert_int_equal(i.len, emit_size(&e));
		assert_string_equal(insn_info[i.id].mnem, "vpaddd");
		assert_int_equal(i.reg, x.reg);
		assert_int_equal(i.rm, x.rm);
		assert_int_equal(i.vvvv, x.vvvv);
		assert_int_equal(!!(i.flags & IF_L), x.l);
	}
}

/* Every base with every index, legacy and VEX: the decoder reads back what was asked for. */
static void test_sib_forms(void **state)
{
	static const int32_t disps[] = { 0, -4, 0x12345 };
	struct insn i;
	struct emit e;

	for (unsigned n = 0; n < 16 * 16 * 4 * 3 * 2; n++) {
		struct emit_op x = { .opcode = n & 1 ? 0xfe : 0x8b,
				     .map = n & 1 ? V0F : M1,
				     .pp = n & 1 ? P66 : NP,
				     .modrm = true,
				     .mem = true,
				     .sib = true,
				     .w = !(n & 1),
				     .reg = n / 3 & 15,
				     .vvvv = n / 5 & 15,
				     .rm = n >> 1 & 15,
				     .index = n >> 5 & 15,
				     .scale = n >> 9 & 3,
				     .disp = disps[n >> 11] };

		if (x.index == REG_RSP)
			continue;
		emit_init(&e, code, sizeof(code), 0);
		emit_op(&e, &x);
		assert_int_equal(insn_decode(code, emit_size(&e), DECODE_64, false, &i), DECODE_OK);
		assert_int_equal(i.len, emit_size(&e));
		assert_int_equal(i.reg, x.reg);
		assert_int_equal(i.base, x.rm);
		assert_int_equal(i.index, x.index);
		assert_int_equal(i.scale, x.scale);
		assert_int_equal(i.disp, x.disp);
	}
}

static void test_overflow(void **state)
{
	struct emit e;

	memset(code, 0x55, sizeof(code));
	emit_init(&e, code, 5, 0);
	emit_mov_load(&e, 8, REG_RAX, REG_RDI, 0x10);
	assert_false(e.full);
	emit_mov_load(&e, 8, REG_RAX, REG_RDI, 0x10);
	assert_true(e.full);
	emit_ret(&e); /* would fit, but the code is already broken */
	assert_int_equal(emit_size(&e), 4);
	assert_int_equal(code[4], 0x55);
}

static void test_align(void **state)
{
	struct emit e;

	emit_init(&e, code, sizeof(code), 0x1003);
	emit_align(&e, 16);
	assert_int_equal(emit_size(&e), 13);
	assert_int_equal(code[0], 0xcc);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),     cmocka_unit_test(test_memory_forms),
		cmocka_unit_test(test_vex_forms), cmocka_unit_test(test_sib_forms),
		cmocka_unit_test(test_overflow),  cmocka_unit_test(test_align),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
