/* See frames.h. */
#include "backend/net/frames.h"

#include <errno.h>
#include <string.h>

void *frames_room(struct frames *f, size_t *n)
{
	if (f->at) {
		memmove(f->buf, f->buf + f->at, f->have - f->at);
		f->have -= f->at;
		f->at = 0;
	}
	*n = sizeof(f->buf) - f->have;
	return f->buf + f->have;
}

void frames_put(struct frames *f, size_t n)
{
	f->have += n;
}

static uint32_t frames_len(const struct frames *f)
{
	const uint8_t *p = f->buf + f->at;

	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

int frames_next(struct frames *f, const uint8_t **frame, size_t *len)
{
	if (f->have - f->at < FRAMES_HEAD)
		return 0;
	*len = frames_len(f);
	if (!*len || *len > NET_FRAME_MAX)
		return -EPROTO;
	if (f->have - f->at - FRAMES_HEAD < *len)
		return 0;
	*frame = f->buf + f->at + FRAMES_HEAD;
	return 1;
}

void frames_taken(struct frames *f)
{
	f->at += FRAMES_HEAD + frames_len(f);
}

void frames_clear(struct frames *f)
{
	f->have = f->at = 0;
}
