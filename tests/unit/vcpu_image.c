/*
 * The vCPU's state table: sound, save/load/save equal, every truncation refused, flipped bits
 * refused or loaded without harm, images that the engine refuses named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "machine/vcpu_image.h"

enum { MEM = 1 << 20 };

struct fix {
	struct libkvm *k;
	struct libkvm_vm *vm;
	struct libkvm_vcpu *c;
	uint8_t *mem;
};

static void fix_open(struct fix *f)
{
	struct libkvm_options o = { .engine = LIBKVM_SOFT };
	struct kvm_cpuid2 *id;

	assert_int_equal(libkvm_open(&o, &f->k, NULL), 0);
	assert_int_equal(libkvm_vm_create(f->k, &f->vm, NULL), 0);
	f->mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(f->mem, MAP_FAILED);
	assert_int_equal(libkvm_mem_add(f->vm, 0, MEM, f->mem, 0), 0);
	assert_int_equal(libkvm_irqchip_create(f->vm), 0);
	assert_int_equal(libkvm_vcpu_create(f->vm, 0, &f->c, NULL), 0);
	assert_int_equal(libkvm_supported_cpuid(f->k, &id), 0);
	assert_int_equal(libkvm_set_cpuid(f->c, id), 0);
	free(id);
}

static void fix_close(struct fix *f)
{
	libkvm_vcpu_close(f->c);
	libkvm_vm_close(f->vm);
	libkvm_close(f->k);
	munmap(f->mem, MEM);
}

/* Some state that is not power-on's: a few instructions of real mode have run. */
static void fix_run(struct fix *f)
{
	/* mov ax, 1234h; mov ds, ax; fninit; fld1; sti; nop; out 70h, al */
	static const uint8_t code[] = { 0xb8, 0x34, 0x12, 0x8e, 0xd8, 0xdb, 0xe3, 0xd9,
					0xe8, 0xfb, 0x90, 0xe6, 0x70, 0x90, 0xeb, 0xfd };
	struct kvm_sregs s;
	struct kvm_regs r;

	memcpy(f->mem + 0x1000, code, sizeof(code));
	assert_int_equal(libkvm_get_sregs(f->c, &s), 0);
	s.cs.base = 0;
	s.cs.selector = 0;
	assert_int_equal(libkvm_set_sregs(f->c, &s), 0);
	assert_int_equal(libkvm_get_regs(f->c, &r), 0);
	r.rip = 0x1000;
	r.rflags = 2;
	r.r15 = 0x0123456789abcdefull;
	assert_int_equal(libkvm_set_regs(f->c, &r), 0);
	assert_int_equal(libkvm_vcpu_run(f->c), 0);
	assert_int_equal(libkvm_vcpu_run_area(f->c)->exit_reason, KVM_EXIT_IO);
	/* complete the access */
	libkvm_vcpu_run_area(f->c)->immediate_exit = 1;
	(void)libkvm_vcpu_run(f->c);
	libkvm_vcpu_run_area(f->c)->immediate_exit = 0;
}

static void test_table(void **state)
{
	struct err e;

	assert_int_equal(state_check(&vcpu_image_state, &e), 0);
	assert_int_equal(state_hole(&vcpu_image_state), -1);
}

static size_t save(struct fix *f, uint8_t **buf)
{
	struct vcpu_image *s = malloc(sizeof(*s));
	size_t n = state_save_size(&vcpu_image_state);
	struct err e;

	*buf = malloc(n);
	assert_int_equal(vcpu_image_get(f->k, f->c, s, &e), 0);
	assert_int_equal(state_save(&vcpu_image_state, s, *buf, n), n);
	free(s);
	return n;
}

static int load(struct fix *f, const uint8_t *buf, size_t n, struct err *e)
{
	struct vcpu_image *s = calloc(1, sizeof(*s));
	int r = state_load(&vcpu_image_state, s, buf, n, e);

	if (r == 0)
		r = vcpu_image_set(f->c, s, e);
	free(s);
	return r;
}

static void test_round_trip(void **state)
{
	struct vcpu_image *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
	uint8_t *one, *two;
	struct fix f, g;
	struct err e;
	size_t n;

	fix_open(&f);
	fix_run(&f);
	fix_open(&g);
	n = save(&f, &one);
	assert_int_equal(load(&g, one, n, &e), 0);
	assert_int_equal(save(&g, &two), n);
	assert_int_equal(vcpu_image_get(f.k, f.c, a, &e), 0);
	assert_int_equal(vcpu_image_get(g.k, g.c, b, &e), 0);
	assert_int_equal(state_diff(&vcpu_image_state, a, b, stderr), 0);
	assert_memory_equal(one, two, n);
	assert_true(a->gpr[15] == 0x0123456789abcdefull && a->seg_sel[3] == 0x1234);
	free(one);
	free(two);
	free(a);
	free(b);
	fix_close(&f);
	fix_close(&g);
}

static void test_truncated(void **state)
{
	struct fix f;
	struct err e;
	uint8_t *buf;
	size_t n;

	fix_open(&f);
	n = save(&f, &buf);
	for (size_t i = 0; i < n; i += i < 600 ? 1 : 37)
		assert_int_not_equal(load(&f, buf, i, &e), 0);
	assert_int_equal(load(&f, buf, n, &e), 0);
	free(buf);
	fix_close(&f);
}

/* Any flipped bit: a clear refusal, or a vCPU that can run a little and be saved again. */
static void test_flips(void **state)
{
	unsigned refused = 0, taken = 0;
	uint8_t *good, *bad, *again;
	struct fix f;
	size_t n;

	fix_open(&f);
	fix_run(&f);
	n = save(&f, &good);
	bad = malloc(n);
	for (size_t i = 0; i < n * 8; i += i < 8 * 900 ? 3 : 61) {
		struct err e = { 0 };

		memcpy(bad, good, n);
		bad[i / 8] ^= (uint8_t)(1 << (i % 8));
		if (load(&f, bad, n, &e)) {
			refused++;
			assert_true(e.msg[0] != 0);
		} else {
			taken++;
			libkvm_vcpu_kick(f.c);
			(void)libkvm_vcpu_run(f.c);
			assert_int_equal(save(&f, &again), n);
			free(again);
		}
		assert_int_equal(load(&f, good, n, &e), 0);
	}
	assert_true(refused > 100 && taken > 100);
	free(good);
	free(bad);
	fix_close(&f);
}

static void test_refused(void **state)
{
	struct vcpu_image *s = malloc(sizeof(*s));
	struct fix f;
	struct err e;

	fix_open(&f);
	assert_int_equal(vcpu_image_get(f.k, f.c, s, &e), 0);
	s->efer = 0x500; /* long mode active without paging */
	assert_int_not_equal(vcpu_image_set(f.c, s, &e), 0);
	assert_non_null(strstr(e.msg, "system registers"));
	assert_int_equal(vcpu_image_get(f.k, f.c, s, &e), 0);
	s->xcr0 = 0; /* x87 cannot be off */
	assert_int_not_equal(vcpu_image_set(f.c, s, &e), 0);
	assert_non_null(strstr(e.msg, "XCR0"));
	free(s);
	fix_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),     cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_truncated), cmocka_unit_test(test_flips),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
