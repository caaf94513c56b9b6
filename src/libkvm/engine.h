/*
 * Inside libkvm: an engine is one table of functions over its own kind of handle.
 *
 * References: [KVM-API]. Threads: as libkvm.h.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "libkvm.h"

struct kvm_file;

/* System, VM or vCPU: a descriptor of the host's or a handle of the software's. */
union lk_handle {
	int fd;
	struct kvm_file *file;
};

struct lk_ops {
	enum libkvm_engine kind;
	/* As ioctl(2) but -errno; next takes the new handle of CREATE_VM and CREATE_VCPU. */
	int (*ioctl)(union lk_handle h, unsigned long request, void *arg, union lk_handle *next);
	void (*close)(union lk_handle h);
	/* The kvm_run area: NULL when it cannot be had. */
	struct kvm_run *(*map)(union lk_handle vcpu, size_t size);
	void (*unmap)(struct kvm_run *run, size_t size);
	void (*written)(union lk_handle vm, uint64_t gpa, uint64_t size);
	/* libkvm_jit_info; NULL: there is no translator */
	int (*jit_info)(union lk_handle vm, char **text);
	/* KVM_RUN in the calling thread; kick: async-signal-safe. */
	int (*run)(struct libkvm_vcpu *c);
	void (*kick)(struct libkvm_vcpu *c);
};
extern const struct lk_ops lk_host, lk_soft;

struct libkvm {
	const struct lk_ops *ops;
	union lk_handle h;
	size_t run_size; /* KVM_GET_VCPU_MMAP_SIZE */
	char reason[256];
};

struct lk_slot {
	uint64_t gpa, size; /* size 0: free */
	uint8_t *host;
	uint32_t flags;
};

struct libkvm_vm {
	struct libkvm *k;
	union lk_handle h;
	pthread_mutex_t lock; /* slots */
	uint32_t nslots;      /* how many the engine has */
	struct lk_slot *slots;
};

struct libkvm_vcpu {
	struct libkvm_vm *vm;
	union lk_handle h;
	struct kvm_run *run;
	/* host engine: who is in KVM_RUN, for the kick's signal */
	const void *runner; /* address of a thread-local of the last thread that ran it */
	_Atomic int tid;    /* 0: not in KVM_RUN */
};

/* Open /dev/kvm or what opt names. 0 or -errno with the message set. */
int lk_host_open(const struct libkvm_options *opt, union lk_handle *h, struct libkvm_err *e);
int lk_soft_open(const struct libkvm_options *opt, union lk_handle *h, struct libkvm_err *e);

/*
 * Is the host engine sound and fast? 0, or -errno with reason saying what is wrong. Takes some
 * milliseconds; ends within a second and a half even when the host hangs, and then leaves a thread
 * behind that still holds k (*stuck is set: k must not be closed).
 */
int lk_probe(struct libkvm *k, char *reason, size_t size, bool *stuck);

/* Set *e and return -code. */
__attribute__((format(printf, 3, 4))) int lk_fail(struct libkvm_err *e, int code, const char *fmt,
						  ...);
