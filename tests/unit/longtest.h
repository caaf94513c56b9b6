/*
 * A virtual machine as in kvmtest.h, but in 64-bit mode with memory mapped as it is, and again at
 * LT_HIGH: for tests of the translator. Threads: the test's.
 */
#pragma once
#include "unit/kvmtest.h"

#include "kvm/handle.h"
#include "kvm/x86/jit/jit_int.h"

#define LT_HIGH 0xffffffff80000000ull

enum { LT_PML4 = 0x4000, LT_PDPT = 0x5000, LT_PD = 0x6000, LT_DATA = 0x2000 };

/* At code. False: no translator on this host. */
static inline bool lt_open(struct kt *t, const struct kvm_options *o, const void *code, size_t len)
{
	const uint64_t table[] = { LT_PDPT | 3, LT_PD | 3, 0x83 };
	struct kvm_segment s = { .present = 1, .s = 1, .g = 1, .limit = 0xffffffff };
	struct kvm_sregs sr;
	long r;

	memset(t, 0, sizeof(*t));
	assert_int_equal(kvm_open(o, &t->sys, NULL), 0);
	assert_int_equal(kvm_file_ioctl(t->sys, KVM_CREATE_VM, 0, &t->vm), 0);
	t->ram = mmap(NULL, KT_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(t->ram, MAP_FAILED);
	assert_int_equal(kt_slot(t, 0, 0, 0, KT_RAM, t->ram), 0);
	r = kvm_file_ioctl(t->vm, KVM_CREATE_VCPU, 0, &t->cpu);
	if (r == -ENOTSUP || (r == 0 && !t->cpu->vcpu->jitp)) {
		kt_close(t);
		return false;
	}
	assert_int_equal(r, 0);
	t->run = kvm_file_mmap(t->cpu);
	memcpy(t->ram + KT_CODE, code, len);
	for (unsigned n = 0; n < 3; n++)
		memcpy(t->ram + LT_PML4 + 0x1000 * n, &table[n], 8);
	memcpy(t->ram + LT_PML4 + 8 * 511, &table[0], 8);
	memcpy(t->ram + LT_PDPT + 8 * 510, &table[1], 8);
	kt_start(t->cpu, KT_CODE);
	assert_int_equal(kt_cpu(t, KVM_GET_SREGS, &sr), 0);
	s.type = 3;
	sr.ds = sr.es = sr.ss = s;
	s.type = 11;
	s.l = 1;
	s.selector = 8;
	sr.cs = s;
	sr.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	sr.cr3 = LT_PML4;
	sr.cr4 = CR4_PAE | CR4_OSFXSR;
	sr.efer = EFER_LME | EFER_LMA;
	assert_int_equal(kt_cpu(t, KVM_SET_SREGS, &sr), 0);
	return true;
}
