/*
 * What the interrupt controllers, the PIT and the guest clock share among themselves. The rest of
 * the software KVM sees irqchip.h only.
 *
 * References: [8259A], [IOAPIC], [SDM3 10], [8254], [KVM-API].
 * Threads: locks are named at each member. Order: lapic->timer_lock or pit->lock, never with
 * vm->irq_lock; the timers' own lock is a leaf below all of them.
 */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kvm/vm.h"
#include "kvm/x86/vcpu.h"

/* ---- The 8259A pair: vm->irq_lock ---------------------------------------------------------- */

struct kvm_pic {
	struct kvm_pic_state s[2]; /* master, slave */
	uint8_t lines[16];         /* one bit for each KVM_IRQ_SOURCE_* that holds the pin high */
	uint32_t acked;            /* pins whose end is to be told once irq_lock is dropped */
	uint32_t pit_pins;         /* pins that the PIT has driven */
	atomic_bool output;        /* INT of the master; read without the lock */
	struct kvm_io_device master_dev, slave_dev, elcr_dev;
};

/* ---- The 82093AA: vm->irq_lock ------------------------------------------------------------- */

struct kvm_ioapic {
	struct kvm_ioapic_state s;
	uint32_t irr_delivered; /* edges in s.irr that have been sent: not for user space */
	uint8_t lines[KVM_IOAPIC_NUM_PINS];
	uint32_t pit_pins;
	_Atomic uint64_t handled[4]; /* vectors in the table; read without the lock at each EOI */
	struct kvm_io_device dev;
};

/* ---- The 8254 ------------------------------------------------------------------------------- */

struct kvm_pit {
	struct kvm_vm *vm;
	pthread_mutex_t lock;      /* all but the atomics */
	pthread_mutex_t edge_lock; /* outermost: one tick is raised and lowered at a time */
	struct kvm_pit_state2 s;
	bool triggered[3];    /* modes 1 and 5: GATE has risen since the control word */
	uint64_t gate_off[3]; /* when GATE fell in a mode that stops for it; 0: counting */
	uint64_t target;      /* next edge of OUT0, ns; 0: none */
	uint64_t edges;       /* that OUT0 has made since the count was loaded */
	struct kvm_timer timer;
	atomic_bool reinject;
	atomic_bool irq_ack; /* the guest has ended the last tick */
	atomic_uint pending; /* ticks that are due and not injected */
	bool has_speaker;
	struct kvm_io_device dev, speaker_dev;
};

/* ---- Guest clock ---------------------------------------------------------------------------- */

struct kvm_guest_clock {
	pthread_mutex_t lock;
	uint64_t base_tsc;  /* host TSC at which... */
	uint64_t base_ns;   /* ...kvm-clock had this value */
	uint64_t start_tsc; /* host TSC when the VM was made: guest TSC 0 */
	/* KVM_SET_MSRS of the TSC on one vCPU after the other: keep them together. */
	uint64_t last_tsc, last_host_tsc;
	uint64_t last_offset;
	uint32_t last_khz; /* 0: no vCPU yet */
};

struct kvm_arch_vm {
	struct kvm_pic pic;
	struct kvm_ioapic ioapic;
	struct kvm_pit *_Atomic pit;
	struct kvm_guest_clock clock;
	atomic_uint lowest_prio; /* rotates lowest-priority delivery among equals */
};

/* The VM's chips; made at the first call. NULL: no memory. Any thread. */
struct kvm_arch_vm *kvm_chips(struct kvm_vm *vm);

void kvm_pic_init(struct kvm_vm *vm);
int kvm_pic_register(struct kvm_vm *vm);
/* Recompute after KVM_SET_IRQCHIP; irq_lock held. */
void kvm_pic_loaded(struct kvm_vm *vm);
/* The vector of an ExtINT acknowledge cycle. vCPU thread, no lock held. */
int kvm_pic_read_irq(struct kvm_vm *vm);

void kvm_ioapic_init(struct kvm_vm *vm);
int kvm_ioapic_register(struct kvm_vm *vm);
void kvm_ioapic_get_state(struct kvm_vm *vm, struct kvm_ioapic_state *s);       /* irq_lock held */
void kvm_ioapic_set_state(struct kvm_vm *vm, const struct kvm_ioapic_state *s); /* same */
/* A LAPIC's EOI of vector; level: its TMR bit was set. vCPU thread, no lock held. */
void kvm_ioapic_eoi(struct kvm_vm *vm, uint8_t vector, bool level, bool directed);

/* The guest ended a PIT tick; it unmasked a pin that the PIT drives. Any thread, any lock but
 * pit's. */
void kvm_pit_acked(struct kvm_vm *vm);
void kvm_pit_forget_ticks(struct kvm_vm *vm);
void kvm_pit_destroy(struct kvm_vm *vm);

/* ---- The local APIC ------------------------------------------------------------------------- */

/* Register numbers: page offset >> 4, which is the x2APIC MSR number - 0x800. */
enum {
	LAPIC_ID = 0x02,
	LAPIC_VERSION = 0x03,
	LAPIC_TPR = 0x08,
	LAPIC_APR = 0x09,
	LAPIC_PPR = 0x0a,
	LAPIC_EOI = 0x0b,
	LAPIC_LDR = 0x0d,
	LAPIC_DFR = 0x0e,
	LAPIC_SVR = 0x0f,
	LAPIC_ISR = 0x10,
	LAPIC_TMR = 0x18,
	LAPIC_IRR = 0x20,
	LAPIC_ESR = 0x28,
	LAPIC_ICR = 0x30,
	LAPIC_ICR2 = 0x31,
	LAPIC_LVTT = 0x32,
	LAPIC_LVTTHMR = 0x33,
	LAPIC_LVTPC = 0x34,
	LAPIC_LVT0 = 0x35,
	LAPIC_LVT1 = 0x36,
	LAPIC_LVTERR = 0x37,
	LAPIC_TMICT = 0x38,
	LAPIC_TMCCT = 0x39,
	LAPIC_TDCR = 0x3e,
	LAPIC_SELF_IPI = 0x3f,
	LAPIC_REGS = 0x40,
};
#define LVT_MASKED       BIT(16)
#define LVT_MODE(r)      (((r) >> 8) & 7)
#define LVT_TIMER_MODE   (3u << 17)
#define LVT_TIMER_ONE    (0u << 17)
#define LVT_TIMER_PERIOD (1u << 17)
#define LVT_TIMER_TSC    (2u << 17)
#define SVR_ENABLE       BIT(8)
#define SVR_DIRECTED_EOI BIT(12)
#define APIC_BASE_BSP    BIT(8)
#define APIC_BASE_X2     BIT(10)
#define APIC_BASE_EN     BIT(11)
#define APIC_BASE_ADDR   0xfee00000ull

/* Delivery modes of messages and LVT entries. */
enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_RESERVED, DM_NMI, DM_INIT, DM_STARTUP, DM_EXTINT };
enum { ESR_SEND_ILLEGAL = 1 << 5, ESR_RECV_ILLEGAL = 1 << 6, ESR_ILLEGAL_REG = 1 << 7 };
enum lapic_mode { LAPIC_OFF, LAPIC_XAPIC, LAPIC_X2APIC };

/*
 * reg[] holds the architectural registers. IRR and TMR words are written by any thread with atomic
 * bit operations; everything else is written by the owner of the vCPU (its thread in KVM_RUN, else
 * the holder of v->lock) and read by others, e.g. to match a destination. The timer registers
 * change under timer_lock only.
 */
struct lapic {
	struct vcpu *v;
	_Atomic uint32_t reg[LAPIC_REGS];
	_Atomic uint8_t mode;    /* enum lapic_mode */
	atomic_bool irr_pending; /* false: IRR is certainly empty */
	atomic_uint esr_pending; /* errors since the last write of ESR */

	pthread_mutex_t timer_lock;
	struct kvm_timer timer;
	uint64_t target;       /* expiry, CLOCK_MONOTONIC ns; 0: not running */
	uint64_t period;       /* of a running count, in ns */
	uint64_t tsc_deadline; /* 0: disarmed */
};

static inline uint32_t lapic_reg(const struct lapic *a, unsigned n)
{
	return atomic_load_explicit(&a->reg[n], memory_order_relaxed);
}

static inline void lapic_put(struct lapic *a, unsigned n, uint32_t v)
{
	atomic_store_explicit(&a->reg[n], v, memory_order_relaxed);
}

static inline bool lapic_x2(const struct lapic *a)
{
	return atomic_load_explicit(&a->mode, memory_order_relaxed) == LAPIC_X2APIC;
}

/* An interrupt message on the APIC bus. */
struct apic_msg {
	uint32_t dest;
	uint8_t vector, mode; /* DM_* */
	bool logical, level, assert;
	bool lowest;       /* MSI redirection hint: one of the destinations */
	uint8_t shorthand; /* 0 none, 1 self, 2 all, 3 all but self */
};
/*
 * Deliver to every LAPIC that matches; src is the sender or NULL. Returns the number that took it,
 * -1 when there was no destination. Any thread.
 */
int kvm_apic_send(struct kvm_vm *vm, struct lapic *src, const struct apic_msg *m);
/* Take a message that has arrived: > 0 accepted. Any thread. */
int kvm_apic_accept(struct lapic *a, unsigned mode, uint8_t vector, bool level, bool assert);
/* Raise a local interrupt through LVT register n. Any thread. */
void kvm_apic_local(struct lapic *a, unsigned n);
/* Write ICR: what the guest asks to send. vCPU thread. */
void kvm_apic_write_icr(struct lapic *a, uint32_t icr, uint32_t dest);
/* Note an error; LVTERR fires. Any thread. */
void kvm_apic_error(struct lapic *a, unsigned esr);

/* Highest vector in an IRR, ISR or TMR register file, or -1. */
int kvm_apic_highest(const struct lapic *a, unsigned base);
/* The version register: whether the LAPIC offers directed EOI depends on the VM. */
uint32_t kvm_apic_version(const struct lapic *a);
/* Derive PPR and what is pending after registers were loaded. Owner of the vCPU. */
void kvm_apic_refresh(struct lapic *a);
/* Does ExtINT from the PIC reach this processor? Any thread. */
bool kvm_apic_takes_extint(const struct lapic *a);

/* lapic_timer.c; owner of the vCPU unless said. */
void kvm_apic_timer_init(struct lapic *a);
void kvm_apic_timer_stop(struct lapic *a);
void kvm_apic_timer_write_lvtt(struct lapic *a, uint32_t val);
void kvm_apic_timer_write_count(struct lapic *a, uint32_t val);
void kvm_apic_timer_write_divide(struct lapic *a, uint32_t val);
uint32_t kvm_apic_timer_count(struct lapic *a); /* current count; any thread */
/* After KVM_SET_LAPIC: go on counting from current. */
void kvm_apic_timer_load(struct lapic *a, uint32_t current);
/* The guest TSC jumped: a deadline is elsewhere on the host's clock. */
void kvm_apic_timer_tsc_changed(struct lapic *a);

/* Does the guest's CPUID leaf 1 ECX have this bit? v->lock or vCPU thread. */
bool kvm_cpuid1_ecx(const struct vcpu *v, unsigned bit);

/* Shortest period of a guest timer: a hostile guest shall not flood the host. */
#define KVM_MIN_TIMER_PERIOD 200000ull /* ns, as the kernel's */
