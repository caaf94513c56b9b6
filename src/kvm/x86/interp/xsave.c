/*
 * FXSAVE, FXRSTOR and the XSAVE family.
 *
 * XSAVEOPT applies the init optimisation only. XSAVES and XRSTORS see no supervisor component, as
 * none is offered (IA32_XSS is 0).
 *
 * Departure: all bytes that an instruction will write are probed before the first is written, so
 * a fault leaves memory as it was; processors may have written a part.
 *
 * References: [SDM1 10.5, 13.7 to 13.13], [SDM2A FXSAVE], [APM2 11.5] for FFXSR.
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/exec.h"

/* ---- FXSAVE --------------------------------------------------------------------------------- */

static bool fx_fast(const struct vcpu *v)
{
	return v->efer & EFER_FFXSR && v->long64 && !v->cpl;
}

/* Bytes of the FXSAVE area in use: registers that the mode can name. */
static unsigned fx_size(const struct vcpu *v)
{
	return fx_fast(v) ? FX_XMM : v->long64 ? FX_XMM + 256 : FX_XMM + 128;
}

/* Without REX.W pointers are 32 bits, followed by the selectors, which are 0 here. */
static void fx_narrow_pointers(const struct insn *i, uint8_t *image)
{
	if (!(i->flags & IF_W)) {
		memset(image + FX_FIP + 4, 0, 4);
		memset(image + FX_FDP + 4, 0, 4);
	}
}

static gva_t fx_address(struct vcpu *v, const struct insn *i, unsigned size, unsigned align,
			unsigned acc)
{
	gva_t la = insn_la(v, i, size, acc);

	if (la & (align - 1))
		throw_gp(v, 0);
	return la;
}

EXEC(FXSAVE)
{
	uint8_t image[FX_SIZE];
	gva_t la = fx_address(v, i, FX_SIZE, 16, ACC_WRITE);
	uint32_t mask = MXCSR_VALID;

	memcpy(image, v->xsave, FX_SIZE);
	memcpy(image + FX_MXCSR_MASK, &mask, 4);
	fx_narrow_pointers(i, image);
	mmu_probe(v, la, FX_SIZE, ACC_WRITE);
	mmu_write(v, la, image, fx_size(v), ACC_WRITE);
}

/* The x87 part of an image. */
static void fx_load_x87(struct vcpu *v, const struct insn *i, uint8_t *image)
{
	uint32_t mxcsr = fpu_mxcsr(v), mask = MXCSR_VALID;

	fx_narrow_pointers(i, image);
	memcpy(v->xsave, image, FX_XMM);
	v->xsave[FX_FTW + 1] = 0;
	fpu_set_word(v, FX_FCW, (fpu_word(v, FX_FCW) & 0x1f3f) | 0x40);
	fpu_set_word(v, FX_FOP, fpu_word(v, FX_FOP) & 0x7ff);
	for (unsigned n = 0; n < 8; n++)
		memset(v->xsave + FX_ST + 16 * n + 10, 0, 6);
	fpu_set_mxcsr(v, mxcsr);
	memcpy(v->xsave + FX_MXCSR_MASK, &mask, 4);
	fpu_x87_summary(v);
}

static uint32_t fx_mxcsr(struct vcpu *v, const uint8_t *image)
{
	uint32_t x;

	memcpy(&x, image + FX_MXCSR, 4);
	if (x & ~(uint32_t)MXCSR_VALID)
		throw_gp(v, 0);
	return x;
}

EXEC(FXRSTOR)
{
	uint8_t image[FX_SIZE];
	gva_t la = fx_address(v, i, FX_SIZE, 16, ACC_READ);
	uint32_t mxcsr;

	mmu_read(v, la, image, FX_SIZE, ACC_READ);
	mxcsr = fx_mxcsr(v, image);
	fx_load_x87(v, i, image);
	fpu_set_mxcsr(v, mxcsr);
	if (!fx_fast(v))
		memcpy(v->xsave + FX_XMM, image + FX_XMM, fx_size(v) - FX_XMM);
}

/* ---- XSAVE ---------------------------------------------------------------------------------- */

enum xs_form { XS_STANDARD, XS_OPT, XS_COMPACT };
#define XCOMP_COMPACT BIT(63)

static uint64_t xs_rfbm(struct vcpu *v)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		throw_ud(v);
	if (v->cr0 & CR0_TS)
		vcpu_throw(v, VEC_NM);
	return v->xcr0 & ((v->r[REG_RDX] << 32) | (uint32_t)v->r[REG_RAX]);
}

/* Offset of component n in the format that xcomp_bv names (0: standard). */
static uint32_t xs_offset(unsigned n, uint64_t xcomp_bv)
{
	uint32_t off = XS_HEADER + XS_HEADER_SIZE;

	if (!(xcomp_bv & XCOMP_COMPACT))
		return fpu_component(n).offset;
	for (unsigned k = XFEATURE_AVX; k <= n; k++) {
		struct fpu_component c = fpu_component(k);

		if (!(xcomp_bv & BIT(k)))
			continue;
		if (c.align64)
			off = (off + 63) & ~63u;
		if (k == n)
			break;
		off += c.size;
	}
	return off;
}

/* Bytes of component n that the mode can reach: the upper half of AVX state only in 64-bit mode. */
static uint32_t xs_size(const struct vcpu *v, unsigned n)
{
	return n == XFEATURE_AVX && !v->long64 ? 128 : fpu_component(n).size;
}

/* One run of bytes to be written. */
struct xs_piece {
	const void *from;
	uint32_t off, len;
};

static void xs_save(struct vcpu *v, const struct insn *i, enum xs_form form)
{
	uint64_t rfbm = xs_rfbm(v), inuse = fpu_xinuse(v, rfbm), write, bv, xcomp = 0;
	uint8_t image[FX_SIZE], pkru[64] = { 0 };
	struct xs_piece p[8];
	uint32_t mask = MXCSR_VALID;
	uint64_t header[2];
	unsigned np = 0;
	gva_t la = fx_address(v, i, XS_HEADER + XS_HEADER_SIZE, 64, ACC_WRITE);

	memcpy(image, v->xsave, FX_SIZE);
	memcpy(image + FX_MXCSR_MASK, &mask, 4);
	fx_narrow_pointers(i, image);
	memcpy(pkru, &v->pkru, 4);
	if (form == XS_COMPACT) {
		xcomp = XCOMP_COMPACT | rfbm;
		/* MXCSR is part of SSE here, and alone keeps it in use. */
		if (rfbm & XSTATE_SSE && fpu_mxcsr(v) != MXCSR_INIT)
			inuse |= XSTATE_SSE;
	}
	write = form == XS_STANDARD ? rfbm : inuse;
	if (write & XSTATE_X87) {
		p[np++] = (struct xs_piece){ image, 0, FX_MXCSR };
		p[np++] = (struct xs_piece){ image + FX_ST, FX_ST, FX_XMM - FX_ST };
	}
	if (form == XS_COMPACT ? write & XSTATE_SSE : rfbm & (XSTATE_SSE | XSTATE_AVX))
		p[np++] = (struct xs_piece){ image + FX_MXCSR, FX_MXCSR, 8 };
	if (write & XSTATE_SSE)
		p[np++] = (struct xs_piece){ image + FX_XMM, FX_XMM, v->long64 ? 256 : 128 };
	if (write & XSTATE_AVX)
		p[np++] = (struct xs_piece){ v->xsave + XS_YMMH, xs_offset(XFEATURE_AVX, xcomp),
					     xs_size(v, XFEATURE_AVX) };
	if (write & XSTATE_PKRU)
		p[np++] = (struct xs_piece){ pkru, xs_offset(XFEATURE_PKRU, xcomp),
					     MIN(xs_size(v, XFEATURE_PKRU), 64u) };
	for (unsigned n = 0; n < np; n++)
		mmu_probe(v, la + p[n].off, p[n].len, ACC_WRITE);
	if (form == XS_COMPACT) {
		bv = inuse;
	} else {
		mmu_probe(v, la + XS_HEADER, 8, ACC_WRITE);
		mmu_read(v, la + XS_HEADER, &bv, 8, ACC_READ);
		bv = (bv & ~rfbm) | inuse;
	}
	header[0] = bv;
	header[1] = xcomp;
	mmu_write(v, la + XS_HEADER, header, form == XS_COMPACT ? 16 : 8, ACC_WRITE);
	for (unsigned n = 0; n < np; n++)
		mmu_write(v, la + p[n].off, p[n].from, p[n].len, ACC_WRITE);
}

EXEC(XSAVE)
{
	xs_save(v, i, XS_STANDARD);
}

EXEC(XSAVEOPT)
{
	xs_save(v, i, XS_OPT);
}

EXEC(XSAVEC)
{
	xs_save(v, i, XS_COMPACT);
}

EXEC(XSAVES)
{
	xs_save(v, i, XS_COMPACT);
}

/* ---- XRSTOR --------------------------------------------------------------------------------- */

/* Header rules of [SDM1 13.8.1, 13.8.2, 13.12]; #GP when broken. */
static void xs_check_header(struct vcpu *v, const uint64_t h[8], bool compact_only)
{
	uint64_t bv = h[0], xcomp = h[1];

	if (!(xcomp & XCOMP_COMPACT)) {
		if (compact_only || bv & ~v->xcr0 || xcomp || h[2])
			throw_gp(v, 0);
		return;
	}
	if (!vcpu_has(v, FEAT_XSAVEC) || (xcomp & ~XCOMP_COMPACT) & ~v->xcr0 || bv & ~xcomp)
		throw_gp(v, 0);
	for (unsigned n = 2; n < 8; n++)
		if (h[n])
			throw_gp(v, 0);
}

static void xs_restore(struct vcpu *v, const struct insn *i, bool compact_only)
{
	uint64_t rfbm = xs_rfbm(v), h[8], load;
	gva_t la = fx_address(v, i, XS_HEADER + XS_HEADER_SIZE, 64, ACC_READ);
	uint8_t image[FX_SIZE], ymm[256];
	uint32_t mxcsr = fpu_mxcsr(v), pkru = v->pkru;
	bool compact;

	mmu_read(v, la + XS_HEADER, h, sizeof(h), ACC_READ);
	xs_check_header(v, h, compact_only);
	compact = h[1] & XCOMP_COMPACT;
	load = rfbm & h[0];

	/* All reads first: nothing changes if one faults. */
	mmu_read(v, la, image, v->long64 ? FX_XMM + 256 : FX_XMM + 128, ACC_READ);
	if (compact) {
		if (load & XSTATE_SSE)
			mxcsr = fx_mxcsr(v, image);
		else if (rfbm & XSTATE_SSE)
			mxcsr = MXCSR_INIT;
	} else if (rfbm & (XSTATE_SSE | XSTATE_AVX)) {
		mxcsr = fx_mxcsr(v, image); /* whatever XSTATE_BV says */
	}
	if (load & XSTATE_AVX)
		mmu_read(v, la + xs_offset(XFEATURE_AVX, h[1]), ymm, xs_size(v, XFEATURE_AVX),
			 ACC_READ);
	if (load & XSTATE_PKRU)
		mmu_read(v, la + xs_offset(XFEATURE_PKRU, h[1]), &pkru, 4, ACC_READ);
	else if (rfbm & XSTATE_PKRU)
		pkru = 0;

	fpu_init_components(v, rfbm & ~load & ~XSTATE_PKRU);
	if (load & XSTATE_X87)
		fx_load_x87(v, i, image);
	if (load & XSTATE_SSE)
		memcpy(v->xsave + FX_XMM, image + FX_XMM, v->long64 ? 256 : 128);
	fpu_set_mxcsr(v, mxcsr);
	if (load & XSTATE_AVX)
		memcpy(v->xsave + XS_YMMH, ymm, xs_size(v, XFEATURE_AVX));
	if (pkru != v->pkru) {
		v->pkru = pkru;
		mmu_flush_all(v); /* the TLB holds what the old value allowed */
	}
}

EXEC(XRSTOR)
{
	xs_restore(v, i, false);
}

EXEC(XRSTORS)
{
	xs_restore(v, i, true);
}
