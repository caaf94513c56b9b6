/*
 * Inside of the event loop, shared by loop.c and timer.c. Threads: see loop.h.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/busypoll.h"
#include "core/loop.h"

struct loop_slot {
	struct loop_fd *f; /* NULL: free */
	uint32_t gen;      /* changes with each use of the slot */
	bool in_epoll;
	bool always; /* epoll refused it: counts as ready whenever it is watched */
};

struct loop {
	struct clock *clock;
	struct biglock *lock;
	int epoll, notify, timerfd;
	struct busypoll poll;
	_Atomic uint32_t poll_ns; /* its window */
	_Atomic int tid; /* of the thread that served it last, 0: none */

	struct loop_slot *slots;
	int n_slots, n_always;
	struct loop_hook *_Atomic hooks;

	/*
	 * The thread that is inside of loop_step, 0: nobody. That one need not be woken: it looks
	 * at bhs and timers again before it waits.
	 */
	_Atomic uintptr_t stepping;

	pthread_mutex_t mutex; /* covers all below */
	bool quit;
	int status;
	struct bh *bh_first, *bh_last;
	struct timer **heap; /* binary heap by deadline */
	size_t n_timers, cap_timers;
	uint64_t fd_deadline; /* what timerfd is set to, clock ns; 0: not set */
};

/* The fn of loop_call's bottom halves: loop_free frees those that never ran. */
void loop_call_run(void *opaque);

/* With the mutex: set the timerfd for the first deadline; the timeout for epoll_wait (0 or -1). */
int loop_timers_wait(struct loop *l);

/* Run what is due. True when any ran. */
bool loop_timers_dispatch(struct loop *l);

/* The first deadline. False: none armed. */
bool loop_timers_next(struct loop *l, uint64_t *deadline);

/* The loop goes away. */
void loop_timers_forget(struct loop *l);
