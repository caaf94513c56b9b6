/*
 * Which format an image has, by its first bytes; see block.h.
 *
 * The formats that other programs would recognise are known here although no driver exists: such
 * an image must not be used as a raw disk by mistake, and a guest that owns a raw disk must not be
 * able to make another program take it for one of these (a VMDK names host files).
 * References: the magic numbers are those of the formats' specifications, as file(1) lists them.
 */
#include <string.h>

#include "backend/block/block.h"
#include "base/bits.h"

struct foreign {
	const char *name;
	unsigned off;
	const char *magic;
	unsigned len;
};

/* clang-format off */
static const struct foreign foreign_formats[] = {
	{ "qcow",      0,    "QFI\xfb\0\0\0\1", 8 },
	{ "qed",       0,    "QED\0", 4 },
	{ "vmdk",      0,    "KDMV", 4 },
	{ "vmdk",      0,    "COWD", 4 },
	{ "vmdk",      0,    "# Disk DescriptorFile", 21 },
	{ "vhdx",      0,    "vhdxfile", 8 },
	{ "vpc",       0,    "conectix", 8 },
	{ "vdi",       0x40, "\x7f\x10\xda\xbe", 4 },
	{ "parallels", 0,    "WithoutFreeSpace", 16 },
	{ "parallels", 0,    "WithouFreSpacExt", 16 },
	{ "bochs",     0,    "Bochs Virtual HD Image", 22 },
	{ "luks",      0,    "LUKS\xba\xbe", 6 },
	{ "cloop",     0,    "#!/bin/sh\n#V2.0 Format\n", 23 },
};
/* clang-format on */

const char *block_probe_foreign(const uint8_t *buf, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(foreign_formats); i++) {
		const struct foreign *f = &foreign_formats[i];

		if (len >= f->off + f->len && !memcmp(buf + f->off, f->magic, f->len))
			return f->name;
	}
	return NULL;
}

const struct block_driver *block_probe(const uint8_t *buf, size_t len)
{
	const struct block_driver *best = NULL, *d;
	int best_score = 0;

	for (unsigned i = 0; (d = block_driver_at(i)); i++) {
		int score = d->probe ? d->probe(buf, len) : 0;

		if (score > best_score) {
			best_score = score;
			best = d;
		}
	}
	return best;
}
