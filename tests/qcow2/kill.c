/*
 * SIGKILL while an image on the host's disk is being written: kill DIR SEED ROUNDS.
 *
 * A round: a child opens the image and several of its tasks write, zero and flush; it tells over a
 * pipe which writes are done and which flushes began and ended. After a moment the parent kills it,
 * opens the image itself, and expects leaks at most, and in each sector nothing older than what
 * was done when the last finished flush began. Then the next round goes on with the same image.
 * Prints TAP, one test a round. Threads: one loop in each process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bed.h"

enum { SECTORS = 4096, TASKS = 6 };

struct note { /* over the pipe; small enough to be written in one piece */
	uint32_t kind, sector, n, id;
};
enum { NOTE_DONE = 1, NOTE_ZERO_BEGIN, NOTE_FLUSH_BEGIN, NOTE_FLUSH_END };

struct test {
	struct bed bed;
	struct block *b;
	const char *path;
	uint64_t random;
	int pipe;
	uint32_t writes;
	uint32_t busy[TASKS][2]; /* the sectors that each task writes */
	/* the parent's knowledge, by sector */
	uint32_t *last, *least, *zeroed;
	char what[600];
	bool failed;
};

/* ---- The child ------------------------------------------------------------------------------- */

static void tell(struct test *t, uint32_t kind, uint32_t sector, uint32_t n, uint32_t id)
{
	struct note note = { kind, sector, n, id };

	if (write(t->pipe, &note, sizeof(note)) != sizeof(note))
		_exit(3);
}

struct worker {
	struct test *t;
	unsigned i;
};

static bool is_busy(const struct test *t, uint32_t a, uint32_t z)
{
	for (unsigned i = 0; i < TASKS; i++) {
		if (t->busy[i][0] < z && a < t->busy[i][1])
			return true;
	}
	return false;
}

static void worker_co(void *arg)
{
	struct worker *w = arg;
	struct test *t = w->t;
	uint8_t *buf = malloc(256 * 512);

	for (;;) {
		uint32_t id = ++t->writes, n = 1 + (uint32_t)(mem_random(&t->random) % 255), s;
		bool zero = mem_random(&t->random) % 6 == 0;
		int r;

		if (mem_random(&t->random) % 5 == 0) {
			tell(t, NOTE_FLUSH_BEGIN, 0, 0, id);
			if (block_co_flush(t->b) < 0)
				_exit(4);
			tell(t, NOTE_FLUSH_END, 0, 0, id);
			continue;
		}
		do {
			n = 1 + n / 2;
			s = (uint32_t)(mem_random(&t->random) % (SECTORS - n));
		} while (is_busy(t, s, s + n));
		t->busy[w->i][0] = s;
		t->busy[w->i][1] = s + n;
		for (uint32_t k = 0; !zero && k < n; k++)
			bed_stamp(buf + k * 512, s + k, id);
		if (zero)
			tell(t, NOTE_ZERO_BEGIN, s, n, id);
		r = zero ? block_co_zero(t->b, s * 512ull, n * 512ull, BLOCK_UNMAP)
			 : block_co_pwrite(t->b, s * 512ull, buf, n * 512ull, 0);
		if (r < 0)
			_exit(5);
		tell(t, NOTE_DONE, s, n, id);
		t->busy[w->i][0] = t->busy[w->i][1] = 0;
	}
}

static void open_co(void *arg)
{
	struct test *t = arg;
	struct block_opts o = { .writable = true, .discard_unmap = true, .no_lock = true };
	struct err e = { 0 };

	if (block_co_open(t->bed.ctx, t->path, "qcow2", &o, &t->b, &e) < 0) {
		snprintf(t->what, sizeof(t->what), "open: %s", e.msg);
		t->failed = true;
	}
}

static void child(struct test *t)
{
	struct worker w[TASKS];

	bed_open(&t->bed);
	bed_run(&t->bed, open_co, t);
	if (!t->b) {
		fprintf(stderr, "# child: %s\n", t->what);
		_exit(6);
	}
	for (unsigned i = 0; i < TASKS; i++) {
		w[i] = (struct worker){ t, i };
		if (task_start(block_ctx_tasks(t->bed.ctx), worker_co, &w[i]) < 0)
			_exit(7);
	}
	loop_run(t->bed.loop);
	_exit(8);
}

/* ---- The parent ------------------------------------------------------------------------------ */

static void take_notes(struct test *t, int fd)
{
	uint32_t *snap[16] = { 0 }, snap_id[16] = { 0 };
	struct note n;

	while (read(fd, &n, sizeof(n)) == sizeof(n)) {
		if (n.kind <= NOTE_ZERO_BEGIN) {
			/* writes of one sector do not overlap, so numbers are their order */
			for (uint32_t i = 0; i < n.n; i++)
				(n.kind == NOTE_DONE ? t->last : t->zeroed)[n.sector + i] = n.id;
			continue;
		}
		for (unsigned i = 0; i < 16; i++) {
			if (n.kind == NOTE_FLUSH_BEGIN ? snap[i] != NULL : snap_id[i] != n.id)
				continue;
			if (n.kind == NOTE_FLUSH_BEGIN) {
				snap[i] = malloc(SECTORS * sizeof(**snap));
				memcpy(snap[i], t->last, SECTORS * sizeof(**snap));
				snap_id[i] = n.id;
			} else {
				for (unsigned k = 0; k < SECTORS; k++)
					t->least[k] = MAX(t->least[k], snap[i][k]);
				free(snap[i]);
				snap[i] = NULL;
				snap_id[i] = 0;
			}
			break;
		}
		t->writes = MAX(t->writes, n.id);
	}
	for (unsigned i = 0; i < 16; i++)
		free(snap[i]);
}

static void verify_co(void *arg)
{
	struct test *t = arg;
	struct qcow2_check c = { 0 };
	struct err e = { 0 };
	uint8_t *all = malloc(SECTORS * 512), want[512];
	int r;

	open_co(t);
	if (t->failed)
		return;
	r = qcow2_co_check(t->b, QCOW2_FIX_LEAKS, &c, &e);
	if (r < 0 || c.corruptions) {
		snprintf(t->what, sizeof(t->what), "%llu corruptions: %s",
			 (unsigned long long)c.corruptions, e.msg);
		t->failed = true;
	}
	r = block_co_pread(t->b, 0, all, SECTORS * 512);
	for (uint32_t s = 0; r >= 0 && !t->failed && s < SECTORS; s++) {
		uint8_t *p = all + s * 512;
		uint32_t is, id;

		memcpy(&is, p, 4);
		memcpy(&id, p + 4, 4);
		memset(want, 0, sizeof(want));
		if (is)
			bed_stamp(want, s, id);
		/* zeroes have no number: any that began late enough explains them */
		t->failed = memcmp(want, p, 512) || (is ? id : t->zeroed[s]) < t->least[s];
		if (t->failed)
			snprintf(t->what, sizeof(t->what),
				 "sector %u has write %u, but %u was flushed", s, id, t->least[s]);
		t->last[s] = is ? id : t->zeroed[s];
	}
	free(all);
	block_co_close(t->b);
	t->b = NULL;
}

static void round_do(struct test *t, unsigned ms)
{
	int p[2], status;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		abort();
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(p[0]);
		t->pipe = p[1];
		child(t);
	}
	close(p[1]);
	/* the notes are taken afterwards: make room for them */
	fcntl(p[0], F_SETPIPE_SZ, 1 << 20);
	usleep(ms * 1000);
	kill(pid, SIGKILL);
	take_notes(t, p[0]);
	close(p[0]);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status)) {
		snprintf(t->what, sizeof(t->what), "the child ended with %d", WEXITSTATUS(status));
		t->failed = true;
		return;
	}
	t->writes += 1000; /* what it did not tell */
	bed_open(&t->bed);
	bed_run(&t->bed, verify_co, t);
	bed_close(&t->bed);
}

static void create_co(void *arg)
{
	struct test *t = arg;
	struct qcow2_create c;
	struct block_opts o = { .writable = true };
	struct block *file = NULL;
	struct err e = { 0 };
	bool backing;

	bed_config(&t->random, &c, &backing);
	c.size = SECTORS * 512;
	c.backing_file = c.backing_format = NULL;
	if (block_co_create_file(t->bed.ctx, t->path, 0, &o, &file, &e) < 0 ||
	    qcow2_co_create(file, NULL, &c, &e) < 0) {
		snprintf(t->what, sizeof(t->what), "create: %s", e.msg);
		t->failed = true;
	}
	block_co_close(file);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 0, failures = 0;
	struct test t = { 0 };
	char *path;

	if (!rounds) {
		fprintf(stderr, "usage: %s DIR SEED ROUNDS\n", argv[0]);
		return 1;
	}
	if (asprintf(&path, "%s/kill-%d.qcow2", argv[1], (int)getpid()) < 0)
		return 1;
	printf("1..%u\n", rounds);
	t.random = strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull | 1;
	t.path = path;
	for (unsigned i = 0; i < rounds; i++) {
		if (i % 5 == 0 || t.failed) { /* another kind of image */
			t.failed = false;
			free(t.last);
			free(t.least);
			free(t.zeroed);
			t.last = calloc(SECTORS, sizeof(*t.last));
			t.least = calloc(SECTORS, sizeof(*t.least));
			t.zeroed = calloc(SECTORS, sizeof(*t.zeroed));
			bed_open(&t.bed);
			bed_run(&t.bed, create_co, &t);
			bed_close(&t.bed);
		}
		if (!t.failed)
			round_do(&t, 5 + (unsigned)(mem_random(&t.random) % 150));
		printf("%sok %u - killed after write %u\n", t.failed ? "not " : "", i + 1,
		       t.writes);
		if (t.failed)
			printf("# %s\n", t.what);
		failures += t.failed;
	}
	free(t.last);
	free(t.least);
	free(t.zeroed);
	unlink(path);
	free(path);
	return failures ? 1 : 0;
}
