/*
 * Which rows of x86/insn.def have an emitter, and of what kind. All others call the interpreter.
 *
 * Threads: constant tables.
 */
#pragma once
#include <stdint.h>

#include "x86/insn.h"

enum jit_kind {
	JK_CALL, /* the interpreter's function */
	JK_NOP,
	JK_RMW_E, /* reads and writes its r/m operand */
	JK_RD_E,  /* reads r/m, writes no operand or implied registers */
	JK_RD_GE, /* reads r/m, writes ModRM.reg */
	JK_WR_E,  /* writes r/m */
	JK_DIV,   /* DIV, IDIV: the common cases */
	JK_REG,   /* registers and immediates only, no ModRM */
	JK_ZREG,  /* the same, with a register in the opcode */
	JK_LEA,
	JK_PUSH_R,
	JK_PUSH_I,
	JK_PUSH_E,
	JK_POP_R,
	JK_LEAVE,
	JK_JCC,
	JK_JMP,
	JK_CALLREL,
	JK_JMP_E,
	JK_CALL_E,
	JK_RET,
	JK_SYS,   /* system.c */
	JK_VEC,   /* vector registers, perhaps with general ones */
	JK_HOSTG, /* HOST row on general registers only */
	JK_X87    /* x87 and MMX registers, perhaps with general or vector ones */
};

extern const uint8_t jit_kinds[I_COUNT];
