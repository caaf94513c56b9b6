/*
 * virtio-net with vhost, whose kernel side the test plays (vhost_fake.h): frames in both
 * directions, what the listeners of memory hear, pause, save and load, reset, links, queues that
 * are disabled, several pairs, and each ioctl that fails.
 */
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

static struct host *host_of(struct netdev *nd)
{
	return container_of(nd, struct host, nd);
}

static bool host_receive(struct netport *p, const struct netpkt *pkt)
{
	host_of(p->nd)->n++;
	return true;
}

static void host_room(struct netport *p)
{
}

static int host_lend(struct netdev *nd, unsigned queue, unsigned hdr_len, struct err *e)
{
	host_of(nd)->lent++;
	host_of(nd)->hdr = hdr_len;
	return host_of(nd)->sock[queue][0];
}

static void host_take_back(struct netdev *nd, unsigned queue)
{
	host_of(nd)->lent--;
}

static const struct netport_ops host_port = { .receive = host_receive, .room = host_room };
static const struct netdev_ops host_ops = { .name = "test",
					    .lend = host_lend,
					    .take_back = host_take_back };

static void host_written(struct gmem_listener *l, gpa_t gpa, uint64_t len)
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

static int host_mem_add(struct gmem_listener *l, const struct gmem_block *b, struct err *e)
{
	return 0;
}

static void host_mem_del(struct gmem_listener *l, const struct gmem_block *b)
{
}

static void host_free(struct host *h)
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

static struct host *host_new(unsigned pairs)
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

static struct host *host_plug(struct host *h)
{
	struct err e = { 0 };

	if (dev_realize(h->d, &e) < 0)
		fail_msg("%s", e.msg);
	vbed_plug(h->vb, h->d);
	return h;
}

static uint8_t byte_of(size_t i, size_t len)
{
	return (uint8_t)(i * 3 + len);
}

/* A frame of a pattern to the guest. */
static void net_in(struct host *h, unsigned pair, size_t len)
{
	uint8_t f[70000];

	for (size_t i = 0; i < len; i++)
		f[i] = byte_of(i, len);
	assert_int_equal(send(h->sock[pair][1], f, len, 0), len);
}

static void assert_frame(const uint8_t *f, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (f[i] != byte_of(i, len))
			fail_msg("byte %zu of %zu", i, len);
}

/* The next frame of the guest's must be of len bytes: wait for it. */
static void net_out(struct host *h, unsigned pair, size_t len)
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

static gpa_t out_frame(struct host *h, size_t len)
{
	gpa_t a = vbed_alloc(h->vb, 12 + len);

	for (size_t i = 0; i < len; i++)
		h->vb->ram[a + h->hdr + i] = byte_of(i, len);
	return a;
}

static void exchange(struct host *h, unsigned rounds)
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

static void vhost_frames(void **state)
{
	const uint64_t minus[] = { 0, BIT(VIRTIO_NET_F_MRG_RXBUF),
				   BIT(VIRTIO_RING_F_EVENT_IDX) |
					   BIT(VIRTIO_RING_F_INDIRECT_DESC) };

	for (unsigned packed = 0; packed < 2; packed++)
		for (unsigned i = 0; i < ARRAY_SIZE(minus); i++) {
			struct host *h = host_new(1);

			if (packed)
				assert_int_equal(dev_set_prop(h->d, "packed", "on", NULL), 0);
			host_plug(h);
			vbed_start(h->vb, VBED_ALL & ~minus[i], 3);
			assert_int_equal(h->lent, 1);
			assert_int_equal(h->hdr, 12);
			h->vb->indirect = i == 0;
			exchange(h, 200);
			assert_int_equal(h->n, 0);
			assert_int_equal(h->f[0].frames, 400);
			host_free(h);
		}
}

/* A frame in several buffers is seen with all of them; one that fits nowhere is dropped. */
static void vhost_merge(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t b = vbed_alloc(vb, 32768);
	uint32_t len, sum = 0;

	vbed_start(vb, VBED_ALL, 3);
	for (unsigned i = 0; i < 16; i++)
		vbed_add(vb, RX, 1, VIN(b + 1024 * i, 1024));
	vbed_kick(vb, RX);
	net_in(h, 0, 9000);
	for (unsigned i = 0; i < 9; i++) {
		assert_true(i ? vbed_used(vb, RX, &len) >= 0 : vbed_wait(vb, RX, &len) >= 0);
		sum += len;
	}
	assert_int_equal(sum, 9012);
	assert_int_equal(vb->ram[b + 10], 9);
	assert_frame(vb->ram + b + 12, 9000);
	host_free(h);
	h = host_plug(host_new(1));
	vbed_start(h->vb, VBED_ALL & ~BIT(VIRTIO_NET_F_MRG_RXBUF), 3);
	b = vbed_alloc(h->vb, 2000);
	vbed_add(h->vb, RX, 1, VIN(b, 1000));
	vbed_kick(h->vb, RX);
	net_in(h, 0, 3000);
	net_in(h, 0, 500);
	assert_int_equal(vbed_wait(h->vb, RX, &len), 0);
	assert_int_equal(len, 512);
	host_free(h);
}

/* What the kernel would stop at never gets there. */
static void vhost_shapes(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t a;

	vbed_start(vb, VBED_ALL, 3);
	a = out_frame(h, 100);
	vbed_add(vb, TX, 2, VOUT(a, 112), VIN(a, 8));
	vbed_add(vb, TX, 1, VIN(a, 100));
	vbed_add(vb, TX, 1, VOUT(a, 12));
	vbed_add(vb, TX, 1, VOUT(a, 5));
	vbed_add(vb, TX, 1, VOUT(0x100000, 70000));
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_add(vb, RX, 2, VOUT(a, 8), VIN(a, 2000));
	vbed_add(vb, RX, 1, VOUT(a, 2000));
	vbed_kick(vb, RX);
	vbed_kick(vb, TX);
	net_out(h, 0, 100);
	for (unsigned i = 0; i < 6; i++)
		assert_true(vbed_wait(vb, TX, NULL) >= 0);
	assert_true(vbed_used(vb, RX, NULL) >= 0 && vbed_used(vb, RX, NULL) >= 0);
	assert_int_equal(h->f[0].frames, 1);
	assert_false(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* a broken ring stops the kernel, too */
	vb->q[TX].avail[1] += 500;
	vbed_kick(vb, TX);
	vbed_assert_broken(vb);
	assert_int_equal(h->lent, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	vbed_start(vb, VBED_ALL, 3);
	assert_int_equal(h->lent, 1);
	exchange(h, 3);
	host_free(h);
}

static void devs(struct vbed *vb, void (*fn)(struct machine_devs *))
{
	bus_lock(vb->bed->md.bus);
	fn(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
}

static struct virtq_state *ring_of(struct host *h, unsigned n)
{
	return &h->vb->vd->v->s->q[n];
}

/* A pause puts back what is not used, in its order; also what load finds is right without vhost. */
static void vhost_pause(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct host *h = host_new(1);
		struct vbed *vb = h->vb;
		uint8_t buf[8192];
		gpa_t b;
		size_t n;

		if (packed)
			assert_int_equal(dev_set_prop(h->d, "packed", "on", NULL), 0);
		host_plug(h);
		b = vbed_alloc(vb, 32768);
		vbed_start(vb, VBED_ALL, 3);
		for (unsigned i = 0; i < 10; i++)
			assert_int_equal(vbed_add(vb, RX, 1, VIN(b + 2048 * i, 2048)), i);
		vbed_kick(vb, RX);
		assert_int_equal(virtio_in_flight(vb->vd), 10);
		for (int i = 0; i < 3; i++) {
			net_in(h, 0, 100);
			assert_int_equal(vbed_wait(vb, RX, NULL), i);
		}
		devs(vb, machine_devs_pause);
		assert_int_equal(h->lent, 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		assert_int_equal(ring_of(h, RX)->avail, 3);
		assert_int_equal(ring_of(h, RX)->used, 3);
		net_in(h, 0, 200); /* waits in the tap */
		n = dev_save(vb->transport, buf, sizeof(buf));
		assert_true(n > 0);
		assert_int_equal(dev_load(vb->transport, buf, n, NULL), 0);
		devs(vb, machine_devs_resume);
		assert_int_equal(h->lent, 1);
		for (int i = 3; i < 10; i++) {
			if (i > 3)
				net_in(h, 0, 200);
			assert_int_equal(vbed_wait(vb, RX, NULL), i);
		}
		host_free(h);
	}
}

/* Used buffers that we had not looked at yet are not lost in a pause, and not given twice. */
static void vhost_pause_races(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	unsigned sent = 0, got = 0;

	vbed_start(vb, VBED_ALL, 3);
	for (unsigned round = 0; round < 60; round++) {
		gpa_t b = vbed_alloc(vb, 2048);
		int head;

		for (unsigned i = 0; i < 8; i++)
			vbed_add(vb, RX, 1, VIN(b, 2048));
		vbed_w(vb, 0x50, RX);
		for (unsigned i = 0; i < 8; i++, sent++)
			net_in(h, 0, 100 + i);
		if (round % 2)
			vbed_run(vb);
		usleep(round * 7 % 100);
		devs(vb, machine_devs_pause);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		devs(vb, machine_devs_resume);
		while (got < sent) {
			uint32_t len;

			head = vbed_wait(vb, RX, &len);
			assert_int_equal(head, got % VBED_QSIZE);
			assert_int_equal(len, 112 + got++ % 8);
		}
		vb->top = 0x400000;
	}
	host_free(h);
}

static void vhost_reset(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;

	for (unsigned round = 0; round < 40; round++) {
		gpa_t a;

		vbed_start(vb, round % 3 ? VBED_ALL : BIT(VIRTIO_F_VERSION_1), 2 + round % 2);
		a = out_frame(h, 100);
		for (unsigned i = 0; i < round % 9; i++) {
			vbed_add(vb, RX, 1, VIN(a + 4096, 2048));
			vbed_add(vb, TX, 1, VOUT(a, 112));
		}
		vbed_w(vb, 0x50, TX);
		vbed_w(vb, 0x50, RX);
		net_in(h, 0, 100);
		if (round % 2)
			vbed_run(vb);
		if (round % 5 == 0)
			usleep(500);
		vbed_w(vb, 0x70, 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		assert_int_equal(h->lent, 0);
		vb->top = 0x400000;
	}
	assert_int_equal(h->f[0].starts, 80);
	assert_int_equal(h->f[0].stops, 80);
	host_free(h);
}

/* Without a link, and after the driver has taken a queue away, frames are ours. */
static void vhost_links(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t a, b = vbed_alloc(vb, 2048);

	vbed_start(vb, VBED_ALL, 3);
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	virtio_net_set_link(h->d, false);
	assert_int_equal(h->lent, 0);
	a = out_frame(h, 100);
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_true(vbed_wait(vb, TX, NULL) >= 0); /* swallowed */
	assert_int_equal(h->f[0].frames, 0);
	virtio_net_set_link(h->d, true);
	net_in(h, 0, 100);
	assert_int_equal(vbed_wait(vb, RX, NULL), 0);
	bus_lock(vb->bed->md.bus);
	netdev_set_link(&h->nd, false);
	assert_int_equal(h->lent, 0);
	netdev_set_link(&h->nd, true);
	bus_unlock(vb->bed->md.bus);
	exchange(h, 3);
	/* the receive queue goes, on MMIO; buffers that are out are the driver's again at once */
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	vbed_w(vb, 0x30, RX);
	vbed_w(vb, 0x44, 0);
	assert_int_equal(h->lent, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	h->n = 0;
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_int_equal(h->n, 1);
	assert_true(vbed_used(vb, TX, NULL) >= 0);
	vbed_queue(vb, RX, VBED_QSIZE);
	vbed_kick(vb, RX);
	assert_int_equal(h->lent, 1);
	exchange(h, 3);
	host_free(h);
}

static void vhost_pairs(void **state)
{
	struct host *h = host_plug(host_new(2));
	struct vbed *vb = h->vb;
	gpa_t a, b = vbed_alloc(vb, 2048), c = vbed_alloc(vb, 64);

	vbed_start(vb, VBED_ALL, 5);
	assert_int_equal(h->lent, 1);
	vb->ram[c] = VIRTIO_NET_CTRL_MQ;
	vb->ram[c + 2] = 2;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_int_equal(vb->ram[c + 8], 0);
	assert_int_equal(h->lent, 2);
	a = out_frame(h, 300);
	vbed_add(vb, 3, 1, VOUT(a, 312));
	vbed_kick(vb, 3);
	net_out(h, 1, 300);
	vbed_add(vb, 2, 1, VIN(b, 2048));
	vbed_kick(vb, 2);
	net_in(h, 1, 400);
	assert_true(vbed_wait(vb, 2, NULL) >= 0);
	assert_frame(vb->ram + b + 12, 400);
	vbed_add(vb, 2, 1, VIN(b, 2048));
	vbed_kick(vb, 2);
	vb->ram[c + 2] = 1;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_int_equal(h->lent, 1);
	assert_int_equal(h->f[1].stops, 2);
	host_free(h);
}

static void assert_falls_back(struct host *h)
{
	struct vbed *vb = h->vb;
	gpa_t a = out_frame(h, 100);

	assert_int_equal(h->lent, 0);
	h->n = 0;
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_true(vbed_wait(vb, TX, NULL) >= 0);
	assert_true(h->n > 0);
	assert_int_equal(h->f[0].frames, 0);
	assert_false(h->f[0].ring[RX].runs || h->f[0].ring[TX].runs);
}

/* Each call that fails: a line at the start, or frames go through us from then on. */
static void vhost_errors(void **state)
{
	static const unsigned long early[] = { VHOST_SET_OWNER, VHOST_GET_FEATURES };
	static const unsigned long late[] = { VHOST_SET_FEATURES,   VHOST_SET_MEM_TABLE,
					      VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE,
					      VHOST_SET_VRING_ADDR, VHOST_SET_VRING_KICK,
					      VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
					      VHOST_NET_SET_BACKEND };
	struct host *h;
	struct fake f;
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(early); i++) {
		int fd = fake_open(&f);

		e = (struct err){ 0 };
		f.fail = early[i];
		assert_null(vhost_new(fd, &f.sys, &e));
		assert_non_null(strstr(e.msg, "vhost-net: "));
		assert_int_equal(fcntl(fd, F_GETFD), -1);
	}
	fake_open(&f);
	f.offers = 0;
	assert_null(vhost_new(eventfd(0, 0), &f.sys, &e));
	assert_non_null(strstr(e.msg, "lacks"));
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(late); i++) {
		h = host_plug(host_new(1));
		h->f[0].fail = late[i / 2];
		h->f[0].fail_after = i % 2; /* the first, or the second ring */
		vbed_start(h->vb, VBED_ALL, 3);
		h->hdr = 12;
		if (!h->lent)
			assert_falls_back(h);
		else
			assert_int_equal(i % 2, 1); /* called once only */
		h->f[0].fail = 0;
		host_free(h);
	}
	/* it cannot be stopped: then its owner is reset, and what is out comes back */
	for (unsigned i = 0; i < 2; i++) {
		gpa_t b;

		h = host_plug(host_new(1));
		vbed_start(h->vb, VBED_ALL, 3);
		b = vbed_alloc(h->vb, 2048);
		vbed_add(h->vb, RX, 1, VIN(b, 2048));
		vbed_kick(h->vb, RX);
		h->f[0].fail = i ? VHOST_GET_VRING_BASE : VHOST_NET_SET_BACKEND;
		devs(h->vb, machine_devs_pause);
		assert_int_equal(virtio_in_flight(h->vb->vd), 0);
		assert_int_equal(ring_of(h, RX)->avail, 0);
		devs(h->vb, machine_devs_resume);
		assert_int_equal(h->f[0].resets, 1);
		assert_falls_back(h);
		host_free(h);
	}
}

/* Used entries that make no sense. */
static void vhost_nonsense(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t b = vbed_alloc(vb, 2048);

	vbed_start(vb, VBED_ALL, 3);
	h->f[0].nonsense = true;
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	net_in(h, 0, 100);
	for (unsigned i = 0; i < 1000 && h->lent; i++) {
		vbed_run(vb);
		usleep(1000);
	}
	h->f[0].frames = 0;
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	assert_falls_back(h);
	host_free(h);
}

/* The ring by itself: it goes round, and it gets full. */
static void ring_round(void **state)
{
	uint8_t byte[4];
	struct iovec v[2] = { { byte, 1 }, { byte, 2 } };
	struct vhost_ring r;
	uint32_t len;
	bool begun;

	assert_int_equal(vhost_ring_init(&r), 0);
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = r.free, idx = (uint16_t)(i + 1);
		struct vring_used_elem u = { head, i };

		assert_true(vhost_ring_add(&r, v, i % 2, v, 1, v));
		assert_int_equal(r.avail[2 + i % VHOST_RING_SIZE], head);
		memcpy(r.used + 4 + 8 * (i % VHOST_RING_SIZE), &u, 8);
		assert_null(i % 3 ? NULL : vhost_ring_get(&r, &len));
		memcpy(r.used + 2, &idx, 2);
		assert_ptr_equal(vhost_ring_get(&r, &len), v);
		assert_int_equal(len, i);
		assert_null(vhost_ring_get(&r, &len));
		assert_false(vhost_ring_arm(&r));
		assert_int_equal(r.room, VHOST_RING_SIZE);
	}
	vhost_ring_reset(&r);
	for (uintptr_t i = 1; i <= VHOST_RING_SIZE / 2; i++)
		assert_true(vhost_ring_add(&r, v, 1, v, 1, (void *)i));
	assert_false(vhost_ring_add(&r, v, 1, NULL, 0, v));
	/* the newest first; those before number 100 had been begun */
	for (uintptr_t i = VHOST_RING_SIZE / 2; i; i--) {
		assert_ptr_equal(vhost_ring_take_back(&r, 100, &begun), (void *)i);
		assert_int_equal(begun, i <= 100);
	}
	assert_null(vhost_ring_take_back(&r, 100, &begun));
	assert_int_equal(r.room, VHOST_RING_SIZE);
	vhost_ring_exit(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_round),     cmocka_unit_test(vhost_frames),
		cmocka_unit_test(vhost_merge),    cmocka_unit_test(vhost_shapes),
		cmocka_unit_test(vhost_pause),    cmocka_unit_test(vhost_pause_races),
		cmocka_unit_test(vhost_reset),    cmocka_unit_test(vhost_links),
		cmocka_unit_test(vhost_pairs),    cmocka_unit_test(vhost_errors),
		cmocka_unit_test(vhost_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
