/*
 * Runs a fuzz target without libFuzzer: TARGET N [SEED] for N random inputs, TARGET FILE... to
 * replay inputs. Each random input is fresh or the one before with some bytes changed, so that
 * lengths and structure survive for a while. Deterministic for a seed; a failing target aborts, and
 * the input is then in crash.bin.
 *
 * Threads: one.
 */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

enum { INPUT_MAX = 4096 };

/* The signal handler has no other way to the input. */
static uint8_t fuzz_input[INPUT_MAX];
static size_t fuzz_size;

static uint64_t fuzz_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull >> 16;
}

static void fuzz_crash(int sig)
{
	FILE *f = fopen("crash.bin", "wb");

	if (f) {
		fwrite(fuzz_input, 1, fuzz_size, f);
		fclose(f);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

static void fuzz_next(uint64_t *s)
{
	size_t changes;

	if (fuzz_random(s) % 4 == 0 || !fuzz_size) {
		fuzz_size = fuzz_random(s) % (fuzz_random(s) % 16 ? 64 : INPUT_MAX);
		for (size_t i = 0; i < fuzz_size; i++)
			fuzz_input[i] = (uint8_t)fuzz_random(s);
		return;
	}
	changes = 1 + fuzz_random(s) % 4;
	for (size_t i = 0; i < changes; i++)
		fuzz_input[fuzz_random(s) % fuzz_size] = (uint8_t)fuzz_random(s);
	if (fuzz_random(s) % 8 == 0)
		fuzz_size = fuzz_random(s) % (fuzz_size + 1);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) * 2 + 1 : 0x9e3779b97f4a7c15;
	unsigned long n;

	if (argc < 2) {
		fprintf(stderr, "usage: %s N [SEED] | FILE...\n", argv[0]);
		return 1;
	}
	signal(SIGABRT, fuzz_crash);
	signal(SIGSEGV, fuzz_crash);
	if (!isdigit((unsigned char)argv[1][0])) {
		for (int i = 1; i < argc; i++) {
			FILE *f = fopen(argv[i], "rb");

			if (!f) {
				perror(argv[i]);
				return 1;
			}
			fuzz_size = fread(fuzz_input, 1, sizeof(fuzz_input), f);
			fclose(f);
			LLVMFuzzerTestOneInput(fuzz_input, fuzz_size);
		}
		return 0;
	}
	n = strtoul(argv[1], NULL, 0);
	for (unsigned long i = 0; i < n; i++) {
		fuzz_next(&seed);
		LLVMFuzzerTestOneInput(fuzz_input, fuzz_size);
	}
	printf("%lu inputs\n", n);
	return 0;
}
