/*
 * A virtio-net on virtio-mmio with a vhost whose kernel side the test plays (vhost_fake.h), and a
 * pair of sockets in place of each queue of a tap.
 */
#pragma once
#include "virtio_bed.h"

#include <fcntl.h>
#include <linux/virtio_net.h>

#include "backend/net/netdev.h"
#include "vhost_fake.h"
#include "virtio/net.h"

enum { RX, TX, CTRL, PAIRS = 2 };

struct host {
	struct netdev nd;
	unsigned n;         /* frames that went through us, not vhost */
	unsigned lent, hdr; /* queues; bytes of header */
	int sock[PAIRS][2]; /* in place of a tap: ours, the test's */
	struct fake f[PAIRS];
	struct vbed *vb;
	struct dev *d;
	struct gmem_listener l;
	gpa_t watch; /* how many bytes from here on were reported as written */
	unsigned watched;
};

static inline struct host *host_of(struct netdev *nd)
{
	return container_of(nd, struct host, nd);
}

static inline bool host_receive(struct netport *p, const struct netpkt *pkt)
{
	host_of(p->nd)->n++;
	return true;
}

static inline void host_room(struct netport *p)
{
}

static inline int host_lend(struct netdev *nd, unsigned queue, unsigned hdr_len, struct err *e)
{
	host_of(nd)->lent++;
	host_of(nd)->hdr = hdr_len;
	return host_of(nd)->sock[queue][0];
}

static inline void host_take_back(struct netdev *nd, unsigned queue)
{
	host_of(nd)->lent--;
}

static const struct netport_ops host_port = { .receive = host_receive, .room = host_room };
static const struct netdev_ops host_ops = { .name = "test",
					    .lend = host_lend,
					    .take_back = host_take_back };

static inline void host_written(struct gmem_listener *l, gpa_t gpa, uint64_t len)
{
	struct host *h = container_of(l, struct host, l);

	if (gpa != h->watch)
		return;
	h->watched = (unsigned)len;
	/* the driver does not know of it yet, by the ring or by an interrupt */
	if (!h->vb->q[RX].packed)
		assert_int_equal(h->vb->q[RX].used[1], h->vb->q[RX].seen);
	assert_false(h->vb->bed->level[VBED_IRQ]);
}

static inline int host_mem_add(struct gmem_listener *l, const struct gmem_block *b, struct err *e)
{
	return 0;
}

static inline void host_mem_del(struct gmem_listener *l, const struct gmem_block *b)
{
}

static inline void host_free(struct host *h)
{
	vbed_free(h->vb);
	for (unsigned i = 0; i < PAIRS; i++) {
		vhost_free(h->nd.vhost[i]);
		assert_int_equal(h->f[i].bad, 0);
		assert_false(h->f[i].ring[RX].runs || h->f[i].ring[TX].runs);
		close(h->sock[i][0]);
		close(h->sock[i][1]);
	}
	free(h->nd.id);
	free(h);
}

static inline struct host *host_new(unsigned pairs)
{
	struct host *h = calloc(1, sizeof(*h));
	struct err e = { 0 };

	h->vb = vbed_new();
	assert_int_equal(netdev_init(&h->nd, &host_ops, h->vb->bed->loop, "n0", pairs, &host_port,
				     NET_ALL, NULL),
			 0);
	for (unsigned i = 0; i < PAIRS; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, h->sock[i]), 0);
		if (i < pairs)
			h->nd.vhost[i] = vhost_new(fake_open(&h->f[i]), &h->f[i].sys, &e);
		if (i < pairs && !h->nd.vhost[i])
			fail_msg("%s", e.msg);
	}
	h->d = dev_new(&h->vb->bed->md, &virtio_net_class, "net0", &e);
	dev_set_backend(h->d, "netdev", &h->nd);
	h->l = (struct gmem_listener){ host_mem_add, host_mem_del, host_written, NULL };
	assert_int_equal(gmem_listen(h->vb->bed->md.mem, &h->l, NULL), 0);
	return h;
}

static inline struct host *host_plug(struct host *h)
{
	struct err e = { 0 };

	if (dev_realize(h->d, &e) < 0)
		fail_msg("%s", e.msg);
	vbed_plug(h->vb, h->d);
	return h;
}

static inline uint8_t byte_of(size_t i, size_t len)
{
	return (uint8_t)(i * 3 + len);
}

/* A frame of a pattern to the guest. */
static inline void net_in(struct host *h, unsigned pair, size_t len)
{
	uint8_t f[70000];

	for (size_t i = 0; i < len; i++)
		f[i] = byte_of(i, len);
	assert_int_equal(send(h->sock[pair][1], f, len, 0), len);
}

static inline void assert_frame(const uint8_t *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (f[i] != byte_of(i, len))
			fail_msg("byte %zu of %zu", i, len);
}

/* The next frame of the guest's must be of len bytes: wait for it. */
static inline void net_out(struct host *h, unsigned pair, size_t len)
{
	uint8_t f[70000];
	ssize_t got = -1;

	for (unsigned i = 0; i < 1000 && got < 0; i++) {
		vbed_run(h->vb);
		got = recv(h->sock[pair][1], f, sizeof(f), MSG_DONTWAIT);
		if (got < 0)
			usleep(1000);
	}
	assert_int_equal(got, len);
	assert_frame(f, len);
}

static inline gpa_t out_frame(struct host *h, size_t len)
{
	gpa_t a = vbed_alloc(h->vb, 12 + len);

	for (size_t i = 0; i < len; i++)
		h->vb->ram[a + h->hdr + i] = byte_of(i, len);
	return a;
}

static inline void exchange(struct host *h, unsigned rounds)
{
	struct vbed *vb = h->vb;
	uint32_t len;

	for (unsigned i = 0; i < rounds; i++) {
		size_t n = 60 + i % 1400;
		gpa_t a = out_frame(h, n), b = vbed_alloc(vb, 2000);
		int tx = vbed_add(vb, TX, 2, VOUT(a, h->hdr), VOUT(a + h->hdr, (uint32_t)n)), rx;

		vbed_kick(vb, TX);
		net_out(h, 0, n);
		assert_int_equal(vbed_wait(vb, TX, NULL), tx);
		rx = vbed_add(vb, RX, 2, VIN(b, 100), VIN(b + 100, 1900));
		(void)vbed_irq(vb);
		h->watch = b + 100;
		h->watched = 0;
		vbed_kick(vb, RX);
		net_in(h, 0, n);
		assert_int_equal(vbed_wait(vb, RX, &len), rx);
		assert_int_equal(len, h->hdr + n);
		assert_frame(vb->ram + b + h->hdr, n);
		/* whoever has code or a dirty bit of that page knows before the driver does */
		assert_int_equal(h->watched, len > 100 ? len - 100 : 0);
		if (h->hdr == 12) /* num_buffers */
			assert_int_equal(vb->ram[b + 10], 1);
		assert_true(vbed_irq(vb) & VIRTIO_ISR_QUEUE);
		vb->top = 0x400000;
	}
}

static inline void devs(struct vbed *vb, void (*fn)(struct machine_devs *))
{
	bus_lock(vb->bed->md.bus);
	fn(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
}

static inline struct virtq_state *ring_of(struct host *h, unsigned n)
{
	return &h->vb->vd->v->s->q[n];
}
