/*
 * The kernel's vhost-net for one pair of queues: it moves frames between a tap and buffers in this
 * process, in a thread of the kernel's.
 *
 * What it works on are two rings of *ours* (vhost_ring.h), not the guest's; virtio/net_vhost.c
 * passes buffers from one to the other, and says why. So everything here is independent of what a
 * guest negotiated, but for the length of the header before each frame.
 *
 * Addresses in the rings are those of this process: the memory table maps each block to itself.
 * References: linux/vhost.h and Documentation of the kernel's UAPI; [QEMU-MAN] for the options.
 * Threads: one at a time (the lock of the netdev's loop). Host resources: the descriptor of
 * /dev/vhost-net, two rings, an eventfd; and what the kernel has for it: a thread.
 */
#pragma once
#include <linux/vhost.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/net/vhost_ring.h"
#include "base/err.h"

enum { VHOST_RX, VHOST_TX, VHOST_RINGS };

struct netdev;
struct netdev_opts;

/* How the kernel is called, so that tests can be the kernel. */
struct vhost_sys {
	int (*ioctl)(void *opaque, int fd, unsigned long request, void *arg); /* 0 or -errno */
	void *opaque;
};

struct vhost {
	int fd; /* of /dev/vhost-net; -1: given up, after an error */
	struct vhost_sys sys;
	uint64_t offered;
	uint32_t busy_us; /* the kernel polls for so long before it sleeps; 0: not at all */
	bool running;
	int error; /* eventfd: the kernel met something it cannot work with */
	struct vhost_ring ring[VHOST_RINGS];
};

/* /dev/vhost-net. -errno with a message. */
int vhost_open(struct err *e) must_check;

/*
 * Take over a descriptor; it is closed on failure, too. sys NULL: the kernel. NULL with a message
 * when the kernel refuses, or lacks what is needed.
 */
struct vhost *vhost_new(int fd, const struct vhost_sys *sys, struct err *e);
/*
 * For netdevs: what the options ask for, in nd->vhost. Without vhostforce a host that has no
 * vhost-net is a warning, and frames go through us: as QEMU does it, so that one command line fits
 * all hosts. A descriptor that is wrong is an error. vnet_hdr: frames have a header.
 */
int netdev_vhost_new(struct netdev *nd, const struct netdev_opts *o, bool vnet_hdr,
		     struct err *e) must_check;
/* Stops it. NULL is allowed. */
void vhost_free(struct vhost *v);

/* Which memory buffers may lie in: at least one region. 0, or -errno with a message. */
int vhost_set_memory(struct vhost *v, const struct vhost_memory *mem, struct err *e) must_check;

/*
 * Begin to serve the tap: frames have a header of hdr_len bytes (10 or 12: virtio's), and one may
 * be spread over several buffers if merge. Both rings are empty afterwards. Memory must be set. On
 * failure nothing runs.
 */
int vhost_start(struct vhost *v, int tap, unsigned hdr_len, bool merge, struct err *e) must_check;

/*
 * The kernel touches no buffer any more when this returns; base gets the number of the chain that
 * each ring would go on with. Chains that are out are taken back by the caller: used ones by
 * vhost_ring_get, the others by vhost_ring_take_back.
 */
void vhost_stop(struct vhost *v, uint16_t base[VHOST_RINGS]);
