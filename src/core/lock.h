/*
 * The device lock: one mutex a machine, held around every device callback.
 *
 * A vCPU thread takes it in bus_io_* and bus_mem_*; the event loop takes it around each handler
 * (loop_set_lock). It is recursive, because a device may reach another device through the bus while
 * it handles an access itself. Whoever calls a device function directly (a monitor, a machine file)
 * takes it first. Order: this lock is taken before any other lock of core/ and never while one of
 * them is held; nothing blocks for long (disk, socket, another thread) while holding it.
 * Threads: any.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct biglock {
	pthread_mutex_t mutex;
	_Atomic int owner; /* thread id of the holder, 0: none */
	unsigned depth;    /* valid for the holder */
};

void biglock_init(struct biglock *l);
void biglock_destroy(struct biglock *l);
void biglock_lock(struct biglock *l);
void biglock_unlock(struct biglock *l);

/*
 * Let go of a lock held by the calling thread however often, and take it again as often: for a wait
 * for what other threads do under it. What the lock covers may have changed in between.
 */
unsigned biglock_suspend(struct biglock *l);
void biglock_resume(struct biglock *l, unsigned depth);

/* Does the calling thread hold it? For BUG_ON checks. */
bool biglock_held(const struct biglock *l);
