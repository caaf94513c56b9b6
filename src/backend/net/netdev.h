/*
 * Network: what a NIC and the host's end of its cable say to each other.
 *
 * A *port* (struct netport) is one end of a cable that carries Ethernet frames. A NIC has a port
 * for each pair of its queues, a *netdev* (the host's end: user networking, a tap, a socket) has as
 * many, and netdev_attach joins them one to one.
 *
 * A frame is a vector of bytes with a header that says what is left to be done to it (net_hdr, the
 * layout of virtio's and the tap's): a checksum to be filled in, a large segment to be cut. Each
 * port says what it takes unfinished (accepts). A sender may leave anything undone: net_send does
 * in software what the receiver does not take (offload.h).
 *
 * Flow control, the same in both directions: net_send returns false when the receiver has no room.
 * The frame was not taken; the sender keeps it, sends it again (the same frame first) when its
 * room() is called, and meanwhile stops producing. The receiver calls net_room() when it has room
 * again. A port whose link is down, or that has no peer, swallows frames.
 *
 * Threads: a netdev has a loop (the main loop, or that of its NIC's iothread: netdev_set_loop).
 * Everything here is called on that loop's thread or with its dispatch lock held, and calls back
 * at once, so a callback must not free or detach ports. Captures (filters) run there, too.
 * Hostile: frames, from both sides. Headers from a guest are checked by net_hdr_check or, when
 * nothing relies on them, handed through to the kernel, which checks them again.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

#include "base/err.h"
#include "core/loop.h"

enum {
	NET_QUEUES_MAX = 16,   /* pairs of queues of one NIC */
	NET_FRAME_MAX = 65550, /* bytes of the longest frame: a 64-KiB segment and its headers */
	NET_IOV_MAX = 1024,    /* pieces of a frame, as sent and as received */
	NET_ETH_MIN = 14,      /* shorter frames are dropped by net_send */
	NET_FRAME_USUAL =
		1518, /* of an interface with the usual MTU of 1500, a VLAN tag included */
};

/* What is left to be done; the layout of struct virtio_net_hdr, little-endian. */
struct net_hdr {
	uint8_t flags;    /* NET_HDR_* */
	uint8_t gso_type; /* NET_GSO_* */
	uint16_t hdr_len; /* a hint: bytes of all headers */
	uint16_t gso_size;
	uint16_t csum_start, csum_offset;
};
enum { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum {
	NET_GSO_NONE = 0,
	NET_GSO_TCPV4 = 1,
	NET_GSO_UDP = 3, /* a datagram to be cut into IP fragments (UFO) */
	NET_GSO_TCPV6 = 4,
	NET_GSO_UDP_L4 = 5, /* several datagrams (USO) */
	NET_GSO_ECN = 0x80,
};

/* Unfinished frames that a port takes. */
enum {
	NET_CSUM = 1,
	NET_TSO4 = 2,
	NET_TSO6 = 4,
	NET_ECN = 8, /* TSO of segments with CWR set */
	NET_UFO = 16,
	NET_USO = 32,
	NET_ALL = 63
};

/* A frame. The bytes and the vector are the sender's and valid during the call only. */
struct netpkt {
	const struct iovec *iov;
	unsigned n;
	size_t len; /* sum of the vector */
	struct net_hdr hdr;
};

struct netport;
struct netdev;
struct vhost;

struct netport_ops {
	/* A frame for this port, which finished as accepts asks. False: no room, not taken. */
	bool (*receive)(struct netport *p, const struct netpkt *pkt);
	/* The peer, which had no room, has room again. May be NULL for those who never wait. */
	void (*room)(struct netport *p);
	/* The sender pauses: tell the guest of what came, say. NULL: nothing to do. */
	void (*flush)(struct netport *p);
	/* The link to the peer went up or down, its accepts or off changed. NULL: ignored. */
	void (*changed)(struct netport *p);
};

struct netport {
	const struct netport_ops *ops;
	struct netport *peer; /* NULL: no cable */
	struct netdev *nd;    /* the host's end of the cable; NULL for a NIC without one */
	unsigned queue;
	unsigned accepts;    /* NET_*; net_accepts() changes it */
	bool off;            /* the guest does not serve this queue: frames for it go to others */
	bool owes_room;      /* a frame was refused here: net_room() is owed to the peer */
	unsigned cut_done;   /* segments of the sender's current large frame that are delivered */
	uint64_t sent, lost; /* frames; those swallowed */
};

/* Send a frame over the cable of p. False: keep it, room() will be called. */
bool net_send(struct netport *p, const struct netpkt *pkt) must_check;
/* The sender, p, pauses: calls the .flush of its peer. */
void net_flush(struct netport *p);
/* p's owner has room again; harmless when it never refused. Calls the peer's room(). */
void net_room(struct netport *p);
/* The sender drops the frame that was refused (a reset): forget how much of it was sent. */
void net_forget(struct netport *p);
/* Change what p takes unfinished; the peer hears of it. */
void net_accepts(struct netport *p, unsigned accepts);
/* A NIC's queue is served or not (at the start it is); the peer hears of it. */
void net_serve(struct netport *p, bool on);
/* Is there a cable, and is its link up? */
bool net_link(const struct netport *p);

/* Bytes [off, off + len) of a frame into buf; the bytes copied, fewer at its end. */
size_t netpkt_get(const struct netpkt *pkt, size_t off, void *buf, size_t len);
/* A frame of one piece; iov is the caller's. hdr NULL: nothing left to be done. */
struct netpkt netpkt_of(struct iovec *iov, const void *buf, size_t len, const struct net_hdr *hdr);

/* ---- Captures ------------------------------------------------------------------------------ */

/* Sees every frame of a netdev, as its sender sent it. */
struct netfilter {
	/* from_guest: sent by the NIC. */
	void (*frame)(struct netfilter *f, bool from_guest, const struct netpkt *pkt);
	void (*free)(struct netfilter *f);
	char *id; /* owned */
	struct netdev *nd;
	struct netfilter *next;
};

/* ---- The host's end ------------------------------------------------------------------------ */

struct netdev_ops {
	const char *name; /* "user" */
	/* l is the loop from now on; called before frames flow. NULL: it has nothing in a loop. */
	int (*set_loop)(struct netdev *nd, struct loop *l, struct err *e);
	/*
	 * For those with vhost: the kernel serves a queue from now on, with hdr_len bytes of header
	 * (10 or 12, the same for all queues). The descriptor that it works on, or -errno.
	 */
	int (*lend)(struct netdev *nd, unsigned queue, unsigned hdr_len, struct err *e);
	/* It does so no more. */
	void (*take_back)(struct netdev *nd, unsigned queue);
	/* One line for people: addresses, the tap's name. NULL: none. */
	void (*info)(struct netdev *nd, FILE *out);
	void (*free)(struct netdev *nd);
};

/* Embedded first in each kind's struct. */
struct netdev {
	const struct netdev_ops *ops;
	char *id;
	struct loop *loop;
	struct netport port[NET_QUEUES_MAX]; /* the host's ends */
	/* The kernel's engine for each queue (vhost.h): the NIC may use it instead of the ports. */
	struct vhost *vhost[NET_QUEUES_MAX]; /* NULL: there is none; for all queues or for none */
	unsigned queues;
	bool attached;  /* a NIC has it */
	bool link_up;   /* the user's switch; true at the start */
	bool connected; /* the kind's own: a stream without a peer is not */
	struct netfilter *filters;
	struct netdev *next;
};

/* For kinds: fill the common part. 0 or -ENOMEM. */
int netdev_init(struct netdev *nd, const struct netdev_ops *ops, struct loop *l, const char *id,
		unsigned queues, const struct netport_ops *port, unsigned accepts,
		struct err *e) must_check;
/* For kinds, in set_loop: watch f in l, for its present events; fd -1: nothing to do. */
int netdev_move_fd(struct netdev *nd, struct loop_fd *f, struct loop *l, struct err *e) must_check;
/* For kinds: the other side came or went. */
void netdev_connected(struct netdev *nd, bool connected);

/*
 * For NICs: join queues ports (the NIC's, one for each pair of queues it may use) to nd. -EBUSY
 * when another NIC has it, -EINVAL when it has not so many queues.
 */
int netdev_attach(struct netdev *nd, struct netport *nic, unsigned queues,
		  struct err *e) must_check;
/* For NICs: leave it. NULL is allowed. */
void netdev_detach(struct netdev *nd);
/* For NICs, before frames flow: serve it in this loop (an iothread's). */
int netdev_set_loop(struct netdev *nd, struct loop *l, struct err *e) must_check;

/* The user's switch of the link. Both ends hear of it. */
void netdev_set_link(struct netdev *nd, bool up);

void netdev_add_filter(struct netdev *nd, struct netfilter *f);

/* Detach, close, free, filters too. NULL is allowed. */
void netdev_free(struct netdev *nd);

/* The netdevs of a machine, by id. */
struct netdevs {
	struct netdev *first;
};
int netdevs_add(struct netdevs *ns, struct netdev *nd, struct err *e) must_check; /* takes it */
struct netdev *netdevs_find(const struct netdevs *ns, const char *id);
void netdevs_free(struct netdevs *ns);
