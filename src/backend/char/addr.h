/*
 * Addresses of sockets: names resolved to them, listening and connecting.
 *
 * A name look-up may take long: addr_resolve blocks and is for start-up (a server's own address),
 * struct addr_job does the same on a thread of its own, which nobody waits for.
 * Threads: addr_resolve, addr_listen, addr_connect: any. A job: one thread, its loop's.
 */
#pragma once
#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "core/loop.h"

enum { ADDR_MAX = 8 };

/* What was asked for; strings are borrowed. */
struct addr_spec {
	const char *path; /* a unix socket, or ... */
	bool abstract, tight;
	const char *host, *port; /* ... an internet address; NULL or "": any, or localhost */
	bool passive;            /* to bind */
	bool datagram;
	int ipv4, ipv6; /* -1: not said, 0: no, 1: yes */
};

struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

struct addr_list {
	struct addr a[ADDR_MAX];
	unsigned n;
};

/* No name look-up is needed. */
bool addr_is_numeric(const struct addr_spec *s);

/* All addresses of the spec, at most ADDR_MAX; at least one. 0 or -errno. */
int addr_resolve(const struct addr_spec *s, struct addr_list *out, struct err *e) must_check;

/*
 * Listen on one address; to: the last of the ports to try, 0: only the one given. A stale socket in
 * the file system is replaced, one that somebody listens on, or another file, is not. The fd.
 */
int addr_listen(const struct addr *a, unsigned to, bool v6only, struct err *e) must_check;

/* Start to connect, non-blocking; *done: it is complete. The fd, or -errno. */
int addr_connect(const struct addr *a, bool *done, struct err *e) must_check;

/* "127.0.0.1:5555", "[::1]:5555", "/run/socket", "@abstract". */
void addr_text(const struct addr *a, char *buf, size_t cap);

/* A look-up on a thread. */
struct addr_job;

/* done(opaque) is called in the loop once addr_job_result has something. NULL and e on failure. */
struct addr_job *addr_job_new(struct loop *l, const struct addr_spec *s, void (*done)(void *opaque),
			      void *opaque, struct err *e);
/* In or after done: as addr_resolve. */
int addr_job_result(struct addr_job *j, struct addr_list *out, struct err *e) must_check;
/* Also before it is done: then it ends by itself, without calling done. NULL is allowed. */
void addr_job_free(struct addr_job *j);
