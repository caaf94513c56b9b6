/*
 * The translator's log: guest code and host code of each block as it is translated.
 *
 * The text of a block is one write(2), so that those of several vCPUs do not mix. Calls out of a
 * block are followed by the index of a descriptor (see glue.c), which is shown as the guest
 * instruction that it is for.
 *
 * References:   QEMU's -d in_asm, out_asm, -dfilter for what there is to ask for.
 * Threads:      the vCPU's own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm/x86/jit/jit_int.h"
#include "x86/decode.h"

enum { LOG_BYTES = 12 }; /* of an instruction in one line */

static bool log_wanted(const struct kvm_options *o, const struct jit_block *jb)
{
	if (!o->jit_log)
		return false;
	for (unsigned i = 0; i < jb->n && o->jit_log_ranges; i++) {
		gva_t la = jit_block_rip(jb, i) + jb->made;

		for (unsigned n = 0; n < o->jit_log_ranges; n++)
			if (la <= o->jit_log_range[n].last &&
			    la + (jb->insns[i].len - 1u) >= o->jit_log_range[n].first)
				return true;
	}
	return !o->jit_log_ranges;
}

static void log_line(FILE *f, uint64_t at, const uint8_t *bytes, size_t n, const char *text)
{
	char hex[3 * LOG_BYTES + 1] = "";

	for (size_t k = 0; k < n && k < LOG_BYTES; k++)
		snprintf(hex + 3 * k, 4, "%02x ", bytes[k]);
	fprintf(f, "0x%016llx:  %-*s %s\n", (unsigned long long)at, 3 * LOG_BYTES, hex, text);
	for (size_t k = LOG_BYTES; k < n; k += LOG_BYTES) {
		for (size_t m = k; m < n && m < k + LOG_BYTES; m++)
			snprintf(hex + 3 * (m - k), 4, "%02x ", bytes[m]);
		fprintf(f, "%-18s   %s\n", "", hex);
	}
}

/* What guest code of a block was decoded as. */
static enum decode_mode log_mode(const struct jit_block *jb)
{
	return jb->ctx < JIT_CTXS ? DECODE_64 : DECODE_32;
}

static void log_guest(FILE *f, const struct jit_block *jb)
{
	char text[128];

	fprintf(f, "IN: %s%s, %u instructions\n", jit_ctx_name(jb->ctx), jb->trace ? " trace" : "",
		jb->n);
	for (unsigned n = 0; n < jb->n; n++) {
		gva_t la = jit_block_rip(jb, n);

		insn_format(&jb->insns[n], log_mode(jb), la + jb->made, text, sizeof(text));
		/* one that crosses a page: what is in the first */
		log_line(f, la + jb->made, jit_block_bytes(jb, la),
			 MIN(jb->insns[n].len, PAGE_SIZE - (la & ~PAGE_MASK)), text);
	}
	fputc('\n', f);
}

/* The routine that a call or jump goes to, or NULL. */
static const struct jit_glue_name *log_glue(const struct jit_glue_name *g, unsigned n,
					    const struct insn *i, uint64_t next)
{
	if (i->id != I_CALL_Jz && i->id != I_JMP_Jz)
		return NULL;
	for (unsigned k = 0; k < n; k++)
		if (g[k].at == next + i->imm)
			return &g[k];
	return NULL;
}

/* The index behind a call of the glue, as the instruction it stands for. */
static size_t log_desc(FILE *f, const struct jit *j, const struct jit_block *jb, const uint8_t *p,
		       uint64_t at, size_t left, bool place)
{
	char text[160] = ".long ";
	uint32_t desc;

	if (left < sizeof(desc))
		return 0;
	memcpy(&desc, p, sizeof(desc));
	if (place) {
		snprintf(text, sizeof(text), ".long %u  ; a description", desc);
	} else if (desc < j->ndescs) {
		char guest[128];

		insn_format(j->descs[desc].insn, log_mode(jb), j->descs[desc].rip + jb->made, guest,
			    sizeof(guest));
		snprintf(text, sizeof(text), ".long %u  ; for %s", desc, guest);
	}
	log_line(f, at, p, sizeof(desc), text);
	return sizeof(desc);
}

static void log_host(FILE *f, const struct jit *j, const struct jit_block *jb)
{
	const uint8_t *p = j->rw + jb->entry_mem, *end = p + jb->size;
	uint64_t at = (uintptr_t)j->rx + jb->entry_mem;
	struct jit_glue_name g[JIT_GLUE_NAMES];
	unsigned ng = jit_glue_names(j, g);
	struct insn i;

	fprintf(f, "OUT: %u bytes for 0x%llx\n", jb->size, (unsigned long long)(jb->la + jb->made));
	while (end > p && end[-1] == 0xcc) /* padding, which no block ends with otherwise */
		end--;
	while (p < end) {
		const struct jit_glue_name *glue = NULL;
		char text[160];
		size_t len = 1;

		if (insn_decode(p, (size_t)(end - p), DECODE_64, false, &i) == DECODE_OK) {
			len = i.len;
			glue = log_glue(g, ng, &i, at + len);
			if (glue)
				snprintf(text, sizeof(text), "%s %s",
					 i.id == I_CALL_Jz ? "call" : "jmp", glue->name);
			else
				insn_format(&i, DECODE_64, at, text, sizeof(text));
		} else {
			snprintf(text, sizeof(text), ".byte 0x%02x", *p);
		}
		log_line(f, at, p, len, text);
		p += len;
		at += len;
		if (glue && i.id == I_CALL_Jz) {
			len = log_desc(f, j, jb, p, at, (size_t)(end - p), glue->place);
			p += len;
			at += len;
		}
	}
	fputc('\n', f);
}

void jit_log_block(const struct vcpu *v, const struct jit_block *jb)
{
	const struct kvm_options *o = &v->vm->options;
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	if (likely(!log_wanted(o, jb)))
		return;
	f = open_memstream(&text, &len);
	if (!f)
		return;
	fprintf(f, "----------------\n");
	if (o->jit_log & KVM_LOG_IN_ASM)
		log_guest(f, jb);
	if (o->jit_log & KVM_LOG_OUT_ASM)
		log_host(f, v->jitp, jb);
	fclose(f);
	for (size_t n = 0; n < len;) {
		ssize_t w = write(STDERR_FILENO, text + n, len - n);

		if (w <= 0)
			break; /* nobody is left to tell */
		n += (size_t)w;
	}
	free(text);
}
