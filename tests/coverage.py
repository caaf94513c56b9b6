#!/usr/bin/env python3
"""
Which rows of src/x86/insn.def no test runs: fails when one is left that has no reason below.

  tests/coverage.py [--build DIR] [--report FILE] [NAME=KERNEL]...

Builds with -Dinsn_coverage=true, runs the differential test, the guest tests on the interpreter, the
unit tests of the interpreter, and a boot of each kernel; a row counts when its function has returned
in one of them (kvm/x86/interp/coverage.h).
"""
import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile

from tap import Tap

top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Rows (regular expressions, whole names) that may stay without a run, and why. A row whose feature
# the host lacks shows up, too: run this where there is AVX2. Reasons that are not needed are named.
REASONS = {
    r'UD[012]': 'always throws, so its function never returns; guest tests see the #UD',
    r'RDPMC': 'always throws: there are no counters; guest tests see the #GP',
    r'MONITOR|MWAIT|XSAVES|XRSTORS': 'no CPUID offers it, so it is #UD before its function is called',
}


def run(*command, env=None, check=True):
    p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False)
    if check and p.returncode:
        sys.exit(f'{" ".join(command)}: status {p.returncode}\n'
                 + (p.stdout + p.stderr).decode(errors='replace')[-3000:])
    return p.returncode


def rows(directory):
    """All rows, and those that were run."""
    done, names = set(), []
    for path in glob.glob(f'{directory}/*.rows'):
        with open(path, 'rb') as f:
            data = f.read()
        n = next(i for i, b in enumerate(data) if b > 1)
        names = data[n:].decode().split()
        if len(names) != n:
            continue
        done.update(name for name, b in zip(names, data) if b)
    return names, done


def main():
    a = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--build', default=f'{top}/build-coverage')
    a.add_argument('--report')
    a.add_argument('--cases', default='100000')
    a.add_argument('kernels', nargs='*', metavar='NAME=KERNEL')
    o = a.parse_args()
    t = Tap()
    if not os.path.exists(f'{o.build}/build.ninja'):
        run('meson', 'setup', o.build, top, '-Dinsn_coverage=true')
    run('ninja', '-C', o.build)
    with tempfile.TemporaryDirectory() as tmp:
        env = dict(os.environ, KVASIR_COVERAGE_DIR=tmp)
        tests = subprocess.run(['meson', 'test', '-C', o.build, '--list'], capture_output=True,
                               text=True, check=True).stdout.splitlines()
        tests = [x.rpartition(' / ')[2].strip() for x in tests]
        tests = [x for x in tests if re.search(r'guest/.*-interp$|unit/(interp|kvm_|libkvm|host_thunk)', x)]
        run('meson', 'test', '-C', o.build, '--no-rebuild', *tests, env=env, check=False)
        run(f'{o.build}/tests/diff/diff', '-n', o.cases, '-p', '0', '-m', '0', env=env, check=False)
        if o.kernels:
            run('python3', f'{top}/tests/boots.py', '--times', '1', '--smp', '2', '--accel',
                'soft,jit=off', '--kvasir', f'{o.build}/kvasir', '--logs', tmp, *o.kernels, env=env,
                check=False)
        names, done = rows(tmp)
    if not t.ok(names, 'coverage was recorded', 'no .rows file'):
        t.end()
    left = [n for n in names if n not in done]
    why = {n: next((w for r, w in REASONS.items() if re.fullmatch(r, n)), None) for n in left}
    lines = [f'{n:24} {why[n] or "NO REASON"}' for n in left]
    if o.report:
        os.makedirs(os.path.dirname(o.report) or '.', exist_ok=True)
        with open(o.report, 'w', encoding='utf-8') as f:
            f.write(f'{len(done)} of {len(names)} rows were run\n' + '\n'.join(lines) + '\n')
    print(f'# {len(done)} of {len(names)} rows of insn.def were run')
    for x in lines:
        print(f'# {x}')
    for r in REASONS:
        if not any(re.fullmatch(r, n) for n in left):
            print(f'# no longer needed: the reason for {r}')
    bad = [n for n in left if not why[n]]
    t.ok(not bad, f'every row of {len(names)} is run by a test, or has a reason', '\n'.join(bad))
    t.end()


if __name__ == '__main__':
    sys.exit(main())
