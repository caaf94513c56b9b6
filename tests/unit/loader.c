/*
 * Kernel loaders: crafted images, right ones and hostile ones. What a kernel finds in memory is
 * read back from guest memory as a guest would.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "firmware/kernel.h"

enum { MIB = 1 << 20, IMG = 256 * 1024 };

struct fix {
	uint8_t *ram;
	uint64_t size;
	struct place p;
	struct image img;
	uint8_t *file;
	struct boot_input in;
	struct boot_state bs;
	struct err e;
};

static void place_again(struct fix *f, uint64_t size)
{
	f->size = size;
	place_init(&f->p, size, f->ram, size > 3072ull * MIB ? f->ram : NULL);
}

static int setup(void **state)
{
	struct fix *f = calloc(1, sizeof(*f));

	f->ram = mmap(NULL, 3072ull * MIB, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	f->file = calloc(1, IMG);
	f->img = (struct image){ .name = "k", .data = f->file, .size = IMG };
	f->in = (struct boot_input){ .cmdline = "console=ttyS0", .rsdp = 0xe0000 };
	place_again(f, 256ull * MIB);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fix *f = *state;

	munmap(f->ram, 3072ull * MIB);
	free(f->file);
	free(f);
	return 0;
}

static void put(struct fix *f, size_t off, uint64_t v, unsigned n)
{
	memcpy(f->file + off, &v, n);
}

static uint64_t peek(const struct fix *f, gpa_t at, unsigned n)
{
	uint64_t v = 0;
	const uint8_t *h = place_ptr(&f->p, at, n);

	assert_non_null(h);
	memcpy(&v, h, n);
	return v;
}

static void refused(struct fix *f, int code, const char *says)
{
	memset(&f->e, 0, sizeof(f->e));
	assert_int_equal(kernel_load(&f->p, &f->img, &f->in, &f->bs, &f->e), -code);
	assert_int_equal(f->e.code, code);
	if (!strstr(f->e.msg, says))
		fail_msg("\"%s\" does not say \"%s\"", f->e.msg, says);
	assert_null(strchr(f->e.msg, '\n'));
}

static void loads(struct fix *f)
{
	if (kernel_load(&f->p, &f->img, &f->in, &f->bs, &f->e) < 0)
		fail_msg("%s", f->e.msg);
}

/* ---- bzImage ---- */

static void make_bzimage(struct fix *f, uint16_t version, uint16_t xflags)
{
	put(f, 0x1f1, 3, 1); /* four sectors in all */
	put(f, 0x1fe, 0xaa55, 2);
	put(f, 0x200, 0x6aeb, 2); /* the header ends at 0x26c */
	memcpy(f->file + 0x202, "HdrS", 4);
	put(f, 0x206, version, 2);
	put(f, 0x211, 0x41, 1); /* loaded high, keep segments */
	put(f, 0x214, 0x100000, 4);
	put(f, 0x22c, 0x7fffffff, 4);
	put(f, 0x230, 0x200000, 4);
	put(f, 0x234, 1, 1);
	put(f, 0x236, xflags, 2);
	put(f, 0x238, 2047, 4);
	put(f, 0x258, 0x1000000, 8);
	put(f, 0x260, 0x2000000, 4);
	memset(f->file + 0x800, 0x90, IMG - 0x800);
}

static void test_bzimage64(void **state)
{
	struct fix *f = *state;
	gpa_t bp, pml4, pdpt;

	make_bzimage(f, 0x20f, 3);
	loads(f);
	assert_int_equal(f->bs.mode, BOOT_LONG64);
	assert_int_equal(f->bs.rip, 0x1000200);
	assert_int_equal(peek(f, 0x1000000, 1), 0x90);
	bp = f->bs.rsi;
	assert_true(bp && bp < PLACE_EBDA && !(bp & 0xfff));
	assert_int_equal(peek(f, bp + 0x210, 1), 0xff);
	assert_int_equal(peek(f, bp + 0x211, 1), 1); /* keep segments cleared */
	assert_int_equal(peek(f, bp + 0x070, 8), 0xe0000);
	assert_string_equal((char *)place_ptr(&f->p, peek(f, bp + 0x228, 4), 1), "console=ttyS0");
	assert_int_equal(peek(f, bp + 0x1e8, 1), f->p.nmap);
	assert_int_equal(peek(f, bp + 0x2d0 + 16, 4), MEM_RAM);
	assert_int_equal(peek(f, bp + 0x218, 4), 0);
	/* The page tables map 3 GiB + 5 MiB one to one, and the GDT has 64-bit code at 10h. */
	pml4 = f->bs.cr3;
	pdpt = peek(f, pml4, 8) & ~0xfffull;
	assert_int_equal(peek(f, (peek(f, pdpt + 3 * 8, 8) & ~0xfffull) + 2 * 8, 8),
			 3072ull * MIB + 4 * MIB + 0x83);
	assert_int_equal(peek(f, f->bs.gdt + 0x10, 8), 0x00af9b000000ffff);
}

static void test_bzimage32(void **state)
{
	struct fix *f = *state;

	make_bzimage(f, 0x20b, 3); /* xloadflags do not count before 2.12 */
	loads(f);
	assert_int_equal(f->bs.mode, BOOT_PROT32);
	assert_int_equal(f->bs.rip, 0x1000000);
	assert_int_equal(peek(f, f->bs.rsi + 0x214, 4), 0x1000000);
	/* 2.04 has no relocation: 1 MiB and the header's own entry */
	place_again(f, 64ull * MIB);
	make_bzimage(f, 0x204, 0);
	put(f, 0x214, 0x101000, 4);
	loads(f);
	assert_int_equal(f->bs.rip, 0x101000);
	assert_int_equal(peek(f, 0x100000, 1), 0x90);
}

static char *temp_file(const void *data, size_t n)
{
	static char path[] = "/tmp/kvasir-loader-XXXXXX";
	int fd;

	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	close(fd);
	return path;
}

static void test_initrd(void **state)
{
	struct fix *f = *state;
	char *path = temp_file("0123456789abcdef", 16);
	gpa_t at;

	make_bzimage(f, 0x20f, 1);
	f->in.initrd = path;
	loads(f);
	at = peek(f, f->bs.rsi + 0x218, 4);
	assert_int_equal(at, 256 * MIB - 4096);
	assert_int_equal(peek(f, f->bs.rsi + 0x21c, 4), 16);
	assert_memory_equal(place_ptr(&f->p, at, 16), "0123456789abcdef", 16);
	/* honours initrd_addr_max, which is the last address it may use */
	place_again(f, 256ull * MIB);
	put(f, 0x22c, 0x7ffffff, 4);
	loads(f);
	assert_int_equal(peek(f, f->bs.rsi + 0x218, 4), 128 * MIB - 4096);
	/* no room below the limit: the kernel is there */
	place_again(f, 256ull * MIB);
	put(f, 0x22c, 0x1000fff, 4);
	put(f, 0x258, 0x100000, 8);
	put(f, 0x230, 0x1000, 4);
	put(f, 0x260, 0xf00000 + 0x10000, 4);
	refused(f, ENOMEM, "-initrd /tmp/kvasir-loader-");
	unlink(path);
	place_again(f, 256ull * MIB);
	refused(f, ENOENT, "-initrd: /tmp/kvasir-loader-");
}

static void test_initrd_above_4g(void **state)
{
	struct fix *f = *state;
	char *path = temp_file("high", 4);
	struct place_claim *c;

	place_again(f, 4096ull * MIB);
	make_bzimage(f, 0x20f, 3);
	f->in.initrd = path;
	/* take all memory that the kernel's limit allows */
	c = &f->p.claim[f->p.nclaims++];
	*c = (struct place_claim){ 0x8000000, 0x80000000 - 0x8000000, "a test" };
	c = &f->p.claim[f->p.nclaims++];
	*c = (struct place_claim){ 0x4000000, 0x4000000, "a test" };
	c = &f->p.claim[f->p.nclaims++];
	*c = (struct place_claim){ 0x3000000, 0x1000000, "a test" };
	c = &f->p.claim[f->p.nclaims++];
	*c = (struct place_claim){ 0x100000, 0xf00000, "a test" };
	loads(f);
	assert_int_equal(peek(f, f->bs.rsi + 0x0c0, 4), 1); /* 4 GiB + something */
	assert_int_equal(peek(f, f->bs.rsi + 0x218, 4), 1024 * MIB - 4096);
	unlink(path);
}

static void test_bzimage_hostile(void **state)
{
	struct fix *f = *state;

	make_bzimage(f, 0x20f, 1);
	f->img.size = 0x7ff;
	refused(f, ENOEXEC, "truncated");
	f->img.size = 0x208;
	refused(f, ENOEXEC, "truncated");
	f->img.size = 0x900;
	refused(f, ENOEXEC, "no code at the 64-bit entry");
	f->img.size = IMG;
	put(f, 0x230, 0x300000, 4);
	refused(f, ENOEXEC, "kernel_alignment");
	put(f, 0x230, 0, 4);
	refused(f, ENOEXEC, "kernel_alignment");
	put(f, 0x230, 0x80000000, 4);
	refused(f, ENOMEM, "give more with -m");
	put(f, 0x230, 0x200000, 4);
	put(f, 0x260, 0xffffffff, 4);
	refused(f, ENOMEM, "give more with -m");
	put(f, 0x260, 0x2000000, 4);
	put(f, 0x258, 0xfffffffffffff000, 8);
	refused(f, ENOMEM, "give more with -m");
	put(f, 0x258, 0xfff00000, 8);
	refused(f, ENOMEM, "give more with -m");
	put(f, 0x258, 0x1000, 8); /* in the legacy megabyte: as low as its alignment lets it */
	place_again(f, 256ull * MIB);
	loads(f);
	assert_int_equal(f->bs.rip, 0x200200);
	/* it moves up to where it prefers to be, and needs its room there */
	put(f, 0x258, 0x1000000, 8);
	place_again(f, 47ull * MIB);
	refused(f, ENOMEM, "up to 48 MiB");
	place_again(f, 49ull * MIB);
	loads(f);
	put(f, 0x211, 0, 1);
	refused(f, ENOEXEC, "zImage");
	put(f, 0x211, 1, 1);
	put(f, 0x238, 5, 4);
	refused(f, E2BIG, "at most 5");
}

/* ---- ELF and PVH ---- */

static void make_elf(struct fix *f, bool is64, unsigned phnum)
{
	memcpy(f->file,
	       "\x7f"
	       "ELF",
	       4);
	put(f, 4, is64 ? 2 : 1, 1);
	put(f, 5, 1, 1);
	put(f, 6, 1, 1);
	put(f, 16, 2, 2);
	put(f, 18, is64 ? 62 : 3, 2);
	put(f, 20, 1, 4);
	if (is64) {
		put(f, 24, 0x1000000, 8);
		put(f, 32, 64, 8);
		put(f, 54, 56, 2);
		put(f, 56, phnum, 2);
	} else {
		put(f, 24, 0x1000000, 4);
		put(f, 28, 64, 4);
		put(f, 42, 32, 2);
		put(f, 44, phnum, 2);
	}
}

static void make_ph(struct fix *f, bool is64, unsigned n, uint32_t type, uint64_t off,
		    uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
	size_t o = 64 + (size_t)n * (is64 ? 56 : 32);

	put(f, o, type, 4);
	if (is64) {
		put(f, o + 8, off, 8);
		put(f, o + 16, paddr + 0xffffffff80000000, 8);
		put(f, o + 24, paddr, 8);
		put(f, o + 32, filesz, 8);
		put(f, o + 40, memsz, 8);
		put(f, o + 48, 4, 8);
	} else {
		put(f, o + 4, off, 4);
		put(f, o + 8, paddr, 4);
		put(f, o + 12, paddr, 4);
		put(f, o + 16, filesz, 4);
		put(f, o + 20, memsz, 4);
		put(f, o + 28, 4, 4);
	}
}

static void make_note(struct fix *f, uint64_t off, uint64_t entry, unsigned size)
{
	put(f, off, 4, 4);
	put(f, off + 4, size, 4);
	put(f, off + 8, 18, 4);
	memcpy(f->file + off + 12, "Xen", 4);
	put(f, off + 16, entry, size);
}

static void make_pvh(struct fix *f, bool is64)
{
	make_elf(f, is64, 2);
	make_ph(f, is64, 0, 1, 0x1000, 0x1000000, 0x100, 0x2000);
	make_ph(f, is64, 1, 4, 0x400, 0, 24, 24);
	make_note(f, 0x400, 0x1000010, is64 ? 8 : 4);
	memset(f->file + 0x1000, 0xf4, 0x100);
}

static void test_pvh(void **state)
{
	struct fix *f = *state;
	char *path = temp_file("initrd", 6);

	for (int is64 = 0; is64 < 2; is64++) {
		gpa_t si, map, mod;

		place_again(f, 256ull * MIB);
		memset(f->ram + 0x1000000, 0xee, 0x3000);
		make_pvh(f, is64);
		f->in.initrd = path;
		loads(f);
		assert_int_equal(f->bs.mode, BOOT_PROT32);
		assert_int_equal(f->bs.rip, 0x1000010);
		assert_int_equal(peek(f, 0x10000ff, 1), 0xf4);
		assert_int_equal(peek(f, 0x1000100, 1), 0); /* bss cleared, and no more */
		assert_int_equal(peek(f, 0x1001fff, 1), 0);
		assert_int_equal(peek(f, 0x1002000, 1), 0xee);
		si = f->bs.rbx;
		assert_int_equal(peek(f, si, 4), 0x336ec578);
		assert_int_equal(peek(f, si + 4, 4), 1);
		assert_int_equal(peek(f, si + 12, 4), 1);
		mod = peek(f, si + 16, 8);
		assert_memory_equal(place_ptr(&f->p, peek(f, mod, 8), 6), "initrd", 6);
		assert_int_equal(peek(f, mod + 8, 8), 6);
		assert_string_equal((char *)place_ptr(&f->p, peek(f, si + 24, 8), 1),
				    "console=ttyS0");
		assert_int_equal(peek(f, si + 32, 8), 0xe0000);
		map = peek(f, si + 40, 8);
		assert_int_equal(peek(f, si + 48, 4), f->p.nmap);
		assert_int_equal(peek(f, map + 8, 8), PLACE_EBDA);
	}
	unlink(path);
}

static void test_elf_hostile(void **state)
{
	struct fix *f = *state;

	make_pvh(f, true);
	put(f, 16 + 2, 183, 2);
	refused(f, ENOEXEC, "machine 183");
	make_pvh(f, true);
	put(f, 56, 0, 2);
	refused(f, ENOEXEC, "program headers");
	put(f, 56, 0xffff, 2);
	refused(f, ENOEXEC, "program headers");
	make_pvh(f, true);
	put(f, 32, 0xffffffffffffffc0, 8);
	refused(f, ENOEXEC, "end after the file");
	make_pvh(f, true);
	put(f, 64 + 32, 0xffffffffffffff00, 8); /* filesz > memsz */
	refused(f, ENOEXEC, "bytes in the file");
	put(f, 64 + 40, 0xffffffffffffff80, 8);
	refused(f, ENOEXEC, "ends after the file");
	make_pvh(f, true);
	put(f, 64 + 40, 0xffffffffff000000, 8); /* memsz wraps */
	refused(f, ENOMEM, "does not fit in guest memory");
	make_pvh(f, true);
	put(f, 64 + 24, 0xfffffffffffff000, 8);
	refused(f, ENOMEM, "does not fit in guest memory");
	make_pvh(f, true);
	make_note(f, 0x400, 0x70000000, 8);
	refused(f, ENOEXEC, "not in memory");
	place_again(f, 256ull * MIB);
	make_note(f, 0x400, 0x100000000, 8);
	refused(f, ENOEXEC, "not in memory");
	place_again(f, 256ull * MIB);
	make_note(f, 0x400, 0x1000010, 8);
	put(f, 0x404, 0xffffffff, 4); /* the note's descriptor leaves its segment */
	refused(f, ENOEXEC, "without a PVH entry note");
	make_pvh(f, true);
	put(f, 0x400, 0xfffffff0, 4);
	refused(f, ENOEXEC, "without a PVH entry note");
	f->img.size = 60;
	refused(f, ENOEXEC, "truncated");
}

static void test_elf_overlap(void **state)
{
	struct fix *f = *state;

	make_elf(f, true, 3);
	make_ph(f, true, 0, 1, 0x1000, 0x1000000, 0x100, 0x2000);
	make_ph(f, true, 1, 1, 0x1000, 0x1001fff, 0x100, 0x100);
	make_ph(f, true, 2, 4, 0x400, 0, 24, 24);
	make_note(f, 0x400, 0x1000010, 8);
	refused(f, EEXIST, "overlaps an ELF segment");
	place_again(f, 256ull * MIB);
	make_ph(f, true, 1, 1, 0x1000, 0x1002000, 0x100, 0x100);
	loads(f);
}

/* ---- multiboot ---- */

static void make_multiboot(struct fix *f, size_t off, uint32_t flags)
{
	put(f, off, 0x1badb002, 4);
	put(f, off + 4, flags, 4);
	put(f, off + 8, (uint32_t) - (0x1badb002 + flags), 4);
	put(f, off + 12, 0x200000 + (uint32_t)off, 4);
	put(f, off + 16, 0x200000, 4);
	put(f, off + 20, 0x200000 + 0x1000, 4);
	put(f, off + 24, 0x200000 + 0x3000, 4);
	put(f, off + 28, 0x200040, 4);
}

static void test_multiboot_flat(void **state)
{
	struct fix *f = *state;
	char *path = temp_file("module", 6), list[200];
	gpa_t mbi, mods, map;

	f->file[0x40] = 0xf4;
	make_multiboot(f, 0x100, 0x10007); /* a video mode is a wish, not refused */
	snprintf(list, sizeof(list), "%s one,,two, %s", path, path);
	f->in.initrd = list;
	loads(f);
	assert_int_equal(f->bs.mode, BOOT_PROT32);
	assert_int_equal(f->bs.rip, 0x200040);
	assert_int_equal(f->bs.rax, 0x2badb002);
	assert_int_equal(peek(f, 0x200040, 1), 0xf4);
	mbi = f->bs.rbx;
	assert_int_equal(peek(f, mbi, 4), 0x24d); /* memory, cmdline, modules, map, loader */
	assert_int_equal(peek(f, mbi + 4, 4), 639);
	assert_int_equal(peek(f, mbi + 8, 4), 255 * 1024);
	assert_string_equal((char *)place_ptr(&f->p, peek(f, mbi + 16, 4), 1), "k console=ttyS0");
	assert_int_equal(peek(f, mbi + 20, 4), 2);
	mods = peek(f, mbi + 24, 4);
	assert_int_equal(peek(f, mods + 4, 4) - peek(f, mods, 4), 6);
	assert_int_equal(peek(f, mods, 4) & 0xfff, 0);
	assert_true(peek(f, mods, 4) >= 0x203000);
	assert_memory_equal(place_ptr(&f->p, peek(f, mods + 16, 4), 6), "module", 6);
	snprintf(list, sizeof(list), "%s one,two", path);
	assert_string_equal((char *)place_ptr(&f->p, peek(f, mods + 8, 4), 1), list);
	map = peek(f, mbi + 48, 4);
	assert_int_equal(peek(f, mbi + 44, 4), 24 * f->p.nmap);
	assert_int_equal(peek(f, map, 4), 20);
	assert_int_equal(peek(f, map + 20, 4), MEM_RAM);
	unlink(path);
	place_again(f, 256ull * MIB);
	f->in.initrd = ",";
	refused(f, EINVAL, "without a file name");
}

static void test_multiboot_elf(void **state)
{
	struct fix *f = *state;

	make_elf(f, false, 1);
	make_ph(f, false, 0, 1, 0x1000, 0x1000000, 0x100, 0x2000);
	make_multiboot(f, 0x200, 3);
	loads(f);
	assert_int_equal(f->bs.rip, 0x1000000);
	place_again(f, 256ull * MIB);
	put(f, 24, 0xf0000000, 4);
	refused(f, ENOEXEC, "entry point");
	place_again(f, 256ull * MIB);
	put(f, 0, 0, 4);
	refused(f, ENOEXEC, "neither ELF");
}

static void test_multiboot_hostile(void **state)
{
	struct fix *f = *state;

	make_multiboot(f, 0x100, 0x10009);
	refused(f, ENOEXEC, "unknown features");
	make_multiboot(f, 0x100, 0x10003);
	put(f, 0x10c, 0x200000 + 0x200, 4); /* header further in than the file is */
	refused(f, ENOEXEC, "does not fit header address");
	put(f, 0x10c, 0x1fffff, 4);
	refused(f, ENOEXEC, "does not fit header address");
	make_multiboot(f, 0x100, 0x10003);
	put(f, 0x114, 0x1ff000, 4);
	refused(f, ENOEXEC, "load end");
	put(f, 0x114, 0xfffff000, 4);
	refused(f, ENOEXEC, "truncated");
	make_multiboot(f, 0x100, 0x10003);
	put(f, 0x118, 0x200010, 4);
	refused(f, ENOEXEC, "bss end");
	put(f, 0x118, 0xfffffffc, 4);
	refused(f, ENOMEM, "does not fit in guest memory");
	make_multiboot(f, 0x100, 0x10003);
	put(f, 0x10c, 0xe0100, 4); /* over the ACPI tables, when they are there */
	put(f, 0x110, 0xe0000, 4);
	put(f, 0x114, 0, 4);
	put(f, 0x118, 0, 4);
	put(f, 0x11c, 0xe0040, 4);
	assert_int_equal(place_claim(&f->p, PLACE_TABLES, 0x20000, "the ACPI tables", NULL, &f->e),
			 0);
	refused(f, EEXIST, "overlaps the ACPI tables");
	/* a header beyond the first 8 KiB, or not aligned, is none */
	memset(f->file, 0, IMG);
	make_multiboot(f, 8192, 0x10003);
	refused(f, ENOEXEC, "not a kernel");
	memset(f->file, 0, IMG);
	make_multiboot(f, 0x102, 0x10003);
	refused(f, ENOEXEC, "not a kernel");
}

static void test_guess(void **state)
{
	struct fix *f = *state;

	memcpy(f->file, "\x1f\x8b\x08", 3);
	refused(f, ENOEXEC, "gzip");
	memcpy(f->file, "QFI\xfb", 4);
	refused(f, ENOEXEC, "qcow2");
	memset(f->file, 0, 8);
	refused(f, ENOEXEC, "unknown format");
	f->img.size = 3;
	refused(f, ENOEXEC, "unknown format");
}

/* Every truncation and a byte changed at every header position: an answer, never a crash. */
static void test_mutations(void **state)
{
	struct fix *f = *state;

	for (int kind = 0; kind < 4; kind++) {
		memset(f->file, 0, 0x2000);
		if (kind == 0)
			make_bzimage(f, 0x20f, 3);
		else if (kind < 3)
			make_pvh(f, kind == 2);
		else
			make_multiboot(f, 0x20, 0x10003);
		for (unsigned i = 0; i < 0x480; i++) {
			uint8_t old = f->file[i];

			for (unsigned v = 0; v < 4; v++) {
				f->file[i] = (uint8_t)((const uint8_t[]){ 0, 0xff, 0x80, 1 }[v] ^
						       (v ? old : 0));
				place_again(f, 64ull * MIB);
				(void)!kernel_load(&f->p, &f->img, &f->in, &f->bs, &f->e);
			}
			f->file[i] = old;
			f->img.size = i;
			place_again(f, 64ull * MIB);
			(void)!kernel_load(&f->p, &f->img, &f->in, &f->bs, &f->e);
			f->img.size = IMG;
		}
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_bzimage64),       T(test_bzimage32),         T(test_initrd),
		T(test_initrd_above_4g), T(test_bzimage_hostile),   T(test_pvh),
		T(test_elf_hostile),     T(test_elf_overlap),       T(test_multiboot_flat),
		T(test_multiboot_elf),   T(test_multiboot_hostile), T(test_guess),
		T(test_mutations),
	};

	return cmocka_run_group_tests_name("loader", tests, NULL, NULL);
}
