/*
 * Handles and the ioctls behind them, between main.c, vm.c and their helpers.
 *
 * References: [KVM-API]. Threads: any.
 */
#pragma once
#include <stdbool.h>

#include "kvm/kvm.h"
#include "kvm/vm.h"

enum kvm_file_kind { KVM_FILE_SYSTEM, KVM_FILE_VM, KVM_FILE_VCPU };

struct kvm_file {
	enum kvm_file_kind kind;
	struct kvm_options options;
	struct kvm_vm *vm; /* VM and vCPU handles hold one reference */
	struct vcpu *vcpu;
	int perf_fd; /* system handle: the perf map, else -1 */
};

/* kvm_run, one PIO page, the coalesced ring page. */
#define KVM_RUN_PAGES     3
#define KVM_RUN_AREA_SIZE (KVM_RUN_PAGES * PAGE_SIZE)

/* The ioctl argument as a pointer, or NULL where the kernel would say -EFAULT for sure. */
static inline void *kvm_arg_ptr(uintptr_t arg)
{
	return arg < PAGE_SIZE ? NULL : (void *)arg;
}

/* A VM with one reference; 0 or -errno. perf_fd: the perf map, which stays the caller's; -1: none. */
int kvm_vm_create(const struct kvm_options *opt, int perf_fd, struct kvm_vm **out);
/* Drop a reference; the last one stops the helper threads and frees all. */
void kvm_vm_put(struct kvm_vm *vm);
/* KVM_CREATE_VCPU: on success takes a reference of the VM for the new handle. */
long kvm_vm_create_vcpu(struct kvm_vm *vm, uintptr_t id, struct vcpu **out);
/* All other VM ioctls. */
long kvm_vm_ioctl(struct kvm_vm *vm, unsigned long request, uintptr_t arg);
long kvm_vcpu_ioctl(struct vcpu *v, unsigned long request, uintptr_t arg);
int kvm_vm_check_extension(struct kvm_vm *vm, long cap);
