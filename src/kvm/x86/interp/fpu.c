/*
 * x87 and MXCSR control instructions, and the checks before every FPU and vector instruction.
 *
 * References: [SDM1 8.1, 8.7], [SDM3 2.5, 13.1, 23.18], [SDM2A FLDENV FSAVE], [SDM3 table 12-1].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/fpu.h"

#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/thunk.h"

void fpu_check(struct vcpu *v, const struct insn *i, uint32_t attr)
{
	if (attr & A_AVX) {
		uint64_t need = XSTATE_SSE | XSTATE_AVX;

		if (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & need) != need || v->real)
			throw_ud(v);
	} else if (attr & A_SSE) {
		if (v->cr0 & CR0_EM || !(v->cr4 & CR4_OSFXSR))
			throw_ud(v);
	} else if (attr & A_MMX) {
		if (v->cr0 & CR0_EM)
			throw_ud(v);
	} else if (attr & A_X87) {
		if (i->id == I_FWAIT) {
			if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
				vcpu_throw(v, VEC_NM);
		} else if (v->cr0 & (CR0_EM | CR0_TS)) {
			vcpu_throw(v, VEC_NM);
		}
		if (attr & A_X87W && unlikely(fpu_x87_pending(v)))
			vcpu_throw(v, VEC_MF);
		return;
	}
	if (v->cr0 & CR0_TS && attr & (A_AVX | A_SSE | A_MMX))
		vcpu_throw(v, VEC_NM);
	/*
	 * Conversions of a packed integer in memory touch no MMX register. Processors for which
	 * CVTPI2PS waits all the same ([SDM2A CVTPI2PS]) raise #MF in the thunk.
	 */
	if (attr & A_MMX && unlikely(fpu_x87_pending(v)) &&
	    !((i->id == I_CVTPI2PD_VdqQq || i->id == I_CVTPI2PS_VdqQq) && i->flags & IF_MEM))
		vcpu_throw(v, VEC_MF);
}

/* ---- MXCSR ---------------------------------------------------------------------------------- */

EXEC(LDMXCSR)
{
	uint32_t x = (uint32_t)rm_get(v, i, 4);

	if (x & ~(uint32_t)MXCSR_VALID)
		throw_gp(v, 0);
	fpu_set_mxcsr(v, x);
}

EXEC(STMXCSR)
{
	rm_set(v, i, 4, fpu_mxcsr(v));
}

EXEC(VLDMXCSR)
{
	exec_LDMXCSR(v, i);
}

EXEC(VSTMXCSR)
{
	exec_STMXCSR(v, i);
}

/* ---- x87 control ---------------------------------------------------------------------------- */

EXEC(FWAIT)
{
	/* fpu_check has done it. */
}

EXEC(FNCLEX)
{
	fpu_set_word(v, FX_FSW,
		     fpu_word(v, FX_FSW) & (uint16_t) ~(FSW_EXC | FSW_SF | FSW_ES | FSW_B));
}

EXEC(FNINIT)
{
	fpu_x87_init(v);
}

/* 8087 and 287 leftovers: no operation. */
EXEC(FNENI)
{
}

EXEC(FNDISI)
{
}

EXEC(FNSETPM)
{
}

EXEC(FNSTCW_Mw)
{
	rm_set(v, i, 2, fpu_word(v, FX_FCW));
}

EXEC(FNSTSW_Mw)
{
	rm_set(v, i, 2, fpu_word(v, FX_FSW));
}

EXEC(FNSTSW_AX)
{
	reg_set(v, REG_RAX, 2, fpu_word(v, FX_FSW));
}

/* ---- The environment in memory -------------------------------------------------------------- */

enum { FTAG_VALID, FTAG_ZERO, FTAG_SPECIAL, FTAG_EMPTY };

static unsigned fpu_tag(const uint8_t *st)
{
	uint64_t man;
	uint16_t exp;

	memcpy(&man, st, 8);
	memcpy(&exp, st + 8, 2);
	exp &= 0x7fff;
	if (exp == 0)
		return man ? FTAG_SPECIAL : FTAG_ZERO;
	return exp == 0x7fff || !(man >> 63) ? FTAG_SPECIAL : FTAG_VALID;
}

/* The full tag word, by physical register, from the FXSAVE form. */
static uint16_t fpu_full_tag(const struct vcpu *v)
{
	unsigned ftw = v->xsave[FX_FTW], top = fpu_word(v, FX_FSW) >> 11 & 7, full = 0;

	for (unsigned n = 0; n < 8; n++) {
		unsigned st = (n - top) & 7;
		unsigned tag = ftw >> n & 1 ? fpu_tag(v->xsave + FX_ST + 16 * st) : FTAG_EMPTY;

		full |= tag << (2 * n);
	}
	return (uint16_t)full;
}

/*
 * FNSTENV's image, four formats by operand size and mode. Selectors are 0 (see host.c), hence the
 * real-mode formats have the offset where a linear address would be. Returns its size.
 */
static unsigned fpu_env_make(const struct vcpu *v, const struct insn *i, uint8_t *env)
{
	uint16_t head[3] = { fpu_word(v, FX_FCW), fpu_word(v, FX_FSW), fpu_full_tag(v) };
	uint16_t fop = fpu_word(v, FX_FOP) & 0x7ff;
	uint32_t fip, fdp;

	memcpy(&fip, v->xsave + FX_FIP, 4);
	memcpy(&fdp, v->xsave + FX_FDP, 4);
	if (i->osize == 2) {
		uint16_t w[7] = { head[0], head[1], head[2], (uint16_t)fip, 0, (uint16_t)fdp, 0 };

		if (v->real) {
			w[4] = (uint16_t)((fip >> 4 & 0xf000) | fop);
			w[6] = (uint16_t)(fdp >> 4 & 0xf000);
		}
		memcpy(env, w, 14);
		return 14;
	}
	uint32_t d[7] = { 0xffff0000 | head[0],
			  0xffff0000 | head[1],
			  0xffff0000 | head[2],
			  fip,
			  (uint32_t)fop << 16,
			  fdp,
			  0xffff0000 };

	if (v->real) {
		d[3] = 0xffff0000 | (fip & 0xffff);
		d[4] = (fip >> 16) << 12 | fop;
		d[5] = 0xffff0000 | (fdp & 0xffff);
		d[6] = (fdp >> 16) << 12;
	}
	memcpy(env, d, 28);
	return 28;
}

static unsigned fpu_env_size(const struct insn *i)
{
	return i->osize == 2 ? 14 : 28;
}

static void fpu_env_load(struct vcpu *v, const struct insn *i, const uint8_t *env)
{
	uint32_t d[7];
	uint64_t fip, fdp;
	uint16_t w[7], fop;
	unsigned ftw = 0;

	if (i->osize == 2) {
		memcpy(w, env, 14);
		for (unsigned n = 0; n < 7; n++)
			d[n] = w[n];
		fip = d[3];
		fdp = d[5];
		fop = 0;
		if (v->real) {
			fip |= (d[4] & 0xf000) << 4;
			fdp |= (d[6] & 0xf000) << 4;
			fop = d[4] & 0x7ff;
		}
	} else {
		memcpy(d, env, 28);
		fip = d[3];
		fdp = d[5];
		fop = d[4] >> 16 & 0x7ff;
		if (v->real) {
			fip = (d[3] & 0xffff) | (d[4] & 0x0ffff000) << 4;
			fdp = (d[5] & 0xffff) | (d[6] & 0x0ffff000) << 4;
			fop = d[4] & 0x7ff;
		}
	}
	for (unsigned n = 0; n < 8; n++)
		if ((d[2] >> (2 * n) & 3) != FTAG_EMPTY)
			ftw |= 1u << n;
	fpu_x87_set_top(v, d[1] >> 11 & 7);
	/* Reserved bits of FCW: bit 6 reads as 1, others as 0 ([SDM1 8.1.5]). */
	fpu_set_word(v, FX_FCW, (uint16_t)((d[0] & 0x1f3f) | 0x40));
	fpu_set_word(v, FX_FSW, (uint16_t)d[1]);
	fpu_set_word(v, FX_FTW, (uint16_t)ftw);
	fpu_set_word(v, FX_FOP, fop);
	memcpy(v->xsave + FX_FIP, &fip, 8);
	memcpy(v->xsave + FX_FDP, &fdp, 8);
	fpu_x87_summary(v);
}

EXEC(FNSTENV)
{
	uint8_t env[28];
	unsigned size = fpu_env_make(v, i, env);

	mmu_write(v, insn_la(v, i, size, ACC_WRITE), env, size, ACC_WRITE);
	fpu_set_word(v, FX_FCW, fpu_word(v, FX_FCW) | FSW_EXC);
	fpu_x87_summary(v);
}

EXEC(FLDENV)
{
	uint8_t env[28];
	unsigned size = fpu_env_size(i);

	mmu_read(v, insn_la(v, i, size, ACC_READ), env, size, ACC_READ);
	fpu_env_load(v, i, env);
}

EXEC(FNSAVE)
{
	uint8_t image[28 + 80];
	unsigned size = fpu_env_make(v, i, image);

	for (unsigned n = 0; n < 8; n++)
		memcpy(image + size + 10 * n, v->xsave + FX_ST + 16 * n, 10);
	size += 80;
	mmu_write(v, insn_la(v, i, size, ACC_WRITE), image, size, ACC_WRITE);
	fpu_x87_init(v);
}

EXEC(FRSTOR)
{
	uint8_t image[28 + 80];
	unsigned size = fpu_env_size(i);

	mmu_read(v, insn_la(v, i, size + 80, ACC_READ), image, size + 80, ACC_READ);
	fpu_env_load(v, i, image);
	for (unsigned n = 0; n < 8; n++) {
		memcpy(v->xsave + FX_ST + 16 * n, image + size + 10 * n, 10);
		memset(v->xsave + FX_ST + 16 * n + 10, 0, 6);
	}
}

/* ---- Clearing vectors ----------------------------------------------------------------------- */

EXEC(VZEROUPPER)
{
	memset(v->xsave + XS_YMMH, 0, v->long64 ? 256 : 128);
}

EXEC(VZEROALL)
{
	memset(v->xsave + FX_XMM, 0, v->long64 ? 256 : 128);
	memset(v->xsave + XS_YMMH, 0, v->long64 ? 256 : 128);
}
