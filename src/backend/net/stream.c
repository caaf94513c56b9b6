/*
 * Frames over a stream socket: to QEMU's stream and socket netdevs, passt, or another machine here.
 *
 * Modelled:     clients that connect, at once or again and again (reconnect); servers, one peer at
 *               a time, the next is served when it goes; sockets handed to us. Without a peer the
 *               guest's link is down.
 * Flow:         what the socket does not take of a frame is kept, and the NIC waits.
 * Threads:      the loop's thread, see netdev.h.  Time: a timer, to connect again.
 * Host resources: one or two sockets.  Hostile: the peer; a wrong length ends the connection.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/net/frames.h"
#include "backend/net/kinds.h"
#include "backend/net/sockaddr.h"
#include "base/bits.h"
#include "base/log.h"

enum { STREAM_ROUND = 64, STREAM_PATIENCE_MS = 10000 };

struct stream {
	struct netdev nd;
	struct net_sockaddr addr;
	bool server, own_path;
	unsigned reconnect_ms;
	struct loop_fd listen, f; /* fd -1: none */
	struct timer again;
	bool connecting;
	bool stuck;    /* the NIC has no room for the frame at hand */
	uint8_t *rest; /* of a frame that is partly sent */
	size_t rest_len, rest_at;
	struct frames in;
	uint8_t out[FRAMES_HEAD + NET_FRAME_MAX]; /* what rest points into */
};

static struct stream *stream_of(struct netdev *nd)
{
	return container_of(nd, struct stream, nd);
}

static void stream_lost(struct stream *s, const char *why);

static void stream_watch(struct stream *s)
{
	unsigned want = (s->stuck || s->connecting ? 0 : LOOP_IN) |
			(s->rest || s->connecting ? LOOP_OUT : 0);

	if (s->f.fd >= 0 && s->f.events != want)
		loop_fd_set(s->nd.loop, &s->f, want);
}

/* --- from the peer --- */

/* Whole frames to the NIC; false: the connection is gone. */
static bool stream_frames(struct stream *s)
{
	struct netport *p = &s->nd.port[0];
	const uint8_t *frame;
	struct iovec iov;
	struct netpkt pkt;
	size_t len;
	int r;

	while ((r = frames_next(&s->in, &frame, &len)) > 0) {
		pkt = netpkt_of(&iov, frame, len, NULL);
		if (!net_send(p, &pkt)) {
			s->stuck = true;
			return true;
		}
		frames_taken(&s->in);
	}
	if (r == 0)
		return true;
	stream_lost(s, "what came is no frame");
	return false;
}

static void stream_read(struct stream *s)
{
	for (unsigned i = 0; i < STREAM_ROUND && !s->stuck; i++) {
		size_t room;
		void *at = frames_room(&s->in, &room);
		ssize_t n = recv(s->f.fd, at, room, 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			stream_lost(s, n ? strerror(errno) : "the peer closed it");
			break;
		}
		frames_put(&s->in, (size_t)n);
		if (!stream_frames(s) || (size_t)n < room / 2)
			break;
	}
	net_flush(&s->nd.port[0]);
}

static void stream_room(struct netport *p)
{
	struct stream *s = stream_of(p->nd);

	if (!s->stuck)
		return;
	s->stuck = false;
	if (stream_frames(s)) {
		net_flush(p);
		stream_watch(s);
	}
}

/* --- to the peer --- */

/* Keep what was not sent. */
static void stream_keep(struct stream *s, const struct iovec *iov, unsigned n, size_t sent)
{
	s->rest_len = s->rest_at = 0;
	for (unsigned i = 0; i < n; i++) {
		size_t skip = MIN(sent, iov[i].iov_len), len = iov[i].iov_len - skip;

		memcpy(s->out + s->rest_len, (uint8_t *)iov[i].iov_base + skip, len);
		s->rest_len += len;
		sent -= skip;
	}
	s->rest = s->out;
	stream_watch(s);
}

static bool stream_receive(struct netport *p, const struct netpkt *pkt)
{
	struct stream *s = stream_of(p->nd);
	uint8_t head[FRAMES_HEAD] = { (uint8_t)(pkt->len >> 24), (uint8_t)(pkt->len >> 16),
				      (uint8_t)(pkt->len >> 8), (uint8_t)pkt->len };
	struct iovec iov[NET_IOV_MAX + 1];
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = pkt->n + 1 };
	size_t total = FRAMES_HEAD + pkt->len;
	ssize_t n;

	if (s->rest)
		return false;
	iov[0] = (struct iovec){ head, FRAMES_HEAD };
	memcpy(iov + 1, pkt->iov, pkt->n * sizeof(*iov));
	m.msg_iovlen = MIN(m.msg_iovlen, (size_t)NET_IOV_MAX); /* the kernel's limit */
	n = sendmsg(s->f.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return true; /* the loop will tell that it is broken */
	if (n < 0) {
		n = 0;
	}
	if ((size_t)n < total)
		stream_keep(s, iov, pkt->n + 1, (size_t)n);
	return true;
}

static void stream_write(struct stream *s)
{
	while (s->rest) {
		ssize_t n = send(s->f.fd, s->rest + s->rest_at, s->rest_len - s->rest_at,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			stream_lost(s, strerror(errno));
			return;
		}
		s->rest_at += (size_t)n;
		if (s->rest_at == s->rest_len)
			s->rest = NULL;
	}
	net_room(&s->nd.port[0]);
}

static const struct netport_ops stream_port = {
	.receive = stream_receive,
	.room = stream_room,
};

/* --- connections --- */

static void stream_up(struct stream *s)
{
	int one = 1;

	s->connecting = false;
	setsockopt(s->f.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on unix: fine */
	frames_clear(&s->in);
	s->rest = NULL;
	s->stuck = false;
	stream_watch(s);
	netdev_connected(&s->nd, true);
}

static void stream_later(struct stream *s)
{
	timer_arm(&s->again,
		  clock_now(loop_clock(s->nd.loop)) + (uint64_t)s->reconnect_ms * NS_PER_MS);
}

static void stream_close(struct stream *s)
{
	if (s->f.fd < 0)
		return;
	loop_fd_del(s->nd.loop, &s->f);
	close(s->f.fd);
	s->f.fd = -1;
	s->connecting = s->stuck = false;
	s->rest = NULL;
}

static void stream_lost(struct stream *s, const char *why)
{
	bool was = s->nd.connected;

	stream_close(s);
	netdev_connected(&s->nd, false);
	if (s->server && s->listen.fd >= 0)
		loop_fd_set(s->nd.loop, &s->listen, LOOP_IN);
	else if (s->reconnect_ms)
		stream_later(s);
	if (was)
		log_info("netdev %s: connection ended: %s", s->nd.id, why);
}

static void stream_ready(void *opaque, unsigned ready)
{
	struct stream *s = opaque;
	socklen_t len = sizeof(int);
	int error = 0;

	if (s->connecting) {
		if (getsockopt(s->f.fd, SOL_SOCKET, SO_ERROR, &error, &len) || error)
			stream_lost(s, strerror(error));
		else
			stream_up(s);
		return;
	}
	if (ready & LOOP_OUT && s->rest)
		stream_write(s);
	if (s->f.fd >= 0 && ready & LOOP_IN && !s->stuck)
		stream_read(s);
	else if (s->f.fd >= 0 && ready & LOOP_HUP)
		stream_lost(s, "hang-up");
	stream_watch(s);
}

static int stream_take(struct stream *s, int fd, struct err *e)
{
	int r;

	s->f = (struct loop_fd){ .fn = stream_ready, .opaque = s, .fd = fd, .slot = -1 };
	r = loop_fd_add(s->nd.loop, &s->f, 0, e);
	if (r) {
		close(fd);
		s->f.fd = -1;
	}
	return r;
}

static void stream_accept(void *opaque, unsigned ready)
{
	struct stream *s = opaque;
	int fd = accept4(s->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 || stream_take(s, fd, NULL))
		return;
	loop_fd_set(s->nd.loop, &s->listen, 0); /* others wait in the backlog */
	stream_up(s);
}

/* Begin to connect: 0, or -errno with nothing left. */
static int stream_connect(struct stream *s, struct err *e)
{
	int fd = socket(s->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return err_set(e, errno, "socket: %s", strerror(errno));
	r = connect(fd, &s->addr.sa, s->addr.len) ? -errno : 0;
	if (r && r != -EINPROGRESS && r != -EAGAIN) {
		close(fd);
		return err_set(e, -r, "cannot connect to %s: %s", s->addr.text, strerror(-r));
	}
	if (stream_take(s, fd, e))
		return -ENOMEM;
	if (r == -EAGAIN) { /* a unix socket whose backlog is full */
		stream_close(s);
		return err_set(e, EAGAIN, "%s is busy", s->addr.text);
	}
	s->connecting = r == -EINPROGRESS;
	if (s->connecting)
		stream_watch(s);
	else
		stream_up(s);
	return 0;
}

static void stream_try_again(void *opaque)
{
	struct stream *s = opaque;

	if (s->f.fd < 0 && stream_connect(s, NULL))
		stream_later(s);
}

/* Without reconnect the peer must be there at the start: wait for it, here. */
static int stream_first(struct stream *s, struct err *e)
{
	int r = stream_connect(s, e), error = 0;
	socklen_t len = sizeof(error);
	struct pollfd p = { .fd = s->f.fd, .events = POLLOUT };

	if (r && s->reconnect_ms) {
		stream_later(s);
		return 0;
	}
	if (r || !s->connecting || s->reconnect_ms)
		return r;
	r = poll(&p, 1, STREAM_PATIENCE_MS);
	if (r > 0)
		getsockopt(s->f.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	else
		error = ETIMEDOUT;
	if (error)
		return err_set(e, error, "cannot connect to %s: %s", s->addr.text, strerror(error));
	stream_up(s);
	return 0;
}

static int stream_listen(struct stream *s, struct err *e)
{
	int fd = socket(s->addr.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, probe, gone;

	if (fd < 0)
		return err_set(e, errno, "socket: %s", strerror(errno));
	s->listen = (struct loop_fd){ .fn = stream_accept, .opaque = s, .fd = fd, .slot = -1 };
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, &s->addr.sa, s->addr.len)) {
		/* a path that a dead server left is taken over, one with a living server is not */
		bool unix_path = s->addr.sa.sa_family == AF_UNIX && s->addr.un.sun_path[0];

		probe = errno == EADDRINUSE && unix_path
				? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
				: -1;
		gone = probe >= 0 && connect(probe, &s->addr.sa, s->addr.len) &&
		       errno == ECONNREFUSED;
		if (probe >= 0)
			close(probe);
		if (!gone || unlink(s->addr.un.sun_path) || bind(fd, &s->addr.sa, s->addr.len))
			return err_set(e, EADDRINUSE, "cannot listen at %s: %s", s->addr.text,
				       strerror(EADDRINUSE));
	}
	s->own_path = s->addr.sa.sa_family == AF_UNIX && s->addr.un.sun_path[0];
	if (listen(fd, 1))
		return err_set(e, errno, "cannot listen at %s: %s", s->addr.text, strerror(errno));
	return loop_fd_add(s->nd.loop, &s->listen, LOOP_IN, e);
}

/* --- the netdev --- */

static void stream_free(struct netdev *nd)
{
	struct stream *s = stream_of(nd);

	timer_cancel(&s->again);
	stream_close(s);
	if (s->listen.fd >= 0) {
		loop_fd_del(nd->loop, &s->listen);
		close(s->listen.fd);
		if (s->own_path)
			unlink(s->addr.un.sun_path);
	}
	free(s);
}

static int stream_set_loop(struct netdev *nd, struct loop *l, struct err *e)
{
	struct stream *s = stream_of(nd);
	bool armed = timer_armed(&s->again);
	uint64_t at = s->again.deadline;
	int r = netdev_move_fd(nd, &s->f, l, e);

	if (r == 0)
		r = netdev_move_fd(nd, &s->listen, l, e);
	timer_cancel(&s->again);
	timer_init(&s->again, l, stream_try_again, s);
	if (armed)
		timer_arm(&s->again, at);
	return r;
}

static void stream_info(struct netdev *nd, FILE *out)
{
	struct stream *s = stream_of(nd);

	fprintf(out, "%s%s,%s", s->server ? "server," : "", s->addr.text,
		nd->connected ? "connected" : "no peer");
}

static const struct netdev_ops stream_ops = {
	.name = "stream",
	.set_loop = stream_set_loop,
	.info = stream_info,
	.free = stream_free,
};

/* given: an open socket, or -1 and then an address. */
static struct netdev *stream_make(const struct netdev_env *env, const struct netdev_opts *o,
				  const struct net_addr *a, bool server, int given, struct err *e)
{
	struct stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	s->f.fd = s->listen.fd = -1;
	s->server = server;
	s->reconnect_ms = o->reconnect_ms;
	timer_init(&s->again, env->loop, stream_try_again, s);
	r = netdev_init(&s->nd, &stream_ops, env->loop, o->id, 1, &stream_port, 0, e);
	s->nd.connected = false;
	if (r == 0 && given >= 0) {
		snprintf(s->addr.text, sizeof(s->addr.text), "fd %d", given);
		if (server) {
			s->listen = (struct loop_fd){
				.fn = stream_accept, .opaque = s, .fd = given, .slot = -1
			};
			r = loop_fd_add(s->nd.loop, &s->listen, LOOP_IN, e);
		} else {
			r = stream_take(s, given, e);
			if (r == 0)
				stream_up(s);
		}
	} else if (r == 0) {
		r = net_resolve(a, SOCK_STREAM, server, &s->addr, e);
		if (r == 0)
			r = server ? stream_listen(s, e) : stream_first(s, e);
	}
	if (r) {
		netdev_free(&s->nd);
		return NULL;
	}
	return &s->nd;
}

struct netdev *net_stream_new(const struct netdev_env *env, const struct netdev_opts *o,
			      struct err *e)
{
	int fd = -1;

	if (o->local.type == NET_ADDR_FD && net_given_fd(o->local.fd, SOCK_STREAM, &fd, e))
		return NULL;
	return stream_make(env, o, &o->local, o->server, fd, e);
}

/* The old forms: those of them that are streams; the rest is dgram's. */
struct netdev *net_socket_new(const struct netdev_env *env, const struct netdev_opts *o,
			      struct err *e)
{
	struct net_addr a = { 0 };
	struct netdev *nd = NULL;
	const char *text = o->listen ? o->listen : o->connect;
	int type = 0, fd = -1;
	socklen_t len = sizeof(type);

	if (o->local.fd && !o->mcast) {
		if (net_given_fd(o->local.fd, 0, &fd, e))
			return NULL;
		(void)!getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
		return type == SOCK_STREAM ? stream_make(env, o, NULL, false, fd, e)
					   : net_dgram_new(env, o, e);
	}
	if (!text)
		return net_dgram_new(env, o, e);
	if (net_split(o->listen ? "listen" : "connect", text, &a, e) == 0)
		nd = stream_make(env, o, &a, o->listen, -1, e);
	free(a.host);
	free(a.port);
	return nd;
}
