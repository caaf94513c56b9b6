/*
 * A vCPU's state as the KVM structures have it, and what the x86 files of the ioctl side share.
 *
 * References: [KVM-API 4]. Threads: v->lock held, the vCPU not running, unless said.
 */
#pragma once
#include <linux/kvm.h>

#include "kvm/x86/vcpu.h"

void vcpu_get_regs(struct vcpu *v, struct kvm_regs *r);
/* A new RIP while an exit is open in the middle of an instruction abandons the instruction. */
void vcpu_set_regs(struct vcpu *v, const struct kvm_regs *r);

void vcpu_get_sregs(struct vcpu *v, struct kvm_sregs *s);
int vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *s);
void vcpu_get_sregs2(struct vcpu *v, struct kvm_sregs2 *s);
int vcpu_set_sregs2(struct vcpu *v, const struct kvm_sregs2 *s);

void vcpu_get_events(struct vcpu *v, struct kvm_vcpu_events *e);
int vcpu_set_events(struct vcpu *v, const struct kvm_vcpu_events *e);
void vcpu_get_debugregs(struct vcpu *v, struct kvm_debugregs *d);
int vcpu_set_debugregs(struct vcpu *v, const struct kvm_debugregs *d);
int vcpu_set_guest_debug(struct vcpu *v, const struct kvm_guest_debug *d);

/* The ioctls take n in and give the number of entries out. 0, -E2BIG, -EINVAL, -ENOMEM. */
int kvm_cpuid_supported(struct kvm_cpuid2 *c);
int kvm_cpuid_emulated(struct kvm_cpuid2 *c);
int vcpu_set_cpuid(struct vcpu *v, const struct kvm_cpuid_entry2 *e, uint32_t n);
int vcpu_get_cpuid(struct vcpu *v, struct kvm_cpuid2 *c);
/* What a vCPU has before KVM_SET_CPUID2. */
void vcpu_default_cpuid(struct vcpu *v);

uint64_t vcpu_get_cr8(struct vcpu *v);
/* Has KVM_RUN been called? CPUID is fixed from then on. */
static inline bool vcpu_has_run(const struct vcpu *v)
{
	return v->coro;
}
/* A maskable interrupt controller serves this vCPU in the kernel. */
static inline bool vcpu_has_lapic(const struct vcpu *v)
{
	return v->lapic;
}
