/*
 * The rows that were run, in a file: see coverage.h. Part of builds with -Dinsn_coverage=true only.
 *
 * The file is KVASIR_COVERAGE_DIR/PID.rows: a byte for each row, then the rows' names, a line each.
 * It is mapped, so that it is right however the process ends. A constructor and a global variable,
 * which no other file may have, keep the hook one store.
 */
#include "kvm/x86/interp/coverage.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "x86/insn.h"

static uint8_t coverage_nowhere[I_COUNT];
uint8_t *coverage_rows = coverage_nowhere;

__attribute__((constructor)) static void coverage_open(void)
{
	const char *dir = getenv("KVASIR_COVERAGE_DIR");
	char path[512];
	FILE *f;
	void *p;
	int fd;

	if (!dir)
		return;
	snprintf(path, sizeof(path), "%s/%d.rows", dir, (int)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return;
	f = fdopen(fd, "w");
	if (!f) {
		close(fd);
		return;
	}
	fwrite(coverage_nowhere, 1, I_COUNT, f);
	for (unsigned i = 0; i < I_COUNT; i++)
		fprintf(f, "%s\n", insn_info[i].name);
	if (fflush(f) == 0) {
		p = mmap(NULL, I_COUNT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED)
			coverage_rows = p;
	}
	fclose(f);
}
