/*
 * Four-level page tables for suites that build their own: page_init() makes a root that maps the
 * first 4 GiB one to one for ring 0 only, page_map() adds 4-KiB pages anywhere.
 */
#ifndef GUEST_PAGE_H
#define GUEST_PAGE_H

#include "cpu.h"

enum {
	PTE_P = 1,
	PTE_W = 2,
	PTE_U = 4,
	PTE_A = 0x20,
	PTE_D = 0x40,
	PTE_PS = 0x80,
	PTE_G = 0x100,
};
#define PTE_NX   (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull
#define PF_P     1
#define PF_W     2
#define PF_U     4
#define PF_RSVD  8
#define PF_I     16
#define PF_PK    32
#define PAGE     4096ul

struct page_pool {
	ulong next; /* where the next table goes */
	u64 *root;
};

static inline u64 *page_table(struct page_pool *p)
{
	u64 *t = (u64 *)p->next;

	p->next += PAGE;
	guest_memset(t, 0, PAGE);
	return t;
}

static inline void page_init(struct page_pool *p, ulong at)
{
	u64 *pdpt, *pd;

	p->next = at;
	p->root = page_table(p);
	pdpt = page_table(p);
	p->root[0] = (ulong)pdpt | PTE_P | PTE_W | PTE_U;
	for (unsigned g = 0; g < 4; g++) {
		pd = page_table(p);
		pdpt[g] = (ulong)pd | PTE_P | PTE_W | PTE_U;
		for (unsigned i = 0; i < 512; i++)
			pd[i] = ((ulong)g << 30) + ((ulong)i << 21) + (PTE_P | PTE_W | PTE_PS);
	}
}

/* The entry for va at a level (1 is the page table), making open tables on the way. */
static inline u64 *page_entry(struct page_pool *p, ulong va, unsigned level)
{
	u64 *t = p->root;

	for (unsigned l = 4; l > level; l--) {
		u64 *e = &t[va >> (12 + 9 * (l - 1)) & 511];

		if (!(*e & PTE_P))
			*e = (ulong)page_table(p) | PTE_P | PTE_W | PTE_U;
		t = (u64 *)(*e & PTE_ADDR);
	}
	return &t[va >> (12 + 9 * (level - 1)) & 511];
}

static inline void page_map(struct page_pool *p, ulong va, ulong pa, u64 bits)
{
	*page_entry(p, va, 1) = pa | bits;
	invlpg(va);
}

static inline void flush_all(void)
{
	write_cr3(read_cr3());
}

#endif
