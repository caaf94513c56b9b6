/*
 * qcow2: another size of the disk, and a new place for the L1 table.
 *
 * Growing: a larger L1 table is written elsewhere and the header then changes in one sector. What
 * a longer backing file has behind the old end must not show: zeroes are put over it. Shrinking:
 * what lies behind the new end is unmapped, and the rest of the last cluster zeroed.
 * Reference: [QCOW2 "Header", "Cluster mapping"]
 * Threads: the node's loop, no other requests.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

static int header_size_poke_co(struct qcow2 *s, uint64_t size, uint32_t l1_size, uint64_t l1_offset)
{
	uint8_t head[H_RT_OFF - H_SIZE];

	q2_put64(head, size);
	q2_put32(head + (H_CRYPT - H_SIZE), 0);
	q2_put32(head + (H_L1_SIZE - H_SIZE), l1_size);
	q2_put64(head + (H_L1_OFF - H_SIZE), l1_offset);
	return q2_header_poke_co(s, H_SIZE, head, sizeof(head));
}

int q2_l1_replace_co(struct qcow2 *s, uint64_t *l1, uint32_t n, uint64_t size, struct err *e)
{
	uint64_t clusters = MAX(q2_round_up(s, n * 8ull) >> s->cluster_bits, 1ull), off = 0;
	uint64_t old_off = s->l1_offset, old_len = q2_round_up(s, s->l1_size * 8ull);
	uint8_t *buf = calloc(clusters, s->cluster_size);
	uint8_t *dirty = calloc(1, (size_t)n + 1);
	int r = buf && dirty ? 0 : -ENOMEM;

	if (r >= 0)
		r = q2_alloc_co(s, &clusters, true, &off);
	for (uint32_t i = 0; r >= 0 && i < n; i++)
		q2_put64(buf + i * 8ull, l1[i]);
	if (r >= 0)
		r = q2_file_pwrite_co(s, off, buf, clusters << s->cluster_bits, META_NONE);
	free(buf);
	if (r >= 0)
		r = q2_commit_co(s, true);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	if (r >= 0)
		r = header_size_poke_co(s, size, n, off);
	if (r < 0) {
		free(l1);
		free(dirty);
		return err_set(e, -r, "%s: a new L1 table cannot be written: %s",
			       s->b->opts.filename, strerror(-r));
	}
	free(s->l1);
	free(s->l1_dirty);
	s->l1 = l1;
	s->l1_dirty = dirty;
	s->n_l1_dirty = 0;
	s->l1_size = n;
	s->l1_offset = off;
	s->b->len = size;
	if (old_len)
		q2_free_unused(s, old_off, old_len);
	return 0;
}

static int grow_co(struct qcow2 *s, uint64_t len, struct err *e)
{
	uint64_t old = s->b->len, *l1;
	uint32_t min;
	int r;

	if (q2_l1_min_size(s, len, &min) < 0)
		return err_set(e, EFBIG, "%s: %llu bytes are too much for clusters of %u bytes",
			       s->b->opts.filename, (unsigned long long)len, s->cluster_size);
	if (min > s->l1_size) {
		r = q2_commit_co(s, true);
		if (r < 0)
			return err_set(e, -r, "%s: %s", s->b->opts.filename, strerror(-r));
		l1 = calloc(min, sizeof(*l1));
		if (!l1)
			return err_set(e, ENOMEM, "%s: out of memory", s->b->opts.filename);
		memcpy(l1, s->l1, s->l1_size * sizeof(*l1));
		r = q2_l1_replace_co(s, l1, min, len, e);
		if (r < 0)
			return r;
		r = q2_overlap_rebuild(s);
	} else {
		r = header_size_poke_co(s, len, s->l1_size, s->l1_offset);
		if (r >= 0)
			s->b->len = len;
	}
	if (r >= 0 && s->b->backing && s->b->backing->len > old)
		r = block_co_zero(s->b, old, MIN(len, s->b->backing->len) - old, 0);
	return r < 0 ? err_set(e, -r, "%s: cannot be resized: %s", s->b->opts.filename,
			       strerror(-r))
		     : 0;
}

/* L2 tables that lie behind the new end as a whole: their L1 entries go first. */
static int drop_tables_co(struct qcow2 *s, uint32_t from)
{
	uint32_t n = s->l1_size > from ? s->l1_size - from : 0;
	uint64_t *gone;
	int r;

	if (!n)
		return 0;
	gone = malloc(n * sizeof(*gone));
	if (!gone)
		return -ENOMEM;
	memcpy(gone, s->l1 + from, n * sizeof(*gone));
	for (uint32_t i = from; i < s->l1_size; i++) {
		if (!s->l1[i])
			continue;
		q2_overlap_remove(s, s->l1[i] & ENTRY_OFFSET);
		s->l1[i] = 0;
		s->n_l1_dirty += !s->l1_dirty[i];
		s->l1_dirty[i] = 1;
	}
	r = q2_commit_co(s, true);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	if (r >= 0)
		r = q2_tree_co(s, gone, n, -1, false);
	free(gone);
	return r;
}

static int shrink_co(struct qcow2 *s, uint64_t len, struct err *e)
{
	uint64_t span = q2_l2_span(s), old = s->b->len, end;
	uint32_t keep;
	int r;

	if (q2_l1_min_size(s, len, &keep) < 0)
		return err_set(e, EFBIG, "%s: the disk is too large", s->b->opts.filename);
	r = q2_settle_co(s);
	if (r >= 0 && q2_in_cluster(s, len))
		r = block_co_zero(s->b, len, MIN(q2_round_up(s, len), old) - len, 0);
	end = MIN(keep * span, q2_round_up(s, old));
	if (r >= 0 && q2_round_up(s, len) < end)
		r = q2_drop_co(s, q2_round_up(s, len), end);
	if (r >= 0)
		r = q2_settle_co(s);
	if (r >= 0)
		r = drop_tables_co(s, keep);
	if (r >= 0)
		r = q2_settle_co(s);
	if (r >= 0)
		r = header_size_poke_co(s, len, s->l1_size, s->l1_offset);
	if (r < 0)
		return err_set(e, -r, "%s: cannot be shrunk: %s", s->b->opts.filename,
			       strerror(-r));
	s->b->len = len;
	return 0;
}

int q2_truncate_co(struct block *b, uint64_t len, struct err *e)
{
	struct qcow2 *s = q2_of(b);
	int r;

	if (len % 512)
		return err_set(e, EINVAL, "%s: the size must be a multiple of 512",
			       b->opts.filename);
	if (len > (uint64_t)INT64_MAX - s->cluster_size)
		return err_set(e, EFBIG, "%s: %llu bytes are too many", b->opts.filename,
			       (unsigned long long)len);
	if (s->n_snaps && s->version < 3)
		return err_set(e, ENOTSUP,
			       "%s: a version 2 image with snapshots cannot be resized, they have "
			       "no size of their own",
			       b->opts.filename);
	r = q2_before_write_co(s);
	if (r < 0)
		return err_set(e, -r, "%s: %s", b->opts.filename, strerror(-r));
	if (len == b->len)
		return 0;
	if (q2_external(s)) {
		r = block_co_truncate(b->data_file, len, e);
		if (r < 0)
			return r;
	}
	return len > b->len ? grow_co(s, len, e) : shrink_co(s, len, e);
}
