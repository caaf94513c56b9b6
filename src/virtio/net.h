/*
 * virtio-net for the rest of the program, and what its files share.
 * Threads: functions for others: under the device lock.
 */
#pragma once
#include "backend/net/netdev.h"
#include "virtio/virtio.h"

enum { VNET_MACS = 64, VNET_VLANS = 4096 };

/* The user's switch of a card's link, on at the start. d is a virtio-net. */
void virtio_net_set_link(struct dev *d, bool up);
/* Ask the guest to announce itself in its network (after a migration). */
void virtio_net_announce(struct dev *d);

/* ---- Private to virtio/net*.c -------------------------------------------------------------- */

struct vnet_state {
	uint64_t offloads; /* VIRTIO_NET_F_GUEST_* that the driver uses now */
	uint32_t vlans[VNET_VLANS / 32];
	uint16_t pairs; /* of queues in use */
	uint8_t mac[6];
	uint8_t macs[VNET_MACS * 6]; /* unicast first */
	uint8_t nmacs, nunicast;
	bool uni_overflow, multi_overflow; /* more than the table holds: take all */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool link_up, announce;
	uint8_t reserved[4];
};

struct vnet {
	struct virtio_dev vd;
	/* properties */
	struct netdev *netdev;
	char *mac_text, *duplex;
	uint16_t host_mtu, rx_size, tx_size;
	uint32_t speed;
	bool mq, link, status, mrg_rxbuf, csum, guest_csum, gso;
	bool host_tso4, host_tso6, host_ecn, host_ufo, host_uso;
	bool guest_tso4, guest_tso6, guest_ecn, guest_ufo, guest_uso4, guest_uso6;
	bool ctrl_vq, ctrl_rx, ctrl_rx_extra, ctrl_vlan, ctrl_mac_addr, ctrl_guest_offloads;
	bool guest_announce;
	/* What follows from them and from negotiation */
	uint8_t mac[6];           /* at power-on */
	uint16_t pairs;           /* at most */
	unsigned hdr_len, tx_may; /* NET_* that the driver may leave undone */
	uint16_t status_seen;     /* what the driver was told last */
	bool paused;
	bool tx_wait[NET_QUEUES_MAX]; /* the backend has no room */
	struct netport port[NET_QUEUES_MAX];
	struct vnet_vhost *vhost; /* NULL: the netdev has no vhost */
	struct vnet_state s;
};

static inline struct vnet *vnet_of(struct virtio_dev *vd)
{
	return container_of(vd, struct vnet, vd);
}

/* net_ctrl.c: the control queue; the state that it sets at a reset; the receive filter. */
void vnet_ctrl_queue(struct vnet *n, unsigned queue);
void vnet_ctrl_reset(struct vnet *n);
void vnet_ctrl_negotiated(struct vnet *n, uint64_t features);
bool vnet_filter(const struct vnet *n, const struct netpkt *pkt);

/*
 * net_vhost.c: queues that the kernel serves. new: in realize, after the netdev is attached; it
 * does nothing when that has no vhost, and then the others do nothing, either.
 */
int vnet_vhost_new(struct vnet *n, struct err *e) must_check;
void vnet_vhost_free(struct vnet *n);
/* Something has changed that decides who serves which pair: link, pairs, status. */
void vnet_vhost_update(struct vnet *n);
/* Take pairs from .. to - 1 back; forget: the driver has reset the device. */
void vnet_vhost_stop(struct vnet *n, unsigned from, unsigned to, bool forget);
/* Queue (not the control queue) was kicked. False: the kernel does not serve it. */
bool vnet_vhost_queue(struct vnet *n, unsigned queue);

/* net.c: offloads or the number of queues have changed. */
void vnet_apply(struct vnet *n);
void vnet_status_changed(struct vnet *n);
