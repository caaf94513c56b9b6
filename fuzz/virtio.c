/*
 * Virtio devices with a hostile driver: the first bytes pick a class of hw/devices.def that sits on
 * virtio, a transport and what stands behind the device; the rest is what a driver does: set up
 * with some features, chains of buffers (mostly sensible, so that requests are reached), bytes of
 * the rings and buffers at will, kicks, registers, configuration, resets, pauses, snapshots; frames
 * and characters from the other side.
 *
 * Found by it: crashes, sanitizer reports, endless work in a handler; elements that are still out
 * after a reset or pause; a state that is refused and yet changes the device.
 */
#include <errno.h>
#include <linux/virtio_pci.h>

#include "backend/block/backend.h"
#include "backend/char/chardev.h"
#include "backend/net/netdev.h"
#include "base/log.h"
#include "hw/pci/pci.h"
#include "hw/registry.h"
#include "machine.h"
#include "vhost.h"
#include "virtio/transport.h"

enum {
	MAX_OPS = 300,
	QUEUE_SIZE = 16,
	QUEUES = 6,     /* those that are set up and fed */
	RINGS = 0x1000, /* a page each: descriptors at 0, driver 400h, device 600h, indirect 800h */
	BUFFERS = 0x10000, /* where chains point */
	RAM = 0x80000,
	PCI_PORTS = 0xc000,
};
#define MMIO_AT  0xfeb00000ull
#define BAR4_AT  0xf1000000ull
#define TABLE_AT 0xf1100000ull
#define MAX_STEP (2 * NS_PER_SEC)

struct fuzz {
	struct fuzz_machine m;
	struct chardev *con, *port; /* of a console; of a virtserialport */
	struct block_ctx *block;
	struct blk *disk;
	bool stop; /* requests of the disk that fail are kept */
	struct netdev nd;
	struct fuzz_vhost kernel[2]; /* of its queues, when they have vhost */
	uint8_t *ram;
	struct dev *transport;
	struct virtio_dev *vd;
	bool pci;
	uint16_t next[QUEUES];
	bool wrap[QUEUES]; /* packed rings */
};

/* ---- What stands behind the devices -------------------------------------------------------- */

static bool fuzz_receive(struct netport *p, const struct netpkt *pkt)
{
	uint8_t buf[64];

	(void)netpkt_get(pkt, 0, buf, sizeof(buf));
	return pkt->len % 7 != 3; /* sometimes there is no room */
}

static void fuzz_nothing(struct netdev *nd)
{
}

static const struct netport_ops fuzz_port = { .receive = fuzz_receive };
static const struct netdev_ops fuzz_netdev = {
	.name = "fuzz", .lend = fuzz_lend, .take_back = fuzz_take_back, .free = fuzz_nothing
};

static void *fuzz_backend(void *opaque, const char *type, const char *id)
{
	struct fuzz *f = opaque;

	if (!strcmp(type, "chardev"))
		return strcmp(id, "port") ? f->con : f->port;
	if (!strcmp(type, "drive"))
		return f->disk;
	if (!strcmp(type, "netdev"))
		return &f->nd;
	return strcmp(type, "virtio-serial") ? NULL : machine_devs_find(&f->m.md, id);
}

/* A disk of zeroes whose host fails at the n-th operation from now on; 0: not. */
static unsigned fuzz_fail;

static int fuzz_host(void)
{
	return fuzz_fail && !--fuzz_fail ? -EIO : 0;
}

static int fuzz_disk_open(struct block *b, struct err *e)
{
	b->len = 1 << 20;
	return 0;
}

static int fuzz_disk_read(struct block *b, uint64_t off, const struct iovecs *v)
{
	iovecs_fill(v, 0, 0, v->len);
	return fuzz_host();
}

static int fuzz_disk_write(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	return fuzz_host();
}

static int fuzz_disk_flush(struct block *b)
{
	return fuzz_host();
}

static const struct block_driver fuzz_driver = {
	.name = "fuzz",
	.open_co = fuzz_disk_open,
	.read_co = fuzz_disk_read,
	.write_co = fuzz_disk_write,
	.flush_co = fuzz_disk_flush,
};

static void fuzz_disk(void *arg)
{
	const struct block_opts o = { .writable = true };
	const struct blk_conf stop = { .rerror = BLK_STOP, .werror = BLK_STOP };
	struct fuzz *f = arg;
	struct block *root;

	BUG_ON(block_co_open_node(f->block, &fuzz_driver, &o, NULL, NULL, &root, NULL));
	fuzz_fail = 0;
	f->disk = blk_new("d", root, f->stop ? &stop : &(struct blk_conf){ 0 }, &f->m.run, NULL);
}

/* ---- The driver's side --------------------------------------------------------------------- */

static void reg(struct fuzz *f, unsigned mmio, unsigned pci, unsigned size, uint32_t v)
{
	if (f->pci)
		bus_mem_write(f->m.md.bus, BAR4_AT + pci, v, size);
	else
		bus_mem_write(f->m.md.bus, MMIO_AT + mmio, v, 4);
}

static gpa_t ring_of(unsigned q)
{
	return RINGS + q * 0x1000u;
}

static void fuzz_queue(struct fuzz *f, unsigned q, unsigned size)
{
	const gpa_t at[3] = { ring_of(q), ring_of(q) + 0x400, ring_of(q) + 0x600 };

	memset(f->ram + ring_of(q), 0, 0x1000);
	f->next[q] = 0;
	f->wrap[q] = true;
	reg(f, 0x30, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	reg(f, 0x38, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
	for (unsigned a = 0; a < 3; a++)
		for (unsigned half = 0; half < 2; half++)
			reg(f, 0x80 + 0x10 * a + 4 * half,
			    VIRTIO_PCI_COMMON_Q_DESCLO + 8 * a + 4 * half, 4,
			    half ? 0 : (uint32_t)at[a]);
	reg(f, 0x44, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

/* Reset, negotiate all but the bits of not, set up queues, DRIVER_OK. */
static void fuzz_setup(struct fuzz *f, uint64_t not )
{
	for (unsigned sel = 0; sel < 2; sel++) {
		uint32_t offered = virtio_offered(f->vd->v, sel);

		if (!sel) {
			reg(f, 0x70, VIRTIO_PCI_COMMON_STATUS, 1, 0);
			/* unless the registers are elsewhere by now */
			BUG_ON(!virtio_status(f->vd->v) && virtio_in_flight(f->vd));
			reg(f, 0x70, VIRTIO_PCI_COMMON_STATUS, 1, 3);
		}
		reg(f, 0x24, VIRTIO_PCI_COMMON_GFSELECT, 4, sel);
		reg(f, 0x20, VIRTIO_PCI_COMMON_GF, 4,
		    offered & ~(uint32_t)(sel ? not >> 32 & ~1ull : not ));
	}
	reg(f, 0x70, VIRTIO_PCI_COMMON_STATUS, 1, 11);
	for (unsigned q = 0; q < QUEUES; q++)
		if (not % 16 != q)
			fuzz_queue(f, q, QUEUE_SIZE);
	reg(f, 0x70, VIRTIO_PCI_COMMON_STATUS, 1, 15);
}

/* The same for a packed ring: n buffers, the first outs of them "out". */
static void fuzz_packed(struct fuzz *f, struct input *in, unsigned op, unsigned n, unsigned outs)
{
	unsigned q = op % QUEUES, first = f->next[q];
	uint8_t *ring = f->ram + ring_of(q);
	struct vring_packed_desc *d = (struct vring_packed_desc *)ring;

	for (unsigned i = 0; i < n; i++) {
		uint64_t x = take(in, 4);
		uint16_t flags =
			f->wrap[q] ? 1 << VRING_PACKED_DESC_F_AVAIL : 1 << VRING_PACKED_DESC_F_USED;
		struct vring_packed_desc v = { BUFFERS + x % 0x40000,
					       (uint32_t)(x >> 20 & 0xfff) + 1, (uint16_t)first,
					       flags };

		v.flags |=
			(i >= outs ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0);
		if (op & 64 && x % 4 == 0)
			v.flags |= VRING_DESC_F_INDIRECT;
		if (op & 128 && x % 5 == 0)
			memcpy((uint8_t *)&v + x % 16, &x, MIN(4, 16 - x % 16));
		for (unsigned k = 0; i < outs && k < 8; k++)
			f->ram[BUFFERS + (x + k) % 0x40000] = (uint8_t)take(in, 1);
		d[f->next[q]] = v;
		if (++f->next[q] == QUEUE_SIZE) {
			f->next[q] = 0;
			f->wrap[q] = !f->wrap[q];
		}
	}
}

/* A chain: mostly within the buffers, "in" after "out". */
static void fuzz_chain(struct fuzz *f, struct input *in, unsigned op)
{
	unsigned q = op % QUEUES, n = 1 + (unsigned)take(in, 1) % 6, outs;
	bool indirect = op & 64, odd = op & 128;
	uint8_t *ring = f->ram + ring_of(q);
	struct vring_desc *d = (struct vring_desc *)(ring + (indirect ? 0x800 : 0));
	uint16_t *avail = (uint16_t *)(ring + 0x400), head = f->next[q];

	outs = (unsigned)take(in, 1) % (n + 1);
	if (virtio_has(f->vd, VIRTIO_F_RING_PACKED)) {
		fuzz_packed(f, in, op, n, outs);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		unsigned me = indirect ? i : (head + i) % QUEUE_SIZE;
		uint64_t x = take(in, 4);
		struct vring_desc v = { BUFFERS + x % 0x40000,
					(uint32_t)(x >> 24 & 1 ? x >> 20 & 0xfff : x >> 25 & 31) +
						1,
					(uint16_t)((i >= outs ? VRING_DESC_F_WRITE : 0) |
						   (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
					(uint16_t)(indirect ? i + 1 : (me + 1) % QUEUE_SIZE) };

		if (odd && x % 5 == 0)
			memcpy((uint8_t *)&v + x % 16, &x, MIN(4, 16 - x % 16));
		if (i < outs) /* what requests begin with: small numbers */
			for (unsigned k = 0; k < 8; k++)
				f->ram[BUFFERS + (x + k) % 0x40000] = (uint8_t)take(in, 1);
		d[me] = v;
	}
	if (indirect)
		((struct vring_desc *)ring)[head] =
			(struct vring_desc){ ring_of(q) + 0x800, 16 * n, VRING_DESC_F_INDIRECT, 0 };
	f->next[q] = (uint16_t)((head + (indirect ? 1 : n)) % QUEUE_SIZE);
	avail[2 + avail[1] % QUEUE_SIZE] = head;
	avail[1]++;
}

static void fuzz_kick(struct fuzz *f, unsigned q)
{
	reg(f, 0x50, 0x3000 + 4 * q, 2, q);
}

/* ---- The machine --------------------------------------------------------------------------- */

static void fuzz_cfg(struct fuzz *f, unsigned off, uint32_t v, unsigned size)
{
	pci_bus_write(f->m.md.pci, 0, off, v, size);
}

static void fuzz_place(struct fuzz *f)
{
	fuzz_cfg(f, 0x10, PCI_PORTS, 4);
	fuzz_cfg(f, 0x14, (uint32_t)TABLE_AT, 4);
	fuzz_cfg(f, 0x20, (uint32_t)BAR4_AT, 4);
	fuzz_cfg(f, 0x24, 0, 4);
	fuzz_cfg(f, PCI_COMMAND, 7, 2);
}

static bool fuzz_new(struct fuzz *f, const struct dev_class *cls, unsigned flags)
{
	const struct gmem_opts ro = { .thp_off = true };
	struct dev *d;

	memset(f, 0, sizeof(*f));
	fuzz_machine_new(&f->m, fuzz_backend, f);
	f->m.md.mem = gmem_new();
	BUG_ON(gmem_add_ram(f->m.md.mem, "ram", 0, RAM, &ro, NULL));
	f->ram = gmem_ptr_w(f->m.md.mem, 0, RAM);
	f->con = chardev_ring_new(f->m.md.loop, "con", flags & 2 ? 8 : 1 << 16);
	f->port = chardev_ring_new(f->m.md.loop, "port", flags & 2 ? 8 : 1 << 16);
	f->pci = flags & 16;
	f->stop = flags & 64;
	if (f->pci)
		BUG_ON(!dev_create(&f->m.md, &gpex_class, NULL, NULL, NULL));
	d = dev_new(&f->m.md, cls, "d", NULL);
	if (dev_class_has_prop(cls, "drive")) {
		f->block = block_ctx_new(f->m.md.loop, BLOCK_AIO_THREADS, NULL);
		BUG_ON(tasks_run(block_ctx_tasks(f->block), fuzz_disk, f));
		BUG_ON(dev_set_prop(d, "drive", "d", NULL));
	}
	BUG_ON(netdev_init(&f->nd, &fuzz_netdev, f->m.md.loop, "n", 2, &fuzz_port, 0, NULL));
	for (unsigned i = 0; i < 2 && dev_class_has_prop(cls, "netdev") && flags & 128; i++)
		f->nd.vhost[i] = fuzz_vhost_new(&f->kernel[i]);
	if (dev_class_has_prop(cls, "netdev") && flags & 1)
		BUG_ON(dev_set_prop(d, "netdev", "n", NULL));
	for (const struct prop *p = cls->props; p && p->name; p++)
		if (p->kind == ST_BOOL && flags & 4)
			dev_set_u64(d, p->name, !p->dflt);
	if (dev_realize(d, NULL) < 0)
		return false;
	f->vd = container_of(d, struct virtio_dev, dev);
	if (cls == &virtio_serial_class)
		for (unsigned i = 0; i < 2; i++)
			(void)!dev_create(&f->m.md, i ? &virtserialport_class : &virtconsole_class,
					  NULL, NULL, "bus", "d", "chardev", i ? "port" : "con",
					  "name", i ? "org.x.y" : "", NULL);
	f->transport =
		dev_new(&f->m.md, f->pci ? &virtio_pci_class : &virtio_mmio_class, "t", NULL);
	dev_set_backend(f->transport, "vd", f->vd);
	if (f->pci)
		BUG_ON(dev_set_prop(f->transport, "addr", "0", NULL) ||
		       dev_set_prop(f->transport, "disable-legacy", "off", NULL));
	BUG_ON(dev_realize(f->transport, NULL));
	if (f->pci)
		fuzz_place(f);
	return true;
}

static void fuzz_end(struct fuzz *f)
{
	machine_devs_free(&f->m.md);
	chardev_free(f->con);
	chardev_free(f->port);
	blk_free(f->disk);
	block_ctx_free(f->block);
	for (unsigned i = 0; i < 2; i++)
		vhost_free(f->nd.vhost[i]);
	free(f->nd.id);
	gmem_free(f->m.md.mem);
	fuzz_machine_free(&f->m);
}

/* ---- Operations ---------------------------------------------------------------------------- */

/* Any register of any range. */
static void fuzz_access(struct fuzz *f, struct input *in, unsigned op)
{
	uint64_t pick = take(in, 1) % 8, off = take(in, 2), val = take(in, 1u << (op & 3));
	unsigned size = 1u << (op & 3);
	struct region r;

	if (fuzz_range(&f->m, (unsigned)pick, &r))
		fuzz_bus(&f->m, &r, off % MIN(r.len, 0x4000u), val, size, op & 4);
}

/* Device configuration. */
static void fuzz_config(struct fuzz *f, struct input *in, unsigned op)
{
	uint64_t at = (f->pci ? BAR4_AT + 0x2000 : MMIO_AT + 0x100) + take(in, 1);
	unsigned size = 1u << (op & 1 ? 2 : 0);

	if (op & 4)
		bus_mem_write(f->m.md.bus, at, take(in, size), size);
	else
		bus_mem_read(f->m.md.bus, at, size);
}

/* As after a pause, with nothing in progress. */
static void fuzz_snapshot(struct fuzz *f, struct dev *d, struct input *in)
{
	machine_devs_pause(&f->m.md);
	BUG_ON(virtio_in_flight(f->vd) != f->vd->kept);
	fuzz_state(d, in, 4, false);
	machine_devs_resume(&f->m.md);
}

static void fuzz_frame(struct fuzz *f, struct input *in, unsigned op)
{
	uint8_t frame[1600] = { 0 };
	struct net_hdr hdr = { .flags = op & 1, .csum_start = 14, .csum_offset = 6 };
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, frame, NET_ETH_MIN + take(in, 2) % 1500, &hdr);
	uint64_t v = take(in, 8);

	if (f->nd.vhost[op / 2 % 2])
		fuzz_vhost_work(f->nd.vhost[op / 2 % 2], &f->kernel[op / 2 % 2], op / 4 % 2,
				op / 8 % 16, (uint32_t)p.len, op > 250);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, &v, 8);
	if (f->nd.attached && net_send(&f->nd.port[op / 2 % 2], &p))
		net_flush(&f->nd.port[op / 2 % 2]);
}

static void fuzz_op(struct fuzz *f, struct input *in, unsigned op)
{
	unsigned arg = (unsigned)take(in, 1);
	struct chardev *con = arg & 16 ? f->port : f->con;
	uint8_t bytes[8];
	uint64_t v;

	switch (op % 16) {
	case 0: fuzz_setup(f, take(in, 1) % 4 ? BIT(arg % 64) : take(in, 8)); break;
	case 1:
		v = take(in, 2); /* rings and buffers, at will */
		f->ram[(arg & 1 ? RINGS + v % 0x4000 : v * 8 % RAM)] = (uint8_t)take(in, 1);
		break;
	case 2: fuzz_access(f, in, arg); break;
	case 3: fuzz_config(f, in, arg); break;
	case 4: loop_advance(f->m.md.loop, take(in, arg % 6) % MAX_STEP); break;
	case 5: fuzz_snapshot(f, arg & 1 ? f->transport : &f->vd->dev, in); break;
	case 6:
		v = take(in, 8);
		memcpy(bytes, &v, 8);
		if (arg & 64)
			chardev_ring_event(con, (enum chardev_event)(arg & 3));
		else if (arg & 32)
			(void)chardev_ring_output(con, bytes, arg % 8);
		else
			chardev_ring_input(con, bytes, arg % 9);
		break;
	case 7: fuzz_frame(f, in, arg); break;
	case 8:
		if (arg % 32 == 0)
			machine_devs_reset(&f->m.md, RESET_WARM);
		if (arg % 32 == 1 && f->pci)
			fuzz_place(f);
		if (arg % 32 == 2)
			netdev_set_link(&f->nd, arg & 32);
		if (arg % 32 == 3)
			fuzz_fail = (unsigned)take(in, 1) % 16;
		if (arg % 32 == 4 && f->disk)
			blk_resume(f->disk);
		if (arg % 32 > 4)
			fuzz_kick(f, arg % 5);
		break;
	default:
		fuzz_chain(f, in, arg);
		if (op & 64) {
			fuzz_kick(f, arg % QUEUES);
			loop_advance(f->m.md.loop, 0);
		}
		for (unsigned i = 0; i < VHOST_RINGS && f->nd.vhost[0] && arg & 32; i++)
			fuzz_vhost_work(f->nd.vhost[0], &f->kernel[0], i, arg % 5, arg * 9, false);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	const struct dev_class *cls[32], *c;
	unsigned n = 0, flags;
	struct fuzz f;

	log_set_level(LOG_ERR); /* a failing disk warns */
	for (size_t i = 0; (c = hw_class_at(i)) && n < ARRAY_SIZE(cls); i++)
		if (c->bus && !strcmp(c->bus, "virtio"))
			cls[n++] = c;
	c = cls[take(&in, 1) % n];
	flags = (unsigned)take(&in, 1);
	if (fuzz_new(&f, c, flags)) {
		bus_lock(f.m.md.bus);
		/* bit 3 instead of none: vhost needs the first queue, too */
		fuzz_setup(&f,
			   (flags & 32 ? BIT(VIRTIO_RING_F_EVENT_IDX) : 0) | (flags & 128) >> 4);
		for (int ops = 0; in.n && ops < MAX_OPS; ops++)
			fuzz_op(&f, &in, (unsigned)take(&in, 1));
		loop_advance(f.m.md.loop, NS_PER_MS);
		reg(&f, 0x70, VIRTIO_PCI_COMMON_STATUS, 1, 0);
		bus_unlock(f.m.md.bus);
	}
	fuzz_end(&f);
	return 0;
}
