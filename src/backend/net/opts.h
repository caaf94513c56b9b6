/*
 * What the user asked of a netdev: keys and values of -netdev and -nic, checked and kept.
 *
 * Everything that can be said without touching the host is decided here, so a wrong value is
 * refused with a line that names it; what needs the host (a port that is taken, a missing tap) is
 * the business of netdev_new.
 * Threads: the struct belongs to its owner. Hostile: no, but every text is checked.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "core/loop.h"

enum { NET_FWDS = 32, NET_FDS = 16, NET_SEARCHES = 16 };

enum netdev_kind {
	NETDEV_USER,
	NETDEV_TAP,
	NETDEV_STREAM,
	NETDEV_DGRAM,
	NETDEV_SOCKET,
	NETDEV_KINDS
};

enum net_addr_type { NET_ADDR_NONE, NET_ADDR_INET, NET_ADDR_UNIX, NET_ADDR_FD };

struct net_addr {
	enum net_addr_type type;
	char *type_text, *host, *port, *path, *fd; /* as given */
	bool ipv4, ipv6, abstract;
};

struct net_hostfwd {
	bool udp;
	struct in_addr host, guest; /* 0: any; the guest that DHCP gives the first address */
	uint16_t host_port, guest_port;
};

struct net_guestfwd {
	struct in_addr addr; /* 0: the default, .4 */
	uint16_t port;
	char *to; /* "cmd:COMMAND", or a chardev as -serial takes it */
};

struct netdev_opts {
	enum netdev_kind kind;
	char *id;

	/* user */
	bool isolated; /* restrict=on */
	bool ipv4, ipv6;
	struct in_addr net, mask, host, dhcpstart, dns; /* network order; 0: default */
	struct in6_addr net6, host6, dns6;
	bool net6_set, host6_set, dns6_set;
	unsigned prefix6;
	char *hostname, *domainname, *tftp, *tftp_server_name, *bootfile;
	char *dnssearch[NET_SEARCHES + 1]; /* NULL at the end */
	unsigned ndnssearch;
	struct net_hostfwd hostfwd[NET_FWDS];
	unsigned nhostfwd;
	struct net_guestfwd guestfwd[NET_FWDS];
	unsigned nguestfwd;

	/* tap */
	char *ifname, *script, *downscript;
	int fds[NET_FDS], vhostfds[NET_FDS];
	unsigned nfds, nvhostfds, queues; /* queues 0: as many as fds, or 1 */
	unsigned poll_us;                 /* vhost polls for so long */
	bool vnet_hdr, vnet_hdr_set;
	bool vhost, vhost_set, vhostforce; /* force: without vhost it is an error */

	/* stream, dgram, socket */
	struct net_addr local, remote; /* stream: local */
	bool server;
	unsigned reconnect_ms;
	char *listen, *connect, *udp, *mcast, *localaddr; /* socket's old forms */
};

/* kind: "user", ...; NULL-terminated list of names by index; -1 and e for an unknown one. */
int netdev_kind(const char *name, struct err *e) must_check;
const char *netdev_kind_name(enum netdev_kind k);

/* Defaults of a kind. id is copied. */
int netdev_opts_init(struct netdev_opts *o, enum netdev_kind kind, const char *id,
		     struct err *e) must_check;
/* One key and value. -EINVAL: what is wrong with it; -ENOENT: no such key, with the nearest. */
int netdev_opts_set(struct netdev_opts *o, const char *key, const char *value,
		    struct err *e) must_check;
/* Is key one of this kind's? For -nic, which has the NIC's properties in the same list. */
bool netdev_opts_knows(enum netdev_kind kind, const char *key);
/* All keys are given: do they fit together? Fills what follows from others. */
int netdev_opts_check(struct netdev_opts *o, struct err *e) must_check;
void netdev_opts_free(struct netdev_opts *o);
/* The keys of all kinds, for -netdev help. */
void netdev_opts_help(FILE *out);

/* "52:54:00:12:34:56"; a group's address is refused. */
int net_mac_parse(const char *text, uint8_t mac[6], struct err *e) must_check;
