/*
 * Requests about the machine as a whole: reset, power off, exit.
 *
 * Devices and vCPUs ask; the main loop acts. A request made by a vCPU returns at once, and the vCPU
 * loop looks at runstate_pending() before it enters the guest again, so that nothing after the
 * triggering instruction runs on that vCPU. Requests made before the loop acted are merged: the
 * strongest wins (exit, panic, shutdown, reset, power button, info, cont, pause), and the first of
 * equals.
 * The handler runs with the device lock held, so it must not wait for vCPU threads, which may be
 * waiting for that lock: it notes the request and leaves the loop (loop_quit), and the machine acts
 * outside of it. runstate_pending() stays true until the handler has returned.
 * Threads: machine_request and runstate_pending: any thread; the handler runs in the loop.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/loop.h"

enum req_kind {
	REQ_NONE,
	REQ_PAUSE,    /* stop the vCPUs until SIGCONT (an I/O error with rerror/werror=stop) */
	REQ_CONT,     /* go on after a pause: SIGCONT */
	REQ_INFO,     /* print what the translator has done, and go on (SIGUSR1) */
	REQ_BUTTON,   /* the power button is pressed; the guest decides (SIGUSR2) */
	REQ_RESET,    /* a system reset: devices, vCPUs, firmware again */
	REQ_SHUTDOWN, /* power off (ACPI S5, quit from the console) */
	REQ_PANIC,    /* the guest says it crashed, or triple-faulted with no-reboot */
	REQ_EXIT,     /* end the process with a given status (debug exit, -no-reboot, a signal) */
};

struct request {
	enum req_kind kind;
	int status;      /* REQ_EXIT: the exit status, 0..255 */
	const char *who; /* static text for the log: "acpi", "isa-debug-exit" */
};

/* clang-format off */
#define REQ_EXIT_STATUS(st, by) ((struct request){ .kind = REQ_EXIT, .status = (st), .who = (by) })
#define REQ_OF(k, by)           ((struct request){ .kind = (k), .who = (by) })
/* clang-format on */

struct runstate {
	void (*handler)(void *opaque, const struct request *r); /* in the loop */
	void *opaque;
	struct bh bh;
	pthread_mutex_t mutex; /* covers want */
	struct request want;
	_Atomic bool pending;
};

/* handler is called in the loop, once for each merged request. */
void runstate_init(struct runstate *rs, struct loop *l,
		   void (*handler)(void *opaque, const struct request *r), void *opaque);
void runstate_destroy(struct runstate *rs);

void machine_request(struct runstate *rs, struct request r);

/* The merge: *into becomes the stronger of the two. For handlers that leave a note, too. */
void request_merge(struct request *into, const struct request *r);

/* A request waits for the main loop: vCPUs stay out of the guest. */
bool runstate_pending(const struct runstate *rs);
