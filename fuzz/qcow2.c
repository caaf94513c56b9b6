/*
 * qcow2 images with hostile content. An input is patches of a good image and operations on it:
 * byte 0 chooses one of a few images (made once, all kinds of features in them), or that the rest
 * is the file itself; then records follow, either a patch (where: near a table, or anywhere; what)
 * or an operation (read, write, zero, discard, flush, snapshot create, apply, delete, resize,
 * compressed write, check, repair, reopen). Properties: no access outside of anything
 * (sanitizers), no hang, every failure to open has one line of text.
 */
#include <stdlib.h>
#include <string.h>

#include "../tests/qcow2/bed.h"
#include "base/bug.h"
#include "base/log.h"
#include "fuzz.h"

enum { IMAGES = 8, DISK = 512 << 10, OPS_MAX = 24 };

struct input {
	const uint8_t *p;
	size_t n;
};
static struct bed fuzz_bed;
static struct memfile fuzz_image[IMAGES];
static uint64_t fuzz_l1[IMAGES], fuzz_rt[IMAGES];

static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->n; i++, in->n--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

/* One of the good images. */
struct make {
	unsigned i;
};

static void make_co(void *arg)
{
	static const struct qcow2_create kinds[IMAGES] = {
		{ .version = 3, .cluster_size = 512 },
		{ .version = 2, .cluster_size = 4096 },
		{ .version = 3, .cluster_size = 4096, .refcount_bits = 1 },
		{ .version = 3, .cluster_size = 16384, .extended_l2 = true, .zstd = true },
		{ .version = 3, .cluster_size = 65536, .lazy_refcounts = true },
		{ .version = 3, .cluster_size = 1024, .refcount_bits = 64 },
		{ .version = 3, .cluster_size = 512, .refcount_bits = 8, .zstd = true },
		{ .version = 2, .cluster_size = 512 },
	};
	unsigned i = ((struct make *)arg)->i;
	struct qcow2_create c = kinds[i];
	struct memfile *m = &fuzz_image[i];
	uint8_t *buf = malloc(128 << 10);
	struct block *b = NULL, *file;
	struct err e;
	int r;

	c.size = DISK;
	m->random = 1;
	BUG_ON(mem_co_open(fuzz_bed.ctx, m, true, &file, &e) < 0);
	BUG_ON(qcow2_co_create(file, NULL, &c, &e) < 0);
	block_co_close(file);
	BUG_ON(bed_co_image(&fuzz_bed, m, NULL, false, true, &b, &e) < 0);
	memset(buf, 0x5a, 128 << 10);
	r = block_co_pwrite(b, 3000, buf, 100 << 10, 0);
	if (r >= 0)
		r = qcow2_co_write_compressed(b, 256 << 10, buf, MAX(c.cluster_size, 512u));
	if (r >= 0 && c.refcount_bits != 1)
		r = qcow2_co_snapshot_create(b, "one", &e);
	if (r >= 0)
		r = block_co_pwrite(b, 5000, buf, 10 << 10, 0);
	if (r >= 0)
		r = block_co_zero(b, 64 << 10, 64 << 10, 0);
	BUG_ON(r < 0);
	block_co_close(b);
	free(buf);
	memcpy(&fuzz_l1[i], m->data + 40, 8);
	memcpy(&fuzz_rt[i], m->data + 48, 8);
	fuzz_l1[i] = be64toh(fuzz_l1[i]);
	fuzz_rt[i] = be64toh(fuzz_rt[i]);
}

/* Change the file as a record says. */
static void patch(struct memfile *m, unsigned image, struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);
	unsigned width = 1u << (how >> 4 & 3);
	uint64_t at = take(in, 2), v = 0, near = 0, first = 0;

	switch (how & 7) {
	case 0:
	case 1: at %= 128; break; /* the header */
	case 2: near = fuzz_l1[image]; break;
	case 3: near = fuzz_rt[image]; break;
	case 4: /* an L2 table */
	case 5: /* a refcount block */
		near = how & 1 ? fuzz_rt[image] : fuzz_l1[image];
		if (near + 8 <= m->len)
			memcpy(&first, m->data + near, 8);
		near = be64toh(first) & 0x00fffffffffffe00ull;
		break;
	default: at = at * 64 % (m->len + 1); break;
	}
	if ((how & 7) > 1 && (how & 7) < 6)
		at = near + at % 256 * 8;
	/* offsets of clusters are what is interesting: small multiples of 512 */
	v = how & 0x80 ? take(in, 2) << 9 : take(in, width);
	if (how & 0x40)
		v |= take(in, 1) << 56;
	v = htobe64(v << (64 - 8 * width));
	if (at < m->len)
		memcpy(m->data + at, &v, MIN(width, m->len - at));
}

struct fuzz {
	struct input in;
	struct memfile m;
	unsigned image;
};

static void failed(int r, const struct err *e)
{
	BUG_ON(r < 0 && (!e->code || !e->msg[0] || strchr(e->msg, '\n')));
}

static void operate_co(struct fuzz *f, struct block *b, uint8_t op)
{
	uint64_t off = take(&f->in, 2) * 512, len = (1 + take(&f->in, 1)) * 512;
	struct qcow2_check c = { 0 };
	uint8_t *buf = malloc(len);
	struct err e = { 0 };
	int r = 0;

	memset(buf, op, len);
	if (op & 0x80 && b->len > off) /* the far end, which a patched header may have moved */
		off = (b->len - off) & ~511ull;
	switch (op % 16) {
	case 0:
	case 1: (void)block_co_pread(b, off, buf, len); break;
	case 2:
	case 3:
	case 4: (void)block_co_pwrite(b, off, buf, len, 0); break;
	case 5: (void)block_co_zero(b, off, len, op & 0x40 ? BLOCK_UNMAP : 0); break;
	case 6: (void)block_co_discard(b, off, len); break;
	case 7: (void)block_co_flush(b); break;
	case 8: r = qcow2_co_snapshot_create(b, "two", &e); break;
	case 9: r = qcow2_co_snapshot_apply(b, op & 0x40 ? "two" : "one", &e); break;
	case 10: r = qcow2_co_snapshot_delete(b, op & 0x40 ? "two" : "one", &e); break;
	case 11:
		if (b->len < 1 << 30)
			r = block_co_truncate(b, off, &e);
		break;
	case 12:
		if (b->discard_align && b->discard_align <= len)
			(void)!qcow2_co_write_compressed(b, off & ~(b->discard_align - 1ull), buf,
							 b->discard_align);
		break;
	case 13: r = qcow2_co_check(b, 0, &c, &e); break;
	case 14: r = qcow2_co_check(b, QCOW2_FIX_LEAKS, &c, &e); break;
	default: {
		struct block_status st;

		(void)block_co_status_chain(b, off, len, &st);
	}
	}
	failed(r, &e);
	free(buf);
}

static void run_co(void *arg)
{
	struct fuzz *f = arg;
	struct block_info info = { 0 };
	struct block *b = NULL;
	struct err e = { 0 };
	uint8_t flags = (uint8_t)take(&f->in, 1);
	int r;

	for (unsigned i = flags & 7; i && f->in.n; i--)
		patch(&f->m, f->image, &f->in);
	/* as kvasir-img check -r all does */
	if (flags & 0x40) {
		struct qcow2_check c = { 0 };

		r = bed_co_image(&fuzz_bed, &f->m, NULL, true, true, &b, &e);
		failed(r, &e);
		if (r >= 0) {
			r = qcow2_co_check(b, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c, &e);
			failed(r, &e);
			/* what is said to be repaired is right */
			if (r >= 0 && !c.corruptions) {
				struct qcow2_check again = { 0 };

				r = qcow2_co_check(b, 0, &again, &e);
				BUG_ON(r >= 0 && again.corruptions);
			}
			block_co_close(b);
		}
	}
	r = bed_co_image(&fuzz_bed, &f->m, NULL, false, !(flags & 0x80), &b, &e);
	failed(r, &e);
	if (r < 0)
		return;
	if (b->drv->info_co(b, &info, &e) >= 0)
		block_info_free(&info);
	for (unsigned i = 0; i < OPS_MAX && f->in.n; i++)
		operate_co(f, b, (uint8_t)take(&f->in, 1));
	block_co_close(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { .in = { data, size } };
	uint8_t kind;

	if (!fuzz_bed.ctx) {
		log_set_level(LOG_ERR);
		bed_open(&fuzz_bed);
		for (unsigned i = 0; i < IMAGES; i++)
			bed_run(&fuzz_bed, make_co, &(struct make){ i });
	}
	kind = (uint8_t)take(&f.in, 1);
	f.m.random = 1;
	f.m.max = 8 << 20;
	f.m.yield = kind & 0x40;
	if ((kind & 0x8f) == 0x8f) {
		f.m.len = f.m.room = MAX(f.in.n, 1u);
		f.m.data = calloc(1, f.m.room);
		memcpy(f.m.data, f.in.p, f.in.n);
	} else {
		struct memfile *good = &fuzz_image[f.image = kind % IMAGES];

		f.m.len = f.m.room = good->len;
		f.m.data = malloc(good->len);
		memcpy(f.m.data, good->data, good->len);
	}
	bed_run(&fuzz_bed, run_co, &f);
	mem_free(&f.m);
	return 0;
}
