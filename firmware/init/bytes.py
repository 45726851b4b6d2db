#!/usr/bin/env python3
"""A file as an array in C: bytes.py FILE OUTPUT"""
import pathlib
import sys

data = pathlib.Path(sys.argv[1]).read_bytes()
rows = [', '.join(map(str, data[i:i + 24])) for i in range(0, len(data), 24)]
pathlib.Path(sys.argv[2]).write_text(
    '#include "vmm/runner/pack.h"\n\nconst unsigned char guest_init[] = {\n    ' + ',\n    '.join(rows) +
    '};\nconst size_t guest_init_size = sizeof(guest_init);\n')
