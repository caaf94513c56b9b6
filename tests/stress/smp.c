/*
 * Several processors against each other, each with an oracle: a Linux program, run in the guest.
 *
 *     smp SECONDS [NAME...]
 *
 * patch     one thread writes the constant of an instruction, the others execute it: after a
 *           serialising instruction none may see a value older than what was published before
 * rewrite   one thread writes whole functions of different lengths into pages that the others call
 *           by turns
 * protect   after mprotect(PROT_READ) has returned, no other processor's store may arrive
 * remap     after a page has been replaced, no other processor may read the old one
 * atomics   locked additions, also across cache lines and pages, and CMPXCHG16B lose nothing
 * wake      threads wake each other through futexes; none sleeps for ever
 *
 * Prints "smp-ok NAME COUNT" for each, or "smp-bad NAME ..." and ends with status 1.
 * References: [SDM3 9.1.3] for code that is changed by others, [SDM3 4.10.5] for shoot-downs.
 */
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SMP_MAX 8

static const char *smp_name;
static unsigned smp_threads; /* beside the one that changes things */
static atomic_bool smp_stop;
static atomic_ulong smp_turns;

static double smp_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

#define smp_bad(...) \
	do { \
		printf("smp-bad %s ", smp_name); \
		printf(__VA_ARGS__); \
		putchar('\n'); \
		fflush(stdout); \
		_exit(1); \
	} while (0)

static void *smp_map(size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		smp_bad("mmap: %s", strerror(errno));
	return p;
}

static void smp_serialise(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
	__asm__ volatile("" ::"r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

/* Run body in the other threads while change runs in this one for some seconds. */
static void smp_together(double seconds, void *(*body)(void *), void (*change)(uint64_t turn))
{
	double end = smp_now() + seconds;
	pthread_t t[SMP_MAX];
	uint64_t turn = 0;

	atomic_store(&smp_stop, false);
	atomic_store(&smp_turns, 0);
	for (uintptr_t i = 0; i < smp_threads; i++)
		if (pthread_create(&t[i], NULL, body, (void *)i))
			smp_bad("pthread_create");
	while (smp_now() < end) {
		if (change)
			change(++turn);
		else
			usleep(10000);
	}
	atomic_store(&smp_stop, true);
	for (unsigned i = 0; i < smp_threads; i++)
		pthread_join(t[i], NULL);
	printf("smp-ok %s %lu turns, %lu changes\n", smp_name, atomic_load(&smp_turns),
	       (unsigned long)turn);
}

/* ---- patch ---------------------------------------------------------------------------------- */

/* A page that has been written for a while is treated in another way: go on to the next one. */
#define PATCH_PAGES 512
#define PATCH_TURNS 64

static uint8_t *patch_pages;
static _Atomic(uint8_t *) patch_code;
static _Atomic uint32_t patch_published, patch_next;

static void *patch_body(void *arg)
{
	unsigned n = 0;

	while (!atomic_load_explicit(&smp_stop, memory_order_relaxed)) {
		uint32_t before = atomic_load(&patch_published), got, after;
		uint8_t *code = atomic_load(&patch_code);
		uint32_t (*f)(void);

		memcpy(&f, &code, sizeof(f));
		smp_serialise();
		got = f();
		after = atomic_load(&patch_next);
		if (got < before || got > after)
			smp_bad("constant %#x, %#x was published before, %#x begun after", got,
				before, after);
		n++;
	}
	atomic_fetch_add(&smp_turns, n);
	return NULL;
}

/* nop; mov eax, constant at an aligned address; ret */
static void patch_write(uint8_t *page, uint32_t v)
{
	memcpy(page, "\x0f\x1f\x00\xb8", 4);
	memcpy(page + 4, &v, 4);
	page[8] = 0xc3;
}

/* Odd steps change all bytes of the constant now and then, so that a torn one is out of range. */
static void patch_change(uint64_t turn)
{
	uint32_t v = (uint32_t)turn * 2049;
	uint8_t *code = atomic_load(&patch_code);

	if (v < atomic_load(&patch_published))
		return;
	if (turn % PATCH_TURNS == 0) {
		code = patch_pages + turn / PATCH_TURNS % PATCH_PAGES * 4096;
		patch_write(code, atomic_load(&patch_published));
		atomic_store(&patch_code, code);
	}
	atomic_store(&patch_next, v);
	atomic_store((_Atomic uint32_t *)(void *)(code + 4), v);
	atomic_store(&patch_published, v);
	if (turn % 8 == 0)
		usleep(100);
}

static void smp_patch(double seconds)
{
	size_t size = PATCH_PAGES * 4096;

	patch_pages = smp_map(size, PROT_READ | PROT_WRITE | PROT_EXEC);
	patch_write(patch_pages, 0);
	atomic_store(&patch_code, patch_pages);
	atomic_store(&patch_published, 0);
	atomic_store(&patch_next, 0);
	smp_together(seconds, patch_body, patch_change);
	munmap(patch_pages, size);
}

/* ---- rewrite -------------------------------------------------------------------------------- */

static uint8_t *rewrite_code;
static atomic_uint rewrite_ready; /* number of the function that is there */
static atomic_uint rewrite_seen[SMP_MAX];

static void *rewrite_body(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, last = 0;

	while (!atomic_load(&smp_stop)) {
		unsigned now = atomic_load(&rewrite_ready);
		uint32_t (*f)(void);
		uint8_t *at = rewrite_code + now % 3 * 64;
		uint32_t got;

		if (now == last) {
			sched_yield();
			continue;
		}
		memcpy(&f, &at, sizeof(f));
		smp_serialise();
		got = f();
		if (got != now)
			smp_bad("function %u gave %u", now, got);
		last = now;
		atomic_store(&rewrite_seen[me], now);
		atomic_fetch_add(&smp_turns, 1);
	}
	return NULL;
}

/* So many one-byte increments, or one addition: lengths and instruction boundaries differ. */
static void rewrite_change(uint64_t turn)
{
	unsigned n = (unsigned)turn, k = n % 7;
	uint8_t *p = rewrite_code + n % 3 * 64;
	uint32_t base = n - k;

	*p++ = 0xb8;
	memcpy(p, &base, 4);
	p += 4;
	while (k--) {
		memcpy(p, "\xff\xc0", 2); /* inc eax */
		p += 2;
	}
	*p = 0xc3;
	atomic_store(&rewrite_ready, n);
	for (unsigned i = 0; i < smp_threads; i++)
		for (double t = smp_now(); atomic_load(&rewrite_seen[i]) != n; sched_yield())
			if (smp_now() > t + 30)
				smp_bad("thread %u did not come", i);
}

static void smp_rewrite(double seconds)
{
	rewrite_code = smp_map(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
	atomic_store(&rewrite_ready, 0);
	for (unsigned i = 0; i < SMP_MAX; i++)
		atomic_store(&rewrite_seen[i], 0);
	smp_together(seconds, rewrite_body, rewrite_change);
	munmap(rewrite_code, 4096);
}

/* ---- protect -------------------------------------------------------------------------------- */

static uint8_t *protect_page;
static __thread sigjmp_buf protect_jump;

static void protect_segv(int sig)
{
	siglongjmp(protect_jump, 1);
}

static void *protect_body(void *arg)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)(protect_page + 64 * (uintptr_t)arg);
	unsigned n = 0;

	sigsetjmp(protect_jump, 1);
	while (!atomic_load_explicit(&smp_stop, memory_order_relaxed)) {
		for (int i = 0; i < 100; i++)
			++*word;
		__asm__ volatile("lock incq %0" : "+m"(word[1]));
		__asm__ volatile("rep stosb" ::"D"(word + 2), "a"((uint8_t)n++), "c"(40)
				 : "memory");
		atomic_fetch_add_explicit(&smp_turns, 1, memory_order_relaxed);
	}
	return NULL;
}

static void protect_change(uint64_t turn)
{
	static uint8_t copy[4096];

	if (mprotect(protect_page, 4096, PROT_READ))
		smp_bad("mprotect: %s", strerror(errno));
	memcpy(copy, protect_page, 4096);
	for (int i = 0; i < 20; i++) {
		if (memcmp(copy, protect_page, 4096))
			smp_bad("a store after mprotect (turn %lu)", (unsigned long)turn);
		sched_yield();
	}
	if (mprotect(protect_page, 4096, PROT_READ | PROT_WRITE))
		smp_bad("mprotect: %s", strerror(errno));
	usleep(200);
}

static void smp_protect(double seconds)
{
	struct sigaction sa = { .sa_handler = protect_segv }, old;

	protect_page = smp_map(4096, PROT_READ | PROT_WRITE);
	sigaction(SIGSEGV, &sa, &old);
	smp_together(seconds, protect_body, protect_change);
	sigaction(SIGSEGV, &old, NULL);
	munmap(protect_page, 4096);
}

/* ---- remap ---------------------------------------------------------------------------------- */

static _Atomic uint64_t *remap_page;
static _Atomic uint64_t remap_published;

static void *remap_body(void *arg)
{
	unsigned n = 0;

	while (!atomic_load_explicit(&smp_stop, memory_order_relaxed)) {
		uint64_t before = atomic_load(&remap_published);
		uint64_t got = atomic_load(&remap_page[n++ % 512]);

		if (got && got < before)
			smp_bad("page %lu, %lu was published", (unsigned long)got,
				(unsigned long)before);
	}
	atomic_fetch_add(&smp_turns, n);
	return NULL;
}

static void remap_change(uint64_t turn)
{
	if (mmap((void *)remap_page, 4096, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)remap_page)
		smp_bad("mmap: %s", strerror(errno));
	for (int i = 0; i < 512; i++)
		atomic_store_explicit(&remap_page[i], turn, memory_order_relaxed);
	atomic_store(&remap_published, turn);
}

static void smp_remap(double seconds)
{
	remap_page = smp_map(4096, PROT_READ | PROT_WRITE);
	atomic_store(&remap_published, 0);
	smp_together(seconds, remap_body, remap_change);
	munmap((void *)remap_page, 4096);
}

/* ---- atomics -------------------------------------------------------------------------------- */

struct atomics_pair {
	uint64_t lo, hi;
} __attribute__((aligned(16)));

static uint8_t *atomics_mem; /* two pages */
static struct atomics_pair atomics_pair;
static atomic_ulong atomics_done[SMP_MAX];

static void atomics_pair_add(void)
{
	struct atomics_pair old = { atomics_pair.lo, atomics_pair.hi };
	bool done;

	do
		__asm__ volatile("lock cmpxchg16b %1"
				 : "=@ccz"(done), "+m"(atomics_pair), "+a"(old.lo), "+d"(old.hi)
				 : "b"(old.lo + 1), "c"(old.hi + 3)
				 : "memory");
	while (!done);
}

static void *atomics_body(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	unsigned long n = 0;

	while (!atomic_load_explicit(&smp_stop, memory_order_relaxed)) {
		uint32_t *in = (uint32_t *)(void *)(atomics_mem + 128), one = 1;
		uint8_t *line = atomics_mem + 60, *page = atomics_mem + 4092;

		__asm__ volatile("lock addl $1, %0" : "+m"(*in));
		__asm__ volatile("lock xaddl %1, %0" : "+m"(in[1]), "+r"(one));
		__asm__ volatile("lock incq (%0)" ::"r"(line) : "memory");
		__asm__ volatile("lock incq (%0)" ::"r"(page) : "memory");
		atomics_pair_add();
		n++;
	}
	atomic_store(&atomics_done[me], n);
	atomic_fetch_add(&smp_turns, n);
	return NULL;
}

static void smp_atomics(double seconds)
{
	unsigned long sum = 0;
	uint32_t in[2];
	uint64_t line, page;

	atomics_mem = smp_map(8192, PROT_READ | PROT_WRITE);
	memset(&atomics_pair, 0, sizeof(atomics_pair));
	smp_together(seconds, atomics_body, NULL);
	for (unsigned i = 0; i < smp_threads; i++)
		sum += atomics_done[i];
	memcpy(in, atomics_mem + 128, 8);
	memcpy(&line, atomics_mem + 60, 8);
	memcpy(&page, atomics_mem + 4092, 8);
	if (in[0] != (uint32_t)sum || in[1] != (uint32_t)sum || line != sum || page != sum ||
	    atomics_pair.lo != sum || atomics_pair.hi != 3 * sum)
		smp_bad("%lu: add %u, xadd %u, line %lu, page %lu, pair %lu %lu", sum, in[0], in[1],
			(unsigned long)line, (unsigned long)page, (unsigned long)atomics_pair.lo,
			(unsigned long)atomics_pair.hi);
	munmap(atomics_mem, 8192);
}

/* ---- wake ----------------------------------------------------------------------------------- */

static int wake_ring[SMP_MAX][2];

/* A byte goes round through pipes. */
static void *wake_body(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	char c;

	while (read(wake_ring[me][0], &c, 1) == 1) {
		if (write(wake_ring[(me + 1) % smp_threads][1], &c, 1) != 1 || c == 'q')
			break;
		atomic_fetch_add(&smp_turns, 1);
	}
	return NULL;
}

static void smp_wake(double seconds)
{
	pthread_t t[SMP_MAX];
	double end = smp_now() + seconds, last = smp_now();
	unsigned long turns = 0;

	atomic_store(&smp_turns, 0);
	for (unsigned i = 0; i < smp_threads; i++)
		if (pipe(wake_ring[i]))
			smp_bad("pipe");
	for (uintptr_t i = 0; i < smp_threads; i++)
		pthread_create(&t[i], NULL, wake_body, (void *)i);
	if (write(wake_ring[0][1], "ab", 2) != 2)
		smp_bad("write");
	while (smp_now() < end) {
		usleep(50000);
		if (atomic_load(&smp_turns) != turns) {
			turns = atomic_load(&smp_turns);
			last = smp_now();
		} else if (smp_now() > last + 20) {
			smp_bad("no thread has run for 20 s");
		}
	}
	if (write(wake_ring[0][1], "q", 1) != 1)
		smp_bad("write");
	for (unsigned i = 0; i < smp_threads; i++)
		pthread_join(t[i], NULL);
	printf("smp-ok %s %lu turns\n", smp_name, turns);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(double seconds);
	} all[] = {
		{ "patch", smp_patch }, { "rewrite", smp_rewrite }, { "protect", smp_protect },
		{ "remap", smp_remap }, { "atomics", smp_atomics }, { "wake", smp_wake },
	};
	unsigned n = sizeof(all) / sizeof(all[0]);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	double seconds = argc > 1 ? atof(argv[1]) : 6;

	setvbuf(stdout, NULL, _IOLBF, 0);
	smp_threads = cpus < 2 ? 1 : cpus > SMP_MAX ? SMP_MAX - 1 : (unsigned)cpus - 1;
	if (argc > 2)
		n = (unsigned)argc - 2;
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		bool wanted = argc <= 2;

		for (int k = 2; k < argc; k++)
			wanted |= !strcmp(argv[k], all[i].name);
		smp_name = all[i].name;
		if (wanted)
			all[i].run(seconds / n);
	}
	printf("smp-end\n");
	return 0;
}
