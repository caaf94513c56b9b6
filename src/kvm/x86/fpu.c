/*
 * x87, SSE, AVX and PKRU state of a vCPU.
 *
 * References: [SDM1 8.1, 10.2, 13], [KVM-API 4.22 4.42 4.45].
 * Threads:    v->lock held, or the vCPU's own thread.
 */
#include "kvm/x86/fpu.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>

#include "base/bug.h"

void fpu_x87_summary(struct vcpu *v)
{
	uint16_t fsw = fpu_word(v, FX_FSW) & (uint16_t) ~(FSW_ES | FSW_B);

	if (fpu_x87_pending(v))
		fsw |= FSW_ES | FSW_B;
	fpu_set_word(v, FX_FSW, fsw);
}

void fpu_x87_set_top(struct vcpu *v, unsigned top)
{
	unsigned fsw = fpu_word(v, FX_FSW), by = (top - (fsw >> 11)) & 7;
	uint8_t st[128];

	if (!by)
		return;
	memcpy(st, v->xsave + FX_ST, 128);
	for (unsigned n = 0; n < 8; n++)
		memcpy(v->xsave + FX_ST + 16 * n, st + 16 * ((n + by) & 7), 16);
	fpu_set_word(v, FX_FSW, (uint16_t)((fsw & ~(7u << 11)) | top << 11));
}

void fpu_x87_init(struct vcpu *v)
{
	fpu_x87_set_top(v, 0);
	memset(v->xsave, 0, FX_MXCSR);
	fpu_set_word(v, FX_FCW, 0x37f);
}

void fpu_reset(struct vcpu *v)
{
	uint32_t mask = MXCSR_VALID;

	/* As the kernel's KVM starts: FNINIT's state. The manuals have FCW 40h here. */
	memset(v->xsave, 0, sizeof(v->xsave));
	fpu_set_word(v, FX_FCW, 0x37f);
	fpu_set_mxcsr(v, MXCSR_INIT);
	memcpy(v->xsave + FX_MXCSR_MASK, &mask, 4);
	v->pkru = 0;
	v->xcr0 = XSTATE_X87;
}

/* ---- State components ----------------------------------------------------------------------- */

static struct fpu_layout {
	pthread_once_t once;
	uint64_t xcr0;
	struct fpu_component c[XFEATURES];
} fpu_layout = { .once = PTHREAD_ONCE_INIT };

/* From CPUID, which is slow in a virtual machine: once. */
static void fpu_layout_read(void)
{
	struct fpu_layout *l = &fpu_layout;
	uint32_t a, b, c, d, host, hi;

	l->xcr0 = XSTATE_X87 | XSTATE_SSE;
	if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & BIT(27)))
		return;
	__asm__ volatile("xgetbv" : "=a"(host), "=d"(hi) : "c"(0));
	for (unsigned n = XFEATURE_AVX; n < XFEATURES; n++) {
		if (n != XFEATURE_AVX && n != XFEATURE_PKRU)
			continue;
		if (!(host & BIT(n)) || !__get_cpuid_count(13, n, &a, &b, &c, &d) || !a)
			continue;
		if (b < XS_YMMH || b + a > XSAVE_AREA_SIZE)
			continue;
		if (n == XFEATURE_AVX ? b != XS_YMMH || a != 256 : a < 4)
			continue; /* thunks rely on this; no processor differs */
		l->c[n] = (struct fpu_component){ b, a, (c & 2) != 0 };
		l->xcr0 |= BIT(n);
	}
}

static const struct fpu_layout *fpu_layout_get(void)
{
	pthread_once(&fpu_layout.once, fpu_layout_read);
	return &fpu_layout;
}

uint64_t fpu_supported_xcr0(void)
{
	return fpu_layout_get()->xcr0;
}

struct fpu_component fpu_component(unsigned n)
{
	BUG_ON(n < XFEATURE_AVX || n >= XFEATURES);
	return fpu_layout_get()->c[n];
}

uint32_t fpu_xsave_size(uint64_t xcr0)
{
	uint32_t size = XS_HEADER + XS_HEADER_SIZE;

	for (unsigned n = XFEATURE_AVX; n < XFEATURES; n++) {
		struct fpu_component c = fpu_component(n);

		if (xcr0 & BIT(n) && c.offset + c.size > size)
			size = c.offset + c.size;
	}
	return size;
}

/* What the vCPU's CPUID leaf 13 offers, inside what this host has. */
static uint64_t fpu_vcpu_xcr0(const struct vcpu *v)
{
	uint64_t x = XSTATE_X87 | XSTATE_SSE;

	if (vcpu_has(v, FEAT_AVX))
		x |= XSTATE_AVX;
	if (vcpu_has(v, FEAT_PKU))
		x |= XSTATE_PKRU;
	return x & fpu_supported_xcr0();
}

bool fpu_xcr0_valid(const struct vcpu *v, uint64_t x)
{
	if (!(x & XSTATE_X87) || (x & XSTATE_AVX && !(x & XSTATE_SSE)))
		return false;
	return !(x & ~fpu_vcpu_xcr0(v));
}

static bool fpu_is_zero(const uint8_t *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

uint64_t fpu_xinuse(const struct vcpu *v, uint64_t mask)
{
	uint64_t used = 0;

	if (mask & XSTATE_X87 &&
	    (fpu_word(v, FX_FCW) != 0x37f || !fpu_is_zero(v->xsave + 2, FX_MXCSR - 2) ||
	     !fpu_is_zero(v->xsave + FX_ST, FX_XMM - FX_ST)))
		used |= XSTATE_X87;
	if (mask & XSTATE_SSE && !fpu_is_zero(v->xsave + FX_XMM, v->long64 ? 256 : 128))
		used |= XSTATE_SSE;
	if (mask & XSTATE_AVX && !fpu_is_zero(v->xsave + XS_YMMH, v->long64 ? 256 : 128))
		used |= XSTATE_AVX;
	if (mask & XSTATE_PKRU && v->pkru)
		used |= XSTATE_PKRU;
	return used;
}

void fpu_init_components(struct vcpu *v, uint64_t mask)
{
	if (mask & XSTATE_X87) {
		fpu_x87_init(v);
		memset(v->xsave + FX_ST, 0, FX_XMM - FX_ST);
	}
	/* Outside 64-bit mode the upper eight registers are out of reach ([SDM1 13.6]). */
	if (mask & XSTATE_SSE)
		memset(v->xsave + FX_XMM, 0, v->long64 ? 256 : 128);
	if (mask & XSTATE_AVX)
		memset(v->xsave + XS_YMMH, 0, v->long64 ? 256 : 128);
	if (mask & XSTATE_PKRU)
		v->pkru = 0;
}

/* ---- KVM's structures ----------------------------------------------------------------------- */

void kvm_fpu_get(const struct vcpu *v, struct kvm_fpu *f)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->fpr, v->xsave + FX_ST, 128);
	f->fcw = fpu_word(v, FX_FCW);
	f->fsw = fpu_word(v, FX_FSW);
	f->ftwx = (uint8_t)fpu_word(v, FX_FTW);
	f->last_opcode = fpu_word(v, FX_FOP);
	memcpy(&f->last_ip, v->xsave + FX_FIP, 8);
	memcpy(&f->last_dp, v->xsave + FX_FDP, 8);
	memcpy(f->xmm, v->xsave + FX_XMM, 256);
	f->mxcsr = fpu_mxcsr(v);
}

int kvm_fpu_set(struct vcpu *v, const struct kvm_fpu *f)
{
	/* The kernel takes no MXCSR here, so callers leave anything in it. */
	memcpy(v->xsave + FX_ST, f->fpr, 128);
	fpu_set_word(v, FX_FCW, f->fcw);
	fpu_set_word(v, FX_FSW, f->fsw);
	fpu_set_word(v, FX_FTW, f->ftwx);
	fpu_set_word(v, FX_FOP, f->last_opcode & 0x7ff);
	memcpy(v->xsave + FX_FIP, &f->last_ip, 8);
	memcpy(v->xsave + FX_FDP, &f->last_dp, 8);
	memcpy(v->xsave + FX_XMM, f->xmm, 256);
	fpu_x87_summary(v);
	return 0;
}

void kvm_xsave_get(const struct vcpu *v, struct kvm_xsave *x)
{
	uint8_t *area = (uint8_t *)x->region;
	struct fpu_component pkru = fpu_component(XFEATURE_PKRU);
	uint64_t bv = fpu_supported_xcr0();
	uint32_t mask = MXCSR_VALID;

	_Static_assert(sizeof(x->region) == XSAVE_AREA_SIZE, "one page");
	memset(area, 0, XSAVE_AREA_SIZE);
	memcpy(area, v->xsave, FX_XMM + 256);   /* what follows is software's, or reserved */
	memcpy(area + FX_MXCSR_MASK, &mask, 4); /* a thunk's FXSAVE left the host's */
	memcpy(area + XS_YMMH, v->xsave + XS_YMMH, 256);
	if (pkru.size)
		memcpy(area + pkru.offset, &v->pkru, 4);
	/* All of them, in use or not: a reader then need not know initial states. */
	memcpy(area + XS_XSTATE_BV, &bv, 8);
}

int kvm_xsave_set(struct vcpu *v, const struct kvm_xsave *x)
{
	const uint8_t *area = (const uint8_t *)x->region;
	struct fpu_component pkru = fpu_component(XFEATURE_PKRU);
	uint32_t mxcsr, mask = MXCSR_VALID;
	bool long64 = v->long64;
	uint64_t bv;

	memcpy(&bv, area + XS_XSTATE_BV, 8);
	memcpy(&mxcsr, area + FX_MXCSR, 4);
	if (bv & ~fpu_supported_xcr0())
		return -EINVAL;
	if (!fpu_is_zero(area + XS_XCOMP_BV, XS_HEADER_SIZE - 8))
		return -EINVAL;
	if (bv & (XSTATE_SSE | XSTATE_AVX) && mxcsr & ~(uint32_t)MXCSR_VALID)
		return -EINVAL;
	v->long64 = true; /* all sixteen registers */
	fpu_init_components(v, ~bv);
	v->long64 = long64;
	if (bv & XSTATE_X87) {
		memcpy(v->xsave, area, FX_MXCSR);
		v->xsave[FX_FTW + 1] = 0;
		memcpy(v->xsave + FX_ST, area + FX_ST, FX_XMM - FX_ST);
		fpu_x87_summary(v);
	}
	if (bv & XSTATE_SSE)
		memcpy(v->xsave + FX_XMM, area + FX_XMM, 256);
	if (bv & (XSTATE_SSE | XSTATE_AVX))
		fpu_set_mxcsr(v, mxcsr);
	else
		fpu_set_mxcsr(v, MXCSR_INIT);
	memcpy(v->xsave + FX_MXCSR_MASK, &mask, 4);
	if (bv & XSTATE_AVX)
		memcpy(v->xsave + XS_YMMH, area + XS_YMMH, 256);
	if (bv & XSTATE_PKRU && pkru.size)
		memcpy(&v->pkru, area + pkru.offset, 4);
	return 0;
}

int kvm_xcrs_get(const struct vcpu *v, struct kvm_xcrs *x)
{
	if (!vcpu_has(v, FEAT_XSAVE))
		return -EINVAL;
	memset(x, 0, sizeof(*x));
	x->nr_xcrs = 1;
	x->xcrs[0].xcr = 0;
	x->xcrs[0].value = v->xcr0;
	return 0;
}

int kvm_xcrs_set(struct vcpu *v, const struct kvm_xcrs *x)
{
	if (!vcpu_has(v, FEAT_XSAVE) || x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (unsigned n = 0; n < x->nr_xcrs; n++) {
		if (x->xcrs[n].xcr)
			continue; /* only XCR0 exists; the kernel too looks for no other */
		if (!fpu_xcr0_valid(v, x->xcrs[n].value))
			return -EINVAL;
		v->xcr0 = x->xcrs[n].value;
		break;
	}
	return 0;
}
