/*
 * Large TCP segments between a guest and a network stack in this process that knows nothing of
 * segmentation offload (libslirp).
 *
 * The stack cuts what it sends by the segment size that the guest announced in its SYN, which is
 * that of the guest's MTU. Raising the announced size on its way makes the stack send large
 * segments; on their way to the guest they are marked as what the guest's TSO takes, with the size
 * that the guest had announced. So a transfer costs one pass through the stack for 32 KiB instead
 * of one for 1460 bytes.
 *
 * References: RFC 9293 3.7.1 (MSS), RFC 1624 (checksum update), [VIRTIO1.2 5.1.6.4].
 * Threads: pure functions. Hostile: the frames.
 */
#pragma once
#include "backend/net/netdev.h"

/* What a guest announced last, for IPv4 and IPv6; the start values are those of an MTU of 1500. */
struct net_mss {
	uint16_t v4, v6;
};
#define NET_MSS_INIT ((struct net_mss){ 1460, 1440 })

/*
 * A frame from the guest, in one piece. If it is a TCP SYN with an MSS option, keep its value in m
 * and, if raise is set, put a larger one and correct the checksum.
 */
void net_mss_raise(uint8_t *frame, size_t len, bool raise, struct net_mss *m);

/*
 * A frame from the stack, whose checksums are right. Fills hdr with what it is for the guest; head
 * gets a copy of its first bytes as the guest shall see them. Returns their number; 0: the frame
 * goes as it is, with hdr.
 */
size_t net_mss_mark(const uint8_t *frame, size_t len, const struct net_mss *m, struct net_hdr *hdr,
		    uint8_t head[128]);
