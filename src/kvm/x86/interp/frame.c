/*
 * The stacks that far calls and event delivery push on.
 *
 * A frame is pushed before the new stack becomes current, so everything is checked against a copy
 * of the SS that will be: segment limits first, then paging for all of it, then the stores.
 *
 * References: [SDM3 6.12.1, 6.14.4, 7.2, 7.7], [SDM2A INT n]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/seg.h"

/* SS, rSP, 31 parameters of a call gate, CS, rIP. */
enum { FRAME_MAX = 35 };

struct frame frame_current(const struct vcpu *v, uint32_t ss_error)
{
	return (struct frame){
		.ss = v->seg[SEG_SS],
		.sp = v->r[REG_RSP],
		.width = v->stack_size,
		.cpl = v->cpl,
		.ss_error = ss_error,
	};
}

/* [off, off + len) of the TSS, or #TS(TSS selector). */
static uint64_t frame_tss(struct vcpu *v, unsigned off, unsigned len, unsigned ext)
{
	if ((v->tr.ar & SEG_AR_UNUSABLE) || off + len - 1 > v->tr.limit)
		vcpu_throw_error(v, VEC_TS, seg_error(v->tr.sel, ext));
	return seg_wrap(v, v->tr.base + off);
}

static struct frame frame_long(struct vcpu *v, unsigned cpl, unsigned ist, unsigned ext)
{
	unsigned off = ist ? 28 + 8 * ist : 4 + 8 * cpl;
	struct frame f = {
		.ss = seg_make_null((uint16_t)cpl, cpl),
		.width = 8,
		.cpl = (uint8_t)cpl,
		.ss_error = ext,
	};

	f.sp = mmu_sys_ld(v, frame_tss(v, off, 8, ext), 8);
	if (!seg_canonical(f.sp))
		vcpu_throw_error(v, VEC_SS, ext);
	return f;
}

struct frame frame_from_tss(struct vcpu *v, unsigned cpl, unsigned ist, unsigned ext)
{
	struct frame f = { .cpl = (uint8_t)cpl };
	struct desc d;
	uint16_t sel;

	if (seg_long_mode(v))
		return frame_long(v, cpl, ist, ext);
	if ((v->tr.ar & SEG_AR_TYPE) >= DESC_TSS32) {
		gva_t la = frame_tss(v, 4 + 8 * cpl, 6, ext);

		f.sp = mmu_sys_ld(v, la, 4);
		sel = (uint16_t)mmu_sys_ld(v, seg_wrap(v, la + 4), 2);
	} else {
		gva_t la = frame_tss(v, 2 + 4 * cpl, 4, ext);

		f.sp = mmu_sys_ld(v, la, 2);
		sel = (uint16_t)mmu_sys_ld(v, seg_wrap(v, la + 2), 2);
	}
	if (seg_null(sel))
		vcpu_throw_error(v, VEC_TS, ext);
	if ((sel & 3) != cpl || !seg_fetch(v, sel, &d) || desc_dpl(&d) != cpl ||
	    !desc_writable_data(&d))
		vcpu_throw_error(v, VEC_TS, seg_error(sel, ext));
	if (!desc_present(&d))
		vcpu_throw_error(v, VEC_SS, seg_error(sel, ext));
	seg_mark_accessed(v, &d);
	f.ss = seg_make(sel, &d);
	f.width = f.ss.ar & SEG_AR_DB ? 4 : 2;
	f.ss_error = seg_error(sel, ext);
	return f;
}

/* Linear address of [sp, sp + len) on the frame's stack, or #SS. */
static gva_t frame_linear(struct vcpu *v, const struct frame *f, uint64_t sp, unsigned len)
{
	if (f->width == 8) {
		if (!seg_canonical(sp) || !seg_canonical(sp + len - 1))
			vcpu_throw_error(v, VEC_SS, f->ss_error);
		return sp;
	}
	if (!seg_fits(&f->ss, sp, len))
		vcpu_throw_error(v, VEC_SS, f->ss_error);
	return (uint32_t)(f->ss.base + sp);
}

void frame_push(struct vcpu *v, struct frame *f, unsigned size, const uint64_t *val, unsigned n)
{
	/* the level that owns the stack writes it; an inner one is a supervisor whatever CPL is now
	 */
	unsigned acc = ACC_WRITE | (f->cpl < 3 && f->cpl != v->cpl ? ACC_SYS : 0);
	uint64_t mask = size_mask(f->width), top = f->sp & mask;
	uint64_t bottom = (top - (uint64_t)size * n) & mask;
	bool wraps = bottom + (uint64_t)size * n != top && top != 0;

	if (!wraps) {
		gva_t la = frame_linear(v, f, bottom, size * n);
		uint8_t buf[FRAME_MAX * 8];

		for (unsigned k = 0; k < n; k++)
			memcpy(buf + (size_t)size * (n - 1 - k), &val[k], size);
		mmu_write(v, la, buf, size * n, acc);
	} else {
		for (unsigned k = 1; k <= n; k++) {
			uint64_t sp = (top - (uint64_t)size * k) & mask;

			mmu_probe(v, frame_linear(v, f, sp, size), size, acc);
		}
		for (unsigned k = 1; k <= n; k++) {
			uint64_t sp = (top - (uint64_t)size * k) & mask;

			mmu_slow_store(v, frame_linear(v, f, sp, size), val[k - 1], size, acc);
		}
	}
	f->sp = (f->sp & ~mask) | bottom;
}

void frame_commit(struct vcpu *v, const struct frame *f)
{
	v->seg[SEG_SS] = f->ss;
	if (f->width == 2)
		v->r[REG_RSP] = (v->r[REG_RSP] & ~0xffffull) | (f->sp & 0xffff);
	else
		v->r[REG_RSP] = f->width == 4 ? (uint32_t)f->sp : f->sp;
}
