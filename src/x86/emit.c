/*
 * A small x86-64 encoder.
 *
 * References: [SDM2 2], [SDM2D A], [SDM2 2.3 "Intel AVX"] for the VEX prefix.
 * Threads:    the caller owns the buffer.
 */
#include "x86/emit.h"

#include <string.h>

void emit_init(struct emit *e, void *buf, size_t cap, uint64_t run)
{
	e->start = e->p = buf;
	e->end = e->p + cap;
	e->run = run;
	e->full = false;
}

void emit_bytes(struct emit *e, const void *bytes, size_t n)
{
	if (e->full || (size_t)(e->end - e->p) < n) {
		e->full = true;
		return;
	}
	memcpy(e->p, bytes, n);
	e->p += n;
}

void emit_align(struct emit *e, size_t align)
{
	static const uint8_t int3 = 0xcc;

	while (!e->full && ((e->run + emit_size(e)) & (align - 1)))
		emit_bytes(e, &int3, 1);
}

static uint8_t *emit_modrm(uint8_t *b, const struct emit_op *x)
{
	uint8_t reg = (uint8_t)((x->reg & 7) << 3), rm = x->rm & 7;
	unsigned disp_len;

	if (!x->mem) {
		*b++ = (uint8_t)(0xc0 | reg | rm);
		return b;
	}
	/* rBP and r13 have no form without displacement: that is RIP-relative or absolute. */
	if (!x->disp && rm != REG_RBP)
		disp_len = 0;
	else
		disp_len = x->disp == (int8_t)x->disp ? 1 : 4;
	*b++ = (uint8_t)((disp_len == 0   ? 0
			  : disp_len == 1 ? 0x40
					  : 0x80) |
			 reg | (x->sib ? REG_RSP : rm));
	if (x->sib)
		*b++ = (uint8_t)(x->scale << 6 | (x->index & 7) << 3 | rm);
	else if (rm == REG_RSP)
		*b++ = 0x24; /* SIB: base only */
	memcpy(b, &x->disp, disp_len);
	return b + disp_len;
}

void emit_op(struct emit *e, const struct emit_op *x)
{
	static const uint8_t pp_byte[] = { 0, 0x66, 0xf3, 0xf2 };
	uint8_t buf[32], *b = buf;
	bool r = x->modrm && x->reg & 8, m = x->rm & 8, k = x->mem && x->sib && x->index & 8;

	if (x->map >= V0F) {
		uint8_t map = (uint8_t)(x->map - V0F + 1);
		uint8_t low = (uint8_t)((~x->vvvv & 15) << 3 | (x->l ? 4 : 0) | (x->pp & 3));

		if (map == 1 && !m && !k && !x->w) {
			*b++ = 0xc5;
			*b++ = (uint8_t)((r ? 0 : 0x80) | low);
		} else {
			*b++ = 0xc4;
			*b++ = (uint8_t)((r ? 0 : 0x80) | (k ? 0 : 0x40) | (m ? 0 : 0x20) | map);
			*b++ = (uint8_t)((x->w ? 0x80 : 0) | low);
		}
	} else {
		if (x->opsize && x->pp != P66)
			*b++ = 0x66;
		if (x->pp <= PF2 && pp_byte[x->pp])
			*b++ = pp_byte[x->pp];
		if (x->w || r || m || k || x->rex)
			*b++ = (uint8_t)(0x40 | (x->w ? 8 : 0) | (r ? 4 : 0) | (k ? 2 : 0) |
					 (m ? 1 : 0));
		if (x->map != M1)
			*b++ = 0x0f;
		if (x->map == M0F38)
			*b++ = 0x38;
		else if (x->map == M0F3A)
			*b++ = 0x3a;
	}
	*b++ = x->modrm ? x->opcode : (uint8_t)(x->opcode | (x->rm & 7));
	if (x->modrm)
		b = emit_modrm(b, x);
	memcpy(b, &x->imm, x->imm_len);
	b += x->imm_len;
	emit_bytes(e, buf, (size_t)(b - buf));
}

void emit_mov_load(struct emit *e, unsigned size, unsigned reg, unsigned base, int32_t disp)
{
	struct emit_op x = { .map = M1, .opcode = 0x8b, .modrm = true, .mem = true };

	if (size < 4) {
		x.map = M0F; /* movzx r32, m8/m16 */
		x.opcode = size == 1 ? 0xb6 : 0xb7;
	}
	x.w = size == 8;
	x.reg = (uint8_t)reg;
	x.rm = (uint8_t)base;
	x.disp = disp;
	emit_op(e, &x);
}

void emit_mov_store(struct emit *e, unsigned size, unsigned base, int32_t disp, unsigned reg)
{
	emit_op(e, &(struct emit_op){ .map = M1,
				      .opcode = size == 1 ? 0x88 : 0x89,
				      .modrm = true,
				      .mem = true,
				      .opsize = size == 2,
				      .w = size == 8,
				      .rex = size == 1 && reg >= 4,
				      .reg = (uint8_t)reg,
				      .rm = (uint8_t)base,
				      .disp = disp });
}

void emit_mov_reg(struct emit *e, unsigned size, unsigned dst, unsigned src)
{
	emit_op(e, &(struct emit_op){ .map = M1,
				      .opcode = 0x89,
				      .modrm = true,
				      .w = size == 8,
				      .reg = (uint8_t)src,
				      .rm = (uint8_t)dst });
}

void emit_mov_imm(struct emit *e, unsigned reg, uint64_t imm)
{
	struct emit_op x = { .map = M1, .opcode = 0xb8, .rm = (uint8_t)reg };

	if (imm <= UINT32_MAX) {
		x.imm_len = 4;
		x.imm = (uint32_t)imm;
		emit_op(e, &x);
	} else {
		x.w = true;
		emit_op(e, &x);
		emit_bytes(e, &imm, 8);
	}
}

void emit_xor_self(struct emit *e, unsigned reg)
{
	emit_op(e, &(struct emit_op){ .map = M1,
				      .opcode = 0x31,
				      .modrm = true,
				      .reg = (uint8_t)reg,
				      .rm = (uint8_t)reg });
}

void emit_flags_to_ax(struct emit *e)
{
	emit_bytes(e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
}

void emit_flags_from_ax(struct emit *e)
{
	emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 0x7f: OF; sahf: the rest */
}

static void emit_vec(struct emit *e, unsigned map, unsigned pp, unsigned op, bool l, unsigned x,
		     unsigned v, unsigned base, int32_t disp, unsigned imm_len)
{
	emit_op(e, &(struct emit_op){ .map = (uint8_t)map,
				      .pp = (uint8_t)pp,
				      .opcode = (uint8_t)op,
				      .modrm = true,
				      .mem = true,
				      .l = l,
				      .reg = (uint8_t)x,
				      .vvvv = (uint8_t)v,
				      .rm = (uint8_t)base,
				      .disp = disp,
				      .imm_len = (uint8_t)imm_len,
				      .imm = 1 });
}

void emit_movaps_load(struct emit *e, unsigned x, unsigned base, int32_t disp)
{
	emit_vec(e, M0F, NP, 0x28, false, x, 0, base, disp, 0);
}

void emit_movaps_store(struct emit *e, unsigned base, int32_t disp, unsigned x)
{
	emit_vec(e, M0F, NP, 0x29, false, x, 0, base, disp, 0);
}

void emit_vmovaps_load(struct emit *e, unsigned x, unsigned base, int32_t disp)
{
	emit_vec(e, V0F, NP, 0x28, false, x, 0, base, disp, 0);
}

void emit_vmovaps_store(struct emit *e, unsigned base, int32_t disp, unsigned x)
{
	emit_vec(e, V0F, NP, 0x29, false, x, 0, base, disp, 0);
}

void emit_vinsertf128(struct emit *e, unsigned y, unsigned base, int32_t disp)
{
	emit_vec(e, V0F3A, P66, 0x18, true, y, y, base, disp, 1);
}

void emit_vextractf128(struct emit *e, unsigned base, int32_t disp, unsigned y)
{
	emit_vec(e, V0F3A, P66, 0x19, true, y, 0, base, disp, 1);
}

void emit_vzeroupper(struct emit *e)
{
	emit_bytes(e, "\xc5\xf8\x77", 3);
}

/* Group 15 with a memory operand. */
static void emit_group15(struct emit *e, unsigned ext, bool w, unsigned base, int32_t disp)
{
	emit_op(e, &(struct emit_op){ .map = M0F,
				      .opcode = 0xae,
				      .modrm = true,
				      .mem = true,
				      .w = w,
				      .reg = (uint8_t)ext,
				      .rm = (uint8_t)base,
				      .disp = disp });
}

void emit_fxsave64(struct emit *e, unsigned base, int32_t disp)
{
	emit_group15(e, 0, true, base, disp);
}

void emit_fxrstor64(struct emit *e, unsigned base, int32_t disp)
{
	emit_group15(e, 1, true, base, disp);
}

void emit_xsave64(struct emit *e, unsigned base, int32_t disp)
{
	emit_group15(e, 4, true, base, disp);
}

void emit_ldmxcsr(struct emit *e, unsigned base, int32_t disp)
{
	emit_group15(e, 2, false, base, disp);
}

void emit_stmxcsr(struct emit *e, unsigned base, int32_t disp)
{
	emit_group15(e, 3, false, base, disp);
}

void emit_fninit(struct emit *e)
{
	emit_bytes(e, "\xdb\xe3", 2);
}

void emit_ret(struct emit *e)
{
	emit_bytes(e, "\xc3", 1);
}
