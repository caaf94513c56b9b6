/*
 * Random operations on a qcow2 image next to a plain array that must have the same content:
 * model DIR SEED ROUNDS [qemu]. A round is one image of a random kind and some hundred operations:
 * writes, reads, zeroes, discards by several tasks at once, compressed writes, snapshots, resizes,
 * reopening, flushes. Every so often the image is settled and checked; with "qemu", at the end of
 * a round qemu-img checks it and compares it to the array. In every fourth round the host file
 * fails now and then: what failed may be done or not, sector by sector, and clusters may leak. In
 * every third one it takes whole blocks of 4 KiB only, as O_DIRECT may.
 * Prints TAP, one test a round. Threads: one loop.
 */
#include <errno.h>
#include <string.h>

#include "bed.h"

enum { MAX_SNAPS = 4, OPS = 150, TASKS = 5 };

struct model {
	uint8_t *v;
	uint64_t len;
};
struct test {
	struct bed bed;
	struct qcow2_create c;
	bool backing, qemu;
	bool faulty; /* the host file fails now and then */
	struct memfile m, base;
	struct block *b;
	struct model disk, snap[MAX_SNAPS];
	bool has_snap[MAX_SNAPS];
	const char *dir;
};

static void fill(struct test *t, uint8_t *p, uint64_t n)
{
	bool easy = bed_rnd(&t->bed, 2);

	for (uint64_t i = 0; i < n; i++)
		p[i] = easy ? (uint8_t)(t->bed.random >> 20) : (uint8_t)mem_random(&t->bed.random);
}

/* ---- Operations that run at once ------------------------------------------------------------- */

struct op {
	struct test *t;
	int kind;
	uint64_t off, len;
	uint8_t *buf;
	unsigned flags;
	bool unsure; /* it failed, or was a discard: each sector is as before or as wanted */
};

static void op_run(void *arg)
{
	struct op *o = arg;
	struct test *t = o->t;
	struct model *d = &t->disk;
	int r = 0;

	switch (o->kind) {
	case 0: /* read */
		r = block_co_pread(t->b, o->off, o->buf, o->len);
		if (r >= 0 && memcmp(o->buf, d->v + o->off, o->len))
			bed_fail(&t->bed, "read at %llu, %llu bytes: differs",
				 (unsigned long long)o->off, (unsigned long long)o->len);
		break;
	case 1: r = block_co_pwrite(t->b, o->off, o->buf, o->len, o->flags); break;
	case 2: r = block_co_zero(t->b, o->off, o->len, o->flags); break;
	case 3: r = block_co_discard(t->b, o->off, o->len); break;
	}
	if (r == -EIO && t->faulty) {
		o->unsure = true;
		r = 0;
	}
	o->unsure |= o->kind == 3;
	if (r < 0)
		bed_fail(&t->bed, "operation %d at %llu, %llu bytes: %s", o->kind,
			 (unsigned long long)o->off, (unsigned long long)o->len, strerror(-r));
	bed_ended(&t->bed);
}

/* Sectors that are as before, zero, or as written; the model becomes what they are. */
static void op_settle(struct test *t, struct op *o)
{
	uint8_t *now = malloc(o->len);
	int r;

	t->m.fail_in = 0;
	r = block_co_pread(t->b, o->off, now, o->len);
	if (r < 0)
		bed_fail(&t->bed, "read after operation %d: %s", o->kind, strerror(-r));
	for (uint64_t i = 0; r >= 0 && o->kind && i < o->len; i += 512) {
		bool done = true;

		for (unsigned k = 0; k < 512; k++)
			done &= now[i + k] == (o->kind == 1 ? o->buf[i + k] : 0);
		if (!done && memcmp(now + i, t->disk.v + o->off + i, 512))
			bed_fail(&t->bed, "sector at %llu is neither as before nor as wanted",
				 (unsigned long long)(o->off + i));
	}
	if (r >= 0 && o->kind)
		memcpy(t->disk.v + o->off, now, o->len);
	free(now);
}

static void some_ops_co(struct test *t)
{
	struct op ops[TASKS];
	unsigned n = 1 + (unsigned)bed_rnd(&t->bed, TASKS), made = 0;
	uint64_t sectors = t->disk.len / 512, cl = t->c.cluster_size / 512;

	for (unsigned i = 0; i < n && sectors; i++) {
		struct op *o = &ops[made];
		bool clash = false;

		*o = (struct op){ .t = t, .kind = (int)bed_rnd(&t->bed, 8) };
		if (o->kind > 3)
			o->kind = o->kind == 4 ? 0 : 1;
		o->len = 1 + bed_rnd(&t->bed, bed_rnd(&t->bed, 3) ? cl * 3 + 1 : cl + 1);
		if (bed_rnd(&t->bed, 20) == 0)
			o->len = 1 + bed_rnd(&t->bed, sectors);
		o->off = bed_rnd(&t->bed, sectors);
		if (o->kind >= 2 && bed_rnd(&t->bed, 2)) {
			o->off = o->off / cl * cl;
			o->len = (1 + bed_rnd(&t->bed, 4)) * cl;
		}
		o->len = MIN(o->len, sectors - o->off) * 512;
		o->len = MIN(o->len, 4u << 20);
		o->off *= 512;
		/* not the same sectors at once: then each result is right */
		for (unsigned k = 0; k < made; k++)
			clash |= o->off < ops[k].off + ops[k].len && ops[k].off < o->off + o->len;
		if (clash)
			continue;
		o->buf = malloc(o->len);
		if (o->kind == 1)
			fill(t, o->buf, o->len);
		o->flags = o->kind == 1          ? (bed_rnd(&t->bed, 10) ? 0 : BLOCK_FUA)
			   : bed_rnd(&t->bed, 2) ? BLOCK_UNMAP
						 : 0;
		made++;
	}
	bed_co_together(&t->bed, op_run, ops, sizeof(ops[0]), made);
	for (unsigned i = 0; i < made; i++) {
		struct op *o = &ops[i];

		if (o->unsure)
			continue;
		if (o->kind == 1)
			memcpy(t->disk.v + o->off, o->buf, o->len);
		else if (o->kind == 2)
			memset(t->disk.v + o->off, 0, o->len);
	}
	for (unsigned i = 0; i < made; i++) {
		if (ops[i].unsure)
			op_settle(t, &ops[i]);
		free(ops[i].buf);
	}
}

/* ---- Operations by themselves ---------------------------------------------------------------- */

static void report(void *opaque, const char *line)
{
	struct test *t = opaque;

	if (t->faulty && !strncmp(line, "Leaked", 6))
		return;
	fprintf(stderr, "# seed %llu: %s\n", (unsigned long long)t->bed.seed, line);
}

static void reopen_co(struct test *t)
{
	struct err e = { 0 };

	if (bed_rnd(&t->bed, 3) == 0) {
		if (t->b->drv->reopen_co(t->b, true, &e) < 0)
			bed_fail(&t->bed, "reopen_co: %s", e.msg);
		return;
	}
	block_co_close(t->b);
	t->b = NULL;
	if (bed_co_image(&t->bed, &t->m, t->backing ? &t->base : NULL, false, true, &t->b, &e) < 0)
		bed_fail(&t->bed, "reopen: %s", e.msg);
}

/* Closed, the image must be without error and leak; the whole content right. */
static void verify_co(struct test *t)
{
	struct qcow2_check c = { .report = report, .opaque = t };
	struct err e = { 0 };
	uint8_t *all;
	int r;

	t->m.fail_in = 0;
	reopen_co(t);
	if (t->bed.failed)
		return;
	r = qcow2_co_check(t->b, 0, &c, &e);
	if (r < 0)
		bed_fail(&t->bed, "check: %s", e.msg);
	if (c.corruptions || (c.leaks && !t->faulty))
		bed_fail(&t->bed, "check: %llu corruptions, %llu leaks",
			 (unsigned long long)c.corruptions, (unsigned long long)c.leaks);
	if (t->b->len != t->disk.len)
		bed_fail(&t->bed, "length is %llu, not %llu", (unsigned long long)t->b->len,
			 (unsigned long long)t->disk.len);
	all = malloc(t->disk.len + 1);
	r = t->bed.failed ? 0 : block_co_pread(t->b, 0, all, t->disk.len);
	if (r < 0)
		bed_fail(&t->bed, "read of all: %s", strerror(-r));
	for (uint64_t i = 0; !t->bed.failed && i < t->disk.len; i++) {
		if (all[i] != t->disk.v[i])
			bed_fail(&t->bed, "byte %llu is %02x, not %02x", (unsigned long long)i,
				 all[i], t->disk.v[i]);
	}
	free(all);
}

static void model_copy(struct model *to, const struct model *from)
{
	free(to->v);
	*to = (struct model){ malloc(from->len + 1), from->len };
	memcpy(to->v, from->v, from->len);
}

static void snapshot_co(struct test *t)
{
	unsigned i = (unsigned)bed_rnd(&t->bed, MAX_SNAPS);
	struct err e = { 0 };
	char name[16];
	int r;

	snprintf(name, sizeof(name), "snap%u", i);
	if (!t->has_snap[i]) {
		r = qcow2_co_snapshot_create(t->b, name, &e);
		if (r == -ERANGE && t->c.refcount_bits < 4)
			return verify_co(t);
		if (r >= 0)
			model_copy(&t->snap[i], &t->disk);
		t->has_snap[i] = r >= 0;
	} else if (bed_rnd(&t->bed, 2)) {
		r = qcow2_co_snapshot_delete(t->b, name, &e);
		t->has_snap[i] = false;
	} else {
		r = qcow2_co_snapshot_apply(t->b, name, &e);
		if (r == -ERANGE && t->c.refcount_bits < 4)
			return verify_co(t);
		if (r >= 0)
			model_copy(&t->disk, &t->snap[i]);
	}
	if (r < 0)
		bed_fail(&t->bed, "snapshot: %s", e.msg);
}

static void resize_co(struct test *t)
{
	uint64_t len = t->disk.len + bed_rnd(&t->bed, t->disk.len / 2 + 4096) / 512 * 512;
	struct err e = { 0 };
	int r;

	if (bed_rnd(&t->bed, 2))
		len = t->disk.len - bed_rnd(&t->bed, t->disk.len / 2 + 1) / 512 * 512;
	if (len > 8 << 20)
		len = 8 << 20;
	r = block_co_truncate(t->b, len, &e);
	if (r == -ENOTSUP && t->c.version == 2)
		return;
	if (r < 0) {
		bed_fail(&t->bed, "resize to %llu: %s", (unsigned long long)len, e.msg);
		return;
	}
	t->disk.v = realloc(t->disk.v, len + 1);
	if (len > t->disk.len)
		memset(t->disk.v + t->disk.len, 0, len - t->disk.len);
	t->disk.len = len;
}

static void compressed_co(struct test *t)
{
	uint64_t n = (t->disk.len + t->c.cluster_size - 1) / t->c.cluster_size;
	uint64_t off = bed_rnd(&t->bed, n) * t->c.cluster_size;
	uint32_t len = (uint32_t)MIN(t->c.cluster_size, t->disk.len - off);
	uint8_t *buf;
	int r;

	if (!n)
		return;
	buf = malloc(len);
	fill(t, buf, len);
	r = qcow2_co_write_compressed(t->b, off, buf, len);
	if (r < 0)
		bed_fail(&t->bed, "compressed write at %llu: %s", (unsigned long long)off,
			 strerror(-r));
	else
		memcpy(t->disk.v + off, buf, len);
	free(buf);
}

static void dump(const char *dir, const char *name, const void *p, uint64_t n)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	if (!f || (n && fwrite(p, n, 1, f) != 1) || fclose(f)) {
		perror(path);
		exit(1);
	}
}

static void qemu_verify(struct test *t)
{
	char cmd[2048];
	int r;

	dump(t->dir, "t.qcow2", t->m.data, t->m.len);
	dump(t->dir, "t.raw", t->disk.v, t->disk.len);
	dump(t->dir, "base.raw", t->base.data, t->base.len);
	snprintf(cmd, sizeof(cmd),
		 "cd '%s' && (qemu-img check -q t.qcow2 2>&- || [ $? = %d ]) && qemu-img compare "
		 "-q -f qcow2 -F raw "
		 "t.qcow2 t.raw",
		 t->dir, t->faulty ? 3 : 0);
	r = system(cmd);
	if (r)
		bed_fail(&t->bed, "qemu-img says %d of %s/t.qcow2 and t.raw", r, t->dir);
}

static void round_co(void *arg)
{
	struct test *t = arg;
	struct err e = { 0 };
	int r;

	t->c.size = t->disk.len;
	r = bed_co_create(&t->bed, &t->m, &t->c, &e);
	if (r >= 0)
		r = bed_co_image(&t->bed, &t->m, t->backing ? &t->base : NULL, false, true, &t->b,
				 &e);
	if (r < 0) {
		bed_fail(&t->bed, "create: %s", e.msg);
		return;
	}
	t->m.yield = true;
	for (unsigned i = 0; i < OPS && !t->bed.failed; i++) {
		unsigned what = (unsigned)bed_rnd(&t->bed, 40);

		/* what happens to lengths and snapshots when they fail is for the crash test */
		t->m.fail_in = t->faulty && what > 3 && bed_rnd(&t->bed, 4) == 0
				       ? 1 + (unsigned)bed_rnd(&t->bed, 12)
				       : 0;
		switch (what) {
		case 0: snapshot_co(t); break;
		case 1: resize_co(t); break;
		case 2:
		case 3: compressed_co(t); break;
		case 4: verify_co(t); break;
		case 5:
		case 6:
		case 7:
			r = block_co_flush(t->b);
			if (r < 0 && !(r == -EIO && t->faulty))
				bed_fail(&t->bed, "flush: %s", strerror(-r));
			break;
		default: some_ops_co(t);
		}
	}
	if (!t->bed.failed)
		verify_co(t);
	t->m.fail_in = 0;
	block_co_close(t->b);
	if (t->qemu && !t->bed.failed)
		qemu_verify(t);
}

static void one(struct test *t, uint64_t seed, unsigned i)
{
	char kind[100];

	bed_seed(&t->bed, seed);
	bed_config(&t->bed.random, &t->c, &t->backing);
	t->faulty = t->bed.seed % 4 == 0;
	t->m.align = t->bed.seed % 3 ? 0 : 4096;
	t->disk.len = (1 + bed_rnd(&t->bed, MIN(2000u, 100 * t->c.cluster_size / 512))) * 512;
	t->disk.v = calloc(1, t->disk.len + 1);
	t->m.random = t->bed.seed | 1;
	if (t->backing) {
		t->base.len = t->base.room =
			bed_rnd(&t->bed, t->disk.len * 2 / 512 + 1) * 512 + 512;
		t->base.random = 1;
		t->base.data = malloc(t->base.len);
		fill(t, t->base.data, t->base.len);
		memcpy(t->disk.v, t->base.data, MIN(t->base.len, t->disk.len));
	}
	bed_open(&t->bed);
	bed_run(&t->bed, round_co, t);
	bed_close(&t->bed);
	printf("%sok %u - seed %llu: %s%s\n", t->bed.failed ? "not " : "", i,
	       (unsigned long long)seed, bed_kind(&t->c, t->backing, kind),
	       t->faulty ? ", faults" : "");
	if (t->bed.failed)
		printf("# %s\n", t->bed.what);
	fflush(stdout);
	mem_free(&t->m);
	mem_free(&t->base);
	free(t->disk.v);
	for (unsigned k = 0; k < MAX_SNAPS; k++)
		free(t->snap[k].v);
}

int main(int argc, char **argv)
{
	unsigned rounds, failures = 0;
	uint64_t seed;

	if (argc < 4) {
		fprintf(stderr, "usage: %s DIR SEED ROUNDS [qemu]\n", argv[0]);
		return 1;
	}
	seed = strtoull(argv[2], NULL, 0);
	rounds = (unsigned)strtoul(argv[3], NULL, 0);
	printf("1..%u\n", rounds);
	for (unsigned i = 0; i < rounds; i++) {
		struct test t = { .dir = argv[1], .qemu = argc > 4 };

		one(&t, seed + i, i + 1);
		failures += !!t.bed.failed;
	}
	return failures ? 1 : 0;
}
