/*
 * See trace.h. The sink's mutex covers its list, patterns and ring; a source's byte is read without
 * it (seeing a switch one event late is fine).
 */
#include "core/trace.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct trace_pattern {
	struct trace_pattern *next;
	bool on;
	char glob[];
};

struct trace_event {
	uint64_t ns;
	char name[24]; /* of the source: it may be gone when the ring is read */
	const char *event;
	uint64_t arg[TRACE_ARGS];
	uint8_t n;
	bool error;
};

struct trace_sink {
	pthread_mutex_t mutex;
	struct trace_src *sources;
	struct trace_pattern *patterns; /* newest first */
	struct trace_event *ring;       /* NULL: standard error */
	uint64_t n;                     /* events ever put into the ring */
};

static uint64_t trace_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

struct trace_sink *trace_sink_new(void)
{
	struct trace_sink *s = calloc(1, sizeof(*s));

	if (s)
		pthread_mutex_init(&s->mutex, NULL);
	return s;
}

void trace_sink_free(struct trace_sink *s)
{
	if (!s)
		return;
	for (struct trace_src *t = s->sources; t; t = t->next)
		t->sink = NULL;
	while (s->patterns) {
		struct trace_pattern *p = s->patterns;

		s->patterns = p->next;
		free(p);
	}
	pthread_mutex_destroy(&s->mutex);
	free(s->ring);
	free(s);
}

void trace_sink_ring(struct trace_sink *s, bool on)
{
	pthread_mutex_lock(&s->mutex);
	if (on && !s->ring)
		s->ring = calloc(TRACE_RING, sizeof(*s->ring));
	if (!on) {
		free(s->ring);
		s->ring = NULL;
	}
	s->n = 0;
	pthread_mutex_unlock(&s->mutex);
}

static void trace_print(const struct trace_event *t, FILE *out)
{
	char line[256];
	int n = snprintf(line, sizeof(line), "%" PRIu64 ".%06" PRIu64 " %s %s%s",
			 t->ns / 1000000000, t->ns / 1000 % 1000000, t->name,
			 t->error ? "guest_error:" : "", t->event);

	for (unsigned i = 0; i < t->n && n > 0 && (size_t)n < sizeof(line); i++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, " 0x%" PRIx64, t->arg[i]);
	fprintf(out, "%s\n", line);
}

void trace_sink_dump(struct trace_sink *s, FILE *out)
{
	pthread_mutex_lock(&s->mutex);
	for (uint64_t i = s->n > TRACE_RING ? s->n - TRACE_RING : 0; s->ring && i < s->n; i++)
		trace_print(&s->ring[i % TRACE_RING], out);
	pthread_mutex_unlock(&s->mutex);
}

static bool trace_wanted(const struct trace_sink *s, const char *name)
{
	for (const struct trace_pattern *p = s->patterns; p; p = p->next)
		if (!fnmatch(p->glob, name, 0))
			return p->on;
	return false;
}

void trace_src_add(struct trace_sink *s, struct trace_src *src, const char *name)
{
	*src = (struct trace_src){ .name = name, .sink = s };
	if (!s)
		return;
	pthread_mutex_lock(&s->mutex);
	src->on = trace_wanted(s, name);
	src->next = s->sources;
	s->sources = src;
	pthread_mutex_unlock(&s->mutex);
}

void trace_src_del(struct trace_src *src)
{
	struct trace_sink *s = src->sink;

	if (!s)
		return;
	pthread_mutex_lock(&s->mutex);
	for (struct trace_src **p = &s->sources; *p; p = &(*p)->next)
		if (*p == src) {
			*p = src->next;
			break;
		}
	src->sink = NULL;
	src->on = 0;
	pthread_mutex_unlock(&s->mutex);
}

void trace_switch(struct trace_sink *s, const char *pattern, bool on)
{
	size_t len = strlen(pattern) + 1;
	struct trace_pattern *p = malloc(sizeof(*p) + len);

	if (!p)
		return;
	p->on = on;
	memcpy(p->glob, pattern, len);
	pthread_mutex_lock(&s->mutex);
	p->next = s->patterns;
	s->patterns = p;
	for (struct trace_src *t = s->sources; t; t = t->next)
		if (!fnmatch(pattern, t->name, 0))
			t->on = on;
	pthread_mutex_unlock(&s->mutex);
}

static void trace_put(const struct trace_src *src, const char *event, unsigned n,
		      const uint64_t *args, bool error)
{
	struct trace_sink *s = src->sink;
	struct trace_event t = { .ns = trace_time(), .event = event, .n = (uint8_t)n };

	if (!s)
		return;
	t.error = error;
	strncpy(t.name, src->name, sizeof(t.name) - 1);
	memcpy(t.arg, args, n * sizeof(*args));
	pthread_mutex_lock(&s->mutex);
	if (s->ring)
		s->ring[s->n++ % TRACE_RING] = t;
	else
		trace_print(&t, stderr);
	pthread_mutex_unlock(&s->mutex);
}

void trace_emit(const struct trace_src *src, const char *event, unsigned n, const uint64_t *args)
{
	trace_put(src, event, n, args, false);
}

void trace_guest_error(struct trace_src *src, const char *event, unsigned n, const uint64_t *args)
{
	uint64_t now;

	/* Counters are for people; several vCPUs may lose a count, hence relaxed. */
	if (__atomic_load_n(&src->errors, __ATOMIC_RELAXED) != UINT32_MAX)
		__atomic_fetch_add(&src->errors, 1, __ATOMIC_RELAXED);
	if (!src->on)
		return;
	now = trace_time() / 1000000000;
	if (__atomic_exchange_n(&src->error_t, now, __ATOMIC_RELAXED) != now)
		__atomic_store_n(&src->error_n, 0, __ATOMIC_RELAXED);
	if (__atomic_load_n(&src->error_n, __ATOMIC_RELAXED) >= TRACE_ERRORS_PER_SEC)
		return;
	__atomic_fetch_add(&src->error_n, 1, __ATOMIC_RELAXED);
	trace_put(src, event, n, args, true);
}
