/*
 * What the generators share: random values, bytes of an instance of a row.
 *
 * Threads: one.
 */
#pragma once
#include "diff.h"
#include "x86/insn.h"

struct gen_code {
	uint8_t b[32];
	unsigned n;
	int disp32_at; /* position of a disp32 that may be set freely, or -1 */
	int moffs_at;
	int mod2_at; /* of the disp32 beside a base register, or -1 */
};

unsigned gen_below(struct diff_rng *g, unsigned n);
bool gen_percent(struct diff_rng *g, unsigned p);
/* Integers, memory contents, vector and x87 state of the kinds that break things. */
uint64_t gen_int(struct diff_rng *g);
void gen_bytes(struct diff_rng *g, uint8_t *p, unsigned n);
void gen_st(struct diff_rng *g, uint8_t *p);
void gen_xsave(struct diff_rng *g, uint8_t *x);
/* Where a memory operand goes: mostly across the border of the two writable pages. */
uint64_t gen_target(struct diff_rng *g, unsigned align);
/* What the row wants its memory operand aligned to; 0: nothing. */
unsigned gen_align(unsigned id, const struct insn_info *row);
void gen_put(struct gen_code *c, uint64_t x, unsigned n);
/* Bytes of some instance of the row. The decoder decides whether they are one. */
void gen_encode(struct diff_rng *g, unsigned id, bool mode32, struct gen_code *c);
