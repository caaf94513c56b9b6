/*
 * What a user asks of a chardev: a kind and its properties, from "-chardev KIND,NAME=VALUE..." or
 * from the short text of -serial and its like ("tcp:HOST:PORT,server=on", "mon:stdio").
 *
 * One table (opts.c) says which kind has which property; what QEMU has and this program does not
 * is refused with the reason.
 * Threads: the struct belongs to its owner.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum chardev_kind {
	CHARDEV_NULL,
	CHARDEV_STDIO,
	CHARDEV_FILE,
	CHARDEV_PIPE,
	CHARDEV_PTY,
	CHARDEV_TTY,
	CHARDEV_SOCKET,
	CHARDEV_UDP,
	CHARDEV_RINGBUF,
	CHARDEV_KINDS
};

struct chardev_opts {
	enum chardev_kind kind;
	/* strings: owned, NULL when not given */
	char *path, *input_path, *host, *port, *localaddr, *localport, *fd, *logfile;
	uint64_t size;
	unsigned to;                           /* last port to try; 0: none but the first */
	unsigned reconnect;                    /* seconds; 0: never */
	int8_t mux, signal, append, logappend; /* -1: not given, 0: off, 1: on */
	int8_t server, wait, telnet, nodelay, delay, abstract, tight, ipv4, ipv6;
};

/* Nothing given. */
void chardev_opts_init(struct chardev_opts *o, enum chardev_kind kind);
void chardev_opts_free(struct chardev_opts *o);

/* The kind of this name (QEMU's, with its aliases). -ENOTSUP for those that QEMU alone has. */
int chardev_kind_find(const char *name, enum chardev_kind *kind, struct err *e) must_check;
const char *chardev_kind_name(enum chardev_kind kind);

/* One property; value "on" also for a switch without a value. "nowait" and so on are wait=off. */
int chardev_opts_set(struct chardev_opts *o, const char *name, const char *value,
		     struct err *e) must_check;

/* All that was given fits together, and nothing needed is missing. */
int chardev_opts_check(const struct chardev_opts *o, struct err *e) must_check;

/* All of it from a short text. On failure there is nothing to free. */
int chardev_opts_text(struct chardev_opts *o, const char *text, struct err *e) must_check;

/* What -chardev help prints. */
void chardev_opts_help(FILE *out);
