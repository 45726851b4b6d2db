/* The MMIO transport of virtio [VIRTIO-v1.2 4.2], version 2 of its registers. */
#pragma once
#include "devices/virtio/virtio.h"

enum { VIRTIO_MMIO_WINDOW = 0x200 }; /* bytes: registers, then 256 of device configuration */

/* Puts the registers of `v` at `base` of env->mmio, its interrupt on line `gsi`: what env->attach_virtio does on a
 * board without PCI.  Undone by virtio_fini(). */
int virtio_mmio_attach(struct virtio *v, uint64_t base, unsigned gsi, struct err *err) must_check;
