/*
 * x87, SSE, AVX and PKRU state of a vCPU: layout, checks, and the KVM calls that get and set it.
 *
 * v->xsave is an XSAVE area in the standard format: the FXSAVE image at 0, the header at 512 (kept
 * zero: what is in use is worked out when asked for), YMM_Hi128 at 576. PKRU lives in v->pkru.
 * FSW.ES and B always tell the truth, as the instructions that load the image recompute them.
 *
 * Modelled:     x87, SSE, AVX, PKRU.
 * Not modelled: MPX, AVX-512, AMX, supervisor states: neither offered nor accepted. FCS and FDS
 *               (always 0). AMD's misaligned SSE mode (MXCSR.MM reserved: do not offer
 * MISALIGNSSE). References:   [SDM1 8, 10, 13], [KVM-API 4.22 4.42 4.45]. Threads:      v->lock
 * held, or the vCPU's own thread.
 */
#pragma once
#include <linux/kvm.h>
#include <string.h>

#include "kvm/x86/vcpu.h"

enum { XFEATURE_X87, XFEATURE_SSE, XFEATURE_AVX, XFEATURE_PKRU = 9, XFEATURES = 10 };
#define XSTATE_X87  BIT(XFEATURE_X87)
#define XSTATE_SSE  BIT(XFEATURE_SSE)
#define XSTATE_AVX  BIT(XFEATURE_AVX)
#define XSTATE_PKRU BIT(XFEATURE_PKRU)

/* Offsets in v->xsave. */
enum {
	FX_FCW = 0,
	FX_FSW = 2,
	FX_FTW = 4,
	FX_FOP = 6,
	FX_FIP = 8,
	FX_FDP = 16,
	FX_MXCSR = 24,
	FX_MXCSR_MASK = 28,
	FX_ST = 32,
	FX_XMM = 160,
	FX_SIZE = 512,
	XS_HEADER = 512,
	XS_XSTATE_BV = 512,
	XS_XCOMP_BV = 520,
	XS_HEADER_SIZE = 64,
	XS_YMMH = 576,
};

enum {
	FSW_PE = 1 << 5,
	FSW_EXC = 0x3f,
	FSW_SF = 1 << 6,
	FSW_ES = 1 << 7,
	FSW_B = 1 << 15,
	MXCSR_MASKS = 0x1f80,
	MXCSR_INIT = 0x1f80,
	MXCSR_VALID = 0xffff, /* what FXSAVE reports as MXCSR_MASK */
};

static inline uint32_t fpu_mxcsr(const struct vcpu *v)
{
	uint32_t x;

	memcpy(&x, v->xsave + FX_MXCSR, 4);
	return x;
}

static inline void fpu_set_mxcsr(struct vcpu *v, uint32_t x)
{
	memcpy(v->xsave + FX_MXCSR, &x, 4);
}

static inline uint16_t fpu_word(const struct vcpu *v, unsigned off)
{
	uint16_t x;

	memcpy(&x, v->xsave + off, 2);
	return x;
}

static inline void fpu_set_word(struct vcpu *v, unsigned off, uint16_t x)
{
	memcpy(v->xsave + off, &x, 2);
}

/* Unmasked x87 exception flags: not 0 means that the next waiting instruction raises #MF. */
static inline unsigned fpu_x87_pending(const struct vcpu *v)
{
	return fpu_word(v, FX_FSW) & ~(unsigned)fpu_word(v, FX_FCW) & FSW_EXC;
}

/* Recompute FSW.ES and B after FCW or FSW was loaded. */
void fpu_x87_summary(struct vcpu *v);
/*
 * Change the top of stack as MMX instructions, FNINIT and FLDENV do: the physical registers keep
 * their contents, so that the image, which is in stack order, is rotated.
 */
void fpu_x87_set_top(struct vcpu *v, unsigned top);
/* FNINIT: control, status and tag words and pointers; the registers keep their bits. */
void fpu_x87_init(struct vcpu *v);
/* State after power-up or RESET, XCR0 and PKRU included. INIT changes nothing of this. */
void fpu_reset(struct vcpu *v);

/* State components ([SDM1 13.4]) that this KVM has on this host: bits of XCR0. */
uint64_t fpu_supported_xcr0(void);
/* Place of extended component n (2..XFEATURES-1) in the standard format; size 0: not supported. */
struct fpu_component {
	uint32_t offset, size;
	bool align64; /* in the compacted format */
};
struct fpu_component fpu_component(unsigned n);
/* Bytes of a standard-format area for the components of xcr0. */
uint32_t fpu_xsave_size(uint64_t xcr0);
/* Whether XSETBV may write x to XCR0: supported by host and allowed by the vCPU's CPUID. */
bool fpu_xcr0_valid(const struct vcpu *v, uint64_t x);
/* Components not in their initial configuration (XINUSE), of those in mask. */
uint64_t fpu_xinuse(const struct vcpu *v, uint64_t mask);
/* Put the components of mask into their initial configuration; MXCSR is not among them. */
void fpu_init_components(struct vcpu *v, uint64_t mask);

/* KVM_GET/SET_FPU, _XSAVE, _XCRS. Return 0 or -errno; nothing changes on error. */
void kvm_fpu_get(const struct vcpu *v, struct kvm_fpu *f);
int kvm_fpu_set(struct vcpu *v, const struct kvm_fpu *f);
void kvm_xsave_get(const struct vcpu *v, struct kvm_xsave *x);
int kvm_xsave_set(struct vcpu *v, const struct kvm_xsave *x);
int kvm_xcrs_get(const struct vcpu *v, struct kvm_xcrs *x);
int kvm_xcrs_set(struct vcpu *v, const struct kvm_xcrs *x);
