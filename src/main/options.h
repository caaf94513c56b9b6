/*
 * The command line in QEMU's grammar.
 *
 * One table (options.def) drives parsing, -help and the tests. What QEMU has and this program does
 * not is listed in options_absent.def, so that the message can say so; anything else is answered
 * with the nearest option that exists.
 * Threads: before the machine exists.
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "machine/config.h"
#include "machine/machine.h"

struct keyval;

struct options {
	struct machine_config cfg;
	const struct board_ops *board; /* NULL while parsing: not given */
	bool wants_pci; /* something was asked for that pc has and microvm has not, or not so well
			 */
	bool done;      /* -help, -version, -device help...: printed, end with status 0 */
	FILE *out;      /* where these print; options_parse sets stdout when it is NULL */

	/* What the defaults depend on. */
	bool nographic, nodefaults, serial_given;
	unsigned nserials, naccels;
	unsigned nstdio;               /* -serial and -chardev that want the terminal */
	bool net_given;                /* -nic or -net: no default network */
	unsigned net_nic, net_backend; /* -net nic, -net BACKEND: how many */
	unsigned net_nic_at;           /* the card's place in cfg.nic */
	const char *net_backend_id;
	const char *name;    /* -name */
	const char *process; /* -name process=; NULL: the guest's name */
	const char *disk;    /* the first disk image given without an option */
	void *owned[256]; /* strings made here, for options_free */
	unsigned nowned;
};

/* argv[1..argc). On failure e holds one line that says what is wrong and what would be right. */
int options_parse(struct options *o, int argc, char *const *argv, struct err *e) must_check;
void options_free(struct options *o);

/* One row of the table, for -help and the tests. */
struct option_row {
	const char *name;    /* without the dash */
	const char *arg;     /* NULL: takes none */
	const char *example; /* an argument that parses, for the tests */
	const char *help;
	int (*fn)(struct options *o, const char *arg, struct err *e);
};

/* Row i, NULL at the end. A row without fn is a heading. */
const struct option_row *options_row(unsigned i);

/* The handlers, by topic. options_board.c: */
int options_m(struct options *o, const char *arg, struct err *e);
int options_smp(struct options *o, const char *arg, struct err *e);
int options_cpu(struct options *o, const char *arg, struct err *e);
int options_accel(struct options *o, const char *arg, struct err *e);
int options_machine(struct options *o, const char *arg, struct err *e);
/* options_drive.c, options_blockdev.c: */
int options_drive(struct options *o, const char *arg, struct err *e);
int options_drive_add(struct options *o, struct keyval *k, struct err *e);
const struct drive_config *options_drive_at(const struct options *o, unsigned index);
int options_blockdev(struct options *o, const char *arg, struct err *e);
int options_blockdev_add(struct options *o, struct keyval *k, bool nested, struct err *e);
int options_hda(struct options *o, const char *arg, struct err *e);
int options_hdb(struct options *o, const char *arg, struct err *e);
int options_hdc(struct options *o, const char *arg, struct err *e);
int options_hdd(struct options *o, const char *arg, struct err *e);
int options_cdrom(struct options *o, const char *arg, struct err *e);
/* A file name without an option, as the next free disk; its format is probed. */
int options_disk_file(struct options *o, const char *file, struct err *e);
int options_snapshot(struct options *o, const char *arg, struct err *e);
/* options_image.c: a word without a dash, a kernel or a disk; and is there something to boot? */
int options_image(struct options *o, const char *path, struct err *e);
int options_image_check(const struct options *o, struct err *e);
/* options_char.c: */
int options_serial(struct options *o, const char *arg, struct err *e);
int options_chardev(struct options *o, const char *arg, struct err *e);
void options_char_free(struct options *o);
/* options_io.c: */
int options_device(struct options *o, const char *arg, struct err *e);
int options_rtc(struct options *o, const char *arg, struct err *e);
/* options_net.c: */
int options_netdev(struct options *o, const char *arg, struct err *e);
int options_nic(struct options *o, const char *arg, struct err *e);
int options_net(struct options *o, const char *arg, struct err *e);
int options_net_defaults(struct options *o, struct err *e); /* all options are read */
int options_filter_dump(struct options *o, struct keyval *k, struct err *e);
/* options_object.c: */
int options_object(struct options *o, const char *arg, struct err *e);
/* options_log.c: */
int options_d(struct options *o, const char *arg, struct err *e);
int options_dfilter(struct options *o, const char *arg, struct err *e);
/* What they ask for exists in the engine that was chosen. */
int options_log_check(const struct options *o, struct err *e);

int options_only_none(const char *option, const char *arg, const char *what, struct err *e);

/* A copy that options_free frees; NULL with e filled. */
char *options_keep(struct options *o, const char *s, struct err *e);
