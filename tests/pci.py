#!/usr/bin/env python3
"""
PCI under stock kernels through ./run: what the bus shows, interrupts of each kind with virtio-rng as
the device, drivers unbound and bound and functions removed and found again under load, resets,
power-off.

Arguments: [--rounds N] NAME=KERNEL...; environment as for ./run, KVASIR_BINARY required.
"""
import argparse
import os
import subprocess
import tempfile

from bootlog import warnings
from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
t = Tap()
LIMIT = 180
RNG = ['-device', 'virtio-rng-pci,addr=5']
LOOK = r'''
cd /sys/bus/pci/devices
for d in *; do echo "$d $(cat $d/vendor) $(cat $d/device) $(basename $(readlink $d/driver) 2>/dev/null)"; done
cat /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c
cat /proc/interrupts
echo ==; dmesg -r
'''
# A function is unbound, reset by its driver's absence, and bound again, while readers keep it busy.
BIND = r'''
cd /sys/bus/pci/drivers/virtio-pci
(while :; do dd if=/dev/hwrng of=/dev/null bs=4096 count=4 2>/dev/null; done) & a=$!
(while :; do cat /proc/interrupts >/dev/null; dd if=/dev/zero of=/dev/null bs=1M count=8 2>/dev/null; done) & b=$!
i=0
while [ $i -lt ROUNDS ]; do
	echo 0000:00:05.0 >unbind || exit 3
	echo 0000:00:05.0 >bind || exit 4
	i=$((i + 1))
done
kill $a $b
'''
RESCAN = r'''
cd /sys/bus/pci
(while :; do dd if=/dev/hwrng of=/dev/null bs=4096 count=4 2>/dev/null; done) & a=$!
i=0
while [ $i -lt ROUNDS ]; do
	echo 1 >devices/0000:00:05.0/remove
	[ ! -e devices/0000:00:05.0 ] || exit 5
	echo 1 >rescan
	[ -e devices/0000:00:05.0/driver ] || exit 6
	i=$((i + 1))
done
kill $a
'''
# The disk's first byte counts boots, since all else is forgotten; all devices are busy at the reset.
REBOOT = r'''
n=$(dd if=/dev/vda bs=1 count=1 2>/dev/null)
echo "boot $n: $(grep -c virtio /proc/interrupts) $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c)"
dd if=/dev/hwrng of=/dev/null bs=4096 2>/dev/null &
dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null &
dmesg -r | grep -E '^<[0-3]>'
[ "$n" -lt 3 ] || { /sbin/poweroff; sleep 60; }
echo $((n + 1)) >/tmp/n
dd if=/tmp/n of=/dev/vda bs=1 count=1 conv=notrunc 2>/dev/null
sync
/sbin/reboot
sleep 60
'''
MAKE = r'''
set -e
top=$1 kernel=$2 out=$3
. "$top/tools/setup.sh"
get_kernel "$kernel"
get_initramfs
add_modules virtio_pci virtio_rng virtio_blk
"$top/tools/mkinitramfs" exec "$out.exec" "$4"
cp "$initramfs" "$out"
truncate -s %512 "$out"
cat "$out.exec" >>"$out"
printf '%s' "$kernel"
'''
AFTER = r'''
[ $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c) = 1024 ] || exit 7
dmesg -r
'''


def run(kernel, command, *options, append='', modules='virtio_pci virtio_rng'):
    env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
    p = subprocess.run([f'{top}/run', '--append', append, '--modules', modules, '--exec', command,
                        '--', *options],
                       env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return p.returncode, p.stdout, p.stderr.decode(errors='replace')


def look(name, kernel, what, want_id, want_irq, options, append='', clean=True):
    rc, out, err = run(kernel, LOOK, *options, append=append)
    head, _, log = out.partition(b'==\n')
    text = head.decode(errors='replace')
    lines = text.splitlines()
    ids = {l.split()[0]: l.split()[1:] for l in lines if l.startswith('0000:')}
    irqs = [l for l in lines if 'virtio' in l and ':' in l and not l.startswith('0000:')]
    good = (rc == 0 and ids.get('0000:00:00.0', [])[:2] == ['0x8086', '0x1237'] and
            ids.get('0000:00:01.0', [])[:2] == ['0x8086', '0x7000'] and
            ids.get('0000:00:01.3', [])[:2] == ['0x8086', '0x7113'] and
            ids.get('0000:00:05.0') == ['0x1af4', want_id, 'virtio-pci'] and '1024' in lines and
            irqs and all(want_irq in l for l in irqs) and
            any(int(n) > 0 for l in irqs for n in l.split()[1:2]))
    if t.ok(good, f'{name}: {what}', f'{rc} {text} {err}') and clean:
        bad = warnings(log)
        t.ok(not bad, f'{name}: {what}: no warnings', '\n'.join(bad))


def ecam(name, kernel):
    rc, out, err = run(kernel, LOOK, '-M', 'microvm,pcie=on', *RNG)
    head, _, log = out.partition(b'==\n')
    bad = warnings(log)
    t.ok(rc == 0 and b'0000:00:05.0 0x1af4 0x1044 virtio-pci\n' in head and b'1024\n' in head and
         b'PCI-MSI' in head and not bad, f'{name}: microvm with ECAM', f'{rc} {head} {bad} {err}')


def loop(name, kernel, what, script, rounds, options=(), append=''):
    rc, out, err = run(kernel, script.replace('ROUNDS', str(rounds)) + AFTER, *RNG, *options,
                       append=append)
    bad = warnings(out) if rc == 0 else []
    t.ok(rc == 0 and not bad, f'{name}: {what}, {rounds} rounds', f'{rc} {bad} {out[-600:]} {err}')


def reboots(name, kernel, append):
    with tempfile.TemporaryDirectory() as d:
        path = subprocess.run(['bash', '-c', MAKE, 'bash', top, kernel, f'{d}/initrd', REBOOT],
                              capture_output=True, text=True, check=True).stdout
        with open(f'{d}/disk', 'wb') as f:
            f.write(b'0' + bytes((4 << 20) - 1))
        try:
            p = subprocess.run([os.environ['KVASIR_BINARY'], '-kernel', path, '-initrd',
                                f'{d}/initrd', '-append', f'console=ttyS0 quiet {append}', '-smp',
                                '2', '-serial', f'file:{d}/log', '-serial', 'stdio', '-nic', 'none',
                                '-drive', f'file={d}/disk,format=raw,if=virtio', *RNG],
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT,
                               check=False)
            rc, out, err = p.returncode, p.stdout.decode(errors='replace'), p.stderr
        except subprocess.TimeoutExpired as e:
            rc, out, err = None, (e.stdout or b'').decode(errors='replace'), e.stderr
    boots = [l for l in out.splitlines() if l.startswith('boot ') and l.endswith(' 256')]
    t.ok(rc == 0 and len(boots) == 4 and len(set(l.split(':')[1] for l in boots)) == 1 and
         '<' not in out, f'{name}: resets with busy devices {append}', f'{rc} {out} {err}')


def power_off(name, kernel, append):
    env = dict(os.environ, KVASIR_KERNEL=kernel, KVASIR_TIMEOUT=str(LIMIT))
    p = subprocess.run([f'{top}/run', '--verbose', '--append', append, '--exec', '/sbin/poweroff; sleep 60', '--',
                        '-M', 'pc'], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                       check=False)
    # ./run gives 125: the guest was off before it could say a status
    t.ok(p.returncode == 125 and b'Power down' in p.stderr, f'{name}: power-off by S5 {append}',
         f'{p.returncode} {p.stderr[-600:]}')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=10)
    ap.add_argument('kernels', nargs='+')
    a = ap.parse_args()
    for n, spec in enumerate(a.kernels):
        name, _, kernel = spec.partition('=')
        look(name, kernel, 'transitional, MSI-X', '0x1005', 'PCI-MSI', RNG)
        look(name, kernel, 'INTx by IOAPIC', '0x1005', 'IO-APIC', RNG, 'pci=nomsi')
        power_off(name, kernel, '')
        if n:
            continue
        look(name, kernel, 'legacy driver, MSI-X', '0x1005', 'PCI-MSI',
             ['-device', 'virtio-rng-pci,addr=5,disable-modern=on'])
        look(name, kernel, 'legacy driver, INTx, vectors=0', '0x1005', 'IO-APIC',
             ['-device', 'virtio-rng-pci-transitional,addr=5,disable-modern=on,vectors=0'])
        look(name, kernel, 'modern only, noapic', '0x1044', 'XT-PIC',
             ['-device', 'virtio-rng-pci-non-transitional,addr=5'], 'noapic pci=nomsi')
        # Debian's kernels have no MP tables' parser: they fall back to the PIC
        look(name, kernel, 'acpi=off', '0x1005', '', RNG, 'acpi=off pci=nomsi')
        ecam(name, kernel)
        reboots(name, kernel, '')
        reboots(name, kernel, 'pci=nomsi')
        loop(name, kernel, 'unbind and bind under load, MSI-X', BIND, a.rounds, ['-smp', '2'])
        loop(name, kernel, 'unbind and bind under load, INTx', BIND, a.rounds, append='pci=nomsi')
        loop(name, kernel, 'remove and rescan under load', RESCAN, a.rounds, ['-smp', '2'])
    t.end()


main()
