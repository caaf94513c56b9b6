/* See msi.h. */
#include "hw/pci/msi.h"

#include <string.h>

#include "base/bug.h"
#include "core/memory.h"

enum { PCI_MSG_WINDOW = 0xfee }; /* FEE00000h to FEEFFFFFh */

static bool pci_msg_possible(const struct pci_dev *p)
{
	return p->dev.md->events && p->dev.md->events->msi;
}

/* The upper half of an interrupt's address may carry bits of a large APIC id. */
static bool pci_msg_write(const struct machine_devs *md, uint64_t addr, uint32_t data)
{
	if ((uint32_t)addr >> 20 == PCI_MSG_WINDOW)
		return md->events->msi(md->events_opaque, addr, data) >= 0;
	return md->mem && gmem_write(md->mem, addr, &data, sizeof(data)) == 0;
}

static void pci_msg_send(struct pci_dev *p, uint64_t addr, uint32_t data)
{
	trace(&p->dev, "message", addr, data);
	if (!pci_is_master(p) || !pci_msg_write(p->dev.md, addr, data))
		guest_error(&p->dev, "message_lost", addr, data);
}

/* --- MSI --- */

void pci_msi_init(struct pci_dev *p, unsigned n)
{
	unsigned at, log = 0;

	BUG_ON(!n || n > 32 || n & (n - 1));
	if (!pci_msg_possible(p))
		return;
	while (n >> (log + 1))
		log++;
	at = pci_add_cap(p, PCI_CAP_MSI, PCI_MSI_SIZE);
	p->msi_cap = (uint8_t)at;
	pci_init(p, at + PCI_MSI_CONTROL, 2, PCI_MSI_64BIT | PCI_MSI_MASKING | log << 1);
	pci_writable(p, at + PCI_MSI_CONTROL, 2, PCI_MSI_ENABLE | (log ? 7 << 4 : 0));
	pci_writable(p, at + PCI_MSI_ADDR, 4, ~3u);
	pci_writable(p, at + PCI_MSI_ADDR + 4, 4, ~0u);
	pci_writable(p, at + PCI_MSI_DATA, 2, 0xffff);
	pci_writable(p, at + PCI_MSI_MASK, 4, n == 32 ? ~0u : (1u << n) - 1);
	for (unsigned i = 0; i < n; i++)
		p->self[at + PCI_MSI_PENDING + i / 8] |= (uint8_t)(1 << i % 8);
}

static bool pci_msi_enabled(const struct pci_dev *p)
{
	return p->msi_cap && pci_get(p, p->msi_cap + PCI_MSI_CONTROL, 2) & PCI_MSI_ENABLE;
}

/* The vectors the guest granted, at most what was offered: a power of two. */
static unsigned pci_msi_granted(const struct pci_dev *p)
{
	unsigned control = pci_get(p, p->msi_cap + PCI_MSI_CONTROL, 2);

	return 1u << MIN(control >> 4 & 7, control >> 1 & 7);
}

static void pci_msi_send(struct pci_dev *p, unsigned v)
{
	const unsigned at = p->msi_cap;
	uint64_t addr = pci_get(p, at + PCI_MSI_ADDR, 4) |
			(uint64_t)pci_get(p, at + PCI_MSI_ADDR + 4, 4) << 32;
	uint32_t data = pci_get(p, at + PCI_MSI_DATA, 2);

	pci_msg_send(p, addr, (data & ~(pci_msi_granted(p) - 1)) | v);
}

static void pci_msi_set_pending(struct pci_dev *p, uint32_t pending)
{
	memcpy(p->s->config + p->msi_cap + PCI_MSI_PENDING, &pending, 4);
}

void pci_msi_notify(struct pci_dev *p, unsigned v)
{
	pthread_mutex_lock(&p->msg_lock);
	if (pci_msi_enabled(p) && v < 32) {
		/* Vectors that were not granted share the granted ones. */
		v &= pci_msi_granted(p) - 1;
		if (pci_get(p, p->msi_cap + PCI_MSI_MASK, 4) >> v & 1)
			pci_msi_set_pending(p,
					    pci_get(p, p->msi_cap + PCI_MSI_PENDING, 4) | 1u << v);
		else
			pci_msi_send(p, v);
	}
	pthread_mutex_unlock(&p->msg_lock);
}

static void pci_msi_flush(struct pci_dev *p)
{
	uint32_t pending = pci_get(p, p->msi_cap + PCI_MSI_PENDING, 4);
	uint32_t due = pending & ~pci_get(p, p->msi_cap + PCI_MSI_MASK, 4);

	if (!due)
		return;
	pci_msi_set_pending(p, pending & ~due);
	for (unsigned v = 0; v < 32; v++)
		if (due >> v & 1)
			pci_msi_send(p, v & (pci_msi_granted(p) - 1));
}

bool pci_msi_on(struct pci_dev *p)
{
	bool on;

	pthread_mutex_lock(&p->msg_lock);
	on = pci_msi_enabled(p);
	pthread_mutex_unlock(&p->msg_lock);
	return on;
}

/* --- MSI-X --- */

static unsigned pci_msix_control(const struct pci_dev *p)
{
	return p->msix_cap ? pci_get(p, p->msix_cap + PCI_MSIX_CONTROL, 2) : 0;
}

static bool pci_msix_masked(const struct pci_dev *p, unsigned v)
{
	return pci_msix_control(p) & PCI_MSIX_FUNCTION_MASK ||
	       p->msix->table[4 * v + 3] & PCI_MSIX_MASKED;
}

static void pci_msix_send(struct pci_dev *p, unsigned v)
{
	const uint32_t *t = &p->msix->table[4 * v];

	pci_msg_send(p, t[0] | (uint64_t)t[1] << 32, t[2]);
}

void pci_msix_notify(struct pci_dev *p, unsigned v)
{
	pthread_mutex_lock(&p->msg_lock);
	if (pci_msix_control(p) & PCI_MSIX_ENABLE && v < p->msix_n) {
		if (pci_msix_masked(p, v))
			p->msix->pending[v / 32] |= 1u << v % 32;
		else
			pci_msix_send(p, v);
	}
	pthread_mutex_unlock(&p->msg_lock);
}

static void pci_msix_flush_one(struct pci_dev *p, unsigned v)
{
	uint32_t *word = &p->msix->pending[v / 32];

	if (*word >> v % 32 & 1 && !pci_msix_masked(p, v)) {
		*word &= ~(1u << v % 32);
		pci_msix_send(p, v);
	}
}

bool pci_msix_on(struct pci_dev *p)
{
	bool on;

	pthread_mutex_lock(&p->msg_lock);
	on = pci_msix_control(p) & PCI_MSIX_ENABLE;
	pthread_mutex_unlock(&p->msg_lock);
	return on;
}

/* The table is the first half of the BAR, the pending bits are the second. */
static uint64_t pci_msix_half(const struct pci_dev *p)
{
	return p->bar[p->msix_bar].size / 2;
}

static uint64_t pci_msix_read(struct dev *d, uint64_t off, unsigned size)
{
	struct pci_dev *p = container_of(d, struct pci_dev, dev);
	uint64_t half = pci_msix_half(p), at = off & (half - 1), v = 0;
	size_t bytes = off < half ? p->msix_n * 16u : (p->msix_n + 63) / 64 * 8;
	const void *from = off < half ? (const void *)p->msix->table : p->msix->pending;

	pthread_mutex_lock(&p->msg_lock);
	if (at < bytes)
		memcpy(&v, (const uint8_t *)from + at, size);
	pthread_mutex_unlock(&p->msg_lock);
	return v;
}

static void pci_msix_write(struct dev *d, uint64_t off, uint64_t val, unsigned size)
{
	struct pci_dev *p = container_of(d, struct pci_dev, dev);

	if (off >= p->msix_n * 16ull) /* the pending bits are read-only */
		return;
	pthread_mutex_lock(&p->msg_lock);
	for (unsigned i = 0; i < size; i += 4) {
		unsigned word = (unsigned)(off + i) / 4;
		uint32_t v = (uint32_t)(val >> 8 * i);

		/* vector control has one bit; messages are words, their address is aligned */
		v &= word % 4 == 3 ? PCI_MSIX_MASKED : word % 4 == 0 ? ~3u : ~0u;
		p->msix->table[word] = v;
	}
	if (pci_msix_control(p) & PCI_MSIX_ENABLE)
		pci_msix_flush_one(p, (unsigned)off / 16);
	pthread_mutex_unlock(&p->msg_lock);
}

static const struct region_ops pci_msix_region = { pci_msix_read, pci_msix_write, 4, 8 };

void pci_msix_init(struct pci_dev *p, struct pci_msix_state *s, unsigned bar, unsigned n)
{
	uint32_t size = 4096;
	unsigned at;

	BUG_ON(!n || n > PCI_MSIX_MAX);
	p->msix = s;
	if (!pci_msg_possible(p))
		return;
	while (size / 2 < n * 16)
		size *= 2;
	p->msix_n = n;
	p->msix_bar = bar;
	at = pci_add_cap(p, PCI_CAP_MSIX, PCI_MSIX_SIZE);
	p->msix_cap = (uint8_t)at;
	pci_init(p, at + PCI_MSIX_CONTROL, 2, n - 1);
	pci_writable(p, at + PCI_MSIX_CONTROL, 2, PCI_MSIX_ENABLE | PCI_MSIX_FUNCTION_MASK);
	pci_init(p, at + PCI_MSIX_TABLE, 4, bar);
	pci_init(p, at + PCI_MSIX_PBA, 4, size / 2 | bar);
	pci_add_bar(p, bar, 0, size, &pci_msix_region);
}

/* --- for pci.c --- */

bool pci_msg_enabled(const struct pci_dev *p)
{
	return pci_msi_enabled(p) || pci_msix_control(p) & PCI_MSIX_ENABLE;
}

void pci_msg_reset(struct pci_dev *p)
{
	if (!p->msix)
		return;
	memset(p->msix, 0, sizeof(*p->msix));
	for (unsigned v = 0; v < PCI_MSIX_MAX; v++)
		p->msix->table[4 * v + 3] = PCI_MSIX_MASKED;
}

void pci_msg_flush(struct pci_dev *p)
{
	if (pci_msi_enabled(p))
		pci_msi_flush(p);
	if (pci_msix_control(p) & PCI_MSIX_ENABLE)
		for (unsigned v = 0; v < p->msix_n; v++)
			pci_msix_flush_one(p, v);
}
