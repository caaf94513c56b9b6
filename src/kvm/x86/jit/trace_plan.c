/*
 * What a trace needs to know before it is emitted: flags and registers, and which accesses can
 * share a lookup. See trace.h.
 *
 * References: [SDM2] for what instructions read and write. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trace.h"

#define GROUP_SPAN 1024 /* bytes: a wider one would meet the end of its page too often */

/* ---- Which instructions ---------------------------------------------------------------------- */

bool trace_anywhere(const struct insn *i)
{
	return jit_kinds[i->id] == JK_RET || jit_kinds[i->id] == JK_JMP_E ||
	       jit_kinds[i->id] == JK_CALL_E;
}

bool trace_takes(const struct vcpu *v, const struct insn *i)
{
	enum jit_kind kind = trans_kind(v, i);
	bool mem = i->flags & IF_MEM;

	if (mem && kind != JK_LEA && kind != JK_NOP &&
	    (insn_memory_size(i) == 0 || i->id == I_BT_EvGv))
		return false;
	switch (kind) {
	case JK_RMW_E:
	case JK_RD_E:
	case JK_RD_GE:
	case JK_WR_E:
	case JK_HOSTG:
	case JK_VEC: return trans_has_form(i);
	case JK_NOP:
	case JK_REG: return true;
	case JK_ZREG: return trans_zreg_has_form(i);
	case JK_LEA:
	case JK_DIV: return i->osize != 2;
	case JK_PUSH_R:
	case JK_PUSH_I:
	case JK_POP_R:
	case JK_LEAVE:
	case JK_JCC:
	case JK_JMP:
	case JK_CALLREL:
	case JK_JMP_E:
	case JK_CALL_E:
	case JK_RET: return i->osize == 8;
	default: return false;
	}
}

/* ---- Registers ------------------------------------------------------------------------------ */

/* Guest registers that an instruction reads or writes, and of those the ones it may write. */
static void plan_regs(const struct vcpu *v, const struct insn *i, unsigned *used, unsigned *written)
{
	const struct insn_info *info = &insn_info[i->id];
	enum jit_kind kind = trans_kind(v, i);
	unsigned u = 0, w = 0;

	if (i->flags & IF_MEM) {
		if (i->base < 16)
			u |= 1u << i->base;
		if (i->index < 16 && !(info->attr & A_VSIB))
			u |= 1u << i->index;
	}
	for (unsigned k = 0; k < 5; k++) {
		unsigned r, o = info->operand[k];

		switch (trans_class(o)) {
		case OPC_REG:
			r = i->reg;
			if (o == Gb && (r & 12) == 4 && !(i->flags & IF_REX))
				r &= 3;
			break;
		case OPC_RM:
			if (i->flags & IF_MEM)
				continue;
			r = i->rm;
			if (o == Eb && (r & 12) == 4 && !(i->flags & IF_REX))
				r &= 3;
			break;
		case OPC_VVVV: r = i->vvvv; break;
		default: continue;
		}
		u |= 1u << r;
		/* comparing writes nothing; of a load only its first operand changes */
		if (kind != JK_RD_E && kind != JK_DIV && !(kind == JK_RD_GE && k > 0))
			w |= 1u << r;
	}
	switch (kind) {
	case JK_ZREG:
		if (i->id == I_MOV_ZbIb && (i->rm & 12) == 4 && !(i->flags & IF_REX))
			w |= 1u << (i->rm & 3);
		else
			w |= 1u << i->rm;
		break;
	case JK_PUSH_R: u |= 1u << i->rm, w |= BIT(REG_RSP); break;
	case JK_PUSH_I:
	case JK_CALLREL:
	case JK_CALL_E:
	case JK_RET: w |= BIT(REG_RSP); break;
	case JK_POP_R: w |= 1u << i->rm | BIT(REG_RSP); break;
	case JK_LEAVE: w |= BIT(REG_RBP) | BIT(REG_RSP); break;
	case JK_DIV: w |= BIT(REG_RAX) | BIT(REG_RDX); break;
	default: break;
	}
	switch (i->id) {
	case I_CMP_ALIb:
	case I_CMP_rAXIz:
	case I_TEST_ALIb:
	case I_TEST_rAXIz:
	case I_SAHF: u |= BIT(REG_RAX); break;
	case I_CMC:
	case I_CLC:
	case I_STC: break;
	case I_CWD:
		u |= BIT(REG_RAX);
		w |= BIT(REG_RDX);
		break;
	case I_MUL_Eb:
	case I_MUL_Ev:
	case I_IMUL_Eb:
	case I_IMUL_Ev: w |= BIT(REG_RAX) | BIT(REG_RDX); break;
	case I_CMPXCHG_EbGb:
	case I_CMPXCHG_EvGv: w |= BIT(REG_RAX); break;
	case I_CMPXCHG8B:
	case I_CMPXCHG16B:
		w |= BIT(REG_RAX) | BIT(REG_RDX);
		u |= BIT(REG_RBX) | BIT(REG_RCX);
		break;
	default:
		/* what stands for rAX: its extensions, accumulator forms, XCHG */
		if (kind == JK_REG || i->id == I_XCHG_ZvrAX)
			w |= BIT(REG_RAX);
	}
	for (unsigned k = 0; k < 5; k++)
		if (info->operand[k] == CL)
			u |= BIT(REG_RCX);
	if (info->attr & A_IMPL)
		w |= BIT(REG_RAX) | BIT(REG_RCX) | BIT(REG_RDX);
	*used = u | w;
	*written = w;
}

/* ---- Symbolic values ------------------------------------------------------------------------- */

struct plan_value {
	uint16_t id; /* below 16: the register's value at the start */
	int64_t off;
};

struct plan {
	struct trans *t;
	struct plan_value reg[16];
	uint16_t next_id;
};

static void plan_unknown(struct plan *p, unsigned r)
{
	p->reg[r] = (struct plan_value){ p->next_id++, 0 };
}

static void plan_add(struct plan *p, unsigned r, int64_t x)
{
	p->reg[r].off = (int64_t)((uint64_t)p->reg[r].off + (uint64_t)x);
}

/* The registers after an instruction. */
static void plan_effect(struct plan *p, const struct insn *i, unsigned written)
{
	bool reg = !(i->flags & IF_MEM);

	switch (i->id) {
	case I_ADD_EvIz:
	case I_ADD_EvIbs:
		if (reg && i->osize == 8)
			return plan_add(p, i->rm, (int64_t)i->imm);
		break;
	case I_SUB_EvIz:
	case I_SUB_EvIbs:
		if (reg && i->osize == 8)
			return plan_add(p, i->rm, -(int64_t)i->imm);
		break;
	case I_ADD_rAXIz:
		if (i->osize == 8)
			return plan_add(p, REG_RAX, (int64_t)i->imm);
		break;
	case I_INC_Ev:
		if (reg && i->osize == 8)
			return plan_add(p, i->rm, 1);
		break;
	case I_DEC_Ev:
		if (reg && i->osize == 8)
			return plan_add(p, i->rm, -1);
		break;
	case I_MOV_EvGv:
		if (reg && i->osize == 8) {
			p->reg[i->rm] = p->reg[i->reg];
			return;
		}
		break;
	case I_MOV_GvEv:
		if (reg && i->osize == 8) {
			p->reg[i->reg] = p->reg[i->rm];
			return;
		}
		break;
	case I_LEA_GvM:
		if (i->osize == 8 && i->asize == 8 && i->base < 16 && i->index == REG_ZERO) {
			p->reg[i->reg] = p->reg[i->base];
			return plan_add(p, i->reg, i->disp);
		}
		break;
	case I_PUSH_Zv:
	case I_PUSH_Iz:
	case I_PUSH_Ibs:
	case I_CALL_Jz:
	case I_CALL_Ev: return plan_add(p, REG_RSP, -8);
	case I_RET: return plan_add(p, REG_RSP, 8);
	case I_RET_Iw: return plan_add(p, REG_RSP, 8 + (int64_t)(i->imm & 0xffff));
	case I_POP_Zv: plan_add(p, REG_RSP, 8); return plan_unknown(p, i->rm);
	case I_LEAVE:
		p->reg[REG_RSP] = p->reg[REG_RBP];
		plan_add(p, REG_RSP, 8);
		return plan_unknown(p, REG_RBP);
	default: break;
	}
	for (unsigned r = 0; r < 16; r++)
		if (written & 1u << r)
			plan_unknown(p, r);
}

/* ---- Groups --------------------------------------------------------------------------------- */

struct plan_key {
	uint16_t base, index;
	uint8_t scale, seg;
	bool slides;
};

static struct trace_access plan_access(struct plan *p, struct plan_key k, int64_t at, unsigned size,
				       bool write, bool aligned)
{
	struct trans_trace *tr = p->t->tr;
	uint8_t align = aligned && size >= 16 ? (uint8_t)size : 0;
	struct trace_group *g;

	for (unsigned n = tr->ngroups; n-- > 0;) {
		int64_t lo, hi;

		g = &tr->group[n];
		if (g->base != k.base || g->index != k.index || g->scale != k.scale ||
		    g->seg != k.seg || g->slides != k.slides)
			continue;
		/* the difference of two addresses, which may be far apart */
		if ((uint64_t)(at - g->lo) + GROUP_SPAN > 2 * GROUP_SPAN)
			continue;
		lo = MIN(g->lo, at);
		hi = MAX(g->hi, at + (int64_t)size);
		if (hi - lo > GROUP_SPAN)
			continue;
		/* what is aligned stays so when seen from the lowest address */
		if (MAX(g->align, align) && ((at - g->lo) & (MAX(g->align, align) - 1)) &&
		    (align || lo != g->lo))
			continue;
		g->align = MAX(g->align, align);
		g->lo = lo;
		g->hi = hi;
		g->write |= write;
		g->uses++;
		return (struct trace_access){ (uint16_t)n, at };
	}
	if (tr->ngroups == TRACE_GROUPS)
		return (struct trace_access){ TRACE_NONE, 0 };
	g = &tr->group[tr->ngroups];
	*g = (struct trace_group){ .base = k.base,
				   .index = k.index,
				   .scale = k.scale,
				   .seg = k.seg,
				   .slides = k.slides,
				   .write = write,
				   .align = align,
				   .host = -1,
				   .uses = 1,
				   .lo = at,
				   .hi = at + (int64_t)size };
	return (struct trace_access){ (uint16_t)tr->ngroups++, at };
}

static struct trace_access plan_operand(struct plan *p, const struct insn *i)
{
	unsigned size = (unsigned)insn_memory_size(i);
	bool write = trans_writes_memory(p->t->v, i), aligned = trans_aligned(i);
	struct plan_key k = { TRACE_NONE, TRACE_NONE, 0, SEG_DS };
	int64_t at = i->disp;

	/* the lowest address of its group must have a displacement, too */
	if (i->asize != 8 || i->disp > INT32_MAX - 4096 || i->disp < INT32_MIN + 4096)
		return (struct trace_access){ TRACE_NONE, 0 };
	if (i->seg == SEG_FS || i->seg == SEG_GS)
		k.seg = i->seg;
	if (i->base == REG_RIP) {
		at += (int64_t)p->t->next;
		k.slides = p->t->slides;
	} else {
		if (i->base != REG_ZERO) {
			k.base = p->reg[i->base].id;
			at += p->reg[i->base].off;
		}
		if (i->index != REG_ZERO) {
			k.index = p->reg[i->index].id;
			k.scale = i->scale;
			at += (int64_t)((uint64_t)p->reg[i->index].off << i->scale);
		}
	}
	if (at != (int32_t)at && !(k.base == TRACE_NONE && k.index == TRACE_NONE))
		return (struct trace_access){ TRACE_NONE, 0 };
	return plan_access(p, k, at, size, write, aligned);
}

static struct trace_access plan_stack(struct plan *p, unsigned reg, int off, bool write)
{
	struct plan_key k = { p->reg[reg].id, TRACE_NONE, 0, SEG_DS };
	int64_t at = p->reg[reg].off + off;

	if (at != (int32_t)at)
		return (struct trace_access){ TRACE_NONE, 0 };
	return plan_access(p, k, at, 8, write, false);
}

/* A register's value at the end of the path is the one it had at the start. */
static bool plan_same(const struct plan *p, uint16_t id)
{
	return id == TRACE_NONE || (id < 16 && p->reg[id].id == id && p->reg[id].off == 0);
}

void trace_plan(struct trans *t)
{
	struct trans_trace *tr = t->tr;
	struct plan p = { .t = t, .next_id = 16 };

	for (unsigned r = 0; r < 16; r++)
		p.reg[r] = (struct plan_value){ (uint16_t)r, 0 };
	for (unsigned n = 0; n < tr->n; n++) {
		const struct insn *i = &tr->rec->insns[n];
		enum jit_kind kind = trans_kind(t->v, i);
		struct trace_step *s = &tr->step[n];
		unsigned used, written;

		t->rip = tr->rip[n];
		t->next = t->rip + i->len;
		s->acc[0] = s->acc[1] = (struct trace_access){ TRACE_NONE, 0 };
		if ((i->flags & IF_MEM) && kind != JK_LEA && kind != JK_NOP)
			s->acc[0] = plan_operand(&p, i);
		switch (kind) {
		case JK_PUSH_R:
		case JK_PUSH_I:
		case JK_CALLREL:
		case JK_CALL_E: s->acc[1] = plan_stack(&p, REG_RSP, -8, true); break;
		case JK_POP_R:
		case JK_RET: s->acc[1] = plan_stack(&p, REG_RSP, 0, false); break;
		case JK_LEAVE: s->acc[1] = plan_stack(&p, REG_RBP, 0, false); break;
		default: break;
		}
		plan_regs(t->v, i, &used, &written);
		tr->used |= (uint16_t)used;
		tr->written |= (uint16_t)written;
		plan_effect(&p, i, written);
	}
	for (unsigned n = 0; n < tr->ngroups; n++) {
		struct trace_group *g = &tr->group[n];

		g->fixed = tr->loop && plan_same(&p, g->base) && plan_same(&p, g->index);
	}
}

/* ---- Flags ---------------------------------------------------------------------------------- */

void trace_liveness(struct trans *t)
{
	struct trans_trace *tr = t->tr;
	unsigned live = trans_flags_at(t, tr->rip[tr->n]);

	for (unsigned n = tr->n; n-- > 0;) {
		const struct insn *i = &tr->rec->insns[n];
		gva_t next = tr->rip[n] + i->len;

		switch (trans_kind(t->v, i)) {
		case JK_JCC:
			live |= trans_flags_at(t, tr->rip[n + 1] == next ? next + i->imm : next);
			break;
		case JK_RET:
		case JK_JMP_E:
		case JK_CALL_E: /* it may go anywhere */ live = F_ARITH; break;
		default: break;
		}
		tr->step[n].live = trans_pack(live);
		live = (live & ~trans_flags_written(i)) | trans_flags_read(i);
	}
	tr->in = live;
}
