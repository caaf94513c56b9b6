#!/usr/bin/env python3
"""
The suite of small programs (bench/engine/) natively, on Kvasir's engines and on QEMU's TCG: slowdown
against native for each program and the geometric mean, as a markdown table.

  bench/engine.py [-n RUNS] [--ms N] [--kernel FILE] [--kvasir FILE] [--accel NAME=ACCEL]...
                  [--no-qemu] [--write FILE] [PROGRAM...]

The same static binary runs everywhere; in a guest it is /init. Runs are interleaved, medians are
compared. Each program takes about N milliseconds wherever it runs.
"""
import argparse
import datetime
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

import vmbench as vb

SOURCES = ['suite.c', 'cpu.c', 'memory.c', 'system.c']
APPEND = 'console=ttyS0 quiet panic=-1 --'


def build(to):
    d = f'{vb.TOP}/bench/engine'
    subprocess.run([os.environ.get('CC', 'gcc'), '-std=gnu11', '-D_GNU_SOURCE', '-O2', '-static',
                    f'-I{vb.TOP}/bench', '-o', to, *(f'{d}/{s}' for s in SOURCES), '-lm'],
                   check=True)


def parse(lines, into, units):
    for line in lines:
        m = re.search(r'bench (\w+) ([\d.e+-]+) (.+)$', line)  # the kernel may be in mid-line
        if m:
            into.setdefault(m[1], []).append(float(m[2]))
            units.setdefault(m[1], m[3])


def ns(x):
    for limit, unit in ((1e3, 'ns'), (1e6, 'us'), (1e9, 'ms')):
        if x < limit:
            return f'{x / limit * 1e3:.3g} {unit}'
    return f'{x / 1e9:.3g} s'


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('-n', type=int, default=5, metavar='RUNS')
    a.add_argument('--ms', type=int, default=200)
    a.add_argument('--kernel', default=vb.default_kernel())
    a.add_argument('--kvasir', default=vb.default_kvasir())
    a.add_argument('--accel', action='append', metavar='NAME=ACCEL',
                   help='engines of kvasir; default: interpreter=soft,jit=off default=soft')
    a.add_argument('--limit', type=float, default=600)
    a.add_argument('--qemu-machine', default='microvm,acpi=off')
    a.add_argument('--no-qemu', action='store_true')
    a.add_argument('--write', metavar='FILE')
    a.add_argument('programs', nargs='*')
    o = a.parse_args()
    if not o.kernel:
        sys.exit('no kernel in the cache: run ./run once, or give --kernel FILE')
    accels = [x.split('=', 1) for x in o.accel or ['interpreter=soft,jit=off', 'default=soft']]

    with tempfile.TemporaryDirectory() as tmp:
        suite, initrd = f'{tmp}/suite', f'{tmp}/initrd'
        build(suite)
        with open(suite, 'rb') as f, open(initrd, 'wb') as g:
            g.write(vb.cpio({'init': f.read()}))
        args = ['-ms', str(o.ms), *o.programs]
        append = f'{APPEND} {" ".join(args)}'
        runs = [('native', [suite, *args], o.limit, 1)]
        runs += [(n, vb.kvasir_command(o.kvasir, acc, o.kernel, initrd, append), o.limit, 1)
                 for n, acc in accels]
        if not o.no_qemu and shutil.which('qemu-system-x86_64'):
            runs.append(('QEMU TCG', vb.qemu_command(o.kernel, initrd, append,
                                                     machine=o.qemu_machine), o.limit, 3))
        got, units = {n: {} for n, *_ in runs}, {}
        for _ in range(o.n):
            for name, command, limit, tries in runs:
                took, lines, _ = vb.try_until(command, 'suite-end', limit, tries)
                parse(lines, got[name], units)
                if took is None:
                    print(f'{name}: did not end; its last lines:', *lines[-5:], sep='\n  ',
                          file=sys.stderr)

    names = [n for n, *_ in runs]
    rows, logs = [], {n: [] for n in names}
    for program, times in got['native'].items():
        base = vb.median(times)
        row = [f'{program} ({units[program]})', ns(base)]
        for n in names[1:]:
            m = vb.median(got[n].get(program))
            row.append(f'{m / base:.1f}' if m else '-')
            if m:
                logs[n].append(math.log(m / base))
        rows.append(row)
    rows.append(['**geometric mean**', ''] +
                [f'**{math.exp(sum(logs[n]) / len(logs[n])):.1f}**' if logs[n] else '-'
                 for n in names[1:]])
    text = vb.table(['slowdown against native', *names], rows) + '\n'
    print(text)
    if o.write:
        more = ''  # what others have written below
        if os.path.exists(o.write):
            with open(o.write, encoding='utf-8') as f:
                more = ''.join(f.read().partition('\n## ')[1:])
        with open(o.write, 'w', encoding='utf-8') as f:
            f.write('# Performance\n\n'
                    'Made by `bench/engine.py --write`. Small programs on one vCPU under a stock '
                    'kernel: time for one unit\nnatively, and how many times longer it takes in '
                    'the guest.\n\n'
                    f'- Date: {datetime.date.today()}. Processor: {vb.processor()}, '
                    f'{os.cpu_count()} of them.\n'
                    f'- Guest kernel: {os.path.basename(o.kernel)}. Medians of {o.n} interleaved '
                    f'runs of {o.ms} ms.\n'
                    f'- {vb.version(o.kvasir, "-version")}; '
                    f'{vb.version("qemu-system-x86_64", "--version") or "no QEMU"}.\n'
                    + ''.join(f'- {n}: `-accel {acc}`.\n' for n, acc in accels) + f'\n{text}{more}')


main()
