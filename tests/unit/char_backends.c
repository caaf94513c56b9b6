/* Chardevs other than sockets: pty, pipe, tty, udp, ringbuf, file, log, mux with several frontends.
 */
#include "chartest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>

static void attach(struct chardev *c, struct fe *f)
{
	assert_int_equal(chardev_attach(c, &fe_handlers, f, NULL), 0);
}

static void test_pty(void **state)
{
	struct bench *b = *state;
	char text[200], name[64] = { 0 }, buf[64] = { 0 };
	struct chardev *c;
	struct termios t;
	int fd;

	snprintf(text, sizeof(text), "pty:%s", bench_path(b, "link"));
	c = make(b, text);
	assert_int_equal(sscanf(c->notice, "char device redirected to %63s (label c)", name), 1);
	attach(c, &b->fe);
	rounds(b, 3);
	assert_false(chardev_is_open(c));
	assert_int_equal(b->fe.opened, 0);
	assert_int_equal(put(c, "nobody"), 6); /* dropped */
	for (int round = 1; round < 4; round++) {
		fd = open(bench_path(b, "link"), O_RDWR | O_NOCTTY | O_NONBLOCK);
		assert_true(fd >= 0);
		assert_int_equal(tcgetattr(fd, &t), 0);
		assert_int_equal(t.c_lflag & (ECHO | ICANON), 0);
		until(b, b->fe.opened == round);
		put(c, "hello\n");
		until(b, read(fd, buf, sizeof(buf)) == 6);
		assert_string_equal(buf, "hello\n");
		assert_int_equal(write(fd, "abc", 3), 3);
		until(b, b->fe.n == 3u * (unsigned)round);
		close(fd);
		until(b, b->fe.closed == round);
		assert_false(chardev_is_open(c));
	}
	assert_memory_equal(b->fe.got, "abcabcabc", 9);
	make_fails(b, text, "File exists");
	chardev_free(c);
	assert_int_equal(access(bench_path(b, "link"), F_OK), -1);
}

/* A terminal that stands still: bounded, and all comes when it goes on. */
/* Opened while we are out of descriptors. */
static void test_pty_without_descriptors(void **state)
{
	struct bench *b = *state;
	struct rlimit was, now;
	char name[64] = { 0 };
	struct chardev *c = make(b, "pty");
	int fd;

	assert_int_equal(sscanf(c->notice, "char device redirected to %63s (label c)", name), 1);
	attach(c, &b->fe);
	rounds(b, 5);
	fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	now = (struct rlimit){ (rlim_t)fd + 1, was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	rounds(b, 5);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	until(b, b->fe.opened == 1);
	close(fd);
	until(b, b->fe.closed == 1);
	chardev_free(c);
}

static void test_pty_slow(void **state)
{
	struct bench *b = *state;
	struct chardev *c = make(b, "pty");
	uint8_t chunk[1000], buf[4096];
	size_t sent = 0, seen = 0, n = 1;
	char name[64];
	int fd;

	assert_int_equal(sscanf(c->notice, "char device redirected to %63s", name), 1);
	attach(c, &b->fe);
	fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	until(b, b->fe.opened);
	for (; n; sent += n) {
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = pattern(sent + i);
		n = chardev_write(c, chunk, sizeof(chunk));
		assert_true(sent < 1u << 20);
	}
	assert_true(sent >= CHARDEV_QUEUE);
	rounds(b, 5);
	assert_int_equal(b->fe.writable, 0);
	while (seen < sent) {
		ssize_t r = read(fd, buf, sizeof(buf));

		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != pattern(seen + (size_t)i))
				fail_msg("byte %zu is wrong", seen + (size_t)i);
		seen += r > 0 ? (size_t)r : 0;
		rounds(b, 1);
	}
	until(b, b->fe.writable == 1);
	close(fd);
	chardev_free(c);
}

static void test_pipe(void **state)
{
	struct bench *b = *state;
	char in[128], out[128], text[200], buf[200], big[1000];
	struct chardev *c;
	size_t n, total = 0;
	ssize_t r;
	int fd;

	snprintf(in, sizeof(in), "%s", bench_path(b, "p.in"));
	snprintf(out, sizeof(out), "%s", bench_path(b, "p.out"));
	snprintf(text, sizeof(text), "pipe:%s", bench_path(b, "p"));
	make_fails(b, text, "mkfifo makes them");
	close(open(in, O_CREAT | O_WRONLY, 0600));
	make_fails(b, text, "is no FIFO");
	unlink(in);
	assert_int_equal(mkfifo(in, 0600) | mkfifo(out, 0600), 0);
	c = make(b, text);
	attach(c, &b->fe);
	assert_int_equal(put(c, "early"), 5); /* waits for a reader */
	rounds(b, 3);
	fd = open(in, O_WRONLY | O_NONBLOCK);
	assert_int_equal(write(fd, "input", 5), 5);
	until(b, b->fe.n == 5);
	close(fd);
	rounds(b, 3);
	assert_int_equal(b->fe.closed, 0); /* a writer that leaves is no end */
	/* nobody reads: never full */
	for (int i = 0; i < 4000; i++, total += 100) {
		memset(buf, 'x', 100);
		assert_int_equal(chardev_write(c, (uint8_t *)buf, 100), 100);
		rounds(b, 1);
	}
	fd = open(out, O_RDONLY | O_NONBLOCK);
	r = read(fd, buf, 10);
	assert_int_equal(r, 10);
	assert_memory_equal(buf, "earlyxxxxx", 10);
	/* now somebody is there and does not read on: full */
	for (int tries = 0; (n = chardev_write(c, (uint8_t *)buf, 100)) == 100; tries++) {
		assert_true(tries < 4000);
		rounds(b, 1);
	}
	assert_int_equal(b->fe.writable, 0);
	close(fd); /* it leaves: who waits goes on */
	until(b, b->fe.writable == 1);
	assert_int_equal(chardev_write(c, (uint8_t *)buf, 100), 100);
	/* the same when the reader took some, but not enough to go on */
	fd = open(out, O_RDONLY | O_NONBLOCK);
	for (int tries = 0; chardev_write(c, (uint8_t *)buf, 100) == 100; tries++) {
		assert_true(tries < 4000);
		rounds(b, 1);
	}
	for (int i = 0; i < 10; i++)
		assert_int_equal(read(fd, big, 1000), 1000);
	rounds(b, 10);
	assert_int_equal(b->fe.writable, 1);
	close(fd);
	until(b, b->fe.writable == 2);
	chardev_free(c);
	unlink(in);
	unlink(out);
}

static void test_tty(void **state)
{
	struct bench *b = *state;
	struct chardev_line line = { .speed = 9600, .bits = 7, .stop = 2, .parity = 'E' };
	char name[64], buf[8] = { 0 };
	struct termios t;
	struct chardev *c;
	int master, slave;

	make_fails(b, "/dev/nosuchtty", "No such file");
	make_fails(b, "/dev/null", "no serial line");
	assert_int_equal(openpty(&master, &slave, name, NULL, NULL), 0);
	fcntl(master, F_SETFL, O_NONBLOCK);
	c = make(b, name);
	attach(c, &b->fe);
	tcgetattr(slave, &t);
	assert_int_equal(t.c_lflag & (ECHO | ICANON | ISIG), 0);
	assert_int_equal(cfgetospeed(&t), B115200);
	chardev_set_line(c, &line);
	tcgetattr(slave, &t);
	assert_int_equal(cfgetospeed(&t), B9600);
	/* a pty keeps 8 bits, whatever is asked */
	assert_int_equal(t.c_cflag & CSTOPB, CSTOPB);
	assert_int_equal(put(c, "out"), 3);
	until(b, read(master, buf, sizeof(buf)) == 3);
	assert_string_equal(buf, "out");
	assert_int_equal(write(master, "in\r", 3), 3);
	until(b, b->fe.n == 3);
	assert_memory_equal(b->fe.got, "in\r", 3);
	close(slave);
	close(master);
	until(b, b->fe.closed == 1);
	assert_int_equal(put(c, "gone"), 4);
	chardev_free(c);
}

static void test_udp(void **state)
{
	struct bench *b = *state;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in from;
	socklen_t len = sizeof(a);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	struct chardev *c;
	char text[64], buf[100] = { 0 };

	assert_int_equal(bind(s, (struct sockaddr *)&a, len), 0);
	getsockname(s, (struct sockaddr *)&a, &len);
	make_fails(b, "udp:127.0.0.1:5@192.0.2.77:1", "192.0.2.77:1");
	snprintf(text, sizeof(text), "udp:127.0.0.1:%d@127.0.0.1:0", ntohs(a.sin_port));
	c = make(b, text);
	attach(c, &b->fe);
	b->fe.room = 0;
	for (int i = 0; i < 5; i++)
		put(c, "x"); /* one turn: one datagram */
	len = sizeof(from);
	until(b, recvfrom(s, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len) == 5);
	assert_string_equal(buf, "xxxxx");
	assert_int_equal(sendto(s, "0123456789", 10, 0, (struct sockaddr *)&from, len), 10);
	assert_int_equal(sendto(s, "abc", 3, 0, (struct sockaddr *)&from, len), 3);
	for (size_t i = 1; i <= 13; i++) { /* a UART without FIFO: no byte of them is lost */
		rounds(b, 3);
		b->fe.room = 1;
		chardev_accept_input(c);
		until(b, b->fe.n == i);
	}
	assert_memory_equal(b->fe.got, "0123456789abc", 13);
	{ /* a guest may name any length: a turn of the loop sends only so much of it */
		size_t all = 10 << 20;
		uint8_t *big = calloc(1, all);

		assert_int_equal(chardev_write(c, big, all), 65536);
		until(b, b->fe.writable == 1);
		chardev_write_all(c, big, all);
		free(big);
	}
	close(s);
	put(c, "into the void");
	rounds(b, 3);
	put(c, "into the void");
	b->fe.room = 10;
	chardev_accept_input(c);
	rounds(b, 5);
	assert_false(loop_step(b->loop, false)); /* a refused datagram does not spin */
	chardev_free(c);
}

static void test_ringbuf(void **state)
{
	struct bench *b = *state;
	struct chardev *c = chardev_ringbuf_new(b->loop, "r", 16, NULL);
	char buf[64] = { 0 };

	assert_null(chardev_ringbuf_new(b->loop, "r", 100, NULL));
	attach(c, &b->fe);
	put(c, "0123456789");
	assert_int_equal(chardev_ringbuf_read(c, buf, 4), 4);
	assert_string_equal(buf, "0123");
	put(c, "abcdefghijkl"); /* 18 now: the two oldest go */
	assert_int_equal(chardev_ringbuf_read(c, buf, sizeof(buf)), 16);
	assert_memory_equal(buf, "6789abcdefghijkl", 16);
	put(c, "a text that is much longer than sixteen bytes");
	assert_int_equal(chardev_ringbuf_read(c, buf, sizeof(buf)), 16);
	assert_memory_equal(buf, "an sixteen bytes", 16);
	assert_int_equal(chardev_ringbuf_read(c, buf, sizeof(buf)), 0);
	b->fe.room = 3;
	assert_int_equal(chardev_ringbuf_write(c, "input", 5), 3);
	assert_int_equal(chardev_ringbuf_write(c, "ut", 2), 0);
	chardev_free(c);
}

static void read_all(const char *path, char *buf, size_t cap)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, buf, cap - 1);

	buf[n < 0 ? 0 : n] = 0;
	close(fd);
}

static void test_file_and_log(void **state)
{
	struct bench *b = *state;
	char out[128], log[128], in[128], buf[64];
	struct chardev_opts o;
	struct chardev *c;

	snprintf(out, sizeof(out), "%s", bench_path(b, "out"));
	snprintf(log, sizeof(log), "%s", bench_path(b, "log"));
	snprintf(in, sizeof(in), "%s", bench_path(b, "in"));
	chardev_opts_init(&o, CHARDEV_FILE);
	assert_int_equal(chardev_opts_set(&o, "path", out, NULL), 0);
	assert_int_equal(chardev_opts_set(&o, "input-path", in, NULL), 0);
	assert_int_equal(chardev_opts_set(&o, "logfile", log, NULL), 0);
	assert_null(chardev_make(b->loop, "f", &o, NULL, NULL, NULL)); /* no input */
	assert_int_equal(access(out, F_OK), -1);                       /* and nothing written */
	close(open(in, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(truncate(in, 5), 0);
	for (int append = 0; append < 2; append++) {
		o.append = o.logappend = (int8_t)append;
		for (int i = 0; i < 2; i++) {
			c = chardev_make(b->loop, "f", &o, NULL, NULL, NULL);
			assert_non_null(c);
			attach(c, &b->fe);
			put(c, "ab");
			chardev_write_all(c, (const uint8_t *)"cd", 2);
			until(b, b->fe.closed == 1 + i + 2 * append);
			chardev_free(c);
		}
		read_all(out, buf, sizeof(buf));
		assert_string_equal(buf, append ? "abcdabcdabcd" : "abcd");
		read_all(log, buf, sizeof(buf));
		assert_string_equal(buf, append ? "abcdabcdabcd" : "abcd");
	}
	assert_int_equal(b->fe.n, 20);
	assert_int_equal(chardev_opts_set(&o, "logfile", "/nonexistent/log", NULL), 0);
	assert_null(chardev_make(b->loop, "f", &o, NULL, NULL, NULL));
	chardev_opts_free(&o);
	unlink(out);
	unlink(log);
	unlink(in);
}

/* A file that cannot grow loses output, stops nobody, and goes on when it can. */
static void test_file_full(void **state)
{
	struct bench *b = *state;
	char out[128], text[200], buf[64];
	struct rlimit was, now;
	struct chardev *c;

	snprintf(out, sizeof(out), "%s", bench_path(b, "out"));
	snprintf(text, sizeof(text), "file:%s", out);
	c = make(b, text);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	now = (struct rlimit){ 4, was.rlim_max };
	put(c, "abcd");
	chardev_flush(c);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
	put(c, "lost");
	chardev_flush(c);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	put(c, "ef");
	chardev_free(c);
	read_all(out, buf, sizeof(buf));
	assert_string_equal(buf, "abcdef");
	unlink(out);
}

/* Several frontends: all write, one reads, C-a c goes round, what was typed stays where it was. */
static void test_mux_ports(void **state)
{
	struct bench *b = *state;
	struct chardev *ring = chardev_ring_new(b->loop, "below", 1000), *m, *p[6];
	const struct chardev_mux_keys keys = { 0 };
	char out[1000] = { 0 };

	m = chardev_mux_new(b->loop, "m", ring, &keys, NULL);
	for (int i = 0; i < 4; i++)
		p[i] = chardev_port(m);
	assert_ptr_equal(p[0], m);
	assert_ptr_not_equal(p[1], p[0]);
	attach(p[0], &b->fe);
	attach(p[1], &b->fe2);
	p[4] = chardev_port(m);
	assert_ptr_equal(p[4], p[2]); /* the first that is free again */
	attach(p[2], &b->fe);
	attach(p[3], &b->fe);
	p[5] = chardev_port(m); /* all are taken */
	assert_int_equal(chardev_attach(p[5], &fe_handlers, &b->fe, NULL), -EBUSY);
	chardev_detach(p[2]);
	chardev_detach(p[3]);
	rounds(b, 3);
	assert_int_equal(b->fe.opened, 1);
	assert_int_equal(b->fe2.opened, 1);
	put(p[0], "from0 ");
	put(p[1], "from1");
	chardev_ring_output(ring, out, sizeof(out));
	assert_string_equal(out, "from0 from1");
	b->fe.room = 1;
	chardev_ring_input(ring, "abc\1cde\1bf", 10);
	until(b, b->fe2.n == 3);
	assert_memory_equal(b->fe2.got, "def", 3);
	assert_int_equal(b->fe2.breaks, 1);
	assert_int_equal(b->fe.n, 1);
	assert_int_equal(b->fe.mux_out, 1);
	assert_int_equal(b->fe2.mux_in, 1);
	b->fe.room = 5; /* what was typed for the first waits for it */
	chardev_accept_input(p[0]);
	until(b, b->fe.n == 3);
	assert_memory_equal(b->fe.got, "abc", 3);
	chardev_mux_focus(p[0]);
	chardev_ring_input(ring, "g", 1);
	until(b, b->fe.n == 4);
	chardev_ring_event(ring, CHARDEV_CLOSED);
	assert_int_equal(b->fe.closed, 1);
	assert_int_equal(b->fe2.closed, 1);
	assert_false(chardev_is_open(p[1]));
	/* the focused one leaves: the other one has the keys */
	chardev_detach(p[0]);
	chardev_ring_input(ring, "h\1x\1c", 5); /* without keys C-a x does nothing */
	until(b, b->fe2.n == 4);
	chardev_detach(p[1]);
	chardev_free(m);
}

/* A port that is full stays as it is, whatever is typed in the same piece. */
static void test_mux_full(void **state)
{
	struct bench *b = *state;
	struct chardev *ring = chardev_ring_new(b->loop, "below", 1000), *m, *p;
	const struct chardev_mux_keys keys = { 0 };
	uint8_t x[65536 - 1];

	m = chardev_mux_new(b->loop, "m", ring, &keys, NULL);
	attach(m, &b->fe);
	p = chardev_port(m);
	p = chardev_port(m);
	attach(p, &b->fe2);
	b->fe.room = 0;
	memset(x, 'x', sizeof(x));
	chardev_ring_input(ring, x, sizeof(x)); /* all but a byte */
	chardev_ring_input(ring, "\1c", 2);
	rounds(b, 1000);
	chardev_ring_input(ring, "\1cy\1\1z", 6);
	rounds(b, 10);
	assert_int_equal(b->fe2.n, 0);
	b->fe.room = sizeof(b->fe.got);
	chardev_accept_input(m);
	until(b, b->fe.n == sizeof(x) + 1);
	rounds(b, 10);
	assert_int_equal(b->fe.n, sizeof(x) + 1);
	assert_memory_equal(b->fe.got, x, sizeof(x));
	assert_int_equal(b->fe.got[sizeof(x)], 'y');
	chardev_detach(p);
	chardev_detach(m);
	chardev_free(m);
}

static void mux_quits(void *opaque)
{
	++*(int *)opaque;
}

/* The C-a of one peer is not the next one's. */
static void test_mux_peers(void **state)
{
	struct bench *b = *state;
	struct chardev *ring = chardev_ring_new(b->loop, "below", 1000), *m;
	int quits = 0;
	const struct chardev_mux_keys keys = { .quit = mux_quits, .opaque = &quits };

	m = chardev_mux_new(b->loop, "m", ring, &keys, NULL);
	attach(m, &b->fe);
	chardev_ring_input(ring, "a\1", 2);
	until(b, b->fe.n == 1);
	chardev_ring_event(ring, CHARDEV_CLOSED);
	chardev_ring_event(ring, CHARDEV_OPENED);
	chardev_ring_input(ring, "x", 1);
	until(b, b->fe.n == 2);
	assert_int_equal(quits, 0);
	chardev_ring_input(ring, "\1x", 2);
	until(b, quits == 1);
	chardev_detach(m);
	chardev_free(m);
}

/* A log below a mux has what all frontends wrote. */
static void test_mux_options(void **state)
{
	struct bench *b = *state;
	char log[128], buf[64];
	struct chardev_opts o;
	struct chardev *c;

	snprintf(log, sizeof(log), "%s", bench_path(b, "log"));
	chardev_opts_init(&o, CHARDEV_NULL);
	assert_int_equal(chardev_opts_set(&o, "mux", "on", NULL), 0);
	assert_int_equal(chardev_opts_set(&o, "logfile", log, NULL), 0);
	c = chardev_make(b->loop, "m", &o, NULL, NULL, NULL);
	assert_non_null(c);
	assert_ptr_not_equal(chardev_port(c), chardev_port(c));
	put(c, "hello");
	chardev_free(c);
	read_all(log, buf, sizeof(buf));
	assert_string_equal(buf, "hello");
	unlink(log);
	chardev_opts_free(&o);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bench_setup, bench_teardown)
	const struct CMUnitTest tests[] = {
		T(test_pty),         T(test_pty_slow),     T(test_pty_without_descriptors),
		T(test_pipe),        T(test_tty),          T(test_udp),
		T(test_ringbuf),     T(test_file_and_log), T(test_mux_ports),
		T(test_mux_options), T(test_mux_full),     T(test_mux_peers),
		T(test_file_full),
	};

	return cmocka_run_group_tests_name("char_backends", tests, NULL, NULL);
}
