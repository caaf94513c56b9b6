#!/usr/bin/env python3
"""
The host engine on a real, unmodified Linux KVM: a stock Debian kernel with kvm_amd in a virtual
machine of QEMU's TCG, which emulates SVM. Results as TAP.

    run.py --build DIR [--cpu npt|shadow]... [--only TEXT] [--keep]

The outer machine (L1) gets an initramfs with the kernel's KVM modules, kvasir, the examples, the
guest tests and a kernel and initramfs for the machine inside (L2). Jobs run in it one after the
other; their output comes back through its second serial line. A job that hangs, or an L1 that
hangs (TCG's SVM does that at times), is tried up to three times more; a wrong result is not.

Reference: shared facts, test-beds section 1; [APM2 15] for what TCG emulates.
"""
import argparse
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
META = 'linux-image-cloud-amd64'
MODULES = ('irqbypass', 'kvm', 'kvm-amd')
# for the machine inside, in the order to load them
L2_MODULES = ('virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci',
              'virtio-rng')
BOOT_LIMIT = 90  # s from the start of QEMU to the first job, on a loaded host
SILENT = object()

# How KVM uses the processor: nested paging, or its shadow page tables.
CPUS = {
    'npt': 'max',
    'shadow': 'qemu64,+svm,-npt,+cx16,+ssse3,+sse4.1,+sse4.2,+popcnt',
}

# (variant or *, image:engine, test) -> why its result does not count. What TCG fails without KVM is
# found out by itself; here is what only shows with KVM on it.
NO_BREAKPOINTS = 'TCG arms no breakpoints from the DR7 that VMRUN loads'
DENY = {
    ('*', 'debug64:kvm', 'data_breakpoints'): NO_BREAKPOINTS,
    ('*', 'debug64:kvm', 'io_breakpoint'): NO_BREAKPOINTS,
    ('*', 'debug64:kvm', 'exec_breakpoint'): NO_BREAKPOINTS,
    ('*', 'irq64:kvm', 'pic_poll_and_registers'): "KVM's PIC answers a poll without bit 7",
    ('*', 'irq64:kvm', 'timer_periodic'): "KVM's count is 0 while the host's timer is late",
    ('*', 'irq64:kvm', 'x2apic'): 'KVM 6.1 lets some reserved bits pass',
    ('*', 'irq64:kvm', 'lapic_registers'): 'on AMD KVM keeps the upper half of TPR only',
    ('*', 'kernel64:kvm', 'sti_cli'): "TCG's VMRUN forgets the shadow of STI that was left over an exit",
    ('*', 'multi64:kvm', 'cross_modifying_code'): 'TCG runs what it has translated for a while',
    ('*', 'multi64:kvm', 'tsc_agrees'): "the TSCs of TCG's processors differ",
}
# image:engine -> {test: why it cannot even be run}; engine tcg: without KVM
SKIP = {
    'except64:kvm': {'lock_prefix': 'TCG hangs: it takes LOCK before anything'},
    'except64:tcg': {'lock_prefix': 'TCG hangs: it takes LOCK before anything'},
    'irq64:kvm': {
        'self_ipi_and_priorities': 'TCG aborts: CR8 written with V_IRQ pending, without its lock',
    },
    'long64:kvm': {
        'far_jump_faults': 'TCG loads a code segment with L and D, and then VMRUN refuses it',
    },
    'mmio64:kvm': {'vector_operands': "KVM's emulator has no VEX instructions"},
    'syscall64:kvm': {
        'sysenter': 'its code segment has L and D in TCG, and then VMRUN refuses it',
    },
}

# (variant, image) -> why the host engine cannot run it at all
SKIP_IMAGE = {
    ('shadow', 'task32'): 'TCG switches tasks without the intercept, and loads CR3 over the shadow',
}


class Job:
    def __init__(self, name, command, limit, check):
        self.name, self.command, self.limit, self.check = name, command, limit, check
        self.output, self.status, self.seconds = None, None, 0


class Tap:
    def __init__(self):
        self.n = self.bad = 0

    def ok(self, good, name, detail=''):
        self.n += 1
        self.bad += not good
        print(f"{'ok' if good else 'not ok'} {self.n} - {name}", flush=True)
        if not good:
            for line in detail.splitlines()[-25:]:
                print('#', line, flush=True)

    def skip(self, name, why):
        self.n += 1
        print(f'ok {self.n} - {name} # SKIP {why}', flush=True)


def cache_dir():
    return os.environ.get('KVASIR_CACHE') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.join(os.environ.get('HOME', '/tmp'), '.cache'),
        'kvasir')


def get_kernel():
    """The folder with vmlinuz and the KVM modules of one kernel package, or (None, reason)."""
    folder = os.path.join(cache_dir(), 'nested')
    wanted = ['vmlinuz'] + [m + '.ko' for m in MODULES + L2_MODULES]

    if all(os.path.exists(os.path.join(folder, w)) for w in wanted):
        return folder, None
    if not shutil.which('apt-cache') or not shutil.which('dpkg-deb'):
        return None, 'no apt to fetch a kernel with modules'
    text = subprocess.run(['apt-cache', 'depends', META], capture_output=True, text=True).stdout
    m = re.search(r'Depends: (linux-image-\d\S*)', text)
    if not m:
        return None, f'the package lists do not know {META}'
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        r = subprocess.run(['apt-get', '-o', 'APT::Sandbox::User=root', 'download', m[1]], cwd=tmp,
                           capture_output=True, text=True)
        if r.returncode:
            return None, f'cannot fetch {m[1]}: {r.stderr.strip().splitlines()[-1:]}'
        deb = glob.glob(tmp + '/*.deb')[0]
        tar = subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE)
        subprocess.run(['tar', '-x', '-C', tmp, '--wildcards', './boot/vmlinuz-*'] +
                       [f'*/{m}.ko*' for m in MODULES + L2_MODULES], stdin=tar.stdout, check=False)
        for w in wanted:
            found = glob.glob(f'{tmp}/**/{w}', recursive=True) + glob.glob(f'{tmp}/boot/{w}-*')
            if not found:
                return None, f'{m[1]} has no {w}'
            os.chmod(found[0], 0o644)
            os.replace(found[0], os.path.join(folder, w))
    return folder, None


def libraries(binary):
    """What ldd says a program needs."""
    text = subprocess.run(['ldd', binary], capture_output=True, text=True).stdout
    return re.findall(r'(/\S+) \(0x', text)


L2_INIT = r'''#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "L2 up with $(nproc) on $(sed -n 's/^clocksource: *//p;s/^model name.*: //p' /proc/cpuinfo | head -1)"
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
dd if=/dev/zero bs=64k count=256 2>/dev/null | md5sum
for m in /mod/*.ko; do insmod $m; done
[ ! -e /sys/bus/pci/devices/0000:00:05.0 ] || echo "L2 rng $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c) $(grep -c 'PCI-MSI.*virtio' /proc/interrupts)"
sleep 1
dmesg -r | grep '^<[0-4]>'
echo "L2 done"
exec /sbin/poweroff -f
'''


def l2_initramfs(path, kernel):
    with tempfile.NamedTemporaryFile('w') as f:
        f.write(L2_INIT)
        f.flush()
        os.chmod(f.name, 0o755)
        files = [f.name + ':l2init'] + [f'{kernel}/{m}.ko:mod/{n}-{m}.ko'
                                        for n, m in enumerate(L2_MODULES)]
        subprocess.run([TOP + '/tools/mkinitramfs', 'base', path, *files], check=True)


class Bed:
    """What goes into L1, and running it."""

    def __init__(self, args, kernel, work):
        self.args, self.work = args, work
        self.kernel = kernel + '/vmlinuz'
        b = args.build
        self.programs = {'kvasir': b + '/kvasir', 'minimal': b + '/examples/minimal',
                         'longmode': b + '/examples/longmode',
                         'apidiff': b + '/tests/nested/apidiff'}
        self.programs = {n: p for n, p in self.programs.items() if os.path.exists(p)}
        with open(TOP + '/tests/guest/meson.build') as f:
            self.guest_cpus = {n + b: int(c) for n, b, c in
                               re.findall(r"\['(\w+)', (\d+), (\d+)\]", f.read())}
        self.images = sorted(glob.glob(b + '/tests/guest/*.guest'))
        files = [f'{p}:usr/bin/{n}' for n, p in self.programs.items()]
        for lib in sorted({x for p in self.programs.values() for x in libraries(p)}):
            files.append(f'{lib}:{lib}')
        files += [f'{i}:guest/{os.path.basename(i)}' for i in self.images]
        files += [f'{kernel}/{m}.ko:mod/{m}.ko' for m in MODULES]
        l2 = work + '/l2.cpio'
        l2_initramfs(l2, kernel)
        files += [f'{self.kernel}:l2/vmlinuz', f'{l2}:l2/initrd']
        self.base = work + '/l1.cpio'
        subprocess.run([TOP + '/tools/mkinitramfs', 'base', self.base, *files], check=True)

    def script(self, jobs):
        s = ['exec 2>&1', 'for m in %s; do insmod /mod/$m.ko; done' % ' '.join(MODULES),
             'export LD_BIND_NOW=1', 'echo "@@up $(cut -d" " -f1 /proc/uptime)"',
             'echo "@@npt $(cat /sys/module/kvm_amd/parameters/npt)"']
        for j in jobs:
            s += [f'echo "@@begin {j.name}"',
                  f"timeout -s KILL {j.limit} sh -c '{j.command}'",
                  f'echo; echo "@@end {j.name} $? $(cut -d" " -f1 /proc/uptime)"'.replace(
                      'echo; echo', 'st=$?; echo; echo').replace('$? ', '$st ')]
        return '\n'.join(s + ['echo @@done'])

    def run(self, variant, jobs, attempt):
        """Fill in the jobs' results; what is missing has hung. Returns the head lines."""
        name = f'{self.work}/{variant}{attempt}'
        subprocess.run([TOP + '/tools/mkinitramfs', 'exec', name + '.exec', self.script(jobs)],
                       check=True)
        with open(name + '.initrd', 'wb') as out:
            for p in (self.base, name + '.exec'):
                with open(p, 'rb') as f:
                    shutil.copyfileobj(f, out)
        cmd = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', CPUS[variant], '-smp', '2', '-m',
               '1024', '-display', 'none', '-nodefaults', '-no-reboot', '-kernel', self.kernel,
               '-initrd', name + '.initrd', '-append', 'console=ttyS0 panic=-1 quiet',
               '-serial', f'file:{name}.console', '-serial', 'stdio']
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=open(name + '.qemu', 'wb'), start_new_session=True)
        try:
            with open(name + '.log', 'w') as log:
                return self.follow(p, {j.name: j for j in jobs}, log)
        finally:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()

    def follow(self, p, jobs, log):
        os.set_blocking(p.stdout.fileno(), False)
        end = time.monotonic() + BOOT_LIMIT
        head, job, data, before = {}, None, b'', 0.0
        while time.monotonic() < end:
            chunk = p.stdout.read()
            if chunk is None:
                time.sleep(0.05)
                continue
            if not chunk:
                break
            data += chunk
            *lines, data = data.split(b'\n')
            for raw in lines:
                line = raw.decode('latin-1').rstrip('\r')
                log.write(line + '\n')
                if self.args.verbose:
                    print('>', line, file=sys.stderr, flush=True)
                m = re.match(r'@@(\w+) ?(.*)', line)
                if m and m[1] == 'begin':
                    job = jobs[m[2]]
                    job.output = ''
                    end = time.monotonic() + job.limit + 30
                elif m and m[1] == 'end':
                    job.status = int(m[2].split()[1])
                    job.seconds = float(m[2].split()[2]) - before
                    before = float(m[2].split()[2])
                    job = None
                elif m:
                    head[m[1]] = m[2]
                    before = float(m[2]) if m[1] == 'up' else before
                    if m[1] == 'done':
                        return head
                elif job:
                    job.output += line + '\n'
        return head


def tcg_failures(bed, variant, smp, n):
    """The tests of an image that fail on TCG itself, without KVM: {name: reason}."""
    skip = ''.join(f'skip={x} ' for x in SKIP.get(f'{n}:tcg', {}))
    cmd = ['qemu-system-x86_64', '-accel', 'tcg', '-M', 'pc', '-cpu', CPUS[variant], '-display',
           'none', '-nodefaults', '-m', '128', '-smp', str(smp), '-no-reboot',
           '-chardev', 'stdio,id=con,signal=off',
           '-device', 'isa-debugcon,iobase=0x403,chardev=con',
           '-device', 'isa-debug-exit,iobase=0x501,iosize=2', '-device', 'pc-testdev',
           '-kernel', f'{bed.args.build}/tests/guest/{n}.guest', '-append', f'smp={smp} vmm=tcg {skip}only=']
    try:
        text = subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                              check=False).stdout.decode('latin-1')
    except subprocess.TimeoutExpired as e:
        text = (e.stdout or b'').decode('latin-1')
    res, _ = guest_results(text)
    return {name: 'TCG without KVM fails it, too' for name, good in res.items() if good is False}


def guest_results(text):
    """A guest image's TAP: {name: good, None: skipped}, and how many it planned."""
    res, plan = {}, 0
    for line in text.splitlines():
        m = re.match(r'(not )?ok (\d+) - (\w+)(.*# SKIP)?', line)
        if m:
            res[m[3]] = None if m[4] else not m[1]
        m = re.match(r'1\.\.(\d+)', line)
        plan = int(m[1]) if m else plan
    return res, plan


def l2_command(accel, smp):
    return ('exec kvasir -accel %s -kernel /l2/vmlinuz -initrd /l2/initrd -m 256 -smp %d -no-reboot '
            '-append "console=ttyS0 quiet panic=-1 rdinit=/l2init"' % (accel, smp))


def jobs_for(bed, a, variant):
    jobs = []

    def example(text):
        return lambda j: (j.status == 0 and text in j.output, j.output)

    jobs.append(Job('auto', 'exec minimal', 20, lambda j: (
        j.status == 0 and 'engine: kvm' in j.output, j.output)))
    for accel in ('kvm', 'soft'):
        jobs.append(Job(f'minimal-{accel}', f'exec minimal -accel {accel}', 20,
                        example('Hello, world!')))
        jobs.append(Job(f'longmode-{accel}', f'exec longmode -accel {accel}', 20,
                        example('10! + 42 = 3628842')))
    if 'apidiff' in bed.programs:
        jobs.append(Job('apidiff', 'exec apidiff' + (' -v' if a.verbose else ''), 30, SILENT))
    for image in bed.images:
        n = os.path.basename(image)[:-len('.guest')]
        smp = bed.guest_cpus.get(n, 1)
        for accel in ('kvm', 'soft'):
            if accel == 'kvm' and (variant, n) in SKIP_IMAGE:
                continue
            vmm = 'tcg' if accel == 'kvm' else 'kvm'  # whose processor the guest sees
            skip = ''.join(f'skip={x} ' for x in SKIP.get(f'{n}:{accel}', {}))
            jobs.append(Job(
                f'{n}-{accel}',
                f'exec kvasir -accel {accel} -M microvm -display none -nodefaults -m 128 -smp {smp} '
                '-no-reboot -chardev stdio,id=con,signal=off '
                '-device isa-debugcon,iobase=0x403,chardev=con '
                '-device isa-debug-exit,iobase=0x501,iosize=2 -device pc-testdev '
                f'-kernel /guest/{n}.guest -append "smp={smp} vmm={vmm} {skip}only={a.guest_only}"', 60, SILENT))
    # Linux in Linux first: the guests try TCG harder
    jobs.insert(0, Job('linux-pc', l2_command('kvm', 1) + ' -M pc -nic none '
                       '-device virtio-rng-pci,addr=5', 90, lambda j: (
                           j.status == 0 and 'L2 rng 256 2' in j.output and 'L2 done' in j.output,
                           f'{j.output}\nstatus {j.status}\n' +
                           '\n'.join(re.findall('.*L2.*|.*insmod.*', j.output)))))
    for smp in (2, 1):
        jobs.insert(0, Job(f'linux-{smp}', l2_command('kvm', smp), 90, lambda j, smp=smp: (
            j.status == 0 and f'L2 up with {smp}' in j.output and 'L2 done' in j.output,
            f'status {j.status}\n{j.output}')))
    return [j for j in jobs if not a.only or a.only in j.name]


def report_guest(t, variant, bed, jobs, n):
    """The same tests with the same results on both engines, and all of them good."""
    res = {}
    for accel in ('kvm', 'soft'):
        j = jobs.get(f'{n}-{accel}')
        if accel == 'kvm' and (variant, n) in SKIP_IMAGE:
            t.skip(f'{variant} {n} kvm', SKIP_IMAGE[variant, n])
            continue
        if not j:
            return
        if j.status is None or not guest_results(j.output or '')[1]:
            t.ok(False, f'{variant} {n} {accel}: no results', f'status {j.status}\n{j.output}')
            return
        res[accel], plan = guest_results(j.output)
        t.ok(len(res[accel]) == plan and (j.status & 1) == 1 or 'only=' not in j.command,
             f'{variant} {n} {accel}: ends by itself with {plan} results',
             f'{len(res[accel])} results, status {j.status}\n{j.output}')
    tcg = tcg_failures(bed, variant, bed.guest_cpus.get(n, 1), n)
    for accel in res:
        key, excused = f'{n}:{accel}', {}
        lines = jobs[f'{n}-{accel}'].output.splitlines()
        for name, good in res[accel].items():
            why = DENY.get((variant, key, name)) or DENY.get(('*', key, name))
            # the software engine computes floating point on the units of its host, here TCG
            if not why and (accel == 'kvm' or n.startswith('fpu')):
                why = tcg.get(name)
            if name in SKIP.get(key, {}):
                excused.setdefault(SKIP[key][name], []).append(name)
            elif good is False and why:
                excused.setdefault(why, []).append(name)
            elif good is not None:  # else the guest has skipped it
                at = next((i for i, x in enumerate(lines)
                           if re.match(rf'not ok \d+ - {name}\b', x)), 0)
                t.ok(good, f'{variant} {n} {accel}: {name}', '\n'.join(lines[at:at + 4]))
        for why, names in excused.items():
            t.skip(f'{variant} {n} {accel}: ' + ', '.join(names), why)


def report(t, variant, bed, jobs, head):
    by_name = {j.name: j for j in jobs}
    npt = head.get('npt')
    t.ok(npt == ('Y' if variant == 'npt' else 'N'), f'{variant}: KVM with the paging meant',
         f'npt={npt}')
    for j in jobs:
        if j.check is not SILENT:
            good, detail = j.check(j) if j.status is not None else (False, f'hung\n{j.output}')
            t.ok(good, f'{variant} {j.name}', detail)
    if 'apidiff' in by_name:
        j = by_name['apidiff']
        res, plan = guest_results(j.output or '')
        t.ok(j.status is not None and len(res) == plan > 0, f'{variant} apidiff: ends',
             f'status {j.status}\n{j.output}')
        for name, good in res.items():
            t.ok(good, f'{variant} apidiff: {name}', '\n'.join(
                x for x in j.output.splitlines() if x.startswith(f'# {name}: ') and '<--' in x))
    for image in bed.images:
        report_guest(t, variant, bed, by_name, os.path.basename(image)[:-len('.guest')])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--build', default=TOP + '/build')
    ap.add_argument('--cpu', action='append', choices=sorted(CPUS))
    ap.add_argument('--only', default='', help='only jobs whose name contains this')
    ap.add_argument('--guest-only', default='', help='only guest tests whose name contains this')
    ap.add_argument('--keep', help='keep logs in this folder')
    ap.add_argument('--verbose', action='store_true')
    a = ap.parse_args()
    t = Tap()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end QEMU on the way out
    if not shutil.which('qemu-system-x86_64'):
        t.skip('nested', 'no qemu-system-x86_64 (package qemu-system-x86)')
        print('1..1')
        return 0
    kernel, why = get_kernel()
    if not kernel:
        t.skip('nested', why)
        print('1..1')
        return 0
    with tempfile.TemporaryDirectory(prefix='kvasir-nested-') as tmp:
        work = a.keep or tmp
        os.makedirs(work, exist_ok=True)
        bed = Bed(a, kernel, work)
        for variant in a.cpu or ['npt', 'shadow']:
            start = time.monotonic()
            jobs = jobs_for(bed, a, variant)
            head = bed.run(variant, jobs, 1)
            # TCG hangs with nested guests once in six runs; what hangs each time is our fault
            for attempt in range(2, 5):
                again = [j for j in jobs if j.status in (None, 137)]
                if not again:
                    break
                # what took L1 down with it comes last, so that the others have their turn
                again.sort(key=lambda j: j.output is not None)
                print(f'# {variant}: again: ' + ' '.join(j.name for j in again), flush=True)
                for j in again:
                    j.status = j.output = None
                head.update(bed.run(variant, again, attempt))
            report(t, variant, bed, jobs, head)
            print(f'# {variant}: {time.monotonic() - start:.0f} s; L1 up after '
                  f'{head.get("up")} s; ' + ' '.join(f'{j.name} {j.seconds:.1f}' for j in jobs),
                  flush=True)
    print(f'1..{t.n}')
    return t.bad > 0


sys.exit(main())
