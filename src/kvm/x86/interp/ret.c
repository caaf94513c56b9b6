/*
 * Far returns: RETF and IRET in all modes.
 *
 * Modelled:   returns to the same and to an outer level, to another mode, to virtual-8086 mode, to
 *             the previous task; VME's IRET in virtual-8086 mode; NMI unblocking by IRET even when
 * it faults. RFLAGS.RF stays set only while breakpoints are armed: it does nothing else.
 * References: [SDM2B RET], [SDM2A IRET], [SDM3 6.7.1, 20.2, 20.3.3]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/seg.h"

/* What has been popped, and what it leads to. */
struct ret {
	uint64_t rip, rsp;
	uint16_t cs, ss;
	struct desc cs_desc, ss_desc;
	bool null_ss;
};

/* The code segment of a return: level and type, then presence. */
static void ret_check_cs(struct vcpu *v, struct ret *r)
{
	unsigned rpl = r->cs & 3;
	struct desc *d = &r->cs_desc;

	if (seg_null(r->cs))
		throw_gp(v, 0);
	if (!seg_fetch(v, r->cs, d) || !desc_is_code(d) || rpl < v->cpl)
		throw_gp(v, seg_error(r->cs, 0));
	if (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
		throw_gp(v, seg_error(r->cs, 0));
	if (seg_long_mode(v) && desc_long(d) && desc_big(d))
		throw_gp(v, seg_error(r->cs, 0));
	if (!desc_present(d))
		vcpu_throw_error(v, VEC_NP, seg_error(r->cs, 0));
}

static void ret_check_ss(struct vcpu *v, struct ret *r)
{
	unsigned cpl = r->cs & 3;
	struct desc *d = &r->ss_desc;

	r->null_ss = seg_null(r->ss);
	if (r->null_ss) {
		/* 64-bit code below level 3 needs no SS */
		if (!seg_long_mode(v) || !desc_long(&r->cs_desc) || cpl == 3 || (r->ss & 3) != cpl)
			throw_gp(v, 0);
		return;
	}
	if (!seg_fetch(v, r->ss, d) || (r->ss & 3) != cpl || !desc_writable_data(d) ||
	    desc_dpl(d) != cpl)
		throw_gp(v, seg_error(r->ss, 0));
	if (!desc_present(d))
		vcpu_throw_error(v, VEC_SS, seg_error(r->ss, 0));
}

static void ret_set_cs(struct vcpu *v, const struct ret *r)
{
	v->seg[SEG_CS] = seg_make(r->cs, &r->cs_desc);
	v->r[REG_RIP] = r->rip;
}

/* Load CS:rIP and SS:rSP; extra: bytes that RETF Iw releases on the outer stack. */
static void ret_set_both(struct vcpu *v, const struct ret *r, unsigned extra)
{
	unsigned old = v->cpl;
	uint64_t rsp = r->rsp + extra;

	ret_set_cs(v, r);
	v->seg[SEG_SS] =
		r->null_ss ? seg_make_null(r->ss, r->cs & 3) : seg_make(r->ss, &r->ss_desc);
	v->cpl = r->cs & 3;
	if (seg_long_mode(v) && desc_long(&r->cs_desc))
		v->r[REG_RSP] = rsp;
	else if (v->seg[SEG_SS].ar & SEG_AR_DB)
		v->r[REG_RSP] = (uint32_t)rsp;
	else
		v->r[REG_RSP] = (v->r[REG_RSP] & ~0xffffull) | (rsp & 0xffff);
	if (v->cpl > old)
		seg_drop_inner(v);
}

static void ret_accessed(struct vcpu *v, const struct ret *r, bool both)
{
	seg_mark_accessed(v, &r->cs_desc);
	if (both && !r->null_ss)
		seg_mark_accessed(v, &r->ss_desc);
}

/* ---- RETF ----------------------------------------------------------------------------------- */

static void ret_far(struct vcpu *v, const struct insn *i, unsigned extra)
{
	unsigned size = i->osize;
	struct ret r = { 0 };

	r.rip = stack_peek(v, size, 0);
	r.cs = (uint16_t)stack_peek(v, size, size);
	if (v->real) {
		if (r.rip > v->seg[SEG_CS].limit)
			throw_gp(v, 0);
		vcpu_set_seg_real(v, SEG_CS, r.cs);
		v->r[REG_RIP] = r.rip;
		stack_set(v, v->r[REG_RSP] + 2 * size + extra);
		vcpu_update_mode(v);
		return;
	}
	ret_check_cs(v, &r);
	if ((r.cs & 3) == v->cpl) {
		far_check_rip(v, &r.cs_desc, r.rip, 0);
		ret_accessed(v, &r, false);
		stack_set(v, v->r[REG_RSP] + 2 * size + extra);
		ret_set_cs(v, &r);
	} else {
		r.rsp = stack_peek(v, size, 2 * size + extra);
		r.ss = (uint16_t)stack_peek(v, size, 3 * size + extra);
		ret_check_ss(v, &r);
		far_check_rip(v, &r.cs_desc, r.rip, 0);
		ret_accessed(v, &r, true);
		ret_set_both(v, &r, extra);
	}
	vcpu_update_mode(v);
}

EXEC(RETF)
{
	ret_far(v, i, 0);
}

EXEC(RETF_Iw)
{
	ret_far(v, i, (uint16_t)i->imm);
}

/* ---- IRET ----------------------------------------------------------------------------------- */

/* Flags that IRET may change at the level it is executed at. */
static uint64_t ret_flag_mask(const struct vcpu *v, unsigned size)
{
	uint64_t mask = F_ARITH | RF_TF | RF_DF | RF_NT;
	unsigned iopl = v->rflags >> 12 & 3;

	if (size >= 4)
		mask |= RF_RF | RF_AC | RF_ID;
	if (v->cpl <= iopl)
		mask |= RF_IF;
	if (v->cpl == 0) {
		mask |= RF_IOPL;
		if (size >= 4)
			mask |= RF_VIF | RF_VIP;
	}
	return mask;
}

static void ret_set_flags(struct vcpu *v, uint64_t flags, uint64_t mask)
{
	bool armed = debug_armed(v);

	vcpu_set_rflags(v, armed ? flags : flags & ~(uint64_t)RF_RF, mask);
	v->rf_keep = armed && (v->rflags & RF_RF);
}

static void ret_iret_real(struct vcpu *v, unsigned size)
{
	uint64_t rip = stack_peek(v, size, 0);
	uint16_t cs = (uint16_t)stack_peek(v, size, size);
	uint64_t flags = stack_peek(v, size, 2 * size);
	uint64_t mask = F_ARITH | RF_TF | RF_IF | RF_DF | RF_IOPL | RF_NT;

	if (rip > v->seg[SEG_CS].limit)
		throw_gp(v, 0);
	if (size == 4)
		mask |= RF_RF | RF_AC | RF_ID;
	vcpu_set_seg_real(v, SEG_CS, cs);
	v->r[REG_RIP] = rip;
	stack_set(v, v->r[REG_RSP] + 3 * size);
	ret_set_flags(v, flags, mask);
	vcpu_update_mode(v);
}

/* Virtual-8086 mode: IOPL 3, or VME with a 16-bit frame, where IF stands for VIF. */
static void ret_iret_v86(struct vcpu *v, unsigned size)
{
	bool iopl3 = (v->rflags & RF_IOPL) == RF_IOPL;
	uint64_t mask = F_ARITH | RF_TF | RF_DF | RF_NT;
	uint64_t rip, flags;
	uint16_t cs;

	if (!iopl3 && (!(v->cr4 & CR4_VME) || size != 2))
		throw_gp(v, 0);
	rip = stack_peek(v, size, 0);
	cs = (uint16_t)stack_peek(v, size, size);
	flags = stack_peek(v, size, 2 * size);
	if (rip > v->seg[SEG_CS].limit)
		throw_gp(v, 0);
	if (iopl3) {
		mask |= RF_IF;
		if (size == 4)
			mask |= RF_RF | RF_AC | RF_ID;
	} else {
		if ((flags & RF_TF) || ((flags & RF_IF) && (v->rflags & RF_VIP)))
			throw_gp(v, 0);
		mask |= RF_VIF;
		flags = (flags & ~(uint64_t)RF_VIF) | (flags & RF_IF ? RF_VIF : 0);
	}
	vcpu_set_seg_real(v, SEG_CS, cs);
	v->r[REG_RIP] = rip;
	stack_set(v, v->r[REG_RSP] + 3 * size);
	ret_set_flags(v, flags, mask);
}

static void ret_iret_task(struct vcpu *v)
{
	uint16_t sel = (uint16_t)mmu_sys_ld(v, v->tr.base, 2);
	struct desc d;

	if ((sel & 4) || seg_null(sel) || !seg_fetch(v, sel, &d) || desc_user(&d) ||
	    (desc_type(&d) != DESC_TSS16_BUSY && desc_type(&d) != DESC_TSS32_BUSY))
		vcpu_throw_error(v, VEC_TS, seg_error(sel, 0));
	task_switch(v, TASK_IRET, sel, &d, 0, false, 0);
}

/* From level 0 with a 32-bit frame whose flags have VM set. */
static void ret_iret_to_v86(struct vcpu *v, uint64_t rip, uint16_t cs, uint64_t flags)
{
	static const uint8_t order[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint16_t sel[ARRAY_SIZE(order)];
	uint64_t rsp = stack_peek(v, 4, 12);

	for (unsigned k = 0; k < ARRAY_SIZE(order); k++)
		sel[k] = (uint16_t)stack_peek(v, 4, 16 + 4 * k);
	if (rip > 0xffff)
		throw_gp(v, 0);
	ret_set_flags(v, flags,
		      F_ARITH | RF_TF | RF_IF | RF_DF | RF_IOPL | RF_NT | RF_RF | RF_VM | RF_AC |
			      RF_VIF | RF_VIP | RF_ID);
	vcpu_set_seg_real(v, SEG_CS, cs);
	for (unsigned k = 0; k < ARRAY_SIZE(order); k++)
		vcpu_set_seg_real(v, order[k], sel[k]);
	v->r[REG_RIP] = rip;
	v->r[REG_RSP] = rsp;
	vcpu_update_mode(v);
}

static void ret_iret_protected(struct vcpu *v, unsigned size)
{
	struct ret r = { 0 };
	uint64_t flags, mask = ret_flag_mask(v, size);
	bool both;

	r.rip = stack_peek(v, size, 0);
	r.cs = (uint16_t)stack_peek(v, size, size);
	flags = stack_peek(v, size, 2 * size);
	if ((flags & RF_VM) && size == 4 && v->cpl == 0 && !seg_long_mode(v)) {
		ret_iret_to_v86(v, r.rip, r.cs, flags);
		return;
	}
	/* 64-bit mode always pops the stack pointer; else its pop needs a change of level */
	both = v->long64;
	if (both) {
		r.rsp = stack_peek(v, size, 3 * size);
		r.ss = (uint16_t)stack_peek(v, size, 4 * size);
	}
	ret_check_cs(v, &r);
	if (!both && (r.cs & 3) > v->cpl) {
		both = true;
		r.rsp = stack_peek(v, size, 3 * size);
		r.ss = (uint16_t)stack_peek(v, size, 4 * size);
	}
	if (both)
		ret_check_ss(v, &r);
	far_check_rip(v, &r.cs_desc, r.rip, 0);
	ret_accessed(v, &r, both);
	if (both) {
		ret_set_both(v, &r, 0);
	} else {
		stack_set(v, v->r[REG_RSP] + 3 * size);
		ret_set_cs(v, &r);
	}
	ret_set_flags(v, flags, mask);
	vcpu_update_mode(v);
}

EXEC(IRET)
{
	v->ev.nmi_masked = false;
	if (!(v->cr0 & CR0_PE))
		ret_iret_real(v, i->osize);
	else if (v->rflags & RF_VM)
		ret_iret_v86(v, i->osize);
	else if (!(v->rflags & RF_NT))
		ret_iret_protected(v, i->osize);
	else if (seg_long_mode(v))
		throw_gp(v, 0);
	else
		ret_iret_task(v);
	if (atomic_load(&v->ev.nmi_pending))
		atomic_fetch_or(&v->requests, REQ_EVENT);
}
