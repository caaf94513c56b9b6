/*
 * All device classes, from hw/devices.def. Threads: constant data.
 */
#pragma once
#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "core/dev.h"

/* The class users call name, or NULL with e filled (nearest name suggested). */
const struct dev_class *hw_class(const char *name, struct err *e);

/* Class number i, NULL at the end; and its name in devices.def (the C and test file name). */
const struct dev_class *hw_class_at(size_t i);
const char *hw_class_file(size_t i);

/* One line a class: what -device help prints. */
void hw_help(FILE *out);

/* The classes, for machine files that create them directly. */
#define DEVICE(n) extern const struct dev_class n##_class;
#include "hw/devices.def"
#undef DEVICE
