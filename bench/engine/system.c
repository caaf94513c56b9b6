/*
 * Programs whose time is the kernel's: calls, files, processes, signals, address spaces.
 *
 * Threads: none; processes come and go.
 */
#include "engine/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t bench_getpid(uint64_t n)
{
	uint64_t r = 0;

	while (n--)
		r += (uint64_t)syscall(SYS_getppid);
	return r;
}

static uint64_t bench_stat(uint64_t n)
{
	struct stat st = { 0 };

	while (n--)
		if (stat("/tmp", &st))
			bench_fail("stat");
	return (uint64_t)st.st_ino;
}

static uint64_t bench_read_4k(uint64_t n)
{
	static char buf[4096];
	static int fd = -1;

	if (fd < 0) {
		char name[] = "/tmp/suite.XXXXXX";

		fd = mkstemp(name);
		if (fd < 0 || write(fd, buf, sizeof(buf)) != sizeof(buf))
			bench_fail("a file in /tmp");
		unlink(name);
	}
	while (n--)
		if (pread(fd, buf, sizeof(buf), 0) != sizeof(buf))
			bench_fail("pread");
	return (uint64_t)buf[9];
}

/* A byte there and back. */
static uint64_t bench_pipe(uint64_t n)
{
	int there[2], back[2];
	char c = 0;
	pid_t pid;

	if (pipe(there) || pipe(back) || (pid = fork()) < 0)
		bench_fail("pipe");
	if (!pid) {
		close(there[1]);
		while (read(there[0], &c, 1) == 1)
			if (write(back[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	while (n--)
		if (write(there[1], "x", 1) != 1 || read(back[0], &c, 1) != 1)
			bench_fail("pipe");
	close(there[0]), close(there[1]), close(back[0]), close(back[1]);
	waitpid(pid, NULL, 0);
	return (uint64_t)c;
}

static volatile sig_atomic_t bench_signals;

static void bench_handler(int sig)
{
	bench_signals += sig;
}

static uint64_t bench_signal(uint64_t n)
{
	signal(SIGUSR1, bench_handler);
	while (n--)
		raise(SIGUSR1);
	return (uint64_t)bench_signals;
}

/* Map 64 pages, touch each, unmap. */
static uint64_t bench_page_fault(uint64_t n)
{
	while (n--) {
		volatile char *p = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			bench_fail("mmap");
		for (int i = 0; i < 64; i++)
			p[i << 12] = 1;
		munmap((void *)p, 64 << 12);
	}
	return 0;
}

static uint64_t bench_mprotect(uint64_t n)
{
	static volatile char *p;

	if (!p)
		p = bench_pages(16 << 12);
	while (n--) {
		if (mprotect((void *)p, 16 << 12, PROT_READ))
			bench_fail("mprotect");
		if (mprotect((void *)p, 16 << 12, PROT_READ | PROT_WRITE))
			bench_fail("mprotect");
		p[4096]++;
	}
	return (uint64_t)p[4096];
}

static uint64_t bench_wait(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		bench_fail("a child");
	return (uint64_t)pid;
}

static uint64_t bench_fork(uint64_t n)
{
	uint64_t r = 0;

	while (n--) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		r += bench_wait(pid);
	}
	return r;
}

static uint64_t bench_fork_exec(uint64_t n)
{
	static char *const argv[] = { (char *)"suite", (char *)"-exit", NULL };
	const char *self = getpid() == 1 ? "/init" : "/proc/self/exe";
	uint64_t r = 0;

	while (n--) {
		pid_t pid = fork();

		if (!pid) {
			execv(self, argv);
			_exit(1);
		}
		r += bench_wait(pid);
	}
	return r;
}

const struct bench bench_system[] = {
	BENCH(getpid, "call"),       BENCH(stat, "call"),
	BENCH(read_4k, "call"),      BENCH(pipe, "round trip"),
	BENCH(signal, "signal"),     BENCH(page_fault, "64 pages"),
	BENCH(mprotect, "pair"),     BENCH(fork, "process"),
	BENCH(fork_exec, "process"), { 0 },
};
