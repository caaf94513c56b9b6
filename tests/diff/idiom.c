/*
 * What random instructions do not give, for programs of the differential test: branches, loops,
 * calls, runs of pushes, flags through the stack, strings with a count, stores into code.
 *
 * References: [SDM2 2]. Threads: one.
 */
#include <string.h>

#include "seq.h"

static void seq_rel32(struct seq *s, unsigned at)
{
	int32_t d = (int32_t)(s->n - at - 4);

	memcpy(s->code + at, &d, 4);
}

/* ---- Idioms --------------------------------------------------------------------------------- */

/* jcc or jmp over some instructions */
void seq_forward(struct seq *s)
{
	unsigned cc = gen_below(s->g, 17), at;
	bool near8 = gen_percent(s->g, 60);

	if (!seq_room(s, 60))
		return;
	if (near8) {
		seq_victim(s, s->n, cc < 16 ? 1 : 0, 0x0f);
		seq_put(s, cc < 16 ? 0x70 + cc : 0xeb, 1);
		at = s->n;
		seq_put(s, 0, 1);
	} else {
		if (cc < 16) {
			seq_put(s, 0x0f, 1);
			seq_victim(s, s->n, 1, 0x0f);
		}
		seq_put(s, cc < 16 ? 0x80 + cc : 0xe9, 1);
		at = s->n;
		seq_put(s, 0, 4);
	}
	s->depth++;
	seq_items(s, 1 + gen_below(s->g, 4));
	s->depth--;
	if (!near8)
		seq_rel32(s, at);
	else if (s->n - at - 1 < 128)
		s->code[at] = (uint8_t)(s->n - at - 1);
}

void seq_step(struct seq *s)
{
	unsigned r = seq_pick(s, s->pointers & ~(1u << REG_RSP) ? s->pointers & ~(1u << REG_RSP)
								: s->indexes);
	int by = (int)gen_below(s->g, 2) ? 8 << gen_below(s->g, 3) : (int)gen_below(s->g, 130) - 65;

	if (!seq_room(s, 8) || !((s->pointers | s->indexes) >> r & 1) || by != (int8_t)by)
		return;
	switch (gen_below(s->g, 5)) {
	case 0: /* inc, dec */
		seq_rex(s, 8 | r >> 3);
		seq_put(s, 0xff, 1);
		seq_put(s, (gen_percent(s->g, 50) ? 0xc0 : 0xc8) | (r & 7), 1);
		return;
	case 1: /* sub r, by */
		seq_rex(s, 8 | r >> 3);
		seq_put(s, 0x83, 1);
		seq_put(s, 0xe8 | (r & 7), 1);
		break;
	case 2: /* lea r, [r + by] */
		seq_rex(s, 8 | (r >> 3) * 5);
		seq_put(s, 0x8d, 1);
		seq_put(s, 0x40 | (r & 7) * 9, 1);
		if ((r & 7) == 4)
			seq_put(s, 0x24, 1);
		break;
	default: /* add r, by */
		seq_rex(s, 8 | r >> 3);
		seq_put(s, 0x83, 1);
		seq_put(s, 0xc0 | (r & 7), 1);
	}
	seq_put(s, (uint8_t)by, 1);
}

void seq_loop(struct seq *s)
{
	static const uint8_t may32[] = { REG_RBX, REG_RBP };
	static const uint8_t may[] = { REG_RBX, REG_R8,  REG_R9,  REG_R10, REG_R11,
				       REG_R12, REG_R13, REG_R14, REG_R15 };
	unsigned r =
		s->m32 ? may32[gen_below(s->g, sizeof(may32))] : may[gen_below(s->g, sizeof(may))];
	unsigned top, count = 2 + gen_below(s->g, 5);

	if (!seq_room(s, 90) || (s->counters | s->pointers | s->indexes) >> r & 1)
		return;
	if (s->counters)
		count = 2 + gen_below(s->g, 2);
	else if (gen_percent(s->g, 50)) /* long enough for a trace to be made, and to run */
		count = 8 + gen_below(s->g, 50);
	seq_mov_imm(s, r, count);
	s->counters |= (uint16_t)(1u << r);
	top = s->n;
	s->depth++;
	seq_items(s, 1 + gen_below(s->g, 4));
	for (unsigned k = gen_below(s->g, 3); k--;)
		seq_step(s);
	seq_items(s, 1 + gen_below(s->g, 4));
	s->depth--;
	switch (gen_below(s->g, 4)) {
	case 0: /* dec of the size of addresses */
		seq_rex(s, 8 | r >> 3);
		seq_put(s, 0xff, 1);
		seq_put(s, 0xc8 | (r & 7), 1);
		break;
	case 1: /* dec r32 */
		if (s->m32) {
			seq_put(s, 0x48 | r, 1);
			break;
		}
		seq_rex(s, r >> 3);
		seq_put(s, 0xff, 1);
		seq_put(s, 0xc8 | (r & 7), 1);
		break;
	case 2: /* sub r, 1 */
		seq_rex(s, 8 | r >> 3);
		seq_put(s, 0x83, 1);
		seq_put(s, 0xe8 | (r & 7), 1);
		seq_put(s, 1, 1);
		break;
	default: /* lea r, [r - 1]; test r, r */
		seq_rex(s, 8 | (r >> 3) * 5);
		seq_put(s, 0x8d, 1);
		seq_put(s, 0x40 | (r & 7) * 9, 1);
		if ((r & 7) == 4)
			seq_put(s, 0x24, 1);
		seq_put(s, 0xff, 1);
		seq_rex(s, 8 | (r >> 3) * 5);
		seq_put(s, 0x85, 1);
		seq_put(s, 0xc0 | (r & 7) * 9, 1);
		break;
	}
	if (s->n + 2 - top <= 128 && gen_percent(s->g, 70)) {
		seq_put(s, gen_percent(s->g, 80) ? 0x75 : 0x7f, 1); /* jne, jg */
		seq_put(s, top - s->n - 1, 1);
	} else {
		seq_put(s, 0x850f, 2);
		seq_put(s, top - s->n - 4, 4);
	}
}

/* push some; ...; pop them, in order or not: the translator looks at runs of these as one */
void seq_saves(struct seq *s, unsigned items)
{
	unsigned k = 2 + gen_below(s->g, 5), at, r[6];

	if (!seq_room(s, 60))
		return;
	for (unsigned n = 0; n < k; n++) {
		r[n] = seq_reg(s);
		if (gen_percent(s->g, 8)) {
			seq_put(s, 0x6a, 1);
			seq_put(s, diff_rand(s->g), 1);
		} else {
			if (r[n] >= 8)
				seq_put(s, 0x41, 1);
			seq_put(s, 0x50 | (r[n] & 7), 1);
		}
	}
	s->depth++;
	seq_items(s, items);
	s->depth--;
	while (k--) {
		at = gen_percent(s->g, 90) ? r[k] : seq_reg(s);
		if (s->counters >> at & 1 || (at == REG_RSP && gen_percent(s->g, 80)))
			at = REG_RAX;
		if (at >= 8)
			seq_put(s, 0x41, 1);
		seq_put(s, 0x58 | (at & 7), 1);
	}
}

/* call f; jmp over; f: ...; ret; over: */
void seq_call(struct seq *s)
{
	unsigned over, lea = 0, r = seq_free_reg(s), kind = gen_below(s->g, 5);
	uint64_t slot = DIFF_DATA + 256 + gen_below(s->g, 256);

	if (!seq_room(s, 80))
		return;
	if (kind) {
		seq_lea(s, r, 0);
		lea = s->n - 4;
	}
	if (kind == 2) { /* through memory: mov [slot], r; call [slot] */
		seq_rex(s, 8 | r >> 3 << 2);
		seq_put(s, 0x0489 | (r & 7) << 11, 2);
		seq_put(s, 0x25, 1);
		seq_put(s, slot, 4);
		seq_put(s, 0x2514ff, 3);
		seq_put(s, slot, 4);
	} else if (kind == 4) { /* from where it pushes to: push r; pop r; call [rsp - size] */
		if (r >= 8)
			seq_put(s, 0x41, 1);
		seq_put(s, 0x50 | (r & 7), 1);
		if (r >= 8)
			seq_put(s, 0x41, 1);
		seq_put(s, 0x58 | (r & 7), 1);
		seq_put(s, s->m32 ? 0xfc2454ff : 0xf82454ff, 4);
	} else if (kind) {
		if (r >= 8)
			seq_put(s, 0x41, 1);
		seq_put(s, 0xd0ff | (r & 7) << 8, 2);
	} else {
		seq_put(s, 0xe8, 1);
		lea = s->n;
		seq_put(s, 0, 4);
	}
	seq_put(s, 0xe9, 1);
	over = s->n;
	seq_put(s, 0, 4);
	seq_lead(s, lea, !kind);
	s->depth++;
	s->in_call++;
	if (gen_percent(s->g, 40))
		seq_saves(s, 1 + gen_below(s->g, 3));
	else
		seq_items(s, 1 + gen_below(s->g, 4));
	s->in_call--;
	s->depth--;
	/* of a caller it would make the stack wrong */
	if (s->in_call || gen_percent(s->g, 85)) {
		seq_put(s, 0xc3, 1);
	} else {
		seq_put(s, 0xc2, 1);
		seq_put(s, (s->m32 ? 4 : 8) * gen_below(s->g, 3), 2);
	}
	seq_rel32(s, over);
}

/* lea r, over; jmp r; ...; over: */
void seq_jump(struct seq *s)
{
	unsigned r = seq_free_reg(s), at;

	if (!seq_room(s, 60))
		return;
	seq_lea(s, r, 0);
	at = s->n - 4;
	if (r >= 8)
		seq_put(s, 0x41, 1);
	seq_put(s, 0xe0ff | (r & 7) << 8, 2);
	s->depth++;
	seq_items(s, 1 + gen_below(s->g, 2));
	s->depth--;
	seq_lead(s, at, false);
}

/* push rbp; mov rbp, rsp; ...; leave */
void seq_frame(struct seq *s)
{
	if (!seq_room(s, 60) || s->counters >> REG_RBP & 1)
		return;
	seq_put(s, 0x55, 1);
	seq_rex(s, 8);
	seq_put(s, 0xe589, 2);
	s->depth++;
	seq_items(s, 1 + gen_below(s->g, 4));
	s->depth--;
	seq_put(s, 0xc9, 1);
}

void seq_flags(struct seq *s)
{
	unsigned r = seq_free_reg(s);

	if (!seq_room(s, 10))
		return;
	if (gen_percent(s->g, 60)) { /* pushf; pop r */
		seq_put(s, 0x9c, 1);
		if (r >= 8)
			seq_put(s, 0x41, 1);
		seq_put(s, 0x58 | (r & 7), 1);
	} else { /* push imm; popf */
		uint64_t f =
			0x202 | (diff_rand(s->g) & 0x8d5) | (gen_percent(s->g, 10) ? 0x400 : 0);

		if (!s->no_ac && gen_percent(s->g, 10))
			f |= 1 << 18;
		seq_put(s, 0x68, 1);
		seq_put(s, f, 4);
		seq_put(s, 0x9d, 1);
	}
}

void seq_string(struct seq *s)
{
	static const uint8_t op[] = { 0xa4, 0xa6, 0xaa, 0xac, 0xae };
	unsigned k = gen_below(s->g, sizeof(op));
	bool cmps;

	if (!seq_room(s, 32))
		return;
	/* which operand of CMPS faults first is the model's */
	cmps = k == 1;
	if (cmps || gen_percent(s->g, 60))
		seq_lea(s, REG_RSI, cmps ? DIFF_DATA + 2048 : seq_address(s, 0));
	if (cmps || gen_percent(s->g, 60))
		seq_lea(s, REG_RDI, seq_address(s, 0));
	seq_mov_imm(s, REG_RCX, gen_below(s->g, 12));
	if (gen_percent(s->g, 80))
		seq_put(s, gen_percent(s->g, 70) ? 0xf3 : 0xf2, 1);
	if (gen_percent(s->g, 30))
		seq_rex(s, 8);
	seq_put(s, op[k] | gen_below(s->g, 2), 1);
}

void seq_mxcsr(struct seq *s)
{
	uint64_t at = DIFF_DATA + 512 + 4 * gen_below(s->g, 64);
	uint32_t x = 0x1f80 | ((uint32_t)diff_rand(s->g) & 0xe07f);

	if (!seq_room(s, 20))
		return;
	if (gen_percent(s->g, 10))
		x &= ~((uint32_t)diff_rand(s->g) & 0x1f80);
	seq_put(s, 0x2504c7, 3);
	seq_put(s, at, 4);
	seq_put(s, x, 4);
	seq_put(s, 0x2514ae0f, 4);
	seq_put(s, at, 4);
}

void seq_x87(struct seq *s)
{
	uint64_t at = DIFF_DATA + 512 + 4 * gen_below(s->g, 64);
	uint16_t cw = (uint16_t)(0x7f | gen_below(s->g, 16) << 8);

	if (!seq_room(s, 20))
		return;
	switch (gen_below(s->g, 8)) {
	case 0: seq_put(s, 0xe3db, 2); break; /* fninit */
	case 1: seq_put(s, 0x770f, 2); break; /* emms */
	case 2: seq_put(s, 0xe2db, 2); break; /* fnclex */
	case 3: seq_put(s, 0xe0df, 2); break; /* fnstsw ax */
	case 4:                               /* fnstcw [at] */
		seq_put(s, 0x253cd9, 3);
		seq_put(s, at, 4);
		break;
	default: /* mov word [at], cw; fldcw [at] */
		if (gen_percent(s->g, 8))
			cw &= (uint16_t)~gen_below(s->g, 64);
		seq_put(s, 0x2504c766, 4);
		seq_put(s, at, 4);
		seq_put(s, cw, 2);
		seq_put(s, 0x252cd9, 3);
		seq_put(s, at, 4);
		break;
	}
}

/* A pointer or an index gets a good value again. */
void seq_refresh(struct seq *s)
{
	unsigned r;

	if (!seq_room(s, 12))
		return;
	if (gen_percent(s->g, 25)) {
		r = seq_pick(s, s->indexes);
		seq_mov_imm(s, r, (uint64_t)((int64_t)gen_below(s->g, 64) - 24));
	} else {
		r = seq_pick(s, s->pointers);
		if (s->counters >> r & 1)
			return;
		if (gen_percent(s->g, 50))
			seq_lea(s, r, seq_address(s, 16));
		else
			seq_mov_imm(s, r, seq_address(s, 16));
	}
}

/* An instruction to be changed: op r32, imm32; mov r32, imm32; inc/dec r32; mov r8, imm8. */
void seq_target(struct seq *s)
{
	unsigned r = seq_free_reg(s), kind = gen_below(s->g, s->m32 && r >= 4 ? 3 : 4);

	if (!seq_room(s, 8))
		return;
	if (r >= 8)
		seq_put(s, 0x41, 1);
	switch (kind) {
	case 0:
		seq_put(s, 0x81, 1);
		seq_victim(s, s->n, 1, 0x18); /* and, sub, xor, cmp */
		seq_put(s, 0xe0 | (r & 7) | gen_below(s->g, 4) << 3, 1);
		seq_victim(s, s->n, 4, 0xff);
		seq_put(s, diff_rand(s->g), 4);
		break;
	case 1:
		seq_put(s, 0xb8 | (r & 7), 1);
		seq_victim(s, s->n, 4, 0xff);
		seq_put(s, diff_rand(s->g), 4);
		break;
	case 2:
		seq_put(s, 0xff, 1);
		seq_victim(s, s->n, 1, 0x08);
		seq_put(s, 0xc0 | (r & 7), 1);
		break;
	default: /* with REX, or rSP's neighbours would be counters' second bytes */
		if (r < 8)
			seq_rex(s, 0);
		seq_put(s, 0xb0 | (r & 7), 1);
		seq_victim(s, s->n, 1, 0xff);
		seq_put(s, diff_rand(s->g), 1);
		break;
	}
}

/* Room for a store; seq_store_fill writes it when all victims are known. */
enum { SEQ_STORE_LEN = 13 };
void seq_store(struct seq *s)
{
	if (!seq_room(s, SEQ_STORE_LEN) || s->nstores == SEQ_STORES)
		return;
	s->store[s->nstores++] = (uint8_t)s->n;
	for (unsigned n = 0; n < SEQ_STORE_LEN; n++)
		seq_put(s, 0x90, 1);
}

void seq_store_fill(struct seq *s, unsigned at)
{
	const struct seq_victim *x;
	unsigned end = s->n, r;
	uint64_t to;

	if (!s->nvictims)
		return;
	x = &s->victim[gen_below(s->g, s->nvictims)];
	to = s->ip + x->at;
	if (x->mask == 0xff && gen_percent(s->g, 10)) /* beside the code */
		to = DIFF_SMC + gen_below(s->g, 1024);
	s->n = at;
	if (x->mask != 0xff) { /* xor byte [to], bits, perhaps locked */
		if (gen_percent(s->g, 30))
			seq_put(s, 0xf0, 1);
		seq_put(s, 0x3580, 2);
		seq_disp(s, to, 1);
		seq_put(s, diff_rand(s->g) & x->mask, 1);
		s->n = end;
		return;
	}
	r = seq_reg(s);
	switch (gen_below(s->g, x->len >= 4 ? 9 : 5)) {
	case 0: /* mov byte, imm */
		seq_put(s, 0x05c6, 2);
		seq_disp(s, to, 1);
		seq_put(s, diff_rand(s->g), 1);
		break;
	case 1: /* inc byte */
		seq_put(s, 0x05fe, 2);
		seq_disp(s, to, 0);
		break;
	case 2: /* mov [to], r8 */
		seq_rex(s, r >> 3 << 2);
		seq_put(s, 0x0588 | (r & 7) << 11, 2);
		seq_disp(s, to, 0);
		break;
	case 3: /* add byte, imm */
		seq_put(s, 0x0580, 2);
		seq_disp(s, to, 1);
		seq_put(s, diff_rand(s->g), 1);
		break;
	case 4: /* lea rdi, to; stosb; mov edi, data: nothing else may go there */
		seq_lea(s, REG_RDI, to);
		seq_put(s, 0xbfaa, 2);
		seq_put(s, DIFF_DATA + 1024, 4);
		break;
	case 5: /* mov dword, imm */
		seq_put(s, 0x05c7, 2);
		seq_disp(s, to, 4);
		seq_put(s, diff_rand(s->g), 4);
		break;
	case 6: /* mov word, imm, to any two of the bytes */
		to += gen_below(s->g, 3);
		seq_put(s, 0x05c766, 3);
		seq_disp(s, to, 2);
		seq_put(s, diff_rand(s->g), 2);
		break;
	case 7: /* lock add dword, r32 */
		seq_put(s, 0xf0, 1);
		seq_rex(s, r >> 3 << 2);
		seq_put(s, 0x0501 | (r & 7) << 11, 2);
		seq_disp(s, to, 0);
		break;
	default: /* movd [to], xmm */
		seq_put(s, 0x057e0f66 | (r & 7) << 27, 4);
		seq_disp(s, to, 0);
		break;
	}
	s->n = end;
}
