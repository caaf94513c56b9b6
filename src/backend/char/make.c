/* A chardev from its options: the backend, its log, and a mux over it if asked for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/chardev.h"
#include "backend/char/opts.h"
#include "base/bits.h"

static struct chardev *make_backend(struct loop *l, const char *id, const struct chardev_opts *o,
				    struct term *term, struct err *e)
{
	switch (o->kind) {
	case CHARDEV_NULL: return chardev_null_new(l, id);
	case CHARDEV_STDIO: return chardev_stdio_new(l, id, term, o->signal != 0, e);
	case CHARDEV_FILE: return chardev_file_new(l, id, o->path, o->append > 0, o->input_path, e);
	case CHARDEV_PIPE: return chardev_pipe_new(l, id, o->path, e);
	case CHARDEV_PTY: return chardev_pty_new(l, id, o->path, e);
	case CHARDEV_TTY: return chardev_tty_new(l, id, o->path, e);
	case CHARDEV_SOCKET: return chardev_socket_new(l, id, o, e);
	case CHARDEV_UDP: return chardev_udp_new(l, id, o, e);
	case CHARDEV_RINGBUF: return chardev_ringbuf_new(l, id, o->size, e);
	case CHARDEV_KINDS: break;
	}
	err_set(e, EINVAL, "chardev %s: unknown backend", id);
	return NULL;
}

struct chardev *chardev_make(struct loop *l, const char *id, const struct chardev_opts *o,
			     struct term *term, const struct chardev_mux_keys *keys, struct err *e)
{
	static const struct chardev_mux_keys no_keys;
	char below[80];
	struct chardev *c, *top;

	if (chardev_opts_check(o, e))
		return NULL;
	snprintf(below, sizeof(below), o->mux > 0 ? "%.60s-base" : "%.70s", id);
	c = make_backend(l, o->mux > 0 ? below : id, o, term, e);
	if (c && o->logfile && chardev_log_to(c, o->logfile, o->logappend > 0, e))
		goto fail;
	if (!c || o->mux <= 0)
		return c;
	top = chardev_mux_new(l, id, c, keys ? keys : &no_keys, e);
	if (top)
		return top;
fail:
	chardev_free(c);
	return NULL;
}
