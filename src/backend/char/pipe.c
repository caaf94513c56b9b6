/*
 * pipe: FIFOs of the file system. Input comes from PATH.in and output goes to PATH.out; when these
 * do not exist, both are PATH.
 *
 * We hold both ends of each, so that the other side may come, go and come again. Output that
 * nobody reads fills the FIFO (its first 64 KiB wait for a reader) and is dropped from then on:
 * only a reader who is there can make the guest wait. Whether there is one cannot be asked while
 * we are one ourselves, so our own reading end is closed for the question.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/char/stream.h"
#include "backend/char/tick.h"
#include "base/bits.h"

#define PIPE_CHECK_MS 500

struct pipe_chardev {
	struct chardev c;
	struct stream s;
	struct tick tick; /* while a frontend waits for room */
	char *path, *out_path;
	int keep; /* our reading end of PATH.out; -1: none, or one fd for both ways */
};

/* May block nobody: the other end is ours. */
static int pipe_reopen(struct pipe_chardev *p)
{
	return open(p->out_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static bool pipe_has_reader(struct pipe_chardev *p)
{
	struct pollfd f = { .fd = p->s.out_fd, .events = POLLOUT };

	if (!p->out_path || !stream_is_open(&p->s))
		return true;
	if (p->keep >= 0)
		close(p->keep);
	if (poll(&f, 1, 0) < 0)
		f.revents = 0;
	p->keep = pipe_reopen(p);
	return !(f.revents & POLLERR);
}

static size_t pipe_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct pipe_chardev *p = container_of(c, struct pipe_chardev, c);

	if (stream_room(&p->s, false) >= len)
		return stream_write(&p->s, buf, len, false);
	if (!pipe_has_reader(p)) {
		stream_write(&p->s, buf, len, false);
		return len;
	}
	tick_arm(&p->tick, PIPE_CHECK_MS);
	return stream_write(&p->s, buf, len, force);
}

/* Somebody waits for room: is the reader still there? */
static void pipe_tick(void *opaque)
{
	struct pipe_chardev *p = opaque;

	if (!p->c.want_write)
		return;
	if (!pipe_has_reader(p))
		chardev_fe_writable(&p->c);
	else
		tick_arm(&p->tick, PIPE_CHECK_MS);
}

static void pipe_update(struct chardev *c)
{
	stream_update(&container_of(c, struct pipe_chardev, c)->s);
}

static void pipe_flush(struct chardev *c)
{
	struct pipe_chardev *p = container_of(c, struct pipe_chardev, c);

	if (pipe_has_reader(p))
		stream_flush(&p->s);
}

static void pipe_describe(struct chardev *c, char *buf, size_t cap)
{
	snprintf(buf, cap, "pipe:%s", container_of(c, struct pipe_chardev, c)->path);
}

static void pipe_gone(struct stream *s)
{
	stream_close(s);
	chardev_fe_event(s->c, CHARDEV_CLOSED);
}

static const struct stream_ops pipe_stream = { .gone = pipe_gone };

static void pipe_free(struct chardev *c)
{
	struct pipe_chardev *p = container_of(c, struct pipe_chardev, c);

	pipe_flush(c);
	stream_close(&p->s);
	bh_cancel(&c->write_bh);
	tick_free(&p->tick);
	if (p->keep >= 0)
		close(p->keep);
	free(p->path);
	free(p->out_path);
	free(p);
}

static const struct chardev_ops pipe_ops = {
	.name = "pipe",
	.write = pipe_write,
	.update = pipe_update,
	.flush = pipe_flush,
	.free = pipe_free,
	.describe = pipe_describe,
};

static int pipe_open_one(const char *path, int flags, struct err *e)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		close(fd);
		return err_set(e, EINVAL, "%s is no FIFO; mkfifo makes one", path);
	}
	return fd;
}

static int pipe_open(struct pipe_chardev *p, struct err *e)
{
	char in_path[4096];
	int in, out = -1, r;

	snprintf(in_path, sizeof(in_path), "%s.in", p->path);
	if (access(in_path, F_OK) && access(p->out_path, F_OK)) {
		free(p->out_path);
		p->out_path = NULL;
		in = pipe_open_one(p->path, O_RDWR, e);
		if (in == -ENOENT)
			return err_set(e, ENOENT,
				       "%s: no such FIFO, nor %s.in and %s.out; mkfifo makes them",
				       p->path, p->path, p->path);
	} else {
		in = pipe_open_one(in_path, O_RDWR, e);
		if (in >= 0)
			p->keep = pipe_open_one(p->out_path, O_RDONLY, e);
		if (p->keep >= 0)
			out = pipe_open_one(p->out_path, O_WRONLY, e);
		if (in >= 0 && out < 0) {
			close(in);
			return e ? -e->code : -EINVAL;
		}
	}
	if (in < 0)
		return in;
	r = stream_open(&p->s, in, out, e);
	if (r) {
		close(in);
		if (out >= 0)
			close(out);
	}
	return r;
}

struct chardev *chardev_pipe_new(struct loop *l, const char *id, const char *path, struct err *e)
{
	struct pipe_chardev *p = calloc(1, sizeof(*p));

	if (!p || !(p->path = strdup(path)) || asprintf(&p->out_path, "%s.out", path) < 0) {
		if (p)
			free(p->path);
		free(p);
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	p->keep = -1;
	chardev_init(&p->c, &pipe_ops, l, id);
	stream_init(&p->s, &p->c, &pipe_stream);
	tick_init(&p->tick, l, pipe_tick, p);
	if (!pipe_open(p, e))
		return &p->c;
	err_prefix(e, "chardev %s", id);
	chardev_free(&p->c);
	return NULL;
}
