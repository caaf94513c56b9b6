/* Tasks: order, waking from everywhere, workers, sleeping, locks and queues between tasks. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "core/task.h"
#include "core/worker.h"

struct bed {
	struct clock clock;
	struct loop *loop;
	struct workers *workers;
	struct tasks *ts;
	char log[256];
};
static struct bed bed;

static int bed_new(void **state)
{
	memset(&bed, 0, sizeof(bed));
	clock_init_virtual(&bed.clock, 0, 0);
	bed.loop = loop_new(&bed.clock, NULL);
	bed.workers = workers_new(bed.loop, 4, NULL);
	bed.ts = tasks_new(bed.loop, bed.workers, NULL);
	return !bed.ts;
}

static int bed_free(void **state)
{
	tasks_free(bed.ts);
	workers_free(bed.workers);
	loop_free(bed.loop);
	return 0;
}

static void note(const char *s)
{
	strncat(bed.log, s, sizeof(bed.log) - strlen(bed.log) - 1);
}

static struct task *kept[8];

static void t_child(void *arg)
{
	note("c");
	kept[1] = task_self();
	task_co_wait();
	note("C");
}

static void t_parent(void *arg)
{
	kept[0] = task_self();
	note("p");
	assert_int_equal(task_start(bed.ts, t_child, NULL), 0);
	note("q"); /* the child starts when this one waits */
	task_co_wait();
	task_wake(kept[1]);
	note("r");
}

static void order(void **state)
{
	assert_null(task_self());
	assert_int_equal(task_start(bed.ts, t_parent, NULL), 0);
	assert_string_equal(bed.log, "pqc");
	task_wake(kept[0]);
	assert_string_equal(bed.log, "pqcrC");
	assert_null(task_self());
}

static void t_early(void *arg)
{
	task_wake(task_self()); /* before the wait: it is remembered, once */
	task_wake(task_self());
	task_co_wait();
	note("1");
	kept[0] = task_self();
	task_co_wait();
	note("2");
}

static void early_wake(void **state)
{
	assert_int_equal(task_start(bed.ts, t_early, NULL), 0);
	assert_string_equal(bed.log, "1");
	task_wake(kept[0]);
	assert_string_equal(bed.log, "12");
}

static void *remote_thread(void *arg)
{
	task_wake_remote(arg);
	task_wake_remote(arg); /* merged, or the second comes when the task waits again */
	return NULL;
}

static void t_remote(void *arg)
{
	pthread_t t;

	for (int i = 0; i < 200; i++) {
		pthread_create(&t, NULL, remote_thread, task_self());
		task_co_wait();
		pthread_join(t, NULL);
		task_co_sleep(bed.ts, 0); /* takes the second one, if it was not merged */
	}
	note("ok");
}

static void remote(void **state)
{
	assert_int_equal(tasks_run(bed.ts, t_remote, NULL), 0);
	assert_string_equal(bed.log, "ok");
}

static void work_add(void *arg)
{
	(*(int *)arg)++;
}

static int sum, ended;

static void t_work(void *arg)
{
	int n = 0;

	for (int i = 0; i < 50; i++)
		task_co_work(work_add, &n);
	sum += n;
	ended++;
}

static void t_many(void *arg)
{
	for (int i = 0; i < 100; i++) /* more than the pool keeps */
		assert_int_equal(task_start(bed.ts, t_work, NULL), 0);
	while (ended < 100)
		task_co_work(work_add, &(int){ 0 });
}

static void work(void **state)
{
	sum = ended = 0;
	assert_int_equal(tasks_run(bed.ts, t_many, NULL), 0);
	assert_int_equal(sum, 5000);
}

static void t_sleep(void *arg)
{
	task_co_sleep(bed.ts, 100);
	note("a");
	task_co_sleep(bed.ts, 100);
	note("b");
}

static void sleeping(void **state)
{
	assert_int_equal(task_start(bed.ts, t_sleep, NULL), 0);
	loop_advance(bed.loop, 99);
	assert_string_equal(bed.log, "");
	loop_advance(bed.loop, 1);
	assert_string_equal(bed.log, "a");
	loop_advance(bed.loop, 100);
	assert_string_equal(bed.log, "ab");
}

static struct task_mutex mutex;
static struct task_queue queue;
static int inside;

static void t_locker(void *arg)
{
	for (int i = 0; i < 3; i++) {
		task_co_lock(&mutex);
		assert_int_equal(inside++, 0);
		note(arg);
		task_co_sleep(bed.ts, 10);
		assert_int_equal(--inside, 0);
		task_unlock(&mutex);
	}
}

static void lock(void **state)
{
	assert_int_equal(task_start(bed.ts, t_locker, "a"), 0);
	assert_int_equal(task_start(bed.ts, t_locker, "b"), 0);
	assert_int_equal(task_start(bed.ts, t_locker, "c"), 0);
	loop_advance(bed.loop, 200);
	assert_string_equal(bed.log, "abcabcabc"); /* first come, first served */
	assert_null(mutex.owner);
}

static void t_queue(void *arg)
{
	for (int i = 0; i < 2; i++) {
		task_co_queue(&queue);
		note(arg);
	}
}

static void queues(void **state)
{
	assert_false(task_queue_wake(&queue));
	assert_int_equal(task_start(bed.ts, t_queue, "a"), 0);
	assert_int_equal(task_start(bed.ts, t_queue, "b"), 0);
	assert_true(task_queue_wake(&queue));
	assert_string_equal(bed.log, "a");
	task_queue_wake_all(&queue);
	assert_string_equal(bed.log, "aba"); /* a had come back, and ended; b has come back */
	task_queue_wake_all(&queue);
	assert_string_equal(bed.log, "abab");
	assert_false(task_queue_wake(&queue));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		T(order), T(early_wake), T(remote), T(work), T(sleeping), T(lock), T(queues),
	};

	return cmocka_run_group_tests_name("core/task", tests, NULL, NULL);
}
