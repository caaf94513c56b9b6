/*
 * Options about consoles: -serial and -chardev; see options.h.
 * References: [QEMU-MAN].
 */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "main/keyval.h"
#include "main/options.h"

/* Is text a backend that chardev_from_text() knows? option and text go into the message. */
static int options_backend(const char *option, const char *text, bool dev, struct err *e)
{
	static const char *const names[] = { "stdio", "null", "none", "file:PATH", "chardev:ID" };
	static const char *const absent[] = { "vc",    "pty",   "tcp:",   "udp:",       "telnet:",
					      "unix:", "pipe:", "socket", "websocket:", "/dev/" };
	const char *s = strncmp(text, "mon:", 4) ? text : text + 4;
	char hint[96];

	if (!strcmp(s, "stdio") || !strcmp(s, "null") || (!strcmp(s, "none") && s == text) ||
	    (!strncmp(s, "file:", 5) && s[5]) || (dev && !strncmp(text, "chardev:", 8) && text[8]))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++)
		if (!strncmp(s, absent[i], strlen(absent[i])))
			return err_set(e, ENOTSUP,
				       "%s %s is not supported yet: stdio, mon:stdio, null, none, "
				       "file:PATH and chardev:ID are",
				       option, text);
	return err_set(e, EINVAL,
		       "%s: unknown backend '%s'%s; stdio, mon:stdio, null, none, file:PATH and "
		       "chardev:ID exist",
		       option, text,
		       text_nearest_hint(hint, sizeof(hint), s, names, ARRAY_SIZE(names)));
}

int options_serial(struct options *o, const char *arg, struct err *e)
{
	int r = options_backend("-serial", arg, true, e);

	if (r < 0)
		return r;
	if (o->nserials == CONFIG_SERIALS)
		return err_set(e, E2BIG, "-serial: the machine has %d serial ports",
			       CONFIG_SERIALS);
	o->cfg.serial[o->nserials++] = arg;
	o->serial_given = true;
	return 0;
}

int options_chardev(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "backend", "id", "path", "mux", "signal", NULL };
	struct chardev_config c = { 0 };
	const char *backend, *id, *path;
	char text[4096];
	struct keyval k;
	bool is_file;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		fprintf(o->out, "stdio\nnull\nfile\n");
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-chardev", arg, "backend", e);
	if (r < 0)
		return r;
	backend = keyval_get(&k, "backend");
	id = keyval_get(&k, "id");
	path = keyval_get(&k, "path");
	backend = backend ? backend : "";
	is_file = !strcmp(backend, "file");
	if (!is_file && strcmp(backend, "stdio") && strcmp(backend, "null"))
		r = err_set(e, EINVAL, "-chardev: unknown backend '%s'; stdio, null and file exist",
			    backend);
	else if (!id || !*id)
		r = err_set(e, EINVAL, "-chardev %s: an id is needed: -chardev %s,id=NAME", arg,
			    arg);
	else if (is_file != (path != NULL))
		r = err_set(e, EINVAL,
			    is_file ? "-chardev file needs path=FILE"
				    : "-chardev: only the backend file has a path");
	else if (o->cfg.nchardevs == CONFIG_CHARDEVS)
		r = err_set(e, E2BIG, "-chardev: more than %d", CONFIG_CHARDEVS);
	for (unsigned i = 0; i < o->cfg.nchardevs && r == 0; i++)
		if (!strcmp(o->cfg.chardev[i].id, id))
			r = err_set(e, EEXIST, "-chardev: the id '%s' is taken", id);
	if (r == 0)
		r = keyval_bool(&k, "mux", &c.mux, e);
	if (r == 0)
		r = keyval_only(&k, "signal", false, "Ctrl-C belongs to the guest; C-a x ends", e);
	if (r == 0)
		r = keyval_done(&k, known, e);
	if (r == 0) {
		snprintf(text, sizeof(text), "%s%s%s", backend, is_file ? ":" : "",
			 is_file ? path : "");
		c.id = options_keep(o, id, e);
		c.text = c.id ? options_keep(o, text, e) : NULL;
		r = c.text ? 0 : -ENOMEM;
		if (r == 0)
			o->cfg.chardev[o->cfg.nchardevs++] = c;
	}
	keyval_free(&k);
	return r;
}
