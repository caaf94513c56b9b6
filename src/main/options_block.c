/* See options_block.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "main/options_block.h"

int block_opt_word(struct keyval *k, const char *key, const struct block_word *w, int *v,
		   struct err *e)
{
	const char *text = keyval_get(k, key);
	char all[128] = "";

	if (!text)
		return 0;
	for (const struct block_word *i = w; i->name; i++) {
		if (!strcmp(i->name, text)) {
			*v = i->value;
			return 0;
		}
		strcat(strcat(all, *all ? ", " : ""), i->name);
	}
	return err_set(e, EINVAL, "%s: %s=%s: %s exist", k->option, key, text, all);
}

int block_opt_size(struct keyval *k, const char *key, uint64_t *v, struct err *e)
{
	const char *text = keyval_get(k, key);

	return text ? keyval_size(k->option, text, 1, v, e) : 0;
}

int block_opt_string(struct options *o, struct keyval *k, const char *key, const char **v,
		     struct err *e)
{
	const char *text = keyval_get(k, key);

	if (!text)
		return 0;
	*v = options_keep(o, text, e);
	return *v ? 0 : -ENOMEM;
}

int block_opt_aio(struct keyval *k, const char *key, struct block_opts *b, struct err *e)
{
	static const struct block_word words[] = { { "io_uring", BLOCK_AIO_IO_URING },
						   { "threads", BLOCK_AIO_THREADS },
						   { NULL, 0 } };
	const char *text = keyval_get(k, key);
	int v = b->aio, r;

	if (text && !strcmp(text, "native"))
		return err_set(e, ENOTSUP,
			       "%s: %s=native (Linux AIO) is not supported; io_uring, the "
			       "default, does what it does",
			       k->option, key);
	r = block_opt_word(k, key, words, &v, e);
	b->aio = (uint8_t)v;
	return r;
}

int block_opt_common(struct keyval *k, struct block_opts *b, struct err *e)
{
	static const struct block_word discard[] = {
		{ "ignore", 0 }, { "off", 0 }, { "unmap", 1 }, { "on", 1 }, { NULL, 0 }
	};
	static const struct block_word zeroes[] = { { "off", DETECT_ZEROES_OFF },
						    { "on", DETECT_ZEROES_ON },
						    { "unmap", DETECT_ZEROES_UNMAP },
						    { NULL, 0 } };
	int unmap = b->discard_unmap, detect = b->detect_zeroes;
	int r = block_opt_word(k, "discard", discard, &unmap, e);

	if (r == 0)
		r = block_opt_word(k, "detect-zeroes", zeroes, &detect, e);
	b->discard_unmap = unmap;
	b->detect_zeroes = (uint8_t)detect;
	if (r == 0 && detect == DETECT_ZEROES_UNMAP && !unmap)
		r = err_set(e, EINVAL, "%s: detect-zeroes=unmap needs discard=unmap", k->option);
	if (r == 0)
		r = keyval_bool(k, "cache.direct", &b->cache_direct, e);
	if (r == 0)
		r = keyval_bool(k, "cache.no-flush", &b->cache_no_flush, e);
	if (r == 0)
		r = block_opt_aio(k, "aio", b, e);
	if (r == 0)
		r = block_opt_size(k, "offset", &b->raw_offset, e);
	if (r == 0)
		r = block_opt_size(k, "size", &b->raw_size, e);
	if (r == 0)
		r = block_opt_size(k, "cache-size", &b->cache_size, e);
	if (r == 0 && keyval_get(k, "lazy-refcounts")) {
		b->lazy_refcounts_set = true;
		r = keyval_bool(k, "lazy-refcounts", &b->lazy_refcounts, e);
	}
	if (r == 0)
		r = keyval_bool(k, "force-share", &b->force_share, e);
	return r;
}

int block_opt_locking(struct keyval *k, const char *key, struct block_opts *b, struct err *e)
{
	static const struct block_word words[] = {
		{ "auto", 0 }, { "on", 0 }, { "off", 1 }, { NULL, 0 }
	};
	int off = b->no_lock, r = block_opt_word(k, key, words, &off, e);

	b->no_lock = off;
	return r;
}
