/*
 * The block layer's core on a driver that keeps its bytes in memory and checks what it is asked:
 * alignment, read-modify-write next to other writes, fallbacks; and drivers "file" and "raw" on
 * files of the host.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/block/block.h"
#include "backend/block/gather.h"
#include "base/bits.h"
#include "base/sanitize.h"

#define DISK (256 * 1024)

struct bed {
	struct clock clock;
	struct loop *loop;
	struct block_ctx *ctx;
	char dir[64], path[96];
};
static struct bed bed;

static enum block_aio bed_aio;

static int bed_new(void **state)
{
	memset(&bed, 0, sizeof(bed));
	clock_init_host(&bed.clock);
	bed.loop = loop_new(&bed.clock, NULL);
	bed.ctx = block_ctx_new(bed.loop, bed_aio, NULL);
	strcpy(bed.dir, "/tmp/kvasir-block-XXXXXX");
	if (!bed.ctx || !mkdtemp(bed.dir))
		return -1;
	snprintf(bed.path, sizeof(bed.path), "%s/disk", bed.dir);
	return 0;
}

static int bed_new_threads(void **state)
{
	int r;

	bed_aio = BLOCK_AIO_THREADS;
	r = bed_new(state);
	bed_aio = BLOCK_AIO_AUTO;
	return r;
}

static int bed_free(void **state)
{
	char cmd[128];

	block_ctx_free(bed.ctx);
	loop_free(bed.loop);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", bed.dir);
	return system(cmd);
}

static void run(void (*fn)(void *arg), void *arg)
{
	assert_int_equal(tasks_run(block_ctx_tasks(bed.ctx), fn, arg), 0);
}

/* ---- Vectors ------------------------------------------------------------------------------- */

static void vectors(void **state)
{
	char a[3], b[5], c[4], buf[12];
	struct iovec iov[] = { { a, 3 }, { NULL, 0 }, { b, 5 }, { c, 4 } }, out[4];
	struct iovecs v = iovecs_of(iov, 4), s;

	assert_int_equal(v.len, 12);
	iovecs_put(&v, 0, "abcdefghijkl", 12);
	assert_memory_equal(b, "defgh", 5);
	iovecs_get(&v, 2, buf, 7);
	assert_memory_equal(buf, "cdefghi", 7);
	s = iovecs_slice(&v, 3, 6, out);
	assert_int_equal(s.n, 2);
	assert_int_equal(s.len, 6);
	assert_ptr_equal(out[0].iov_base, b);
	assert_int_equal(out[1].iov_len, 1);
	assert_int_equal(iovecs_slice(&v, 12, 0, out).n, 0);
	assert_false(iovecs_all_zero(&v));
	iovecs_fill(&v, 0, 0, 11);
	assert_false(iovecs_all_zero(&v));
	iovecs_fill(&v, 11, 0, 1);
	assert_true(iovecs_all_zero(&v));
}

/* ---- A driver in memory -------------------------------------------------------------------- */

struct mem {
	uint8_t *bytes;
	uint32_t align;
	int writes, reads, zeroes, flushes, inflight;
};
static struct mem mem;

static int mem_open_co(struct block *b, struct err *e)
{
	b->len = DISK;
	b->request_align = b->memory_align = mem.align;
	return 0;
}

static void mem_check(struct block *b, uint64_t off, const struct iovecs *v)
{
	assert_int_equal(off % mem.align, 0);
	assert_int_equal(v->len % mem.align, 0);
	assert_true(off + v->len <= DISK);
	for (unsigned i = 0; i < v->n; i++)
		assert_int_equal((uintptr_t)v->iov[i].iov_base % mem.align, 0);
}

/* Each waits a little, so that others come in between. */
static int mem_read_co(struct block *b, uint64_t off, const struct iovecs *v)
{
	mem_check(b, off, v);
	mem.reads++;
	iovecs_put(v, 0, mem.bytes + off, v->len);
	task_co_sleep(block_ctx_tasks(b->ctx), 1000 * (off / 512 % 7));
	return 0;
}

static int mem_write_co(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags)
{
	mem_check(b, off, v);
	mem.writes++;
	task_co_sleep(block_ctx_tasks(b->ctx), 1000 * (off / 512 % 5));
	iovecs_get(v, 0, mem.bytes + off, v->len);
	return 0;
}

static int mem_zero_co(struct block *b, uint64_t off, uint64_t len, unsigned flags)
{
	mem.zeroes++;
	if (len < 4096)
		return -ENOTSUP;
	memset(mem.bytes + off, 0, len);
	return 0;
}

static int mem_flush_co(struct block *b)
{
	mem.flushes++;
	return 0;
}

static const struct block_driver mem_driver = {
	.name = "mem",
	.open_co = mem_open_co,
	.read_co = mem_read_co,
	.write_co = mem_write_co,
	.zero_co = mem_zero_co,
	.flush_co = mem_flush_co,
};

static struct block *mem_new(uint32_t align)
{
	struct block_opts o = { .writable = true };
	struct block *b;

	mem = (struct mem){ .align = align, .bytes = calloc(1, DISK) };
	assert_int_equal(block_co_open_node(bed.ctx, &mem_driver, &o, "m", NULL, &b, NULL), 0);
	return b;
}

/* Random requests of any alignment against a copy in an array. */
static void t_model(void *arg)
{
	struct block *b = mem_new(*(uint32_t *)arg);
	uint8_t *model = calloc(1, DISK), *buf = malloc(40000);

	srand(7);
	for (int i = 0; i < 400; i++) {
		uint64_t off = (uint64_t)rand() % DISK;
		size_t want = (size_t)rand() % (i % 4 ? 3000 : 40000);
		size_t len = MIN(want, DISK - off);
		unsigned cut = len ? (unsigned)rand() % len : 0;
		struct iovec iov[2] = { { buf, cut }, { buf + cut, len - cut } };
		struct iovecs v = iovecs_of(iov, 2);

		switch (rand() % 4) {
		case 0:
			assert_int_equal(block_co_read(b, off, &v), 0);
			assert_memory_equal(buf, model + off, len);
			break;
		case 1:
			assert_int_equal(block_co_zero(b, off, len, 0), 0);
			memset(model + off, 0, len);
			break;
		default:
			for (size_t k = 0; k < len; k++)
				buf[k] = (uint8_t)rand();
			assert_int_equal(block_co_write(b, off, &v, 0), 0);
			memcpy(model + off, buf, len);
		}
	}
	assert_memory_equal(mem.bytes, model, DISK);
	assert_int_equal(block_co_pread(b, DISK - 1, buf, 2), -EIO);
	assert_int_equal(block_co_pwrite(b, DISK, buf, 1, 0), -EIO);
	assert_int_equal(block_co_pwrite(b, UINT64_MAX, buf, 2, 0), -EIO);
	assert_int_equal(block_co_zero(b, UINT64_MAX - 1, 4096, 0), -EIO);
	mem.flushes = 0;
	assert_int_equal(block_co_pwrite(b, 0, buf, 1, BLOCK_FUA), 0);
	assert_int_equal(mem.flushes, 1); /* the driver does not know FUA */
	free(model);
	free(buf);
	free(mem.bytes);
	block_co_close(b);
}

static void model(void **state)
{
	for (uint32_t a = 1; a <= 4096; a *= 8)
		run(t_model, &a);
}

/* Writers of neighbouring bytes, all in flight at once: nobody's bytes get lost. */
struct writer {
	struct block *b;
	unsigned n, *left;
};

static void t_writer(void *arg)
{
	struct writer *w = arg;
	uint8_t buf[100];

	memset(buf, (int)w->n + 1, sizeof(buf));
	for (int i = 0; i < 3; i++)
		assert_int_equal(block_co_pwrite(w->b, w->n * 100, buf, 100, 0), 0);
	--*w->left;
}

static void t_writers(void *arg)
{
	struct block *b = mem_new(512);
	struct writer w[100];
	unsigned left = ARRAY_SIZE(w);

	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		w[i] = (struct writer){ b, i, &left };
		assert_int_equal(task_start(block_ctx_tasks(bed.ctx), t_writer, &w[i]), 0);
	}
	while (left)
		task_co_sleep(block_ctx_tasks(bed.ctx), 100000);
	for (unsigned i = 0; i < ARRAY_SIZE(w) * 100; i++)
		assert_int_equal(mem.bytes[i], i / 100 + 1);
	free(mem.bytes);
	block_co_close(b);
}

static void writers(void **state)
{
	run(t_writers, NULL);
}

static void t_detect(void *arg)
{
	struct block *b = mem_new(512);
	uint8_t buf[8192] = { 0 };

	b->opts.detect_zeroes = DETECT_ZEROES_ON;
	assert_int_equal(block_co_pwrite(b, 0, buf, sizeof(buf), 0), 0);
	assert_int_equal(mem.zeroes, 1);
	assert_int_equal(mem.writes, 0);
	buf[sizeof(buf) - 1] = 1;
	assert_int_equal(block_co_pwrite(b, 0, buf, sizeof(buf), 0), 0);
	assert_int_equal(mem.zeroes, 1);
	b->writable = false;
	assert_int_equal(block_co_pwrite(b, 0, buf, 1, 0), -EPERM);
	free(mem.bytes);
	block_co_close(b);
}

static void detect_zeroes(void **state)
{
	run(t_detect, NULL);
}

/* ---- Files --------------------------------------------------------------------------------- */

static void file_write(const char *path, const void *buf, size_t len, size_t total)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, buf, len), len);
	assert_int_equal(ftruncate(fd, (off_t)total), 0);
	close(fd);
}

static void t_file(void *arg)
{
	struct block_opts o = { .writable = true, .discard_unmap = true, .cache_direct = arg != 0 };
	struct block_status st;
	struct block *b;
	struct err e = { 0 };
	uint8_t buf[10000], got[10000];

	file_write(bed.path, "hello", 5, 1 << 20);
	if (block_co_open(bed.ctx, bed.path, "raw", &o, &b, &e)) {
		print_message("no O_DIRECT here: %s\n", e.msg);
		return;
	}
	assert_int_equal(b->len, 1 << 20);
	assert_int_equal(block_co_pread(b, 0, got, 6), 0);
	assert_memory_equal(got, "hello", 6);
	memset(buf, 0x5a, sizeof(buf));
	assert_int_equal(block_co_pwrite(b, 300001, buf, sizeof(buf), 0), 0);
	assert_int_equal(block_co_pread(b, 300001, got, sizeof(got)), 0);
	assert_memory_equal(buf, got, sizeof(got));
	assert_int_equal(block_co_flush(b), 0);
	assert_int_equal(block_co_zero(b, 300001, 9000, BLOCK_UNMAP), 0);
	assert_int_equal(block_co_pread(b, 300001, got, sizeof(got)), 0);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(got[i], i < 9000 ? 0 : 0x5a);
	assert_int_equal(block_co_status(b, 500000, 100000, &st), 0);
	assert_true(st.flags & BLOCK_ZERO);
	assert_int_equal(st.len, 100000);
	assert_int_equal(block_co_status(b, 0, 1 << 20, &st), 0);
	assert_true(st.flags & BLOCK_DATA);
	assert_true(st.len < 300000);
	assert_int_equal(block_co_discard(b, 0, 65536), 0);
	assert_int_equal(block_co_pread(b, 0, got, 5), 0);
	assert_memory_equal(got, "\0\0\0\0\0", 5);
	/* a raw disk does not grow, the file below would */
	assert_int_equal(block_co_pwrite(b, (1 << 20) - 1, buf, 2, 0), -EIO);
	assert_int_equal(block_co_pwrite(b->file, (1 << 20) + 100, buf, 50, 0), 0);
	assert_int_equal(block_co_pread(b->file, (1 << 20) + 90, got, 1000), 0);
	assert_int_equal(got[9], 0);
	assert_int_equal(got[10], 0x5a);
	assert_int_equal(got[60], 0); /* behind the end */
	block_co_close(b);
}

static void file(void **state)
{
	run(t_file, NULL);
	run(t_file, bed.path);
}

/*
 * Requests of pages from all over a buffer, more at once than there are gathering buffers. The
 * buffer's pages have their numbers in them, the disk's are in another order.
 */
#define SCATTERED 8

struct scattered {
	struct block *b;
	unsigned n, *left;
	uint8_t *mem; /* 2 * 256 pages: written from one half, read into the other */
};

static unsigned scattered_page(unsigned i)
{
	return i * 77 % 256;
}

static void t_one_scattered(void *arg)
{
	struct scattered *s = arg;
	struct iovec w[256], r[256];
	struct iovecs v;
	uint64_t off = (uint64_t)s->n << 20;

	for (unsigned i = 0; i < 256; i++) {
		memset(s->mem + i * 4096, (int)(i * 31 + s->n), 4096);
		w[i] = (struct iovec){ s->mem + scattered_page(i) * 4096, 4096 };
		r[i] = (struct iovec){ s->mem + (256 + (255 - scattered_page(i))) * 4096, 4096 };
	}
	v = iovecs_of(w, 256);
	assert_int_equal(block_co_write(s->b, off, &v, 0), 0);
	v = iovecs_of(r, 256);
	assert_int_equal(block_co_read(s->b, off, &v), 0);
	for (unsigned i = 0; i < 256; i++)
		assert_memory_equal(s->mem + i * 4096, s->mem + (511 - i) * 4096, 4096);
	--*s->left;
}

static void t_scattered(void *arg)
{
	struct block_opts o = { .writable = true, .cache_direct = true, .gather = *(uint8_t *)arg };
	struct scattered s[SCATTERED];
	unsigned left = SCATTERED;
	struct iovec io[16];
	struct iovecs v;
	struct block *b;
	uint8_t *tail;

	file_write(bed.path, "", 0, SCATTERED << 20);
	if (block_co_open(bed.ctx, bed.path, "raw", &o, &b, NULL)) {
		print_message("no O_DIRECT here\n");
		return;
	}
	for (unsigned i = 0; i < SCATTERED; i++) {
		s[i] = (struct scattered){ b, i, &left, aligned_alloc(4096, 512 * 4096) };
		assert_non_null(s[i].mem);
		memset(s[i].mem, 0xee, 512 * 4096);
		assert_int_equal(task_start(block_ctx_tasks(bed.ctx), t_one_scattered, &s[i]), 0);
	}
	while (left)
		task_co_sleep(block_ctx_tasks(bed.ctx), 1000000);
	for (unsigned i = 0; i < SCATTERED; i++)
		free(s[i].mem);
	/* over the end of the file: what is not there reads as zeroes */
	tail = aligned_alloc(4096, 16 * 4096);
	memset(tail, 0xee, 16 * 4096);
	for (unsigned i = 0; i < 16; i++)
		io[i] = (struct iovec){ tail + (15 - i) * 4096, 4096 };
	v = iovecs_of(io, 16);
	assert_int_equal(block_co_read(b->file, ((uint64_t)SCATTERED << 20) - 8192, &v), 0);
	for (unsigned i = 0; i < 16; i++) {
		unsigned page = scattered_page(254 + i);

		assert_int_equal(tail[(15 - i) * 4096],
				 i < 2 ? (page * 31 + SCATTERED - 1) & 0xff : 0);
		assert_int_equal(tail[(15 - i) * 4096 + 4095],
				 i < 2 ? (page * 31 + SCATTERED - 1) & 0xff : 0);
	}
	free(tail);
	block_co_close(b);
}

static void scattered(void **state)
{
	for (uint8_t how = BLOCK_GATHER_AUTO; how <= BLOCK_GATHER_OFF; how++)
		run(t_scattered, &how);
}

/* When a copy pays, and that there is an end of buffers. */
static void gathering(void **state)
{
	static uint8_t pages[64 * 4096];
	struct iovec io[64];
	struct iovecs v;
	struct gather *g = gather_new();
	void *buf[GATHER_BUFFERS];

	for (unsigned i = 0; i < 64; i++)
		io[i] = (struct iovec){ pages + i * 4096, 4096 };
	v = iovecs_of(io, 64);
	assert_true(gather_worth(&v));
	v = iovecs_of(io, 8);
	assert_true(gather_worth(&v));
	v = iovecs_of(io, 7); /* few pieces */
	assert_false(gather_worth(&v));
	for (unsigned i = 0; i < 8; i++)
		io[i] = (struct iovec){ pages, 32768 };
	v = iovecs_of(io, 8); /* long pieces */
	assert_false(gather_worth(&v));
	for (unsigned i = 0; i < GATHER_BUFFERS; i++) {
		buf[i] = gather_get(g);
		assert_non_null(buf[i]);
		assert_int_equal((uintptr_t)buf[i] % 4096, 0);
		memset(buf[i], (int)i, GATHER_SIZE);
	}
	assert_null(gather_get(g));
	gather_put(g, buf[2]);
	assert_ptr_equal(gather_get(g), buf[2]);
	for (unsigned i = 0; i < GATHER_BUFFERS; i++)
		assert_int_equal(((uint8_t *)buf[i])[GATHER_SIZE - 1], i);
	for (unsigned i = 0; i < GATHER_BUFFERS; i++)
		gather_put(g, buf[i]);
	gather_free(g);
	gather_free(NULL);
	assert_false(gather_on_virtio(-1));
}

/* More requests at once than the ring has places; every byte is somebody's. */
#define MANY 2000

static void t_one_of_many(void *arg)
{
	struct writer *w = arg;
	uint32_t buf[128], got[128];

	for (unsigned i = 0; i < 128; i++)
		buf[i] = w->n * 1000 + i;
	assert_int_equal(block_co_pwrite(w->b, w->n * 512, buf, 512, 0), 0);
	if (w->n % 16 == 0)
		assert_int_equal(block_co_flush(w->b), 0);
	assert_int_equal(block_co_pread(w->b, w->n * 512, got, 512), 0);
	assert_memory_equal(buf, got, 512);
	--*w->left;
}

static void t_many(void *arg)
{
	struct block_opts o = { .writable = true };
	static struct writer w[MANY];
	unsigned left = MANY;
	struct block *b;

	file_write(bed.path, "", 0, MANY * 512);
	assert_int_equal(block_co_open(bed.ctx, bed.path, "raw", &o, &b, NULL), 0);
	for (unsigned i = 0; i < MANY; i++) {
		w[i] = (struct writer){ b, i, &left };
		assert_int_equal(task_start(block_ctx_tasks(bed.ctx), t_one_of_many, &w[i]), 0);
	}
	while (left)
		task_co_sleep(block_ctx_tasks(bed.ctx), 1000000);
	block_co_close(b);
}

static void many(void **state)
{
	run(t_many, NULL);
}

/* Where the host refuses io_uring, the default does without and an explicit wish is an error. */
static void refused_uring(void **state)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_SIZE(f), f };
	struct err e = { 0 };
	struct block_ctx *c;
	pid_t pid;
	int st;

#ifdef __SANITIZE_THREAD__
	skip(); /* it allows no threads in a child of a process with threads */
#endif
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
			_exit(77);
		c = block_ctx_new(bed.loop, BLOCK_AIO_IO_URING, &e);
		if (c || !strstr(e.msg, "aio=threads"))
			_exit(1);
		e = (struct err){ 0 };
		c = block_ctx_new(bed.loop, BLOCK_AIO_AUTO, &e);
		_exit(!c || e.code);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	if (WIFEXITED(st) && WEXITSTATUS(st) == 77)
		skip();
	assert_int_equal(st, 0);
}

static void t_raw_window(void *arg)
{
	struct block_opts o = { .writable = true, .raw_offset = 4096, .raw_size = 8192 };
	struct block *b;
	struct err e = { 0 };

	file_write(bed.path, "x", 1, 20000);
	assert_int_equal(block_co_open(bed.ctx, bed.path, "raw", &o, &b, &e), 0);
	assert_int_equal(b->len, 8192);
	assert_int_equal(block_co_pwrite(b, 8191, "yz", 1, 0), 0);
	assert_int_equal(block_co_pwrite(b, 8191, "yz", 2, 0), -EIO);
	block_co_close(b);
	o.raw_size = 20000;
	assert_int_equal(block_co_open(bed.ctx, bed.path, "raw", &o, &b, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "behind the end"));
	o.raw_offset = 30000;
	assert_int_equal(block_co_open(bed.ctx, bed.path, "raw", &o, &b, &e), -EINVAL);
}

static void raw_window(void **state)
{
	run(t_raw_window, NULL);
}

static void t_guard(void *arg)
{
	struct block_opts o = { .writable = true };
	struct block *b;
	struct err e = { 0 };
	char sector[512] = "KDMV", big[3000], got[3000];

	file_write(bed.path, "x", 1, 65536);
	assert_int_equal(block_co_open(bed.ctx, bed.path, NULL, &o, &b, &e), 0);
	assert_string_equal(b->drv->name, "raw");
	assert_int_equal(block_co_pwrite(b, 0, sector, 512, 0), -EPERM);
	assert_int_equal(block_co_pwrite(b, 0, sector, 3, 0), 0); /* in parts, too */
	assert_int_equal(block_co_pwrite(b, 3, sector + 3, 1, 0), -EPERM);
	assert_int_equal(block_co_pwrite(b, 512, sector, 512, 0), 0);
	assert_int_equal(block_co_pwrite(b, 3, "W", 1, 0), 0);
	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = (char)i;
	assert_int_equal(block_co_pwrite(b, 0, big, sizeof(big), 0), 0);
	assert_int_equal(block_co_pread(b, 0, got, sizeof(got)), 0);
	assert_memory_equal(big, got, sizeof(got));
	memcpy(big, "QFI\xfb", 4);
	assert_int_equal(block_co_pwrite(b, 0, big, sizeof(big), 0), -EPERM);
	block_co_close(b);
	assert_int_equal(block_co_open(bed.ctx, bed.path, "raw", &o, &b, &e), 0);
	assert_int_equal(block_co_pwrite(b, 0, sector, 512, 0), 0); /* the user said raw */
	block_co_close(b);
	assert_int_equal(block_co_open(bed.ctx, bed.path, NULL, &o, &b, &e), -ENOTSUP);
	assert_non_null(strstr(e.msg, "vmdk"));
}

static void guard(void **state)
{
	run(t_guard, NULL);
}

static void expect_refused(const char *path, const char *format, bool writable, const char *word)
{
	struct block_opts o = { .writable = writable };
	struct err e = { 0 };
	struct block *b;

	assert_true(block_open(bed.ctx, path, format, &o, &b, &e) < 0);
	assert_null(b);
	if (!strstr(e.msg, word))
		fail_msg("'%s' is not in '%s'", word, e.msg);
}

static void refused(void **state)
{
	expect_refused("/nonexistent/x", NULL, false, "No such file");
	expect_refused(bed.dir, NULL, false, "directory");
	expect_refused("/dev/null", "raw", false, "character device");
	expect_refused("nbd:localhost:1", NULL, false, "protocol 'nbd'");
	expect_refused("json:{}", NULL, false, "protocol 'json'");
	expect_refused(bed.path, "qcow3", false, "unknown image format");
	assert_int_equal(mkfifo(bed.path, 0600), 0);
	expect_refused(bed.path, NULL, true, "FIFO"); /* and it does not wait for a writer */
}

/* Two nodes in one process meet as two processes do; tests/block.py does it with QEMU. */
static void locks(void **state)
{
	static const struct {
		struct block_opts a, b;
		bool ok;
	} t[] = {
		{ { .writable = true }, { .writable = true }, false },
		{ { .writable = true }, { .writable = false }, false },
		{ { .writable = false }, { .writable = true }, false },
		{ { .writable = false }, { .writable = false }, true },
		{ { .writable = true }, { .force_share = true }, true },
		{ { .force_share = true }, { .writable = true }, true },
		{ { .writable = true }, { .writable = true, .no_lock = true }, true },
	};

	file_write(bed.path, "x", 1, 65536);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct block *a, *b;
		struct err e = { 0 };

		assert_int_equal(block_open(bed.ctx, bed.path, "raw", &t[i].a, &a, NULL), 0);
		assert_int_equal(block_open(bed.ctx, bed.path, "raw", &t[i].b, &b, &e) == 0,
				 t[i].ok);
		if (!t[i].ok)
			assert_non_null(strstr(e.msg, "another process"));
		block_close(b);
		block_close(a);
	}
}

static void t_create(void *arg)
{
	struct block *b;
	struct stat st;

	file_write(bed.path, "old", 3, 99999);
	assert_int_equal(block_co_create_file(bed.ctx, bed.path, 12345, NULL, &b, NULL), 0);
	assert_int_equal(b->len, 12345);
	assert_true(b->writable);
	assert_int_equal(block_co_pwrite(b, 20000, "abc", 3, 0), 0);
	assert_int_equal(b->len, 20003);
	assert_int_equal(block_co_truncate(b, 10, NULL), 0);
	block_co_close(b);
	assert_int_equal(stat(bed.path, &st), 0);
	assert_int_equal(st.st_size, 10);
}

static void create(void **state)
{
	run(t_create, NULL);
}

static void paths(void **state)
{
	static const char *const t[][3] = {
		{ "/a/b", "c", "/a/c" },       { "b", "c", "c" },
		{ "/a/b", "/c", "/c" },        { "d/b", "../c", "d/../c" },
		{ "d/b", "nbd:x", "nbd:x" },   { "d/b", "file:c", "file:c" },
		{ "d/b", "./x:y", "d/./x:y" }, { "d/b", "1/x:y", "d/1/x:y" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		char *p = block_path_combine(t[i][0], t[i][1]);

		assert_string_equal(p, t[i][2]);
		free(p);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, bed_new, bed_free)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors),
		cmocka_unit_test(gathering),
		T(model),
		T(writers),
		T(detect_zeroes),
		T(file),
		T(raw_window),
		T(guard),
		T(refused),
		T(create),
		T(locks),
		cmocka_unit_test(paths),
		T(many),
		T(refused_uring),
		cmocka_unit_test_setup_teardown(file, bed_new_threads, bed_free),
		T(scattered),
		cmocka_unit_test_setup_teardown(scattered, bed_new_threads, bed_free),
		cmocka_unit_test_setup_teardown(many, bed_new_threads, bed_free),
	};

	return cmocka_run_group_tests_name("block/core", tests, NULL, NULL);
}
