/*
 * What -drive and -blockdev share: keys that both have, and values that are words.
 * Threads: before the machine exists.
 */
#pragma once
#include "main/keyval.h"
#include "main/options.h"

struct block_word {
	const char *name;
	int value;
};

/* The keys that block_opt_common takes, for lists of what is known. */
#define BLOCK_OPT_COMMON \
	"discard", "detect-zeroes", "cache.direct", "cache.no-flush", "aio", "offset", "size", \
		"cache-size", "lazy-refcounts", "force-share"

/* One of the words, which end with a NULL name. *v stays when the key is absent. */
int block_opt_word(struct keyval *k, const char *key, const struct block_word *w, int *v,
		   struct err *e) must_check;
/* Bytes, or a plain number, with a suffix. *v stays when the key is absent. */
int block_opt_size(struct keyval *k, const char *key, uint64_t *v, struct err *e) must_check;
/* A copy that the options keep. *v stays when the key is absent. */
int block_opt_string(struct options *o, struct keyval *k, const char *key, const char **v,
		     struct err *e) must_check;
int block_opt_aio(struct keyval *k, const char *key, struct block_opts *b,
		  struct err *e) must_check;
int block_opt_locking(struct keyval *k, const char *key, struct block_opts *b,
		      struct err *e) must_check;
/* Keys of a node that both options spell alike. */
int block_opt_common(struct keyval *k, struct block_opts *b, struct err *e) must_check;
