/* See netdev.h: cables, the common part of netdevs, the list by id. */
#include "backend/net/netdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/offload.h"
#include "base/bits.h"
#include "base/bug.h"

size_t netpkt_get(const struct netpkt *pkt, size_t off, void *buf, size_t len)
{
	size_t got = 0;

	for (unsigned i = 0; i < pkt->n && got < len; i++) {
		size_t have = pkt->iov[i].iov_len, n;

		if (off >= have) {
			off -= have;
			continue;
		}
		n = MIN(have - off, len - got);
		memcpy((uint8_t *)buf + got, (const uint8_t *)pkt->iov[i].iov_base + off, n);
		got += n;
		off = 0;
	}
	return got;
}

struct netpkt netpkt_of(struct iovec *iov, const void *buf, size_t len, const struct net_hdr *hdr)
{
	*iov = (struct iovec){ (void *)buf, len };
	return (struct netpkt){
		.iov = iov, .n = 1, .len = len, .hdr = hdr ? *hdr : (struct net_hdr){ 0 }
	};
}

/* --- cables --- */

bool net_link(const struct netport *p)
{
	return p->peer && p->nd->link_up && p->nd->connected;
}

static bool net_deliver(void *opaque, const struct netpkt *pkt)
{
	struct netport *to = opaque;

	if (to->ops->receive(to, pkt))
		return true;
	to->owes_room = true;
	return false;
}

bool net_send(struct netport *p, const struct netpkt *pkt)
{
	bool from_guest, lost = false;

	if (!net_link(p) || pkt->len < NET_ETH_MIN || pkt->len > NET_FRAME_MAX) {
		p->lost++;
		p->cut_done = 0;
		return true;
	}
	if (!net_finish(pkt, p->peer->accepts, &p->cut_done, &lost, net_deliver, p->peer))
		return false;
	p->cut_done = 0;
	p->lost += lost;
	p->sent += !lost;
	from_guest = p != &p->nd->port[p->queue];
	for (struct netfilter *f = p->nd->filters; f; f = f->next)
		f->frame(f, from_guest, pkt);
	return true;
}

void net_flush(struct netport *p)
{
	if (p->peer && p->peer->ops->flush)
		p->peer->ops->flush(p->peer);
}

void net_room(struct netport *p)
{
	if (!p->owes_room)
		return;
	p->owes_room = false;
	if (p->peer && p->peer->ops->room)
		p->peer->ops->room(p->peer);
}

void net_forget(struct netport *p)
{
	p->cut_done = 0;
	if (p->peer)
		p->peer->owes_room = false;
}

static void net_changed(struct netport *p)
{
	if (p && p->ops->changed)
		p->ops->changed(p);
}

void net_accepts(struct netport *p, unsigned accepts)
{
	if (p->accepts == accepts)
		return;
	p->accepts = accepts;
	net_changed(p->peer);
}

void net_serve(struct netport *p, bool on)
{
	if (p->off == !on)
		return;
	p->off = !on;
	net_changed(p->peer);
}

/* --- the host's end --- */

int netdev_init(struct netdev *nd, const struct netdev_ops *ops, struct loop *l, const char *id,
		unsigned queues, const struct netport_ops *port, unsigned accepts, struct err *e)
{
	BUG_ON(queues < 1 || queues > NET_QUEUES_MAX);
	nd->ops = ops;
	nd->loop = l;
	nd->queues = queues;
	nd->link_up = nd->connected = true;
	nd->id = strdup(id);
	if (!nd->id)
		return err_set(e, ENOMEM, "netdev %s: out of memory", id);
	for (unsigned i = 0; i < queues; i++)
		nd->port[i] =
			(struct netport){ .ops = port, .accepts = accepts, .queue = i, .nd = nd };
	return 0;
}

/* Tell both ends of each cable, and let those go on who wait: their frames are swallowed now. */
static void netdev_link_changed(struct netdev *nd)
{
	for (unsigned i = 0; i < nd->queues; i++) {
		struct netport *p = &nd->port[i], *peer = p->peer;

		net_changed(p);
		net_changed(peer);
		net_room(p);
		if (peer)
			net_room(peer);
	}
}

void netdev_connected(struct netdev *nd, bool connected)
{
	if (nd->connected == connected)
		return;
	nd->connected = connected;
	netdev_link_changed(nd);
}

void netdev_set_link(struct netdev *nd, bool up)
{
	if (nd->link_up == up)
		return;
	nd->link_up = up;
	netdev_link_changed(nd);
}

int netdev_attach(struct netdev *nd, struct netport *nic, unsigned queues, struct err *e)
{
	if (nd->attached)
		return err_set(e, EBUSY, "netdev %s is in use already", nd->id);
	if (queues > nd->queues)
		return err_set(e, EINVAL, "netdev %s has %u queue%s, the device wants %u", nd->id,
			       nd->queues, nd->queues > 1 ? "s" : "", queues);
	nd->attached = true;
	for (unsigned i = 0; i < queues; i++) {
		nic[i].queue = i;
		nic[i].nd = nd;
		nic[i].peer = &nd->port[i];
		nd->port[i].peer = &nic[i];
		nic[i].owes_room = nd->port[i].owes_room = false;
		nic[i].cut_done = nd->port[i].cut_done = 0;
	}
	for (unsigned i = 0; i < nd->queues; i++) /* those without a peer, too */
		net_changed(&nd->port[i]);
	return 0;
}

void netdev_detach(struct netdev *nd)
{
	if (!nd || !nd->attached)
		return;
	nd->attached = false;
	for (unsigned i = 0; i < nd->queues; i++) {
		struct netport *p = &nd->port[i], *nic = p->peer;

		if (nic) {
			nic->peer = NULL;
			nic->nd = NULL;
			nic->owes_room = false;
		}
		p->peer = NULL;
		p->cut_done = 0;
		net_changed(p);
		p->owes_room = false;
	}
}

int netdev_set_loop(struct netdev *nd, struct loop *l, struct err *e)
{
	int r = 0;

	if (l == nd->loop)
		return 0;
	if (nd->ops->set_loop)
		r = nd->ops->set_loop(nd, l, e);
	if (r == 0)
		nd->loop = l;
	return r;
}

int netdev_move_fd(struct netdev *nd, struct loop_fd *f, struct loop *l, struct err *e)
{
	unsigned events = f->events;

	if (f->fd < 0)
		return 0;
	loop_fd_del(nd->loop, f);
	return loop_fd_add(l, f, events, e);
}

void netdev_add_filter(struct netdev *nd, struct netfilter *f)
{
	struct netfilter **p = &nd->filters;

	while (*p)
		p = &(*p)->next;
	f->nd = nd;
	f->next = NULL;
	*p = f;
}

void netdev_free(struct netdev *nd)
{
	if (!nd)
		return;
	netdev_detach(nd);
	for (struct netfilter *f = nd->filters, *n; f; f = n) {
		n = f->next;
		free(f->id);
		f->free(f);
	}
	free(nd->id);
	nd->ops->free(nd);
}

int netdevs_add(struct netdevs *ns, struct netdev *nd, struct err *e)
{
	struct netdev **p = &ns->first;

	if (netdevs_find(ns, nd->id))
		return err_set(e, EEXIST, "there is a netdev with the id %s already", nd->id);
	while (*p)
		p = &(*p)->next;
	*p = nd;
	return 0;
}

struct netdev *netdevs_find(const struct netdevs *ns, const char *id)
{
	struct netdev *nd = ns->first;

	while (nd && strcmp(nd->id, id) != 0)
		nd = nd->next;
	return nd;
}

void netdevs_free(struct netdevs *ns)
{
	for (struct netdev *nd = ns->first, *n; nd; nd = n) {
		n = nd->next;
		netdev_free(nd);
	}
	ns->first = NULL;
}
