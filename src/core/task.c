/*
 * See task.h. A task's coroutine runs tasks one after the other: when one has ended, the coroutine
 * goes to the pool with its stack. Every switch is between the loop's own stack and a task, so the
 * depth never grows: a task that wakes another one puts it into a list that whoever resumed the
 * first serves next.
 */
#include "core/task.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/bug.h"
#include "base/coro.h"
#include "base/sanitize.h"
#include "core/worker.h"

#ifdef SANITIZED
#define TASK_STACK (2048 * 1024) /* frames are many times larger */
#else
#define TASK_STACK (512 * 1024) /* a chain of 200 images needs 100 KiB of it */
#endif
#define TASK_POOL_MAX 64 /* stacks kept */

enum task_state { TASK_READY, TASK_RUNNING, TASK_WAITING, TASK_ENDED };

struct task {
	struct tasks *ts;
	struct coro *co;
	void (*fn)(void *arg);
	void *arg;
	enum task_state state;
	bool woken;         /* a wake came while it was not waiting */
	struct task *next;  /* ready list or pool */
	bool remote;        /* in the remote list; covered by the mutex, as the next */
	struct task *rnext; /* remote list */
};

struct tasks {
	struct loop *loop;
	struct workers *workers;
	struct task *pool;
	unsigned n_pool, n_live;
	struct task *ready, **ready_end;
	pthread_mutex_t mutex; /* covers remote */
	struct task *remote, **remote_end;
	struct bh bh;
};

static _Thread_local struct task *task_running;

/* Not inline: a task may go on in another thread than before (a loop changes hands at start). */
__attribute__((noinline)) struct task *task_self(void)
{
	return task_running;
}

static __attribute__((noinline)) void task_set_running(struct task *t)
{
	task_running = t;
}

static void task_main(void *arg)
{
	struct task *t = arg;

	for (;;) {
		t->fn(t->arg);
		t->state = TASK_ENDED;
		coro_yield(t->co);
	}
}

static void task_destroy(struct task *t)
{
	coro_free(t->co);
	free(t);
}

static void task_resume(struct task *t)
{
	struct tasks *ts = t->ts;

	t->state = TASK_RUNNING;
	task_set_running(t);
	coro_resume(t->co);
	task_set_running(NULL);
	if (t->state != TASK_ENDED)
		return;
	ts->n_live--;
	if (ts->n_pool < TASK_POOL_MAX) {
		t->next = ts->pool;
		ts->pool = t;
		ts->n_pool++;
	} else {
		task_destroy(t);
	}
}

static void task_make_ready(struct task *t)
{
	struct tasks *ts = t->ts;

	t->state = TASK_READY;
	t->next = NULL;
	*ts->ready_end = t;
	ts->ready_end = &t->next;
}

/* Outside of tasks: run t, and what it and its followers make ready. */
static void task_run(struct task *t)
{
	struct tasks *ts = t->ts;

	task_resume(t);
	while ((t = ts->ready)) {
		if (!(ts->ready = t->next))
			ts->ready_end = &ts->ready;
		task_resume(t);
	}
}

static void tasks_remote(void *opaque)
{
	struct tasks *ts = opaque;

	for (;;) {
		struct task *t;

		pthread_mutex_lock(&ts->mutex);
		t = ts->remote;
		if (t) {
			if (!(ts->remote = t->rnext))
				ts->remote_end = &ts->remote;
			t->remote = false;
		}
		pthread_mutex_unlock(&ts->mutex);
		if (!t)
			return;
		task_wake(t);
	}
}

struct tasks *tasks_new(struct loop *l, struct workers *w, struct err *e)
{
	struct tasks *ts = calloc(1, sizeof(*ts));

	if (!ts) {
		err_set(e, ENOMEM, "tasks: out of memory");
		return NULL;
	}
	ts->loop = l;
	ts->workers = w;
	ts->ready_end = &ts->ready;
	ts->remote_end = &ts->remote;
	pthread_mutex_init(&ts->mutex, NULL);
	bh_init(&ts->bh, l, tasks_remote, ts);
	return ts;
}

void tasks_free(struct tasks *ts)
{
	if (!ts)
		return;
	BUG_ON(ts->n_live);
	bh_cancel(&ts->bh);
	while (ts->pool) {
		struct task *t = ts->pool;

		ts->pool = t->next;
		task_destroy(t);
	}
	pthread_mutex_destroy(&ts->mutex);
	free(ts);
}

struct loop *tasks_loop(struct tasks *ts)
{
	return ts->loop;
}

int task_start(struct tasks *ts, void (*fn)(void *arg), void *arg)
{
	struct task *t = ts->pool;

	if (t) {
		ts->pool = t->next;
		ts->n_pool--;
	} else {
		t = calloc(1, sizeof(*t));
		if (!t)
			return -ENOMEM;
		t->ts = ts;
		if (coro_new(&t->co, TASK_STACK, task_main, t, NULL)) {
			free(t);
			return -ENOMEM;
		}
	}
	t->fn = fn;
	t->arg = arg;
	t->woken = false;
	ts->n_live++;
	if (task_self())
		task_make_ready(t);
	else
		task_run(t);
	return 0;
}

void task_co_wait(void)
{
	struct task *t = task_self();

	BUG_ON(!t);
	if (!t->woken) {
		t->state = TASK_WAITING;
		coro_yield(t->co);
	}
	t->woken = false;
}

void task_wake(struct task *t)
{
	if (t->state != TASK_WAITING)
		t->woken = true;
	else if (task_self())
		task_make_ready(t);
	else
		task_run(t);
}

void task_wake_remote(struct task *t)
{
	struct tasks *ts = t->ts;

	pthread_mutex_lock(&ts->mutex);
	if (!t->remote) {
		t->remote = true;
		t->rnext = NULL;
		*ts->remote_end = t;
		ts->remote_end = &t->rnext;
		bh_schedule(&ts->bh);
	}
	pthread_mutex_unlock(&ts->mutex);
}

struct task_work {
	struct work work;
	struct task *task;
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void task_work_fn(struct work *w)
{
	struct task_work *tw = container_of(w, struct task_work, work);

	tw->fn(tw->arg);
}

static void task_work_done(struct work *w)
{
	struct task_work *tw = container_of(w, struct task_work, work);

	tw->done = true;
	task_wake(tw->task);
}

void task_co_work(void (*fn)(void *arg), void *arg)
{
	struct task_work tw = { .work = { .fn = task_work_fn, .done = task_work_done },
				.task = task_self(),
				.fn = fn,
				.arg = arg };

	BUG_ON(!tw.task);
	if (!tw.task->ts->workers) {
		fn(arg);
		return;
	}
	workers_submit(tw.task->ts->workers, &tw.work);
	while (!tw.done)
		task_co_wait();
	if (tw.work.cancelled)
		fn(arg); /* the workers go away: it must happen all the same */
}

struct task_nap {
	struct timer timer;
	struct task *task;
	bool done;
};

static void task_nap_over(void *opaque)
{
	struct task_nap *n = opaque;

	n->done = true;
	task_wake(n->task);
}

void task_co_sleep(struct tasks *ts, uint64_t ns)
{
	struct task_nap n = { .task = task_self() };

	BUG_ON(!n.task);
	timer_init(&n.timer, ts->loop, task_nap_over, &n);
	timer_arm(&n.timer, clock_now(loop_clock(ts->loop)) + ns);
	while (!n.done)
		task_co_wait();
}

struct task_whole {
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void task_whole_run(void *arg)
{
	struct task_whole *w = arg;

	w->fn(w->arg);
	w->done = true;
}

int tasks_run(struct tasks *ts, void (*fn)(void *arg), void *arg)
{
	struct task_whole w = { .fn = fn, .arg = arg };
	int rc;

	BUG_ON(task_self());
	rc = task_start(ts, task_whole_run, &w);
	while (rc == 0 && !w.done)
		loop_step(ts->loop, true);
	return rc;
}

struct task_waiter {
	struct task *task;
	bool called;
	struct task_waiter *next;
};

/*
 * The lists are all zero when empty, so ->end is only valid while there is a first. Not inline: gcc
 * would warn of a pointer to a local variable that stays behind, but the caller takes it out again.
 */
static __attribute__((noinline)) void
task_waiter_add(struct task_waiter **first, struct task_waiter ***end, struct task_waiter *w)
{
	*(*first ? *end : first) = w;
	*end = &w->next;
}

void task_co_lock(struct task_mutex *m)
{
	struct task_waiter w = { .task = task_self() };

	BUG_ON(!w.task || m->owner == w.task);
	if (!m->owner) {
		m->owner = w.task;
		return;
	}
	task_waiter_add(&m->first, &m->end, &w);
	while (!w.called)
		task_co_wait();
}

void task_unlock(struct task_mutex *m)
{
	struct task_waiter *w = m->first;

	BUG_ON(!m->owner || m->owner != task_self());
	m->owner = NULL;
	if (!w)
		return;
	/* handed over, so nobody else comes in between */
	m->first = w->next;
	m->owner = w->task;
	w->called = true;
	task_wake(w->task);
}

void task_co_queue(struct task_queue *q)
{
	struct task_waiter w = { .task = task_self() };

	BUG_ON(!w.task);
	task_waiter_add(&q->first, &q->end, &w);
	while (!w.called)
		task_co_wait();
}

bool task_queue_wake(struct task_queue *q)
{
	struct task_waiter *w = q->first;

	if (!w)
		return false;
	q->first = w->next;
	w->called = true;
	task_wake(w->task);
	return true;
}

void task_queue_wake_all(struct task_queue *q)
{
	struct task_waiter *w = q->first, *n;

	/* those that were waiting, not those that come back at once */
	q->first = NULL;
	for (; w; w = n) {
		n = w->next;
		w->called = true;
		task_wake(w->task);
	}
}
