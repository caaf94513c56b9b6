/*
 * -device: the text of the command line to a device on any board; see device.h. A virtio device
 * gets its transport here: virtio-X-pci and virtio-X-device say which, virtio-X takes what the
 * board has.
 */
#include "machine/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/registry.h"
#include "machine/machine.h"

enum { DEVICE_PROPS = 64 };

/* NAME[,prop[=value]]...: taken apart in place. */
struct device_text {
	char *copy, *name, *id;
	struct device_prop prop[DEVICE_PROPS];
	unsigned n;
};

/*
 * ",," in a value is a comma. A property without "=" is a bool set to on. A comma at the end is
 * nothing.
 */
static int device_parse(struct device_text *t, const char *text, struct err *e)
{
	static char on[] = "on";
	char *s = t->copy = strdup(text), *to = s;

	if (!s)
		return err_set(e, ENOMEM, "out of memory");
	for (bool first = true, more = true; more; first = false) {
		char *word = to, *eq;

		while (*s && (*s != ',' || s[1] == ',')) {
			s += *s == ',';
			*to++ = *s++;
		}
		more = *s;
		s += more;
		*to++ = 0;
		eq = strchr(word, '=');
		if (first)
			t->name = word;
		if (first || (!more && !*word))
			continue;
		if (!strncmp(word, "id=", 3)) {
			t->id = word + 3;
		} else if (t->n == DEVICE_PROPS) {
			return err_set(e, E2BIG, "more than %d properties", DEVICE_PROPS);
		} else {
			if (eq)
				*eq = 0;
			t->prop[t->n].name = word;
			t->prop[t->n++].value = eq ? eq + 1 : on;
		}
	}
	return 0;
}

int device_name(const char *name, struct device_name *out, struct err *e)
{
	static const struct {
		const char *suffix, *transport, *disable_legacy;
	} kinds[] = {
		{ "-pci-non-transitional", "virtio-pci", "on" },
		{ "-pci-transitional", "virtio-pci", "off" },
		{ "-pci", "virtio-pci", NULL },
		{ "-device", "virtio-mmio", NULL },
	};
	size_t n = strlen(name);
	char base[64];

	*out = (struct device_name){ 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(kinds) && !strncmp(name, "virtio-", 7); i++) {
		size_t sn = strlen(kinds[i].suffix);
		const struct dev_class *cls;

		if (n <= sn || n >= sizeof(base) || strcmp(name + n - sn, kinds[i].suffix))
			continue;
		snprintf(base, sizeof(base), "%.*s", (int)(n - sn), name);
		cls = hw_class(base, NULL);
		if (!cls || !cls->bus || strcmp(cls->bus, "virtio"))
			break; /* virtio-pci itself, or unknown: the message names what was given */
		out->cls = cls;
		out->transport = hw_class(kinds[i].transport, e);
		out->disable_legacy = kinds[i].disable_legacy;
		return out->transport ? 0 : -ENOENT;
	}
	out->cls = hw_class(name, e);
	return out->cls ? 0 : -ENOENT;
}

bool device_wants_pci(const struct device_name *n)
{
	const struct dev_class *on_bus = n->transport ? n->transport : n->cls;

	return on_bus->bus && !strcmp(on_bus->bus, "PCI");
}

/* What a device sits in, if that must be made with it: *transport stays NULL if not. */
static int device_transport(struct machine *m, const struct device_name *name, struct dev *d,
			    struct dev **transport, struct err *e)
{
	const struct dev_class *cls = name->transport;
	char id[80];
	int r = 0;

	if (!name->cls->bus || strcmp(name->cls->bus, "virtio"))
		return 0;
	if (!cls)
		cls = hw_class(m->devs.pci ? "virtio-pci" : "virtio-mmio", e);
	if (!cls)
		return -ENOENT;
	snprintf(id, sizeof(id), "%.60s/%s", d->id, cls->name);
	*transport = dev_new(&m->devs, cls, id, e);
	if (!*transport)
		return -ENOMEM;
	dev_set_backend(*transport, "vd", d);
	if (name->disable_legacy)
		r = dev_set_prop(*transport, "disable-legacy", name->disable_legacy, e);
	return r;
}

/* In the slot that the board has for it. PCI functions find theirs themselves. */
static int device_place(struct machine *m, struct dev *transport, struct err *e)
{
	if (strcmp(transport->cls->name, "virtio-mmio"))
		return 0;
	if (!m->ops->mmio_slot)
		return err_set(e, ENODEV,
			       "machine %s has no slots for virtio-mmio: take the -pci form",
			       m->ops->name);
	return m->ops->mmio_slot(m, transport, e);
}

/* The device it is plugged into, made before it if there is none; *bus stays NULL if it says so. */
static int device_bus(struct machine *m, const struct dev_class *cls,
		      const struct device_prop *props, unsigned n, struct vserial **bus,
		      struct err *e)
{
	if (!cls->bus || strcmp(cls->bus, "virtio-serial"))
		return 0;
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(props[i].name, "bus"))
			return 0;
	*bus = machine_vserial_for(m, cls, e);
	return *bus ? 0 : -ENODEV;
}

int device_make(struct machine *m, const char *name, const char *id,
		const struct device_prop *props, unsigned n, struct err *e)
{
	struct dev *d = NULL, *transport = NULL;
	struct device_name dn = { 0 };
	struct vserial *bus = NULL;
	int r = device_name(name, &dn, e);

	/* A transport by itself would be an empty slot. */
	if (r == 0 && dev_class_has_prop(dn.cls, "vd"))
		r = err_set(e, EINVAL, "%s comes with its device: virtio-rng-%s, for example",
			    dn.cls->name, device_wants_pci(&dn) ? "pci" : "device");
	if (r == 0)
		r = device_bus(m, dn.cls, props, n, &bus, e);
	if (r == 0) {
		d = dev_new(&m->devs, dn.cls, id, e);
		r = d ? device_transport(m, &dn, d, &transport, e) : -EINVAL;
	}
	if (bus && r == 0)
		dev_set_backend(d, "bus", bus);
	for (unsigned i = 0; i < n && r == 0; i++) {
		bool below = transport && !dev_class_has_prop(dn.cls, props[i].name) &&
			     dev_class_has_prop(transport->cls, props[i].name);

		r = dev_set_prop(below ? transport : d, props[i].name, props[i].value, e);
	}
	if (r == 0)
		r = dev_realize(d, e);
	if (r == 0 && transport) {
		r = device_place(m, transport, e);
		if (r == 0)
			r = dev_realize(transport, e);
	}
	return r;
}

int device_add(struct machine *m, const char *text, struct err *e)
{
	struct device_text t = { 0 };
	int r = device_parse(&t, text, e);

	if (r == 0)
		r = device_make(m, t.name, t.id, t.prop, t.n, e);
	free(t.copy);
	return r < 0 ? err_prefix(e, "-device %s", text) : 0;
}

int device_add_all(struct machine *m, struct err *e)
{
	int r = machine_disks(m, e);

	if (r == 0)
		r = machine_nics(m, e);
	for (unsigned i = 0; i < m->cfg->ndevices && r == 0; i++)
		r = device_add(m, m->cfg->device[i], e);
	if (r == 0)
		machine_net_check(m);
	if (r == 0)
		machine_disk_check(m);
	return r;
}
