/*
 * Disk backends: what a device (or a job) uses of an image. Over a tree of nodes (block.h) a
 * backend adds what belongs to the user of a disk: requests with completion callbacks, error
 * policy, throttling, the cache mode that the guest sees, statistics, draining.
 *
 * Requests: a struct blk_req is embedded in the device's own request, so that nothing is allocated;
 * the vectors point into guest memory, and the host moves bytes there directly. Its done is called
 * exactly once, in the context's loop (with the device lock, if that is the machine's), and maybe
 * before blk_submit has returned. Out of range or on a read-only disk: -EIO, -EPERM.
 *
 * Error policy (rerror, werror): report hands the error to the device, ignore reports success, stop
 * keeps the request and asks the machine to pause (REQ_PAUSE), enospc is stop for -ENOSPC and
 * report for the rest. Kept requests are submitted again by blk_resume.
 *
 * Drain: blk_drain returns when no request is in flight; kept ones stay. Throttled ones are let
 * through. A device is reset by blk_cancel_kept and waiting for the rest, with blk_hurry.
 *
 * Threads: all functions on the thread of the context's loop; if the loop has a dispatch lock (the
 * machine's), on any thread that holds it.
 */
#pragma once
#include "backend/block/block.h"
#include "backend/block/throttle.h"

struct blk;
struct runstate;

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO, BLK_OPS };

struct blk_req {
	enum blk_op op;
	uint64_t off, len; /* bytes; READ, WRITE: len is that of the vectors */
	struct iovecs v;   /* READ, WRITE; lives until done */
	unsigned flags;    /* BLOCK_FUA, BLOCK_UNMAP */
	void (*done)(struct blk_req *r, int result); /* 0 or -errno */

	/* private */
	struct blk *blk;
	struct blk_req *next;
	uint64_t start;
	int result;
};

enum blk_on_error { BLK_REPORT, BLK_IGNORE, BLK_STOP, BLK_ENOSPC };

struct blk_conf {
	enum blk_on_error rerror, werror;
	bool writethrough; /* each write is stable when it completes; the guest may switch it */
	struct throttle_limits limits;
	const char *serial; /* borrowed until blk_new returns; NULL: none */
};

struct blk_stats {
	struct {
		uint64_t ops, bytes, failed, ns; /* completed, their bytes, failed, time taken */
	} op[BLK_OPS];
	uint64_t in_flight;
};

/*
 * A backend over root, which it takes also on failure. id: as in drive=ID. rs: where to ask for a
 * pause; may be NULL (stop reports then). NULL and e on failure.
 */
struct blk *blk_new(const char *id, struct block *root, const struct blk_conf *conf,
		    struct runstate *rs, struct err *e);

/* Drains, flushes, closes the nodes. NULL is allowed. */
void blk_free(struct blk *b);

const char *blk_id(const struct blk *b);
const char *blk_serial(const struct blk *b); /* NULL: not given */
uint64_t blk_len(const struct blk *b);       /* bytes */
bool blk_writable(const struct blk *b);
bool blk_can_discard(const struct blk *b); /* discard=unmap was given */
struct block *blk_root(struct blk *b);
struct loop *blk_loop(struct blk *b);
struct blk_stats blk_stats(const struct blk *b);

bool blk_writethrough(const struct blk *b);
void blk_set_writethrough(struct blk *b, bool on);

/*
 * One user at a time: -EBUSY names the other. resized is called after the length has changed; may
 * be NULL.
 */
int blk_attach(struct blk *b, const char *who, void (*resized)(void *opaque), void *opaque,
	       struct err *e) must_check;
void blk_detach(struct blk *b);
bool blk_attached(const struct blk *b);

/* "report", "ignore", "stop", "enospc"; NULL: as it is. */
int blk_set_on_error(struct blk *b, const char *rerror, const char *werror,
		     struct err *e) must_check;
int blk_on_error_parse(const char *key, const char *text, enum blk_on_error *v,
		       struct err *e) must_check;

void blk_submit(struct blk *b, struct blk_req *r);
void blk_drain(struct blk *b);

/* After a pause: submit again what was kept. */
void blk_resume(struct blk *b);
/* The device is being reset: done of its kept requests is called with -ECANCELED. */
void blk_cancel_kept(struct blk *b);
bool blk_has_kept(const struct blk *b); /* any thread */
/*
 * Requests go through the throttle without waiting until the matching call: somebody waits for them
 * to end.
 */
void blk_hurry(struct blk *b, bool on);
/*
 * Called with on when a request has been kept, and with off before it is submitted again or
 * cancelled: for a device that counts what is out. Set after blk_attach.
 */
void blk_on_kept(struct blk *b, void (*fn)(void *opaque, struct blk_req *r, bool on));

/* Move it with its nodes to another context (an I/O thread's). Nothing may be in flight. */
void blk_set_ctx(struct blk *b, struct block_ctx *c);

/* Change the length; the user is told. Serves the loop meanwhile. */
int blk_resize(struct blk *b, uint64_t len, struct err *e) must_check;

/* The backends of a machine. */
struct blks {
	struct blk *first;
};
int blks_add(struct blks *bs, struct blk *b, struct err *e) must_check; /* takes it */
struct blk *blks_find(const struct blks *bs, const char *id);
struct blk *blks_at(const struct blks *bs, unsigned i); /* NULL at the end */
/* blk_resume of all, from their loops, soon. */
void blks_resume(struct blks *bs);
bool blks_any_kept(const struct blks *bs);
void blks_drain(struct blks *bs);
void blks_free(struct blks *bs);
