/*
 * The same requests to both engines, and what they answer.
 *
 * A case writes lines into the log of the engine it runs on; the lines of both are then compared.
 * References: [KVM-API]. Threads: main's, and one that kicks.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "libkvm.h"

enum { AD_RAM = 0x40000, AD_CODE = 0x1000, AD_MMIO = 0x100000, AD_LINE = 240, AD_LINES = 2000 };

/* One engine; the VM and the vCPU are new for each case. */
struct ad_world {
	struct libkvm *k;
	struct libkvm_vm *vm;
	struct libkvm_vcpu *cpu;
	struct kvm_run *run;
	uint8_t *ram;
	char (*log)[AD_LINE];
	unsigned lines;
};

struct ad_case {
	const char *name;
	void (*go)(struct ad_world *w);
	unsigned flags;
};

enum {
	AD_NO_VCPU = 1 << 0,
	AD_IRQCHIP = 1 << 1,
	AD_CPUID = 1 << 2, /* what the engine supports, set */
};

extern const struct ad_case ad_ioctl_cases[], ad_run_cases[]; /* end at a NULL name */

/* A line "label: text" for the comparison; label may have blanks, no colon. */
__attribute__((format(printf, 3, 4))) void ad_say(struct ad_world *w, const char *label,
						  const char *fmt, ...);

/* The result of a request: a number or an errno's name. */
void ad_ret(struct ad_world *w, const char *label, int r);

/* KVM_RUN that ends with -EINTR after a second. */
int ad_run(struct ad_world *w);
