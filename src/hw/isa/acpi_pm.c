/*
 * ACPI power management: power off, power button, PM timer, general-purpose events, SCI.
 *
 * Modelled:     the PM1a event and control blocks, the PM timer (24 or 32 bits), GPE0 with 16
 *               events, the SMI command port with which a guest switches ACPI mode on; or, with
 *               hw-reduced=on, only the sleep control, sleep status and reset registers.
 * Not modelled: sleep states other than S5 (soft off): they are ignored. SMM itself. The sleep
 *               button, RTC wake, bus master and global lock bits keep what is written to their
 *               enables, and their status never sets.
 * Reference:    [ACPI6.5 4.8.3 "Fixed hardware registers", 4.8.3.7 "Sleep control and status"]
 * Threads:      any vCPU and the event loop, under the device lock.
 * Time:         one timer, for the PM timer's carry; armed while its event is enabled.
 * Host resources: none. Addresses are in acpi_pm.h.
 */
#include "hw/isa/acpi_pm.h"

#define PM_TIMER_HZ  3579545
#define ACPI_PM_PRIO (-4096) /* below the board's devices and all BARs */

enum {
	PM1_TMR = BIT(0),
	PM1_GBL = BIT(5),
	PM1_PWRBTN = BIT(8),
	PM1_SLPBTN = BIT(9),
	PM1_RTC = BIT(10),
	PM1_WAK = BIT(15)
};
enum { CNT_SCI_EN = BIT(0), CNT_BM_RLD = BIT(1), CNT_SLP_TYP = 7 << 10, CNT_SLP_EN = BIT(13) };

#define PM1_STS_BITS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK)
#define PM1_EN_BITS  (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

struct acpi_pm {
	struct dev dev;
	uint16_t iobase, gpe, smi_cmd;
	uint8_t irq;
	bool hw_reduced, timer32, sci_en;
	uint16_t placed; /* 0: not, or fixed by iobase */
	struct irq_pin sci;
	struct timer timer;
	struct acpi_pm_state {
		uint64_t seen; /* PM timer ticks up to which TMR_STS is right */
		uint16_t sts, en, cnt;
		uint16_t gpe_sts, gpe_en;
		uint8_t smi_cmd, smi_sts;
		uint8_t sleep_control, sleep_status;
		uint8_t pad[2];
	} s;
};

/* clang-format off */
static const struct prop acpi_pm_props[] = {
	PROP(struct acpi_pm, iobase, ACPI_PM_BASE, "first port of the PM1a block or sleep registers; 0: movable"),
	PROP(struct acpi_pm, gpe, ACPI_GPE_BASE, "first port of the GPE0 block"),
	PROP_N(struct acpi_pm, smi_cmd, "smi-cmd", ACPI_SMI_CMD, "SMI command port"),
	PROP(struct acpi_pm, irq, ACPI_SCI_IRQ, "SCI interrupt line"),
	PROP_N(struct acpi_pm, hw_reduced, "hw-reduced", false, "only sleep and reset registers"),
	PROP_N(struct acpi_pm, timer32, "timer32", false, "the PM timer has 32 bits, not 24"),
	PROP_N(struct acpi_pm, sci_en, "sci-en", false, "start in ACPI mode"),
	PROP_END
};
/* clang-format on */

static const struct field acpi_pm_fields[] = {
	ST(struct acpi_pm_state, seen),
	ST(struct acpi_pm_state, sts),
	ST(struct acpi_pm_state, en),
	ST(struct acpi_pm_state, cnt),
	ST(struct acpi_pm_state, gpe_sts),
	ST(struct acpi_pm_state, gpe_en),
	ST(struct acpi_pm_state, smi_cmd),
	ST(struct acpi_pm_state, smi_sts),
	ST(struct acpi_pm_state, sleep_control),
	ST(struct acpi_pm_state, sleep_status),
	ST_ARR(struct acpi_pm_state, pad, .lim = 1),
	{ 0 },
};

static struct acpi_pm *acpi_pm_of(struct dev *d)
{
	return container_of(d, struct acpi_pm, dev);
}

/* TMR_STS sets whenever the timer's top bit changes: every 2^23 or 2^31 ticks. */
static uint64_t acpi_pm_carry(const struct acpi_pm *p)
{
	return p->timer32 ? BIT(31) : BIT(23);
}

static uint64_t acpi_pm_ticks(const struct acpi_pm *p)
{
	return clock_ticks(dev_now(&p->dev), PM_TIMER_HZ);
}

/* Drive the SCI; arm the timer for the next carry that matters. */
static void acpi_pm_drive(struct acpi_pm *p)
{
	struct acpi_pm_state *s = &p->s;
	uint64_t carry = acpi_pm_carry(p);

	if (p->hw_reduced)
		return;
	irq_set(&p->sci, s->cnt & CNT_SCI_EN && (s->sts & s->en || s->gpe_sts & s->gpe_en));
	timer_cancel(&p->timer);
	if (s->cnt & CNT_SCI_EN && s->en & PM1_TMR && !(s->sts & PM1_TMR))
		timer_arm(&p->timer, clock_tick_time((s->seen / carry + 1) * carry, PM_TIMER_HZ));
}

/* Bring TMR_STS up to date, then drive. */
static void acpi_pm_update(struct acpi_pm *p)
{
	struct acpi_pm_state *s = &p->s;
	uint64_t ticks = acpi_pm_ticks(p), carry = acpi_pm_carry(p);

	if (!p->hw_reduced && ticks > s->seen) {
		if (ticks / carry != s->seen / carry)
			s->sts |= PM1_TMR;
		s->seen = ticks;
	}
	acpi_pm_drive(p);
}

static void acpi_pm_timer(void *opaque)
{
	acpi_pm_update(opaque);
}

void acpi_pm_power_button(struct dev *d)
{
	acpi_pm_of(d)->s.sts |= PM1_PWRBTN;
	acpi_pm_update(acpi_pm_of(d));
}

void acpi_pm_gpe(struct dev *d, unsigned bit)
{
	acpi_pm_of(d)->s.gpe_sts |= (uint16_t)BIT(bit & 15);
	acpi_pm_update(acpi_pm_of(d));
}

static void acpi_pm_sleep(struct acpi_pm *p, unsigned type)
{
	trace(&p->dev, "sleep", type);
	if (type == ACPI_S5_TYPE)
		machine_request(p->dev.md->run, REQ_OF(REQ_SHUTDOWN, "acpi"));
	else
		guest_error(&p->dev, "sleep_type", type);
}

/* --- fixed hardware. Registers are 16 bits, and guests may access their bytes. --- */

static uint16_t acpi_pm_byte_put(uint16_t old, uint64_t off, uint64_t val)
{
	return (uint16_t)(off & 1 ? (old & 0x00ff) | (val & 0xff) << 8
				  : (old & 0xff00) | (val & 0xff));
}

static uint16_t acpi_pm_byte_clear(uint16_t old, uint64_t off, uint64_t val)
{
	return old & (uint16_t) ~((val & 0xff) << 8 * (off & 1));
}

static uint64_t acpi_pm_evt_read(struct dev *d, uint64_t off, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);

	acpi_pm_update(p);
	return (off < 2 ? p->s.sts : p->s.en) >> 8 * (off & 1);
}

static void acpi_pm_evt_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);

	acpi_pm_update(p); /* a carry before this write is cleared by it */
	if (off < 2)
		p->s.sts = acpi_pm_byte_clear(p->s.sts, off, val);
	else
		p->s.en = acpi_pm_byte_put(p->s.en, off, val) & PM1_EN_BITS;
	trace(d, "pm1_evt", off, val);
	acpi_pm_update(p);
}

static uint64_t acpi_pm_cnt_read(struct dev *d, uint64_t off, unsigned size)
{
	return acpi_pm_of(d)->s.cnt >> 8 * (off & 1);
}

static void acpi_pm_cnt_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);
	uint16_t v = acpi_pm_byte_put(p->s.cnt, off, val);

	/* SCI_EN is the firmware's, by the SMI command port; SLP_EN does something and reads 0 */
	p->s.cnt = (p->s.cnt & CNT_SCI_EN) | (v & (CNT_BM_RLD | CNT_SLP_TYP));
	if (v & CNT_SLP_EN)
		acpi_pm_sleep(p, (v & CNT_SLP_TYP) >> 10);
	acpi_pm_update(p);
}

static uint64_t acpi_pm_tmr_read(struct dev *d, uint64_t off, unsigned size)
{
	const struct acpi_pm *p = acpi_pm_of(d);

	return acpi_pm_ticks(p) & (2 * acpi_pm_carry(p) - 1);
}

static uint64_t acpi_pm_gpe_read(struct dev *d, uint64_t off, unsigned size)
{
	const struct acpi_pm_state *s = &acpi_pm_of(d)->s;

	return (off < 2 ? s->gpe_sts : s->gpe_en) >> 8 * (off & 1);
}

static void acpi_pm_gpe_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);

	if (off < 2)
		p->s.gpe_sts = acpi_pm_byte_clear(p->s.gpe_sts, off, val);
	else
		p->s.gpe_en = acpi_pm_byte_put(p->s.gpe_en, off, val);
	trace(d, "gpe0", off, val);
	acpi_pm_update(p);
}

static uint64_t acpi_pm_smi_read(struct dev *d, uint64_t off, unsigned size)
{
	const struct acpi_pm_state *s = &acpi_pm_of(d)->s;

	return off ? s->smi_sts : s->smi_cmd;
}

static void acpi_pm_smi_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);

	trace(d, "smi", off, val);
	if (off) {
		p->s.smi_sts = (uint8_t)val;
		return;
	}
	p->s.smi_cmd = (uint8_t)val;
	if (val == ACPI_ENABLE)
		p->s.cnt |= CNT_SCI_EN;
	else if (val == ACPI_DISABLE)
		p->s.cnt &= (uint16_t)~CNT_SCI_EN;
	acpi_pm_update(p);
}

/* --- hardware-reduced --- */

static uint64_t acpi_pm_red_read(struct dev *d, uint64_t off, unsigned size)
{
	const struct acpi_pm_state *s = &acpi_pm_of(d)->s;

	return off == 0 ? s->sleep_control : off == 1 ? s->sleep_status : 0;
}

static void acpi_pm_red_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct acpi_pm *p = acpi_pm_of(d);

	switch (off) {
	case 0: /* SLP_TYP in bits 4:2; SLP_EN, bit 5, reads 0 */
		p->s.sleep_control = val & 0x1c;
		if (val & 0x20)
			acpi_pm_sleep(p, val >> 2 & 7);
		break;
	case 1: p->s.sleep_status &= (uint8_t) ~(val & 0x80); break; /* WAK_STS */
	default:
		if (val == ACPI_RESET_VALUE)
			machine_request(d->md->run, REQ_OF(REQ_RESET, "acpi"));
		else
			guest_error(d, "reset_value", val);
		break;
	}
}

static const struct region_ops acpi_pm_evt = { acpi_pm_evt_read, acpi_pm_evt_write, 1, 1 };
static const struct region_ops acpi_pm_cnt = { acpi_pm_cnt_read, acpi_pm_cnt_write, 1, 1 };
static const struct region_ops acpi_pm_tmr = { acpi_pm_tmr_read, NULL, 4, 4 };
static const struct region_ops acpi_pm_gpe0 = { acpi_pm_gpe_read, acpi_pm_gpe_write, 1, 1 };
static const struct region_ops acpi_pm_smi = { acpi_pm_smi_read, acpi_pm_smi_write, 1, 1 };
static const struct region_ops acpi_pm_red = { acpi_pm_red_read, acpi_pm_red_write, 1, 1 };

/* What moves with the base. */
static const struct {
	uint8_t off, len;
	const struct region_ops *ops;
} acpi_pm_blocks[] = { { 0, 4, &acpi_pm_evt }, { 4, 2, &acpi_pm_cnt }, { 8, 4, &acpi_pm_tmr } };

void acpi_pm_place(struct dev *d, uint16_t base)
{
	struct acpi_pm *p = acpi_pm_of(d);

	if (base == p->placed)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(acpi_pm_blocks); i++) {
		struct region r = { .dev = d,
				    .space = BUS_IO,
				    .base = p->placed + (uint64_t)acpi_pm_blocks[i].off,
				    .len = acpi_pm_blocks[i].len,
				    .ops = acpi_pm_blocks[i].ops,
				    .prio = ACPI_PM_PRIO,
				    .flags = REGION_OVERLAP };

		if (p->placed)
			bus_unclaim_region(d->bus, &r);
		r.base = base + (uint64_t)acpi_pm_blocks[i].off;
		if (base && bus_claim_region(d->bus, &r, NULL) < 0)
			guest_error(d, "place_refused", r.base);
	}
	p->placed = base;
}

static int acpi_pm_realize(struct dev *d, struct err *e)
{
	struct acpi_pm *p = acpi_pm_of(d);
	int rc = 0;

	timer_init(&p->timer, d->md->loop, acpi_pm_timer, p);
	if (p->hw_reduced)
		return bus_claim(d, p->iobase, 3, &acpi_pm_red, e);
	for (unsigned i = 0; i < ARRAY_SIZE(acpi_pm_blocks) && p->iobase && !rc; i++)
		rc = bus_claim(d, p->iobase + acpi_pm_blocks[i].off, acpi_pm_blocks[i].len,
			       acpi_pm_blocks[i].ops, e);
	if (!rc)
		rc = bus_claim(d, p->gpe, 4, &acpi_pm_gpe0, e);
	if (!rc)
		rc = bus_claim(d, p->smi_cmd, 2, &acpi_pm_smi, e);
	if (!rc)
		rc = dev_irq(d, &p->sci, p->irq, e);
	return rc;
}

static void acpi_pm_reset(struct dev *d, enum reset_kind kind)
{
	struct acpi_pm *p = acpi_pm_of(d);

	p->s = (struct acpi_pm_state){ .seen = p->hw_reduced ? 0 : acpi_pm_ticks(p),
				       .cnt = p->sci_en ? CNT_SCI_EN : 0 };
	acpi_pm_update(p);
}

static int acpi_pm_loaded(struct dev *d, struct err *e)
{
	struct acpi_pm *p = acpi_pm_of(d);

	p->s.sts &= PM1_STS_BITS;
	p->s.en &= PM1_EN_BITS;
	p->s.seen = MIN(p->s.seen, acpi_pm_ticks(p));
	acpi_pm_drive(p); /* not update: what was loaded is what a save gives again */
	return 0;
}

static void acpi_pm_unrealize(struct dev *d)
{
	timer_cancel(&acpi_pm_of(d)->timer);
	irq_connect(&acpi_pm_of(d)->sci, NULL);
}

const struct dev_class acpi_pm_class = {
	.name = "acpi-pm",
	.desc = "ACPI power management registers",
	.size = sizeof(struct acpi_pm),
	.props = acpi_pm_props,
	.state = STATE_OF(struct acpi_pm, s, acpi_pm_fields, 1),
	.realize = acpi_pm_realize,
	.reset = acpi_pm_reset,
	.loaded = acpi_pm_loaded,
	.unrealize = acpi_pm_unrealize,
};
