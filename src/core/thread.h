/*
 * Start a helper thread (worker, writer): one that takes no signals but those of its own faults,
 * so that terminal and termination signals stay with the main thread. vCPU threads are different.
 * Threads: any.
 */
#pragma once
#include <pthread.h>

/* 0 or a positive errno, as pthread_create. */
int thread_start(pthread_t *t, void *(*fn)(void *opaque), void *opaque);

/* The kernel's id of the calling thread; cheap after the first call of a thread. */
int thread_id(void);
