#!/usr/bin/env python3
"""Has a function of a kernel module spin for ever with interrupts off: spins.py MODULE.ko FUNCTION, in place."""
import struct, sys

SYMTAB, RELA, R_NONE = 2, 4, 0
AT, CODE = 5, b'\xfa\xeb\xfe'  # behind the call of the function tracer: cli; jmp to itself

path, function = sys.argv[1:]
ko = bytearray(open(path, 'rb').read())
start, = struct.unpack_from('<Q', ko, 40)
count, = struct.unpack_from('<H', ko, 60)
sections = [struct.unpack_from('<IIQQQQIIQQ', ko, start + 64 * i) for i in range(count)]  # [elf(5)]
for _, kind, _, _, offset, size, link, *_ in sections:
    for at in range(offset, offset + size, 24) if kind == SYMTAB else ():
        name, _, _, section, value, _ = struct.unpack_from('<IBBHQQ', ko, at)
        name += sections[link][4]
        if ko[name:ko.index(0, name)] == function.encode():
            found, place = section, value + AT
place_in_file = sections[found][4] + place
ko[place_in_file:place_in_file + len(CODE)] = CODE
for _, kind, _, _, offset, size, _, info, *_ in sections:
    for at in range(offset, offset + size, 24) if kind == RELA and info == found else ():
        if place - 4 < struct.unpack_from('<Q', ko, at)[0] < place + len(CODE):
            struct.pack_into('<Q', ko, at + 8, R_NONE)  # what it was for is gone
open(path, 'wb').write(ko)
