/*
 * The system side of the interpreter, driven through the KVM API by the guests of interp_system.S:
 * real, protected, virtual-8086 and long mode; faults with their error codes, gates, tasks,
 * levels, system calls.
 *
 * The expected words were worked out from the manual's pseudo-code, [SDM2], [SDM3 5-7, 20].
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <linux/kvm.h>

#include "base/bits.h"
#include "kvm/kvm.h"

enum { GUEST_AT = 0x8000, MEM_SIZE = 4 << 20, LOG_MAX = 128, REPORT_PORT = 0x10, END_PORT = 0xf4 };

extern const uint8_t guest_protected[], guest_protected_end[], guest_long[], guest_long_end[],
	guest_debug[], guest_debug_end[], guest_debug_int3[], guest_debug_steps[];
extern const uint16_t guest_debug_at[];

struct machine {
	struct kvm_file *sys, *vm, *vcpu;
	struct kvm_run *run;
	uint8_t *mem;
	uint32_t log[LOG_MAX];
	unsigned n;
};

static long machine_ioctl(struct kvm_file *f, unsigned long request, void *arg)
{
	return kvm_file_ioctl(f, request, (uintptr_t)arg, NULL);
}

static void machine_cpuid(struct machine *m)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	assert_non_null(c);
	c->nent = 256;
	assert_int_equal(machine_ioctl(m->sys, KVM_GET_SUPPORTED_CPUID, c), 0);
	for (unsigned k = 0; k < c->nent; k++)
		if (c->entries[k].function == 0) {
			/* the guests expect AMD's system calls, whatever the host is */
			c->entries[k].ebx = 0x68747541;
			c->entries[k].edx = 0x69746e65;
			c->entries[k].ecx = 0x444d4163;
		}
	assert_int_equal(machine_ioctl(m->vcpu, KVM_SET_CPUID2, c), 0);
	free(c);
}

static void machine_start(struct machine *m, const uint8_t *guest, size_t size)
{
	struct kvm_userspace_memory_region r = { .memory_size = MEM_SIZE };
	struct kvm_sregs s;
	struct kvm_regs regs = { .rip = GUEST_AT, .rflags = 2 };
	struct err e;

	*m = (struct machine){ 0 };
	assert_int_equal(kvm_open(&(struct kvm_options){ .no_jit = true }, &m->sys, &e), 0);
	assert_int_equal(kvm_file_ioctl(m->sys, KVM_CREATE_VM, 0, &m->vm), 0);
	m->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(m->mem != MAP_FAILED);
	memcpy(m->mem + GUEST_AT, guest, size);
	r.userspace_addr = (uintptr_t)m->mem;
	assert_int_equal(machine_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	assert_int_equal(kvm_file_ioctl(m->vm, KVM_CREATE_VCPU, 0, &m->vcpu), 0);
	m->run = kvm_file_mmap(m->vcpu);
	assert_non_null(m->run);
	machine_cpuid(m);
	assert_int_equal(machine_ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	s.cs.base = s.cs.selector = 0;
	assert_int_equal(machine_ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
	assert_int_equal(machine_ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

static void machine_end(struct machine *m)
{
	kvm_file_close(m->vcpu);
	kvm_file_close(m->vm);
	kvm_file_close(m->sys);
	munmap(m->mem, MEM_SIZE);
}

/* Run until the guest ends; collect what it reports. */
static void machine_run(struct machine *m)
{
	for (;;) {
		const uint8_t *data;

		assert_int_equal(kvm_file_ioctl(m->vcpu, KVM_RUN, 0, NULL), 0);
		if (m->run->exit_reason != KVM_EXIT_IO) {
			struct kvm_regs r;

			machine_ioctl(m->vcpu, KVM_GET_REGS, &r);
			print_message("exit %u at %#llx after %u words\n", m->run->exit_reason,
				      r.rip, m->n);
			return;
		}
		if (m->run->io.port == END_PORT)
			return;
		if (m->run->io.direction == KVM_EXIT_IO_IN)
			continue;
		assert_int_equal(m->run->io.port, REPORT_PORT);
		assert_int_equal(m->run->io.size, 4);
		assert_true(m->n < LOG_MAX);
		data = (const uint8_t *)m->run + m->run->io.data_offset;
		memcpy(&m->log[m->n++], data, 4);
	}
}

static void machine_expect(const struct machine *m, const uint32_t *want, unsigned n)
{
	for (unsigned k = 0; k < MIN(n, m->n); k++)
		if (m->log[k] != want[k])
			fail_msg("word %u: %#x, expected %#x", k, m->log[k], want[k]);
	assert_int_equal(m->n, n);
}

#define FAULT(vec, error) ((vec) << 16 | (error))
enum { DE = 0, UD = 6, TS = 10, NP = 11, SS = 12, GP = 13, PF = 14 };

static void test_protected(void **state)
{
	static const uint32_t want[] = {
		/* real mode */
		0x21,
		0x200,
		0x800,
		0x600d,
		/* ring 0 */
		8,
		0x3030,
		FAULT(GP, 0x1000),
		FAULT(GP, 0),
		FAULT(NP, 0x40),
		FAULT(SS, 0x40),
		FAULT(GP, 0x20),
		FAULT(GP, 0x90 * 8 + 2),
		FAULT(NP, 0x31 * 8 + 2),
		FAULT(GP, 0x10),
		FAULT(GP, 0),
		FAULT(GP, 0x28),
		FAULT(GP, 0x10),
		FAULT(DE, 0),
		FAULT(UD, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		0xcffa00,
		0xfff,
		0x93,
		FAULT(GP, 0x10),
		FAULT(GP, 0x20),
		FAULT(GP, 0),
		/* tasks: 16 bits, null SS */
		0xffff1234,
		0x28,
		0xffff4c00,
		0x16,
		FAULT(TS, 0),
		0x1234,
		0x1b,
		0x58,
		/* ring 3 */
		0,
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0x30 * 8 + 2),
		FAULT(GP, 0),
		0x10,
		0x1b,
		/* conforming code */
		0x6b,
		/* call gate, task */
		8,
		0x2222,
		0x1111,
		0x23,
		0x6800,
		0x53,
		0x4000,
		8,
		0x7a5c,
		/* virtual-8086 mode */
		0x801,
		FAULT(GP, 0),
		0x3200,
		FAULT(GP, 0),
		0x20000,
		0x800,
		0,
	};
	struct machine m;

	(void)state;
	machine_start(&m, guest_protected, (size_t)(guest_protected_end - guest_protected));
	machine_run(&m);
	machine_expect(&m, want, ARRAY_SIZE(want));
	machine_end(&m);
}

/* First 2 MiB in 4-KiB pages, 1 MiB a supervisor's; then 2 MiB read-only. */
static void long_tables(uint8_t *mem)
{
	enum { P = 1, W = 2, U = 4, LARGE = 0x80 };
	uint64_t *t = (uint64_t *)(void *)(mem + 0x1000);

	t[0] = 0x2000 | P | W | U;
	t[512] = 0x3000 | P | W | U;
	t[1024] = 0x4000 | P | W | U;
	t[1025] = 0x200000 | P | U | LARGE;
	for (unsigned k = 0; k < 512; k++)
		t[1536 + k] = (uint64_t)k << 12 | P | W | (k == 0x100 ? 0 : U);
}

static void test_long(void **state)
{
	static const uint32_t want[] = {
		0x501,
		0x7000 - 40,
		0x7005,
		0x6000 - 40,
		0,
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(GP, 0),
		FAULT(PF, 0),
		0x40000000,
		FAULT(GP, 0),
		FAULT(GP, 0xff * 8 + 2),
		FAULT(GP, 0x40),
		/* FSGSBASE, SYSENTER */
		FAULT(UD, 0),
		FAULT(GP, 0),
		0x1234,
		FAULT(UD, 0),
		/* ring 3 */
		0x2b,
		FAULT(PF, 5),
		FAULT(PF, 7),
		FAULT(GP, 0),
		FAULT(GP, 0),
		/* SYSCALL, SYSRET */
		0,
		0x10,
		0x5555,
		0x2b,
		0x23,
		0x200,
		/* call gate, SYSRET to nowhere, compatibility mode */
		8,
		0x2b,
		0x23,
		0x6800,
		FAULT(GP, 0),
		0x2b,
		0x1b,
		8,
		0x1b,
	};
	struct machine m;

	(void)state;
	machine_start(&m, guest_long, (size_t)(guest_long_end - guest_long));
	long_tables(m.mem);
	machine_run(&m);
	machine_expect(&m, want, ARRAY_SIZE(want));
	machine_end(&m);
}

/* What the handler of #DB reports: DR6's low half, and where it came. */
static uint32_t debug_word(unsigned dr6, unsigned at)
{
	return (dr6 | 0xff0u) << 16 | guest_debug_at[at];
}

static uint64_t debug_place(const uint8_t *label)
{
	return GUEST_AT + (uint64_t)(label - guest_debug);
}

static void debug_control(struct machine *m, uint32_t control, uint64_t breakpoint)
{
	struct kvm_guest_debug d = { .control = control };

	d.arch.debugreg[0] = breakpoint;
	d.arch.debugreg[7] = breakpoint ? 0x402 : 0x400;
	assert_int_equal(machine_ioctl(m->vcpu, KVM_SET_GUEST_DEBUG, &d), 0);
}

static void debug_expect_exit(struct machine *m, uint32_t exception, const uint8_t *at)
{
	struct kvm_regs r;

	assert_int_equal(kvm_file_ioctl(m->vcpu, KVM_RUN, 0, NULL), 0);
	assert_int_equal(m->run->exit_reason, KVM_EXIT_DEBUG);
	assert_int_equal(m->run->debug.arch.exception, exception);
	assert_int_equal(m->run->debug.arch.pc, debug_place(at));
	assert_int_equal(machine_ioctl(m->vcpu, KVM_GET_REGS, &r), 0);
	assert_int_equal(r.rip, debug_place(at));
}

static void test_debug(void **state)
{
	const uint32_t want[] = {
		debug_word(0x4000, 0), debug_word(0x4000, 1),
		debug_word(0x4000, 2), debug_word(1, 3),
		debug_word(2, 4),      debug_word(0x2000, 5),
		debug_word(4, 6),      0x400,
	};
	struct machine m;

	(void)state;
	machine_start(&m, guest_debug, (size_t)(guest_debug_end - guest_debug));
	while (m.n < ARRAY_SIZE(want)) {
		assert_int_equal(kvm_file_ioctl(m.vcpu, KVM_RUN, 0, NULL), 0);
		assert_int_equal(m.run->exit_reason, KVM_EXIT_IO);
		if (m.run->io.port == REPORT_PORT)
			memcpy(&m.log[m.n++], (const uint8_t *)m.run + m.run->io.data_offset, 4);
	}
	machine_expect(&m, want, ARRAY_SIZE(want));

	debug_control(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
		      debug_place(guest_debug_steps));
	debug_expect_exit(&m, 1, guest_debug_steps);
	debug_control(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, 0);
	debug_expect_exit(&m, 1, guest_debug_steps + 1);
	debug_control(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, 0);
	debug_expect_exit(&m, 3, guest_debug_int3);
	debug_expect_exit(&m, 3, guest_debug_int3);
	machine_end(&m);
}

/* Every MSR of the list can be read and written back by user space; an unknown one cannot. */
static void test_msrs(void **state)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + 256 * sizeof(uint32_t));
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} a = { .h.nmsrs = 1 };
	struct machine m;

	(void)state;
	machine_start(&m, guest_debug, (size_t)(guest_debug_end - guest_debug));
	assert_non_null(list);
	list->nmsrs = 256;
	assert_int_equal(machine_ioctl(m.sys, KVM_GET_MSR_INDEX_LIST, list), 0);
	assert_true(list->nmsrs > 40);
	for (unsigned k = 0; k < list->nmsrs; k++) {
		a.e.index = list->indices[k];
		if (machine_ioctl(m.vcpu, KVM_GET_MSRS, &a) != 1)
			fail_msg("cannot read MSR %#x", a.e.index);
		if (machine_ioctl(m.vcpu, KVM_SET_MSRS, &a) != 1)
			fail_msg("cannot write MSR %#x back", a.e.index);
	}
	a.e.index = 0x12345678;
	assert_int_equal(machine_ioctl(m.vcpu, KVM_GET_MSRS, &a), 0);
	a.e.index = 0x277; /* PAT: type 2 is reserved */
	a.e.data = 0x0007040600070402;
	assert_int_equal(machine_ioctl(m.vcpu, KVM_SET_MSRS, &a), 0);
	a.e.index = 0xc0000082; /* LSTAR: not canonical */
	a.e.data = BIT(47);
	assert_int_equal(machine_ioctl(m.vcpu, KVM_SET_MSRS, &a), 0);
	free(list);
	machine_end(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_protected),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_debug),
		cmocka_unit_test(test_msrs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
