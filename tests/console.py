#!/usr/bin/env python3
"""
Consoles and streams of virtio-serial with stock kernels: all bytes both ways, ports by name, host and
guest that come and go, drivers unbound and bound again, and the real qemu-guest-agent over a unix
socket (where apt can fetch its package).

Arguments: NAME=KERNEL...; environment as for ./run, KVASIR_BINARY required.
"""
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
work = tempfile.mkdtemp(prefix='kvasir-console-')
LIMIT = 120


def path(name):
    return os.path.join(work, name)


class Guest:
    """./run --exec in the background."""

    def __init__(self, kernel, command, *options, modules='virtio_pci virtio_mmio virtio_console'):
        env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
        self.p = subprocess.Popen([f'{top}/run', '--modules', modules, '--exec', command, '--',
                                   *options], env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self):
        out, err = self.p.communicate()
        return self.p.returncode, out, err.decode(errors='replace')


def connect(name, seconds=LIMIT):
    end = time.time() + seconds
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path(name))
            s.settimeout(seconds)
            return s
        except OSError:
            s.close()
            if time.time() > end:
                raise
            time.sleep(0.05)


def read_until(s, end, limit=1 << 24):
    data = b''
    while not data.endswith(end) and len(data) < limit:
        piece = s.recv(65536)
        if not piece:
            break
        data += piece
    return data


def streams(name, kernel, board):
    """Half a MiB each way through a port, and what the guest knows of it."""
    blob = b''.join(hashlib.sha512(b'%d' % i).digest() for i in range(8192))
    command = r'''
        p=/dev/$(ls /sys/class/virtio-ports | sed -n 's/vport.p1/&/p')
        cat /sys/class/virtio-ports/vport*p1/name
        exec 3<>$p
        echo ready >&3
        head -c 524288 <&3 | md5sum
        head -c 524288 /dev/urandom > /tmp/r
        cat /tmp/r >&3
        md5sum </tmp/r
        exec 3>&-
        echo console > /dev/hvc0
    '''
    g = Guest(kernel, command, '-M', board, '-device', 'virtio-serial,id=vs', '-chardev',
              f'socket,id=p,path={path("p")},server=on,wait=off', '-device',
              'virtserialport,bus=vs.0,chardev=p,name=org.kvasir.test.0', '-chardev',
              f'file,id=c,path={path("hvc")}', '-device', 'virtconsole,chardev=c')
    first = got = b''
    with connect('p') as s:
        try:
            first = read_until(s, b'ready\n')
            s.sendall(blob)
            while len(got) < 524288:
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        except OSError as e:
            t.ok(False, f'{name}, {board}: connection', e)
        rc, out, err = g.end()
    want = b'org.kvasir.test.0\n%s  -\n%s  -\n' % (
        hashlib.md5(blob).hexdigest().encode(), hashlib.md5(got).hexdigest().encode())
    t.ok(rc == 0 and first == b'ready\n' and out == want, f'{name}, {board}: all bytes both ways',
         f'{rc} {first} {len(got)} {out} {err}')
    hvc = open(path('hvc'), 'rb').read()
    t.ok(hvc == b'console\r\n', f'{name}, {board}: hvc0', hvc)


def events(name, kernel):
    """The guest sees the host come and go; the driver is unbound and bound in between."""
    command = r'''
        b=$(basename $(echo /sys/bus/virtio/drivers/virtio_console/virtio*))
        for round in 1 2 3 4 5; do
            while ! ls /dev/vport*p1 >/dev/null 2>&1; do sleep 0.1; done
            p=$(ls /dev/vport*p1)
            exec 3<>$p # closing it would discard what has come
            while ! echo "hello $round" 2>/dev/null >&3; do sleep 0.1; done
            read answer <&3; echo $answer
            echo bye >&3
            exec 3>&-
            sleep 0.5 # the host leaves
            echo $b > /sys/bus/virtio/drivers/virtio_console/unbind
            echo $b > /sys/bus/virtio/drivers/virtio_console/bind
        done
    '''
    g = Guest(kernel, command, '-M', 'pc', '-device', 'virtio-serial', '-chardev',
              f'socket,id=p,path={path("e")},server=on,wait=off', '-device',
              'virtserialport,chardev=p,name=x')
    said = []
    try:
        for i in range(1, 6):
            with connect('e') as s:
                said.append(read_until(s, b'\n'))
                s.sendall(b'answer %d\n' % i)
                said.append(read_until(s, b'\n'))
    except OSError as e:
        said.append(e)
    rc, out, err = g.end()
    t.ok(rc == 0 and out == b''.join(b'answer %d\n' % i for i in range(1, 6)) and
         said == [x for i in range(1, 6) for x in (b'hello %d\n' % i, b'bye\n')],
         f'{name}: host and guest come and go, the driver, too', f'{rc} {said} {out} {err}')


def agent_files():
    """HOST:GUEST of the agent and its libraries, from this host's release; or why not."""
    if not shutil.which('apt-get') or not shutil.which('dpkg-deb'):
        return None, 'no apt here'
    cache = os.environ.get('KVASIR_CACHE') or os.path.expanduser('~/.cache/kvasir')
    root = os.path.join(cache, 'guest-agent')
    agent = f'{root}/usr/sbin/qemu-ga'
    if not os.path.exists(agent):
        p = subprocess.run(['apt-get', '-q', '-o', 'APT::Sandbox::User=root', 'download',
                            'qemu-guest-agent'], cwd=work, capture_output=True, check=False)
        debs = [f for f in os.listdir(work) if f.endswith('.deb')]
        if p.returncode or not debs:
            return None, 'the package qemu-guest-agent cannot be had'
        subprocess.run(['dpkg-deb', '-x', path(debs[0]), root], check=True)
    ldd = subprocess.run(['ldd', agent], capture_output=True, check=False).stdout.decode()
    if 'not found' in ldd:
        return None, 'libraries of qemu-ga are not installed here'
    libs = [w for w in ldd.split() if w.startswith('/')]
    return [f'{f}:{f[1:]}' for f in libs] + [f'{agent}:sbin/qemu-ga'], ''


class Agent:
    def __init__(self, s):
        self.f = s.makefile('rwb')

    def call(self, execute, **arguments):
        self.f.write(json.dumps({'execute': execute, 'arguments': arguments}).encode() + b'\n')
        self.f.flush()
        return self.reply()

    def reply(self):
        return json.loads(self.f.readline())

    def sync(self):
        """Whatever was said before is void: the answer comes after the byte FF."""
        self.f.write(b'\xff' + json.dumps({'execute': 'guest-sync-delimited', 'arguments':
                                           {'id': 4711}}).encode() + b'\n')
        self.f.flush()
        for line in self.f:
            if line.startswith(b'\xff'):
                return json.loads(line[1:])
        return None


def agent(name, kernel, board):
    files, why = agent_files()
    if not files:
        t.skip(f'{name}, {board}: qemu-guest-agent', why)
        return
    initrd = path('agent.cpio')
    env = dict(os.environ, KVASIR_KERNEL=kernel)
    subprocess.run([f'{top}/tools/mkinitramfs', 'base', path('files.cpio'), *files], check=True)
    command = ('mkdir -p /run /var/run /var/log /dev/virtio-ports; '
               'for p in /sys/class/virtio-ports/*; do '
               'ln -s ../$(basename $p) /dev/virtio-ports/$(cat $p/name); done; '
               'qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0')
    # ./run has one initramfs; ours goes behind it as /exec does
    exec_cpio = path('exec.cpio')
    subprocess.run([f'{top}/tools/mkinitramfs', 'exec', exec_cpio, command], check=True)
    modules = path('modules.cpio')
    version = os.path.basename(kernel).replace('vmlinuz-', '')
    drivers = os.path.join(os.path.dirname(kernel), f'modules-{version}')
    if not os.path.isdir(drivers):
        t.skip(f'{name}, {board}: qemu-guest-agent', f'no {drivers}')
        return
    subprocess.run([f'{top}/tools/mkinitramfs', 'modules', modules, drivers, 'virtio_pci',
                    'virtio_mmio', 'virtio_console'], check=True)
    with open(initrd, 'wb') as f:
        for part in (path('files.cpio'), modules, exec_cpio):
            f.write(open(part, 'rb').read())
            f.write(bytes(-f.tell() % 512))
    p = subprocess.Popen([env['KVASIR_BINARY'], '-M', board, '-m', '512', '-kernel', kernel,
                          '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1',
                          '-serial', f'file:{path("log")}', '-no-reboot', '-device',
                          'virtio-serial', '-chardev',
                          f'socket,id=ga,path={path("ga")},server=on,wait=off', '-device',
                          'virtserialport,chardev=ga,name=org.qemu.guest_agent.0'],
                         stdin=subprocess.DEVNULL)
    try:
        with connect('ga') as s:
            a = Agent(s)
            r = a.sync()
            t.ok(r == {'return': 4711}, f'{name}, {board}: guest-sync', r)
            r = a.call('guest-ping')
            t.ok(r == {'return': {}}, f'{name}, {board}: guest-ping', r)
            r = a.call('guest-info')['return']
            t.ok('guest-ping' in [c['name'] for c in r['supported_commands']],
                 f'{name}, {board}: guest-info, version {r["version"]}', r)
            h = a.call('guest-file-open', path='/init', mode='r')['return']
            r = a.call('guest-file-read', handle=h, count=65536)['return']
            t.ok(r['count'] > 100, f'{name}, {board}: guest-file-read', r)
        with connect('ga') as s:  # a second client, after the first one left in the middle
            a = Agent(s)
            r = a.sync()
            t.ok(r == {'return': 4711}, f'{name}, {board}: a second client', r)
            s.sendall(b'{"execute":"guest-shutdown","arguments":{"mode":"reboot"}}\n')
    except OSError as e:
        t.ok(False, f'{name}, {board}: qemu-guest-agent', e)
    finally:
        p.terminate()
        p.wait()


for arg in sys.argv[1:]:
    kind, _, vmlinuz = arg.partition('=')
    for board in ('pc', 'microvm'):
        streams(kind, vmlinuz, board)
    events(kind, vmlinuz)
    agent(kind, vmlinuz, 'pc')
shutil.rmtree(work)
t.end()
