#!/usr/bin/env python3
"""
Disks, networks and boots of an installed Debian, next to QEMU's TCG with the same image, kernel and
options, in one run.

  bench/io.py [-n RUNS] [--seconds N] [--boards pc,microvm] [--kvasir FILE] [--accel ACCEL] [--only WHAT]
              [--no-qemu] [--write]

  boot    from the process's start to the login prompt
  disk    fio in the guest on virtio-blk: 4-KiB random and 1-MiB sequential reads and writes, queue
          depths 1 and 32, on a raw file with cache=none and one with cache=writeback; for cache=none
          also fio on the host itself (when it is there), which is what a guest could have at best
  net     iperf3 on virtio-net with -netdev user: guest to host and host to guest

No I/O threads. Boots are interleaved; then a machine of each kind is up, and each job runs in one and
in the other, by turns: medians are compared. QEMU's microvm is the one with ACPI.
--write puts the tables into docs/performance.md, in the place of the last ones.
"""
import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import vmbench as vb

sys.path.insert(0, f'{vb.TOP}/tests')
import installed  # noqa: E402

BEGIN, END = '<!-- bench/io.py begin -->', '<!-- bench/io.py end -->'
JOBS = [(f'{name}, QD {qd}', rw, bs, qd)
        for name, rw, bs in (('4-KiB random read', 'randread', '4k'), ('4-KiB random write', 'randwrite', '4k'),
                             ('1-MiB sequential read', 'read', '1M'), ('1-MiB sequential write', 'write', '1M'))
        for qd in (1, 32)]
CACHES = ['none', 'writeback']
DISK = 512 << 20


def fio_command(file, rw, bs, qd, seconds):
    return (f'fio --name=j --filename={file} --rw={rw} --bs={bs} --iodepth={qd} --ioengine=libaio '
            f'--direct=1 --size={DISK} --runtime={seconds} --time_based --ramp_time=0.5 --norandommap '
            '--randrepeat=1 --output-format=json')


def fio_result(rw, bs, qd, rc, out):
    """Requests per second of one job, or None."""
    try:
        j = json.loads(out[out.index('{'):])['jobs'][0]['read' if 'read' in rw else 'write']
        return j['iops']
    except (ValueError, KeyError, IndexError):
        print(f'fio {rw} {bs} QD {qd}: status {rc}\n{out[-600:]}', file=sys.stderr)
        return None


def fio(m, device, rw, bs, qd, seconds):
    rc, out = m.sh(fio_command(device, rw, bs, qd, seconds), seconds + 90)
    return fio_result(rw, bs, qd, rc, out)


def host_fio(file, rw, bs, qd, seconds):
    """The same without a guest. Its buffers are in huge pages, as a guest's RAM is: else the host's disk
    gets the same bytes in more and smaller pieces."""
    r = subprocess.run(fio_command(file, rw, bs, qd, seconds).split(), capture_output=True, text=True, check=False,
                       env={**os.environ, 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'})
    return fio_result(rw, bs, qd, r.returncode, r.stdout)


def iperf(m, seconds, more, port):
    server = subprocess.Popen(['iperf3', '-s', '-1', '-p', str(port)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        rc, out = m.sh(f'for i in 1 2 3 4 5; do iperf3 -c 10.0.2.2 -p {port} -t {seconds} -J {more} && break; sleep 0.3; done',
                       seconds * 3 + 60)
        try:
            return json.loads(out[out.rindex('\n{\n') if '\n{\n' in out else out.index('{'):])['end']['sum_received']['bits_per_second']
        except (ValueError, KeyError):
            print(f'iperf3 {more}: status {rc}\n{out[-600:]}', file=sys.stderr)
            return None
    finally:
        server.kill()
        server.wait()


class Runs:
    def __init__(self, o, folder, tmp):
        self.o, self.folder, self.tmp = o, folder, tmp
        self.got = {}  # (vmm, row) -> values
        self.failed = {}
        self.port = 15201

    def add(self, vmm, row, value):
        if value is not None:
            self.got.setdefault((vmm, *row), []).append(value)

    def start(self, vmm, binary, board):
        """A machine at its shell, or None."""
        o, bus = self.o, 'pci' if board == 'pc' else 'device'
        disk = installed.overlay(self.folder, f'{self.tmp}/root-{vmm[0]}.qcow2')
        options = []
        for c in CACHES if 'disk' in o.only else []:
            options += ['-drive', f'file={self.tmp}/{c}-{vmm[0]}.raw,format=raw,if=none,id={c},cache={c}',
                        '-device', f'virtio-blk-{bus},drive={c},serial={c}']
        if vmm == 'Kvasir' and o.accel:
            options += ['-accel', o.accel]
        name = 'microvm,acpi=on,rtc=on' if board == 'microvm' and vmm != 'Kvasir' else board
        m = installed.Machine(binary, self.folder, disk, *options, board=name, boot_limit=400)
        try:
            self.add(vmm, ('boot', board), m.login())
            self.add(vmm, ('cpu', board), m.cpu())
            return m
        except installed.Gone as e:
            self.fail(vmm, board, e)
            m.kill()
            return None

    def fail(self, vmm, board, why):
        self.failed[vmm] = self.failed.get(vmm, 0) + 1
        print(f'{vmm}, {board}: {why}', file=sys.stderr)

    def each(self, machines, board, fn):
        """fn(vmm, machine), which adds to the results, in turns."""
        for _ in range(self.o.n):
            for vmm in list(machines):
                try:
                    fn(vmm, machines[vmm])
                except installed.Gone as e:
                    self.fail(vmm, board, e)
                    machines.pop(vmm).kill()

    def board(self, board, vmms):
        """Boots in turns; then one machine of each kind, idle while the other works."""
        o, machines = self.o, {}
        for i in range(o.n if 'boot' in o.only else 1):
            for vmm, binary in vmms:
                m = self.start(vmm, binary, board)
                if m and i == o.n - 1 or m and 'boot' not in o.only:
                    machines[vmm] = m
                elif m:
                    m.kill()
        try:
            for c in CACHES if 'disk' in o.only else []:
                dev = {}
                for vmm, m in machines.items():
                    dev[vmm] = m.sh(f'for d in /sys/block/vd?; do grep -qx {c} $d/serial && echo /dev/${{d##*/}}; done')[1].strip()
                for row, rw, bs, qd in JOBS:
                    self.each(machines, board, lambda vmm, m: self.add(
                        vmm, ('disk', board, c, row), fio(m, dev[vmm], rw, bs, qd, o.seconds)))
                    for _ in range(o.n if c == 'none' and shutil.which('fio') else 0):
                        self.add('host', ('disk', board, c, row),
                                 host_fio(f'{self.tmp}/none-K.raw', rw, bs, qd, o.seconds))
            if 'net' in o.only:
                for m in machines.values():
                    m.sh('/lib/systemd/systemd-networkd-wait-online -q --any --timeout 60', 90)
                for row, more in (('guest to host', ''), ('host to guest', '-R')):
                    self.each(machines, board, lambda vmm, m: self.add(
                        vmm, ('net', board, row), iperf(m, o.seconds, more, self.next_port())))
        finally:
            for m in machines.values():
                m.kill()

    def next_port(self):
        self.port += 1
        return self.port

    def row(self, key, shown, better_is_less=False, host=False):
        k, q, h = (vb.median(self.got.get((v, *key))) for v in ('Kvasir', 'QEMU TCG', 'host'))
        ratio = '-'
        if k and q:
            ratio = f'**{q / k if better_is_less else k / q:.2f}**'
        return [shown(x) if x else '-' for x in ((h, k, q) if host else (k, q))] + [ratio]

    def tables(self):
        o, text = self.o, ''
        boards = o.boards.split(',')
        heads = ['Kvasir', 'QEMU TCG', 'times']
        rows = [[f'{name}, {b}', *self.row((key, b), lambda x: f'{x:.1f} s', True)] for b in boards
                for name, key in (('login prompt', 'boot'), ('its processor time', 'cpu'))]
        text += vb.table(['from start to', *heads], rows) + '\n\n'
        if 'disk' in o.only:
            rows = [[name, c, b, *self.row(('disk', b, c, name), lambda x, seq=name.startswith('1-MiB'):
                                           f'{x:.0f} MiB/s' if seq else f'{x:.0f} /s', host=True)]
                    for b in boards for c in CACHES for name, *_ in JOBS]
            text += vb.table(['virtio-blk, raw', 'cache', 'machine', 'host', *heads], rows) + '\n\n'
        if 'net' in o.only:
            rows = [[name, b, *self.row(('net', b, name), lambda x: f'{x / 1e6:.0f} Mbit/s')]
                    for b in boards for name in ('guest to host', 'host to guest')]
            text += vb.table(['virtio-net, -netdev user', 'machine', *heads], rows) + '\n'
        return text


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('-n', type=int, default=3, metavar='RUNS')
    a.add_argument('--seconds', type=int, default=4, help='for each fio or iperf3 job')
    a.add_argument('--boards', default='pc,microvm')
    a.add_argument('--kvasir', default=vb.default_kvasir())
    a.add_argument('--accel', help='of kvasir; default: its own choice')
    a.add_argument('--only', default='boot,disk,net')
    a.add_argument('--no-qemu', action='store_true')
    a.add_argument('--write', action='store_true')
    o = a.parse_args()
    vmms = [('Kvasir', o.kvasir)]
    if not o.no_qemu and shutil.which('qemu-system-x86_64'):
        vmms.append(('QEMU TCG', 'qemu-system-x86_64'))
    folder = installed.image('bench')
    # not in a tmpfs, which has no O_DIRECT
    with tempfile.TemporaryDirectory(prefix='kvasir-io-', dir=f'{folder}/..') as tmp:
        for c in CACHES if 'disk' in o.only else []:
            for vmm, _ in vmms:
                with open(f'{tmp}/{c}-{vmm[0]}.raw', 'wb') as f:
                    block = os.urandom(1 << 20)
                    for _ in range(DISK >> 20):
                        f.write(block)
        runs = Runs(o, folder, tmp)
        for board in o.boards.split(','):
            runs.board(board, vmms)
        with open(f'{folder}/vmlinuz', 'rb') as f:
            release = re.search(rb'(\d+\.\d+\.\d+-\d+\S*)', f.read(1 << 16))
    text = ('## Disks, networks, and the way to the login prompt\n\nMade by `bench/io.py --write`. The last column '
            'says how many times better Kvasir is.\n\n'
            f'- Date: {datetime.date.today()}. Processor: {vb.processor()}, {os.cpu_count()} of them.\n'
            f'- Guest: {os.path.basename(folder)}{", kernel " + release[1].decode() if release else ""}, one vCPU, 1 GiB. '
            f'Medians of {o.n} interleaved runs of {o.seconds} s; no I/O threads.\n'
            f'- {vb.version(o.kvasir, "-version")}; {vb.version("qemu-system-x86_64", "--version") or "no QEMU"}.\n'
            + ''.join(f'- {v}: {n} runs failed.\n' for v, n in runs.failed.items()) + f'\n{runs.tables()}')
    print(text)
    if o.write:
        vb.write_section(BEGIN, END, text)


main()
