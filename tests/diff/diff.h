/*
 * Differential test: one instruction at a time, natively and in the interpreter.
 *
 * Theory of operation: gen.c makes cases from rows of the instruction table (bytes, registers,
 * vector state, memory). native.c runs a batch of them in a forked child at fixed low addresses,
 * each followed by INT3, and takes the state from the signal frame. interp.c runs the same bytes at
 * the same addresses in a ring-3 guest. main.c compares everything the guest can see.
 *
 * This header and native.c stay clear of x86/insn.h: <ucontext.h> has its own REG_RAX.
 *
 * References: [SDM2], [SDM1 13]. Threads: one; native.c in a child process.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Guest-virtual = guest-physical = native addresses. */
#define DIFF_DATA 0x20000000ul /* 2 pages read-write, a hole, 1 page read-only, a hole */
#define DIFF_CODE 0x30000000ul
#define DIFF_CTX  0x10000000ul /* native only: registers to load */
enum {
	DIFF_DATA_PAGES = 4,
	DIFF_RW_SIZE = 8192,
	DIFF_RO_OFF = 3 * 4096,
	DIFF_BATCH = 512,
	DIFF_SLOT = 512, /* bytes of code region for each case; the instruction is in its middle */
	DIFF_CODE_SIZE = DIFF_BATCH * DIFF_SLOT,
	DIFF_XSAVE = 832,
	DIFF_PATCH = 128,      /* bytes of patch[] in most cases */
	DIFF_PATCH_MAX = 1024, /* for XSAVE areas */
};

enum { DIFF_OK = -1, DIFF_LOST = -2 }; /* diff_result.vec: no exception; no result */

struct diff_state {
	uint64_t r[16], rip, flags;
	uint8_t xsave[DIFF_XSAVE] __attribute__((aligned(64)));
};

struct diff_case {
	uint8_t code[16];
	uint8_t len;
	bool mode32;
	uint16_t id;       /* enum insn_id */
	uint32_t patch_at; /* offset in the data area of patch[] */
	uint32_t patch_len;
	uint8_t patch[DIFF_PATCH_MAX];
	struct diff_state in;
};

struct diff_result {
	int vec; /* exception vector or DIFF_* */
	uint32_t error;
	uint64_t cr2;
	struct diff_state out;
	uint8_t mem[DIFF_RW_SIZE];
};

static inline uint64_t diff_ip(unsigned n)
{
	return DIFF_CODE + n * DIFF_SLOT + DIFF_SLOT / 2;
}

/* Contents of the data area before each case: DIFF_DATA_PAGES pages; the hole's page is unused. */
extern uint8_t diff_template[DIFF_DATA_PAGES * 4096];

/* ---- gen.c ---- */
struct diff_rng {
	uint64_t s;
};
uint64_t diff_rand(struct diff_rng *g);
/* Make case number n (its place in the batch) from a row. NULL, or why the row is never made. */
const char *diff_skip_reason(unsigned id);
/* False: no luck this time. */
bool diff_generate(struct diff_rng *g, unsigned id, unsigned n, bool mode32, struct diff_case *c);

/* ---- native.c ---- */
/* Run cases; results in out[]. Cases that kill the child come back as DIFF_LOST. */
void diff_native(const struct diff_case *c, unsigned n, struct diff_result *out);

/* ---- interp.c ---- */
void diff_interp_init(void);
/* Put a batch's code into guest memory. */
void diff_interp_load(const struct diff_case *c, unsigned n);
void diff_interp_run(const struct diff_case *c, unsigned k, struct diff_result *out);
