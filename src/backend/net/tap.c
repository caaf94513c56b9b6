/*
 * A tap: an Ethernet interface of the host whose frames this process reads and writes.
 *
 * Modelled:     multiple queues, offloads in both directions by the vnet header (what the NIC takes
 *               is told to the kernel), scripts at start and end, descriptors handed to us.
 * vhost:        the NIC uses the kernel's vhost-net itself (vhost.h); meanwhile the queue is lent,
 *               and nothing is read here.
 * Not modelled: making bridges.
 * Flow:         when the NIC has no room the tap is not read, and the host's queue fills and
 *               drops, as behind a slow card. When the interface is deleted the guest's link is
 *               down, for good.
 * References: Documentation/networking/tuntap.rst of the kernel; [QEMU-MAN] for the options.
 * Threads: the loop's thread, see netdev.h.  Host resources: a descriptor a queue.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/net/kinds.h"
#include "backend/net/sockaddr.h"
#include "backend/net/vhost.h"
#include "base/bits.h"
#include "base/log.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

enum {
	TAP_ROUND = 64, /* frames before others in the loop have their turn */
	TAP_HDR_MAX =
		12, /* bytes before a frame: struct net_hdr, and for vhost a number behind it */
};

#define TAP_LOOK_NS (2 * NS_PER_SEC)

struct tap_queue {
	struct tap *t;
	unsigned n;
	struct loop_fd f;
	size_t pending; /* bytes of buf that the NIC had no room for; 0: none */
	bool detached;  /* from the interface: the guest does not serve it */
	bool lent;      /* to vhost */
	bool out;       /* a write would have blocked */
	bool gone;      /* the interface was deleted: it would be ready for ever */
	uint8_t buf[TAP_HDR_MAX + NET_FRAME_MAX];
};

struct tap {
	struct netdev nd;
	char name[IFNAMSIZ];
	char *downscript;
	bool vnet_hdr, multi;
	unsigned hdr_len;  /* 0: no header */
	struct timer gone; /* while a queue is lent */
	unsigned offload;  /* NET_*: what the kernel may leave to us */
	struct tap_queue *q;
};

static struct tap *tap_of(struct netdev *nd)
{
	return container_of(nd, struct tap, nd);
}

static void tap_watch(struct tap_queue *q)
{
	unsigned want = (q->pending || q->detached ? 0 : LOOP_IN) | (q->out ? LOOP_OUT : 0);

	if (q->lent || q->gone)
		want = 0;
	if (q->f.events != want)
		loop_fd_set(q->t->nd.loop, &q->f, want);
}

/* --- from the host --- */

static bool tap_give(struct tap_queue *q, size_t n)
{
	size_t hl = q->t->hdr_len;
	struct net_hdr hdr;
	struct iovec iov;
	struct netpkt p;

	if (n <= hl)
		return true;
	memcpy(&hdr, q->buf, sizeof(hdr));
	p = netpkt_of(&iov, q->buf + hl, n - hl, hl ? &hdr : NULL);
	if (net_send(&q->t->nd.port[q->n], &p))
		return true;
	q->pending = n;
	return false;
}

static void tap_gone(struct tap_queue *q)
{
	q->gone = true;
	log_warn("netdev tap: %s was deleted", q->t->name);
	netdev_connected(&q->t->nd, false);
}

static void tap_read(struct tap_queue *q)
{
	for (unsigned i = 0; i < TAP_ROUND && !q->pending; i++) {
		ssize_t n = read(q->f.fd, q->buf, q->t->hdr_len + NET_FRAME_MAX);

		if (n < 0 && errno == EBADFD)
			tap_gone(q);
		if (n <= 0)
			break;
		tap_give(q, (size_t)n);
	}
	net_flush(&q->t->nd.port[q->n]);
}

static void tap_ready(void *opaque, unsigned ready)
{
	struct tap_queue *q = opaque;

	if (ready & LOOP_OUT && q->out) {
		q->out = false;
		net_room(&q->t->nd.port[q->n]);
	}
	if (ready & LOOP_IN && !q->pending && !q->detached && !q->lent)
		tap_read(q);
	tap_watch(q);
}

static void tap_room(struct netport *p)
{
	struct tap_queue *q = &tap_of(p->nd)->q[p->queue];
	size_t n = q->pending;

	q->pending = 0;
	if (n && tap_give(q, n))
		net_flush(p);
	tap_watch(q);
}

/* --- to the host --- */

static bool tap_receive(struct netport *p, const struct netpkt *pkt)
{
	struct tap *t = tap_of(p->nd);
	struct tap_queue *q = &t->q[p->queue];
	uint8_t hdr[TAP_HDR_MAX] = { 0 };
	struct iovec iov[IOV_MAX];
	unsigned n = 0;

	memcpy(hdr, &pkt->hdr, sizeof(pkt->hdr));
	if (t->hdr_len)
		iov[n++] = (struct iovec){ hdr, t->hdr_len };
	if (pkt->n > IOV_MAX - n)
		return true; /* no honest frame has so many pieces */
	memcpy(iov + n, pkt->iov, pkt->n * sizeof(*iov));
	n += pkt->n;
	if (writev(q->f.fd, iov, (int)n) >= 0 || errno != EAGAIN)
		return true; /* EINVAL: the kernel found the header at fault; EIO: it is down */
	q->out = true;
	tap_watch(q);
	return false;
}

/* The NIC takes more or less unfinished frames, or serves other queues than before. */
static void tap_changed(struct netport *p)
{
	struct tap *t = tap_of(p->nd);
	struct tap_queue *q = &t->q[p->queue];
	unsigned a = p->peer ? p->peer->accepts : 0, f = 0;
	bool detach = !p->peer || p->peer->off;

	if (t->multi && detach != q->detached) {
		struct ifreq ifr = { .ifr_flags = (short)(detach ? IFF_DETACH_QUEUE
								 : IFF_ATTACH_QUEUE) };

		if (!ioctl(q->f.fd, TUNSETQUEUE, &ifr))
			q->detached = detach;
		tap_watch(q);
	}
	if (!t->vnet_hdr || q->detached)
		return;
	/* the kernel takes no TSO without checksums */
	if (a & NET_CSUM) {
		f = TUN_F_CSUM | (a & NET_TSO4 ? TUN_F_TSO4 : 0) | (a & NET_TSO6 ? TUN_F_TSO6 : 0);
		f |= a & NET_ECN && a & (NET_TSO4 | NET_TSO6) ? TUN_F_TSO_ECN : 0;
		f |= a & NET_UFO ? TUN_F_UFO : 0;
		f |= a & NET_USO ? TUN_F_USO4 | TUN_F_USO6 : 0;
	}
	if (ioctl(q->f.fd, TUNSETOFFLOAD, f) && f)
		/* kernels differ in UFO and USO */
		(void)!ioctl(q->f.fd, TUNSETOFFLOAD,
			     f & ~(unsigned)(TUN_F_UFO | TUN_F_USO4 | TUN_F_USO6));
}

static const struct netport_ops tap_port = {
	.receive = tap_receive,
	.room = tap_room,
	.changed = tap_changed,
};

/* --- the netdev --- */

static int tap_script(const char *script, const char *name, struct err *e)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return err_set(e, errno, "%s: %s", script, strerror(errno));
	if (pid == 0) {
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);
		execl(script, script, name, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_set(e, errno, "%s: %s", script, strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return err_set(e, EIO, "script %s %s failed (status %d)", script, name,
		       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void tap_free(struct netdev *nd)
{
	struct tap *t = tap_of(nd);
	struct err e = { 0 };

	if (t->downscript && tap_script(t->downscript, t->name, &e))
		log_warn("netdev tap: %s", e.msg);
	if (t->gone.loop)
		timer_cancel(&t->gone);
	for (unsigned i = 0; t->q && i < nd->queues; i++) {
		vhost_free(nd->vhost[i]);
		loop_fd_del(nd->loop, &t->q[i].f);
		if (t->q[i].f.fd >= 0)
			close(t->q[i].f.fd);
	}
	free(t->downscript);
	free(t->q);
	free(t);
}

static int tap_set_loop(struct netdev *nd, struct loop *l, struct err *e)
{
	struct tap *t = tap_of(nd);

	for (unsigned i = 0; i < nd->queues; i++) {
		struct tap_queue *q = &t->q[i];
		unsigned events = q->f.events;
		int r;

		loop_fd_del(nd->loop, &q->f);
		r = loop_fd_add(l, &q->f, events, e);
		if (r)
			return r;
	}
	return 0;
}

static void tap_look_later(struct tap *t)
{
	if (!timer_armed(&t->gone))
		timer_arm(&t->gone, clock_now(loop_clock(t->nd.loop)) + TAP_LOOK_NS);
}

/*
 * A tap that is deleted while vhost has it wakes only those who wait for frames, which we must not:
 * there may be some all the time. So we look now and then.
 */
static void tap_look(void *opaque)
{
	struct tap *t = opaque;
	bool lent = false;

	for (unsigned i = 0; i < t->nd.queues; i++) {
		struct pollfd p = { .fd = t->q[i].f.fd };

		if (t->q[i].lent && poll(&p, 1, 0) == 1 && p.revents & POLLERR)
			tap_gone(&t->q[i]); /* and takes all queues back */
		lent |= t->q[i].lent;
	}
	if (lent)
		tap_look_later(t);
}

static int tap_lend(struct netdev *nd, unsigned queue, unsigned hdr_len, struct err *e)
{
	struct tap *t = tap_of(nd);
	struct tap_queue *q = &t->q[queue];
	int len = (int)hdr_len;

	if (t->hdr_len != hdr_len) {
		/* it is the interface's, for all its queues; what waits has the old one */
		if (ioctl(q->f.fd, TUNSETVNETHDRSZ, &len))
			return err_set(e, errno, "tap %s: TUNSETVNETHDRSZ: %s", t->name,
				       strerror(errno));
		t->hdr_len = hdr_len;
		for (unsigned i = 0; i < nd->queues; i++)
			t->q[i].pending = 0;
	}
	q->pending = 0;
	q->lent = true;
	tap_watch(q);
	if (t->gone.loop != nd->loop)
		timer_init(&t->gone, nd->loop, tap_look, t);
	tap_look_later(t);
	return q->f.fd;
}

static void tap_take_back(struct netdev *nd, unsigned queue)
{
	struct tap_queue *q = &tap_of(nd)->q[queue];

	q->lent = false;
	tap_watch(q);
}

static void tap_info(struct netdev *nd, FILE *out)
{
	fprintf(out, "ifname=%s,queues=%u,vnet_hdr=%s,vhost=%s", tap_of(nd)->name, nd->queues,
		tap_of(nd)->vnet_hdr ? "on" : "off", nd->vhost[0] ? "on" : "off");
}

static const struct netdev_ops tap_ops = {
	.name = "tap",
	.set_loop = tap_set_loop,
	.lend = tap_lend,
	.take_back = tap_take_back,
	.info = tap_info,
	.free = tap_free,
};

static int tap_no_way(const char *ifname, struct err *e)
{
	int code = errno;
	struct passwd *pw = getpwuid(geteuid());

	if (code == EPERM || code == EACCES)
		return err_set(e, code,
			       "no permission for the tap %s: as root, ip tuntap add %s mode tap "
			       "user %s; ip link set %s up; or use -nic user",
			       ifname ? ifname : "interface", ifname ? ifname : "tap0",
			       pw ? pw->pw_name : "USER", ifname ? ifname : "tap0");
	if (code == EBUSY)
		return err_set(e, code,
			       "the tap %s is in use by another process, or its number of queues "
			       "is another one",
			       ifname ? ifname : "interface");
	if (code == EINVAL && ifname)
		return err_set(e, code, "%s is no tap interface, or has other queues (queues=)",
			       ifname);
	return err_set(e, code, "the tap %s: %s", ifname ? ifname : "interface", strerror(code));
}

static int tap_open_queue(struct tap *t, const struct netdev_opts *o, struct tap_queue *q,
			  struct err *e)
{
	struct ifreq ifr = { 0 };
	unsigned features = 0;

	q->f.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (q->f.fd < 0 && (errno == EACCES || errno == EPERM))
		return tap_no_way(o->ifname, e);
	if (q->f.fd < 0)
		return err_set(e, errno, "/dev/net/tun: %s; load the module tun, or use -nic user",
			       strerror(errno));
	(void)!ioctl(q->f.fd, TUNGETFEATURES, &features);
	if (!(features & IFF_VNET_HDR))
		t->vnet_hdr = false;
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (t->vnet_hdr ? IFF_VNET_HDR : 0) |
				(t->multi ? IFF_MULTI_QUEUE : 0));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", *t->name ? t->name : "tap%d");
	if (ioctl(q->f.fd, TUNSETIFF, &ifr))
		return tap_no_way(o->ifname, e);
	memcpy(t->name, ifr.ifr_name, sizeof(t->name));
	return 0;
}

static int tap_given_queue(struct tap *t, const struct netdev_opts *o, struct tap_queue *q,
			   struct err *e)
{
	struct ifreq ifr = { 0 };
	int fd = o->fds[q->n];
	bool vnet;

	if (ioctl(fd, TUNGETIFF, &ifr))
		return err_set(e, errno, "file descriptor %d is no tap: %s", fd, strerror(errno));
	q->f.fd = fd;
	vnet = ifr.ifr_flags & IFF_VNET_HDR;
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI))
		return err_set(e, EINVAL, "file descriptor %d: IFF_TAP and IFF_NO_PI are needed",
			       fd);
	if (q->n && (vnet != t->vnet_hdr || strncmp(t->name, ifr.ifr_name, IFNAMSIZ)))
		return err_set(e, EINVAL, "the descriptors of fds are not queues of one tap");
	if (o->vnet_hdr_set && o->vnet_hdr != vnet)
		return err_set(e, EINVAL, "file descriptor %d has vnet_hdr %s", fd,
			       vnet ? "on" : "off");
	t->vnet_hdr = vnet;
	memcpy(t->name, ifr.ifr_name, sizeof(t->name));
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return net_nonblock(fd) ? err_set(e, errno, "file descriptor %d: %s", fd, strerror(errno))
				: 0;
}

static int tap_start(struct tap *t, const struct netdev_opts *o, struct err *e)
{
	int hdr = sizeof(struct net_hdr), r = 0;
	unsigned accepts = 0;

	for (unsigned i = 0; i < o->queues && r == 0; i++) {
		struct tap_queue *q = &t->q[i];

		r = o->nfds ? tap_given_queue(t, o, q, e) : tap_open_queue(t, o, q, e);
		if (r == 0 && t->vnet_hdr && ioctl(q->f.fd, TUNSETVNETHDRSZ, &hdr))
			r = err_set(e, errno, "tap %s: TUNSETVNETHDRSZ: %s", t->name,
				    strerror(errno));
		if (r == 0)
			r = loop_fd_add(t->nd.loop, &q->f, LOOP_IN, e);
	}
	if (r)
		return r;
	t->hdr_len = t->vnet_hdr ? (unsigned)hdr : 0;
	if (t->vnet_hdr) {
		accepts = NET_ALL;
		if (ioctl(t->q[0].f.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6))
			accepts &= ~(unsigned)NET_USO; /* kernels before 6.2 */
		(void)!ioctl(t->q[0].f.fd, TUNSETOFFLOAD, 0);
	}
	for (unsigned i = 0; i < o->queues; i++)
		t->nd.port[i].accepts = accepts;
	r = netdev_vhost_new(&t->nd, o, t->vnet_hdr, e);
	if (r < 0)
		return r;
	if (o->script && strcmp(o->script, "no"))
		r = tap_script(o->script, t->name, e);
	if (r == 0 && o->downscript && strcmp(o->downscript, "no"))
		t->downscript = strdup(o->downscript);
	return r;
}

struct netdev *net_tap_new(const struct netdev_env *env, const struct netdev_opts *o, struct err *e)
{
	struct tap *t = calloc(1, sizeof(*t));

	if (t)
		t->q = calloc(o->queues, sizeof(*t->q));
	if (!t || !t->q) {
		free(t);
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	for (unsigned i = 0; i < o->queues; i++) {
		struct tap_queue *q = &t->q[i];

		q->t = t;
		q->n = i;
		q->f = (struct loop_fd){ .fn = tap_ready, .opaque = q, .fd = -1, .slot = -1 };
	}
	t->vnet_hdr = o->vnet_hdr;
	t->multi = o->queues > 1;
	if (o->ifname)
		snprintf(t->name, sizeof(t->name), "%s", o->ifname);
	if (netdev_init(&t->nd, &tap_ops, env->loop, o->id, o->queues, &tap_port, 0, e) ||
	    tap_start(t, o, e)) {
		netdev_free(&t->nd);
		return NULL;
	}
	return &t->nd;
}
