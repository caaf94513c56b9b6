/*
 * Life of a VM's timer thread. What users call is in vm.h.
 * References: none. Threads: creation and end of the VM.
 */
#pragma once
#include "kvm/vm.h"

int kvm_timers_create(struct kvm_vm *vm);
/* End the thread; arming does nothing from then on. */
void kvm_timers_stop(struct kvm_vm *vm);
void kvm_timers_free(struct kvm_vm *vm);
