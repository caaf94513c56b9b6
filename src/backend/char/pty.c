/*
 * pty: a terminal of its own for the guest. The user is told its name and opens it with a terminal
 * program; path= puts a symbolic link to it where it is found again.
 *
 * A pty tells that somebody opened its other side only when asked (the master's POLLHUP goes
 * away). The file system tells of each open (inotify), and then it is asked; where there is no
 * inotify, it is asked now and then. Output until then is dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/char/stream.h"
#include "backend/char/tick.h"
#include "base/bits.h"

#define PTY_POLL_MS  200  /* without inotify */
#define PTY_RETRY_MS 1000 /* out of descriptors */

struct pty {
	struct chardev c;
	struct stream s; /* over a copy of master, while the other side is open */
	struct tick tick;
	int master;
	struct loop_fd opens; /* an inotify; fd -1: there is none */
	char name[64];
	char *link; /* owned; NULL: none */
};

/* Has somebody opened it? Then take the line up. */
static bool pty_connect(struct pty *p)
{
	struct pollfd f = { .fd = p->master, .events = POLLIN };
	int fd;

	if (stream_is_open(&p->s))
		return true;
	if (poll(&f, 1, 0) < 0 || f.revents & POLLHUP)
		return false;
	fd = fcntl(p->master, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || stream_open(&p->s, fd, -1, NULL)) {
		if (fd >= 0)
			close(fd);
		tick_arm(&p->tick, PTY_RETRY_MS); /* no inotify tells when there is one again */
		return false;
	}
	chardev_fe_event(&p->c, CHARDEV_OPENED);
	return true;
}

static void pty_opened(void *opaque, unsigned ready)
{
	struct pty *p = opaque;
	char buf[4096];

	while (read(p->opens.fd, buf, sizeof(buf)) > 0) {
	}
	pty_connect(p);
}

static void pty_watch(struct pty *p)
{
	p->opens = (struct loop_fd){ .fn = pty_opened, .opaque = p, .slot = -1 };
	p->opens.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (p->opens.fd < 0)
		return;
	if (inotify_add_watch(p->opens.fd, p->name, IN_OPEN) >= 0 &&
	    !loop_fd_add(p->c.loop, &p->opens, LOOP_IN, NULL))
		return;
	close(p->opens.fd);
	p->opens.fd = -1;
}

static void pty_tick(void *opaque)
{
	struct pty *p = opaque;

	if (!pty_connect(p) && p->opens.fd < 0)
		tick_arm(&p->tick, PTY_POLL_MS);
}

static void pty_gone(struct stream *s)
{
	struct pty *p = container_of(s, struct pty, s);

	stream_close(s);
	chardev_fe_event(&p->c, CHARDEV_CLOSED);
	/* somebody else may have opened it before this one left */
	tick_arm(&p->tick, p->opens.fd < 0 ? PTY_POLL_MS : 0);
}

static const struct stream_ops pty_stream = { .gone = pty_gone };

static size_t pty_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	struct pty *p = container_of(c, struct pty, c);

	return stream_write(&p->s, buf, len, force);
}

static void pty_update(struct chardev *c)
{
	stream_update(&container_of(c, struct pty, c)->s);
}

static void pty_flush(struct chardev *c)
{
	stream_flush(&container_of(c, struct pty, c)->s);
}

static void pty_describe(struct chardev *c, char *buf, size_t cap)
{
	snprintf(buf, cap, "%spty:%s",
		 c->open ? "" : "disconnected:", container_of(c, struct pty, c)->name);
}

static void pty_unlink(struct pty *p)
{
	char target[64];
	ssize_t n = p->link ? readlink(p->link, target, sizeof(target)) : -1;

	if (n == (ssize_t)strlen(p->name) && !memcmp(target, p->name, (size_t)n))
		unlink(p->link); /* still ours */
	free(p->link);
}

static void pty_free(struct chardev *c)
{
	struct pty *p = container_of(c, struct pty, c);

	stream_flush(&p->s);
	stream_close(&p->s);
	bh_cancel(&c->write_bh);
	tick_free(&p->tick);
	if (p->opens.fd >= 0) {
		loop_fd_del(c->loop, &p->opens);
		close(p->opens.fd);
	}
	close(p->master);
	pty_unlink(p);
	free(p);
}

static const struct chardev_ops pty_ops = {
	.name = "pty",
	.write = pty_write,
	.update = pty_update,
	.flush = pty_flush,
	.free = pty_free,
	.describe = pty_describe,
};

/* A raw terminal from the start: without echo what the guest prints would come back as input. */
static int pty_make(struct pty *p, const char *link, struct err *e)
{
	struct termios t;
	int slave;

	p->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (p->master < 0 || grantpt(p->master) || unlockpt(p->master) ||
	    ptsname_r(p->master, p->name, sizeof(p->name)))
		return err_set(e, errno, "no pseudo-terminal: %s", strerror(errno));
	slave = open(p->name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &t))
		return err_set(e, errno, "%s: %s", p->name, strerror(errno));
	cfmakeraw(&t);
	tcsetattr(slave, TCSAFLUSH, &t);
	close(slave);
	if (!link)
		return 0;
	if (symlink(p->name, link))
		return err_set(e, errno, "path=%s: %s", link, strerror(errno));
	p->link = strdup(link);
	return p->link ? 0 : err_set(e, ENOMEM, "out of memory");
}

struct chardev *chardev_pty_new(struct loop *l, const char *id, const char *link, struct err *e)
{
	struct pty *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	if (pty_make(p, link, e)) {
		err_prefix(e, "chardev %s", id);
		if (p->master >= 0)
			close(p->master);
		free(p);
		return NULL;
	}
	chardev_init(&p->c, &pty_ops, l, id);
	stream_init(&p->s, &p->c, &pty_stream);
	tick_init(&p->tick, l, pty_tick, p);
	p->c.open = false;
	pty_watch(p);
	/* also to have its descriptor now */
	tick_arm(&p->tick, p->opens.fd < 0 ? PTY_POLL_MS : 0);
	if (asprintf(&p->c.notice, "char device redirected to %s (label %s)", p->name, id) < 0)
		p->c.notice = NULL;
	return &p->c;
}
