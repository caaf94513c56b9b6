/*
 * Making the code of a host thunk from a decoded instruction.
 *
 * Three forms, by what the row's operands and attributes say:
 *  - general: GPR operands live in rax (ModRM.reg), rcx (ModRM.rm) and r8 (VEX.vvvv), vector
 *    operands in the register of their own number;
 *  - the same between LDMXCSR of the guest's and of the host's MXCSR (A_MXCSR), host's in the red
 *    zone at [rsp - 8];
 *  - FX: x87 and MMX, between FXRSTOR64 and FXSAVE64 of the guest's legacy area.
 * The destination is loaded as well: many forms merge into it or leave it unchanged, and one more
 * load costs less than a column that tells them apart.
 *
 * Thunk contract: rdi is struct vcpu, rsi the memory operand; changes only caller-saved registers;
 * rdi and rsp hold still, for the fault stub.
 *
 * References: [SDM2D A.2] operand letters, [SDM1 8.3.5, 11.6].
 * Threads:    pure.
 */
#include <stddef.h>
#include <string.h>

#include "base/bug.h"
#include "kvm/x86/fpu.h"
#include "kvm/x86/interp/thunk.h"
#include "kvm/x86/vcpu.h"

enum operand_class {
	OC_NONE,
	OC_GPR_REG,
	OC_GPR_RM,
	OC_GPR_VVVV, /* G, E and R, B */
	OC_MEM,
	OC_VEC_REG,
	OC_VEC_RM,
	OC_VEC_VVVV,
	OC_VEC_IMM,
	OC_VEC_0,
	OC_MMX_REG,
	OC_MMX_RM,
	OC_IMM,
	OC_IMM2,
	OC_X87,
};
/* Sizes that depend on the instruction. */
enum { SZ_V = 100, SZ_Y, SZ_X };

struct operand_kind {
	uint8_t class, size; /* size of the memory form in bytes, or SZ_* */
};

/* Memory sizes of register-only letters are 0. qq also says that the form is 256 bits wide. */
static const struct operand_kind thunk_kind[O_COUNT] = {
	[Eb] = { OC_GPR_RM, 1 },    [Ew] = { OC_GPR_RM, 2 },     [Ed] = { OC_GPR_RM, 4 },
	[Eq] = { OC_GPR_RM, 8 },    [Ev] = { OC_GPR_RM, SZ_V },  [Ey] = { OC_GPR_RM, SZ_Y },
	[Mb] = { OC_MEM, 1 },       [Mw] = { OC_MEM, 2 },        [Md] = { OC_MEM, 4 },
	[Mq] = { OC_MEM, 8 },       [Mv] = { OC_MEM, SZ_V },     [My] = { OC_MEM, SZ_Y },
	[Mdq] = { OC_MEM, 16 },     [Mqq] = { OC_MEM, 32 },      [Mx] = { OC_MEM, SZ_X },
	[Mt] = { OC_MEM, 10 },      [Rw] = { OC_GPR_RM },        [Rd] = { OC_GPR_RM },
	[Rq] = { OC_GPR_RM },       [Ry] = { OC_GPR_RM },        [Rv] = { OC_GPR_RM },
	[RdMb] = { OC_GPR_RM, 1 },  [RdMw] = { OC_GPR_RM, 2 },   [RvMw] = { OC_GPR_RM, 2 },
	[Gb] = { OC_GPR_REG },      [Gw] = { OC_GPR_REG },       [Gd] = { OC_GPR_REG },
	[Gq] = { OC_GPR_REG },      [Gv] = { OC_GPR_REG },       [Gz] = { OC_GPR_REG },
	[Gy] = { OC_GPR_REG },      [Bd] = { OC_GPR_VVVV },      [Bq] = { OC_GPR_VVVV },
	[By] = { OC_GPR_VVVV },     [Ib] = { OC_IMM },           [Ib2] = { OC_IMM2 },
	[Pd] = { OC_MMX_REG },      [Pq] = { OC_MMX_REG },       [Qd] = { OC_MMX_RM, 4 },
	[Qq] = { OC_MMX_RM, 8 },    [Nq] = { OC_MMX_RM },        [Vd] = { OC_VEC_REG },
	[Vq] = { OC_VEC_REG },      [Vdq] = { OC_VEC_REG },      [Vqq] = { OC_VEC_REG, 32 },
	[Vx] = { OC_VEC_REG },      [Hd] = { OC_VEC_VVVV },      [Hq] = { OC_VEC_VVVV },
	[Hdq] = { OC_VEC_VVVV },    [Hqq] = { OC_VEC_VVVV, 32 }, [Hx] = { OC_VEC_VVVV },
	[Wb] = { OC_VEC_RM, 1 },    [Ww] = { OC_VEC_RM, 2 },     [Wd] = { OC_VEC_RM, 4 },
	[Wq] = { OC_VEC_RM, 8 },    [Wdq] = { OC_VEC_RM, 16 },   [Wqq] = { OC_VEC_RM, 32 },
	[Wx] = { OC_VEC_RM, SZ_X }, [Ud] = { OC_VEC_RM },        [Uq] = { OC_VEC_RM },
	[Udq] = { OC_VEC_RM },      [Ux] = { OC_VEC_RM },        [Ldq] = { OC_VEC_IMM },
	[Lqq] = { OC_VEC_IMM, 32 }, [Lx] = { OC_VEC_IMM },       [XMM0] = { OC_VEC_0 },
	[ST0] = { OC_X87 },         [STi] = { OC_X87 },
};

/* Scratch registers for the operands, and their number in struct vcpu. */
enum { TH_REG = REG_RAX, TH_RM = REG_RCX, TH_VVVV = REG_R8 };
enum {
	OFF_R = offsetof(struct vcpu, r),
	OFF_FL = offsetof(struct vcpu, fl),
	OFF_FX = offsetof(struct vcpu, xsave),
	OFF_MXCSR = OFF_FX + 24,
	OFF_XMM = OFF_FX + 160,
	OFF_YMMH = OFF_FX + 576, /* the offset of AVX state on every processor that has it */
	OFF_HOST_MXCSR = -8,
};

/* What one thunk does, worked out from the row. */
struct thunk_plan {
	struct emit_op op;
	bool vex, wide, fx, mxcsr, flags;
	bool gpr[3]; /* TH_REG, TH_RM, TH_VVVV in use */
	bool gpr_out[3];
	bool byte_rm;            /* TH_RM is a byte register operand */
	bool impl_rax, impl_rdx; /* read without being operands */
	bool out_rcx;            /* ECX is written without being an operand */
	uint8_t nvec, vec[6];    /* vector registers loaded */
	int vec_out;             /* vector register written, -1: none */
};

static bool thunk_is_x87_store(const char *mnem)
{
	return !strncmp(mnem, "fst", 3) || !strncmp(mnem, "fist", 4) ||
	       !strncmp(mnem, "fbstp", 5) || !strncmp(mnem, "fnst", 4);
}

/* x87 instructions that leave the last instruction's pointers alone ([SDM1 8.1.8]). */
static bool thunk_is_x87_control(const char *mnem)
{
	static const char *const names[] = {
		"fninit", "fnclex", "fldcw", "fnstcw", "fnstsw", "fnstenv", "fldenv",
		"fnsave", "frstor", "fwait", "fneni",  "fndisi", "fnsetpm",
	};

	for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
		if (!strcmp(mnem, names[n]))
			return true;
	return false;
}

static void thunk_plan_vec(struct thunk_plan *p, unsigned x, bool dest)
{
	for (unsigned n = 0; n < p->nvec; n++)
		if (p->vec[n] == x)
			goto known;
	p->vec[p->nvec++] = (uint8_t)x;
known:
	if (dest)
		p->vec_out = (int)x;
}

/* Registers that are not in the operand columns. */
static void thunk_plan_implied(struct thunk_plan *p, const struct insn_info *row)
{
	bool str = (row->map == M0F3A || row->map == V0F3A) && row->pp == P66 && row->op >= 0x60 &&
		   row->op <= 0x63;

	if (row->map == V0F38 && row->op == 0xf6) { /* MULX: rdx * E into G:B */
		p->impl_rdx = true;
		p->gpr_out[2] = true;
	} else if (str) { /* PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI */
		if (row->op <= 0x61)
			p->impl_rax = p->impl_rdx = true;
		if (row->op & 1)
			p->out_rcx = true;
		else
			thunk_plan_vec(p, 0, true);
	}
}

static unsigned thunk_msize(const struct insn *i, unsigned size)
{
	switch (size) {
	case SZ_V: return i->osize;
	case SZ_Y: return i->flags & IF_W ? 8 : 4;
	case SZ_X: return insn_info[i->id].map >= V0F && i->flags & IF_L ? 32 : 16;
	default: return size;
	}
}

static uint8_t thunk_imm(const struct insn *i, const struct insn_info *row, enum decode_mode mode)
{
	bool reg = false;

	for (unsigned n = 0; n < 5; n++)
		reg |= thunk_kind[row->operand[n]].class == OC_VEC_IMM;
	/* Outside 64-bit mode the top bit of a register in the immediate is ignored. */
	return (uint8_t)(reg && mode != DECODE_64 ? i->imm & 0x7f : i->imm);
}

static void thunk_plan_make(struct thunk_plan *p, struct host_thunk *t, const struct insn *i,
			    enum decode_mode mode)
{
	const struct insn_info *row = &insn_info[i->id];
	bool vsize = false;

	*p = (struct thunk_plan){ .vec_out = -1 };
	p->vex = row->map >= V0F;
	p->wide = p->vex && i->flags & IF_L;
	p->flags = row->reads | row->writes;
	p->mxcsr = row->attr & A_MXCSR;
	p->fx = row->attr & (A_X87 | A_MMX);
	p->op = (struct emit_op){
		.map = row->map,
		.pp = row->pp <= PF2 ? row->pp : NP,
		.opcode = i->opcode,
		.reg = i->modrm >> 3 & 7,
		.rm = i->modrm & 7,
		/* EMMS is the one without */
		.modrm = row->ext != X_ANY || row->operand[0] != O_NONE,
		.mem = i->flags & IF_MEM,
		.w = i->flags & IF_W,
		.l = i->flags & IF_L,
	};
	t->flags = 0;
	t->msize = 0;

	for (unsigned n = 0; n < 5 && row->operand[n] != O_NONE; n++) {
		unsigned o = row->operand[n], x = 0;
		const struct operand_kind *k = &thunk_kind[o];
		bool dest = n == 0, mem = false;

		vsize |= o == Ev || o == Gv || o == Mv || o == Rv || o == RvMw;
		if (k->size == 32 && p->vex)
			p->wide = true;
		switch (k->class) {
		case OC_GPR_REG:
			p->gpr[0] = true;
			p->gpr_out[0] |= dest;
			p->op.reg = TH_REG;
			break;
		case OC_GPR_VVVV:
			p->gpr[2] = true;
			p->gpr_out[2] |= dest;
			p->op.vvvv = TH_VVVV;
			break;
		case OC_GPR_RM:
			mem = i->flags & IF_MEM;
			if (!mem) {
				p->gpr[1] = true;
				p->gpr_out[1] |= dest;
				p->byte_rm = o == Eb;
				p->op.rm = TH_RM;
			}
			break;
		case OC_VEC_REG: x = p->op.reg = i->reg; break;
		case OC_VEC_VVVV: x = p->op.vvvv = i->vvvv; break;
		case OC_VEC_RM:
			mem = i->flags & IF_MEM;
			if (!mem)
				x = p->op.rm = i->rm;
			break;
		case OC_VEC_IMM: x = thunk_imm(i, row, mode) >> 4; break;
		case OC_MEM: mem = i->flags & IF_MEM; break;
		case OC_MMX_RM:
			mem = i->flags & IF_MEM;
			p->fx = true;
			break;
		case OC_MMX_REG: p->fx = true; break;
		case OC_IMM2:
			p->op.imm |= (uint32_t)(i->imm2 & 0xff) << 8;
			p->op.imm_len++;
			break;
		default: break;
		}
		if (k->class >= OC_VEC_REG && k->class <= OC_VEC_0 && !mem)
			thunk_plan_vec(p, x, dest && !row->writes);
		if (k->class == OC_IMM || k->class == OC_VEC_IMM) {
			p->op.imm |= thunk_imm(i, row, mode);
			p->op.imm_len += 1;
		}
		if (mem) {
			bool x87 = row->attr & A_X87;

			t->flags |= HT_MEM;
			t->msize = (uint8_t)thunk_msize(i, k->size);
			if (x87 ? thunk_is_x87_store(row->mnem) : dest && !row->writes)
				t->flags |= HT_STORE;
			if (x87 && t->flags & HT_STORE && row->attr & A_X87W)
				t->flags |= HT_WAIT;
		}
	}
	thunk_plan_implied(p, row);
	if (p->op.mem)
		p->op.rm = REG_RSI;
	/* The code runs in 64-bit mode, whatever mode it comes from. */
	p->op.opsize = vsize && i->osize == 2;
	if (p->fx)
		t->flags |= HT_FX;
	if (p->fx || p->mxcsr)
		t->flags |= HT_GUARD;
	if (row->attr & A_X87 && !thunk_is_x87_control(row->mnem))
		t->flags |= HT_X87;
	if (row->attr & A_ALIGN)
		t->flags |= HT_ALIGN;
}

static void thunk_load(struct emit *e, const struct thunk_plan *p, const struct insn *i)
{
	if (p->fx)
		emit_fxrstor64(e, REG_RDI, OFF_FX);
	for (unsigned n = 0; n < p->nvec && !p->fx; n++) {
		unsigned x = p->vec[n];

		if (!p->vex) {
			emit_movaps_load(e, x, REG_RDI, OFF_XMM + 16 * (int)x);
			continue;
		}
		emit_vmovaps_load(e, x, REG_RDI, OFF_XMM + 16 * (int)x);
		if (p->wide)
			emit_vinsertf128(e, x, REG_RDI, OFF_YMMH + 16 * (int)x);
	}
	if (p->mxcsr && !p->fx)
		emit_ldmxcsr(e, REG_RDI, OFF_MXCSR);
	if (p->flags) { /* before rax gets its operand; MOV leaves flags alone */
		emit_mov_load(e, 2, REG_RAX, REG_RDI, OFF_FL);
		emit_flags_from_ax(e);
	}
	if (p->gpr[0])
		emit_mov_load(e, 8, TH_REG, REG_RDI, OFF_R + 8 * i->reg);
	if (p->gpr[1] && p->byte_rm)
		emit_mov_load(e, 1, TH_RM, REG_RDI, OFF_R + (int)insn_reg8(i, i->rm));
	else if (p->gpr[1])
		emit_mov_load(e, 8, TH_RM, REG_RDI, OFF_R + 8 * i->rm);
	if (p->gpr[2])
		emit_mov_load(e, 8, TH_VVVV, REG_RDI, OFF_R + 8 * i->vvvv);
	if (p->impl_rax)
		emit_mov_load(e, 8, REG_RAX, REG_RDI, OFF_R + 8 * REG_RAX);
	if (p->impl_rdx)
		emit_mov_load(e, 8, REG_RDX, REG_RDI, OFF_R + 8 * REG_RDX);
}

static void thunk_store(struct emit *e, const struct thunk_plan *p, const struct insn *i)
{
	/* MULX with one register as both destinations: ModRM.reg, the high half, wins. */
	if (p->gpr_out[2])
		emit_mov_store(e, 8, REG_RDI, OFF_R + 8 * i->vvvv, TH_VVVV);
	if (p->gpr_out[1])
		emit_mov_store(e, 8, REG_RDI, OFF_R + 8 * i->rm, TH_RM);
	if (p->gpr_out[0])
		emit_mov_store(e, 8, REG_RDI, OFF_R + 8 * i->reg, TH_REG);
	if (p->out_rcx)
		emit_mov_store(e, 8, REG_RDI, OFF_R + 8 * REG_RCX, REG_RCX);
	if (p->flags) {
		emit_flags_to_ax(e);
		emit_mov_store(e, 2, REG_RDI, OFF_FL, REG_RAX);
	}
	if (p->vec_out >= 0 && !p->fx) {
		int x = p->vec_out;

		if (p->vex) {
			emit_vmovaps_store(e, REG_RDI, OFF_XMM + 16 * x, (unsigned)x);
			emit_vextractf128(e, REG_RDI, OFF_YMMH + 16 * x, (unsigned)x);
		} else {
			emit_movaps_store(e, REG_RDI, OFF_XMM + 16 * x, (unsigned)x);
		}
	}
	if (p->mxcsr && !p->fx)
		emit_stmxcsr(e, REG_RDI, OFF_MXCSR);
	if (p->fx) {
		emit_fxsave64(e, REG_RDI, OFF_FX);
		emit_fninit(e); /* what C code and its libraries expect */
	}
}

static void thunk_plan_checks(struct host_thunk *t, uint32_t attr)
{
	t->cr0_clear = attr & (A_SSE | A_MMX | A_X87) ? CR0_EM | CR0_TS : 0;
	t->cr4_set = attr & A_SSE ? CR4_OSFXSR : 0;
	t->xcr0_set = 0;
	if (attr & A_AVX) {
		t->cr0_clear = CR0_TS;
		t->cr4_set = CR4_OSXSAVE;
		t->xcr0_set = XSTATE_SSE | XSTATE_AVX;
	}
}

void host_thunk_generate(const struct insn *i, enum decode_mode mode, struct host_thunk *t,
			 struct emit *e)
{
	struct thunk_plan p;

	thunk_plan_make(&p, t, i, mode);
	thunk_plan_checks(t, insn_info[i->id].attr);
	if (!e)
		return;
	if (t->flags & HT_GUARD)
		emit_stmxcsr(e, REG_RSP, OFF_HOST_MXCSR);
	thunk_load(e, &p, i);
	emit_op(e, &p.op);
	thunk_store(e, &p, i);
	if (t->flags & HT_GUARD)
		emit_ldmxcsr(e, REG_RSP, OFF_HOST_MXCSR);
	if (p.vex && p.nvec)
		emit_vzeroupper(e);
	emit_xor_self(e, REG_RAX);
	emit_ret(e);
}

void host_thunk_generate_stub(struct emit *e, bool avx)
{
	/* Only HT_GUARD thunks fault. MXCSR has the flags of the exception; nothing else changed.
	 */
	emit_stmxcsr(e, REG_RDI, OFF_MXCSR);
	emit_ldmxcsr(e, REG_RSP, OFF_HOST_MXCSR);
	emit_fninit(e);
	if (avx)
		emit_vzeroupper(e);
	emit_ret(e);
}
