/* See pci.h: bus, configuration space, base addresses, INTx. Messages are in msi.c. */
#include "hw/pci/pci.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "hw/pci/msi.h"

/* --- the bus --- */

struct pci_bus *pci_bus_new(struct dev *host, const char *name, struct err *e)
{
	struct pci_bus *b;

	if (host->md->pci) {
		err_set(e, EEXIST, "%s: the machine has a PCI bus already, of %s", host->id,
			host->md->pci->host->id);
		return NULL;
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	b->host = host;
	b->name = name;
	for (unsigned i = 0; i < 4; i++)
		irq_line_init(&b->intx[i], NULL, NULL, i);
	host->md->pci = b;
	return b;
}

void pci_bus_free(struct pci_bus *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < PCI_FUNCTIONS; i++)
		BUG_ON(b->fn[i]);
	b->host->md->pci = NULL;
	free(b);
}

static void pci_bus_intx(void *opaque, unsigned n, bool level)
{
	struct pci_bus *b = opaque;

	if (b->route)
		b->route(b->route_opaque, n, level);
}

void pci_bus_route(struct pci_bus *b, void (*fn)(void *opaque, unsigned line, bool level),
		   void *opaque)
{
	b->route = fn;
	b->route_opaque = opaque;
	for (unsigned i = 0; i < 4; i++) {
		b->intx[i].fn = pci_bus_intx;
		b->intx[i].opaque = b;
		irq_line_sync(&b->intx[i]);
	}
}

uint32_t pci_bus_read(struct pci_bus *b, unsigned devfn, unsigned off, unsigned size)
{
	struct pci_dev *p = devfn < PCI_FUNCTIONS ? b->fn[devfn] : NULL;

	return p ? pci_config_read(p, off, size) : UINT32_MAX >> (32 - 8 * size);
}

void pci_bus_write(struct pci_bus *b, unsigned devfn, unsigned off, uint32_t val, unsigned size)
{
	struct pci_dev *p = devfn < PCI_FUNCTIONS ? b->fn[devfn] : NULL;

	if (p)
		pci_config_write(p, off, val, size);
}

/* --- joining and leaving --- */

/* "SLOT[.FUNCTION]" in hexadecimal. */
static int pci_parse_addr(struct pci_dev *p, unsigned *devfn, struct err *e)
{
	unsigned long slot, fn = 0;
	char *end;

	errno = 0;
	slot = strtoul(p->addr, &end, 16);
	if (end != p->addr && *end == '.' && end[1]) {
		const char *at = end + 1;

		fn = strtoul(at, &end, 16);
		if (strspn(at, "0123456789abcdefABCDEFx") != strlen(at))
			end = p->addr;
	}
	/* strtoul takes blanks and signs */
	if (end == p->addr || *end || !isxdigit((unsigned char)*p->addr) || errno || slot > 31 ||
	    fn > 7)
		return err_set(e, EINVAL,
			       "%s: addr=%s should be SLOT[.FUNCTION] in hexadecimal, up to 1f.7",
			       p->dev.id, p->addr);
	*devfn = (unsigned)(slot << 3 | fn);
	return 0;
}

/* The rules of function 0: the only one that can say that there are others. */
static int pci_check_functions(struct pci_bus *b, struct pci_dev *p, unsigned devfn, struct err *e)
{
	const struct pci_dev *zero = b->fn[devfn & ~7u];

	if (devfn & 7) {
		if (zero && !(zero->reset[PCI_HEADER_TYPE] & PCI_MULTIFUNCTION))
			return err_set(e, EBUSY,
				       "%s: %s in slot %x is not multifunction: give it "
				       "multifunction=on to add functions",
				       p->dev.id, zero->dev.id, devfn >> 3);
		return 0;
	}
	for (unsigned i = 1; i < 8 && !p->multifunction; i++)
		if (b->fn[devfn + i])
			return err_set(e, EBUSY,
				       "%s: slot %x has function %u already (%s): function 0 needs "
				       "multifunction=on",
				       p->dev.id, devfn >> 3, i, b->fn[devfn + i]->dev.id);
	return 0;
}

static bool pci_slot_free(const struct pci_bus *b, unsigned slot)
{
	for (unsigned i = 0; i < 8; i++)
		if (b->fn[slot << 3 | i])
			return false;
	return true;
}

static int pci_choose(struct pci_bus *b, struct pci_dev *p, int slot, unsigned *devfn,
		      struct err *e)
{
	unsigned s = b->first_slot;
	int r;

	if (p->addr) {
		r = pci_parse_addr(p, devfn, e);
		if (r < 0)
			return r;
	} else if (slot >= 0) {
		*devfn = (unsigned)slot;
	} else {
		while (s < 32 && !pci_slot_free(b, s))
			s++;
		if (s == 32)
			return err_set(e, EBUSY, "%s: no free slot on bus %s", p->dev.id, b->name);
		*devfn = s << 3;
	}
	if (b->fn[*devfn])
		return err_set(e, EBUSY, "%s: %x.%x on bus %s is taken by %s", p->dev.id,
			       *devfn >> 3, *devfn & 7, b->name, b->fn[*devfn]->dev.id);
	return pci_check_functions(b, p, *devfn, e);
}

static void pci_header(struct pci_dev *p, const struct pci_ident *id)
{
	pci_init(p, PCI_VENDOR_ID, 2, id->vendor);
	pci_init(p, PCI_DEVICE_ID, 2, id->device);
	pci_init(p, PCI_REVISION, 1, id->revision);
	pci_init(p, PCI_CLASS_PROG, 1, id->class);
	pci_init(p, PCI_CLASS, 2, id->class >> 8);
	pci_init(p, PCI_SUBSYSTEM_VENDOR, 2, id->subsystem_vendor);
	pci_init(p, PCI_SUBSYSTEM_ID, 2, id->subsystem);
	pci_init(p, PCI_HEADER_TYPE, 1, p->multifunction ? PCI_MULTIFUNCTION : 0);
	pci_init(p, PCI_INTERRUPT_PIN, 1, id->pin);
	pci_writable(p, PCI_COMMAND, 2,
		     PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
			     (id->pin ? PCI_COMMAND_INTX_OFF : 0));
	pci_writable(p, PCI_CACHE_LINE, 1, 0xff);
	pci_writable(p, PCI_LATENCY, 1, 0xff);
	pci_writable(p, PCI_INTERRUPT_LINE, 1, 0xff);
	p->w1c[PCI_STATUS + 1] = PCI_STATUS_W1C >> 8;
	p->self[PCI_STATUS] = PCI_STATUS_INTX;
	p->cap_end = PCI_HEADER_END;
}

int pci_realize(struct pci_dev *p, struct pci_state *s, const struct pci_ident *id,
		const struct pci_ops *ops, int slot, struct err *e)
{
	struct pci_bus *b = p->dev.md->pci;
	unsigned devfn = 0;
	int r;

	if (!b)
		return err_set(
			e, ENODEV,
			"%s: this machine has no PCI bus; -M pc and -M microvm,pcie=on have one",
			p->dev.id);
	if (p->bus_name && strcmp(p->bus_name, b->name))
		return err_set(e, ENODEV, "%s: there is no bus %s; this machine has %s", p->dev.id,
			       p->bus_name, b->name);
	if (p->romfile && *p->romfile)
		return err_set(e, ENOTSUP,
			       "%s: romfile=%s: expansion ROMs are not supported: there is no "
			       "firmware that would run them",
			       p->dev.id, p->romfile);
	r = pci_choose(b, p, slot, &devfn, e);
	if (r < 0)
		return r;
	memset(p->reset, 0, sizeof(p->reset));
	memset(p->wmask, 0, sizeof(p->wmask));
	memset(p->w1c, 0, sizeof(p->w1c));
	memset(p->self, 0, sizeof(p->self));
	memset(p->bar, 0, sizeof(p->bar));
	for (unsigned i = 0; i < PCI_BARS; i++)
		p->bar[i].addr = PCI_UNMAPPED;
	p->msi_cap = p->msix_cap = 0;
	pthread_mutex_init(&p->msg_lock, NULL);
	p->s = s;
	p->ops = ops;
	p->devfn = (uint8_t)devfn;
	p->pbus = b;
	b->fn[devfn] = p;
	pci_header(p, id);
	if (id->pin)
		irq_connect(&p->intx, &b->intx[pci_intx_line(p)]);
	return 0;
}

void pci_unrealize(struct pci_dev *p)
{
	static const struct pci_ops none = { 0 };

	if (!p->pbus)
		return;
	p->ops = &none;
	irq_set(&p->intx, false);
	irq_connect(&p->intx, NULL);
	bus_unclaim_all(&p->dev);
	p->pbus->fn[p->devfn] = NULL;
	p->pbus = NULL;
	pthread_mutex_destroy(&p->msg_lock);
}

void pci_init(struct pci_dev *p, unsigned off, unsigned size, uint32_t value)
{
	BUG_ON(off + size > PCI_CONFIG_SIZE);
	for (unsigned i = 0; i < size; i++)
		p->reset[off + i] = (uint8_t)(value >> 8 * i);
}

void pci_writable(struct pci_dev *p, unsigned off, unsigned size, uint32_t mask)
{
	BUG_ON(off + size > PCI_CONFIG_SIZE);
	for (unsigned i = 0; i < size; i++)
		p->wmask[off + i] |= (uint8_t)(mask >> 8 * i);
}

unsigned pci_add_cap(struct pci_dev *p, uint8_t id, unsigned len)
{
	unsigned off = p->cap_end;

	BUG_ON(off + len > PCI_CONFIG_SIZE);
	p->reset[off] = id;
	p->reset[off + 1] = p->reset[PCI_CAPABILITIES]; /* the newest is first */
	p->reset[PCI_CAPABILITIES] = (uint8_t)off;
	p->reset[PCI_STATUS] |= PCI_STATUS_CAPS;
	p->cap_end = (uint8_t)MIN(off + ((len + 3) & ~3u), 0xfcu);
	return off;
}

void pci_add_bar(struct pci_dev *p, unsigned bar, unsigned flags, uint64_t size,
		 const struct region_ops *ops)
{
	unsigned off = PCI_BAR0 + 4 * bar;
	bool io = flags & PCI_BAR_IO;

	BUG_ON(bar >= PCI_BARS || p->bar[bar].size || size & (size - 1));
	BUG_ON(size < (io ? 4 : 16) || (io && size > 256));
	BUG_ON(flags & PCI_BAR_MEM64 ? bar + 1 >= PCI_BARS : size > BIT(31));
	p->bar[bar] = (struct pci_bar){
		.size = size, .flags = (uint8_t)flags, .ops = ops, .addr = PCI_UNMAPPED
	};
	pci_init(p, off, 4, flags);
	pci_writable(p, off, 4, (uint32_t) ~(size - 1));
	if (flags & PCI_BAR_MEM64)
		pci_writable(p, off + 4, 4, (uint32_t)(~(size - 1) >> 32));
	pci_writable(p, PCI_COMMAND, 1, io ? PCI_COMMAND_IO : PCI_COMMAND_MEM);
}

/* --- base addresses --- */

uint32_t pci_get(const struct pci_dev *p, unsigned off, unsigned size)
{
	uint32_t v = 0;

	memcpy(&v, p->s->config + off, size);
	return v;
}

/*
 * Where BAR n should answer. All ones is what a guest writes to learn the size, zero is the value
 * after a reset: neither is an address.
 */
static uint64_t pci_bar_wanted(const struct pci_dev *p, unsigned n)
{
	const struct pci_bar *b = &p->bar[n];
	bool io = b->flags & PCI_BAR_IO, wide = b->flags & PCI_BAR_MEM64;
	uint64_t addr = pci_get(p, PCI_BAR0 + 4 * n, 4), last;

	if (!(p->s->config[PCI_COMMAND] & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEM)))
		return PCI_UNMAPPED;
	if (wide)
		addr |= (uint64_t)pci_get(p, PCI_BAR0 + 4 * n + 4, 4) << 32;
	addr &= ~(b->size - 1);
	last = addr + b->size - 1;
	if (!addr || last >= (io ? 0xffff : wide ? UINT64_MAX : UINT32_MAX))
		return PCI_UNMAPPED;
	return addr;
}

/* Below all devices of the board; no two alike on a bus. */
static int pci_bar_prio(const struct pci_dev *p, unsigned n)
{
	return -(int)(p->devfn * PCI_BARS + n + 1);
}

static struct region pci_bar_region(struct pci_dev *p, unsigned n)
{
	const struct pci_bar *b = &p->bar[n];

	return (struct region){ .dev = &p->dev,
				.space = b->flags & PCI_BAR_IO ? BUS_IO : BUS_MEM,
				.base = b->addr,
				.len = b->size,
				.ops = b->ops,
				.prio = pci_bar_prio(p, n),
				.flags = REGION_OVERLAP };
}

static void pci_bar_move(struct pci_dev *p, unsigned n, uint64_t addr)
{
	struct pci_bar *b = &p->bar[n];
	struct region r = pci_bar_region(p, n);
	struct err e = { 0 };

	if (b->addr != PCI_UNMAPPED)
		bus_unclaim_region(p->dev.bus, &r);
	b->addr = r.base = addr;
	if (addr != PCI_UNMAPPED && bus_claim_region(p->dev.bus, &r, &e) < 0) {
		guest_error(&p->dev, "bar_refused", n, addr);
		b->addr = PCI_UNMAPPED;
	}
	trace(&p->dev, "bar", n, b->addr);
	if (p->ops->mapped)
		p->ops->mapped(p, n, b->addr);
}

static void pci_update_bars(struct pci_dev *p)
{
	for (unsigned n = 0; n < PCI_BARS; n++) {
		uint64_t addr = p->bar[n].size ? pci_bar_wanted(p, n) : PCI_UNMAPPED;

		if (addr != p->bar[n].addr)
			pci_bar_move(p, n, addr);
	}
}

/* --- INTx --- */

unsigned pci_intx_line(const struct pci_dev *p)
{
	return ((unsigned)(p->devfn >> 3) + p->reset[PCI_INTERRUPT_PIN] - 1 + p->pbus->swizzle) & 3;
}

static void pci_intx_drive(struct pci_dev *p)
{
	bool off = pci_get(p, PCI_COMMAND, 2) & PCI_COMMAND_INTX_OFF || pci_msg_enabled(p);

	irq_set(&p->intx, p->s->config[PCI_STATUS] & PCI_STATUS_INTX && !off);
}

void pci_intx(struct pci_dev *p, bool level)
{
	uint8_t *status = &p->s->config[PCI_STATUS];

	BUG_ON(!p->reset[PCI_INTERRUPT_PIN]);
	*status = (uint8_t)((*status & ~PCI_STATUS_INTX) | (level ? PCI_STATUS_INTX : 0));
	pci_intx_drive(p);
}

bool pci_is_master(const struct pci_dev *p)
{
	return __atomic_load_n(&p->s->config[PCI_COMMAND], __ATOMIC_RELAXED) & PCI_COMMAND_MASTER;
}

/* --- accesses, reset, load --- */

uint32_t pci_config_read(struct pci_dev *p, unsigned off, unsigned size)
{
	if (off + size > PCI_CONFIG_SIZE)
		return 0;
	if (p->ops->reading)
		p->ops->reading(p, off, size);
	return pci_get(p, off, size);
}

/* Everything that follows from the configuration. */
static void pci_derive(struct pci_dev *p)
{
	pthread_mutex_lock(&p->msg_lock);
	pci_msg_flush(p);
	pthread_mutex_unlock(&p->msg_lock);
	pci_update_bars(p);
	pci_intx_drive(p);
}

void pci_config_write(struct pci_dev *p, unsigned off, uint32_t val, unsigned size)
{
	uint8_t *c = p->s->config;

	if (off + size > PCI_CONFIG_SIZE)
		return;
	trace(&p->dev, "config", off, val, size);
	pthread_mutex_lock(&p->msg_lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t v = (uint8_t)(val >> 8 * i), w = p->wmask[off + i];

		c[off + i] =
			(uint8_t)((c[off + i] & ~w) | (v & w)) & (uint8_t) ~(v & p->w1c[off + i]);
	}
	pthread_mutex_unlock(&p->msg_lock);
	pci_derive(p);
	if (p->ops->written)
		p->ops->written(p, off, size);
}

void pci_reset(struct pci_dev *p)
{
	pthread_mutex_lock(&p->msg_lock);
	memcpy(p->s->config, p->reset, sizeof(p->reset));
	pci_msg_reset(p);
	pthread_mutex_unlock(&p->msg_lock);
	pci_update_bars(p);
	pci_intx_drive(p);
	if (p->ops->written)
		p->ops->written(p, 0, PCI_CONFIG_SIZE);
}

int pci_loaded(struct pci_dev *p, struct err *e)
{
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t fixed = (uint8_t) ~(p->wmask[i] | p->w1c[i] | p->self[i]);

		if ((p->s->config[i] ^ p->reset[i]) & fixed)
			return err_set(e, EINVAL,
				       "byte %02xh of the configuration is %02x, and here %02x", i,
				       p->s->config[i], p->reset[i]);
	}
	pci_update_bars(p);
	pci_intx_drive(p);
	if (p->ops->written)
		p->ops->written(p, 0, PCI_CONFIG_SIZE);
	return 0;
}
