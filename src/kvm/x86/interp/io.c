/*
 * Port I/O: permission, the in-kernel bus, user space.
 *
 * Modelled:   IOPL and the TSS bitmap, I/O breakpoints (CR4.DE), batches of string accesses in one
 *             exit. A port access that crosses ffffh goes out with its start, as KVM does.
 * References: [SDM1 19.5], [KVM-API 5 "KVM_EXIT_IO"]. Threads: the vCPU's own.
 */
#include "kvm/x86/interp/io.h"

#include "kvm/x86/interp/debug.h"
#include "kvm/x86/interp/seg.h"

/* The data page follows the run structure's page. */
enum { IO_DATA_OFFSET = 4096 };

void io_check(struct vcpu *v, uint16_t port, unsigned size)
{
	unsigned iopl = v->rflags >> 12 & 3, base, map, mask = (1u << size) - 1;

	if (!(v->cr0 & CR0_PE) || (v->cpl <= iopl && !(v->rflags & RF_VM)))
		return;
	if ((v->tr.ar & SEG_AR_UNUSABLE) || (v->tr.ar & SEG_AR_TYPE) < DESC_TSS32 ||
	    v->tr.limit < 103)
		throw_gp(v, 0);
	base = (unsigned)mmu_sys_ld(v, seg_wrap(v, v->tr.base + 102), 2);
	/* always two bytes, so that an access may straddle them */
	if (base + port / 8 + 1 > v->tr.limit)
		throw_gp(v, 0);
	map = (unsigned)mmu_sys_ld(v, seg_wrap(v, v->tr.base + base + port / 8), 2);
	if (map >> (port % 8) & mask)
		throw_gp(v, 0);
}

/* Leave with KVM_EXIT_IO for count accesses; the data is in the page behind run. */
static void io_exit(struct vcpu *v, uint8_t direction, uint16_t port, unsigned size, unsigned count)
{
	struct kvm_run *run = v->run;

	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = direction;
	run->io.size = (uint8_t)size;
	run->io.port = port;
	run->io.count = count;
	run->io.data_offset = IO_DATA_OFFSET;
	v->stat.io_exits++;
	vcpu_exit_to_user(v);
}

static uint8_t *io_data(struct vcpu *v)
{
	return (uint8_t *)v->run + IO_DATA_OFFSET;
}

void io_in_string(struct vcpu *v, uint16_t port, unsigned size, unsigned count, void *buf)
{
	uint8_t *p = buf;

	if (unlikely(v->single_step))
		debug_check_io(v, port, size);
	while (count && kvm_io_bus_read(v, KVM_BUS_PIO, port, (int)size, p) == 0) {
		p += size;
		count--;
	}
	if (!count)
		return;
	/* user space finds zeros, not the last access's data */
	memset(io_data(v), 0, (size_t)size * count);
	io_exit(v, KVM_EXIT_IO_IN, port, size, count);
	memcpy(p, io_data(v), (size_t)size * count);
}

void io_out_string(struct vcpu *v, uint16_t port, unsigned size, unsigned count, const void *buf)
{
	const uint8_t *p = buf;

	if (unlikely(v->single_step))
		debug_check_io(v, port, size);
	while (count && kvm_io_bus_write(v, KVM_BUS_PIO, port, (int)size, p) == 0) {
		p += size;
		count--;
	}
	if (!count)
		return;
	memcpy(io_data(v), p, (size_t)size * count);
	io_exit(v, KVM_EXIT_IO_OUT, port, size, count);
}

uint32_t io_in(struct vcpu *v, uint16_t port, unsigned size)
{
	uint32_t val = 0;

	io_in_string(v, port, size, 1, &val);
	return val;
}

void io_out(struct vcpu *v, uint16_t port, unsigned size, uint32_t val)
{
	io_out_string(v, port, size, 1, &val);
}

/* eAX is z: 4 bytes also with REX.W. */
static unsigned io_size(const struct insn *i)
{
	return i->osize == 2 ? 2 : 4;
}

static void io_insn_in(struct vcpu *v, uint16_t port, unsigned size)
{
	uint32_t val;

	io_check(v, port, size);
	val = io_in(v, port, size);
	if (size == 1)
		v->r[REG_RAX] = (v->r[REG_RAX] & ~0xffull) | (uint8_t)val;
	else
		reg_set(v, REG_RAX, size, val);
}

static void io_insn_out(struct vcpu *v, uint16_t port, unsigned size)
{
	io_check(v, port, size);
	io_out(v, port, size, (uint32_t)(v->r[REG_RAX] & size_mask(size)));
}

EXEC(IN_ALIb)
{
	io_insn_in(v, (uint8_t)i->imm, 1);
}

EXEC(IN_eAXIb)
{
	io_insn_in(v, (uint8_t)i->imm, io_size(i));
}

EXEC(IN_ALDX)
{
	io_insn_in(v, (uint16_t)v->r[REG_RDX], 1);
}

EXEC(IN_eAXDX)
{
	io_insn_in(v, (uint16_t)v->r[REG_RDX], io_size(i));
}

EXEC(OUT_IbAL)
{
	io_insn_out(v, (uint8_t)i->imm, 1);
}

EXEC(OUT_IbeAX)
{
	io_insn_out(v, (uint8_t)i->imm, io_size(i));
}

EXEC(OUT_DXAL)
{
	io_insn_out(v, (uint16_t)v->r[REG_RDX], 1);
}

EXEC(OUT_DXeAX)
{
	io_insn_out(v, (uint16_t)v->r[REG_RDX], io_size(i));
}
