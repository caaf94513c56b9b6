/*
 * x87 and MMX instructions on the host's unit, with the guest's registers in it.
 *
 * Theory of operation
 *   v->jit.x87_live says where the guest's x87 state is: in the host's unit, or in v->xsave. A
 * block that has emitted x87 or MMX instructions looks at it once, at its entry, and loads the
 * state; from there on it stays in the host from block to block, while vectors come and go as they
 * like. It is stored before any C code runs, which so finds an empty stack and the default control
 * word; a call in the middle of a block with x87 instructions loads it again. The host must never
 * raise an exception: the state is only loaded while FCW masks all of them (then none is pending
 * either) and CR0 has neither EM nor TS. Else the interpreter runs the block. FLDCW is emitted for
 * values that mask all; what else can change FCW (FLDENV, FRSTOR, FNINIT, FXRSTOR, ...) calls the
 * interpreter, after which the conditions are looked at again. The host's FIP, FDP and FOP are
 * those of generated code, and AMD's processors do not always store them: the guest's are always in
 * v->xsave. FDP is written at each instruction with a memory operand, after its probe, as a fault
 * must not change it. FIP and FOP are written once for a run of x87 instructions: before a branch,
 * before a call of the interpreter, at the end of the block, and in slow paths. XSAVE stores the
 * x87 part alone in 80 cycles, XRSTOR takes 230 to load it; FXRSTOR 130 together with XMM registers
 * and MXCSR, which are stored for it (16 moves) if they are the guest's. EMMS and FLDCW make a
 * state that C code takes for a fraction of FNINIT's 65 cycles; TOP and the exception flags stay,
 * which nobody looks at.
 *
 * Modelled:   all HOST rows of x87 and MMX; FWAIT, FNCLEX, FNSTCW, FNSTSW.
 * References: [SDM1 8.1, 9.5, 13.7, 13.8], [SDM2A FXRSTOR FLDCW], [SYSV-AMD64 3.2.3].
 * Threads:    the vCPU's own.
 */
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/thunk.h"
#include "kvm/x86/jit/trans.h"

enum { OFF_XSAVE = offsetof(struct vcpu, xsave) };

/* ---- State in and out ----------------------------------------------------------------------- */

/* mov byte gs:[x87_live], live */
static void x87_set_live(struct emit *e, bool live)
{
	static const uint8_t op[] = { 0x65, 0xc6, 0x04, 0x25 };

	emit_bytes(e, op, sizeof(op));
	asm_u32(e, JIT_OFF(jit.x87_live));
	asm_u8(e, live);
}

void jit_x87_out(struct emit *e)
{
	size_t skip;

	asm_cmp_gs8(e, JIT_OFF(jit.x87_live), 0);
	skip = asm_jump_fwd(e, CC_E);
	asm_ld(e, S1, JIT_OFF(jit.self));
	/* what XSAVE knows are addresses of generated code */
	asm_ld(e, H_RSI, OFF_XSAVE + FX_FIP);
	asm_ld(e, H_RDI, OFF_XSAVE + FX_FDP);
	asm_gs(e, 0x0fb7, false, H_RCX, OFF_XSAVE + FX_FOP);
	asm_const(e, H_RAX, XSTATE_X87);
	asm_const(e, H_RDX, 0);
	emit_xsave64(e, S1, OFF_XSAVE);
	asm_st(e, H_RSI, OFF_XSAVE + FX_FIP);
	asm_st(e, H_RDI, OFF_XSAVE + FX_FDP);
	emit_mov_store(e, 2, S1, OFF_XSAVE + FX_FOP, H_RCX);
	asm_st(e, H_RDX, OFF_XSAVE + XS_XSTATE_BV);
	emit_bytes(e, "\x0f\x77", 2);                     /* emms */
	asm_gs(e, 0xd9, false, 5, JIT_OFF(jit.host_fcw)); /* fldcw */
	x87_set_live(e, false);
	asm_fix(e, skip);
}

void jit_x87_in(struct emit *e)
{
	size_t dead, end;

	asm_ld(e, S1, JIT_OFF(jit.self));
	asm_cmp_gs8(e, JIT_OFF(jit.vec_live), 0);
	dead = asm_jump_fwd(e, CC_E);
	for (unsigned x = 0; x < 16; x++)
		emit_movaps_store(e, S1, OFF_XSAVE + FX_XMM + 16 * (int)x, x);
	emit_stmxcsr(e, S1, OFF_XSAVE + FX_MXCSR);
	emit_fxrstor64(e, S1, OFF_XSAVE);
	end = asm_jump_fwd(e, CC_JMP);
	asm_fix(e, dead);
	emit_fxrstor64(e, S1, OFF_XSAVE);
	emit_ldmxcsr(e, S1, (int32_t)JIT_OFF(jit.host_mxcsr));
	asm_fix(e, end);
	x87_set_live(e, true);
}

uint64_t jit_x87_enter(struct emit *e, uint64_t slow)
{
	static const uint8_t test_gs[] = { 0x65, 0xf7, 0x04, 0x25 };
	uint64_t at;

	emit_align(e, 16);
	at = asm_here(e);
	emit_bytes(e, test_gs, sizeof(test_gs)); /* test dword gs:[cr0], EM | TS */
	asm_u32(e, JIT_OFF(cr0));
	asm_u32(e, CR0_EM | CR0_TS);
	asm_jcc(e, CC_NE, slow);
	asm_gs(e, 0x0fb7, false, S1, OFF_XSAVE + FX_FCW);
	asm_rr(e, 0xf7, false, 2, S1);    /* not */
	asm_ri(e, 4, false, S1, FSW_EXC); /* and */
	asm_jcc(e, CC_NE, slow);
	jit_x87_in(e);
	asm_rex(e, false, 0, 0, S1, false); /* pop: points to the descriptor's index */
	asm_u8(e, 0x58 | (S1 & 7));
	asm_lea(e, true, S1, S1, -1, 0, 4);
	asm_rr(e, 0xff, false, 4, S1); /* jmp */
	return at;
}

/* The same conditions after C code has run. */
static bool x87_allowed(const struct vcpu *v)
{
	return !(v->cr0 & (CR0_EM | CR0_TS)) && (fpu_word(v, FX_FCW) & FSW_EXC) == FSW_EXC;
}

uint64_t jit_call_exec_x87(struct vcpu *v, uint32_t desc)
{
	if (jit_call_exec(v, desc))
		return 1;
	if (x87_allowed(v))
		return 0;
	v->jit.interp_once = 1; /* lockstep too must know why the block has ended here */
	return 1;
}

/* The entry of a block that the host must not run now. */
uint64_t jit_call_x87(struct vcpu *v, uint32_t desc)
{
	v->r[REG_RIP] = v->jitp->descs[desc].rip + v->jit.slide;
	v->jit.interp_once = 1;
	return 1;
}

/* ---- Instructions --------------------------------------------------------------------------- */

bool jit_x87_writes(const struct insn *i)
{
	struct host_thunk h;

	host_thunk_describe(i, DECODE_64, &h);
	return h.flags & HT_STORE;
}

bool trans_x87_vec(const struct insn *i)
{
	return insn_info[i->id].attr & A_SSE;
}

void trans_x87_pointers(struct trans *t, uint32_t last)
{
	static const uint8_t mov_gs16[] = { 0x65, 0x66, 0xc7, 0x04, 0x25 };
	const struct jit_desc *d = &t->j->descs[last - 1];
	unsigned fop = (d->insn->opcode & 7u) << 8 | d->insn->modrm;

	trans_la(t, S1, d->rip);
	asm_st(&t->e, S1, OFF_XSAVE + FX_FIP);
	emit_bytes(&t->e, mov_gs16, sizeof(mov_gs16));
	asm_u32(&t->e, OFF_XSAVE + FX_FOP);
	asm_u8(&t->e, fop);
	asm_u8(&t->e, fop >> 8);
}

void trans_x87_settle(struct trans *t)
{
	if (t->x87_last)
		trans_x87_pointers(t, t->x87_last);
	t->x87_last = 0;
}

/* Registers of the address that are in memory: at most one, as only S1 is free for it. */
static bool x87_ea_fits(const struct insn *i)
{
	return i->base >= REG_RIP || i->index >= REG_RIP || i->base == i->index ||
	       jit_host_reg(i->base) >= 0 || jit_host_reg(i->index) >= 0;
}

/* FDP = offset of the operand; S0 holds its host address already. Flags stay. */
static void x87_data_pointer(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	uint64_t at = (uint64_t)(int64_t)i->disp + (i->base == REG_RIP ? t->next : 0);
	int base = -1, index = -1;

	if (i->base >= REG_RIP && i->index == REG_ZERO) {
		if (i->base == REG_RIP)
			trans_la(t, S1, at);
		else
			asm_const(e, S1, at);
		if (i->asize != 8)
			asm_rr(e, 0x8b, false, S1, S1);
	} else {
		if (i->base != REG_ZERO)
			base = (int)trans_reg(t, i->base, S1, true);
		if (i->index != REG_ZERO)
			index = (int)trans_reg(t, i->index, S1, i->index != i->base);
		asm_lea(e, i->asize == 8, S1, base, index, i->scale, i->disp);
	}
	asm_st(e, S1, OFF_XSAVE + FX_FDP);
}

/* A value from memory that another processor may change: the one that is tested is loaded. */
static void x87_fldcw(struct trans *t)
{
	struct emit *e = &t->e;

	emit_mov_load(e, 2, S1, S0, 0);
	asm_st(e, S1, JIT_OFF(jit.tmp));
	asm_rr(e, 0xf7, false, 2, S1);
	asm_ri(e, 4, false, S1, FSW_EXC);
	trans_slow_at(t, asm_jump_fwd(e, CC_NE));
	asm_gs(e, 0xd9, false, 5, JIT_OFF(jit.tmp));
}

static void x87_mmx(struct trans *t, const struct insn *i)
{
	const struct insn_info *info = &insn_info[i->id];
	bool mem = i->flags & IF_MEM;
	struct emit_op x = { .map = info->map,
			     .pp = info->pp <= PF2 ? info->pp : NP,
			     .opcode = i->opcode,
			     .modrm = info->operand[0] != O_NONE, /* EMMS has none */
			     .reg = i->modrm >> 3 & 7,
			     .rm = i->modrm & 7,
			     .mem = mem,
			     .w = i->flags & IF_W,
			     .imm_len = (uint8_t)trans_imm_bytes(info, i),
			     .imm = (uint32_t)i->imm };
	bool g = false, rm = false;

	if (!x.modrm)
		x.rm = 0;
	for (unsigned k = 0; k < 5; k++) {
		unsigned o = info->operand[k];

		switch (trans_class(o)) {
		case OPC_REG:
			g = true;
			x.reg = (uint8_t)trans_reg(t, i->reg, S1, true);
			break;
		case OPC_RM:
			if (mem)
				break;
			rm = true;
			x.rm = (uint8_t)trans_reg(t, i->rm, S1, true);
			break;
		case OPC_VEC:
			if (o <= Vx)
				x.reg = i->reg;
			else if (!mem)
				x.rm = i->rm;
			break;
		default: break;
		}
	}
	if (mem)
		x.rm = S0;
	emit_op(&t->e, &x);
	if (g)
		trans_reg_back(t, i->reg, x.reg);
	if (rm)
		trans_reg_back(t, i->rm, x.rm);
}

bool trans_x87(struct trans *t, const struct insn *i)
{
	struct host_thunk h;

	if (i->id == I_FWAIT) /* nothing is pending */
		return true;
	host_thunk_describe(i, DECODE_64, &h);
	if (h.flags & HT_MEM) {
		if (!x87_ea_fits(i))
			return false;
		trans_mem(t, i, h.msize, h.flags & HT_STORE, h.flags & HT_ALIGN);
		if (h.flags & HT_X87)
			x87_data_pointer(t, i);
	}
	trans_before_op(t, i);
	if (i->id == I_FLDCW_Mw)
		x87_fldcw(t);
	else if (!(insn_info[i->id].attr & A_X87))
		x87_mmx(t, i);
	else
		emit_op(&t->e, &(struct emit_op){ .map = M1,
						  .opcode = i->opcode,
						  .modrm = true,
						  .reg = i->modrm >> 3 & 7,
						  .rm = h.flags & HT_MEM ? S0 : i->modrm & 7,
						  .mem = h.flags & HT_MEM });
	trans_after_op(t, i);
	if (h.flags & HT_X87)
		t->x87_last = t->desc + 1;
	return true;
}
