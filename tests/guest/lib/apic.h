/* The local APIC, IOAPIC and PIC as guest tests drive them; xAPIC mode at the reset address. */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "cpu.h"

#define LAPIC_BASE  0xfee00000ul
#define IOAPIC_BASE 0xfec00000ul

enum {
	APIC_ID = 0x20,
	APIC_VER = 0x30,
	APIC_TPR = 0x80,
	APIC_PPR = 0xa0,
	APIC_EOI = 0xb0,
	APIC_LDR = 0xd0,
	APIC_DFR = 0xe0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100,
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_ICR = 0x300,
	APIC_ICR2 = 0x310,
	APIC_LVTT = 0x320,
	APIC_LVTPC = 0x340,
	APIC_LVT0 = 0x350,
	APIC_LVT1 = 0x360,
	APIC_LVTERR = 0x370,
	APIC_TMICT = 0x380,
	APIC_TMCCT = 0x390,
	APIC_TDCR = 0x3e0,
};

static inline u32 apic_read(unsigned reg)
{
	return mmio_read32(LAPIC_BASE + reg);
}

static inline void apic_write(unsigned reg, u32 v)
{
	mmio_write32(LAPIC_BASE + reg, v);
}

static inline void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

/* dest is the xAPIC destination byte; low is the low half of ICR. */
static inline void apic_ipi(u32 dest, u32 low)
{
	apic_write(APIC_ICR2, dest << 24);
	apic_write(APIC_ICR, low);
	while (apic_read(APIC_ICR) & 1u << 12)
		cpu_pause();
}

static inline bool apic_bit(unsigned reg, unsigned vec)
{
	return apic_read(reg + vec / 32 * 16) >> (vec % 32) & 1;
}

static inline u32 ioapic_read(unsigned reg)
{
	mmio_write32(IOAPIC_BASE, reg);
	return mmio_read32(IOAPIC_BASE + 0x10);
}

static inline void ioapic_write(unsigned reg, u32 v)
{
	mmio_write32(IOAPIC_BASE, reg);
	mmio_write32(IOAPIC_BASE + 0x10, v);
}

static inline void ioapic_route(unsigned pin, u32 low, u8 dest)
{
	ioapic_write(0x10 + 2 * pin, 1u << 16);
	ioapic_write(0x11 + 2 * pin, (u32)dest << 24);
	ioapic_write(0x10 + 2 * pin, low);
}

/* Spin for about this many microseconds by the PIT's channel 2 (no interrupts needed). */
static inline void pit_delay_us(unsigned us)
{
	while (us) {
		unsigned part = us > 50000 ? 50000 : us;
		unsigned count = (unsigned)(part * 1193ul / 1000) + 1;

		outb(0x61, (inb(0x61) & ~2) | 1);
		outb(0x43, 0xb0);
		outb(0x42, count & 0xff);
		outb(0x42, count >> 8);
		while (!(inb(0x61) & 0x20))
			cpu_pause();
		us -= part;
	}
}

/* Mask both PICs and give them vectors 0x20-0x2f, edge, normal EOI. */
static inline void pic_init(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 0x02);
	outb(0xa1, 0x01);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/* Software-enable the APIC, spurious vector 0xff, everything local masked, LINT0 as ExtINT or
 * masked. */
static inline void apic_init(bool extint)
{
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_LVTT, 1u << 16);
	apic_write(APIC_LVT0, extint ? 0x700 : 1u << 16);
	apic_write(APIC_LVT1, 0x400);
	apic_write(APIC_LVTERR, 1u << 16);
	apic_write(APIC_TPR, 0);
}

/* testdev's interrupt lines: byte ports from 0x2000. */
static inline void testdev_irq(unsigned line, u8 level)
{
	outb((u16)(0x2000 + line), level);
}

#endif
