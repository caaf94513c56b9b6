/* JSON on standard output, indented as qemu-img does it. Threads: one. */
#include <stdio.h>

#include "img/img.h"

void json_quote(const char *s)
{
	putchar('"');
	for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
		unsigned n = *p >= 0xf0 && *p < 0xf5 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc2 ? 2 : 1;

		if (*p == '"' || *p == '\\') {
			printf("\\%c", *p);
		} else if (*p < 0x20 || *p == 0x7f) {
			printf("\\u%04x", *p);
		} else if (*p < 0x80) {
			putchar(*p);
		} else {
			unsigned k = 1;

			while (k < n && (p[k] & 0xc0) == 0x80)
				k++;
			if (n == 1 || *p >= 0xf5 || k < n) {
				printf("\\ufffd");
			} else {
				printf("%.*s", (int)n, (const char *)p);
				p += n - 1;
			}
		}
	}
	putchar('"');
}

static void json_item(struct json *j, const char *key)
{
	if (j->any[j->depth])
		putchar(',');
	if (j->depth)
		printf("\n%*s", (int)j->depth * 4, "");
	j->any[j->depth] = true;
	if (key) {
		json_quote(key);
		printf(": ");
	}
}

void json_open(struct json *j, const char *key, char bracket)
{
	json_item(j, key);
	putchar(bracket);
	j->any[++j->depth] = false;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (j->any[j->depth + 1])
		printf("\n%*s", (int)j->depth * 4, "");
	putchar(bracket);
	if (!j->depth)
		putchar('\n');
}

void json_str(struct json *j, const char *key, const char *value)
{
	json_item(j, key);
	json_quote(value);
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
	json_item(j, key);
	printf("%llu", (unsigned long long)value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	json_item(j, key);
	printf(value ? "true" : "false");
}
