/* See vhost_ring.h. */
#include "backend/net/vhost_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	N = VHOST_RING_SIZE,
	RING_DESC = 16 * N,
	RING_AVAIL = 6 + 2 * N,
	RING_USED = 6 + 8 * N,
	RING_AVAIL_AT = RING_DESC,
	RING_USED_AT = RING_AVAIL_AT + (RING_AVAIL + 63) / 64 * 64, /* cache lines of their own */
	RING_BYTES = RING_USED_AT + (RING_USED + 63) / 64 * 64,
	RING_END = N, /* of the list of free descriptors */
};

int vhost_ring_init(struct vhost_ring *r)
{
	*r = (struct vhost_ring){ .kick = -1, .call = -1 };
	r->desc = aligned_alloc(64, RING_BYTES);
	r->cookie = malloc(N * sizeof(*r->cookie));
	if (!r->desc || !r->cookie)
		return -ENOMEM;
	r->avail = (uint16_t *)((uint8_t *)r->desc + RING_AVAIL_AT);
	r->used = (uint8_t *)r->desc + RING_USED_AT;
	r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->kick < 0 || r->call < 0)
		return -errno;
	vhost_ring_reset(r);
	return 0;
}

void vhost_ring_exit(struct vhost_ring *r)
{
	if (r->kick >= 0)
		close(r->kick);
	if (r->call >= 0)
		close(r->call);
	free(r->desc);
	free(r->cookie);
	*r = (struct vhost_ring){ .kick = -1, .call = -1 };
}

void vhost_ring_reset(struct vhost_ring *r)
{
	memset(r->desc, 0, RING_BYTES);
	memset(r->cookie, 0, N * sizeof(*r->cookie));
	for (unsigned i = 0; i < N; i++)
		r->desc[i].next = (uint16_t)(i + 1);
	r->free = 0;
	r->room = N;
	r->next = r->kicked = r->seen = r->end = 0;
	r->out = 0;
	r->broken = false;
}

/* One piece in the descriptor at the head of the free list, which moves on. */
static void ring_piece(struct vhost_ring *r, const struct iovec *v, uint16_t flags)
{
	struct vring_desc *d = &r->desc[r->free];

	d->addr = (uintptr_t)v->iov_base;
	d->len = (uint32_t)v->iov_len;
	d->flags = flags;
	r->free = d->next;
	r->room--;
}

bool vhost_ring_add(struct vhost_ring *r, const struct iovec *out, unsigned n_out,
		    const struct iovec *in, unsigned n_in, void *cookie)
{
	unsigned n = n_out + n_in;
	uint16_t head = r->free;

	if (r->broken || n > r->room)
		return false;
	for (unsigned i = 0; i < n; i++)
		ring_piece(r, i < n_out ? &out[i] : &in[i - n_out],
			   (uint16_t)((i < n_out ? 0 : VRING_DESC_F_WRITE) |
				      (i + 1 < n ? VRING_DESC_F_NEXT : 0)));
	r->cookie[head] = cookie;
	r->avail[2 + r->next % N] = head;
	r->next++;
	r->out++;
	__atomic_store_n(&r->avail[1], r->next, __ATOMIC_RELEASE);
	return true;
}

static uint16_t ring_get16(const struct vhost_ring *r, size_t off)
{
	return __atomic_load_n((const uint16_t *)(const void *)(r->used + off), __ATOMIC_ACQUIRE);
}

void vhost_ring_kick(struct vhost_ring *r, bool force)
{
	const uint64_t one = 1;
	ssize_t n = 0;
	uint16_t event;

	/* The index is visible before we read what the device wants. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = ring_get16(r, 4 + 8 * N);
	if (force || vring_need_event(event, r->next, r->kicked))
		n = write(r->kick, &one, sizeof(one));
	(void)n; /* full: it is signalled anyway */
	r->kicked = r->next;
}

/* Free the chain at head; its cookie. */
static void *ring_release(struct vhost_ring *r, uint16_t head)
{
	void *cookie = r->cookie[head];
	uint16_t last = head, n = 1;

	for (; r->desc[last].flags & VRING_DESC_F_NEXT; n++)
		last = r->desc[last].next;
	r->desc[last].next = r->free;
	r->free = head;
	r->room = (uint16_t)(r->room + n);
	r->cookie[head] = NULL;
	r->out--;
	return cookie;
}

bool vhost_ring_more(const struct vhost_ring *r)
{
	return r->seen != r->end;
}

void *vhost_ring_get(struct vhost_ring *r, uint32_t *len)
{
	struct vring_used_elem u;

	if (r->seen == r->end)
		r->end = ring_get16(r, 2);
	if (r->broken || r->seen == r->end)
		return NULL;
	memcpy(&u, r->used + 4 + sizeof(u) * (r->seen % N), sizeof(u));
	if ((uint16_t)(r->end - r->seen) > N || u.id >= N || !r->cookie[u.id]) {
		r->broken = true;
		return NULL;
	}
	r->seen++;
	*len = u.len;
	return ring_release(r, (uint16_t)u.id);
}

bool vhost_ring_arm(struct vhost_ring *r)
{
	if (r->broken)
		return false;
	__atomic_store_n(&r->avail[2 + N], r->seen, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is asked is seen before we look again */
	return ring_get16(r, 2) != r->seen;
}

void *vhost_ring_take_back(struct vhost_ring *r, uint16_t base, bool *begun)
{
	/* An old slot may name a head that is in use again: the newer one has been met before. */
	for (unsigned i = 0; r->out && i < N; i++) {
		uint16_t head = r->avail[2 + --r->next % N];

		if (r->cookie[head]) {
			*begun = (int16_t)(r->next - base) < 0;
			return ring_release(r, head);
		}
	}
	return NULL;
}
