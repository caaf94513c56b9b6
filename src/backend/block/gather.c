/* See gather.h. References: sysfs's /sys/dev/block, virtio 1.2 section 5.2. */
#include "backend/block/gather.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define GATHER_PIECES 8     /* from so many on */
#define GATHER_PIECE  16384 /* bytes, on average, that are copied in the time of one piece */

struct gather {
	void *buf[GATHER_BUFFERS]; /* NULL: not there yet */
	bool used[GATHER_BUFFERS];
};

bool gather_on_virtio(int fd)
{
	char link[64], path[512];
	struct stat st;
	ssize_t n;
	dev_t d;

	if (fstat(fd, &st))
		return false;
	d = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(d), minor(d));
	/* as ../../devices/pci0000:00/0000:00:05.0/virtio1/block/vda/vda1 */
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return false;
	path[n] = 0;
	return strstr(path, "/virtio") != NULL;
}

struct gather *gather_new(void)
{
	return calloc(1, sizeof(struct gather));
}

void gather_free(struct gather *g)
{
	for (int i = 0; g && i < GATHER_BUFFERS; i++)
		if (g->buf[i])
			munmap(g->buf[i], GATHER_SIZE);
	free(g);
}

bool gather_worth(const struct iovecs *v)
{
	return v->n >= GATHER_PIECES && v->len <= GATHER_SIZE && v->len / v->n < GATHER_PIECE;
}

/* Aligned to its size, or it would not be one huge page. */
static void *gather_map(void)
{
	char *p = mmap(NULL, 2 * GATHER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	size_t before;

	if (p == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)p % GATHER_SIZE;
	if (before)
		munmap(p, before);
	munmap(p + before + GATHER_SIZE, GATHER_SIZE - before);
	madvise(p + before, GATHER_SIZE, MADV_HUGEPAGE); /* only for speed */
	return p + before;
}

void *gather_get(struct gather *g)
{
	for (int i = 0; i < GATHER_BUFFERS; i++) {
		if (g->used[i])
			continue;
		if (!g->buf[i])
			g->buf[i] = gather_map();
		g->used[i] = g->buf[i] != NULL;
		return g->buf[i];
	}
	return NULL;
}

void gather_put(struct gather *g, void *buf)
{
	for (int i = 0; i < GATHER_BUFFERS; i++)
		if (g->buf[i] == buf)
			g->used[i] = false;
}
