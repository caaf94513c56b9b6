/*
 * A vCPU as one struct with one state table, like a device: what a snapshot or a migration carries.
 *
 * The fields are those of the KVM structures, spread out so that each has a name, a size and a
 * limit of its own; so an image taken on one engine loads on the other, and a hostile one is
 * checked by the same code as a device's before the engine sees it.
 *
 * References: [KVM-API 4.11-4.14, 4.20, 4.31, 4.38, 4.57]. Threads: the vCPU is not running.
 */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "core/state.h"
#include "libkvm.h"

enum {
	VCPU_IMAGE_SEGS = 8, /* ES, CS, SS, DS, FS, GS, LDTR, TR */
	VCPU_IMAGE_MSRS = 512,
	VCPU_IMAGE_HAS_XCRS = 1 << 0,
	VCPU_IMAGE_HAS_LAPIC = 1 << 1,
	VCPU_IMAGE_HAS_ALL = 3,
};

struct vcpu_image {
	uint64_t gpr[16], rip, rflags; /* rAX, rCX, rDX, rBX, rSP, rBP, rSI, rDI, r8-r15 */
	uint64_t seg_base[VCPU_IMAGE_SEGS];
	uint32_t seg_limit[VCPU_IMAGE_SEGS];
	/* bits as in the descriptor's high dword >> 8; bit 16: unusable */
	uint32_t seg_ar[VCPU_IMAGE_SEGS];
	uint16_t seg_sel[VCPU_IMAGE_SEGS];
	uint64_t gdt_base, idt_base;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, interrupt_bitmap[4];
	uint64_t xcr0, dr[4], dr6, dr7;
	uint64_t exc_payload;
	uint64_t msr_value[VCPU_IMAGE_MSRS];
	uint32_t msr_index[VCPU_IMAGE_MSRS];
	uint32_t nmsrs, mp_state, has;
	uint32_t ev_flags, exc_error, sipi_vector;
	uint32_t xsave[1024], lapic[256];
	uint16_t gdt_limit, idt_limit;
	uint8_t exc_injected, exc_nr, exc_has_error, exc_pending, exc_has_payload;
	uint8_t irq_injected, irq_nr, irq_soft, irq_shadow;
	uint8_t nmi_injected, nmi_pending, nmi_masked;
};

extern const struct state_desc vcpu_image_state;

/*
 * Take the image of a vCPU, or give it one. The TSC is neither taken nor given: see
 * machine/vcpu_state.c. MSRs that the engine reads and does not take back are passed over. Returns
 * 0 or -errno with a line that names the part; after a failed set the vCPU is in a mixed state and
 * must be given another image, or be dropped.
 */
int vcpu_image_get(struct libkvm *k, struct libkvm_vcpu *c, struct vcpu_image *s,
		   struct err *e) must_check;
int vcpu_image_set(struct libkvm_vcpu *c, const struct vcpu_image *s, struct err *e) must_check;
