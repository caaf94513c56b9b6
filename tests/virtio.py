#!/usr/bin/env python3
"""
Virtio under a stock kernel through ./run: both transports with I/O threads and without, split and
packed rings; drivers removed and inserted again while readers keep the device busy; a guest that
resets the whole machine under load; the balloon, seen from both sides.

Arguments: [--rounds N] NAME=KERNEL...; environment as for ./run, KVASIR_BINARY required.
"""
import argparse
import glob
import os
import re
import subprocess
import tempfile
import time

from bootlog import warnings
from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
LIMIT = 180
MIB = 1 << 20

READ = r'''
cat /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng bs=4096 count=64 2>/dev/null | wc -c
cat /sys/bus/virtio/devices/*/features
cat /proc/interrupts
echo ==; dmesg -r
'''
# The driver goes away (which resets the device) while readers and a second processor are at it.
LOOP = r'''
d=/sys/bus/virtio/drivers/virtio_rng
v=$(basename $(ls -d $d/virtio*))
(while :; do dd if=/dev/hwrng of=/dev/null bs=65536 count=1 2>/dev/null; done) & a=$!
(while :; do cat /proc/interrupts >/dev/null; done) & b=$!
i=0
while [ $i -lt ROUNDS ]; do
	echo $v >$d/unbind || exit 3
	echo $v >$d/bind || exit 4
	i=$((i + 1))
done
kill $a $b
[ $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c) = 1024 ] || exit 5
dmesg -r
'''
# A reset of the machine with requests under way.
REBOOT = r'''
(while :; do dd if=/dev/hwrng of=/dev/null bs=65536 count=1 2>/dev/null; done) &
(while :; do dd if=/dev/hwrng of=/dev/null bs=16 count=9 2>/dev/null; done) &
sleep 0.DELAY
echo b >/proc/sysrq-trigger
sleep 60
'''
BALLOON = r'''
mem() { sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
inflated() {
	i=0
	while [ $(mem) -gt 270000 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
	mem
}
a=$(inflated)
rmmod virtio_balloon || exit 6
b=$(mem)
dd if=/dev/zero of=/tmp/fill bs=1M count=200 2>/dev/null # the host has to have it
rm /tmp/fill
insmod /modules/*virtio*balloon.ko || exit 7
echo "balloon $a $b $(inflated)"
sleep 1
'''


def start(kernel, command, *options, modules='virtio_mmio virtio_pci virtio_rng'):
    env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
    return subprocess.Popen([f'{top}/run', '--modules', modules, '--exec', command, '--',
                             '-nic', 'none', *options],
                            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def run(kernel, command, *options, **kw):
    p = start(kernel, command, *options, **kw)
    out, err = p.communicate(timeout=LIMIT + 60)
    return p.returncode, out.decode(errors='replace'), err.decode(errors='replace')


def variant(kernel, what, irq, *options):
    rc, out, err = run(kernel, READ, *options)
    head, _, log = out.partition('==\n')
    packed = any('packed=on' in o for o in options)
    features = [l for l in head.splitlines() if re.fullmatch('[01]{64}', l)]
    irqs = [l for l in head.splitlines() if 'virtio' in l and ':' in l]
    bad = warnings(log.encode())
    t.ok(rc == 0 and 'virtio_rng' in head and '262144\n' in head and not bad and
         features and all(f[34] == '01'[packed] for f in features) and
         any(irq in l for l in irqs), what, f'{rc} {head} {bad} {err}')


def loop(kernel, what, rounds, *options):
    rc, out, err = run(kernel, LOOP.replace('ROUNDS', str(rounds)), '-smp', '2', *options)
    bad = warnings(out.encode()) if rc == 0 else []
    t.ok(rc == 0 and not bad, f'{what}, {rounds} rounds', f'{rc} {bad} {out[-600:]} {err}')


def reboot(kernel, what, rounds, *options):
    """-no-reboot: the reset ends the program, with status 0, whatever was under way."""
    good = 0
    for i in range(rounds):
        rc, out, err = run(kernel, REBOOT.replace('DELAY', str(1 + i % 8)), '-smp', '2', *options)
        if rc != 125 or 'virtio' in err:  # 125: the guest was gone before it could say a status
            t.ok(False, what, f'round {i}: {rc} {out} {err}')
            return
        good += 1
    t.ok(good == rounds, f'{what}, {rounds} rounds')


RAM = 512  # MiB


def resident(word):
    """KiB in memory of the guest's RAM (the mapping of just that size) of the kvasir that has word in its
    command line."""
    for d in glob.glob('/proc/[0-9]*'):
        try:
            with open(f'{d}/cmdline', 'rb') as f:
                if word.encode() not in f.read():
                    continue
            if os.path.basename(os.readlink(f'{d}/exe')) != 'kvasir':
                continue
            with open(f'{d}/smaps') as f:
                return int(re.search(rf'^Size:\s+{RAM << 10} kB\n(?:.*\n)*?Rss:\s+(\d+)', f.read(), re.M)[1])
        except (OSError, TypeError):
            pass
    return 0


def balloon(kernel):
    with tempfile.TemporaryDirectory() as work:
        mark = f'{work}/mark'
        p = start(kernel, BALLOON, '-m', str(RAM), '-device',
                  'virtio-balloon-device,target=256M,guest-stats-polling-interval=1', '-name', mark,
                  modules='virtio_mmio virtio_balloon')
        peak = low = 0
        while p.poll() is None:
            r = resident(mark)
            if r > peak:
                peak, low = r, r
            low = min(low, r) if r else low
            time.sleep(0.1)
        out, err = (x.decode(errors='replace') for x in p.communicate())
    m = re.search(r'balloon (\d+) (\d+) (\d+)', out)
    guest = m and int(m[1]) < 270000 and int(m[2]) > 400000 and int(m[3]) < 270000
    t.ok(p.returncode == 0 and guest, 'balloon: the guest gives memory, has it again, gives it again',
         f'{p.returncode} {out} {err}')
    t.ok(peak - low > 100 << 10, 'balloon: the host gets it', f'peak {peak} KiB, then {low} KiB')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=10)
    ap.add_argument('kernels', nargs='+')
    a = ap.parse_args()
    kernel = a.kernels[0].partition('=')[2]
    io = ['-object', 'iothread,id=io0']
    for packed in 'off', 'on':
        name = {'off': 'split', 'on': 'packed'}[packed]
        for where, irq, board in ('device', 'IO-APIC', 'microvm'), ('pci', 'PCI-MSI', 'pc'):
            dev = f'virtio-rng-{where},packed={packed}'
            variant(kernel, f'{board}, {name}', irq, '-M', board, '-device', dev)
            variant(kernel, f'{board}, {name}, iothread', irq, '-M', board, *io,
                    '-device', f'{dev},iothread=io0')
    for where, board in ('device', 'microvm'), ('pci', 'pc'):
        dev = f'virtio-rng-{where}'
        loop(kernel, f'{board}: unbind and bind under load', a.rounds * 4, '-M', board, '-device', dev)
        loop(kernel, f'{board}: unbind and bind under load, iothread', a.rounds * 4, '-M', board, *io,
             '-device', f'{dev},iothread=io0,packed=on')
        reboot(kernel, f'{board}: machine reset under load, iothread', max(2, a.rounds // 4), '-M', board, *io,
               '-device', f'{dev},iothread=io0')
    balloon(kernel)
    t.end()


main()
