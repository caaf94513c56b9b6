#!/usr/bin/env python3
"""
A soak of the software engine: real programs are compiled in the guest and run their own test
suites, round after round, and every object file, program and line of test output has to be what the
same files give natively on this host.

  soak.py --root DIR --minutes N --kernel FILE [--accel ACCEL]

DIR/root is a file system with gcc and make, DIR/source/{tcc,zlib,bzip2} are the sources; tests/long/soak
makes both. Natively it runs in a chroot with the same files, which needs root. The guest's file
system is an initramfs, since there are no disks yet.
"""
import argparse
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tap import Tap

HERE = os.path.dirname(os.path.abspath(__file__))
SPARE = ('usr/share/doc', 'usr/share/man', 'usr/share/locale', 'usr/share/info', 'var', 'boot',
         'usr/lib/x86_64-linux-gnu/gconv')


def sudo(*command, **kw):
    if os.geteuid():
        command = ('sudo', '-n', *command)
    return subprocess.run(command, check=False, **kw)


def prepare(top, to):
    """The file system with sources and scripts, without what takes space for nothing."""
    subprocess.run(['cp', '-a', f'{top}/root', to], check=True)
    for d in SPARE:
        shutil.rmtree(f'{to}/{d}', ignore_errors=True)
    os.makedirs(f'{to}/src')
    for p in ('tcc', 'zlib', 'bzip2'):
        subprocess.run(['cp', '-a', f'{top}/source/{p}', f'{to}/src/{p}'], check=True)
    for name, script in (('init', 'init'), ('soak-round', 'round')):
        shutil.copy(f'{HERE}/soak/{script}', f'{to}/{name}')
    for p in ('/bin/busybox', '/usr/bin/busybox'):
        if os.path.exists(p):
            shutil.copy(p, f'{to}/busybox')
    # what maintainers' scripts and alternatives would have made
    for link, target in (('usr/bin/awk', 'mawk'), ('usr/bin/cc', 'gcc')):
        if not os.path.lexists(f'{to}/{link}'):
            os.symlink(target, f'{to}/{link}')


class Rounds:
    """Lines of output, cut into rounds."""

    def __init__(self):
        self.done, self.now, self.at, self.finished = [], None, [], False

    def line(self, text):
        if text.startswith('== round '):
            self.now = []
        elif text.startswith('== end '):
            self.done.append(self.now)
            self.at.append(int(text.split()[3]))
            self.now = None
        elif text.startswith('== done '):
            self.finished = True
        elif self.now is not None:
            self.now.append(text)


def native(root):
    """One round in a chroot; with as little of the host as goes."""
    for name, minor in (('null', 3), ('zero', 5)):
        if not os.path.exists(f'{root}/dev/{name}'):
            sudo('mknod', '-m', '666', f'{root}/dev/{name}', 'c', '1', str(minor))
    script = ('mount -t proc proc "$0/proc" && mount -t tmpfs tmp "$0/tmp" && '
              'exec chroot "$0" /soak-round 0')
    p = sudo('unshare', '--mount', '--pid', '--fork', 'sh', '-c', script, root,
             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    r = Rounds()
    text = p.stdout.decode(errors='replace')
    for line in text.splitlines():
        r.line(line)
    sudo('rm', '-rf', f'{root}/build')
    return r.done[0] if r.finished and r.done else None, text


def guest(o, initrd, smp, seconds, log):
    """Rounds in the guest. It gets twenty minutes more than asked for: the last one is finished."""
    command = [os.environ['KVASIR_BINARY'], '-accel', o.accel, '-m', '2048', '-smp', str(smp),
               '-kernel', o.kernel, '-initrd', initrd, '-no-reboot', '-nodefaults', '-serial',
               f'file:{log}', '-serial', 'stdio', '-d', 'jit', '-D', f'{log}.jit', '-append',
               f'console=ttyS0 panic=-1 quiet rdinit=/init SOAK_SECONDS={seconds}']
    r = Rounds()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as p:
        timer = threading.Timer(3 * seconds + 1200, os.killpg, (p.pid, signal.SIGKILL))
        timer.start()
        for raw in p.stdout:
            r.line(raw.decode(errors='replace').rstrip('\r\n'))
        timer.cancel()
        status = p.wait()
    return r, status


def tail(path, lines=15):
    with open(path, encoding='utf-8', errors='replace') as f:
        return ''.join(f.readlines()[-lines:])


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--root', required=True)
    a.add_argument('--kernel', required=True)
    a.add_argument('--minutes', type=float, default=30)
    a.add_argument('--accel', default='soft')
    a.add_argument('--smp', default='1,2')
    o = a.parse_args()
    t = Tap()
    with tempfile.TemporaryDirectory(prefix='kvasir-soak-', dir=o.root) as tmp:
        prepare(o.root, f'{tmp}/root')
        initrd = f'{tmp}/initrd'
        subprocess.run([f'{HERE}/../tools/mkinitramfs', 'tree', initrd, f'{tmp}/root'], check=True)
        start = time.time()
        want, text = native(f'{tmp}/root')
        took = time.time() - start
        again, _ = native(f'{tmp}/root')
        if not t.ok(want and again, 'a round natively', text[-3000:]):
            sudo('rm', '-rf', f'{tmp}/root')
            t.end()
        varies = {i for i, (x, y) in enumerate(zip(want, again)) if x != y}
        bad = [x for x in want if re.search(r'(build|configure): status [^0]', x)]
        t.ok(len(want) == len(again) and not varies and not bad,
             f'natively twice the same: {len(want)} lines in {took:.0f} s',
             '\n'.join([*bad, *difflib.unified_diff(want, again, lineterm='', n=0)]))
        counts = [int(x) for x in o.smp.split(',')]
        for smp in counts:
            seconds = int(60 * o.minutes / len(counts))
            r, status = guest(o, initrd, smp, seconds, f'{tmp}/log')
            name = f'{smp} vCPU, {seconds} s'
            t.ok(r.finished and status == 0, f'{name}: the guest came to its end, {len(r.done)} rounds',
                 f'status {status}, in the middle of: {(r.now or [])[-3:]}\n{tail(f"{tmp}/log")}')
            wrong = [i for i, got in enumerate(r.done) if got != want]
            t.ok(r.done and not wrong, f'{name}: every round as natively',
                 '\n'.join(f'round {i + 1}: {x}' for i in wrong[:3] for x in
                           list(difflib.unified_diff(want, r.done[i], 'native', 'guest',
                                                     lineterm='', n=0))[:40]))
            each = [y - x for x, y in zip([0, *r.at], r.at)]
            print(f'# {name}: seconds a round: {each}; natively {took:.0f}', flush=True)
            print(*('# ' + line for line in tail(f'{tmp}/log.jit', 40).splitlines()), sep='\n',
                  flush=True)
            os.unlink(f'{tmp}/log.jit')
        sudo('rm', '-rf', f'{tmp}/root')
    t.end()


main()
