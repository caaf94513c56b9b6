/*
 * qcow2: zeroes, discard, allocation status, preallocation: changes of the mapping without data.
 *
 * Zeroes: version 3 has a flag in the entry; a host cluster of the image's own is kept for later
 * writes unless the caller wants holes. Version 2 and raw external data files get zeroes written.
 * Discard: without a backing file an entry becomes unallocated; with one it becomes zero, since
 * the backing file's content must not show again; version 2 keeps the cluster then.
 * Reference: [QCOW2 "Cluster mapping"]
 * Threads: the node's loop, any number of tasks.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

#define SUBS_ZERO ((uint64_t)UINT32_MAX << 32)

enum change { TO_ZERO, TO_ZERO_UNMAP, TO_DISCARD, TO_NOTHING };

/* What an entry becomes. false: it stays. */
static bool entry_change(struct qcow2 *s, enum change how, uint64_t *v, uint64_t *bitmap)
{
	uint64_t old = *v, old_bits = *bitmap;
	bool external = q2_external(s), host, keep;

	host = old & ENTRY_COMPRESSED || old & ENTRY_OFFSET || (external && old & ENTRY_COPIED);
	keep = how == TO_ZERO && host && old & ENTRY_COPIED && !(old & ENTRY_COMPRESSED);
	if (how == TO_DISCARD && !host && !(old & ENTRY_ZERO) && !old_bits)
		return false;
	if (how == TO_NOTHING || (how == TO_DISCARD && !q2_has_backing(s))) {
		*v = *bitmap = 0;
	} else if (!host && !q2_has_backing(s) && !(old & ENTRY_ZERO) && !old_bits) {
		return false; /* reads as zeroes as it is */
	} else if (q2_extended(s)) {
		*v = keep ? old : 0;
		*bitmap = SUBS_ZERO;
	} else {
		*v = (keep ? old : 0) | ENTRY_ZERO;
	}
	return *v != old || *bitmap != old_bits;
}

/* Whole clusters in one slice, the range is locked. */
static int change_slice_co(struct qcow2 *s, uint64_t off, uint64_t n, enum change how)
{
	struct q2_slice *sl = NULL;
	uint8_t *e = NULL;
	int r = q2_l2_prepare_co(s, off);

	if (r >= 0)
		r = q2_l2_slice_co(s, off, &sl, &e);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++, e += s->l2_entry_size) {
		uint64_t old = q2_get64(e), v = old, bitmap = q2_bitmap(s, e);

		if (!entry_change(s, how, &v, &bitmap))
			continue;
		q2_put64(e, v);
		if (q2_extended(s))
			q2_put64(e + 8, bitmap);
		if ((old ^ v) & ENTRY_OFFSET || old & ENTRY_COMPRESSED)
			q2_l2_entry_free(s, old);
		q2_cache_dirty(&s->l2c, sl);
	}
	return 0;
}

/* Whole clusters [off, end). What is so already costs a look at the mapping and no L2 table. */
static int change_co(struct qcow2 *s, uint64_t off, uint64_t end, enum change how)
{
	uint64_t span = 1ull << (s->slice_l2_bits + s->cluster_bits);
	int r = 0;

	while (r >= 0 && off < end) {
		uint64_t n = MIN(end - off, span - (off & (span - 1)));
		struct q2_lock lock;
		struct q2_map m;

		r = q2_frees_bound_co(s);
		if (r < 0)
			break;
		q2_lock_co(s, &lock, off, off + n);
		r = q2_map_co(s, off, end - off, &m);
		if (r >= 0 && m.type == Q2_UNALLOCATED && m.len >= s->cluster_size &&
		    (!q2_has_backing(s) || how >= TO_DISCARD))
			n = m.len & ~(uint64_t)(s->cluster_size - 1);
		else if (r >= 0)
			r = change_slice_co(s, off, n >> s->cluster_bits, how);
		q2_unlock(s, &lock);
		off += n;
	}
	return r;
}

/* A piece of a cluster; nothing if it is zero already. */
static int zero_piece_co(struct qcow2 *s, uint64_t off, uint64_t len, unsigned flags)
{
	struct iovec iov;
	struct iovecs v;
	struct q2_map m;
	void *buf;
	int r = q2_map_co(s, off, len, &m);

	if (r < 0 || !len)
		return r;
	if (m.len >= len && (m.type == Q2_ZERO || (m.type == Q2_UNALLOCATED && !q2_has_backing(s))))
		return 0;
	if (flags & BLOCK_NO_FALLBACK)
		return -ENOTSUP;
	buf = calloc(1, len);
	if (!buf)
		return -ENOMEM;
	v = iovecs_one(&iov, buf, len);
	r = q2_write_co(s->b, off, &v, 0);
	free(buf);
	return r;
}

int q2_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	struct qcow2 *s = q2_of(b);
	uint64_t end = off + len, first = q2_round_up(s, off), last;
	int r;

	if (s->version < 3 || s->autoclear & AUTOCLEAR_DATA_FILE_RAW)
		return -ENOTSUP;
	last = end == b->len ? q2_round_up(s, end) : end & ~(uint64_t)(s->cluster_size - 1);
	if (first >= last)
		return zero_piece_co(s, off, len, flags);
	r = q2_before_write_co(s);
	if (r >= 0 && off < first)
		r = zero_piece_co(s, off, first - off, flags);
	if (r >= 0)
		r = change_co(s, first, last, flags & BLOCK_UNMAP ? TO_ZERO_UNMAP : TO_ZERO);
	if (r >= 0 && last < end)
		r = zero_piece_co(s, last, end - last, flags);
	return r;
}

int q2_discard_co(struct block *b, uint64_t off, uint64_t len)
{
	struct qcow2 *s = q2_of(b);
	uint64_t end = off + len, first = q2_round_up(s, off), last;
	int r;

	if ((s->version < 3 && q2_has_backing(s)) || s->autoclear & AUTOCLEAR_DATA_FILE_RAW)
		return 0;
	last = end == b->len ? q2_round_up(s, end) : end & ~(uint64_t)(s->cluster_size - 1);
	if (first >= last)
		return 0;
	r = q2_before_write_co(s);
	return r < 0 ? r : change_co(s, first, last, TO_DISCARD);
}

int q2_drop_co(struct qcow2 *s, uint64_t off, uint64_t end)
{
	return change_co(s, off, end, TO_NOTHING);
}

int q2_status_co(struct block *b, uint64_t off, uint64_t len, struct block_status *st)
{
	struct qcow2 *s = q2_of(b);
	struct q2_map m;
	int r = q2_map_co(s, off, len, &m);

	if (r < 0)
		return r;
	*st = (struct block_status){ .len = m.len };
	switch (m.type) {
	case Q2_UNALLOCATED: break;
	case Q2_ZERO: st->flags = BLOCK_ZERO | BLOCK_ALLOCATED; break;
	case Q2_COMPRESSED: st->flags = BLOCK_DATA | BLOCK_ALLOCATED | BLOCK_COMPRESSED; break;
	case Q2_NORMAL:
		st->flags = BLOCK_DATA | BLOCK_ALLOCATED | BLOCK_OFFSET;
		st->offset = m.host;
		st->file = q2_data(s);
		break;
	}
	return 0;
}

int q2_preallocate_co(struct qcow2 *s, uint64_t off, uint64_t end)
{
	uint64_t span = 1ull << (s->slice_l2_bits + s->cluster_bits);
	int r = q2_before_write_co(s);

	off &= ~(uint64_t)(s->cluster_size - 1);
	end = q2_round_up(s, end);
	while (r >= 0 && off < end) {
		uint64_t n = MIN(end - off, span - (off & (span - 1))) >> s->cluster_bits;
		uint64_t host = 0;
		struct q2_slice *sl = NULL;
		uint8_t *e = NULL;

		r = q2_l2_prepare_co(s, off);
		if (r >= 0 && q2_external(s))
			host = off;
		else if (r >= 0)
			r = q2_alloc_co(s, &n, false, &host);
		if (r >= 0 && !q2_external(s))
			r = q2_file_zero_co(s, host, n << s->cluster_bits, META_NONE);
		if (r >= 0)
			r = q2_l2_slice_co(s, off, &sl, &e);
		if (r < 0)
			break;
		for (uint64_t i = 0; i < n; i++, e += s->l2_entry_size) {
			if (q2_get64(e)) {
				/* has something: what was allocated for it is not needed */
				if (!q2_external(s))
					q2_free_unused(s, host + (i << s->cluster_bits),
						       s->cluster_size);
				continue;
			}
			q2_put64(e, (host + (i << s->cluster_bits)) | ENTRY_COPIED);
			if (q2_extended(s))
				q2_put64(e + 8, UINT32_MAX);
		}
		q2_cache_dirty(&s->l2c, sl);
		s->barrier = true;
		off += n << s->cluster_bits;
	}
	return r;
}
