/*
 * The live probe: does the host's KVM run a guest soundly, and ring 0 faster than our own engine?
 *
 * "open() worked" is not enough. Seen: a /dev/kvm that creates VMs, yet emulates ring 0 one
 * instruction at a time and fails on LOCK CMPXCHG16B; nested hosts whose interrupts get lost.
 *
 * Theory of operation. A thread runs the guest of probe_guest.S; the caller watches it with a time
 * limit for each step and kicks it when that is over. A host that does not even react to the kick
 * keeps the thread and its VM, and counts as unusable.
 *
 * References: DESIGN 3. Threads: the caller's and one of its own.
 */
#include "libkvm/probe.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "libkvm/engine.h"

/* Limits in ns. Creating VM and vCPU is slow on a nested host; the timed loop may not be. */
#define PROBE_SETUP_NS 1000000000ull
#define PROBE_STEP_NS  300000000ull
#define PROBE_LOOP_NS  40000000ull
#define PROBE_KICK_NS  100000000ull
/*
 * Instructions a second that the software engine does on such a loop, measured on a 2.6 GHz EPYC:
 * below this the host's engine is the slower one.
 */
#define PROBE_FLOOR    150000000ull
#define PROBE_ATTEMPTS 3

extern const uint8_t probe_guest[], probe_guest_end[], probe_guest_handler[];

struct probe {
	struct libkvm *k;
	struct libkvm_vm *vm;
	struct libkvm_vcpu *c;
	uint8_t *ram;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	uint64_t deadline; /* of the step under way, CLOCK_MONOTONIC */
	bool done;
	bool kickable; /* c is there */
	int result;
	int stage; /* last one reached */
	uint64_t rate;
	char what[128];
};

static uint64_t probe_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void probe_limit(struct probe *p, uint64_t ns)
{
	pthread_mutex_lock(&p->lock);
	p->deadline = probe_now() + ns;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

__attribute__((format(printf, 2, 3))) static int probe_bad(struct probe *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->what, sizeof(p->what), fmt, ap);
	va_end(ap);
	return -EIO;
}

static void probe_fill(uint8_t *ram)
{
	uint64_t table = PROBE_PDPT | 3, dir = PROBE_PD | 3, page = 0x83; /* 2 MiB, writable */
	uint64_t handler = (uint64_t)(probe_guest_handler - probe_guest) + PROBE_BASE;
	/* interrupt gate, present, selector 0x18 */
	uint64_t gate = (handler & 0xffff) | 0x18ull << 16 | 0x8e00ull << 32 |
			(handler >> 16 & 0xffff) << 48;

	memcpy(ram + PROBE_BASE, probe_guest, (size_t)(probe_guest_end - probe_guest));
	memcpy(ram + PROBE_PML4, &table, 8);
	memcpy(ram + PROBE_PDPT, &dir, 8);
	memcpy(ram + PROBE_PD, &page, 8);
	memcpy(ram + PROBE_IDT + 16 * PROBE_VECTOR, &gate, 8);
}

static int probe_setup(struct probe *p)
{
	struct kvm_cpuid2 *cpuid;
	struct kvm_sregs s;
	struct kvm_regs r = { .rip = PROBE_BASE, .rflags = 2 };
	struct libkvm_err e = { 0 };
	int ret;

	p->ram = mmap(NULL, PROBE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->ram == MAP_FAILED) {
		p->ram = NULL;
		return probe_bad(p, "no memory");
	}
	probe_fill(p->ram);
	if (libkvm_vm_create(p->k, &p->vm, &e))
		return probe_bad(p, "%.120s", e.msg);
	ret = libkvm_mem_add(p->vm, 0, PROBE_SIZE, p->ram, 0);
	if (ret)
		return probe_bad(p, "KVM_SET_USER_MEMORY_REGION: %s", strerror(-ret));
	if (libkvm_vcpu_create(p->vm, 0, &p->c, &e))
		return probe_bad(p, "%.120s", e.msg);
	pthread_mutex_lock(&p->lock);
	p->kickable = true;
	pthread_mutex_unlock(&p->lock);
	if (!libkvm_supported_cpuid(p->k, &cpuid)) {
		libkvm_set_cpuid(p->c, cpuid);
		free(cpuid);
	}
	ret = libkvm_get_sregs(p->c, &s);
	if (!ret) {
		s.cs.base = 0;
		s.cs.selector = 0;
		ret = libkvm_set_sregs(p->c, &s);
	}
	if (!ret)
		ret = libkvm_set_regs(p->c, &r);
	return ret ? probe_bad(p, "its registers cannot be set: %s", strerror(-ret)) : 0;
}

static int probe_inject(struct probe *p)
{
	struct kvm_interrupt irq = { .irq = PROBE_VECTOR };
	struct kvm_run *run = libkvm_vcpu_run_area(p->c);
	int r;

	if (!run->ready_for_interrupt_injection) {
		run->request_interrupt_window = 1;
		return 0;
	}
	run->request_interrupt_window = 0;
	r = libkvm_vcpu_ioctl(p->c, KVM_INTERRUPT, &irq);
	return r ? probe_bad(p, "KVM_INTERRUPT: %s", strerror(-r)) : 0;
}

static const char *probe_stage_name(int stage)
{
	static const char *const name[] = { "start",          "real mode",     "protected mode",
					    "long mode",      "cmpxchg16b",    "an interrupt",
					    "the timed loop", "the timed loop" };

	return stage >= 0 && stage < (int)(sizeof(name) / sizeof(name[0])) ? name[stage] : "?";
}

/* One exit of the guest: < 0 failed, 0 go on, 1 sound and fast. */
static int probe_exit(struct probe *p, uint64_t *start, int *attempts)
{
	struct kvm_run *run = libkvm_vcpu_run_area(p->c);
	uint64_t now = probe_now(), rate;
	uint8_t stage;

	if (run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN && p->stage == PROBE_WAITING)
		return probe_inject(p);
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != PROBE_PORT)
		return probe_bad(p, "its guest fails in %s (exit %u)",
				 probe_stage_name(p->stage + 1), run->exit_reason);
	stage = *((uint8_t *)run + run->io.data_offset);
	if (stage != p->stage + 1 && !(stage == PROBE_LOOPED && p->stage == PROBE_LOOPED))
		return probe_bad(p, "its guest fails in %s", probe_stage_name(p->stage + 1));
	p->stage = stage;
	if (stage == PROBE_WAITING)
		return probe_inject(p);
	if (stage >= PROBE_INTERRUPTED) {
		if (stage == PROBE_LOOPED) {
			rate = PROBE_LOOPS * PROBE_LOOP_INSNS * 1000000000ull / (now - *start + 1);
			p->rate = rate > p->rate ? rate : p->rate;
			if (p->rate >= PROBE_FLOOR)
				return 1;
			/* It may have been somebody else's time slice: look again. */
			if (++*attempts == PROBE_ATTEMPTS)
				return probe_bad(p, "ring 0 runs %llu million instructions/s only",
						 (unsigned long long)(p->rate / 1000000));
		}
		probe_limit(p, PROBE_LOOP_NS);
		*start = probe_now();
	}
	return 0;
}

static int probe_guest_run(struct probe *p)
{
	uint64_t start = 0;
	int attempts = 0, r;

	r = probe_setup(p);
	if (r)
		return r;
	probe_limit(p, PROBE_STEP_NS);
	for (;;) {
		r = libkvm_vcpu_run(p->c);
		if (r == -EINTR) {
			if (p->stage >= PROBE_INTERRUPTED)
				return probe_bad(
					p, "ring 0 runs less than %llu million instructions/s",
					PROBE_LOOPS * PROBE_LOOP_INSNS * 1000ull / PROBE_LOOP_NS);
			return probe_bad(p, "its guest hangs in %s",
					 probe_stage_name(p->stage + 1));
		}
		if (r)
			return probe_bad(p, "KVM_RUN: %s", strerror(-r));
		r = probe_exit(p, &start, &attempts);
		if (r)
			return r < 0 ? r : 0;
	}
}

static void *probe_thread(void *arg)
{
	struct probe *p = arg;
	int r = probe_guest_run(p);

	pthread_mutex_lock(&p->lock);
	p->result = r;
	p->done = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Wait until the thread is done; false when the limit is over and a kick does not help either. */
static bool probe_watch(struct probe *p)
{
	bool kicked = false;

	pthread_mutex_lock(&p->lock);
	while (!p->done) {
		struct timespec ts = { (time_t)(p->deadline / 1000000000),
				       (long)(p->deadline % 1000000000) };

		pthread_cond_timedwait(&p->changed, &p->lock, &ts);
		if (p->done || probe_now() < p->deadline)
			continue;
		if (kicked || !p->kickable)
			break;
		kicked = true;
		p->deadline = probe_now() + PROBE_KICK_NS;
		libkvm_vcpu_kick(p->c);
	}
	kicked = p->done;
	pthread_mutex_unlock(&p->lock);
	return kicked;
}

static void probe_free(struct probe *p)
{
	libkvm_vcpu_close(p->c);
	libkvm_vm_close(p->vm);
	if (p->ram)
		munmap(p->ram, PROBE_SIZE);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->changed);
	free(p);
}

static struct probe *probe_new(struct libkvm *k)
{
	struct probe *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p)
		return NULL;
	p->k = k;
	p->deadline = probe_now() + PROBE_SETUP_NS;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

static int probe_start(struct probe *p, pthread_t *thread)
{
	sigset_t all, old;
	int r;

	/* The program's signals are not for this thread, and would look like a kick. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, probe_thread, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int lk_probe(struct libkvm *k, char *reason, size_t size, bool *stuck)
{
	struct probe *p = probe_new(k);
	pthread_t thread;
	int r;

	if (!p || probe_start(p, &thread)) {
		snprintf(reason, size, "the host's KVM cannot be probed: no memory or threads");
		if (p)
			probe_free(p);
		return -ENOMEM;
	}
	if (!probe_watch(p)) {
		pthread_detach(thread);
		*stuck = true;
		snprintf(reason, size, "the host's KVM does not answer");
		return -ETIMEDOUT;
	}
	pthread_join(thread, NULL);
	r = p->result;
	if (r)
		snprintf(reason, size, "the host's KVM is not used: %s", p->what);
	else
		snprintf(reason, size,
			 "the host's KVM is sound, ring 0 runs %llu million instructions/s",
			 (unsigned long long)(p->rate / 1000000));
	probe_free(p);
	return r;
}
