/* The chardev of tests: input is pushed by the caller, output is kept until it is taken. */
#include <stdlib.h>
#include <string.h>

#include "backend/char/chardev.h"
#include "base/bits.h"
#include "base/bug.h"

struct ring_chardev {
	struct chardev c;
	size_t room, n_out; /* out[] holds up to room, or more after a forced write */
	uint8_t *out;
	size_t n_in;
	uint8_t *in;
	struct chardev_line line;
	bool brk;
};

static size_t ring_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);
	size_t n = force ? len : MIN(len, r->room > r->n_out ? r->room - r->n_out : 0);

	if (!n)
		return 0;
	r->out = realloc(r->out, r->n_out + n);
	BUG_ON(!r->out);
	memcpy(r->out + r->n_out, buf, n);
	r->n_out += n;
	return n;
}

static void ring_update(struct chardev *c)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);
	size_t n;

	while (r->n_in && (n = MIN(chardev_fe_can_read(c), r->n_in))) {
		uint8_t piece[256];

		n = MIN(n, sizeof(piece));
		memcpy(piece, r->in, n);
		memmove(r->in, r->in + n, r->n_in - n);
		r->n_in -= n;
		chardev_fe_read(c, piece, n);
	}
}

static void ring_set_line(struct chardev *c, const struct chardev_line *line)
{
	container_of(c, struct ring_chardev, c)->line = *line;
}

static void ring_send_break(struct chardev *c, bool on)
{
	container_of(c, struct ring_chardev, c)->brk = on;
}

static void ring_free(struct chardev *c)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);

	free(r->in);
	free(r->out);
	free(r);
}

static const struct chardev_ops ring_ops = {
	.name = "ring",
	.write = ring_write,
	.update = ring_update,
	.free = ring_free,
	.set_line = ring_set_line,
	.send_break = ring_send_break,
};

struct chardev *chardev_ring_new(struct loop *l, const char *id, size_t room)
{
	struct ring_chardev *r = calloc(1, sizeof(*r));

	BUG_ON(!r);
	r->room = room;
	chardev_init(&r->c, &ring_ops, l, id);
	return &r->c;
}

void chardev_ring_input(struct chardev *c, const void *buf, size_t len)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);

	if (!len)
		return;
	r->in = realloc(r->in, r->n_in + len);
	BUG_ON(!r->in);
	memcpy(r->in + r->n_in, buf, len);
	r->n_in += len;
	bh_schedule(&c->update_bh);
}

void chardev_ring_event(struct chardev *c, enum chardev_event ev)
{
	chardev_fe_event(c, ev);
}

size_t chardev_ring_output(struct chardev *c, void *buf, size_t cap)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);
	size_t n = MIN(cap, r->n_out);

	if (!n)
		return 0;
	memcpy(buf, r->out, n);
	memmove(r->out, r->out + n, r->n_out - n);
	r->n_out -= n;
	chardev_fe_writable(c);
	return n;
}

const struct chardev_line *chardev_ring_line(struct chardev *c, bool *brk)
{
	struct ring_chardev *r = container_of(c, struct ring_chardev, c);

	*brk = r->brk;
	return &r->line;
}
