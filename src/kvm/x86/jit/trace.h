/*
 * Traces: the path that hot code takes, through branches, calls and pages, as one piece of code.
 *
 * Theory of operation
 *   Blocks count arrivals by jumps back, by indirect jumps and from traces. A hot one starts a
 *   recording: the interpreter runs, and each block it is about to run is put down, until the path
 *   comes back to where it began (a loop), meets another trace, an instruction that calls the
 *   interpreter, or the limit. A small loop is put down several times (unrolled).
 *   trace_plan.c follows registers symbolically: as a value that is unknown plus a constant.
 *   Accesses whose addresses differ by a constant make a group, which is looked up once: the
 *   difference between host and guest address of its page ("delta") then serves all of them. In a
 *   loop, groups whose address does not change are looked up before it, and host registers that
 *   the loop has no use for hold deltas and guest r9 to r11.
 *   trace_emit.c emits. Nothing in a trace calls C: a branch that goes the other way, an indirect
 *   target that is another, a lookup that misses is a side exit to ordinary code at that address,
 *   with the guest's registers as they are between instructions. So no TLB entry can go away under
 *   a trace: requests are looked at on each turn, and a write to decoded bytes never finds its
 * page. A trace that begins with a side exit leads to the plain block, not to itself. A trace over
 * several pages is valid in the context (env.link) it was made in; in another one it is looked at
 *   again (JIT_HOT_STALE).
 *   What slides (cache.c) does so with the page that the trace begins in. Where it goes on in
 *   another module, it takes that one to be as far away as when it was recorded, which guards and
 *   that number make sure of; exits there do not link but look up.
 *
 * Modelled:     64-bit mode. Not modelled: 32-bit code, whose addresses wrap at 4 GiB.
 * References:   jit.h; DESIGN.md section 3.
 * Threads:      the vCPU's own.
 */
#pragma once
#include "kvm/x86/jit/trans.h"

enum { TRACE_MAX = 112, TRACE_UNROLL = 64 /* of loops up to TRACE_UNROLL / 2 instructions */ };

/* The path as recorded. */
struct jit_rec {
	bool active;
	gva_t head;
	unsigned ctx, copies;
	unsigned n; /* instructions */
	struct insn insns[TRACE_MAX];
	gva_t rip[TRACE_MAX + 1]; /* of each; last: where the path goes on */
	unsigned npages;
	struct trace_page {
		gva_t la;
		const uint8_t *host;
		struct kvm_page *page;
		uint32_t gen;
	} page[JIT_TRACE_PAGES];
};

/* What a trace's block has more than another. */
struct jit_trace {
	gva_t *rip; /* of each instruction, and where the path goes on */
	bool loop;
	uint32_t stamp; /* offset of the context number it is valid in; 0: one page, always */
	unsigned npages;
	struct trace_page page[JIT_TRACE_PAGES];
};

/* ---- trace_plan.c --------------------------------------------------------------------------- */

enum { TRACE_NONE = 0xffff, TRACE_GROUPS = JIT_DELTAS };

/* Accesses that one lookup serves. */
struct trace_group {
	uint16_t base, index; /* value numbers; below 16: what the register held at the start */
	uint8_t scale, seg;
	bool write;
	bool slides;   /* linear addresses, before the slide */
	bool fixed;    /* looked up before the loop */
	bool known;    /* emission: delta is there */
	uint8_t align; /* of lo, that an access wants: 0, 16, 32 */
	int8_t host;   /* host register of delta, or -1: env.delta */
	uint16_t uses;
	int64_t lo, hi; /* relative to base + index << scale; neither: linear addresses */
};

struct trace_access {
	uint16_t group; /* TRACE_NONE: no access, or one that stands alone */
	int64_t at;     /* as lo */
};

struct trace_step {
	struct trace_access acc[2]; /* memory operand, stack */
	uint8_t live;               /* packed flags, after it */
};

struct trans_trace {
	const struct jit_rec *rec;
	bool loop;
	unsigned n;
	gva_t rip[TRACE_MAX + 1];
	struct trace_step step[TRACE_MAX];
	unsigned ngroups;
	struct trace_group group[TRACE_GROUPS];
	uint16_t used, written; /* guest registers in the trace */
	unsigned in;            /* flags live at its start */
	/* emission */
	unsigned at;    /* step under way */
	int8_t map[16]; /* host register of each guest one, -1: memory */
	uint16_t lent;  /* host registers that hold something else than their guest's value */
};

/* Fill in steps, groups, used, written from t->tr->rec and rip. */
void trace_plan(struct trans *t);
/* Flags live after each step and at the start. */
void trace_liveness(struct trans *t);
/* Could control go anywhere from here? */
bool trace_anywhere(const struct insn *i);
/* Can a trace contain this instruction? */
bool trace_takes(const struct vcpu *v, const struct insn *i);

/* ---- trace_emit.c --------------------------------------------------------------------------- */
/* Does the access take part in a shared lookup? Its operand then. */
bool trace_shares(const struct trans *t, const struct trace_access *a);
struct trans_ref trace_operand(struct trans *t, const struct insn *i);
/*
 * Make the code of a recorded path, whose addresses are without the slide; NULL: no room, or it
 * cannot be.
 */
struct jit_block *trace_translate(struct vcpu *v, const struct jit_rec *rec, uint64_t slide);
