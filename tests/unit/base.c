/* base/: errors, bits, coroutines. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/coro.h"
#include "base/err.h"

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
		cmocka_unit_test(test_err),
		cmocka_unit_test(test_bits),
		cmocka_unit_test(test_coro),
		cmocka_unit_test(test_coro_stack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
