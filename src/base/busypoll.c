/* See busypoll.h. */
#include "base/busypoll.h"

#include <sched.h>
#include <time.h>

#include "base/runner.h"

#define SCORE_ONE  1024u
#define SCORE_WAIT 16     /* waits that the score looks back over */
#define POLL_AWAY  10000u /* ns: a turn that took longer was somebody else's */

static uint64_t busypoll_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool busypoll_start(struct busypoll *p)
{
	if (!p->window)
		return false;
	p->start = p->turn = busypoll_now();
	return p->score >= SCORE_ONE / 4 && !runner_shared();
}

bool busypoll_turn(struct busypoll *p)
{
	uint64_t now;

	for (int i = 0; i < 8; i++)
		__builtin_ia32_pause();
	if (runner_shared())
		return false;
	sched_yield();
	now = busypoll_now();
	if (now - p->turn > POLL_AWAY || now - p->start >= p->window)
		return false;
	p->turn = now;
	return true;
}

void busypoll_learn(struct busypoll *p)
{
	bool was_short;

	if (!p->window)
		return;
	was_short = busypoll_now() - p->start < p->window;
	p->score = p->score - p->score / SCORE_WAIT + (was_short ? SCORE_ONE / SCORE_WAIT : 0);
}

unsigned busypoll_processors(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);

	return n > 0 ? (unsigned)n : 1;
}
