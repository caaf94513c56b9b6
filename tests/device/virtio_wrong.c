/*
 * The virtio core and drivers that break every rule, in split rings and in how they set them up:
 * each is answered by NEEDS_RESET, and a reset mends it.
 */
#include "virtio_echo.h"

static struct vbed *start(struct echo **ec, uint64_t features, unsigned queues)
{
	struct vbed *vb = echo_bed_in(NULL, false, ec);

	vbed_start(vb, features, queues);
	return vb;
}

struct wrong {
	const char *name;
	void (*fn)(struct vbed *vb, struct vq *q);
};

static gpa_t good_buf(struct vbed *vb)
{
	return vbed_alloc(vb, 64);
}

static void desc(struct vq *q, unsigned i, gpa_t gpa, uint32_t len, unsigned flags, unsigned next)
{
	q->d[i] = (struct vring_desc){ gpa, len, (uint16_t)flags, (uint16_t)next };
}

static void wrong_index(struct vbed *vb, struct vq *q)
{
	q->avail[1] = (uint16_t)(q->avail[1] + q->size + 1);
}

static void wrong_head(struct vbed *vb, struct vq *q)
{
	vbed_publish(vb, 0, (uint16_t)q->size);
}

static void wrong_head_huge(struct vbed *vb, struct vq *q)
{
	vbed_publish(vb, 0, 0xffff);
}

static void wrong_loop(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 8, VRING_DESC_F_NEXT, 1);
	desc(q, 1, good_buf(vb), 8, VRING_DESC_F_NEXT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_self(struct vbed *vb, struct vq *q)
{
	desc(q, 5, good_buf(vb), 8, VRING_DESC_F_NEXT, 5);
	vbed_publish(vb, 0, 5);
}

static void wrong_next(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 8, VRING_DESC_F_NEXT, q->size);
	vbed_publish(vb, 0, 0);
}

static void wrong_empty(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 0, 0, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_addr(struct vbed *vb, struct vq *q)
{
	desc(q, 0, VBED_RAM, 1, 0, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_end(struct vbed *vb, struct vq *q)
{
	desc(q, 0, VBED_RAM - 8, 9, VRING_DESC_F_WRITE, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_wrap(struct vbed *vb, struct vq *q)
{
	desc(q, 0, UINT64_MAX - 3, 8, 0, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_len(struct vbed *vb, struct vq *q)
{
	desc(q, 0, 0, UINT32_MAX, VRING_DESC_F_WRITE, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_mmio(struct vbed *vb, struct vq *q)
{
	desc(q, 0, VBED_SLOT, 64, VRING_DESC_F_WRITE, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_order(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	desc(q, 1, good_buf(vb), 8, 0, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_rom(struct vbed *vb, struct vq *q)
{
	desc(q, 0, 0x8000000, 8, VRING_DESC_F_WRITE, 0); /* a ROM, see below */
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_len(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 24, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_empty(struct vbed *vb, struct vq *q)
{
	desc(q, 0, good_buf(vb), 0, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_addr(struct vbed *vb, struct vq *q)
{
	desc(q, 0, VBED_RAM - 16, 32, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_next(struct vbed *vb, struct vq *q)
{
	gpa_t t = vbed_alloc(vb, 16);

	*(struct vring_desc *)(vb->ram + t) = (struct vring_desc){ good_buf(vb), 8, 0, 0 };
	desc(q, 0, t, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	desc(q, 1, good_buf(vb), 8, 0, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_nested(struct vbed *vb, struct vq *q)
{
	gpa_t t = vbed_alloc(vb, 16);

	*(struct vring_desc *)(vb->ram + t) =
		(struct vring_desc){ t, 16, VRING_DESC_F_INDIRECT, 0 };
	desc(q, 0, t, 16, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_loop(struct vbed *vb, struct vq *q)
{
	gpa_t t = vbed_alloc(vb, 32);
	struct vring_desc *d = (struct vring_desc *)(vb->ram + t);

	d[0] = (struct vring_desc){ good_buf(vb), 8, VRING_DESC_F_NEXT, 1 };
	d[1] = (struct vring_desc){ good_buf(vb), 8, VRING_DESC_F_NEXT, 0 };
	desc(q, 0, t, 32, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static void wrong_ind_long(struct vbed *vb, struct vq *q)
{
	unsigned n = VIRTQ_SEGS_MAX + 1;
	gpa_t t = vbed_alloc(vb, 16ull * n), b = good_buf(vb);
	struct vring_desc *d = (struct vring_desc *)(vb->ram + t);

	for (unsigned i = 0; i < n; i++)
		d[i] = (struct vring_desc){ b, 8, i + 1 < n ? VRING_DESC_F_NEXT : 0,
					    (uint16_t)(i + 1) };
	desc(q, 0, t, 16 * n, VRING_DESC_F_INDIRECT, 0);
	vbed_publish(vb, 0, 0);
}

static const struct wrong wrongs[] = {
	{ "index", wrong_index },
	{ "head", wrong_head },
	{ "head_huge", wrong_head_huge },
	{ "loop", wrong_loop },
	{ "self", wrong_self },
	{ "next", wrong_next },
	{ "empty", wrong_empty },
	{ "addr", wrong_addr },
	{ "end", wrong_end },
	{ "wrap", wrong_wrap },
	{ "len", wrong_len },
	{ "mmio", wrong_mmio },
	{ "order", wrong_order },
	{ "rom", wrong_rom },
	{ "ind_len", wrong_ind_len },
	{ "ind_empty", wrong_ind_empty },
	{ "ind_addr", wrong_ind_addr },
	{ "ind_next", wrong_ind_next },
	{ "ind_nested", wrong_ind_nested },
	{ "ind_loop", wrong_ind_loop },
	{ "ind_long", wrong_ind_long },
};

/* Each is answered by NEEDS_RESET, stops the device, and a reset mends it. */
static void core_wrong(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(wrongs); i++) {
		struct echo *ec;
		struct vbed *vb = start(&ec, VBED_ALL, 2);

		assert_int_equal(gmem_add_rom(vb->bed->md.mem, "rom", 0x8000000, 4096, "", 1, NULL),
				 0);
		echo_once(vb, 0);
		vbed_irq(vb);
		wrongs[i].fn(vb, &vb->q[0]);
		vbed_kick(vb, 0);
		if (!(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET))
			fail_msg("%s is taken", wrongs[i].name);
		vbed_assert_broken(vb);
		assert_int_equal(vbed_used(vb, 0, NULL), -1);
		/* the other queue stops, too */
		vbed_add(vb, 1, 1, VIN(good_buf(vb), 8));
		vbed_kick(vb, 1);
		assert_int_equal(vbed_used(vb, 1, NULL), -1);
		assert_int_equal(virtio_in_flight(vb->vd), 0);
		vbed_start(vb, VBED_ALL, 2);
		echo_once(vb, 0);
		echo_once(vb, 1);
		vbed_free(vb);
	}
	/* an indirect descriptor that was not negotiated */
	{
		struct echo *ec;
		struct vbed *vb = start(&ec, BIT(VIRTIO_F_VERSION_1), 1);
		gpa_t t = vbed_alloc(vb, 16);

		*(struct vring_desc *)(vb->ram + t) = (struct vring_desc){ good_buf(vb), 8, 0, 0 };
		desc(&vb->q[0], 0, t, 16, VRING_DESC_F_INDIRECT, 0);
		vbed_publish(vb, 0, 0);
		vbed_kick(vb, 0);
		vbed_assert_broken(vb);
		vbed_free(vb);
	}
}

/* Queues that are set up wrongly. */
static void core_wrong_queue(void **state)
{
	static const struct {
		uint32_t reg, val;
	} bad[] = {
		{ 0x38, 3 }, /* not a power of 2 */
		{ 0x80, 8 }, /* misaligned descriptors */
		{ 0x90, 1 }, /* driver area */
		{ 0xa0, 2 }, /* device area */
		{ 0x84, 1 }, /* outside of memory */
		{ 0x94, 0xffffffff },
		{ 0xa4, 0xffffffff },
		{ 0x80, VBED_RAM - 16 }, /* its end is outside */
	};
	struct echo *ec;
	struct vbed *vb = echo_bed_in(NULL, false, &ec);

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(vbed_negotiate(vb, VBED_ALL));
		vbed_w(vb, 0x30, 0);
		vbed_w(vb, 0x38, 16);
		vbed_w(vb, 0x80, 0x10000);
		vbed_w(vb, 0x84, 0);
		vbed_w(vb, 0x90, 0x20000);
		vbed_w(vb, 0xa0, 0x30000);
		vbed_w(vb, bad[i].reg, bad[i].val);
		vbed_w(vb, 0x44, 1);
		assert_true(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET);
		vbed_driver_ok(vb);
		vbed_kick(vb, 0);
		assert_int_equal(ec->pops, 0);
	}
	/* sizes that are ignored: the old one stays */
	assert_true(vbed_negotiate(vb, VBED_ALL));
	vbed_w(vb, 0x30, 0);
	vbed_w(vb, 0x38, 0);
	vbed_w(vb, 0x38, 512);
	vbed_w(vb, 0x38, 0x10010);
	assert_int_equal(virtio_queue_state(vb->vd->v, 0)->size, 256);
	/* a queue that is not there, registers while it is enabled, kicks of nonsense */
	vbed_w(vb, 0x30, 0xffff);
	vbed_w(vb, 0x44, 1);
	assert_int_equal(vbed_r(vb, 0x44), 0);
	vbed_w(vb, 0x50, 0xffffffff);
	vbed_w(vb, 0x50, 1);
	vbed_start(vb, VBED_ALL, 1);
	vbed_w(vb, 0x30, 0);
	vbed_w(vb, 0x80, 0x7777);
	vbed_w(vb, 0x38, 2);
	echo_once(vb, 0);
	vbed_free(vb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(core_wrong),
		cmocka_unit_test(core_wrong_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
