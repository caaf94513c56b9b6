/*
 * Properties: defaults, setting from text and from code, help. See dev.h.
 * Threads: as dev.h says.
 */
#include "core/prop.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "core/nearest.h"

#define PROP_MAX 64

static void *prop_at(const struct dev *d, const struct prop *p)
{
	return (char *)d + p->off;
}

static enum st_kind prop_scalar(const struct prop *p)
{
	return p->kind == PROP_KIND_SIZE ? ST_U64 : (enum st_kind)p->kind;
}

static bool prop_is_scalar(const struct prop *p)
{
	return p->kind <= ST_U64 || p->kind == PROP_KIND_SIZE;
}

static const char *prop_kind_name(const struct prop *p)
{
	switch (p->kind) {
	case PROP_KIND_SIZE: return "size";
	case PROP_KIND_STR: return "string";
	case PROP_KIND_BACKEND: return p->backend;
	case ST_BOOL: return "on|off";
	default: return st_name((enum st_kind)p->kind);
	}
}

static void prop_put(struct dev *d, const struct prop *p, uint64_t v)
{
	memcpy(prop_at(d, p), &v, st_size(prop_scalar(p)));
}

int prop_set_defaults(struct dev *d, struct err *e)
{
	for (const struct prop *p = d->cls->props; p && p->name; p++) {
		if (prop_is_scalar(p)) {
			prop_put(d, p, p->dflt);
		} else if (p->kind == PROP_KIND_STR && p->sdflt) {
			char *s = strdup(p->sdflt);

			if (!s)
				return err_set(e, ENOMEM, "%s: out of memory", d->id);
			*(char **)prop_at(d, p) = s;
		}
	}
	return 0;
}

void prop_free_all(struct dev *d)
{
	for (const struct prop *p = d->cls->props; p && p->name; p++)
		if (p->kind == PROP_KIND_STR)
			free(*(char **)prop_at(d, p));
}

/* QEMU has some names with underscores (event_idx); here they are all written with dashes. */
static bool prop_is_named(const struct prop *p, const char *name)
{
	const char *n = p->name;

	while (*n && (*n == *name || (*n == '-' && *name == '_'))) {
		n++;
		name++;
	}
	return !*n && !*name;
}

static const struct prop *prop_find(const struct dev_class *cls, const char *name)
{
	for (const struct prop *p = cls->props; p && p->name; p++)
		if (prop_is_named(p, name))
			return p;
	return NULL;
}

bool dev_class_has_prop(const struct dev_class *cls, const char *name)
{
	return prop_find(cls, name) != NULL;
}

static int prop_unknown(struct dev *d, const char *name, struct err *e)
{
	const char *words[PROP_MAX];
	char hint[80];
	size_t n = 0;

	for (const struct prop *p = d->cls->props; p && p->name && n < PROP_MAX; p++)
		words[n++] = p->name;
	return err_set(e, EINVAL, "%s has no property %s%s", d->cls->name, name,
		       text_nearest_hint(hint, sizeof(hint), name, words, n));
}

static int prop_parse_bool(const char *text, uint64_t *v)
{
	static const char *const yes[] = { "on", "yes", "true", "y" };
	static const char *const no[] = { "off", "no", "false", "n" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		*v = !strcmp(text, yes[i]);
		if (*v || !strcmp(text, no[i]))
			return 0;
	}
	return -EINVAL;
}

static int prop_parse_u64(const char *text, bool size, uint64_t *v)
{
	static const char units[] = "BKMGT";
	const char *u;
	char *end;

	if (!isdigit((unsigned char)*text)) /* strtoull takes blanks and signs */
		return -EINVAL;
	errno = 0;
	*v = strtoull(text, &end, 0);
	if (errno)
		return -ERANGE;
	if (size && *end && (u = strchr(units, toupper((unsigned char)*end)))) {
		unsigned shift = 10 * (unsigned)(u - units);

		if (*v << shift >> shift != *v)
			return -ERANGE;
		*v <<= shift;
		end++;
	}
	return *end ? -EINVAL : 0;
}

int dev_set_prop(struct dev *d, const char *name, const char *text, struct err *e)
{
	const struct prop *p = prop_find(d->cls, name);
	uint64_t v = 0, max;
	void *backend;
	char *copy;
	int rc;

	if (!p)
		return prop_unknown(d, name, e);
	if (d->realized)
		return err_set(e, EBUSY, "%s: %s cannot change any more", d->id, name);
	switch (p->kind) {
	case PROP_KIND_STR:
		copy = strdup(text);
		if (!copy)
			return err_set(e, ENOMEM, "%s: out of memory", d->id);
		free(*(char **)prop_at(d, p));
		*(char **)prop_at(d, p) = copy;
		return 0;
	case PROP_KIND_BACKEND:
		backend = d->md->backend_find ? d->md->backend_find(d->md->opaque, p->backend, text)
					      : NULL;
		if (!backend)
			return err_set(e, ENOENT, "%s: there is no %s with the id %s", d->id,
				       p->backend, text);
		*(void **)prop_at(d, p) = backend;
		return 0;
	case ST_BOOL:
		if (prop_parse_bool(text, &v))
			return err_set(e, EINVAL, "%s: %s=%s should be on or off", d->id, name,
				       text);
		break;
	default:
		max = UINT64_MAX >> (64 - 8 * st_size(prop_scalar(p)));
		rc = prop_parse_u64(text, p->kind == PROP_KIND_SIZE, &v);
		if (rc == -ERANGE || (!rc && v > max))
			return err_set(e, ERANGE, "%s: %s=%s is more than 0x%" PRIx64, d->id, name,
				       text, max);
		if (rc)
			return err_set(e, EINVAL, "%s: %s=%s should be a %s", d->id, name, text,
				       p->kind == PROP_KIND_SIZE ? "size such as 64K" : "number");
	}
	prop_put(d, p, v);
	return 0;
}

void dev_set_u64(struct dev *d, const char *name, uint64_t v)
{
	const struct prop *p = prop_find(d->cls, name);

	BUG_ON(!p || !prop_is_scalar(p) || d->realized);
	BUG_ON(v > UINT64_MAX >> (64 - 8 * st_size(prop_scalar(p))));
	prop_put(d, p, p->kind == ST_BOOL ? v != 0 : v);
}

void dev_set_backend(struct dev *d, const char *name, void *backend)
{
	const struct prop *p = prop_find(d->cls, name);

	BUG_ON(!p || p->kind != PROP_KIND_BACKEND || d->realized);
	*(void **)prop_at(d, p) = backend;
}

void dev_help(const struct dev_class *cls, FILE *out)
{
	fprintf(out, "%s, %s\n", cls->name, cls->desc);
	for (const struct prop *p = cls->props; p && p->name; p++) {
		fprintf(out, "  %s=<%s>  %s", p->name, prop_kind_name(p), p->help);
		if (p->kind == ST_BOOL)
			fprintf(out, " (default %s)", p->dflt ? "on" : "off");
		else if (prop_is_scalar(p))
			fprintf(out,
				p->dflt < 10 ? " (default %" PRIu64 ")"
					     : " (default 0x%" PRIx64 ")",
				p->dflt);
		else if (p->kind == PROP_KIND_STR && p->sdflt)
			fprintf(out, " (default %s)", p->sdflt);
		fputc('\n', out);
	}
}
