/*
 * Host thunks: small pieces of host code that run one guest instruction on the host's own units.
 *
 * A thunk loads the registers that the instruction uses from struct vcpu, executes the guest's own
 * encoding (memory operand rewritten to [rsi], general registers to scratch ones, vector registers
 * as they are) and stores back what it wrote. Results, rounding, NaNs, exceptions and undefined
 * flags are therefore the host processor's.
 *
 * Thunks are made once for each distinct encoding and shared by all vCPUs of the process; they are
 * never freed, so a pointer to one may be kept anywhere. The code lives in a memfd mapped twice,
 * writable and executable, never both at one address. When its fixed size is used up (a guest can
 * make as many encodings as it likes), further instructions run uncached from one slot under a
 * lock: slower, still right.
 *
 * References: [SDM1 8.7, 11.5], [KVM-x86] for the role of host FPU use.
 * Threads:    any.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "x86/decode.h"
#include "x86/emit.h"
#include "x86/insn.h"

struct vcpu;

enum {
	HT_MEM = 1 << 0,     /* has a memory operand, msize bytes */
	HT_STORE = 1 << 1,   /* which it writes, else reads */
	HT_ALIGN = 1 << 2,   /* and which must be aligned to msize */
	HT_GUARD = 1 << 3,   /* runs under the guest's MXCSR or x87 control word */
	HT_FX = 1 << 4,      /* loads and stores the whole FXSAVE area */
	HT_X87 = 1 << 5,     /* x87 instruction that sets FIP, FOP and FDP */
	HT_WAIT = 1 << 6,    /* x87 store that an unmasked exception suppresses */
	HT_UNCACHED = 1 << 7 /* fn is not set: host_thunk_run_uncached */
};

/* Returns 0, or the vector (VEC_MF, VEC_XM) of the exception that the instruction raised. */
typedef uint64_t host_fn(struct vcpu *v, void *mem);

struct host_thunk {
	host_fn *fn; /* NULL without HT_UNCACHED: the host lacks the instruction */
	uint64_t key;
	uint16_t flags; /* HT_* */
	uint8_t msize;
	/* What fpu_check asks of the row, as masks: bits that must be 0 or 1. */
	uint8_t cr0_clear, xcr0_set;
	uint32_t cr4_set;
};

/*
 * The thunk of a decoded HOST instruction, made if need be. mode: of the code segment (it decides
 * how many vector registers an immediate can name). NULL when the cache is full.
 */
void *host_thunk_get(const struct insn *i, enum decode_mode mode);

/* Describe i as host_thunk_get would, without making code: flags has HT_UNCACHED. */
void host_thunk_describe(const struct insn *i, enum decode_mode mode, struct host_thunk *t);
/* Make the code of i and run it once. vCPU thread. */
uint64_t host_thunk_run_uncached(struct vcpu *v, const struct insn *i, void *mem);

/* Whether the host processor and its OS have the feature that a row names. */
bool host_has_feature(enum insn_feature f);
/* Numbers for tests and statistics: thunks made, bytes of code used. */
void host_thunk_usage(unsigned *thunks, unsigned *bytes);
/* For tests: pretend that the cache is full (or no longer). */
void host_thunk_set_full(bool full);

/* What an instruction needs: fills t but fn, and writes the code to e unless e is NULL. */
void host_thunk_generate(const struct insn *i, enum decode_mode mode, struct host_thunk *t,
			 struct emit *e);
/* Code to which the SIGFPE handler diverts a thunk; the vector is in rax. avx: the host has it. */
void host_thunk_generate_stub(struct emit *e, bool avx);
