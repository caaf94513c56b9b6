/*
 * Direct kernel boot: put a kernel file, its initrd or modules and its command line into guest
 * memory and say in which state the boot processor starts.
 *
 * Formats, told by content: Linux bzImage (64-bit and 32-bit boot protocol), multiboot 1 (ELF or
 * with the header's own addresses), ELF with a PVH entry note. The files are hostile input.
 * Threads: one, before the vCPUs run. References: [LINUX-BOOT], [MULTIBOOT], [PVH].
 */
#pragma once
#include <stdint.h>

#include "firmware/image.h"
#include "firmware/place.h"

/* What the loaders need besides memory. Strings are the caller's. */
struct boot_input {
	const char *initrd;  /* path, or for multiboot "file args,file2 args"; NULL for none */
	const char *cmdline; /* never NULL */
	gpa_t rsdp;          /* 0 without ACPI */
};

enum boot_mode {
	BOOT_REAL,   /* as after a reset: rip and cs are ignored */
	BOOT_PROT32, /* flat 32-bit protected mode, paging off */
	BOOT_LONG64, /* 64-bit mode, cr3 maps the first 4 GiB one to one */
};

struct boot_state {
	enum boot_mode mode;
	uint64_t rip, rax, rbx, rsi;
	gpa_t cr3;          /* BOOT_LONG64 */
	gpa_t gdt;          /* table that holds the selectors below */
	uint16_t gdt_limit; /* bytes - 1 */
	uint16_t cs, ds;    /* selectors of the flat code and data segments */
	const char *proto;  /* "Linux 64-bit", for -d and messages */
};

/*
 * Load kernel (already opened) into p. On failure e says in one line what is wrong with which
 * file; memory may be partly written.
 */
int kernel_load(struct place *p, const struct image *kernel, const struct boot_input *in,
		struct boot_state *out, struct err *e) must_check;

/* The loaders of one format each. They answer -ENOEXEC without a message for "not mine". */
int bzimage_load(struct place *p, const struct image *k, const struct boot_input *in,
		 struct boot_state *out, struct err *e) must_check;
int multiboot_load(struct place *p, const struct image *k, const struct boot_input *in,
		   struct boot_state *out, struct err *e) must_check;
int elf_pvh_load(struct place *p, const struct image *k, const struct boot_input *in,
		 struct boot_state *out, struct err *e) must_check;

/* Used by the loaders: boot_gdt() claims a GDT with flat segments and fills the selectors. */
int boot_gdt(struct place *p, struct boot_state *out, struct err *e) must_check;
/* Copy a string with its NUL below the EBDA. */
int boot_string(struct place *p, const char *s, const char *what, gpa_t *gpa,
		struct err *e) must_check;
