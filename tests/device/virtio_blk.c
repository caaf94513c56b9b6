/* virtio-blk: requests, limits, broken drivers, errors of the host, reset and pause under load. */
#include "virtio_bed.h"

#include <linux/virtio_blk.h>

#include "../unit/block_fault.h"
#include "backend/block/backend.h"

struct disk {
	struct vbed *vb;
	struct block_ctx *ctx;
	struct blk *blk;
	gpa_t hdr, status, data;
};

/* conf NULL: defaults; len: bytes. Properties are pairs, ended by NULL. */
static struct disk disk_new(const struct blk_conf *conf, uint64_t len, bool writable,
			    const char *const *props)
{
	struct block_opts o = { .writable = writable, .discard_unmap = true };
	struct disk k = { .vb = vbed_new() };
	struct err e = { 0 };
	struct dev *d;

	fault = (struct fault){ .len = len };
	k.ctx = block_ctx_new(k.vb->bed->loop, BLOCK_AIO_THREADS, &e);
	k.blk = blk_new("d0", fault_open(k.ctx, &o), conf ? conf : &(struct blk_conf){ 0 },
			&k.vb->bed->run, &e);
	d = dev_new(&k.vb->bed->md, &virtio_blk_class, "disk0", &e);
	dev_set_backend(d, "drive", k.blk);
	for (; props && *props; props += 2)
		assert_int_equal(dev_set_prop(d, props[0], props[1], &e), 0);
	if (dev_realize(d, &e))
		fail_msg("%s", e.msg);
	vbed_plug(k.vb, d);
	k.hdr = vbed_alloc(k.vb, 16);
	k.status = vbed_alloc(k.vb, 1);
	k.data = vbed_alloc(k.vb, 65536);
	return k;
}

static void disk_free(struct disk *k)
{
	struct dev *d = &k->vb->vd->dev;

	fault.delay = 0; /* nobody moves the clock on any more */
	dev_free(k->vb->transport);
	dev_free(d);
	blk_free(k->blk);
	block_ctx_free(k->ctx);
	vbed_free(k->vb);
}

static gpa_t disk_header(struct disk *k, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr h = { .type = type, .sector = sector };

	memcpy(k->vb->ram + k->hdr, &h, sizeof(h));
	k->vb->ram[k->status] = 0xff;
	return k->hdr;
}

/* One request with a data buffer (in for reads); its status. */
static int disk_io(struct disk *k, uint32_t type, uint64_t sector, uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint32_t used = 0;

	disk_header(k, type, sector);
	if (!len)
		vbed_add(k->vb, 0, 2, VOUT(k->hdr, 16), VIN(k->status, 1));
	else if (in)
		vbed_add(k->vb, 0, 3, VOUT(k->hdr, 16), VIN(k->data, len), VIN(k->status, 1));
	else
		vbed_add(k->vb, 0, 3, VOUT(k->hdr, 16), VOUT(k->data, len), VIN(k->status, 1));
	vbed_kick(k->vb, 0);
	assert_true(vbed_used(k->vb, 0, &used) >= 0);
	assert_int_equal(used, in ? len + 1 : 1);
	return k->vb->ram[k->status];
}

static void rw(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);
	struct blk_stats s;

	vbed_start(k.vb, VBED_ALL, 1);
	memset(k.vb->ram + k.data, 0xab, 4096);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_OUT, 8, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(fault.bytes[4096], 0xab);
	assert_int_equal(fault.bytes[8191], 0xab);
	assert_int_equal(fault.bytes[8192], 0);
	assert_int_equal(vbed_irq(k.vb), VIRTIO_ISR_QUEUE);
	memset(k.vb->ram + k.data, 0, 4096);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 9, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(k.vb->ram[k.data + 511], 0xab);
	assert_int_equal(k.vb->ram[k.data + 512], 0);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(fault.flushes, 1);
	s = blk_stats(k.blk);
	assert_int_equal(s.op[BLK_WRITE].bytes, 4096);
	disk_free(&k);
}

static void config(void **state)
{
	static const char *const props[] = { "logical_block_size",
					     "4096",
					     "physical_block_size",
					     "16384",
					     "min_io_size",
					     "8192",
					     "opt_io_size",
					     "65536",
					     "serial",
					     "SN-1",
					     "num-queues",
					     "3",
					     NULL };
	struct disk k = disk_new(NULL, 1 << 20, true, props);
	struct virtio_blk_config c = { 0 };

	vbed_start(k.vb, VBED_ALL, 3);
	for (unsigned i = 0; i < 60; i += 4)
		*(uint32_t *)((uint8_t *)&c + i) = (uint32_t)vbed_cfg(k.vb, i, 4);
	assert_int_equal(c.capacity, 2048);
	assert_int_equal(c.blk_size, 4096);
	assert_int_equal(c.physical_block_exp, 2);
	assert_int_equal(c.min_io_size, 2);
	assert_int_equal(c.opt_io_size, 16);
	assert_int_equal(c.num_queues, 3);
	assert_int_equal(c.wce, 1);
	assert_true(vbed_has(k.vb, VIRTIO_BLK_F_MQ));
	assert_false(vbed_has(k.vb, VIRTIO_BLK_F_RO));
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(k.vb->ram + k.data, "SN-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	/* less than a logical block */
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 1, 4096), VIRTIO_BLK_S_IOERR);
	/* the cache is switched by the guest */
	vbed_set_cfg(k.vb, offsetof(struct virtio_blk_config, wce), 0, 1);
	assert_true(blk_writethrough(k.blk));
	assert_int_equal(vbed_cfg(k.vb, offsetof(struct virtio_blk_config, wce), 1), 0);
	vbed_w(k.vb, 0x70, 0);
	assert_false(blk_writethrough(k.blk));
	disk_free(&k);
}

/* A driver that knows no flush gets a disk that needs none. */
static void no_flush(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);

	vbed_start(k.vb, BIT(VIRTIO_F_VERSION_1), 1);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(fault.flushes, 1);
	disk_free(&k);
}

static int disk_range(struct disk *k, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes d = { .sector = sector,
						     .num_sectors = n,
						     .flags = flags };

	memcpy(k->vb->ram + k->data, &d, sizeof(d));
	return disk_io(k, type, 0, sizeof(d));
}

static void ranges(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);

	vbed_start(k.vb, VBED_ALL, 1);
	memset(fault.bytes, 0x55, fault.len);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_WRITE_ZEROES, 2, 2, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(fault.bytes[1023], 0x55);
	assert_int_equal(fault.bytes[1024], 0);
	assert_int_equal(fault.bytes[2047], 0);
	assert_int_equal(fault.bytes[2048], 0x55);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(fault.discards, 1);
	/* reserved bits; too long; behind the end; no range; two ranges */
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_DISCARD, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_DISCARD, 2048, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_DISCARD, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
	assert_int_equal(fault.discards, 1);
	disk_free(&k);
}

static void limits(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);

	vbed_start(k.vb, VBED_ALL, 1);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 2047, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 2047, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 2048, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, 512),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_OUT, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 0, 511), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_io(&k, 99, 0, 512), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_SECURE_ERASE, 0, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(fault.writes, 0);
	disk_free(&k);
}

static void read_only(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, false, NULL);

	vbed_start(k.vb, VBED_ALL, 1);
	assert_true(vbed_has(k.vb, VIRTIO_BLK_F_RO));
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_range(&k, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	disk_free(&k);
}

/* Header and status may be cut up and glued to data in any way. */
static void layouts(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);
	struct vbed *vb = k.vb;
	gpa_t all = vbed_alloc(vb, 8192);
	uint32_t len;

	vbed_start(vb, VBED_ALL, 1);
	for (unsigned i = 0; i < 1024; i++)
		fault.bytes[i] = (uint8_t)i;
	disk_header(&k, VIRTIO_BLK_T_IN, 0);
	vbed_add(vb, 0, 4, VOUT(k.hdr, 3), VOUT(k.hdr + 3, 13), VIN(all, 100),
		 VIN(all + 100, 924 + 1));
	vbed_kick(vb, 0);
	assert_true(vbed_used(vb, 0, &len) >= 0);
	assert_int_equal(len, 1025);
	assert_memory_equal(vb->ram + all, fault.bytes, 1024);
	assert_int_equal(vb->ram[all + 1024], VIRTIO_BLK_S_OK);
	/* header and data in one buffer */
	disk_header(&k, VIRTIO_BLK_T_OUT, 1);
	memcpy(vb->ram + all, vb->ram + k.hdr, 16);
	memset(vb->ram + all + 16, 0x77, 512);
	vbed_add(vb, 0, 2, VOUT(all, 528), VIN(k.status, 1));
	vbed_kick(vb, 0);
	assert_true(vbed_used(vb, 0, &len) >= 0);
	assert_int_equal(vb->ram[k.status], VIRTIO_BLK_S_OK);
	assert_int_equal(fault.bytes[512], 0x77);
	assert_int_equal(fault.bytes[1023], 0x77);
	assert_int_equal(fault.bytes[511], 0xff);
	disk_free(&k);
}

static void broken(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct disk k = disk_new(NULL, 1 << 20, true, NULL);

		vbed_start(k.vb, VBED_ALL, 1);
		disk_header(&k, VIRTIO_BLK_T_IN, 0);
		if (i)
			vbed_add(k.vb, 0, 2, VOUT(k.hdr, 15), VIN(k.status, 1));
		else
			vbed_add(k.vb, 0, 2, VOUT(k.hdr, 16), VOUT(k.data, 512));
		vbed_kick(k.vb, 0);
		vbed_assert_broken(k.vb);
		disk_free(&k);
	}
}

/* Many at once: one interrupt, and the host has them all at the same time. */
static void many(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);
	uint32_t len;

	k.vb->indirect = true;
	vbed_start(k.vb, VBED_ALL & ~BIT(VIRTIO_RING_F_EVENT_IDX), 1);
	fault.delay = 1000;
	for (unsigned i = 0; i < 32; i++) {
		gpa_t hdr = vbed_alloc(k.vb, 16), status = vbed_alloc(k.vb, 1);
		struct virtio_blk_outhdr h = { .type = VIRTIO_BLK_T_IN, .sector = i };

		memcpy(k.vb->ram + hdr, &h, sizeof(h));
		vbed_add(k.vb, 0, 3, VOUT(hdr, 16), VIN(k.data, 512), VIN(status, 1));
	}
	vbed_kick(k.vb, 0);
	assert_int_equal(vbed_used(k.vb, 0, &len), -1);
	loop_advance(k.vb->bed->loop, 1000);
	assert_int_equal(fault.most, 32);
	for (unsigned i = 0; i < 32; i++)
		assert_true(vbed_used(k.vb, 0, &len) >= 0);
	assert_int_equal(vbed_irq(k.vb), VIRTIO_ISR_QUEUE);
	disk_free(&k);
}

/* werror=stop: the machine is asked to pause; the request comes back when it goes on. */
static void stop(void **state)
{
	struct disk k = disk_new(&(struct blk_conf){ .werror = BLK_STOP }, 1 << 20, true, NULL);
	uint32_t len;

	vbed_start(k.vb, VBED_ALL, 1);
	fault.fail_write = 1;
	fault.sticky = true;
	disk_header(&k, VIRTIO_BLK_T_OUT, 0);
	memset(k.vb->ram + k.data, 0x66, 512);
	vbed_add(k.vb, 0, 3, VOUT(k.hdr, 16), VOUT(k.data, 512), VIN(k.status, 1));
	vbed_kick(k.vb, 0);
	assert_int_equal(vbed_used(k.vb, 0, &len), -1);
	assert_int_equal(k.vb->bed->last.kind, REQ_PAUSE);
	machine_devs_pause(&k.vb->bed->md); /* does not wait for it */
	machine_devs_resume(&k.vb->bed->md);
	fault.fail_write = 0;
	blk_resume(k.blk);
	vbed_run(k.vb);
	assert_int_equal(vbed_used(k.vb, 0, &len), 0);
	assert_int_equal(k.vb->ram[k.status], VIRTIO_BLK_S_OK);
	assert_int_equal(fault.bytes[0], 0x66);
	/* and a reset forgets it */
	fault.fail_write = 1;
	vbed_add(k.vb, 0, 3, VOUT(k.hdr, 16), VOUT(k.data, 512), VIN(k.status, 1));
	vbed_kick(k.vb, 0);
	assert_true(blk_has_kept(k.blk));
	vbed_w(k.vb, 0x70, 0);
	assert_false(blk_has_kept(k.blk));
	assert_int_equal(virtio_in_flight(k.vb->vd), 0);
	/* also one that fails while the reset waits for it */
	vbed_start(k.vb, VBED_ALL, 1);
	fault.turns = 8;
	fault.fail_write = 1;
	vbed_add(k.vb, 0, 3, VOUT(k.hdr, 16), VOUT(k.data, 512), VIN(k.status, 1));
	vbed_w(k.vb, 0x50, 0);
	for (int i = 0; i < 4 && !virtio_in_flight(k.vb->vd); i++)
		loop_step(k.vb->bed->loop, false);
	assert_int_equal(virtio_in_flight(k.vb->vd), 1);
	assert_false(blk_has_kept(k.blk));
	vbed_w(k.vb, 0x70, 0);
	assert_false(blk_has_kept(k.blk));
	assert_int_equal(virtio_in_flight(k.vb->vd), 0);
	fault.turns = 0;
	disk_free(&k);
}

static void resize(void **state)
{
	struct disk k = disk_new(NULL, 1 << 20, true, NULL);

	vbed_start(k.vb, VBED_ALL, 1);
	assert_int_equal(blk_resize(k.blk, 3 << 20, NULL), 0);
	assert_int_equal(vbed_irq(k.vb) & VIRTIO_ISR_CONFIG, VIRTIO_ISR_CONFIG);
	assert_int_equal(vbed_cfg(k.vb, 0, 4), 3 << 11);
	assert_int_equal(disk_io(&k, VIRTIO_BLK_T_IN, (3 << 11) - 1, 512), VIRTIO_BLK_S_OK);
	disk_free(&k);
}

/* The disk works in a thread of its own. */
static void iothread(void **state)
{
	struct vbed *vb = vbed_new();
	struct block_opts o = { .writable = true };
	struct err e = { 0 };
	struct iothread *t = iothread_new("io0", loop_clock(vb->bed->loop), &e);
	struct block_ctx *ctx = block_ctx_new(vb->bed->loop, BLOCK_AIO_AUTO, &e);
	struct disk k = { .vb = vb, .ctx = ctx };
	struct dev *d;

	fault = (struct fault){ .len = 1 << 20 };
	k.blk = blk_new("d0", fault_open(ctx, &o), &(struct blk_conf){ 0 }, NULL, &e);
	d = dev_new(&vb->bed->md, &virtio_blk_class, "disk0", &e);
	dev_set_backend(d, "drive", k.blk);
	dev_set_backend(d, "iothread", t);
	assert_int_equal(dev_realize(d, &e), 0);
	vbed_plug(vb, d);
	k.hdr = vbed_alloc(vb, 16);
	k.status = vbed_alloc(vb, 1);
	k.data = vbed_alloc(vb, 4096);
	vbed_start(vb, VBED_ALL, 1);
	for (unsigned i = 0; i < 50; i++) {
		uint32_t len;

		memset(vb->ram + k.data, (int)i, 512);
		disk_header(&k, i % 5 == 4 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, i);
		vbed_add(vb, 0, 3, VOUT(k.hdr, 16), VOUT(k.data, 512), VIN(k.status, 1));
		vbed_kick(vb, 0);
		assert_true(vbed_wait(vb, 0, &len) >= 0);
		assert_int_equal(vb->ram[k.status], VIRTIO_BLK_S_OK);
	}
	assert_int_equal(fault.bytes[48 * 512], 48);
	vbed_w(vb, 0x70, 0);
	dev_free(vb->transport);
	dev_free(d);
	blk_free(k.blk);
	block_ctx_free(ctx);
	iothread_free(t);
	vbed_free(vb);
}

static void refused(void **state)
{
	static const char *const bad[][3] = {
		{ "logical_block_size", "1000", "powers of 2" },
		{ "logical_block_size", "4096", "not larger" }, /* than the physical one */
		{ "num-queues", "65", "at most 64" },
		{ "queue-size", "100", "power of 2" },
		{ "min_io_size", "100", "multiples" },
		{ "werror", "explode", "report" },
	};
	struct vbed *vb = vbed_new();
	struct block_ctx *ctx = block_ctx_new(vb->bed->loop, BLOCK_AIO_THREADS, NULL);
	struct block_opts o = { 0 };
	struct err e = { 0 };
	struct blk *b;

	assert_null(dev_create(&vb->bed->md, &virtio_blk_class, "d", &e, NULL));
	assert_non_null(strstr(e.msg, "drive=ID"));
	fault = (struct fault){ .len = 1 << 20 };
	b = blk_new("d0", fault_open(ctx, &o), &(struct blk_conf){ 0 }, NULL, &e);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct dev *d = dev_new(&vb->bed->md, &virtio_blk_class, "d", &e);

		dev_set_backend(d, "drive", b);
		assert_int_equal(dev_set_prop(d, bad[i][0], bad[i][1], &e), 0);
		assert_true(dev_realize(d, &e) < 0);
		if (!strstr(e.msg, bad[i][2]))
			fail_msg("'%s' is not in '%s'", bad[i][2], e.msg);
		dev_free(d);
	}
	blk_free(b);
	fault = (struct fault){ .len = 1000 };
	b = blk_new("d0", fault_open(ctx, &o), &(struct blk_conf){ 0 }, NULL, &e);
	{
		struct dev *d = dev_new(&vb->bed->md, &virtio_blk_class, "d", &e);

		dev_set_backend(d, "drive", b);
		assert_true(dev_realize(d, &e) < 0);
		assert_non_null(strstr(e.msg, "1000 bytes, is not a multiple of 512"));
		dev_free(d);
	}
	blk_free(b);
	block_ctx_free(ctx);
	vbed_free(vb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rw),      cmocka_unit_test(config), cmocka_unit_test(no_flush),
		cmocka_unit_test(ranges),  cmocka_unit_test(limits), cmocka_unit_test(read_only),
		cmocka_unit_test(layouts), cmocka_unit_test(broken), cmocka_unit_test(many),
		cmocka_unit_test(stop),    cmocka_unit_test(resize), cmocka_unit_test(iothread),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
