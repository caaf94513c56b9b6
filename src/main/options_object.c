/*
 * -object KIND,id=ID[,PROP=VALUE]: things that devices use by their id. A kind is a row of the
 * table below and its function.
 * References: [QEMU-MAN].
 */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "main/keyval.h"
#include "main/options.h"

#define OBJECT_POLL_MOST 1000000000 /* ns */

/* k has kind and id already; the function takes the rest and calls keyval_done. */
struct object_kind {
	const char *name, *desc;
	int (*fn)(struct options *o, struct keyval *k, struct err *e);
};

static int object_add(struct options *o, enum object_config_kind kind, struct keyval *k,
		      const char *file, struct err *e)
{
	struct object_config *c = &o->cfg.object[o->cfg.nobjects];

	if (o->cfg.nobjects == CONFIG_OBJECTS)
		return err_set(e, E2BIG, "-object: more than %d", CONFIG_OBJECTS);
	c->kind = kind;
	c->id = options_keep(o, keyval_get(k, "id"), e);
	c->file = file ? options_keep(o, file, e) : NULL;
	if (!c->id || (file && !c->file))
		return -ENOMEM;
	o->cfg.nobjects++;
	return 0;
}

/* The two loops. QEMU's poll-grow and poll-shrink are refused: the window has one size. */
static int object_loop(struct options *o, enum object_config_kind kind, struct keyval *k,
		       struct err *e)
{
	static const char *const known[] = { "id", "poll-max-ns", NULL };
	struct object_config c = { .poll = keyval_get(k, "poll-max-ns") };
	int r = keyval_uint(k, "poll-max-ns", 0, OBJECT_POLL_MOST, &c.poll_max_ns, e);

	if (r == 0)
		r = keyval_done(k, known, e);
	if (r == 0)
		r = object_add(o, kind, k, NULL, e);
	if (r == 0) {
		o->cfg.object[o->cfg.nobjects - 1].poll = c.poll;
		o->cfg.object[o->cfg.nobjects - 1].poll_max_ns = c.poll_max_ns;
	}
	return r;
}

static int object_iothread(struct options *o, struct keyval *k, struct err *e)
{
	return object_loop(o, OBJECT_IOTHREAD, k, e);
}

static int object_main_loop(struct options *o, struct keyval *k, struct err *e)
{
	for (unsigned i = 0; i < o->cfg.nobjects; i++)
		if (o->cfg.object[i].kind == OBJECT_MAIN_LOOP)
			return err_set(e, EEXIST,
				       "-object main-loop: there is one main loop, and "
				       "'%s' is it",
				       o->cfg.object[i].id);
	return object_loop(o, OBJECT_MAIN_LOOP, k, e);
}

static int object_rng_builtin(struct options *o, struct keyval *k, struct err *e)
{
	static const char *const known[] = { "id", NULL };
	int r = keyval_done(k, known, e);

	return r < 0 ? r : object_add(o, OBJECT_RNG_BUILTIN, k, NULL, e);
}

static int object_rng_random(struct options *o, struct keyval *k, struct err *e)
{
	static const char *const known[] = { "id", "filename", NULL };
	const char *file = keyval_get(k, "filename");
	int r = keyval_done(k, known, e);

	return r < 0 ? r : object_add(o, OBJECT_RNG_RANDOM, k, file ? file : "/dev/urandom", e);
}

/* In order of -object help. */
static const struct object_kind object_kinds[] = {
	{ "filter-dump", "record a network to a pcap file", options_filter_dump },
	{ "iothread", "a thread for the queues of devices", object_iothread },
	{ "main-loop", "the main event loop, to set its poll-max-ns", object_main_loop },
	{ "rng-builtin", "random numbers of the host's getrandom", object_rng_builtin },
	{ "rng-random", "random numbers of a file, as /dev/urandom", object_rng_random },
};

/* What QEMU has and this program does not, and what to do. Prefixes. */
static const struct {
	const char *name, *why;
} object_absent[] = {
	{ "memory-backend-", "guest memory is given by -m, -mem-path and -mem-prealloc" },
	{ "rng-egd", "rng-random takes a file, rng-builtin the host's own numbers" },
	{ "throttle-group", "limits of a disk are given with -drive" },
	{ "secret", "there are no encrypted images" },
	{ "tls-creds", "there is no TLS" },
	{ "filter-", "only filter-dump exists" },
};

static int object_unknown(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(object_kinds)];
	char hint[96];

	for (unsigned i = 0; i < ARRAY_SIZE(object_absent); i++)
		if (!strncmp(name, object_absent[i].name, strlen(object_absent[i].name)))
			return err_set(e, ENOTSUP, "-object %s is not supported: %s", name,
				       object_absent[i].why);
	for (unsigned i = 0; i < ARRAY_SIZE(object_kinds); i++)
		names[i] = object_kinds[i].name;
	return err_set(e, EINVAL, "-object: unknown kind '%s'%s; -object help lists them", name,
		       text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
}

static int object_dispatch(struct options *o, struct keyval *k, struct err *e)
{
	const char *kind = keyval_get(k, "qom-type"), *id = keyval_get(k, "id");

	for (unsigned i = 0; kind && i < ARRAY_SIZE(object_kinds); i++) {
		if (strcmp(kind, object_kinds[i].name))
			continue;
		if (!id || !*id)
			return err_set(e, EINVAL, "-object %s: an id is needed: -object %s,id=NAME",
				       kind, kind);
		for (unsigned n = 0; n < o->cfg.nobjects; n++)
			if (!strcmp(o->cfg.object[n].id, id))
				return err_set(e, EEXIST, "-object: the id '%s' is taken", id);
		return object_kinds[i].fn(o, k, e);
	}
	return object_unknown(kind ? kind : "", e);
}

int options_object(struct options *o, const char *arg, struct err *e)
{
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		for (unsigned i = 0; i < ARRAY_SIZE(object_kinds); i++)
			fprintf(o->out, "%-12s  %s\n", object_kinds[i].name, object_kinds[i].desc);
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-object", arg, "qom-type", e);
	if (r == 0)
		r = object_dispatch(o, &k, e);
	keyval_free(&k);
	return r;
}
