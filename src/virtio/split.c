/*
 * Split rings: descriptor table, available ring, used ring; indirect descriptors, event index.
 *
 * Every index and length here comes from the guest, which may change it at any time: each is read
 * once. A chain may visit at most as many descriptors as its table has, so a loop ends.
 * References: [VIRTIO1.2 2.7.5] descriptors, [VIRTIO1.2 2.7.5.3] indirect, [VIRTIO1.2 2.7.7]
 * used_event, [VIRTIO1.2 2.7.10] avail_event. Threads: private.h.
 */
#include <string.h>

#include "virtio/private.h"

/* Little-endian 16-bit values in guest memory, accessed whole. */
static uint16_t ring_get(const void *area, size_t off)
{
	return __atomic_load_n((const uint16_t *)((const uint8_t *)area + off), __ATOMIC_ACQUIRE);
}

static void ring_put(struct virtq *q, size_t off, uint16_t val)
{
	__atomic_store_n((uint16_t *)((uint8_t *)q->device + off), val, __ATOMIC_RELEASE);
	gmem_written(q->v->transport->md->mem, q->s->area[VIRTIO_DEVICE] + off, 2);
}

enum { RING_FLAGS = 0, RING_IDX = 2, RING_ENTRIES = 4 };

static bool split_empty(struct virtq *q)
{
	if (q->seen == q->s->avail)
		q->seen = ring_get(q->driver, RING_IDX);
	return q->seen == q->s->avail;
}

/* Follow a chain through a table of n descriptors from index i on. */
static bool split_walk(struct virtq *q, struct virtq_chain *c, const struct vring_desc *table,
		       unsigned n, unsigned i, bool indirect)
{
	struct virtio_dev *vd = q->v->vd;

	for (unsigned steps = 0;; steps++) {
		struct vring_desc d;

		if (i >= n || steps >= n) {
			virtio_broken(vd, i >= n ? "desc_index" : "desc_loop", i);
			return false;
		}
		memcpy(&d, &table[i], sizeof(d));
		/* The copy is all that counts from here on. */
		__asm__ volatile("" ::: "memory");
		if (d.flags & VRING_DESC_F_INDIRECT) {
			const struct vring_desc *t;

			/* others may come before it, none after it [VIRTIO1.2 2.7.5.3.2] */
			if (indirect || d.flags & VRING_DESC_F_NEXT || !d.len ||
			    d.len % sizeof(d) || d.len / sizeof(d) > VIRTQ_SEGS_MAX ||
			    !virtio_has(vd, VIRTIO_RING_F_INDIRECT_DESC)) {
				virtio_broken(vd, "indirect_desc", d.len);
				return false;
			}
			t = gmem_ptr(q->v->transport->md->mem, d.addr, d.len);
			if (!t) {
				virtio_broken(vd, "indirect_addr", d.addr);
				return false;
			}
			return split_walk(q, c, t, d.len / sizeof(d), 0, true);
		}
		if (!virtq_chain_add(q, c, d.addr, d.len, d.flags & VRING_DESC_F_WRITE))
			return false;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return true;
		i = d.next;
	}
}

static struct virtq_elem *split_pop(struct virtq *q)
{
	struct virtq_state *s = q->s;
	struct virtq_chain *c;
	struct virtq_elem *el;
	uint16_t head;

	q->dry = split_empty(q);
	if (q->dry)
		return NULL;
	if ((uint16_t)(q->seen - s->avail) > s->size) {
		virtio_broken(q->v->vd, "avail_index", q->seen);
		return NULL;
	}
	head = ring_get(q->driver, RING_ENTRIES + 2u * (s->avail & (s->size - 1)));
	c = virtq_chain_begin(q);
	if (!split_walk(q, c, q->desc, s->size, head, false))
		return NULL;
	el = virtq_chain_end(q, c);
	if (!el)
		return NULL;
	el->id = head;
	el->ndesc = 1;
	s->avail++;
	return el;
}

static void split_unpop(struct virtq *q, const struct virtq_elem *el)
{
	q->s->avail--;
}

static void split_fill(struct virtq *q, const struct virtq_elem *el, uint32_t written)
{
	uint16_t at = (q->s->used + q->filled) & (q->s->size - 1);
	struct vring_used_elem u = { el->id, written };

	memcpy((uint8_t *)q->device + RING_ENTRIES + sizeof(u) * at, &u, sizeof(u));
	q->filled++;
}

static void split_flush(struct virtq *q)
{
	struct virtq_state *s = q->s;

	/* The entries, in one piece: more than there are, but a wrap is rare. */
	gmem_written(q->v->transport->md->mem, s->area[VIRTIO_DEVICE],
		     RING_ENTRIES + sizeof(struct vring_used_elem) * s->size);
	s->used = (uint16_t)(s->used + q->filled);
	/* An index that wrapped right past the last signalled one says nothing about it. */
	if ((uint16_t)(s->used - s->signalled) < q->filled)
		s->signalled_valid = false;
	q->filled = 0;
	ring_put(q, RING_IDX, s->used);
}

static bool split_wants_interrupt(struct virtq *q)
{
	struct virtq_state *s = q->s;
	uint16_t old = s->signalled, event;
	bool valid = s->signalled_valid;

	/* The used index is visible before we read what the driver wants. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!virtio_has(q->v->vd, VIRTIO_RING_F_EVENT_IDX))
		return !(ring_get(q->driver, RING_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
	s->signalled = s->used;
	s->signalled_valid = true;
	event = ring_get(q->driver, RING_ENTRIES + 2u * s->size);
	return !valid || vring_need_event(event, s->used, old);
}

static void split_kicks(struct virtq *q, bool on)
{
	if (!virtio_has(q->v->vd, VIRTIO_RING_F_EVENT_IDX))
		ring_put(q, RING_FLAGS, on ? 0 : VRING_USED_F_NO_NOTIFY);
	else if (on)
		/*
		 * What the driver adds next, also when some is there that a device cannot use yet:
		 * a driver counts only what it adds beyond the index. off: the index stays behind,
		 * and is not reached for a long time.
		 */
		ring_put(q, RING_ENTRIES + (size_t)sizeof(struct vring_used_elem) * q->s->size,
			 ring_get(q->driver, RING_IDX));
}

const struct virtq_ring virtq_ring_split = {
	.pop = split_pop,
	.empty = split_empty,
	.unpop = split_unpop,
	.fill = split_fill,
	.flush = split_flush,
	.wants_interrupt = split_wants_interrupt,
	.kicks = split_kicks,
};
