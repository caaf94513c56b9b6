/*
 * isa-debug-exit: a write ends the process with status (value << 1) | 1. Bare-metal test kernels
 * use it to tell success (an odd status they chose) from everything else.
 *
 * Modelled:     writes of 1, 2 and 4 bytes at any of iosize ports; reads give 0.
 * Not modelled: nothing.
 * Reference:    QEMU's user manual, device isa-debug-exit
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include <errno.h>

#include "core/dev.h"

struct debugexit {
	struct dev dev;
	uint32_t iobase, iosize;
};

/* clang-format off */
static const struct prop debugexit_props[] = {
	PROP(struct debugexit, iobase, 0x501, "first I/O port"),
	PROP(struct debugexit, iosize, 4, "number of ports"),
	PROP_END
};
/* clang-format on */

static uint64_t debugexit_read(struct dev *d, uint64_t off, unsigned size)
{
	return 0;
}

static void debugexit_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	trace(d, "exit", val);
	machine_request(d->md->run,
			REQ_EXIT_STATUS((int)((val << 1 | 1) & 0xff), "isa-debug-exit"));
}

/* max follows the access: a word written to the port is one value. */
static const struct region_ops debugexit_io = { debugexit_read, debugexit_write, 1, 4 };

static int debugexit_realize(struct dev *d, struct err *e)
{
	struct debugexit *x = container_of(d, struct debugexit, dev);

	if (x->iosize < 1 || x->iosize > 16)
		return err_set(e, EINVAL, "%s: iosize=%u should be 1 to 16", d->id, x->iosize);
	return bus_claim(d, x->iobase, x->iosize, &debugexit_io, e);
}

static void debugexit_reset(struct dev *d, enum reset_kind kind)
{
}

const struct dev_class debugexit_class = {
	.name = "isa-debug-exit",
	.desc = "ends the process when the guest writes to it",
	.size = sizeof(struct debugexit),
	.props = debugexit_props,
	.state = STATE_NONE,
	.realize = debugexit_realize,
	.reset = debugexit_reset,
};
