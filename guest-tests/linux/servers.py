#!/usr/bin/env python3
"""Servers on the loopback for guests of the user network: HTTP over IPv4 and IPv6, iperf3, and DNS on port 53 of 127.9.9.9.

Prints the two ports of HTTP and iperf3's.  Each HTTP answer is 8 MiB that say nothing.  DNS knows one address for all names.
"""
import http.server
import signal
import socket
import socketserver
import subprocess
import sys
import threading


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(8 << 20))
        self.end_headers()
        for _ in range(8):
            self.wfile.write(bytes(1 << 20))

    def log_message(self, *_):
        pass


class Http(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Http6(Http):
    address_family = socket.AF_INET6


class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        query, reply_to = self.request
        question = query[12:query.index(b'\0', 12) + 5]
        is_a = question[-4:] == b'\0\1\0\1'
        answer = b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x07' if is_a else b''
        reply_to.sendto(query[:2] + b'\x81\x80\0\1\0' + bytes([is_a]) + b'\0\0\0\0' + question + answer,
                        self.client_address)


def start_iperf():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    iperf = subprocess.Popen(['iperf3', '--server', '--bind', '127.0.0.1', '--port', port, '--forceflush'],
                             stdout=subprocess.PIPE, text=True)
    for line in iperf.stdout:
        if 'listening' in line:
            break
    return iperf, port


servers = [Http(('127.0.0.1', 0), Answer), Http6(('::1', 0), Answer), socketserver.UDPServer(('127.9.9.9', 53), Dns)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
iperf, iperf_port = start_iperf()
print(servers[0].server_port, servers[1].server_port, iperf_port, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    sys.stdin.read()  # until whoever started us goes
finally:
    iperf.kill()
