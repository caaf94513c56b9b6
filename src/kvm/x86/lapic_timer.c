/*
 * The local APIC timer: one-shot, periodic and TSC-deadline.
 *
 * Modelled:     the three modes, divide configuration, current count. The bus clock is 1 GHz,
 *               as the kernel's. A periodic count that fell behind (the host was busy) gives
 *               one interrupt for all periods missed, on the old phase: IRR could not hold more
 *               either.
 * Not modelled: periods below KVM_MIN_TIMER_PERIOD, which are lengthened as in the kernel.
 * References:   [SDM3 10.5.4, 10.5.4.1].
 * Threads:      the owner of the vCPU and the timer thread, under timer_lock.
 */
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"

static uint32_t apic_timer_mode(const struct lapic *a)
{
	return lapic_reg(a, LAPIC_LVTT) & LVT_TIMER_MODE;
}

static unsigned apic_timer_divisor(uint32_t tdcr)
{
	unsigned code = (tdcr & 3) | (tdcr & 8) >> 1;

	return 1u << ((code + 1) & 7); /* 0: 2, 1: 4, ... 6: 128, 7: 1 */
}

/* Length of a count of n, in ns; periodic counts have a floor. */
static uint64_t apic_timer_length(struct lapic *a, uint32_t n)
{
	uint64_t ns = (uint64_t)n * apic_timer_divisor(lapic_reg(a, LAPIC_TDCR));

	return n && apic_timer_mode(a) == LVT_TIMER_PERIOD ? MAX(ns, KVM_MIN_TIMER_PERIOD) : ns;
}

/* timer_lock held. */
static void apic_timer_fire(struct lapic *a)
{
	a->target = 0;
	a->tsc_deadline = 0;
	kvm_apic_local(a, LAPIC_LVTT);
}

static void apic_timer_set(struct lapic *a, uint64_t target)
{
	a->target = target;
	kvm_timer_arm(a->v->vm, &a->timer, target);
}

/* Arm for tsc_deadline, or fire when it is past. timer_lock held. */
static void apic_timer_set_deadline(struct lapic *a)
{
	uint64_t ns = kvm_tsc_to_ns(a->v, a->tsc_deadline);

	if (ns)
		apic_timer_set(a, ns);
	else
		apic_timer_fire(a);
}

static void apic_timer_expired(void *opaque)
{
	struct lapic *a = opaque;
	uint64_t now = kvm_now_ns();

	pthread_mutex_lock(&a->timer_lock);
	if (!a->target || now < a->target) {
		/* Stopped, or set anew, while this call was on its way. */
	} else if (a->tsc_deadline) {
		/* The two clocks drift by some ppm: never early by the guest's own. */
		apic_timer_set_deadline(a);
	} else if (apic_timer_mode(a) == LVT_TIMER_PERIOD && a->period) {
		uint64_t next = a->target + (1 + (now - a->target) / a->period) * a->period;

		kvm_apic_local(a, LAPIC_LVTT);
		apic_timer_set(a, next);
	} else {
		apic_timer_fire(a);
	}
	pthread_mutex_unlock(&a->timer_lock);
}

void kvm_apic_timer_init(struct lapic *a)
{
	kvm_timer_init(&a->timer, apic_timer_expired, a);
}

void kvm_apic_timer_stop(struct lapic *a)
{
	pthread_mutex_lock(&a->timer_lock);
	a->target = a->period = a->tsc_deadline = 0;
	pthread_mutex_unlock(&a->timer_lock);
	/* Not under the lock: this waits for the callback, which takes it. */
	kvm_timer_cancel(a->v->vm, &a->timer);
}

void kvm_apic_timer_write_lvtt(struct lapic *a, uint32_t val)
{
	uint32_t changed;
	bool stop;

	pthread_mutex_lock(&a->timer_lock);
	changed = (lapic_reg(a, LAPIC_LVTT) ^ val) & LVT_TIMER_MODE;
	lapic_put(a, LAPIC_LVTT, val);
	/* Between one-shot and periodic the count goes on; to and from the deadline it is lost. */
	stop = changed & LVT_TIMER_TSC;
	if (stop)
		lapic_put(a, LAPIC_TMICT, 0);
	else if (changed && a->period)
		a->period = apic_timer_length(a, lapic_reg(a, LAPIC_TMICT));
	pthread_mutex_unlock(&a->timer_lock);
	if (stop)
		kvm_apic_timer_stop(a);
}

void kvm_apic_timer_write_count(struct lapic *a, uint32_t val)
{
	if (apic_timer_mode(a) & LVT_TIMER_TSC)
		return;
	pthread_mutex_lock(&a->timer_lock);
	lapic_put(a, LAPIC_TMICT, val);
	a->period = apic_timer_length(a, val);
	if (val)
		apic_timer_set(a, kvm_now_ns() + a->period);
	else
		a->target = 0;
	pthread_mutex_unlock(&a->timer_lock);
	if (!val)
		kvm_timer_cancel(a->v->vm, &a->timer);
}

/* ns left of the running count. timer_lock held. */
static uint64_t apic_timer_left(const struct lapic *a, uint64_t now)
{
	if (a->target > now)
		return a->target - now;
	/* The callback is late: a periodic count has wrapped already. */
	if (a->target && apic_timer_mode(a) == LVT_TIMER_PERIOD && a->period)
		return a->period - (now - a->target) % a->period;
	return 0;
}

void kvm_apic_timer_write_divide(struct lapic *a, uint32_t val)
{
	unsigned old = apic_timer_divisor(lapic_reg(a, LAPIC_TDCR)), new = apic_timer_divisor(val);

	pthread_mutex_lock(&a->timer_lock);
	lapic_put(a, LAPIC_TDCR, val);
	if (old != new && a->target && a->period && !a->tsc_deadline) {
		uint64_t now = kvm_now_ns(), left = apic_timer_left(a, now);

		a->period = apic_timer_length(a, lapic_reg(a, LAPIC_TMICT));
		apic_timer_set(a, now + left * new / old);
	}
	pthread_mutex_unlock(&a->timer_lock);
}

uint32_t kvm_apic_timer_count(struct lapic *a)
{
	uint64_t left = 0, count;

	if (apic_timer_mode(a) & LVT_TIMER_TSC)
		return 0;
	pthread_mutex_lock(&a->timer_lock);
	if (a->target && a->period)
		left = apic_timer_left(a, kvm_now_ns());
	pthread_mutex_unlock(&a->timer_lock);
	count = left / apic_timer_divisor(lapic_reg(a, LAPIC_TDCR));
	return (uint32_t)MIN(count, lapic_reg(a, LAPIC_TMICT));
}

void kvm_apic_timer_load(struct lapic *a, uint32_t current)
{
	uint32_t initial = lapic_reg(a, LAPIC_TMICT);

	/* A deadline comes with its MSR, afterwards. */
	if ((apic_timer_mode(a) & LVT_TIMER_TSC) || !initial)
		return;
	if (!current) {
		if (apic_timer_mode(a) != LVT_TIMER_PERIOD)
			return; /* has expired */
		current = initial;
	}
	pthread_mutex_lock(&a->timer_lock);
	a->period = apic_timer_length(a, initial);
	apic_timer_set(a, kvm_now_ns() + MIN(apic_timer_length(a, current), a->period));
	pthread_mutex_unlock(&a->timer_lock);
}

uint64_t kvm_lapic_get_tsc_deadline(struct vcpu *v)
{
	struct lapic *a = v->lapic;
	uint64_t deadline;

	if (!a || apic_timer_mode(a) != LVT_TIMER_TSC)
		return 0;
	pthread_mutex_lock(&a->timer_lock);
	deadline = a->tsc_deadline;
	pthread_mutex_unlock(&a->timer_lock);
	return deadline;
}

void kvm_lapic_set_tsc_deadline(struct vcpu *v, uint64_t value)
{
	struct lapic *a = v->lapic;

	if (!a || apic_timer_mode(a) != LVT_TIMER_TSC)
		return;
	pthread_mutex_lock(&a->timer_lock);
	a->target = 0;
	a->tsc_deadline = value;
	if (value)
		apic_timer_set_deadline(a);
	pthread_mutex_unlock(&a->timer_lock);
	if (!value)
		kvm_timer_cancel(v->vm, &a->timer);
}

void kvm_apic_timer_tsc_changed(struct lapic *a)
{
	pthread_mutex_lock(&a->timer_lock);
	if (a->tsc_deadline)
		apic_timer_set_deadline(a);
	pthread_mutex_unlock(&a->timer_lock);
}
