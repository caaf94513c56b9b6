/*
 * A split virtqueue of our own, seen from the driver's side: the ring between us and the kernel's
 * vhost. The device that uses it is trusted with the guest's data, but what it writes to the ring
 * is checked: a wrong index marks the ring broken and nothing else happens.
 *
 * Descriptors are direct, with addresses of this process. The event index is always used.
 * References: [VIRTIO1.2 2.7] split virtqueues, [VIRTIO1.2 2.7.7], [VIRTIO1.2 2.7.10] events.
 * Threads: one at a time, its owner's lock; the device works at the same time.
 * Host resources: memory and two eventfds.
 */
#pragma once
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * Descriptors: a power of two, not less than the longest chain (VIRTQ_SEGS_MAX). Receive buffers
 * stay here for long, so all rings together must leave a device room for others.
 */
enum { VHOST_RING_SIZE = 1024 };

struct vhost_ring {
	struct vring_desc *desc; /* the start of the memory that all three are in */
	uint16_t *avail;         /* [0] flags, [1] index, [2..] ring, then used_event */
	uint8_t *used;           /* u16 flags, u16 index, pairs of u32, then u16 avail_event */
	void **cookie;           /* of a chain, by its head; NULL: it is not out */
	uint16_t free, room;     /* first free descriptor, and how many there are */
	uint16_t next;           /* chains made available so far, modulo 2^16 */
	uint16_t kicked;         /* the same at the last kick */
	uint16_t seen, end;      /* used entries taken; those known to be there */
	unsigned out;            /* chains that the device has */
	bool broken;             /* the device wrote nonsense */
	int kick, call;          /* eventfds, non-blocking: for the device; from it */
};

/* -errno; r is freed by vhost_ring_exit in any case. */
int vhost_ring_init(struct vhost_ring *r);
void vhost_ring_exit(struct vhost_ring *r);

/* As new: nothing is out. While the device does not use it. */
void vhost_ring_reset(struct vhost_ring *r);

/*
 * Give a chain to the device: out to be read, then in to be written; n_out + n_in > 0, no piece is
 * empty. cookie: not NULL. False: no room before others have come back. The kick tells of it.
 */
bool vhost_ring_add(struct vhost_ring *r, const struct iovec *out, unsigned n_out,
		    const struct iovec *in, unsigned n_in, void *cookie);

/* Tell the device of what was added, if it wants to know; force: in any case. */
void vhost_ring_kick(struct vhost_ring *r, bool force);

/*
 * The next chain that has come back: its cookie, and the bytes written. NULL: none. What the device
 * makes visible together (a frame in several buffers) ends where vhost_ring_more() is false.
 */
void *vhost_ring_get(struct vhost_ring *r, uint32_t *len);
bool vhost_ring_more(const struct vhost_ring *r);

/* Be called (r->call) for the next chain that comes back. True: one is there already. */
bool vhost_ring_arm(struct vhost_ring *r);

/*
 * The device has stopped, and would have taken chain number base next: take back what is out, the
 * last one first. *begun: the device had taken it. NULL: that was all.
 */
void *vhost_ring_take_back(struct vhost_ring *r, uint16_t base, bool *begun);
