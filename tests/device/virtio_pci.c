/*
 * virtio-pci with virtio-rng behind it: both interfaces, found as drivers find them, interrupts of
 * all kinds, doorbells that move, bus mastering, save and load.
 */
#include "virtio_bed.h"

#include "hw/pci/msi.h"
#include "hw/pci/pci.h"

#define BAR4  0xf1000000ull
#define TABLE 0xf1100000ull
#define PORTS 0xc000

enum { COMMON = 0, ISR = 0x1000, DEVCFG = 0x2000, NOTIFY = 0x3000 };

/* A function with an rng at 00.0, its BARs placed; opt, val: a property of the transport. */
static struct vbed *plug(const char *opt, const char *val)
{
	struct vbed *vb = vbed_new();
	struct err e = { 0 };
	struct dev *d = dev_create(&vb->bed->md, &virtio_rng_class, "rng0", &e, NULL);

	assert_non_null(d);
	bed_pci(vb->bed);
	vb->vd = container_of(d, struct virtio_dev, dev);
	vb->transport = dev_new(&vb->bed->md, &virtio_pci_class, "slot", &e);
	dev_set_backend(vb->transport, "vd", vb->vd);
	assert_int_equal(dev_set_prop(vb->transport, "addr", "0", &e), 0);
	if (opt)
		assert_int_equal(dev_set_prop(vb->transport, opt, val, &e), 0);
	if (dev_realize(vb->transport, &e) < 0)
		fail_msg("%s", e.msg);
	bed_cfg_write(vb->bed, 0, 0x10, PORTS, 4);
	bed_cfg_write(vb->bed, 0, 0x14, (uint32_t)TABLE, 4);
	bed_cfg_write(vb->bed, 0, 0x20, (uint32_t)BAR4, 4);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, 7, 2);
	return vb;
}

static uint32_t rd(struct vbed *vb, unsigned off, unsigned size)
{
	return (uint32_t)bus_mem_read(vb->bed->md.bus, BAR4 + off, size);
}

static void wr(struct vbed *vb, unsigned off, uint32_t v, unsigned size)
{
	bus_mem_write(vb->bed->md.bus, BAR4 + off, v, size);
}

static uint32_t in(struct vbed *vb, unsigned off, unsigned size)
{
	return (uint32_t)bus_io_read(vb->bed->md.bus, (uint16_t)(PORTS + off), size);
}

static void out(struct vbed *vb, unsigned off, uint32_t v, unsigned size)
{
	bus_io_write(vb->bed->md.bus, (uint16_t)(PORTS + off), v, size);
}

/* Memory of queue 0 with size entries, all in one run as legacy has it. */
static void ring(struct vbed *vb, unsigned size)
{
	struct vq *q = &vb->q[0];

	*q = (struct vq){ .size = size };
	q->desc = vbed_alloc(vb, 12288);
	q->driver = q->desc + 16ull * size;
	q->device = (q->driver + 6 + 2ull * size + 4095) & ~4095ull;
	q->d = (struct vring_desc *)(vb->ram + q->desc);
	q->avail = (uint16_t *)(vb->ram + q->driver);
	q->used = (uint16_t *)(vb->ram + q->device);
}

static void start_modern(struct vbed *vb, uint16_t config_vector, uint16_t vector)
{
	struct vq *q = &vb->q[0];
	uint64_t f;

	wr(vb, 20, 0, 1);
	assert_int_equal(rd(vb, 20, 1), 0);
	wr(vb, 20, 3, 1);
	wr(vb, 0, 1, 4);
	f = (uint64_t)rd(vb, 4, 4) << 32;
	wr(vb, 0, 0, 4);
	f |= rd(vb, 4, 4);
	assert_true(f & BIT(VIRTIO_F_VERSION_1));
	f &= ~BIT(VIRTIO_RING_F_EVENT_IDX);
	vb->features = f;
	for (unsigned i = 0; i < 2; i++) {
		wr(vb, 8, i, 4);
		wr(vb, 12, (uint32_t)(f >> 32 * i), 4);
	}
	wr(vb, 20, 11, 1);
	assert_int_equal(rd(vb, 20, 1), 11);
	wr(vb, 16, config_vector, 2);
	wr(vb, 22, 0, 2);
	ring(vb, 16);
	assert_int_equal(rd(vb, 24, 2), 64);
	wr(vb, 24, 16, 2);
	wr(vb, 26, vector, 2);
	assert_int_equal(rd(vb, 26, 2), vector);
	bus_mem_write(vb->bed->md.bus, BAR4 + 32, q->desc, 8);
	bus_mem_write(vb->bed->md.bus, BAR4 + 40, q->driver, 8);
	wr(vb, 48, (uint32_t)q->device, 4);
	wr(vb, 52, 0, 4);
	assert_int_equal(rd(vb, 28, 2), 0);
	wr(vb, 28, 1, 2);
	assert_int_equal(rd(vb, 28, 2), 1);
	wr(vb, 20, 15, 1);
	vbed_run(vb);
}

/* One request of 8 bytes and its kick at addr; the bytes written, -1: nothing came back. */
static int request(struct vbed *vb, enum bus_space space, uint64_t addr)
{
	uint32_t len = 0;

	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 8));
	if (space == BUS_IO)
		bus_io_write(vb->bed->md.bus, (uint16_t)addr, 0, 2);
	else
		bus_mem_write(vb->bed->md.bus, addr, 0, 2);
	vbed_run(vb);
	return vbed_used(vb, 0, &len) < 0 ? -1 : (int)len;
}

static void msix_on(struct vbed *vb)
{
	unsigned at = bed_cfg_read(vb->bed, 0, PCI_CAPABILITIES, 1);

	while (at && bed_cfg_read(vb->bed, 0, at, 1) != PCI_CAP_MSIX)
		at = bed_cfg_read(vb->bed, 0, at + 1, 1);
	assert_int_not_equal(at, 0);
	for (unsigned v = 0; v < 2; v++) {
		bus_mem_write(vb->bed->md.bus, TABLE + 16 * v, 0xfee00000, 8);
		bus_mem_write(vb->bed->md.bus, TABLE + 16 * v + 8, 0x50 + v, 8);
	}
	bed_cfg_write(vb->bed, 0, at + PCI_MSIX_CONTROL, PCI_MSIX_ENABLE, 2);
}

static void vpci_identity(void **state)
{
	struct vbed *vb = plug(NULL, NULL); /* this bus has no ports: modern only */
	unsigned at, seen = 0;

	assert_int_equal(bed_cfg_read(vb->bed, 0, 0, 4), 0x10441af4);
	assert_int_equal(bed_cfg_read(vb->bed, 0, PCI_REVISION, 1), 1);
	assert_int_equal(bed_cfg_read(vb->bed, 0, 0x10, 4), 0);
	for (at = bed_cfg_read(vb->bed, 0, PCI_CAPABILITIES, 1); at;
	     at = bed_cfg_read(vb->bed, 0, at + 1, 1))
		if (bed_cfg_read(vb->bed, 0, at, 1) == PCI_CAP_VENDOR)
			seen |= 1u << bed_cfg_read(vb->bed, 0, at + 3, 1);
	assert_int_equal(seen, 0x3e); /* types 1 to 5 */
	vbed_free(vb);
	vb = plug("disable-legacy", "off");
	assert_int_equal(bed_cfg_read(vb->bed, 0, 0, 4), 0x10051af4);
	assert_int_equal(bed_cfg_read(vb->bed, 0, PCI_REVISION, 1), 0);
	assert_int_equal(bed_cfg_read(vb->bed, 0, PCI_SUBSYSTEM_ID, 2), VIRTIO_ID_RNG);
	assert_int_equal(bed_cfg_read(vb->bed, 0, 0x10, 4), PORTS | 1);
	vbed_free(vb);
}

static void vpci_refused(void **state)
{
	static const char *const bad[][3] = { { "disable-legacy", "maybe", "on, off or auto" },
					      { "disable-modern", "on", "nothing is left" },
					      { "vectors", "257", "more than 256" } };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vbed *vb = vbed_new();
		struct err e = { 0 };

		bed_pci(vb->bed);
		assert_null(dev_create(&vb->bed->md, &virtio_pci_class, NULL, &e, bad[i][0],
				       bad[i][1], NULL));
		if (!strstr(e.msg, bad[i][2]))
			fail_msg("%s", e.msg);
		vbed_free(vb);
	}
}

/* Without doorbells the registers do it. */
static void vpci_registers_kick(void **state)
{
	struct vbed *vb = plug("ioeventfd", "off");

	start_modern(vb, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	vbed_free(vb);
}

static void vpci_modern_intx(void **state)
{
	struct vbed *vb = plug(NULL, NULL);

	start_modern(vb, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	assert_int_equal(rd(vb, 18, 2), 1); /* queues */
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	assert_true(vb->bed->level[16]);
	assert_int_equal(bed_cfg_read(vb->bed, 0, PCI_STATUS, 2) & PCI_STATUS_INTX,
			 PCI_STATUS_INTX);
	assert_int_equal(rd(vb, ISR, 1), 1);
	assert_false(vb->bed->level[16]);
	assert_int_equal(rd(vb, ISR, 1), 0);
	/* a queue that is not there: selected, it has no size, and kicks do nothing */
	wr(vb, 22, 1, 2);
	assert_int_equal(rd(vb, 24, 2), 0);
	assert_int_equal(rd(vb, 26, 2), 0xffff);
	wr(vb, NOTIFY + 4, 1, 2);
	wr(vb, NOTIFY + 0xffc, 1, 2);
	/* fields are written whole */
	wr(vb, 22, 0, 2);
	wr(vb, 28, 0, 1);
	wr(vb, 20, 0, 2);
	assert_int_equal(rd(vb, 20, 1), 15);
	wr(vb, 20, 0, 1);
	assert_int_equal(rd(vb, 20, 1), 0);
	assert_int_equal(rd(vb, 28, 2), 0);
	vbed_free(vb);
}

static void vpci_msix(void **state)
{
	struct vbed *vb = plug(NULL, NULL);

	msix_on(vb);
	wr(vb, 22, 0, 2);
	wr(vb, 26, 2, 2); /* vectors 0 and 1 exist */
	assert_int_equal(rd(vb, 26, 2), 0xffff);
	wr(vb, 16, 99, 2);
	assert_int_equal(rd(vb, 16, 2), 0xffff);
	start_modern(vb, 0, 1);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	assert_int_equal(vb->bed->msgs, 1);
	assert_int_equal(vb->bed->msg[0].data, 0x51);
	assert_false(vb->bed->level[16]);
	/* a broken driver is told by the configuration's vector */
	virtio_lock(vb->vd);
	virtio_broken(vb->vd, "test", 0);
	virtio_unlock(vb->vd);
	assert_int_equal(vb->bed->msgs, 2);
	assert_int_equal(vb->bed->msg[1].data, 0x50);
	vbed_free(vb);
	vb = plug("vectors", "0");
	start_modern(vb, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	assert_true(vb->bed->level[16]);
	vbed_free(vb);
}

static void vpci_legacy_ports(void **state)
{
	for (int msix = 0; msix < 2; msix++) {
		struct vbed *vb = plug("disable-legacy", "off");
		struct vq *q = &vb->q[0];

		if (msix)
			msix_on(vb);
		out(vb, 18, 0, 1);
		out(vb, 18, 3, 1);
		assert_true(in(vb, 0, 4) & BIT(VIRTIO_RING_F_INDIRECT_DESC));
		out(vb, 4, BIT(VIRTIO_RING_F_INDIRECT_DESC), 4);
		out(vb, 14, 1, 2);
		assert_int_equal(in(vb, 12, 2), 0);
		out(vb, 14, 0, 2);
		assert_int_equal(in(vb, 12, 2), 64);
		if (msix) {
			out(vb, 22, 1, 2);
			assert_int_equal(in(vb, 22, 2), 1);
		}
		ring(vb, 64);
		out(vb, 8, (uint32_t)(q->desc >> 12), 4);
		assert_int_equal(in(vb, 8, 4), q->desc >> 12);
		out(vb, 18, 7, 1);
		vbed_run(vb);
		assert_true(virtio_is_legacy(vb->vd));
		assert_int_equal(request(vb, BUS_IO, PORTS + 16), 8);
		if (msix) {
			assert_int_equal(vb->bed->msgs, 1);
			assert_int_equal(vb->bed->msg[0].data, 0x51);
		} else {
			assert_true(vb->bed->level[16]);
			assert_int_equal(in(vb, 19, 1), 1);
			assert_false(vb->bed->level[16]);
		}
		out(vb, 18, 0, 1);
		assert_int_equal(in(vb, 8, 4), 0);
		vbed_free(vb);
	}
}

static void vpci_window(void **state)
{
	struct vbed *vb = plug(NULL, NULL);
	unsigned at = bed_cfg_read(vb->bed, 0, PCI_CAPABILITIES, 1);

	assert_int_equal(bed_cfg_read(vb->bed, 0, at + 3, 1), 5);
	bed_cfg_write(vb->bed, 0, at + 4, 4, 1);
	bed_cfg_write(vb->bed, 0, at + 8, 20, 4); /* status */
	bed_cfg_write(vb->bed, 0, at + 12, 1, 4);
	bed_cfg_write(vb->bed, 0, at + 16, 3, 1);
	assert_int_equal(rd(vb, 20, 1), 3);
	wr(vb, 20, 7, 1);
	assert_int_equal(bed_cfg_read(vb->bed, 0, at + 16, 1), 7);
	/* nonsense: another BAR, a length or a place that does not exist */
	bed_cfg_write(vb->bed, 0, at + 12, 3, 4);
	bed_cfg_write(vb->bed, 0, at + 16, 0, 4);
	bed_cfg_write(vb->bed, 0, at + 12, 1, 4);
	bed_cfg_write(vb->bed, 0, at + 8, 0xfffffff0, 4);
	bed_cfg_write(vb->bed, 0, at + 16, 0, 4);
	(void)bed_cfg_read(vb->bed, 0, at + 16, 4);
	bed_cfg_write(vb->bed, 0, at + 8, 20, 4);
	bed_cfg_write(vb->bed, 0, at + 4, 1, 1);
	bed_cfg_write(vb->bed, 0, at + 16, 0, 4);
	assert_int_equal(rd(vb, 20, 1), 7);
	vbed_free(vb);
}

/* The doorbell goes with the BAR, and a write that no doorbell takes reaches the register. */
static void vpci_moved(void **state)
{
	struct vbed *vb = plug(NULL, NULL);

	start_modern(vb, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	bed_cfg_write(vb->bed, 0, 0x20, 0xf2000000, 4);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), -1); /* nobody is there now */
	bus_mem_write(vb->bed->md.bus, 0xf2000000 + NOTIFY, 0, 2);
	vbed_run(vb);
	assert_true(vbed_used(vb, 0, NULL) >= 0);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	assert_int_equal(request(vb, BUS_MEM, 0xf2000000 + NOTIFY), -1);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEM, 2);
	bus_mem_write(vb->bed->md.bus, 0xf2000000 + NOTIFY, 0, 4); /* as wide as it likes */
	vbed_run(vb);
	assert_true(vbed_used(vb, 0, NULL) >= 0);
	vbed_free(vb);
}

static void vpci_master(void **state)
{
	struct vbed *vb = plug(NULL, NULL);

	start_modern(vb, VIRTIO_NO_VECTOR, VIRTIO_NO_VECTOR);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), -1);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER, 2);
	vbed_run(vb);
	assert_true(vbed_used(vb, 0, NULL) >= 0); /* what waited is done */
	/* a pause of the machine is not ended by it */
	vb->transport->cls->pause(vb->transport);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	bed_cfg_write(vb->bed, 0, PCI_COMMAND, PCI_COMMAND_MEM | PCI_COMMAND_MASTER, 2);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), -1);
	vb->transport->cls->resume(vb->transport);
	vbed_run(vb);
	assert_true(vbed_used(vb, 0, NULL) >= 0);
	vbed_free(vb);
}

static void vpci_copy(void **state)
{
	struct vbed *vb = plug(NULL, NULL), *vb2 = plug(NULL, NULL);

	msix_on(vb);
	start_modern(vb, 0, 1);
	assert_int_equal(request(vb, BUS_MEM, BAR4 + NOTIFY), 8);
	memcpy(vb2->ram, vb->ram, VBED_RAM);
	bed_copy(&vb->vd->dev, &vb2->vd->dev);
	bed_copy(vb->transport, vb2->transport);
	vb2->q[0] = vb->q[0];
	vb2->q[0].d = (struct vring_desc *)(vb2->ram + vb2->q[0].desc);
	vb2->q[0].avail = (uint16_t *)(vb2->ram + vb2->q[0].driver);
	vb2->q[0].used = (uint16_t *)(vb2->ram + vb2->q[0].device);
	vb2->top = vb->top;
	vb2->features = vb->features;
	assert_int_equal(request(vb2, BUS_MEM, BAR4 + NOTIFY), 8);
	assert_int_equal(vb2->bed->msgs, 1);
	assert_int_equal(vb2->bed->msg[0].data, 0x51);
	dev_reset(vb2->transport, RESET_WARM);
	assert_int_equal(rd(vb2, 20, 1), 0xff); /* not decoded any more */
	vbed_free(vb);
	vbed_free(vb2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vpci_identity),     cmocka_unit_test(vpci_refused),
		cmocka_unit_test(vpci_modern_intx),  cmocka_unit_test(vpci_msix),
		cmocka_unit_test(vpci_legacy_ports), cmocka_unit_test(vpci_window),
		cmocka_unit_test(vpci_moved),        cmocka_unit_test(vpci_master),
		cmocka_unit_test(vpci_copy),         cmocka_unit_test(vpci_registers_kick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
