/*
 * Keys for the PS/2 keyboard behind the i8042. Threads: under the device lock.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "core/dev.h"

/* Queue the raw bytes of one key event (scan code set 2 as a real keyboard sends it). False: full.
 */
bool i8042_key(struct dev *d, const uint8_t *codes, unsigned n);
