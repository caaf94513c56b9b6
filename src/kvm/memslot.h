/*
 * Memory slot ioctls. See vm.h for what a slot is.
 * References: [KVM-API 4.35, 4.8, 4.117]. Threads: any, not a vCPU in guest mode.
 */
#pragma once
#include "kvm/vm.h"

int kvm_memslots_init(struct kvm_vm *vm);
/* No vCPU runs any more. */
void kvm_memslots_free(struct kvm_vm *vm);
int kvm_set_memory_region(struct kvm_vm *vm, const struct kvm_userspace_memory_region *mem);
int kvm_get_dirty_log(struct kvm_vm *vm, const struct kvm_dirty_log *log);
int kvm_clear_dirty_log(struct kvm_vm *vm, const struct kvm_clear_dirty_log *log);
/* Memory was written by somebody else: see kvm_vm_memory_written. */
void kvm_memory_written(struct kvm_vm *vm, gpa_t gpa, uint64_t size);
