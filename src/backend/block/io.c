/*
 * Reading and writing nodes: bounds, alignment, requests that must not meet, fallbacks; block.h.
 *
 * A request that is not aligned to what its node wants is widened: a read through a bounce buffer;
 * a write by reading the blocks at its ends first. Such a write is "serial": writes to the same
 * blocks wait for each other, in order of arrival, since the bytes it read would otherwise undo
 * what another write has put there meanwhile. Reads need not wait: the blocks at the ends are
 * written with what they contain.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "base/bits.h"

#define BOUNCE_MAX (1024 * 1024) /* bytes; longer requests go in pieces */
#define BOUNCES    32            /* at a time, for each node: a guest has thousands of requests */

void *block_buf(const struct block *b, size_t len)
{
	size_t align = MAX(b->memory_align, b->request_align);
	void *p;

	return posix_memalign(&p, MAX(align, 4096), len ? len : 1) ? NULL : p;
}

/* ---- Requests in flight -------------------------------------------------------------------- */

static bool block_req_meets(const struct block_req *a, const struct block_req *r)
{
	return (a->serial || r->serial) && a->start < r->end && r->start < a->end;
}

void block_req_co_begin(struct block *b, struct block_req *r, uint64_t off, uint64_t len,
			bool serial)
{
	struct block_reqs *rs = b->reqs;
	struct block_req *a;

	*r = (struct block_req){
		.start = off, .end = off + len, .serial = serial, .prev = rs->last
	};
	*(rs->last ? &rs->last->next : &rs->first) = r;
	rs->last = r;
	rs->n++;
	rs->n_serial += serial;
	while (rs->n_serial) {
		for (a = rs->first; a != r && !block_req_meets(a, r); a = a->next)
			;
		if (a == r)
			return;
		task_co_queue(&a->waiters); /* then look again: what a was is gone */
	}
}

void block_req_end(struct block *b, struct block_req *r)
{
	struct block_reqs *rs = b->reqs;

	*(r->prev ? &r->prev->next : &rs->first) = r->next;
	*(r->next ? &r->next->prev : &rs->last) = r->prev;
	rs->n--;
	rs->n_serial -= r->serial;
	task_queue_wake_all(&r->waiters);
}

/*
 * A buffer for a request, or NULL; waits while too many are in use. Only after block_req_co_begin,
 * so whoever has one does not wait for others of this node.
 */
static uint8_t *block_co_bounce(struct block *b, size_t len)
{
	uint8_t *buf;

	while (b->reqs->bounces >= BOUNCES)
		task_co_queue(&b->reqs->bounce_wait);
	buf = block_buf(b, len);
	b->reqs->bounces += buf != NULL;
	return buf;
}

static void block_bounce_end(struct block *b, uint8_t *buf)
{
	if (!buf)
		return;
	free(buf);
	b->reqs->bounces--;
	task_queue_wake(&b->reqs->bounce_wait);
}

/* ---- Checks -------------------------------------------------------------------------------- */

static bool block_in_bounds(const struct block *b, uint64_t off, uint64_t len)
{
	uint64_t end = b->drv->is_protocol ? INT64_MAX : b->len;

	return off <= end && len <= end - off;
}

static bool block_aligned(const struct block *b, uint64_t off, uint64_t len)
{
	return !((off | len) & (b->request_align - 1));
}

static bool block_memory_ok(const struct block *b, const struct iovecs *v)
{
	uintptr_t m = 0;

	if (b->memory_align <= 1)
		return true;
	for (unsigned i = 0; i < v->n; i++)
		m |= (uintptr_t)v->iov[i].iov_base | v->iov[i].iov_len;
	return !(m & (b->memory_align - 1));
}

static uint64_t align_down(uint64_t v, uint64_t a)
{
	return v & ~(a - 1);
}

static uint64_t align_up(uint64_t v, uint64_t a)
{
	return (v + a - 1) & ~(a - 1);
}

/* ---- Reading ------------------------------------------------------------------------------- */

static int block_co_read_bounced(struct block *b, uint64_t off, const struct iovecs *v)
{
	uint64_t a = b->request_align, end = off + v->len, pos = off;
	size_t cap = MIN(align_up(end, a) - align_down(off, a), align_up(BOUNCE_MAX, a));
	uint8_t *buf = block_co_bounce(b, cap);
	int r = buf ? 0 : -ENOMEM;

	while (r == 0 && pos < end) {
		uint64_t start = align_down(pos, a), stop = MIN(align_up(end, a), start + cap);
		uint64_t use = MIN(stop, end);
		struct iovec iov;
		struct iovecs one = iovecs_one(&iov, buf, stop - start);

		r = b->drv->read_co(b, start, &one);
		if (r == 0)
			iovecs_put(v, pos - off, buf + (pos - start), use - pos);
		pos = use;
	}
	block_bounce_end(b, buf);
	return r;
}

int block_co_read(struct block *b, uint64_t off, const struct iovecs *v)
{
	if (!block_in_bounds(b, off, v->len))
		return -EIO;
	if (!v->len)
		return 0;
	if (likely(block_aligned(b, off, v->len) && block_memory_ok(b, v)))
		return b->drv->read_co(b, off, v);
	return block_co_read_bounced(b, off, v);
}

int block_co_read_backing(struct block *b, uint64_t off, const struct iovecs *v)
{
	uint64_t n = b && off < b->len ? MIN(v->len, b->len - off) : 0;
	struct iovec *iov;
	struct iovecs part;
	int r;

	if (n == v->len)
		return n ? block_co_read(b, off, v) : 0;
	iovecs_fill(v, n, 0, v->len - n);
	if (!n)
		return 0;
	iov = malloc(v->n * sizeof(*iov));
	if (!iov)
		return -ENOMEM;
	part = iovecs_slice(v, 0, n, iov);
	r = block_co_read(b, off, &part);
	free(iov);
	return r;
}

int block_co_pread(struct block *b, uint64_t off, void *buf, size_t len)
{
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, buf, len);

	return block_co_read(b, off, &v);
}

/* ---- Writing ------------------------------------------------------------------------------- */

/* Through a buffer; the blocks at the ends are read first if the request does not fill them. */
static int block_co_write_bounced(struct block *b, uint64_t off, const struct iovecs *v,
				  unsigned flags)
{
	uint64_t a = b->request_align, end = off + v->len, pos = off;
	size_t cap = MIN(align_up(end, a) - align_down(off, a), align_up(BOUNCE_MAX, a));
	uint8_t *buf = block_co_bounce(b, cap);
	int r = buf ? 0 : -ENOMEM;

	while (r == 0 && pos < end) {
		uint64_t start = align_down(pos, a), stop = MIN(align_up(end, a), start + cap);
		uint64_t use = MIN(stop, end);
		struct iovec iov;
		struct iovecs one;

		if (pos != start) {
			one = iovecs_one(&iov, buf, a);
			r = b->drv->read_co(b, start, &one);
		}
		if (r == 0 && use != stop && (pos == start || stop - start > a)) {
			one = iovecs_one(&iov, buf + (stop - a - start), a);
			r = b->drv->read_co(b, stop - a, &one);
		}
		if (r < 0)
			break;
		iovecs_get(v, pos - off, buf + (pos - start), use - pos);
		one = iovecs_one(&iov, buf, stop - start);
		r = b->drv->write_co(b, start, &one, flags);
		pos = use;
	}
	block_bounce_end(b, buf);
	return r;
}

/* What FUA means to a driver, and what the core adds when it does not know it. */
static unsigned block_write_flags(const struct block *b, unsigned flags)
{
	return b->supports_fua ? flags & BLOCK_FUA : 0;
}

static int block_co_after_write(struct block *b, int r, unsigned flags)
{
	return r == 0 && (flags & BLOCK_FUA) && !b->supports_fua ? block_co_flush(b) : r;
}

int block_co_write(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	unsigned f = block_write_flags(b, flags);
	struct block_req req;
	uint64_t a = b->request_align;
	int r;

	if (!b->writable)
		return -EPERM;
	if (!block_in_bounds(b, off, v->len))
		return -EIO;
	if (!v->len)
		return 0;
	if (b->opts.detect_zeroes && iovecs_all_zero(v))
		return block_co_zero(
			b, off, v->len,
			(flags & BLOCK_FUA) |
				(b->opts.detect_zeroes == DETECT_ZEROES_UNMAP ? BLOCK_UNMAP : 0));
	if (likely(block_aligned(b, off, v->len))) {
		block_req_co_begin(b, &req, off, v->len, false);
		r = likely(block_memory_ok(b, v)) ? b->drv->write_co(b, off, v, f)
						  : block_co_write_bounced(b, off, v, f);
	} else {
		block_req_co_begin(b, &req, align_down(off, a),
				   align_up(off + v->len, a) - align_down(off, a), true);
		r = block_co_write_bounced(b, off, v, f);
	}
	block_req_end(b, &req);
	return block_co_after_write(b, r, flags);
}

int block_co_pwrite(struct block *b, uint64_t off, const void *buf, size_t len, unsigned flags)
{
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, (void *)buf, len);

	return block_co_write(b, off, &v, flags);
}

/* ---- Zeroes -------------------------------------------------------------------------------- */

/* Written as data, with one buffer for all pieces. */
static int block_co_write_zeroes(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	size_t cap = MIN(len, BOUNCE_MAX);
	uint8_t *buf = block_co_bounce(b, cap);
	int r = buf ? 0 : -ENOMEM;

	if (buf)
		memset(buf, 0, cap);
	while (r == 0 && len) {
		struct iovec iov;
		struct iovecs v = iovecs_one(&iov, buf, MIN(len, cap));

		r = b->drv->write_co(b, off, &v, flags);
		off += v.len;
		len -= v.len;
	}
	block_bounce_end(b, buf);
	return r;
}

/* One aligned range. */
static int block_co_zero_aligned(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	struct block_req req;
	int r = -ENOTSUP;

	block_req_co_begin(b, &req, off, len, false);
	if (b->drv->zero_co)
		r = b->drv->zero_co(b, off, len, flags);
	if (r == -ENOTSUP && !(flags & BLOCK_NO_FALLBACK))
		r = block_co_write_zeroes(b, off, len, block_write_flags(b, flags));
	block_req_end(b, &req);
	return r;
}

/* A piece at an end, shorter than the alignment: an ordinary small write. */
static int block_co_zero_piece(struct block *b, uint64_t off, uint64_t len)
{
	uint64_t a = b->request_align;
	struct block_req req;
	struct iovec iov;
	struct iovecs v;
	void *buf = calloc(1, len);
	int r;

	if (!buf)
		return -ENOMEM;
	v = iovecs_one(&iov, buf, len);
	block_req_co_begin(b, &req, align_down(off, a), align_up(off + len, a) - align_down(off, a),
			   true);
	r = block_co_write_bounced(b, off, &v, 0);
	block_req_end(b, &req);
	free(buf);
	return r;
}

int block_co_zero(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	uint64_t a = b->request_align, end = off + len, head, tail;
	int r = 0;

	if (!b->writable)
		return -EPERM;
	if (!block_in_bounds(b, off, len))
		return -EIO;
	if (!len)
		return 0;
	if (!b->opts.discard_unmap)
		flags &= ~(unsigned)BLOCK_UNMAP;
	head = MIN(align_up(off, a), end);
	tail = MAX(align_down(end, a), head);
	if (head > off)
		r = block_co_zero_piece(b, off, head - off);
	if (r == 0 && tail > head)
		r = block_co_zero_aligned(b, head, tail - head, flags);
	if (r == 0 && end > tail)
		r = block_co_zero_piece(b, tail, end - tail);
	/* zero_co is not asked for FUA: it is rare, and a flush is always right */
	return r == 0 && (flags & BLOCK_FUA) ? block_co_flush(b) : r;
}

int block_co_discard(struct block *b, uint64_t off, uint64_t len)
{
	uint64_t a = MAX(b->request_align, 1u), start, end;
	struct block_req req;
	int r;

	if (!b->writable)
		return -EPERM;
	if (!block_in_bounds(b, off, len))
		return -EIO;
	if (!b->opts.discard_unmap || !b->drv->discard_co)
		return 0;
	/* a hint: what is not whole blocks stays */
	start = align_up(off, a);
	end = align_down(off + len, a);
	if (start >= end)
		return 0;
	block_req_co_begin(b, &req, start, end - start, false);
	r = b->drv->discard_co(b, start, end - start);
	block_req_end(b, &req);
	return r == -ENOTSUP ? 0 : r;
}

/* ---- The rest ------------------------------------------------------------------------------ */

int block_co_flush(struct block *b)
{
	int r = b->drv->flush_co ? b->drv->flush_co(b) : 0;

	if (r == 0 && b->data_file)
		r = block_co_flush(b->data_file);
	if (r == 0 && b->file)
		r = block_co_flush(b->file);
	return r;
}

int block_co_truncate(struct block *b, uint64_t len, struct err *e)
{
	if (!b->writable)
		return err_set(e, EPERM, "%s is open for reading only", b->opts.filename);
	if (len > INT64_MAX)
		return err_set(e, EFBIG, "%s: a length of %llu bytes is too large",
			       b->opts.filename, (unsigned long long)len);
	if (!b->drv->truncate_co)
		return err_set(e, ENOTSUP, "the length of a %s image cannot be changed",
			       b->drv->name);
	return b->drv->truncate_co(b, len, e);
}

int block_co_status(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	int r;

	*st = (struct block_status){ .flags = BLOCK_DATA | BLOCK_ALLOCATED, .len = len };
	if (!len || !block_in_bounds(b, off, len))
		return -EINVAL;
	if (!b->drv->status_co)
		return 0;
	r = b->drv->status_co(b, off, len, st);
	if (r == 0 && !st->len)
		return -EIO; /* a driver that does not move on would hang its callers */
	st->len = MIN(st->len, len);
	return r;
}

int block_co_status_chain(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	for (unsigned depth = 0;; depth++) {
		struct block_status up;
		int r = block_co_status(b, off, len, st);

		st->depth = depth;
		if (r < 0 || (st->flags & BLOCK_ALLOCATED))
			return r;
		up = *st;
		b = b->backing;
		if (!b || off >= b->len) {
			/* nobody decides: zeroes */
			*st = (struct block_status){ .flags = BLOCK_ZERO,
						     .len = up.len,
						     .depth = depth };
			return 0;
		}
		len = MIN(up.len, b->len - off);
	}
}
