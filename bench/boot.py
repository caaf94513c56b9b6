#!/usr/bin/env python3
"""
Time from process start to /init: Kvasir's engines next to QEMU's TCG, on the same kernel, initial
file system and command line. Runs are interleaved, so that a busy host is busy for all; the table
shows medians and ratios.

  bench/boot.py [-n RUNS] [--smp 1,2] [--kernel FILE] [--image bzImage,vmlinux]
                [--accel NAME=ACCEL]... [--limit SECONDS] [--no-qemu]

A run that prints nothing within the limit is killed and tried again: QEMU 7.2's microvm often hangs
before its first line, so it has a shorter limit and more tries. Failed runs are counted below the
table.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import vmbench as vb

APPEND = 'console=ttyS0 quiet panic=-1'


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('-n', type=int, default=5, metavar='RUNS')
    a.add_argument('--smp', default='1,2')
    a.add_argument('--kernel', default=vb.default_kernel())
    a.add_argument('--image', default='bzImage,vmlinux')
    a.add_argument('--kvasir', default=vb.default_kvasir())
    a.add_argument('--accel', action='append', metavar='NAME=ACCEL',
                   help='engines of kvasir; default: interpreter=soft,jit=off default=soft')
    a.add_argument('--limit', type=float, default=60)
    a.add_argument('--qemu-machine', default='microvm')
    a.add_argument('--qemu-limit', type=float, default=12, metavar='SECONDS')
    a.add_argument('--no-qemu', action='store_true')
    o = a.parse_args()
    if not o.kernel:
        sys.exit('no kernel in the cache: run ./run once, or give --kernel FILE')
    accels = [x.split('=', 1) for x in o.accel or ['interpreter=soft,jit=off', 'default=soft']]
    qemu = not o.no_qemu and shutil.which('qemu-system-x86_64')

    with tempfile.TemporaryDirectory() as tmp:
        init, initrd = f'{tmp}/init', f'{tmp}/initrd'
        subprocess.run([os.environ.get('CC', 'gcc'), '-O2', '-static', '-nostdlib',
                        '-fno-stack-protector', '-o', init, f'{vb.TOP}/bench/boot.c'], check=True)
        with open(init, 'rb') as f, open(initrd, 'wb') as g:
            g.write(vb.cpio({'init': f.read()}))
        images = []
        for kind in o.image.split(','):
            path = o.kernel
            if kind == 'vmlinux':
                path = f'{tmp}/vmlinux'
                why = vb.extract_vmlinux(o.kernel, path)
                if why:
                    print(f'no vmlinux: {o.kernel}: {why}', file=sys.stderr)
                    continue
            images.append((kind, path))

        cases, rows, failed = [], [], {}
        for kind, path in images:
            for smp in map(int, o.smp.split(',')):
                cmds = [(n, vb.kvasir_command(o.kvasir, acc, path, initrd, APPEND, smp))
                        for n, acc in accels]
                if qemu:
                    cmds.append(('QEMU TCG', vb.qemu_command(path, initrd, APPEND, smp,
                                                             machine=o.qemu_machine)))
                cases.append((kind, smp, [(n, c, []) for n, c in cmds]))
        for _ in range(o.n):
            for kind, smp, runs in cases:
                for name, command, times in runs:
                    took, lines, bad = vb.try_until(
                        command, 'kvasir-init', *((o.qemu_limit, 8) if name == 'QEMU TCG'
                                                  else (o.limit, 3)))
                    if bad:
                        key = f'{name}, {kind}, {smp} vCPU'
                        failed[key] = failed.get(key, 0) + bad
                    if took is None:
                        print(f'{name}, {kind}, {smp} vCPU: no init; the last lines:',
                              *lines[-5:], sep='\n  ', file=sys.stderr)
                    else:
                        times.append(took)
        for kind, smp, runs in cases:
            base = vb.median(runs[-1][2]) if qemu else None
            row = [f'{kind}, {smp} vCPU']
            for _, _, times in runs:
                m = vb.median(times)
                row.append('-' if m is None else f'{m:.2f} ({min(times):.2f})')
            for _, _, times in runs[:-1] if qemu else []:
                m = vb.median(times)
                row.append(f'{m / base:.2f}' if m and base else '-')
            rows.append(row)

    names = [n for n, _ in accels]
    head = ['process start to init, s', *names]
    if qemu:
        head += ['QEMU TCG', *(f'{n} / QEMU' for n in names)]
    print(f'{vb.processor()}; {os.path.basename(o.kernel)}; {o.n} interleaved runs: median '
          '(minimum)\n')
    print(vb.table(head, rows))
    for key, n in failed.items():
        print(f'\n{key}: {n} run(s) did not get there in time, tried again')


main()
