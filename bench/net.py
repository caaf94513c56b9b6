#!/usr/bin/env python3
"""
iperf3 between guest and host on virtio-net, next to QEMU's TCG with the same kernel and options, in
one run. The guest is ./run's small system with iperf3 in it.

  bench/net.py [-n RUNS] [--seconds N] [--only user,hostfwd,tap] [--kvasir FILE] [--smp N] [--no-qemu]

  user     -netdev user: guest to host, and host to guest over the same connection (-R)
  hostfwd  the server is in the guest, the client on the host, through hostfwd=
  tap      a tap of the host (as root): guest to host and host to guest

Medians of RUNS runs, which alternate between the two; Mbit/s at the receiver.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import vmbench as vb

TAP = 'kvbench0'
SETUP = '. {top}/tools/setup.sh; get_kernel cloud; get_initramfs; add_modules $net_drivers; ' \
        'echo "$kernel"; echo "$initramfs"'


def libraries(binary):
    out = subprocess.run(['ldd', binary], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r'(/\S+)', out)))


def system(tmp):
    """The kernel and an initramfs with iperf3."""
    out = subprocess.run(['bash', '-c', 'top=' + vb.TOP + '; ' + SETUP.format(top=vb.TOP)],
                         capture_output=True, text=True, check=True).stdout.split('\n')
    kernel, initramfs = out[0], out[1]
    binary = shutil.which('iperf3')
    if not binary:
        sys.exit('bench/net.py: no iperf3; install iperf3')
    files = [f'{binary}:bin/iperf3'] + [f'{f}:{f}' for f in libraries(binary)]
    subprocess.run([f'{vb.TOP}/tools/mkinitramfs', 'base', f'{tmp}/more', *files], check=True)
    with open(f'{tmp}/initrd', 'wb') as to:
        for part in initramfs, f'{tmp}/more':
            with open(part, 'rb') as f:
                to.write(f.read())
            to.write(bytes(-to.tell() % 512))
    return kernel, f'{tmp}/initrd'


def guest(o, vmm, kernel, initrd, tmp, command, net, watch=None):
    """Boot, run the command, and give its output; watch(process) runs meanwhile."""
    subprocess.run([f'{vb.TOP}/tools/mkinitramfs', 'exec', f'{tmp}/exec', command], check=True)
    with open(f'{tmp}/all', 'wb') as to:
        for part in initrd, f'{tmp}/exec':
            with open(part, 'rb') as f:
                to.write(f.read())
    binary = [o.kvasir, '-accel', 'soft'] if vmm == 'Kvasir' else ['qemu-system-x86_64', '-accel', 'tcg',
                                                                  '-cpu', 'max']
    args = [*binary, '-M', 'pc', '-m', '512', '-smp', str(o.smp), '-kernel', kernel, '-initrd', f'{tmp}/all',
            '-append', 'console=ttyS0 quiet panic=-1 mitigations=off', '-display', 'none', '-monitor', 'none',
            '-serial', f'file:{tmp}/log', '-serial', f'file:{tmp}/out', '-no-reboot', *net]
    p = subprocess.Popen(args, stdin=subprocess.DEVNULL)
    try:
        extra = watch(p) if watch else None
        p.wait(o.seconds * 6 + 120)
    except subprocess.TimeoutExpired:
        print(f'{vmm}: no end', file=sys.stderr)
        extra = None
    finally:
        p.kill()
        p.wait()
    with open(f'{tmp}/out', encoding='utf-8', errors='replace') as f:
        return f.read(), extra


def mbits(text):
    """Of each iperf3 -J output in the text."""
    got, d = [], json.JSONDecoder()
    while '{' in text:
        text = text[text.index('{'):]
        try:
            j, end = d.raw_decode(text)
        except ValueError:
            break
        text = text[end:]
        got.append(j.get('end', {}).get('sum_received', {}).get('bits_per_second', 0) / 1e6 or None)
    return got


def server(port):
    return subprocess.Popen(['iperf3', '-s', '-p', str(port)], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def both(o, addr, port):
    run = f'for i in 1 2 3 4 5; do iperf3 -c {addr} -p {port} -t {o.seconds} -J %s && break; sleep 0.2; done'
    return f'{run % ""}; {run % "-R"}'


def client(o, port):
    """In the host: until the guest's server answers."""
    def watch(p):
        for _ in range(300):
            r = subprocess.run(['iperf3', '-c', '127.0.0.1', '-p', str(port), '-t', str(o.seconds), '-J'],
                               capture_output=True, text=True, check=False)
            got = mbits(r.stdout)
            if got and got[0]:
                return got[0]
            if p.poll() is not None:
                return None
            try:
                p.wait(0.1)
            except subprocess.TimeoutExpired:
                pass
        return None
    return watch


def measure(o, vmm, kernel, initrd, tmp, port):
    rows = {}
    nic = ['-device', 'virtio-net-pci,netdev=n0']
    if 'user' in o.only:
        s = server(port)
        out, _ = guest(o, vmm, kernel, initrd, tmp, both(o, '10.0.2.2', port),
                       ['-netdev', 'user,id=n0', *nic])
        s.kill()
        s.wait()
        rows.update(zip(('user: guest to host', 'user: host to guest'), mbits(out)))
    if 'hostfwd' in o.only:
        _, got = guest(o, vmm, kernel, initrd, tmp, 'iperf3 -s -1 >/dev/null',
                       ['-netdev', f'user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:5201', *nic], client(o, port))
        rows['hostfwd: host to guest'] = got
    if 'tap' in o.only:
        s = server(port)
        out, _ = guest(o, vmm, kernel, initrd, tmp,
                       'ip addr add 10.77.0.2/24 dev eth0; ' + both(o, '10.77.0.1', port),
                       ['-netdev', f'tap,id=n0,ifname={TAP},script=no,downscript=no', *nic])
        s.kill()
        s.wait()
        rows.update(zip(('tap: guest to host', 'tap: host to guest'), mbits(out)))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-n', type=int, default=3)
    p.add_argument('--seconds', type=int, default=4)
    p.add_argument('--smp', type=int, default=1)
    p.add_argument('--only', type=lambda s: s.split(','), default=['user', 'hostfwd', 'tap'])
    p.add_argument('--kvasir', default=f'{vb.TOP}/build/kvasir')
    p.add_argument('--no-qemu', action='store_true')
    o = p.parse_args()
    if 'tap' in o.only:
        if os.geteuid():
            sys.exit('bench/net.py: tap needs root; give --only user,hostfwd')
        subprocess.run(f'ip tuntap add {TAP} mode tap vnet_hdr; ip addr add 10.77.0.1/24 dev {TAP}; '
                       f'ip link set {TAP} up', shell=True, check=True)
    got, port = {}, 15300
    tmp = tempfile.mkdtemp(prefix='kvasir-bench-net-')
    try:
        kernel, initrd = system(tmp)
        for _ in range(o.n):
            for vmm in ('Kvasir',) if o.no_qemu else ('Kvasir', 'QEMU TCG'):
                port += 1
                for row, v in measure(o, vmm, kernel, initrd, tmp, port).items():
                    if v:
                        got.setdefault(row, {}).setdefault(vmm, []).append(v)
    finally:
        shutil.rmtree(tmp)
        if 'tap' in o.only:
            subprocess.run(['ip', 'link', 'del', TAP], check=False)
    print('| Mbit/s | Kvasir | QEMU TCG | ratio |\n|---|---:|---:|---:|')
    for row, v in got.items():
        k, q = vb.median(v.get('Kvasir')), vb.median(v.get('QEMU TCG'))
        print(f'| {row} | {k:.0f} |' if k else f'| {row} | - |', f'{q:.0f} |' if q else '- |',
              f'**{k / q:.2f}** |' if k and q else '- |')


main()
