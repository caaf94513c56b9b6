/*
 * The control queue of virtio-net: receive modes, MAC table, VLAN filter, announcements, number of
 * queues, offloads; and the filter that follows from them.
 *
 * A command is a class byte, a command byte and data, answered by one byte: 0 or 1 (error). A
 * command that is too short or unknown is an error; one without room for the answer breaks the
 * device. Data beyond what a command needs is ignored.
 * Reference: [VIRTIO1.2 5.1.6.5 "Control Virtqueue"]. Threads: the device's lock.
 */
#include <linux/virtio_net.h>
#include <string.h>

#include "virtio/net.h"

static uint64_t vnet_offload_bits(void)
{
	return BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
	       BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |
	       BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(54) | BIT(55); /* USO4, USO6 */
}

void vnet_ctrl_reset(struct vnet *n)
{
	struct vnet_state *s = &n->s;

	s->offloads = 0;
	s->pairs = 1;
	s->nmacs = s->nunicast = 0;
	memset(s->macs, 0, sizeof(s->macs));
	s->uni_overflow = s->multi_overflow = false;
	s->promisc = true; /* until the driver says otherwise */
	s->allmulti = s->alluni = s->nomulti = s->nouni = s->nobcast = false;
	s->announce = false;
	memcpy(s->mac, n->mac, sizeof(s->mac));
	memset(s->vlans, 0xff, sizeof(s->vlans));
}

void vnet_ctrl_negotiated(struct vnet *n, uint64_t features)
{
	n->s.offloads = features & vnet_offload_bits();
	memset(n->s.vlans, features & BIT(VIRTIO_NET_F_CTRL_VLAN) ? 0 : 0xff, sizeof(n->s.vlans));
}

/* ---- Commands: true is OK ------------------------------------------------------------------- */

struct vnet_cmd {
	const struct virtq_elem *el;
	uint64_t off; /* of the data */
};

static bool cmd_take(struct vnet_cmd *c, void *buf, size_t len)
{
	size_t got = virtq_elem_read(c->el, c->off, buf, len);

	c->off += got;
	return got == len;
}

static bool vnet_ctrl_rx(struct vnet *n, struct vnet_cmd *c, uint8_t cmd)
{
	struct vnet_state *s = &n->s;
	uint8_t on;

	if (!virtio_has(&n->vd, VIRTIO_NET_F_CTRL_RX) || !cmd_take(c, &on, 1))
		return false;
	if (cmd > VIRTIO_NET_CTRL_RX_ALLMULTI && !virtio_has(&n->vd, VIRTIO_NET_F_CTRL_RX_EXTRA))
		return false;
	switch (cmd) {
	case VIRTIO_NET_CTRL_RX_PROMISC: s->promisc = on; return true;
	case VIRTIO_NET_CTRL_RX_ALLMULTI: s->allmulti = on; return true;
	case VIRTIO_NET_CTRL_RX_ALLUNI: s->alluni = on; return true;
	case VIRTIO_NET_CTRL_RX_NOMULTI: s->nomulti = on; return true;
	case VIRTIO_NET_CTRL_RX_NOUNI: s->nouni = on; return true;
	case VIRTIO_NET_CTRL_RX_NOBCAST: s->nobcast = on; return true;
	default: return false;
	}
}

/* One of the two lists of a table: a count and addresses. Those that do not fit set *overflow. */
static bool vnet_mac_list(struct vnet_cmd *c, uint8_t *macs, uint8_t *n, bool *overflow)
{
	uint32_t count;

	if (!cmd_take(c, &count, sizeof(count)))
		return false;
	if ((uint64_t)count * 6 > c->el->out_len - c->off)
		return false;
	*overflow = count > (uint32_t)(VNET_MACS - *n);
	if (*overflow) {
		c->off += (uint64_t)count * 6;
		return true;
	}
	if (!cmd_take(c, macs + *n * 6u, count * 6u))
		return false;
	*n = (uint8_t)(*n + count);
	return true;
}

static bool vnet_ctrl_mac(struct vnet *n, struct vnet_cmd *c, uint8_t cmd)
{
	struct vnet_state *s = &n->s;
	uint8_t macs[VNET_MACS * 6] = { 0 }, mac[6], count = 0, unicast;
	bool uni, multi;

	if (cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		if (!virtio_has(&n->vd, VIRTIO_NET_F_CTRL_MAC_ADDR) || !cmd_take(c, mac, 6))
			return false;
		memcpy(s->mac, mac, 6);
		return true;
	}
	if (cmd != VIRTIO_NET_CTRL_MAC_TABLE_SET || !virtio_has(&n->vd, VIRTIO_NET_F_CTRL_RX))
		return false;
	if (!vnet_mac_list(c, macs, &count, &uni))
		return false;
	unicast = count;
	if (!vnet_mac_list(c, macs, &count, &multi))
		return false;
	memcpy(s->macs, macs, sizeof(macs));
	s->nmacs = count;
	s->nunicast = unicast;
	s->uni_overflow = uni;
	s->multi_overflow = multi;
	return true;
}

static bool vnet_ctrl_vlan(struct vnet *n, struct vnet_cmd *c, uint8_t cmd)
{
	uint16_t vid;

	if (!virtio_has(&n->vd, VIRTIO_NET_F_CTRL_VLAN) || !cmd_take(c, &vid, 2) ||
	    vid >= VNET_VLANS)
		return false;
	if (cmd == VIRTIO_NET_CTRL_VLAN_ADD)
		n->s.vlans[vid / 32] |= 1u << vid % 32;
	else if (cmd == VIRTIO_NET_CTRL_VLAN_DEL)
		n->s.vlans[vid / 32] &= ~(1u << vid % 32);
	else
		return false;
	return true;
}

static bool vnet_ctrl_announce(struct vnet *n, uint8_t cmd)
{
	if (cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
	    !virtio_has(&n->vd, VIRTIO_NET_F_GUEST_ANNOUNCE) || !n->s.announce)
		return false;
	n->s.announce = false;
	n->status_seen &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
	return true;
}

static bool vnet_ctrl_mq(struct vnet *n, struct vnet_cmd *c, uint8_t cmd)
{
	uint16_t pairs;

	if (cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !virtio_has(&n->vd, VIRTIO_NET_F_MQ) ||
	    !cmd_take(c, &pairs, 2) || pairs < 1 || pairs > n->pairs)
		return false;
	n->s.pairs = pairs;
	vnet_apply(n);
	return true;
}

static bool vnet_ctrl_offloads(struct vnet *n, struct vnet_cmd *c, uint8_t cmd)
{
	uint64_t f;

	if (cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !virtio_has(&n->vd, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !cmd_take(c, &f, 8))
		return false;
	if (f & ~vnet_offload_bits())
		return false;
	for (unsigned bit = 0; bit < 64; bit++)
		if (f & BIT(bit) && !virtio_has(&n->vd, bit))
			return false;
	n->s.offloads = f;
	vnet_apply(n);
	return true;
}

static bool vnet_command(struct vnet *n, const struct virtq_elem *el)
{
	struct vnet_cmd c = { .el = el };
	uint8_t head[2];

	if (!cmd_take(&c, head, 2))
		return false;
	trace(&n->vd.dev, "ctrl", head[0], head[1]);
	switch (head[0]) {
	case VIRTIO_NET_CTRL_RX: return vnet_ctrl_rx(n, &c, head[1]);
	case VIRTIO_NET_CTRL_MAC: return vnet_ctrl_mac(n, &c, head[1]);
	case VIRTIO_NET_CTRL_VLAN: return vnet_ctrl_vlan(n, &c, head[1]);
	case VIRTIO_NET_CTRL_ANNOUNCE: return vnet_ctrl_announce(n, head[1]);
	case VIRTIO_NET_CTRL_MQ: return vnet_ctrl_mq(n, &c, head[1]);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS: return vnet_ctrl_offloads(n, &c, head[1]);
	default: return false;
	}
}

void vnet_ctrl_queue(struct vnet *n, unsigned queue)
{
	struct virtq *q = virtio_queue(&n->vd, queue);
	struct virtq_elem *el;

	while ((el = virtq_pop(q))) {
		uint8_t ack = VIRTIO_NET_ERR;

		if (!el->in_len) {
			virtio_broken(&n->vd, "ctrl_no_room", el->out_len);
			virtq_drop(el);
			break;
		}
		if (vnet_command(n, el))
			ack = VIRTIO_NET_OK;
		else
			guest_error(&n->vd.dev, "ctrl_refused", el->out_len);
		virtq_elem_write(el, 0, &ack, 1);
		virtq_push(el, 1);
	}
	virtq_notify(q);
}

/* ---- Filter --------------------------------------------------------------------------------- */

static bool vnet_in_table(const uint8_t *macs, unsigned from, unsigned to, const uint8_t *mac)
{
	for (unsigned i = from; i < to; i++)
		if (!memcmp(macs + 6 * i, mac, 6))
			return true;
	return false;
}

bool vnet_filter(const struct vnet *n, const struct netpkt *pkt)
{
	static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	const struct vnet_state *s = &n->s;
	uint8_t b[16];

	if (s->promisc)
		return true;
	if (netpkt_get(pkt, 0, b, 14) < 14)
		return false;
	if (b[12] == 0x81 && b[13] == 0) {
		unsigned vid;

		if (netpkt_get(pkt, 14, b + 14, 2) < 2)
			return false;
		vid = (b[14] & 15u) << 8 | b[15];
		if (!(s->vlans[vid / 32] & 1u << vid % 32))
			return false;
	}
	if (!(b[0] & 1))
		return !s->nouni && (s->alluni || s->uni_overflow || !memcmp(b, s->mac, 6) ||
				     vnet_in_table(s->macs, 0, s->nunicast, b));
	if (!memcmp(b, all, 6))
		return !s->nobcast;
	return !s->nomulti && (s->allmulti || s->multi_overflow ||
			       vnet_in_table(s->macs, s->nunicast, s->nmacs, b));
}
