/*
 * Which MSRs user space saves, the feature MSRs of the system handle, and values after power-up.
 *
 * References: [KVM-API "KVM_GET_MSR_INDEX_LIST", "KVM_GET_MSR_FEATURE_INDEX_LIST"],
 *             [SDM3 9.1.1 table 9-1]. Threads: as kvm/x86/msr.h.
 */
#include <linux/kvm_para.h>

#include "kvm/x86/msr.h"
#include "kvm/x86/msr_index.h"
#include "kvm/x86/vcpu.h"

unsigned vcpu_msr_list(const uint32_t **list)
{
	static const uint32_t saved[] = {
		MSR_SYSENTER_CS,
		MSR_SYSENTER_ESP,
		MSR_SYSENTER_EIP,
		MSR_STAR,
		MSR_CSTAR,
		MSR_KERNEL_GS_BASE,
		MSR_SFMASK,
		MSR_LSTAR,
		MSR_TSC,
		MSR_PAT,
		MSR_TSC_AUX,
		MSR_SPEC_CTRL,
		MSR_VIRT_SPEC_CTRL,
		MSR_TSC_ADJUST,
		MSR_TSC_DEADLINE,
		MSR_MISC_ENABLE,
		MSR_MCG_STATUS,
		MSR_MCG_CTL,
		MSR_SMBASE,
		MSR_UCODE_REV,
		MSR_ARCH_CAP,
		MSR_XSS,
		MSR_DEBUGCTL,
		MSR_HWCR,
		MSR_SYSCFG,
		MSR_VM_HSAVE_PA,
		MSR_KVM_SYSTEM_TIME,
		MSR_KVM_WALL_CLOCK,
		MSR_KVM_SYSTEM_TIME_NEW,
		MSR_KVM_WALL_CLOCK_NEW,
		MSR_KVM_ASYNC_PF_EN,
		MSR_KVM_ASYNC_PF_INT,
		MSR_KVM_STEAL_TIME,
		MSR_KVM_PV_EOI_EN,
		MSR_KVM_POLL_CONTROL,
		0x200,
		0x201,
		0x202,
		0x203,
		0x204,
		0x205,
		0x206,
		0x207,
		0x208,
		0x209,
		0x20a,
		0x20b,
		0x20c,
		0x20d,
		0x20e,
		0x20f,
		0x250,
		0x258,
		0x259,
		0x268,
		0x269,
		0x26a,
		0x26b,
		0x26c,
		0x26d,
		0x26e,
		0x26f,
		MSR_MTRR_DEF,
	};

	*list = saved;
	return ARRAY_SIZE(saved);
}

unsigned vcpu_msr_feature_list(const uint32_t **list)
{
	static const uint32_t features[] = { MSR_DE_CFG, MSR_UCODE_REV, MSR_ARCH_CAP };

	*list = features;
	return ARRAY_SIZE(features);
}

int vcpu_msr_feature(uint32_t index, uint64_t *val)
{
	switch (index) {
	case MSR_DE_CFG: *val = 2; return 0;
	case MSR_UCODE_REV: *val = BIT(32); return 0;
	case MSR_ARCH_CAP: *val = 0; return 0;
	default: return 1;
	}
}

void vcpu_msr_reset(struct vcpu *v)
{
	uint64_t apic_base = v->msr.apic_base;

	v->msr = (struct vcpu_msrs){
		.pat = 0x0007040600070406,
		.misc_enable = 1 | BIT(11) | BIT(12), /* fast strings; no BTS, no PEBS */
		.apic_base = v->lapic ? apic_base : 0xfee00800 | (v->index ? 0 : BIT(8)),
		.kvm_poll_control = 1,
		.patch_level = BIT(32),
		.hwcr = BIT(24), /* the TSC counts at the P0 frequency: Linux complains without */
		.smbase = 0x30000,
		.mcg_ctl = ~0ull,
	};
}
