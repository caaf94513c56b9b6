/*
 * qcow2: where metadata is, and that nothing else gets written there.
 *
 * The content of an image is hostile: a mapping entry may point to the header, a refcount block or
 * another L2 table. Before each write to the host file its range is looked up here. A hit that is
 * not the write's own kind marks the image corrupt [QCOW2 "incompatible_features" bit 1] and ends
 * writing. L2 tables and refcount blocks are in a hash by cluster, the other few areas in a sorted
 * list. L2 tables that only snapshots use are not known here (as in QEMU by default).
 * Memory: 16 bytes for each L2 table and refcount block there is.
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { OV_L2 = 1, OV_REFBLOCK = 2, OV_TWICE = 3 };

static const char *const meta_name[] = {
	[META_NONE] = "guest data",
	[META_HEADER] = "the header",
	[META_L1] = "the active L1 table",
	[META_REFTABLE] = "the refcount table",
	[META_SNAPSHOTS] = "the snapshot table",
	[META_INACTIVE_L1] = "a snapshot's L1 table",
	[META_L2] = "an L2 table",
	[META_REFBLOCK] = "a refcount block",
};

static uint64_t *ov_slot(struct q2_overlap *o, uint64_t cluster)
{
	uint64_t mask = (1ull << o->bits) - 1;
	uint64_t i = cluster * 0x9e3779b97f4a7c15ull >> (64 - o->bits);

	/* 0 is empty, and a removed entry keeps its cluster with type 0 plus one set bit above */
	while (o->hash[i] && o->hash[i] >> 3 != cluster)
		i = (i + 1) & mask;
	return &o->hash[i];
}

/* Entries are cluster << 3 | 4 | type, so that none is 0. */
static int ov_room(struct q2_overlap *o)
{
	struct q2_overlap bigger = { .bits = o->bits ? o->bits : 8 };

	if (o->hash && o->used < (1ull << o->bits) / 2)
		return 0;
	while (o->n >= (1ull << bigger.bits) / 4)
		bigger.bits++;
	bigger.hash = calloc((size_t)1 << bigger.bits, sizeof(*bigger.hash));
	if (!bigger.hash)
		return -ENOMEM;
	for (uint64_t i = 0; o->hash && i < 1ull << o->bits; i++) {
		if (o->hash[i] & 3) {
			*ov_slot(&bigger, o->hash[i] >> 3) = o->hash[i];
			bigger.used++;
		}
	}
	free(o->hash);
	o->hash = bigger.hash;
	o->bits = bigger.bits;
	o->used = bigger.used;
	return 0;
}

int q2_overlap_add(struct qcow2 *s, uint64_t off, enum q2_meta type)
{
	struct q2_overlap *o = &s->ov;
	uint64_t *p;

	if (ov_room(o) < 0)
		return -ENOMEM;
	p = ov_slot(o, off >> s->cluster_bits);
	if (!*p)
		o->used++;
	if (*p & 3) {
		/* Two L1 entries may share an L2 table, with the right counts. */
		o->twice |= type == META_REFBLOCK || (*p & 3) == OV_REFBLOCK;
		*p |= OV_TWICE;
		return 0;
	}
	*p = off >> s->cluster_bits << 3 | 4 | (type == META_L2 ? OV_L2 : OV_REFBLOCK);
	o->n++;
	return 0;
}

void q2_overlap_remove(struct qcow2 *s, uint64_t off)
{
	uint64_t *p = s->ov.hash ? ov_slot(&s->ov, off >> s->cluster_bits) : NULL;

	if (p && *p & 3) {
		*p &= ~3ull;
		s->ov.n--;
	}
}

void q2_overlap_free(struct qcow2 *s)
{
	free(s->ov.hash);
	free(s->ov.ranges);
	memset(&s->ov, 0, sizeof(s->ov));
}

static int range_order(const void *a, const void *b)
{
	const struct q2_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

int q2_overlap_rebuild(struct qcow2 *s)
{
	struct q2_overlap *o = &s->ov;
	struct q2_range *v;
	unsigned n = 0, out = 0;

	q2_overlap_free(s);
	v = calloc(4 + (size_t)s->n_snaps, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v[n++] = (struct q2_range){ 0, s->cluster_size, META_HEADER };
	if (s->l1_size)
		v[n++] = (struct q2_range){ s->l1_offset, s->l1_offset + s->l1_size * 8ull,
					    META_L1 };
	v[n++] = (struct q2_range){ s->rt_offset,
				    s->rt_offset + ((uint64_t)s->rt_clusters << s->cluster_bits),
				    META_REFTABLE };
	if (s->n_snaps)
		v[n++] =
			(struct q2_range){ s->snapshots_off, s->snapshots_off + 1, META_SNAPSHOTS };
	for (uint32_t i = 0; i < s->n_snaps; i++) {
		if (s->snaps[i].l1_size)
			v[n++] = (struct q2_range){ s->snaps[i].l1_offset,
						    s->snaps[i].l1_offset +
							    s->snaps[i].l1_size * 8ull,
						    META_INACTIVE_L1 };
	}
	qsort(v, n, sizeof(*v), range_order);
	for (unsigned i = 0; i < n; i++) {
		v[i].end = q2_round_up(s, v[i].end);
		if (out && v[i].start < v[out - 1].end)
			v[out - 1].end = MAX(v[out - 1].end, v[i].end);
		else
			v[out++] = v[i];
	}
	o->ranges = v;
	o->n_ranges = out;

	for (uint32_t i = 0; i < s->l1_size; i++) {
		if (s->l1[i] & ENTRY_OFFSET &&
		    q2_overlap_add(s, s->l1[i] & ENTRY_OFFSET, META_L2) < 0)
			return -ENOMEM;
	}
	for (uint64_t i = 0; i < s->rt_entries; i++) {
		if (s->rt[i] && q2_overlap_add(s, s->rt[i], META_REFBLOCK) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* The kind of metadata in [start, end) that self may not write, META_NONE: none. */
static enum q2_meta ov_find(struct qcow2 *s, uint64_t start, uint64_t end, enum q2_meta self)
{
	struct q2_overlap *o = &s->ov;
	unsigned lo = 0, hi = o->n_ranges;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (o->ranges[mid].end <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < o->n_ranges && o->ranges[lo].start < end; lo++) {
		if (o->ranges[lo].type != self)
			return o->ranges[lo].type;
	}
	if (!o->n)
		return META_NONE;
	for (uint64_t c = start >> s->cluster_bits; c <= (end - 1) >> s->cluster_bits; c++) {
		uint64_t v = *ov_slot(o, c) & 3;

		if (v == OV_TWICE || (v == OV_L2 && self != META_L2))
			return META_L2;
		if (v == OV_REFBLOCK && self != META_REFBLOCK)
			return META_REFBLOCK;
	}
	return META_NONE;
}

int q2_overlap_check_co(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_meta self)
{
	enum q2_meta hit;

	if (s->broken)
		return -EIO;
	if (!len)
		return 0;
	hit = ov_find(s, off, off + len, self);
	if (hit == META_NONE)
		return 0;
	return q2_corrupt_co(s, "a write of %s at offset 0x%llx would hit %s", meta_name[self],
			     (unsigned long long)off, meta_name[hit]);
}
