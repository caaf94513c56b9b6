/*
 * The event loop: file descriptors, timers and bottom halves of one thread.
 *
 * Every machine has one, run by the main thread. Nothing in it blocks: what has no non-blocking
 * form goes to core/worker.h. Handlers run one at a time on the thread that calls loop_run(), each
 * with the dispatch lock (loop_set_lock) held, so device code sees one world whether it is entered
 * from a vCPU or from here; after a del/cancel done under that lock the handler does not run any
 * more.
 *
 * Signals are not caught here: main/ writes to an eventfd in its handlers and registers that.
 *
 * Threads: loop_quit, loop_call, loop_notify, bh_schedule, timer_arm and timer_cancel: any thread.
 * loop_fd_*: the loop's thread, or any thread that holds the dispatch lock. The rest: one thread.
 * Time: timers use the loop's clock (host or virtual). Host resources: an epoll, eventfd, timerfd.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/clock.h"
#include "core/lock.h"

struct loop;

/* What an fd is watched for, and what a handler is told. */
enum {
	LOOP_IN = 1,  /* readable, or at end of file */
	LOOP_OUT = 2, /* writable */
	LOOP_HUP = 4, /* the peer is gone or the fd is broken; told without asking, but when it
		       * is asked for, then also for a socket whose peer will send no more */
};

/* Embedded in its user; lives until loop_fd_del(). */
struct loop_fd {
	void (*fn)(void *opaque, unsigned ready);
	void *opaque;
	int fd;
	unsigned events; /* set by loop_fd_add and loop_fd_set */
	int slot;        /* private to the loop */
};

struct timer {
	struct loop *loop;
	void (*fn)(void *opaque);
	void *opaque;
	uint64_t deadline; /* ns of the loop's clock, valid while armed */
	int at;            /* private: place in the heap, -1 when not armed */
};

struct bh {
	struct loop *loop;
	void (*fn)(void *opaque);
	void *opaque;
	struct bh *next, *prev; /* private: the pending list */
	bool pending;
};

/* Called at the end of each round; see loop_hook_add. */
struct loop_hook {
	bool (*fn)(void *opaque); /* true: it did something that counts as a handler's work */
	void *opaque;
	struct loop_hook *next; /* private */
};

/* The clock is borrowed and must outlive the loop. NULL and e filled when the host refuses. */
struct loop *loop_new(struct clock *c, struct err *e);

/* No handler may be running. Timers, fds and bhs that are still registered are forgotten. */
void loop_free(struct loop *l);

/* Hold this lock around every handler from now on (NULL: none). Before loop_run. */
void loop_set_lock(struct loop *l, struct biglock *lock);

/*
 * Before the loop sleeps, look for events for up to ns nanoseconds without sleeping, while such
 * looking finds some often enough (base/busypoll.h). 0, the default: sleep at once. Any thread.
 */
void loop_set_poll(struct loop *l, uint32_t ns);

struct clock *loop_clock(struct loop *l);

/* Serve until loop_quit(). Returns the value given to it. A quit that came earlier counts. */
int loop_run(struct loop *l);

/* Does the calling thread serve this loop, or has nobody served it yet? */
bool loop_is_mine(struct loop *l);

/* One round: wait (only if block) and run what is ready. True when any handler ran. */
bool loop_step(struct loop *l, bool block);

/*
 * Virtual clock only: move time on by ns, stopping at each deadline in between so that every timer
 * handler sees the clock at its own deadline; fds and bhs are served too, without waiting.
 */
void loop_advance(struct loop *l, uint64_t ns);

/* Make loop_run return status. Any thread, not a signal handler. */
void loop_quit(struct loop *l, int status);

/* Wake the loop from its wait. Any thread. */
void loop_notify(struct loop *l);

/* The same, unless it is the calling thread that is inside of loop_step: that looks by itself. */
void loop_notify_others(struct loop *l);

/* The clock was stopped, started or set: look at the deadlines again. Any thread. */
void loop_clock_changed(struct loop *l);

/*
 * Watch f->fd (f->fn, f->opaque and f->fd are set by the caller) for events; 0 only reserves it.
 * Regular files, which epoll refuses, count as always ready. Level-triggered. The fd stays the
 * caller's and is closed by it after loop_fd_del. 0 or -errno.
 */
int loop_fd_add(struct loop *l, struct loop_fd *f, unsigned events, struct err *e) must_check;

/* Change what is watched. With 0 not even LOOP_HUP is told. */
void loop_fd_set(struct loop *l, struct loop_fd *f, unsigned events);

/* Stop watching. Harmless on a struct that was never added if its slot is -1 or it is all zero. */
void loop_fd_del(struct loop *l, struct loop_fd *f);

/* fn(opaque) runs once when the clock reaches the deadline; it may arm the timer again. */
void timer_init(struct timer *t, struct loop *l, void (*fn)(void *opaque), void *opaque);

/* (Re)arm. A deadline in the past runs at the next round. */
void timer_arm(struct timer *t, uint64_t deadline_ns);

/* Not an error when it is not armed. Before the timer's memory goes away, under the dispatch lock.
 */
void timer_cancel(struct timer *t);
bool timer_armed(const struct timer *t);

/*
 * Call h->fn(h->opaque) after all handlers of each round: for what is cheaper done once for all of
 * them (submitting I/O, one interrupt for many requests). Whoever leaves work for a hook calls
 * loop_notify_others, in case it is not one of the loop's handlers. Hooks run in the order in which
 * they were added: a device's after that of the engine whose completions it waits for. h->fn and
 * h->opaque are set by the caller. The loop's thread, or under the dispatch lock.
 */
void loop_hook_add(struct loop *l, struct loop_hook *h);
void loop_hook_del(struct loop *l, struct loop_hook *h); /* unknown ones are ignored */

/* A bottom half: fn(opaque) runs once in the loop after bh_schedule, however often it was called.
 */
void bh_init(struct bh *b, struct loop *l, void (*fn)(void *opaque), void *opaque);
void bh_schedule(struct bh *b);
void bh_cancel(struct bh *b);

/* Run fn(opaque) once in the loop. Allocates; for rare things (a request from a signal thread). */
void loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque);
