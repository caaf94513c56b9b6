/*
 * See state.h. All loops go over elements by index, whatever the layout of a row is; only
 * st_at() knows about groups and strides.
 */
#include "core/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct field state_no_fields[] = { { 0 } };

static const struct {
	uint8_t size;
	const char *name;
} st_kinds[] = {
	[ST_END] = { 0, "none" }, [ST_BOOL] = { 1, "bool" }, [ST_U8] = { 1, "u8" },
	[ST_U16] = { 2, "u16" },  [ST_U32] = { 4, "u32" },   [ST_U64] = { 8, "u64" },
};

size_t st_size(enum st_kind k)
{
	return st_kinds[k].size;
}

const char *st_name(enum st_kind k)
{
	return st_kinds[k].name;
}

/* Offset of element i in the state struct. */
static size_t st_at(const struct field *f, uint32_t i)
{
	uint32_t inner = f->inner ? f->inner : f->n;

	return f->off + (size_t)(i / inner) * f->stride + (i % inner) * st_size(f->kind);
}

uint64_t state_get(const struct field *f, const void *s, uint32_t i)
{
	const uint8_t *p = (const uint8_t *)s + st_at(f, i);
	uint64_t v = 0;

	memcpy(&v, p, st_size(f->kind)); /* little-endian host */
	return v;
}

void state_put(const struct field *f, void *s, uint32_t i, uint64_t v)
{
	if (f->kind == ST_BOOL)
		v = v != 0;
	memcpy((uint8_t *)s + st_at(f, i), &v, st_size(f->kind));
}

static void le_put(uint8_t *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t le_get(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

/* --- the table itself --- */

/* Count in cover[] how many rows describe each byte. False: a row leaves the struct. */
static bool state_cover(const struct state_desc *sd, uint8_t *cover)
{
	for (const struct field *f = sd->fields; f->kind != ST_END; f++)
		for (uint32_t i = 0; i < f->n; i++)
			for (size_t b = 0; b < st_size(f->kind); b++) {
				if (st_at(f, i) + b >= sd->size)
					return false;
				cover[st_at(f, i) + b] += cover[st_at(f, i) + b] < 2;
			}
	return true;
}

long state_hole(const struct state_desc *sd)
{
	uint8_t *cover = calloc(1, sd->size + 1u);
	long hole = -1;

	if (!cover)
		return 0;
	state_cover(sd, cover);
	for (uint32_t b = 0; b < sd->size && hole < 0; b++)
		if (!cover[b])
			hole = b;
	free(cover);
	return hole;
}

int state_check(const struct state_desc *sd, struct err *e)
{
	long hole;
	uint8_t *cover;
	size_t rows = 0;
	int rc = 0;

	if (!sd->fields)
		return err_set(e, EINVAL, "no state table (say STATE_NONE if there is no state)");
	if (!sd->version)
		return err_set(e, EINVAL, "state version is 0");
	for (const struct field *f = sd->fields; f->kind != ST_END; f++, rows++) {
		if (f->kind > ST_U64 || !f->n || strlen(f->name) > 255 || f->since > sd->version)
			return err_set(e, EINVAL, "row %s is not sound", f->name);
		for (const struct field *g = sd->fields; g != f; g++)
			if (!strcmp(g->name, f->name))
				return err_set(e, EINVAL, "two rows are named %s", f->name);
	}
	if (rows > STATE_MAX_FIELDS)
		return err_set(e, EINVAL, "%zu rows are too many", rows);
	cover = calloc(1, sd->size + 1u);
	if (!cover)
		return err_set(e, ENOMEM, "out of memory");
	if (!state_cover(sd, cover))
		rc = err_set(e, EINVAL, "a row leaves the struct");
	for (uint32_t b = 0; b < sd->size && !rc; b++)
		if (cover[b] > 1)
			rc = err_set(e, EINVAL, "byte %u is in two rows", b);
	free(cover);
	if (!rc && (hole = state_hole(sd)) >= 0)
		rc = err_set(e, EINVAL, "byte %ld is in no row", hole);
	return rc;
}

void state_schema(const struct state_desc *sd, const char *name, FILE *out)
{
	for (const struct field *f = sd->fields; f->kind != ST_END; f++)
		fprintf(out, "%s %u %s %s %u %u %" PRIu64 "\n", name, sd->version, f->name,
			st_name(f->kind), f->n, f->since, f->lim);
	if (sd->fields->kind == ST_END)
		fprintf(out, "%s %u -\n", name, sd->version);
}

/* --- save --- */

size_t state_save_size(const struct state_desc *sd)
{
	size_t n = 2;

	for (const struct field *f = sd->fields; f->kind != ST_END; f++)
		n += 1 + strlen(f->name) + 5 + f->n * st_size(f->kind);
	return n;
}

size_t state_save(const struct state_desc *sd, const void *dev, uint8_t *buf, size_t cap)
{
	const uint8_t *s = (const uint8_t *)dev + sd->off;
	size_t at = 2;

	if (cap < state_save_size(sd))
		return 0;
	le_put(buf, sd->version, 2);
	for (const struct field *f = sd->fields; f->kind != ST_END; f++) {
		size_t nl = strlen(f->name), sz = st_size(f->kind);

		buf[at++] = (uint8_t)nl;
		memcpy(buf + at, f->name, nl);
		at += nl;
		buf[at++] = (uint8_t)f->kind;
		le_put(buf + at, f->n, 4);
		at += 4;
		for (uint32_t i = 0; i < f->n; i++, at += sz)
			le_put(buf + at, state_get(f, s, i), sz);
	}
	return at;
}

/* --- load --- */

/* One entry of an untrusted section. */
struct entry {
	const uint8_t *name, *data;
	size_t name_len;
	uint32_t n;
	enum st_kind kind;
};

/* Parse the entry at *at and step over it. False: the section ends early or lies about a size. */
static bool entry_next(const uint8_t *buf, size_t len, size_t *at, struct entry *en)
{
	size_t left = len - *at, head, bytes;

	if (left < 1)
		return false;
	head = 1 + (size_t)buf[*at] + 5;
	if (left < head)
		return false;
	en->name_len = buf[*at];
	en->name = buf + *at + 1;
	en->data = buf + *at + head;
	if (en->data[-5] == ST_END || en->data[-5] > ST_U64)
		return false;
	en->kind = (enum st_kind)en->data[-5];
	en->n = (uint32_t)le_get(en->data - 4, 4);
	bytes = (size_t)en->n * st_size(en->kind);
	if (left - head < bytes)
		return false;
	*at += head + bytes;
	return true;
}

/*
 * Where each row's elements are in the section. Every entry must be well formed and described, and
 * each row is taken at most once.
 */
static int state_parse(const struct state_desc *sd, const uint8_t *buf, size_t len,
		       const uint8_t **row, struct err *e)
{
	struct entry en;
	size_t at = 2, seen = 0;

	for (; at < len; seen++) {
		size_t r = 0;
		const struct field *f = sd->fields;

		if (!entry_next(buf, len, &at, &en))
			return err_set(e, EINVAL, "entry %zu is malformed", seen);
		while (f->kind != ST_END && (en.name_len != strlen(f->name) ||
					     memcmp(en.name, f->name, en.name_len) != 0))
			f++, r++;
		if (r >= STATE_MAX_FIELDS)
			return err_set(e, ENOTSUP, "the table has too many rows");
		if (f->kind == ST_END)
			return err_set(e, EINVAL, "entry %zu is not in the table", seen);
		if (f->kind != en.kind || f->n != en.n)
			return err_set(e, EINVAL, "field %s is %s[%u] here, not %s[%u]", f->name,
				       st_name((enum st_kind)f->kind), f->n, st_name(en.kind),
				       en.n);
		if (row[r])
			return err_set(e, EINVAL, "field %s comes twice", f->name);
		row[r] = en.data;
	}
	return 0;
}

int state_load(const struct state_desc *sd, void *dev, const uint8_t *buf, size_t len,
	       struct err *e)
{
	uint8_t *s = (uint8_t *)dev + sd->off;
	const uint8_t *row[STATE_MAX_FIELDS] = { 0 };
	uint64_t version;
	int rc;

	if (len < 2)
		return err_set(e, EINVAL, "the section is cut off");
	version = le_get(buf, 2);
	if (!version || version > sd->version)
		return err_set(e, EINVAL, "the section has version %u, known are 1 to %u",
			       (unsigned)version, sd->version);
	if ((rc = state_parse(sd, buf, len, row, e)))
		return rc;
	for (int commit = 0; commit < 2; commit++) /* all checked before any byte changes */
		for (const struct field *f = sd->fields; f->kind != ST_END; f++) {
			const uint8_t *p = row[f - sd->fields];
			size_t sz = st_size(f->kind);
			uint64_t lim = f->kind == ST_BOOL ? 2 : f->lim;

			if (!p && f->since > version)
				continue; /* keeps its reset value */
			if (!p)
				return err_set(e, EINVAL, "field %s is missing", f->name);
			for (uint32_t i = 0; i < f->n; i++) {
				uint64_t v = le_get(p + i * sz, sz);

				if (lim && v >= lim)
					return err_set(e, ERANGE,
						       "field %s[%u]: %" PRIu64 " >= %" PRIu64,
						       f->name, i, v, lim);
				if (commit)
					state_put(f, s, i, v);
			}
		}
	return 0;
}

/* --- for people --- */

void state_print(const struct state_desc *sd, const void *dev, FILE *out)
{
	const uint8_t *s = (const uint8_t *)dev + sd->off;

	for (const struct field *f = sd->fields; f->kind != ST_END; f++) {
		int digits = (int)(2 * st_size(f->kind));

		fprintf(out, "  %-16s", f->name);
		for (uint32_t i = 0, run; i < f->n; i += run) {
			uint64_t v = state_get(f, s, i);

			for (run = 1; i + run < f->n && state_get(f, s, i + run) == v; run++)
				;
			if (run < 4)
				run = 1;
			fprintf(out, " %0*" PRIx64, digits, v);
			if (run > 1)
				fprintf(out, "*%u", run);
		}
		fputc('\n', out);
	}
}

unsigned state_diff(const struct state_desc *sd, const void *dev_a, const void *dev_b, FILE *out)
{
	const uint8_t *a = (const uint8_t *)dev_a + sd->off;
	const uint8_t *b = (const uint8_t *)dev_b + sd->off;
	unsigned differ = 0;

	for (const struct field *f = sd->fields; f->kind != ST_END; f++)
		for (uint32_t i = 0; i < f->n; i++) {
			uint64_t x = state_get(f, a, i), y = state_get(f, b, i);

			if (x == y)
				continue;
			differ++;
			if (out)
				fprintf(out, "  %s[%u]: %" PRIx64 " / %" PRIx64 "\n", f->name, i, x,
					y);
			break;
		}
	return differ;
}
