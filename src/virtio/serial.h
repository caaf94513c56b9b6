/*
 * The ports of a virtio-serial device, between serial.c (the device: queues, control messages) and
 * console.c (virtconsole and virtserialport, which connect them to chardevs).
 *
 * A port is a device of its own that is plugged into a number of the serial device in realize. What
 * the guest can observe of it is in the serial device's state.
 * Threads: everything with the device lock; virtio-serial has no iothread.
 */
#pragma once
#include "backend/char/chardev.h"
#include "virtio/virtio.h"

enum {
	VSERIAL_PORTS = 31, /* their queues and two for control are VIRTIO_QUEUES_MAX */
	VSERIAL_NO_NR = UINT32_MAX,
};

struct vserial;

struct vport {
	struct dev dev;
	/* properties */
	struct vserial *bus; /* NULL: not plugged in, for tests */
	struct chardev *chardev;
	char *name;
	uint32_t nr; /* VSERIAL_NO_NR: the next free one; set when plugged */

	bool console; /* hvc, always connected; else a virtserialport */
	bool plugged;
	bool host_open;        /* somebody is at our end */
	struct virtq_elem *in; /* the guest's next buffer for input; NULL: none in hand */
};

struct dev *vserial_dev(struct vserial *s);

/* The virtio-serial that d is, NULL: another class. */
struct vserial *vserial_from_dev(struct dev *d);

/* Give the port its number. On failure e says what is taken. */
int vserial_plug(struct vserial *s, struct vport *p, struct err *e) must_check;
void vserial_unplug(struct vserial *s, struct vport *p);

/* No number is free for a further port of this kind? */
bool vserial_is_full(const struct vserial *s, bool console);

/* For the chardev's handlers: bytes the guest has room for; give it so many or fewer. */
size_t vserial_room(struct vport *p);
void vserial_input(struct vport *p, const uint8_t *buf, size_t len);
/* There is room for output again. */
void vserial_writable(struct vport *p);
/* Somebody came to our end, or left. */
void vserial_host_open(struct vport *p, bool open);
/* The chardev's terminal has another size. */
void vserial_resized(struct vport *p);
