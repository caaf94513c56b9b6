/*
 * The host engine: descriptors of /dev/kvm.
 *
 * Kicks. run->immediate_exit makes the next KVM_RUN return at once; a thread that is already inside
 * needs a signal. One real-time signal is blocked in vCPU threads and unblocked only inside KVM_RUN
 * (KVM_SET_SIGNAL_MASK), so that it is never delivered: KVM_RUN returns -EINTR and the signal is
 * taken from the queue. No kick is lost between the kernel's look at immediate_exit and its entry.
 *
 * References: [KVM-API 4.18, 5 "immediate_exit"].
 * Threads:      run: one at a time a vCPU; kick: any, also a signal handler.
 * Host resources: the signal SIGRTMAX-1 of the threads that run vCPUs.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libkvm/engine.h"

#define HOST_API_VERSION 12

static int host_signal(void)
{
	return SIGRTMAX - 1;
}

int lk_host_open(const struct libkvm_options *opt, union lk_handle *h, struct libkvm_err *e)
{
	const char *path = opt && opt->device ? opt->device : "/dev/kvm";
	int fd = opt && opt->device_fd > 0 ? opt->device_fd : open(path, O_RDWR | O_CLOEXEC);
	int v;

	if (fd < 0) {
		const char *cure = errno == ENOENT   ? "this host has no KVM"
				   : errno == EACCES ? "add the user to the group that owns it"
				   : errno == EPERM  ? "the sandbox forbids it"
						     : strerror(errno);

		return lk_fail(e, errno, "%s cannot be opened: %s", path, cure);
	}
	v = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (v != HOST_API_VERSION) {
		close(fd);
		return lk_fail(e, ENODEV, "%s: KVM API version %d, need %d", path, v,
			       HOST_API_VERSION);
	}
	h->fd = fd;
	return 0;
}

static int host_ioctl(union lk_handle h, unsigned long request, void *arg, union lk_handle *next)
{
	int r = ioctl(h.fd, request, arg);

	if (r < 0)
		return -errno;
	if (request == KVM_CREATE_VM || request == KVM_CREATE_VCPU) {
		if (!next) {
			close(r);
			return -EINVAL;
		}
		fcntl(r, F_SETFD, FD_CLOEXEC);
		next->fd = r;
		return 0;
	}
	return r;
}

static void host_close(union lk_handle h)
{
	close(h.fd);
}

static struct kvm_run *host_map(union lk_handle vcpu, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void host_unmap(struct kvm_run *run, size_t size)
{
	munmap(run, size);
}

static void host_written(union lk_handle vm, uint64_t gpa, uint64_t size)
{
	/* The processor's caches are coherent with our stores. */
	(void)vm;
	(void)gpa;
	(void)size;
}

/* First run in this thread: block the kick's signal outside KVM_RUN, open it inside. */
static int host_adopt(struct libkvm_vcpu *c)
{
	uint64_t room[2] = { 0 }; /* the mask's length and 8 bytes of mask */
	struct kvm_signal_mask *m = (struct kvm_signal_mask *)room;
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, host_signal());
	pthread_sigmask(SIG_BLOCK, &set, &old);
	sigdelset(&old, host_signal());
	m->len = 8;
	memcpy(m->sigset, &old, 8);
	return host_ioctl(c->h, KVM_SET_SIGNAL_MASK, m, NULL);
}

static int host_run(struct libkvm_vcpu *c)
{
	static __thread char here;
	static __thread int tid;
	int r;

	if (c->runner != &here) {
		r = host_adopt(c);
		if (r)
			return r;
		c->runner = &here;
	}
	if (!tid)
		tid = (int)syscall(SYS_gettid);
	atomic_store(&c->tid, tid);
	r = ioctl(c->h.fd, KVM_RUN, 0) < 0 ? -errno : 0;
	atomic_store(&c->tid, 0);
	if (r == -EINTR) {
		struct timespec none = { 0 };
		sigset_t set;

		/* First the flag: a kick from now on makes the next run return. */
		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		sigemptyset(&set);
		sigaddset(&set, host_signal());
		while (sigtimedwait(&set, NULL, &none) > 0)
			;
	}
	return r;
}

static void host_kick(struct libkvm_vcpu *c)
{
	int saved = errno, tid;

	__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = atomic_load(&c->tid);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, host_signal());
	errno = saved;
}

const struct lk_ops lk_host = {
	.kind = LIBKVM_HOST,
	.ioctl = host_ioctl,
	.close = host_close,
	.map = host_map,
	.unmap = host_unmap,
	.written = host_written,
	.run = host_run,
	.kick = host_kick,
};
