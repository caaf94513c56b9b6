/*
 * See vhost.h. An error that leaves the kernel in an unknown state closes the descriptor: that
 * stops it in any case, and the netdev is served by us from then on.
 */
#include "backend/net/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend/net/netdev.h"
#include "backend/net/opts.h"
#include "base/bits.h"
#include "base/log.h"

static int vhost_kernel(void *opaque, int fd, unsigned long request, void *arg)
{
	(void)opaque;
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static int vhost_call(struct vhost *v, unsigned long request, const char *name, void *arg,
		      struct err *e)
{
	int r = v->sys.ioctl(v->sys.opaque, v->fd, request, arg);

	return r < 0 ? err_set(e, -r, "vhost-net: %s: %s", name, strerror(-r)) : 0;
}
#define VHOST_CALL(v, name, arg, e) vhost_call(v, VHOST_##name, #name, arg, e)

int vhost_open(struct err *e)
{
	int fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		return err_set(e, errno,
			       "no permission for /dev/vhost-net; give it to your user, or leave "
			       "vhost out");
	return err_set(e, errno,
		       "/dev/vhost-net: %s; load the module vhost_net, or leave vhost out",
		       strerror(errno));
}

/* All of them since Linux 4.0. */
#define VHOST_NEEDED \
	(BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_F_VERSION_1))

static int vhost_init(struct vhost *v, struct err *e)
{
	__u64 f = 0;
	int r = 0;

	v->error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->error < 0)
		r = -errno;
	for (unsigned i = 0; i < VHOST_RINGS && r == 0; i++)
		r = vhost_ring_init(&v->ring[i]);
	if (r < 0)
		return err_set(e, -r, "vhost-net: %s", strerror(-r));
	r = VHOST_CALL(v, SET_OWNER, NULL, e);
	if (r == 0)
		r = VHOST_CALL(v, GET_FEATURES, &f, e);
	if (r == 0 && VHOST_NEEDED & ~f)
		r = err_set(e, ENOTSUP, "vhost-net: this kernel's lacks features %#llx",
			    (unsigned long long)(VHOST_NEEDED & ~f));
	v->offered = f;
	return r;
}

struct vhost *vhost_new(int fd, const struct vhost_sys *sys, struct err *e)
{
	struct vhost *v = calloc(1, sizeof(*v));

	if (!v) {
		close(fd);
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	v->fd = fd;
	v->sys = sys ? *sys : (struct vhost_sys){ .ioctl = vhost_kernel };
	v->error = -1;
	for (unsigned i = 0; i < VHOST_RINGS; i++)
		v->ring[i].kick = v->ring[i].call = -1;
	if (vhost_init(v, e) < 0) {
		vhost_free(v);
		return NULL;
	}
	return v;
}

static void vhost_give_up(struct vhost *v)
{
	if (v->fd < 0)
		return;
	/* whoever gave us the descriptor may have a copy, so closing it may not be the end */
	(void)v->sys.ioctl(v->sys.opaque, v->fd, VHOST_RESET_OWNER, NULL);
	close(v->fd);
	v->fd = -1;
}

void vhost_free(struct vhost *v)
{
	uint16_t base[VHOST_RINGS];

	if (!v)
		return;
	vhost_stop(v, base);
	vhost_give_up(v);
	for (unsigned i = 0; i < VHOST_RINGS; i++)
		vhost_ring_exit(&v->ring[i]);
	if (v->error >= 0)
		close(v->error);
	free(v);
}

static int vhost_for_queues(struct netdev *nd, const struct netdev_opts *o, bool vnet_hdr,
			    struct err *e)
{
	if (!vnet_hdr)
		return err_set(e, EINVAL, "vhost needs vnet_hdr=on");
	for (unsigned i = 0; i < o->queues; i++) {
		int fd = o->nvhostfds ? fcntl(o->vhostfds[i], F_DUPFD_CLOEXEC, 3) : vhost_open(e);

		if (fd < 0 && o->nvhostfds)
			return err_set(e, errno, "vhostfd=%d: %s", o->vhostfds[i], strerror(errno));
		if (fd >= 0)
			nd->vhost[i] = vhost_new(fd, NULL, e);
		if (!nd->vhost[i])
			return -EIO;
		nd->vhost[i]->busy_us = o->poll_us;
	}
	return 0;
}

int netdev_vhost_new(struct netdev *nd, const struct netdev_opts *o, bool vnet_hdr, struct err *e)
{
	struct err why = { 0 };

	if (!o->vhost || vhost_for_queues(nd, o, vnet_hdr, &why) == 0)
		return 0;
	for (unsigned i = 0; i < o->queues; i++) {
		vhost_free(nd->vhost[i]);
		nd->vhost[i] = NULL;
	}
	if (o->vhostforce || o->nvhostfds)
		return err_set(e, why.code, "%s", why.msg);
	log_warn("netdev %s: %s; going on without vhost", nd->id, why.msg);
	return 0;
}

int vhost_set_memory(struct vhost *v, const struct vhost_memory *mem, struct err *e)
{
	return VHOST_CALL(v, SET_MEM_TABLE, (void *)mem, e);
}

/* Tell the kernel of ring i, which is empty. */
static int vhost_ring_setup(struct vhost *v, unsigned i, struct err *e)
{
	struct vhost_ring *g = &v->ring[i];
	struct vhost_vring_state num = { i, VHOST_RING_SIZE }, base = { i, 0 };
	struct vhost_vring_state busy = { i, v->busy_us };
	struct vhost_vring_addr addr = { .index = i,
					 .desc_user_addr = (uintptr_t)g->desc,
					 .avail_user_addr = (uintptr_t)g->avail,
					 .used_user_addr = (uintptr_t)g->used };
	struct vhost_vring_file kick = { i, g->kick }, call = { i, g->call }, err = { i, v->error };
	int r;

	vhost_ring_reset(g);
	r = VHOST_CALL(v, SET_VRING_NUM, &num, e);
	if (r == 0)
		r = VHOST_CALL(v, SET_VRING_BASE, &base, e);
	if (r == 0)
		r = VHOST_CALL(v, SET_VRING_ADDR, &addr, e);
	if (r == 0)
		r = VHOST_CALL(v, SET_VRING_KICK, &kick, e);
	if (r == 0)
		r = VHOST_CALL(v, SET_VRING_CALL, &call, e);
	if (r == 0)
		r = VHOST_CALL(v, SET_VRING_ERR, &err, e);
	if (r == 0 && v->busy_us)
		r = VHOST_CALL(v, SET_VRING_BUSYLOOP_TIMEOUT, &busy, e);
	return r;
}

/* Bind both rings to a tap, or to nothing (-1). */
static int vhost_backend(struct vhost *v, int tap, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < VHOST_RINGS && r == 0; i++) {
		struct vhost_vring_file f = { i, tap };

		r = VHOST_CALL(v, NET_SET_BACKEND, &f, e);
	}
	return r;
}

int vhost_start(struct vhost *v, int tap, unsigned hdr_len, bool merge, struct err *e)
{
	/* VERSION_1 and MRG_RXBUF both make the header 12 bytes long. */
	__u64 f = BIT(VIRTIO_RING_F_EVENT_IDX) | (hdr_len > 10 ? BIT(VIRTIO_F_VERSION_1) : 0) |
		  (merge ? BIT(VIRTIO_NET_F_MRG_RXBUF) : 0);
	int r;

	if (v->fd < 0)
		return err_set(e, ENODEV, "vhost-net: given up after an error");
	r = VHOST_CALL(v, SET_FEATURES, &f, e);
	for (unsigned i = 0; i < VHOST_RINGS && r == 0; i++)
		r = vhost_ring_setup(v, i, e);
	if (r == 0)
		r = vhost_backend(v, tap, e);
	if (r < 0) {
		vhost_give_up(v); /* one of the two may run */
		return r;
	}
	v->running = true;
	return 0;
}

void vhost_stop(struct vhost *v, uint16_t base[VHOST_RINGS])
{
	struct err e = { 0 };

	for (unsigned i = 0; i < VHOST_RINGS; i++)
		base[i] = v->running ? v->ring[i].seen : 0;
	if (!v->running)
		return;
	v->running = false;
	if (vhost_backend(v, -1, &e) < 0) {
		log_warn("%s; it is ended", e.msg);
		vhost_give_up(v);
		return;
	}
	for (unsigned i = 0; i < VHOST_RINGS; i++) {
		struct vhost_vring_state s = { i, 0 };

		if (VHOST_CALL(v, GET_VRING_BASE, &s, &e) == 0)
			base[i] = (uint16_t)s.num;
		else
			vhost_give_up(v); /* it has stopped; what it had begun is not known */
	}
}
