/* virtio-balloon: pages go and come back, statistics, reporting, nonsense from the driver. */
#include "virtio_bed.h"

#include <linux/virtio_balloon.h>
#include <sys/mman.h>

#include "virtio/balloon.h"

enum { INFLATE, DEFLATE, STATS, REPORT };

static struct vbed *make(const char *prop, const char *value, unsigned queues)
{
	struct vbed *vb = vbed_new();
	struct err e = { 0 };
	struct dev *d =
		dev_create(&vb->bed->md, &virtio_balloon_class, "b0", &e, prop, value, NULL);

	if (!d)
		fail_msg("%s", e.msg);
	vbed_plug(vb, d);
	vbed_start(vb, VBED_ALL, queues);
	return vb;
}

/* Bytes of RAM that the host has pages for. */
static uint64_t used(struct vbed *vb)
{
	const struct gmem_block *b = gmem_block_at(vb->bed->md.mem, 0);
	unsigned char *there = malloc(b->len / 4096);
	uint64_t n = 0;

	assert_non_null(there);
	assert_int_equal(mincore(b->host, b->len, there), 0);
	for (uint64_t i = 0; i < b->len / 4096; i++)
		n += there[i] & 1;
	free(there);
	return n * 4096;
}

/* Pages first, first + step, ... in queue n. */
static void pages(struct vbed *vb, unsigned n, uint32_t first, int step, unsigned count)
{
	gpa_t at = vbed_alloc(vb, 4 * count);
	uint32_t len;

	for (unsigned i = 0; i < count; i++)
		((uint32_t *)(vb->ram + at))[i] = first + (uint32_t)((int)i * step);
	vbed_add(vb, n, 1, VOUT(at, 4 * count));
	vbed_kick(vb, n);
	assert_true(vbed_used(vb, n, &len) >= 0);
	assert_int_equal(len, 0);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
}

static void balloon_pages(void **state)
{
	static const int steps[] = { 1, -1, 2 };
	struct vbed *vb = make(NULL, NULL, 3);

	for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
		gpa_t base = 8 << 20;
		uint32_t first = (uint32_t)(base / 4096) + (steps[i] < 0 ? 255 : 0);
		uint64_t full;

		memset(vb->ram + base, 0x11, 2 << 20);
		full = used(vb);
		pages(vb, INFLATE, first, steps[i], 256);
		assert_true(used(vb) <= full - 256 * 4096 + 65536);
		for (unsigned p = 0; p < 512; p++)
			assert_int_equal(vb->ram[base + 4096 * p],
					 p < 256 * (unsigned)abs(steps[i]) &&
							 p % (unsigned)abs(steps[i]) == 0
						 ? 0
						 : 0x11);
		pages(vb, DEFLATE, first, steps[i], 256);
		memset(vb->ram + base, 0x11, 1 << 20);
	}
	vbed_free(vb);
}

/* What is not RAM is ignored; more pages than the limit, too. */
static void balloon_nonsense(void **state)
{
	struct vbed *vb = make(NULL, NULL, 3);
	gpa_t at = vbed_alloc(vb, 4 * 1100);
	uint32_t *p = (uint32_t *)(vb->ram + at);

	pages(vb, INFLATE, 0xfffffff0, 1, 32);
	pages(vb, INFLATE, VBED_RAM / 4096 - 1, 1, 2);
	vb->ram[8 << 20] = vb->ram[9 << 20] = 1;
	for (unsigned i = 0; i < 1100; i++)
		p[i] = (8 << 20) / 4096;
	p[1050] = (9 << 20) / 4096;
	vbed_add(vb, INFLATE, 1, VOUT(at, 4400));
	vbed_kick(vb, INFLATE);
	assert_true(vbed_used(vb, INFLATE, NULL) >= 0);
	assert_int_equal(vb->ram[8 << 20], 0);
	assert_int_equal(vb->ram[9 << 20], 1);
	/* odd lengths, device-writable instead of readable */
	vbed_add(vb, INFLATE, 2, VOUT(at, 3), VIN(at, 64));
	vbed_add(vb, REPORT - 1, 1, VIN(at, 64));
	vbed_kick(vb, INFLATE);
	assert_true(vbed_used(vb, INFLATE, NULL) >= 0);
	assert_int_equal(vbed_status(vb) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
	vbed_free(vb);
}

static void balloon_target(void **state)
{
	struct vbed *vb = make("target", "12M", 3);
	struct dev *d = &vb->vd->dev;
	struct err e = { 0 };

	assert_int_equal(vbed_cfg(vb, 0, 4), 1024);
	assert_int_equal(vbed_cfg(vb, 4, 4), 0);
	assert_int_equal(balloon_actual(d), VBED_RAM);
	vbed_set_cfg(vb, 4, 1024, 4);
	vbed_set_cfg(vb, 0, 7, 4);
	assert_int_equal(vbed_cfg(vb, 0, 4), 1024);
	assert_int_equal(balloon_actual(d), 12 << 20);
	vbed_set_cfg(vb, 4, UINT32_MAX, 4); /* more than there is */
	assert_int_equal(balloon_actual(d), 0);
	balloon_set_target(d, 8 << 20);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_CONFIG);
	assert_int_equal(vbed_cfg(vb, 0, 4), 2048);
	balloon_set_target(d, UINT64_MAX);
	assert_int_equal(vbed_cfg(vb, 0, 4), 0);
	/* the wish outlives a reset, what the guest said does not */
	balloon_set_target(d, 8 << 20);
	machine_devs_reset(&vb->bed->md, RESET_WARM);
	assert_int_equal(vbed_cfg(vb, 0, 4), 2048);
	assert_int_equal(vbed_cfg(vb, 4, 4), 0);
	assert_null(dev_create(&vb->bed->md, &virtio_balloon_class, "b1", &e, "target", "5", NULL));
	assert_non_null(strstr(e.msg, "4 KiB"));
	vbed_free(vb);
}

static void balloon_statistics(void **state)
{
	struct vbed *vb = make("guest-stats-polling-interval", "2", 3);
	struct dev *d = &vb->vd->dev;
	gpa_t at = vbed_alloc(vb, 256);
	struct virtio_balloon_stat *st = (struct virtio_balloon_stat *)(vb->ram + at);

	assert_int_equal(balloon_stat(d, BALLOON_FREE), UINT64_MAX);
	st[0] = (struct virtio_balloon_stat){ VIRTIO_BALLOON_S_MEMFREE, 1234 };
	st[1] = (struct virtio_balloon_stat){ 999, 1 }; /* unknown: ignored */
	st[2] = (struct virtio_balloon_stat){ VIRTIO_BALLOON_S_MEMTOT, 5678 };
	vbed_add(vb, STATS, 1, VOUT(at, 3 * sizeof(*st)));
	vbed_kick(vb, STATS);
	/* taken, and held until new ones are wanted */
	assert_int_equal(balloon_stat(d, BALLOON_FREE), 1234);
	assert_int_equal(balloon_stat(d, BALLOON_TOTAL), 5678);
	assert_string_equal(balloon_stat_name(BALLOON_TOTAL), "stat-total-memory");
	assert_int_equal(vbed_used(vb, STATS, NULL), -1);
	loop_advance(vb->bed->loop, 2 * NS_PER_SEC);
	assert_int_equal(vbed_used(vb, STATS, NULL), 0);
	assert_int_equal(vbed_irq(vb), VIRTIO_ISR_QUEUE);
	st[0].val = 4321;
	vbed_add(vb, STATS, 1, VOUT(at, 3 * sizeof(*st)));
	vbed_kick(vb, STATS);
	assert_int_equal(balloon_stat(d, BALLOON_FREE), 4321);
	/* a pause puts it back, and it is taken again; a reset gives it up */
	machine_devs_pause(&vb->bed->md);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	machine_devs_resume(&vb->bed->md);
	vbed_run(vb);
	assert_int_equal(virtio_in_flight(vb->vd), 1);
	loop_advance(vb->bed->loop, 4 * NS_PER_SEC);
	assert_true(vbed_used(vb, STATS, NULL) >= 0);
	vbed_add(vb, STATS, 1, VOUT(at, 10));
	vbed_add(vb, STATS, 1, VOUT(at, 5));
	vbed_kick(vb, STATS);
	assert_int_equal(virtio_in_flight(vb->vd), 1);
	vbed_start(vb, VBED_ALL, 3);
	assert_int_equal(virtio_in_flight(vb->vd), 0);
	balloon_poll_stats(d, 0);
	loop_advance(vb->bed->loop, 10 * NS_PER_SEC);
	vbed_free(vb);
}

/* A driver that names more than there is, over and over: others have their turn. */
static void balloon_endless(void **state)
{
	struct vbed *vb = make("free-page-reporting", "on", 4);
	gpa_t at = vbed_alloc(vb, 4096), half = 8 << 20;
	int done = 0;

	for (unsigned i = 0; i < 1024; i++)
		((uint32_t *)(vb->ram + at))[i] = 2048 + 2 * (i % 1024);
	for (unsigned i = 0; i < 20; i++)
		vbed_add(vb, INFLATE, 1, VOUT(at, 4096));
	vbed_w(vb, 0x50, INFLATE);
	loop_step(vb->bed->loop, false);
	while (vbed_used(vb, INFLATE, NULL) >= 0)
		done++;
	assert_int_equal(done, 4);
	vbed_run(vb);
	while (vbed_used(vb, INFLATE, NULL) >= 0)
		done++;
	assert_int_equal(done, 20);
	memset(vb->ram + (4 << 20), 0x11, 4096);
	vbed_add(vb, REPORT, 3, VIN(half, (uint32_t)half), VIN(half, (uint32_t)half),
		 VIN(4 << 20, 4096));
	vbed_kick(vb, REPORT);
	assert_true(vbed_used(vb, REPORT, NULL) >= 0);
	assert_int_equal(vb->ram[4 << 20], 0x11);
	vbed_free(vb);
}

static void balloon_reporting(void **state)
{
	struct vbed *vb = make("free-page-reporting", "on", 4);
	gpa_t base = 8 << 20;

	assert_true(vbed_has(vb, VIRTIO_BALLOON_F_REPORTING));
	memset(vb->ram + base, 0x11, 1 << 20);
	/* whole pages of what is reported go */
	vbed_add(vb, REPORT, 2, VIN(base + 100, 16384), VIN(base + 65536, 65536));
	vbed_kick(vb, REPORT);
	assert_true(vbed_used(vb, REPORT, NULL) >= 0);
	assert_int_equal(vb->ram[base], 0x11);
	assert_int_equal(vb->ram[base + 4095], 0x11);
	assert_int_equal(vb->ram[base + 4096], 0);
	assert_int_equal(vb->ram[base + 16383], 0);
	assert_int_equal(vb->ram[base + 16384], 0x11);
	assert_int_equal(vb->ram[base + 65536], 0);
	assert_int_equal(vb->ram[base + 131071], 0);
	assert_int_equal(vb->ram[base + 131072], 0x11);
	/* with a poison value they must keep their contents */
	vbed_set_cfg(vb, 12, 0xaaaaaaaa, 4);
	vbed_add(vb, REPORT, 1, VIN(base + 0x40000, 4096));
	vbed_kick(vb, REPORT);
	assert_true(vbed_used(vb, REPORT, NULL) >= 0);
	assert_int_equal(vb->ram[base + 0x40000], 0x11);
	vbed_free(vb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(balloon_pages),     cmocka_unit_test(balloon_nonsense),
		cmocka_unit_test(balloon_target),    cmocka_unit_test(balloon_statistics),
		cmocka_unit_test(balloon_reporting), cmocka_unit_test(balloon_endless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
