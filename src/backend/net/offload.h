/*
 * In software what network hardware does: checksums and cutting of large segments.
 *
 * Modelled: the partial checksum of virtio (one's complement sum from csum_start on, which includes
 * what the sender has put into the field); TSO over IPv4 and IPv6 (extension headers, VLAN tags),
 * USO, and UFO as IPv4 fragments.
 * Not modelled: UFO over IPv6, tunnels: such frames are dropped.
 * References: [VIRTIO1.2 5.1.6.2 "Packet Transmission"], RFC 791, RFC 1071, RFC 8200, RFC 9293.
 * Threads: pure functions. Hostile: frames; everything is checked against the frame's length.
 */
#pragma once
#include "backend/net/netdev.h"

/*
 * One's complement sum of bytes [off, off+len) of a frame (of memory), folded to 16 bits, in the
 * order of memory: what belongs into a packet is ~sum as it is. sum: where to begin.
 */
uint16_t net_sum(const struct netpkt *pkt, size_t off, size_t len, uint64_t sum);
uint16_t net_sum_mem(const void *buf, size_t len, uint64_t sum);

/* What a frame with this header needs of its receiver: NET_* bits. */
unsigned net_needs(const struct net_hdr *h);

/* Offsets of the headers of an IP frame. */
struct net_layout {
	uint16_t l3, l4; /* the IP and the TCP or UDP header */
	uint32_t end;    /* of the IP datagram; behind it may be padding */
	uint8_t proto;   /* 6 TCP, 17 UDP, ... */
	bool ip6;
	bool fragment; /* an IP fragment: do not rely on a header at l4 */
};
/* False: no IP, cut off, or inconsistent. */
bool net_parse(const struct netpkt *pkt, struct net_layout *l);

/* Is the header sound for its frame: the checksum field inside, a known type, useful sizes? */
bool net_hdr_check(const struct netpkt *pkt);

/*
 * Hand the frame to fn, finished as far as a port with these accepts needs it: once, or once for
 * each piece. *done: pieces to skip; counts those that fn took. When fn returns false the rest is
 * left for another call and the result is false. A frame that is not what its header says is
 * dropped: true, and *lost is set; so is one in so many pieces that fn would get more than
 * NET_IOV_MAX.
 */
bool net_finish(const struct netpkt *pkt, unsigned accepts, unsigned *done, bool *lost,
		bool (*fn)(void *opaque, const struct netpkt *pkt), void *opaque);
