/* See thread.h. */
#include "core/thread.h"

#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

int thread_start(pthread_t *t, void *(*fn)(void *opaque), void *opaque)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS };
	sigset_t set, old;
	int rc;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&set, faults[i]); /* the crash handler restores the terminal */
	pthread_sigmask(SIG_SETMASK, &set, &old);
	rc = pthread_create(t, NULL, fn, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int thread_id(void)
{
	static _Thread_local int tid; /* of the thread, so not shared; gettid costs a system call */

	if (!tid)
		tid = (int)syscall(SYS_gettid);
	return tid;
}
