/*
 * udp: datagrams to one address and from it. What is written within one turn of the loop leaves
 * together; what the network loses is lost, and nobody waits for anybody.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/addr.h"
#include "backend/char/chardev.h"
#include "backend/char/opts.h"
#include "base/bits.h"

enum {
	UDP_IN = 65536,
	UDP_OUT = 1400,   /* fits into an Ethernet frame */
	UDP_TURN = 65536, /* bytes sent at once: a guest may name gigabytes */
};

struct udp {
	struct chardev c;
	struct loop_fd fd;
	struct bh send_bh;
	struct addr peer;
	size_t in_at, in_n; /* the datagram in hand: in[in_at..in_n) is not delivered yet */
	size_t out_n;
	uint8_t in[UDP_IN], out[UDP_OUT];
};

static void udp_send(void *opaque)
{
	struct udp *u = opaque;

	if (u->out_n)
		(void)!send(u->fd.fd, u->out, u->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);
	u->out_n = 0;
}

static size_t udp_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct udp *u = container_of(c, struct udp, c);

	if (len > UDP_TURN) {
		len = UDP_TURN; /* the rest in the next turn; when forced, it is lost like any */
		chardev_fe_writable(c);
	}
	for (size_t done = 0, n; done < len; done += n) {
		n = MIN(len - done, UDP_OUT - u->out_n);
		memcpy(u->out + u->out_n, buf + done, n);
		u->out_n += n;
		if (u->out_n == UDP_OUT)
			udp_send(u);
	}
	if (u->out_n)
		bh_schedule(&u->send_bh);
	return len;
}

static void udp_deliver(struct udp *u)
{
	size_t n;

	while (u->in_at < u->in_n && (n = MIN(chardev_fe_can_read(&u->c), u->in_n - u->in_at))) {
		chardev_fe_read(&u->c, u->in + u->in_at, n);
		u->in_at += n;
	}
}

static void udp_update(struct chardev *c)
{
	struct udp *u = container_of(c, struct udp, c);
	unsigned want;

	udp_deliver(u);
	want = u->in_at == u->in_n && chardev_fe_can_read(c) ? LOOP_IN : 0;
	if (want != u->fd.events)
		loop_fd_set(c->loop, &u->fd, want);
}

static void udp_readable(void *opaque, unsigned ready)
{
	struct udp *u = opaque;
	ssize_t n;

	if (u->in_at == u->in_n) {
		/* an error is a peer that is not there (yet); reading it clears it */
		n = recv(u->fd.fd, u->in, sizeof(u->in), MSG_DONTWAIT);
		u->in_at = 0;
		u->in_n = n > 0 ? (size_t)n : 0;
	}
	udp_update(&u->c);
}

static void udp_describe(struct chardev *c, char *buf, size_t cap)
{
	char text[128];

	addr_text(&container_of(c, struct udp, c)->peer, text, sizeof(text));
	snprintf(buf, cap, "udp:%s", text);
}

static void udp_flush(struct chardev *c)
{
	udp_send(container_of(c, struct udp, c));
}

static void udp_free(struct chardev *c)
{
	struct udp *u = container_of(c, struct udp, c);

	if (u->fd.fd >= 0) {
		udp_send(u);
		bh_cancel(&u->send_bh);
		loop_fd_del(c->loop, &u->fd);
		close(u->fd.fd);
	}
	free(u);
}

static const struct chardev_ops udp_ops = {
	.name = "udp",
	.write = udp_write,
	.update = udp_update,
	.flush = udp_flush,
	.free = udp_free,
	.describe = udp_describe,
};

/* Bind where asked, in the peer's family. */
static int udp_bind(struct udp *u, int fd, const struct chardev_opts *o, struct err *e)
{
	bool v6 = u->peer.ss.ss_family == AF_INET6;
	struct addr_spec spec = { .host = o->localaddr,
				  .port = o->localport ? o->localport : "0",
				  .passive = true,
				  .datagram = true,
				  .ipv4 = !v6,
				  .ipv6 = v6 };
	struct addr_list l;
	char text[128];
	int r;

	if (!o->localaddr && !o->localport)
		return 0;
	r = addr_resolve(&spec, &l, e);
	if (r)
		return r;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (!bind(fd, (struct sockaddr *)&l.a[0].ss, l.a[0].len))
		return 0;
	r = errno;
	addr_text(&l.a[0], text, sizeof(text));
	return err_set(e, r, "%s: %s", text, strerror(r));
}

static int udp_open(struct udp *u, const struct chardev_opts *o, struct err *e)
{
	struct addr_spec spec = {
		.host = o->host, .port = o->port, .datagram = true, .ipv4 = o->ipv4, .ipv6 = o->ipv6
	};
	struct addr_list l;
	int r = addr_resolve(&spec, &l, e), fd; /* at start-up: may wait for a name server */

	if (r)
		return r;
	u->peer = l.a[0];
	fd = socket(u->peer.ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, errno, "socket: %s", strerror(errno));
	r = udp_bind(u, fd, o, e);
	if (!r && connect(fd, (struct sockaddr *)&u->peer.ss, u->peer.len))
		r = err_set(e, errno, "%s:%s: %s", o->host ? o->host : "", o->port,
			    strerror(errno));
	if (!r) {
		u->fd.fd = fd;
		r = loop_fd_add(u->c.loop, &u->fd, 0, e);
	}
	if (r) {
		u->fd.fd = -1;
		close(fd);
	}
	return r;
}

struct chardev *chardev_udp_new(struct loop *l, const char *id, const struct chardev_opts *o,
				struct err *e)
{
	struct udp *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	chardev_init(&u->c, &udp_ops, l, id);
	u->fd = (struct loop_fd){ .fn = udp_readable, .opaque = u, .fd = -1, .slot = -1 };
	bh_init(&u->send_bh, l, udp_send, u);
	if (!udp_open(u, o, e))
		return &u->c;
	err_prefix(e, "chardev %s", id);
	chardev_free(&u->c);
	return NULL;
}
