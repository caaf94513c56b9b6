/* See registry.h. */
#include "hw/registry.h"

#include <errno.h>
#include <string.h>

#include "core/nearest.h"

static const struct {
	const struct dev_class *cls;
	const char *file;
} hw_classes[] = {
#define DEVICE(n) { &n##_class, #n },
#include "hw/devices.def"
#undef DEVICE
};

const struct dev_class *hw_class_at(size_t i)
{
	return i < ARRAY_SIZE(hw_classes) ? hw_classes[i].cls : NULL;
}

const char *hw_class_file(size_t i)
{
	return i < ARRAY_SIZE(hw_classes) ? hw_classes[i].file : NULL;
}

const struct dev_class *hw_class(const char *name, struct err *e)
{
	const char *words[ARRAY_SIZE(hw_classes)];
	char hint[80];

	for (size_t i = 0; i < ARRAY_SIZE(hw_classes); i++) {
		words[i] = hw_classes[i].cls->name;
		if (!strcmp(words[i], name))
			return hw_classes[i].cls;
	}
	err_set(e, ENOENT, "unknown device %s%s; -device help lists all", name,
		text_nearest_hint(hint, sizeof(hint), name, words, ARRAY_SIZE(words)));
	return NULL;
}

void hw_help(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(hw_classes); i++)
		fprintf(out, "%-16s %s\n", hw_classes[i].cls->name, hw_classes[i].cls->desc);
}
