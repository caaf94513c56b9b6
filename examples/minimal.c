/*
 * The smallest virtual machine: a real-mode guest that prints a line with OUT and stops with HLT.
 *
 *     minimal [-accel kvm|soft|auto]
 *
 * References: libkvm.h. Threads: main's.
 */
#include "common.h"

/* clang-format off */
static const uint8_t guest[] = {
	0xbe, 0x0d, 0x10,	/*	mov	si, text	*/
	0xba, 0xe9, 0x00,	/*	mov	dx, 0xe9	*/
	0xac,			/* next: lodsb			*/
	0x84, 0xc0,		/*	test	al, al		*/
	0x74, 0x16,		/*	jz	stop		*/
	0xeb, 0x11,		/*	jmp	print		*/
	'H', 'e', 'l', 'l', 'o', ',', ' ', 'w', 'o', 'r', 'l', 'd', '!', '\n', 0, 0x90, 0x90,
	0xee,			/* print: out	dx, al		*/
	0xeb, 0xe5,		/*	jmp	next		*/
	0xf4,			/* stop: hlt			*/
};
/* clang-format on */

/* A port that prints: what the guest sends to 0xe9 goes to standard output. */
static enum libkvm_next example_print(void *opaque, struct libkvm_vcpu *c, uint16_t port,
				      void *data, unsigned size, unsigned count, bool is_write)
{
	size_t *printed = opaque;

	(void)c;
	if (is_write && port == 0xe9)
		*printed += fwrite(data, 1, (size_t)size * count, stdout);
	else if (!is_write)
		memset(data, 0xff, (size_t)size * count);
	return LIBKVM_CONTINUE;
}

int main(int argc, char **argv)
{
	struct libkvm *k = example_open(argc, argv);
	struct libkvm_callbacks cb = { .pio = example_print };
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	struct libkvm_vm *vm;
	struct libkvm_vcpu *cpu;
	struct kvm_sregs sregs;
	struct libkvm_err e = { 0 };
	size_t printed = 0;
	int r;

	if (libkvm_vm_create(k, &vm, &e))
		example_die(1, "%s", e.msg);
	example_memory(vm, 0x10000, 0x1000, guest, sizeof(guest));
	if (libkvm_vcpu_create(vm, 0, &cpu, &e))
		example_die(1, "%s", e.msg);
	/* After reset CS:IP is F000:FFF0; start at 0000:1000 instead. */
	libkvm_get_sregs(cpu, &sregs);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	libkvm_set_sregs(cpu, &sregs);
	libkvm_set_regs(cpu, &regs);

	r = libkvm_vcpu_loop(cpu, &cb, &printed);
	if (r)
		example_die(1, "KVM_RUN: %s", strerror(-r));
	if (libkvm_vcpu_run_area(cpu)->exit_reason != KVM_EXIT_HLT || printed != 14)
		example_die(1, "the guest stopped with exit %u after %zu characters",
			    libkvm_vcpu_run_area(cpu)->exit_reason, printed);
	libkvm_vcpu_close(cpu);
	libkvm_vm_close(vm);
	libkvm_close(k);
	return 0;
}
