/*
 * Disk images: nodes that read and write bytes, stacked on each other.
 *
 * A *node* (struct block) is one opened thing: a host file (driver "file"), a format inside of
 * another node ("raw", "qcow2"), a filter. A node has children by role: "file" (where its bytes
 * are), "backing" (what shows through holes), "data-file". The frontend of a device, or kvasir-img,
 * does not use nodes directly but a *backend* (backend.h), which adds what belongs to the user of a
 * disk: error policy, throttling, statistics, cancellation and draining.
 *
 * Theory of operation: every node belongs to one struct block_ctx: an event loop with its tasks
 * (core/task.h), an engine for host I/O (io_uring, or worker threads) and nothing else. All calls
 * on a node happen on that loop's thread; functions with _co are task functions. So drivers need
 * task_mutex only across waits.
 *
 * Units: offsets and lengths are bytes. Callers of block_co_* may use any alignment; the core
 * rounds to what the node asks for (opts.request_align), with read-modify-write under a lock for
 * the range. Drivers see aligned requests only, that lie inside of the node's length.
 * Results: 0 or -errno. A driver reports host errors as they come (-EIO, -ENOSPC, ...).
 * What a completed write means: it is visible to later reads. It is on stable storage only after
 * a later flush has completed: block_co_flush returns when everything completed before it was
 * called is stable in this node and all below.
 * Hostile input: the content of an image. Whatever is in it, a driver must not crash, loop, use
 * memory without bound or touch files the user did not name (backing files named inside of images
 * are opened, as QEMU does, relative to the image).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "core/loop.h"
#include "core/task.h"

struct block;
struct block_ctx;
struct block_opts;

/* ---- Vectors of bytes ---------------------------------------------------------------------- */

/* A scatter-gather list; the bytes are the caller's. */
struct iovecs {
	const struct iovec *iov;
	unsigned n;
	uint64_t len; /* sum */
};
struct iovecs iovecs_of(const struct iovec *iov, unsigned n);
/* iov (one element, the caller's) filled to describe buf. */
struct iovecs iovecs_one(struct iovec *iov, void *buf, size_t len);
/* Bytes [off, off+len) of v into out, which has room for v->n elements. */
struct iovecs iovecs_slice(const struct iovecs *v, uint64_t off, uint64_t len, struct iovec *out);
void iovecs_get(const struct iovecs *v, uint64_t off, void *buf, size_t len);       /* from v */
void iovecs_put(const struct iovecs *v, uint64_t off, const void *buf, size_t len); /* into v */
void iovecs_fill(const struct iovecs *v, uint64_t off, uint8_t byte, uint64_t len);
bool iovecs_all_zero(const struct iovecs *v);

/* ---- Drivers ------------------------------------------------------------------------------- */

enum {
	BLOCK_FUA = 1,         /* write: stable when it completes */
	BLOCK_UNMAP = 2,       /* write-zeroes: the range may become a hole */
	BLOCK_NO_FALLBACK = 4, /* write-zeroes: -ENOTSUP rather than slow writing */
};

/* What block_co_status says of a range. */
enum {
	BLOCK_DATA = 1,      /* this node or one below has bytes for it */
	BLOCK_ZERO = 2,      /* it reads as zeroes */
	BLOCK_ALLOCATED = 4, /* decided by this node, not by its backing node */
	BLOCK_OFFSET = 8,    /* .offset and .file are valid: the bytes lie there as they are */
	BLOCK_COMPRESSED = 16,
};
struct block_status {
	unsigned flags;
	uint64_t len; /* the answer holds for so many bytes from the offset asked for, > 0 */
	uint64_t offset;
	struct block *file; /* which node offset is in */
	unsigned depth; /* block_co_status_chain: 0: the node itself, 1: its backing node, ... */
};

struct block_info; /* info.h: what kvasir-img info prints */

/* A kind of node. Embed nothing: b->priv is the driver's (priv_size bytes, zeroed). */
struct block_driver {
	const char *name; /* "qcow2" */
	bool is_protocol; /* opens a host file by name; formats have a "file" child */
	bool nameless;    /* a protocol that needs no name */
	size_t priv_size;
	/* Does a file beginning with these bytes look like this format: 0 (no) to 100. */
	int (*probe)(const uint8_t *buf, size_t len);
	/*
	 * "file" is open, b->opts is filled. Sets b->len and limits and, as the image says,
	 * b->backing_file, backing_format and data_file_name: the core opens these children
	 * when this has returned 0, and counts the depth. A task function.
	 */
	int (*open_co)(struct block *b, struct err *e);
	/* Writes back what it caches. A task function; the node is freed whatever it returns. */
	void (*close_co)(struct block *b);
	int (*read_co)(struct block *b, uint64_t off, const struct iovecs *v);
	int (*write_co)(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags);
	/* NULL: written as zeroes. May return -ENOTSUP for the same effect. */
	int (*zero_co)(struct block *b, uint64_t off, uint64_t len, unsigned flags);
	int (*discard_co)(struct block *b, uint64_t off, uint64_t len); /* NULL: ignored */
	/* This node's own part; the core flushes the children afterwards. NULL: nothing. */
	int (*flush_co)(struct block *b);
	int (*status_co)(struct block *b, uint64_t off, uint64_t len, struct block_status *st);
	int (*truncate_co)(struct block *b, uint64_t len, struct err *e);
	int (*info_co)(struct block *b, struct block_info *info, struct err *e);
	/* Another writer may have changed the image, or the node becomes writable: look again. */
	int (*reopen_co)(struct block *b, bool writable, struct err *e);
};

/* Options of one node, from -drive, -blockdev or -o. Strings are owned by the node. */
struct block_opts {
	char *filename; /* as given; drivers of formats use it for messages */
	bool writable;
	bool cache_direct;       /* O_DIRECT */
	bool cache_no_flush;     /* cache=unsafe: flushes do nothing */
	bool cache_writethrough; /* each write is followed by a flush; done by the backend */
	bool discard_unmap;
	uint8_t detect_zeroes; /* enum block_detect_zeroes */
	uint8_t aio;           /* enum block_aio */
	uint8_t gather;        /* enum block_gather: what scattered direct requests become */
	bool no_lock;          /* locking=off */
	bool force_share;      /* open although another process has it locked: -U */
	bool no_backing;       /* do not open the backing file */
	bool check;          /* accept dirty and corrupt images as they are, for check and repair */
	bool lazy_refcounts; /* qcow2 */
	bool lazy_refcounts_set;
	uint64_t cache_size; /* qcow2: bytes for L2 tables, 0: default */
	uint64_t raw_offset; /* raw: where the disk begins in the file, in bytes */
	uint64_t raw_size;   /* raw: its length, 0: up to the end */
};
enum block_detect_zeroes { DETECT_ZEROES_OFF, DETECT_ZEROES_ON, DETECT_ZEROES_UNMAP };
enum block_gather { BLOCK_GATHER_AUTO, BLOCK_GATHER_ON, BLOCK_GATHER_OFF };
enum block_aio { BLOCK_AIO_AUTO, BLOCK_AIO_IO_URING, BLOCK_AIO_THREADS };

struct block {
	const struct block_driver *drv;
	struct block_ctx *ctx;
	struct block_opts opts;
	char *node_name;                          /* NULL or user-given */
	struct block *file, *backing, *data_file; /* children, owned */
	/*
	 * What the image calls them, NULL: none; malloc'd by the driver, freed by the core. Names
	 * are relative to the folder of opts.filename; a format of NULL is probed.
	 */
	char *backing_file, *backing_format, *data_file_name;
	uint64_t len;           /* what a user of the node sees, in bytes */
	uint32_t request_align; /* power of two, >= 1 */
	uint32_t memory_align;  /* of buffers, for O_DIRECT; >= 1 */
	uint32_t opt_transfer, discard_align, zero_align; /* hints; 0: none */
	bool writable;                                    /* opened so */
	bool supports_fua, encrypted;
	bool probed;          /* raw: nobody said that it is raw, so its first sector is guarded */
	struct block *parent; /* whose child this is, NULL: a root */
	void *priv;
	struct block_reqs *reqs; /* private to the core: requests in flight */
};

/* A deep copy of opts (to is overwritten), -ENOMEM; and its end. */
int block_opts_copy(struct block_opts *to, const struct block_opts *from) must_check;
void block_opts_free(struct block_opts *o);

/* ---- Contexts ------------------------------------------------------------------------------ */

/*
 * aio: what host files use, AUTO: io_uring when the host allows it, else threads. The loop is
 * borrowed. NULL and e on failure.
 */
struct block_ctx *block_ctx_new(struct loop *l, enum block_aio aio, struct err *e);
void block_ctx_free(struct block_ctx *c);
struct tasks *block_ctx_tasks(struct block_ctx *c);
enum block_aio block_ctx_aio(struct block_ctx *c); /* as it was asked for */
struct loop *block_ctx_loop(struct block_ctx *c);

/* ---- Opening ------------------------------------------------------------------------------- */

/*
 * Open an image and its backing chain. format NULL: probed, and an image probed as raw may not get
 * bytes in its first sector that another format would be recognised by (-EPERM to the writer, as
 * QEMU does), so a guest cannot make its raw disk a qcow2. Backing nodes are opened read-only.
 * Depth of a chain: at most 200; a file that is its own backing file is an error. In a task.
 */
int block_co_open(struct block_ctx *c, const char *filename, const char *format,
		  const struct block_opts *o, struct block **out, struct err *e) must_check;
/* The same outside of tasks, serving the loop meanwhile. */
int block_open(struct block_ctx *c, const char *filename, const char *format,
	       const struct block_opts *o, struct block **out, struct err *e) must_check;
/*
 * One node by itself: drv->is_protocol: the host file o->filename; else a format over file, which
 * it takes (also on failure). node_name may be NULL. The core fills length-independent limits from
 * the child before open_co.
 */
int block_co_open_node(struct block_ctx *c, const struct block_driver *drv,
		       const struct block_opts *o, const char *node_name, struct block *file,
		       struct block **out, struct err *e) must_check;
/*
 * A node over below, which it takes (also on failure), that keeps all writes in a temporary file:
 * snapshot=on. o: detect_zeroes and the like.
 */
int block_co_open_overlay(struct block_ctx *c, struct block *below, const struct block_opts *o,
			  struct block **out, struct err *e) must_check;

/*
 * The path that an image at `image` means by `name` (malloc'ed, NULL: out of memory): absolute
 * names and those with a protocol stay, others are relative to the image's folder.
 */
char *block_path_combine(const char *image, const char *name);

/*
 * Make an empty host file of len bytes (all zero) and open it as a writable node of driver "file".
 * An existing file is emptied, after locking it; a block device is used as it is if it is large
 * enough. For the create functions of formats.
 */
int block_co_create_file(struct block_ctx *c, const char *filename, uint64_t len,
			 const struct block_opts *o, struct block **out, struct err *e) must_check;

void block_co_close(struct block *b); /* NULL is allowed; children, too */
void block_close(struct block *b);

const struct block_driver *block_driver(const char *name, struct err *e);
const struct block_driver *block_driver_at(unsigned i); /* NULL at the end */
/* Which format does a file beginning so have; the raw driver when none is recognised. */
const struct block_driver *block_probe(const uint8_t *buf, size_t len);
/* The name of a format that begins so and has no driver here ("vmdk"), or NULL. */
const char *block_probe_foreign(const uint8_t *buf, size_t len);
#define BLOCK_PROBE_SIZE 2048 /* bytes that are looked at */

/* ---- I/O; task functions ------------------------------------------------------------------- */

/*
 * Past the end: -EIO; but a host file (protocol node) gives zeroes there when read, and grows when
 * written, as formats need it. block_co_read_backing reads a node that may be shorter than its
 * user believes: zeroes behind the end, and everywhere if b is NULL.
 */
int block_co_read(struct block *b, uint64_t off, const struct iovecs *v);
int block_co_read_backing(struct block *b, uint64_t off, const struct iovecs *v);
int block_co_write(struct block *b, uint64_t off, const struct iovecs *v, unsigned flags);
int block_co_pread(struct block *b, uint64_t off, void *buf, size_t len);
int block_co_pwrite(struct block *b, uint64_t off, const void *buf, size_t len, unsigned flags);
int block_co_zero(struct block *b, uint64_t off, uint64_t len, unsigned flags);
int block_co_discard(struct block *b, uint64_t off, uint64_t len);
int block_co_flush(struct block *b);
int block_co_truncate(struct block *b, uint64_t len, struct err *e);
/* This node alone; and asking the backing nodes for what it does not decide. */
int block_co_status(struct block *b, uint64_t off, uint64_t len, struct block_status *st);
int block_co_status_chain(struct block *b, uint64_t off, uint64_t len, struct block_status *st);
