/*
 * virtio-blk: a disk.
 *
 * Modelled:     several queues; read, write, flush, discard, write-zeroes, get-id; topology; the
 *               write cache that the driver may switch; a length that changes while it runs. Data
 *               moves between guest memory and the host's file without a copy in between.
 * Not modelled: secure erase, lifetime, zoned devices (their bits are not offered), SCSI commands.
 * Reference:    [VIRTIO1.2 5.2]. Threads: virtio.h, may be in an iothread.
 * Time: none. Host resources: with an iothread, an io_uring and worker threads of its own.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/backend.h"
#include "virtio/virtio.h"

enum {
	VBLK_SECTOR = 512,
	VBLK_ID_LEN = 20,
	VBLK_SEGS = 254,             /* data buffers of a request, as QEMU offers them */
	VBLK_MAX_SECTORS = 0x3fffff, /* of one discard or write-zeroes: just under 2 GiB */
	VBLK_QUEUES_MAX = 64,
};

struct vblk {
	struct virtio_dev vd;
	/* properties */
	struct blk *blk;
	char *serial, *rerror, *werror;
	uint16_t num_queues, queue_size;
	uint32_t lbs, pbs, min_io, opt_io;
	bool discard, write_zeroes, config_wce;
	uint32_t bootindex;

	struct block_ctx *ctx; /* in the iothread's loop; NULL: the machine's */
	struct block_ctx *old_ctx;
	struct loop_hook hook;
	bool attached, hooked;
	bool writethrough; /* of the drive, before the guest switched it */
	bool hurried;      /* blk_hurry is on: a reset or pause waits */
	uint64_t dirty;    /* queues with entries that were filled in this round */

	struct vblk_state {
		bool wce; /* write cache enabled */
		bool reserved[7];
	} s;
};

/* Behind each element. */
struct vblk_req {
	struct blk_req r;
	struct vblk *b;
	struct virtq_elem *el;
	struct iovec *iov; /* malloc'ed, if the parts had to be cut; NULL */
};

static const struct prop vblk_props[] = {
	{ .name = "drive",
	  .help = "-drive or -blockdev, by its id or node-name",
	  .kind = PROP_KIND_BACKEND,
	  .off = offsetof(struct vblk, blk),
	  .backend = "drive" },
	PROP_STR(struct vblk, serial, NULL, "serial number the guest sees; default: the drive's"),
	PROP_STR(struct vblk, rerror, NULL, "read errors: report, ignore, stop, enospc"),
	PROP_STR(struct vblk, werror, NULL, "write errors: the same; default: the drive's"),
	PROP_N(struct vblk, num_queues, "num-queues", 0, "request queues; 0: one for each vCPU"),
	PROP_N(struct vblk, queue_size, "queue-size", 256, "entries of a queue: a power of 2"),
	PROP_N(struct vblk, lbs, "logical-block-size", 512, "smallest unit of access, bytes"),
	PROP_N(struct vblk, pbs, "physical-block-size", 512, "unit without read-modify-write"),
	PROP_N(struct vblk, min_io, "min-io-size", 0, "smallest efficient request, bytes"),
	PROP_N(struct vblk, opt_io, "opt-io-size", 0, "best request, bytes"),
	PROP(struct vblk, discard, true, "offer discard"),
	PROP_N(struct vblk, write_zeroes, "write-zeroes", true, "offer write-zeroes"),
	PROP_N(struct vblk, config_wce, "config-wce", true, "the guest may switch the write cache"),
	PROP(struct vblk, bootindex, UINT32_MAX, "accepted; for firmware, which comes later"),
	VIRTIO_DEV_PROP_IOTHREAD(struct vblk),
	VIRTIO_DEV_PROPS(struct vblk),
	PROP_END,
};

static const struct field vblk_fields[] = {
	ST(struct vblk_state, wce),
	ST_ARR(struct vblk_state, reserved),
	{ 0 },
};

static struct vblk *vblk_of(struct virtio_dev *vd)
{
	return container_of(vd, struct vblk, vd);
}

/* ---- Requests ------------------------------------------------------------------------------ */

/* The status byte is the last of the "in" part; it may share a buffer with data. */
static void vblk_status(const struct virtq_elem *el, uint8_t status)
{
	const struct iovec *last = &el->in[el->in_n - 1];

	*((uint8_t *)last->iov_base + last->iov_len - 1) = status;
}

static void vblk_finish(struct vblk *b, struct virtq_elem *el, uint8_t status)
{
	struct virtq *q = el->q;

	vblk_status(el, status);
	if (b->hurried) { /* somebody waits for it to be in the ring */
		virtq_push(el, el->in_len);
		virtq_notify(q);
		return;
	}
	virtq_fill(el, el->in_len);
	if (!b->dirty)
		loop_notify_others(virtio_loop(&b->vd));
	b->dirty |= BIT(virtq_index(q));
}

/* The end of a round: all that was filled becomes visible, with one interrupt a queue at most. */
static bool vblk_round(void *opaque)
{
	struct vblk *b = opaque;
	uint64_t dirty = b->dirty;

	b->dirty = 0;
	for (unsigned n = 0; dirty >> n && n < b->vd.queues; n++)
		if (dirty & BIT(n)) {
			virtq_flush(virtio_queue(&b->vd, n));
			virtq_notify(virtio_queue(&b->vd, n));
		}
	return dirty;
}

static void vblk_done(struct blk_req *r, int result)
{
	struct vblk_req *vr = container_of(r, struct vblk_req, r);

	free(vr->iov);
	if (result == -ECANCELED)
		virtq_drop(vr->el);
	else
		vblk_finish(vr->b, vr->el,
			    result == 0          ? VIRTIO_BLK_S_OK
			    : result == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP
						 : VIRTIO_BLK_S_IOERR);
}

/*
 * The data of a request: "out" without the header, or "in" without the status byte. As a rule
 * these are buffers of their own, and nothing has to be cut. False: no memory.
 */
static bool vblk_data(struct vblk_req *vr, bool in)
{
	const struct virtq_elem *el = vr->el;
	const struct iovec *v = in ? el->in : el->out;
	unsigned n = in ? el->in_n : el->out_n;
	uint64_t skip = in ? 0 : sizeof(struct virtio_blk_outhdr);
	uint64_t len = in ? el->in_len - 1 : el->out_len - skip;
	struct iovecs all = { v, n, in ? el->in_len : el->out_len };

	if (in && v[n - 1].iov_len == 1) {
		vr->r.v = (struct iovecs){ v, n - 1, len };
	} else if (!in && v[0].iov_len == skip) {
		vr->r.v = (struct iovecs){ v + 1, n - 1, len };
	} else {
		vr->iov = malloc(n * sizeof(*vr->iov));
		if (!vr->iov)
			return false;
		vr->r.v = iovecs_slice(&all, skip, len, vr->iov);
	}
	return true;
}

/* Range checks in sectors: nothing wraps. */
static bool vblk_range_ok(const struct vblk *b, uint64_t sector, uint64_t bytes)
{
	uint64_t len = blk_len(b->blk), off = sector * VBLK_SECTOR;

	return sector <= len / VBLK_SECTOR && bytes <= len - off && !((off | bytes) % b->lbs);
}

/* A status to answer with at once, or -1: the request is on its way. */
static int vblk_rw(struct vblk *b, struct vblk_req *vr, uint64_t sector, bool write)
{
	if (write && !blk_writable(b->blk))
		return VIRTIO_BLK_S_IOERR;
	if (!vblk_data(vr, !write))
		return VIRTIO_BLK_S_IOERR;
	if (!vblk_range_ok(b, sector, vr->r.v.len)) {
		free(vr->iov);
		return VIRTIO_BLK_S_IOERR;
	}
	vr->r.op = write ? BLK_WRITE : BLK_READ;
	vr->r.off = sector * VBLK_SECTOR;
	blk_submit(b->blk, &vr->r);
	return -1;
}

/* Discard and write-zeroes: one range, as max_..._seg says. */
static int vblk_ranges(struct vblk *b, struct vblk_req *vr, bool zero)
{
	struct virtio_blk_discard_write_zeroes d;
	uint64_t sector;
	uint32_t n, flags;

	if (!virtio_has(&b->vd, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
		return VIRTIO_BLK_S_UNSUPP;
	if (vr->el->out_len != sizeof(struct virtio_blk_outhdr) + sizeof(d) ||
	    !blk_writable(b->blk))
		return VIRTIO_BLK_S_IOERR;
	virtq_elem_read(vr->el, sizeof(struct virtio_blk_outhdr), &d, sizeof(d));
	sector = d.sector;
	n = d.num_sectors;
	flags = d.flags;
	if (flags & ~(zero ? (uint32_t)VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0))
		return VIRTIO_BLK_S_UNSUPP; /* [VIRTIO1.2 5.2.6.2] */
	if (n > VBLK_MAX_SECTORS || !vblk_range_ok(b, sector, (uint64_t)n * VBLK_SECTOR))
		return VIRTIO_BLK_S_IOERR;
	vr->r.op = zero ? BLK_ZERO : BLK_DISCARD;
	vr->r.off = sector * VBLK_SECTOR;
	vr->r.len = (uint64_t)n * VBLK_SECTOR;
	vr->r.flags = flags ? BLOCK_UNMAP : 0;
	blk_submit(b->blk, &vr->r);
	return -1;
}

static int vblk_get_id(struct vblk *b, const struct virtq_elem *el)
{
	const char *serial = b->serial ? b->serial : blk_serial(b->blk);
	char id[VBLK_ID_LEN] = "";

	if (serial)
		memcpy(id, serial, strnlen(serial, sizeof(id)));
	virtq_elem_write(el, 0, id, MIN(el->in_len - 1, sizeof(id)));
	return VIRTIO_BLK_S_OK;
}

static void vblk_request(struct vblk *b, struct virtq_elem *el)
{
	struct vblk_req *vr = el->priv;
	struct virtio_blk_outhdr h;
	int status;

	if (el->out_len < sizeof(h) || !el->in_len) {
		virtio_broken(&b->vd, "virtio-blk: request without header or status", el->out_len);
		virtq_drop(el);
		return;
	}
	virtq_elem_read(el, 0, &h, sizeof(h));
	*vr = (struct vblk_req){ .b = b, .el = el, .r.done = vblk_done };
	switch (h.type & ~(uint32_t)VIRTIO_BLK_T_BARRIER) {
	case VIRTIO_BLK_T_IN: status = vblk_rw(b, vr, h.sector, false); break;
	case VIRTIO_BLK_T_OUT: status = vblk_rw(b, vr, h.sector, true); break;
	case VIRTIO_BLK_T_FLUSH:
		vr->r.op = BLK_FLUSH;
		blk_submit(b->blk, &vr->r);
		status = -1;
		break;
	case VIRTIO_BLK_T_GET_ID: status = vblk_get_id(b, el); break;
	case VIRTIO_BLK_T_DISCARD: status = vblk_ranges(b, vr, false); break;
	case VIRTIO_BLK_T_WRITE_ZEROES: status = vblk_ranges(b, vr, true); break;
	default: status = VIRTIO_BLK_S_UNSUPP; break;
	}
	if (status >= 0)
		vblk_finish(b, el, (uint8_t)status);
}

static void vblk_queue(struct virtio_dev *vd, unsigned n)
{
	struct vblk *b = vblk_of(vd);
	struct virtq *q = virtio_queue(vd, n);
	struct virtq_elem *el;

	while ((el = virtq_pop(q)))
		vblk_request(b, el);
}

static void vblk_kept(void *opaque, struct blk_req *r, bool on)
{
	struct vblk *b = opaque;

	virtio_keep(&b->vd, on ? 1 : -1);
}

/* ---- What the driver sees and sets --------------------------------------------------------- */

static void vblk_set_wce(struct vblk *b, bool wce)
{
	b->s.wce = wce;
	blk_set_writethrough(b->blk, !wce);
}

static uint32_t vblk_log2(uint32_t v)
{
	return (uint32_t)__builtin_ctz(v);
}

static void vblk_config_get(struct virtio_dev *vd, void *cfg)
{
	struct vblk *b = vblk_of(vd);
	struct virtio_blk_config *c = cfg;
	uint64_t sectors = blk_len(b->blk) / VBLK_SECTOR;

	c->capacity = sectors;
	c->seg_max = MIN((uint32_t)VBLK_SEGS, (uint32_t)b->vd.queue_size[0] - 2);
	c->geometry.heads = 16;
	c->geometry.sectors = 63;
	c->geometry.cylinders = (uint16_t)MIN(sectors / (16 * 63), (uint64_t)16383);
	c->blk_size = b->lbs;
	c->physical_block_exp = (uint8_t)vblk_log2(b->pbs / b->lbs);
	c->min_io_size = (uint16_t)(b->min_io / b->lbs);
	c->opt_io_size = b->opt_io / b->lbs;
	c->wce = b->s.wce;
	c->num_queues = b->vd.queues;
	c->max_discard_sectors = VBLK_MAX_SECTORS;
	c->max_discard_seg = 1;
	c->discard_sector_alignment = MAX(b->lbs, blk_root(b->blk)->request_align) / VBLK_SECTOR;
	c->max_write_zeroes_sectors = VBLK_MAX_SECTORS;
	c->max_write_zeroes_seg = 1;
	c->write_zeroes_may_unmap = 1;
}

static void vblk_config_set(struct virtio_dev *vd, const void *cfg, uint32_t off, uint32_t len)
{
	const struct virtio_blk_config *c = cfg;
	uint32_t at = offsetof(struct virtio_blk_config, wce);

	if (off <= at && at < off + len && virtio_has(vd, VIRTIO_BLK_F_CONFIG_WCE))
		vblk_set_wce(vblk_of(vd), c->wce & 1);
}

/* A driver that cannot flush must not need to. */
static int vblk_negotiated(struct virtio_dev *vd, uint64_t features)
{
	struct vblk *b = vblk_of(vd);

	if (!(features & (BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE))))
		vblk_set_wce(b, false);
	return 0;
}

static void vblk_hurry(struct vblk *b, bool on)
{
	if (b->hurried != on)
		blk_hurry(b->blk, on);
	b->hurried = on;
}

static void vblk_start(struct virtio_dev *vd)
{
	vblk_hurry(vblk_of(vd), false);
}

static void vblk_driver_reset(struct virtio_dev *vd)
{
	struct vblk *b = vblk_of(vd);

	vblk_hurry(b, true);
	blk_cancel_kept(b->blk);
	vblk_set_wce(b, !b->writethrough);
}

static void vblk_pause(struct virtio_dev *vd)
{
	vblk_hurry(vblk_of(vd), true);
	vblk_round(vblk_of(vd));
}

static const struct virtio_class vblk_class = {
	.id = VIRTIO_ID_BLOCK,
	.pci_legacy_id = 0x1001,
	.pci_class = 0x010000,
	.config_size = offsetof(struct virtio_blk_config, max_secure_erase_sectors),
	.elem_priv = sizeof(struct vblk_req),
	.config_get = vblk_config_get,
	.config_set = vblk_config_set,
	.negotiated = vblk_negotiated,
	.start = vblk_start,
	.queue = vblk_queue,
	.reset = vblk_driver_reset,
	.pause = vblk_pause,
};

/* ---- The device ---------------------------------------------------------------------------- */

static bool vblk_is_block_size(uint32_t v)
{
	return v >= VBLK_SECTOR && v <= 2 * 1024 * 1024 && !(v & (v - 1));
}

static int vblk_check(struct vblk *b, struct err *e)
{
	const char *id = b->vd.dev.id;

	if (!b->blk)
		return err_set(e, EINVAL, "%s: drive=ID is needed", id);
	if (!vblk_is_block_size(b->lbs) || !vblk_is_block_size(b->pbs) || b->lbs > b->pbs)
		return err_set(e, EINVAL,
			       "%s: logical_block_size and physical_block_size are powers of 2 "
			       "from 512 to 2M, the logical one not larger",
			       id);
	if (b->min_io % b->lbs || b->opt_io % b->lbs || b->min_io / b->lbs > UINT16_MAX)
		return err_set(e, EINVAL,
			       "%s: min_io_size and opt_io_size are multiples of the logical block "
			       "size, min_io_size at most 65535 of them",
			       id);
	if (b->num_queues > VBLK_QUEUES_MAX)
		return err_set(e, EINVAL, "%s: num-queues: at most %d", id, VBLK_QUEUES_MAX);
	if (b->queue_size < 4 || b->queue_size > VIRTQ_SIZE_MAX ||
	    b->queue_size & (b->queue_size - 1))
		return err_set(e, EINVAL, "%s: queue-size is a power of 2 from 4 to %d", id,
			       VIRTQ_SIZE_MAX);
	if (!blk_len(b->blk) || blk_len(b->blk) % b->lbs)
		return err_set(e, EINVAL,
			       "%s: the length of drive %s, %llu bytes, is not a multiple of %u "
			       "(and more than 0): 'kvasir-img resize' or 'truncate -s' mend it",
			       id, blk_id(b->blk), (unsigned long long)blk_len(b->blk), b->lbs);
	return 0;
}

static void vblk_resized(void *opaque)
{
	struct vblk *b = opaque;

	virtio_config_changed(&b->vd);
}

/* The disk works in the iothread, with an engine for host I/O in its loop. */
static int vblk_move(struct vblk *b, struct err *e)
{
	b->old_ctx = blk_root(b->blk)->ctx;
	if (!b->vd.iothread)
		return 0;
	b->ctx = block_ctx_new(virtio_loop(&b->vd), block_ctx_aio(b->old_ctx), e);
	if (!b->ctx)
		return -ENOMEM;
	blk_set_ctx(b->blk, b->ctx);
	return 0;
}

static void vblk_unrealize(struct dev *d)
{
	struct vblk *b = container_of(d, struct vblk, vd.dev);

	if (!b->attached)
		return;
	virtio_lock(&b->vd);
	blk_drain(b->blk);
	if (b->hooked)
		loop_hook_del(virtio_loop(&b->vd), &b->hook);
	if (b->ctx) {
		blk_set_ctx(b->blk, b->old_ctx);
		block_ctx_free(b->ctx);
	}
	blk_set_writethrough(b->blk, b->writethrough);
	blk_detach(b->blk);
	virtio_unlock(&b->vd);
}

static int vblk_realize(struct dev *d, struct err *e)
{
	struct vblk *b = container_of(d, struct vblk, vd.dev);
	unsigned queues = b->num_queues ? b->num_queues : MAX(d->md->n_vcpus, 1u);
	int r = vblk_check(b, e);

	if (r == 0)
		r = virtio_dev_init(&b->vd, &vblk_class, MIN(queues, (unsigned)VBLK_QUEUES_MAX),
				    b->queue_size, e);
	if (r == 0)
		r = blk_set_on_error(b->blk, b->rerror, b->werror, e);
	if (r == 0)
		r = blk_attach(b->blk, d->id, vblk_resized, b, e);
	if (r < 0)
		return r;
	b->attached = true;
	b->writethrough = blk_writethrough(b->blk);
	blk_on_kept(b->blk, vblk_kept);
	b->vd.host_features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_GEOMETRY) |
			      BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |
			      BIT(VIRTIO_BLK_F_TOPOLOGY);
	if (b->config_wce)
		b->vd.host_features |= BIT(VIRTIO_BLK_F_CONFIG_WCE);
	if (b->vd.queues > 1)
		b->vd.host_features |= BIT(VIRTIO_BLK_F_MQ);
	if (!blk_writable(b->blk))
		b->vd.host_features |= BIT(VIRTIO_BLK_F_RO);
	else
		b->vd.host_features |= (b->discard ? BIT(VIRTIO_BLK_F_DISCARD) : 0) |
				       (b->write_zeroes ? BIT(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
	virtio_lock(&b->vd);
	r = vblk_move(b, e);
	if (r == 0) {
		b->hook = (struct loop_hook){ .fn = vblk_round, .opaque = b };
		loop_hook_add(virtio_loop(&b->vd), &b->hook);
		b->hooked = true;
	}
	virtio_unlock(&b->vd);
	return r;
}

static void vblk_reset(struct dev *d, enum reset_kind k)
{
	struct vblk *b = container_of(d, struct vblk, vd.dev);

	virtio_lock(&b->vd);
	vblk_set_wce(b, !b->writethrough);
	virtio_unlock(&b->vd);
}

static int vblk_loaded(struct dev *d, struct err *e)
{
	struct vblk *b = container_of(d, struct vblk, vd.dev);

	virtio_lock(&b->vd);
	blk_cancel_kept(b->blk); /* they are of the time before */
	vblk_set_wce(b, b->s.wce);
	virtio_unlock(&b->vd);
	return 0;
}

const struct dev_class virtio_blk_class = {
	.name = "virtio-blk",
	.desc = "disk",
	.size = sizeof(struct vblk),
	.props = vblk_props,
	.state = STATE_OF(struct vblk, s, vblk_fields, 1),
	.realize = vblk_realize,
	.reset = vblk_reset,
	.loaded = vblk_loaded,
	.unrealize = vblk_unrealize,
	.bus = "virtio",
};
