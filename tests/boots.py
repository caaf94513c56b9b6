#!/usr/bin/env python3
"""
Boots in a row: no hang, no oops, no warning in dmesg that the same kernel does not print elsewhere.

  tests/boots.py [--times 10] [--smp 1,2,4] [--accel soft]... [--logs DIR] [--limit SECONDS]
                 [--add HOST:GUEST]... NAME=KERNEL...

Environment: KVASIR_BINARY. Unlike tests/boot.py it runs the binary itself, with the kernel's
messages on the console from the first line, so that a boot that does not end leaves its log, and
where gdb is there the stacks of all threads, in DIR (default build/results).
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

from bootlog import warnings
from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COMMAND = ('nproc; grep -c ^processor /proc/cpuinfo; cat /proc/interrupts; echo ==; dmesg -r; '
           'echo == end')


def stacks(pid, to):
    if shutil.which('gdb'):
        with open(to, 'w', encoding='utf-8') as f:
            subprocess.run(['gdb', '-q', '-batch', '-p', str(pid), '-ex', 'thread apply all bt'],
                           stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT,
                           check=False)


def boot(o, accel, kernel, initrd, smp, log):
    """Why it failed, or None; and the seconds it took."""
    start = time.monotonic()
    with tempfile.NamedTemporaryFile() as out:
        p = subprocess.Popen(
            [o.kvasir, '-accel', accel, '-kernel', kernel, '-initrd', initrd, '-m', '512', '-smp',
             str(smp), '-append', f'console=ttyS0 panic=-1 {o.append}', '-serial', f'file:{log}',
             '-serial', f'file:{out.name}', '-no-reboot'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, err = p.communicate(timeout=o.limit)
            rc = p.returncode
        except subprocess.TimeoutExpired:
            stacks(p.pid, log + '.stacks')
            p.kill()
            _, err = p.communicate()
            rc = 'hang'
        head, _, rest = out.read().partition(b'==\n')
    took = time.monotonic() - start
    dmesg, end, _ = rest.partition(b'== end\n')
    if rc != 0 or not end:
        with open(log, errors='replace', encoding='utf-8') as f:
            tail = '\n'.join(f.read().splitlines()[-12:])
        return f'status {rc}, {err.decode(errors="replace")}\n{tail}', took
    if not head.startswith(b'%d\n%d\n' % (smp, smp)):
        return f'processors: {head!r}', took
    bad = warnings(dmesg)
    return '\n'.join(bad) or None, took


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--times', type=int, default=10)
    a.add_argument('--smp', default='1,2,4')
    a.add_argument('--accel', action='append')
    a.add_argument('--append', default='')
    a.add_argument('--add', action='append', default=[], metavar='HOST:GUEST', help='a file more')
    a.add_argument('--logs', default=f'{top}/build/results')
    a.add_argument('--limit', type=float, default=300)
    a.add_argument('--kvasir', default=os.environ.get('KVASIR_BINARY', f'{top}/build/kvasir'))
    a.add_argument('kernels', nargs='+', metavar='NAME=KERNEL')
    o = a.parse_args()
    os.makedirs(o.logs, exist_ok=True)
    t = Tap()
    with tempfile.TemporaryDirectory() as tmp:
        mk = f'{top}/tools/mkinitramfs'
        subprocess.run([mk, 'base', f'{tmp}/base', *o.add], check=True)
        subprocess.run([mk, 'exec', f'{tmp}/exec', COMMAND], check=True)
        with open(f'{tmp}/initrd', 'wb') as f:
            for part in ('base', 'exec'):
                with open(f'{tmp}/{part}', 'rb') as g:
                    f.write(g.read())
        for i in range(o.times):
            for name, kernel in (k.split('=', 1) for k in o.kernels):
                for accel in o.accel or ['soft']:
                    for smp in map(int, o.smp.split(',')):
                        log = f'{o.logs}/boot-{name}-{accel}-{smp}-{i + 1}.log'
                        why, took = boot(o, accel, kernel, f'{tmp}/initrd', smp, log)
                        t.ok(why is None, f'{name}, {accel}, {smp} processor(s), boot {i + 1}, '
                             f'{took:.1f} s', why)
                        if why is None:
                            os.unlink(log)
    t.end()


if __name__ == '__main__':
    sys.exit(main())
