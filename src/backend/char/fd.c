/*
 * Chardevs on file descriptors: stdio, a file, any pair of fds. Input is read by the event loop,
 * and only as much as the frontend can take; output goes through a writer (writer.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/char/term.h"
#include "backend/char/writer.h"
#include "base/bits.h"

struct fd_chardev {
	struct chardev c;
	struct loop_fd in; /* in.fd -1: no input, or at its end */
	struct writer *out;
	bool stdio;
	struct term *term; /* raw until we are freed; NULL: none */
	int own_fd[2];     /* closed when freed; -1: none */
};

static size_t fd_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	return writer_put(container_of(c, struct fd_chardev, c)->out, buf, len, force);
}

static void fd_room(void *opaque)
{
	chardev_fe_writable(opaque);
}

static void fd_flush(struct chardev *c)
{
	writer_flush(container_of(c, struct fd_chardev, c)->out);
}

static void fd_update(struct chardev *c)
{
	struct fd_chardev *f = container_of(c, struct fd_chardev, c);
	unsigned want;

	if (f->in.fd < 0)
		return;
	want = chardev_fe_can_read(c) ? LOOP_IN : 0;
	if (want != f->in.events)
		loop_fd_set(c->loop, &f->in, want);
}

static void fd_readable(void *opaque, unsigned ready)
{
	struct fd_chardev *f = opaque;
	uint8_t buf[4096];
	size_t room = chardev_fe_can_read(&f->c);
	ssize_t n;

	if (!room) {
		fd_update(&f->c);
		return;
	}
	n = read(f->in.fd, buf, MIN(room, sizeof(buf)));
	if (n > 0) {
		chardev_fe_read(&f->c, buf, (size_t)n);
		fd_update(&f->c);
	} else if (!n || (errno != EAGAIN && errno != EINTR)) {
		/* end of input; EIO is a terminal that hung up */
		loop_fd_del(f->c.loop, &f->in);
		f->in.fd = -1;
		chardev_fe_event(&f->c, CHARDEV_CLOSED);
	}
}

static void fd_take_keys(struct chardev *c)
{
	struct fd_chardev *f = container_of(c, struct fd_chardev, c);

	if (f->term)
		(void)!term_raw(f->term, false, false, NULL); /* worked when we were made */
}

static void fd_look_size(struct chardev *c)
{
	struct fd_chardev *f = container_of(c, struct fd_chardev, c);
	struct winsize w;

	if (f->stdio && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w))
		chardev_set_size(c, w.ws_col, w.ws_row);
}

static void fd_free(struct chardev *c)
{
	struct fd_chardev *f = container_of(c, struct fd_chardev, c);

	if (f->in.fd >= 0)
		loop_fd_del(c->loop, &f->in);
	writer_free(f->out);
	bh_cancel(&c->write_bh); /* the writer may have scheduled it while it ended */
	term_restore(f->term);
	for (int i = 0; i < 2; i++)
		if (f->own_fd[i] >= 0)
			close(f->own_fd[i]);
	free(f);
}

static const struct chardev_ops fd_ops = {
	.name = "fd",
	.write = fd_write,
	.update = fd_update,
	.take_keys = fd_take_keys,
	.flush = fd_flush,
	.free = fd_free,
	.look_size = fd_look_size,
};

struct chardev *chardev_fd_new(struct loop *l, const char *id, int in_fd, int out_fd, struct err *e)
{
	struct fd_chardev *f = calloc(1, sizeof(*f));

	if (!f) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	f->own_fd[0] = f->own_fd[1] = -1;
	f->in = (struct loop_fd){ .fn = fd_readable, .opaque = f, .fd = in_fd };
	f->out = writer_new(out_fd, CHARDEV_QUEUE, CHARDEV_HARD_MAX, fd_room, f, e);
	if (!f->out || (in_fd >= 0 && loop_fd_add(l, &f->in, 0, e))) {
		if (f->out)
			writer_free(f->out);
		free(f);
		err_prefix(e, "chardev %s", id);
		return NULL;
	}
	chardev_init(&f->c, &fd_ops, l, id);
	return &f->c;
}

/* A FIFO without a writer is at its end. */
static int fd_open_input(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	return fd < 0 ? err_set(e, errno, "%s: %s", path, strerror(errno)) : fd;
}

struct chardev *chardev_file_new(struct loop *l, const char *id, const char *path, bool append,
				 const char *input, struct err *e)
{
	int in = input ? fd_open_input(input, e) : -1;
	int out = input && in < 0 ? -1 : writer_open(path, append, e);
	struct chardev *c = out < 0 ? NULL : chardev_fd_new(l, id, in, out, e);

	if (out < 0)
		err_prefix(e, "chardev %s", id);
	if (c) {
		container_of(c, struct fd_chardev, c)->own_fd[0] = in;
		container_of(c, struct fd_chardev, c)->own_fd[1] = out;
		return c;
	}
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return NULL;
}

struct chardev *chardev_stdio_new(struct loop *l, const char *id, struct term *term, bool keep_isig,
				  struct err *e)
{
	/* a closed standard input is no input; loop_fd_add would call it an error */
	int in = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
	struct chardev *c = chardev_fd_new(l, id, in, STDOUT_FILENO, e);

	if (!c)
		return NULL;
	container_of(c, struct fd_chardev, c)->stdio = true;
	fd_look_size(c);
	if (!term)
		return c;
	if (term_raw(term, keep_isig, false, e)) {
		chardev_free(c);
		return NULL;
	}
	container_of(c, struct fd_chardev, c)->term = term;
	return c;
}
