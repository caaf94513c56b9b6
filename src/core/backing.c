/*
 * See backing.h.
 *
 * By default RAM is anonymous: hosts give huge pages to it, and hardly any host gives them to a
 * memfd (shmem_enabled is "never" out of the box). Huge pages are worth a third of the speed of a
 * disk with O_DIRECT: a request of 1 MiB is then one segment instead of 256, which is more than
 * many disks take in one piece. A memfd is for those who share RAM with other processes.
 */
#include "core/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bits.h"

#define GMEM_HUGE (2ull << 20)

void gmem_backing_put(struct gmem_backing *k)
{
	if (--k->users)
		return;
	munmap(k->host, k->size);
	if (k->fd >= 0)
		close(k->fd);
	free(k);
}

static uint64_t gmem_page(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || fs.f_type != HUGETLBFS_MAGIC ? PAGE_SIZE : (uint64_t)fs.f_bsize;
}

/* Huge pages come whole: size must be a multiple of the file system's. */
static int gmem_check_huge(int fd, uint64_t size, struct err *e)
{
	uint64_t page = gmem_page(fd);

	if (size % page == 0)
		return 0;
	return err_set(e, EINVAL,
		       "guest RAM of %" PRIu64 " KiB is not a multiple of the %" PRIu64
		       " KiB huge pages",
		       size >> 10, page >> 10);
}

static int gmem_open_path(const char *path, struct err *e)
{
	struct stat st;
	char *name;
	int fd;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		return fd < 0 ? err_set(e, errno, "mem-path %s: %s", path, strerror(errno)) : fd;
	}
	if (asprintf(&name, "%s/kvasir-ram-XXXXXX", path) < 0)
		return err_set(e, ENOMEM, "mem-path: out of memory");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		err_set(e, errno, "mem-path %s: cannot create a file there: %s", path,
			strerror(errno));
	else
		unlink(name); /* the memory goes with the process */
	free(name);
	return fd < 0 ? -e->code : fd;
}

static int gmem_open(const char *name, uint64_t size, const struct gmem_opts *o, struct err *e)
{
	struct stat st;
	int fd;

	if (o->path) {
		fd = gmem_open_path(o->path, e);
	} else {
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING |
						(o->hugepages ? MFD_HUGETLB : 0));
		if (fd < 0)
			err_set(e, errno, "guest RAM: %s", strerror(errno));
	}
	if (fd < 0)
		return e ? -e->code : -EIO;
	if (gmem_check_huge(fd, size, e)) {
		close(fd);
		return -EINVAL;
	}
	/* A file that is larger stays so: it may be a saved RAM image. */
	if (fstat(fd, &st) ||
	    (!(o->path && (uint64_t)st.st_size >= size) && ftruncate(fd, (off_t)size))) {
		int rc = err_set(e, errno, "guest RAM of %" PRIu64 " MiB: %s", size >> 20,
				 strerror(errno));
		close(fd);
		return rc;
	}
	/* Whoever gets the fd (vhost-user) must not be able to take pages away under us. */
	if (!o->path)
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	return fd;
}

/*
 * Where huge pages of the host begin: the mapping must start at a multiple of their size, or the
 * host's (and a hardware KVM's) page tables cannot use them. Older kernels do not see to it.
 */
static void *gmem_map_aligned(uint64_t size, uint64_t page, int flags, int fd)
{
	uint64_t align = size < GMEM_HUGE ? page : MAX(page, GMEM_HUGE), more = align - PAGE_SIZE;
	uint64_t before;
	uint8_t *room, *p;

	room = mmap(NULL, size + more, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (room == MAP_FAILED)
		return MAP_FAILED;
	before = -(uintptr_t)room & (align - 1);
	p = mmap(room + before, size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE | MAP_FIXED, fd,
		 0);
	if (p == MAP_FAILED) {
		int saved = errno;

		munmap(room, size + more);
		errno = saved;
		return MAP_FAILED;
	}
	if (before)
		munmap(room, before);
	if (more > before)
		munmap(p + size, more - before);
	return p;
}

/*
 * All pages are there from now on. Before Linux 5.14 each is touched instead, and when there are
 * none left the host's OOM killer says so.
 */
static int gmem_populate(uint8_t *p, uint64_t size)
{
	if (!madvise(p, size, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
	for (volatile uint8_t *at = p; at < p + size; at += PAGE_SIZE)
		*at = *at;
	return 0;
}

static bool gmem_wants_file(const struct gmem_opts *o)
{
	return o->path || o->hugepages || o->shared;
}

struct gmem_backing *gmem_backing_new(const char *name, uint64_t size, const struct gmem_opts *o,
				      struct err *e)
{
	struct gmem_backing *k = calloc(1, sizeof(*k));
	struct err local = { 0 };
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *p;

	e = e ? e : &local;
	if (!k) {
		err_set(e, ENOMEM, "guest RAM: out of memory");
		return NULL;
	}
	k->size = size;
	k->users = 1;
	k->private_map = o->private_map;
	k->fd = -1;
	k->page = PAGE_SIZE;
	if (gmem_wants_file(o)) {
		k->fd = gmem_open(name, size, o, e);
		if (k->fd < 0) {
			free(k);
			return NULL;
		}
		k->page = gmem_page(k->fd);
		flags = o->private_map ? MAP_PRIVATE : MAP_SHARED;
	}
	p = gmem_map_aligned(size, k->page, flags, k->fd);
	if (p == MAP_FAILED) {
		err_set(e, errno, "guest RAM of %" PRIu64 " MiB%s: %s", size >> 20,
			o->hugepages ? " in huge pages" : "", strerror(errno));
		if (k->fd >= 0)
			close(k->fd);
		free(k);
		return NULL;
	}
	k->host = p;
	/* Advice only: kernels without these are fine. */
	if (!o->thp_off && size >= GMEM_HUGE)
		madvise(p, size, MADV_HUGEPAGE);
	if (o->no_dump)
		madvise(p, size, MADV_DONTDUMP);
	/* A child (tap's script) has no use for it, and would make us copy what we write. */
	madvise(p, size, MADV_DONTFORK);
	if (o->prealloc && (k->fd < 0 || o->private_map ? gmem_populate(p, size)
							: posix_fallocate(k->fd, 0, (off_t)size))) {
		err_set(e, ENOMEM, "guest RAM: the host cannot provide %" PRIu64 " MiB now",
			size >> 20);
		gmem_backing_put(k);
		return NULL;
	}
	return k;
}

/* [off, off+len) of a backing. */
int gmem_backing_discard(const struct gmem_backing *k, uint64_t off, uint64_t len)
{
	uint64_t from = (off + k->page - 1) & ~(k->page - 1), to = (off + len) & ~(k->page - 1);

	/* What a private mapping would show is the file's contents, not zeroes. */
	if (k->private_map && k->fd >= 0)
		return -ENOTSUP;
	if (from >= to)
		return 0;
	if (k->fd < 0)
		return madvise(k->host + from, to - from, MADV_DONTNEED) ? -errno : 0;
	return fallocate(k->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
			 (off_t)(to - from))
		       ? -errno
		       : 0;
}
