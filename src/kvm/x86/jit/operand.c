/*
 * What an instruction reads and writes; flags, slow paths, registers and memory operands of
 * generated code.
 *
 * References: [SDM2 2]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trace.h"

/* ---- Operands ------------------------------------------------------------------------------- */

enum opclass trans_class(unsigned o)
{
	if ((o >= Eb && o <= Ep) || (o >= Rw && o <= Rv) || o == RdMb || o == RdMw || o == RvMw)
		return OPC_RM;
	if (o >= Gb && o <= Gy)
		return OPC_REG;
	if (o >= Bd && o <= By)
		return OPC_VVVV;
	if (o >= Mb && o <= M_)
		return OPC_MEM;
	if (o >= Pd && o <= Nq)
		return OPC_MMX;
	if (o >= Vd && o <= XMM0)
		return OPC_VEC;
	return OPC_NONE;
}

bool jit_insn_writes(const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];

	if (info->attr & (A_MMX | A_X87))
		return jit_x87_writes(i);
	if (info->how == HOST) {
		unsigned o = info->operand[0];

		return trans_class(o) == OPC_RM || trans_class(o) == OPC_MEM ||
		       (o >= Wb && o <= Wx);
	}
	switch (jit_kinds[i->id]) {
	case JK_RMW_E:
	case JK_WR_E:
	case JK_PUSH_R:
	case JK_PUSH_I:
	case JK_PUSH_E:
	case JK_CALLREL:
	case JK_CALL_E: return true;
	case JK_SYS: return i->id == I_MOV_EvSw;
	default: return false;
	}
}

bool trans_writes_memory(const struct vcpu *v, const struct insn *i)
{
	switch (trans_kind(v, i)) {
	case JK_CALL_E:
	case JK_PUSH_R:
	case JK_PUSH_I:
	case JK_CALLREL: return false;
	default: return jit_insn_writes(i);
	}
}

bool trans_aligned(const struct insn *i)
{
	return (insn_info[i->id].attr & A_ALIGN) || i->id == I_CMPXCHG16B;
}

unsigned trans_imm_bytes(const struct insn_info *info, const struct insn *i)
{
	unsigned n = 0;

	for (unsigned k = 0; k < 5; k++)
		switch (info->operand[k]) {
		case Ib:
		case Ibs:
		case Ldq:
		case Lqq:
		case Lx: n = 1; break;
		case Iw: n = 2; break;
		case Iz: n = i->osize == 2 ? 2 : 4; break;
		case Iv: n = i->osize; break;
		default: break;
		}
	return n;
}

/* The emitter of an instruction in this block, JK_CALL when it has none. */
enum jit_kind trans_kind(const struct vcpu *v, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	bool vec = false;

	/* an undecodable instruction is row 0 with an exec of its own */
	if (i->exec != (void (*)(void))insn_exec[i->id] &&
	    !(info->attr & (A_SSE | A_AVX | A_MMX | A_X87 | A_PRIV)))
		return JK_CALL;
	if (!vcpu_has(v, info->feature) || i->asize == 2)
		return JK_CALL;
	if ((info->attr & A_PRIV) && (jit_kinds[i->id] != JK_SYS || v->cpl))
		return JK_CALL;
	if (!v->long64 && (!trans_flat_operand(i) || jit_kinds[i->id] == JK_SYS))
		return JK_CALL;
	/* the host's would clear xmm8 to xmm15 as well */
	if (!v->long64 && (i->id == I_VZEROUPPER || i->id == I_VZEROALL))
		return JK_CALL;
	if (info->how == CALL)
		return jit_kinds[i->id];
	if (info->attr & (A_MMX | A_X87))
		return JK_X87;
	for (unsigned k = 0; k < 5; k++)
		switch (info->operand[k] == Ib2 ? OPC_MMX : trans_class(info->operand[k])) {
		case OPC_MMX: return JK_CALL;
		case OPC_VEC: vec = true; break;
		default: break;
		}
	return vec ? JK_VEC : JK_HOSTG;
}

unsigned trans_flags_read(const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];

	/* shifts by a constant that is not zero overwrite all flags */
	switch (i->id) {
	case I_SHL_EbIb:
	case I_SHL_EvIb:
	case I_SHR_EbIb:
	case I_SHR_EvIb:
	case I_SAR_EbIb:
	case I_SAR_EvIb:
		if (i->imm & 0x1f)
			return 0;
		break;
	case I_JCC_Jb:
	case I_JCC_Jz:
	case I_SETCC_Eb:
	case I_CMOVCC_GvEv: {
		static const uint16_t cc[8] = { F_O, F_C, F_Z,       F_C | F_Z,
						F_S, F_P, F_S | F_O, F_S | F_O | F_Z };
		return cc[i->cc >> 1];
	}
	default: break;
	}
	return info->reads & F_ARITH;
}

unsigned trans_flags_written(const struct insn *i)
{
	return insn_info[i->id].writes & F_ARITH;
}

/*
 * Writes to these lines of a page are to be seen from now on, as those to decoded bytes are. False:
 * the page, which has a block, has just been written; other vCPUs may write to it unseen again, and
 * the block will go.
 */
static bool ahead_watch(struct kvm_page *page, uint64_t lines)
{
	uint64_t old = atomic_load(&page->code_lines);

	while (old)
		if ((old & lines) == lines ||
		    atomic_compare_exchange_weak(&page->code_lines, &old, old | lines))
			return true;
	return false;
}

unsigned jit_flags_ahead(struct vcpu *v, struct kvm_page *page, const uint8_t *code, size_t avail)
{
	unsigned live = F_ARITH, read = 0;

	for (unsigned n = 0; n < 8 && live; n++) {
		unsigned most = (unsigned)MIN(avail, 15u);
		struct insn i;

		if (!avail || !ahead_watch(page, block_lines(PAGE_SIZE - avail, most)) ||
		    insn_decode(code, avail, v->mode, false, &i) != DECODE_OK)
			return read | live;
		read |= live & trans_flags_read(&i);
		live &= ~(trans_flags_read(&i) | trans_flags_written(&i));
		/* what the interpreter does at a branch or an exit may show all flags */
		if (insn_info[i.id].attr & (A_BRANCH | A_END)) {
			if ((i.id == I_JMP_Jb || i.id == I_JMP_Jz || i.id == I_CALL_Jz) && live &&
			    (int64_t)i.imm > 0 && i.imm + i.len < avail) {
				code += i.len + i.imm;
				avail -= i.len + i.imm;
				continue;
			}
			return read | live;
		}
		code += i.len;
		avail -= i.len;
	}
	return read | live;
}

/* Flags in one byte: SF ZF AF PF CF in their places, OF in bit 1. */
uint8_t trans_pack(unsigned flags)
{
	return (uint8_t)((flags & 0xd5) | (flags & F_O ? 2 : 0));
}

unsigned trans_unpack(uint8_t p)
{
	return (p & 0xd5u) | (p & 2 ? F_O : 0);
}

int trans_host(const struct trans *t, unsigned guest)
{
	return t->tr ? t->tr->map[guest] : jit_host_reg(guest);
}

bool trans_near(const struct trans *t, gva_t la)
{
	for (unsigned n = 0; t->tr && n < t->tr->rec->npages; n++)
		if (!((la ^ t->tr->rec->page[n].la) & PAGE_MASK))
			return true;
	return !((la ^ t->b->la) & PAGE_MASK);
}

/* Flags live at a linear address that the block may go to. */
unsigned trans_flags_at(struct trans *t, gva_t la)
{
	struct vcpu *v = t->v;
	gva_t at = la + t->slide;
	const struct itlb_entry *x = &v->itlb[v->cpl == 3][(at >> PAGE_SHIFT) & (ITLB_SIZE - 1)];

	if (x->tag != ((at & PAGE_MASK) | v->asid))
		return F_ARITH;
	/* another page may change, or be another, without this block being told */
	if (!trans_near(t, la))
		return F_ARITH;
	return jit_flags_ahead(v, x->page, x->host + (la & ~PAGE_MASK),
			       PAGE_SIZE - (la & ~PAGE_MASK));
}

/* ---- Flags ---------------------------------------------------------------------------------- */

void trans_save_flags(struct trans *t)
{
	asm_mov(&t->e, S1, H_RAX);
	emit_flags_to_ax(&t->e);
	asm_u8(&t->e, 0x66);
	/* 66 must come before REX and after nothing: gs prefix order does not matter */
	asm_gs(&t->e, 0x89, false, H_RAX, JIT_OFF(fl));
	asm_mov(&t->e, H_RAX, S1);
}

void trans_load_flags(struct trans *t)
{
	asm_mov(&t->e, S1, H_RAX);
	asm_gs(&t->e, 0x0fb7, false, H_RAX, JIT_OFF(fl));
	emit_flags_from_ax(&t->e);
	asm_mov(&t->e, H_RAX, S1);
}

/* EFLAGS are about to be overwritten. live: flags still needed. */
void trans_clobber(struct trans *t, unsigned live)
{
	if (live && !t->in_mem) {
		trans_save_flags(t);
		t->in_mem = true;
	}
	t->in_reg = false;
}

void trans_need_reg(struct trans *t)
{
	if (!t->in_reg) {
		trans_load_flags(t);
		t->in_reg = true;
	}
}

/* Just before the operation itself: flags it reads, or leaves alone while they are live. */
void trans_before_op(struct trans *t, const struct insn *i)
{
	unsigned writes = trans_flags_written(i);

	if (trans_flags_read(i) || (writes && (t->live & ~writes)))
		trans_need_reg(t);
}

void trans_after_op(struct trans *t, const struct insn *i)
{
	if (trans_flags_written(i)) {
		t->in_reg = true;
		t->in_mem = false;
	}
}

/* Flags that must survive what the instruction does before its operation. */
unsigned trans_live_before(const struct trans *t, const struct insn *i)
{
	return (t->live & ~trans_flags_written(i)) | trans_flags_read(i);
}

/* ---- Slow paths ----------------------------------------------------------------------------- */

void trans_slow_at(struct trans *t, size_t from)
{
	if (t->nslow == ARRAY_SIZE(t->slow)) {
		t->failed = true;
		return;
	}
	t->slow[t->nslow++] = (struct trans_slow){
		.from = from, .desc = t->tr ? t->tr->at : t->desc, .n = t->group, .x87 = t->x87_last
	};
}

/* All slow paths entered since `first` come back here. */
void trans_slow_back(struct trans *t, unsigned first)
{
	for (unsigned n = first; n < t->nslow; n++)
		t->slow[n].to = emit_size(&t->e);
}

uint32_t trans_desc(struct trans *t, const struct insn *i, gva_t rip)
{
	struct jit *j = t->j;

	if (j->ndescs == j->max_descs) {
		t->failed = true;
		return 0;
	}
	j->descs[j->ndescs] = (struct jit_desc){ i, rip };
	return j->ndescs++;
}

const struct insn *trans_vec_insn(const struct jit_block *b)
{
	for (unsigned n = 0; b->avx && n < b->n; n++)
		if (insn_info[b->insns[n].id].attr & A_AVX)
			return &b->insns[n];
	return &b->insns[0];
}

/* ---- Registers ------------------------------------------------------------------------------ */

/* Host register of a guest one; one that lives in memory is loaded into scratch when load. */
unsigned trans_reg(struct trans *t, unsigned guest, unsigned scratch, bool load)
{
	int h = trans_host(t, guest);

	if (h >= 0)
		return (unsigned)h;
	if (load)
		asm_ld(&t->e, scratch, JIT_OFF_R(guest));
	return scratch;
}

void trans_reg_back(struct trans *t, unsigned guest, unsigned host)
{
	if (trans_host(t, guest) < 0)
		asm_st(&t->e, host, JIT_OFF_R(guest));
}

/* ---- Memory --------------------------------------------------------------------------------- */

bool trans_la_keeps(const struct trans *t, gva_t la)
{
	return !t->slides || (int64_t)la / 2 == (int32_t)((int64_t)la / 2);
}

void trans_la(struct trans *t, unsigned reg, gva_t la)
{
	struct emit *e = &t->e;
	int64_t x = (int64_t)la;

	if (!t->slides) {
		asm_const(e, reg, la);
		return;
	}
	if (!trans_la_keeps(t, la)) {
		asm_const(e, reg, la);
		asm_gs(e, 0x03, true, reg, JIT_OFF(jit.slide));
		return;
	}
	asm_ld(e, reg, JIT_OFF(jit.slide));
	if (x == (int32_t)x) {
		asm_lea(e, true, reg, (int)reg, -1, 0, (int32_t)x);
	} else {
		asm_lea(e, true, reg, (int)reg, -1, 0, (int32_t)(x / 2));
		asm_lea(e, true, reg, (int)reg, -1, 0, (int32_t)(x - x / 2));
	}
}

void trans_mov_word(struct trans *t, unsigned dst, unsigned src)
{
	if (dst != src)
		asm_rr(&t->e, 0x8b, t->word == 8, dst, src);
}

/* S0 = linear address of the operand, before the segment base; flags stay. Uses S1. */
void trans_ea(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	int base = -1, index = -1;
	bool w = i->asize == 8;

	if (i->base == REG_RIP) {
		uint64_t la = t->next + (uint64_t)(int64_t)i->disp;

		if (trans_la_keeps(t, la)) {
			trans_la(t, S0, la);
		} else {
			asm_const(e, S0, la);
			asm_ld(e, S1, JIT_OFF(jit.slide));
			asm_lea(e, true, S0, S0, S1, 0, 0);
		}
		if (!w)
			asm_rr(e, 0x8b, false, S0, S0);
		return;
	}
	if (i->base == REG_ZERO && i->index == REG_ZERO) {
		uint64_t la = (uint64_t)(int64_t)i->disp;

		asm_const(e, S0, w ? la : (uint32_t)la);
		return;
	}
	if (i->base != REG_ZERO)
		base = (int)trans_reg(t, i->base, S0, true);
	if (i->index != REG_ZERO)
		index = (int)trans_reg(t, i->index, S1, true);
	if (base >= 0 && index < 0 && i->disp == 0 && w)
		asm_mov(e, S0, (unsigned)base);
	else
		asm_lea(e, w, S0, base, index, i->scale, i->disp);
}

/* S1 = offset of the entry, S0 = offset in the page; returns where the table is. */
static uint32_t trans_find(struct trans *t, unsigned size, bool write)
{
	struct emit *e = &t->e;
	uint32_t tlb = (uint32_t)(offsetof(struct vcpu, jit.tlb) +
				  (2 * (t->ctx % JIT_CTXS) + write) *
					  sizeof(((struct jit_env *)0)->tlb[0][0]));

	asm_rr(e, 0x8b, false, S1, S0);
	asm_shift(e, 5, false, S1, PAGE_SHIFT - 4);
	asm_ri(e, 4, false, S1, (JIT_TLB_SIZE - 1) << 4);
	asm_gs_base(e, 0x33, true, S0, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, key));
	asm_ri(e, 7, true, S0, (int32_t)(PAGE_SIZE - size));
	trans_slow_at(t, asm_jump_fwd(e, CC_A));
	return tlb;
}

/* S0 = linear address -> host address, or leave to the slow path. Overwrites EFLAGS, S1. */
void trans_probe(struct trans *t, unsigned size, bool write)
{
	uint32_t tlb = trans_find(t, size, write);

	asm_gs_base(&t->e, 0x03, true, S0, S1,
		    tlb + (uint32_t)offsetof(struct jit_tlb_entry, host));
}

/* to = host minus linear address of the page of S0. */
void trans_probe_delta(struct trans *t, unsigned size, bool write, unsigned to)
{
	uint32_t tlb = trans_find(t, size, write);

	asm_gs_base(&t->e, 0x8b, true, to, S1,
		    tlb + (uint32_t)offsetof(struct jit_tlb_entry, host));
	asm_gs_base(&t->e, 0x2b, true, to, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, key));
}

/* Leave to the slow path unless the address in S0 is a multiple of n. */
void trans_test_aligned(struct trans *t, unsigned n)
{
	asm_u8(&t->e, 0x41); /* test r10b, n - 1 */
	asm_u8(&t->e, 0xf6);
	asm_u8(&t->e, 0xc0 | (S0 & 7));
	asm_u8(&t->e, n - 1);
	trans_slow_at(t, asm_jump_fwd(&t->e, CC_NE));
}

/* S0 = linear address of the memory operand; alignment is checked. Overwrites EFLAGS, S1. */
static void trans_linear(struct trans *t, const struct insn *i, unsigned size, bool write,
			 bool aligned)
{
	trans_clobber(t, trans_live_before(t, i));
	trans_ea(t, i);
	if (t->word == 4 && (i->seg == SEG_FS || i->seg == SEG_GS))
		trans_flat_base(t, i, size, write);
	else if (i->seg == SEG_FS || i->seg == SEG_GS)
		asm_gs(&t->e, 0x03, true, S0,
		       (uint32_t)offsetof(struct vcpu, seg_base) + 8u * i->seg);
	if (aligned)
		trans_test_aligned(t, size);
}

struct trans_ref trans_operand(struct trans *t, const struct insn *i, unsigned size, bool write,
			       bool aligned, bool pair)
{
	struct trans_ref at = { .base = S0 };
	uint32_t tlb;

	if (t->tr && trace_shares(t, &t->tr->step[t->tr->at].acc[0]))
		return trace_operand(t, i);
	trans_linear(t, i, size, write, aligned);
	if (!pair) {
		trans_probe(t, size, write);
		return at;
	}
	/* page and offset are added by the access: a cycle less on the way from pointer to pointer
	 */
	tlb = trans_find(t, size, write);
	asm_gs_base(&t->e, 0x8b, true, S1, S1,
		    tlb + (uint32_t)offsetof(struct jit_tlb_entry, host));
	at.base = S1;
	at.index = S0;
	at.sib = true;
	return at;
}

/* The memory operand of an instruction as host address in S0. */
void trans_mem(struct trans *t, const struct insn *i, unsigned size, bool write, bool aligned)
{
	trans_linear(t, i, size, write, aligned);
	trans_probe(t, size, write);
}
