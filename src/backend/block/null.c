/*
 * Driver "null-co": a disk that is not there. Reads give zeroes, writes are dropped. For measuring
 * what is above it, and for tests. size= is its length (default 1 GiB).
 * Not modelled: QEMU's latency-ns and read-zeroes=off.
 * Threads: block.h. Host resources: none.
 */
#include "backend/block/block.h"

static int null_open_co(struct block *b, struct err *e)
{
	b->len = b->opts.raw_size ? b->opts.raw_size : 1ull << 30;
	b->supports_fua = true;
	return 0;
}

static int null_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	iovecs_fill(v, 0, 0, v->len);
	return 0;
}

static int null_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	return 0;
}

static int null_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	return 0;
}

static int null_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	st->flags = BLOCK_ZERO | BLOCK_ALLOCATED;
	return 0;
}

static int null_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	b->len = len;
	return 0;
}

const struct block_driver block_null = {
	.name = "null-co",
	.is_protocol = true,
	.nameless = true,
	.open_co = null_open_co,
	.read_co = null_read_co,
	.write_co = null_write_co,
	.zero_co = null_zero_co,
	.status_co = null_status_co,
	.truncate_co = null_truncate_co,
};
