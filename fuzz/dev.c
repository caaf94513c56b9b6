/*
 * Devices: the first byte picks a class of hw/devices.def, the rest is a stream of bus accesses,
 * steps of a virtual clock, resets, console input, snapshots (saved, spoilt, loaded) and hostile
 * sections. Found by it: crashes and sanitizer reports, a section that is refused and yet changes
 * the device, and one that is taken and saves differently from what a second round gives.
 */
#include "backend/block/backend.h"
#include "backend/char/chardev.h"
#include "hw/registry.h"
#include "machine.h"

#define MAX_OPS  400
#define MAX_STEP (5 * NS_PER_SEC)

struct fuzz {
	struct fuzz_machine m;
	struct chardev *con;
	struct block_ctx *block; /* NULL: no disk */
	struct blk *disk;
};

static void *fuzz_backend(void *opaque, const char *type, const char *id)
{
	struct fuzz *f = opaque;

	return strcmp(type, "drive") ? (void *)f->con : f->disk;
}

static void fuzz_disk(void *arg)
{
	const struct block_opts o = { .writable = true, .raw_size = 1 << 20 };
	struct fuzz *f = arg;
	struct block *root;

	BUG_ON(block_co_open_node(f->block, block_driver("null-co", NULL), &o, NULL, NULL, &root,
				  NULL));
	f->disk = blk_new("d", root, &(struct blk_conf){ 0 }, &f->m.run, NULL);
}

static struct dev *fuzz_new(struct fuzz *f, const struct dev_class *cls, unsigned flags)
{
	struct dev *d;

	memset(f, 0, sizeof(*f));
	fuzz_machine_new(&f->m, fuzz_backend, f);
	f->con = chardev_ring_new(f->m.md.loop, "con", flags & 2 ? 8 : 1 << 20);
	if (cls->bus && !strcmp(cls->bus, "PCI"))
		BUG_ON(!dev_create(&f->m.md, &gpex_class, NULL, NULL, NULL));
	d = dev_new(&f->m.md, cls, NULL, NULL);
	if (dev_class_has_prop(cls, "drive")) {
		f->block = block_ctx_new(f->m.md.loop, BLOCK_AIO_THREADS, NULL);
		BUG_ON(tasks_run(block_ctx_tasks(f->block), fuzz_disk, f));
		BUG_ON(dev_set_prop(d, "drive", "d", NULL));
	}
	if (f->m.md.pci)
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

static void fuzz_end(struct fuzz *f)
{
	machine_devs_free(&f->m.md);
	chardev_free(f->con);
	blk_free(f->disk);
	block_ctx_free(f->block);
	fuzz_machine_free(&f->m);
}

/* An access near one of the device's ranges. */
static void fuzz_access(struct fuzz *f, struct input *in, unsigned op)
{
	uint64_t pick = take(in, 1), off = take(in, 1), val;
	unsigned size = 1u << (op >> 4 & 3);
	struct region r;

	if (!fuzz_range(&f->m, (unsigned)pick % 8, &r))
		return;
	off = off % (MIN(r.len, 240u) + 8);
	val = op & 8 ? take(in, size) : 0;
	fuzz_bus(&f->m, &r, off, val, size, op & 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct fuzz f;
	size_t n = 0;
	struct dev *d;

	while (hw_class_at(n))
		n++;
	d = fuzz_new(&f, hw_class_at(take(&in, 1) % n), (unsigned)take(&in, 1));
	for (int ops = 0; d && in.n && ops < MAX_OPS; ops++) {
		unsigned op = (unsigned)take(&in, 1);
		uint8_t bytes[8];
		uint64_t v;

		switch (op & 7) {
		case 0: loop_advance(f.m.md.loop, take(&in, op >> 4 & 7) % MAX_STEP); break;
		case 1:
			v = take(&in, 8);
			memcpy(bytes, &v, 8);
			chardev_ring_input(f.con, bytes, op >> 4 & 7);
			break;
		case 2: chardev_ring_event(f.con, (enum chardev_event)(op >> 4 & 3)); break;
		case 3: fuzz_state(d, &in, 8, false); break;
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
				(void)chardev_ring_output(f.con, bytes, op >> 4 & 7);
			break;
		default: fuzz_access(&f, &in, op); break;
		}
	}
	loop_advance(f.m.md.loop, NS_PER_MS);
	fuzz_end(&f);
	return 0;
}
