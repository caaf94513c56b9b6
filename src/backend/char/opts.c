/* See opts.h. The properties and what they are called are QEMU's [QEMU-MAN -chardev]. */
#include "backend/char/opts.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/nearest.h"

#define K(x)  (1u << CHARDEV_##x)
#define K_ALL (~0u)
#define SOCK  K(SOCKET)

enum opt_type { OPT_STR, OPT_BOOL, OPT_UINT, OPT_SIZE, OPT_ABSENT };

#define O(f) offsetof(struct chardev_opts, f)
static const struct opt {
	const char *name;
	enum opt_type type;
	unsigned kinds;
	size_t off;
	const char *text; /* value for help; OPT_ABSENT: why it is refused */
} opts[] = {
	{ "path", OPT_STR, K(FILE) | K(PIPE) | K(PTY) | K(TTY) | SOCK, O(path), "FILE" },
	{ "append", OPT_BOOL, K(FILE), O(append), "on|off" },
	{ "input-path", OPT_STR, K(FILE), O(input_path), "FILE" },
	{ "signal", OPT_BOOL, K(STDIO), O(signal), "on|off" },
	{ "size", OPT_SIZE, K(RINGBUF), O(size), "BYTES" },
	{ "host", OPT_STR, SOCK | K(UDP), O(host), "NAME" },
	{ "port", OPT_STR, SOCK | K(UDP), O(port), "PORT" },
	{ "to", OPT_UINT, SOCK, O(to), "PORT" },
	{ "localaddr", OPT_STR, K(UDP), O(localaddr), "NAME" },
	{ "localport", OPT_STR, K(UDP), O(localport), "PORT" },
	{ "ipv4", OPT_BOOL, SOCK | K(UDP), O(ipv4), "on|off" },
	{ "ipv6", OPT_BOOL, SOCK | K(UDP), O(ipv6), "on|off" },
	{ "fd", OPT_STR, SOCK, O(fd), "NUMBER" },
	{ "server", OPT_BOOL, SOCK, O(server), "on|off" },
	{ "wait", OPT_BOOL, SOCK, O(wait), "on|off" },
	{ "reconnect", OPT_UINT, SOCK, O(reconnect), "SECONDS" },
	{ "telnet", OPT_BOOL, SOCK, O(telnet), "on|off" },
	{ "nodelay", OPT_BOOL, SOCK, O(nodelay), "on|off" },
	{ "delay", OPT_BOOL, SOCK, O(delay), "on|off" },
	{ "abstract", OPT_BOOL, SOCK, O(abstract), "on|off" },
	{ "tight", OPT_BOOL, SOCK, O(tight), "on|off" },
	{ "mux", OPT_BOOL, K_ALL, O(mux), "on|off" },
	{ "logfile", OPT_STR, K_ALL, O(logfile), "FILE" },
	{ "logappend", OPT_BOOL, K_ALL, O(logappend), "on|off" },
	{ "tn3270", OPT_ABSENT, SOCK, 0, "that is for mainframes" },
	{ "websocket", OPT_ABSENT, SOCK, 0, "plain sockets and telnet are there" },
	{ "tls-creds", OPT_ABSENT, SOCK, 0, "put stunnel or socat before a unix socket" },
	{ "tls-authz", OPT_ABSENT, SOCK, 0, "put stunnel or socat before a unix socket" },
};

static const struct {
	const char *name, *alias;
} kinds[CHARDEV_KINDS] = {
	[CHARDEV_NULL] = { "null", NULL },
	[CHARDEV_STDIO] = { "stdio", NULL },
	[CHARDEV_FILE] = { "file", NULL },
	[CHARDEV_PIPE] = { "pipe", NULL },
	[CHARDEV_PTY] = { "pty", NULL },
	[CHARDEV_TTY] = { "serial", "tty" },
	[CHARDEV_SOCKET] = { "socket", NULL },
	[CHARDEV_UDP] = { "udp", NULL },
	[CHARDEV_RINGBUF] = { "ringbuf", "memory" },
};

static const struct {
	const char *name, *why;
} absent[] = {
	{ "vc", "there is no display for virtual consoles" },
	{ "parallel", "there are no parallel ports" },
	{ "parport", "there are no parallel ports" },
	{ "braille", "only terminals, files, sockets and pipes are there" },
	{ "msmouse", "only terminals, files, sockets and pipes are there" },
	{ "wctablet", "only terminals, files, sockets and pipes are there" },
	{ "testdev", "only terminals, files, sockets and pipes are there" },
	{ "mux", "give mux=on to the chardev itself" },
	{ "hub", "one backend for one chardev" },
	{ "spicevmc", "there is no SPICE" },
	{ "spiceport", "there is no SPICE" },
	{ "qemu-vdagent", "there is no display to share a clipboard with" },
	{ "dbus", "there is no D-Bus display" },
	{ "console", "that is for Windows hosts" },
};

void chardev_opts_init(struct chardev_opts *o, enum chardev_kind kind)
{
	*o = (struct chardev_opts){ .kind = kind, .size = kind == CHARDEV_RINGBUF ? 65536 : 0 };
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (opts[i].type == OPT_BOOL)
			*(int8_t *)((char *)o + opts[i].off) = -1;
}

void chardev_opts_free(struct chardev_opts *o)
{
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (opts[i].type == OPT_STR)
			free(*(char **)((char *)o + opts[i].off));
	chardev_opts_init(o, CHARDEV_NULL);
}

int chardev_kind_find(const char *name, enum chardev_kind *kind, struct err *e)
{
	const char *names[CHARDEV_KINDS];
	char hint[96];

	for (unsigned i = 0; i < CHARDEV_KINDS; i++) {
		names[i] = kinds[i].name;
		*kind = (enum chardev_kind)i;
		if (!strcmp(name, names[i]) || (kinds[i].alias && !strcmp(name, kinds[i].alias)))
			return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++)
		if (!strcmp(name, absent[i].name))
			return err_set(e, ENOTSUP, "the backend '%s' is not supported: %s", name,
				       absent[i].why);
	return err_set(e, EINVAL, "unknown backend '%.100s'%s; -chardev help lists all", name,
		       text_nearest_hint(hint, sizeof(hint), name, names, CHARDEV_KINDS));
}

const char *chardev_kind_name(enum chardev_kind kind)
{
	return kinds[kind].name;
}

static const struct opt *opts_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (!strcmp(opts[i].name, name))
			return &opts[i];
	return NULL;
}

static int opts_bool(const char *name, const char *value, int8_t *v, struct err *e)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true" };

	for (int i = 0; i < 6; i++)
		if (!strcmp(value, words[i])) {
			*v = (int8_t)(i & 1);
			return 0;
		}
	return err_set(e, EINVAL, "%s=%.100s: on or off is needed", name, value);
}

static int opts_number(const struct opt *p, const char *value, uint64_t max, uint64_t *v,
		       struct err *e)
{
	static const char unit[] = "BKMG";
	unsigned long long n;
	const char *u;
	char *end;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)*value) || errno)
		goto bad;
	u = *end && p->type == OPT_SIZE ? strchr(unit, toupper((unsigned char)*end)) : NULL;
	if (u && !end[1] && n <= max >> 10 * (u - unit))
		n <<= 10 * (u - unit);
	else if (*end)
		goto bad;
	if (n > max)
		goto bad;
	*v = n;
	return 0;
bad:
	return err_set(e, EINVAL, "%s=%.100s: a number up to %llu is needed", p->name, value,
		       (unsigned long long)max);
}

static int opts_value(struct chardev_opts *o, const struct opt *p, const char *value, struct err *e)
{
	char *at = (char *)o + p->off, *copy;
	uint64_t n = 0;
	int8_t off = 1;
	int r;

	switch (p->type) {
	case OPT_BOOL: return opts_bool(p->name, value, (int8_t *)at, e);
	case OPT_UINT:
		r = opts_number(p, value, !strcmp(p->name, "to") ? 65535 : 86400, &n, e);
		*(unsigned *)at = r ? *(unsigned *)at : (unsigned)n;
		return r;
	case OPT_SIZE:
		r = opts_number(p, value, 1u << 30, &n, e);
		*(uint64_t *)at = r ? *(uint64_t *)at : n;
		return r;
	case OPT_STR:
		copy = strdup(value);
		if (!copy)
			return err_set(e, ENOMEM, "out of memory");
		free(*(char **)at);
		*(char **)at = copy;
		return 0;
	case OPT_ABSENT: break;
	}
	if (!opts_bool(p->name, value, &off, NULL) && !off)
		return 0; /* tn3270=off is what there is */
	return err_set(e, ENOTSUP, "%s is not supported: %s", p->name, p->text);
}

int chardev_opts_set(struct chardev_opts *o, const char *name, const char *value, struct err *e)
{
	const struct opt *p = opts_find(name);
	const char *names[ARRAY_SIZE(opts)] = { 0 };
	char hint[96];

	if (!p && !strncmp(name, "no", 2) && !strcmp(value, "on")) {
		p = opts_find(name + 2); /* the old way to say off: "nowait" */
		if (p && p->type == OPT_BOOL)
			value = "off";
		else
			p = NULL;
	}
	if (p && p->kinds & 1u << o->kind)
		return opts_value(o, p, value, e);
	if (p)
		return err_set(e, EINVAL, "the backend %s has no property '%s'",
			       kinds[o->kind].name, name);
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (opts[i].kinds & 1u << o->kind)
			names[i] = opts[i].name;
	return err_set(e, EINVAL, "unknown property '%.100s'%s", name,
		       text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
}

static int opts_check_socket(const struct chardev_opts *o, struct err *e)
{
	bool tcp = o->host || o->port;

	if (!!o->path + tcp + !!o->fd != 1)
		return err_set(e, EINVAL,
			       "a socket has path=FILE, or host= and port=, or fd=NUMBER%s",
			       o->path || tcp || o->fd ? ": one of them" : "");
	if (tcp && (!o->port || !*o->port))
		return err_set(e, EINVAL, "a port is needed: port=PORT");
	if (o->path && (!*o->path || (o->abstract <= 0 && strlen(o->path) > 107)))
		return err_set(e, EINVAL, "path=: the path of a socket has 1 to 107 characters");
	if (!tcp && (o->to || o->ipv4 >= 0 || o->ipv6 >= 0 || o->nodelay > 0))
		return err_set(e, EINVAL, "to=, ipv4=, ipv6= and nodelay= are for host= and port=");
	if (!o->path && (o->abstract >= 0 || o->tight >= 0))
		return err_set(e, EINVAL, "abstract= and tight= are for path=");
	if (o->ipv4 == 0 && o->ipv6 == 0)
		return err_set(e, EINVAL, "ipv4=off,ipv6=off leaves no addresses");
	if (o->server > 0 && o->reconnect)
		return err_set(e, EINVAL, "reconnect= is for clients, not with server=on");
	if (o->fd && o->reconnect)
		return err_set(e, EINVAL, "reconnect= does not go with fd=");
	if (o->server <= 0 && o->wait >= 0)
		return err_set(e, EINVAL, "wait= is for servers: it needs server=on");
	if (o->server <= 0 && o->to)
		return err_set(e, EINVAL, "to= is for servers: it needs server=on");
	return 0;
}

int chardev_opts_check(const struct chardev_opts *o, struct err *e)
{
	if (o->logappend >= 0 && !o->logfile)
		return err_set(e, EINVAL, "logappend= needs logfile=FILE");
	switch (o->kind) {
	case CHARDEV_FILE:
	case CHARDEV_PIPE:
	case CHARDEV_TTY:
		if (!o->path || !*o->path)
			return err_set(e, EINVAL, "%s needs path=FILE", kinds[o->kind].name);
		return 0;
	case CHARDEV_SOCKET: return opts_check_socket(o, e);
	case CHARDEV_UDP:
		if (!o->port || !*o->port)
			return err_set(e, EINVAL, "udp needs port=PORT, where to send to");
		return 0;
	case CHARDEV_RINGBUF:
		if (!o->size || o->size & (o->size - 1))
			return err_set(e, EINVAL, "size=%llu: a power of two is needed",
				       (unsigned long long)o->size);
		return 0;
	default: return 0;
	}
}

void chardev_opts_help(FILE *out)
{
	for (unsigned k = 0; k < CHARDEV_KINDS; k++) {
		fprintf(out, "%s\n", kinds[k].name);
		for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
			if (opts[i].kinds & 1u << k && opts[i].kinds != K_ALL &&
			    opts[i].type != OPT_ABSENT)
				fprintf(out, "    %s=%s\n", opts[i].name, opts[i].text);
	}
	fprintf(out, "all of them\n    id=NAME\n");
	for (unsigned i = 0; i < ARRAY_SIZE(opts); i++)
		if (opts[i].kinds == K_ALL)
			fprintf(out, "    %s=%s\n", opts[i].name, opts[i].text);
}
