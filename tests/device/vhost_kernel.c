/*
 * virtio-net with the vhost-net of the kernel that it runs on, without a guest: the test is the
 * driver, and a UDP socket of the host the other end of a tap. Skipped (77) where there is no
 * /dev/vhost-net or no right to make a tap; tests/vhost.py takes it into a machine that has them.
 */
#include "virtio_bed.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "backend/net/kinds.h"
#include "backend/net/vhost.h"
#include "virtio/net.h"

enum { RX, TX, CTRL, PORT = 7777, HEAD = 42, BUFS = 32, BUF = 2048 };

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static const char *const ifname = "kvvhost0";

struct real {
	struct vbed *vb;
	struct netdev *nd;
	struct dev *d;
	int udp;
	uint8_t mac[6]; /* of the tap */
	gpa_t rx, tx;
};

static void real_up(struct real *t)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	struct timeval limit = { .tv_sec = 2 };
	struct ifreq r = { 0 };
	struct arpreq arp = { .arp_flags = ATF_PERM | ATF_COM };

	t->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", ifname);
	a.sin_addr.s_addr = inet_addr("10.77.0.1");
	memcpy(&r.ifr_addr, &a, sizeof(a));
	assert_int_equal(ioctl(t->udp, SIOCSIFADDR, &r), 0);
	assert_int_equal(ioctl(t->udp, SIOCGIFFLAGS, &r), 0);
	r.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(t->udp, SIOCSIFFLAGS, &r), 0);
	assert_int_equal(ioctl(t->udp, SIOCGIFHWADDR, &r), 0);
	memcpy(t->mac, r.ifr_hwaddr.sa_data, 6);
	assert_int_equal(bind(t->udp, (struct sockaddr *)&a, sizeof(a)), 0);
	setsockopt(t->udp, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	a.sin_addr.s_addr = inet_addr("10.77.0.2");
	memcpy(&arp.arp_pa, &a, sizeof(a));
	memcpy(arp.arp_ha.sa_data, guest_mac, 6);
	snprintf(arp.arp_dev, sizeof(arp.arp_dev), "%s", ifname);
	assert_int_equal(ioctl(t->udp, SIOCSARP, &arp), 0);
	assert_int_equal(connect(t->udp, (struct sockaddr *)&a, sizeof(a)), 0);
}

static struct real *real_new(unsigned queues, const char *prop)
{
	struct real *t = calloc(1, sizeof(*t));
	struct netdev_env env = { 0 };
	struct netdev_opts o;
	struct err e = { 0 };
	char n[4];

	t->vb = vbed_new();
	env.loop = t->vb->bed->loop;
	snprintf(n, sizeof(n), "%u", queues);
	assert_int_equal(netdev_opts_init(&o, NETDEV_TAP, "n0", &e), 0);
	assert_int_equal(netdev_opts_set(&o, "ifname", ifname, &e), 0);
	assert_int_equal(netdev_opts_set(&o, "script", "no", &e), 0);
	assert_int_equal(netdev_opts_set(&o, "queues", n, &e), 0);
	assert_int_equal(netdev_opts_set(&o, "vhostforce", "on", &e), 0);
	assert_int_equal(netdev_opts_check(&o, &e), 0);
	t->nd = netdev_new(&env, &o, &e);
	if (!t->nd)
		fail_msg("%s", e.msg);
	netdev_opts_free(&o);
	t->d = dev_new(&t->vb->bed->md, &virtio_net_class, "net0", &e);
	dev_set_backend(t->d, "netdev", t->nd);
	if (prop)
		assert_int_equal(dev_set_prop(t->d, prop, "on", &e), 0);
	if (dev_realize(t->d, &e) < 0)
		fail_msg("%s", e.msg);
	vbed_plug(t->vb, t->d);
	real_up(t);
	t->rx = vbed_alloc(t->vb, (uint64_t)BUFS * BUF);
	t->tx = vbed_alloc(t->vb, 70000);
	return t;
}

static void real_free(struct real *t)
{
	struct netdev *nd = t->nd;

	close(t->udp);
	vbed_free(t->vb);
	netdev_free(nd);
	free(t);
}

static uint16_t sum16(const uint8_t *p, size_t n, uint32_t s)
{
	for (size_t i = 0; i < n; i += 2)
		s += (uint32_t)p[i] << 8 | (i + 1 < n ? p[i + 1] : 0);
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)s;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* A datagram of n bytes, whose checksum the kernel is to fill in, in the buffer at t->tx. */
static void real_build(struct real *t, size_t n, uint8_t seed)
{
	struct virtio_net_hdr_v1 h = { .flags = 1, .csum_start = 34, .csum_offset = 6 };
	uint8_t *p = t->vb->ram + t->tx, *f = p + 12, *ip = f + 14, *udp = ip + 20;
	const uint8_t addr[8] = { 10, 77, 0, 2, 10, 77, 0, 1 };

	memset(p, 0, 12 + HEAD);
	memcpy(p, &h, sizeof(h));
	memcpy(f, t->mac, 6);
	memcpy(f + 6, guest_mac, 6);
	f[12] = 8;
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(28 + n));
	ip[8] = 64;
	ip[9] = 17;
	memcpy(ip + 12, addr, 8);
	put16(ip + 10, (uint16_t)~sum16(ip, 20, 0));
	put16(udp, PORT);
	put16(udp + 2, PORT);
	put16(udp + 4, (unsigned)(8 + n));
	put16(udp + 6, sum16(addr, 8, (uint32_t)(17 + 8 + n)));
	for (size_t i = 0; i < n; i++)
		udp[8 + i] = (uint8_t)(seed + i * 7);
}

static void assert_data(const uint8_t *p, size_t n, uint8_t seed)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (uint8_t)(seed + i * 7))
			fail_msg("byte %zu of %zu", i, n);
}

static void real_send(struct real *t, unsigned q, size_t n, uint8_t seed)
{
	uint8_t got[2000];

	real_build(t, n, seed);
	vbed_add(t->vb, q, 2, VOUT(t->tx, 12), VOUT(t->tx + 12, (uint32_t)(HEAD + n)));
	vbed_kick(t->vb, q);
	assert_true(vbed_wait(t->vb, q, NULL) >= 0);
	assert_int_equal(recv(t->udp, got, sizeof(got), 0), n);
	assert_data(got, n, seed);
}

static void real_give(struct real *t, unsigned q, unsigned i)
{
	vbed_add(t->vb, q, 1, VIN(t->rx + i % BUFS * BUF, BUF));
}

/* The next datagram in the receive queue; other frames (of IPv6) are passed over. */
static void real_take(struct real *t, unsigned *next, size_t n, uint8_t seed)
{
	for (;;) {
		const uint8_t *f = t->vb->ram + t->rx + *next % BUFS * BUF;
		uint32_t len;

		if (vbed_wait(t->vb, RX, &len) < 0)
			fail_msg("no frame of %zu", n);
		assert_int_equal(f[10], 1);
		/* one buffer is always with us, so this one stays as it is meanwhile */
		real_give(t, RX, *next + BUFS - 1);
		vbed_kick(t->vb, RX);
		++*next;
		if (f[12 + 12] != 8 || f[12 + 23] != 17)
			continue;
		assert_int_equal(len, 12 + HEAD + n);
		assert_data(f + 12 + HEAD, n, seed);
		return;
	}
}

static void real_receive(struct real *t, unsigned *next, size_t n, uint8_t seed)
{
	uint8_t data[2000];

	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(seed + i * 7);
	assert_int_equal(send(t->udp, data, n, 0), n);
	real_take(t, next, n, seed);
}

static void real_start(struct real *t, unsigned queues)
{
	vbed_start(t->vb, VBED_ALL, queues);
	for (unsigned i = 0; i < BUFS - 1; i++)
		real_give(t, RX, i);
	vbed_kick(t->vb, RX);
}

static void devs(struct vbed *vb, void (*fn)(struct machine_devs *))
{
	bus_lock(vb->bed->md.bus);
	fn(&vb->bed->md);
	bus_unlock(vb->bed->md.bus);
}

static void kernel_frames(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct real *t = real_new(1, packed ? "packed" : NULL);
		unsigned next = 0;

		real_start(t, 3);
		assert_true(t->nd->vhost[0]->running);
		for (unsigned i = 0; i < 1000; i++) {
			real_send(t, TX, 1 + i * 13 % 1400, (uint8_t)i);
			real_receive(t, &next, 1 + i * 17 % 1400, (uint8_t)i);
			if (i % 100 == 50) { /* nothing gets lost, or out of order */
				devs(t->vb, machine_devs_pause);
				assert_int_equal(virtio_in_flight(t->vb->vd), 0);
				assert_false(t->nd->vhost[0]->running);
				devs(t->vb, machine_devs_resume);
				assert_true(t->nd->vhost[0]->running);
			}
		}
		real_free(t);
	}
}

static void kernel_resets(void **state)
{
	struct real *t = real_new(1, NULL);
	uint8_t data[100] = { 0 };

	for (unsigned i = 0; i < 100; i++) {
		real_start(t, 3);
		(void)!send(t->udp, data, sizeof(data), 0);
		if (i % 3 == 0)
			vbed_run(t->vb);
		vbed_w(t->vb, 0x70, 0);
		assert_int_equal(virtio_in_flight(t->vb->vd), 0);
		t->vb->top = 0x200000;
	}
	real_free(t);
}

/* The second pair comes and goes, and the link. */
static void kernel_queues(void **state)
{
	struct real *t = real_new(2, NULL);
	struct vbed *vb = t->vb;
	gpa_t c = vbed_alloc(vb, 64);
	unsigned next = 0;

	real_start(t, 5);
	vb->ram[c] = VIRTIO_NET_CTRL_MQ;
	vb->ram[c + 2] = 2;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_int_equal(vb->ram[c + 8], 0);
	assert_true(t->nd->vhost[0]->running && t->nd->vhost[1]->running);
	for (unsigned i = 0; i < 50; i++)
		real_send(t, i % 2 ? 3 : TX, 100 + i, (uint8_t)i);
	vb->ram[c + 2] = 1;
	vbed_add(vb, 4, 2, VOUT(c, 4), VIN(c + 8, 1));
	vbed_kick(vb, 4);
	assert_true(t->nd->vhost[0]->running && !t->nd->vhost[1]->running);
	real_receive(t, &next, 100, 1);
	virtio_net_set_link(t->d, false);
	assert_false(t->nd->vhost[0]->running);
	virtio_net_set_link(t->d, true);
	assert_true(t->nd->vhost[0]->running);
	real_receive(t, &next, 100, 2);
	real_free(t);
}

/* The interface is deleted while the kernel has the queue: the guest's cable is unplugged. */
static void kernel_deleted(void **state)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} m = { { sizeof(m), RTM_DELLINK, NLM_F_REQUEST, 0, 0 }, { 0 } };
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct real *t = real_new(1, NULL);

	real_start(t, 3);
	m.i.ifi_index = (int)if_nametoindex(ifname);
	assert_int_equal(send(nl, &m, sizeof(m), 0), sizeof(m));
	for (unsigned i = 0; i < 1000 && t->nd->vhost[0]->running; i++) {
		loop_advance(t->vb->bed->loop, NS_PER_SEC);
		usleep(1000);
	}
	assert_false(t->nd->vhost[0]->running);
	assert_int_equal(virtio_in_flight(t->vb->vd), 0);
	assert_false(vbed_cfg(t->vb, 6, 2) & VIRTIO_NET_S_LINK_UP);
	close(nl);
	real_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernel_frames),
		cmocka_unit_test(kernel_resets),
		cmocka_unit_test(kernel_queues),
		cmocka_unit_test(kernel_deleted),
	};
	int vhost = open("/dev/vhost-net", O_RDWR), tun = open("/dev/net/tun", O_RDWR);

	if (vhost < 0 || tun < 0) {
		printf("skipped: no /dev/%s\n", vhost < 0 ? "vhost-net" : "net/tun");
		return 77;
	}
	close(vhost);
	close(tun);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
