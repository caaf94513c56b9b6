/* See chardev.h: what all chardevs share, the list by id, and making one from text. */
#include "backend/char/chardev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bug.h"
#include "core/nearest.h"

static void chardev_update(void *opaque)
{
	struct chardev *c = opaque;

	if (c->ops->update)
		c->ops->update(c);
}

static void chardev_can_write(void *opaque)
{
	struct chardev *c = opaque;

	if (!c->want_write)
		return;
	c->want_write = false;
	if (c->fe && c->fe->can_write)
		c->fe->can_write(c->fe_opaque);
}

void chardev_init(struct chardev *c, const struct chardev_ops *ops, struct loop *l, const char *id)
{
	c->ops = ops;
	c->loop = l;
	c->id = strdup(id);
	BUG_ON(!c->id);
	bh_init(&c->update_bh, l, chardev_update, c);
	bh_init(&c->write_bh, l, chardev_can_write, c);
}

size_t chardev_fe_can_read(struct chardev *c)
{
	return c->fe && c->fe->can_read && c->fe->read ? c->fe->can_read(c->fe_opaque) : 0;
}

void chardev_fe_read(struct chardev *c, const uint8_t *buf, size_t len)
{
	if (c->fe && c->fe->read)
		c->fe->read(c->fe_opaque, buf, len);
}

void chardev_fe_event(struct chardev *c, enum chardev_event ev)
{
	if (c->fe && c->fe->event)
		c->fe->event(c->fe_opaque, ev);
}

void chardev_fe_writable(struct chardev *c)
{
	bh_schedule(&c->write_bh);
}

int chardev_attach(struct chardev *c, const struct chardev_handlers *h, void *opaque, struct err *e)
{
	if (c->fe)
		return err_set(e, EBUSY, "chardev %s is in use already", c->id);
	c->fe = h;
	c->fe_opaque = opaque;
	bh_schedule(&c->update_bh);
	return 0;
}

void chardev_detach(struct chardev *c)
{
	if (!c || !c->fe)
		return;
	c->fe = NULL;
	c->fe_opaque = NULL;
	c->want_write = false;
	bh_schedule(&c->update_bh);
}

size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	size_t n;

	if (!c)
		return len;
	n = c->ops->write(c, buf, len, false);
	if (n < len)
		c->want_write = true;
	return n;
}

void chardev_write_all(struct chardev *c, const uint8_t *buf, size_t len)
{
	if (c)
		c->ops->write(c, buf, len, true);
}

void chardev_accept_input(struct chardev *c)
{
	if (c)
		bh_schedule(&c->update_bh);
}

void chardev_flush(struct chardev *c)
{
	if (c && c->ops->flush)
		c->ops->flush(c);
}

void chardev_free(struct chardev *c)
{
	if (!c)
		return;
	chardev_detach(c);
	bh_cancel(&c->update_bh);
	bh_cancel(&c->write_bh);
	free(c->id);
	c->ops->free(c);
}

int chardevs_add(struct chardevs *cs, struct chardev *c, struct err *e)
{
	struct chardev **p = &cs->first;

	if (chardevs_find(cs, c->id))
		return err_set(e, EEXIST, "there is a chardev with the id %s already", c->id);
	while (*p)
		p = &(*p)->next;
	*p = c;
	return 0;
}

struct chardev *chardevs_find(const struct chardevs *cs, const char *id)
{
	struct chardev *c = cs->first;

	while (c && strcmp(c->id, id) != 0)
		c = c->next;
	return c;
}

void chardevs_free(struct chardevs *cs)
{
	while (cs->first) {
		struct chardev *c = cs->first;

		cs->first = c->next;
		chardev_free(c);
	}
}

struct chardev *chardev_from_text(struct loop *l, const char *id, const char *text,
				  struct term *term, struct err *e)
{
	static const char *const known[] = { "null", "stdio", "file:PATH", "none", "mon:stdio" };
	char hint[80];

	if (!strcmp(text, "null"))
		return chardev_null_new(l, id);
	if (!strcmp(text, "stdio"))
		return chardev_stdio_new(l, id, term, e);
	if (!strncmp(text, "file:", 5)) {
		if (text[5])
			return chardev_file_new(l, id, text + 5, e);
		err_set(e, EINVAL, "file: needs a path, as in file:/tmp/serial.log");
		return NULL;
	}
	text_nearest_hint(hint, sizeof(hint), text, known, ARRAY_SIZE(known));
	err_set(e, EINVAL, "unknown character device %s%s; known are null, stdio, file:PATH", text,
		hint);
	return NULL;
}

/* --- null: takes everything, gives nothing --- */

static size_t null_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	return len;
}

static void null_free(struct chardev *c)
{
	free(c);
}

static const struct chardev_ops null_ops = { .name = "null",
					     .write = null_write,
					     .free = null_free };

struct chardev *chardev_null_new(struct loop *l, const char *id)
{
	struct chardev *c = calloc(1, sizeof(*c));

	BUG_ON(!c); /* small and at start */
	chardev_init(c, &null_ops, l, id);
	return c;
}
