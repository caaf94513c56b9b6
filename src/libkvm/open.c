/*
 * Opening an engine: the host's, the software's, or the better one.
 *
 * References: DESIGN 3 "Two engines, one API", [KVM-API 4.1-4.5]. Threads: any.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libkvm/engine.h"

int lk_fail(struct libkvm_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (e) {
		e->code = code;
		va_start(ap, fmt);
		vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
		va_end(ap);
	}
	return -code;
}

static int open_one(struct libkvm *k, const struct lk_ops *ops, const struct libkvm_options *opt,
		    struct libkvm_err *e)
{
	int r = ops == &lk_host ? lk_host_open(opt, &k->h, e) : lk_soft_open(opt, &k->h, e);

	if (r)
		return r;
	k->ops = ops;
	r = ops->ioctl(k->h, KVM_GET_VCPU_MMAP_SIZE, NULL, NULL);
	if (r < (int)sizeof(struct kvm_run)) {
		ops->close(k->h);
		return lk_fail(e, EIO, "the KVM device gives no size for its run area");
	}
	k->run_size = (size_t)r;
	return 0;
}

/* The host's engine if it passes the live probe, else the software's; k->reason says why. */
static int open_auto(struct libkvm *k, const struct libkvm_options *opt, struct libkvm_err *e)
{
	struct libkvm_err why = { 0 };
	struct libkvm *host;
	bool stuck = false;

	/* Separate, because a probe that hangs keeps it. */
	host = calloc(1, sizeof(*host));
	if (!host)
		return lk_fail(e, ENOMEM, "no memory for an engine");
	if (open_one(host, &lk_host, opt, &why)) {
		snprintf(k->reason, sizeof(k->reason), "%.250s", why.msg);
	} else if (!lk_probe(host, k->reason, sizeof(k->reason), &stuck)) {
		k->ops = host->ops;
		k->h = host->h;
		k->run_size = host->run_size;
		free(host);
		return 0;
	} else if (!stuck) {
		host->ops->close(host->h);
	}
	if (!stuck)
		free(host);
	return open_one(k, &lk_soft, opt, e);
}

int libkvm_open(const struct libkvm_options *opt, struct libkvm **out, struct libkvm_err *e)
{
	enum libkvm_engine engine = opt ? opt->engine : LIBKVM_AUTO;
	struct libkvm *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return lk_fail(e, ENOMEM, "no memory for an engine");
	switch (engine) {
	case LIBKVM_AUTO: r = open_auto(k, opt, e); break;
	case LIBKVM_HOST: r = open_one(k, &lk_host, opt, e); break;
	case LIBKVM_SOFT: r = open_one(k, &lk_soft, opt, e); break;
	default: r = lk_fail(e, EINVAL, "no such engine: %d", (int)engine); break;
	}
	if (r) {
		free(k);
		return r;
	}
	if (!k->reason[0])
		snprintf(k->reason, sizeof(k->reason), "as asked for");
	*out = k;
	return 0;
}

void libkvm_close(struct libkvm *k)
{
	if (!k)
		return;
	k->ops->close(k->h);
	free(k);
}

enum libkvm_engine libkvm_engine_kind(const struct libkvm *k)
{
	return k->ops->kind;
}

const char *libkvm_engine_reason(const struct libkvm *k)
{
	return k->reason;
}

int libkvm_ioctl(struct libkvm *k, unsigned long request, void *arg)
{
	/* Its handle would be lost. */
	if (request == KVM_CREATE_VM)
		return -EINVAL;
	return k->ops->ioctl(k->h, request, arg, NULL);
}

int libkvm_check(struct libkvm *k, int capability)
{
	return libkvm_ioctl(k, KVM_CHECK_EXTENSION, (void *)(intptr_t)capability);
}

int libkvm_supported_cpuid(struct libkvm *k, struct kvm_cpuid2 **out)
{
	for (uint32_t n = 64; n <= 256; n *= 2) {
		struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));
		int r;

		if (!c)
			return -ENOMEM;
		c->nent = n;
		r = libkvm_ioctl(k, KVM_GET_SUPPORTED_CPUID, c);
		if (!r) {
			*out = c;
			return 0;
		}
		free(c);
		if (r != -E2BIG)
			return r;
	}
	return -E2BIG;
}
