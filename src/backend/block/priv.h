/*
 * What the files of the block layer's core share: contexts, host I/O, requests in flight.
 * Threads: the context's loop.
 */
#pragma once
#include "backend/block/block.h"

struct workers;
struct uring;

struct block_ctx {
	struct loop *loop;
	struct tasks *tasks;
	struct workers *workers;
	enum block_aio aio_asked;
	enum block_aio aio;  /* the default for nodes with BLOCK_AIO_AUTO: never AUTO itself */
	struct uring *uring; /* NULL: threads only */
};

/* A write, discard or write-zeroes in flight; on its task's stack. */
struct block_req {
	uint64_t start, end;
	bool serial; /* nobody else may write to the range meanwhile: read-modify-write */
	struct task_queue waiters;
	struct block_req *next, *prev;
};

struct block_reqs {
	struct block_req *first, *last; /* in order of arrival */
	unsigned n, n_serial;
	unsigned bounces; /* buffers in use for requests that had to be widened or copied */
	struct task_queue bounce_wait;
};

/*
 * Enter a request. Waits for those that came earlier, overlap, and must not run next to it; as the
 * order is that of arrival, nobody waits for each other.
 */
void block_req_co_begin(struct block *b, struct block_req *r, uint64_t off, uint64_t len,
			bool serial);
void block_req_end(struct block *b, struct block_req *r);

/*
 * Let host I/O of the context go on for a moment (at most a millisecond) without its loop: for a
 * thread that holds the loop's dispatch lock and must wait for a request. Not from a task.
 */
void block_ctx_poll(struct block_ctx *c);

/* Run fn(arg) as a task to its end, by block_ctx_poll. Out of memory is a BUG: a page or two. */
void block_ctx_run(struct block_ctx *c, void (*fn)(void *arg), void *arg);

/* ---- Host I/O, aio.c ----------------------------------------------------------------------- */

#define HOST_IOV_MAX 1024u /* IOV_MAX of Linux */

enum host_op { HOST_READ, HOST_WRITE, HOST_FDATASYNC };

/* One operation on a host file; the bytes that were moved, or -errno. A task function. */
int64_t host_co_io(struct block_ctx *c, enum block_aio aio, enum host_op op, int fd, uint64_t off,
		   const struct iovec *iov, unsigned n);

/* A buffer of len bytes for a node; NULL: out of memory. free() it. */
void *block_buf(const struct block *b, size_t len);

/* ---- Nodes --------------------------------------------------------------------------------- */

struct block_node_extra {
	struct block *backing; /* taken on success; else NULL */
	struct block *parent;  /* set while open_co runs, so that it sees the chain */
	bool probed;
};

/* block_co_open_node with what only the core knows. */
int block_node_co_open(struct block_ctx *c, const struct block_driver *drv,
		       const struct block_opts *o, const char *node_name, struct block *file,
		       const struct block_node_extra *x, struct block **out,
		       struct err *e) must_check;

/* An unnamed file in the folder o->filename, empty, as a node of driver "file". */
int block_co_open_temporary(struct block_ctx *c, const struct block_opts *o, struct block **out,
			    struct err *e) must_check;

/*
 * The children that b's open_co has named, ->backing unless opts.no_backing, and ->data_file: read
 * only, and as writable as b. A chain that is too long or a cycle is an error.
 */
int block_co_open_children(struct block *b, struct err *e) must_check;

/* The path that filename means; NULL with e if it is for a protocol that does not exist here. */
const char *block_path_of(const char *filename, struct err *e);

/* Is the host file at path the one that node b (any driver) has open? */
bool block_file_is(const struct block *b, const char *path);
