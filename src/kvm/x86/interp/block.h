/*
 * Cache of decoded blocks: straight runs of decoded instructions, found by guest address.
 *
 * Theory of operation
 *   A block belongs to a guest page and a decode mode; it is keyed by the host address of its first
 *   byte, so that all mappings of a page share it. Looking one up goes through three steps, each a
 *   cache of the next: a table by linear address (valid for one ASID, privilege, mode and
 *   fetch_gen), the code TLB and a hash by host address, the decoder.
 *   A block is valid while its page's generation is the one it was made under; see kvm/vm.h for how
 *   decoding and writing meet. An instruction that crosses a page is a block of its own, which is
 *   valid where the same page comes behind it; outside of 64-bit mode it is decoded each time.
 *   Memory is one arena a vCPU; when it is full, all blocks go.
 *
 * References: [SDM3 8.1.3 self- and cross-modifying code], [SDM3 11.6].
 * Threads:    the vCPU's own; other threads only change page generations.
 */
#pragma once
#include "kvm/x86/vcpu.h"

#define BLOCK_MAX_INSNS 32

struct block {
	const uint8_t *host;   /* key: host address of the first byte */
	struct kvm_page *page; /* of that byte */
	struct block *next;    /* hash chain */
	uint32_t gen;          /* of page when decoded */
	uint16_t bytes;        /* guest bytes covered */
	uint8_t mode;          /* key: enum decode_mode | real << 2 */
	uint8_t n;             /* instructions */
	uint32_t heat;         /* how often it ran, until it is translated */
	uint8_t alone;         /* one instruction that jit/check.h cannot compare */
	uint8_t has_page_end;  /* 1: in the scratch slot, never cached */
	uint8_t crosses;       /* 1: one instruction, into the page that block_cross tells */
	struct insn insns[];
};

/* The second page of a block that crosses. */
struct block_cross {
	struct kvm_page *page;
	const uint8_t *host; /* of the page */
	uint32_t gen;
};
static inline struct block_cross *block_cross(const struct block *b)
{
	return (struct block_cross *)&b->insns[1];
}

/* The lines of kvm_page.code_lines that bytes from off on are in. All are in one page. */
static inline uint64_t block_lines(uint64_t off, unsigned bytes)
{
	unsigned first = (unsigned)(off & ~PAGE_MASK) >> 6;
	unsigned last = (unsigned)((off & ~PAGE_MASK) + bytes - 1) >> 6;

	return (~0ull << first) & (~0ull >> (63 - last));
}

int block_cache_new(struct vcpu *v); /* 0 or -ENOMEM */
void block_cache_free(struct vcpu *v);
size_t block_cache_used(const struct vcpu *v); /* bytes of blocks */

/* Forget everything: slots changed, CPUID changed. Not while a block runs. */
void block_cache_flush(struct vcpu *v);

/*
 * The block at CS:rIP. Throws what fetching the first instruction throws (#PF, #GP); an undefined
 * opcode is an instruction whose exec throws #UD. At a boundary, in guest mode. NULL: the address
 * is not memory (KVM reports an emulation failure).
 */
struct block *block_lookup(struct vcpu *v);
/*
 * Host address of the page that code at la would be fetched from now; NULL: none, or it would
 * fault. At a boundary.
 */
const uint8_t *block_page_host(struct vcpu *v, gva_t la);
