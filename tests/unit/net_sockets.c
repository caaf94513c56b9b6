/*
 * Netdevs on sockets, on a tap and their captures: both ends are here. Frames come through whole
 * and in order whatever the sizes of reads; full sockets and full NICs stop the other side; peers
 * go and come; what is no frame ends the connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/net/dump.h"
#include "backend/net/frames.h"
#include "backend/net/kinds.h"
#include "base/bits.h"
#include "nettest.h"

static char dir[] = "/tmp/kvasir-net-XXXXXX";

static struct netdev *make(struct nettest *t, enum netdev_kind kind, const char *text,
			   struct err *e)
{
	struct netdev_opts o;
	struct netdev_env env = { .loop = t->loop };
	struct netdev *nd = NULL;

	if (!nettest_opts(&o, kind, text, e))
		nd = netdev_new(&env, &o, e);
	netdev_opts_free(&o);
	return nd;
}

static void start(struct nettest *t, enum netdev_kind kind, const char *text)
{
	struct err e = { 0 };

	nettest_new(t);
	t->nd = make(t, kind, text, &e);
	if (!t->nd)
		fail_msg("%s: %s", text, e.msg);
	assert_int_equal(netdev_attach(t->nd, &t->nic, 1, NULL), 0);
}

/* The format with the folder's name put in, at most twice. */
static const char *textf(const char *fmt)
{
	static char text[4][300];
	static unsigned n;
	char *out = text[n++ % 4];

	snprintf(out, sizeof(text[0]), fmt, dir, dir);
	return out;
}

static void pattern(uint8_t *f, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		f[i] = (uint8_t)(i * 7 + seed * 31);
}

/* Serve both until b has n frames. */
static bool both_wait(struct nettest *a, struct nettest *b, unsigned n)
{
	for (int i = 0; i < 3000 && b->n < n; i++) {
		nettest_run(a, 0);
		nettest_run(b, 0);
		if (i > 100)
			usleep(500);
	}
	return b->n >= n;
}

static void link_wait(struct nettest *a, struct nettest *b, bool up)
{
	for (int i = 0; i < 3000 && (net_link(&a->nic) != up || net_link(&b->nic) != up); i++) {
		nettest_run(a, 0);
		nettest_run(b, 0);
		usleep(300);
	}
	assert_int_equal(net_link(&a->nic), up);
	assert_int_equal(net_link(&b->nic), up);
}

static void exchange(struct nettest *a, struct nettest *b)
{
	static uint8_t f[NET_FRAME_MAX];
	static const size_t len[] = { 14, 60, 1514, 9014, 65550, 64, 65549 };

	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		pattern(f, len[i], i);
		nettest_send(a, f, len[i], NULL);
		assert_true(both_wait(a, b, i + 1));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
		pattern(f, len[i], i);
		assert_int_equal(b->got[i].len, len[i]);
		assert_memory_equal(b->got[i].bytes, f, len[i]);
	}
	nettest_clear(b);
}

static void sockets_stream(void **state)
{
	const char *srv = textf("server=on,addr.type=unix,addr.path=%s/s");
	const char *cli = textf("addr.type=unix,addr.path=%s/s");
	struct nettest a, b, c;
	struct err e = { 0 };

	nettest_new(&c);
	assert_null(make(&c, NETDEV_STREAM, cli, &e)); /* nobody there */
	assert_non_null(strstr(e.msg, "cannot connect to"));
	start(&a, NETDEV_STREAM, srv);
	assert_false(net_link(&a.nic));
	assert_null(make(&c, NETDEV_STREAM, srv, &e)); /* a living server */
	assert_non_null(strstr(e.msg, "cannot listen at"));
	start(&b, NETDEV_STREAM, cli);
	link_wait(&a, &b, true);
	exchange(&a, &b);
	exchange(&b, &a);
	/* the client goes, another comes */
	nettest_free(&b);
	for (int i = 0; i < 100 && net_link(&a.nic); i++)
		nettest_run(&a, 1);
	assert_false(net_link(&a.nic));
	start(&b, NETDEV_STREAM, cli);
	link_wait(&a, &b, true);
	exchange(&b, &a);
	nettest_free(&a);
	for (int i = 0; i < 100 && net_link(&b.nic); i++)
		nettest_run(&b, 1);
	assert_false(net_link(&b.nic));
	nettest_free(&b);
	nettest_free(&c);
}

static void sockets_reconnect(void **state)
{
	const char *srv = textf("server=on,addr.type=unix,addr.path=%s/r");
	const char *cli = textf("addr.type=unix,addr.path=%s/r,reconnect-ms=5");
	struct nettest a, b;

	start(&b, NETDEV_STREAM, cli);
	nettest_run(&b, 20);
	assert_false(net_link(&b.nic));
	for (int round = 0; round < 3; round++) {
		start(&a, NETDEV_STREAM, srv);
		link_wait(&a, &b, true);
		exchange(&a, &b);
		nettest_free(&a);
		nettest_run(&b, 10);
		assert_false(net_link(&b.nic));
	}
	nettest_free(&b);
}

/* A server left its path behind when it was killed: the path is taken over. */
static void sockets_stale_path(void **state)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct nettest a;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/stale", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	start(&a, NETDEV_STREAM, textf("server=on,addr.type=unix,addr.path=%s/stale"));
	nettest_free(&a);
	assert_int_equal(access(un.sun_path, F_OK), -1);
}

/* A peer that does not read: the NIC is told to wait, and nothing is lost in the middle. */
static void sockets_stream_flow(void **state)
{
	static uint8_t f[9000], got[9004];
	struct nettest t;
	int s[2];
	char text[64];
	unsigned sent = 0, room;
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, f, sizeof(f), NULL);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	snprintf(text, sizeof(text), "addr.type=fd,addr.str=%d", s[0]);
	start(&t, NETDEV_STREAM, text);
	pattern(f, sizeof(f), 0);
	while (net_send(&t.nic, &p) && sent < 10000)
		pattern(f, sizeof(f), ++sent);
	assert_true(sent > 3 && sent < 10000);
	nettest_run(&t, 5);
	assert_int_equal(t.rooms, 0);
	for (unsigned i = 0; i < sent; i++) {
		for (size_t at = 0; at < sizeof(got);) {
			ssize_t n = recv(s[1], got + at, sizeof(got) - at, MSG_DONTWAIT);

			if (n > 0)
				at += (size_t)n;
			nettest_run(&t, 0);
		}
		pattern(f, sizeof(f), i);
		assert_memory_equal(got, "\0\0\x23\x28", 4);
		assert_memory_equal(got + 4, f, sizeof(f));
	}
	nettest_run(&t, 1);
	assert_true(t.rooms);
	/* the other direction: the NIC has no room, byte by byte, two frames in one read */
	t.room = 1;
	room = 0;
	for (unsigned i = 0; i < 40; i++) {
		uint8_t one[24] = { 0, 0, 0, 20, (uint8_t)i };

		for (unsigned k = 0; k < sizeof(one); k += i % 8 ? sizeof(one) : 1)
			assert_true(send(s[1], one + k, i % 8 ? sizeof(one) : 1, 0) > 0);
		nettest_run(&t, 0);
	}
	nettest_run(&t, 5);
	assert_int_equal(t.n, 1);
	for (unsigned i = 0; i < 100 && t.n < 40; i++) {
		t.room = 1 + room++ % 3;
		net_room(&t.nic);
		nettest_run(&t, 1);
	}
	assert_int_equal(t.n, 40);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(t.got[i].bytes[0], i);
	/* what is no frame */
	t.room = 100;
	assert_true(send(s[1], "\0\0\0\0xxxx", 8, 0) > 0);
	nettest_run(&t, 5);
	assert_false(net_link(&t.nic));
	assert_int_equal(recv(s[1], got, 1, MSG_DONTWAIT), 0);
	close(s[1]);
	nettest_free(&t);
}

static void sockets_dgram(void **state)
{
	struct nettest a, b;
	static uint8_t f[9014];

	start(&a, NETDEV_DGRAM,
	      "local.type=inet,local.host=127.0.0.1,local.port=45671,"
	      "remote.type=inet,remote.host=127.0.0.1,remote.port=45672");
	start(&b, NETDEV_SOCKET, "udp=127.0.0.1:45671,localaddr=127.0.0.1:45672");
	for (unsigned i = 0; i < 5; i++) {
		pattern(f, sizeof(f), i);
		nettest_send(&a, f, sizeof(f), NULL);
	}
	assert_true(both_wait(&a, &b, 5));
	assert_memory_equal(b.got[4].bytes, f, sizeof(f));
	b.room = 0;
	nettest_send(&a, f, 100, NULL);
	nettest_send(&a, f, 101, NULL);
	nettest_run(&b, 5);
	b.room = 10;
	net_room(&b.nic);
	assert_true(both_wait(&a, &b, 7));
	assert_int_equal(b.got[5].len, 100);
	assert_int_equal(b.got[6].len, 101);
	nettest_free(&a);
	nettest_free(&b);
	start(&a, NETDEV_DGRAM,
	      textf("local.type=unix,local.path=%s/d1,remote.type=unix,remote.path=%s/d2"));
	nettest_send(&a, f, 60, NULL); /* nobody there: lost */
	start(&b, NETDEV_DGRAM,
	      textf("local.type=unix,local.path=%s/d2,remote.type=unix,remote.path=%s/d1"));
	nettest_send(&b, f, 60, NULL);
	assert_true(both_wait(&b, &a, 1));
	nettest_free(&a);
	nettest_free(&b);
}

static int unix_socket(const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s", dir, name);
	unlink(un.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

/*
 * A peer on a unix socket that does not read: the NIC waits until it does, and so does the loop,
 * without looking again and again. Then it goes and another one comes.
 */
static void sockets_dgram_flow(void **state)
{
	static uint8_t f[1000];
	struct nettest t;
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, f, sizeof(f), NULL);
	unsigned sent = 0, got = 0, busy = 0;
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = unix_socket("e2");

	start(&t, NETDEV_DGRAM,
	      textf("local.type=unix,local.path=%s/e1,remote.type=unix,remote.path=%s/e2"));
	while (net_send(&t.nic, &p) && sent < 10000)
		sent++;
	assert_true(sent > 3 && sent < 10000);
	for (int i = 0; i < 100; i++) {
		busy += loop_step(t.loop, false);
		if (t.rooms && net_send(&t.nic, &p))
			sent++;
		t.rooms = 0;
	}
	assert_true(busy < 5);
	for (int i = 0; i < 1000 && got < sent; i++) {
		got += recv(fd, f, sizeof(f), 0) == sizeof(f);
		nettest_run(&t, 0);
	}
	assert_int_equal(got, sent);
	assert_true(t.rooms);
	assert_true(net_send(&t.nic, &p));
	assert_int_equal(recv(fd, f, sizeof(f), 0), sizeof(f));
	/* the peer goes: lost; another comes at its place, and is heard before it is sent to */
	close(fd);
	assert_true(net_send(&t.nic, &p));
	fd = unix_socket("e2");
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/e1", dir);
	assert_int_equal(sendto(fd, f, 60, 0, (struct sockaddr *)&un, sizeof(un)), 60);
	assert_true(nettest_wait(&t, 1));
	assert_true(net_send(&t.nic, &p));
	assert_int_equal(recv(fd, f, sizeof(f), 0), sizeof(f));
	/* that one is full, too */
	for (sent = 0; net_send(&t.nic, &p) && sent < 10000;)
		sent++;
	t.rooms = 0;
	nettest_run(&t, 1);
	assert_int_equal(t.rooms, 0);
	while (recv(fd, f, sizeof(f), 0) > 0)
		nettest_run(&t, 0);
	assert_true(t.rooms);
	/* and goes without having been sent to */
	for (sent = 0; net_send(&t.nic, &p) && sent < 10000;)
		sent++;
	close(fd);
	t.rooms = 0;
	nettest_run(&t, 1);
	assert_true(t.rooms);
	fd = unix_socket("e2");
	assert_int_equal(sendto(fd, f, 60, 0, (struct sockaddr *)&un, sizeof(un)), 60);
	assert_true(nettest_wait(&t, 2));
	close(fd);
	nettest_free(&t);
}

/* A group: the others hear it, the sender does not. */
static void sockets_mcast(void **state)
{
	struct nettest a, b;
	struct err e = { 0 };
	uint8_t f[60] = { 1, 2, 3 };

	nettest_new(&a);
	a.nd = make(&a, NETDEV_SOCKET, "mcast=230.1.2.3:45673,localaddr=127.0.0.1", &e);
	if (!a.nd) {
		print_message("no multicast here: %s\n", e.msg);
		nettest_free(&a);
		skip();
	}
	assert_int_equal(netdev_attach(a.nd, &a.nic, 1, NULL), 0);
	start(&b, NETDEV_DGRAM,
	      "remote.type=inet,remote.host=230.1.2.3,remote.port=45673,"
	      "local.type=inet,local.host=127.0.0.1");
	nettest_send(&a, f, 60, NULL);
	assert_true(both_wait(&a, &b, 1));
	nettest_send(&b, f, 60, NULL);
	assert_true(both_wait(&b, &a, 1));
	nettest_run(&a, 5);
	nettest_run(&b, 5);
	assert_int_equal(a.n, 1);
	assert_int_equal(b.n, 1);
	nettest_free(&a);
	nettest_free(&b);
}

/* Random bytes as the peer's stream: frames of the lengths they say, or an end. */
static void sockets_hostile_frames(void **state)
{
	static struct frames f;

	for (unsigned i = 0; i < 300; i++) {
		unsigned bytes = 0;
		int r = 0;

		frames_clear(&f);
		while (bytes < 300000 && r >= 0) {
			const uint8_t *frame;
			size_t room, len, n = (size_t)rand() % 5000 + 1;
			uint8_t *at = frames_room(&f, &room);

			assert_true(room);
			n = MIN(n, room);
			for (size_t k = 0; k < n; k++)
				at[k] = rand() % 8 ? 0 : (uint8_t)(rand() % 4);
			frames_put(&f, n);
			bytes += (unsigned)n;
			while ((r = frames_next(&f, &frame, &len)) > 0) {
				assert_true(frame >= f.buf && frame + len <= f.buf + f.have);
				frames_taken(&f);
			}
		}
	}
}

static void sockets_dump(void **state)
{
	struct nettest a, b;
	struct netfilter *flt;
	struct err e = { 0 };
	const char *path = textf("%s/cap");
	uint8_t f[100], got[400];
	uint32_t head[4];
	FILE *in;

	assert_null(net_dump_new("d", textf("%s/no/such"), 100, &e));
	assert_non_null(strstr(e.msg, "/no/such"));
	start(&a, NETDEV_STREAM, textf("server=on,addr.type=unix,addr.path=%s/c"));
	start(&b, NETDEV_STREAM, textf("addr.type=unix,addr.path=%s/c"));
	flt = net_dump_new("d", path, 80, &e);
	assert_non_null(flt);
	netdev_add_filter(a.nd, flt);
	link_wait(&a, &b, true);
	pattern(f, 100, 1);
	nettest_send(&a, f, 100, NULL);
	nettest_send(&b, f, 60, NULL);
	assert_true(both_wait(&b, &a, 1));
	in = fopen(path, "r");
	assert_int_equal(fread(got, 1, 24, in), 24);
	memcpy(head, got, 4);
	assert_int_equal(head[0], 0xa1b2c3d4);
	assert_int_equal(fread(head, 1, 16, in), 16);
	assert_int_equal(head[2], 80);
	assert_int_equal(head[3], 100);
	assert_int_equal(fread(got, 1, 80, in), 80);
	assert_memory_equal(got, f, 80);
	assert_int_equal(fread(head, 1, 16, in), 16);
	assert_int_equal(head[2], 60);
	assert_int_equal(fread(got, 1, 400, in), 60);
	fclose(in);
	nettest_free(&a);
	nettest_free(&b);
}

/* A real interface, where we may make one: frames pass between it and a packet socket. */
static void sockets_tap(void **state)
{
	struct nettest t;
	struct err e = { 0 };
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct ifreq ifr = { 0 };
	uint8_t f[100] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5 }, got[2000];
	int fd, n = 0, i;

	nettest_new(&t);
	t.nd = make(&t, NETDEV_TAP, "ifname=kvtest0,queues=2", &e);
	if (!t.nd) {
		assert_non_null(strstr(e.msg, "tun"));
		print_message("no tap here: %s\n", e.msg);
		nettest_free(&t);
		skip();
	}
	assert_int_equal(netdev_attach(t.nd, &t.nic, 1, NULL), 0);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "kvtest0");
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	ll.sll_ifindex = (int)if_nametoindex("kvtest0");
	assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	nettest_send(&t, f, sizeof(f), NULL);
	for (i = 0; i < 100; i++) {
		nettest_run(&t, 1);
		n = (int)recv(fd, got, sizeof(got), 0);
		if (n == 100 && !memcmp(got, f, 14))
			break;
	}
	assert_true(i < 100);
	net_accepts(&t.nic, NET_ALL);
	net_accepts(&t.nic, NET_CSUM);
	nettest_clear(&t);
	f[20] = 7;
	assert_int_equal(send(fd, f, 90, 0), 90);
	for (i = 0; i < 100; i++) {
		nettest_run(&t, 1);
		for (n = 0; n < (int)t.n; n++)
			if (t.got[n].len == 90 && !memcmp(t.got[n].bytes, f, 90))
				i = 1000;
	}
	assert_true(i >= 1000);
	net_serve(&t.nic, false);
	nettest_free(&t);
	start(&t, NETDEV_TAP, "ifname=kvtest1");
	assert_true(net_link(&t.nic));
	if (system("ip link del kvtest1 2>/dev/null") == 0) {
		unsigned busy = 0;

		for (i = 0; i < 100; i++)
			busy += loop_step(t.loop, false);
		assert_true(busy < 3);
		assert_false(net_link(&t.nic));
		nettest_send(&t, f, sizeof(f), NULL);
	}
	nettest_free(&t);
	/* an interface that is no tap; a tap that is busy */
	nettest_new(&t);
	assert_null(make(&t, NETDEV_TAP, "ifname=lo", &e));
	assert_non_null(strstr(e.msg, "lo is no tap"));
	assert_null(make(&t, NETDEV_TAP, "fd=0", &e));
	assert_non_null(strstr(e.msg, "descriptor 0 is no tap"));
	t.nd = make(&t, NETDEV_TAP, "script=/bin/false", &e);
	assert_null(t.nd);
	assert_non_null(strstr(e.msg, "script /bin/false tap"));
	close(fd);
	nettest_free(&t);
}

static int setup(void **state)
{
	return !mkdtemp(dir);
}

static int teardown(void **state)
{
	char cmd[100];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_stream),     cmocka_unit_test(sockets_reconnect),
		cmocka_unit_test(sockets_stale_path), cmocka_unit_test(sockets_stream_flow),
		cmocka_unit_test(sockets_dgram),      cmocka_unit_test(sockets_dgram_flow),
		cmocka_unit_test(sockets_mcast),      cmocka_unit_test(sockets_hostile_frames),
		cmocka_unit_test(sockets_dump),       cmocka_unit_test(sockets_tap),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
