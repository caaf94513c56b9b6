/* Instructions and register bits for guest tests. */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#include "guest.h"

enum {
	CR0_PE = 1u << 0,
	CR0_MP = 1u << 1,
	CR0_EM = 1u << 2,
	CR0_TS = 1u << 3,
	CR0_NE = 1u << 5,
	CR0_WP = 1u << 16,
	CR0_AM = 1u << 18,
	CR0_NW = 1u << 29,
	CR0_CD = 1u << 30,
	CR4_VME = 1u << 0,
	CR4_PVI = 1u << 1,
	CR4_TSD = 1u << 2,
	CR4_DE = 1u << 3,
	CR4_PSE = 1u << 4,
	CR4_PAE = 1u << 5,
	CR4_PGE = 1u << 7,
	CR4_PCE = 1u << 8,
	CR4_OSFXSR = 1u << 9,
	CR4_OSXMMEXCPT = 1u << 10,
	CR4_UMIP = 1u << 11,
	CR4_FSGSBASE = 1u << 16,
	CR4_PCIDE = 1u << 17,
	CR4_OSXSAVE = 1u << 18,
	CR4_SMEP = 1u << 20,
	CR4_SMAP = 1u << 21,
	CR4_PKE = 1u << 22,
	EFER_SCE = 1u << 0,
	EFER_LME = 1u << 8,
	EFER_LMA = 1u << 10,
	EFER_NXE = 1u << 11,
	FL_CF = 1u << 0,
	FL_PF = 1u << 2,
	FL_AF = 1u << 4,
	FL_ZF = 1u << 6,
	FL_SF = 1u << 7,
	FL_TF = 1u << 8,
	FL_IF = 1u << 9,
	FL_DF = 1u << 10,
	FL_OF = 1u << 11,
	FL_IOPL = 3u << 12,
	FL_NT = 1u << 14,
	FL_RF = 1u << 16,
	FL_VM = 1u << 17,
	FL_AC = 1u << 18,
	FL_VIF = 1u << 19,
	FL_VIP = 1u << 20,
	FL_ID = 1u << 21,
};
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

enum {
	MSR_TSC = 0x10,
	MSR_APICBASE = 0x1b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP = 0x175,
	MSR_SYSENTER_EIP = 0x176,
	MSR_PAT = 0x277,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_EFER = 0xc0000080,
	MSR_STAR = 0xc0000081,
	MSR_LSTAR = 0xc0000082,
	MSR_CSTAR = 0xc0000083,
	MSR_SFMASK = 0xc0000084,
	MSR_FS_BASE = 0xc0000100,
	MSR_GS_BASE = 0xc0000101,
	MSR_KERNEL_GS_BASE = 0xc0000102,
	MSR_TSC_AUX = 0xc0000103,
};

struct cpuid_regs {
	u32 a, b, c, d;
};

struct table_reg {
	u16 limit;
	ulong base;
} __attribute__((packed));

static inline struct cpuid_regs cpuid(u32 leaf, u32 sub)
{
	struct cpuid_regs r;

	__asm__ volatile("cpuid"
			 : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d)
			 : "a"(leaf), "c"(sub));
	return r;
}

static inline bool cpu_is_amd(void)
{
	return cpuid(0, 0).b == 0x68747541; /* "Auth" */
}

#define HAS_1C(bit) ((cpuid(1, 0).c >> (bit)) & 1)
#define HAS_1D(bit) ((cpuid(1, 0).d >> (bit)) & 1)
#define HAS_7B(bit) (cpuid(0, 0).a >= 7 && ((cpuid(7, 0).b >> (bit)) & 1))
#define HAS_7C(bit) (cpuid(0, 0).a >= 7 && ((cpuid(7, 0).c >> (bit)) & 1))
#define HAS_8D(bit) ((cpuid(0x80000001, 0).d >> (bit)) & 1)
#define HAS_8C(bit) ((cpuid(0x80000001, 0).c >> (bit)) & 1)

static inline void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void outw(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}

static inline u16 inw(u16 port)
{
	u16 v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void outl(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}

static inline u32 inl(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}

#define CPU_REG(name) \
	static inline ulong read_##name(void) \
	{ \
		ulong v_; \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(v_)::"memory"); \
		return v_; \
	} \
	static inline void write_##name(ulong v_) \
	{ \
		__asm__ volatile("mov %0, %%" #name ::"r"(v_) : "memory"); \
	}
CPU_REG(cr0)
CPU_REG(cr2)
CPU_REG(cr3)
CPU_REG(cr4)
#ifdef GUEST64
CPU_REG(cr8)
#endif
CPU_REG(dr0)
CPU_REG(dr1)
CPU_REG(dr2)
CPU_REG(dr3)
CPU_REG(dr6)
CPU_REG(dr7)
CPU_REG(ds)
CPU_REG(es)
CPU_REG(fs)
CPU_REG(gs)
CPU_REG(ss)

static inline u16 read_cs(void)
{
	u16 v;

	__asm__ volatile("mov %%cs, %0" : "=r"(v));
	return v;
}

static inline u16 read_tr(void)
{
	u16 v;

	__asm__ volatile("str %0" : "=r"(v));
	return v;
}

static inline ulong read_flags(void)
{
	ulong v;

	__asm__ volatile("pushf\n\tpop %0" : "=r"(v)::"memory");
	return v;
}

static inline void write_flags(ulong v)
{
	__asm__ volatile("push %0\n\tpopf" ::"r"(v) : "memory", "cc");
}

static inline void cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static inline void sti(void)
{
	__asm__ volatile("sti" ::: "memory");
}

/* One slot in which a pending interrupt is surely taken. */
static inline void sti_nop_cli(void)
{
	__asm__ volatile("sti\n\tnop\n\tnop\n\tcli" ::: "memory");
}

static inline void invlpg(ulong va)
{
	__asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

static inline void cpu_pause(void)
{
	__asm__ volatile("pause" ::: "memory");
}

static inline void lidt(const struct table_reg *r)
{
	__asm__ volatile("lidt %0" ::"m"(*r));
}

static inline void lgdt(const struct table_reg *r)
{
	__asm__ volatile("lgdt %0" ::"m"(*r));
}

static inline void lldt(u16 sel)
{
	__asm__ volatile("lldt %0" ::"r"(sel));
}

static inline u32 mmio_read32(ulong a)
{
	u32 v;

	__asm__ volatile("movl %1, %0" : "=r"(v) : "m"(*(volatile u32 *)a) : "memory");
	return v;
}

static inline void mmio_write32(ulong a, u32 v)
{
	__asm__ volatile("movl %0, %1" ::"r"(v), "m"(*(volatile u32 *)a) : "memory");
}

#endif
