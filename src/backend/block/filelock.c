/*
 * Locks on image files, as QEMU 2.10 and later take them; see file.h.
 *
 * There are permissions, numbered: 0 reads the disk's content, 1 writes, 3 changes the length. Who
 * has permission n holds a shared lock on byte 100+n; who does not want others to have it, on byte
 * 200+n. All locks are shared, so taking them never fails; afterwards one asks who else is there:
 * another's lock on 200+n forbids what we want, another's on 100+n is what we forbid. The bytes
 * need not exist, and the locks are those of open file descriptions (F_OFD_SETLK): two opens in one
 * process meet, too, and they end with the descriptor, however the process ends.
 *
 * Not modelled: permission 2 (writes that change no content), which only block jobs use.
 * References: fcntl(2) "Open file description locks"; QEMU's docs and, for the numbers, the locks
 * that qemu-img and qemu-system take, as /proc/locks shows them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "backend/block/block.h"
#include "backend/block/file.h"
#include "base/bits.h"
#include "base/log.h"

#define LOCK_HAS    100
#define LOCK_DENIES 200

enum { PERM_READ = 1, PERM_WRITE = 2, PERM_RESIZE = 8, PERM_ALL = 15 };

static int lock_byte(int fd, int cmd, short type, off_t at)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

	if (fcntl(fd, cmd, &l))
		return -errno;
	return cmd == F_OFD_GETLK && l.l_type != F_UNLCK ? -EAGAIN : 0;
}

static int lock_bits(int fd, unsigned bits, off_t base)
{
	int r = 0;

	for (unsigned i = 0; bits >> i && r == 0; i++)
		if (bits & BIT(i))
			r = lock_byte(fd, F_OFD_SETLK, F_RDLCK, base + i);
	return r;
}

/* Which of the bits somebody else has locked. */
static unsigned lock_others(int fd, unsigned bits, off_t base)
{
	unsigned met = 0;

	for (unsigned i = 0; bits >> i; i++)
		if ((bits & BIT(i)) && lock_byte(fd, F_OFD_GETLK, F_WRLCK, base + i) == -EAGAIN)
			met |= BIT(i);
	return met;
}

int block_file_lock(int fd, const struct block_opts *o, const char *path, struct err *e)
{
	unsigned has = PERM_READ | (o->writable ? PERM_WRITE | PERM_RESIZE : 0);
	unsigned denies = o->force_share ? 0 : PERM_WRITE | PERM_RESIZE;
	int r;

	if (o->no_lock)
		return 0;
	r = lock_bits(fd, has, LOCK_HAS);
	if (r == 0)
		r = lock_bits(fd, denies, LOCK_DENIES);
	if (r < 0 && r != -EAGAIN && r != -EACCES) {
		log_warn("%s: cannot be locked (%s): nothing stops another process from using it",
			 path, strerror(-r));
		return 0;
	}
	if (r == 0 && !lock_others(fd, has, LOCK_DENIES) && !lock_others(fd, denies, LOCK_HAS))
		return 0;
	if (o->writable)
		return err_set(e, EAGAIN,
			       "%s: in use by another process, or twice here: two cannot write to "
			       "an image",
			       path);
	return err_set(e, EAGAIN, "%s: being written by another process, or in use twice here",
		       path);
}
