/*
 * libkvm on the software engine: slots, loop, kick, probe; and the choice of an engine.
 * References: libkvm.h.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above */
#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "libkvm/engine.h"

struct lt {
	struct libkvm *k;
	struct libkvm_vm *vm;
	struct libkvm_vcpu *c;
	uint8_t *ram;
};

static void lt_open(struct lt *t, const void *code, size_t len)
{
	struct libkvm_options o = { .engine = LIBKVM_SOFT };
	struct kvm_regs r = { .rip = 0x1000, .rflags = 2 };
	struct kvm_sregs s;

	assert_int_equal(libkvm_open(&o, &t->k, NULL), 0);
	assert_int_equal(libkvm_engine_kind(t->k), LIBKVM_SOFT);
	assert_int_equal(libkvm_vm_create(t->k, &t->vm, NULL), 0);
	t->ram = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(t->ram + 0x1000, code, len);
	assert_int_equal(libkvm_mem_add(t->vm, 0, 0x10000, t->ram, 0), 0);
	assert_int_equal(libkvm_vcpu_create(t->vm, 0, &t->c, NULL), 0);
	assert_int_equal(libkvm_get_sregs(t->c, &s), 0);
	s.cs.base = 0;
	s.cs.selector = 0;
	assert_int_equal(libkvm_set_sregs(t->c, &s), 0);
	assert_int_equal(libkvm_set_regs(t->c, &r), 0);
}

static void lt_close(struct lt *t)
{
	libkvm_vcpu_close(t->c);
	libkvm_vm_close(t->vm);
	libkvm_close(t->k);
	munmap(t->ram, 0x10000);
}

static void test_memory(void **state)
{
	uint64_t map[1];
	struct lt t;

	lt_open(&t, "\xf4", 1);
	assert_ptr_equal(libkvm_mem_ptr(t.vm, 0x1234, 16), t.ram + 0x1234);
	assert_null(libkvm_mem_ptr(t.vm, 0xfff0, 17));
	assert_null(libkvm_mem_ptr(t.vm, 0x10000, 1));
	assert_null(libkvm_mem_ptr(t.vm, 0x10, ~0ull));
	assert_int_equal(libkvm_mem_add(t.vm, 0x8000, 0x1000, t.ram, 0), -EEXIST);
	assert_int_equal(libkvm_mem_add(t.vm, 0x20000, 0, t.ram, 0), -EINVAL);
	assert_int_equal(libkvm_mem_add(t.vm, 0x20000, 0x1000, t.ram + 1, 0), -EINVAL);
	assert_int_equal(libkvm_mem_add(t.vm, 0x20000, 0x1000, t.ram, 0), 0);
	assert_int_equal(libkvm_mem_remove(t.vm, 0x20000, 0x2000), -ENOENT);
	assert_int_equal(libkvm_mem_remove(t.vm, 0x20000, 0x1000), 0);
	assert_int_equal(libkvm_mem_remove(t.vm, 0x20000, 0x1000), -ENOENT);
	assert_int_equal(libkvm_mem_dirty_log(t.vm, 0, map), -ENOENT);
	assert_int_equal(libkvm_mem_set_flags(t.vm, 0, KVM_MEM_LOG_DIRTY_PAGES), 0);
	libkvm_mem_written(t.vm, 0x3000, 1);
	assert_int_equal(libkvm_mem_dirty_log(t.vm, 0, map), 0);
	assert_int_equal(map[0], 8);
	/* every slot of the engine can be used, and no more */
	for (unsigned i = 1; i < t.vm->nslots; i++)
		assert_int_equal(libkvm_mem_add(t.vm, 0x100000 + i * 0x1000, 0x1000, t.ram, 0), 0);
	assert_int_equal(libkvm_mem_add(t.vm, 0x80000, 0x1000, t.ram, 0), -ENOSPC);
	lt_close(&t);
}

static void test_msr(void **state)
{
	uint64_t v = 0;
	struct lt t;

	lt_open(&t, "\xf4", 1);
	assert_int_equal(libkvm_set_msr(t.c, 0xc0000082, 0x1234), 0);
	assert_int_equal(libkvm_get_msr(t.c, 0xc0000082, &v), 0);
	assert_int_equal(v, 0x1234);
	assert_int_equal(libkvm_get_msr(t.c, 0x12345678, &v), -EINVAL);
	assert_int_equal(libkvm_ioctl(t.k, KVM_CREATE_VM, NULL), -EINVAL);
	assert_int_equal(libkvm_vm_ioctl(t.vm, KVM_CREATE_VCPU, NULL), -EINVAL);
	lt_close(&t);
}

struct kicked {
	struct libkvm_vcpu *c;
	atomic_int n;
};

static enum libkvm_next stop_after(void *opaque, struct libkvm_vcpu *c)
{
	struct kicked *k = opaque;

	return atomic_fetch_add(&k->n, 1) < 2 ? LIBKVM_CONTINUE : LIBKVM_STOP;
}

/* Kicks that come before the last one is served are one: go on until three have been. */
static void *kick_often(void *arg)
{
	struct kicked *k = arg;

	while (atomic_load(&k->n) < 3) {
		libkvm_vcpu_kick(k->c);
		usleep(1000);
	}
	return NULL;
}

static void test_loop_kick(void **state)
{
	struct libkvm_callbacks cb = { .kicked = stop_after };
	struct kicked k = { 0 };
	pthread_t th;
	struct lt t;

	lt_open(&t, "\xeb\xfe", 2);
	k.c = t.c;
	pthread_create(&th, NULL, kick_often, &k);
	assert_int_equal(libkvm_vcpu_loop(t.c, &cb, &k), 0);
	assert_int_equal(atomic_load(&k.n), 3);
	pthread_join(th, NULL);
	lt_close(&t);
}

/* IN from a port nobody has gives ones; HLT ends the loop. */
static void test_loop_defaults(void **state)
{
	struct libkvm_callbacks cb = { 0 };
	struct kvm_regs r;
	struct lt t;

	lt_open(&t, "\xe5\x70\xf4", 3);
	assert_int_equal(libkvm_vcpu_loop(t.c, &cb, NULL), 0);
	assert_int_equal(libkvm_vcpu_run_area(t.c)->exit_reason, KVM_EXIT_HLT);
	assert_int_equal(libkvm_get_regs(t.c, &r), 0);
	assert_int_equal(r.rax & 0xffff, 0xffff);
	lt_close(&t);
}

static void test_errors(void **state)
{
	struct libkvm_options o = { .engine = LIBKVM_HOST, .device = "/nonexistent/kvm" };
	struct libkvm_err e = { 0 };
	struct libkvm *k;

	assert_int_equal(libkvm_open(&o, &k, &e), -ENOENT);
	assert_int_equal(e.code, ENOENT);
	assert_non_null(strstr(e.msg, "/nonexistent/kvm"));
	o.engine = 77;
	assert_int_equal(libkvm_open(&o, &k, NULL), -EINVAL);
	/* no device: the software engine, with the reason */
	o.engine = LIBKVM_AUTO;
	assert_int_equal(libkvm_open(&o, &k, &e), 0);
	assert_int_equal(libkvm_engine_kind(k), LIBKVM_SOFT);
	assert_non_null(strstr(libkvm_engine_reason(k), "/nonexistent/kvm"));
	libkvm_close(k);
	/* a device that is no KVM */
	o.device = "/dev/null";
	o.engine = LIBKVM_HOST;
	assert_int_equal(libkvm_open(&o, &k, &e), -ENODEV);
}

/* The probe's guest runs on our engine through every stage; only its speed is not judged here. */
static void test_probe(void **state)
{
	struct libkvm_options o = { .engine = LIBKVM_SOFT };
	char why[256] = "";
	bool stuck = false;
	struct libkvm *k;
	int r;

	assert_int_equal(libkvm_open(&o, &k, NULL), 0);
	r = lk_probe(k, why, sizeof(why), &stuck);
	assert_false(stuck);
	if (r && !strstr(why, "ring 0 runs"))
		fail_msg("%s", why);
	libkvm_close(k);
}

/* Choosing takes no longer than a person notices, whatever the host's KVM does. */
static void test_auto(void **state)
{
	struct timespec a, b;
	struct libkvm *k;

	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(libkvm_open(NULL, &k, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(strlen(libkvm_engine_reason(k)) > 0);
	assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 1500);
	libkvm_close(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),    cmocka_unit_test(test_msr),
		cmocka_unit_test(test_loop_kick), cmocka_unit_test(test_loop_defaults),
		cmocka_unit_test(test_errors),    cmocka_unit_test(test_probe),
		cmocka_unit_test(test_auto),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
