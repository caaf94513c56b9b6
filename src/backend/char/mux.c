/*
 * Control-A keys over another chardev, the ones QEMU users know.
 *
 * Input is taken from below into a queue of MUX_QUEUE bytes even when the guest does not read, so
 * that C-a x ends a guest that hangs; a queue that is full stops input below (nothing is lost).
 * C-a is never passed on by itself: C-a C-a sends one.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/chardev.h"
#include "base/bits.h"

#define MUX_QUEUE  65536u
#define MUX_ESCAPE 1 /* Control-A */

struct mux {
	struct chardev c;
	struct chardev *below;
	struct chardev_mux_keys keys;
	bool escaped; /* the last byte was the escape */
	uint8_t q[MUX_QUEUE];
	size_t head, n;
};

static void mux_say(struct mux *m, const char *text)
{
	chardev_write_all(m->below, (const uint8_t *)text, strlen(text));
}

static void mux_deliver(struct mux *m)
{
	while (m->n) {
		size_t k = MIN(m->n, MUX_QUEUE - m->head);

		k = MIN(k, chardev_fe_can_read(&m->c));
		if (!k)
			break;
		chardev_fe_read(&m->c, m->q + m->head, k);
		m->head = (m->head + k) % MUX_QUEUE;
		m->n -= k;
	}
}

static void mux_push(struct mux *m, uint8_t byte)
{
	m->q[(m->head + m->n++) % MUX_QUEUE] = byte;
}

static void mux_key(struct mux *m, uint8_t key)
{
	switch (tolower(key)) {
	case MUX_ESCAPE: mux_push(m, MUX_ESCAPE); break;
	case 'b':
		mux_deliver(m); /* what was typed before comes before */
		chardev_fe_event(&m->c, CHARDEV_BREAK);
		break;
	case 'c':
		if (m->keys.switch_focus)
			m->keys.switch_focus(m->keys.opaque);
		else
			mux_say(m, "\r\nkvasir: there is no monitor\r\n");
		break;
	case 'x':
		mux_say(m, "\r\nkvasir: terminated\r\n");
		if (m->keys.quit)
			m->keys.quit(m->keys.opaque);
		break;
	default: /* h, ? and everything unknown */
		mux_say(m, "\r\n"
			   "C-a h    this help\r\n"
			   "C-a x    end the machine\r\n"
			   "C-a b    send a break\r\n"
			   "C-a c    switch between console and monitor\r\n"
			   "C-a C-a  send C-a\r\n");
		break;
	}
}

static size_t mux_can_read(void *opaque)
{
	return MUX_QUEUE - ((struct mux *)opaque)->n;
}

static void mux_read(void *opaque, const uint8_t *buf, size_t len)
{
	struct mux *m = opaque;

	for (size_t i = 0; i < len; i++) {
		if (m->escaped) {
			m->escaped = false;
			mux_key(m, buf[i]);
		} else if (buf[i] == MUX_ESCAPE) {
			m->escaped = true;
		} else {
			mux_push(m, buf[i]);
		}
	}
	mux_deliver(m);
}

static void mux_can_write(void *opaque)
{
	chardev_fe_writable(&((struct mux *)opaque)->c);
}

static void mux_event(void *opaque, enum chardev_event ev)
{
	chardev_fe_event(&((struct mux *)opaque)->c, ev);
}

static const struct chardev_handlers mux_handlers = {
	.can_read = mux_can_read,
	.read = mux_read,
	.can_write = mux_can_write,
	.event = mux_event,
};

static size_t mux_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct mux *m = container_of(c, struct mux, c);

	if (!force)
		return chardev_write(m->below, buf, len);
	chardev_write_all(m->below, buf, len);
	return len;
}

static void mux_update(struct chardev *c)
{
	struct mux *m = container_of(c, struct mux, c);

	mux_deliver(m);
	chardev_accept_input(m->below);
}

static void mux_flush(struct chardev *c)
{
	chardev_flush(container_of(c, struct mux, c)->below);
}

static void mux_free(struct chardev *c)
{
	struct mux *m = container_of(c, struct mux, c);

	chardev_free(m->below);
	free(m);
}

static const struct chardev_ops mux_ops = {
	.name = "mux",
	.write = mux_write,
	.update = mux_update,
	.flush = mux_flush,
	.free = mux_free,
};

struct chardev *chardev_mux_new(struct loop *l, const char *id, struct chardev *below,
				const struct chardev_mux_keys *keys, struct err *e)
{
	struct mux *m = calloc(1, sizeof(*m));

	if (!m) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	if (chardev_attach(below, &mux_handlers, m, e)) {
		free(m);
		return NULL;
	}
	m->below = below;
	if (below->ops->take_keys)
		below->ops->take_keys(below);
	m->keys = *keys;
	chardev_init(&m->c, &mux_ops, l, id);
	return &m->c;
}
