/*
 * qcow2: access to the host file that holds an image.
 *
 * Modelled: reads behind the end (a crash may leave a file shorter than its metadata says; the
 * missing part was never flushed, so it reads as zeroes); growth in steps, because each growth is
 * a call to the host; which part of the file is known to be zeroes, so that a first write to a new
 * cluster need not fill the rest of it; which host ranges have I/O in flight.
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { GROW_MIN = 1 << 20, GROW_MAX = 64 << 20, ZERO_CHUNK = 1 << 20, IOV_STACK = 16 };

int q2_file_read_co(struct block *f, uint64_t off, const struct iovecs *v)
{
	struct iovec small[IOV_STACK], *iov = small;
	struct iovecs part;
	int r;

	if (off >= f->len) {
		iovecs_fill(v, 0, 0, v->len);
		return 0;
	}
	if (v->len <= f->len - off)
		return block_co_read(f, off, v);
	if (v->n > IOV_STACK) {
		iov = malloc(v->n * sizeof(*iov));
		if (!iov)
			return -ENOMEM;
	}
	part = iovecs_slice(v, 0, f->len - off, iov);
	iovecs_fill(v, part.len, 0, v->len - part.len);
	r = block_co_read(f, off, &part);
	if (iov != small)
		free(iov);
	return r;
}

int q2_file_pread_co(struct block *f, uint64_t off, void *buf, size_t len)
{
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, buf, len);

	return q2_file_read_co(f, off, &v);
}

/*
 * The file is at least end bytes long afterwards. A little more than needed, so that a sequential
 * writer does not grow it for each cluster; closing gives the rest back. One at a time: a growth
 * that was computed from an older length would cut off what is written meanwhile. For the same
 * reason nothing is written behind the end without coming here first.
 */
static int file_grow_locked_co(struct qcow2 *s, uint64_t end)
{
	struct block *f = s->b->file;
	uint64_t old = f->len, step;
	struct err e;
	int r;

	if (end <= old)
		return 0; /* somebody else has done it */
	step = MIN(MAX(end / 8, (uint64_t)GROW_MIN), (uint64_t)GROW_MAX);
	r = block_co_truncate(f, end + step, &e);
	if (r < 0 && f->len < end)
		r = block_co_truncate(f, end, &e);
	if (r < 0 && f->len < end)
		return r == -ENOTSUP ? -ENOSPC : r;
	if (s->zero_from == UINT64_MAX)
		s->zero_from = old;
	return 0;
}

int q2_file_grow_co(struct qcow2 *s, uint64_t end)
{
	int r;

	if (end > (uint64_t)INT64_MAX)
		return -EFBIG;
	if (end > s->file_end)
		s->file_end = end;
	if (likely(end <= s->b->file->len))
		return 0;
	task_co_lock(&s->grow_lock);
	r = file_grow_locked_co(s, end);
	task_unlock(&s->grow_lock);
	return r;
}

int q2_file_pwrite_co(struct qcow2 *s, uint64_t off, const void *buf, size_t len, enum q2_meta self)
{
	int r = q2_overlap_check_co(s, off, len, self);

	if (r < 0)
		return r;
	r = q2_file_grow_co(s, off + len);
	if (r < 0)
		return r;
	if (s->zero_from != UINT64_MAX && off + len > s->zero_from)
		s->zero_from = q2_round_up(s, off + len);
	return block_co_pwrite(s->b->file, off, buf, len, 0);
}

int q2_file_zero_co(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_meta self)
{
	int r = q2_overlap_check_co(s, off, len, self);

	if (r < 0)
		return r;
	r = q2_file_grow_co(s, off + len);
	if (r < 0)
		return r;
	if (off >= s->zero_from) {
		s->zero_from = off + len;
		return 0;
	}
	if (s->zero_from != UINT64_MAX && off + len > s->zero_from)
		s->zero_from = off + len;
	return block_co_zero(s->b->file, off, len, 0);
}

void q2_io_begin(struct qcow2 *s, struct q2_io *io, uint64_t off, uint64_t len)
{
	io->start = off;
	io->end = off + len;
	io->prev = &s->ios;
	io->next = s->ios.next;
	io->next->prev = s->ios.next = io;
}

void q2_io_end(struct q2_io *io)
{
	io->prev->next = io->next;
	io->next->prev = io->prev;
}
