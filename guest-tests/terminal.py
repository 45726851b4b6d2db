#!/usr/bin/env python3
"""`bothy run` on a terminal, as a person uses it.

    terminal.py BOTHY GUEST

GUEST is the case terminal_reaches_guest.  Needs /dev/kvm; ends with 77 where there is none.
"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios

LIMIT = 60  # seconds for one thing to happen
GUESTS_OWN, INTERRUPTED = 7, 130


class Run:
    """bothy on a terminal of its own, until the guest's program runs."""

    def __init__(self, columns, rows):
        self.master, self.terminal = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.terminal)
        self.said = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.terminal, termios.TIOCSCTTY, 0)
            for fd in 0, 1, 2:
                os.dup2(self.terminal, fd)
            os.execv(sys.argv[1], [sys.argv[1], "run", "-k", sys.argv[2], "--console", "stdio"])
        self.expect("started")

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text):
        while text.encode() not in self.said:
            if not select.select([self.master], [], [], LIMIT)[0]:
                sys.exit(f"no {text!r} after {LIMIT} s; what came is {self.said!r}")
            self.said += os.read(self.master, 4096)
        self.said = self.said[self.said.index(text.encode()) + len(text):]

    def type(self, keys):
        os.write(self.master, keys)

    def kill(self, sig):
        os.kill(self.pid, sig)

    def ends(self, code):
        """With that exit code, and the terminal as it was."""
        if not select.select([os.pidfd_open(self.pid)], [], [], LIMIT)[0]:
            self.kill(signal.SIGKILL)
        got = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if got != code:
            sys.exit(f"ended with {got}, not {code}")
        if termios.tcgetattr(self.terminal) != self.before:
            sys.exit(f"the terminal is not as it was after an end with {code}")


def size_is_followed():
    run = Run(97, 31)
    run.expect("columns 00097")
    run.expect("rows 00031")
    run.resize(120, 40)
    run.expect("columns 00120")
    run.expect("rows 00040")
    run.type(b"x")
    run.ends(GUESTS_OWN)


def keys_reach_the_guest():
    run = Run(80, 25)
    for key in b"\x03\x1a\x1c\x04\x11\x13\r\x7f":  # Ctrl-C, Z, \, D, Q, S: the guest's, not the terminal's
        run.type(bytes([key]))
        run.expect(f"typed {key:05}")
    run.type(b"\x1d\x1d")
    run.expect("typed 00029")
    run.type(b"x")
    run.ends(GUESTS_OWN)


def own_keys_are_listed_and_quit():
    run = Run(80, 25)
    run.type(b"\x1d?")
    run.expect("Ctrl-] q")
    run.type(b"\x1dq")
    run.ends(INTERRUPTED)


def second_sigterm_ends():
    run = Run(80, 25)
    run.kill(signal.SIGTERM)
    run.type(b"a")
    run.expect("typed 00097")  # the guest ignores its button
    run.kill(signal.SIGTERM)
    run.ends(INTERRUPTED)


def sigint_ends():
    run = Run(80, 25)
    run.kill(signal.SIGINT)
    run.ends(INTERRUPTED)


if not os.access("/dev/kvm", os.R_OK | os.W_OK):
    sys.exit(77)
for test in (size_is_followed, keys_reach_the_guest, own_keys_are_listed_and_quit, second_sigterm_ends, sigint_ends):
    test()
    print("ok", test.__name__)
