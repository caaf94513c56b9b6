/*
 * Reset control register (CF9h): what ACPI's RESET_REG and reboot=pci write.
 *
 * Modelled:     bits 1 (kind) and 2 (go); a rising bit 2 resets the machine. Both read back.
 * Not modelled: bit 3, full power cycle, is kept and makes no difference.
 * The port lies inside the PCI address register CF8h-CFBh, hence the overlap: dwords go there.
 * Reference:    [ICH9 13.7.5 "RST_CNT"]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include "core/dev.h"

#define RESET_BITS 0x0e
#define RESET_GO   0x04

struct reset {
	struct dev dev;
	uint16_t iobase;
	struct reset_state {
		uint8_t value;
	} s;
};

static const struct prop reset_props[] = { PROP(struct reset, iobase, 0xcf9, "I/O port"),
					   PROP_END };

static const struct field reset_fields[] = {
	ST(struct reset_state, value, .lim = RESET_BITS + 1),
	{ 0 },
};

static uint64_t reset_read(struct dev *d, uint64_t off, unsigned size)
{
	return container_of(d, struct reset, dev)->s.value;
}

static void reset_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct reset_state *s = &container_of(d, struct reset, dev)->s;
	bool rising = ~s->value & val & RESET_GO;

	trace(d, "write", val);
	s->value = val & RESET_BITS;
	if (rising)
		machine_request(d->md->run, REQ_OF(REQ_RESET, "port CF9h"));
}

static const struct region_ops reset_io = { reset_read, reset_write, 1, 1 };

static int reset_realize(struct dev *d, struct err *e)
{
	struct region r = { .dev = d,
			    .space = BUS_IO,
			    .base = container_of(d, struct reset, dev)->iobase,
			    .len = 1,
			    .ops = &reset_io,
			    .prio = 1,
			    .flags = REGION_OVERLAP };

	return bus_claim_region(d->bus, &r, e);
}

static void reset_reset(struct dev *d, enum reset_kind kind)
{
	container_of(d, struct reset, dev)->s = (struct reset_state){ 0 };
}

const struct dev_class reset_class = {
	.name = "reset-control",
	.desc = "reset control register (CF9h)",
	.size = sizeof(struct reset),
	.props = reset_props,
	.state = STATE_OF(struct reset, s, reset_fields, 1),
	.realize = reset_realize,
	.reset = reset_reset,
};
