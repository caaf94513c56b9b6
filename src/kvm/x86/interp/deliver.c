/*
 * Delivery of interrupts and exceptions through the IVT or IDT.
 *
 * Modelled:   real mode; interrupt, trap and task gates of 16 and 32 bits, with change of level and
 *             from virtual-8086 mode; 64-bit gates with IST; error codes with EXT and IDT bits for
 *             whatever goes wrong on the way. The RF image of a fault is 1.
 * References: [SDM2A INT n/INTO/INT3/INT1], [SDM3 6.12, 6.13, 6.14, 18.3.1.1, 20.1.4, 20.2].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/seg.h"

struct delivery {
	unsigned vec;
	unsigned ext; /* EXT bit: not a software interrupt */
	bool has_error;
	uint32_t error;
	uint64_t flags; /* image to push */
};

/* Error code that names the IDT entry. */
static uint32_t deliver_idt_error(const struct delivery *d)
{
	return d->vec << 3 | 2 | d->ext;
}

/* Faults but not traps, aborts, or #DB, whose image of RF is what the flag is. */
static bool deliver_is_fault(unsigned vec)
{
	return vec != VEC_DB && vec != VEC_NMI && vec != VEC_BP && vec != VEC_OF && vec != VEC_DF &&
	       vec != VEC_MC;
}

/* ---- Real mode ------------------------------------------------------------------------------ */

static void deliver_real(struct vcpu *v, const struct delivery *d)
{
	struct frame f = frame_current(v, 0);
	uint64_t val[3] = { d->flags, v->seg[SEG_CS].sel, v->r[REG_RIP] };
	uint32_t entry;

	if (d->vec * 4 + 3 > v->idt.limit)
		throw_gp(v, d->vec * 8 + 2);
	entry = (uint32_t)mmu_sys_ld(v, seg_wrap(v, v->idt.base + d->vec * 4), 4);
	frame_push(v, &f, 2, val, 3);
	frame_commit(v, &f);
	vcpu_set_seg_real(v, SEG_CS, (uint16_t)(entry >> 16));
	v->r[REG_RIP] = entry & 0xffff;
	vcpu_set_rflags(v, 0, RF_IF | RF_TF | RF_AC | RF_RF);
	vcpu_update_mode(v);
}

/* ---- Gates ---------------------------------------------------------------------------------- */

/* The code segment a gate leads to: [SDM2A INT n] "TRAP-OR-INTERRUPT-GATE". */
static void deliver_check_code(struct vcpu *v, const struct delivery *d, uint16_t sel,
			       struct desc *code)
{
	bool vm = v->rflags & RF_VM;
	uint32_t error = seg_error(sel, d->ext);

	if (seg_null(sel))
		throw_gp(v, d->ext);
	if (!seg_fetch(v, sel, code) || !desc_is_code(code) || desc_dpl(code) > v->cpl)
		throw_gp(v, error);
	if (seg_long_mode(v) && (!desc_long(code) || desc_big(code)))
		throw_gp(v, error);
	if (!desc_present(code))
		vcpu_throw_error(v, VEC_NP, error);
	/* virtual-8086 mode can only be left for level 0 */
	if (vm && (desc_conforming(code) || desc_dpl(code) != 0))
		throw_gp(v, error);
}

static void deliver_enter(struct vcpu *v, uint16_t sel, const struct desc *code, unsigned cpl,
			  uint64_t rip, bool interrupt_gate)
{
	v->seg[SEG_CS] = seg_make((uint16_t)((sel & ~3) | cpl), code);
	v->r[REG_RIP] = rip;
	v->cpl = (uint8_t)cpl;
	v->rflags &= ~(uint32_t)(RF_TF | RF_VM | RF_RF | RF_NT);
	if (interrupt_gate)
		v->rflags &= ~(uint32_t)RF_IF;
	vcpu_update_mode(v);
}

static void deliver_task(struct vcpu *v, const struct delivery *dl, uint16_t sel)
{
	uint32_t error = seg_error(sel, dl->ext);
	struct desc d;

	if ((sel & 4) || seg_null(sel) || !seg_fetch(v, sel, &d))
		throw_gp(v, error);
	if (desc_user(&d) || (desc_type(&d) != DESC_TSS16 && desc_type(&d) != DESC_TSS32))
		throw_gp(v, error);
	task_switch(v, TASK_EVENT, sel, &d, dl->ext, dl->has_error, dl->error);
}

/* ---- Protected mode without long mode ------------------------------------------------------- */

static void deliver_gate(struct vcpu *v, const struct delivery *dl, const struct desc *gate)
{
	uint16_t sel = (uint16_t)(gate->lo >> 16);
	unsigned size = desc_type(gate) & 8 ? 4 : 2;
	uint64_t rip = (gate->lo & 0xffff) | (size == 4 ? gate->hi & 0xffff0000 : 0);
	bool vm = v->rflags & RF_VM;
	unsigned cpl = v->cpl, n = 0;
	uint64_t val[10];
	struct desc code;
	struct frame f;

	deliver_check_code(v, dl, sel, &code);
	if (!desc_conforming(&code) && desc_dpl(&code) < v->cpl) {
		cpl = desc_dpl(&code);
		f = frame_from_tss(v, cpl, 0, dl->ext);
		if (vm) {
			val[n++] = v->seg[SEG_GS].sel;
			val[n++] = v->seg[SEG_FS].sel;
			val[n++] = v->seg[SEG_DS].sel;
			val[n++] = v->seg[SEG_ES].sel;
		}
		val[n++] = v->seg[SEG_SS].sel;
		val[n++] = v->r[REG_RSP];
	} else {
		f = frame_current(v, dl->ext);
	}
	val[n++] = dl->flags;
	val[n++] = v->seg[SEG_CS].sel;
	val[n++] = v->r[REG_RIP];
	if (dl->has_error)
		val[n++] = dl->error;
	far_check_rip(v, &code, rip, dl->ext);
	seg_mark_accessed(v, &code);
	frame_push(v, &f, size, val, n);
	frame_commit(v, &f);
	if (vm) {
		v->seg[SEG_GS] = seg_make_null(0, 0);
		v->seg[SEG_FS] = seg_make_null(0, 0);
		v->seg[SEG_DS] = seg_make_null(0, 0);
		v->seg[SEG_ES] = seg_make_null(0, 0);
	}
	deliver_enter(v, sel, &code, cpl, rip, !(desc_type(gate) & 1));
}

static void deliver_protected(struct vcpu *v, const struct delivery *dl)
{
	uint32_t error = deliver_idt_error(dl);
	struct desc gate;
	unsigned type;

	if (dl->vec * 8 + 7 > v->idt.limit)
		throw_gp(v, error);
	seg_read_desc(v, seg_wrap(v, v->idt.base + dl->vec * 8), false, &gate);
	type = desc_type(&gate);
	if (desc_user(&gate) || !(type == DESC_TASK || type == DESC_INT16 || type == DESC_TRAP16 ||
				  type == DESC_INT32 || type == DESC_TRAP32))
		throw_gp(v, error);
	if (!dl->ext && desc_dpl(&gate) < v->cpl)
		throw_gp(v, error);
	if (!desc_present(&gate))
		vcpu_throw_error(v, VEC_NP, error);
	if (type == DESC_TASK)
		deliver_task(v, dl, (uint16_t)(gate.lo >> 16));
	else
		deliver_gate(v, dl, &gate);
}

/* ---- Long mode ------------------------------------------------------------------------------ */

static void deliver_long(struct vcpu *v, const struct delivery *dl)
{
	uint32_t error = deliver_idt_error(dl);
	unsigned cpl = v->cpl, n = 0, ist;
	struct desc gate, code;
	struct frame f;
	uint64_t rip, val[6];
	uint16_t sel;

	if (dl->vec * 16 + 15 > v->idt.limit)
		throw_gp(v, error);
	seg_read_desc(v, v->idt.base + dl->vec * 16, true, &gate);
	if (desc_user(&gate) || (desc_type(&gate) & ~1u) != DESC_INT32)
		throw_gp(v, error);
	if (!dl->ext && desc_dpl(&gate) < v->cpl)
		throw_gp(v, error);
	if (!desc_present(&gate))
		vcpu_throw_error(v, VEC_NP, error);
	sel = (uint16_t)(gate.lo >> 16);
	rip = (gate.lo & 0xffff) | (gate.hi & 0xffff0000) | (uint64_t)gate.base_hi << 32;
	ist = gate.hi & 7;
	deliver_check_code(v, dl, sel, &code);
	if (!desc_conforming(&code) && desc_dpl(&code) < v->cpl)
		cpl = desc_dpl(&code);
	if (cpl != v->cpl || ist) {
		f = frame_from_tss(v, cpl, ist, dl->ext);
		if (cpl == v->cpl)
			f.ss = v->seg[SEG_SS];
	} else {
		f = frame_current(v, dl->ext);
		f.width = 8; /* also from compatibility mode */
	}
	f.sp &= ~0xfull;
	val[n++] = v->seg[SEG_SS].sel;
	val[n++] = v->r[REG_RSP];
	val[n++] = dl->flags;
	val[n++] = v->seg[SEG_CS].sel;
	val[n++] = v->r[REG_RIP];
	if (dl->has_error)
		val[n++] = dl->error;
	if (!seg_canonical(rip))
		throw_gp(v, dl->ext);
	seg_mark_accessed(v, &code);
	frame_push(v, &f, 8, val, n);
	frame_commit(v, &f);
	deliver_enter(v, sel, &code, cpl, rip, !(desc_type(&gate) & 1));
}

void vcpu_deliver(struct vcpu *v, unsigned vec, enum deliver_kind kind, bool has_error,
		  uint32_t error)
{
	struct delivery d = {
		.vec = vec,
		.ext = kind != DELIVER_SOFT_INT,
		.has_error = has_error,
		.error = error,
		.flags = vcpu_rflags(v),
	};
	bool tf = v->rflags & RF_TF;

	if (kind == DELIVER_EXCEPTION && deliver_is_fault(vec))
		d.flags |= RF_RF;
	if (!(v->cr0 & CR0_PE))
		deliver_real(v, &d);
	else if (seg_long_mode(v))
		deliver_long(v, &d);
	else
		deliver_protected(v, &d);
	v->ev.shadow = 0;
	if (tf && (kind == DELIVER_SOFT_INT || kind == DELIVER_ICEBP))
		v->no_trap = true;
	if (kind == DELIVER_EXCEPTION && vec == VEC_DB)
		v->dr7 &= ~(uint64_t)DR7_GD;
}
