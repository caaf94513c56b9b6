/*
 * See bus.h. A space keeps its claimed regions and, rebuilt at each change, the flat array of
 * ranges that answer. A reader-writer lock covers both; accesses hold the read side only to find
 * the range, unless the range is REGION_NOLOCK, and then look again under the device lock if the
 * generation moved: nothing is claimed or unclaimed without that lock.
 */
#include "core/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bug.h"
#include "core/dev.h"

#define BUS_IO_END 0x10000ull

/* A range [base, last] of the flat view, answered by one region. */
struct bus_range {
	uint64_t base, last;
	struct region r;
};

struct bus_map {
	const char *name;
	struct region *regions;
	size_t n_regions;
	struct bus_range *flat;
	size_t n_flat;
	struct doorbell *bells; /* sorted by address */
	_Atomic size_t n_bells; /* written with the lock; peeked at without */
	pthread_rwlock_t lock;
	_Atomic uint64_t gen; /* changes with flat */
};

struct bus {
	struct biglock lock;
	struct trace_src tr;
	struct bus_map maps[BUS_SPACES];
};

struct bus *bus_new(struct trace_sink *sink)
{
	struct bus *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	biglock_init(&b->lock);
	trace_src_add(sink, &b->tr, "bus");
	b->maps[BUS_IO].name = "port";
	b->maps[BUS_MEM].name = "address";
	for (int i = 0; i < BUS_SPACES; i++)
		pthread_rwlock_init(&b->maps[i].lock, NULL);
	return b;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	for (int i = 0; i < BUS_SPACES; i++) {
		pthread_rwlock_destroy(&b->maps[i].lock);
		free(b->maps[i].regions);
		free(b->maps[i].flat);
		free(b->maps[i].bells);
	}
	trace_src_del(&b->tr);
	biglock_destroy(&b->lock);
	free(b);
}

struct biglock *bus_lock_of(struct bus *b)
{
	return &b->lock;
}

void bus_lock(struct bus *b)
{
	biglock_lock(&b->lock);
}

void bus_unlock(struct bus *b)
{
	biglock_unlock(&b->lock);
}

/* --- claims --- */

static uint64_t region_last(const struct region *r)
{
	return r->base + r->len - 1;
}

static int bus_u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static const struct region *bus_top(const struct bus_map *m, uint64_t addr)
{
	const struct region *top = NULL;

	for (size_t i = 0; i < m->n_regions; i++) {
		const struct region *r = &m->regions[i];

		if (addr >= r->base && addr <= region_last(r) && (!top || r->prio > top->prio))
			top = r;
	}
	return top;
}

/* Rebuild the flat view: between two neighbouring edges the same region answers. */
static int bus_flatten(struct bus_map *m)
{
	size_t n = 0, out = 0;
	uint64_t *edge = calloc(2 * m->n_regions + 1, sizeof(*edge));
	struct bus_range *flat = calloc(2 * m->n_regions + 1, sizeof(*flat));

	if (!edge || !flat) {
		free(edge);
		free(flat);
		return -ENOMEM;
	}
	for (size_t i = 0; i < m->n_regions; i++) {
		edge[n++] = m->regions[i].base;
		if (region_last(&m->regions[i]) != UINT64_MAX)
			edge[n++] = region_last(&m->regions[i]) + 1;
	}
	qsort(edge, n, sizeof(*edge), bus_u64_cmp);
	for (size_t i = 0; i < n; i++) {
		const struct region *r = bus_top(m, edge[i]);
		uint64_t last = i + 1 < n ? edge[i + 1] - 1 : UINT64_MAX;

		if (!r || (i + 1 < n && edge[i + 1] == edge[i]))
			continue;
		if (out && flat[out - 1].last + 1 == edge[i] && flat[out - 1].r.dev == r->dev &&
		    flat[out - 1].r.base == r->base && flat[out - 1].r.ops == r->ops &&
		    flat[out - 1].r.prio == r->prio)
			flat[out - 1].last = last;
		else
			flat[out++] = (struct bus_range){ .base = edge[i], .last = last, .r = *r };
	}
	free(edge);
	free(m->flat);
	m->flat = flat;
	m->n_flat = out;
	m->gen++;
	return 0;
}

static bool bus_is_size(unsigned n)
{
	return n == 1 || n == 2 || n == 4 || n == 8;
}

int bus_claim_region(struct bus *b, const struct region *r, struct err *e)
{
	struct bus_map *m = &b->maps[r->space];
	uint64_t end = r->space == BUS_IO ? BUS_IO_END - 1 : UINT64_MAX;
	struct region *grown;
	int rc = 0;

	BUG_ON(!bus_is_size(r->ops->min) || !bus_is_size(r->ops->max) || r->ops->min > r->ops->max);
	if (!r->len || r->base > end || r->len - 1 > end - r->base)
		return err_set(e, EINVAL, "%s: %s 0x%" PRIx64 "+0x%" PRIx64 " is out of range",
			       r->dev->id, m->name, r->base, r->len);
	bus_lock(b);
	pthread_rwlock_wrlock(&m->lock);
	for (size_t i = 0; i < m->n_regions && !rc; i++) {
		const struct region *o = &m->regions[i];

		if (r->base > region_last(o) || o->base > region_last(r) ||
		    ((r->flags | o->flags) & REGION_OVERLAP && r->prio != o->prio))
			continue;
		rc = err_set(e, EEXIST,
			     "%s: %s 0x%" PRIx64 "-0x%" PRIx64 " is taken by %s (0x%" PRIx64
			     "-0x%" PRIx64 ")",
			     r->dev->id, m->name, r->base, region_last(r), o->dev->id, o->base,
			     region_last(o));
	}
	grown = rc ? NULL : realloc(m->regions, (m->n_regions + 1) * sizeof(*grown));
	if (grown) {
		m->regions = grown;
		m->regions[m->n_regions++] = *r;
		rc = bus_flatten(m);
		if (rc)
			m->n_regions--;
	}
	if ((!grown && !rc) || rc == -ENOMEM)
		rc = err_set(e, ENOMEM, "%s: out of memory", r->dev->id);
	pthread_rwlock_unlock(&m->lock);
	bus_unlock(b);
	return rc;
}

int bus_claim(struct dev *d, uint64_t port, uint64_t len, const struct region_ops *ops,
	      struct err *e)
{
	struct region r = { .dev = d, .space = BUS_IO, .base = port, .len = len, .ops = ops };

	return bus_claim_region(d->bus, &r, e);
}

int bus_claim_mem(struct dev *d, uint64_t gpa, uint64_t len, const struct region_ops *ops,
		  struct err *e)
{
	struct region r = { .dev = d, .space = BUS_MEM, .base = gpa, .len = len, .ops = ops };

	return bus_claim_region(d->bus, &r, e);
}

/* Drop d's regions of a space: those at *base, or all; with prio only that one. */
static void bus_drop(struct dev *d, enum bus_space space, const uint64_t *base, const int *prio)
{
	struct bus_map *m = &d->bus->maps[space];
	size_t n = 0;

	bus_lock(d->bus);
	pthread_rwlock_wrlock(&m->lock);
	for (size_t i = 0; i < m->n_regions; i++) {
		const struct region *r = &m->regions[i];

		if (r->dev != d || (base && r->base != *base) || (prio && r->prio != *prio))
			m->regions[n++] = *r;
	}
	if (n != m->n_regions) {
		m->n_regions = n;
		/* No half-way: a range that still pointed at a freed device would be used. */
		BUG_ON(bus_flatten(m));
	}
	pthread_rwlock_unlock(&m->lock);
	bus_unlock(d->bus);
}

void bus_unclaim(struct dev *d, enum bus_space space, uint64_t base)
{
	bus_drop(d, space, &base, NULL);
}

void bus_unclaim_all(struct dev *d)
{
	for (int i = 0; i < BUS_SPACES; i++)
		bus_drop(d, (enum bus_space)i, NULL, NULL);
}

void bus_unclaim_region(struct bus *b, const struct region *r)
{
	bus_drop(r->dev, r->space, &r->base, &r->prio);
}

bool bus_region_at(struct bus *b, enum bus_space space, size_t i, struct region *out)
{
	struct bus_map *m = &b->maps[space];
	bool ok;

	pthread_rwlock_rdlock(&m->lock);
	ok = i < m->n_flat;
	if (ok) {
		*out = m->flat[i].r;
		out->base = m->flat[i].base;
		out->len = m->flat[i].last - m->flat[i].base + 1;
	}
	pthread_rwlock_unlock(&m->lock);
	return ok;
}

/* --- doorbells --- */

static bool bus_bell_same(const struct doorbell *a, const struct doorbell *b)
{
	return a->addr == b->addr && a->len == b->len && a->match == b->match &&
	       (!a->match || a->value == b->value);
}

/* Index of the first bell at or above addr. */
static size_t bus_bell_at(const struct bus_map *m, uint64_t addr)
{
	size_t lo = 0, hi = m->n_bells;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (m->bells[mid].addr < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_doorbell_add(struct bus *b, const struct doorbell *d, struct err *e)
{
	struct bus_map *m = &b->maps[d->space];
	struct doorbell *grown;
	size_t at, i;
	int rc = 0;

	bus_lock(b);
	pthread_rwlock_wrlock(&m->lock);
	at = bus_bell_at(m, d->addr);
	for (i = at; i < m->n_bells && m->bells[i].addr == d->addr && !rc; i++)
		if (bus_bell_same(&m->bells[i], d))
			rc = err_set(e, EEXIST, "doorbell at %s 0x%" PRIx64 ": there is one",
				     m->name, d->addr);
	grown = rc ? NULL : realloc(m->bells, (m->n_bells + 1) * sizeof(*grown));
	if (grown) {
		m->bells = grown;
		memmove(&grown[at + 1], &grown[at], (m->n_bells - at) * sizeof(*grown));
		grown[at] = *d;
		m->n_bells++;
	} else if (!rc) {
		rc = err_set(e, ENOMEM, "doorbell: out of memory");
	}
	pthread_rwlock_unlock(&m->lock);
	bus_unlock(b);
	return rc;
}

void bus_doorbell_del(struct bus *b, const struct doorbell *d)
{
	struct bus_map *m = &b->maps[d->space];

	bus_lock(b);
	pthread_rwlock_wrlock(&m->lock);
	for (size_t i = bus_bell_at(m, d->addr); i < m->n_bells && m->bells[i].addr == d->addr; i++)
		if (bus_bell_same(&m->bells[i], d)) {
			m->n_bells--;
			memmove(&m->bells[i], &m->bells[i + 1],
				(m->n_bells - i) * sizeof(*m->bells));
			break;
		}
	pthread_rwlock_unlock(&m->lock);
	bus_unlock(b);
}

/* With the map's lock. True: a bell took the write. */
static bool bus_ring(const struct bus_map *m, uint64_t addr, uint64_t val, unsigned size)
{
	const uint64_t one = 1;

	for (size_t i = bus_bell_at(m, addr); i < m->n_bells && m->bells[i].addr == addr; i++) {
		const struct doorbell *d = &m->bells[i];

		if ((d->len && d->len != size) || (d->match && d->value != val))
			continue;
		/* A full counter rings, too. */
		return write(d->fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN;
	}
	return false;
}

/* --- accesses --- */

/* With either lock. The range of addr; NULL and *gap = bytes until the next range (0: none). */
static const struct bus_range *bus_find(const struct bus_map *m, uint64_t addr, uint64_t *gap)
{
	size_t lo = 0, hi = m->n_flat;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (addr < m->flat[mid].base)
			hi = mid;
		else if (addr > m->flat[mid].last)
			lo = mid + 1;
		else
			return &m->flat[mid];
	}
	*gap = lo < m->n_flat ? m->flat[lo].base - addr : 0;
	return NULL;
}

static uint64_t bus_ones(unsigned bytes)
{
	return bytes >= 8 ? UINT64_MAX : BIT(8 * bytes) - 1;
}

/* One device access of an allowed size; the value of a read is trimmed: devices may be sloppy. */
static uint64_t bus_call(const struct region *r, uint64_t off, uint64_t val, unsigned n, bool write)
{
	if (write) {
		if (r->ops->write)
			r->ops->write(r->dev, off, val & bus_ones(n), n);
		return 0;
	}
	return (r->ops->read ? r->ops->read(r->dev, off, n) : UINT64_MAX) & bus_ones(n);
}

/*
 * The part of an access [addr, addr+size) that one range can answer at once: reads into / writes
 * from *val at its low bytes, returns the bytes done. The first byte decides who answers, up to the
 * end of that region, even where a higher one lies over the rest: a dword to CF8h is the host
 * bridge's, although CF9h alone is the reset register.
 */
static unsigned bus_part(struct bus *b, const struct bus_range *g, uint64_t addr, unsigned size,
			 uint64_t *val, bool write)
{
	const struct region_ops *ops = g->r.ops;
	uint64_t off = addr - g->r.base, room = region_last(&g->r) - addr;
	unsigned n = ops->max;

	while (n > 1 && (n > size || n - 1 > room || off % n))
		n /= 2;
	if (n >= ops->min) {
		*val = bus_call(&g->r, off, *val, n, write);
		return n;
	}
	/* narrower than the device knows, or an odd edge of its region */
	if (write) {
		guest_error(b, "narrow_write", addr, n);
	} else {
		uint64_t at = off & ~(uint64_t)(ops->min - 1);

		if (at + ops->min > g->r.len)
			*val = UINT64_MAX;
		else
			*val = bus_call(&g->r, at, 0, ops->min, false) >> 8 * (off - at);
		*val &= bus_ones(n);
	}
	return n;
}

static unsigned bus_nobody(struct bus *b, const struct bus_map *m, uint64_t addr, unsigned size,
			   uint64_t gap, uint64_t *val, bool write)
{
	uint64_t room = (m == &b->maps[BUS_IO] ? BUS_IO_END - 1 : UINT64_MAX) - addr;
	unsigned n = gap && gap < size ? (unsigned)gap : size;

	if (n - 1 > room) /* what wraps is looked up again */
		n = (unsigned)room + 1;
	if (write)
		guest_error(b, m == &b->maps[BUS_IO] ? "port_write" : "mem_write", addr, *val, n);
	else
		guest_error(b, m == &b->maps[BUS_IO] ? "port_read" : "mem_read", addr, n);
	*val = bus_ones(n);
	return n;
}

static uint64_t bus_access(struct bus *b, struct bus_map *m, uint64_t addr, uint64_t val,
			   unsigned size, bool write)
{
	uint64_t mask = m == &b->maps[BUS_IO] ? BUS_IO_END - 1 : UINT64_MAX, out = 0;
	bool locked = false;
	unsigned n;

	size = size > 8 ? 8 : size;
	if (write && m->n_bells) {
		bool rang;

		pthread_rwlock_rdlock(&m->lock);
		rang = bus_ring(m, addr, val & bus_ones(size), size);
		pthread_rwlock_unlock(&m->lock);
		if (rang)
			return 0;
	}
	for (unsigned done = 0; done < size; done += n) {
		uint64_t a = (addr + done) & mask, v = write ? val >> 8 * done : 0, gap = 0;
		const struct bus_range *g;

		if (!locked)
			pthread_rwlock_rdlock(&m->lock);
		g = bus_find(m, a, &gap);
		if (g && !locked && !(g->r.flags & REGION_NOLOCK)) {
			uint64_t gen = m->gen;

			pthread_rwlock_unlock(&m->lock);
			bus_lock(b); /* from here on nobody else claims */
			locked = true;
			if (m->gen != gen)
				g = bus_find(m, a, &gap);
		}
		if (g)
			n = bus_part(b, g, a, size - done, &v, write);
		else
			n = bus_nobody(b, m, a, size - done, gap, &v, write);
		if (!locked)
			pthread_rwlock_unlock(&m->lock);
		out |= v << 8 * done;
	}
	if (locked)
		bus_unlock(b);
	return out;
}

uint64_t bus_io_read(struct bus *b, uint16_t port, unsigned size)
{
	return bus_access(b, &b->maps[BUS_IO], port, 0, size, false);
}

void bus_io_write(struct bus *b, uint16_t port, uint64_t val, unsigned size)
{
	bus_access(b, &b->maps[BUS_IO], port, val, size, true);
}

uint64_t bus_mem_read(struct bus *b, uint64_t gpa, unsigned size)
{
	return bus_access(b, &b->maps[BUS_MEM], gpa, 0, size, false);
}

void bus_mem_write(struct bus *b, uint64_t gpa, uint64_t val, unsigned size)
{
	bus_access(b, &b->maps[BUS_MEM], gpa, val, size, true);
}

void bus_io_read_rep(struct bus *b, uint16_t port, void *buf, unsigned size, uint32_t count)
{
	uint8_t *p = buf;

	for (; count; count--, p += size) {
		uint64_t v = bus_io_read(b, port, size);

		memcpy(p, &v, MIN(size, 8u));
	}
}

void bus_io_write_rep(struct bus *b, uint16_t port, const void *buf, unsigned size, uint32_t count)
{
	const uint8_t *p = buf;

	for (; count; count--, p += size) {
		uint64_t v = 0;

		memcpy(&v, p, MIN(size, 8u));
		bus_io_write(b, port, v, size);
	}
}
