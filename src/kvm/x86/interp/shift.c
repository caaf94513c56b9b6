/*
 * Shifts, rotates, double shifts.
 *
 * The host does the masking of counts and leaves flags alone for a count of zero, as the guest
 * expects. A count of zero still needs write permission of a memory operand, and a 32-bit register
 * is still zero-extended.
 *
 * References: [SDM2B SAL, RCL, SHLD]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

#define SHIFT_ONE(name, op) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		(void)s; \
		return op(fl, d, size); \
	}
SHIFT_ONE(shift_rol1, alu_rol1)
SHIFT_ONE(shift_ror1, alu_ror1)
SHIFT_ONE(shift_rcl1, alu_rcl1)
SHIFT_ONE(shift_rcr1, alu_rcr1)
SHIFT_ONE(shift_shl1, alu_shl1)
SHIFT_ONE(shift_shr1, alu_shr1)
SHIFT_ONE(shift_sar1, alu_sar1)

#define SHIFT_ROWS(N, S, op, one) \
	EXEC(N##_EbIb##S) \
	{ \
		rmw_rm(v, i, 1, op, i->imm); \
	} \
	EXEC(N##_EvIb##S) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, i->imm)); \
	} \
	EXEC(N##_Eb1##S) \
	{ \
		rmw_rm(v, i, 1, one, 1); \
	} \
	EXEC(N##_Ev1##S) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, one, 1)); \
	} \
	EXEC(N##_EbCL##S) \
	{ \
		rmw_rm(v, i, 1, op, v->r[REG_RCX]); \
	} \
	EXEC(N##_EvCL##S) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, v->r[REG_RCX])); \
	}
SHIFT_ROWS(ROL, , alu_rol, shift_rol1)
SHIFT_ROWS(ROR, , alu_ror, shift_ror1)
SHIFT_ROWS(RCL, , alu_rcl, shift_rcl1)
SHIFT_ROWS(RCR, , alu_rcr, shift_rcr1)
SHIFT_ROWS(SHL, , alu_shl, shift_shl1)
SHIFT_ROWS(SHR, , alu_shr, shift_shr1)
SHIFT_ROWS(SAR, , alu_sar, shift_sar1)
SHIFT_ROWS(SHL, _6, alu_shl, shift_shl1)

/* SHLD and SHRD take three operands: the filler travels in a struct beside the count. */
struct shift_double {
	uint64_t fill, count;
};

#define SHIFT_DOUBLE(name, insn) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		const struct shift_double *x = (const void *)(uintptr_t)s; \
		uint64_t fill = x->fill, count = x->count; \
		uint16_t f = *fl; \
\
		if (size == 8) \
			__asm__(ALU_LOAD insn "q %%cl, %2, %0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(fill), "c"(count) \
				: "cc"); \
		else if (size == 4) \
			__asm__(ALU_LOAD insn "l %%cl, %k2, %k0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(fill), "c"(count) \
				: "cc"); \
		else \
			__asm__(ALU_LOAD insn "w %%cl, %w2, %w0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(fill), "c"(count) \
				: "cc"); \
		*fl = f; \
		return d; \
	}
SHIFT_DOUBLE(shift_shld, "shld")
SHIFT_DOUBLE(shift_shrd, "shrd")

#define SHIFT_DOUBLE_ROWS(N, op) \
	EXEC(N##_EvGvIb) \
	{ \
		struct shift_double x = { v->r[i->reg], i->imm }; \
\
		BY_OSIZE(i, rmw_rm(v, i, size, op, (uintptr_t)&x)); \
	} \
	EXEC(N##_EvGvCL) \
	{ \
		struct shift_double x = { v->r[i->reg], v->r[REG_RCX] }; \
\
		BY_OSIZE(i, rmw_rm(v, i, size, op, (uintptr_t)&x)); \
	}
SHIFT_DOUBLE_ROWS(SHLD, shift_shld)
SHIFT_DOUBLE_ROWS(SHRD, shift_shrd)
