#!/usr/bin/env python3
"""A client of `bothy test --serve`: runs a command in several guests at once, and says what became of each.

    bothy test --serve unix:pool.sock --bundle dead &
    tools/serve_client.py pool.sock -n 4 --put case.bin:/tmp/case.bin --timeout 30 --diagnose -- ./reproducer /tmp/case.bin

Or from a program: Bothy(SOCKET) has a method for each thing that can be asked.
"""
import argparse
import json
import os
import socket
import sys
import time


class Refused(Exception):
    """bothy's one line about what it could not do."""


class Bothy:
    def __init__(self, path, event=lambda message: None, patience=10):
        """`event` gets every message that answers nothing: output, guests that are ready or over."""
        self.socket, self.event, self.last, self.answers = socket.socket(socket.AF_UNIX), event, 0, {}
        end = time.monotonic() + patience
        while True:  # bothy may just be starting
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.lines = self.socket.makefile('r', encoding='utf-8')

    def send(self, command, **arguments):
        """Asks; wait() has the answer.  Several guests can be asked before the first is waited for."""
        self.last += 1
        request = {'id': self.last, 'command': command, **arguments}
        self.socket.sendall(json.dumps(request).encode() + b'\n')
        return self.last

    def wait(self, number):
        while number not in self.answers:
            line = self.lines.readline()
            if not line:
                raise EOFError('bothy has ended')
            message = json.loads(line)
            if 'id' in message:
                self.answers[message['id']] = message
            else:
                self.event(message)
        answer = self.answers.pop(number)
        if 'error' in answer:
            raise Refused(answer['error'])
        return answer['result']

    def ask(self, command, **arguments):
        return self.wait(self.send(command, **arguments))

    def create(self, count=1, **machine):
        """New guests' numbers; `machine` has options of bothy run: cpus=2, memory='1G', kernel=…"""
        return self.ask('create', count=count, machine=machine)['vms']

    def run(self, vm, argv, timeout=0):
        """{'code': N}, with 'signal' where one ended it."""
        return self.ask('run', vm=vm, argv=argv, timeout=timeout)

    def put(self, vm, here, there):
        return self.ask('put', vm=vm, **{'from': os.path.abspath(here), 'to': there})['bytes']

    def get(self, vm, there, here):
        return self.ask('get', vm=vm, **{'from': there, 'to': os.path.abspath(here)})['bytes']

    def diagnose(self, vm):
        """{'bundle': DIR, 'why': …}; the guest is over then."""
        return self.ask('diagnose', vm=vm)

    def reset(self, vm):
        """Boots it anew; what it wrote is gone."""
        return self.ask('reset', vm=vm)


def show(message):
    if message['event'] == 'output' and message['stream'] != 'log':
        stream = sys.stdout if message['stream'] == 'out' else sys.stderr
        stream.buffer.write(message['data'].encode('latin-1'))  # each character is a byte
        stream.flush()
    elif message['event'] == 'over':
        print('vm {vm}: {outcome}: {why}'.format(**message), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('socket')
    parser.add_argument('-n', type=int, default=1, help='guests')
    parser.add_argument('--put', action='append', default=[], metavar='HERE:THERE', help='a file for each guest')
    parser.add_argument('--timeout', type=int, default=0, help='seconds for the command')
    parser.add_argument('--diagnose', action='store_true', help='what does not end in time; bothy needs --bundle')
    parser.add_argument('command', nargs='+')
    args = parser.parse_args()
    bothy, worst = Bothy(args.socket, show), 0
    vms = bothy.create(args.n)
    for vm in vms:
        for put in args.put:
            bothy.put(vm, *put.split(':', 1))
    for vm, number in [(vm, bothy.send('run', vm=vm, argv=args.command, timeout=args.timeout)) for vm in vms]:
        try:
            code = bothy.wait(number)['code']
        except Refused as why:
            print('vm %d: %s' % (vm, why), file=sys.stderr)
            code = 124
            if args.diagnose:
                print('vm %d: see %s' % (vm, bothy.diagnose(vm)['bundle']), file=sys.stderr)
        worst = max(worst, code)
    sys.exit(worst)


if __name__ == '__main__':
    main()
