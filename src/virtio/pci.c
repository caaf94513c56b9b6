/*
 * virtio-pci: virtio's registers in a PCI function, modern and legacy.
 *
 *   BAR 0  I/O, legacy registers and the device's configuration (transitional devices only)
 *   BAR 1  MSI-X table and pending bits
 *   BAR 4  64-bit, modern: common configuration, ISR, device configuration, notifications, in a
 *          page each; queue n is notified at n times 4
 *
 * Modelled:     modern capabilities with the access through configuration space, the legacy layout,
 *               MSI-X with a vector for each queue and one for the configuration, INTx with the
 *               ISR register. Doorbells follow the BARs. Without bus mastering the queues stand
 *               still, as nothing of theirs could be read.
 * Not modelled: queue reset, notification data, shared memory, function level reset, power
 *               management, ATS. A legacy configuration ends where an I/O BAR of 256 ports does.
 * References:   [VIRTIO1.2 4.1.4] capabilities, [VIRTIO1.2 4.1.4.10] legacy, [VIRTIO1.2 4.1.5].
 * Threads:      registers: any vCPU, under the device lock. Interrupts: transport.h.
 */
#include <errno.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "hw/pci/msi.h"
#include "virtio/transport.h"

enum {
	VPCI_LEGACY_BAR = 0,
	VPCI_MSIX_BAR = 1,
	VPCI_MODERN_BAR = 4,

	VPCI_PAGE = 0x1000, /* BAR 4: one for each of ... */
	VPCI_COMMON = 0,
	VPCI_ISR = 1,
	VPCI_CONFIG = 2,
	VPCI_NOTIFY = 3,
	VPCI_PAGES = 4,
	VPCI_NOTIFY_STEP = 4,
};

#define VPCI_VENDOR          0x1af4u
#define VPCI_MODERN_ID       0x1040u
#define VPCI_SUBSYSTEM       0x1100u
#define VPCI_VECTORS_DEFAULT UINT32_MAX

struct vpci {
	struct pci_dev pci;
	struct virtio_dev *vd; /* properties */
	char *disable_legacy;
	bool disable_modern, ioeventfd;
	uint32_t vectors, bootindex;

	struct virtio v;
	bool paused; /* the machine */
	uint8_t cfg; /* capability for accesses through configuration space; 0: none */
	struct vpci_state {
		struct pci_state pci;
		struct pci_msix_state msix;
		struct virtio_state core;
	} s;
};

/* clang-format off */
static const struct prop vpci_props[] = {
	PCI_PROPS(struct vpci, pci),
	PROP_BACKEND(struct vpci, vd, "virtio-device", "the device behind it"),
	{ .name = "disable-legacy", .help = "on|off|auto: no legacy interface; auto: on where I/O BARs are rare",
	  .kind = PROP_KIND_STR, .off = offsetof(struct vpci, disable_legacy), .sdflt = "auto" },
	PROP_N(struct vpci, disable_modern, "disable-modern", false, "only the legacy interface"),
	PROP(struct vpci, ioeventfd, true, "notifications ring doorbells, without a way through a vCPU's exit"),
	PROP(struct vpci, bootindex, UINT32_MAX, "accepted; for firmware, which comes later"),
	PROP(struct vpci, vectors, VPCI_VECTORS_DEFAULT, "MSI-X vectors, 0: none; default: queues and 1"),
	PROP_END
};
/* clang-format on */

static const struct field vpci_fields[] = {
	PCI_STATE_FIELDS(struct vpci_state, pci),
	PCI_MSIX_FIELDS(struct vpci_state, msix),
	VIRTIO_STATE_ROWS(struct vpci_state),
	{ 0 },
};

static struct vpci *vpci_of(struct dev *d)
{
	return container_of(d, struct vpci, pci.dev);
}

static uint16_t vpci_vector(const struct vpci *p, uint64_t v)
{
	return v < p->pci.msix_n ? (uint16_t)v : VIRTIO_NO_VECTOR;
}

/* ---- Modern registers ---------------------------------------------------------------------- */

static struct virtio_pci_common_cfg vpci_common(struct vpci *p)
{
	struct virtio_state *s = &p->s.core;
	const struct virtq_state *q = virtio_queue_state(&p->v, s->queue_sel);
	struct virtio_pci_common_cfg c = {
		.device_feature_select = s->device_features_sel,
		.device_feature = virtio_offered(&p->v, s->device_features_sel),
		.guest_feature_select = s->driver_features_sel,
		.guest_feature = virtio_driver_features(&p->v, s->driver_features_sel),
		.msix_config = s->config_vector,
		.num_queues = p->vd ? p->vd->queues : 0,
		.device_status = virtio_status(&p->v),
		.config_generation = (uint8_t)virtio_generation(&p->v),
		.queue_select = s->queue_sel,
		.queue_msix_vector = VIRTIO_NO_VECTOR,
	};

	if (q) {
		c.queue_size = q->size;
		c.queue_msix_vector = q->vector;
		c.queue_enable = q->enabled;
		c.queue_notify_off = s->queue_sel;
		c.queue_desc_lo = (uint32_t)q->area[VIRTIO_DESC];
		c.queue_desc_hi = (uint32_t)(q->area[VIRTIO_DESC] >> 32);
		c.queue_avail_lo = (uint32_t)q->area[VIRTIO_DRIVER];
		c.queue_avail_hi = (uint32_t)(q->area[VIRTIO_DRIVER] >> 32);
		c.queue_used_lo = (uint32_t)q->area[VIRTIO_DEVICE];
		c.queue_used_hi = (uint32_t)(q->area[VIRTIO_DEVICE] >> 32);
	}
	return c;
}

/* Fields are written whole: as the specification wants it from drivers. */
static void vpci_common_write(struct vpci *p, unsigned off, uint32_t v, unsigned size)
{
	struct virtio_state *s = &p->s.core;
	static const uint8_t width[] = {
		[VIRTIO_PCI_COMMON_DFSELECT] = 4,  [VIRTIO_PCI_COMMON_GFSELECT] = 4,
		[VIRTIO_PCI_COMMON_GF] = 4,        [VIRTIO_PCI_COMMON_MSIX] = 2,
		[VIRTIO_PCI_COMMON_STATUS] = 1,    [VIRTIO_PCI_COMMON_Q_SELECT] = 2,
		[VIRTIO_PCI_COMMON_Q_SIZE] = 2,    [VIRTIO_PCI_COMMON_Q_MSIX] = 2,
		[VIRTIO_PCI_COMMON_Q_ENABLE] = 2,  [VIRTIO_PCI_COMMON_Q_DESCLO] = 4,
		[VIRTIO_PCI_COMMON_Q_DESCHI] = 4,  [VIRTIO_PCI_COMMON_Q_AVAILLO] = 4,
		[VIRTIO_PCI_COMMON_Q_AVAILHI] = 4, [VIRTIO_PCI_COMMON_Q_USEDLO] = 4,
		[VIRTIO_PCI_COMMON_Q_USEDHI] = 4,
	};
	unsigned q = s->queue_sel;

	if (off >= ARRAY_SIZE(width) || size != width[off]) {
		guest_error(&p->pci.dev, "common_write", off, v, size);
		return;
	}
	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT: s->device_features_sel = v; break;
	case VIRTIO_PCI_COMMON_GFSELECT: s->driver_features_sel = v; break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_set_driver_features(&p->v, s->driver_features_sel, v);
		break;
	case VIRTIO_PCI_COMMON_MSIX: s->config_vector = vpci_vector(p, v); break;
	case VIRTIO_PCI_COMMON_STATUS: virtio_set_status(&p->v, (uint8_t)v); break;
	case VIRTIO_PCI_COMMON_Q_SELECT: s->queue_sel = (uint16_t)v; break;
	case VIRTIO_PCI_COMMON_Q_SIZE: virtio_queue_set_size(&p->v, q, (uint16_t)v); break;
	case VIRTIO_PCI_COMMON_Q_MSIX: virtio_queue_set_vector(&p->v, q, vpci_vector(p, v)); break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (v == 1) /* a driver must not write 0; the queue goes with the device's reset */
			virtio_queue_enable(&p->v, q);
		break;
	default:
		off -= VIRTIO_PCI_COMMON_Q_DESCLO;
		virtio_queue_set_area(&p->v, q, (enum virtio_area)(off / 8), off / 4 % 2, v);
		break;
	}
}

static uint64_t vpci_modern_read(struct dev *d, uint64_t off, unsigned size)
{
	struct vpci *p = vpci_of(d);
	unsigned at = off % VPCI_PAGE;
	struct virtio_pci_common_cfg c;
	uint64_t v = 0;

	switch (off / VPCI_PAGE) {
	case VPCI_COMMON:
		c = vpci_common(p);
		if (at + size <= sizeof(c))
			memcpy(&v, (const uint8_t *)&c + at, size);
		break;
	case VPCI_ISR: v = at ? 0 : virtio_isr_take(&p->v); break;
	case VPCI_CONFIG: v = virtio_config_read(&p->v, at, size); break;
	default: break;
	}
	return v;
}

static void vpci_modern_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct vpci *p = vpci_of(d);
	unsigned at = off % VPCI_PAGE;

	switch (off / VPCI_PAGE) {
	case VPCI_COMMON: vpci_common_write(p, at, (uint32_t)val, size); break;
	case VPCI_CONFIG: virtio_config_write(&p->v, at, val, size); break;
	case VPCI_NOTIFY:
		if (at % VPCI_NOTIFY_STEP == 0)
			virtio_kick(&p->v, at / VPCI_NOTIFY_STEP);
		break;
	default: break;
	}
}

static const struct region_ops vpci_modern = { vpci_modern_read, vpci_modern_write, 1, 4 };

/* ---- Legacy registers ---------------------------------------------------------------------- */

/* Where the device's configuration begins: two vectors come before it when MSI-X is on. */
static unsigned vpci_legacy_config(struct vpci *p)
{
	return (unsigned)VIRTIO_PCI_CONFIG_OFF(pci_msix_on(&p->pci));
}

static uint64_t vpci_legacy_read(struct dev *d, uint64_t off, unsigned size)
{
	struct vpci *p = vpci_of(d);
	struct virtio_state *s = &p->s.core;
	const struct virtq_state *q = virtio_queue_state(&p->v, s->queue_sel);
	unsigned config = vpci_legacy_config(p);

	if (off >= config)
		return virtio_config_read(&p->v, off - config, size);
	switch (off) {
	case VIRTIO_PCI_HOST_FEATURES: return virtio_legacy_offered(&p->v);
	case VIRTIO_PCI_GUEST_FEATURES: return virtio_driver_features(&p->v, 0);
	case VIRTIO_PCI_QUEUE_PFN: return virtio_queue_pfn(&p->v, s->queue_sel);
	case VIRTIO_PCI_QUEUE_NUM: return virtio_queue_max(&p->v, s->queue_sel);
	case VIRTIO_PCI_QUEUE_SEL: return s->queue_sel;
	case VIRTIO_PCI_STATUS: return virtio_status(&p->v);
	case VIRTIO_PCI_ISR: return virtio_isr_take(&p->v);
	case VIRTIO_MSI_CONFIG_VECTOR: return s->config_vector;
	case VIRTIO_MSI_QUEUE_VECTOR: return q ? q->vector : VIRTIO_NO_VECTOR;
	default: return 0;
	}
}

static void vpci_legacy_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct vpci *p = vpci_of(d);
	struct virtio_state *s = &p->s.core;
	unsigned config = vpci_legacy_config(p);

	if (off >= config) {
		virtio_config_write(&p->v, off - config, val, size);
		return;
	}
	switch (off) {
	case VIRTIO_PCI_GUEST_FEATURES: virtio_legacy_set_features(&p->v, (uint32_t)val); break;
	case VIRTIO_PCI_QUEUE_PFN: virtio_queue_set_pfn(&p->v, s->queue_sel, (uint32_t)val); break;
	case VIRTIO_PCI_QUEUE_SEL: s->queue_sel = (uint16_t)val; break;
	case VIRTIO_PCI_QUEUE_NOTIFY: virtio_kick(&p->v, (uint16_t)val); break;
	case VIRTIO_PCI_STATUS: virtio_set_status(&p->v, (uint8_t)val); break;
	case VIRTIO_MSI_CONFIG_VECTOR: s->config_vector = vpci_vector(p, val); break;
	case VIRTIO_MSI_QUEUE_VECTOR:
		virtio_queue_set_vector(&p->v, s->queue_sel, vpci_vector(p, val));
		break;
	default: guest_error(d, "legacy_write", off, val, size); break;
	}
}

static const struct region_ops vpci_legacy = { vpci_legacy_read, vpci_legacy_write, 1, 4 };

/* ---- Configuration space ------------------------------------------------------------------- */

/*
 * The window on BAR 4 in the configuration space [VIRTIO1.2 4.1.4.9]: which bytes of the BAR its
 * data field stands for. False when what the driver set up is nothing.
 */
static bool vpci_window(struct vpci *p, unsigned off, unsigned size, uint32_t *at, uint32_t *len)
{
	unsigned data = p->cfg + (unsigned)offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

	if (!p->cfg || off + size <= data || off >= data + 4u || size > 4)
		return false;
	*at = pci_get(&p->pci, p->cfg + VIRTIO_PCI_CAP_OFFSET, 4);
	*len = pci_get(&p->pci, p->cfg + VIRTIO_PCI_CAP_LENGTH, 4);
	return pci_get(&p->pci, p->cfg + VIRTIO_PCI_CAP_BAR, 1) == VPCI_MODERN_BAR &&
	       (*len == 1 || *len == 2 || *len == 4) && !(*at % *len) &&
	       *at < VPCI_PAGES * VPCI_PAGE;
}

static uint8_t *vpci_window_data(struct vpci *p)
{
	return p->s.pci.config + p->cfg + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
}

static void vpci_reading(struct pci_dev *pci, unsigned off, unsigned size)
{
	struct vpci *p = container_of(pci, struct vpci, pci);
	uint32_t at, len;

	if (vpci_window(p, off, size, &at, &len)) {
		uint32_t v = (uint32_t)vpci_modern_read(&pci->dev, at, len);

		memcpy(vpci_window_data(p), &v, len);
	}
}

/* The queues run when machine and bus mastering let them. */
static void vpci_sync(struct vpci *p)
{
	if (p->paused || !pci_is_master(&p->pci))
		virtio_pause(&p->v);
	else
		virtio_resume(&p->v);
}

static void vpci_written(struct pci_dev *pci, unsigned off, unsigned size)
{
	struct vpci *p = container_of(pci, struct vpci, pci);
	uint32_t at, len, v = 0;

	if (off <= PCI_COMMAND + 1 && off + size > PCI_COMMAND)
		vpci_sync(p);
	if (vpci_window(p, off, size, &at, &len)) {
		memcpy(&v, vpci_window_data(p), len);
		vpci_modern_write(&pci->dev, at, v, len);
	}
}

static void vpci_mapped(struct pci_dev *pci, unsigned bar, uint64_t addr)
{
	struct vpci *p = container_of(pci, struct vpci, pci);

	if (bar == VPCI_MSIX_BAR)
		return;
	virtio_doorbells(&p->v, false);
	virtio_doorbells(&p->v, true);
}

static const struct pci_ops vpci_ops = { vpci_reading, vpci_written, vpci_mapped };

/* ---- For the core -------------------------------------------------------------------------- */

static bool vpci_msi(struct virtio *v, uint16_t vector)
{
	struct vpci *p = container_of(v, struct vpci, v);

	if (!pci_msix_on(&p->pci))
		return false;
	pci_msix_notify(&p->pci, vector); /* "no vector" is none that exists */
	return true;
}

static void vpci_line(struct virtio *v, bool level)
{
	pci_intx(&container_of(v, struct vpci, v)->pci, level);
}

static unsigned vpci_doorbells(struct virtio *v, unsigned n, struct doorbell *out)
{
	struct vpci *p = container_of(v, struct vpci, v);
	uint64_t io = p->pci.bar[VPCI_LEGACY_BAR].addr, mem = p->pci.bar[VPCI_MODERN_BAR].addr;
	unsigned count = 0;

	if (!p->ioeventfd)
		return 0;
	if (mem != PCI_UNMAPPED)
		out[count++] = (struct doorbell){ .space = BUS_MEM,
						  .addr = mem + VPCI_NOTIFY * VPCI_PAGE +
							  n * VPCI_NOTIFY_STEP };
	if (io != PCI_UNMAPPED)
		out[count++] = (struct doorbell){ .space = BUS_IO,
						  .addr = io + VIRTIO_PCI_QUEUE_NOTIFY,
						  .len = 2,
						  .match = true,
						  .value = n };
	return count;
}

static const struct virtio_transport_ops vpci_transport = { .msi = vpci_msi,
							    .line = vpci_line,
							    .doorbells = vpci_doorbells };

/* A function without a device, as tests make it. */
static const struct virtio_class vpci_nothing = { .pci_legacy_id = 0x103f, .pci_class = 0xff0000 };

static const struct virtio_class *vpci_class(const struct vpci *p)
{
	return p->vd ? p->vd->vc : &vpci_nothing;
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void vpci_cap(struct vpci *p, uint8_t type, unsigned page, uint32_t len)
{
	unsigned size = type == VIRTIO_PCI_CAP_NOTIFY_CFG ? sizeof(struct virtio_pci_notify_cap)
			: type == VIRTIO_PCI_CAP_PCI_CFG  ? sizeof(struct virtio_pci_cfg_cap)
							  : sizeof(struct virtio_pci_cap);
	unsigned at = pci_add_cap(&p->pci, PCI_CAP_VENDOR, size);

	pci_init(&p->pci, at + VIRTIO_PCI_CAP_LEN, 1, size);
	pci_init(&p->pci, at + VIRTIO_PCI_CAP_CFG_TYPE, 1, type);
	if (type == VIRTIO_PCI_CAP_PCI_CFG) {
		p->cfg = (uint8_t)at;
		pci_writable(&p->pci, at + VIRTIO_PCI_CAP_BAR, 1, 0xff);
		pci_writable(&p->pci, at + VIRTIO_PCI_CAP_OFFSET, 4, ~0u);
		pci_writable(&p->pci, at + VIRTIO_PCI_CAP_LENGTH, 4, ~0u);
		pci_writable(&p->pci, at + size - 4, 4, ~0u);
		return;
	}
	pci_init(&p->pci, at + VIRTIO_PCI_CAP_BAR, 1, VPCI_MODERN_BAR);
	pci_init(&p->pci, at + VIRTIO_PCI_CAP_OFFSET, 4, page * VPCI_PAGE);
	pci_init(&p->pci, at + VIRTIO_PCI_CAP_LENGTH, 4, len);
	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		pci_init(&p->pci, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4, VPCI_NOTIFY_STEP);
}

static void vpci_add_modern(struct vpci *p)
{
	pci_add_bar(&p->pci, VPCI_MODERN_BAR, PCI_BAR_MEM64 | PCI_BAR_PREFETCH,
		    VPCI_PAGES * VPCI_PAGE, &vpci_modern);
	vpci_cap(p, VIRTIO_PCI_CAP_COMMON_CFG, VPCI_COMMON, VPCI_PAGE);
	vpci_cap(p, VIRTIO_PCI_CAP_ISR_CFG, VPCI_ISR, VPCI_PAGE);
	vpci_cap(p, VIRTIO_PCI_CAP_DEVICE_CFG, VPCI_CONFIG, VPCI_PAGE);
	vpci_cap(p, VIRTIO_PCI_CAP_NOTIFY_CFG, VPCI_NOTIFY, VPCI_PAGE);
	vpci_cap(p, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
}

static void vpci_add_legacy(struct vpci *p)
{
	uint32_t want = (uint32_t)VIRTIO_PCI_CONFIG_OFF(true) + vpci_class(p)->config_size,
		 size = 32;

	while (size < want && size < 256) /* more than an I/O BAR holds is for modern drivers */
		size *= 2;
	pci_add_bar(&p->pci, VPCI_LEGACY_BAR, PCI_BAR_IO, size, &vpci_legacy);
}

/* Does it have the legacy interface? */
static int vpci_wants_legacy(struct vpci *p, bool *legacy, struct err *e)
{
	const struct pci_bus *b = p->pci.dev.md->pci;
	const char *text = p->disable_legacy;
	bool can = vpci_class(p)->pci_legacy_id, off = !strcmp(text, "off");

	if (!off && strcmp(text, "on") && strcmp(text, "auto"))
		return err_set(e, EINVAL, "%s: disable-legacy=%s should be on, off or auto",
			       p->pci.dev.id, text);
	if (!can && (off || p->disable_modern))
		return err_set(e, EINVAL, "%s: %s has no legacy interface", p->pci.dev.id,
			       p->vd->dev.cls->name);
	/* By default a transitional device, where the bus is a classic one. */
	*legacy = can && (off || (!strcmp(text, "auto") && b && b->ports));
	if (!*legacy && p->disable_modern)
		return err_set(e, EINVAL,
			       "%s: with both disable-modern and disable-legacy nothing is left",
			       p->pci.dev.id);
	return 0;
}

static int vpci_join(struct vpci *p, bool legacy, struct err *e)
{
	const struct virtio_class *vc = vpci_class(p);
	uint32_t queues = p->vd ? p->vd->queues : 0;
	const struct pci_ident id = {
		.vendor = VPCI_VENDOR,
		.device = legacy ? vc->pci_legacy_id : (uint16_t)(VPCI_MODERN_ID + vc->id),
		.revision = legacy ? 0 : 1,
		.class = vc->pci_class,
		.subsystem_vendor = VPCI_VENDOR,
		.subsystem = legacy ? vc->id : VPCI_SUBSYSTEM,
		.pin = 1,
	};
	uint32_t vectors = p->vectors == VPCI_VECTORS_DEFAULT ? queues + 1 : p->vectors;
	int r = pci_realize(&p->pci, &p->s.pci, &id, &vpci_ops, PCI_SLOT_ANY, e);

	if (r < 0)
		return r;
	if (legacy)
		vpci_add_legacy(p);
	p->pci.msix = &p->s.msix;
	if (vectors)
		pci_msix_init(&p->pci, &p->s.msix, VPCI_MSIX_BAR, vectors);
	if (!p->disable_modern)
		vpci_add_modern(p);
	return 0;
}

static int vpci_realize(struct dev *d, struct err *e)
{
	struct vpci *p = vpci_of(d);
	bool legacy = false;
	int r;

	if (p->vectors != VPCI_VECTORS_DEFAULT && p->vectors > PCI_MSIX_MAX)
		return err_set(e, ERANGE, "%s: vectors=%u is more than %d", d->id, p->vectors,
			       PCI_MSIX_MAX);
	if (p->vd && !p->vd->vc)
		return err_set(e, EINVAL, "%s: %s is not ready", d->id, p->vd->dev.id);
	r = vpci_wants_legacy(p, &legacy, e);
	if (r == 0)
		r = vpci_join(p, legacy, e);
	if (r == 0)
		r = virtio_init(&p->v, d, p->vd, &vpci_transport, &p->s.core, e);
	if (r < 0)
		pci_unrealize(&p->pci);
	return r;
}

static void vpci_unrealize(struct dev *d)
{
	struct vpci *p = vpci_of(d);

	virtio_exit(&p->v);
	pci_unrealize(&p->pci);
}

static void vpci_reset(struct dev *d, enum reset_kind k)
{
	virtio_dev_reset(&vpci_of(d)->v);
	pci_reset(&vpci_of(d)->pci);
}

static int vpci_loaded(struct dev *d, struct err *e)
{
	struct vpci *p = vpci_of(d);
	int r = pci_loaded(&p->pci, e);

	return r < 0 ? r : virtio_loaded(&p->v, e);
}

static void vpci_pause(struct dev *d)
{
	vpci_of(d)->paused = true;
	vpci_sync(vpci_of(d));
}

static void vpci_resume(struct dev *d)
{
	vpci_of(d)->paused = false;
	vpci_sync(vpci_of(d));
}

const struct dev_class virtio_pci_class = {
	.name = "virtio-pci",
	.desc = "virtio transport on PCI; made with each virtio-...-pci",
	.bus = "PCI",
	.size = sizeof(struct vpci),
	.props = vpci_props,
	.state = STATE_OF(struct vpci, s, vpci_fields, 1),
	.realize = vpci_realize,
	.reset = vpci_reset,
	.loaded = vpci_loaded,
	.pause = vpci_pause,
	.resume = vpci_resume,
	.unrealize = vpci_unrealize,
};
