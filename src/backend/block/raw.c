/*
 * Format "raw": the bytes of the file are the bytes of the disk, from raw_offset on, for raw_size.
 *
 * A guest that may write any bytes to a disk whose format was only guessed could make it look like
 * another format, naming any file of the host as its backing file, and have that opened the next
 * time. So if nobody said "raw", a write to the first sector that would be recognised as something
 * else fails with -EPERM.
 * Threads, errors: see block.h. Host resources: none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "base/bits.h"

#define GUARD_LEN 512u

static uint64_t raw_at(const struct block *b, uint64_t off)
{
	return b->opts.raw_offset + off;
}

/* Raw wins when nothing else is there. */
static int raw_probe(const uint8_t *buf, size_t len)
{
	return 1;
}

static int raw_open_co(struct block *b, struct err *e)
{
	const struct block_opts *o = &b->opts;
	uint64_t file = b->file->len;

	if (o->raw_offset > file)
		return err_set(e, EINVAL, "%s: offset=%llu is behind the end, %llu bytes",
			       o->filename, (unsigned long long)o->raw_offset,
			       (unsigned long long)file);
	if (o->raw_size > file - o->raw_offset)
		return err_set(e, EINVAL, "%s: offset= and size= reach behind the end, %llu bytes",
			       o->filename, (unsigned long long)file);
	if (o->raw_offset % b->file->request_align)
		return err_set(e, EINVAL,
			       "%s: with this cache mode offset= must be a multiple of %u",
			       o->filename, b->file->request_align);
	b->len = o->raw_size ? o->raw_size : file - o->raw_offset;
	b->supports_fua = b->file->supports_fua;
	/* a write to a part of the guarded sector comes here with the rest of it */
	if (b->probed && b->request_align < GUARD_LEN)
		b->request_align = GUARD_LEN;
	return 0;
}

static int raw_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	return block_co_read(b->file, raw_at(b, off), v);
}

/*
 * A write that begins with the guarded sector. The sector is written from a copy, since the guest
 * could change its memory after the check.
 */
static int raw_write_guarded(struct block *b, const struct iovecs *v, unsigned flags)
{
	struct iovec *iov = malloc((v->n + 1) * sizeof(*iov));
	uint8_t *copy = block_buf(b, GUARD_LEN);
	struct iovecs all, rest;
	int r = iov && copy ? 0 : -ENOMEM;

	if (r == 0) {
		iovecs_get(v, 0, copy, GUARD_LEN);
		if (block_probe_foreign(copy, GUARD_LEN) || block_probe(copy, GUARD_LEN) != b->drv)
			r = -EPERM;
	}
	if (r == 0) {
		iov[0] = (struct iovec){ .iov_base = copy, .iov_len = GUARD_LEN };
		rest = iovecs_slice(v, GUARD_LEN, v->len - GUARD_LEN, iov + 1);
		all = (struct iovecs){ .iov = iov, .n = rest.n + 1, .len = v->len };
		r = block_co_write(b->file, raw_at(b, 0), &all, flags);
	}
	free(copy);
	free(iov);
	return r;
}

static int raw_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	/* request_align makes it begin at 0, with all of the sector */
	if (b->probed && off < GUARD_LEN)
		return raw_write_guarded(b, v, flags);
	return block_co_write(b->file, raw_at(b, off), v, flags);
}

static int raw_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	return block_co_zero(b->file, raw_at(b, off), len, flags);
}

static int raw_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	return block_co_discard(b->file, raw_at(b, off), len);
}

static int raw_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	int r = block_co_status(b->file, raw_at(b, off), len, st);

	st->flags |= BLOCK_ALLOCATED | BLOCK_OFFSET;
	st->offset = raw_at(b, off);
	st->file = b->file;
	return r;
}

static int raw_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	int r;

	if (b->opts.raw_size)
		return err_set(e, ENOTSUP, "%s: its length was fixed by size=", b->opts.filename);
	r = block_co_truncate(b->file, raw_at(b, len), e);
	if (r == 0)
		b->len = len;
	return r;
}

static int raw_reopen_co(struct block *b, bool writable, struct err *e)
{
	if (!b->opts.raw_size && b->file->len >= b->opts.raw_offset)
		b->len = b->file->len - b->opts.raw_offset;
	return 0;
}

const struct block_driver block_raw = {
	.name = "raw",
	.probe = raw_probe,
	.open_co = raw_open_co,
	.read_co = raw_read_co,
	.write_co = raw_write_co,
	.zero_co = raw_zero_co,
	.discard_co = raw_discard_co,
	.status_co = raw_status_co,
	.truncate_co = raw_truncate_co,
	.reopen_co = raw_reopen_co,
};
