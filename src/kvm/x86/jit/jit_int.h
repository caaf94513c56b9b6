/*
 * Inside the translator: its state, blocks, and the interfaces between its files.
 *
 * Threads: the vCPU's own.
 */
#pragma once
#include <stddef.h>

#include "kvm/x86/interp/block.h"
#include "kvm/x86/interp/exec.h"
#include "kvm/x86/jit/asm.h"
#include "kvm/x86/jit/jit.h"
#include "kvm/x86/jit/watch.h"
#include "kvm/x86/vcpu.h"

struct jit_block;

/* lean.c: changes of level without vector registers. */
enum jit_lean { JIT_SYSCALL, JIT_SYSRET, JIT_IRET, JIT_LEANS };

/* A patched jump of one block to another. */
struct jit_link {
	struct jit_link *next;    /* others that lead to the same block */
	struct jit_block *target; /* NULL: goes to its stub */
	uint32_t site;            /* offset in the code of the rel32 */
	uint32_t stub;            /* where it goes when it leads nowhere */
	uint32_t stamp;           /* offset of the imm32 compared with env.link; 0: same page */
	uint32_t other;           /* where it looks the target up; 0: nowhere */
	gva_t la;                 /* where it leads, before the slide */
	uint16_t live;            /* F_*: flags that are right there */
	uint8_t ctx;              /* of the code; tells whose env.link it compares */
	bool mem;                 /* arrives with the flags in v->fl */
	bool plain;               /* leads to the block even where a trace begins */
	bool trace;               /* is a trace's */
};

/* A page's list of the blocks made of its bytes. */
struct jit_ref {
	struct jit_ref *next;
	struct jit_block *b;
};
#define JIT_TRACE_PAGES 4

struct jit_block {
	struct jit_block *hash_next;
	struct jit_ref ref[JIT_TRACE_PAGES];
	struct jit_link *in; /* jumps that lead here */
	struct kvm_page *page;
	const uint8_t *host; /* host address of the guest code */
	gva_t la;            /* linear address; before the slide, if it slides */
	uint64_t made;       /* slide when it was made */
	uint64_t runs;       /* executions, if j->counting */
	uint32_t gen;
	uint32_t entry;     /* code offset: EFLAGS hold the flags */
	uint32_t entry_mem; /* flags are in v->fl */
	uint32_t size;      /* of the code, from entry_mem on */
	uint16_t n;         /* instructions */
	uint8_t ctx;
	bool slides;             /* runs at any linear address: see cache.c */
	uint8_t dead;            /* removed; memory goes with the cache */
	uint8_t avx;             /* has AVX instructions */
	uint8_t fpu;             /* has any of x87, MMX, SSE, AVX */
	uint8_t tries;           /* to make a trace here */
	struct jit_trace *trace; /* NULL: an ordinary block */
	uint16_t count;          /* index in env.count */
	uint16_t nlink;
	struct jit_link *link;
	/* of the interpreter's block, which lives until all code goes; a trace has its own */
	struct insn *insns;
	/* an instruction that goes on in the next page: that, and as jit_trace.stamp */
	const uint8_t *second;
	uint32_t stamp;
};

/* Descriptions by number in generated code: this power of two bytes from the start of meta. */
#define JIT_PLACE_SHIFT 3
static inline uint32_t jit_place_of(const uint8_t *meta, const void *p)
{
	return (uint32_t)((size_t)((const uint8_t *)p - meta) >> JIT_PLACE_SHIFT);
}

/* What a call from generated code to the interpreter's function needs; index in generated code. */
struct jit_desc {
	const struct insn *insn;
	gva_t rip;
};

#define JIT_CACHE_MIB  128
#define JIT_HASH       (1u << 16)
#define JIT_PAGES      (1u << 12)
#define JIT_VPAGES     (1u << 20)
#define JIT_PAIRS      256
#define JIT_HEAT       12 /* by default */
#define JIT_TRACE_HEAT 300

/* Pages with translated code. */
struct jit_page {
	struct jit_page *next;
	struct kvm_page *page;
	struct jit_ref *blocks;
	gva_t home; /* linear address that user code in it is made for; 0: none yet */
	uint32_t gen;
	uint8_t moved; /* how often home has changed */
};

/* A number for the links of user code at one slide in one address space. */
struct jit_pair {
	uint64_t slide;
	uint32_t serial; /* of the address space */
	uint32_t number; /* 0: free */
};

/* An upper half of the address space with kernel code of its own: kspace.c. */
#define JIT_KSPACES 4
#define JIT_KSLOTS  8
#define JIT_KPAGES  2048 /* half of them are used at most */
struct jit_kspace {
	bool used;
	uint64_t entry[JIT_KSLOTS]; /* of its root table, those of kslot */
	uint32_t serial[2];         /* of the kernel's contexts, without and with AC */
	unsigned npages;
	struct jit_kpage {
		gva_t la;            /* see kspace_page; 0: free */
		const uint8_t *host; /* where it led; NULL: nowhere */
	} page[JIT_KPAGES];
};

/*
 * Bloom filter of the linear pages that code was reached at. INVLPG of one makes all links stale,
 * so a data page must seldom be taken for one.
 */
struct jit_vpages {
	uint64_t bit[JIT_VPAGES / 64];
	unsigned n; /* bits set */
};

struct jit {
	struct vcpu *v;
	uint8_t *rw, *rx; /* the code, writable and executable mapping */
	size_t code_size;
	unsigned heat;       /* runs in the interpreter before a block is translated */
	unsigned trace_heat; /* arrivals at a block before a trace is made; 0: never */
	unsigned next_count;
	struct jit_rec *rec; /* a trace being recorded: trace.c */
	size_t used;
	uint8_t *meta;
	size_t meta_used, meta_size;
	struct jit_desc *descs;
	uint32_t ndescs, max_descs;
	struct jit_block *hash[JIT_HASH];
	struct jit_page *pages[JIT_PAGES];
	size_t glue_end; /* code below it is the glue */
	/* glue, as addresses in rx */
	uint64_t g_enter, g_exit, g_exec, g_exec_end, g_vec;
	uint64_t g_hot[JIT_HOTS], g_unlinked;
	/* S0: address ^ token; go there by ctlb and places, or to the address in S1 */
	uint64_t g_place, g_place_kernel;
	uint64_t g_lean[JIT_LEANS];
	uint64_t g_exec_x87, g_x87;      /* g_exec in blocks with x87; entry of such a block */
	uint64_t g_other[JIT_CODE_CTXS]; /* go by ibtc to where a link leads, or leave */
	uint32_t serial;                 /* last context number given */
	uint32_t user_serial;            /* of the user's context */
	uint32_t last_pair;              /* last number of a pair given */
	struct jit_pair pairs[JIT_PAIRS];
	uint32_t asid_serial[4096];
	struct jit_vpages vpages[2]; /* of user and kernel code */
	bool kernel_low; /* kernel code in the lower half has run in this address space */
	uint16_t kslot[JIT_KSLOTS]; /* entries of root tables that lead to kernel code not global */
	unsigned nkslots, kspace_now;
	struct jit_kspace kspace[JIT_KSPACES];
	struct jit_check *check;               /* lockstep with the interpreter, or NULL */
	struct jit_link *pending;              /* the jump that was taken to leave */
	uint64_t wgpa[JIT_CTXS][JIT_TLB_SIZE]; /* page of a write entry */
	/*
	 * TLB indexes filled since the last flush, by context; of the kernel's only those of pages
	 * that are not global
	 */
	uint16_t log[JIT_CTXS][JIT_TLB_SIZE / 2];
	uint16_t nlog[JIT_CTXS]; /* JIT_TLB_SIZE / 2: overflowed */
	struct jit_stat stat;
	uint64_t calls[I_COUNT];     /* stat.execs by row */
	bool counting;               /* blocks count their executions */
	struct jit_profile *profile; /* counts of blocks that are gone */
};

#define JIT_OFF(field) ((uint32_t)offsetof(struct vcpu, field))
#define JIT_OFF_R(n)   ((uint32_t)(offsetof(struct vcpu, r) + 8 * (n)))

/* Guest register -> host register, or -1 when it stays in memory. */
static inline int jit_host_reg(unsigned guest)
{
	switch (guest) {
	case REG_RSP: return H_R9;
	case REG_R9:
	case REG_R10:
	case REG_R11: return -1;
	default: return (int)guest;
	}
}
enum { S0 = H_R10, S1 = H_R11 }; /* scratch */

/* Context of data accesses: enum tlb_ctx, or more while none is in use. */
static inline unsigned jit_data_ctx(const struct vcpu *v)
{
	return (unsigned)((v->tlb - v->tlbs[0]) / TLB_SIZE);
}
/* Context of code, where jit_data_ctx is one; in 64-bit mode or with v->flat32. */
static inline unsigned jit_code_ctx(const struct vcpu *v)
{
	return jit_data_ctx(v) + (v->long64 ? 0 : JIT_CTXS);
}
/* May translated code run? Rings 1 and 2 are left out, so that its context tells CPL. */
static inline bool jit_usable(const struct vcpu *v)
{
	return v->jitp && (v->long64 || (v->flat32 && v->r[REG_RIP] <= 0xffffffff)) &&
	       !v->ac_check && v->cpl % 3 == 0 && jit_data_ctx(v) < JIT_CTXS;
}

/*
 * Does user code at la slide? Not near the end of the lower half, where a branch that leaves it
 * faults at one address and not at another.
 */
static inline bool jit_slides(unsigned ctx, gva_t la)
{
	return ctx == TLB_USER && la < 0x7fff00000000;
}

/* Does 64-bit code of the kernel at la have places? */
static inline bool jit_kernel_placed(unsigned ctx, gva_t la)
{
	return ctx != TLB_USER && ctx < JIT_CTXS && la >> 63;
}

static inline struct jit_place *jit_place(struct vcpu *v, uint64_t key)
{
	return &v->jit.places[(key ^ key >> 14) & (JIT_PLACES - 1)];
}

/* The entry of ibtc for la, brought there if it is known; NULL: it is not. */
static inline const struct jit_ibtc_entry *jit_lookup(struct vcpu *v, gva_t la, unsigned ctx)
{
	uint64_t tag = la ^ v->jit.token[ctx], page = (la & PAGE_MASK) ^ v->jit.token[ctx];
	struct jit_ibtc_entry *x = &v->jit.ibtc[tag & (JIT_IBTC_SIZE - 1)];
	const struct jit_ctlb_entry *c = &v->jit.ctlb[(la >> PAGE_SHIFT) & (JIT_CTLB_SIZE - 1)];
	const struct jit_place *p;

	if (x->tag == tag)
		return x;
	if (ctx == TLB_USER) {
		p = jit_place(v, la + c->delta);
		if (c->tag != page || p->key != la + c->delta)
			return NULL;
		*x = (struct jit_ibtc_entry){ tag, p->code, c->slide, c->link, 0 };
		return x;
	}
	p = jit_place(v, tag);
	if (!jit_kernel_placed(ctx, la) || p->key != tag)
		return NULL;
	*x = (struct jit_ibtc_entry){ tag, p->code, 0, 0, 0 };
	return x;
}
/* What has to be so when code in an entry for a context runs. */
static inline void jit_arrive(struct vcpu *v, const struct jit_ibtc_entry *x, unsigned ctx)
{
	v->jit.slide = x->slide;
	if (ctx % JIT_CTXS == TLB_USER)
		v->jit.link[TLB_USER] = x->link;
}

/* ---- glue.c --------------------------------------------------------------------------------- */
void jit_glue(struct jit *j, struct emit *e);
void jit_enter(struct vcpu *v, uint64_t code);
/* Code: go where ibtc's entry at S1 says, with pop added to rSP. Uses S0. */
void jit_ibtc_go(struct emit *e, unsigned ctx, int32_t pop);
/* Code: the target in S0 (^ token) is not in ibtc: look it up. Goes on if it is not known.
 */
void jit_ibtc_second(const struct jit *j, struct emit *e, unsigned ctx);
/* Called from generated code; see glue.c. */
uint64_t jit_call_exec(struct vcpu *v, uint32_t desc);
uint64_t jit_call_exec_end(struct vcpu *v, uint32_t desc);
uint64_t jit_call_vec(struct vcpu *v, uint32_t desc);
/* Copy what the MMU's TLB knows of la's page. */
void jit_tlb_fill(struct vcpu *v, gva_t la, bool write);

/* ---- lean.c ---------------------------------------------------------------------------------- */
/* Host address of translated code for CS:rIP; 0: none, or something is to be done first. */
uint64_t jit_next(struct vcpu *v);
/* Host address to go on at; 0: nothing done, call the interpreter's function. */
uint64_t jit_lean_syscall(struct vcpu *v, uint32_t desc);
uint64_t jit_lean_sysret(struct vcpu *v, uint32_t desc);
uint64_t jit_lean_iret(struct vcpu *v, uint32_t desc);

/* Does the memory operand of a translated instruction need the write entry? */
bool jit_insn_writes(const struct insn *i);

/* ---- fpu.c ---------------------------------------------------------------------------------- */
/* Code that brings x87 state into the host, or stores it; guest registers are in struct vcpu. */
void jit_x87_in(struct emit *e);
void jit_x87_out(struct emit *e);
/* Code for the entry of blocks with x87; slow: where to go when they must not run. */
uint64_t jit_x87_enter(struct emit *e, uint64_t slow);
/* Called from generated code. */
uint64_t jit_call_exec_x87(struct vcpu *v, uint32_t desc);
uint64_t jit_call_x87(struct vcpu *v, uint32_t desc);
/* Is the memory operand of an x87 or MMX instruction written? */
bool jit_x87_writes(const struct insn *i);

/* ---- trans.c -------------------------------------------------------------------------------- */
/*
 * Translate the interpreter's block at la, for la - slide if it slides (else slide is 0); NULL when
 * it cannot be (cache full: flushed).
 */
struct jit_block *jit_translate(struct vcpu *v, struct block *b, gva_t la, unsigned ctx,
				uint64_t slide);
/*
 * Flags read before they are written by the last avail bytes of a page, at code, seen a few
 * instructions ahead. A write to these bytes counts as one to what is translated.
 */
unsigned jit_flags_ahead(struct vcpu *v, struct kvm_page *page, const uint8_t *code, size_t avail);

/* ---- kspace.c ------------------------------------------------------------------------------- */
/* The kernel's contexts have new numbers. */
void jit_kspace_reset(struct vcpu *v);
/* Kernel code at la, in the upper half, is about to be known in this address space. */
void jit_kspace_code(struct vcpu *v, gva_t la);
/* CR3 has changed. flushed: no translation that is not global may be what it was before. */
void jit_kspace_switch(struct vcpu *v, bool flushed);

/* ---- trace.c: see trace.h ------------------------------------------------------------------- */
struct jit_rec *jit_trace_rec_new(void);
bool jit_recording(const struct jit *j);
void jit_trace_abort(struct jit *j);
/*
 * v->jit.hot is set: generated code has left at rIP for that reason. True: a trace there must not
 * run now.
 */
bool jit_trace_hot(struct vcpu *v, const struct block *b, unsigned ctx);
/* b is about to run while a trace is recorded. False: recording has ended, b is not part of it. */
bool jit_trace_record(struct vcpu *v, const struct block *b, unsigned ctx);

/* ---- cache.c -------------------------------------------------------------------------------- */
/*
 * At the entry of each block there is room for a jump that leads out once it is dead, which is not
 * needed any more when the block has begun.
 */
#define JIT_DEAD_BYTES 9
/* Number of the links of a context's code under a slide. */
uint32_t jit_link_number(struct vcpu *v, unsigned ctx, uint64_t slide);
/* A number never given before. Now and then all contexts get new ones. */
uint32_t jit_serial(struct vcpu *v);
void jit_set_context(struct vcpu *v, unsigned ctx, uint32_t serial);
/* la's page means what it does now: until a flush of it says otherwise. */
void jit_code_at(struct jit *j, unsigned ctx, gva_t la);
/*
 * Enter jb in the list of a page that it is made of, as its n-th; gen: of the page then. False: no
 * memory.
 */
bool jit_cache_page(struct vcpu *v, struct jit_block *jb, unsigned n, struct kvm_page *page,
		    uint32_t gen, gva_t la);
void jit_cache_add(struct jit *j, struct jit_block *jb);
/* The trace at la, or the block; NULL: none. */
struct jit_block *jit_cache_find(struct jit *j, gva_t la, const uint8_t *host, unsigned ctx,
				 bool trace);
void jit_cache_drop(struct vcpu *v, struct jit_block *jb);
void jit_patch32(struct jit *j, uint32_t at, uint32_t x);
void jit_set_link(struct jit *j, struct jit_link *l, struct jit_block *to);
