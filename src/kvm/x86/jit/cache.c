/*
 * The vCPU's translated code: memory, lookup, links between blocks, invalidation.
 *
 * The code is a memfd mapped twice, once to write and once to execute. When code or its
 * descriptions are full, everything is dropped; that happens between blocks, never under running
 * code. A block whose bytes were written is unlinked from everything that leads to it and left
 * where it is; its entry leads out, for entries of ibtc that are still there.
 *
 * Code of 64-bit programs slides: a library is at another address in each process, and its code is
 * to be made once. It does not contain where it is but where its home is, an address below 2 GiB;
 * what it wants to know of addresses is relative to v->jit.slide, the difference, which whoever
 * enters the block has set. A page has one home; what a module's pages have in common is the slide
 * (cache_home guesses it, and moves a page when a jump shows that the guess was wrong), so that
 * jumps inside of a module leave it alone. Links across pages are valid for one slide in one
 * address space: the number they compare stands for both.
 * A target that ibtc does not know in this address space yet is looked up in two steps, of which
 * the second one does not depend on it: by linear page in v->jit.ctlb, which has host address and
 * slide, and by host address in v->jit.places.
 *
 * References: see jit.h. Threads: the vCPU's own.
 */
#include <stdlib.h>

#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit_int.h"

#include "kvm/x86/interp/thunk.h"

/* ---- Contexts ------------------------------------------------------------------------------- */

static void cache_clear_ibtc(struct vcpu *v)
{
	memset(v->jit.ibtc, 0, sizeof(v->jit.ibtc));
	memset(v->jit.ctlb, 0, sizeof(v->jit.ctlb));
	memset(v->jit.places, 0, JIT_PLACES * sizeof(*v->jit.places));
}

static void cache_renew(struct vcpu *v);
static void cache_tlb_flush_local(struct vcpu *v);

/* Every 2^15 numbers the tags of ibtc start again. */
uint32_t jit_serial(struct vcpu *v)
{
	struct jit *j = v->jitp;

	if ((++j->serial & 0x7fff) == 0) {
		cache_clear_ibtc(v);
		cache_renew(v);
	}
	return j->serial;
}

/*
 * The tag bits of a context number: 62..48, so that tags of canonical addresses never meet; and
 * some of the index, so that address spaces that take turns find different places. Bits 63 and 47
 * of a canonical address are the same, and so they are in the tags of 64-bit code: those of 32-bit
 * code have bit 63 only. An address that is not canonical may have any tag, and is not looked up:
 * but that behind the lower half, which code runs into, has bit 47 only and so the tag of no code.
 */
#define CACHE_FLAT32 BIT(63)
void jit_set_context(struct vcpu *v, unsigned ctx, uint32_t serial)
{
	v->jit.link[ctx] = serial;
	if (ctx == TLB_USER) {
		v->jitp->user_serial = serial;
		v->jit.link[ctx] = 0; /* set by who enters code */
	}
	v->jit.token[ctx] = (uint64_t)(serial & 0x7fff) << 48 | (serial & 0xff) << 4;
	v->jit.token[ctx + JIT_CTXS] = v->jit.token[ctx] | CACHE_FLAT32;
}

/* Nothing that was valid is valid now. */
static void cache_vpages_clear(struct jit_vpages *p)
{
	if (p->n > JIT_VPAGES / 32) {
		memset(p->bit, 0, sizeof(p->bit));
		p->n = 0;
	}
}

/*
 * Addresses mean something else: a link that has led out is not made, as the one of a page to
 * itself, which is valid for good, could then lead to the page that is there now.
 */
static void cache_forget_pending(struct vcpu *v)
{
	v->jitp->pending = NULL;
	v->jit.tmp2 = 0;
}

/* New numbers for all contexts. */
static void cache_renew(struct vcpu *v)
{
	struct jit *j = v->jitp;

	memset(j->asid_serial, 0, sizeof(j->asid_serial));
	for (unsigned c = 0; c < JIT_CTXS; c++)
		jit_set_context(v, c, ++j->serial);
	j->asid_serial[v->asid] = j->user_serial;
	j->serial++;
	j->kernel_low = false;
	cache_forget_pending(v);
	jit_kspace_reset(v);
	for (unsigned n = 0; n < ARRAY_SIZE(j->vpages); n++)
		cache_vpages_clear(&j->vpages[n]);
}

/* New numbers for all of the user's contexts. */
static void cache_renew_user(struct vcpu *v)
{
	struct jit *j = v->jitp;
	uint32_t serial = jit_serial(v);

	memset(j->asid_serial, 0, sizeof(j->asid_serial));
	j->asid_serial[v->asid] = serial;
	jit_set_context(v, TLB_USER, serial);
	cache_vpages_clear(&j->vpages[0]);
}

uint32_t jit_link_number(struct vcpu *v, unsigned ctx, uint64_t slide)
{
	struct jit *j = v->jitp;
	struct jit_pair *p;

	if (ctx % JIT_CTXS != TLB_USER)
		return v->jit.link[ctx % JIT_CTXS];
	p = &j->pairs[((slide >> PAGE_SHIFT) * 0x9e3779b1u ^ slide >> 32 ^ j->user_serial) %
		      JIT_PAIRS];
	if (!p->number || p->serial != j->user_serial || p->slide != slide)
		*p = (struct jit_pair){ slide, j->user_serial, ++j->last_pair };
	return p->number;
}

void jit_new_context(struct vcpu *v)
{
	if (!v->jitp)
		return;
	if ((v->jitp->serial & 0x7fff) > 0x7ff0) {
		cache_clear_ibtc(v);
		v->jitp->serial += 32; /* over the border, where no tag is left */
	}
	cache_renew(v);
}

void jit_new_asid(struct vcpu *v)
{
	if (v->jitp)
		v->jitp->asid_serial[v->asid] = 0;
	jit_set_asid(v);
}

void jit_set_asid(struct vcpu *v)
{
	struct jit *j = v->jitp;
	uint32_t serial;

	if (!j)
		return;
	cache_tlb_flush_local(v);
	if (j->kernel_low) { /* kernel code of the old address space may have been linked */
		jit_new_context(v);
		return;
	}
	cache_forget_pending(v);
	jit_kspace_switch(v, !j->asid_serial[v->asid]);
	serial = j->asid_serial[v->asid];
	if (!serial) {
		serial = jit_serial(v);
		j->asid_serial[v->asid] = serial;
	}
	jit_set_context(v, TLB_USER, serial);
}

/* ---- TLB ------------------------------------------------------------------------------------ */

static void cache_tlb_clear(struct jit_tlb_entry *x)
{
	x->key = JIT_TLB_EMPTY;
}

static void cache_tlb_clear_at(struct vcpu *v, unsigned ctx, unsigned at)
{
	cache_tlb_clear(&v->jit.tlb[ctx][JIT_READ][at]);
	cache_tlb_clear(&v->jit.tlb[ctx][JIT_WRITE][at]);
}

static void cache_tlb_clear_ctx(struct vcpu *v, unsigned ctx)
{
	for (unsigned n = 0; n < JIT_TLB_SIZE; n++)
		cache_tlb_clear_at(v, ctx, n);
	v->jitp->nlog[ctx] = 0;
}

/* What another address space does not share: all but the kernel's global pages. */
static void cache_tlb_flush_local(struct vcpu *v)
{
	struct jit *j = v->jitp;

	for (unsigned c = 0; c < JIT_CTXS; c++) {
		if (j->nlog[c] > ARRAY_SIZE(j->log[c])) {
			cache_tlb_clear_ctx(v, c);
			continue;
		}
		for (unsigned n = 0; n < j->nlog[c]; n++)
			cache_tlb_clear_at(v, c, j->log[c][n]);
		j->nlog[c] = 0;
	}
}

void jit_tlb_flush(struct vcpu *v)
{
	if (!v->jitp)
		return;
	if (v->jitp->check) { /* for each block; all entries are logged */
		cache_tlb_flush_local(v);
		return;
	}
	for (unsigned c = 0; c < JIT_CTXS; c++)
		cache_tlb_clear_ctx(v, c);
}

/* Where a linear page stands in jit_vpages. */
static unsigned cache_vpage(gva_t la)
{
	return (unsigned)((la >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 32) & (JIT_VPAGES - 1);
}

void jit_code_at(struct jit *j, unsigned ctx, gva_t la)
{
	struct jit_vpages *p = &j->vpages[ctx % JIT_CTXS != TLB_USER];
	unsigned n = cache_vpage(la);

	if (ctx % JIT_CTXS != TLB_USER && la >> 63)
		jit_kspace_code(j->v, la);
	if (p->bit[n / 64] & BIT(n % 64))
		return;
	p->bit[n / 64] |= BIT(n % 64);
	p->n++;
}

static bool cache_has_code(const struct jit *j, bool kernel, gva_t la)
{
	unsigned n = cache_vpage(la);

	return j->vpages[kernel].bit[n / 64] & BIT(n % 64);
}

void jit_tlb_flush_page(struct vcpu *v, uint64_t la)
{
	struct jit *j = v->jitp;

	if (!j)
		return;
	if (cache_has_code(j, true, la))
		jit_new_context(v);
	else if (cache_has_code(j, false, la))
		cache_renew_user(v);
	for (unsigned c = 0; c < JIT_CTXS; c++)
		cache_tlb_clear_at(v, c, (la >> PAGE_SHIFT) & (JIT_TLB_SIZE - 1));
}

void jit_tlb_drop_writes(struct vcpu *v, uint64_t gpa_page)
{
	if (!v->jitp)
		return;
	for (unsigned c = 0; c < JIT_CTXS; c++)
		for (unsigned n = 0; n < JIT_TLB_SIZE; n++)
			if (v->jitp->wgpa[c][n] == gpa_page)
				cache_tlb_clear(&v->jit.tlb[c][JIT_WRITE][n]);
}

/* ---- Links ---------------------------------------------------------------------------------- */

void jit_patch32(struct jit *j, uint32_t at, uint32_t x)
{
	__atomic_store_n((uint32_t *)(j->rw + at), x, __ATOMIC_RELAXED);
}

void jit_set_link(struct jit *j, struct jit_link *l, struct jit_block *to)
{
	if (l->target)
		return;
	if (l->stamp)
		jit_patch32(j, l->stamp, j->v->jit.link[l->ctx % JIT_CTXS]);
	jit_patch32(j, l->site, (l->mem ? to->entry_mem : to->entry) - (l->site + 4));
	l->target = to;
	l->next = to->in;
	to->in = l;
	j->stat.links++;
}

static void cache_unlink(struct jit *j, struct jit_link *l)
{
	struct jit_link **p;

	if (!l->target)
		return;
	for (p = &l->target->in; *p; p = &(*p)->next)
		if (*p == l) {
			*p = l->next;
			break;
		}
	jit_patch32(j, l->site, l->stub - (l->site + 4));
	l->target = NULL;
}

/* ---- Lookup --------------------------------------------------------------------------------- */

static unsigned cache_hash(const uint8_t *host)
{
	uintptr_t x = (uintptr_t)host;

	return (unsigned)(x ^ (x >> 14)) & (JIT_HASH - 1);
}

/* Is this the block for la's code (which block_lookup has found at host)? */
static bool cache_is(const struct jit_block *jb, gva_t la, const uint8_t *host, unsigned ctx)
{
	return jb->host == host && jb->ctx == ctx &&
	       (jit_slides(ctx, la) ? jb->slides : !jb->slides && jb->la == la);
}

static struct jit_page **cache_page(struct jit *j, const struct kvm_page *page)
{
	struct jit_page **p = &j->pages[((uintptr_t)page / sizeof(*page)) & (JIT_PAGES - 1)];

	while (*p && (*p)->page != page)
		p = &(*p)->next;
	return p;
}

/* la: where the block is in this address space. */
static void cache_ibtc_add(struct vcpu *v, struct jit_block *b, gva_t la)
{
	uint64_t token = v->jit.token[b->ctx], tag = la ^ token, slide = la - b->la;
	struct jit_ibtc_entry *x = &v->jit.ibtc[tag & (JIT_IBTC_SIZE - 1)];
	uint32_t link = jit_link_number(v, b->ctx, slide);
	void *code = v->jitp->rx + b->entry_mem;

	v->jitp->stat.ibtc_fills += x->tag != tag;
	*x = (struct jit_ibtc_entry){ tag, code, slide, link, 0 };
	if (jit_kernel_placed(b->ctx, la))
		*jit_place(v, tag) = (struct jit_place){ tag, code };
	if (!b->slides)
		return;
	*jit_place(v, (uintptr_t)b->host) = (struct jit_place){ (uintptr_t)b->host, code };
	v->jit.ctlb[(la >> PAGE_SHIFT) & (JIT_CTLB_SIZE - 1)] =
		(struct jit_ctlb_entry){ (la & PAGE_MASK) ^ token, (uintptr_t)b->host - la, slide,
					 link, 0 };
}

static void cache_unplace(struct vcpu *v, const struct jit_block *b)
{
	struct jit_place *p =
		jit_place(v, b->slides ? (uintptr_t)b->host : b->la ^ v->jit.token[b->ctx]);

	if (p->code == v->jitp->rx + b->entry_mem)
		*p = (struct jit_place){ 0 };
}

/* Take a block out of ibtc, wherever it is there. */
static void cache_ibtc_remove(struct vcpu *v, const struct jit_block *b)
{
	void *code = v->jitp->rx + b->entry_mem;

	cache_unplace(v, b);
	for (unsigned n = 0; n < JIT_IBTC_SIZE; n++)
		if (v->jit.ibtc[n].code == code)
			v->jit.ibtc[n] = (struct jit_ibtc_entry){ 0 };
}

/* Whoever still knows the entry is led out; nobody is between it and the end of this. */
static void cache_close(struct jit *j, const struct jit_block *b)
{
	uint8_t code[JIT_DEAD_BYTES] = { 0xe8 }; /* call; .long place of b */
	uint32_t at = b->entry_mem + 5;
	uint32_t to = (uint32_t)(j->g_hot[JIT_HOT_DEAD] - ((uintptr_t)j->rx + at));
	uint32_t place = jit_place_of(j->meta, b);

	memcpy(code + 1, &to, sizeof(to));
	memcpy(code + 5, &place, sizeof(place));
	memcpy(j->rw + b->entry_mem, code, sizeof(code));
}

static void cache_remove(struct vcpu *v, struct jit_block *b)
{
	struct jit *j = v->jitp;
	struct jit_block **p = &j->hash[cache_hash(b->host)];

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	while (b->in)
		cache_unlink(j, b->in);
	for (unsigned n = 0; n < b->nlink; n++) {
		cache_unlink(j, &b->link[n]);
		if (j->pending == &b->link[n])
			j->pending = NULL;
	}
	cache_unplace(v, b);
	cache_close(j, b);
	b->dead = 1;
	jit_profile_keep(j, b);
	j->stat.invalidated++;
}

void jit_page_written(struct vcpu *v, const struct kvm_page *page)
{
	struct jit_page *p;

	if (!v->jitp)
		return;
	p = *cache_page(v->jitp, page);
	if (!p)
		return;
	for (struct jit_ref *r = p->blocks; r; r = r->next)
		if (!r->b->dead)
			cache_remove(v, r->b);
	p->blocks = NULL;
	p->gen = atomic_load_explicit(&p->page->gen, memory_order_acquire);
}

void jit_code_written(struct vcpu *v, const struct kvm_page *page)
{
	kvm_request_all(v->vm, REQ_CODE, v); /* first: they are not to wait for us */
	jit_page_written(v, page);
}

void jit_check_pages(struct vcpu *v)
{
	struct jit *j = v->jitp;

	/* slots have gone, and the pages with them: all code goes before any runs */
	if (!j || v->flush_code)
		return;
	for (unsigned n = 0; n < JIT_PAGES; n++)
		for (struct jit_page *p = j->pages[n]; p; p = p->next)
			if (p->blocks &&
			    p->gen != atomic_load_explicit(&p->page->gen, memory_order_acquire))
				jit_page_written(v, p->page);
}

void jit_flush(struct vcpu *v)
{
	struct jit *j = v->jitp;

	if (!j)
		return;
	jit_profile_keep_all(j);
	j->stat.flushed_bytes += j->used - j->glue_end;
	if (j->meta_used) {
		memset(j->hash, 0, sizeof(j->hash));
		memset(j->pages, 0, sizeof(j->pages));
		memset(j->vpages, 0, sizeof(j->vpages));
		cache_clear_ibtc(v);
	}
	j->used = j->glue_end;
	j->meta_used = 0;
	j->ndescs = 0;
	j->pending = NULL;
	jit_trace_abort(j);
	jit_new_context(v);
	j->stat.flushes++;
}

/* What is known of a page of which gen is the generation now; NULL: no memory. */
static struct jit_page *cache_page_get(struct vcpu *v, struct kvm_page *page, uint32_t gen)
{
	struct jit *j = v->jitp;
	struct jit_page **pp = cache_page(j, page);

	if (!*pp) {
		struct jit_page *p;

		if (j->meta_used + sizeof(*p) > j->meta_size)
			return NULL;
		p = (struct jit_page *)(j->meta + j->meta_used);
		j->meta_used += (sizeof(*p) + 15) & ~(size_t)15;
		*p = (struct jit_page){ .page = page, .gen = gen };
		*pp = p;
	} else if ((*pp)->gen != gen) {
		jit_page_written(v, page);
	}
	(*pp)->gen = gen;
	return *pp;
}

bool jit_cache_page(struct vcpu *v, struct jit_block *jb, unsigned n, struct kvm_page *page,
		    uint32_t gen, gva_t la)
{
	struct jit_page *p = cache_page_get(v, page, gen);

	if (!p)
		return false;
	jb->ref[n] = (struct jit_ref){ p->blocks, jb };
	p->blocks = &jb->ref[n];
	jit_code_at(v->jitp, jb->ctx, la);
	return true;
}

/* ---- Homes ---------------------------------------------------------------------------------- */

static bool cache_home_fits(gva_t home)
{
	return home >= PAGE_SIZE && home < 0x7fff0000;
}

/* The home of a page at la if the page n pages away, being of the same module, has one. */
static gva_t cache_home_near(struct vcpu *v, gva_t la, int64_t n)
{
	gva_t at = la + (uint64_t)(n * (int64_t)PAGE_SIZE);
	const struct itlb_entry *x = &v->itlb[1][(at >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	const struct jit_page *p;

	if (x->tag != (at | v->asid))
		return 0;
	p = *cache_page(v->jitp, x->page);
	if (!p || !p->blocks || !p->home || !cache_home_fits(p->home + (la - at)))
		return 0;
	return p->home + (la - at);
}

/*
 * A home for a page at la: that of the code which has jumped there directly or of a page that is
 * near, moved by as much; else a part of la.
 */
static gva_t cache_home_guess(struct vcpu *v, gva_t la, const struct jit_link *l)
{
	gva_t home;

	if (l && cache_home_fits((l->la & PAGE_MASK)) && l->ctx == TLB_USER)
		return l->la & PAGE_MASK;
	for (int64_t n = 1; n <= 16; n++) {
		home = cache_home_near(v, la, n);
		if (!home)
			home = cache_home_near(v, la, -n);
		if (home)
			return home;
	}
	return la < BIT(30) ? MAX(la, PAGE_SIZE) : (la & (BIT(30) - 1)) | BIT(30);
}

/* A page gets a home, or another. Entries of ctlb tell the old one. */
static void cache_move(struct vcpu *v, struct jit_page *p, gva_t home)
{
	if (p->home == home)
		return;
	if (p->home) {
		cache_renew_user(v);
		p->moved++;
	}
	p->home = home;
}

enum { CACHE_MOVES = 3 };

/* Where code at la is made for. False: no memory. */
static bool cache_home(struct vcpu *v, const struct block *b, gva_t la, const struct jit_link *l,
		       gva_t *home)
{
	struct jit_page *p = cache_page_get(v, b->page, b->gen);

	if (!p)
		return false;
	if (!p->home || (!p->blocks && p->moved < CACHE_MOVES))
		cache_move(v, p, cache_home_guess(v, la & PAGE_MASK, l));
	*home = p->home + (la & ~PAGE_MASK);
	return true;
}

/*
 * A direct jump has led to jb, and with another slide. They are of one module: the page moves.
 * True: jb has gone.
 */
static bool cache_reunite(struct vcpu *v, const struct jit_link *l, const struct jit_block *jb)
{
	struct jit_page *p = *cache_page(v->jitp, jb->page);

	if (l->trace || l->ctx != TLB_USER || !jb->slides || !p || p->moved >= CACHE_MOVES ||
	    !cache_home_fits(l->la & PAGE_MASK))
		return false;
	jit_page_written(v, p->page);
	cache_move(v, p, l->la & PAGE_MASK);
	return true;
}

/* ---- Getting a block ------------------------------------------------------------------------ */

/*
 * The block of this address, bytes and context, translated now if b is hot; a trace if there is one
 * and plain is not set. l: the jump that has led here, or NULL. NULL: not yet.
 */
static struct jit_block *cache_get(struct vcpu *v, struct block *b, gva_t la, unsigned ctx,
				   const struct jit_link *l, bool plain)
{
	struct jit *j = v->jitp;
	struct jit_block *jb;
	gva_t home = la;
	uint64_t start;

	for (jb = j->hash[cache_hash(b->host)]; jb; jb = jb->hash_next)
		if (cache_is(jb, la, b->host, ctx) && jb->gen == b->gen && !(plain && jb->trace)) {
			if (!b->crosses || jb->trace || jb->insns == b->insns)
				return jb;
			cache_remove(v, jb); /* it goes on elsewhere */
			break;
		}
	if (++b->heat < j->heat)
		return NULL;
	start = kvm_now_ns();
	if (jit_slides(ctx, la) && !cache_home(v, b, la, l, &home)) {
		jit_flush(v);
		return NULL;
	}
	jb = jit_translate(v, b, la, ctx, la - home);
	if (!jb) {
		jit_flush(v);
		return NULL;
	}
	jit_watch_block(v, jb, kvm_now_ns() - start);
	if (!jit_cache_page(v, jb, 0, b->page, b->gen, la) ||
	    (b->crosses && !jit_cache_page(v, jb, 1, block_cross(b)->page, block_cross(b)->gen,
					   (la & PAGE_MASK) + PAGE_SIZE))) {
		jit_flush(v);
		return NULL;
	}
	if (jb->dead) /* the list of the second page was found to be old, and it is the first */
		return NULL;
	jit_cache_add(j, jb);
	return jb;
}

void jit_cache_add(struct jit *j, struct jit_block *jb)
{
	struct jit_block **head = &j->hash[cache_hash(jb->host)], *b;

	for (b = jb->trace ? *head : NULL; b; b = b->hash_next)
		if (b->host == jb->host && b->la == jb->la && b->ctx == jb->ctx) {
			while (b->in)
				cache_unlink(j, b->in);
			cache_ibtc_remove(j->v, b);
		}
	jb->hash_next = *head;
	*head = jb;
}

struct jit_block *jit_cache_find(struct jit *j, gva_t la, const uint8_t *host, unsigned ctx,
				 bool trace)
{
	struct jit_block *b = j->hash[cache_hash(host)];

	while (b && !(!b->trace == !trace && cache_is(b, la, host, ctx)))
		b = b->hash_next;
	return b;
}

void jit_cache_drop(struct vcpu *v, struct jit_block *jb)
{
	cache_remove(v, jb);
}

/* ---- Running -------------------------------------------------------------------------------- */

void jit_thread(struct vcpu *v)
{
	if (v->jitp)
		__asm__ volatile("wrgsbase %0" ::"r"(v));
}

static void cache_enter(struct vcpu *v, uint64_t code)
{
	struct jit *j = v->jitp;
	struct jit_link *l;

	v->jit.tmp2 = 0;
	jit_enter(v, code);
	if ((int32_t)v->jit.sample < 0)
		v->jit.sample = JIT_SAMPLE;
	j->stat.exits++;
	/* the last one that was not there may have been found without C */
	l = (struct jit_link *)(uintptr_t)v->jit.tmp2;
	j->pending = l && l->la + v->jit.slide == v->r[REG_RIP] ? l : NULL;
	j->stat.link_exits += j->pending != NULL;
	v->cur = NULL;
}

bool jit_run_known(struct vcpu *v)
{
	const struct jit_ibtc_entry *x;
	unsigned ctx;

	if (!jit_usable(v) || v->jitp->pending || v->flush_code || v->jit.interp_once ||
	    v->jit.hot || jit_recording(v->jitp))
		return false;
	ctx = jit_code_ctx(v);
	x = jit_lookup(v, v->r[REG_RIP], ctx);
	if (!x)
		return false;
	jit_arrive(v, x, ctx);
	cache_enter(v, (uintptr_t)x->code);
	return true;
}

/* Nothing is chained: arrivals are counted here. */
static bool cache_check_run(struct vcpu *v, struct block *b, struct jit_block *jb, unsigned ctx)
{
	struct jit *j = v->jitp;

	if (!jb->trace && j->trace_heat && ctx < JIT_CTXS && !jit_recording(j) &&
	    !--v->jit.count[jb->count]) {
		v->jit.hot = JIT_HOT_BLOCK;
		jit_trace_hot(v, b, ctx);
		if (jit_recording(j) && jit_trace_record(v, b, ctx))
			return false;
	}
	if (jit_check_run(v, jb))
		return true;
	if (v->jit.hot)
		jit_trace_hot(v, b, ctx);
	return false;
}

/* Is the code at la in a global page, which all address spaces share? */
static bool cache_code_global(struct vcpu *v, gva_t la)
{
	const struct itlb_entry *x = &v->itlb[v->cpl == 3][(la >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	struct mmu_result r;

	if (x->tag == ((la & PAGE_MASK) | v->asid))
		return x->global;
	return mmu_walk(v, la, ACC_EXEC, false, &r) && r.global;
}

bool jit_run(struct vcpu *v, struct block *b)
{
	struct jit *j = v->jitp;
	gva_t la = v->r[REG_RIP];
	struct jit_link *l;
	struct jit_block *jb;
	bool plain = false;
	uint64_t flushes;
	unsigned ctx;

	if (!jit_usable(v) || b->has_page_end || b->alone) {
		if (j)
			j->pending = NULL;
		return false;
	}
	if (v->jit.interp_once) {
		v->jit.interp_once = 0;
		j->pending = NULL;
		return false;
	}
	ctx = jit_code_ctx(v);
	/* kernel code in the lower half belongs to one address space, but its context does not */
	if (jit_data_ctx(v) != TLB_USER && !j->kernel_low && !(v->r[REG_RIP] >> 63))
		j->kernel_low = !cache_code_global(v, v->r[REG_RIP]);
	l = j->pending;
	j->pending = NULL;
	if (l && (l->la + v->jit.slide != la || l->ctx != ctx))
		l = NULL;
	if (unlikely(j->last_pair > ~0u - 4)) { /* no number is given twice */
		jit_flush(v);
		j->last_pair = 0;
		memset(j->pairs, 0, sizeof(j->pairs));
		return false;
	}
	if (unlikely(v->jit.hot) && jit_trace_hot(v, b, ctx))
		plain = true;
	flushes = j->stat.flushes;
	if (unlikely(jit_recording(j)) && jit_trace_record(v, b, ctx))
		return false; /* the interpreter shows the way */
	if (unlikely(j->stat.flushes != flushes))
		l = NULL; /* no room for a trace: no links are left */
	plain |= l && l->plain;
	jb = cache_get(v, b, la, ctx, l, plain);
	if (!jb || (l && l->la != jb->la && cache_reunite(v, l, jb)))
		return false;
	v->jit.slide = la - jb->la;
	if (ctx % JIT_CTXS == TLB_USER)
		v->jit.link[TLB_USER] = jit_link_number(v, ctx, v->jit.slide);
	jit_code_at(j, ctx, la);
	if (j->check)
		return cache_check_run(v, b, jb, ctx);
	if (l && l->la == jb->la) {
		if (l->target && l->stamp) /* another address space: stamp it anew */
			cache_unlink(j, l);
		jit_set_link(j, l, jb);
	} else if (l && l->other && !l->target) {
		jit_patch32(j, l->site, l->other - (l->site + 4));
	}
	if (!plain)
		cache_ibtc_add(v, jb, la);
	cache_enter(v, (uintptr_t)j->rx + jb->entry_mem);
	return true;
}
