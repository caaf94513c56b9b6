/*
 * virtio-net with the kernel's vhost-net: the kernel copies frames between the tap and the guest's
 * buffers, in a thread of its own.
 *
 * How: vhost does not get the guest's rings, but a pair of ours for each pair of queues
 * (backend/net/vhost_ring.h). Buffers that the driver offers are popped, checked and translated as
 * for any device and put into our ring; what vhost has used is given back as by any device. What
 * is paid for it is a wake-up of our loop for a batch of kicks and one for a batch of used
 * buffers; the frames themselves are never touched here. What it gives:
 * - Writes to guest memory behind our back cannot leave a software CPU with stale code, nor a
 *   dirty log without the page: virtq_fill reports them before the driver sees the buffer, and
 *   before the interrupt.
 * - Rings of any kind (packed, indirect, event index, legacy), interrupts of any kind (line, MSI,
 *   MSI-X masked or not), save and load work as they do without vhost, since the rings' state and
 *   the interrupts stay with the core: a machine may be saved with vhost and loaded without.
 * - A hostile ring never reaches the kernel.
 * Rejected: the guest's rings for vhost, doorbells and interrupts past us. It saves the wake-ups
 * with a hardware engine, and is unsound with a software one; a second path for the former only.
 *
 * When: a pair of queues is with vhost while the device runs, the link is up, the driver uses the
 * pair and both its queues are enabled. Otherwise, and for good after an error, net.c serves it.
 * What vhost had not used is put back into the guest's ring in its order (virtq_unpop).
 * Not modelled: receive filters (a driver gets more than it asked for, as [VIRTIO1.2 5.1.6.5.1]
 * allows), captures (refused).
 * Threads: the device's lock. Host resources: those of vhost.h.
 */
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/net/vhost.h"
#include "base/log.h"
#include "virtio/net.h"
#include "virtio/private.h"

enum {
	VH_REGIONS = 64,     /* vhost's own default limit */
	VH_BATCH = 512,      /* used buffers before others in the loop have their turn */
	VH_NUM_BUFFERS = 10, /* where the header has it */
};

/* Any element fits, and what vhost holds leaves room for the control queue's. */
enum { VH_HELD_MAX = VHOST_RING_SIZE * VHOST_RINGS * NET_QUEUES_MAX };
_Static_assert((int)VHOST_RING_SIZE >= (int)VIRTQ_SEGS_MAX, "size of our rings");
_Static_assert((int)VH_HELD_MAX <= VIRTIO_SEGS_OUT / 2, "size of our rings");

struct vh_pair {
	struct vnet *n;
	struct vhost *v;
	unsigned i;
	bool on;
	bool full[VHOST_RINGS]; /* our ring had no room: feed again when buffers come back */
	struct loop_fd call[VHOST_RINGS], error;
};

struct vnet_vhost {
	struct vnet *n;
	bool dead, listening;
	struct gmem_listener mem;
	struct vh_pair pair[NET_QUEUES_MAX];
	/* struct vhost_memory with room for its regions */
	uint64_t table[(sizeof(struct vhost_memory) +
			VH_REGIONS * sizeof(struct vhost_memory_region)) /
		       sizeof(uint64_t)];
};

static struct virtq *vh_queue(const struct vh_pair *p, unsigned ring)
{
	return virtio_queue(&p->n->vd, 2 * p->i + ring); /* receive first, as in vhost */
}

/* ---- Buffers come back --------------------------------------------------------------------- */

/* All that is used now, or VH_BATCH and what belongs together with it. How many. */
static unsigned vh_drain(struct vh_pair *p, unsigned ring)
{
	static const uint8_t one[2] = { 1, 0 };
	bool number = ring == VHOST_RX && p->n->hdr_len > VH_NUM_BUFFERS &&
		      !virtio_has(&p->n->vd, VIRTIO_NET_F_MRG_RXBUF);
	struct virtq_elem *el;
	unsigned done = 0;
	uint32_t len;

	while ((el = vhost_ring_get(&p->v->ring[ring], &len))) {
		if (number) /* vhost leaves it alone when frames are not spread */
			virtq_elem_write(el, VH_NUM_BUFFERS, one, sizeof(one));
		virtq_fill(el, ring == VHOST_RX ? len : 0);
		if (++done >= VH_BATCH && !vhost_ring_more(&p->v->ring[ring]))
			break;
	}
	virtq_flush(vh_queue(p, ring));
	return done;
}

/* An element that vhost may have written to, and gives no account of. */
static void vh_touched(const struct vnet *n, const struct virtq_elem *el)
{
	for (unsigned i = 0; i < el->in_n; i++)
		gmem_written(n->vd.dev.md->mem, virtq_elem_in_gpa(el, i), el->in[i].iov_len);
}

static void vh_stop(struct vh_pair *p, bool forget)
{
	uint16_t base[VHOST_RINGS];
	struct virtq_elem *el;
	bool begun;

	if (!p->on)
		return;
	p->on = false;
	vhost_stop(p->v, base);
	for (unsigned ring = 0; ring < VHOST_RINGS; ring++) {
		loop_fd_del(virtio_loop(&p->n->vd), &p->call[ring]);
		while (vh_drain(p, ring))
			;
		while ((el = vhost_ring_take_back(&p->v->ring[ring], base[ring], &begun))) {
			vh_touched(p->n, el);
			if (forget) {
				virtq_drop(el);
			} else if (begun) { /* it is too late to have it again */
				virtq_fill(el, 0);
				virtq_flush(vh_queue(p, ring));
			} else {
				virtq_unpop(el);
			}
		}
		virtq_notify(vh_queue(p, ring));
	}
	loop_fd_del(virtio_loop(&p->n->vd), &p->error);
	if (p->n->netdev->ops->take_back)
		p->n->netdev->ops->take_back(p->n->netdev, p->i);
	trace(&p->n->vd.dev, "vhost_stop", p->i, base[VHOST_RX], base[VHOST_TX]);
}

void vnet_vhost_stop(struct vnet *n, unsigned from, unsigned to, bool forget)
{
	for (unsigned i = from; n->vhost && i < to; i++)
		vh_stop(&n->vhost->pair[i], forget);
}

/* We serve all queues from now on. */
static void vh_give_up(struct vnet_vhost *h, const char *why)
{
	if (h->dead)
		return;
	h->dead = true;
	log_warn("%s: %s; going on without vhost", h->n->vd.dev.id, why);
	vnet_vhost_stop(h->n, 0, h->n->pairs, false);
	for (unsigned i = 0; i < 2u * h->n->pairs; i++)
		virtio_queue_run(&h->n->vd, i);
}

static void vh_called(struct vh_pair *p, unsigned ring)
{
	struct vhost_ring *r = &p->v->ring[ring];
	struct virtq *q = vh_queue(p, ring);
	unsigned done = 0, now;
	uint64_t count;

	if (read(r->call, &count, sizeof(count)) < 0)
		return;
	do {
		now = vh_drain(p, ring);
		done += now;
	} while (vhost_ring_arm(r) && now && done < VH_BATCH);
	count = 1;
	if (done >= VH_BATCH && write(r->call, &count, sizeof(count)) < 0)
		trace(&p->n->vd.dev, "vhost_call_full", p->i, ring); /* it is signalled anyway */
	virtq_notify(q);
	if (r->broken) {
		vh_give_up(p->n->vhost, "vhost-net: the kernel's answers make no sense");
	} else if (p->full[ring] && done) {
		p->full[ring] = false;
		virtio_queue_run(&p->n->vd, virtq_index(q));
	}
}

static void vh_rx_called(void *opaque, unsigned ready)
{
	vh_called(opaque, VHOST_RX);
}

static void vh_tx_called(void *opaque, unsigned ready)
{
	vh_called(opaque, VHOST_TX);
}

/* Only a guest's nonsense that passed vh_fits gets here: a frame in too many pieces, say. */
static void vh_error(void *opaque, unsigned ready)
{
	struct vh_pair *p = opaque;
	uint64_t count;

	if (read(p->v->error, &count, sizeof(count)) > 0)
		guest_error(&p->n->vd.dev, "vhost_error", p->i, count);
}

/* ---- Buffers go out ------------------------------------------------------------------------ */

/* vhost stops at an element of another shape, and looks at it again and again. */
static bool vh_fits(const struct vnet *n, const struct virtq_elem *el, unsigned ring)
{
	if (ring == VHOST_RX)
		return el->in_n && !el->out_n;
	return el->out_n && !el->in_n && el->out_len >= n->hdr_len + (uint64_t)NET_ETH_MIN &&
	       el->out_len <= n->hdr_len + (uint64_t)NET_FRAME_MAX;
}

static void vh_feed(struct vh_pair *p, unsigned ring)
{
	struct vhost_ring *r = &p->v->ring[ring];
	struct virtq *q = vh_queue(p, ring);
	unsigned given = 0, refused = 0;
	struct virtq_elem *el;

	while ((el = virtq_pop(q))) {
		if (!vh_fits(p->n, el, ring)) {
			guest_error(&p->n->vd.dev, "frame_shape", el->out_len, el->in_len);
			virtq_push(el, 0);
			refused++;
		} else if (vhost_ring_add(r, el->out, el->out_n, el->in, el->in_n, el)) {
			given++;
		} else {
			virtq_unpop(el);
			p->full[ring] = true;
			virtq_kick_unneeded(q);
			break;
		}
	}
	if (given)
		vhost_ring_kick(r, false);
	if (refused)
		virtq_notify(q);
}

bool vnet_vhost_queue(struct vnet *n, unsigned queue)
{
	struct vh_pair *p;

	if (!n->vhost)
		return false;
	p = &n->vhost->pair[queue / 2];
	if (!p->on)
		vnet_vhost_update(n); /* the driver has enabled the second of both just now */
	if (p->on)
		vh_feed(p, queue % 2);
	if (p->on && !virtio_running(&n->vd)) /* it is broken: what is out comes back */
		vh_stop(p, false);
	return p->on;
}

/* ---- Start --------------------------------------------------------------------------------- */

static int vh_watch(struct vh_pair *p, struct loop_fd *f, void (*fn)(void *, unsigned), int fd,
		    struct err *e)
{
	*f = (struct loop_fd){ .fn = fn, .opaque = p, .fd = fd, .slot = -1 };
	return loop_fd_add(virtio_loop(&p->n->vd), f, LOOP_IN, e);
}

static int vh_start(struct vh_pair *p, struct err *e)
{
	struct netdev *nd = p->n->netdev;
	int r = nd->ops->lend(nd, p->i, p->n->hdr_len, e), tap = r;

	if (r < 0)
		return r;
	p->full[VHOST_RX] = p->full[VHOST_TX] = false;
	r = vhost_set_memory(p->v, (const struct vhost_memory *)p->n->vhost->table, e);
	if (r == 0)
		r = vh_watch(p, &p->call[VHOST_RX], vh_rx_called, p->v->ring[VHOST_RX].call, e);
	if (r == 0)
		r = vh_watch(p, &p->call[VHOST_TX], vh_tx_called, p->v->ring[VHOST_TX].call, e);
	if (r == 0)
		r = vh_watch(p, &p->error, vh_error, p->v->error, e);
	if (r == 0)
		r = vhost_start(p->v, tap, p->n->hdr_len,
				virtio_has(&p->n->vd, VIRTIO_NET_F_MRG_RXBUF), e);
	p->on = true;
	if (r < 0)
		vh_stop(p, false);
	else
		trace(&p->n->vd.dev, "vhost_start", p->i, p->n->hdr_len);
	return r;
}

static bool vh_wanted(const struct vh_pair *p)
{
	const struct vnet *n = p->n;

	return !n->vhost->dead && !n->paused && virtio_running(&n->vd) && n->s.link_up &&
	       net_link(&n->port[0]) && p->i < n->s.pairs && virtq_ready(vh_queue(p, VHOST_RX)) &&
	       virtq_ready(vh_queue(p, VHOST_TX));
}

void vnet_vhost_update(struct vnet *n)
{
	struct err e = { 0 };

	for (unsigned i = 0; n->vhost && i < n->pairs; i++) {
		struct vh_pair *p = &n->vhost->pair[i];
		bool want = vh_wanted(p);

		if (want == p->on)
			continue;
		if (!want)
			vh_stop(p, false);
		else if (vh_start(p, &e) < 0)
			vh_give_up(n->vhost, e.msg);
		for (unsigned ring = 0; ring < VHOST_RINGS; ring++)
			virtio_queue_run(&n->vd, 2 * i + ring);
	}
}

/* ---- Memory -------------------------------------------------------------------------------- */

/* Blocks come and go: the table is made again. */
static int vh_memory(struct vnet_vhost *h, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < h->n->pairs && r == 0; i++)
		if (h->pair[i].on)
			r = vhost_set_memory(h->pair[i].v, (const struct vhost_memory *)h->table,
					     e);
	return r;
}

static int vh_mem_add(struct gmem_listener *l, const struct gmem_block *b, struct err *e)
{
	struct vnet_vhost *h = container_of(l, struct vnet_vhost, mem);
	struct vhost_memory *m = (struct vhost_memory *)h->table;
	uint64_t at = (uintptr_t)b->host;
	int r;

	if (m->nregions == VH_REGIONS)
		return err_set(e, E2BIG, "vhost-net takes %d blocks of memory", VH_REGIONS);
	virtio_lock(&h->n->vd);
	m->regions[m->nregions++] = (struct vhost_memory_region){ .guest_phys_addr = at,
								  .memory_size = b->len,
								  .userspace_addr = at };
	r = vh_memory(h, e);
	if (r < 0)
		m->nregions--; /* it is not to be there, then */
	virtio_unlock(&h->n->vd);
	return r;
}

static void vh_mem_del(struct gmem_listener *l, const struct gmem_block *b)
{
	struct vnet_vhost *h = container_of(l, struct vnet_vhost, mem);
	struct vhost_memory *m = (struct vhost_memory *)h->table;
	struct err e = { 0 };

	virtio_lock(&h->n->vd);
	for (unsigned i = 0; i < m->nregions; i++)
		if (m->regions[i].userspace_addr == (uintptr_t)b->host)
			m->regions[i] = m->regions[--m->nregions];
	if (vh_memory(h, &e) < 0)
		vh_give_up(h, e.msg);
	virtio_unlock(&h->n->vd);
}

/* ---- Life ---------------------------------------------------------------------------------- */

int vnet_vhost_new(struct vnet *n, struct err *e)
{
	struct vnet_vhost *h;
	int r;

	if (!n->netdev->vhost[0] || !n->vd.dev.md->mem)
		return 0;
	h = calloc(1, sizeof(*h));
	if (!h)
		return err_set(e, ENOMEM, "out of memory");
	h->n = n;
	for (unsigned i = 0; i < n->pairs; i++)
		h->pair[i] = (struct vh_pair){ .n = n, .v = n->netdev->vhost[i], .i = i };
	h->mem = (struct gmem_listener){ .add = vh_mem_add, .del = vh_mem_del };
	n->vhost = h;
	r = gmem_listen(n->vd.dev.md->mem, &h->mem, e);
	h->listening = r == 0;
	if (r < 0)
		vnet_vhost_free(n);
	return r;
}

void vnet_vhost_free(struct vnet *n)
{
	struct vnet_vhost *h = n->vhost;

	if (!h)
		return;
	vnet_vhost_stop(n, 0, n->pairs, true);
	if (h->listening)
		gmem_unlisten(n->vd.dev.md->mem, &h->mem);
	n->vhost = NULL;
	free(h);
}
