/* See opts.h. References: [QEMU-MAN "Network options"] for names and defaults. */
#include "backend/net/opts.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/nearest.h"

enum key_type {
	KEY_STR,
	KEY_BOOL,
	KEY_IP4,     /* struct in_addr */
	KEY_IP6,     /* struct in6_addr, and the bool flag beside it */
	KEY_SPECIAL, /* fn */
	KEY_OFF,     /* accepted as "off" only; help says why */
	KEY_REFUSED, /* help says why */
	KEY_IGNORED, /* advice that changes nothing here */
};

struct net_key {
	const char *name;
	enum key_type type;
	uint32_t off, flag;
	int (*fn)(struct netdev_opts *o, const char *value, struct err *e);
	const char *help;
};

static int net_number(const char *what, const char *s, unsigned long min, unsigned long max,
		      unsigned long *v, struct err *e)
{
	char *end;

	errno = 0;
	*v = strtoul(s, &end, 10);
	if (!isdigit((unsigned char)*s) || *end || errno || *v < min || *v > max)
		return err_set(e, EINVAL, "%s=%s: a number from %lu to %lu is needed", what, s, min,
			       max);
	return 0;
}

static int net_copy(char **to, const char *s, struct err *e)
{
	free(*to);
	*to = strdup(s);
	return *to ? 0 : err_set(e, ENOMEM, "out of memory");
}

/* "10.0.2.0/24", "10.0.2.0/255.255.255.0", or with the mask of the old classes. */
static int net_opt_net(struct netdev_opts *o, const char *value, struct err *e)
{
	char text[40];
	const char *slash = strchr(value, '/');
	uint32_t a, m;
	unsigned long bits;

	snprintf(text, sizeof(text), "%.*s", (int)MIN(strcspn(value, "/"), sizeof(text) - 1),
		 value);
	if (inet_pton(AF_INET, text, &o->net) != 1)
		return err_set(e, EINVAL, "net=%s: an IPv4 network is needed, as in 10.0.2.0/24",
			       value);
	a = ntohl(o->net.s_addr);
	if (!slash) {
		m = a < 0x80000000                   ? 0xff000000
		    : (a >> 20) == 0xac1             ? 0xfff00000
		    : a < 0xc0000000                 ? 0xffff0000
		    : (a >> 16) == 0xc0a8            ? 0xffff0000
		    : (a & 0xfffe0000) == 0xc6120000 ? 0xfffe0000
		    : a < 0xe0000000                 ? 0xffffff00
						     : 0xfffffff0;
	} else if (strchr(slash, '.')) {
		struct in_addr in;

		if (inet_pton(AF_INET, slash + 1, &in) != 1)
			return err_set(e, EINVAL, "net=%s: '%s' is no netmask", value, slash + 1);
		m = ntohl(in.s_addr);
	} else {
		if (net_number("net=.../bits, bits", slash + 1, 4, 30, &bits, e))
			return -EINVAL;
		m = ~0u << (32 - bits);
	}
	if ((~m & (~m + 1)) || m == 0)
		return err_set(e, EINVAL, "net=%s: the netmask has holes", value);
	o->mask.s_addr = htonl(m);
	o->net.s_addr &= o->mask.s_addr;
	return 0;
}

static int net_opt_net6(struct netdev_opts *o, const char *value, struct err *e)
{
	char text[64];
	const char *slash = strchr(value, '/');
	unsigned long bits = 64;

	snprintf(text, sizeof(text), "%.*s", (int)MIN(strcspn(value, "/"), sizeof(text) - 1),
		 value);
	if (inet_pton(AF_INET6, text, &o->net6) != 1)
		return err_set(e, EINVAL, "ipv6-net=%s: an IPv6 network is needed, as in fec0::/64",
			       value);
	if (slash && net_number("ipv6-net=.../bits, bits", slash + 1, 0, 126, &bits, e))
		return -EINVAL;
	o->prefix6 = (unsigned)bits;
	o->net6_set = true;
	return 0;
}

static int net_opt_prefixlen(struct netdev_opts *o, const char *value, struct err *e)
{
	unsigned long bits;
	int r = net_number("ipv6-prefixlen", value, 0, 126, &bits, e);

	if (r == 0)
		o->prefix6 = (unsigned)bits;
	return r;
}

static int net_opt_dnssearch(struct netdev_opts *o, const char *value, struct err *e)
{
	if (o->ndnssearch == NET_SEARCHES)
		return err_set(e, E2BIG, "dnssearch: more than %d", NET_SEARCHES);
	if (!*value || strlen(value) > 250)
		return err_set(e, EINVAL, "dnssearch=%s: a domain name is needed", value);
	return net_copy(&o->dnssearch[o->ndnssearch++], value, e);
}

/* "ADDR:PORT" up to the end character; ADDR may be empty. Bytes read, or 0. */
static size_t net_addr_port(const char *s, char end, struct in_addr *a, uint16_t *port)
{
	const char *colon = strchr(s, ':');
	char text[32], *stop;
	unsigned long v;

	a->s_addr = 0;
	if (!colon || (size_t)(colon - s) >= sizeof(text))
		return 0;
	snprintf(text, sizeof(text), "%.*s", (int)(colon - s), s);
	if (*text && inet_pton(AF_INET, text, a) != 1)
		return 0;
	if (!isdigit((unsigned char)colon[1]))
		return 0;
	v = strtoul(colon + 1, &stop, 10);
	if (*stop != end || v < 1 || v > 65535)
		return 0;
	*port = (uint16_t)v;
	return (size_t)(stop - s);
}

static int net_opt_hostfwd(struct netdev_opts *o, const char *value, struct err *e)
{
	struct net_hostfwd f = { 0 };
	const char *s = value;
	size_t n = 0;

	if (o->nhostfwd == NET_FWDS)
		return err_set(e, E2BIG, "hostfwd: more than %d", NET_FWDS);
	f.udp = !strncmp(s, "udp:", 4);
	if (!strncmp(s, "tcp:", 4) || f.udp)
		s += 4;
	else if (*s == ':')
		s++;
	else
		s = NULL;
	n = s ? net_addr_port(s, '-', &f.host, &f.host_port) : 0;
	n = n ? net_addr_port(s + n + 1, 0, &f.guest, &f.guest_port) : 0;
	if (!n)
		return err_set(e, EINVAL,
			       "hostfwd=%s: it looks like tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT or "
			       "udp:..., with IPv4 addresses",
			       value);
	o->hostfwd[o->nhostfwd++] = f;
	return 0;
}

static int net_opt_guestfwd(struct netdev_opts *o, const char *value, struct err *e)
{
	struct net_guestfwd f = { 0 };
	const char *s = value;
	size_t n;
	int r;

	if (o->nguestfwd == NET_FWDS)
		return err_set(e, E2BIG, "guestfwd: more than %d", NET_FWDS);
	if (!strncmp(s, "tcp:", 4))
		s += 4;
	else if (*s == ':')
		s++;
	n = net_addr_port(s, '-', &f.addr, &f.port);
	if (!n || !s[n + 1] || !strcmp(s + n + 1, "cmd:"))
		return err_set(e, EINVAL,
			       "guestfwd=%s: it looks like tcp:[ADDR]:PORT-chardev:ID or "
			       "tcp:[ADDR]:PORT-cmd:COMMAND",
			       value);
	r = net_copy(&f.to, s + n + 1, e);
	if (r == 0)
		o->guestfwd[o->nguestfwd++] = f;
	return r;
}

/* Descriptors: "A:B:...", or one. name: of the key for one. */
static int net_fds(const char *name, const char *value, int *fds, unsigned *n, struct err *e)
{
	char text[16];
	int r = 0;

	for (const char *s = value; r == 0 && s;) {
		size_t len = strcspn(s, ":");
		unsigned long v;

		if (*n == NET_FDS)
			return err_set(e, E2BIG, "%ss: more than %d", name, NET_FDS);
		snprintf(text, sizeof(text), "%.*s", (int)MIN(len, sizeof(text) - 1), s);
		r = net_number(name, text, 0, 1 << 20, &v, e);
		if (r == 0)
			fds[(*n)++] = (int)v;
		s = s[len] ? s + len + 1 : NULL;
	}
	return r;
}

static int net_opt_fds(struct netdev_opts *o, const char *value, struct err *e)
{
	return net_fds("fd", value, o->fds, &o->nfds, e);
}

static int net_opt_vhostfds(struct netdev_opts *o, const char *value, struct err *e)
{
	return net_fds("vhostfd", value, o->vhostfds, &o->nvhostfds, e);
}

static int net_opt_poll(struct netdev_opts *o, const char *value, struct err *e)
{
	unsigned long v;
	int r = net_number("poll-us", value, 0, 1000000, &v, e);

	if (r == 0)
		o->poll_us = (unsigned)v;
	return r;
}

static int net_opt_queues(struct netdev_opts *o, const char *value, struct err *e)
{
	unsigned long v;
	int r = net_number("queues", value, 1, NET_FDS, &v, e);

	if (r == 0)
		o->queues = (unsigned)v;
	return r;
}

static int net_opt_reconnect(struct netdev_opts *o, const char *value, struct err *e)
{
	unsigned long v;
	int r = net_number("reconnect", value, 0, 86400, &v, e);

	if (r == 0)
		o->reconnect_ms = (unsigned)v * 1000;
	return r;
}

static int net_opt_reconnect_ms(struct netdev_opts *o, const char *value, struct err *e)
{
	unsigned long v;
	int r = net_number("reconnect-ms", value, 0, 86400000, &v, e);

	if (r == 0)
		o->reconnect_ms = (unsigned)v;
	return r;
}

#define O(f) offsetof(struct netdev_opts, f)
/* clang-format off */
#define ADDR(pre, f) \
	{ pre "type", KEY_STR, O(f.type_text), 0, NULL, "inet, unix or fd" }, \
	{ pre "host", KEY_STR, O(f.host), 0, NULL, "host name or address" }, \
	{ pre "port", KEY_STR, O(f.port), 0, NULL, "port number" }, \
	{ pre "path", KEY_STR, O(f.path), 0, NULL, "of a unix socket" }, \
	{ pre "str", KEY_STR, O(f.fd), 0, NULL, "number of an open file descriptor" }, \
	{ pre "ipv4", KEY_BOOL, O(f.ipv4), 0, NULL, "IPv4 addresses" }, \
	{ pre "ipv6", KEY_BOOL, O(f.ipv6), 0, NULL, "IPv6 addresses" }, \
	{ pre "abstract", KEY_BOOL, O(f.abstract), 0, NULL, "an abstract unix socket" }, \
	{ pre "numeric", KEY_IGNORED, 0, 0, NULL, NULL }, \
	{ pre "tight", KEY_IGNORED, 0, 0, NULL, NULL }, \
	{ pre "keep-alive", KEY_OFF, 0, 0, NULL, "TCP keep-alive is not set" }, \
	{ pre "mptcp", KEY_OFF, 0, 0, NULL, "there is no MPTCP here" }, \
	{ pre "to", KEY_REFUSED, 0, 0, NULL, "give the one port" }

static const struct net_key user_keys[] = {
	{ "net", KEY_SPECIAL, 0, 0, net_opt_net, "IPv4 network of the guest, 10.0.2.0/24" },
	{ "host", KEY_IP4, O(host), 0, NULL, "the host as the guest sees it, 10.0.2.2" },
	{ "dhcpstart", KEY_IP4, O(dhcpstart), 0, NULL, "first address that DHCP gives, 10.0.2.15" },
	{ "dns", KEY_IP4, O(dns), 0, NULL, "name server the guest sees, 10.0.2.3" },
	{ "ipv4", KEY_BOOL, O(ipv4), 0, NULL, "on or off" },
	{ "ipv6", KEY_BOOL, O(ipv6), 0, NULL, "on or off" },
	{ "ipv6-net", KEY_SPECIAL, 0, 0, net_opt_net6, "IPv6 network, fec0::/64" },
	{ "ipv6-prefix", KEY_IP6, O(net6), O(net6_set), NULL, "the same in two parts" },
	{ "ipv6-prefixlen", KEY_SPECIAL, 0, 0, net_opt_prefixlen, "its length" },
	{ "ipv6-host", KEY_IP6, O(host6), O(host6_set), NULL, "the host's, fec0::2" },
	{ "ipv6-dns", KEY_IP6, O(dns6), O(dns6_set), NULL, "name server's, fec0::3" },
	{ "restrict", KEY_BOOL, O(isolated), 0, NULL, "only hostfwd and guestfwd, no way out" },
	{ "hostname", KEY_STR, O(hostname), 0, NULL, "name that DHCP gives to the guest" },
	{ "domainname", KEY_STR, O(domainname), 0, NULL, "domain that DHCP tells" },
	{ "dnssearch", KEY_SPECIAL, 0, 0, net_opt_dnssearch, "search domain, may be repeated" },
	{ "tftp", KEY_STR, O(tftp), 0, NULL, "folder served by TFTP" },
	{ "tftp-server-name", KEY_STR, O(tftp_server_name), 0, NULL, "in BOOTP replies" },
	{ "bootfile", KEY_STR, O(bootfile), 0, NULL, "file name in BOOTP replies" },
	{ "hostfwd", KEY_SPECIAL, 0, 0, net_opt_hostfwd,
	  "tcp|udp:[HOSTADDR]:PORT-[GUESTADDR]:PORT, may be repeated" },
	{ "guestfwd", KEY_SPECIAL, 0, 0, net_opt_guestfwd,
	  "tcp:[ADDR]:PORT-chardev:ID or -cmd:COMMAND, may be repeated" },
	{ "smb", KEY_REFUSED, 0, 0, NULL, "there is no SMB server here; copy by ssh or TFTP" },
	{ "smbserver", KEY_REFUSED, 0, 0, NULL, "there is no SMB server here" },
	{ 0 },
};

static const struct net_key tap_keys[] = {
	{ "ifname", KEY_STR, O(ifname), 0, NULL, "name of the host's interface (default: chosen)" },
	{ "script", KEY_STR, O(script), 0, NULL, "run with the name as argument at the start; no: none" },
	{ "downscript", KEY_STR, O(downscript), 0, NULL, "the same at the end" },
	{ "fd", KEY_SPECIAL, 0, 0, net_opt_fds, "an open tap" },
	{ "fds", KEY_SPECIAL, 0, 0, net_opt_fds, "A:B:...: the queues of one" },
	{ "queues", KEY_SPECIAL, 0, 0, net_opt_queues, "pairs of queues, 1 to 16" },
	{ "vnet_hdr", KEY_BOOL, O(vnet_hdr), O(vnet_hdr_set), NULL, "offloads (default on)" },
	{ "vhost", KEY_BOOL, O(vhost), O(vhost_set), NULL, "the kernel moves the frames (vhost-net), where there is one" },
	{ "vhostforce", KEY_BOOL, O(vhostforce), 0, NULL, "the same, and without vhost-net it is an error" },
	{ "vhostfd", KEY_SPECIAL, 0, 0, net_opt_vhostfds, "an open /dev/vhost-net" },
	{ "vhostfds", KEY_SPECIAL, 0, 0, net_opt_vhostfds, "A:B:...: one for each queue" },
	{ "sndbuf", KEY_IGNORED, 0, 0, NULL, NULL },
	{ "br", KEY_REFUSED, 0, 0, NULL, "put the tap into the bridge beforehand and give ifname" },
	{ "helper", KEY_REFUSED, 0, 0, NULL, "make a tap for your user beforehand: ip tuntap add NAME mode tap user USER" },
	{ "poll-us", KEY_SPECIAL, 0, 0, net_opt_poll, "vhost polls for so long before it sleeps, us (default 0)" },
	{ 0 },
};

static const struct net_key stream_keys[] = {
	{ "server", KEY_BOOL, O(server), 0, NULL, "listen instead of connecting" },
	{ "reconnect", KEY_SPECIAL, 0, 0, net_opt_reconnect, "seconds between attempts; 0: end (default)" },
	{ "reconnect-ms", KEY_SPECIAL, 0, 0, net_opt_reconnect_ms, "the same in milliseconds" },
	ADDR("addr.", local),
	{ 0 },
};

static const struct net_key dgram_keys[] = {
	ADDR("local.", local),
	ADDR("remote.", remote),
	{ 0 },
};

static const struct net_key socket_keys[] = {
	{ "fd", KEY_STR, O(local.fd), 0, NULL, "a connected socket" },
	{ "listen", KEY_STR, O(listen), 0, NULL, "[HOST]:PORT" },
	{ "connect", KEY_STR, O(connect), 0, NULL, "HOST:PORT" },
	{ "udp", KEY_STR, O(udp), 0, NULL, "HOST:PORT, with localaddr=" },
	{ "mcast", KEY_STR, O(mcast), 0, NULL, "ADDR:PORT of a multicast group" },
	{ "localaddr", KEY_STR, O(localaddr), 0, NULL, "HOST:PORT (udp), ADDR (mcast)" },
	{ 0 },
};
/* clang-format on */

static const struct {
	const char *name, *desc;
	const struct net_key *keys;
} net_kinds[NETDEV_KINDS] = {
	[NETDEV_USER] = { "user", "user-mode network, no privileges", user_keys },
	[NETDEV_TAP] = { "tap", "a network interface of the host", tap_keys },
	[NETDEV_STREAM] = { "stream", "frames over a stream socket (passt)", stream_keys },
	[NETDEV_DGRAM] = { "dgram", "frames over a datagram socket", dgram_keys },
	[NETDEV_SOCKET] = { "socket", "the older form of both", socket_keys },
};

static const struct {
	const char *name, *why;
} net_absent[] = {
	{ "bridge",
	  "it needs a privileged helper; put a tap into the bridge and give -netdev tap,ifname=" },
	{ "hubport", "there are no hubs; join machines with -netdev dgram and a multicast group" },
	{ "vhost-user", "it is not supported yet; use -netdev stream" },
	{ "vhost-vdpa", "it is not supported yet" },
	{ "l2tpv3", "make the tunnel on the host and give -netdev tap" },
	{ "vde", "use -netdev stream or tap" },
	{ "netmap", "use -netdev tap" },
	{ "af-xdp", "use -netdev tap" },
	{ "passt",
	  "start passt --socket PATH and give -netdev stream,addr.type=unix,addr.path=PATH" },
};

int netdev_kind(const char *name, struct err *e)
{
	const char *names[NETDEV_KINDS];
	char hint[96];

	for (int i = 0; i < NETDEV_KINDS; i++) {
		names[i] = net_kinds[i].name;
		if (!strcmp(name, names[i]))
			return i;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(net_absent); i++)
		if (!strcmp(name, net_absent[i].name))
			return err_set(e, ENOTSUP, "the network backend %s is not supported: %s",
				       name, net_absent[i].why);
	return err_set(e, EINVAL,
		       "unknown network backend '%s'%s; user, tap, stream, dgram, socket exist",
		       name, text_nearest_hint(hint, sizeof(hint), name, names, NETDEV_KINDS));
}

const char *netdev_kind_name(enum netdev_kind k)
{
	return net_kinds[k].name;
}

int netdev_opts_init(struct netdev_opts *o, enum netdev_kind kind, const char *id, struct err *e)
{
	*o = (struct netdev_opts){ .kind = kind, .ipv4 = true, .ipv6 = true, .vnet_hdr = true };
	o->prefix6 = 64;
	o->local.ipv4 = o->local.ipv6 = o->remote.ipv4 = o->remote.ipv6 = true;
	return net_copy(&o->id, id, e);
}

static const struct net_key *net_key_find(enum netdev_kind kind, const char *key)
{
	for (const struct net_key *k = net_kinds[kind].keys; k->name; k++)
		if (!strcmp(k->name, key))
			return k;
	return NULL;
}

bool netdev_opts_knows(enum netdev_kind kind, const char *key)
{
	return net_key_find(kind, key);
}

static int net_bool(const char *key, const char *s, bool *v, struct err *e)
{
	bool yes = !strcmp(s, "on") || !strcmp(s, "yes") || !strcmp(s, "true") || !strcmp(s, "y");

	if (!yes && strcmp(s, "off") && strcmp(s, "no") && strcmp(s, "false") && strcmp(s, "n"))
		return err_set(e, EINVAL, "%s=%s: on or off is needed", key, s);
	*v = yes;
	return 0;
}

int netdev_opts_set(struct netdev_opts *o, const char *key, const char *value, struct err *e)
{
	const struct net_key *k = net_key_find(o->kind, key);
	void *at = k ? (char *)o + k->off : NULL;
	bool v = false;
	int r = 0;

	if (!k) {
		const char *names[64];
		char hint[96];
		size_t n = 0;

		for (k = net_kinds[o->kind].keys; k->name && n < ARRAY_SIZE(names); k++)
			names[n++] = k->name;
		return err_set(e, ENOENT, "unknown property '%s'%s", key,
			       text_nearest_hint(hint, sizeof(hint), key, names, n));
	}
	switch (k->type) {
	case KEY_STR: r = net_copy(at, value, e); break;
	case KEY_BOOL: r = net_bool(key, value, at, e); break;
	case KEY_IP4:
		if (inet_pton(AF_INET, value, at) != 1)
			r = err_set(e, EINVAL, "%s=%s: an IPv4 address is needed", key, value);
		break;
	case KEY_IP6:
		if (inet_pton(AF_INET6, value, at) != 1)
			r = err_set(e, EINVAL, "%s=%s: an IPv6 address is needed", key, value);
		break;
	case KEY_SPECIAL: r = k->fn(o, value, e); break;
	case KEY_OFF:
		r = net_bool(key, value, &v, e);
		if (r == 0 && v)
			r = err_set(e, ENOTSUP, "%s=%s is not supported: %s", key, value, k->help);
		break;
	case KEY_REFUSED:
		r = err_set(e, ENOTSUP, "%s=%s is not supported: %s", key, value, k->help);
		break;
	case KEY_IGNORED: break;
	}
	if (r == 0 && k->flag)
		*((bool *)((char *)o + k->flag)) = true;
	return r;
}

static int net_check_user(struct netdev_opts *o, struct err *e)
{
	uint32_t inv;
	const struct {
		const char *name;
		struct in_addr *a;
		uint32_t dflt;
	} in_net[] = { { "host", &o->host, 0x0202 },
		       { "dhcpstart", &o->dhcpstart, 0x020f },
		       { "dns", &o->dns, 0x0203 } };

	if (!o->ipv4 && !o->ipv6)
		return err_set(e, EINVAL, "ipv4=off and ipv6=off leave nothing");
	if (!o->mask.s_addr) {
		o->net.s_addr = htonl(0x0a000200);
		o->mask.s_addr = htonl(0xffffff00);
	}
	inv = ~o->mask.s_addr;
	for (unsigned i = 0; i < ARRAY_SIZE(in_net); i++) {
		struct in_addr *a = in_net[i].a;

		if (!a->s_addr)
			a->s_addr = o->net.s_addr | (htonl(in_net[i].dflt) & inv);
		if ((a->s_addr & ~inv) != o->net.s_addr || !(a->s_addr & inv) ||
		    (a->s_addr & inv) == inv)
			return err_set(e, EINVAL, "%s=%s is no address of the network",
				       in_net[i].name, inet_ntoa(*a));
	}
	if (o->host.s_addr == o->dns.s_addr)
		return err_set(e, EINVAL, "host and dns need different addresses");
	if (o->dhcpstart.s_addr == o->host.s_addr || o->dhcpstart.s_addr == o->dns.s_addr)
		return err_set(e, EINVAL, "dhcpstart is the address of the host or of dns");
	if (!o->net6_set)
		inet_pton(AF_INET6, "fec0::", &o->net6);
	if (!o->host6_set) {
		o->host6 = o->net6;
		o->host6.s6_addr[15] |= 2;
	}
	if (!o->dns6_set) {
		o->dns6 = o->net6;
		o->dns6.s6_addr[15] |= 3;
	}
	if (o->hostname && strlen(o->hostname) > 32)
		return err_set(e, EINVAL, "hostname=%s: more than 32 letters", o->hostname);
	if (o->domainname && strlen(o->domainname) > 250)
		return err_set(e, EINVAL, "domainname is too long");
	if (o->bootfile && strlen(o->bootfile) > 127)
		return err_set(e, EINVAL, "bootfile is longer than the 127 letters of BOOTP");
	return 0;
}

static int net_check_tap(struct netdev_opts *o, struct err *e)
{
	if (o->nfds && (o->ifname || o->script || o->downscript || o->queues))
		return err_set(e, EINVAL,
			       "ifname, script, downscript and queues do not go with fd or fds");
	if (o->ifname && (!*o->ifname || strlen(o->ifname) > 15 || strpbrk(o->ifname, "/ ")))
		return err_set(e, EINVAL, "ifname=%s: 1 to 15 letters without '/'", o->ifname);
	if (!o->queues)
		o->queues = o->nfds ? o->nfds : 1;
	if (!o->vhost_set)
		o->vhost = o->vhostforce || o->nvhostfds;
	if (!o->vhost && o->nvhostfds)
		return err_set(e, EINVAL, "vhostfd does not go with vhost=off");
	if (o->nvhostfds && o->nvhostfds != o->queues)
		return err_set(e, EINVAL, "vhostfds: %u of them for %u queue%s", o->nvhostfds,
			       o->queues, o->queues > 1 ? "s" : "");
	if (o->vhost && o->vnet_hdr_set && !o->vnet_hdr)
		return err_set(e, EINVAL, "vhost=on needs vnet_hdr=on");
	return 0;
}

static int net_check_addr(const char *name, struct net_addr *a, bool need, struct err *e)
{
	static const char *const types[] = { "", "inet", "unix", "fd" };

	if (!a->type_text) {
		if (a->host || a->port || a->path || a->fd)
			return err_set(e, EINVAL, "%s.type is missing: inet, unix or fd", name);
		return need ? err_set(e, EINVAL, "%s.type=inet, unix or fd is needed", name) : 0;
	}
	for (unsigned i = 1; i < ARRAY_SIZE(types); i++)
		if (!strcmp(a->type_text, types[i]))
			a->type = (enum net_addr_type)i;
	switch (a->type) {
	case NET_ADDR_INET:
		if (a->path || a->fd)
			return err_set(e, EINVAL, "%s.type=inet has host and port", name);
		if (!a->ipv4 && !a->ipv6)
			return err_set(e, EINVAL, "%s: ipv4=off and ipv6=off leave nothing", name);
		return 0;
	case NET_ADDR_UNIX:
		if (!a->path || !*a->path || a->host || a->port || a->fd)
			return err_set(e, EINVAL, "%s.type=unix needs %s.path=PATH", name, name);
		return 0;
	case NET_ADDR_FD:
		if (!a->fd || a->host || a->port || a->path)
			return err_set(e, EINVAL, "%s.type=fd needs %s.str=NUMBER", name, name);
		return 0;
	default:
		return err_set(e, EINVAL, "%s.type=%s: inet, unix and fd exist", name,
			       a->type_text);
	}
}

static int net_check_dgram(struct netdev_opts *o, struct err *e)
{
	int r = net_check_addr("local", &o->local, false, e);

	if (r == 0)
		r = net_check_addr("remote", &o->remote, false, e);
	if (r)
		return r;
	if (o->local.type == NET_ADDR_FD)
		return o->remote.type == NET_ADDR_FD
			       ? err_set(e, EINVAL, "remote.type=fd does not exist")
			       : 0;
	if (o->remote.type == NET_ADDR_FD || (!o->local.type && !o->remote.type) ||
	    (o->local.type && o->remote.type && o->local.type != o->remote.type))
		return err_set(e, EINVAL,
			       "dgram needs local.type=fd, or local.* and remote.* of one type "
			       "(inet, unix), or the remote.* of a multicast group");
	if (o->local.type == NET_ADDR_UNIX && !o->remote.type)
		return err_set(e, EINVAL, "dgram over unix sockets needs remote.path, too");
	if (o->remote.type == NET_ADDR_INET && (!o->remote.host || !o->remote.port))
		return err_set(e, EINVAL, "remote.host and remote.port are needed");
	if (o->local.type == NET_ADDR_INET && !o->remote.type && !o->local.port)
		return err_set(e, EINVAL, "local.port is needed");
	return 0;
}

static int net_check_socket(struct netdev_opts *o, struct err *e)
{
	unsigned n = !!o->local.fd + !!o->listen + !!o->connect + !!o->udp + !!o->mcast;

	if (n != 1 && !(n == 2 && o->local.fd && o->mcast))
		return err_set(e, EINVAL,
			       "socket needs exactly one of fd=, listen=, connect=, mcast=, udp=");
	if (o->udp && !o->localaddr)
		return err_set(e, EINVAL, "udp= needs localaddr=[HOST]:PORT");
	if (o->localaddr && !o->udp && !o->mcast)
		return err_set(e, EINVAL, "localaddr= goes with udp= and mcast=");
	return 0;
}

int netdev_opts_check(struct netdev_opts *o, struct err *e)
{
	int r = 0;

	switch (o->kind) {
	case NETDEV_USER: r = net_check_user(o, e); break;
	case NETDEV_TAP: r = net_check_tap(o, e); break;
	case NETDEV_STREAM:
		r = net_check_addr("addr", &o->local, true, e);
		if (r == 0 && o->local.type == NET_ADDR_INET &&
		    (!o->local.port || (!o->local.host && !o->server)))
			r = err_set(e, EINVAL, "addr.host and addr.port are needed");
		if (r == 0 && o->server && o->reconnect_ms)
			r = err_set(e, EINVAL, "reconnect does not go with server=on");
		break;
	case NETDEV_DGRAM: r = net_check_dgram(o, e); break;
	case NETDEV_SOCKET: r = net_check_socket(o, e); break;
	case NETDEV_KINDS: break;
	}
	return r;
}

static void net_addr_free(struct net_addr *a)
{
	free(a->type_text);
	free(a->host);
	free(a->port);
	free(a->path);
	free(a->fd);
}

void netdev_opts_free(struct netdev_opts *o)
{
	char **own[] = { &o->hostname,  &o->domainname, &o->tftp,   &o->tftp_server_name,
			 &o->bootfile,  &o->ifname,     &o->script, &o->downscript,
			 &o->listen,    &o->connect,    &o->udp,    &o->mcast,
			 &o->localaddr, &o->id };

	for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
		free(*own[i]);
	for (unsigned i = 0; i < o->ndnssearch; i++)
		free(o->dnssearch[i]);
	for (unsigned i = 0; i < o->nguestfwd; i++)
		free(o->guestfwd[i].to);
	net_addr_free(&o->local);
	net_addr_free(&o->remote);
	*o = (struct netdev_opts){ 0 };
}

void netdev_opts_help(FILE *out)
{
	for (unsigned kind = 0; kind < NETDEV_KINDS; kind++) {
		fprintf(out, "%s: %s\n", net_kinds[kind].name, net_kinds[kind].desc);
		for (const struct net_key *k = net_kinds[kind].keys; k->name; k++)
			if (k->type < KEY_OFF)
				fprintf(out, "  %-18s %s\n", k->name, k->help);
	}
}

int net_mac_parse(const char *text, uint8_t mac[6], struct err *e)
{
	const char *s = text;
	char *end;

	for (int i = 0; i < 6; i++) {
		unsigned long v;

		if (!isxdigit((unsigned char)*s))
			goto bad;
		v = strtoul(s, &end, 16);
		if (v > 255 || end - s > 2 || (i < 5 ? *end != ':' && *end != '-' : *end != 0))
			goto bad;
		mac[i] = (uint8_t)v;
		s = end + 1;
	}
	if (mac[0] & 1)
		return err_set(e, EINVAL, "mac=%s is a group's address", text);
	return 0;
bad:
	return err_set(e, EINVAL, "mac=%s: an address looks like 52:54:00:12:34:56", text);
}
