/*
 * GDTR, IDTR, LDTR, TR and the machine status word: loads and stores.
 *
 * Modelled:   UMIP; 16-byte descriptors in long mode. SGDT and SIDT with a 16-bit operand size
 *             store all 32 bits of the base, as processors since the 386 do.
 * References: [SDM2A LGDT/LIDT, LLDT, LMSW, LTR], [SDM2B SGDT, SIDT, SLDT, SMSW, STR].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/system.h"

static void dtable_umip(struct vcpu *v)
{
	if ((v->cr4 & CR4_UMIP) && v->cpl > 0)
		throw_gp(v, 0);
}

static void dtable_load(struct vcpu *v, const struct insn *i, struct dtable *t)
{
	unsigned width = v->long64 ? 8 : 4;
	uint64_t ea = insn_ea(v, i), base;
	uint16_t limit;

	limit = mmu_ld16(v, mmu_linear(v, i->seg, ea, 2, ACC_READ));
	ea = (ea + 2) & size_mask(i->asize);
	base = mem_ld(v, mmu_linear(v, i->seg, ea, width, ACC_READ), width);
	if (width == 8) {
		if (!seg_canonical(base))
			throw_gp(v, 0);
	} else if (i->osize == 2) {
		base &= 0xffffff;
	}
	*t = (struct dtable){ .base = base, .limit = limit };
}

static void dtable_store(struct vcpu *v, const struct insn *i, const struct dtable *t)
{
	unsigned width = v->long64 ? 8 : 4;
	uint64_t ea = insn_ea(v, i);
	gva_t limit_la, base_la;

	dtable_umip(v);
	limit_la = mmu_linear(v, i->seg, ea, 2, ACC_WRITE);
	base_la = mmu_linear(v, i->seg, (ea + 2) & size_mask(i->asize), width, ACC_WRITE);
	mmu_probe(v, base_la, width, ACC_WRITE);
	mmu_st16(v, limit_la, t->limit);
	mem_st(v, base_la, width, t->base);
}

EXEC(LGDT_Ms)
{
	dtable_load(v, i, &v->gdt);
}

EXEC(LIDT_Ms)
{
	dtable_load(v, i, &v->idt);
}

EXEC(SGDT_Ms)
{
	dtable_store(v, i, &v->gdt);
}

EXEC(SIDT_Ms)
{
	dtable_store(v, i, &v->idt);
}

/* 16 bits to memory, the operand size to a register. */
static void dtable_put(struct vcpu *v, const struct insn *i, uint64_t x)
{
	dtable_umip(v);
	if (i->flags & IF_MEM)
		rm_set(v, i, 2, x);
	else
		reg_set(v, i->rm, i->osize, x);
}

EXEC(SLDT)
{
	dtable_put(v, i, v->ldtr.sel);
}

EXEC(STR)
{
	dtable_put(v, i, v->tr.sel);
}

EXEC(SMSW)
{
	dtable_put(v, i, v->cr0);
}

EXEC(LLDT_Ew)
{
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;
	struct seg s;

	if (seg_null(sel)) {
		v->ldtr = seg_make_null(sel, 0);
		return;
	}
	if ((sel & 4) || !seg_fetch_sys(v, sel, &d) || desc_user(&d) || desc_type(&d) != DESC_LDT)
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, 0));
	s = seg_make(sel, &d);
	if (!seg_canonical(s.base))
		throw_gp(v, seg_error(sel, 0));
	v->ldtr = s;
}

EXEC(LTR_Ew)
{
	uint16_t sel = (uint16_t)rm_get(v, i, 2);
	struct desc d;
	struct seg s;

	if (seg_null(sel))
		throw_gp(v, 0);
	if ((sel & 4) || !seg_fetch_sys(v, sel, &d) || desc_user(&d) ||
	    !(desc_type(&d) == DESC_TSS32 || (desc_type(&d) == DESC_TSS16 && !seg_long_mode(v))))
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, 0));
	s = seg_make(sel, &d);
	if (!seg_canonical(s.base))
		throw_gp(v, seg_error(sel, 0));
	seg_type_bits(v, d.la, 2, 0);
	s.ar |= 2;
	v->tr = s;
}

EXEC(LMSW_Ew)
{
	uint64_t x = rm_get(v, i, 2) & (CR0_PE | CR0_MP | CR0_EM | CR0_TS);

	/* PE can be set this way but not cleared */
	vcpu_write_cr0(v, (v->cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | x);
}
