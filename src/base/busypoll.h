/*
 * Busy polling before a wait: to look again and again for a moment before a thread sleeps, since to
 * be woken costs more (5 to 30 microseconds on the hosts seen, more where the processor itself
 * sleeps) than many things last that a virtual machine waits for.
 *
 * Whether the moment is worth it is learnt from the waits themselves: each one's length is told to
 * busypoll_learn, polled or not, and while at least a quarter of the last ones (exponentially
 * weighted, over about 16) was shorter than the window, the next ones poll. An idle thread's waits
 * are long: it does not poll. Not chosen: a window that grows and shrinks as KVM's halt_poll_ns
 * does; a thread whose waits are short and long by turns (a kick, then the disk) never gets one.
 *
 * Other threads come first: nobody polls on a processor where another thread of ours works
 * (base/runner.h); each turn ends in sched_yield, and when that does not come back at once,
 * somebody else wanted the processor and the poll is over.
 *
 * Threads: a struct busypoll belongs to the one that waits.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct busypoll {
	uint64_t window;      /* ns, 0: never poll. Set by the owner. */
	uint64_t start, turn; /* of this poll, of its last turn (CLOCK_MONOTONIC, ns) */
	unsigned score;       /* 0 to 1024: share of waits shorter than the window */
};

/* The wait begins. True: poll, with busypoll_turn between the looks. */
bool busypoll_start(struct busypoll *p);

/* After each look that found nothing. False: stop, and sleep. */
bool busypoll_turn(struct busypoll *p);

/* The wait that began with busypoll_start is over. */
void busypoll_learn(struct busypoll *p);

/* Processors that this thread may run on, at least 1. */
unsigned busypoll_processors(void);
