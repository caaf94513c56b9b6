/*
 * Inside the comparison of translated code with the interpreter: what is kept of a block's runs.
 *
 * Threads: the vCPU's own.
 */
#pragma once
#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit_int.h"

#define CHECK_TRIES  4
#define CHECK_WRITES 512
#define CHECK_BYTES  (32u << 10)
#define CHECK_PAGES  24
#define CHECK_ODD    64
enum { CHECK_XSAVE = 832 }; /* legacy area, header, upper halves of YMM */

enum check_end { CHECK_RAN, CHECK_THREW, CHECK_STOPPED };

/* What a block can change, beside memory. */
struct check_state {
	uint64_t r[REG_COUNT];
	uint64_t cr2;
	uint32_t rflags;
	uint16_t fl;
	bool exc, exc_has_error;
	uint8_t exc_vec;
	uint32_t exc_error;
	enum check_end end;
	unsigned done; /* instructions */
	uint8_t xsave[CHECK_XSAVE];
};

struct check_write {
	uint8_t *host;
	uint32_t at; /* in old and new */
	uint32_t len;
};

/* A page written: what is in it before. */
struct check_page {
	uint8_t *host;
	uint8_t old[PAGE_SIZE];
};

struct jit_check {
	struct check_state start, interp, trans;
	struct check_write w[CHECK_WRITES];
	unsigned nw, nbytes;
	uint8_t old[CHECK_BYTES], new[CHECK_BYTES], got[CHECK_BYTES]; /* before, by each */
	struct check_page page[CHECK_PAGES];
	unsigned npage;
	struct check_access {
		gva_t page;
		bool write;
	} acc[CHECK_PAGES];
	unsigned nacc;
	/* bytes found changed that nobody should have written, and what was in them */
	struct check_odd {
		uint8_t *host;
		uint8_t was, is;
	} odd[CHECK_ODD];
	unsigned nodd;
	unsigned runs;
	unsigned limit; /* instructions of a trace to run */
	unsigned dead;  /* F_*: flags that the last exit has called dead */
	gva_t dead_at;  /* and where it led to */
	char what[160];
	struct {
		uint64_t blocks, traces, undone, retries;
	} stat;
};

/* F_* as bits of v->fl. */
static inline uint16_t check_fl(unsigned flags)
{
	return (uint16_t)((flags & 0xd5) << 8 | (flags & F_O ? FL_O : 0));
}

/*
 * Are both results the same? flags: F_* to compare. False: c->what says where the first difference
 * is. Bytes that the interpreter has not written are put back to what they were.
 */
bool jit_check_same(struct jit_check *c, unsigned flags, bool fpu);
/* Everything known about a difference, to the log. */
void jit_check_report(struct vcpu *v, const struct jit_block *jb);
