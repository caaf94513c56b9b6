/*
 * Guest memory as an instruction sees it: segmentation, paging, the software TLB, MMIO.
 *
 * The inline functions are the fast path; a miss goes to mmu_slow_*, which walks the guest's tables
 * ([SDM3 4]), sets accessed and dirty bits, raises #PF by vcpu_throw, fills the TLB, and does what
 * cannot be in a TLB: accesses across pages, MMIO (in-kernel bus, then exit to user space in the
 * middle of the instruction), writes to pages that hold decoded code.
 *
 * Order of checks is that of the manual: segment (#GP, #SS), alignment (#AC), paging (#PF).
 * Threads: the vCPU's own, in guest mode, except mmu_translate.
 */
#pragma once
#include <string.h>

#include "kvm/x86/vcpu.h"

enum mmu_access {
	ACC_READ = 0,
	ACC_WRITE = 1,
	ACC_EXEC = 2,
	ACC_SYS = 4, /* implicit supervisor access: descriptor tables, TSS; SMAP as with AC=0 */
};

/* ---- Linear addresses ----------------------------------------------------------------------- */

uint64_t mmu_slow_load(struct vcpu *v, gva_t la, unsigned size, unsigned acc);
void mmu_slow_store(struct vcpu *v, gva_t la, uint64_t val, unsigned size, unsigned acc);

static always_inline struct tlb_entry *mmu_entry(struct vcpu *v, gva_t la)
{
	return &v->tlb[(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* Tag that an access of size bytes must find. Wraps harmlessly: such an access misses. */
static always_inline uint64_t mmu_tag(const struct vcpu *v, gva_t la, unsigned size)
{
	return ((la + size - 1) & PAGE_MASK) | v->asid;
}

#define MMU_ACCESS(bits) \
	static always_inline uint##bits##_t mmu_ld##bits(struct vcpu *v, gva_t la) \
	{ \
		const struct tlb_entry *t = mmu_entry(v, la); \
		uint##bits##_t x; \
\
		if (unlikely(t->rtag != mmu_tag(v, la, bits / 8))) \
			return (uint##bits##_t)mmu_slow_load(v, la, bits / 8, ACC_READ); \
		__builtin_memcpy(&x, (const void *)(uintptr_t)(la + t->addend), bits / 8); \
		return x; \
	} \
	static always_inline void mmu_st##bits(struct vcpu *v, gva_t la, uint##bits##_t x) \
	{ \
		const struct tlb_entry *t = mmu_entry(v, la); \
\
		if (unlikely(t->wtag != mmu_tag(v, la, bits / 8))) \
			mmu_slow_store(v, la, x, bits / 8, ACC_WRITE); \
		else \
			__builtin_memcpy((void *)(uintptr_t)(la + t->addend), &x, bits / 8); \
	}
MMU_ACCESS(8)
MMU_ACCESS(16)
MMU_ACCESS(32)
MMU_ACCESS(64)
#undef MMU_ACCESS

/*
 * Host pointer for a read-modify-write of size bytes, or NULL when there is none (page crossing,
 * MMIO, code page): the caller then loads with mmu_ld_rmw, computes, and stores. Throws the #PF of
 * a write.
 */
static always_inline void *mmu_rmw_ptr(struct vcpu *v, gva_t la, unsigned size)
{
	const struct tlb_entry *t = mmu_entry(v, la);

	if (likely(t->wtag == mmu_tag(v, la, size) && t->rtag == t->wtag))
		return (void *)(uintptr_t)(la + t->addend);
	return NULL;
}
/* Load for a read-modify-write: checks write permission of every page touched first. */
uint64_t mmu_ld_rmw(struct vcpu *v, gva_t la, unsigned size);

/*
 * Any length (up to a few KiB): all pages are checked before the first byte moves, so that a fault
 * leaves nothing half-done. acc: ACC_READ or ACC_WRITE, or with ACC_SYS.
 */
void mmu_read(struct vcpu *v, gva_t la, void *buf, unsigned len, unsigned acc);
void mmu_write(struct vcpu *v, gva_t la, const void *buf, unsigned len, unsigned acc);
/* Throw what a write (or read) of len bytes would, without doing it. */
void mmu_probe(struct vcpu *v, gva_t la, unsigned len, unsigned acc);

/* Implicit supervisor accesses (GDT, LDT, IDT, TSS), any CPL. */
static inline uint64_t mmu_sys_ld(struct vcpu *v, gva_t la, unsigned size)
{
	return mmu_slow_load(v, la, size, ACC_READ | ACC_SYS);
}
static inline void mmu_sys_st(struct vcpu *v, gva_t la, uint64_t val, unsigned size)
{
	mmu_slow_store(v, la, val, size, ACC_WRITE | ACC_SYS);
}

/* ---- Segmentation --------------------------------------------------------------------------- */

/* Checks beyond the fast path; throws #GP(0) or #SS(0), #AC(0) where CR0.AM asks. Returns linear.
 */
gva_t mmu_segment_slow(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc);

/*
 * Linear address of [off, off+size) in a segment, with the checks that an explicit data access of
 * kind acc makes. off is already truncated to the address size.
 */
static always_inline gva_t mmu_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned size,
				      unsigned acc)
{
	if (likely(v->long64 && !v->ac_check)) {
		gva_t la = v->seg_base[seg] + off;

		/*
		 * First and last byte canonical, in one comparison: the two halves moved together,
		 * the lower one ends at 2^48. 57-bit addressing is not offered.
		 */
		if (likely(la + (1ull << 47) <= (1ull << 48) - size))
			return la;
	} else if (likely((v->seg_fast[seg] & (acc & ACC_WRITE ? SEGF_WRITE : SEGF_READ)) &&
			  !v->ac_check && off + size - 1 <= 0xffffffff)) {
		return (uint32_t)(v->seg_base[seg] + off);
	}
	return mmu_segment_slow(v, seg, off, size, acc);
}

/* ---- Translation ---------------------------------------------------------------------------- */

struct mmu_result {
	gpa_t gpa;
	uint64_t page_size; /* of the mapping */
	bool writable, user, exec, global;
	uint32_t error; /* #PF error code when the walk fails */
};

/*
 * Walk the guest's tables for la. access: ACC_*; cpl-dependent rules as for a data access at the
 * vCPU's CPL. set_ad: update accessed/dirty bits. Returns true, or false with r->error. Used by the
 * slow path and by KVM_TRANSLATE (set_ad false; v->lock held, not running).
 */
bool mmu_walk(struct vcpu *v, gva_t la, unsigned access, bool set_ad, struct mmu_result *r);

/* ---- Invalidation (vCPU thread, or v->lock held while it is not running) --------------------- */
void mmu_flush_all(struct vcpu *v);     /* everything: CR0.PG, CR4, slots */
void mmu_flush_current(struct vcpu *v); /* MOV CR3 without PCID: all but global pages */
void mmu_flush_pcid(struct vcpu *v, unsigned pcid);
void mmu_flush_page(struct vcpu *v, gva_t la); /* INVLPG: all PCIDs' global and the current's */
/* CR3 or CR4.PCIDE changed: choose the ASID. flush: the write did not have bit 63 set. */
void mmu_set_cr3(struct vcpu *v, uint64_t cr3, bool flush);
/*
 * Choose v->tlb by CPL and SMAP, or a table where all accesses miss while breakpoints are armed.
 */
void mmu_select_tlb(struct vcpu *v);
/* Drop the write tags of a guest page, when code has been decoded from it. */
void mmu_drop_writes(struct vcpu *v, gpa_t page);
/* Load PDPTEs from CR3 for PAE paging; false: reserved bits set (#GP). */
bool mmu_load_pdptes(struct vcpu *v, uint64_t cr3);
