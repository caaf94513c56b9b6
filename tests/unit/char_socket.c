/* Socket chardevs on real sockets: servers, clients, reconnecting, telnet, hang-ups, passed fds. */
#include "chartest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static void attach(struct chardev *c, struct fe *f)
{
	assert_int_equal(chardev_attach(c, &fe_handlers, f, NULL), 0);
}

static int unix_connect(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		return -1;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int unix_listen(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

/* The port after the last colon of a description. */
static int port_of(struct chardev *c)
{
	char text[256];

	chardev_describe(c, text, sizeof(text));
	return atoi(strrchr(text, ':') + 1);
}

static int tcp_connect(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Read until n bytes are there, serving the loop. */
static void expect(struct bench *b, int fd, const void *want, size_t n)
{
	uint8_t buf[512];
	size_t got = 0;

	assert_true(n <= sizeof(buf));
	for (int tries = 0; got < n; tries++) {
		ssize_t r = read(fd, buf + got, n - got);

		if (r > 0)
			got += (size_t)r;
		else if (!r || tries > 5000)
			fail_msg("%zu of %zu bytes", got, n);
		if (!loop_step(b->loop, false))
			usleep(1000);
	}
	assert_memory_equal(buf, want, n);
}

static void test_unix_server(void **state)
{
	struct bench *b = *state;
	char text[200], path[128], desc[250];
	struct chardev *c;
	int fd, second;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	close(unix_listen(path)); /* left over from a process that was killed */
	snprintf(text, sizeof(text), "unix:%s,server=on,wait=off", path);
	c = make(b, text);
	make_fails(b, text, "another process listens");
	assert_int_equal(c->ops->ready(c, NULL), CHARDEV_READY);
	attach(c, &b->fe);
	rounds(b, 3);
	assert_false(chardev_is_open(c));
	assert_int_equal(b->fe.opened, 0);
	assert_int_equal(put(c, "lost"), 4);
	chardev_describe(c, desc, sizeof(desc));
	snprintf(text, sizeof(text), "disconnected:unix:%s,server=on", path);
	assert_string_equal(desc, text);
	for (int round = 1; round < 4; round++) {
		fd = unix_connect(path);
		second = unix_connect(path); /* waits its turn */
		until(b, b->fe.opened == 2 * round - 1);
		put(c, "hello");
		expect(b, fd, "hello", 5);
		assert_int_equal(write(fd, "abc", 3), 3);
		until(b, b->fe.n == 6u * (unsigned)round - 3);
		assert_int_equal(write(second, "def", 3), 3);
		rounds(b, 5);
		assert_int_equal(b->fe.opened, 2 * round - 1);
		close(fd);
		until(b, b->fe.n == 6u * (unsigned)round);
		assert_int_equal(b->fe.opened, 2 * round);
		close(second);
		until(b, b->fe.closed == 2 * round);
	}
	assert_memory_equal(b->fe.got, "abcdefabcdefabcdef", 18);
	chardev_free(c);
	assert_int_equal(access(path, F_OK), -1);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	make_fails(b, text + strlen("disconnected:"), "is no socket");
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	make_fails(b, "unix:/nonexistent/s,server=on", "/nonexistent/s: No such file");
}

/* The last words of a peer that hung up reach a guest that reads slowly; then comes the next. */
static void test_last_words(void **state)
{
	struct bench *b = *state;
	char text[200], path[128];
	uint8_t big[3000];
	struct chardev *c;
	int fd;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	snprintf(text, sizeof(text), "unix:%s,server=on,wait=off", path);
	c = make(b, text);
	attach(c, &b->fe);
	b->fe.room = 0;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = pattern(i);
	fd = unix_connect(path);
	assert_int_equal(write(fd, big, sizeof(big)), sizeof(big));
	close(fd);
	until(b, b->fe.opened == 1);
	rounds(b, 5);
	assert_int_equal(b->fe.closed, 0);
	assert_false(loop_step(b->loop, false)); /* the hang-up does not spin */
	while (b->fe.n < sizeof(big)) {
		b->fe.room = 16;
		chardev_accept_input(c);
		rounds(b, 3);
	}
	b->fe.room = 16;
	chardev_accept_input(c);
	until(b, b->fe.closed == 1);
	assert_memory_equal(b->fe.got, big, sizeof(big));
	/* again, but the guest never reads: the next peer gets in all the same */
	b->fe.room = 0;
	fd = unix_connect(path);
	assert_int_equal(write(fd, "xxx", 3), 3);
	close(fd);
	until(b, b->fe.opened == 2);
	fd = unix_connect(path);
	until(b, b->fe.opened == 3);
	assert_int_equal(b->fe.closed, 2);
	/* and one without last words is gone at once */
	close(fd);
	until(b, b->fe.closed == 3);
	chardev_free(c);
}

/* Out of descriptors the listener is left alone for a moment, and the peer gets in later. */
static void test_no_descriptors(void **state)
{
	struct bench *b = *state;
	char text[200], path[128];
	struct rlimit was, now;
	struct chardev *c;
	int fd, spare;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	snprintf(text, sizeof(text), "unix:%s,server=on,wait=off", path);
	c = make(b, text);
	attach(c, &b->fe);
	fd = unix_connect(path);
	spare = dup(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	now = (struct rlimit){ (rlim_t)spare + 1, was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	for (int i = 0; i < 50; i++)
		loop_step(b->loop, false);
	assert_false(loop_step(b->loop, false)); /* does not spin */
	assert_int_equal(b->fe.opened, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	close(spare);
	until(b, b->fe.opened == 1);
	close(fd);
	until(b, b->fe.closed == 1);
	chardev_free(c);
}

static void test_tcp_server(void **state)
{
	struct bench *b = *state;
	uint8_t chunk[1000], buf[4096];
	struct chardev *c = make(b, "tcp:127.0.0.1:0,server=on,wait=on,nodelay");
	size_t sent = 0, seen = 0, n = 1;
	char text[100];
	int fd;

	attach(c, &b->fe);
	assert_int_equal(c->ops->ready(c, NULL), CHARDEV_LISTENING);
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%d,server=on,wait=off", port_of(c));
	make_fails(b, text, "Address already in use");
	fd = tcp_connect(port_of(c));
	until(b, b->fe.opened == 1);
	assert_int_equal(c->ops->ready(c, NULL), CHARDEV_READY);
	/* a peer that does not read: bounded, then complete */
	for (int full = 0; full < 5; sent += n) {
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = pattern(sent + i);
		n = chardev_write(c, chunk, sizeof(chunk));
		assert_true(sent < 64u << 20);
		full = n ? 0 : full + 1;
		if (!n) {
			rounds(b, 1);
			usleep(5000); /* for the kernel's own queues */
		}
	}
	assert_true(sent >= CHARDEV_QUEUE);
	while (seen < sent) {
		ssize_t r = read(fd, buf, sizeof(buf));

		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != pattern(seen + (size_t)i))
				fail_msg("byte %zu is wrong", seen + (size_t)i);
		seen += r > 0 ? (size_t)r : 0;
		rounds(b, 1);
	}
	until(b, b->fe.writable >= 1);
	/* a peer that half-closes while nobody reads is noticed, too */
	b->fe.room = 0;
	chardev_accept_input(c);
	rounds(b, 3);
	close(fd);
	until(b, b->fe.closed == 1);
	chardev_free(c);
	make_fails(b, "tcp:127.0.0.1:nosuchservice,server=on", "127.0.0.1:nosuchservice");
}

static void test_tcp_ports(void **state)
{
	struct bench *b = *state;
	struct chardev *c = make(b, "tcp:127.0.0.1:0,server=on,wait=off"), *d;
	int port = port_of(c), fd;
	char text[100];

	snprintf(text, sizeof(text), "tcp:127.0.0.1:%d,server=on,wait=off,to=%d", port, port + 20);
	d = make(b, text);
	assert_int_not_equal(port_of(d), port);
	assert_true(port_of(d) <= port + 20);
	chardev_free(d);
	chardev_free(c);
	c = make(b, "tcp:localhost:0,server=on,wait=off,ipv4=on"); /* both families have it */
	fd = tcp_connect(port_of(c));
	until(b, chardev_is_open(c));
	close(fd);
	chardev_free(c);
}

static void test_ipv6(void **state)
{
	struct bench *b = *state;
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t len = sizeof(a);
	int s = socket(AF_INET6, SOCK_STREAM, 0);
	struct chardev *c, *d;
	char text[100];

	if (s < 0 || bind(s, (struct sockaddr *)&a, len)) {
		if (s >= 0)
			close(s);
		skip();
	}
	close(s);
	c = make(b, "tcp:[::1]:0,server=on,wait=off");
	snprintf(text, sizeof(text), "tcp:[::1]:%d", port_of(c));
	d = make(b, text);
	until(b, chardev_is_open(c) && chardev_is_open(d));
	attach(c, &b->fe);
	put(d, "six");
	until(b, b->fe.n == 3);
	chardev_free(d);
	chardev_free(c);
}

static void test_client(void **state)
{
	struct bench *b = *state;
	char text[200], path[128];
	struct err e = { 0 };
	struct chardev *c;
	int s, fd;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	snprintf(text, sizeof(text), "unix:%s", path);
	c = make(b, text); /* nobody there: told before the machine starts */
	assert_true(c->ops->ready(c, &e) < 0);
	assert_non_null(strstr(e.msg, path));
	chardev_free(c);
	s = unix_listen(path);
	c = make(b, text);
	attach(c, &b->fe);
	until(b, (fd = accept(s, NULL, NULL)) >= 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	until(b, b->fe.opened == 1);
	assert_int_equal(c->ops->ready(c, &e), CHARDEV_READY);
	put(c, "hi");
	expect(b, fd, "hi", 2);
	close(fd);
	until(b, b->fe.closed == 1);
	rounds(b, 5);
	assert_int_equal(accept(s, NULL, NULL), -1); /* without reconnect= it stays so */
	assert_int_equal(put(c, "dropped"), 7);
	chardev_free(c);
	close(s);
	unlink(path);
	/* a port nobody listens on */
	c = make(b, "tcp:127.0.0.1:1");
	until(b, c->ops->ready(c, &e));
	assert_true(c->ops->ready(c, &e) < 0);
	assert_string_equal(e.msg, "127.0.0.1:1: Connection refused");
	chardev_free(c);
	/* a name that does not exist, looked up on a thread */
	c = make(b, "tcp:no-such-host.invalid:1");
	until(b, c->ops->ready(c, &e));
	assert_non_null(strstr(e.msg, "no-such-host.invalid"));
	chardev_free(c);
	c = make(b, "tcp:no-such-host.invalid:1"); /* freed while it is looked up */
	chardev_free(c);
}

static void test_reconnect(void **state)
{
	struct bench *b = *state;
	char text[200], path[128];
	struct chardev *c;
	int s, fd;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	snprintf(text, sizeof(text), "unix:%s,reconnect=1", path);
	c = make(b, text);
	assert_int_equal(c->ops->ready(c, NULL),
			 CHARDEV_READY); /* the machine does not wait for it */
	attach(c, &b->fe);
	rounds(b, 5);
	s = unix_listen(path);
	for (int round = 1; round < 3; round++) {
		until(b, (fd = accept(s, NULL, NULL)) >= 0);
		until(b, b->fe.opened == round);
		close(fd);
		until(b, b->fe.closed == round);
	}
	chardev_free(c);
	close(s);
	unlink(path);
}

/* The connection is lost while there are no descriptors: it is tried again later all the same. */
static void test_reconnect_without_descriptors(void **state)
{
	struct bench *b = *state;
	char text[200], path[128];
	struct rlimit was, now;
	struct chardev *c;
	int listener, fd, spare;

	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	listener = unix_listen(path);
	snprintf(text, sizeof(text), "unix:%s,reconnect=1", path);
	c = make(b, text);
	attach(c, &b->fe);
	until(b, b->fe.opened == 1);
	fd = accept(listener, NULL, NULL);
	spare = dup(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	now = (struct rlimit){ 0, was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	close(fd);
	close(spare);
	until(b, b->fe.closed == 1);
	for (int i = 0; i < 120; i++) { /* longer than the second */
		loop_step(b->loop, false);
		usleep(10000);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	until(b, b->fe.opened == 2);
	close(listener);
	chardev_free(c);
	unlink(path);
}

static void test_fd(void **state)
{
	struct bench *b = *state;
	struct chardev_opts o;
	struct err e = { 0 };
	struct chardev *c;
	char num[16], path[128];
	int sv[2], s, fd;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	fcntl(sv[1], F_SETFL, O_NONBLOCK);
	chardev_opts_init(&o, CHARDEV_SOCKET);
	snprintf(num, sizeof(num), "%d", sv[0]);
	assert_int_equal(chardev_opts_set(&o, "fd", num, NULL), 0);
	o.server = 1;
	assert_null(chardev_make(b->loop, "c", &o, NULL, NULL, &e));
	assert_non_null(strstr(e.msg, "does not listen"));
	o.server = -1;
	c = chardev_make(b->loop, "c", &o, NULL, NULL, &e);
	assert_non_null(c);
	attach(c, &b->fe);
	until(b, b->fe.opened == 1);
	put(c, "pair");
	expect(b, sv[1], "pair", 4);
	chardev_free(c); /* has closed it */
	assert_int_equal(read(sv[1], num, 1), 0);
	close(sv[1]);
	snprintf(path, sizeof(path), "%s", bench_path(b, "s"));
	s = unix_listen(path);
	snprintf(num, sizeof(num), "%d", s);
	assert_int_equal(chardev_opts_set(&o, "fd", num, NULL), 0);
	assert_null(chardev_make(b->loop, "c", &o, NULL, NULL, &e));
	assert_non_null(strstr(e.msg, "needs server=on"));
	o.server = 1;
	c = chardev_make(b->loop, "c", &o, NULL, NULL, &e);
	assert_non_null(c);
	fd = unix_connect(path);
	until(b, chardev_is_open(c));
	close(fd);
	chardev_free(c);
	unlink(path);
	for (int i = 0; i < 4; i++) {
		static const char *const bad[] = { "x", "", "-1", "987654" };

		assert_int_equal(chardev_opts_set(&o, "fd", bad[i], NULL), 0);
		assert_null(chardev_make(b->loop, "c", &o, NULL, NULL, &e));
		assert_non_null(strstr(e.msg, "fd="));
	}
	snprintf(num, sizeof(num), "%d", STDIN_FILENO);
	chardev_opts_free(&o);
}

static void test_abstract(void **state)
{
	struct bench *b = *state;
	char text[200];
	struct chardev *c, *d;

	snprintf(text, sizeof(text), "unix:kvasir-%d,server=on,wait=off,abstract=on", getpid());
	c = make(b, text);
	snprintf(text, sizeof(text), "unix:kvasir-%d,abstract=on", getpid());
	d = make(b, text);
	until(b, chardev_is_open(c) && chardev_is_open(d));
	chardev_free(d);
	chardev_free(c);
}

static void test_telnet(void **state)
{
	static const uint8_t start[] = { 255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0 };
	static const uint8_t in[] = { 255, 253, 1,  255, 253, 3,   /* yes, echo and SGA */
				      255, 251, 31, 255, 253, 24,  /* NAWS, terminal type: no */
				      'a', 13,  0,  255, 255, 'b', /* CR NUL; IAC IAC */
				      255, 250, 31, 0,   255, 255, 7, 255, 240, /* a sub-option */
				      255, 251, 0,  13,  0, /* binary: NUL stays */
				      255, 243,             /* BREAK */
				      255, 241, 'c' };      /* NOP */
	static const uint8_t refused[] = { 255, 254, 31, 255, 252, 24 };
	static const uint8_t want[] = { 'a', 13, 255, 'b', 13, 0, 'c' };
	struct bench *b = *state;
	struct chardev *c = make(b, "telnet:127.0.0.1:0,server=on,wait=off");
	uint8_t *nobody;
	int fd;

	attach(c, &b->fe);
	nobody = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(nobody, MAP_FAILED);
	assert_int_equal(chardev_write(c, nobody, 1 << 20), 1 << 20); /* is not even looked at */
	munmap(nobody, 1 << 20);
	for (int round = 0; round < 2; round++) { /* the second with its bytes one by one */
		b->fe.n = 0;
		b->fe.breaks = 0;
		fd = tcp_connect(port_of(c));
		expect(b, fd, start, sizeof(start));
		for (size_t i = 0, n; i < sizeof(in); i += n) {
			n = round ? 1 : sizeof(in);
			assert_int_equal(write(fd, in + i, n), n);
			rounds(b, 2);
		}
		until(b, b->fe.n == sizeof(want) && b->fe.breaks == 1);
		assert_memory_equal(b->fe.got, want, sizeof(want));
		expect(b, fd, refused, sizeof(refused));
		assert_int_equal(chardev_write(c, (const uint8_t *)"x\xffy\xff\xff", 5), 5);
		expect(b, fd, "x\xff\xffy\xff\xff\xff\xff", 8);
		close(fd);
		until(b, b->fe.closed == round + 1);
	}
	chardev_free(c);
}

/* Break and key in one packet, as scripts send them: SysRq needs the break first. */
static void test_telnet_break(void **state)
{
	static const uint8_t in[] = { 'a', 255, 243, 'h', 255, 255, 255, 243, 255, 243, 'b' };
	static const char want[] = "a!h\xff!!b";
	struct bench *b = *state;
	struct chardev *c = make(b, "telnet:127.0.0.1:0,server=on,wait=off");
	int fd;

	attach(c, &b->fe);
	for (size_t room = 1; room <= sizeof(in); room++) {
		b->fe = (struct fe){ .mark = '!', .room = room };
		fd = tcp_connect(port_of(c));
		until(b, b->fe.opened == 1);
		assert_int_equal(write(fd, in, sizeof(in)), sizeof(in));
		while (b->fe.n < strlen(want)) {
			until(b, !b->fe.room || b->fe.n == strlen(want));
			b->fe.room = room;
			chardev_accept_input(c);
		}
		assert_int_equal(b->fe.breaks, 3);
		assert_memory_equal(b->fe.got, want, strlen(want));
		close(fd);
		until(b, b->fe.closed == 1);
	}
	chardev_free(c);
}

static bool wait_stop;
static int waiting_told;

static void waiting(struct chardev *c)
{
	waiting_told++;
}

static void *connect_soon(void *opaque)
{
	usleep(50000);
	return (void *)(intptr_t)tcp_connect((int)(intptr_t)opaque);
}

/* The machine starts when its chardevs have their peers, or not at all. */
static void test_wait(void **state)
{
	struct bench *b = *state;
	struct chardevs cs = { 0 };
	struct chardev *c = make(b, "tcp:127.0.0.1:0,server=on");
	struct err e = { 0 };
	pthread_t t;
	void *fd;

	assert_int_equal(chardevs_add(&cs, c, NULL), 0);
	assert_int_equal(chardevs_add(&cs, chardev_null_new(b->loop, "n"), NULL), 0);
	pthread_create(&t, NULL, connect_soon, (void *)(intptr_t)port_of(c));
	assert_int_equal(chardevs_wait(&cs, &wait_stop, waiting, &e), 0);
	assert_int_equal(waiting_told, 1);
	assert_true(chardev_is_open(c));
	pthread_join(t, &fd);
	close((int)(intptr_t)fd);
	chardevs_free(&cs);
	assert_int_equal(chardevs_add(&cs, make(b, "mon:tcp:127.0.0.1:1"), NULL), 0);
	assert_true(chardevs_wait(&cs, &wait_stop, waiting, &e) < 0); /* through a mux, too */
	assert_non_null(strstr(e.msg, "refused"));
	chardevs_free(&cs);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bench_setup, bench_teardown)
	const struct CMUnitTest tests[] = {
		T(test_no_descriptors),
		T(test_unix_server),
		T(test_last_words),
		T(test_tcp_server),
		T(test_tcp_ports),
		T(test_ipv6),
		T(test_client),
		T(test_reconnect),
		T(test_fd),
		T(test_abstract),
		T(test_telnet),
		T(test_telnet_break),
		T(test_reconnect_without_descriptors),
		T(test_wait),
	};

	return cmocka_run_group_tests_name("char_socket", tests, NULL, NULL);
}
