/*
 * User networking from the guest's side: frames made here against libslirp, and servers and clients
 * of this process as "the host". Option texts, too, since most of them are this backend's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/net/kinds.h"
#include "backend/net/offload.h"
#include "base/bits.h"
#include "nettest.h"

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static struct chardev *the_chardev;

static struct chardev *find_chardev(void *opaque, const char *text, struct err *e)
{
	if (!strcmp(text, "chardev:c0"))
		return the_chardev;
	err_set(e, ENOENT, "no chardev %s", text);
	return NULL;
}

static struct netdev *make(struct nettest *t, const char *text, struct err *e)
{
	struct netdev_opts o;
	struct netdev_env env = { .loop = t->loop, .chardev = find_chardev };
	struct netdev *nd = NULL;

	if (!nettest_opts(&o, NETDEV_USER, text, e))
		nd = netdev_new(&env, &o, e);
	netdev_opts_free(&o);
	return nd;
}

static void start(struct nettest *t, const char *text)
{
	struct err e = { 0 };

	nettest_new(t);
	if (!netdev_has_user())
		skip();
	t->nd = make(t, text, &e);
	if (!t->nd)
		fail_msg("%s: %s", text, e.msg);
	assert_int_equal(netdev_attach(t->nd, &t->nic, 1, NULL), 0);
	t->nic.accepts = 0;
}

static void put(uint8_t *p, int n, uint32_t v)
{
	while (n--)
		p[n] = (uint8_t)v, v >>= 8;
}

static uint32_t be(const uint8_t *p, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

#define HOST 0x0a000202
#define SELF 0x0a00020f

static size_t ip_frame(uint8_t *f, uint8_t proto, uint32_t dst, size_t payload)
{
	uint16_t s;

	memset(f, 0, 34);
	memset(f, 0x52, 6);
	f[1] = 0x55;
	put(f + 2, 4, dst);
	memcpy(f + 6, guest_mac, 6);
	put(f + 12, 2, 0x800);
	f[14] = 0x45;
	put(f + 16, 2, (uint32_t)(20 + payload));
	f[22] = 64;
	f[23] = proto;
	put(f + 26, 4, SELF);
	put(f + 30, 4, dst);
	s = (uint16_t)~net_sum_mem(f + 14, 20, 0);
	memcpy(f + 24, &s, 2);
	return 34 + payload;
}

/* Fill the TCP or UDP checksum. */
static void l4_sum(uint8_t *f, size_t len)
{
	size_t field = 34 + (f[23] == 6 ? 16u : 6u);
	uint8_t pseudo[4] = { 0, f[23], 0, 0 };
	uint64_t sum;
	uint16_t s;

	put(pseudo + 2, 2, (uint32_t)(len - 34));
	sum = net_sum_mem(f + 26, 8, net_sum_mem(pseudo, 4, 0));
	memset(f + field, 0, 2);
	s = (uint16_t)~net_sum_mem(f + 34, len - 34, sum);
	memcpy(f + field, &s, 2);
}

static void arp(struct nettest *t)
{
	uint8_t f[60] = { 0 };

	memset(f, 0xff, 6);
	memcpy(f + 6, guest_mac, 6);
	put(f + 12, 4, 0x08060001);
	put(f + 16, 4, 0x08000604);
	put(f + 20, 2, 1);
	memcpy(f + 22, guest_mac, 6);
	put(f + 28, 4, SELF);
	put(f + 38, 4, HOST);
	nettest_send(t, f, sizeof(f), NULL);
}

static void user_arp_and_ping(void **state)
{
	struct nettest t;
	uint8_t f[200];
	size_t len;
	uint16_t s;

	start(&t, "");
	arp(&t);
	assert_true(nettest_wait(&t, 1));
	assert_int_equal(be(t.got[0].bytes + 12, 2), 0x806);
	assert_int_equal(be(t.got[0].bytes + 20, 2), 2);
	assert_int_equal(be(t.got[0].bytes + 28, 4), HOST);
	assert_int_equal(t.flushes, 1);
	nettest_clear(&t);
	len = ip_frame(f, 1, HOST, 64);
	memset(f + 34, 0, 64);
	f[34] = 8;
	s = (uint16_t)~net_sum_mem(f + 34, 64, 0);
	memcpy(f + 36, &s, 2);
	nettest_send(&t, f, len, NULL);
	assert_true(nettest_wait(&t, 1));
	assert_int_equal(t.got[0].bytes[34], 0); /* echo reply */
	nettest_free(&t);
}

static void user_dhcp(void **state)
{
	struct nettest t;
	uint8_t f[400] = { 0 }, *b = f + 42;
	static const uint8_t opt[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255 };
	size_t len;
	const uint8_t *g;

	start(&t, "net=192.168.76.0/24,dhcpstart=192.168.76.9,hostname=abc,dnssearch=x.example");
	len = ip_frame(f, 17, 0xffffffff, 8 + 300);
	memset(f, 0xff, 6);
	put(f + 26, 4, 0);
	memset(f + 24, 0, 2);
	put(f + 24, 2, (uint16_t)~htons(net_sum_mem(f + 14, 20, 0)));
	put(f + 34, 4, 0x00440043);
	put(f + 38, 2, 308);
	b[0] = b[1] = 1;
	b[2] = 6;
	memcpy(b + 28, guest_mac, 6);
	memcpy(b + 236, opt, sizeof(opt));
	l4_sum(f, len);
	nettest_send(&t, f, len, NULL);
	assert_true(nettest_wait(&t, 1));
	g = t.got[0].bytes;
	assert_int_equal(be(g + 36, 2), 68);
	assert_int_equal(be(g + 42 + 16, 4), 0xc0a84c09); /* yiaddr */
	assert_int_equal(be(g + 42 + 240, 3), 0x350102);  /* an offer */
	assert_non_null(memmem(g, t.got[0].len,
			       "\x0c\x03"
			       "abc",
			       5));
	nettest_free(&t);
}

static int listener(uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	getsockname(fd, (struct sockaddr *)&a, &len);
	*port = ntohs(a.sin_port);
	return fd;
}

/* A tiny TCP of the guest's: one connection, no losses. */
struct conn {
	struct nettest *t;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint8_t rx[300000];
	size_t nrx;
	unsigned largest; /* payload of one frame */
	bool gso;         /* one that was marked as large */
	bool fin;
};

static void conn_send(struct conn *c, uint8_t flags, const void *data, size_t n,
		      const struct net_hdr *hdr)
{
	static uint8_t f[70000];
	size_t hl = flags & 2 ? 24 : 20, len = ip_frame(f, 6, HOST, hl + n);

	memset(f + 34, 0, hl);
	put(f + 34, 2, c->sport);
	put(f + 36, 2, c->dport);
	put(f + 38, 4, c->seq);
	put(f + 42, 4, c->ack);
	f[46] = (uint8_t)(hl / 4 << 4);
	f[47] = flags;
	put(f + 48, 2, 65000);
	if (flags & 2)
		put(f + 54, 4, 0x020405b4);
	if (n)
		memcpy(f + 34 + hl, data, n);
	l4_sum(f, len);
	if (hdr) { /* leave it open */
		uint8_t pseudo[4] = { 0, 6, 0, 0 };
		uint16_t s;

		put(pseudo + 2, 2, (uint32_t)(hl + n));
		s = net_sum_mem(f + 26, 8, net_sum_mem(pseudo, 4, 0));
		memcpy(f + 50, &s, 2);
	}
	c->seq += (uint32_t)n + (flags & 3 ? 1 : 0);
	nettest_send(c->t, f, len, hdr);
}

/* Take what came; true when there was something in order. */
static bool conn_take(struct conn *c)
{
	bool any = false;

	for (unsigned i = 0; i < c->t->n; i++) {
		const uint8_t *f = c->t->got[i].bytes;
		const struct net_hdr *h = &c->t->got[i].hdr;
		size_t hl, n;

		if (be(f + 12, 2) != 0x800 || f[23] != 6)
			continue;
		hl = (f[46] >> 4) * 4u;
		n = be(f + 16, 2) - 20 - hl;
		if (h->gso_type) {
			assert_int_equal(h->gso_type, NET_GSO_TCPV4);
			assert_int_equal(h->gso_size, 1460);
			assert_true(h->flags & NET_HDR_NEEDS_CSUM);
			c->gso = true;
		}
		if (f[47] & 2) {
			c->ack = be(f + 38, 4) + 1;
			any = true;
		} else if (be(f + 38, 4) == c->ack) {
			assert_true(c->nrx + n <= sizeof(c->rx));
			memcpy(c->rx + c->nrx, f + 34 + hl, n);
			c->nrx += n;
			c->ack += (uint32_t)n + (f[47] & 1);
			c->fin |= f[47] & 1;
			c->largest = MAX(c->largest, (unsigned)n);
			any |= n || f[47] & 1;
		}
	}
	nettest_clear(c->t);
	return any;
}

static void conn_open(struct conn *c, struct nettest *t, uint16_t dport)
{
	memset(c, 0, sizeof(*c));
	c->t = t;
	c->sport = 40000;
	c->dport = dport;
	c->seq = 1000;
	arp(t);
	nettest_wait(t, 1);
	nettest_clear(t);
	conn_send(c, 2, NULL, 0, NULL);
	assert_true(nettest_wait(t, 1));
	assert_true(conn_take(c));
	conn_send(c, 0x10, NULL, 0, NULL);
}

static void read_all(struct nettest *t, int fd, uint8_t *buf, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r;

		nettest_run(t, 1);
		r = recv(fd, buf + at, n - at, MSG_DONTWAIT);
		if (r > 0)
			at += (size_t)r;
		else if (r == 0 || ++t->patience > 3000)
			fail_msg("only %zu of %zu bytes", at, n);
	}
}

/* Guest to host and back; large: both sides have segmentation offload. */
static void transfer(bool large)
{
	static uint8_t data[200000], got[200000];
	struct nettest t;
	static struct conn c;
	uint16_t port;
	int l = listener(&port), fd;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 13 + i / 251);
	start(&t, "");
	net_accepts(&t.nic, large ? NET_ALL : 0);
	conn_open(&c, &t, port);
	nettest_run(&t, 20);
	fd = accept(l, NULL, NULL);
	assert_true(fd >= 0);
	/* out */
	if (large) {
		struct net_hdr h = { NET_HDR_NEEDS_CSUM, NET_GSO_TCPV4, 54, 1460, 34, 16 };

		conn_send(&c, 0x18, data, 60000, &h);
		at = 60000;
	} else {
		for (; at < 14600; at += 1460)
			conn_send(&c, 0x18, data + at, 1460, NULL);
	}
	read_all(&t, fd, got, at);
	assert_memory_equal(got, data, at);
	/* in */
	nettest_clear(&t);
	c.nrx = 0;
	for (size_t sent = 0; c.nrx < sizeof(data);) {
		ssize_t r = sent < sizeof(data)
				    ? send(fd, data + sent, sizeof(data) - sent, MSG_DONTWAIT)
				    : 0;

		sent += r > 0 ? (size_t)r : 0;
		nettest_run(&t, 1);
		if (conn_take(&c))
			conn_send(&c, 0x10, NULL, 0, NULL);
		else if (++t.patience > 3000)
			fail_msg("only %zu bytes came in", c.nrx);
	}
	assert_memory_equal(c.rx, data, sizeof(data));
	assert_int_equal(c.gso, large);
	if (large)
		assert_true(c.largest > 20000);
	else
		assert_int_equal(c.largest, 1460);
	close(fd);
	for (int i = 0; i < 200 && !c.fin; i++) {
		nettest_run(&t, 1);
		conn_take(&c);
	}
	assert_true(c.fin);
	close(l);
	nettest_free(&t);
}

static void user_tcp(void **state)
{
	transfer(false);
}

static void user_tcp_large(void **state)
{
	transfer(true);
}

/*
 * The guest has closed its direction; then the host sends all, and closes: the socket is hung up
 * in both directions while there is still data to be read. All of it comes.
 */
static void user_half_closed(void **state)
{
	static uint8_t data[400000];
	struct nettest t;
	static struct conn c;
	size_t got = 0, sent = 0;
	uint16_t port;
	int l = listener(&port), fd;

	start(&t, "");
	conn_open(&c, &t, port);
	nettest_run(&t, 20);
	fd = accept(l, NULL, NULL);
	conn_send(&c, 0x11, NULL, 0, NULL);
	nettest_run(&t, 5);
	conn_take(&c);
	while (!c.fin) {
		ssize_t r = fd >= 0 ? send(fd, data + sent, sizeof(data) - sent, MSG_DONTWAIT) : 0;

		sent += r > 0 ? (size_t)r : 0;
		if (sent == sizeof(data) && fd >= 0) {
			close(fd);
			fd = -1;
		}
		nettest_run(&t, 1);
		c.nrx = 0;
		if (conn_take(&c))
			conn_send(&c, 0x10, NULL, 0, NULL);
		else if (++t.patience > 3000)
			fail_msg("only %zu bytes came in", got);
		got += c.nrx;
	}
	assert_int_equal(got, sizeof(data));
	close(l);
	nettest_free(&t);
}

/* A guest without buffers: what comes waits, in order, and goes on when there is room. */
static void user_flow(void **state)
{
	struct nettest t;
	static struct conn c;
	static uint8_t data[100000];
	uint16_t port;
	int l = listener(&port), fd;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 131);
	start(&t, "");
	conn_open(&c, &t, port);
	nettest_run(&t, 20);
	fd = accept(l, NULL, NULL);
	t.room = 0;
	assert_true(send(fd, data, sizeof(data), MSG_DONTWAIT) > 0);
	nettest_run(&t, 50);
	assert_int_equal(t.n, 0);
	for (int i = 0; i < 5000 && c.nrx < sizeof(data); i++) {
		t.room = 3;
		net_room(&t.nic);
		nettest_run(&t, 0);
		if (conn_take(&c))
			conn_send(&c, 0x10, NULL, 0, NULL);
	}
	assert_int_equal(c.nrx, sizeof(data));
	assert_memory_equal(c.rx, data, sizeof(data));
	close(fd);
	close(l);
	nettest_free(&t);
}

static uint16_t free_port(void)
{
	uint16_t port;

	close(listener(&port));
	return port;
}

static void user_hostfwd(void **state)
{
	struct nettest t, t2;
	struct sockaddr_in a = { .sin_family = AF_INET };
	uint16_t port = free_port();
	char text[100];
	struct err e = { 0 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(text, sizeof(text), "hostfwd=tcp:127.0.0.1:%u-:22", port);
	start(&t, text);
	arp(&t); /* so that it knows who has .15 */
	nettest_wait(&t, 1);
	nettest_clear(&t);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(port);
	connect(fd, (struct sockaddr *)&a, sizeof(a));
	assert_true(nettest_wait(&t, 1)); /* a SYN for port 22 */
	assert_int_equal(be(t.got[0].bytes + 30, 4), SELF);
	assert_int_equal(be(t.got[0].bytes + 36, 2), 22);
	assert_int_equal(t.got[0].bytes[47], 2);
	/* the port is taken now */
	nettest_new(&t2);
	assert_null(make(&t2, text, &e));
	assert_non_null(strstr(e.msg, "in use; choose another"));
	nettest_free(&t2);
	close(fd);
	nettest_free(&t);
}

/* The first datagram for the guest waits for the guest's ARP reply, and for nothing else. */
static void user_hostfwd_resolves(void **state)
{
	struct nettest t;
	struct sockaddr_in a = { .sin_family = AF_INET };
	uint16_t port = free_port();
	char text[100];
	uint8_t f[60] = { 0 }, large[5000] = { 1, 2, 3 };
	uint16_t sum;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	unsigned i;

	snprintf(text, sizeof(text), "hostfwd=udp:127.0.0.1:%u-:7", port);
	start(&t, text);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(port);
	assert_int_equal(sendto(fd, "hello", 5, 0, (struct sockaddr *)&a, sizeof(a)), 5);
	for (i = 0; i < t.n || nettest_wait(&t, i + 1); i++)
		if (be(t.got[i].bytes + 12, 2) == 0x806 && be(t.got[i].bytes + 38, 4) == SELF)
			break;
	assert_true(i < t.n);
	memcpy(f, t.got[i].bytes + 6, 6);
	memcpy(f + 6, guest_mac, 6);
	put(f + 12, 4, 0x08060001);
	put(f + 16, 4, 0x08000604);
	put(f + 20, 2, 2);
	memcpy(f + 22, guest_mac, 6);
	put(f + 28, 4, SELF);
	memcpy(f + 32, f, 6);
	put(f + 38, 4, HOST);
	nettest_clear(&t);
	nettest_send(&t, f, sizeof(f), NULL);
	nettest_run(&t, 20);
	assert_true(t.n);
	assert_int_equal(t.got[t.n - 1].bytes[23], 17);
	assert_memory_equal(t.got[t.n - 1].bytes + 42, "hello", 5);
	/* a large one is for the guest to cut, so its checksum is open */
	nettest_clear(&t);
	net_accepts(&t.nic, NET_ALL);
	assert_int_equal(sendto(fd, large, sizeof(large), 0, (struct sockaddr *)&a, sizeof(a)),
			 sizeof(large));
	assert_true(nettest_wait(&t, 1));
	assert_int_equal(t.got[0].hdr.gso_type, NET_GSO_UDP);
	assert_int_equal(t.got[0].hdr.flags, NET_HDR_NEEDS_CSUM);
	assert_int_equal(t.got[0].hdr.csum_start, 34);
	assert_int_equal(t.got[0].hdr.csum_offset, 6);
	put(f + 2, 2, (uint32_t)(t.got[0].len - 34));
	f[0] = 0;
	f[1] = 17;
	sum = net_sum_mem(t.got[0].bytes + 26, 8, net_sum_mem(f, 4, 0));
	assert_memory_equal(t.got[0].bytes + 40, &sum, 2);
	close(fd);
	nettest_free(&t);
}

static void user_guestfwd(void **state)
{
	struct nettest t;
	static struct conn c;
	struct err e = { 0 };
	char got[16] = { 0 };

	nettest_new(&t);
	if (!netdev_has_user())
		skip();
	the_chardev = chardev_ring_new(t.loop, "c0", 1000);
	assert_null(make(&t, "guestfwd=tcp:10.0.2.100:80-chardev:nobody", &e));
	assert_null(make(&t, "guestfwd=tcp:10.0.2.2:80-chardev:c0", &e));
	assert_non_null(strstr(e.msg, "guestfwd to 10.0.2.2:80"));
	t.nd = make(&t, "guestfwd=tcp:10.0.2.2:80-chardev:c0,host=10.0.2.9", &e);
	assert_non_null(t.nd);
	assert_int_equal(netdev_attach(t.nd, &t.nic, 1, NULL), 0);
	conn_open(&c, &t, 80);
	conn_send(&c, 0x18, "hello", 5, NULL);
	nettest_run(&t, 20);
	assert_int_equal(chardev_ring_output(the_chardev, got, sizeof(got)), 5);
	assert_string_equal(got, "hello");
	nettest_clear(&t);
	chardev_ring_input(the_chardev, "world!", 6);
	nettest_run(&t, 20);
	assert_true(conn_take(&c));
	assert_memory_equal(c.rx, "world!", 6);
	netdev_free(t.nd);
	t.nd = NULL;
	chardev_free(the_chardev); /* before the loop it has bottom halves in */
	nettest_free(&t);
}

static void user_restrict(void **state)
{
	struct nettest t;
	static struct conn c;
	uint16_t port;
	int l = listener(&port);

	start(&t, "restrict=on");
	memset(&c, 0, sizeof(c));
	c.t = &t;
	c.sport = 4;
	c.dport = port;
	conn_send(&c, 2, NULL, 0, NULL);
	nettest_run(&t, 30);
	for (unsigned i = 0; i < t.n; i++) /* a reset at most */
		assert_true(t.got[i].bytes[23] != 6 || t.got[i].bytes[47] & 4);
	assert_int_equal(poll(&(struct pollfd){ l, POLLIN, 0 }, 1, 0), 0);
	close(l);
	nettest_free(&t);
}

static void user_options(void **state)
{
	static const struct {
		enum netdev_kind kind;
		const char *text, *says; /* says NULL: good */
	} rows[] = {
		{ NETDEV_USER, "", NULL },
		{ NETDEV_USER, "net=10.1.0.0/16,host=10.1.0.1,dns=10.1.0.2,dhcpstart=10.1.0.3",
		  NULL },
		{ NETDEV_USER, "net=10.1.0.0/255.255.0.0", NULL },
		{ NETDEV_USER, "net=192.168.5.0", NULL },
		{ NETDEV_USER, "ipv6-net=fd00::/64,ipv6-host=fd00::9", NULL },
		{ NETDEV_USER, "hostfwd=tcp::1-:2,hostfwd=udp:127.0.0.1:3-10.0.2.15:4", NULL },
		{ NETDEV_USER, "hostfwd=::5-:6", NULL },
		{ NETDEV_USER, "net=ten", "net=ten" },
		{ NETDEV_USER, "net=10.0.2.0/33", "from 4 to 30" },
		{ NETDEV_USER, "net=10.0.2.0/255.0.255.0", "holes" },
		{ NETDEV_USER, "host=10.9.9.9", "host=10.9.9.9 is no address of the network" },
		{ NETDEV_USER, "host=10.0.2.3", "different addresses" },
		{ NETDEV_USER, "dhcpstart=10.0.2.2", "dhcpstart" },
		{ NETDEV_USER, "hostfwd=tcp:22-22", "hostfwd=tcp:22-22" },
		{ NETDEV_USER, "hostfwd=tcp::0-:22", "hostfwd" },
		{ NETDEV_USER, "hostfwd=tcp::1-:65536", "hostfwd" },
		{ NETDEV_USER, "hostfwd=sctp::1-:2", "hostfwd" },
		{ NETDEV_USER, "guestfwd=tcp::80-cmd:", "guestfwd" },
		{ NETDEV_USER, "hostfw=1", "did you mean hostfwd?" },
		{ NETDEV_USER, "smb=/tmp", "no SMB server" },
		{ NETDEV_USER, "restrict=maybe", "on or off" },
		{ NETDEV_USER, "ipv4=off,ipv6=off", "leave nothing" },
		{ NETDEV_TAP, "ifname=tap0,script=no,vhost=off", NULL },
		{ NETDEV_TAP, "fds=3:4:5", NULL },
		{ NETDEV_TAP, "ifname=tap0,vhost=on,vhostforce=on,poll-us=50", NULL },
		{ NETDEV_TAP, "fds=3:4,vhostfds=5:6", NULL },
		{ NETDEV_TAP, "fds=3:4,vhostfd=5", "1 of them for 2 queues" },
		{ NETDEV_TAP, "vhostfd=5,vhost=off", "does not go with vhost=off" },
		{ NETDEV_TAP, "vhostfd=x", "vhostfd" },
		{ NETDEV_TAP, "vhost=maybe", "on or off" },
		{ NETDEV_TAP, "vhost=on,vnet_hdr=off", "needs vnet_hdr=on" },
		{ NETDEV_TAP, "poll-us=-1", "poll-us" },
		{ NETDEV_TAP, "fd=3,ifname=x", "do not go with fd" },
		{ NETDEV_TAP, "ifname=0123456789abcdef", "1 to 15" },
		{ NETDEV_TAP, "helper=/x", "ip tuntap add" },
		{ NETDEV_STREAM, "addr.type=unix,addr.path=/x", NULL },
		{ NETDEV_STREAM, "server=on,addr.type=inet,addr.port=1", NULL },
		{ NETDEV_STREAM, "", "addr.type" },
		{ NETDEV_STREAM, "addr.type=inet,addr.host=x", "addr.port" },
		{ NETDEV_STREAM, "addr.type=unix", "addr.path" },
		{ NETDEV_STREAM, "addr.type=vsock", "inet, unix and fd exist" },
		{ NETDEV_STREAM, "server=on,reconnect=1,addr.type=unix,addr.path=/x", "reconnect" },
		{ NETDEV_DGRAM, "remote.type=inet,remote.host=239.0.0.1,remote.port=1", NULL },
		{ NETDEV_DGRAM, "local.type=fd,local.str=3", NULL },
		{ NETDEV_DGRAM, "", "dgram needs" },
		{ NETDEV_DGRAM, "local.type=unix,local.path=/x", "remote.path" },
		{ NETDEV_SOCKET, "listen=:1", NULL },
		{ NETDEV_SOCKET, "listen=:1,connect=x:1", "exactly one" },
		{ NETDEV_SOCKET, "udp=x:1", "localaddr" },
	};
	struct netdev_opts o;
	uint8_t mac[6];
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		int r = nettest_opts(&o, rows[i].kind, rows[i].text, &e);

		if (!r != !rows[i].says || (r && !strstr(e.msg, rows[i].says)))
			fail_msg("%s: %d, %s", rows[i].text, r, r ? e.msg : "no error");
		netdev_opts_free(&o);
	}
	assert_int_equal(netdev_kind("usr", &e), -EINVAL);
	assert_non_null(strstr(e.msg, "did you mean user?"));
	assert_int_equal(netdev_kind("hubport", &e), -ENOTSUP);
	assert_int_equal(net_mac_parse("52:54:00:aB:cd:01", mac, &e), 0);
	assert_int_equal(mac[3], 0xab);
	assert_true(net_mac_parse("53:54:00:ab:cd:01", mac, &e) < 0);
	assert_true(net_mac_parse("52:54:00:ab:cd", mac, &e) < 0);
	assert_true(net_mac_parse("52:54:00:ab:cd:01:02", mac, &e) < 0);
	assert_true(net_mac_parse("52:54:00:ab:cd:012", mac, &e) < 0);
	assert_true(net_mac_parse("", mac, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(user_arp_and_ping), cmocka_unit_test(user_dhcp),
		cmocka_unit_test(user_tcp),          cmocka_unit_test(user_tcp_large),
		cmocka_unit_test(user_half_closed),  cmocka_unit_test(user_flow),
		cmocka_unit_test(user_hostfwd),      cmocka_unit_test(user_hostfwd_resolves),
		cmocka_unit_test(user_guestfwd),     cmocka_unit_test(user_restrict),
		cmocka_unit_test(user_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
