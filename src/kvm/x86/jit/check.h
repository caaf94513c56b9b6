/*
 * Lockstep: each translated block also runs in the interpreter, from the same state.
 *
 * Theory of operation
 *   The interpreter goes first, with every access made to miss the TLB, so that the slow path can
 *   keep what each store overwrites. Its result is put aside, memory and registers go back to what
 *   they were, and the translated code runs, by itself: blocks are not chained and the inline
 * branch cache is not filled. Then both results are compared, faults included: general registers,
 * rIP, RFLAGS, vector and x87 registers with MXCSR, CR2 and the exception, and every byte of every
 * page written. The translator's TLB has nothing but the pages that the interpreter has accessed,
 * with the same rights, so that a wrong address is either compared or goes through the
 * interpreter's function; every fourth run starts with an empty one. Flags that the translator
 * holds to be dead at an exit are inverted before the next block's translated code runs, which must
 * not depend on them. Flags that the manual leaves undefined are not compared. What cannot be done
 * twice (I/O, MMIO, time, control registers, writes to code) is never compared: rows not known to
 * be pure are blocks of their own in the interpreter, and a block that meets the rest while it runs
 * is undone and given to the interpreter alone. Devices write memory at any time, and page walks
 * set accessed bits: a difference counts when it comes back CHECK_TRIES times in a row.
 *
 * Not modelled: several vCPUs (one could act on memory that is about to be undone); jumps that
 * chain blocks, the inline branch cache, vector and x87 registers that stay in the host's over
 * block borders. References:   jit.h. Threads: the vCPU's own.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct block;
struct insn;
struct jit_block;

/* v->jit.check */
enum { CHECK_NOT, CHECK_RECORD, CHECK_TRANSLATED };

/*
 * Make the vCPU's state for it, after jit_new. 0, -ENOMEM, -ENOTSUP (no translator on this host) or
 * -EINVAL (a second vCPU); says why in the log.
 */
int jit_check_new(struct vcpu *v);
void jit_check_free(struct vcpu *v);

/* May this decoded instruction be run twice? i->exec is set. */
bool jit_check_pure(const struct insn *i);

/*
 * Run jb both ways from the vCPU's state. False: neither has run, the interpreter is to run it.
 * Goes to user space with KVM_EXIT_INTERNAL_ERROR at a difference, and on from the interpreter's
 * result.
 */
bool jit_check_run(struct vcpu *v, struct jit_block *jb);

/* ---- Called by the MMU and at exits while v->jit.check ----------------------------------------
 */

/* The page of la is read or written by an explicit access. */
void jit_check_access(struct vcpu *v, uint64_t la, bool write);
/* len bytes at host are about to be overwritten. code: something decoded lies in the page. */
void jit_check_store(struct vcpu *v, void *host, unsigned len, bool code);
/* Something is about to happen that cannot be undone: leaves the block. */
__attribute__((noreturn)) void jit_check_stop(struct vcpu *v);
