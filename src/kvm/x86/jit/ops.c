/*
 * Instructions re-encoded with their operands where the translator keeps them.
 *
 * References: [SDM2]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trans.h"

/* ---- Instructions re-encoded with their operands in place ------------------------------------ */

/* Call the interpreter's function for this instruction. */
void trans_call(struct trans *t, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];

	trans_x87_settle(t);
	trans_clobber(t, F_ARITH);
	if (info->attr & (A_BRANCH | A_END)) {
		asm_call(&t->e, t->j->g_exec_end);
		asm_u32(&t->e, t->desc);
		t->ended = true;
	} else {
		asm_call(&t->e, t->x87 ? t->j->g_exec_x87 : t->j->g_exec);
		asm_u32(&t->e, t->desc);
		t->in_reg = t->in_mem = true;
	}
}

static bool trans_high_byte(const struct insn *i, unsigned n)
{
	return (n & 12) == 4 && !(i->flags & IF_REX);
}

/* Exchange the low and the high byte of rAX to rBX, of which n is the latter; flags stay. */
static void trans_swap_bytes(struct trans *t, unsigned n)
{
	asm_u8(&t->e, 0x86);
	asm_u8(&t->e, 0xc0 | n << 3 | (n - 4));
}

/* Which operands are general registers. */
struct ops_form {
	bool has_g, has_v, rm_gpr;
	bool high_g, high_rm; /* AH, CH, DH, BH */
};

/* False: high-byte registers beside ones that need REX, or too many registers in memory. */
static bool ops_form(const struct insn *i, struct ops_form *f)
{
	const struct insn_info *info = &insn_info[i->id];
	bool mem = i->flags & IF_MEM, byte_g = false, byte_rm = false;
	unsigned in_memory = 0;

	*f = (struct ops_form){ 0 };
	for (unsigned k = 0; k < 5; k++) {
		unsigned o = info->operand[k];

		switch (trans_class(o)) {
		case OPC_REG:
			f->has_g = true;
			byte_g = o == Gb;
			break;
		case OPC_RM:
			f->rm_gpr = !mem;
			byte_rm = o == Eb && !mem;
			break;
		case OPC_VVVV: f->has_v = true; break;
		default: break;
		}
	}
	f->high_g = byte_g && trans_high_byte(i, i->reg);
	f->high_rm = byte_rm && trans_high_byte(i, i->rm);
	if ((f->high_g && f->rm_gpr && !f->high_rm && jit_host_reg(i->rm) > 7) ||
	    (f->high_rm && f->has_g && !f->high_g && jit_host_reg(i->reg) > 7))
		return false;
	/* exchanged with the low byte: of no register of the address, and not of CMPXCHG's AL */
	if (f->high_g && mem &&
	    (i->base == i->reg - 4 || i->index == i->reg - 4 || i->id == I_CMPXCHG_EbGb))
		return false;
	in_memory += f->has_g && jit_host_reg(i->reg) < 0;
	in_memory += f->has_v && jit_host_reg(i->vvvv) < 0;
	in_memory += f->rm_gpr && jit_host_reg(i->rm) < 0;
	return in_memory <= (mem ? 1u : 2u);
}

bool trans_has_form(const struct insn *i)
{
	struct ops_form f;

	return ops_form(i, &f);
}

/* After its address is known, does the instruction need no scratch register? */
static bool ops_spares_s1(const struct trans *t, const struct insn *i, const struct ops_form *f)
{
	unsigned writes = trans_flags_written(i);

	if ((f->has_g && trans_host(t, i->reg) < 0) || (f->has_v && trans_host(t, i->vvvv) < 0))
		return false;
	return !trans_flags_read(i) && !(writes && (t->live & ~writes));
}

/*
 * The guest's own instruction with registers mapped and memory at [S0]. dest_g: ModRM.reg is
 * written. False when it has no such form: high-byte registers beside ones that need REX, too many
 * operands in memory-resident registers. A high-byte register beside memory, whose address needs
 * REX, changes places with the low byte meanwhile.
 */
bool trans_generic(struct trans *t, const struct insn *i, bool reads, bool writes, unsigned msize)
{
	const struct insn_info *info = &insn_info[i->id];
	struct emit_op x = { .map = info->map, .opcode = i->opcode, .modrm = true };
	bool mem = i->flags & IF_MEM;
	struct ops_form f;

	if (!ops_form(i, &f))
		return false;

	x.pp = info->pp == P66 || info->pp == PF3 || info->pp == PF2 ? info->pp : NP;
	x.opsize = x.pp != P66 && (i->flags & IF_OPSIZE) && info->map < V0F;
	x.w = i->flags & IF_W;
	x.l = i->flags & IF_L;
	x.imm_len = (uint8_t)trans_imm_bytes(info, i);
	x.imm = (uint32_t)i->imm;
	x.rex = i->flags & IF_REX;
	if (mem) {
		struct trans_ref at = trans_operand(t, i, msize, writes, trans_aligned(i),
						    ops_spares_s1(t, i, &f));

		x.mem = true;
		x.rm = at.base;
		x.sib = at.sib;
		x.index = at.index;
		x.scale = at.scale;
		x.disp = at.disp;
	}
	{
		unsigned free = mem ? S1 : S0, g = 0, vv = 0, rm = 0;

		/* restoring flags uses S1: before any operand is loaded there */
		trans_before_op(t, i);
		if (f.rm_gpr) {
			rm = f.high_rm ? i->rm : trans_reg(t, i->rm, S1, true);
			x.rm = (uint8_t)rm;
			if (rm == S1)
				free = S0;
		} else if (!mem) {
			x.rm = i->rm; /* vector */
		}
		if (f.has_g) {
			if (f.high_g && mem) {
				trans_swap_bytes(t, i->reg);
				g = i->reg - 4u;
			} else if (f.high_g) {
				g = i->reg;
			} else if (f.rm_gpr && i->reg == i->rm) {
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
		if (f.has_v) {
			if (f.has_g && i->vvvv == i->reg)
				vv = g;
			else if (f.rm_gpr && i->vvvv == i->rm)
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
		if (f.high_g && mem)
			trans_swap_bytes(t, i->reg);
		if (f.has_g)
			trans_reg_back(t, i->reg, g);
		if (f.has_v)
			trans_reg_back(t, i->vvvv, vv);
		if (f.rm_gpr)
			trans_reg_back(t, i->rm, rm);
	}
	trans_after_op(t, i);
	(void)reads;
	return true;
}

unsigned trans_msize(const struct insn *i)
{
	unsigned n = (unsigned)insn_memory_size(i);

	return n;
}

/* Registers and immediates without ModRM: accumulator forms, CBW, CMC and the like. */
void trans_plain(struct trans *t, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	struct emit_op x = { .map = info->map,
			     .opcode = i->opcode,
			     .opsize = i->flags & IF_OPSIZE,
			     .w = i->flags & IF_W,
			     .l = i->flags & IF_L,
			     .imm_len = (uint8_t)trans_imm_bytes(info, i),
			     .imm = (uint32_t)i->imm };

	trans_before_op(t, i);
	emit_op(&t->e, &x);
	trans_after_op(t, i);
}

bool trans_zreg_has_form(const struct insn *i)
{
	return i->id == I_XCHG_ZvrAX || i->id == I_MOV_ZbIb || i->osize != 2;
}

/* A register in the opcode. */
bool trans_zreg(struct trans *t, const struct insn *i)
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
		r = i->rm;
		if (!trans_high_byte(i, i->rm)) {
			r = trans_reg(t, i->rm, S0, true);
			asm_rex(&t->e, false, 0, 0, r, true);
		}
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

void trans_load(struct trans *t, unsigned size, unsigned reg, const struct trans_ref *at)
{
	emit_op(&t->e, &(struct emit_op){ .map = M1,
					  .opcode = 0x8b,
					  .modrm = true,
					  .mem = true,
					  .w = size == 8,
					  .reg = (uint8_t)reg,
					  .rm = at->base,
					  .sib = at->sib,
					  .index = at->index,
					  .scale = at->scale,
					  .disp = at->disp });
}

bool trans_lea(struct trans *t, const struct insn *i)
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
bool trans_div(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool w = i->osize == 8;

	if (i->osize == 2)
		return false;
	if (i->flags & IF_MEM) {
		struct trans_ref at = trans_operand(t, i, i->osize, false, false, false);

		trans_clobber(t, trans_live_before(t, i));
		trans_load(t, i->osize, S0, &at);
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
