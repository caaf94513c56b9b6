/*
 * The terminal's modes: raw while a guest console has it, as found afterwards.
 *
 * The struct belongs to main/, whose signal handlers (also for crashes) call term_restore().
 * Threads: term_raw from the main thread. term_restore and term_again are async-signal-safe and
 * idempotent.
 */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <termios.h>

#include "base/err.h"

struct term {
	int fd;
	struct termios saved, raw;
	volatile sig_atomic_t is_raw, wanted; /* raw now; raw was asked for once */
};

/* Remember fd's modes. Not a terminal is no error: the others then do nothing. */
void term_init(struct term *t, int fd);

/*
 * No echo, no line editing, no translation; Ctrl-C and friends go to the guest unless keep_isig.
 * Output processing (newline to CR LF) stays on only with keep_opost.
 */
int term_raw(struct term *t, bool keep_isig, bool keep_opost, struct err *e) must_check;

/* Back to the remembered modes, if raw. Also before stopping on SIGTSTP. */
void term_restore(struct term *t);

/* Raw again after SIGCONT, if term_raw was ever called. Async-signal-safe. */
void term_again(struct term *t);
