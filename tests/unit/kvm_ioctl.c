/*
 * Errors of the ioctls, one table, and checks of structures.
 * References: [KVM-API 4], the kernel's answers as of 6.1.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "unit/kvmtest.h"

/* A structure with a flexible array of so many bytes. */
static void *kt_table(size_t head, size_t array)
{
	void *p = calloc(1, head + array);

	assert_non_null(p);
	return p;
}

static void test_system(void **state)
{
	struct kvm_file *f;
	struct kvm_cpuid2 *c = kt_table(sizeof(*c), 256 * sizeof(c->entries[0]));
	struct kvm_msr_list *l = kt_table(sizeof(*l), 512 * 4);

	c->nent = 1;
	assert_int_equal(kvm_open(NULL, &f, NULL), 0);
#define SYS(req, arg) kvm_file_ioctl(f, req, (uintptr_t)(arg), NULL)
	assert_int_equal(SYS(KVM_GET_API_VERSION, 0), 12);
	assert_int_equal(SYS(KVM_GET_API_VERSION, 1), -EINVAL);
	assert_int_equal(SYS(KVM_GET_VCPU_MMAP_SIZE, 0), 3 * 4096);
	assert_int_equal(SYS(KVM_CREATE_VM, 5), -EINVAL);
	assert_int_equal(SYS(0x1234, 0), -EINVAL);
	assert_int_equal(SYS(KVM_RUN, 0), -EINVAL);
	assert_int_equal(SYS(KVM_TRACE_ENABLE, 0), -EOPNOTSUPP);
	assert_int_equal(SYS(KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	assert_int_equal(SYS(KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO), 2);
	assert_int_equal(SYS(KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM), 0);
	assert_int_equal(SYS(KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE), 0);
	assert_int_equal(SYS(KVM_CHECK_EXTENSION, 100000), 0);
	assert_int_equal(SYS(KVM_GET_SUPPORTED_CPUID, c), -E2BIG);
	assert_int_equal(SYS(KVM_GET_SUPPORTED_CPUID, 0), -EFAULT);
	c->nent = 256;
	assert_int_equal(SYS(KVM_GET_SUPPORTED_CPUID, c), 0);
	assert_in_range(c->nent, 20, 255);
	assert_int_equal(SYS(KVM_GET_MSR_INDEX_LIST, l), -E2BIG);
	assert_in_range(l->nmsrs, 20, 512);
	assert_int_equal(SYS(KVM_GET_MSR_INDEX_LIST, l), 0);
#undef SYS
	kvm_file_close(f);
	free(c);
	free(l);
}

/* Every MSR of the list can be read and written back: that is what it is for. */
static void test_msr_list(void **state)
{
	struct kvm_msr_list *l = kt_table(sizeof(*l), 512 * 4);
	struct kvm_msrs *m = kt_table(sizeof(*m), sizeof(m->entries[0]));
	struct kt t;

	kt_open(&t, KT_IRQCHIP, NULL, 0);
	l->nmsrs = 512;
	assert_int_equal(kvm_file_ioctl(t.sys, KVM_GET_MSR_INDEX_LIST, (uintptr_t)l, NULL), 0);
	for (unsigned i = 0; i < l->nmsrs; i++) {
		m->nmsrs = 1;
		m->entries[0].index = l->indices[i];
		if (kt_cpu(&t, KVM_GET_MSRS, m) != 1)
			fail_msg("MSR %x cannot be read", l->indices[i]);
		if (kt_cpu(&t, KVM_SET_MSRS, m) != 1)
			fail_msg("MSR %x cannot be written back", l->indices[i]);
	}
	kt_close(&t);
	free(l);
	free(m);
}

static void test_memory(void **state)
{
	static const struct {
		uint32_t slot, flags;
		uint64_t gpa, size, off;
		long want;
	} row[] = {
		{ 0, 0, 0, 0, 0, -EINVAL },                      /* nothing to delete */
		{ 0, 0, 0, 0x4000, 0, 0 },                       /* create */
		{ 0, 0, 0, 0x4000, 0, 0 },                       /* the same again */
		{ 1, 0, 0x3000, 0x1000, 0, -EEXIST },            /* overlap */
		{ 1, 0, 0x4000, 0x1000, 0x4000, 0 },             /* neighbour */
		{ 0, 0, 0, 0x5000, 0, -EINVAL },                 /* another size */
		{ 0, 0, 0, 0x4000, 0x1000, -EINVAL },            /* another place in the host */
		{ 0, KVM_MEM_READONLY, 0, 0x4000, 0, -EINVAL },  /* made read-only */
		{ 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 0x4000, 0, 0 }, /* flags only */
		{ 0, 0, 0x1000, 0x4000, 0, -EEXIST },            /* moved onto slot 1 */
		{ 0, 0, 0x10000, 0x4000, 0, 0 },                 /* moved */
		{ 2, 0, 0, 0x4000, 0, 0 },                       /* its old place is free */
		{ 3, 4, 0x20000, 0x1000, 0, -EINVAL },           /* unknown flag */
		{ 3, 0, 0x20001, 0x1000, 0, -EINVAL },           /* alignment */
		{ 3, 0, 0x20000, 0x1001, 0, -EINVAL },
		{ 3, 0, 0x20000, 0x1000, 1, -EINVAL },
		{ 509, 0, 0x20000, 0x1000, 0, -EINVAL },     /* slot number */
		{ 0x10003, 0, 0x20000, 0x1000, 0, -EINVAL }, /* address space */
		{ 3, 0, ~0xfffull, 0x2000, 0, -EINVAL },     /* wraps */
		{ 3, 0, 1ull << 52, 0x1000, 0, -EINVAL },    /* beyond any processor */
		{ 3, 0, 0x20000, 1ull << 48, 0, -EINVAL },   /* beyond user space */
		{ 1, 0, 0, 0, 0x4000, 0 },                   /* delete */
		{ 1, 0, 0, 0, 0x4000, -EINVAL },
	};
	struct kt t;

	kt_open(&t, KT_NO_RAM | KT_NO_CPU, NULL, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		long r = kt_slot(&t, row[i].slot, row[i].flags, row[i].gpa, row[i].size,
				 t.ram + row[i].off);

		if (r != row[i].want)
			fail_msg("row %u: %ld, not %ld", i, r, row[i].want);
	}
	kt_close(&t);
}

static void test_dirty_args(void **state)
{
	uint64_t map[4] = { 0 };
	struct kvm_dirty_log log = { .dirty_bitmap = map };
	struct kvm_clear_dirty_log c = { .dirty_bitmap = map, .num_pages = 64 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 };
	uint8_t *big = mmap(NULL, 200 * 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kt t;

	kt_open(&t, KT_NO_RAM | KT_NO_CPU, NULL, 0);
	log.slot = 0x10000;
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), -EINVAL);
	log.slot = 0;
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), -ENOENT);
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &c), -ENOENT);
	/* initially-set needs manual protection */
	cap.args[0] = 2;
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &cap), -EINVAL);
	cap.args[0] = 3;
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &cap), 0);
	assert_int_equal(kt_slot(&t, 0, KVM_MEM_LOG_DIRTY_PAGES, 0, 200 * 4096, big), 0);
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(map[0], ~0ull);
	assert_int_equal(map[3], 0xff);
	c.first_page = 1;
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &c), -EINVAL);
	c.first_page = 256;
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &c), -EINVAL);
	c.first_page = 192;
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &c), -EINVAL);
	c.num_pages = 8;
	memset(map, 0xff, sizeof(map));
	assert_int_equal(kt_vm(&t, KVM_CLEAR_DIRTY_LOG, &c), 0);
	assert_int_equal(kt_vm(&t, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(map[2], ~0ull);
	assert_int_equal(map[3], 0);
	kt_close(&t);
	munmap(big, 200 * 4096);
}

static void test_vm(void **state)
{
	struct kvm_enable_cap cap = { .cap = 9999 };
	struct kvm_enable_cap poll = { .cap = KVM_CAP_HALT_POLL, .args = { 1000 } };
	struct kvm_irq_level line = { .irq = 5, .level = 1 };
	struct kvm_create_device dev = { .type = 1 };
	struct kvm_irqchip chip = { .chip_id = 9 };
	struct kvm_pit_state2 pit;
	struct kvm_pit_config pc = { 0 };
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_HALTED };
	struct kvm_interrupt irq = { .irq = 300 };
	struct kvm_file *c2;
	struct kt t, u;

	kt_open(&t, 0, NULL, 0);
	assert_int_equal(kt_vm(&t, 0x1234, NULL), -ENOTTY);
	assert_int_equal(kt_vm(&t, KVM_RUN, NULL), -ENOTTY);
	assert_int_equal(kt_vm(&t, KVM_CREATE_DEVICE, &dev), -ENODEV);
	assert_int_equal(kt_vm(&t, KVM_GET_STATS_FD, NULL), -ENOTTY);
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &cap), -EINVAL);
	assert_int_equal(kt_vm(&t, KVM_CHECK_EXTENSION, (void *)KVM_CAP_HALT_POLL), 1);
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &poll), 0);
	poll.args[0] = 1ull << 32;
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &poll), -EINVAL);
	poll = (struct kvm_enable_cap){ .cap = KVM_CAP_HALT_POLL, .flags = 1 };
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &poll), -EINVAL);
	assert_int_equal(kt_vm(&t, KVM_IRQ_LINE, &line), -ENXIO);
	assert_int_equal(kt_vm(&t, KVM_IRQ_LINE, NULL), -EFAULT);
	assert_int_equal(kt_vm(&t, KVM_GET_IRQCHIP, &chip), -ENXIO);
	assert_int_equal(kt_vm(&t, KVM_GET_PIT2, &pit), -ENXIO);
	assert_int_equal(kt_vm(&t, KVM_CREATE_PIT2, &pc), -ENOENT);
	/* a vCPU is there: too late for LAPICs, boot processor, identity map */
	assert_int_equal(kt_vm(&t, KVM_CREATE_IRQCHIP, NULL), -EINVAL);
	assert_int_equal(kt_vm(&t, KVM_SET_BOOT_CPU_ID, (void *)1), -EBUSY);
	assert_int_equal(kt_vm(&t, KVM_SET_TSS_ADDR, (void *)0xfffff000), -EINVAL);
	assert_int_equal(kt_vm(&t, KVM_SET_TSS_ADDR, (void *)0xfffbd000), 0);
	assert_int_equal(kvm_file_ioctl(t.vm, KVM_CREATE_VCPU, 0, &c2), -EEXIST);
	assert_int_equal(kvm_file_ioctl(t.vm, KVM_CREATE_VCPU, 4096, &c2), -EINVAL);
	assert_int_equal(kt_cpu(&t, KVM_GET_LAPIC, &lapic), -EINVAL);
	assert_int_equal(kt_cpu(&t, KVM_SET_MP_STATE, &mp), -EINVAL);
	assert_int_equal(kt_cpu(&t, KVM_INTERRUPT, &irq), -EINVAL);
	assert_int_equal(kt_cpu(&t, 0x1234, NULL), -EINVAL);
	assert_int_equal(kt_cpu(&t, KVM_SMI, NULL), -EINVAL);
	assert_int_equal(kt_cpu(&t, KVM_GET_REGS, NULL), -EFAULT);
	assert_int_equal(kt_cpu(&t, KVM_RUN, (void *)1), -EINVAL);

	kt_open(&u, KT_IRQCHIP, NULL, 0);
	irq.irq = 3;
	assert_int_equal(kt_cpu(&u, KVM_INTERRUPT, &irq), -ENXIO);
	assert_int_equal(kt_vm(&u, KVM_GET_IRQCHIP, &chip), -EINVAL);
	assert_int_equal(kt_vm(&u, KVM_CREATE_IRQCHIP, NULL), -EEXIST);
	assert_int_equal(kt_vm(&u, KVM_CREATE_PIT2, &pc), 0);
	assert_int_equal(kt_vm(&u, KVM_CREATE_PIT2, &pc), -EEXIST);
	assert_int_equal(kt_vm(&u, KVM_IRQ_LINE, &line), 0);
	line.irq = 1000;
	assert_int_equal(kt_vm(&u, KVM_IRQ_LINE_STATUS, &line), 0);
	assert_int_equal((int)line.status, -1);
	assert_int_equal(kt_cpu(&u, KVM_GET_LAPIC, &lapic), 0);
	assert_int_equal(kt_cpu(&u, KVM_SET_LAPIC, &lapic), 0);
	kt_close(&u);
	kt_open(&u, KT_SPLIT, NULL, 0);
	assert_int_equal(kt_vm(&u, KVM_GET_IRQCHIP, &chip), -ENXIO);
	assert_int_equal(kt_cpu(&u, KVM_INTERRUPT, &irq), 0);
	assert_int_equal(kt_cpu(&u, KVM_INTERRUPT, &irq), -EEXIST);
	kt_close(&u);
	kt_close(&t);
}

static void test_sregs(void **state)
{
	struct kvm_sregs s, s0;
	struct kvm_sregs2 s2;
	struct kt t;

	kt_open(&t, 0, NULL, 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_SREGS, &s0), 0);
#define BAD(change) \
	do { \
		s = s0; \
		change; \
		assert_int_equal(kt_cpu(&t, KVM_SET_SREGS, &s), -EINVAL); \
	} while (0)
	BAD(s.cr4 |= 1u << 12);                   /* LA57 */
	BAD(s.cr0 |= 0x80000000; s.cr0 &= ~1ull); /* PG without PE */
	BAD(s.cr0 |= 1ull << 32);
	BAD(s.efer |= 0x400);                    /* LMA alone */
	BAD(s.cs.l = 1);                         /* 64-bit code outside long mode */
	BAD(s.efer = 0x500; s.cr0 = 0x80000011); /* long mode without PAE */
	BAD(s.efer = 0x100; s.cr0 = 0x80000011; s.cr4 = 0x20);
	BAD(s.efer = 0x500; s.cr0 = 0x80000011; s.cr4 = 0x20; s.cr3 = 1ull << 60);
	BAD(s.apic_base = 1);
#undef BAD
	s = s0;
	s.interrupt_bitmap[1] = 1ull << 3;
	assert_int_equal(kt_cpu(&t, KVM_SET_SREGS, &s), 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_SREGS, &s), 0);
	assert_int_equal(s.interrupt_bitmap[1], 1ull << 3);
	s.interrupt_bitmap[1] = 0;
	assert_memory_equal(&s, &s0, sizeof(s));
	assert_int_equal(kt_cpu(&t, KVM_GET_SREGS2, &s2), 0);
	s2.flags = 2;
	assert_int_equal(kt_cpu(&t, KVM_SET_SREGS2, &s2), -EINVAL);
	s2.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID; /* without PAE paging */
	assert_int_equal(kt_cpu(&t, KVM_SET_SREGS2, &s2), -EINVAL);
	s2.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	s2.cr0 = 0x80000011;
	s2.cr4 = 0x20;
	s2.pdptrs[2] = 0x1001;
	assert_int_equal(kt_cpu(&t, KVM_SET_SREGS2, &s2), 0);
	memset(&s2, 0, sizeof(s2));
	assert_int_equal(kt_cpu(&t, KVM_GET_SREGS2, &s2), 0);
	assert_int_equal(s2.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	assert_int_equal(s2.pdptrs[2], 0x1001);
	kt_close(&t);
}

static void test_events(void **state)
{
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	struct kvm_vcpu_events e, e0, g;
	struct kvm_debugregs d;
	struct kt t;

	kt_open(&t, 0, NULL, 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_VCPU_EVENTS, &e0), 0);
	e = e0;
	e.flags = 0x100;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e = e0;
	e.exception.injected = 1;
	e.exception.nr = 32;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e.exception.nr = 2;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	e.exception.nr = 13;
	e.exception.has_error_code = 1;
	e.exception.error_code = 8;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	e.nmi.masked = 1;
	e.nmi.pending = 1;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_VCPU_EVENTS, &g), 0);
	assert_memory_equal(&e, &g, sizeof(e));
	/* the payload ABI has to be enabled */
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), -EINVAL);
	assert_int_equal(kt_vm(&t, KVM_ENABLE_CAP, &payload), 0);
	e = e0;
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.pending = 1;
	e.exception.nr = 14;
	e.exception_has_payload = 1;
	e.exception_payload = 0x1234;
	assert_int_equal(kt_cpu(&t, KVM_SET_VCPU_EVENTS, &e), 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_VCPU_EVENTS, &g), 0);
	assert_int_equal(g.exception.pending, 1);
	assert_int_equal(g.exception.injected, 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_DEBUGREGS, &d), 0);
	d.flags = 1;
	assert_int_equal(kt_cpu(&t, KVM_SET_DEBUGREGS, &d), -EINVAL);
	d.flags = 0;
	d.dr7 = 1ull << 32;
	assert_int_equal(kt_cpu(&t, KVM_SET_DEBUGREGS, &d), -EINVAL);
	kt_close(&t);
}

static void test_cpuid(void **state)
{
	struct kvm_cpuid2 *c = kt_table(sizeof(*c), 257 * sizeof(c->entries[0]));
	struct kvm_cpuid2 *d = kt_table(sizeof(*d), 257 * sizeof(d->entries[0]));
	struct kt t;

	c->nent = 256;
	d->nent = 1;
	kt_open(&t, 0, (const uint8_t *)"\xf4", 1);
	assert_int_equal(kvm_file_ioctl(t.sys, KVM_GET_SUPPORTED_CPUID, (uintptr_t)c, NULL), 0);
	for (unsigned i = 0; i < c->nent; i++)
		for (unsigned j = 0; j < i; j++)
			if (c->entries[i].function == c->entries[j].function &&
			    c->entries[i].index == c->entries[j].index)
				fail_msg("leaf %x.%x twice", c->entries[i].function,
					 c->entries[i].index);
	c->nent++;
	c->entries[c->nent - 1].function = 0x40000002;
	assert_int_equal(kt_cpu(&t, KVM_SET_CPUID2, c), 0);
	assert_int_equal(kt_cpu(&t, KVM_GET_CPUID2, d), -E2BIG);
	d->nent = 256;
	assert_int_equal(kt_cpu(&t, KVM_GET_CPUID2, d), 0);
	assert_int_equal(d->nent, c->nent);
	assert_memory_equal(c->entries, d->entries, c->nent * sizeof(c->entries[0]));
	d->nent = 257;
	assert_int_equal(kt_cpu(&t, KVM_SET_CPUID2, d), -E2BIG);
	kt_run(&t, KVM_EXIT_HLT);
	/* fixed once the guest has run */
	assert_int_equal(kt_cpu(&t, KVM_SET_CPUID2, c), 0);
	c->entries[1].eax ^= 1;
	assert_int_equal(kt_cpu(&t, KVM_SET_CPUID2, c), -EINVAL);
	kt_close(&t);
	free(c);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_system), cmocka_unit_test(test_msr_list),
		cmocka_unit_test(test_memory), cmocka_unit_test(test_dirty_args),
		cmocka_unit_test(test_vm),     cmocka_unit_test(test_sregs),
		cmocka_unit_test(test_events), cmocka_unit_test(test_cpuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
