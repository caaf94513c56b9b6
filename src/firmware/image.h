/*
 * A file as it was read from the host: bytes that nobody has checked yet.
 *
 * A regular file is mapped for as long as the image is open, anything else (a pipe, /dev/fd/N) is
 * read into memory. The readers never leave the buffer: out of range they give zero, so a parser
 * checks sizes for its messages and not for its safety.
 * Threads: the struct belongs to its owner.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct image {
	const char *name; /* for messages; not owned */
	const uint8_t *data;
	uint64_t size;
	bool mapped, owned; /* how image_close gives the bytes back */
};

/* Open path; i->name stays the pointer given. Errors: those of open and read, described. */
int image_open(struct image *i, const char *path, struct err *e) must_check;
void image_close(struct image *i);

/* Does [off, off + n) lie inside? */
static inline bool image_has(const struct image *i, uint64_t off, uint64_t n)
{
	return off <= i->size && n <= i->size - off;
}

static inline uint64_t image_le(const struct image *i, uint64_t off, unsigned bytes)
{
	uint64_t v = 0;

	if (image_has(i, off, bytes))
		memcpy(&v, i->data + off, bytes);
	return v;
}

/* Little-endian values at off; zero outside the file. */
static inline uint8_t image_u8(const struct image *i, uint64_t off)
{
	return (uint8_t)image_le(i, off, 1);
}

static inline uint16_t image_u16(const struct image *i, uint64_t off)
{
	return (uint16_t)image_le(i, off, 2);
}

static inline uint32_t image_u32(const struct image *i, uint64_t off)
{
	return (uint32_t)image_le(i, off, 4);
}

static inline uint64_t image_u64(const struct image *i, uint64_t off)
{
	return image_le(i, off, 8);
}
