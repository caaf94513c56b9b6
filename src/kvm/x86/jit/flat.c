/*
 * 32-bit code in flat segments: what differs from 64-bit mode.
 *
 * Theory of operation
 *   Code of 32-bit protected mode and of compatibility mode is translated while v->flat32 is set:
 *   CS, SS, DS and ES start at 0 and reach to 4 GiB, so that offsets are linear addresses. Such
 *   code has contexts of its own (jit_code_ctx), and whatever changes the mode or a segment
 *   register ends a block by leaving: so a block never runs in another mode, nor in segments that
 *   are not flat.
 *   The host runs in 64-bit mode. Operations of 32 bits clear the upper half of a register there,
 *   as they do in the interpreter; addresses are computed in 32 bits; t->word is the size of what
 *   the stack holds. FS and GS may have any base: their accesses look at v->seg_fast each time.
 *   Instructions whose encoding means something else in 64-bit mode are rewritten here, or they
 *   call the interpreter.
 *
 * Not modelled: 16-bit addresses, operands in CS, opcode 82.
 * References:   [SDM2 2.2.1] for what REX displaces; [SDM3 3.2.1, 3.4.4], [SDM3 5.3].
 * Threads:      the vCPU's own.
 */
#include "kvm/x86/jit/trans.h"

bool trans_flat_operand(const struct insn *i)
{
	return !(i->flags & IF_MEM) || i->seg != SEG_CS;
}

/* The row's function is changed too: slow paths run what is translated. */
static void flat_row(struct insn *i, enum insn_id id)
{
	i->id = (uint16_t)id;
	i->opcode = insn_info[id].op;
	i->exec = (void (*)(void))insn_exec[id];
}

/* INC and DEC of a register in the opcode: REX prefixes in 64-bit mode. */
static void flat_incdec(struct insn *i, enum insn_id id)
{
	flat_row(i, id);
	i->reg = insn_info[id].ext & 7;
	i->modrm = (uint8_t)(0xc0 | i->reg << 3 | i->rm);
}

/* MOV between the accumulator and an absolute address, which 64-bit mode has with 8 bytes. */
static void flat_moffs(struct insn *i, enum insn_id id)
{
	if (i->asize != 4)
		return;
	flat_row(i, id);
	i->reg = REG_RAX;
	i->modrm = 5; /* disp32 */
	i->disp = (int32_t)i->imm;
	i->imm = 0;
}

void trans_flat_forms(struct insn *insns, unsigned n)
{
	for (struct insn *i = insns; i < insns + n; i++) {
		const struct insn_info *info = &insn_info[i->id];

		if (info->how == HOST) {
			for (unsigned k = 0; k < 5; k++)
				if (info->operand[k] == Ldq || info->operand[k] == Lqq ||
				    info->operand[k] == Lx)
					i->imm &= 0x7f; /* there are eight registers */
			continue;
		}
		if (i->exec != (void (*)(void))insn_exec[i->id])
			continue;
		switch (i->id) {
		case I_INC_Zv: flat_incdec(i, I_INC_Ev); break;
		case I_DEC_Zv: flat_incdec(i, I_DEC_Ev); break;
		case I_MOV_ALOb: flat_moffs(i, I_MOV_GbEb); break;
		case I_MOV_rAXOv: flat_moffs(i, I_MOV_GvEv); break;
		case I_MOV_ObAL: flat_moffs(i, I_MOV_EbGb); break;
		case I_MOV_OvrAX: flat_moffs(i, I_MOV_EvGv); break;
		default: break;
		}
	}
}

void trans_flat_base(struct trans *t, const struct insn *i, unsigned size, bool write)
{
	static const uint8_t test[] = { 0x65, 0xf6, 0x04, 0x25 }; /* test byte gs:[disp32], imm8 */
	struct emit *e = &t->e;

	emit_bytes(e, test, sizeof(test));
	asm_u32(e, JIT_OFF(seg_fast) + i->seg);
	asm_u8(e, write ? SEGF_WRITE : SEGF_READ);
	trans_slow_at(t, asm_jump_fwd(e, CC_E));
	/* the end of the operand is compared with the limit before the base is added */
	asm_ri(e, 7, false, S0, -(int32_t)size);
	trans_slow_at(t, asm_jump_fwd(e, CC_A));
	asm_gs(e, 0x03, false, S0, (uint32_t)offsetof(struct vcpu, seg_base) + 8u * i->seg);
}
