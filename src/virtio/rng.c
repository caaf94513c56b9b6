/*
 * virtio-rng: random bytes for the guest's entropy pool.
 *
 * Modelled:     the request queue; a limit of max-bytes in each period, as QEMU has it. An element
 *               gets at most 64 KiB, whatever it asks for: it may name more memory than there is.
 * Not modelled: the leak queues that later drafts discuss.
 * Reference:    [VIRTIO1.2 5.4]. Threads: virtio.h, may be in an iothread.
 * Time: the end of a period. Host resources: the backend's descriptor is watched while it is dry.
 */
#include <errno.h>
#include <string.h>

#include "backend/rng/rng.h"
#include "virtio/virtio.h"

enum { RNG_QUEUE_SIZE = 64, RNG_ELEM_MAX = 65536, RNG_QUEUE = 0 };

struct virtio_rng {
	struct virtio_dev vd;
	struct rng *rng; /* properties; NULL: own builtin */
	uint64_t max_bytes;
	uint32_t period_ms;
	struct rng *own;
	struct timer timer;
	struct loop_fd fd; /* the backend's, watched while it has nothing */
	struct virtio_rng_state {
		uint64_t quota;      /* bytes left in this period */
		uint64_t period_end; /* ns; 0: no period runs */
	} s;
};

static const struct prop virtio_rng_props[] = {
	PROP_BACKEND(struct virtio_rng, rng, "rng", "source of -object rng-...; default: builtin"),
	PROP_N(struct virtio_rng, max_bytes, "max-bytes", INT64_MAX, "bytes in a period at most"),
	PROP_N(struct virtio_rng, period_ms, "period", 65536, "length of a period in ms"),
	VIRTIO_DEV_PROP_IOTHREAD(struct virtio_rng),
	VIRTIO_DEV_PROPS(struct virtio_rng),
	PROP_END,
};

static const struct field virtio_rng_fields[] = {
	ST(struct virtio_rng_state, quota),
	ST(struct virtio_rng_state, period_end),
	{ 0 },
};

static struct virtio_rng *rng_of(struct virtio_dev *vd)
{
	return container_of(vd, struct virtio_rng, vd);
}

static void rng_period(struct virtio_rng *r)
{
	r->s.period_end = 0;
	r->s.quota = r->max_bytes;
}

/*
 * Fill what the driver gave, as far as quota and source go. The bytes written; 0: none, now or
 * (*failed) for good.
 */
static uint64_t rng_fill(struct virtio_rng *r, const struct virtq_elem *el, bool *failed)
{
	uint64_t want = MIN(MIN(el->in_len, r->s.quota), (uint64_t)RNG_ELEM_MAX), done = 0;

	for (unsigned i = 0; i < el->in_n && done < want; i++) {
		size_t n = (size_t)MIN(el->in[i].iov_len, want - done);
		long got = rng_get(r->rng, el->in[i].iov_base, n);

		*failed = got < 0;
		if (got > 0)
			done += (uint64_t)got;
		if (got < (long)n)
			break;
	}
	return done;
}

static void rng_queue(struct virtio_dev *vd, unsigned n)
{
	struct virtio_rng *r = rng_of(vd);
	struct virtq *q = virtio_queue(vd, n);
	struct virtq_elem *el;

	while (r->s.quota && (el = virtq_pop(q))) {
		bool failed = false;
		uint64_t done = rng_fill(r, el, &failed);

		if (!done && el->in_len) { /* the source is dry: the driver waits */
			virtq_unpop(el);
			if (r->fd.fd >= 0 && !failed)
				loop_fd_set(virtio_loop(vd), &r->fd, LOOP_IN);
			break;
		}
		r->s.quota -= done;
		if (!r->s.period_end && r->max_bytes != INT64_MAX) {
			r->s.period_end = dev_now(&vd->dev) + r->period_ms * NS_PER_MS;
			timer_arm(&r->timer, r->s.period_end);
		}
		virtq_push(el, done);
	}
	virtq_notify(q);
}

static void rng_timer(void *opaque)
{
	struct virtio_rng *r = opaque;

	rng_period(r);
	virtio_queue_run(&r->vd, RNG_QUEUE);
}

static void rng_readable(void *opaque, unsigned ready)
{
	struct virtio_rng *r = opaque;

	loop_fd_set(virtio_loop(&r->vd), &r->fd, 0);
	virtio_queue_run(&r->vd, RNG_QUEUE);
}

static const struct virtio_class virtio_rng_vclass = {
	.id = VIRTIO_ID_RNG,
	.pci_legacy_id = 0x1005,
	.pci_class = 0x00ff00,
	.queue = rng_queue,
};

static int virtio_rng_realize(struct dev *d, struct err *e)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, vd.dev);
	int rc = virtio_dev_init(&r->vd, &virtio_rng_vclass, 1, RNG_QUEUE_SIZE, e);

	if (rc < 0)
		return rc;
	if (!r->period_ms || !r->max_bytes || r->max_bytes > INT64_MAX)
		return err_set(e, EINVAL,
			       "%s: period must be more than 0, and max-bytes from 1 to 2^63-1",
			       d->id);
	if (!r->rng)
		r->rng = r->own = rng_builtin_new(d->id);
	if (!r->rng)
		return err_set(e, ENOMEM, "%s: out of memory", d->id);
	timer_init(&r->timer, virtio_loop(&r->vd), rng_timer, r);
	r->fd = (struct loop_fd){ .fn = rng_readable, .opaque = r, .fd = rng_fd(r->rng) };
	if (r->fd.fd < 0)
		return 0;
	virtio_lock(&r->vd);
	rc = loop_fd_add(virtio_loop(&r->vd), &r->fd, 0, e);
	virtio_unlock(&r->vd);
	return rc;
}

static void virtio_rng_reset(struct dev *d, enum reset_kind k)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, vd.dev);

	virtio_lock(&r->vd);
	timer_cancel(&r->timer);
	rng_period(r);
	virtio_unlock(&r->vd);
}

static int virtio_rng_loaded(struct dev *d, struct err *e)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, vd.dev);

	if (r->s.quota > r->max_bytes)
		return err_set(e, EINVAL, "quota is more than max-bytes");
	virtio_lock(&r->vd);
	timer_cancel(&r->timer);
	if (r->s.period_end)
		timer_arm(&r->timer, r->s.period_end);
	virtio_unlock(&r->vd);
	return 0;
}

static void virtio_rng_unrealize(struct dev *d)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, vd.dev);

	virtio_lock(&r->vd);
	timer_cancel(&r->timer);
	loop_fd_del(virtio_loop(&r->vd), &r->fd);
	virtio_unlock(&r->vd);
	rng_free(r->own);
}

const struct dev_class virtio_rng_class = {
	.name = "virtio-rng",
	.desc = "source of random numbers",
	.size = sizeof(struct virtio_rng),
	.props = virtio_rng_props,
	.state = STATE_OF(struct virtio_rng, s, virtio_rng_fields, 1),
	.realize = virtio_rng_realize,
	.reset = virtio_rng_reset,
	.loaded = virtio_rng_loaded,
	.unrealize = virtio_rng_unrealize,
	.bus = "virtio",
};
