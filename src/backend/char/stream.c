/* See stream.h. */
#include "backend/char/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"

enum {
	STREAM_CHUNK = 16384,  /* read at once */
	STREAM_DIRECT = 64,    /* a write of so many bytes does not wait for company */
	STREAM_WAIT_MS = 2000, /* for progress */
	STREAM_FLUSH_S = 10,   /* in all: a peer may read a byte now and then */
};

static void stream_events(struct stream *s)
{
	unsigned want = chardev_fe_can_read(s->c) ? LOOP_IN : s->hup ? 0 : LOOP_HUP;
	unsigned out = s->n && s->blocked ? LOOP_OUT : 0;

	if (s->fd.fd < 0)
		return;
	if (s->out_fd != s->fd.fd) {
		if (s->out_watch.events != out)
			loop_fd_set(s->c->loop, &s->out_watch, out);
		out = 0;
	}
	if (s->fd.events != (want | out))
		loop_fd_set(s->c->loop, &s->fd, want | out);
}

static void stream_writable(struct stream *s)
{
	if (!s->full || s->n > CHARDEV_QUEUE / 2)
		return;
	s->full = false;
	chardev_fe_writable(s->c);
}

/* Give the kernel what it takes. True: something moved. */
static bool stream_push(struct stream *s)
{
	bool moved = false;

	s->blocked = false;
	while (s->n && !s->blocked) {
		size_t first = MIN(s->n, s->cap - s->head);
		ssize_t r = write(s->out_fd, s->ring + s->head, first);

		if (r > 0) {
			s->head = (s->head + (size_t)r) & (s->cap - 1);
			s->n -= (size_t)r;
			moved = true;
		} else if (r < 0 && errno == EINTR) {
			continue;
		} else if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			s->blocked = true;
		} else {
			stream_drop(s); /* broken; reading will tell, too */
		}
	}
	return moved;
}

static void stream_push_bh(void *opaque)
{
	struct stream *s = opaque;

	if (s->fd.fd < 0 || s->blocked)
		return;
	stream_push(s);
	stream_writable(s);
	stream_events(s);
}

/* Nothing is left to read? Only then a hang-up may be acted upon without the frontend. */
static bool stream_drained(struct stream *s)
{
	int left = 0;

	return !s->c->fe || ioctl(s->fd.fd, FIONREAD, &left) || !left;
}

static void stream_read(struct stream *s, unsigned ready)
{
	uint8_t buf[STREAM_CHUNK];
	size_t room = chardev_fe_can_read(s->c);
	ssize_t n;

	if (!room) {
		if (ready & LOOP_HUP && !s->hup) {
			if (stream_drained(s)) {
				s->ops->gone(s);
				return;
			}
			s->hup = true;
			if (s->ops->hung_up)
				s->ops->hung_up(s);
		}
		stream_events(s);
		return;
	}
	room = MIN(room, sizeof(buf));
	if (s->ops->ahead) {
		n = recv(s->fd.fd, buf, room, MSG_PEEK);
		room = n > 0 ? s->ops->ahead(s, buf, (size_t)n) : room;
	}
	n = read(s->fd.fd, buf, room);
	if (n > 0) {
		size_t len = s->ops->filter ? s->ops->filter(s, buf, (size_t)n) : (size_t)n;

		if (len)
			chardev_fe_read(s->c, buf, len);
		stream_events(s);
	} else if (!n || (errno != EAGAIN && errno != EINTR)) {
		s->ops->gone(s); /* EIO: a terminal that hung up; ECONNRESET */
	}
}

static void stream_ready(void *opaque, unsigned ready)
{
	struct stream *s = opaque;

	if (ready & LOOP_OUT && s->n) {
		stream_push(s);
		stream_writable(s);
	}
	if (ready & (LOOP_IN | LOOP_HUP))
		stream_read(s, ready);
	else
		stream_events(s);
}

static void stream_out_ready(void *opaque, unsigned ready)
{
	struct stream *s = opaque;

	stream_push(s);
	stream_writable(s);
	stream_events(s);
}

void stream_init(struct stream *s, struct chardev *c, const struct stream_ops *ops)
{
	*s = (struct stream){ .c = c, .ops = ops };
	s->fd = (struct loop_fd){ .fn = stream_ready, .opaque = s, .fd = -1, .slot = -1 };
	s->out_watch =
		(struct loop_fd){ .fn = stream_out_ready, .opaque = s, .fd = -1, .slot = -1 };
	s->out_fd = -1;
}

int stream_open(struct stream *s, int fd, int out_fd, struct err *e)
{
	struct loop *l = s->c->loop;
	int r;

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ||
	    (out_fd >= 0 && fcntl(out_fd, F_SETFL, fcntl(out_fd, F_GETFL) | O_NONBLOCK)))
		return err_set(e, errno, "fd %d: %s", fd, strerror(errno));
	s->fd.fd = fd;
	r = loop_fd_add(l, &s->fd, 0, e);
	if (!r && out_fd >= 0) {
		s->out_watch.fd = out_fd;
		r = loop_fd_add(l, &s->out_watch, 0, e);
		if (r)
			loop_fd_del(l, &s->fd);
	}
	if (r) {
		s->fd.fd = s->out_watch.fd = -1;
		return r;
	}
	s->out_fd = out_fd < 0 ? fd : out_fd;
	s->hup = s->blocked = false;
	bh_init(&s->push_bh, l, stream_push_bh, s);
	bh_schedule(&s->c->update_bh);
	return 0;
}

void stream_close(struct stream *s)
{
	struct loop *l = s->c->loop;

	if (s->fd.fd >= 0) {
		stream_push(s); /* a peer that only sends no more still gets what fits */
		bh_cancel(&s->push_bh);
		loop_fd_del(l, &s->fd);
		close(s->fd.fd);
		if (s->out_watch.fd >= 0) {
			loop_fd_del(l, &s->out_watch);
			close(s->out_watch.fd);
		}
		s->fd.fd = s->out_fd = s->out_watch.fd = -1;
	}
	stream_drop(s);
	free(s->ring);
	s->ring = NULL;
	s->cap = 0;
	s->hup = s->blocked = false;
	if (s->full)
		stream_writable(s);
}

bool stream_is_open(const struct stream *s)
{
	return s->fd.fd >= 0;
}

void stream_drop(struct stream *s)
{
	s->n = s->head = 0;
}

static bool stream_grow(struct stream *s, size_t n)
{
	size_t cap = s->cap ? s->cap : 4096, first;
	uint8_t *ring;

	while (cap < s->n + n)
		cap *= 2;
	if (cap == s->cap)
		return true;
	ring = malloc(cap);
	if (!ring)
		return false;
	first = MIN(s->n, s->cap - s->head);
	if (s->n) {
		memcpy(ring, s->ring + s->head, first);
		memcpy(ring + first, s->ring, s->n - first);
	}
	free(s->ring);
	s->ring = ring;
	s->cap = cap;
	s->head = 0;
	return true;
}

size_t stream_room(const struct stream *s, bool force)
{
	size_t limit = force ? CHARDEV_HARD_MAX : CHARDEV_QUEUE;

	return s->n >= limit ? 0 : limit - s->n;
}

size_t stream_write(struct stream *s, const uint8_t *buf, size_t len, bool force)
{
	size_t room, n, tail, first, done = 0;

	if (s->fd.fd < 0)
		return len;
	if (!s->n && len >= STREAM_DIRECT) {
		ssize_t r = write(s->out_fd, buf, len);

		if (r < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			return len; /* broken: the loop will see it */
		done = r > 0 ? (size_t)r : 0;
		s->blocked = done < len;
	}
	room = stream_room(s, force);
	n = MIN(len - done, room);
	if (n && !stream_grow(s, n))
		n = MIN(n, s->cap - s->n);
	if (n) {
		bool was_empty = !s->n;

		tail = (s->head + s->n) & (s->cap - 1);
		first = MIN(n, s->cap - tail);
		memcpy(s->ring + tail, buf + done, first);
		memcpy(s->ring, buf + done + first, n - first);
		s->n += n;
		if (s->blocked)
			stream_events(s);
		else if (was_empty)
			bh_schedule(&s->push_bh);
	}
	n += done;
	if (n < len && !force)
		s->full = true;
	if (n < len && force && !s->dropped) {
		s->dropped = true;
		log_warn(
			"chardev %s: the peer does not read, %lu MiB are queued; dropping the rest",
			s->c->id, CHARDEV_HARD_MAX >> 20);
	}
	return n;
}

void stream_update(struct stream *s)
{
	stream_events(s);
}

void stream_flush(struct stream *s)
{
	struct timespec start, now;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (s->fd.fd >= 0 && s->n) {
		struct pollfd p = { .fd = s->out_fd, .events = POLLOUT };
		int r;

		stream_push(s);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (!s->n || now.tv_sec - start.tv_sec > STREAM_FLUSH_S)
			break;
		r = poll(&p, 1, STREAM_WAIT_MS);
		if (!r || (r < 0 && errno != EINTR))
			break;
	}
	stream_events(s);
}
