/*
 * Cases about requests: results, errors, states at power-on.
 *
 * References: [KVM-API 4]. Threads: main's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "apidiff.h"

#define VM(label, req, arg) ad_ret(w, label, libkvm_vm_ioctl(w->vm, req, (void *)(uintptr_t)(arg)))
#define VCPU(label, req, arg) \
	ad_ret(w, label, libkvm_vcpu_ioctl(w->cpu, req, (void *)(uintptr_t)(arg)))
#define SYS(label, req, arg) ad_ret(w, label, libkvm_ioctl(w->k, req, (void *)(uintptr_t)(arg)))

static void ad_system(struct ad_world *w)
{
	uint64_t room[64] = { 0 };
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)room;
	struct kvm_msr_list *l = (struct kvm_msr_list *)room;
	struct kvm_msrs *m = (struct kvm_msrs *)room;

	SYS("version", KVM_GET_API_VERSION, 0);
	SYS("version with an argument", KVM_GET_API_VERSION, 1);
	SYS("unknown", _IO(KVMIO, 0xfe), 0);
	SYS("of a vcpu", KVM_GET_REGS, room);
	SYS("of a vm", KVM_CREATE_IRQCHIP, 0);
	SYS("mmap size with an argument", KVM_GET_VCPU_MMAP_SIZE, 1);
	SYS("cpuid none", KVM_GET_SUPPORTED_CPUID, c);
	c->nent = 2;
	SYS("cpuid two", KVM_GET_SUPPORTED_CPUID, c);
	SYS("cpuid null", KVM_GET_SUPPORTED_CPUID, 0);
	memset(room, 0, sizeof(room));
	SYS("emulated cpuid none", KVM_GET_EMULATED_CPUID, c);
	SYS("msr list none", KVM_GET_MSR_INDEX_LIST, l);
	ad_say(w, "msr list has a length", "%d", l->nmsrs > 10);
	SYS("msr list null", KVM_GET_MSR_INDEX_LIST, 0);
	l->nmsrs = 0;
	SYS("feature msr list none", KVM_GET_MSR_FEATURE_INDEX_LIST, l);
	m->nmsrs = 1;
	m->entries[0].index = 0x12345;
	SYS("feature msr unknown", KVM_GET_MSRS, m);
	m->nmsrs = 1u << 20;
	SYS("feature msrs too many", KVM_GET_MSRS, m);
}

static void ad_extensions(struct ad_world *w)
{
	for (int i = 0; i < 260; i++) {
		char label[32];

		snprintf(label, sizeof(label), "capability %d", i);
		ad_ret(w, label, libkvm_check(w->k, i));
		snprintf(label, sizeof(label), "vm capability %d", i);
		VM(label, KVM_CHECK_EXTENSION, i);
	}
}

static void ad_slot(struct ad_world *w, const char *label, uint32_t slot, uint32_t flags,
		    uint64_t gpa, uint64_t size, uintptr_t host)
{
	struct kvm_userspace_memory_region m = { .slot = slot,
						 .flags = flags,
						 .guest_phys_addr = gpa,
						 .memory_size = size,
						 .userspace_addr = host };

	VM(label, KVM_SET_USER_MEMORY_REGION, &m);
}

static void ad_slots(struct ad_world *w)
{
	uintptr_t h = (uintptr_t)w->ram;
	uint64_t map[8] = { 0 };
	struct kvm_dirty_log d = { .slot = 3, .dirty_bitmap = map };
	struct kvm_clear_dirty_log cd = { .slot = 3, .num_pages = 64, .dirty_bitmap = map };

	ad_slot(w, "delete none", 0, 0, 0, 0, 0);
	ad_slot(w, "odd size", 0, 0, 0, 0x1001, h);
	ad_slot(w, "odd gpa", 0, 0, 1, 0x1000, h);
	ad_slot(w, "odd host", 0, 0, 0, 0x1000, h + 1);
	ad_slot(w, "kernel host", 0, 0, 0, 0x1000, ~0xffful);
	ad_slot(w, "host wraps", 0, 0, 0, 0x2000, ~0xffful);
	ad_slot(w, "gpa wraps", 0, 0, ~0xfffull, 0x2000, h);
	ad_slot(w, "gpa wraps to 0", 0, 0, ~0xfffull, 0x1000, h);
	ad_slot(w, "gpa beyond the width", 0, 0, 1ull << 53, 0x1000, h);
	ad_slot(w, "number", 40000, 0, 0, 0x1000, h);
	ad_slot(w, "address space", 1 << 16, 0, 0, 0x1000, h);
	ad_slot(w, "address space 2", 2 << 16, 0, 0, 0x1000, h);
	ad_slot(w, "flags", 0, 1 << 4, 0, 0x1000, h);
	ad_slot(w, "flag 2", 0, 1 << 2, 0, 0x1000, h);
	ad_slot(w, "size", 0, 0, 0, 1ull << 44, 0x1000);
	ad_slot(w, "good", 3, 0, 0x10000, 0x10000, h);
	ad_slot(w, "same again", 3, 0, 0x10000, 0x10000, h);
	ad_slot(w, "other size", 3, 0, 0x10000, 0x8000, h);
	ad_slot(w, "other host", 3, 0, 0x10000, 0x10000, h + 0x1000);
	ad_slot(w, "to readonly", 3, KVM_MEM_READONLY, 0x10000, 0x10000, h);
	VM("log of a slot without", KVM_GET_DIRTY_LOG, &d);
	ad_slot(w, "to logged", 3, KVM_MEM_LOG_DIRTY_PAGES, 0x10000, 0x10000, h);
	VM("log", KVM_GET_DIRTY_LOG, &d);
	VM("clear log without the capability", KVM_CLEAR_DIRTY_LOG, &cd);
	ad_slot(w, "move", 3, 0, 0x20000, 0x10000, h);
	ad_slot(w, "overlap", 4, 0, 0x2f000, 0x2000, h);
	ad_slot(w, "readonly", 5, KVM_MEM_READONLY, 0x40000, 0x1000, h);
	ad_slot(w, "readonly and logged", 6, KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES, 0x50000,
		0x1000, h);
	ad_slot(w, "readonly off", 5, 0, 0x40000, 0x1000, h);
	ad_slot(w, "delete", 3, 0, 0, 0, 0);
	ad_slot(w, "delete with flags", 5, 3, 0, 0, 0);
	d.slot = 100;
	VM("log of no slot", KVM_GET_DIRTY_LOG, &d);
	d.slot = 70000;
	VM("log of a bad number", KVM_GET_DIRTY_LOG, &d);
}

static void ad_vm_no_chip(struct ad_world *w)
{
	struct kvm_irq_level l = { .irq = 4, .level = 1 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x31 };
	struct kvm_irqfd q = { .fd = 0, .gsi = 4 };
	struct kvm_pit_config pit = { 0 };
	struct kvm_pit_state2 ps = { 0 };
	struct kvm_irqchip chip = { .chip_id = 0 };
	uint64_t room[64] = { 0 };
	struct kvm_irq_routing *t = (struct kvm_irq_routing *)room;
	struct kvm_enable_cap cap = { .cap = 1000 };
	struct kvm_clock_data clock = { .flags = 0x80 };
	uint64_t identity = 0xfffbc001;

	VM("unknown", _IO(KVMIO, 0xfe), 0);
	VM("of a vcpu", KVM_GET_REGS, room);
	VM("irq line", KVM_IRQ_LINE, &l);
	VM("irq line status", KVM_IRQ_LINE_STATUS, &l);
	VM("msi", KVM_SIGNAL_MSI, &msi);
	VM("irqfd", KVM_IRQFD, &q);
	VM("pit2", KVM_CREATE_PIT2, &pit);
	VM("get pit2", KVM_GET_PIT2, &ps);
	VM("get irqchip", KVM_GET_IRQCHIP, &chip);
	VM("set irqchip", KVM_SET_IRQCHIP, &chip);
	VM("routing", KVM_SET_GSI_ROUTING, t);
	VM("unknown capability", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 5000 } };
	VM("split irqchip too large", KVM_ENABLE_CAP, &cap);
	cap.flags = 1;
	VM("capability with flags", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { 1ull << 40 } };
	VM("unknown quirks", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_X2APIC_API, .args = { 4 } };
	VM("x2apic api bad", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_X86_DISABLE_EXITS, .args = { 16 } };
	VM("disable exits bad", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = { 64 } };
	VM("user space msr bad", KVM_ENABLE_CAP, &cap);
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_MAX_VCPU_ID, .args = { 0 } };
	VM("max vcpu id 0", KVM_ENABLE_CAP, &cap);
	VM("set clock bad flags", KVM_SET_CLOCK, &clock);
	VM("get clock", KVM_GET_CLOCK, &clock);
	VM("tss high", KVM_SET_TSS_ADDR, 0xfffffffful);
	VM("tss", KVM_SET_TSS_ADDR, 0xfffbd000ul);
	VM("tss odd", KVM_SET_TSS_ADDR, 0x123ul);
	VM("identity map", KVM_SET_IDENTITY_MAP_ADDR, &identity);
	VM("boot cpu", KVM_SET_BOOT_CPU_ID, 3);
	VM("mmu pages", KVM_SET_NR_MMU_PAGES, 10);
	VM("get mmu pages", KVM_GET_NR_MMU_PAGES, 0);
	VM("null irqfd", KVM_IRQFD, 0);
	VM("tsc khz", KVM_SET_TSC_KHZ, 0);
}

static void ad_vm_chip(struct ad_world *w)
{
	struct kvm_irq_level l = { .irq = 4, .level = 1 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x31 };
	struct kvm_irqfd q = { .fd = 0, .gsi = 4 };
	struct kvm_pit_config pit = { .flags = 0x80 };
	struct kvm_irqchip chip = { .chip_id = 3 };
	uint64_t room[64] = { 0 };
	struct kvm_irq_routing *t = (struct kvm_irq_routing *)room;
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	uint64_t identity = 0xfffbc000;
	int fd = eventfd(0, 0);

	VM("again", KVM_CREATE_IRQCHIP, 0);
	VM("split after", KVM_ENABLE_CAP, &cap);
	VM("line high", KVM_IRQ_LINE_STATUS, &l);
	ad_say(w, "status", "%d", l.status);
	l.level = 1;
	VM("line high again", KVM_IRQ_LINE_STATUS, &l);
	ad_say(w, "status again", "%d", l.status);
	l = (struct kvm_irq_level){ .irq = 4 };
	VM("line low", KVM_IRQ_LINE_STATUS, &l);
	ad_say(w, "status low", "%d", l.status);
	l = (struct kvm_irq_level){ .irq = 23, .level = 1 };
	VM("line masked", KVM_IRQ_LINE_STATUS, &l);
	ad_say(w, "status masked", "%d", l.status);
	l.irq = 5000;
	VM("line none", KVM_IRQ_LINE, &l);
	VM("msi", KVM_SIGNAL_MSI, &msi);
	msi.flags = 4;
	VM("msi flags", KVM_SIGNAL_MSI, &msi);
	q.fd = 999;
	VM("irqfd bad fd", KVM_IRQFD, &q);
	q.fd = (uint32_t)fd;
	q.flags = 8;
	VM("irqfd flags", KVM_IRQFD, &q);
	q.flags = 0;
	VM("irqfd", KVM_IRQFD, &q);
	VM("irqfd again", KVM_IRQFD, &q);
	q.gsi = 5;
	VM("irqfd other gsi", KVM_IRQFD, &q);
	q.gsi = 5000;
	q.flags = 0;
	VM("irqfd gsi", KVM_IRQFD, &q);
	q = (struct kvm_irqfd){ .fd = (uint32_t)fd, .gsi = 4, .flags = 1 };
	VM("irqfd off", KVM_IRQFD, &q);
	VM("irqfd off again", KVM_IRQFD, &q);
	VM("pit flags", KVM_CREATE_PIT2, &pit);
	pit.flags = 1;
	VM("pit", KVM_CREATE_PIT2, &pit);
	VM("pit again", KVM_CREATE_PIT2, &pit);
	VM("chip id", KVM_GET_IRQCHIP, &chip);
	chip.chip_id = 2;
	VM("ioapic", KVM_GET_IRQCHIP, &chip);
	ad_say(w, "ioapic state", "base %llx id %x sel %x irr %x e0 %llx e4 %llx",
	       (unsigned long long)chip.chip.ioapic.base_address, chip.chip.ioapic.id,
	       chip.chip.ioapic.ioregsel, chip.chip.ioapic.irr,
	       (unsigned long long)chip.chip.ioapic.redirtbl[0].bits,
	       (unsigned long long)chip.chip.ioapic.redirtbl[4].bits);
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *p = (const uint8_t *)&chip.chip.pic;

		memset(&chip, 0, sizeof(chip));
		chip.chip_id = i;
		VM("pic", KVM_GET_IRQCHIP, &chip);
		ad_say(w, "pic state",
		       "%02x %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x "
		       "%02x",
		       p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11],
		       p[12], p[13], p[14], p[15]);
	}
	VM("routing of none", KVM_SET_GSI_ROUTING, t);
	t->nr = 5000;
	VM("routing too long", KVM_SET_GSI_ROUTING, t);
	t->nr = 1;
	t->flags = 1;
	VM("routing flags", KVM_SET_GSI_ROUTING, t);
	t->flags = 0;
	t->entries[0].type = 77;
	VM("routing type", KVM_SET_GSI_ROUTING, t);
	t->entries[0].type = KVM_IRQ_ROUTING_IRQCHIP;
	t->entries[0].u.irqchip.irqchip = 3;
	VM("routing chip", KVM_SET_GSI_ROUTING, t);
	t->entries[0].u.irqchip.irqchip = 2;
	t->entries[0].u.irqchip.pin = 24;
	VM("routing pin", KVM_SET_GSI_ROUTING, t);
	t->entries[0].u.irqchip.pin = 1;
	t->entries[0].gsi = 4096;
	VM("routing gsi", KVM_SET_GSI_ROUTING, t);
	t->entries[0].gsi = 1;
	t->entries[0].flags = 2;
	VM("routing entry flags", KVM_SET_GSI_ROUTING, t);
	VM("identity map after", KVM_SET_IDENTITY_MAP_ADDR, &identity);
	close(fd);
}

static void ad_ioeventfds(struct ad_world *w)
{
	int fd = eventfd(0, 0);
	struct kvm_ioeventfd q = { .addr = 0x200, .len = 3, .fd = fd, .flags = 2 };

	VM("length 3", KVM_IOEVENTFD, &q);
	q.len = 1;
	q.flags = 0x80;
	VM("flags", KVM_IOEVENTFD, &q);
	q.flags = 2;
	q.fd = 999;
	VM("fd", KVM_IOEVENTFD, &q);
	q.fd = fd;
	VM("pio", KVM_IOEVENTFD, &q);
	VM("pio again", KVM_IOEVENTFD, &q);
	q.flags = 3;
	q.datamatch = 4;
	VM("datamatch below any", KVM_IOEVENTFD, &q);
	q.addr = 0x300;
	VM("datamatch", KVM_IOEVENTFD, &q);
	q.datamatch = 5;
	VM("other datamatch", KVM_IOEVENTFD, &q);
	q.flags = 2;
	q.len = 0;
	VM("pio length 0", KVM_IOEVENTFD, &q);
	q.flags = 1;
	VM("length 0 with datamatch", KVM_IOEVENTFD, &q);
	q = (struct kvm_ioeventfd){ .addr = ~0ull, .len = 2, .fd = fd };
	VM("wraps", KVM_IOEVENTFD, &q);
	q = (struct kvm_ioeventfd){ .addr = 0x1000, .len = 4, .fd = fd, .flags = 4 };
	VM("off none", KVM_IOEVENTFD, &q);
	q = (struct kvm_ioeventfd){ .addr = 0x200, .len = 1, .fd = fd, .flags = 6 };
	VM("off", KVM_IOEVENTFD, &q);
	close(fd);
}

static void ad_vcpu_ids(struct ad_world *w)
{
	struct libkvm_err e = { 0 };
	static const uint32_t ids[] = { 0, 0, 1, 255, 4096, 5000, 1u << 20, ~0u };
	struct libkvm_vcpu *c[8] = { 0 };

	for (unsigned i = 0; i < 8; i++) {
		char label[24];

		snprintf(label, sizeof(label), "id %u", ids[i]);
		ad_ret(w, label, libkvm_vcpu_create(w->vm, ids[i], &c[i], &e));
	}
	VM("irqchip after", KVM_CREATE_IRQCHIP, 0);
	for (unsigned i = 0; i < 8; i++)
		libkvm_vcpu_close(c[i]);
}

static void ad_vcpu_errors(struct ad_world *w)
{
	uint64_t room[600] = { 0 };
	struct kvm_interrupt irq = { .irq = 256 };
	struct kvm_signal_mask *sm = (struct kvm_signal_mask *)room;
	struct kvm_msrs *m = (struct kvm_msrs *)room;
	struct kvm_cpuid2 *c = (struct kvm_cpuid2 *)room;
	struct kvm_mp_state mp = { 77 };
	struct kvm_vcpu_events ev = { .flags = 1 << 10 };
	struct kvm_debugregs db = { .flags = 1 };
	struct kvm_guest_debug gd = { .control = 0x80000000 };
	struct kvm_enable_cap cap = { .cap = 1000 };
	struct kvm_xcrs x = { .nr_xcrs = 1 };
	struct kvm_fpu f = { .mxcsr = ~0u };
	struct kvm_translation t = { .linear_address = 0x1234 };
	struct kvm_one_reg one = { .id = 1 };
	struct kvm_tpr_access_ctl tpr = { .enabled = 1 };
	uint64_t mcg = 1 << 20;

	VCPU("unknown", _IO(KVMIO, 0xfe), 0);
	VCPU("of the system", KVM_GET_API_VERSION, 0);
	VCPU("of a vm", KVM_CREATE_IRQCHIP, 0);
	VCPU("run with an argument", KVM_RUN, 1);
	VCPU("interrupt 256", KVM_INTERRUPT, &irq);
	irq.irq = 0x20;
	VCPU("interrupt", KVM_INTERRUPT, &irq);
	VCPU("interrupt again", KVM_INTERRUPT, &irq);
	VCPU("nmi", KVM_NMI, 0);
	VCPU("smi", KVM_SMI, 0);
	VCPU("get lapic", KVM_GET_LAPIC, room);
	VCPU("set lapic", KVM_SET_LAPIC, room);
	memset(room, 0, sizeof(room));
	sm->len = 4;
	VCPU("signal mask of 4", KVM_SET_SIGNAL_MASK, sm);
	VCPU("signal mask none", KVM_SET_SIGNAL_MASK, 0);
	memset(room, 0, sizeof(room));
	m->nmsrs = 1;
	m->entries[0].index = 0x12345678;
	VCPU("get msr unknown", KVM_GET_MSRS, m);
	VCPU("set msr unknown", KVM_SET_MSRS, m);
	m->entries[0].data = 5;
	VCPU("set msr unknown to 5", KVM_SET_MSRS, m);
	m->entries[0].index = 0xc0000080;
	m->entries[0].data = 1ull << 40;
	VCPU("set efer bad", KVM_SET_MSRS, m);
	m->entries[0].index = 0x1b;
	m->entries[0].data = 0xfee00400;
	VCPU("set apic base bad", KVM_SET_MSRS, m);
	m->entries[0].index = 0x277;
	m->entries[0].data = 0x0606060606060602;
	VCPU("set pat bad", KVM_SET_MSRS, m);
	m->entries[0].index = 0xc0000082;
	m->entries[0].data = 1ull << 50;
	VCPU("set lstar bad", KVM_SET_MSRS, m);
	m->nmsrs = 1 << 16;
	VCPU("msrs too many", KVM_SET_MSRS, m);
	memset(room, 0, sizeof(room));
	c->nent = 1000;
	VCPU("cpuid too long", KVM_SET_CPUID2, c);
	c->nent = 0;
	VCPU("cpuid none", KVM_SET_CPUID2, c);
	VCPU("get cpuid none", KVM_GET_CPUID2, c);
	VCPU("mp state bad", KVM_SET_MP_STATE, &mp);
	mp.mp_state = KVM_MP_STATE_HALTED;
	VCPU("mp state halted", KVM_SET_MP_STATE, &mp);
	mp.mp_state = KVM_MP_STATE_UNINITIALIZED;
	VCPU("mp state uninitialized", KVM_SET_MP_STATE, &mp);
	mp.mp_state = KVM_MP_STATE_RUNNABLE;
	VCPU("mp state runnable", KVM_SET_MP_STATE, &mp);
	VCPU("events flags", KVM_SET_VCPU_EVENTS, &ev);
	ev = (struct kvm_vcpu_events){ .exception = { .injected = 1, .nr = 2 } };
	VCPU("events vector 2", KVM_SET_VCPU_EVENTS, &ev);
	ev = (struct kvm_vcpu_events){ .exception = { .injected = 1, .nr = 32 } };
	VCPU("events vector 32", KVM_SET_VCPU_EVENTS, &ev);
	ev = (struct kvm_vcpu_events){ .flags = KVM_VCPUEVENT_VALID_PAYLOAD };
	VCPU("events payload", KVM_SET_VCPU_EVENTS, &ev);
	VCPU("debugregs flags", KVM_SET_DEBUGREGS, &db);
	db = (struct kvm_debugregs){ .dr6 = 1ull << 32 };
	VCPU("debugregs dr6", KVM_SET_DEBUGREGS, &db);
	db = (struct kvm_debugregs){ .dr7 = 1ull << 32 };
	VCPU("debugregs dr7", KVM_SET_DEBUGREGS, &db);
	VCPU("guest debug control", KVM_SET_GUEST_DEBUG, &gd);
	gd.control = 0;
	VCPU("guest debug off", KVM_SET_GUEST_DEBUG, &gd);
	VCPU("capability", KVM_ENABLE_CAP, &cap);
	VCPU("xcr0 zero", KVM_SET_XCRS, &x);
	x.xcrs[0] = (struct kvm_xcr){ .xcr = 0, .value = 1ull << 40 };
	VCPU("xcr0 bad", KVM_SET_XCRS, &x);
	x.nr_xcrs = 100;
	VCPU("xcrs too many", KVM_SET_XCRS, &x);
	VCPU("fpu mxcsr", KVM_SET_FPU, &f);
	VCPU("translate", KVM_TRANSLATE, &t);
	ad_say(w, "translation", "%llx %d %d %d", (unsigned long long)t.physical_address, t.valid,
	       t.writeable, t.usermode);
	VCPU("kvmclock ctrl", KVM_KVMCLOCK_CTRL, 0);
	VCPU("tsc khz positive", KVM_GET_TSC_KHZ, 0);
	VCPU("one reg", KVM_GET_ONE_REG, &one);
	VCPU("tpr access", KVM_TPR_ACCESS_REPORTING, &tpr);
	VCPU("vapic", KVM_SET_VAPIC_ADDR, room);
	VCPU("mce bad", KVM_X86_SETUP_MCE, &mcg);
	mcg = 1 << 8 | 1;
	VCPU("mce", KVM_X86_SETUP_MCE, &mcg);
	VCPU("regs null", KVM_GET_REGS, 0);
}

static void ad_sregs_errors(struct ad_world *w)
{
	static const struct {
		const char *label;
		uint64_t cr0, cr3, cr4, efer, apic_base, cr8;
		uint8_t l, db;
	} t[] = {
		{ .label = "same" },
		{ .label = "pg without pe", .cr0 = 0x80000000 },
		{ .label = "nw without cd", .cr0 = 0x20000000 },
		{ .label = "cr0 high", .cr0 = 1ull << 33 },
		{ .label = "cr4 reserved", .cr4 = 1ull << 40 },
		{ .label = "cr4 vmxe", .cr4 = 1 << 13 },
		{ .label = "efer reserved", .efer = 1 << 1 },
		{ .label = "lma without lme", .cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x400 },
		{ .label = "lme with pg, no pae", .cr0 = 0x80000001, .efer = 0x500 },
		{ .label = "lme with pg, no lma", .cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x100 },
		{ .label = "long", .cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x500 },
		{ .label = "long, l and db",
		  .cr0 = 0x80000001,
		  .cr4 = 0x20,
		  .efer = 0x500,
		  .l = 1,
		  .db = 1 },
		{ .label = "l outside long", .cr0 = 1, .l = 1 },
		{ .label = "cr3 high",
		  .cr0 = 0x80000001,
		  .cr4 = 0x20,
		  .efer = 0x500,
		  .cr3 = 1ull << 62 },
		{ .label = "apic base reserved", .apic_base = 1 << 9 },
		{ .label = "apic base x2apic", .apic_base = 0xc00 },
		{ .label = "cr8", .cr8 = 16 },
		{ .label = "smep smap", .cr4 = 3 << 20 },
	};
	struct kvm_sregs start, s;
	char label[64];

	libkvm_get_sregs(w->cpu, &start);
	for (unsigned i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		s = start;
		s.cr0 |= t[i].cr0;
		s.cr3 |= t[i].cr3;
		s.cr4 |= t[i].cr4;
		s.efer |= t[i].efer;
		s.apic_base |= t[i].apic_base;
		s.cr8 |= t[i].cr8;
		s.cs.l = t[i].l;
		s.cs.db = t[i].db;
		ad_ret(w, t[i].label, libkvm_set_sregs(w->cpu, &s));
		libkvm_get_sregs(w->cpu, &s);
		snprintf(label, sizeof(label), "%s after", t[i].label);
		ad_say(w, label,
		       "cr0 %llx cr3 %llx cr4 %llx efer %llx apic %llx cr8 %llx l %d db %d",
		       (unsigned long long)s.cr0, (unsigned long long)s.cr3,
		       (unsigned long long)s.cr4, (unsigned long long)s.efer,
		       (unsigned long long)s.apic_base, (unsigned long long)s.cr8, s.cs.l, s.cs.db);
		libkvm_set_sregs(w->cpu, &start);
	}
}

static void ad_segment(struct ad_world *w, const char *name, const struct kvm_segment *s)
{
	ad_say(w, name, "%llx %x %x type %x p %d dpl %d db %d s %d l %d g %d avl %d unusable %d",
	       (unsigned long long)s->base, s->limit, s->selector, s->type, s->present, s->dpl,
	       s->db, s->s, s->l, s->g, s->avl, s->unusable);
}

static void ad_power_on(struct ad_world *w)
{
	struct libkvm_vcpu *c = NULL;
	struct libkvm_err e = { 0 };
	struct kvm_regs r;
	struct kvm_sregs s;
	struct kvm_fpu f = { 0 };
	struct kvm_vcpu_events v = { 0 };
	struct kvm_debugregs d = { 0 };
	struct kvm_mp_state mp = { 0 };
	struct kvm_lapic_state lapic = { 0 };
	struct kvm_xcrs x = { 0 };

	for (uint32_t id = 0; id < 2; id++) {
		if (libkvm_vcpu_create(w->vm, id, &c, &e)) {
			ad_say(w, "create", "failed");
			return;
		}
		libkvm_get_regs(c, &r);
		libkvm_get_sregs(c, &s);
		ad_say(w, "regs", "rip %llx rsp %llx rflags %llx rax %llx rdx %llx r15 %llx",
		       (unsigned long long)r.rip, (unsigned long long)r.rsp,
		       (unsigned long long)r.rflags, (unsigned long long)r.rax,
		       (unsigned long long)r.rdx, (unsigned long long)r.r15);
		ad_segment(w, "cs", &s.cs);
		ad_segment(w, "ss", &s.ss);
		ad_segment(w, "fs", &s.fs);
		ad_segment(w, "tr", &s.tr);
		ad_segment(w, "ldt", &s.ldt);
		ad_say(w, "tables", "%llx %x %llx %x", (unsigned long long)s.gdt.base, s.gdt.limit,
		       (unsigned long long)s.idt.base, s.idt.limit);
		ad_say(w, "control", "%llx %llx %llx %llx %llx apic %llx %llx",
		       (unsigned long long)s.cr0, (unsigned long long)s.cr2,
		       (unsigned long long)s.cr3, (unsigned long long)s.cr4,
		       (unsigned long long)s.efer, (unsigned long long)s.apic_base,
		       (unsigned long long)s.cr8);
		ad_ret(w, "fpu", libkvm_vcpu_ioctl(c, KVM_GET_FPU, &f));
		ad_say(w, "fpu words", "%x %x %x %x", f.fcw, f.fsw, f.ftwx, f.mxcsr);
		ad_ret(w, "events", libkvm_vcpu_ioctl(c, KVM_GET_VCPU_EVENTS, &v));
		ad_say(w, "events flags", "%x sipi %x masked %d", v.flags, v.sipi_vector,
		       v.nmi.masked);
		ad_ret(w, "debugregs", libkvm_vcpu_ioctl(c, KVM_GET_DEBUGREGS, &d));
		ad_say(w, "dr", "%llx %llx flags %llx", (unsigned long long)d.dr6,
		       (unsigned long long)d.dr7, (unsigned long long)d.flags);
		ad_ret(w, "mp", libkvm_vcpu_ioctl(c, KVM_GET_MP_STATE, &mp));
		ad_say(w, "mp state", "%d", mp.mp_state);
		ad_ret(w, "xcrs", libkvm_vcpu_ioctl(c, KVM_GET_XCRS, &x));
		ad_say(w, "xcr0", "%u %llx", x.nr_xcrs, (unsigned long long)x.xcrs[0].value);
		ad_ret(w, "lapic", libkvm_vcpu_ioctl(c, KVM_GET_LAPIC, &lapic));
		for (unsigned i = 0; i < 0x400; i += 0x10) {
			uint32_t val;
			char label[24];

			memcpy(&val, lapic.regs + i, 4);
			snprintf(label, sizeof(label), "lapic %x", i);
			if (val)
				ad_say(w, label, "%x", val);
		}
		libkvm_vcpu_close(c);
	}
}

const struct ad_case ad_ioctl_cases[] = {
	{ "system", ad_system, AD_NO_VCPU },
	{ "extensions", ad_extensions, AD_NO_VCPU },
	{ "slots", ad_slots, AD_NO_VCPU },
	{ "vm_without_irqchip", ad_vm_no_chip, AD_NO_VCPU },
	{ "vm_with_irqchip", ad_vm_chip, AD_NO_VCPU | AD_IRQCHIP },
	{ "ioeventfds", ad_ioeventfds, AD_NO_VCPU },
	{ "vcpu_ids", ad_vcpu_ids, AD_NO_VCPU },
	{ "vcpu_errors", ad_vcpu_errors, AD_CPUID },
	{ "vcpu_errors_irqchip", ad_vcpu_errors, AD_IRQCHIP | AD_CPUID },
	{ "sregs_errors", ad_sregs_errors, AD_CPUID },
	{ "sregs_errors_no_cpuid", ad_sregs_errors, 0 },
	{ "power_on", ad_power_on, AD_NO_VCPU },
	{ "power_on_irqchip", ad_power_on, AD_NO_VCPU | AD_IRQCHIP },
	{ 0 },
};
