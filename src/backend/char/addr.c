/* See addr.h. */
#include "backend/char/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/thread.h"

static struct addrinfo addr_hints(const struct addr_spec *s)
{
	struct addrinfo h = { .ai_socktype = s->datagram ? SOCK_DGRAM : SOCK_STREAM };

	h.ai_flags = s->passive ? AI_PASSIVE : 0;
	/* one of the two said to be on leaves out the other, unless that is on as well */
	if (s->ipv6 == 0 || (s->ipv4 > 0 && s->ipv6 <= 0))
		h.ai_family = AF_INET;
	else if (s->ipv4 == 0 || (s->ipv6 > 0 && s->ipv4 <= 0))
		h.ai_family = AF_INET6;
	else
		h.ai_family = AF_UNSPEC;
	return h;
}

static const char *addr_node(const struct addr_spec *s)
{
	return s->host && *s->host ? s->host : s->passive ? NULL : "localhost";
}

bool addr_is_numeric(const struct addr_spec *s)
{
	struct addrinfo h = addr_hints(s), *res;

	if (s->path || !addr_node(s))
		return true;
	h.ai_flags |= AI_NUMERICHOST;
	if (getaddrinfo(addr_node(s), NULL, &h, &res))
		return false;
	freeaddrinfo(res);
	return true;
}

static int addr_unix(const struct addr_spec *s, struct addr *a, struct err *e)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&a->ss;
	size_t n = strlen(s->path), at = s->abstract;

	memset(&a->ss, 0, sizeof(a->ss));
	un->sun_family = AF_UNIX;
	if (n + 1 > sizeof(un->sun_path))
		return err_set(e, ENAMETOOLONG,
			       "%.60s...: the path of a socket has up to %zu "
			       "characters",
			       s->path, sizeof(un->sun_path) - 1);
	memcpy(un->sun_path + at, s->path, n);
	/* tight: the name of an abstract socket ends where the text does [unix(7)] */
	a->len =
		(socklen_t)(s->abstract && s->tight ? offsetof(struct sockaddr_un, sun_path) + 1 + n
						    : sizeof(*un));
	return 0;
}

int addr_resolve(const struct addr_spec *s, struct addr_list *out, struct err *e)
{
	struct addrinfo h = addr_hints(s), *res;
	int r;

	out->n = 1;
	if (s->path)
		return addr_unix(s, &out->a[0], e);
	r = getaddrinfo(addr_node(s), s->port, &h, &res);
	if (r)
		return err_set(e, EADDRNOTAVAIL, "%s:%s: %s", s->host ? s->host : "", s->port,
			       r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	out->n = 0;
	for (struct addrinfo *ai = res; ai && out->n < ADDR_MAX; ai = ai->ai_next) {
		struct addr *a = &out->a[out->n++];

		memset(a, 0, sizeof(*a));
		memcpy(&a->ss, ai->ai_addr, ai->ai_addrlen);
		a->len = ai->ai_addrlen;
	}
	freeaddrinfo(res);
	return out->n ? 0 : err_set(e, EADDRNOTAVAIL, "%s: no address", s->host);
}

void addr_text(const struct addr *a, char *buf, size_t cap)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
	char host[80], port[16];

	if (a->ss.ss_family == AF_UNIX && !un->sun_path[0])
		snprintf(buf, cap, "@%.107s", un->sun_path + 1);
	else if (a->ss.ss_family == AF_UNIX)
		snprintf(buf, cap, "%.108s", un->sun_path);
	else if (getnameinfo((const struct sockaddr *)&a->ss, a->len, host, sizeof(host), port,
			     sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(buf, cap, "?");
	else
		snprintf(buf, cap, a->ss.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/*
 * A socket file that nobody is bound to is left over from a process that was killed. The question
 * is put with a socket of another type: connecting one to a live socket fails with EPROTOTYPE, and
 * its owner does not notice.
 */
static int addr_clear_path(const struct addr *a, struct err *e)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&a->ss;
	struct stat st;
	int fd, r = 0;

	if (!un->sun_path[0] || lstat(un->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is no socket", un->sun_path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, errno, "socket: %s", strerror(errno));
	if (!connect(fd, (const struct sockaddr *)&a->ss, a->len) || errno != ECONNREFUSED)
		r = err_set(e, EADDRINUSE, "%s: another process listens there", un->sun_path);
	else if (unlink(un->sun_path) && errno != ENOENT)
		r = err_set(e, errno, "%s: %s", un->sun_path, strerror(errno));
	close(fd);
	return r;
}

static in_port_t *addr_port(struct addr *a)
{
	return a->ss.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&a->ss)->sin6_port
					   : &((struct sockaddr_in *)&a->ss)->sin_port;
}

int addr_listen(const struct addr *where, unsigned to, bool v6only, struct err *e)
{
	struct addr a = *where;
	bool inet = a.ss.ss_family != AF_UNIX;
	int one = 1, fd, r, code;
	char text[128];

	if (!inet && (r = addr_clear_path(&a, e)) < 0)
		return r;
	for (;;) {
		fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return err_set(e, errno, "socket: %s", strerror(errno));
		if (inet)
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a.ss.ss_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ v6only }, sizeof(int));
		if (!bind(fd, (struct sockaddr *)&a.ss, a.len) && !listen(fd, 8))
			return fd;
		code = errno;
		close(fd);
		if (!inet || code != EADDRINUSE || ntohs(*addr_port(&a)) >= to)
			break;
		*addr_port(&a) = htons((uint16_t)(ntohs(*addr_port(&a)) + 1));
	}
	addr_text(where, text, sizeof(text));
	return err_set(e, code, "%s: %s", text, strerror(code));
}

int addr_connect(const struct addr *a, bool *done, struct err *e)
{
	int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), code;
	char text[128];

	if (fd < 0)
		return err_set(e, errno, "socket: %s", strerror(errno));
	*done = !connect(fd, (const struct sockaddr *)&a->ss, a->len);
	if (*done || errno == EINPROGRESS)
		return fd;
	code = errno;
	close(fd);
	addr_text(a, text, sizeof(text));
	return err_set(e, code, "%s: %s", text, strerror(code));
}

/*
 * The job has two owners, its user and its thread. The mutex also keeps the loop alive while the
 * thread schedules: a job whose user is gone does not touch it.
 */
struct addr_job {
	pthread_mutex_t mutex;
	bool finished, abandoned;
	struct bh bh;
	struct addr_spec spec;
	char host[256], port[32];
	struct addr_list list;
	struct err err;
	int result;
};

static void addr_job_destroy(struct addr_job *j)
{
	pthread_mutex_destroy(&j->mutex);
	free(j);
}

static void *addr_job_thread(void *opaque)
{
	struct addr_job *j = opaque;
	bool abandoned;

	j->result = addr_resolve(&j->spec, &j->list, &j->err);
	pthread_mutex_lock(&j->mutex);
	j->finished = true;
	abandoned = j->abandoned;
	if (!abandoned)
		bh_schedule(&j->bh);
	pthread_mutex_unlock(&j->mutex);
	if (abandoned)
		addr_job_destroy(j);
	return NULL;
}

struct addr_job *addr_job_new(struct loop *l, const struct addr_spec *s, void (*done)(void *opaque),
			      void *opaque, struct err *e)
{
	struct addr_job *j = calloc(1, sizeof(*j));
	pthread_t t = 0;
	int r = ENOMEM;

	if (j) {
		pthread_mutex_init(&j->mutex, NULL);
		bh_init(&j->bh, l, done, opaque);
		j->spec = *s;
		snprintf(j->host, sizeof(j->host), "%s", s->host ? s->host : "");
		snprintf(j->port, sizeof(j->port), "%s", s->port);
		j->spec.host = j->host;
		j->spec.port = j->port;
		r = thread_start(&t, addr_job_thread, j);
	}
	if (!r) {
		pthread_detach(t);
		return j;
	}
	err_set(e, r, "name look-up: %s", strerror(r));
	if (j)
		addr_job_destroy(j);
	return NULL;
}

int addr_job_result(struct addr_job *j, struct addr_list *out, struct err *e)
{
	*out = j->list;
	if (j->result)
		return err_set(e, j->err.code, "%s", j->err.msg);
	return 0;
}

void addr_job_free(struct addr_job *j)
{
	bool finished;

	if (!j)
		return;
	pthread_mutex_lock(&j->mutex);
	finished = j->finished;
	j->abandoned = true;
	pthread_mutex_unlock(&j->mutex);
	if (!finished)
		return; /* the thread's now */
	bh_cancel(&j->bh);
	addr_job_destroy(j);
}
