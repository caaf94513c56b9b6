/*
 * See loop.h: the loop itself, its fds and bottom halves. Timers are in timer.c.
 *
 * epoll events carry a slot number and a generation, not a pointer: an fd that another thread
 * removes (under the dispatch lock) between epoll_wait and the dispatch is recognised by its
 * generation. Locks: the dispatch lock covers slots; l->mutex (taken after it) covers bhs, timers
 * and the quit.
 */
#include "core/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/runner.h"
#include "core/loop_priv.h"
#include "core/thread.h"

#define LOOP_BATCH  64
#define LOOP_NOTIFY UINT64_MAX /* epoll data of the eventfd and of the timerfd */
#define LOOP_TIMER  (UINT64_MAX - 1)

struct loop *loop_new(struct clock *c, struct err *e)
{
	struct loop *l = calloc(1, sizeof(*l));
	struct epoll_event ev = { .events = EPOLLIN };

	if (!l) {
		err_set(e, ENOMEM, "event loop: out of memory");
		return NULL;
	}
	l->clock = c;
	pthread_mutex_init(&l->mutex, NULL);
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->notify = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	ev.data.u64 = LOOP_NOTIFY;
	if (l->epoll < 0 || l->notify < 0 || l->timerfd < 0 ||
	    epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->notify, &ev))
		goto fail;
	ev.data.u64 = LOOP_TIMER;
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timerfd, &ev))
		goto fail;
	return l;
fail:
	err_set(e, errno, "event loop: %s", strerror(errno));
	loop_free(l);
	return NULL;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	for (struct bh *b = l->bh_first, *n; b; b = n) {
		n = b->next;
		b->pending = false;
		if (b->fn == loop_call_run)
			free(b);
	}
	loop_timers_forget(l);
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->notify >= 0)
		close(l->notify);
	if (l->timerfd >= 0)
		close(l->timerfd);
	pthread_mutex_destroy(&l->mutex);
	free(l->slots);
	free(l->heap);
	free(l);
}

void loop_set_lock(struct loop *l, struct biglock *lock)
{
	l->lock = lock;
}

void loop_set_poll(struct loop *l, uint32_t ns)
{
	l->poll_ns = ns;
}

struct clock *loop_clock(struct loop *l)
{
	return l->clock;
}

void loop_notify(struct loop *l)
{
	uint64_t one = 1;

	if (write(l->notify, &one, sizeof(one)) < 0)
		return; /* full: it wakes anyway */
}

void loop_notify_others(struct loop *l)
{
	if (atomic_load_explicit(&l->stepping, memory_order_relaxed) != (uintptr_t)pthread_self())
		loop_notify(l);
}

void loop_quit(struct loop *l, int status)
{
	pthread_mutex_lock(&l->mutex);
	l->quit = true;
	l->status = status;
	pthread_mutex_unlock(&l->mutex);
	loop_notify(l);
}

static void loop_enter(struct loop *l)
{
	if (l->lock)
		biglock_lock(l->lock);
}

static void loop_leave(struct loop *l)
{
	if (l->lock)
		biglock_unlock(l->lock);
}

/* --- file descriptors --- */

static uint32_t loop_epoll_bits(unsigned events)
{
	return (events & LOOP_IN ? (uint32_t)EPOLLIN | EPOLLRDHUP : 0) |
	       (events & LOOP_HUP ? (uint32_t)EPOLLRDHUP : 0) |
	       (events & LOOP_OUT ? (uint32_t)EPOLLOUT : 0);
}

int loop_fd_add(struct loop *l, struct loop_fd *f, unsigned events, struct err *e)
{
	int i = 0;

	while (i < l->n_slots && l->slots[i].f)
		i++;
	if (i == l->n_slots) {
		int n = l->n_slots ? 2 * l->n_slots : 16;
		struct loop_slot *s = realloc(l->slots, (size_t)n * sizeof(*s));

		if (!s)
			return err_set(e, ENOMEM, "event loop: out of memory");
		memset(s + l->n_slots, 0, (size_t)(n - l->n_slots) * sizeof(*s));
		l->slots = s;
		l->n_slots = n;
	}
	if (fcntl(f->fd, F_GETFD) < 0)
		return err_set(e, errno, "event loop: fd %d: %s", f->fd, strerror(errno));
	l->slots[i].f = f;
	l->slots[i].gen++;
	l->slots[i].in_epoll = l->slots[i].always = false;
	f->slot = i + 1;
	f->events = 0;
	loop_fd_set(l, f, events);
	return 0;
}

void loop_fd_set(struct loop *l, struct loop_fd *f, unsigned events)
{
	struct loop_slot *s;
	struct epoll_event ev = { .events = loop_epoll_bits(events) };
	int op;

	BUG_ON(f->slot <= 0 || f->slot > l->n_slots);
	s = &l->slots[f->slot - 1];
	f->events = events;
	if (s->always) {
		loop_notify(l);
		return;
	}
	ev.data.u64 = (uint64_t)s->gen << 32 | (uint32_t)(f->slot - 1);
	if (!events) {
		/* out of the set altogether: a hang-up would be told, and spin, with no bits too */
		if (s->in_epoll)
			epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, &ev);
		s->in_epoll = false;
		return;
	}
	op = s->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (!epoll_ctl(l->epoll, op, f->fd, &ev)) {
		s->in_epoll = true;
	} else if (op == EPOLL_CTL_ADD && errno == EPERM) { /* a regular file */
		s->always = true;
		l->n_always++;
		loop_notify(l);
	}
}

void loop_fd_del(struct loop *l, struct loop_fd *f)
{
	struct loop_slot *s;

	if (f->slot <= 0 || f->slot > l->n_slots || l->slots[f->slot - 1].f != f)
		return;
	s = &l->slots[f->slot - 1];
	if (s->in_epoll)
		epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, &(struct epoll_event){ 0 });
	if (s->always)
		l->n_always--;
	s->f = NULL;
	s->gen++;
	s->in_epoll = s->always = false;
	f->slot = -1;
	f->events = 0;
}

static bool loop_fd_dispatch(struct loop *l, const struct epoll_event *ev)
{
	uint32_t i = (uint32_t)ev->data.u64, gen = (uint32_t)(ev->data.u64 >> 32);
	unsigned ready = 0;
	struct loop_fd *f;
	bool ran = false;

	if (ev->events & (EPOLLIN | EPOLLRDHUP | EPOLLPRI))
		ready |= LOOP_IN;
	if (ev->events & EPOLLOUT)
		ready |= LOOP_OUT;
	if (ev->events & (EPOLLHUP | EPOLLERR))
		ready |= LOOP_HUP | LOOP_IN | LOOP_OUT; /* a read or write will tell what it is */
	loop_enter(l);
	if (i < (uint32_t)l->n_slots && l->slots[i].gen == gen && l->slots[i].f) {
		f = l->slots[i].f;
		if (ev->events & EPOLLRDHUP)
			ready |= f->events & LOOP_HUP;
		ready &= f->events | LOOP_HUP; /* an earlier handler may have changed it */
		if (f->events && ready) {
			f->fn(f->opaque, ready);
			ran = true;
		}
	}
	loop_leave(l);
	return ran;
}

/* Files that are always ready. True also counts as "do not wait". */
static bool loop_always_dispatch(struct loop *l)
{
	bool ran = false;

	for (int i = 0; l->n_always && i < l->n_slots; i++) {
		loop_enter(l);
		if (i < l->n_slots && l->slots[i].f && l->slots[i].always &&
		    l->slots[i].f->events) {
			struct loop_fd *f = l->slots[i].f;

			f->fn(f->opaque, f->events & (LOOP_IN | LOOP_OUT));
			ran = true;
		}
		loop_leave(l);
	}
	return ran;
}

static bool loop_always_ready(struct loop *l)
{
	bool ready = false;

	loop_enter(l);
	for (int i = 0; l->n_always && i < l->n_slots; i++)
		ready |= l->slots[i].f && l->slots[i].always && l->slots[i].f->events;
	loop_leave(l);
	return ready;
}

/* --- bottom halves --- */

void bh_init(struct bh *b, struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	*b = (struct bh){ .loop = l, .fn = fn, .opaque = opaque };
}

void bh_schedule(struct bh *b)
{
	struct loop *l = b->loop;
	bool was;

	pthread_mutex_lock(&l->mutex);
	was = b->pending;
	if (!was) {
		b->pending = true;
		b->next = NULL;
		b->prev = l->bh_last;
		*(l->bh_last ? &l->bh_last->next : &l->bh_first) = b;
		l->bh_last = b;
	}
	pthread_mutex_unlock(&l->mutex);
	if (!was)
		loop_notify_others(l);
}

static void bh_unlink(struct loop *l, struct bh *b)
{
	*(b->prev ? &b->prev->next : &l->bh_first) = b->next;
	*(b->next ? &b->next->prev : &l->bh_last) = b->prev;
	b->pending = false;
}

void bh_cancel(struct bh *b)
{
	if (!b->loop)
		return;
	pthread_mutex_lock(&b->loop->mutex);
	if (b->pending)
		bh_unlink(b->loop, b);
	pthread_mutex_unlock(&b->loop->mutex);
}

struct loop_call {
	struct bh bh; /* first: loop_free frees it through this */
	void (*fn)(void *opaque);
	void *opaque;
};

void loop_call_run(void *opaque)
{
	struct loop_call *c = opaque;

	c->fn(c->opaque);
	free(c);
}

void loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
	struct loop_call *c = malloc(sizeof(*c));

	BUG_ON(!c); /* a few bytes on behalf of ourselves */
	c->fn = fn;
	c->opaque = opaque;
	bh_init(&c->bh, l, loop_call_run, c);
	bh_schedule(&c->bh);
}

/* Those that are pending now; one scheduled by a handler waits for the next round (fairness). */
static bool loop_bh_dispatch(struct loop *l)
{
	struct bh *last, *b;
	bool ran = false, end = false;

	pthread_mutex_lock(&l->mutex);
	last = l->bh_last;
	pthread_mutex_unlock(&l->mutex);
	while (last && !end) {
		loop_enter(l);
		pthread_mutex_lock(&l->mutex);
		b = l->bh_first;
		end = !b || b == last;
		if (b)
			bh_unlink(l, b);
		pthread_mutex_unlock(&l->mutex);
		if (b) {
			b->fn(b->opaque);
			ran = true;
		}
		loop_leave(l);
	}
	return ran;
}

/* --- rounds --- */

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
	struct loop_hook *p = l->hooks;

	h->next = NULL;
	while (p && p->next)
		p = p->next;
	if (p)
		p->next = h;
	else
		l->hooks = h;
}

void loop_hook_del(struct loop *l, struct loop_hook *h)
{
	struct loop_hook *p = l->hooks;

	if (p == h) {
		l->hooks = h->next;
		return;
	}
	while (p && p->next != h)
		p = p->next;
	if (p)
		p->next = h->next;
}

static bool loop_hooks_run(struct loop *l)
{
	bool ran = false;

	if (!l->hooks)
		return false;
	loop_enter(l);
	for (struct loop_hook *h = l->hooks, *n; h; h = n) {
		n = h->next;
		ran |= h->fn(h->opaque);
	}
	loop_leave(l);
	return ran;
}

bool loop_is_mine(struct loop *l)
{
	int tid = l->tid;

	return !tid || tid == thread_id();
}

/* epoll_wait without a time limit, after a moment of polling when such moments have been worth it.
 */
static int loop_sleep(struct loop *l, struct epoll_event *ev)
{
	bool poll;
	int n = 0;

	l->poll.window = l->poll_ns;
	poll = busypoll_start(&l->poll);
	while (poll && !n) {
		n = epoll_wait(l->epoll, ev, LOOP_BATCH, 0);
		poll = n || busypoll_turn(&l->poll);
	}
	if (!n) {
		runner_asleep(true);
		n = epoll_wait(l->epoll, ev, LOOP_BATCH, -1);
		runner_asleep(false);
	}
	busypoll_learn(&l->poll);
	return n;
}

bool loop_step(struct loop *l, bool block)
{
	struct epoll_event ev[LOOP_BATCH];
	uint64_t drain;
	uintptr_t outer = l->stepping;
	bool ran = false;
	int n, timeout;

	/* a handler may call loop_step; then it is still this thread when the inner one ends */
	l->stepping = (uintptr_t)pthread_self();

	if (outer)
		runner_gone();
	l->tid = thread_id();
	pthread_mutex_lock(&l->mutex);
	timeout = !block || l->bh_first || l->quit ? 0 : loop_timers_wait(l);
	pthread_mutex_unlock(&l->mutex);
	if (timeout && loop_always_ready(l))
		timeout = 0;
	n = timeout < 0 ? loop_sleep(l, ev) : epoll_wait(l->epoll, ev, LOOP_BATCH, timeout);
	if (l->poll_ns)
		runner_apart();
	runner_here();
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u64 == LOOP_NOTIFY)
			drain = read(l->notify, &drain, sizeof(drain)) > 0;
		else if (ev[i].data.u64 == LOOP_TIMER)
			drain = read(l->timerfd, &drain, sizeof(drain)) > 0;
		else
			ran |= loop_fd_dispatch(l, &ev[i]);
	}
	ran |= loop_always_dispatch(l);
	ran |= loop_timers_dispatch(l);
	ran |= loop_bh_dispatch(l);
	ran |= loop_hooks_run(l);
	l->stepping = outer;
	if (!outer)
		runner_gone();
	return ran;
}

int loop_run(struct loop *l)
{
	for (;;) {
		pthread_mutex_lock(&l->mutex);
		if (l->quit) {
			int status = l->status;

			l->quit = false;
			pthread_mutex_unlock(&l->mutex);
			return status;
		}
		pthread_mutex_unlock(&l->mutex);
		loop_step(l, true);
	}
}

void loop_advance(struct loop *l, uint64_t ns)
{
	uint64_t end, next;

	BUG_ON(!l->clock->is_virtual);
	end = clock_now(l->clock) + ns;
	for (;;) {
		while (loop_step(l, false))
			;
		if (!loop_timers_next(l, &next) || next > end)
			break;
		clock_advance(l->clock, next - clock_now(l->clock));
	}
	clock_advance(l->clock, end - clock_now(l->clock));
	while (loop_step(l, false))
		;
}
