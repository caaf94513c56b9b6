/*
 * isa-debugcon: each byte written to the port appears on the chardev; firmware and test kernels log
 * through it without any set-up.
 *
 * Modelled:     output; a read gives the readback value, by which a guest finds the device.
 * Not modelled: input. There is no flow control, so output may queue far (chardev_write_all).
 * Reference:    QEMU's user manual, device isa-debugcon; the port E9h convention is Bochs's
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: a chardev.
 */
#include "backend/char/chardev.h"
#include "core/dev.h"

struct debugcon {
	struct dev dev;
	uint32_t iobase, readback;
	struct chardev *chardev;
};

/* clang-format off */
static const struct prop debugcon_props[] = {
	PROP(struct debugcon, iobase, 0xe9, "I/O port"),
	PROP(struct debugcon, readback, 0xe9, "what a read gives"),
	PROP_BACKEND(struct debugcon, chardev, "chardev", "where the output goes"),
	PROP_END
};
/* clang-format on */

static uint64_t debugcon_read(struct dev *d, uint64_t off, unsigned size)
{
	return container_of(d, struct debugcon, dev)->readback;
}

static void debugcon_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	uint8_t byte = (uint8_t)val;

	trace(d, "out", val);
	chardev_write_all(container_of(d, struct debugcon, dev)->chardev, &byte, 1);
}

static const struct region_ops debugcon_io = { debugcon_read, debugcon_write, 1, 1 };
static const struct chardev_handlers debugcon_handlers = { 0 };

static int debugcon_realize(struct dev *d, struct err *e)
{
	struct debugcon *c = container_of(d, struct debugcon, dev);
	int rc = bus_claim(d, c->iobase, 1, &debugcon_io, e);

	if (!rc && c->chardev)
		rc = chardev_attach(c->chardev, &debugcon_handlers, c, e);
	return rc;
}

static void debugcon_unrealize(struct dev *d)
{
	chardev_detach(container_of(d, struct debugcon, dev)->chardev);
}

static void debugcon_reset(struct dev *d, enum reset_kind kind)
{
}

const struct dev_class debugcon_class = {
	.name = "isa-debugcon",
	.desc = "debug console port",
	.size = sizeof(struct debugcon),
	.props = debugcon_props,
	.state = STATE_NONE,
	.realize = debugcon_realize,
	.unrealize = debugcon_unrealize,
	.reset = debugcon_reset,
};
