#!/usr/bin/env python3
"""`bothy run` on a terminal, as a person uses it.

    terminal.py BOTHY GUEST   with the case terminal_reaches_guest; needs /dev/kvm, ends with 77 where there is none
    terminal.py TRY           tools/try, as far as to a shell
"""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

LIMIT = 300  # seconds for one thing to happen
GUESTS_OWN, CRASHED, INTERRUPTED = 7, 126, 130


class Run:
    """A command on a terminal of its own."""

    def __init__(self, command, columns=80, rows=25):
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
            os.execv(command[0], command)
        self.end = os.pidfd_open(self.pid)

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text):
        while text.encode() not in self.said:
            if not select.select([self.master, self.end], [], [], LIMIT)[0]:
                sys.exit(f"no {text!r} after {LIMIT} s; what came is {self.said!r}")
            if not select.select([self.master], [], [], 0)[0]:
                sys.exit(f"it ended without {text!r}; what came is {self.said!r}")
            self.said += os.read(self.master, 4096)
        self.said = self.said[self.said.index(text.encode()) + len(text):]

    def has_said(self, text):
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 4096)
        return text.encode() in self.said

    def type(self, keys):
        os.write(self.master, keys)

    def kill(self, sig):
        os.kill(self.pid, sig)

    def ends(self, code):
        """With that exit code, and the terminal as it was."""
        if not select.select([self.end], [], [], LIMIT)[0]:
            self.kill(signal.SIGKILL)
        got = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if got != code:
            sys.exit(f"ended with {got}, not {code}")
        if termios.tcgetattr(self.terminal) != self.before:
            sys.exit(f"the terminal is not as it was after an end with {code}")


def started(*options, **size):
    run = Run([sys.argv[1], "run", "-k", sys.argv[2], "--console", "stdio", *options], **size)
    run.expect("started")
    return run


def size_is_followed():
    run = started(columns=97, rows=31)
    run.expect("columns 00097")
    run.expect("rows 00031")
    run.resize(120, 40)
    run.expect("columns 00120")
    run.expect("rows 00040")
    run.type(b"x")
    run.ends(GUESTS_OWN)


def keys_reach_the_guest():
    run = started()
    for key in b"\x03\x1a\x1c\x04\x11\x13\r\x7f":  # Ctrl-C, Z, \, D, Q, S: the guest's, not the terminal's
        run.type(bytes([key]))
        run.expect(f"typed {key:05}")
    run.type(b"\x1d\x1d")
    run.expect("typed 00029")
    run.type(b"x")
    run.ends(GUESTS_OWN)


def own_keys_are_listed_and_quit():
    run = started()
    run.type(b"\x1d?")
    run.expect("Ctrl-] q")
    run.type(b"\x1dq")
    run.ends(INTERRUPTED)


def second_sigterm_ends():
    run = started()
    run.kill(signal.SIGTERM)
    run.type(b"a")
    run.expect("typed 00097")  # the guest ignores its button
    run.kill(signal.SIGTERM)
    run.ends(INTERRUPTED)


def sigint_ends():
    run = started()
    run.kill(signal.SIGINT)
    run.ends(INTERRUPTED)


def sigquit_ends_as_a_crash():
    run = started()
    run.kill(signal.SIGQUIT)
    run.ends(CRASHED)
    if not run.has_said("ended by SIGQUIT") or run.has_said("says that it crashed"):
        sys.exit(f"the reason is not told; what came is {run.said!r}")


class Socket:
    """Of a run with --control."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = self.folder.name + "/control"
        self.option = "--control=" + self.path

    def ask(self, command):
        words = [sys.argv[1], "ctl", "--json", self.path, command]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=LIMIT)
        return json.loads(done.stdout)["result"]

    def becomes(self, state):
        while self.ask("status")["state"] != state:
            time.sleep(0.05)


def pause_reset_and_quit_by_socket():
    control = Socket()
    run = started(control.option)
    control.ask("pause")
    run.type(b"a")
    if control.ask("status")["state"] != "paused" or run.has_said("typed"):
        sys.exit(f"not paused; what came is {run.said!r}")
    control.ask("resume")
    run.expect("typed 00097")
    control.ask("pause")
    control.ask("reset")
    control.becomes("paused")
    control.ask("resume")
    run.expect("started")
    control.ask("quit")
    run.ends(INTERRUPTED)
    if os.path.exists(control.path):
        sys.exit("the socket is still there")


def keys_pause_and_continue():
    control = Socket()
    run = started(control.option)
    run.type(b"\x1ds")
    control.becomes("paused")
    run.type(b"a\x1dc")
    run.expect("typed 00097")
    control.becomes("running")
    run.type(b"x")
    run.ends(GUESTS_OWN)


def try_gives_a_shell():
    run = Run(sys.argv[1:], columns=97, rows=31)
    run.expect("# ")
    run.type(b"stty size\r")
    run.expect("31 97")
    run.expect("# ")
    run.type(b"sh -c 'echo in $((40 + 2)); exec sleep 1000'\r")
    run.expect("in 42")  # so the terminal's foreground is no longer the shell, which survives Ctrl-C
    run.type(b"\x03")
    run.expect("# ")
    run.type(b"\x1d?")
    run.expect("Ctrl-] q")
    run.type(b"\x1dq")
    run.ends(INTERRUPTED)


if len(sys.argv) == 2:
    tests = [try_gives_a_shell]
elif os.access("/dev/kvm", os.R_OK | os.W_OK):
    tests = [size_is_followed, keys_reach_the_guest, own_keys_are_listed_and_quit, second_sigterm_ends, sigint_ends,
             sigquit_ends_as_a_crash, pause_reset_and_quit_by_socket, keys_pause_and_continue]
else:
    sys.exit(77)
for test in tests:
    test()
    print("ok", test.__name__)
print(f"{len(tests)} passed, 0 failed")
