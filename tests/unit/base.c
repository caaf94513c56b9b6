/* base/: errors, bits, busy polling, runners, coroutines. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/busypoll.h"
#include "base/coro.h"
#include "base/err.h"
#include "base/runner.h"

static void test_err(void **state)
{
	char longer[2 * sizeof(((struct err *)0)->msg)];
	struct err e = { 0 };

	assert_int_equal(err_set(&e, ENOENT, "%s: %d", "no file", 7), -ENOENT);
	assert_int_equal(e.code, ENOENT);
	assert_string_equal(e.msg, "no file: 7");
	assert_int_equal(err_prefix(&e, "-kernel %s", "x"), -ENOENT);
	assert_string_equal(e.msg, "-kernel x: no file: 7");
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	err_set(&e, EINVAL, "%s", longer);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	err_prefix(&e, "%s", longer);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(err_set(NULL, EIO, "nobody listens"), -EIO);
	assert_int_equal(err_prefix(NULL, "nobody"), -EINVAL);
}

static void busypoll_waits(struct busypoll *p, int n, uint64_t ns)
{
	while (n--) {
		busypoll_start(p);
		if (ns)
			nanosleep(&(struct timespec){ .tv_nsec = (long)ns }, NULL);
		busypoll_learn(p);
	}
}

/* Polling begins after short waits, ends after long ones, and never lasts longer than its window.
 */
static void test_busypoll(void **state)
{
	struct busypoll p = { 0 };

	busypoll_waits(&p, 100, 0);
	assert_false(busypoll_start(&p)); /* no window */
	p.window = 1000000000;
	assert_false(busypoll_start(&p)); /* nothing known */
	busypoll_waits(&p, 20, 0);
	assert_true(busypoll_start(&p));
	assert_true(p.score <= 1024);
	p.window = 1;
	while (busypoll_turn(&p))
		;                  /* the window is over */
	busypoll_waits(&p, 64, 0); /* all longer than a nanosecond */
	assert_false(busypoll_start(&p));
	/* one short wait in two is enough, one in sixteen is not */
	for (int i = 0; i < 64; i++) {
		p.window = i & 1 ? 1 : 1000000000;
		busypoll_waits(&p, 1, 0);
	}
	assert_true(busypoll_start(&p));
	for (int i = 0; i < 160; i++) {
		p.window = i & 15 ? 1 : 1000000000;
		busypoll_waits(&p, 1, 0);
	}
	assert_false(busypoll_start(&p));
	assert_true(busypoll_processors() >= 1);
}

static void pin(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static atomic_bool busypoll_end;

static void *busypoll_rival(void *opaque)
{
	while (!atomic_load(&busypoll_end))
		;
	return opaque;
}

/* On a processor that another thread wants, too, a poll ends long before its window does. */
static void test_busypoll_rival(void **state)
{
	struct busypoll p = { .window = 60000000000u, .score = 1024 };
	struct timespec a, b;
	cpu_set_t all;
	pthread_t t;
	int cpu = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	pin(cpu);
	assert_int_equal(busypoll_processors(), 1);
	assert_int_equal(pthread_create(&t, NULL, busypoll_rival, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_true(busypoll_start(&p));
	while (busypoll_turn(&p))
		;
	clock_gettime(CLOCK_MONOTONIC, &b);
	atomic_store(&busypoll_end, true);
	pthread_join(t, NULL);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	assert_true(b.tv_sec - a.tv_sec < 30);
}

struct neighbour {
	int cpu;
	atomic_int step; /* what it has done, what it shall do: odd, even */
};

static void *neighbour_thread(void *opaque)
{
	struct neighbour *n = opaque;

	pin(n->cpu);
	runner_here();
	atomic_store(&n->step, 1);
	while (atomic_load(&n->step) == 1)
		sched_yield();
	runner_gone();
	atomic_store(&n->step, 3);
	return NULL;
}

/* Who is on whose processor, and that moving away leaves the affinity as it was. */
static void test_runner(void **state)
{
	struct neighbour n = { 0 };
	struct busypoll p = { .window = 1000000000, .score = 1024 };
	cpu_set_t all, after;
	pthread_t t;
	int other = -1;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(n.cpu, &all))
		n.cpu++;
	for (int i = n.cpu + 1; i < CPU_SETSIZE && other < 0; i++)
		if (CPU_ISSET(i, &all))
			other = i;
	assert_int_equal(pthread_create(&t, NULL, neighbour_thread, &n), 0);
	while (!atomic_load(&n.step))
		sched_yield();
	pin(n.cpu);
	assert_true(runner_shared());
	assert_false(busypoll_start(&p)); /* it would only be in the way */
	if (other >= 0) {
		pin(other);
		assert_false(runner_shared());
		assert_true(busypoll_start(&p));
		pin(n.cpu);
		assert_false(busypoll_turn(&p));
	}
	runner_apart(); /* nowhere to go */
	assert_int_equal(sched_getcpu(), n.cpu);
	runner_asleep(true);
	runner_handoff();
	runner_asleep(false);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	if (sched_getcpu() == n.cpu && other >= 0) {
		runner_apart();
		assert_int_not_equal(sched_getcpu(), n.cpu);
	}
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&all, &after));
	atomic_store(&n.step, 2);
	pthread_join(t, NULL);
	assert_int_equal(atomic_load(&n.step), 3);
	pin(n.cpu);
	assert_false(runner_shared());
	runner_here();
	runner_here();
	assert_true(runner_shared()); /* it does not know who asks: callers are gone */
	runner_gone();
	runner_gone();
	assert_false(runner_shared());
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void test_bits(void **state)
{
	assert_int_equal(bits(0xabcd, 15, 8), 0xab);
	assert_true(bits(~0ull, 63, 0) == ~0ull);
	assert_int_equal(sext(0x80, 8), -128);
	assert_int_equal(sext(0x7f, 8), 127);
	assert_true((uint64_t)sext(0x800000000000ull, 48) == 0xffff800000000000ull);
}

struct job {
	struct coro *c;
	int steps;
	double x;
};

static void job_run(void *arg)
{
	struct job *j = arg;

	for (;;) {
		/* the compiler may keep this in callee-saved registers over the switch */
		j->steps++;
		j->x = j->x * 2 + 1;
		coro_yield(j->c);
	}
}

static void job_once(void *arg)
{
	((struct job *)arg)->steps = 42;
}

static void test_coro(void **state)
{
	struct job a = { 0 }, b = { .x = 1 }, once = { 0 };
	struct err e;

	assert_int_equal(coro_new(&a.c, 65536, job_run, &a, &e), 0);
	assert_int_equal(coro_new(&b.c, 1, job_run, &b, &e), 0); /* rounded up to a page */
	assert_int_equal(coro_new(&once.c, 65536, job_once, &once, &e), 0);
	for (int n = 1; n <= 10; n++) {
		coro_resume(a.c);
		assert_int_equal(a.steps, n);
		if (n % 2)
			coro_resume(b.c);
	}
	assert_int_equal(b.steps, 5);
	assert_true(a.x == 1023 && b.x == 63);
	coro_resume(once.c);
	assert_int_equal(once.steps, 42);
	coro_free(a.c); /* in the middle: what is on its stack is dropped */
	coro_free(b.c);
	coro_free(once.c);
	coro_free(NULL);
}

/* The stack is as large as was asked for. */
static void eat(void *arg)
{
	volatile char room[200 << 10];

	memset((char *)room, 1, sizeof(room));
	*(int *)arg = room[100];
}

static void test_coro_stack(void **state)
{
	struct coro *c;
	struct err e;
	int got = 0;

	assert_int_equal(coro_new(&c, 256 << 10, eat, &got, &e), 0);
	coro_resume(c);
	assert_int_equal(got, 1);
	coro_free(c);
	assert_int_equal(coro_new(&c, (size_t)1 << 62, eat, &got, &e), -ENOMEM);
	assert_non_null(strstr(e.msg, "stack"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runner),         cmocka_unit_test(test_err),
		cmocka_unit_test(test_bits),           cmocka_unit_test(test_busypoll),
		cmocka_unit_test(test_busypoll_rival), cmocka_unit_test(test_coro),
		cmocka_unit_test(test_coro_stack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
