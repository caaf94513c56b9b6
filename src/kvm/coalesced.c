/*
 * Coalesced MMIO and PIO. See coalesced.h.
 *
 * The ring is one page, shared with user space, which is as hostile as a guest can make it: indexes
 * read from it are checked. It is a memfd so that every vCPU's run area shows the same page.
 *
 * References: [KVM-API 4.116]. Threads: zones under vm->slots_lock; the ring under its own lock.
 */
#include "kvm/coalesced.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/bus.h"

#define COALESCED_ENTRIES \
	((PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

struct coalesced_zone {
	struct kvm_io_device dev;
	struct kvm_coalesced *all;
	struct kvm_coalesced_mmio_zone zone;
	struct coalesced_zone *next;
};

struct kvm_coalesced {
	int fd; /* -1 until the first vCPU */
	struct kvm_coalesced_mmio_ring *ring;
	pthread_mutex_t lock;
	struct coalesced_zone *zones;
};

int kvm_coalesced_create(struct kvm_vm *vm)
{
	struct kvm_coalesced *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->fd = -1;
	pthread_mutex_init(&c->lock, NULL);
	vm->coalesced = c;
	return 0;
}

void kvm_coalesced_free(struct kvm_vm *vm)
{
	struct kvm_coalesced *c = vm->coalesced;

	if (!c)
		return;
	while (c->zones) {
		struct coalesced_zone *z = c->zones;

		c->zones = z->next;
		free(z);
	}
	if (c->ring)
		munmap(c->ring, PAGE_SIZE);
	if (c->fd >= 0)
		close(c->fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
	vm->coalesced = NULL;
}

static int coalesced_open(struct kvm_coalesced *c)
{
	void *p;

	if (c->fd >= 0)
		return 0;
	c->fd = memfd_create("kvm-coalesced", MFD_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	if (ftruncate(c->fd, PAGE_SIZE))
		goto fail;
	p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (p == MAP_FAILED)
		goto fail;
	c->ring = p;
	return 0;
fail:
	close(c->fd);
	c->fd = -1;
	return -ENOMEM;
}

int kvm_coalesced_map(struct kvm_vm *vm, void *at)
{
	int r = coalesced_open(vm->coalesced);

	if (r)
		return r;
	if (mmap(at, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, vm->coalesced->fd,
		 0) == MAP_FAILED)
		return -ENOMEM;
	return 0;
}

static int coalesced_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			   const void *data)
{
	struct coalesced_zone *z = container_of(d, struct coalesced_zone, dev);
	struct kvm_coalesced *c = z->all;
	struct kvm_coalesced_mmio_ring *ring;
	int r = -EOPNOTSUPP;
	uint32_t last, first;

	if (len < 1 || len > 8)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&c->lock);
	ring = c->ring;
	if (ring) {
		last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
		first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);
		/* Full, or an index that user space spoiled: exit to it. */
		if (last < COALESCED_ENTRIES && (last + 1) % COALESCED_ENTRIES != first) {
			struct kvm_coalesced_mmio *m = &ring->coalesced_mmio[last];

			m->phys_addr = addr;
			m->len = (uint32_t)len;
			memcpy(m->data, data, (size_t)len);
			m->pio = z->zone.pio;
			__atomic_store_n(&ring->last, (last + 1) % COALESCED_ENTRIES,
					 __ATOMIC_RELEASE);
			r = 0;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

static const struct kvm_io_ops coalesced_ops = { .write = coalesced_write };

int kvm_coalesced_register(struct kvm_vm *vm, const struct kvm_coalesced_mmio_zone *zone)
{
	struct coalesced_zone *z;
	int r;

	if (zone->pio > 1)
		return -EINVAL;
	z = calloc(1, sizeof(*z));
	if (!z)
		return -ENOMEM;
	z->dev.ops = &coalesced_ops;
	z->all = vm->coalesced;
	z->zone = *zone;
	pthread_mutex_lock(&vm->slots_lock);
	r = kvm_io_bus_register_locked(vm, zone->pio ? KVM_BUS_PIO : KVM_BUS_MMIO, zone->addr,
				       zone->size, &z->dev);
	if (r) {
		free(z);
	} else {
		z->next = vm->coalesced->zones;
		vm->coalesced->zones = z;
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

static bool coalesced_inside(const struct kvm_coalesced_mmio_zone *in,
			     const struct kvm_coalesced_mmio_zone *out)
{
	return in->pio == out->pio && in->addr >= out->addr && in->addr + in->size >= in->addr &&
	       in->addr + in->size <= out->addr + out->size;
}

/* Every registered zone that contains the given one goes; none is no error. */
int kvm_coalesced_unregister(struct kvm_vm *vm, const struct kvm_coalesced_mmio_zone *zone)
{
	struct coalesced_zone **p = &vm->coalesced->zones;

	if (zone->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->slots_lock);
	while (*p) {
		struct coalesced_zone *z = *p;

		if (!coalesced_inside(zone, &z->zone)) {
			p = &z->next;
			continue;
		}
		*p = z->next;
		kvm_io_bus_unregister_locked(vm, zone->pio ? KVM_BUS_PIO : KVM_BUS_MMIO, &z->dev);
		free(z);
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return 0;
}
