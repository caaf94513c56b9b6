/*
 * A vhost whose kernel works only when the input says so, without a thread: takes so many chains of
 * a ring, and says what it likes about their lengths. All calls succeed, and nothing is copied.
 */
#pragma once
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/net/netdev.h"
#include "backend/net/vhost.h"
#include "base/bits.h"
#include "base/bug.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

struct fuzz_vhost {
	uint16_t taken[VHOST_RINGS]; /* since the start */
	uint16_t used[VHOST_RINGS];
};

static inline int fuzz_vhost_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct fuzz_vhost *k = opaque;
	struct vhost_vring_state *s = arg;

	if (request == VHOST_GET_FEATURES)
		*(__u64 *)arg = BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
				BIT(VIRTIO_F_VERSION_1);
	if (request == VHOST_SET_VRING_BASE)
		k->taken[s->index] = k->used[s->index] = (uint16_t)s->num;
	if (request == VHOST_GET_VRING_BASE)
		s->num = k->taken[s->index];
	return 0;
}

static inline int fuzz_lend(struct netdev *nd, unsigned queue, unsigned hdr_len, struct err *e)
{
	return 0; /* nobody uses it */
}

static inline void fuzz_take_back(struct netdev *nd, unsigned queue)
{
}

static inline struct vhost *fuzz_vhost_new(struct fuzz_vhost *k)
{
	const struct vhost_sys sys = { fuzz_vhost_ioctl, k };
	struct vhost *v = vhost_new(eventfd(0, EFD_CLOEXEC), &sys, NULL);

	BUG_ON(!v);
	return v;
}

/* Up to n chains of a ring come back; len of the first. nonsense: one that was never given. */
static inline void fuzz_vhost_work(struct vhost *v, struct fuzz_vhost *k, unsigned ring, unsigned n,
				   uint32_t len, bool nonsense)
{
	struct vhost_ring *r = &v->ring[ring];
	const uint64_t one = 1;

	if (!v->running)
		return;
	for (; n && k->taken[ring] != r->avail[1]; n--) {
		uint16_t head = r->avail[2 + k->taken[ring]++ % VHOST_RING_SIZE];
		struct vring_used_elem u = { nonsense ? head + 1u : head, len };
		const struct vring_desc *d = &r->desc[head];

		/* the memory must be there, whatever the guest did since */
		for (;; d = &r->desc[d->next]) {
			if (d->flags & VRING_DESC_F_WRITE)
				*(volatile uint8_t *)(uintptr_t)d->addr = (uint8_t)len;
			BUG_ON(!d->len);
			(void)*(volatile uint8_t *)(uintptr_t)(d->addr + d->len - 1);
			if (!(d->flags & VRING_DESC_F_NEXT))
				break;
		}
		memcpy(r->used + 4 + sizeof(u) * (k->used[ring]++ % VHOST_RING_SIZE), &u,
		       sizeof(u));
		len = len * 5 + n;
	}
	memcpy(r->used + 2, &k->used[ring], 2);
	BUG_ON(write(r->call, &one, sizeof(one)) != sizeof(one));
}
