/*
 * A JSON object as an option list: {"file": {"driver": "file"}} is file.driver=file; see keyval.h.
 *
 * Strings with their escapes (code points from \u, surrogate pairs too), numbers as they are
 * written, true and false as on and off, null as an empty value, objects nested up to a depth.
 * Not accepted: arrays, which no option here takes; a key twice.
 * References: RFC 8259.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "main/keyval.h"

enum { JSON_DEPTH = 16, JSON_KEY = 256 };

struct json {
	struct keyval *k;
	const char *s, *text; /* where we are; all of it */
	char *out;            /* the next free byte of k->buf, which is large enough */
	char key[JSON_KEY];   /* path to here, joined by dots */
	struct err *e;
};

static int json_bad(struct json *j, const char *what)
{
	return err_set(j->e, EINVAL, "%s: JSON at character %zu: %s", j->k->option,
		       (size_t)(j->s - j->text) + 1, what);
}

static void json_space(struct json *j)
{
	j->s += strspn(j->s, " \t\r\n");
}

static int json_hex4(struct json *j, unsigned *v)
{
	*v = 0;
	for (int i = 0; i < 4; i++) {
		const char *digits = "0123456789abcdef", *p;
		char c = *j->s;

		p = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
		if (!p)
			return json_bad(j, "four hexadecimal digits belong behind \\u");
		*v = *v * 16 + (unsigned)(p - digits);
		j->s++;
	}
	return 0;
}

static void json_utf8(struct json *j, unsigned c)
{
	if (c < 0x80) {
		*j->out++ = (char)c;
	} else if (c < 0x800) {
		*j->out++ = (char)(0xc0 | c >> 6);
		*j->out++ = (char)(0x80 | (c & 63));
	} else if (c < 0x10000) {
		*j->out++ = (char)(0xe0 | c >> 12);
		*j->out++ = (char)(0x80 | (c >> 6 & 63));
		*j->out++ = (char)(0x80 | (c & 63));
	} else {
		*j->out++ = (char)(0xf0 | c >> 18);
		*j->out++ = (char)(0x80 | (c >> 12 & 63));
		*j->out++ = (char)(0x80 | (c >> 6 & 63));
		*j->out++ = (char)(0x80 | (c & 63));
	}
}

static int json_escape(struct json *j)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p = *j->s ? strchr(from, *j->s) : NULL;
	unsigned c, low;

	if (p) {
		*j->out++ = to[p - from];
		j->s++;
		return 0;
	}
	if (*j->s++ != 'u')
		return json_bad(j, "an unknown escape");
	if (json_hex4(j, &c) < 0)
		return -EINVAL;
	if (c >= 0xd800 && c < 0xdc00) {
		if (j->s[0] != '\\' || j->s[1] != 'u')
			return json_bad(j, "half a surrogate pair");
		j->s += 2;
		if (json_hex4(j, &low) < 0)
			return -EINVAL;
		if (low < 0xdc00 || low > 0xdfff)
			return json_bad(j, "half a surrogate pair");
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	} else if (c >= 0xdc00 && c < 0xe000) {
		return json_bad(j, "half a surrogate pair");
	}
	if (!c)
		return json_bad(j, "a NUL character");
	json_utf8(j, c);
	return 0;
}

/* A string to out, with a NUL. */
static int json_string(struct json *j, char **v)
{
	*v = j->out;
	if (*j->s != '"')
		return json_bad(j, "a string is expected");
	j->s++;
	while (*j->s != '"') {
		if ((unsigned char)*j->s < 0x20)
			return json_bad(j, "a string does not end");
		if (*j->s != '\\') {
			*j->out++ = *j->s++;
			continue;
		}
		j->s++;
		if (json_escape(j) < 0)
			return -EINVAL;
	}
	j->s++;
	*j->out++ = 0;
	return 0;
}

static int json_add(struct json *j, const char *value)
{
	struct keyval *k = j->k;
	size_t n = strlen(j->key) + 1;

	for (unsigned i = 0; i < k->n; i++)
		if (!strcmp(k->kv[i].key, j->key))
			return json_bad(j, "a key for the second time");
	if (k->n == KEYVAL_MAX)
		return json_bad(j, "too many properties");
	k->kv[k->n].key = memcpy(j->out, j->key, n);
	k->kv[k->n++].val = (char *)value;
	j->out += n;
	return 0;
}

static int json_scalar(struct json *j)
{
	static const char *const words[][2] = { { "true", "on" },
						{ "false", "off" },
						{ "null", "" } };
	size_t n = strspn(j->s, "abcdefghijklmnopqrstuvwxyz0123456789+-.E");
	char *v = j->out;

	for (unsigned i = 0; i < 3; i++)
		if (n == strlen(words[i][0]) && !strncmp(j->s, words[i][0], n)) {
			j->s += n;
			return json_add(j, words[i][1]);
		}
	if (!n || !strchr("-0123456789", *j->s))
		return json_bad(j,
				*j->s == '[' ? "arrays are not supported" : "a value is expected");
	memcpy(v, j->s, n);
	v[n] = 0;
	j->out += n + 1;
	j->s += n;
	return json_add(j, v);
}

static int json_object(struct json *j, unsigned depth);

/* The value behind a key, which is in j->key. */
static int json_value(struct json *j, unsigned depth)
{
	char *v;

	json_space(j);
	if (*j->s == '{')
		return json_object(j, depth + 1);
	if (*j->s != '"')
		return json_scalar(j);
	return json_string(j, &v) < 0 ? -EINVAL : json_add(j, v);
}

static int json_object(struct json *j, unsigned depth)
{
	size_t at = strlen(j->key);

	if (depth > JSON_DEPTH)
		return json_bad(j, "objects are nested too deeply");
	j->s++; /* the brace */
	json_space(j);
	if (*j->s == '}') {
		j->s++;
		return 0;
	}
	for (;;) {
		char *name, *mark = j->out;

		json_space(j);
		if (json_string(j, &name) < 0)
			return -EINVAL;
		if (at + strlen(name) + 2 > sizeof(j->key))
			return json_bad(j, "a key is too long");
		if (at)
			j->key[at] = '.';
		strcpy(j->key + at + !!at, name);
		j->out = mark; /* json_add copies it again */
		json_space(j);
		if (*j->s != ':')
			return json_bad(j, "':' is expected");
		j->s++;
		if (json_value(j, depth) < 0)
			return -EINVAL;
		j->key[at] = 0;
		json_space(j);
		if (*j->s == '}')
			break;
		if (*j->s != ',')
			return json_bad(j, "',' or '}' is expected");
		j->s++;
	}
	j->s++;
	return 0;
}

int keyval_parse_json(struct keyval *k, const char *option, const char *text, struct err *e)
{
	/* a key and a value for each entry; each key is at most JSON_KEY, the values are in text */
	size_t cap = (size_t)KEYVAL_MAX * (JSON_KEY + 1) + 2 * strlen(text) + JSON_KEY + 16;
	struct json j = { .k = k, .s = text, .text = text, .e = e };
	int r;

	*k = (struct keyval){ .option = option, .buf = malloc(cap) };
	if (!k->buf)
		return err_set(e, ENOMEM, "out of memory");
	j.out = k->buf;
	json_space(&j);
	r = *j.s == '{' ? json_object(&j, 1) : json_bad(&j, "'{' is expected");
	if (r == 0) {
		json_space(&j);
		if (*j.s)
			r = json_bad(&j, "nothing may follow the object");
	}
	if (r < 0)
		keyval_free(k);
	return r;
}
