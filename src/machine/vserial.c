/* Where virtconsole and virtserialport are plugged in; see machine.h. */
#include <stdio.h>
#include <string.h>

#include "hw/registry.h"
#include "machine/device.h"
#include "machine/machine.h"
#include "virtio/serial.h"

struct vserial *machine_vserial_find(struct machine *m, const char *id)
{
	char name[128];
	size_t n = strlen(id);

	/* QEMU's buses are called after their device: vs0.0 */
	if (n > 2 && !strcmp(id + n - 2, ".0"))
		n -= 2;
	snprintf(name, sizeof(name), "%.*s", (int)n, id);
	return vserial_from_dev(machine_devs_find(&m->devs, name));
}

static struct vserial *machine_vserial_free(struct machine *m, bool console)
{
	for (struct dev *d = m->devs.first; d; d = d->next) {
		struct vserial *s = vserial_from_dev(d);

		if (s && !vserial_is_full(s, console))
			return s;
	}
	return NULL;
}

struct vserial *machine_vserial_for(struct machine *m, const struct dev_class *port, struct err *e)
{
	bool console = port == &virtconsole_class;
	struct vserial *s = machine_vserial_free(m, console);

	if (s)
		return s;
	if (device_make(m, "virtio-serial", NULL, NULL, 0, e) < 0)
		return NULL;
	return machine_vserial_free(m, console);
}
