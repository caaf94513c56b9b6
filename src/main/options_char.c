/*
 * Options about consoles: -serial and -chardev; see options.h.
 * References: [QEMU-MAN]. What a backend takes is in backend/char/opts.c.
 */
#include <errno.h>
#include <string.h>

#include "backend/char/opts.h"
#include "main/keyval.h"
#include "main/options.h"

int options_serial(struct options *o, const char *arg, struct err *e)
{
	struct chardev_opts c;
	int r = 0;

	if (!strncmp(arg, "chardev:", 8) && arg[8]) {
	} else if (strcmp(arg, "none")) {
		r = chardev_opts_text(&c, arg, e);
		if (r < 0)
			return err_prefix(e, "-serial %.100s", arg);
		o->nstdio += c.kind == CHARDEV_STDIO;
		chardev_opts_free(&c);
	}
	if (o->nserials == CONFIG_SERIALS)
		return err_set(e, E2BIG, "-serial: the machine has %d serial ports",
			       CONFIG_SERIALS);
	o->cfg.serial[o->nserials++] = arg;
	o->serial_given = true;
	return 0;
}

static int options_chardev_props(struct keyval *k, struct chardev_opts *c, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < k->n && !r; i++)
		if (strcmp(k->kv[i].key, "backend") && strcmp(k->kv[i].key, "id"))
			r = chardev_opts_set(c, k->kv[i].key, k->kv[i].val, e);
	return r ? r : chardev_opts_check(c, e);
}

static int options_chardev_add(struct options *o, const char *id, struct chardev_opts *c,
			       struct err *e)
{
	struct chardev_config *cc = &o->cfg.chardev[o->cfg.nchardevs];

	if (!id || !*id)
		return err_set(e, EINVAL, "an id is needed: id=NAME");
	if (o->cfg.nchardevs == CONFIG_CHARDEVS)
		return err_set(e, E2BIG, "more than %d", CONFIG_CHARDEVS);
	for (unsigned i = 0; i < o->cfg.nchardevs; i++)
		if (!strcmp(o->cfg.chardev[i].id, id))
			return err_set(e, EEXIST, "the id '%.100s' is taken", id);
	cc->id = options_keep(o, id, e);
	if (!cc->id)
		return -ENOMEM;
	o->nstdio += c->kind == CHARDEV_STDIO;
	cc->opts = *c;
	o->cfg.nchardevs++;
	return 0;
}

int options_chardev(struct options *o, const char *arg, struct err *e)
{
	enum chardev_kind kind;
	struct chardev_opts c;
	const char *backend;
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		chardev_opts_help(o->out);
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-chardev", arg, "backend", e);
	if (r < 0)
		return r;
	backend = keyval_get(&k, "backend");
	r = chardev_kind_find(backend ? backend : "", &kind, e);
	if (r == 0) {
		chardev_opts_init(&c, kind);
		r = options_chardev_props(&k, &c, e);
		if (r == 0)
			r = options_chardev_add(o, keyval_get(&k, "id"), &c, e);
		if (r < 0)
			chardev_opts_free(&c);
	}
	keyval_free(&k);
	return r < 0 ? err_prefix(e, "-chardev %.100s", arg) : 0;
}

void options_char_free(struct options *o)
{
	for (unsigned i = 0; i < o->cfg.nchardevs; i++)
		chardev_opts_free(&o->cfg.chardev[i].opts);
}
