/*
 * See lock.h. A plain mutex with an owner in front of it: recursion is then a compare of our own,
 * and biglock_held() can be asked by any thread.
 */
#include "core/lock.h"

#include "base/bug.h"
#include "core/thread.h"

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
	int self = thread_id();

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

unsigned biglock_suspend(struct biglock *l)
{
	unsigned depth = l->depth;

	BUG_ON(!biglock_held(l));
	l->depth = 1;
	biglock_unlock(l);
	return depth;
}

void biglock_resume(struct biglock *l, unsigned depth)
{
	biglock_lock(l);
	l->depth = depth;
}

bool biglock_held(const struct biglock *l)
{
	return atomic_load_explicit(&l->owner, memory_order_relaxed) == thread_id();
}
