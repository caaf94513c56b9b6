/*
 * Requests to vCPUs, guest mode, and the exclusive section.
 *
 * Theory of operation. A vCPU is "in guest" between kvm_guest_enter and kvm_guest_exit. Another
 * thread that must know that every vCPU has seen a change sets a bit in each one's requests and
 * then waits until, for each, in_guest is 0 or the bit is gone. This suffices because a vCPU takes
 * its REQ_OUTSIDE bits only while in_guest is 0, acts on them there, sets in_guest, and looks
 * again:
 * - seen 0: the vCPU will find the bit before it next stays in guest mode;
 * - seen the bit gone: it was taken outside guest mode, after the waiter had set it, and acted on
 *   before in_guest became 1 again.
 * Store in_guest / load requests here and or requests / load in_guest there are all sequentially
 * consistent, so at least one side sees the other.
 *
 * An exclusive section is a mutex whose owner's name the others look for at the same place.
 *
 * Modelled:     requests, grace periods, pausing, waking of halted vCPUs.
 * References:   [KVM-API], kernel Documentation/virt/kvm/vcpu-requests.rst for the problem.
 * Threads:      kvm_make_request any, also a signal handler; kvm_sync_vcpus any; the rest the
 * vCPU's.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "base/runner.h"
#include "kvm/arch.h"
#include "kvm/hostsig.h"
#include "kvm/x86/vcpu.h"

void kvm_make_request(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_or(&v->requests, bits);
	if (atomic_load(&v->halted_wait)) {
		int saved = errno; /* a signal handler may call us */
		uint64_t one = 1;
		ssize_t n = write(atomic_load(&v->kick_fd), &one, sizeof(one));

		(void)n; /* EAGAIN: so many kicks that it is readable anyway */
		errno = saved;
	}
}

void kvm_request_all(struct kvm_vm *vm, uint32_t bits, struct vcpu *self)
{
	unsigned n = atomic_load(&vm->nvcpus);

	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (v != self)
			atomic_fetch_or(&v->requests, bits);
	}
}

/* One step of waiting: a vCPU reaches a boundary within microseconds unless it lost its CPU. */
static void request_relax(unsigned *turns)
{
	if (*turns < 100) {
		__builtin_ia32_pause();
	} else if (*turns < 200) {
		sched_yield();
	} else {
		struct timespec ts = { .tv_nsec = 50000 };

		nanosleep(&ts, NULL);
	}
	++*turns;
}

void kvm_sync_vcpus(struct kvm_vm *vm, uint32_t bits, struct vcpu *self)
{
	unsigned n = atomic_load(&vm->nvcpus);

	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (v != self)
			atomic_fetch_or(&v->requests, bits);
	}
	/* Two vCPUs that sync each other would wait for ever if they stayed in guest mode. */
	if (self)
		kvm_guest_exit(self);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);
		unsigned turns = 0;

		if (v == self)
			continue;
		while (atomic_load(&v->in_guest) && (atomic_load(&v->requests) & bits))
			request_relax(&turns);
	}
	if (self) {
		atomic_store(&self->marking[0], NULL);
		atomic_store(&self->marking[1], NULL);
		kvm_guest_enter(self);
	}
}

bool kvm_others_marking(struct vcpu *self, const struct kvm_page *page)
{
	unsigned n = atomic_load(&self->vm->nvcpus);

	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&self->vm->vcpus[i]);

		if (v != self &&
		    (atomic_load(&v->marking[0]) == page || atomic_load(&v->marking[1]) == page))
			return true;
	}
	return false;
}

void kvm_wait_marking(struct vcpu *self, const struct kvm_page *page)
{
	unsigned turns = 0;

	if (!kvm_others_marking(self, page))
		return;
	/* they wait for this one in turn, but not outside guest mode, and wait for nothing else */
	kvm_guest_exit(self);
	while (kvm_others_marking(self, page))
		request_relax(&turns);
	kvm_guest_enter(self);
}

static bool request_paused(struct vcpu *self)
{
	struct vcpu *owner = atomic_load(&self->vm->exclusive_owner);

	return owner && owner != self;
}

void kvm_guest_enter(struct vcpu *self)
{
	for (;;) {
		if (atomic_load(&self->requests) & REQ_OUTSIDE) {
			uint32_t req = atomic_fetch_and(&self->requests, ~(uint32_t)REQ_OUTSIDE);

			if (req & (REQ_TLB_FLUSH | REQ_FLUSH_CODE))
				kvm_arch_flush(self, req & REQ_OUTSIDE);
		}
		if (request_paused(self)) {
			pthread_mutex_lock(&self->vm->exclusive_lock);
			pthread_mutex_unlock(&self->vm->exclusive_lock);
		}
		atomic_store(&self->in_guest, 1);
		if (!(atomic_load(&self->requests) & REQ_OUTSIDE) && !request_paused(self))
			return;
		atomic_store(&self->in_guest, 0);
	}
}

void kvm_guest_exit(struct vcpu *self)
{
	atomic_store(&self->in_guest, 0);
}

void kvm_guest_boundary(struct vcpu *self)
{
	if (atomic_load(&self->requests) & REQ_OUTSIDE) {
		kvm_guest_exit(self);
		kvm_guest_enter(self);
	}
}

void kvm_exclusive_start(struct vcpu *self)
{
	struct kvm_vm *vm = self->vm;
	unsigned n;

	kvm_guest_exit(self);
	pthread_mutex_lock(&vm->exclusive_lock);
	atomic_store(&vm->exclusive_owner, self);
	n = atomic_load(&vm->nvcpus);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (v != self)
			atomic_fetch_or(&v->requests, REQ_PAUSE);
	}
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);
		unsigned turns = 0;

		while (v != self && atomic_load(&v->in_guest))
			request_relax(&turns);
	}
	self->in_exclusive = true;
	kvm_guest_enter(self);
}

void kvm_exclusive_end(struct vcpu *self)
{
	if (!self->in_exclusive)
		return;
	self->in_exclusive = false;
	atomic_store(&self->vm->exclusive_owner, NULL);
	pthread_mutex_unlock(&self->vm->exclusive_lock);
}

/* A descriptor that polls readable when a signal outside v->run_mask is pending. */
static int request_signal_fd(struct vcpu *v)
{
	if (v->sig_fd < 0 || v->sig_fd_mask != v->run_mask) {
		v->sig_fd = hostsig_fd(v->sig_fd, v->run_mask);
		v->sig_fd_mask = v->run_mask;
	}
	return v->sig_fd;
}

/*
 * REQ_STEAL, REQ_CODE and REQ_OUTSIDE wait for the next entry: a halted processor reads no shared
 * time areas, runs no code and is outside guest mode.
 */
static bool wait_over(struct vcpu *v)
{
	return atomic_load(&v->requests) & ~(unsigned)(REQ_STEAL | REQ_CODE | REQ_OUTSIDE);
}

/*
 * Poll for a moment, as the kernel's KVM does (halt_poll_ns). Only if the host has a processor more
 * than there are vCPUs: where they can fill it, one that polls may keep the thread that it waits
 * for from running.
 */
static void wait_poll(struct vcpu *v)
{
	struct busypoll *p = &v->halt_poll;
	bool poll;

	runner_gone();
	p->window = 0;
	if (atomic_load(&v->vm->nvcpus) < v->vm->processors)
		p->window = atomic_load_explicit(&v->vm->config.halt_poll_ns, memory_order_relaxed);
	poll = busypoll_start(p);
	while (poll && !wait_over(v))
		poll = busypoll_turn(p);
}

void kvm_vcpu_wait(struct vcpu *self, uint64_t deadline)
{
	struct pollfd fd[2] = { { .fd = atomic_load(&self->kick_fd), .events = POLLIN },
				{ .fd = -1, .events = POLLIN } };

	if (!atomic_load(&self->ignore_signals))
		fd[1].fd = request_signal_fd(self);
	if (!deadline)
		wait_poll(self);
	atomic_store(&self->halted_wait, true);
	while (!wait_over(self)) {
		struct timespec ts, *tp = NULL;

		if (deadline) {
			uint64_t now = kvm_now_ns();

			if (now >= deadline)
				break;
			ts.tv_sec = (time_t)((deadline - now) / 1000000000);
			ts.tv_nsec = (long)((deadline - now) % 1000000000);
			tp = &ts;
		}
		if (ppoll(fd, 2, tp, NULL) <= 0)
			continue;
		if (fd[0].revents) {
			uint64_t x;
			ssize_t n = read(fd[0].fd, &x, sizeof(x));

			(void)n;
		}
		if (fd[1].revents)
			atomic_fetch_or(&self->requests, REQ_SIGNAL);
	}
	atomic_store(&self->halted_wait, false);
	if (!deadline)
		busypoll_learn(&self->halt_poll);
	runner_here();
}
