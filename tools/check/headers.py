#!/usr/bin/env python3
"""Fails when a header does not compile alone.

    headers.py ROOT [--without HEADER]... COMPILER [ARGUMENT...]
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

TOPS = ['vmm', 'devices', 'firmware']


def compile_alone(compiler, root, header):
    line = f'#include "{header.relative_to(root).as_posix()}"\n'
    return subprocess.run(compiler + ['-I', str(root), '-fsyntax-only', '-x', 'c', '-'], input=line, text=True,
                          stderr=subprocess.PIPE, check=False)


def main():
    root, compiler, without = pathlib.Path(sys.argv[1]), sys.argv[2:], set()
    while compiler[0] == '--without':
        without.add(root / compiler[1])
        compiler = compiler[2:]
    headers = sorted(h for top in TOPS for h in (root / top).rglob('*.h') if h not in without)
    assert headers, f'{root}: no headers'
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda h: compile_alone(compiler, root, h), headers))
    bad = [r.stderr for r in results if r.returncode]
    print('\n'.join(bad) or f'{len(headers)} headers compile alone')
    return bool(bad)


if __name__ == '__main__':
    sys.exit(main())
