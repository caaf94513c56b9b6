/*
 * Traces: what devices do, for us. One branch on a byte when off.
 *
 * A trace source (each device has one, the bus has one) is switched on by name with a pattern, at
 * the start or while running. An event is a static name and up to four numbers, for example
 * trace(d, "ier", val). guest_error() is for a guest that does what hardware would not like; it
 * goes the same way, but at most TRACE_ERRORS_PER_SEC of a source a second, since a guest can
 * repeat it for ever. Events go to standard error or to a ring of the last TRACE_RING.
 * Threads: emitting from any thread. Switching: under the device lock.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/bits.h"

#define TRACE_RING           4096
#define TRACE_ARGS           4
#define TRACE_ERRORS_PER_SEC 10

struct trace_sink;

struct trace_src {
	uint8_t on;       /* the byte that is tested */
	uint8_t error_n;  /* guest errors in the current second */
	uint32_t errors;  /* all guest errors; saturates */
	uint64_t error_t; /* host time in s of the current second */
	const char *name;
	struct trace_sink *sink;
	struct trace_src *next; /* private: the sink's list */
};

/* NULL only when out of memory. Standard error, nothing on. */
struct trace_sink *trace_sink_new(void);
void trace_sink_free(struct trace_sink *s);

/* Keep the last TRACE_RING events in memory instead of printing them. */
void trace_sink_ring(struct trace_sink *s, bool on);
void trace_sink_dump(struct trace_sink *s, FILE *out);

/* A source joins (name must live as long) and is on if an earlier pattern matches; sink may be
 * NULL. */
void trace_src_add(struct trace_sink *s, struct trace_src *src, const char *name);
void trace_src_del(struct trace_src *src);

/* Switch all sources, now and later, whose name matches the glob(7) pattern. The last match rules.
 */
void trace_switch(struct trace_sink *s, const char *pattern, bool on);

void trace_emit(const struct trace_src *src, const char *event, unsigned n, const uint64_t *args);
void trace_guest_error(struct trace_src *src, const char *event, unsigned n, const uint64_t *args);

/* clang-format off */
#define TRACE_CALL(fn, src, ev, ...) do { \
	const uint64_t targs_[] = { 0, ##__VA_ARGS__ }; \
	_Static_assert(ARRAY_SIZE(targs_) <= TRACE_ARGS + 1, "too many trace arguments"); \
	fn((src), (ev), ARRAY_SIZE(targs_) - 1, targs_ + 1); \
} while (0)

/* d: pointer to a struct with a struct trace_src member tr (struct dev, for one). */
#define trace(d, ev, ...) do { \
	if (unlikely((d)->tr.on)) \
		TRACE_CALL(trace_emit, &(d)->tr, ev, ##__VA_ARGS__); \
} while (0)
#define guest_error(d, ev, ...) TRACE_CALL(trace_guest_error, &(d)->tr, ev, ##__VA_ARGS__)
/* clang-format on */
