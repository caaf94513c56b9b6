/*
 * Slow path of guest memory accesses: TLB fill and flush, accesses across pages, MMIO, pages with
 * decoded code, dirty logging.
 *
 * Theory of operation
 *   A TLB entry gives direct access to a page of a memory slot. A write tag is entered only when
 *   nothing has to happen on a write any more: the PTE is dirty, the slot is writable, the page is
 *   marked in the dirty log, and nothing decoded lies in the page. Whoever changes one of these
 *   (dirty log fetched, code decoded, slot changed) makes all vCPUs flush first (kvm_sync_vcpus).
 *   MOV CR3 gives a new ASID instead of clearing; entries of global pages are re-tagged on a miss.
 *   INVLPG clears the page's place in every table; when large pages may be cached around the
 *   address it takes a new ASID and drops global entries too.
 *
 * Modelled:     all of [SDM3 4] that software can see. Not modelled: memory types, and the order of
 *               the two halves of an access that crosses into MMIO.
 * References:   [SDM3 4.10], [SDM3 5.3 limits], [SDM3 3.3.7 canonical].
 * Threads:      the vCPU's own thread in guest mode.
 */
#include "kvm/x86/mmu.h"

#include <errno.h>

#include "kvm/x86/interp/debug.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit.h"

/* ---- TLB ------------------------------------------------------------------------------------ */

/*
 * In use while breakpoints are armed or stores are recorded: every access misses and is looked at.
 * Never written.
 */
static const struct tlb_entry mmu_no_tlb[TLB_SIZE] = {
	[0 ... TLB_SIZE - 1] = { TLB_EMPTY, TLB_EMPTY, 0, TLB_EMPTY },
};

static unsigned mmu_ctx(const struct vcpu *v, unsigned acc)
{
	if (v->cpl == 3 && !(acc & ACC_SYS))
		return TLB_USER;
	if (!(acc & ACC_SYS) && (v->rflags & RF_AC) && (v->cr4 & CR4_SMAP))
		return TLB_KERNEL_AC;
	return TLB_KERNEL;
}

void mmu_select_tlb(struct vcpu *v)
{
	v->tlb = debug_armed(v) || v->jit.check == CHECK_RECORD
			 ? (struct tlb_entry *)(uintptr_t)mmu_no_tlb
			 : v->tlbs[mmu_ctx(v, 0)];
}

static bool mmu_watched(const struct vcpu *v)
{
	return v->tlb == mmu_no_tlb && !v->jit.check;
}

static void mmu_clear(struct vcpu *v)
{
	memset(v->tlbs, 0xff, sizeof(v->tlbs));
	memset(v->itlb, 0xff, sizeof(v->itlb));
	memset(v->pcid_asid, 0, sizeof(v->pcid_asid));
	v->next_asid = 1;
	v->fetch_gen++;
	for (int i = 0; i < 2; i++) {
		v->large_lo[i] = ~0ull;
		v->large_hi[i] = 0;
	}
	jit_tlb_flush(v);
	jit_new_context(v);
}

static void mmu_new_asid(struct vcpu *v)
{
	if (v->next_asid == 0 || v->next_asid > ASID_MAX)
		mmu_clear(v);
	v->asid = v->next_asid++;
	if (v->cr4 & CR4_PCIDE)
		v->pcid_asid[v->cr3 & 0xfff] = (uint16_t)v->asid;
	jit_new_asid(v);
}

void mmu_flush_all(struct vcpu *v)
{
	mmu_clear(v);
	mmu_new_asid(v);
}

void mmu_flush_current(struct vcpu *v)
{
	mmu_new_asid(v);
}

void mmu_flush_pcid(struct vcpu *v, unsigned pcid)
{
	v->pcid_asid[pcid] = 0;
	if ((v->cr4 & CR4_PCIDE) && (v->cr3 & 0xfff) == pcid)
		mmu_new_asid(v);
}

void mmu_set_cr3(struct vcpu *v, uint64_t cr3, bool flush)
{
	v->cr3 = cr3;
	if ((v->cr4 & CR4_PCIDE) && !flush && v->pcid_asid[cr3 & 0xfff]) {
		v->asid = v->pcid_asid[cr3 & 0xfff];
		jit_set_asid(v);
	} else {
		mmu_new_asid(v);
	}
}

void mmu_flush_page(struct vcpu *v, gva_t la)
{
	unsigned half = la >> 63, at = (la >> PAGE_SHIFT) & (TLB_SIZE - 1);

	if (la >= v->large_lo[half] && la <= v->large_hi[half]) {
		mmu_flush_all(v);
		return;
	}
	for (unsigned c = 0; c < TLB_CTXS; c++)
		if (((v->tlbs[c][at].rtag ^ la) & PAGE_MASK) == 0 ||
		    ((v->tlbs[c][at].wtag ^ la) & PAGE_MASK) == 0)
			v->tlbs[c][at].rtag = v->tlbs[c][at].wtag = TLB_EMPTY;
	at = (la >> PAGE_SHIFT) & (ITLB_SIZE - 1);
	for (unsigned c = 0; c < 2; c++)
		if (((v->itlb[c][at].tag ^ la) & PAGE_MASK) == 0)
			v->itlb[c][at].tag = TLB_EMPTY;
	v->fetch_gen++;
	jit_tlb_flush_page(v, la);
}

void mmu_drop_writes(struct vcpu *v, gpa_t page)
{
	for (unsigned c = 0; c < TLB_CTXS; c++)
		for (unsigned n = 0; n < TLB_SIZE; n++)
			if ((v->tlbs[c][n].info & PAGE_MASK) == page)
				v->tlbs[c][n].wtag = TLB_EMPTY;
	jit_tlb_drop_writes(v, page);
}

/* Remember where large pages are cached: INVLPG inside them must drop all their 4-KiB entries. */
static void mmu_note_large(struct vcpu *v, gva_t la, uint64_t size)
{
	unsigned half = la >> 63;
	gva_t lo = la & ~(size - 1);

	if (lo < v->large_lo[half])
		v->large_lo[half] = lo;
	if (lo + size - 1 > v->large_hi[half])
		v->large_hi[half] = lo + size - 1;
}

/* ---- One page ------------------------------------------------------------------------------- */

struct mmu_page {
	gpa_t gpa;                /* of the byte asked for */
	uint8_t *host;            /* of that byte; NULL: MMIO, or a write to a read-only slot */
	struct kvm_memslot *slot; /* NULL with MMIO */
};

/* A global page's entry made under another ASID is still good. */
static bool mmu_retag(struct vcpu *v, struct tlb_entry *t, gva_t la, bool write)
{
	if (((t->rtag ^ la) & PAGE_MASK) || !(t->info & TLB_I_GLOBAL) || t->rtag == TLB_EMPTY)
		return false;
	if (write && (t->wtag == TLB_EMPTY || ((t->wtag ^ la) & PAGE_MASK)))
		return false;
	t->rtag = (la & PAGE_MASK) | v->asid;
	if (t->wtag != TLB_EMPTY)
		t->wtag = t->rtag;
	return true;
}

/* Translate la for acc, fault or fill the TLB. The page is inside one slot or is MMIO. */
static void mmu_page(struct vcpu *v, gva_t la, unsigned acc, struct mmu_page *p)
{
	struct mmu_result r;
	struct tlb_entry *t;
	struct kvm_page *pg;
	bool write = acc & ACC_WRITE;

	if (!mmu_walk(v, la, acc, true, &r))
		vcpu_throw_pf(v, la, r.error);
	p->gpa = r.gpa;
	p->slot = kvm_memslot_find(v->vm, r.gpa >> PAGE_SHIFT);
	p->host = NULL;
	if (!p->slot || (write && (p->slot->flags & KVM_MEM_READONLY)))
		return;
	p->host = p->slot->host + (r.gpa - (p->slot->base_gfn << PAGE_SHIFT));
	pg = &p->slot->pages[(r.gpa >> PAGE_SHIFT) - p->slot->base_gfn];
	if (write)
		kvm_memslot_mark_dirty(p->slot, r.gpa >> PAGE_SHIFT);

	t = &v->tlbs[mmu_ctx(v, acc)][(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	if (((t->rtag ^ la) & PAGE_MASK) || (t->rtag & ~PAGE_MASK) != v->asid)
		t->wtag = TLB_EMPTY; /* another page's */
	t->rtag = (la & PAGE_MASK) | v->asid;
	if (r.writable && !(p->slot->flags & KVM_MEM_READONLY) && !atomic_load(&pg->code_lines) &&
	    (write || !p->slot->dirty))
		t->wtag = t->rtag;
	else
		t->wtag = TLB_EMPTY;
	t->addend = (uintptr_t)p->host - la;
	t->info = (r.gpa & PAGE_MASK) | (r.global ? TLB_I_GLOBAL : 0) | (r.user ? TLB_I_USER : 0);
	if (r.page_size > PAGE_SIZE)
		mmu_note_large(v, la, r.page_size);
	v->stat.tlb_fills++;
}

/* Write to RAM found by mmu_page: the bytes, then what hangs on them. */
static void mmu_store_ram(struct vcpu *v, const struct mmu_page *p, const void *buf, unsigned len)
{
	struct kvm_page *pg = &p->slot->pages[(p->gpa >> PAGE_SHIFT) - p->slot->base_gfn];

	if (unlikely(v->jit.check))
		jit_check_store(v, p->host, len, atomic_load(&pg->code_lines));
	switch (len) { /* one access where the processor makes one */
	case 1: *p->host = *(const uint8_t *)buf; break;
	case 2: __builtin_memcpy(p->host, buf, 2); break;
	case 4: __builtin_memcpy(p->host, buf, 4); break;
	case 8: __builtin_memcpy(p->host, buf, 8); break;
	default: memcpy(p->host, buf, len);
	}
	/* a decoder on another vCPU sets code_lines, then waits for us at a boundary: no fence
	 * needed */
	if (unlikely(atomic_load_explicit(&pg->code_lines, memory_order_acquire))) {
		if (kvm_memslot_written(p->slot, p->gpa, len))
			jit_code_written(v, pg);
		v->stat.code_invalidations++;
		if (v->cur)
			v->block_end = v->cur + 1;
	}
}

/* ---- MMIO ----------------------------------------------------------------------------------- */

static void mmu_mmio_user(struct vcpu *v, gpa_t gpa, void *buf, unsigned len, bool write)
{
	struct kvm_run *run = v->run;

	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = gpa;
	run->mmio.len = len;
	run->mmio.is_write = write;
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	if (write)
		memcpy(run->mmio.data, buf, len);
	v->stat.mmio_exits++;
	vcpu_exit_to_user(v);
	if (!write)
		memcpy(buf, run->mmio.data, len);
}

static void mmu_mmio(struct vcpu *v, gpa_t gpa, void *buf, unsigned len, bool write)
{
	uint8_t *b = buf;

	if (unlikely(v->jit.check))
		jit_check_stop(v);
	while (len) {
		unsigned n = MIN(len, 8u);

		if (v->lapic && kvm_lapic_claims(v, gpa)) {
			if (write)
				kvm_lapic_mmio_write(v, gpa, (int)n, b);
			else
				kvm_lapic_mmio_read(v, gpa, (int)n, b);
		} else if (write) {
			if (kvm_io_bus_write(v, KVM_BUS_MMIO, gpa, (int)n, b))
				mmu_mmio_user(v, gpa, b, n, true);
		} else if (kvm_io_bus_read(v, KVM_BUS_MMIO, gpa, (int)n, b)) {
			mmu_mmio_user(v, gpa, b, n, false);
		}
		gpa += n;
		b += n;
		len -= n;
	}
}

/* ---- Any length ----------------------------------------------------------------------------- */

/* Linear addresses wrap at 4 GiB outside 64-bit mode. */
static gva_t mmu_wrap(const struct vcpu *v, gva_t la)
{
	return v->long64 || (v->efer & EFER_LMA) ? la : (uint32_t)la;
}

static void mmu_copy(struct vcpu *v, gva_t la, void *buf, unsigned len, unsigned acc)
{
	bool write = acc & ACC_WRITE;
	uint8_t *b = buf;

	while (len) {
		unsigned n = MIN(len, (unsigned)(PAGE_SIZE - (la & ~PAGE_MASK)));
		struct mmu_page p;

		/* translated again for each page: an exit to user space may have changed the slots
		 */
		mmu_page(v, la, acc, &p);
		if (unlikely(v->jit.check))
			jit_check_access(v, la, write);
		if (!p.host)
			mmu_mmio(v, p.gpa, b, n, write);
		else if (write)
			mmu_store_ram(v, &p, b, n);
		else
			memcpy(b, p.host, n);
		la = mmu_wrap(v, la + n);
		b += n;
		len -= n;
	}
}

void mmu_probe(struct vcpu *v, gva_t la, unsigned len, unsigned acc)
{
	gva_t last = mmu_wrap(v, la + len - 1);
	struct mmu_page p;

	mmu_page(v, la, acc, &p);
	while ((la ^ last) & PAGE_MASK) {
		la = mmu_wrap(v, (la & PAGE_MASK) + PAGE_SIZE);
		mmu_page(v, la, acc, &p);
	}
}

static bool mmu_crosses(gva_t la, unsigned len)
{
	return (la & ~PAGE_MASK) + len > PAGE_SIZE;
}

void mmu_read(struct vcpu *v, gva_t la, void *buf, unsigned len, unsigned acc)
{
	if (mmu_crosses(la, len))
		mmu_probe(v, la, len, acc);
	mmu_copy(v, la, buf, len, acc & ~ACC_WRITE);
	if (unlikely(mmu_watched(v)))
		debug_check_data(v, la, len, false);
}

void mmu_write(struct vcpu *v, gva_t la, const void *buf, unsigned len, unsigned acc)
{
	if (mmu_crosses(la, len))
		mmu_probe(v, la, len, acc | ACC_WRITE);
	mmu_copy(v, la, (void *)(uintptr_t)buf, len, acc | ACC_WRITE);
	if (unlikely(mmu_watched(v)))
		debug_check_data(v, la, len, true);
}

uint64_t mmu_slow_load(struct vcpu *v, gva_t la, unsigned size, unsigned acc)
{
	struct tlb_entry *t = &v->tlbs[mmu_ctx(v, acc)][(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];
	uint64_t x = 0;

	if (!mmu_crosses(la, size) &&
	    (t->rtag == mmu_tag(v, la, 1) || mmu_retag(v, t, la, false))) {
		const void *p = (const void *)(uintptr_t)(la + t->addend);

		if (unlikely(v->jit.check))
			jit_check_access(v, la, false);
		switch (size) {
		case 1: x = *(const uint8_t *)p; break;
		case 2: __builtin_memcpy(&x, p, 2); break;
		case 4: __builtin_memcpy(&x, p, 4); break;
		default: __builtin_memcpy(&x, p, 8); break;
		}
		if (unlikely(mmu_watched(v)))
			debug_check_data(v, la, size, false);
		return x;
	}
	mmu_read(v, la, &x, size, acc);
	return x;
}

void mmu_slow_store(struct vcpu *v, gva_t la, uint64_t val, unsigned size, unsigned acc)
{
	struct tlb_entry *t = &v->tlbs[mmu_ctx(v, acc)][(la >> PAGE_SHIFT) & (TLB_SIZE - 1)];

	if (!mmu_crosses(la, size) && !mmu_watched(v) &&
	    (t->wtag == mmu_tag(v, la, 1) || mmu_retag(v, t, la, true))) {
		void *p = (void *)(uintptr_t)(la + t->addend);

		if (unlikely(v->jit.check)) {
			jit_check_access(v, la, true);
			jit_check_store(v, p, size, false);
		}
		memcpy(p, &val, size);
		return;
	}
	mmu_write(v, la, &val, size, acc);
}

uint64_t mmu_ld_rmw(struct vcpu *v, gva_t la, unsigned size)
{
	mmu_probe(v, la, size, ACC_WRITE);
	return mmu_slow_load(v, la, size, ACC_READ);
}

/* ---- Segments ------------------------------------------------------------------------------- */

static void mmu_segment_fault(struct vcpu *v, unsigned seg)
{
	vcpu_throw_error(v, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

gva_t mmu_segment_slow(struct vcpu *v, unsigned seg, uint64_t off, unsigned size, unsigned acc)
{
	const struct seg *s = &v->seg[seg];
	gva_t la = v->seg_base[seg] + off;
	uint64_t last = off + size - 1;

	if (v->long64) {
		if ((uint64_t)sext(la, 48) != la ||
		    (uint64_t)sext(la + size - 1, 48) != la + size - 1)
			mmu_segment_fault(v, seg);
	} else {
		bool code = s->ar & SEG_AR_CODE;

		la = (uint32_t)la;
		if (s->ar & SEG_AR_UNUSABLE)
			mmu_segment_fault(v, seg);
		if (!v->real) {
			if ((acc & ACC_WRITE) && (code || !(s->ar & SEG_AR_WRITE)))
				mmu_segment_fault(v, seg);
			if (!(acc & (ACC_WRITE | ACC_EXEC)) && code && !(s->ar & SEG_AR_WRITE))
				mmu_segment_fault(v, seg);
		}
		if (!code && (s->ar & SEG_AR_DOWN) && !v->real) {
			uint32_t top = s->ar & SEG_AR_DB ? 0xffffffff : 0xffff;

			if (off <= s->limit || last > top)
				mmu_segment_fault(v, seg);
		} else if (last > s->limit) {
			mmu_segment_fault(v, seg);
		}
	}
	if (v->ac_check && !(acc & (ACC_SYS | ACC_EXEC)) && size <= 8 && (la & (size - 1)))
		vcpu_throw_error(v, VEC_AC, 0);
	return la;
}

/* ---- Guest-physical access for the paravirtual areas ---------------------------------------- */

static int mmu_physical(struct vcpu *v, gpa_t gpa, void *buf, uint32_t len, bool write)
{
	uint8_t *b = buf;

	while (len) {
		struct kvm_memslot *s = kvm_memslot_find(v->vm, gpa >> PAGE_SHIFT);
		uint32_t n = MIN(len, (uint32_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
		uint8_t *host;

		if (!s || (write && (s->flags & KVM_MEM_READONLY)))
			return -EFAULT;
		host = s->host + (gpa - (s->base_gfn << PAGE_SHIFT));
		if (write) {
			memcpy(host, b, n);
			if (kvm_memslot_written(s, gpa, n))
				jit_code_written(v, &s->pages[(gpa >> PAGE_SHIFT) - s->base_gfn]);
		} else {
			memcpy(b, host, n);
		}
		gpa += n;
		b += n;
		len -= n;
	}
	return 0;
}

int kvm_write_guest(struct vcpu *v, gpa_t gpa, const void *data, uint32_t len)
{
	return mmu_physical(v, gpa, (void *)(uintptr_t)data, len, true);
}

int kvm_read_guest(struct vcpu *v, gpa_t gpa, void *data, uint32_t len)
{
	return mmu_physical(v, gpa, data, len, false);
}
