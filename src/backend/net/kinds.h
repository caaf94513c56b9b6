/*
 * Making netdevs of each kind from options. Threads: netdev_new on the main thread, before the
 * machine runs.
 */
#pragma once
#include "backend/net/netdev.h"
#include "backend/net/opts.h"

struct chardev;

/* What a netdev may need of the machine. */
struct netdev_env {
	struct loop *loop;
	/* The chardev of a text as -serial takes it; stays the machine's. For guestfwd. */
	struct chardev *(*chardev)(void *opaque, const char *text, struct err *e);
	void *opaque;
};

/* The options must have passed netdev_opts_check. NULL with one line that says what to do. */
struct netdev *netdev_new(const struct netdev_env *env, const struct netdev_opts *o, struct err *e);

/* Is user networking compiled in? */
bool netdev_has_user(void);

/* The kinds, for netdev_new. */
struct netdev *net_user_new(const struct netdev_env *env, const struct netdev_opts *o,
			    struct err *e);
struct netdev *net_tap_new(const struct netdev_env *env, const struct netdev_opts *o,
			   struct err *e);
struct netdev *net_stream_new(const struct netdev_env *env, const struct netdev_opts *o,
			      struct err *e);
struct netdev *net_dgram_new(const struct netdev_env *env, const struct netdev_opts *o,
			     struct err *e);
struct netdev *net_socket_new(const struct netdev_env *env, const struct netdev_opts *o,
			      struct err *e);
