/*
 * On which processors the threads of this process run that wait for each other, and what to do when
 * two of them share one.
 *
 * Why: a Linux that is a guest itself (the machines without /dev/kvm are) takes a processor that
 * its host has put to sleep for a busy one, and so puts a thread that is woken on the processor of
 * the one that wakes it. A vCPU that rings a doorbell then keeps the loop that shall hear it from
 * running for as long as it has something else to do, milliseconds, while another processor does
 * nothing: writes of 1 MiB at queue depth 32 reached the disk in bursts, and 4 GiB/s instead
 * of 4.9.
 *
 * A thread says "here" when it begins to work and whenever it asks another one for something, and
 * "gone" before it waits. None of these calls is needed for a correct result.
 *
 * Threads: each call is about the calling thread.
 */
#pragma once
#include <stdbool.h>

/* The calling thread works, on the processor it is on now. */
void runner_here(void);

/* It does not any more. */
void runner_gone(void);

/* Another thread that is "here" was last seen on this processor. The caller is "gone". */
bool runner_shared(void);

/* The caller goes to sleep until somebody asks for something, or was woken. */
void runner_asleep(bool on);

/*
 * The caller has asked another thread for something and goes on itself: if that one was put on this
 * processor, let it run now. Nothing when nobody is asleep, else one sched_yield; when that has
 * given the processor to somebody else for long (a busy host), it does nothing for 100 ms.
 */
void runner_handoff(void);

/*
 * The caller, "gone", has been woken: if it shares its processor and may use others, move to one of
 * them. It is not pinned: its affinity is as before afterwards, so the next wake-up may bring it
 * back. At most 50 times a second; when the move took long (the others are busy), not for a second.
 */
void runner_apart(void);
