/*
 * qcow2: giving out host clusters and taking them back.
 *
 * First fit from a hint. Taking back is deferred, see qcow2_commit.c: the lists there end here,
 * where counts go down and the host's space is given back if the user wants that. A cluster that
 * still has I/O in flight (a read or write in place that began before it was freed) waits longer.
 * Threads: the node's loop. Locks: alloc_lock, taken here unless said otherwise.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { FREES_MAX = 8192 }; /* ranges that wait to be freed before a commit is made for them */

static void frees_add(struct q2_frees *f, uint64_t off, uint64_t len, bool discard)
{
	struct q2_free *last = f->n > f->fixed ? &f->v[f->n - 1] : NULL;

	if (last && last->off + last->len == off && last->discard == discard) {
		last->len += len;
		return;
	}
	if (f->n == f->room) {
		unsigned room = f->room ? f->room * 2 : 64;
		struct q2_free *v = realloc(f->v, room * sizeof(*v));

		if (!v)
			return; /* leaked, as a crash now would */
		f->v = v;
		f->room = room;
	}
	f->v[f->n++] = (struct q2_free){ off, len, discard };
}

void q2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, bool discard)
{
	frees_add(&s->frees_new, off, len, discard);
}

void q2_free_unused(struct qcow2 *s, uint64_t off, uint64_t len)
{
	frees_add(&s->frees_ready, off, len, false);
}

static bool io_in(const struct qcow2 *s, uint64_t off, uint64_t len)
{
	for (const struct q2_io *io = s->ios.next; io != &s->ios; io = io->next) {
		if (io->start < off + len && off < io->end)
			return true;
	}
	return false;
}

/*
 * Of [c, last], how many clusters from c on have a count of one, which ends now; 0: the first has
 * more. alloc_lock is held.
 */
static int free_run_co(struct qcow2 *s, uint64_t c, uint64_t last, uint64_t *run, uint64_t *count)
{
	*run = 0;
	for (; c + *run <= last; ++*run) {
		uint64_t n;
		int r = q2_ref_get_co(s, c + *run, &n);

		if (r < 0)
			return r;
		if (!*run)
			*count = n;
		if (!n)
			return q2_corrupt_co(s, "cluster 0x%llx is freed, but its refcount is 0",
					     (unsigned long long)(c + *run) << s->cluster_bits);
		if (n != 1)
			break;
	}
	return 0;
}

/* One range, alloc_lock held. */
static int free_one_co(struct qcow2 *s, const struct q2_free *f)
{
	uint64_t last = (f->off + f->len - 1) >> s->cluster_bits, run, count = 0;

	for (uint64_t c = f->off >> s->cluster_bits; c <= last;) {
		int r = free_run_co(s, c, last, &run, &count);

		if (r >= 0 && run && f->discard && s->b->opts.discard_unmap) {
			/* Nobody gets them before their counts are 0. The host may refuse. */
			r = block_co_discard(s->b->file, c << s->cluster_bits,
					     run << s->cluster_bits);
			r = 0;
		}
		if (r >= 0 && !run)
			r = q2_ref_set_co(s, c, count - 1);
		for (uint64_t i = 0; r >= 0 && i < run; i++)
			r = q2_ref_set_co(s, c + i, 0);
		if (r < 0)
			return r;
		c += run ? run : 1;
	}
	return 0;
}

int q2_frees_apply_co(struct qcow2 *s)
{
	struct q2_frees todo = s->frees_ready;
	int r = 0;

	if (likely(!todo.n))
		return 0;
	memset(&s->frees_ready, 0, sizeof(s->frees_ready));
	for (unsigned i = 0; i < todo.n; i++) {
		struct q2_free *f = &todo.v[i];

		if (io_in(s, f->off, f->len))
			frees_add(&s->frees_ready, f->off, f->len, f->discard);
		else if (r >= 0)
			r = free_one_co(s, f);
	}
	free(todo.v);
	return r;
}

/* Is the cluster free, and may it be: a count of 0 for the header would be a lie. */
static int alloc_try_co(struct qcow2 *s, uint64_t c, bool *is_free)
{
	uint64_t n;
	int r = q2_ref_get_co(s, c, &n);

	*is_free = r >= 0 && !n;
	return r;
}

/* The first run of free clusters from `from` on; at least min long, at most max. */
static int alloc_find_co(struct qcow2 *s, uint64_t from, uint64_t min, uint64_t max,
			 uint64_t *first, uint64_t *n)
{
	uint64_t block_mask = (1ull << s->rb_bits) - 1;

	*n = 0;
	for (uint64_t c = from;; c++) {
		bool is_free;
		int r;

		if (c >> (56 - s->cluster_bits))
			return -EFBIG;
		/* a block or table that does not exist yet will lie in the first cluster */
		if ((c & block_mask) == 0 &&
		    (c >> s->rb_bits >= s->rt_entries || !s->rt[c >> s->rb_bits])) {
			if (*n >= min)
				return 0;
			r = q2_ref_set_co(s, c, 1);
			if (r < 0)
				return r;
			*n = 0; /* the run is broken by it */
			continue;
		}
		r = alloc_try_co(s, c, &is_free);
		if (r < 0)
			return r;
		if (is_free) {
			if (!*n)
				*first = c;
			if (++*n == max)
				return 0;
		} else if (*n >= min) {
			return 0;
		} else {
			*n = 0;
		}
	}
}

/*
 * A run too long to be found between refcount blocks, which lie among the clusters they count:
 * where no blocks are yet, first the blocks for it, then the run.
 */
static int alloc_run_co(struct qcow2 *s, uint64_t n, uint64_t *off)
{
	uint64_t per = 1ull << s->rb_bits, k = (n + per - 1) / per, first, i = s->rt_entries;
	uint8_t *buf;
	int r = 0;

	while ((k << s->rb_bits) < n + k)
		k++;
	for (;;) {
		for (i = s->rt_entries; i && !s->rt[i - 1]; i--)
			;
		if (i + k <= s->rt_entries)
			break;
		/* a larger table takes the first entries behind the old one's end */
		r = q2_ref_set_co(s, (i + k + 1) << s->rb_bits, 1);
		if (r < 0)
			return r;
	}
	first = i << s->rb_bits;
	if ((first + n + k) >> (56 - s->cluster_bits))
		return -EFBIG;
	buf = calloc(k, s->cluster_size);
	if (!buf)
		return -ENOMEM;
	for (uint64_t c = 0; c < n + k; c++)
		q2_refbits_set(buf, s->refcount_order, c, 1);
	r = q2_file_pwrite_co(s, first << s->cluster_bits, buf, k << s->cluster_bits, META_NONE);
	free(buf);
	if (r >= 0)
		r = block_co_flush(s->b->file);
	for (uint64_t j = 0; r >= 0 && j < k; j++)
		r = q2_refblock_adopt_co(s, i + j, (first + j) << s->cluster_bits);
	*off = (first + k) << s->cluster_bits;
	return r;
}

static int alloc_locked_co(struct qcow2 *s, uint64_t *n, bool exact, uint64_t *off)
{
	uint64_t first = 0, got, hint;
	int r = q2_frees_apply_co(s);

	if (r < 0)
		return r;
	if (exact && *n > 1ull << s->rb_bits >> 1) {
		r = alloc_run_co(s, *n, off);
		s->file_end = MAX(s->file_end, r < 0 ? 0 : *off + (*n << s->cluster_bits));
		return r;
	}
	hint = s->free_hint;
	r = alloc_find_co(s, hint, exact ? *n : 1, *n, &first, &got);
	if (r < 0)
		return r;
	r = q2_overlap_check_co(s, first << s->cluster_bits, got << s->cluster_bits, META_NONE);
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < got; i++) {
		r = q2_ref_set_co(s, first + i, 1);
		if (r < 0)
			return r; /* the first ones are leaked */
	}
	/* a longer run may have been looked for, so there may be free ones before it */
	if (!exact || *n == 1 || first == hint)
		s->free_hint = first + got;
	*n = got;
	*off = first << s->cluster_bits;
	if (*off + (got << s->cluster_bits) > s->file_end)
		s->file_end = *off + (got << s->cluster_bits);
	return 0;
}

int q2_frees_bound_co(struct qcow2 *s)
{
	int r = 0;

	if (unlikely(s->frees_new.n + s->frees_written.n > FREES_MAX))
		r = q2_commit_co(s, true);
	if (unlikely(r >= 0 && s->frees_ready.n > FREES_MAX)) {
		task_co_lock(&s->alloc_lock);
		r = q2_frees_apply_co(s);
		task_unlock(&s->alloc_lock);
	}
	return r;
}

int q2_alloc_co(struct qcow2 *s, uint64_t *n, bool exact, uint64_t *off)
{
	int r = q2_frees_bound_co(s);

	if (r < 0)
		return r;
	task_co_lock(&s->alloc_lock);
	r = alloc_locked_co(s, n, exact, off);
	task_unlock(&s->alloc_lock);
	return r;
}

/*
 * Compressed clusters are packed: the next goes behind the last one, also over a cluster's end if
 * the next cluster is free. Each host cluster counts the compressed ones in it.
 */
int q2_alloc_bytes_co(struct qcow2 *s, uint32_t len, uint64_t *off)
{
	uint64_t n = 1, next = 0, at = 0, room = 0, refs = 0;
	int r = 0;

	task_co_lock(&s->alloc_lock);
	/* first, or allocating changed the count, or freed the cluster, that is looked at here */
	r = q2_frees_apply_co(s);
	if (r >= 0 && s->comp_off) {
		at = s->comp_off;
		room = s->cluster_size - q2_in_cluster(s, at);
		r = q2_ref_get_co(s, at >> s->cluster_bits, &refs);
		if (refs == 0 || refs >= s->refcount_max)
			room = 0;
	}
	if (r >= 0 && len > room) {
		r = alloc_locked_co(s, &n, true, &next);
		if (r >= 0 && !(room && at + room == next)) {
			at = next;
			room = 0;
		}
	}
	if (r >= 0 && room) /* a part of it lies in a cluster that was begun before */
		r = q2_ref_set_co(s, at >> s->cluster_bits, refs + 1);
	if (r >= 0) {
		*off = at;
		s->comp_off = q2_in_cluster(s, at + len) ? at + len : 0;
	}
	task_unlock(&s->alloc_lock);
	return r;
}
