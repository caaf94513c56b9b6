/*
 * Arithmetic on the host's own flags.
 *
 * Each function computes one operation of 1, 2, 4 or 8 bytes with the host instruction of that size
 * and takes the flags it leaves, undefined ones too. fl is in the form of vcpu.fl (LAHF;SETO).
 * Functions that read flags, or may leave some alone, load all of them first.
 *
 * References: [SDM2], one instruction each. Threads: pure.
 */
#pragma once
#include <stdint.h>

#include "base/bits.h"

/* op s, d. The size is a constant wherever these are inlined. */
typedef uint64_t alu2_fn(uint16_t *fl, uint64_t d, uint64_t s, unsigned size);
typedef uint64_t alu1_fn(uint16_t *fl, uint64_t d, unsigned size);

#define ALU_LOAD  "addb $0x7f, %%al\n\tsahf\n\t"
#define ALU_STORE "\n\tlahf\n\tseto %%al"

/* Flags written only. */
#define ALU2(name, insn) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		uint16_t f; \
\
		switch (size) { \
		case 1: \
			__asm__(insn "b %b2, %b0" ALU_STORE : "+r"(d), "=&a"(f) : "r"(s) : "cc"); \
			break; \
		case 2: \
			__asm__(insn "w %w2, %w0" ALU_STORE : "+r"(d), "=&a"(f) : "r"(s) : "cc"); \
			break; \
		case 4: \
			__asm__(insn "l %k2, %k0" ALU_STORE : "+r"(d), "=&a"(f) : "r"(s) : "cc"); \
			break; \
		default: __asm__(insn "q %2, %0" ALU_STORE : "+r"(d), "=&a"(f) : "r"(s) : "cc"); \
		} \
		*fl = f; \
		return d; \
	}

/* Flags read and written; s may be in CL. */
#define ALU2F(name, insn, con) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		uint16_t f = *fl; \
\
		switch (size) { \
		case 1: \
			__asm__(ALU_LOAD insn "b %b2, %b0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: con(s) \
				: "cc"); \
			break; \
		case 2: \
			__asm__(ALU_LOAD insn "w %" ALU_##con##_W "2, %w0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: con(s) \
				: "cc"); \
			break; \
		case 4: \
			__asm__(ALU_LOAD insn "l %" ALU_##con##_L "2, %k0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: con(s) \
				: "cc"); \
			break; \
		default: \
			__asm__(ALU_LOAD insn "q %" ALU_##con##_Q "2, %0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: con(s) \
				: "cc"); \
		} \
		*fl = f; \
		return d; \
	}
#define ALU_IN_R(x)    "r"(x)
#define ALU_IN_C(x)    "c"(x)
#define ALU_ALU_IN_R_W "w"
#define ALU_ALU_IN_R_L "k"
#define ALU_ALU_IN_R_Q "q"
#define ALU_ALU_IN_C_W "b"
#define ALU_ALU_IN_C_L "b"
#define ALU_ALU_IN_C_Q "b"

#define ALU1F(name, insn) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, unsigned size) \
	{ \
		uint16_t f = *fl; \
\
		switch (size) { \
		case 1: __asm__(ALU_LOAD insn "b %b0" ALU_STORE : "+r"(d), "+a"(f)::"cc"); break; \
		case 2: __asm__(ALU_LOAD insn "w %w0" ALU_STORE : "+r"(d), "+a"(f)::"cc"); break; \
		case 4: __asm__(ALU_LOAD insn "l %k0" ALU_STORE : "+r"(d), "+a"(f)::"cc"); break; \
		default: __asm__(ALU_LOAD insn "q %0" ALU_STORE : "+r"(d), "+a"(f)::"cc"); \
		} \
		*fl = f; \
		return d; \
	}

ALU2(alu_add, "add")
ALU2(alu_or, "or")
ALU2F(alu_adc, "adc", ALU_IN_R)
ALU2F(alu_sbb, "sbb", ALU_IN_R)
ALU2(alu_and, "and")
ALU2(alu_sub, "sub")
ALU2(alu_xor, "xor")
ALU2(alu_cmp, "cmp")
ALU2(alu_test, "test")
ALU1F(alu_inc, "inc")
ALU1F(alu_dec, "dec")
ALU1F(alu_neg, "neg")
ALU2F(alu_rol, "rol", ALU_IN_C)
ALU2F(alu_ror, "ror", ALU_IN_C)
ALU2F(alu_rcl, "rcl", ALU_IN_C)
ALU2F(alu_rcr, "rcr", ALU_IN_C)
ALU2F(alu_shl, "shl", ALU_IN_C)
ALU2F(alu_shr, "shr", ALU_IN_C)
ALU2F(alu_sar, "sar", ALU_IN_C)
ALU1F(alu_rol1, "rol")
ALU1F(alu_ror1, "ror")
ALU1F(alu_rcl1, "rcl")
ALU1F(alu_rcr1, "rcr")
ALU1F(alu_shl1, "shl")
ALU1F(alu_shr1, "shr")
ALU1F(alu_sar1, "sar")

static always_inline uint64_t alu_not(uint16_t *fl, uint64_t d, unsigned size)
{
	(void)fl;
	(void)size;
	return ~d;
}
