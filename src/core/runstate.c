/* See runstate.h. */
#include "core/runstate.h"

#include <stddef.h>

static void runstate_act(void *opaque)
{
	struct runstate *rs = opaque;
	struct request r;

	pthread_mutex_lock(&rs->mutex);
	r = rs->want;
	rs->want = (struct request){ .kind = REQ_NONE };
	pthread_mutex_unlock(&rs->mutex);
	if (r.kind != REQ_NONE && rs->handler)
		rs->handler(rs->opaque, &r);
	/* only now: a vCPU must not slip into the guest before the handler has seen to it */
	pthread_mutex_lock(&rs->mutex);
	rs->pending = rs->want.kind != REQ_NONE;
	pthread_mutex_unlock(&rs->mutex);
}

void runstate_init(struct runstate *rs, struct loop *l,
		   void (*handler)(void *opaque, const struct request *r), void *opaque)
{
	*rs = (struct runstate){ .handler = handler, .opaque = opaque };
	pthread_mutex_init(&rs->mutex, NULL);
	bh_init(&rs->bh, l, runstate_act, rs);
}

void runstate_destroy(struct runstate *rs)
{
	bh_cancel(&rs->bh);
	pthread_mutex_destroy(&rs->mutex);
}

void request_merge(struct request *into, const struct request *r)
{
	if (r->kind > into->kind)
		*into = *r;
}

void machine_request(struct runstate *rs, struct request r)
{
	pthread_mutex_lock(&rs->mutex);
	request_merge(&rs->want, &r);
	rs->pending = true;
	pthread_mutex_unlock(&rs->mutex);
	bh_schedule(&rs->bh);
}

bool runstate_pending(const struct runstate *rs)
{
	return rs->pending;
}
