/*
 * qcow2: reference counts: the refcount table, blocks, and single counts.
 *
 * Counts change in cached slices of refcount blocks; the commit writes them. What is rare is
 * written at once, with flushes: a new block (it lies in the first cluster that it counts itself,
 * which is free as there was no block), and a larger table (it lies, with the blocks that count
 * it, where the old table's reach ends).
 * Locks: alloc_lock is held by callers, except where the header says otherwise.
 * Reference: [QCOW2 "Host cluster management"]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

uint64_t q2_refbits_get(const uint8_t *d, unsigned order, uint64_t i)
{
	switch (order) {
	case 0: return d[i / 8] >> (i % 8) & 1;
	case 1: return d[i / 4] >> (2 * (i % 4)) & 3;
	case 2: return d[i / 2] >> (4 * (i % 2)) & 15;
	case 3: return d[i];
	case 4: return q2_get16(d + 2 * i);
	case 5: return q2_get32(d + 4 * i);
	default: return q2_get64(d + 8 * i);
	}
}

void q2_refbits_set(uint8_t *d, unsigned order, uint64_t i, uint64_t v)
{
	unsigned shift;

	switch (order) {
	case 0:
		shift = i % 8;
		d[i / 8] = (uint8_t)((d[i / 8] & ~(1u << shift)) | v << shift);
		break;
	case 1:
		shift = 2 * (i % 4);
		d[i / 4] = (uint8_t)((d[i / 4] & ~(3u << shift)) | v << shift);
		break;
	case 2:
		shift = 4 * (i % 2);
		d[i / 2] = (uint8_t)((d[i / 2] & ~(15u << shift)) | v << shift);
		break;
	case 3: d[i] = (uint8_t)v; break;
	case 4: q2_put16(d + 2 * i, (uint16_t)v); break;
	case 5: q2_put32(d + 4 * i, (uint32_t)v); break;
	default: q2_put64(d + 8 * i, v); break;
	}
}

int q2_reftable_load_co(struct qcow2 *s, struct err *e)
{
	const char *f = s->b->opts.filename;
	uint64_t n = (uint64_t)s->rt_clusters << s->cluster_bits >> 3;
	int r;

	s->rt = calloc(n + 1, sizeof(*s->rt));
	if (!s->rt)
		return err_set(e, ENOMEM, "%s: out of memory for the refcount table", f);
	s->rt_entries = n;
	r = n ? q2_file_pread_co(s->b->file, s->rt_offset, s->rt, n * 8) : 0;
	if (r < 0)
		return err_set(e, -r, "%s: the refcount table cannot be read: %s", f, strerror(-r));
	for (uint64_t i = 0; i < n; i++) {
		uint64_t v = be64toh(s->rt[i]);

		s->rt_reserved |= (v & ~ENTRY_RT_OFFSET) != 0;
		s->rt[i] = v & ENTRY_RT_OFFSET;
	}
	return 0;
}

/* The slice of an existing block that has the count of a cluster. *i: which one in it. */
static int ref_slice_co(struct qcow2 *s, uint64_t cluster, struct q2_slice **sl, uint64_t *i)
{
	unsigned per_slice = (unsigned)__builtin_ctz(s->slice_size) + 3 - s->refcount_order;
	uint64_t in_block = cluster & ((1ull << s->rb_bits) - 1);
	uint64_t block = s->rt[cluster >> s->rb_bits];

	if (q2_in_cluster(s, block) || block > (uint64_t)INT64_MAX - s->cluster_size)
		return q2_corrupt_co(s, "the refcount block at 0x%llx is not aligned",
				     (unsigned long long)block);
	*i = in_block & ((1ull << per_slice) - 1);
	return q2_cache_get_co(&s->rbc, block + (in_block >> per_slice) * s->slice_size, sl);
}

int q2_ref_get_co(struct qcow2 *s, uint64_t cluster, uint64_t *out)
{
	struct q2_slice *sl = NULL;
	uint64_t i;
	int r;

	*out = 0;
	if (cluster >> s->rb_bits >= s->rt_entries || !s->rt[cluster >> s->rb_bits])
		return 0;
	r = ref_slice_co(s, cluster, &sl, &i);
	if (r >= 0)
		*out = q2_refbits_get(sl->data, s->refcount_order, i);
	return r;
}

/* Write one entry of the table in the file. */
static int rt_write_co(struct qcow2 *s, uint64_t index)
{
	uint8_t be[8];

	q2_put64(be, s->rt[index]);
	return q2_file_pwrite_co(s, s->rt_offset + index * 8, be, sizeof(be), META_REFTABLE);
}

int q2_refblock_adopt_co(struct qcow2 *s, uint64_t index, uint64_t off)
{
	int r;

	q2_cache_drop(&s->rbc, off, s->cluster_size);
	s->rt[index] = off;
	r = q2_overlap_add(s, off, META_REFBLOCK);
	if (r >= 0)
		r = rt_write_co(s, index);
	if (r < 0) {
		s->rt[index] = 0;
		q2_overlap_remove(s, off);
	}
	return r;
}

/* A block for entry `index`, in its own first cluster. */
static int rt_new_block_co(struct qcow2 *s, uint64_t index)
{
	uint64_t off = index << (s->rb_bits + s->cluster_bits);
	uint8_t *data;
	int r;

	if (off > ENTRY_OFFSET - s->cluster_size)
		return -EFBIG;
	data = calloc(1, s->cluster_size);
	if (!data)
		return -ENOMEM;
	q2_refbits_set(data, s->refcount_order, 0, 1);
	r = q2_file_pwrite_co(s, off, data, s->cluster_size, META_NONE);
	free(data);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	return r < 0 ? r : q2_refblock_adopt_co(s, index, off);
}

/*
 * A table with room for entry `index`. From where the old one's reach ends lie, one after the
 * other, the blocks that count this area, and the table.
 */
static int rt_grow_co(struct qcow2 *s, uint64_t index)
{
	uint64_t first = s->rt_entries << s->rb_bits; /* cluster */
	uint64_t want = MAX(index + 1, s->rt_entries + s->rt_entries / 2 + 1);
	uint64_t n_blocks = 1, n_table, need, *rt, old_off = s->rt_offset, old_n = s->rt_clusters;
	uint8_t *buf = NULL, head[12];
	int r;

	/* The first new block is needed in any case; each covers 2^rb_bits clusters from first on.
	 */
	for (;;) {
		want = MAX(want, s->rt_entries + n_blocks);
		n_table = ((want * 8) + s->cluster_size - 1) >> s->cluster_bits;
		need = (n_blocks + n_table + (1ull << s->rb_bits) - 1) >> s->rb_bits;
		if (need <= n_blocks)
			break;
		n_blocks = need;
	}
	if (n_table << s->cluster_bits > QCOW2_MAX_REFTABLE ||
	    (first + n_blocks + n_table) >> (56 - s->cluster_bits))
		return -EFBIG;
	want = n_table << s->cluster_bits >> 3;
	rt = calloc(want, sizeof(*rt));
	buf = calloc(n_blocks + n_table, s->cluster_size);
	if (!rt || !buf) {
		free(rt);
		free(buf);
		return -ENOMEM;
	}
	memcpy(rt, s->rt, s->rt_entries * sizeof(*rt));
	for (uint64_t i = 0; i < n_blocks; i++)
		rt[s->rt_entries + i] = (first + i) << s->cluster_bits;
	for (uint64_t i = 0; i < n_blocks + n_table; i++)
		q2_refbits_set(buf, s->refcount_order, i, 1); /* blocks are contiguous in buf */
	for (uint64_t i = 0; i < want; i++)
		q2_put64(buf + (n_blocks << s->cluster_bits) + i * 8, rt[i]);
	r = q2_file_pwrite_co(s, first << s->cluster_bits, buf,
			      (n_blocks + n_table) << s->cluster_bits, META_NONE);
	free(buf);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	q2_put64(head, (first + n_blocks) << s->cluster_bits);
	q2_put32(head + 8, (uint32_t)n_table);
	if (r >= 0)
		r = q2_header_poke_co(s, H_RT_OFF, head, sizeof(head));
	if (r < 0) {
		free(rt);
		return r;
	}
	free(s->rt);
	s->rt = rt;
	s->rt_entries = want;
	s->rt_offset = (first + n_blocks) << s->cluster_bits;
	s->rt_clusters = (uint32_t)n_table;
	q2_cache_drop(&s->rbc, first << s->cluster_bits, n_blocks << s->cluster_bits);
	q2_free_unused(s, old_off, old_n << s->cluster_bits);
	return q2_overlap_rebuild(s);
}

int q2_ref_set_co(struct qcow2 *s, uint64_t cluster, uint64_t value)
{
	uint64_t index = cluster >> s->rb_bits, i = 0;
	struct q2_slice *sl = NULL;
	int r = 0;

	if (value > s->refcount_max)
		return -ERANGE;
	if (index >= s->rt_entries)
		r = rt_grow_co(s, index);
	if (r >= 0 && !s->rt[index])
		r = rt_new_block_co(s, index);
	if (r >= 0)
		r = ref_slice_co(s, cluster, &sl, &i);
	if (r < 0)
		return r;
	q2_refbits_set(sl->data, s->refcount_order, i, value);
	q2_cache_dirty(&s->rbc, sl);
	if (!value) {
		if (cluster < s->free_hint)
			s->free_hint = cluster;
		/* what was packed or remembered of it is void */
		if (s->comp_off >> s->cluster_bits == cluster)
			s->comp_off = 0;
		s->comp_key = 0;
		/* it may have been an L2 table, and what it is next is not written through here */
		q2_cache_drop(&s->l2c, cluster << s->cluster_bits, s->cluster_size);
	}
	return 0;
}

static int ref_add_locked_co(struct qcow2 *s, uint64_t cluster, int delta)
{
	uint64_t n;
	int r = q2_ref_get_co(s, cluster, &n);

	if (r < 0)
		return r;
	if (delta > 0 && n >= s->refcount_max)
		return -ERANGE;
	if (delta < 0 && !n)
		return q2_corrupt_co(s, "cluster 0x%llx is freed, but its refcount is 0",
				     (unsigned long long)cluster << s->cluster_bits);
	return q2_ref_set_co(s, cluster, delta > 0 ? n + 1 : n - 1);
}

int q2_ref_add_co(struct qcow2 *s, uint64_t off, uint64_t len, int delta)
{
	uint64_t first = off >> s->cluster_bits, last = (off + len - 1) >> s->cluster_bits, c;
	int r = 0;

	task_co_lock(&s->alloc_lock);
	for (c = first; r >= 0 && c <= last; c++)
		r = ref_add_locked_co(s, c, delta);
	if (r < 0 && delta > 0) {
		/* undo, as far as that goes: too high a count would only be a leak */
		for (uint64_t u = first; u + 1 < c; u++) {
			if (ref_add_locked_co(s, u, -1) < 0)
				break;
		}
	}
	task_unlock(&s->alloc_lock);
	return r;
}
