/*
 * Virtio, as a device sees it: what a device class provides, and the queues it takes elements from.
 *
 * Two devices make one of the guest's: a *virtio device* (virtio-blk, virtio-rng, ...; its struct
 * begins with a struct virtio_dev) knows what the requests mean; a *transport* (virtio-mmio,
 * virtio-pci; virtio/transport.h) knows how registers, addresses and interrupts look. Between them
 * stands the core (struct virtio, part of the transport): status, feature negotiation, rings.
 * What the core keeps of the guest's is in the transport's state table; a device's table has only
 * its own. A device without a transport (tests) works, has no queues and never runs.
 *
 * Elements: virtq_pop takes the next chain of buffers from a queue, checked and translated: an
 * array of iovecs into guest memory that the device reads ("out": the driver's output) and one it
 * writes ("in"). The device gives each back with virtq_push (or virtq_drop in its reset callback),
 * in any order, however long it takes. The guest can write all that memory at any time: read a
 * value once into a local, check the local.
 *
 * Broken drivers: whatever is wrong with a ring or a chain, the core sets NEEDS_RESET, and
 * virtq_pop gives NULL until the driver resets the device. A device that finds nonsense in an
 * element calls virtio_broken() or answers with its own error code, as its section of the
 * specification says.
 *
 * Threads: a device's queue handler and all that touches its queues runs in one loop: the main
 * loop, or that of its iothread, with that loop's dispatch lock: *the device's lock* (virtio_lock).
 * For a device on the main loop this is the device lock. Config, status and reset callbacks come
 * from vCPU threads with the device lock and virtio_lock held, so never at the same time as a
 * handler. Functions below: with virtio_lock, if they do not say otherwise.
 * Reset: the core calls .reset, which drops or cancels what can be; then waits (serving the loop,
 * or letting go of the locks) until every element popped has come back. So after a reset nothing
 * touches guest memory any more, as the specification wants; a device must finish by itself what
 * it could not drop.
 * References: [VIRTIO1.2 2] basic facilities, [VIRTIO1.2 2.7] split virtqueues.
 */
#pragma once
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/dev.h"
#include "core/iothread.h"

enum {
	VIRTIO_QUEUES_MAX = 64,
	VIRTIO_CONFIG_MAX = 256, /* bytes of device configuration */
	VIRTQ_SIZE_MAX = 1024,
	VIRTQ_SIZE_DEFAULT = 256,
	VIRTQ_SEGS_MAX = 1024, /* buffers of one element */
};

struct virtio;
struct virtio_dev;
struct virtq;

/* What a kind of virtio device is. Everything but id, config_size and queue may be NULL or 0. */
struct virtio_class {
	uint16_t id;            /* VIRTIO_ID_... */
	uint16_t pci_legacy_id; /* PCI device id of the transitional device, 0: there is none */
	uint32_t pci_class;     /* PCI class code, 24 bits: 0x020000 is an Ethernet controller */
	uint32_t config_size;   /* of the device configuration, at most VIRTIO_CONFIG_MAX */
	uint32_t elem_priv;     /* bytes of the device's own behind each element (elem->priv) */

	/* Fill cfg (config_size bytes, zeroed) with what the driver would read now. */
	void (*config_get)(struct virtio_dev *vd, void *cfg);
	/* The driver has written cfg[off, off+len). cfg is config_get's with these changed. */
	void (*config_set)(struct virtio_dev *vd, const void *cfg, uint32_t off, uint32_t len);
	/*
	 * The driver wants these features, a subset of what was offered. -EINVAL refuses: the
	 * driver reads FEATURES_OK as clear. A legacy driver cannot be refused.
	 */
	int (*negotiated)(struct virtio_dev *vd, uint64_t features);
	/* The driver is ready (DRIVER_OK), or the machine goes on after a pause or load. */
	void (*start)(struct virtio_dev *vd);
	/*
	 * There may be elements in queue n: pop until NULL, or until no more can be taken (then
	 * call virtio_queue_run when that changes). The core turns the driver's notifications off
	 * before and on after, and calls again if elements came meanwhile.
	 */
	void (*queue)(struct virtio_dev *vd, unsigned n);
	/*
	 * The driver takes queue n away while the device runs: nothing may be written to elements
	 * of it any more. NULL: the device writes in its handlers only.
	 */
	void (*disabled)(struct virtio_dev *vd, unsigned n);
	/* The driver resets the device. Drop or cancel elements; forget what the driver set up. */
	void (*reset)(struct virtio_dev *vd);
	/*
	 * The machine pauses: elements that only wait for something (not for I/O in progress) are
	 * put back by virtq_unpop, to be popped again after .start. The core waits for the others.
	 */
	void (*pause)(struct virtio_dev *vd);
};

/* First member of each virtio device's struct. */
struct virtio_dev {
	struct dev dev;
	/* Set by virtio_dev_init and the device's realize; constant from then on: */
	const struct virtio_class *vc;
	uint64_t host_features; /* device's own feature bits; those of rings the core adds */
	uint16_t queues;
	uint16_t queue_size[VIRTIO_QUEUES_MAX]; /* largest, power of 2; 0: queue is not there */
	/* Properties, see VIRTIO_DEV_PROPS: */
	bool indirect_desc, event_idx, packed;
	struct iothread *iothread; /* NULL: the main loop */

	struct virtio *v; /* core in the transport; NULL: not plugged in */
	unsigned kept;    /* elements out that wait for the machine to go on: virtio_keep */
};

/* clang-format off */
/* Rows for the properties of device struct T, whose first member is named vd. */
#define VIRTIO_DEV_PROPS(T) \
	PROP_N(T, vd.indirect_desc, "indirect-desc", true, "offer indirect descriptors"), \
	PROP_N(T, vd.event_idx, "event-idx", true, "offer event indices: fewer notifications"), \
	PROP_N(T, vd.packed, "packed", false, "offer packed rings")
/* And this, for devices that can work in an I/O thread. */
#define VIRTIO_DEV_PROP_IOTHREAD(T) \
	{ .name = "iothread", .help = "run its queues in this thread instead of the main one", \
	  .kind = PROP_KIND_BACKEND, .off = offsetof(T, vd.iothread), .backend = "iothread" }
/* clang-format on */

/* In realize, before anything else here: n queues of at most size entries each. 0 or -errno. */
int virtio_dev_init(struct virtio_dev *vd, const struct virtio_class *vc, unsigned n, unsigned size,
		    struct err *e) must_check;

/* The loop its queues run in; timers and fds of the device belong there. Any thread. */
struct loop *virtio_loop(const struct virtio_dev *vd);

/* The device's lock, for callbacks that come with the device lock only (dev_class, backends). */
void virtio_lock(struct virtio_dev *vd);
void virtio_unlock(struct virtio_dev *vd);

/* Was feature bit f (VIRTIO_..._F_..., a number) negotiated? */
bool virtio_has(const struct virtio_dev *vd, unsigned f);

/* Does the driver use the legacy interface (no VIRTIO_F_VERSION_1)? */
bool virtio_is_legacy(const struct virtio_dev *vd);

/* Does it run: DRIVER_OK, not broken, not paused? */
bool virtio_running(const struct virtio_dev *vd);

/* The device configuration has changed: interrupt, and a new generation. */
void virtio_config_changed(struct virtio_dev *vd);

/* The driver does what it must not: NEEDS_RESET, queues stop. what: a static name for the trace. */
void virtio_broken(struct virtio_dev *vd, const char *what, uint64_t detail);

/* Queue n, NULL when there is no transport or no such queue. */
struct virtq *virtio_queue(const struct virtio_dev *vd, unsigned n);

/* Call the handler of queue n soon, from its loop. Any thread. */
void virtio_queue_run(struct virtio_dev *vd, unsigned n);

/*
 * n more elements (or -n fewer) will not come back before the machine has been paused and goes on:
 * requests that failed and are to be tried again then. A pause does not wait for them; a reset
 * does, after .reset. A state that is saved meanwhile does not have them.
 */
void virtio_keep(struct virtio_dev *vd, int n);

/* Elements popped and not yet given back, in all queues. */
unsigned virtio_in_flight(const struct virtio_dev *vd);

/* ---- Queues -------------------------------------------------------------------------------- */

struct virtq_elem {
	struct virtq *q;
	uint16_t id, ndesc;           /* private: what the used ring gets */
	uint16_t out_n, in_n;         /* iovecs; none is empty */
	const struct iovec *out, *in; /* device reads; device writes. in follows out in memory */
	uint64_t out_len, in_len;     /* their sums, in bytes */
	void *priv;                   /* elem_priv bytes, not cleared, aligned as malloc's */
	struct virtq_elem *next;      /* for the device, while it has the element */
};

/* Has the driver enabled the queue, and does the device run? q may be NULL. */
bool virtq_ready(const struct virtq *q);

/* Its number. */
unsigned virtq_index(const struct virtq *q);

/* The next element, NULL: none, or the queue is stopped. q may be NULL. */
struct virtq_elem *virtq_pop(struct virtq *q);

/* Nothing to pop now? */
bool virtq_empty(struct virtq *q);

/*
 * Undo the last pop: the next gives the same element. Only with nothing popped from the queue
 * since, and for elements that were not pushed.
 */
void virtq_unpop(struct virtq_elem *el);

/*
 * Give back: written bytes of its "in" part, from the start, were written (at most in_len). Tells
 * the listeners of guest memory. Several fills are seen by the driver together at the flush;
 * virtq_push is both. Interrupts are sent by virtq_notify only. The element is gone.
 */
void virtq_fill(struct virtq_elem *el, uint64_t written);
void virtq_flush(struct virtq *q);
void virtq_push(struct virtq_elem *el, uint64_t written);

/*
 * Is its queue still the one that it came from? A driver may disable a queue with elements out (on
 * MMIO); giving them back then does nothing, and a device that holds one for later drops it.
 */
bool virtq_elem_live(const struct virtq_elem *el);

/* Give back without the driver seeing it: for reset. */
void virtq_drop(struct virtq_elem *el);

/* Interrupt the driver, if it wants to know about what was flushed since the last time. */
void virtq_notify(struct virtq *q);

/*
 * Ask the driver not to notify (it may still do); and to notify from the next element on. The
 * latter gives true when there is an element already: look again. For devices that wait for
 * something else than the driver; handlers need it not.
 */
void virtq_kick_disable(struct virtq *q);
bool virtq_kick_enable(struct virtq *q);

/*
 * In a handler that has nothing to wait for in its queue: leave notifications off after it, until
 * virtq_kick_enable is called. For queues of buffers that the device takes when it needs them.
 */
void virtq_kick_unneeded(struct virtq *q);

/* The guest-physical address of in[i]. */
gpa_t virtq_elem_in_gpa(const struct virtq_elem *el, unsigned i);

/* Copy from the "out" part / to the "in" part from byte off on; how many bytes there were. */
size_t virtq_elem_read(const struct virtq_elem *el, uint64_t off, void *buf, size_t len);
size_t virtq_elem_write(const struct virtq_elem *el, uint64_t off, const void *buf, size_t len);
