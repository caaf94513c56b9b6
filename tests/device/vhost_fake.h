/*
 * The kernel's side of vhost-net, for tests: takes the ioctls, and a thread for each ring works on
 * it as vhost does, with frames from and to a datagram socket in place of the tap. Split rings with
 * the event index; merges receive buffers when that is negotiated.
 *
 *   struct fake f;
 *   struct vhost *v = vhost_new(fake_open(&f), &f.sys, &e);
 *   f.fail = VHOST_SET_VRING_NUM;          // this one is refused from now on
 *   ... fake_check(&f): every address was in the memory table, nothing ran when it must not
 */
#pragma once
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/net/vhost.h"
#include "base/bits.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

struct fake;

struct fake_ring {
	struct fake *f;
	unsigned i, num;
	uint16_t avail, used; /* next of each */
	struct vring_desc *desc;
	uint16_t *a;
	uint8_t *u;
	int kick, call, err, tap, stop;
	pthread_t thread;
	bool runs;
};

struct fake {
	struct vhost_sys sys;
	unsigned long fail; /* request that is refused, with EIO */
	unsigned fail_after;
	uint64_t offers, features;
	bool nonsense; /* used entries name chains that are not there */
	_Atomic unsigned bad, frames;
	unsigned calls, starts, stops, resets;
	struct {
		struct vhost_memory m;
		struct vhost_memory_region r[8];
	} mem;
	struct fake_ring ring[2];
};

static inline uint8_t *fake_at(struct fake *f, uint64_t addr, uint32_t len)
{
	for (unsigned i = 0; i < f->mem.m.nregions; i++) {
		const struct vhost_memory_region *r = &f->mem.m.regions[i];

		if (addr >= r->guest_phys_addr && addr - r->guest_phys_addr < r->memory_size &&
		    len <= r->memory_size - (addr - r->guest_phys_addr))
			return (uint8_t *)(uintptr_t)(r->userspace_addr + addr -
						      r->guest_phys_addr);
	}
	f->bad++;
	return NULL;
}

static inline uint16_t fake_get(const void *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_SEQ_CST);
}

static inline bool fake_empty(struct fake_ring *r)
{
	return fake_get(&r->a[1]) == r->avail;
}

/* Ask to be kicked for the next chain; true: there is one already. */
static inline bool fake_arm(struct fake_ring *r)
{
	__atomic_store_n((uint16_t *)(void *)(r->u + 4 + 8 * (size_t)r->num), r->avail,
			 __ATOMIC_SEQ_CST);
	return !fake_empty(r);
}

/* Chains [0, n) with these lengths are used; one interrupt. */
static inline void fake_use(struct fake_ring *r, const uint16_t *head, const uint32_t *len,
			    unsigned n)
{
	uint16_t old = r->used;
	const uint64_t one = 1;

	for (unsigned i = 0; i < n; i++) {
		struct vring_used_elem e = { r->f->nonsense ? 0xfffff : head[i], len[i] };

		memcpy(r->u + 4 + sizeof(e) * (r->used++ % r->num), &e, sizeof(e));
	}
	__atomic_store_n((uint16_t *)(void *)(r->u + 2), r->used, __ATOMIC_SEQ_CST);
	if (vring_need_event(fake_get(&r->a[2 + r->num]), r->used, old) &&
	    write(r->call, &one, sizeof(one)) < 0)
		r->f->bad++;
}

/* The next chain as vectors; the number of them, 0: none. Only in or only out. */
static inline unsigned fake_chain(struct fake_ring *r, struct iovec *iov, unsigned max,
				  uint16_t *head)
{
	unsigned n = 0;
	uint16_t at;

	if (fake_empty(r))
		return 0;
	at = *head = r->a[2 + r->avail++ % r->num];
	for (;; at = r->desc[at].next) {
		const struct vring_desc *d = &r->desc[at];

		if (n == max || (d->flags & VRING_DESC_F_WRITE ? VHOST_TX : VHOST_RX) == (int)r->i)
			r->f->bad++;
		else
			iov[n++] = (struct iovec){ fake_at(r->f, d->addr, d->len), d->len };
		if (!(d->flags & VRING_DESC_F_NEXT))
			return n;
	}
}

static inline unsigned fake_hdr(const struct fake *f)
{
	return f->features & (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF)) ? 12 : 10;
}

/* One frame to the socket. False: there is none. */
static inline bool fake_tx(struct fake_ring *r)
{
	struct iovec iov[64];
	uint32_t len = 0;
	uint16_t head;
	unsigned n = fake_chain(r, iov, 64, &head), i = 0;
	size_t skip = fake_hdr(r->f);

	if (!n)
		return false;
	while (i < n && skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	if (i == n) {
		r->f->bad++; /* the real one stops here */
		return false;
	}
	iov[i].iov_base = (uint8_t *)iov[i].iov_base + skip;
	iov[i].iov_len -= skip;
	if (writev(r->tap, iov + i, (int)(n - i)) < 0)
		r->f->bad++;
	r->f->frames++;
	fake_use(r, &head, &len, 1);
	return true;
}

/* One frame from the socket. False: none, or no room. */
static inline bool fake_rx(struct fake_ring *r)
{
	bool merge = r->f->features & BIT(VIRTIO_NET_F_MRG_RXBUF);
	static const uint8_t hdr[12] = { 0 };
	uint8_t frame[12 + 65550];
	uint16_t head[64], first = r->avail, count;
	uint32_t len[64];
	uint8_t *number = NULL;
	unsigned n = 0;
	ssize_t got;
	size_t at = 0, total;

	if (fake_empty(r))
		return false;
	got = recv(r->tap, frame + fake_hdr(r->f), 65550, MSG_DONTWAIT | MSG_PEEK);
	if (got <= 0)
		return false;
	memcpy(frame, hdr, fake_hdr(r->f));
	total = fake_hdr(r->f) + (size_t)got;
	while (at < total && n < (merge ? 64 : 1)) {
		struct iovec iov[64];
		unsigned pieces = fake_chain(r, iov, 64, &head[n]);

		if (!pieces) { /* wait for more */
			r->avail = first;
			return false;
		}
		len[n] = 0;
		for (unsigned i = 0; i < pieces && at < total; i++) {
			size_t m = MIN(iov[i].iov_len, total - at);

			if (!at && merge)
				number = (uint8_t *)iov[i].iov_base + 10;
			memcpy(iov[i].iov_base, frame + at, m);
			at += m;
			len[n] += (uint32_t)m;
		}
		n++;
	}
	(void)!recv(r->tap, frame, 1, MSG_DONTWAIT);
	if (at < total) { /* dropped; the buffer is for the next one */
		r->avail = first;
		return true;
	}
	count = (uint16_t)n;
	if (number)
		memcpy(number, &count, 2);
	r->f->frames++;
	fake_use(r, head, len, n);
	return true;
}

static inline void *fake_thread(void *opaque)
{
	struct fake_ring *r = opaque;
	bool tx = r->i == VHOST_TX;

	for (;;) {
		struct pollfd p[3] = { { r->kick, POLLIN, 0 },
				       { r->stop, POLLIN, 0 },
				       { tx ? -1 : r->tap, POLLIN, 0 } };
		uint64_t count;

		do {
			while (tx ? fake_tx(r) : fake_rx(r))
				;
		} while (fake_arm(r) && tx);
		/* a frame that waits for buffers makes the socket readable all the time */
		p[2].fd = tx || fake_empty(r) ? -1 : p[2].fd;
		poll(p, 3, 10);
		if (p[1].revents)
			return NULL;
		if (p[0].revents && read(r->kick, &count, sizeof(count)) < 0)
			r->f->bad++;
	}
}

static inline void fake_stop(struct fake_ring *r)
{
	const uint64_t one = 1;

	if (!r->runs)
		return;
	r->runs = false;
	if (write(r->stop, &one, sizeof(one)) < 0)
		r->f->bad++;
	pthread_join(r->thread, NULL);
	close(r->stop);
	r->f->stops++;
}

static inline int fake_backend(struct fake *f, const struct vhost_vring_file *v)
{
	struct fake_ring *r = &f->ring[v->index];

	fake_stop(r);
	if (v->fd < 0)
		return 0;
	if (!r->desc || !f->mem.m.nregions || r->kick < 0)
		return -EFAULT;
	r->f = f;
	r->i = v->index;
	r->tap = v->fd;
	r->stop = eventfd(0, EFD_CLOEXEC);
	memcpy(&r->used, r->u + 2, 2);
	r->runs = true;
	f->starts++;
	return -pthread_create(&r->thread, NULL, fake_thread, r);
}

static inline int fake_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	const struct vhost_vring_state *s = arg;
	const struct vhost_vring_addr *a = arg;
	const struct vhost_vring_file *v = arg;
	const struct vhost_memory *m = arg;
	struct fake *f = opaque;

	f->calls++;
	if (request == f->fail && !f->fail_after--) {
		f->fail_after = 0;
		return -EIO;
	}
	switch (request) {
	case VHOST_SET_OWNER: return 0;
	case VHOST_RESET_OWNER:
		fake_stop(&f->ring[0]);
		fake_stop(&f->ring[1]);
		f->resets++;
		return 0;
	case VHOST_GET_FEATURES: *(__u64 *)arg = f->offers; return 0;
	case VHOST_SET_FEATURES: f->features = *(__u64 *)arg; return 0;
	case VHOST_SET_MEM_TABLE:
		if (m->padding || m->nregions > 8)
			return -EOPNOTSUPP;
		memcpy(&f->mem, m, sizeof(*m) + m->nregions * sizeof(m->regions[0]));
		return 0;
	case VHOST_SET_VRING_NUM: f->ring[s->index].num = s->num; return 0;
	case VHOST_SET_VRING_BASE: f->ring[s->index].avail = (uint16_t)s->num; return 0;
	case VHOST_GET_VRING_BASE:
		f->bad += f->ring[s->index].runs;
		((struct vhost_vring_state *)arg)->num = f->ring[s->index].avail;
		return 0;
	case VHOST_SET_VRING_ADDR:
		f->ring[a->index].desc = (struct vring_desc *)(uintptr_t)a->desc_user_addr;
		f->ring[a->index].a = (uint16_t *)(uintptr_t)a->avail_user_addr;
		f->ring[a->index].u = (uint8_t *)(uintptr_t)a->used_user_addr;
		return 0;
	case VHOST_SET_VRING_KICK: f->ring[v->index].kick = v->fd; return 0;
	case VHOST_SET_VRING_CALL: f->ring[v->index].call = v->fd; return 0;
	case VHOST_SET_VRING_ERR: f->ring[v->index].err = v->fd; return 0;
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT: return 0;
	case VHOST_NET_SET_BACKEND: return fake_backend(f, v);
	default: return -ENOTTY;
	}
}

/* A descriptor that stands for /dev/vhost-net. */
static inline int fake_open(struct fake *f)
{
	*f = (struct fake){ .sys = { fake_ioctl, f } };
	f->offers = BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
		    BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(26);
	return eventfd(0, EFD_CLOEXEC);
}
