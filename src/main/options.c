/*
 * The option table, its simple handlers and the parser; see options.h.
 * References: [QEMU-MAN] for the grammar: what an option takes and what its defaults are.
 */
#include "main/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/nearest.h"
#include "main/keyval.h"

static int opt_kernel(struct options *o, const char *arg, struct err *e)
{
	o->cfg.kernel = arg;
	return 0;
}

static int opt_initrd(struct options *o, const char *arg, struct err *e)
{
	o->cfg.initrd = arg;
	return 0;
}

static int opt_append(struct options *o, const char *arg, struct err *e)
{
	o->cfg.append = arg;
	return 0;
}

static int opt_enable_kvm(struct options *o, const char *arg, struct err *e)
{
	return options_accel(o, "kvm", e);
}

static int opt_mem_path(struct options *o, const char *arg, struct err *e)
{
	o->cfg.ram_opts.path = arg;
	return 0;
}

static int opt_mem_prealloc(struct options *o, const char *arg, struct err *e)
{
	o->cfg.ram_opts.prealloc = true;
	return 0;
}

static int opt_no_acpi(struct options *o, const char *arg, struct err *e)
{
	o->cfg.acpi = false;
	return 0;
}

static int opt_nothing(struct options *o, const char *arg, struct err *e)
{
	return 0;
}

static int opt_boot(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "order", "strict", "menu", NULL };
	struct keyval k;
	int r = keyval_parse(&k, "-boot", arg, "order", e);

	if (r < 0)
		return r;
	(void)keyval_get(&k, "order");
	(void)keyval_get(&k, "strict");
	r = keyval_only(&k, "menu", false, "there is no firmware yet", e);
	if (r == 0)
		r = keyval_done(&k, known, e);
	keyval_free(&k);
	return r;
}

static int opt_name(struct options *o, const char *arg, struct err *e)
{
	static const char *const known[] = { "guest", "process", "debug-threads", NULL };
	struct keyval k;
	bool debug_threads;
	int r = keyval_parse(&k, "-name", arg, "guest", e);

	if (r < 0)
		return r;
	if (keyval_get(&k, "guest"))
		o->name = options_keep(o, keyval_get(&k, "guest"), e);
	if (keyval_get(&k, "process"))
		o->process = options_keep(o, keyval_get(&k, "process"), e);
	r = keyval_bool(&k, "debug-threads", &debug_threads, e); /* threads always have names */
	if (r == 0)
		r = keyval_done(&k, known, e);
	keyval_free(&k);
	return r;
}

static int opt_uuid(struct options *o, const char *arg, struct err *e)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t n = strlen(arg);
	bool ok = n == sizeof(form) - 1;

	for (size_t i = 0; ok && i < n; i++)
		ok = form[i] == '-' ? arg[i] == '-' : isxdigit((unsigned char)arg[i]) != 0;
	return ok ? 0 : err_set(e, EINVAL, "-uuid %s: a UUID looks like %s", arg, form);
}

static int opt_nographic(struct options *o, const char *arg, struct err *e)
{
	o->nographic = true;
	return 0;
}

static int opt_nodefaults(struct options *o, const char *arg, struct err *e)
{
	o->nodefaults = true;
	return 0;
}

static int opt_display(struct options *o, const char *arg, struct err *e)
{
	return options_only_none("-display", arg, "display", e);
}

static int opt_vga(struct options *o, const char *arg, struct err *e)
{
	return options_only_none("-vga", arg, "VGA", e);
}

static int opt_monitor(struct options *o, const char *arg, struct err *e)
{
	return options_only_none("-monitor", arg, "monitor", e);
}

static int opt_parallel(struct options *o, const char *arg, struct err *e)
{
	return options_only_none("-parallel", arg, "parallel port", e);
}

static int opt_no_reboot(struct options *o, const char *arg, struct err *e)
{
	o->cfg.no_reboot = true;
	return 0;
}

static int opt_no_shutdown(struct options *o, const char *arg, struct err *e)
{
	o->cfg.no_shutdown = true;
	return 0;
}

static int opt_trace_file(struct options *o, const char *arg, struct err *e)
{
	o->cfg.trace_file = arg;
	return 0;
}

static int opt_perfmap(struct options *o, const char *arg, struct err *e)
{
	o->cfg.jit_perf_map = true;
	return 0;
}

static int opt_version(struct options *o, const char *arg, struct err *e)
{
	fprintf(o->out, "kvasir " KVASIR_VERSION "\n");
	o->done = true;
	return 0;
}

/* "  -name ARG" and the help, its lines in one column. */
static void options_print_row(const struct option_row *r, FILE *out)
{
	int n = fprintf(out, "  -%s%s%s", r->name, r->arg ? " " : "", r->arg ? r->arg : "");

	for (const char *s = r->help; *s;) {
		size_t len = strcspn(s, "\n");

		if (n > 30) {
			fprintf(out, "\n");
			n = 0;
		}
		fprintf(out, "%*s%.*s\n", 32 - n, "", (int)len, s);
		s += len + (s[len] == '\n');
		n = 0;
	}
}

static int opt_help(struct options *o, const char *arg, struct err *e)
{
	fprintf(o->out,
		"usage: kvasir [OPTIONS] [KERNEL] [DISK...]\n\n"
		"Boots KERNEL (as -kernel KERNEL) in a virtual machine, with disk images (qcow2,\n"
		"raw) as virtio disks. Which a file is, its content tells.\n");
	for (unsigned i = 0; options_row(i); i++) {
		const struct option_row *r = options_row(i);

		if (r->fn)
			options_print_row(r, o->out);
		else
			fprintf(o->out, "\n%s:\n", r->name);
	}
	fprintf(o->out,
		"\nOn the serial console: C-a h lists keys, C-a x ends the machine.\n"
		"Exit status: 0 power-off or C-a x, 1 an error, or what isa-debug-exit says.\n");
	o->done = true;
	return 0;
}

static const struct option_row option_rows[] = {
#define OPT_HEAD(text)                    { text, NULL, NULL, NULL, NULL },
#define OPT(name, arg, example, fn, help) { name, arg, example, help, fn },
#include "main/options.def"
#undef OPT
#undef OPT_HEAD
};

static const struct {
	const char *name, *why;
} options_absent[] = {
#define ABSENT(name, why) { name, why },
#include "main/options_absent.def"
#undef ABSENT
};

const struct option_row *options_row(unsigned i)
{
	return i < ARRAY_SIZE(option_rows) ? &option_rows[i] : NULL;
}

char *options_keep(struct options *o, const char *s, struct err *e)
{
	char *copy = o->nowned < ARRAY_SIZE(o->owned) ? strdup(s) : NULL;

	if (!copy) {
		err_set(e, ENOMEM, "too many options");
		return NULL;
	}
	o->owned[o->nowned++] = copy;
	return copy;
}

static const struct option_row *options_find(const char *text, struct err *e)
{
	const char *names[ARRAY_SIZE(option_rows)] = { 0 };
	const char *name = text + 1 + (text[1] == '-');
	char hint[96];

	for (unsigned i = 0; i < ARRAY_SIZE(option_rows); i++) {
		if (!option_rows[i].fn)
			continue;
		names[i] = option_rows[i].name;
		if (!strcmp(name, names[i]))
			return &option_rows[i];
	}
	for (unsigned i = 0; i < ARRAY_SIZE(options_absent); i++) {
		if (!strcmp(name, options_absent[i].name)) {
			err_set(e, ENOTSUP, "-%s is not supported: %s", name,
				options_absent[i].why);
			return NULL;
		}
	}
	err_set(e, EINVAL, "unknown option '%s'%s; -help lists all", text,
		text_nearest_hint(hint, sizeof(hint), name, names, ARRAY_SIZE(names)));
	return NULL;
}

static int options_defaults(struct options *o, struct err *e)
{
	/* A bare kernel gets the small board; disks, networks and PCI devices bring theirs. */
	if (!o->board)
		o->board = machine_board(o->wants_pci ? "pc" : "microvm", e);
	/* The terminal is the serial port's unless another option has taken it. */
	if (!o->serial_given && !o->nodefaults)
		o->cfg.serial[0] = o->nstdio ? "null" : "mon:stdio";
	if (o->nstdio > 1)
		return err_set(e, EINVAL, "stdio is given to more than one -serial or -chardev");
	if (o->cfg.initrd && !o->cfg.kernel)
		return err_set(e, EINVAL, "-initrd needs -kernel");
	if (*o->cfg.append && !o->cfg.kernel)
		return err_set(e, EINVAL, "-append needs -kernel");
	if (options_image_check(o, e) < 0)
		return -EINVAL;
	if (options_net_defaults(o, e) < 0)
		return -EINVAL;
	return options_log_check(o, e);
}

int options_parse(struct options *o, int argc, char *const *argv, struct err *e)
{
	FILE *out = o->out ? o->out : stdout;
	int r = 0;

	*o = (struct options){ .out = out };
	o->cfg.append = "";
	o->cfg.ram = 512ull << 20;
	o->cfg.smp = (struct smp_config){ 1, 1, 1, 1, 1 };
	o->cfg.acpi = o->cfg.i8042 = o->cfg.rtc = o->cfg.isa_serial = true;
	for (int i = 1; i < argc && r == 0 && !o->done; i++) {
		const struct option_row *row;

		if (argv[i][0] != '-' || !argv[i][1]) {
			r = options_image(o, argv[i], e);
			continue;
		}
		row = options_find(argv[i], e);
		if (!row)
			return -EINVAL;
		if (row->arg && i + 1 == argc)
			return err_set(e, EINVAL, "-%s needs an argument: -%s %s", row->name,
				       row->name, row->arg);
		r = row->fn(o, row->arg ? argv[++i] : NULL, e);
	}
	return r < 0 || o->done ? r : options_defaults(o, e);
}

void options_free(struct options *o)
{
	options_char_free(o);
	for (unsigned i = 0; i < o->cfg.nnetdevs; i++)
		netdev_opts_free(&o->cfg.netdev[i]);
	for (unsigned i = 0; i < o->nowned; i++)
		free(o->owned[i]);
	*o = (struct options){ 0 };
}
