/*
 * What kernels do all the time, in generated code: the interrupt flag, AC around accesses to user
 * memory, bases of FS and GS, time stamps, fences, string instructions, bit strings.
 *
 * Theory of operation
 *   The common case of an instruction is emitted; whatever else its body in interp/ looks at (CR4
 *   bits, a request that waits at STI, DF, a page border) is tested, and goes to the slow path,
 *   which is the body. Code of the kernel's contexts runs at CPL 0 only (jit_usable), code of the
 *   user's at CPL 3, so CPL is known when a block is translated.
 *   STI: interrupts are taken where v->requests is looked at, never inside a block. With no request
 *   waiting and another instruction behind it in the block, the shadow needs no state: that
 *   instruction has run before anybody looks again.
 *   STAC and CLAC go on in the block that was translated for the other context, by a link like any
 *   other.
 *   SYSCALL, SYSRET and IRET call a C function that needs few registers (lean.c).
 *
 * Modelled:     64-bit mode. Not modelled: 16-bit operands of stack instructions, REP LODS, CMPS
 *               and SCAS, 32-bit addresses of strings and bit strings; these call out.
 * References:   [SDM2], [SDM3 6.8.3]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/trans.h"
#include "kvm/x86/tsc.h"

#define SYS_SEG(n, field) ((uint32_t)(offsetof(struct vcpu, seg[n]) + offsetof(struct seg, field)))

/* Byte of a flag or control register that holds BIT(bit). */
#define SYS_BYTE(field, bit) (JIT_OFF(field) + (bit) / 8)
#define SYS_MASK(bit)        (1u << (bit) % 8)
enum { SYS_IF = 9, SYS_DF = 10, SYS_TSD = 2, SYS_FSGSBASE = 16, SYS_SMAP = 21, SYS_PKE = 22 };

/* ---- Encodings ------------------------------------------------------------------------------- */

/* Group op /n on gs:[disp], without its immediate. */
static void sys_gs_group(struct emit *e, unsigned op, unsigned n, uint32_t disp)
{
	asm_gs(e, op, false, n, disp);
}

static void sys_test8(struct emit *e, uint32_t disp, unsigned mask)
{
	sys_gs_group(e, 0xf6, 0, disp);
	asm_u8(e, mask);
}

/* Leave to the slow path unless the bit is (set: 1) or is not set. */
static void sys_require(struct trans *t, uint32_t disp, unsigned mask, bool set)
{
	sys_test8(&t->e, disp, mask);
	trans_slow_at(t, asm_jump_fwd(&t->e, set ? CC_E : CC_NE));
}

static void sys_rflags(struct trans *t, unsigned set, unsigned clear)
{
	sys_gs_group(&t->e, 0x81, set ? 1 : 4, JIT_OFF(rflags));
	asm_u32(&t->e, set ? set : ~clear);
}

/* op reg, [S0] of an operand size; op: the form for 16 bits and more, op - 1 that for bytes. */
static void sys_at_s0(struct emit *e, unsigned op, unsigned size, unsigned reg)
{
	emit_op(e, &(struct emit_op){ .map = op & 0xff00 ? M0F : M1,
				      .opcode = (uint8_t)(size == 1 ? op - 1 : op),
				      .modrm = true,
				      .mem = true,
				      .opsize = size == 2,
				      .w = size == 8,
				      .reg = (uint8_t)reg,
				      .rm = S0 });
}

/* ---- Flags ----------------------------------------------------------------------------------- */

static bool sys_last(const struct trans *t, const struct insn *i)
{
	return i == &t->b->insns[t->b->n - 1];
}

static bool sys_sti(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	size_t done;

	/* without an irqchip here, user space waits for the window that opens after the shadow */
	if (sys_last(t, i) || !t->v->vm->irqchip_in_kernel)
		return false;
	trans_clobber(t, t->live);
	sys_test8(e, SYS_BYTE(rflags, SYS_IF), SYS_MASK(SYS_IF));
	done = asm_jump_fwd(e, CC_NE);
	asm_cmp_gs32(e, JIT_OFF(requests), 0);
	trans_slow_at(t, asm_jump_fwd(e, CC_NE));
	sys_rflags(t, RF_IF, 0);
	asm_fix(e, done);
	return true;
}

static bool sys_flag(struct trans *t, unsigned set, unsigned clear)
{
	trans_clobber(t, t->live);
	sys_rflags(t, set, clear);
	return true;
}

/* RFLAGS into S0; v->fl has the arithmetic ones. */
static void sys_get_rflags(struct trans *t)
{
	struct emit *e = &t->e;

	asm_gs(e, 0x0fb6, false, S0, JIT_OFF(fl)); /* OF in bit 0 */
	asm_shift(e, 4, false, S0, 11);
	asm_gs(e, 0x0fb6, false, S1, JIT_OFF(fl) + 1);
	asm_ri(e, 4, false, S1, F_ARITH & 0xff);
	asm_rr(e, 0x0b, false, S0, S1);
	asm_gs(e, 0x8b, false, S1, JIT_OFF(rflags));
	asm_ri(e, 4, false, S1, ~(F_ARITH | RF_VM | RF_RF));
	asm_rr(e, 0x0b, false, S0, S1);
}

static bool sys_pushf(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;

	if (i->osize != 8)
		return false;
	trans_clobber(t, F_ARITH);
	sys_get_rflags(t);
	asm_st(e, S0, JIT_OFF(jit.tmp)); /* over the probe, which needs both scratch registers */
	asm_lea(e, true, S0, H_R9, -1, 0, -8);
	trans_probe(t, 8, true);
	asm_ld(e, S1, JIT_OFF(jit.tmp));
	emit_mov_store(e, 8, S0, 0, S1);
	asm_lea(e, true, H_R9, H_R9, -1, 0, -8);
	return true;
}

/* On in the block of the context that the instruction selects. */
static bool sys_ac(struct trans *t, unsigned ctx)
{
	struct emit *e = &t->e;

	trans_clobber(t, trans_flags_at(t, t->next));
	sys_require(t, SYS_BYTE(cr4, SYS_SMAP), SYS_MASK(SYS_SMAP), true);
	sys_rflags(t, ctx == TLB_KERNEL_AC ? RF_AC : 0, RF_AC);
	asm_const(e, S0, (uintptr_t)t->v->tlbs[ctx]);
	asm_st(e, S0, JIT_OFF(tlb));
	t->ctx = ctx;
	trans_goto(t, t->next, &t->b->link[0]);
	t->ended = true;
	return true;
}

/* ---- Registers of the system ----------------------------------------------------------------- */

static bool sys_swapgs(struct trans *t)
{
	struct emit *e = &t->e;

	asm_ld(e, S0, SYS_SEG(SEG_GS, base));
	asm_ld(e, S1, JIT_OFF(msr.kernel_gs_base));
	asm_st(e, S0, JIT_OFF(msr.kernel_gs_base));
	asm_st(e, S1, SYS_SEG(SEG_GS, base));
	asm_st(e, S1, JIT_OFF(seg_base[SEG_GS]));
	return true;
}

static bool sys_rdbase(struct trans *t, const struct insn *i, unsigned seg)
{
	unsigned r;

	trans_clobber(t, t->live);
	sys_require(t, SYS_BYTE(cr4, SYS_FSGSBASE), SYS_MASK(SYS_FSGSBASE), true);
	r = trans_reg(t, i->rm, S0, false);
	asm_gs(&t->e, 0x8b, i->osize == 8, r, SYS_SEG(seg, base));
	trans_reg_back(t, i->rm, r);
	return true;
}

static bool sys_wrbase(struct trans *t, const struct insn *i, unsigned seg)
{
	struct emit *e = &t->e;
	bool w = i->osize == 8;

	trans_clobber(t, t->live);
	sys_require(t, SYS_BYTE(cr4, SYS_FSGSBASE), SYS_MASK(SYS_FSGSBASE), true);
	asm_rr(e, 0x8b, w, S0, trans_reg(t, i->rm, S0, true));
	if (w) { /* canonical */
		asm_mov(e, S1, S0);
		asm_shift(e, 4, true, S1, 16);
		asm_shift(e, 7, true, S1, 16);
		asm_rr(e, 0x3b, true, S1, S0);
		trans_slow_at(t, asm_jump_fwd(e, CC_NE));
	}
	asm_st(e, S0, SYS_SEG(seg, base));
	asm_st(e, S0, (uint32_t)offsetof(struct vcpu, seg_base) + 8 * seg);
	return true;
}

static bool sys_rdcr(struct trans *t, const struct insn *i)
{
	unsigned r;
	uint32_t at;

	switch (i->reg) {
	case 0: at = JIT_OFF(cr0); break;
	case 2: at = JIT_OFF(cr2); break;
	case 3: at = JIT_OFF(cr3); break;
	case 4: at = JIT_OFF(cr4); break;
	default: return false;
	}
	r = trans_reg(t, i->rm, S0, false);
	asm_ld(&t->e, r, at);
	trans_reg_back(t, i->rm, r);
	return true;
}

static bool sys_rdseg(struct trans *t, const struct insn *i)
{
	unsigned r;

	if (i->reg >= SEG_COUNT)
		return false;
	if (i->flags & IF_MEM) {
		trans_mem(t, i, 2, true, false);
		asm_gs(&t->e, 0x0fb7, false, S1, SYS_SEG(i->reg, sel));
		emit_mov_store(&t->e, 2, S0, 0, S1);
		return true;
	}
	r = trans_reg(t, i->rm, S0, i->osize == 2);
	if (i->osize == 2) {
		asm_u8(&t->e, 0x66); /* mov r16, gs:[sel]: the rest of the register stays */
		asm_gs(&t->e, 0x8b, false, r, SYS_SEG(i->reg, sel));
	} else {
		asm_gs(&t->e, 0x0fb7, false, r, SYS_SEG(i->reg, sel));
	}
	trans_reg_back(t, i->rm, r);
	return true;
}

static bool sys_rdpkru(struct trans *t)
{
	struct emit *e = &t->e;

	trans_clobber(t, t->live);
	sys_require(t, SYS_BYTE(cr4, SYS_PKE), SYS_MASK(SYS_PKE), true);
	asm_rr(e, 0x85, false, H_RCX, H_RCX);
	trans_slow_at(t, asm_jump_fwd(e, CC_NE));
	asm_gs(e, 0x8b, false, H_RAX, JIT_OFF(pkru));
	asm_const(e, H_RDX, 0);
	return true;
}

/* While the guest's counter runs as the host's does, but for an offset. */
static bool sys_rdtsc(struct trans *t, bool aux)
{
	struct emit *e = &t->e;

	if (kvm_scale_tsc(t->v->tsc_khz, 1ull << 40) != 1ull << 40)
		return false;
	trans_clobber(t, t->live);
	if (t->ctx == TLB_USER)
		sys_require(t, SYS_BYTE(cr4, SYS_TSD), SYS_MASK(SYS_TSD), false);
	asm_u8(e, 0x0f); /* rdtsc */
	asm_u8(e, 0x31);
	asm_shift(e, 4, true, H_RDX, 32);
	asm_rr(e, 0x0b, true, H_RAX, H_RDX);
	asm_gs(e, 0x03, true, H_RAX, JIT_OFF(tsc_offset));
	asm_mov(e, H_RDX, H_RAX);
	asm_shift(e, 5, true, H_RDX, 32);
	asm_rr(e, 0x8b, false, H_RAX, H_RAX);
	if (aux)
		asm_gs(e, 0x8b, false, H_RCX, JIT_OFF(msr.tsc_aux));
	return true;
}

static bool sys_bytes(struct trans *t, const char *code, size_t n)
{
	emit_bytes(&t->e, code, n);
	return true;
}

/* ---- Bit strings ----------------------------------------------------------------------------- */

/* BT, BTS, BTR, BTC with the bit's number in a register. */
static bool sys_bit(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool write = i->id != I_BT_EvGv, w = i->osize == 8;
	unsigned log = w ? 6 : 5, r;

	if (!(i->flags & IF_MEM))
		return trans_generic(t, i, true, write, 0);
	if (i->osize == 2 || i->asize != 8)
		return false;
	trans_clobber(t, trans_live_before(t, i));
	trans_ea(t, i);
	/* the element that has the bit: its offset is signed */
	r = trans_reg(t, i->reg, S1, true);
	if (w)
		asm_mov(e, S1, r);
	else
		asm_rr(e, 0x63, true, S1, r);
	asm_shift(e, 7, true, S1, log);
	asm_lea(e, true, S0, S0, S1, log - 3, 0);
	if (i->seg == SEG_FS || i->seg == SEG_GS)
		asm_gs(e, 0x03, true, S0, (uint32_t)offsetof(struct vcpu, seg_base) + 8u * i->seg);
	trans_probe(t, i->osize, write);
	asm_rr(e, 0x8b, false, S1, trans_reg(t, i->reg, S1, true));
	asm_ri(e, 4, false, S1, (int32_t)(8 * i->osize - 1));
	if (t->live & F_Z) { /* bringing the flags that stay takes S1 */
		asm_st(e, S1, JIT_OFF(jit.tmp));
		trans_before_op(t, i);
		asm_ld(e, S1, JIT_OFF(jit.tmp));
	}
	if (i->flags & IF_LOCK)
		asm_u8(e, 0xf0);
	sys_at_s0(e, 0x0f00 | i->opcode, i->osize, S1);
	trans_after_op(t, i);
	return true;
}

/* ---- Strings --------------------------------------------------------------------------------- */

/*
 * S1 = host address of rCX << log bytes at a pointer, all in one page; else the slow path. rCX has
 * been checked to be no more than a page. Uses S0.
 */
static void sys_probe_run(struct trans *t, unsigned pointer, unsigned log, bool write)
{
	struct emit *e = &t->e;
	uint32_t tlb = (uint32_t)(offsetof(struct vcpu, jit.tlb) +
				  (2 * t->ctx + write) * sizeof(((struct jit_env *)0)->tlb[0][0]));

	asm_mov(e, S0, pointer);
	asm_rr(e, 0x8b, false, S1, S0);
	asm_shift(e, 5, false, S1, PAGE_SHIFT - 4);
	asm_ri(e, 4, false, S1, (JIT_TLB_SIZE - 1) << 4);
	asm_gs_base(e, 0x33, true, S0, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, key));
	asm_ri(e, 7, true, S0, PAGE_SIZE - 1);
	trans_slow_at(t, asm_jump_fwd(e, CC_A));
	asm_gs_base(e, 0x8b, true, S1, S1, tlb + (uint32_t)offsetof(struct jit_tlb_entry, host));
	asm_rr(e, 0x03, true, S1, S0);
	asm_lea(e, true, S0, S0, H_RCX, log, 0);
	asm_ri(e, 7, true, S0, PAGE_SIZE);
	trans_slow_at(t, asm_jump_fwd(e, CC_A));
}

static void sys_rep(struct emit *e, const struct insn *i, unsigned size)
{
	asm_u8(e, 0xf3);
	if (size == 2)
		asm_u8(e, 0x66);
	asm_rex(e, size == 8, 0, 0, 0, false);
	asm_u8(e, i->opcode);
}

static void sys_rep_stos(struct trans *t, const struct insn *i, unsigned size, unsigned log)
{
	struct emit *e = &t->e;

	sys_probe_run(t, H_RDI, log, true);
	asm_mov(e, S0, H_RDI);
	asm_mov(e, H_RDI, S1);
	asm_rr(e, 0x2b, true, S0, S1);
	sys_rep(e, i, size);
	asm_lea(e, true, H_RDI, H_RDI, S0, 0, 0);
}

static void sys_rep_movs(struct trans *t, const struct insn *i, unsigned size, unsigned log)
{
	struct emit *e = &t->e;

	sys_probe_run(t, H_RSI, log, false);
	asm_st(e, S1, JIT_OFF(jit.tmp));
	sys_probe_run(t, H_RDI, log, true);
	/* their places in struct vcpu are free while they are in host registers */
	asm_st(e, H_RSI, JIT_OFF_R(REG_RSI));
	asm_st(e, H_RDI, JIT_OFF_R(REG_RDI));
	asm_lea(e, true, S0, -1, H_RCX, log, 0);
	asm_ld(e, H_RSI, JIT_OFF(jit.tmp));
	asm_mov(e, H_RDI, S1);
	sys_rep(e, i, size);
	asm_mov(e, H_RSI, S0);
	asm_mov(e, H_RDI, S0);
	asm_gs(e, 0x03, true, H_RSI, JIT_OFF_R(REG_RSI));
	asm_gs(e, 0x03, true, H_RDI, JIT_OFF_R(REG_RDI));
}

static void sys_next(struct trans *t, unsigned reg, unsigned size)
{
	asm_lea(&t->e, true, reg, (int)reg, -1, 0, (int32_t)size);
}

static bool sys_string(struct trans *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool movs = i->id == I_MOVS_b || i->id == I_MOVS_v;
	bool lods = i->id == I_LODS_b || i->id == I_LODS_v;
	bool bytes = i->id == I_MOVS_b || i->id == I_STOS_b || i->id == I_LODS_b;
	unsigned size = bytes ? 1 : i->osize, log = (unsigned)__builtin_ctz(size);
	bool rep = i->flags & (IF_REP | IF_REPNE);

	if (i->asize != 8 || (rep && lods))
		return false;
	if ((movs || lods) && (i->seg == SEG_FS || i->seg == SEG_GS))
		return false;
	trans_clobber(t, t->live);
	sys_require(t, SYS_BYTE(rflags, SYS_DF), SYS_MASK(SYS_DF), false);
	if (rep) {
		asm_ri(e, 7, true, H_RCX, (int32_t)(PAGE_SIZE >> log));
		trans_slow_at(t, asm_jump_fwd(e, CC_A));
		if (movs)
			sys_rep_movs(t, i, size, log);
		else
			sys_rep_stos(t, i, size, log);
		return true;
	}
	if (movs || lods) {
		asm_mov(e, S0, H_RSI);
		trans_probe(t, size, false);
		if (lods) {
			sys_at_s0(e, 0x8b, size, H_RAX);
			sys_next(t, H_RSI, size);
			return true;
		}
		emit_mov_load(e, size, S1, S0, 0);
		asm_st(e, S1, JIT_OFF(jit.tmp));
	}
	asm_mov(e, S0, H_RDI);
	trans_probe(t, size, true);
	if (movs)
		asm_ld(e, S1, JIT_OFF(jit.tmp));
	emit_mov_store(e, size, S0, 0, movs ? S1 : H_RAX);
	if (movs)
		sys_next(t, H_RSI, size);
	sys_next(t, H_RDI, size);
	return true;
}

/* ---- Changes of level ------------------------------------------------------------------------ */

static bool sys_lean(struct trans *t, enum jit_lean fn)
{
	trans_clobber(t, F_ARITH);
	asm_call(&t->e, t->j->g_lean[fn]);
	asm_u32(&t->e, t->desc);
	t->ended = true;
	return true;
}

bool trans_system(struct trans *t, const struct insn *i)
{
	bool kernel = t->ctx != TLB_USER;

	switch (i->id) {
	case I_CLI: return kernel && sys_flag(t, 0, RF_IF);
	case I_STI: return kernel && sys_sti(t, i);
	case I_CLD: return sys_flag(t, 0, RF_DF);
	case I_STD: return sys_flag(t, RF_DF, 0);
	case I_CLAC: return kernel && sys_ac(t, TLB_KERNEL);
	case I_STAC: return kernel && sys_ac(t, TLB_KERNEL_AC);
	case I_PUSHF: return sys_pushf(t, i);
	case I_SWAPGS: return sys_swapgs(t);
	case I_RDFSBASE_Ry: return sys_rdbase(t, i, SEG_FS);
	case I_RDGSBASE_Ry: return sys_rdbase(t, i, SEG_GS);
	case I_WRFSBASE_Ry: return sys_wrbase(t, i, SEG_FS);
	case I_WRGSBASE_Ry: return sys_wrbase(t, i, SEG_GS);
	case I_MOV_RyCy: return sys_rdcr(t, i);
	case I_MOV_EvSw: return sys_rdseg(t, i);
	case I_RDPKRU: return sys_rdpkru(t);
	case I_RDTSC: return sys_rdtsc(t, false);
	case I_RDTSCP: return sys_rdtsc(t, true);
	case I_LFENCE: return sys_bytes(t, "\x0f\xae\xe8", 3);
	case I_MFENCE: return sys_bytes(t, "\x0f\xae\xf0", 3);
	case I_SFENCE: return sys_bytes(t, "\x0f\xae\xf8", 3);
	case I_PAUSE: return sys_bytes(t, "\xf3\x90", 2);
	case I_BT_EvGv:
	case I_BTS_EvGv:
	case I_BTR_EvGv:
	case I_BTC_EvGv: return sys_bit(t, i);
	case I_MOVS_b:
	case I_MOVS_v:
	case I_STOS_b:
	case I_STOS_v:
	case I_LODS_b:
	case I_LODS_v: return sys_string(t, i);
	case I_SYSCALL: return !kernel && sys_lean(t, JIT_SYSCALL);
	case I_SYSRET: return kernel && sys_lean(t, JIT_SYSRET);
	case I_IRET: return kernel && sys_lean(t, JIT_IRET);
	default: return false;
	}
}
