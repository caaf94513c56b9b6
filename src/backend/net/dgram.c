/*
 * Frames over a datagram socket, one a datagram: unicast over UDP or unix sockets, or a multicast
 * group that several machines share.
 *
 * Modelled:     QEMU's dgram, and socket with udp= and mcast=. Our own frames, which a group gives
 *               back, are left out, or a guest would find its IPv6 address taken by itself; to know
 *               them they are sent from a socket of their own.
 * Not modelled: IPv6 multicast.
 * Threads:      the loop's thread, see netdev.h.  Host resources: one or two sockets.
 * Hostile:      whoever can reach the socket; frames only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/net/kinds.h"
#include "backend/net/sockaddr.h"
#include "base/bits.h"

enum { DGRAM_ROUND = 64 };

struct dgram {
	struct netdev nd;
	struct loop_fd f;
	struct loop_fd full; /* watches a full peer on a unix socket; fd -1: none yet */
	int out;             /* where frames are sent: f.fd, or the group's second socket */
	struct net_sockaddr local, remote; /* remote.len 0: connected already */
	struct sockaddr_in self;           /* a group: who we are; sin_port 0: no group */
	bool own_path, wait_out;
	size_t pending; /* bytes of buf that the NIC had no room for; 0: none */
	uint8_t buf[NET_FRAME_MAX];
};

static struct dgram *dgram_of(struct netdev *nd)
{
	return container_of(nd, struct dgram, nd);
}

static void dgram_watch(struct dgram *d)
{
	unsigned want = (d->pending ? 0 : LOOP_IN) | (d->wait_out ? LOOP_OUT : 0);

	if (d->f.events != want)
		loop_fd_set(d->nd.loop, &d->f, want);
}

static bool dgram_give(struct dgram *d, size_t n)
{
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, d->buf, n, NULL);

	if (net_send(&d->nd.port[0], &p))
		return true;
	d->pending = n;
	return false;
}

static bool dgram_own(const struct dgram *d, const struct sockaddr_in *from)
{
	return d->self.sin_port && from->sin_family == AF_INET &&
	       from->sin_port == d->self.sin_port &&
	       from->sin_addr.s_addr == d->self.sin_addr.s_addr;
}

static void dgram_ready(void *opaque, unsigned ready)
{
	struct dgram *d = opaque;

	if (ready & LOOP_OUT && d->wait_out) {
		d->wait_out = false;
		net_room(&d->nd.port[0]);
	}
	for (unsigned i = 0; i < DGRAM_ROUND && ready & LOOP_IN && !d->pending; i++) {
		struct sockaddr_storage from = { 0 };
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(d->f.fd, d->buf, sizeof(d->buf), 0, (struct sockaddr *)&from,
				     &len);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n > 0 && !dgram_own(d, (struct sockaddr_in *)&from))
			dgram_give(d, (size_t)n);
	}
	net_flush(&d->nd.port[0]);
	dgram_watch(d);
}

static void dgram_room(struct netport *p)
{
	struct dgram *d = dgram_of(p->nd);
	size_t n = d->pending;

	d->pending = 0;
	if (n && dgram_give(d, n))
		net_flush(p);
	dgram_watch(d);
}

static void dgram_peer_reads(void *opaque, unsigned ready)
{
	struct dgram *d = opaque;

	loop_fd_set(d->nd.loop, &d->full, 0);
	net_room(&d->nd.port[0]);
}

/*
 * On a unix socket it is the peer's queue that is full. The kernel tells when there is room in it
 * only to a socket that is connected to it; any other looks writable all the time. But a connected
 * one takes nothing from anybody else, such as the next peer at the same path: so another one
 * waits. False: there is no peer any more.
 */
static bool dgram_wait_peer(struct dgram *d)
{
	if (d->full.fd < 0) {
		int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd < 0)
			return false;
		d->full = (struct loop_fd){
			.fn = dgram_peer_reads, .opaque = d, .fd = fd, .slot = -1
		};
		if (loop_fd_add(d->nd.loop, &d->full, 0, NULL)) {
			close(fd);
			d->full.fd = -1;
			return false;
		}
	}
	if (connect(d->full.fd, &d->remote.sa, d->remote.len))
		return false;
	loop_fd_set(d->nd.loop, &d->full, LOOP_OUT);
	return true;
}

static bool dgram_receive(struct netport *p, const struct netpkt *pkt)
{
	struct dgram *d = dgram_of(p->nd);
	struct msghdr m = { .msg_iov = (struct iovec *)pkt->iov,
			    .msg_iovlen = pkt->n,
			    .msg_name = d->remote.len ? &d->remote.sa : NULL,
			    .msg_namelen = d->remote.len };

	if (sendmsg(d->out, &m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || errno != EAGAIN)
		return true; /* nobody there, too long, ...: lost, as on a wire */
	if (d->out != d->f.fd)
		return true; /* the group's queue: as full as a wire can be */
	if (d->remote.len && d->remote.sa.sa_family == AF_UNIX)
		return !dgram_wait_peer(d);
	d->wait_out = true;
	dgram_watch(d);
	return false;
}

static const struct netport_ops dgram_port = {
	.receive = dgram_receive,
	.room = dgram_room,
};

static void dgram_free(struct netdev *nd)
{
	struct dgram *d = dgram_of(nd);

	loop_fd_del(nd->loop, &d->f);
	loop_fd_del(nd->loop, &d->full);
	if (d->full.fd >= 0)
		close(d->full.fd);
	if (d->out >= 0 && d->out != d->f.fd)
		close(d->out);
	if (d->f.fd >= 0)
		close(d->f.fd);
	if (d->own_path)
		unlink(d->local.un.sun_path);
	free(d);
}

static int dgram_set_loop(struct netdev *nd, struct loop *l, struct err *e)
{
	struct dgram *d = dgram_of(nd);
	int r = netdev_move_fd(nd, &d->f, l, e);

	return r ? r : netdev_move_fd(nd, &d->full, l, e);
}

static void dgram_info(struct netdev *nd, FILE *out)
{
	struct dgram *d = dgram_of(nd);

	fprintf(out, "%s%s%s", d->local.text, *d->remote.text ? " to " : "", d->remote.text);
}

static const struct netdev_ops dgram_ops = {
	.name = "dgram",
	.set_loop = dgram_set_loop,
	.info = dgram_info,
	.free = dgram_free,
};

/* localaddr: the interface's address, or NULL. */
static int dgram_group(struct dgram *d, const char *localaddr, struct err *e)
{
	struct ip_mreq mr = { .imr_multiaddr = d->remote.in.sin_addr };
	socklen_t len = sizeof(d->self);
	int one = 1;

	if (localaddr && *localaddr && inet_pton(AF_INET, localaddr, &mr.imr_interface) != 1)
		return err_set(e, EINVAL, "localaddr=%s: an IPv4 address is needed", localaddr);
	setsockopt(d->f.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(d->f.fd, &d->remote.sa, d->remote.len) ||
	    setsockopt(d->f.fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &mr, sizeof(mr)))
		return err_set(e, errno, "cannot join the group %s: %s", d->remote.text,
			       strerror(errno));
	d->out = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->out < 0 || setsockopt(d->out, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof(one)) ||
	    (mr.imr_interface.s_addr && setsockopt(d->out, IPPROTO_IP, IP_MULTICAST_IF,
						   &mr.imr_interface, sizeof(struct in_addr))) ||
	    connect(d->out, &d->remote.sa, d->remote.len) ||
	    getsockname(d->out, (struct sockaddr *)&d->self, &len))
		return err_set(e, errno, "cannot send to the group %s: %s", d->remote.text,
			       strerror(errno));
	d->remote.len = 0;
	return 0;
}

static int dgram_socket(struct dgram *d, int family, struct err *e)
{
	d->f.fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	d->out = d->f.fd;
	return d->f.fd < 0 ? err_set(e, errno, "socket: %s", strerror(errno)) : 0;
}

static int dgram_bind(struct dgram *d, struct err *e)
{
	int one = 1;

	if (d->local.sa.sa_family != AF_UNIX)
		setsockopt(d->f.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(d->f.fd, &d->local.sa, d->local.len))
		return err_set(e, errno, "cannot bind to %s: %s", d->local.text, strerror(errno));
	d->own_path = d->local.sa.sa_family == AF_UNIX && d->local.un.sun_path[0];
	return 0;
}

static int dgram_start(struct dgram *d, const struct net_addr *local, const struct net_addr *remote,
		       const char *localaddr, struct err *e)
{
	int r = 0;

	if (remote->type)
		r = net_resolve(remote, SOCK_DGRAM, false, &d->remote, e);
	if (r == 0 && local->type)
		r = net_resolve(local, SOCK_DGRAM, true, &d->local, e);
	if (r == 0)
		r = dgram_socket(d, remote->type ? d->remote.sa.sa_family : d->local.sa.sa_family,
				 e);
	if (r)
		return r;
	if (remote->type == NET_ADDR_INET && d->remote.sa.sa_family == AF_INET &&
	    IN_MULTICAST(ntohl(d->remote.in.sin_addr.s_addr)))
		return dgram_group(d, localaddr ? localaddr : local->host, e);
	if (!local->type)
		return err_set(e, EINVAL, "%s is no IPv4 multicast group; give local.*, too",
			       d->remote.text);
	return dgram_bind(d, e);
}

/* The old forms of -netdev socket. */
static int dgram_old(struct dgram *d, const struct netdev_opts *o, struct err *e)
{
	struct net_addr local = { 0 }, remote = { 0 };
	int r = net_split(o->mcast ? "mcast" : "udp", o->mcast ? o->mcast : o->udp, &remote, e);

	if (r == 0 && o->udp)
		r = net_split("localaddr", o->localaddr, &local, e);
	if (r == 0)
		r = dgram_start(d, &local, &remote, o->mcast ? o->localaddr : NULL, e);
	free(local.host);
	free(local.port);
	free(remote.host);
	free(remote.port);
	return r;
}

struct netdev *net_dgram_new(const struct netdev_env *env, const struct netdev_opts *o,
			     struct err *e)
{
	struct dgram *d = calloc(1, sizeof(*d));
	bool given = o->local.fd && !o->mcast;
	int r;

	if (!d) {
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	d->f = (struct loop_fd){ .fn = dgram_ready, .opaque = d, .fd = -1, .slot = -1 };
	d->out = d->full.fd = -1;
	r = netdev_init(&d->nd, &dgram_ops, env->loop, o->id, 1, &dgram_port, 0, e);
	if (r == 0 && given) {
		r = net_given_fd(o->local.fd, SOCK_DGRAM, &d->f.fd, e);
		d->out = d->f.fd;
		snprintf(d->local.text, sizeof(d->local.text), "fd %s", o->local.fd);
	} else if (r == 0) {
		r = o->kind == NETDEV_SOCKET ? dgram_old(d, o, e)
					     : dgram_start(d, &o->local, &o->remote, NULL, e);
	}
	if (r == 0)
		r = loop_fd_add(d->nd.loop, &d->f, LOOP_IN, e);
	if (r) {
		netdev_free(&d->nd);
		return NULL;
	}
	return &d->nd;
}
