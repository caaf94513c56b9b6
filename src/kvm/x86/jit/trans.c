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
 * Modelled: 64-bit mode, rows of rows.c and HOST rows but MMX and x87. The rest calls out.
 * References: [SDM2] encodings. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/jit_int.h"

#include "kvm/x86/jit/rows.h"

struct trans_slow {
	size_t from; /* rel32 of the jump that leads here */
	size_t to;   /* offset to come back to */
	uint32_t desc;
	uint8_t n; /* instructions to run there, with successive descriptors */
};

struct trans {
	struct vcpu *v;
	struct jit *j;
	struct emit e;
	struct jit_block *b;
	unsigned ctx;
	gva_t rip, next; /* of the instruction under way */
	unsigned live;   /* flags live after it */
	bool in_reg, in_mem;
	uint32_t desc; /* of the instruction under way */
	uint8_t group; /* how many share its slow paths: 1, or a run of pushes or pops */
	struct trans_slow slow[3 * BLOCK_MAX_INSNS];
	unsigned nslow;
	bool vec;
	bool failed;
	bool ended; /* the last instruction has left the block */
};

/* ---- Operands ------------------------------------------------------------------------------- */

enum opclass { OPC_NONE, OPC_REG, OPC_RM, OPC_VVVV, OPC_VEC, OPC_MEM, OPC_MMX };

static enum opclass trans_class(unsigned o)
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
	case JK_CALLREL:
	case JK_CALL_E: return true;
	default: return false;
	}
}

static unsigned trans_imm_bytes(const struct insn_info *info, const struct insn *i)
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
static enum jit_kind trans_kind(const struct vcpu *v, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	bool vec = false;

	/* an undecodable instruction is row 0 with an exec of its own */
	if (i->exec != (void (*)(void))insn_exec[i->id] &&
	    !(info->attr & (A_SSE | A_AVX | A_MMX | A_X87 | A_PRIV)))
		return JK_CALL;
	if (!vcpu_has(v, info->feature) || i->asize == 2 || (info->attr & A_PRIV))
		return JK_CALL;
	if (info->how == CALL)
		return jit_kinds[i->id];
	if (info->attr & (A_MMX | A_X87))
		return JK_CALL;
	for (unsigned k = 0; k < 5; k++)
		switch (info->operand[k] == Ib2 ? OPC_MMX : trans_class(info->operand[k])) {
		case OPC_MMX: return JK_CALL;
		case OPC_VEC: vec = true; break;
		default: break;
		}
	return vec ? JK_VEC : JK_HOSTG;
}

static unsigned trans_flags_read(const struct insn *i)
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

static unsigned trans_flags_written(const struct insn *i)
{
	return insn_info[i->id].writes & F_ARITH;
}

unsigned jit_flags_ahead(struct vcpu *v, const uint8_t *code, size_t avail)
{
	unsigned live = F_ARITH, read = 0;

	for (unsigned n = 0; n < 8 && live; n++) {
		struct insn i;

		if (insn_decode(code, avail, DECODE_64, false, &i) != DECODE_OK)
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
static uint8_t trans_pack(unsigned flags)
{
	return (uint8_t)((flags & 0xd5) | (flags & F_O ? 2 : 0));
}

static unsigned trans_unpack(uint8_t p)
{
	return (p & 0xd5u) | (p & 2 ? F_O : 0);
}

/* Flags live at a linear address that the block may go to. */
static unsigned trans_flags_at(struct trans *t, gva_t la)
{
	struct vcpu *v = t->v;
	const struct itlb_entry *x = &v->itlb[v->cpl == 3][(la >> PAGE_SHIFT) & (ITLB_SIZE - 1)];

	if (x->tag != ((la & PAGE_MASK) | v->asid))
		return F_ARITH;
	/*
	 * Bytes of another page may change without this block being told; it is then only the
	 * flags of code that has been overwritten meanwhile that were guessed dead.
	 */
	if ((la ^ t->b->la) & PAGE_MASK)
		return F_ARITH;
	return jit_flags_ahead(v, x->host + (la & ~PAGE_MASK), PAGE_SIZE - (la & ~PAGE_MASK));
}

/* ---- Flags ---------------------------------------------------------------------------------- */

static void trans_save_flags(struct trans *t)
{
	asm_mov(&t->e, S1, H_RAX);
	emit_flags_to_ax(&t->e);
	asm_u8(&t->e, 0x66);
	/* 66 must come before REX and after nothing: gs prefix order does not matter */
	asm_gs(&t->e, 0x89, false, H_RAX, JIT_OFF(fl));
	asm_mov(&t->e, H_RAX, S1);
}

static void trans_load_flags(struct trans *t)
{
	asm_mov(&t->e, S1, H_RAX);
	asm_gs(&t->e, 0x0fb7, false, H_RAX, JIT_OFF(fl));
	emit_flags_from_ax(&t->e);
	asm_mov(&t->e, H_RAX, S1);
}

/* EFLAGS are about to be overwritten. live: flags still needed. */
static void trans_clobber(struct trans *t, unsigned live)
{
	if (live && !t->in_mem) {
		trans_save_flags(t);
		t->in_mem = true;
	}
	t->in_reg = false;
}

static void trans_need_reg(struct trans *t)
{
	if (!t->in_reg) {
		trans_load_flags(t);
		t->in_reg = true;
	}
}

/* Just before the operation itself: flags it reads, or leaves alone while they are live. */
static void trans_before_op(struct trans *t, const struct insn *i)
{
	unsigned writes = trans_flags_written(i);

	if (trans_flags_read(i) || (writes && (t->live & ~writes)))
		trans_need_reg(t);
}

static void trans_after_op(struct trans *t, const struct insn *i)
{
	if (trans_flags_written(i)) {
		t->in_reg = true;
		t->in_mem = false;
	}
}

/* Flags that must survive what the instruction does before its operation. */
static unsigned trans_live_before(const struct trans *t, const struct insn *i)
{
	return (t->live & ~trans_flags_written(i)) | trans_flags_read(i);
}

/* ---- Slow paths ----------------------------------------------------------------------------- */

static void trans_slow_at(struct trans *t, size_t from)
{
	if (t->nslow == ARRAY_SIZE(t->slow)) {
		t->failed = true;
		return;
	}
	t->slow[t->nslow++] = (struct trans_slow){ .from = from, .desc = t->desc, .n = t->group };
}

/* All slow paths entered since `first` come back here. */
static void trans_slow_back(struct trans *t, unsigned first)
{
	for (unsigned n = first; n < t->nslow; n++)
		t->slow[n].to = emit_size(&t->e);
}

static uint32_t trans_desc(struct trans *t, const struct insn *i, gva_t rip)
{
	struct jit *j = t->j;

	if (j->ndescs == JIT_DESCS) {
		t->failed = true;
		return 0;
	}
	j->descs[j->ndescs] = (struct jit_desc){ i, rip };
	return j->ndescs++;
}

/* ---- Registers ------------------------------------------------------------------------------ */

/* Host register of a guest one; one that lives in memory is loaded into scratch when load. */
static unsigned trans_reg(struct trans *t, unsigned guest, unsigned scratch, bool load)
{
	int h = jit_host_reg(guest);

	if (h >= 0)
		return (unsigned)h;
	if (load)
		asm_ld(&t->e, scratch, JIT_OFF_R(guest));
	return scratch;
}

static void trans_reg_back(struct trans *t, unsigned guest, unsigned host)
{
	if (jit_host_reg(guest) < 0)
		asm_st(&t->e, host, JIT_OFF_R(guest));
}

/* ---- Memory --------------------------------------------------------------------------------- */

/* S0 = linear address of the operand, before the segment base; flags stay. Uses S1. */
static void trans_ea(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	int base = -1, index = -1;
	bool w = i->asize == 8;

	if (i->base == REG_RIP) {
		uint64_t la = t->next + (uint64_t)(int64_t)i->disp;

		asm_const(e, S0, w ? la : (uint32_t)la);
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

/* S0 = linear address -> host address, or leave to the slow path. Overwrites EFLAGS, S1. */
static void trans_probe(struct trans *t, unsigned size, bool write)
{
	struct emit *e = &t->e;
	uint32_t tlb = (uint32_t)(offsetof(struct vcpu, jit.tlb) +
				  (2 * t->ctx + write) * sizeof(((struct jit_env *)0)->tlb[0][0]));

	asm_rr(e, 0x8b, false, S1, S0);
	asm_shift(e, 5, false, S1, PAGE_SHIFT - 4);
	asm_ri(e, 4, false, S1, (JIT_TLB_SIZE - 1) << 4);
	asm_gs_base(e, 0x33, true, S0, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, key));
	asm_ri(e, 7, true, S0, (int32_t)(PAGE_SIZE - size));
	trans_slow_at(t, asm_jump_fwd(e, CC_A));
	asm_gs_base(e, 0x03, true, S0, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, host));
}

/* The memory operand of an instruction as host address in S0. */
static void trans_mem(struct trans *t, const struct insn *i, unsigned size, bool write,
		      bool aligned)
{
	trans_clobber(t, trans_live_before(t, i));
	trans_ea(t, i);
	if (i->seg == SEG_FS || i->seg == SEG_GS)
		asm_gs(&t->e, 0x03, true, S0,
		       (uint32_t)offsetof(struct vcpu, seg_base) + 8u * i->seg);
	if (aligned) {
		asm_u8(&t->e, 0x41); /* test r10b, size - 1 */
		asm_u8(&t->e, 0xf6);
		asm_u8(&t->e, 0xc0 | (S0 & 7));
		asm_u8(&t->e, size - 1);
		trans_slow_at(t, asm_jump_fwd(&t->e, CC_NE));
	}
	trans_probe(t, size, write);
}

/* ---- Instructions re-encoded with their operands in place ------------------------------------ */

/* Call the interpreter's function for this instruction. */
static void trans_call(struct trans *t, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];

	trans_clobber(t, F_ARITH);
	if (info->attr & (A_BRANCH | A_END)) {
		asm_call(&t->e, t->j->g_exec_end);
		asm_u32(&t->e, t->desc);
		t->ended = true;
	} else {
		asm_call(&t->e, t->j->g_exec);
		asm_u32(&t->e, t->desc);
		t->in_reg = t->in_mem = true;
	}
}

static bool trans_high_byte(const struct insn *i, unsigned n)
{
	return (n & 12) == 4 && !(i->flags & IF_REX);
}

/*
 * The guest's own instruction with registers mapped and memory at [S0]. dest_g: ModRM.reg is
 * written. False when it has no such form: high-byte registers beside ones that need REX, too many
 * operands in memory-resident registers.
 */
static bool trans_generic(struct trans *t, const struct insn *i, bool reads, bool writes,
			  unsigned msize)
{
	const struct insn_info *info = &insn_info[i->id];
	struct emit_op x = { .map = info->map, .opcode = i->opcode, .modrm = true };
	bool has_g = false, has_v = false, rm_gpr = false, mem = i->flags & IF_MEM;
	bool byte_g = false, byte_rm = false, aligned = false;
	unsigned in_memory = 0;

	for (unsigned k = 0; k < 5; k++) {
		unsigned o = info->operand[k];

		switch (trans_class(o)) {
		case OPC_REG:
			has_g = true;
			byte_g = o == Gb;
			break;
		case OPC_RM:
			rm_gpr = !mem;
			byte_rm = o == Eb && !mem;
			break;
		case OPC_VVVV: has_v = true; break;
		default: break;
		}
	}
	if ((byte_g && trans_high_byte(i, i->reg)) || (byte_rm && trans_high_byte(i, i->rm)))
		return false;
	in_memory += has_g && jit_host_reg(i->reg) < 0;
	in_memory += has_v && jit_host_reg(i->vvvv) < 0;
	in_memory += rm_gpr && jit_host_reg(i->rm) < 0;
	if (in_memory > (mem ? 1u : 2u))
		return false;

	x.pp = info->pp == P66 || info->pp == PF3 || info->pp == PF2 ? info->pp : NP;
	x.opsize = x.pp != P66 && (i->flags & IF_OPSIZE) && info->map < V0F;
	x.w = i->flags & IF_W;
	x.l = i->flags & IF_L;
	x.imm_len = (uint8_t)trans_imm_bytes(info, i);
	x.imm = (uint32_t)i->imm;
	x.rex = i->flags & IF_REX;
	aligned = mem && (info->attr & A_ALIGN);
	if (mem) {
		if (i->id == I_CMPXCHG16B)
			aligned = true;
		trans_mem(t, i, msize, writes, aligned);
		x.mem = true;
		x.rm = S0;
	}
	{
		unsigned free = mem ? S1 : S0, g = 0, vv = 0, rm = 0;

		/* restoring flags uses S1: before any operand is loaded there */
		trans_before_op(t, i);
		if (rm_gpr) {
			rm = trans_reg(t, i->rm, S1, true);
			x.rm = (uint8_t)rm;
			if (rm == S1)
				free = S0;
		} else if (!mem) {
			x.rm = i->rm; /* vector */
		}
		if (has_g) {
			if (rm_gpr && i->reg == i->rm) {
				g = rm;
			} else {
				g = trans_reg(t, i->reg, free, true);
				if (g == free)
					free = S0 + S1 - free;
			}
			x.reg = (uint8_t)g;
		} else if (info->ext >= 0x100 && info->ext < 0x400) {
			x.reg = info->ext & 7;
		} else {
			x.reg = i->reg;
		}
		if (has_v) {
			if (has_g && i->vvvv == i->reg)
				vv = g;
			else if (rm_gpr && i->vvvv == i->rm)
				vv = rm;
			else
				vv = trans_reg(t, i->vvvv, free, true);
			x.vvvv = (uint8_t)vv;
		} else {
			x.vvvv = i->vvvv;
		}
		if (i->flags & IF_LOCK)
			asm_u8(&t->e, 0xf0);
		emit_op(&t->e, &x);
		if (has_g)
			trans_reg_back(t, i->reg, g);
		if (has_v)
			trans_reg_back(t, i->vvvv, vv);
		if (rm_gpr)
			trans_reg_back(t, i->rm, rm);
	}
	trans_after_op(t, i);
	(void)reads;
	return true;
}

static unsigned trans_msize(const struct insn *i)
{
	unsigned n = (unsigned)insn_memory_size(i);

	return n;
}

/* Registers and immediates without ModRM: accumulator forms, CBW, CMC and the like. */
static void trans_plain(struct trans *t, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	struct emit_op x = { .map = info->map,
			     .opcode = i->opcode,
			     .opsize = i->flags & IF_OPSIZE,
			     .w = i->flags & IF_W,
			     .imm_len = (uint8_t)trans_imm_bytes(info, i),
			     .imm = (uint32_t)i->imm };

	trans_before_op(t, i);
	emit_op(&t->e, &x);
	trans_after_op(t, i);
}

/* A register in the opcode. */
static bool trans_zreg(struct trans *t, const struct insn *i)
{
	unsigned r;

	switch (i->id) {
	case I_MOV_ZvIv:
		if (i->osize == 2)
			return false;
		r = trans_reg(t, i->rm, S0, false);
		asm_const(&t->e, r, i->osize == 4 ? (uint32_t)i->imm : i->imm);
		break;
	case I_MOV_ZbIb:
		if (trans_high_byte(i, i->rm))
			return false;
		r = trans_reg(t, i->rm, S0, true);
		asm_rex(&t->e, false, 0, 0, r, true);
		asm_u8(&t->e, 0xb0 | (r & 7));
		asm_u8(&t->e, (uint8_t)i->imm);
		break;
	case I_BSWAP_Zv:
		if (i->osize == 2)
			return false;
		r = trans_reg(t, i->rm, S0, true);
		asm_rex(&t->e, i->osize == 8, 0, 0, r, false);
		asm_u8(&t->e, 0x0f);
		asm_u8(&t->e, 0xc8 | (r & 7));
		break;
	case I_XCHG_ZvrAX:
		r = trans_reg(t, i->rm, S0, true);
		if (i->osize == 2)
			asm_u8(&t->e, 0x66);
		asm_rr(&t->e, 0x87, i->osize == 8, H_RAX, r);
		break;
	default: return false;
	}
	trans_reg_back(t, i->rm, r);
	return true;
}

static bool trans_lea(struct trans *t, const struct insn *i)
{
	unsigned d = trans_reg(t, i->reg, S0, i->osize == 2);

	if (i->osize == 2)
		return false;
	trans_ea(t, i);
	/* the address is in S0, already cut to its size */
	asm_rr(&t->e, 0x8b, i->osize == 8, d, S0);
	trans_reg_back(t, i->reg, d);
	return true;
}

/* ---- Division -------------------------------------------------------------------------------- */

/*
 * DIV when the quotient fits. IDIV when the dividend is rAX sign-extended and the divisor is
 * neither 0 nor -1, so that it fits as well. Everything else, #DE with it, is the interpreter's.
 */
static bool trans_div(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool w = i->osize == 8;

	if (i->osize == 2)
		return false;
	if (i->flags & IF_MEM) {
		trans_mem(t, i, i->osize, false, false);
		emit_mov_load(e, i->osize, S0, S0, 0);
	} else {
		trans_clobber(t, trans_live_before(t, i));
		asm_mov(e, S0, trans_reg(t, i->rm, S0, true));
	}
	if (i->id == I_DIV_Ev) {
		asm_rr(e, 0x3b, w, H_RDX, S0);
		trans_slow_at(t, asm_jump_fwd(e, CC_AE));
		asm_rr(e, 0xf7, w, 6, S0);
	} else {
		asm_lea(e, w, S1, S0, -1, 0, 1);
		asm_ri(e, 7, w, S1, 1);
		trans_slow_at(t, asm_jump_fwd(e, CC_BE));
		asm_mov(e, S1, H_RAX);
		asm_shift(e, 7, w, S1, w ? 63 : 31);
		asm_rr(e, 0x3b, w, S1, H_RDX);
		trans_slow_at(t, asm_jump_fwd(e, CC_NE));
		asm_rr(e, 0xf7, w, 7, S0);
	}
	trans_after_op(t, i);
	return true;
}

/* ---- Stack ---------------------------------------------------------------------------------- */

static void trans_lea_rsp(struct trans *t, int32_t delta)
{
	asm_lea(&t->e, true, H_R9, H_R9, -1, 0, delta);
}

static void trans_push(struct trans *t, const struct insn *i, bool imm, uint64_t val)
{
	struct emit *e = &t->e;

	trans_clobber(t, trans_live_before(t, i));
	asm_lea(e, true, S0, H_R9, -1, 0, -8);
	trans_probe(t, 8, true);
	if (imm && (int64_t)val == (int32_t)val) {
		static const uint8_t op[] = { 0x49, 0xc7, 0x02 }; /* mov qword [r10], imm32 */

		emit_bytes(e, op, sizeof(op));
		asm_u32(e, (uint32_t)val);
	} else {
		unsigned r = S1;

		if (imm)
			asm_const(e, S1, val);
		else
			r = trans_reg(t, i->rm, S1, true);
		emit_mov_store(e, 8, S0, 0, r);
	}
	trans_lea_rsp(t, -8);
}

/* S0 = [rSP + 0]. */
static void trans_peek(struct trans *t, const struct insn *i)
{
	trans_clobber(t, trans_live_before(t, i));
	asm_mov(&t->e, S0, H_R9);
	trans_probe(t, 8, false);
	emit_mov_load(&t->e, 8, S0, S0, 0);
}

static void trans_pop(struct trans *t, const struct insn *i)
{
	int h = jit_host_reg(i->rm);

	trans_peek(t, i);
	trans_lea_rsp(t, 8);
	if (h >= 0)
		asm_mov(&t->e, (unsigned)h, S0);
	else
		asm_st(&t->e, S0, JIT_OFF_R(i->rm));
}

static void trans_leave(struct trans *t, const struct insn *i)
{
	trans_clobber(t, trans_live_before(t, i));
	asm_mov(&t->e, S0, H_RBP);
	trans_probe(t, 8, false);
	emit_mov_load(&t->e, 8, S0, S0, 0);
	asm_lea(&t->e, true, H_R9, H_RBP, -1, 0, 8);
	asm_mov(&t->e, H_RBP, S0);
}

/* ---- Leaving the block ---------------------------------------------------------------------- */

/* To C with rIP = la; link: the jump to be patched, or NULL. live: flags the target reads. */
static void trans_exit(struct trans *t, gva_t la, struct jit_link *link, unsigned live)
{
	struct emit *e = &t->e;

	if (live && !t->in_mem)
		trans_save_flags(t);
	asm_const(e, S0, la);
	asm_st(e, S0, JIT_OFF_R(REG_RIP));
	asm_const(e, S0, (uintptr_t)link);
	asm_st(e, S0, JIT_OFF(jit.tmp2));
	asm_jmp(e, t->j->g_exit);
}

/* Go to la by a jump that will be patched; rel: link slot. */
static void trans_goto(struct trans *t, gva_t la, struct jit_link *l)
{
	struct emit *e = &t->e;
	unsigned live = trans_flags_at(t, la);
	bool back = la <= t->rip, far = (la ^ t->b->la) & PAGE_MASK;
	size_t busy = 0, other = 0;

	l->la = la;
	l->live = (uint16_t)live;
	l->ctx = (uint8_t)t->ctx;
	l->target = NULL;
	l->stamp = 0;
	if (back || far) {
		trans_clobber(t, live);
		if (back) {
			asm_cmp_gs32(e, JIT_OFF(requests), 0);
			busy = asm_jump_fwd(e, CC_NE);
		}
		if (far) {
			asm_cmp_gs32(e, (uint32_t)offsetof(struct vcpu, jit.link) + 4 * t->ctx, 0);
			l->stamp = (uint32_t)(e->run - (uint64_t)(uintptr_t)t->j->rx +
					      emit_size(e) - 4);
			other = asm_jump_fwd(e, CC_NE);
		}
	}
	if (live)
		trans_need_reg(t);
	l->site = (uint32_t)(e->run - (uint64_t)(uintptr_t)t->j->rx + emit_size(e) + 1);
	asm_jump_fwd(e, CC_JMP); /* rel32 0: to the stub, which comes next */
	l->stub = l->site + 4;
	if (busy)
		asm_fix(e, busy);
	/* the jump from above comes with flags in memory when they are live; in both it is right */
	if ((back || far) && live)
		t->in_mem = true;
	trans_exit(t, la, l, live);
	if (!other)
		return;
	/* another address space: look there; if that misses, C makes the link anew */
	asm_fix(e, other);
	asm_const(e, S0, (uintptr_t)l);
	asm_st(e, S0, JIT_OFF(jit.tmp2));
	asm_const(e, S0, la);
	asm_jmp(e, t->j->g_ibtc[t->ctx]);
}

/* A near target that is not canonical faults at the branch: the interpreter's function does it. */
static void trans_check_target(struct trans *t)
{
	struct emit *e = &t->e;

	asm_mov(e, S1, S0);
	asm_shift(e, 4, true, S1, 16);
	asm_shift(e, 7, true, S1, 16);
	asm_rr(e, 0x3b, true, S1, S0);
	trans_slow_at(t, asm_jump_fwd(e, CC_NE));
}

/*
 * Go to the address in S0; flags are in v->fl. When it is not known, or something waits: with undo,
 * the branch is undone by adding that to rSP and run by the interpreter, which also faults on a
 * target that is not canonical: no tag is one. With 0 (a call, whose push may have overwritten
 * where its target came from) the block is left for the target, which has been checked.
 */
static void trans_goto_s0(struct trans *t, int32_t undo, uint32_t desc)
{
	struct emit *e = &t->e;
	uint32_t ibtc = (uint32_t)offsetof(struct vcpu, jit.ibtc);
	size_t miss[2];

	asm_gs(e, 0x33, true, S0, (uint32_t)offsetof(struct vcpu, jit.token) + 8 * t->ctx);
	asm_rr(e, 0x8b, false, S1, S0);
	asm_ri(e, 4, false, S1, JIT_IBTC_SIZE - 1);
	asm_shift(e, 4, false, S1, 4);
	asm_cmp_gs32(e, JIT_OFF(requests), 0);
	miss[0] = asm_jump_fwd(e, CC_NE);
	asm_gs_base(e, 0x3b, true, S0, S1, ibtc);
	miss[1] = asm_jump_fwd(e, CC_NE);
	asm_gs_base(e, 0xff, false, 4, S1, ibtc + 8); /* jmp gs:[S1 + code] */
	asm_fix(e, miss[0]);
	asm_fix(e, miss[1]);
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

static int32_t trans_ret_pop(const struct insn *i)
{
	return 8 + (i->id == I_RET_Iw ? (int32_t)(uint16_t)i->imm : 0);
}

static void trans_indirect(struct trans *t, const struct insn *i, enum jit_kind kind)
{
	struct emit *e = &t->e;
	int32_t undo = 0;

	/* the target may read any flag */
	t->live = F_ARITH;
	trans_clobber(t, F_ARITH);
	if (kind == JK_RET) {
		trans_peek(t, i);
		trans_lea_rsp(t, trans_ret_pop(i));
		undo = -trans_ret_pop(i);
	} else {
		if (i->flags & IF_MEM) {
			trans_mem(t, i, 8, false, false);
			emit_mov_load(e, 8, S0, S0, 0);
		} else {
			unsigned r = trans_reg(t, i->rm, S0, true);

			asm_mov(e, S0, r);
		}
		trans_check_target(t);
		if (kind == JK_CALL_E) {
			asm_st(e, S0, JIT_OFF(jit.tmp));
			trans_push(t, i, true, t->next);
			asm_ld(e, S0, JIT_OFF(jit.tmp));
		}
	}
	trans_goto_s0(t, undo, t->desc);
	t->ended = true;
}

static void trans_jcc(struct trans *t, const struct insn *i)
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
	trans_goto(t, t->next + i->imm, &t->b->link[1]);
	t->ended = true;
}

/* ---- One instruction ------------------------------------------------------------------------ */

static bool trans_canonical(gva_t la)
{
	return (uint64_t)sext(la, 48) == la;
}

static void trans_insn(struct trans *t, const struct insn *i)
{
	enum jit_kind kind = trans_kind(t->v, i);
	const struct insn_info *info = &insn_info[i->id];
	bool mem = i->flags & IF_MEM, done = false;
	unsigned first = t->nslow, msize = mem ? trans_msize(i) : 0;

	t->desc = trans_desc(t, i, t->rip);
	if (mem && kind != JK_LEA && kind != JK_NOP && (msize == 0 || i->id == I_BT_EvGv))
		kind = JK_CALL;
	switch (kind) {
	case JK_CALL: break;
	case JK_NOP: done = true; break;
	case JK_RMW_E: done = trans_generic(t, i, true, true, msize); break;
	case JK_RD_E:
	case JK_RD_GE: done = trans_generic(t, i, true, false, msize); break;
	case JK_DIV: done = trans_div(t, i); break;
	case JK_WR_E: done = trans_generic(t, i, false, true, msize); break;
	case JK_HOSTG:
	case JK_VEC:
		done = trans_generic(t, i, true,
				     mem && (trans_class(info->operand[0]) == OPC_RM ||
					     trans_class(info->operand[0]) == OPC_MEM ||
					     (info->operand[0] >= Wb && info->operand[0] <= Wx)),
				     msize);
		break;
	case JK_REG:
		trans_plain(t, i);
		done = true;
		break;
	case JK_ZREG: done = trans_zreg(t, i); break;
	case JK_LEA: done = trans_lea(t, i); break;
	case JK_PUSH_R:
		if (i->osize == 8) {
			trans_push(t, i, false, 0);
			done = true;
		}
		break;
	case JK_PUSH_I:
		if (i->osize == 8) {
			trans_push(t, i, true, i->imm);
			done = true;
		}
		break;
	case JK_POP_R:
		if (i->osize == 8) {
			trans_pop(t, i);
			done = true;
		}
		break;
	case JK_LEAVE:
		if (i->osize == 8) {
			trans_leave(t, i);
			done = true;
		}
		break;
	case JK_JCC:
		if (i->osize == 8 && trans_canonical(t->next + i->imm)) {
			trans_jcc(t, i);
			done = true;
		}
		break;
	case JK_JMP:
		if (i->osize == 8 && trans_canonical(t->next + i->imm)) {
			trans_goto(t, t->next + i->imm, &t->b->link[0]);
			t->ended = done = true;
		}
		break;
	case JK_CALLREL:
		if (i->osize == 8 && trans_canonical(t->next + i->imm)) {
			/* flags: dead if the callee says so, else kept over the probe */
			t->live = trans_flags_at(t, t->next + i->imm);
			trans_push(t, i, true, t->next);
			trans_goto(t, t->next + i->imm, &t->b->link[0]);
			t->ended = done = true;
		}
		break;
	case JK_JMP_E:
	case JK_CALL_E:
	case JK_RET:
		if (i->osize == 8) {
			trans_indirect(t, i, kind);
			done = true;
		}
		break;
	}
	if (!done)
		trans_call(t, i);
	/* a slow path of a branch runs it to its end and leaves: it never comes back */
	trans_slow_back(t, first);
}

/* ---- Runs of pushes and pops: one probe for all ------------------------------------------------
 */

static bool trans_is_push(const struct insn *i)
{
	return i->osize == 8 && ((i->id == I_PUSH_Zv && i->rm != REG_RSP) || i->id == I_PUSH_Iz ||
				 i->id == I_PUSH_Ibs);
}

static bool trans_is_pop(const struct insn *i)
{
	return i->osize == 8 && i->id == I_POP_Zv && i->rm != REG_RSP;
}

static void trans_store_imm(struct trans *t, int32_t off, uint64_t val)
{
	struct emit *e = &t->e;

	if ((int64_t)val != (int32_t)val) {
		asm_const(e, S1, val);
		emit_mov_store(e, 8, S0, off, S1);
		return;
	}
	asm_u8(e, 0x49); /* mov qword [r10 + disp32], imm32 */
	asm_u8(e, 0xc7);
	asm_u8(e, 0x82);
	asm_u32(e, (uint32_t)off);
	asm_u32(e, (uint32_t)val);
}

/* n pushes, and a near call when call is not NULL. */
static void trans_push_run(struct trans *t, const struct insn *i, unsigned n,
			   const struct insn *call)
{
	int32_t total = 8 * (int32_t)(n + (call != NULL)), off = total;
	struct emit *e = &t->e;

	trans_clobber(t, t->live);
	asm_lea(e, true, S0, H_R9, -1, 0, -total);
	trans_probe(t, (unsigned)total, true);
	for (unsigned k = 0; k < n; k++, i++) {
		off -= 8;
		if (i->id == I_PUSH_Zv)
			emit_mov_store(e, 8, S0, off, trans_reg(t, i->rm, S1, true));
		else
			trans_store_imm(t, off, i->imm);
	}
	if (call)
		trans_store_imm(t, 0, t->next);
	trans_lea_rsp(t, -total);
	if (call) {
		trans_goto(t, t->next + call->imm, &t->b->link[0]);
		t->ended = true;
	}
}

/* n pops, and a near return when ret is not NULL. */
static void trans_pop_run(struct trans *t, const struct insn *i, unsigned n, const struct insn *ret)
{
	struct emit *e = &t->e;

	trans_clobber(t, t->live);
	asm_mov(e, S0, H_R9);
	trans_probe(t, 8 * (n + (ret != NULL)), false);
	for (unsigned k = 0; k < n; k++, i++) {
		int h = jit_host_reg(i->rm);

		emit_mov_load(e, 8, h >= 0 ? (unsigned)h : S1, S0, 8 * (int32_t)k);
		if (h < 0)
			asm_st(e, S1, JIT_OFF_R(i->rm));
	}
	if (!ret) {
		trans_lea_rsp(t, 8 * (int32_t)n);
		return;
	}
	emit_mov_load(e, 8, S0, S0, 8 * (int32_t)n);
	trans_lea_rsp(t, 8 * (int32_t)n + trans_ret_pop(ret));
	trans_goto_s0(t, -trans_ret_pop(ret), t->desc + n);
	t->ended = true;
}

/*
 * If a run of at least two stack instructions starts at i, translate it: t->rip and t->next are
 * then those of its last instruction. Returns how many. live: of each instruction, as packed by
 * trans_liveness.
 */
static unsigned trans_stack_run(struct trans *t, const struct insn *i, unsigned left,
				const uint8_t *live)
{
	const struct insn *end = NULL;
	bool push = trans_is_push(i);
	unsigned n = 0, first = t->nslow, all;
	gva_t rip = t->rip;

	while (n < left && (push ? trans_is_push(&i[n]) : trans_is_pop(&i[n])))
		n++;
	if (n && n < left) {
		gva_t at = rip;

		for (unsigned k = 0; k <= n; k++)
			at += i[k].len;
		if (push && i[n].id == I_CALL_Jz && i[n].osize == 8 &&
		    trans_canonical(at + i[n].imm))
			end = &i[n];
		if (!push && (i[n].id == I_RET || i[n].id == I_RET_Iw) && i[n].osize == 8)
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
		rip += i[k].len;
	}
	t->next = rip;
	t->live = trans_unpack(live[n - 1]);
	if (end)
		t->live = push ? trans_flags_at(t, t->next + end->imm) : F_ARITH;
	t->group = (uint8_t)all;
	if (push)
		trans_push_run(t, i, n, end);
	else
		trans_pop_run(t, i, n, end);
	t->group = 1;
	trans_slow_back(t, first);
	return all;
}

/* ---- The block ------------------------------------------------------------------------------ */

static unsigned trans_liveness(struct trans *t, const struct block *b, uint8_t live_packed[],
			       unsigned out)
{
	unsigned live = out;

	for (unsigned n = b->n; n-- > 0;) {
		const struct insn *i = &b->insns[n];

		live_packed[n] = trans_pack(live);
		/* what calls the interpreter may look at all flags (PUSHF, an exit, a fault) */
		if (trans_kind(t->v, i) == JK_CALL)
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
		for (unsigned k = 0; k < s->n; k++) {
			const struct insn *i = t->j->descs[s->desc + k].insn;

			branch = insn_info[i->id].attr & (A_BRANCH | A_END);
			asm_call(&t->e, branch ? t->j->g_exec_end : t->j->g_exec);
			asm_u32(&t->e, s->desc + k);
		}
		if (!branch)
			asm_jmp(&t->e, t->e.run + s->to);
	}
}

struct jit_block *jit_translate(struct vcpu *v, struct block *b, gva_t la, unsigned ctx)
{
	struct jit *j = v->jitp;
	size_t meta = (sizeof(struct jit_block) + b->n * sizeof(struct insn) + 15) & ~(size_t)15;
	uint8_t live[BLOCK_MAX_INSNS];
	unsigned out = F_ARITH, in;
	struct trans t = { .v = v, .j = j, .ctx = ctx };
	const struct insn *last = &b->insns[b->n - 1];
	struct jit_block *jb;
	size_t vec_from = 0, vec_back = 0;
	gva_t rip = la;

	if (j->used + (64u << 10) > j->code_size || j->meta_used + meta > JIT_META_SIZE ||
	    j->ndescs + BLOCK_MAX_INSNS + 1 > JIT_DESCS)
		return NULL;
	jb = (struct jit_block *)(j->meta + j->meta_used);
	memset(jb, 0, sizeof(*jb));
	memcpy(jb->insns, b->insns, b->n * sizeof(struct insn));
	jb->n = b->n;
	jb->la = la;
	jb->host = b->host;
	jb->page = b->page;
	jb->gen = b->gen;
	jb->ctx = (uint8_t)ctx;
	t.b = jb;
	emit_init(&t.e, j->rw + j->used, (64u << 10) - 64, (uintptr_t)j->rx + j->used);

	/* direct jumps: flags at both ends; else all */
	t.next = la + b->bytes;
	if (last->id == I_JMP_Jb || last->id == I_JMP_Jz || last->id == I_CALL_Jz)
		out = trans_flags_at(&t, t.next + last->imm);
	else if (last->id == I_JCC_Jb || last->id == I_JCC_Jz)
		out = trans_flags_at(&t, t.next + last->imm) | trans_flags_at(&t, t.next);
	else if (!(insn_info[last->id].attr & (A_BRANCH | A_END)))
		out = trans_flags_at(&t, t.next);
	in = trans_liveness(&t, b, live, out);
	for (unsigned n = 0; n < b->n; n++)
		jb->fpu |= !!(insn_info[b->insns[n].id].attr & (A_X87 | A_MMX | A_SSE | A_AVX));
	for (unsigned n = 0; n < b->n; n++)
		if (trans_kind(v, &b->insns[n]) == JK_VEC) {
			t.vec = true;
			jb->avx |= !!(insn_info[b->insns[n].id].attr & A_AVX);
		}

	/* entry with flags in memory: bring them, or fall into the other entry */
	jb->entry_mem = (uint32_t)(j->used + emit_size(&t.e));
	if (in)
		trans_load_flags(&t);
	jb->entry = (uint32_t)(j->used + emit_size(&t.e));
	t.in_reg = true;
	t.in_mem = false;
	t.rip = la;
	if (t.vec) {
		trans_clobber(&t, in);
		asm_cmp_gs8(&t.e, JIT_OFF(jit.vec_live), jb->avx ? VEC_AVX : VEC_SSE);
		vec_from = asm_jump_fwd(&t.e, CC_B);
		vec_back = emit_size(&t.e);
	}
	t.group = 1;
	for (unsigned n = 0; n < b->n && !t.ended;) {
		struct insn *i = &jb->insns[n];
		unsigned run;

		t.rip = rip;
		run = trans_stack_run(&t, i, b->n - n, live + n);
		if (!run) {
			t.next = rip + i->len;
			t.live = trans_unpack(live[n]);
			trans_insn(&t, i);
			run = 1;
		}
		n += run;
		rip = t.next;
	}
	if (!t.ended) {
		t.rip = rip - 1;
		trans_goto(&t, rip, &jb->link[0]);
	}
	trans_slow_paths(&t);
	if (t.vec) {
		asm_fix(&t.e, vec_from);
		asm_call(&t.e, j->g_vec);
		asm_u32(&t.e, trans_desc(&t, &jb->insns[0], la));
		asm_jmp(&t.e, t.e.run + vec_back);
	}
	if (t.e.full || t.failed)
		return NULL;
	emit_align(&t.e, 16);
	jb->size = (uint32_t)(j->used + emit_size(&t.e)) - jb->entry_mem;
	j->used += emit_size(&t.e);
	j->meta_used += meta;
	j->stat.blocks++;
	j->stat.insns += b->n;
	return jb;
}
