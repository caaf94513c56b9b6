/*
 * KVM_IRQFD and KVM_IOEVENTFD. References: [KVM-API 4.75, 4.59]. Threads: any, not a vCPU in guest
 * mode.
 */
#pragma once
#include "kvm/vm.h"

int kvm_eventfds_create(struct kvm_vm *vm);
/* End the thread and drop all assignments. */
void kvm_eventfds_free(struct kvm_vm *vm);
int kvm_irqfd(struct kvm_vm *vm, const struct kvm_irqfd *args);
int kvm_ioeventfd(struct kvm_vm *vm, const struct kvm_ioeventfd *args);
