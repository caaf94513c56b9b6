/*
 * A one-shot timer in host time. The loop's own timers follow the machine's clock, which stands
 * still while the machine is stopped; a peer on the host does not wait for that.
 * Threads: under the device lock, or in the loop.
 */
#pragma once
#include <stdbool.h>

#include "core/loop.h"

struct tick {
	struct loop *loop;
	struct loop_fd fd; /* a timerfd; fd.fd -1: never armed */
	void (*fn)(void *opaque);
	void *opaque;
	bool armed;
};

void tick_init(struct tick *t, struct loop *l, void (*fn)(void *opaque), void *opaque);

/* fn(opaque) runs once in the loop, ms milliseconds from now (0: as soon as may be). */
void tick_arm(struct tick *t, unsigned ms);
void tick_stop(struct tick *t);
void tick_free(struct tick *t);
