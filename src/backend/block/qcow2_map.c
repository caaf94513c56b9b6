/*
 * qcow2: from guest offsets to host offsets: L1 and L2 tables.
 *
 * Modelled: standard, zero and compressed clusters, extended entries with subclusters; L2 tables
 * made or copied (when a snapshot shares them) before they are written to; the lock that keeps
 * changes of the same guest clusters apart.
 * Hostile input: an entry with reserved bits, an offset that is not aligned or too large is
 * corruption: -EIO, and the image is marked.
 * Reference: [QCOW2 "Cluster mapping", "Extended L2 Entries"]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"
#include "base/log.h"

int q2_l1_read_co(struct qcow2 *s, uint64_t off, uint32_t n, uint64_t **out, struct err *e)
{
	const char *f = s->b->opts.filename;
	uint64_t *l1 = calloc((size_t)n + 1, sizeof(*l1));
	int r;

	*out = NULL;
	if (!l1)
		return err_set(e, ENOMEM, "%s: out of memory for an L1 table", f);
	r = n ? q2_file_pread_co(s->b->file, off, l1, n * 8ull) : 0;
	if (r < 0) {
		free(l1);
		return err_set(e, -r, "%s: an L1 table cannot be read: %s", f, strerror(-r));
	}
	for (uint32_t i = 0; i < n; i++)
		l1[i] = be64toh(l1[i]);
	*out = l1;
	return 0;
}

int q2_l1_min_size(const struct qcow2 *s, uint64_t size, uint32_t *n)
{
	uint64_t span_bits = s->l2_bits + s->cluster_bits;
	uint64_t want = (size >> span_bits) + !!(size & ((1ull << span_bits) - 1));

	if (want > QCOW2_MAX_L1 / 8)
		return -EFBIG;
	*n = (uint32_t)want;
	return 0;
}

int q2_l1_load_co(struct qcow2 *s, struct err *e)
{
	const char *f = s->b->opts.filename;
	uint32_t min;
	int r;

	if (q2_l1_min_size(s, s->b->len, &min) < 0 || s->l1_size < min)
		return err_set(e, EINVAL, "%s: the L1 table is too small for a disk of %llu bytes",
			       f, (unsigned long long)s->b->len);
	if (s->l1_size && !s->l1_offset)
		return err_set(e, EINVAL, "%s: the active L1 table's offset is invalid", f);
	r = q2_l1_read_co(s, s->l1_offset, s->l1_size, &s->l1, e);
	if (r < 0)
		return r;
	s->l1_dirty = calloc(1, (size_t)s->l1_size + 1);
	return s->l1_dirty ? 0 : err_set(e, ENOMEM, "%s: out of memory", f);
}

int q2_corrupt_co(struct qcow2 *s, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	if (s->broken)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	s->broken = true;
	if (s->b->writable && !s->b->opts.check) {
		log_warn("%s: qcow2: %s; the image is marked corrupt and not written to any more",
			 s->b->opts.filename, what);
		if (q2_set_incompat_co(s, INCOMPAT_CORRUPT, 0) < 0)
			log_warn("%s: qcow2: nor can that be noted in it", s->b->opts.filename);
	} else {
		log_warn("%s: qcow2: %s", s->b->opts.filename, what);
	}
	return -EIO;
}

/* ---- Changes of the same clusters ---------------------------------------------------------- */

void q2_lock_co(struct qcow2 *s, struct q2_lock *l, uint64_t start, uint64_t end)
{
	*l = (struct q2_lock){ .start = start, .end = end };
	for (;;) {
		struct q2_lock *o = s->locks;

		while (o && (o->end <= start || end <= o->start))
			o = o->next;
		if (!o)
			break;
		task_co_queue(&o->wait);
	}
	l->next = s->locks;
	s->locks = l;
}

void q2_unlock(struct qcow2 *s, struct q2_lock *l)
{
	struct q2_lock **p = &s->locks;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	task_queue_wake_all(&l->wait);
}

/* ---- Reading the tables -------------------------------------------------------------------- */

/* The slice that holds an entry of an L2 table, which the L1 entry points to. */
static int l2_get_co(struct qcow2 *s, uint64_t off, uint64_t l1e, struct q2_slice **sl, uint8_t **e)
{
	uint64_t index = off >> s->cluster_bits & ((1ull << s->l2_bits) - 1);
	uint64_t table = l1e & ENTRY_OFFSET;
	int r;

	if (q2_in_cluster(s, table) || l1e & ENTRY_L1_RSVD)
		return q2_corrupt_co(s, "L1 entry 0x%llx of guest offset 0x%llx is invalid",
				     (unsigned long long)l1e, (unsigned long long)off);
	r = q2_cache_get_co(&s->l2c, table + (index >> s->slice_l2_bits) * s->slice_size, sl);
	if (r >= 0)
		*e = (*sl)->data + (index & ((1ull << s->slice_l2_bits) - 1)) * s->l2_entry_size;
	return r;
}

void q2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *off, uint64_t *len)
{
	unsigned x = 62 - (s->cluster_bits - 8);

	*off = entry & (BIT(x) - 1) & ((1ull << 56) - 1);
	*len = (bits(entry, 61, x) + 1) * 512 - (*off & 511);
}

/* What one subcluster (whole cluster without them) is. */
static int entry_type(struct qcow2 *s, uint64_t v, uint64_t bitmap, unsigned sub, uint64_t guest,
		      enum q2_type *type)
{
	uint64_t host = v & ENTRY_OFFSET;

	if (v & ENTRY_COMPRESSED) {
		*type = Q2_COMPRESSED;
		if (q2_external(s))
			goto bad;
		return 0;
	}
	if (q2_in_cluster(s, host) || v & ENTRY_L2_RSVD)
		goto bad;
	/* external data lies where the guest sees it, also at 0 */
	if (q2_external(s) && (host || v & ENTRY_COPIED) && host != guest)
		goto bad;
	if (q2_extended(s)) {
		bool alloc = bitmap >> sub & 1, zero = bitmap >> (32 + sub) & 1;

		if ((alloc && (zero || (!host && !q2_external(s)))) || v & ENTRY_ZERO)
			goto bad;
		*type = alloc ? Q2_NORMAL : zero ? Q2_ZERO : Q2_UNALLOCATED;
		return 0;
	}
	if (v & ENTRY_ZERO) {
		if (s->version < 3)
			goto bad;
		*type = Q2_ZERO;
	} else {
		*type = host || (q2_external(s) && v & ENTRY_COPIED) ? Q2_NORMAL : Q2_UNALLOCATED;
	}
	return 0;
bad:
	return q2_corrupt_co(s, "the L2 entry 0x%llx of guest offset 0x%llx is invalid",
			     (unsigned long long)v, (unsigned long long)guest);
}

int q2_map_co(struct qcow2 *s, uint64_t off, uint64_t len, struct q2_map *m)
{
	uint64_t l1i = off >> (s->l2_bits + s->cluster_bits), end, at, pos;
	struct q2_slice *sl;
	uint8_t *e;
	int r;

	/* up to the end of the slice */
	at = off & ~((1ull << (s->slice_l2_bits + s->cluster_bits)) - 1);
	end = MIN(off + len, at + (1ull << (s->slice_l2_bits + s->cluster_bits)));
	*m = (struct q2_map){ .type = Q2_UNALLOCATED, .len = end - off };
	if (l1i >= s->l1_size || !(s->l1[l1i] & ENTRY_OFFSET)) {
		uint64_t span = q2_l2_span(s);

		m->len = MIN(len, span - (off & (span - 1)));
		return 0;
	}
	r = l2_get_co(s, off, s->l1[l1i], &sl, &e);
	if (r < 0)
		return r;
	for (pos = off; pos < end; pos = (pos | ((1ull << s->subcluster_bits) - 1)) + 1) {
		uint64_t i = (pos >> s->cluster_bits) - (off >> s->cluster_bits), v, host;
		uint64_t guest = pos & ~(uint64_t)(s->cluster_size - 1);
		unsigned sub = (unsigned)(q2_in_cluster(s, pos) >> s->subcluster_bits);
		enum q2_type type;
		bool in_place;

		v = q2_get64(e + i * s->l2_entry_size);
		r = entry_type(s, v, q2_bitmap(s, e + i * s->l2_entry_size), sub, guest, &type);
		if (r < 0)
			return r;
		host = (v & ENTRY_OFFSET) + q2_in_cluster(s, pos);
		in_place = type == Q2_NORMAL && (v & ENTRY_COPIED);
		if (pos == off) {
			m->type = type;
			m->in_place = in_place;
			m->host = type == Q2_COMPRESSED ? v : type == Q2_NORMAL ? host : 0;
			if (type == Q2_COMPRESSED) {
				pos |= s->cluster_size - 1; /* one at a time */
				pos++;
				break;
			}
		} else if (type != m->type || in_place != m->in_place ||
			   (type == Q2_NORMAL && host != m->host + (pos - off))) {
			break;
		}
	}
	m->len = MIN(pos, end) - off;
	return 0;
}

/* ---- Changing the tables ------------------------------------------------------------------- */

/* A copy of a shared L2 table, or an empty one. l2_lock is held. */
static int l2_new_co(struct qcow2 *s, uint64_t l1i)
{
	uint64_t old = s->l1[l1i] & ENTRY_OFFSET, off, n = 1;
	uint8_t *buf = NULL;
	int r;

	if (s->l1[l1i] & ENTRY_L1_RSVD || q2_in_cluster(s, old))
		return q2_corrupt_co(s, "L1 entry 0x%llx is invalid",
				     (unsigned long long)s->l1[l1i]);
	r = q2_alloc_co(s, &n, true, &off);
	if (r < 0)
		return r;
	if (old) {
		/* Tables that are shared are never dirty: the file has what counts. */
		buf = malloc(s->cluster_size);
		r = buf ? q2_file_pread_co(s->b->file, old, buf, s->cluster_size) : -ENOMEM;
		if (r >= 0)
			r = q2_file_pwrite_co(s, off, buf, s->cluster_size, META_NONE);
		free(buf);
	} else {
		r = q2_file_zero_co(s, off, s->cluster_size, META_NONE);
	}
	if (r >= 0)
		r = q2_overlap_add(s, off, META_L2);
	if (r < 0) {
		q2_free_unused(s, off, s->cluster_size);
		return r;
	}
	q2_cache_drop(&s->l2c, off, s->cluster_size); /* of what was there before */
	s->l1[l1i] = off | ENTRY_COPIED;
	if (!s->l1_dirty[l1i]) {
		s->l1_dirty[l1i] = 1;
		s->n_l1_dirty++;
	}
	if (old) {
		q2_overlap_remove(s, old);
		q2_free_later(s, old, s->cluster_size, false);
	}
	return 0;
}

int q2_l2_prepare_co(struct qcow2 *s, uint64_t off)
{
	uint64_t l1i = off >> (s->l2_bits + s->cluster_bits);
	int r = 0;

	if (l1i >= s->l1_size)
		return -EIO;
	if (likely(s->l1[l1i] & ENTRY_COPIED && s->l1[l1i] & ENTRY_OFFSET))
		return 0;
	task_co_lock(&s->l2_lock);
	if (!(s->l1[l1i] & ENTRY_COPIED) || !(s->l1[l1i] & ENTRY_OFFSET))
		r = l2_new_co(s, l1i);
	task_unlock(&s->l2_lock);
	return r;
}

int q2_l2_slice_co(struct qcow2 *s, uint64_t off, struct q2_slice **sl, uint8_t **e)
{
	return l2_get_co(s, off, s->l1[off >> (s->l2_bits + s->cluster_bits)], sl, e);
}

void q2_l2_entry_free(struct qcow2 *s, uint64_t entry)
{
	uint64_t off, len;

	if (q2_external(s))
		return;
	if (entry & ENTRY_COMPRESSED) {
		uint64_t first, last;

		/* one count for each cluster it touches */
		q2_compressed_range(s, entry, &off, &len);
		first = off >> s->cluster_bits;
		last = (off + len - 1) >> s->cluster_bits;
		for (uint64_t c = first; c <= last; c++)
			q2_free_later(s, c << s->cluster_bits, s->cluster_size, true);
	} else if (entry & ENTRY_OFFSET) {
		q2_free_later(s, entry & ENTRY_OFFSET, s->cluster_size, true);
	}
}
