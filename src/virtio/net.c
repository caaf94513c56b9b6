/*
 * virtio-net: a network card.
 *
 * Modelled:     several pairs of queues; checksum and segmentation offload in both directions
 *               (what the backend does not take, net_send does in software: backend/net/offload.h);
 *               mergeable receive buffers; control queue (net_ctrl.c); link state, MTU, speed.
 * Not modelled: hash reports and RSS, notification coalescing, segment coalescing (RSC), standby.
 * Flow:         a frame without receive buffers stays with the backend until the driver adds some;
 *               what the backend has no room for stays in the ring.
 * Batches:      a run of a transmit queue takes all there is, completes it in groups and
 *               interrupts once; received frames are completed one by one (the driver may poll)
 *               and interrupt once a batch of the backend's.
 * References:   [VIRTIO1.2 5.1] network device.
 * Threads:      virtio.h; may be in an iothread, and its netdev goes there with it.
 * Host resources: the netdev.
 */
#include "virtio/net.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <string.h>

#include "backend/net/offload.h"
#include "backend/net/opts.h"
#include "base/bug.h"
#include "virtio/transport.h"

/* Newer than the headers of some hosts [VIRTIO1.3 5.1.3]. */
enum { F_GUEST_USO4 = 54, F_GUEST_USO6 = 55, F_HOST_USO = 56 };

enum {
	VNET_HDR_LEGACY = 10,
	VNET_HDR = 12,
	VNET_TX_GROUP = 16,      /* frames completed together */
	VNET_MERGE_MAX = 256,    /* buffers of one frame */
	VNET_CTRL_SIZE = 64,     /* entries of the control queue */
	VNET_CONFIG = 17,        /* up to duplex: there is no RSS */
	VNET_SPEED_UNKNOWN = -1, /* as ethtool has it */
	VNET_DUPLEX_FULL = 1,
	VNET_DUPLEX_UNKNOWN = 0xff,
};

static unsigned vnet_rxq(unsigned pair)
{
	return 2 * pair;
}

static unsigned vnet_txq(unsigned pair)
{
	return 2 * pair + 1;
}

/* The control queue comes after all pairs that the driver knows of [VIRTIO1.2 5.1.2]. */
static unsigned vnet_ctrlq(const struct vnet *n)
{
	return virtio_has(&n->vd, VIRTIO_NET_F_MQ) ? 2u * n->pairs : 2;
}

static struct vnet *vnet_of_port(struct netport *p)
{
	return container_of(p - p->queue, struct vnet, port[0]);
}

/* ---- Receive ------------------------------------------------------------------------------- */

/* Writes to the buffers of elements, in order. */
struct vnet_sink {
	struct virtq_elem *el[VNET_MERGE_MAX];
	unsigned n, at, iov; /* elements; where we are */
	size_t off;
};

static void sink_put(struct vnet_sink *k, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len) {
		const struct iovec *v;
		size_t m;

		if (k->iov == k->el[k->at]->in_n) {
			k->at++;
			k->iov = 0;
			continue;
		}
		v = &k->el[k->at]->in[k->iov];
		m = MIN(len, v->iov_len - k->off);
		memcpy((uint8_t *)v->iov_base + k->off, p, m);
		k->off += m;
		p += m;
		len -= m;
		if (k->off == v->iov_len) {
			k->off = 0;
			k->iov++;
		}
	}
}

static void sink_undo(struct vnet_sink *k)
{
	while (k->n)
		virtq_unpop(k->el[--k->n]);
}

/* Elements with room for total bytes: 1; 0: not yet; -1: never, the frame is too long for them. */
static int sink_gather(struct vnet *n, struct virtq *q, struct vnet_sink *k, size_t total)
{
	bool merge = virtio_has(&n->vd, VIRTIO_NET_F_MRG_RXBUF);
	size_t room = 0;

	k->n = k->at = k->iov = 0;
	k->off = 0;
	while (room < total) {
		struct virtq_elem *el = virtq_pop(q);

		if (!el) {
			/*
			 * A driver whose whole ring is too small would wait for ever; and with
			 * buffers in more pieces than may be out we would try again for ever.
			 */
			const struct virtq_state *s = virtio_queue_state(n->vd.v, virtq_index(q));
			bool never = k->n && (k->n >= s->size || n->vd.v->starved);

			sink_undo(k);
			return never ? -1 : 0;
		}
		k->el[k->n++] = el;
		room += el->in_len;
		if (room < total && (!merge || k->n == VNET_MERGE_MAX)) {
			sink_undo(k);
			return -1;
		}
	}
	return 1;
}

static bool vnet_receive(struct netport *p, const struct netpkt *pkt)
{
	struct vnet *n = vnet_of_port(p);
	struct virtq *q = virtio_queue(&n->vd, vnet_rxq(p->queue));
	struct virtio_net_hdr_v1 h;
	struct vnet_sink k;
	size_t left;
	int r;

	if (!virtq_ready(q) || p->off)
		return !n->paused; /* no driver: lost; paused: it will go on */
	if (!n->s.link_up || !vnet_filter(n, pkt))
		return true;
	left = n->hdr_len + pkt->len;
	r = sink_gather(n, q, &k, left);
	if (r == 0 && virtq_kick_enable(q)) /* came just now */
		r = sink_gather(n, q, &k, left);
	if (r == 0)
		return false;
	virtq_kick_disable(q);
	if (r < 0) {
		trace(&n->vd.dev, "rx_too_long", pkt->len);
		return true;
	}
	memcpy(&h, &pkt->hdr, sizeof(pkt->hdr));
	h.num_buffers = (uint16_t)k.n;
	if (!(p->accepts & NET_CSUM))
		h.flags = 0;
	sink_put(&k, &h, n->hdr_len);
	for (unsigned i = 0; i < pkt->n; i++)
		sink_put(&k, pkt->iov[i].iov_base, pkt->iov[i].iov_len);
	for (unsigned i = 0; i < k.n; i++) {
		size_t here = MIN(left, k.el[i]->in_len);

		virtq_fill(k.el[i], here);
		left -= here;
	}
	virtq_flush(q);
	return true;
}

static void vnet_rx_flush(struct netport *p)
{
	struct vnet *n = vnet_of_port(p);

	virtq_notify(virtio_queue(&n->vd, vnet_rxq(p->queue)));
}

/* ---- Transmit ------------------------------------------------------------------------------ */

/* The frame of an element; false: it is none, or not as negotiated. iov: NET_IOV_MAX pieces. */
static bool vnet_frame(const struct vnet *n, const struct virtq_elem *el, struct iovec *iov,
		       struct netpkt *pkt)
{
	size_t skip = n->hdr_len;
	unsigned i = 0;

	if (el->out_len < n->hdr_len + (uint64_t)NET_ETH_MIN ||
	    el->out_len > n->hdr_len + (uint64_t)NET_FRAME_MAX ||
	    virtq_elem_read(el, 0, &pkt->hdr, sizeof(pkt->hdr)) < sizeof(pkt->hdr))
		return false;
	while (skip >= el->out[i].iov_len)
		skip -= el->out[i++].iov_len;
	pkt->len = el->out_len - n->hdr_len;
	pkt->n = el->out_n - i;
	pkt->iov = el->out + i;
	if (skip) { /* header and frame in one buffer */
		memcpy(iov, el->out + i, pkt->n * sizeof(*iov));
		iov[0].iov_base = (uint8_t *)iov[0].iov_base + skip;
		iov[0].iov_len -= skip;
		pkt->iov = iov;
	}
	/* a driver sets no other flag, and what it did not negotiate is no good frame */
	pkt->hdr.flags &= NET_HDR_NEEDS_CSUM;
	return !(net_needs(&pkt->hdr) & ~n->tx_may);
}

static void vnet_tx(struct vnet *n, unsigned pair)
{
	struct virtq *q = virtio_queue(&n->vd, vnet_txq(pair));
	struct netport *p = &n->port[pair];
	struct iovec iov[NET_IOV_MAX];
	struct virtq_elem *el;
	struct netpkt pkt;
	unsigned done = 0;

	while (!n->tx_wait[pair] && (el = virtq_pop(q))) {
		if (!vnet_frame(n, el, iov, &pkt)) {
			guest_error(&n->vd.dev, "tx_frame", el->out_len, pkt.hdr.gso_type);
		} else if (n->s.link_up && !net_send(p, &pkt)) {
			n->tx_wait[pair] = true;
			virtq_unpop(el);
			break;
		}
		virtq_fill(el, 0);
		if (++done % VNET_TX_GROUP == 0)
			virtq_flush(q);
	}
	virtq_flush(q);
	net_flush(p);
	virtq_notify(q);
}

static void vnet_tx_room(struct netport *p)
{
	struct vnet *n = vnet_of_port(p);

	n->tx_wait[p->queue] = false;
	virtio_queue_run(&n->vd, vnet_txq(p->queue));
}

static void vnet_queue(struct virtio_dev *vd, unsigned i)
{
	struct vnet *n = vnet_of(vd);

	if (i == vnet_ctrlq(n) && virtio_has(vd, VIRTIO_NET_F_CTRL_VQ)) {
		vnet_ctrl_queue(n, i);
	} else if (i / 2 >= n->pairs || vnet_vhost_queue(n, i)) {
		return;
	} else if (i & 1) {
		vnet_tx(n, i / 2);
	} else {
		net_room(&n->port[i / 2]);
		virtq_notify(virtio_queue(vd, i));
		if (!n->port[i / 2].owes_room)
			virtq_kick_unneeded(virtio_queue(vd, i));
	}
}

/* ---- Link and negotiation ------------------------------------------------------------------ */

static uint16_t vnet_status(const struct vnet *n)
{
	bool up = n->s.link_up && net_link(&n->port[0]);

	return (uint16_t)((up ? VIRTIO_NET_S_LINK_UP : 0) |
			  (n->s.announce ? VIRTIO_NET_S_ANNOUNCE : 0));
}

void vnet_status_changed(struct vnet *n)
{
	uint16_t now = vnet_status(n);

	if (now == n->status_seen)
		return;
	n->status_seen = now;
	virtio_config_changed(&n->vd);
}

static void vnet_changed(struct netport *p)
{
	if (p->queue)
		return;
	vnet_status_changed(vnet_of_port(p));
	vnet_vhost_update(vnet_of_port(p));
}

static const struct netport_ops vnet_port = {
	.receive = vnet_receive,
	.room = vnet_tx_room,
	.flush = vnet_rx_flush,
	.changed = vnet_changed,
};

void vnet_apply(struct vnet *n)
{
	static const struct {
		uint8_t feature;
		uint8_t accepts;
	} in[] = {
		{ VIRTIO_NET_F_GUEST_CSUM, NET_CSUM }, { VIRTIO_NET_F_GUEST_TSO4, NET_TSO4 },
		{ VIRTIO_NET_F_GUEST_TSO6, NET_TSO6 }, { VIRTIO_NET_F_GUEST_ECN, NET_ECN },
		{ VIRTIO_NET_F_GUEST_UFO, NET_UFO },
	}, out[] = {
		{ VIRTIO_NET_F_CSUM, NET_CSUM },       { VIRTIO_NET_F_HOST_TSO4, NET_TSO4 },
		{ VIRTIO_NET_F_HOST_TSO6, NET_TSO6 },  { VIRTIO_NET_F_HOST_ECN, NET_ECN },
		{ VIRTIO_NET_F_HOST_UFO, NET_UFO },    { F_HOST_USO, NET_USO },
	};
	const uint64_t uso = BIT(F_GUEST_USO4) | BIT(F_GUEST_USO6);
	unsigned accepts = 0;

	vnet_vhost_stop(n, n->s.pairs, n->pairs, false);
	for (unsigned i = 0; i < ARRAY_SIZE(in); i++)
		if (n->s.offloads & BIT(in[i].feature))
			accepts |= in[i].accepts;
	/* one bit for both: a driver that takes only one of them gets none */
	if ((n->s.offloads & uso) == uso)
		accepts |= NET_USO;
	n->tx_may = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(out); i++)
		if (virtio_has(&n->vd, out[i].feature))
			n->tx_may |= out[i].accepts;
	n->hdr_len = virtio_is_legacy(&n->vd) && !virtio_has(&n->vd, VIRTIO_NET_F_MRG_RXBUF)
			     ? VNET_HDR_LEGACY
			     : VNET_HDR;
	for (unsigned i = 0; i < n->pairs; i++) {
		net_accepts(&n->port[i], accepts);
		net_serve(&n->port[i], i < n->s.pairs);
	}
	vnet_vhost_update(n);
}

static int vnet_negotiated(struct virtio_dev *vd, uint64_t features)
{
	struct vnet *n = vnet_of(vd);

	vnet_ctrl_negotiated(n, features);
	return 0;
}

static void vnet_start(struct virtio_dev *vd)
{
	struct vnet *n = vnet_of(vd);

	vnet_vhost_stop(n, 0, n->pairs, false);
	n->paused = false;
	n->status_seen = vnet_status(n);
	vnet_apply(n);
	for (unsigned i = 0; i < n->pairs; i++) {
		n->tx_wait[i] = false;
		net_room(&n->port[i]);
	}
}

static void vnet_pause(struct virtio_dev *vd)
{
	struct vnet *n = vnet_of(vd);

	vnet_vhost_stop(n, 0, n->pairs, false);
	n->paused = true;
}

static void vnet_disabled(struct virtio_dev *vd, unsigned i)
{
	struct vnet *n = vnet_of(vd);

	if (i / 2 >= n->pairs)
		return;
	vnet_vhost_stop(n, i / 2, i / 2 + 1, false);
	virtio_queue_run(vd, i ^ 1); /* the other one is ours now */
}

static void vnet_vreset(struct virtio_dev *vd)
{
	struct vnet *n = vnet_of(vd);

	vnet_vhost_stop(n, 0, n->pairs, true);
	vnet_ctrl_reset(n);
	for (unsigned i = 0; i < n->pairs; i++) {
		n->tx_wait[i] = false;
		net_forget(&n->port[i]);
		net_room(&n->port[i]); /* what waits there is for a driver that is gone */
	}
}

/* ---- Configuration ------------------------------------------------------------------------- */

static void vnet_config_get(struct virtio_dev *vd, void *cfg)
{
	struct vnet *n = vnet_of(vd);
	struct virtio_net_config c = { .status = vnet_status(n),
				       .max_virtqueue_pairs = n->pairs,
				       .mtu = n->host_mtu,
				       .speed = n->speed,
				       .duplex = VNET_DUPLEX_UNKNOWN };

	memcpy(c.mac, n->s.mac, sizeof(c.mac));
	if (n->duplex)
		c.duplex = !strcmp(n->duplex, "full") ? VNET_DUPLEX_FULL : 0;
	memcpy(cfg, &c, VNET_CONFIG);
}

/* Only legacy drivers may write the address [VIRTIO1.2 5.1.4]. */
static void vnet_config_set(struct virtio_dev *vd, const void *cfg, uint32_t off, uint32_t len)
{
	struct vnet *n = vnet_of(vd);

	if (off < 6 && virtio_is_legacy(vd))
		memcpy(n->s.mac, cfg, 6);
	else
		guest_error(&vd->dev, "config_write", off, len);
}

static const struct virtio_class vnet_vclass = {
	.id = VIRTIO_ID_NET,
	.pci_legacy_id = 0x1000,
	.pci_class = 0x020000,
	.config_size = VNET_CONFIG,
	.config_get = vnet_config_get,
	.config_set = vnet_config_set,
	.negotiated = vnet_negotiated,
	.start = vnet_start,
	.queue = vnet_queue,
	.disabled = vnet_disabled,
	.reset = vnet_vreset,
	.pause = vnet_pause,
};

/* ---- The device ---------------------------------------------------------------------------- */

/* clang-format off */
#define ON(f, n, h) PROP_N(struct vnet, f, n, true, h)
static const struct prop vnet_props[] = {
	PROP_BACKEND(struct vnet, netdev, "netdev", "the other end of the cable: -netdev ...,id="),
	{ .name = "mac", .help = "address (default: 52:54:00:12:34:56 and up)",
	  .kind = PROP_KIND_STR, .off = offsetof(struct vnet, mac_text) },
	PROP(struct vnet, mq, true, "as many pairs of queues as the netdev has"),
	ON(link, "link", "off: the cable is unplugged at the start"),
	PROP_N(struct vnet, host_mtu, "host-mtu", 0, "largest MTU that the driver shall use"),
	PROP(struct vnet, speed, (uint32_t)VNET_SPEED_UNKNOWN, "Mbit/s to tell"),
	PROP_STR(struct vnet, duplex, NULL, "full or half, to tell"),
	PROP_N(struct vnet, rx_size, "rx-queue-size", VIRTQ_SIZE_DEFAULT, "entries, 256 to 1024"),
	PROP_N(struct vnet, tx_size, "tx-queue-size", VIRTQ_SIZE_DEFAULT, "entries, 256 to 1024"),
	ON(status, "status", "offer link state"),
	ON(mrg_rxbuf, "mrg-rxbuf", "offer mergeable receive buffers"),
	ON(csum, "csum", "offer to fill checksums of the driver"),
	ON(guest_csum, "guest-csum", "offer to leave checksums to the driver"),
	ON(gso, "gso", "off: no host-tso4, host-tso6, host-ecn, host-ufo, host-uso"),
	ON(host_tso4, "host-tso4", "offer to cut TCP segments over IPv4"),
	ON(host_tso6, "host-tso6", "offer to cut TCP segments over IPv6"),
	ON(host_ecn, "host-ecn", "offer to cut segments with ECN"),
	ON(host_ufo, "host-ufo", "offer to cut UDP datagrams into fragments"),
	ON(host_uso, "host-uso", "offer to cut UDP datagrams"),
	ON(guest_tso4, "guest-tso4", "offer large TCP segments over IPv4"),
	ON(guest_tso6, "guest-tso6", "offer large TCP segments over IPv6"),
	ON(guest_ecn, "guest-ecn", "offer large segments with ECN"),
	ON(guest_ufo, "guest-ufo", "offer large UDP datagrams"),
	ON(guest_uso4, "guest-uso4", "offer several UDP datagrams in one, IPv4"),
	ON(guest_uso6, "guest-uso6", "offer several UDP datagrams in one, IPv6"),
	ON(ctrl_vq, "ctrl-vq", "offer the control queue; off: none of what needs it"),
	ON(ctrl_rx, "ctrl-rx", "offer receive modes and the MAC table"),
	ON(ctrl_rx_extra, "ctrl-rx-extra", "offer more receive modes"),
	ON(ctrl_vlan, "ctrl-vlan", "offer the VLAN filter"),
	ON(ctrl_mac_addr, "ctrl-mac-addr", "offer to set the address"),
	ON(ctrl_guest_offloads, "ctrl-guest-offloads", "offer to change offloads while running"),
	ON(guest_announce, "guest-announce", "offer announcements"),
	VIRTIO_DEV_PROP_IOTHREAD(struct vnet),
	VIRTIO_DEV_PROPS(struct vnet),
	PROP_END,
};
/* clang-format on */

static const struct field vnet_fields[] = {
	ST(struct vnet_state, offloads),
	ST_ARR(struct vnet_state, vlans),
	ST(struct vnet_state, pairs, .lim = NET_QUEUES_MAX + 1),
	ST_ARR(struct vnet_state, mac),
	ST_ARR(struct vnet_state, macs),
	ST(struct vnet_state, nmacs, .lim = VNET_MACS + 1),
	ST(struct vnet_state, nunicast, .lim = VNET_MACS + 1),
	ST(struct vnet_state, uni_overflow),
	ST(struct vnet_state, multi_overflow),
	ST(struct vnet_state, promisc),
	ST(struct vnet_state, allmulti),
	ST(struct vnet_state, alluni),
	ST(struct vnet_state, nomulti),
	ST(struct vnet_state, nouni),
	ST(struct vnet_state, nobcast),
	ST(struct vnet_state, link_up),
	ST(struct vnet_state, announce),
	ST_ARR(struct vnet_state, reserved, .lim = 1),
	{ 0 },
};

static void vnet_offer(struct vnet *n)
{
	const struct {
		bool on;
		uint8_t feature;
	} rows[] = {
		{ n->csum, VIRTIO_NET_F_CSUM },
		{ n->guest_csum, VIRTIO_NET_F_GUEST_CSUM },
		{ n->host_mtu, VIRTIO_NET_F_MTU },
		{ true, VIRTIO_NET_F_MAC },
		/* segmentation needs checksums [VIRTIO1.2 5.1.3.1] */
		{ n->csum && n->gso && n->host_tso4, VIRTIO_NET_F_HOST_TSO4 },
		{ n->csum && n->gso && n->host_tso6, VIRTIO_NET_F_HOST_TSO6 },
		{ n->csum && n->gso && n->host_ecn && (n->host_tso4 || n->host_tso6),
		  VIRTIO_NET_F_HOST_ECN },
		{ n->csum && n->gso && n->host_ufo, VIRTIO_NET_F_HOST_UFO },
		{ n->csum && n->gso && n->host_uso, F_HOST_USO },
		{ n->guest_csum && n->guest_tso4, VIRTIO_NET_F_GUEST_TSO4 },
		{ n->guest_csum && n->guest_tso6, VIRTIO_NET_F_GUEST_TSO6 },
		{ n->guest_csum && n->guest_ecn && (n->guest_tso4 || n->guest_tso6),
		  VIRTIO_NET_F_GUEST_ECN },
		{ n->guest_csum && n->guest_ufo, VIRTIO_NET_F_GUEST_UFO },
		{ n->guest_csum && n->guest_uso4, F_GUEST_USO4 },
		{ n->guest_csum && n->guest_uso6, F_GUEST_USO6 },
		{ n->mrg_rxbuf, VIRTIO_NET_F_MRG_RXBUF },
		{ n->status, VIRTIO_NET_F_STATUS },
		{ n->ctrl_vq, VIRTIO_NET_F_CTRL_VQ },
		{ n->ctrl_vq && n->ctrl_rx, VIRTIO_NET_F_CTRL_RX },
		{ n->ctrl_vq && n->ctrl_rx_extra, VIRTIO_NET_F_CTRL_RX_EXTRA },
		{ n->ctrl_vq && n->ctrl_vlan, VIRTIO_NET_F_CTRL_VLAN },
		{ n->ctrl_vq && n->ctrl_mac_addr, VIRTIO_NET_F_CTRL_MAC_ADDR },
		{ n->ctrl_vq && n->ctrl_guest_offloads && n->guest_csum,
		  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS },
		{ n->ctrl_vq && n->status && n->guest_announce, VIRTIO_NET_F_GUEST_ANNOUNCE },
		{ n->ctrl_vq && n->pairs > 1, VIRTIO_NET_F_MQ },
		{ n->speed != (uint32_t)VNET_SPEED_UNKNOWN || n->duplex,
		  VIRTIO_NET_F_SPEED_DUPLEX },
	};

	n->vd.host_features = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].on)
			n->vd.host_features |= BIT(rows[i].feature);
}

/* The first address from 52:54:00:12:34:56 on that no other card has. */
static void vnet_choose_mac(struct vnet *n)
{
	static const uint8_t first[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };
	const struct dev_class *cls = n->vd.dev.cls;
	bool taken = true;

	memcpy(n->mac, first, 6);
	for (; taken; n->mac[5]++) {
		taken = false;
		for (struct dev *d = n->vd.dev.md->first; d; d = d->next)
			taken |= d->cls == cls && d != &n->vd.dev && d->realized &&
				 !memcmp(container_of(d, struct vnet, vd.dev)->mac, n->mac, 6);
		if (!taken)
			break;
	}
}

static int vnet_check(struct vnet *n, struct err *e)
{
	const char *id = n->vd.dev.id;

	if (n->host_mtu && n->host_mtu < 68)
		return err_set(e, EINVAL, "%s: host-mtu=%u: 68 is the least", id, n->host_mtu);
	if (n->duplex && strcmp(n->duplex, "full") && strcmp(n->duplex, "half"))
		return err_set(e, EINVAL, "%s: duplex=%s: full or half", id, n->duplex);
	if (n->speed != (uint32_t)VNET_SPEED_UNKNOWN && n->speed > INT32_MAX)
		return err_set(e, EINVAL, "%s: speed is too large", id);
	for (unsigned i = 0; i < 2; i++) {
		unsigned size = i ? n->tx_size : n->rx_size;

		if (size < 256 || size > VIRTQ_SIZE_MAX || size & (size - 1))
			return err_set(e, EINVAL, "%s: %s-queue-size=%u: 256, 512 or 1024", id,
				       i ? "tx" : "rx", size);
	}
	if (n->mac_text && net_mac_parse(n->mac_text, n->mac, e))
		return err_prefix(e, "%s", id);
	return 0;
}

static int vnet_realize(struct dev *d, struct err *e)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);
	unsigned queues;
	int r = vnet_check(n, e);

	if (r)
		return r;
	if (!n->mac_text)
		vnet_choose_mac(n);
	n->pairs = (uint16_t)(n->netdev && n->mq && n->ctrl_vq ? n->netdev->queues : 1);
	queues = 2u * n->pairs + n->ctrl_vq;
	r = virtio_dev_init(&n->vd, &vnet_vclass, queues, VIRTQ_SIZE_DEFAULT, e);
	if (r)
		return r;
	for (unsigned i = 0; i < n->pairs; i++) {
		n->vd.queue_size[vnet_rxq(i)] = n->rx_size;
		n->vd.queue_size[vnet_txq(i)] = n->tx_size;
		n->port[i] = (struct netport){ .ops = &vnet_port, .queue = i };
	}
	if (n->ctrl_vq)
		n->vd.queue_size[2 * n->pairs] = VNET_CTRL_SIZE;
	vnet_offer(n);
	if (!n->netdev)
		return 0;
	virtio_lock(&n->vd);
	r = netdev_attach(n->netdev, n->port, n->pairs, e);
	if (r == 0) {
		r = netdev_set_loop(n->netdev, virtio_loop(&n->vd), e);
		if (r == 0)
			r = vnet_vhost_new(n, e);
		if (r)
			netdev_detach(n->netdev);
	}
	virtio_unlock(&n->vd);
	return r ? err_prefix(e, "%s", d->id) : 0;
}

static void vnet_reset(struct dev *d, enum reset_kind k)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);

	virtio_lock(&n->vd);
	n->s = (struct vnet_state){ .link_up = n->link };
	vnet_ctrl_reset(n);
	virtio_unlock(&n->vd);
}

static int vnet_loaded(struct dev *d, struct err *e)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);

	if (n->s.pairs < 1 || n->s.pairs > n->pairs)
		return err_set(e, EINVAL, "%u pairs of queues of %u", n->s.pairs, n->pairs);
	if (n->s.nunicast > n->s.nmacs)
		return err_set(e, EINVAL, "more unicast addresses than addresses");
	if (n->s.offloads & ~n->vd.host_features)
		return err_set(e, EINVAL, "offloads that are not offered");
	return 0; /* the rest follows when the transport starts the device */
}

static void vnet_unrealize(struct dev *d)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);

	virtio_lock(&n->vd);
	vnet_vhost_free(n);
	if (n->port[0].peer) {
		/* back to the loop it came from, which outlives an iothread's */
		netdev_detach(n->netdev);
		(void)!netdev_set_loop(n->netdev, d->md->loop, NULL);
	}
	virtio_unlock(&n->vd);
}

void virtio_net_set_link(struct dev *d, bool up)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);

	virtio_lock(&n->vd);
	n->s.link_up = up;
	vnet_status_changed(n);
	vnet_vhost_update(n);
	for (unsigned i = 0; i < n->pairs; i++)
		net_room(&n->port[i]);
	virtio_unlock(&n->vd);
}

void virtio_net_announce(struct dev *d)
{
	struct vnet *n = container_of(d, struct vnet, vd.dev);

	virtio_lock(&n->vd);
	if (virtio_has(&n->vd, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
		n->s.announce = true;
		vnet_status_changed(n);
	}
	virtio_unlock(&n->vd);
}

const struct dev_class virtio_net_class = {
	.name = "virtio-net",
	.desc = "network card",
	.size = sizeof(struct vnet),
	.props = vnet_props,
	.state = STATE_OF(struct vnet, s, vnet_fields, 1),
	.realize = vnet_realize,
	.reset = vnet_reset,
	.loaded = vnet_loaded,
	.unrealize = vnet_unrealize,
	.bus = "virtio",
};
