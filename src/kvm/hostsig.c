/*
 * Host signals. See hostsig.h.
 *
 * While KVM_RUN works, signals stay blocked and are looked for, because a handler must not run on
 * the guest's stack and the call must return -EINTR first. A pending signal is left pending: the
 * handler runs when the mask is restored, or user space takes it with sigwait.
 */
#include "kvm/hostsig.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

static sigset_t hostsig_set(uint64_t mask)
{
	sigset_t set;

	sigemptyset(&set);
	memcpy(&set, &mask, sizeof(mask));
	return set;
}

static uint64_t hostsig_mask(const sigset_t *set)
{
	uint64_t mask;

	memcpy(&mask, set, sizeof(mask));
	return mask;
}

/* Signals that tell of a fault in the thread itself: blocking them would kill or loop. */
static uint64_t hostsig_faults(void)
{
	static const int sig[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
	uint64_t m = 0;

	for (unsigned i = 0; i < sizeof(sig) / sizeof(sig[0]); i++)
		m |= 1ull << (sig[i] - 1);
	return m;
}

uint64_t hostsig_block(void)
{
	sigset_t set = hostsig_set(~hostsig_faults()), old;

	pthread_sigmask(SIG_SETMASK, &set, &old);
	return hostsig_mask(&old);
}

void hostsig_restore(uint64_t mask)
{
	sigset_t set = hostsig_set(mask);

	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

bool hostsig_pending(uint64_t mask)
{
	sigset_t set;

	return !sigpending(&set) && (hostsig_mask(&set) & ~mask);
}

int hostsig_fd(int fd, uint64_t mask)
{
	sigset_t set = hostsig_set(~mask);

	return signalfd(fd, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int hostsig_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}
