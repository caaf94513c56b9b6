/*
 * The virtual machine, architecture-neutral part: memory slots, vCPU list, I/O buses, interrupt
 * routing, requests to vCPUs.
 *
 * Memory slots: an immutable sorted table behind an atomic pointer. vCPU threads read it while they
 * are "in guest" without a lock; an updater (under slots_lock) publishes a new table, makes every
 * vCPU flush its TLBs with kvm_sync_vcpus(), and only then frees the old one: the sync is the grace
 * period. All other readers hold slots_lock.
 *
 * Code pages: each guest page of a slot has a struct kvm_page. An engine that caches something made
 * from a page's bytes (decoded or translated code) first sets bits in code_lines and makes every
 * vCPU drop its write-TLB entries for the page (kvm_sync_vcpus); it then remembers gen. Lines that
 * another has set say nothing before that one's wait is over (vcpu.marking). A writer that hits a
 * set line adds one to gen. A cached block is valid while gen is what it was.
 *
 * References: [KVM-API], virt/kvm in the kernel for the roles. Threads: as said at each field.
 */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "kvm/kvm.h"

struct vcpu;
struct kvm_vm;

#define KVM_SOFT_MAX_VCPUS 64
#define KVM_SOFT_MAX_SLOTS 509 /* as QEMU sees on an x86 kernel: enough for hotplug, bounded */

/* State of one guest page for the engines. 16 bytes. */
struct kvm_page {
	_Atomic uint64_t code_lines; /* bit n: bytes 64n..64n+63 have been decoded */
	_Atomic uint32_t gen;        /* changes when decoded bytes are written */
	_Atomic uint16_t writes;     /* how often that happened, up to a number of no interest */
	_Atomic uint16_t clearing;   /* how many are taking the lines away, after gen has changed */
};

struct kvm_memslot {
	uint32_t id, flags; /* KVM_MEM_* */
	uint64_t base_gfn, npages;
	uint8_t *host;           /* userspace_addr */
	struct kvm_page *pages;  /* npages, zeroed mmap */
	_Atomic uint64_t *dirty; /* npages bits, or NULL when not logged */
};

struct kvm_memslots {
	uint32_t n;
	struct kvm_memslot *slot[]; /* by base_gfn, not overlapping */
};

/* The slot that has gfn, or NULL. Caller: a vCPU in guest mode, or slots_lock held. */
struct kvm_memslot *kvm_memslot_find(struct kvm_vm *vm, uint64_t gfn);

/* Mark a page dirty if its slot is logged. Any thread that may use the slot. */
void kvm_memslot_mark_dirty(struct kvm_memslot *slot, uint64_t gfn);

/*
 * Somebody wrote [gpa, gpa+len) without going through a vCPU's write-TLB: bump generations of code
 * lines hit, mark dirty. Does not cross a slot border (call per slot). Any thread that may use it.
 Returns whether decoded
 * bytes were hit.
 */
bool kvm_memslot_written(struct kvm_memslot *slot, gpa_t gpa, uint64_t len);

/* ---- In-kernel I/O buses: irqchip, PIT, ioeventfd, coalesced MMIO --------------------------- */

enum kvm_bus { KVM_BUS_MMIO, KVM_BUS_PIO, KVM_BUSES };

struct kvm_io_device;
struct kvm_io_ops {
	/* Return 0 when the device took the access, -EOPNOTSUPP to let the next one (or user) have
	 * it. */
	int (*read)(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len, void *data);
	int (*write)(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
		     const void *data);
};
struct kvm_io_device {
	const struct kvm_io_ops *ops;
};

/*
 * Claim [addr, addr+len); several devices may share a range (ioeventfds). Errors: -ENOSPC, -ENOMEM.
 * Both wait for the vCPUs to pass a boundary: not from a vCPU in guest mode, and without any lock
 * that one takes (irq_lock, a chip's).
 */
int kvm_io_bus_register(struct kvm_vm *vm, enum kvm_bus bus, gpa_t addr, uint64_t len,
			struct kvm_io_device *d);
void kvm_io_bus_unregister(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_device *d);
/* Offer an access to the devices. 0: done. -EOPNOTSUPP: nobody, exit to user space. vCPU thread. */
int kvm_io_bus_read(struct vcpu *v, enum kvm_bus bus, gpa_t addr, int len, void *data);
int kvm_io_bus_write(struct vcpu *v, enum kvm_bus bus, gpa_t addr, int len, const void *data);

/* ---- Interrupts ----------------------------------------------------------------------------- */

/* Sources that may drive one GSI; the line is the OR of them. */
enum { KVM_IRQ_SOURCE_USER, KVM_IRQ_SOURCE_PIT, KVM_IRQ_SOURCE_IRQFD, KVM_IRQ_SOURCES };

/*
 * Drive a GSI through the routing table. level 0 or 1. Returns what KVM_IRQ_LINE_STATUS reports:
 * > 0 delivered, 0 coalesced, < 0 ignored. Any thread; takes vm->irq_lock.
 */
int kvm_set_irq(struct kvm_vm *vm, int source, uint32_t gsi, int level);
/* End of interrupt on a pin of a chip (KVM_IRQCHIP_*): resample irqfds, PIT reinjection. */
void kvm_notify_acked_irq(struct kvm_vm *vm, unsigned irqchip, unsigned pin);
/*
 * Call fn when the guest acknowledges (EOIs) a pin that routes from gsi. fn may call kvm_set_irq.
 * Any thread; the notifier belongs to the caller and is not called once unregister has returned.
 */
struct kvm_ack_notifier {
	uint32_t gsi;
	void (*fn)(struct kvm_vm *vm, struct kvm_ack_notifier *n);
	struct kvm_ack_notifier *next;
};
void kvm_ack_register(struct kvm_vm *vm, struct kvm_ack_notifier *n);
void kvm_ack_unregister(struct kvm_vm *vm, struct kvm_ack_notifier *n);
/* Inject an MSI as KVM_SIGNAL_MSI: > 0 delivered. Any thread. */
int kvm_set_msi(struct kvm_vm *vm, uint64_t address, uint32_t data);

/* ---- Timers: what the kernel's hrtimers do for the LAPIC and the PIT ------------------------ */

struct kvm_timer {
	uint64_t deadline;        /* CLOCK_MONOTONIC ns; 0 when not queued */
	void (*fn)(void *opaque); /* in the VM's timer thread, no lock held; may re-arm */
	void *opaque;
	int heap_index; /* -1 when not queued */
	bool running;
};
void kvm_timer_init(struct kvm_timer *t, void (*fn)(void *opaque), void *opaque);
/* (Re-)arm to an absolute CLOCK_MONOTONIC time in ns. Any thread. */
void kvm_timer_arm(struct kvm_vm *vm, struct kvm_timer *t, uint64_t deadline);
/* Disarm; on return fn is not running (unless called from fn itself). Any thread, no lock fn takes.
 */
void kvm_timer_cancel(struct kvm_vm *vm, struct kvm_timer *t);
/* CLOCK_MONOTONIC in ns. */
uint64_t kvm_now_ns(void);

struct kvm_timers; /* heap, thread; kvm/timer.c */
struct kvm_irq_router;
struct kvm_eventfds;
struct kvm_coalesced;
struct kvm_io_bus_table;
struct kvm_arch_vm; /* kvm/x86/irqchip.h */

/* What user space has set for the whole VM. Written under vm->lock before vCPUs run. */
struct kvm_vm_config {
	uint64_t tss_addr, identity_map_addr;
	uint32_t boot_cpu_id;
	uint32_t tsc_khz; /* for vCPUs made from now on */
	uint32_t max_vcpu_id;
	uint32_t disabled_exits;  /* KVM_X86_DISABLE_EXITS_* */
	uint64_t disabled_quirks; /* KVM_X86_QUIRK_* */
	uint32_t msr_exits;       /* KVM_MSR_EXIT_REASON_*: always 0, the capability is refused */
	uint32_t dirty_protect;   /* KVM_DIRTY_LOG_MANUAL_* */
	_Atomic uint32_t halt_poll_ns; /* longest poll of a halted vCPU, KVM_CAP_HALT_POLL */
	bool x2apic_32bit_ids;    /* KVM_X2APIC_API_USE_32BIT_IDS */
	bool x2apic_no_bcast_quirk;
	bool exception_payload;  /* KVM_CAP_EXCEPTION_PAYLOAD */
	bool triple_fault_event; /* KVM_CAP_X86_TRIPLE_FAULT_EVENT */
};

struct kvm_vm {
	_Atomic(struct kvm_memslots *) slots;
	pthread_mutex_t slots_lock; /* updates of slots, and readers that are not vCPUs in guest */

	/* Creation of vCPUs and chips; capabilities. Recursive; never taken in guest mode. */
	pthread_mutex_t lock;
	struct vcpu *_Atomic vcpus[KVM_SOFT_MAX_VCPUS];
	atomic_uint nvcpus; /* entries of vcpus[] in use, in order of creation */
	unsigned processors; /* of the host, that the VM's creator may run on */
	atomic_uint refs;

	pthread_mutex_t irq_lock; /* PIC, IOAPIC, routing table; recursive */
	struct kvm_irq_router *router;
	_Atomic(struct kvm_io_bus_table *) buses[KVM_BUSES];
	struct kvm_eventfds *eventfds;
	struct kvm_coalesced *coalesced;
	struct kvm_timers *timers;
	struct kvm_vm_config config;
	struct kvm_arch_vm *arch; /* PIC, IOAPIC, PIT, clock */
	bool irqchip_in_kernel, irqchip_split;
	struct kvm_options options;
	int perf_fd; /* the perf map, or -1 */

	/* exclusive section: one vCPU alone runs guest code (locked accesses across pages) */
	pthread_mutex_t exclusive_lock;
	struct vcpu *_Atomic exclusive_owner;
};

/* ---- Requests to vCPUs ---------------------------------------------------------------------- */

/* Bits of vcpu->requests. Polled at block boundaries and on entry. */
enum {
	REQ_EVENT = 1 << 0,     /* an interrupt, NMI, INIT, SIPI or SMI may be deliverable: look */
	REQ_KICK = 1 << 1,      /* leave KVM_RUN with -EINTR */
	REQ_TLB_FLUSH = 1 << 2, /* drop every translation and host pointer */
	REQ_SIGNAL = 1 << 3,    /* look for pending host signals */
	REQ_SYNC = 1 << 4,      /* nothing but to pass a boundary */
	REQ_PAUSE = 1 << 5, /* another vCPU is in an exclusive section: wait outside guest mode */
	REQ_STEAL = 1 << 6, /* kvm-clock / steal-time areas to be rewritten */
	REQ_FLUSH_CODE = 1 << 7, /* drop all cached code (memory slot removed) */
	REQ_CODE = 1 << 9, /* decoded bytes were written: look at the pages with code */
	REQ_IMMEDIATE =
		1 << 8, /* run->immediate_exit: as REQ_KICK, at the end of the instruction */

	/* Acted on by kvm_guest_enter and kvm_guest_boundary, outside guest mode. */
	REQ_OUTSIDE = REQ_TLB_FLUSH | REQ_SYNC | REQ_PAUSE | REQ_FLUSH_CODE,
};

/* Set request bits and, if the vCPU is halted, wake it. Any thread, async-signal-safe. */
void kvm_make_request(struct vcpu *v, uint32_t bits);

/* Set request bits in every vCPU but self (NULL: all), without waiting. Any thread. */
void kvm_request_all(struct kvm_vm *vm, uint32_t bits, struct vcpu *self);

/*
 * Set request bits in every vCPU but self and wait until each has acted on them or is outside guest
 * mode (it acts before it enters). self: the calling vCPU when the caller is one in guest mode,
 * else NULL; it counts as outside guest mode while it waits and may itself have flushed on return,
 * so it must not keep slots across the call, and host pointers and pages only if REQ_FLUSH_CODE has
 * not come. Ends what self->marking says.
 */
void kvm_sync_vcpus(struct kvm_vm *vm, uint32_t bits, struct vcpu *self);

/* Is another vCPU making all others take the slow path for writes to the page? vCPU thread. */
bool kvm_others_marking(struct vcpu *self, const struct kvm_page *page);

/* Wait until none is: as kvm_sync_vcpus for what may be kept. vCPU in guest mode. */
void kvm_wait_marking(struct vcpu *self, const struct kvm_page *page);

/*
 * Guest mode: the vCPU may use slots, host pointers and cached code. Enter acts on REQ_OUTSIDE
 * requests first and returns when none is left; it may wait for another's exclusive section.
 * Boundary does exit and enter when a REQ_OUTSIDE request is set: call it whenever requests != 0.
 * vCPU thread.
 */
void kvm_guest_enter(struct vcpu *self);
void kvm_guest_exit(struct vcpu *self);
void kvm_guest_boundary(struct vcpu *self);

/*
 * Sleep, outside guest mode, until a request but REQ_STEAL, REQ_CODE, REQ_OUTSIDE is set, deadline
 * (CLOCK_MONOTONIC ns, 0: none) or a host signal that may interrupt KVM_RUN; the last sets
 * REQ_SIGNAL. vCPU thread.
 */
void kvm_vcpu_wait(struct vcpu *self, uint64_t deadline);

/* Run alone: all other vCPUs are outside guest mode until kvm_exclusive_end. vCPU in guest mode. */
void kvm_exclusive_start(struct vcpu *self);
void kvm_exclusive_end(struct vcpu *self);
