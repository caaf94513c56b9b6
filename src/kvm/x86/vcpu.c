/*
 * Making and unmaking a vCPU.
 *
 * References: [KVM-API 4.7, 5]. Threads: vm->lock held; destruction: no other user is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/arch.h"
#include "kvm/coalesced.h"
#include "kvm/handle.h"
#include "kvm/x86/interp/block.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit.h"
#include "kvm/x86/state.h"

/* How often a KVM_RUN that may be interrupted by signals looks for them. */
#define VCPU_SIGNAL_PERIOD 1000000ull /* ns */

static void vcpu_signal_tick(void *opaque)
{
	struct vcpu *v = opaque;

	/* A halted vCPU polls a signalfd instead; one outside KVM_RUN looks when it enters. */
	if (!atomic_load(&v->running) || atomic_load(&v->ignore_signals)) {
		atomic_store(&v->sig_timer_armed, false);
		return;
	}
	if (!atomic_load(&v->halted_wait))
		atomic_fetch_or(&v->requests, REQ_SIGNAL);
	kvm_timer_arm(v->vm, &v->sig_timer, kvm_now_ns() + VCPU_SIGNAL_PERIOD);
}

static int vcpu_map_run(struct vcpu *v)
{
	char *p = mmap(NULL, KVM_RUN_AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	v->run = (struct kvm_run *)p;
	return kvm_coalesced_map(v->vm, p + KVM_COALESCED_PAGE * PAGE_SIZE);
}

int kvm_arch_vcpu_create(struct kvm_vm *vm, uint32_t id, uint32_t index, struct vcpu **out)
{
	size_t size = (sizeof(struct vcpu) + 63) & ~(size_t)63;
	struct vcpu *v = aligned_alloc(64, size);
	bool chip = kvm_arch_has_irqchip(vm);
	int r = 0;

	if (!v)
		return -ENOMEM;
	memset(v, 0, size);
	v->vm = vm;
	v->id = id;
	v->index = index;
	v->sig_fd = -1;
	v->tsc_khz = vm->config.tsc_khz ? vm->config.tsc_khz : kvm_host_tsc_khz();
	pthread_mutex_init(&v->lock, NULL);
	kvm_timer_init(&v->sig_timer, vcpu_signal_tick, v);
	atomic_store(&v->kick_fd, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (atomic_load(&v->kick_fd) < 0)
		r = -EMFILE;
	if (!r)
		r = vcpu_map_run(v);
	if (!r)
		r = block_cache_new(v);
	if (!r && !vm->options.no_jit && jit_new(v) == -ENOMEM)
		r = -ENOMEM; /* without what it needs of the host: interpreter only */
	if (!r && vm->options.jit_check)
		r = jit_check_new(v);
	if (!r) {
		vcpu_default_cpuid(v);
		vcpu_reset(v, false);
		if (chip)
			r = kvm_lapic_create(v);
	}
	if (r) {
		kvm_arch_vcpu_destroy(v);
		return r;
	}
	/* Application processors wait for INIT and SIPI, which only an in-kernel LAPIC receives. */
	atomic_store(&v->mp_state, !chip || id == vm->config.boot_cpu_id
					   ? KVM_MP_STATE_RUNNABLE
					   : KVM_MP_STATE_UNINITIALIZED);
	kvm_tsc_init(v);
	*out = v;
	return 0;
}

void kvm_arch_vcpu_destroy(struct vcpu *v)
{
	kvm_timer_cancel(v->vm, &v->sig_timer);
	if (v->lapic)
		kvm_lapic_free(v);
	coro_free(v->coro);
	block_cache_free(v);
	jit_free(v);
	if (v->run)
		munmap(v->run, KVM_RUN_AREA_SIZE);
	if (atomic_load(&v->kick_fd) >= 0)
		close(atomic_load(&v->kick_fd));
	if (v->sig_fd >= 0)
		close(v->sig_fd);
	free(v->cpuid);
	pthread_mutex_destroy(&v->lock);
	free(v);
}
