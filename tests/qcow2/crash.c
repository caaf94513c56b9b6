/*
 * What is left of a qcow2 image after a crash: crash SEED ROUNDS [DIR].
 *
 * A round: an image of a random kind over a file in memory that logs writes and flushes; tasks
 * write, zero, discard and flush at once, snapshots are made and deleted. Then, for many points of
 * the log, the file as a crash could have left it (mem_crash): all that a finished flush covered,
 * and any part of the rest, each write whole, torn at 512 bytes, or missing, in any order. Such a
 * file must open (a dirty one is repaired by that), have leaks at most, and contain, for each
 * sector, what was there when the guest's last finished flush began, or what was written later.
 * With DIR, qemu-img checks one file in sixteen, too.
 * In one round of four, whole clusters are discarded one after the other while others flush and
 * write: what is given up is used again soon. In one of eight the host fails now and then: what
 * failed may be there or not, and no flush that failed counts.
 *
 * Each sector that is written says which sector it is and which write it was, so the order of
 * writes to a sector is seen in it. Prints TAP, one test a round. Threads: one loop.
 */
#include <errno.h>
#include <string.h>

#include "bed.h"

enum { OPS = 60, TASKS = 4, POINTS = 24, SECTORS_MAX = 1024 };

struct point { /* what the guest knew at a moment of the log */
	size_t log;
	uint32_t *least; /* by sector: nothing older than this write may be seen */
};
struct test {
	struct bed bed;
	struct qcow2_create c;
	bool backing;
	struct memfile m, start, base;
	struct block *b;
	uint64_t sectors;
	const char *dir;
	uint32_t *last, *least, *zeroed; /* by sector: newest finished write; see point; zeroes */
	uint32_t writes;
	struct point *points;
	unsigned n_points, n_snaps, next_snap;
	uint64_t gone; /* churn: clusters discarded so far */
};

static void note_point(struct test *t)
{
	struct point *p;

	t->points = realloc(t->points, (t->n_points + 1) * sizeof(*t->points));
	p = &t->points[t->n_points++];
	p->log = t->m.n_log;
	p->least = malloc(t->sectors * sizeof(*p->least));
	memcpy(p->least, t->least, t->sectors * sizeof(*p->least));
}

struct op {
	struct test *t;
	int kind;
	uint32_t sector, n, id;
	uint8_t *buf;
	unsigned flags;
};

static bool is_churn(const struct test *t)
{
	return t->bed.seed % 4 == 3;
}

static bool is_faulty(const struct test *t)
{
	return t->bed.seed % 8 == 5;
}

static void flush_co(struct test *t)
{
	uint32_t *then = malloc(t->sectors * sizeof(*then));
	int r;

	memcpy(then, t->last, t->sectors * sizeof(*then));
	r = block_co_flush(t->b);
	if (r < 0 && !is_faulty(t))
		bed_fail(&t->bed, "flush: %s", strerror(-r));
	for (uint64_t i = 0; r >= 0 && i < t->sectors; i++)
		t->least[i] = MAX(t->least[i], then[i]);
	free(then);
	note_point(t);
}

static int compress_co(struct op *o)
{
	struct test *t = o->t;
	uint64_t len = o->n * 512ull, n;
	int r = 0;

	for (uint64_t at = 0; r >= 0 && at < len; at += n) {
		n = MIN(len - at, t->c.cluster_size);
		r = qcow2_co_write_compressed(t->b, at, o->buf + at, (uint32_t)n);
	}
	return r;
}

static void op_run(void *arg)
{
	struct op *o = arg;
	struct test *t = o->t;
	int r = 0;

	switch (o->kind) {
	case 0: flush_co(t); break;
	case 1: r = block_co_pwrite(t->b, o->sector * 512ull, o->buf, o->n * 512ull, 0); break;
	case 2: r = block_co_zero(t->b, o->sector * 512ull, o->n * 512ull, o->flags); break;
	case 3: r = block_co_discard(t->b, o->sector * 512ull, o->n * 512ull); break;
	case 4: r = compress_co(o); break;
	}
	if (r < 0 && !is_faulty(t))
		bed_fail(&t->bed, "operation %d at sector %u, %u sectors: %s", o->kind, o->sector,
			 o->n, strerror(-r));
	for (uint32_t i = 0; r >= 0 && o->kind && o->kind != 3 && i < o->n; i++)
		t->last[o->sector + i] = o->id;
	bed_ended(&t->bed);
}

/* The next of: a flush, clusters in order discarded, and others behind them written again. */
static void churn_op(struct test *t, struct op *o, uint32_t cl)
{
	uint64_t clusters = MAX(t->sectors / cl, 1ull), at;

	o->kind = (int)bed_rnd(&t->bed, 4);
	o->kind = o->kind == 2 ? 3 : o->kind;
	at = o->kind == 3 ? t->gone++ : t->gone + clusters / 2 + bed_rnd(&t->bed, clusters / 4 + 1);
	o->sector = (uint32_t)(at % clusters) * cl;
	o->n = o->kind == 1 && bed_rnd(&t->bed, 2) ? 1 : cl;
}

static void some_ops_co(struct test *t)
{
	struct op ops[TASKS] = { 0 };
	unsigned n = 1 + (unsigned)bed_rnd(&t->bed, TASKS), made = 0;
	uint32_t cl = t->c.cluster_size / 512;

	for (unsigned i = 0; i < n; i++) {
		struct op *o = &ops[made];
		bool clash = false;

		*o = (struct op){ .t = t, .kind = (int)bed_rnd(&t->bed, 7) };
		o->kind = o->kind > 3 ? 1 : o->kind;
		o->sector = (uint32_t)bed_rnd(&t->bed, t->sectors);
		o->n = 1 + (uint32_t)bed_rnd(&t->bed, bed_rnd(&t->bed, 3) ? MIN(cl * 2, 64u) : 4);
		if (o->kind >= 2 && bed_rnd(&t->bed, 3)) {
			o->sector = o->sector / cl * cl;
			o->n = (1 + (uint32_t)bed_rnd(&t->bed, 3)) * cl;
		}
		if (is_churn(t))
			churn_op(t, o, cl);
		o->n = (uint32_t)MIN(o->n, t->sectors - o->sector);
		for (unsigned k = 0; k < made; k++)
			clash |= o->sector < ops[k].sector + ops[k].n &&
				 ops[k].sector < o->sector + o->n;
		if (clash)
			continue;
		o->flags = bed_rnd(&t->bed, 2) ? BLOCK_UNMAP : 0;
		o->id = ++t->writes;
		if (o->kind == 1) {
			o->buf = malloc(o->n * 512ull);
			for (uint32_t k = 0; k < o->n; k++)
				bed_stamp(o->buf + k * 512, o->sector + k, o->id);
		}
		/* it may be seen from now on */
		for (uint32_t k = 0; o->kind >= 2 && k < o->n; k++)
			t->zeroed[o->sector + k] = o->id;
		made++;
	}
	bed_co_together(&t->bed, op_run, ops, sizeof(ops[0]), made);
	for (unsigned i = 0; i < made; i++)
		free(ops[i].buf);
}

/* All clusters, in order, so that they are in order in the file, too. */
static void fill_co(struct test *t)
{
	struct op o = { .t = t, .kind = 1, .n = (uint32_t)t->sectors, .id = ++t->writes };

	o.buf = malloc(t->sectors * 512);
	for (uint32_t k = 0; k < t->sectors; k++)
		bed_stamp(o.buf + k * 512, k, o.id);
	t->bed.running = 1;
	if (t->bed.seed % 8 == 7) /* compressed: what is written later is copied out of them */
		o.kind = 4;
	op_run(&o);
	free(o.buf);
	flush_co(t);
}

static void snapshot_co(struct test *t)
{
	struct err e = { 0 };
	char name[16];
	int r;

	/* version 2 has no dirty bit: COPIED bits that are not set would be complained about */
	if (t->c.refcount_bits < 8 || t->c.version == 2)
		return;
	if (t->n_snaps < 2) {
		snprintf(name, sizeof(name), "s%u", t->next_snap + t->n_snaps);
		r = qcow2_co_snapshot_create(t->b, name, &e);
		t->n_snaps++;
	} else {
		snprintf(name, sizeof(name), "s%u", t->next_snap++);
		r = qcow2_co_snapshot_delete(t->b, name, &e);
		t->n_snaps--;
	}
	if (r < 0)
		bed_fail(&t->bed, "snapshot: %s", e.msg);
}

static void work_co(void *arg)
{
	struct test *t = arg;
	struct err e = { 0 };
	int r;

	t->c.size = t->sectors * 512;
	r = bed_co_create(&t->bed, &t->m, &t->c, &e);
	/* the log begins at a clean image */
	t->start = (struct memfile){ .len = t->m.len, .room = t->m.len, .random = 1 };
	t->start.data = malloc(t->m.len);
	memcpy(t->start.data, t->m.data, t->m.len);
	t->m.logging = t->m.yield = true;
	if (r >= 0)
		r = bed_co_image(&t->bed, &t->m, t->backing ? &t->base : NULL, false, true, &t->b,
				 &e);
	if (r < 0) {
		bed_fail(&t->bed, "create: %s", e.msg);
		return;
	}
	note_point(t);
	if (is_churn(t))
		fill_co(t);
	for (unsigned i = 0; i < OPS && !t->bed.failed; i++) {
		if (is_faulty(t))
			t->m.fail_in = 1 + (unsigned)bed_rnd(&t->bed, 60);
		if (!is_faulty(t) && !is_churn(t) && bed_rnd(&t->bed, 20) == 0)
			snapshot_co(t);
		else
			some_ops_co(t);
	}
	t->m.fail_in = 0;
	block_co_close(t->b);
	note_point(t);
}

/* ---- After the crash ------------------------------------------------------------------------- */

struct after {
	struct test *t;
	struct memfile f;
	const uint32_t *least;
	size_t at;
};

static void report(void *opaque, const char *line)
{
	struct after *a = opaque;

	if (strncmp(line, "Leaked", 6) && strncmp(line, "Repairing", 9))
		fprintf(stderr, "# seed %llu, crash at %zu: %s\n",
			(unsigned long long)a->t->bed.seed, a->at, line);
}

static void sector_check(struct after *a, uint32_t sector, const uint8_t *p)
{
	struct test *t = a->t;
	uint32_t is, write;
	uint8_t want[512];
	bool zero = true;

	for (unsigned i = 0; i < 512; i++)
		zero &= !p[i];
	if (zero) {
		/* never written, or zeroed by something that is not too old */
		if (!a->least[sector] && (!t->backing || sector * 512ull >= t->base.len))
			return;
		if (t->zeroed[sector] && t->zeroed[sector] >= a->least[sector])
			return;
		bed_fail(&t->bed, "crash at %zu: sector %u is zero, but write %u was flushed",
			 a->at, sector, a->least[sector]);
		return;
	}
	memcpy(&is, p, 4);
	is--;
	memcpy(&write, p + 4, 4);
	bed_stamp(want, is, write);
	if (is != sector || memcmp(want, p, 512))
		bed_fail(&t->bed, "crash at %zu: sector %u has bytes of something else", a->at,
			 sector);
	else if (write < a->least[sector])
		bed_fail(&t->bed, "crash at %zu: sector %u has write %u, but %u was flushed", a->at,
			 sector, write, a->least[sector]);
}

static void after_co(void *arg)
{
	struct after *a = arg;
	struct test *t = a->t;
	struct qcow2_check c = { .report = report, .opaque = a };
	struct err e = { 0 };
	struct block *b;
	uint8_t *all;
	int r;

	r = bed_co_image(&t->bed, &a->f, t->backing ? &t->base : NULL, false, true, &b, &e);
	if (r < 0) {
		bed_fail(&t->bed, "crash at %zu: the image does not open: %s", a->at, e.msg);
		return;
	}
	r = qcow2_co_check(b, 0, &c, &e);
	if (r < 0)
		bed_fail(&t->bed, "crash at %zu: check: %s", a->at, e.msg);
	if (c.corruptions)
		bed_fail(&t->bed, "crash at %zu: %llu corruptions", a->at,
			 (unsigned long long)c.corruptions);
	all = malloc(t->sectors * 512);
	r = block_co_pread(b, 0, all, t->sectors * 512);
	if (r < 0)
		bed_fail(&t->bed, "crash at %zu: read: %s", a->at, strerror(-r));
	for (uint32_t i = 0; r >= 0 && i < t->sectors; i++)
		sector_check(a, i, all + i * 512);
	/* and it can be used: leaks go away, writes do not meet */
	for (unsigned i = 0; r >= 0 && i < 4; i++) {
		uint32_t sector = (uint32_t)bed_rnd(&t->bed, t->sectors);

		bed_stamp(all, sector, t->writes);
		r = block_co_pwrite(b, sector * 512ull, all, 512, 0);
		if (r < 0)
			bed_fail(&t->bed, "crash at %zu: write afterwards: %s", a->at,
				 strerror(-r));
	}
	c = (struct qcow2_check){ .report = report, .opaque = a };
	r = qcow2_co_check(b, QCOW2_FIX_LEAKS, &c, &e);
	if (r < 0 || c.corruptions || c.leaks)
		bed_fail(&t->bed, "crash at %zu: leaks cannot be repaired", a->at);
	free(all);
	block_co_close(b);
}

static void qemu_check(struct test *t, const struct memfile *f, size_t at)
{
	char path[512], cmd[600];
	FILE *out;
	int r;

	if (t->backing) { /* only so that it can be opened */
		snprintf(path, sizeof(path), "%s/base.raw", t->dir);
		out = fopen(path, "ab");
		if (out)
			fclose(out);
	}
	snprintf(path, sizeof(path), "%s/crash.qcow2", t->dir);
	out = fopen(path, "wb");
	if (!out || fwrite(f->data, f->len, 1, out) != 1 || fclose(out)) {
		perror(path);
		exit(1);
	}
	/* 3: leaks; a dirty image is repaired first, as QEMU would by opening it */
	snprintf(cmd, sizeof(cmd), "qemu-img check -q %s '%s' >/dev/null 2>&1",
		 t->c.lazy_refcounts || t->next_snap + t->n_snaps ? "-r all" : "", path);
	r = system(cmd);
	if (r && r != 3 << 8)
		bed_fail(&t->bed, "crash at %zu: qemu-img check of %s: status %d", at, path, r);
}

static void crash_at(struct test *t, size_t at, unsigned n)
{
	struct after a = { .t = t, .at = at };

	for (unsigned i = 0; i < t->n_points && t->points[i].log <= at; i++)
		a.least = t->points[i].least;
	mem_crash(&t->m, &t->start, at, &t->bed.random, &a.f);
	if (t->dir && n % 16 == 0)
		qemu_check(t, &a.f, at);
	bed_run(&t->bed, after_co, &a);
	mem_free(&a.f);
}

static void one(struct test *t, uint64_t seed, unsigned i)
{
	char kind[100];

	bed_seed(&t->bed, seed);
	bed_config(&t->bed.random, &t->c, &t->backing);
	if (t->c.cluster_size > 65536)
		t->c.cluster_size = 512;
	if (t->c.cluster_size < 16384)
		t->c.extended_l2 = false;
	t->sectors = 64 + bed_rnd(&t->bed, SECTORS_MAX - 64);
	t->last = calloc(t->sectors, sizeof(*t->last));
	t->least = calloc(t->sectors, sizeof(*t->least));
	t->zeroed = calloc(t->sectors, sizeof(*t->zeroed));
	t->m.random = t->bed.seed | 1;
	if (t->backing) {
		t->base.len = t->base.room = t->sectors * 512;
		t->base.random = 1;
		t->base.data = malloc(t->base.len);
		for (uint32_t k = 0; k < t->sectors; k++)
			bed_stamp(t->base.data + k * 512, k, 0);
	}
	bed_open(&t->bed);
	bed_run(&t->bed, work_co, t);
	for (unsigned k = 0; k < POINTS && !t->bed.failed; k++)
		crash_at(t, bed_rnd(&t->bed, t->m.n_log + 1), k);
	bed_close(&t->bed);
	printf("%sok %u - seed %llu: %zu log entries, %s\n", t->bed.failed ? "not " : "", i,
	       (unsigned long long)seed, t->m.n_log, bed_kind(&t->c, t->backing, kind));
	if (t->bed.failed)
		printf("# %s\n", t->bed.what);
	fflush(stdout);
	mem_free(&t->m);
	mem_free(&t->start);
	mem_free(&t->base);
	for (unsigned k = 0; k < t->n_points; k++)
		free(t->points[k].least);
	free(t->points);
	free(t->last);
	free(t->least);
	free(t->zeroed);
}

int main(int argc, char **argv)
{
	unsigned rounds, failures = 0;
	uint64_t seed;

	if (argc < 3) {
		fprintf(stderr, "usage: %s SEED ROUNDS [DIR]\n", argv[0]);
		return 1;
	}
	seed = strtoull(argv[1], NULL, 0);
	rounds = (unsigned)strtoul(argv[2], NULL, 0);
	printf("1..%u\n", rounds);
	for (unsigned i = 0; i < rounds; i++) {
		struct test t = { .dir = argc > 3 ? argv[3] : NULL };

		one(&t, seed + i, i + 1);
		failures += !!t.bed.failed;
	}
	return failures ? 1 : 0;
}
