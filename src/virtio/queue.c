/*
 * Queues of a virtio device: their registers, where they lie in host memory, doorbells, and the
 * dispatch of a device's handler. What is in the rings is in split.c.
 * References: [VIRTIO1.2 2.6] virtqueues, [VIRTIO1.2 2.7] split, [VIRTIO1.2 2.7.2] legacy layout.
 * Threads: transport.h. Host resources: an eventfd for each queue that was ever used.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bug.h"
#include "virtio/private.h"

enum {
	VIRTIO_LEGACY_ALIGN = 4096,
	VIRTQ_RUN_MIN = 64, /* elements a handler may take before others have their turn */
};

/* ---- Where it lies ------------------------------------------------------------------------- */

/* Size in bytes and alignment of an area of a split ring. */
static void virtq_split_area(unsigned size, enum virtio_area a, uint64_t *len, unsigned *align)
{
	switch (a) {
	case VIRTIO_DESC:
		*len = 16ull * size;
		*align = 16;
		break;
	case VIRTIO_DRIVER:
		*len = 6 + 2ull * size;
		*align = 2;
		break;
	default:
		*len = 6 + 8ull * size;
		*align = 4;
		break;
	}
}

static void virtq_packed_area(unsigned size, enum virtio_area a, uint64_t *len, unsigned *align)
{
	*len = a == VIRTIO_DESC ? 16ull * size : 4;
	*align = a == VIRTIO_DESC ? 16 : 4;
}

static void virtq_unmap(struct virtq *q)
{
	q->desc = q->driver = q->device = NULL;
	q->epoch++;
}

int virtq_map(struct virtq *q)
{
	const struct virtq_state *s = q->s;
	struct gmem *mem = q->v->transport->md->mem;
	bool packed = virtq_packed(q);
	void *p[VIRTIO_AREAS];

	virtq_unmap(q);
	if (!s->size || s->size > virtio_queue_max(q->v, q->n) ||
	    (!packed && s->size & (s->size - 1)))
		return -EINVAL;
	for (int a = 0; a < VIRTIO_AREAS; a++) {
		unsigned align;
		uint64_t len;

		if (packed)
			virtq_packed_area(s->size, (enum virtio_area)a, &len, &align);
		else
			virtq_split_area(s->size, (enum virtio_area)a, &len, &align);
		p[a] = s->area[a] % align ? NULL : gmem_ptr_w(mem, s->area[a], len);
		if (!p[a])
			return -EINVAL;
	}
	if (packed && (s->avail >= s->size || s->used >= s->size))
		return -EINVAL; /* loaded */
	q->ring = packed ? &virtq_ring_packed : &virtq_ring_split;
	q->desc = p[VIRTIO_DESC];
	q->driver = p[VIRTIO_DRIVER];
	q->device = p[VIRTIO_DEVICE];
	q->seen = s->avail;
	q->filled = 0;
	return 0;
}

/* ---- Doorbells and dispatch ---------------------------------------------------------------- */

bool virtq_ready(const struct virtq *q)
{
	return q && q->desc && q->v->running && !(q->v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

unsigned virtq_index(const struct virtq *q)
{
	return q->n;
}

static void virtq_signal(struct virtq *q)
{
	const uint64_t one = 1;

	if (q->fd.fd >= 0 && write(q->fd.fd, &one, sizeof(one)) < 0)
		return; /* full: it rings anyway */
}

/* In the loop of the queue, with its lock: the doorbell rang. */
static void virtq_run(void *opaque, unsigned ready)
{
	struct virtq *q = opaque;
	struct virtio_dev *vd = q->v->vd;
	bool again = true;
	uint64_t count;

	if (read(q->fd.fd, &count, sizeof(count)) < 0)
		return;
	q->budget = MAX(2u * q->s->size, (unsigned)VIRTQ_RUN_MIN);
	while (again && virtq_ready(q)) {
		q->popped = 0;
		q->quiet = q->dry = false;
		virtq_kick_disable(q);
		vd->vc->queue(vd, q->n);
		/*
		 * What is there now came unannounced, after the handler had looked. But one that
		 * took nothing, although there was something, waits for something else.
		 */
		again = !q->quiet && virtq_kick_enable(q) && (q->popped || q->dry) && q->budget;
	}
	if (!q->budget && !virtq_empty(q))
		virtq_signal(q); /* others first */
	q->budget = UINT32_MAX;
}

/* Add or remove the doorbells of a queue. Without some it works, by exits. */
static void virtq_bells(struct virtq *q, bool assign)
{
	struct doorbell bell[VIRTIO_DOORBELLS_MAX];
	unsigned n;

	if (!assign) {
		while (q->bells)
			(void)dev_doorbell(q->v->transport, &q->bell[--q->bells], false, NULL);
		return;
	}
	if (q->bells || q->fd.fd < 0 || !q->v->ops->doorbells)
		return;
	n = q->v->ops->doorbells(q->v, q->n, bell);
	for (unsigned i = 0; i < n; i++) {
		bell[i].fd = q->fd.fd;
		if (dev_doorbell(q->v->transport, &bell[i], true, NULL) == 0)
			q->bell[q->bells++] = bell[i];
	}
}

static void virtq_start(struct virtq *q)
{
	struct loop *l = virtio_loop(q->v->vd);

	if (!q->desc)
		return;
	if (q->fd.fd < 0)
		q->fd.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->fd.fd < 0 || (!q->pool && virtq_pool_new(q) < 0)) {
		virtio_broken(q->v->vd, "queue_resources", q->n);
		return;
	}
	if (!q->watched) {
		q->watched = loop_fd_add(l, &q->fd, LOOP_IN, NULL) == 0;
		if (!q->watched)
			virtio_broken(q->v->vd, "queue_watch", q->n);
	} else {
		loop_fd_set(l, &q->fd, LOOP_IN);
	}
	virtq_bells(q, true);
	virtq_signal(q);
}

static void virtq_stop(struct virtq *q)
{
	virtq_bells(q, false);
	if (q->watched)
		loop_fd_del(virtio_loop(q->v->vd), &q->fd);
	q->watched = false;
}

void virtio_kick(struct virtio *v, unsigned n)
{
	if (v->vd && n < v->vd->queues)
		virtq_signal(&v->q[n]);
}

void virtio_queue_run(struct virtio_dev *vd, unsigned n)
{
	if (vd->v)
		virtio_kick(vd->v, n);
}

void virtio_doorbells(struct virtio *v, bool assign)
{
	for (unsigned i = 0; v->vd && i < v->vd->queues; i++)
		if (!assign || v->q[i].watched)
			virtq_bells(&v->q[i], assign);
}

/* ---- All queues ---------------------------------------------------------------------------- */

void virtio_queues_init(struct virtio *v)
{
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		v->q[i] = (struct virtq){ .v = v,
					  .s = &v->s->q[i],
					  .n = i,
					  .budget = UINT32_MAX,
					  .fd = { .fn = virtq_run, .opaque = &v->q[i], .fd = -1 } };
}

void virtio_queues_start(struct virtio *v)
{
	for (unsigned i = 0; i < v->vd->queues; i++)
		virtq_start(&v->q[i]);
}

void virtio_queues_stop(struct virtio *v)
{
	v->running = false;
	for (unsigned i = 0; i < v->vd->queues; i++)
		virtq_stop(&v->q[i]);
}

void virtio_queues_watch(struct virtio *v, bool on)
{
	for (unsigned i = 0; i < v->vd->queues; i++)
		if (v->q[i].watched)
			loop_fd_set(virtio_loop(v->vd), &v->q[i].fd, on ? LOOP_IN : 0);
}

void virtio_queues_unmap(struct virtio *v)
{
	for (unsigned i = 0; i < v->vd->queues; i++)
		virtq_unmap(&v->q[i]);
}

void virtio_queues_exit(struct virtio *v)
{
	for (unsigned i = 0; i < v->vd->queues; i++) {
		struct virtq *q = &v->q[i];

		virtq_unmap(q);
		if (q->fd.fd >= 0)
			close(q->fd.fd);
		q->fd.fd = -1;
		virtq_pool_free(q);
	}
}

int virtio_queues_loaded(struct virtio *v, struct err *e)
{
	virtio_queues_unmap(v);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		const struct virtq_state *s = &v->s->q[i];

		if (s->size > virtio_queue_max(v, i))
			return err_set(e, EINVAL, "queue %u has %u entries of %u", i, s->size,
				       virtio_queue_max(v, i));
		if (s->enabled && i >= v->vd->queues)
			return err_set(e, EINVAL, "there is no queue %u", i);
		if (s->enabled && virtq_map(&v->q[i]) < 0 &&
		    !(v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET))
			return err_set(e, EINVAL, "queue %u is not in memory", i);
	}
	return 0;
}

/* ---- Registers ----------------------------------------------------------------------------- */

struct virtq *virtio_queue(const struct virtio_dev *vd, unsigned n)
{
	return vd->v && n < vd->queues && vd->queue_size[n] ? &vd->v->q[n] : NULL;
}

uint16_t virtio_queue_max(const struct virtio *v, unsigned n)
{
	return v->vd && n < v->vd->queues ? v->vd->queue_size[n] : 0;
}

const struct virtq_state *virtio_queue_state(const struct virtio *v, unsigned n)
{
	return virtio_queue_max(v, n) ? &v->s->q[n] : NULL;
}

/* The state of queue n for a register that must not be written while the queue is in use. */
static struct virtq_state *virtio_queue_idle(struct virtio *v, unsigned n)
{
	struct virtq_state *s = virtio_queue_max(v, n) && !v->resetting ? &v->s->q[n] : NULL;

	if (s && s->enabled) {
		guest_error(&v->vd->dev, "queue_in_use", n);
		return NULL;
	}
	return s;
}

void virtio_queue_set_size(struct virtio *v, unsigned n, uint16_t size)
{
	struct virtq_state *s = virtio_queue_idle(v, n);

	if (!s)
		return;
	if (size && size <= virtio_queue_max(v, n))
		s->size = size;
	else
		guest_error(&v->vd->dev, "queue_size", n, size);
}

void virtio_queue_set_area(struct virtio *v, unsigned n, enum virtio_area a, unsigned half,
			   uint32_t val)
{
	struct virtq_state *s = virtio_queue_idle(v, n);

	if (!s)
		return;
	s->area[a] &= ~(0xffffffffull << 32 * half);
	s->area[a] |= (uint64_t)val << 32 * half;
}

void virtio_queue_set_vector(struct virtio *v, unsigned n, uint16_t vector)
{
	if (!virtio_queue_max(v, n) || v->resetting)
		return;
	biglock_lock(v->lock);
	v->s->q[n].vector = vector;
	biglock_unlock(v->lock);
}

void virtio_queue_enable(struct virtio *v, unsigned n)
{
	struct virtq_state *s;
	struct virtq *q;

	if (!virtio_queue_max(v, n) || v->resetting || v->s->q[n].enabled)
		return;
	q = &v->q[n];
	s = q->s;
	biglock_lock(v->lock);
	s->enabled = true;
	s->avail = s->used = s->signalled = 0;
	s->signalled_valid = s->kick_off = false;
	s->avail_wrap = s->used_wrap = virtq_packed(q);
	if (virtq_map(q) < 0)
		virtio_broken(v->vd, "queue_map", n);
	else if (v->running)
		virtq_start(q);
	biglock_unlock(v->lock);
}

void virtio_queue_disable(struct virtio *v, unsigned n)
{
	if (!virtio_queue_max(v, n) || v->resetting || !v->s->q[n].enabled)
		return;
	biglock_lock(v->lock);
	if (v->vd->vc->disabled)
		v->vd->vc->disabled(v->vd, n);
	virtq_stop(&v->q[n]);
	virtq_unmap(&v->q[n]);
	v->s->q[n].enabled = false;
	biglock_unlock(v->lock);
}

uint32_t virtio_queue_pfn(const struct virtio *v, unsigned n)
{
	const struct virtq_state *s = virtio_queue_state(v, n);

	return s && s->enabled ? (uint32_t)(s->area[VIRTIO_DESC] / VIRTIO_LEGACY_ALIGN) : 0;
}

void virtio_queue_set_pfn(struct virtio *v, unsigned n, uint32_t pfn)
{
	struct virtq_state *s;
	uint64_t at;

	if (!pfn) { /* what legacy drivers do at their end, most after a reset */
		virtio_queue_disable(v, n);
		return;
	}
	s = virtio_queue_idle(v, n);
	if (!s)
		return;
	at = (uint64_t)pfn * VIRTIO_LEGACY_ALIGN;
	s->size = virtio_queue_max(v, n); /* a legacy driver cannot choose */
	s->area[VIRTIO_DESC] = at;
	at += 16ull * s->size;
	s->area[VIRTIO_DRIVER] = at;
	at += 6 + 2ull * s->size;
	s->area[VIRTIO_DEVICE] = (at + VIRTIO_LEGACY_ALIGN - 1) & ~(VIRTIO_LEGACY_ALIGN - 1ull);
	virtio_queue_enable(v, n);
}

/* ---- What devices do with a queue ---------------------------------------------------------- */

struct virtq_elem *virtq_pop(struct virtq *q)
{
	struct virtq_elem *el;

	if (!virtq_ready(q) || !q->budget)
		return NULL;
	el = q->ring->pop(q);
	if (el) {
		q->budget -= q->budget != UINT32_MAX; /* outside of a handler's run it has none */
		q->popped++;
	}
	return el;
}

bool virtq_empty(struct virtq *q)
{
	return !virtq_ready(q) || q->ring->empty(q);
}

void virtq_flush(struct virtq *q)
{
	if (!q || !q->filled || !q->desc)
		return;
	q->ring->flush(q);
	q->flushed = true;
}

void virtq_push(struct virtq_elem *el, uint64_t written)
{
	struct virtq *q = el->q;

	virtq_fill(el, written);
	virtq_flush(q);
}

void virtq_notify(struct virtq *q)
{
	if (!q || !q->flushed)
		return;
	q->flushed = false;
	/* Also while the machine pauses, for what was under way. */
	if (q->desc && !(q->v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET) && !q->v->resetting &&
	    q->ring->wants_interrupt(q))
		virtio_interrupt(q->v, q->s->vector, VIRTIO_ISR_QUEUE);
}

void virtq_kick_disable(struct virtq *q)
{
	if (virtq_ready(q) && !q->s->kick_off) {
		q->s->kick_off = true;
		q->ring->kicks(q, false);
	}
}

void virtq_kick_unneeded(struct virtq *q)
{
	if (q)
		q->quiet = true;
}

bool virtq_kick_enable(struct virtq *q)
{
	if (!virtq_ready(q))
		return false;
	q->quiet = false;
	q->s->kick_off = false;
	q->ring->kicks(q, true);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* what was asked is seen before we look again */
	return !q->ring->empty(q);
}
