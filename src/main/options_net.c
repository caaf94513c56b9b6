/*
 * Options about networks: -netdev, -nic, and the older -net; see options.h.
 * References: [QEMU-MAN "Network options"].
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/dump.h"
#include "backend/net/kinds.h"
#include "core/nearest.h"
#include "main/keyval.h"
#include "main/options.h"

/* Keys that belong to the card and not to the backend, in -nic and -net nic. */
static const char *const nic_keys[] = { "model",   "mac",  "macaddr", "id",       "netdev",
					"vectors", "addr", "name",    "bootindex" };

static bool options_is_nic_key(const char *key)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nic_keys); i++)
		if (!strcmp(key, nic_keys[i]))
			return true;
	return false;
}

/* A backend from the list's keys, without those that are used already; nic: those of a card. */
static int options_backend_add(struct options *o, struct keyval *k, const char *type,
			       const char *id, bool nic, struct err *e)
{
	struct netdev_opts *n = &o->cfg.netdev[o->cfg.nnetdevs];
	int kind = netdev_kind(type, e), r;

	if (kind < 0)
		return err_prefix(e, "%s", k->option);
	if (kind == NETDEV_USER && !netdev_has_user())
		return err_set(e, ENOTSUP,
			       "%s %s: this program was built without libslirp: install "
			       "libslirp-dev and build it again, or give -nic none",
			       k->option, type);
	if (o->cfg.nnetdevs == CONFIG_NETDEVS)
		return err_set(e, E2BIG, "%s: more than %d network backends", k->option,
			       CONFIG_NETDEVS);
	for (unsigned i = 0; i < o->cfg.nnetdevs; i++)
		if (!strcmp(o->cfg.netdev[i].id, id))
			return err_set(e, EEXIST, "%s: the id '%s' is taken", k->option, id);
	r = netdev_opts_init(n, (enum netdev_kind)kind, id, e);
	for (unsigned i = 0; i < k->n && r == 0; i++) {
		const char *key = k->kv[i].key;

		if (k->kv[i].used || !strcmp(key, "type") ||
		    (nic && options_is_nic_key(key) && !netdev_opts_knows(n->kind, key)))
			continue;
		r = netdev_opts_set(n, key, k->kv[i].val, e);
		k->kv[i].used = true;
	}
	if (r == 0)
		r = netdev_opts_check(n, e);
	if (r) {
		netdev_opts_free(n);
		return err_prefix(e, "%s %s", k->option, type);
	}
	o->cfg.nnetdevs++;
	return 0;
}

static bool options_help(const char *arg)
{
	return !strcmp(arg, "help") || !strcmp(arg, "?");
}

int options_netdev(struct options *o, const char *arg, struct err *e)
{
	const char *type, *id;
	struct keyval k;
	int r;

	if (options_help(arg)) {
		netdev_opts_help(o->out);
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-netdev", arg, "type", e);
	if (r < 0)
		return r;
	type = keyval_get(&k, "type");
	id = keyval_get(&k, "id");
	if (type && netdev_kind(type, e) < 0)
		r = err_prefix(e, "-netdev");
	else if (!id || !*id)
		r = err_set(e, EINVAL, "-netdev %s: an id is needed: -netdev %s,id=NAME", arg, arg);
	else
		r = options_backend_add(o, &k, type ? type : "", id, false, e);
	keyval_free(&k);
	return r;
}

/* The card of a -nic or -net nic. netdev: the id of its backend, or NULL. */
static int options_nic_add(struct options *o, struct keyval *k, const char *netdev, struct err *e)
{
	struct nic_config n = { 0 };
	const char *mac = keyval_get(k, "mac"), *mac2 = keyval_get(k, "macaddr");
	const char *model = keyval_get(k, "model"), *id = keyval_get(k, "id");
	uint8_t bytes[6];
	int r = 0;

	(void)keyval_get(k, "name");
	(void)keyval_get(k, "vectors");
	mac = mac ? mac : mac2;
	if (keyval_get(k, "addr") || keyval_get(k, "bootindex"))
		return err_set(e, ENOTSUP, "%s: addr and bootindex belong to -device", k->option);
	if (mac && net_mac_parse(mac, bytes, e))
		return err_prefix(e, "%s", k->option);
	if (o->cfg.nnics == CONFIG_NICS)
		return err_set(e, E2BIG, "%s: more than %d network cards", k->option, CONFIG_NICS);
	if ((id && strchr(id, ',')) || (model && strchr(model, ',')) ||
	    (netdev && strchr(netdev, ',')))
		return err_set(e, EINVAL, "%s: no comma in id, model or netdev", k->option);
	if (mac && !(n.mac = options_keep(o, mac, e)))
		r = -ENOMEM;
	if (model && !(n.model = options_keep(o, model, e)))
		r = -ENOMEM;
	if (id && !(n.id = options_keep(o, id, e)))
		r = -ENOMEM;
	if (netdev && !(n.netdev = options_keep(o, netdev, e)))
		r = -ENOMEM;
	if (r == 0)
		o->cfg.nic[o->cfg.nnics++] = n;
	o->wants_pci = true;
	return r;
}

/* Backends of -nic and -net have ids that nobody can give: they begin with '#'. */
static void options_own_id(const struct options *o, char *id, size_t n)
{
	snprintf(id, n, "#net%u", o->cfg.nnetdevs);
}

static bool options_model_help(struct options *o, const char *model)
{
	if (!model || !options_help(model))
		return false;
	fprintf(o->out, "virtio\n");
	o->done = true;
	return true;
}

int options_nic(struct options *o, const char *arg, struct err *e)
{
	const char *type;
	char id[16];
	struct keyval k;
	int r;

	if (options_help(arg))
		return options_netdev(o, arg, e);
	r = keyval_parse(&k, "-nic", arg, "type", e);
	if (r < 0)
		return r;
	type = keyval_get(&k, "type");
	o->net_given = true;
	if (options_model_help(o, keyval_get(&k, "model"))) {
		r = 0;
	} else if (type && !strcmp(type, "none")) {
		r = k.n > 1 ? err_set(e, EINVAL, "-nic none takes nothing else") : 0;
	} else {
		options_own_id(o, id, sizeof(id));
		r = options_backend_add(o, &k, type ? type : "user", id, true, e);
		if (r == 0)
			r = options_nic_add(o, &k, id, e);
	}
	keyval_free(&k);
	return r;
}

/* -net: one card and one backend make a pair. */
int options_net(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "model", "macaddr", "netdev", "name", "id", NULL };
	const char *type, *netdev;
	char id[16];
	struct keyval k;
	int r;

	if (options_help(arg))
		return options_netdev(o, arg, e);
	r = keyval_parse(&k, "-net", arg, "type", e);
	if (r < 0)
		return r;
	type = keyval_get(&k, "type");
	type = type ? type : "";
	o->net_given = true;
	if (!strcmp(type, "none")) {
		r = k.n > 1 ? err_set(e, EINVAL, "-net none takes nothing else") : 0;
	} else if (options_model_help(o, keyval_get(&k, "model"))) {
		r = 0;
	} else if (!strcmp(type, "nic")) {
		netdev = keyval_get(&k, "netdev");
		if (!netdev && o->net_nic++)
			r = err_set(e, ENOTSUP,
				    "-net nic is given twice: there are no hubs; give -nic for "
				    "each card");
		if (r == 0)
			r = options_nic_add(o, &k, netdev, e);
		if (r == 0)
			r = keyval_done(&k, known, e);
		if (r == 0 && !netdev)
			o->net_nic_at = o->cfg.nnics - 1;
	} else if (o->net_backend++) {
		r = err_set(e, ENOTSUP,
			    "-net %s: there is a backend already, and no hubs; give -nic for each "
			    "card",
			    type);
	} else {
		options_own_id(o, id, sizeof(id));
		(void)keyval_get(&k, "name");
		r = options_backend_add(o, &k, type, id, false, e);
		o->net_backend_id = r == 0 ? options_keep(o, id, e) : NULL;
		r = r == 0 && !o->net_backend_id ? -ENOMEM : r;
	}
	keyval_free(&k);
	return r;
}

/* Nobody said anything about networks: a card with user networking. */
static int options_default_nic(struct options *o, struct err *e)
{
	bool pci = o->wants_pci;
	int r;

	if (o->nodefaults || o->net_given || o->cfg.nnetdevs || !netdev_has_user())
		return 0;
	for (unsigned i = 0; i < o->cfg.ndevices; i++)
		if (!strncmp(o->cfg.device[i], "virtio-net", 10))
			return 0;
	r = options_nic(o, "user", e);
	o->wants_pci = pci; /* what the board is otherwise has this card, too */
	return r;
}

int options_net_defaults(struct options *o, struct err *e)
{
	if (options_default_nic(o, e) < 0)
		return -EINVAL;
	if (o->net_backend && !o->net_nic)
		return err_set(e, EINVAL,
			       "-net: a backend without a card; add -net nic, or give "
			       "-nic instead of both");
	if (o->net_nic && !o->net_backend)
		return err_set(e, EINVAL,
			       "-net nic: a card without a backend; add -net user, or give -nic");
	if (o->net_nic)
		o->cfg.nic[o->net_nic_at].netdev = o->net_backend_id;
	for (unsigned i = 0; i < o->cfg.ndumps; i++) {
		bool found = false;

		for (unsigned n = 0; n < o->cfg.nnetdevs; n++)
			found |= !strcmp(o->cfg.netdev[n].id, o->cfg.dump[i].netdev);
		if (!found)
			return err_set(e, ENOENT, "-object filter-dump: no -netdev has the id '%s'",
				       o->cfg.dump[i].netdev);
	}
	return 0;
}

int options_filter_dump(struct options *o, struct keyval *k, struct err *e)
{
	static const char *const known[] = { "id",     "netdev", "file",     "maxlen",
					     "status", "queue",  "position", NULL };
	const char *id = keyval_get(k, "id"), *netdev = keyval_get(k, "netdev");
	const char *file = keyval_get(k, "file"), *queue = keyval_get(k, "queue");
	unsigned maxlen = NET_DUMP_MAXLEN;
	struct dump_config *d = &o->cfg.dump[o->cfg.ndumps];
	int r = keyval_uint(k, "maxlen", 1, NET_DUMP_MAXLEN, &maxlen, e);

	if (r == 0)
		r = keyval_only(k, "status", true, "leave it out to have no capture", e);
	if (r == 0)
		r = keyval_done(k, known, e);
	if (r)
		return r;
	if (!id || !netdev || !file)
		return err_set(e, EINVAL, "-object filter-dump needs id=, netdev= and file=");
	if (queue && strcmp(queue, "all"))
		return err_set(e, ENOTSUP, "-object filter-dump: queue=%s: both directions only",
			       queue);
	if (o->cfg.ndumps == CONFIG_NETDEVS)
		return err_set(e, E2BIG, "-object filter-dump: more than %d", CONFIG_NETDEVS);
	*d = (struct dump_config){ options_keep(o, id, e), options_keep(o, netdev, e),
				   options_keep(o, file, e), maxlen };
	if (!d->id || !d->netdev || !d->file)
		return -ENOMEM;
	o->cfg.ndumps++;
	return 0;
}
