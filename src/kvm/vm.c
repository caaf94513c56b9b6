/*
 * A virtual machine: its life, its vCPUs, and the VM ioctls that no processor architecture owns.
 *
 * Modelled:     creation and end by references, vCPU creation, capabilities, and the dispatch to
 *               memory slots, interrupts, eventfds and coalesced MMIO.
 * Not modelled: statistics descriptors, dirty rings: they answer as a kernel without them;
 *               KVM_CREATE_DEVICE has no device types.
 * References:   [KVM-API 4].
 * Threads:      any. vm->lock covers creation; see vm.h for the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/busypoll.h"
#include "kvm/arch.h"
#include "kvm/bus.h"
#include "kvm/coalesced.h"
#include "kvm/eventfd.h"
#include "kvm/handle.h"
#include "kvm/memslot.h"
#include "kvm/routing.h"
#include "kvm/timer.h"
#include "kvm/x86/vcpu.h"

#define VM_MAX_VCPU_IDS 4096
#define VM_HALT_POLL    200000 /* ns, as KVM's halt_poll_ns */

static void vm_init_locks(struct kvm_vm *vm)
{
	pthread_mutexattr_t attr;

	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->exclusive_lock, NULL);
	/*
	 * Recursive, because an acknowledge may come out of a chip's code that holds it and sets
	 * the line again (PIT, resampling irqfds). vm->lock, because creating a chip looks at the
	 * vCPUs, and the ioctl has it already.
	 */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&vm->irq_lock, &attr);
	pthread_mutex_init(&vm->lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

static void vm_destroy(struct kvm_vm *vm)
{
	unsigned n = atomic_load(&vm->nvcpus);

	/* First nothing comes from outside any more, then the parts go. */
	kvm_eventfds_free(vm);
	kvm_timers_stop(vm);
	for (unsigned i = 0; i < n; i++)
		kvm_arch_vcpu_destroy(atomic_load(&vm->vcpus[i]));
	atomic_store(&vm->nvcpus, 0);
	kvm_arch_vm_destroy(vm);
	kvm_coalesced_free(vm);
	kvm_io_bus_free(vm);
	kvm_routing_free(vm);
	kvm_memslots_free(vm);
	kvm_timers_free(vm);
	pthread_mutex_destroy(&vm->slots_lock);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->exclusive_lock);
	pthread_mutex_destroy(&vm->irq_lock);
	if (vm->perf_fd >= 0)
		close(vm->perf_fd);
	free(vm);
}

int kvm_vm_create(const struct kvm_options *opt, int perf_fd, struct kvm_vm **out)
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return -ENOMEM;
	vm_init_locks(vm);
	atomic_store(&vm->refs, 1);
	if (opt)
		vm->options = *opt;
	vm->perf_fd = perf_fd >= 0 ? fcntl(perf_fd, F_DUPFD_CLOEXEC, 0) : -1;
	vm->config.max_vcpu_id = VM_MAX_VCPU_IDS;
	vm->config.halt_poll_ns = VM_HALT_POLL;
	vm->processors = busypoll_processors();
	r = kvm_memslots_init(vm);
	if (!r)
		r = kvm_io_bus_init(vm);
	if (!r)
		r = kvm_timers_create(vm);
	if (!r)
		r = kvm_routing_create(vm);
	if (!r)
		r = kvm_coalesced_create(vm);
	if (!r)
		r = kvm_eventfds_create(vm);
	if (!r)
		r = kvm_arch_vm_create(vm);
	if (r) {
		vm_destroy(vm);
		return r;
	}
	*out = vm;
	return 0;
}

void kvm_vm_put(struct kvm_vm *vm)
{
	if (atomic_fetch_sub(&vm->refs, 1) == 1)
		vm_destroy(vm);
}

static long vm_create_vcpu_locked(struct kvm_vm *vm, uint32_t id, struct vcpu **out)
{
	unsigned n = atomic_load(&vm->nvcpus);
	int r;

	if (n >= KVM_SOFT_MAX_VCPUS || id >= vm->config.max_vcpu_id)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		if (atomic_load(&vm->vcpus[i])->id == id)
			return -EEXIST;
	r = kvm_arch_vcpu_create(vm, id, n, out);
	if (r)
		return r;
	atomic_store(&vm->vcpus[n], *out);
	atomic_store(&vm->nvcpus, n + 1);
	return 0;
}

long kvm_vm_create_vcpu(struct kvm_vm *vm, uintptr_t id, struct vcpu **out)
{
	long r;

	if (id >= VM_MAX_VCPU_IDS)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	r = vm_create_vcpu_locked(vm, (uint32_t)id, out);
	pthread_mutex_unlock(&vm->lock);
	if (!r)
		atomic_fetch_add(&vm->refs, 1);
	return r;
}

int kvm_vm_check_extension(struct kvm_vm *vm, long cap)
{
	switch (cap) {
	case KVM_CAP_USER_MEMORY:
	case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
	case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
	case KVM_CAP_INTERNAL_ERROR_DATA:
	case KVM_CAP_SIGNAL_MSI:
	case KVM_CAP_IRQFD:
	case KVM_CAP_IRQFD_RESAMPLE:
	case KVM_CAP_IOEVENTFD:
	case KVM_CAP_IOEVENTFD_NO_LENGTH:
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
	case KVM_CAP_CHECK_EXTENSION_VM:
	case KVM_CAP_ENABLE_CAP_VM:
	case KVM_CAP_COALESCED_PIO:
	case KVM_CAP_READONLY_MEM:
	case KVM_CAP_SYNC_MMU:
	case KVM_CAP_MP_STATE:
	case KVM_CAP_SET_GUEST_DEBUG:
	case KVM_CAP_HALT_POLL:
	case KVM_CAP_IMMEDIATE_EXIT: return 1;
	case KVM_CAP_COALESCED_MMIO: return KVM_COALESCED_PAGE;
	case KVM_CAP_NR_MEMSLOTS: return KVM_SOFT_MAX_SLOTS;
	case KVM_CAP_NR_VCPUS: return 8;
	case KVM_CAP_MAX_VCPUS: return KVM_SOFT_MAX_VCPUS;
	case KVM_CAP_MAX_VCPU_ID: return VM_MAX_VCPU_IDS;
	case KVM_CAP_IRQ_ROUTING: return KVM_ROUTING_MAX;
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
	default: return kvm_arch_check_extension(vm, cap);
	}
}

/* KVM_ENABLE_CAP of the neutral part; -ENOTTY: not ours. */
static long vm_enable_cap(struct kvm_vm *vm, const struct kvm_enable_cap *cap)
{
	uint64_t allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
	long r = 0;

	switch (cap->cap) {
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		/* Initially-set means nothing without manual protection. */
		if (cap->args[0] & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
			allowed |= KVM_DIRTY_LOG_INITIALLY_SET;
		if (cap->flags || (cap->args[0] & ~allowed))
			return -EINVAL;
		pthread_mutex_lock(&vm->slots_lock);
		vm->config.dirty_protect = (uint32_t)cap->args[0];
		pthread_mutex_unlock(&vm->slots_lock);
		return 0;
	case KVM_CAP_MAX_VCPU_ID:
		if (cap->flags || !cap->args[0] || cap->args[0] > VM_MAX_VCPU_IDS)
			return -EINVAL;
		pthread_mutex_lock(&vm->lock);
		/* It can be set once; the same value again is no change. */
		if (vm->config.max_vcpu_id == cap->args[0])
			r = 0;
		else if (vm->config.max_vcpu_id != VM_MAX_VCPU_IDS || atomic_load(&vm->nvcpus))
			r = -EINVAL;
		else
			vm->config.max_vcpu_id = (uint32_t)cap->args[0];
		pthread_mutex_unlock(&vm->lock);
		return r;
	case KVM_CAP_HALT_POLL:
		if (cap->flags || cap->args[0] > UINT32_MAX)
			return -EINVAL;
		vm->config.halt_poll_ns = (uint32_t)cap->args[0];
		return 0;
	default: return -ENOTTY;
	}
}

static long vm_irq_line(struct kvm_vm *vm, struct kvm_irq_level *l, bool status)
{
	int r;

	if (!kvm_arch_has_irqchip(vm))
		return -ENXIO;
	r = kvm_set_irq(vm, KVM_IRQ_SOURCE_USER, l->irq, l->level != 0);
	/* irq and status share their place. */
	if (status)
		l->status = r;
	return 0;
}

static long vm_signal_msi(struct kvm_vm *vm, const struct kvm_msi *msi)
{
	if (!kvm_arch_has_irqchip(vm) || msi->flags != 0)
		return -EINVAL;
	return kvm_set_msi(vm, (uint64_t)msi->address_hi << 32 | msi->address_lo, msi->data);
}

static long vm_set_routing(struct kvm_vm *vm, const struct kvm_irq_routing *r)
{
	if (!kvm_arch_has_irqchip(vm) || r->nr > KVM_ROUTING_MAX || r->flags)
		return -EINVAL;
	return kvm_routing_set(vm, r->entries, r->nr);
}

long kvm_vm_ioctl(struct kvm_vm *vm, unsigned long request, uintptr_t arg)
{
	void *p = kvm_arg_ptr(arg);
	long r;

	if (request == KVM_CHECK_EXTENSION)
		return kvm_vm_check_extension(vm, (long)arg);
	switch (request) {
	case KVM_ENABLE_CAP:
	case KVM_SET_USER_MEMORY_REGION:
	case KVM_GET_DIRTY_LOG:
	case KVM_CLEAR_DIRTY_LOG:
	case KVM_REGISTER_COALESCED_MMIO:
	case KVM_UNREGISTER_COALESCED_MMIO:
	case KVM_IRQFD:
	case KVM_IOEVENTFD:
	case KVM_SIGNAL_MSI:
	case KVM_IRQ_LINE:
	case KVM_IRQ_LINE_STATUS:
	case KVM_SET_GSI_ROUTING:
	case KVM_CREATE_DEVICE:
		if (!p)
			return -EFAULT;
		break;
	default: return kvm_arch_vm_ioctl(vm, request, arg);
	}
	switch (request) {
	case KVM_ENABLE_CAP:
		r = vm_enable_cap(vm, p);
		return r == -ENOTTY ? kvm_arch_vm_ioctl(vm, request, arg) : r;
	case KVM_SET_USER_MEMORY_REGION: return kvm_set_memory_region(vm, p);
	case KVM_GET_DIRTY_LOG: return kvm_get_dirty_log(vm, p);
	case KVM_CLEAR_DIRTY_LOG: return kvm_clear_dirty_log(vm, p);
	case KVM_REGISTER_COALESCED_MMIO: return kvm_coalesced_register(vm, p);
	case KVM_UNREGISTER_COALESCED_MMIO: return kvm_coalesced_unregister(vm, p);
	case KVM_IRQFD: return kvm_irqfd(vm, p);
	case KVM_IOEVENTFD: return kvm_ioeventfd(vm, p);
	case KVM_SIGNAL_MSI: return vm_signal_msi(vm, p);
	case KVM_SET_GSI_ROUTING: return vm_set_routing(vm, p);
	case KVM_CREATE_DEVICE: return -ENODEV;
	default: return vm_irq_line(vm, p, request == KVM_IRQ_LINE_STATUS);
	}
}

long kvm_vcpu_ioctl(struct vcpu *v, unsigned long request, uintptr_t arg)
{
	long r;

	if (_IOC_TYPE(request) != KVMIO)
		return -EINVAL;
	pthread_mutex_lock(&v->lock);
	if (request == KVM_RUN)
		r = arg ? -EINVAL : kvm_arch_vcpu_run(v);
	else
		r = kvm_arch_vcpu_ioctl(v, request, arg);
	pthread_mutex_unlock(&v->lock);
	return r;
}
