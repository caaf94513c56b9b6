#!/usr/bin/env python3
"""
Boot stock kernels through ./run: processors, power-off, reboot, exit status, output as it is, and
nothing alarming in the kernel's log.

Arguments: NAME=KERNEL...; environment as for ./run, KVASIR_BINARY required. Many boots in a row are
boots.py's.
"""
import hashlib
import http.server
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time

from bootlog import warnings
from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
LIMIT = 120


def run_exec(kernel, command, *options, append=''):
    env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
    p = subprocess.run([f'{top}/run', '--append', append, '--exec', command, '--', *options],
                       env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return p.returncode, p.stdout, p.stderr.decode(errors='replace')


def boot(name, kernel, smp):
    command = 'nproc; grep -c ^processor /proc/cpuinfo; cat /proc/interrupts; echo ==; dmesg -r'
    rc, out, err = run_exec(kernel, command, '-smp', str(smp))
    head, _, log = out.partition(b'==\n')
    what = f'{name}, {smp} processor(s)'
    if t.ok(rc == 0 and head.startswith(b'%d\n%d\n' % (smp, smp)), what, f'{rc} {head!r} {err}'):
        bad = warnings(log)
        t.ok(not bad, f'{what}: no warnings', '\n'.join(bad))


class Console:
    """The interactive form, on a pseudo-terminal."""

    def __init__(self, kernel, *options):
        env = dict(os.environ, KVASIR_KERNEL=kernel, TERM='dumb')
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(f'{top}/run', [f'{top}/run', '--', *options], env)
        self.data = b''
        os.set_blocking(self.fd, False)

    def expect(self, text, seconds=LIMIT):
        end = time.time() + seconds
        while text not in self.data:
            if time.time() > end:
                return False
            try:
                self.data += os.read(self.fd, 65536)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # it has ended
                return text in self.data
        self.data = self.data.partition(text)[2]
        return True

    def send(self, text):
        os.write(self.fd, text)

    def status(self, seconds=20):
        end = time.time() + seconds
        while time.time() < end:
            try:
                while os.read(self.fd, 65536):
                    pass
            except (BlockingIOError, OSError):
                pass
            pid, st = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(st)
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return 'still running'


def interactive(name, kernel):
    c = Console(kernel)
    t.ok(c.expect(b'kvasir:') and c.expect(b'# '), f'{name}: a shell on the terminal', c.data)
    c.send(b'echo $((6 * 7)) $(tty)\n')
    t.ok(c.expect(b'42 /dev/ttyS0', 20), f'{name}: the shell answers', c.data)
    c.send(b'sleep 100\n')
    time.sleep(1)
    c.send(b'\x03')
    c.send(b'echo int=$?\n')
    t.ok(c.expect(b'int=130', 20), f'{name}: Ctrl-C reaches the guest', c.data)
    c.send(b'reboot\n')
    t.ok(c.expect(b'processor(s)') and c.expect(b'# '), f'{name}: reboot boots again', c.data)
    c.send(b'cut -d. -f1 /proc/uptime; poweroff\n')
    st = c.status(30)
    t.ok(st == 0, f'{name}: poweroff ends with status 0', st)


class Files(http.server.BaseHTTPRequestHandler):
    data = bytes(i * 7 & 255 for i in range(251)) * 20000

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.data)

    def log_message(self, *args):
        pass


def network(name, kernel):
    """The network that ./run has by default: down, up, and none."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://10.0.2.2:{server.server_port}/'
    sink = socket.create_server(('127.0.0.1', 0))
    posted = []

    def take():
        while True:
            c, _ = sink.accept()
            posted.append(b''.join(iter(lambda: c.recv(1 << 16), b'')))
            c.close()
    threading.Thread(target=take, daemon=True).start()
    want = hashlib.md5(Files.data).hexdigest()
    for board in 'microvm', 'pc':
        posted.clear()
        rc, out, err = run_exec(kernel, f'wget -q -O /tmp/f {url} && md5sum </tmp/f; '
                                f'nc 10.0.2.2 {sink.getsockname()[1]} </tmp/f', '-M', board)
        t.ok(rc == 0 and out.split()[:1] == [want.encode()],
             f'{name}: {board}: wget from the host', f'{rc} {out} {err}')
        t.ok(posted == [Files.data], f'{name}: {board}: and back', [len(p) for p in posted])
    rc, out, err = run_exec(kernel, 'ls /sys/class/net', '-nic', 'none')
    t.ok(out == b'lo\n', f'{name}: -nic none', f'{rc} {out} {err}')
    server.shutdown()


def details(name, kernel):
    rc, out, err = run_exec(kernel, 'i=0; while [ $i -lt 256 ]; do '
                            'printf "\\\\$(printf %03o $i)"; i=$((i + 1)); done; exit 42')
    t.ok(rc == 42, f'{name}: --exec gives the status', f'{rc} {err}')
    t.ok(out == bytes(range(256)), f'{name}: --exec gives every byte as it is', out)
    rc, out, err = run_exec(kernel, 'exec 3<>/dev/null; seq 1 20000 | tee /dev/stderr | tail -1')
    t.ok(rc == 0 and len(out) > 100000 and out.endswith(b'20000\n'),
         f'{name}: --exec gives all of a long output', f'{rc} {len(out)} {err}')
    rc, out, err = run_exec(kernel, "free -m | sed -n 's/^Mem: *\\([0-9]*\\).*/\\1/p'", '-m', '5G')
    mem = int(out) if out.strip().isdigit() else 0
    t.ok(4700 < mem < 5121, f'{name}: 5 GiB of memory around the hole', f'{rc} {out} {err}')
    rc, out, err = run_exec(kernel, 'lscpu 2>/dev/null; cat /sys/devices/system/cpu/cpu*/topology/'
                            'core_id | tr "\\n" " "; cat /sys/devices/system/cpu/cpu*/topology/'
                            'physical_package_id | tr "\\n" " "', '-smp', '4,sockets=2,cores=2')
    t.ok(out.endswith(b'0 1 0 1 0 0 1 1 '), f'{name}: -smp 4,sockets=2,cores=2', f'{rc} {out} {err}')
    rc, out, err = run_exec(kernel, 'date -u +%Y-%m-%d', '-rtc', 'base=2031-05-06T07:08:09')
    t.ok(out == b'2031-05-06\n', f'{name}: -rtc base=', f'{rc} {out} {err}')
    network(name, kernel)
    rc, out, err = run_exec(kernel, 'true', append='init=/none rdinit=/none')
    t.ok(rc == 125 and 'panic' in err, f'{name}: a panic is reported, not a hang',
         f'{rc} {out} {err}')


kernels = [a.split('=', 1) for a in sys.argv[1:] if '=' in a]
for n, k in kernels:
    for cpus in (1, 2, 4):
        boot(n, k, cpus)
if kernels:
    details(*kernels[0])
    interactive(*kernels[0])
for n, k in kernels:
    if n == 'generic':  # the cloud kernel cannot read MP tables
        rc, out, err = run_exec(k, 'nproc', '-smp', '2', '-M', 'microvm,acpi=off')
        t.ok(rc == 0 and out == b'2\n', f'{n}: MP tables, 2 processors', f'{rc} {out} {err}')
t.end()
