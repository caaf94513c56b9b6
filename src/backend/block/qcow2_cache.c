/*
 * qcow2: the cache of slices of L2 tables and of refcount blocks.
 *
 * Write-back: a dirty slice stays until a commit (qcow2_commit.c) writes it, since what may be
 * written when is the commit's business. Slices are 4 KiB (a whole table if that is smaller), so a
 * flush after one new cluster writes 4 KiB and not a whole table, and cold random reads do not pull
 * in 2 MiB each. Memory grows with use up to the limit; if half of it is dirty, a commit is due.
 * Reference: [QCOW2 "Host cluster management", "Cluster mapping"]
 * Threads: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "backend/block/qcow2_priv.h"

enum { CACHE_MIN_SLICES = 64 };

static unsigned cache_hash(const struct q2_cache *c, uint64_t off)
{
	return (unsigned)(off * 0x9e3779b97f4a7c15ull >> (64 - c->hash_bits));
}

static void lru_remove(struct q2_slice *sl)
{
	sl->lru_prev->lru_next = sl->lru_next;
	sl->lru_next->lru_prev = sl->lru_prev;
}

static void lru_first(struct q2_cache *c, struct q2_slice *sl)
{
	sl->lru_prev = &c->lru;
	sl->lru_next = c->lru.lru_next;
	sl->lru_next->lru_prev = c->lru.lru_next = sl;
}

static void hash_remove(struct q2_cache *c, struct q2_slice *sl)
{
	struct q2_slice **p = &c->hash[cache_hash(c, sl->off)];

	while (*p != sl)
		p = &(*p)->hash_next;
	*p = sl->hash_next;
}

static void hash_add(struct q2_cache *c, struct q2_slice *sl)
{
	struct q2_slice **p = &c->hash[cache_hash(c, sl->off)];

	sl->hash_next = *p;
	*p = sl;
}

static void slice_free(struct q2_cache *c, struct q2_slice *sl)
{
	lru_remove(sl);
	free(sl->data);
	free(sl);
	c->n--;
}

int q2_cache_init(struct q2_cache *c, struct qcow2 *s, uint64_t bytes)
{
	*c = (struct q2_cache){ .s = s };
	c->max = (unsigned)MAX(bytes / s->slice_size, (uint64_t)CACHE_MIN_SLICES);
	for (c->hash_bits = 6; c->hash_bits < 16 && (1u << c->hash_bits) < c->max;)
		c->hash_bits++;
	c->lru.lru_next = c->lru.lru_prev = &c->lru;
	c->hash = calloc((size_t)1 << c->hash_bits, sizeof(*c->hash));
	return c->hash ? 0 : -ENOMEM;
}

void q2_cache_free(struct q2_cache *c)
{
	if (!c->hash)
		return;
	while (c->lru.lru_next != &c->lru)
		slice_free(c, c->lru.lru_next);
	free(c->hash);
	c->hash = NULL;
}

static struct q2_slice *cache_find(struct q2_cache *c, uint64_t off)
{
	struct q2_slice *sl = c->hash[cache_hash(c, off)];

	while (sl && sl->off != off)
		sl = sl->hash_next;
	return sl;
}

/* An unhashed slice to load into; NULL: none is clean, or no memory. */
static struct q2_slice *cache_take(struct q2_cache *c)
{
	struct q2_slice *sl;

	if (c->n < c->max) {
		sl = calloc(1, sizeof(*sl));
		if (sl)
			sl->data = malloc(c->s->slice_size);
		if (sl && sl->data) {
			c->n++;
			lru_first(c, sl);
			return sl;
		}
		free(sl);
	}
	for (sl = c->lru.lru_prev; sl != &c->lru; sl = sl->lru_prev) {
		if (sl->dirty || sl->loading || sl->committing)
			continue;
		hash_remove(c, sl);
		lru_remove(sl);
		lru_first(c, sl);
		return sl;
	}
	return NULL;
}

int q2_cache_get_co(struct q2_cache *c, uint64_t off, struct q2_slice **out)
{
	struct q2_slice *sl;
	int r;

	for (;;) {
		sl = cache_find(c, off);
		if (sl && !sl->loading) {
			lru_remove(sl);
			lru_first(c, sl);
			*out = sl;
			return 0;
		}
		if (sl) {
			task_co_queue(&c->wait);
			continue;
		}
		sl = c->n_dirty > c->max / 2 ? NULL : cache_take(c);
		if (sl)
			break;
		if (!c->n)
			return -ENOMEM;
		if (!c->n_dirty) {
			/* all are being loaded or committed by others, which ends */
			task_co_queue(&c->wait);
			continue;
		}
		r = q2_commit_co(c->s, true);
		if (r < 0)
			return r;
		/* it may have come meanwhile */
	}
	sl->off = off;
	sl->loading = true;
	hash_add(c, sl);
	r = q2_file_pread_co(c->s->b->file, off, sl->data, c->s->slice_size);
	sl->loading = false;
	if (r < 0) {
		hash_remove(c, sl);
		slice_free(c, sl);
	}
	task_queue_wake_all(&c->wait);
	*out = r < 0 ? NULL : sl;
	return r;
}

void q2_cache_dirty(struct q2_cache *c, struct q2_slice *sl)
{
	if (!sl->dirty) {
		sl->dirty = true;
		c->n_dirty++;
	}
}

void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len)
{
	for (uint64_t at = off; at < off + len; at += c->s->slice_size) {
		struct q2_slice *sl = cache_find(c, at);

		/* Callers committed before, so nothing is under way. */
		if (!sl || sl->loading || sl->committing)
			continue;
		if (sl->dirty)
			c->n_dirty--;
		hash_remove(c, sl);
		slice_free(c, sl);
	}
}
