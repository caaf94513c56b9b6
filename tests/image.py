#!/usr/bin/env python3
"""
An installed Debian on a disk image: boots to its login prompt on each board, keeps what is written,
fetches and installs a package over user-mode networking, answers through the guest agent, and leaves a
clean file system and image behind.

Arguments: the kvasir binary [BOARD...] (default pc microvm). Skips where no image can be made.
"""
import functools
import hashlib
import http.server
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
import urllib.request

import installed
from bootlog import warnings
from installed import Gone, Machine
from tap import Tap

t = Tap()
binary, boards = sys.argv[1], sys.argv[2:] or ['pc', 'microvm']


def serve(folder):
    """A web server on the host's loopback: its port."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a):
            pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s.server_port


def mirror_answers(m):
    """Does the host itself reach the first mirror that the guest was given?"""
    _, out = m.sh('cat /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null')
    site = re.search(r'^deb (?:\[.*?\] )?(\S+) (\S+)', out, re.M)
    try:
        with urllib.request.urlopen(f'{site[1]}/dists/{site[2]}/InRelease', timeout=20) as r:
            return r.status == 200
    except (OSError, TypeError, ValueError):
        return False


def network(m, board, work, port, apt):
    with open(f'{work}/blob', 'rb') as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    m.sh('/lib/systemd/systemd-networkd-wait-online -q --any --timeout 40', 60)
    start = time.monotonic()
    rc, out = m.sh(f'/usr/lib/apt/apt-helper download-file http://10.0.2.2:{port}/blob /root/blob SHA256:{digest}', 120)
    took = time.monotonic() - start
    if t.ok(rc == 0, f'{board}: 16 MiB from a server on the host', out):
        print(f'# {board}: {16 / took:.1f} MiB/s through apt')
    if not apt:
        return
    rc, out = m.sh('apt-get -q update && apt-get -qy install hello && hello', 300)
    if rc != 0 and not mirror_answers(m):
        t.skip(f'{board}: apt-get install', 'the mirror cannot be reached from here, either')
    else:
        t.ok(rc == 0 and 'Hello, world!' in out, f'{board}: apt-get update, apt-get install', out)


def agent(path):
    """guest-ping and the name of the system through the guest agent's socket."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(40)
        s.connect(path)
        f = s.makefile('rw')

        def ask(what, **args):
            f.write(json.dumps({'execute': what, 'arguments': args}) + '\n')
            f.flush()
            return json.loads(f.readline().lstrip('\xff')).get('return')
        return [ask('guest-sync', id=4711), ask('guest-ping'), ask('guest-get-osinfo')]


def session(board, disk, folder, work, port, first):
    sock = f'{work}/agent-{board}'
    bus = 'pci' if board.startswith('pc') else 'device'
    m = Machine(binary, folder, disk, '-smp', '2' if first else '1',
                '-chardev', f'socket,id=ga,path={sock},server=on,wait=off',
                '-device', f'virtio-serial-{bus}',
                '-device', 'virtserialport,chardev=ga,name=org.qemu.guest_agent.0', board=board)
    try:
        took = m.login()
        t.ok(True, f'{board}: login prompt')
        print(f'# {board}: {took:.1f} s from start to login prompt')
        _, out = m.sh('systemctl --failed --no-legend --plain')
        t.ok(not out.strip(), f'{board}: no unit has failed', out)
        if first:
            rc, out = m.sh('mkdir /root/d && cd /root/d && for i in $(seq 200); do seq $i >f$i; done && '
                           'dd if=/dev/urandom of=big bs=1M count=16 status=none && sha256sum * >../sums', 60)
            t.ok(rc == 0, f'{board}: files written', out)
        else:
            rc, out = m.sh('cd /root/d && sha256sum --quiet -c ../sums && ls | wc -l', 60)
            t.ok(rc == 0 and out.strip() == '201', f'{board}: the files of the other machine are there', out)
        network(m, board, work, port, first)
        try:
            m.sh('udevadm settle; systemctl start qemu-guest-agent')
            said = agent(sock)
            t.ok(said[0] == 4711 and said[1] == {} and 'ID' in str(said[2]).upper(),
                 f'{board}: guest-ping', said)
        except (OSError, ValueError) as e:
            t.ok(False, f'{board}: guest-ping', e)
        bad = warnings(m.sh('dmesg -r -l emerg,alert,crit,err')[1].encode())
        t.ok(not bad, f'{board}: no errors in the kernel\'s log', '\n'.join(bad))
        st = m.poweroff()
        t.ok(st == 0, f'{board}: poweroff ends with status 0', f'{st}\n{m.tail()}')
    except Gone as e:
        t.ok(False, f'{board}: an installed Debian', e)
    finally:
        m.kill()
    rc, out = installed.fsck(disk)
    t.ok(rc == 0, f'{board}: e2fsck finds the file system clean', out)
    good, out = installed.image_check(disk)
    t.ok(good, f'{board}: qemu-img check finds the image clean', out)


try:
    folder = installed.image()
except OSError as e:
    t.skip('an installed Debian', f'no image: {e}')
    t.end()
with tempfile.TemporaryDirectory(prefix='kvasir-image-') as work:
    with open(f'{work}/blob', 'wb') as f:
        f.write(os.urandom(16 << 20))
    port = serve(work)
    disk = installed.overlay(folder, f'{work}/disk.qcow2')
    for i, board in enumerate(boards):
        session(board, disk, folder, work, port, i == 0)
t.end()
