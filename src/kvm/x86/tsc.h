/*
 * Guest TSC arithmetic, between tsc.c and pvclock.c.
 * References: [SDM3 17.17]. Threads: any.
 */
#pragma once
#include <stdint.h>

/* The host's counter now. */
uint64_t kvm_host_tsc(void);
/* A host count in units of khz; khz 0 or close to the host's: unchanged. */
uint64_t kvm_scale_tsc(uint32_t khz, uint64_t host_tsc);
