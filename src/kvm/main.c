/*
 * Handles of the software KVM, and the ioctls of the system handle.
 *
 * Modelled:     what a modern VMM asks of /dev/kvm; an unknown request gives the kernel's errno.
 * Not modelled: KVM_TRACE_*, device attributes of the system handle, Hyper-V CPUID.
 * References:   [KVM-API 4].
 * Threads:      any.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "kvm/arch.h"
#include "kvm/handle.h"
#include "kvm/memslot.h"
#include "kvm/x86/jit/watch.h"
#include "kvm/x86/vcpu.h"

static struct kvm_file *file_new(enum kvm_file_kind kind, const struct kvm_options *opt)
{
	struct kvm_file *f = calloc(1, sizeof(*f));

	if (f) {
		f->kind = kind;
		f->perf_fd = -1;
		if (opt)
			f->options = *opt;
	}
	return f;
}

int kvm_open(const struct kvm_options *opt, struct kvm_file **out, struct err *e)
{
	struct kvm_file *f;

	if (opt && opt->jit_check && opt->no_jit)
		return err_set(e, EINVAL,
			       "check=on compares the translator, which jit=off leaves out");
	/* code is addressed by 32 bits; and a vCPU maps four times as much */
	if (opt && opt->jit_cache_mib > KVM_JIT_CACHE_MOST)
		return err_set(e, EINVAL, "%u MiB of translated code a vCPU: at most %d",
			       opt->jit_cache_mib, KVM_JIT_CACHE_MOST);
	f = file_new(KVM_FILE_SYSTEM, opt);
	if (!f)
		return err_set(e, ENOMEM, "no memory for the software KVM");
	if (opt && opt->jit_perf_map) {
		f->perf_fd = jit_perfmap_open(e);
		if (f->perf_fd < 0) {
			int r = f->perf_fd;

			free(f);
			return r;
		}
	}
	*out = f;
	return 0;
}

void kvm_file_close(struct kvm_file *f)
{
	if (!f)
		return;
	/* As in the kernel, a vCPU itself lives as long as its VM. */
	if (f->vm)
		kvm_vm_put(f->vm);
	if (f->perf_fd >= 0)
		close(f->perf_fd);
	free(f);
}

void *kvm_file_mmap(struct kvm_file *f)
{
	return f->kind == KVM_FILE_VCPU ? f->vcpu->run : NULL;
}

static long file_create_vm(struct kvm_file *f, uintptr_t type, struct kvm_file **newf)
{
	struct kvm_file *n;
	int r;

	/* x86 has one type of machine. */
	if (type || !newf)
		return -EINVAL;
	n = file_new(KVM_FILE_VM, &f->options);
	if (!n)
		return -ENOMEM;
	r = kvm_vm_create(&f->options, f->perf_fd, &n->vm);
	if (r) {
		free(n);
		return r;
	}
	*newf = n;
	return 0;
}

static long file_create_vcpu(struct kvm_file *f, uintptr_t id, struct kvm_file **newf)
{
	struct kvm_file *n;
	long r;

	if (!newf)
		return -EINVAL;
	n = file_new(KVM_FILE_VCPU, &f->options);
	if (!n)
		return -ENOMEM;
	r = kvm_vm_create_vcpu(f->vm, id, &n->vcpu);
	if (r) {
		free(n);
		return r;
	}
	n->vm = f->vm;
	*newf = n;
	return 0;
}

static long file_system_ioctl(struct kvm_file *f, unsigned long request, uintptr_t arg,
			      struct kvm_file **newf)
{
	switch (request) {
	case KVM_GET_API_VERSION: return arg ? -EINVAL : KVM_API_VERSION;
	case KVM_CREATE_VM: return file_create_vm(f, arg, newf);
	case KVM_CHECK_EXTENSION: return kvm_vm_check_extension(NULL, (long)arg);
	case KVM_GET_VCPU_MMAP_SIZE: return arg ? -EINVAL : (long)KVM_RUN_AREA_SIZE;
	case KVM_TRACE_ENABLE:
	case KVM_TRACE_PAUSE:
	case KVM_TRACE_DISABLE: return -EOPNOTSUPP;
	default: return kvm_arch_sys_ioctl(request, arg);
	}
}

long kvm_file_ioctl(struct kvm_file *f, unsigned long request, uintptr_t arg,
		    struct kvm_file **newf)
{
	switch (f->kind) {
	case KVM_FILE_SYSTEM: return file_system_ioctl(f, request, arg, newf);
	case KVM_FILE_VM:
		if (request == KVM_CREATE_VCPU)
			return file_create_vcpu(f, arg, newf);
		return kvm_vm_ioctl(f->vm, request, arg);
	default: return kvm_vcpu_ioctl(f->vcpu, request, arg);
	}
}

void kvm_vm_memory_written(struct kvm_file *vm, gpa_t gpa, uint64_t size)
{
	if (vm->vm)
		kvm_memory_written(vm->vm, gpa, size);
}

void kvm_vcpu_kick_user(struct kvm_file *vcpu)
{
	if (vcpu->vcpu)
		kvm_make_request(vcpu->vcpu, REQ_KICK);
}

void kvm_vcpu_ignore_signals(struct kvm_file *vcpu, bool ignore)
{
	if (vcpu->vcpu)
		atomic_store(&vcpu->vcpu->ignore_signals, ignore);
}

int kvm_vm_jit_info(struct kvm_file *vm, char **text)
{
	struct vcpu *v[KVM_SOFT_MAX_VCPUS] = { NULL };
	unsigned n = atomic_load(&vm->vm->nvcpus), locked = 0;
	int r = 0;

	/* KVM_RUN holds the lock of its vCPU: then the vCPU's thread owns the counters. */
	while (locked < n && !r) {
		v[locked] = atomic_load(&vm->vm->vcpus[locked]);
		if (pthread_mutex_trylock(&v[locked]->lock))
			r = -EBUSY;
		else
			locked++;
	}
	if (!r) {
		*text = jit_info(v, n);
		r = *text ? 0 : -ENOMEM;
	}
	while (locked)
		pthread_mutex_unlock(&v[--locked]->lock);
	return r;
}
