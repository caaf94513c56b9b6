/*
 * qcow2: what is written when.
 *
 * Theory of operation. Changes of L2 tables, L1 table and refcounts are made in memory, and a
 * *commit* brings them to the file. It copies all that is dirty at one moment, in which nothing
 * waits, so the copy is consistent, and new changes can go on meanwhile. Then
 *
 *   1. refcount blocks are written;
 *   2. the file (and the external data file) is flushed: with 1., all guest data that the copied
 *      tables point to is stable, since an entry is set only after its data was written, and so
 *      is what new L2 tables were filled with when they were made (zeroes, or the copied table);
 *   3. L2 tables and L1 entries are written. The caller's flush makes them stable.
 *
 * A crash at any time, with any part of the unflushed writes lost or torn at 512 bytes, leaves the
 * old or the new value of each 8-byte entry, and whatever it points to is there and has its
 * refcount. What may be wrong: refcounts too high, that is leaked clusters.
 *
 * The other direction, giving up clusters, is never in a hurry: a cluster that lost its reference
 * is put on a list (frees_new), goes on with the commit that wrote the table without it
 * (frees_written), becomes usable after the next flush (frees_ready), and only then its refcount
 * goes down (qcow2_alloc.c). So no cluster is reused while the stable tables could point to it.
 *
 * Not chosen: a write-back cache with dependencies between tables, as QEMU has. It writes single
 * tables earlier, but needs the same flushes, and each new kind of change needs its own edges.
 *
 * Lazy refcounts [QCOW2 "compatible_features" bit 0]: step 1 leaves refcounts out, the dirty bit
 * is set before the first change, and closing writes them and clears it.
 * The refcount table is changed by qcow2_refcount.c at once: that is rare.
 * Threads: the node's loop; one commit at a time.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { L1_UNIT = 64 }; /* L1 entries written at once: a sector */

struct commit_write {
	uint64_t off;
	uint32_t len;
	enum q2_meta type;
	struct q2_slice *sl;
	uint8_t *data; /* in commit->bytes */
};
struct commit {
	struct commit_write *early, *late;
	size_t n_early, n_late;
	uint8_t *bytes;
	uint8_t *l1_units; /* by unit of the L1 table: was dirty */
	bool frees, barrier;
};

static int write_order(const void *a, const void *b)
{
	const struct commit_write *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

static uint8_t *commit_take(struct q2_cache *c, struct q2_slice *sl, struct commit_write *w,
			    uint8_t *to, enum q2_meta type)
{
	uint32_t len = c->s->slice_size;

	*w = (struct commit_write){ sl->off, len, type, sl, to };
	memcpy(to, sl->data, len);
	sl->dirty = false;
	sl->committing = true;
	c->n_dirty--;
	return to + len;
}

/* Copy what is dirty. Nothing waits in here. */
static int commit_copy(struct qcow2 *s, struct commit *c, bool refcounts)
{
	size_t n_rb = refcounts ? s->rbc.n_dirty : 0, n_l2 = s->l2c.n_dirty;
	size_t units = (s->l1_size + L1_UNIT - 1) / L1_UNIT, n_units = 0;
	uint8_t *to;

	c->l1_units = calloc(1, units + 1);
	if (!c->l1_units)
		goto no_memory;
	for (uint32_t i = 0; s->n_l1_dirty && i < s->l1_size; i++) {
		if (!s->l1_dirty[i])
			continue;
		n_units += !c->l1_units[i / L1_UNIT];
		c->l1_units[i / L1_UNIT] = 1;
	}
	c->early = malloc((n_rb + 1) * sizeof(*c->early));
	c->late = malloc((n_l2 + n_units + 1) * sizeof(*c->late));
	c->bytes = to = malloc((n_rb + n_l2) * (size_t)s->slice_size + n_units * L1_UNIT * 8 + 1);
	if (!c->early || !c->late || !c->bytes)
		goto no_memory;

	/* what is dirty was used lately: the lists are not walked to their ends */
	for (struct q2_slice *sl = s->rbc.lru.lru_next; c->n_early < n_rb; sl = sl->lru_next) {
		if (sl->dirty)
			to = commit_take(&s->rbc, sl, &c->early[c->n_early++], to, META_REFBLOCK);
	}
	for (struct q2_slice *sl = s->l2c.lru.lru_next; c->n_late < n_l2; sl = sl->lru_next) {
		if (sl->dirty)
			to = commit_take(&s->l2c, sl, &c->late[c->n_late++], to, META_L2);
	}
	qsort(c->early, c->n_early, sizeof(*c->early), write_order);
	qsort(c->late, c->n_late, sizeof(*c->late), write_order);
	for (size_t u = 0; n_units && u < units; u++) {
		uint32_t first = (uint32_t)u * L1_UNIT, n = MIN(s->l1_size - first, L1_UNIT);

		if (!c->l1_units[u])
			continue;
		c->late[c->n_late++] = (struct commit_write){ s->l1_offset + first * 8ull, n * 8,
							      META_L1, NULL, to };
		for (uint32_t i = first; i < first + n; i++, to += 8) {
			q2_put64(to, s->l1[i]);
			s->l1_dirty[i] = 0;
		}
	}
	s->n_l1_dirty = 0;
	c->frees = s->frees_new.n;
	c->barrier = s->barrier || c->n_early || n_units;
	s->barrier = false;
	return 0;
no_memory:
	free(c->early);
	free(c->late);
	free(c->bytes);
	free(c->l1_units);
	return -ENOMEM;
}

/* Neighbouring slices go out in one write: their copies may lie anywhere, so by a vector. */
static int commit_write_all(struct qcow2 *s, struct commit_write *w, size_t n)
{
	struct iovec iov[64];
	int r = 0;

	for (size_t i = 0, k; i < n && r >= 0; i += k) {
		struct iovecs v = { .iov = iov };

		for (k = 0; k < ARRAY_SIZE(iov) && i + k < n && w[i + k].type == w[i].type &&
			    w[i + k].off == w[i].off + v.len;
		     k++) {
			iov[k] = (struct iovec){ w[i + k].data, w[i + k].len };
			v.len += w[i + k].len;
		}
		v.n = (unsigned)k;
		r = q2_overlap_check_co(s, w[i].off, v.len, w[i].type);
		if (r >= 0)
			r = q2_file_grow_co(s, w[i].off + v.len);
		if (r >= 0)
			r = block_co_write(s->b->file, w[i].off, &v, 0);
	}
	return r;
}

static int commit_flush(struct qcow2 *s)
{
	int r = 0;

	if (s->b->data_file) /* not while a dirty image is repaired at opening */
		r = block_co_flush(s->b->data_file);
	return r < 0 ? r : block_co_flush(s->b->file);
}

/* Move the first n of one list to the end of another. What does not fit is leaked. */
static void frees_move(struct q2_frees *to, struct q2_frees *from, unsigned n)
{
	if (to->n + n > to->room) {
		unsigned room = (to->n + n) * 2;
		struct q2_free *v = realloc(to->v, room * sizeof(*v));

		if (v) {
			to->v = v;
			to->room = room;
		}
	}
	if (n && to->n + n <= to->room) {
		memcpy(to->v + to->n, from->v, n * sizeof(*to->v));
		to->n += n;
	}
	from->n -= n;
	if (from->n)
		memmove(from->v, from->v + n, from->n * sizeof(*from->v));
}

/* The commit ended: its slices are as they are on disk, or dirty again. */
static void commit_end(struct qcow2 *s, struct commit *c, bool failed)
{
	for (size_t k = 0; k < 2; k++) {
		struct commit_write *w = k ? c->late : c->early;
		size_t n = k ? c->n_late : c->n_early;

		for (size_t i = 0; i < n; i++) {
			if (!w[i].sl)
				continue;
			w[i].sl->committing = false;
			if (failed)
				q2_cache_dirty(w[i].type == META_L2 ? &s->l2c : &s->rbc, w[i].sl);
		}
	}
	for (uint32_t i = 0; failed && i < s->l1_size; i++) {
		/* More than were dirty, which costs a write and no more. */
		if (c->l1_units[i / L1_UNIT] && !s->l1_dirty[i]) {
			s->l1_dirty[i] = 1;
			s->n_l1_dirty++;
		}
	}
	if (failed)
		s->barrier |= c->barrier;
	free(c->early);
	free(c->late);
	free(c->bytes);
	free(c->l1_units);
	task_queue_wake_all(&s->l2c.wait);
	task_queue_wake_all(&s->rbc.wait);
}

int q2_commit_co(struct qcow2 *s, bool all)
{
	struct commit c = { 0 };
	unsigned n_new, n_written;
	bool rb;
	int r;

	task_co_lock(&s->commit_lock);
	rb = s->rbc.n_dirty && (all || !s->lazy);
	if (!s->l2c.n_dirty && !rb && !s->n_l1_dirty && !s->frees_new.n && !s->frees_written.n) {
		task_unlock(&s->commit_lock);
		return 0;
	}
	n_written = s->frees_written.n;
	/* what joins them from now on waits for the next commit, also where it would be adjacent */
	n_new = s->frees_new.fixed = s->frees_new.n;
	r = commit_copy(s, &c, rb);
	if (r < 0) {
		s->frees_new.fixed = 0;
		task_unlock(&s->commit_lock);
		return r;
	}
	r = commit_write_all(s, c.early, c.n_early);
	if (r >= 0 && (c.barrier || n_written)) {
		r = commit_flush(s);
		if (r >= 0)
			frees_move(&s->frees_ready, &s->frees_written, n_written);
	}
	if (r >= 0)
		r = commit_write_all(s, c.late, c.n_late);
	if (r >= 0)
		frees_move(&s->frees_written, &s->frees_new, n_new);
	s->frees_new.fixed = 0;
	commit_end(s, &c, r < 0);
	task_unlock(&s->commit_lock);
	return r;
}

bool q2_unsettled(const struct qcow2 *s)
{
	return s->l2c.n_dirty || s->rbc.n_dirty || s->n_l1_dirty || s->frees_new.n ||
	       s->frees_written.n || s->frees_ready.n;
}

int q2_settle_co(struct qcow2 *s)
{
	/* One round writes, one frees what that round made free, one writes the refcounts. */
	for (unsigned i = 0; i < 4 && q2_unsettled(s); i++) {
		int r = q2_commit_co(s, true);

		if (r >= 0)
			r = commit_flush(s);
		if (r < 0)
			return r;
		task_co_lock(&s->alloc_lock);
		frees_move(&s->frees_ready, &s->frees_written, s->frees_written.n);
		r = q2_frees_apply_co(s);
		task_unlock(&s->alloc_lock);
		if (r < 0)
			return r;
	}
	return commit_flush(s);
}
