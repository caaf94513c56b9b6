/* See backend.h. Each request is a task, from submission to done. */
#include "backend/block/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/priv.h"
#include "base/bits.h"
#include "base/bug.h"
#include "base/log.h"
#include "core/runstate.h"

struct blk {
	char *id, *serial, *user;
	struct block *root;
	struct runstate *rs;
	struct blk_conf conf;
	void (*resized)(void *opaque);
	void *user_opaque;
	void (*on_kept)(void *opaque, struct blk_req *r, bool on);
	struct blk_stats stats;
	unsigned in_flight, draining;
	_Atomic bool any_kept;
	struct blk_req *kept, **kept_end; /* failed, to be tried again */
	bool throttled;
	struct throttle throttle;
	struct task_mutex turn[2]; /* reads, writes: who waits for the throttle next */
	struct task *nap[2];       /* the one that waits there */
	struct blk *next;
};

/* ---- Throttling ---------------------------------------------------------------------------- */

struct blk_nap {
	struct timer timer;
	struct task *task;
	bool over;
};

static void blk_nap_over(void *opaque)
{
	struct blk_nap *n = opaque;

	n->over = true;
	task_wake(n->task);
}

static void blk_co_throttle(struct blk *b, bool write, uint64_t len)
{
	struct loop *l = b->root->ctx->loop;
	struct blk_nap n = { .task = task_self() };
	uint64_t wait;

	task_co_lock(&b->turn[write]); /* so the order stays */
	timer_init(&n.timer, l, blk_nap_over, &n);
	while (!b->draining &&
	       (wait = throttle_wait(&b->throttle, write, clock_now(loop_clock(l))))) {
		n.over = false;
		timer_arm(&n.timer, clock_now(loop_clock(l)) + wait);
		b->nap[write] = n.task;
		while (!n.over && !b->draining)
			task_co_wait();
		b->nap[write] = NULL;
		timer_cancel(&n.timer);
	}
	throttle_account(&b->throttle, write, len);
	task_unlock(&b->turn[write]);
}

/* ---- Requests ------------------------------------------------------------------------------ */

static int blk_co_do(struct blk *b, struct blk_req *r)
{
	struct block *root = b->root;
	unsigned fua = r->flags & BLOCK_FUA;

	if (r->op != BLK_FLUSH && (r->off > root->len || r->len > root->len - r->off))
		return -EIO; /* a host file as the root would grow */
	if (b->conf.writethrough)
		fua = BLOCK_FUA;
	switch (r->op) {
	case BLK_READ: return block_co_read(root, r->off, &r->v);
	case BLK_WRITE: return block_co_write(root, r->off, &r->v, fua);
	case BLK_FLUSH: return block_co_flush(root);
	case BLK_DISCARD: return block_co_discard(root, r->off, r->len);
	case BLK_ZERO: return block_co_zero(root, r->off, r->len, fua | (r->flags & BLOCK_UNMAP));
	case BLK_OPS: break;
	}
	return -EINVAL;
}

/* True: the request is kept, and the machine pauses. */
static bool blk_keep(struct blk *b, struct blk_req *r, int result)
{
	enum blk_on_error on = r->op == BLK_READ ? b->conf.rerror : b->conf.werror;
	bool stop = on == BLK_STOP || (on == BLK_ENOSPC && result == -ENOSPC);

	if (!stop || !b->rs)
		return false;
	if (!b->any_kept) /* one line, not one for each request in flight */
		log_warn("drive %s: %s at %llu: %s: the machine is paused", b->id,
			 r->op == BLK_READ ? "reading" : "writing", (unsigned long long)r->off,
			 strerror(-result));
	r->next = NULL;
	*b->kept_end = r;
	b->kept_end = &r->next;
	b->any_kept = true;
	if (b->on_kept)
		b->on_kept(b->user_opaque, r, true);
	machine_request(b->rs, REQ_OF(REQ_PAUSE, "I/O error"));
	return true;
}

static void blk_task(void *arg)
{
	struct blk_req *r = arg;
	struct blk *b = r->blk;
	enum blk_op op = r->op;
	int result;

	if (b->throttled && op != BLK_FLUSH)
		blk_co_throttle(b, op != BLK_READ, op == BLK_DISCARD ? 0 : r->len);
	result = blk_co_do(b, r);
	b->in_flight--;
	if (result < 0) {
		b->stats.op[op].failed++;
		if (blk_keep(b, r, result))
			return;
		if ((op == BLK_READ ? b->conf.rerror : b->conf.werror) == BLK_IGNORE)
			result = 0;
	} else {
		b->stats.op[op].ops++;
		b->stats.op[op].bytes += r->len;
		b->stats.op[op].ns += clock_now(loop_clock(b->root->ctx->loop)) - r->start;
	}
	r->done(r, result);
}

void blk_submit(struct blk *b, struct blk_req *r)
{
	r->blk = b;
	r->start = clock_now(loop_clock(b->root->ctx->loop));
	if (r->op == BLK_READ || r->op == BLK_WRITE)
		r->len = r->v.len;
	else if (r->op == BLK_FLUSH)
		r->len = 0;
	b->in_flight++;
	if (task_start(b->root->ctx->tasks, blk_task, r) < 0) {
		b->in_flight--;
		b->stats.op[r->op].failed++;
		r->done(r, -ENOMEM);
	}
}

void blk_hurry(struct blk *b, bool on)
{
	b->draining += on ? 1 : -1u;
	for (int i = 0; i < 2; i++)
		if (on && b->nap[i])
			task_wake(b->nap[i]);
}

void blk_drain(struct blk *b)
{
	blk_hurry(b, true);
	while (b->in_flight)
		block_ctx_poll(b->root->ctx);
	blk_hurry(b, false);
}

/* Take all kept requests out; the list that comes back is the caller's. */
static struct blk_req *blk_take_kept(struct blk *b)
{
	struct blk_req *r = b->kept;

	b->kept = NULL;
	b->kept_end = &b->kept;
	b->any_kept = false;
	return r;
}

void blk_resume(struct blk *b)
{
	struct blk_req *r = blk_take_kept(b), *n;

	for (; r; r = n) {
		n = r->next;
		if (b->on_kept)
			b->on_kept(b->user_opaque, r, false);
		blk_submit(b, r);
	}
}

void blk_cancel_kept(struct blk *b)
{
	struct blk_req *r = blk_take_kept(b), *n;

	for (; r; r = n) {
		n = r->next;
		if (b->on_kept)
			b->on_kept(b->user_opaque, r, false);
		r->done(r, -ECANCELED);
	}
}

bool blk_has_kept(const struct blk *b)
{
	return b->any_kept;
}

/* ---- The backend itself -------------------------------------------------------------------- */

struct blk *blk_new(const char *id, struct block *root, const struct blk_conf *conf,
		    struct runstate *rs, struct err *e)
{
	struct blk *b = calloc(1, sizeof(*b));

	if (b) {
		b->id = strdup(id);
		b->serial = conf->serial ? strdup(conf->serial) : NULL;
	}
	if (!b || !b->id || (conf->serial && !b->serial)) {
		err_set(e, ENOMEM, "drive %s: out of memory", id);
		block_close(root);
		if (b)
			free(b->id);
		free(b);
		return NULL;
	}
	b->root = root;
	b->rs = rs;
	b->conf = *conf;
	b->conf.serial = NULL;
	b->kept_end = &b->kept;
	b->throttled = throttle_any(&conf->limits);
	throttle_init(&b->throttle, &conf->limits, clock_now(loop_clock(root->ctx->loop)));
	return b;
}

static void blk_co_end(void *arg)
{
	struct blk *b = arg;
	int r = b->root->writable ? block_co_flush(b->root) : 0;

	if (r < 0)
		log_err("drive %s: the last flush failed: %s", b->id, strerror(-r));
	block_co_close(b->root);
}

void blk_free(struct blk *b)
{
	if (!b)
		return;
	blk_drain(b);
	block_ctx_run(b->root->ctx, blk_co_end, b);
	free(b->id);
	free(b->serial);
	free(b->user);
	free(b);
}

const char *blk_id(const struct blk *b)
{
	return b->id;
}

const char *blk_serial(const struct blk *b)
{
	return b->serial;
}

uint64_t blk_len(const struct blk *b)
{
	return b->root->len;
}

bool blk_writable(const struct blk *b)
{
	return b->root->writable;
}

bool blk_can_discard(const struct blk *b)
{
	return b->root->writable && b->root->opts.discard_unmap;
}

struct block *blk_root(struct blk *b)
{
	return b->root;
}

struct loop *blk_loop(struct blk *b)
{
	return b->root->ctx->loop;
}

struct blk_stats blk_stats(const struct blk *b)
{
	struct blk_stats s = b->stats;

	s.in_flight = b->in_flight;
	return s;
}

bool blk_writethrough(const struct blk *b)
{
	return b->conf.writethrough;
}

void blk_set_writethrough(struct blk *b, bool on)
{
	b->conf.writethrough = on;
}

int blk_attach(struct blk *b, const char *who, void (*resized)(void *opaque), void *opaque,
	       struct err *e)
{
	if (b->user)
		return err_set(e, EBUSY, "drive %s is in use by %s", b->id, b->user);
	b->user = strdup(who);
	if (!b->user)
		return err_set(e, ENOMEM, "drive %s: out of memory", b->id);
	b->resized = resized;
	b->user_opaque = opaque;
	return 0;
}

void blk_on_kept(struct blk *b, void (*fn)(void *opaque, struct blk_req *r, bool on))
{
	b->on_kept = fn;
}

void blk_detach(struct blk *b)
{
	b->on_kept = NULL;
	free(b->user);
	b->user = NULL;
	b->resized = NULL;
}

int blk_on_error_parse(const char *key, const char *text, enum blk_on_error *v, struct err *e)
{
	static const char *const words[] = { "report", "ignore", "stop", "enospc" };

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(text, words[i])) {
			*v = (enum blk_on_error)i;
			return 0;
		}
	return err_set(e, EINVAL, "%s=%s: report, ignore, stop and enospc exist", key, text);
}

int blk_set_on_error(struct blk *b, const char *rerror, const char *werror, struct err *e)
{
	int r = rerror ? blk_on_error_parse("rerror", rerror, &b->conf.rerror, e) : 0;

	return r == 0 && werror ? blk_on_error_parse("werror", werror, &b->conf.werror, e) : r;
}

bool blk_attached(const struct blk *b)
{
	return b->user != NULL;
}

static void block_set_ctx(struct block *b, struct block_ctx *c)
{
	if (!b)
		return;
	b->ctx = c;
	block_set_ctx(b->file, c);
	block_set_ctx(b->backing, c);
	block_set_ctx(b->data_file, c);
}

void blk_set_ctx(struct blk *b, struct block_ctx *c)
{
	BUG_ON(b->in_flight);
	block_set_ctx(b->root, c);
}

struct blk_resizing {
	struct blk *b;
	uint64_t len;
	struct err *e;
	int result;
};

static void blk_co_resize(void *arg)
{
	struct blk_resizing *z = arg;

	z->result = block_co_truncate(z->b->root, z->len, z->e);
}

int blk_resize(struct blk *b, uint64_t len, struct err *e)
{
	struct blk_resizing z = { b, len, e, -ENOMEM };

	if (len % 512)
		return err_set(e, EINVAL, "drive %s: a length is a multiple of 512 bytes", b->id);
	blk_drain(b);
	block_ctx_run(b->root->ctx, blk_co_resize, &z);
	if (z.result == 0 && b->resized)
		b->resized(b->user_opaque);
	return z.result;
}

/* ---- All of a machine ---------------------------------------------------------------------- */

int blks_add(struct blks *bs, struct blk *b, struct err *e)
{
	struct blk **p = &bs->first;

	for (; *p; p = &(*p)->next)
		if (!strcmp((*p)->id, b->id)) {
			err_set(e, EEXIST, "the drive id '%s' is taken", b->id);
			blk_free(b);
			return -EEXIST;
		}
	*p = b;
	return 0;
}

struct blk *blks_find(const struct blks *bs, const char *id)
{
	struct blk *b = bs->first;

	while (b && strcmp(b->id, id))
		b = b->next;
	return b;
}

struct blk *blks_at(const struct blks *bs, unsigned i)
{
	struct blk *b = bs->first;

	while (b && i--)
		b = b->next;
	return b;
}

static void blk_resume_call(void *opaque)
{
	blk_resume(opaque);
}

void blks_resume(struct blks *bs)
{
	for (struct blk *b = bs->first; b; b = b->next)
		if (b->any_kept)
			loop_call(blk_loop(b), blk_resume_call, b);
}

bool blks_any_kept(const struct blks *bs)
{
	bool any = false;

	for (const struct blk *b = bs->first; b; b = b->next)
		any |= b->any_kept;
	return any;
}

void blks_drain(struct blks *bs)
{
	for (struct blk *b = bs->first; b; b = b->next)
		blk_drain(b);
}

void blks_free(struct blks *bs)
{
	while (bs->first) {
		struct blk *b = bs->first;

		bs->first = b->next;
		blk_free(b);
	}
}
