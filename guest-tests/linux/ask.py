#!/usr/bin/env python3
"""ask.py udp PORT TEXT, ask.py unix PATH TEXT: sends TEXT to a port of 127.0.0.1 or to a socket, and prints the answer."""
import socket
import sys

kind, where, text = sys.argv[1:]
if kind == 'udp':
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('127.0.0.1', int(where)))
    s.settimeout(10)
    for left in reversed(range(20)):  # who answers may not listen yet
        try:
            s.send(text.encode())
            print(s.recv(65536).decode())
            break
        except (TimeoutError, ConnectionRefusedError):
            if not left:
                raise
else:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(where)
    s.sendall(text.encode())
    print(s.makefile().read(), end='')
