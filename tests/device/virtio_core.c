/*
 * The virtio core with a device that echoes: rings, notifications both ways, reset and
 * pause with elements out, save and load.
 */
#include "virtio_echo.h"

static bool packed; /* for those tests that are run with both kinds of rings */

static struct vbed *start(struct echo **ec, uint64_t features, unsigned queues)
{
	struct vbed *vb = echo_bed_in(NULL, packed, ec);

	vbed_start(vb, features, queues);
	return vb;
}

static void core_echo(void **state)
{
	for (int indirect = 0; indirect < 2; indirect++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, VBED_ALL, 2);

		assert_int_equal(vbed_has(vb, VIRTIO_F_RING_PACKED), packed);
		vb->indirect = indirect;
		for (int i = 0; i < 200; i++) {
			echo_once(vb, i & 1);
			assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
		}
		assert_int_equal(vbed_irq(vb), 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		vbed_free(vb);
	}
}

/* Many buffers, in pieces that do not match. */
static void core_pieces(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	gpa_t out = vbed_alloc(vb, 4096), in = vbed_alloc(vb, 4096);
	struct vbuf b[40];
	uint32_t len;

	for (unsigned i = 0; i < 4096; i++)
		vb->ram[out + i] = (uint8_t)(i * 7 + i / 256);
	for (unsigned i = 0; i < 20; i++) {
		b[i] = VOUT(out + 100 * i, 100);
		b[20 + i] = VIN(in + 110 * i, 110);
	}
	for (int indirect = 0; indirect < 2; indirect++) {
		vb->indirect = indirect;
		memset(vb->ram + in, 0, 4096);
		vbed_addv(vb, 0, 40, b);
		vbed_kick(vb, 0);
		assert_true(vbed_used(vb, 0, &len) >= 0);
		assert_int_equal(len, 2000);
		assert_memory_equal(vb->ram + in, vb->ram + out, 2000);
		assert_int_equal(vb->ram[in + 2000], 0);
	}
	vbed_free(vb);
}

/* Buffers of the ring, and at their end a table of more [VIRTIO1.2 2.7.5.3.2]. */
static void core_indirect_tail(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	gpa_t out = vbed_alloc(vb, 64), in = vbed_alloc(vb, 64), tab = vbed_alloc(vb, 64);
	struct vring_desc *t = (struct vring_desc *)(vb->ram + tab);
	struct vq *q = &vb->q[0];
	uint32_t len;

	memcpy(vb->ram + out, ECHO_MSG, sizeof(ECHO_MSG));
	q->d[0] = (struct vring_desc){ out, 7, VRING_DESC_F_NEXT, 1 };
	q->d[1] = (struct vring_desc){ tab, 32, VRING_DESC_F_INDIRECT, 0 };
	t[0] = (struct vring_desc){ out + 7, sizeof(ECHO_MSG) - 7, VRING_DESC_F_NEXT, 1 };
	t[1] = (struct vring_desc){ in, 64, VRING_DESC_F_WRITE, 0 };
	vbed_publish(vb, 0, 0);
	vbed_kick(vb, 0);
	assert_int_equal(vbed_wait(vb, 0, &len), 0);
	assert_string_equal((char *)vb->ram + in, ECHO_MSG);
	vbed_free(vb);
}

/* Interrupts: as the driver's flag or its event index wants them. */
static void core_interrupts(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, BIT(VIRTIO_F_VERSION_1), 1);
	struct vq *q = &vb->q[0];

	echo_once(vb, 0);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	q->avail[0] = VRING_AVAIL_F_NO_INTERRUPT;
	echo_once(vb, 0);
	assert_int_equal(vbed_irq(vb), 0);
	q->avail[0] = 0;
	echo_once(vb, 0);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);

	vbed_start(vb, VBED_ALL, 1);
	for (unsigned i = 0; i < 40; i++) {
		q->avail[2 + q->size] = 30; /* used_event: when entry 30 is used */
		echo_once(vb, 0);
		/* the first one always: nobody knows what the driver has seen */
		assert_int_equal(vbed_irq(vb), i == 0 || i == 30 ? VIRTIO_ISR_QUEUE : 0);
	}
	vbed_free(vb);
}

static void feed_look(struct echo *ec)
{
	struct vbed *vb = ec->opaque;
	struct vq *q = &vb->q[0];

	/* in the handler: the driver is asked not to notify */
	if (vbed_has(vb, VIRTIO_RING_F_EVENT_IDX))
		assert_int_not_equal(q->used[2 + 4 * q->size], q->avail[1]);
	else
		assert_int_equal(q->used[0], VRING_USED_F_NO_NOTIFY);
}

static void core_kicks(void **state)
{
	for (int event = 0; event < 2; event++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, event ? VBED_ALL : BIT(VIRTIO_F_VERSION_1), 1);
		struct vq *q = &vb->q[0];

		ec->popped = feed_look;
		ec->opaque = vb;
		for (int i = 0; i < 100; i++) {
			echo_once(vb, 0);
			assert_int_equal(q->used[0], 0);
			if (event)
				assert_int_equal(q->used[2 + 4 * q->size], q->avail[1]);
		}
		vbed_free(vb);
	}
}

/* A driver that adds an element for each that is taken does not keep the loop. */
static void feed(struct echo *ec)
{
	struct vbed *vb = ec->opaque;

	vbed_publish(vb, 0, 0);
}

static void core_fair(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	gpa_t in = vbed_alloc(vb, 64);

	ec->popped = feed;
	ec->opaque = vb;
	vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_w(vb, 0x50, 0);
	for (int i = 0; i < 10; i++) {
		unsigned before = ec->pops;

		loop_step(vb->bed->loop, false);
		assert_true(ec->pops > before && ec->pops - before <= 2 * VBED_QSIZE);
	}
	ec->popped = NULL;
	vbed_run(vb);
	vbed_free(vb);
}

static void late(struct echo *ec)
{
	struct vbed *vb = ec->opaque;

	ec->empty = NULL;
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
}

/*
 * The bell rings for nothing, as it does when the device was faster; the handler finds the queue
 * empty, and before it ends the driver adds an element, for which it rings no bell, as it was
 * asked.
 */
static void core_late(void **state)
{
	for (int event = 0; event < 2; event++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, event ? VBED_ALL : ~BIT(VIRTIO_RING_F_EVENT_IDX), 1);

		ec->empty = late;
		ec->opaque = vb;
		vbed_kick(vb, 0);
		assert_int_equal(vbed_used(vb, 0, NULL), 0);
		vbed_free(vb);
	}
}

/* --- status, features, configuration --- */

static void core_features(void **state)
{
	struct echo *ec;
	struct vbed *vb = echo_bed_in(NULL, false, &ec);

	vbed_start(vb, VBED_ALL, 1);
	assert_int_equal(ec->want & (BIT(0) | BIT(1) | BIT(41)), BIT(0) | BIT(1) | BIT(41));
	echo_once(vb, 0);
	ec->refuse = BIT(41);
	assert_false(vbed_negotiate(vb, VBED_ALL));
	assert_true(vbed_negotiate(vb, ~BIT(41)));
	vbed_start(vb, ~BIT(41), 2);
	assert_false(virtio_has(vb->vd, 41));
	echo_once(vb, 1);
	/* before DRIVER_OK nothing is taken */
	assert_true(vbed_negotiate(vb, BIT(VIRTIO_F_VERSION_1)));
	vbed_queue(vb, 0, 16);
	ec->pops = 0;
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 8));
	vbed_kick(vb, 0);
	assert_int_equal(ec->pops, 0);
	vbed_driver_ok(vb);
	assert_int_equal(ec->pops, 1);
	/* status bits do not go away, and NEEDS_RESET is not the driver's */
	vbed_w(vb, 0x70, 0x41);
	assert_int_equal(vbed_status(vb), 15);
	vbed_free(vb);
}

static void core_config(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	uint32_t gen = vbed_r(vb, 0xfc);

	assert_int_equal(vbed_cfg(vb, 0, 4), 0x11223344);
	assert_int_equal(vbed_cfg(vb, 1, 1), 0x33);
	assert_int_equal(vbed_cfg(vb, 4, 4), 0);
	assert_int_equal(vbed_cfg(vb, 200, 4), 0);
	vbed_set_cfg(vb, 2, 0xabcd, 2);
	assert_int_equal(vbed_cfg(vb, 0, 4), 0xabcd3344);
	vbed_set_cfg(vb, 6, 1, 2);
	vbed_set_cfg(vb, 252, 1, 4);
	assert_int_equal(ec->s.written, 1);
	assert_int_equal(vbed_irq(vb), 0);
	virtio_config_changed(vb->vd);
	assert_int_not_equal(vbed_r(vb, 0xfc), gen);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_CONFIG);
	/* both causes at once: the line stays high until both are acknowledged */
	virtio_config_changed(vb->vd);
	echo_once(vb, 0);
	assert_int_equal(vbed_r(vb, 0x60), 3);
	vbed_w(vb, 0x64, 1);
	assert_true(vb->bed->level[VBED_IRQ]);
	vbed_w(vb, 0x64, 2);
	assert_false(vb->bed->level[VBED_IRQ]);
	vbed_free(vb);
}

/* --- reset and pause --- */

static void core_reset_held(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	gpa_t in;

	ec->mode = ECHO_HOLD;
	in = vbed_alloc(vb, 64);
	for (int i = 0; i < 5; i++)
		vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 5);
	vbed_w(vb, 0x70, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	assert_int_equal(vbed_status(vb), 0);
	/* answers that come during the reset: the driver does not see them */
	ec->drop_on_reset = false;
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	assert_non_null(ec->first);
	bh_schedule(&ec->bh);
	vbed_w(vb, 0x70, 0);
	assert_int_equal(ec->first == NULL, 1);
	assert_int_equal(vbed_used(vb, 0, NULL), -1);
	assert_int_equal(vbed_irq(vb), 0);
	/* the machine's reset does the same */
	vbed_start(vb, VBED_ALL, 1);
	vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	bh_schedule(&ec->bh);
	machine_devs_reset(&vb->bed->md, RESET_WARM);
	assert_int_equal(vbed_status(vb), 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	ec->mode = ECHO_NOW;
	vbed_start(vb, VBED_ALL, 1);
	echo_once(vb, 0);
	vbed_free(vb);
}

static void reset_toggle(void *opaque)
{
	struct vbed *vb = opaque;

	assert_true(vb->vd->v->resetting);
	machine_devs_pause(&vb->bed->md);
	machine_devs_resume(&vb->bed->md);
}

/* Another vCPU takes bus mastering away and gives it back while a reset waits for elements. */
static void core_reset_toggled(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	struct bh toggle;

	bh_init(&toggle, vb->bed->loop, reset_toggle, vb);
	ec->mode = ECHO_HOLD;
	ec->drop_on_reset = false;
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
	vbed_kick(vb, 0);
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
	vbed_w(vb, 0x50, 0); /* the bell has rung */
	bh_schedule(&toggle);
	bh_schedule(&ec->bh);
	vbed_w(vb, 0x70, 0);
	assert_int_equal(ec->pops, 1);
	assert_int_equal(vbed_status(vb), 0);
	/* queues without DRIVER_OK do nothing */
	vbed_queue(vb, 0, 16);
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
	vbed_kick(vb, 0);
	assert_int_equal(ec->pops, 1);
	ec->mode = ECHO_NOW;
	vbed_start(vb, VBED_ALL, 1);
	echo_once(vb, 0);
	vbed_free(vb);
}

/* Removing the devices with elements out. */
static void core_free_held(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);

	ec->mode = ECHO_HOLD;
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64));
	vbed_kick(vb, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 1);
	vbed_free(vb);
}

static void core_pause(void **state)
{
	struct echo *ec;
	struct vbed *vb = start(&ec, VBED_ALL, 1);
	gpa_t in = vbed_alloc(vb, 64);
	uint32_t len;

	/* in progress: waited for, and the driver gets its interrupt */
	ec->mode = ECHO_HOLD;
	vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	bh_schedule(&ec->bh);
	machine_devs_pause(&vb->bed->md);
	ec->mode = ECHO_NOW;
	assert_int_equal(vbed_used(vb, 0, &len), 0);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	/* paused: kicks wait */
	vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	assert_int_equal(vbed_used(vb, 0, &len), -1);
	machine_devs_resume(&vb->bed->md);
	vbed_run(vb);
	assert_int_equal(vbed_used(vb, 0, &len), 1);
	/* held: put back, taken again afterwards, in order */
	ec->mode = ECHO_HOLD;
	ec->unpop_on_pause = true;
	for (int i = 0; i < 3; i++)
		vbed_add(vb, 0, 1, VIN(in, 64));
	vbed_kick(vb, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 3);
	machine_devs_pause(&vb->bed->md);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	machine_devs_resume(&vb->bed->md);
	vbed_run(vb);
	assert_int_equal(virtio_in_flight(vb->vd), 3);
	echo_release(ec);
	for (int i = 0; i < 3; i++)
		assert_int_equal(vbed_used(vb, 0, &len), 2 + i);
	vbed_free(vb);
}

/* The state goes to another machine with the same memory, which goes on. */
static void core_migrate(void **state)
{
	struct echo *ec, *ec2;
	struct vbed *vb = start(&ec, VBED_ALL, 2), *vb2 = echo_bed_in(NULL, packed, &ec2);
	struct err e = { 0 };
	uint8_t *buf = malloc(1 << 16);
	size_t n;

	for (int i = 0; i < 70; i++)
		echo_once(vb, i & 1);
	vbed_add(vb, 0, 1, VIN(vbed_alloc(vb, 64), 64)); /* not kicked yet */
	machine_devs_pause(&vb->bed->md);
	machine_devs_pause(&vb2->bed->md);
	memcpy(vb2->ram, vb->ram, VBED_RAM);
	bed_copy(&vb->vd->dev, &vb2->vd->dev);
	bed_copy(vb->transport, vb2->transport);
	assert_int_equal(vb2->bed->level[VBED_IRQ], vb->bed->level[VBED_IRQ]);
	vb2->top = vb->top;
	vb2->features = vb->features;
	for (int i = 0; i < 2; i++) {
		vb2->q[i] = vb->q[i];
		vb2->q[i].d = (struct vring_desc *)(vb2->ram + vb->q[i].desc);
		vb2->q[i].p = (struct vring_packed_desc *)vb2->q[i].d;
		vb2->q[i].avail = (uint16_t *)(vb2->ram + vb->q[i].driver);
		vb2->q[i].used = (uint16_t *)(vb2->ram + vb->q[i].device);
	}
	machine_devs_resume(&vb2->bed->md);
	vbed_run(vb2);
	assert_int_not_equal(vbed_used(vb2, 0, NULL), -1); /* what was not kicked */
	echo_once(vb2, 0);
	echo_once(vb2, 1);
	/* states that cannot be */
	n = dev_save(vb->transport, buf, 1 << 16);
	assert_true(n > 0);
	vb->vd->v->s->q[0].area[0] = VBED_RAM;
	n = dev_save(vb->transport, buf, 1 << 16);
	assert_true(dev_load(vb2->transport, buf, n, &e) < 0);
	assert_non_null(strstr(e.msg, "queue 0 is not in memory"));
	vb->vd->v->s->q[0].area[0] = vb->q[0].desc;
	vb->vd->v->s->features |= BIT(50);
	n = dev_save(vb->transport, buf, 1 << 16);
	assert_true(dev_load(vb2->transport, buf, n, &e) < 0);
	assert_non_null(strstr(e.msg, "not offered"));
	vb->vd->v->s->features &= ~BIT(50);
	vb->vd->v->s->q[5].enabled = true;
	n = dev_save(vb->transport, buf, 1 << 16);
	assert_true(dev_load(vb2->transport, buf, n, &e) < 0);
	assert_non_null(strstr(e.msg, "no queue 5"));
	vb->vd->v->s->q[5].enabled = false;
	echo_once(vb2, 0); /* refused means unchanged */
	free(buf);
	vbed_free(vb);
	vbed_free(vb2);
}

/* So many buffers at once that memory for them is limited: what is left waits its turn. */
static void core_many_buffers(void **state)
{
	struct echo *ec;
	struct vbed *vb = echo_bed_in(NULL, false, &ec);
	unsigned n = VIRTQ_SEGS_MAX, done = 0;
	gpa_t t, b;

	assert_true(vbed_negotiate(vb, VBED_ALL));
	vbed_queue(vb, 0, 256);
	vbed_driver_ok(vb);
	ec->mode = ECHO_HOLD;
	t = vbed_alloc(vb, 16ull * n);
	b = vbed_alloc(vb, 64);
	for (unsigned i = 0; i < n; i++)
		((struct vring_desc *)(vb->ram + t))[i] = (struct vring_desc){
			b, 8, (uint16_t)(VRING_DESC_F_WRITE | (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			(uint16_t)(i + 1)
		};
	for (unsigned i = 0; i < 256; i++) {
		vb->q[0].d[i] = (struct vring_desc){ t, 16 * n, VRING_DESC_F_INDIRECT, 0 };
		vbed_publish(vb, 0, (uint16_t)i);
	}
	vbed_kick(vb, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 64);
	while (done < 256) {
		assert_true(virtio_in_flight(vb->vd) <= 64);
		echo_release(ec);
		while (vbed_used(vb, 0, NULL) >= 0)
			done++;
		vbed_run(vb);
	}
	vbed_free(vb);
}

static int use_packed(void **state)
{
	packed = true;
	return 0;
}

int main(void)
{
	const struct CMUnitTest split[] = {
		cmocka_unit_test(core_echo),          cmocka_unit_test(core_pieces),
		cmocka_unit_test(core_interrupts),    cmocka_unit_test(core_kicks),
		cmocka_unit_test(core_fair),          cmocka_unit_test(core_features),
		cmocka_unit_test(core_config),        cmocka_unit_test(core_reset_held),
		cmocka_unit_test(core_reset_toggled), cmocka_unit_test(core_free_held),
		cmocka_unit_test(core_pause),         cmocka_unit_test(core_indirect_tail),
		cmocka_unit_test(core_migrate),       cmocka_unit_test(core_many_buffers),
		cmocka_unit_test(core_late),
	};
	const struct CMUnitTest both[] = {
		cmocka_unit_test(core_echo),          cmocka_unit_test(core_pieces),
		cmocka_unit_test(core_config),        cmocka_unit_test(core_reset_held),
		cmocka_unit_test(core_reset_toggled), cmocka_unit_test(core_free_held),
		cmocka_unit_test(core_pause),         cmocka_unit_test(core_migrate),
		cmocka_unit_test(core_late),
	};

	return cmocka_run_group_tests_name("split", split, NULL, NULL) +
	       cmocka_run_group_tests_name("packed", both, use_packed, NULL);
}
