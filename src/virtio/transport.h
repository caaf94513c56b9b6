/*
 * Virtio, as a transport sees it: the core's state and what registers do to it.
 *
 * A transport is a device class with a struct virtio in its struct and a struct virtio_state as the
 * member `core` of its state struct; VIRTIO_STATE_ROWS are the rows of its table. It finds the
 * virtio device by a property of kind backend, "virtio-device", and calls virtio_init in realize.
 * It turns its registers into the calls below, and says how interrupts and doorbells look.
 *
 * Threads: everything here with the device lock (register accesses have it); the core takes the
 * virtio device's own lock where it needs it. The callbacks in virtio_transport_ops say theirs.
 * References: [VIRTIO1.2 2.1] status, [VIRTIO1.2 2.2] features, [VIRTIO1.2 3.1] initialization,
 * [VIRTIO1.2 2.7.2], [VIRTIO1.2 4.1.5.1.3] legacy queue layout.
 */
#pragma once
#include "virtio/virtio.h"

enum {
	VIRTIO_DOORBELLS_MAX = 2, /* of one queue */
	VIRTIO_NO_VECTOR = 0xffff,
	VIRTIO_ISR_QUEUE = 1,
	VIRTIO_ISR_CONFIG = 2,
};

enum virtio_area { VIRTIO_DESC, VIRTIO_DRIVER, VIRTIO_DEVICE, VIRTIO_AREAS };

/* What the guest set up of one queue, and where the device stands in it. */
struct virtq_state {
	uint64_t area[VIRTIO_AREAS]; /* guest-physical: descriptors, driver's, device's */
	uint16_t size;               /* entries: at most the device's */
	uint16_t vector;             /* of MSI-X, VIRTIO_NO_VECTOR: none */
	uint16_t avail;              /* split: next to take. packed: slot */
	uint16_t used;               /* the same for giving back */
	uint16_t signalled;          /* split: used at the last interrupt decision; packed.c */
	bool signalled_valid;
	bool enabled;
	bool avail_wrap, used_wrap; /* packed */
	bool kick_off;              /* the driver was asked not to notify */
	uint8_t reserved;
};

struct virtio_state {
	uint64_t driver_features; /* as written by the driver */
	uint64_t features;        /* negotiated */
	struct virtq_state q[VIRTIO_QUEUES_MAX];
	uint32_t generation; /* of the device configuration */
	uint32_t device_features_sel, driver_features_sel;
	uint16_t queue_sel, config_vector;
	uint8_t status, isr; /* isr: also from other threads, atomically */
	uint8_t reserved[6];
};

/* clang-format off */
/* Rows for T, the state struct of a transport, which has the member: struct virtio_state core. */
#define VIRTIO_STATE_ROWS(T) \
	ST(T, core.driver_features), ST(T, core.features), \
	ST_SUB_ARR(T, core.q, area), \
	ST_SUB(T, core.q, size, .lim = VIRTQ_SIZE_MAX + 1), ST_SUB(T, core.q, vector), \
	ST_SUB(T, core.q, avail), ST_SUB(T, core.q, used), ST_SUB(T, core.q, signalled), \
	ST_SUB(T, core.q, signalled_valid), ST_SUB(T, core.q, enabled), \
	ST_SUB(T, core.q, avail_wrap), ST_SUB(T, core.q, used_wrap), \
	ST_SUB(T, core.q, kick_off), ST_SUB(T, core.q, reserved, .lim = 1), \
	ST(T, core.generation), ST(T, core.device_features_sel), \
	ST(T, core.driver_features_sel), ST(T, core.queue_sel), ST(T, core.config_vector), \
	ST(T, core.status), ST(T, core.isr, .lim = 4), ST_ARR(T, core.reserved, .lim = 1)
/* clang-format on */

struct virtio_transport_ops {
	/*
	 * Send the message of a vector. False: messages are off, use the line. VIRTIO_NO_VECTOR,
	 * or one that is masked: true. NULL: always the line. Any thread, any lock.
	 */
	bool (*msi)(struct virtio *v, uint16_t vector);
	/* The interrupt line follows the ISR register. Device lock. */
	void (*line)(struct virtio *v, bool level);
	/* Where the driver writes to notify queue n: fills out (but fd), gives the count. */
	unsigned (*doorbells)(struct virtio *v, unsigned n, struct doorbell *out);
	/* The driver has reset the device: the transport's own registers follow. NULL: nothing. */
	void (*reset)(struct virtio *v);
};

struct virtq_pool;
struct virtq_ring;

/* A queue: what follows from its state, and host resources. Private to virtio/. */
struct virtq {
	struct virtio *v;
	struct virtq_state *s;
	unsigned n;
	/* Host addresses of the three areas; NULL while the queue is not enabled. */
	void *desc, *driver, *device;
	uint16_t seen;                 /* split: the driver's index when last looked at */
	const struct virtq_ring *ring; /* valid with desc */
	uint32_t epoch;  /* counts mappings: elements of an earlier one come to nothing */
	uint16_t filled; /* entries given back since the last flush */
	uint16_t first, first_flags; /* packed: the slot of the first of these, and what it gets */
	bool flushed;                /* something was, since the last virtq_notify */
	unsigned budget;   /* elements that may be popped now: bounds one run of a handler */
	unsigned popped;   /* in this run */
	bool dry;          /* the last pop found nothing; what came since has rung no bell */
	bool quiet;        /* the handler that runs wants no notifications after it */
	struct loop_fd fd; /* the doorbell; fd.fd -1: none yet */
	bool watched;      /* registered in the loop */
	struct doorbell bell[VIRTIO_DOORBELLS_MAX];
	unsigned bells; /* added */
	struct virtq_pool *pool;
};

struct virtio {
	struct dev *transport;
	struct virtio_dev *vd; /* NULL: an empty slot */
	const struct virtio_transport_ops *ops;
	struct virtio_state *s; /* in the transport's state struct */
	struct biglock *lock;   /* of the loop of the queues */
	struct virtq q[VIRTIO_QUEUES_MAX];
	bool running; /* doorbells are served: DRIVER_OK, and not paused */
	bool paused;
	bool resetting;      /* waits for elements; registers answer, and take nothing */
	unsigned in_flight;  /* elements that are out; with lock */
	unsigned segs;       /* their buffers */
	bool starved;        /* a pop was refused for want of room in segs */
	pthread_cond_t idle; /* signalled when in_flight gets 0; mutex idle_mutex */
	pthread_mutex_t idle_mutex;
	uint64_t idle_count;
	struct bh line_bh;
};

/* In realize. vd may be NULL: all functions below are harmless then. 0 or -errno. */
int virtio_init(struct virtio *v, struct dev *transport, struct virtio_dev *vd,
		const struct virtio_transport_ops *ops, struct virtio_state *s,
		struct err *e) must_check;
void virtio_exit(struct virtio *v); /* in unrealize */

/* For the same functions of dev_class. virtio_dev_reset: the whole machine is reset. */
void virtio_dev_reset(struct virtio *v);
int virtio_loaded(struct virtio *v, struct err *e) must_check;
void virtio_pause(struct virtio *v);
void virtio_resume(struct virtio *v);

/* Status register. Writing 0 resets and returns when that is done. */
uint8_t virtio_status(const struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t val);

/* 32 feature bits from bit 32*sel on: offered, and written by the driver. */
uint32_t virtio_offered(const struct virtio *v, uint32_t sel);
uint32_t virtio_driver_features(const struct virtio *v, uint32_t sel);
void virtio_set_driver_features(struct virtio *v, uint32_t sel, uint32_t val);
/* The legacy interface: one word, effective at once. */
uint32_t virtio_legacy_offered(const struct virtio *v);
void virtio_legacy_set_features(struct virtio *v, uint32_t val);

/* Device configuration; size 1 to 8. Out of range: reads give 0, writes are ignored. */
uint64_t virtio_config_read(struct virtio *v, uint64_t off, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t off, uint64_t val, unsigned size);
uint32_t virtio_generation(const struct virtio *v);

/* Queue registers, for queue n of any value; one that is not there reads as size 0. */
uint16_t virtio_queue_max(const struct virtio *v, unsigned n);
const struct virtq_state *virtio_queue_state(const struct virtio *v, unsigned n); /* NULL: none */
void virtio_queue_set_size(struct virtio *v, unsigned n, uint16_t size);
/* The low (half 0) or high word of an area's address. */
void virtio_queue_set_area(struct virtio *v, unsigned n, enum virtio_area a, unsigned half,
			   uint32_t val);
void virtio_queue_set_vector(struct virtio *v, unsigned n, uint16_t vector);
void virtio_queue_enable(struct virtio *v, unsigned n);
void virtio_queue_disable(struct virtio *v, unsigned n); /* what is out comes to nothing */
/* Legacy: the page number of a ring in the fixed layout; 0 disables. */
uint32_t virtio_queue_pfn(const struct virtio *v, unsigned n);
void virtio_queue_set_pfn(struct virtio *v, unsigned n, uint32_t pfn);

/* A write to a notification register that no doorbell took. Any thread. */
void virtio_kick(struct virtio *v, unsigned n);

/* Doorbells move (a BAR is programmed): take them away before, put them back after. */
void virtio_doorbells(struct virtio *v, bool assign);

/* ISR register: read and clear (PCI); acknowledge bits (MMIO). Both move the line. */
uint8_t virtio_isr_take(struct virtio *v);
uint8_t virtio_isr(const struct virtio *v);
void virtio_isr_ack(struct virtio *v, uint8_t bits);
/* Messages were switched on or off, or the line's connection changed: derive the line again. */
void virtio_line_update(struct virtio *v);
