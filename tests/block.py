#!/usr/bin/env python3
"""
Disks of the whole program, without a kernel: images that cannot be used are one clear line, status
1 and nothing written; locks against QEMU's programs, both ways; snapshot=on leaves no trace.
Argument: the kvasir binary.
"""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tap import Guest, Tap, kvasir

binary = sys.argv[1]
t = Tap()
work = tempfile.mkdtemp(prefix='kvasir-block-')
idle = Guest(b'\xfa\xf4\xeb\xfd')  # cli; hlt; jmp to the hlt
done = Guest(b'\x66\xba\xf4\x00\xb0\x02\xee\xf4')  # mov dx, f4h; mov al, 2; out: status 5
BASE = ['-accel', 'soft', '-m', '16', '-nic', 'none', '-serial', 'none',
        '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']


def path(name):
    return os.path.join(work, name)


def image(name, size=1 << 20, data=b'', mode=0o644):
    with open(path(name), 'wb') as f:
        f.write(data)
        f.truncate(max(size, len(data)))
    os.chmod(path(name), mode)
    return path(name)


def state():
    """Everything in the work folder, to see that nothing was written."""
    out = {}
    for d, _, files in os.walk(work):
        for f in files:
            p = os.path.join(d, f)
            if os.path.isfile(p):
                with open(p, 'rb') as fh:
                    out[p] = (os.stat(p).st_mtime_ns, hashlib.sha256(fh.read()).digest())
    return out


def refused(name, args, word, user=None):
    """One line with the word, status 1, no file changed."""
    before = state()
    cmd = [binary, *BASE, '-kernel', done.path, *args]
    kw = {'user': user, 'group': user, 'extra_groups': []} if user else {}
    try:
        p = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **kw)
        status, err = p.returncode, p.stderr.decode(errors='replace')
    except subprocess.TimeoutExpired:
        status, err = None, 'no end'
    good = status == 1 and err.count('\n') == 1 and word in err
    same = state() == before
    t.ok(good and same, f'refused: {name}',
         f'status {status}, wanted "{word}", files {"same" if same else "CHANGED"}: {err}')


def starts(name, args):
    got, _, err = kvasir(binary, *BASE, '-kernel', done.path, *args)
    return t.ok(got == 5 and not err, name, f'status {got}: {err}')


def bad_input():
    disk = image('disk.raw')
    fifo = path('fifo')
    os.mkfifo(fifo)
    link = path('dangling')
    os.symlink(path('nowhere'), link)
    refused('absent', ['-drive', f'file={path("absent")},format=raw'], 'No such file')
    refused('a dangling link', ['-drive', f'file={link},format=raw'], 'No such file')
    refused('a folder', ['-drive', f'file={work},format=raw'], 'is a directory')
    refused('a FIFO', ['-drive', f'file={fifo}'], 'is a FIFO')
    refused('a character device', ['-drive', 'file=/dev/null,format=raw'], 'character device')
    refused('an empty file', ['-drive', f'file={image("empty", 0)},format=raw'], '0 bytes')
    refused('half a sector', ['-drive', f'file={image("odd", 1000)},format=raw'],
            '1000 bytes, is not a multiple of 512')
    refused('a protocol', ['-drive', 'file=nbd:localhost:1'], "protocol 'nbd'")
    refused('a VMDK', ['-drive', f'file={image("vmdk", 65536, b"KDMV")}'], 'looks like a vmdk')
    refused('no qcow2 at all', ['-drive', f'file={disk},format=qcow2'], 'qcow2')
    refused('cut qcow2', ['-drive', f'file={image("cut", 512, b"QFI" + bytes([0xfb, 0, 0, 0, 3]))}'],
            'cut')
    refused('offset behind the end', ['-drive', f'file={disk},format=raw,offset=2M'],
            'behind the end')
    refused('twice', ['-drive', f'file={disk},format=raw', '-drive', f'file={disk},format=raw'],
            'twice here')
    refused('an unknown drive', ['-device', 'virtio-blk-pci,drive=x'], 'no drive with the id x')
    refused('a drive that has a user', ['-drive', f'file={disk},format=raw,id=a,if=none',
                                        '-device', 'virtio-blk-pci,drive=a',
                                        '-device', 'virtio-blk-pci,drive=a'], 'in use')
    kept, os.environ['TMPDIR'] = os.environ.get('TMPDIR'), '/nonexistent'
    refused('unwritable TMPDIR for -snapshot', ['-snapshot', '-drive', f'file={disk},format=raw'],
            'TMPDIR')
    del os.environ['TMPDIR']
    if kept is not None:
        os.environ['TMPDIR'] = kept
    if os.geteuid() == 0:
        os.chmod(work, 0o755)
        image('secret', mode=0o600)
        image('readable', mode=0o644)
        refused('no permission', ['-drive', f'file={path("secret")},format=raw'],
                'Permission denied', user=65534)
        refused('read-only by permission', ['-drive', f'file={path("readable")},format=raw'],
                'readonly=on', user=65534)
    else:
        t.skip('refused: no permission', 'not root')
        t.skip('refused: read-only by permission', 'not root')
    starts('a read-only image that is only read',
           ['-drive', f'file={image("ro", mode=0o444)},format=raw,readonly=on'])


class Holder:
    """A process that has the image open."""

    def __init__(self, *cmd):
        self.p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *a):
        self.p.send_signal(signal.SIGTERM)
        self.p.wait(20)


def locked_bytes(file):
    """Which bytes others have locked there, from /proc/locks."""
    st = os.stat(file)
    node = f'{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}'
    with open('/proc/locks', encoding='ascii') as f:
        rows = [line.split() for line in f]
    return sorted(int(b) for r in rows if node in r
                  for b in range(int(r[-2]), int(r[-1]) + 1))


def wait_locked(file, byte=201, seconds=20):
    """QEMU opens an image in steps, with more locks each: 201 comes with the last one."""
    end = time.time() + seconds
    while byte not in locked_bytes(file) and time.time() < end:
        time.sleep(0.05)
    return locked_bytes(file)


def run_qemu_img(*args):
    p = subprocess.run(args, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    return p.returncode, p.stderr.decode(errors='replace')


def locks():
    if not shutil.which('qemu-io') or not shutil.which('qemu-img'):
        t.skip('locks against QEMU', 'qemu-utils is not installed')
        return
    disk = image('locked.raw')
    ours = [binary, *BASE, '-kernel', idle.path, '-drive', f'file={disk},format=raw']
    with Holder(*ours):
        t.ok(wait_locked(disk) == [100, 101, 103, 201, 203], 'the bytes that a writer locks',
             locked_bytes(disk))
        rc, err = run_qemu_img('qemu-io', '-f', 'raw', '-c', 'write 0 512', disk)
        t.ok(rc == 1 and 'lock' in err, 'and qemu-io from writing', err)
        refused('in use by another kvasir', ['-drive', f'file={disk},format=raw'],
                'another process')
        refused('read-only while another kvasir writes',
                ['-drive', f'file={disk},format=raw,readonly=on'], 'another process')
        starts('force-share reads it all the same',
               ['-drive', f'file={disk},format=raw,readonly=on,force-share=on'])
        starts('file.locking=off too', ['-drive', f'file={disk},format=raw,file.locking=off'])
    # of a raw image QEMU's readers mind no writer; of others they do
    cow = path('locked.qcow2')
    run_qemu_img('qemu-img', 'create', '-f', 'qcow2', cow, '1M')
    with Holder(*ours[:-1], f'file={cow},format=qcow2'):
        t.ok(wait_locked(cow) == [100, 101, 103, 201, 203], 'the same for qcow2', locked_bytes(cow))
        rc, err = run_qemu_img('qemu-img', 'info', cow)
        t.ok(rc == 1 and 'lock' in err, 'our writer keeps qemu-img info out', err)
        rc, err = run_qemu_img('qemu-img', 'info', '-U', cow)
        t.ok(rc == 0, 'but not with -U', err)
        refused('qcow2 in use by another kvasir', ['-drive', f'file={cow},format=qcow2'],
                'another process')
    with Holder(*ours[:-1], f'file={disk},format=raw,readonly=on'):
        t.ok(wait_locked(disk) == [100, 201, 203], 'the bytes that a reader locks',
             locked_bytes(disk))
        rc, err = run_qemu_img('qemu-io', '-r', '-f', 'raw', '-c', 'read 0 512', disk)
        t.ok(rc == 0, 'our reader lets a reader of QEMU in', err)
        rc, err = run_qemu_img('qemu-io', '-f', 'raw', '-c', 'write 0 512', disk)
        t.ok(rc == 1 and 'lock' in err, 'and keeps a writer out', err)
    with Holder('qemu-io', '-f', 'raw', disk):
        wait_locked(disk, 101)
        refused('in use by qemu-io', ['-drive', f'file={disk},format=raw'], 'another process')
    with Holder('qemu-io', '-r', '-f', 'raw', disk):
        wait_locked(disk, 100)
        starts('read-only next to a reader of QEMU',
               ['-drive', f'file={disk},format=raw,readonly=on'])
    if shutil.which('qemu-system-x86_64'):
        with Holder('qemu-system-x86_64', '-accel', 'tcg', '-S', '-nodefaults', '-display', 'none',
                    '-drive', f'file={disk},format=raw,if=virtio'):
            wait_locked(disk)
            refused('in use by qemu-system', ['-drive', f'file={disk},format=raw'],
                    'another process')
        with Holder(*ours):
            wait_locked(disk)
            rc, err = run_qemu_img('qemu-system-x86_64', '-accel', 'tcg', '-S', '-nodefaults',
                                   '-display', 'none', '-drive', f'file={disk},format=raw')
            t.ok(rc == 1 and 'lock' in err, 'our writer keeps qemu-system out', err)
    else:
        t.skip('locks against qemu-system', 'it is not installed')


def options():
    disk = image('opts.raw')
    q = ['-drive', f'file={disk},format=raw']
    for cache in 'writeback', 'none', 'writethrough', 'directsync', 'unsafe':
        starts(f'cache={cache}', ['-drive', f'file={disk},format=raw,cache={cache}'])
    for aio in 'io_uring', 'threads':
        starts(f'aio={aio}', ['-drive', f'file={disk},format=raw,aio={aio}'])
    starts('throttling', ['-drive', f'file={disk},format=raw,bps=1M,bps_max=2M,iops_rd=10'])
    starts('-snapshot', ['-snapshot', *q])
    starts('-blockdev by name', ['-blockdev', f'driver=file,node-name=f,filename={disk}',
                                 '-blockdev', 'driver=raw,node-name=d,file=f',
                                 '-device', 'virtio-blk-pci,drive=d,serial=x,num-queues=2'])
    starts('-blockdev nested', ['-blockdev', 'driver=raw,node-name=d,file.driver=file,'
                                             f'file.filename={disk},read-only=on',
                                '-device', 'virtio-blk-pci,drive=d'])
    starts('null-co', ['-blockdev', 'driver=null-co,node-name=n,size=1G',
                       '-device', 'virtio-blk-pci,drive=n'])
    starts('an iothread', ['-object', 'iothread,id=io', '-drive', f'file={disk},format=raw,if=none,id=d',
                           '-device', 'virtio-blk-pci,drive=d,iothread=io'])
    starts('-hda and -cdrom', ['-snapshot', '-hda', disk, '-cdrom', image('cd', 4096)])
    st = os.stat(disk)
    t.ok(st.st_size == 1 << 20 and open(disk, 'rb').read() == bytes(1 << 20),
         'nothing was written to the image by all this')


try:
    bad_input()
    locks()
    options()
finally:
    shutil.rmtree(work)
t.end()
