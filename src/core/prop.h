/* Properties of devices, for dev.c. Users call dev_set_prop and dev_help of dev.h. */
#pragma once
#include "core/dev.h"

int prop_set_defaults(struct dev *d, struct err *e) must_check;
void prop_free_all(struct dev *d);
