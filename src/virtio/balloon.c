/*
 * virtio-balloon: the guest gives memory back to the host, and takes it again.
 *
 * Modelled:     inflate (pages go back to the host), deflate, deflate-on-oom, statistics,
 *               free page reporting, page poison as far as reporting needs it.
 * Not modelled: free page hints (they are for migration).
 * Queues are numbered without gaps, as drivers expect: inflate, deflate, statistics, reporting.
 * Hostile drivers: an element of the inflate queue names at most 1024 pages (known drivers send 256
 * and 1024), what is beyond is not looked at, nor is an element of the reporting queue after as
 * many bytes as there is RAM; pages that are not RAM are ignored.
 * Reference:    [VIRTIO1.2 5.5]. Threads: virtio.h, on the main loop.
 * Time: the period of statistics. Host resources: none.
 */
#include "virtio/balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <string.h>

#include "virtio/virtio.h"

enum {
	BALLOON_QUEUE_SIZE = 128,
	BALLOON_PFNS = 1024, /* of one element */
	BALLOON_TURN = 4096, /* pages before the rest of the loop has its turn */
	BALLOON_INFLATE = 0,
	BALLOON_DEFLATE,
	BALLOON_STATS_QUEUE,
	BALLOON_REPORTING,
};

struct balloon {
	struct virtio_dev vd;
	uint64_t target; /* properties */
	bool deflate_on_oom, reporting;
	uint32_t poll_s;
	struct virtq_elem *held; /* the driver's buffer of statistics, given back to ask for new */
	struct timer timer;
	uint64_t stat[BALLOON_STATS];
	struct balloon_state {
		uint32_t num_pages, actual, poison;
		uint32_t reserved;
	} s;
};

/* clang-format off */
static const struct prop balloon_props[] = {
	PROP_SIZE(struct balloon, target, 0, "memory the guest shall have, 0: all"),
	PROP_N(struct balloon, deflate_on_oom, "deflate-on-oom", false, "the guest may take memory when it has no other"),
	PROP_N(struct balloon, reporting, "free-page-reporting", false, "the guest tells which pages it does not use"),
	PROP_N(struct balloon, poll_s, "guest-stats-polling-interval", 0, "seconds between statistics of the guest, 0: none"),
	VIRTIO_DEV_PROPS(struct balloon),
	PROP_END,
};
/* clang-format on */

static const struct field balloon_fields[] = {
	ST(struct balloon_state, num_pages),
	ST(struct balloon_state, actual),
	ST(struct balloon_state, poison),
	ST(struct balloon_state, reserved, .lim = 1),
	{ 0 },
};

static struct balloon *balloon_of(struct virtio_dev *vd)
{
	return container_of(vd, struct balloon, vd);
}

static struct balloon *balloon_of_dev(const struct dev *d)
{
	return container_of(d, struct balloon, vd.dev);
}

/* ---- Pages --------------------------------------------------------------------------------- */

static void balloon_discard(struct balloon *b, gpa_t gpa, uint64_t len)
{
	int r = len ? gmem_discard(b->vd.dev.md->mem, gpa, len) : 0;

	if (r < 0)
		guest_error(&b->vd.dev, "discard", gpa, len, (uint64_t)-r);
}

/* Page numbers of one element: runs of them at once. How many there were. */
static size_t balloon_inflate(struct balloon *b, const struct virtq_elem *el)
{
	uint32_t pfn[BALLOON_PFNS];
	size_t n = virtq_elem_read(el, 0, pfn, sizeof(pfn)) / sizeof(pfn[0]);
	gpa_t at = 0;
	uint64_t len = 0;

	for (size_t i = 0; i < n; i++) {
		gpa_t gpa = (gpa_t)pfn[i] << VIRTIO_BALLOON_PFN_SHIFT;

		if (len && gpa == at + len) {
			len += PAGE_SIZE;
		} else if (len && gpa + PAGE_SIZE == at) { /* drivers often go downwards */
			at = gpa;
			len += PAGE_SIZE;
		} else {
			balloon_discard(b, at, len);
			at = gpa;
			len = PAGE_SIZE;
		}
	}
	balloon_discard(b, at, len);
	return n;
}

/*
 * Pages that the guest does not use, as buffers. What they hold afterwards is zero. How much work
 * it was, a page of balloon_inflate being 1.
 */
static size_t balloon_report(struct balloon *b, const struct virtq_elem *el)
{
	uint64_t left = gmem_ram_size(b->vd.dev.md->mem);
	size_t work = 0;

	if (virtio_has(&b->vd, VIRTIO_BALLOON_F_PAGE_POISON) && b->s.poison)
		return 0; /* they must keep this value */
	for (unsigned i = 0; i < el->in_n && left; i++) {
		gpa_t gpa = virtq_elem_in_gpa(el, i);
		uint64_t end = (gpa + el->in[i].iov_len) & PAGE_MASK;

		gpa = (gpa + PAGE_SIZE - 1) & PAGE_MASK;
		if (gpa < end)
			balloon_discard(b, gpa, end - gpa);
		left -= MIN(left, el->in[i].iov_len);
		work += 1 + el->in[i].iov_len / (64 * PAGE_SIZE);
	}
	return work;
}

/* ---- Statistics ---------------------------------------------------------------------------- */

static void balloon_take_stats(struct balloon *b, const struct virtq_elem *el)
{
	struct virtio_balloon_stat st;

	for (uint64_t off = 0; off < BALLOON_STATS * 2 * sizeof(st); off += sizeof(st)) {
		if (virtq_elem_read(el, off, &st, sizeof(st)) < sizeof(st))
			break;
		if (st.tag < BALLOON_STATS)
			b->stat[st.tag] = st.val;
	}
	trace(&b->vd.dev, "stats", b->stat[BALLOON_FREE], b->stat[BALLOON_TOTAL],
	      b->stat[BALLOON_AVAILABLE]);
}

static void balloon_arm(struct balloon *b)
{
	if (b->poll_s)
		timer_arm(&b->timer, dev_now(&b->vd.dev) + b->poll_s * NS_PER_SEC);
	else
		timer_cancel(&b->timer);
}

static void balloon_timer(void *opaque)
{
	struct balloon *b = opaque;
	struct virtq_elem *el = b->held;

	if (el && virtio_running(&b->vd)) {
		struct virtq *q = el->q;

		b->held = NULL;
		virtq_push(el, 0);
		virtq_notify(q);
	}
	balloon_arm(b);
}

/* ---- Queues -------------------------------------------------------------------------------- */

static void balloon_queue(struct virtio_dev *vd, unsigned n)
{
	struct balloon *b = balloon_of(vd);
	struct virtq *q = virtio_queue(vd, n);
	struct virtq_elem *el;
	size_t work = 0;

	while (work < BALLOON_TURN && (el = virtq_pop(q))) {
		switch (n) {
		case BALLOON_INFLATE: work += balloon_inflate(b, el); break;
		case BALLOON_REPORTING: work += balloon_report(b, el); break;
		case BALLOON_STATS_QUEUE:
			balloon_take_stats(b, el);
			if (b->held) { /* there should be one; the older one is of no use */
				virtq_push(b->held, 0);
				guest_error(&vd->dev, "stats_twice");
			}
			b->held = el;
			continue;
		default: break; /* deflate: the pages come back when they are touched */
		}
		virtq_push(el, 0);
	}
	virtq_notify(q);
	if (work >= BALLOON_TURN) { /* not at once */
		virtq_kick_unneeded(q);
		virtio_queue_run(vd, n);
	}
}

static void balloon_reset(struct virtio_dev *vd)
{
	struct balloon *b = balloon_of(vd);

	if (b->held)
		virtq_drop(b->held);
	b->held = NULL;
	b->s.poison = 0;
}

static void balloon_pause(struct virtio_dev *vd)
{
	struct balloon *b = balloon_of(vd);

	if (b->held)
		virtq_unpop(b->held);
	b->held = NULL;
}

/* ---- Configuration ------------------------------------------------------------------------- */

static void balloon_config_get(struct virtio_dev *vd, void *cfg)
{
	const struct balloon *b = balloon_of(vd);
	const struct virtio_balloon_config c = { .num_pages = b->s.num_pages,
						 .actual = b->s.actual,
						 .poison_val = b->s.poison };

	memcpy(cfg, &c, sizeof(c));
}

static void balloon_config_set(struct virtio_dev *vd, const void *cfg, uint32_t off, uint32_t len)
{
	struct balloon *b = balloon_of(vd);
	struct virtio_balloon_config c;

	memcpy(&c, cfg, sizeof(c));
	b->s.actual = c.actual;
	if (virtio_has(vd, VIRTIO_BALLOON_F_PAGE_POISON))
		b->s.poison = c.poison_val;
	trace(&vd->dev, "actual", b->s.actual);
}

static uint32_t balloon_pages(const struct balloon *b, uint64_t bytes)
{
	uint64_t ram = b->vd.dev.md->mem ? gmem_ram_size(b->vd.dev.md->mem) : 0;
	uint64_t n = bytes && bytes < ram ? (ram - bytes) / PAGE_SIZE : 0;

	return (uint32_t)MIN(n, (uint64_t)UINT32_MAX);
}

void balloon_set_target(struct dev *d, uint64_t bytes)
{
	struct balloon *b = balloon_of_dev(d);

	b->target = bytes;
	b->s.num_pages = balloon_pages(b, bytes);
	virtio_config_changed(&b->vd);
}

uint64_t balloon_actual(const struct dev *d)
{
	uint64_t ram = gmem_ram_size(d->md->mem);

	return ram -
	       MIN(balloon_of_dev(d)->s.actual * PAGE_SIZE, ram); /* guests may say anything */
}

void balloon_poll_stats(struct dev *d, uint32_t seconds)
{
	balloon_of_dev(d)->poll_s = seconds;
	balloon_arm(balloon_of_dev(d));
}

uint64_t balloon_stat(const struct dev *d, enum balloon_stat s)
{
	return balloon_of_dev(d)->stat[s];
}

const char *balloon_stat_name(enum balloon_stat s)
{
	static const char *const names[BALLOON_STATS] = {
		"stat-swap-in",          "stat-swap-out",    "stat-major-faults",
		"stat-minor-faults",     "stat-free-memory", "stat-total-memory",
		"stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc",
		"stat-htlb-pgfail",
	};

	return names[s];
}

/* ---- Class --------------------------------------------------------------------------------- */

static const struct virtio_class balloon_vclass = {
	.id = VIRTIO_ID_BALLOON,
	.pci_legacy_id = 0x1002,
	.pci_class = 0x00ff00,
	.config_size = sizeof(struct virtio_balloon_config),
	.config_get = balloon_config_get,
	.config_set = balloon_config_set,
	.queue = balloon_queue,
	.reset = balloon_reset,
	.pause = balloon_pause,
};

static int balloon_realize(struct dev *d, struct err *e)
{
	struct balloon *b = balloon_of_dev(d);
	int r = virtio_dev_init(&b->vd, &balloon_vclass, b->reporting ? 4 : 3, BALLOON_QUEUE_SIZE,
				e);

	if (r < 0)
		return r;
	if (b->target && b->target & ~PAGE_MASK)
		return err_set(e, EINVAL, "%s: target is not a multiple of 4 KiB", d->id);
	b->vd.host_features = BIT(VIRTIO_BALLOON_F_STATS_VQ);
	if (b->deflate_on_oom)
		b->vd.host_features |= BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (b->reporting)
		b->vd.host_features |=
			BIT(VIRTIO_BALLOON_F_REPORTING) | BIT(VIRTIO_BALLOON_F_PAGE_POISON);
	memset(b->stat, 0xff, sizeof(b->stat));
	timer_init(&b->timer, d->md->loop, balloon_timer, b);
	balloon_arm(b);
	return 0;
}

static void balloon_dev_reset(struct dev *d, enum reset_kind k)
{
	struct balloon *b = balloon_of_dev(d);

	b->s = (struct balloon_state){ .num_pages = balloon_pages(b, b->target) };
	memset(b->stat, 0xff, sizeof(b->stat));
}

static void balloon_unrealize(struct dev *d)
{
	timer_cancel(&balloon_of_dev(d)->timer);
}

const struct dev_class virtio_balloon_class = {
	.name = "virtio-balloon",
	.desc = "takes memory from the guest and gives it back",
	.size = sizeof(struct balloon),
	.props = balloon_props,
	.state = STATE_OF(struct balloon, s, balloon_fields, 1),
	.realize = balloon_realize,
	.reset = balloon_dev_reset,
	.unrealize = balloon_unrealize,
	.bus = "virtio",
};
