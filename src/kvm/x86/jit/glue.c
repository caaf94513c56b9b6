/*
 * Code around translated blocks: entering, leaving, calling the interpreter's functions.
 *
 * The glue is generated once a vCPU at the start of its code. Calls from blocks are
 *     call g_exec; .long index of struct jit_desc; ...
 * with the guest's flags in v->fl if they matter. The glue stores all registers, calls C on the
 * vCPU's own stack, and reloads. C may throw: everything the guest has is in struct vcpu by then.
 * Vector registers are stored before any C code runs, which may use them, and loaded again after.
 *
 * References: [SYSV-AMD64 3.2]. Threads: the vCPU's own.
 */
#include "kvm/x86/jit/jit_int.h"

#include "kvm/x86/fpu.h"

enum { XSAVE_XMM = 160, XSAVE_YMMH = 576, XSAVE_MXCSR = 24 };

static const uint8_t glue_regs[] = { H_RAX, H_RCX, H_RDX, H_RBX, H_R9,  H_RBP, H_RSI,
				     H_RDI, H_R8,  H_R12, H_R13, H_R14, H_R15 };

static uint32_t glue_slot(unsigned host)
{
	return JIT_OFF_R(host == H_R9 ? REG_RSP : host);
}

static void glue_store_regs(struct emit *e)
{
	for (unsigned n = 0; n < sizeof(glue_regs); n++)
		asm_st(e, glue_regs[n], glue_slot(glue_regs[n]));
}

static void glue_load_regs(struct emit *e)
{
	for (unsigned n = 0; n < sizeof(glue_regs); n++)
		asm_ld(e, glue_regs[n], glue_slot(glue_regs[n]));
}

/* EFLAGS = v->fl; clobbers rax. */
static void glue_load_flags(struct emit *e)
{
	asm_gs(e, 0x0fb7, false, H_RAX, JIT_OFF(fl));
	emit_flags_from_ax(e);
}

/*
 * ZF: all upper halves of the guest's YMM registers are 0. Overwrites xmm0.
 */
static void glue_test_uppers(struct emit *e, int32_t uppers)
{
	for (unsigned x = 0; x < 16; x++) /* vmovdqa, vpor */
		emit_op(e, &(struct emit_op){ .map = V0F,
					      .pp = P66,
					      .opcode = x ? 0xeb : 0x6f,
					      .modrm = true,
					      .mem = true,
					      .rm = S1,
					      .disp = uppers + 16 * (int)x });
	emit_op(e, &(struct emit_op){
			   .map = V0F38, .pp = P66, .opcode = 0x17, .modrm = true }); /* vptest */
}

/*
 * Vector registers and MXCSR to and from v->xsave; r11 = self. Upper halves that are 0 are left so
 * by VZEROUPPER: once one has been written, each SSE instruction keeps the upper half of what it
 * overwrites, and so waits for whoever wrote that last (SSE loops ran five times slower).
 */
static void glue_vec(struct emit *e, bool store)
{
	int32_t base = (int32_t)offsetof(struct vcpu, xsave);
	size_t used, done;

	asm_ld(e, S1, JIT_OFF(jit.self));
	if (store) {
		for (unsigned x = 0; x < 16; x++) {
			emit_movaps_store(e, S1, base + XSAVE_XMM + 16 * (int)x, x);
			emit_vextractf128(e, S1, base + XSAVE_YMMH + 16 * (int)x, x);
		}
		emit_stmxcsr(e, S1, base + XSAVE_MXCSR);
		emit_vzeroupper(e);
		emit_ldmxcsr(e, S1, (int32_t)JIT_OFF(jit.host_mxcsr));
		return;
	}
	glue_test_uppers(e, base + XSAVE_YMMH);
	used = asm_jump_fwd(e, CC_NE);
	emit_vzeroupper(e);
	for (unsigned x = 0; x < 16; x++)
		emit_movaps_load(e, x, S1, base + XSAVE_XMM + 16 * (int)x);
	done = asm_jump_fwd(e, CC_JMP);
	asm_fix(e, used);
	for (unsigned x = 0; x < 16; x++) {
		emit_movaps_load(e, x, S1, base + XSAVE_XMM + 16 * (int)x);
		emit_vinsertf128(e, x, S1, base + XSAVE_YMMH + 16 * (int)x);
	}
	asm_fix(e, done);
	emit_ldmxcsr(e, S1, base + XSAVE_MXCSR);
}

static void glue_push(struct emit *e, unsigned reg)
{
	asm_rex(e, false, 0, 0, reg, false);
	asm_u8(e, 0x50 | (reg & 7));
}
static void glue_pop(struct emit *e, unsigned reg)
{
	asm_rex(e, false, 0, 0, reg, false);
	asm_u8(e, 0x58 | (reg & 7));
}
static void glue_call_c(struct emit *e, uintptr_t fn)
{
	asm_const(e, H_RAX, fn);
	asm_u8(e, 0xff);
	asm_u8(e, 0xd0);
}
static void glue_leave(struct emit *e)
{
	static const uint8_t pops[] = { H_R15, H_R14, H_R13, H_R12, H_RBX, H_RBP };

	asm_ri(e, 0, true, H_RSP, 8);
	for (unsigned n = 0; n < sizeof(pops); n++)
		glue_pop(e, pops[n]);
	emit_ret(e);
}
/*
 * If x87 or vector registers are live: store them and say that they are not. Uses rax, rcx, rdx,
 * rsi, rdi.
 */
static void glue_vec_out(struct emit *e)
{
	size_t skip;

	jit_x87_out(e);
	asm_cmp_gs8(e, JIT_OFF(jit.vec_live), 0);
	skip = asm_jump_fwd(e, CC_E);
	glue_vec(e, true);
	asm_st_gs8(e, JIT_OFF(jit.vec_live), 0);
	asm_fix(e, skip);
}

enum glue_kind { GLUE_EXEC, GLUE_X87, GLUE_END, GLUE_VEC };

/*
 * A call with a descriptor. After it: rax != 0 leaves; GLUE_END: it is where to go on, 0 leaves,
 * vectors stay out. reload_vec: vectors that were live before are loaded again, else they are
 * always loaded (C has allowed it). GLUE_X87: load x87 state as well.
 */
static uint64_t glue_make_call(struct emit *e, uintptr_t fn, enum glue_kind kind)
{
	bool vec_entry = kind == GLUE_VEC;
	uint64_t at = asm_here(e);
	size_t leave, skip;

	glue_store_regs(e);
	glue_pop(e, H_RBX); /* points to the descriptor's index */
	asm_gs(e, 0x0fb6, false, H_R12, JIT_OFF(jit.vec_live));
	asm_gs(e, 0x89, false, H_R12, JIT_OFF(jit.vec_was));
	glue_vec_out(e);
	asm_ld(e, H_RDI, JIT_OFF(jit.self));
	asm_u8(e, 0x8b); /* mov esi, [rbx] */
	asm_u8(e, 0x33);
	glue_call_c(e, fn);
	asm_rr(e, 0x85, true, H_RAX, H_RAX);
	if (kind == GLUE_END) {
		leave = asm_jump_fwd(e, CC_E);
		asm_st(e, H_RAX, JIT_OFF(jit.tmp));
		glue_load_regs(e);
		asm_gs(e, 0xff, false, 4, JIT_OFF(jit.tmp));
		asm_fix(e, leave);
		glue_leave(e);
		return at;
	}
	leave = asm_jump_fwd(e, CC_NE);
	if (kind == GLUE_X87)
		jit_x87_in(e);
	if (!vec_entry) {
		asm_rr(e, 0x85, false, H_R12, H_R12);
		skip = asm_jump_fwd(e, CC_E);
	} else {
		skip = 0;
	}
	glue_vec(e, false);
	if (vec_entry)
		asm_gs(e, 0x0fb6, false, H_R12, JIT_OFF(jit.vec_level));
	asm_u8(e, 0x65); /* mov gs:[vec_live], r12b */
	asm_u8(e, 0x44);
	asm_u8(e, 0x88);
	asm_u8(e, 0x24);
	asm_u8(e, 0x25);
	asm_u32(e, JIT_OFF(jit.vec_live));
	if (!vec_entry)
		asm_fix(e, skip);
	asm_lea(e, true, S0, H_RBX, -1, 0, 4);
	asm_st(e, S0, JIT_OFF(jit.tmp));
	glue_load_flags(e);
	glue_load_regs(e);
	asm_gs(e, 0xff, false, 4, JIT_OFF(jit.tmp)); /* jmp gs:[tmp] */
	asm_fix(e, leave);
	glue_leave(e);
	return at;
}

/*
 * A call with a descriptor of a function of lean.c: the registers that C keeps stay, and vectors.
 * It returns where to go on; 0: the interpreter's function is called as at the end of a block.
 */
static uint64_t glue_make_lean(struct emit *e, uintptr_t fn, uint64_t g_exec_end)
{
	static const uint8_t lost[] = { H_RAX, H_RCX, H_RDX, H_RSI, H_RDI, H_R8, H_R9 };
	uint64_t at = asm_here(e);
	size_t no;

	for (unsigned n = 0; n < sizeof(lost); n++)
		asm_st(e, lost[n], glue_slot(lost[n]));
	glue_pop(e, S1); /* points to the descriptor's index */
	asm_st(e, S1, JIT_OFF(jit.tmp));
	emit_mov_load(e, 4, H_RSI, S1, 0);
	asm_ld(e, H_RDI, JIT_OFF(jit.self));
	glue_call_c(e, fn);
	asm_rr(e, 0x85, true, H_RAX, H_RAX);
	no = asm_jump_fwd(e, CC_E);
	asm_st(e, H_RAX, JIT_OFF(jit.tmp));
	for (unsigned n = 0; n < sizeof(lost); n++)
		asm_ld(e, lost[n], glue_slot(lost[n]));
	asm_gs(e, 0xff, false, 4, JIT_OFF(jit.tmp));
	asm_fix(e, no);
	asm_ld(e, S1, JIT_OFF(jit.tmp));
	glue_push(e, S1);
	for (unsigned n = 0; n < sizeof(lost); n++)
		asm_ld(e, lost[n], glue_slot(lost[n]));
	asm_jmp(e, g_exec_end);
	return at;
}

/* op reg, gs:[base + field of an entry]. */
#define GLUE_IBTC(field) \
	((uint32_t)(offsetof(struct vcpu, jit.ibtc) + offsetof(struct jit_ibtc_entry, field)))
#define GLUE_CTLB(field) \
	((uint32_t)(offsetof(struct vcpu, jit.ctlb) + offsetof(struct jit_ctlb_entry, field)))

/* S1 = offset of ibtc's entry for the tag in S0. */
static void glue_ibtc_at(struct emit *e)
{
	asm_rr(e, 0x8b, false, S1, S0);
	asm_ri(e, 4, false, S1, JIT_IBTC_SIZE - 1);
	asm_shift(e, 4, false, S1, 5);
}

/* S1 = where rcx's place is, or jump: returns that for asm_fix. */
static size_t glue_find_place(struct emit *e)
{
	asm_mov(e, S1, H_RCX); /* as jit_place does */
	asm_shift(e, 5, true, S1, 14);
	asm_rr(e, 0x33, false, S1, H_RCX);
	asm_ri(e, 4, false, S1, JIT_PLACES - 1);
	asm_shift(e, 4, false, S1, 4);
	asm_gs(e, 0x03, true, S1, JIT_OFF(jit.places));
	emit_op(e, &(struct emit_op){ .map = M1, /* cmp rcx, [S1] */
				      .opcode = 0x3b,
				      .modrm = true,
				      .mem = true,
				      .w = true,
				      .reg = H_RCX,
				      .rm = S1 });
	return asm_jump_fwd(e, CC_NE);
}

/*
 * The linear address ^ token in S0 is not in ibtc; look it up as jit_lookup does. Not known: to the
 * address in S1, with S0 as it was. Places of registers in struct vcpu are free while they are in
 * the host's.
 */
static uint64_t glue_place(struct emit *e, bool user)
{
	uint32_t token = (uint32_t)offsetof(struct vcpu, jit.token) + 8 * TLB_USER;
	uint64_t at = asm_here(e);
	size_t miss[2] = { 0 };

	asm_st(e, S1, JIT_OFF(jit.tmp3));
	asm_st(e, H_RAX, JIT_OFF_R(REG_RAX));
	asm_st(e, H_RCX, JIT_OFF_R(REG_RCX));
	if (user) {
		asm_gs(e, 0x33, true, S0, token);
		asm_rr(e, 0x8b, false, H_RAX, S0);
		asm_shift(e, 5, false, H_RAX, PAGE_SHIFT);
		asm_ri(e, 4, false, H_RAX, JIT_CTLB_SIZE - 1);
		asm_shift(e, 4, false, H_RAX, 5);
		asm_mov(e, H_RCX, S0);
		asm_ri(e, 4, true, H_RCX, -(int32_t)PAGE_SIZE);
		asm_gs(e, 0x33, true, H_RCX, token);
		asm_gs_base(e, 0x3b, true, H_RCX, H_RAX, GLUE_CTLB(tag));
		miss[0] = asm_jump_fwd(e, CC_NE);
		asm_gs_base(e, 0x8b, true, H_RCX, H_RAX, GLUE_CTLB(delta));
		asm_rr(e, 0x03, true, H_RCX, S0);
	} else {
		asm_mov(e, H_RCX, S0);
	}
	miss[1] = glue_find_place(e);
	emit_mov_load(e, 8, S1, S1, offsetof(struct jit_place, code));
	asm_st(e, S1, JIT_OFF(jit.tmp));
	if (user)
		asm_gs(e, 0x33, true, S0, token);
	glue_ibtc_at(e);
	asm_gs_base(e, 0x89, true, S0, S1, GLUE_IBTC(tag));
	if (user) {
		asm_gs_base(e, 0x8b, true, H_RCX, H_RAX, GLUE_CTLB(slide));
		asm_st(e, H_RCX, JIT_OFF(jit.slide));
	} else {
		asm_const(e, H_RCX, 0);
	}
	asm_gs_base(e, 0x89, true, H_RCX, S1, GLUE_IBTC(slide));
	if (user) {
		asm_gs_base(e, 0x8b, false, H_RCX, H_RAX, GLUE_CTLB(link));
		asm_gs(e, 0x89, false, H_RCX, (uint32_t)offsetof(struct vcpu, jit.link[TLB_USER]));
	}
	asm_gs_base(e, 0x89, false, H_RCX, S1, GLUE_IBTC(link));
	asm_ld(e, S0, JIT_OFF(jit.tmp));
	asm_gs_base(e, 0x89, true, S0, S1, GLUE_IBTC(code));
	asm_ld(e, H_RAX, JIT_OFF_R(REG_RAX));
	asm_ld(e, H_RCX, JIT_OFF_R(REG_RCX));
	asm_rr(e, 0xff, false, 4, S0); /* jmp S0 */
	if (user)
		asm_fix(e, miss[0]);
	asm_fix(e, miss[1]);
	if (user)
		asm_gs(e, 0x33, true, S0, token);
	asm_ld(e, H_RAX, JIT_OFF_R(REG_RAX));
	asm_ld(e, H_RCX, JIT_OFF_R(REG_RCX));
	asm_gs(e, 0xff, false, 4, JIT_OFF(jit.tmp3));
	return at;
}

void jit_ibtc_go(struct emit *e, unsigned ctx, int32_t pop)
{
	if (ctx == TLB_USER) {
		asm_gs_base(e, 0x8b, true, S0, S1, GLUE_IBTC(slide));
		asm_st(e, S0, JIT_OFF(jit.slide));
		asm_gs_base(e, 0x8b, false, S0, S1, GLUE_IBTC(link));
		asm_gs(e, 0x89, false, S0, (uint32_t)offsetof(struct vcpu, jit.link[TLB_USER]));
	}
	if (pop)
		asm_lea(e, ctx < JIT_CTXS, H_R9, H_R9, -1, 0, pop);
	asm_gs_base(e, 0xff, false, 4, S1, GLUE_IBTC(code)); /* jmp gs:[S1 + code] */
}

void jit_ibtc_second(const struct jit *j, struct emit *e, unsigned ctx)
{
	if (ctx >= JIT_CTXS) /* 32-bit code */
		return;
	/* lea S1, [rip + 5]: what follows the jump */
	emit_bytes(e, "\x4c\x8d\x1d\x05\x00\x00\x00", 7);
	asm_jmp(e, ctx == TLB_USER ? j->g_place : j->g_place_kernel);
}

/*
 * Go to the linear address in S0; v->fl has the flags. Of user code now and then one leaves, and
 * its link is made anew.
 */
static void glue_ibtc(const struct jit *j, struct emit *e, unsigned ctx)
{
	uint32_t token = (uint32_t)offsetof(struct vcpu, jit.token) + 8 * ctx;
	size_t miss, leave = 0;

	if (ctx == TLB_USER) {
		asm_sub_gs8(e, JIT_OFF(jit.sample), 1);
		leave = asm_jump_fwd(e, CC_S);
	}
	asm_gs(e, 0x33, true, S0, token);
	glue_ibtc_at(e);
	asm_gs_base(e, 0x3b, true, S0, S1, GLUE_IBTC(tag));
	miss = asm_jump_fwd(e, CC_NE);
	jit_ibtc_go(e, ctx, 0);
	asm_fix(e, miss);
	jit_ibtc_second(j, e, ctx);
	asm_gs(e, 0x33, true, S0, token);
	if (leave)
		asm_fix(e, leave);
	asm_st(e, S0, JIT_OFF_R(REG_RIP));
	asm_jmp(e, j->g_exit);
}

/*
 * After a call with the place of a description: S1 = the description, S0 = where the block or link
 * is or leads in this address space. la: offset of that address.
 */
static void glue_described(struct emit *e, size_t la)
{
	glue_pop(e, S1);
	emit_mov_load(e, 4, S1, S1, 0);
	asm_shift(e, 4, true, S1, JIT_PLACE_SHIFT);
	asm_gs(e, 0x03, true, S1, JIT_OFF(jit.meta));
	emit_mov_load(e, 8, S0, S1, (int32_t)la);
	asm_gs(e, 0x03, true, S0, JIT_OFF(jit.slide));
}

/* Called with the place of a block: to C, at its beginning, for a reason JIT_HOT_*. */
static uint64_t glue_hot(const struct jit *j, struct emit *e, unsigned why)
{
	uint64_t at = asm_here(e);

	glue_described(e, offsetof(struct jit_block, la));
	asm_st(e, S0, JIT_OFF_R(REG_RIP));
	asm_st_gs8(e, JIT_OFF(jit.hot), why);
	asm_jmp(e, j->g_exit);
	return at;
}

/* Called with the place of a link: to C, where it leads; it may be made then. */
static uint64_t glue_unlinked(const struct jit *j, struct emit *e)
{
	uint64_t at = asm_here(e);

	glue_described(e, offsetof(struct jit_link, la));
	asm_st(e, S1, JIT_OFF(jit.tmp2));
	asm_st(e, S0, JIT_OFF_R(REG_RIP));
	asm_jmp(e, j->g_exit);
	return at;
}

/* The same: look it up first. */
static uint64_t glue_other(const struct jit *j, struct emit *e, unsigned ctx)
{
	uint64_t at = asm_here(e);

	glue_described(e, offsetof(struct jit_link, la));
	asm_st(e, S1, JIT_OFF(jit.tmp2));
	glue_ibtc(j, e, ctx);
	return at;
}

void jit_glue(struct jit *j, struct emit *e)
{
	const uintptr_t lean[JIT_LEANS] = { (uintptr_t)jit_lean_syscall, (uintptr_t)jit_lean_sysret,
					    (uintptr_t)jit_lean_iret };
	static const uint8_t pushes[] = { H_RBP, H_RBX, H_R12, H_R13, H_R14, H_R15 };

	/* void enter(struct vcpu *v, uint64_t code) */
	j->g_enter = asm_here(e);
	for (unsigned n = 0; n < sizeof(pushes); n++)
		glue_push(e, pushes[n]);
	asm_ri(e, 5, true, H_RSP, 8); /* generated code has rsp % 16 == 0 */
	asm_st(e, H_RSI, JIT_OFF(jit.tmp));
	glue_load_regs(e);
	asm_gs(e, 0xff, false, 4, JIT_OFF(jit.tmp));

	emit_align(e, 16);
	j->g_exit = asm_here(e);
	glue_store_regs(e);
	glue_vec_out(e);
	glue_leave(e);

	emit_align(e, 16);
	j->g_place = glue_place(e, true);
	emit_align(e, 16);
	j->g_place_kernel = glue_place(e, false);
	for (unsigned c = 0; c < JIT_CODE_CTXS; c++) {
		emit_align(e, 16);
		j->g_other[c] = glue_other(j, e, c);
	}
	emit_align(e, 16);
	j->g_unlinked = glue_unlinked(j, e);
	for (unsigned n = 0; n < JIT_HOTS; n++) {
		emit_align(e, 16);
		j->g_hot[n] = glue_hot(j, e, n);
	}

	emit_align(e, 16);
	j->g_exec = glue_make_call(e, (uintptr_t)jit_call_exec, GLUE_EXEC);
	emit_align(e, 16);
	j->g_exec_end = glue_make_call(e, (uintptr_t)jit_call_exec_end, GLUE_END);
	emit_align(e, 16);
	j->g_vec = glue_make_call(e, (uintptr_t)jit_call_vec, GLUE_VEC);
	emit_align(e, 16);
	j->g_exec_x87 = glue_make_call(e, (uintptr_t)jit_call_exec_x87, GLUE_X87);
	emit_align(e, 16);
	j->g_x87 = jit_x87_enter(e, glue_make_call(e, (uintptr_t)jit_call_x87, GLUE_X87));
	for (unsigned n = 0; n < JIT_LEANS; n++) {
		emit_align(e, 16);
		j->g_lean[n] = glue_make_lean(e, lean[n], j->g_exec_end);
	}
}

void jit_enter(struct vcpu *v, uint64_t code)
{
	void (*enter)(struct vcpu *, uint64_t) =
		(void (*)(struct vcpu *, uint64_t))(uintptr_t)v->jitp->g_enter;

	enter(v, code);
}

/* ---- What generated code calls -------------------------------------------------------------- */

/* What the probes of an instruction have missed on, or may miss on next time. */
struct glue_access {
	gva_t la;
	bool write;
};

/* Bit strings: the element that has the bit. */
static gva_t glue_bit_la(const struct vcpu *v, const struct insn *i)
{
	int64_t n = sext(v->r[i->reg], 8 * i->osize);

	return v->seg_base[i->seg] + insn_ea(v, i) +
	       (uint64_t)((n >> (i->osize == 8   ? 6
				 : i->osize == 4 ? 5
						 : 4)) *
			  i->osize);
}

/* The operands in memory of a translated instruction, before it runs. */
static unsigned glue_operands(struct vcpu *v, const struct insn *i, struct glue_access a[2])
{
	unsigned n = 0;

	switch (i->id) {
	case I_PUSH_Ev:
	case I_CALL_Ev:
		if (i->flags & IF_MEM)
			a[n++] = (struct glue_access){ v->seg_base[i->seg] + insn_ea(v, i), false };
		__attribute__((fallthrough));
	case I_PUSHF:
	case I_PUSH_Zv:
	case I_PUSH_Iz:
	case I_PUSH_Ibs:
	case I_CALL_Jz: a[n++] = (struct glue_access){ v->r[REG_RSP] - i->osize, true }; return n;
	case I_POP_Zv:
	case I_RET:
	case I_RET_Iw: a[n++] = (struct glue_access){ v->r[REG_RSP], false }; return n;
	case I_LEAVE: a[n++] = (struct glue_access){ v->r[REG_RBP], false }; return n;
	case I_LODS_b:
	case I_LODS_v: a[n++] = (struct glue_access){ v->r[REG_RSI], false }; return n;
	case I_MOVS_b:
	case I_MOVS_v:
		a[n++] = (struct glue_access){ v->r[REG_RSI], false };
		__attribute__((fallthrough));
	case I_STOS_b:
	case I_STOS_v: a[n++] = (struct glue_access){ v->r[REG_RDI], true }; return n;
	case I_BT_EvGv:
	case I_BTS_EvGv:
	case I_BTR_EvGv:
	case I_BTC_EvGv:
		if (i->flags & IF_MEM)
			a[n++] = (struct glue_access){ glue_bit_la(v, i), i->id != I_BT_EvGv };
		return n;
	default:
		if (i->flags & IF_MEM)
			a[n++] = (struct glue_access){ v->seg_base[i->seg] + insn_ea(v, i),
						       jit_insn_writes(i) };
		return n;
	}
}

void jit_tlb_fill(struct vcpu *v, gva_t la, bool write)
{
	unsigned ctx = jit_data_ctx(v), at;
	const struct tlb_entry *t = mmu_entry(v, la);
	struct jit *j = v->jitp;
	gva_t page = la & PAGE_MASK;

	if (ctx >= JIT_CTXS || (write ? t->wtag : t->rtag) != (page | v->asid))
		return;
	at = (la >> PAGE_SHIFT) & (JIT_TLB_SIZE - 1);
	if (ctx != TLB_KERNEL || !(t->info & TLB_I_GLOBAL) || j->check) {
		if (j->nlog[ctx] < ARRAY_SIZE(j->log[ctx]))
			j->log[ctx][j->nlog[ctx]] = (uint16_t)at;
		if (j->nlog[ctx] <= ARRAY_SIZE(j->log[ctx]))
			j->nlog[ctx]++;
	}
	j->stat.tlb_fills++;
	v->jit.tlb[ctx][write][at] = (struct jit_tlb_entry){ page, page + t->addend };
	/* what may be written may be read, and soon will: POP after PUSH */
	if (write && v->jit.tlb[ctx][JIT_READ][at].key == JIT_TLB_EMPTY &&
	    t->rtag == (page | v->asid))
		v->jit.tlb[ctx][JIT_READ][at] = v->jit.tlb[ctx][write][at];
	if (write)
		j->wgpa[ctx][at] = t->info & PAGE_MASK;
}

static bool glue_exec(struct vcpu *v, uint32_t desc)
{
	static const struct insn sentinel;
	const struct jit_desc *d = &v->jitp->descs[desc];
	const struct insn *i = d->insn;
	struct glue_access a[2];
	unsigned n;

	v->jitp->stat.execs++;
	v->jitp->calls[i->id]++;
	v->cur = i;
	v->block_end = &sentinel;
	v->insn_rip = d->rip + v->jit.slide;
	v->r[REG_RIP] = v->insn_rip + i->len;
	n = glue_operands(v, i, a); /* with rIP as operands see it */
	((exec_fn *)i->exec)(v, i);
	if (!v->long64)
		v->r[REG_RIP] = (uint32_t)v->r[REG_RIP];
	if (v->long64 || v->flat32)
		while (n--)
			jit_tlb_fill(v, v->long64 ? a[n].la : (uint32_t)a[n].la, a[n].write);
	return v->block_end != &sentinel;
}

/* May vector instructions run on the host: all exceptions masked, enabled, no #NM pending. */
static bool glue_vec_allowed(struct vcpu *v, bool avx)
{
	uint32_t mxcsr;

	memcpy(&mxcsr, v->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	v->jit.vec_level = (v->cr4 & CR4_OSXSAVE) && (v->xcr0 & 6) == 6 ? VEC_AVX : VEC_SSE;
	return (mxcsr & 0x1f80) == 0x1f80 && !(v->cr0 & (CR0_EM | CR0_TS)) &&
	       (v->cr4 & CR4_OSFXSR) && (v->jit.vec_level == VEC_AVX || !avx);
}

/* One instruction in the middle of a block. Nonzero: leave, rIP is set. */
uint64_t jit_call_exec(struct vcpu *v, uint32_t desc)
{
	if (glue_exec(v, desc))
		return 1;
	/* LDMXCSR may have unmasked exceptions, which the host must not raise */
	if (!v->jit.vec_was || glue_vec_allowed(v, v->jit.vec_was == VEC_AVX))
		return 0;
	v->jit.interp_once = 1; /* for lockstep: the block ends early */
	return 1;
}

/* The last instruction of a block. Returns where translated code goes on, 0: leave. */
uint64_t jit_call_exec_end(struct vcpu *v, uint32_t desc)
{
	return glue_exec(v, desc) ? 0 : jit_next(v);
}

/* A block with vector instructions. Nonzero: leave, the interpreter takes the block. */
uint64_t jit_call_vec(struct vcpu *v, uint32_t desc)
{
	const struct jit_desc *d = &v->jitp->descs[desc];

	if (glue_vec_allowed(v, insn_info[d->insn->id].attr & A_AVX))
		return 0;
	v->r[REG_RIP] = d->rip + v->jit.slide;
	v->jit.interp_once = 1;
	return 1;
}
