/* See sockaddr.h. */
#include "backend/net/sockaddr.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

static int net_resolve_unix(const struct net_addr *a, struct net_sockaddr *out, struct err *e)
{
	size_t n = strlen(a->path);

	if (n + 1 > sizeof(out->un.sun_path))
		return err_set(e, ENAMETOOLONG, "%s: a socket's path has at most %zu letters",
			       a->path, sizeof(out->un.sun_path) - 1);
	out->un.sun_family = AF_UNIX;
	memcpy(out->un.sun_path + a->abstract, a->path, n);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	snprintf(out->text, sizeof(out->text), "%s", a->path);
	return 0;
}

int net_resolve(const struct net_addr *a, int socktype, bool passive, struct net_sockaddr *out,
		struct err *e)
{
	struct addrinfo hints = { .ai_socktype = socktype, .ai_flags = passive ? AI_PASSIVE : 0 };
	struct addrinfo *res;
	const char *host = a->host && *a->host ? a->host : NULL;
	int r;

	memset(out, 0, sizeof(*out));
	if (a->type == NET_ADDR_UNIX)
		return net_resolve_unix(a, out, e);
	hints.ai_family = a->ipv4 && a->ipv6 ? AF_UNSPEC : a->ipv4 ? AF_INET : AF_INET6;
	if (!host && passive && hints.ai_family == AF_UNSPEC)
		hints.ai_family = AF_INET;
	snprintf(out->text, sizeof(out->text), "%.80s:%.16s", host ? host : "",
		 a->port ? a->port : "0");
	r = getaddrinfo(host, a->port ? a->port : "0", &hints, &res);
	if (r)
		return err_set(e, EADDRNOTAVAIL, "%s: %s", out->text,
			       r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	memcpy(&out->store, res->ai_addr, MIN((size_t)res->ai_addrlen, sizeof(out->store)));
	out->len = res->ai_addrlen;
	freeaddrinfo(res);
	return 0;
}

int net_split(const char *what, const char *text, struct net_addr *a, struct err *e)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;

	*a = (struct net_addr){ .type = NET_ADDR_INET, .ipv4 = true, .ipv6 = true };
	if (!colon || !colon[1])
		return err_set(e, EINVAL, "%s=%s: it looks like HOST:PORT", what, text);
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	a->host = strndup(text, n);
	a->port = strdup(colon + 1);
	return a->host && a->port ? 0 : err_set(e, ENOMEM, "out of memory");
}

int net_nonblock(int fd)
{
	int fl = fcntl(fd, F_GETFL);

	return fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0 ? -errno : 0;
}

int net_given_fd(const char *text, int socktype, int *fd, struct err *e)
{
	char *end;
	long v = strtol(text, &end, 10);
	int type = 0;
	socklen_t len = sizeof(type);

	if (!*text || *end || v < 0 || v > 1 << 20)
		return err_set(e, EINVAL, "'%s' is no file descriptor's number", text);
	if (getsockopt((int)v, SOL_SOCKET, SO_TYPE, &type, &len))
		return err_set(e, errno, "file descriptor %ld: %s", v, strerror(errno));
	if (socktype && type != socktype)
		return err_set(e, EINVAL, "file descriptor %ld is no %s socket", v,
			       socktype == SOCK_STREAM ? "stream" : "datagram");
	if (net_nonblock((int)v))
		return err_set(e, errno, "file descriptor %ld: %s", v, strerror(errno));
	fcntl((int)v, F_SETFD, FD_CLOEXEC);
	*fd = (int)v;
	return 0;
}
