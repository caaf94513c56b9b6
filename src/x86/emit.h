/*
 * A small x86-64 encoder: what host-code thunks and the translator write instructions with.
 *
 * emit_op() encodes any legacy or VEX instruction from its parts, with a register or a
 * [base + index << scale + disp] operand; the functions below it are the instructions that glue
 * code needs, named as such. The shortest displacement is chosen. Nothing is written past the end:
 * the buffer then is marked full, and the caller throws the code away.
 *
 * Not modelled: RIP in memory operands, far branches, EVEX.
 * References:   [SDM2 2], [SDM2D A].
 * Threads:      the caller owns the buffer.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/insn.h"

/* Code under construction. start: where p began; run: address at which start will execute. */
struct emit {
	uint8_t *start, *p, *end;
	uint64_t run;
	bool full; /* something did not fit: the code is useless */
};

/* One instruction in parts. Unused members are 0. */
struct emit_op {
	uint8_t map; /* enum insn_map */
	uint8_t pp;  /* mandatory prefix: NP, P66, PF3, PF2 */
	uint8_t opcode;
	uint8_t reg;     /* ModRM.reg, 0..15 */
	uint8_t rm;      /* register 0..15, or base of the memory operand */
	uint8_t vvvv;    /* VEX third register, 0..15; 0 gives 1111b, as unused wants */
	uint8_t imm_len; /* 0, 1, 2, 4 */
	bool modrm;      /* has a ModRM byte */
	bool mem;        /* rm is the base of [rm + disp] */
	bool sib;        /* of [rm + index << scale + disp] */
	uint8_t index;   /* 0..15 but 4 */
	uint8_t scale;   /* 0..3 */
	bool opsize;     /* 66 as operand size, before a mandatory F3 or F2 */
	bool rex;        /* a REX prefix even if empty: SPL..DIL */
	bool w, l;
	int32_t disp;
	uint32_t imm;
};
void emit_op(struct emit *e, const struct emit_op *x);

/* Start writing at buf (cap bytes), which will execute at address run. */
void emit_init(struct emit *e, void *buf, size_t cap, uint64_t run);
void emit_bytes(struct emit *e, const void *bytes, size_t n);
/* Pad with int3, which traps when reached, to a multiple of align (2^n). */
void emit_align(struct emit *e, size_t align);
/* Bytes written so far. */
static inline size_t emit_size(const struct emit *e)
{
	return (size_t)(e->p - e->start);
}

/* mov reg, [base + disp] and back; size 1 (zero-extended load), 2 (load: zero-extended), 4, 8. */
void emit_mov_load(struct emit *e, unsigned size, unsigned reg, unsigned base, int32_t disp);
void emit_mov_store(struct emit *e, unsigned size, unsigned base, int32_t disp, unsigned reg);
void emit_mov_reg(struct emit *e, unsigned size, unsigned dst, unsigned src);
void emit_mov_imm(struct emit *e, unsigned reg, uint64_t imm);
void emit_xor_self(struct emit *e, unsigned reg); /* xor r32, r32; changes flags */

/* Arithmetic flags to and from AX in LAHF;SETO form: see kvm/x86/vcpu.h. */
void emit_flags_to_ax(struct emit *e);
void emit_flags_from_ax(struct emit *e);

/* Vector moves: 16 bytes aligned; upper halves of YMM registers. */
void emit_movaps_load(struct emit *e, unsigned x, unsigned base, int32_t disp);
void emit_movaps_store(struct emit *e, unsigned base, int32_t disp, unsigned x);
void emit_vmovaps_load(struct emit *e, unsigned x, unsigned base, int32_t disp);
void emit_vmovaps_store(struct emit *e, unsigned base, int32_t disp, unsigned x);
void emit_vinsertf128(struct emit *e, unsigned y, unsigned base, int32_t disp);
void emit_vextractf128(struct emit *e, unsigned base, int32_t disp, unsigned y);
void emit_vzeroupper(struct emit *e);

/* State. */
void emit_ldmxcsr(struct emit *e, unsigned base, int32_t disp);
void emit_stmxcsr(struct emit *e, unsigned base, int32_t disp);
void emit_fxsave64(struct emit *e, unsigned base, int32_t disp);
void emit_fxrstor64(struct emit *e, unsigned base, int32_t disp);
void emit_xsave64(struct emit *e, unsigned base, int32_t disp); /* components in edx:eax */
void emit_fninit(struct emit *e);
void emit_ret(struct emit *e);
