/*
 * Coalesced MMIO and PIO: writes collected in a ring that user space reads at its next exit.
 * References: [KVM-API 4.116]. Threads: any, not a vCPU in guest mode.
 */
#pragma once
#include "kvm/vm.h"

#define KVM_COALESCED_PAGE 2 /* page of the run area; the ring is one for the whole VM */

int kvm_coalesced_create(struct kvm_vm *vm);
void kvm_coalesced_free(struct kvm_vm *vm);
/* Map the ring at an address inside a vCPU's run area: 0 or -ENOMEM. */
int kvm_coalesced_map(struct kvm_vm *vm, void *at);
int kvm_coalesced_register(struct kvm_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
int kvm_coalesced_unregister(struct kvm_vm *vm, const struct kvm_coalesced_mmio_zone *zone);
