/* -device: the text of the command line to a device on any board; see machine.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/registry.h"
#include "machine/machine.h"

/* NAME[,prop=value]...; ",," in a value is a comma. A property without "=" is a bool set to on. */
static int machine_device(struct machine *m, const char *text, struct err *e)
{
	char *copy = strdup(text), *s = copy, *id = NULL, *prop[64];
	const struct dev_class *cls;
	unsigned n = 0;
	struct dev *d;
	int r = 0;

	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	for (char *to = s; n < ARRAY_SIZE(prop);) {
		prop[n++] = to;
		while (*s && (*s != ',' || s[1] == ',')) {
			s += *s == ',';
			*to++ = *s++;
		}
		if (!*s) {
			*to = 0;
			break;
		}
		s++;
		*to++ = 0;
	}
	for (unsigned i = 1; i < n; i++)
		if (!strncmp(prop[i], "id=", 3))
			id = prop[i] + 3;
	cls = hw_class(prop[0], e);
	d = cls ? dev_new(&m->devs, cls, id, e) : NULL;
	r = d ? 0 : -EINVAL;
	for (unsigned i = 1; i < n && r == 0; i++) {
		char *eq = strchr(prop[i], '=');

		if (prop[i] + 3 == id)
			continue;
		if (eq)
			*eq = 0;
		r = dev_set_prop(d, prop[i], eq ? eq + 1 : "on", e);
	}
	if (r == 0)
		r = dev_realize(d, e);
	free(copy);
	return r < 0 ? err_prefix(e, "-device %s", text) : 0;
}

int machine_devices(struct machine *m, struct err *e)
{
	int r = machine_nics(m, e);

	for (unsigned i = 0; i < m->cfg->ndevices && r == 0; i++)
		r = machine_device(m, m->cfg->device[i], e);
	if (r == 0)
		machine_net_check(m);
	return r;
}
