/* What -object makes, for devices to find by id: I/O threads, sources of random numbers. */
#include <errno.h>
#include <string.h>

#include "base/busypoll.h"
#include "machine/machine.h"

#define LOOP_POLL_NS 50000

/*
 * Loops poll by default where the host has a processor for each vCPU and each loop: a request to a
 * disk is two wake-ups of threads, which cost as much as the rest of it. Where threads share
 * processors, one that polls may keep those from running that it waits for.
 */
static void machine_set_polls(struct machine *m)
{
	unsigned threads = m->cfg->smp.cpus + 1;
	uint32_t ns;

	for (unsigned i = 0; i < m->nobjects; i++)
		threads += m->object[i].iothread != NULL;
	ns = threads <= busypoll_processors() ? LOOP_POLL_NS : 0;
	loop_set_poll(m->loop, ns);
	for (unsigned i = 0; i < m->nobjects; i++) {
		const struct object_config *c = m->object[i].cfg;
		struct iothread *t = m->object[i].iothread;

		if (t || c->kind == OBJECT_MAIN_LOOP)
			loop_set_poll(t ? t->loop : m->loop, c->poll ? c->poll_max_ns : ns);
	}
}

int machine_objects(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg->nobjects; i++) {
		const struct object_config *c = &m->cfg->object[i];
		struct machine_object *o = &m->object[m->nobjects];

		o->cfg = c;
		switch (c->kind) {
		case OBJECT_IOTHREAD: o->iothread = iothread_new(c->id, &m->clock, e); break;
		case OBJECT_MAIN_LOOP: break;
		case OBJECT_RNG_RANDOM: o->rng = rng_random_new(c->id, c->file, e); break;
		case OBJECT_RNG_BUILTIN:
			o->rng = rng_builtin_new(c->id);
			if (!o->rng)
				err_set(e, ENOMEM, "out of memory");
			break;
		}
		if (!o->iothread && !o->rng && c->kind != OBJECT_MAIN_LOOP)
			return err_prefix(e, "-object");
		m->nobjects++;
	}
	machine_set_polls(m);
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
