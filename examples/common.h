/*
 * What both examples share: the -accel option and a way to die with one line.
 *
 * References: none. Threads: main's.
 */
#pragma once
#include <libkvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXAMPLE_SKIP 77 /* the test runner's "skipped" */

__attribute__((noreturn, format(printf, 2, 3))) static void example_die(int status, const char *fmt,
									...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

/* Open the engine that "-accel kvm|soft|auto" names; nothing means auto. */
static struct libkvm *example_open(int argc, char **argv)
{
	struct libkvm_options opt = { .engine = LIBKVM_AUTO };
	struct libkvm_err e = { 0 };
	struct libkvm *k;

	if (argc == 3 && !strcmp(argv[1], "-accel")) {
		if (!strcmp(argv[2], "kvm"))
			opt.engine = LIBKVM_HOST;
		else if (!strcmp(argv[2], "soft"))
			opt.engine = LIBKVM_SOFT;
		else if (strcmp(argv[2], "auto"))
			example_die(1, "-accel %s: kvm, soft or auto", argv[2]);
	} else if (argc != 1) {
		example_die(1, "usage: %s [-accel kvm|soft|auto]", argv[0]);
	}
	if (libkvm_open(&opt, &k, &e))
		example_die(opt.engine == LIBKVM_HOST ? EXAMPLE_SKIP : 1, "%s", e.msg);
	fprintf(stderr, "engine: %s (%s)\n", libkvm_engine_kind(k) == LIBKVM_HOST ? "kvm" : "soft",
		libkvm_engine_reason(k));
	return k;
}

/* Guest memory at address 0, with the program copied to start. */
static uint8_t *example_memory(struct libkvm_vm *vm, size_t size, uint64_t start, const void *code,
			       size_t len)
{
	uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int r;

	if (ram == MAP_FAILED)
		example_die(1, "no memory for the guest");
	memcpy(ram + start, code, len);
	r = libkvm_mem_add(vm, 0, size, ram, 0);
	if (r)
		example_die(1, "guest memory: %s", strerror(-r));
	return ram;
}
