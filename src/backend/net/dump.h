/*
 * A capture of a netdev's frames into a pcap file (-object filter-dump).
 *
 * Format: pcap with microseconds, link type Ethernet; frames as their senders sent them, so a large
 * segment of a guest with TSO shows as one frame. A frame is in the
 * file when it was sent. A full disk ends the capture with one message.
 * Reference: draft-ietf-opsawg-pcap.  Threads: those of the netdev.  Host resources: a file.
 */
#pragma once
#include "backend/net/netdev.h"

enum { NET_DUMP_MAXLEN = 65536 };

/* maxlen: bytes kept of each frame, 1 to NET_FRAME_MAX. */
struct netfilter *net_dump_new(const char *id, const char *path, uint32_t maxlen, struct err *e);
