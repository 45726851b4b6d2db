#!/usr/bin/env python3
"""Fails when a file includes something from a layer above or beside its own, and when the engine's interface leaks.

    layers.py ROOT
"""
import pathlib
import re
import sys

BASICS = ['vmm/base', 'vmm/mem', 'vmm/loop', 'vmm/bus', 'vmm/irq', 'vmm/state']
DEVICE = BASICS + ['devices/core']
ALL_DEVICES = ['devices/core', 'devices/pci', 'devices/virtio', 'devices/platform', 'devices/block', 'devices/char',
               'devices/fs', 'devices/net']

# Folder -> folders that it may include, besides itself.
MAY = {
    'vmm/base': [],
    'vmm/mem': ['vmm/base'],
    'vmm/loop': ['vmm/base'],
    'vmm/state': ['vmm/base'],
    'vmm/irq': ['vmm/base'],
    'vmm/bus': ['vmm/base', 'vmm/loop'],
    'vmm/cpu': ['vmm/base'],
    'vmm/kvm': BASICS + ['vmm/cpu'],
    'vmm/machine': BASICS + ['vmm/cpu', 'vmm/kvm', 'firmware/load', 'firmware/tables'] + ALL_DEVICES,
    'vmm/inspect': ['vmm/base', 'vmm/mem', 'vmm/cpu', 'firmware/load'],
    'vmm/gdb': ['vmm/base', 'vmm/loop', 'vmm/mem', 'vmm/cpu', 'vmm/kvm', 'vmm/inspect', 'vmm/machine'],
    'vmm/bundle': ['vmm/base', 'vmm/loop', 'vmm/mem', 'vmm/cpu', 'vmm/kvm', 'vmm/inspect', 'vmm/machine', 'devices/core'],
    'vmm/control': ['vmm/base', 'vmm/loop', 'vmm/machine', 'devices/core'],
    'vmm/runner': ['vmm/base', 'vmm/loop', 'vmm/machine', 'devices/net', 'firmware/load', 'firmware/abi'],
    'vmm/report': ['vmm/base', 'vmm/runner', 'firmware/abi'],
    'vmm/cli': ['vmm/base', 'vmm/cpu', 'vmm/kvm', 'vmm/loop', 'vmm/machine', 'vmm/control', 'vmm/runner', 'vmm/report',
                'devices/core', 'devices/block', 'devices/char', 'devices/net', 'vmm/gdb', 'vmm/bundle',
                'vmm/inspect'],
    'vmm': ['vmm/base', 'vmm/cli'],
    'devices/core': BASICS,
    'devices/pci': DEVICE,
    'devices/block': DEVICE,
    'devices/char': DEVICE,
    'devices/fs': ['vmm/base', 'vmm/mem', 'vmm/loop'],
    'devices/net': DEVICE,
    'devices/platform': DEVICE + ['devices/char'],
    'devices/virtio': DEVICE + ['devices/pci', 'devices/block', 'devices/char', 'devices/fs', 'devices/net'],
    'devices/testing': BASICS + ALL_DEVICES + ['vmm/machine'],
    'firmware/abi': [],
    'firmware/init': ['firmware/abi'],
    'firmware/load': ['vmm/base', 'vmm/mem'],
    'firmware/tables': ['vmm/base', 'vmm/mem'],
}
# What only tests may include, and the fake_*.h that they share.
TESTS_MAY = {'devices': ['devices/testing'], 'vmm': ['devices/testing', 'firmware/init']}
ENGINE = ('linux/kvm.h', 'vmm/kvm')

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)
GENERATED = ['block_list.h', 'build_features.h', 'device_list.h', 'net_list.h']


def complaints(name, text):
    top, folder = name.split('/')[0], name.rpartition('/')[0]
    if folder not in MAY:
        yield f'{name}: {folder} has no row in tools/check/layers.py; add one'
        return
    is_test = name.endswith('_test.c') or name.rpartition('/')[2].startswith('fake_')
    may = MAY[folder] + (TESTS_MAY.get(top, []) if is_test else [])
    for opens, inc in INCLUDE.findall(text):
        target = inc.rpartition('/')[0]
        if inc == ENGINE[0] and folder != ENGINE[1]:
            yield f'{name}: only {ENGINE[1]} may include <{inc}>'
        elif opens == '"' and target not in MAY and inc not in GENERATED:
            yield f'{name}: include "{inc}" by its path from the root'
        elif target in MAY and target != folder and target not in may:
            yield f'{name}: {folder} may not include {target} ({inc})'


def main():
    root = pathlib.Path(sys.argv[1])
    files = sorted(f for top in {m.split('/')[0] for m in MAY} for f in (root / top).rglob('*.[ch]'))
    assert files, f'{root}: no sources'
    bad = [line for f in files for line in complaints(f.relative_to(root).as_posix(), f.read_text())]
    print('\n'.join(bad) or f'{len(files)} files, no complaint')
    return bool(bad)


if __name__ == '__main__':
    sys.exit(main())
