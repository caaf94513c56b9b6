/* virtio-mmio: registers, and through them the core: status, features, queues, broken rings. */
#include "virtio_bed.h"

static struct vbed *start(uint64_t features)
{
	struct vbed *vb = vbed_new();
	struct err e = { 0 };
	struct dev *d = dev_create(&vb->bed->md, &virtio_rng_class, "rng0", &e, NULL);

	assert_non_null(d);
	vbed_plug(vb, d);
	if (features)
		vbed_start(vb, features, 1);
	return vb;
}

static void mmio_identity(void **state)
{
	struct vbed *vb = start(0);

	assert_int_equal(vbed_r(vb, 0), 0x74726976);
	assert_int_equal(vbed_r(vb, 4), 2);
	assert_int_equal(vbed_r(vb, 8), VIRTIO_ID_RNG);
	assert_int_equal(vbed_r(vb, 0xb0), 0xffffffff);
	assert_int_equal(vbed_offered(vb), BIT(VIRTIO_F_VERSION_1) |
						   BIT(VIRTIO_RING_F_INDIRECT_DESC) |
						   BIT(VIRTIO_RING_F_EVENT_IDX));
	vbed_w(vb, 0x14, 2);
	assert_int_equal(vbed_r(vb, 0x10), 0);
	vbed_w(vb, 0x30, 0);
	assert_int_equal(vbed_r(vb, 0x34), 64);
	vbed_w(vb, 0x30, 1);
	assert_int_equal(vbed_r(vb, 0x34), 0);
	/* registers are words */
	assert_int_equal(bus_mem_read(vb->bed->md.bus, VBED_SLOT, 1), 0);
	vbed_free(vb);
}

static void mmio_features(void **state)
{
	struct vbed *vb = start(0);

	assert_false(vbed_negotiate(vb, BIT(VIRTIO_RING_F_EVENT_IDX))); /* not VERSION_1 */
	assert_true(vbed_negotiate(vb, BIT(VIRTIO_F_VERSION_1)));
	assert_false(virtio_has(vb->vd, VIRTIO_RING_F_EVENT_IDX));
	/* frozen from FEATURES_OK on */
	vbed_w(vb, 0x24, 0);
	vbed_w(vb, 0x20, (uint32_t)BIT(VIRTIO_RING_F_EVENT_IDX));
	assert_false(virtio_has(vb->vd, VIRTIO_RING_F_EVENT_IDX));
	/* and what was never offered is refused */
	vbed_w(vb, 0x70, 0);
	vbed_w(vb, 0x70, 3);
	vbed_w(vb, 0x24, 0);
	vbed_w(vb, 0x20, 1 << 5);
	vbed_w(vb, 0x24, 1);
	vbed_w(vb, 0x20, 1);
	vbed_w(vb, 0x70, 11);
	assert_int_equal(vbed_status(vb), 3);
	/* again, with the other */
	assert_true(vbed_negotiate(vb, VBED_ALL));
	assert_true(virtio_has(vb->vd, VIRTIO_RING_F_EVENT_IDX));
	vbed_free(vb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mmio_identity),
		cmocka_unit_test(mmio_features),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
