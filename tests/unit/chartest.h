/* For tests of chardevs: a loop with a host clock, a frontend that records, and waiting. */
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/char/chardev.h"
#include "backend/char/opts.h"
#include "base/bits.h"

struct fe {
	uint8_t got[300000];
	size_t n, room;
	uint8_t mark; /* put into got at a break; 0: nothing */
	int opened, closed, breaks, writable, mux_in, mux_out;
};

static inline size_t fe_can_read(void *opaque)
{
	return ((struct fe *)opaque)->room;
}

static inline void fe_read(void *opaque, const uint8_t *buf, size_t len)
{
	struct fe *f = opaque;

	assert_true(len && len <= f->room && f->n + len <= sizeof(f->got));
	memcpy(f->got + f->n, buf, len);
	f->n += len;
	f->room -= len;
}

static inline void fe_can_write(void *opaque)
{
	((struct fe *)opaque)->writable++;
}

static inline void fe_event(void *opaque, enum chardev_event ev)
{
	struct fe *f = opaque;

	f->opened += ev == CHARDEV_OPENED;
	f->closed += ev == CHARDEV_CLOSED;
	f->breaks += ev == CHARDEV_BREAK;
	if (ev == CHARDEV_BREAK && f->mark)
		f->got[f->n++] = f->mark;
	f->mux_in += ev == CHARDEV_MUX_IN;
	f->mux_out += ev == CHARDEV_MUX_OUT;
}

static const struct chardev_handlers fe_handlers = { fe_can_read, fe_read, fe_can_write, fe_event };

struct bench {
	struct clock clock;
	struct loop *loop;
	struct fe fe, fe2;
	char dir[64]; /* a directory for the test's files */
};

static inline int bench_setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	signal(SIGPIPE, SIG_IGN);
	clock_init_host(&b->clock);
	b->loop = loop_new(&b->clock, NULL);
	snprintf(b->dir, sizeof(b->dir), "/tmp/kvasir-char-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	b->fe.room = b->fe2.room = sizeof(b->fe.got);
	*state = b;
	return 0;
}

static inline int bench_teardown(void **state)
{
	struct bench *b = *state;

	loop_free(b->loop);
	assert_int_equal(rmdir(b->dir), 0); /* what a chardev made it takes away */
	free(b);
	return 0;
}

static inline const char *bench_path(struct bench *b, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%.63s/%.50s", b->dir, name);
	return path;
}

static inline void rounds(struct bench *b, int n)
{
	while (n--)
		loop_step(b->loop, false);
}

/* Serve the loop until cond, at most ten seconds. */
#define until(b, cond) \
	do { \
		int tries_ = 0; \
		while (!(cond)) { \
			if (++tries_ > 5000) \
				fail_msg("never: %s", #cond); \
			if (!loop_step((b)->loop, false)) \
				nanosleep(&(struct timespec){ 0, 2000000 }, NULL); \
		} \
	} while (0)

/* From the short text; fails the test when refused. */
static inline struct chardev *make(struct bench *b, const char *text)
{
	struct chardev_opts o;
	struct err e = { 0 };
	struct chardev *c = NULL;

	if (!chardev_opts_text(&o, text, &e)) {
		c = chardev_make(b->loop, "c", &o, NULL, NULL, &e);
		chardev_opts_free(&o);
	}
	if (!c)
		fail_msg("%s: %s", text, e.msg);
	return c;
}

/* The same, and it must fail with a message that has says in it. */
static inline void make_fails(struct bench *b, const char *text, const char *says)
{
	struct chardev_opts o;
	struct err e = { 0 };
	struct chardev *c = NULL;

	if (!chardev_opts_text(&o, text, &e)) {
		c = chardev_make(b->loop, "c", &o, NULL, NULL, &e);
		chardev_opts_free(&o);
	}
	if (c)
		fail_msg("%s works", text);
	if (!strstr(e.msg, says) || strchr(e.msg, '\n'))
		fail_msg("%s: \"%s\" does not say \"%s\"", text, e.msg, says);
}

static inline uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 >> 3 ^ i >> 11);
}

static inline size_t put(struct chardev *c, const char *s)
{
	return chardev_write(c, (const uint8_t *)s, strlen(s));
}
