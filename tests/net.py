#!/usr/bin/env python3
"""
Networks of whole machines: forwards in both directions, restriction, captures, links that go and
come, drivers that are unbound under load, two machines on one cable, passt where it is installed.

Argument: NAME=KERNEL; environment as for ./run, KVASIR_BINARY required.
"""
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
LIMIT = 90
kernel = sys.argv[1].partition('=')[2]
tmp = tempfile.mkdtemp(prefix='kvasir-net-')
os.chmod(tmp, 0o755)
# busybox's nc closes its direction at the end of its input, and its peer's nc then ends: descriptor
# 3 has no end
HOLD = 'mkfifo /tmp/hold; exec 3<>/tmp/hold; '
DATA = bytes(i * 7 & 255 for i in range(251)) * 40000


def start(command, *options):
    env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
    return subprocess.Popen([f'{top}/run', '--exec', command, '--', *options], env=env, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(command, *options):
    p = start(command, *options)
    out, err = p.communicate()
    return p.returncode, out, err


class Server:
    """On the host's loopback: gives each peer the data, and keeps what it sends."""

    def __init__(self, data=b'', sock=None):
        self.data, self.got = data, []
        self.sock = sock or socket.create_server(('127.0.0.1', 0))
        self.port = None if sock else self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        try:
            c.sendall(self.data)
            c.shutdown(socket.SHUT_WR)
            self.got.append(b''.join(iter(lambda: c.recv(65536), b'')))
        except OSError:
            pass
        c.close()


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]


def forwards():
    port, seen = free_port(), []
    p = start('echo ready; echo from the guest | nc -l -p 22', '-nic', f'user,hostfwd=tcp:127.0.0.1:{port}-:22')
    # not before: a connection that waits for the guest would be the one that it answers
    ready = p.stdout.readline()
    for _ in range(50):
        try:
            with socket.create_connection(('127.0.0.1', port), 5) as c:
                c.settimeout(5)
                seen = b''.join(iter(lambda: c.recv(65536), b''))
        except OSError as e:
            seen = e
        if seen or p.poll() is not None:
            break
        time.sleep(0.2)
    _, err = p.communicate()
    t.ok(p.returncode == 0 and seen == b'from the guest\n', 'hostfwd', f'{p.returncode} {ready} {seen} {err}')

    path = f'{tmp}/chardev'
    rc, out, err = run('nc 10.0.2.100 80 </dev/null; echo to a chardev | nc -w 1 10.0.2.101 80; sleep 0.2',
                       '-chardev', f'file,id=c0,path={path}', '-nic',
                       'user,guestfwd=tcp:10.0.2.100:80-cmd:echo from a command,'
                       'guestfwd=tcp:10.0.2.101:80-chardev:c0')
    t.ok(out == 'from a command\n', 'guestfwd to a command', f'{rc} {out} {err}')
    with open(path, encoding='ascii') as f:
        got = f.read()
    t.ok(got == 'to a chardev\n', 'guestfwd to a chardev', f'{got} {out} {err}')

    with open(f'{tmp}/served', 'w', encoding='ascii') as f:
        f.write('by tftp\n')
    rc, out, err = run('busybox tftp -g -r served -l /tmp/x 10.0.2.2; cat /tmp/x /etc/resolv.conf', '-nic',
                       f'user,tftp={tmp},domainname=example.org')
    t.ok('by tftp\n' in out and 'search example.org\n' in out, 'TFTP, and what DHCP tells', f'{rc} {out} {err}')

    s = Server(b'secret')
    rc, out, err = run(f'nc -w 2 10.0.2.2 {s.port} </dev/null; ip -o addr show eth0', '-nic', 'user,restrict=on')
    t.ok('secret' not in out and '10.0.2.15' in out and not s.got, 'restrict=on', f'{rc} {out} {err}')


def capture():
    path = f'{tmp}/pcap'
    rc, _, err = run('ping -c 1 10.0.2.2', '-netdev', 'user,id=n0', '-device', 'virtio-net,netdev=n0',
                     '-object', f'filter-dump,id=d0,netdev=n0,file={path}')
    with open(path, 'rb') as f:
        data = f.read()
    kinds, at = set(), 24
    while at + 16 <= len(data):
        n = struct.unpack_from('<I', data, at + 8)[0]
        frame = data[at + 16:at + 16 + n]
        kinds.add((frame[12:14], frame[23] if frame[12:14] == b'\x08\x00' else 0))
        at += 16 + n
    t.ok(rc == 0 and data[:4] == b'\xd4\xc3\xb2\xa1' and at == len(data) and
         {(b'\x08\x06', 0), (b'\x08\x00', 17), (b'\x08\x00', 1)} <= kinds,
         'filter-dump: ARP, DHCP and ping in the file', f'{rc} {kinds} {err}')


def links():
    """The peer of a stream goes and comes: so does the carrier."""
    path = f'{tmp}/link'
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(1)
    p = start('sleep 0.3; for i in $(seq 60); do cat /sys/class/net/eth0/carrier; sleep 0.1; done', '-nic',
              f'stream,addr.type=unix,addr.path={path},reconnect-ms=50')
    stop = threading.Event()

    def peer():
        s.settimeout(1)
        while not stop.is_set():
            try:
                c, _ = s.accept()
            except OSError:
                continue
            end = time.time() + 1.2  # however much the guest sends meanwhile
            try:
                while (left := end - time.time()) > 0:
                    c.settimeout(left)
                    if not c.recv(65536):
                        break
            except OSError:
                pass
            c.close()
            time.sleep(0.8)
    th = threading.Thread(target=peer)
    th.start()
    out, err = p.communicate()
    stop.set()
    th.join()
    seen = ''.join(k for k in out.split() if k in '01')
    changes = ''.join(k for i, k in enumerate(seen) if not i or seen[i - 1] != k)
    t.ok(p.returncode == 0 and '101' in changes, 'the carrier follows the peer of a stream',
         f'{p.returncode} {seen} {err}')


def rebind():
    s = Server(DATA)
    command = f'''
D=/sys/bus/virtio/drivers/virtio_net; v=$(cd $D; echo virtio*)
for i in 1 2 3 4 5 6 7 8 9 10; do
    nc 10.0.2.2 {s.port} </dev/null >/dev/null &
    [ $((i % 3)) = 0 ] || sleep 0.05
    echo $v >$D/unbind
    echo $v >$D/bind
    ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
done
nc 10.0.2.2 {s.port} </dev/null | md5sum; exit 0'''
    want = hashlib.md5(DATA).hexdigest()
    for what, options in (('', ()), (' in an iothread', ('-object', 'iothread,id=i0', '-netdev', 'user,id=n0',
                                                        '-device', 'virtio-net,netdev=n0,iothread=i0'))):
        rc, out, err = run(command, *options)
        t.ok(rc == 0 and want in out, f'the driver is unbound and bound under load{what}', f'{rc} {out} {err}')


def pair():
    """Two machines on a cable, by a stream and by datagrams."""
    for kind, a, b in (('stream', f'stream,server=on,addr.type=unix,addr.path={tmp}/s',
                        f'stream,addr.type=unix,addr.path={tmp}/s,reconnect-ms=100'),
                       ('dgram', *(f'dgram,local.type=unix,local.path={tmp}/{x},remote.type=unix,remote.path={tmp}/{y}'
                                   for x, y in ('de', 'ed')))):
        setup = 'ip addr flush dev eth0; ip link set eth0 up; ip addr add 10.9.0.{}/24 dev eth0; '
        one = start(setup.format(1) + HOLD + 'nc -l -p 80 <&3 | md5sum', '-nic', a)
        # it answers a ping before it listens
        rc, out, err = run(setup.format(2) + 'i=0; until { ping -c 1 -W 1 10.9.0.1 >/dev/null && '
                           'head -c 4000000 /dev/zero | nc 10.9.0.1 80; } || [ $i = 30 ]; do '
                           'i=$((i + 1)); sleep 0.2; done; [ $i != 30 ]', '-nic',
                           b + ',mac=52:54:00:12:34:99')
        try:
            out1, err1 = one.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            one.kill()
            out1, err1 = one.communicate()
        want = hashlib.md5(bytes(4000000)).hexdigest()
        t.ok(rc == 0 and want in out1, f'two machines on a {kind}', f'{rc} {out} {err} {out1} {err1}')


def passt():
    if not shutil.which('passt'):
        t.skip('passt', 'it is not installed')
        return
    work = f'{tmp}/passt'
    os.mkdir(work)
    os.chmod(work, 0o777)
    p = subprocess.Popen(['passt', '-f', '-s', f'{work}/s'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(50):
        if os.path.exists(f'{work}/s') or p.poll() is not None:
            break
        time.sleep(0.1)
    if p.poll() is not None:
        t.skip('passt', f'it does not run here: {p.stderr.read()!r}')
        return
    s = Server(DATA)
    rc, out, err = run('g=$(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p"); ' +
                       HOLD + f'nc $g {s.port} <&3 | md5sum', '-nic', f'stream,addr.type=unix,addr.path={work}/s')
    t.ok(rc == 0 and hashlib.md5(DATA).hexdigest() in out, 'passt', f'{rc} {out} {err}')
    p.kill()
    p.wait()


def no_permission():
    if os.geteuid() or not shutil.which('setpriv') or not os.path.exists('/dev/net/tun'):
        t.skip('a tap without permission', 'root, setpriv and /dev/net/tun are needed')
        return
    binary = f'{tmp}/kvasir'
    shutil.copy(os.environ['KVASIR_BINARY'], binary)
    p = subprocess.run(['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', binary, '-kernel', kernel,
                        '-nic', 'tap,ifname=kvnone0'], capture_output=True, text=True, check=False, timeout=30)
    t.ok(p.returncode == 1 and p.stderr.count('\n') == 1 and 'ip tuntap add kvnone0' in p.stderr,
         'a tap without permission: one line with the cure', f'{p.returncode} {p.stderr}')


try:
    forwards()
    capture()
    links()
    rebind()
    pair()
    passt()
    no_permission()
finally:
    shutil.rmtree(tmp, ignore_errors=True)
t.end()
