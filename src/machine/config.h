/*
 * What machine to build: filled from the command line, read by machine/. Strings belong to whoever
 * filled it and outlive the machine.
 * Threads: written once, before machine_new.
 */
#pragma once
#include <libkvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/block/backend.h"
#include "backend/char/opts.h"
#include "backend/net/opts.h"
#include "core/memory.h"

enum {
	CONFIG_SERIALS = 4,
	CONFIG_DEVICES = 64,
	CONFIG_OBJECTS = 64,
	CONFIG_CHARDEVS = 64,
	CONFIG_DRIVES = 32,
	CONFIG_BLOCKDEVS = 64,
	CONFIG_NETDEVS = 8,
	CONFIG_NICS = 8,
	CONFIG_CPU_FEATURES = 64,
	CONFIG_TRACES = 16,
	CONFIG_CPUS_MAX = 64,
};

struct smp_config {
	unsigned cpus, maxcpus, sockets, cores,
		threads; /* all set; sockets*cores*threads == maxcpus */
};

/* -chardev BACKEND,id=ID[,...] */
struct chardev_config {
	char *id;
	struct chardev_opts opts; /* owned by the options */
};

/* -drive and its short forms. Strings are kept by the options. */
struct drive_config {
	const char *id, *file;
	const char *format;     /* NULL: probed */
	bool virtio;            /* if=virtio: a disk of the board; false: for -device */
	bool snapshot;          /* writes go to a temporary file */
	bool has_index;         /* index was given */
	unsigned index;         /* order of the board's disks */
	struct block_opts opts; /* without the name */
	struct blk_conf conf;
};

/* A node of -blockdev; one that no other uses is a backend with its node-name as id. */
struct blockdev_config {
	const struct block_driver *driver;
	const char *node_name; /* NULL: nested in another */
	const char *filename;  /* of protocols */
	int file;              /* which one is its child; -1: none */
	bool used;             /* it is another one's child */
	struct block_opts opts;
};

/* -nic and -net nic: a card of the board's choice */
struct nic_config {
	const char *model;  /* NULL: the board's default */
	const char *netdev; /* id; NULL: no cable */
	const char *mac;    /* NULL: chosen */
	const char *id;     /* NULL: chosen */
};

/* -object filter-dump */
struct dump_config {
	const char *id, *netdev, *file;
	uint32_t maxlen;
};

/* -object, but for the kinds that have a list of their own */
enum object_config_kind {
	OBJECT_IOTHREAD,
	OBJECT_MAIN_LOOP,
	OBJECT_RNG_BUILTIN,
	OBJECT_RNG_RANDOM,
};
struct object_config {
	enum object_config_kind kind;
	char *id;
	char *file; /* rng-random; else NULL */
	bool poll;  /* loops: poll_max_ns was given */
	unsigned poll_max_ns;
};

struct machine_config {
	uint64_t ram; /* bytes, a multiple of 4096 */
	struct gmem_opts ram_opts;
	struct smp_config smp;
	enum libkvm_engine engine;
	bool no_jit, jit_check;
	unsigned jit_heat, jit_trace, jit_cache_mib; /* 0: the engine's defaults */
	bool halt_poll; /* halt_poll_ns was given */
	unsigned halt_poll_ns;
	bool jit_profile, jit_perf_map;
	bool jit_info;    /* print the translator's counters at the end */
	unsigned jit_log; /* LIBKVM_LOG_* */
	struct libkvm_range jit_log_range[LIBKVM_LOG_RANGES];
	unsigned jit_log_ranges;
	const char *cpu_features[CONFIG_CPU_FEATURES]; /* "+avx", "-avx" */
	unsigned ncpu_features;

	/* -machine microvm,... */
	bool acpi;       /* ACPI tables and power management; false: MP tables */
	bool hw_reduced; /* ACPI in its hardware-reduced form */
	bool pcie;       /* microvm: a PCI bus with ECAM */
	bool i8042, rtc, isa_serial;

	const char *kernel, *initrd;
	const char *append; /* never NULL */

	const char
		*serial[CONFIG_SERIALS]; /* "stdio", "mon:stdio", "chardev:ID", ...; NULL: none */
	struct chardev_config chardev[CONFIG_CHARDEVS];
	unsigned nchardevs;
	const char *device[CONFIG_DEVICES]; /* "NAME[,prop=value]..." */
	unsigned ndevices;
	struct object_config object[CONFIG_OBJECTS];
	unsigned nobjects;

	struct drive_config drive[CONFIG_DRIVES];
	unsigned ndrives;
	struct blockdev_config blockdev[CONFIG_BLOCKDEVS];
	unsigned nblockdevs;
	bool snapshot; /* for all of them */

	struct netdev_opts netdev[CONFIG_NETDEVS];
	unsigned nnetdevs;
	struct nic_config nic[CONFIG_NICS];
	unsigned nnics;
	struct dump_config dump[CONFIG_NETDEVS];
	unsigned ndumps;

	bool no_reboot, no_shutdown;
	const char *rtc_base; /* as the rtc device's property takes it; NULL: default */
	const char *trace[CONFIG_TRACES];
	unsigned ntraces;
	const char *trace_file; /* -D; NULL: standard error */
};
