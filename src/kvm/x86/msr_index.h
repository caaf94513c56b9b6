/*
 * Numbers of the model-specific registers that have code of their own.
 *
 * References: [SDM4], [APM2 A]. KVM's are in <linux/kvm_para.h>. Threads: constants.
 */
#pragma once

enum {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_UCODE_REV = 0x8b,
	MSR_SMBASE = 0x9e,
	MSR_ARCH_CAP = 0x10a,
	MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MCG_CTL = 0x17b,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF = 0x2ff,
	MSR_PERF_CAP = 0x345,
	MSR_MC0_CTL = 0x400,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800,
	MSR_X2APIC_LAST = 0x8ff,
	MSR_XSS = 0xda0,
};
#define MSR_EFER           0xc0000080
#define MSR_STAR           0xc0000081
#define MSR_LSTAR          0xc0000082
#define MSR_CSTAR          0xc0000083
#define MSR_SFMASK         0xc0000084
#define MSR_FS_BASE        0xc0000100
#define MSR_GS_BASE        0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX        0xc0000103
#define MSR_SYSCFG         0xc0010010
#define MSR_HWCR           0xc0010015
#define MSR_VM_HSAVE_PA    0xc0010117
#define MSR_VIRT_SPEC_CTRL 0xc001011f
#define MSR_DE_CFG         0xc0011029

/* KVM's default: that many banks, no other capability. */
enum { MSR_MCE_BANKS = 32 };
