/*
 * Two-operand arithmetic and logic, INC/DEC/NOT/NEG.
 *
 * References: [SDM2A-D] each instruction. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

/* The ten encodings of an operation that writes its first operand. */
#define ARITH_WB(N, op) \
	EXEC(N##_EbGb) \
	{ \
		rmw_rm(v, i, 1, op, *reg8(v, i, i->reg)); \
	} \
	EXEC(N##_EvGv) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, v->r[i->reg])); \
	} \
	EXEC(N##_GbEb) \
	{ \
		uint64_t s = rm_get(v, i, 1); \
		uint8_t *r = reg8(v, i, i->reg); \
\
		*r = (uint8_t)op(&v->fl, *r, s, 1); \
	} \
	EXEC(N##_GvEv) \
	{ \
		BY_OSIZE(i, reg_set(v, i->reg, size, \
				    op(&v->fl, v->r[i->reg], rm_get(v, i, size), size))); \
	} \
	EXEC(N##_ALIb) \
	{ \
		uint8_t *r = (uint8_t *)&v->r[REG_RAX]; \
\
		*r = (uint8_t)op(&v->fl, *r, i->imm, 1); \
	} \
	EXEC(N##_rAXIz) \
	{ \
		BY_OSIZE(i, reg_set(v, REG_RAX, size, op(&v->fl, v->r[REG_RAX], i->imm, size))); \
	} \
	EXEC(N##_EbIb) \
	{ \
		rmw_rm(v, i, 1, op, i->imm); \
	} \
	EXEC(N##_EbIb_82) \
	{ \
		rmw_rm(v, i, 1, op, i->imm); \
	} \
	EXEC(N##_EvIz) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, i->imm)); \
	} \
	EXEC(N##_EvIbs) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, i->imm)); \
	}

ARITH_WB(ADD, alu_add)
ARITH_WB(OR, alu_or)
ARITH_WB(ADC, alu_adc)
ARITH_WB(SBB, alu_sbb)
ARITH_WB(AND, alu_and)
ARITH_WB(SUB, alu_sub)
ARITH_WB(XOR, alu_xor)

/* Flags only. */
EXEC(CMP_EbGb)
{
	alu_cmp(&v->fl, rm_get(v, i, 1), *reg8(v, i, i->reg), 1);
}
EXEC(CMP_EvGv)
{
	BY_OSIZE(i, alu_cmp(&v->fl, rm_get(v, i, size), v->r[i->reg], size));
}
EXEC(CMP_GbEb)
{
	alu_cmp(&v->fl, *reg8(v, i, i->reg), rm_get(v, i, 1), 1);
}
EXEC(CMP_GvEv)
{
	BY_OSIZE(i, alu_cmp(&v->fl, v->r[i->reg], rm_get(v, i, size), size));
}
EXEC(CMP_ALIb)
{
	alu_cmp(&v->fl, v->r[REG_RAX], i->imm, 1);
}
EXEC(CMP_rAXIz)
{
	BY_OSIZE(i, alu_cmp(&v->fl, v->r[REG_RAX], i->imm, size));
}
EXEC(CMP_EbIb)
{
	alu_cmp(&v->fl, rm_get(v, i, 1), i->imm, 1);
}
EXEC(CMP_EbIb_82)
{
	alu_cmp(&v->fl, rm_get(v, i, 1), i->imm, 1);
}
EXEC(CMP_EvIz)
{
	BY_OSIZE(i, alu_cmp(&v->fl, rm_get(v, i, size), i->imm, size));
}
EXEC(CMP_EvIbs)
{
	BY_OSIZE(i, alu_cmp(&v->fl, rm_get(v, i, size), i->imm, size));
}
EXEC(TEST_EbGb)
{
	alu_test(&v->fl, rm_get(v, i, 1), *reg8(v, i, i->reg), 1);
}
EXEC(TEST_EvGv)
{
	BY_OSIZE(i, alu_test(&v->fl, rm_get(v, i, size), v->r[i->reg], size));
}
EXEC(TEST_ALIb)
{
	alu_test(&v->fl, v->r[REG_RAX], i->imm, 1);
}
EXEC(TEST_rAXIz)
{
	BY_OSIZE(i, alu_test(&v->fl, v->r[REG_RAX], i->imm, size));
}
EXEC(TEST_EbIb)
{
	alu_test(&v->fl, rm_get(v, i, 1), i->imm, 1);
}
EXEC(TEST_EbIb_1)
{
	alu_test(&v->fl, rm_get(v, i, 1), i->imm, 1);
}
EXEC(TEST_EvIz)
{
	BY_OSIZE(i, alu_test(&v->fl, rm_get(v, i, size), i->imm, size));
}
EXEC(TEST_EvIz_1)
{
	BY_OSIZE(i, alu_test(&v->fl, rm_get(v, i, size), i->imm, size));
}

/* One operand: the second is ignored. */
#define ARITH_ONE(name, op) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		(void)s; \
		return op(fl, d, size); \
	}
ARITH_ONE(arith_inc, alu_inc)
ARITH_ONE(arith_dec, alu_dec)
ARITH_ONE(arith_not, alu_not)
ARITH_ONE(arith_neg, alu_neg)

#define ARITH_ROWS(N, op) \
	EXEC(N##_Eb) \
	{ \
		rmw_rm(v, i, 1, op, 0); \
	} \
	EXEC(N##_Ev) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, 0)); \
	}
ARITH_ROWS(INC, arith_inc)
ARITH_ROWS(DEC, arith_dec)
ARITH_ROWS(NOT, arith_not)
ARITH_ROWS(NEG, arith_neg)

EXEC(INC_Zv)
{
	BY_OSIZE(i, reg_set(v, i->rm, size, alu_inc(&v->fl, v->r[i->rm], size)));
}
EXEC(DEC_Zv)
{
	BY_OSIZE(i, reg_set(v, i->rm, size, alu_dec(&v->fl, v->r[i->rm], size)));
}
