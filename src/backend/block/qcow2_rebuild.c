/*
 * qcow2: a new refcount structure in place of one that is wrong.
 *
 * It is written behind everything that is in use, and the header then points to it in one sector.
 * What the old one occupied is free in the new one, as nothing counts it.
 * Reference: [QCOW2 "Host cluster management"]
 * Threads: the node's loop, no other requests.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

struct rebuild {
	struct qcow2 *s;
	const uint32_t *refs;
	uint64_t n;    /* clusters in refs */
	uint64_t base; /* the first cluster of the new structure: blocks, then the table */
	uint64_t n_blocks, n_table;
	uint8_t *used; /* by refcount table entry: a block is needed */
	uint64_t n_used;
};

static uint64_t rebuild_count(const struct rebuild *x, uint64_t c)
{
	if (c < x->n && x->refs[c])
		return x->refs[c];
	return c >= x->base && c < x->base + x->n_blocks + x->n_table;
}

/* How many blocks and table clusters: they count themselves, so until it fits. */
static int rebuild_plan(struct rebuild *x)
{
	struct qcow2 *s = x->s;
	uint64_t last = x->n;

	while (last && !x->refs[last - 1])
		last--;
	x->base = MAX(last, (q2_round_up(s, s->b->file->len) >> s->cluster_bits));
	x->n_table = 1;
	for (;;) {
		uint64_t top = (x->base + x->n_blocks + x->n_table - 1) >> s->rb_bits, n = 0;
		uint64_t tables = ((top + 1) * 8 + s->cluster_size - 1) >> s->cluster_bits;
		uint8_t *used = realloc(x->used, top + 1);

		if (!used)
			return -ENOMEM;
		x->used = used;
		x->n_used = top + 1;
		memset(used, 0, top + 1);
		for (uint64_t c = 0; c < x->n; c++) {
			if (x->refs[c])
				used[c >> s->rb_bits] = 1;
		}
		for (uint64_t c = x->base; c < x->base + x->n_blocks + x->n_table; c++)
			used[c >> s->rb_bits] = 1;
		for (uint64_t i = 0; i <= top; i++)
			n += used[i];
		if (n <= x->n_blocks && tables <= x->n_table)
			return 0;
		x->n_blocks = MAX(n, x->n_blocks);
		x->n_table = MAX(tables, x->n_table);
		if (x->n_table << s->cluster_bits > QCOW2_MAX_REFTABLE)
			return -EFBIG;
	}
}

int q2_refcounts_rebuild_co(struct qcow2 *s, const uint32_t *refs, uint64_t n, struct err *e)
{
	struct rebuild x = { .s = s, .refs = refs, .n = n };
	uint64_t per = 1ull << s->rb_bits, at, *rt = NULL, entries;
	uint8_t *buf = NULL, head[12];
	int r = rebuild_plan(&x);

	entries = x.n_table << s->cluster_bits >> 3;
	if (r >= 0) {
		rt = calloc(entries, sizeof(*rt));
		buf = malloc(s->cluster_size);
		r = rt && buf ? 0 : -ENOMEM;
	}
	s->broken = false;
	q2_overlap_free(s); /* what it knows of blocks is wrong; the new place is behind all */
	at = x.base << s->cluster_bits;
	for (uint64_t i = 0; r >= 0 && i < x.n_used; i++) {
		if (!x.used[i])
			continue;
		memset(buf, 0, s->cluster_size);
		for (uint64_t k = 0; k < per && r >= 0; k++) {
			uint64_t v = rebuild_count(&x, i * per + k);

			if (v > s->refcount_max)
				r = err_set(e, ERANGE,
					    "%s: %llu references to a cluster are too many for "
					    "the image's refcount width",
					    s->b->opts.filename, (unsigned long long)v);
			else if (v)
				q2_refbits_set(buf, s->refcount_order, k, v);
		}
		if (r >= 0)
			r = q2_file_pwrite_co(s, at, buf, s->cluster_size, META_NONE);
		rt[i] = at;
		at += s->cluster_size;
	}
	/* blocks that the plan did not need in the end are counted all the same: leaked, repaired
	 * by the next check; the table lies behind them */
	at = (x.base + x.n_blocks) << s->cluster_bits;
	for (uint64_t c = 0; r >= 0 && c < x.n_table; c++) {
		for (uint32_t k = 0; k < s->cluster_size; k += 8)
			q2_put64(buf + k, rt[(c << s->cluster_bits >> 3) + k / 8]);
		r = q2_file_pwrite_co(s, at + (c << s->cluster_bits), buf, s->cluster_size,
				      META_NONE);
	}
	if (r >= 0)
		r = block_co_flush(s->b->file);
	q2_put64(head, at);
	q2_put32(head + 8, (uint32_t)x.n_table);
	if (r >= 0)
		r = q2_header_poke_co(s, H_RT_OFF, head, sizeof(head));
	if (r >= 0) {
		free(s->rt);
		s->rt = rt;
		s->rt_entries = entries;
		s->rt_offset = at;
		s->rt_clusters = (uint32_t)x.n_table;
		s->rt_reserved = false;
		s->free_hint = 0;
		s->comp_off = 0;
		rt = NULL;
		q2_cache_free(&s->rbc);
		r = q2_cache_init(&s->rbc, s, 0);
	}
	free(rt);
	free(buf);
	free(x.used);
	if (r >= 0)
		r = q2_overlap_rebuild(s);
	if (r < 0 && (!e || !e->code))
		err_set(e, -r, "%s: new refcounts cannot be written: %s", s->b->opts.filename,
			strerror(-r));
	return r;
}
