/* See iothread.h. */
#include "core/iothread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/thread.h"

static void *iothread_main(void *opaque)
{
	struct iothread *t = opaque;
	char name[16] = "io:";

	strncat(name, t->id, sizeof(name) - 4);
	pthread_setname_np(pthread_self(), name);
	loop_run(t->loop);
	return NULL;
}

struct iothread *iothread_new(const char *id, struct clock *c, struct err *e)
{
	struct iothread *t = calloc(1, sizeof(*t));
	int rc;

	if (t)
		t->id = strdup(id);
	if (!t || !t->id) {
		free(t);
		err_set(e, ENOMEM, "iothread %s: out of memory", id);
		return NULL;
	}
	biglock_init(&t->lock);
	t->loop = loop_new(c, e);
	if (!t->loop)
		goto fail;
	loop_set_lock(t->loop, &t->lock);
	rc = thread_start(&t->thread, iothread_main, t);
	if (!rc)
		return t;
	err_set(e, rc, "iothread %s: %s", id, strerror(rc));
	loop_free(t->loop);
fail:
	biglock_destroy(&t->lock);
	free(t->id);
	free(t);
	return NULL;
}

void iothread_free(struct iothread *t)
{
	if (!t)
		return;
	loop_quit(t->loop, 0);
	pthread_join(t->thread, NULL);
	loop_free(t->loop);
	biglock_destroy(&t->lock);
	free(t->id);
	free(t);
}
