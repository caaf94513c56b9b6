/*
 * Near control transfers: Jcc, JMP, CALL, RET, LOOP, JrCXZ; BOUND.
 *
 * The target is checked before anything is pushed, so that a fault leaves the stack pointer alone.
 *
 * References: [SDM2A CALL, Jcc, JMP, LOOP, BOUND], [SDM2B RET]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/rmw.h"

EXEC(JCC_Jb)
{
	if (cond(v, i->cc))
		branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
}
EXEC(JCC_Jz)
{
	if (cond(v, i->cc))
		branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
}
EXEC(JMP_Jb)
{
	branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
}
EXEC(JMP_Jz)
{
	branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
}
EXEC(JMP_Ev)
{
	branch_to(v, rm_get(v, i, i->osize), i->osize);
}
EXEC(CALL_Jz)
{
	uint64_t next = v->r[REG_RIP];

	branch_to(v, next + i->imm, i->osize);
	stack_push(v, i->osize, next);
}
EXEC(CALL_Ev)
{
	uint64_t next = v->r[REG_RIP];

	branch_to(v, rm_get(v, i, i->osize), i->osize);
	stack_push(v, i->osize, next);
}
EXEC(RET)
{
	branch_to(v, stack_peek(v, i->osize, 0), i->osize);
	stack_set(v, v->r[REG_RSP] + i->osize);
}
EXEC(RET_Iw)
{
	branch_to(v, stack_peek(v, i->osize, 0), i->osize);
	stack_set(v, v->r[REG_RSP] + i->osize + (uint16_t)i->imm);
}

/* Count register by address size, decremented; returns the new count. */
static uint64_t branch_count(struct vcpu *v, const struct insn *i)
{
	uint64_t n = (v->r[REG_RCX] - 1) & size_mask(i->asize);

	return n;
}

static void branch_loop(struct vcpu *v, const struct insn *i, bool also)
{
	uint64_t n = branch_count(v, i);

	if (n && also)
		branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
	reg_set(v, REG_RCX, i->asize, n);
}

EXEC(LOOP)
{
	branch_loop(v, i, true);
}
EXEC(LOOPE)
{
	branch_loop(v, i, v->fl & FL_Z);
}
EXEC(LOOPNE)
{
	branch_loop(v, i, !(v->fl & FL_Z));
}
EXEC(JRCXZ)
{
	if (!(v->r[REG_RCX] & size_mask(i->asize)))
		branch_to(v, v->r[REG_RIP] + i->imm, i->osize);
}

EXEC(BOUND_GvMa)
{
	unsigned n = i->osize;
	uint64_t off = insn_ea(v, i);
	int64_t index = sext(v->r[i->reg], 8 * n), lo, hi;
	gva_t la = mmu_linear(v, i->seg, off, 2 * n, ACC_READ);

	lo = sext(mem_ld(v, la, n), 8 * n);
	hi = sext(mem_ld(v, la + n, n), 8 * n);
	if (index < lo || index > hi)
		vcpu_throw(v, VEC_BR);
}
