/*
 * Instruction decoder and disassembler: bytes to struct insn, struct insn to text.
 *
 * Modelled:     legacy prefixes, REX, VEX (2 and 3 bytes), all modes; exactly the #UD of hardware
 *               that depend on the bytes alone (LOCK on the wrong opcode, 66/F2/F3/REX before VEX,
 *               reserved encodings, VEX.vvvv/L/W, mode); length over 15 as DECODE_GP.
 * Not modelled: EVEX, XOP, 3DNow!: #UD, as on a processor without them.
 * References:   [SDM2 2], [SDM2D A], [APM3 1.2].
 * Threads:      pure functions.
 */
#pragma once
#include <stddef.h>

#include "x86/insn.h"

enum decode_mode { DECODE_16, DECODE_32, DECODE_64 };

enum decode_result {
	DECODE_OK,
	DECODE_MORE, /* the bytes given end inside the instruction: fetch more (at most 15) */
	DECODE_UD,   /* invalid opcode; insn->len is the number of bytes looked at */
	DECODE_GP,   /* longer than 15 bytes */
};

/*
 * Decode one instruction.
 * bytes, n: the instruction bytes at hand; never reads beyond n, nor beyond 15.
 * real:     real or virtual-8086 mode: C4/C5 are always LES/LDS, A_PROT rows are #UD.
 * Feature and privilege checks are the engine's, at execution. exec and aux are set to NULL.
 */
enum decode_result insn_decode(const uint8_t *bytes, size_t n, enum decode_mode mode, bool real,
			       struct insn *insn);

/*
 * Write AT&T-free, Intel-syntax text such as "add dword ptr [rax+rcx*4+0x10], ebx" to buf.
 * rip: address of the instruction, for branch targets and RIP-relative operands.
 * Returns the length as snprintf does.
 */
int insn_format(const struct insn *insn, enum decode_mode mode, uint64_t rip, char *buf,
		size_t cap);

/*
 * Bytes of the memory operand that insn's ModRM or moffs names, as its row's operand kinds have it;
 * 0 if there is none or its size is not that of an operand (M_, Ms, Ep: LEA, LGDT, FXSAVE).
 */
unsigned insn_memory_size(const struct insn *insn);
