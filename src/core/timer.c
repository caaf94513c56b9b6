/*
 * Timers of the event loop: see loop.h. A binary heap by deadline; one timerfd wakes the loop for
 * the first. In virtual mode, and while the clock stands, the timerfd is off and deadlines are
 * compared with a clock that others move.
 */
#include <stdlib.h>
#include <sys/timerfd.h>

#include "base/bug.h"
#include "core/loop_priv.h"

static void timer_place(struct loop *l, size_t i, struct timer *t)
{
	l->heap[i] = t;
	t->at = (int)i;
}

static void timer_up(struct loop *l, size_t i)
{
	struct timer *t = l->heap[i];

	for (; i && l->heap[(i - 1) / 2]->deadline > t->deadline; i = (i - 1) / 2)
		timer_place(l, i, l->heap[(i - 1) / 2]);
	timer_place(l, i, t);
}

static void timer_down(struct loop *l, size_t i)
{
	struct timer *t = l->heap[i];
	size_t c;

	while ((c = 2 * i + 1) < l->n_timers) {
		if (c + 1 < l->n_timers && l->heap[c + 1]->deadline < l->heap[c]->deadline)
			c++;
		if (l->heap[c]->deadline >= t->deadline)
			break;
		timer_place(l, i, l->heap[c]);
		i = c;
	}
	timer_place(l, i, t);
}

static void timer_remove(struct loop *l, struct timer *t)
{
	size_t i = (size_t)t->at;
	struct timer *last = l->heap[--l->n_timers];

	t->at = -1;
	if (last == t)
		return;
	timer_place(l, i, last);
	timer_up(l, i);
	timer_down(l, (size_t)last->at);
}

void timer_init(struct timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct timer){ .loop = l, .fn = fn, .opaque = opaque, .at = -1 };
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	struct loop *l = t->loop;
	bool first;

	pthread_mutex_lock(&l->mutex);
	if (t->at >= 0)
		timer_remove(l, t);
	if (l->n_timers == l->cap_timers) {
		size_t cap = l->cap_timers ? 2 * l->cap_timers : 16;
		struct timer **h = realloc(l->heap, cap * sizeof(struct timer *));

		BUG_ON(!h); /* a machine has tens of timers */
		l->heap = h;
		l->cap_timers = cap;
	}
	t->deadline = deadline_ns;
	l->heap[l->n_timers] = t;
	timer_up(l, l->n_timers++);
	first = l->heap[0] == t;
	pthread_mutex_unlock(&l->mutex);
	if (first)
		loop_notify_others(l);
}

void timer_cancel(struct timer *t)
{
	if (!t->loop)
		return;
	pthread_mutex_lock(&t->loop->mutex);
	if (t->at >= 0)
		timer_remove(t->loop, t);
	pthread_mutex_unlock(&t->loop->mutex);
}

bool timer_armed(const struct timer *t)
{
	bool armed;

	if (!t->loop)
		return false;
	pthread_mutex_lock(&t->loop->mutex);
	armed = t->at >= 0;
	pthread_mutex_unlock(&t->loop->mutex);
	return armed;
}

void loop_clock_changed(struct loop *l)
{
	pthread_mutex_lock(&l->mutex);
	l->fd_deadline = 0;
	pthread_mutex_unlock(&l->mutex);
	loop_notify(l);
}

int loop_timers_wait(struct loop *l)
{
	struct itimerspec its = { 0 };
	uint64_t deadline, now, host;
	struct timespec ts;

	if (!l->n_timers)
		return -1; /* a timerfd that still goes off wakes us once for nothing */
	deadline = l->heap[0]->deadline;
	now = clock_now(l->clock);
	if (deadline <= now)
		return 0;
	if (l->clock->is_virtual || l->clock->stopped || l->fd_deadline == deadline)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	host = (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
	host = deadline - now > INT64_MAX - host ? INT64_MAX : host + (deadline - now);
	its.it_value.tv_sec = (time_t)(host / NS_PER_SEC);
	its.it_value.tv_nsec = (long)(host % NS_PER_SEC);
	if (timerfd_settime(l->timerfd, TFD_TIMER_ABSTIME, &its, NULL))
		return 1; /* never seen; a poll of one millisecond still serves the timers */
	l->fd_deadline = deadline;
	return -1;
}

bool loop_timers_next(struct loop *l, uint64_t *deadline)
{
	bool any;

	pthread_mutex_lock(&l->mutex);
	any = l->n_timers;
	*deadline = any ? l->heap[0]->deadline : 0;
	pthread_mutex_unlock(&l->mutex);
	return any;
}

bool loop_timers_dispatch(struct loop *l)
{
	uint64_t now = clock_now(l->clock);
	bool ran = false, again = true;
	size_t budget;

	/* now is read once and each timer has one turn: rearming for "now" must not starve the rest
	 */
	pthread_mutex_lock(&l->mutex);
	budget = l->n_timers;
	pthread_mutex_unlock(&l->mutex);
	while (again && budget--) {
		struct timer *t = NULL;

		if (l->lock)
			biglock_lock(l->lock);
		pthread_mutex_lock(&l->mutex);
		if (l->n_timers && l->heap[0]->deadline <= now && !l->clock->stopped) {
			t = l->heap[0];
			timer_remove(l, t);
			if (l->fd_deadline && l->fd_deadline <= now)
				l->fd_deadline = 0;
		}
		pthread_mutex_unlock(&l->mutex);
		if (t)
			t->fn(t->opaque);
		if (l->lock)
			biglock_unlock(l->lock);
		ran |= again = t;
	}
	return ran;
}

void loop_timers_forget(struct loop *l)
{
	for (size_t i = 0; i < l->n_timers; i++)
		l->heap[i]->at = -1;
	l->n_timers = 0;
}
