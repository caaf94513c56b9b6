/* See dev.h: life of a device and the list of a machine's devices. Properties are in prop.c. */
#include "core/dev.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/prop.h"

struct dev *machine_devs_find(struct machine_devs *md, const char *id)
{
	struct dev *d = md->first;

	while (d && strcmp(d->id, id) != 0)
		d = d->next;
	return d;
}

/* "NAME", or "NAMEn" when that is taken. */
static char *dev_make_id(struct machine_devs *md, const char *name)
{
	char *id = strdup(name);

	for (unsigned n = 1; id && machine_devs_find(md, id); n++) {
		free(id);
		if (asprintf(&id, "%s%u", name, n) < 0)
			id = NULL;
	}
	return id;
}

static void dev_discard(struct dev *d)
{
	trace_src_del(&d->tr);
	prop_free_all(d);
	free((char *)d->id);
	free(d);
}

struct dev *dev_new(struct machine_devs *md, const struct dev_class *cls, const char *id,
		    struct err *e)
{
	struct dev *d;

	if (id && machine_devs_find(md, id)) {
		err_set(e, EEXIST, "%s: there is a device with this id already", id);
		return NULL;
	}
	d = calloc(1, cls->size);
	if (d)
		d->id = id ? strdup(id) : dev_make_id(md, cls->name);
	if (!d || !d->id) {
		free(d);
		err_set(e, ENOMEM, "%s: out of memory", cls->name);
		return NULL;
	}
	d->cls = cls;
	d->md = md;
	d->bus = md->bus;
	trace_src_add(md->trace, &d->tr, d->id);
	if (prop_set_defaults(d, e)) {
		dev_discard(d);
		return NULL;
	}
	d->prev = md->last;
	*(d->prev ? &d->prev->next : &md->first) = d;
	md->last = d;
	return d;
}

int dev_realize(struct dev *d, struct err *e)
{
	int rc = d->cls->realize(d, e);

	if (rc) {
		bus_unclaim_all(d);
		return rc;
	}
	d->realized = true;
	dev_reset(d, RESET_COLD);
	return 0;
}

struct dev *dev_create(struct machine_devs *md, const struct dev_class *cls, const char *id,
		       struct err *e, ...)
{
	struct dev *d = dev_new(md, cls, id, e);
	const char *name;
	va_list ap;
	int rc = 0;

	if (!d)
		return NULL;
	va_start(ap, e);
	while (!rc && (name = va_arg(ap, const char *)))
		rc = dev_set_prop(d, name, va_arg(ap, const char *), e);
	va_end(ap);
	if (!rc)
		rc = dev_realize(d, e);
	if (rc) {
		dev_free(d);
		return NULL;
	}
	return d;
}

void dev_free(struct dev *d)
{
	if (!d)
		return;
	if (d->realized) {
		bus_unclaim_all(d);
		if (d->cls->unrealize)
			d->cls->unrealize(d);
	}
	*(d->prev ? &d->prev->next : &d->md->first) = d->next;
	*(d->next ? &d->next->prev : &d->md->last) = d->prev;
	dev_discard(d);
}

int dev_irq(struct dev *d, struct irq_pin *pin, unsigned n, struct err *e)
{
	if (n >= d->md->n_gsi)
		return err_set(e, ENODEV, "%s: the machine has no interrupt %u", d->id, n);
	irq_connect(pin, &d->md->gsi[n]);
	return 0;
}

int dev_doorbell(struct dev *d, const struct doorbell *db, bool assign, struct err *e)
{
	const struct event_ops *ops = d->md->events;
	int rc = 0;

	if (assign)
		rc = bus_doorbell_add(d->bus, db, e);
	else
		bus_doorbell_del(d->bus, db);
	if (rc)
		return err_prefix(e, "%s", d->id);
	if (ops && ops->doorbell)
		(void)ops->doorbell(d->md->events_opaque, db, assign, NULL);
	return 0;
}

uint64_t dev_now(const struct dev *d)
{
	return clock_now(loop_clock(d->md->loop));
}

void dev_reset(struct dev *d, enum reset_kind k)
{
	d->cls->reset(d, k);
}

size_t dev_save(struct dev *d, uint8_t *buf, size_t cap)
{
	return state_save(&d->cls->state, d, buf, cap);
}

int dev_load(struct dev *d, const uint8_t *buf, size_t len, struct err *e)
{
	const struct state_desc *sd = &d->cls->state;
	uint8_t *s = (uint8_t *)d + sd->off, *old = malloc(sd->size + 1u);
	int rc;

	if (!old)
		return err_set(e, ENOMEM, "%s: out of memory", d->id);
	memcpy(old, s, sd->size);
	rc = state_load(sd, d, buf, len, e);
	if (!rc && d->cls->loaded && (rc = d->cls->loaded(d, e))) {
		memcpy(s, old, sd->size);
		d->cls->loaded(d,
			       NULL); /* it accepted this state before: it was made by the class */
	}
	free(old);
	if (rc)
		err_prefix(e, "%s", d->id);
	return rc;
}

void machine_devs_reset(struct machine_devs *md, enum reset_kind k)
{
	for (struct dev *d = md->first; d; d = d->next)
		if (d->realized)
			dev_reset(d, k);
}

void machine_devs_pause(struct machine_devs *md)
{
	for (struct dev *d = md->first; d; d = d->next)
		if (d->realized && d->cls->pause)
			d->cls->pause(d);
}

void machine_devs_resume(struct machine_devs *md)
{
	for (struct dev *d = md->first; d; d = d->next)
		if (d->realized && d->cls->resume)
			d->cls->resume(d);
}

void machine_devs_free(struct machine_devs *md)
{
	for (struct dev *d = md->last, *prev; d; d = prev) {
		prev = d->prev;
		dev_free(d);
	}
}
