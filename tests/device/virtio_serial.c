/*
 * virtio-serial: numbers and names of ports, control messages with a driver that is slow, hostile
 * or gone, both forms of the device, emergency write, reset, snapshots.
 */
#include "vserial_bed.h"

#define CON      &virtconsole_class
#define PORT     &virtserialport_class
#define MULTI    (VBED_ALL)
#define NO_MULTI (VBED_ALL & ~BIT(VIRTIO_CONSOLE_F_MULTIPORT))

static void numbers(void **state)
{
	struct sbed *s = sbed_new("4");
	struct err e = { 0 };

	assert_int_equal(((struct vport *)sbed_port(s, PORT, "p1", "one", -1, 0))->nr, 1);
	assert_int_equal(((struct vport *)sbed_port(s, CON, "c0", NULL, -1, 0))->nr, 0);
	assert_int_equal(((struct vport *)sbed_port(s, PORT, "p3", NULL, 3, 0))->nr, 3);
	assert_null(sbed_try(s, PORT, "x", NULL, 0, 0, &e));
	assert_non_null(strstr(e.msg, "is for a virtconsole"));
	assert_null(sbed_try(s, PORT, "x", NULL, 3, 0, &e));
	assert_non_null(strstr(e.msg, "is p3 already"));
	assert_null(sbed_try(s, PORT, "x", NULL, 4, 0, &e));
	assert_non_null(strstr(e.msg, "has ports 0 to 3"));
	assert_null(sbed_try(s, PORT, "x", "one", -1, 0, &e));
	assert_non_null(strstr(e.msg, "the name one already"));
	assert_false(vserial_is_full(s->serial, false));
	assert_int_equal(((struct vport *)sbed_port(s, CON, "c2", NULL, -1, 0))->nr, 2);
	assert_null(sbed_try(s, PORT, "x", NULL, -1, 0, &e));
	assert_non_null(strstr(e.msg, "no port left of 4"));
	assert_true(vserial_is_full(s->serial, true));
	dev_free(machine_devs_find(&s->b->md, "p3")); /* its number is free again */
	sbed_port(s, PORT, "p4", NULL, -1, 0);
	sbed_free(s);
	s = calloc(1, sizeof(*s));
	s->vb = vbed_new();
	for (int i = 0; i < 2; i++) {
		assert_null(dev_create(&s->vb->bed->md, &virtio_serial_class, "v", &e, "max_ports",
				       i ? "0" : "32", NULL));
		assert_non_null(strstr(e.msg, "1 to 31"));
	}
	sbed_free(s);
}

static void config(void **state)
{
	struct sbed *s = sbed_new("31");

	sbed_port(s, CON, "c", NULL, -1, 100);
	vbed_plug(s->vb, s->d);
	assert_int_equal(vbed_r(s->vb, 0x08), VIRTIO_ID_CONSOLE);
	assert_int_equal(vbed_cfg(s->vb, 4, 4), 31);
	/* before anything is negotiated: a panicking guest */
	vbed_set_cfg(s->vb, 8, '!', 4);
	vbed_set_cfg(s->vb, 8, '?', 1);
	vbed_set_cfg(s->vb, 9, 'x', 1); /* not the character's byte */
	vbed_set_cfg(s->vb, 4, 99, 4);
	assert_string_equal(sbed_host(s, "c"), "!?");
	assert_int_equal(vbed_cfg(s->vb, 4, 4), 31);
	for (unsigned i = 0; i < 66; i++) {
		vbed_w(s->vb, 0x30, i);
		assert_int_equal(vbed_r(s->vb, 0x34), i >= 64 ? 0 : i == 2 || i == 3 ? 32 : 128);
	}
	sbed_free(s);
	s = sbed_new("1"); /* the old form: nothing but port 0 */
	vbed_plug(s->vb, s->d);
	assert_false(vbed_offered(s->vb) & BIT(VIRTIO_CONSOLE_F_MULTIPORT));
	vbed_set_cfg(s->vb, 8, '!', 4); /* nobody is there */
	sbed_free(s);
}

/* The whole of a Linux driver's start. */
static void handshake(void **state)
{
	struct sbed *s = sbed_new("31");

	sbed_port(s, CON, "con", NULL, -1, 1000);
	sbed_port(s, PORT, "ga", "org.qemu.guest_agent.0", -1, 1000);
	sbed_port(s, PORT, "none", NULL, 5, 0);
	chardev_set_size(sbed_chr(s, "con"), 80, 25);
	sbed_start(s, MULTI, 14);
	assert_told(s, "");
	sbed_send(s, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_told(s, "add 0 1");
	assert_told(s, "add 1 1");
	assert_told(s, "add 5 1");
	assert_told(s, "");
	sbed_send(s, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_told(s, "console 0 1");
	assert_told(s, "resize 0 80x25");
	assert_told(s, "open 0 1");
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_told(s, "name 1 1 org.qemu.guest_agent.0");
	assert_told(s, "open 1 1");
	sbed_send(s, 5, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_told(s, ""); /* no chardev: not open */
	sbed_send(s, 5, VIRTIO_CONSOLE_PORT_READY, 0);
	/* the host's end goes and comes */
	chardev_ring_event(sbed_chr(s, "ga"), CHARDEV_CLOSED);
	chardev_ring_event(sbed_chr(s, "con"), CHARDEV_CLOSED); /* a console stays */
	assert_told(s, "open 1 0");
	chardev_ring_event(sbed_chr(s, "ga"), CHARDEV_CLOSED);
	assert_told(s, "");
	chardev_ring_event(sbed_chr(s, "ga"), CHARDEV_OPENED);
	assert_told(s, "open 1 1");
	chardev_set_size(sbed_chr(s, "con"), 132, 43);
	assert_told(s, "resize 0 132x43");
	chardev_set_size(sbed_chr(s, "ga"), 1, 1); /* no console */
	assert_told(s, "");
	assert_int_equal(vbed_cfg(s->vb, 0, 2), 132);
	/* a driver that is bound again asks for all once more */
	sbed_start(s, MULTI, 14);
	assert_told(s, "");
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_told(s, "add 0 1");
	sbed_free(s);
}

/* A driver without buffers hears of the latest state when it has some; nothing grows meanwhile. */
static void control_without_buffers(void **state)
{
	struct sbed *s = sbed_new("31");
	struct err e = { 0 };
	char id[32];

	for (int i = 1; i < 31; i++) {
		snprintf(id, sizeof(id), "p%d", i);
		sbed_port(s, PORT, id, id, i, 100);
	}
	assert_null(sbed_try(s, PORT, "x", NULL, -1, 0, &e));
	sbed_start(s, MULTI, 4);
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (int i = 1; i < 31; i++) {
		snprintf(id, sizeof(id), "add %d 1", i);
		assert_told(s, id); /* each gives its buffer back */
		vbed_kick(s->vb, CTRL_IN);
	}
	for (int i = 0; i < 100; i++) {
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
		chardev_ring_event(sbed_chr(s, "p1"), i & 1 ? CHARDEV_OPENED : CHARDEV_CLOSED);
	}
	for (int i = 0; i < 200; i++) {
		const char *told = sbed_told(s);

		if (!*told)
			break;
		snprintf(id, 8, "%s", told);
		vbed_kick(s->vb, CTRL_IN);
	}
	assert_string_equal(id, "open 1 "); /* last of all, whatever came before */
	assert_told(s, "");
	sbed_free(s);
}

static void hostile_control(void **state)
{
	struct sbed *s = sbed_new("3");
	gpa_t at = 0;
	uint32_t len;

	sbed_port(s, PORT, "p", "p", 1, 100);
	sbed_start(s, MULTI, 8);
	for (uint16_t ev = 0; ev < 12; ev++)
		for (unsigned i = 0; i < 6; i++) {
			static const uint32_t ids[] = { 0, 1, 2, 3, 31, UINT32_MAX };

			sbed_send(s, ids[i], ev, (uint16_t)(ev * 31));
			while (*sbed_told(s)) {
			}
		}
	/* too short, too long, split, and nothing at all to read */
	at = vbed_alloc(s->vb, 64);
	vbed_add(s->vb, CTRL_OUT, 1, VOUT(at, 7));
	vbed_add(s->vb, CTRL_OUT, 1, VOUT(at, 64));
	vbed_add(s->vb, CTRL_OUT, 2, VOUT(at, 3), VOUT(at + 3, 5));
	vbed_add(s->vb, CTRL_OUT, 1, VIN(at, 64));
	vbed_kick(s->vb, CTRL_OUT);
	for (int i = 0; i < 4; i++)
		assert_true(vbed_used(s->vb, CTRL_OUT, &len) >= 0);
	while (*sbed_told(s)) {
	}
	/* control buffers without room for the message: it is cut */
	vbed_add(s->vb, CTRL_IN, 1, VIN(at, 1));
	vbed_add(s->vb, CTRL_IN, 1, VOUT(at, 8));
	for (int i = 0; i < 9; i++) { /* name and open each time */
		sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
		assert_true(vbed_used(s->vb, CTRL_IN, &len) >= 0);
		assert_int_equal(len, i < 8 ? 9 : 1);
		assert_true(vbed_used(s->vb, CTRL_IN, &len) >= 0);
		assert_int_equal(len, i < 8 ? 8 : 0);
	}
	assert_false(vbed_status(s->vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
	sbed_free(s);
}

/* Without MULTIPORT only port 0 exists, and is open. */
static void single_port(void **state)
{
	struct sbed *s = sbed_new("4");
	gpa_t in;
	uint32_t len;

	sbed_port(s, CON, "con", NULL, -1, 1000);
	sbed_port(s, PORT, "p", "p", 1, 1000);
	sbed_start(s, NO_MULTI, 6);
	in = vbed_alloc(s->vb, 64);
	vbed_add(s->vb, 0, 1, VIN(in, 64));
	vbed_kick(s->vb, 0);
	chardev_ring_input(sbed_chr(s, "con"), "typed", 5);
	vbed_run(s->vb);
	assert_int_equal(vbed_used(s->vb, 0, &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(s->vb->ram + in, "typed", 5);
	sbed_out(s, 1, "hello", 5);
	assert_string_equal(sbed_host(s, "con"), "hello");
	sbed_out(s, 5, "nowhere", 7);
	assert_string_equal(sbed_host(s, "p"), "");
	assert_true(vbed_used(s->vb, 5, &len) >= 0);
	sbed_send(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_int_equal(vbed_used(s->vb, CTRL_IN, &len), -1);
	assert_int_equal(vbed_irq(s->vb) & VIRTIO_ISR_CONFIG, 0);
	chardev_set_size(sbed_chr(s, "con"), 90, 30); /* such a driver reads config space */
	assert_true(vbed_irq(s->vb) & VIRTIO_ISR_CONFIG);
	assert_int_equal(vbed_cfg(s->vb, 0, 2), 90);
	assert_int_equal(vbed_cfg(s->vb, 2, 2), 30);
	sbed_free(s);
}

/* What the guest sees of a port is in the snapshot; what has changed on the host is told after it.
 */
static void snapshot(void **state)
{
	struct sbed *s = sbed_new("31"), *o = sbed_new("31");
	struct sbed *two[] = { s, o };
	struct err e = { 0 };
	uint8_t *buf;
	size_t n;

	for (int i = 0; i < 2; i++) {
		sbed_port(two[i], PORT, "p", "name", 1, 4);
		sbed_start(two[i], MULTI, 6);
		sbed_send(two[i], 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
		assert_told(two[i], "add 1 1");
	}
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	sbed_send(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	assert_told(s, "name 1 1 name");
	assert_told(s, "open 1 1");
	sbed_out(s, 5, "0123456789", 10); /* four of them are out */
	chardev_ring_event(sbed_chr(o, "p"), CHARDEV_CLOSED);
	machine_devs_pause(&s->b->md);
	machine_devs_pause(&o->b->md);
	assert_int_equal(virtio_in_flight(s->vb->vd), 0);
	bed_copy(s->d, o->d);
	n = state_save_size(&s->vb->transport->cls->state);
	buf = malloc(n);
	memcpy(o->vb->ram, s->vb->ram, VBED_RAM);
	assert_int_equal(dev_save(s->vb->transport, buf, n), n);
	if (dev_load(o->vb->transport, buf, n, &e))
		fail_msg("%s", e.msg);
	free(buf);
	memcpy(&o->vb->q, &s->vb->q, sizeof(o->vb->q));
	for (unsigned i = 0; i < 6; i++) {
		struct vq *q = &o->vb->q[i];

		q->d = (struct vring_desc *)(o->vb->ram + q->desc);
		q->avail = (uint16_t *)(o->vb->ram + q->driver);
		q->used = (uint16_t *)(o->vb->ram + q->device);
	}
	memcpy(o->ctrl, s->ctrl, sizeof(o->ctrl));
	o->ctrl_next = s->ctrl_next;
	o->vb->top = s->vb->top;
	machine_devs_resume(&o->b->md);
	vbed_run(o->vb);
	assert_told(o, "open 1 0");                              /* nobody is at this host's end */
	assert_true(vbed_used(o->vb, 5, &(uint32_t){ 0 }) >= 0); /* the rest is dropped */
	assert_string_equal(sbed_host(o, "p"), "");
	machine_devs_resume(&s->b->md); /* and the first goes on where it was */
	assert_string_equal(sbed_host(s, "p"), "0123");
	assert_string_equal(sbed_host(s, "p"), "4567");
	assert_string_equal(sbed_host(s, "p"), "89");
	sbed_free(s);
	sbed_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),         cmocka_unit_test(config),
		cmocka_unit_test(handshake),       cmocka_unit_test(control_without_buffers),
		cmocka_unit_test(hostile_control), cmocka_unit_test(single_port),
		cmocka_unit_test(snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
