/* A machine's life; see machine.h. */
#include "machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "hw/isa/acpi_pm.h"
#include "machine/vcpu.h"

/* Where KVM may keep its helper pages on processors that need them: below the APICs, above RAM.
 * [KVM-API 4.34, 4.78] */
#define MACHINE_IDENTITY_MAP 0xfeffc000ull
#define MACHINE_TSS          0xfeffd000ull
#define MACHINE_HOLE         0xc0000000ull

static void machine_gsi(void *opaque, unsigned n, bool level)
{
	struct machine *m = opaque;

	(void)libkvm_irq_line(m->vm, n, level);
}

static int machine_slot_add(struct gmem_listener *l, const struct gmem_block *b, struct err *e)
{
	struct machine *m = container_of(l, struct machine, slots);
	int r = libkvm_mem_add(m->vm, b->gpa, b->len, b->host, b->rom ? KVM_MEM_READONLY : 0);

	return r < 0 ? err_set(e, -r, "the engine refuses %s at %#llx: %s", b->name,
			       (unsigned long long)b->gpa, strerror(-r))
		     : 0;
}

static void machine_slot_del(struct gmem_listener *l, const struct gmem_block *b)
{
	(void)libkvm_mem_remove(container_of(l, struct machine, slots)->vm, b->gpa, b->len);
}

static void machine_slot_written(struct gmem_listener *l, gpa_t gpa, uint64_t len)
{
	libkvm_mem_written(container_of(l, struct machine, slots)->vm, gpa, len);
}

/* The PC's wiring of the in-kernel controllers: as KVM's default, but IRQ 0 on IOAPIC input 2. */
static int machine_routing(struct machine *m, struct err *e)
{
	enum { ENTRIES = 16 + MACHINE_GSIS };
	struct kvm_irq_routing *t = calloc(1, sizeof(*t) + ENTRIES * sizeof(t->entries[0]));
	unsigned n = 0;
	int r;

	if (!t)
		return err_set(e, ENOMEM, "out of memory");

	for (unsigned i = 0; i < 16; i++) {
		if (i == 2) /* the cascade is no input */
			continue;
		t->entries[n++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				       i & 7 },
		};
	}
	for (unsigned i = 0; i < MACHINE_GSIS; i++) {
		if (i == 2)
			continue;
		t->entries[n++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { KVM_IRQCHIP_IOAPIC, i ? i : 2 },
		};
	}
	t->nr = n;
	r = libkvm_set_routing(m->vm, t);
	free(t);
	return r < 0 ? err_set(e, -r, "the engine refuses the interrupt routing: %s", strerror(-r))
		     : 0;
}

static int machine_engine(struct machine *m, struct err *e)
{
	struct libkvm_options o = { .engine = m->cfg->engine,
				    .no_jit = m->cfg->no_jit,
				    .jit_check = m->cfg->jit_check,
				    .jit_heat = m->cfg->jit_heat,
				    .jit_trace = m->cfg->jit_trace,
				    .jit_cache_mib = m->cfg->jit_cache_mib,
				    .jit_profile = m->cfg->jit_profile,
				    .jit_perf_map = m->cfg->jit_perf_map,
				    .jit_log = m->cfg->jit_log,
				    .jit_log_ranges = m->cfg->jit_log_ranges };
	uint64_t identity = MACHINE_IDENTITY_MAP;
	struct libkvm_err le = { 0 };
	int r;

	memcpy(o.jit_log_range, m->cfg->jit_log_range, sizeof(o.jit_log_range));
	r = libkvm_open(&o, &m->kvm, &le);
	if (r < 0)
		return err_set(e, -r, "%s", le.msg);
	if (libkvm_engine_kind(m->kvm) == LIBKVM_HOST &&
	    (o.jit_log || o.jit_profile || o.jit_perf_map || m->cfg->jit_info))
		log_warn("the host's KVM runs the guest: there is no translator to look at; "
			 "-accel soft has one");
	log_info("engine: %s",
		 libkvm_engine_reason(m->kvm) ? libkvm_engine_reason(m->kvm) : "as asked for");
	r = libkvm_vm_create(m->kvm, &m->vm, &le);
	if (r < 0)
		return err_set(e, -r, "%s", le.msg);
	if (m->cfg->halt_poll) {
		struct kvm_enable_cap cap = { .cap = KVM_CAP_HALT_POLL,
					      .args = { m->cfg->halt_poll_ns } };

		r = libkvm_vm_ioctl(m->vm, KVM_ENABLE_CAP, &cap);
		if (r < 0)
			return err_set(e, -r, "-accel halt-poll-ns: the engine refuses it: %s%s",
				       strerror(-r),
				       r == -EINVAL ? "; the host's KVM has it since Linux 5.10"
						    : "");
	}
	/* Both are for old Intel processors; an engine that needs neither may not know them. */
	r = libkvm_vm_ioctl(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (r < 0 && r != -ENOTTY && r != -EINVAL)
		return err_set(e, -r, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(-r));
	r = libkvm_vm_ioctl(m->vm, KVM_SET_TSS_ADDR, (void *)MACHINE_TSS);
	if (r < 0 && r != -ENOTTY && r != -EINVAL)
		return err_set(e, -r, "KVM_SET_TSS_ADDR: %s", strerror(-r));
	r = libkvm_irqchip_create(m->vm);
	if (r < 0)
		return err_set(e, -r, "the engine has no interrupt controllers: %s", strerror(-r));
	r = libkvm_pit_create(m->vm);
	if (r < 0)
		return err_set(e, -r, "the engine has no PIT: %s", strerror(-r));
	r = machine_routing(m, e);
	if (r < 0)
		return r;
	m->slots = (struct gmem_listener){ machine_slot_add, machine_slot_del, machine_slot_written,
					   NULL };
	return gmem_listen(m->mem, &m->slots, e);
}

static int machine_vcpus(struct machine *m, struct err *e)
{
	unsigned n = m->cfg->smp.cpus;
	int max = libkvm_check(m->kvm, KVM_CAP_MAX_VCPUS), r;
	struct kvm_cpuid2 *supported;

	if (max > 0 && n > (unsigned)max)
		return err_set(e, EINVAL, "-smp %u: this engine has at most %d vCPUs", n, max);
	r = libkvm_supported_cpuid(m->kvm, &supported);
	if (r < 0)
		return err_set(e, -r, "the engine reports no CPUID: %s", strerror(-r));
	m->vcpu = calloc(n, sizeof(*m->vcpu));
	if (!m->vcpu) {
		free(supported);
		return err_set(e, ENOMEM, "out of memory");
	}
	for (r = 0; r == 0 && m->nvcpus < n; m->nvcpus++) {
		r = vcpu_new(&m->vcpu[m->nvcpus], m, m->nvcpus, supported, e);
		m->board.apic_id[m->nvcpus] = m->vcpu[m->nvcpus].apic_id;
	}
	m->board.cpus = m->nvcpus;
	free(supported);
	return r < 0 ? r : irqchip_state_save(m->vm, &m->irqchip, e);
}

void machine_print_jit(struct machine *m)
{
	char *text;
	int r = libkvm_jit_info(m->vm, &text);

	if (r == 0) {
		fputs(text, stderr);
		free(text);
	} else if (r != -ENOTSUP) {
		log_err("the translator's counters cannot be had: %s", strerror(-r));
	}
}

/*
 * In the loop, with the device lock: only leave a note, machine_run acts. While that waits for
 * vCPUs to park there may be several: a guest's reset must not take the place of SIGTERM.
 */
static void machine_request_handler(void *opaque, const struct request *r)
{
	struct machine *m = opaque;

	request_merge(&m->note, r);
	m->ending |= r->kind == REQ_EXIT;
	loop_quit(m->loop, 0);
}

static void *machine_backend_find(void *opaque, const char *type, const char *id)
{
	struct machine *m = opaque;

	if (!strcmp(type, "netdev"))
		return netdevs_find(&m->netdevs, id);
	if (!strcmp(type, "chardev"))
		return chardev_port(chardevs_find(&m->chardevs, id));
	if (!strcmp(type, "virtio-serial"))
		return machine_vserial_find(m, id);
	if (!strcmp(type, "drive"))
		return blks_find(&m->blks, id);
	return machine_object_find(m, type, id);
}

static void machine_mux_quit(void *opaque)
{
	struct machine *m = opaque;

	machine_request(&m->run, REQ_EXIT_STATUS(0, "C-a x"));
}

static struct chardev *machine_chardev_make(struct machine *m, const char *id,
					    const struct chardev_opts *o, struct err *e)
{
	const struct chardev_mux_keys keys = { .quit = machine_mux_quit, .opaque = m };
	struct chardev *c = chardev_make(m->loop, id, o, m->term, &keys, e);

	if (c && c->notice) {
		printf("%s\n", c->notice);
		fflush(stdout);
	}
	return c;
}

struct chardev *machine_chardev(struct machine *m, const char *id, const char *text, struct err *e)
{
	struct chardev_opts o;
	struct chardev *c;

	if (chardev_opts_text(&o, text, e))
		return NULL;
	c = machine_chardev_make(m, id, &o, e);
	chardev_opts_free(&o);
	return c;
}

static int machine_chardevs(struct machine *m, struct err *e)
{
	for (unsigned i = 0; i < m->cfg->nchardevs; i++) {
		const struct chardev_config *cc = &m->cfg->chardev[i];
		struct chardev *c = machine_chardev_make(m, cc->id, &cc->opts, e);
		int r;

		if (!c)
			return err_prefix(e, "-chardev %s", chardev_kind_name(cc->opts.kind));
		r = chardevs_add(&m->chardevs, c, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void machine_waiting(struct chardev *c)
{
	char text[256];

	chardev_describe(c, text, sizeof(text));
	fprintf(stderr, "kvasir: chardev %s: waiting for connection on: %s\n", c->id, text);
}

/* Peers without whom the machine does not start. False: it ends instead. */
static bool machine_wait_chardevs(struct machine *m)
{
	struct err e = { 0 };

	if (!chardevs_wait(&m->chardevs, &m->ending, machine_waiting, &e))
		return true;
	log_err("%s", e.msg);
	return false;
}

static int machine_traces(struct machine *m, struct err *e)
{
	const char *path = m->cfg->trace_file;
	int fd;

	if (path) {
		/* Standard error itself, so that an abort's last words are in the file, too. */
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
		if (fd < 0)
			return err_set(e, errno, "-D %s: %s", path, strerror(errno));
		dup2(fd, STDERR_FILENO);
		close(fd);
	}
	for (unsigned i = 0; i < m->cfg->ntraces; i++)
		trace_switch(m->trace, m->cfg->trace[i], true);
	return 0;
}

static int machine_build(struct machine *m, struct err *e)
{
	int r;

	m->mem = gmem_new();
	m->trace = trace_sink_new();
	m->bus = m->trace ? bus_new(m->trace) : NULL;
	if (!m->mem || !m->bus)
		return err_set(e, ENOMEM, "out of memory");
	m->loop = loop_new(&m->clock, e);
	if (!m->loop)
		return -ENOMEM;
	loop_set_lock(m->loop, bus_lock_of(m->bus));
	runstate_init(&m->run, m->loop, machine_request_handler, m);
	for (unsigned i = 0; i < MACHINE_GSIS; i++)
		irq_line_init(&m->gsi[i], machine_gsi, m, i);
	m->devs = (struct machine_devs){ .bus = m->bus,
					 .loop = m->loop,
					 .run = &m->run,
					 .mem = m->mem,
					 .trace = m->trace,
					 .gsi = m->gsi,
					 .n_gsi = MACHINE_GSIS,
					 .n_vcpus = m->cfg->smp.cpus,
					 .events = &machine_events,
					 .events_opaque = m,
					 .backend_find = machine_backend_find,
					 .opaque = m };
	r = machine_traces(m, e);
	if (r == 0)
		r = gmem_add_pc_ram(m->mem, m->cfg->ram, MACHINE_HOLE, &m->cfg->ram_opts, e);
	if (r == 0)
		r = machine_engine(m, e);
	if (r == 0)
		r = machine_objects(m, e);
	if (r == 0)
		r = machine_chardevs(m, e);
	if (r == 0)
		r = machine_netdevs(m, e);
	if (r == 0)
		r = machine_drives(m, e);
	if (r == 0)
		r = m->ops->build(m, e);
	if (r == 0)
		r = machine_vcpus(m, e);
	if (r == 0)
		r = machine_reset(m, RESET_COLD, e);
	return r;
}

int machine_new(const struct machine_config *cfg, const struct board_ops *ops, struct term *term,
		struct machine **out, struct err *e)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_set(e, ENOMEM, "out of memory");
	m->cfg = cfg;
	m->ops = ops;
	m->term = term;
	clock_init_host(&m->clock);
	pthread_mutex_init(&m->park_mutex, NULL);
	pthread_cond_init(&m->park_cond, NULL);
	r = machine_build(m, e);
	if (r < 0) {
		machine_free(m);
		return r;
	}
	*out = m;
	return 0;
}

static bool machine_parked(struct machine *m)
{
	bool all;

	pthread_mutex_lock(&m->park_mutex);
	all = m->parked >= m->nvcpus;
	pthread_mutex_unlock(&m->park_mutex);
	return all;
}

void machine_stop_vcpus(struct machine *m)
{
	m->stop = true;
	for (unsigned i = 0; i < m->nvcpus; i++)
		if (m->vcpu[i].started)
			libkvm_vcpu_kick(m->vcpu[i].kvm);
	/* Served meanwhile: a vCPU may wait for the I/O of a device that it resets. */
	while (!machine_parked(m))
		loop_step(m->loop, true);
	m->stop = false;
}

void machine_start_vcpus(struct machine *m)
{
	pthread_mutex_lock(&m->park_mutex);
	/* A thread just created counts only once it waits: else it would miss this start. */
	while (m->parked < m->nvcpus)
		pthread_cond_wait(&m->park_cond, &m->park_mutex);
	/* Counted down here and not by the threads: one that parks again at once must count. */
	m->parked = 0;
	m->go++;
	pthread_cond_broadcast(&m->park_cond);
	pthread_mutex_unlock(&m->park_mutex);
}

int machine_reset(struct machine *m, enum reset_kind kind, struct err *e)
{
	struct boot_state bs = { 0 };
	int r = 0;

	bus_lock(m->bus);
	for (unsigned i = 0; i < m->nvcpus && r == 0; i++)
		r = vcpu_power_up(&m->vcpu[i], e);
	if (r == 0)
		r = irqchip_state_load(m->vm, m->irqchip, e);
	if (r == 0) {
		machine_devs_reset(&m->devs, kind);
		for (unsigned i = 0; i < MACHINE_GSIS; i++)
			irq_line_sync(&m->gsi[i]);
		r = m->ops->boot(m, &bs, e);
	}
	if (r == 0)
		r = vcpu_boot(&m->vcpu[0], &bs, e);
	bus_unlock(m->bus);
	return r;
}

static void machine_pause(struct machine *m)
{
	machine_stop_vcpus(m);
	bus_lock(m->bus);
	machine_devs_pause(&m->devs);
	clock_stop(&m->clock);
	machine_clock_changed(m);
	m->state = MACHINE_PAUSED;
	bus_unlock(m->bus);
}

static void machine_resume(struct machine *m)
{
	bus_lock(m->bus);
	clock_start(&m->clock);
	machine_clock_changed(m);
	machine_devs_resume(&m->devs);
	blks_resume(&m->blks);
	m->state = MACHINE_RUNNING;
	bus_unlock(m->bus);
	machine_start_vcpus(m);
}

static void machine_power_button(struct machine *m)
{
	if (!m->pm || m->cfg->hw_reduced) {
		log_warn("this machine has no power button: it needs ACPI's full hardware");
		return;
	}
	bus_lock(m->bus);
	acpi_pm_power_button(m->pm);
	bus_unlock(m->bus);
}

/* Act on the note. True: go on. */
static bool machine_act(struct machine *m, const struct request *r, int *status)
{
	static const char *const what[] = { "nothing",   "pause",        "continue",
					    "info",      "power button", "reset",
					    "power-off", "panic",        "exit" };
	struct err e = { 0 };

	log_info("%s: %s", what[r->kind], r->who ? r->who : "unknown");
	switch (r->kind) {
	case REQ_RESET:
		if (m->cfg->no_reboot) {
			*status = 0;
			return false;
		}
		if (machine_reset(m, RESET_WARM, &e) < 0) {
			log_err("%s", e.msg);
			*status = 1;
			return false;
		}
		return true;
	case REQ_SHUTDOWN:
	case REQ_PANIC:
		*status = r->kind == REQ_PANIC;
		if (!m->cfg->no_shutdown)
			return false;
		m->state = MACHINE_SHUTDOWN;
		return true;
	case REQ_EXIT: *status = r->status; return false;
	case REQ_PAUSE: m->held = true; return true;
	case REQ_CONT: m->held = false; return true;
	case REQ_INFO: machine_print_jit(m); return true;
	case REQ_BUTTON: machine_power_button(m); return true;
	case REQ_NONE: break;
	}
	return true;
}

int machine_run(struct machine *m)
{
	struct request note = { 0 };
	int status = 0;

	if (!machine_wait_chardevs(m))
		return 1;
	for (;;) {

		/* kept ones: the pause they asked for was merged into another request */
		if (note.kind != REQ_CONT && blks_any_kept(&m->blks))
			m->held = true;
		if (m->state == MACHINE_PAUSED && !m->ending && !m->held)
			machine_resume(m);

		loop_run(m->loop);
		bus_lock(m->bus);
		note = m->note;
		m->note = (struct request){ 0 };
		bus_unlock(m->bus);
		if (m->state == MACHINE_RUNNING)
			machine_pause(m);
		/* After a power-off with -no-shutdown only an exit counts. */
		if (m->state == MACHINE_SHUTDOWN && note.kind != REQ_EXIT)
			continue;
		if (!machine_act(m, &note, &status))
			break;
	}
	if (m->cfg->jit_info)
		machine_print_jit(m);
	return status;
}

void machine_free(struct machine *m)
{
	pthread_mutex_lock(&m->park_mutex);
	m->quit = true;
	pthread_cond_broadcast(&m->park_cond);
	pthread_mutex_unlock(&m->park_mutex);
	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_free(&m->vcpu[i]);
	free(m->vcpu);
	if (m->bus)
		bus_lock(m->bus);
	if (m->devs.bus)
		machine_devs_free(&m->devs);
	netdevs_free(&m->netdevs);
	chardevs_free(&m->chardevs);
	if (m->bus)
		bus_unlock(m->bus);
	blks_free(&m->blks);
	block_ctx_free(m->block);
	machine_objects_free(m);
	if (m->slots.add)
		gmem_unlisten(m->mem, &m->slots);
	if (m->vm)
		libkvm_vm_close(m->vm);
	if (m->kvm)
		libkvm_close(m->kvm);
	irqchip_state_free(m->irqchip);
	if (m->loop) {
		runstate_destroy(&m->run);
		loop_free(m->loop);
	}
	if (m->bus)
		bus_free(m->bus);
	if (m->mem)
		gmem_free(m->mem);
	if (m->trace)
		trace_sink_free(m->trace);
	pthread_cond_destroy(&m->park_cond);
	pthread_mutex_destroy(&m->park_mutex);
	free(m);
}
