/*
 * What a device is: a class with properties, a state table and a few functions; and the list of
 * the devices of one machine.
 *
 * Life: dev_new (defaults) -> dev_set_prop (text from the command line) -> dev_realize (claims
 * regions, lines, backends; properties are frozen) -> reset -> [save, load, pause, resume, reset]*
 * -> dev_free (unrealize). Machines do it for what they need, -device does it for users.
 *
 * Rules for a class: everything the guest can observe is in its state struct; nothing else is.
 * Host resources (timers, pins, backends) are outside and are re-derived from the state in
 * loaded(). A save right after a load gives the same bytes.
 * Threads: realize, reset, loaded, pause, resume, unrealize and all functions here: under the
 * device lock, or before the machine runs.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/err.h"
#include "core/bus.h"
#include "core/irq.h"
#include "core/loop.h"
#include "core/memory.h"
#include "core/runstate.h"
#include "core/state.h"
#include "core/trace.h"

struct dev;
struct machine_devs;
struct pci_bus;

enum reset_kind { RESET_COLD, RESET_WARM }; /* power came on; a reset line or CPU-requested reset */

/* Kinds of properties: the kinds of state, and these. */
enum prop_kind {
	PROP_KIND_SIZE = 32, /* uint64_t; text may end in K, M, G, T; plain numbers are bytes */
	PROP_KIND_STR,       /* char *, owned by the device, NULL when not given */
	PROP_KIND_BACKEND,   /* pointer, resolved by name through machine_devs.backend_find */
};

struct prop { /* user-settable, frozen by realize */
	const char *name, *help;
	uint16_t kind; /* enum st_kind or prop_kind */
	uint32_t off;  /* in the device struct */
	uint64_t dflt;
	const char *sdflt;   /* default of a string */
	const char *backend; /* PROP_KIND_BACKEND: which type, "chardev" */
};

/* clang-format off */
/* Member f of device struct T is property "f" (or, with _N, the name n), default d, help h. */
#define PROP_N(T, f, n, d, h) { .name = (n), .help = (h), .kind = ST_KIND(ST_M(T, f)), \
	.off = offsetof(T, f), .dflt = (d) }
#define PROP(T, f, d, h)      PROP_N(T, f, #f, d, h)
#define PROP_SIZE(T, f, d, h) { .name = #f, .help = (h), .kind = PROP_KIND_SIZE + \
	0 * sizeof(char[ST_KIND(ST_M(T, f)) == ST_U64 ? 1 : -1]), .off = offsetof(T, f), .dflt = (d) }
#define PROP_STR(T, f, d, h)  { .name = #f, .help = (h), .kind = PROP_KIND_STR, \
	.off = offsetof(T, f), .sdflt = (d) }
#define PROP_BACKEND(T, f, type, h) { .name = #f, .help = (h), .kind = PROP_KIND_BACKEND, \
	.off = offsetof(T, f), .backend = (type) }
#define PROP_END { 0 }
/* clang-format on */

struct dev_class {
	const char *name, *desc;  /* the name users type: "isa-serial" */
	uint32_t size;            /* of the struct whose first member is a struct dev */
	const struct prop *props; /* ends with PROP_END; NULL: none */
	const char *bus; /* kind of bus it sits on: "PCI", "virtio"; NULL: the machine's own */
	struct state_desc state;
	/* Claim regions, interrupt lines and backends. On failure: e filled; claims are taken back.
	 */
	int (*realize)(struct dev *d, struct err *e);
	/* Guest-visible state and what follows from it (pins, timers). Called before the first run.
	 */
	void (*reset)(struct dev *d, enum reset_kind k);
	/* After load: check relations between fields, re-derive what is not stored. NULL: nothing.
	 */
	int (*loaded)(struct dev *d, struct err *e);
	/* Stop producing work, keep accepting it; then resume. vCPUs are stopped in between. */
	void (*pause)(struct dev *d);
	void (*resume)(struct dev *d);
	/* Undo realize; the framework takes back bus claims by itself. NULL: nothing else to undo.
	 */
	void (*unrealize)(struct dev *d);
};

struct dev {
	const struct dev_class *cls;
	const char
		*id; /* unique in the machine; made up from the class name if the user gave none */
	struct machine_devs *md;
	struct bus *bus; /* == md->bus */
	bool realized;
	struct trace_src tr;
	struct dev *next, *prev; /* md's list, in order of creation */
};

/*
 * What an engine does for devices beside running vCPUs: doorbells (ioeventfd: a guest's write to an
 * address is a write to an eventfd, without an exit to user space) and message-signalled
 * interrupts. All of it from any thread.
 */
struct doorbell {
	enum bus_space space;
	uint64_t addr;
	uint8_t len; /* 1, 2, 4, 8; 0: a write of any length */
	bool match;  /* only writes of this value */
	uint64_t value;
	int fd; /* an eventfd, the caller's */
};
struct event_ops {
	int (*doorbell)(void *opaque, const struct doorbell *d, bool assign, struct err *e);
	/* An interrupt message: address and data as PCI's MSI and MSI-X have them. */
	int (*msi)(void *opaque, uint64_t addr, uint32_t data);
};

/*
 * What devices of one machine share, made by the machine and borrowed here. loop, bus and run are
 * required; the rest may be NULL in tests (a device says at realize what it misses).
 */
struct machine_devs {
	struct bus *bus;
	struct loop *loop;    /* its clock is the machine's clock */
	struct runstate *run; /* shutdown, reset and exit requests */
	struct gmem *mem;
	struct trace_sink *trace;
	struct irq_line *gsi; /* lines 0..n_gsi-1: ISA interrupts, then other IOAPIC inputs */
	unsigned n_gsi;
	unsigned n_vcpus;               /* for devices with a queue a vCPU; 0: unknown */
	const struct event_ops *events; /* NULL: only the bus's own doorbells, no MSI */
	void *events_opaque;
	/* A named backend of a type ("chardev"), or NULL. */
	void *(*backend_find)(void *opaque, const char *type, const char *id);
	void *opaque;
	struct pci_bus *pci;      /* the board's PCI bus (hw/pci/pci.h), NULL: it has none */
	struct dev *first, *last; /* private */
};

/* A new device with its defaults, in md's list. id NULL: made up. NULL with e filled on failure. */
struct dev *dev_new(struct machine_devs *md, const struct dev_class *cls, const char *id,
		    struct err *e);

/* Set a property from text. Unknown names suggest the nearest; numbers may be 0x.., 0.., decimal.
 */
int dev_set_prop(struct dev *d, const char *name, const char *text, struct err *e) must_check;

/* Has the class a property of this name? */
bool dev_class_has_prop(const struct dev_class *cls, const char *name);

/* The same for code: numbers and bools; a backend pointer. A wrong name or kind is a BUG. */
void dev_set_u64(struct dev *d, const char *name, uint64_t v);
void dev_set_backend(struct dev *d, const char *name, void *backend);

/* Claim everything and reset (cold). On failure the device is as before, to be freed. */
int dev_realize(struct dev *d, struct err *e) must_check;

/* dev_new + dev_realize with properties "name", "text", ..., NULL. NULL on failure, nothing left.
 */
__attribute__((sentinel)) struct dev *dev_create(struct machine_devs *md,
						 const struct dev_class *cls, const char *id,
						 struct err *e, ...);

/* Unrealize if needed, leave the list, free. */
void dev_free(struct dev *d);

/* Connect a pin to GSI n of the machine. -ENODEV if there is none. */
int dev_irq(struct dev *d, struct irq_pin *pin, unsigned n, struct err *e) must_check;

/*
 * Add a doorbell at the bus, and at the engine if there is one; or take it away. An engine that
 * refuses is no error: the bus rings then. Under the device lock. 0 or -errno.
 */
int dev_doorbell(struct dev *d, const struct doorbell *db, bool assign, struct err *e);

/* The machine's clock in ns. */
uint64_t dev_now(const struct dev *d);

void dev_reset(struct dev *d, enum reset_kind k);

/* State section of one device. Load is all or nothing, loaded() included. */
size_t dev_save(struct dev *d, uint8_t *buf, size_t cap);
int dev_load(struct dev *d, const uint8_t *buf, size_t len, struct err *e) must_check;

/* All devices, in order of creation (free: the other way round). */
void machine_devs_reset(struct machine_devs *md, enum reset_kind k);
void machine_devs_pause(struct machine_devs *md);
void machine_devs_resume(struct machine_devs *md);
void machine_devs_free(struct machine_devs *md);
struct dev *machine_devs_find(struct machine_devs *md, const char *id);

/* "NAME, DESC" and one line for each property: what -device NAME,help prints. */
void dev_help(const struct dev_class *cls, FILE *out);
