/*
 * Far calls and jumps: direct, through call gates, to tasks.
 *
 * Modelled:   real and virtual-8086 mode; 16-, 32- and 64-bit call gates with change of privilege
 *             and copied parameters; TSS descriptors and task gates.
 * References: [SDM2A CALL, JMP], [SDM3 5.8], [APM2 4.11]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"

void far_check_rip(struct vcpu *v, const struct desc *d, uint64_t rip, uint32_t error)
{
	if (seg_long_mode(v) && desc_long(d)) {
		if (!seg_canonical(rip))
			throw_gp(v, error);
	} else if (rip > seg_make(0, d).limit) {
		throw_gp(v, error);
	}
}

/* L and D together mean nothing. */
static bool far_bad_long(const struct vcpu *v, const struct desc *d)
{
	return seg_long_mode(v) && desc_long(d) && desc_big(d);
}

static void far_set_cs(struct vcpu *v, uint16_t sel, const struct desc *d, unsigned cpl,
		       uint64_t rip)
{
	v->seg[SEG_CS] = seg_make((uint16_t)((sel & ~3) | cpl), d);
	v->cpl = (uint8_t)cpl;
	v->r[REG_RIP] = rip;
}

/* ---- Real and virtual-8086 mode ------------------------------------------------------------- */

static void far_real(struct vcpu *v, uint16_t sel, uint64_t off, unsigned osize, bool call)
{
	if (off > v->seg[SEG_CS].limit)
		throw_gp(v, 0);
	if (call) {
		struct frame f = frame_current(v, 0);
		uint64_t val[2] = { v->seg[SEG_CS].sel, v->r[REG_RIP] };

		frame_push(v, &f, osize, val, 2);
		frame_commit(v, &f);
	}
	vcpu_set_seg_real(v, SEG_CS, sel);
	v->r[REG_RIP] = off;
	vcpu_update_mode(v);
}

/* ---- Code segments -------------------------------------------------------------------------- */

static void far_code(struct vcpu *v, uint16_t sel, const struct desc *d, uint64_t off,
		     unsigned osize, bool call)
{
	if (desc_conforming(d)) {
		if (desc_dpl(d) > v->cpl)
			throw_gp(v, seg_error(sel, 0));
	} else if ((sel & 3) > v->cpl || desc_dpl(d) != v->cpl) {
		throw_gp(v, seg_error(sel, 0));
	}
	if (far_bad_long(v, d))
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, 0));
	if (call) {
		struct frame f = frame_current(v, 0);
		uint64_t val[2] = { v->seg[SEG_CS].sel, v->r[REG_RIP] };

		far_check_rip(v, d, off, 0);
		seg_mark_accessed(v, d);
		frame_push(v, &f, osize, val, 2);
		frame_commit(v, &f);
	} else {
		far_check_rip(v, d, off, 0);
		seg_mark_accessed(v, d);
	}
	far_set_cs(v, sel, d, v->cpl, off);
	vcpu_update_mode(v);
}

/* ---- Call gates ----------------------------------------------------------------------------- */

/* Read the parameters that a gate copies, from the caller's stack, last pushed at [0]. */
static void far_parameters(struct vcpu *v, unsigned size, unsigned n, uint64_t *val)
{
	for (unsigned k = 0; k < n; k++)
		val[n - 1 - k] = stack_peek(v, size, k * size);
}

static void far_gate_inner(struct vcpu *v, uint16_t sel, const struct desc *code, uint64_t off,
			   unsigned size, unsigned params)
{
	unsigned cpl = desc_dpl(code);
	struct frame f = frame_from_tss(v, cpl, 0, 0);
	uint64_t val[2 + 31 + 2];
	uint64_t link[2] = { v->seg[SEG_SS].sel, v->r[REG_RSP] };
	unsigned n = 0;

	far_check_rip(v, code, off, 0);
	val[n++] = link[0];
	val[n++] = link[1];
	if (size != 8) {
		far_parameters(v, size, params, val + n);
		n += params;
	}
	val[n++] = v->seg[SEG_CS].sel;
	val[n++] = v->r[REG_RIP];
	seg_mark_accessed(v, code);
	frame_push(v, &f, size, val, n);
	frame_commit(v, &f);
	far_set_cs(v, sel, code, cpl, off);
	vcpu_update_mode(v);
}

static void far_gate(struct vcpu *v, uint16_t gate_sel, const struct desc *gate, bool call)
{
	bool lm = seg_long_mode(v);
	unsigned size = lm ? 8 : desc_type(gate) == DESC_CALL32 ? 4 : 2;
	uint16_t sel = (uint16_t)(gate->lo >> 16);
	uint64_t off =
		(gate->lo & 0xffff) | (gate->hi & 0xffff0000) | (uint64_t)gate->base_hi << 32;
	struct desc d;

	if (size == 2)
		off &= 0xffff;
	if (MAX(v->cpl, gate_sel & 3) > (int)desc_dpl(gate))
		throw_gp(v, seg_error(gate_sel, 0));
	if (!desc_present(gate))
		vcpu_throw_error(v, VEC_NP, seg_error(gate_sel, 0));
	if (seg_null(sel))
		throw_gp(v, 0);
	if (!seg_fetch(v, sel, &d) || !desc_is_code(&d) || desc_dpl(&d) > v->cpl)
		throw_gp(v, seg_error(sel, 0));
	if (lm && (!desc_long(&d) || desc_big(&d)))
		throw_gp(v, seg_error(sel, 0));
	if (!call && !desc_conforming(&d) && desc_dpl(&d) != v->cpl)
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, 0));
	if (call && !desc_conforming(&d) && desc_dpl(&d) < v->cpl) {
		far_gate_inner(v, sel, &d, off, size, gate->hi & 31);
		return;
	}
	far_check_rip(v, &d, off, 0);
	seg_mark_accessed(v, &d);
	if (call) {
		struct frame f = frame_current(v, 0);
		uint64_t val[2] = { v->seg[SEG_CS].sel, v->r[REG_RIP] };

		if (lm)
			f.width = 8; /* also from compatibility mode: the target is 64-bit code */
		frame_push(v, &f, size, val, 2);
		frame_commit(v, &f);
	}
	far_set_cs(v, sel, &d, v->cpl, off);
	vcpu_update_mode(v);
}

/* ---- Tasks ---------------------------------------------------------------------------------- */

static bool far_is_tss(unsigned type)
{
	return type == DESC_TSS16 || type == DESC_TSS32;
}

static void far_task(struct vcpu *v, uint16_t sel, const struct desc *d, bool call)
{
	if (MAX(v->cpl, sel & 3) > (int)desc_dpl(d))
		throw_gp(v, seg_error(sel, 0));
	task_switch(v, call ? TASK_CALL : TASK_JMP, sel, d, 0, false, 0);
}

static void far_task_gate(struct vcpu *v, uint16_t gate_sel, const struct desc *gate, bool call)
{
	uint16_t sel = (uint16_t)(gate->lo >> 16);
	struct desc d;

	if (MAX(v->cpl, gate_sel & 3) > (int)desc_dpl(gate))
		throw_gp(v, seg_error(gate_sel, 0));
	if (!desc_present(gate))
		vcpu_throw_error(v, VEC_NP, seg_error(gate_sel, 0));
	if ((sel & 4) || !seg_fetch(v, sel, &d) || desc_user(&d) || !far_is_tss(desc_type(&d)))
		throw_gp(v, seg_error(sel, 0));
	task_switch(v, call ? TASK_CALL : TASK_JMP, sel, &d, 0, false, 0);
}

/* ---- Dispatch ------------------------------------------------------------------------------- */

static void far_system(struct vcpu *v, uint16_t sel, struct desc *d, bool call)
{
	unsigned type = desc_type(d);

	if (seg_long_mode(v)) {
		if (type != DESC_CALL32 || !seg_fetch_sys(v, sel, d))
			throw_gp(v, seg_error(sel, 0));
		far_gate(v, sel, d, call);
	} else if (type == DESC_CALL16 || type == DESC_CALL32) {
		far_gate(v, sel, d, call);
	} else if (type == DESC_TASK) {
		far_task_gate(v, sel, d, call);
	} else if (far_is_tss(type) && !(sel & 4)) {
		far_task(v, sel, d, call);
	} else {
		throw_gp(v, seg_error(sel, 0));
	}
}

static void far_transfer(struct vcpu *v, uint16_t sel, uint64_t off, unsigned osize, bool call)
{
	struct desc d;

	off &= size_mask(osize);
	if (v->real) {
		far_real(v, sel, off, osize, call);
		return;
	}
	if (seg_null(sel))
		throw_gp(v, 0);
	if (!seg_fetch(v, sel, &d))
		throw_gp(v, seg_error(sel, 0));
	if (desc_is_code(&d))
		far_code(v, sel, &d, off, osize, call);
	else if (!desc_user(&d))
		far_system(v, sel, &d, call);
	else
		throw_gp(v, seg_error(sel, 0));
}

static void far_indirect(struct vcpu *v, const struct insn *i, bool call)
{
	uint64_t ea = insn_ea(v, i), off;
	uint16_t sel;

	off = mem_ld(v, mmu_linear(v, i->seg, ea, i->osize, ACC_READ), i->osize);
	ea = (ea + i->osize) & size_mask(i->asize);
	sel = mmu_ld16(v, mmu_linear(v, i->seg, ea, 2, ACC_READ));
	far_transfer(v, sel, off, i->osize, call);
}

EXEC(CALL_Ap)
{
	far_transfer(v, i->imm2, i->imm, i->osize, true);
}

EXEC(CALL_Ep)
{
	far_indirect(v, i, true);
}

EXEC(JMP_Ap)
{
	far_transfer(v, i->imm2, i->imm, i->osize, false);
}

EXEC(JMP_Ep)
{
	far_indirect(v, i, false);
}
