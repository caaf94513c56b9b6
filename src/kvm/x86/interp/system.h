/*
 * What the system instructions share: CPUID lookup, control register writes, halting.
 *
 * Threads: the vCPU's own, or the holder of v->lock while it is not running.
 */
#pragma once
#include "kvm/x86/vcpu.h"

/* The entry of a leaf as user space set it, or NULL. index only counts where the leaf has
 * subleaves. */
const struct kvm_cpuid_entry2 *vcpu_cpuid_find(const struct vcpu *v, uint32_t leaf, uint32_t index);
/* Is a CPUID bit offered? reg: 0 EAX .. 3 EDX. */
bool vcpu_cpuid_bit(const struct vcpu *v, uint32_t leaf, unsigned reg, unsigned bit);
/* Does leaf 0 name AMD or Hygon? */
bool vcpu_is_amd(const struct vcpu *v);
/* What CPUID returns: ranges and bits that follow the processor's state included. out: EAX..EDX. */
void vcpu_cpuid(struct vcpu *v, uint32_t leaf, uint32_t index, uint32_t out[4]);

/* Write a control register as MOV does; throw #GP(0) before anything changes. */
void vcpu_write_cr0(struct vcpu *v, uint64_t val);
void vcpu_write_cr3(struct vcpu *v, uint64_t val);
void vcpu_write_cr4(struct vcpu *v, uint64_t val);

/* May XCR0 have this value under the guest's CPUID? */
bool vcpu_xcr0_valid(const struct vcpu *v, uint64_t val);

/* KVM hypercall of VMCALL and VMMCALL: number in rAX, result in rAX. */
void vcpu_hypercall(struct vcpu *v);

/* Enter the HLT state after the instruction under way (interp/run.c). */
void vcpu_halt(struct vcpu *v);
