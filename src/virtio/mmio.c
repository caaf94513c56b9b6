/*
 * virtio-mmio: virtio's registers in a page of memory, with an interrupt line. Version 2 only.
 *
 * Modelled:     all registers of version 2; an empty slot (device id 0) when there is no device.
 * Not modelled: the legacy version 1, shared memory regions (none exist), queue reset.
 * Deviation:    an acknowledgement that leaves the line high pulses it, for boards whose interrupt
 *               input is edge-triggered (acpi=off).
 * References:   [VIRTIO1.2 4.2.2] registers, [VIRTIO1.2 4.2.3] operation.
 * Threads:      registers: any vCPU, under the device lock. Interrupts: transport.h.
 */
#include "virtio/transport.h"

enum {
	MMIO_MAGIC = 0x000,
	MMIO_VERSION = 0x004,
	MMIO_DEVICE_ID = 0x008,
	MMIO_VENDOR_ID = 0x00c,
	MMIO_DEVICE_FEATURES = 0x010,
	MMIO_DEVICE_FEATURES_SEL = 0x014,
	MMIO_DRIVER_FEATURES = 0x020,
	MMIO_DRIVER_FEATURES_SEL = 0x024,
	MMIO_QUEUE_SEL = 0x030,
	MMIO_QUEUE_NUM_MAX = 0x034,
	MMIO_QUEUE_NUM = 0x038,
	MMIO_QUEUE_READY = 0x044,
	MMIO_QUEUE_NOTIFY = 0x050,
	MMIO_INTERRUPT_STATUS = 0x060,
	MMIO_INTERRUPT_ACK = 0x064,
	MMIO_STATUS = 0x070,
	MMIO_QUEUE_DESC = 0x080,
	MMIO_QUEUE_DRIVER = 0x090,
	MMIO_QUEUE_DEVICE = 0x0a0,
	MMIO_SHM_LEN = 0x0b0,
	MMIO_SHM_BASE_END = 0x0c0,
	MMIO_CONFIG_GENERATION = 0x0fc,
	MMIO_CONFIG = 0x100,
	MMIO_LEN = 0x200,
};

struct virtio_mmio {
	struct dev dev;
	uint64_t addr; /* properties */
	uint32_t irq;
	struct virtio_dev *vd;
	struct virtio v;
	struct irq_pin pin;
	struct virtio_mmio_state {
		struct virtio_state core;
	} s;
};

static const struct prop virtio_mmio_props[] = {
	PROP(struct virtio_mmio, addr, 0xfeb00000, "where the registers are"),
	PROP(struct virtio_mmio, irq, 16, "interrupt line (GSI)"),
	PROP_BACKEND(struct virtio_mmio, vd, "virtio-device", "the device in this slot"),
	PROP_END,
};

static const struct field virtio_mmio_fields[] = {
	VIRTIO_STATE_ROWS(struct virtio_mmio_state),
	{ 0 },
};

static struct virtio_mmio *virtio_mmio_of(struct dev *d)
{
	return container_of(d, struct virtio_mmio, dev);
}

static uint64_t virtio_mmio_read(struct dev *d, uint64_t off, unsigned size)
{
	struct virtio_mmio *m = virtio_mmio_of(d);
	struct virtio_state *s = &m->s.core;
	const struct virtq_state *q = virtio_queue_state(&m->v, s->queue_sel);

	if (off >= MMIO_CONFIG)
		return virtio_config_read(&m->v, off - MMIO_CONFIG, size);
	if (size != 4) {
		guest_error(d, "register_size", off, size);
		return 0;
	}
	switch (off) {
	case MMIO_MAGIC: return 0x74726976; /* "virt" */
	case MMIO_VERSION: return 2;
	case MMIO_DEVICE_ID: return m->vd ? m->vd->vc->id : 0;
	case MMIO_VENDOR_ID: return 0x5253564b; /* "KVSR" */
	case MMIO_DEVICE_FEATURES: return virtio_offered(&m->v, s->device_features_sel);
	case MMIO_QUEUE_NUM_MAX: return virtio_queue_max(&m->v, s->queue_sel);
	case MMIO_QUEUE_READY: return q && q->enabled;
	case MMIO_INTERRUPT_STATUS: return virtio_isr(&m->v);
	case MMIO_STATUS: return virtio_status(&m->v);
	case MMIO_CONFIG_GENERATION: return virtio_generation(&m->v);
	}
	if (off >= MMIO_SHM_LEN && off < MMIO_SHM_BASE_END)
		return 0xffffffff; /* no such region */
	guest_error(d, "register_read", off);
	return 0;
}

static void virtio_mmio_queue_addr(struct virtio_mmio *m, uint64_t off, uint32_t val)
{
	static const uint16_t at[VIRTIO_AREAS] = { MMIO_QUEUE_DESC, MMIO_QUEUE_DRIVER,
						   MMIO_QUEUE_DEVICE };

	for (unsigned a = 0; a < VIRTIO_AREAS; a++)
		if (off == at[a] || off == at[a] + 4u) {
			virtio_queue_set_area(&m->v, m->s.core.queue_sel, (enum virtio_area)a,
					      off != at[a], val);
			return;
		}
	guest_error(&m->dev, "register_write", off, val);
}

static void virtio_mmio_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct virtio_mmio *m = virtio_mmio_of(d);
	struct virtio_state *s = &m->s.core;
	uint32_t v = (uint32_t)val;

	if (off >= MMIO_CONFIG) {
		virtio_config_write(&m->v, off - MMIO_CONFIG, val, size);
		return;
	}
	if (size != 4) {
		guest_error(d, "register_size", off, size);
		return;
	}
	switch (off) {
	case MMIO_DEVICE_FEATURES_SEL: s->device_features_sel = v; break;
	case MMIO_DRIVER_FEATURES_SEL: s->driver_features_sel = v; break;
	case MMIO_DRIVER_FEATURES:
		virtio_set_driver_features(&m->v, s->driver_features_sel, v);
		break;
	case MMIO_QUEUE_SEL: s->queue_sel = (uint16_t)MIN(v, 0xffffu); break;
	case MMIO_QUEUE_NUM:
		virtio_queue_set_size(&m->v, s->queue_sel, (uint16_t)MIN(v, 0xffffu));
		break;
	case MMIO_QUEUE_READY:
		if (v & 1)
			virtio_queue_enable(&m->v, s->queue_sel);
		else
			virtio_queue_disable(&m->v, s->queue_sel);
		break;
	case MMIO_QUEUE_NOTIFY: virtio_kick(&m->v, v); break;
	case MMIO_INTERRUPT_ACK:
		virtio_isr_ack(&m->v, (uint8_t)v);
		if (virtio_isr(&m->v) && m->pin.level) {
			irq_set(&m->pin, false);
			irq_set(&m->pin, true);
		}
		break;
	case MMIO_STATUS: virtio_set_status(&m->v, (uint8_t)v); break;
	default: virtio_mmio_queue_addr(m, off, v); break;
	}
}

static void virtio_mmio_line(struct virtio *v, bool level)
{
	irq_set(&container_of(v, struct virtio_mmio, v)->pin, level);
}

static unsigned virtio_mmio_doorbells(struct virtio *v, unsigned n, struct doorbell *out)
{
	const struct virtio_mmio *m = container_of(v, struct virtio_mmio, v);

	out[0] = (struct doorbell){ .space = BUS_MEM,
				    .addr = m->addr + MMIO_QUEUE_NOTIFY,
				    .len = 4,
				    .match = true,
				    .value = n };
	return 1;
}

static const struct region_ops virtio_mmio_io = { virtio_mmio_read, virtio_mmio_write, .min = 1,
						  .max = 4 };
static const struct virtio_transport_ops virtio_mmio_ops = { .line = virtio_mmio_line,
							     .doorbells = virtio_mmio_doorbells };

static int virtio_mmio_realize(struct dev *d, struct err *e)
{
	struct virtio_mmio *m = virtio_mmio_of(d);
	int r = bus_claim_mem(d, m->addr, MMIO_LEN, &virtio_mmio_io, e);

	if (r == 0)
		r = dev_irq(d, &m->pin, m->irq, e);
	if (r == 0)
		r = virtio_init(&m->v, d, m->vd, &virtio_mmio_ops, &m->s.core, e);
	return r;
}

static void virtio_mmio_reset(struct dev *d, enum reset_kind k)
{
	virtio_dev_reset(&virtio_mmio_of(d)->v);
}

static int virtio_mmio_loaded(struct dev *d, struct err *e)
{
	return virtio_loaded(&virtio_mmio_of(d)->v, e);
}

static void virtio_mmio_pause(struct dev *d)
{
	virtio_pause(&virtio_mmio_of(d)->v);
}

static void virtio_mmio_resume(struct dev *d)
{
	virtio_resume(&virtio_mmio_of(d)->v);
}

static void virtio_mmio_unrealize(struct dev *d)
{
	struct virtio_mmio *m = virtio_mmio_of(d);

	virtio_exit(&m->v);
	irq_connect(&m->pin, NULL);
}

const struct dev_class virtio_mmio_class = {
	.name = "virtio-mmio",
	.desc = "virtio transport in memory; made with each virtio-...-device",
	.size = sizeof(struct virtio_mmio),
	.props = virtio_mmio_props,
	.state = STATE_OF(struct virtio_mmio, s, virtio_mmio_fields, 1),
	.realize = virtio_mmio_realize,
	.reset = virtio_mmio_reset,
	.loaded = virtio_mmio_loaded,
	.pause = virtio_mmio_pause,
	.resume = virtio_mmio_resume,
	.unrealize = virtio_mmio_unrealize,
};
