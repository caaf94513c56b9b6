/* Networks of a machine: netdevs and captures from the configuration, cards for boards. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/net/dump.h"
#include "backend/net/kinds.h"
#include "base/log.h"
#include "machine/device.h"
#include "machine/machine.h"

/* A chardev for guestfwd; it belongs to the machine. */
static struct chardev *machine_net_chardev(void *opaque, const char *text, struct err *e)
{
	struct machine *m = opaque;
	struct chardev *c;
	char id[24];

	if (!strncmp(text, "chardev:", 8)) {
		c = chardev_port(chardevs_find(&m->chardevs, text + 8));
		if (!c)
			err_set(e, ENOENT, "no -chardev has the id '%s'", text + 8);
		return c;
	}
	for (unsigned i = 0;; i++) {
		snprintf(id, sizeof(id), "guestfwd%u", i);
		if (!chardevs_find(&m->chardevs, id))
			break;
	}
	c = machine_chardev(m, id, text, e);
	if (c && chardevs_add(&m->chardevs, c, e)) {
		chardev_free(c);
		return NULL;
	}
	return chardev_port(c);
}

int machine_netdevs(struct machine *m, struct err *e)
{
	const struct netdev_env env = { .loop = m->loop,
					.chardev = machine_net_chardev,
					.opaque = m };
	const struct machine_config *cfg = m->cfg;
	int r = 0;

	for (unsigned i = 0; i < cfg->nnetdevs && r == 0; i++) {
		const struct netdev_opts *o = &cfg->netdev[i];
		struct netdev *nd = netdev_new(&env, o, e);
		const char *kind = netdev_kind_name(o->kind);

		if (!nd)
			return *o->id == '#' ? err_prefix(e, "-nic %s", kind)
					     : err_prefix(e, "-netdev %s,id=%s", kind, o->id);
		r = netdevs_add(&m->netdevs, nd, e);
	}
	for (unsigned i = 0; i < cfg->ndumps && r == 0; i++) {
		const struct dump_config *d = &cfg->dump[i];
		struct netdev *nd = netdevs_find(&m->netdevs, d->netdev);
		struct netfilter *f = NULL;

		if (nd && nd->vhost[0])
			err_set(e, ENOTSUP,
				"a capture sees no frame of a netdev with vhost; leave vhost out");
		else if (nd)
			f = net_dump_new(d->id, d->file, d->maxlen, e);
		else
			err_set(e, ENOENT, "no -netdev has the id '%s'", d->netdev);
		if (!f)
			return err_prefix(e, "-object filter-dump,id=%s", d->id);
		netdev_add_filter(nd, f);
	}
	return r;
}

int machine_nics(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg->nnics; i++) {
		const struct nic_config *n = &m->cfg->nic[i];
		const char *model =
			n->model && strcmp(n->model, "virtio") ? n->model : "virtio-net";
		struct device_prop p[2];
		unsigned np = 0;
		int r;

		if (n->mac)
			p[np++] = (struct device_prop){ "mac", n->mac };
		if (n->netdev)
			p[np++] = (struct device_prop){ "netdev", n->netdev };
		r = device_make(m, model, n->id, p, np, e);
		if (r)
			return err_prefix(e, "-nic");
	}
	return 0;
}

void machine_net_check(const struct machine *m)
{
	for (struct netdev *nd = m->netdevs.first; nd; nd = nd->next)
		if (!nd->attached)
			log_warn("no device has the netdev %s: give -device with netdev=%s", nd->id,
				 nd->id);
}
