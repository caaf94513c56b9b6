/*
 * User networking: a network of its own for the guest, with a DHCP and name server, whose
 * connections are this process's sockets. By libslirp [libslirp].
 *
 * Modelled:     what libslirp has: IPv4 and IPv6, TCP, UDP, ICMP echo, DHCP, TFTP, host and guest
 *               forwards; large segments in both directions (segment.h).
 * Not modelled: TCP urgent data from the host; SMB.
 * Flow:         the guest's frames are taken at once. What the guest has no room for waits in a
 *               bounded list, while sockets are not read.
 * Theory of operation: libslirp is made for poll(): before each wait it tells which descriptors
 * it wants, after it, it asks what came. user_sync() does the first after everything that may
 * have changed the answer and keeps the loop's descriptors like it; a ready one runs the second.
 * Threads: the loop's thread, see netdev.h.  Time: the loop's clock.
 * Host resources: libslirp's sockets.
 */
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/net/kinds.h"
#include "backend/net/segment.h"
#include "base/bits.h"
#include "base/bug.h"

enum {
	USER_BACKLOG = 4 << 20,      /* bytes that may wait for the guest; more is dropped */
	USER_BACKLOG_SOME = 1 << 16, /* from here on sockets are not read */
	USER_IDLE_MS = 1000,         /* what libslirp says when nothing is due */
	USER_DIRECT = 16,            /* with so few descriptors each is served at once */
};

struct user_fd {
	struct loop_fd f;
	struct user *u;
	unsigned want;  /* LOOP_*; of the round seen */
	unsigned ready; /* LOOP_*, until libslirp asked */
	unsigned round;
	struct user_fd *next;
};

struct user_timer {
	struct timer t;
	struct user *u;
	SlirpTimerCb cb;
	void *opaque;
	struct user_timer *next;
};

struct user_frame { /* waits for the guest */
	struct user_frame *next;
	struct net_hdr hdr;
	size_t len;
	uint8_t bytes[];
};

struct user_guestfwd {
	struct user *u;
	struct chardev *chardev; /* NULL: a command */
	struct in_addr addr;
	int port;
	bool attached;
};

struct user {
	struct netdev nd;
	Slirp *slirp;
	SlirpConfig cfg;
	struct user_fd **by_fd; /* index: the descriptor */
	int n_by_fd;
	struct user_fd *fds;
	unsigned nfds, round;
	struct user_timer *timers;
	struct timer due; /* libslirp's own timeouts */
	struct bh poll_bh;
	bool busy; /* inside of libslirp: no sync now */
	struct user_frame *first, **end;
	size_t waiting; /* bytes in the list */
	struct net_mss mss;
	struct user_guestfwd fwd[NET_FWDS];
	unsigned nfwd;
	uint8_t buf[NET_FRAME_MAX]; /* a frame of the guest in one piece */
};

static struct user *user_of(struct netdev *nd)
{
	return container_of(nd, struct user, nd);
}

static void user_sync(struct user *u);

/* --- to the guest --- */

static bool user_give(struct user *u, const uint8_t *buf, size_t len, const struct net_hdr *hdr,
		      const uint8_t *head, size_t headlen)
{
	struct iovec iov[2] = { { (void *)head, headlen },
				{ (void *)(buf + headlen), len - headlen } };
	struct netpkt p = {
		.iov = headlen ? iov : iov + 1, .n = headlen ? 2 : 1, .len = len, .hdr = *hdr
	};

	return net_send(&u->nd.port[0], &p);
}

static ssize_t user_send(const void *buf, size_t len, void *opaque)
{
	struct user *u = opaque;
	struct user_frame *f;
	struct net_hdr hdr;
	uint8_t head[128];
	size_t n = net_mss_mark(buf, len, &u->mss, &hdr, head);

	if (!u->first && user_give(u, buf, len, &hdr, head, n))
		return (ssize_t)len;
	if (u->waiting + len > USER_BACKLOG)
		return (ssize_t)len; /* lost, as on a wire; TCP sends it again */
	f = malloc(sizeof(*f) + len);
	if (!f)
		return (ssize_t)len;
	*f = (struct user_frame){ .hdr = hdr, .len = len };
	memcpy(f->bytes, head, n);
	memcpy(f->bytes + n, (const uint8_t *)buf + n, len - n);
	*u->end = f;
	u->end = &f->next;
	u->waiting += len;
	return (ssize_t)len;
}

static void user_drain(struct user *u)
{
	struct user_frame *f;

	while ((f = u->first) && user_give(u, f->bytes, f->len, &f->hdr, NULL, 0)) {
		u->first = f->next;
		if (!u->first)
			u->end = &u->first;
		u->waiting -= f->len;
		free(f);
	}
}

static void user_room(struct netport *p)
{
	struct user *u = user_of(p->nd);

	user_drain(u);
	net_flush(p);
	user_sync(u);
}

/* --- from the guest --- */

/* ARP, or ICMPv6, which has neighbours in it. */
static bool user_resolves(const uint8_t *f, size_t n)
{
	return n > 20 && ((f[12] == 8 && f[13] == 6) ||
			  (f[12] == 0x86 && f[13] == 0xdd && f[20] == IPPROTO_ICMPV6));
}

static bool user_receive(struct netport *p, const struct netpkt *pkt)
{
	struct user *u = user_of(p->nd);
	size_t n = netpkt_get(pkt, 0, u->buf, MIN(pkt->len, sizeof(u->buf)));

	/* what libslirp kept until it knew the guest's address it sends when it is polled */
	if (user_resolves(u->buf, n))
		bh_schedule(&u->poll_bh);

	net_mss_raise(u->buf, n, p->peer->accepts & NET_TSO4, &u->mss);
	u->busy = true;
	slirp_input(u->slirp, u->buf, (int)n);
	u->busy = false;
	return true;
}

static void user_flush(struct netport *p)
{
	struct user *u = user_of(p->nd);

	net_flush(p); /* what libslirp has answered */
	user_sync(u);
}

static const struct netport_ops user_port = {
	.receive = user_receive,
	.room = user_room,
	.flush = user_flush,
};

/* --- descriptors --- */

static int user_revents(int idx, void *opaque)
{
	struct user *u = opaque;
	struct user_fd *f = idx < u->n_by_fd ? u->by_fd[idx] : NULL;
	int r = 0;

	if (!f)
		return 0;
	/*
	 * Only what libslirp wants now: an event may have come while it did not ask, and it asserts
	 * that it has room when it is told to read.
	 */
	r |= f->ready & f->want & LOOP_IN ? SLIRP_POLL_IN : 0;
	r |= f->ready & f->want & LOOP_OUT ? SLIRP_POLL_OUT : 0;
	/*
	 * Not as an error: that would be written to, and a connection that the guest has closed in
	 * its direction would end with all that is still to be read.
	 */
	if (f->ready & LOOP_HUP)
		r |= f->want & LOOP_IN ? SLIRP_POLL_HUP : f->want & LOOP_OUT ? SLIRP_POLL_OUT : 0;
	f->ready = 0;
	return r;
}

static void user_poll(void *opaque)
{
	struct user *u = opaque;

	u->busy = true;
	slirp_pollfds_poll(u->slirp, 0, user_revents, u);
	u->busy = false;
	net_flush(&u->nd.port[0]);
	user_sync(u);
}

static void user_ready(void *opaque, unsigned ready)
{
	struct user_fd *f = opaque;

	f->ready |= ready;
	if (f->u->nfds <= USER_DIRECT)
		user_poll(f->u);
	else
		bh_schedule(&f->u->poll_bh); /* one pass over all of them for the whole round */
}

static struct user_fd *user_fd_get(struct user *u, int fd)
{
	struct user_fd *f;

	if (fd >= u->n_by_fd) {
		int n = MAX(fd + 1, 2 * u->n_by_fd);
		struct user_fd **p = realloc(u->by_fd, (size_t)n * sizeof(*p));

		if (!p)
			return NULL;
		memset(p + u->n_by_fd, 0, (size_t)(n - u->n_by_fd) * sizeof(*p));
		u->by_fd = p;
		u->n_by_fd = n;
	}
	if (u->by_fd[fd])
		return u->by_fd[fd];
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->u = u;
	f->f = (struct loop_fd){ .fn = user_ready, .opaque = f, .fd = fd, .slot = -1 };
	if (loop_fd_add(u->nd.loop, &f->f, 0, NULL)) {
		free(f);
		return NULL;
	}
	u->by_fd[fd] = f;
	f->next = u->fds;
	u->fds = f;
	u->nfds++;
	return f;
}

static int user_add_poll(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct user_fd *f = user_fd_get(u, fd);

	if (!f)
		return -1;
	if (f->round != u->round) {
		f->round = u->round;
		f->want = 0;
	}
	f->want |= events & SLIRP_POLL_IN && u->waiting < USER_BACKLOG_SOME ? LOOP_IN : 0;
	f->want |= events & SLIRP_POLL_OUT ? LOOP_OUT : 0;
	return fd;
}

/* Ask libslirp what it waits for, and watch that. */
static void user_sync(struct user *u)
{
	uint32_t timeout = UINT32_MAX;
	uint64_t due;

	if (u->busy)
		return; /* whoever is in libslirp does it afterwards */
	u->round++;
	slirp_pollfds_fill(u->slirp, &timeout, user_add_poll, u);
	for (struct user_fd *f = u->fds; f; f = f->next) {
		unsigned want = f->round == u->round ? f->want : 0;

		if (!want)
			f->ready = 0;
		if (want != f->f.events)
			loop_fd_set(u->nd.loop, &f->f, want);
	}
	if (timeout < USER_IDLE_MS) {
		due = clock_now(loop_clock(u->nd.loop)) + timeout * NS_PER_MS;
		/* one that goes off too early asks again, and costs less than moving it each time
		 */
		if (!timer_armed(&u->due) || u->due.deadline > due)
			timer_arm(&u->due, due);
	}
}

static void user_fd_drop(struct user *u, struct user_fd *f)
{
	struct user_fd **p = &u->fds;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	u->nfds--;
	u->by_fd[f->f.fd] = NULL;
	loop_fd_del(u->nd.loop, &f->f);
	free(f);
}

/* libslirp is about to close it: the number may be another file's at once. */
static void user_unregister(int fd, void *opaque)
{
	struct user *u = opaque;

	if (fd >= 0 && fd < u->n_by_fd && u->by_fd[fd])
		user_fd_drop(u, u->by_fd[fd]);
}

static void user_register(int fd, void *opaque)
{
}

/* --- time --- */

static int64_t user_clock(void *opaque)
{
	struct user *u = opaque;

	return (int64_t)clock_now(loop_clock(u->nd.loop));
}

static void user_timer_fn(void *opaque)
{
	struct user_timer *t = opaque;
	struct user *u = t->u;

	u->busy = true;
	t->cb(t->opaque);
	u->busy = false;
	net_flush(&u->nd.port[0]);
	user_sync(u);
}

static void *user_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	BUG_ON(!t); /* a few bytes, at the start */
	*t = (struct user_timer){ .u = u, .cb = cb, .opaque = cb_opaque, .next = u->timers };
	timer_init(&t->t, u->nd.loop, user_timer_fn, t);
	u->timers = t;
	return t;
}

static void user_timer_free(void *timer, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = timer, **p = &u->timers;

	while (*p && *p != t)
		p = &(*p)->next;
	if (*p)
		*p = t->next;
	timer_cancel(&t->t);
	free(t);
}

static void user_timer_mod(void *timer, int64_t ms, void *opaque)
{
	struct user_timer *t = timer;

	timer_arm(&t->t, ms > 0 ? (uint64_t)ms * NS_PER_MS : 0);
}

static void user_guest_error(const char *msg, void *opaque)
{
	/* a guest can repeat it for ever, and there is no trace source here */
}

static void user_notify(void *opaque)
{
	struct user *u = opaque;

	bh_schedule(&u->poll_bh);
	for (unsigned i = 0; i < u->nfwd; i++)
		chardev_accept_input(u->fwd[i].chardev);
}

static const SlirpCb user_cb = {
	.send_packet = user_send,
	.guest_error = user_guest_error,
	.clock_get_ns = user_clock,
	.timer_new = user_timer_new,
	.timer_free = user_timer_free,
	.timer_mod = user_timer_mod,
	.register_poll_fd = user_register,
	.unregister_poll_fd = user_unregister,
	.notify = user_notify,
};

/* --- guestfwd to a chardev --- */

static size_t user_fwd_can_read(void *opaque)
{
	struct user_guestfwd *f = opaque;

	return slirp_socket_can_recv(f->u->slirp, f->addr, f->port);
}

static void user_fwd_read(void *opaque, const uint8_t *buf, size_t len)
{
	struct user_guestfwd *f = opaque;

	f->u->busy = true;
	slirp_socket_recv(f->u->slirp, f->addr, f->port, buf, (int)len);
	f->u->busy = false;
	net_flush(&f->u->nd.port[0]);
	user_sync(f->u);
}

static const struct chardev_handlers user_fwd_handlers = {
	.can_read = user_fwd_can_read,
	.read = user_fwd_read,
};

static ssize_t user_fwd_write(const void *buf, size_t len, void *opaque)
{
	struct user_guestfwd *f = opaque;

	chardev_write_all(f->chardev, buf, len);
	return (ssize_t)len;
}

static int user_guestfwd(struct user *u, const struct netdev_env *env, const struct net_guestfwd *g,
			 struct err *e)
{
	struct user_guestfwd *f = &u->fwd[u->nfwd];
	int r;

	*f = (struct user_guestfwd){ .u = u, .addr = g->addr, .port = g->port };
	if (!strncmp(g->to, "cmd:", 4)) {
		r = slirp_add_exec(u->slirp, g->to + 4, &f->addr, g->port);
	} else {
		f->chardev = env->chardev ? env->chardev(env->opaque, g->to, e) : NULL;
		if (!f->chardev)
			return err_prefix(e, "guestfwd");
		if (chardev_attach(f->chardev, &user_fwd_handlers, f, e))
			return err_prefix(e, "guestfwd");
		f->attached = true;
		r = slirp_add_guestfwd(u->slirp, user_fwd_write, f, &f->addr, g->port);
	}
	u->nfwd++;
	if (r < 0)
		return err_set(e, EINVAL,
			       "guestfwd to %s:%u: the address is the host's, the name server's, "
			       "outside of the network, or taken",
			       inet_ntoa(f->addr), g->port);
	return 0;
}

static int user_hostfwd(struct user *u, const struct net_hostfwd *f, struct err *e)
{
	char addr[INET_ADDRSTRLEN];

	if (!slirp_add_hostfwd(u->slirp, f->udp, f->host, f->host_port, f->guest, f->guest_port))
		return 0;
	inet_ntop(AF_INET, &f->host, addr, sizeof(addr));
	if (errno == EADDRINUSE)
		return err_set(e, EADDRINUSE,
			       "hostfwd: %s port %u of the host is in use; choose another one",
			       f->udp ? "UDP" : "TCP", f->host_port);
	return err_set(e, errno ? errno : EINVAL, "hostfwd: %s port %u at %s: %s",
		       f->udp ? "UDP" : "TCP", f->host_port, addr, strerror(errno));
}

/* --- the netdev --- */

static void user_free(struct netdev *nd)
{
	struct user *u = user_of(nd);

	for (unsigned i = 0; i < u->nfwd; i++)
		if (u->fwd[i].attached)
			chardev_detach(u->fwd[i].chardev);
	u->busy = true;
	if (u->slirp)
		slirp_cleanup(u->slirp);
	while (u->timers)
		user_timer_free(u->timers, u);
	while (u->fds)
		user_fd_drop(u, u->fds);
	timer_cancel(&u->due);
	bh_cancel(&u->poll_bh);
	for (struct user_frame *f = u->first, *n; f; f = n) {
		n = f->next;
		free(f);
	}
	free(u->by_fd);
	free(u);
}

static int user_set_loop(struct netdev *nd, struct loop *l, struct err *e)
{
	struct user *u = user_of(nd);

	for (unsigned i = 0; i < u->nfwd; i++)
		if (u->fwd[i].chardev)
			return err_set(
				e, ENOTSUP,
				"netdev %s: guestfwd to a chardev does not go with an iothread",
				nd->id);
	while (u->fds)
		user_fd_drop(u, u->fds);
	timer_cancel(&u->due);
	bh_cancel(&u->poll_bh);
	timer_init(&u->due, l, user_poll, u);
	bh_init(&u->poll_bh, l, user_poll, u);
	for (struct user_timer *t = u->timers; t; t = t->next) {
		bool armed = timer_armed(&t->t);
		uint64_t at = t->t.deadline;

		timer_cancel(&t->t);
		timer_init(&t->t, l, user_timer_fn, t);
		if (armed)
			timer_arm(&t->t, at);
	}
	nd->loop = l;
	bh_schedule(&u->poll_bh); /* there the descriptors are watched again */
	return 0;
}

static void user_info(struct netdev *nd, FILE *out)
{
	struct user *u = user_of(nd);
	char net[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &u->cfg.vnetwork, net, sizeof(net));
	fprintf(out, "net=%s,restrict=%s", net, u->cfg.restricted ? "on" : "off");
}

static const struct netdev_ops user_ops = {
	.name = "user",
	.set_loop = user_set_loop,
	.info = user_info,
	.free = user_free,
};

static void user_config(SlirpConfig *c, const struct netdev_opts *o)
{
	*c = (SlirpConfig){
		.version = 1,
		.restricted = o->isolated,
		.in_enabled = o->ipv4,
		.in6_enabled = o->ipv6,
		.vnetwork = o->net,
		.vnetmask = o->mask,
		.vhost = o->host,
		.vdhcp_start = o->dhcpstart,
		.vnameserver = o->dns,
		.vprefix_addr6 = o->net6,
		.vprefix_len = (uint8_t)o->prefix6,
		.vhost6 = o->host6,
		.vnameserver6 = o->dns6,
		.vhostname = o->hostname,
		.vdomainname = o->domainname,
		.tftp_path = o->tftp,
		.tftp_server_name = o->tftp_server_name,
		.bootfile = o->bootfile,
		.vdnssearch = o->ndnssearch ? (const char **)o->dnssearch : NULL,
		/* so that segments are as large as the peers' announcements let them be */
		.if_mtu = 65521,
		.if_mru = 65521,
	};
}

struct netdev *net_user_new(const struct netdev_env *env, const struct netdev_opts *o,
			    struct err *e)
{
	struct user *u;
	int r;

	if (o->tftp && access(o->tftp, R_OK | X_OK)) {
		err_set(e, errno, "tftp=%s: %s", o->tftp, strerror(errno));
		return NULL;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	u->end = &u->first;
	u->mss = NET_MSS_INIT;
	timer_init(&u->due, env->loop, user_poll, u);
	bh_init(&u->poll_bh, env->loop, user_poll, u);
	r = netdev_init(&u->nd, &user_ops, env->loop, o->id, 1, &user_port,
			NET_TSO4 | NET_TSO6 | NET_ECN | NET_UFO, e);
	user_config(&u->cfg, o);
	u->slirp = r ? NULL : slirp_new(&u->cfg, &user_cb, u);
	if (r == 0 && !u->slirp)
		r = err_set(e, EINVAL, "libslirp refuses this network");
	for (unsigned i = 0; i < o->nhostfwd && r == 0; i++)
		r = user_hostfwd(u, &o->hostfwd[i], e);
	for (unsigned i = 0; i < o->nguestfwd && r == 0; i++)
		r = user_guestfwd(u, env, &o->guestfwd[i], e);
	if (r) {
		netdev_free(&u->nd);
		return NULL;
	}
	user_sync(u);
	return &u->nd;
}
