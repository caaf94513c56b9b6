/*
 * A machine for device tests: virtual clock, loop, bus, 24 interrupt lines, recorders of requests
 * and interrupt messages, and a PCI bus when asked for; no guest and no engine. Everything is
 * driven by the test's own thread.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/block/backend.h"
#include "backend/char/chardev.h"
#include "core/dev.h"
#include "hw/registry.h"

#define BED_LINES 24
#define BED_MSGS  64
#define BED_ECAM  0xe0000000ull /* configuration space of the PCI bus; function 0 is first */
#define BED_WALL  1781524800000000000ll /* 2026-06-15 12:00:00 UTC, a Monday */

struct bed {
	struct clock clock;
	struct loop *loop;
	struct runstate run;
	struct irq_line gsi[BED_LINES];
	struct machine_devs md;
	struct chardevs chardevs;
	struct block_ctx *block; /* NULL: no disk was asked for */
	struct blks blks;
	struct trace_sink *sink;
	bool level[BED_LINES];
	unsigned rises[BED_LINES]; /* edges from low to high */
	struct request last;       /* what the main loop was asked, REQ_NONE: nothing */
	unsigned requests;
	struct bed_msg {
		uint64_t addr;
		uint32_t data;
	} msg[BED_MSGS]; /* the last ones; number n is at n % BED_MSGS */
	unsigned msgs;
};

static inline int bed_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct bed *b = opaque;

	b->msg[b->msgs++ % BED_MSGS] = (struct bed_msg){ addr, data };
	return 0;
}

static inline int bed_doorbell(void *opaque, const struct doorbell *d, bool assign, struct err *e)
{
	return 0;
}

static inline void bed_line(void *opaque, unsigned n, bool level)
{
	struct bed *b = opaque;

	b->rises[n] += level && !b->level[n];
	b->level[n] = level;
}

static inline void bed_request(void *opaque, const struct request *r)
{
	struct bed *b = opaque;

	b->last = *r;
	b->requests++;
}

static inline void *bed_backend(void *opaque, const char *type, const char *id)
{
	struct bed *b = opaque;

	if (!strcmp(type, "drive"))
		return blks_find(&b->blks, id);
	return strcmp(type, "chardev") ? NULL : chardevs_find(&b->chardevs, id);
}

static inline struct bed *bed_new(void)
{
	static const struct event_ops events = { .doorbell = bed_doorbell, .msi = bed_msi };
	struct bed *b = calloc(1, sizeof(*b));

	clock_init_virtual(&b->clock, NS_PER_SEC, BED_WALL - (int64_t)NS_PER_SEC);
	b->loop = loop_new(&b->clock, NULL);
	assert_non_null(b->loop);
	runstate_init(&b->run, b->loop, bed_request, b);
	b->sink = trace_sink_new();
	trace_sink_ring(b->sink, true);
	for (unsigned i = 0; i < BED_LINES; i++)
		irq_line_init(&b->gsi[i], bed_line, b, i);
	b->md = (struct machine_devs){ .bus = bus_new(b->sink),
				       .loop = b->loop,
				       .run = &b->run,
				       .trace = b->sink,
				       .mem = gmem_new(),
				       .gsi = b->gsi,
				       .n_gsi = BED_LINES,
				       .events = &events,
				       .events_opaque = b,
				       .backend_find = bed_backend,
				       .opaque = b };
	loop_set_lock(b->loop, bus_lock_of(b->md.bus));
	return b;
}

static inline void bed_free(struct bed *b)
{
	bus_lock(b->md.bus);
	machine_devs_free(&b->md);
	bus_unlock(b->md.bus);
	chardevs_free(&b->chardevs);
	blks_free(&b->blks);
	block_ctx_free(b->block);
	runstate_destroy(&b->run);
	bus_free(b->md.bus);
	gmem_free(b->md.mem);
	loop_free(b->loop);
	trace_sink_free(b->sink);
	free(b);
}

/* Give the machine a PCI bus. */
static inline struct dev *bed_pci(struct bed *b)
{
	struct err e = { 0 };
	struct dev *d = dev_create(&b->md, &gpex_class, NULL, &e, NULL);

	if (!d)
		fail_msg("%s", e.msg);
	return d;
}

static inline uint32_t bed_cfg_read(struct bed *b, unsigned devfn, unsigned off, unsigned size)
{
	return (uint32_t)bus_mem_read(b->md.bus, BED_ECAM + (devfn << 12) + off, size);
}

static inline void bed_cfg_write(struct bed *b, unsigned devfn, unsigned off, uint32_t v,
				 unsigned size)
{
	bus_mem_write(b->md.bus, BED_ECAM + (devfn << 12) + off, v, size);
}

/* A ring chardev in the machine. */
static inline struct chardev *bed_ring(struct bed *b, const char *id, size_t room)
{
	struct chardev *c = chardev_ring_new(b->loop, id, room);

	assert_int_equal(chardevs_add(&b->chardevs, c, NULL), 0);
	return c;
}

static void bed_disk_open(void *arg)
{
	const struct block_opts o = { .writable = true, .raw_size = 1 << 20 };
	struct bed *b = arg;
	struct block *root;
	struct blk *blk;
	char id[16];

	snprintf(id, sizeof(id), "d0");
	for (unsigned i = 1; blks_find(&b->blks, id); i++)
		snprintf(id, sizeof(id), "d%u", i);
	assert_int_equal(block_co_open_node(b->block, block_driver("null-co", NULL), &o, NULL, NULL,
					    &root, NULL),
			 0);
	blk = blk_new(id, root, &(struct blk_conf){ 0 }, &b->run, NULL);
	assert_int_equal(blks_add(&b->blks, blk, NULL), 0);
}

/* A new disk of zeroes in the machine, 1 MiB; its id, valid until the next call. */
static inline const char *bed_disk(struct bed *b)
{
	struct blk *last = NULL;

	if (!b->block)
		b->block = block_ctx_new(b->loop, BLOCK_AIO_THREADS, NULL);
	assert_int_equal(tasks_run(block_ctx_tasks(b->block), bed_disk_open, b), 0);
	for (unsigned i = 0; blks_at(&b->blks, i); i++)
		last = blks_at(&b->blks, i);
	return blk_id(last);
}

static inline void bed_run(struct bed *b)
{
	loop_advance(b->loop, 0);
}

static inline uint8_t in8(struct bed *b, uint16_t port)
{
	return (uint8_t)bus_io_read(b->md.bus, port, 1);
}

static inline void out8(struct bed *b, uint16_t port, uint8_t v)
{
	bus_io_write(b->md.bus, port, v, 1);
}

/* Save d, load into other (a device of the same class in another machine): both save equal. */
static inline void bed_copy(struct dev *d, struct dev *other)
{
	size_t cap = state_save_size(&d->cls->state), n;
	uint8_t *a = malloc(cap), *b = malloc(cap);
	struct err e = { 0 };

	n = dev_save(d, a, cap);
	assert_int_equal(n, cap);
	if (dev_load(other, a, n, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(dev_save(other, b, cap), n);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
}
