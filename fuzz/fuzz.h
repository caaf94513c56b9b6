/*
 * What a fuzz target defines, for libFuzzer or for standalone.c.
 *
 * Threads: one.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* One input; aborts on a violated property. Returns 0. Keeps nothing from call to call. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
