/*
 * Stack switching: a vCPU runs on its own stack, so that an exit in the middle of an instruction
 * is a switch and KVM_RUN resumes where it stood.
 *
 * One coroutine belongs to one thread at a time (it may move between resumes). AddressSanitizer
 * and ThreadSanitizer are told of each switch. Not modelled: passing values (use the owner's
 * struct), symmetric switches between coroutines.
 * References: [SYSV-AMD64 3.2.1 "registers"].
 */
#pragma once
#include <stddef.h>

#include "base/err.h"

struct coro;

/*
 * Make a coroutine that will run fn(arg) on a stack of `stack` bytes (rounded up to pages, with a
 * guard page below). fn must not return before coro_free is acceptable: when it returns, the
 * coroutine is finished and must not be resumed. Errors: -ENOMEM.
 */
int coro_new(struct coro **out, size_t stack, void (*fn)(void *arg), void *arg,
	     struct err *e) must_check;

/* Run the coroutine until it yields or finishes. Call from ordinary code, not from within it. */
void coro_resume(struct coro *c);

/* From inside: go back to the caller of coro_resume. Returns at the next coro_resume. */
void coro_yield(struct coro *c);

/* Free the stack. The coroutine must not be running; what was on its stack is dropped. */
void coro_free(struct coro *c);
