/*
 * The program: options, terminal, signals, machine.
 *
 * Signals: SIGINT, SIGTERM and SIGHUP become an exit request in the event loop, SIGUSR1 one to
 * print the translator's counters, SIGUSR2 one that presses the power button. SIGTSTP and SIGCONT
 * give the terminal back and take it again; SIGCONT also ends a pause after an I/O error. A crash
 * (SIGSEGV, SIGABRT and their kind) restores the terminal and then dies of the same signal. All
 * handlers touch only the file-scope objects below: a signal has no other way to find them. Exit
 * status: see -help.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "main/options.h"

static struct term main_term;
static int main_signal_fd = -1;
static volatile sig_atomic_t main_signal_end; /* one of those that end */
static volatile sig_atomic_t main_signal_button, main_signal_info, main_signal_size,
	main_signal_cont;

static void main_on_request(int sig)
{
	int saved = errno;
	uint64_t one = 1;

	switch (sig) {
	case SIGUSR1: main_signal_info = 1; break;
	case SIGUSR2: main_signal_button = 1; break;
	case SIGWINCH: main_signal_size = 1; break;
	default: main_signal_end = 1; break;
	}
	(void)!write(main_signal_fd, &one, sizeof(one));
	errno = saved;
}

static void main_on_crash(int sig)
{
	/* SA_RESETHAND: the second delivery kills, with the status and core of the first. */
	term_restore(&main_term);
	raise(sig);
}

static void main_on_stop(int sig)
{
	int saved = errno;

	term_restore(&main_term);
	raise(SIGSTOP);
	errno = saved;
}

static void main_on_cont(int sig)
{
	int saved = errno;
	uint64_t one = 1;

	term_again(&main_term);
	main_signal_cont = 1;
	(void)!write(main_signal_fd, &one, sizeof(one));
	errno = saved;
}

static void main_handle(const int *sigs, unsigned n, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < n; i++)
		sigaction(sigs[i], &sa, NULL);
}

/*
 * flags 0 while the machine is made: a file that blocks its open (a FIFO, a dead file server) gives
 * EINTR and ends that. Later SA_RESTART: a write to a disk is not to fail for a signal.
 */
static void main_end_signals(int flags)
{
	static const int end[] = { SIGINT, SIGTERM, SIGHUP };

	main_handle(end, ARRAY_SIZE(end), main_on_request, flags);
}

static int main_signals(struct err *e)
{
	static const int crash[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT };
	static const int stop[] = { SIGTSTP }, cont[] = { SIGCONT };
	static const int ignore[] = { SIGPIPE, SIGXFSZ }; /* the write says so */
	static const int info[] = { SIGUSR1, SIGUSR2, SIGWINCH };

	main_signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (main_signal_fd < 0)
		return err_set(e, errno, "eventfd: %s", strerror(errno));
	main_end_signals(0);
	main_handle(info, ARRAY_SIZE(info), main_on_request, SA_RESTART);
	/* On the alternate stack when a thread has one: the software engine's may be the cause. */
	main_handle(crash, ARRAY_SIZE(crash), main_on_crash,
		    SA_RESETHAND | SA_ONSTACK | SA_NODEFER);
	main_handle(stop, ARRAY_SIZE(stop), main_on_stop, SA_RESTART);
	main_handle(cont, ARRAY_SIZE(cont), main_on_cont, SA_RESTART);
	main_handle(ignore, ARRAY_SIZE(ignore), SIG_IGN, 0);
	return 0;
}

static void main_signal_ready(void *opaque, unsigned ready)
{
	struct machine *m = opaque;
	uint64_t n;

	(void)!read(main_signal_fd, &n, sizeof(n));
	if (main_signal_size) {
		main_signal_size = 0;
		chardevs_look_size(&m->chardevs);
	}
	if (main_signal_end)
		machine_request(&m->run, REQ_EXIT_STATUS(0, "signal"));
	else if (main_signal_button)
		machine_request(&m->run, REQ_OF(REQ_BUTTON, "signal"));
	else if (main_signal_info)
		machine_request(&m->run, REQ_OF(REQ_INFO, "signal"));
	else if (main_signal_cont)
		machine_request(&m->run, REQ_OF(REQ_CONT, "signal"));
	main_signal_button = main_signal_info = main_signal_cont = 0;
}

static void main_restore(void)
{
	term_restore(&main_term);
}

static int main_machine(const struct options *o, int *status, struct err *e)
{
	struct loop_fd sig = { .fn = main_signal_ready, .fd = main_signal_fd, .slot = -1 };
	struct machine *m;
	int r = machine_new(&o->cfg, o->board, &main_term, &m, e);

	if (r < 0)
		return r;
	main_end_signals(SA_RESTART);
	sig.opaque = m;
	r = loop_fd_add(m->loop, &sig, LOOP_IN, e);
	if (r == 0) {
		*status = machine_run(m);
		loop_fd_del(m->loop, &sig);
	}
	machine_free(m);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct err e = { 0 };
	int status = 0, r;

	term_init(&main_term, STDIN_FILENO);
	atexit(main_restore);
	r = options_parse(&o, argc, argv, &e);
	if (r == 0 && !o.done) {
		if (o.process || o.name)
			prctl(PR_SET_NAME, o.process ? o.process : o.name);
		r = main_signals(&e);
		if (r == 0)
			r = main_machine(&o, &status, &e);
	}
	term_restore(&main_term);
	if (r < 0) {
		fprintf(stderr, "kvasir: %s\n", e.msg);
		status = 1;
	}
	options_free(&o);
	return status;
}
