/*
 * The short texts of -serial and its like [QEMU-MAN -serial]; see opts.h.
 *
 * "tcp:", "telnet:" and "unix:" take properties after a comma (",," is one in a path); after
 * "file:", "pipe:" and "pty:" all the rest is a path.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char/opts.h"
#include "base/bits.h"
#include "core/nearest.h"

/* The next element of a comma list, in place: ",," becomes a comma. *s moves behind it. */
static char *text_element(char **s)
{
	char *start = *s, *from = *s, *to = *s;

	while (*from && (*from != ',' || from[1] == ',')) {
		from += *from == ',';
		*to++ = *from++;
	}
	*s = from + (*from == ',');
	*to = 0;
	return start;
}

/* Properties after the first element. */
static int text_props(struct chardev_opts *o, char *s, struct err *e)
{
	int r = 0;

	while (*s && !r) {
		char *key = text_element(&s), *eq = strchr(key, '=');

		if (eq)
			*eq = 0;
		r = chardev_opts_set(o, key, eq ? eq + 1 : "on", e);
	}
	return r;
}

/* "host:port", "[v6]:port", ":port"; the host may be empty. */
static int text_host_port(struct chardev_opts *o, char *s, const char *host, const char *port,
			  struct err *e)
{
	char *colon = *s == '[' ? strchr(s, ']') : strrchr(s, ':');
	int r;

	if (colon && *s == '[') {
		*colon++ = 0;
		s++;
		if (*colon != ':')
			colon = NULL;
	}
	if (!colon || !colon[1])
		return err_set(e, EINVAL, "HOST:PORT is needed");
	*colon = 0;
	r = chardev_opts_set(o, port, colon + 1, e);
	return r ? r : chardev_opts_set(o, host, s, e);
}

static int text_socket(struct chardev_opts *o, char *s, bool unix_path, struct err *e)
{
	char *first = text_element(&s);
	int r = unix_path ? chardev_opts_set(o, "path", first, e)
			  : text_host_port(o, first, "host", "port", e);

	return r ? r : text_props(o, s, e);
}

/* "[host]:port[@[addr]:port]" */
static int text_udp(struct chardev_opts *o, char *s, struct err *e)
{
	char *at = strchr(s, '@');
	int r;

	if (at)
		*at++ = 0;
	r = text_host_port(o, s, "host", "port", e);
	return r || !at ? r : text_host_port(o, at, "localaddr", "localport", e);
}

static const struct {
	const char *prefix;
	enum chardev_kind kind;
} forms[] = {
	{ "file:", CHARDEV_FILE },  { "pipe:", CHARDEV_PIPE },     { "pty:", CHARDEV_PTY },
	{ "tcp:", CHARDEV_SOCKET }, { "telnet:", CHARDEV_SOCKET }, { "unix:", CHARDEV_SOCKET },
	{ "udp:", CHARDEV_UDP },    { "/dev/", CHARDEV_TTY },      { "null", CHARDEV_NULL },
	{ "stdio", CHARDEV_STDIO }, { "pty", CHARDEV_PTY },        { "ringbuf", CHARDEV_RINGBUF },
};

static const struct {
	const char *prefix, *why;
} absent[] = {
	{ "vc", "there is no display for virtual consoles" },
	{ "/dev/parport", "there are no parallel ports" },
	{ "/dev/ppi", "there are no parallel ports" },
	{ "tn3270:", "that is for mainframes" },
	{ "websocket:", "plain sockets and telnet are there" },
	{ "con:", "that is for Windows hosts" },
	{ "COM", "that is for Windows hosts" },
	{ "msmouse", "only terminals, files, sockets and pipes are there" },
	{ "wctablet", "only terminals, files, sockets and pipes are there" },
	{ "braille", "only terminals, files, sockets and pipes are there" },
	{ "testdev", "only terminals, files, sockets and pipes are there" },
};

static int text_rest(struct chardev_opts *o, const char *form, char *rest, struct err *e)
{
	switch (o->kind) {
	case CHARDEV_FILE:
	case CHARDEV_PIPE:
		if (!*rest)
			return err_set(e, EINVAL, "a path is needed: %sPATH", form);
		return chardev_opts_set(o, "path", rest, e);
	case CHARDEV_PTY: return *rest ? chardev_opts_set(o, "path", rest, e) : 0;
	case CHARDEV_UDP: return text_udp(o, rest, e);
	case CHARDEV_SOCKET:
		o->telnet = !strcmp(form, "telnet:") ? 1 : -1;
		return text_socket(o, rest, !strcmp(form, "unix:"), e);
	default: return 0;
	}
}

int chardev_opts_text(struct chardev_opts *o, const char *text, struct err *e)
{
	static const char *const names[] = { "stdio",     "null", "none",  "file:PATH",
					     "pipe:PATH", "pty",  "tcp:",  "telnet:",
					     "unix:",     "udp:", "/dev/", "mon:stdio",
					     "ringbuf" };
	bool mux = !strncmp(text, "mon:", 4);
	const char *s = mux ? text + 4 : text;
	unsigned i;
	char hint[96], *copy;
	int r;

	chardev_opts_init(o, CHARDEV_NULL);
	for (i = 0; i < ARRAY_SIZE(absent); i++)
		if (!strncmp(s, absent[i].prefix, strlen(absent[i].prefix)))
			return err_set(e, ENOTSUP, "'%.100s' is not supported: %s", text,
				       absent[i].why);
	for (i = 0; i < ARRAY_SIZE(forms); i++) {
		size_t n = strlen(forms[i].prefix);
		bool open_end = forms[i].prefix[n - 1] == ':' || forms[i].kind == CHARDEV_TTY;

		if (!strncmp(s, forms[i].prefix, n) && (open_end || !s[n]))
			break;
	}
	if (i == ARRAY_SIZE(forms))
		return err_set(
			e, EINVAL,
			"unknown backend '%.100s'%s; stdio, null, none, file:PATH, pipe:PATH, pty, "
			"tcp:, telnet:, unix:, udp:, /dev/TTY and chardev:ID exist, mon: before "
			"them adds the C-a keys",
			text, text_nearest_hint(hint, sizeof(hint), s, names, ARRAY_SIZE(names)));
	chardev_opts_init(o, forms[i].kind);
	copy = strdup(s);
	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	if (mux)
		o->mux = 1;
	r = o->kind == CHARDEV_TTY
		    ? chardev_opts_set(o, "path", copy, e)
		    : text_rest(o, forms[i].prefix, copy + strlen(forms[i].prefix), e);
	free(copy);
	if (!r)
		r = chardev_opts_check(o, e);
	if (r)
		chardev_opts_free(o);
	return r;
}
