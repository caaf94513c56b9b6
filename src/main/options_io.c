/*
 * Options about devices and time; see options.h.
 * References: [QEMU-MAN].
 */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "hw/registry.h"
#include "machine/device.h"
#include "main/keyval.h"
#include "main/options.h"

int options_device(struct options *o, const char *arg, struct err *e)
{
	struct device_name dn;
	char name[64];
	size_t n = strcspn(arg, ",");

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		hw_help(o->out);
		o->done = true;
		return 0;
	}
	snprintf(name, sizeof(name), "%.*s", (int)n, arg);
	if (device_name(name, &dn, e) < 0)
		return err_prefix(e, "-device");
	if (!strcmp(arg + n, ",help") || !strcmp(arg + n, ",?")) {
		dev_help(dn.cls, o->out);
		if (dn.transport)
			dev_help(dn.transport, o->out);
		o->done = true;
		return 0;
	}
	if (o->cfg.ndevices == CONFIG_DEVICES)
		return err_set(e, E2BIG, "-device: more than %d", CONFIG_DEVICES);
	o->cfg.device[o->cfg.ndevices++] = arg;
	o->wants_pci |= device_wants_pci(&dn);
	return 0;
}

int options_rtc(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "base", "clock", "driftfix", NULL };
	struct keyval k;
	const char *clock, *drift, *base;
	int r = keyval_parse(&k, "-rtc", arg, NULL, e);

	if (r < 0)
		return r;
	base = keyval_get(&k, "base");
	clock = keyval_get(&k, "clock");
	drift = keyval_get(&k, "driftfix");
	if (clock && strcmp(clock, "host"))
		r = err_set(e, ENOTSUP, "-rtc: clock=%s is not supported: only host", clock);
	else if (drift && strcmp(drift, "none"))
		r = err_set(e, ENOTSUP, "-rtc: driftfix=%s is not supported: only none", drift);
	if (r == 0)
		r = keyval_done(&k, known, e);
	if (r == 0 && base) {
		o->cfg.rtc_base = options_keep(o, base, e);
		r = o->cfg.rtc_base ? 0 : -ENOMEM;
	}
	keyval_free(&k);
	return r;
}

int options_only_none(const char *option, const char *arg, const char *what, struct err *e)
{
	return strcmp(arg, "none")
		       ? err_set(e, ENOTSUP,
				 "%s %s is not supported: there is no %s yet, only %s none", option,
				 arg, what, option)
		       : 0;
}
