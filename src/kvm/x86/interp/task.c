/*
 * Hardware task switches, 16 and 32 bits.
 *
 * Order of events, after [SDM3 7.3]: the descriptor is checked, everything that will be read or
 * written is made sure of, the old task is saved, the links and busy bits are set, the registers
 * are loaded. From there on the new task is the current one: segment registers are loaded one by
 * one, and what is wrong with them faults in its context, with its rIP.
 *
 * Modelled:     JMP, CALL, IRET, gates, nested tasks, the T bit, CR3 and PDPTEs, DR7's local bits.
 * Not modelled: shadow stacks. A PDPTE with reserved bits set is #GP(0) in the new task.
 * References:   [SDM3 7.2, 7.3 table 7-1], [APM2 12.3]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/seg.h"

enum { TASK_TSS32 = 104, TASK_TSS16 = 44, TASK_CR3 = 28, TASK_DEBUG = 100 };

/* Registers in the order of a TSS, which is the same for both widths up to the LDT. */
struct task {
	uint64_t cr3;
	uint32_t eip, eflags, gpr[8];
	uint16_t seg[SEG_COUNT]; /* ES CS SS DS FS GS: SEG_* order */
	uint16_t ldt;
	bool trap;
};

static uint32_t task_get(const uint8_t *p, unsigned size)
{
	uint32_t x = 0;

	memcpy(&x, p, size);
	return x;
}

static void task_parse(const uint8_t *tss, bool wide, struct task *t)
{
	unsigned size = wide ? 4 : 2, nsegs = wide ? 6 : 4;
	const uint8_t *p = tss + (wide ? 32 : 14);

	*t = (struct task){ 0 };
	if (wide) {
		t->cr3 = task_get(tss + TASK_CR3, 4);
		t->trap = tss[TASK_DEBUG] & 1;
	}
	t->eip = task_get(p, size);
	t->eflags = task_get(p + size, size);
	for (unsigned n = 0; n < 8; n++)
		t->gpr[n] = task_get(p + size * (2 + n), size);
	for (unsigned n = 0; n < nsegs; n++)
		t->seg[n] = (uint16_t)task_get(p + size * (10 + n), 2);
	t->ldt = (uint16_t)task_get(p + size * (10 + nsegs), 2);
	if (!wide) {
		/* a 16-bit task has no upper halves: processors leave ones there */
		for (unsigned n = 0; n < 8; n++)
			t->gpr[n] |= 0xffff0000;
	}
}

/* Part of the old TSS that a switch writes: from (E)IP to the last segment register. */
struct task_image {
	uint8_t bytes[64];
	unsigned off, len;
};

static void task_save_image(const struct vcpu *v, bool wide, uint32_t eflags, struct task_image *m)
{
	unsigned size = wide ? 4 : 2, nsegs = wide ? 6 : 4;
	uint32_t word[2 + 8 + 6];
	unsigned n = 0;

	word[n++] = (uint32_t)v->r[REG_RIP];
	word[n++] = eflags;
	for (unsigned k = 0; k < 8; k++)
		word[n++] = (uint32_t)v->r[k];
	for (unsigned k = 0; k < nsegs; k++)
		word[n++] = v->seg[k].sel;
	m->off = wide ? 32 : 14;
	m->len = n * size;
	for (unsigned k = 0; k < n; k++)
		memcpy(m->bytes + (size_t)k * size, &word[k], size);
}

/* ---- Loading the new task's segments --------------------------------------------------------- */

static void task_load_ldt(struct vcpu *v, uint16_t sel, unsigned ext)
{
	struct desc d;

	v->ldtr = seg_make_null(sel, 0);
	if (seg_null(sel))
		return;
	if ((sel & 4) || !seg_fetch(v, sel, &d) || desc_user(&d) || desc_type(&d) != DESC_LDT ||
	    !desc_present(&d))
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	v->ldtr = seg_make(sel, &d);
}

static void task_load_cs(struct vcpu *v, uint16_t sel, unsigned ext)
{
	struct desc d;

	if (seg_null(sel) || !seg_fetch(v, sel, &d) || !desc_is_code(&d) ||
	    (desc_conforming(&d) ? desc_dpl(&d) > (sel & 3u) : desc_dpl(&d) != (sel & 3u)))
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, ext));
	seg_mark_accessed(v, &d);
	v->seg[SEG_CS] = seg_make(sel, &d);
}

static void task_load_ss(struct vcpu *v, uint16_t sel, unsigned ext)
{
	struct desc d;

	if (seg_null(sel) || !seg_fetch(v, sel, &d) || !desc_writable_data(&d) ||
	    (sel & 3) != v->cpl || desc_dpl(&d) != v->cpl)
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_SS, seg_error(sel, ext));
	seg_mark_accessed(v, &d);
	v->seg[SEG_SS] = seg_make(sel, &d);
}

static void task_load_data(struct vcpu *v, unsigned n, uint16_t sel, unsigned ext)
{
	struct desc d;

	if (seg_null(sel))
		return;
	if (!seg_fetch(v, sel, &d) || !desc_user(&d) ||
	    (desc_type(&d) & (SEG_AR_CODE | SEG_AR_WRITE)) == SEG_AR_CODE)
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	if (!(desc_is_code(&d) && desc_conforming(&d)) &&
	    MAX(sel & 3u, (unsigned)v->cpl) > desc_dpl(&d))
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, ext));
	seg_mark_accessed(v, &d);
	v->seg[n] = seg_make(sel, &d);
}

static void task_load_segments(struct vcpu *v, const struct task *t, unsigned ext)
{
	static const uint8_t data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };

	task_load_ldt(v, t->ldt, ext);
	if (v->rflags & RF_VM)
		return; /* already loaded: they need no descriptors */
	task_load_cs(v, t->seg[SEG_CS], ext);
	task_load_ss(v, t->seg[SEG_SS], ext);
	for (unsigned k = 0; k < ARRAY_SIZE(data); k++)
		task_load_data(v, data[k], t->seg[data[k]], ext);
}

/* ---- The switch ----------------------------------------------------------------------------- */

/* Registers of the new task, its segment registers so far without descriptors. */
static void task_load_registers(struct vcpu *v, const struct task *t, uint32_t eflags)
{
	v->r[REG_RIP] = v->insn_rip = t->eip; /* what faults from now on, faults there */
	for (unsigned n = 0; n < 8; n++)
		v->r[n] = t->gpr[n];
	vcpu_set_rflags(v, eflags & ~RF_RF, ~(uint64_t)RF_FIXED);
	if ((eflags & RF_RF) && debug_armed(v)) {
		v->rflags |= RF_RF;
		v->rf_keep = true;
	}
	v->cpl = t->seg[SEG_CS] & 3;
	for (unsigned n = 0; n < SEG_COUNT; n++) {
		if (v->rflags & RF_VM)
			vcpu_set_seg_real(v, n, t->seg[n]);
		else
			v->seg[n] = seg_make_null(t->seg[n], n == SEG_SS ? v->cpl : 0);
	}
	vcpu_update_mode(v);
}

static void task_load_cr3(struct vcpu *v, uint64_t cr3)
{
	if (!(v->cr0 & CR0_PG) || cr3 == v->cr3)
		return;
	if ((v->cr4 & CR4_PAE) && !mmu_load_pdptes(v, cr3))
		throw_gp(v, 0);
	mmu_set_cr3(v, cr3, true);
}

/* Type, presence and size of the TSS descriptor; the new TSS's linear address. */
static gva_t task_check(struct vcpu *v, uint16_t sel, const struct desc *d, unsigned ext)
{
	bool wide = desc_type(d) & 8;
	struct seg s = seg_make(sel, d);

	if (!desc_present(d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, ext));
	if (s.limit < (wide ? TASK_TSS32 : TASK_TSS16) - 1u)
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	return (uint32_t)s.base;
}

void task_switch(struct vcpu *v, enum task_cause cause, uint16_t sel, const struct desc *d,
		 unsigned ext, bool has_error, uint32_t error)
{
	bool wide = desc_type(d) & 8, old_wide = v->tr.ar & 8, nested;
	gva_t tss = task_check(v, sel, d, ext), old_tss = (uint32_t)v->tr.base;
	uint16_t old_sel = v->tr.sel;
	uint8_t bytes[TASK_TSS32];
	struct task_image image;
	struct task t;
	uint32_t eflags = (uint32_t)vcpu_rflags(v);

	nested = cause == TASK_CALL || cause == TASK_EVENT;
	if (cause == TASK_IRET)
		eflags &= ~(uint32_t)RF_NT;

	/* everything that can fault in the old task */
	task_save_image(v, old_wide, eflags, &image);
	mmu_read(v, tss, bytes, wide ? TASK_TSS32 : TASK_TSS16, ACC_READ | ACC_SYS);
	mmu_probe(v, (uint32_t)(old_tss + image.off), image.len, ACC_WRITE | ACC_SYS);
	if (nested)
		mmu_probe(v, tss, 2, ACC_WRITE | ACC_SYS);
	if (cause != TASK_IRET)
		mmu_probe(v, (uint32_t)(d->la + 5), 1, ACC_WRITE | ACC_SYS);
	if (!nested)
		seg_type_bits(v, (uint32_t)(v->gdt.base + (old_sel & 0xfff8u)), 0, 2);

	mmu_write(v, (uint32_t)(old_tss + image.off), image.bytes, image.len, ACC_WRITE | ACC_SYS);
	if (nested)
		mmu_sys_st(v, tss, old_sel, 2);
	if (cause != TASK_IRET)
		seg_type_bits(v, d->la, 2, 0);
	task_parse(bytes, wide, &t);
	if (nested)
		t.eflags |= RF_NT;

	/* the new task's context; TF was the old one's, whose instruction does not trap here */
	v->no_trap = cause != TASK_EVENT && (v->rflags & RF_TF);
	v->tr = seg_make(sel, d);
	v->tr.ar |= 2;
	v->cr0 |= CR0_TS;
	v->dr7 &= ~(uint64_t)DR7_LOCALS;
	task_load_registers(v, &t, t.eflags);
	if (wide)
		task_load_cr3(v, t.cr3);
	task_load_segments(v, &t, ext);
	vcpu_update_mode(v);
	if (has_error) {
		struct frame f = frame_current(v, ext);
		uint64_t val = error;

		frame_push(v, &f, wide ? 4 : 2, &val, 1);
		frame_commit(v, &f);
	}
	if (v->r[REG_RIP] > v->seg[SEG_CS].limit)
		throw_gp(v, ext);
	if (t.trap)
		debug_task_trap(v);
}
