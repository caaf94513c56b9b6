/*
 * Eventfds as interrupts (KVM_IRQFD) and as targets of guest writes (KVM_IOEVENTFD).
 *
 * Modelled:     edge irqfds (raise and lower), level irqfds with a resample eventfd, deassignment;
 *               ioeventfds on ports and memory of any length with datamatch.
 * Not modelled: virtio-ccw; the interrupt bypass of devices.
 * References:   [KVM-API 4.75, 4.59].
 * Threads:      any. eventfds->lock covers the irqfd list and is held while an event is injected,
 * so that none is in flight after deassignment; order: that lock, then vm->irq_lock. ioeventfds:
 * vm->slots_lock. Host resources: an epoll descriptor and one thread for each VM that uses irqfds.
 */
#include "kvm/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/runner.h"
#include "kvm/arch.h"
#include "kvm/bus.h"
#include "kvm/hostsig.h"

struct irqfd {
	struct irqfd *next;
	struct kvm_vm *vm;
	int fd, resample_fd; /* our own duplicates; resample_fd -1: edge */
	uint64_t id;         /* of the eventfd itself */
	uint64_t serial;     /* what epoll reports: a stale event finds nothing */
	uint32_t gsi;
	struct kvm_ack_notifier ack;
};

struct ioeventfd {
	struct ioeventfd *next;
	struct kvm_io_device dev;
	int fd;
	uint64_t id;
	enum kvm_bus bus;
	uint64_t addr, datamatch;
	uint32_t len;
	bool wildcard;
};

struct kvm_eventfds {
	pthread_mutex_t lock;
	int epoll_fd, stop_fd;
	bool started;
	pthread_t thread;
	uint64_t serial;
	struct irqfd *irqfds;
	struct ioeventfd *ioeventfds;
};

/*
 * Tell eventfds apart whatever descriptor names them, as the kernel does. Returns 0, -EBADF, or
 * -EINVAL when fd is no eventfd.
 */
static int eventfd_id(int fd, uint64_t *id)
{
	char path[64], line[128];
	bool is = false;
	FILE *f;

	if (fd < 0 || fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	*id = (uint64_t)fd;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return 0; /* no /proc: trust the caller, tell apart by number */
	while (fgets(line, sizeof(line), f)) {
		uint64_t n;

		if (!strncmp(line, "eventfd-count:", 14))
			is = true;
		else if (sscanf(line, "eventfd-id: %" SCNu64, &n) == 1)
			*id = n | BIT(63); /* apart from descriptor numbers */
	}
	fclose(f);
	return is ? 0 : -EINVAL;
}

static int eventfd_dup(int fd)
{
	int n = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return n < 0 ? -errno : n;
}

/* ---- irqfd ---------------------------------------------------------------------------------- */

/* Take the count without blocking, whatever mode the descriptor is in. True: there was one. */
static bool irqfd_take(int fd)
{
	uint64_t n;
	struct iovec iov = { &n, sizeof(n) };

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == sizeof(n);
}

static void irqfd_inject(struct irqfd *q)
{
	if (!irqfd_take(q->fd))
		return;
	if (q->resample_fd >= 0) {
		kvm_set_irq(q->vm, KVM_IRQ_SOURCE_IRQFD, q->gsi, 1);
	} else {
		kvm_set_irq(q->vm, KVM_IRQ_SOURCE_USER, q->gsi, 1);
		kvm_set_irq(q->vm, KVM_IRQ_SOURCE_USER, q->gsi, 0);
	}
}

/* The guest has ended the interrupt: let the line go and tell the device, which may raise again. */
static void irqfd_acked(struct kvm_vm *vm, struct kvm_ack_notifier *n)
{
	struct irqfd *q = container_of(n, struct irqfd, ack);

	kvm_set_irq(vm, KVM_IRQ_SOURCE_IRQFD, q->gsi, 0);
	eventfd_write(q->resample_fd, 1);
}

static void *irqfd_thread(void *arg)
{
	struct kvm_eventfds *ev = arg;
	struct epoll_event got[16];

	for (;;) {
		int n = epoll_wait(ev->epoll_fd, got, ARRAY_SIZE(got), -1);

		pthread_mutex_lock(&ev->lock);
		for (int i = 0; i < n; i++) {
			if (!got[i].data.u64) { /* stop_fd */
				pthread_mutex_unlock(&ev->lock);
				return NULL;
			}
			for (struct irqfd *q = ev->irqfds; q; q = q->next) {
				if (q->serial == got[i].data.u64) {
					irqfd_inject(q);
					break;
				}
			}
		}
		pthread_mutex_unlock(&ev->lock);
	}
}

static int irqfd_start_thread(struct kvm_eventfds *ev)
{
	struct epoll_event e = { .events = EPOLLIN };
	int r;

	if (ev->started)
		return 0;
	if (ev->epoll_fd < 0)
		ev->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (ev->epoll_fd >= 0 && ev->stop_fd < 0) {
		ev->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (ev->stop_fd >= 0)
			epoll_ctl(ev->epoll_fd, EPOLL_CTL_ADD, ev->stop_fd, &e);
	}
	if (ev->epoll_fd < 0 || ev->stop_fd < 0)
		return -EMFILE;
	r = hostsig_thread(&ev->thread, irqfd_thread, ev);
	ev->started = !r;
	return r;
}

static void irqfd_free(struct irqfd *q)
{
	if (q->resample_fd >= 0)
		close(q->resample_fd);
	if (q->fd >= 0)
		close(q->fd);
	free(q);
}

static int irqfd_add_locked(struct kvm_eventfds *ev, struct irqfd *q)
{
	struct epoll_event e = { .events = EPOLLIN };
	int r = irqfd_start_thread(ev);

	if (r)
		return r;
	for (struct irqfd *o = ev->irqfds; o; o = o->next)
		if (o->id == q->id)
			return -EBUSY;
	q->serial = e.data.u64 = ++ev->serial;
	if (epoll_ctl(ev->epoll_fd, EPOLL_CTL_ADD, q->fd, &e))
		return -errno;
	if (q->resample_fd >= 0) {
		q->ack.gsi = q->gsi;
		q->ack.fn = irqfd_acked;
		kvm_ack_register(q->vm, &q->ack);
	}
	q->next = ev->irqfds;
	ev->irqfds = q;
	return 0;
}

static int irqfd_assign(struct kvm_vm *vm, const struct kvm_irqfd *args)
{
	bool resample = args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	struct irqfd *q;
	uint64_t id;
	int r;

	/* Only chips with pins tell of an end of interrupt. */
	if (resample ? !kvm_arch_has_pins(vm) : !kvm_arch_has_irqchip(vm))
		return -EINVAL;
	r = eventfd_id((int)args->fd, &id);
	if (!r && resample) {
		uint64_t other;

		r = eventfd_id((int)args->resamplefd, &other);
	}
	if (r)
		return r;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->vm = vm;
	q->id = id;
	q->gsi = args->gsi;
	q->fd = eventfd_dup((int)args->fd);
	q->resample_fd = resample ? eventfd_dup((int)args->resamplefd) : -1;
	r = q->fd < 0 ? q->fd : resample && q->resample_fd < 0 ? q->resample_fd : 0;
	if (!r) {
		pthread_mutex_lock(&vm->eventfds->lock);
		r = irqfd_add_locked(vm->eventfds, q);
		pthread_mutex_unlock(&vm->eventfds->lock);
	}
	if (r)
		irqfd_free(q);
	return r;
}

static void irqfd_remove_locked(struct kvm_eventfds *ev, struct irqfd *q)
{
	if (ev->epoll_fd >= 0)
		epoll_ctl(ev->epoll_fd, EPOLL_CTL_DEL, q->fd, NULL);
	if (q->resample_fd >= 0) {
		kvm_ack_unregister(q->vm, &q->ack);
		kvm_set_irq(q->vm, KVM_IRQ_SOURCE_IRQFD, q->gsi, 0);
	}
	irqfd_free(q);
}

static int irqfd_deassign(struct kvm_vm *vm, const struct kvm_irqfd *args)
{
	struct kvm_eventfds *ev = vm->eventfds;
	uint64_t id;
	int r = eventfd_id((int)args->fd, &id);

	if (r)
		return r;
	pthread_mutex_lock(&ev->lock);
	for (struct irqfd **p = &ev->irqfds; *p;) {
		struct irqfd *q = *p;

		if (q->id != id || q->gsi != args->gsi) {
			p = &q->next;
			continue;
		}
		*p = q->next;
		irqfd_remove_locked(ev, q);
	}
	pthread_mutex_unlock(&ev->lock);
	return 0;
}

int kvm_irqfd(struct kvm_vm *vm, const struct kvm_irqfd *args)
{
	if (args->flags & ~(uint32_t)(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	return args->flags & KVM_IRQFD_FLAG_DEASSIGN ? irqfd_deassign(vm, args)
						     : irqfd_assign(vm, args);
}

/* ---- ioeventfd ------------------------------------------------------------------------------ */

static int ioeventfd_write(struct kvm_io_device *d, struct vcpu *v, gpa_t addr, int len,
			   const void *data)
{
	struct ioeventfd *q = container_of(d, struct ioeventfd, dev);
	uint64_t val = 0;

	if (addr != q->addr || (q->len && q->len != (uint32_t)len))
		return -EOPNOTSUPP;
	if (!q->wildcard) {
		memcpy(&val, data, q->len);
		if (val != q->datamatch)
			return -EOPNOTSUPP;
	}
	runner_here(); /* whoever this wakes shall not poll on this processor */
	eventfd_write(q->fd, 1);
	runner_handoff();
	return 0;
}

static const struct kvm_io_ops ioeventfd_ops = { .write = ioeventfd_write };

/* Would both fire at one write? A length of 0 meets any. */
static bool ioeventfd_collides(const struct ioeventfd *a, const struct ioeventfd *b)
{
	if (a->bus != b->bus || a->addr != b->addr)
		return false;
	if (!a->len || !b->len)
		return true;
	return a->len == b->len && (a->wildcard || b->wildcard || a->datamatch == b->datamatch);
}

static int ioeventfd_add_locked(struct kvm_vm *vm, struct ioeventfd *q)
{
	int r;

	for (struct ioeventfd *o = vm->eventfds->ioeventfds; o; o = o->next)
		if (ioeventfd_collides(o, q))
			return -EEXIST;
	/* The bus takes accesses that lie inside a range: any length is at most 8 bytes. */
	r = kvm_io_bus_register_locked(vm, q->bus, q->addr, q->len ? q->len : 8, &q->dev);
	if (r)
		return r;
	q->next = vm->eventfds->ioeventfds;
	vm->eventfds->ioeventfds = q;
	return 0;
}

static int ioeventfd_assign(struct kvm_vm *vm, const struct ioeventfd *like, int fd)
{
	struct ioeventfd *q = malloc(sizeof(*q));
	int r;

	if (!q)
		return -ENOMEM;
	*q = *like;
	q->dev.ops = &ioeventfd_ops;
	q->fd = eventfd_dup(fd);
	if (q->fd < 0) {
		r = q->fd;
		free(q);
		return r;
	}
	pthread_mutex_lock(&vm->slots_lock);
	r = ioeventfd_add_locked(vm, q);
	pthread_mutex_unlock(&vm->slots_lock);
	if (r) {
		close(q->fd);
		free(q);
	}
	return r;
}

static int ioeventfd_deassign(struct kvm_vm *vm, const struct ioeventfd *like)
{
	int r = -ENOENT;

	pthread_mutex_lock(&vm->slots_lock);
	for (struct ioeventfd **p = &vm->eventfds->ioeventfds; *p; p = &(*p)->next) {
		struct ioeventfd *q = *p;

		if (q->bus != like->bus || q->id != like->id || q->addr != like->addr ||
		    q->len != like->len || q->wildcard != like->wildcard ||
		    (!q->wildcard && q->datamatch != like->datamatch))
			continue;
		*p = q->next;
		kvm_io_bus_unregister_locked(vm, q->bus, &q->dev);
		close(q->fd);
		free(q);
		r = 0;
		break;
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return r;
}

int kvm_ioeventfd(struct kvm_vm *vm, const struct kvm_ioeventfd *args)
{
	const uint32_t known =
		KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct ioeventfd like = { .fd = -1, .addr = args->addr, .len = args->len };
	int r;

	like.bus = args->flags & KVM_IOEVENTFD_FLAG_PIO ? KVM_BUS_PIO : KVM_BUS_MMIO;
	like.wildcard = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	if (!(args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)) {
		if (args->len > 8 || (args->len & (args->len - 1)))
			return -EINVAL;
		if (args->addr + args->len < args->addr || (args->flags & ~known))
			return -EINVAL;
		if (!args->len && !like.wildcard)
			return -EINVAL;
	}
	if (!like.wildcard)
		like.datamatch = args->datamatch;
	r = eventfd_id(args->fd, &like.id);
	if (r)
		return r;
	return args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? ioeventfd_deassign(vm, &like)
							 : ioeventfd_assign(vm, &like, args->fd);
}

/* ---- Life ----------------------------------------------------------------------------------- */

int kvm_eventfds_create(struct kvm_vm *vm)
{
	struct kvm_eventfds *ev = calloc(1, sizeof(*ev));

	if (!ev)
		return -ENOMEM;
	pthread_mutex_init(&ev->lock, NULL);
	ev->epoll_fd = ev->stop_fd = -1;
	vm->eventfds = ev;
	return 0;
}

void kvm_eventfds_free(struct kvm_vm *vm)
{
	struct kvm_eventfds *ev = vm->eventfds;

	if (!ev)
		return;
	if (ev->started) {
		eventfd_write(ev->stop_fd, 1);
		pthread_join(ev->thread, NULL);
	}
	while (ev->irqfds) {
		struct irqfd *q = ev->irqfds;

		ev->irqfds = q->next;
		irqfd_remove_locked(ev, q);
	}
	while (ev->ioeventfds) {
		struct ioeventfd *q = ev->ioeventfds;

		ev->ioeventfds = q->next;
		kvm_io_bus_unregister(vm, q->bus, &q->dev);
		close(q->fd);
		free(q);
	}
	if (ev->stop_fd >= 0)
		close(ev->stop_fd);
	if (ev->epoll_fd >= 0)
		close(ev->epoll_fd);
	pthread_mutex_destroy(&ev->lock);
	free(ev);
	vm->eventfds = NULL;
}
