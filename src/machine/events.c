/*
 * What the engine does for devices beside running vCPUs (core/dev.h, struct event_ops): doorbells
 * without an exit to us, and interrupt messages.
 * Not modelled: an eventfd that is an interrupt message (irqfd). Whoever could signal one, the
 *               kernel's vhost, works on rings of ours (virtio/net_vhost.c), so we send the message.
 * Threads: any.
 */
#include <errno.h>
#include <string.h>

#include "machine/machine.h"

static int machine_doorbell(void *opaque, const struct doorbell *d, bool assign, struct err *e)
{
	struct machine *m = opaque;
	int r = libkvm_ioeventfd(m->vm, d->fd, d->addr, d->len, d->space == BUS_IO,
				 d->match ? &d->value : NULL, assign);

	return r < 0 ? err_set(e, -r, "the engine refuses a doorbell at %#llx: %s",
			       (unsigned long long)d->addr, strerror(-r))
		     : 0;
}

static int machine_msi(void *opaque, uint64_t addr, uint32_t data)
{
	return libkvm_signal_msi(((struct machine *)opaque)->vm, addr, data);
}

const struct event_ops machine_events = { .doorbell = machine_doorbell, .msi = machine_msi };
