/* See chardev.h: what all chardevs share, and the list by id. */
#include "backend/char/chardev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/writer.h"
#include "base/bits.h"
#include "base/bug.h"

static void chardev_update(void *opaque)
{
	struct chardev *c = opaque;

	if (c->announce) {
		c->announce = false;
		if (c->open && c->fe && c->fe->event)
			c->fe->event(c->fe_opaque, CHARDEV_OPENED);
	}
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
	c->open = true;
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
	if (ev == CHARDEV_OPENED || ev == CHARDEV_CLOSED) {
		c->open = ev == CHARDEV_OPENED;
		c->announce = false;
	}
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
	c->announce = c->open;
	bh_schedule(&c->update_bh);
	return 0;
}

void chardev_detach(struct chardev *c)
{
	if (!c || !c->fe)
		return;
	c->fe = NULL;
	c->fe_opaque = NULL;
	c->want_write = c->announce = false;
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
	if (c->log && n)
		writer_put(c->log, buf, n, true);
	return n;
}

void chardev_write_all(struct chardev *c, const uint8_t *buf, size_t len)
{
	if (!c)
		return;
	c->ops->write(c, buf, len, true);
	if (c->log)
		writer_put(c->log, buf, len, true);
}

void chardev_accept_input(struct chardev *c)
{
	if (c)
		bh_schedule(&c->update_bh);
}

bool chardev_is_open(const struct chardev *c)
{
	return c && c->open;
}

void chardev_set_line(struct chardev *c, const struct chardev_line *line)
{
	if (c && c->ops->set_line)
		c->ops->set_line(c, line);
}

void chardev_send_break(struct chardev *c, bool on)
{
	if (c && c->ops->send_break)
		c->ops->send_break(c, on);
}

struct chardev *chardev_port(struct chardev *c)
{
	return c && c->ops->port ? c->ops->port(c) : c;
}

void chardev_describe(struct chardev *c, char *buf, size_t cap)
{
	if (c->ops->describe)
		c->ops->describe(c, buf, cap);
	else
		snprintf(buf, cap, "%s", c->ops->name);
}

void chardev_set_size(struct chardev *c, uint16_t cols, uint16_t rows)
{
	if (c->cols == cols && c->rows == rows)
		return;
	c->cols = cols;
	c->rows = rows;
	chardev_fe_event(c, CHARDEV_RESIZED);
}

int chardev_log_to(struct chardev *c, const char *path, bool append, struct err *e)
{
	int fd = writer_open(path, append, e);
	struct writer *w;

	if (fd < 0)
		return err_prefix(e, "logfile");
	w = writer_new(fd, CHARDEV_QUEUE, CHARDEV_HARD_MAX, NULL, NULL, e); /* has its own copy */
	close(fd);
	if (!w)
		return err_prefix(e, "logfile=%s", path);
	writer_free(c->log);
	c->log = w;
	return 0;
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
	writer_free(c->log);
	free(c->id);
	free(c->notice);
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

void chardevs_look_size(struct chardevs *cs)
{
	for (struct chardev *c = cs->first; c; c = c->next)
		if (c->ops->look_size)
			c->ops->look_size(c);
}

int chardevs_wait(struct chardevs *cs, const bool *stop, void (*waiting)(struct chardev *c),
		  struct err *e)
{
	for (struct chardev *c = cs->first, *told = NULL; c && !*stop;) {
		int r = c->ops->ready ? c->ops->ready(c, e) : CHARDEV_READY;

		if (r < 0)
			return err_prefix(e, "chardev %s", c->id);
		if (r == CHARDEV_READY) {
			c = c->next;
			continue;
		}
		if (r == CHARDEV_LISTENING && told != c) {
			waiting(c);
			told = c;
		}
		loop_step(c->loop, true);
	}
	return 0;
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
