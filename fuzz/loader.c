/*
 * Kernel loaders on hostile images. The first byte chooses the guest's memory size and whether the
 * firmware's tables are there; the rest is the kernel file. Properties: no access outside the file
 * and guest memory (sanitizers), an error has one line of text, a success has an entry in RAM.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bug.h"
#include "firmware/kernel.h"
#include "fuzz.h"

enum { FUZZ_RAM_MAX = 64 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char magic[][5] = { "HdrS", "\177ELF", "\x02\xb0\xad\x1b" };
	struct boot_input in = { .cmdline = "a b=c", .rsdp = PLACE_TABLES };
	struct boot_state bs;
	struct err e = { 0 };
	struct place p;
	uint8_t *ram, *file;
	uint64_t ram_size;
	uint8_t how;

	if (size < 1)
		return 0;
	how = data[0];
	ram_size = how & 1 ? FUZZ_RAM_MAX : 4 << 20;
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Exactly as long as the file, so that a sanitizer sees one byte too many; random inputs
	 * get a magic number, or they would all end at the first check. */
	file = malloc(size);
	if (ram == MAP_FAILED || !file)
		abort();
	memcpy(file, data + 1, size - 1);
	if (how & 0x10 && size > 0x220 && (how >> 2 & 3) < 3) {
		static const unsigned at[] = { 0x202, 0, 0x100 };

		memcpy(file + at[how >> 2 & 3], magic[how >> 2 & 3], 4);
		if ((how >> 2 & 3) == 0)
			memcpy(file + 0x1fe, "\x55\xaa", 2);
		if ((how >> 2 & 3) == 1)
			memcpy(file + 4, (const uint8_t[]){ how & 2 ? 2 : 1, 1, 1 }, 3);
		if ((how >> 2 & 3) == 2) { /* the checksum of a multiboot header with addresses */
			uint32_t flags = 0x10003, sum = -(0x1badb002 + flags);

			memcpy(file + 0x104, &flags, 4);
			memcpy(file + 0x108, &sum, 4);
		}
	}
	place_init(&p, ram_size, ram, NULL);
	if (how & 0x20)
		BUG_ON(place_claim(&p, PLACE_TABLES, 0x20000, "tables", NULL, &e) < 0);
	if (kernel_load(&p, &(struct image){ .name = "f", .data = file, .size = size - 1 }, &in,
			&bs, &e) < 0)
		BUG_ON(!e.code || !e.msg[0] || strchr(e.msg, '\n'));
	else
		BUG_ON(bs.mode == BOOT_PROT32 && bs.rip > UINT32_MAX);
	munmap(ram, ram_size);
	free(file);
	return 0;
}
