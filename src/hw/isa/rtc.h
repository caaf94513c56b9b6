/*
 * What a machine sets in the real-time clock's CMOS memory. Threads: under the device lock.
 */
#pragma once
#include <stdint.h>

#include "core/dev.h"

/* Memory size bytes of the PC convention: 15h-18h, 30h-31h, 34h-35h, 5Bh-5Dh. Survive resets. */
void rtc_set_memory(struct dev *d, uint64_t below_4g, uint64_t above_4g);

/* CMOS byte index (0Eh..7Fh, not the clock's own registers; others are ignored). Survives resets.
 */
void rtc_set_nvram(struct dev *d, uint8_t index, uint8_t value);
uint8_t rtc_get_nvram(const struct dev *d, uint8_t index);
