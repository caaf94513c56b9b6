/*
 * Instructions that load and store segment registers.
 *
 * Modelled:   the interrupt shadow after MOV SS and POP SS; PUSH of a segment register writes the
 *             whole operand, zero-extended (AMD; Intel processors leave the upper bytes as they
 *             were, which no program can rely on).
 * References: [SDM2B MOV, POP, PUSH], [SDM2A LDS/LES/LFS/LGS/LSS]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"

EXEC(MOV_EvSw)
{
	unsigned n = i->reg & 7;

	if (n >= SEG_COUNT)
		throw_ud(v);
	if (i->flags & IF_MEM)
		rm_set(v, i, 2, v->seg[n].sel);
	else
		reg_set(v, i->rm, i->osize, v->seg[n].sel);
}

static void segload_set(struct vcpu *v, unsigned n, uint16_t sel)
{
	vcpu_load_seg(v, n, sel);
	if (n == SEG_SS)
		v->ev.shadow = SHADOW_MOV_SS;
}

EXEC(MOV_SwEw)
{
	unsigned n = i->reg & 7;

	if (n == SEG_CS || n >= SEG_COUNT)
		throw_ud(v);
	segload_set(v, n, (uint16_t)rm_get(v, i, 2));
}

#define PUSH(SEG) \
	EXEC(PUSH_##SEG) \
	{ \
		stack_push(v, i->osize, v->seg[SEG_##SEG].sel); \
	}
PUSH(ES)
PUSH(CS)
PUSH(SS)
PUSH(DS)
PUSH(FS)
PUSH(GS)
#undef PUSH

/* The pointer moves at the old stack's width, and only when the load has succeeded. */
static void segload_pop(struct vcpu *v, const struct insn *i, unsigned n)
{
	uint16_t sel = (uint16_t)stack_peek(v, i->osize, 0);
	uint64_t old = v->r[REG_RSP], sp;

	stack_set(v, old + i->osize);
	sp = v->r[REG_RSP];
	v->r[REG_RSP] = old;
	segload_set(v, n, sel);
	v->r[REG_RSP] = sp;
}

#define POP(SEG) \
	EXEC(POP_##SEG) \
	{ \
		segload_pop(v, i, SEG_##SEG); \
	}
POP(ES)
POP(SS)
POP(DS)
POP(FS)
POP(GS)
#undef POP

/* LDS and its kin: offset first, selector behind it. No interrupt shadow after LSS. */
static void segload_pointer(struct vcpu *v, const struct insn *i, unsigned n)
{
	uint64_t ea = insn_ea(v, i), off;
	uint16_t sel;

	off = mem_ld(v, mmu_linear(v, i->seg, ea, i->osize, ACC_READ), i->osize);
	ea = (ea + i->osize) & size_mask(i->asize);
	sel = mmu_ld16(v, mmu_linear(v, i->seg, ea, 2, ACC_READ));
	vcpu_load_seg(v, n, sel);
	reg_set(v, i->reg, i->osize, off);
}

EXEC(LES_GzMp)
{
	segload_pointer(v, i, SEG_ES);
}

EXEC(LDS_GzMp)
{
	segload_pointer(v, i, SEG_DS);
}

EXEC(LSS_GvMp)
{
	segload_pointer(v, i, SEG_SS);
}

EXEC(LFS_GvMp)
{
	segload_pointer(v, i, SEG_FS);
}

EXEC(LGS_GvMp)
{
	segload_pointer(v, i, SEG_GS);
}
