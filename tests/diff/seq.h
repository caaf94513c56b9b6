/*
 * A program under construction, and what seq.c and idiom.c have of each other.
 *
 * Threads: one.
 */
#pragma once
#include "gen.h"

enum { SEQ_VICTIMS = 64, SEQ_STORES = 12, SEQ_ROOM = 40 };

/* Bytes that may be changed: all of their bits, or those of mask. */
struct seq_victim {
	uint8_t at, len, mask;
};

struct seq {
	struct diff_rng *g;
	uint8_t *code;
	unsigned n; /* bytes */
	uint64_t ip;
	uint16_t pointers, indexes, counters; /* masks of registers */
	bool smc, no_vec, no_ac, fpu;         /* fpu: mostly x87 and MMX */
	bool m32;                             /* 32-bit code */
	unsigned depth, in_call;
	struct seq_victim victim[SEQ_VICTIMS];
	unsigned nvictims;
	uint8_t store[SEQ_STORES]; /* offsets of stores into code; their operands come last */
	unsigned nstores;
};

/* ---- seq.c ---- */
void seq_put(struct seq *s, uint64_t x, unsigned n);
/* REX, or nothing in 32-bit code. */
void seq_rex(struct seq *s, unsigned rex);
/* Any general register. */
unsigned seq_reg(struct seq *s);
/* disp32 of ModRM 05: absolute, or relative to the end of an instruction `more` bytes behind it. */
void seq_disp(struct seq *s, uint64_t to, unsigned more);
/* Is there room for n bytes, and for what must come after the items around them? */
bool seq_room(const struct seq *s, unsigned n);
void seq_victim(struct seq *s, unsigned at, unsigned len, unsigned mask);
/* A register that may be written; one of a set. */
unsigned seq_free_reg(struct seq *s);
unsigned seq_pick(struct seq *s, uint16_t set);
void seq_mov_imm(struct seq *s, unsigned r, uint64_t x);
void seq_lea(struct seq *s, unsigned r, uint64_t to);
/* Let the LEA, or with call the CALL, whose operand lies at `at` lead to where the program now
 * ends. */
void seq_lead(struct seq *s, unsigned at, bool call);
/* Where a memory operand goes: mostly well. */
uint64_t seq_address(struct seq *s, unsigned align);
/* At most n random instructions and idioms. */
void seq_items(struct seq *s, unsigned n);

/* ---- idiom.c: each emits nothing when there is no room ---- */
void seq_forward(struct seq *s); /* Branch over some instructions */
void seq_loop(struct seq *s);    /* A loop that ends: its counter is named by nothing else */
void seq_step(struct seq *s);    /* A pointer or an index moves on by a constant */
void seq_saves(struct seq *s, unsigned items); /* Registers pushed, items, registers popped */
void seq_call(struct seq *s);                  /* A function and its call */
void seq_jump(struct seq *s);                  /* An indirect jump forward */
void seq_frame(struct seq *s);                 /* A stack frame with LEAVE */
void seq_flags(struct seq *s);                 /* PUSHF or POPF */
void seq_string(struct seq *s);                /* A string instruction, with a small count */
void seq_mxcsr(struct seq *s);                 /* LDMXCSR */
void seq_x87(struct seq *s);                   /* x87 control: FLDCW, FNINIT, EMMS, ... */
void seq_refresh(struct seq *s);               /* A pointer or an index gets a good value again */
void seq_target(struct seq *s);                /* An instruction to be changed */
void seq_store(struct seq *s);                 /* Room for a store into code */
void seq_store_fill(struct seq *s,
		    unsigned at); /* The store at an offset, when all victims are known */
