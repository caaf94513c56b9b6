/*
 * Kernel code of which each address space may have its own: in pages of the upper half that are not
 * global.
 *
 * Theory of operation
 *   Links and branch targets of the kernel's contexts stay over a change of address space, as most
 *   kernels are the same in all and say so (global pages). Others are not: page-table isolation
 *   maps less for the user's half of a process, a session may have modules of its own, and a kernel
 *   may change its tables and load CR3. Code in such pages belongs to the upper half that it was
 *   met in, which is told by the entries of the root table that lead to it (struct jit_kspace), and
 *   each of the last few has numbers for the kernel's contexts: two that take turns keep their
 *   links.
 *   Loading CR3 without bit 63, or INVPCID, makes tables below the root count that have changed:
 *   then the pages with code that such a half has are translated again, and if one is another,
 *   the half gets new numbers.
 *   When there are more entries or pages than are kept here, all numbers become new at each change
 *   (j->kernel_low), as for kernel code in the lower half.
 *
 * References:   [SDM3 4.10.2.4, 4.10.4.1]. Threads: the vCPU's own, in guest mode.
 */
#include "kvm/x86/jit/jit_int.h"
#include "kvm/x86/mmu.h"

#define KSPACE_ADDR 0x000ffffffffff000ull
#define KSPACE_AD   0x60ull /* accessed and dirty: the processor's */

/* Large pages are kept as one: the address of the first 2 MiB that code is in, with this bit. */
#define KSPACE_LARGE 1ull
#define KSPACE_SIZE  (2ull << 20)

static unsigned kspace_slot(gva_t la)
{
	return la >> 39 & 511;
}

/* The root table's entry now; 0: none. */
static uint64_t kspace_entry(struct vcpu *v, unsigned slot)
{
	gpa_t gpa = (v->cr3 & KSPACE_ADDR) + 8 * slot;
	const struct kvm_memslot *s = kvm_memslot_find(v->vm, gpa >> PAGE_SHIFT);
	const uint8_t *p;

	if (!s)
		return 0;
	p = s->host + (gpa - (s->base_gfn << PAGE_SHIFT));
	return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED) & ~KSPACE_AD;
}

/*
 * Host address of what the kernel would run code from at la, which may have KSPACE_LARGE: NULL if
 * there is nothing, or no large page.
 */
static const uint8_t *kspace_page(struct vcpu *v, gva_t la)
{
	const struct kvm_memslot *s;
	struct mmu_result r;

	if (!mmu_walk(v, la & PAGE_MASK, ACC_EXEC | ACC_SYS, false, &r) ||
	    ((la & KSPACE_LARGE) && r.page_size < KSPACE_SIZE))
		return NULL;
	s = kvm_memslot_find(v->vm, r.gpa >> PAGE_SHIFT);
	return s ? s->host + ((r.gpa & PAGE_MASK) - (s->base_gfn << PAGE_SHIFT)) : NULL;
}

static void kspace_forget_pages(struct jit_kspace *k)
{
	if (k->npages)
		memset(k->page, 0, sizeof(k->page));
	k->npages = 0;
}

/* Where a page, perhaps with KSPACE_LARGE, is or would be among those of a half. */
static struct jit_kpage *kspace_find(struct jit_kspace *k, gva_t la)
{
	unsigned n = (unsigned)((la >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 40);

	while (k->page[n % JIT_KPAGES].la && k->page[n % JIT_KPAGES].la != la)
		n++;
	return &k->page[n % JIT_KPAGES];
}

void jit_kspace_reset(struct vcpu *v)
{
	struct jit *j = v->jitp;

	for (unsigned n = 0; n < JIT_KSPACES; n++) {
		kspace_forget_pages(&j->kspace[n]);
		j->kspace[n].used = false;
	}
	j->nkslots = 0;
	j->kspace_now = 0;
	j->kspace[0].used = true;
	memcpy(j->kspace[0].serial, &v->jit.link[TLB_KERNEL], sizeof(j->kspace[0].serial));
}

/* The entry of the root table for la counts from now on. False: there are too many. */
static bool kspace_add_slot(struct vcpu *v, gva_t la)
{
	struct jit *j = v->jitp;
	unsigned slot = kspace_slot(la), n;

	for (n = 0; n < j->nkslots; n++)
		if (j->kslot[n] == slot)
			return true;
	if (n == JIT_KSLOTS)
		return false;
	j->kslot[j->nkslots++] = (uint16_t)slot;
	/* what the others have there is not known */
	for (unsigned k = 0; k < JIT_KSPACES; k++)
		if (k != j->kspace_now) {
			kspace_forget_pages(&j->kspace[k]);
			j->kspace[k].used = false;
		}
	j->kspace[j->kspace_now].entry[n] = kspace_entry(v, slot);
	return true;
}

void jit_kspace_code(struct vcpu *v, gva_t la)
{
	struct jit *j = v->jitp;
	struct jit_kspace *k = &j->kspace[j->kspace_now];
	const struct itlb_entry *x = &v->itlb[0][(la >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	gva_t large = (la & ~(KSPACE_SIZE - 1)) | KSPACE_LARGE;
	struct jit_kpage *p;
	struct mmu_result r;

	la &= PAGE_MASK;
	if (j->kernel_low || (x->tag == (la | v->asid) && x->global) || kspace_find(k, la)->la ||
	    kspace_find(k, large)->la)
		return;
	if (mmu_walk(v, la, ACC_EXEC | ACC_SYS, false, &r)) {
		if (r.global)
			return;
		if (r.page_size >= KSPACE_SIZE)
			la = large;
	}
	if (k->npages == JIT_KPAGES / 2 || !kspace_add_slot(v, la)) {
		j->kernel_low = true;
		return;
	}
	p = kspace_find(k, la);
	*p = (struct jit_kpage){ la, kspace_page(v, la) };
	k->npages++;
}

/* Numbers for the kernel's contexts that nothing has been made under. */
static void kspace_renumber(struct vcpu *v, struct jit_kspace *k)
{
	kspace_forget_pages(k);
	for (unsigned n = 0; n < ARRAY_SIZE(k->serial); n++)
		k->serial[n] = jit_serial(v);
}

/* Are the pages with code of this half still where they were? */
static bool kspace_holds(struct vcpu *v, const struct jit_kspace *k)
{
	for (unsigned n = 0; n < JIT_KPAGES && k->npages; n++)
		if (k->page[n].la && kspace_page(v, k->page[n].la) != k->page[n].host)
			return false;
	return true;
}

static bool kspace_is(const struct jit *j, const struct jit_kspace *k, const uint64_t *entry)
{
	return k->used && !memcmp(k->entry, entry, j->nkslots * sizeof(*entry));
}

void jit_kspace_switch(struct vcpu *v, bool flushed)
{
	struct jit *j = v->jitp;
	uint64_t entry[JIT_KSLOTS];
	unsigned now = j->kspace_now;
	struct jit_kspace *k;

	if (!j->nkslots)
		return;
	for (unsigned n = 0; n < j->nkslots; n++)
		entry[n] = kspace_entry(v, j->kslot[n]);
	for (unsigned n = 0; n < JIT_KSPACES && !kspace_is(j, &j->kspace[now], entry); n++)
		now = (now + 1) % JIT_KSPACES;
	k = &j->kspace[now];
	if (!kspace_is(j, k,
		       entry)) { /* a new one, in the place of one that has not been for long */
		now = (j->kspace_now + 1) % JIT_KSPACES;
		k = &j->kspace[now];
		k->used = true;
		memcpy(k->entry, entry, sizeof(entry));
		kspace_renumber(v, k);
	} else if (flushed && !kspace_holds(v, k)) {
		kspace_renumber(v, k);
	}
	if (!j->nkslots) { /* the numbers have come round, and everything begins anew */
		jit_kspace_reset(v);
		return;
	}
	j->kspace_now = now;
	for (unsigned n = 0; n < ARRAY_SIZE(k->serial); n++)
		jit_set_context(v, TLB_KERNEL + n, k->serial[n]);
}
