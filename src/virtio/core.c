/*
 * The core of a virtio device, between its transport and the device: status, features, device
 * configuration, interrupts, reset, pause. Queues are in queue.c. See transport.h.
 * References: [VIRTIO1.2 2.1] status, [VIRTIO1.2 2.2] features, [VIRTIO1.2 2.4] reset,
 * [VIRTIO1.2 2.5] configuration, [VIRTIO1.2 6] reserved feature bits. Threads: transport.h.
 */
#include <errno.h>
#include <string.h>

#include "base/bug.h"
#include "virtio/private.h"

/* ---- For devices --------------------------------------------------------------------------- */

int virtio_dev_init(struct virtio_dev *vd, const struct virtio_class *vc, unsigned n, unsigned size,
		    struct err *e)
{
	BUG_ON(vc->config_size > VIRTIO_CONFIG_MAX);
	if (n > VIRTIO_QUEUES_MAX)
		return err_set(e, EINVAL, "%s: %u queues are more than %d", vd->dev.id, n,
			       VIRTIO_QUEUES_MAX);
	if (size < 2 || size > VIRTQ_SIZE_MAX || size & (size - 1))
		return err_set(e, EINVAL, "%s: a queue size of %u is not a power of 2 from 2 to %d",
			       vd->dev.id, size, VIRTQ_SIZE_MAX);
	vd->vc = vc;
	vd->queues = (uint16_t)n;
	for (unsigned i = 0; i < n; i++)
		vd->queue_size[i] = (uint16_t)size;
	return 0;
}

struct loop *virtio_loop(const struct virtio_dev *vd)
{
	return vd->iothread ? vd->iothread->loop : vd->dev.md->loop;
}

static struct biglock *virtio_lock_of(struct virtio_dev *vd)
{
	return vd->iothread ? &vd->iothread->lock : bus_lock_of(vd->dev.bus);
}

void virtio_lock(struct virtio_dev *vd)
{
	biglock_lock(virtio_lock_of(vd));
}

void virtio_unlock(struct virtio_dev *vd)
{
	biglock_unlock(virtio_lock_of(vd));
}

bool virtio_has(const struct virtio_dev *vd, unsigned f)
{
	return vd->v && vd->v->s->features & BIT(f);
}

bool virtio_is_legacy(const struct virtio_dev *vd)
{
	return !virtio_has(vd, VIRTIO_F_VERSION_1);
}

bool virtio_running(const struct virtio_dev *vd)
{
	return vd->v && vd->v->running && !(vd->v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

void virtio_keep(struct virtio_dev *vd, int n)
{
	vd->kept += (unsigned)n;
	if (vd->v && vd->v->in_flight <= vd->kept)
		virtio_idle(vd->v);
}

unsigned virtio_in_flight(const struct virtio_dev *vd)
{
	return vd->v ? vd->v->in_flight : 0;
}

void virtio_config_changed(struct virtio_dev *vd)
{
	struct virtio *v = vd->v;

	if (!v)
		return;
	v->s->generation++;
	if (v->s->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_interrupt(v, v->s->config_vector, VIRTIO_ISR_CONFIG);
}

void virtio_broken(struct virtio_dev *vd, const char *what, uint64_t detail)
{
	struct virtio *v = vd->v;

	guest_error(&vd->dev, what, detail);
	if (!v || v->s->status & VIRTIO_CONFIG_S_NEEDS_RESET || v->resetting)
		return;
	v->s->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (v->s->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_interrupt(v, v->s->config_vector, VIRTIO_ISR_CONFIG);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void virtio_line_bh(void *opaque)
{
	virtio_line_update(opaque);
}

int virtio_init(struct virtio *v, struct dev *transport, struct virtio_dev *vd,
		const struct virtio_transport_ops *ops, struct virtio_state *s, struct err *e)
{
	v->transport = transport;
	v->ops = ops;
	v->s = s;
	v->lock = bus_lock_of(transport->bus);
	bh_init(&v->line_bh, transport->md->loop, virtio_line_bh, v);
	pthread_mutex_init(&v->idle_mutex, NULL);
	pthread_cond_init(&v->idle, NULL);
	if (!vd)
		return 0;
	if (!vd->dev.realized || !vd->vc)
		return err_set(e, EINVAL, "%s: %s is not ready", transport->id, vd->dev.id);
	if (vd->v)
		return err_set(e, EBUSY, "%s: %s is plugged into another transport", transport->id,
			       vd->dev.id);
	if (!transport->md->mem)
		return err_set(e, EINVAL, "%s: the machine has no memory", transport->id);
	v->vd = vd;
	v->lock = virtio_lock_of(vd);
	biglock_lock(v->lock);
	vd->v = v;
	virtio_queues_init(v);
	biglock_unlock(v->lock);
	return 0;
}

/*
 * All elements come back. One that was waited for may fail, and be kept: a request of a driver that
 * is gone must not be tried again later, on memory and sectors that others use by then.
 */
static void virtio_give_up(struct virtio *v)
{
	do {
		if (v->vd->vc->reset)
			v->vd->vc->reset(v->vd);
		virtio_drain(v);
	} while (v->vd->kept);
}

void virtio_exit(struct virtio *v)
{
	if (v->vd) {
		biglock_lock(v->lock);
		virtio_queues_stop(v);
		virtio_give_up(v);
		virtio_queues_exit(v);
		v->vd->v = NULL;
		biglock_unlock(v->lock);
	}
	bh_cancel(&v->line_bh);
	pthread_cond_destroy(&v->idle);
	pthread_mutex_destroy(&v->idle_mutex);
}

/*
 * Wait until no element is out. With the device lock and v->lock, which are let go of meanwhile if
 * the elements come back in another thread.
 */
void virtio_drain(struct virtio *v)
{
	struct biglock *big = bus_lock_of(v->transport->bus);
	struct loop *loop = virtio_loop(v->vd);

	/* a pause leaves kept ones where they are, and virtio_give_up comes back for them */
	while (v->in_flight > v->vd->kept) {
		unsigned mine, outer = 0;
		uint64_t seen;

		if (loop_is_mine(loop)) {
			loop_step(loop, true);
			continue;
		}
		pthread_mutex_lock(&v->idle_mutex);
		seen = v->idle_count;
		mine = biglock_suspend(v->lock);
		if (v->lock != big && biglock_held(big))
			outer = biglock_suspend(big);
		while (v->idle_count == seen)
			pthread_cond_wait(&v->idle, &v->idle_mutex);
		pthread_mutex_unlock(&v->idle_mutex);
		if (outer)
			biglock_resume(big, outer);
		biglock_resume(v->lock, mine);
	}
}

void virtio_idle(struct virtio *v)
{
	pthread_mutex_lock(&v->idle_mutex);
	v->idle_count++;
	pthread_cond_broadcast(&v->idle);
	pthread_mutex_unlock(&v->idle_mutex);
}

static void virtio_clear(struct virtio *v)
{
	struct virtio_state *s = v->s;

	*s = (struct virtio_state){ .config_vector = VIRTIO_NO_VECTOR };
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		s->q[i].vector = VIRTIO_NO_VECTOR;
		s->q[i].size = virtio_queue_max(v, i);
	}
}

/* With v->lock. */
static void virtio_reset(struct virtio *v)
{
	if (v->resetting)
		return; /* another vCPU does it just now */
	if (v->vd) {
		v->resetting = true;
		virtio_queues_stop(v);
		virtio_give_up(v);
		virtio_queues_unmap(v);
		v->resetting = false;
	}
	virtio_clear(v);
	virtio_line_update(v);
}

void virtio_dev_reset(struct virtio *v)
{
	biglock_lock(v->lock);
	virtio_reset(v);
	biglock_unlock(v->lock);
}

void virtio_pause(struct virtio *v)
{
	if (!v->vd || v->paused)
		return;
	biglock_lock(v->lock);
	virtio_queues_watch(v, false);
	v->paused = true;
	v->running = false;
	if (v->vd->vc->pause)
		v->vd->vc->pause(v->vd);
	virtio_drain(v);
	biglock_unlock(v->lock);
	/* What a bottom half would do; the state is saved now. */
	bh_cancel(&v->line_bh);
	virtio_line_update(v);
}

static void virtio_start(struct virtio *v)
{
	/* a reset that waits has not cleared the status yet */
	v->running = !v->paused && !v->resetting && v->s->status & VIRTIO_CONFIG_S_DRIVER_OK;
	if (!v->running)
		return;
	virtio_queues_start(v);
	if (v->vd->vc->start)
		v->vd->vc->start(v->vd);
}

void virtio_resume(struct virtio *v)
{
	if (!v->vd || !v->paused)
		return;
	biglock_lock(v->lock);
	v->paused = false;
	virtio_start(v);
	biglock_unlock(v->lock);
}

int virtio_loaded(struct virtio *v, struct err *e)
{
	struct virtio_state *s = v->s;
	int rc = 0;

	if (v->vd) {
		biglock_lock(v->lock);
		virtio_queues_stop(v);
		virtio_queues_unmap(v);
		if (s->features & ~virtio_offered_all(v))
			rc = err_set(e, EINVAL, "features %#llx are not offered",
				     (unsigned long long)(s->features & ~virtio_offered_all(v)));
		if (!rc)
			rc = virtio_queues_loaded(v, e);
		if (!rc)
			virtio_start(v);
		biglock_unlock(v->lock);
	}
	if (!rc)
		virtio_line_update(v);
	return rc;
}

/* ---- Status and features ------------------------------------------------------------------- */

uint64_t virtio_offered_all(const struct virtio *v)
{
	const struct virtio_dev *vd = v->vd;

	return vd->host_features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_ANY_LAYOUT) |
	       (vd->indirect_desc ? BIT(VIRTIO_RING_F_INDIRECT_DESC) : 0) |
	       (vd->event_idx ? BIT(VIRTIO_RING_F_EVENT_IDX) : 0) |
	       (vd->packed ? BIT(VIRTIO_F_RING_PACKED) : 0);
}

uint32_t virtio_offered(const struct virtio *v, uint32_t sel)
{
	uint64_t f = v->vd ? virtio_offered_all(v) & ~BIT(VIRTIO_F_ANY_LAYOUT) : 0;

	return sel < 2 ? (uint32_t)(f >> 32 * sel) : 0;
}

uint32_t virtio_legacy_offered(const struct virtio *v)
{
	return v->vd ? (uint32_t)virtio_offered_all(v) : 0;
}

uint32_t virtio_driver_features(const struct virtio *v, uint32_t sel)
{
	return sel < 2 ? (uint32_t)(v->s->driver_features >> 32 * sel) : 0;
}

void virtio_set_driver_features(struct virtio *v, uint32_t sel, uint32_t val)
{
	struct virtio_state *s = v->s;

	if (!v->vd || v->resetting || s->status & VIRTIO_CONFIG_S_FEATURES_OK || sel > 1)
		return;
	s->driver_features &= ~(0xffffffffull << 32 * sel);
	s->driver_features |= (uint64_t)val << 32 * sel;
}

void virtio_legacy_set_features(struct virtio *v, uint32_t val)
{
	if (!v->vd || v->resetting ||
	    v->s->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	biglock_lock(v->lock);
	v->s->driver_features = v->s->features = val & virtio_legacy_offered(v);
	if (v->vd->vc->negotiated)
		(void)v->vd->vc->negotiated(v->vd, v->s->features);
	biglock_unlock(v->lock);
}

/* FEATURES_OK is asked for. */
static bool virtio_negotiate(struct virtio *v)
{
	struct virtio_state *s = v->s;
	uint64_t f = s->driver_features, bad = f & ~virtio_offered_all(v);

	/* A driver that knows this bit is not legacy, and must know VERSION_1. */
	if (bad || !(f & BIT(VIRTIO_F_VERSION_1)) ||
	    (v->vd->vc->negotiated && v->vd->vc->negotiated(v->vd, f) < 0)) {
		guest_error(&v->vd->dev, "features_refused", f, bad);
		return false;
	}
	s->features = f;
	return true;
}

uint8_t virtio_status(const struct virtio *v)
{
	return v->s->status;
}

void virtio_set_status(struct virtio *v, uint8_t val)
{
	struct virtio_state *s = v->s;
	uint8_t more;

	if (!v->vd)
		return;
	biglock_lock(v->lock);
	if (!val) {
		virtio_reset(v);
		if (v->ops->reset)
			v->ops->reset(v);
	} else if (!v->resetting) {
		/* A driver must not clear bits other than by 0 [VIRTIO1.2 2.1.1]. */
		more = val & (uint8_t)~s->status & (uint8_t)~VIRTIO_CONFIG_S_NEEDS_RESET;
		if (more & VIRTIO_CONFIG_S_FEATURES_OK && !virtio_negotiate(v))
			more &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
		s->status |= more;
		trace(&v->vd->dev, "status", s->status);
		if (more & VIRTIO_CONFIG_S_DRIVER_OK)
			virtio_start(v);
	}
	biglock_unlock(v->lock);
}

/* ---- Device configuration ------------------------------------------------------------------ */

uint32_t virtio_generation(const struct virtio *v)
{
	return v->s->generation;
}

static void virtio_config_image(struct virtio *v, uint8_t *cfg)
{
	memset(cfg, 0, VIRTIO_CONFIG_MAX);
	if (v->vd->vc->config_get)
		v->vd->vc->config_get(v->vd, cfg);
}

uint64_t virtio_config_read(struct virtio *v, uint64_t off, unsigned size)
{
	uint8_t cfg[VIRTIO_CONFIG_MAX];
	uint64_t val = 0;

	if (!v->vd || v->resetting || off >= v->vd->vc->config_size)
		return 0;
	biglock_lock(v->lock);
	virtio_config_image(v, cfg);
	biglock_unlock(v->lock);
	memcpy(&val, cfg + off, MIN(size, v->vd->vc->config_size - off));
	return val;
}

void virtio_config_write(struct virtio *v, uint64_t off, uint64_t val, unsigned size)
{
	uint8_t cfg[VIRTIO_CONFIG_MAX];
	uint32_t n;

	if (!v->vd || v->resetting || off >= v->vd->vc->config_size)
		return;
	if (!v->vd->vc->config_set) {
		guest_error(&v->vd->dev, "config_write", off, val, size);
		return;
	}
	n = (uint32_t)MIN(size, v->vd->vc->config_size - off);
	biglock_lock(v->lock);
	virtio_config_image(v, cfg);
	memcpy(cfg + off, &val, n);
	v->vd->vc->config_set(v->vd, cfg, (uint32_t)off, n);
	biglock_unlock(v->lock);
}

/* ---- Interrupts ---------------------------------------------------------------------------- */

void virtio_line_update(struct virtio *v)
{
	if (v->ops->line)
		v->ops->line(v, __atomic_load_n(&v->s->isr, __ATOMIC_SEQ_CST) != 0);
}

/* Any thread; with v->lock. */
void virtio_interrupt(struct virtio *v, uint16_t vector, uint8_t isr)
{
	if (v->ops->msi && v->ops->msi(v, vector))
		return;
	if (__atomic_fetch_or(&v->s->isr, isr, __ATOMIC_SEQ_CST) & isr)
		return; /* the line is high for it already, or will be */
	if (biglock_held(bus_lock_of(v->transport->bus)))
		virtio_line_update(v);
	else
		bh_schedule(&v->line_bh);
}

uint8_t virtio_isr(const struct virtio *v)
{
	return __atomic_load_n(&v->s->isr, __ATOMIC_SEQ_CST);
}

uint8_t virtio_isr_take(struct virtio *v)
{
	uint8_t was = __atomic_exchange_n(&v->s->isr, 0, __ATOMIC_SEQ_CST);

	virtio_line_update(v);
	return was;
}

void virtio_isr_ack(struct virtio *v, uint8_t bits)
{
	__atomic_and_fetch(&v->s->isr, (uint8_t)~bits, __ATOMIC_SEQ_CST);
	virtio_line_update(v);
}
