/*
 * Virtual processors: life, registers, and the run loop.
 *
 * References: [KVM-API 4, 5]. Threads: one runs a vCPU at a time; the rest as libkvm.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "libkvm/engine.h"

int libkvm_vcpu_create(struct libkvm_vm *vm, uint32_t id, struct libkvm_vcpu **out,
		       struct libkvm_err *e)
{
	struct libkvm_vcpu *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return lk_fail(e, ENOMEM, "no memory for a vCPU");
	c->vm = vm;
	r = vm->k->ops->ioctl(vm->h, KVM_CREATE_VCPU, (void *)(uintptr_t)id, &c->h);
	if (r) {
		free(c);
		return lk_fail(e, -r, "KVM_CREATE_VCPU %u: %s", id, strerror(-r));
	}
	c->run = vm->k->ops->map(c->h, vm->k->run_size);
	if (!c->run) {
		vm->k->ops->close(c->h);
		free(c);
		return lk_fail(e, ENOMEM, "the run area of vCPU %u cannot be mapped", id);
	}
	*out = c;
	return 0;
}

void libkvm_vcpu_close(struct libkvm_vcpu *c)
{
	if (!c)
		return;
	c->vm->k->ops->unmap(c->run, c->vm->k->run_size);
	c->vm->k->ops->close(c->h);
	free(c);
}

int libkvm_vcpu_ioctl(struct libkvm_vcpu *c, unsigned long request, void *arg)
{
	return c->vm->k->ops->ioctl(c->h, request, arg, NULL);
}

struct kvm_run *libkvm_vcpu_run_area(struct libkvm_vcpu *c)
{
	return c->run;
}

int libkvm_get_regs(struct libkvm_vcpu *c, struct kvm_regs *r)
{
	return libkvm_vcpu_ioctl(c, KVM_GET_REGS, r);
}

int libkvm_set_regs(struct libkvm_vcpu *c, const struct kvm_regs *r)
{
	return libkvm_vcpu_ioctl(c, KVM_SET_REGS, (void *)(uintptr_t)r);
}

int libkvm_get_sregs(struct libkvm_vcpu *c, struct kvm_sregs *s)
{
	return libkvm_vcpu_ioctl(c, KVM_GET_SREGS, s);
}

int libkvm_set_sregs(struct libkvm_vcpu *c, const struct kvm_sregs *s)
{
	return libkvm_vcpu_ioctl(c, KVM_SET_SREGS, (void *)(uintptr_t)s);
}

/* KVM_GET_MSRS and KVM_SET_MSRS say how many went well: 1 of 1, or the index is refused. */
static int vcpu_msr(struct libkvm_vcpu *c, unsigned long request, uint32_t index, uint64_t *value)
{
	uint64_t room[(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)) / 8] = { 0 };
	struct kvm_msrs *m = (struct kvm_msrs *)room;
	int r;

	m->nmsrs = 1;
	m->entries[0].index = index;
	m->entries[0].data = *value;
	r = libkvm_vcpu_ioctl(c, request, m);
	if (r < 0)
		return r;
	if (r != 1)
		return -EINVAL;
	*value = m->entries[0].data;
	return 0;
}

int libkvm_get_msr(struct libkvm_vcpu *c, uint32_t index, uint64_t *value)
{
	uint64_t v = 0;
	int r = vcpu_msr(c, KVM_GET_MSRS, index, &v);

	if (!r)
		*value = v;
	return r;
}

int libkvm_set_msr(struct libkvm_vcpu *c, uint32_t index, uint64_t value)
{
	return vcpu_msr(c, KVM_SET_MSRS, index, &value);
}

int libkvm_set_cpuid(struct libkvm_vcpu *c, const struct kvm_cpuid2 *table)
{
	return libkvm_vcpu_ioctl(c, KVM_SET_CPUID2, (void *)(uintptr_t)table);
}

int libkvm_vcpu_run(struct libkvm_vcpu *c)
{
	return c->vm->k->ops->run(c);
}

void libkvm_vcpu_kick(struct libkvm_vcpu *c)
{
	c->vm->k->ops->kick(c);
}

/* ---- Run loop ------------------------------------------------------------------------------- */

static enum libkvm_next vcpu_pio(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb,
				 void *opaque)
{
	struct kvm_run *run = c->run;
	void *data = (char *)run + run->io.data_offset;
	bool out = run->io.direction == KVM_EXIT_IO_OUT;

	if (cb->pio)
		return cb->pio(opaque, c, run->io.port, data, run->io.size, run->io.count, out);
	if (!out)
		memset(data, 0xff, (size_t)run->io.size * run->io.count);
	return LIBKVM_CONTINUE;
}

static enum libkvm_next vcpu_mmio(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb,
				  void *opaque)
{
	struct kvm_run *run = c->run;

	if (cb->mmio)
		return cb->mmio(opaque, c, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
				run->mmio.is_write);
	if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
	return LIBKVM_CONTINUE;
}

static enum libkvm_next vcpu_exit(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb,
				  void *opaque)
{
	switch (c->run->exit_reason) {
	case KVM_EXIT_IO: return vcpu_pio(c, cb, opaque);
	case KVM_EXIT_MMIO: return vcpu_mmio(c, cb, opaque);
	case KVM_EXIT_HLT: return cb->hlt ? cb->hlt(opaque, c) : LIBKVM_STOP;
	case KVM_EXIT_SHUTDOWN: return cb->shutdown ? cb->shutdown(opaque, c) : LIBKVM_STOP;
	case KVM_EXIT_DEBUG: return cb->debug ? cb->debug(opaque, c) : LIBKVM_STOP;
	default: return cb->other ? cb->other(opaque, c, c->run->exit_reason) : LIBKVM_STOP;
	}
}

/* An instruction that is not done after so many exits is left as it is: REP OUTS can go on long. */
#define VCPU_COMPLETIONS 2048

/*
 * A callback stops the loop. If it was about an access, the engine still stands in the middle of
 * the instruction: registers read now are those before it, and registers set now would be changed
 * by what is left of it at the next run. So let it end, without entering the guest after it.
 */
static int vcpu_complete(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb, void *opaque)
{
	for (unsigned i = 0; i < VCPU_COMPLETIONS; i++) {
		int r;

		if (c->run->exit_reason != KVM_EXIT_IO && c->run->exit_reason != KVM_EXIT_MMIO)
			return 0;
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		r = libkvm_vcpu_run(c);
		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (r)
			return r == -EINTR || r == -EAGAIN ? 0 : r;
		/* another part of the access, or the next one of a string instruction */
		vcpu_exit(c, cb, opaque);
	}
	return 0;
}

int libkvm_vcpu_loop(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb, void *opaque)
{
	for (;;) {
		bool access = false;
		enum libkvm_next next;
		int r;

		if (cb->pre && cb->pre(opaque, c) == LIBKVM_STOP)
			return 0;
		r = libkvm_vcpu_run(c);
		if (r == -EAGAIN) /* a processor that has just been started */
			continue;
		if (r == -EINTR)
			next = cb->kicked ? cb->kicked(opaque, c) : LIBKVM_STOP;
		else if (r < 0)
			return r;
		else {
			access = true;
			next = vcpu_exit(c, cb, opaque);
		}
		if (next == LIBKVM_STOP)
			return access ? vcpu_complete(c, cb, opaque) : 0;
	}
}
