/*
 * What the fuzz targets of devices share: the input as a stream of operations, a machine without
 * vCPUs, accesses to what its devices claim, and snapshots that are spoilt before they are loaded.
 *
 * Threads: one.
 */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/bug.h"
#include "core/dev.h"
#include "fuzz.h"

enum { FUZZ_LINES = 24 };

struct input {
	const uint8_t *p;
	size_t n;
};

/* The next n bytes (up to 8) as a number; zeros after the end. */
static inline uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;

	n = MIN(n, in->n);
	memcpy(&v, in->p, n);
	in->p += n;
	in->n -= n;
	return v;
}

struct fuzz_machine {
	struct clock clock;
	struct runstate run;
	struct irq_line gsi[FUZZ_LINES];
	struct machine_devs md;
};

static inline int fuzz_msi(void *opaque, uint64_t addr, uint32_t data)
{
	BUG_ON(addr & 3);
	return 0;
}

/* A loop with a virtual clock, a bus, lines that lead nowhere; opaque is that of backend_find. */
static inline void fuzz_machine_new(struct fuzz_machine *m,
				    void *(*find)(void *opaque, const char *type, const char *id),
				    void *opaque)
{
	static const struct event_ops events = { .msi = fuzz_msi };

	memset(m, 0, sizeof(*m));
	clock_init_virtual(&m->clock, 1, 1781524800000000000);
	m->md.loop = loop_new(&m->clock, NULL);
	m->md.bus = bus_new(NULL);
	runstate_init(&m->run, m->md.loop, NULL, NULL);
	m->md.run = &m->run;
	m->md.gsi = m->gsi;
	m->md.n_gsi = FUZZ_LINES;
	m->md.backend_find = find;
	m->md.opaque = opaque;
	m->md.events = &events;
	loop_set_lock(m->md.loop, bus_lock_of(m->md.bus));
}

/* After machine_devs_free, and after what lives in the loop. */
static inline void fuzz_machine_free(struct fuzz_machine *m)
{
	runstate_destroy(&m->run);
	bus_free(m->md.bus);
	loop_free(m->md.loop);
}

/* Range number n of both spaces, going round; false: there is none. */
static inline bool fuzz_range(struct fuzz_machine *m, unsigned n, struct region *r)
{
	for (unsigned left = n;;) {
		unsigned before = left;

		for (int sp = 0; sp < BUS_SPACES; sp++)
			for (size_t i = 0; bus_region_at(m->md.bus, (enum bus_space)sp, i, r); i++)
				if (!left--)
					return true;
		if (before == left)
			return false;
	}
}

/* An access at off of a range; size 1 to 8. */
static inline void fuzz_bus(struct fuzz_machine *m, const struct region *r, uint64_t off,
			    uint64_t val, unsigned size, bool write)
{
	if (r->space == BUS_IO && write)
		bus_io_write(m->md.bus, (uint16_t)(r->base + off), val, MIN(size, 4u));
	else if (r->space == BUS_IO)
		bus_io_read(m->md.bus, (uint16_t)(r->base + off), MIN(size, 4u));
	else if (write)
		bus_mem_write(m->md.bus, r->base + off, val, size);
	else
		bus_mem_read(m->md.bus, r->base + off, size);
}

/*
 * Save d, spoil fewer than most bytes, load. Refused means unchanged; what is taken is, when exact,
 * taken as it is, and else saves as something that is taken as it is.
 */
static inline void fuzz_state(struct dev *d, struct input *in, unsigned most, bool exact)
{
	size_t cap = state_save_size(&d->cls->state), n;
	uint8_t *a = malloc(cap), *b = malloc(cap), *c = malloc(cap);
	unsigned spoil = (unsigned)take(in, 1) % most;

	n = dev_save(d, a, cap);
	BUG_ON(n != cap);
	memcpy(b, a, n);
	while (spoil--)
		b[take(in, 3) % n] = (uint8_t)take(in, 1);
	if (dev_load(d, b, n, NULL)) {
		dev_save(d, c, cap);
		BUG_ON(memcmp(a, c, n));
	} else {
		if (!exact) {
			dev_save(d, b, cap);
			BUG_ON(dev_load(d, b, n, NULL)); /* what we save, we take */
		}
		dev_save(d, c, cap);
		BUG_ON(memcmp(b, c, n));
	}
	free(a);
	free(b);
	free(c);
}
