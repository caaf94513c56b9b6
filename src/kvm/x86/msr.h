/*
 * Model-specific registers: RDMSR and WRMSR, KVM_GET_MSRS and KVM_SET_MSRS, and the index lists.
 *
 * References: [SDM4], [APM2 A], [KVM-API "KVM_GET_MSR_INDEX_LIST"], [KVM-MSR].
 * Threads:    the vCPU's own, or the holder of v->lock while it is not running.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct vcpu;

/*
 * Read or write one MSR. host: the access is user space's, which may also reach registers and bits
 * that the guest's CPUID does not offer. Returns 0, or 1 when the guest would get #GP(0); nothing
 * has changed then.
 */
int vcpu_get_msr(struct vcpu *v, uint32_t index, uint64_t *val, bool host);
int vcpu_set_msr(struct vcpu *v, uint32_t index, uint64_t val, bool host);

/*
 * What user space must save and restore (KVM_GET_MSR_INDEX_LIST): all are accepted by vcpu_get_msr
 * and vcpu_set_msr with host true. *list is static. Returns the number of entries.
 */
unsigned vcpu_msr_list(const uint32_t **list);
/* Feature MSRs of the system handle (KVM_GET_MSR_FEATURE_INDEX_LIST), and their values. */
unsigned vcpu_msr_feature_list(const uint32_t **list);
/* Returns 0, or 1 when index is not a feature MSR. */
int vcpu_msr_feature(uint32_t index, uint64_t *val);

/* Set the MSRs to their values after power-up. Part of vcpu_reset. */
void vcpu_msr_reset(struct vcpu *v);

/* Memory-type range registers and PAT (msr_mtrr.c): 0, 1 for #GP, -1 when not one of them. */
int vcpu_mtrr_get(struct vcpu *v, uint32_t index, uint64_t *val);
int vcpu_mtrr_set(struct vcpu *v, uint32_t index, uint64_t val);
/* EFER: 0, or 1 for #GP. */
int vcpu_set_efer(struct vcpu *v, uint64_t val, bool host);
