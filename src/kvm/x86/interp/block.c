/* Cache of decoded blocks. See block.h for how it works and who may call. */
#include "kvm/x86/interp/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm/x86/interp/exec.h"
#include "kvm/x86/interp/thunk.h"
#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit.h"

#define HASH_BITS   17
#define JUMP_BITS   12
#define BLOCK_FEW   (256u << 10) /* bytes */
#define BLOCK_BYTES (sizeof(struct block) + BLOCK_MAX_INSNS * sizeof(struct insn))

struct jump_entry {
	uint64_t la, key; /* linear address; ASID, mode, privilege */
	uint64_t gen;     /* v->fetch_gen */
	struct block *b;
};

struct block_cache {
	uint8_t *arena;
	size_t used, size;
	struct block *hash[1 << HASH_BITS];
	struct jump_entry jump[1 << JUMP_BITS];
	/* one block that is not cached: page crossings, code under a limit */
	union {
		struct block b;
		uint8_t room[BLOCK_BYTES];
	} scratch;
};

int block_cache_new(struct vcpu *v)
{
	struct block_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	/* a full arena drops translated code with it: it must not be the smaller of the two */
	c->size = jit_cache_size(&v->vm->options) / 2 * 3;
	c->arena = mmap(NULL, c->size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->arena == MAP_FAILED) {
		free(c);
		return -ENOMEM;
	}
	v->blocks = c;
	return 0;
}

void block_cache_free(struct vcpu *v)
{
	if (!v->blocks)
		return;
	munmap(v->blocks->arena, v->blocks->size);
	free(v->blocks);
	v->blocks = NULL;
}

static size_t block_size(const struct block *b)
{
	size_t more = b->crosses ? sizeof(struct block_cross) : 0;

	return (sizeof(*b) + b->n * sizeof(struct insn) + more + 15) & ~(size_t)15;
}

static struct block **block_head(struct block_cache *c, const uint8_t *host)
{
	uintptr_t h = (uintptr_t)host;

	return &c->hash[(h ^ (h >> HASH_BITS)) & ((1u << HASH_BITS) - 1)];
}

size_t block_cache_used(const struct vcpu *v)
{
	return v->blocks->used;
}

void block_cache_flush(struct vcpu *v)
{
	struct block_cache *c = v->blocks;

	if (c->used > BLOCK_FEW) {
		memset(c->hash, 0, sizeof(c->hash));
	} else { /* a guest whose slots come and go should not wait for a table that is empty */
		for (size_t at = 0; at < c->used;) {
			const struct block *b = (const struct block *)(c->arena + at);

			*block_head(c, b->host) = NULL;
			at += block_size(b);
		}
	}
	memset(c->jump, 0, sizeof(c->jump));
	c->used = 0;
	v->fetch_gen++;
	jit_flush(v);
}

/* ---- Fetching ------------------------------------------------------------------------------- */

/* Code TLB entry for a linear address; throws #PF. NULL: no memory there. */
static struct itlb_entry *block_fetch_page(struct vcpu *v, gva_t la)
{
	struct itlb_entry *t = &v->itlb[v->cpl == 3][(la >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	struct kvm_memslot *s;
	struct mmu_result r;

	if (likely(t->tag == ((la & PAGE_MASK) | v->asid)))
		return t;
	if (!mmu_walk(v, la, ACC_EXEC, true, &r))
		vcpu_throw_pf(v, la, r.error);
	s = kvm_memslot_find(v->vm, r.gpa >> PAGE_SHIFT);
	if (!s)
		return NULL;
	t->tag = (la & PAGE_MASK) | v->asid;
	t->gpa = r.gpa & PAGE_MASK;
	t->global = r.global;
	t->host = s->host + (t->gpa - (s->base_gfn << PAGE_SHIFT));
	t->page = &s->pages[(t->gpa >> PAGE_SHIFT) - s->base_gfn];
	if (r.page_size > PAGE_SIZE) {
		unsigned half = la >> 63;

		v->large_lo[half] = MIN(v->large_lo[half], la & ~(r.page_size - 1));
		v->large_hi[half] = MAX(v->large_hi[half], la | (r.page_size - 1));
	}
	return t;
}

const uint8_t *block_page_host(struct vcpu *v, gva_t la)
{
	struct itlb_entry *t;
	struct mmu_result r;

	t = &v->itlb[v->cpl == 3][(la >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	if (t->tag != ((la & PAGE_MASK) | v->asid) && !mmu_walk(v, la, ACC_EXEC, true, &r))
		return NULL;
	t = block_fetch_page(v, la);
	return t ? t->host : NULL;
}

/* ---- Decoding ------------------------------------------------------------------------------- */

/* Rows with checks that depend on what may change between runs of a block. */
static void block_exec_checked(struct vcpu *v, const struct insn *i)
{
	uint32_t attr = insn_info[i->id].attr;

	if ((attr & A_PRIV) && v->cpl)
		throw_gp(v, 0);
	if (attr & (A_SSE | A_AVX | A_MMX | A_X87))
		fpu_check(v, i, attr);
	insn_exec[i->id](v, i);
}

static void block_exec_ud(struct vcpu *v, const struct insn *i)
{
	throw_ud(v);
}

static void block_exec_gp(struct vcpu *v, const struct insn *i)
{
	throw_gp(v, 0);
}

static void block_set_exec(struct vcpu *v, struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	exec_fn *fn = insn_exec[i->id];

	if (info->attr & A_FALL && !vcpu_has(v, info->feature)) {
		i->id = (uint16_t)insn_fallback(i->id);
		info = &insn_info[i->id];
		fn = insn_exec[i->id];
	}
	if (info->how == HOST && vcpu_has(v, info->feature))
		i->aux = host_thunk_get(i, v->mode);
	if (!vcpu_has(v, info->feature))
		fn = block_exec_ud;
	else if (i->aux && info->attr & (A_SSE | A_AVX | A_MMX | A_X87))
		fn = exec_host_checked;
	else if (info->attr & (A_PRIV | A_SSE | A_AVX | A_MMX | A_X87))
		fn = block_exec_checked;
	i->exec = (void (*)(void))fn;
}

/* An instruction that cannot be decoded, as one that throws. */
static void block_bad_insn(struct insn *i, enum decode_result rc)
{
	*i = (struct insn){ .len = 1 };
	i->exec = (void (*)(void))(rc == DECODE_GP ? block_exec_gp : block_exec_ud);
}

/*
 * Decode from p, at most avail bytes, into b. Stops before an instruction that is cut by avail or
 * undefined, unless it is the first. Returns false when the first one is cut.
 */
static bool block_decode(struct vcpu *v, struct block *b, const uint8_t *p, size_t avail)
{
	bool check = v->vm->options.jit_check;
	size_t at = 0;

	b->n = 0;
	b->alone = 0;
	while (b->n < BLOCK_MAX_INSNS && at < avail) {
		struct insn *i = &b->insns[b->n];
		enum decode_result rc = insn_decode(p + at, avail - at, v->mode, v->real, i);

		if (rc == DECODE_MORE) {
			if (b->n == 0)
				return false;
			break;
		}
		if (rc != DECODE_OK) {
			if (b->n)
				break;
			block_bad_insn(i, rc);
			b->n = 1;
			b->bytes = 1;
			return true;
		}
		block_set_exec(v, i);
		if (check && !jit_check_pure(i)) {
			if (b->n)
				break;
			b->alone = 1;
		}
		at += i->len;
		b->n++;
		if (b->alone || insn_info[i->id].attr & (A_BRANCH | A_END))
			break;
	}
	b->bytes = (uint16_t)at;
	return true;
}

/* One instruction that is not cached: it crosses into the next page, or runs under a CS limit. */
static struct block *block_uncached(struct vcpu *v, gva_t la, const uint8_t *p, size_t avail,
				    uint64_t limit)
{
	struct block *b = &v->blocks->scratch.b;
	uint8_t bytes[16];
	size_t n = MIN(avail, 15u);
	enum decode_result rc;
	struct insn *i = &b->insns[0];

	memcpy(bytes, p, n);
	n = MIN(n, limit);
	rc = insn_decode(bytes, n, v->mode, v->real, i);
	if (rc == DECODE_MORE && n < 15 && n < limit) {
		/* the rest is in the next page */
		gva_t next = (la & PAGE_MASK) + PAGE_SIZE;
		struct itlb_entry *t;

		if (!v->long64)
			next = (uint32_t)next;
		t = block_fetch_page(v, next);
		if (!t)
			return NULL;
		memcpy(bytes + n, t->host, 15 - n);
		n = MIN(15u, limit);
		rc = insn_decode(bytes, n, v->mode, v->real, i);
	}
	if (rc == DECODE_MORE)
		rc = DECODE_GP; /* cut by the CS limit */
	if (rc == DECODE_OK)
		block_set_exec(v, i);
	else
		block_bad_insn(i, rc);
	b->n = 1;
	b->bytes = i->len;
	b->has_page_end = 1;
	b->crosses = 0;
	return b;
}

static struct block *block_add(struct vcpu *v, struct block *b, struct block **head)
{
	b->heat = 0;
	b->next = *head;
	*head = b;
	v->blocks->used += block_size(b);
	v->stat.blocks_decoded++;
	return b;
}

/* A page from which a block is decoded, and what was known of it before its bytes were read. */
struct block_page {
	struct kvm_page *page;
	gpa_t gpa;
	uint32_t gen;
	uint64_t lines; /* to which no store was unseen, if settled */
	bool settled;
};

/* Add lines to a page that has some. Returns what was set before; 0: none, and none is now. */
static uint64_t block_add_lines(struct kvm_page *page, uint64_t lines)
{
	uint64_t old = atomic_load(&page->code_lines);

	while (old && (old & lines) != lines &&
	       !atomic_compare_exchange_weak(&page->code_lines, &old, old | lines))
		;
	return old;
}

/* Before bytes are read. lines: where they begin, which spares most blocks a second turn. */
static void block_begin(struct vcpu *v, struct block_page *p, uint64_t lines)
{
	p->gen = atomic_load(&p->page->gen);
	p->lines = block_add_lines(p->page, lines);
	if (p->lines)
		p->lines |= lines;
	p->settled = !atomic_load(&p->page->clearing) && !kvm_others_marking(v, p->page);
}

enum block_marked { MARK_DONE, MARK_AGAIN, MARK_WAIT };

/*
 * Bytes in these lines have been decoded, after block_begin(): from now on, and when block_wait()
 * has ended, all writes to the page take the slow path. MARK_WAIT: a block_wait() is due. So it is
 * also if another vCPU has set the first lines and its own has not ended: a third may still write
 * to the page unseen. MARK_AGAIN: the bytes may have been written unseen, decode again. n: 0 or 1,
 * which of the pages of a block it is.
 *
 * MARK_DONE says that from before the bytes were read until now the lines were set, nobody was
 * marking or clearing the page (one that began after the first look and has ended would have had to
 * wait for this vCPU, or has changed gen), and no store to them was seen.
 */
static enum block_marked block_set_lines(struct vcpu *v, unsigned n, const struct block_page *p,
					 uint64_t lines)
{
	struct kvm_page *page = p->page;
	uint64_t old = block_add_lines(page, lines);

	if (!old) { /* before the lines: whoever finds them finds this */
		atomic_store(&v->marking[n], page);
		atomic_fetch_or(&page->code_lines, lines);
		mmu_drop_writes(v, p->gpa);
		return MARK_WAIT;
	}
	if (kvm_others_marking(v, page))
		return MARK_WAIT;
	return p->settled && (p->lines & lines) == lines && (old & lines) == lines &&
			       !atomic_load(&page->clearing) && atomic_load(&page->gen) == p->gen
		       ? MARK_DONE
		       : MARK_AGAIN;
}

/*
 * Until nobody writes to the n pages unseen any more. False: slots have gone meanwhile, and pages
 * with them, so that all has to be looked up again.
 */
static bool block_wait(struct vcpu *v, const struct block_page *p, unsigned n)
{
	if (atomic_load(&v->marking[0]) || atomic_load(&v->marking[1]))
		kvm_sync_vcpus(v->vm, REQ_TLB_FLUSH, v);
	for (unsigned k = 0; k < n; k++)
		kvm_wait_marking(v, p[k].page);
	return !v->flush_code;
}

/* Others write faster than we decode: after so many turns an instruction is run uncached. */
#define BLOCK_TURNS 64

/* Why there is no block. */
enum block_none {
	NONE_CUT,   /* the first instruction goes on in the next page, or in none */
	NONE_AGAIN, /* slots have gone: look everything up once more */
	NONE_HASTY, /* the bytes do not stay */
};

/* Decode at (t, off) and enter it in the hash. NULL: *none says why. */
static struct block *block_make(struct vcpu *v, const struct itlb_entry *t, unsigned off,
				unsigned mode, struct block **head, enum block_none *none)
{
	struct block_page p = { .page = t->page, .gpa = t->gpa };
	struct block_cache *c = v->blocks;
	const uint8_t *host = t->host + off;
	enum block_marked marked;
	unsigned turns = 0;
	struct block *b;

	if (c->used + BLOCK_BYTES > c->size) {
		block_cache_flush(v);
		*head = NULL;
	}
	b = (struct block *)(c->arena + c->used);
	do {
		block_begin(v, &p, block_lines(off, 1));
		*none = turns++ == BLOCK_TURNS ? NONE_HASTY : NONE_CUT;
		if (*none == NONE_HASTY || !block_decode(v, b, host, PAGE_SIZE - off))
			return NULL;
		marked = block_set_lines(v, 0, &p, block_lines(off, b->bytes));
		if (marked == MARK_WAIT && !block_wait(v, &p, 1)) {
			*none = NONE_AGAIN;
			return NULL;
		}
	} while (marked != MARK_DONE);
	b->host = host;
	b->page = p.page;
	b->gen = p.gen;
	b->mode = (uint8_t)mode;
	b->has_page_end = 0;
	b->crosses = 0;
	return block_add(v, b, head);
}

/*
 * The instruction at (t, off) goes on in the next page: as block_make, in 64-bit mode. NULL also if
 * it is none.
 */
static struct block *block_make_cross(struct vcpu *v, gva_t la, const struct itlb_entry *t,
				      unsigned off, unsigned mode, struct block **head,
				      enum block_none *none)
{
	struct block_page p[2] = { { .page = t->page, .gpa = t->gpa } };
	const uint8_t *host[2] = { t->host + off };
	struct block_cache *c = v->blocks;
	unsigned first = (unsigned)PAGE_SIZE - off;
	enum block_marked marked[2];
	unsigned turns = 0;
	struct block *b;
	struct insn *i;

	t = block_fetch_page(v, (la & PAGE_MASK) + PAGE_SIZE);
	if (!t)
		return NULL;
	p[1] = (struct block_page){ .page = t->page, .gpa = t->gpa };
	host[1] = t->host;
	if (c->used + BLOCK_BYTES > c->size) {
		block_cache_flush(v);
		*head = NULL;
	}
	b = (struct block *)(c->arena + c->used);
	i = &b->insns[0];
	do {
		uint8_t bytes[15];

		block_begin(v, &p[0], block_lines(off, 1));
		block_begin(v, &p[1], block_lines(0, 1));
		memcpy(bytes, host[0], MIN(first, 15u));
		if (first < 15)
			memcpy(bytes + first, host[1], 15 - first);
		if (turns++ == BLOCK_TURNS ||
		    insn_decode(bytes, 15, v->mode, v->real, i) != DECODE_OK || i->len <= first)
			return NULL;
		marked[0] = block_set_lines(v, 0, &p[0], block_lines(off, first));
		marked[1] = block_set_lines(v, 1, &p[1], block_lines(0, i->len - first));
		if ((marked[0] == MARK_WAIT || marked[1] == MARK_WAIT) && !block_wait(v, p, 2)) {
			*none = NONE_AGAIN;
			return NULL;
		}
	} while (marked[0] != MARK_DONE || marked[1] != MARK_DONE);
	block_set_exec(v, i);
	b->n = 1;
	b->bytes = i->len;
	b->alone = v->vm->options.jit_check && !jit_check_pure(i);
	b->host = host[0];
	b->page = p[0].page;
	b->gen = p[0].gen;
	b->mode = (uint8_t)mode;
	b->has_page_end = 0;
	b->crosses = 1;
	*block_cross(b) = (struct block_cross){ p[1].page, host[1], p[1].gen };
	return block_add(v, b, head);
}

/* ---- Lookup --------------------------------------------------------------------------------- */

static bool block_valid(const struct block *b)
{
	return atomic_load_explicit(&b->page->gen, memory_order_acquire) == b->gen &&
	       (!b->crosses || atomic_load_explicit(&block_cross(b)->page->gen,
						    memory_order_acquire) == block_cross(b)->gen);
}

/* Does the page behind la's come behind the block's? Throws what fetching from it throws. */
static bool block_goes_on(struct vcpu *v, const struct block *b, gva_t la)
{
	const struct itlb_entry *t = block_fetch_page(v, (la & PAGE_MASK) + PAGE_SIZE);

	return t && t->host == block_cross(b)->host;
}

/* NULL and NONE_AGAIN: start over. */
static struct block *block_lookup_slow(struct vcpu *v, gva_t la, uint64_t limit,
				       struct jump_entry *j, uint64_t key, enum block_none *none)
{
	unsigned mode = v->mode | (unsigned)v->real << 2, off = la & ~PAGE_MASK;
	struct itlb_entry *found, at;
	struct block **head, **pp, *b;
	uint64_t gen = v->fetch_gen;
	const uint8_t *host;

	if (unlikely(
		    v->flush_code)) { /* slots have gone, and the pages blocks point to with them */
		v->flush_code = false;
		block_cache_flush(v);
		gen = v->fetch_gen;
	}
	found = block_fetch_page(v, la);
	if (!found)
		return NULL;
	at = *found; /* which a flush may empty while a block is made */
	host = at.host + off;
	head = block_head(v->blocks, host);
	for (pp = head; (b = *pp); pp = &b->next) {
		if (b->host != host || b->mode != mode)
			continue;
		if (block_valid(b) && (!b->crosses || block_goes_on(v, b, la)))
			break;
		*pp = b->next; /* stale: unlink; its memory returns with the arena */
		b = NULL;
		break;
	}
	if (!b) {
		b = block_make(v, &at, off, mode, head, none);
		if (!b && v->long64 && *none == NONE_CUT)
			b = block_make_cross(v, la, &at, off, mode, head, none);
		if (!b && *none == NONE_AGAIN)
			return NULL;
	}
	if (!b || b->has_page_end || b->bytes > limit)
		return block_uncached(v, la, host, PAGE_SIZE - off, limit);
	if (v->fetch_gen == gen) /* else the ASID in key may have been given anew */
		*j = (struct jump_entry){ la, key, gen, b };
	return b;
}

static uint64_t block_key(const struct vcpu *v)
{
	return v->asid | (uint64_t)(v->cpl == 3) << 12 | (uint64_t)v->mode << 13 |
	       (uint64_t)v->real << 15;
}

struct block *block_lookup(struct vcpu *v)
{
	uint64_t rip = v->r[REG_RIP], limit = 15 + PAGE_SIZE, key;
	struct jump_entry *j;
	struct block *b;
	gva_t la = rip;
	enum block_none none;

	key = block_key(v);
	if (unlikely(!v->long64)) {
		la = (uint32_t)(v->seg_base[SEG_CS] + rip);
		v->insn_rip = rip;
		if (rip > v->seg[SEG_CS].limit)
			throw_gp(v, 0);
		limit = v->seg[SEG_CS].limit - rip + 1;
	}
	j = &v->blocks->jump[(la ^ (la >> JUMP_BITS)) & ((1u << JUMP_BITS) - 1)];
	if (likely(j->la == la && j->key == key && j->gen == v->fetch_gen && j->b &&
		   block_valid(j->b) && j->b->bytes <= limit))
		return j->b;
	v->insn_rip = rip; /* fetching may throw */
	if (v->long64 && (uint64_t)sext(rip, 48) != rip)
		throw_gp(v, 0);
	do {
		none = NONE_CUT;
		key = block_key(v); /* slots that went have taken the ASID with them */
		b = block_lookup_slow(v, la, limit, j, key, &none);
	} while (!b && none == NONE_AGAIN);
	return b;
}
