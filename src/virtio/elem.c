/*
 * Elements: chains of buffers, translated to host memory; pooled for each queue.
 *
 * A chain is gathered in a scratch area of the queue, and copied to an element of fitting size.
 * Memory of one element: header | device's own | iovecs | guest addresses of them.
 * Threads: private.h.
 */
#include <stdlib.h>
#include <string.h>

#include "virtio/private.h"

enum { POOLS = 2 };
static const unsigned pool_segs[POOLS] = { 8, 72 }; /* larger ones are not kept */

struct virtq_full {
	struct virtq_elem el; /* first */
	unsigned pool;        /* POOLS: none */
	uint32_t epoch;
	gpa_t *gpa; /* of el.in[] */
};

struct virtq_pool {
	struct virtq_full *free[POOLS];
	unsigned frees[POOLS]; /* their numbers: at most as many as the ring has entries */
	size_t priv_off, iov_off;
	struct virtq_chain chain;
};

static size_t elem_align(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

int virtq_pool_new(struct virtq *q)
{
	q->pool = malloc(sizeof(*q->pool));
	if (!q->pool)
		return -1;
	for (unsigned i = 0; i < POOLS; i++) {
		q->pool->free[i] = NULL;
		q->pool->frees[i] = 0;
	}
	q->pool->priv_off = elem_align(sizeof(struct virtq_full));
	q->pool->iov_off = q->pool->priv_off + elem_align(q->v->vd->vc->elem_priv);
	return 0;
}

void virtq_pool_free(struct virtq *q)
{
	struct virtq_full *f;

	for (unsigned i = 0; q->pool && i < POOLS; i++)
		while ((f = q->pool->free[i])) {
			q->pool->free[i] = (struct virtq_full *)f->el.next;
			free(f);
		}
	free(q->pool);
	q->pool = NULL;
}

struct virtq_chain *virtq_chain_begin(struct virtq *q)
{
	struct virtq_chain *c = &q->pool->chain;

	c->out_n = c->in_n = c->n = 0;
	c->out_len = c->in_len = 0;
	return c;
}

bool virtq_chain_add(struct virtq *q, struct virtq_chain *c, gpa_t gpa, uint32_t len, bool in)
{
	struct gmem *mem = q->v->transport->md->mem;
	void *p;

	if (c->n == VIRTQ_SEGS_MAX) {
		virtio_broken(q->v->vd, "chain_length", c->n);
		return false;
	}
	/* What the device writes comes after all it reads [VIRTIO1.2 2.7.4.2]. */
	if (!len || (!in && c->in_n)) {
		virtio_broken(q->v->vd, len ? "chain_order" : "desc_empty", gpa);
		return false;
	}
	p = in ? gmem_ptr_w(mem, gpa, len) : (void *)gmem_ptr(mem, gpa, len);
	if (!p) {
		virtio_broken(q->v->vd, "desc_addr", gpa);
		return false;
	}
	c->iov[c->n] = (struct iovec){ p, len };
	c->gpa[c->n++] = gpa;
	if (in) {
		c->in_n++;
		c->in_len += len;
	} else {
		c->out_n++;
		c->out_len += len;
	}
	return true;
}

static struct virtq_full *virtq_elem_alloc(struct virtq *q, unsigned n)
{
	struct virtq_pool *pool = q->pool;
	unsigned i = 0, cap;
	struct virtq_full *f;

	while (i < POOLS && n > pool_segs[i])
		i++;
	cap = i < POOLS ? pool_segs[i] : n;
	if (i < POOLS && pool->free[i]) {
		f = pool->free[i];
		pool->free[i] = (struct virtq_full *)f->el.next;
		pool->frees[i]--;
	} else {
		f = malloc(pool->iov_off + cap * (sizeof(struct iovec) + sizeof(gpa_t)));
		if (!f)
			return NULL;
		f->pool = i;
		f->el.q = q;
		f->el.priv = (uint8_t *)f + pool->priv_off;
		f->el.out = (struct iovec *)((uint8_t *)f + pool->iov_off);
	}
	return f;
}

struct virtq_elem *virtq_chain_end(struct virtq *q, struct virtq_chain *c)
{
	struct virtio *v = q->v;
	struct virtq_full *f;
	struct iovec *iov;

	/* One is always allowed: else a large one would wait for ever. */
	f = v->in_flight && v->segs + c->n > VIRTIO_SEGS_OUT ? NULL : virtq_elem_alloc(q, c->n);
	if (!f) {
		v->starved = true;
		return NULL;
	}
	iov = (struct iovec *)f->el.out;
	memcpy(iov, c->iov, c->n * sizeof(*iov));
	f->el.in = iov + c->out_n;
	f->gpa = (gpa_t *)(iov + c->n);
	memcpy(f->gpa, c->gpa + c->out_n, c->in_n * sizeof(gpa_t));
	f->el.out_n = (uint16_t)c->out_n;
	f->el.in_n = (uint16_t)c->in_n;
	f->el.out_len = c->out_len;
	f->el.in_len = c->in_len;
	f->el.next = NULL;
	f->epoch = q->epoch;
	v->in_flight++;
	v->segs += c->n;
	return &f->el;
}

/* To the pool; those who wait for elements to come back go on. */
static void virtq_elem_free(struct virtq_full *f)
{
	struct virtq *q = f->el.q;
	struct virtio *v = q->v;

	v->segs -= f->el.out_n + (unsigned)f->el.in_n;
	if (f->pool < POOLS && q->pool->frees[f->pool] < virtio_queue_max(v, q->n)) {
		f->el.next = (struct virtq_elem *)q->pool->free[f->pool];
		q->pool->free[f->pool] = f;
		q->pool->frees[f->pool]++;
	} else {
		free(f);
	}
	if (v->starved && v->segs <= VIRTIO_SEGS_OUT / 2) {
		v->starved = false;
		for (unsigned i = 0; i < v->vd->queues; i++)
			virtio_queue_run(v->vd, i);
	}
	if (--v->in_flight <= v->vd->kept)
		virtio_idle(v);
}

static struct virtq_full *virtq_full_of(struct virtq_elem *el)
{
	return container_of(el, struct virtq_full, el);
}

bool virtq_elem_live(const struct virtq_elem *el)
{
	return el->q->desc && container_of(el, struct virtq_full, el)->epoch == el->q->epoch;
}

/* What a device may have written to. */
static void virtq_elem_written(const struct virtq_full *f, uint64_t len)
{
	for (unsigned i = 0; i < f->el.in_n && len; i++) {
		uint64_t n = MIN(len, f->el.in[i].iov_len);

		gmem_written(f->el.q->v->transport->md->mem, f->gpa[i], n);
		len -= n;
	}
}

void virtq_unpop(struct virtq_elem *el)
{
	struct virtq_full *f = virtq_full_of(el);

	if (virtq_elem_live(el))
		el->q->ring->unpop(el->q, el);
	el->q->popped -= el->q->popped > 0; /* no progress: the handler is not called again */
	el->q->dry = false;
	virtq_elem_free(f);
}

void virtq_drop(struct virtq_elem *el)
{
	struct virtq_full *f = virtq_full_of(el);

	virtq_elem_written(f, el->in_len); /* part of it may be, before the device gave it up */
	virtq_elem_free(f);
}

void virtq_fill(struct virtq_elem *el, uint64_t written)
{
	struct virtq_full *f = virtq_full_of(el);
	struct virtq *q = el->q;

	virtq_elem_written(f, MIN(written, el->in_len));
	if (virtq_elem_live(el) && !(q->v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET) &&
	    !q->v->resetting)
		q->ring->fill(q, el, (uint32_t)MIN(written, UINT32_MAX));
	virtq_elem_free(f);
}

gpa_t virtq_elem_in_gpa(const struct virtq_elem *el, unsigned i)
{
	return container_of(el, struct virtq_full, el)->gpa[i];
}

size_t virtq_elem_read(const struct virtq_elem *el, uint64_t off, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < el->out_n && done < len; i++) {
		size_t n = el->out[i].iov_len;

		if (off >= n) {
			off -= n;
			continue;
		}
		n = MIN(n - off, len - done);
		memcpy((uint8_t *)buf + done, (const uint8_t *)el->out[i].iov_base + off, n);
		done += n;
		off = 0;
	}
	return done;
}

size_t virtq_elem_write(const struct virtq_elem *el, uint64_t off, const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < el->in_n && done < len; i++) {
		size_t n = el->in[i].iov_len;

		if (off >= n) {
			off -= n;
			continue;
		}
		n = MIN(n - off, len - done);
		memcpy((uint8_t *)el->in[i].iov_base + off, (const uint8_t *)buf + done, n);
		done += n;
		off = 0;
	}
	return done;
}
