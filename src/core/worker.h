/*
 * Worker threads for what has no non-blocking form (image files, name look-ups, compression).
 *
 * A work item is embedded in its user: fn runs on some worker, without the device lock; then done
 * runs in the loop, with it. Items start in the order of submission and finish in any order.
 * Threads: workers_submit from any thread; new and free from the loop's thread.
 */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "core/loop.h"

struct workers;

struct work {
	void (*fn)(struct work *w);   /* on a worker; must not touch devices or the loop */
	void (*done)(struct work *w); /* in the loop; w->cancelled tells that fn never ran */
	bool cancelled;
	struct work *next; /* private */
};

/* Threads are started when they are first needed, up to max (1..64). NULL and e on failure. */
struct workers *workers_new(struct loop *l, unsigned max, struct err *e);

/* The item must live until done was called. */
void workers_submit(struct workers *p, struct work *w);

/* Call done of the items that have ended: for who holds the loop's lock and waits for one. */
void workers_poll(struct workers *p);

/* Wait for running items, cancel waiting ones, call every outstanding done. */
void workers_free(struct workers *p);
