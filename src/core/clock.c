/*
 * See clock.h. In host mode now = CLOCK_MONOTONIC - offset; stopping remembers the value and
 * starting recomputes the offset, so stopped time never existed for the guest.
 */
#include "core/clock.h"

#include <time.h>

static uint64_t clock_host(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

void clock_init_host(struct clock *c)
{
	*c = (struct clock){ 0 };
	c->offset = clock_host(CLOCK_MONOTONIC);
}

void clock_init_virtual(struct clock *c, uint64_t start_ns, int64_t wall_ns)
{
	*c = (struct clock){ .is_virtual = true, .wall_base = wall_ns };
	c->frozen = start_ns;
}

uint64_t clock_now(const struct clock *c)
{
	if (c->is_virtual || c->stopped)
		return c->frozen;
	return clock_host(CLOCK_MONOTONIC) - c->offset;
}

int64_t clock_wall(const struct clock *c)
{
	if (c->is_virtual)
		return c->wall_base + (int64_t)c->frozen;
	return (int64_t)clock_host(CLOCK_REALTIME);
}

void clock_advance(struct clock *c, uint64_t ns)
{
	if (c->is_virtual)
		c->frozen += ns;
}

void clock_stop(struct clock *c)
{
	if (c->stopped)
		return;
	c->frozen = clock_now(c);
	c->stopped = true;
}

void clock_start(struct clock *c)
{
	if (!c->stopped)
		return;
	if (!c->is_virtual)
		c->offset = clock_host(CLOCK_MONOTONIC) - c->frozen;
	c->stopped = false;
}

void clock_set(struct clock *c, uint64_t now_ns)
{
	c->frozen = now_ns;
	if (!c->is_virtual && !c->stopped)
		c->offset = clock_host(CLOCK_MONOTONIC) - now_ns;
}
