/*
 * A failure described for a person.
 *
 * Fixed buffer: reporting an error never allocates. Functions that can fail for reasons a user
 * can mend take a struct err *, return 0 or -errno, and are must_check; callers prepend context
 * with err_prefix(); only main/ and monitor/ print. A NULL struct err * is allowed everywhere.
 * Threads: the struct belongs to the caller.
 */
#pragma once

struct err {
	int code;      /* errno value, 0 when unset */
	char msg[508]; /* one line, no newline */
};

#define must_check __attribute__((warn_unused_result))

/* Set the message; code is a positive errno. Returns -code, so: return err_set(...). */
__attribute__((format(printf, 3, 4))) int err_set(struct err *e, int code, const char *fmt, ...);

/* Put "PREFIX: " before the message that is there. Returns -e->code (-EINVAL when e is NULL). */
__attribute__((format(printf, 2, 3))) int err_prefix(struct err *e, const char *fmt, ...);
