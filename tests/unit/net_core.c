/*
 * Cables and offloads: what arrives of frames whose sender left work undone, flow control in both
 * directions and in the middle of a large frame, links, and headers that lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/netdev.h"
#include "backend/net/offload.h"
#include "base/bits.h"

enum { CATCH = 4096 };

/* A port that keeps what it gets. */
struct end {
	struct netport p;
	unsigned n, room, rooms, flushes, changes;
	struct {
		size_t len;
		struct net_hdr hdr;
		uint8_t *bytes;
	} got[CATCH];
};

static bool end_receive(struct netport *p, const struct netpkt *pkt)
{
	struct end *x = container_of(p, struct end, p);

	if (!x->room)
		return false;
	x->room--;
	assert_true(x->n < CATCH);
	assert_true(pkt->n <= NET_IOV_MAX); /* receivers have arrays of so many */
	x->got[x->n].len = pkt->len;
	x->got[x->n].hdr = pkt->hdr;
	x->got[x->n].bytes = malloc(pkt->len);
	assert_int_equal(netpkt_get(pkt, 0, x->got[x->n].bytes, pkt->len), pkt->len);
	x->n++;
	return true;
}

static void end_room(struct netport *p)
{
	container_of(p, struct end, p)->rooms++;
}

static void end_flush(struct netport *p)
{
	container_of(p, struct end, p)->flushes++;
}

static void end_changed(struct netport *p)
{
	container_of(p, struct end, p)->changes++;
}

static const struct netport_ops end_ops = { end_receive, end_room, end_flush, end_changed };

static void end_clear(struct end *x)
{
	while (x->n)
		free(x->got[--x->n].bytes);
}

static void bed_free(struct netdev *nd)
{
	free(nd);
}

static const struct netdev_ops bed_ops = { .name = "test", .free = bed_free };

/* A netdev whose port 0 is replaced by nothing: frames sent by the NIC end at far. */
struct cable {
	struct netdev *nd;
	struct end nic, *far;
};

static bool far_receive(struct netport *p, const struct netpkt *pkt);
static void far_room(struct netport *p);
static const struct netport_ops far_ops = { far_receive, far_room, NULL, NULL };
static struct end far_end; /* port 0 of nd is inside of nd; its record is here */

static bool far_receive(struct netport *p, const struct netpkt *pkt)
{
	return end_receive(&far_end.p, pkt);
}

static void far_room(struct netport *p)
{
	far_end.rooms++;
}

static void cable_new(struct cable *c, unsigned accepts)
{
	memset(c, 0, sizeof(*c));
	end_clear(&far_end);
	far_end.room = CATCH;
	far_end.rooms = 0;
	c->nic.room = CATCH;
	c->nic.p.ops = &end_ops;
	c->nd = calloc(1, sizeof(*c->nd));
	assert_int_equal(netdev_init(c->nd, &bed_ops, NULL, "n0", 1, &far_ops, accepts, NULL), 0);
	assert_int_equal(netdev_attach(c->nd, &c->nic.p, 1, NULL), 0);
	c->far = &far_end;
}

static void cable_free(struct cable *c)
{
	netdev_free(c->nd);
	end_clear(&c->nic);
	end_clear(c->far);
}

/* The slow and plain checksum, in network order. */
static uint16_t ref_sum(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint32_t be(const uint8_t *p, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static void put(uint8_t *p, int n, uint32_t v)
{
	while (n--)
		p[n] = (uint8_t)v, v >>= 8;
}

struct shape {
	bool ip6, udp, vlan;
	unsigned opts; /* TCP options in words */
};

/* Headers and a payload of a pattern; the checksum field holds the pseudo header's sum. */
static size_t build(uint8_t *f, const struct shape *s, size_t payload, struct net_hdr *h)
{
	size_t l3 = s->vlan ? 18 : 14, l4 = l3 + (s->ip6 ? 40 : 20);
	size_t hl = s->udp ? 8 : 20 + 4 * s->opts, len = l4 + hl + payload;
	uint32_t sum;

	memset(f, 0x11, l3);
	if (s->vlan)
		put(f + 12, 4, 0x81000005);
	put(f + l3 - 2, 2, s->ip6 ? 0x86dd : 0x800);
	memset(f + l3, 0, l4 - l3);
	if (s->ip6) {
		f[l3] = 0x60;
		put(f + l3 + 4, 2, (uint32_t)(hl + payload));
		f[l3 + 6] = s->udp ? 17 : 6;
		for (int i = 0; i < 32; i++)
			f[l3 + 8 + i] = (uint8_t)(i * 7);
		sum = ref_sum(f + l3 + 8, 32, 0);
	} else {
		f[l3] = 0x45;
		put(f + l3 + 2, 2, (uint32_t)(len - l3));
		put(f + l3 + 4, 2, 0xfffe);
		f[l3 + 8] = 64;
		f[l3 + 9] = s->udp ? 17 : 6;
		put(f + l3 + 12, 4, 0x0a00020f);
		put(f + l3 + 16, 4, 0x0a000202);
		put(f + l3 + 10, 2, (uint16_t)~ref_sum(f + l3, 20, 0));
		sum = ref_sum(f + l3 + 12, 8, 0);
	}
	memset(f + l4, 0, hl);
	put(f + l4, 4, 0x12340050);
	if (s->udp) {
		put(f + l4 + 4, 2, (uint32_t)(hl + payload));
	} else {
		put(f + l4 + 4, 4, 0xfffffff0); /* wraps */
		f[l4 + 12] = (uint8_t)((5 + s->opts) << 4);
		f[l4 + 13] = 0x99; /* CWR ACK PSH FIN */
	}
	sum = ref_sum(NULL, 0, sum + (s->udp ? 17 : 6) + (uint32_t)(hl + payload));
	*h = (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM,
			       .csum_start = (uint16_t)l4,
			       .csum_offset = s->udp ? 6 : 16 };
	put(f + l4 + h->csum_offset, 2, sum);
	for (size_t i = 0; i < payload; i++)
		f[l4 + hl + i] = (uint8_t)(i * 31 + (i >> 8));
	return len;
}

/* All checksums of a finished frame are right. */
static void assert_sums(const uint8_t *f, size_t len, const struct shape *s)
{
	size_t l3 = s->vlan ? 18 : 14, l4 = l3 + (s->ip6 ? 40 : 20);
	uint32_t sum = (s->udp ? 17 : 6) + (uint32_t)(len - l4);

	if (!s->ip6) {
		assert_int_equal(ref_sum(f + l3, 20, 0), 0xffff);
		assert_int_equal(be(f + l3 + 2, 2), len - l3);
		sum = ref_sum(f + l3 + 12, 8, sum);
	} else {
		assert_int_equal(be(f + l3 + 4, 2), len - l4);
		sum = ref_sum(f + l3 + 8, 32, sum);
	}
	assert_int_equal(ref_sum(f + l4, len - l4, sum), 0xffff);
}

/* Cut into a vector of odd pieces. */
static struct netpkt scatter(struct iovec *iov, uint8_t *f, size_t len, const struct net_hdr *h,
			     unsigned seed)
{
	struct netpkt p = { .iov = iov, .len = len, .hdr = *h };

	for (size_t at = 0; at < len;) {
		size_t n = MIN(len - at, 1 + (seed = seed * 1103515245 + 12345) / 65536 % 900);

		iov[p.n++] = (struct iovec){ f + at, n };
		at += n;
	}
	return p;
}

static uint8_t frame[NET_FRAME_MAX];
static struct iovec iov[NET_IOV_MAX];

static void core_sums(void **state)
{
	struct net_hdr none = { 0 };

	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)rand();
	for (unsigned r = 0; r < 200; r++) {
		size_t off = (size_t)rand() % 500, len = (size_t)rand() % 40000;
		struct netpkt p = scatter(iov, frame, sizeof(frame), &none, r);
		uint16_t s = net_sum(&p, off, len, 0), m = net_sum_mem(frame + off, len, 0);

		assert_int_equal(m, s);
		assert_int_equal((uint16_t)(s << 8 | s >> 8), ref_sum(frame + off, len, 0));
	}
	memset(frame, 0xff, sizeof(frame));
	assert_int_equal(net_sum_mem(frame, 65536, 0), 0xffff);
}

static void core_checksum(void **state)
{
	for (unsigned i = 0; i < 16; i++) {
		struct shape s = { i & 1, i & 2, i & 4, i & 2 ? 0 : i & 8 ? 3 : 0 };
		struct net_hdr h;
		size_t len = build(frame, &s, 1001, &h);
		struct netpkt p = scatter(iov, frame, len, &h, i);
		struct cable c;

		cable_new(&c, 0);
		assert_true(net_send(&c.nic.p, &p));
		assert_int_equal(c.far->n, 1);
		assert_int_equal(c.far->got[0].len, len);
		assert_int_equal(c.far->got[0].hdr.flags, 0);
		assert_sums(c.far->got[0].bytes, len, &s);
		cable_free(&c);
		cable_new(&c, NET_CSUM);
		assert_true(net_send(&c.nic.p, &p));
		assert_memory_equal(c.far->got[0].bytes, frame, len);
		assert_memory_equal(&c.far->got[0].hdr, &h, sizeof(h));
		cable_free(&c);
	}
}

/* A guest may send a frame in as many pieces as there can be: what is done to it adds none. */
static void core_many_pieces(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct shape s = { 0 };
		struct net_hdr h;
		size_t len = build(frame, &s, 3000, &h), at = 0;
		struct netpkt p = { .iov = iov, .len = len };
		struct cable c;

		h.gso_type = i & 1 ? NET_GSO_TCPV4 : 0;
		h.gso_size = 2900;
		p.hdr = h;
		for (unsigned k = NET_IOV_MAX - (i & 2 ? 1 : 0); k; k--) {
			/* the first is long, so that a part of it is left behind the headers */
			size_t n = k == 1 ? len - at : p.n ? 1 : 100;

			iov[p.n++] = (struct iovec){ frame + at, n };
			at += n;
		}
		cable_new(&c, 0);
		assert_true(net_send(&c.nic.p, &p));
		assert_int_equal(c.far->n, i & 2 ? 1 + (i & 1) : 0);
		assert_int_equal(c.nic.p.lost, !(i & 2));
		cable_free(&c);
		cable_new(&c, NET_ALL);
		assert_true(net_send(&c.nic.p, &p));
		assert_int_equal(c.far->n, 1);
		cable_free(&c);
	}
}

/* TSO and USO: pieces in order, each right by itself, together the payload. */
static void core_cut(void **state)
{
	for (unsigned i = 0; i < 64; i++) {
		struct shape s = { i & 1, i & 2, i & 4, i & 2 ? 0 : i & 8 ? 3 : 0 };
		size_t payload = i & 16 ? 60001 : 1448 * 3, hl = s.udp ? 8 : 20 + 4 * s.opts;
		size_t l4 = (s.vlan ? 18u : 14u) + (s.ip6 ? 40 : 20), at = 0;
		struct net_hdr h;
		size_t len = build(frame, &s, payload, &h);
		struct netpkt p;
		struct cable c;

		h.gso_type = s.udp ? NET_GSO_UDP_L4 : s.ip6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4;
		h.gso_size = 1448;
		p = scatter(iov, frame, len, &h, i);
		cable_new(&c, i & 32 ? NET_CSUM : 0);
		c.far->room = i & 16 ? 5 : CATCH;
		for (unsigned tries = 0; !net_send(&c.nic.p, &p); tries++) {
			assert_true(tries < 20);
			c.far->room = 5; /* it goes on where it stopped */
			net_room(c.nic.p.peer);
			assert_int_equal(c.nic.rooms, tries + 1);
		}
		assert_int_equal(c.far->n, (payload + 1447) / 1448);
		for (unsigned k = 0; k < c.far->n; k++) {
			const uint8_t *f = c.far->got[k].bytes;
			size_t flen = c.far->got[k].len, n = flen - l4 - hl;
			bool last = k + 1 == c.far->n;

			assert_int_equal(n, last ? payload - at : 1448);
			assert_sums(f, flen, &s);
			assert_memory_equal(f + l4 + hl, frame + l4 + hl + at, n);
			assert_int_equal(c.far->got[k].hdr.gso_type, 0);
			if (!s.ip6)
				assert_int_equal(be(f + l4 - 16, 2), (0xfffe + k) & 0xffff);
			if (!s.udp) {
				assert_int_equal(be(f + l4 + 4, 4), (uint32_t)(0xfffffff0 + at));
				assert_int_equal(f[l4 + 13],
						 0x10 | (k ? 0 : 0x80) | (last ? 9 : 0));
			}
			at += n;
		}
		assert_int_equal(at, payload);
		assert_int_equal(c.nic.p.sent, 1);
		cable_free(&c);
	}
}

/* TSO that the receiver takes, but with the checksum done: what libslirp wants. */
static void core_whole_with_checksum(void **state)
{
	struct shape s = { 0 };
	struct net_hdr h;
	size_t len = build(frame, &s, 50000, &h);
	struct netpkt p;
	struct cable c;

	h.gso_type = NET_GSO_TCPV4;
	h.gso_size = 1460;
	p = scatter(iov, frame, len, &h, 3);
	cable_new(&c, NET_TSO4);
	assert_true(net_send(&c.nic.p, &p));
	assert_int_equal(c.far->n, 1);
	assert_int_equal(c.far->got[0].len, len);
	assert_sums(c.far->got[0].bytes, len, &s);
	assert_int_equal(c.far->got[0].hdr.gso_size, 1460);
	cable_free(&c);
}

static void core_fragments(void **state)
{
	struct shape s = { .udp = true };
	struct net_hdr h;
	size_t len = build(frame, &s, 5000, &h), at = 0;
	uint8_t whole[5100];
	struct netpkt p;
	struct cable c;

	h.gso_type = NET_GSO_UDP;
	h.gso_size = 1480;
	p = scatter(iov, frame, len, &h, 3);
	cable_new(&c, NET_CSUM);
	assert_true(net_send(&c.nic.p, &p));
	assert_int_equal(c.far->n, 4);
	for (unsigned k = 0; k < 4; k++) {
		const uint8_t *f = c.far->got[k].bytes;
		size_t n = c.far->got[k].len - 34;

		assert_int_equal(ref_sum(f + 14, 20, 0), 0xffff);
		assert_int_equal(be(f + 18, 2), 0xfffe);
		assert_int_equal(be(f + 20, 2), at / 8 | (k < 3 ? 0x2000 : 0));
		memcpy(whole + 34 + at, f + 34, n);
		at += n;
	}
	assert_int_equal(at, 5008);
	memcpy(whole, frame, 34);
	assert_sums(whole, len, &s);
	assert_memory_equal(whole + 42, frame + 42, 5000);
	cable_free(&c);
}

static void core_flow_and_link(void **state)
{
	struct shape s = { 0 };
	struct net_hdr h;
	struct netdev *nd;
	struct end other = { .p.ops = &end_ops };
	struct netpkt p;
	struct cable c;
	struct err e;

	build(frame, &s, 100, &h);
	p = netpkt_of(iov, frame, 154, NULL);
	cable_new(&c, NET_ALL);
	nd = c.nd;
	assert_int_equal(netdev_attach(nd, &other.p, 1, &e), -EBUSY);
	assert_non_null(strstr(e.msg, "n0 is in use"));
	/* host to guest */
	c.nic.room = 1;
	assert_true(net_send(&nd->port[0], &p));
	assert_false(net_send(&nd->port[0], &p));
	assert_int_equal(c.nic.n, 1);
	net_room(&c.nic.p);
	assert_int_equal(c.far->rooms, 1);
	net_room(&c.nic.p); /* owed once */
	assert_int_equal(c.far->rooms, 1);
	assert_false(net_send(&nd->port[0], &p));
	/* a link that goes down lets those who wait go on, into nothing */
	netdev_set_link(nd, false);
	assert_int_equal(c.far->rooms, 2);
	assert_int_equal(c.nic.changes, 1);
	assert_false(net_link(&c.nic.p));
	assert_true(net_send(&nd->port[0], &p));
	assert_true(net_send(&c.nic.p, &p));
	assert_int_equal(c.nic.n + c.far->n, 1);
	assert_int_equal(c.nic.p.lost, 1);
	netdev_set_link(nd, true);
	netdev_connected(nd, false);
	assert_false(net_link(&c.nic.p));
	netdev_connected(nd, true);
	assert_true(net_link(&c.nic.p));
	assert_int_equal(c.nic.changes, 4);
	/* too short, too long */
	p.len = 13;
	assert_true(net_send(&c.nic.p, &p));
	assert_int_equal(c.far->n, 0);
	net_flush(&nd->port[0]);
	assert_int_equal(c.nic.flushes, 1);
	netdev_detach(nd);
	assert_false(net_link(&c.nic.p));
	p.len = 154;
	assert_true(net_send(&c.nic.p, &p));
	net_flush(&c.nic.p);
	net_room(&c.nic.p);
	assert_int_equal(netdev_attach(nd, &other.p, 1, NULL), 0);
	cable_free(&c);
}

/* Headers that lie: dropped, whatever else is asked; with ASan, no access outside. */
static void core_hostile(void **state)
{
	unsigned seed = 1, arrived = 0;

	for (unsigned i = 0; i < 30000; i++) {
		struct shape s = { rand() & 1, rand() & 1, rand() & 1, (unsigned)rand() % 4 };
		struct net_hdr h;
		size_t len = build(frame, &s, (size_t)rand() % 4000, &h);
		uint8_t *tight;
		struct netpkt p;
		struct cable c;

		h.gso_type = (uint8_t)(rand() % 7 | (rand() % 8 ? 0 : 0x80));
		h.gso_size = (uint16_t)(rand() % 4 ? rand() % 2000 : rand());
		for (int k = rand() % 4; k; k--)
			frame[rand() % 80] = (uint8_t)rand();
		if (rand() % 4 == 0)
			((uint8_t *)&h)[(size_t)rand() % sizeof(h)] = (uint8_t)rand();
		len = rand() % 4 ? len : (size_t)rand() % len;
		tight = malloc(len + !len);
		memcpy(tight, frame, len);
		p = scatter(iov, tight, len, &h, seed += i);
		cable_new(&c, (unsigned)rand() % 64);
		assert_true(net_send(&c.nic.p, &p));
		arrived += c.far->n;
		cable_free(&c);
		free(tight);
	}
	assert_true(arrived > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(core_sums),
		cmocka_unit_test(core_checksum),
		cmocka_unit_test(core_many_pieces),
		cmocka_unit_test(core_cut),
		cmocka_unit_test(core_whole_with_checksum),
		cmocka_unit_test(core_fragments),
		cmocka_unit_test(core_flow_and_link),
		cmocka_unit_test(core_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
