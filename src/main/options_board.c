/*
 * Options about processors, memory and the machine; see options.h.
 * References: [QEMU-MAN]; the rules of -smp are those of QEMU 6.2 and later (cores before sockets).
 */
#include <errno.h>
#include <string.h>

#include "core/nearest.h"
#include "machine/cpuid.h"
#include "main/keyval.h"
#include "main/options.h"

#define RAM_MIN (4ull << 20)
#define RAM_MAX (1ull << 40)

int options_m(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "size", NULL };
	struct keyval k;
	const char *size;
	uint64_t v = 0;
	int r = keyval_parse(&k, "-m", arg, "size", e);

	if (r < 0)
		return r;
	size = keyval_get(&k, "size");
	if (keyval_get(&k, "maxmem") || keyval_get(&k, "slots"))
		r = err_set(e, ENOTSUP,
			    "-m: memory cannot be added later: maxmem and slots are "
			    "not supported");
	else if (!size || !*size)
		r = err_set(e, EINVAL, "-m %s: a size is needed, as in -m 512M", arg);
	else
		r = keyval_size("-m", size, 1 << 20, &v, e);
	if (r == 0 && (v < RAM_MIN || v > RAM_MAX))
		r = err_set(e, ERANGE, "-m %s: the machine takes 4M to 1T (a plain number is MiB)",
			    size);
	if (r == 0)
		r = keyval_done(&k, known, e);
	if (r == 0)
		o->cfg.ram = (v + PAGE_SIZE - 1) & PAGE_MASK;
	keyval_free(&k);
	return r;
}

/* Fill what -smp left open (0) as QEMU does and check the product. */
static int options_topology(struct smp_config *s, struct err *e)
{
	if (!s->cpus && !s->maxcpus) {
		s->sockets += !s->sockets;
		s->cores += !s->cores;
		s->threads += !s->threads;
	} else {
		unsigned max = s->maxcpus ? s->maxcpus : s->cpus;

		if (!s->cores) {
			s->sockets += !s->sockets;
			s->threads += !s->threads;
			s->cores = max / (s->sockets * s->threads);
		} else if (!s->sockets) {
			s->threads += !s->threads;
			s->sockets = max / (s->cores * s->threads);
		}
		if (!s->threads)
			s->threads = max / (s->sockets * s->cores);
		s->maxcpus = max;
	}
	if (!s->maxcpus)
		s->maxcpus = s->sockets * s->cores * s->threads;
	if (!s->cpus)
		s->cpus = s->maxcpus;
	if (s->sockets * s->cores * s->threads != s->maxcpus)
		return err_set(e, EINVAL,
			       "-smp: sockets (%u) * cores (%u) * threads (%u) is %u, not maxcpus "
			       "(%u)",
			       s->sockets, s->cores, s->threads, s->sockets * s->cores * s->threads,
			       s->maxcpus);
	if (s->maxcpus < s->cpus)
		return err_set(e, EINVAL, "-smp: maxcpus (%u) is less than cpus (%u)", s->maxcpus,
			       s->cpus);
	return 0;
}

int options_smp(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "cpus",    "maxcpus", "sockets",  "cores",
					     "threads", "dies",    "clusters", NULL };
	struct smp_config s = { 0 };
	unsigned one = 1;
	struct keyval k;
	int r = keyval_parse(&k, "-smp", arg, "cpus", e);

	if (r < 0)
		return r;
	r = keyval_uint(&k, "cpus", 1, CONFIG_CPUS_MAX, &s.cpus, e);
	if (r == 0)
		r = keyval_uint(&k, "maxcpus", 1, CONFIG_CPUS_MAX, &s.maxcpus, e);
	if (r == 0)
		r = keyval_uint(&k, "sockets", 1, CONFIG_CPUS_MAX, &s.sockets, e);
	if (r == 0)
		r = keyval_uint(&k, "cores", 1, CONFIG_CPUS_MAX, &s.cores, e);
	if (r == 0)
		r = keyval_uint(&k, "threads", 1, CONFIG_CPUS_MAX, &s.threads, e);
	if (r == 0)
		r = keyval_uint(&k, "dies", 1, 1, &one, e);
	if (r == 0)
		r = keyval_uint(&k, "clusters", 1, 1, &one, e);
	if (r == 0)
		r = keyval_done(&k, known, e);
	if (r == 0)
		r = options_topology(&s, e);
	if (r == 0)
		o->cfg.smp = s;
	keyval_free(&k);
	return r;
}

/* "avx=off", "+avx", "-avx" or "avx" to "+avx" or "-avx". */
static int options_cpu_feature(struct options *o, const char *key, const char *val, struct err *e)
{
	bool on = true;
	char text[64], *kept;
	int r = 0;

	if (*key == '+' || *key == '-') {
		on = *key == '+';
		key++;
	} else {
		r = keyval_onoff("-cpu", key, val, &on, e);
	}
	if (r < 0)
		return r;
	r = cpuid_check_feature(key, e);
	if (r < 0)
		return r;
	if (o->cfg.ncpu_features == CONFIG_CPU_FEATURES)
		return err_set(e, E2BIG, "-cpu: more than %d features", CONFIG_CPU_FEATURES);
	snprintf(text, sizeof(text), "%c%s", on ? '+' : '-', key);
	kept = options_keep(o, text, e);
	if (!kept)
		return -ENOMEM;
	o->cfg.cpu_features[o->cfg.ncpu_features++] = kept;
	return 0;
}

int options_cpu(struct options *o, const char *arg, struct err *e)
{
	static const char *const models[] = { "max", "host" };
	const char *model;
	char hint[96];
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		cpuid_help(o->out);
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-cpu", arg, "model", e);
	if (r < 0)
		return r;
	model = keyval_get(&k, "model");
	if (!model || (strcmp(model, "max") && strcmp(model, "host")))
		r = err_set(e, EINVAL, "-cpu: unknown model '%s'%s; max and host exist",
			    model ? model : "",
			    text_nearest_hint(hint, sizeof(hint), model ? model : "", models,
					      ARRAY_SIZE(models)));
	o->cfg.ncpu_features = 0;
	for (unsigned i = 1; i < k.n && r == 0; i++)
		r = options_cpu_feature(o, k.kv[i].key, k.kv[i].val, e);
	keyval_free(&k);
	return r;
}

/* One engine of a list; a second, different one means "whichever works". */
static int options_engine(struct options *o, const char *option, const char *name, struct err *e)
{
	static const char *const names[] = { "kvm", "soft", "tcg" };
	enum libkvm_engine want;
	char hint[96];

	if (!strcmp(name, "kvm"))
		want = LIBKVM_HOST;
	else if (!strcmp(name, "soft") || !strcmp(name, "tcg"))
		want = LIBKVM_SOFT;
	else
		return err_set(
			e, EINVAL, "%s: unknown engine '%s'%s; kvm and soft exist", option, name,
			text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	if (!o->naccels++)
		o->cfg.engine = want;
	else if (o->cfg.engine == LIBKVM_HOST && want == LIBKVM_SOFT)
		o->cfg.engine = LIBKVM_AUTO;
	return 0;
}

int options_accel(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "accel",     "jit",         "check",    "jit-heat",
					     "jit-trace", "jit-profile", "perf-map", "tb-size",
					     "thread",    "halt-poll-ns", NULL };
	static const char *const soft[] = { "jit",         "check",    "jit-heat", "jit-trace",
					    "jit-profile", "perf-map", "tb-size" };
	const char *name;
	unsigned trace = 0;
	bool jit;
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		fprintf(o->out,
			"kvm   the host's /dev/kvm\n"
			"soft  the software KVM, in user space (alias: tcg)\n\n"
			"Properties of both:\n"
			"  halt-poll-ns=NS     a halted vCPU polls this long before it sleeps, when "
			"that\n"
			"                      pays (default 200000); 0: never\n\n"
			"Properties of soft:\n"
			"  jit=on|off          translate hot code (default on), or only interpret\n"
			"  tb-size=MIB         translated code a vCPU keeps, 2 to 1024 (default "
			"128)\n"
			"  jit-heat=N          runs of a block before it is translated\n"
			"  jit-trace=N         arrivals before a trace is made there; 0: never\n"
			"  check=on|off        compare each translated block with the interpreter\n"
			"  jit-profile=on|off  count executions of translated blocks, for -d jit\n"
			"  perf-map=on|off     name translated code in /tmp/perf-PID.map (as "
			"-perfmap)\n"
			"  thread=multi        accepted: each vCPU has its thread\n");
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-accel", arg, "accel", e);
	if (r < 0)
		return r;
	jit = !o->cfg.no_jit;
	name = keyval_get(&k, "accel");
	r = options_engine(o, "-accel", name ? name : "", e);
	if (r == 0)
		r = keyval_bool(&k, "jit", &jit, e);
	if (r == 0)
		r = keyval_bool(&k, "check", &o->cfg.jit_check, e);
	if (r == 0)
		r = keyval_bool(&k, "jit-profile", &o->cfg.jit_profile, e);
	if (r == 0)
		r = keyval_bool(&k, "perf-map", &o->cfg.jit_perf_map, e);
	if (r == 0)
		r = keyval_uint(&k, "jit-heat", 1, 100000, &o->cfg.jit_heat, e);
	if (r == 0)
		r = keyval_uint(&k, "jit-trace", 0, 1000000, &trace, e);
	if (r == 0 && keyval_get(&k, "jit-trace"))
		o->cfg.jit_trace = trace ? trace : ~0u;
	if (r == 0)
		r = keyval_uint(&k, "halt-poll-ns", 0, 1000000000, &o->cfg.halt_poll_ns, e);
	o->cfg.halt_poll |= keyval_get(&k, "halt-poll-ns") != NULL;
	if (r == 0)
		r = keyval_uint(&k, "tb-size", 2, 1024, &o->cfg.jit_cache_mib, e);
	for (unsigned n = 0; r == 0 && n < sizeof(soft) / sizeof(soft[0]); n++)
		if (keyval_get(&k, soft[n]) && name && !strcmp(name, "kvm"))
			r = err_set(e, EINVAL, "-accel kvm has no property '%s'; -accel soft has",
				    soft[n]);
	if (r == 0 && keyval_get(&k, "thread") && strcmp(keyval_get(&k, "thread"), "multi"))
		r = err_set(e, ENOTSUP, "-accel: each vCPU has its thread: only thread=multi");
	if (r == 0)
		r = keyval_done(&k, known, e);
	o->cfg.no_jit = !jit;
	keyval_free(&k);
	return r;
}

static int options_machine_accel(struct options *o, const char *list, struct err *e)
{
	char name[16];
	int r = 0;

	o->naccels = 0;
	while (r == 0 && list) {
		size_t n = strcspn(list, ":");

		snprintf(name, sizeof(name), "%.*s", (int)n, list);
		r = options_engine(o, "-machine accel", name, e);
		list = list[n] ? list + n + 1 : NULL;
	}
	return r;
}

static int options_machine_props(struct options *o, struct keyval *k, struct err *e)
{
	bool dump = true, ignored;
	int r = keyval_bool(k, "acpi", &o->cfg.acpi, e);

	if (r == 0)
		r = keyval_bool(k, "hw-reduced", &o->cfg.hw_reduced, e);
	if (r == 0)
		r = keyval_bool(k, "pcie", &o->cfg.pcie, e);
	if (r == 0)
		r = keyval_bool(k, "i8042", &o->cfg.i8042, e);
	if (r == 0)
		r = keyval_bool(k, "rtc", &o->cfg.rtc, e);
	if (r == 0)
		r = keyval_bool(k, "isa-serial", &o->cfg.isa_serial, e);
	if (r == 0)
		r = keyval_bool(k, "dump-guest-core", &dump, e);
	if (r == 0)
		r = keyval_bool(k, "mem-merge", &ignored, e); /* advice to the host only */
	if (r == 0)
		r = keyval_bool(k, "graphics", &ignored, e);
	if (r == 0)
		r = keyval_only(k, "pic", true, "the engine always has one", e);
	if (r == 0)
		r = keyval_only(k, "pit", true, "the engine always has one", e);
	if (r == 0)
		r = keyval_only(k, "kernel-irqchip", true, "the engine always has one", e);
	if (r == 0)
		r = keyval_only(k, "usb", false, "there is no USB yet", e);
	if (r == 0 && keyval_get(k, "accel"))
		r = options_machine_accel(o, keyval_get(k, "accel"), e);
	o->cfg.ram_opts.no_dump = !dump;
	return r;
}

int options_machine(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = {
		"type",       "acpi",  "hw-reduced",      "i8042",     "rtc",
		"isa-serial", "accel", "dump-guest-core", "mem-merge", "graphics",
		"pic",        "pit",   "kernel-irqchip",  "usb",       "pcie",
		NULL
	};
	const char *type;
	struct keyval k;
	int r;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		for (unsigned i = 0; machine_board_at(i); i++)
			fprintf(o->out, "%-12s %s%s\n", machine_board_at(i)->name,
				machine_board_at(i)->desc,
				i ? "; default with disks, networks or PCI devices"
				  : "; default otherwise");
		o->done = true;
		return 0;
	}
	r = keyval_parse(&k, "-machine", arg, "type", e);
	if (r < 0)
		return r;
	type = keyval_get(&k, "type");
	if (type) {
		o->board = machine_board(type, e);
		r = o->board ? 0 : -EINVAL;
	}
	if (r == 0)
		r = options_machine_props(o, &k, e);
	if (r == 0)
		r = keyval_done(&k, known, e);
	keyval_free(&k);
	return r;
}
