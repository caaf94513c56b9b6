/*
 * The guest's page tables: 2-level, PAE, 4-level; permissions, accessed and dirty bits.
 *
 * Modelled:     CR0.WP, CR4.PSE/PAE/PGE/SMEP/SMAP/PKE, EFER.NXE, 4-KiB to 1-GiB pages, reserved
 *               bits, error codes, PDPTE registers of PAE.
 * Not modelled: PSE-36, 5-level paging (not offered), supervisor keys, page tables in MMIO (an
 *               entry there reads as not present).
 * References:   [SDM3 4.3-4.7], [APM2 5].
 * Threads:      see mmu.h.
 */
#include "kvm/x86/mmu.h"

#include "kvm/x86/jit/jit.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX    BIT(63)
#define PTE_ADDR  0x000ffffffffff000ull
#define PTE_PK(e) (((e) >> 59) & 0xf)

enum { PFE_P = 1, PFE_W = 2, PFE_U = 4, PFE_RSVD = 8, PFE_I = 16, PFE_PK = 32 };

/* Host address of a paging entry, or NULL. The caller is in guest mode or holds the slots lock. */
static void *walk_entry(struct vcpu *v, gpa_t gpa, struct kvm_memslot **slot)
{
	*slot = kvm_memslot_find(v->vm, gpa >> PAGE_SHIFT);
	if (!*slot)
		return NULL;
	return (*slot)->host + (gpa - ((*slot)->base_gfn << PAGE_SHIFT));
}

/* Set bits in an entry if it still is what was read. False: it changed, walk again. */
static bool walk_set(struct vcpu *v, struct kvm_memslot *slot, void *entry, unsigned size,
		     uint64_t old, uint64_t set, gpa_t gpa)
{
	uint32_t old32 = (uint32_t)old;

	if (slot->flags & KVM_MEM_READONLY)
		return true; /* page tables in ROM: the bits stay as they are */
	if (size == 8
		    ? !__atomic_compare_exchange_n((uint64_t *)entry, &old, old | set, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
		    : !__atomic_compare_exchange_n((uint32_t *)entry, &old32, (uint32_t)(old | set),
						   false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return false;
	if (kvm_memslot_written(slot, gpa, size))
		jit_code_written(v, &slot->pages[(gpa >> PAGE_SHIFT) - slot->base_gfn]);
	return true;
}

/* The rights of a leaf against the access. Returns 0, or the bits of the error code beside P/W/U/I.
 */
static bool walk_allowed(const struct vcpu *v, unsigned access, bool user_mode, bool w, bool u,
			 bool nx, unsigned pkey, bool *pk_fault)
{
	bool write = access & ACC_WRITE, exec = access & ACC_EXEC;

	*pk_fault = false;
	if (user_mode && !u)
		return false;
	if (write && !w && (user_mode || (v->cr0 & CR0_WP)))
		return false;
	if (exec) {
		if (nx)
			return false;
		if (!user_mode && u && (v->cr4 & CR4_SMEP))
			return false;
		return true;
	}
	if (!user_mode && u && (v->cr4 & CR4_SMAP) && ((access & ACC_SYS) || !(v->rflags & RF_AC)))
		return false;
	if (u && (v->cr4 & CR4_PKE) && (v->efer & EFER_LMA)) {
		unsigned rights = v->pkru >> (2 * pkey);

		if ((rights & 1) || (write && (rights & 2) && (user_mode || (v->cr0 & CR0_WP)))) {
			*pk_fault = true;
			return false;
		}
	}
	return true;
}

struct walk_level {
	gpa_t gpa;
	void *entry;
	struct kvm_memslot *slot;
	uint64_t value;
};

/* One attempt. 1: translated, 0: fault, -1: an entry changed meanwhile. */
static int walk_once(struct vcpu *v, gva_t la, unsigned access, bool set_ad, struct mmu_result *r)
{
	bool lma = v->efer & EFER_LMA, pae = v->cr4 & CR4_PAE, nxe = v->efer & EFER_NX;
	bool user_mode = !(access & ACC_SYS) && v->cpl == 3;
	unsigned levels = lma ? 4 : pae ? 2 : 2, bits_per = pae ? 9 : 10, size = pae ? 8 : 4, n;
	uint64_t table, rsvd = pae ? v->gpa_reserved & PTE_ADDR : 0;
	struct walk_level lv[4];
	bool w = true, u = true, nx = false, pk;
	unsigned shift = PAGE_SHIFT;
	uint64_t e = 0;

	r->error = (access & ACC_WRITE ? PFE_W : 0) | (user_mode ? PFE_U : 0) |
		   ((access & ACC_EXEC) && ((nxe && pae) || (v->cr4 & CR4_SMEP)) ? PFE_I : 0);
	if (pae && !nxe)
		rsvd |= PTE_NX;
	if (lma) {
		table = v->cr3 & PTE_ADDR;
	} else if (pae) {
		uint64_t pdpte = v->pdpte[(la >> 30) & 3];

		if (!(pdpte & PTE_P))
			return 0;
		table = pdpte & PTE_ADDR;
		rsvd |= 0x7ff0000000000000ull; /* outside long mode bits 62:52 are reserved */
	} else {
		table = v->cr3 & 0xfffff000;
	}
	for (n = 0; n < levels; n++) {
		unsigned level = levels - 1 - n; /* 0: page table */
		uint64_t rs = rsvd;
		struct walk_level *l = &lv[n];

		shift = PAGE_SHIFT + bits_per * level;
		l->gpa = table + ((la >> shift) & ((1u << bits_per) - 1)) * size;
		l->entry = walk_entry(v, l->gpa, &l->slot);
		if (!l->entry)
			return 0;
		e = size == 8 ? __atomic_load_n((uint64_t *)l->entry, __ATOMIC_RELAXED)
			      : __atomic_load_n((uint32_t *)l->entry, __ATOMIC_RELAXED);
		l->value = e;
		if (!(e & PTE_P))
			return 0;
		if (level == 3)
			rs |= PTE_PS;
		if (e & rs) {
			r->error |= PFE_P | PFE_RSVD;
			return 0;
		}
		w &= !!(e & PTE_W);
		u &= !!(e & PTE_U);
		nx |= (e & PTE_NX) && pae;
		if (level == 0)
			break;
		if ((e & PTE_PS) && level < 3 && (pae || (v->cr4 & CR4_PSE))) {
			/* address bits below the page size, but for PAT at bit 12 */
			uint64_t low = (BIT(shift) - 1) & ~0x1fffull;

			if (!pae)
				low = 0x3fe000; /* 21:13; PSE-36 is not offered */
			if (e & low) {
				r->error |= PFE_P | PFE_RSVD;
				return 0;
			}
			break;
		}
		table = e & (pae ? PTE_ADDR : 0xfffff000);
	}
	if (!walk_allowed(v, access, user_mode, w, u, nx, PTE_PK(e), &pk)) {
		r->error |= PFE_P | (pk ? PFE_PK : 0);
		return 0;
	}
	if (set_ad)
		for (unsigned k = 0; k <= n; k++) {
			uint64_t set = PTE_A | (k == n && (access & ACC_WRITE) ? PTE_D : 0);

			if ((lv[k].value & set) == set)
				continue;
			if (!walk_set(v, lv[k].slot, lv[k].entry, size, lv[k].value, set,
				      lv[k].gpa))
				return -1;
			if (k == n)
				e |= set;
		}
	r->page_size = BIT(shift);
	r->gpa = (e & (pae ? PTE_ADDR : 0xfffff000) & ~(r->page_size - 1)) |
		 (la & (r->page_size - 1));
	/* a later write may use the same translation only if it needs no dirty bit and no check */
	r->writable = walk_allowed(v, (access & ACC_SYS) | ACC_WRITE, user_mode, w, u, nx,
				   PTE_PK(e), &pk) &&
		      (e & PTE_D);
	r->user = u;
	r->exec = !nx;
	r->global = (e & PTE_G) && (v->cr4 & CR4_PGE);
	return 1;
}

bool mmu_walk(struct vcpu *v, gva_t la, unsigned access, bool set_ad, struct mmu_result *r)
{
	int rc;

	v->stat.page_walks++;
	*r = (struct mmu_result){ 0 };
	if (!(v->cr0 & CR0_PG)) {
		r->gpa = (uint32_t)la;
		r->page_size = PAGE_SIZE;
		r->writable = r->user = r->exec = true;
		return true;
	}
	do
		rc = walk_once(v, la, access, set_ad, r);
	while (rc < 0);
	return rc > 0;
}

bool mmu_load_pdptes(struct vcpu *v, uint64_t cr3)
{
	uint64_t p[4], rsvd = (v->gpa_reserved & PTE_ADDR) | 0xfff0000000000000ull | 0x1e6;

	for (unsigned i = 0; i < 4; i++) {
		struct kvm_memslot *slot;
		void *e = walk_entry(v, (cr3 & 0xffffffe0) + 8 * i, &slot);

		p[i] = e ? __atomic_load_n((uint64_t *)e, __ATOMIC_RELAXED) : 0;
		if ((p[i] & PTE_P) && (p[i] & rsvd))
			return false;
	}
	for (unsigned i = 0; i < 4; i++)
		v->pdpte[i] = p[i];
	return true;
}
