/*
 * serial: a real serial line, or any other terminal of the host. It is set to raw; speed and frame
 * follow what the guest sets its UART to, and a break is passed on. Modem lines are not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "backend/char/chardev.h"
#include "backend/char/stream.h"
#include "base/bits.h"

struct tty {
	struct chardev c;
	struct stream s;
	struct termios saved;
	char *path;
};

static void tty_gone(struct stream *s)
{
	stream_close(s);
	chardev_fe_event(s->c, CHARDEV_CLOSED);
}

static const struct stream_ops tty_stream = { .gone = tty_gone };

static size_t tty_write(struct chardev *c, const uint8_t *buf, size_t len, bool force)
{
	return stream_write(&container_of(c, struct tty, c)->s, buf, len, force);
}

static void tty_update(struct chardev *c)
{
	stream_update(&container_of(c, struct tty, c)->s);
}

static void tty_flush(struct chardev *c)
{
	stream_flush(&container_of(c, struct tty, c)->s);
}

static void tty_describe(struct chardev *c, char *buf, size_t cap)
{
	snprintf(buf, cap, "serial:%s", container_of(c, struct tty, c)->path);
}

/* The nearest speed termios has a name for. */
static speed_t tty_speed(unsigned speed)
{
	static const struct {
		unsigned bps;
		speed_t code;
	} table[] = { { 50, B50 },        { 75, B75 },       { 110, B110 },     { 134, B134 },
		      { 150, B150 },      { 200, B200 },     { 300, B300 },     { 600, B600 },
		      { 1200, B1200 },    { 1800, B1800 },   { 2400, B2400 },   { 4800, B4800 },
		      { 9600, B9600 },    { 19200, B19200 }, { 38400, B38400 }, { 57600, B57600 },
		      { 115200, B115200 } };
	unsigned i = 0;

	while (i + 1 < ARRAY_SIZE(table) && speed > (table[i].bps + table[i + 1].bps) / 2)
		i++;
	return table[i].code;
}

static void tty_set_line(struct chardev *c, const struct chardev_line *line)
{
	static const tcflag_t size[] = { CS5, CS6, CS7, CS8 };
	struct stream *s = &container_of(c, struct tty, c)->s;
	struct termios t;

	if (!stream_is_open(s) || tcgetattr(s->fd.fd, &t))
		return;
	cfsetspeed(&t, tty_speed(line->speed));
	t.c_cflag &= ~(tcflag_t)(CSIZE | CSTOPB | PARENB | PARODD);
	t.c_cflag |= size[line->bits >= 5 && line->bits <= 8 ? line->bits - 5 : 3];
	t.c_cflag |= line->stop == 2 ? CSTOPB : 0;
	t.c_cflag |= line->parity == 'E' ? PARENB : line->parity == 'O' ? PARENB | PARODD : 0;
	tcsetattr(s->fd.fd, TCSANOW, &t);
}

static void tty_send_break(struct chardev *c, bool on)
{
	struct stream *s = &container_of(c, struct tty, c)->s;

	if (stream_is_open(s))
		ioctl(s->fd.fd, on ? TIOCSBRK : TIOCCBRK);
}

static void tty_free(struct chardev *c)
{
	struct tty *t = container_of(c, struct tty, c);

	stream_flush(&t->s);
	if (stream_is_open(&t->s))
		tcsetattr(t->s.fd.fd, TCSANOW, &t->saved);
	stream_close(&t->s);
	bh_cancel(&c->write_bh);
	free(t->path);
	free(t);
}

static const struct chardev_ops tty_ops = {
	.name = "serial",
	.write = tty_write,
	.update = tty_update,
	.flush = tty_flush,
	.free = tty_free,
	.describe = tty_describe,
	.set_line = tty_set_line,
	.send_break = tty_send_break,
};

static int tty_open(struct tty *t, const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), r;
	struct termios raw;

	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	if (tcgetattr(fd, &t->saved)) {
		r = err_set(e, ENOTTY, "%s is no serial line or other terminal", path);
		close(fd);
		return r;
	}
	raw = t->saved;
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	raw.c_cflag |= CLOCAL | CREAD;
	raw.c_cflag &= ~(tcflag_t)CSTOPB;
	tcsetattr(fd, TCSANOW, &raw);
	r = stream_open(&t->s, fd, -1, e);
	if (r)
		close(fd);
	return r;
}

struct chardev *chardev_tty_new(struct loop *l, const char *id, const char *path, struct err *e)
{
	struct tty *t = calloc(1, sizeof(*t));

	if (!t || !(t->path = strdup(path))) {
		free(t);
		err_set(e, ENOMEM, "chardev %s: out of memory", id);
		return NULL;
	}
	chardev_init(&t->c, &tty_ops, l, id);
	stream_init(&t->s, &t->c, &tty_stream);
	if (!tty_open(t, path, e))
		return &t->c;
	err_prefix(e, "chardev %s", id);
	chardev_free(&t->c);
	return NULL;
}
