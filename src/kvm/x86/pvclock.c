/*
 * Paravirtual time: kvm-clock, its wall clock, steal time, and KVM_GET_CLOCK / KVM_SET_CLOCK.
 *
 * Modelled:     one master clock for each VM: a host TSC value and the kvm-clock time it stands
 *               for. All vCPUs' areas say the same line, so the clock is stable across them and
 *               is only rewritten when something jumps.
 * Not modelled: PV EOI (its MSR takes 0 only), asynchronous page faults, the preempted flag of
 *               steal time. The rate is that of the calibrated TSC: it is not steered by the
 *               host's NTP.
 * References:   [KVM-MSR], [KVM-API 4.30, 4.31].
 * Threads:      clock->lock over the master clock; areas are written by the vCPU thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm_para.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/tsc.h"

#define NS_PER_S 1000000000ull

/* The areas in guest memory. [KVM-MSR MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW] */
struct pv_time {
	uint32_t version, pad0;
	uint64_t tsc, system;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};
struct pv_wall {
	uint32_t version, sec, nsec;
};
enum { PV_TSC_STABLE = 1, PV_GUEST_STOPPED = 2 };

#define STEAL_INTERVAL 10000000ull /* ns between looks at the scheduler's counters */
#define STEAL_NONE     UINT64_MAX

static uint64_t pvclock_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Factors of ns = (ticks << shift) * mul >> 32. */
static void pvclock_factors(uint32_t khz, uint32_t *mul, int8_t *shift)
{
	uint64_t hz = khz * 1000ull;

	*shift = 0;
	for (; hz > 2 * NS_PER_S; hz >>= 1)
		--*shift;
	for (; hz <= NS_PER_S; hz <<= 1)
		++*shift;
	*mul = (uint32_t)((NS_PER_S << 32) / hz);
}

/* What a guest computes from an area that says (host_khz, base_tsc, base_ns), at host TSC tsc. */
static uint64_t pvclock_at(const struct kvm_guest_clock *c, uint64_t tsc)
{
	uint64_t delta = tsc > c->base_tsc ? tsc - c->base_tsc : 0;
	uint32_t mul;
	int8_t shift;

	pvclock_factors(kvm_host_tsc_khz(), &mul, &shift);
	delta = shift < 0 ? delta >> -shift : delta << shift;
	return c->base_ns + (uint64_t)((unsigned __int128)delta * mul >> 32);
}

/* ---- Areas ------------------------------------------------------------------------------------
 */

/* The version is odd while the rest changes: other vCPUs may read the area. */
static void pvclock_write_versioned(struct vcpu *v, gpa_t gpa, void *area, uint32_t len,
				    uint32_t version_at)
{
	uint32_t version;

	if (kvm_read_guest(v, gpa + version_at, &version, 4))
		return;
	version = (version | 1) + (version & 1 ? 2 : 0);
	if (kvm_write_guest(v, gpa + version_at, &version, 4))
		return;
	memcpy((char *)area + version_at, &version, 4);
	atomic_thread_fence(memory_order_seq_cst);
	if (kvm_write_guest(v, gpa, area, len))
		return;
	atomic_thread_fence(memory_order_seq_cst);
	version++;
	kvm_write_guest(v, gpa + version_at, &version, 4);
}

static void pvclock_write_time(struct vcpu *v, struct kvm_guest_clock *c)
{
	gpa_t gpa = v->msr.kvm_system_time & ~1ull;
	struct pv_time t = { .flags = PV_TSC_STABLE };
	uint8_t flags = 0;

	pthread_mutex_lock(&c->lock);
	t.tsc = kvm_scale_tsc(v->tsc_khz, c->base_tsc) + v->tsc_offset;
	t.system = c->base_ns;
	pthread_mutex_unlock(&c->lock);
	pvclock_factors(v->tsc_khz ? v->tsc_khz : kvm_host_tsc_khz(), &t.mul, &t.shift);
	/* The guest clears this flag itself when it has seen it. */
	kvm_read_guest(v, gpa + offsetof(struct pv_time, flags), &flags, 1);
	t.flags |= flags & PV_GUEST_STOPPED;
	if (atomic_exchange(&v->pvclock.stopped, false))
		t.flags |= PV_GUEST_STOPPED;
	pvclock_write_versioned(v, gpa, &t, sizeof(t), offsetof(struct pv_time, version));
}

/* Real time at which kvm-clock was 0. */
static void pvclock_write_wall(struct vcpu *v, struct kvm_guest_clock *c)
{
	struct pv_wall w = { 0 };
	uint64_t real, sys;

	pthread_mutex_lock(&c->lock);
	real = pvclock_realtime();
	sys = pvclock_at(c, kvm_host_tsc());
	pthread_mutex_unlock(&c->lock);
	real = real > sys ? real - sys : 0;
	w.sec = (uint32_t)(real / NS_PER_S);
	w.nsec = (uint32_t)(real % NS_PER_S);
	pvclock_write_versioned(v, v->msr.kvm_wall_clock, &w, sizeof(w),
				offsetof(struct pv_wall, version));
}

/* ns that this thread has waited for a processor, from the scheduler; 0 when it does not tell. */
static uint64_t pvclock_run_delay(void)
{
	int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	char buf[96], *waited;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	waited = strchr(buf, ' '); /* the first number is the time it ran */
	return waited ? strtoull(waited, NULL, 10) : 0;
}

static void pvclock_write_steal(struct vcpu *v)
{
	gpa_t gpa = v->msr.kvm_steal_time & KVM_STEAL_VALID_BITS;
	struct kvm_steal_time st;
	uint64_t now = kvm_now_ns(), delay;

	if (now < v->pvclock.steal_due)
		return;
	v->pvclock.steal_due = now + STEAL_INTERVAL;
	delay = pvclock_run_delay();
	if (kvm_read_guest(v, gpa, &st, sizeof(st)))
		return;
	/* Another thread runs the vCPU now when the count went down. STEAL_NONE: the first look. */
	if (delay > v->pvclock.steal_seen)
		st.steal += delay - v->pvclock.steal_seen;
	v->pvclock.steal_seen = delay;
	st.preempted = 0;
	pvclock_write_versioned(v, gpa, &st, sizeof(st), offsetof(struct kvm_steal_time, version));
}

void kvm_pvclock_update(struct vcpu *v)
{
	struct kvm_arch_vm *arch = kvm_chips(v->vm);

	if (!arch)
		return;
	if (atomic_exchange(&v->pvclock.wall, false))
		pvclock_write_wall(v, &arch->clock);
	if ((v->msr.kvm_system_time & KVM_MSR_ENABLED) &&
	    atomic_exchange(&v->pvclock.update, false))
		pvclock_write_time(v, &arch->clock);
	if (v->msr.kvm_steal_time & KVM_MSR_ENABLED)
		pvclock_write_steal(v);
}

/* Something the areas depend on was set: at once in the guest, else at the next entry. */
static void pvclock_changed(struct vcpu *v)
{
	if (atomic_load(&v->in_guest))
		kvm_pvclock_update(v);
	else
		kvm_make_request(v, REQ_STEAL);
}

/* ---- MSRs -------------------------------------------------------------------------------------
 */

int kvm_pvclock_msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		v->msr.kvm_wall_clock = value;
		atomic_store(&v->pvclock.wall, value != 0);
		break;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		v->msr.kvm_system_time = value;
		atomic_store(&v->pvclock.update, true);
		break;
	case MSR_KVM_STEAL_TIME:
		if (value & KVM_STEAL_RESERVED_MASK)
			return 1;
		v->msr.kvm_steal_time = value;
		v->pvclock.steal_due = 0;
		v->pvclock.steal_seen = STEAL_NONE;
		break;
	case MSR_KVM_PV_EOI_EN:
		if (value & KVM_MSR_ENABLED)
			return 1;
		v->msr.kvm_pv_eoi = value;
		return 0;
	default: return -1;
	}
	pvclock_changed(v);
	return 0;
}

int kvm_pvclock_msr_read(struct vcpu *v, uint32_t index, uint64_t *value)
{
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW: *value = v->msr.kvm_wall_clock; return 0;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW: *value = v->msr.kvm_system_time; return 0;
	case MSR_KVM_STEAL_TIME: *value = v->msr.kvm_steal_time; return 0;
	case MSR_KVM_PV_EOI_EN: *value = v->msr.kvm_pv_eoi; return 0;
	default: return -1;
	}
}

int kvm_clock_ctrl(struct vcpu *v)
{
	if (!(v->msr.kvm_system_time & KVM_MSR_ENABLED))
		return -EINVAL;
	atomic_store(&v->pvclock.stopped, true);
	atomic_store(&v->pvclock.update, true);
	kvm_make_request(v, REQ_STEAL);
	return 0;
}

/* ---- KVM_GET_CLOCK, KVM_SET_CLOCK -------------------------------------------------------------
 */

void kvm_clock_get(struct kvm_vm *vm, struct kvm_clock_data *c)
{
	struct kvm_arch_vm *arch = kvm_chips(vm);

	memset(c, 0, sizeof(*c));
	if (!arch)
		return;
	pthread_mutex_lock(&arch->clock.lock);
	c->host_tsc = kvm_host_tsc();
	c->realtime = pvclock_realtime();
	c->clock = pvclock_at(&arch->clock, c->host_tsc);
	pthread_mutex_unlock(&arch->clock.lock);
	c->flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
}

int kvm_clock_set(struct kvm_vm *vm, const struct kvm_clock_data *c)
{
	struct kvm_arch_vm *arch = kvm_chips(vm);
	uint64_t clock = c->clock, real;
	unsigned n;

	if (!arch)
		return -ENOMEM;
	/* What KVM_GET_CLOCK gives can be handed back; only the real time counts. */
	if (c->flags & ~(uint32_t)(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC))
		return -EINVAL;
	pthread_mutex_lock(&arch->clock.lock);
	real = pvclock_realtime();
	/* The time that has passed since it was taken, if the clock tells; never backwards. */
	if ((c->flags & KVM_CLOCK_REALTIME) && real > c->realtime)
		clock += real - c->realtime;
	arch->clock.base_tsc = kvm_host_tsc();
	arch->clock.base_ns = clock;
	pthread_mutex_unlock(&arch->clock.lock);

	n = atomic_load(&vm->nvcpus);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);

		if (!v)
			continue;
		atomic_store(&v->pvclock.update, true);
		kvm_make_request(v, REQ_STEAL);
	}
	return 0;
}
