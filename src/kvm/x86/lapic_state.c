/*
 * The local APIC's modes, reset, INIT and start-up, and KVM_GET_LAPIC and KVM_SET_LAPIC.
 *
 * Modelled:     disabled, xAPIC and x2APIC with the legal transitions, relocation of the page.
 * Not modelled: a page that is moved over guest RAM: RAM stays visible there.
 * References:   [SDM3 8.4.2, 10.4.3, 10.4.7, 10.12.1, 10.12.5], [KVM-API 4.57, 4.58].
 * Threads:      the owner of the vCPU.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"
#include "kvm/x86/irqchip_state.h"

static uint32_t lapic_x2_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 0xf);
}

static void lapic_set_id(struct lapic *a)
{
	if (lapic_x2(a)) {
		lapic_put(a, LAPIC_ID, a->v->id);
		lapic_put(a, LAPIC_LDR, lapic_x2_ldr(a->v->id));
	} else {
		lapic_put(a, LAPIC_ID, a->v->id << 24);
	}
}

static enum lapic_mode lapic_mode_of(uint64_t base)
{
	if (!(base & APIC_BASE_EN))
		return LAPIC_OFF;
	return base & APIC_BASE_X2 ? LAPIC_X2APIC : LAPIC_XAPIC;
}

/* Power-up values of everything but the mode. */
static void lapic_clear(struct lapic *a)
{
	kvm_apic_timer_stop(a);
	for (unsigned n = 0; n < LAPIC_REGS; n++)
		if (n != LAPIC_ID)
			atomic_store(&a->reg[n], 0);
	for (unsigned n = LAPIC_LVTT; n <= LAPIC_LVTERR; n++)
		lapic_put(a, n, LVT_MASKED);
	lapic_put(a, LAPIC_DFR, 0xffffffff);
	lapic_put(a, LAPIC_SVR, 0xff);
	/*
	 * The boot processor wakes up with the PIC wired through, as firmware would leave it: the
	 * kernel does so (KVM_X86_QUIRK_LINT0_REENABLED), and guests without APIC code need it.
	 */
	if ((a->v->msr.apic_base & APIC_BASE_BSP) &&
	    !(a->v->vm->config.disabled_quirks & KVM_X86_QUIRK_LINT0_REENABLED))
		lapic_put(a, LAPIC_LVT0, DM_EXTINT << 8);
	atomic_store(&a->esr_pending, 0);
	lapic_set_id(a);
	kvm_apic_refresh(a);
}

void kvm_lapic_reset(struct vcpu *v, bool init)
{
	struct lapic *a = v->lapic;

	/* INIT leaves the mode, the page and the id. */
	if (!init) {
		v->msr.apic_base = APIC_BASE_ADDR | APIC_BASE_EN;
		if (v->id == v->vm->config.boot_cpu_id)
			v->msr.apic_base |= APIC_BASE_BSP;
	}
	if (!a)
		return;
	atomic_store(&a->mode, (uint8_t)lapic_mode_of(v->msr.apic_base));
	lapic_clear(a);
}

int kvm_lapic_create(struct vcpu *v)
{
	struct lapic *a;

	if (!kvm_chips(v->vm))
		return -ENOMEM;
	a = aligned_alloc(64, (sizeof(*a) + 63) & ~(size_t)63);
	if (!a)
		return -ENOMEM;
	memset(a, 0, sizeof(*a));
	a->v = v;
	pthread_mutex_init(&a->timer_lock, NULL);
	kvm_apic_timer_init(a);
	v->lapic = a;
	kvm_lapic_reset(v, false);
	atomic_store(&v->mp_state, v->msr.apic_base & APIC_BASE_BSP ? KVM_MP_STATE_RUNNABLE
								    : KVM_MP_STATE_UNINITIALIZED);
	return 0;
}

void kvm_lapic_free(struct vcpu *v)
{
	struct lapic *a = v->lapic;

	if (!a)
		return;
	kvm_apic_timer_stop(a);
	v->lapic = NULL;
	pthread_mutex_destroy(&a->timer_lock);
	free(a);
}

int kvm_lapic_set_base(struct vcpu *v, uint64_t value, bool host)
{
	unsigned width = v->maxphyaddr ? v->maxphyaddr : 36;
	uint64_t reserved = ~(BIT(width) - 1) | 0x2ff;
	enum lapic_mode old = lapic_mode_of(v->msr.apic_base), new = lapic_mode_of(value);
	struct lapic *a = v->lapic;

	if (!kvm_cpuid1_ecx(v, 21))
		reserved |= APIC_BASE_X2;
	if ((value & reserved) || (value & (APIC_BASE_X2 | APIC_BASE_EN)) == APIC_BASE_X2)
		return 1;
	/* Out of x2APIC mode the way leads through disabled, and into it through xAPIC. */
	if (!host && ((old == LAPIC_X2APIC && new == LAPIC_XAPIC) ||
		      (old == LAPIC_OFF && new == LAPIC_X2APIC)))
		return 1;

	v->msr.apic_base = value;
	if (!a || old == new)
		return 0;
	atomic_store(&a->mode, (uint8_t) new);
	/* Disabling loses all state; user space loads the page after this and wants no surprise. */
	if (!host && (old == LAPIC_OFF || new == LAPIC_OFF))
		lapic_clear(a);
	else if (new != LAPIC_OFF)
		lapic_set_id(a);
	if (!host && new == LAPIC_X2APIC)
		lapic_put(a, LAPIC_ICR2, 0);
	if (kvm_cpu_has_interrupt(v))
		kvm_make_request(v, REQ_EVENT);
	return 0;
}

/* ---- KVM_GET_LAPIC, KVM_SET_LAPIC ----------------------------------------------------------- */

static bool lapic_wide_ids(const struct lapic *a)
{
	return a->v->vm->config.x2apic_32bit_ids;
}

static uint32_t lapic_state_reg(const struct kvm_lapic_state *s, unsigned n)
{
	uint32_t v;

	memcpy(&v, s->regs + (size_t)n * 16, 4);
	return v;
}

static void lapic_state_put(struct kvm_lapic_state *s, unsigned n, uint32_t v)
{
	memcpy(s->regs + (size_t)n * 16, &v, 4);
}

int kvm_lapic_get(struct vcpu *v, struct kvm_lapic_state *s)
{
	struct lapic *a = v->lapic;
	struct kvm_lapic_state raw;

	if (!a)
		return -EINVAL;
	memset(&raw, 0, sizeof(raw));
	for (unsigned n = 0; n < LAPIC_REGS; n++)
		lapic_state_put(&raw, n, lapic_reg(a, n));
	lapic_state_put(&raw, LAPIC_TMCCT, kvm_apic_timer_count(a));
	lapic_state_put(&raw, LAPIC_VERSION, kvm_apic_version(a));
	if (lapic_x2(a) && !lapic_wide_ids(a))
		lapic_state_put(&raw, LAPIC_ID, v->id << 24);
	kvm_chip_state_load(&kvm_lapic_table, s, &raw);
	return 0;
}

int kvm_lapic_set(struct vcpu *v, const struct kvm_lapic_state *s)
{
	struct lapic *a = v->lapic;
	struct kvm_lapic_state in;

	if (!a)
		return -EINVAL;
	if (lapic_x2(a) && lapic_wide_ids(a) && lapic_state_reg(s, LAPIC_ID) != v->id)
		return -EINVAL;
	kvm_chip_state_load(&kvm_lapic_table, &in, s);
	kvm_apic_timer_stop(a);
	for (unsigned n = 0; n < LAPIC_REGS; n++)
		atomic_store(&a->reg[n], lapic_state_reg(&in, n));
	lapic_put(a, LAPIC_TMCCT, 0);
	if (lapic_x2(a)) {
		lapic_set_id(a);
	} else {
		lapic_put(a, LAPIC_ID, lapic_state_reg(&in, LAPIC_ID) & 0xff000000);
		lapic_put(a, LAPIC_LDR, lapic_state_reg(&in, LAPIC_LDR) & 0xff000000);
	}
	/* The software switch masks the whole LVT; a state that says otherwise is repaired. */
	if (!(lapic_reg(a, LAPIC_SVR) & SVR_ENABLE) && !(v->msr.apic_base & APIC_BASE_BSP))
		for (unsigned n = LAPIC_LVTT; n <= LAPIC_LVTERR; n++)
			lapic_put(a, n, lapic_reg(a, n) | LVT_MASKED);
	atomic_store(&a->esr_pending, 0);
	kvm_apic_timer_load(a, lapic_state_reg(&in, LAPIC_TMCCT));
	kvm_apic_refresh(a);
	return 0;
}

/* ---- INIT and start-up ---------------------------------------------------------------------- */

void kvm_lapic_accept_events(struct vcpu *v)
{
	if (!v->lapic)
		return;
	if (atomic_load(&v->pending_events) & VCPU_EV_INIT) {
		atomic_fetch_and(&v->pending_events, ~(unsigned)VCPU_EV_INIT);
		vcpu_reset(v, true);
		atomic_store(&v->mp_state, v->msr.apic_base & APIC_BASE_BSP
						   ? KVM_MP_STATE_RUNNABLE
						   : KVM_MP_STATE_INIT_RECEIVED);
	}
	if (atomic_fetch_and(&v->pending_events, ~(unsigned)VCPU_EV_SIPI) & VCPU_EV_SIPI) {
		uint8_t vec = __atomic_load_n(&v->sipi_vector, __ATOMIC_ACQUIRE);

		/* A processor that does not wait for it ignores it: the second SIPI of the
		 * protocol. */
		if (atomic_load(&v->mp_state) != KVM_MP_STATE_INIT_RECEIVED)
			return;
		v->seg[SEG_CS].sel = (uint16_t)(vec << 8);
		v->seg[SEG_CS].base = (uint64_t)vec << 12;
		v->r[REG_RIP] = 0;
		vcpu_update_mode(v);
		atomic_store(&v->mp_state, KVM_MP_STATE_RUNNABLE);
	}
}
