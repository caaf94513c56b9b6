/*
 * One description of a device's guest-visible state. Save, load, compare, the monitor's `info`, the
 * schema golden file and the fuzzer all walk the same table.
 *
 * A section is: u16 version, then for each field u8 name length, name, u8 kind, u32 element count,
 * the elements; all little-endian. Fields are found by name. A section is hostile input: an unknown
 * or repeated name, a wrong kind or count, a value at or over .lim, a bool that is not 0 or 1, or a
 * cut-off end is an error, and nothing has been changed then.
 * Threads: pure functions over the caller's memory; a device's under the device lock.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum st_kind { ST_END, ST_BOOL, ST_U8, ST_U16, ST_U32, ST_U64 };

#define STATE_MAX_FIELDS 256

struct field {
	const char *name;
	uint16_t kind, since; /* since: first state version that has it (0, 1: all) */
	uint32_t off, n;      /* offset of the first element in the state struct; element count */
	uint32_t inner;       /* so many elements are contiguous, 0: all; then ... */
	uint32_t stride;      /* ... the next group starts this many bytes after the last */
	uint64_t lim;         /* load rejects values >= lim; 0: any value */
};

struct state_desc {
	const struct field *fields; /* ends with kind ST_END; NULL is a mistake, see STATE_NONE */
	uint32_t off, size;         /* of the state struct inside the device */
	uint16_t version;
};

/* clang-format off */
/* The kind comes from the member's own type: a pointer, a float or a signed int does not compile. */
#define ST_KIND(x) _Generic((x), bool: ST_BOOL, uint8_t: ST_U8, \
	uint16_t: ST_U16, uint32_t: ST_U32, uint64_t: ST_U64)
#define ST_M(T, f)        (((T *)0)->f)
#define ST_LEN(a)         (sizeof(a) / sizeof((a)[0]))

/* A scalar member. Further arguments are designated initializers: .lim = 16, .since = 2. */
#define ST(T, f, ...)     { .name = #f, .kind = ST_KIND(ST_M(T, f)), \
	.off = offsetof(T, f), .n = 1, ##__VA_ARGS__ }

/* An array of scalars. */
#define ST_ARR(T, f, ...) { .name = #f, .kind = ST_KIND(ST_M(T, f)[0]), .off = offsetof(T, f), \
	.n = ST_LEN(ST_M(T, f)), ##__VA_ARGS__ }

/* Member f of every element of the array of structs a: one row, named "a.f". */
#define ST_SUB(T, a, f, ...) { .name = #a "." #f, .kind = ST_KIND(ST_M(T, a)[0].f), \
	.off = offsetof(T, a[0].f), .n = ST_LEN(ST_M(T, a)), .inner = 1, \
	.stride = sizeof(ST_M(T, a)[0]), ##__VA_ARGS__ }

/* The same for a member that is an array of scalars. */
#define ST_SUB_ARR(T, a, f, ...) { .name = #a "." #f, .kind = ST_KIND(ST_M(T, a)[0].f[0]), \
	.off = offsetof(T, a[0].f[0]), .n = ST_LEN(ST_M(T, a)) * ST_LEN(ST_M(T, a)[0].f), \
	.inner = ST_LEN(ST_M(T, a)[0].f), .stride = sizeof(ST_M(T, a)[0]), ##__VA_ARGS__ }

/* Member m of device struct D is described by tab, at version v. */
#define STATE_OF(D, m, tab, v) { (tab), offsetof(D, m), sizeof(((D *)0)->m), (v) }

/* A device that the guest can observe nothing in must say so. */
#define STATE_NONE { state_no_fields, 0, 0, 1 }
/* clang-format on */

extern const struct field state_no_fields[];

size_t st_size(enum st_kind k);      /* bytes of one element */
const char *st_name(enum st_kind k); /* "bool", "u8", ... */

/* Offset of the first byte that no row covers (padding, too), or -1. */
long state_hole(const struct state_desc *sd);

/*
 * Is the table itself sound: no hole, no byte in two rows or past the end, names unique and short,
 * version not 0, at most STATE_MAX_FIELDS rows. For tests; 0 or -EINVAL.
 */
int state_check(const struct state_desc *sd, struct err *e) must_check;

/* Exact size of a saved section in bytes. */
size_t state_save_size(const struct state_desc *sd);

/* Write the section of the device at dev to buf. Bytes written, 0 if cap is too small. */
size_t state_save(const struct state_desc *sd, const void *dev, uint8_t *buf, size_t cap);

/* Take a section; all or nothing. Fields newer than the section's version keep their value. */
int state_load(const struct state_desc *sd, void *dev, const uint8_t *buf, size_t len,
	       struct err *e) must_check;

/* For people: one line a field; runs of equal elements are shortened. */
void state_print(const struct state_desc *sd, const void *dev, FILE *out);

/* Number of fields that differ; each is printed to out (may be NULL) with its first difference. */
unsigned state_diff(const struct state_desc *sd, const void *dev_a, const void *dev_b, FILE *out);

/* The schema, one line a field: "NAME VERSION field kind count since lim". For the golden file. */
void state_schema(const struct state_desc *sd, const char *name, FILE *out);

/* Element i of a field of the state struct at s (not the device): generic access for tools. */
uint64_t state_get(const struct field *f, const void *s, uint32_t i);
void state_put(const struct field *f, void *s, uint32_t i, uint64_t v);
