/*
 * Guest memory: slot numbers and where they lie.
 *
 * References: [KVM-API 4.35, 4.8]. Threads: any; vm->lock covers the slots and keeps table and
 * engine in step.
 */
#include <errno.h>

#include "libkvm/engine.h"

static int memory_set(struct libkvm_vm *vm, uint32_t id, const struct lk_slot *s)
{
	struct kvm_userspace_memory_region m = { .slot = id,
						 .flags = s->flags,
						 .guest_phys_addr = s->gpa,
						 .memory_size = s->size,
						 .userspace_addr = (uintptr_t)s->host };

	return libkvm_vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &m);
}

/* The slot that begins at gpa, or NULL. */
static struct lk_slot *memory_at(struct libkvm_vm *vm, uint64_t gpa)
{
	for (uint32_t i = 0; i < vm->nslots; i++)
		if (vm->slots[i].size && vm->slots[i].gpa == gpa)
			return &vm->slots[i];
	return NULL;
}

int libkvm_mem_add(struct libkvm_vm *vm, uint64_t gpa, uint64_t size, void *host, uint32_t flags)
{
	struct lk_slot s = { .gpa = gpa, .size = size, .host = host, .flags = flags };
	int r = -ENOSPC;

	if (!size)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	for (uint32_t i = 0; i < vm->nslots; i++) {
		if (vm->slots[i].size)
			continue;
		r = memory_set(vm, i, &s);
		if (!r)
			vm->slots[i] = s;
		break;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int libkvm_mem_remove(struct libkvm_vm *vm, uint64_t gpa, uint64_t size)
{
	struct lk_slot *s;
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	s = memory_at(vm, gpa);
	if (s && s->size == size) {
		struct lk_slot none = *s;

		none.size = 0;
		none.flags = 0;
		r = memory_set(vm, (uint32_t)(s - vm->slots), &none);
		if (!r)
			s->size = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int libkvm_mem_set_flags(struct libkvm_vm *vm, uint64_t gpa, uint32_t flags)
{
	struct lk_slot *s;
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	s = memory_at(vm, gpa);
	if (s) {
		struct lk_slot new = *s;

		new.flags = flags;
		r = memory_set(vm, (uint32_t)(s - vm->slots), &new);
		if (!r)
			*s = new;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int libkvm_mem_dirty_log(struct libkvm_vm *vm, uint64_t gpa, uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct lk_slot *s;
	int r = -ENOENT;

	pthread_mutex_lock(&vm->lock);
	s = memory_at(vm, gpa);
	if (s) {
		log.slot = (uint32_t)(s - vm->slots);
		r = libkvm_vm_ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

void libkvm_mem_written(struct libkvm_vm *vm, uint64_t gpa, uint64_t size)
{
	vm->k->ops->written(vm->h, gpa, size);
}

void *libkvm_mem_ptr(struct libkvm_vm *vm, uint64_t gpa, uint64_t size)
{
	void *p = NULL;

	pthread_mutex_lock(&vm->lock);
	for (uint32_t i = 0; i < vm->nslots; i++) {
		const struct lk_slot *s = &vm->slots[i];

		if (s->size && gpa >= s->gpa && gpa - s->gpa < s->size &&
		    size <= s->size - (gpa - s->gpa)) {
			p = s->host + (gpa - s->gpa);
			break;
		}
	}
	pthread_mutex_unlock(&vm->lock);
	return p;
}
