/*
 * Recovery from floating-point exceptions that host thunks raise.
 *
 * References: [SDM3 6.15]. The kernel's trap numbers in a signal frame are the x86 vectors.
 * Threads:    the handler runs in any; it reads what hostfpe_install wrote before the first thunk.
 */
#include "kvm/x86/interp/hostfpe.h"

#include <errno.h>
#include <signal.h>
#include <ucontext.h>

#include "base/bits.h"

/* A signal handler has no argument of its own: process-wide, written once. */
static struct hostfpe {
	uintptr_t code, size, stub;
	struct sigaction old;
} hostfpe;

static void hostfpe_handler(int sig, siginfo_t *si, void *ctx)
{
	const struct hostfpe *h = &hostfpe;
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	if ((uint64_t)g[REG_RIP] - h->code < h->size) {
		g[REG_RAX] = g[REG_TRAPNO];
		g[REG_RIP] = (greg_t)h->stub;
	} else if (h->old.sa_flags & SA_SIGINFO) {
		h->old.sa_sigaction(sig, si, ctx);
	} else if (h->old.sa_handler == SIG_DFL || h->old.sa_handler == SIG_IGN) {
		/* A real one cannot be ignored: it would repeat. */
		signal(SIGFPE, SIG_DFL);
		raise(SIGFPE);
	} else {
		h->old.sa_handler(sig);
	}
}

int hostfpe_install(const void *code, size_t size, const void *stub)
{
	struct sigaction sa = { .sa_sigaction = hostfpe_handler,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };

	hostfpe.code = (uintptr_t)code;
	hostfpe.size = size;
	hostfpe.stub = (uintptr_t)stub;
	sigemptyset(&sa.sa_mask);
	return sigaction(SIGFPE, &sa, &hostfpe.old) ? -errno : 0;
}

int hostfpe_unblock(void)
{
	sigset_t fpe, old;

	sigemptyset(&fpe);
	sigaddset(&fpe, SIGFPE);
	pthread_sigmask(SIG_UNBLOCK, &fpe, &old);
	return sigismember(&old, SIGFPE);
}

void hostfpe_restore(int was_blocked)
{
	sigset_t fpe;

	if (!was_blocked)
		return;
	sigemptyset(&fpe);
	sigaddset(&fpe, SIGFPE);
	pthread_sigmask(SIG_BLOCK, &fpe, NULL);
}
