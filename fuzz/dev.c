/*
 * Devices: the first byte picks a class of hw/devices.def, the rest is a stream of bus accesses,
 * steps of a virtual clock, resets, console input, snapshots (saved, spoilt, loaded) and hostile
 * sections. Found by it: crashes and sanitizer reports, a section that is refused and yet changes
 * the device, and one that is taken and saves differently from what a second round gives.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/backend.h"
#include "backend/char/chardev.h"
#include "base/bug.h"
#include "core/dev.h"
#include "fuzz.h"
#include "hw/registry.h"

#define LINES    24
#define MAX_OPS  400
#define MAX_STEP (5 * NS_PER_SEC)

struct input {
	const uint8_t *p;
	size_t n;
};

struct fuzz_machine {
	struct clock clock;
	struct runstate run;
	struct irq_line gsi[LINES];
	struct machine_devs md;
	struct chardev *con;
	struct block_ctx *block; /* NULL: no disk */
	struct blk *disk;
};

/* The next n bytes (up to 8) as a number; zeros after the end. */
static uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;

	n = MIN(n, in->n);
	memcpy(&v, in->p, n);
	in->p += n;
	in->n -= n;
	return v;
}

static void *fuzz_backend(void *opaque, const char *type, const char *id)
{
	struct fuzz_machine *m = opaque;

	return strcmp(type, "drive") ? (void *)m->con : m->disk;
}

static int fuzz_msi(void *opaque, uint64_t addr, uint32_t data)
{
	return 0;
}

static void fuzz_disk(void *arg)
{
	const struct block_opts o = { .writable = true, .raw_size = 1 << 20 };
	struct fuzz_machine *m = arg;
	struct block *root;

	BUG_ON(block_co_open_node(m->block, block_driver("null-co", NULL), &o, NULL, NULL, &root,
				  NULL));
	m->disk = blk_new("d", root, &(struct blk_conf){ 0 }, &m->run, NULL);
}

static struct dev *fuzz_machine(struct fuzz_machine *m, const struct dev_class *cls, unsigned flags)
{
	static const struct event_ops events = { .msi = fuzz_msi };
	struct dev *d;

	memset(m, 0, sizeof(*m));
	clock_init_virtual(&m->clock, 1, 1781524800000000000);
	m->md.loop = loop_new(&m->clock, NULL);
	m->md.bus = bus_new(NULL);
	runstate_init(&m->run, m->md.loop, NULL, NULL);
	m->md.run = &m->run;
	m->md.gsi = m->gsi;
	m->md.n_gsi = LINES;
	m->md.backend_find = fuzz_backend;
	m->md.opaque = m;
	m->md.events = &events;
	m->con = chardev_ring_new(m->md.loop, "con", flags & 2 ? 8 : 1 << 20);
	loop_set_lock(m->md.loop, bus_lock_of(m->md.bus));
	if (cls->bus && !strcmp(cls->bus, "PCI"))
		BUG_ON(!dev_create(&m->md, &gpex_class, NULL, NULL, NULL));
	d = dev_new(&m->md, cls, NULL, NULL);
	if (dev_class_has_prop(cls, "drive")) {
		m->block = block_ctx_new(m->md.loop, BLOCK_AIO_THREADS, NULL);
		BUG_ON(tasks_run(block_ctx_tasks(m->block), fuzz_disk, m));
		BUG_ON(dev_set_prop(d, "drive", "d", NULL));
	}
	if (m->md.pci)
		BUG_ON(dev_set_prop(d, "addr", "0",
				    NULL)); /* its configuration is what is in reach */
	for (const struct prop *p = cls->props; p && p->name; p++) {
		if (p->kind == PROP_KIND_BACKEND && !strcmp(p->backend, "chardev") && flags & 1)
			BUG_ON(dev_set_prop(d, p->name, "con", NULL));
		if (p->kind == ST_BOOL && flags & 4)
			dev_set_u64(d, p->name, !p->dflt);
	}
	if (flags & 8 && dev_class_has_prop(cls, "disable-legacy"))
		BUG_ON(dev_set_prop(d, "disable-legacy", "off", NULL));
	/* Only properties against each other may be refused. */
	if (dev_realize(d, NULL) == 0)
		return d;
	BUG_ON(!(flags & 4));
	return NULL;
}

static void fuzz_end(struct fuzz_machine *m)
{
	machine_devs_free(&m->md);
	chardev_free(m->con);
	blk_free(m->disk);
	block_ctx_free(m->block);
	runstate_destroy(&m->run);
	bus_free(m->md.bus);
	loop_free(m->md.loop);
}

/* An access near one of the device's ranges. */
static void fuzz_access(struct fuzz_machine *m, struct input *in, unsigned op)
{
	uint64_t pick = take(in, 1), off = take(in, 1), val;
	unsigned size = 1u << (op >> 4 & 3);
	struct region r;
	size_t n = 0;

	for (int sp = 0; sp < BUS_SPACES; sp++)
		for (size_t i = 0; bus_region_at(m->md.bus, (enum bus_space)sp, i, &r); i++, n++)
			if (n == pick % 8) {
				sp = BUS_SPACES;
				break;
			}
	if (!n && !bus_region_at(m->md.bus, BUS_IO, 0, &r))
		return;
	off = off % (MIN(r.len, 240u) + 8);
	val = op & 8 ? take(in, size) : 0;
	if (r.space == BUS_IO && op & 8)
		bus_io_write(m->md.bus, (uint16_t)(r.base + off), val, MIN(size, 4u));
	else if (r.space == BUS_IO)
		bus_io_read(m->md.bus, (uint16_t)(r.base + off), MIN(size, 4u));
	else if (op & 8)
		bus_mem_write(m->md.bus, r.base + off, val, size);
	else
		bus_mem_read(m->md.bus, r.base + off, size);
}

/* Save, spoil a few bytes, load. */
static void fuzz_snapshot(struct dev *d, struct input *in)
{
	size_t cap = state_save_size(&d->cls->state), n;
	uint8_t *a = malloc(cap), *b = malloc(cap), *c = malloc(cap);
	unsigned spoil = (unsigned)take(in, 1) % 8;

	n = dev_save(d, a, cap);
	BUG_ON(n != cap);
	memcpy(b, a, n);
	while (spoil--)
		b[take(in, 3) % n] = (uint8_t)take(in, 1);
	if (dev_load(d, b, n, NULL)) {
		dev_save(d, c, cap);
		BUG_ON(memcmp(a, c, n)); /* refused means unchanged */
	} else {
		dev_save(d, b, cap);
		BUG_ON(dev_load(d, b, n, NULL)); /* what we save, we take */
		dev_save(d, c, cap);
		BUG_ON(memcmp(b, c, n));
	}
	free(a);
	free(b);
	free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct fuzz_machine m;
	size_t n = 0;
	struct dev *d;

	while (hw_class_at(n))
		n++;
	d = fuzz_machine(&m, hw_class_at(take(&in, 1) % n), (unsigned)take(&in, 1));
	for (int ops = 0; d && in.n && ops < MAX_OPS; ops++) {
		unsigned op = (unsigned)take(&in, 1);
		uint8_t bytes[8];
		uint64_t v;

		switch (op & 7) {
		case 0: loop_advance(m.md.loop, take(&in, op >> 4 & 7) % MAX_STEP); break;
		case 1:
			v = take(&in, 8);
			memcpy(bytes, &v, 8);
			chardev_ring_input(m.con, bytes, op >> 4 & 7);
			break;
		case 2: chardev_ring_event(m.con, (enum chardev_event)(op >> 4 & 3)); break;
		case 3: fuzz_snapshot(d, &in); break;
		case 4:
			v = take(&in, 1);
			v = MIN(v, in.n);
			(void)!dev_load(d, in.p, v, NULL);
			in.p += v;
			in.n -= v;
			break;
		case 5:
			if (op >> 4 == 15)
				dev_reset(d, op & 8 ? RESET_WARM : RESET_COLD);
			else if (op & 8)
				(void)chardev_ring_output(m.con, bytes, op >> 4 & 7);
			break;
		default: fuzz_access(&m, &in, op); break;
		}
	}
	loop_advance(m.md.loop, NS_PER_MS);
	fuzz_end(&m);
	return 0;
}
