/*
 * Inside of the virtio core: shared by core.c, queue.c, elem.c and the rings. Threads: all with
 * v->lock, unless they say otherwise.
 */
#pragma once
#include "virtio/transport.h"

/* core.c */
uint64_t virtio_offered_all(const struct virtio *v); /* both interfaces' */
void virtio_interrupt(struct virtio *v, uint16_t vector, uint8_t isr);
void virtio_drain(struct virtio *v); /* and the device lock */
void virtio_idle(struct virtio *v);  /* in_flight has become 0 */

/* queue.c */
void virtio_queues_init(struct virtio *v);
void virtio_queues_exit(struct virtio *v);
/* Doorbells of the enabled queues are added and watched, and their handlers run once. */
void virtio_queues_start(struct virtio *v);
void virtio_queues_stop(struct virtio *v);
void virtio_queues_watch(struct virtio *v, bool on);
void virtio_queues_unmap(struct virtio *v);
int virtio_queues_loaded(struct virtio *v, struct err *e);
/* Look up the areas of guest memory. -EINVAL: size or address is bad. */
int virtq_map(struct virtq *q);

static inline bool virtq_packed(const struct virtq *q)
{
	return q->v->s->features & BIT(VIRTIO_F_RING_PACKED);
}

/*
 * elem.c. Elements of a device may have so many buffers together: a guest must not be able to make
 * us use memory without bound. Room for 500 of the largest requests of Linux's drivers.
 */
enum { VIRTIO_SEGS_OUT = 65536 };

/* Elements of a chain that is being parsed. */
struct virtq_chain {
	unsigned out_n, in_n, n;
	uint64_t out_len, in_len;
	bool bad;
	struct iovec iov[VIRTQ_SEGS_MAX];
	gpa_t gpa[VIRTQ_SEGS_MAX];
};

int virtq_pool_new(struct virtq *q); /* -ENOMEM */
void virtq_pool_free(struct virtq *q);
/* The scratch chain of the queue, emptied. */
struct virtq_chain *virtq_chain_begin(struct virtq *q);
/* Add a buffer. False: nonsense, reported by virtio_broken. */
bool virtq_chain_add(struct virtq *q, struct virtq_chain *c, gpa_t gpa, uint32_t len, bool in);
/*
 * An element of the chain; NULL: no room in the limit, or in memory: the chain stays in the ring,
 * and the queue runs again when elements have come back.
 */
struct virtq_elem *virtq_chain_end(struct virtq *q, struct virtq_chain *c);

/*
 * The two kinds of rings. pop: the state moves on only when it gives an element. fill: what is
 * filled (q->filled counts) becomes visible together at the flush. kicks: ask for notifications
 * from the next element the driver adds, or for none.
 */
struct virtq_ring {
	struct virtq_elem *(*pop)(struct virtq *q);
	bool (*empty)(struct virtq *q);
	void (*unpop)(struct virtq *q, const struct virtq_elem *el);
	void (*fill)(struct virtq *q, const struct virtq_elem *el, uint32_t written);
	void (*flush)(struct virtq *q);
	bool (*wants_interrupt)(struct virtq *q);
	void (*kicks)(struct virtq *q, bool on);
};
extern const struct virtq_ring virtq_ring_split, virtq_ring_packed;
