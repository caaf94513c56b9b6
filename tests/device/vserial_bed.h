/* A virtio-serial with ports and chardevs, and the driver's side of its control queues. */
#pragma once
#include "virtio_bed.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <stdio.h>

#include "virtio/serial.h"

enum { CTRL_IN = 2, CTRL_OUT = 3 };

struct sbed {
	struct vbed *vb;
	struct bed *b;
	struct vserial *serial;
	struct dev *d;
	gpa_t ctrl[16]; /* buffers of the control queue, used in turn */
	unsigned ctrl_next;
};

static inline struct sbed *sbed_new(const char *max_ports)
{
	struct sbed *s = calloc(1, sizeof(*s));
	struct err e = { 0 };

	s->vb = vbed_new();
	s->b = s->vb->bed;
	s->d = dev_create(&s->b->md, &virtio_serial_class, "vs", &e, "max_ports", max_ports, NULL);
	if (!s->d)
		fail_msg("%s", e.msg);
	s->serial = vserial_from_dev(s->d);
	return s;
}

static inline void sbed_free(struct sbed *s)
{
	vbed_free(s->vb);
	free(s);
}

/* A port with a ring chardev of the same id; room 0: no chardev. NULL with e on failure. */
static inline struct dev *sbed_try(struct sbed *s, const struct dev_class *cls, const char *id,
				   const char *name, int nr, size_t room, struct err *e)
{
	struct dev *d = dev_new(&s->b->md, cls, id, e);

	assert_non_null(d);
	dev_set_backend(d, "bus", s->serial);
	if (room) {
		struct chardev *c = chardevs_find(&s->b->chardevs, id);

		dev_set_backend(d, "chardev", c ? c : bed_ring(s->b, id, room));
	}
	if (name)
		assert_int_equal(dev_set_prop(d, "name", name, e), 0);
	if (nr >= 0)
		dev_set_u64(d, "nr", (uint64_t)nr);
	if (!dev_realize(d, e))
		return d;
	dev_free(d);
	return NULL;
}

static inline struct dev *sbed_port(struct sbed *s, const struct dev_class *cls, const char *id,
				    const char *name, int nr, size_t room)
{
	struct err e = { 0 };
	struct dev *d = sbed_try(s, cls, id, name, nr, room, &e);

	if (!d)
		fail_msg("%s", e.msg);
	return d;
}

static inline struct chardev *sbed_chr(struct sbed *s, const char *id)
{
	return chardevs_find(&s->b->chardevs, id);
}

/* Give the device one more buffer for a control message. */
static inline void sbed_ctrl_buffer(struct sbed *s)
{
	vbed_add(s->vb, CTRL_IN, 1, VIN(s->ctrl[s->ctrl_next++ % 16], 64));
}

/* Plug into a transport, negotiate, start with queues 0..n-1 and 16 control buffers if any. */
static inline void sbed_start(struct sbed *s, uint64_t features, unsigned queues)
{
	if (!s->vb->transport)
		vbed_plug(s->vb, s->d);
	s->vb->top = 0x10000;
	vbed_start(s->vb, features, queues);
	s->ctrl_next = 0;
	for (unsigned i = 0; i < 16; i++)
		s->ctrl[i] = vbed_alloc(s->vb, 64);
	for (unsigned i = 0; i < 16 && queues > CTRL_IN; i++)
		sbed_ctrl_buffer(s);
}

/* The driver sends a control message. */
static inline void sbed_send(struct sbed *s, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control c = { id, event, value };
	gpa_t at = vbed_alloc(s->vb, sizeof(c));
	uint32_t len;

	memcpy(s->vb->ram + at, &c, sizeof(c));
	vbed_add(s->vb, CTRL_OUT, 1, VOUT(at, sizeof(c)));
	vbed_kick(s->vb, CTRL_OUT);
	assert_true(vbed_used(s->vb, CTRL_OUT, &len) >= 0);
}

/* The next control message as "EVENT id value[ text]", "" when there is none; its buffer returns.
 */
static inline const char *sbed_told(struct sbed *s)
{
	static const char *const names[] = { "ready",   "add",    "remove", "port_ready",
					     "console", "resize", "open",   "name" };
	static char text[128];
	struct virtio_console_control c;
	unsigned slot = s->vb->q[CTRL_IN].seen % 16;
	uint32_t len;

	*text = 0;
	if (vbed_used(s->vb, CTRL_IN, &len) < 0)
		return text;
	assert_true(len >= sizeof(c));
	memcpy(&c, s->vb->ram + s->ctrl[slot], sizeof(c));
	assert_true(c.event < ARRAY_SIZE(names));
	if (c.event == VIRTIO_CONSOLE_RESIZE) {
		uint16_t size[2];

		assert_int_equal(len, sizeof(c) + 4);
		memcpy(size, s->vb->ram + s->ctrl[slot] + sizeof(c), 4);
		snprintf(text, sizeof(text), "resize %u %ux%u", c.id, size[0], size[1]);
	} else {
		snprintf(text, sizeof(text), "%s %u %u%s%.*s", names[c.event], c.id, c.value,
			 len > sizeof(c) ? " " : "", (int)(len - sizeof(c)),
			 (char *)s->vb->ram + s->ctrl[slot] + sizeof(c));
	}
	sbed_ctrl_buffer(s);
	return text;
}

#define assert_told(s, text) assert_string_equal(sbed_told(s), text)

/* The driver writes to a queue; does not wait for the device to take it. */
static inline void sbed_out(struct sbed *s, unsigned queue, const void *data, size_t len)
{
	gpa_t at = vbed_alloc(s->vb, len);

	memcpy(s->vb->ram + at, data, len);
	vbed_add(s->vb, queue, 1, VOUT(at, (uint32_t)len));
	vbed_kick(s->vb, queue);
}

/* Publish a buffer for input; true: the driver must notify of it [VIRTIO1.2 2.7.10]. */
static inline bool sbed_in(struct sbed *s, unsigned queue, gpa_t at, uint32_t len)
{
	struct vq *q = &s->vb->q[queue];
	uint16_t old = q->avail[1], event = q->used[2 + 4 * q->size];

	vbed_add(s->vb, queue, 1, VIN(at, len));
	return vbed_has(s->vb, VIRTIO_RING_F_EVENT_IDX) ? vring_need_event(event, q->avail[1], old)
							: !(q->used[0] & VRING_USED_F_NO_NOTIFY);
}

/* What has come to the host at a ring chardev. */
static inline const char *sbed_host(struct sbed *s, const char *id)
{
	static char buf[4096];
	size_t n;

	vbed_run(s->vb);
	n = chardev_ring_output(sbed_chr(s, id), buf, sizeof(buf) - 1);
	buf[n] = 0;
	vbed_run(s->vb);
	return buf;
}
