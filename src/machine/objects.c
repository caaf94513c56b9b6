/* What -object makes, for devices to find by id: I/O threads, sources of random numbers. */
#include <errno.h>
#include <string.h>

#include "machine/machine.h"

int machine_objects(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg->nobjects; i++) {
		const struct object_config *c = &m->cfg->object[i];
		struct machine_object *o = &m->object[m->nobjects];

		o->cfg = c;
		switch (c->kind) {
		case OBJECT_IOTHREAD: o->iothread = iothread_new(c->id, &m->clock, e); break;
		case OBJECT_RNG_RANDOM: o->rng = rng_random_new(c->id, c->file, e); break;
		case OBJECT_RNG_BUILTIN:
			o->rng = rng_builtin_new(c->id);
			if (!o->rng)
				err_set(e, ENOMEM, "out of memory");
			break;
		}
		if (!o->iothread && !o->rng)
			return err_prefix(e, "-object");
		m->nobjects++;
	}
	return 0;
}

void machine_objects_free(struct machine *m)
{
	while (m->nobjects) {
		struct machine_object *o = &m->object[--m->nobjects];

		iothread_free(o->iothread);
		rng_free(o->rng);
	}
}

void *machine_object_find(struct machine *m, const char *type, const char *id)
{
	for (unsigned i = 0; i < m->nobjects; i++) {
		struct machine_object *o = &m->object[i];

		if (strcmp(o->cfg->id, id))
			continue;
		if (!strcmp(type, "iothread"))
			return o->iothread;
		return strcmp(type, "rng") ? NULL : o->rng;
	}
	return NULL;
}

void machine_clock_changed(struct machine *m)
{
	loop_clock_changed(m->loop);
	for (unsigned i = 0; i < m->nobjects; i++)
		if (m->object[i].iothread)
			loop_clock_changed(m->object[i].iothread->loop);
}
