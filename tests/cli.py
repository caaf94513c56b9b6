#!/usr/bin/env python3
"""
Bad command lines: each ends with status 1 and one line that names the cause. (What only concerns
parsing is in unit/options.c; here are files, sizes and devices.) Argument: the kvasir binary.
"""
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

from tap import Guest, Tap, kvasir

binary = sys.argv[1]
t = Tap()
work = tempfile.mkdtemp(prefix='kvasir-cli-')


def file(name, data):
    path = os.path.join(work, name)
    with open(path, 'wb') as f:
        f.write(data)
    return path


guest = Guest(b'\xfa\xf4')
good = guest.path
text = file('text', b'hello\n' * 100)
empty = file('empty', b'')
gz = file('gz', b'\x1f\x8b\x08' + bytes(600))
big = file('big', bytes(8 << 20))
cut = file('cut', open(good, 'rb').read()[:20])
qcow = file('qcow', b'QFI\xfb\0\0\0\3' + bytes(1016))
listener = socket.create_server(('127.0.0.1', 0))
taken = listener.getsockname()[1]
absent = os.path.join(work, 'absent')

WRONG = [
    ([], 'nothing to boot'),
    (['-kernel', absent], f'{absent}: No such file'),
    (['-kernel', work], 'is a directory'),
    (['-kernel', empty], 'empty'),
    (['-kernel', text], 'not a kernel'),
    (['-kernel', gz], 'gzip'),
    (['-kernel', cut], 'truncated'),
    ([good, good], 'there is a kernel already'),
    ([big], 'no firmware yet'),
    ([qcow], 'no firmware yet'),
    (['-drive', f'file={big},format=raw,if=virtio'], 'no firmware yet'),
    ([gz], 'gzip'),
    ([absent], f'{absent}: No such file'),
    ([good, qcow], 'qcow'),
    ([good, '-initrd', absent], f'-initrd: {absent}: No such file'),
    ([good, '-initrd', big, '-m', '4'], 'no room for'),
    ([good, '-m', '0'], '-m 0'),
    ([good, '-smp', '65'], 'from 1 to 64'),
    ([good, '-kernl', 'x'], 'did you mean kernel?'),
    ([good, '-serial', f'file:{work}/no/such'], '-serial'),
    ([good, '-chardev', f'file,id=a,path={work}/no/such'], '-chardev'),
    ([good, '-serial', 'chardev:nobody'], 'no -chardev with this id'),
    ([good, '-serial', 'stdio', '-serial', 'mon:stdio'], 'stdio is given to more than one'),
    ([good, '-device', 'isa-debugexit'], 'did you mean isa-debug-exit?'),
    ([good, '-device', 'isa-debug-exit,iobas=1'], 'did you mean iobase?'),
    ([good, '-device', 'isa-debug-exit,iobase=x'], 'iobase'),
    ([good, '-device', 'isa-debug-exit,iobase=0x3f8'], '-device'),
    ([good, '-device', 'isa-debug-exit,id=a', '-device', 'isa-debugcon,id=a'], "a"),
    ([good, '-device', 'isa-debugcon,chardev=nobody'], 'nobody'),
    ([good, '-M', 'pc', '-device', 'PIIX3,addr=5'], 'has a PIIX3 already'),
    ([good, '-device', 'virtio-rnd'], 'did you mean virtio-rng?'),
    ([good, '-device', 'virtio-rng-device,max-bytes=0'], 'max-bytes'),
    ([good, '-device', 'virtio-rng-device,period=1,adr=2'], 'no property adr'),
    ([good, '-device', 'virtio-rng,iothread=io0'], 'no iothread with the id io0'),
    ([good, '-device', 'virtio-rng,rng=r0'], 'no rng with the id r0'),
    ([good, '-object', f'rng-random,id=r0,filename={absent}'], f'{absent}: No such file'),
    ([good, '-object', 'rng-randm,id=r0'], 'did you mean rng-random?'),
    ([good, '-object', 'iothread'], 'id is needed'),
    ([good, '-object', 'iothread,id=a', '-object', 'iothread,id=a'], "'a' is taken"),
    ([good, '-object', 'iothread,id=a,poll-max-ns=2000000000'], 'poll-max-ns'),
    ([good, '-object', 'iothread,id=a,poll-grow=2'], "poll-grow"),
    ([good, '-object', 'main-loop,id=a', '-object', 'main-loop,id=b'], "one main loop"),
    ([good, '-accel', 'soft,halt-poll-ns=x'], 'halt-poll-ns'),
    ([good, '-object', 'memory-backend-ram,id=m,size=1G'], '-mem-path'),
    ([good, '-M', 'pc', '-device', 'virtio-rng-device'], 'no slots for virtio-mmio'),
    ([good, '-device', 'virtio-pci'], 'virtio-rng-pci'),
    ([good, '-device', 'virtio-mmio'], 'virtio-rng-device'),
    ([good, '-M', 'microvm', '-device', 'virtio-rng-pci'], '-M pc'),
    ([good, '-device', 'virtio-rng-pci,addr=1'], 'taken by piix3'),
    ([good, '-device', 'virtio-rng-pci,addr=20'], 'up to 1f.7'),
    ([good, '-device', 'virtio-rng-pci,addr=+4'], 'up to 1f.7'),
    ([good, '-device', 'virtio-rng-pci,max-bytes=0x8000000000000000'], 'to 2^63-1'),
    ([good, '-device', 'virtio-rng-pci,romfile=x.rom'], 'expansion ROMs are not supported'),
    ([good, '-device', 'virtio-rng-pci,bus=pci.1'], 'this machine has pci.0'),
    ([good, '-device', 'virtio-rng-pci,vectors=300'], 'more than 256'),
    ([good, '-device', 'virtio-rng-pci,disable-legacy=on,disable-modern=on'], 'nothing is left'),
    ([good, '-M', 'pc', '-device', 'PIIX3'], 'taken by piix3'),
    ([good, '-M', 'pc', '-device', 'i440FX'], 'taken by i440fx'),
    ([good, '-M', 'pc,pcie=on'], 'pcie=on is for microvm'),
    ([good, '-M', 'pc,hw-reduced=on'], 'hw-reduced=on is for microvm'),
    ([good, '-M', 'microvm,pcie=on,acpi=off'], 'needs acpi=on'),
    ([good, '-rtc', 'base=yesterday'], '-rtc'),
    ([good, '-mem-path', absent + '/x'], 'absent'),
    ([good, '-D', work + '/no/such'], '-D'),
    ([good, '-machine', 'q35'], 'q35 is not supported'),
    ([good, '-cpu', 'qemu64'], "unknown model 'qemu64'"),
    ([good, '-netdev', 'tap,id=n,ifname=lo'], 'lo'),
    ([good, '-netdev', f'stream,id=n,addr.type=unix,addr.path={absent}'], 'cannot connect to'),
    ([good, '-netdev', 'user,id=n,tftp=' + absent], f'tftp={absent}: No such file'),
    ([good, '-netdev', f'user,id=n,hostfwd=tcp:127.0.0.1:{taken}-:22'], 'in use'),
    ([good, '-drive', 'file=x'], '-drive: x: No such file or directory'),
]

for args, says in WRONG:
    rc, out, err = kvasir(binary, '-accel', 'soft', *args, timeout=20)
    one_line = err.count('\n') == 1 and err.startswith('kvasir: ')
    t.ok(rc == 1 and says in err and one_line and not out,
         ' '.join(a if len(a) < 60 else a[:20] + '...' for a in args).replace('#', '') or '(none)',
         f'status {rc}, wanted "{says}": {err}')

# ulimit -f: SIGXFSZ would kill at the first write beyond, without a word
p = subprocess.run([binary, '-accel', 'soft', good], stdin=subprocess.DEVNULL, capture_output=True,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 20,) * 2),
                   timeout=20, check=False)
t.ok(p.returncode == 1 and p.stderr.count(b'\n') == 1, 'ulimit -f', f'{p.returncode} {p.stderr}')
# files whose open waits for somebody
fifo = os.path.join(work, 'fifo')
os.mkfifo(fifo)
for args in (['-kernel', fifo], [good, '-initrd', fifo], [good, '-D', fifo]):
    p = subprocess.Popen([binary, '-accel', 'soft', *args], stdin=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    try:
        for i in range(80):  # its handlers are there; again if it was not in open(2) yet
            caught = int(open(f'/proc/{p.pid}/status').read().split('SigCgt:')[1].split()[0], 16)
            if caught >> (signal.SIGTERM - 1) & 1:
                p.terminate()
            time.sleep(0.25)
            if p.poll() is not None:
                break
    finally:
        p.kill()
    err = p.communicate()[1].decode()
    t.ok(p.returncode == 1 and fifo in err, f'{args[-2]} FIFO: SIGTERM ends the wait',
         f'{p.returncode} {err}')

rc, out, err = kvasir(binary, '-accel', 'kvm', good, timeout=20) if not os.path.exists('/dev/kvm') \
    else (1, b'', '/dev/kvm\n')
t.ok(rc == 1 and '/dev/kvm' in err, '-accel kvm without /dev/kvm', f'{rc} {err}')
for args, says in ((['-help'], b'-kernel FILE'), (['-version'], b'kvasir 0.'),
                   (['-device', 'help'], b'isa-serial'), (['-machine', 'help'], b'microvm'),
                   (['-device', 'isa-serial,help'], b'iobase'), (['-cpu', 'help'], b'avx2')):
    rc, out, err = kvasir(binary, *args)
    t.ok(rc == 0 and says in out and not err, ' '.join(args), f'{rc} {out} {err}')

for name, want in (('guest=vm1,process=kv-proc', 'kv-proc'), ('vm1', 'vm1'),
                   ('a-long-name-of-a-guest', 'a-long-name-of-')):
    p = subprocess.Popen([binary, '-accel', 'soft', '-display', 'none', '-name', name, good],
                         stdin=subprocess.DEVNULL)
    got = ''
    for i in range(100):
        got = open(f'/proc/{p.pid}/comm').read().strip()
        if got == want or p.poll() is not None:
            break
        time.sleep(0.05)
    p.kill()
    p.wait()
    t.ok(got == want, f'-name {name}: the process is called {want}', got)

os.unlink(good)
subprocess.run(['rm', '-rf', work], check=False)
t.end()
