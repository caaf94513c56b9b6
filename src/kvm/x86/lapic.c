/*
 * The local APIC: registers, priorities, acknowledge and end of interrupt. Modes, reset and the
 * state ioctls are in lapic_state.c, the timer in lapic_timer.c, messages in ipi.c.
 *
 * Modelled:     the xAPIC page and the x2APIC MSRs, software enable, TPR/PPR, EOI with its
 *               broadcast to the in-kernel or to user space's IOAPIC, LVT, ESR for vectors and
 *               registers. Version 14h with six LVT entries, as the kernel's.
 * Not modelled: CMCI, focus processor, arbitration priority (reads 0), remote read.
 * References:   [SDM3 10.4, 10.5, 10.8, 10.12].
 * Threads:      the owner of the vCPU, except kvm_cpu_has_interrupt (any).
 */
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"

/* How a register may be reached. X: as an x2APIC MSR. */
enum { RD = 1, WR = 2, XRD = 4, XWR = 8, RW = RD | WR | XRD | XWR };

static const struct lapic_rule {
	uint8_t access;
	uint32_t mask; /* writable bits; others raise #GP as MSR and are dropped in the page */
} lapic_rules[LAPIC_REGS] = {
	[LAPIC_ID] = { RD | WR | XRD, 0xff000000 },
	[LAPIC_VERSION] = { RD | XRD, 0 },
	[LAPIC_TPR] = { RW, 0xff },
	[LAPIC_APR] = { RD, 0 },
	[LAPIC_PPR] = { RD | XRD, 0 },
	[LAPIC_EOI] = { RD | WR | XWR, 0 },
	[LAPIC_LDR] = { RD | WR | XRD, 0xff000000 },
	[LAPIC_DFR] = { RD | WR, 0xf0000000 },
	[LAPIC_SVR] = { RW, 0x13ff },
	[LAPIC_ISR... LAPIC_IRR + 7] = { RD | XRD, 0 },
	[LAPIC_ESR] = { RW, 0 },
	[LAPIC_ICR] = { RW, 0x000cdfff },
	[LAPIC_ICR2] = { RD | WR, 0xff000000 },
	[LAPIC_LVTT] = { RW, 0x000710ff },
	[LAPIC_LVTTHMR] = { RW, 0x000117ff },
	[LAPIC_LVTPC] = { RW, 0x000117ff },
	[LAPIC_LVT0] = { RW, 0x0001f7ff },
	[LAPIC_LVT1] = { RW, 0x0001f7ff },
	[LAPIC_LVTERR] = { RW, 0x000110ff },
	[LAPIC_TMICT] = { RW, 0xffffffff },
	[LAPIC_TMCCT] = { RD | XRD, 0 },
	[LAPIC_TDCR] = { RW, 0xb },
	[LAPIC_SELF_IPI] = { XWR, 0xff },
};
#define LVT_READ_ONLY (BIT(12) | BIT(14)) /* delivery status, remote IRR */
#define ICR_BUSY      BIT(12)

bool kvm_cpuid1_ecx(const struct vcpu *v, unsigned bit)
{
	for (uint32_t i = 0; i < v->ncpuid; i++)
		if (v->cpuid[i].function == 1)
			return v->cpuid[i].ecx >> bit & 1;
	return false;
}

int kvm_apic_highest(const struct lapic *a, unsigned base)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t w = atomic_load(&a->reg[base + (unsigned)i]);

		if (w)
			return i * 32 + 31 - __builtin_clz(w);
	}
	return -1;
}

/* The vector that may be delivered now, or -1. Any thread. */
static int lapic_deliverable(struct lapic *a)
{
	int irr;

	if (atomic_load(&a->mode) == LAPIC_OFF || !atomic_load(&a->irr_pending))
		return -1;
	irr = kvm_apic_highest(a, LAPIC_IRR);
	return irr >= 0 && (uint32_t)(irr & 0xf0) > (lapic_reg(a, LAPIC_PPR) & 0xf0) ? irr : -1;
}

static void lapic_update_ppr(struct lapic *a)
{
	uint32_t tpr = lapic_reg(a, LAPIC_TPR);
	int isr = kvm_apic_highest(a, LAPIC_ISR);
	uint32_t isrv = isr < 0 ? 0 : (uint32_t)isr & 0xf0;

	lapic_put(a, LAPIC_PPR, (tpr & 0xf0) >= isrv ? tpr : isrv);
	if (lapic_deliverable(a) >= 0)
		kvm_make_request(a->v, REQ_EVENT);
}

/* ---- Acknowledge and end -------------------------------------------------------------------- */

static bool lapic_pic_waits(struct vcpu *v)
{
	struct kvm_vm *vm = v->vm;

	return vm->irqchip_in_kernel && atomic_load(&kvm_chips(vm)->pic.output) &&
	       (!v->lapic || kvm_apic_takes_extint(v->lapic));
}

/* KVM_INTERRUPT with a split irqchip: the PIC is user space's. */
static bool lapic_user_waits(struct vcpu *v)
{
	return atomic_load(&v->pending_extint) && v->lapic && kvm_apic_takes_extint(v->lapic);
}

bool kvm_cpu_has_interrupt(struct vcpu *v)
{
	return (v->lapic && lapic_deliverable(v->lapic) >= 0) || lapic_pic_waits(v) ||
	       lapic_user_waits(v);
}

int kvm_cpu_get_interrupt(struct vcpu *v)
{
	struct lapic *a = v->lapic;
	int vec;

	if (lapic_pic_waits(v))
		return kvm_pic_read_irq(v->vm);
	if (lapic_user_waits(v))
		return atomic_exchange(&v->pending_extint, 0) - 1;
	vec = a ? lapic_deliverable(a) : -1;
	if (vec < 0)
		return -1;
	/* A bit that is set between these lines sets irr_pending after its IRR bit: not lost. */
	atomic_store(&a->irr_pending, false);
	atomic_fetch_and(&a->reg[LAPIC_IRR + vec / 32], ~(1u << (vec % 32)));
	if (kvm_apic_highest(a, LAPIC_IRR) >= 0)
		atomic_store(&a->irr_pending, true);
	atomic_fetch_or(&a->reg[LAPIC_ISR + vec / 32], 1u << (vec % 32));
	lapic_update_ppr(a);
	return vec;
}

static void lapic_eoi(struct lapic *a)
{
	struct vcpu *v = a->v;
	int vec = kvm_apic_highest(a, LAPIC_ISR);
	bool level, directed = lapic_reg(a, LAPIC_SVR) & SVR_DIRECTED_EOI;

	if (vec < 0)
		return; /* end of a spurious interrupt */
	atomic_fetch_and(&a->reg[LAPIC_ISR + vec / 32], ~(1u << (vec % 32)));
	level = lapic_reg(a, LAPIC_TMR + (unsigned)vec / 32) >> (vec % 32) & 1;
	lapic_update_ppr(a);
	if (!v->vm->irqchip_split) {
		kvm_ioapic_eoi(v->vm, (uint8_t)vec, level, directed);
	} else if (level && !directed) {
		/* User space's IOAPIC hears of it after this instruction. */
		v->run->eoi.vector = (uint8_t)vec;
		v->ioapic_eoi_exit = true;
	}
}

/* ---- Registers ------------------------------------------------------------------------------ */

static bool lapic_has_directed_eoi(const struct lapic *a)
{
	/* The in-kernel IOAPIC has no EOI register to direct it to. */
	return a->v->vm->irqchip_split && kvm_cpuid1_ecx(a->v, 21);
}

uint32_t kvm_apic_version(const struct lapic *a)
{
	return 0x50014 | (lapic_has_directed_eoi(a) ? BIT(24) : 0);
}

static uint32_t lapic_read(struct lapic *a, unsigned n)
{
	switch (n) {
	case LAPIC_VERSION: return kvm_apic_version(a);
	case LAPIC_TMCCT: return kvm_apic_timer_count(a);
	default: return lapic_reg(a, n);
	}
}

static void lapic_write_lvt(struct lapic *a, unsigned n, uint32_t val)
{
	val &= ~(uint32_t)LVT_READ_ONLY;
	if (!(lapic_reg(a, LAPIC_SVR) & SVR_ENABLE))
		val |= LVT_MASKED;
	if (n == LAPIC_LVTT) {
		if (!kvm_cpuid1_ecx(a->v, 24))
			val &= ~LVT_TIMER_TSC;
		kvm_apic_timer_write_lvtt(a, val);
	} else {
		lapic_put(a, n, val);
	}
	if (n == LAPIC_LVT0 && lapic_pic_waits(a->v))
		kvm_make_request(a->v, REQ_EVENT);
}

static void lapic_write_svr(struct lapic *a, uint32_t val)
{
	if (!lapic_has_directed_eoi(a))
		val &= ~(uint32_t)SVR_DIRECTED_EOI;
	lapic_put(a, LAPIC_SVR, val);
	if (!(val & SVR_ENABLE))
		for (unsigned n = LAPIC_LVTT; n <= LAPIC_LVTERR; n++)
			lapic_write_lvt(a, n, lapic_reg(a, n));
}

/* val has writable bits only. */
static void lapic_write(struct lapic *a, unsigned n, uint32_t val)
{
	switch (n) {
	case LAPIC_TPR:
		lapic_put(a, n, val);
		lapic_update_ppr(a);
		break;
	case LAPIC_EOI: lapic_eoi(a); break;
	case LAPIC_DFR: lapic_put(a, n, val | 0x0fffffff); break;
	case LAPIC_SVR: lapic_write_svr(a, val); break;
	case LAPIC_ESR: lapic_put(a, n, atomic_exchange(&a->esr_pending, 0)); break;
	case LAPIC_LVTT:
	case LAPIC_LVTTHMR:
	case LAPIC_LVTPC:
	case LAPIC_LVT0:
	case LAPIC_LVT1:
	case LAPIC_LVTERR: lapic_write_lvt(a, n, val); break;
	case LAPIC_TMICT: kvm_apic_timer_write_count(a, val); break;
	case LAPIC_TDCR: kvm_apic_timer_write_divide(a, val); break;
	default: lapic_put(a, n, val); break; /* ID, LDR, ICR2 */
	}
}

/* ---- The xAPIC page ------------------------------------------------------------------------- */

bool kvm_lapic_claims(struct vcpu *v, gpa_t gpa)
{
	return v->lapic && atomic_load(&v->lapic->mode) == LAPIC_XAPIC &&
	       (gpa & PAGE_MASK) == (v->msr.apic_base & PAGE_MASK);
}

void kvm_lapic_mmio_read(struct vcpu *v, gpa_t gpa, int len, void *data)
{
	unsigned off = gpa & 0xfff, n = off >> 4;
	uint32_t val;

	memset(data, 0, (size_t)len);
	/* Registers are 32 bits wide, 16 bytes apart; what is between them is not there. */
	if ((off & 0xf) + (unsigned)len > 4)
		return;
	if (n >= LAPIC_REGS || !(lapic_rules[n].access & RD)) {
		kvm_apic_error(v->lapic, ESR_ILLEGAL_REG);
		return;
	}
	val = lapic_read(v->lapic, n);
	memcpy(data, (const char *)&val + (off & 0xf), (size_t)len);
}

void kvm_lapic_mmio_write(struct vcpu *v, gpa_t gpa, int len, const void *data)
{
	unsigned off = gpa & 0xfff, n = off >> 4;
	struct lapic *a = v->lapic;
	uint32_t val;

	if (len != 4 || (off & 0xf))
		return;
	if (n >= LAPIC_REGS || !(lapic_rules[n].access & WR)) {
		kvm_apic_error(a, ESR_ILLEGAL_REG);
		return;
	}
	memcpy(&val, data, 4);
	val &= lapic_rules[n].mask;
	if (n == LAPIC_ICR) {
		val &= ~(uint32_t)ICR_BUSY; /* sent at once: never busy */
		lapic_put(a, n, val);
		kvm_apic_write_icr(a, val, lapic_reg(a, LAPIC_ICR2) >> 24);
	} else {
		lapic_write(a, n, val);
	}
}

/* ---- x2APIC MSRs ---------------------------------------------------------------------------- */

int kvm_x2apic_msr_read(struct vcpu *v, uint32_t index, uint64_t *value)
{
	struct lapic *a = v->lapic;
	unsigned n = index - 0x800;

	if (!a || !lapic_x2(a) || n >= LAPIC_REGS || !(lapic_rules[n].access & XRD))
		return 1;
	*value = lapic_read(a, n);
	if (n == LAPIC_ICR)
		*value |= (uint64_t)lapic_reg(a, LAPIC_ICR2) << 32;
	return 0;
}

int kvm_x2apic_msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
	struct lapic *a = v->lapic;
	unsigned n = index - 0x800;
	uint32_t low = (uint32_t)value;

	if (!a || !lapic_x2(a) || n >= LAPIC_REGS || !(lapic_rules[n].access & XWR) ||
	    (low & ~lapic_rules[n].mask) || (n != LAPIC_ICR && value >> 32))
		return 1;
	if (n == LAPIC_ICR) {
		low &= ~(uint32_t)ICR_BUSY;
		lapic_put(a, LAPIC_ICR, low);
		lapic_put(a, LAPIC_ICR2, (uint32_t)(value >> 32));
		kvm_apic_write_icr(a, low, (uint32_t)(value >> 32));
	} else if (n == LAPIC_SELF_IPI) {
		kvm_apic_write_icr(a, low | 1u << 18, 0);
	} else {
		lapic_write(a, n, low);
	}
	return 0;
}

uint64_t kvm_lapic_get_cr8(struct vcpu *v)
{
	return v->lapic ? lapic_reg(v->lapic, LAPIC_TPR) >> 4 & 0xf : v->cr8;
}

void kvm_lapic_set_cr8(struct vcpu *v, uint64_t cr8)
{
	if (v->lapic)
		lapic_write(v->lapic, LAPIC_TPR, (uint32_t)(cr8 & 0xf) << 4);
	else
		v->cr8 = cr8 & 0xf;
}

/* After a reset or a load. */
void kvm_apic_refresh(struct lapic *a)
{
	atomic_store(&a->irr_pending, kvm_apic_highest(a, LAPIC_IRR) >= 0);
	lapic_update_ppr(a);
	if (kvm_cpu_has_interrupt(a->v))
		kvm_make_request(a->v, REQ_EVENT);
}
