/*
 * What the sanitizers have to be told.
 *
 * References: clang's ThreadSanitizer, compiler-rt's tsan_interface_ann.cpp. Threads: any.
 */
#pragma once
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

/* Stack frames are several times larger than usual. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#ifdef __SANITIZE_THREAD__
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *p, size_t size,
			     const char *what);
#endif

/*
 * [p, p + size) is guest memory: what vCPUs and devices race for there is the guest's business and
 * no report of ours. Attributes on the accessing functions do not do: they are inlined.
 */
static inline void sanitize_guest_memory(void *p, size_t size)
{
#ifdef __SANITIZE_THREAD__
	AnnotateBenignRaceSized(__FILE__, __LINE__, p, size, "guest memory");
#else
	(void)p;
	(void)size;
#endif
}
