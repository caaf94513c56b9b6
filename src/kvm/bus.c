/*
 * In-kernel I/O buses: which device claims a port or a guest-physical range.
 *
 * A bus is an immutable table sorted by address behind an atomic pointer; vCPUs search it in guest
 * mode without a lock. Registration copies the table and waits one grace period before it frees the
 * old one, so that after kvm_io_bus_unregister no vCPU is inside the device.
 *
 * Modelled:     ranges that nest or coincide: each device that covers the access is asked in order
 *               of address, then of registration.
 * References:   [KVM-API 4.59].
 * Threads:      access: vCPU in guest mode. Registration: see vm.h; serialised by vm->slots_lock.
 */
#include "kvm/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/x86/vcpu.h"

#define KVM_IO_BUS_MAX 1024

struct kvm_io_range {
	gpa_t addr;
	uint64_t len;
	struct kvm_io_device *dev;
};

struct kvm_io_bus_table {
	uint32_t n;
	uint64_t longest; /* no range is longer: how far back a search must look */
	struct kvm_io_range range[];
};

int kvm_io_bus_init(struct kvm_vm *vm)
{
	for (int b = 0; b < KVM_BUSES; b++) {
		struct kvm_io_bus_table *t = calloc(1, sizeof(*t));

		if (!t) {
			kvm_io_bus_free(vm);
			return -ENOMEM;
		}
		atomic_store(&vm->buses[b], t);
	}
	return 0;
}

void kvm_io_bus_free(struct kvm_vm *vm)
{
	for (int b = 0; b < KVM_BUSES; b++) {
		free(atomic_load(&vm->buses[b]));
		atomic_store(&vm->buses[b], NULL);
	}
}

static void bus_publish(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_bus_table *t)
{
	struct kvm_io_bus_table *old = atomic_exchange(&vm->buses[bus], t);

	kvm_sync_vcpus(vm, REQ_SYNC, NULL);
	free(old);
}

int kvm_io_bus_register_locked(struct kvm_vm *vm, enum kvm_bus bus, gpa_t addr, uint64_t len,
			       struct kvm_io_device *d)
{
	struct kvm_io_bus_table *old = atomic_load(&vm->buses[bus]), *t;
	uint32_t i = 0;

	if (old->n >= KVM_IO_BUS_MAX)
		return -ENOSPC;
	t = malloc(sizeof(*t) + (old->n + 1) * sizeof(t->range[0]));
	if (!t)
		return -ENOMEM;
	while (i < old->n && old->range[i].addr <= addr)
		i++;
	memcpy(t->range, old->range, i * sizeof(t->range[0]));
	t->range[i] = (struct kvm_io_range){ addr, len, d };
	memcpy(&t->range[i + 1], &old->range[i], (old->n - i) * sizeof(t->range[0]));
	t->n = old->n + 1;
	t->longest = MAX(old->longest, len);
	bus_publish(vm, bus, t);
	return 0;
}

void kvm_io_bus_unregister_locked(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_device *d)
{
	struct kvm_io_bus_table *old = atomic_load(&vm->buses[bus]), *t;
	uint32_t n = 0;

	t = malloc(sizeof(*t) + old->n * sizeof(t->range[0]));
	if (!t) {
		/*
		 * No memory for a smaller table: take the device out in place while every vCPU is
		 * stopped at a boundary is not possible here, so make its range unmatchable.
		 */
		for (uint32_t i = 0; i < old->n; i++)
			if (old->range[i].dev == d)
				__atomic_store_n(&old->range[i].len, 0, __ATOMIC_SEQ_CST);
		kvm_sync_vcpus(vm, REQ_SYNC, NULL);
		return;
	}
	t->longest = 0;
	for (uint32_t i = 0; i < old->n; i++) {
		if (old->range[i].dev == d)
			continue;
		t->longest = MAX(t->longest, old->range[i].len);
		t->range[n++] = old->range[i];
	}
	t->n = n;
	bus_publish(vm, bus, t);
}

int kvm_io_bus_register(struct kvm_vm *vm, enum kvm_bus bus, gpa_t addr, uint64_t len,
			struct kvm_io_device *d)
{
	int r;

	pthread_mutex_lock(&vm->slots_lock);
	r = kvm_io_bus_register_locked(vm, bus, addr, len, d);
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

void kvm_io_bus_unregister(struct kvm_vm *vm, enum kvm_bus bus, struct kvm_io_device *d)
{
	pthread_mutex_lock(&vm->slots_lock);
	kvm_io_bus_unregister_locked(vm, bus, d);
	pthread_mutex_unlock(&vm->slots_lock);
}

/* Index of the first range that can reach addr: those below addr - longest cannot. */
static uint32_t bus_first(const struct kvm_io_bus_table *t, gpa_t addr)
{
	gpa_t low = addr >= t->longest ? addr - t->longest : 0;
	uint32_t lo = 0, hi = t->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (t->range[mid].addr < low)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int bus_access(struct vcpu *v, enum kvm_bus bus, gpa_t addr, int len, void *in,
		      const void *out)
{
	const struct kvm_io_bus_table *t = atomic_load(&v->vm->buses[bus]);

	for (uint32_t i = bus_first(t, addr); i < t->n && t->range[i].addr <= addr; i++) {
		const struct kvm_io_range *r = &t->range[i];
		uint64_t rlen = __atomic_load_n(&r->len, __ATOMIC_RELAXED);
		struct kvm_io_device *d = r->dev;
		int ret = -EOPNOTSUPP;

		if (rlen < (uint64_t)len || addr - r->addr > rlen - (uint64_t)len)
			continue;
		if (in && d->ops->read)
			ret = d->ops->read(d, v, addr, len, in);
		else if (out && d->ops->write)
			ret = d->ops->write(d, v, addr, len, out);
		if (!ret)
			return 0;
	}
	return -EOPNOTSUPP;
}

int kvm_io_bus_read(struct vcpu *v, enum kvm_bus bus, gpa_t addr, int len, void *data)
{
	return bus_access(v, bus, addr, len, data, NULL);
}

int kvm_io_bus_write(struct vcpu *v, enum kvm_bus bus, gpa_t addr, int len, const void *data)
{
	return bus_access(v, bus, addr, len, NULL, data);
}
