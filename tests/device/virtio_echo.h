/*
 * A virtio device for tests: what it reads it writes back. How and when is the test's choice; it
 * can hold elements, answer later from its loop, and feed itself to see what bounds a handler.
 */
#pragma once
#include "virtio_bed.h"

#include <errno.h>

enum echo_mode {
	ECHO_NOW,  /* in the handler */
	ECHO_BH,   /* in a bottom half of its loop */
	ECHO_TIME, /* after delay ns of its loop's clock */
	ECHO_HOLD, /* not before the test calls echo_release */
};

struct echo {
	struct virtio_dev vd;
	enum echo_mode mode;
	uint64_t delay;
	bool drop_on_reset, unpop_on_pause;
	bool answer_on_reset;            /* by a bottom half, which the reset has to wait for */
	void (*popped)(struct echo *ec); /* called after each pop; may be NULL */
	void (*empty)(struct echo *ec);  /* called when a pop found nothing; may be NULL */
	void *opaque;
	struct virtq_elem *first, **end;
	struct bh bh;
	struct timer timer;
	unsigned runs, pops, resets, starts, done;
	uint64_t want; /* features seen by negotiated */
	uint64_t refuse;
	struct echo_state {
		uint32_t value; /* configuration */
		uint32_t written;
	} s;
};

static inline struct echo *echo_of(struct virtio_dev *vd)
{
	return container_of(vd, struct echo, vd);
}

static inline void echo_answer(struct virtq_elem *el)
{
	uint8_t buf[4096];
	uint64_t off = 0;
	size_t n;

	while ((n = virtq_elem_read(el, off, buf, sizeof(buf)))) {
		n = virtq_elem_write(el, off, buf, n);
		off += n;
		if (!n)
			break;
	}
	echo_of(el->q->v->vd)->done++;
	virtq_push(el, off);
}

/* Answer what is held. In its loop, or with its lock. */
static inline void echo_release(void *opaque)
{
	struct echo *ec = opaque;
	struct virtq_elem *el;
	struct virtq *q = NULL;

	while ((el = ec->first)) {
		ec->first = el->next;
		q = el->q;
		echo_answer(el);
	}
	ec->end = &ec->first;
	virtq_notify(q);
}

static inline void echo_queue(struct virtio_dev *vd, unsigned n)
{
	struct echo *ec = echo_of(vd);
	struct virtq *q = virtio_queue(vd, n);
	struct virtq_elem *el;

	ec->runs++;
	while ((el = virtq_pop(q))) {
		ec->pops++;
		if (ec->popped)
			ec->popped(ec);
		if (ec->mode == ECHO_NOW) {
			echo_answer(el);
			continue;
		}
		*ec->end = el;
		ec->end = &el->next;
		if (ec->mode == ECHO_BH)
			bh_schedule(&ec->bh);
		else if (ec->mode == ECHO_TIME && !timer_armed(&ec->timer))
			timer_arm(&ec->timer, clock_now(loop_clock(virtio_loop(vd))) + ec->delay);
	}
	if (ec->empty)
		ec->empty(ec);
	virtq_notify(q);
}

static inline void echo_reset(struct virtio_dev *vd)
{
	struct echo *ec = echo_of(vd);
	struct virtq_elem *el;

	ec->resets++;
	if (ec->answer_on_reset)
		bh_schedule(&ec->bh);
	while (ec->drop_on_reset && (el = ec->first)) {
		ec->first = el->next;
		virtq_drop(el);
	}
	if (!ec->first)
		ec->end = &ec->first;
}

/* Put back what is held, the last first. */
static inline void echo_unpop(struct virtq_elem *el)
{
	if (!el)
		return;
	echo_unpop(el->next);
	virtq_unpop(el);
}

static inline void echo_pause(struct virtio_dev *vd)
{
	struct echo *ec = echo_of(vd);

	if (!ec->unpop_on_pause)
		return;
	echo_unpop(ec->first);
	ec->first = NULL;
	ec->end = &ec->first;
}

static inline void echo_start(struct virtio_dev *vd)
{
	echo_of(vd)->starts++;
}

static inline int echo_negotiated(struct virtio_dev *vd, uint64_t f)
{
	echo_of(vd)->want = f;
	return f & echo_of(vd)->refuse ? -EINVAL : 0;
}

static inline void echo_config_get(struct virtio_dev *vd, void *cfg)
{
	memcpy(cfg, &echo_of(vd)->s.value, 4);
}

static inline void echo_config_set(struct virtio_dev *vd, const void *cfg, uint32_t off,
				   uint32_t len)
{
	memcpy(&echo_of(vd)->s.value, cfg, 4);
	echo_of(vd)->s.written++;
}

static const struct virtio_class echo_vclass = {
	.id = 63,
	.config_size = 6,
	.elem_priv = 24,
	.config_get = echo_config_get,
	.config_set = echo_config_set,
	.negotiated = echo_negotiated,
	.start = echo_start,
	.queue = echo_queue,
	.reset = echo_reset,
	.pause = echo_pause,
};

static inline int echo_realize(struct dev *d, struct err *e)
{
	struct echo *ec = container_of(d, struct echo, vd.dev);
	int r = virtio_dev_init(&ec->vd, &echo_vclass, 2, 256, e);

	ec->vd.host_features = BIT(0) | BIT(1) | BIT(41);
	ec->end = &ec->first;
	ec->drop_on_reset = true;
	bh_init(&ec->bh, virtio_loop(&ec->vd), echo_release, ec);
	timer_init(&ec->timer, virtio_loop(&ec->vd), echo_release, ec);
	return r;
}

static inline void echo_dev_reset(struct dev *d, enum reset_kind k)
{
	container_of(d, struct echo, vd.dev)->s = (struct echo_state){ .value = 0x11223344 };
}

static inline void echo_unrealize(struct dev *d)
{
	struct echo *ec = container_of(d, struct echo, vd.dev);

	virtio_lock(&ec->vd);
	bh_cancel(&ec->bh);
	timer_cancel(&ec->timer);
	virtio_unlock(&ec->vd);
}

static const struct prop echo_props[] = {
	VIRTIO_DEV_PROP_IOTHREAD(struct echo),
	VIRTIO_DEV_PROPS(struct echo),
	PROP_END,
};

static const struct field echo_fields[] = {
	ST(struct echo_state, value),
	ST(struct echo_state, written),
	{ 0 },
};

static const struct dev_class echo_class = {
	.name = "virtio-echo",
	.desc = "what it reads it writes",
	.size = sizeof(struct echo),
	.props = echo_props,
	.state = STATE_OF(struct echo, s, echo_fields, 1),
	.realize = echo_realize,
	.reset = echo_dev_reset,
	.unrealize = echo_unrealize,
	.bus = "virtio",
};

/* A bed with an echo device; iothread may be NULL. Not started yet. */
static inline struct vbed *echo_bed_in(struct iothread *t, bool packed, struct echo **ec)
{
	struct vbed *vb = vbed_new();
	struct err e = { 0 };
	struct dev *d = dev_new(&vb->bed->md, &echo_class, "echo0", &e);

	assert_non_null(d);
	if (t)
		dev_set_backend(d, "iothread", t);
	dev_set_u64(d, "packed", packed);
	assert_int_equal(dev_realize(d, &e), 0);
	vbed_plug(vb, d);
	*ec = container_of(d, struct echo, vd.dev);
	return vb;
}

#define ECHO_MSG "what goes in comes out"

/* One request through queue n, checked. */
static inline void echo_once(struct vbed *vb, unsigned n)
{
	gpa_t out = vbed_alloc(vb, 64), in = vbed_alloc(vb, 64);
	uint32_t len = 0;
	int head;

	memcpy(vb->ram + out, ECHO_MSG, sizeof(ECHO_MSG));
	head = vbed_add(vb, n, 2, VOUT(out, sizeof(ECHO_MSG)), VIN(in, 64));
	vbed_kick(vb, n);
	assert_int_equal(vbed_wait(vb, n, &len), head);
	assert_int_equal(len, sizeof(ECHO_MSG));
	assert_string_equal((char *)vb->ram + in, ECHO_MSG);
}
