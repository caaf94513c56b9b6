/*
 * The part of struct vcpu that generated code reaches: it is addressed from gs.
 *
 * Threads: the vCPU's own.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define JIT_TLB_BITS 12
#define JIT_TLB_SIZE (1u << JIT_TLB_BITS)
/* No access finds it: not canonical, so la ^ key is never a page offset. */
#define JIT_TLB_EMPTY 0x4000000000000000ull

struct jit_tlb_entry {
	uint64_t key;  /* page address, or JIT_TLB_EMPTY */
	uint64_t host; /* host address of the page */
};
/* Apart, so that copying from one page to another of the same index does not go back and forth. */
enum { JIT_READ, JIT_WRITE };

#define JIT_IBTC_BITS 14
#define JIT_IBTC_SIZE (1u << JIT_IBTC_BITS)
struct jit_ibtc_entry {
	uint64_t tag; /* linear address ^ token, whose low bits index; 0 is never one */
	void *code;
	uint64_t slide; /* for env.slide, env.link */
	uint32_t link;
	uint32_t spare;
};

/* Pages of user code: what a target in one that is not in ibtc is looked up by. */
#define JIT_CTLB_BITS 10
#define JIT_CTLB_SIZE (1u << JIT_CTLB_BITS)
struct jit_ctlb_entry {
	uint64_t tag;   /* linear address of the page ^ token; 0 is never one */
	uint64_t delta; /* host minus linear address */
	uint64_t slide;
	uint32_t link;
	uint32_t spare;
};
/*
 * Where code is that slides, by host address of the guest's, in any address space; and the
 * kernel's, which user code soon takes out of ibtc, by its tag there. Bit 63 tells the two apart.
 */
#define JIT_PLACE_BITS 16
#define JIT_PLACES     (1u << JIT_PLACE_BITS)
struct jit_place {
	uint64_t key; /* 0: free */
	void *code;
};
#define JIT_SAMPLE \
	32 /* jumps to other address spaces' targets between two that are linked anew \
	    */

#define JIT_COUNTS 8192 /* blocks share them */
#define JIT_DELTAS 64

enum { VEC_OUT, VEC_SSE, VEC_AVX };
enum {
	JIT_HOT_NOT,
	JIT_HOT_BLOCK, /* make a trace */
	JIT_HOT_STALE, /* a trace may not run */
	JIT_HOT_DEAD,  /* the block has gone */
	JIT_HOTS,
};
/*
 * Contexts of data, as enum tlb_ctx; and of code: those for 64-bit mode, then the same for 32-bit
 * code in flat segments.
 */
enum { JIT_CTXS = 3, JIT_CODE_CTXS = 2 * JIT_CTXS };

struct jit_env {
	void *self;   /* struct vcpu */
	uint64_t tmp; /* scratch of the glue code */
	uint64_t tmp2;
	uint64_t tmp3;
	uint64_t slide; /* linear addresses of the block that runs, minus those in its code */
	/*
	 * What makes code addresses of a context valid: token enters the tags of ibtc, link is
	 * compared by direct jumps across pages (of one block to another: both have one mode).
	 */
	uint64_t token[JIT_CODE_CTXS];
	uint32_t link[JIT_CTXS]; /* of the user's: depends on slide, too */
	uint32_t sample;         /* until the next sample; negative: taken */
	uint32_t host_mxcsr;
	uint16_t host_fcw;
	uint32_t vec_was;           /* vec_live before the C function under way was called */
	uint8_t vec_live;           /* VEC_*: guest vector registers and MXCSR are in the host's */
	uint8_t vec_level;          /* what CR4 and XCR0 allow */
	uint8_t x87_live;           /* guest x87 and MMX registers are in the host's */
	uint8_t leave;              /* the helper wants generated code to end */
	uint8_t interp_once;        /* run the next block by the interpreter */
	uint8_t hot;                /* JIT_HOT_*: why generated code has left */
	uint32_t steps;             /* with check: instructions that a trace has run */
	uint32_t count[JIT_COUNTS]; /* arrivals at blocks until a trace is made there */
	uint64_t delta[JIT_DELTAS]; /* of a trace: host minus guest address of a page in use */
	uint8_t check;              /* CHECK_* of check.h: a block is being compared */
	struct jit_place *places;
	void *meta; /* descriptions of blocks */
	struct jit_ibtc_entry ibtc[JIT_IBTC_SIZE];
	struct jit_ctlb_entry ctlb[JIT_CTLB_SIZE];
	struct jit_tlb_entry tlb[JIT_CTXS][2][JIT_TLB_SIZE]; /* JIT_READ, JIT_WRITE */
};
