/* virtio-net: frames in both directions, offloads, flow control, the control queue, links, reset.
 */
#include "virtio_bed.h"

#include <linux/virtio_net.h>
#include <stdio.h>

#include "backend/net/netdev.h"
#include "backend/net/offload.h"
#include "virtio/net.h"

enum { RX, TX, CTRL, FRAMES = 64 };

/* A host's end that keeps what it gets. */
struct host {
	struct netdev nd;
	unsigned room, rooms, flushes, changes, n;
	struct {
		size_t len;
		struct net_hdr hdr;
		unsigned queue;
		uint8_t bytes[70000];
	} got[FRAMES];
};

static bool host_receive(struct netport *p, const struct netpkt *pkt)
{
	struct host *h = container_of(p->nd, struct host, nd);

	if (!h->room)
		return false;
	h->room--;
	assert_true(h->n < FRAMES);
	h->got[h->n].len = pkt->len;
	h->got[h->n].hdr = pkt->hdr;
	h->got[h->n].queue = p->queue;
	netpkt_get(pkt, 0, h->got[h->n++].bytes, pkt->len);
	return true;
}

static void host_room(struct netport *p)
{
	container_of(p->nd, struct host, nd)->rooms++;
}

static void host_flush(struct netport *p)
{
	container_of(p->nd, struct host, nd)->flushes++;
}

static void host_changed(struct netport *p)
{
	container_of(p->nd, struct host, nd)->changes++;
}

static void host_free(struct netdev *nd)
{
	free(container_of(nd, struct host, nd));
}

static const struct netport_ops host_port = { host_receive, host_room, host_flush, host_changed };
static const struct netdev_ops host_ops = { .name = "test", .free = host_free };

struct net {
	struct vbed *vb;
	struct host *h;
	struct dev *d;
	unsigned hdr;
};

static struct net *net_new(unsigned queues, const char *prop, const char *value)
{
	struct net *t = calloc(1, sizeof(*t));
	struct err e = { 0 };

	t->vb = vbed_new();
	t->h = calloc(1, sizeof(*t->h));
	t->h->room = UINT32_MAX;
	assert_int_equal(netdev_init(&t->h->nd, &host_ops, t->vb->bed->loop, "n0", queues,
				     &host_port, 0, NULL),
			 0);
	t->d = dev_new(&t->vb->bed->md, &virtio_net_class, "net0", &e);
	dev_set_backend(t->d, "netdev", &t->h->nd);
	if (prop)
		assert_int_equal(dev_set_prop(t->d, prop, value, &e), 0);
	if (dev_realize(t->d, &e) < 0)
		fail_msg("%s", e.msg);
	vbed_plug(t->vb, t->d);
	t->hdr = 12;
	return t;
}

static void net_free(struct net *t)
{
	struct netdev *nd = &t->h->nd;

	vbed_free(t->vb);
	assert_false(nd->attached);
	netdev_free(nd);
	free(t);
}

/* The host sends a frame of a pattern. */
static bool host_send(struct net *t, unsigned queue, size_t len, const struct net_hdr *hdr)
{
	static uint8_t f[70000];
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, f, len, hdr);
	bool ok;

	for (size_t i = 0; i < len; i++)
		f[i] = (uint8_t)(i * 3 + len);
	memset(f, 0x52, 12);
	bus_lock(t->vb->bed->md.bus);
	ok = net_send(&t->h->nd.port[queue], &p);
	net_flush(&t->h->nd.port[queue]);
	bus_unlock(t->vb->bed->md.bus);
	return ok;
}

static void assert_pattern(const uint8_t *f, size_t from, size_t n, size_t len)
{
	for (size_t i = MAX(from, (size_t)12); i < from + n; i++)
		if (f[i - from] != (uint8_t)(i * 3 + len))
			fail_msg("byte %zu of %zu", i, len);
}

static void net_config(void **state)
{
	struct net *t = net_new(1, "host_mtu", "1400"), *t2;
	struct err e = { 0 };
	struct dev *d;

	assert_int_equal(vbed_r(t->vb, 8), VIRTIO_ID_NET);
	assert_int_equal(vbed_cfg(t->vb, 0, 4), 0x12005452);
	assert_int_equal(vbed_cfg(t->vb, 4, 2), 0x5634);
	assert_int_equal(vbed_cfg(t->vb, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(vbed_cfg(t->vb, 8, 2), 1);
	assert_int_equal(vbed_cfg(t->vb, 10, 2), 1400);
	assert_true(vbed_offered(t->vb) & BIT(VIRTIO_NET_F_MTU));
	assert_false(vbed_offered(t->vb) & BIT(VIRTIO_NET_F_MQ));
	assert_false(vbed_offered(t->vb) & BIT(VIRTIO_NET_F_RSS));
	/* the next card has the next address; the netdev is taken */
	d = dev_create(&t->vb->bed->md, &virtio_net_class, "net1", &e, NULL);
	assert_non_null(d);
	assert_int_equal(container_of(d, struct vnet, vd.dev)->mac[5], 0x57);
	d = dev_new(&t->vb->bed->md, &virtio_net_class, "net2", &e);
	dev_set_backend(d, "netdev", &t->h->nd);
	assert_true(dev_realize(d, &e) < 0);
	assert_non_null(strstr(e.msg, "in use"));
	assert_null(dev_create(&t->vb->bed->md, &virtio_net_class, "net3", &e, "mac", "1", NULL));
	assert_null(dev_create(&t->vb->bed->md, &virtio_net_class, "net3", &e, "rx-queue-size",
			       "300", NULL));
	net_free(t);
	t2 = net_new(1, "csum", "off");
	assert_false(vbed_offered(t2->vb) & (BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4)));
	assert_true(vbed_offered(t2->vb) & BIT(VIRTIO_NET_F_GUEST_TSO4));
	net_free(t2);
}

/* Header and frame apart, together, and in crumbs. */
static void net_transmit(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 2000);

	vbed_start(vb, VBED_ALL, 3);
	memset(vb->ram + a + 12, 7, 1500);
	for (unsigned i = 0; i < 1500; i++)
		vb->ram[a + 12 + i] = (uint8_t)i;
	vbed_add(vb, TX, 2, VOUT(a, 12), VOUT(a + 12, 1500));
	vbed_add(vb, TX, 1, VOUT(a, 100));
	vbed_add(vb, TX, 5, VOUT(a, 5), VOUT(a + 5, 6), VOUT(a + 11, 2), VOUT(a + 13, 1),
		 VOUT(a + 14, 60));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 3);
	assert_int_equal(t->h->flushes, 2); /* the start ran the queue, too */
	assert_int_equal(t->h->got[0].len, 1500);
	assert_int_equal(t->h->got[1].len, 88);
	assert_int_equal(t->h->got[2].len, 62);
	for (unsigned i = 0; i < 3; i++) {
		assert_memory_equal(t->h->got[i].bytes, vb->ram + a + 12, t->h->got[i].len);
		assert_true(vbed_used(vb, TX, NULL) >= 0);
	}
	/* no frames: shorter than an Ethernet header, than the header, longer than any */
	vbed_add(vb, TX, 1, VOUT(a, 12 + 13));
	vbed_add(vb, TX, 1, VOUT(a, 4));
	vbed_add(vb, TX, 1, VIN(a, 100));
	vbed_add(vb, TX, 1, VOUT(0x100000, 70000));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 3);
	for (unsigned i = 0; i < 4; i++)
		assert_true(vbed_used(vb, TX, NULL) >= 0);
	assert_false(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
	net_free(t);
}

/* A checksum is filled for a host that does not; what was not negotiated is no frame. */
static void net_offloads(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 4000);
	struct virtio_net_hdr_v1 *h = (void *)(vb->ram + a);
	uint8_t *f = vb->ram + a + 12;

	vbed_start(vb, VBED_ALL, 3);
	*h = (struct virtio_net_hdr_v1){ .flags = 1, .csum_start = 34, .csum_offset = 6 };
	f[12] = 8;
	f[34] = 0x12;
	vbed_add(vb, TX, 1, VOUT(a, 12 + 60));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 1);
	assert_int_equal(t->h->got[0].hdr.flags, 0);
	assert_int_equal(t->h->got[0].bytes[40], 0xed);
	h->csum_start = 3000;
	vbed_add(vb, TX, 1, VOUT(a, 12 + 60));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 1);
	h->csum_start = 34;
	vbed_start(vb, VBED_ALL & ~BIT(VIRTIO_NET_F_CSUM), 3);
	vbed_add(vb, TX, 1, VOUT(a, 12 + 60));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 1);
	/* what the host may leave undone follows from what the driver takes */
	assert_int_equal(t->h->nd.port[0].peer->accepts, NET_ALL);
	vbed_start(vb, BIT(VIRTIO_F_VERSION_1), 2);
	assert_int_equal(t->h->nd.port[0].peer->accepts, 0);
	net_free(t);
}

static void net_receive(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 8192);
	struct net_hdr hdr = { 1, NET_GSO_TCPV4, 66, 1448, 34, 16 };
	struct virtio_net_hdr_v1 h;
	uint16_t event;
	uint32_t len;

	assert_true(host_send(t, 0, 100, NULL)); /* no driver: lost */
	vbed_start(vb, VBED_ALL, 3);
	assert_false(host_send(t, 0, 100, NULL)); /* no buffers: waits */
	vbed_add(vb, RX, 1, VIN(a, 1000));
	vbed_kick(vb, RX);
	assert_int_equal(t->h->rooms, 1);
	assert_true(host_send(t, 0, 100, NULL));
	assert_int_equal(vbed_used(vb, RX, &len), 0);
	assert_int_equal(len, 112);
	assert_pattern(vb->ram + a + 12, 0, 100, 100);
	memcpy(&h, vb->ram + a, 12);
	assert_int_equal(h.num_buffers, 1);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	/* over three buffers, the header cut in two */
	vbed_add(vb, RX, 2, VIN(a, 5), VIN(a + 5, 95));
	vbed_add(vb, RX, 1, VIN(a + 100, 100));
	vbed_add(vb, RX, 1, VIN(a + 200, 1000));
	vbed_kick(vb, RX);
	assert_true(host_send(t, 0, 300, &hdr));
	assert_true(vbed_used(vb, RX, &len) >= 0);
	assert_int_equal(len, 100);
	vbed_used(vb, RX, &len);
	assert_int_equal(len, 100);
	vbed_used(vb, RX, &len);
	assert_int_equal(len, 112);
	memcpy(&h, vb->ram + a, 12);
	assert_int_equal(h.num_buffers, 3);
	assert_int_equal(h.gso_size, 1448);
	assert_pattern(vb->ram + a + 12, 0, 300, 300);
	/* not enough: all stay, and are used when there is more */
	vbed_add(vb, RX, 1, VIN(a, 100));
	vbed_add(vb, RX, 1, VIN(a + 100, 100));
	vbed_kick(vb, RX);
	assert_false(host_send(t, 0, 300, NULL));
	assert_int_equal(vbed_used(vb, RX, &len), -1);
	/* the next one is asked for, not those that are there: a driver would never notify */
	memcpy(&event, (uint8_t *)vb->q[RX].used + 4 + 8 * vb->q[RX].size, 2);
	assert_int_equal(event, vb->q[RX].avail[1]);
	vbed_add(vb, RX, 1, VIN(a + 200, 200));
	vbed_kick(vb, RX);
	assert_true(host_send(t, 0, 300, NULL));
	for (int i = 0; i < 3; i++)
		assert_true(vbed_used(vb, RX, &len) >= 0);
	assert_pattern(vb->ram + a + 12, 0, 300, 300);
	/* without merging a frame that is too long is lost, and the buffer stays */
	vbed_start(vb, VBED_ALL & ~BIT(VIRTIO_NET_F_MRG_RXBUF), 3);
	vbed_add(vb, RX, 1, VIN(a, 112));
	vbed_kick(vb, RX);
	assert_true(host_send(t, 0, 101, NULL));
	assert_int_equal(vbed_used(vb, RX, &len), -1);
	assert_true(host_send(t, 0, 100, NULL));
	assert_int_equal(vbed_used(vb, RX, &len), 0);
	assert_int_equal(len, 112);
	net_free(t);
}

/* A ring too small for a frame, however full: the frame is lost, not waited for. */
static void net_small_ring(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 8192);

	assert_true(vbed_negotiate(vb, VBED_ALL));
	vbed_queue(vb, RX, 4);
	vbed_queue(vb, TX, 4);
	vbed_driver_ok(vb);
	for (int i = 0; i < 4; i++)
		vbed_add(vb, RX, 1, VIN(a, 20));
	vbed_kick(vb, RX);
	assert_true(host_send(t, 0, 1000, NULL));
	assert_int_equal(vbed_used(vb, RX, NULL), -1);
	assert_true(host_send(t, 0, 60, NULL));
	assert_true(vbed_used(vb, RX, NULL) >= 0);
	net_free(t);
}

/*
 * Buffers in so many pieces that a frame would take more of them than a device may have out: it is
 * lost, and not tried again and again.
 */
static void net_tiny_pieces(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	struct vbuf b[VIRTQ_SEGS_MAX];
	gpa_t a = vbed_alloc(vb, 4096);
	unsigned busy = 0;

	assert_true(vbed_negotiate(vb, VBED_ALL));
	vbed_queue(vb, RX, 128);
	vbed_queue(vb, TX, 4);
	vbed_driver_ok(vb);
	vb->indirect = true;
	for (unsigned i = 0; i < VIRTQ_SEGS_MAX; i++)
		b[i] = VIN(a + i, 1);
	assert_false(host_send(t, 0, 65550, NULL));
	for (int i = 0; i < 100; i++)
		vbed_addv(vb, RX, VIRTQ_SEGS_MAX, b);
	vbed_kick(vb, RX);
	assert_int_equal(t->h->rooms, 1);
	assert_true(host_send(t, 0, 65550, NULL));
	for (int i = 0; i < 50; i++)
		busy += loop_step(vb->bed->loop, false);
	assert_true(busy < 10);
	assert_int_equal(vbed_used(vb, RX, NULL), -1);
	assert_true(host_send(t, 0, 60, NULL));
	assert_true(vbed_used(vb, RX, NULL) >= 0);
	net_free(t);
}

static void net_backend_full(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 2000);

	vbed_start(vb, VBED_ALL, 3);
	t->h->room = 2;
	for (unsigned i = 0; i < 10; i++)
		vbed_add(vb, TX, 1, VOUT(a, 100 + i));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 2);
	vbed_kick(vb, TX); /* it does not try in vain */
	t->h->room = 3;
	bus_lock(vb->bed->md.bus);
	net_room(&t->h->nd.port[0]);
	bus_unlock(vb->bed->md.bus);
	vbed_run(vb);
	assert_int_equal(t->h->n, 5);
	/* a reset forgets what waits; afterwards all begins anew */
	vbed_start(vb, VBED_ALL, 3);
	t->h->room = 100;
	net_room(&t->h->nd.port[0]);
	vbed_add(vb, TX, 1, VOUT(a, 300));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 6);
	assert_int_equal(t->h->got[5].len, 288);
	net_free(t);
}

static unsigned ctrl(struct net *t, uint8_t cls, uint8_t cmd, const void *data, uint32_t len)
{
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 2), b = vbed_alloc(vb, len + 1), c = vbed_alloc(vb, 1);

	vb->ram[a] = cls;
	vb->ram[a + 1] = cmd;
	if (len)
		memcpy(vb->ram + b, data, len);
	vb->ram[c] = 0xee;
	if (len)
		vbed_add(vb, CTRL, 3, VOUT(a, 2), VOUT(b, len), VIN(c, 1));
	else
		vbed_add(vb, CTRL, 2, VOUT(a, 2), VIN(c, 1));
	vbed_kick(vb, CTRL);
	assert_true(vbed_used(vb, CTRL, NULL) >= 0);
	return vb->ram[c];
}

/* Does a frame to this address, with this VLAN (0: none), come in? */
static bool arrives(struct net *t, const uint8_t *dst, unsigned vlan)
{
	gpa_t a = vbed_alloc(t->vb, 200);
	uint8_t f[60] = { 0 };
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, f, sizeof(f), NULL);

	memcpy(f, dst, 6);
	if (vlan) {
		f[12] = 0x81;
		f[14] = (uint8_t)(vlan >> 8);
		f[15] = (uint8_t)vlan;
	}
	vbed_add(t->vb, RX, 1, VIN(a, 200));
	vbed_kick(t->vb, RX);
	assert_true(net_send(&t->h->nd.port[0], &p));
	return vbed_used(t->vb, RX, NULL) >= 0;
}

static void net_control(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	static const uint8_t me[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 }, you[6] = { 2, 1 },
			     all[6] = { 255, 255, 255, 255, 255, 255 }, group[6] = { 3, 1 };
	static const uint8_t table[] = {
		1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 0, 0, 0
	};
	uint8_t on = 1, off = 0, big[4 + 65 * 6 + 4] = { 65 };
	uint16_t vid = 5, pairs = 1;
	uint64_t f = 0;

	vbed_start(t->vb, VBED_ALL, 3);
	vid = 5;
	assert_true(arrives(t, you, 0)); /* promiscuous at first */
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), 0);
	assert_false(arrives(t, you, 0));
	assert_true(arrives(t, me, 0));
	assert_true(arrives(t, all, 0));
	assert_false(arrives(t, group, 0));
	assert_int_equal(
		ctrl(t, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)),
		0);
	assert_true(arrives(t, you, 0));
	assert_true(arrives(t, group, 0));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, 19), 1);
	assert_true(arrives(t, group, 0)); /* unchanged */
	assert_int_equal(
		ctrl(t, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, big, sizeof(big)), 0);
	assert_false(arrives(t, group, 0));
	assert_true(arrives(t, (const uint8_t[6]){ 8, 8 }, 0)); /* too many to be kept: all */
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1), 0);
	assert_true(arrives(t, group, 0));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, &on, 1), 0);
	assert_false(arrives(t, group, 0));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, &on, 1), 0);
	assert_false(arrives(t, all, 0));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, &on, 1), 0);
	assert_false(arrives(t, me, 0));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOUNI, &off, 1), 0);
	assert_false(arrives(t, me, 5));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid, 2), 0);
	assert_true(arrives(t, me, 5));
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, &vid, 2), 0);
	assert_false(arrives(t, me, 5));
	vid = 4096;
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, &vid, 2), 1);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, you, 6), 0);
	assert_int_equal(vbed_cfg(t->vb, 0, 2), 0x0102);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &f, 8), 0);
	assert_int_equal(t->h->nd.port[0].peer->accepts, 0);
	f = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &f, 8), 0);
	assert_int_equal(t->h->nd.port[0].peer->accepts, NET_CSUM | NET_TSO4);
	f = BIT(VIRTIO_NET_F_MAC);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &f, 8), 1);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), 1); /* not negotiated */
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_ANNOUNCE, 0, NULL, 0), 1);
	virtio_net_announce(t->d);
	assert_int_equal(vbed_cfg(t->vb, 6, 2), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_true(vbed_irq(t->vb) & VIRTIO_ISR_CONFIG);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_ANNOUNCE, 0, NULL, 0), 0);
	assert_int_equal(vbed_cfg(t->vb, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(ctrl(t, 77, 0, NULL, 0), 1);
	/* a reset by the driver takes all of it back */
	vbed_start(t->vb, VBED_ALL, 3);
	assert_true(arrives(t, you, 0));
	assert_int_equal(vbed_cfg(t->vb, 0, 2), 0x5452);
	/* no room for the answer */
	vbed_add(t->vb, CTRL, 1, VOUT(0x1000, 2));
	vbed_kick(t->vb, CTRL);
	vbed_assert_broken(t->vb);
	net_free(t);
}

static void net_links(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 2000);

	vbed_start(vb, VBED_ALL, 3);
	netdev_set_link(&t->h->nd, false);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_CONFIG);
	assert_int_equal(vbed_cfg(vb, 6, 2), 0);
	vbed_add(vb, TX, 1, VOUT(a, 100));
	vbed_kick(vb, TX);
	assert_true(vbed_used(vb, TX, NULL) >= 0); /* sent, into nothing */
	assert_int_equal(t->h->n, 0);
	netdev_set_link(&t->h->nd, true);
	virtio_net_set_link(t->d, false);
	assert_true(vbed_irq(vb) & VIRTIO_ISR_CONFIG);
	assert_true(host_send(t, 0, 100, NULL));
	vbed_add(vb, TX, 1, VOUT(a, 100));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 0);
	virtio_net_set_link(t->d, true);
	assert_int_equal(vbed_cfg(vb, 6, 2), VIRTIO_NET_S_LINK_UP);
	vbed_add(vb, TX, 1, VOUT(a, 100));
	vbed_kick(vb, TX);
	assert_int_equal(t->h->n, 1);
	net_free(t);
	t = net_new(1, "link", "off");
	assert_int_equal(vbed_cfg(t->vb, 6, 2), 0);
	net_free(t);
}

static void net_queues(void **state)
{
	struct net *t = net_new(4, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 2000), c = vbed_alloc(vb, 16);
	uint32_t len;

	assert_int_equal(vbed_cfg(vb, 8, 2), 4);
	vbed_start(vb, VBED_ALL, 9);
	assert_true(t->h->nd.port[1].peer->off);
	assert_true(host_send(t, 2, 100, NULL)); /* not served: lost */
	memcpy(vb->ram + c, "\x04\x00\x04\x00", 4);
	vbed_add(vb, 8, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 8);
	assert_false(t->h->nd.port[3].peer->off);
	vbed_add(vb, 4, 1, VIN(a, 200));
	vbed_kick(vb, 4);
	assert_true(host_send(t, 2, 100, NULL));
	assert_true(vbed_used(vb, 4, &len) >= 0);
	vbed_add(vb, 7, 1, VOUT(a, 200));
	vbed_kick(vb, 7);
	assert_int_equal(t->h->n, 1);
	assert_int_equal(t->h->got[0].queue, 3);
	/* without MQ the control queue is number 2 */
	vbed_start(vb, VBED_ALL & ~BIT(VIRTIO_NET_F_MQ), 3);
	memcpy(vb->ram + c, "\x00\x00\x00", 3);
	vbed_add(vb, 2, 2, VOUT(c, 3), VIN(c + 8, 1));
	vbed_kick(vb, 2);
	assert_true(vbed_used(vb, 2, NULL) >= 0);
	assert_int_equal(vb->ram[c + 8], 0);
	net_free(t);
}

/* Reset while frames flow in both directions, many times. */
static void net_reset_under_load(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 4096);
	gpa_t top = vb->top;

	for (unsigned round = 0; round < 300; round++) {
		vb->top = top;
		t->h->n = 0;
		t->h->room = round % 7;
		vbed_start(vb, VBED_ALL, 3);
		for (unsigned i = 0; i < round % 5; i++)
			vbed_add(vb, RX, 1, VIN(a, 500));
		for (unsigned i = 0; i < round % 9; i++)
			vbed_add(vb, TX, 1, VOUT(a, 100));
		vbed_w(vb, 0x50, TX);
		(void)!host_send(t, 0, 100 + round, NULL);
		if (round % 2)
			vbed_run(vb);
		if (round % 3 == 0)
			vbed_w(vb, 0x50, RX);
		vbed_w(vb, 0x70, 0);
		vbed_run(vb);
		assert_true(host_send(t, 0, 100, NULL));
		assert_int_equal(virtio_in_flight(t->vb->vd), 0);
	}
	net_free(t);
}

static void net_pause(void **state)
{
	struct net *t = net_new(1, NULL, NULL);
	struct vbed *vb = t->vb;
	gpa_t a = vbed_alloc(vb, 4096);

	vbed_start(vb, VBED_ALL, 3);
	vbed_add(vb, RX, 1, VIN(a, 500));
	bus_lock(vb->bed->md.bus);
	machine_devs_pause(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
	assert_false(host_send(t, 0, 100, NULL)); /* nothing is lost in a pause */
	bus_lock(vb->bed->md.bus);
	machine_devs_resume(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
	assert_int_equal(t->h->rooms, 1);
	assert_true(host_send(t, 0, 100, NULL));
	assert_true(vbed_used(vb, RX, NULL) >= 0);
	net_free(t);
}

/* The state in another machine: it filters alike. */
static void net_copy(void **state)
{
	struct net *t = net_new(1, NULL, NULL), *t2 = net_new(1, NULL, NULL);
	uint8_t off = 0;

	vbed_start(t->vb, VBED_ALL, 3);
	assert_int_equal(ctrl(t, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), 0);
	bed_copy(t->d, t2->d);
	assert_false(container_of(t2->d, struct vnet, vd.dev)->s.promisc);
	net_free(t);
	net_free(t2);
}

/* The queues in an iothread: the same, from another thread. */
static void net_iothread(void **state)
{
	struct vbed *vb = vbed_new();
	static struct clock clock; /* outlives the thread */
	struct iothread *io;
	struct host *h = calloc(1, sizeof(*h));
	gpa_t a = vbed_alloc(vb, 4096);
	struct err e = { 0 };
	struct dev *d;

	clock_init_host(&clock);
	io = iothread_new("io0", &clock, NULL);
	assert_non_null(io);
	h->room = UINT32_MAX;
	assert_int_equal(
		netdev_init(&h->nd, &host_ops, vb->bed->loop, "n0", 1, &host_port, 0, NULL), 0);
	d = dev_new(&vb->bed->md, &virtio_net_class, "net0", &e);
	dev_set_backend(d, "netdev", &h->nd);
	dev_set_backend(d, "iothread", io);
	assert_int_equal(dev_realize(d, &e), 0);
	assert_ptr_equal(h->nd.loop, io->loop);
	vbed_plug(vb, d);
	vbed_start(vb, VBED_ALL, 3);
	for (int i = 0; i < 20; i++) {
		vbed_add(vb, TX, 1, VOUT(a, 100));
		vbed_kick(vb, TX);
		assert_true(vbed_wait(vb, TX, NULL) >= 0);
	}
	biglock_lock(&io->lock);
	assert_int_equal(h->n, 20);
	biglock_unlock(&io->lock);
	bus_lock(vb->bed->md.bus);
	machine_devs_free(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
	iothread_free(io);
	vbed_free(vb);
	netdev_free(&h->nd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(net_config),
		cmocka_unit_test(net_transmit),
		cmocka_unit_test(net_offloads),
		cmocka_unit_test(net_receive),
		cmocka_unit_test(net_small_ring),
		cmocka_unit_test(net_tiny_pieces),
		cmocka_unit_test(net_backend_full),
		cmocka_unit_test(net_control),
		cmocka_unit_test(net_links),
		cmocka_unit_test(net_queues),
		cmocka_unit_test(net_reset_under_load),
		cmocka_unit_test(net_pause),
		cmocka_unit_test(net_copy),
		cmocka_unit_test(net_iothread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
