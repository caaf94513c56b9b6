/*
 * A host file in memory, as a node for tests of formats: it can log what is done to it, make its
 * users wait at random (so that tasks interleave), fail, and give the file as a crash could have
 * left it.
 * Threads: one loop.
 */
#pragma once
#include "backend/block/block.h"

enum mem_op { MEM_WRITE, MEM_ZERO, MEM_TRUNCATE, MEM_FLUSH_BEGIN, MEM_FLUSH_END };
struct mem_log {
	enum mem_op op;
	uint64_t off, len;
	uint64_t id; /* flushes: begin and end have the same */
	uint8_t *data;
};

struct memfile {
	uint8_t *data;
	uint64_t len, room;
	uint64_t max;     /* writes behind fail with -ENOSPC; 0: 64 MiB */
	uint32_t align;   /* of offsets and lengths, as with O_DIRECT; 0: any */
	bool yield;       /* wait now and then */
	uint64_t random;  /* state of the generator, not 0 */
	unsigned fail_in; /* the so-many-th operation from now fails with -EIO, once; 0: none */
	bool logging;
	struct mem_log *log;
	size_t n_log, room_log;
	uint64_t flushes;
};

extern const struct block_driver mem_driver;

/* A node over m, which is borrowed. */
int mem_co_open(struct block_ctx *c, struct memfile *m, bool writable, struct block **out,
		struct err *e);
void mem_free(struct memfile *m);
void mem_log_clear(struct memfile *m);
uint64_t mem_random(uint64_t *state);

/*
 * The file as it may be after a crash at log entry `at`: base (before the log began), all that a
 * finished flush made stable, and any part of the rest: each write whole, torn by sectors or not at
 * all, in any order. *out is a new memfile.
 */
void mem_crash(const struct memfile *m, const struct memfile *base, size_t at, uint64_t *random,
	       struct memfile *out);
