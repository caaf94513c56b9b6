/*
 * The translator: guest code as host code, for code that runs often.
 *
 * Theory of operation
 *   The interpreter's blocks count how often they run; a hot one is translated. Host registers hold
 *   the guest's of the same name, but for guest rSP (host r9) and guest r9, r10, r11, which stay in
 *   struct vcpu; host r10 and r11 are scratch, host rsp is the vCPU's own stack, and gs points to
 *   struct vcpu. EFLAGS hold the guest's; vector registers too once a block has needed them
 *   (v->jit.vec_live), and so do x87 and MMX registers (v->jit.x87_live; see fpu.c).
 *   A memory access looks its page up in v->jit.tlb, a small direct-mapped table for each way of
 *   accessing (user, kernel, kernel with AC), and uses the host address it gives. On a miss the
 *   instruction is run by the interpreter's function, which faults, does MMIO, or fills the TLB; so
 *   is any instruction without an emitter. Hence the translator is complete, and exact where the
 *   interpreter is.
 *   Flags that the code which follows is known to overwrite before reading are not kept; an
 *   exception frame may show them different from a processor's, and so may an instruction that the
 *   store just before it has put in the place of one that overwrites them. Flags that the manuals
 *   leave undefined and processors leave as they were (MUL, BT) count as overwritten. All others
 *   are exact.
 *   What is hot becomes traces, with lookups shared: trace.h.
 *   Direct jumps are patched to go from block to block. Inside a page nothing can be wrong with
 *   that; across pages the jump first compares v->jit.link with what it was when it was made, which
 *   changes with the address space. Indirect jumps look up v->jit.ibtc.
 *   Each vCPU has its own code, so that nothing is locked: a write to translated bytes changes the
 *   page's generation, and the vCPUs are asked (REQ_CODE) to look at their pages.
 *
 * Modelled:     64-bit mode, 32-bit code in flat segments (flat.c); everything else is interpreted.
 * References:   DESIGN.md section 3; [SDM3 8.1.3] for self- and cross-modifying code.
 * Threads:      the vCPU's own.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vcpu;
struct block;
struct kvm_options;
struct kvm_page;

/* Bytes of translated code that a vCPU keeps. */
size_t jit_cache_size(const struct kvm_options *o);
/* Make the vCPU's translator; 0 or -ENOMEM, -ENOTSUP (the host lacks what it needs). */
int jit_new(struct vcpu *v);
void jit_free(struct vcpu *v);

/*
 * Run translated code at CS:rIP, if there is any, until something needs the run loop. False: there
 * is none, run b (the interpreter's block there) by other means. b is counted and may be
 * translated.
 */
bool jit_run(struct vcpu *v, struct block *b);
/* The same before the block is known: true when translated code was found by address and has run.
 */
bool jit_run_known(struct vcpu *v);

/* The thread that resumes the vCPU may be another: point gs to it. Before jit_run. */
void jit_thread(struct vcpu *v);

/* ---- Invalidation: called by the MMU and the block cache ------------------------------------- */
void jit_tlb_flush(struct vcpu *v); /* all translations */
void jit_tlb_flush_page(struct vcpu *v, uint64_t la);
void jit_tlb_drop_writes(struct vcpu *v, uint64_t gpa_page);
/* Addresses may mean other code: another address space, INVLPG of a page with code. */
void jit_new_context(struct vcpu *v);
/* v->asid is new, or is another one that was in use before. */
void jit_new_asid(struct vcpu *v);
void jit_set_asid(struct vcpu *v);
/* Decoded bytes of a page have been written: forget what was made of them. */
void jit_page_written(struct vcpu *v, const struct kvm_page *page);
/* This vCPU has written decoded bytes: jit_page_written here, REQ_CODE to the others. */
void jit_code_written(struct vcpu *v, const struct kvm_page *page);
/* REQ_CODE: some page was written by somebody else. */
void jit_check_pages(struct vcpu *v);
/* Forget all code. Not while it runs. */
void jit_flush(struct vcpu *v);
