/*
 * Instructions of generated code, beyond x86/emit.h: operands relative to gs, indexed addresses,
 * jumps that are patched.
 *
 * op is the last opcode byte, with 0x0f00 or'ed in for the 0F map. w: REX.W.
 * References: [SDM2 2]. Threads: the owner of the buffer.
 */
#pragma once
#include <string.h>

#include "x86/emit.h"

enum {
	H_RAX,
	H_RCX,
	H_RDX,
	H_RBX,
	H_RSP,
	H_RBP,
	H_RSI,
	H_RDI,
	H_R8,
	H_R9,
	H_R10,
	H_R11,
	H_R12,
	H_R13,
	H_R14,
	H_R15
};

static inline void asm_u8(struct emit *e, unsigned x)
{
	uint8_t b = (uint8_t)x;

	emit_bytes(e, &b, 1);
}
static inline void asm_u32(struct emit *e, uint32_t x)
{
	emit_bytes(e, &x, 4);
}
static inline void asm_u64(struct emit *e, uint64_t x)
{
	emit_bytes(e, &x, 8);
}

/* REX for reg, index, base; none when nothing asks for one. */
static inline void asm_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base,
			   bool force)
{
	unsigned rex = 0x40 | (w ? 8u : 0u) | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;

	if (rex != 0x40 || force)
		asm_u8(e, rex);
}
static inline void asm_op(struct emit *e, unsigned op)
{
	if (op & 0xff00)
		asm_u8(e, 0x0f);
	asm_u8(e, op);
}

/* op reg, rm: registers. */
static inline void asm_rr(struct emit *e, unsigned op, bool w, unsigned reg, unsigned rm)
{
	asm_rex(e, w, reg, 0, rm, false);
	asm_op(e, op);
	asm_u8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
/* op reg, gs:[disp]. */
static inline void asm_gs(struct emit *e, unsigned op, bool w, unsigned reg, uint32_t disp)
{
	asm_u8(e, 0x65);
	asm_rex(e, w, reg, 0, 0, false);
	asm_op(e, op);
	asm_u8(e, (reg & 7) << 3 | 4);
	asm_u8(e, 0x25);
	asm_u32(e, disp);
}
/* op reg, gs:[base + disp32]; base is neither rsp nor r12. */
static inline void asm_gs_base(struct emit *e, unsigned op, bool w, unsigned reg, unsigned base,
			       uint32_t disp)
{
	asm_u8(e, 0x65);
	asm_rex(e, w, reg, 0, base, false);
	asm_op(e, op);
	asm_u8(e, 0x80 | (reg & 7) << 3 | (base & 7));
	asm_u32(e, disp);
}
/* lea reg, [base + index << scale + disp]; -1: none. size 4 or 8 of the result. */
static inline void asm_lea(struct emit *e, bool w, unsigned reg, int base, int index,
			   unsigned scale, int32_t disp)
{
	unsigned b = base < 0 ? 5u : (unsigned)base, x = index < 0 ? 4u : (unsigned)index, mod;

	asm_rex(e, w, reg, index < 0 ? 0 : x, base < 0 ? 0 : b, false);
	asm_u8(e, 0x8d);
	if (base < 0)
		mod = 0; /* SIB without base: disp32 */
	else if (disp == 0 && (b & 7) != 5)
		mod = 0;
	else if (disp == (int8_t)disp)
		mod = 0x40;
	else
		mod = 0x80;
	asm_u8(e, mod | (reg & 7) << 3 | 4);
	asm_u8(e, scale << 6 | (x & 7) << 3 | (b & 7));
	if (base < 0 || mod == 0x80)
		asm_u32(e, (uint32_t)disp);
	else if (mod == 0x40)
		asm_u8(e, (uint8_t)disp);
}
static inline void asm_mov(struct emit *e, unsigned dst, unsigned src)
{
	if (dst != src)
		asm_rr(e, 0x8b, true, dst, src);
}
static inline void asm_ld(struct emit *e, unsigned reg, uint32_t disp)
{
	asm_gs(e, 0x8b, true, reg, disp);
}
static inline void asm_st(struct emit *e, unsigned reg, uint32_t disp)
{
	asm_gs(e, 0x89, true, reg, disp);
}
/* mov reg, constant, by the shortest form; flags stay. */
static inline void asm_const(struct emit *e, unsigned reg, uint64_t x)
{
	if (x == (uint32_t)x) {
		asm_rex(e, false, 0, 0, reg, false);
		asm_u8(e, 0xb8 | (reg & 7));
		asm_u32(e, (uint32_t)x);
	} else if ((int64_t)x == (int32_t)x) {
		asm_rex(e, true, 0, 0, reg, false);
		asm_u8(e, 0xc7);
		asm_u8(e, 0xc0 | (reg & 7));
		asm_u32(e, (uint32_t)x);
	} else {
		asm_rex(e, true, 0, 0, reg, false);
		asm_u8(e, 0xb8 | (reg & 7));
		asm_u64(e, x);
	}
}
/* Arithmetic with an 8- or 32-bit constant: /n of groups 83 and 81. */
static inline void asm_ri(struct emit *e, unsigned n, bool w, unsigned rm, int32_t imm)
{
	asm_rex(e, w, 0, 0, rm, false);
	asm_u8(e, imm == (int8_t)imm ? 0x83 : 0x81);
	asm_u8(e, 0xc0 | n << 3 | (rm & 7));
	if (imm == (int8_t)imm)
		asm_u8(e, (uint8_t)imm);
	else
		asm_u32(e, (uint32_t)imm);
}
/* shift group: n 4 shl, 5 shr. */
static inline void asm_shift(struct emit *e, unsigned n, bool w, unsigned rm, unsigned count)
{
	asm_rex(e, w, 0, 0, rm, false);
	asm_u8(e, 0xc1);
	asm_u8(e, 0xc0 | n << 3 | (rm & 7));
	asm_u8(e, count);
}
/* cmp byte or dword gs:[disp], imm8 / imm32. */
static inline void asm_cmp_gs8(struct emit *e, uint32_t disp, unsigned imm)
{
	static const uint8_t op[] = { 0x65, 0x80, 0x3c, 0x25 };

	emit_bytes(e, op, sizeof(op));
	asm_u32(e, disp);
	asm_u8(e, imm);
}
static inline void asm_cmp_gs32(struct emit *e, uint32_t disp, uint32_t imm)
{
	static const uint8_t op[] = { 0x65, 0x81, 0x3c, 0x25 };

	emit_bytes(e, op, sizeof(op));
	asm_u32(e, disp);
	asm_u32(e, imm);
}

/* sub dword gs:[disp], imm8; mov byte gs:[disp], imm8. */
static inline void asm_sub_gs8(struct emit *e, uint32_t disp, unsigned imm)
{
	static const uint8_t op[] = { 0x65, 0x83, 0x2c, 0x25 };

	emit_bytes(e, op, sizeof(op));
	asm_u32(e, disp);
	asm_u8(e, imm);
}
static inline void asm_st_gs8(struct emit *e, uint32_t disp, unsigned imm)
{
	static const uint8_t op[] = { 0x65, 0xc6, 0x04, 0x25 };

	emit_bytes(e, op, sizeof(op));
	asm_u32(e, disp);
	asm_u8(e, imm);
}

/* Address at which the next byte will run. */
static inline uint64_t asm_here(const struct emit *e)
{
	return e->run + emit_size(e);
}
/* jmp / call / jcc rel32 to a known address. */
static inline void asm_jmp(struct emit *e, uint64_t to)
{
	asm_u8(e, 0xe9);
	asm_u32(e, (uint32_t)(to - (asm_here(e) + 4)));
}
static inline void asm_call(struct emit *e, uint64_t to)
{
	asm_u8(e, 0xe8);
	asm_u32(e, (uint32_t)(to - (asm_here(e) + 4)));
}
static inline void asm_jcc(struct emit *e, unsigned cc, uint64_t to)
{
	asm_u8(e, 0x0f);
	asm_u8(e, 0x80 | cc);
	asm_u32(e, (uint32_t)(to - (asm_here(e) + 4)));
}
/* jcc rel32 forward: returns the offset of the displacement, for asm_fix. cc 16: jmp. */
static inline size_t asm_jump_fwd(struct emit *e, unsigned cc)
{
	if (cc < 16) {
		asm_u8(e, 0x0f);
		asm_u8(e, 0x80 | cc);
	} else {
		asm_u8(e, 0xe9);
	}
	asm_u32(e, 0);
	return emit_size(e) - 4;
}
static inline void asm_fix(struct emit *e, size_t at)
{
	uint32_t d = (uint32_t)(emit_size(e) - (at + 4));

	if (!e->full)
		memcpy(e->start + at, &d, 4);
}
enum {
	CC_O,
	CC_NO,
	CC_B,
	CC_AE,
	CC_E,
	CC_NE,
	CC_BE,
	CC_A,
	CC_S,
	CC_NS,
	CC_P,
	CC_NP,
	CC_L,
	CC_GE,
	CC_LE,
	CC_G,
	CC_JMP
};
