/* A vCPU as one struct with one state table. See vcpu_image.h. */
#include "machine/vcpu_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum { MSR_TSC = 0x10, MSR_TSC_DEADLINE = 0x6e0 };

static const struct field vcpu_image_fields[] = {
	ST_ARR(struct vcpu_image, gpr),
	ST(struct vcpu_image, rip),
	ST(struct vcpu_image, rflags),
	ST_ARR(struct vcpu_image, seg_base),
	ST_ARR(struct vcpu_image, seg_limit),
	ST_ARR(struct vcpu_image, seg_ar, .lim = 1 << 17),
	ST_ARR(struct vcpu_image, seg_sel),
	ST(struct vcpu_image, gdt_base),
	ST(struct vcpu_image, idt_base),
	ST(struct vcpu_image, cr0),
	ST(struct vcpu_image, cr2),
	ST(struct vcpu_image, cr3),
	ST(struct vcpu_image, cr4),
	ST(struct vcpu_image, cr8, .lim = 16),
	ST(struct vcpu_image, efer),
	ST(struct vcpu_image, apic_base),
	ST_ARR(struct vcpu_image, interrupt_bitmap),
	ST(struct vcpu_image, xcr0),
	ST_ARR(struct vcpu_image, dr),
	ST(struct vcpu_image, dr6),
	ST(struct vcpu_image, dr7),
	ST(struct vcpu_image, exc_payload),
	ST_ARR(struct vcpu_image, msr_value),
	ST_ARR(struct vcpu_image, msr_index),
	ST(struct vcpu_image, nmsrs, .lim = VCPU_IMAGE_MSRS + 1),
	ST(struct vcpu_image, mp_state),
	ST(struct vcpu_image, has, .lim = VCPU_IMAGE_HAS_ALL + 1),
	ST(struct vcpu_image, ev_flags),
	ST(struct vcpu_image, exc_error),
	ST(struct vcpu_image, sipi_vector, .lim = 256),
	ST_ARR(struct vcpu_image, xsave),
	ST_ARR(struct vcpu_image, lapic),
	ST(struct vcpu_image, gdt_limit),
	ST(struct vcpu_image, idt_limit),
	ST(struct vcpu_image, exc_injected, .lim = 2),
	ST(struct vcpu_image, exc_nr, .lim = 32),
	ST(struct vcpu_image, exc_has_error, .lim = 2),
	ST(struct vcpu_image, exc_pending, .lim = 2),
	ST(struct vcpu_image, exc_has_payload, .lim = 2),
	ST(struct vcpu_image, irq_injected, .lim = 2),
	ST(struct vcpu_image, irq_nr),
	ST(struct vcpu_image, irq_soft, .lim = 2),
	ST(struct vcpu_image, irq_shadow, .lim = 4),
	ST(struct vcpu_image, nmi_injected, .lim = 2),
	ST(struct vcpu_image, nmi_pending, .lim = 3),
	ST(struct vcpu_image, nmi_masked, .lim = 2),
	{ 0 },
};

const struct state_desc vcpu_image_state = { vcpu_image_fields, 0, sizeof(struct vcpu_image), 1 };

/* ---- Registers ------------------------------------------------------------------------------ */

/* The order of struct kvm_regs is not the processor's. */
static __u64 *image_gpr(struct kvm_regs *r, unsigned n)
{
	__u64 *const at[16] = { &r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp,
				&r->rsi, &r->rdi, &r->r8,  &r->r9,  &r->r10, &r->r11,
				&r->r12, &r->r13, &r->r14, &r->r15 };

	return at[n];
}

static struct kvm_segment *image_seg(struct kvm_sregs *s, unsigned n)
{
	struct kvm_segment *const at[VCPU_IMAGE_SEGS] = { &s->es, &s->cs, &s->ss,  &s->ds,
							  &s->fs, &s->gs, &s->ldt, &s->tr };

	return at[n];
}

static uint32_t image_ar(const struct kvm_segment *g)
{
	return g->type | (uint32_t)g->s << 4 | (uint32_t)g->dpl << 5 | (uint32_t)g->present << 7 |
	       (uint32_t)g->avl << 12 | (uint32_t)g->l << 13 | (uint32_t)g->db << 14 |
	       (uint32_t)g->g << 15 | (uint32_t)g->unusable << 16;
}

static void image_set_ar(struct kvm_segment *g, uint32_t ar)
{
	g->type = ar & 15;
	g->s = ar >> 4 & 1;
	g->dpl = ar >> 5 & 3;
	g->present = ar >> 7 & 1;
	g->avl = ar >> 12 & 1;
	g->l = ar >> 13 & 1;
	g->db = ar >> 14 & 1;
	g->g = ar >> 15 & 1;
	g->unusable = ar >> 16 & 1;
}

static void image_from_sregs(struct vcpu_image *s, struct kvm_sregs *g)
{
	for (unsigned n = 0; n < VCPU_IMAGE_SEGS; n++) {
		const struct kvm_segment *seg = image_seg(g, n);

		s->seg_base[n] = seg->base;
		s->seg_limit[n] = seg->limit;
		s->seg_sel[n] = seg->selector;
		s->seg_ar[n] = image_ar(seg);
	}
	s->gdt_base = g->gdt.base;
	s->gdt_limit = g->gdt.limit;
	s->idt_base = g->idt.base;
	s->idt_limit = g->idt.limit;
	s->cr0 = g->cr0;
	s->cr2 = g->cr2;
	s->cr3 = g->cr3;
	s->cr4 = g->cr4;
	s->cr8 = g->cr8;
	s->efer = g->efer;
	s->apic_base = g->apic_base;
	memcpy(s->interrupt_bitmap, g->interrupt_bitmap, sizeof(s->interrupt_bitmap));
}

static void image_to_sregs(const struct vcpu_image *s, struct kvm_sregs *g)
{
	for (unsigned n = 0; n < VCPU_IMAGE_SEGS; n++) {
		struct kvm_segment *seg = image_seg(g, n);

		seg->base = s->seg_base[n];
		seg->limit = s->seg_limit[n];
		seg->selector = s->seg_sel[n];
		image_set_ar(seg, s->seg_ar[n]);
	}
	g->gdt.base = s->gdt_base;
	g->gdt.limit = s->gdt_limit;
	g->idt.base = s->idt_base;
	g->idt.limit = s->idt_limit;
	g->cr0 = s->cr0;
	g->cr2 = s->cr2;
	g->cr3 = s->cr3;
	g->cr4 = s->cr4;
	g->cr8 = s->cr8;
	g->efer = s->efer;
	g->apic_base = s->apic_base;
	memcpy(g->interrupt_bitmap, s->interrupt_bitmap, sizeof(s->interrupt_bitmap));
}

static void image_from_events(struct vcpu_image *s, const struct kvm_vcpu_events *v)
{
	s->ev_flags = v->flags;
	s->exc_injected = v->exception.injected;
	s->exc_nr = v->exception.nr;
	s->exc_has_error = v->exception.has_error_code;
	s->exc_pending = v->exception.pending;
	s->exc_error = v->exception.error_code;
	s->exc_has_payload = v->exception_has_payload;
	s->exc_payload = v->exception_payload;
	s->irq_injected = v->interrupt.injected;
	s->irq_nr = v->interrupt.nr;
	s->irq_soft = v->interrupt.soft;
	s->irq_shadow = v->interrupt.shadow;
	s->nmi_injected = v->nmi.injected;
	s->nmi_pending = v->nmi.pending;
	s->nmi_masked = v->nmi.masked;
	s->sipi_vector = v->sipi_vector;
}

static void image_to_events(const struct vcpu_image *s, struct kvm_vcpu_events *v)
{
	v->flags = s->ev_flags;
	v->exception.injected = s->exc_injected;
	v->exception.nr = s->exc_nr;
	v->exception.has_error_code = s->exc_has_error;
	v->exception.pending = s->exc_pending;
	v->exception.error_code = s->exc_error;
	v->exception_has_payload = s->exc_has_payload;
	v->exception_payload = s->exc_payload;
	v->interrupt.injected = s->irq_injected;
	v->interrupt.nr = s->irq_nr;
	v->interrupt.soft = s->irq_soft;
	v->interrupt.shadow = s->irq_shadow;
	v->nmi.injected = s->nmi_injected;
	v->nmi.pending = s->nmi_pending;
	v->nmi.masked = s->nmi_masked;
	v->sipi_vector = s->sipi_vector;
}

/* ---- Get ------------------------------------------------------------------------------------ */

static int image_fail(struct err *e, int r, const char *what)
{
	return err_set(e, -r, "%s of a vCPU's state: %s", what, strerror(-r));
}

static int image_get_msrs(struct libkvm *k, struct libkvm_vcpu *c, struct vcpu_image *s,
			  struct err *e)
{
	struct kvm_msr_list *l = calloc(1, sizeof(*l) + VCPU_IMAGE_MSRS * sizeof(l->indices[0]));
	int r;

	if (!l)
		return err_set(e, ENOMEM, "out of memory");
	l->nmsrs = VCPU_IMAGE_MSRS;
	r = libkvm_ioctl(k, KVM_GET_MSR_INDEX_LIST, l);
	for (unsigned i = 0; r >= 0 && i < l->nmsrs; i++) {
		uint64_t v;

		if (l->indices[i] == MSR_TSC || libkvm_get_msr(c, l->indices[i], &v))
			continue;
		s->msr_index[s->nmsrs] = l->indices[i];
		s->msr_value[s->nmsrs++] = v;
	}
	free(l);
	return r < 0 ? image_fail(e, r, "KVM_GET_MSR_INDEX_LIST") : 0;
}

int vcpu_image_get(struct libkvm *k, struct libkvm_vcpu *c, struct vcpu_image *s, struct err *e)
{
	struct kvm_vcpu_events events = { 0 };
	struct kvm_debugregs dr = { 0 };
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp = { 0 };
	struct kvm_xcrs xcrs = { 0 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int r;

	memset(s, 0, sizeof(*s));
	if ((r = libkvm_get_regs(c, &regs)) < 0 || (r = libkvm_get_sregs(c, &sregs)) < 0)
		return image_fail(e, r, "registers");
	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = *image_gpr(&regs, n);
	s->rip = regs.rip;
	s->rflags = regs.rflags;
	image_from_sregs(s, &sregs);
	if ((r = libkvm_vcpu_ioctl(c, KVM_GET_XSAVE, s->xsave)) < 0)
		return image_fail(e, r, "KVM_GET_XSAVE");
	if (libkvm_check(k, KVM_CAP_XCRS) > 0 && libkvm_vcpu_ioctl(c, KVM_GET_XCRS, &xcrs) >= 0 &&
	    xcrs.nr_xcrs) {
		s->has |= VCPU_IMAGE_HAS_XCRS;
		s->xcr0 = xcrs.xcrs[0].value;
	}
	if (libkvm_vcpu_ioctl(c, KVM_GET_LAPIC, &lapic) >= 0) {
		s->has |= VCPU_IMAGE_HAS_LAPIC;
		memcpy(s->lapic, lapic.regs, sizeof(s->lapic));
	}
	if ((r = libkvm_vcpu_ioctl(c, KVM_GET_DEBUGREGS, &dr)) < 0)
		return image_fail(e, r, "KVM_GET_DEBUGREGS");
	memcpy(s->dr, dr.db, sizeof(s->dr));
	s->dr6 = dr.dr6;
	s->dr7 = dr.dr7;
	if ((r = libkvm_vcpu_ioctl(c, KVM_GET_VCPU_EVENTS, &events)) < 0)
		return image_fail(e, r, "KVM_GET_VCPU_EVENTS");
	image_from_events(s, &events);
	if ((r = libkvm_vcpu_ioctl(c, KVM_GET_MP_STATE, &mp)) < 0)
		return image_fail(e, r, "KVM_GET_MP_STATE");
	s->mp_state = mp.mp_state;
	return image_get_msrs(k, c, s, e);
}

/* ---- Set ------------------------------------------------------------------------------------ */

int vcpu_image_set(struct libkvm_vcpu *c, const struct vcpu_image *s, struct err *e)
{
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };
	struct kvm_mp_state mp = { .mp_state = s->mp_state };
	struct kvm_debugregs dr = { .dr6 = s->dr6, .dr7 = s->dr7 };
	struct kvm_vcpu_events events = { 0 };
	uint32_t xsave[ARRAY_SIZE(s->xsave)];
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int r;

	/* in this order: XSAVE needs XCR0, the LAPIC its base, the timer MSR the LAPIC's mode */
	memset(&sregs, 0, sizeof(sregs));
	image_to_sregs(s, &sregs);
	if ((r = libkvm_set_sregs(c, &sregs)) < 0)
		return image_fail(e, r, "system registers");
	memset(&regs, 0, sizeof(regs));
	for (unsigned n = 0; n < 16; n++)
		*image_gpr(&regs, n) = s->gpr[n];
	regs.rip = s->rip;
	regs.rflags = s->rflags;
	if ((r = libkvm_set_regs(c, &regs)) < 0)
		return image_fail(e, r, "registers");
	if ((s->has & VCPU_IMAGE_HAS_XCRS) && (r = libkvm_vcpu_ioctl(c, KVM_SET_XCRS, &xcrs)) < 0)
		return image_fail(e, r, "XCR0");
	memcpy(xsave, s->xsave, sizeof(xsave));
	if ((r = libkvm_vcpu_ioctl(c, KVM_SET_XSAVE, xsave)) < 0)
		return image_fail(e, r, "the XSAVE area");
	for (unsigned n = 0; n < s->nmsrs; n++)
		if (s->msr_index[n] != MSR_TSC && s->msr_index[n] != MSR_TSC_DEADLINE)
			(void)libkvm_set_msr(c, s->msr_index[n], s->msr_value[n]);
	if (s->has & VCPU_IMAGE_HAS_LAPIC) {
		memcpy(lapic.regs, s->lapic, sizeof(s->lapic));
		if ((r = libkvm_vcpu_ioctl(c, KVM_SET_LAPIC, &lapic)) < 0)
			return image_fail(e, r, "the LAPIC");
	}
	for (unsigned n = 0; n < s->nmsrs; n++)
		if (s->msr_index[n] == MSR_TSC_DEADLINE)
			(void)libkvm_set_msr(c, MSR_TSC_DEADLINE, s->msr_value[n]);
	image_to_events(s, &events);
	if ((r = libkvm_vcpu_ioctl(c, KVM_SET_VCPU_EVENTS, &events)) < 0)
		return image_fail(e, r, "pending events");
	memcpy(dr.db, s->dr, sizeof(s->dr));
	if ((r = libkvm_vcpu_ioctl(c, KVM_SET_DEBUGREGS, &dr)) < 0)
		return image_fail(e, r, "debug registers");
	if ((r = libkvm_vcpu_ioctl(c, KVM_SET_MP_STATE, &mp)) < 0)
		return image_fail(e, r, "the run state");
	return 0;
}
