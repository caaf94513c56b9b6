/*
 * Descriptors: reading them, making segment registers of them, loads of data segments and SS.
 *
 * Modelled:     all checks of [SDM2B MOV], null selectors in 64-bit mode, the accessed bit as a
 *               locked update, 16-byte system descriptors, segments of real and virtual-8086 mode
 *               (real mode keeps limit and type: "unreal" mode).
 * Not modelled: AMD processors that keep the base of FS and GS when a null selector is loaded; it
 *               becomes 0, as on all newer ones.
 * References:   [SDM3 3.4, 3.5, 5], [SDM2B MOV], [APM2 4].
 * Threads:      the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"

#include "kvm/x86/interp/exec.h"

/* ---- Descriptors in memory ------------------------------------------------------------------ */

void seg_read_desc(struct vcpu *v, gva_t la, bool wide, struct desc *d)
{
	uint64_t low = mmu_sys_ld(v, la, 8);

	d->lo = (uint32_t)low;
	d->hi = (uint32_t)(low >> 32);
	d->base_hi = wide ? (uint32_t)mmu_sys_ld(v, seg_wrap(v, la + 8), 4) : 0;
	d->la = la;
}

/* Where [sel, sel + len) of its table lies; false when outside. */
static bool seg_locate(struct vcpu *v, uint16_t sel, unsigned len, gva_t *la)
{
	unsigned off = sel & 0xfff8u;

	if (sel & 4) {
		if (v->ldtr.ar & SEG_AR_UNUSABLE || off + len - 1 > v->ldtr.limit)
			return false;
		*la = seg_wrap(v, v->ldtr.base + off);
	} else {
		if (off + len - 1 > v->gdt.limit)
			return false;
		*la = seg_wrap(v, v->gdt.base + off);
	}
	return true;
}

bool seg_fetch(struct vcpu *v, uint16_t sel, struct desc *d)
{
	gva_t la;

	if (!seg_locate(v, sel, 8, &la))
		return false;
	seg_read_desc(v, la, false, d);
	return true;
}

bool seg_fetch_sys(struct vcpu *v, uint16_t sel, struct desc *d)
{
	gva_t la;

	if (!seg_long_mode(v))
		return seg_fetch(v, sel, d);
	if (!seg_locate(v, sel, 16, &la))
		return false;
	seg_read_desc(v, la, true, d);
	/* the type field of the upper half must be 0, so that it cannot pass for a descriptor */
	return !(mmu_sys_ld(v, la + 12, 4) & 0x1f00);
}

void seg_type_bits(struct vcpu *v, gva_t desc_la, uint8_t set, uint8_t clear)
{
	gva_t la = seg_wrap(v, desc_la + 5);
	struct tlb_entry *t = &v->tlbs[TLB_KERNEL][(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	uint8_t old;

	mmu_probe(v, la, 1, ACC_WRITE | ACC_SYS);
	if (t->wtag == mmu_tag(v, la, 1)) {
		uint8_t *p = (uint8_t *)(uintptr_t)(la + t->addend);

		if (set)
			__atomic_fetch_or(p, set, __ATOMIC_SEQ_CST);
		if (clear)
			__atomic_fetch_and(p, (uint8_t)~clear, __ATOMIC_SEQ_CST);
		return;
	}
	/* a page with decoded code, or MMIO: nothing to lock there */
	old = (uint8_t)mmu_sys_ld(v, la, 1);
	mmu_sys_st(v, la, (old | set) & (uint8_t)~clear, 1);
}

void seg_mark_accessed(struct vcpu *v, const struct desc *d)
{
	if (!(d->hi & 0x100))
		seg_type_bits(v, d->la, SEG_AR_ACCESSED, 0);
}

/* ---- Segment registers ---------------------------------------------------------------------- */

bool seg_fits(const struct seg *s, uint64_t off, uint64_t len)
{
	uint64_t last = off + len - 1;

	if (s->ar & SEG_AR_UNUSABLE)
		return false;
	if ((s->ar & (SEG_AR_CODE | SEG_AR_DOWN)) == SEG_AR_DOWN)
		return off > s->limit && last <= (s->ar & SEG_AR_DB ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

void vcpu_set_seg_real(struct vcpu *v, unsigned n, uint16_t sel)
{
	struct seg *s = &v->seg[n];

	s->sel = sel;
	s->base = (uint32_t)sel << 4;
	if (v->rflags & RF_VM) {
		s->limit = 0xffff;
		s->ar = SEG_AR_P | SEG_AR_DPL | SEG_AR_S | SEG_AR_WRITE | SEG_AR_ACCESSED;
	} else if (s->ar & SEG_AR_UNUSABLE) {
		s->limit = 0xffff;
		s->ar = SEG_AR_P | SEG_AR_S | SEG_AR_WRITE | SEG_AR_ACCESSED;
	} else if (n == SEG_CS) {
		/* a far jump after leaving protected mode: writable from now on, limit as it was */
		s->ar = (s->ar & (SEG_AR_DB | SEG_AR_G)) | SEG_AR_P | SEG_AR_S | SEG_AR_WRITE |
			SEG_AR_ACCESSED;
	}
	vcpu_update_seg(v, n);
}

static void seg_load_ss(struct vcpu *v, uint16_t sel)
{
	struct desc d;

	if (seg_null(sel)) {
		if (!v->long64 || v->cpl == 3 || (sel & 3) != v->cpl)
			throw_gp(v, 0);
		v->seg[SEG_SS] = seg_make_null(sel, v->cpl);
		return;
	}
	if (!seg_fetch(v, sel, &d) || (sel & 3) != v->cpl || !desc_writable_data(&d) ||
	    desc_dpl(&d) != v->cpl)
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_SS, seg_error(sel, 0));
	seg_mark_accessed(v, &d);
	v->seg[SEG_SS] = seg_make(sel, &d);
}

static void seg_load_data(struct vcpu *v, unsigned n, uint16_t sel)
{
	struct desc d;

	if (seg_null(sel)) {
		v->seg[n] = seg_make_null(sel, 0);
		return;
	}
	/* data, or readable code */
	if (!seg_fetch(v, sel, &d) || !desc_user(&d) ||
	    (desc_type(&d) & (SEG_AR_CODE | SEG_AR_WRITE)) == SEG_AR_CODE)
		throw_gp(v, seg_error(sel, 0));
	if (!(desc_is_code(&d) && desc_conforming(&d)) &&
	    MAX(sel & 3u, (unsigned)v->cpl) > desc_dpl(&d))
		throw_gp(v, seg_error(sel, 0));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_NP, seg_error(sel, 0));
	seg_mark_accessed(v, &d);
	v->seg[n] = seg_make(sel, &d);
}

void vcpu_load_seg(struct vcpu *v, unsigned n, uint16_t sel)
{
	if (v->real) {
		vcpu_set_seg_real(v, n, sel);
		return;
	}
	if (n == SEG_SS)
		seg_load_ss(v, sel);
	else
		seg_load_data(v, n, sel);
	vcpu_update_seg(v, n);
}

void seg_drop_inner(struct vcpu *v)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned k = 0; k < ARRAY_SIZE(data); k++) {
		struct seg *s = &v->seg[data[k]];
		bool conforming =
			(s->ar & (SEG_AR_CODE | SEG_AR_DOWN)) == (SEG_AR_CODE | SEG_AR_DOWN);

		/* a null selector loses its RPL but keeps its base: FS and GS of 64-bit programs */
		if (s->ar & SEG_AR_UNUSABLE)
			s->sel = 0;
		else if (SEG_DPL(s->ar) < v->cpl && !conforming)
			*s = seg_make_null(0, 0);
	}
}
