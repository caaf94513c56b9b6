/*
 * socket: a unix or TCP socket, as a server for one peer at a time or as a client, plain or telnet.
 *
 * Theory of operation. A server listens on all addresses of its name and watches them only while
 * it has no peer; the next one waits in the kernel. A client tries the addresses of its name in
 * turn; with reconnect= it starts again so many seconds after a failure or the end of a connection.
 * Nothing blocks: a client's name is looked up on a thread (addr.h), and who must have a peer
 * before the machine starts (wait=on, a client without reconnect=) says so in ready().
 * Output without a peer is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/char/addr.h"
#include "backend/char/chardev.h"
#include "backend/char/opts.h"
#include "backend/char/stream.h"
#include "backend/char/telnet.h"
#include "backend/char/tick.h"
#include "base/bits.h"

struct sock {
	struct chardev c;
	struct stream s; /* the peer */
	bool telnet, nodelay, server, wait;
	bool had_peer; /* since the start */
	struct telnet tn;
	char *host, *port, *path;
	struct addr_spec spec; /* strings: those above */

	struct loop_fd listener[ADDR_MAX];
	unsigned listeners;
	dev_t dev; /* of path, made by us: to unlink no other one */
	ino_t ino;

	unsigned reconnect; /* seconds; 0: never */
	struct tick tick;
	struct addr_job *job;
	struct addr_list targets;
	unsigned next;             /* target to try after the present one */
	struct loop_fd connecting; /* fd.fd -1: not */
	struct err fail;           /* why a client without reconnect has no peer; code 0: it may */
};

static void sock_listen_on(struct sock *k, bool on)
{
	for (unsigned i = 0; i < k->listeners; i++)
		if (k->listener[i].events != (on ? LOOP_IN : 0))
			loop_fd_set(k->c.loop, &k->listener[i], on ? LOOP_IN : 0);
}

/* fd is the peer's from now on; closed on failure. */
static int sock_peer(struct sock *k, int fd, struct err *e)
{
	uint8_t start[TELNET_START];
	int r;

	if (k->nodelay)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	r = stream_open(&k->s, fd, -1, e);
	if (r) {
		close(fd);
		return r;
	}
	k->had_peer = true;
	sock_listen_on(k, false);
	if (k->telnet) {
		telnet_start(&k->tn, start);
		stream_write(&k->s, start, sizeof(start), true);
	}
	chardev_fe_event(&k->c, CHARDEV_OPENED);
	return 0;
}

static void sock_lost(struct sock *k)
{
	stream_close(&k->s);
	chardev_fe_event(&k->c, CHARDEV_CLOSED);
}

static void sock_gone(struct stream *s)
{
	struct sock *k = container_of(s, struct sock, s);

	sock_lost(k);
	sock_listen_on(k, true);
	if (k->reconnect)
		tick_arm(&k->tick, k->reconnect * 1000);
}

static void sock_hung_up(struct stream *s)
{
	/* its last words wait for the guest, but the next peer does not */
	sock_listen_on(container_of(s, struct sock, s), true);
}

static void sock_reply(void *opaque, const uint8_t *answer, size_t len)
{
	struct sock *k = opaque;

	if (stream_room(&k->s, false) >= len) /* who asks without reading gets no answer */
		stream_write(&k->s, answer, len, false);
}

/* The frontend hears of a BREAK behind what came before it, and ahead of what comes after it. */
static size_t sock_ahead(struct stream *s, const uint8_t *buf, size_t n)
{
	return telnet_ahead(&container_of(s, struct sock, s)->tn, buf, n);
}

static size_t sock_filter(struct stream *s, uint8_t *buf, size_t n)
{
	struct sock *k = container_of(s, struct sock, s);
	unsigned breaks;

	n = telnet_input(&k->tn, buf, n, &breaks, sock_reply, k);
	if (!breaks)
		return n;
	if (n)
		chardev_fe_read(&k->c, buf, n);
	chardev_fe_event(&k->c, CHARDEV_BREAK);
	return 0;
}

static const struct stream_ops sock_stream = { .gone = sock_gone, .hung_up = sock_hung_up };
static const struct stream_ops sock_telnet = {
	.gone = sock_gone,
	.hung_up = sock_hung_up,
	.ahead = sock_ahead,
	.filter = sock_filter,
};

/* --- server --- */

static void sock_accept(struct sock *k, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		/* Gone again; or out of descriptors or memory: it would be told again at once. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
			sock_listen_on(k, false);
			tick_arm(&k->tick, 1000);
		}
		return;
	}
	if (stream_is_open(&k->s)) {
		if (!k->s.hup) {
			close(fd);
			return;
		}
		sock_lost(k);
	}
	(void)!sock_peer(k, fd, NULL);
}

static void sock_relisten(void *opaque)
{
	struct sock *k = opaque;

	if (!stream_is_open(&k->s) || k->s.hup)
		sock_listen_on(k, true);
}

/* Which one does not matter: accept4 on the others gives EAGAIN. */
static void sock_acceptable(void *opaque, unsigned ready)
{
	struct sock *k = opaque;

	for (unsigned i = 0; i < k->listeners; i++)
		if (!stream_is_open(&k->s) || k->s.hup)
			sock_accept(k, k->listener[i].fd);
}

/* Takes fd, also on failure. */
static int sock_listener(struct sock *k, int fd, struct err *e)
{
	struct loop_fd *f = &k->listener[k->listeners];
	int r;

	*f = (struct loop_fd){ .fn = sock_acceptable, .opaque = k, .fd = fd, .slot = -1 };
	r = loop_fd_add(k->c.loop, f, LOOP_IN, e);
	if (r)
		close(fd);
	else
		k->listeners++;
	return r;
}

static void sock_same_port(struct sock *k, struct addr *a)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	in_port_t port;

	if (a->ss.ss_family == AF_UNIX || getsockname(k->listener[0].fd, (void *)&ss, &len))
		return;
	port = ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
					: ((struct sockaddr_in *)&ss)->sin_port;
	if (a->ss.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&a->ss)->sin6_port = port;
	else
		((struct sockaddr_in *)&a->ss)->sin_port = port;
}

static int sock_serve(struct sock *k, unsigned to, struct err *e)
{
	struct addr_list l;
	struct stat st;
	int r = addr_resolve(&k->spec, &l, e);

	for (unsigned i = 0; i < l.n && !r; i++) {
		int fd;

		if (k->listeners)
			sock_same_port(k, &l.a[i]);
		fd = addr_listen(&l.a[i], k->listeners ? 0 : to, true, e);
		if (fd >= 0)
			r = sock_listener(k, fd, e);
		else if ((fd != -EADDRNOTAVAIL && fd != -EAFNOSUPPORT) ||
			 (i + 1 == l.n && !k->listeners))
			r = fd; /* a host without IPv6 is no failure */
	}
	if (!r && k->path && !k->spec.abstract && !lstat(k->path, &st)) {
		k->dev = st.st_dev;
		k->ino = st.st_ino;
	}
	return r;
}

/* --- client --- */

static void sock_try(struct sock *k);

/* This round is over without a peer. */
static void sock_failed(struct sock *k, const struct err *e)
{
	if (k->reconnect)
		tick_arm(&k->tick, k->reconnect * 1000);
	else
		k->fail = *e;
}

static void sock_connected(void *opaque, unsigned ready)
{
	struct sock *k = opaque;
	int fd = k->connecting.fd, code = 0;
	socklen_t len = sizeof(code);
	char text[128];

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len))
		code = errno;
	loop_fd_del(k->c.loop, &k->connecting);
	k->connecting.fd = -1;
	if (code) {
		close(fd);
		addr_text(&k->targets.a[k->next - 1], text, sizeof(text));
		err_set(&k->fail, code, "%s: %s", text, strerror(code));
		sock_try(k);
	} else if (sock_peer(k, fd, &k->fail)) {
		sock_try(k);
	}
}

/* Try the next address; after the last one k->fail says why that did not work. */
static void sock_try(struct sock *k)
{
	struct err e = k->fail;
	bool done;

	while (k->next < k->targets.n) {
		int fd = addr_connect(&k->targets.a[k->next++], &done, &e);

		if (fd < 0)
			continue;
		k->fail.code = 0;
		if (done) {
			if (!sock_peer(k, fd, &e))
				return;
			continue;
		}
		k->connecting.fd = fd;
		if (!loop_fd_add(k->c.loop, &k->connecting, LOOP_OUT, &e))
			return;
		k->connecting.fd = -1;
		close(fd);
	}
	sock_failed(k, &e);
}

static void sock_found(void *opaque)
{
	struct sock *k = opaque;
	struct err e = { 0 };
	int r = addr_job_result(k->job, &k->targets, &e);

	addr_job_free(k->job);
	k->job = NULL;
	k->next = 0;
	if (r)
		sock_failed(k, &e);
	else
		sock_try(k);
}

/* One round of all addresses. */
static void sock_connect(void *opaque)
{
	struct sock *k = opaque;
	struct err e = { 0 };

	k->fail = (struct err){ 0 };
	k->next = 0;
	if (!addr_is_numeric(&k->spec)) {
		k->job = addr_job_new(k->c.loop, &k->spec, sock_found, k, &e);
		if (!k->job)
			sock_failed(k, &e);
	} else if (addr_resolve(&k->spec, &k->targets, &e)) {
		sock_failed(k, &e);
	} else {
		sock_try(k);
	}
}

/* --- the chardev --- */

static size_t sock_write_telnet(struct sock *k, const uint8_t *buf, size_t len, bool force)
{
	static const uint8_t iac[2] = { TELNET_IAC, TELNET_IAC };
	size_t done = 0;

	if (!stream_is_open(&k->s))
		return len; /* unseen: a guest can name terabytes, and nobody wants them */
	while (done < len) {
		size_t span = MIN(len - done, (size_t)CHARDEV_QUEUE), n; /* not all of gigabytes */
		const uint8_t *at = memchr(buf + done, TELNET_IAC, span);

		if (at)
			span = (size_t)(at - buf) - done;

		n = span ? stream_write(&k->s, buf + done, span, force) : 0;
		done += n;
		if (n < span)
			break;
		if (!at)
			continue;
		if (stream_room(&k->s, force) < sizeof(iac)) {
			k->s.full |= !force; /* both or none */
			break;
		}
		stream_write(&k->s, iac, sizeof(iac), force);
		done++;
	}
	return done;
}

static size_t sock_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct sock *k = container_of(c, struct sock, c);

	return k->telnet ? sock_write_telnet(k, buf, len, force)
			 : stream_write(&k->s, buf, len, force);
}

static void sock_update(struct chardev *c)
{
	stream_update(&container_of(c, struct sock, c)->s);
}

static void sock_flush(struct chardev *c)
{
	stream_flush(&container_of(c, struct sock, c)->s);
}

static int sock_ready(struct chardev *c, struct err *e)
{
	struct sock *k = container_of(c, struct sock, c);

	if (k->had_peer || k->reconnect || (k->server && !k->wait))
		return CHARDEV_READY;
	if (k->server)
		return CHARDEV_LISTENING;
	return k->fail.code ? err_set(e, k->fail.code, "%s", k->fail.msg) : CHARDEV_CONNECTING;
}

static void sock_describe(struct chardev *c, char *buf, size_t cap)
{
	struct sock *k = container_of(c, struct sock, c);
	int fd = k->listeners ? k->listener[0].fd : k->s.fd.fd;
	struct addr a = { .len = sizeof(a.ss) };
	char where[160];

	/* a listener's own address (its port may have been 0), a client's peer */
	if (fd >= 0 && !(k->listeners ? getsockname(fd, (void *)&a.ss, &a.len)
				      : getpeername(fd, (void *)&a.ss, &a.len)))
		addr_text(&a, where, sizeof(where));
	else if (k->path)
		snprintf(where, sizeof(where), "%.120s", k->path);
	else
		snprintf(where, sizeof(where), "%.100s:%.30s", k->host ? k->host : "",
			 k->port ? k->port : "");
	snprintf(buf, cap, "%s%s:%s%s", c->open ? "" : "disconnected:",
		 k->path || a.ss.ss_family == AF_UNIX ? "unix"
		 : k->telnet                          ? "telnet"
						      : "tcp",
		 where, k->server ? ",server=on" : "");
}

static void sock_free(struct chardev *c)
{
	struct sock *k = container_of(c, struct sock, c);
	struct stat st;

	stream_flush(&k->s);
	stream_close(&k->s);
	tick_free(&k->tick);
	addr_job_free(k->job);
	if (k->connecting.fd >= 0) {
		loop_fd_del(c->loop, &k->connecting);
		close(k->connecting.fd);
	}
	for (unsigned i = 0; i < k->listeners; i++) {
		loop_fd_del(c->loop, &k->listener[i]);
		close(k->listener[i].fd);
	}
	if (k->ino && !lstat(k->path, &st) && st.st_dev == k->dev && st.st_ino == k->ino)
		unlink(k->path);
	bh_cancel(&c->write_bh);
	bh_cancel(&c->update_bh);
	free(k->host);
	free(k->port);
	free(k->path);
	free(k);
}

static const struct chardev_ops sock_ops = {
	.name = "socket",
	.write = sock_write,
	.update = sock_update,
	.flush = sock_flush,
	.free = sock_free,
	.ready = sock_ready,
	.describe = sock_describe,
};

/* fd=N, opened by whoever started us. */
static int sock_passed(struct sock *k, const char *text, struct err *e)
{
	int listening = 0, fd;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(listening), slen = sizeof(ss);
	char *end;
	long n = strtol(text, &end, 10);

	if (!*text || *end || n < 0 || n > 1 << 20)
		return err_set(e, EINVAL, "fd=%s: the number of an open socket is needed", text);
	fd = (int)n;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len))
		return err_set(e, errno, "fd=%s: %s", text,
			       errno == ENOTSOCK ? "it is no socket" : strerror(errno));
	/* What is passed to us is open in a child: all that we open ourselves is not. */
	if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
		return err_set(e, EBUSY, "fd=%s is in use by this program already", text);
	if (!!listening != k->server)
		return err_set(e, EINVAL,
			       listening ? "fd=%s listens: it needs server=on"
					 : "fd=%s does not listen: it is not for server=on",
			       text);
	if (!listening && getpeername(fd, (void *)&ss, &slen))
		return err_set(e, errno, "fd=%s: %s", text, strerror(errno));
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return listening ? sock_listener(k, fd, e) : sock_peer(k, fd, e);
}

static char *sock_copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

struct chardev *chardev_socket_new(struct loop *l, const char *id, const struct chardev_opts *o,
				   struct err *e)
{
	struct sock *k = calloc(1, sizeof(*k));
	int r = 0;

	if (!k) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	chardev_init(&k->c, &sock_ops, l, id);
	stream_init(&k->s, &k->c, o->telnet > 0 ? &sock_telnet : &sock_stream);
	tick_init(&k->tick, l, o->server > 0 ? sock_relisten : sock_connect, k);
	if (o->server > 0 || o->reconnect) {
		tick_arm(&k->tick, 0); /* has its descriptor now, not when there are none left */
		tick_stop(&k->tick);
	}
	k->connecting = (struct loop_fd){ .fn = sock_connected, .opaque = k, .fd = -1, .slot = -1 };
	k->c.open = false;
	k->host = sock_copy(o->host);
	k->port = sock_copy(o->port);
	k->path = sock_copy(o->path);
	k->telnet = o->telnet > 0;
	k->nodelay = o->nodelay > 0 || o->delay == 0;
	k->server = o->server > 0;
	k->wait = o->wait != 0;
	k->reconnect = o->reconnect;
	k->spec = (struct addr_spec){ .path = k->path,
				      .abstract = o->abstract > 0,
				      .tight = o->tight != 0,
				      .host = k->host,
				      .port = k->port,
				      .passive = k->server,
				      .ipv4 = o->ipv4,
				      .ipv6 = o->ipv6 };
	if (o->fd)
		r = sock_passed(k, o->fd, e);
	else if (k->server)
		r = sock_serve(k, o->to, e);
	else
		sock_connect(k);
	if (!r)
		return &k->c;
	err_prefix(e, "chardev %s", id);
	chardev_free(&k->c);
	return NULL;
}
