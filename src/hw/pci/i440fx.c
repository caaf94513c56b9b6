/*
 * Intel 440FX: the host bridge of the pc board, function 00.0 of the bus it makes.
 *
 * Modelled:     configuration mechanism 1: a dword at CF8h names bus, function and register, and
 *               the bytes at CFCh-CFFh are that register's. The PAM and SMRAM registers are kept.
 * Not modelled: what PAM does, shadowing C0000h-FFFFFh between RAM and ROM: it is for firmware,
 *               which this board does not have yet (written() is the place for it); SMRAM; DRAM
 *               timing; buses other than 0.
 * References:   [440FX 3.1 "I/O mapped registers", 3.2 "PCI configuration registers"],
 *               [PCI3.0 3.2.2.3.2 "Software generation of configuration transactions"]
 * Threads:      any vCPU, under the device lock.  Time: none.  Host resources: none.
 */
#include <errno.h>

#include "hw/pci/pci.h"

enum { CONFIG_ADDRESS = 0xcf8, CONFIG_DATA = 0xcfc, CONFIG_ON = 1u << 31 };
enum { I440FX_PAM0 = 0x59, I440FX_PAMS = 7, I440FX_SMRAM = 0x72 };
/* PIRQ of INTA in slot s is (s - 1) % 4: how PC firmware expects the slots to be wired. */
enum { I440FX_SWIZZLE = 3 };

struct i440fx {
	struct pci_dev pci;
	struct pci_bus *bus; /* its own */
	struct i440fx_state {
		struct pci_state pci;
		uint32_t address; /* CF8h */
	} s;
};

static const struct field i440fx_fields[] = {
	PCI_STATE_FIELDS(struct i440fx_state, pci),
	ST(struct i440fx_state, address),
	{ 0 },
};

static struct i440fx *i440fx_of(struct dev *d)
{
	return container_of(d, struct i440fx, pci.dev);
}

/* Only whole dwords are the register's; other widths pass to plain I/O, where nobody is. */
static uint64_t i440fx_address_read(struct dev *d, uint64_t off, unsigned size)
{
	return size == 4 ? i440fx_of(d)->s.address : UINT64_MAX;
}

static void i440fx_address_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	if (size == 4)
		i440fx_of(d)->s.address = (uint32_t)val & (CONFIG_ON | 0xfffffc);
	else
		guest_error(d, "config_address", off, val, size);
}

/* Is a function on bus 0 selected? */
static bool i440fx_selected(const struct i440fx *h)
{
	return h->s.address & CONFIG_ON && !(h->s.address >> 16 & 0xff);
}

static uint64_t i440fx_data_read(struct dev *d, uint64_t off, unsigned size)
{
	struct i440fx *h = i440fx_of(d);
	uint32_t a = h->s.address;

	if (!i440fx_selected(h))
		return UINT64_MAX;
	return pci_bus_read(h->bus, a >> 8 & 0xff, (a & 0xfc) + (unsigned)off, size);
}

static void i440fx_data_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct i440fx *h = i440fx_of(d);
	uint32_t a = h->s.address;

	if (i440fx_selected(h))
		pci_bus_write(h->bus, a >> 8 & 0xff, (a & 0xfc) + (unsigned)off, (uint32_t)val,
			      size);
}

static const struct region_ops i440fx_address = { i440fx_address_read, i440fx_address_write, 1, 4 };
static const struct region_ops i440fx_data = { i440fx_data_read, i440fx_data_write, 1, 4 };

static void i440fx_unrealize(struct dev *d)
{
	struct i440fx *h = i440fx_of(d);

	pci_unrealize(&h->pci);
	pci_bus_free(h->bus);
}

static int i440fx_realize(struct dev *d, struct err *e)
{
	static const struct pci_ident id = { .vendor = 0x8086,
					     .device = 0x1237,
					     .revision = 2,
					     .class = 0x060000,
					     .subsystem_vendor = 0x1af4,
					     .subsystem = 0x1100 };
	static const struct pci_ops ops = { 0 };
	struct i440fx *h = i440fx_of(d);
	int r = bus_claim(d, CONFIG_ADDRESS, 4, &i440fx_address, e);

	if (r == 0)
		r = bus_claim(d, CONFIG_DATA, 4, &i440fx_data, e);
	if (r < 0)
		return r;
	h->bus = pci_bus_new(d, "pci.0", e);
	if (!h->bus)
		return -EEXIST;
	h->bus->swizzle = I440FX_SWIZZLE;
	h->bus->ports = true;
	r = pci_realize(&h->pci, &h->s.pci, &id, &ops, 0, e);
	if (r < 0) {
		pci_bus_free(h->bus);
		return r;
	}
	pci_writable(&h->pci, I440FX_PAM0, 1, 0xf0);
	for (unsigned i = 1; i < I440FX_PAMS; i++)
		pci_writable(&h->pci, I440FX_PAM0 + i, 1, 0xff);
	pci_init(&h->pci, I440FX_SMRAM, 1, 2);
	pci_writable(&h->pci, I440FX_SMRAM, 1, 0x78);
	return 0;
}

static void i440fx_reset(struct dev *d, enum reset_kind kind)
{
	i440fx_of(d)->s.address = 0;
	pci_reset(&i440fx_of(d)->pci);
}

static int i440fx_loaded(struct dev *d, struct err *e)
{
	return pci_loaded(&i440fx_of(d)->pci, e);
}

const struct dev_class i440fx_class = {
	.name = "i440FX",
	.desc = "PCI host bridge of the pc board",
	.size = sizeof(struct i440fx),
	.state = STATE_OF(struct i440fx, s, i440fx_fields, 1),
	.realize = i440fx_realize,
	.reset = i440fx_reset,
	.loaded = i440fx_loaded,
	.unrealize = i440fx_unrealize,
};
