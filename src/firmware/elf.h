/*
 * ELF executables as kernels: checked headers and loading by physical address. 32- and 64-bit,
 * little-endian, x86. The file is hostile: every offset and size is checked against it.
 * Threads: one, before the vCPUs run. References: [ELF].
 */
#pragma once
#include <stdbool.h>

#include "firmware/image.h"
#include "firmware/place.h"

struct elf {
	const struct image *img;
	bool is64;
	uint64_t entry, phoff;
	unsigned phnum, phentsize;
};

struct elf_phdr {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

/* -ENOEXEC without a message when there is no ELF magic; with one for a broken or foreign file. */
int elf_parse(struct elf *f, const struct image *img, struct err *e) must_check;

/* Program header n < phnum. */
struct elf_phdr elf_phdr(const struct elf *f, unsigned n);

/*
 * Claim and fill every PT_LOAD segment. *end: first byte after the highest one; *entry_paddr: the
 * entry point as a physical address (kernels are linked high and loaded low), the entry itself
 * when no segment holds it.
 */
int elf_load(const struct elf *f, struct place *p, gpa_t *end, uint64_t *entry_paddr,
	     struct err *e) must_check;

/*
 * Find a note: name with its NUL is namesz bytes, type as given. Result: 1 and the descriptor's
 * file offset and size, 0 when there is none.
 */
int elf_note(const struct elf *f, const char *name, uint32_t namesz, uint32_t type, uint64_t *off,
	     uint64_t *size);
