/* See segment.h. */
#include "backend/net/segment.h"

#include <string.h>

#include "backend/net/offload.h"
#include "base/bits.h"

enum {
	TCP_SYN = 2,
	OPT_END = 0,
	OPT_NOP = 1,
	OPT_MSS = 2,
	MSS_LARGE = 65495,   /* of an IPv4 datagram of 65535 bytes */
	MSS_MIN = 88,        /* less than any network has: it is not believed */
	UDP_WHOLE = 1500,    /* an IP datagram of the usual MTU, */
	UDP_FRAGMENT = 1480, /* and what its fragments carry */
};

static unsigned be16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* The TCP header of an unfragmented frame, and the bytes from there to the datagram's end. */
static uint8_t *mss_tcp(uint8_t *frame, size_t len, struct net_layout *l, size_t *n)
{
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, frame, len, NULL);

	if (!net_parse(&p, l) || l->fragment || l->proto != 6 || l->end - l->l4 < 20)
		return NULL;
	*n = l->end - l->l4;
	return frame + l->l4;
}

void net_mss_raise(uint8_t *frame, size_t len, bool raise, struct net_mss *m)
{
	struct net_layout l;
	size_t n, hl;
	uint8_t *th, *opt;

	/* the flags are looked at first: nearly all frames end here */
	if (len < 54 || len > NET_FRAME_USUAL)
		return;
	th = mss_tcp(frame, len, &l, &n);
	if (!th || !(th[13] & TCP_SYN))
		return;
	hl = (th[12] >> 4) * 4u;
	for (opt = th + 20; hl <= n && opt < th + hl && *opt != OPT_END;) {
		size_t left = (size_t)(th + hl - opt);
		unsigned old, sum;

		if (*opt == OPT_NOP) {
			opt++;
			continue;
		}
		if (left < 2 || opt[1] < 2 || opt[1] > left)
			return;
		if (*opt != OPT_MSS || opt[1] != 4) {
			opt += opt[1];
			continue;
		}
		old = be16(opt + 2);
		if (old >= MSS_MIN)
			*(l.ip6 ? &m->v6 : &m->v4) = (uint16_t)old;
		if (!raise || old < MSS_MIN)
			return;
		put16(opt + 2, MSS_LARGE);
		/* HC' = ~(~HC + ~m + m') [RFC 1624]; a field at an odd place counts swapped */
		sum = (~be16(th + 16) & 0xffff);
		if ((opt - th) & 1) {
			old = (old & 0xff) << 8 | old >> 8;
			sum += (~old & 0xffff) + ((MSS_LARGE & 0xff) << 8 | MSS_LARGE >> 8);
		} else {
			sum += (~old & 0xffff) + MSS_LARGE;
		}
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		put16(th + 16, ~sum);
		return;
	}
}

size_t net_mss_mark(const uint8_t *frame, size_t len, const struct net_mss *m, struct net_hdr *hdr,
		    uint8_t head[128])
{
	struct net_layout l;
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, frame, len, NULL);
	size_t hl, size;
	unsigned field;
	uint8_t pseudo[4], type;
	uint64_t sum;
	uint16_t s;

	*hdr = (struct net_hdr){ 0 };
	if (!net_parse(&p, &l) || l.fragment)
		return 0;
	if (l.proto == 6 || l.proto == 17)
		hdr->flags = NET_HDR_DATA_VALID;
	if (l.proto == 17 && !l.ip6 && l.end - l.l3 > UDP_WHOLE) {
		/* a datagram that the stack did not cut because it thinks the MTU large */
		type = NET_GSO_UDP;
		size = UDP_FRAGMENT;
		field = 6;
		hl = l.l4 + 8u;
	} else if (l.proto == 6 && l.end - l.l4 >= 20) {
		type = l.ip6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4;
		size = l.ip6 ? m->v6 : m->v4;
		field = 16;
		hl = l.l4 + (frame[l.l4 + 12] >> 4) * 4u;
		if (hl < l.l4 + 20u || hl > l.end || l.end - hl <= size)
			return 0;
	} else {
		return 0;
	}
	if (hl > 128 || hl > l.end)
		return 0;
	memcpy(head, frame, hl);
	/*
	 * What is to be cut has an open checksum [VIRTIO1.2 5.1.6.4.1]: the field holds the pseudo
	 * header's sum.
	 */
	sum = l.ip6 ? net_sum_mem(head + l.l3 + 8, 32, 0) : net_sum_mem(head + l.l3 + 12, 8, 0);
	pseudo[0] = 0;
	pseudo[1] = l.proto;
	put16(pseudo + 2, (unsigned)(l.end - l.l4));
	s = net_sum_mem(pseudo, 4, sum);
	memcpy(head + l.l4 + field, &s, 2);
	*hdr = (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM,
				 .gso_type = type,
				 .hdr_len = (uint16_t)hl,
				 .gso_size = (uint16_t)size,
				 .csum_start = l.l4,
				 .csum_offset = (uint16_t)field };
	return hl;
}
