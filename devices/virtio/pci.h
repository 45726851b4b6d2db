/* The PCI transport of virtio [VIRTIO-v1.2 4.1], modern interface only. */
#pragma once
#include "devices/virtio/virtio.h"

/* Makes `v` a PCI function in `slot`, or in the next free one for -1: what env->attach_virtio does on a board with PCI.
 * Undone by virtio_fini(). */
int virtio_pci_attach(struct virtio *v, int slot, struct err *err) must_check;
