#!/usr/bin/env python3
"""
-netdev tap,vhost=on with the vhost-net of a stock kernel: this host need not have one, so a machine
(L1) on the software engine boots Debian's kernel with the modules vhost_net and tun. In it runs

    vhost.py KERNEL           tests/device/vhost_kernel, which is driver and peer; seconds
    vhost.py KERNEL --guests  kvasir with guests (L2) that ping, and transfer data whose sums are
                              compared; an engine in an engine takes minutes for each
    vhost.py KERNEL --qemu    the same in a machine of QEMU's TCG with SVM, on the kernel's real KVM

KERNEL: NAME=FILE, several may be given, and the first is taken that has its modules beside it, where
./run keeps them. --build DIR, --keep DIR, --only TEXT. KVASIR_BINARY. Results as TAP.
"""
import argparse
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tap import Tap

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = 4
LIMIT = 400  # s for one L2 in an L1 on the software engine, with others on the host

L2 = r'''
ip link set eth0 up; ip addr add 10.7.0.2/24 dev eth0
i=0; until ping -c 1 -W 1 10.7.0.1 >/dev/null || [ $i = 20 ]; do i=$((i + 1)); done
ping -c 5 -i 0.1 -s 1400 10.7.0.1 | tail -2
wget -q -O - http://10.7.0.1/data | md5sum
head -c %(bytes)d /dev/zero | tr '\0' k | nc 10.7.0.1 81
cat /proc/interrupts | grep virtio
%(more)s
# some kernels never end when they shut down with frames on their way: virtio_dev_shutdown breaks the
# queue that virtnet_poll goes on cleaning
ip link set eth0 down
echo L2 done
'''

# again after the driver was unbound (a reset under load), and after the link was down
REBIND = r'''
D=/sys/bus/virtio/drivers/virtio_net; v=$(cd $D; echo virtio*)
for i in 1 2 3; do
	wget -q -O - http://10.7.0.1/data >/dev/null &
	sleep 0.1
	echo $v >$D/unbind; echo $v >$D/bind
	ip link set eth0 up; ip addr add 10.7.0.2/24 dev eth0
done
ping -c 1 -W 5 10.7.0.1 >/dev/null
wget -q -O - http://10.7.0.1/data | md5sum
'''

L1 = r'''
exec 2>&1
export LD_BIND_NOW=1
mkdir -p /dev/net /www; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
[ -e /dev/vhost-net ] || mknod /dev/vhost-net c 10 238
ls -l /dev/vhost-net
head -c %(bytes)d /dev/zero | tr '\0' v >/www/data
httpd -h /www
mkfifo /tmp/hold; exec 3<>/tmp/hold
(nc -l -p 81 <&3 | md5sum) &
echo "@@threads before $(ls /proc/[0-9]*/comm | xargs grep -l vhost 2>/dev/null | wc -l)"
timeout -s KILL %(limit)d kvasir -accel %(accel)s %(options)s -m 256 -no-reboot -kernel /l2/vmlinuz \
	-initrd /l2/initrd -append "console=ttyS0 quiet panic=-1" -serial file:/tmp/console -serial stdio \
	</dev/null & pid=$!
for i in $(seq 100); do [ -e /proc/$pid ] || break; [ -e /sys/class/net/tap0 ] && break; sleep 0.2; done
ip link set tap0 up; ip addr add 10.7.0.1/24 dev tap0
echo "@@vhost $(cat /proc/[0-9]*/comm 2>/dev/null | grep vhost | tr '\n' ' ')"
wait $pid; echo "@@status $?"
sleep 0.2
tail -c 2000 /tmp/console
dmesg | grep -iE 'vhost|bug|oops' | tail -5
'''


def libraries(binary):
    text = subprocess.run(['ldd', binary], capture_output=True, text=True, check=False).stdout
    return re.findall(r'(/\S+) \(0x', text)


def initramfs(*args):
    subprocess.run([TOP + '/tools/mkinitramfs', *args], check=True)


def join(out, *parts):
    with open(out, 'wb') as o:
        for p in parts:
            with open(p, 'rb') as f:
                shutil.copyfileobj(f, o)


KERNEL_TEST = r'''
exec 2>&1
export LD_BIND_NOW=1
timeout -s KILL 60 vhost_kernel; echo "@@status $?"
dmesg | grep -iE 'vhost|bug:|oops' | tail -5
'''


class Bed:
    def __init__(self, a, work):
        self.a, self.work, self.qemu = a, work, False
        self.kernel = self.modules = None
        for k in a.kernel:
            kernel = k.partition('=')[2]
            version = os.path.basename(kernel).partition('-')[2]
            modules = f'{os.path.dirname(kernel)}/modules-{version}'
            if all(glob.glob(f'{modules}/**/{m}.ko*', recursive=True) for m in ('vhost_net', 'tun', 'virtio_net')):
                self.kernel, self.modules = kernel, modules
                break

    def l1(self, name, program, called, files, script, limit):
        """Run the script in an L1 with a program in it; what it writes."""
        w = f'{self.work}/{name}'
        files = [f'{program}:usr/bin/{called}', *files]
        files += [f'{x}:{x}' for x in libraries(program)]
        initramfs('base', w + '.base', *files)
        initramfs('modules', w + '.mod', self.modules, 'vhost_net', 'tun', *(['kvm_amd'] if self.qemu else []))
        initramfs('exec', w + '.exec', script)
        join(w + '.initrd', w + '.base', w + '.mod', w + '.exec')
        start = time.monotonic()
        cmd = [self.a.binary, '-accel', 'soft']
        if self.qemu:
            cmd = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max']
        cmd += ['-smp', '2', '-m', '1024', '-display', 'none', '-nodefaults', '-no-reboot', '-serial',
                f'file:{w}.console', '-serial', f'file:{w}.log', '-kernel', self.kernel, '-initrd', w + '.initrd',
                '-append', 'console=ttyS0 panic=-1 quiet']
        err = b''
        try:
            err = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 check=False, timeout=limit).stderr
        except subprocess.TimeoutExpired:
            err = b'L1 did not end'
        with open(w + '.log', encoding='latin-1') as f:
            out = f.read()
        print(f'# {name}: {time.monotonic() - start:.1f} s', flush=True)
        return out + err.decode('latin-1')

    def guest(self, name, accel, options, more=''):
        w = f'{self.work}/{name}'
        limit = LIMIT // (2 if self.qemu else 1)
        initramfs('base', w + '.l2base')
        initramfs('modules', w + '.l2mod', self.modules, 'virtio_pci', 'virtio_mmio', 'virtio_net')
        initramfs('exec', w + '.l2exec', L2 % {'bytes': MIB << 20, 'more': more})
        join(w + '.l2', w + '.l2base', w + '.l2mod', w + '.l2exec')
        script = L1 % {'bytes': MIB << 20, 'limit': limit, 'accel': accel, 'options': options}
        files = [f'{self.kernel}:l2/vmlinuz', f'{w}.l2:l2/initrd']
        return self.l1(name, self.a.binary, 'kvasir', files, script, limit + 200)


def verdict(out, rebinds=0):
    """What is wrong, or an empty text."""
    down = hashlib.md5(b'v' * (MIB << 20)).hexdigest()
    up = hashlib.md5(b'k' * (MIB << 20)).hexdigest()
    bad = []
    if not re.search(r'@@vhost .*vhost-\d+', out):
        bad.append('no thread of vhost')
    if 'going on without vhost' in out:
        bad.append('fell back')
    if '5 packets transmitted, 5 packets received' not in out:
        bad.append('pings')
    if out.count(down) != 1 + rebinds:
        bad.append('data to the guest')
    if up not in out:
        bad.append('data from the guest')
    if 'L2 done' not in out:
        bad.append('L2 did not end')
    return ', '.join(bad)


TAPDEV = '-netdev tap,id=n0,ifname=tap0,script=no,downscript=no'
# name, options, what more the guest does, transfers in that
CASES = [
    ('pci', f'-M pc {TAPDEV},vhost=on -device virtio-net-pci,netdev=n0', REBIND, 1),
    ('mmio', f'-M microvm {TAPDEV},vhostforce=on -device virtio-net-device,netdev=n0,packed=on', '', 0),
    ('mq-iothread', f'-M pc -smp 2 -object iothread,id=i0 {TAPDEV},vhostforce=on,queues=2 '
     '-device virtio-net-pci,netdev=n0,iothread=i0', '', 0),
]


def absent(t, a):
    """Without /dev/vhost-net: a warning, or with vhostforce an error; one line."""
    if os.path.exists('/dev/vhost-net') or os.geteuid() or not os.path.exists('/dev/net/tun'):
        t.skip('no vhost-net', 'a host with it, or no right to make a tap')
        return
    for force, status in (('', 0), (',vhostforce=on', 1)):
        p = subprocess.run([a.binary, '-M', 'pc', '-nic', f'tap,script=no,downscript=no,vhost=on{force}', '-kernel',
                            '/dev/null'], capture_output=True, text=True, check=False, timeout=30)
        lines = [x for x in p.stderr.splitlines() if 'vhost' in x]
        good = len(lines) == 1 and 'load the module vhost_net' in lines[0] and ('warning' in lines[0]) == (not status)
        t.ok(good, f'no vhost-net{force}: one line', f'{p.returncode} {p.stderr}')


def guests(t, a, bed, accel):
    if bed.qemu and not shutil.which('qemu-system-x86_64'):
        t.skip('vhost-net on KVM', 'no qemu-system-x86_64 (package qemu-system-x86)')
        return
    for name, options, more, transfers in CASES:
        if a.only not in name:
            continue
        for attempt in (2, 1):
            out = bed.guest(f'{name}-{accel}', accel, options, more)
            bad = verdict(out, transfers)
            if not bad or not bed.qemu or 'L1 did not end' not in out:
                break
            if attempt == 2:  # its SVM hangs at times
                print(f'# {accel} {name}: again', flush=True)
        t.ok(not bad, f'vhost-net: {name}, {accel} engine', f'{bad}\n{out}')


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('kernel', nargs='+')
    ap.add_argument('--build', default=TOP + '/build')
    ap.add_argument('--keep')
    ap.add_argument('--only', default='')
    ap.add_argument('--guests', action='store_true')
    ap.add_argument('--qemu', action='store_true')
    a = ap.parse_args()
    a.build = os.path.abspath(a.build)
    a.binary = os.environ.get('KVASIR_BINARY', a.build + '/kvasir')
    t = Tap()
    with tempfile.TemporaryDirectory(prefix='kvasir-vhost-') as tmp:
        work = a.keep or tmp
        os.makedirs(work, exist_ok=True)
        bed = Bed(a, work)
        if not bed.kernel:
            t.skip('vhost-net', 'no kernel has the modules vhost_net and tun beside it')
        elif a.guests or a.qemu:
            for accel in ['soft'] * a.guests + ['kvm'] * a.qemu:
                bed.qemu = accel == 'kvm'
                guests(t, a, bed, accel)
        else:
            absent(t, a)
            out = bed.l1('kernel', a.build + '/tests/device_vhost_kernel', 'vhost_kernel', [],
                         KERNEL_TEST, 120)
            for m in re.finditer(r'\[ +(OK|FAILED) +\] (kernel_\w+)', out):
                t.ok(m[1] == 'OK', f"vhost-net of Debian's kernel: {m[2]}", out)
            t.ok('@@status 0\n' in out.replace('\r', ''), "vhost-net of Debian's kernel", out)
    t.end()


main()
