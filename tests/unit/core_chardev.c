/* Chardevs: nothing is lost either way, a stuck terminal stops nobody, mux keys, terminal modes. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/char/chardev.h"
#include "backend/char/opts.h"
#include "backend/char/term.h"
#include "base/bits.h"

struct end {
	char got[100000];
	size_t n, room;
	int closed, breaks, writable, quits, focus;
};

static size_t end_can_read(void *opaque)
{
	return ((struct end *)opaque)->room;
}

static void end_read(void *opaque, const uint8_t *buf, size_t len)
{
	struct end *e = opaque;

	assert_true(len <= e->room && e->n + len < sizeof(e->got));
	memcpy(e->got + e->n, buf, len);
	e->n += len;
	e->room -= len;
}

static void end_can_write(void *opaque)
{
	((struct end *)opaque)->writable++;
}

static void end_event(void *opaque, enum chardev_event ev)
{
	((struct end *)opaque)->closed += ev == CHARDEV_CLOSED;
	((struct end *)opaque)->breaks += ev == CHARDEV_BREAK;
}

static const struct chardev_handlers handlers = { end_can_read, end_read, end_can_write,
						  end_event };

struct bench {
	struct clock clock;
	struct loop *loop;
	struct end end;
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	clock_init_host(&b->clock);
	b->loop = loop_new(&b->clock, NULL);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	loop_free(b->loop);
	free(b);
	return 0;
}

static void rounds(struct bench *b, int n)
{
	while (n--)
		loop_step(b->loop, false);
}

static void chardev_pipe_input(void **state)
{
	struct bench *b = *state;
	struct chardev *c;
	int in[2], null = open("/dev/null", O_WRONLY);
	char text[3000];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i % 23);
	assert_int_equal(pipe(in), 0);
	c = chardev_fd_new(b->loop, "c", in[0], null, NULL);
	assert_int_equal(write(in[1], text, sizeof(text)), sizeof(text));
	close(in[1]);
	rounds(b, 3); /* nobody is attached: nothing is read */
	assert_int_equal(chardev_attach(c, &handlers, &b->end, NULL), 0);
	assert_int_equal(chardev_attach(c, &handlers, &b->end, NULL), -EBUSY);
	rounds(b, 3);
	assert_int_equal(b->end.n, 0);
	while (b->end.n < sizeof(text)) { /* a UART: 16 bytes, then it is full */
		size_t before = b->end.n;

		b->end.room = 16;
		chardev_accept_input(c);
		rounds(b, 3);
		assert_int_equal(b->end.n - before, MIN(16u, sizeof(text) - before));
	}
	rounds(b, 4);
	assert_int_equal(b->end.n, sizeof(text));
	assert_memory_equal(b->end.got, text, sizeof(text));
	assert_int_equal(b->end.closed, 1);
	assert_false(loop_step(b->loop, false)); /* the end does not spin */
	chardev_free(c);
	close(in[0]);
	close(null);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 >> 3);
}

/* A reader that stops: writes are bounded, nobody blocks, room is announced, nothing is lost. */
static void chardev_slow_output(void **state)
{
	struct bench *b = *state;
	uint8_t chunk[1000];
	size_t sent = 0, n, seen = 0;
	struct chardev *c;
	int out[2];

	assert_int_equal(pipe(out), 0);
	c = chardev_fd_new(b->loop, "c", -1, out[1], NULL);
	assert_int_equal(chardev_attach(c, &handlers, &b->end, NULL), 0);
	for (int refused = 0; refused < 3; sent += n) { /* full for good, not just for a moment */
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = pattern(sent + i);
		n = chardev_write(c, chunk, sizeof(chunk));
		assert_true(sent < 1u << 20);
		refused = n ? 0 : refused + 1;
		if (n < sizeof(chunk))
			usleep(10000);
	}
	assert_true(sent >= CHARDEV_QUEUE);
	rounds(b, 2);
	for (int tries = 0; seen < sent && tries < 10000; tries++) {
		uint8_t buf[8192];
		ssize_t r = read(out[0], buf, MIN(sizeof(buf), sent - seen));

		assert_true(r > 0);
		for (ssize_t i = 0; i < r; i++, seen++)
			assert_int_equal(buf[i], pattern(seen));
	}
	for (int i = 0; i < 200 && !b->end.writable; i++) {
		usleep(1000);
		rounds(b, 1);
	}
	assert_int_equal(b->end.writable, 1);
	chardev_write_all(c, chunk, 10);
	chardev_free(c); /* flushes */
	close(out[1]);
	assert_int_equal(read(out[0], chunk, sizeof(chunk)), 10);
	close(out[0]);
}

/* A reader that is gone: output vanishes, the guest goes on. */
static void chardev_broken_output(void **state)
{
	struct bench *b = *state;
	struct chardev *c;
	int out[2];
	uint8_t x[100] = { 0 };

	assert_int_equal(pipe(out), 0);
	c = chardev_fd_new(b->loop, "c", -1, out[1], NULL);
	close(out[0]);
	assert_int_equal(chardev_write(c, x, sizeof(x)), sizeof(x));
	usleep(20000);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(chardev_write(c, x, sizeof(x)), sizeof(x));
	chardev_free(c);
	close(out[1]);
}

static void end_quit(void *opaque)
{
	((struct end *)opaque)->quits++;
}

static void chardev_mux(void **state)
{
	struct bench *b = *state;
	struct chardev *ring = chardev_ring_new(b->loop, "ring", 1 << 20), *m;
	struct chardev_mux_keys keys = { .quit = end_quit, .opaque = &b->end };
	char out[2000] = { 0 };

	m = chardev_mux_new(b->loop, "mux", ring, &keys, NULL);
	assert_int_equal(chardev_attach(m, &handlers, &b->end, NULL), 0);
	b->end.room = 100;
	chardev_ring_input(ring, "ab\1\1c\1bd", 8);
	rounds(b, 4);
	assert_string_equal(b->end.got, "ab\1cd");
	assert_int_equal(b->end.breaks, 1);
	chardev_ring_input(ring, "\1h\1c", 4);
	rounds(b, 4);
	chardev_ring_output(ring, out, sizeof(out) - 1);
	assert_non_null(strstr(out, "C-a x"));
	assert_non_null(strstr(out, "no monitor"));
	/* a guest that does not read: what is typed waits, and the keys still work */
	b->end.room = 0;
	chardev_ring_input(ring, "wait", 4);
	chardev_ring_input(ring, "\1", 1);
	rounds(b, 4);
	chardev_ring_input(ring, "x", 1);
	rounds(b, 4);
	assert_int_equal(b->end.quits, 1);
	assert_string_equal(b->end.got, "ab\1cd");
	b->end.room = 2;
	chardev_accept_input(m);
	rounds(b, 4);
	b->end.room = 50;
	chardev_accept_input(m);
	rounds(b, 4);
	assert_string_equal(b->end.got, "ab\1cdwait");
	memset(out, 0, sizeof(out));
	chardev_ring_output(ring, out, sizeof(out));
	assert_int_equal(chardev_write(m, (const uint8_t *)"out", 3), 3);
	memset(out, 0, sizeof(out));
	chardev_ring_output(ring, out, sizeof(out));
	assert_string_equal(out, "out");
	chardev_free(m);
}

static struct chardev *from_text(struct bench *b, const char *id, const char *text, struct err *e)
{
	struct chardev_opts o;
	struct chardev *c;

	if (chardev_opts_text(&o, text, e))
		return NULL;
	c = chardev_make(b->loop, id, &o, NULL, NULL, e);
	chardev_opts_free(&o);
	return c;
}

static void chardev_texts(void **state)
{
	struct bench *b = *state;
	struct chardevs cs = { 0 };
	struct err e = { 0 };
	char path[] = "/tmp/kvasir-chardev-XXXXXX", text[64], got[8] = { 0 };
	int fd = mkstemp(path);
	struct chardev *c;

	snprintf(text, sizeof(text), "file:%s", path);
	c = from_text(b, "log", text, &e);
	assert_non_null(c);
	assert_int_equal(chardevs_add(&cs, c, &e), 0);
	assert_int_equal(chardevs_add(&cs, c, &e), -EEXIST);
	assert_ptr_equal(chardevs_find(&cs, "log"), c);
	chardev_write(c, (const uint8_t *)"logged", 6);
	assert_null(from_text(b, "x", "sdtio", &e));
	assert_non_null(strstr(e.msg, "did you mean stdio?"));
	assert_null(from_text(b, "x", "file:", &e));
	assert_null(from_text(b, "x", "file:/nonexistent/x", &e));
	assert_non_null(strstr(e.msg, "/nonexistent/x"));
	c = from_text(b, "n", "null", &e);
	assert_int_equal(chardev_write(c, (const uint8_t *)"x", 1), 1);
	assert_int_equal(chardevs_add(&cs, c, &e), 0);
	chardevs_free(&cs);
	assert_int_equal(read(fd, got, sizeof(got)), 6);
	assert_string_equal(got, "logged");
	close(fd);
	unlink(path);
}

static void chardev_terminal(void **state)
{
	struct term t;
	struct termios was, now;
	int master, slave;

	if (openpty(&master, &slave, NULL, NULL, NULL))
		skip();
	assert_int_equal(tcgetattr(slave, &was), 0);
	term_init(&t, slave);
	assert_int_equal(term_raw(&t, false, false, NULL), 0);
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag & (ECHO | ICANON | ISIG), 0);
	assert_int_equal(now.c_oflag & OPOST, 0);
	term_restore(&t);
	term_restore(&t);
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag, was.c_lflag);
	assert_int_equal(now.c_oflag, was.c_oflag);
	term_again(&t);
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag & ICANON, 0);
	term_restore(&t);
	close(master);
	close(slave);
	term_init(&t, open("/dev/null", O_RDONLY));
	assert_int_equal(term_raw(&t, false, false, NULL), 0); /* not a terminal: fine */
	term_restore(&t);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(chardev_pipe_input), T(chardev_slow_output), T(chardev_broken_output),
		T(chardev_mux),        T(chardev_texts),       T(chardev_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
