/*
 * Choose the loader by the file's content; what the loaders share.
 * References: [LINUX-BOOT "64-bit boot protocol"] for selectors 10h and 18h.
 */
#include "firmware/kernel.h"

#include <errno.h>

/* Where a loader's small tables end: the last page below the EBDA is the lowest risk for guests
 * that use fixed low addresses (7C00h, 1000h) without looking at the map. */
#define BOOT_TABLES_END PLACE_EBDA

int boot_gdt(struct place *p, struct boot_state *out, struct err *e)
{
	/* clang-format off */
	static const uint64_t gdt[] = {
		0,
		0,
		0x00cf9b000000ffff, /* 10h: flat 32-bit code */
		0x00cf93000000ffff, /* 18h: flat data */
		0x00af9b000000ffff, /* 20h: 64-bit code */
		0x00008b0000000067, /* 28h: busy 32-bit TSS */
	};
	/* clang-format on */
	uint64_t table[ARRAY_SIZE(gdt)];
	uint8_t *host;
	int r = place_top(p, sizeof(gdt), 16, 0, BOOT_TABLES_END, "the boot GDT", &out->gdt, &host,
			  e);

	if (r < 0)
		return r;
	memcpy(table, gdt, sizeof(gdt));
	/* Linux's 64-bit protocol wants its code segment at 10h, too. */
	if (out->mode == BOOT_LONG64)
		table[2] = gdt[4];
	memcpy(host, table, sizeof(table));
	out->gdt_limit = sizeof(gdt) - 1;
	out->cs = 0x10;
	out->ds = 0x18;
	return 0;
}

int boot_string(struct place *p, const char *s, const char *what, gpa_t *gpa, struct err *e)
{
	size_t n = strlen(s) + 1;
	uint8_t *host;
	int r = place_top(p, n, 16, 0, BOOT_TABLES_END, what, gpa, &host, e);

	if (r == 0)
		memcpy(host, s, n);
	return r;
}

/* What the file looks like, for the message that refuses it. */
static const char *kernel_guess(const struct image *k)
{
	static const struct {
		const char *magic;
		unsigned off, len;
		const char *what;
	} known[] = {
		{ "\x1f\x8b", 0, 2, "gzip-compressed data (unpack it first)" },
		{ "\xfd"
		  "7zXZ",
		  0, 5, "xz-compressed data (unpack it first)" },
		{ "\x28\xb5\x2f\xfd", 0, 4, "zstd-compressed data (unpack it first)" },
		{ "BZh", 0, 3, "bzip2-compressed data (unpack it first)" },
		{ "\x7f"
		  "ELF",
		  0, 4, "an ELF file without a PVH note or multiboot header" },
		{ "QFI\xfb", 0, 4, "a qcow2 disk image" },
		{ "070701", 0, 6, "a cpio archive (an initrd?)" },
		{ "!<arch>", 0, 7, "an archive or Debian package" },
		{ "CD001", 0x8001, 5, "an ISO 9660 image" },
		{ "MZ", 0, 2, "an EFI or DOS program without a Linux header" },
		{ "\x55\xaa", 510, 2, "a disk image with a boot sector" },
		{ "#!", 0, 2, "a script" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (image_has(k, known[i].off, known[i].len) &&
		    !memcmp(k->data + known[i].off, known[i].magic, known[i].len))
			return known[i].what;
	return "a file of unknown format";
}

int kernel_load(struct place *p, const struct image *k, const struct boot_input *in,
		struct boot_state *out, struct err *e)
{
	/* multiboot before PVH, as QEMU tries them: a kernel with both gets the same entry here. */
	static int (*const loader[])(struct place *, const struct image *,
				     const struct boot_input *, struct boot_state *,
				     struct err *) = { bzimage_load, multiboot_load, elf_pvh_load };

	for (unsigned i = 0; i < ARRAY_SIZE(loader); i++) {
		struct err le = { 0 };
		int r;

		*out = (struct boot_state){ 0 };
		r = loader[i](p, k, in, out, &le);
		if (r == -ENOEXEC && !le.code)
			continue;
		if (r < 0 && e) {
			*e = le;
			/* What is wrong with an initrd names that file and not the kernel. */
			if (strncmp(e->msg, "-initrd", 7))
				err_prefix(e, "%s", k->name);
		}
		return r;
	}
	return err_set(e, ENOEXEC,
		       "%s: not a kernel: %s; a Linux bzImage, an ELF with a PVH note or a "
		       "multiboot 1 kernel is needed",
		       k->name, kernel_guess(k));
}
