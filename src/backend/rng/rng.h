/*
 * Sources of random bytes for the guest: the host's getrandom(2) (rng-builtin), or a file such as
 * /dev/urandom or /dev/hwrng (rng-random).
 * Threads: one user at a time. Host resources: one file descriptor of rng-random.
 */
#pragma once
#include <stddef.h>

#include "base/err.h"

struct rng;

/* NULL only when out of memory. */
struct rng *rng_builtin_new(const char *id);
/* filename NULL: /dev/urandom. NULL and e on failure. */
struct rng *rng_random_new(const char *id, const char *filename, struct err *e);
void rng_free(struct rng *r);
const char *rng_id(const struct rng *r);

/* Up to len bytes without waiting: how many; 0: none now (rng_fd tells when); -errno. */
long rng_get(struct rng *r, void *buf, size_t len);

/* The descriptor to wait for readability on, -1: there are always bytes. */
int rng_fd(const struct rng *r);
