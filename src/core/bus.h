/*
 * The buses: which device answers at which port and at which memory address.
 *
 * Two address spaces, ports (64 KiB) and memory. Regions are claimed by devices in realize; the
 * set of regions is flattened into a sorted array at every change, and looked up by bisection. An
 * access of any size and alignment is cut into pieces so that each device sees only what it
 * declared: sizes min..max, naturally aligned relative to the start of its region, never past its
 * end:
 * - wider than max: several accesses, lowest address first (as the ISA bus does);
 * - read narrower than min: one aligned access of min, and the asked bytes are taken from it;
 * - write narrower than min: ignored, with a guest_error trace;
 * - nobody there: reads all ones, writes are ignored, guest_error trace.
 *
 * Values are little-endian numbers: byte i of an access is bits 8i+7..8i.
 *
 * Locking: device callbacks run under the device lock (core/lock.h) that lives here. A region
 * claimed with REGION_NOLOCK is called without it, by several vCPUs at once; such a callback must
 * not claim, unclaim or take the device lock.
 * Threads: accesses from any thread. Claims under the lock or before vCPUs run.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "core/lock.h"

struct dev;
struct doorbell;
struct bus;
struct trace_sink;

enum bus_space { BUS_IO, BUS_MEM, BUS_SPACES };

/* off is relative to the region's base and a multiple of size; size is 1, 2, 4 or 8. */
struct region_ops {
	uint64_t (*read)(struct dev *d, uint64_t off, unsigned size); /* NULL: reads all ones */
	void (*write)(struct dev *d, uint64_t off, uint64_t val, unsigned size); /* NULL: ignored */
	uint8_t min, max; /* sizes the device handles: powers of two, 1 <= min <= max <= 8 */
};

enum {
	REGION_OVERLAP = 1, /* may lie over or under another region of different prio */
	REGION_NOLOCK = 2,  /* callbacks without the device lock */
};

struct region {
	struct dev *dev;
	enum bus_space space;
	uint64_t base, len; /* len > 0, and the end does not wrap */
	const struct region_ops *ops;
	int prio; /* the highest answers where regions overlap; plain claims have 0 */
	unsigned flags;
};

/* sink: where the bus reports guest errors (may be NULL). NULL only when out of memory. */
struct bus *bus_new(struct trace_sink *sink);
void bus_free(struct bus *b);

/* The device lock of the machine. */
struct biglock *bus_lock_of(struct bus *b);
void bus_lock(struct bus *b);
void bus_unlock(struct bus *b);

/*
 * Claim a range of ports / of memory for d on d->bus. Overlapping another region is an error that
 * names the other device. 0 or -errno. On a failed realize the framework gives all claims back.
 */
int bus_claim(struct dev *d, uint64_t port, uint64_t len, const struct region_ops *ops,
	      struct err *e) must_check;
int bus_claim_mem(struct dev *d, uint64_t gpa, uint64_t len, const struct region_ops *ops,
		  struct err *e) must_check;

/* The general form. Overlaps need different prio and REGION_OVERLAP on at least one of the two. */
int bus_claim_region(struct bus *b, const struct region *r, struct err *e) must_check;

/* Give back the region of d that starts at base; unknown ones are ignored. */
void bus_unclaim(struct dev *d, enum bus_space space, uint64_t base);
void bus_unclaim_all(struct dev *d);

/* Give back exactly r (device, space, base and prio): one of several that a device has at a place.
 */
void bus_unclaim_region(struct bus *b, const struct region *r);

/*
 * A doorbell (core/dev.h): a write of an access that matches it counts its eventfd up and reaches
 * no device. The first of several that match rings. Devices use dev_doorbell(), which asks the
 * engine, too. Threads: add and remove under the lock or before vCPUs run. -ENOMEM; -EEXIST for the
 * same again.
 */
int bus_doorbell_add(struct bus *b, const struct doorbell *d, struct err *e) must_check;
void bus_doorbell_del(struct bus *b, const struct doorbell *d);

/* An access by a vCPU. size: 1..8 bytes (ports: 1, 2, 4). Ports wrap at 64 KiB, memory at 2^64. */
uint64_t bus_io_read(struct bus *b, uint16_t port, unsigned size);
void bus_io_write(struct bus *b, uint16_t port, uint64_t val, unsigned size);
uint64_t bus_mem_read(struct bus *b, uint64_t gpa, unsigned size);
void bus_mem_write(struct bus *b, uint64_t gpa, uint64_t val, unsigned size);

/* REP INS/OUTS: count accesses to one port, buf holds size*count little-endian bytes. */
void bus_io_read_rep(struct bus *b, uint16_t port, void *buf, unsigned size, uint32_t count);
void bus_io_write_rep(struct bus *b, uint16_t port, const void *buf, unsigned size, uint32_t count);

/* Region number i of a space in flattened order (ranges that answer), false at the end. */
bool bus_region_at(struct bus *b, enum bus_space space, size_t i, struct region *out);
