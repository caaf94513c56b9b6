/*
 * A guest that starts in long mode: user space builds page tables and sets the control registers,
 * the guest computes 10! and prints it, and reads a device register through an MMIO exit.
 *
 *     longmode [-accel kvm|soft|auto]
 *
 * References: libkvm.h, [SDM3 4.5]. Threads: main's.
 */
#include "common.h"

#define DEVICE 0x100000 /* no memory there */

/* clang-format off */
static const uint8_t guest[] = {
	0xb9, 10, 0, 0, 0,		/*	mov	ecx, 10			*/
	0xb8, 1, 0, 0, 0,		/*	mov	eax, 1			*/
	0x48, 0xf7, 0xe1,		/* 1:	mul	rcx			*/
	0xff, 0xc9,			/*	dec	ecx			*/
	0x75, 0xf9,			/*	jnz	1b			*/
	0x8b, 0x1c, 0x25, 0, 0, 0x10, 0, /*	mov	ebx, [DEVICE]		*/
	0x48, 0x01, 0xd8,		/*	add	rax, rbx		*/
	0x48, 0x89, 0x04, 0x25, 8, 0, 0x10, 0, /* mov	[DEVICE+8], rax		*/
	0xf4,				/*	hlt				*/
};
/* clang-format on */

static enum libkvm_next device(void *opaque, struct libkvm_vcpu *c, uint64_t gpa, void *data,
			       unsigned len, bool is_write)
{
	uint64_t *result = opaque;

	(void)c;
	if (is_write && gpa == DEVICE + 8 && len == 8)
		memcpy(result, data, 8);
	else if (!is_write)
		memset(data, 0, len), memcpy(data, "\x2a", 1);
	return LIBKVM_CONTINUE;
}

static void long_mode(struct kvm_sregs *s, uint8_t *ram)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = { .limit = 0xffffffff,
				    .selector = 16,
				    .type = 3,
				    .present = 1,
				    .s = 1,
				    .db = 1,
				    .g = 1 };
	uint64_t e;

	/* One 2-MiB page, identity-mapped. */
	e = 0x3003, memcpy(ram + 0x2000, &e, 8);
	e = 0x4003, memcpy(ram + 0x3000, &e, 8);
	e = 0x83, memcpy(ram + 0x4000, &e, 8);
	s->cr3 = 0x2000;
	s->cr4 = 0x20;       /* PAE */
	s->cr0 = 0x80000011; /* PG, ET, PE */
	s->efer = 0x500;     /* LMA, LME */
	s->cs = code;
	s->ds = s->es = s->fs = s->gs = s->ss = data;
}

int main(int argc, char **argv)
{
	struct libkvm *k = example_open(argc, argv);
	struct libkvm_callbacks cb = { .mmio = device };
	struct kvm_regs regs = { .rip = 0x1000, .rsp = 0x8000, .rflags = 2 };
	struct libkvm_vm *vm;
	struct libkvm_vcpu *cpu;
	struct kvm_cpuid2 *cpuid;
	struct kvm_sregs sregs;
	struct libkvm_err e = { 0 };
	uint64_t result = 0;
	uint8_t *ram;
	int r;

	if (libkvm_vm_create(k, &vm, &e))
		example_die(1, "%s", e.msg);
	ram = example_memory(vm, 0x10000, 0x1000, guest, sizeof(guest));
	if (libkvm_vcpu_create(vm, 0, &cpu, &e))
		example_die(1, "%s", e.msg);
	if (!libkvm_supported_cpuid(k, &cpuid)) {
		libkvm_set_cpuid(cpu, cpuid);
		free(cpuid);
	}
	libkvm_get_sregs(cpu, &sregs);
	long_mode(&sregs, ram);
	r = libkvm_set_sregs(cpu, &sregs);
	if (r)
		example_die(1, "KVM_SET_SREGS: %s", strerror(-r));
	libkvm_set_regs(cpu, &regs);

	r = libkvm_vcpu_loop(cpu, &cb, &result);
	if (r)
		example_die(1, "KVM_RUN: %s", strerror(-r));
	printf("10! + 42 = %llu\n", (unsigned long long)result);
	if (libkvm_vcpu_run_area(cpu)->exit_reason != KVM_EXIT_HLT || result != 3628842)
		example_die(1, "the guest stopped with exit %u",
			    libkvm_vcpu_run_area(cpu)->exit_reason);
	libkvm_vcpu_close(cpu);
	libkvm_vm_close(vm);
	libkvm_close(k);
	return 0;
}
