/*
 * Addresses of stream and datagram sockets: from options to struct sockaddr. Names are looked up
 * when the program starts, which may block for as long as the resolver does.
 * Threads: before the machine runs.
 */
#pragma once
#include <sys/socket.h>
#include <sys/un.h>

#include "backend/net/opts.h"

struct net_sockaddr {
	union {
		struct sockaddr sa;
		struct sockaddr_storage store;
		struct sockaddr_un un;
		struct sockaddr_in in;
	};
	socklen_t len;
	char text[128]; /* for messages */
};

/* type NET_ADDR_INET or NET_ADDR_UNIX. passive: to listen or bind at, so no host is any. */
int net_resolve(const struct net_addr *a, int socktype, bool passive, struct net_sockaddr *out,
		struct err *e) must_check;

/* "HOST:PORT", "[V6]:PORT", ":PORT" taken apart into a (type inet); what names the option. */
int net_split(const char *what, const char *text, struct net_addr *a, struct err *e) must_check;

/* The number of a descriptor that was handed to us; it must be an open socket of this type. */
int net_given_fd(const char *text, int socktype, int *fd, struct err *e) must_check;

int net_nonblock(int fd);
