/*
 * The ports of virtio-serial: virtconsole, a terminal of the guest (hvc0 and on), and
 * virtserialport, a named stream for programs (/dev/virtio-ports/NAME), each over a chardev.
 *
 * Modelled:     all that serial.c tells a driver about ports. A console counts as connected always;
 *               a virtserialport follows its chardev.
 * Not modelled: a port that is unplugged while the machine runs.
 * State:        in the virtio-serial device, which the port is plugged into.
 * Reference:    [VIRTIO1.2 5.3]. Threads: serial.h. Time: none. Host resources: a chardev.
 */
#include "virtio/serial.h"

static const struct prop vport_props[] = {
	PROP_BACKEND(struct vport, bus, "virtio-serial", "the virtio-serial it belongs to"),
	PROP_BACKEND(struct vport, chardev, "chardev", "the other end"),
	PROP_STR(struct vport, name, NULL, "what the guest knows it by: org.qemu.guest_agent.0"),
	PROP(struct vport, nr, VSERIAL_NO_NR, "number of the port; default: the next free one"),
	PROP_END,
};

static struct vport *vport_of(struct dev *d)
{
	return container_of(d, struct vport, dev);
}

static size_t vport_can_read(void *opaque)
{
	return vserial_room(opaque);
}

static void vport_read(void *opaque, const uint8_t *buf, size_t len)
{
	vserial_input(opaque, buf, len);
}

static void vport_can_write(void *opaque)
{
	vserial_writable(opaque);
}

static void vport_event(void *opaque, enum chardev_event ev)
{
	struct vport *p = opaque;

	if (ev == CHARDEV_OPENED || ev == CHARDEV_CLOSED)
		vserial_host_open(p, ev == CHARDEV_OPENED);
	else if (ev == CHARDEV_RESIZED)
		vserial_resized(p);
}

static const struct chardev_handlers vport_handlers = {
	.can_read = vport_can_read,
	.read = vport_read,
	.can_write = vport_can_write,
	.event = vport_event,
};

static int vport_realize(struct dev *d, struct err *e)
{
	struct vport *p = vport_of(d);
	int rc = p->bus ? vserial_plug(p->bus, p, e) : 0;

	p->plugged = p->bus && !rc;
	p->host_open = p->console || chardev_is_open(p->chardev);
	if (!rc && p->chardev)
		rc = chardev_attach(p->chardev, &vport_handlers, p, e);
	if (!rc)
		return 0;
	if (p->plugged)
		vserial_unplug(p->bus, p);
	p->plugged = false;
	p->chardev = NULL; /* it is another one's */
	return rc;
}

static int vconsole_realize(struct dev *d, struct err *e)
{
	vport_of(d)->console = true;
	return vport_realize(d, e);
}

static void vport_unrealize(struct dev *d)
{
	struct vport *p = vport_of(d);

	chardev_detach(p->chardev);
	if (p->plugged)
		vserial_unplug(p->bus, p);
	p->plugged = false;
}

static void vport_reset(struct dev *d, enum reset_kind k)
{
	/* nothing of its own: the virtio-serial resets its ports */
}

const struct dev_class virtconsole_class = {
	.name = "virtconsole",
	.desc = "console on a virtio-serial (hvc0)",
	.size = sizeof(struct vport),
	.props = vport_props,
	.state = STATE_NONE,
	.realize = vconsole_realize,
	.reset = vport_reset,
	.unrealize = vport_unrealize,
	.bus = "virtio-serial",
};

const struct dev_class virtserialport_class = {
	.name = "virtserialport",
	.desc = "stream on a virtio-serial (/dev/virtio-ports)",
	.size = sizeof(struct vport),
	.props = vport_props,
	.state = STATE_NONE,
	.realize = vport_realize,
	.reset = vport_reset,
	.unrealize = vport_unrealize,
	.bus = "virtio-serial",
};
