/* See kinds.h. */
#include "backend/net/kinds.h"

#include <errno.h>

#include "base/bits.h"

#ifdef HAVE_SLIRP
bool netdev_has_user(void)
{
	return true;
}
#else
bool netdev_has_user(void)
{
	return false;
}

struct netdev *net_user_new(const struct netdev_env *env, const struct netdev_opts *o,
			    struct err *e)
{
	err_set(e, ENOTSUP,
		"this program was built without libslirp: install libslirp-dev and "
		"build it again, or use -nic none");
	return NULL;
}
#endif

struct netdev *netdev_new(const struct netdev_env *env, const struct netdev_opts *o, struct err *e)
{
	static struct netdev *(*const make[NETDEV_KINDS])(
		const struct netdev_env *env, const struct netdev_opts *o, struct err *e) = {
		[NETDEV_USER] = net_user_new,     [NETDEV_TAP] = net_tap_new,
		[NETDEV_STREAM] = net_stream_new, [NETDEV_DGRAM] = net_dgram_new,
		[NETDEV_SOCKET] = net_socket_new,
	};

	return make[o->kind](env, o, e);
}
