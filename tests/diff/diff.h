/*
 * Differential test, three ways: natively, in the interpreter, in translated code.
 *
 * Theory of operation: gen.c makes cases of one instruction from rows of the instruction table
 * (bytes, registers, vector state, memory), seq.c makes programs of some dozen instructions, with
 * loops, calls and stores into code. native.c runs a batch of them in a forked child at fixed low
 * addresses, each followed by INT3, and takes the state from the signal frame. engine.c runs the
 * same bytes at the same addresses in ring-3 guests, one for each engine. compare.c compares
 * everything the guest can see; shrink.c makes a program that differs small.
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
#define DIFF_SMC  0x30200000ul /* code that may be written */
#define DIFF_CTX  0x6a5c3000ul /* native only: registers to load; where nothing else leads */
enum {
	DIFF_DATA_PAGES = 4,
	DIFF_RW_SIZE = 8192,
	DIFF_RO_OFF = 3 * 4096,
	DIFF_BATCH = 2048,
	DIFF_SLOT = 512, /* bytes of code region for each case; the instruction is in its middle */
	DIFF_CODE_SIZE = DIFF_BATCH * DIFF_SLOT,
	DIFF_CODE_MAX = DIFF_SLOT / 2 - 16, /* bytes of a program */
	DIFF_SMC_SIZE = 8192,
	DIFF_XSAVE = 832,
	DIFF_PATCH = 128,      /* bytes of patch[] in most cases */
	DIFF_PATCH_MAX = 1024, /* for XSAVE areas */
};

/* diff_result.vec: no exception; no result; does not end */
enum { DIFF_OK = -1, DIFF_LOST = -2, DIFF_STUCK = -3 };

struct diff_state {
	uint64_t r[16], rip, flags;
	uint8_t xsave[DIFF_XSAVE] __attribute__((aligned(64)));
};

struct diff_case {
	uint8_t code[DIFF_CODE_MAX]; /* goes to in.rip */
	uint8_t len;
	bool mode32;
	bool seq;          /* a program of several instructions */
	bool smc;          /* it lies at DIFF_SMC and writes itself */
	uint16_t id;       /* enum insn_id, of the only instruction or the one that faulted */
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

/* ---- seq.c ---- */
void diff_seq_init(void);
/* Make a program for place n of the batch. */
void diff_seq_generate(struct diff_rng *g, unsigned n, bool smc, bool mode32, struct diff_case *c);

/*
 * Does what is undefined in a row's flags depend on what they were? They were perhaps dead, then,
 * and the translator has not kept them: programs have an instruction that defines them next.
 */
bool diff_leaves_undefined(unsigned id);

/* ---- native.c ---- */
/* Run cases; results in out[]. Cases that kill the child come back as DIFF_LOST. */
void diff_native(const struct diff_case *c, unsigned n, struct diff_result *out);

/* Call tick after each us of processor time of this process; flags: SA_*. */
void diff_timer(void (*tick)(int), unsigned us, int flags);

/* ---- engine.c ---- */
/* DIFF_JIT translates everything at once, DIFF_MIX what runs often, so that both meet. */
enum diff_engine { DIFF_INTERP, DIFF_JIT, DIFF_MIX, DIFF_ENGINES };
extern const char *const diff_engine_name[DIFF_ENGINES];
/* How a case was run, in instructions. */
struct diff_how {
	uint64_t steps;       /* all; of DIFF_INTERP only */
	uint64_t calls;       /* by the interpreter's functions, called from translated code */
	uint64_t interpreted; /* by the interpreter */
	uint64_t blocks;      /* translated */
	uint64_t traces;
};
void diff_engine_init(void);
/* Put a batch's code into guest memory, or that of a case that writes its own. */
void diff_engine_load(enum diff_engine e, const struct diff_case *c, unsigned n);
void diff_engine_run(enum diff_engine e, const struct diff_case *c, struct diff_result *out,
		     struct diff_how *how);
/* 15 bytes of code at rip as they are now. False: there is no code. */
bool diff_engine_bytes(enum diff_engine e, uint64_t rip, uint8_t *bytes);
/* The flags that are undefined at the end of a program, by running it in the interpreter. */
uint64_t diff_engine_undefined(const struct diff_case *c);

/* ---- compare.c ---- */
/* Bring what is not compared to one value, the same for both. b comes from an engine. */
void diff_normalize(const struct diff_case *c, struct diff_result *a, struct diff_result *b,
		    enum diff_engine e);
bool diff_equal(const struct diff_result *a, const struct diff_result *b);
void diff_show(const struct diff_case *c, const struct diff_result *a, const struct diff_result *b,
	       enum diff_engine e);

/* ---- shrink.c ---- */
/* Replace instructions of a program by NOPs as long as the engine still differs; show the rest. */
void diff_shrink(const struct diff_case *c, enum diff_engine e);
