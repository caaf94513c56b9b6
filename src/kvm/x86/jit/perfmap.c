/*
 * The perf map: /tmp/perf-PID.map names generated code for Linux's perf.
 *
 * A line is "START SIZE NAME", hexadecimal, for each block as it is translated. perf reads the file
 * when it reports, so a place that was used twice has two lines and either name may be shown: a
 * cache that is never flushed (-accel tb-size=) has none. perf asks this file only about memory
 * that is not a file's; see jit_map_code.
 *
 * References: tools/perf/Documentation/jit-interface.txt in the kernel's tree.
 * Threads:    any; a line is one write(2) to a descriptor opened to append.
 * Host resources: the file; it stays when the process ends, since perf reads it then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "kvm/x86/jit/jit_int.h"

int jit_perfmap_open(struct err *e)
{
	char path[64];
	int fd;

	/*
	 * The name is known beforehand and the folder is everybody's: what is there may be an old
	 * process's map, or a link laid for us. Ours is always a new file.
	 */
	snprintf(path, sizeof(path), "/tmp/perf-%ld.map", (long)getpid());
	if (unlink(path) && errno != ENOENT)
		return err_set(e, errno, "%s is in the way: %s", path, strerror(errno));
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? err_set(e, errno, "%s: %s", path, strerror(errno)) : fd;
}

__attribute__((format(printf, 4, 5))) static void perfmap_line(const struct vcpu *v, uint64_t at,
							       size_t size, const char *fmt, ...)
{
	char line[160];
	va_list ap;
	int n = snprintf(line, sizeof(line), "%llx %zx ", (unsigned long long)at, size);

	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	if (write(v->vm->perf_fd, line, (size_t)n) < 0)
		return; /* a full disk costs names, not the guest */
}

void jit_perfmap_glue(const struct vcpu *v)
{
	struct jit_glue_name g[JIT_GLUE_NAMES];
	unsigned n = jit_glue_names(v->jitp, g);

	for (unsigned i = 0; i < n; i++)
		perfmap_line(v, g[i].at, g[i].size, "glue:%s", g[i].name);
}

void jit_perfmap_block(const struct vcpu *v, const struct jit_block *jb)
{
	perfmap_line(v, (uintptr_t)v->jitp->rx + jb->entry_mem, jb->size, "%s:0x%llx%s",
		     jit_ctx_name(jb->ctx), (unsigned long long)(jb->la + jb->made),
		     jb->trace ? " trace" : "");
}
