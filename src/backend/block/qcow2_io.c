/*
 * qcow2: reading and writing guest data.
 *
 * A write to clusters that the image owns alone goes straight to the host file, without any lock.
 * Else clusters are allocated: under a lock for their guest range (so two writes to one new
 * cluster do not both allocate it), data and what surrounds it in its first and last cluster are
 * written in one request, and only then the L2 entries are set. New clusters where the host file
 * is known to be a hole need no surroundings written.
 * With extended L2 entries the surroundings are those of the subcluster.
 * Reference: [QCOW2 "Cluster mapping", "Extended L2 Entries"]
 * Threads: the node's loop, any number of tasks.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum {
	IOV_STACK = 16,
	COW_MAX = 32 << 20, /* bytes around data that are copied at a time, and one write's more */
};

/* ---- Reading ------------------------------------------------------------------------------- */

static int read_part_co(struct qcow2 *s, uint64_t off, const struct q2_map *m,
			const struct iovecs *v)
{
	struct q2_io io;
	int r;

	switch (m->type) {
	case Q2_UNALLOCATED: return block_co_read_backing(s->b->backing, off, v);
	case Q2_ZERO: iovecs_fill(v, 0, 0, v->len); return 0;
	case Q2_COMPRESSED: return q2_compressed_read_co(s, m->host, q2_in_cluster(s, off), v);
	default: break;
	}
	q2_io_begin(s, &io, m->host, v->len);
	r = q2_file_read_co(q2_data(s), m->host, v);
	q2_io_end(&io);
	return r;
}

int q2_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	struct qcow2 *s = q2_of(b);
	struct iovec small[IOV_STACK], *iov = small;
	uint64_t done = 0, len = v->len;
	int r = 0;

	/*
	 * Widened to a block of the host's: what a longer backing file has behind the end would be
	 * written with it, and show when the disk grows over another backing file.
	 */
	if (unlikely(len > b->len - MIN(off, b->len))) {
		len = b->len - MIN(off, b->len);
		iovecs_fill(v, len, 0, v->len - len);
	}
	while (done < len) {
		struct q2_map m;
		struct iovecs part;

		r = q2_map_co(s, off + done, len - done, &m);
		if (r < 0)
			break;
		if (m.len == v->len) {
			r = read_part_co(s, off, &m, v);
			break;
		}
		if (v->n > IOV_STACK && iov == small) {
			/* m is looked up again: nothing waits here, but it reads simpler so */
			iov = malloc(v->n * sizeof(*iov));
			if (!iov)
				return -ENOMEM;
		}
		part = iovecs_slice(v, done, m.len, iov);
		r = read_part_co(s, off + done, &m, &part);
		if (r < 0)
			break;
		done += m.len;
	}
	if (iov != small)
		free(iov);
	return r;
}

/* ---- Writing in place ---------------------------------------------------------------------- */

static int write_host_co(struct qcow2 *s, uint64_t host, const struct iovecs *v)
{
	struct q2_io io;
	int r = q2_external(s) ? 0 : q2_overlap_check_co(s, host, v->len, META_NONE);

	if (r < 0)
		return r;
	q2_io_begin(s, &io, host, v->len);
	if (!q2_external(s))
		r = q2_file_grow_co(s, host + v->len);
	if (!q2_external(s) && s->zero_from != UINT64_MAX && host + v->len > s->zero_from)
		s->zero_from = q2_round_up(s, host + v->len);
	if (r >= 0)
		r = block_co_write(q2_data(s), host, v, 0);
	q2_io_end(&io);
	return r;
}

/* ---- Allocating writes ----------------------------------------------------------------------- */

/* One allocation: n guest clusters from `first` on get the host range at `host`. */
struct alloc {
	uint64_t first; /* guest offset, cluster-aligned */
	uint64_t n, host;
	bool reuse;          /* they have it already */
	bool fresh;          /* the host range is a hole */
	uint64_t start, end; /* what is written, guest offsets: the data with its surroundings */
	uint64_t from, to;   /* the data */
};

/* A cluster that has a host cluster of its own: is it data, or could it become data in place? */
static bool entry_owned(const struct qcow2 *s, uint64_t v)
{
	return !(v & ENTRY_COMPRESSED) && v & ENTRY_COPIED && (v & ENTRY_OFFSET || q2_external(s));
}

/* Is there something in the cluster that only a copy of all of it keeps? */
static bool entry_has_data(const struct qcow2 *s, uint64_t v, uint64_t bitmap)
{
	return v & ENTRY_COMPRESSED || (v & ENTRY_OFFSET && bitmap & UINT32_MAX);
}

static unsigned sub_of(const struct qcow2 *s, uint64_t off)
{
	return (unsigned)(q2_in_cluster(s, off) >> s->subcluster_bits);
}

/*
 * How far to extend the write's start (or end, `pos` is just behind it) within its cluster, whose
 * entry is given: to the cluster's edge, the subcluster's, or not at all.
 */
static uint64_t cow_edge(const struct qcow2 *s, const uint8_t *entry, uint64_t pos, bool is_end,
			 bool reuse)
{
	uint64_t v = q2_get64(entry), bitmap = q2_bitmap(s, entry), unit = s->cluster_size;

	if (q2_extended(s)) {
		if (reuse && bitmap >> sub_of(s, pos - is_end) & 1)
			return pos;
		if (reuse || !entry_has_data(s, v, bitmap))
			unit = 1ull << s->subcluster_bits;
	}
	return is_end ? (pos + unit - 1) & ~(unit - 1) : pos & ~(unit - 1);
}

/*
 * Plan the allocation for [off, off+len), which lies in one slice: how many clusters, which part
 * is written. *a->n is 0 when the first cluster can be written in place after all.
 */
static int alloc_plan_co(struct qcow2 *s, uint64_t off, uint64_t len, struct alloc *a)
{
	uint64_t max = (q2_round_up(s, off + len) >> s->cluster_bits) - (off >> s->cluster_bits);
	struct q2_slice *sl;
	struct q2_map m;
	uint8_t *e;
	int r;

	*a = (struct alloc){ .first = off & ~(uint64_t)(s->cluster_size - 1) };
	r = q2_frees_bound_co(s);
	if (r >= 0)
		r = q2_l2_prepare_co(s, off);
	if (r >= 0)
		r = q2_map_co(s, off, len, &m); /* checks the entry, too */
	if (r < 0 || m.in_place)
		return r;
	r = q2_l2_slice_co(s, off, &sl, &e);
	if (r < 0)
		return r;
	if (entry_owned(s, q2_get64(e))) {
		a->reuse = true;
		a->n = 1;
		a->host = q2_external(s) ? a->first : q2_get64(e) & ENTRY_OFFSET;
	} else {
		while (a->n < max && !entry_owned(s, q2_get64(e + a->n * s->l2_entry_size)))
			a->n++;
	}
	return 0;
}

/* Host clusters, perhaps fewer than planned. */
static int alloc_clusters_co(struct qcow2 *s, struct alloc *a)
{
	uint64_t len;
	int r;

	if (a->reuse)
		return 0;
	if (q2_external(s)) {
		a->host = a->first;
		return 0;
	}
	r = q2_alloc_co(s, &a->n, false, &a->host);
	if (r < 0)
		return r;
	len = a->n << s->cluster_bits;
	r = q2_file_grow_co(s, a->host + len);
	if (r < 0) {
		q2_free_unused(s, a->host, len);
		return r;
	}
	a->fresh = a->host >= s->zero_from;
	if (s->zero_from != UINT64_MAX && a->host + len > s->zero_from)
		s->zero_from = a->host + len;
	return 0;
}

static int range_is_zero_co(struct qcow2 *s, uint64_t from, uint64_t to, bool *zero)
{
	*zero = true;
	while (from < to) {
		struct q2_map m;
		int r = q2_map_co(s, from, to - from, &m);

		if (r < 0)
			return r;
		if (m.type != Q2_ZERO && (m.type != Q2_UNALLOCATED || q2_has_backing(s))) {
			*zero = false;
			return 0;
		}
		from += m.len;
	}
	return 0;
}

/* What surrounds the data; zeroes behind the end of the disk. */
static int cow_read_co(struct qcow2 *s, uint64_t from, uint64_t to, uint8_t *buf)
{
	uint64_t end = MAX(MIN(to, s->b->len), from);
	struct iovec iov;
	struct iovecs v = iovecs_one(&iov, buf, end - from);

	memset(buf + (end - from), 0, to - end);
	return end > from ? q2_read_co(s->b, from, &v) : 0;
}

/* Write data and surroundings. v at voff is the data. */
static int alloc_write_co(struct qcow2 *s, struct alloc *a, const struct iovecs *v, uint64_t voff)
{
	uint64_t head = a->from - a->start, tail = a->end - a->to, len = a->to - a->from;
	uint64_t copied = 0;
	bool zero_head = true, zero_tail = true;
	struct iovec *iov = malloc((v->n + 2) * sizeof(*iov));
	uint8_t *buf = NULL;
	struct iovecs w;
	int r = iov ? 0 : -ENOMEM;

	if (r >= 0)
		r = range_is_zero_co(s, a->start, a->from, &zero_head);
	if (r >= 0)
		r = range_is_zero_co(s, a->to, a->end, &zero_tail);
	if (r >= 0 && a->fresh && zero_head && zero_tail)
		head = tail = 0;
	while (r >= 0 && head + tail && s->cow_bytes > COW_MAX)
		task_co_queue(&s->cow_wait); /* who has some does not wait for others' locks */
	if (r >= 0 && head + tail) {
		s->cow_bytes += copied = head + tail;
		if (s->cow_bytes <= COW_MAX)
			task_queue_wake(&s->cow_wait);
		buf = malloc(head + tail);
		r = buf ? 0 : -ENOMEM;
		if (r >= 0 && zero_head)
			memset(buf, 0, head);
		else if (r >= 0)
			r = cow_read_co(s, a->start, a->from, buf);
		if (r >= 0 && zero_tail)
			memset(buf + head, 0, tail);
		else if (r >= 0)
			r = cow_read_co(s, a->to, a->end, buf + head);
	}
	if (r >= 0) {
		w = iovecs_slice(v, voff, len, iov + 1);
		if (head) {
			iov[0] = (struct iovec){ buf, head };
			w.iov = iov;
			w.n++;
		} else {
			w.iov = iov + 1;
		}
		if (tail)
			((struct iovec *)w.iov)[w.n++] = (struct iovec){ buf + head, tail };
		w.len = head + len + tail;
		r = write_host_co(s, a->host + (a->from - head - a->first), &w);
	}
	free(buf);
	free(iov);
	s->cow_bytes -= copied;
	task_queue_wake(&s->cow_wait);
	return r;
}

/* Bits of the subclusters of cluster c (guest offset) that [start, end) covers. */
static uint64_t sub_bits(const struct qcow2 *s, uint64_t c, uint64_t start, uint64_t end)
{
	uint64_t a = MAX(start, c), z = MIN(end, c + s->cluster_size);

	if (a >= z)
		return 0;
	return bits(UINT32_MAX, sub_of(s, z - 1), 0) & ~((1ull << sub_of(s, a)) - 1);
}

/* Data is written: let the entries point to it, and give up what they pointed to. */
static int alloc_link_co(struct qcow2 *s, struct alloc *a)
{
	struct q2_slice *sl;
	uint8_t *e;
	int r = q2_l2_slice_co(s, a->first, &sl, &e);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < a->n; i++, e += s->l2_entry_size) {
		uint64_t old = q2_get64(e), old_bits = q2_bitmap(s, e);
		uint64_t c = a->first + (i << s->cluster_bits);

		q2_put64(e, (a->host + (i << s->cluster_bits)) | ENTRY_COPIED);
		if (q2_extended(s)) {
			uint64_t set = sub_bits(s, c, a->start, a->end);

			if (old & ENTRY_COMPRESSED)
				old_bits = 0;
			if (!a->reuse) /* old allocated ones were copied */
				old_bits &= ~(uint64_t)UINT32_MAX;
			q2_put64(e + 8, (old_bits & ~(set << 32)) | set);
		}
		if (!a->reuse)
			q2_l2_entry_free(s, old);
	}
	q2_cache_dirty(&s->l2c, sl);
	s->barrier = true;
	return 0;
}

/* One allocating write. *done: how much of it was written; 0: look at the mapping again. */
static int write_alloc_co(struct qcow2 *s, uint64_t off, uint64_t len, const struct iovecs *v,
			  uint64_t voff, uint64_t *done)
{
	uint64_t span = 1ull << (s->slice_l2_bits + s->cluster_bits), last;
	struct q2_slice *sl;
	struct q2_lock lock;
	struct alloc a;
	uint8_t *e;
	int r;

	*done = 0;
	len = MIN(len, span - (off & (span - 1)));
	q2_lock_co(s, &lock, off & ~(uint64_t)(s->cluster_size - 1), q2_round_up(s, off + len));
	r = alloc_plan_co(s, off, len, &a);
	if (r < 0 || !a.n)
		goto unlock;
	r = alloc_clusters_co(s, &a);
	if (r < 0)
		goto unlock;
	a.from = off;
	a.to = MIN(off + len, a.first + (a.n << s->cluster_bits));
	r = q2_l2_slice_co(s, off, &sl, &e);
	if (r >= 0) {
		last = (a.n - 1) * s->l2_entry_size;
		a.start = cow_edge(s, e, a.from, false, a.reuse);
		a.end = cow_edge(s, e + last, a.to, true, a.reuse);
		r = alloc_write_co(s, &a, v, voff);
	}
	if (r >= 0)
		r = alloc_link_co(s, &a);
	if (r >= 0)
		*done = a.to - off;
	else if (!a.reuse && !q2_external(s))
		q2_free_unused(s, a.host, a.n << s->cluster_bits);
unlock:
	q2_unlock(s, &lock);
	return r;
}

int q2_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	struct qcow2 *s = q2_of(b);
	struct iovec small[IOV_STACK], *iov = small;
	uint64_t done = 0, n;
	int r = q2_before_write_co(s);

	while (r >= 0 && done < v->len) {
		struct q2_map m;
		struct iovecs part;

		r = q2_map_co(s, off + done, v->len - done, &m);
		if (r < 0)
			break;
		if (!m.in_place) {
			r = write_alloc_co(s, off + done, v->len - done, v, done, &n);
			done += n;
			continue;
		}
		if (m.len == v->len) {
			r = write_host_co(s, m.host, v);
			break;
		}
		if (v->n > IOV_STACK && iov == small) {
			iov = malloc(v->n * sizeof(*iov));
			if (!iov)
				return -ENOMEM;
		}
		part = iovecs_slice(v, done, m.len, iov);
		r = write_host_co(s, m.host, &part);
		done += m.len;
	}
	if (iov != small)
		free(iov);
	return r;
}
