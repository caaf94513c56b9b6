#!/usr/bin/env python3
"""
virtio-blk under a stock kernel through ./run: data arrives in the image and comes back, with each
cache mode, engine and format; snapshot=on; a full host pauses the machine and SIGCONT goes on;
throttling; discard; drivers unbound and bound under load.

Arguments: [--rounds N] NAME=KERNEL...; environment as for ./run, KVASIR_BINARY required.
"""
import argparse
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time

from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
LIMIT = 240
MIB = 1 << 20


class Run:
    """./run in the background."""

    def __init__(self, kernel, command, *options):
        env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
        self.p = subprocess.Popen(
            [f'{top}/run', '--modules', 'virtio_pci virtio_blk', '--exec', command, '--',
             '-nic', 'none', *options],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace')

    def end(self):
        out = self.p.communicate(timeout=LIMIT + 60)[0]
        return self.p.returncode, out

    def pid(self, word):
        """The process of kvasir itself, which has word in its command line."""
        for d in glob.glob('/proc/[0-9]*'):
            try:
                with open(f'{d}/cmdline', 'rb') as f:
                    args = f.read().split(b'\0')
            except OSError:
                continue
            if os.path.basename(args[0]) == b'kvasir' and any(word.encode() in a for a in args):
                return int(d[6:])
        return None


def run(kernel, command, *options):
    return Run(kernel, command, *options).end()


# Writes a pattern in requests of all sizes, reads it back past the guest's cache.
PATTERN = r'''
set -e
dd if=/dev/urandom of=/p bs=1M count=4 2>/dev/null
dd if=/p of=/dev/vda bs=4k count=512 oflag=direct 2>/dev/null
dd if=/p of=/dev/vda bs=512 skip=4096 seek=4096 count=3 oflag=direct 2>/dev/null
dd if=/p of=/dev/vda bs=1M skip=2 seek=2 conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/vda bs=256k count=16 iflag=direct 2>/dev/null | cmp - /p
echo same $(sha256sum </p)
'''


def digest(data):
    return hashlib.sha256(data).hexdigest()


def data(work, name, kernel):
    variants = [('writeback', 'raw', []), ('none', 'raw', []), ('writethrough', 'raw', []),
                ('unsafe', 'raw', []), ('none', 'qcow2', []), ('writeback', 'qcow2', []),
                ('none,aio=threads', 'raw', []), ('writeback,aio=threads', 'qcow2', [])]
    for cache, fmt, more in variants:
        disk = f'{work}/d.{fmt}'
        if os.path.exists(disk):
            os.unlink(disk)
        if fmt == 'raw':
            with open(disk, 'wb') as f:
                f.truncate(16 * MIB)
        elif shutil.which('qemu-img'):
            subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', disk, '16M'], check=True)
        else:
            t.skip(f'{name}: {fmt}, cache={cache}', 'no qemu-img')
            continue
        rc, out = run(kernel, PATTERN, '-drive', f'file={disk},format={fmt},cache={cache}', *more)
        raw = disk
        if fmt == 'qcow2':
            raw = f'{work}/back.raw'
            subprocess.run(['qemu-img', 'convert', '-O', 'raw', disk, raw], check=True)
            check = subprocess.run(['qemu-img', 'check', disk], capture_output=True).returncode
            rc = rc or check
        with open(raw, 'rb') as f:
            got = digest(f.read(4 * MIB))
        t.ok(rc == 0 and f'same {got}' in out, f'{name}: {fmt}, cache={cache}: data in the image',
             f'status {rc}, image {got}: {out}')


def iothread(work, name, kernel):
    disk = f'{work}/io.raw'
    with open(disk, 'wb') as f:
        f.truncate(16 * MIB)
    rc, out = run(kernel, PATTERN, '-smp', '2', '-object', 'iothread,id=io0', '-drive',
                  f'file={disk},format=raw,if=none,id=d,cache=none', '-device',
                  'virtio-blk-pci,drive=d,iothread=io0')
    with open(disk, 'rb') as f:
        got = digest(f.read(4 * MIB))
    t.ok(rc == 0 and f'same {got}' in out, f'{name}: an I/O thread', f'status {rc}: {out}')


def snapshot(work, name, kernel):
    disk = f'{work}/snap.raw'
    with open(disk, 'wb') as f:
        f.write(b'before' * 1000)
        f.truncate(16 * MIB)
    with open(disk, 'rb') as f:
        before = f.read()
    for what in (['-snapshot', '-drive', f'file={disk},format=raw'],
                 ['-drive', f'file={disk},format=raw,snapshot=on']):
        rc, out = run(kernel, 'head -c 6 /dev/vda;' + PATTERN, *what)
        with open(disk, 'rb') as f:
            same = f.read() == before
        t.ok(rc == 0 and same and out.startswith('before') and 'same' in out,
             f'{name}: {what[0]} keeps the image as it was', f'status {rc}, same {same}: {out}')


def readonly(work, name, kernel):
    disk = f'{work}/ro.raw'
    with open(disk, 'wb') as f:
        f.truncate(MIB)
    rc, out = run(kernel, 'cat /sys/block/vda/ro /sys/block/vda/serial; echo x >/dev/vda && exit 9;'
                          'dd if=/dev/vda bs=1M count=1 2>/dev/null | wc -c',
                  '-drive', f'file={disk},format=raw,readonly=on,serial=ABC123')
    t.ok(rc == 0 and '1\nABC123' in out and '1048576' in out, f'{name}: read-only, serial', out)


def full(work, name, kernel):
    """A host without room: the machine pauses; with more room and SIGCONT it goes on."""
    if os.geteuid():
        t.skip(f'{name}: a full host pauses the machine', 'not root')
        return
    mnt = f'{work}/tmpfs'
    os.mkdir(mnt)
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=6M', 'none', mnt]).returncode:
        t.skip(f'{name}: a full host pauses the machine', 'tmpfs cannot be mounted')
        return
    try:
        disk = f'{mnt}/full.raw'
        with open(disk, 'wb') as f:
            f.truncate(32 * MIB)
        command = ('dd if=/dev/urandom of=/p bs=1M count=12 2>/dev/null; '
                   'dd if=/p of=/dev/vda bs=64k conv=fsync 2>/dev/null || exit 8; '
                   'echo same $(sha256sum </p); dmesg | grep -i "i/o error"; true')
        r = Run(kernel, command, '-drive', f'file={disk},format=raw')
        end, pid, before = time.time() + LIMIT, None, -1
        while time.time() < end and r.p.poll() is None:
            pid = r.pid(disk)
            now = os.stat(disk).st_blocks
            if pid and now == before and now > 10000 and os.statvfs(mnt).f_bavail == 0:
                break
            before = now
            time.sleep(1.5)
        waits = r.p.poll() is None
        os.kill(pid, signal.SIGCONT)  # still full: it pauses again
        time.sleep(1)
        waits = waits and r.p.poll() is None
        subprocess.run(['mount', '-o', 'remount,size=40M', mnt], check=True)
        os.kill(pid, signal.SIGCONT)
        rc, out = r.end()
        with open(disk, 'rb') as f:
            got = digest(f.read(12 * MIB))
        t.ok(waits and rc == 0 and f'same {got}' in out and 'rror, dev' not in out and
             'No space left' in out and 'paused' in out,
             f'{name}: a full host pauses the machine, SIGCONT goes on',
             f'waited {waits}, status {rc}, image {got}: {out}')
    finally:
        subprocess.run(['umount', mnt])


def throttle(work, name, kernel):
    disk = f'{work}/slow.raw'
    with open(disk, 'wb') as f:
        f.truncate(16 * MIB)
    rc, out = run(kernel, 'cat /proc/uptime; dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct '
                          '2>/dev/null; cat /proc/uptime',
                  '-drive', f'file={disk},format=raw,throttling.bps-read=1M')
    try:
        a, b = (float(line.split()[0]) for line in out.splitlines()[-2:])
    except (ValueError, IndexError):
        a = b = 0
    t.ok(rc == 0 and 3 < b - a < 8, f'{name}: 4 MiB at 1 MiB/s take about four seconds',
         f'status {rc}, {b - a:.1f} s: {out}')


def discard(work, name, kernel):
    disk = f'{work}/trim.raw'
    with open(disk, 'wb') as f:
        f.write(os.urandom(8 * MIB))
    rc, out = run(kernel, 'blkdiscard -o 0 -l 4194304 /dev/vda || busybox blkdiscard -l 4194304 /dev/vda; sync',
                  '-drive', f'file={disk},format=raw,discard=unmap')
    blocks = os.stat(disk).st_blocks * 512
    t.ok(rc == 0 and blocks <= 5 * MIB, f'{name}: discard=unmap makes holes',
         f'status {rc}, {blocks} bytes used: {out}')


BIND = r'''
cd /sys/bus/virtio/drivers/virtio_blk
i=0
while [ $i -lt ROUNDS ]; do
	for n in 1 2 3; do dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct 2>/dev/null & done
	echo virtio0 >unbind || exit 3
	wait
	echo virtio0 >bind || exit 4
	i=$((i + 1))
done
'''


def rebind(work, name, kernel, rounds):
    disk = f'{work}/bind.raw'
    with open(disk, 'wb') as f:
        f.truncate(16 * MIB)
    rc, out = run(kernel, BIND.replace('ROUNDS', str(rounds)) + PATTERN, '-smp', '2', '-drive',
                  f'file={disk},format=raw,cache=none')
    t.ok(rc == 0 and 'same' in out, f'{name}: the driver unbound and bound {rounds} times under load',
         f'status {rc}: {out}')


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--rounds', type=int, default=10)
    a.add_argument('kernels', nargs='+')
    a = a.parse_args()
    work = tempfile.mkdtemp(prefix='kvasir-disk-', dir='/var/tmp')
    try:
        for k in a.kernels:
            name, kernel = k.split('=', 1)
            data(work, name, kernel)
            iothread(work, name, kernel)
            snapshot(work, name, kernel)
            readonly(work, name, kernel)
            full(work, name, kernel)
            throttle(work, name, kernel)
            discard(work, name, kernel)
            rebind(work, name, kernel, a.rounds)
            shutil.rmtree(f'{work}/tmpfs', ignore_errors=True)
    finally:
        shutil.rmtree(work)
    t.end()


main()
