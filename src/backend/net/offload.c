/* See offload.h. */
#include "backend/net/offload.h"

#include <string.h>

#include "base/bits.h"

enum {
	ETH_ADDRS = 12,
	ETYPE_IP4 = 0x0800,
	ETYPE_IP6 = 0x86dd,
	ETYPE_VLAN = 0x8100,
	ETYPE_QINQ = 0x88a8,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	UDP_LEN = 8,
	HEADERS_MAX = 512, /* all headers of a frame to be cut: more is no honest frame */
	GSO_MIN = 28,      /* the data that fits an IPv4 MTU of 68 [RFC 791] */
	IP4_MF = 0x2000,
};

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint16_t net_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* Frames are below 2^17 bytes, so sums of 32-bit halves fit 64 bits with room to spare. */
uint16_t net_sum_mem(const void *buf, size_t len, uint64_t sum)
{
	const uint8_t *p = buf;
	uint64_t a = sum, b = 0, v, w;

	for (; len >= 16; len -= 16, p += 16) {
		memcpy(&v, p, 8);
		memcpy(&w, p + 8, 8);
		a += (v & 0xffffffff) + (v >> 32);
		b += (w & 0xffffffff) + (w >> 32);
	}
	if (len) {
		v = w = 0;
		memcpy(&v, p, MIN(len, (size_t)8));
		if (len > 8)
			memcpy(&w, p + 8, len - 8);
		a += (v & 0xffffffff) + (v >> 32);
		b += (w & 0xffffffff) + (w >> 32);
	}
	return net_fold((uint64_t)net_fold(a) + net_fold(b));
}

uint16_t net_sum(const struct netpkt *pkt, size_t off, size_t len, uint64_t sum)
{
	bool odd = false;

	for (unsigned i = 0; i < pkt->n && len; i++) {
		size_t have = pkt->iov[i].iov_len, n;
		uint16_t s;

		if (off >= have) {
			off -= have;
			continue;
		}
		n = MIN(have - off, len);
		s = net_sum_mem((const uint8_t *)pkt->iov[i].iov_base + off, n, 0);
		/* a piece that begins at an odd place counts with its bytes swapped [RFC 1071] */
		sum += odd ? (uint16_t)(s << 8 | s >> 8) : s;
		odd ^= n & 1;
		len -= n;
		off = 0;
	}
	return net_fold(sum);
}

unsigned net_needs(const struct net_hdr *h)
{
	unsigned n = h->flags & NET_HDR_NEEDS_CSUM ? NET_CSUM : 0;

	switch (h->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4: n |= NET_TSO4; break;
	case NET_GSO_TCPV6: n |= NET_TSO6; break;
	case NET_GSO_UDP: n |= NET_UFO; break;
	case NET_GSO_UDP_L4: n |= NET_USO; break;
	default: break;
	}
	return h->gso_type & NET_GSO_ECN ? n | NET_ECN : n;
}

bool net_parse(const struct netpkt *pkt, struct net_layout *l)
{
	uint8_t b[40];
	size_t off = ETH_ADDRS;
	uint16_t type, frag;

	*l = (struct net_layout){ 0 };
	if (netpkt_get(pkt, off, b, 2) < 2)
		return false;
	type = be16(b);
	for (int tags = 0; tags < 2 && (type == ETYPE_VLAN || type == ETYPE_QINQ); tags++) {
		off += 4;
		if (netpkt_get(pkt, off, b, 2) < 2)
			return false;
		type = be16(b);
	}
	off += 2;
	l->l3 = (uint16_t)off;
	if (type == ETYPE_IP4) {
		uint32_t ihl;

		if (netpkt_get(pkt, off, b, 20) < 20 || b[0] >> 4 != 4)
			return false;
		ihl = (b[0] & 15u) * 4;
		l->end = (uint32_t)off + be16(b + 2);
		l->l4 = (uint16_t)(off + ihl);
		frag = be16(b + 6);
		l->fragment = frag & (IP4_MF | 0x1fff);
		l->proto = b[9];
		return ihl >= 20 && l->end >= l->l4 && l->end <= pkt->len;
	}
	if (type != ETYPE_IP6 || netpkt_get(pkt, off, b, 40) < 40 || b[0] >> 4 != 6)
		return false;
	l->ip6 = true;
	l->end = (uint32_t)off + 40 + be16(b + 4);
	l->proto = b[6];
	off += 40;
	/* hop-by-hop, routing and destination options; a fragment header ends the walk */
	for (int ext = 0; ext < 8; ext++) {
		if (l->proto == 44)
			l->fragment = true;
		if (l->proto != 0 && l->proto != 43 && l->proto != 60)
			break;
		if (netpkt_get(pkt, off, b, 2) < 2)
			return false;
		l->proto = b[0];
		off += (b[1] + 1u) * 8;
	}
	l->l4 = (uint16_t)off;
	return off <= l->end && l->end <= pkt->len;
}

bool net_hdr_check(const struct netpkt *pkt)
{
	const struct net_hdr *h = &pkt->hdr;
	unsigned type = h->gso_type & ~NET_GSO_ECN;

	if (h->flags & NET_HDR_NEEDS_CSUM && (size_t)h->csum_start + h->csum_offset + 2 > pkt->len)
		return false;
	if (h->gso_type & NET_GSO_ECN && type != NET_GSO_TCPV4 && type != NET_GSO_TCPV6)
		return false;
	switch (type) {
	case NET_GSO_NONE: return true;
	case NET_GSO_TCPV4:
	case NET_GSO_TCPV6:
	case NET_GSO_UDP:
	case NET_GSO_UDP_L4: return h->gso_size >= GSO_MIN;
	default: return false;
	}
}

/* The frame's first head bytes from a copy, then bytes [off, off + len) of it. out: n + 1 pieces.
 */
static struct netpkt net_piece(const struct netpkt *pkt, uint8_t *head, size_t headlen, size_t off,
			       size_t len, struct iovec *out)
{
	struct netpkt p = { .iov = out, .n = 1, .len = headlen + len };

	out[0] = (struct iovec){ head, headlen };
	for (unsigned i = 0; i < pkt->n && len; i++) {
		size_t have = pkt->iov[i].iov_len, n;

		if (off >= have) {
			off -= have;
			continue;
		}
		n = MIN(have - off, len);
		out[p.n++] = (struct iovec){ (uint8_t *)pkt->iov[i].iov_base + off, n };
		len -= n;
		off = 0;
	}
	return p;
}

/* The checksum that was left open, in the order of memory. 0 is sent as FFFFh [RFC 768]. */
static uint16_t net_open_csum(const struct netpkt *pkt)
{
	size_t start = pkt->hdr.csum_start;
	uint16_t c = (uint16_t)~net_sum(pkt, start, pkt->len - start, 0);

	return c ? c : 0xffff;
}

struct net_cut {
	const struct netpkt *pkt;
	struct net_layout l;
	uint8_t head[HEADERS_MAX], orig[HEADERS_MAX];
	struct iovec out[NET_IOV_MAX];
};

static void net_ip4_csum(uint8_t *ip, size_t len)
{
	uint16_t s;

	memset(ip + 10, 0, 2);
	s = (uint16_t)~net_sum_mem(ip, len, 0);
	memcpy(ip + 10, &s, 2);
}

/* Lengths, identification and checksums of piece i: head holds its headers, len bytes follow. */
static struct netpkt net_segment(struct net_cut *c, unsigned i, size_t headlen, size_t off,
				 size_t len)
{
	struct net_layout *l = &c->l;
	uint8_t *ip = c->head + l->l3, *l4 = c->head + l->l4, pseudo[4];
	size_t l4len = headlen - l->l4 + len, field = l->proto == PROTO_TCP ? 16 : 6;
	struct netpkt p = net_piece(c->pkt, c->head, headlen, off, len, c->out);
	uint64_t sum;
	uint16_t s;

	if (l->ip6) {
		put16(ip + 4, (uint32_t)(headlen - l->l3 - 40 + len));
		sum = net_sum_mem(ip + 8, 32, 0);
	} else {
		put16(ip + 2, (uint32_t)(headlen - l->l3 + len));
		put16(ip + 4, be16(c->orig + l->l3 + 4) + i);
		net_ip4_csum(ip, (size_t)(l->l4 - l->l3));
		sum = net_sum_mem(ip + 12, 8, 0);
	}
	if (l->proto == PROTO_UDP)
		put16(l4 + 4, (uint32_t)l4len);
	pseudo[0] = 0;
	pseudo[1] = l->proto;
	put16(pseudo + 2, (uint32_t)l4len);
	sum += net_sum_mem(pseudo, 4, 0);
	memset(l4 + field, 0, 2);
	s = (uint16_t)~net_sum(&p, l->l4, l4len, sum);
	s = s ? s : 0xffff;
	memcpy(l4 + field, &s, 2);
	return p;
}

static bool net_cut_l4(struct net_cut *c, unsigned *done, bool *lost,
		       bool (*fn)(void *opaque, const struct netpkt *pkt), void *opaque)
{
	struct net_layout *l = &c->l;
	bool tcp = l->proto == PROTO_TCP;
	size_t size = c->pkt->hdr.gso_size, headlen, total;
	uint8_t b[14] = { 0 };
	unsigned pieces;

	*lost = true;
	if (netpkt_get(c->pkt, l->l4, b, tcp ? 14 : UDP_LEN) < (tcp ? 14 : UDP_LEN))
		return true;
	headlen = l->l4 + (tcp ? (b[12] >> 4) * 4u : UDP_LEN);
	if ((tcp && (b[12] >> 4) < 5) || headlen > HEADERS_MAX || headlen > l->end)
		return true;
	*lost = false;
	netpkt_get(c->pkt, 0, c->orig, headlen);
	total = l->end - headlen;
	pieces = total ? (unsigned)((total + size - 1) / size) : 1;
	for (; *done < pieces; ++*done) {
		size_t at = *done * size, len = MIN(size, total - at);
		struct netpkt p;

		memcpy(c->head, c->orig, headlen);
		if (tcp) {
			uint8_t *th = c->head + l->l4;

			put32(th + 4, be32(c->orig + l->l4 + 4) + (uint32_t)at);
			if (*done)
				th[13] &= (uint8_t)~0x80; /* CWR: once */
			if (*done + 1 < pieces)
				th[13] &= (uint8_t)~0x09; /* FIN and PSH: with the last */
		}
		p = net_segment(c, *done, headlen, headlen + at, len);
		if (!fn(opaque, &p))
			return false;
	}
	*done = 0;
	return true;
}

/* One UDP datagram in IPv4 fragments [RFC 791 3.2]. */
static bool net_cut_fragments(struct net_cut *c, unsigned *done, bool *lost,
			      bool (*fn)(void *opaque, const struct netpkt *pkt), void *opaque)
{
	struct net_layout *l = &c->l;
	size_t size = c->pkt->hdr.gso_size & ~7u, total = l->end - l->l4;
	unsigned pieces = (unsigned)((total + size - 1) / size);
	struct netpkt p;

	*lost = l->l4 + UDP_LEN > HEADERS_MAX || total < UDP_LEN;
	if (*lost)
		return true;
	netpkt_get(c->pkt, 0, c->orig, l->l4 + UDP_LEN);
	if (c->pkt->hdr.flags & NET_HDR_NEEDS_CSUM) {
		uint16_t s = net_open_csum(c->pkt);

		memcpy(c->orig + l->l4 + 6, &s, 2);
	}
	for (; *done < pieces; ++*done) {
		size_t at = *done * size, len = MIN(size, total - at), own = *done ? 0 : UDP_LEN;
		uint8_t *ip = c->head + l->l3;

		memcpy(c->head, c->orig, l->l4 + UDP_LEN);
		put16(ip + 2, (uint32_t)(l->l4 - l->l3 + len));
		put16(ip + 6, (uint32_t)(at / 8) | (*done + 1 < pieces ? IP4_MF : 0));
		net_ip4_csum(ip, (size_t)(l->l4 - l->l3));
		p = net_piece(c->pkt, c->head, l->l4 + own, l->l4 + at + own, len - own, c->out);
		if (!fn(opaque, &p))
			return false;
	}
	*done = 0;
	return true;
}

/* Only the checksum is missing: a copy of what is up to it, then the rest. */
static bool net_fill(const struct netpkt *pkt, bool *lost,
		     bool (*fn)(void *opaque, const struct netpkt *pkt), void *opaque)
{
	size_t field = (size_t)pkt->hdr.csum_start + pkt->hdr.csum_offset;
	uint8_t head[HEADERS_MAX];
	struct iovec out[NET_IOV_MAX];
	struct netpkt p;
	uint16_t s;

	*lost = field + 2 > sizeof(head);
	if (*lost)
		return true;
	netpkt_get(pkt, 0, head, field + 2);
	s = net_open_csum(pkt);
	memcpy(head + field, &s, 2);
	p = net_piece(pkt, head, field + 2, field + 2, pkt->len - field - 2, out);
	p.hdr = pkt->hdr;
	p.hdr.flags &= (uint8_t)~NET_HDR_NEEDS_CSUM;
	p.hdr.csum_start = p.hdr.csum_offset = 0;
	return fn(opaque, &p);
}

/* In a function of its own: the fast path of net_finish must not pay for this frame. */
static __attribute__((noinline)) bool net_cut(const struct netpkt *pkt, unsigned *done, bool *lost,
					      bool (*fn)(void *opaque, const struct netpkt *pkt),
					      void *opaque)
{
	unsigned gso = pkt->hdr.gso_type & ~NET_GSO_ECN;
	bool udp = gso == NET_GSO_UDP || gso == NET_GSO_UDP_L4;
	struct net_cut c;

	c.pkt = pkt;
	*lost = !net_parse(pkt, &c.l) || c.l.fragment ||
		c.l.proto != (udp ? PROTO_UDP : PROTO_TCP) || (gso == NET_GSO_TCPV4 && c.l.ip6) ||
		(gso == NET_GSO_TCPV6 && !c.l.ip6) || (gso == NET_GSO_UDP && c.l.ip6);
	if (*lost)
		return true;
	return gso == NET_GSO_UDP ? net_cut_fragments(&c, done, lost, fn, opaque)
				  : net_cut_l4(&c, done, lost, fn, opaque);
}

bool net_finish(const struct netpkt *pkt, unsigned accepts, unsigned *done, bool *lost,
		bool (*fn)(void *opaque, const struct netpkt *pkt), void *opaque)
{
	unsigned missing = net_needs(&pkt->hdr) & ~accepts;

	/* what is done here puts a piece in front, and receivers count on NET_IOV_MAX */
	*lost = pkt->n > NET_IOV_MAX - (missing ? 1u : 0u) ||
		((pkt->hdr.flags | pkt->hdr.gso_type) && !net_hdr_check(pkt));
	if (*lost)
		return true;
	if (!missing)
		return fn(opaque, pkt);
	if (missing == NET_CSUM)
		return net_fill(pkt, lost, fn, opaque);
	return net_cut(pkt, done, lost, fn, opaque);
}
