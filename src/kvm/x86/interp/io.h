/*
 * String port accesses, in batches. Single ones are declared in exec.h.
 *
 * Threads: the vCPU's own, in guest mode. May leave to user space in the middle.
 */
#pragma once
#include <stdint.h>

struct vcpu;

/*
 * count accesses of size (1, 2, 4) bytes to one port; count * size is at most 4096. io_check has
 * been done. buf gets or holds the data in order.
 */
void io_in_string(struct vcpu *v, uint16_t port, unsigned size, unsigned count, void *buf);
void io_out_string(struct vcpu *v, uint16_t port, unsigned size, unsigned count, const void *buf);
