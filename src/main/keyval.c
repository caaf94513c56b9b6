/* Option lists; see keyval.h. */
#include "main/keyval.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/nearest.h"

int keyval_parse(struct keyval *k, const char *option, const char *text, const char *implied,
		 struct err *e)
{
	char *s, *to;

	*k = (struct keyval){ .option = option, .buf = strdup(text) };
	if (!k->buf)
		return err_set(e, ENOMEM, "out of memory");
	for (s = to = k->buf; *s;) {
		char *item = to, *eq = NULL;

		while (*s && (*s != ',' || s[1] == ',')) {
			if (*s == ',') /* doubled: one stays */
				s++;
			if (*s == '=' && !eq)
				eq = to;
			*to++ = *s++;
		}
		s += *s == ',';
		*to++ = 0;
		if (k->n == KEYVAL_MAX) {
			keyval_free(k);
			return err_set(e, E2BIG, "%s %s: more than %d properties", option, text,
				       KEYVAL_MAX);
		}
		if (eq) {
			*eq = 0;
			k->kv[k->n].key = item;
			k->kv[k->n].val = eq + 1;
		} else if (!k->n && implied) {
			k->kv[k->n].key = (char *)implied;
			k->kv[k->n].val = item;
		} else {
			k->kv[k->n].key = item;
			k->kv[k->n].val = (char *)"on";
		}
		k->n++;
	}
	return 0;
}

void keyval_free(struct keyval *k)
{
	free(k->buf);
	*k = (struct keyval){ 0 };
}

const char *keyval_get(struct keyval *k, const char *key)
{
	const char *v = NULL;

	for (unsigned i = 0; i < k->n; i++) {
		if (strcmp(k->kv[i].key, key))
			continue;
		k->kv[i].used = true;
		v = k->kv[i].val;
	}
	return v;
}

int keyval_onoff(const char *option, const char *key, const char *text, bool *v, struct err *e)
{
	static const char *const yes[] = { "on", "yes", "true" }, *const no[] = { "off", "no",
										  "false" };

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*v = !strcmp(text, yes[i]);
			return 0;
		}
	}
	return err_set(e, EINVAL, "%s: %s=%s: on or off is needed", option, key, text);
}

int keyval_bool(struct keyval *k, const char *key, bool *v, struct err *e)
{
	const char *s = keyval_get(k, key);

	return s ? keyval_onoff(k->option, key, s, v, e) : 0;
}

int keyval_uint(struct keyval *k, const char *key, unsigned min, unsigned max, unsigned *v,
		struct err *e)
{
	const char *s = keyval_get(k, key);
	unsigned long long n;
	char *end;

	if (!s)
		return 0;
	errno = 0;
	n = strtoull(s, &end, 10);
	if (!isdigit((unsigned char)*s) || *end || errno || n < min || n > max)
		return err_set(e, EINVAL, "%s: %s=%s: a number from %u to %u is needed", k->option,
			       key, s, min, max);
	*v = (unsigned)n;
	return 0;
}

int keyval_only(struct keyval *k, const char *key, bool value, const char *why, struct err *e)
{
	bool v = value;
	int r = keyval_bool(k, key, &v, e);

	if (r == 0 && v != value)
		return err_set(e, ENOTSUP, "%s: %s=%s is not supported: %s", k->option, key,
			       v ? "on" : "off", why);
	return r;
}

int keyval_done(struct keyval *k, const char *const *known, struct err *e)
{
	char hint[96];
	size_t n = 0;

	while (known[n])
		n++;
	for (unsigned i = 0; i < k->n; i++)
		if (!k->kv[i].used)
			return err_set(
				e, EINVAL, "%s: unknown property '%s'%s", k->option, k->kv[i].key,
				text_nearest_hint(hint, sizeof(hint), k->kv[i].key, known, n));
	return 0;
}

int keyval_size(const char *option, const char *text, uint64_t unit, uint64_t *bytes, struct err *e)
{
	static const char suffix[] = "BKMGT";
	const char *s;
	char *end;
	double v;

	/* strtod also takes "inf", "0x1p3", "-1" and leading blanks, which are no sizes. */
	if (!isdigit((unsigned char)*text) || text[1] == 'x' || text[1] == 'X')
		goto bad;
	v = strtod(text, &end);
	if (*end) {
		s = strchr(suffix, toupper((unsigned char)*end));
		if (!s || end[1])
			goto bad;
		unit = 1ull << (10 * (s - suffix));
	}
	v *= (double)unit;
	if (v > 0x1p62)
		return err_set(e, ERANGE, "%s: %s is more than any machine has", option, text);
	*bytes = (uint64_t)v;
	return 0;
bad:
	return err_set(e, EINVAL, "%s: '%s' is no size; write it as 512, 512M or 1G", option, text);
}
