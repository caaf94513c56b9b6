/*
 * What O_DIRECT wants; see file.h. New kernels tell by statx; others are asked by reading.
 * References: statx(2) "STATX_DIOALIGN" (Linux 6.1).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/block/file.h"

#define DIRECT_MAX 4096u

static bool direct_tries(int fd, void *buf, size_t len)
{
	return pread(fd, buf, len, 0) >= 0 || errno != EINVAL;
}

void block_file_probe_direct(int fd, uint64_t len, uint32_t *request, uint32_t *memory)
{
#ifdef STATX_DIOALIGN
	struct statx sx = { 0 };

	if (!syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
	    (sx.stx_mask & STATX_DIOALIGN) && sx.stx_dio_offset_align && sx.stx_dio_mem_align) {
		*request = sx.stx_dio_offset_align;
		*memory = sx.stx_dio_mem_align;
		return;
	}
#endif
	void *p;

	*request = *memory = DIRECT_MAX;
	if (!len || posix_memalign(&p, DIRECT_MAX, 2 * DIRECT_MAX))
		return; /* an empty file takes any read: no knowledge, so be careful */
	for (uint32_t a = 512; a < DIRECT_MAX; a *= 2)
		if (direct_tries(fd, p, a)) {
			*request = a;
			break;
		}
	for (uint32_t a = 512; a < DIRECT_MAX; a *= 2)
		if (direct_tries(fd, (char *)p + a, *request)) {
			*memory = a;
			break;
		}
	free(p);
}
