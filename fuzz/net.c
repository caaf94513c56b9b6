/*
 * Networks: frames and their headers through the offloads and the segment-size rewriting of user
 * networking, a peer's bytes through the framing of streams, and the texts of options. The first
 * byte says which. Found by it: crashes, sanitizer reports, pieces that are longer than their
 * frame allows, frames outside of what came, and a cut that does not end.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/frames.h"
#include "backend/net/offload.h"
#include "backend/net/opts.h"
#include "backend/net/segment.h"
#include "base/bits.h"
#include "base/bug.h"
#include "fuzz.h"

struct sink {
	size_t most;    /* bytes that a piece may have */
	unsigned n;     /* pieces */
	unsigned limit; /* refuse after so many, once */
};

static bool sink_take(void *opaque, const struct netpkt *pkt)
{
	struct sink *k = opaque;
	size_t sum = 0;
	unsigned char last = 0;

	if (k->n == k->limit) {
		k->limit = ~0u;
		return false;
	}
	BUG_ON(pkt->n > NET_IOV_MAX);
	for (unsigned i = 0; i < pkt->n; i++) {
		sum += pkt->iov[i].iov_len;
		for (size_t b = 0; b < pkt->iov[i].iov_len; b++)
			last ^= ((const uint8_t *)pkt->iov[i].iov_base)[b];
	}
	__asm__ volatile("" ::"r"(last)); /* every byte is read */
	BUG_ON(sum != pkt->len || sum > k->most);
	BUG_ON(++k->n > 70000);
	return true;
}

/* Accepts, sizes of pieces, header, frame. */
static void fuzz_finish(const uint8_t *p, size_t n)
{
	struct iovec iov[NET_IOV_MAX];
	struct netpkt pkt = { .iov = iov };
	unsigned done = 0, accepts, step;
	struct sink k = { 0 };
	uint8_t *frame;
	bool lost;

	if (n < 3 + sizeof(pkt.hdr))
		return;
	accepts = p[0];
	step = p[1] & 1 ? p[1] : 0; /* often as many pieces as there may be */
	k.limit = p[2];
	memcpy(&pkt.hdr, p + 3, sizeof(pkt.hdr));
	p += 3 + sizeof(pkt.hdr);
	n -= 3 + sizeof(pkt.hdr);
	frame = malloc(n + !n);
	memcpy(frame, p, n);
	for (size_t at = 0; at < n;) {
		size_t len = MIN(n - at, 1u + step * (pkt.n % 3));

		if (!step && !at)
			len = MIN(n, (size_t)100); /* what is behind the headers is a piece, too */
		if (pkt.n == NET_IOV_MAX - 1)
			len = n - at;
		iov[pkt.n++] = (struct iovec){ frame + at, len };
		at += len;
		pkt.len = at;
	}
	k.most = pkt.len + 8;
	if (!net_finish(&pkt, accepts, &done, &lost, sink_take, &k))
		BUG_ON(!net_finish(&pkt, accepts, &done, &lost, sink_take, &k));
	BUG_ON(done);
	free(frame);
}

static void fuzz_segment(const uint8_t *p, size_t n)
{
	struct net_mss mss = NET_MSS_INIT;
	struct net_hdr hdr;
	uint8_t head[128], *frame = malloc(n + !n);
	size_t len;

	memcpy(frame, p, n);
	net_mss_raise(frame, n, true, &mss);
	BUG_ON(mss.v4 < 88 || mss.v6 < 88);
	len = net_mss_mark(frame, n, &mss, &hdr, head);
	BUG_ON(len > sizeof(head) || len > n);
	BUG_ON(hdr.gso_type && !(hdr.flags & NET_HDR_NEEDS_CSUM));
	if (hdr.flags & NET_HDR_NEEDS_CSUM)
		BUG_ON((size_t)hdr.csum_start + hdr.csum_offset + 2 > n || !hdr.gso_size);
	free(frame);
}

static void fuzz_frames(const uint8_t *p, size_t n)
{
	struct frames *f = malloc(sizeof(*f));
	const uint8_t *frame;
	size_t room, len;

	frames_clear(f);
	while (n) {
		void *at = frames_room(f, &room);
		size_t k = MIN(MIN(n, room), 1u + p[0] * 3u);
		int r;

		memcpy(at, p, k);
		frames_put(f, k);
		p += k;
		n -= k;
		while ((r = frames_next(f, &frame, &len)) > 0) {
			BUG_ON(frame < f->buf || frame + len > f->buf + f->have);
			frames_taken(f);
		}
		if (r < 0)
			break;
	}
	free(f);
}

/* Lines "key=value", for the kind of the first byte. */
static void fuzz_opts(const uint8_t *p, size_t n)
{
	struct netdev_opts o;
	char *text = strndup((const char *)p + 1, n - 1), *save = NULL;
	uint8_t mac[6];

	BUG_ON(netdev_opts_init(&o, (enum netdev_kind)(p[0] % NETDEV_KINDS), "n", NULL));
	for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
		char *eq = strchr(s, '=');

		(void)!net_mac_parse(s, mac, NULL);
		(void)!netdev_kind(s, NULL);
		if (!eq)
			continue;
		*eq = 0;
		(void)!netdev_opts_set(&o, s, eq + 1, NULL);
	}
	(void)!netdev_opts_check(&o, NULL);
	netdev_opts_free(&o);
	free(text);
}

/* A good frame, patched by pairs of place and value: deeper than bytes by chance would come. */
static void fuzz_patched(const uint8_t *p, size_t n)
{
	static const uint8_t tcp4[] = { 2,  0,    0, 0,  0,  1,    2, 0,    0, 0,   0,   2,  8,
					0,  0x45, 0, 0,  48, 0,    1, 0,    0, 64,  6,   0,  0,
					10, 0,    2, 15, 10, 0,    2, 2,    0, 80,  0,   81, 0,
					0,  0,    1, 0,  0,  0,    0, 0x70, 2, 255, 255, 0,  0,
					0,  0,    2, 4,  5,  0xb4, 1, 1,    1, 0 };
	static const uint8_t tcp6[] = { 2,    0,    0, 0, 0, 1, 2,  0,   0,  0,    0,    2,   0x86,
					0xdd, 0x60, 0, 0, 0, 0, 32, 0,   64, 0xfe, 0xc0, 0,   0,
					0,    0,    0, 0, 0, 0, 0,  0,   0,  0,    0,    2,   0xfe,
					0xc0, 0,    0, 0, 0, 0, 0,  0,   0,  0,    0,    0,   0,
					0,    3,    6, 0, 1, 4, 0,  0,   0,  0,    0,    80,  0,
					81,   0,    0, 0, 1, 0, 0,  0,   0,  0x60, 2,    255, 255,
					0,    0,    0, 0, 2, 4, 5,  0xb4 };
	uint8_t buf[3 + sizeof(struct net_hdr) + 6000] = { 0 },
						 *f = buf + 3 + sizeof(struct net_hdr);
	bool six = p[0] & 1, udp = p[0] & 2;
	size_t len = six ? sizeof(tcp6) : sizeof(tcp4), l4 = six ? 62 : 34;
	struct net_hdr h = { .flags = p[0] >> 2 & 1, .gso_size = 500 };

	memcpy(f, six ? tcp6 : tcp4, len);
	if (udp)
		f[six ? 54 : 23] = 17;
	h.gso_type = p[0] & 8 ? 0
		     : udp    ? (p[0] & 16 ? NET_GSO_UDP : NET_GSO_UDP_L4)
		     : six    ? NET_GSO_TCPV6
			      : NET_GSO_TCPV4;
	h.csum_start = (uint16_t)l4;
	h.csum_offset = udp ? 6 : 16;
	if (p[0] & 32) {
		unsigned at = six ? 18 : 16, more = 5000 - (unsigned)len;

		more += six ? 32 : 48;
		f[at] = (uint8_t)(more >> 8);
		f[at + 1] = (uint8_t)more;
		len = 5000;
	}
	memcpy(buf + 3, &h, sizeof(h));
	buf[0] = p[1];
	buf[1] = p[0] >> 6 == 1 ? 0 : p[0] >> 6 ? 201 : 7;
	buf[2] = (uint8_t)(n % 5 ? 255 : 3);
	for (p += 2, n -= 2; n >= 2; p += 2, n -= 2)
		buf[3 + p[0] % 128] = p[1];
	fuzz_finish(buf, 3 + sizeof(h) + len);
	fuzz_segment(f, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	switch (data[0] % 8) {
	case 0: fuzz_finish(data + 1, size - 1); break;
	case 1: fuzz_segment(data + 1, size - 1); break;
	case 2: fuzz_frames(data + 1, size - 1); break;
	case 3: fuzz_opts(data + 1, size - 1); break;
	default:
		if (size >= 3)
			fuzz_patched(data + 1, size - 1);
		break;
	}
	return 0;
}
