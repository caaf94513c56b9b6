/*
 * Frames in a stream: each is preceded by its length, 4 bytes big-endian, as QEMU's stream netdev
 * and passt have it. The receiving half takes bytes as they come and gives whole frames.
 * Threads: the struct belongs to its owner. Hostile: the peer.
 */
#pragma once
#include "backend/net/netdev.h"

enum { FRAMES_HEAD = 4, FRAMES_BUF = 2 * (FRAMES_HEAD + NET_FRAME_MAX) };

struct frames {
	size_t have, at; /* bytes in buf, and where the next frame begins */
	uint8_t buf[FRAMES_BUF];
};

/* Where bytes may be put, and how many (> 0 when frames_next has said that it needs more). */
void *frames_room(struct frames *f, size_t *n);
void frames_put(struct frames *f, size_t n);

/*
 * The next whole frame: 1 and where it is (until the next frames_room); 0: more bytes are needed;
 * -EPROTO: this is no frame (length 0 or more than NET_FRAME_MAX).
 */
int frames_next(struct frames *f, const uint8_t **frame, size_t *len);
/* The frame that frames_next gave is taken. */
void frames_taken(struct frames *f);
void frames_clear(struct frames *f);
