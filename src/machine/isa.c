/*
 * What every PC-like board has on its ISA bus, and the boot without firmware; see isa.h.
 * Threads: the machine's.
 */
#include "machine/isa.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware/kernel.h"
#include "hw/isa/acpi_pm.h"
#include "hw/isa/rtc.h"
#include "hw/registry.h"

enum { RESET_PORT = 0xcf9, RESET_FULL = 0x0e };

static const struct {
	uint16_t port;
	uint8_t irq;
} isa_com[TABLES_SERIALS] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

static int isa_serial(struct machine *m, unsigned n, const char *text, struct err *e)
{
	char id[16];
	struct chardev *c;
	struct dev *d;

	if (!strcmp(text, "none"))
		return 0;
	snprintf(id, sizeof(id), "serial%u", n);
	if (!strncmp(text, "chardev:", 8)) {
		c = chardev_port(chardevs_find(&m->chardevs, text + 8));
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
		c = chardev_port(c);
	}
	d = dev_new(&m->devs, &serial_class, id, e);
	if (!d)
		return -ENOMEM;
	dev_set_u64(d, "iobase", isa_com[n].port);
	dev_set_u64(d, "irq", isa_com[n].irq);
	dev_set_backend(d, "chardev", c);
	if (dev_realize(d, e) < 0)
		return err_prefix(e, "-serial %s", text);
	m->board.serial_port[m->board.serials] = isa_com[n].port;
	m->board.serial_irq[m->board.serials++] = isa_com[n].irq;
	return 0;
}

int isa_pm(struct machine *m, uint16_t iobase, struct dev **pm, struct err *e)
{
	struct board *b = &m->board;
	struct dev *d = dev_new(&m->devs, &acpi_pm_class, "pm", e);

	if (!d)
		return -ENOMEM;
	dev_set_u64(d, "iobase", iobase);
	dev_set_u64(d, "hw-reduced", m->cfg->hw_reduced);
	b->hw_reduced = m->cfg->hw_reduced;
	b->pm_base = ACPI_PM_BASE;
	b->gpe_base = ACPI_GPE_BASE;
	b->smi_cmd = ACPI_SMI_CMD;
	b->acpi_enable = ACPI_ENABLE;
	b->acpi_disable = ACPI_DISABLE;
	b->s5_type = ACPI_S5_TYPE;
	b->sci = ACPI_SCI_IRQ;
	if (pm)
		*pm = d;
	m->pm = d;
	return dev_realize(d, e);
}

int isa_build(struct machine *m, struct err *e)
{
	const struct machine_config *cfg = m->cfg;
	uint64_t low = MIN(cfg->ram, 0xc0000000ull);
	struct dev *d;
	int r;

	if (!dev_create(&m->devs, &post_class, "post", e, NULL) ||
	    !dev_create(&m->devs, &port92_class, "port92", e, NULL) ||
	    !dev_create(&m->devs, &reset_class, "reset", e, NULL))
		return -EINVAL;
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
		r = cfg->serial[i] ? isa_serial(m, i, cfg->serial[i], e) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* The kernel command line; without ACPI it is where virtio-mmio is announced. *made is to be freed.
 */
static const char *isa_cmdline(struct machine *m, char **made)
{
	const struct board *b = &m->board;
	size_t len;
	FILE *f;

	*made = NULL;
	if (m->cfg->acpi || !b->virtio_mmios)
		return m->cfg->append;
	f = open_memstream(made, &len);
	if (!f)
		return m->cfg->append;
	fputs(m->cfg->append, f);
	for (unsigned i = 0; i < b->virtio_mmios; i++)
		fprintf(f, " virtio_mmio.device=%d@%#llx:%u", TABLES_VIRTIO_MMIO_LEN,
			(unsigned long long)b->virtio_mmio[i].base, b->virtio_mmio[i].gsi);
	fclose(f);
	return *made;
}

int isa_boot(struct machine *m, struct boot_state *bs, struct err *e)
{
	struct boot_input in = { .initrd = m->cfg->initrd };
	char *made;
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
	/* The older tables, too: for a kernel that is told acpi=off. */
	if (r == 0)
		r = mptable_build(&p, &m->board, e);
	if (r == 0 && m->cfg->acpi)
		r = acpi_build(&p, &m->board, &in.rsdp, e);
	in.cmdline = isa_cmdline(m, &made);
	if (r == 0)
		r = kernel_load(&p, &k, &in, bs, e);
	free(made);
	image_close(&k);
	for (unsigned i = 0; i < p.nclaims; i++)
		gmem_written(m->mem, p.claim[i].base, p.claim[i].size);
	return r;
}
