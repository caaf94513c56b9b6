/*
 * The suite's driver: an ordinary program, and /init of a guest.
 *
 *     suite [-ms N] [NAME...]
 *
 * For each program it finds how many units take about N milliseconds (default 200), runs that twice
 * more, and prints "bench NAME BEST-NS-PER-UNIT UNIT"; at the end "suite-end". As process 1 it then
 * waits for the machine to be ended. Options come from the kernel's command line, after "--".
 *
 * Time: CLOCK_MONOTONIC. Threads: one, programs fork.
 */
#include "engine/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void *bench_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_fail("mmap");
	memset(p, 1, size);
	return p;
}

void bench_fail(const char *what)
{
	printf("suite: %s failed\n", what);
	exit(1);
}

static double bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static volatile uint64_t bench_sink;

static double bench_time(const struct bench *b, uint64_t n)
{
	double t = bench_now();

	bench_sink = b->run(n);
	return bench_now() - t;
}

static void bench_one(const struct bench *b, double ns)
{
	double t, best;
	uint64_t n = 1;

	b->run(1); /* what is set up once */
	while ((t = bench_time(b, n)) < ns / 10)
		n *= t < ns / 100 ? 8 : 2;
	best = t / (double)n;
	n = (uint64_t)(ns / best) + 1;
	for (int i = 0; i < 2; i++) {
		t = bench_time(b, n) / (double)n;
		best = t < best ? t : best;
	}
	printf("bench %s %.4g %s\n", b->name, best, b->unit);
}

int main(int argc, char **argv)
{
	/* system first: a fork costs more once the others have taken their memory */
	static const struct bench *const all[] = { bench_system, bench_cpu, bench_memory };
	double ns = 200e6;
	int first = 1;

	if (argc == 2 && !strcmp(argv[1], "-exit")) /* fork_exec starts us so */
		return 0;
	if (argc >= 3 && !strcmp(argv[1], "-ms")) {
		ns = atoi(argv[2]) * 1e6;
		first = 3;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned k = 0; k < sizeof(all) / sizeof(all[0]); k++)
		for (const struct bench *b = all[k]; b->name; b++) {
			int i = first;

			while (i < argc && strcmp(argv[i], b->name))
				i++;
			if (i < argc || first == argc)
				bench_one(b, ns);
		}
	printf("suite-end\n");
	while (getpid() == 1)
		pause();
	return 0;
}
