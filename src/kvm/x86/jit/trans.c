/*
 * Translation of one block.
 *
 * Theory of operation
 *   A backward pass finds which flags are live after each instruction; what follows the block is
 *   looked at a few instructions ahead, and taken to read all flags where it cannot be seen.
 *   A forward pass emits. Flags are in EFLAGS (t->in_reg), in v->fl (t->in_mem), or in both. A
 *   TLB probe overwrites EFLAGS: before it, flags that are live and only in EFLAGS go to v->fl.
 *   Slow paths come after the block's code: they call the interpreter's function and come back
 *   behind the instruction, with EFLAGS loaded from v->fl, which is right in every state.
 *
 * Modelled: 64-bit mode, and 32-bit code in flat segments (flat.c); rows of rows.c and HOST rows.
 *           The rest calls out.
 * References: [SDM2] encodings. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trans.h"

/* ---- One instruction ------------------------------------------------------------------------ */

bool trans_canonical(gva_t la)
{
	return (uint64_t)sext(la, 48) == la;
}

bool trans_simple(struct trans *t, const struct insn *i, enum jit_kind kind)
{
	const struct insn_info *info = &insn_info[i->id];
	bool mem = i->flags & IF_MEM;
	unsigned msize = mem ? trans_msize(i) : 0;

	switch (kind) {
	case JK_NOP: return true;
	case JK_RMW_E: return trans_generic(t, i, true, true, msize);
	case JK_RD_E:
	case JK_RD_GE: return trans_generic(t, i, true, false, msize);
	case JK_DIV: return trans_div(t, i);
	case JK_WR_E: return trans_generic(t, i, false, true, msize);
	case JK_HOSTG:
	case JK_VEC:
		if (i->id == I_VZEROUPPER || i->id == I_VZEROALL) {
			trans_plain(t, i);
			return true;
		}
		return trans_generic(t, i, true,
				     mem && (trans_class(info->operand[0]) == OPC_RM ||
					     trans_class(info->operand[0]) == OPC_MEM ||
					     (info->operand[0] >= Wb && info->operand[0] <= Wx)),
				     msize);
	case JK_X87: return trans_x87(t, i);
	case JK_REG: trans_plain(t, i); return true;
	case JK_ZREG: return trans_zreg(t, i);
	case JK_LEA: return trans_lea(t, i);
	default: return false;
	}
}

static void trans_insn(struct trans *t, const struct insn *i)
{
	enum jit_kind kind = trans_kind(t->v, i);
	bool mem = i->flags & IF_MEM, done = false;
	unsigned first = t->nslow;

	if (insn_info[i->id].attr & (A_BRANCH | A_END))
		trans_x87_settle(t);
	t->desc = trans_desc(t, i, t->rip);
	if (mem && i->id == I_BT_EvGv)
		kind = t->word == 8 ? JK_SYS : JK_CALL;
	else if (mem && kind != JK_LEA && kind != JK_NOP && trans_msize(i) == 0)
		kind = JK_CALL;
	switch (kind) {
	case JK_CALL: break;
	case JK_PUSH_R:
		if (i->osize == t->word) {
			trans_push(t, i, false, 0);
			done = true;
		}
		break;
	case JK_PUSH_I:
		if (i->osize == t->word) {
			trans_push(t, i, true, i->imm);
			done = true;
		}
		break;
	case JK_PUSH_E:
		if (i->osize == t->word) {
			trans_push_rm(t, i);
			done = true;
		}
		break;
	case JK_POP_R:
		if (i->osize == t->word) {
			trans_pop(t, i);
			done = true;
		}
		break;
	case JK_LEAVE:
		if (i->osize == t->word) {
			trans_leave(t, i);
			done = true;
		}
		break;
	case JK_JCC:
		if (trans_near_branch(t, i, t->next + i->imm)) {
			trans_jcc(t, i);
			done = true;
		}
		break;
	case JK_JMP:
		if (trans_near_branch(t, i, t->next + i->imm)) {
			trans_goto(t, trans_target(t, i), &t->b->link[0]);
			t->ended = done = true;
		}
		break;
	case JK_CALLREL:
		if (trans_near_branch(t, i, t->next + i->imm)) {
			/* flags: dead if the callee says so, else kept over the probe */
			t->live = trans_flags_at(t, trans_target(t, i));
			trans_push(t, i, true, t->next);
			trans_goto(t, trans_target(t, i), &t->b->link[0]);
			t->ended = done = true;
		}
		break;
	case JK_SYS: done = trans_system(t, i); break;
	case JK_JMP_E:
	case JK_CALL_E:
	case JK_RET:
		if (i->osize == t->word) {
			trans_indirect(t, i, kind);
			done = true;
		}
		break;
	default: done = trans_simple(t, i, kind);
	}
	if (!done)
		trans_call(t, i);
	/* a slow path of a branch runs it to its end and leaves: it never comes back */
	trans_slow_back(t, first);
}

/* ---- The block ------------------------------------------------------------------------------ */

/* Changes of level may fault, in ordinary life (a return to a program that has set its own CS). */
static bool trans_changes_level(const struct insn *i)
{
	return i->id == I_SYSCALL || i->id == I_SYSRET || i->id == I_IRET;
}

static unsigned trans_liveness(struct trans *t, const struct jit_block *b, uint8_t live_packed[],
			       unsigned out)
{
	unsigned live = out;

	for (unsigned n = b->n; n-- > 0;) {
		const struct insn *i = &b->insns[n];

		live_packed[n] = trans_pack(live);
		/* what calls the interpreter may look at all flags (PUSHF, an exit, a fault) */
		if (trans_kind(t->v, i) == JK_CALL || trans_changes_level(i))
			live = F_ARITH;
		else
			live = (live & ~trans_flags_written(i)) | trans_flags_read(i);
	}
	return live;
}

static void trans_slow_paths(struct trans *t)
{
	for (unsigned n = 0; n < t->nslow; n++) {
		const struct trans_slow *s = &t->slow[n];
		bool branch = false;

		asm_fix(&t->e, s->from);
		if (s->x87)
			trans_x87_pointers(t, s->x87);
		for (unsigned k = 0; k < s->n; k++) {
			const struct insn *i = t->j->descs[s->desc + k].insn;

			branch = insn_info[i->id].attr & (A_BRANCH | A_END);
			asm_call(&t->e, branch   ? t->j->g_exec_end
					: t->x87 ? t->j->g_exec_x87
						 : t->j->g_exec);
			asm_u32(&t->e, s->desc + k);
		}
		if (!branch)
			asm_jmp(&t->e, t->e.run + s->to);
	}
}

void trans_room(struct trans *t)
{
	static const uint8_t nop[JIT_DEAD_BYTES] = { 0x66, 0x0f, 0x1f, 0x84 };

	emit_bytes(&t->e, nop, sizeof(nop));
}

struct jit_block *jit_translate(struct vcpu *v, struct block *b, gva_t at, unsigned ctx,
				uint64_t slide)
{
	struct jit *j = v->jitp;
	uint8_t live[BLOCK_MAX_INSNS];
	unsigned out = F_ARITH, in;
	struct trans t = { .v = v,
			   .j = j,
			   .ctx = ctx,
			   .word = v->long64 ? 8 : 4,
			   .slides = jit_slides(ctx, at),
			   .slide = slide };
	const struct insn *last = &b->insns[b->n - 1];
	struct jit_block *jb;
	size_t own = v->long64 ? 0 : b->n * sizeof(struct insn);
	size_t head = (sizeof(*jb) + 2 * sizeof(struct jit_link) + 15) & ~(size_t)15;
	size_t meta = (head + own + 15) & ~(size_t)15;
	size_t vec_from = 0, vec_back = 0, x87_from = 0, x87_back = 0, hot = 0, stale = 0;
	gva_t la = at - slide, rip = la;

	if (j->used + (64u << 10) > j->code_size || j->meta_used + meta > j->meta_size ||
	    j->ndescs + BLOCK_MAX_INSNS + 2 > j->max_descs)
		return NULL;
	jb = (struct jit_block *)(j->meta + j->meta_used);
	memset(jb, 0, meta);
	jb->link = (struct jit_link *)(jb + 1);
	jb->nlink = 2;
	jb->count = (uint16_t)(j->next_count++ % JIT_COUNTS);
	v->jit.count[jb->count] = j->trace_heat;
	jb->insns = b->insns;
	if (t.word == 4) { /* some are rewritten */
		jb->insns = memcpy(j->meta + j->meta_used + head, b->insns, own);
		trans_flat_forms(jb->insns, b->n);
	}
	jb->n = b->n;
	jb->la = la;
	jb->made = slide;
	jb->slides = t.slides;
	jb->host = b->host;
	jb->page = b->page;
	jb->gen = b->gen;
	jb->ctx = (uint8_t)ctx;
	t.b = jb;
	emit_init(&t.e, j->rw + j->used, (64u << 10) - 64, (uintptr_t)j->rx + j->used);

	/* direct jumps: flags at both ends; else all */
	t.next = trans_next(&t, la, b->bytes);
	if (last->id == I_JMP_Jb || last->id == I_JMP_Jz || last->id == I_CALL_Jz)
		out = trans_flags_at(&t, trans_target(&t, last));
	else if (last->id == I_JCC_Jb || last->id == I_JCC_Jz)
		out = trans_flags_at(&t, trans_target(&t, last)) | trans_flags_at(&t, t.next);
	else if (!(insn_info[last->id].attr & (A_BRANCH | A_END)) || last->id == I_STAC ||
		 last->id == I_CLAC)
		out = trans_flags_at(&t, t.next);
	in = trans_liveness(&t, jb, live, out);
	for (unsigned n = 0; n < b->n; n++)
		jb->fpu |= !!(insn_info[b->insns[n].id].attr & (A_X87 | A_MMX | A_SSE | A_AVX));
	for (unsigned n = 0; n < b->n; n++) {
		enum jit_kind kind = trans_kind(v, &jb->insns[n]);

		t.x87 |= kind == JK_X87;
		if (kind == JK_VEC || (kind == JK_X87 && trans_x87_vec(&jb->insns[n]))) {
			t.vec = true;
			jb->avx |= !!(insn_info[b->insns[n].id].attr & A_AVX);
		}
	}

	/* entry with flags in memory: bring them, or fall into the other entry */
	jb->entry_mem = (uint32_t)(j->used + emit_size(&t.e));
	if (j->trace_heat && !j->check && ctx < JIT_CTXS) { /* traces are of 64-bit code */
		asm_sub_gs8(&t.e, JIT_OFF(jit.count) + 4 * jb->count, 1);
		hot = asm_jump_fwd(&t.e, CC_S);
	} else {
		trans_room(&t);
	}
	if (in)
		trans_load_flags(&t);
	jb->entry = (uint32_t)(j->used + emit_size(&t.e));
	if (j->counting)
		jit_emit_count(&t.e, jb);
	t.in_reg = true;
	t.in_mem = false;
	t.rip = la;
	if (b->crosses) {
		jb->second = block_cross(b)->host;
		if (!j->check) {
			trans_clobber(&t, in);
			asm_cmp_gs32(&t.e,
				     (uint32_t)offsetof(struct vcpu, jit.link) +
					     4 * (ctx % JIT_CTXS),
				     jit_link_number(v, ctx, slide));
			jb->stamp = (uint32_t)(j->used + emit_size(&t.e) - 4);
			stale = asm_jump_fwd(&t.e, CC_NE);
		}
	}
	if (t.vec) {
		trans_clobber(&t, in);
		asm_cmp_gs8(&t.e, JIT_OFF(jit.vec_live), jb->avx ? VEC_AVX : VEC_SSE);
		vec_from = asm_jump_fwd(&t.e, CC_B);
		vec_back = emit_size(&t.e);
	}
	if (t.x87) { /* after vectors: their entry stores x87 state */
		trans_clobber(&t, in);
		asm_cmp_gs8(&t.e, JIT_OFF(jit.x87_live), 0);
		x87_from = asm_jump_fwd(&t.e, CC_E);
		x87_back = emit_size(&t.e);
	}
	t.group = 1;
	for (unsigned n = 0; n < b->n && !t.ended;) {
		struct insn *i = &jb->insns[n];
		unsigned run;

		t.rip = rip;
		run = trans_stack_run(&t, i, b->n - n, live + n);
		if (!run) {
			t.next = trans_next(&t, rip, i->len);
			t.live = trans_unpack(live[n]);
			trans_insn(&t, i);
			run = 1;
		}
		n += run;
		rip = t.next;
	}
	if (!t.ended) {
		trans_x87_settle(&t);
		t.rip = rip - 1;
		trans_goto(&t, rip, &jb->link[0]);
	}
	trans_slow_paths(&t);
	if (t.vec) {
		asm_fix(&t.e, vec_from);
		asm_call(&t.e, j->g_vec);
		asm_u32(&t.e, trans_desc(&t, trans_vec_insn(jb), la));
		asm_jmp(&t.e, t.e.run + vec_back);
	}
	if (t.x87) {
		asm_fix(&t.e, x87_from);
		asm_call(&t.e, j->g_x87);
		asm_u32(&t.e, trans_desc(&t, &jb->insns[0], la));
		asm_jmp(&t.e, t.e.run + x87_back);
	}
	if (hot) {
		asm_fix(&t.e, hot);
		trans_leave_hot(&t, JIT_HOT_BLOCK);
	}
	if (stale) {
		asm_fix(&t.e, stale);
		trans_leave_hot(&t, JIT_HOT_STALE);
	}
	if (t.e.full || t.failed)
		return NULL;
	emit_align(&t.e, 16);
	jb->size = (uint32_t)(j->used + emit_size(&t.e)) - jb->entry_mem;
	j->used += emit_size(&t.e);
	j->meta_used += meta;
	return jb;
}
