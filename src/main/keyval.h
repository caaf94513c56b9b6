/*
 * "a,b=c,d=e" as QEMU's options take it: a list of keys and values, ",," for a comma in a value.
 * Threads: the struct belongs to its owner.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { KEYVAL_MAX = 48 };

struct keyval {
	const char *option; /* "-smp", for messages */
	char *buf;          /* owned; keys and values point into it */
	unsigned n;
	struct {
		char *key, *val;
		bool used; /* somebody asked for it */
	} kv[KEYVAL_MAX];
};

/*
 * implied: the key of a first element without "=", or NULL. A later element without "=" is a
 * switch: value "on".
 */
int keyval_parse(struct keyval *k, const char *option, const char *text, const char *implied,
		 struct err *e) must_check;
/* The same from a JSON object: nested keys are joined by dots, keyval_json.c. */
int keyval_parse_json(struct keyval *k, const char *option, const char *text,
		      struct err *e) must_check;
void keyval_free(struct keyval *k);

/* Value of the last such key, or NULL. Marks it used. */
const char *keyval_get(struct keyval *k, const char *key);

/* on/off (also yes, no, true, false). *v stays when the key is absent. */
int keyval_bool(struct keyval *k, const char *key, bool *v, struct err *e) must_check;

/* A number from min to max. *v stays when the key is absent. */
int keyval_uint(struct keyval *k, const char *key, unsigned min, unsigned max, unsigned *v,
		struct err *e) must_check;

/* A bool that may only have the value it has anyway; anything else is an error that says why. */
int keyval_only(struct keyval *k, const char *key, bool value, const char *why,
		struct err *e) must_check;

/* An unused key is an error; known (NULL-terminated) is what it may have meant. */
int keyval_done(struct keyval *k, const char *const *known, struct err *e) must_check;

/*
 * "512", "512M", "1.5G" in bytes; unit: what a plain number counts. Suffixes B, K, M, G, T.
 */
int keyval_size(const char *option, const char *text, uint64_t unit, uint64_t *bytes,
		struct err *e) must_check;

int keyval_onoff(const char *option, const char *key, const char *text, bool *v,
		 struct err *e) must_check;
