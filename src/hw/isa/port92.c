/*
 * System control port A (92h): fast A20 gate and fast CPU reset.
 *
 * Modelled:     bit 0, a rising edge resets the machine; bit 1, the A20 gate as a bit that reads
 *               back.
 * Not modelled: masking of address bit 20 (always passes); the password lock and disk lights.
 * Reference:    [ICH9 13.7.3 "PORT92"]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include "core/dev.h"

#define PORT92_RESET 0x01
#define PORT92_A20   0x02

struct port92 {
	struct dev dev;
	uint16_t iobase;
	struct port92_state {
		uint8_t value;
	} s;
};

static const struct prop port92_props[] = { PROP(struct port92, iobase, 0x92, "I/O port"),
					    PROP_END };

static const struct field port92_fields[] = {
	ST(struct port92_state, value, .lim = 4),
	{ 0 },
};

static uint64_t port92_read(struct dev *d, uint64_t off, unsigned size)
{
	return container_of(d, struct port92, dev)->s.value;
}

static void port92_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct port92_state *s = &container_of(d, struct port92, dev)->s;
	bool rising = ~s->value & val & PORT92_RESET;

	trace(d, "write", val);
	s->value = val & (PORT92_RESET | PORT92_A20);
	if (rising)
		machine_request(d->md->run, REQ_OF(REQ_RESET, "port 92h"));
}

static const struct region_ops port92_io = { port92_read, port92_write, 1, 1 };

static int port92_realize(struct dev *d, struct err *e)
{
	return bus_claim(d, container_of(d, struct port92, dev)->iobase, 1, &port92_io, e);
}

static void port92_reset(struct dev *d, enum reset_kind kind)
{
	container_of(d, struct port92, dev)->s = (struct port92_state){ .value = PORT92_A20 };
}

const struct dev_class port92_class = {
	.name = "port92",
	.desc = "fast A20 gate and reset",
	.size = sizeof(struct port92),
	.props = port92_props,
	.state = STATE_OF(struct port92, s, port92_fields, 1),
	.realize = port92_realize,
	.reset = port92_reset,
};
