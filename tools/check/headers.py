#!/usr/bin/env python3
"""Fails when a header does not compile alone.

    headers.py ROOT COMPILER [ARGUMENT...]
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
    root, compiler = pathlib.Path(sys.argv[1]), sys.argv[2:]
    headers = sorted(h for top in TOPS for h in (root / top).rglob('*.h'))
    assert headers, f'{root}: no headers'
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda h: compile_alone(compiler, root, h), headers))
    bad = [r.stderr for r in results if r.returncode]
    print('\n'.join(bad) or f'{len(headers)} headers compile alone')
    return bool(bad)


if __name__ == '__main__':
    sys.exit(main())
