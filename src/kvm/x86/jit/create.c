/*
 * A vCPU's translator: made and taken down, with the memory that its code is in.
 *
 * The host must have what generated code uses (FSGSBASE, AVX, LAHF); otherwise the vCPU is
 * interpreted. References: see jit.h. Threads: the vCPU's own.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/x86/jit/check.h"
#include "kvm/x86/jit/jit_int.h"

#include "kvm/x86/interp/thunk.h"

#define HWCAP2_FSGSBASE_BIT 2 /* <asm/hwcap2.h> */

size_t jit_cache_size(const struct kvm_options *o)
{
	return (size_t)(o->jit_cache_mib ? o->jit_cache_mib : JIT_CACHE_MIB) << 20;
}

/*
 * Map the code twice. The file has a name that tells what the memory is; perf, however, would look
 * for its names in that file instead of the perf map, so for perf it is memory without one.
 */
static bool cache_map_code(struct jit *j, bool perf)
{
	int fd = perf ? -1 : memfd_create("kvasir-jit", MFD_CLOEXEC);

	if (!perf && (fd < 0 || ftruncate(fd, (off_t)j->code_size))) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	j->rw = mmap(NULL, j->code_size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | (perf ? MAP_ANONYMOUS : 0), fd, 0);
	if (!perf) {
		j->rx = mmap(NULL, j->code_size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		close(fd);
	} else if (j->rw != MAP_FAILED) { /* old size 0: a second mapping of the same memory */
		j->rx = mremap(j->rw, 0, j->code_size, MREMAP_MAYMOVE);
		if (j->rx != MAP_FAILED && mprotect(j->rx, j->code_size, PROT_READ | PROT_EXEC))
			return false;
	}
	return j->rw != MAP_FAILED && j->rx != MAP_FAILED;
}

static void create_unmap_one(void *p, size_t len)
{
	if (p && p != MAP_FAILED)
		munmap(p, len);
}

/* What is mapped, all or only the first of it. */
static void create_unmap(struct vcpu *v, struct jit *j)
{
	create_unmap_one(j->rw, j->code_size);
	create_unmap_one(j->rx, j->code_size);
	create_unmap_one(j->meta, j->meta_size);
	create_unmap_one(j->descs, j->max_descs * sizeof(*j->descs));
	create_unmap_one(v->jit.places, JIT_PLACES * sizeof(*v->jit.places));
	v->jit.places = NULL;
}

int jit_new(struct vcpu *v)
{
	struct jit *j;
	struct emit e;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) || !host_has_feature(FEAT_AVX) ||
	    !host_has_feature(FEAT_LAHF))
		return -ENOTSUP;
	j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->v = v;
	j->code_size = jit_cache_size(&v->vm->options);
	/* as much as code of that size has been seen to need, and half as much again */
	j->meta_size = j->code_size / 2 * 3;
	j->max_descs = (uint32_t)(j->code_size / 32);
	j->heat = v->vm->options.jit_heat ? v->vm->options.jit_heat : JIT_HEAT;
	j->trace_heat = v->vm->options.jit_trace ? v->vm->options.jit_trace : JIT_TRACE_HEAT;
	if (j->trace_heat == ~0u)
		j->trace_heat = 0;
	else
		j->rec = jit_trace_rec_new();
	if (j->trace_heat && !j->rec)
		goto fail;
	j->counting = v->vm->options.jit_profile;
	if (!cache_map_code(j, v->vm->perf_fd >= 0))
		goto fail;
	j->meta = mmap(NULL, j->meta_size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	j->descs = mmap(NULL, j->max_descs * sizeof(*j->descs), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	v->jit.places = mmap(NULL, JIT_PLACES * sizeof(*v->jit.places), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (j->meta == MAP_FAILED || (void *)j->descs == MAP_FAILED ||
	    (void *)v->jit.places == MAP_FAILED)
		goto fail;
	v->jit.meta = j->meta;
	v->jit.sample = JIT_SAMPLE;
	emit_init(&e, j->rw, 16384, (uintptr_t)j->rx);
	jit_glue(j, &e);
	emit_align(&e, 64);
	if (e.full)
		goto fail;
	j->glue_end = j->used = emit_size(&e);
	v->jitp = j;
	v->jit.self = v;
	v->jit.host_mxcsr = 0x1f80;
	v->jit.host_fcw = 0x37f;
	for (unsigned c = 0; c < JIT_CTXS; c++) {
		j->nlog[c] = JIT_TLB_SIZE; /* overflowed: the flush clears all */
	}
	jit_tlb_flush(v);
	jit_new_context(v);
	if (v->vm->perf_fd >= 0)
		jit_perfmap_glue(v);
	return 0;
fail:
	create_unmap(v, j);
	free(j->rec);
	free(j);
	return -ENOMEM;
}

void jit_free(struct vcpu *v)
{
	struct jit *j = v->jitp;

	if (!j)
		return;
	create_unmap(v, j);
	jit_check_free(v);
	free(j->rec);
	jit_profile_free(j);
	free(j);
	v->jitp = NULL;
}
