/*
 * Guest TSC arithmetic, between tsc.c and pvclock.c.
 * References: [SDM3 17.17]. Threads: any.
 */
#pragma once
#include <stdint.h>

/* Take the first reading of the calibration: kvm_host_tsc_khz then waits for the rest of 10 ms
 * only. */
void kvm_tsc_calibration_start(void);
/* The host's counter now. */
uint64_t kvm_host_tsc(void);
/* A host count in units of khz; khz 0 or close to the host's: unchanged. */
uint64_t kvm_scale_tsc(uint32_t khz, uint64_t host_tsc);
