/*
 * See lock.h. A plain mutex with an owner in front of it: recursion is then a compare of our own,
 * and biglock_held() can be asked by any thread.
 */
#include "core/lock.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "base/bug.h"

static int biglock_self(void)
{
	static _Thread_local int tid; /* of the thread, so not shared; gettid costs a system call */

	if (!tid)
		tid = (int)syscall(SYS_gettid);
	return tid;
}

void biglock_init(struct biglock *l)
{
	pthread_mutex_init(&l->mutex, NULL);
	l->owner = 0;
	l->depth = 0;
}

void biglock_destroy(struct biglock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

void biglock_lock(struct biglock *l)
{
	int self = biglock_self();

	if (atomic_load_explicit(&l->owner, memory_order_relaxed) != self) {
		pthread_mutex_lock(&l->mutex);
		atomic_store_explicit(&l->owner, self, memory_order_relaxed);
	}
	l->depth++;
}

void biglock_unlock(struct biglock *l)
{
	BUG_ON(!biglock_held(l));
	if (--l->depth)
		return;
	atomic_store_explicit(&l->owner, 0, memory_order_relaxed);
	pthread_mutex_unlock(&l->mutex);
}

bool biglock_held(const struct biglock *l)
{
	return atomic_load_explicit(&l->owner, memory_order_relaxed) == biglock_self();
}
