/* Event loop: timers on a virtual and on the host's clock, fds, bottom halves, workers, requests.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "core/lock.h"
#include "core/loop.h"
#include "core/runstate.h"
#include "core/worker.h"

struct note {
	struct loop *loop;
	struct timer t;
	uint64_t at[64];
	int n, rearm;
};

static void note_timer(void *opaque)
{
	struct note *n = opaque;

	n->at[n->n++] = clock_now(loop_clock(n->loop));
	if (n->rearm-- > 0)
		timer_arm(&n->t, n->t.deadline + 10);
}

static void loop_virtual_timers(void **state)
{
	struct clock c;
	struct loop *l;
	struct note n[8] = { 0 };
	static const uint64_t when[] = { 700, 100, 500, 300, 300, 900, 200, 150 };

	clock_init_virtual(&c, 50, 0);
	l = loop_new(&c, NULL);
	for (int i = 0; i < 8; i++) {
		n[i].loop = l;
		timer_init(&n[i].t, l, note_timer, &n[i]);
		timer_arm(&n[i].t, when[i]);
	}
	n[1].rearm = 3;
	timer_arm(&n[0].t, 120);
	timer_cancel(&n[6].t);
	timer_cancel(&n[6].t);
	loop_advance(l, 450);
	assert_int_equal(clock_now(&c), 500);
	for (int i = 0; i < 8; i++)
		assert_int_equal(n[i].n, i == 1 ? 4 : i == 5 || i == 6 ? 0 : 1);
	assert_int_equal(n[1].at[3], 130);
	assert_int_equal(n[0].at[0], 120);
	assert_int_equal(n[2].at[0], 500);
	assert_true(timer_armed(&n[5].t) && !timer_armed(&n[0].t));
	clock_stop(&c);
	timer_arm(&n[0].t, 1);
	assert_false(loop_step(l, false)); /* time stands: nothing runs */
	clock_start(&c);
	assert_true(loop_step(l, false));
	loop_free(l);
}

/* Many timers in random order run in the order of their deadlines. */
static uint64_t heap_last;

static void heap_check(void *opaque)
{
	struct timer *t = opaque;

	assert_true(t->deadline >= heap_last);
	heap_last = t->deadline;
}

static void loop_timer_order(void **state)
{
	enum { N = 500 };
	struct timer *t = calloc(N, sizeof(*t));
	struct clock c;
	struct loop *l;
	unsigned seed = 1;

	clock_init_virtual(&c, 0, 0);
	l = loop_new(&c, NULL);
	for (int i = 0; i < N; i++) {
		timer_init(&t[i], l, heap_check, &t[i]);
		timer_arm(&t[i], (uint64_t)(rand_r(&seed) % 10000));
	}
	for (int i = 0; i < N; i += 3)
		timer_arm(&t[i], (uint64_t)(rand_r(&seed) % 10000));
	for (int i = 0; i < N; i += 7)
		timer_cancel(&t[i]);
	heap_last = 0;
	loop_advance(l, 10000);
	assert_true(heap_last > 9000);
	for (int i = 0; i < N; i++)
		assert_false(timer_armed(&t[i]));
	loop_free(l);
	free(t);
}

static void quit_now(void *opaque)
{
	loop_quit(opaque, 7);
}

static void loop_host_timer(void **state)
{
	struct clock c;
	struct loop *l;
	struct timer t;
	uint64_t t0;

	clock_init_host(&c);
	l = loop_new(&c, NULL);
	timer_init(&t, l, quit_now, l);
	t0 = clock_now(&c);
	timer_arm(&t, t0 + 20 * NS_PER_MS);
	assert_int_equal(loop_run(l), 7);
	assert_true(clock_now(&c) - t0 >= 20 * NS_PER_MS);
	assert_true(clock_now(&c) - t0 < 2 * NS_PER_SEC);
	clock_stop(&c);
	t0 = clock_now(&c);
	usleep(2000);
	assert_int_equal(clock_now(&c), t0);
	clock_start(&c);
	assert_true(clock_now(&c) < t0 + NS_PER_MS * 1000);
	clock_set(&c, 5 * NS_PER_SEC);
	assert_true(clock_now(&c) >= 5 * NS_PER_SEC);
	loop_free(l);
}

struct pipe_end {
	struct loop *loop;
	struct loop_fd f, *victim;
	char got[64];
	int n, hups, eof;
};

static void pipe_read(void *opaque, unsigned ready)
{
	struct pipe_end *p = opaque;
	ssize_t r;

	if (p->victim)
		loop_fd_del(p->loop, p->victim);
	p->hups += !!(ready & LOOP_HUP);
	if (!(ready & LOOP_IN))
		return;
	r = read(p->f.fd, p->got + p->n, sizeof(p->got) - (size_t)p->n);
	if (r > 0)
		p->n += (int)r;
	else {
		p->eof++;
		loop_fd_set(p->loop, &p->f, 0);
	}
}

static void loop_fds(void **state)
{
	struct pipe_end p = { 0 }, q = { 0 };
	struct clock c;
	struct loop *l;
	int fds[2], more[2];

	clock_init_virtual(&c, 0, 0);
	l = loop_new(&c, NULL);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pipe(more), 0);
	p.loop = q.loop = l;
	p.f = (struct loop_fd){ .fn = pipe_read, .opaque = &p, .fd = fds[0] };
	q.f = (struct loop_fd){ .fn = pipe_read, .opaque = &q, .fd = more[0] };
	assert_int_equal(loop_fd_add(l, &p.f, LOOP_IN, NULL), 0);
	assert_int_equal(loop_fd_add(l, &q.f, LOOP_IN, NULL), 0);
	assert_false(loop_step(l, false));
	assert_int_equal(write(fds[1], "abc", 3), 3);
	assert_true(loop_step(l, true));
	assert_string_equal(p.got, "abc");
	loop_fd_set(l, &p.f, 0); /* not watched: neither data nor the hang-up is told */
	assert_int_equal(write(fds[1], "def", 3), 3);
	close(fds[1]);
	assert_false(loop_step(l, false));
	loop_fd_set(l, &p.f, LOOP_IN);
	assert_true(loop_step(l, true));
	assert_string_equal(p.got, "abcdef");
	loop_step(l, false);
	assert_int_equal(p.eof, 1);
	assert_false(loop_step(l, false));
	/* both are ready, and the first one that runs removes the other */
	loop_fd_set(l, &p.f, LOOP_IN);
	assert_int_equal(write(more[1], "x", 1), 1);
	p.victim = &q.f;
	q.victim = &p.f;
	p.eof = 0;
	loop_step(l, false);
	assert_int_equal(q.n + p.eof, 1);
	loop_fd_del(l, &p.f);
	loop_fd_del(l, &q.f);
	loop_fd_del(l, &q.f);
	close(fds[0]);
	close(more[0]);
	close(more[1]);
	assert_true(loop_fd_add(l, &q.f, LOOP_IN, NULL) < 0); /* closed */
	loop_free(l);
}

static void loop_regular_file(void **state)
{
	struct pipe_end p = { 0 };
	struct clock c;
	struct loop *l;
	FILE *f = tmpfile();

	clock_init_virtual(&c, 0, 0);
	l = loop_new(&c, NULL);
	fputs("from a file", f);
	rewind(f);
	fflush(f);
	p.loop = l;
	p.f = (struct loop_fd){ .fn = pipe_read, .opaque = &p, .fd = fileno(f) };
	assert_int_equal(loop_fd_add(l, &p.f, LOOP_IN, NULL), 0);
	for (int i = 0; i < 4; i++)
		loop_step(l, false);
	assert_string_equal(p.got, "from a file");
	assert_int_equal(p.eof, 1);
	loop_fd_del(l, &p.f);
	fclose(f);
	loop_free(l);
}

struct flood {
	struct bh bh;
	struct biglock *lock;
	int runs, again;
};

static void flood_run(void *opaque)
{
	struct flood *f = opaque;

	assert_true(!f->lock || biglock_held(f->lock));
	f->runs++;
	if (f->again-- > 0)
		bh_schedule(&f->bh);
}

static void *flood_thread(void *opaque)
{
	for (int i = 0; i < 1000; i++)
		bh_schedule(opaque);
	return NULL;
}

static void loop_bhs(void **state)
{
	struct biglock lock;
	struct flood f = { .lock = &lock }, g = { 0 };
	struct clock c;
	struct loop *l;
	pthread_t t[2];

	biglock_init(&lock);
	clock_init_virtual(&c, 0, 0);
	l = loop_new(&c, NULL);
	loop_set_lock(l, &lock);
	bh_init(&f.bh, l, flood_run, &f);
	bh_init(&g.bh, l, flood_run, &g);
	bh_schedule(&f.bh);
	bh_schedule(&f.bh);
	bh_schedule(&g.bh);
	bh_cancel(&g.bh);
	f.again = 1;
	assert_true(loop_step(l, false));
	assert_int_equal(f.runs, 1); /* the one it scheduled waits for the next round */
	assert_true(loop_step(l, false));
	assert_int_equal(f.runs, 2);
	assert_int_equal(g.runs, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, flood_thread, &f.bh);
	for (int i = 0; i < 100; i++)
		loop_step(l, false);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	loop_step(l, false);
	assert_true(f.runs > 2 && f.runs <= 2002);
	loop_call(l, quit_now, l);
	assert_int_equal(loop_run(l), 7);
	loop_call(l, quit_now, l); /* never runs; loop_free frees it */
	loop_free(l);
	biglock_destroy(&lock);
}

static void count_run(void *opaque)
{
	atomic_fetch_add((atomic_int *)opaque, 1);
}

struct knocks {
	struct loop *loop;
	atomic_int runs;
};

/* One call after the other has been served: the loop's waits are short, so it polls. */
static void *knock_thread(void *opaque)
{
	struct knocks *k = opaque;

	for (int i = 0; i < 500; i++) {
		loop_call(k->loop, count_run, &k->runs);
		while (atomic_load(&k->runs) == i)
			sched_yield();
	}
	loop_call(k->loop, quit_now, k->loop);
	return NULL;
}

/* A loop that polls, for longer than the test lasts, serves other threads and timers all the same.
 */
static void loop_polls(void **state)
{
	struct knocks k = { 0 };
	struct clock c;
	struct timer t;
	pthread_t thread;
	uint64_t t0;

	clock_init_host(&c);
	k.loop = loop_new(&c, NULL);
	loop_set_poll(k.loop, 4000000000u);
	pthread_create(&thread, NULL, knock_thread, &k);
	assert_int_equal(loop_run(k.loop), 7);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&k.runs), 500);
	timer_init(&t, k.loop, quit_now, k.loop);
	t0 = clock_now(&c);
	timer_arm(&t, t0 + 20 * NS_PER_MS);
	assert_int_equal(loop_run(k.loop), 7);
	assert_true(clock_now(&c) - t0 >= 20 * NS_PER_MS);
	assert_true(clock_now(&c) - t0 < 2 * NS_PER_SEC);
	loop_free(k.loop);
}

struct job {
	struct work w;
	struct loop *loop;
	int *left;
	bool ran;
};

static void job_fn(struct work *w)
{
	usleep(200);
	((struct job *)w)->ran = true;
}

static void job_done(struct work *w)
{
	struct job *j = (struct job *)w;

	assert_true(j->ran != w->cancelled);
	if (!--*j->left)
		loop_quit(j->loop, 0);
}

static void loop_workers(void **state)
{
	enum { N = 50 };
	struct job jobs[N];
	struct clock c;
	struct loop *l;
	struct workers *p;
	int left = N;

	clock_init_host(&c);
	l = loop_new(&c, NULL);
	p = workers_new(l, 4, NULL);
	assert_non_null(p);
	for (int round = 0; round < 2; round++) {
		left = N;
		for (int i = 0; i < N; i++) {
			jobs[i] =
				(struct job){ { .fn = job_fn, .done = job_done }, l, &left, false };
			workers_submit(p, &jobs[i].w);
		}
		if (!round)
			assert_int_equal(loop_run(l), 0);
	}
	workers_free(p); /* running ones end, waiting ones are cancelled; all are told */
	assert_int_equal(left, 0);
	loop_free(l);
}

static struct request got_request;

static void on_request(void *opaque, const struct request *r)
{
	got_request = *r;
	(*(int *)opaque)++;
}

static void loop_requests(void **state)
{
	struct request note = { 0 };
	struct runstate rs;
	struct clock c;
	struct loop *l;
	int n = 0;

	clock_init_virtual(&c, 0, 0);
	l = loop_new(&c, NULL);
	runstate_init(&rs, l, on_request, &n);
	request_merge(&note, &REQ_EXIT_STATUS(3, "signal"));
	request_merge(&note, &REQ_OF(REQ_RESET, "guest"));
	assert_int_equal(note.kind, REQ_EXIT);
	assert_int_equal(note.status, 3);
	assert_false(runstate_pending(&rs));
	machine_request(&rs, REQ_OF(REQ_RESET, "a"));
	machine_request(&rs, REQ_OF(REQ_SHUTDOWN, "b"));
	machine_request(&rs, REQ_OF(REQ_SHUTDOWN, "c"));
	machine_request(&rs, REQ_OF(REQ_RESET, "d"));
	assert_true(runstate_pending(&rs));
	assert_int_equal(n, 0);
	loop_step(l, false);
	assert_int_equal(n, 1);
	assert_int_equal(got_request.kind, REQ_SHUTDOWN);
	assert_string_equal(got_request.who, "b");
	assert_false(runstate_pending(&rs));
	machine_request(&rs, REQ_EXIT_STATUS(33, "x"));
	machine_request(&rs, REQ_EXIT_STATUS(35, "y"));
	loop_step(l, false);
	assert_int_equal(got_request.status, 33);
	runstate_destroy(&rs);
	loop_free(l);
}

static void loop_tick_arithmetic(void **state)
{
	for (uint64_t hz = 1; hz < 5000000; hz = hz * 3 + 1)
		for (uint64_t n = 0; n < 1ull << 40; n = n * 7 + 1) {
			uint64_t t = clock_tick_time(n, hz);

			if (t == UINT64_MAX)
				break;
			assert_true(clock_ticks(t, hz) >= n);
			assert_true(!t || clock_ticks(t - 1, hz) < n);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loop_virtual_timers),  cmocka_unit_test(loop_timer_order),
		cmocka_unit_test(loop_host_timer),      cmocka_unit_test(loop_fds),
		cmocka_unit_test(loop_regular_file),    cmocka_unit_test(loop_bhs),
		cmocka_unit_test(loop_workers),         cmocka_unit_test(loop_requests),
		cmocka_unit_test(loop_tick_arithmetic), cmocka_unit_test(loop_polls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
