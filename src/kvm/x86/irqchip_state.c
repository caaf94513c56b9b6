/*
 * Tables of the chips' state, and loading through them.
 *
 * References: [KVM-API 4.26, 4.57, 4.71], [SDM3 10.4.1 table 10-1]. Threads: pure.
 */
#include "kvm/x86/irqchip_state.h"

#include <linux/kvm.h>
#include <string.h>

/* clang-format off */
#define F(T, f, m, l)	 { #f, offsetof(T, f), sizeof(((T *)0)->f), 1, 0, (m), (l) }
#define ROW(T, f, m, l)	 { #f, offsetof(T, f), sizeof(((T *)0)->f[0]), \
	sizeof(((T *)0)->f) / sizeof(((T *)0)->f[0]), sizeof(((T *)0)->f[0]), (m), (l) }
#define ALL		 (~0ull)

#define PIC(f, m, l) F(struct kvm_pic_state, f, m, l)
static const struct chip_field pic_fields[] = {
	PIC(last_irr, 0xff, 0),
	PIC(irr, 0xff, 0),
	PIC(imr, 0xff, 0),
	PIC(isr, 0xff, 0),
	PIC(priority_add, 7, 0),
	PIC(irq_base, 0xf8, 0),
	PIC(read_reg_select, 1, 0),
	PIC(poll, 1, 0),
	PIC(special_mask, 1, 0),
	PIC(init_state, 3, 0),
	PIC(auto_eoi, 1, 0),
	PIC(rotate_on_auto_eoi, 1, 0),
	PIC(special_fully_nested_mode, 1, 0),
	PIC(init4, 1, 0),
	PIC(elcr, 0xff, 0),
	PIC(elcr_mask, 0xff, 0),
	{ 0 },
};

#define IOA(f, m, l) F(struct kvm_ioapic_state, f, m, l)
static const struct chip_field ioapic_fields[] = {
	IOA(base_address, ALL, 0),
	IOA(ioregsel, 0xff, 0),
	IOA(id, 0xf, 0),
	IOA(irr, 0xffffff, 0),
	ROW(struct kvm_ioapic_state, redirtbl, 0xff0000000001ffffull, 0),
	{ 0 },
};

/* A channel's row: three elements, one structure apart. */
#define CH(f, m, l) { #f, offsetof(struct kvm_pit_state2, channels[0].f), \
	sizeof(((struct kvm_pit_state2 *)0)->channels[0].f), 3, \
	sizeof(struct kvm_pit_channel_state), (m), (l) }
static const struct chip_field pit_fields[] = {
	CH(count, 0x1ffff, 0x10001),
	CH(latched_count, 0xffff, 0),
	CH(count_latched, 0xff, 5),	/* a read state, below */
	CH(status_latched, 1, 0),
	CH(status, 0xff, 0),
	CH(read_state, 0xff, 5),	/* 1 LSB, 2 MSB, 3 LSB of a word, 4 MSB of a word */
	CH(write_state, 0xff, 5),
	CH(write_latch, 0xff, 0),
	CH(rw_mode, 0xff, 5),
	CH(mode, 0xff, 0),		/* 0..5, 255 before the first control word; see i8254.c */
	CH(bcd, 1, 0),
	CH(gate, 1, 0),
	CH(count_load_time, ALL, 0),
	F(struct kvm_pit_state2, flags, KVM_PIT_FLAGS_HPET_LEGACY | KVM_PIT_FLAGS_SPEAKER_DATA_ON, 0),
	{ 0 },
};

#define REG(name, reg, n, m) { name, (reg) * 16, 4, n, 16, m, 0 }
#define NO_LOW_VECTORS(name, reg) REG(name "[0]", reg, 1, 0xffff0000), \
	REG(name, (reg) + 1, 7, 0xffffffff)
static const struct chip_field lapic_fields[] = {
	REG("id", 0x02, 1, 0xffffffff), /* format: KVM_CAP_X2APIC_API */
	REG("version", 0x03, 1, 0xffffffff),
	REG("tpr", 0x08, 1, 0xff),
	REG("apr", 0x09, 1, 0xff),
	REG("ppr", 0x0a, 1, 0xff),
	REG("ldr", 0x0d, 1, 0xffffffff),
	REG("dfr", 0x0e, 1, 0xffffffff),
	REG("svr", 0x0f, 1, 0x13ff),
	NO_LOW_VECTORS("isr", 0x10),
	NO_LOW_VECTORS("tmr", 0x18),
	NO_LOW_VECTORS("irr", 0x20),
	REG("esr", 0x28, 1, 0xff),
	REG("icr", 0x30, 1, 0x000ccfff),
	REG("icr2", 0x31, 1, 0xffffffff),
	REG("lvtt", 0x32, 1, 0x000710ff),
	REG("lvtthmr", 0x33, 1, 0x000117ff),
	REG("lvtpc", 0x34, 1, 0x000117ff),
	REG("lvt0", 0x35, 1, 0x0001f7ff),
	REG("lvt1", 0x36, 1, 0x0001f7ff),
	REG("lvterr", 0x37, 1, 0x000110ff),
	REG("tmict", 0x38, 1, 0xffffffff),
	REG("tmcct", 0x39, 1, 0xffffffff),
	REG("tdcr", 0x3e, 1, 0xb),
	{ 0 },
};
/* clang-format on */

const struct chip_state kvm_pic_table = { "pic", pic_fields, sizeof(struct kvm_pic_state) };
const struct chip_state kvm_ioapic_table = { "ioapic", ioapic_fields,
					     sizeof(struct kvm_ioapic_state) };
const struct chip_state kvm_lapic_table = { "lapic", lapic_fields, sizeof(struct kvm_lapic_state) };
const struct chip_state kvm_pit_table = { "pit", pit_fields, sizeof(struct kvm_pit_state2) };

uint64_t kvm_chip_state_get(const struct chip_field *f, const void *state, unsigned i)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)state + f->off + (size_t)i * f->stride, f->size);
	return v;
}

void kvm_chip_state_load(const struct chip_state *t, void *dst, const void *src)
{
	memset(dst, 0, t->size);
	for (const struct chip_field *f = t->fields; f->name; f++) {
		for (unsigned i = 0; i < f->n; i++) {
			uint64_t v = kvm_chip_state_get(f, src, i) & f->mask;

			if (f->lim && v >= f->lim)
				v = 0;
			memcpy((char *)dst + f->off + (size_t)i * f->stride, &v, f->size);
		}
	}
}

static int chip_state_covers(const struct chip_field *f, size_t byte)
{
	for (unsigned i = 0; i < f->n; i++) {
		size_t at = f->off + (size_t)i * f->stride;

		if (byte >= at && byte < at + f->size)
			return 1;
	}
	return 0;
}

long kvm_chip_state_hole(const struct chip_state *t, size_t from)
{
	for (size_t b = from; b < t->size; b++) {
		const struct chip_field *f = t->fields;

		while (f->name && !chip_state_covers(f, b))
			f++;
		if (!f->name)
			return (long)b;
	}
	return -1;
}
