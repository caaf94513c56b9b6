/*
 * Packed rings: one ring of descriptors that the driver makes available and the device overwrites
 * as used, in place; two bits of each, compared with wrap counters, say which it is.
 *
 * A used descriptor of a batch becomes visible when the first one's flags are written, which is
 * left to the flush. virtq_state: avail, used are slots; signalled counts the slots used since the
 * driver was last asked whether it wants an interrupt.
 * As in split.c every value of the guest is read once.
 * References: [VIRTIO1.2 2.8] packed virtqueues, [VIRTIO1.2 2.8.10] event suppression.
 * Threads: private.h.
 */
#include <string.h>

#include "virtio/private.h"

enum {
	PACKED_AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL,
	PACKED_USED = 1 << VRING_PACKED_DESC_F_USED,
	PACKED_EVENT_OFF = 0, /* in the event structures */
	PACKED_EVENT_FLAGS = 2,
	PACKED_WRAP = 1 << VRING_PACKED_EVENT_F_WRAP_CTR,
};

static struct vring_packed_desc *packed_desc(struct virtq *q, unsigned slot)
{
	return (struct vring_packed_desc *)q->desc + slot;
}

static uint16_t packed_get(const void *area, size_t off)
{
	return __atomic_load_n((const uint16_t *)((const uint8_t *)area + off), __ATOMIC_ACQUIRE);
}

static uint16_t packed_flags(struct virtq *q, unsigned slot)
{
	return __atomic_load_n(&packed_desc(q, slot)->flags, __ATOMIC_ACQUIRE);
}

static void packed_event_put(struct virtq *q, size_t off, uint16_t val)
{
	__atomic_store_n((uint16_t *)((uint8_t *)q->device + off), val, __ATOMIC_RELEASE);
	gmem_written(q->v->transport->md->mem, q->s->area[VIRTIO_DEVICE] + off, 2);
}

static bool packed_empty(struct virtq *q)
{
	uint16_t flags = packed_flags(q, q->s->avail);
	bool avail = flags & PACKED_AVAIL, used = flags & PACKED_USED;

	return avail != q->s->avail_wrap || used == q->s->avail_wrap;
}

/* All descriptors of an indirect table, in order; only WRITE counts of their flags. */
static bool packed_indirect(struct virtq *q, struct virtq_chain *c,
			    const struct vring_packed_desc *d)
{
	const struct vring_packed_desc *t;

	if (d->flags & VRING_DESC_F_NEXT || !d->len || d->len % sizeof(*d) ||
	    d->len / sizeof(*d) > VIRTQ_SEGS_MAX ||
	    !virtio_has(q->v->vd, VIRTIO_RING_F_INDIRECT_DESC)) {
		virtio_broken(q->v->vd, "indirect_desc", d->len);
		return false;
	}
	t = gmem_ptr(q->v->transport->md->mem, d->addr, d->len);
	if (!t) {
		virtio_broken(q->v->vd, "indirect_addr", d->addr);
		return false;
	}
	for (unsigned i = 0; i < d->len / sizeof(*d); i++) {
		struct vring_packed_desc e;

		memcpy(&e, &t[i], sizeof(e));
		__asm__ volatile("" ::: "memory"); /* the copy is all that counts */
		if (e.flags & VRING_DESC_F_INDIRECT) {
			virtio_broken(q->v->vd, "indirect_nested", i);
			return false;
		}
		if (!virtq_chain_add(q, c, e.addr, e.len, e.flags & VRING_DESC_F_WRITE))
			return false;
	}
	return true;
}

/* The chain at avail. The number of slots it takes, 0: nonsense. *id: the driver's name for it. */
static unsigned packed_walk(struct virtq *q, struct virtq_chain *c, uint16_t *id)
{
	unsigned slot = q->s->avail, n = 0;
	struct vring_packed_desc d;

	do {
		if (n == q->s->size) {
			virtio_broken(q->v->vd, "desc_loop", slot);
			return 0;
		}
		memcpy(&d, packed_desc(q, slot), sizeof(d));
		__asm__ volatile("" ::: "memory"); /* the copy is all that counts */
		n++;
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (n > 1) {
				virtio_broken(q->v->vd, "indirect_desc", n);
				return 0;
			}
			*id = d.id;
			return packed_indirect(q, c, &d) ? n : 0;
		}
		if (!virtq_chain_add(q, c, d.addr, d.len, d.flags & VRING_DESC_F_WRITE))
			return 0;
		slot = slot + 1 == q->s->size ? 0 : slot + 1;
	} while (d.flags & VRING_DESC_F_NEXT);
	*id = d.id; /* the last one has it */
	return n;
}

static struct virtq_elem *packed_pop(struct virtq *q)
{
	struct virtq_state *s = q->s;
	struct virtq_chain *c;
	struct virtq_elem *el;
	uint16_t id = 0;
	unsigned n;

	q->dry = packed_empty(q);
	if (q->dry)
		return NULL;
	c = virtq_chain_begin(q);
	n = packed_walk(q, c, &id);
	if (!n)
		return NULL;
	el = virtq_chain_end(q, c);
	if (!el)
		return NULL;
	el->id = id;
	el->ndesc = (uint16_t)n;
	s->avail = (uint16_t)(s->avail + n);
	if (s->avail >= s->size) {
		s->avail = (uint16_t)(s->avail - s->size);
		s->avail_wrap = !s->avail_wrap;
	}
	return el;
}

static void packed_unpop(struct virtq *q, const struct virtq_elem *el)
{
	struct virtq_state *s = q->s;

	if (s->avail < el->ndesc) {
		s->avail = (uint16_t)(s->avail + s->size);
		s->avail_wrap = !s->avail_wrap;
	}
	s->avail = (uint16_t)(s->avail - el->ndesc);
}

static void packed_fill(struct virtq *q, const struct virtq_elem *el, uint32_t written)
{
	struct vring_packed_desc *d = packed_desc(q, q->s->used);
	struct virtq_state *s = q->s;
	uint16_t flags = s->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;

	if (written)
		flags |= VRING_DESC_F_WRITE; /* len is valid */
	d->id = el->id;
	d->len = written;
	if (!q->filled) {
		q->first = s->used;
		q->first_flags = flags;
	} else {
		__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
	}
	q->filled++;
	s->signalled = (uint16_t)MIN(s->signalled + el->ndesc, (unsigned)s->size);
	s->used = (uint16_t)(s->used + el->ndesc);
	if (s->used >= s->size) {
		s->used = (uint16_t)(s->used - s->size);
		s->used_wrap = !s->used_wrap;
	}
}

static void packed_flush(struct virtq *q)
{
	__atomic_store_n(&packed_desc(q, q->first)->flags, q->first_flags, __ATOMIC_RELEASE);
	q->filled = 0;
	gmem_written(q->v->transport->md->mem, q->s->area[VIRTIO_DESC],
		     sizeof(struct vring_packed_desc) * q->s->size);
}

static bool packed_wants_interrupt(struct virtq *q)
{
	struct virtq_state *s = q->s;
	uint16_t since = s->signalled, flags, off;
	bool valid = s->signalled_valid;

	s->signalled = 0;
	s->signalled_valid = true;
	/* What was used is visible before we read what the driver wants. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	flags = packed_get(q->driver, PACKED_EVENT_FLAGS);
	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !valid ||
	    !virtio_has(q->v->vd, VIRTIO_RING_F_EVENT_IDX))
		return true;
	off = packed_get(q->driver, PACKED_EVENT_OFF);
	/* Of the round before: below all slots of this one. */
	if (!(off & PACKED_WRAP) != !s->used_wrap)
		off = (uint16_t)((off & ~PACKED_WRAP) - s->size);
	else
		off &= (uint16_t)~PACKED_WRAP;
	return vring_need_event(off, s->used, (uint16_t)(s->used - since));
}

static void packed_kicks(struct virtq *q, bool on)
{
	if (!on) {
		packed_event_put(q, PACKED_EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_DISABLE);
		return;
	}
	/* With something there that cannot be taken yet, the slot of the next one is not known. */
	if (!virtio_has(q->v->vd, VIRTIO_RING_F_EVENT_IDX) || !packed_empty(q)) {
		packed_event_put(q, PACKED_EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_ENABLE);
		return;
	}
	packed_event_put(q, PACKED_EVENT_OFF,
			 (uint16_t)(q->s->avail | (q->s->avail_wrap ? PACKED_WRAP : 0)));
	packed_event_put(q, PACKED_EVENT_FLAGS, VRING_PACKED_EVENT_FLAG_DESC);
}

const struct virtq_ring virtq_ring_packed = {
	.pop = packed_pop,
	.empty = packed_empty,
	.unpop = packed_unpop,
	.fill = packed_fill,
	.flush = packed_flush,
	.wants_interrupt = packed_wants_interrupt,
	.kicks = packed_kicks,
};
