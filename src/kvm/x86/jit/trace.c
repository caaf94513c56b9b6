/*
 * Recording traces, and when they may run. See trace.h.
 *
 * References: as there. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trace.h"

#include <stdlib.h>

struct jit_rec *jit_trace_rec_new(void)
{
	return calloc(1, sizeof(struct jit_rec));
}

bool jit_recording(const struct jit *j)
{
	return j->rec && j->rec->active;
}

void jit_trace_abort(struct jit *j)
{
	if (j->rec)
		j->rec->active = false;
}

/* ---- The path ------------------------------------------------------------------------------- */

/* May control go from step n to la? */
static bool trace_follows(const struct jit_rec *r, unsigned n, gva_t la)
{
	const struct insn *i = &r->insns[n];
	gva_t next = r->rip[n] + i->len;

	switch (jit_kinds[i->id]) {
	case JK_JCC: return la == next || la == next + i->imm;
	case JK_JMP:
	case JK_CALLREL: return la == next + i->imm;
	case JK_RET:
	case JK_JMP_E:
	case JK_CALL_E: return trans_canonical(la);
	default: return la == next;
	}
}

static bool trace_has_page(struct jit_rec *r, const struct trace_page *p)
{
	for (unsigned n = 0; n < r->npages; n++)
		if (r->page[n].la == p->la)
			return r->page[n].host == p->host && r->page[n].gen == p->gen;
	if (r->npages == JIT_TRACE_PAGES)
		return false;
	r->page[r->npages++] = *p;
	return true;
}

/* The pages of a block become some of the trace's. */
static bool trace_add_page(struct jit_rec *r, const struct block *b, gva_t la)
{
	struct trace_page p = { la & PAGE_MASK, b->host - (la & ~PAGE_MASK), b->page, b->gen };

	if (!trace_has_page(r, &p))
		return false;
	if (!b->crosses)
		return true;
	p = (struct trace_page){ p.la + PAGE_SIZE, block_cross(b)->host, block_cross(b)->page,
				 block_cross(b)->gen };
	return trace_has_page(r, &p);
}

/* A small loop, several times over. */
static void trace_unroll(struct jit_rec *r)
{
	unsigned n = r->n;

	while (n <= TRACE_UNROLL / 2 && r->n + n <= TRACE_UNROLL) {
		memcpy(&r->insns[r->n], r->insns, n * sizeof(r->insns[0]));
		memcpy(&r->rip[r->n], r->rip, n * sizeof(r->rip[0]));
		r->n += n;
	}
	r->rip[r->n] = r->head;
}

/* Addresses as in code that slides. */
static void trace_to_home(struct jit_rec *r, uint64_t slide)
{
	r->head -= slide;
	for (unsigned n = 0; n <= r->n; n++)
		r->rip[n] -= slide;
	for (unsigned n = 0; n < r->npages; n++)
		r->page[n].la -= slide;
}

/* The path is complete, and goes on at next: make the trace. */
static void trace_finish(struct vcpu *v, gva_t next, bool loop)
{
	struct jit *j = v->jitp;
	struct jit_rec *r = j->rec;
	struct jit_block *jb;
	uint64_t start, slide = 0;

	r->active = false;
	r->rip[r->n] = next;
	if (r->n < 2)
		return;
	if (jit_slides(r->ctx, r->head)) {
		jb = jit_cache_find(j, r->head, r->page[0].host + (r->head & ~PAGE_MASK), r->ctx,
				    false);
		if (!jb) /* it has gone meanwhile */
			return;
		slide = r->head - jb->la;
	}
	/* that a dispatch has gone the same way once more does not mean that it will again */
	if (loop && !trace_anywhere(&r->insns[r->n - 1]))
		trace_unroll(r);
	for (unsigned n = 0; n < r->npages; n++)
		if (atomic_load_explicit(&r->page[n].page->gen, memory_order_acquire) !=
		    r->page[n].gen)
			return;
	start = kvm_now_ns();
	trace_to_home(r, slide);
	jb = trace_translate(v, r, slide);
	if (!jb)
		return;
	jit_watch_block(v, jb, kvm_now_ns() - start);
	for (unsigned n = 0; n < r->npages; n++)
		if (!jit_cache_page(v, jb, n, r->page[n].page, r->page[n].gen,
				    r->page[n].la + slide)) {
			jit_flush(v);
			return;
		}
	if (jb->dead) /* a page's list was found to be old */
		return;
	jit_cache_add(j, jb);
}

bool jit_trace_record(struct vcpu *v, const struct block *b, unsigned ctx)
{
	struct jit *j = v->jitp;
	struct jit_rec *r = j->rec;
	gva_t la = v->r[REG_RIP], rip = la;

	if (r->n == 0 && la != r->head) { /* something came between */
		r->active = false;
		return false;
	}
	if (r->n == 0 && trace_anywhere(&b->insns[0])) {
		/* as a return thunk: its next target would be a guess */
		r->active = false;
		return false;
	}
	if (ctx != r->ctx || (r->n && !trace_follows(r, r->n - 1, la))) {
		r->active = false;
		return false;
	}
	if (r->n && (r->n + b->n > TRACE_MAX || !trace_add_page(r, b, la))) {
		trace_finish(v, la, false);
		return false;
	}
	if (r->n == 0)
		trace_add_page(r, b, la);
	for (unsigned n = 0; n < b->n; n++) {
		const uint8_t *host = b->host + (rip - la);

		/* blocks are not cut where others jump to */
		if (r->n && rip == r->head) {
			trace_finish(v, rip, true);
			return false;
		}
		if (!trace_takes(v, &b->insns[n]) ||
		    (r->n && jit_cache_find(j, rip, host, ctx, true))) {
			trace_finish(v, rip, false);
			return false;
		}
		r->insns[r->n] = b->insns[n];
		r->rip[r->n++] = rip;
		rip += b->insns[n].len;
	}
	return true;
}

/* ---- When it may run ------------------------------------------------------------------------ */

static bool trace_still_valid(struct vcpu *v, const struct jit_trace *t, unsigned ctx,
			      uint64_t slide)
{
	for (unsigned n = 0; n < t->npages; n++) {
		if (block_page_host(v, t->page[n].la + slide) != t->page[n].host)
			return false;
		jit_code_at(v->jitp, ctx, t->page[n].la + slide);
	}
	return true;
}

/* The page that the instruction of a block goes on in. */
static bool trace_second_valid(struct vcpu *v, const struct jit_block *jb, unsigned ctx, gva_t la)
{
	gva_t second = (la & PAGE_MASK) + PAGE_SIZE;

	jit_code_at(v->jitp, ctx, second);
	return !jb->second || block_page_host(v, second) == jb->second;
}

/*
 * What is at la, a trace or a block over two pages, was made in another context: it may run in this
 * one, too, or it goes. True: the trace has gone.
 */
static bool trace_renew(struct vcpu *v, const struct block *b, gva_t la, unsigned ctx)
{
	struct jit *j = v->jitp;
	struct jit_block *jb = jit_cache_find(j, la, b->host, ctx, false);
	uint32_t number;

	if (jb && !trace_second_valid(v, jb, ctx, la))
		jit_cache_drop(v, jb);
	else if (jb && jb->stamp)
		jit_patch32(j, jb->stamp, jit_link_number(v, ctx, la - jb->la));
	jb = jit_cache_find(j, la, b->host, ctx, true);
	if (!jb)
		return false;
	number = jit_link_number(v, ctx, la - jb->la);
	if (trace_still_valid(v, jb->trace, ctx, la - jb->la)) {
		/* what was stale is gone, and this is another one, in one page: no stamp */
		if (jb->trace->stamp)
			jit_patch32(j, jb->trace->stamp, number);
		return false;
	}
	jit_cache_drop(v, jb);
	return true;
}

bool jit_trace_hot(struct vcpu *v, const struct block *b, unsigned ctx)
{
	struct jit *j = v->jitp;
	unsigned why = v->jit.hot;
	gva_t la = v->r[REG_RIP];
	struct jit_block *jb;

	v->jit.hot = JIT_HOT_NOT;
	if (why == JIT_HOT_DEAD)
		return false;
	if (why == JIT_HOT_STALE)
		return trace_renew(v, b, la, ctx);
	jb = jit_cache_find(j, la, b->host, ctx, false);
	if (jb) { /* ever later, should nothing come of it */
		if (jit_cache_find(j, la, b->host, ctx, true))
			jb->tries = 8; /* arrivals from it are of its lookups that miss */
		jb->tries += jb->tries < 8;
		v->jit.count[jb->count] = j->trace_heat << (2 * jb->tries);
	}
	if (ctx >= JIT_CTXS) /* 32-bit code */
		return false;
	if (j->rec->active || (jb && jb->tries == 8))
		return false;
	*j->rec = (struct jit_rec){ .active = true, .head = la, .ctx = ctx };
	return false;
}
