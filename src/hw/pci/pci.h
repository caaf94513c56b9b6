/*
 * PCI: a bus and its functions.
 *
 * A function is a struct pci_dev at the start of a device. Its configuration space is state
 * (struct pci_state, in the device's own state struct); what may be written there is not: realize
 * lays out the reset values and, byte by byte, the writable bits, the bits that a written 1 clears
 * and the bits that change by themselves.
 *
 * Base addresses: a BAR is claimed on the core bus whenever its enable bit is set and its address
 * makes sense, and follows what the guest writes. Guests let BARs overlap while they size and move
 * them, so BARs may lie over each other and under anything else: the board's own devices and RAM
 * win, and among BARs the lower function.
 *
 * Interrupts: INTx is a level on one of the bus's four lines, which the host bridge leads on;
 * messages are in msi.h. Whoever has work signals through one of these, as the guest has chosen.
 *
 * Modelled:     header type 0, capabilities, INTx with its status and disable bits.
 * Not modelled: bridges (header type 1) and buses behind them, expansion ROMs, parity and SERR,
 *               PCI Express capabilities and extended configuration space (reads zeroes).
 * References:   [PCI3.0 6] configuration space, [PCI3.0 6.2.5] base addresses, [PCI3.0 2.2.6] INTx.
 * Threads:      under the device lock, except where msi.h says otherwise.
 */
#pragma once
#include <pthread.h>

#include "core/dev.h"
#include "hw/pci/regs.h"

#define PCI_UNMAPPED UINT64_MAX
#define PCI_SLOT_ANY (-1)

struct pci_dev;

/* What the guest can observe of every function. A member "pci" of a device's state struct. */
struct pci_state {
	uint8_t config[PCI_CONFIG_SIZE];
};

/* clang-format off */
/* The row of member m (a struct pci_state) of state struct T. */
#define PCI_STATE_FIELDS(T, m) ST_ARR(T, m.config)

/* The properties of every function; T's first member is the struct pci_dev m. */
#define PCI_PROPS(T, m) \
	{ .name = "addr", .help = "place on the bus, SLOT[.FUNCTION] in hexadecimal; free slot by default", \
	  .kind = PROP_KIND_STR, .off = offsetof(T, m.addr) }, \
	{ .name = "bus", .help = "bus to sit on", .kind = PROP_KIND_STR, .off = offsetof(T, m.bus_name) }, \
	PROP_N(T, m.multifunction, "multifunction", false, "other functions may share the slot"), \
	{ .name = "romfile", .help = "expansion ROM: only an empty name, there are none yet", \
	  .kind = PROP_KIND_STR, .off = offsetof(T, m.romfile) }, \
	PROP_N(T, m.rombar, "rombar", 1, "accepted: without a ROM there is no such BAR")
/* clang-format on */

struct pci_bar {
	uint64_t size; /* 0: there is no such BAR */
	uint8_t flags; /* PCI_BAR_* */
	const struct region_ops *ops;
	uint64_t addr; /* where it is claimed, or PCI_UNMAPPED */
};

/* What a class does beyond the generic. Any may be NULL. */
struct pci_ops {
	/* The guest is about to read these bytes: bring s->config up to date. */
	void (*reading)(struct pci_dev *p, unsigned off, unsigned size);
	/* It has written there: s->config is new. Also called with the whole range after a load. */
	void (*written)(struct pci_dev *p, unsigned off, unsigned size);
	/* BAR n answers at addr from now on, or nowhere (PCI_UNMAPPED). */
	void (*mapped)(struct pci_dev *p, unsigned bar, uint64_t addr);
};

/* Who the function is: constants of a class. */
struct pci_ident {
	uint16_t vendor, device;
	uint8_t revision;
	uint32_t class; /* class, subclass, interface: 24 bits */
	uint16_t subsystem_vendor, subsystem;
	uint8_t pin; /* 0: no interrupt; 1..4: INTA..INTD */
};

struct pci_msix_state;

struct pci_dev {
	struct dev dev; /* first */
	char *addr, *bus_name, *romfile;
	bool multifunction;
	uint32_t rombar;

	struct pci_bus *pbus; /* NULL before pci_realize and after pci_unrealize */
	struct pci_state *s;
	const struct pci_ops *ops;
	uint8_t devfn; /* slot << 3 | function */
	struct pci_bar bar[PCI_BARS];
	struct irq_pin intx;
	uint8_t reset[PCI_CONFIG_SIZE]; /* configuration after a reset ... */
	uint8_t wmask[PCI_CONFIG_SIZE]; /* ... bits that take what is written ... */
	uint8_t w1c[PCI_CONFIG_SIZE];   /* ... that a written 1 clears ... */
	uint8_t self[PCI_CONFIG_SIZE];  /* ... and that change by themselves */
	uint8_t cap_end;                /* the next capability goes here */

	pthread_mutex_t msg_lock; /* see msi.h */
	uint8_t msi_cap, msix_cap;
	unsigned msix_n, msix_bar;
	struct pci_msix_state *msix;
};

struct pci_bus {
	struct dev *host;
	const char *name; /* "pci.0" */
	struct pci_dev *fn[PCI_FUNCTIONS];
	unsigned first_slot; /* where the search for a free slot begins */
	bool ports;          /* I/O BARs are usable: a PC's bus */
	unsigned swizzle;    /* INTx pin n of slot s is line (s + n + swizzle) % 4, n from 0 */
	struct irq_line intx[4];
	void (*route)(void *opaque, unsigned line, bool level); /* NULL: lines end here */
	void *route_opaque;
};

/*
 * For host bridges: make the machine's bus, known as md->pci; name is kept. NULL and e when there
 * is one already, or out of memory.
 */
struct pci_bus *pci_bus_new(struct dev *host, const char *name, struct err *e);

/* After all functions are gone. NULL is ignored. */
void pci_bus_free(struct pci_bus *b);

/*
 * Where the four interrupt lines go: fn(opaque, line, level) at every change, and at once with each
 * line's level. fn NULL: nowhere.
 */
void pci_bus_route(struct pci_bus *b, void (*fn)(void *opaque, unsigned line, bool level),
		   void *opaque);

/*
 * Join the bus that the properties name, at the place they name or (slot >= 0: the board's wish,
 * else the first free slot). s is the member of the device's state. Afterwards the device adds its
 * BARs and capabilities. -ENODEV without a bus, -EBUSY when the place is taken, -EINVAL; e names
 * both. On a later failure of its own realize the device calls pci_unrealize.
 */
int pci_realize(struct pci_dev *p, struct pci_state *s, const struct pci_ident *id,
		const struct pci_ops *ops, int slot, struct err *e) must_check;

/* Leave the bus; claims are taken back. Harmless when it never joined. */
void pci_unrealize(struct pci_dev *p);

/* For the class's reset and loaded. loaded: refuses a configuration of another device. */
void pci_reset(struct pci_dev *p);
int pci_loaded(struct pci_dev *p, struct err *e) must_check;

/*
 * During realize. A BAR of size bytes (a power of two; >= 4 for I/O and at most 256, >= 16 for
 * memory). PCI_BAR_MEM64 takes the next BAR's register, too.
 */
void pci_add_bar(struct pci_dev *p, unsigned bar, unsigned flags, uint64_t size,
		 const struct region_ops *ops);

/*
 * During realize: a capability of len bytes with its id, read-only so far; its offset. Running out
 * of the 256 bytes is a BUG: what a device has is known to its author.
 */
unsigned pci_add_cap(struct pci_dev *p, uint8_t id, unsigned len);

/* During realize: reset values and writable bits of up to 4 bytes, little-endian. */
void pci_init(struct pci_dev *p, unsigned off, unsigned size, uint32_t value);
void pci_writable(struct pci_dev *p, unsigned off, unsigned size, uint32_t mask);

/* The guest's accesses: size 1, 2 or 4, within an aligned dword. */
uint32_t pci_config_read(struct pci_dev *p, unsigned off, unsigned size);
void pci_config_write(struct pci_dev *p, unsigned off, uint32_t val, unsigned size);

/* The same by place on the bus; nobody there: all ones, ignored. */
uint32_t pci_bus_read(struct pci_bus *b, unsigned devfn, unsigned off, unsigned size);
void pci_bus_write(struct pci_bus *b, unsigned devfn, unsigned off, uint32_t val, unsigned size);

/* A value of the configuration as it is now. */
uint32_t pci_get(const struct pci_dev *p, unsigned off, unsigned size);

/* May it reach memory, also to send messages? Any thread. */
bool pci_is_master(const struct pci_dev *p);

/* Drive the interrupt pin (also kept as the status bit, which is state). */
void pci_intx(struct pci_dev *p, bool level);

/* Which of the bus's four lines the function's pin is on. The function has a pin. */
unsigned pci_intx_line(const struct pci_dev *p);
