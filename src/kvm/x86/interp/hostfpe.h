/*
 * Recovery from floating-point exceptions that host thunks raise.
 *
 * A SIGFPE whose rIP is inside the thunks' code is diverted to a stub there, with the exception's
 * vector in rax; any other SIGFPE goes to the handler that the process had before.
 * (<signal.h> and x86/insn.h both define REG_RAX, so this stays apart from the thunks' files.)
 *
 * References: [SDM3 6.15 "Interrupt 16, 19"]. Threads: as said.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Install the handler for code [code, code + size). Once for a process. Returns 0 or -errno. */
int hostfpe_install(const void *code, size_t size, const void *stub);

/* Let the calling thread take SIGFPE; the result goes to hostfpe_restore. */
int hostfpe_unblock(void);
void hostfpe_restore(int was_blocked);
