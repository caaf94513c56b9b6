/*
 * PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE.
 *
 * References: [SDM2B PUSH, POP, PUSHF], [SDM2A ENTER, LEAVE], [SDM3 20.2.2 and 20.3 virtual-8086].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/exec.h"

EXEC(PUSH_Zv)
{
	stack_push(v, i->osize, v->r[i->rm]);
}
EXEC(POP_Zv)
{
	uint64_t x = stack_peek(v, i->osize, 0);

	stack_set(v, v->r[REG_RSP] + i->osize);
	reg_set(v, i->rm, i->osize, x); /* after: POP rSP loads the value */
}
EXEC(PUSH_Iz)
{
	stack_push(v, i->osize, i->imm);
}
EXEC(PUSH_Ibs)
{
	stack_push(v, i->osize, i->imm);
}
EXEC(PUSH_Ev)
{
	stack_push(v, i->osize, rm_get(v, i, i->osize));
}
EXEC(POP_Ev)
{
	uint64_t x = stack_peek(v, i->osize, 0), sp = v->r[REG_RSP];

	/* an address formed with rSP uses its value after the pop */
	stack_set(v, sp + i->osize);
	if (i->flags & IF_MEM) {
		gva_t la;
		uint64_t off = insn_ea(v, i);

		v->r[REG_RSP] = sp; /* until the store has succeeded */
		la = mmu_linear(v, i->seg, off, i->osize, ACC_WRITE);
		mem_st(v, la, i->osize, x);
		stack_set(v, sp + i->osize);
	} else {
		reg_set(v, i->rm, i->osize, x);
	}
}

EXEC(PUSHA)
{
	unsigned n = i->osize;
	uint64_t sp = (v->r[REG_RSP] - 8 * n) & stack_mask(v);
	uint8_t buf[32];

	for (unsigned r = 0; r < 8; r++) /* rDI at the lowest address */
		memcpy(buf + (7 - r) * n, &v->r[r], n);
	if (!v->ac_check && sp + 8 * n - 1 <= stack_mask(v)) {
		mmu_write(v, mmu_linear(v, SEG_SS, sp, 8 * n, ACC_WRITE), buf, 8 * n, ACC_WRITE);
	} else {
		/* wraps, or is checked for alignment: element by element, all checked first */
		for (int pass = 0; pass < 2; pass++)
			for (unsigned r = 0; r < 8; r++) {
				gva_t la = mmu_linear(v, SEG_SS, (sp + r * n) & stack_mask(v), n,
						      ACC_WRITE);

				if (pass)
					mmu_write(v, la, buf + r * n, n, ACC_WRITE);
				else
					mmu_probe(v, la, n, ACC_WRITE);
			}
	}
	stack_set(v, sp);
}
EXEC(POPA)
{
	uint64_t x[8];

	for (unsigned r = 0; r < 8; r++)
		x[7 - r] = stack_peek(v, i->osize, r * i->osize);
	for (unsigned r = 0; r < 8; r++)
		if (r != REG_RSP)
			reg_set(v, r, i->osize, x[r]);
	stack_set(v, v->r[REG_RSP] + 8u * i->osize);
}

/* ---- Flags ---------------------------------------------------------------------------------- */

static unsigned stack_iopl(const struct vcpu *v)
{
	return (v->rflags & RF_IOPL) >> 12;
}

EXEC(PUSHF)
{
	uint64_t x = vcpu_rflags(v) & ~(uint64_t)(RF_VM | RF_RF);

	if ((v->rflags & RF_VM) && stack_iopl(v) < 3) {
		if (!(v->cr4 & CR4_VME) || i->osize != 2)
			throw_gp(v, 0);
		/* virtual interrupt flag in place of IF, IOPL reads as 3 */
		x = (x & ~(uint64_t)RF_IF) | (v->rflags & RF_VIF ? RF_IF : 0) | RF_IOPL;
	}
	stack_push(v, i->osize, x);
}

EXEC(POPF)
{
	uint64_t mask = F_ARITH | RF_TF | RF_DF | RF_NT | RF_AC | RF_ID, x;

	x = stack_peek(v, i->osize, 0);
	if ((v->rflags & RF_VM) && stack_iopl(v) < 3) {
		if (!(v->cr4 & CR4_VME) || i->osize != 2 || ((x & RF_IF) && (v->rflags & RF_VIP)) ||
		    (x & RF_TF))
			throw_gp(v, 0);
		stack_set(v, v->r[REG_RSP] + 2);
		vcpu_set_rflags(v, x, (F_ARITH | RF_DF | RF_NT) & 0xffff);
		vcpu_set_rflags(v, x & RF_IF ? RF_VIF : 0, RF_VIF);
		vcpu_update_mode(v);
		return;
	}
	if (v->cpl == 0 && !(v->rflags & RF_VM))
		mask |= RF_IOPL | RF_IF;
	else if (v->cpl <= stack_iopl(v) || (v->rflags & RF_VM))
		mask |= RF_IF;
	if (i->osize == 2)
		mask &= 0xffff;
	stack_set(v, v->r[REG_RSP] + i->osize);
	vcpu_set_rflags(v, x, mask);
	v->rflags &= ~(uint32_t)RF_RF;
	vcpu_update_mode(v);
}

/* ---- Frames --------------------------------------------------------------------------------- */

EXEC(ENTER)
{
	unsigned n = i->osize, level = i->imm2 & 31;
	uint64_t mask = stack_mask(v), sp = v->r[REG_RSP], bp = v->r[REG_RBP], frame;
	gva_t la;

	sp = (sp - n) & mask;
	frame = sp;
	mem_st(v, mmu_linear(v, SEG_SS, sp, n, ACC_WRITE), n, bp);
	for (unsigned k = 1; k < level; k++) {
		uint64_t x;

		bp = (bp - n) & mask;
		x = mem_ld(v, mmu_linear(v, SEG_SS, bp, n, ACC_READ), n);
		sp = (sp - n) & mask;
		mem_st(v, mmu_linear(v, SEG_SS, sp, n, ACC_WRITE), n, x);
	}
	if (level) {
		sp = (sp - n) & mask;
		mem_st(v, mmu_linear(v, SEG_SS, sp, n, ACC_WRITE), n, frame);
	}
	sp = (sp - (uint16_t)i->imm) & mask;
	/* the new top must be writable, though nothing is written there */
	la = mmu_linear(v, SEG_SS, sp, n, ACC_WRITE);
	mmu_probe(v, la, n, ACC_WRITE);
	if (n == 2)
		reg_set(v, REG_RBP, 2, frame);
	else if (v->stack_size == 2)
		reg_set(v, REG_RBP, 4, (v->r[REG_RSP] & ~mask) | frame);
	else
		reg_set(v, REG_RBP, n, frame);
	stack_set(v, sp);
}

EXEC(LEAVE)
{
	uint64_t bp = v->r[REG_RBP] & stack_mask(v);
	uint64_t x = mem_ld(v, mmu_linear(v, SEG_SS, bp, i->osize, ACC_READ), i->osize);

	stack_set(v, bp + i->osize);
	reg_set(v, REG_RBP, i->osize, x);
}
