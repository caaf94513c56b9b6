/*
 * Stack instructions and branches of generated code: pushes, pops, leaving a block.
 *
 * References: [SDM2]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trans.h"

/* ---- Stack ---------------------------------------------------------------------------------- */

static void trans_lea_rsp(struct trans *t, int32_t delta)
{
	asm_lea(&t->e, t->word == 8, H_R9, H_R9, -1, 0, delta);
}

/* mov word [S0 + off], address of code. */
static void trans_store_la(struct trans *t, int32_t off, gva_t la)
{
	trans_la(t, S1, la);
	emit_mov_store(&t->e, t->word, S0, off, S1);
}

/* mov word [S0 + off], imm. */
static void trans_store_imm(struct trans *t, int32_t off, uint64_t val)
{
	struct emit *e = &t->e;

	if (t->word == 8 && (int64_t)val != (int32_t)val) {
		asm_const(e, S1, val);
		emit_mov_store(e, 8, S0, off, S1);
		return;
	}
	emit_op(e, &(struct emit_op){ .map = M1,
				      .opcode = 0xc7,
				      .modrm = true,
				      .mem = true,
				      .w = t->word == 8,
				      .rm = S0,
				      .disp = off,
				      .imm_len = 4,
				      .imm = (uint32_t)val });
}

void trans_push(struct trans *t, const struct insn *i, bool imm, uint64_t val)
{
	struct emit *e = &t->e;

	trans_clobber(t, trans_live_before(t, i));
	asm_lea(e, t->word == 8, S0, H_R9, -1, 0, -t->word);
	trans_probe(t, t->word, true);
	if (imm && t->slides && jit_kinds[i->id] != JK_PUSH_I)
		trans_store_la(t, 0, val);
	else if (imm)
		trans_store_imm(t, 0, val);
	else
		emit_mov_store(e, t->word, S0, 0, trans_reg(t, i->rm, S1, true));
	trans_lea_rsp(t, -t->word);
}

/* PUSH of memory: two probes; nothing is changed before the second one has hit. */
void trans_push_rm(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;

	if (!(i->flags & IF_MEM)) {
		trans_push(t, i, false, 0);
		return;
	}
	trans_mem(t, i, t->word, false, false);
	emit_mov_load(e, t->word, S0, S0, 0);
	asm_st(e, S0, JIT_OFF(jit.tmp));
	asm_lea(e, t->word == 8, S0, H_R9, -1, 0, -t->word);
	trans_probe(t, t->word, true);
	asm_ld(e, S1, JIT_OFF(jit.tmp));
	emit_mov_store(e, t->word, S0, 0, S1);
	trans_lea_rsp(t, -t->word);
}

/* S0 = [rSP + 0]. */
static void trans_peek(struct trans *t, const struct insn *i)
{
	trans_clobber(t, trans_live_before(t, i));
	trans_mov_word(t, S0, H_R9);
	trans_probe(t, t->word, false);
	emit_mov_load(&t->e, t->word, S0, S0, 0);
}

void trans_pop(struct trans *t, const struct insn *i)
{
	int h = jit_host_reg(i->rm);

	trans_peek(t, i);
	trans_lea_rsp(t, t->word);
	if (h >= 0)
		asm_mov(&t->e, (unsigned)h, S0);
	else
		asm_st(&t->e, S0, JIT_OFF_R(i->rm));
}

void trans_leave(struct trans *t, const struct insn *i)
{
	trans_clobber(t, trans_live_before(t, i));
	trans_mov_word(t, S0, H_RBP);
	trans_probe(t, t->word, false);
	emit_mov_load(&t->e, t->word, S0, S0, 0);
	asm_lea(&t->e, t->word == 8, H_R9, H_RBP, -1, 0, t->word);
	asm_mov(&t->e, H_RBP, S0);
}

gva_t trans_next(const struct trans *t, gva_t la, unsigned bytes)
{
	return t->word == 8 ? la + bytes : (uint32_t)(la + bytes);
}

gva_t trans_target(const struct trans *t, const struct insn *i)
{
	gva_t la = t->next + i->imm;

	return t->word == 8 ? la : (uint32_t)la;
}

bool trans_near_branch(const struct trans *t, const struct insn *i, gva_t target)
{
	return i->osize == t->word && (t->word == 4 || trans_canonical(target));
}

/* ---- Leaving the block ---------------------------------------------------------------------- */

/* A call of glue code that wants to know a block or a link, and does not come back. */
static void trans_call_with(struct trans *t, uint64_t glue, const void *what)
{
	asm_call(&t->e, glue);
	asm_u32(&t->e, jit_place_of(t->j->meta, what));
}

/* To C with rIP = the beginning of the block; flags are in v->fl. why: JIT_HOT_*. */
void trans_leave_hot(struct trans *t, unsigned why)
{
	trans_call_with(t, t->j->g_hot[why], t->b);
}

/*
 * Go to la by a jump that will be patched. Jumps back arrive where arrivals are counted, with the
 * flags in memory, as l->mem asks for any jump.
 */
void trans_goto_live(struct trans *t, gva_t la, struct jit_link *l, unsigned live)
{
	struct emit *e = &t->e;
	/*
	 * Requests are looked at where a loop can close: at jumps back, and as a trace may have one
	 * in it, where it ends. Not before its first instruction: one that stays (an interrupt that
	 * is masked) must not stop the guest.
	 */
	bool back = la <= t->rip || (t->tr && !l->plain), far = !trans_near(t, la);
	/* a page of a trace may be of a module that slides by another amount */
	bool lookup = far || (t->tr && t->slides);
	size_t busy = 0, other = 0;

	l->la = la;
	l->live = (uint16_t)live;
	l->ctx = (uint8_t)t->ctx;
	l->target = NULL;
	l->stamp = 0;
	l->other = 0;
	l->trace = t->tr != NULL;
	l->mem |= back; /* counted on arrival */
	if (far || l->mem) {
		trans_clobber(t, live);
		if (back) {
			asm_cmp_gs32(e, JIT_OFF(requests), 0);
			busy = asm_jump_fwd(e, CC_NE);
		}
		if (far) {
			asm_cmp_gs32(e,
				     (uint32_t)offsetof(struct vcpu, jit.link) +
					     4 * (t->ctx % JIT_CTXS),
				     0);
			l->stamp = (uint32_t)(e->run - (uint64_t)(uintptr_t)t->j->rx +
					      emit_size(e) - 4);
			other = asm_jump_fwd(e, CC_NE);
		}
	}
	if (live && !l->mem)
		trans_need_reg(t);
	l->site = (uint32_t)(e->run - (uint64_t)(uintptr_t)t->j->rx + emit_size(e) + 1);
	asm_jump_fwd(e, CC_JMP); /* rel32 0: to the stub, which comes next */
	l->stub = l->site + 4;
	if (busy)
		asm_fix(e, busy);
	/* the jump from above comes with flags in memory when they are live; in both it is right */
	if ((far || l->mem) && live)
		t->in_mem = true;
	if (live && !t->in_mem)
		trans_save_flags(t);
	trans_call_with(t, t->j->g_unlinked, l);
	if (!lookup)
		return;
	/* another address space: look there; if that misses, C makes the link anew */
	if (other)
		asm_fix(e, other);
	l->other = (uint32_t)(e->run - (uint64_t)(uintptr_t)t->j->rx + emit_size(e));
	trans_call_with(t, t->j->g_other[t->ctx], l);
}

void trans_goto(struct trans *t, gva_t la, struct jit_link *l)
{
	trans_goto_live(t, la, l, trans_flags_at(t, la));
}

/*
 * Jump, taken when S0 is not canonical: where it is a target, the branch faults. Of user code also
 * when it is in the upper half, where there is none: a cycle less. Overwrites EFLAGS, S1.
 */
static size_t trans_not_canonical(struct trans *t)
{
	struct emit *e = &t->e;

	asm_mov(e, S1, S0);
	if (t->ctx == TLB_USER) {
		asm_shift(e, 5, true, S1, 47);
	} else {
		asm_shift(e, 4, true, S1, 16);
		asm_shift(e, 7, true, S1, 16);
		asm_rr(e, 0x3b, true, S1, S0);
	}
	return asm_jump_fwd(e, CC_NE);
}

void trans_jump_s0(struct trans *t, int32_t pop, bool checked, size_t miss[3])
{
	struct emit *e = &t->e;

	/* the tag of an address that is not canonical may be that of any code, the kernel's too */
	miss[2] = checked || t->word == 4 ? 0 : trans_not_canonical(t);
	asm_gs(e, 0x33, true, S0, (uint32_t)offsetof(struct vcpu, jit.token) + 8 * t->ctx);
	asm_rr(e, 0x8b, false, S1, S0);
	asm_ri(e, 4, false, S1, JIT_IBTC_SIZE - 1);
	asm_shift(e, 4, false, S1, 5);
	asm_cmp_gs32(e, JIT_OFF(requests), 0);
	miss[0] = asm_jump_fwd(e, CC_NE);
	asm_gs_base(e, 0x3b, true, S0, S1, (uint32_t)offsetof(struct vcpu, jit.ibtc));
	miss[1] = asm_jump_fwd(e, CC_NE);
	jit_ibtc_go(e, t->ctx, pop);
}

void trans_jump_missed(struct trans *t, int32_t pop, const size_t miss[3])
{
	asm_fix(&t->e, miss[1]);
	if (t->ctx < JIT_CTXS) { /* as jit_ibtc_second */
		if (pop)
			trans_lea_rsp(t, pop);
		jit_ibtc_second(t->j, &t->e, t->ctx);
		if (pop)
			trans_lea_rsp(t, -pop);
	}
	asm_fix(&t->e, miss[0]);
	if (miss[2])
		asm_fix(&t->e, miss[2]);
}

/*
 * Go to the address in S0; flags are in v->fl. When it is not known, or something waits: with undo
 * (a return), the branch is undone by adding that to rSP and run by the interpreter, which also
 * faults on a target that is not canonical. With 0 (a call, whose push may have overwritten where
 * its target came from) the block is left for the target, which has been checked.
 */
static void trans_goto_s0(struct trans *t, int32_t undo, uint32_t desc)
{
	struct emit *e = &t->e;
	size_t miss[3];

	trans_jump_s0(t, 0, !undo, miss);
	trans_jump_missed(t, 0, miss);
	if (undo) {
		trans_lea_rsp(t, undo);
		asm_call(e, t->j->g_exec_end);
		asm_u32(e, desc);
	} else {
		asm_gs(e, 0x33, true, S0, (uint32_t)offsetof(struct vcpu, jit.token) + 8 * t->ctx);
		asm_st(e, S0, JIT_OFF_R(REG_RIP));
		asm_jmp(e, t->j->g_exit);
	}
}

static int32_t trans_ret_pop(const struct trans *t, const struct insn *i)
{
	return t->word + (i->id == I_RET_Iw ? (int32_t)(uint16_t)i->imm : 0);
}

void trans_indirect(struct trans *t, const struct insn *i, enum jit_kind kind)
{
	struct emit *e = &t->e;
	int32_t undo = 0;

	/* the target may read any flag */
	t->live = F_ARITH;
	trans_clobber(t, F_ARITH);
	if (kind == JK_RET) {
		trans_peek(t, i);
		trans_lea_rsp(t, trans_ret_pop(t, i));
		undo = -trans_ret_pop(t, i);
	} else {
		if (i->flags & IF_MEM) {
			trans_mem(t, i, t->word, false, false);
			emit_mov_load(e, t->word, S0, S0, 0);
		} else {
			trans_mov_word(t, S0, trans_reg(t, i->rm, S0, true));
		}
		if (t->word == 8)
			trans_slow_at(t, trans_not_canonical(t));
		if (kind == JK_CALL_E) {
			asm_st(e, S0, JIT_OFF(jit.tmp));
			trans_push(t, i, true, t->next);
			asm_ld(e, S0, JIT_OFF(jit.tmp));
		}
	}
	trans_goto_s0(t, undo, t->desc);
	t->ended = true;
}

void trans_jcc(struct trans *t, const struct insn *i)
{
	size_t taken;
	struct trans saved;

	trans_need_reg(t);
	taken = asm_jump_fwd(&t->e, i->cc);
	saved.in_reg = t->in_reg;
	saved.in_mem = t->in_mem;
	trans_goto(t, t->next, &t->b->link[0]);
	asm_fix(&t->e, taken);
	t->in_reg = saved.in_reg;
	t->in_mem = saved.in_mem;
	trans_goto(t, trans_target(t, i), &t->b->link[1]);
	t->ended = true;
}

/* ---- Runs of pushes and pops: one probe for all ------------------------------------------------
 */

static bool trans_is_push(const struct trans *t, const struct insn *i)
{
	return i->osize == t->word && ((i->id == I_PUSH_Zv && i->rm != REG_RSP) ||
				       i->id == I_PUSH_Iz || i->id == I_PUSH_Ibs);
}

static bool trans_is_pop(const struct trans *t, const struct insn *i)
{
	return i->osize == t->word && i->id == I_POP_Zv && i->rm != REG_RSP;
}

/* n pushes, and a near call when call is not NULL. */
static void trans_push_run(struct trans *t, const struct insn *i, unsigned n,
			   const struct insn *call)
{
	int32_t total = t->word * (int32_t)(n + (call != NULL)), off = total;
	struct emit *e = &t->e;

	trans_clobber(t, t->live);
	asm_lea(e, t->word == 8, S0, H_R9, -1, 0, -total);
	trans_probe(t, (unsigned)total, true);
	for (unsigned k = 0; k < n; k++, i++) {
		off -= t->word;
		if (i->id == I_PUSH_Zv)
			emit_mov_store(e, t->word, S0, off, trans_reg(t, i->rm, S1, true));
		else
			trans_store_imm(t, off, i->imm);
	}
	if (call && t->slides)
		trans_store_la(t, 0, t->next);
	else if (call)
		trans_store_imm(t, 0, t->next);
	trans_lea_rsp(t, -total);
	if (call) {
		trans_goto(t, trans_target(t, call), &t->b->link[0]);
		t->ended = true;
	}
}

/* n pops, and a near return when ret is not NULL. */
static void trans_pop_run(struct trans *t, const struct insn *i, unsigned n, const struct insn *ret)
{
	struct emit *e = &t->e;

	trans_clobber(t, t->live);
	trans_mov_word(t, S0, H_R9);
	trans_probe(t, t->word * (n + (ret != NULL)), false);
	for (unsigned k = 0; k < n; k++, i++) {
		int h = jit_host_reg(i->rm);

		emit_mov_load(e, t->word, h >= 0 ? (unsigned)h : S1, S0, t->word * (int32_t)k);
		if (h < 0)
			asm_st(e, S1, JIT_OFF_R(i->rm));
	}
	if (!ret) {
		trans_lea_rsp(t, t->word * (int32_t)n);
		return;
	}
	emit_mov_load(e, t->word, S0, S0, t->word * (int32_t)n);
	trans_lea_rsp(t, t->word * (int32_t)n + trans_ret_pop(t, ret));
	trans_goto_s0(t, -trans_ret_pop(t, ret), t->desc + n);
	t->ended = true;
}

/*
 * If a run of at least two stack instructions starts at i, translate it: t->rip and t->next are
 * then those of its last instruction. Returns how many. live: of each instruction, as packed by
 * trans_liveness.
 */
unsigned trans_stack_run(struct trans *t, const struct insn *i, unsigned left, const uint8_t *live)
{
	const struct insn *end = NULL;
	bool push = trans_is_push(t, i);
	unsigned n = 0, first = t->nslow, all;
	gva_t rip = t->rip;

	while (n < left && (push ? trans_is_push(t, &i[n]) : trans_is_pop(t, &i[n])))
		n++;
	if (n && n < left) {
		gva_t at = rip;

		for (unsigned k = 0; k <= n; k++)
			at += i[k].len;
		if (push && i[n].id == I_CALL_Jz && trans_near_branch(t, &i[n], at + i[n].imm))
			end = &i[n];
		if (!push && (i[n].id == I_RET || i[n].id == I_RET_Iw) && i[n].osize == t->word)
			end = &i[n];
	}
	all = n + (end != NULL);
	if (n == 0 || all < 2)
		return 0;
	for (unsigned k = 0; k < all; k++) {
		uint32_t d = trans_desc(t, &i[k], rip);

		if (k == 0)
			t->desc = d;
		t->rip = rip;
		rip = trans_next(t, rip, i[k].len);
	}
	t->next = rip;
	t->live = trans_unpack(live[n - 1]);
	if (end)
		t->live = push ? trans_flags_at(t, trans_target(t, end)) : F_ARITH;
	t->group = (uint8_t)all;
	if (push)
		trans_push_run(t, i, n, end);
	else
		trans_pop_run(t, i, n, end);
	t->group = 1;
	trans_slow_back(t, first);
	return all;
}
