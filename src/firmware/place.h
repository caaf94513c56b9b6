/*
 * Where things go in guest memory before the first instruction.
 *
 * A loader claims each range it fills. A claim must lie in RAM and must not meet an earlier one,
 * so overlapping segments, an initrd on top of the kernel or a kernel in the firmware's tables are
 * refused by one check, whatever the file says. Claims carry a name for the message.
 * Threads: before the vCPUs run, one thread.
 */
#pragma once
#include <stdint.h>

#include "base/bits.h"
#include "base/err.h"

enum { PLACE_BLOCKS = 2, PLACE_CLAIMS = 192, PLACE_MAP = 16 };

/* e820 types; PVH and multiboot use the same numbers. */
enum mem_type { MEM_RAM = 1, MEM_RESERVED = 2, MEM_ACPI = 3 };

struct mem_range {
	gpa_t base;
	uint64_t size;
	enum mem_type type;
};

struct place {
	struct place_block {
		gpa_t base;
		uint64_t size;
		uint8_t *host;
	} block[PLACE_BLOCKS]; /* guest RAM, ascending */
	unsigned nblocks;
	struct mem_range map[PLACE_MAP]; /* what the guest is told, ascending, disjoint */
	unsigned nmap;
	struct place_claim {
		gpa_t base;
		uint64_t size;
		const char *what;
	} claim[PLACE_CLAIMS];
	unsigned nclaims;
};

/*
 * Describe the PC's memory: ram bytes, the part above 3 GiB at 4 GiB. low is the host address of
 * guest 0, high that of 4 GiB (NULL when there is none). Fills the map: the usual PC holes, with
 * everything from 0x9fc00 to 1 MiB reserved.
 */
void place_init(struct place *p, uint64_t ram, uint8_t *low, uint8_t *high);

/* Host address of [gpa, gpa + size) when it is all RAM of one block, else NULL. */
uint8_t *place_ptr(const struct place *p, gpa_t gpa, uint64_t size);

/*
 * Take [gpa, gpa + size). The memory is as it was: zero at start, anything after a reset. Errors:
 * -ENOMEM outside RAM, -EEXIST when taken, -ENOSPC too many claims.
 */
int place_claim(struct place *p, gpa_t gpa, uint64_t size, const char *what, uint8_t **host,
		struct err *e) must_check;

/*
 * Take the highest free size bytes of usable RAM in [floor, limit), aligned down to align (a power
 * of two). A size of zero is refused.
 */
int place_top(struct place *p, uint64_t size, uint64_t align, gpa_t floor, gpa_t limit,
	      const char *what, gpa_t *gpa, uint8_t **host, struct err *e) must_check;

/* The lowest free place at or above floor. */
int place_bottom(struct place *p, uint64_t size, uint64_t align, gpa_t floor, gpa_t limit,
		 const char *what, gpa_t *gpa, uint8_t **host, struct err *e) must_check;

/* Highest address of RAM below 4 GiB, and of all. */
gpa_t place_low_end(const struct place *p);
gpa_t place_end(const struct place *p);

enum {
	PLACE_EBDA = 0x9fc00,    /* low RAM ends here: loaders' small tables go below */
	PLACE_TABLES = 0xe0000,  /* ACPI tables, up to PLACE_MPTABLE */
	PLACE_MPTABLE = 0xf0000, /* MP configuration table */
	PLACE_TABLES_END = 0x100000,
	PLACE_HIGH = 0x100000, /* first byte above the legacy megabyte */
};
