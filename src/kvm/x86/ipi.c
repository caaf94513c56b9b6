/*
 * Messages between local APICs: who is meant, and what happens where they arrive.
 *
 * Modelled:     physical and logical destinations (flat, cluster, x2APIC), broadcast,
 *               shorthands; fixed, lowest priority, NMI, INIT (assert; deassert is ignored),
 *               start-up.
 * Not modelled: SMI and remote read are dropped; ExtINT messages too, the PIC's output is
 *               looked at through LINT0 (kvm_apic_takes_extint). Fixed IPIs are edges whatever
 *               ICR bit 15 says, as since the Pentium 4.
 * References:   [SDM3 10.6, 10.7, 10.11, 10.12.9, 10.12.10].
 * Threads:      any. IRR and TMR are atomic bit sets; see struct lapic.
 */
#include "kvm/x86/chips.h"
#include "kvm/x86/irqchip.h"

static void apic_set_bit(struct lapic *a, unsigned base, uint8_t vector)
{
	atomic_fetch_or(&a->reg[base + vector / 32], 1u << (vector % 32));
}

void kvm_inject_nmi(struct vcpu *v)
{
	unsigned n = atomic_load(&v->ev.nmi_pending);

	/* One in the processor's latch and one at its pin. */
	while (n < 2 && !atomic_compare_exchange_weak(&v->ev.nmi_pending, &n, n + 1))
		;
	kvm_make_request(v, REQ_EVENT);
}

/* Make a vector pending; it is 16 or more. */
static int apic_raise(struct lapic *a, uint8_t vector, bool level)
{
	if (!(lapic_reg(a, LAPIC_SVR) & SVR_ENABLE))
		return 0;
	if (level)
		apic_set_bit(a, LAPIC_TMR, vector);
	else
		atomic_fetch_and(&a->reg[LAPIC_TMR + vector / 32], ~(1u << (vector % 32)));
	apic_set_bit(a, LAPIC_IRR, vector);
	/* After the bit: whoever clears irr_pending looks at IRR again afterwards. */
	atomic_store(&a->irr_pending, true);
	kvm_make_request(a->v, REQ_EVENT);
	return 1;
}

void kvm_apic_error(struct lapic *a, unsigned esr)
{
	uint32_t lvt = lapic_reg(a, LAPIC_LVTERR);

	/* A second one before the guest has read ESR does not interrupt again. */
	if ((atomic_fetch_or(&a->esr_pending, esr) & esr) || (lvt & LVT_MASKED))
		return;
	if ((lvt & 0xff) < 16)
		atomic_fetch_or(&a->esr_pending, ESR_RECV_ILLEGAL);
	else
		apic_raise(a, lvt & 0xff, false);
}

static int apic_accept_fixed(struct lapic *a, uint8_t vector, bool level)
{
	if (vector < 16) {
		kvm_apic_error(a, ESR_RECV_ILLEGAL);
		return 0;
	}
	return apic_raise(a, vector, level);
}

int kvm_apic_accept(struct lapic *a, unsigned mode, uint8_t vector, bool level, bool assert)
{
	struct vcpu *v = a->v;

	switch (mode) {
	case DM_FIXED:
	case DM_LOWEST: return apic_accept_fixed(a, vector, level);
	case DM_NMI: kvm_inject_nmi(v); return 1;
	case DM_INIT:
		if (level && !assert)
			return 1;
		atomic_store(&v->pending_events, VCPU_EV_INIT); /* forgets an earlier SIPI */
		kvm_make_request(v, REQ_EVENT);
		return 1;
	case DM_STARTUP:
		__atomic_store_n(&v->sipi_vector, vector, __ATOMIC_RELEASE);
		atomic_fetch_or(&v->pending_events, VCPU_EV_SIPI);
		kvm_make_request(v, REQ_EVENT);
		return 1;
	default: return 0;
	}
}

void kvm_apic_local(struct lapic *a, unsigned n)
{
	uint32_t lvt = lapic_reg(a, n);

	if (atomic_load(&a->mode) == LAPIC_OFF || (lvt & LVT_MASKED))
		return;
	if (n == LAPIC_LVTT)
		apic_accept_fixed(a, lvt & 0xff, false);
	else
		kvm_apic_accept(a, LVT_MODE(lvt), lvt & 0xff, false, true);
}

bool kvm_apic_takes_extint(const struct lapic *a)
{
	uint32_t lvt0 = lapic_reg(a, LAPIC_LVT0);

	/* A disabled APIC leaves INTR wired to the processor. */
	return atomic_load(&a->mode) == LAPIC_OFF ||
	       (!(lvt0 & LVT_MASKED) && LVT_MODE(lvt0) == DM_EXTINT);
}

static bool apic_match_broadcast(struct lapic *a, struct lapic *src, uint32_t dest)
{
	if (dest == 0xffffffff)
		return true;
	if (dest != 0xff)
		return false;
	if (!lapic_x2(a))
		return !src || !lapic_x2(src);
	/*
	 * An 8-bit sender means all. Devices too, unless user space has asked for the
	 * architecture's behaviour: APIC 255 may exist then.
	 */
	if (src)
		return !lapic_x2(src);
	return !a->v->vm->config.x2apic_no_bcast_quirk;
}

static bool apic_match_logical(struct lapic *a, uint32_t dest)
{
	uint32_t ldr = lapic_reg(a, LAPIC_LDR);

	if (lapic_x2(a))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	switch (lapic_reg(a, LAPIC_DFR) >> 28) {
	case 0xf: return ldr & dest & 0xff;
	case 0x0: return ldr >> 4 == dest >> 4 && (ldr & dest & 0xf);
	default: return false;
	}
}

static bool apic_match(struct lapic *a, struct lapic *src, const struct apic_msg *m)
{
	switch (m->shorthand) {
	case 1: return a == src;
	case 2: return true;
	case 3: return a != src;
	default: break;
	}
	if (apic_match_broadcast(a, src, m->dest))
		return true;
	if (m->logical)
		return apic_match_logical(a, m->dest);
	/* More than 8 bits can only be an x2APIC id, whatever mode the target is in. */
	if (lapic_x2(a) || m->dest > 0xff)
		return m->dest == a->v->id;
	return m->dest == lapic_reg(a, LAPIC_ID) >> 24;
}

/* The least busy of those that match; equals take turns. */
static int apic_send_lowest(struct kvm_vm *vm, struct lapic *src, const struct apic_msg *m)
{
	unsigned n = atomic_load(&vm->nvcpus), turn, best_ppr = 0x100;
	struct lapic *best = NULL;

	turn = atomic_fetch_add(&kvm_chips(vm)->lowest_prio, 1);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[(i + turn) % n]);
		struct lapic *a = v ? v->lapic : NULL;
		unsigned ppr;

		if (!a || atomic_load(&a->mode) == LAPIC_OFF || !apic_match(a, src, m) ||
		    !(lapic_reg(a, LAPIC_SVR) & SVR_ENABLE))
			continue;
		ppr = lapic_reg(a, LAPIC_PPR) & 0xf0;
		if (ppr < best_ppr) {
			best = a;
			best_ppr = ppr;
		}
	}
	return best ? kvm_apic_accept(best, DM_FIXED, m->vector, m->level, true) : -1;
}

int kvm_apic_send(struct kvm_vm *vm, struct lapic *src, const struct apic_msg *m)
{
	unsigned n = atomic_load(&vm->nvcpus);
	int taken = -1;

	if (m->mode == DM_LOWEST || (m->lowest && m->mode == DM_FIXED))
		return apic_send_lowest(vm, src, m);
	for (unsigned i = 0; i < n; i++) {
		struct vcpu *v = atomic_load(&vm->vcpus[i]);
		struct lapic *a = v ? v->lapic : NULL;

		if (!a || atomic_load(&a->mode) == LAPIC_OFF || !apic_match(a, src, m))
			continue;
		taken = MAX(taken, 0) + kvm_apic_accept(a, m->mode, m->vector, m->level, m->assert);
	}
	return taken;
}

void kvm_apic_write_icr(struct lapic *a, uint32_t icr, uint32_t dest)
{
	struct apic_msg m = {
		.dest = dest,
		.vector = icr & 0xff,
		.mode = LVT_MODE(icr),
		.logical = icr & BIT(11),
		.assert = icr & BIT(14),
		.shorthand = (icr >> 18) & 3,
	};

	if (m.mode <= DM_LOWEST && m.vector < 16) {
		kvm_apic_error(a, ESR_SEND_ILLEGAL);
		return;
	}
	if (m.mode == DM_INIT)
		m.level = icr & BIT(15);
	kvm_apic_send(a->v->vm, a, &m);
}

int kvm_msi_deliver(struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	struct apic_msg m = {
		.dest = (address >> 12) & 0xff,
		.vector = data & 0xff,
		.mode = LVT_MODE(data),
		.logical = address & BIT(2),
		.lowest = address & BIT(3),
		.level = data & BIT(15),
		.assert = true,
	};

	if (vm->config.x2apic_32bit_ids)
		m.dest |= (uint32_t)(address >> 32) & 0xffffff00;
	return kvm_apic_send(vm, NULL, &m);
}
