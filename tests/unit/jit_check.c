/*
 * The comparison of translated code with the interpreter finds what it is for: translated code is
 * changed under it. Not checked here: the comparison's message.
 * References: kvm/x86/jit/check.h.
 */
#include "unit/longtest.h"

/* One block, then I/O so that KVM_RUN ends; the flags of CMP are read after it. */
static const uint8_t code[] = {
	0xb8, 0x78, 0x56, 0x34, 0x12,                               /* mov eax, 0x12345678 */
	0xc7, 0x04, 0x25, 0x00, 0x20, 0, 0, 0x44, 0x33, 0x22, 0x11, /* mov [DATA], 0x11223344 */
	0x66, 0x0f, 0xef, 0xc0,                                     /* pxor xmm0, xmm0 */
	0x3d, 0x78, 0x56, 0x34, 0x12,                               /* cmp eax, 0x12345678 */
	0xe6, 0xe9,                                                 /* out 0xe9, al */
	0x0f, 0x94, 0xc1,                                           /* sete cl */
	0xeb, 0xe0,                                                 /* jmp to the start */
};

static bool check_open(struct kt *t)
{
	const struct kvm_options o = { .jit_check = true, .jit_heat = 1 };

	return lt_open(t, &o, code, sizeof(code));
}

/* Find bytes in the code made since the glue and change one of them. */
static void check_corrupt(struct kt *t, const void *bytes, size_t n, size_t at, uint8_t to)
{
	struct jit *j = t->cpu->vcpu->jitp;
	uint8_t *p = memmem(j->rw + j->glue_end, j->used - j->glue_end, bytes, n);

	assert_non_null(p);
	p[at] = to;
}

static void test_same(void **state)
{
	struct kt t;

	if (!check_open(&t)) {
		skip();
		return;
	}
	for (unsigned n = 0; n < 10; n++) {
		t.ram[LT_DATA] = 0;
		kt_run(&t, KVM_EXIT_IO);
		assert_int_equal(kt_rip(&t), KT_CODE + 25);
		assert_memory_equal(t.ram + LT_DATA, "\x44\x33\x22\x11", 4);
	}
	kt_close(&t);
}

static void check_found(const void *bytes, size_t n, size_t at, uint8_t to)
{
	struct kvm_regs r;
	struct kt t;

	if (!check_open(&t)) {
		skip();
		return;
	}
	kt_run(&t, KVM_EXIT_IO);
	check_corrupt(&t, bytes, n, at, to);
	memset(t.ram + LT_DATA, 0xff, 8);
	kt_run(&t, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(t.run->internal.suberror, KVM_SUBERROR_CHECK);
	/* the interpreter's result stands */
	assert_int_equal(kt_cpu(&t, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rip, KT_CODE + 25);
	assert_int_equal(r.rax, 0x12345678);
	assert_memory_equal(t.ram + LT_DATA, "\x44\x33\x22\x11\xff\xff\xff\xff", 8);
	kt_run(&t, KVM_EXIT_IO);
	kt_close(&t);
}

static void test_register(void **state)
{
	check_found("\xb8\x78\x56\x34\x12", 5, 1, 0x79);
}

static void test_flags(void **state)
{
	check_found("\x3d\x78\x56\x34\x12", 5, 1, 0x79);
}

static void test_memory(void **state)
{
	check_found("\x44\x33\x22\x11", 4, 3, 0x10);
}

/* as PCMPEQD: all ones */
static void test_vector(void **state)
{
	check_found("\x66\x0f\xef\xc0", 4, 2, 0x76);
}

/* a store of eight bytes, four more than asked for */
static void test_excess(void **state)
{
	/* mov dword [r11 + r10], imm32: with REX.W it is a qword */
	check_found("\x43\xc7\x04\x13\x44\x33\x22\x11", 8, 0, 0x4b);
}

static void test_refused(void **state)
{
	const struct kvm_options o = { .jit_check = true, .no_jit = true };
	struct kvm_file *f;
	struct err e = { 0 };
	struct kt t;

	assert_int_equal(kvm_open(&o, &f, &e), -EINVAL);
	if (!check_open(&t)) {
		skip();
		return;
	}
	assert_int_equal(kvm_file_ioctl(t.vm, KVM_CREATE_VCPU, 1, &f), -EINVAL);
	kt_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),    cmocka_unit_test(test_register),
		cmocka_unit_test(test_flags),   cmocka_unit_test(test_memory),
		cmocka_unit_test(test_vector),  cmocka_unit_test(test_excess),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
