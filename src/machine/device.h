/*
 * Devices by text, as -device has them, on any board.
 * Threads: the machine's, before it runs.
 */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "core/dev.h"

struct machine;

/* What a name means. */
struct device_name {
	const struct dev_class *cls;
	/* virtio-X-pci, virtio-X-device: the transport. NULL: not virtio, or what the board has. */
	const struct dev_class *transport;
	const char *disable_legacy; /* a property of that, NULL: its default */
};

/* -ENOENT and e (nearest name suggested) for an unknown one. */
int device_name(const char *name, struct device_name *out, struct err *e) must_check;

/* Does it ask for a board with a PCI bus? */
bool device_wants_pci(const struct device_name *n);

/*
 * Make a device by its name, and the transport of a virtio device. Properties go to whichever of
 * the two has them. id NULL: made up. For options that make devices (-drive, -nic). On failure the
 * machine keeps what was made so far, for machine_free.
 */
struct device_prop {
	const char *name, *value;
};
int device_make(struct machine *m, const char *name, const char *id,
		const struct device_prop *props, unsigned n, struct err *e) must_check;

/* The same by the text NAME[,prop=value]... */
int device_add(struct machine *m, const char *text, struct err *e) must_check;

/* For boards: what -nic and -device ask for, after their own. */
int device_add_all(struct machine *m, struct err *e) must_check;
