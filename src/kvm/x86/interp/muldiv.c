/*
 * Multiplication, division, decimal adjustment.
 *
 * Division checks for #DE first and then runs on the host, so that the flags it leaves undefined
 * are the host's. The decimal instructions do not exist in 64-bit mode and are computed here.
 *
 * References: [SDM2A DIV, IDIV, AAA, DAA], [SDM2B MUL]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

/* insn s with rax and rdx as implied operands, all flags loaded and stored. */
#define MULDIV(name, insn) \
	static always_inline void name(struct vcpu *v, uint64_t s, unsigned size) \
	{ \
		uint64_t a = v->r[REG_RAX], d = v->r[REG_RDX], f = v->fl; \
\
		switch (size) { \
		case 1: \
			__asm__(ALU_LOAD "mov %1, %%rax\n\t" insn \
					 "b %b3\n\tmov %%rax, %1" ALU_STORE \
				: "+a"(f), "+r"(a), "+d"(d) \
				: "r"(s) \
				: "cc"); \
			break; \
		case 2: \
			__asm__(ALU_LOAD "mov %1, %%rax\n\t" insn \
					 "w %w3\n\tmov %%rax, %1" ALU_STORE \
				: "+a"(f), "+r"(a), "+d"(d) \
				: "r"(s) \
				: "cc"); \
			break; \
		case 4: \
			__asm__(ALU_LOAD "mov %1, %%rax\n\t" insn \
					 "l %k3\n\tmov %%rax, %1" ALU_STORE \
				: "+a"(f), "+r"(a), "+d"(d) \
				: "r"(s) \
				: "cc"); \
			break; \
		default: \
			__asm__(ALU_LOAD "mov %1, %%rax\n\t" insn \
					 "q %3\n\tmov %%rax, %1" ALU_STORE \
				: "+a"(f), "+r"(a), "+d"(d) \
				: "r"(s) \
				: "cc"); \
		} \
		v->fl = (uint16_t)f; \
		v->r[REG_RAX] = a; \
		v->r[REG_RDX] = d; \
	}
MULDIV(muldiv_mul, "mul")
MULDIV(muldiv_imul, "imul")
MULDIV(muldiv_div, "div")
MULDIV(muldiv_idiv, "idiv")

EXEC(MUL_Eb)
{
	muldiv_mul(v, rm_get(v, i, 1), 1);
}
EXEC(MUL_Ev)
{
	BY_OSIZE(i, muldiv_mul(v, rm_get(v, i, size), size));
}
EXEC(IMUL_Eb)
{
	muldiv_imul(v, rm_get(v, i, 1), 1);
}
EXEC(IMUL_Ev)
{
	BY_OSIZE(i, muldiv_imul(v, rm_get(v, i, size), size));
}

static always_inline uint64_t muldiv_imul2(uint16_t *fl, uint64_t d, uint64_t s, unsigned size)
{
	uint64_t f = *fl;

	if (size == 8)
		__asm__(ALU_LOAD "imulq %2, %1" ALU_STORE : "+a"(f), "+r"(d) : "r"(s) : "cc");
	else if (size == 4)
		__asm__(ALU_LOAD "imull %k2, %k1" ALU_STORE : "+a"(f), "+r"(d) : "r"(s) : "cc");
	else
		__asm__(ALU_LOAD "imulw %w2, %w1" ALU_STORE : "+a"(f), "+r"(d) : "r"(s) : "cc");
	*fl = (uint16_t)f;
	return d;
}

EXEC(IMUL_GvEv)
{
	BY_OSIZE(i, reg_set(v, i->reg, size,
			    muldiv_imul2(&v->fl, v->r[i->reg], rm_get(v, i, size), size)));
}
EXEC(IMUL_GvEvIz)
{
	BY_OSIZE(i,
		 reg_set(v, i->reg, size, muldiv_imul2(&v->fl, rm_get(v, i, size), i->imm, size)));
}
EXEC(IMUL_GvEvIbs)
{
	BY_OSIZE(i,
		 reg_set(v, i->reg, size, muldiv_imul2(&v->fl, rm_get(v, i, size), i->imm, size)));
}

/* ---- Division ------------------------------------------------------------------------------- */

static always_inline void muldiv_check_div(struct vcpu *v, uint64_t s, unsigned size)
{
	uint64_t hi = size == 1 ? (v->r[REG_RAX] >> 8) & 0xff : v->r[REG_RDX] & size_mask(size);

	if ((s & size_mask(size)) <= hi) /* zero too */
		vcpu_throw(v, VEC_DE);
}

static always_inline void muldiv_check_idiv(struct vcpu *v, uint64_t s, unsigned size)
{
	__int128 n, q, min = -((__int128)1 << (8 * size - 1));
	int64_t d = sext(s, 8 * size);

	if (size == 1)
		n = (int16_t)v->r[REG_RAX];
	else
		n = (__int128)(((unsigned __int128)(__int128)sext(v->r[REG_RDX], 8 * size)
				<< (8 * size)) |
			       (v->r[REG_RAX] & size_mask(size)));
	if (d == 0)
		vcpu_throw(v, VEC_DE);
	if (d == -1) {
		/* the quotient -n must fit; n == INT128_MIN cannot even be negated */
		if (n <= min || n > -min)
			vcpu_throw(v, VEC_DE);
		return;
	}
	q = n / d;
	if (q < min || q >= -min)
		vcpu_throw(v, VEC_DE);
}

EXEC(DIV_Eb)
{
	uint64_t s = rm_get(v, i, 1);

	muldiv_check_div(v, s, 1);
	muldiv_div(v, s, 1);
}
EXEC(DIV_Ev)
{
	BY_OSIZE(i, {
		uint64_t s = rm_get(v, i, size);

		muldiv_check_div(v, s, size);
		muldiv_div(v, s, size);
	});
}
EXEC(IDIV_Eb)
{
	uint64_t s = rm_get(v, i, 1);

	muldiv_check_idiv(v, s, 1);
	muldiv_idiv(v, s, 1);
}
EXEC(IDIV_Ev)
{
	BY_OSIZE(i, {
		uint64_t s = rm_get(v, i, size);

		muldiv_check_idiv(v, s, size);
		muldiv_idiv(v, s, size);
	});
}

/* ---- Decimal -------------------------------------------------------------------------------- */

/* Set AL (or AX) and take S, Z, P from AL; C and A as given; O cleared. */
static void muldiv_bcd_flags(struct vcpu *v, uint8_t al, bool cf, bool af)
{
	uint16_t fl = 0;

	alu_test(&fl, al, al, 1);
	v->fl = (uint16_t)((fl & (FL_S | FL_Z | FL_P)) | (cf ? FL_C : 0) | (af ? FL_A : 0));
}

static void muldiv_daa(struct vcpu *v, int sign)
{
	uint8_t al = (uint8_t)v->r[REG_RAX], old = al;
	bool cf = v->fl & FL_C, af = v->fl & FL_A, ncf = false;

	if ((al & 15) > 9 || af) {
		ncf = cf || (sign > 0 ? al > 0xff - 6 : al < 6);
		al = (uint8_t)(al + 6 * sign);
		af = true;
	}
	if (old > 0x99 || cf) {
		al = (uint8_t)(al + 0x60 * sign);
		ncf = true;
	}
	*(uint8_t *)&v->r[REG_RAX] = al;
	muldiv_bcd_flags(v, al, ncf, af);
}

EXEC(DAA)
{
	muldiv_daa(v, 1);
}
EXEC(DAS)
{
	muldiv_daa(v, -1);
}

static void muldiv_aaa(struct vcpu *v, int sign)
{
	uint16_t ax = (uint16_t)v->r[REG_RAX];
	bool adjust = (ax & 15) > 9 || (v->fl & FL_A);

	if (adjust)
		ax = (uint16_t)(ax + 0x106 * sign);
	ax &= 0xff0f;
	reg_set(v, REG_RAX, 2, ax);
	muldiv_bcd_flags(v, (uint8_t)ax, adjust, adjust);
}

EXEC(AAA)
{
	muldiv_aaa(v, 1);
}
EXEC(AAS)
{
	muldiv_aaa(v, -1);
}
EXEC(AAM)
{
	uint8_t al = (uint8_t)v->r[REG_RAX], base = (uint8_t)i->imm;

	if (!base)
		vcpu_throw(v, VEC_DE);
	reg_set(v, REG_RAX, 2, (uint64_t)(al / base) << 8 | al % base);
	muldiv_bcd_flags(v, al % base, false, false);
}
EXEC(AAD)
{
	uint8_t al = (uint8_t)v->r[REG_RAX], ah = (uint8_t)(v->r[REG_RAX] >> 8);

	al = (uint8_t)(al + ah * (uint8_t)i->imm);
	reg_set(v, REG_RAX, 2, al);
	muldiv_bcd_flags(v, al, false, false);
}
