/*
 * ringbuf: the last bytes of output, kept in memory for a monitor (ringbuf-read, ringbuf-write).
 * Nothing is ever full: old output makes room for new.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/chardev.h"
#include "base/bits.h"
#include "base/bug.h"

struct ringbuf {
	struct chardev c;
	size_t size;      /* a power of two */
	uint64_t in, out; /* counts of bytes ever; in - out <= size */
	uint8_t data[];
};

static size_t ringbuf_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct ringbuf *r = container_of(c, struct ringbuf, c);
	size_t skip = len > r->size ? len - r->size : 0, n = len - skip, at, first;

	r->in += skip;
	at = r->in & (r->size - 1);
	first = MIN(n, r->size - at);
	memcpy(r->data + at, buf + skip, first);
	memcpy(r->data, buf + skip + first, n - first);
	r->in += n;
	if (r->in - r->out > r->size)
		r->out = r->in - r->size;
	return len;
}

static void ringbuf_free(struct chardev *c)
{
	free(container_of(c, struct ringbuf, c));
}

static const struct chardev_ops ringbuf_ops = {
	.name = "ringbuf",
	.write = ringbuf_write,
	.free = ringbuf_free,
};

struct chardev *chardev_ringbuf_new(struct loop *l, const char *id, uint64_t size, struct err *e)
{
	struct ringbuf *r;

	if (!size || size & (size - 1)) {
		err_set(e, EINVAL, "chardev %s: size=%llu: a power of two is needed", id,
			(unsigned long long)size);
		return NULL;
	}
	r = calloc(1, sizeof(*r) + size);
	if (!r) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	r->size = size;
	chardev_init(&r->c, &ringbuf_ops, l, id);
	return &r->c;
}

size_t chardev_ringbuf_read(struct chardev *c, void *buf, size_t cap)
{
	struct ringbuf *r = container_of(c, struct ringbuf, c);
	size_t n, at, first;

	BUG_ON(c->ops != &ringbuf_ops);
	n = MIN(cap, r->in - r->out);
	at = r->out & (r->size - 1);
	first = MIN(n, r->size - at);
	memcpy(buf, r->data + at, first);
	memcpy((uint8_t *)buf + first, r->data, n - first);
	r->out += n;
	return n;
}

size_t chardev_ringbuf_write(struct chardev *c, const void *buf, size_t len)
{
	size_t n = MIN(len, chardev_fe_can_read(c));

	BUG_ON(c->ops != &ringbuf_ops);
	if (n)
		chardev_fe_read(c, buf, n);
	return n;
}
