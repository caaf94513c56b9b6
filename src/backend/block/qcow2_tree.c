/*
 * qcow2: all that an L1 table reaches, for snapshots: its counts and COPIED bits.
 *
 * The operations around this set the dirty bit of a version 3 image before they begin and clear it
 * when everything is written, since counts and COPIED bits cannot change in one step: after a
 * crash in between the next one to open the image repairs it. On version 2 the order of steps
 * (qcow2_snapshot.c) leaves leaks and COPIED bits that cost a needless copy.
 * Reference: [QCOW2 "Snapshots", L1 and L2 entries bit 63]
 * Threads: the node's loop, no other requests.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

struct tree {
	struct qcow2 *s;
	int delta;
	bool active;
	uint64_t freed, freed_len; /* clusters whose counts became 0: given back to the host */
	uint8_t *copy;             /* of a slice: counting waits, and a slice may go meanwhile */
};

/* Is the count of a cluster n? */
static int tree_count_is_co(struct qcow2 *s, uint64_t off, uint64_t n, bool *is)
{
	uint64_t count;
	int r;

	task_co_lock(&s->alloc_lock);
	r = q2_ref_get_co(s, off >> s->cluster_bits, &count);
	task_unlock(&s->alloc_lock);
	*is = r >= 0 && count == n;
	return r;
}

/* The run of clusters that were freed ends. Nobody else allocates meanwhile. */
static void tree_discard_co(struct tree *t)
{
	if (t->freed_len && block_co_discard(t->s->b->file, t->freed, t->freed_len) < 0)
		t->freed_len = 0; /* a hint only */
	t->freed_len = 0;
}

static int tree_freed_co(struct tree *t, uint64_t off)
{
	bool free;
	int r = tree_count_is_co(t->s, off, 0, &free);

	if (r < 0 || !free)
		return r;
	if (t->freed + t->freed_len != off)
		tree_discard_co(t);
	if (!t->freed_len)
		t->freed = off;
	t->freed_len += t->s->cluster_size;
	return 0;
}

static int tree_ref_co(struct qcow2 *s, uint64_t off, uint64_t len, int delta)
{
	if (off > (uint64_t)INT64_MAX - len)
		return q2_corrupt_co(s, "a cluster offset, 0x%llx, is invalid",
				     (unsigned long long)off);
	return delta ? q2_ref_add_co(s, off, len, delta) : 0;
}

/* What the COPIED bit of an entry for a cluster should be after the change. */
static int tree_copied_co(struct tree *t, uint64_t off, uint64_t old, uint64_t *v)
{
	bool one = false;
	int r = 0;

	*v = old;
	if (!t->active && t->delta < 0)
		return 0; /* it is going away */
	if (t->active)
		r = tree_count_is_co(t->s, off, 1, &one);
	*v = one ? old | ENTRY_COPIED : old & ~ENTRY_COPIED;
	return r;
}

/* One entry; *v may get another COPIED bit. */
static int tree_entry_co(struct tree *t, uint64_t *v)
{
	struct qcow2 *s = t->s;
	uint64_t off, len;
	int r;

	if (*v & ENTRY_COMPRESSED) {
		q2_compressed_range(s, *v, &off, &len);
		return tree_ref_co(s, off, len, t->delta);
	}
	off = *v & ENTRY_OFFSET;
	if (!off)
		return 0;
	if (q2_in_cluster(s, off))
		return q2_corrupt_co(s, "the L2 entry 0x%llx is invalid", (unsigned long long)*v);
	r = tree_ref_co(s, off, s->cluster_size, t->delta);
	if (r >= 0 && t->delta < 0)
		r = tree_freed_co(t, off);
	return r < 0 ? r : tree_copied_co(t, off, *v, v);
}

static int tree_slice_co(struct tree *t, uint64_t at)
{
	struct qcow2 *s = t->s;
	struct q2_slice *sl;
	bool changed = false;
	int r = q2_cache_get_co(&s->l2c, at, &sl);

	if (r < 0)
		return r;
	memcpy(t->copy, sl->data, s->slice_size);
	for (uint32_t i = 0; i < s->slice_size; i += s->l2_entry_size) {
		uint64_t old = q2_get64(t->copy + i), v = old;

		if (!old)
			continue;
		r = tree_entry_co(t, &v);
		if (r < 0)
			return r;
		if (v != old) {
			q2_put64(t->copy + i, v);
			changed = true;
		}
	}
	if (!changed)
		return 0;
	r = q2_cache_get_co(&s->l2c, at, &sl);
	if (r < 0)
		return r;
	memcpy(sl->data, t->copy, s->slice_size);
	q2_cache_dirty(&s->l2c, sl);
	return 0;
}

static int tree_table_co(struct tree *t, uint64_t *l1e)
{
	struct qcow2 *s = t->s;
	uint64_t table = *l1e & ENTRY_OFFSET;
	int r = 0;

	if (q2_in_cluster(s, table) || *l1e & ENTRY_L1_RSVD)
		return q2_corrupt_co(s, "the L1 entry 0x%llx is invalid", (unsigned long long)*l1e);
	for (uint32_t i = 0; r >= 0 && i < s->cluster_size; i += s->slice_size)
		r = tree_slice_co(t, table + i);
	if (r >= 0)
		r = tree_ref_co(s, table, s->cluster_size, t->delta);
	return r < 0 ? r : tree_copied_co(t, table, *l1e, l1e);
}

int q2_tree_co(struct qcow2 *s, uint64_t *l1, uint32_t l1_size, int delta, bool active)
{
	struct tree t = { .s = s, .delta = delta, .active = active, .copy = malloc(s->slice_size) };
	int r = t.copy ? 0 : -ENOMEM;

	for (uint32_t i = 0; r >= 0 && i < l1_size; i++) {
		uint64_t old = l1[i];

		if (!(old & ENTRY_OFFSET))
			continue;
		r = tree_table_co(&t, &l1[i]);
		if (active && l1[i] != old && !s->l1_dirty[i]) {
			s->l1_dirty[i] = 1;
			s->n_l1_dirty++;
		}
	}
	tree_discard_co(&t);
	free(t.copy);
	return r;
}
