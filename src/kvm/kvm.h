/*
 * The software KVM: the KVM API over in-process handles.
 *
 * A handle is what a file descriptor is to /dev/kvm: the system handle makes VMs, a VM handle makes
 * vCPUs. Requests, structures, return values and errors are those of <linux/kvm.h> and [KVM-API];
 * an unknown request gives the errno the kernel gives. libkvm sits on this, and a preloadable
 * /dev/kvm can later.
 *
 * References: [KVM-API]. Threads: any; KVM_RUN on one vCPU excludes its other ioctls.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/bits.h"
#include "base/err.h"

struct kvm_file;

/* KVM_EXIT_INTERNAL_ERROR: jit_check has found a difference. Not one of the kernel's. */
enum { KVM_SUBERROR_CHECK = 0x4b43 };

enum { KVM_LOG_IN_ASM = 1, KVM_LOG_OUT_ASM = 2 }; /* guest, host code of translated blocks */
#define KVM_LOG_RANGES 8

#define KVM_JIT_CACHE_MOST 1024 /* MiB */

struct kvm_options {
	bool no_jit;    /* interpreter only */
	bool jit_check; /* run each translated block in the interpreter too, stop at a difference */
	unsigned jit_heat;      /* runs before a block is translated; 0: JIT_HEAT */
	unsigned jit_trace;     /* arrivals before a trace is made; 0: JIT_TRACE_HEAT, ~0u: never */
	unsigned jit_cache_mib; /* 0: JIT_CACHE_MIB; at most KVM_JIT_CACHE_MOST */
	bool jit_profile;       /* count executions of translated blocks */
	bool jit_perf_map;      /* name translated code in /tmp/perf-PID.map */
	unsigned jit_log;       /* KVM_LOG_*, to standard error */
	/* What is logged: code that touches one of these; all when there is none. */
	struct kvm_range {
		gva_t first, last;
	} jit_log_range[KVM_LOG_RANGES];
	unsigned jit_log_ranges;
};

/* A system handle, as open("/dev/kvm") gives. opt may be NULL. */
int kvm_open(const struct kvm_options *opt, struct kvm_file **out, struct err *e) must_check;

/*
 * One function for each handle. arg is the ioctl's third argument, as a number or a pointer.
 * Returns >= 0 or -errno. CREATE_VM and CREATE_VCPU put the new handle in *newf (which must not be
 * NULL for them) and return 0.
 */
long kvm_file_ioctl(struct kvm_file *f, unsigned long request, uintptr_t arg,
		    struct kvm_file **newf);

/* The shared kvm_run area of a vCPU handle (KVM_GET_VCPU_MMAP_SIZE bytes), or NULL. */
void *kvm_file_mmap(struct kvm_file *f);

/* Drop a handle. A VM lives until its own handle and all its vCPUs' are closed. */
void kvm_file_close(struct kvm_file *f);

/* --- What the API cannot say, because the kernel's KVM sees it by itself -------------------- */

/* Memory of a VM handle was written behind the engine's back: forget code, mark dirty. Any thread.
 */
void kvm_vm_memory_written(struct kvm_file *vm, gpa_t gpa, uint64_t size);

/*
 * What the translator of a VM handle has done, as text for a person, allocated with malloc: 0, or
 * -EBUSY while one of its vCPUs is in KVM_RUN, or -ENOMEM. Any thread.
 */
int kvm_vm_jit_info(struct kvm_file *vm, char **text);

/*
 * Make KVM_RUN on this vCPU handle return -EINTR soon, or at once when it is entered next.
 * Async-signal-safe. (A signal with KVM_SET_SIGNAL_MASK or run->immediate_exit works as well.)
 */
void kvm_vcpu_kick_user(struct kvm_file *vcpu);

/*
 * Tell the engine that kvm_vcpu_kick_user is the only way this vCPU is interrupted, so that KVM_RUN
 * need not look for pending signals.
 */
void kvm_vcpu_ignore_signals(struct kvm_file *vcpu, bool ignore);
