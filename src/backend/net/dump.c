/* See dump.h. */
#include "backend/net/dump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/log.h"

struct dump {
	struct netfilter f;
	FILE *out;
	uint32_t maxlen;
	uint8_t buf[NET_FRAME_MAX];
};

static void dump_stop(struct dump *d)
{
	log_warn("filter-dump %s: %s; the capture ends", d->f.id, strerror(errno));
	fclose(d->out);
	d->out = NULL;
}

static void dump_frame(struct netfilter *f, bool from_guest, const struct netpkt *pkt)
{
	struct dump *d = container_of(f, struct dump, f);
	struct timespec ts;
	uint32_t head[4];

	if (!d->out)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	head[0] = (uint32_t)ts.tv_sec;
	head[1] = (uint32_t)(ts.tv_nsec / 1000);
	head[2] = (uint32_t)MIN(pkt->len, (size_t)d->maxlen);
	head[3] = (uint32_t)pkt->len;
	netpkt_get(pkt, 0, d->buf, head[2]);
	if (fwrite(head, sizeof(head), 1, d->out) != 1 || fwrite(d->buf, head[2], 1, d->out) != 1 ||
	    fflush(d->out))
		dump_stop(d);
}

static void dump_free(struct netfilter *f)
{
	struct dump *d = container_of(f, struct dump, f);

	if (d->out && fclose(d->out))
		log_warn("filter-dump: %s", strerror(errno));
	free(d);
}

struct netfilter *net_dump_new(const char *id, const char *path, uint32_t maxlen, struct err *e)
{
	static const struct {
		uint32_t magic;
		uint16_t major, minor;
		uint32_t zone, sigfigs, snaplen, network;
	} head = { 0xa1b2c3d4, 2, 4, 0, 0, NET_DUMP_MAXLEN, 1 };
	struct dump *d = calloc(1, sizeof(*d));

	if (!d || !(d->f.id = strdup(id))) {
		free(d);
		err_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	d->f.frame = dump_frame;
	d->f.free = dump_free;
	d->maxlen = MIN(maxlen, (uint32_t)NET_DUMP_MAXLEN);
	d->out = fopen(path, "wbe");
	if (!d->out || fwrite(&head, sizeof(head), 1, d->out) != 1 || fflush(d->out)) {
		err_set(e, errno, "file=%s: %s", path, strerror(errno));
		if (d->out)
			fclose(d->out);
		free(d->f.id);
		free(d);
		return NULL;
	}
	return &d->f;
}
