/* Guest memory: placement around the hole, bounds, ROM, listeners, values, backings. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/memory.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static const struct gmem_opts plain;

struct watch {
	struct gmem_listener l;
	int added, deleted, writes, refuse_at;
	gpa_t gpa;
	uint64_t len;
};

static int watch_add(struct gmem_listener *l, const struct gmem_block *b, struct err *e)
{
	struct watch *w = (struct watch *)l;

	if (w->refuse_at && w->added + 1 == w->refuse_at)
		return err_set(e, ENOSPC, "no slot for %s", b->name);
	w->added++;
	return 0;
}

static void watch_del(struct gmem_listener *l, const struct gmem_block *b)
{
	((struct watch *)l)->deleted++;
}

static void watch_written(struct gmem_listener *l, gpa_t gpa, uint64_t len)
{
	struct watch *w = (struct watch *)l;

	w->writes++;
	w->gpa = gpa;
	w->len = len;
}

#define WATCH(...) \
	((struct watch){ { .add = watch_add, .del = watch_del, .written = watch_written }, \
			 ##__VA_ARGS__ })

static void memory_hole(void **state)
{
	struct gmem *gm = gmem_new();
	const struct gmem_block *lo, *hi;
	uint8_t v = 0;

	assert_int_equal(gmem_add_pc_ram(gm, 5 * GIB, 3 * GIB, &plain, NULL), 0);
	lo = gmem_block_at(gm, 0);
	hi = gmem_block_at(gm, 1);
	assert_null(gmem_block_at(gm, 2));
	assert_true(lo->gpa == 0 && lo->len == 3 * GIB && hi->gpa == 4 * GIB && hi->len == 2 * GIB);
	assert_true(hi->fd == lo->fd && hi->fd_off == 3 * GIB && hi->host == lo->host + 3 * GIB);
	assert_int_equal(gmem_ram_size(gm), 5 * GIB);
	assert_null(gmem_find(gm, 3 * GIB));
	assert_null(gmem_find(gm, 4 * GIB - 1));
	assert_ptr_equal(gmem_find(gm, 4 * GIB), hi);
	assert_null(gmem_find(gm, 6 * GIB));
	assert_int_equal(gmem_st8(gm, 6 * GIB - 1, 0x5a), 0);
	assert_int_equal(gmem_ld8(gm, 6 * GIB - 1, &v), 0);
	assert_int_equal(v, 0x5a);
	assert_int_equal(gmem_ld8(gm, UINT64_MAX, &v), -EFAULT);
	assert_int_equal(v, 0);
	gmem_free(gm);
}

static void memory_bounds(void **state)
{
	struct gmem *gm = gmem_new();
	uint8_t buf[64], *p;
	uint32_t v;
	uint64_t q;

	assert_int_equal(gmem_add_ram(gm, "a", 0, MIB, &plain, NULL), 0);
	assert_int_equal(gmem_add_ram(gm, "b", MIB, MIB, &plain, NULL), 0);
	memset(buf, 0x11, sizeof(buf));
	assert_int_equal(gmem_write(gm, MIB - 32, buf, 64), 0); /* across two blocks */
	memset(buf, 0, sizeof(buf));
	assert_int_equal(gmem_read(gm, MIB - 32, buf, 64), 0);
	assert_int_equal(buf[63], 0x11);
	assert_int_equal(gmem_write(gm, 2 * MIB - 1, buf, 2), -EFAULT);
	assert_int_equal(gmem_read(gm, 2 * MIB, buf, 1), -EFAULT);
	assert_int_equal(gmem_read(gm, 2 * MIB, buf, 0), 0);
	assert_int_equal(gmem_read(gm, UINT64_MAX, buf, 2), -EFAULT);
	assert_null(gmem_ptr(gm, MIB - 2, 4));
	assert_null(gmem_ptr(gm, 0, 0));
	assert_null(gmem_ptr(gm, 16, UINT64_MAX));
	p = gmem_ptr_w(gm, 16, 16);
	assert_ptr_equal(p, gmem_ptr(gm, 16, 16));
	assert_int_equal(gmem_st32(gm, MIB - 2, 0x44332211), 0);
	assert_int_equal(gmem_ld32(gm, MIB - 2, &v), 0);
	assert_int_equal(v, 0x44332211);
	assert_int_equal(gmem_ld64(gm, 2 * MIB - 4, &q), -EFAULT);
	assert_int_equal(q, 0);
	assert_int_equal(gmem_st64(gm, 101, 0x1122334455667788), 0);
	assert_int_equal(gmem_ld64(gm, 101, &q), 0);
	assert_int_equal(q, 0x1122334455667788);
	assert_int_equal(gmem_fill(gm, 0, 0xee, MIB + 5), 0);
	assert_int_equal(gmem_ld8(gm, MIB + 4, buf), 0);
	assert_int_equal(buf[0], 0xee);
	gmem_free(gm);
}

static void memory_errors(void **state)
{
	struct gmem *gm = gmem_new();
	struct err e = { 0 };

	assert_true(gmem_add_ram(gm, "a", 0, 100, &plain, &e) < 0);
	assert_true(gmem_add_ram(gm, "a", 1, 4096, &plain, &e) < 0);
	assert_true(gmem_add_ram(gm, "a", 0, 0, &plain, &e) < 0);
	assert_true(gmem_add_ram(gm, "a", UINT64_MAX & ~4095ull, 8192, &plain, &e) < 0);
	assert_true(gmem_add_pc_ram(gm, 0, 3 * GIB, &plain, &e) < 0);
	assert_true(gmem_add_pc_ram(gm, 1ull << 60, 3 * GIB, &plain, &e) < 0);
	assert_int_equal(gmem_add_ram(gm, "first", 4096, 8192, &plain, &e), 0);
	assert_true(gmem_add_ram(gm, "second", 8192, 8192, &plain, &e) < 0);
	assert_non_null(strstr(e.msg, "second"));
	assert_non_null(strstr(e.msg, "first"));
	assert_true(gmem_add_rom(gm, "rom", 1 << 20, 4096, "x", 5000, &e) < 0);
	assert_true(gmem_add_ram(gm, "x", 1 << 20, 4096,
				 &(struct gmem_opts){ .path = "/nonexistent/dir/file" }, &e) < 0);
	assert_non_null(strstr(e.msg, "/nonexistent"));
	e.msg[0] = 0; /* huge pages: refused for the size, or because the host has none */
	assert_true(gmem_add_ram(gm, "x", 1 << 20, 12288, &(struct gmem_opts){ .hugepages = true },
				 &e) < 0);
	assert_true(e.msg[0]);
	assert_null(gmem_block_at(gm, 1));
	gmem_free(gm);
}

static void memory_rom_and_listeners(void **state)
{
	struct gmem *gm = gmem_new();
	struct watch w = WATCH(0), no = WATCH(.refuse_at = 2);
	struct err e = { 0 };
	uint16_t v;
	unsigned id;

	assert_int_equal(gmem_add_pc_ram(gm, MIB, 3 * GIB, &plain, NULL), 0);
	assert_int_equal(gmem_listen(gm, &w.l, NULL), 0);
	assert_int_equal(w.added, 1);
	assert_int_equal(gmem_add_rom(gm, "bios", 0xffff0000, 0x10000, "\x55\xaa", 2, NULL), 0);
	assert_int_equal(w.added, 2);
	assert_int_equal(gmem_ram_size(gm), MIB);
	assert_int_equal(gmem_ld16(gm, 0xffff0000, &v), 0);
	assert_int_equal(v, 0xaa55);
	assert_int_equal(gmem_ld16(gm, 0xfffffffe, &v), 0);
	assert_int_equal(v, 0xffff);
	assert_int_equal(gmem_st16(gm, 0xffff0000, 1), -EFAULT);
	assert_null(gmem_ptr_w(gm, 0xffff0000, 1));
	assert_int_equal(w.writes, 0);
	assert_int_equal(gmem_load(gm, 0xffff0002, "ab", 2), 0);
	assert_int_equal(w.writes, 1);
	assert_int_equal(gmem_st16(gm, 0x1234, 1), 0);
	assert_true(w.writes == 2 && w.gpa == 0x1234 && w.len == 2);
	assert_int_equal(gmem_write(gm, 0x2000, "abcd", 4), 0);
	assert_true(w.writes == 3 && w.gpa == 0x2000 && w.len == 4);
	/* a listener that refuses is not left half in */
	assert_int_equal(gmem_listen(gm, &no.l, &e), -ENOSPC);
	assert_true(no.added == 1 && no.deleted == 1);
	no = WATCH(.refuse_at = 3);
	assert_int_equal(gmem_listen(gm, &no.l, &e), 0);
	assert_int_equal(gmem_add_ram(gm, "extra", GIB, 4096, &plain, &e), -ENOSPC);
	assert_null(gmem_find(gm, GIB));
	assert_int_equal(w.added, w.deleted + 2);
	gmem_unlisten(gm, &no.l);
	assert_int_equal(no.added, no.deleted);
	id = gmem_find(gm, 0xffff0000)->id;
	gmem_remove(gm, id);
	gmem_remove(gm, id);
	assert_null(gmem_find(gm, 0xffff0000));
	gmem_free(gm);
	assert_int_equal(w.added, w.deleted);
}

static void memory_backings(void **state)
{
	struct gmem *gm = gmem_new();
	char path[] = "/tmp/kvasir-test-XXXXXX";
	int fd = mkstemp(path);
	unsigned char there[512];
	char back[4] = { 0 };

	assert_true(fd >= 0);
	assert_int_equal(
		gmem_add_ram(gm, "file", 0, 8192, &(struct gmem_opts){ .path = path }, NULL), 0);
	assert_int_equal(gmem_write(gm, 4096, "abc", 3), 0);
	assert_int_equal(pread(fd, back, 3, 4096), 3);
	assert_string_equal(back, "abc");
	assert_int_equal(gmem_add_ram(gm, "dir", MIB, 8192,
				      &(struct gmem_opts){ .path = "/tmp", .prealloc = true },
				      NULL),
			 0);
	assert_int_equal(gmem_add_ram(gm, "private", 2 * MIB, 8192,
				      &(struct gmem_opts){ .path = path, .private_map = true },
				      NULL),
			 0);
	assert_int_equal(gmem_write(gm, 2 * MIB, "xyz", 3), 0);
	assert_int_equal(pread(fd, back, 3, 0), 3);
	assert_int_equal(back[0], 0); /* copy on write: the file is as before */
	assert_int_equal(gmem_add_ram(gm, "memfd", 3 * MIB, 8192,
				      &(struct gmem_opts){ .shared = true }, NULL),
			 0);
	assert_true(ftruncate(gmem_find(gm, 3 * MIB)->fd, 4096) < 0); /* sealed */
	assert_int_equal(gmem_write(gm, 3 * MIB + 4096, "memfd", 5), 0);
	assert_int_equal(pread(gmem_find(gm, 3 * MIB)->fd, back, 3, 4096), 3);
	assert_string_equal(back, "mem");
	assert_int_equal(gmem_add_ram(gm, "anonymous", 4 * MIB, 5 * MIB, &plain, NULL), 0);
	assert_int_equal(gmem_find(gm, 4 * MIB)->fd, -1);
	assert_int_equal((uintptr_t)gmem_find(gm, 4 * MIB)->host % (2 * MIB), 0);
	assert_int_equal(gmem_st8(gm, 9 * MIB - 1, 1), 0);
	assert_int_equal(gmem_add_ram(gm, "now", 16 * MIB, 2 * MIB,
				      &(struct gmem_opts){ .prealloc = true }, NULL),
			 0);
	assert_int_equal(mincore(gmem_find(gm, 16 * MIB)->host, 2 * MIB, there), 0);
	for (size_t i = 0; i < sizeof(there); i++)
		assert_true(there[i] & 1);
	gmem_free(gm);
	close(fd);
	unlink(path);
}

/* Pages that are given back read as zeroes, and nothing around them changes. */
static void memory_discard_of(const struct gmem_opts *o)
{
	struct gmem *gm = gmem_new();
	char path[] = "/tmp/kvasir-test-XXXXXX";
	struct gmem_opts priv = { .private_map = true, .path = path };
	struct watch w = WATCH();
	int fd = mkstemp(path);
	uint8_t v;

	assert_true(fd >= 0);
	assert_int_equal(gmem_add_pc_ram(gm, 8 * MIB, 4 * MIB, o, NULL), 0);
	assert_int_equal(gmem_add_rom(gm, "rom", 16 * MIB, 4096, "x", 1, NULL), 0);
	assert_int_equal(gmem_add_ram(gm, "private", 32 * MIB, MIB, &priv, NULL), 0);
	assert_int_equal(gmem_fill(gm, 0, 0x11, 4 * MIB), 0);
	assert_int_equal(gmem_listen(gm, &w.l, NULL), 0);
	assert_int_equal(gmem_discard(gm, 8192, 12288), 0);
	assert_int_equal(w.gpa, 8192);
	assert_int_equal(w.len, 12288);
	for (gpa_t at = 0; at < 8 * 4096; at += 512) {
		assert_int_equal(gmem_ld8(gm, at, &v), 0);
		assert_int_equal(v, at >= 8192 && at < 20480 ? 0 : 0x11);
	}
	assert_int_equal(gmem_discard(gm, 8192, 100), -EINVAL);
	assert_int_equal(gmem_discard(gm, 100, 4096), -EINVAL);
	assert_int_equal(gmem_discard(gm, 16 * MIB, 4096), -EFAULT);
	assert_int_equal(gmem_discard(gm, 4 * MIB - 4096, 8192), -EFAULT);
	assert_int_equal(gmem_ld8(gm, 4 * MIB - 1, &v), 0);
	assert_int_equal(v, 0); /* what comes before the bad byte went */
	assert_int_equal(gmem_discard(gm, UINT64_MAX & ~4095ull, 4096), -EFAULT);
	assert_int_equal(gmem_discard(gm, 32 * MIB, 4096), -ENOTSUP);
	assert_int_equal(gmem_discard(gm, 0, 0), 0);
	gmem_unlisten(gm, &w.l);
	gmem_free(gm);
	close(fd);
	unlink(path);
}

static void memory_discard(void **state)
{
	memory_discard_of(&plain);
	memory_discard_of(&(struct gmem_opts){ .shared = true });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_hole),     cmocka_unit_test(memory_bounds),
		cmocka_unit_test(memory_errors),   cmocka_unit_test(memory_rom_and_listeners),
		cmocka_unit_test(memory_backings), cmocka_unit_test(memory_discard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
