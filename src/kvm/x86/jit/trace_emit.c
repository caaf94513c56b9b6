/*
 * Emission of a trace. See trace.h.
 *
 * Order of the code: entry (flags, vector registers, context), what a loop keeps in
 * registers that it has no other use for, lookups that serve all its turns, the path, side exits.
 *
 * References: [SDM2]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trace.h"

#include <stdlib.h>

/* A branch that leaves the trace. */
struct trace_exit {
	size_t from;
	gva_t la;
	unsigned step;
	bool in_reg, in_mem;
};

/* A return or an indirect jump that goes to another place than the path did. */
struct trace_other {
	size_t from;
	unsigned step;
	struct trans_ref at; /* where the target is, unless in a register */
};

struct trace_emit {
	struct trans t;
	struct trans_trace tr;
	struct trace_exit exit[TRACE_MAX];
	struct trace_other other[TRACE_MAX];
	unsigned nexits, nothers, max_links;
};

/* ---- Lookups -------------------------------------------------------------------------------- */

bool trace_shares(const struct trans *t, const struct trace_access *a)
{
	return a->group != TRACE_NONE &&
	       (t->tr->group[a->group].uses > 1 || t->tr->group[a->group].fixed);
}

static bool trace_absolute(const struct trace_group *g)
{
	return g->base == TRACE_NONE && g->index == TRACE_NONE;
}

/*
 * S0 is the linear address of the group's lowest byte, without the segment base: look it up, keep
 * what the accesses need: host minus guest address, or the host address of an absolute one.
 */
static void trace_lookup(struct trans *t, struct trace_group *g)
{
	struct emit *e = &t->e;
	unsigned n = (unsigned)(g - t->tr->group), d = g->host >= 0 ? (unsigned)g->host : S0;
	uint32_t seg_base = (uint32_t)offsetof(struct vcpu, seg_base) + 8u * g->seg;
	bool seg = g->seg == SEG_FS || g->seg == SEG_GS;

	if (seg)
		asm_gs(e, 0x03, true, S0, seg_base);
	if (g->align)
		trans_test_aligned(t, g->align);
	if (trace_absolute(g)) {
		trans_probe(t, (unsigned)(g->hi - g->lo), g->write);
		asm_mov(e, d, S0);
	} else {
		trans_probe_delta(t, (unsigned)(g->hi - g->lo), g->write, d);
		if (seg)
			asm_gs(e, 0x03, true, d, seg_base);
	}
	if (g->host < 0)
		asm_st(e, S0, JIT_OFF(jit.delta) + 8 * n);
	g->known = true;
}

/* The register with the group's delta: S0 if it has none of its own. in_s0: it is there already. */
static unsigned trace_delta(struct trans *t, const struct trace_group *g, bool in_s0)
{
	if (g->host >= 0)
		return (unsigned)g->host;
	if (!in_s0)
		asm_ld(&t->e, S0, JIT_OFF(jit.delta) + 8 * (uint32_t)(g - t->tr->group));
	return S0;
}

struct trans_ref trace_operand(struct trans *t, const struct insn *i)
{
	const struct trace_access *a = &t->tr->step[t->tr->at].acc[0];
	struct trace_group *g = &t->tr->group[a->group];
	struct emit *e = &t->e;
	bool known = g->known;
	int base = -1, index = -1;
	struct trans_ref r = { .disp = i->disp };
	unsigned d;

	if (!known) {
		struct insn lowest = *i;

		lowest.disp += (int32_t)(g->lo - a->at);
		trans_clobber(t, trans_live_before(t, i));
		trans_ea(t, &lowest);
		trace_lookup(t, g);
	}
	d = trace_delta(t, g, !known);
	r.base = (uint8_t)d;
	if (trace_absolute(g)) {
		r.disp = (int32_t)(a->at - g->lo);
		return r;
	}
	if (i->base != REG_ZERO) {
		base = trans_host(t, i->base);
		if (base < 0) {
			asm_ld(e, S1, JIT_OFF_R(i->base));
			asm_lea(e, true, S0, (int)d, S1, 0, 0);
			d = S0;
		}
	}
	if (i->index != REG_ZERO) {
		index = trans_host(t, i->index);
		if (index < 0) {
			asm_ld(e, S1, JIT_OFF_R(i->index));
			asm_lea(e, true, S0, (int)d, S1, i->scale, 0);
			d = S0;
		}
	}
	r.base = (uint8_t)d;
	if (base >= 0 && index >= 0) {
		asm_lea(e, true, S0, (int)d, base, 0, 0);
		r.base = S0;
		base = -1;
	}
	if (base >= 0 || index >= 0) {
		r.sib = true;
		r.index = (uint8_t)(base >= 0 ? base : index);
		r.scale = base >= 0 ? 0 : i->scale;
	}
	return r;
}

/* [reg + off] of the stack. */
static struct trans_ref trace_stack(struct trans *t, const struct insn *i, unsigned reg,
				    int32_t off, bool write)
{
	const struct trace_access *a = &t->tr->step[t->tr->at].acc[1];
	unsigned host = (unsigned)trans_host(t, reg);
	struct trans_ref r = { .base = S0 };
	struct trace_group *g;
	bool known;

	if (!trace_shares(t, a)) {
		trans_clobber(t, trans_live_before(t, i));
		asm_lea(&t->e, true, S0, (int)host, -1, 0, off);
		trans_probe(t, 8, write);
		return r;
	}
	g = &t->tr->group[a->group];
	known = g->known;
	if (!known) {
		trans_clobber(t, trans_live_before(t, i));
		asm_lea(&t->e, true, S0, (int)host, -1, 0, off + (int32_t)(g->lo - a->at));
		trace_lookup(t, g);
	}
	r.base = (uint8_t)trace_delta(t, g, !known);
	r.sib = true;
	r.index = (uint8_t)host;
	r.disp = off;
	return r;
}

/* ---- Instructions --------------------------------------------------------------------------- */

static struct emit_op trace_op(unsigned opcode, unsigned reg, const struct trans_ref *at)
{
	return (struct emit_op){ .map = M1,
				 .opcode = (uint8_t)opcode,
				 .modrm = true,
				 .mem = true,
				 .w = true,
				 .reg = (uint8_t)reg,
				 .rm = at->base,
				 .sib = at->sib,
				 .index = at->index,
				 .scale = at->scale,
				 .disp = at->disp };
}

/* mov or cmp qword [at], address of code; uses S1. EFLAGS: see trans_la. */
static void trace_op_la(struct trans *t, bool cmp, const struct trans_ref *at, gva_t la)
{
	struct emit_op op = trace_op(cmp ? 0x39 : 0x89, S1, at);

	trans_la(t, S1, la);
	emit_op(&t->e, &op);
}

/* mov or cmp qword [at], constant; uses S1. */
static void trace_op_const(struct trans *t, bool cmp, const struct trans_ref *at, uint64_t x)
{
	struct emit_op op;

	if ((int64_t)x == (int32_t)x) {
		op = trace_op(cmp ? 0x81 : 0xc7, cmp ? 7 : 0, at);
		op.imm_len = 4;
		op.imm = (uint32_t)x;
	} else {
		asm_const(&t->e, S1, x);
		op = trace_op(cmp ? 0x39 : 0x89, S1, at);
	}
	emit_op(&t->e, &op);
}

static void trace_move_rsp(struct trans *t, int32_t delta)
{
	asm_lea(&t->e, true, H_R9, H_R9, -1, 0, delta);
}

static void trace_push_const(struct trans *t, const struct insn *i, uint64_t x)
{
	struct trans_ref at = trace_stack(t, i, REG_RSP, -8, true);

	trace_op_const(t, false, &at, x);
	trace_move_rsp(t, -8);
}

static void trace_push_la(struct trans *t, const struct insn *i, gva_t la)
{
	struct trans_ref at;

	if (!t->slides) {
		trace_push_const(t, i, la);
		return;
	}
	if (!trans_la_keeps(t, la))
		trans_clobber(t, trans_live_before(t, i));
	at = trace_stack(t, i, REG_RSP, -8, true);
	trace_op_la(t, false, &at, la);
	trace_move_rsp(t, -8);
}

static void trace_push_reg(struct trans *t, const struct insn *i)
{
	struct trans_ref at = trace_stack(t, i, REG_RSP, -8, true);
	struct emit_op op = trace_op(0x89, trans_reg(t, i->rm, S1, true), &at);

	emit_op(&t->e, &op);
	trace_move_rsp(t, -8);
}

static void trace_pop(struct trans *t, const struct insn *i)
{
	struct trans_ref at = trace_stack(t, i, REG_RSP, 0, false);
	int h = trans_host(t, i->rm);

	trans_load(t, 8, h >= 0 ? (unsigned)h : S0, &at);
	if (h < 0)
		asm_st(&t->e, S0, JIT_OFF_R(i->rm));
	if (i->rm != REG_RSP)
		trace_move_rsp(t, 8);
}

static void trace_leave(struct trans *t, const struct insn *i)
{
	struct trans_ref at = trace_stack(t, i, REG_RBP, 0, false);

	trans_load(t, 8, S0, &at);
	asm_lea(&t->e, true, H_R9, H_RBP, -1, 0, 8);
	asm_mov(&t->e, H_RBP, S0);
}

/* The path went to la: does it now? */
static void trace_guard(struct trace_emit *x, const struct insn *i, enum jit_kind kind, gva_t la)
{
	struct trans *t = &x->t;
	struct emit *e = &t->e;
	struct trans_ref at = { 0 };

	t->live = F_ARITH; /* as the target may be any */
	if (kind == JK_RET) {
		at = trace_stack(t, i, REG_RSP, 0, false);
	} else if (i->flags & IF_MEM) {
		at = trans_operand(t, i, 8, false, false, false);
	}
	trans_clobber(t, F_ARITH);
	if (kind == JK_RET || i->flags & IF_MEM) {
		if (t->slides)
			trace_op_la(t, true, &at, la);
		else
			trace_op_const(t, true, &at, la);
	} else {
		unsigned r = trans_reg(t, i->rm, S0, true);

		if (!t->slides && (int64_t)la == (int32_t)la) {
			asm_ri(e, 7, true, r, (int32_t)la);
		} else {
			trans_la(t, S1, la);
			asm_rr(e, 0x3b, true, S1, r);
		}
	}
	if (kind == JK_CALL_E || t->j->check)
		trans_slow_at(t, asm_jump_fwd(e, CC_NE));
	else
		x->other[x->nothers++] =
			(struct trace_other){ asm_jump_fwd(e, CC_NE), t->tr->at, at };
	if (kind == JK_RET)
		trace_move_rsp(t, 8 + (i->id == I_RET_Iw ? (int32_t)(uint16_t)i->imm : 0));
	else if (kind == JK_CALL_E)
		trace_push_la(t, i, t->next);
}

static void trace_branch(struct trace_emit *x, const struct insn *i, gva_t to)
{
	struct trans *t = &x->t;
	bool taken = to != t->next;

	trans_need_reg(t);
	x->exit[x->nexits].from = asm_jump_fwd(&t->e, i->cc ^ taken);
	x->exit[x->nexits].la = taken ? t->next : t->next + i->imm;
	x->exit[x->nexits].step = x->tr.at;
	x->exit[x->nexits].in_reg = t->in_reg;
	x->exit[x->nexits++].in_mem = t->in_mem;
}

static void trace_insn(struct trace_emit *x, unsigned n)
{
	const struct insn *i = &x->t.b->insns[n];
	struct trans *t = &x->t;
	enum jit_kind kind = trans_kind(t->v, i);

	x->tr.at = n;
	t->rip = x->tr.rip[n];
	t->next = t->rip + i->len;
	t->live = trans_unpack(x->tr.step[n].live);
	switch (kind) {
	case JK_JCC: trace_branch(x, i, x->tr.rip[n + 1]); break;
	case JK_JMP: break;
	case JK_CALLREL: trace_push_la(t, i, t->next); break;
	case JK_PUSH_I: trace_push_const(t, i, i->imm); break;
	case JK_PUSH_R: trace_push_reg(t, i); break;
	case JK_POP_R: trace_pop(t, i); break;
	case JK_LEAVE: trace_leave(t, i); break;
	case JK_RET:
	case JK_JMP_E:
	case JK_CALL_E: trace_guard(x, i, kind, x->tr.rip[n + 1]); break;
	default:
		if (!trans_simple(t, i, kind))
			t->failed = true;
	}
}

/* ---- Registers that a loop lends ------------------------------------------------------------- */

/* Give the host registers of guest ones that the loop does not touch to what it uses most. */
static void trace_lend(struct trace_emit *x)
{
	struct trans_trace *tr = &x->tr;
	unsigned weight[3] = { 0 };

	for (unsigned n = 0; n < tr->n; n++) {
		const struct insn *i = &tr->rec->insns[n];

		for (unsigned r = REG_R9; r <= REG_R11; r++)
			weight[r - REG_R9] +=
				i->base == r || i->index == r || i->reg == r || i->rm == r;
	}
	for (unsigned guest = 0; guest < 16; guest++) {
		int host = jit_host_reg(guest), best = -1;
		unsigned w = 1;

		if (host < 0 || tr->used & 1u << guest)
			continue;
		for (unsigned r = REG_R9; r <= REG_R11; r++)
			if (tr->used & 1u << r && tr->map[r] < 0 && 2 * weight[r - REG_R9] > w) {
				w = 2 * weight[r - REG_R9];
				best = (int)(TRACE_GROUPS + r);
			}
		for (unsigned g = 0; g < tr->ngroups; g++)
			if (tr->group[g].host < 0 && tr->group[g].uses > w) {
				w = tr->group[g].uses;
				best = (int)g;
			}
		if (best < 0)
			return;
		if (best >= TRACE_GROUPS)
			tr->map[best - TRACE_GROUPS] = (int8_t)host;
		else
			tr->group[best].host = (int8_t)host;
		tr->lent |= (uint16_t)(1u << guest);
	}
}

static void trace_borrow(struct trans *t)
{
	for (unsigned g = 0; g < 16; g++)
		if (t->tr->lent & 1u << g)
			asm_st(&t->e, (unsigned)jit_host_reg(g), JIT_OFF_R(g));
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg(g) < 0 && t->tr->map[g] >= 0)
			asm_ld(&t->e, (unsigned)t->tr->map[g], JIT_OFF_R(g));
}

/* Registers as everybody else expects them; flags stay. */
static void trace_give_back(struct trans *t)
{
	for (unsigned g = 0; g < 16; g++)
		if (jit_host_reg(g) < 0 && t->tr->map[g] >= 0 && t->tr->written & 1u << g)
			asm_st(&t->e, (unsigned)t->tr->map[g], JIT_OFF_R(g));
	for (unsigned g = 0; g < 16; g++)
		if (t->tr->lent & 1u << g)
			asm_ld(&t->e, (unsigned)jit_host_reg(g), JIT_OFF_R(g));
}

/* Lookups that serve all turns of a loop. */
static void trace_fixed_lookups(struct trans *t)
{
	for (unsigned n = 0; n < t->tr->ngroups; n++) {
		struct trace_group *g = &t->tr->group[n];
		int base = -1, index = -1;

		if (!g->fixed)
			continue;
		if (trace_absolute(g)) {
			if (g->slides)
				trans_la(t, S0, (gva_t)g->lo);
			else
				asm_const(&t->e, S0, (uint64_t)g->lo);
		} else {
			if (g->base != TRACE_NONE)
				base = (int)trans_reg(t, g->base, S0, true);
			if (g->index != TRACE_NONE)
				index = (int)trans_reg(t, g->index, S1, true);
			asm_lea(&t->e, true, S0, base, index, g->scale, (int32_t)g->lo);
		}
		trace_lookup(t, g);
	}
}

/* ---- Side exits ----------------------------------------------------------------------------- */

static struct jit_link *trace_link(struct trace_emit *x)
{
	struct jit_block *b = x->t.b;

	if (b->nlink == x->max_links) {
		x->t.failed = true;
		return &b->link[0];
	}
	b->link[b->nlink] = (struct jit_link){ .mem = true };
	return &b->link[b->nlink++];
}

static void trace_steps(struct trans *t, unsigned n)
{
	if (t->j->check) {
		static const uint8_t op[] = { 0x65, 0xc7, 0x04, 0x25 }; /* mov dword gs:[], imm32 */

		emit_bytes(&t->e, op, sizeof(op));
		asm_u32(&t->e, JIT_OFF(jit.steps));
		asm_u32(&t->e, n);
	}
}

/* What a lookup of this step has kept; after a branch more is live, for where it goes else. */
static unsigned trace_live_at(const struct trans_trace *tr, unsigned step)
{
	const struct insn *i = &tr->rec->insns[step];

	if (trace_anywhere(i))
		return F_ARITH;
	return (trans_unpack(tr->step[step].live) & ~trans_flags_written(i)) | trans_flags_read(i);
}

/* To the instruction of a step, in ordinary code; flags are in memory. */
static void trace_exit_before(struct trace_emit *x, unsigned step)
{
	struct trans *t = &x->t;
	struct jit_link *l = trace_link(x);
	gva_t la = x->tr.rip[step];

	t->in_reg = false;
	t->in_mem = true;
	t->rip = la - 1;
	l->plain = step == 0;
	trace_steps(t, step);
	trans_goto_live(t, la, l, trace_live_at(&x->tr, step) & trans_flags_at(t, la));
}

/* To where the branch goes this time, if it is known: else the branch is run by ordinary code. */
static void trace_other_target(struct trace_emit *x, const struct trace_other *o)
{
	const struct insn *i = &x->t.b->insns[o->step];
	struct trans *t = &x->t;
	int32_t pop = 0;
	size_t miss[3];

	asm_fix(&t->e, o->from);
	if (jit_kinds[i->id] == JK_RET)
		pop = 8 + (i->id == I_RET_Iw ? (int32_t)(uint16_t)i->imm : 0);
	if (pop || i->flags & IF_MEM)
		trans_load(t, 8, S0, &o->at);
	else
		asm_mov(&t->e, S0, trans_reg(t, i->rm, S0, true));
	trace_give_back(t);
	trans_jump_s0(t, pop, false, miss);
	trans_jump_missed(t, pop, miss);
	trace_exit_before(x, o->step);
}

static void trace_exits(struct trace_emit *x)
{
	struct trans *t = &x->t;
	struct trans_trace *tr = &x->tr;

	for (unsigned n = 0; n < x->nexits; n++) {
		const struct trace_exit *q = &x->exit[n];

		asm_fix(&t->e, q->from);
		t->in_reg = q->in_reg;
		t->in_mem = q->in_mem;
		t->rip = tr->rip[q->step];
		trace_give_back(t);
		trace_steps(t, q->step + 1);
		trans_goto(t, q->la, trace_link(x));
	}
	for (unsigned n = 0; n < t->nslow;) {
		unsigned step = t->slow[n].desc;

		for (; n < t->nslow && t->slow[n].desc == step; n++)
			asm_fix(&t->e, t->slow[n].from);
		trace_give_back(t);
		trace_exit_before(x, step);
	}
	for (unsigned n = 0; n < x->nothers; n++)
		trace_other_target(x, &x->other[n]);
}

/* To C, for what waits there. */
static void trace_leave_busy(struct trans *t, size_t from)
{
	asm_fix(&t->e, from);
	trace_give_back(t);
	trans_leave_hot(t, JIT_HOT_NOT);
}

/* ---- The trace ------------------------------------------------------------------------------ */

static void trace_body(struct trace_emit *x)
{
	struct trans *t = &x->t;
	struct trans_trace *tr = &x->tr;
	struct jit_block *b = t->b;
	size_t turn = 0, stale = 0, vec_from = 0, vec_back, top;

	b->entry_mem = (uint32_t)(t->j->used + emit_size(&t->e));
	trans_room(t);
	if (tr->in)
		trans_load_flags(t);
	b->entry = (uint32_t)(t->j->used + emit_size(&t->e));
	t->in_reg = true;
	trans_clobber(t, tr->in);
	t->in_mem = true; /* what is not live does not matter */
	if (t->vec) {
		asm_cmp_gs8(&t->e, JIT_OFF(jit.vec_live), b->avx ? VEC_AVX : VEC_SSE);
		vec_from = asm_jump_fwd(&t->e, CC_B);
	}
	vec_back = emit_size(&t->e);
	if (b->trace->npages > 1) {
		asm_cmp_gs32(&t->e, (uint32_t)offsetof(struct vcpu, jit.link) + 4 * t->ctx,
			     jit_link_number(t->v, t->ctx, t->slide));
		b->trace->stamp = (uint32_t)(t->j->used + emit_size(&t->e) - 4);
		stale = asm_jump_fwd(&t->e, CC_NE);
	}
	trace_borrow(t);
	trace_fixed_lookups(t);
	top = emit_size(&t->e);
	if (t->j->counting)
		jit_emit_count(&t->e, b);
	for (unsigned n = 0; n < tr->n; n++)
		trace_insn(x, n);

	tr->at = tr->n - 1;
	if (tr->loop && !t->j->check) {
		trans_clobber(t, tr->in);
		asm_cmp_gs32(&t->e, JIT_OFF(requests), 0);
		turn = asm_jump_fwd(&t->e, CC_NE);
		asm_jmp(&t->e, t->e.run + top);
	} else {
		t->rip = tr->rip[tr->n] - 1;
		trace_give_back(t);
		trace_steps(t, tr->n);
		trans_goto(t, tr->rip[tr->n], trace_link(x));
	}
	trace_exits(x);
	if (turn)
		trace_leave_busy(t, turn);
	if (stale) {
		asm_fix(&t->e, stale);
		trace_steps(t, 0);
		trans_leave_hot(t, JIT_HOT_STALE);
	}
	if (t->vec) {
		asm_fix(&t->e, vec_from);
		asm_call(&t->e, t->j->g_vec);
		asm_u32(&t->e, trans_desc(t, trans_vec_insn(b), b->la));
		asm_jmp(&t->e, t->e.run + vec_back);
	}
}

static void trace_facts(struct trace_emit *x)
{
	struct jit_block *b = x->t.b;

	for (unsigned n = 0; n < b->n; n++) {
		uint32_t attr = insn_info[b->insns[n].id].attr;

		b->fpu |= !!(attr & (A_X87 | A_MMX | A_SSE | A_AVX));
		if (trans_kind(x->t.v, &b->insns[n]) == JK_VEC) {
			x->t.vec = true;
			b->avx |= !!(attr & A_AVX);
		}
	}
}

/* A block's memory: its instructions, their addresses, the trace's own facts, links to come. */
static struct jit_block *trace_new_block(struct jit *j, const struct jit_rec *r, bool loop,
					 unsigned max_links, uint64_t slide)
{
	size_t at = j->meta_used, size = sizeof(struct jit_block) + r->n * sizeof(struct insn);
	struct jit_block *b = (struct jit_block *)(j->meta + at);
	struct jit_trace *t;

	if (at + size + sizeof(*t) + (r->n + 1) * sizeof(gva_t) +
		    max_links * sizeof(struct jit_link) + 16 >
	    j->meta_size)
		return NULL;
	memset(b, 0, sizeof(*b));
	b->insns = (struct insn *)(b + 1);
	memcpy(b->insns, r->insns, r->n * sizeof(struct insn));
	b->trace = t = (struct jit_trace *)((uint8_t *)b + size);
	*t = (struct jit_trace){ .loop = loop, .npages = r->npages };
	memcpy(t->page, r->page, sizeof(t->page));
	t->rip = (gva_t *)(t + 1);
	memcpy(t->rip, r->rip, (r->n + 1) * sizeof(gva_t));
	b->link = (struct jit_link *)(t->rip + r->n + 1);
	b->n = (uint16_t)r->n;
	b->la = r->head;
	b->host = r->page[0].host + (r->head & ~PAGE_MASK);
	b->page = r->page[0].page;
	b->gen = r->page[0].gen;
	b->ctx = (uint8_t)r->ctx;
	b->made = slide;
	b->slides = jit_slides(r->ctx, r->head + slide);
	return b;
}

struct jit_block *trace_translate(struct vcpu *v, const struct jit_rec *rec, uint64_t slide)
{
	bool loop = rec->rip[rec->n] == rec->head;
	struct jit *j = v->jitp;
	struct jit_block *b;
	struct trace_emit *x;

	if (j->used + (64u << 10) > j->code_size || j->ndescs == j->max_descs)
		return NULL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	x->max_links = 2 * rec->n + 2;
	b = trace_new_block(j, rec, loop, x->max_links, slide);
	if (!b) {
		free(x);
		return NULL;
	}
	x->t = (struct trans){ .v = v,
			       .j = j,
			       .b = b,
			       .ctx = rec->ctx,
			       .word = 8,
			       .tr = &x->tr,
			       .group = 1,
			       .slides = b->slides,
			       .slide = slide };
	x->tr.rec = rec;
	x->tr.loop = loop;
	x->tr.n = rec->n;
	memcpy(x->tr.rip, rec->rip, sizeof(x->tr.rip));
	for (unsigned r = 0; r < 16; r++)
		x->tr.map[r] = (int8_t)jit_host_reg(r);
	emit_init(&x->t.e, j->rw + j->used, (64u << 10) - 64, (uintptr_t)j->rx + j->used);
	trace_facts(x);
	trace_liveness(&x->t);
	trace_plan(&x->t);
	if (loop)
		trace_lend(x);
	trace_body(x);
	if (x->t.e.full || x->t.failed) {
		free(x);
		return NULL;
	}
	emit_align(&x->t.e, 16);
	b->size = (uint32_t)(j->used + emit_size(&x->t.e)) - b->entry_mem;
	j->used += emit_size(&x->t.e);
	j->meta_used = ((size_t)((uint8_t *)(b->link + b->nlink) - j->meta) + 15) & ~(size_t)15;
	free(x);
	return b;
}
