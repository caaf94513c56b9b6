/* AML writer; see aml.h. Numbers in comments are opcodes' names in [ACPI 20.3]. */
#include "firmware/aml.h"

#include <string.h>

static void aml_put(struct aml *a, const void *p, size_t n)
{
	if (n > a->cap - a->len) {
		a->bad = true;
		return;
	}
	memcpy(a->buf + a->len, p, n);
	a->len += n;
}

static void aml_byte(struct aml *a, uint8_t v)
{
	aml_put(a, &v, 1);
}

void aml_init(struct aml *a, void *buf, size_t cap)
{
	*a = (struct aml){ .buf = buf, .cap = cap };
}

static void aml_open(struct aml *a)
{
	if (a->depth == AML_DEPTH) {
		a->bad = true;
		return;
	}
	a->open[a->depth++] = a->len;
}

void aml_end(struct aml *a)
{
	size_t at, body, total;
	uint8_t lead[4];
	unsigned n;

	if (!a->depth || a->bad) {
		a->bad = true;
		return;
	}
	at = a->open[--a->depth];
	body = a->len - at;
	/* PkgLength counts its own bytes: 1 for up to 63, 2 up to 4095, 3 up to 1 MiB. */
	n = body + 1 < 64 ? 1 : body + 2 < 4096 ? 2 : 3;
	total = body + n;
	if (total >= 1 << 20 || n > a->cap - a->len) {
		a->bad = true;
		return;
	}
	if (n == 1) {
		lead[0] = (uint8_t)total;
	} else {
		lead[0] = (uint8_t)((n - 1) << 6 | (total & 15));
		lead[1] = (uint8_t)(total >> 4);
		lead[2] = (uint8_t)(total >> 12);
	}
	memmove(a->buf + at + n, a->buf + at, body);
	memcpy(a->buf + at, lead, n);
	a->len += n;
}

static void aml_nameseg(struct aml *a, const char *name)
{
	char seg[4] = { '_', '_', '_', '_' };
	size_t n;

	if (*name == '\\')
		aml_byte(a, (uint8_t)*name++);
	n = strnlen(name, 4);
	if (!n) { /* the root itself: an empty path */
		aml_byte(a, 0);
		return;
	}
	memcpy(seg, name, n);
	aml_put(a, seg, 4);
}

void aml_scope(struct aml *a, const char *name)
{
	aml_byte(a, 0x10); /* ScopeOp */
	aml_open(a);
	aml_nameseg(a, name);
}

void aml_device(struct aml *a, const char *name)
{
	aml_byte(a, 0x5b); /* ExtOpPrefix */
	aml_byte(a, 0x82); /* DeviceOp */
	aml_open(a);
	aml_nameseg(a, name);
}

void aml_package(struct aml *a, uint8_t count)
{
	aml_byte(a, 0x12); /* PackageOp */
	aml_open(a);
	aml_byte(a, count);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, 0x08); /* NameOp */
	aml_nameseg(a, name);
}

void aml_method(struct aml *a, const char *name, uint8_t args)
{
	aml_byte(a, 0x14); /* MethodOp */
	aml_open(a);
	aml_nameseg(a, name);
	aml_byte(a, args & 7);
}

void aml_if(struct aml *a)
{
	aml_byte(a, 0xa0); /* IfOp */
	aml_open(a);
}

void aml_return(struct aml *a)
{
	aml_byte(a, 0xa4); /* ReturnOp */
}

void aml_ref(struct aml *a, const char *name)
{
	aml_nameseg(a, name);
}

void aml_store_arg0(struct aml *a, const char *target)
{
	aml_put(a, "\x70\x68", 2); /* StoreOp, Arg0Op */
	aml_nameseg(a, target);
}

void aml_buffer(struct aml *a, const void *bytes, size_t n)
{
	aml_byte(a, 0x11); /* BufferOp */
	aml_open(a);
	aml_int(a, n);
	aml_put(a, bytes, n);
	aml_end(a);
}

void aml_int(struct aml *a, uint64_t v)
{
	/* ZeroOp, OneOp, then the shortest of BytePrefix, WordPrefix, DWordPrefix, QWordPrefix. */
	static const struct {
		uint8_t op, bytes;
	} form[] = { { 0x0a, 1 }, { 0x0b, 2 }, { 0x0c, 4 }, { 0x0e, 8 } };
	unsigned i = v < 1ull << 8 ? 0 : v < 1ull << 16 ? 1 : v < 1ull << 32 ? 2 : 3;

	if (v < 2) {
		aml_byte(a, (uint8_t)v);
		return;
	}
	aml_byte(a, form[i].op);
	aml_put(a, &v, form[i].bytes);
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, 0x0d); /* StringPrefix */
	aml_put(a, s, strlen(s) + 1);
}

static unsigned aml_hex(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10) & 15;
}

void aml_eisaid(struct aml *a, const char *id)
{
	uint8_t b[4];

	if (strlen(id) != 7) {
		a->bad = true;
		return;
	}
	b[0] = (uint8_t)((id[0] & 0x1f) << 2 | (id[1] & 0x1f) >> 3);
	b[1] = (uint8_t)((id[1] & 0x07) << 5 | (id[2] & 0x1f));
	b[2] = (uint8_t)(aml_hex(id[3]) << 4 | aml_hex(id[4]));
	b[3] = (uint8_t)(aml_hex(id[5]) << 4 | aml_hex(id[6]));
	aml_byte(a, 0x0c); /* DWordPrefix */
	aml_put(a, b, 4);
}

void aml_crs(struct aml *a, const struct aml_io *io, unsigned nio, unsigned irq)
{
	uint8_t res[64];
	size_t n = 0;

	aml_name(a, "_CRS");
	for (unsigned i = 0; i < nio && n + 8 < sizeof(res); i++) {
		/* I/O port descriptor, 16-bit decode, minimum = maximum [ACPI 6.4.2.5] */
		const uint8_t d[8] = { 0x47,
				       1,
				       (uint8_t)io[i].base,
				       (uint8_t)(io[i].base >> 8),
				       (uint8_t)io[i].base,
				       (uint8_t)(io[i].base >> 8),
				       1,
				       io[i].len };

		memcpy(res + n, d, sizeof(d));
		n += sizeof(d);
	}
	if (irq && irq < 16) {
		/* IRQ descriptor without flags: edge, active high, exclusive [ACPI 6.4.2.1] */
		res[n++] = 0x22;
		res[n++] = (uint8_t)(1u << irq);
		res[n++] = (uint8_t)(1u << irq >> 8);
	}
	res[n++] = 0x79; /* end tag, checksum 0: not used */
	res[n++] = 0;
	aml_buffer(a, res, n);
}

bool aml_ok(const struct aml *a)
{
	return !a->bad && !a->depth;
}
