/*
 * virtio-serial: up to 31 byte streams between guest and host; see serial.h for its ports.
 *
 * Modelled:     both forms: the single port of a driver without MULTIPORT, and ports with names
 * that are announced over the control queues; opening and closing at both ends; emergency write;
 * console size (config space and RESIZE). Not modelled: plugging ports at run time (PORT_REMOVE is
 * never sent). Flow:         input is taken from a chardev only as far as the guest's next buffer
 * has room, so a guest without buffers stops the chardev. Output that the chardev does not take
 *               stays in the ring (how far it is written is in the state), so a full chardev stops
 *               the queue. A console is the exception: Linux spins until its output is taken
 *               (drivers/char/virtio_console.c, __send_to_port), so it goes to the chardev's large
 *               queue instead. Output to a port that nobody has open on the host is dropped.
 * Control:      what the guest is to be told is kept as bits of each port, not as messages, so a
 *               guest that gives no buffers costs no memory, and hears of the latest state.
 * Reference:    [VIRTIO1.2 5.3].
 * Threads: serial.h. Time: none. Host resources: the ports' chardevs.
 */
#include "virtio/serial.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <string.h>

#include "base/bug.h"
#include "hw/registry.h"

enum {
	VSERIAL_QUEUE = 128,
	VSERIAL_CTRL_QUEUE = 32,
	VSERIAL_CTRL_IN = 2, /* queues of control messages */
	VSERIAL_CTRL_OUT = 3,
	VSERIAL_NAME_MAX = 255,
	/* bytes of output before others have their turn: a guest may name gigabytes */
	VSERIAL_TURN = 1 << 20,
};

/* What a port's driver is still to be told, in the order of sending. */
enum {
	TELL_ADD = 1,
	TELL_CONSOLE = 2,
	TELL_NAME = 4,
	TELL_RESIZE = 8,
	TELL_OPEN = 16,
	TELL_ALL = 32,
};

struct vserial {
	struct virtio_dev vd;
	uint32_t max_ports; /* properties */
	bool emergency_write;
	struct vport *port[VSERIAL_PORTS];
	struct vserial_state {
		uint64_t done[VSERIAL_PORTS];   /* bytes of the next output element gone out */
		uint8_t tell[VSERIAL_PORTS];    /* TELL_... */
		bool guest_open[VSERIAL_PORTS]; /* the guest has the port open */
		bool ready[VSERIAL_PORTS];      /* it has a driver for the port */
		bool told_open[VSERIAL_PORTS];  /* what it was told of our end */
		uint16_t cols[VSERIAL_PORTS], rows[VSERIAL_PORTS]; /* as told */
	} s;
};

static const struct prop vserial_props[] = {
	PROP_N(struct vserial, max_ports, "max-ports", VSERIAL_PORTS, "ports, 1 to 31"),
	PROP_N(struct vserial, emergency_write, "emergency-write", true,
	       "offer output without queues"),
	VIRTIO_DEV_PROPS(struct vserial),
	PROP_END,
};

static const struct field vserial_fields[] = {
	ST_ARR(struct vserial_state, done),
	ST_ARR(struct vserial_state, tell, .lim = TELL_ALL),
	ST_ARR(struct vserial_state, guest_open),
	ST_ARR(struct vserial_state, ready),
	ST_ARR(struct vserial_state, told_open),
	ST_ARR(struct vserial_state, cols),
	ST_ARR(struct vserial_state, rows),
	{ 0 },
};

static struct vserial *vserial_of(struct virtio_dev *vd)
{
	return container_of(vd, struct vserial, vd);
}

struct dev *vserial_dev(struct vserial *s)
{
	return &s->vd.dev;
}

static bool vserial_multiport(const struct vserial *s)
{
	return virtio_has(&s->vd, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* [VIRTIO1.2 5.3.2]: port 0 has queues 0 and 1, control 2 and 3, port n 2n+2 and 2n+3. */
static unsigned vserial_queue_of(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

/* The port of a queue that is not for control. */
static unsigned vserial_port_of(unsigned queue)
{
	return queue < VSERIAL_CTRL_IN ? 0 : queue / 2 - 1;
}

static struct virtq *vport_in(const struct vport *p)
{
	return virtio_queue(&p->bus->vd, vserial_queue_of(p->nr));
}

/* Does the guest listen to the port? */
static bool vport_guest_open(const struct vport *p)
{
	const struct vserial *s = p->bus;

	return virtio_running(&s->vd) &&
	       (vserial_multiport(s) ? s->s.guest_open[p->nr] : p->nr == 0);
}

/*
 * Pop outside of the queue's handler: when it is empty, the driver must be asked to notify of the
 * next element, since nobody else does.
 */
static struct virtq_elem *vserial_pop(struct virtq *q)
{
	struct virtq_elem *el = virtq_pop(q);

	return el || !virtq_kick_enable(q) ? el : virtq_pop(q);
}

/* --- control messages --- */

static void vserial_message(struct vserial *s, struct virtq_elem *el, unsigned nr, uint8_t tell)
{
	const struct vport *p = s->port[nr];
	struct {
		struct virtio_console_control c;
		uint8_t more[VSERIAL_NAME_MAX];
	} m = { .c = { .id = nr, .value = 1 } };
	size_t len = sizeof(m.c);

	switch (tell) {
	case TELL_ADD: m.c.event = VIRTIO_CONSOLE_PORT_ADD; break;
	case TELL_CONSOLE: m.c.event = VIRTIO_CONSOLE_CONSOLE_PORT; break;
	case TELL_NAME:
		m.c.event = VIRTIO_CONSOLE_PORT_NAME;
		if (p->name) { /* a snapshot may say so of a port without one */
			memcpy(m.more, p->name, strlen(p->name));
			len += strlen(p->name);
		}
		break;
	case TELL_RESIZE:
		m.c.event = VIRTIO_CONSOLE_RESIZE;
		m.c.value = 0;
		/* columns first [VIRTIO1.2 5.3.6.2]; Linux before 6.15 took them for the rows */
		memcpy(m.more, &s->s.cols[nr], 2);
		memcpy(m.more + 2, &s->s.rows[nr], 2);
		len += 4;
		break;
	default:
		m.c.event = VIRTIO_CONSOLE_PORT_OPEN;
		m.c.value = s->s.told_open[nr];
		break;
	}
	virtq_push(el, virtq_elem_write(el, 0, &m, len));
}

/* Tell what is to be told, as far as there are buffers. */
static void vserial_tell(struct vserial *s)
{
	struct virtq *q = virtio_queue(&s->vd, VSERIAL_CTRL_IN);
	struct virtq_elem *el;

	if (!vserial_multiport(s))
		return;
	for (unsigned i = 0; i < s->max_ports; i++)
		while (s->s.tell[i]) {
			uint8_t tell = (uint8_t)(s->s.tell[i] & -s->s.tell[i]);

			if (!s->port[i]) { /* a snapshot of a machine that had it */
				s->s.tell[i] = 0;
				break;
			}
			el = vserial_pop(q);
			if (!el)
				goto out;
			s->s.tell[i] &= (uint8_t)~tell;
			vserial_message(s, el, i, tell);
		}
out:
	virtq_notify(q);
}

/* Our end of port i is as p->host_open says: tell if that is new. */
static void vserial_tell_open(struct vserial *s, unsigned i)
{
	if (!s->s.ready[i] || s->port[i]->host_open == s->s.told_open[i])
		return; /* PORT_READY asks for all there is to tell */
	s->s.told_open[i] = s->port[i]->host_open;
	s->s.tell[i] |= TELL_OPEN;
	vserial_tell(s);
}

/* Note the size of a console's terminal. True: it is another one. */
static bool vserial_take_size(struct vserial *s, unsigned i)
{
	const struct chardev *c = s->port[i]->console ? s->port[i]->chardev : NULL;
	uint16_t cols = c ? c->cols : 0, rows = c ? c->rows : 0;
	bool changed = cols != s->s.cols[i] || rows != s->s.rows[i];

	s->s.cols[i] = cols;
	s->s.rows[i] = rows;
	return changed;
}

static void vserial_tell_size(struct vserial *s, unsigned i)
{
	if (!vserial_take_size(s, i))
		return;
	if (s->s.ready[i] && vserial_multiport(s)) {
		s->s.tell[i] |= TELL_RESIZE;
		vserial_tell(s);
	} else if (!i && virtio_has(&s->vd, VIRTIO_CONSOLE_F_SIZE)) {
		virtio_config_changed(&s->vd);
	}
}

static void vserial_port_ready(struct vserial *s, struct vport *p)
{
	uint8_t *tell = &s->s.tell[p->nr];

	s->s.ready[p->nr] = true;
	if (p->name && *p->name)
		*tell |= TELL_NAME;
	if (p->console)
		*tell |= TELL_CONSOLE;
	if (p->console && s->s.cols[p->nr])
		*tell |= TELL_RESIZE;
	s->s.told_open[p->nr] = p->host_open;
	if (p->host_open)
		*tell |= TELL_OPEN;
}

static void vserial_control(struct vserial *s, const struct virtio_console_control *c)
{
	struct vport *p = c->id < s->max_ports ? s->port[c->id] : NULL;

	trace(&s->vd.dev, "control", c->id, c->event, c->value);
	if (c->event == VIRTIO_CONSOLE_DEVICE_READY) {
		for (unsigned i = 0; i < s->max_ports && c->value; i++)
			if (s->port[i])
				s->s.tell[i] |= TELL_ADD;
	} else if (!p) {
		guest_error(&s->vd.dev, "control_port", c->id, c->event);
	} else if (c->event == VIRTIO_CONSOLE_PORT_READY) {
		if (c->value)
			vserial_port_ready(s, p);
	} else if (c->event == VIRTIO_CONSOLE_PORT_OPEN) {
		s->s.guest_open[c->id] = c->value != 0;
		chardev_accept_input(p->chardev);
	} else {
		guest_error(&s->vd.dev, "control_event", c->event);
	}
	vserial_tell(s);
}

static void vserial_control_queue(struct vserial *s, struct virtq *q)
{
	struct virtq_elem *el;

	while ((el = virtq_pop(q))) {
		struct virtio_console_control c;
		bool all = virtq_elem_read(el, 0, &c, sizeof(c)) == sizeof(c);

		virtq_push(el, 0);
		if (all && vserial_multiport(s))
			vserial_control(s, &c);
		else
			guest_error(&s->vd.dev, "control_short");
	}
	virtq_notify(q);
}

/* --- output --- */

/* Write the element from byte *off on, at most *turn bytes; true: all of it. */
static bool vport_write(struct vport *p, const struct virtq_elem *el, uint64_t *off, size_t *turn)
{
	uint64_t skip = *off;

	for (unsigned i = 0; i < el->out_n; i++) {
		const uint8_t *at = el->out[i].iov_base;
		size_t len = el->out[i].iov_len, now, n;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		at += skip;
		len -= skip;
		skip = 0;
		now = MIN(len, *turn);
		n = chardev_write(p->chardev, at, now);
		if (n < now && p->console) {
			chardev_write_all(p->chardev, at + n, now - n);
			n = now;
		}
		*off += n;
		*turn -= n;
		if (n < len)
			return false;
	}
	return true;
}

static void vserial_output(struct vserial *s, unsigned nr, struct virtq *q)
{
	struct vport *p = nr < s->max_ports ? s->port[nr] : NULL;
	struct virtq_elem *el;
	bool multi = vserial_multiport(s);
	size_t turn = VSERIAL_TURN;

	while ((el = virtq_pop(q))) {
		if (p && p->host_open && (nr == 0 || multi) &&
		    !vport_write(p, el, &s->s.done[nr], &turn)) {
			virtq_unpop(el); /* vserial_writable goes on, or the next round */
			if (!turn) {
				virtq_kick_unneeded(q); /* not at once */
				virtio_queue_run(&s->vd, virtq_index(q));
			}
			break;
		}
		s->s.done[nr] = 0;
		virtq_push(el, 0);
	}
	virtq_notify(q);
}

void vserial_writable(struct vport *p)
{
	if (p->bus)
		virtio_queue_run(&p->bus->vd, vserial_queue_of(p->nr) + 1);
}

/* --- input --- */

/*
 * The guest's next buffer for input. Those without room go back; a guest that adds such as fast as
 * we take them must not keep the loop: after a queue of them others have their turn.
 */
static struct virtq_elem *vport_next(struct vport *p)
{
	struct virtq *q = vport_in(p);
	struct virtq_elem *el;

	for (unsigned i = 0; i < VSERIAL_QUEUE; i++) {
		el = vserial_pop(q);
		if (!el || el->in_len)
			return el;
		guest_error(&p->bus->vd.dev, "input_buffer", p->nr);
		virtq_push(el, 0);
		virtq_notify(q);
	}
	chardev_accept_input(p->chardev);
	return NULL;
}

size_t vserial_room(struct vport *p)
{
	if (!p->bus || !vport_guest_open(p))
		return 0;
	if (p->in && !virtq_elem_live(p->in)) { /* the driver took its queue away */
		virtq_drop(p->in);
		p->in = NULL;
	}
	if (!p->in)
		p->in = vport_next(p);
	return p->in ? (size_t)MIN(p->in->in_len, (uint64_t)SIZE_MAX / 2) : 0;
}

void vserial_input(struct vport *p, const uint8_t *buf, size_t len)
{
	struct virtq *q;

	if (!p->in)
		return;
	q = p->in->q;
	virtq_push(p->in, virtq_elem_write(p->in, 0, buf, len));
	p->in = NULL;
	virtq_notify(q);
}

void vserial_host_open(struct vport *p, bool open)
{
	p->host_open = open || p->console;
	if (!p->bus || !virtio_running(&p->bus->vd))
		return; /* start looks again */
	vserial_tell_open(p->bus, p->nr);
	vserial_writable(p); /* what waits is dropped, or goes out */
}

void vserial_resized(struct vport *p)
{
	if (p->bus)
		vserial_tell_size(p->bus, p->nr);
}

/* --- virtio --- */

static void vserial_queue(struct virtio_dev *vd, unsigned n)
{
	struct vserial *s = vserial_of(vd);
	struct virtq *q = virtio_queue(vd, n);
	unsigned nr = vserial_port_of(n);

	if (n == VSERIAL_CTRL_IN)
		vserial_tell(s);
	else if (n == VSERIAL_CTRL_OUT)
		vserial_control_queue(s, q);
	else if (n & 1)
		vserial_output(s, nr, q);
	else if (nr < s->max_ports && s->port[nr])
		chardev_accept_input(s->port[nr]->chardev);
}

/* Buffers in hand go back to the ring (unpop) or nowhere. */
static void vserial_release(struct vserial *s, void (*back)(struct virtq_elem *el))
{
	for (unsigned i = 0; i < s->max_ports; i++)
		if (s->port[i] && s->port[i]->in) {
			back(s->port[i]->in);
			s->port[i]->in = NULL;
		}
}

static void vserial_driver_reset(struct virtio_dev *vd)
{
	struct vserial *s = vserial_of(vd);

	vserial_release(s, virtq_drop);
	s->s = (struct vserial_state){ 0 };
	for (unsigned i = 0; i < s->max_ports; i++)
		if (s->port[i])
			(void)vserial_take_size(s, i);
}

static void vserial_pause(struct virtio_dev *vd)
{
	vserial_release(vserial_of(vd), virtq_unpop);
}

static void vserial_start(struct virtio_dev *vd)
{
	struct vserial *s = vserial_of(vd);

	for (unsigned i = 0; i < s->max_ports; i++) {
		if (!s->port[i])
			continue;
		vserial_tell_open(s, i); /* after a load our end may be another one */
		vserial_tell_size(s, i);
		chardev_accept_input(s->port[i]->chardev);
	}
	vserial_tell(s);
}

static void vserial_config_get(struct virtio_dev *vd, void *cfg)
{
	struct vserial *s = vserial_of(vd);
	struct virtio_console_config *c = cfg;

	c->cols = s->s.cols[0];
	c->rows = s->s.rows[0];
	c->max_nr_ports = s->max_ports;
}

static void vserial_config_set(struct virtio_dev *vd, const void *cfg, uint32_t off, uint32_t len)
{
	struct vserial *s = vserial_of(vd);
	const struct virtio_console_config *c = cfg;
	uint8_t byte = (uint8_t)c->emerg_wr;

	/* Also before any negotiation [VIRTIO1.2 5.3.4]; the low byte is the character. */
	if (off > offsetof(struct virtio_console_config, emerg_wr) ||
	    off + len <= offsetof(struct virtio_console_config, emerg_wr) || !s->emergency_write) {
		guest_error(&vd->dev, "config_write", off, len);
		return;
	}
	if (s->port[0])
		chardev_write_all(s->port[0]->chardev, &byte, 1);
}

static const struct virtio_class vserial_vclass = {
	.id = VIRTIO_ID_CONSOLE,
	.pci_legacy_id = 0x1003,
	.pci_class = 0x078000,
	.config_size = sizeof(struct virtio_console_config),
	.config_get = vserial_config_get,
	.config_set = vserial_config_set,
	.queue = vserial_queue,
	.start = vserial_start,
	.reset = vserial_driver_reset,
	.pause = vserial_pause,
};

/* --- ports --- */

static unsigned vserial_free_nr(const struct vserial *s, bool console)
{
	/* 0 is for a console: old drivers have only that [VIRTIO1.2 5.3.5] */
	for (unsigned i = console ? 0 : 1; i < s->max_ports; i++)
		if (!s->port[i])
			return i;
	return VSERIAL_NO_NR;
}

bool vserial_is_full(const struct vserial *s, bool console)
{
	return vserial_free_nr(s, console) == VSERIAL_NO_NR;
}

int vserial_plug(struct vserial *s, struct vport *p, struct err *e)
{
	const char *id = s->vd.dev.id;

	if (p->name && strlen(p->name) > VSERIAL_NAME_MAX)
		return err_set(e, EINVAL, "%s: a name has up to %d characters", p->dev.id,
			       VSERIAL_NAME_MAX);
	for (unsigned i = 0; i < s->max_ports && p->name; i++)
		if (s->port[i] && s->port[i]->name && !strcmp(s->port[i]->name, p->name))
			return err_set(e, EEXIST, "%s has a port with the name %s already", id,
				       p->name);
	if (p->nr == VSERIAL_NO_NR) {
		p->nr = vserial_free_nr(s, p->console);
		if (p->nr == VSERIAL_NO_NR)
			return err_set(e, ENOSPC, "%s has no port left of %u", id, s->max_ports);
	}
	if (p->nr >= s->max_ports)
		return err_set(e, EINVAL, "%s: nr=%u: %s has ports 0 to %u", p->dev.id, p->nr, id,
			       s->max_ports - 1);
	if (!p->nr && !p->console)
		return err_set(e, EINVAL, "%s: port 0 of %s is for a virtconsole", p->dev.id, id);
	if (s->port[p->nr])
		return err_set(e, EBUSY, "port %u of %s is %s already", p->nr, id,
			       s->port[p->nr]->dev.id);
	s->port[p->nr] = p;
	return 0;
}

void vserial_unplug(struct vserial *s, struct vport *p)
{
	if (p->in)
		virtq_drop(p->in);
	p->in = NULL;
	s->port[p->nr] = NULL;
}

/* --- the device --- */

static int vserial_realize(struct dev *d, struct err *e)
{
	struct vserial *s = container_of(d, struct vserial, vd.dev);
	int rc;

	if (!s->max_ports || s->max_ports > VSERIAL_PORTS)
		return err_set(e, EINVAL, "%s: max_ports=%u: 1 to %d", d->id, s->max_ports,
			       VSERIAL_PORTS);
	rc = virtio_dev_init(&s->vd, &vserial_vclass, s->max_ports > 1 ? 2 * s->max_ports + 2 : 2,
			     VSERIAL_QUEUE, e);
	if (rc < 0)
		return rc;
	s->vd.host_features = BIT(VIRTIO_CONSOLE_F_SIZE);
	if (s->emergency_write)
		s->vd.host_features |= BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	if (s->max_ports > 1) {
		s->vd.host_features |= BIT(VIRTIO_CONSOLE_F_MULTIPORT);
		s->vd.queue_size[VSERIAL_CTRL_IN] = VSERIAL_CTRL_QUEUE;
		s->vd.queue_size[VSERIAL_CTRL_OUT] = VSERIAL_CTRL_QUEUE;
	}
	return 0;
}

static void vserial_reset(struct dev *d, enum reset_kind k)
{
	vserial_driver_reset(&container_of(d, struct vserial, vd.dev)->vd);
}

static int vserial_loaded(struct dev *d, struct err *e)
{
	/* of the state before; the transport's load makes nothing of them */
	vserial_release(container_of(d, struct vserial, vd.dev), virtq_drop);
	return 0;
}

const struct dev_class virtio_serial_class = {
	.name = "virtio-serial",
	.desc = "serial ports and consoles (virtserialport, virtconsole)",
	.size = sizeof(struct vserial),
	.props = vserial_props,
	.state = STATE_OF(struct vserial, s, vserial_fields, 1),
	.realize = vserial_realize,
	.reset = vserial_reset,
	.loaded = vserial_loaded,
	.bus = "virtio",
};

struct vserial *vserial_from_dev(struct dev *d)
{
	return d && d->cls == &virtio_serial_class ? container_of(d, struct vserial, vd.dev) : NULL;
}
