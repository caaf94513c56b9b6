/*
 * Looking at the translator: counters, executions of blocks, logs, the perf map.
 *
 * Nothing here changes what code does. Counters are always kept; executions are counted by
 * generated code only when kvm_options.jit_profile asks for it.
 *
 * References: docs/translator.md "How to look at it".
 * Threads:    the vCPU's own but where said.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"

struct vcpu;
struct jit;
struct jit_block;
struct err;
struct emit;

/* Since the vCPU was made. */
struct jit_stat {
	uint64_t blocks, insns;     /* translated, again after invalidation or a flush */
	uint64_t traces;            /* of these blocks */
	uint64_t bytes, host_bytes; /* guest code of these, and what it became */
	uint64_t ns;                /* time spent translating */
	uint64_t invalidated;       /* blocks whose bytes were written */
	uint64_t flushes;           /* all code dropped */
	uint64_t flushed_bytes;     /* host code that these found */
	uint64_t links;             /* jumps patched to go from block to block */
	uint64_t exits;             /* returns of generated code to the run loop */
	uint64_t link_exits;        /* of these: at a jump that was not patched */
	uint64_t ibtc_fills;        /* indirect targets that the table did not have */
	uint64_t tlb_fills;         /* pages copied from the MMU's TLB */
	uint64_t execs;             /* instructions run by the interpreter's function */
};

/* ---- stat.c ---------------------------------------------------------------------------------- */

/* jb has just been made, in ns: count it, log it, name it. */
void jit_watch_block(const struct vcpu *v, const struct jit_block *jb, uint64_t ns);

/* Linear address of its n-th instruction; host address of a byte of its code. */
gva_t jit_block_rip(const struct jit_block *jb, unsigned n);
const uint8_t *jit_block_bytes(const struct jit_block *jb, gva_t la);

/*
 * Emit the counting of an execution, of a turn in a trace that is a loop: flags stay, the scratch
 * registers do not.
 */
void jit_emit_count(struct emit *e, const struct jit_block *jb);

/* Keep the executions of a block that goes; of all blocks, which all go. */
void jit_profile_keep(struct jit *j, const struct jit_block *jb);
void jit_profile_keep_all(struct jit *j);
void jit_profile_free(struct jit *j);

/*
 * What `info jit` prints, of n vCPUs together. The text is allocated with malloc; NULL: no memory.
 * Any thread, while none of them runs.
 */
char *jit_info(struct vcpu *const *v, unsigned n);

/* ---- log.c ----------------------------------------------------------------------------------- */

/* Guest and host code of a block to standard error, as kvm_options.jit_log asks. */
void jit_log_block(const struct vcpu *v, const struct jit_block *jb);

/* ---- perfmap.c ------------------------------------------------------------------------------- */

/* A new file for this process's names: a descriptor, or -errno with e set. Any thread. */
int jit_perfmap_open(struct err *e);
/* Name the routines around blocks; name a block. vm->perf_fd >= 0. */
void jit_perfmap_glue(const struct vcpu *v);
void jit_perfmap_block(const struct vcpu *v, const struct jit_block *jb);

/* ---- The code around blocks, by name --------------------------------------------------------- */

struct jit_glue_name {
	uint64_t at;
	size_t size;
	const char *name;
	bool place; /* called with the place of a description, not with the index of one */
};
enum { JIT_GLUE_NAMES = 24 };
/* By address; how many there are. */
unsigned jit_glue_names(const struct jit *j, struct jit_glue_name out[JIT_GLUE_NAMES]);

/* "user", "kernel". ctx: enum tlb_ctx */
const char *jit_ctx_name(unsigned ctx);
