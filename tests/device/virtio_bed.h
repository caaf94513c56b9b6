/*
 * The driver's side of virtio for device tests: guest memory, a device on virtio-mmio, rings that
 * the test fills, kicks and used entries. Functions fail the test when the device breaks a rule of
 * the specification. Split or packed rings, as negotiated, with direct or indirect chains; see
 * struct vq for what is hostile.
 *
 *   struct vbed *vb = vbed_new();
 *   struct dev *d = dev_create(&vb->bed->md, &virtio_rng_class, "rng0", &e, NULL);
 *   vbed_plug(vb, d);                       // into a virtio-mmio slot
 *   vbed_start(vb, VBED_ALL, 1);            // negotiate all that is offered, 1 queue, DRIVER_OK
 *   gpa_t buf = vbed_alloc(vb, 64);
 *   vbed_add(vb, 0, 1, VIN(buf, 64));       // a chain of one buffer for the device to write
 *   vbed_kick(vb, 0);                       // and run the loop
 *   vbed_used(vb, 0, &len);                 // head of the next used element, -1: none
 */
#pragma once
#include "testbed.h"

#include <unistd.h>

#include "base/sanitize.h"
#include "virtio/transport.h"

#define VBED_RAM   (16ull << 20)
#define VBED_ALL   UINT64_MAX
#define VBED_SLOT  0xfeb00000ull
#define VBED_IRQ   16
#define VBED_QSIZE 64

enum { VRING_MAX = 1024 };

struct vbuf {
	gpa_t gpa;
	uint32_t len;
	bool in;
};
#define VOUT(gpa_, len_) ((struct vbuf){ (gpa_), (len_), false })
#define VIN(gpa_, len_)  ((struct vbuf){ (gpa_), (len_), true })

struct vq {
	unsigned size;
	gpa_t desc, driver, device;
	struct vring_desc *d; /* host pointers of the same: a hostile test writes there */
	uint16_t *avail;      /* [0] flags, [1] index, [2..] ring, then used_event */
	uint16_t *used;       /* [0] flags, [1] index, then pairs of u32, then avail_event */
	uint16_t seen;        /* used entries taken */
	uint16_t next;        /* next descriptor to use; they go round */
	/* Packed rings: */
	struct vring_packed_desc *p;  /* the same memory as d */
	bool packed, wrap, seen_wrap; /* of next, of seen (a slot) */
	uint8_t slots[VRING_MAX];     /* by id: how many a chain has */
};

struct vbed {
	struct bed *bed;
	struct dev *transport;
	struct virtio_dev *vd;
	uint8_t *ram;
	gpa_t top;     /* next free byte */
	bool vcpu;     /* used by a thread that plays a vCPU: another one serves the loop */
	bool indirect; /* vbed_add uses indirect tables */
	uint64_t features;
	struct vq q[VIRTIO_QUEUES_MAX];
};

static inline struct vbed *vbed_new(void)
{
	struct vbed *vb = calloc(1, sizeof(*vb));
	struct gmem_opts o = { .thp_off = true };

	vb->bed = bed_new();
	assert_int_equal(gmem_add_ram(vb->bed->md.mem, "ram", 0, VBED_RAM, &o, NULL), 0);
	vb->ram = gmem_ptr_w(vb->bed->md.mem, 0, VBED_RAM);
	sanitize_guest_memory(vb->ram, VBED_RAM);
	vb->top = 0x10000;
	return vb;
}

static inline void vbed_free(struct vbed *vb)
{
	bed_free(vb->bed);
	free(vb);
}

/* Guest memory, cleared, aligned to 64; a page and more: to 4096. Never freed. */
static inline gpa_t vbed_alloc(struct vbed *vb, uint64_t len)
{
	uint64_t align = len >= 4096 ? 4096 : 64;
	gpa_t at = (vb->top + align - 1) & ~(align - 1);

	vb->top = at + len;
	assert_true(vb->top <= VBED_RAM);
	memset(vb->ram + at, 0, len);
	return at;
}

static inline uint32_t vbed_r(struct vbed *vb, unsigned reg)
{
	return (uint32_t)bus_mem_read(vb->bed->md.bus, VBED_SLOT + reg, 4);
}

static inline void vbed_w(struct vbed *vb, unsigned reg, uint32_t v)
{
	bus_mem_write(vb->bed->md.bus, VBED_SLOT + reg, v, 4);
}

/* Device configuration. */
static inline uint64_t vbed_cfg(struct vbed *vb, unsigned off, unsigned size)
{
	return bus_mem_read(vb->bed->md.bus, VBED_SLOT + 0x100 + off, size);
}

static inline void vbed_set_cfg(struct vbed *vb, unsigned off, uint64_t v, unsigned size)
{
	bus_mem_write(vb->bed->md.bus, VBED_SLOT + 0x100 + off, v, size);
}

static inline uint8_t vbed_status(struct vbed *vb)
{
	return (uint8_t)vbed_r(vb, 0x70);
}

/* Run the loop until nothing is ready; for a device in an iothread, until it is idle for a bit. */
static inline void vbed_run(struct vbed *vb)
{
	if (vb->vcpu)
		return;
	if (vb->vd && vb->vd->iothread)
		usleep(2000);
	loop_advance(vb->bed->loop, 0);
}

static inline void vbed_plug(struct vbed *vb, struct dev *d)
{
	struct err e = { 0 };

	vb->vd = container_of(d, struct virtio_dev, dev);
	vb->transport = dev_new(&vb->bed->md, &virtio_mmio_class, "slot", &e);
	assert_non_null(vb->transport);
	dev_set_u64(vb->transport, "addr", VBED_SLOT);
	dev_set_u64(vb->transport, "irq", VBED_IRQ);
	dev_set_backend(vb->transport, "vd", vb->vd);
	if (dev_realize(vb->transport, &e) < 0)
		fail_msg("%s", e.msg);
}

static inline uint64_t vbed_offered(struct vbed *vb)
{
	uint64_t f;

	vbed_w(vb, 0x14, 1);
	f = (uint64_t)vbed_r(vb, 0x10) << 32;
	vbed_w(vb, 0x14, 0);
	return f | vbed_r(vb, 0x10);
}

/* Reset, then up to FEATURES_OK with those of features that are offered. False: refused. */
static inline bool vbed_negotiate(struct vbed *vb, uint64_t features)
{
	vbed_w(vb, 0x70, 0);
	assert_int_equal(vbed_status(vb), 0);
	vbed_w(vb, 0x70, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	vbed_w(vb, 0x70, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	vb->features = features & vbed_offered(vb);
	vbed_w(vb, 0x24, 0);
	vbed_w(vb, 0x20, (uint32_t)vb->features);
	vbed_w(vb, 0x24, 1);
	vbed_w(vb, 0x20, (uint32_t)(vb->features >> 32));
	vbed_w(vb, 0x70, vbed_status(vb) | VIRTIO_CONFIG_S_FEATURES_OK);
	return vbed_status(vb) & VIRTIO_CONFIG_S_FEATURES_OK;
}

/* Set up queue n with size entries in fresh memory. */
static inline void vbed_queue(struct vbed *vb, unsigned n, unsigned size)
{
	struct vq *q = &vb->q[n];

	*q = (struct vq){ .size = size,
			  .packed = vb->features & BIT(VIRTIO_F_RING_PACKED),
			  .wrap = true,
			  .seen_wrap = true };
	q->desc = vbed_alloc(vb, MAX(16ull * size, 4096u));
	q->driver = vbed_alloc(vb, 6 + 2ull * size);
	q->device = vbed_alloc(vb, 6 + 8ull * size);
	q->d = (struct vring_desc *)(vb->ram + q->desc);
	q->p = (struct vring_packed_desc *)q->d;
	q->avail = (uint16_t *)(vb->ram + q->driver);
	q->used = (uint16_t *)(vb->ram + q->device);
	vbed_w(vb, 0x30, n);
	assert_true(vbed_r(vb, 0x34) >= size);
	vbed_w(vb, 0x38, size);
	vbed_w(vb, 0x80, (uint32_t)q->desc);
	vbed_w(vb, 0x84, (uint32_t)(q->desc >> 32));
	vbed_w(vb, 0x90, (uint32_t)q->driver);
	vbed_w(vb, 0x94, (uint32_t)(q->driver >> 32));
	vbed_w(vb, 0xa0, (uint32_t)q->device);
	vbed_w(vb, 0xa4, (uint32_t)(q->device >> 32));
	vbed_w(vb, 0x44, 1);
	assert_int_equal(vbed_r(vb, 0x44), 1);
}

static inline void vbed_driver_ok(struct vbed *vb)
{
	vbed_w(vb, 0x70, vbed_status(vb) | VIRTIO_CONFIG_S_DRIVER_OK);
	vbed_run(vb);
}

/* Everything: negotiate, queues 0..n-1, DRIVER_OK. */
static inline void vbed_start(struct vbed *vb, uint64_t features, unsigned n)
{
	assert_true(vbed_negotiate(vb, features));
	for (unsigned i = 0; i < n; i++) {
		vbed_w(vb, 0x30, i);
		vbed_queue(vb, i, MIN(vbed_r(vb, 0x34), (unsigned)VBED_QSIZE));
	}
	vbed_driver_ok(vb);
}

static inline bool vbed_has(const struct vbed *vb, unsigned bit)
{
	return vb->features & BIT(bit);
}

/* Make a head visible to the device. */
static inline void vbed_publish(struct vbed *vb, unsigned n, uint16_t head)
{
	struct vq *q = &vb->q[n];
	uint16_t idx = q->avail[1];

	q->avail[2 + idx % q->size] = head;
	__atomic_store_n(&q->avail[1], (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

static inline uint16_t vbed_add_split(struct vbed *vb, unsigned n, unsigned count,
				      const struct vbuf *b)
{
	struct vq *q = &vb->q[n];
	bool indirect = vb->indirect && vbed_has(vb, VIRTIO_RING_F_INDIRECT_DESC);
	gpa_t at = indirect ? vbed_alloc(vb, 16ull * count) : 0;
	struct vring_desc *t = indirect ? (struct vring_desc *)(vb->ram + at) : q->d;
	uint16_t head = q->next, mask = (uint16_t)(indirect ? 0xffff : q->size - 1);

	for (unsigned i = 0; i < count; i++) {
		uint16_t me = (uint16_t)(indirect ? i : (q->next + i) & mask);

		t[me] = (struct vring_desc){ b[i].gpa, b[i].len,
					     (uint16_t)((b[i].in ? VRING_DESC_F_WRITE : 0) |
							(i + 1 < count ? VRING_DESC_F_NEXT : 0)),
					     (uint16_t)((me + 1) & mask) };
	}
	if (indirect)
		q->d[head] = (struct vring_desc){ at, 16 * count, VRING_DESC_F_INDIRECT, 0 };
	q->next = (uint16_t)((q->next + (indirect ? 1 : count)) & (q->size - 1));
	vbed_publish(vb, n, head);
	return head;
}

/* A chain in a packed ring; its id is the first slot. */
static inline uint16_t vbed_add_packed(struct vbed *vb, struct vq *q, unsigned count,
				       const struct vbuf *b)
{
	bool indirect = vb->indirect && vb->features & BIT(VIRTIO_RING_F_INDIRECT_DESC);
	unsigned n = indirect ? 1 : count;
	uint16_t head = q->next, first = 0;
	gpa_t at = 0;

	if (indirect) {
		struct vring_packed_desc *t;

		at = vbed_alloc(vb, 16ull * count);
		t = (struct vring_packed_desc *)(vb->ram + at);
		for (unsigned i = 0; i < count; i++)
			t[i] = (struct vring_packed_desc){ b[i].gpa, b[i].len, 0xdead,
							   b[i].in ? VRING_DESC_F_WRITE : 0 };
	}
	q->slots[head] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		struct vring_packed_desc *d = &q->p[q->next];
		uint16_t flags =
			q->wrap ? 1 << VRING_PACKED_DESC_F_AVAIL : 1 << VRING_PACKED_DESC_F_USED;

		flags |= indirect ? VRING_DESC_F_INDIRECT
				  : (b[i].in ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < n ? VRING_DESC_F_NEXT : 0);
		d->addr = indirect ? at : b[i].gpa;
		d->len = indirect ? 16 * count : b[i].len;
		d->id = i + 1 == n ? head : 0xbeef; /* only the last one counts */
		if (i)
			d->flags = flags;
		else
			first = flags;
		if (++q->next == q->size) {
			q->next = 0;
			q->wrap = !q->wrap;
		}
	}
	__atomic_store_n(&q->p[head].flags, first, __ATOMIC_RELEASE);
	return head;
}

static inline uint16_t vbed_addv(struct vbed *vb, unsigned n, unsigned count, const struct vbuf *b)
{
	if (vb->q[n].packed)
		return vbed_add_packed(vb, &vb->q[n], count, b);
	return vbed_add_split(vb, n, count, b);
}

/* A chain of count buffers in queue n, visible at once. Its head: what the used entry will have. */
#define vbed_add(vb, n, count, ...) \
	vbed_addv((vb), (n), (count), (const struct vbuf[]){ __VA_ARGS__ })

/* Notify queue n and let the device work. */
static inline void vbed_kick(struct vbed *vb, unsigned n)
{
	vbed_w(vb, 0x50, n);
	vbed_run(vb);
}

static inline int vbed_used_packed(struct vq *q, uint32_t *len)
{
	struct vring_packed_desc *d = &q->p[q->seen];
	uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
	bool avail = flags & 1 << VRING_PACKED_DESC_F_AVAIL;
	bool used = flags & 1 << VRING_PACKED_DESC_F_USED;
	uint16_t id = d->id;

	if (avail != q->seen_wrap || used != q->seen_wrap)
		return -1;
	assert_true(id < q->size && q->slots[id]);
	if (len)
		*len = flags & VRING_DESC_F_WRITE ? d->len : 0;
	q->seen = (uint16_t)(q->seen + q->slots[id]);
	q->slots[id] = 0;
	if (q->seen >= q->size) {
		q->seen = (uint16_t)(q->seen - q->size);
		q->seen_wrap = !q->seen_wrap;
	}
	/* interrupt at the next one; without the event index at any */
	q->avail[0] = (uint16_t)(q->seen | (q->seen_wrap ? 0x8000 : 0));
	q->avail[1] = VRING_PACKED_EVENT_FLAG_DESC;
	return id;
}

/* The next used entry of queue n: its head and, in *len, the bytes written. -1: none. */
static inline int vbed_used(struct vbed *vb, unsigned n, uint32_t *len)
{
	struct vq *q = &vb->q[n];
	uint32_t e[2];

	if (q->packed)
		return vbed_used_packed(q, len);
	if (__atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE) == q->seen)
		return -1;
	memcpy(e, (uint8_t *)q->used + 4 + 8 * (q->seen++ % q->size), 8);
	q->avail[2 + q->size] = q->seen; /* used_event: interrupt at the next one */
	if (len)
		*len = e[1];
	return (int)e[0];
}

/* Wait for a used entry, up to a second of the host's time: for iothreads and workers. */
static inline int vbed_wait(struct vbed *vb, unsigned n, uint32_t *len)
{
	int head = -1;

	for (unsigned i = 0; i < 1000 && head < 0; i++) {
		vbed_run(vb);
		head = vbed_used(vb, n, len);
		if (head < 0)
			usleep(1000);
	}
	return head;
}

/* Has there been an interrupt since the last call? Acknowledges; the causes (VIRTIO_ISR_...). */
static inline unsigned vbed_irq(struct vbed *vb)
{
	unsigned isr;

	vbed_run(vb);
	isr = vbed_r(vb, 0x60);
	assert_int_equal(vb->bed->level[VBED_IRQ], isr != 0);
	vbed_w(vb, 0x64, isr);
	assert_false(vb->bed->level[VBED_IRQ]);
	return isr;
}

/* The device says that the driver is wrong. */
static inline void vbed_assert_broken(struct vbed *vb)
{
	assert_true(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_true(vbed_irq(vb) & VIRTIO_ISR_CONFIG);
}
