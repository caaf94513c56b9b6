/*
 * "did you mean": the known word nearest to a mistyped one.
 * Threads: pure.
 */
#pragma once
#include <stddef.h>

/*
 * Index of the word of words[0..n) nearest to typed (letters added, dropped, swapped or changed,
 * case ignored), or -1 when none is near enough to be worth a suggestion. NULL entries are skipped.
 */
int text_nearest(const char *typed, const char *const *words, size_t n);

/* The same as a ready suffix: " (did you mean X?)", or "". buf is returned. */
const char *text_nearest_hint(char *buf, size_t cap, const char *typed, const char *const *words,
			      size_t n);
