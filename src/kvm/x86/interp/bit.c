/*
 * Bit tests, scans, byte swap.
 *
 * References: [SDM2A BT, BSF, BSR, BSWAP]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

/* CF = bit s of d; the other flags as the host leaves them. */
#define BIT_OP(name, insn) \
	static always_inline uint64_t name(uint16_t *fl, uint64_t d, uint64_t s, unsigned size) \
	{ \
		uint16_t f = *fl; \
\
		if (size == 8) \
			__asm__(ALU_LOAD insn "q %2, %0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(s) \
				: "cc"); \
		else if (size == 4) \
			__asm__(ALU_LOAD insn "l %k2, %k0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(s) \
				: "cc"); \
		else \
			__asm__(ALU_LOAD insn "w %w2, %w0" ALU_STORE \
				: "+r"(d), "+a"(f) \
				: "r"(s) \
				: "cc"); \
		*fl = f; \
		return d; \
	}
BIT_OP(bit_bt, "bt")
BIT_OP(bit_bts, "bts")
BIT_OP(bit_btr, "btr")
BIT_OP(bit_btc, "btc")

/* With a register index, a memory operand is a bit string that reaches far from its address. */
static always_inline gva_t bit_la(struct vcpu *v, const struct insn *i, unsigned size, unsigned acc)
{
	int64_t n = sext(v->r[i->reg], 8 * size);
	uint64_t off = insn_ea(v, i);

	off += (uint64_t)((n >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (int64_t)size);
	if (i->asize != 8)
		off &= i->asize == 4 ? 0xffffffff : 0xffff;
	return mmu_linear(v, i->seg, off, size, acc);
}

static always_inline void bit_rm_reg(struct vcpu *v, const struct insn *i, unsigned size,
				     alu2_fn *op)
{
	uint64_t old;

	if (i->flags & IF_MEM)
		rmw_mem(v, i, bit_la(v, i, size, ACC_WRITE), size, op,
			v->r[i->reg] & (8 * size - 1), &old);
	else
		rmw_rm(v, i, size, op, v->r[i->reg]);
}

EXEC(BT_EvGv)
{
	BY_OSIZE(i, {
		if (i->flags & IF_MEM)
			bit_bt(&v->fl, mem_ld(v, bit_la(v, i, size, ACC_READ), size),
			       v->r[i->reg] & (8 * size - 1), size);
		else
			bit_bt(&v->fl, v->r[i->rm], v->r[i->reg], size);
	});
}
EXEC(BT_EvIb)
{
	BY_OSIZE(i, bit_bt(&v->fl, rm_get(v, i, size), i->imm & (8 * size - 1), size));
}

#define BIT_ROWS(N, op) \
	EXEC(N##_EvGv) \
	{ \
		BY_OSIZE(i, bit_rm_reg(v, i, size, op)); \
	} \
	EXEC(N##_EvIb) \
	{ \
		BY_OSIZE(i, rmw_rm(v, i, size, op, i->imm &(8 * size - 1))); \
	}
BIT_ROWS(BTS, bit_bts)
BIT_ROWS(BTR, bit_btr)
BIT_ROWS(BTC, bit_btc)

/* A zero source leaves the destination as it is, all 64 bits of it: so the whole register goes in.
 */
#define BIT_SCAN(N, insn) \
	EXEC(N) \
	{ \
		uint64_t d = v->r[i->reg]; \
		uint16_t f = v->fl; \
\
		BY_OSIZE(i, { \
			uint64_t s = rm_get(v, i, size); \
\
			if (size == 8) \
				__asm__(ALU_LOAD insn "q %2, %0" ALU_STORE \
					: "+r"(d), "+a"(f) \
					: "r"(s) \
					: "cc"); \
			else if (size == 4) \
				__asm__(ALU_LOAD insn "l %k2, %k0" ALU_STORE \
					: "+r"(d), "+a"(f) \
					: "r"(s) \
					: "cc"); \
			else \
				__asm__(ALU_LOAD insn "w %w2, %w0" ALU_STORE \
					: "+r"(d), "+a"(f) \
					: "r"(s) \
					: "cc"); \
		}); \
		v->fl = f; \
		v->r[i->reg] = d; \
	}
BIT_SCAN(BSF_GvEv, "bsf")
BIT_SCAN(BSR_GvEv, "bsr")

EXEC(BSWAP_Zv)
{
	uint64_t x = v->r[i->rm];

	if (i->osize == 8)
		v->r[i->rm] = __builtin_bswap64(x);
	else if (i->osize == 4)
		v->r[i->rm] = __builtin_bswap32((uint32_t)x);
	else
		v->r[i->rm] = x & ~0xffffull; /* undefined; processors clear the low half */
}
