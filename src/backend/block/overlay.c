/*
 * An overlay for snapshot=on: writes go to an unnamed file that vanishes with the process.
 *
 * A bit for each 4 KiB says whether the file has them; the rest is read from below. The core widens
 * smaller requests to whole blocks (request_align), so there is no copying here. Nothing of the
 * overlay outlives the process, so flushes do nothing.
 * Not modelled: committing it (QEMU's monitor can), a name to find it by.
 * Threads: the context's loop. Host resources: a sparse file in TMPDIR (default /var/tmp), and
 * memory for the bits: 32 MiB for 1 TiB.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "base/bits.h"
#include "base/log.h"

#define OVERLAY_BLOCK 4096u

struct overlay {
	uint64_t *bits; /* which blocks the file has */
};

static struct overlay *overlay_of(const struct block *b)
{
	return b->priv;
}

static bool overlay_has(const struct block *b, uint64_t block)
{
	return overlay_of(b)->bits[block / 64] >> (block % 64) & 1;
}

static void overlay_set(struct block *b, uint64_t off, uint64_t len)
{
	for (uint64_t i = off / OVERLAY_BLOCK; i < (off + len) / OVERLAY_BLOCK; i++)
		overlay_of(b)->bits[i / 64] |= BIT(i % 64);
}

/* The length of the run from off on, up to end, that is all here or all below. */
static uint64_t overlay_run(const struct block *b, uint64_t off, uint64_t end)
{
	bool here = overlay_has(b, off / OVERLAY_BLOCK);
	uint64_t at = off;

	while (at < end && overlay_has(b, at / OVERLAY_BLOCK) == here)
		at += OVERLAY_BLOCK;
	return MIN(at, end) - off;
}

static int overlay_open_co(struct block *b, struct err *e)
{
	uint64_t blocks;

	b->len = b->backing->len;
	b->request_align = OVERLAY_BLOCK;
	blocks = (b->len + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK;
	overlay_of(b)->bits = calloc(blocks / 64 + 1, sizeof(uint64_t));
	return overlay_of(b)->bits ? 0 : err_set(e, ENOMEM, "snapshot=on: out of memory");
}

static void overlay_close_co(struct block *b)
{
	free(overlay_of(b)->bits);
}

static int overlay_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	uint64_t end = off + v->len, at = off, n;
	struct iovec *iov = NULL;
	int r = 0;

	for (; at < end && r == 0; at += n) {
		struct iovecs part = *v;

		n = overlay_run(b, at, end);
		if (n != v->len) {
			if (!iov && !(iov = malloc(v->n * sizeof(*iov))))
				return -ENOMEM;
			part = iovecs_slice(v, at - off, n, iov);
		}
		r = overlay_has(b, at / OVERLAY_BLOCK)
			    ? block_co_read(b->file, at, &part)
			    : block_co_read_backing(b->backing, at, &part);
	}
	free(iov);
	return r;
}

static int overlay_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	int r = block_co_write(b->file, off, v, 0);

	if (r == 0)
		overlay_set(b, off, v->len);
	return r;
}

static int overlay_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	int r = block_co_zero(b->file, off, len, BLOCK_UNMAP);

	if (r == 0)
		overlay_set(b, off, len);
	return r;
}

static int overlay_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	return overlay_zero_co(b, off, len, 0);
}

static int overlay_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	uint64_t n = overlay_run(b, off & ~(uint64_t)(OVERLAY_BLOCK - 1), off + len);
	int r = 0;

	n -= off % OVERLAY_BLOCK;
	*st = (struct block_status){ .len = n };
	if (overlay_has(b, off / OVERLAY_BLOCK)) {
		r = block_co_status(b->file, off, n, st);
		st->flags |= BLOCK_ALLOCATED;
	}
	return r;
}

static const struct block_driver block_overlay = {
	.name = "overlay",
	.priv_size = sizeof(struct overlay),
	.open_co = overlay_open_co,
	.close_co = overlay_close_co,
	.read_co = overlay_read_co,
	.write_co = overlay_write_co,
	.zero_co = overlay_zero_co,
	.discard_co = overlay_discard_co,
	.status_co = overlay_status_co,
};

int block_co_open_overlay(struct block_ctx *c, struct block *below, const struct block_opts *o,
			  struct block **out, struct err *e)
{
	const char *dir = getenv("TMPDIR");
	struct block_opts fo = { .writable = true, .discard_unmap = true, .cache_no_flush = true };
	struct block_opts oo = *o;
	struct block *file = NULL;
	int r;

	*out = NULL;
	fo.filename = strdup(dir && *dir ? dir : "/var/tmp");
	r = fo.filename ? block_co_open_temporary(c, &fo, &file, e)
			: err_set(e, ENOMEM, "snapshot=on: out of memory");
	free(fo.filename);
	/*
	 * As long as the disk from the start, and all a hole: zeroes can be holes then. Behind its
	 * end the host would allocate them, and a guest that trims its disk would fill the host's.
	 * If the file system does not take such a length, what is used of it may still fit.
	 */
	if (r == 0)
		(void)!block_co_truncate(
			file, (below->len + OVERLAY_BLOCK - 1) & -(uint64_t)OVERLAY_BLOCK, NULL);
	if (r < 0) {
		block_co_close(below);
		return r;
	}
	oo.filename = below->opts.filename;
	oo.writable = true;
	oo.discard_unmap = true;
	r = block_node_co_open(c, &block_overlay, &oo, NULL, file,
			       &(struct block_node_extra){ .backing = below }, out, e);
	if (r < 0)
		block_co_close(below);
	return r;
}
