/*
 * Virtual machines: life, interrupts, eventfds.
 *
 * References: [KVM-API 4]. Threads: any.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libkvm/engine.h"

/*
 * Pages that an Intel host without unrestricted guests needs for itself, below the firmware and
 * where no memory slot belongs: one identity map and three for a TSS.
 */
#define VM_IDENTITY_MAP 0xfffbc000ull
#define VM_TSS          0xfffbd000ul
#define VM_SLOTS_MAX    512u

int libkvm_vm_create(struct libkvm *k, struct libkvm_vm **out, struct libkvm_err *e)
{
	struct libkvm_vm *vm = calloc(1, sizeof(*vm));
	uint64_t identity = VM_IDENTITY_MAP;
	int n, r;

	if (!vm)
		return lk_fail(e, ENOMEM, "no memory for a virtual machine");
	vm->k = k;
	n = libkvm_check(k, KVM_CAP_NR_MEMSLOTS);
	vm->nslots = n > 0 && (unsigned)n < VM_SLOTS_MAX ? (unsigned)n : n > 0 ? VM_SLOTS_MAX : 32;
	vm->slots = calloc(vm->nslots, sizeof(*vm->slots));
	if (!vm->slots) {
		free(vm);
		return lk_fail(e, ENOMEM, "no memory for a virtual machine");
	}
	r = k->ops->ioctl(k->h, KVM_CREATE_VM, NULL, &vm->h);
	if (r) {
		free(vm->slots);
		free(vm);
		return lk_fail(e, -r, "KVM_CREATE_VM: %s", strerror(-r));
	}
	pthread_mutex_init(&vm->lock, NULL);
	/* A kernel that lacks one of them does not need it. */
	libkvm_vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	libkvm_vm_ioctl(vm, KVM_SET_TSS_ADDR, (void *)VM_TSS);
	*out = vm;
	return 0;
}

void libkvm_vm_close(struct libkvm_vm *vm)
{
	if (!vm)
		return;
	vm->k->ops->close(vm->h);
	pthread_mutex_destroy(&vm->lock);
	free(vm->slots);
	free(vm);
}

int libkvm_vm_ioctl(struct libkvm_vm *vm, unsigned long request, void *arg)
{
	if (request == KVM_CREATE_VCPU)
		return -EINVAL;
	return vm->k->ops->ioctl(vm->h, request, arg, NULL);
}

int libkvm_jit_info(struct libkvm_vm *vm, char **text)
{
	return vm->k->ops->jit_info ? vm->k->ops->jit_info(vm->h, text) : -ENOTSUP;
}

struct libkvm *libkvm_vm_engine(struct libkvm_vm *vm)
{
	return vm->k;
}

int libkvm_irqchip_create(struct libkvm_vm *vm)
{
	return libkvm_vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
}

int libkvm_pit_create(struct libkvm_vm *vm)
{
	/* Port 61h comes with it. */
	struct kvm_pit_config c = { .flags = KVM_PIT_SPEAKER_DUMMY };

	return libkvm_vm_ioctl(vm, KVM_CREATE_PIT2, &c);
}

int libkvm_irq_line(struct libkvm_vm *vm, uint32_t gsi, int level)
{
	struct kvm_irq_level l = { .irq = gsi, .level = level != 0 };

	return libkvm_vm_ioctl(vm, KVM_IRQ_LINE, &l);
}

int libkvm_signal_msi(struct libkvm_vm *vm, uint64_t address, uint32_t data)
{
	struct kvm_msi m = { .address_lo = (uint32_t)address,
			     .address_hi = (uint32_t)(address >> 32),
			     .data = data };

	return libkvm_vm_ioctl(vm, KVM_SIGNAL_MSI, &m);
}

int libkvm_set_routing(struct libkvm_vm *vm, const struct kvm_irq_routing *table)
{
	return libkvm_vm_ioctl(vm, KVM_SET_GSI_ROUTING, (void *)(uintptr_t)table);
}

int libkvm_irqfd(struct libkvm_vm *vm, int fd, int resample_fd, uint32_t gsi, bool assign)
{
	struct kvm_irqfd q = { .fd = (uint32_t)fd, .gsi = gsi };

	if (!assign)
		q.flags |= KVM_IRQFD_FLAG_DEASSIGN;
	if (assign && resample_fd >= 0) {
		q.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		q.resamplefd = (uint32_t)resample_fd;
	}
	return libkvm_vm_ioctl(vm, KVM_IRQFD, &q);
}

int libkvm_ioeventfd(struct libkvm_vm *vm, int fd, uint64_t addr, uint32_t len, bool pio,
		     const uint64_t *datamatch, bool assign)
{
	struct kvm_ioeventfd q = { .addr = addr, .len = len, .fd = fd };

	if (pio)
		q.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (datamatch) {
		q.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
		q.datamatch = *datamatch;
	}
	if (!assign)
		q.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return libkvm_vm_ioctl(vm, KVM_IOEVENTFD, &q);
}
