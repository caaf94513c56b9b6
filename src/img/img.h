/*
 * kvasir-img: what its commands share.
 *
 * The commands have the words, the output and the exit statuses of qemu-img, so that scripts work
 * with either; what is not supported is refused by name. Each command runs as one task of an event
 * loop of its own, and only this folder prints.
 * Threads: one, and the block layer's workers.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/block/block.h"
#include "backend/block/qcow2.h"

struct img {
	struct loop *loop;
	struct block_ctx *ctx;
	bool quiet;
};

/* ---- Commands: argv[0] is the command's name. They return the exit status. ------------------ */

int img_bench(struct img *im, int argc, char **argv);
int img_create(struct img *im, int argc, char **argv);
int img_info(struct img *im, int argc, char **argv);
int img_check(struct img *im, int argc, char **argv);
int img_convert(struct img *im, int argc, char **argv);
int img_snapshot(struct img *im, int argc, char **argv);
int img_resize(struct img *im, int argc, char **argv);
int img_map(struct img *im, int argc, char **argv);
int img_compare(struct img *im, int argc, char **argv);
int img_measure(struct img *im, int argc, char **argv);
int img_rebase(struct img *im, int argc, char **argv);
int img_commit(struct img *im, int argc, char **argv);

/* ---- Options that several commands have ------------------------------------------------------ */

enum { OPT_OUTPUT = 256, OPT_NOT, OPT_OTHER };
#define OPTS_COMMON \
	{ "output", required_argument, NULL, OPT_OUTPUT }, \
		{ "force-share", no_argument, NULL, 'U' }, \
		{ "object", required_argument, NULL, OPT_NOT }, \
	{ \
		"image-opts", no_argument, NULL, OPT_NOT \
	}
struct img_common {
	const char *format; /* -f, NULL: to be probed */
	bool share, is_json;
};
/*
 * opt, from getopt_long, is none of a command's own options: one of OPTS_COMMON or -f, or wrong;
 * usage is then the command's line of help. 0, or a status after printing.
 */
int img_option(struct img_common *c, int opt, const char *usage);

/* ---- Helpers --------------------------------------------------------------------------------- */

/* "kvasir-img: TEXT" on standard error; returns 1, a command's status. */
__attribute__((format(printf, 1, 2))) int img_fail(const char *fmt, ...);
/* The same, and where help is. */
__attribute__((format(printf, 1, 2))) int img_usage(const char *fmt, ...);

/* "10M", "1.5G", "4096" into bytes; -EINVAL: not a size. Suffixes are powers of 1024. */
int img_size(const char *text, uint64_t *out) must_check;
/* "3 MiB", as qemu-img writes sizes. */
const char *img_human(char *buf, size_t n, uint64_t bytes);
/* Is this a cache mode, and what does it set? */
bool img_cache(const char *mode, struct block_opts *o);

/* Opens or prints "Could not open". o->filename is set from filename. A task function. */
struct block *img_co_open(struct img *im, const char *filename, const char *format,
			  struct block_opts *o);

/* Bytes the host has allocated for a file, 0: unknown. */
uint64_t img_allocated(const char *filename);
/* Do two names mean one existing file; is a name that of a block device? */
bool img_same_file(const char *a, const char *b);
bool img_is_device(const char *filename);

/* A progress display, "    (12.00/100%)". */
struct img_progress {
	bool on;
	uint64_t total, shown;
};
void img_progress(struct img_progress *p, uint64_t done);
void img_progress_end(struct img_progress *p);

/* What block_co_status says down the chain, as qemu-img map shows it. A task function. */
struct img_extent {
	uint64_t start, len, offset;
	unsigned depth;
	bool present, zero, data, has_offset, compressed;
	struct block *file;
};
int img_co_extent(struct block *b, uint64_t off, struct img_extent *x);

/* ---- Options of new images, create.c --------------------------------------------------------- */

struct img_new {
	const char *format;
	struct qcow2_create q; /* size, too; its strings are set from those below */
	bool has_size, is_qcow2;
	char *backing_file, *backing_format, *data_file; /* owned */
};
/* Add -o text. 0, or a status after printing; help was asked for: *help. */
int img_new_options(struct img_new *n, const char *text, bool *help);
void img_new_free(struct img_new *n);
/* Make the image; prints. 0 or a status. A task function. */
int img_co_new(struct img *im, struct img_new *n, const char *filename);

/* ---- JSON, json.c ---------------------------------------------------------------------------- */

struct json {
	unsigned depth;
	bool any[16]; /* by depth: something was written, so a comma comes first */
};
/* key NULL: an element of an array. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_str(struct json *j, const char *key, const char *value);
void json_uint(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);
/* A string with quotes, escaped; what is not valid UTF-8 becomes U+FFFD. */
void json_quote(const char *s);
