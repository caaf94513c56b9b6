/* PMBASE moves the ACPI registers; they are nowhere while PMREGMISC says so. */
#include "testbed.h"

#include "hw/isa/acpi_pm.h"
#include "hw/pci/pci.h"
#include "hw/pci/piix.h"

static void piix4_pm_moves(void **state)
{
	struct bed *b = bed_new(), *b2 = bed_new();
	struct dev *d, *pm, *d2, *pm2;

	bed_pci(b);
	pm = dev_create(&b->md, &acpi_pm_class, "pm", NULL, "iobase", "0", NULL);
	d = dev_create(&b->md, &piix4_pm_class, NULL, NULL, "addr", "0", NULL);
	piix4_pm_attach(d, pm);
	assert_int_equal(bed_cfg_read(b, 0, PIIX4_PMBASE, 4), 1);
	assert_int_equal(bed_cfg_read(b, 0, PCI_INTERRUPT_LINE, 2), 0x0109);
	bed_cfg_write(b, 0, PCI_INTERRUPT_LINE, 5, 1);
	assert_int_equal(bed_cfg_read(b, 0, PCI_INTERRUPT_LINE, 1), 9);
	bed_cfg_write(b, 0, PIIX4_PMBASE, 0x600, 4);
	assert_int_equal(bus_io_read(b->md.bus, 0x604, 2), 0xffff);
	bed_cfg_write(b, 0, PIIX4_PMREGMISC, 1, 1);
	assert_int_equal(bus_io_read(b->md.bus, 0x604, 2), 0);
	bus_io_write(b->md.bus, 0x602, 0x100, 2); /* power button enable */
	bed_cfg_write(b, 0, PIIX4_PMBASE, 0xb000, 2);
	assert_int_equal(bus_io_read(b->md.bus, 0x602, 2), 0xffff);
	assert_int_equal(bus_io_read(b->md.bus, 0xb002, 2), 0x100);
	/* a loaded bridge puts it there, too */
	bed_pci(b2);
	pm2 = dev_create(&b2->md, &acpi_pm_class, "pm", NULL, "iobase", "0", NULL);
	d2 = dev_create(&b2->md, &piix4_pm_class, NULL, NULL, "addr", "0", NULL);
	piix4_pm_attach(d2, pm2);
	bed_copy(d, d2);
	bed_copy(pm, pm2);
	assert_int_equal(bus_io_read(b2->md.bus, 0xb002, 2), 0x100);
	/* S5 */
	bus_io_write(b->md.bus, 0xb004, 1 << 13 | ACPI_S5_TYPE << 10, 2);
	bed_run(b);
	assert_int_equal(b->last.kind, REQ_SHUTDOWN);
	dev_reset(d, RESET_WARM);
	assert_int_equal(bus_io_read(b->md.bus, 0xb004, 2), 0xffff);
	bed_free(b);
	bed_free(b2);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(piix4_pm_moves) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
