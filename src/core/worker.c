/* See worker.h. Finished items collect in a list that one bottom half empties. */
#include "core/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/thread.h"

#define WORKER_MAX 64

struct work_list {
	struct work *first, **end;
};

struct workers {
	struct loop *loop;
	struct bh bh;
	pthread_mutex_t mutex; /* covers all below */
	pthread_cond_t more;
	struct work_list todo, finished;
	bool stop;
	unsigned max, n, idle;
	pthread_t threads[WORKER_MAX];
};

static void work_list_add(struct work_list *l, struct work *w)
{
	w->next = NULL;
	*l->end = w;
	l->end = &w->next;
}

static struct work *work_list_take(struct work_list *l)
{
	struct work *w = l->first;

	if (w && !(l->first = w->next))
		l->end = &l->first;
	return w;
}

static void workers_done(void *opaque)
{
	struct workers *p = opaque;

	for (;;) {
		struct work *w;

		pthread_mutex_lock(&p->mutex);
		w = work_list_take(&p->finished);
		pthread_mutex_unlock(&p->mutex);
		if (!w)
			return;
		w->done(w); /* may free w */
	}
}

void workers_poll(struct workers *p)
{
	workers_done(p);
}

static void *workers_thread(void *opaque)
{
	struct workers *p = opaque;
	struct work *w;

	pthread_mutex_lock(&p->mutex);
	for (;;) {
		while (!(w = work_list_take(&p->todo)) && !p->stop) {
			p->idle++;
			pthread_cond_wait(&p->more, &p->mutex);
			p->idle--;
		}
		if (!w)
			break;
		pthread_mutex_unlock(&p->mutex);
		w->fn(w);
		pthread_mutex_lock(&p->mutex);
		work_list_add(&p->finished, w);
		bh_schedule(&p->bh); /* under the mutex, so before workers_free can go on */
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

/* With the mutex. */
static int workers_start_one(struct workers *p)
{
	int rc = thread_start(&p->threads[p->n], workers_thread, p);

	p->n += !rc;
	return rc;
}

struct workers *workers_new(struct loop *l, unsigned max, struct err *e)
{
	struct workers *p = calloc(1, sizeof(*p));
	int rc = p ? 0 : ENOMEM;

	if (p) {
		p->loop = l;
		p->max = max < 1 ? 1 : max > WORKER_MAX ? WORKER_MAX : max;
		p->todo.end = &p->todo.first;
		p->finished.end = &p->finished.first;
		pthread_mutex_init(&p->mutex, NULL);
		pthread_cond_init(&p->more, NULL);
		bh_init(&p->bh, l, workers_done, p);
		/* one now, so that submit can rely on somebody being there */
		pthread_mutex_lock(&p->mutex);
		rc = workers_start_one(p);
		pthread_mutex_unlock(&p->mutex);
	}
	if (rc) {
		err_set(e, rc, "worker thread: %s", strerror(rc));
		free(p);
		return NULL;
	}
	return p;
}

void workers_submit(struct workers *p, struct work *w)
{
	w->cancelled = false;
	pthread_mutex_lock(&p->mutex);
	work_list_add(&p->todo, w);
	if (!p->idle && p->n < p->max)
		workers_start_one(p); /* no more threads: those that run serve it later */
	pthread_cond_signal(&p->more);
	pthread_mutex_unlock(&p->mutex);
}

void workers_free(struct workers *p)
{
	struct work *w;

	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->stop = true;
	while ((w = work_list_take(&p->todo))) {
		w->cancelled = true;
		work_list_add(&p->finished, w);
	}
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->mutex);
	for (unsigned i = 0; i < p->n; i++)
		pthread_join(p->threads[i], NULL);
	bh_cancel(&p->bh);
	workers_done(p);
	pthread_cond_destroy(&p->more);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}
