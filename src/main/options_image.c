/*
 * A file name without an option: a kernel or a disk image, told by content.
 *
 * A kernel is what a loader of firmware/ takes; a qcow2 image is known by its magic; whatever looks
 * like neither, and not like something that is surely wrong (a compressed file, a script), is a raw
 * disk. A guest that owns a raw disk can make it look like a kernel: it then boots what it wrote
 * itself, in the machine that it is in anyway. It cannot make it look like an image that names
 * files of the host: a disk that is not called raw by the user (format=raw) is opened as probed,
 * and then the block layer refuses such a first sector (block_open).
 * Threads: before the machine exists. References: [LINUX-BOOT], [MULTIBOOT 3.1].
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "main/options.h"

#define HEAD 8192 /* a multiboot header lies within */

static uint32_t head_u32(const uint8_t *head, size_t at)
{
	uint32_t v;

	memcpy(&v, head + at, sizeof(v));
	return v;
}

/* Something that -kernel takes or has a good message for. */
static bool image_is_kernel(const uint8_t *head, size_t n)
{
	/* clang-format off */
	static const struct { uint16_t off, len; const char *magic; } known[] = {
		{ 0x202, 4, "HdrS" },          /* bzImage */
		{ 0,     4, "\x7f" "ELF" },
		{ 0,     2, "\x1f\x8b" },      /* gzip */
		{ 0,     5, "\xfd" "7zXZ" },
		{ 0,     4, "\x28\xb5\x2f\xfd" }, /* zstd */
		{ 0,     3, "BZh" },
		{ 0,     5, "07070" },         /* cpio */
		{ 0,     7, "!<arch>" },
		{ 0,     2, "#!" },
	};
	/* clang-format on */

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].off + known[i].len <= n &&
		    !memcmp(head + known[i].off, known[i].magic, known[i].len))
			return true;
	for (size_t at = 0; at + 12 <= n; at += 4) {
		uint32_t magic = head_u32(head, at), flags = head_u32(head, at + 4);

		if (magic == 0x1badb002 && magic + flags + head_u32(head, at + 8) == 0)
			return true;
	}
	return false;
}

/* False: a raw disk, or an image of a format. What cannot be read is left to the kernel's loader to
 * complain about. */
static bool image_looks_like_kernel(const char *path)
{
	uint8_t head[HEAD];
	struct stat st;
	bool kernel = true;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return true;
	if (fstat(fd, &st) == 0 &&
	    (S_ISBLK(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size >= 512))) {
		ssize_t n = pread(fd, head, sizeof(head), 0);

		kernel = n < 0 || image_is_kernel(head, (size_t)n);
	}
	close(fd);
	return kernel;
}

int options_image(struct options *o, const char *path, struct err *e)
{
	if (!image_looks_like_kernel(path)) {
		if (!o->disk)
			o->disk = path;
		return options_disk_file(o, path, e);
	}
	if (o->cfg.kernel && access(path, R_OK) < 0)
		return err_set(e, errno,
			       "'%s': %s; there is a kernel already ('%s'), and options begin "
			       "with '-'",
			       path, strerror(errno), o->cfg.kernel);
	if (o->cfg.kernel)
		return err_set(e, EINVAL,
			       "'%s': there is a kernel already ('%s'); a disk that begins like a "
			       "kernel needs -drive",
			       path, o->cfg.kernel);
	o->cfg.kernel = path;
	return 0;
}

int options_image_check(const struct options *o, struct err *e)
{
	if (o->cfg.kernel)
		return 0;
	if (!o->disk && !o->cfg.ndrives)
		return err_set(e, EINVAL,
			       "nothing to boot: give a kernel (kvasir vmlinuz, or -kernel FILE), "
			       "and a disk image if you have one; -help lists all options");
	return err_set(e, ENOTSUP,
		       "'%s': there is no firmware yet that could boot a disk: take the kernel and "
		       "initrd out of it (virt-get-kernel -a FILE) and add -kernel vmlinuz -initrd "
		       "initrd.img -append 'root=/dev/vda1 console=ttyS0'; ./run --image makes an "
		       "image with both",
		       o->disk ? o->disk : o->cfg.drive[0].id);
}
