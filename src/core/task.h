/*
 * Tasks: code that waits without blocking its thread. A task is a coroutine (base/coro.h) bound to
 * one event loop: it runs on the loop's thread, and where it must wait (a disk, a lock, a worker)
 * it gives the thread back and goes on later from a handler of the loop.
 *
 * So the block layer is written as straight code, no two tasks of a loop run at the same time, and
 * shared data changes only where a task waits. A "task function" may wait and must be called from
 * a task; its name has _co in it. Stacks are pooled; they have 512 KiB (used pages only are
 * memory) and a guard page: no large locals.
 * Threads: everything here on the loop's thread, except task_wake_remote.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "core/loop.h"

struct task;
struct tasks; /* the tasks of one loop: pool of stacks, worker threads */
struct workers;

/* workers: for task_co_work; borrowed, may be NULL. NULL and e on failure. */
struct tasks *tasks_new(struct loop *l, struct workers *w, struct err *e);

/* No task may be left. */
void tasks_free(struct tasks *ts);
struct loop *tasks_loop(struct tasks *ts);

/*
 * Start fn(arg) as a task. It runs at once, until it first waits, when the caller is no task;
 * from within a task it starts as soon as that one waits. 0 or -ENOMEM.
 */
int task_start(struct tasks *ts, void (*fn)(void *arg), void *arg) must_check;

/* The running task, NULL outside of tasks. */
struct task *task_self(void);

/* Wait until task_wake(self). A wake that came since the last wait makes it return at once. */
void task_co_wait(void);

/* Make a waiting task go on: at once outside of tasks, else when the running task waits. */
void task_wake(struct task *t);

/* The same from any thread; it goes on in a handler of its loop. */
void task_wake_remote(struct task *t);

/* Run fn(arg) on a worker thread; without workers, here. */
void task_co_work(void (*fn)(void *arg), void *arg);

/* Sleep for ns of the loop's clock. */
void task_co_sleep(struct tasks *ts, uint64_t ns);

/* Run fn(arg) as a task and serve the loop until it has ended. Not from a task. 0 or -ENOMEM. */
int tasks_run(struct tasks *ts, void (*fn)(void *arg), void *arg) must_check;

/* A lock between tasks of one loop, first come, first served. All zero is unlocked. */
struct task_mutex {
	struct task *owner;
	struct task_waiter *first, **end; /* private */
};
void task_co_lock(struct task_mutex *m);
void task_unlock(struct task_mutex *m);

/* A queue of tasks that wait for a condition which they check themselves. All zero is empty. */
struct task_queue {
	struct task_waiter *first, **end; /* private */
};
void task_co_queue(struct task_queue *q);   /* wait in it */
bool task_queue_wake(struct task_queue *q); /* the first; false: nobody waits */
void task_queue_wake_all(struct task_queue *q);
