/*
 * For tests of network backends: a loop with the host's clock and a NIC that keeps what it gets.
 * Include after cmocka.
 */
#pragma once
#include <stdlib.h>
#include <string.h>

#include "backend/net/kinds.h"
#include "base/bits.h"

enum { NETTEST_FRAMES = 2048 };

struct nettest {
	struct clock clock;
	struct loop *loop;
	struct netdev *nd; /* made by the test; freed by nettest_free */
	struct netport nic;
	unsigned room, rooms, flushes, changes;
	unsigned n, patience;
	struct {
		size_t len;
		struct net_hdr hdr;
		uint8_t *bytes;
	} got[NETTEST_FRAMES];
};

static inline bool nettest_receive(struct netport *p, const struct netpkt *pkt)
{
	struct nettest *t = container_of(p, struct nettest, nic);

	if (!t->room)
		return false;
	t->room--;
	assert_true(t->n < NETTEST_FRAMES);
	t->got[t->n].len = pkt->len;
	t->got[t->n].hdr = pkt->hdr;
	t->got[t->n].bytes = malloc(pkt->len);
	assert_int_equal(netpkt_get(pkt, 0, t->got[t->n].bytes, pkt->len), pkt->len);
	t->n++;
	return true;
}

static inline void nettest_room(struct netport *p)
{
	container_of(p, struct nettest, nic)->rooms++;
}

static inline void nettest_flush(struct netport *p)
{
	container_of(p, struct nettest, nic)->flushes++;
}

static inline void nettest_changed(struct netport *p)
{
	container_of(p, struct nettest, nic)->changes++;
}

static inline void nettest_new(struct nettest *t)
{
	static const struct netport_ops ops = { nettest_receive, nettest_room, nettest_flush,
						nettest_changed };

	memset(t, 0, sizeof(*t));
	clock_init_host(&t->clock);
	t->loop = loop_new(&t->clock, NULL);
	assert_non_null(t->loop);
	t->nic.ops = &ops;
	t->room = UINT32_MAX;
}

static inline void nettest_clear(struct nettest *t)
{
	while (t->n)
		free(t->got[--t->n].bytes);
}

static inline void nettest_free(struct nettest *t)
{
	netdev_free(t->nd);
	nettest_clear(t);
	loop_free(t->loop);
}

static inline void nettest_tick(void *opaque)
{
	*(bool *)opaque = true;
}

/* Serve the loop for so many ms. */
static inline void nettest_run(struct nettest *t, unsigned ms)
{
	bool done = false;
	struct timer tm;

	timer_init(&tm, t->loop, nettest_tick, &done);
	timer_arm(&tm, clock_now(&t->clock) + ms * NS_PER_MS);
	while (!done)
		loop_step(t->loop, true);
	while (loop_step(t->loop, false))
		;
	timer_cancel(&tm);
}

/* Until the NIC has n frames; false after two seconds. */
static inline bool nettest_wait(struct nettest *t, unsigned n)
{
	for (unsigned i = 0; i < 2000 && t->n < n; i++)
		nettest_run(t, 1);
	return t->n >= n;
}

static inline void nettest_send(struct nettest *t, const void *frame, size_t len,
				const struct net_hdr *hdr)
{
	struct iovec iov;
	struct netpkt p = netpkt_of(&iov, frame, len, hdr);

	assert_true(net_send(&t->nic, &p));
	net_flush(&t->nic);
}

/* "key=value,key=value" as a command line has it. */
static inline int nettest_opts(struct netdev_opts *o, enum netdev_kind kind, const char *text,
			       struct err *e)
{
	char *copy = strdup(text), *save = NULL;
	int r = netdev_opts_init(o, kind, "n0", e);

	for (char *s = strtok_r(copy, ",", &save); s && !r; s = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(s, '=');

		*eq = 0;
		r = netdev_opts_set(o, s, eq + 1, e);
	}
	free(copy);
	return r ? r : netdev_opts_check(o, e);
}
