/*
 * Life of the in-kernel I/O buses. What devices and vCPUs call is in vm.h.
 * References: none. Threads: creation and end of the VM; *_locked: vm->slots_lock held.
 */
#pragma once
#include "kvm/vm.h"

int kvm_io_bus_init(struct kvm_vm *vm);
void kvm_io_bus_free(struct kvm_vm *vm);
int kvm_io_bus_register_locked(struct kvm_vm *vm, enum kvm_bus bus, gpa_t addr, uint64_t len,
			       struct kvm_io_device *d);
void kvm_io_bus_unregister_locked(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_device *d);
