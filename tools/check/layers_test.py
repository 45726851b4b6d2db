#!/usr/bin/env python3
"""That layers.py complains where it should and nowhere else."""
import unittest

from layers import complaints

FINE = [
    ('devices/virtio/rng.c', '#include <linux/virtio_ids.h>\n#include "devices/virtio/virtio.h"'),
    ('devices/virtio/blk.c', '#include "devices/block/block.h"'),
    ('devices/pci/func_test.c', '#include "devices/testing/env.h"'),
    ('devices/core/registry.c', '#include "device_list.h"'),
    ('vmm/kvm/engine.h', '#include <linux/kvm.h>'),
    ('vmm/main.c', '#include "vmm/cli/cli.h"'),
]
BAD = [
    ('devices/virtio/rng.c', '#include "vmm/kvm/vm.h"', 'devices/virtio may not include vmm/kvm'),
    ('devices/virtio/rng.c', '#include "vmm/machine/machine.h"', 'may not include vmm/machine'),
    ('devices/block/file.c', '#include "devices/virtio/virtio.h"', 'may not include devices/virtio'),
    ('devices/pci/func.c', '#include "devices/testing/env.h"', 'may not include devices/testing'),
    ('devices/virtio/rng.c', '# include  <linux/kvm.h>', 'only vmm/kvm may include <linux/kvm.h>'),
    ('vmm/base/err.c', '#include "vmm/mem/gmem.h"', 'vmm/base may not include vmm/mem'),
    ('vmm/base/err.c', '#include "err.h"', 'by its path from the root'),
    ('vmm/new/thing.c', '', 'has no row'),
]


class Layers(unittest.TestCase):
    def test_fine(self):
        for name, text in FINE:
            self.assertEqual(list(complaints(name, text)), [], name)

    def test_bad(self):
        for name, text, why in BAD:
            found = list(complaints(name, text))
            self.assertEqual(len(found), 1, (name, text))
            self.assertIn(why, found[0])


if __name__ == '__main__':
    unittest.main()
