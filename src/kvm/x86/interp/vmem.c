/*
 * Vector instructions whose memory operand is not one run of bytes: masked moves and gathers.
 *
 * Elements whose mask bit is clear are not accessed and cannot fault. Masked stores probe every
 * element before the first is written. A gather that faults keeps the elements done so far in the
 * destination and their mask elements cleared, so that it goes on when restarted.
 *
 * References: [SDM2B MASKMOVDQU], [SDM2D VMASKMOV VPMASKMOV VGATHERDPS VPGATHERDD].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/exec.h"

/* ---- Vector registers as bytes -------------------------------------------------------------- */

struct vreg {
	uint8_t b[32];
};

static struct vreg vec_get(const struct vcpu *v, unsigned n)
{
	struct vreg x;

	memcpy(x.b, v->xsave + FX_XMM + 16 * n, 16);
	memcpy(x.b + 16, v->xsave + XS_YMMH + 16 * n, 16);
	return x;
}

static void vec_set(struct vcpu *v, unsigned n, const struct vreg *x)
{
	memcpy(v->xsave + FX_XMM + 16 * n, x->b, 16);
	memcpy(v->xsave + XS_YMMH + 16 * n, x->b + 16, 16);
}

/* Sign bit of element n of size bytes. */
static bool vec_sign(const struct vreg *x, unsigned n, unsigned size)
{
	return x->b[n * size + size - 1] & 0x80;
}

static unsigned vec_width(const struct insn *i)
{
	return i->flags & IF_L ? 32 : 16;
}

/* ---- MASKMOVQ, MASKMOVDQU: bytes to DS:[rDI] ------------------------------------------------ */

static void vmem_maskmov(struct vcpu *v, const struct insn *i, const uint8_t *src,
			 const uint8_t *mask, unsigned n)
{
	uint64_t off = v->r[REG_RDI];
	gva_t la[16] = { 0 };

	for (unsigned k = 0; k < n; k++) {
		uint64_t o = (off + k) & size_mask(i->asize);

		if (!(mask[k] & 0x80))
			continue;
		la[k] = mmu_linear(v, i->seg, o, 1, ACC_WRITE);
		mmu_probe(v, la[k], 1, ACC_WRITE);
	}
	for (unsigned k = 0; k < n; k++)
		if (mask[k] & 0x80)
			mmu_st8(v, la[k], src[k]);
}

EXEC(MASKMOVQ_PqNq)
{
	unsigned top = fpu_word(v, FX_FSW) >> 11 & 7;
	uint8_t src[8], mask[8];

	/* MMX registers are physical ones, the image is in stack order. */
	memcpy(src, v->xsave + FX_ST + 16 * ((i->modrm / 8 - top) & 7), 8);
	memcpy(mask, v->xsave + FX_ST + 16 * ((i->modrm - top) & 7), 8);
	/* As every MMX instruction: top of stack 0, all registers valid; even if a store faults. */
	fpu_x87_set_top(v, 0);
	v->xsave[FX_FTW] = 0xff;
	vmem_maskmov(v, i, src, mask, 8);
}

EXEC(MASKMOVDQU_VdqUdq)
{
	struct vreg src = vec_get(v, i->reg), mask = vec_get(v, i->rm);

	vmem_maskmov(v, i, src.b, mask.b, 16);
}

EXEC(VMASKMOVDQU_VdqUdq)
{
	exec_MASKMOVDQU_VdqUdq(v, i);
}

/* ---- VMASKMOV, VPMASKMOV -------------------------------------------------------------------- */

static void vmem_mask_load(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct vreg mask = vec_get(v, i->vvvv), dst = { { 0 } };
	uint64_t ea = insn_ea(v, i);

	for (unsigned n = 0; n < vec_width(i) / size; n++) {
		uint64_t x;

		if (!vec_sign(&mask, n, size))
			continue;
		x = mem_ld(v,
			   mmu_linear(v, i->seg, (ea + n * size) & size_mask(i->asize), size,
				      ACC_READ),
			   size);
		memcpy(dst.b + n * size, &x, size);
	}
	vec_set(v, i->reg, &dst);
}

static void vmem_mask_store(struct vcpu *v, const struct insn *i, unsigned size)
{
	struct vreg mask = vec_get(v, i->vvvv), src = vec_get(v, i->reg);
	unsigned count = vec_width(i) / size;
	uint64_t ea = insn_ea(v, i);
	gva_t la[8] = { 0 };

	for (unsigned n = 0; n < count; n++) {
		if (!vec_sign(&mask, n, size))
			continue;
		la[n] = mmu_linear(v, i->seg, (ea + n * size) & size_mask(i->asize), size,
				   ACC_WRITE);
		mmu_probe(v, la[n], size, ACC_WRITE);
	}
	for (unsigned n = 0; n < count; n++) {
		uint64_t x = 0;

		if (!vec_sign(&mask, n, size))
			continue;
		memcpy(&x, src.b + n * size, size);
		mem_st(v, la[n], size, x);
	}
}

#define MASK_MOVES(name, size) \
	EXEC(name##_VxHxMx) \
	{ \
		vmem_mask_load(v, i, size); \
	} \
	EXEC(name##_MxHxVx) \
	{ \
		vmem_mask_store(v, i, size); \
	}
/* clang-format off */
MASK_MOVES(VMASKMOVPS, 4)
MASK_MOVES(VMASKMOVPD, 8)
MASK_MOVES(VPMASKMOVD, 4)
MASK_MOVES(VPMASKMOVQ, 8)
/* clang-format on */
#undef MASK_MOVES

/* ---- Gathers -------------------------------------------------------------------------------- */

/* size, isize: bytes of an element and of an index. */
static void vmem_gather(struct vcpu *v, const struct insn *i, unsigned size, unsigned isize)
{
	struct vreg dst = vec_get(v, i->reg), mask = vec_get(v, i->vvvv);
	struct vreg index = vec_get(v, i->index);
	unsigned count = vec_width(i) / MAX(size, isize);

	/* Destination, mask and index must be three registers ([SDM2D VGATHERDPS]). */
	if (i->reg == i->vvvv || i->reg == i->index || i->vvvv == i->index)
		throw_ud(v);
	for (unsigned n = 0; n < count; n++) {
		int64_t ix;
		uint64_t x, off;
		int32_t ix32;

		if (!vec_sign(&mask, n, size)) {
			memset(mask.b + n * size, 0, size);
			continue;
		}
		if (isize == 4) {
			memcpy(&ix32, index.b + n * 4, 4);
			ix = ix32;
		} else {
			memcpy(&ix, index.b + n * 8, 8);
		}
		off = v->r[i->base] + ((uint64_t)ix << i->scale) + (uint64_t)(int64_t)i->disp;
		off &= size_mask(i->asize);
		/* What is done so far is the guest's to see if this element faults. */
		vec_set(v, i->reg, &dst);
		vec_set(v, i->vvvv, &mask);
		x = mem_ld(v, mmu_linear(v, i->seg, off, size, ACC_READ), size);
		memcpy(dst.b + n * size, &x, size);
		memset(mask.b + n * size, 0, size);
	}
	memset(dst.b + count * size, 0, 32 - count * size);
	memset(mask.b, 0, 32);
	vec_set(v, i->reg, &dst);
	vec_set(v, i->vvvv, &mask);
}

#define GATHER(id, size, isize) \
	EXEC(id) \
	{ \
		vmem_gather(v, i, size, isize); \
	}
/* clang-format off */
GATHER(VPGATHERDD_VxMHx, 4, 4)
GATHER(VPGATHERDQ_VxMHx, 8, 4)
GATHER(VPGATHERQD_VdqMHdq, 4, 8)
GATHER(VPGATHERQQ_VxMHx, 8, 8)
GATHER(VGATHERDPS_VxMHx, 4, 4)
GATHER(VGATHERDPD_VxMHx, 8, 4)
GATHER(VGATHERQPS_VdqMHdq, 4, 8)
GATHER(VGATHERQPD_VxMHx, 8, 8)
/* clang-format on */
#undef GATHER
