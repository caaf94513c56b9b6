/*
 * A machine: guest memory, buses, interrupt lines, devices, an engine with its vCPUs, and the event
 * loop that serves them.
 *
 * Theory of operation: machine_new builds everything and leaves the vCPU threads parked.
 * machine_run lets them go and serves the event loop. Whatever concerns the whole machine (reset,
 * power off, debug exit, a signal, a fatal error of the engine) arrives as a request
 * (core/runstate.h), whose handler only leaves the loop with a note; machine_run then parks all
 * vCPUs, without holding the device lock that they may need to get there, and acts: reset and go
 * on, or return the exit status.
 *
 * Run states:
 *   MACHINE_PAUSED    vCPUs parked, clock stopped. Left by machine_run for RUNNING, at once or,
 * after an I/O error with rerror/werror=stop, by REQ_CONT. MACHINE_RUNNING   left for PAUSED by any
 * request. MACHINE_SHUTDOWN  powered off with -no-shutdown: parked for good; only an exit ends it.
 *
 * Modelled: in-kernel irqchip and PIT of the engine, reset of all state to power-on values (memory
 * keeps its contents, as on hardware; the kernel is loaded again).
 * Not modelled: CPU hot-plug, NUMA.
 * Threads: new, run, free: one thread, the loop's. machine_request: any.
 */
#pragma once
#include <libkvm.h>
#include <pthread.h>

#include "backend/block/backend.h"
#include "backend/char/chardev.h"
#include "backend/char/term.h"
#include "backend/net/netdev.h"
#include "backend/rng/rng.h"
#include "core/dev.h"
#include "core/iothread.h"
#include "firmware/kernel.h"
#include "firmware/tables.h"
#include "machine/config.h"

enum { MACHINE_GSIS = 24 };

enum machine_state { MACHINE_PAUSED, MACHINE_RUNNING, MACHINE_SHUTDOWN };

struct vcpu;
struct vserial;
struct machine;
struct irqchip_state;

/* What distinguishes one board from another. */
struct board_ops {
	const char *name, *desc;
	/* Devices, and what the tables say about them (m->board). */
	int (*build)(struct machine *m, struct err *e);
	/* After a reset and before the first run: tables and kernel; the boot vCPU's state. */
	int (*boot)(struct machine *m, struct boot_state *bs, struct err *e);
	/* Give a virtio-mmio device (not realized yet) its place; NULL: there are no such. */
	int (*mmio_slot)(struct machine *m, struct dev *d, struct err *e);
};

struct machine_object {
	const struct object_config *cfg;
	struct iothread *iothread; /* by kind, one of these */
	struct rng *rng;
};

struct machine {
	const struct machine_config *cfg;
	const struct board_ops *ops;
	struct clock clock;
	struct loop *loop;
	struct bus *bus;
	struct gmem *mem;
	struct trace_sink *trace;
	struct runstate run;
	struct request note; /* what the handler left for machine_run */
	bool ending;         /* an exit was asked for */
	bool held;           /* REQ_PAUSE came: PAUSED until REQ_CONT */
	struct irq_line gsi[MACHINE_GSIS];
	struct machine_devs devs;
	struct chardevs chardevs;
	struct netdevs netdevs;
	struct machine_object object[CONFIG_OBJECTS];
	unsigned nobjects;
	struct block_ctx *block; /* of the main loop; NULL: no drives */
	struct blks blks;        /* -drive, -blockdev */
	struct term *term;       /* main's; may be NULL */
	struct board board;
	struct dev *pm; /* power management, NULL: none (acpi=off) */

	struct libkvm *kvm;
	struct libkvm_vm *vm;
	struct gmem_listener slots;
	struct irqchip_state *irqchip; /* power-on state of PIC, IOAPIC, PIT */

	struct vcpu *vcpu; /* cfg->smp.cpus of them */
	unsigned nvcpus;
	enum machine_state state;

	pthread_mutex_t park_mutex; /* covers the next four */
	pthread_cond_t park_cond;
	unsigned parked;   /* vCPU threads that are out of the guest and wait */
	uint64_t go;       /* incremented by each start: parked threads leave when it changes */
	bool quit;         /* threads end */
	_Atomic bool stop; /* vCPUs are asked to park; also read without the mutex */
};

/*
 * Build the machine of cfg on a board. term: the terminal for stdio, or NULL. *out is set only on
 * success; cfg must outlive the machine.
 */
int machine_new(const struct machine_config *cfg, const struct board_ops *ops, struct term *term,
		struct machine **out, struct err *e) must_check;

/* Run until something ends it; the process's exit status. */
int machine_run(struct machine *m);

void machine_free(struct machine *m);

/* The translator's counters to standard error. The vCPUs are parked, see REQ_INFO. */
void machine_print_jit(struct machine *m);

/* All vCPUs parked when it returns; the loop is served meanwhile. Without the device lock. */
void machine_stop_vcpus(struct machine *m);
void machine_start_vcpus(struct machine *m);

/* All devices, vCPUs and interrupt controllers to power-on state; tables and kernel loaded again.
 */
int machine_reset(struct machine *m, enum reset_kind kind, struct err *e) must_check;

/*
 * For boards. Create the chardev of a -serial text (opts.h) ("mon:" adds the mux keys); NULL and e
 * on failure.
 */
struct chardev *machine_chardev(struct machine *m, const char *id, const char *text, struct err *e);

/* What -object made: made before all that uses it, found by id, freed after the devices. */
int machine_objects(struct machine *m, struct err *e) must_check;
void machine_objects_free(struct machine *m);
void *machine_object_find(struct machine *m, const char *type, const char *id);

/* The machine's clock stopped or started: tell its loops. */
void machine_clock_changed(struct machine *m);

/* What devices ask of the engine; opaque is the machine (events.c). */
extern const struct event_ops machine_events;

/* Netdevs and captures of the configuration, before the board is built. */
int machine_netdevs(struct machine *m, struct err *e) must_check;

/* The cards of -nic; and, when all devices are made, a warning about netdevs that nobody has. */
int machine_nics(struct machine *m, struct err *e) must_check;
void machine_net_check(const struct machine *m);

/* The virtio-serial with this id (or "ID.0", its bus), or NULL. */
struct vserial *machine_vserial_find(struct machine *m, const char *id);

/* The first virtio-serial with room for such a port; a new one if there is none. NULL with e. */
struct vserial *machine_vserial_for(struct machine *m, const struct dev_class *port, struct err *e);

/* disk.c: open the images of -drive and -blockdev, before the board is built. */
int machine_drives(struct machine *m, struct err *e) must_check;
/* The disks of -drive if=virtio; then a word about drives that no device has. */
int machine_disks(struct machine *m, struct err *e) must_check;
void machine_disk_check(const struct machine *m);

/* The board of a -machine name, or NULL with e filled; i: the list, NULL at the end. */
const struct board_ops *machine_board(const char *name, struct err *e);
const struct board_ops *machine_board_at(unsigned i);

extern const struct board_ops microvm_board, pc_board;
