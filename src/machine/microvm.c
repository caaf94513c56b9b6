/*
 * microvm: the smallest board that a stock Linux kernel boots on, for direct kernel boot.
 *
 *   port     GSI  device
 *   020 0A0       PIC pair (engine)            FEC00000 IOAPIC, FEE00000 LAPIC (engine)
 *   040 061  0    PIT, speaker gate (engine)
 *   060 064  1,12 i8042 keyboard controller (i8042=off leaves it out)
 *   070      8    RTC with CMOS
 *   080           POST code port
 *   092           A20 and fast reset
 *   0B2           ACPI: SMI command port
 *   3F8      4    COM1; 2F8/3 COM2, 3E8/4 COM3, 2E8/3 COM4 with more -serial options
 *   600      9    ACPI power management (PM1, PM timer); AFE0 GPE0
 *   CF9           reset control
 * and what -device adds.
 *
 * Differences from QEMU's microvm: a real power-off through ACPI's fixed hardware instead of none,
 * and no PCI, no virtio-mmio yet.
 * Threads: the machine's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/kernel.h"
#include "hw/isa/acpi_pm.h"
#include "hw/isa/rtc.h"
#include "hw/registry.h"
#include "machine/machine.h"

enum { RESET_PORT = 0xcf9, RESET_FULL = 0x0e };

static const struct {
	uint16_t port;
	uint8_t irq;
} microvm_com[TABLES_SERIALS] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

static int microvm_serial(struct machine *m, unsigned n, const char *text, struct err *e)
{
	char id[16];
	struct chardev *c;
	struct dev *d;

	if (!strcmp(text, "none"))
		return 0;
	snprintf(id, sizeof(id), "serial%u", n);
	if (!strncmp(text, "chardev:", 8)) {
		c = chardevs_find(&m->chardevs, text + 8);
		if (!c)
			return err_set(e, ENOENT, "-serial %s: no -chardev with this id", text);
	} else {
		int r;

		c = machine_chardev(m, id, text, e);
		if (!c)
			return err_prefix(e, "-serial %s", text);
		r = chardevs_add(&m->chardevs, c, e);
		if (r < 0)
			return r;
	}
	d = dev_new(&m->devs, &serial_class, id, e);
	if (!d)
		return -ENOMEM;
	dev_set_u64(d, "iobase", microvm_com[n].port);
	dev_set_u64(d, "irq", microvm_com[n].irq);
	dev_set_backend(d, "chardev", c);
	if (dev_realize(d, e) < 0)
		return err_prefix(e, "-serial %s", text);
	m->board.serial_port[m->board.serials] = microvm_com[n].port;
	m->board.serial_irq[m->board.serials++] = microvm_com[n].irq;
	return 0;
}

/* NAME[,prop=value]...; ",," in a value is a comma. A property without "=" is a bool set to on. */
static int microvm_device(struct machine *m, const char *text, struct err *e)
{
	char *copy = strdup(text), *s = copy, *id = NULL, *prop[64];
	const struct dev_class *cls;
	unsigned n = 0;
	struct dev *d;
	int r = 0;

	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	for (char *to = s; n < ARRAY_SIZE(prop);) {
		prop[n++] = to;
		while (*s && (*s != ',' || s[1] == ',')) {
			s += *s == ',';
			*to++ = *s++;
		}
		if (!*s) {
			*to = 0;
			break;
		}
		s++;
		*to++ = 0;
	}
	for (unsigned i = 1; i < n; i++)
		if (!strncmp(prop[i], "id=", 3))
			id = prop[i] + 3;
	cls = hw_class(prop[0], e);
	d = cls ? dev_new(&m->devs, cls, id, e) : NULL;
	r = d ? 0 : -EINVAL;
	for (unsigned i = 1; i < n && r == 0; i++) {
		char *eq = strchr(prop[i], '=');

		if (prop[i] + 3 == id)
			continue;
		if (eq)
			*eq = 0;
		r = dev_set_prop(d, prop[i], eq ? eq + 1 : "on", e);
	}
	if (r == 0)
		r = dev_realize(d, e);
	free(copy);
	return r < 0 ? err_prefix(e, "-device %s", text) : 0;
}

static int microvm_pm(struct machine *m, struct err *e)
{
	struct board *b = &m->board;
	struct dev *d = dev_new(&m->devs, &acpi_pm_class, "pm", e);

	if (!d)
		return -ENOMEM;
	dev_set_u64(d, "hw-reduced", m->cfg->hw_reduced);
	b->hw_reduced = m->cfg->hw_reduced;
	b->pm_base = ACPI_PM_BASE;
	b->gpe_base = ACPI_GPE_BASE;
	b->smi_cmd = ACPI_SMI_CMD;
	b->acpi_enable = ACPI_ENABLE;
	b->acpi_disable = ACPI_DISABLE;
	b->s5_type = ACPI_S5_TYPE;
	b->sci = ACPI_SCI_IRQ;
	return dev_realize(d, e);
}

/*
 * Nobody answers at the PCI configuration ports, but a dword written to CF8h must not be cut up, or
 * its second byte would reach the reset register: systems that look for PCI would reset.
 */
static int microvm_no_pci(struct machine *m, struct dev *owner, struct err *e)
{
	static const struct region_ops nothing = { .min = 1, .max = 4 };
	const struct region r = { .dev = owner,
				  .space = BUS_IO,
				  .base = 0xcf8,
				  .len = 8,
				  .ops = &nothing,
				  .flags = REGION_OVERLAP };

	return bus_claim_region(m->bus, &r, e);
}

static int microvm_build(struct machine *m, struct err *e)
{
	const struct machine_config *cfg = m->cfg;
	uint64_t low = MIN(cfg->ram, 0xc0000000ull);
	struct dev *d;
	int r;

	if (!cfg->kernel)
		return err_set(e, EINVAL, "machine microvm boots only kernels: give -kernel FILE");
	if (!dev_create(&m->devs, &post_class, "post", e, NULL) ||
	    !dev_create(&m->devs, &port92_class, "port92", e, NULL))
		return -EINVAL;
	d = dev_create(&m->devs, &reset_class, "reset", e, NULL);
	r = d ? microvm_no_pci(m, d, e) : -EINVAL;
	if (r < 0)
		return r;
	m->board.reset_port = RESET_PORT;
	m->board.reset_value = RESET_FULL;
	if (cfg->rtc) {
		d = dev_new(&m->devs, &rtc_class, "rtc", e);
		if (!d)
			return -ENOMEM;
		if (cfg->rtc_base && dev_set_prop(d, "base", cfg->rtc_base, e) < 0)
			return err_prefix(e, "-rtc");
		if (dev_realize(d, e) < 0)
			return cfg->rtc_base ? err_prefix(e, "-rtc") : -EINVAL;
		rtc_set_memory(d, low, cfg->ram - low);
		m->board.rtc = true;
	}
	if (cfg->i8042) {
		if (!dev_create(&m->devs, &i8042_class, "i8042", e, NULL))
			return -EINVAL;
		m->board.keyboard = true;
	}
	for (unsigned i = 0; i < CONFIG_SERIALS && cfg->isa_serial; i++) {
		r = cfg->serial[i] ? microvm_serial(m, i, cfg->serial[i], e) : 0;
		if (r < 0)
			return r;
	}
	if (cfg->acpi) {
		r = microvm_pm(m, e);
		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < cfg->ndevices; i++) {
		r = microvm_device(m, cfg->device[i], e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int microvm_boot(struct machine *m, struct boot_state *bs, struct err *e)
{
	struct boot_input in = { .initrd = m->cfg->initrd, .cmdline = m->cfg->append };
	uint64_t high = m->cfg->ram > 0xc0000000ull ? m->cfg->ram - 0xc0000000ull : 0;
	struct place p;
	struct image k;
	int r;

	place_init(&p, m->cfg->ram, gmem_ptr_w(m->mem, 0, m->cfg->ram - high),
		   high ? gmem_ptr_w(m->mem, 1ull << 32, high) : NULL);
	r = image_open(&k, m->cfg->kernel, e);
	if (r < 0)
		return err_prefix(e, "-kernel");
	r = bda_build(&p, &m->board, e);
	if (r == 0)
		r = m->cfg->acpi ? acpi_build(&p, &m->board, &in.rsdp, e)
				 : mptable_build(&p, &m->board, e);
	if (r == 0)
		r = kernel_load(&p, &k, &in, bs, e);
	image_close(&k);
	for (unsigned i = 0; i < p.nclaims; i++)
		gmem_written(m->mem, p.claim[i].base, p.claim[i].size);
	return r;
}

const struct board_ops microvm_board = {
	.name = "microvm",
	.desc = "minimal machine for direct kernel boot",
	.build = microvm_build,
	.boot = microvm_boot,
};
