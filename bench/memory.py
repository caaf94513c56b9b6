#!/usr/bin/env python3
"""
Resident memory beyond the guest's, at /init: Kvasir's software engine next to QEMU's TCG, with the
same kernel, initial file system and command line, runs interleaved.

  bench/memory.py [-n RUNS] [--smp 1,2] [--kernel FILE] [--accel NAME=ACCEL]... [--write]

From /proc/PID/smaps, without the mapping that is the guest's memory (the one of just its size).
Files count by Rss: with Pss a library's page would count less, the more others use it. All else
counts by Pss: translated code is mapped twice, and is in memory once. Descriptions and decoded blocks are what kvasir
reports itself (SIGUSR1); QEMU's are in what is anonymous. --write puts the table into
docs/performance.md, in the place of the last one.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import vmbench as vb

APPEND = 'console=ttyS0 quiet panic=-1'
KINDS = ('translated code', 'descriptions of it', 'decoded blocks', 'other anonymous, heap, stacks',
         'program and libraries', 'other')
BEGIN, END = '<!-- bench/memory.py -->', '<!-- end of bench/memory.py -->'


def kind(perms, path):
    """What a mapping is for."""
    if 'kvasir-jit' in path or ('x' in perms and 'w' in perms):
        return KINDS[0]
    if not path or path.startswith(('[heap', '[stack', '[anon')):
        return KINDS[3]
    return KINDS[4] if path.startswith('/') and not path.startswith(('/memfd', '/dev')) \
        else KINDS[5]


def counters(p, got):
    """What kvasir says of its own memory, in KiB, out of the anonymous memory."""
    p.send_signal(signal.SIGUSR1)
    for raw in p.stdout:
        line = raw.decode(errors='replace')
        m = re.search(r'descriptions ([0-9.]+) MiB|^decoded blocks +([0-9.]+) MiB', line)
        if m:
            got[KINDS[1] if m[1] else KINDS[2]] = 1024 * float(m[1] or m[2])
        if line.startswith('interpreter calls'):
            break
    got[KINDS[3]] -= got[KINDS[1]] + got[KINDS[2]]


def sample(p, ram, into, ours):
    """Sizes in KiB by kind, and 'Rss' and 'Pss' in all."""
    pid = p.pid
    got = dict.fromkeys((*KINDS, 'Rss', 'Pss', 'guest'), 0)
    now = None
    with open(f'/proc/{pid}/smaps', encoding='utf-8', errors='replace') as f:
        for line in f:
            m = re.match(r'([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)', line)
            if m:
                size = int(m[2], 16) - int(m[1], 16)
                now = 'guest' if size == ram else kind(m[3], m[4])
                continue
            m = re.match(r'(Rss|Pss): +(\d+) kB', line)
            if not m:
                continue
            if now != 'guest':
                got[m[1]] += int(m[2])
            if m[1] == ('Rss' if now == KINDS[4] else 'Pss'):
                got[now] += int(m[2])
    got['all'] = sum(got[k] for k in KINDS)
    if ours:
        counters(p, got)
    into.append(got)


def mib(kib):
    return f'{kib / 1024:.1f}'


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('-n', type=int, default=3, metavar='RUNS')
    a.add_argument('--smp', default='1')
    a.add_argument('--mem', type=int, default=512, metavar='MIB')
    a.add_argument('--kernel', default=vb.default_kernel())
    a.add_argument('--kvasir', default=vb.default_kvasir())
    a.add_argument('--accel', action='append', metavar='NAME=ACCEL',
                   help='engines of kvasir; default: default=soft')
    a.add_argument('--limit', type=float, default=60)
    a.add_argument('--qemu-limit', type=float, default=20, metavar='SECONDS')
    a.add_argument('--no-qemu', action='store_true')
    a.add_argument('--write', action='store_true')
    o = a.parse_args()
    if not o.kernel:
        sys.exit('no kernel in the cache: run ./run once, or give --kernel FILE')
    accels = [x.split('=', 1) for x in o.accel or ['kvasir=soft']]
    qemu = not o.no_qemu and shutil.which('qemu-system-x86_64')
    columns = []  # (name, command, samples)
    with tempfile.TemporaryDirectory() as tmp:
        init, initrd = f'{tmp}/init', f'{tmp}/initrd'
        subprocess.run([os.environ.get('CC', 'gcc'), '-O2', '-static', '-nostdlib',
                        '-fno-stack-protector', '-o', init, f'{vb.TOP}/bench/boot.c'], check=True)
        with open(init, 'rb') as f, open(initrd, 'wb') as g:
            g.write(vb.cpio({'init': f.read()}))
        for smp in map(int, o.smp.split(',')):
            cpus = f', {smp} vCPU' if ',' in o.smp else ''
            for name, accel in accels:
                columns.append((name + cpus, vb.kvasir_command(o.kvasir, accel, o.kernel, initrd,
                                                               APPEND, smp, o.mem), []))
            if qemu:
                columns.append(('QEMU TCG' + cpus, vb.qemu_command(o.kernel, initrd, APPEND, smp,
                                                                   o.mem), []))
        for _ in range(o.n):
            for name, command, samples in columns:
                is_qemu = name.startswith('QEMU')
                took, lines, _ = vb.try_until(
                    command, 'kvasir-init', o.qemu_limit if is_qemu else o.limit,
                    8 if is_qemu else 3, lambda p, s=samples, q=is_qemu: sample(p, o.mem << 20, s, not q))
                if took is None:
                    print(f'{name}: no init; the last lines:', *lines[-5:], sep='\n  ',
                          file=sys.stderr)
    for name, _, samples in columns:
        if samples and not samples[-1]['guest']:
            sys.exit(f'{name}: no mapping of {o.mem} MiB: which is the guest\'s memory?')

    def cell(samples, key):
        return mib(vb.median([s[key] for s in samples])) if samples else '-'
    rows = [[k, *('-' if n.startswith('QEMU') and k in KINDS[1:3] else cell(s, k)
                 for n, _, s in columns)] for k in KINDS]
    rows.append(['**beyond guest memory**', *(f'**{cell(s, "all")}**' for _, _, s in columns)])
    rows.append(['the same by Rss', *(cell(s, 'Rss') for _, _, s in columns)])
    rows.append(['the same by Pss', *(cell(s, 'Pss') for _, _, s in columns)])
    rows.append(['guest memory touched', *(cell(s, 'guest') for _, _, s in columns)])
    text = ('## Memory\n\n'
            f'`bench/memory.py -n {o.n}`, {time.strftime("%Y-%m-%d")}, {vb.processor()}: resident '
            f'memory at /init,\n{os.path.basename(o.kernel)}, microvm with {o.mem} MiB, medians.\n\n'
            + vb.table(['MiB', *(n for n, _, _ in columns)], rows))
    print(text)
    if o.write:
        vb.write_section(BEGIN, END, text)


main()
