/*
 * The host's signals as KVM_RUN needs them: masks are bit n-1 for signal n, as the kernel's.
 * (<signal.h> and x86/insn.h both define REG_RAX, so this stays apart from the vCPU's files.)
 *
 * References: [KVM-API 4.18 KVM_SET_SIGNAL_MASK]. Threads: they act on the calling thread.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Block everything but the signals a fault of our own raises. Returns the mask before. */
uint64_t hostsig_block(void);
void hostsig_restore(uint64_t mask);

/* Is a signal pending, for the thread or the process, that mask does not block? */
bool hostsig_pending(uint64_t mask);

/* A descriptor that polls readable in that case. fd: an earlier one to change, or -1. -1 on error.
 */
int hostsig_fd(int fd, uint64_t mask);

/* A thread that takes none of the program's signals. Returns 0 or -errno. */
int hostsig_thread(pthread_t *thread, void *(*fn)(void *), void *arg);
