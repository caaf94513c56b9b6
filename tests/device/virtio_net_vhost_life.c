/*
 * virtio-net with vhost: pause, save and load, reset, links, queues that are disabled, and all of
 * it with the queues in an iothread. No buffer is lost, given twice, or written to afterwards.
 */
#include "vhost_bed.h"

/* A pause puts back what is not used, in its order; also what load finds is right without vhost. */
static void vhost_pause(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct host *h = host_new(1);
		struct vbed *vb = h->vb;
		uint8_t buf[8192];
		gpa_t b;
		size_t n;

		if (packed)
			assert_int_equal(dev_set_prop(h->d, "packed", "on", NULL), 0);
		host_plug(h);
		b = vbed_alloc(vb, 32768);
		vbed_start(vb, VBED_ALL, 3);
		for (unsigned i = 0; i < 10; i++)
			assert_int_equal(vbed_add(vb, RX, 1, VIN(b + 2048 * i, 2048)), i);
		vbed_kick(vb, RX);
		assert_int_equal(virtio_in_flight(vb->vd), 10);
		for (int i = 0; i < 3; i++) {
			net_in(h, 0, 100);
			assert_int_equal(vbed_wait(vb, RX, NULL), i);
		}
		(void)vbed_irq(vb);
		h->watch = b + 2048 * 3;
		devs(vb, machine_devs_pause);
		assert_int_equal(h->watched, 2048); /* the kernel may have begun to write there */
		h->watch = 1;
		assert_int_equal(h->lent, 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		assert_int_equal(ring_of(h, RX)->avail, 3);
		assert_int_equal(ring_of(h, RX)->used, 3);
		net_in(h, 0, 200); /* waits in the tap */
		n = dev_save(vb->transport, buf, sizeof(buf));
		assert_true(n > 0);
		assert_int_equal(dev_load(vb->transport, buf, n, NULL), 0);
		devs(vb, machine_devs_resume);
		assert_int_equal(h->lent, 1);
		for (int i = 3; i < 10; i++) {
			if (i > 3)
				net_in(h, 0, 200);
			assert_int_equal(vbed_wait(vb, RX, NULL), i);
		}
		host_free(h);
	}
}

/* Used buffers that we had not looked at yet are not lost in a pause, and not given twice. */
static void vhost_pause_races(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	unsigned sent = 0, got = 0;

	vbed_start(vb, VBED_ALL, 3);
	for (unsigned round = 0; round < 60; round++) {
		gpa_t b = vbed_alloc(vb, 2048);
		int head;

		for (unsigned i = 0; i < 8; i++)
			vbed_add(vb, RX, 1, VIN(b, 2048));
		vbed_w(vb, 0x50, RX);
		for (unsigned i = 0; i < 8; i++, sent++)
			net_in(h, 0, 100 + i);
		if (round % 2)
			vbed_run(vb);
		usleep(round * 7 % 100);
		devs(vb, machine_devs_pause);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		devs(vb, machine_devs_resume);
		while (got < sent) {
			uint32_t len;

			head = vbed_wait(vb, RX, &len);
			assert_int_equal(head, got % VBED_QSIZE);
			assert_int_equal(len, 112 + got++ % 8);
		}
		vb->top = 0x400000;
	}
	host_free(h);
}

static void vhost_reset(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;

	for (unsigned round = 0; round < 40; round++) {
		gpa_t a;

		vbed_start(vb, round % 3 ? VBED_ALL : BIT(VIRTIO_F_VERSION_1), 2 + round % 2);
		a = out_frame(h, 100);
		for (unsigned i = 0; i < round % 9; i++) {
			vbed_add(vb, RX, 1, VIN(a + 4096, 2048));
			vbed_add(vb, TX, 1, VOUT(a, 112));
		}
		vbed_w(vb, 0x50, TX);
		vbed_w(vb, 0x50, RX);
		net_in(h, 0, 100);
		if (round % 2)
			vbed_run(vb);
		if (round % 5 == 0)
			usleep(500);
		vbed_w(vb, 0x70, 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		assert_int_equal(h->lent, 0);
		vb->top = 0x400000;
	}
	assert_int_equal(h->f[0].starts, 80);
	assert_int_equal(h->f[0].stops, 80);
	host_free(h);
}

/* Without a link, and after the driver has taken a queue away, frames are ours. */
static void vhost_links(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t a, b = vbed_alloc(vb, 2048);

	vbed_start(vb, VBED_ALL, 3);
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	virtio_net_set_link(h->d, false);
	assert_int_equal(h->lent, 0);
	a = out_frame(h, 100);
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_true(vbed_wait(vb, TX, NULL) >= 0); /* swallowed */
	assert_int_equal(h->f[0].frames, 0);
	virtio_net_set_link(h->d, true);
	net_in(h, 0, 100);
	assert_int_equal(vbed_wait(vb, RX, NULL), 0);
	bus_lock(vb->bed->md.bus);
	netdev_set_link(&h->nd, false);
	assert_int_equal(h->lent, 0);
	netdev_set_link(&h->nd, true);
	bus_unlock(vb->bed->md.bus);
	exchange(h, 3);
	/* the receive queue goes, on MMIO; buffers that are out are the driver's again at once */
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	vbed_w(vb, 0x30, RX);
	vbed_w(vb, 0x44, 0);
	assert_int_equal(h->lent, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	h->n = 0;
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_int_equal(h->n, 1);
	assert_true(vbed_used(vb, TX, NULL) >= 0);
	vbed_queue(vb, RX, VBED_QSIZE);
	vbed_kick(vb, RX);
	assert_int_equal(h->lent, 1);
	exchange(h, 3);
	host_free(h);
}

/* The queues in an iothread: pause, reset, links and memory come from this thread meanwhile. */
static void vhost_iothread(void **state)
{
	static struct clock clock; /* outlives the thread */
	struct host *h = host_new(1);
	struct vbed *vb = h->vb;
	struct iothread *io;
	gpa_t b;

	clock_init_host(&clock);
	io = iothread_new("io0", &clock, NULL);
	assert_non_null(io);
	dev_set_backend(h->d, "iothread", io);
	host_plug(h);
	gmem_unlisten(vb->bed->md.mem, &h->l); /* it looks at what this thread does */
	for (unsigned round = 0; round < 20; round++) {
		unsigned got = 0;

		vbed_start(vb, VBED_ALL, 3);
		b = vbed_alloc(vb, 2048);
		for (unsigned i = 0; i < 30; i++)
			vbed_add(vb, RX, 1, VIN(b, 2048));
		vbed_kick(vb, RX);
		for (unsigned i = 0; i < 20; i++) {
			net_in(h, 0, 100 + i);
			if (i % 7 == 3) {
				devs(vb, machine_devs_pause);
				devs(vb, machine_devs_resume);
			}
			if (i % 7 == 5) {
				virtio_net_set_link(h->d, false);
				virtio_net_set_link(h->d, true);
			}
		}
		if (round % 2)
			while (got < 20) {
				uint32_t len;

				assert_int_equal(vbed_wait(vb, RX, &len), got);
				assert_int_equal(len, 112 + got++);
			}
		vbed_w(vb, 0x70, 0);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		while (recv(h->sock[0][0], vb->ram, 4096, MSG_DONTWAIT) > 0)
			; /* what a driver that is gone did not get */
		vb->top = 0x400000;
	}
	bus_lock(vb->bed->md.bus);
	machine_devs_free(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
	iothread_free(io);
	host_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vhost_pause),    cmocka_unit_test(vhost_pause_races),
		cmocka_unit_test(vhost_reset),    cmocka_unit_test(vhost_links),
		cmocka_unit_test(vhost_iothread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
