/*
 * The software engine: handles of src/kvm.
 *
 * References: kvm/kvm.h. Threads: as libkvm.h.
 */
#include <errno.h>

#include "kvm/kvm.h"
#include "libkvm/engine.h"

_Static_assert(LIBKVM_LOG_IN_ASM == KVM_LOG_IN_ASM && LIBKVM_LOG_OUT_ASM == KVM_LOG_OUT_ASM &&
		       LIBKVM_LOG_RANGES == KVM_LOG_RANGES,
	       "one number with two names");
_Static_assert(LIBKVM_SUBERROR_CHECK == KVM_SUBERROR_CHECK, "one number with two names");

int lk_soft_open(const struct libkvm_options *opt, union lk_handle *h, struct libkvm_err *e)
{
	struct kvm_options o = { 0 };
	struct err why = { 0 };
	int r;

	if (opt) {
		o.no_jit = opt->no_jit;
		o.jit_check = opt->jit_check;
		o.jit_heat = opt->jit_heat;
		o.jit_trace = opt->jit_trace;
		o.jit_cache_mib = opt->jit_cache_mib;
		o.jit_profile = opt->jit_profile;
		o.jit_perf_map = opt->jit_perf_map;
		o.jit_log = opt->jit_log;
		o.jit_log_ranges = opt->jit_log_ranges;
		if (opt->jit_log_ranges > KVM_LOG_RANGES)
			return lk_fail(e, EINVAL, "more than %d ranges to log", KVM_LOG_RANGES);
		for (unsigned n = 0; n < opt->jit_log_ranges; n++)
			o.jit_log_range[n] = (struct kvm_range){ opt->jit_log_range[n].first,
								 opt->jit_log_range[n].last };
	}
	r = kvm_open(&o, &h->file, &why);
	return r ? lk_fail(e, -r, "%s", why.msg) : 0;
}

static int soft_ioctl(union lk_handle h, unsigned long request, void *arg, union lk_handle *next)
{
	struct kvm_file *file = NULL;
	long r = kvm_file_ioctl(h.file, request, (uintptr_t)arg, next ? &file : NULL);

	if (file) {
		next->file = file;
		/* Only libkvm_vcpu_kick interrupts it: no look at signals on each run. */
		if (request == KVM_CREATE_VCPU)
			kvm_vcpu_ignore_signals(file, true);
	}
	return (int)r;
}

static void soft_close(union lk_handle h)
{
	kvm_file_close(h.file);
}

static struct kvm_run *soft_map(union lk_handle vcpu, size_t size)
{
	(void)size;
	return kvm_file_mmap(vcpu.file);
}

static void soft_unmap(struct kvm_run *run, size_t size)
{
	/* It belongs to the vCPU. */
	(void)run;
	(void)size;
}

static void soft_written(union lk_handle vm, uint64_t gpa, uint64_t size)
{
	kvm_vm_memory_written(vm.file, gpa, size);
}

static int soft_jit_info(union lk_handle vm, char **text)
{
	return kvm_vm_jit_info(vm.file, text);
}

static int soft_run(struct libkvm_vcpu *c)
{
	return (int)kvm_file_ioctl(c->h.file, KVM_RUN, 0, NULL);
}

static void soft_kick(struct libkvm_vcpu *c)
{
	kvm_vcpu_kick_user(c->h.file);
}

const struct lk_ops lk_soft = {
	.kind = LIBKVM_SOFT,
	.ioctl = soft_ioctl,
	.close = soft_close,
	.map = soft_map,
	.unmap = soft_unmap,
	.written = soft_written,
	.jit_info = soft_jit_info,
	.run = soft_run,
	.kick = soft_kick,
};
