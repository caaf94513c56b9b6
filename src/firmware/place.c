/*
 * Claims on guest memory; see place.h.
 * References: [LINUX-BOOT "Memory layout"], [ACPI 15.1] for the map's types.
 */
#include "firmware/place.h"

#include <errno.h>

#define PLACE_HOLE 0xc0000000ull /* 3 GiB: RAM stops, devices begin */
#define PLACE_4G   0x100000000ull

static void place_map_add(struct place *p, gpa_t base, uint64_t size, enum mem_type type)
{
	if (size)
		p->map[p->nmap++] = (struct mem_range){ base, size, type };
}

void place_init(struct place *p, uint64_t ram, uint8_t *low, uint8_t *high)
{
	uint64_t below = MIN(ram, PLACE_HOLE), above = ram - below;

	*p = (struct place){ 0 };
	p->block[p->nblocks++] = (struct place_block){ 0, below, low };
	if (above)
		p->block[p->nblocks++] = (struct place_block){ PLACE_4G, above, high };
	place_map_add(p, 0, PLACE_EBDA, MEM_RAM);
	place_map_add(p, PLACE_EBDA, 0xa0000 - PLACE_EBDA, MEM_RESERVED);
	place_map_add(p, PLACE_TABLES, PLACE_TABLES_END - PLACE_TABLES, MEM_RESERVED);
	if (below > PLACE_HIGH)
		place_map_add(p, PLACE_HIGH, below - PLACE_HIGH, MEM_RAM);
	place_map_add(p, PLACE_4G, above, MEM_RAM);
}

uint8_t *place_ptr(const struct place *p, gpa_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < p->nblocks; i++) {
		const struct place_block *b = &p->block[i];

		if (gpa >= b->base && gpa - b->base <= b->size && size <= b->size - (gpa - b->base))
			return b->host + (gpa - b->base);
	}
	return NULL;
}

static const struct place_claim *place_meets(const struct place *p, gpa_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < p->nclaims; i++) {
		const struct place_claim *c = &p->claim[i];

		/* Neither sum wraps: both ranges are known to lie in RAM. */
		if (gpa < c->base + c->size && c->base < gpa + size)
			return c;
	}
	return NULL;
}

int place_claim(struct place *p, gpa_t gpa, uint64_t size, const char *what, uint8_t **host,
		struct err *e)
{
	uint8_t *h = place_ptr(p, gpa, size);
	const struct place_claim *c;

	if (!h)
		return err_set(
			e, ENOMEM,
			"%s of %#llx bytes at %#llx does not fit in guest memory, which ends "
			"at %#llx",
			what, (unsigned long long)size, (unsigned long long)gpa,
			(unsigned long long)place_end(p));
	c = place_meets(p, gpa, size);
	if (c)
		return err_set(e, EEXIST, "%s at %#llx overlaps %s at %#llx", what,
			       (unsigned long long)gpa, c->what, (unsigned long long)c->base);
	if (p->nclaims == PLACE_CLAIMS)
		return err_set(e, ENOSPC, "%s: more than %d pieces to load", what, PLACE_CLAIMS);
	p->claim[p->nclaims++] = (struct place_claim){ gpa, size, what };
	if (host)
		*host = h;
	return 0;
}

static int place_no_room(uint64_t size, gpa_t limit, const char *what, struct err *e)
{
	return err_set(e, ENOMEM,
		       "no room for %s of %llu KiB below %#llx in guest memory; give more with -m",
		       what, (unsigned long long)((size + 1023) / 1024), (unsigned long long)limit);
}

int place_top(struct place *p, uint64_t size, uint64_t align, gpa_t floor, gpa_t limit,
	      const char *what, gpa_t *gpa, uint8_t **host, struct err *e)
{
	for (unsigned i = p->nmap; i-- > 0 && size;) {
		const struct mem_range *r = &p->map[i];
		gpa_t base = MAX(r->base, floor), end = MIN(r->base + r->size, limit);

		if (r->type != MEM_RAM)
			continue;
		while (end > base && end - base >= size) {
			gpa_t at = (end - size) & ~(align - 1);
			const struct place_claim *c;

			if (at < base)
				break;
			c = place_meets(p, at, size);
			if (!c) {
				*gpa = at;
				return place_claim(p, at, size, what, host, e);
			}
			end = c->base; /* the next try is below what is in the way */
		}
	}
	return place_no_room(size, limit, what, e);
}

int place_bottom(struct place *p, uint64_t size, uint64_t align, gpa_t floor, gpa_t limit,
		 const char *what, gpa_t *gpa, uint8_t **host, struct err *e)
{
	for (unsigned i = 0; i < p->nmap && size; i++) {
		const struct mem_range *r = &p->map[i];
		gpa_t at = MAX(r->base, floor), end = MIN(r->base + r->size, limit);

		if (r->type != MEM_RAM)
			continue;
		for (;;) {
			const struct place_claim *c;

			at = (at + align - 1) & ~(align - 1);
			if (at < r->base || at >= end || end - at < size)
				break;
			c = place_meets(p, at, size);
			if (!c) {
				*gpa = at;
				return place_claim(p, at, size, what, host, e);
			}
			at = c->base + c->size;
		}
	}
	return place_no_room(size, limit, what, e);
}

gpa_t place_low_end(const struct place *p)
{
	return p->block[0].base + p->block[0].size;
}

gpa_t place_end(const struct place *p)
{
	const struct place_block *b = &p->block[p->nblocks - 1];

	return b->base + b->size;
}
