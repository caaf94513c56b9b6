/*
 * Console, memory functions the compiler calls, and main(): TAP on port 0x403, status on port
 * 0x501. The port is not the usual 0xe9, where pc-testdev has its byte
 * port, nor 0x402, where SeaBIOS talks.
 */
#include "cpu.h"

enum { CONSOLE_PORT = 0x403, EXIT_PORT = 0x501 };

extern const struct test __start_tests[], __stop_tests[];
extern u8 __real_load[], __real_start[], __real_end[];
void guest_main(void);
void *memset(void *p, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

volatile bool test_failed;
static const char *skip_reason;
static const char *test_name;
static unsigned test_number;

void *memset(void *p, int c, size_t n)
{
	void *d = p;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

void *guest_memset(void *p, int c, size_t n)
{
	return memset(p, c, n);
}

void *guest_memcpy(void *d, const void *s, size_t n)
{
	return memcpy(d, s, n);
}

int guest_memcmp(const void *a, const void *b, size_t n)
{
	return memcmp(a, b, n);
}

static void guest_putc(char c)
{
	outb(CONSOLE_PORT, (u8)c);
}

static void guest_puts(const char *s)
{
	while (*s)
		guest_putc(*s++);
}

static void guest_hex(u64 v)
{
	int shift = 60;

	while (shift && !(v >> shift & 0xf))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		guest_putc("0123456789abcdef"[v >> shift & 0xf]);
}

static void guest_dec(ulong v)
{
	char buf[24];
	int i = 23;

	buf[i] = 0;
	do {
		buf[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	guest_puts(buf + i);
}

/* %s %u %lu %x %lx %llx: no widths. */
void guest_printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		unsigned l = 0;

		if (*fmt != '%') {
			guest_putc(*fmt);
			continue;
		}
		while (*++fmt == 'l')
			l++;
		if (*fmt == 's')
			guest_puts(va_arg(ap, const char *));
		else if (*fmt == 'u')
			guest_dec(l ? va_arg(ap, ulong) : va_arg(ap, unsigned));
		else if (*fmt == 'x' && l == 2)
			guest_hex(va_arg(ap, u64));
		else if (*fmt == 'x')
			guest_hex(l ? va_arg(ap, ulong) : va_arg(ap, unsigned));
		else
			guest_putc(*fmt);
	}
	va_end(ap);
}

void test_fail(const char *file, int line, const char *text, u64 a, u64 b, bool values)
{
	const char *base = file;

	for (const char *p = file; *p; p++)
		if (*p == '/')
			base = p + 1;
	if (!test_failed)
		guest_printf("not ok %u - %s: ", test_number, test_name);
	else
		guest_printf("# also ");
	test_failed = true;
	guest_printf("%s:%u ", base, (unsigned)line);
	for (; *text; text++)
		guest_putc(*text == '#' ? '.' : *text); /* '#' starts a TAP directive */
	if (values)
		guest_printf(" (%llx, %llx)", a, b);
	guest_printf("\n");
}

void test_skip(const char *why)
{
	skip_reason = why;
}

bool cmdline_has(const char *word)
{
	const u32 *info = (const u32 *)(ulong)boot_info[1];
	const char *s;

	if (boot_info[0] != 0x2badb002 || !(info[0] & 4))
		return false;
	s = (const char *)(ulong)info[4];
	for (; *s; s++) {
		const char *p = s, *w = word;

		while (*w && *p == *w)
			p++, w++;
		if (!*w)
			return true;
	}
	return false;
}

/* A word "skip=NAME" in the command line: this test would end the run, as on a host with a bug. */
static bool test_skipped(const char *name)
{
	char word[96] = "skip=";
	size_t n = 5;

	while (*name && n < sizeof(word) - 2)
		word[n++] = *name++;
	word[n] = ' ';
	return cmdline_has(word);
}

/* "only=TEXT" at the end of the command line: names that contain TEXT; an empty TEXT is all. */
static bool test_selected(const char *name)
{
	const u32 *info = (const u32 *)(ulong)boot_info[1];
	const char *s = (const char *)(ulong)info[4], *only;

	if (!cmdline_has("only="))
		return true;
	while (guest_memcmp(s, "only=", 5))
		s++;
	only = s + 5;
	for (;; name++) {
		const char *p = name, *w = only;

		while (*w && *w != ' ' && *p == *w)
			p++, w++;
		if (!*w || *w == ' ')
			return true;
		if (!*name)
			return false;
	}
}

static void test_one(const struct test *t)
{
	struct trap outer;

	test_name = t->name;
	test_failed = false;
	skip_reason = NULL;
	guest_printf("# %s\n", t->name);
	CATCH(outer, t->run());
	cpu_self()->level = 0;
	if (outer.vec >= 0) {
		guest_printf(test_failed ? "# also " : "not ok %u - %s: ", test_number, t->name);
		guest_printf("unexpected vector %lu error %lx at %lx:%lx cr2 %lx\n", outer.vec,
			     outer.err, outer.cs, outer.ip, outer.cr2);
		test_failed = true;
	} else if (!test_failed) {
		guest_printf("ok %u - %s", test_number, t->name);
		if (skip_reason)
			guest_printf(" # SKIP %s", skip_reason);
		guest_printf("\n");
	}
}

void guest_main(void)
{
	unsigned failed = 0;

	memcpy(__real_start, __real_load, (size_t)(__real_end - __real_start));
	trap_init(0);
	guest_printf("1..%u\n", (unsigned)(__stop_tests - __start_tests));
	for (const struct test *t = __start_tests; t < __stop_tests; t++) {
		test_number++;
		if (test_skipped(t->name) || !test_selected(t->name)) {
			guest_printf("ok %u - %s # SKIP not asked for\n", test_number, t->name);
			continue;
		}
		test_one(t);
		failed += test_failed;
	}
	guest_printf("# done, %u failed\n", failed);
	outb(EXIT_PORT, failed ? 1 : 0);
	for (;;)
		__asm__ volatile("cli\n\thlt");
}
