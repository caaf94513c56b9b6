/* See term.h. tcsetattr is async-signal-safe (POSIX 2.4.3). */
#include "backend/char/term.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void term_init(struct term *t, int fd)
{
	memset(t, 0, sizeof(*t));
	t->fd = isatty(fd) && !tcgetattr(fd, &t->saved) ? fd : -1;
	t->raw = t->saved;
}

int term_raw(struct term *t, bool keep_isig, bool keep_opost, struct err *e)
{
	struct termios raw = t->saved;

	if (t->fd < 0)
		return 0;
	raw.c_iflag &=
		~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	if (!keep_opost)
		raw.c_oflag &= ~(tcflag_t)OPOST;
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
	if (!keep_isig)
		raw.c_lflag &= ~(tcflag_t)ISIG;
	raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	t->raw = raw;
	/* before the change: a signal in between restores once too often, which is harmless */
	t->is_raw = t->wanted = 1;
	if (tcsetattr(t->fd, TCSANOW, &raw)) {
		t->is_raw = t->wanted = 0;
		return err_set(e, errno, "terminal: %s", strerror(errno));
	}
	return 0;
}

void term_restore(struct term *t)
{
	int saved_errno = errno;

	if (t && t->is_raw && t->fd >= 0)
		tcsetattr(t->fd, TCSANOW, &t->saved);
	if (t)
		t->is_raw = 0;
	errno = saved_errno;
}

void term_again(struct term *t)
{
	int saved_errno = errno;

	if (t && t->fd >= 0 && t->wanted) {
		t->is_raw = 1;
		tcsetattr(t->fd, TCSANOW, &t->raw);
	}
	errno = saved_errno;
}
