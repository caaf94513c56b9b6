/*
 * I/O threads: an event loop of its own thread, for devices that shall not share the main one.
 *
 * Handlers of the loop run with the thread's own dispatch lock instead of the device lock, so they
 * do not wait for vCPUs that are in some device, and must not touch other devices. The order of
 * locks: the device lock first, then this one; a handler here never takes the device lock (what
 * needs it goes to the main loop by a bottom half).
 * Threads: new and free: the main thread. Host resources: one thread and what a loop has.
 */
#pragma once
#include <pthread.h>

#include "base/err.h"
#include "core/loop.h"

struct iothread {
	struct clock *clock;
	struct loop *loop;
	struct biglock lock; /* held around every handler of the loop */
	pthread_t thread;
	char *id;
};

/* Start one; the clock is borrowed. NULL and e on failure. */
struct iothread *iothread_new(const char *id, struct clock *c, struct err *e);

/* Nothing may be registered in its loop any more. NULL is allowed. */
void iothread_free(struct iothread *t);
