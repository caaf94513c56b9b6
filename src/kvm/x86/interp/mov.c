/*
 * Moves, exchanges, conversions, conditional moves, flags as data, no-operations.
 *
 * References: [SDM2]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

EXEC(MOV_EbGb)
{
	rm_set(v, i, 1, *reg8(v, i, i->reg));
}
EXEC(MOV_EvGv)
{
	BY_OSIZE(i, rm_set(v, i, size, v->r[i->reg]));
}
EXEC(MOV_GbEb)
{
	*reg8(v, i, i->reg) = (uint8_t)rm_get(v, i, 1);
}
EXEC(MOV_GvEv)
{
	BY_OSIZE(i, reg_set(v, i->reg, size, rm_get(v, i, size)));
}
EXEC(MOV_ZbIb)
{
	*reg8(v, i, i->rm) = (uint8_t)i->imm;
}
EXEC(MOV_ZvIv)
{
	reg_set(v, i->rm, i->osize, i->imm);
}
EXEC(MOV_EbIb)
{
	rm_set(v, i, 1, i->imm);
}
EXEC(MOV_EvIz)
{
	BY_OSIZE(i, rm_set(v, i, size, i->imm));
}

/* moffs: the offset is the immediate. */
static always_inline gva_t mov_moffs(struct vcpu *v, const struct insn *i, unsigned size,
				     unsigned acc)
{
	return mmu_linear(v, i->seg, i->imm, size, acc);
}
EXEC(MOV_ALOb)
{
	*(uint8_t *)&v->r[REG_RAX] = mmu_ld8(v, mov_moffs(v, i, 1, ACC_READ));
}
EXEC(MOV_rAXOv)
{
	reg_set(v, REG_RAX, i->osize, mem_ld(v, mov_moffs(v, i, i->osize, ACC_READ), i->osize));
}
EXEC(MOV_ObAL)
{
	mmu_st8(v, mov_moffs(v, i, 1, ACC_WRITE), (uint8_t)v->r[REG_RAX]);
}
EXEC(MOV_OvrAX)
{
	mem_st(v, mov_moffs(v, i, i->osize, ACC_WRITE), i->osize, v->r[REG_RAX]);
}

EXEC(LEA_GvM)
{
	reg_set(v, i->reg, i->osize, insn_ea(v, i));
}

EXEC(XLAT)
{
	uint64_t off = v->r[REG_RBX] + (uint8_t)v->r[REG_RAX];

	if (i->asize != 8)
		off &= size_mask(i->asize);
	*(uint8_t *)&v->r[REG_RAX] = mmu_ld8(v, mmu_linear(v, i->seg, off, 1, ACC_READ));
}

EXEC(MOVZX_GvEb)
{
	reg_set(v, i->reg, i->osize, (uint8_t)rm_get(v, i, 1));
}
EXEC(MOVZX_GvEw)
{
	reg_set(v, i->reg, i->osize, rm_get(v, i, 2));
}
EXEC(MOVSX_GvEb)
{
	reg_set(v, i->reg, i->osize, (uint64_t)(int64_t)(int8_t)rm_get(v, i, 1));
}
EXEC(MOVSX_GvEw)
{
	reg_set(v, i->reg, i->osize, (uint64_t)(int64_t)(int16_t)rm_get(v, i, 2));
}
EXEC(MOVSXD_GvEd)
{
	/* with a 16-bit operand size the source is 16 bits too */
	unsigned from = i->osize == 2 ? 2 : 4;

	reg_set(v, i->reg, i->osize, (uint64_t)sext(rm_get(v, i, from), 8 * from));
}

EXEC(CMOVCC_GvEv)
{
	/* the source is read, and a 32-bit destination zero-extended, whatever the condition */
	BY_OSIZE(i, {
		uint64_t s = rm_get(v, i, size);

		reg_set(v, i->reg, size, cond(v, i->cc) ? s : v->r[i->reg]);
	});
}
EXEC(SETCC_Eb)
{
	rm_set(v, i, 1, cond(v, i->cc));
}

EXEC(CBW)
{
	unsigned half = i->osize / 2u;

	reg_set(v, REG_RAX, i->osize, (uint64_t)sext(v->r[REG_RAX], 8 * half));
}
EXEC(CWD)
{
	reg_set(v, REG_RDX, i->osize, (uint64_t)(sext(v->r[REG_RAX], 8u * i->osize) >> 63));
}

/* ---- Flags as data -------------------------------------------------------------------------- */

EXEC(LAHF)
{
	uint16_t ah = (v->fl & (FL_S | FL_Z | FL_A | FL_P | FL_C)) | 0x200;

	v->r[REG_RAX] = (v->r[REG_RAX] & ~0xff00ull) | ah;
}
EXEC(SAHF)
{
	v->fl = (uint16_t)((v->fl & FL_O) | (v->r[REG_RAX] & (FL_S | FL_Z | FL_A | FL_P | FL_C)));
}
EXEC(SALC)
{
	*(uint8_t *)&v->r[REG_RAX] = v->fl & FL_C ? 0xff : 0;
}
EXEC(CLC)
{
	v->fl &= (uint16_t)~FL_C;
}
EXEC(STC)
{
	v->fl |= FL_C;
}
EXEC(CMC)
{
	v->fl ^= FL_C;
}
EXEC(CLD)
{
	v->rflags &= ~(uint32_t)RF_DF;
}
EXEC(STD)
{
	v->rflags |= RF_DF;
}

/* ---- No-operations -------------------------------------------------------------------------- */

EXEC(NOP)
{
}
EXEC(NOP_Ev)
{
}
EXEC(ENDBR32)
{
}
EXEC(ENDBR64)
{
}
