/*
 * Opening a kernel, initrd or module file.
 * Threads: the caller's.
 */
#include "firmware/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAX (8ull << 30) /* nothing bootable is larger; stops reading /dev/zero */

static int image_read_stream(struct image *i, int fd, struct err *e)
{
	size_t cap = 1 << 16, n = 0;
	uint8_t *buf = malloc(cap);

	while (buf) {
		ssize_t r = read(fd, buf + n, cap - n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			free(buf);
			return err_set(e, errno, "%s: %s", i->name, strerror(errno));
		}
		if (r == 0) {
			i->data = buf;
			i->size = n;
			i->owned = true;
			return 0;
		}
		n += (size_t)r;
		if (n == cap) {
			uint8_t *more = cap * 2 <= IMAGE_MAX ? realloc(buf, cap * 2) : NULL;

			if (!more)
				break;
			buf = more;
			cap *= 2;
		}
	}
	free(buf);
	return err_set(e, EFBIG, "%s: too large to load", i->name);
}

int image_open(struct image *i, const char *path, struct err *e)
{
	struct stat st;
	void *p;
	int r = 0, fd;

	*i = (struct image){ .name = path };
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		r = err_set(e, errno, "%s: %s", path, strerror(errno));
	else if (S_ISDIR(st.st_mode))
		r = err_set(e, EISDIR, "%s: is a directory", path);
	else if (!S_ISREG(st.st_mode))
		r = image_read_stream(i, fd, e);
	else if (st.st_size == 0)
		r = err_set(e, ENOEXEC, "%s: the file is empty", path);
	else {
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			r = err_set(e, errno, "%s: %s", path, strerror(errno));
		} else {
			i->data = p;
			i->size = (uint64_t)st.st_size;
			i->mapped = true;
		}
	}
	close(fd);
	return r;
}

void image_close(struct image *i)
{
	if (i->mapped)
		munmap((void *)i->data, i->size);
	if (i->owned)
		free((void *)i->data);
	*i = (struct image){ 0 };
}
