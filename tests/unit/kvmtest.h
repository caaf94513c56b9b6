/*
 * A small virtual machine of the software KVM for unit tests: real mode at 0000:1000, 64 KiB of
 * RAM. Threads: the test's.
 */
#pragma once
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above */
#include <cmocka.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm/kvm.h"

#define KT_RAM  0x10000u
#define KT_CODE 0x1000u

struct kt {
	struct kvm_file *sys, *vm, *cpu;
	struct kvm_run *run;
	uint8_t *ram;
};

enum { KT_IRQCHIP = 1, KT_SPLIT = 2, KT_NO_CPU = 4, KT_NO_RAM = 8 };

static inline long kt_vm(struct kt *t, unsigned long request, void *arg)
{
	return kvm_file_ioctl(t->vm, request, (uintptr_t)arg, NULL);
}

static inline long kt_cpu(struct kt *t, unsigned long request, void *arg)
{
	return kvm_file_ioctl(t->cpu, request, (uintptr_t)arg, NULL);
}

static inline long kt_slot(struct kt *t, uint32_t slot, uint32_t flags, uint64_t gpa, uint64_t size,
			   void *host)
{
	struct kvm_userspace_memory_region m = { slot, flags, gpa, size, (uintptr_t)host };

	return kt_vm(t, KVM_SET_USER_MEMORY_REGION, &m);
}

static inline void kt_start(struct kvm_file *cpu, uint64_t rip)
{
	struct kvm_regs r = { .rip = rip, .rflags = 2, .rsp = 0x8000 };
	struct kvm_sregs s;

	assert_int_equal(kvm_file_ioctl(cpu, KVM_GET_SREGS, (uintptr_t)&s, NULL), 0);
	s.cs.base = 0;
	s.cs.selector = 0;
	assert_int_equal(kvm_file_ioctl(cpu, KVM_SET_SREGS, (uintptr_t)&s, NULL), 0);
	assert_int_equal(kvm_file_ioctl(cpu, KVM_SET_REGS, (uintptr_t)&r, NULL), 0);
}

static inline void kt_open(struct kt *t, unsigned flags, const void *code, size_t len)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	memset(t, 0, sizeof(*t));
	assert_int_equal(kvm_open(NULL, &t->sys, NULL), 0);
	assert_int_equal(kvm_file_ioctl(t->sys, KVM_CREATE_VM, 0, &t->vm), 0);
	t->ram = mmap(NULL, KT_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(t->ram, MAP_FAILED);
	if (len)
		memcpy(t->ram + KT_CODE, code, len);
	if (!(flags & KT_NO_RAM))
		assert_int_equal(kt_slot(t, 0, 0, 0, KT_RAM, t->ram), 0);
	if (flags & KT_IRQCHIP)
		assert_int_equal(kt_vm(t, KVM_CREATE_IRQCHIP, NULL), 0);
	if (flags & KT_SPLIT)
		assert_int_equal(kt_vm(t, KVM_ENABLE_CAP, &split), 0);
	if (flags & KT_NO_CPU)
		return;
	assert_int_equal(kvm_file_ioctl(t->vm, KVM_CREATE_VCPU, 0, &t->cpu), 0);
	t->run = kvm_file_mmap(t->cpu);
	assert_non_null(t->run);
	kt_start(t->cpu, KT_CODE);
}

static inline void kt_close(struct kt *t)
{
	kvm_file_close(t->cpu);
	kvm_file_close(t->vm);
	kvm_file_close(t->sys);
	munmap(t->ram, KT_RAM);
}

static inline uint64_t kt_rip(struct kt *t)
{
	struct kvm_regs r;

	assert_int_equal(kt_cpu(t, KVM_GET_REGS, &r), 0);
	return r.rip;
}

/* KVM_RUN that must succeed with this exit. */
static inline void kt_run(struct kt *t, uint32_t reason)
{
	assert_int_equal(kt_cpu(t, KVM_RUN, NULL), 0);
	assert_int_equal(t->run->exit_reason, reason);
}
