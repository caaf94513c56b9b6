/*
 * POST code port. Firmware writes progress bytes to it; nothing answers.
 *
 * Modelled:     the latch (a read gives the last byte) and a ring of the last 16 codes.
 * Not modelled: the DMA page scratch registers that share the decode at 81h-8Fh.
 * Reference:    [ICH9 "Fixed I/O ranges decoded"], key listed in docs/references.md
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include "core/dev.h"

struct post {
	struct dev dev;
	uint16_t iobase; /* property, fixed by realize */
	struct post_state {
		uint8_t code, head, log[16];
	} s; /* all the guest can observe */
};

static const struct prop post_props[] = { PROP(struct post, iobase, 0x80, "I/O port"), PROP_END };

static const struct field post_fields[] = {
	ST(struct post_state, code),
	ST(struct post_state, head, .lim = 16), /* indexes log[] */
	ST_ARR(struct post_state, log),
	{ 0 },
};

static uint64_t post_read(struct dev *d, uint64_t off, unsigned size)
{
	return container_of(d, struct post, dev)->s.code;
}

static void post_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct post_state *s = &container_of(d, struct post, dev)->s;

	s->code = s->log[s->head] = (uint8_t)val;
	s->head = (s->head + 1) % 16;
	trace(d, "post_code", val);
}

static const struct region_ops post_io = { post_read, post_write, .min = 1, .max = 1 };

static int post_realize(struct dev *d, struct err *e)
{
	return bus_claim(d, container_of(d, struct post, dev)->iobase, 1, &post_io, e);
}

static void post_reset(struct dev *d, enum reset_kind kind)
{
	container_of(d, struct post, dev)->s = (struct post_state){ 0 };
}

const struct dev_class post_class = {
	.name = "post",
	.desc = "POST code port",
	.size = sizeof(struct post),
	.props = post_props,
	.state = STATE_OF(struct post, s, post_fields, 1),
	.realize = post_realize,
	.reset = post_reset,
};
