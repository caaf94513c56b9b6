/*
 * libkvm: the glue over the KVM API.
 *
 * One program runs its guests on the host's /dev/kvm or, where that is missing, forbidden or
 * broken, on Kvasir's software KVM in user space. Both speak the structures and numbers of
 * <linux/kvm.h>; this header wraps them in typed calls, keeps the memory slots, and runs a vCPU
 * with callbacks for what leaves the guest.
 *
 * Results: 0 (or a value >= 0 where said) or a negative errno. Functions that take a
 * struct libkvm_err also describe the failure in one line; the pointer may be NULL.
 * Threads: a vCPU is run by one thread at a time; every other call may come from any thread
 * unless its comment says otherwise.
 * References: [KVM-API] = the kernel's Documentation/virt/kvm/api.rst.
 */
#ifndef LIBKVM_H
#define LIBKVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LIBKVM_ABI 1 /* incremented on each incompatible change */

struct libkvm;      /* an open engine */
struct libkvm_vm;   /* a virtual machine */
struct libkvm_vcpu; /* a virtual processor */

struct libkvm_err {
	int code;      /* errno value */
	char msg[508]; /* one line: cause and cure */
};

/* ---- Engine --------------------------------------------------------------------------------- */

enum libkvm_engine {
	LIBKVM_AUTO, /* the host's when the live probe finds it sound and fast, else the software's
		      */
	LIBKVM_HOST, /* /dev/kvm or an error */
	LIBKVM_SOFT, /* the software KVM */
};

/* Suberror of KVM_EXIT_INTERNAL_ERROR: jit_check has found a difference, which is in the log. */
#define LIBKVM_SUBERROR_CHECK 0x4b43

#define LIBKVM_LOG_IN_ASM  1u /* guest code */
#define LIBKVM_LOG_OUT_ASM 2u /* host code */
#define LIBKVM_LOG_RANGES  8

struct libkvm_options {
	enum libkvm_engine engine;
	const char *device; /* path of the host's device, NULL for /dev/kvm */
	int device_fd; /* > 0: an already open /dev/kvm, used instead of device; owned by libkvm */
	/* Software engine: */
	bool no_jit;    /* reference interpreter only */
	bool jit_check; /* run each translated block in the interpreter too, stop at a difference */
	unsigned jit_heat;  /* runs of a block before it is translated; 0: the default */
	unsigned jit_trace; /* arrivals at a block before a trace is made there; 0: the default, ~0:
			       never */
	unsigned jit_cache_mib; /* translated code a vCPU keeps, up to 1024; 0: the default */
	bool jit_profile;       /* count executions of blocks, for libkvm_jit_info */
	bool jit_perf_map;      /* names of translated code for Linux's perf: /tmp/perf-PID.map */
	unsigned jit_log;       /* LIBKVM_LOG_*: blocks as they are translated, to standard error */
	/* Log only blocks that touch one of these linear addresses, first to last; none: all. */
	struct libkvm_range {
		uint64_t first, last;
	} jit_log_range[LIBKVM_LOG_RANGES];
	unsigned jit_log_ranges;
};

/*
 * Open an engine. opt may be NULL (AUTO). Afterwards libkvm_engine_kind() tells which one it is,
 * and libkvm_engine_reason() why ("/dev/kvm: ring 0 runs 40 times slower than ...").
 */
int libkvm_open(const struct libkvm_options *opt, struct libkvm **out, struct libkvm_err *e);
void libkvm_close(struct libkvm *k);
enum libkvm_engine libkvm_engine_kind(const struct libkvm *k);
const char *libkvm_engine_reason(const struct libkvm *k);

/* KVM_CHECK_EXTENSION: > 0 when the capability is there. */
int libkvm_check(struct libkvm *k, int capability);

/* Any system ioctl of [KVM-API 4], for what has no call of its own here. */
int libkvm_ioctl(struct libkvm *k, unsigned long request, void *arg);

/*
 * The CPUID leaves the engine can give a guest (KVM_GET_SUPPORTED_CPUID). The result is allocated
 * with malloc and belongs to the caller.
 */
int libkvm_supported_cpuid(struct libkvm *k, struct kvm_cpuid2 **out);

/* ---- Virtual machine ------------------------------------------------------------------------ */

int libkvm_vm_create(struct libkvm *k, struct libkvm_vm **out, struct libkvm_err *e);
/* All vCPUs must have been closed. */
void libkvm_vm_close(struct libkvm_vm *vm);
int libkvm_vm_ioctl(struct libkvm_vm *vm, unsigned long request, void *arg);
struct libkvm *libkvm_vm_engine(struct libkvm_vm *vm);

/*
 * Guest memory: libkvm chooses the slot numbers.
 * gpa, size: bytes, multiples of 4096; host: page-aligned, stays mapped until removed.
 * flags: KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES. Errors: -EINVAL, -EEXIST (overlap), -ENOSPC.
 */
int libkvm_mem_add(struct libkvm_vm *vm, uint64_t gpa, uint64_t size, void *host, uint32_t flags);
int libkvm_mem_remove(struct libkvm_vm *vm, uint64_t gpa, uint64_t size);
int libkvm_mem_set_flags(struct libkvm_vm *vm, uint64_t gpa, uint32_t flags);
/*
 * Dirty pages of the slot at gpa since the last call, one bit a page, into bitmap
 * (size / 4096 bits rounded up to 64).
 */
int libkvm_mem_dirty_log(struct libkvm_vm *vm, uint64_t gpa, uint64_t *bitmap);
/*
 * The caller has written guest memory through its own mapping. The software engine then drops what
 * it has decoded or translated from there, and marks the pages dirty; the host engine needs
 * nothing.
 */
void libkvm_mem_written(struct libkvm_vm *vm, uint64_t gpa, uint64_t size);
/*
 * What the software engine's translator has done, as text for a person, allocated with malloc and
 * the caller's. Errors: -ENOTSUP on the host engine; -EBUSY while a vCPU runs; -ENOMEM.
 */
int libkvm_jit_info(struct libkvm_vm *vm, char **text);
/* Host pointer for gpa when [gpa, gpa+size) lies in one slot, else NULL. */
void *libkvm_mem_ptr(struct libkvm_vm *vm, uint64_t gpa, uint64_t size);

/* In-kernel interrupt controllers: PIC pair, IOAPIC, LAPICs; and the PIT (KVM_CREATE_PIT2). */
int libkvm_irqchip_create(struct libkvm_vm *vm);
int libkvm_pit_create(struct libkvm_vm *vm);
/* Set GSI to level 0 or 1. */
int libkvm_irq_line(struct libkvm_vm *vm, uint32_t gsi, int level);
int libkvm_signal_msi(struct libkvm_vm *vm, uint64_t address, uint32_t data);
int libkvm_set_routing(struct libkvm_vm *vm, const struct kvm_irq_routing *table);
/* eventfd -> GSI; resample_fd < 0 for none. assign false removes. */
int libkvm_irqfd(struct libkvm_vm *vm, int fd, int resample_fd, uint32_t gsi, bool assign);
/* Guest write to [addr, addr+len) -> eventfd; pio selects the port space; datamatch may be NULL. */
int libkvm_ioeventfd(struct libkvm_vm *vm, int fd, uint64_t addr, uint32_t len, bool pio,
		     const uint64_t *datamatch, bool assign);

/* ---- Virtual processor ---------------------------------------------------------------------- */

int libkvm_vcpu_create(struct libkvm_vm *vm, uint32_t id, struct libkvm_vcpu **out,
		       struct libkvm_err *e);
void libkvm_vcpu_close(struct libkvm_vcpu *c);
int libkvm_vcpu_ioctl(struct libkvm_vcpu *c, unsigned long request, void *arg);
struct kvm_run *libkvm_vcpu_run_area(struct libkvm_vcpu *c);

int libkvm_get_regs(struct libkvm_vcpu *c, struct kvm_regs *r);
int libkvm_set_regs(struct libkvm_vcpu *c, const struct kvm_regs *r);
int libkvm_get_sregs(struct libkvm_vcpu *c, struct kvm_sregs *s);
int libkvm_set_sregs(struct libkvm_vcpu *c, const struct kvm_sregs *s);
int libkvm_get_msr(struct libkvm_vcpu *c, uint32_t index, uint64_t *value);
int libkvm_set_msr(struct libkvm_vcpu *c, uint32_t index, uint64_t value);
int libkvm_set_cpuid(struct libkvm_vcpu *c, const struct kvm_cpuid2 *table);

/*
 * KVM_RUN once, in the calling thread. Returns 0 with the reason in the run area, -EINTR after a
 * kick, -EAGAIN when a processor that waited for start-up has been started (run it again), or
 * another -errno. On the host engine any unblocked signal gives -EINTR too, and the signal
 * SIGRTMAX-1 is libkvm's in threads that run vCPUs. On the software engine handlers run without
 * ending the call: a handler that wants that calls libkvm_vcpu_kick.
 */
int libkvm_vcpu_run(struct libkvm_vcpu *c);

/*
 * Make a running or halted vCPU leave libkvm_vcpu_run with -EINTR soon; if it is not running, the
 * next run returns at once. Async-signal-safe.
 */
void libkvm_vcpu_kick(struct libkvm_vcpu *c);

/* What the run loop does after a callback. */
enum libkvm_next { LIBKVM_CONTINUE, LIBKVM_STOP };

/*
 * Callbacks of the run loop, called in the vCPU's thread. NULL members have a default: reads give
 * all ones, writes are dropped, everything else stops the loop.
 */
struct libkvm_callbacks {
	/* Port access: count elements of size bytes at data (REP INS/OUTS give count > 1). */
	enum libkvm_next (*pio)(void *opaque, struct libkvm_vcpu *c, uint16_t port, void *data,
				unsigned size, unsigned count, bool is_write);
	enum libkvm_next (*mmio)(void *opaque, struct libkvm_vcpu *c, uint64_t gpa, void *data,
				 unsigned len, bool is_write);
	/* HLT without an in-kernel irqchip. */
	enum libkvm_next (*hlt)(void *opaque, struct libkvm_vcpu *c);
	/* Triple fault. */
	enum libkvm_next (*shutdown)(void *opaque, struct libkvm_vcpu *c);
	/* KVM_EXIT_DEBUG. */
	enum libkvm_next (*debug)(void *opaque, struct libkvm_vcpu *c);
	/* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY and everything not named above; see the run area. */
	enum libkvm_next (*other)(void *opaque, struct libkvm_vcpu *c, uint32_t exit_reason);
	/* After a kick (or a signal, see libkvm_vcpu_run), and before each entry when pre is set.
	 */
	enum libkvm_next (*kicked)(void *opaque, struct libkvm_vcpu *c);
	enum libkvm_next (*pre)(void *opaque, struct libkvm_vcpu *c);
};

/*
 * Run until a callback says LIBKVM_STOP (returns 0) or KVM_RUN fails (returns -errno). An access
 * that a callback stopped at has been completed by then, and the registers are those after its
 * instruction; if the instruction makes more accesses, the callbacks have seen them, too.
 * A program with its own loop over libkvm_vcpu_run does this by a run with immediate_exit set.
 */
int libkvm_vcpu_loop(struct libkvm_vcpu *c, const struct libkvm_callbacks *cb, void *opaque);

#ifdef __cplusplus
}
#endif
#endif
