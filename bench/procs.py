#!/usr/bin/env python3
"""
Short processes: a shell that forks, programs that end at once, a compiler on a small file. Natively
(in a chroot with the guest's files, which needs root), on Kvasir and on QEMU's TCG, interleaved; a
table of seconds and of slowdowns against native with the geometric mean.

  bench/procs.py [-n RUNS] [--smp N] [--kernel FILE] [--only NAME,...] [--kvasir NAME=BINARY]...
                 [--accel ACCEL] [--no-qemu] [--info]

The files are those of tests/long/soak (~/.cache/kvasir/soak), which fetches them. --info shows what
the translator says of itself after each run.
"""
import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

import vmbench as vb

SPARE = ('usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/info', 'var', 'boot',
         'usr/lib/x86_64-linux-gnu/gconv')


def prepare(top, to):
    subprocess.run(['cp', '-a', f'{top}/root', to], check=True)
    for d in SPARE:
        shutil.rmtree(f'{to}/{d}', ignore_errors=True)
    os.makedirs(f'{to}/src')
    subprocess.run(['cp', '-a', f'{top}/source/zlib', f'{to}/src/zlib'], check=True)
    for name, script in (('init', 'init'), ('procs-run', 'run')):
        shutil.copy(f'{vb.TOP}/bench/procs/{script}', f'{to}/{name}')
    shutil.copy(shutil.which('busybox') or '/bin/busybox', f'{to}/busybox')
    for link, target in (('usr/bin/awk', 'mawk'), ('usr/bin/cc', 'gcc')):
        if not os.path.lexists(f'{to}/{link}'):
            os.symlink(target, f'{to}/{link}')


def times(lines):
    out = {}
    for line in lines:
        m = re.match(r'procs (\w+) ([\d.]+)$', line)
        if m:
            out[m[1]] = float(m[2])
    return out


def native(root, names):
    script = ('mount -t proc proc "$0/proc" && mount -t tmpfs tmp "$0/tmp" && '
              'exec chroot "$0" /procs-run "$@"')
    if not os.path.exists(f'{root}/dev/null'):
        subprocess.run(['mknod', '-m', '666', f'{root}/dev/null', 'c', '1', '3'], check=True)
    p = subprocess.run(['unshare', '--mount', '--pid', '--fork', 'sh', '-c', script, root, *names],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    return times(p.stdout.splitlines())


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('-n', type=int, default=3, metavar='RUNS')
    a.add_argument('--smp', type=int, default=1)
    a.add_argument('--kernel', default=vb.default_kernel())
    a.add_argument('--kvasir', action='append', metavar='NAME=BINARY')
    a.add_argument('--accel', default='soft')
    a.add_argument('--only', default='')
    a.add_argument('--limit', type=float, default=900)
    a.add_argument('--no-qemu', action='store_true')
    a.add_argument('--no-native', action='store_true')
    a.add_argument('--append', default='')
    a.add_argument('--info', action='store_true')
    o = a.parse_args()
    cache = os.environ.get('KVASIR_CACHE') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'kvasir')
    top = f'{cache}/soak'
    if not o.kernel or not os.path.isdir(f'{top}/source/zlib'):
        sys.exit('no kernel, or no files for the guest: run tests/long/soak once')
    names = [x for x in o.only.split(',') if x]
    append = (f'console=ttyS0 panic=-1 quiet rdinit=/init {o.append} '
              f'"PROCS={" ".join(names)}"')
    with tempfile.TemporaryDirectory(prefix='kvasir-procs-', dir=top) as tmp:
        root, initrd = f'{tmp}/root', f'{tmp}/initrd'
        prepare(top, root)
        subprocess.run([f'{vb.TOP}/tools/mkinitramfs', 'tree', initrd, root], check=True)
        engines = {}
        if not o.no_native and os.geteuid() == 0:
            engines['native'] = None
        for x in o.kvasir or [f'kvasir={vb.default_kvasir()}']:
            name, _, binary = x.rpartition('=')
            command = vb.kvasir_command(binary, o.accel, o.kernel, initrd, append, o.smp, 1536)
            if o.info:
                command[1:1] = ['-d', 'jit', '-D', f'{tmp}/info']
            engines[name or 'kvasir'] = command
        if not o.no_qemu and shutil.which('qemu-system-x86_64'):
            engines['tcg'] = vb.qemu_command(o.kernel, initrd, append, o.smp, 1536)
        got = {e: [] for e in engines}
        for n in range(o.n):
            for e, command in engines.items():
                if command is None:
                    got[e].append(native(root, names))
                    continue
                took, lines, _ = vb.try_until(command, 'procs-done', o.limit, 3,
                                               (lambda p: p.wait(30)) if o.info else None)
                if took is None:
                    print(f'{e}: run {n + 1} failed: {lines[-5:]}', file=sys.stderr)
                    continue
                got[e].append(times(lines))
                print(f'# {e} run {n + 1}: {took:.1f} s', file=sys.stderr, flush=True)
                if o.info and os.path.exists(f'{tmp}/info'):
                    with open(f'{tmp}/info', encoding='utf-8') as f:
                        print(f.read())
        mid = {e: {p: vb.median([r[p] for r in runs if p in r]) for p in (runs[0] if runs else ())}
               for e, runs in got.items()}
    base = mid.get('native') or {}
    rows, logs = [], {e: [] for e in mid}
    for p in next((m for m in mid.values() if m), ()):
        row = [p]
        for e, m in mid.items():
            x = m.get(p)
            cell = '-' if x is None else f'{x:.2f} s'
            if x and base.get(p) and e != 'native':
                cell += f' ({x / base[p]:.1f})'
                logs[e].append(math.log(x / base[p]))
            row.append(cell)
        rows.append(row)
    rows.append(['geometric mean', *(f'({math.exp(sum(l) / len(l)):.1f})' if l else ''
                                     for l in logs.values())])
    print(vb.processor(), vb.version('qemu-system-x86_64', '--version') or '', sep='; ')
    print(vb.table(['', *mid], rows))


main()
