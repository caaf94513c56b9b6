#!/usr/bin/env python3
"""
Processors against each other in a Linux guest: tests/stress/smp.c on 4 virtual processors.

  tests/smp.py [--seconds 20] [--smp 4] [--accel soft]... [--limit SECONDS] NAME=KERNEL...

Environment: KVASIR_BINARY, CC. The program runs on the host first, so that its oracles are tried
where they must hold.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ['patch', 'rewrite', 'protect', 'remap', 'atomics', 'wake']


def report(t, where, out, detail):
    for n in NAMES:
        m = re.search(rf'^smp-ok {n} (.*)$', out, re.M)
        t.ok(m, f'{where}: {n}' + (f', {m[1].strip()}' if m else ''), detail)


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--seconds', type=float, default=20)
    a.add_argument('--smp', type=int, default=4)
    a.add_argument('--accel', action='append')
    a.add_argument('--limit', type=float, default=0)
    a.add_argument('--kvasir', default=os.environ.get('KVASIR_BINARY', f'{top}/build/kvasir'))
    a.add_argument('kernels', nargs='+', metavar='NAME=KERNEL')
    o = a.parse_args()
    limit = o.limit or 180 + 4 * o.seconds
    t = Tap()
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([os.environ.get('CC', 'gcc'), '-std=gnu11', '-D_GNU_SOURCE', '-O2',
                        '-static', '-pthread', '-o', f'{tmp}/smp', f'{top}/tests/stress/smp.c'],
                       check=True)
        p = subprocess.run([f'{tmp}/smp', '2'], capture_output=True, text=True, timeout=120,
                           check=False)
        report(t, 'host', p.stdout, p.stdout)
        mk = f'{top}/tools/mkinitramfs'
        subprocess.run([mk, 'base', f'{tmp}/base', f'{tmp}/smp:bin/smp'], check=True)
        subprocess.run([mk, 'exec', f'{tmp}/exec', f'smp {o.seconds:g}; dmesg -r'], check=True)
        subprocess.run(f'cat {tmp}/base {tmp}/exec >{tmp}/initrd', shell=True, check=True)
        for name, kernel in (k.split('=', 1) for k in o.kernels):
            for accel in o.accel or ['soft,jit=off', 'soft']:
                where = f'{name}, {accel}, {o.smp} processors'
                p = subprocess.Popen(
                    [o.kvasir, '-accel', accel, '-kernel', kernel, '-initrd', f'{tmp}/initrd',
                     '-m', '512', '-smp', str(o.smp), '-append', 'console=ttyS0 panic=-1',
                     '-serial', f'file:{tmp}/log', '-serial', 'stdio', '-no-reboot'],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                try:
                    out, _ = p.communicate(timeout=limit)
                except subprocess.TimeoutExpired:
                    p.kill()
                    out, _ = p.communicate()
                out = out.decode(errors='replace').replace('\r', '')
                with open(f'{tmp}/log', errors='replace', encoding='utf-8') as f:
                    log = f.read()
                report(t, where, out, out + '\n'.join(log.splitlines()[-12:]))
                bad = re.findall(r'.*(?:Oops|BUG|WARNING:|Call Trace|general protection|lockup|'
                                 r'rcu.*stall).*', log)
                t.ok(p.returncode == 0 and not bad, f'{where}: ends, nothing alarming in the log',
                     f'status {p.returncode}\n' + '\n'.join(bad))
    t.end()


if __name__ == '__main__':
    sys.exit(main())
