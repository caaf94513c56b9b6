/*
 * Control-A keys over another chardev, the ones QEMU users know, and several frontends on it.
 *
 * Each frontend has a port with a chardev of its own; the first is the mux itself. All may write;
 * input goes to the port in focus, and C-a c moves that on. Input is taken from below into the
 * port's queue of MUX_QUEUE bytes even when the guest does not read, so that C-a x ends a guest
 * that hangs; a queue that is full stops input below (nothing is lost). C-a is never passed on by
 * itself: C-a C-a sends one.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/chardev.h"
#include "base/bits.h"

#define MUX_QUEUE  65536u
#define MUX_PORTS  4
#define MUX_ESCAPE 1 /* Control-A */

struct mux;

struct mux_port {
	struct chardev c;
	struct mux *m;
	size_t head, n;
	uint8_t q[MUX_QUEUE];
};

struct mux {
	struct mux_port first;
	struct mux_port *port[MUX_PORTS]; /* [0] is first */
	unsigned ports, handed_out, focus;
	struct chardev *below;
	struct chardev_mux_keys keys;
	bool escaped; /* the last byte was the escape */
};

static struct mux *mux_of(struct chardev *c)
{
	return container_of(c, struct mux_port, c)->m;
}

static void mux_say(struct mux *m, const char *text)
{
	chardev_write_all(m->below, (const uint8_t *)text, strlen(text));
}

/* The port in focus: one with a frontend, if there is any. */
static struct mux_port *mux_focused(struct mux *m)
{
	for (unsigned i = 0; i < m->ports && !m->port[m->focus]->c.fe; i++)
		if (m->port[i]->c.fe)
			m->focus = i;
	return m->port[m->focus];
}

static void mux_deliver(struct mux_port *p)
{
	while (p->n) {
		size_t k = MIN(p->n, MUX_QUEUE - p->head);

		k = MIN(k, chardev_fe_can_read(&p->c));
		if (!k)
			break;
		chardev_fe_read(&p->c, p->q + p->head, k);
		p->head = (p->head + k) % MUX_QUEUE;
		p->n -= k;
	}
}

/*
 * can_read gave the room of the port that was in focus then. A C-a c that comes first moves on to
 * another, which may be full: what it has no room for is dropped, as nobody reads there.
 */
static void mux_push(struct mux *m, uint8_t byte)
{
	struct mux_port *p = mux_focused(m);

	if (p->n < MUX_QUEUE)
		p->q[(p->head + p->n++) % MUX_QUEUE] = byte;
}

static void mux_set_focus(struct mux *m, unsigned to)
{
	struct mux_port *old = mux_focused(m);

	if (m->port[to] == old)
		return;
	mux_deliver(old); /* what was typed before was for it; the rest waits in its queue */
	chardev_fe_event(&old->c, CHARDEV_MUX_OUT);
	m->focus = to;
	chardev_fe_event(&m->port[to]->c, CHARDEV_MUX_IN);
}

static void mux_switch(struct mux *m)
{
	mux_focused(m);
	for (unsigned i = 1; i < m->ports; i++) {
		unsigned to = (m->focus + i) % m->ports;

		if (m->port[to]->c.fe) {
			mux_set_focus(m, to);
			return;
		}
	}
	if (m->keys.switch_focus)
		m->keys.switch_focus(m->keys.opaque);
	else
		mux_say(m, "\r\nkvasir: there is no monitor\r\n");
}

static void mux_key(struct mux *m, uint8_t key)
{
	switch (tolower(key)) {
	case MUX_ESCAPE: mux_push(m, MUX_ESCAPE); break;
	case 'b':
		mux_deliver(mux_focused(m)); /* what was typed before comes before */
		chardev_fe_event(&mux_focused(m)->c, CHARDEV_BREAK);
		break;
	case 'c': mux_switch(m); break;
	case 'x':
		if (m->keys.quit) {
			mux_say(m, "\r\nkvasir: terminated\r\n");
			m->keys.quit(m->keys.opaque);
		}
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
	return MUX_QUEUE - mux_focused(opaque)->n;
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
	mux_deliver(mux_focused(m));
}

static void mux_can_write(void *opaque)
{
	struct mux *m = opaque;

	for (unsigned i = 0; i < m->ports; i++)
		chardev_fe_writable(&m->port[i]->c);
}

static void mux_event(void *opaque, enum chardev_event ev)
{
	struct mux *m = opaque;

	if (ev == CHARDEV_OPENED || ev == CHARDEV_CLOSED)
		m->escaped = false; /* half a key of a peer that is gone */
	if (ev == CHARDEV_BREAK) {
		chardev_fe_event(&mux_focused(m)->c, ev);
		return;
	}
	for (unsigned i = 0; i < m->ports; i++) {
		if (ev == CHARDEV_RESIZED)
			chardev_set_size(&m->port[i]->c, m->below->cols, m->below->rows);
		else
			chardev_fe_event(&m->port[i]->c, ev);
	}
}

static const struct chardev_handlers mux_handlers = {
	.can_read = mux_can_read,
	.read = mux_read,
	.can_write = mux_can_write,
	.event = mux_event,
};

static size_t mux_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct mux *m = mux_of(c);

	if (!force)
		return chardev_write(m->below, buf, len);
	chardev_write_all(m->below, buf, len);
	return len;
}

static void mux_update(struct chardev *c)
{
	mux_deliver(container_of(c, struct mux_port, c));
	chardev_accept_input(mux_of(c)->below);
}

static void mux_flush(struct chardev *c)
{
	chardev_flush(mux_of(c)->below);
}

static int mux_ready(struct chardev *c, struct err *e)
{
	struct chardev *below = mux_of(c)->below;

	return below->ops->ready ? below->ops->ready(below, e) : CHARDEV_READY;
}

static void mux_describe(struct chardev *c, char *buf, size_t cap)
{
	chardev_describe(mux_of(c)->below, buf, cap);
}

static void mux_set_line(struct chardev *c, const struct chardev_line *line)
{
	chardev_set_line(mux_of(c)->below, line);
}

static void mux_send_break(struct chardev *c, bool on)
{
	chardev_send_break(mux_of(c)->below, on);
}

static void mux_look_size(struct chardev *c)
{
	struct chardev *below = mux_of(c)->below;

	if (below->ops->look_size)
		below->ops->look_size(below);
}

static void mux_free(struct chardev *c)
{
	struct mux *m = mux_of(c);

	chardev_free(m->below);
	for (unsigned i = 0; i < m->ports; i++) {
		bh_cancel(&m->port[i]->c.update_bh);
		bh_cancel(&m->port[i]->c.write_bh);
		if (!i)
			continue;
		free(m->port[i]->c.id);
		free(m->port[i]);
	}
	free(m);
}

static struct chardev *mux_port(struct chardev *c);

static const struct chardev_ops mux_ops = {
	.name = "mux",
	.write = mux_write,
	.update = mux_update,
	.flush = mux_flush,
	.free = mux_free,
	.ready = mux_ready,
	.describe = mux_describe,
	.port = mux_port,
	.set_line = mux_set_line,
	.send_break = mux_send_break,
	.look_size = mux_look_size,
};

/* Ports are handed out before their frontends attach, so each goes out once; then those left. */
static struct chardev *mux_port(struct chardev *c)
{
	struct mux *m = mux_of(c);
	struct mux_port *p;

	for (unsigned i = 0; i < m->handed_out && m->handed_out == MUX_PORTS; i++)
		if (!m->port[i]->c.fe)
			return &m->port[i]->c;
	if (m->handed_out == MUX_PORTS)
		return &m->first.c; /* all are taken: attach says that it is in use */
	if (m->handed_out == m->ports) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return &m->first.c;
		p->m = m;
		chardev_init(&p->c, &mux_ops, m->first.c.loop, m->first.c.id);
		p->c.open = m->first.c.open;
		p->c.cols = m->first.c.cols;
		p->c.rows = m->first.c.rows;
		m->port[m->ports++] = p;
	}
	return &m->port[m->handed_out++]->c;
}

void chardev_mux_focus(struct chardev *port)
{
	struct mux *m;

	if (port->ops != &mux_ops)
		return;
	m = mux_of(port);
	for (unsigned i = 0; i < m->ports; i++)
		if (&m->port[i]->c == port)
			mux_set_focus(m, i);
}

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
	m->first.m = m;
	m->port[0] = &m->first;
	m->ports = 1;
	if (below->ops->take_keys)
		below->ops->take_keys(below);
	m->keys = *keys;
	chardev_init(&m->first.c, &mux_ops, l, id);
	m->first.c.open = below->open;
	m->first.c.cols = below->cols;
	m->first.c.rows = below->rows;
	m->first.c.notice = below->notice;
	below->notice = NULL;
	return &m->first.c;
}
