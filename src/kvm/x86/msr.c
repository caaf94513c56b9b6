/*
 * Model-specific registers.
 *
 * Three kinds: plain ones are rows of msr_plain (storage, writable bits, CPUID gate); those that
 * read as a constant and ignore or refuse writes are rows of msr_constant; the rest is code below.
 * What is in none of them is #GP(0), as KVM without ignore_msrs.
 *
 * Modelled:     what Linux, firmware and KVM's own guests touch on Intel and AMD.
 * Not modelled: performance counters, last-branch records, BTF (its bit does not stick, as in KVM),
 *               machine check injection beyond the banks' storage, SMM's MSRs but SMBASE.
 * References:   [SDM4], [APM2 A], [KVM-MSR]. Threads: as kvm/x86/msr.h.
 */
#include "kvm/x86/msr.h"

#include <linux/kvm_para.h>
#include <stddef.h>

#include "kvm/x86/interp/seg.h"
#include "kvm/x86/interp/system.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/msr_index.h"

/* ---- Plain registers ------------------------------------------------------------------------ */

enum msr_rule { RULE_ANY, RULE_CANONICAL };

struct msr_plain {
	uint32_t index;
	uint16_t offset; /* of a uint64_t in struct vcpu */
	uint8_t rule;
	uint64_t writable; /* other bits set: #GP */
};

#define PLAIN(i, field, w) \
	{ \
		(i), offsetof(struct vcpu, field), RULE_ANY, (w) \
	}
#define ADDRESS(i, field) \
	{ \
		(i), offsetof(struct vcpu, field), RULE_CANONICAL, ~0ull \
	}
static const struct msr_plain msr_plain[] = {
	PLAIN(MSR_SYSENTER_CS, msr.sysenter_cs, 0xffffffff),
	ADDRESS(MSR_SYSENTER_ESP, msr.sysenter_esp),
	ADDRESS(MSR_SYSENTER_EIP, msr.sysenter_eip),
	PLAIN(MSR_STAR, msr.star, ~0ull),
	ADDRESS(MSR_LSTAR, msr.lstar),
	ADDRESS(MSR_CSTAR, msr.cstar),
	PLAIN(MSR_SFMASK, msr.sfmask, 0xffffffff),
	ADDRESS(MSR_KERNEL_GS_BASE, msr.kernel_gs_base),
	PLAIN(MSR_MISC_ENABLE, msr.misc_enable, ~0ull),
	PLAIN(MSR_MCG_STATUS, msr.mcg_status, ~0ull),
	PLAIN(MSR_SYSCFG, msr.syscfg, 0x7c0000),
	/* asynchronous page faults are an offer that the hypervisor need not make use of */
	PLAIN(MSR_KVM_ASYNC_PF_EN, msr.kvm_async_pf_en, ~0x30ull),
	PLAIN(MSR_KVM_ASYNC_PF_INT, msr.kvm_async_pf_int, 0xff),
	PLAIN(MSR_KVM_POLL_CONTROL, msr.kvm_poll_control, 1),
};
#undef PLAIN
#undef ADDRESS

static uint64_t *msr_plain_at(struct vcpu *v, const struct msr_plain *p)
{
	return (uint64_t *)((char *)v + p->offset);
}

static const struct msr_plain *msr_plain_find(uint32_t index)
{
	for (unsigned n = 0; n < ARRAY_SIZE(msr_plain); n++)
		if (msr_plain[n].index == index)
			return &msr_plain[n];
	return NULL;
}

/* ---- Constants ------------------------------------------------------------------------------ */

enum msr_write { WRITE_IGNORED, WRITE_ZERO /* only 0 is accepted */, WRITE_REFUSED };

struct msr_constant {
	uint32_t first, last;
	uint64_t value;
	enum msr_write write;
};

static const struct msr_constant msr_constant[] = {
	{ 0x00, 0x01, 0, WRITE_REFUSED },       /* P5 machine check address, type */
	{ 0x17, 0x17, 0, WRITE_REFUSED },       /* platform id */
	{ 0x2a, 0x2a, 1 << 24, WRITE_REFUSED }, /* EBL_CR_POWERON: bus ratio */
	{ 0x79, 0x79, 0, WRITE_IGNORED },       /* microcode update trigger */
	{ 0xc1, 0xc2, 0, WRITE_ZERO },          /* performance counters */
	{ 0xcd, 0xcd, 3, WRITE_REFUSED },       /* bus clock */
	{ 0xce, 0xce, 0, WRITE_ZERO },          /* platform information */
	{ 0x140, 0x140, 0, WRITE_ZERO },        /* misc features: CPUID faulting */
	{ 0x186, 0x187, 0, WRITE_ZERO },        /* event selectors */
	{ 0x199, 0x199, 0, WRITE_ZERO },        /* PERF_CTL */
	{ 0x1db, 0x1de, 0, WRITE_REFUSED },     /* last branch, last interrupt */
	{ 0x606, 0x606, 0, WRITE_REFUSED },     /* RAPL unit and energies */
	{ 0x611, 0x611, 0, WRITE_REFUSED },
	{ 0x619, 0x619, 0, WRITE_REFUSED },
	{ 0x639, 0x639, 0, WRITE_REFUSED },
	{ 0x641, 0x641, 0, WRITE_REFUSED },
	{ 0xc0010000, 0xc0010007, 0, WRITE_ZERO },    /* AMD event selectors, counters */
	{ 0xc001001f, 0xc001001f, 0, WRITE_IGNORED }, /* NB_CFG */
	{ 0xc0010020, 0xc0010020, 0, WRITE_IGNORED }, /* patch loader */
	{ 0xc0010055, 0xc0010055, 0, WRITE_IGNORED }, /* interrupt pending message */
	{ 0xc0010058, 0xc0010058, 0, WRITE_ZERO },    /* MMIO configuration base */
	{ 0xc0010112, 0xc0010113, 0, WRITE_REFUSED }, /* TSEG */
	{ 0xc0010114, 0xc0010114, 0, WRITE_ZERO },    /* VM_CR */
	{ 0xc0011020, 0xc0011020, 0, WRITE_IGNORED }, /* LS_CFG */
	{ 0xc0011022, 0xc0011023, 0, WRITE_IGNORED }, /* DC_CFG, TW_CFG */
	{ 0xc001102a, 0xc001102a, 0, WRITE_IGNORED }, /* BU_CFG2 */
	{ 0xc001102c, 0xc001102c, 0, WRITE_IGNORED }, /* EX_CFG */
};

static const struct msr_constant *msr_constant_find(uint32_t index)
{
	for (unsigned n = 0; n < ARRAY_SIZE(msr_constant); n++)
		if (index >= msr_constant[n].first && index <= msr_constant[n].last)
			return &msr_constant[n];
	return NULL;
}

/* ---- What CPUID offers ---------------------------------------------------------------------- */

/* Speculation control in either vendor's place. */
static bool msr_has_spec_ctrl(const struct vcpu *v)
{
	return vcpu_cpuid_bit(v, 7, 3, 26) || vcpu_cpuid_bit(v, 7, 3, 27) ||
	       vcpu_cpuid_bit(v, 7, 3, 31) || vcpu_cpuid_bit(v, 0x80000008, 1, 14) ||
	       vcpu_cpuid_bit(v, 0x80000008, 1, 15) || vcpu_cpuid_bit(v, 0x80000008, 1, 24);
}

/* May the guest reach this register at all? */
static bool msr_offered(const struct vcpu *v, uint32_t index)
{
	switch (index) {
	case MSR_TSC_ADJUST: return vcpu_cpuid_bit(v, 7, 1, 1);
	case MSR_SPEC_CTRL: return msr_has_spec_ctrl(v);
	case MSR_PRED_CMD:
		return vcpu_cpuid_bit(v, 7, 3, 26) || vcpu_cpuid_bit(v, 0x80000008, 1, 12);
	case MSR_FLUSH_CMD: return vcpu_cpuid_bit(v, 7, 3, 28);
	case MSR_ARCH_CAP: return vcpu_cpuid_bit(v, 7, 3, 29);
	case MSR_VIRT_SPEC_CTRL: return vcpu_cpuid_bit(v, 0x80000008, 1, 25);
	case MSR_VM_HSAVE_PA: return vcpu_has(v, FEAT_SVM);
	case MSR_TSC_AUX: return vcpu_has(v, FEAT_RDTSCP) || vcpu_has(v, FEAT_RDPID);
	case MSR_XSS: return vcpu_has(v, FEAT_XSAVES);
	case MSR_PERF_CAP: return vcpu_cpuid_bit(v, 1, 2, 15);
	case MSR_SMBASE: return false;
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_SFMASK:
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE: return vcpu_has(v, FEAT_LM);
	default: return true;
	}
}

/* ---- Registers with effects ----------------------------------------------------------------- */

int vcpu_set_efer(struct vcpu *v, uint64_t val, bool host)
{
	uint64_t allowed = EFER_LMA, changed;

	if (vcpu_has(v, FEAT_SYSCALL))
		allowed |= EFER_SCE;
	if (vcpu_has(v, FEAT_LM))
		allowed |= EFER_LME;
	if (vcpu_cpuid_bit(v, 0x80000001, 3, 20))
		allowed |= EFER_NX;
	if (vcpu_cpuid_bit(v, 0x80000001, 3, 25))
		allowed |= EFER_FFXSR;
	if (vcpu_cpuid_bit(v, 0x80000021, 0, 8))
		allowed |= EFER_AIBRSE;
	if (host)
		allowed |= EFER_SCE | EFER_LME | EFER_NX | EFER_FFXSR | EFER_AIBRSE;
	if (val & ~allowed)
		return 1;
	if (!host) {
		if ((v->cr0 & CR0_PG) && ((val ^ v->efer) & EFER_LME))
			return 1;
		/* LMA is the processor's: what is written there does not matter */
		val = (val & ~(uint64_t)EFER_LMA) | (v->efer & EFER_LMA);
	}
	changed = val ^ v->efer;
	v->efer = val;
	if (changed & (EFER_NX | EFER_LMA))
		mmu_flush_all(v);
	if (changed & EFER_LMA)
		vcpu_update_mode(v);
	return 0;
}

static int msr_set_base(struct vcpu *v, unsigned seg, uint64_t val)
{
	if (!seg_canonical(val))
		return 1;
	v->seg[seg].base = val;
	vcpu_update_seg(v, seg);
	return 0;
}

static int msr_set_tsc(struct vcpu *v, uint64_t val, bool host)
{
	/* user space restores TSC_ADJUST by itself */
	if (host)
		kvm_write_tsc_host(v, val);
	else
		kvm_write_tsc(v, val);
	return 0;
}

static int msr_set_hwcr(struct vcpu *v, uint64_t val)
{
	/* bits that KVM lets a guest set without effect: FFDIS, TLBCACHEDIS, MONMWAITUSEREN ... */
	val &= ~0x148ull;
	if (val & ~(BIT(18) | BIT(24))) /* McStatusWrEn, TscFreqSel */
		return 1;
	v->msr.hwcr = val;
	return 0;
}

static int msr_set_xss(struct vcpu *v, uint64_t val)
{
	const struct kvm_cpuid_entry2 *e = vcpu_cpuid_find(v, 0xd, 1);
	uint64_t offered = e ? e->ecx | (uint64_t)e->edx << 32 : 0;

	if (val & ~offered)
		return 1;
	v->msr.xss = val;
	return 0;
}

/* Machine check banks: CTL, STATUS, ADDR, MISC for each. */
static int msr_set_mce(struct vcpu *v, uint32_t index, uint64_t val, bool host)
{
	unsigned n = (index - MSR_MC0_CTL) / 4, what = (index - MSR_MC0_CTL) % 4;

	/* all on or all off; Linux leaves bit 10 of bank 0 or 4 and bit 0 off on some processors */
	if (what == 0 && val && (val | BIT(10) | 1) != ~0ull)
		return 1;
	if (what == 1 && val && !host && !(v->msr.hwcr & BIT(18)))
		return 1;
	v->msr.mce[n][what] = val;
	return 0;
}

static bool msr_is_mce(uint32_t index)
{
	return index >= MSR_MC0_CTL && index < MSR_MC0_CTL + 4 * MSR_MCE_BANKS;
}

/* ---- Access --------------------------------------------------------------------------------- */

/* Registers that are neither plain nor constant. -1: no such register. */
static int msr_get_special(struct vcpu *v, uint32_t index, uint64_t *val, bool host)
{
	switch (index) {
	case MSR_TSC: *val = kvm_read_tsc(v); return 0;
	case MSR_APIC_BASE: *val = v->msr.apic_base; return 0;
	case MSR_TSC_ADJUST: *val = v->msr.tsc_adjust; return 0;
	case MSR_SPEC_CTRL: *val = v->msr.spec_ctrl; return 0;
	case MSR_VIRT_SPEC_CTRL: *val = v->msr.virt_ssbd; return 0;
	case MSR_PRED_CMD:
	case MSR_FLUSH_CMD: *val = 0; return host ? 0 : 1; /* commands: nothing to read */
	case MSR_UCODE_REV: *val = v->msr.patch_level; return 0;
	case MSR_SMBASE: *val = v->msr.smbase; return 0;
	case MSR_ARCH_CAP:
	case MSR_PERF_CAP: *val = 0; return 0;
	case MSR_MCG_CAP: *val = MSR_MCE_BANKS; return 0;
	case MSR_MCG_CTL:
		*val = v->msr.mcg_ctl;
		return host ? 0 : 1; /* MCG_CAP does not announce it */
	case MSR_DEBUGCTL: *val = v->msr.debugctl; return 0;
	case MSR_TSC_DEADLINE:
		*val = v->lapic ? kvm_lapic_get_tsc_deadline(v) : v->msr.tsc_deadline;
		return 0;
	case MSR_XSS: *val = v->msr.xss; return 0;
	case MSR_EFER: *val = v->efer; return 0;
	case MSR_FS_BASE: *val = v->seg[SEG_FS].base; return 0;
	case MSR_GS_BASE: *val = v->seg[SEG_GS].base; return 0;
	case MSR_TSC_AUX: *val = v->msr.tsc_aux; return 0;
	case MSR_HWCR: *val = v->msr.hwcr; return 0;
	case MSR_VM_HSAVE_PA: *val = v->msr.vm_hsave_pa; return 0;
	case MSR_DE_CFG: *val = 2; return 0; /* LFENCE serializes */
	default: break;
	}
	if (msr_is_mce(index)) {
		*val = v->msr.mce[(index - MSR_MC0_CTL) / 4][(index - MSR_MC0_CTL) % 4];
		return 0;
	}
	return -1;
}

static int msr_set_special(struct vcpu *v, uint32_t index, uint64_t val, bool host)
{
	switch (index) {
	case MSR_TSC: return msr_set_tsc(v, val, host);
	case MSR_APIC_BASE: return kvm_lapic_set_base(v, val, host);
	case MSR_TSC_ADJUST: kvm_write_tsc_adjust(v, val, host); return 0;
	case MSR_SPEC_CTRL:
		if (val & ~7ull) /* IBRS, STIBP, SSBD */
			return 1;
		v->msr.spec_ctrl = val;
		return 0;
	case MSR_VIRT_SPEC_CTRL:
		if (val & ~4ull)
			return 1;
		v->msr.virt_ssbd = val;
		return 0;
	case MSR_PRED_CMD:
	case MSR_FLUSH_CMD: return val & ~1ull ? 1 : 0;
	case MSR_UCODE_REV:
		if (host)
			v->msr.patch_level = val;
		return 0;
	case MSR_SMBASE: v->msr.smbase = val; return 0;
	case MSR_ARCH_CAP:
	case MSR_PERF_CAP: return host && !val ? 0 : 1;
	case MSR_MCG_CAP: return 1;
	case MSR_MCG_CTL:
		if (!host || (val != 0 && val != ~0ull))
			return 1;
		v->msr.mcg_ctl = val;
		return 0;
	case MSR_DEBUGCTL:
		if (val & ~3ull)
			return 1;
		v->msr.debugctl = 0; /* LBR and BTF do not stick */
		return 0;
	case MSR_TSC_DEADLINE:
		if (v->lapic)
			kvm_lapic_set_tsc_deadline(v, val);
		else
			v->msr.tsc_deadline = val;
		return 0;
	case MSR_XSS: return msr_set_xss(v, val);
	case MSR_EFER: return vcpu_set_efer(v, val, host);
	case MSR_FS_BASE: return msr_set_base(v, SEG_FS, val);
	case MSR_GS_BASE: return msr_set_base(v, SEG_GS, val);
	case MSR_TSC_AUX:
		if (val >> 32)
			return 1;
		v->msr.tsc_aux = val;
		return 0;
	case MSR_HWCR: return msr_set_hwcr(v, val);
	case MSR_VM_HSAVE_PA:
		if ((val & 0xfff) || (v->maxphyaddr < 64 && val >> v->maxphyaddr))
			return 1;
		v->msr.vm_hsave_pa = val;
		return 0;
	case MSR_DE_CFG: return val == 2 ? 0 : 1;
	default: break;
	}
	return msr_is_mce(index) ? msr_set_mce(v, index, val, host) : -1;
}

int vcpu_get_msr(struct vcpu *v, uint32_t index, uint64_t *val, bool host)
{
	const struct msr_plain *p = msr_plain_find(index);
	const struct msr_constant *c;
	int r;

	if (!host && !msr_offered(v, index))
		return 1;
	if (p) {
		*val = *msr_plain_at(v, p);
		return 0;
	}
	r = msr_get_special(v, index, val, host);
	if (r >= 0)
		return r;
	r = vcpu_mtrr_get(v, index, val);
	if (r >= 0)
		return r;
	if (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST)
		return v->lapic ? kvm_x2apic_msr_read(v, index, val) : 1;
	r = kvm_pvclock_msr_read(v, index, val);
	if (r >= 0)
		return r;
	c = msr_constant_find(index);
	if (!c)
		return 1;
	*val = c->value;
	return 0;
}

int vcpu_set_msr(struct vcpu *v, uint32_t index, uint64_t val, bool host)
{
	const struct msr_plain *p = msr_plain_find(index);
	const struct msr_constant *c;
	int r;

	if (!host && !msr_offered(v, index))
		return 1;
	if (p) {
		if ((val & ~p->writable) || (p->rule == RULE_CANONICAL && !seg_canonical(val)))
			return 1;
		*msr_plain_at(v, p) = val;
		return 0;
	}
	r = msr_set_special(v, index, val, host);
	if (r >= 0)
		return r;
	r = vcpu_mtrr_set(v, index, val);
	if (r >= 0)
		return r;
	if (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST)
		return v->lapic ? kvm_x2apic_msr_write(v, index, val) : 1;
	r = kvm_pvclock_msr_write(v, index, val);
	if (r >= 0)
		return r;
	c = msr_constant_find(index);
	if (!c || (c->write == WRITE_REFUSED && !host) || (c->write == WRITE_ZERO && val))
		return 1;
	return 0;
}
