/*
 * virtio-net with vhost: frames in both directions, what the listeners of memory hear, elements of
 * wrong shapes, several pairs of queues, and each ioctl that fails.
 */
#include "vhost_bed.h"

static void vhost_frames(void **state)
{
	const uint64_t minus[] = { 0, BIT(VIRTIO_NET_F_MRG_RXBUF),
				   BIT(VIRTIO_RING_F_EVENT_IDX) |
					   BIT(VIRTIO_RING_F_INDIRECT_DESC) };

	for (unsigned packed = 0; packed < 2; packed++)
		for (unsigned i = 0; i < ARRAY_SIZE(minus); i++) {
			struct host *h = host_new(1);

			if (packed)
				assert_int_equal(dev_set_prop(h->d, "packed", "on", NULL), 0);
			host_plug(h);
			vbed_start(h->vb, VBED_ALL & ~minus[i], 3);
			assert_int_equal(h->lent, 1);
			assert_int_equal(h->hdr, 12);
			h->vb->indirect = i == 0;
			exchange(h, 200);
			assert_int_equal(h->n, 0);
			assert_int_equal(h->f[0].frames, 400);
			host_free(h);
		}
}

/* A frame in several buffers is seen with all of them; one that fits nowhere is dropped. */
static void vhost_merge(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t b = vbed_alloc(vb, 32768);
	uint32_t len, sum = 0;

	vbed_start(vb, VBED_ALL, 3);
	for (unsigned i = 0; i < 16; i++)
		vbed_add(vb, RX, 1, VIN(b + 1024 * i, 1024));
	vbed_kick(vb, RX);
	net_in(h, 0, 9000);
	for (unsigned i = 0; i < 9; i++) {
		assert_true(i ? vbed_used(vb, RX, &len) >= 0 : vbed_wait(vb, RX, &len) >= 0);
		sum += len;
	}
	assert_int_equal(sum, 9012);
	assert_int_equal(vb->ram[b + 10], 9);
	assert_frame(vb->ram + b + 12, 9000);
	host_free(h);
	h = host_plug(host_new(1));
	vbed_start(h->vb, VBED_ALL & ~BIT(VIRTIO_NET_F_MRG_RXBUF), 3);
	b = vbed_alloc(h->vb, 2000);
	vbed_add(h->vb, RX, 1, VIN(b, 1000));
	vbed_kick(h->vb, RX);
	net_in(h, 0, 3000);
	net_in(h, 0, 500);
	assert_int_equal(vbed_wait(h->vb, RX, &len), 0);
	assert_int_equal(len, 512);
	host_free(h);
}

/* What the kernel would stop at never gets there. */
static void vhost_shapes(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t a;

	vbed_start(vb, VBED_ALL, 3);
	a = out_frame(h, 100);
	vbed_add(vb, TX, 2, VOUT(a, 112), VIN(a, 8));
	vbed_add(vb, TX, 1, VIN(a, 100));
	vbed_add(vb, TX, 1, VOUT(a, 12));
	vbed_add(vb, TX, 1, VOUT(a, 5));
	vbed_add(vb, TX, 1, VOUT(0x100000, 70000));
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_add(vb, RX, 2, VOUT(a, 8), VIN(a, 2000));
	vbed_add(vb, RX, 1, VOUT(a, 2000));
	vbed_kick(vb, RX);
	vbed_kick(vb, TX);
	net_out(h, 0, 100);
	for (unsigned i = 0; i < 6; i++)
		assert_true(vbed_wait(vb, TX, NULL) >= 0);
	assert_true(vbed_used(vb, RX, NULL) >= 0 && vbed_used(vb, RX, NULL) >= 0);
	assert_int_equal(h->f[0].frames, 1);
	assert_false(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* a broken ring stops the kernel, too */
	vb->q[TX].avail[1] += 500;
	vbed_kick(vb, TX);
	vbed_assert_broken(vb);
	assert_int_equal(h->lent, 0);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	vbed_start(vb, VBED_ALL, 3);
	assert_int_equal(h->lent, 1);
	exchange(h, 3);
	host_free(h);
}

static void vhost_pairs(void **state)
{
	struct host *h = host_plug(host_new(2));
	struct vbed *vb = h->vb;
	gpa_t a, b = vbed_alloc(vb, 2048), c = vbed_alloc(vb, 64);

	vbed_start(vb, VBED_ALL, 5);
	assert_int_equal(h->lent, 1);
	vb->ram[c] = VIRTIO_NET_CTRL_MQ;
	vb->ram[c + 2] = 2;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_int_equal(vb->ram[c + 8], 0);
	assert_int_equal(h->lent, 2);
	a = out_frame(h, 300);
	vbed_add(vb, 3, 1, VOUT(a, 312));
	vbed_kick(vb, 3);
	net_out(h, 1, 300);
	vbed_add(vb, 2, 1, VIN(b, 2048));
	vbed_kick(vb, 2);
	net_in(h, 1, 400);
	assert_true(vbed_wait(vb, 2, NULL) >= 0);
	assert_frame(vb->ram + b + 12, 400);
	vbed_add(vb, 2, 1, VIN(b, 2048));
	vbed_kick(vb, 2);
	vb->ram[c + 2] = 1;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_int_equal(h->lent, 1);
	assert_int_equal(h->f[1].stops, 2);
	host_free(h);
}

static void assert_falls_back(struct host *h)
{
	struct vbed *vb = h->vb;
	gpa_t a = out_frame(h, 100);

	assert_int_equal(h->lent, 0);
	h->n = 0;
	vbed_add(vb, TX, 1, VOUT(a, 112));
	vbed_kick(vb, TX);
	assert_true(vbed_wait(vb, TX, NULL) >= 0);
	assert_true(h->n > 0);
	assert_int_equal(h->f[0].frames, 0);
	assert_false(h->f[0].ring[RX].runs || h->f[0].ring[TX].runs);
}

/* Each call that fails: a line at the start, or frames go through us from then on. */
static void vhost_errors(void **state)
{
	static const unsigned long early[] = { VHOST_SET_OWNER, VHOST_GET_FEATURES };
	static const unsigned long late[] = { VHOST_SET_FEATURES,   VHOST_SET_MEM_TABLE,
					      VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE,
					      VHOST_SET_VRING_ADDR, VHOST_SET_VRING_KICK,
					      VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
					      VHOST_NET_SET_BACKEND };
	struct host *h;
	struct fake f;
	struct err e;

	for (unsigned i = 0; i < ARRAY_SIZE(early); i++) {
		int fd = fake_open(&f);

		e = (struct err){ 0 };
		f.fail = early[i];
		assert_null(vhost_new(fd, &f.sys, &e));
		assert_non_null(strstr(e.msg, "vhost-net: "));
		assert_int_equal(fcntl(fd, F_GETFD), -1);
	}
	fake_open(&f);
	f.offers = 0;
	assert_null(vhost_new(eventfd(0, 0), &f.sys, &e));
	assert_non_null(strstr(e.msg, "lacks"));
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(late); i++) {
		h = host_plug(host_new(1));
		h->f[0].fail = late[i / 2];
		h->f[0].fail_after = i % 2; /* the first, or the second ring */
		vbed_start(h->vb, VBED_ALL, 3);
		h->hdr = 12;
		if (!h->lent)
			assert_falls_back(h);
		else
			assert_int_equal(i % 2, 1); /* called once only */
		h->f[0].fail = 0;
		host_free(h);
	}
	/* it cannot be stopped: then its owner is reset, and what is out comes back */
	for (unsigned i = 0; i < 2; i++) {
		gpa_t b;

		h = host_plug(host_new(1));
		vbed_start(h->vb, VBED_ALL, 3);
		b = vbed_alloc(h->vb, 2048);
		vbed_add(h->vb, RX, 1, VIN(b, 2048));
		vbed_kick(h->vb, RX);
		h->f[0].fail = i ? VHOST_GET_VRING_BASE : VHOST_NET_SET_BACKEND;
		devs(h->vb, machine_devs_pause);
		assert_int_equal(virtio_in_flight(h->vb->vd), 0);
		assert_int_equal(ring_of(h, RX)->avail, 0);
		devs(h->vb, machine_devs_resume);
		assert_int_equal(h->f[0].resets, 1);
		assert_falls_back(h);
		host_free(h);
	}
}

/* Used entries that make no sense. */
static void vhost_nonsense(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	gpa_t b = vbed_alloc(vb, 2048);

	vbed_start(vb, VBED_ALL, 3);
	h->f[0].nonsense = true;
	vbed_add(vb, RX, 1, VIN(b, 2048));
	vbed_kick(vb, RX);
	net_in(h, 0, 100);
	for (unsigned i = 0; i < 1000 && h->lent; i++) {
		vbed_run(vb);
		usleep(1000);
	}
	h->f[0].frames = 0;
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	assert_falls_back(h);
	host_free(h);
}

/* Buffers in many pieces fill our ring before the driver's is empty; the others follow. */
static void vhost_full(void **state)
{
	struct host *h = host_plug(host_new(1));
	struct vbed *vb = h->vb;
	struct vbuf v[20];
	gpa_t b;

	vbed_start(vb, VBED_ALL & ~BIT(VIRTIO_NET_F_MRG_RXBUF), 3);
	vb->indirect = true;
	b = vbed_alloc(vb, 60 * 2000);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned k = 0; k < 20; k++)
			v[k] = VIN(b + 2000 * i + 100 * k, 100);
		assert_int_equal(vbed_addv(vb, RX, 20, v), i);
	}
	vbed_kick(vb, RX);
	assert_int_equal(virtio_in_flight(vb->vd), VHOST_RING_SIZE / 20);
	for (unsigned i = 0; i < 60; i++) {
		uint32_t len;

		net_in(h, 0, 500 + i);
		assert_int_equal(vbed_wait(vb, RX, &len), i);
		assert_int_equal(len, 512 + i);
		assert_frame(vb->ram + b + 2000 * i + 12, 500 + i);
	}
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	host_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vhost_frames), cmocka_unit_test(vhost_merge),
		cmocka_unit_test(vhost_shapes), cmocka_unit_test(vhost_pairs),
		cmocka_unit_test(vhost_errors), cmocka_unit_test(vhost_nonsense),
		cmocka_unit_test(vhost_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
