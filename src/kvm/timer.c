/*
 * Timers of a VM: a binary heap and one thread, started at the first kvm_timer_arm.
 *
 * Modelled:     absolute one-shot timers on CLOCK_MONOTONIC; re-arming from the callback.
 * Not modelled: slack, CPU placement.
 * References:   none.
 * Threads:      any. timers->lock is a leaf: no callback runs under it, nothing else is taken in
 * it. Host resources: one thread for each VM that has armed a timer.
 */
#include "kvm/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "kvm/hostsig.h"

struct kvm_timers {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* the thread: an earlier deadline, or stop */
	pthread_cond_t done; /* cancellers: a callback has returned */
	struct kvm_timer **heap;
	unsigned n, cap;
	uint64_t sleeping_until;   /* what the thread waits for; 0 while it is awake */
	struct kvm_timer *current; /* whose callback is running */
	bool started, stop;
	pthread_t thread;
};

uint64_t kvm_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void kvm_timer_init(struct kvm_timer *t, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct kvm_timer){ .fn = fn, .opaque = opaque, .heap_index = -1 };
}

static void timer_place(struct kvm_timers *ts, unsigned i, struct kvm_timer *t)
{
	ts->heap[i] = t;
	t->heap_index = (int)i;
}

/* Restore the heap order at i after its deadline changed in either direction. */
static void timer_sift(struct kvm_timers *ts, unsigned i)
{
	struct kvm_timer *t = ts->heap[i];

	while (i > 0 && ts->heap[(i - 1) / 2]->deadline > t->deadline) {
		timer_place(ts, i, ts->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		unsigned c = 2 * i + 1;

		if (c + 1 < ts->n && ts->heap[c + 1]->deadline < ts->heap[c]->deadline)
			c++;
		if (c >= ts->n || ts->heap[c]->deadline >= t->deadline)
			break;
		timer_place(ts, i, ts->heap[c]);
		i = c;
	}
	timer_place(ts, i, t);
}

static void timer_remove(struct kvm_timers *ts, struct kvm_timer *t)
{
	unsigned i = (unsigned)t->heap_index;
	struct kvm_timer *last = ts->heap[--ts->n];

	t->heap_index = -1;
	t->deadline = 0;
	if (last != t) {
		timer_place(ts, i, last);
		timer_sift(ts, i);
	}
}

static void timer_sleep(struct kvm_timers *ts)
{
	if (!ts->n) {
		ts->sleeping_until = UINT64_MAX;
		pthread_cond_wait(&ts->wake, &ts->lock);
	} else {
		struct timespec until = { (time_t)(ts->heap[0]->deadline / 1000000000),
					  (long)(ts->heap[0]->deadline % 1000000000) };

		ts->sleeping_until = ts->heap[0]->deadline;
		pthread_cond_timedwait(&ts->wake, &ts->lock, &until);
	}
	ts->sleeping_until = 0;
}

static void *timer_thread(void *arg)
{
	struct kvm_timers *ts = arg;

	pthread_mutex_lock(&ts->lock);
	while (!ts->stop) {
		struct kvm_timer *t = ts->n ? ts->heap[0] : NULL;

		if (!t || t->deadline > kvm_now_ns()) {
			timer_sleep(ts);
			continue;
		}
		timer_remove(ts, t);
		ts->current = t;
		t->running = true;
		pthread_mutex_unlock(&ts->lock);
		t->fn(t->opaque);
		pthread_mutex_lock(&ts->lock);
		/* Only fn itself or a canceller that waited may have freed t: then current is gone.
		 */
		if (ts->current == t)
			t->running = false;
		ts->current = NULL;
		pthread_cond_broadcast(&ts->done);
	}
	pthread_mutex_unlock(&ts->lock);
	return NULL;
}

int kvm_timers_create(struct kvm_vm *vm)
{
	struct kvm_timers *ts = calloc(1, sizeof(*ts));
	pthread_condattr_t attr;

	if (!ts)
		return -ENOMEM;
	pthread_mutex_init(&ts->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ts->wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&ts->done, NULL);
	vm->timers = ts;
	return 0;
}

void kvm_timers_stop(struct kvm_vm *vm)
{
	struct kvm_timers *ts = vm->timers;

	if (!ts)
		return;
	pthread_mutex_lock(&ts->lock);
	ts->stop = true;
	pthread_cond_signal(&ts->wake);
	pthread_mutex_unlock(&ts->lock);
	if (ts->started)
		pthread_join(ts->thread, NULL);
	ts->started = false;
}

void kvm_timers_free(struct kvm_vm *vm)
{
	struct kvm_timers *ts = vm->timers;

	if (!ts)
		return;
	kvm_timers_stop(vm);
	pthread_mutex_destroy(&ts->lock);
	pthread_cond_destroy(&ts->wake);
	pthread_cond_destroy(&ts->done);
	free(ts->heap);
	free(ts);
	vm->timers = NULL;
}

void kvm_timer_arm(struct kvm_vm *vm, struct kvm_timer *t, uint64_t deadline)
{
	struct kvm_timers *ts = vm->timers;

	pthread_mutex_lock(&ts->lock);
	if (ts->stop)
		goto out;
	if (!ts->started) {
		/* A host without threads left loses timers: the guest stalls, nothing breaks. */
		if (hostsig_thread(&ts->thread, timer_thread, ts))
			goto out;
		ts->started = true;
	}
	if (t->heap_index < 0) {
		if (ts->n == ts->cap) {
			unsigned cap = ts->cap ? 2 * ts->cap : 16;
			struct kvm_timer **heap = realloc(ts->heap, cap * sizeof(*heap));

			if (!heap)
				goto out;
			ts->heap = heap;
			ts->cap = cap;
		}
		timer_place(ts, ts->n++, t);
	}
	t->deadline = deadline ? deadline : 1; /* 0 says "not queued" */
	timer_sift(ts, (unsigned)t->heap_index);
	if (ts->heap[0]->deadline < ts->sleeping_until)
		pthread_cond_signal(&ts->wake);
out:
	pthread_mutex_unlock(&ts->lock);
}

void kvm_timer_cancel(struct kvm_vm *vm, struct kvm_timer *t)
{
	struct kvm_timers *ts = vm->timers;

	pthread_mutex_lock(&ts->lock);
	for (;;) {
		if (t->heap_index >= 0)
			timer_remove(ts, t);
		if (ts->current != t || (ts->started && pthread_equal(ts->thread, pthread_self())))
			break;
		/* The callback may re-arm before it returns: look again. */
		pthread_cond_wait(&ts->done, &ts->lock);
	}
	if (ts->current == t)
		ts->current = NULL; /* cancelled from its own callback: t may now be freed */
	pthread_mutex_unlock(&ts->lock);
}
