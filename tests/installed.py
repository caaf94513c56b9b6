"""
A machine with an installed Debian (tools/mkimage) on its serial console, for tests and benchmarks:
start it, log in, run commands, power it off; and look at what it has left on its disk.

The binary may be QEMU's, for comparison and to know that an image is good.
"""
import os
import re
import signal
import subprocess
import tempfile
import time

import pexpect

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT_AT = 4 << 20  # bytes before the root partition, as in tools/mkimage
LOGIN = 'login: '


class Gone(Exception):
    """The machine ended or did not answer in time."""


def image(flavour='base'):
    """The folder of an image, made when it is not there yet. OSError with a reason if it cannot be."""
    cache = os.environ.get('KVASIR_CACHE') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'kvasir')
    r = subprocess.run([f'{TOP}/tools/mkimage', '--flavour', flavour, f'{cache}/images'],
                       capture_output=True, text=True, check=False)
    if r.returncode != 0:
        raise OSError((r.stderr.strip().splitlines() or ['mkimage failed'])[-1])
    return r.stdout.strip()


def overlay(folder, path):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', f'{folder}/disk.qcow2', '-F',
                    'qcow2', path], check=True)
    return path


def is_qemu(binary):
    return 'qemu' in os.path.basename(binary)


class Machine:
    """One run. options come after the machine, its disk and its kernel."""

    def __init__(self, binary, folder, disk, *options, board='pc', append='', drive='', net=True,
                 memory='1G', boot_limit=180):
        with open(f'{folder}/append', encoding='utf-8') as f:
            append = f'{f.read().strip()} {append}'
        qemu, pci = is_qemu(binary), board.startswith('pc')
        bus = 'pci' if pci else 'device'
        self.command = [binary, '-M', board, '-m', memory, '-nographic', '-no-reboot', '-kernel',
                        f'{folder}/vmlinuz', '-initrd', f'{folder}/initrd.img', '-append', append]
        self.command += ['-accel', 'tcg', '-cpu', 'max'] if qemu else []
        if disk:
            self.command += ['-drive', f'file={disk},format=qcow2,if=none,id=root{drive}',
                             '-device', f'virtio-blk-{bus},drive=root']
        self.command += ['-nic', 'none']
        if net:
            self.command += ['-netdev', 'user,id=net0' + (net if isinstance(net, str) else ''),
                             '-device', f'virtio-net-{bus},netdev=net0']
        self.command += options
        self.log = tempfile.NamedTemporaryFile('w', prefix='kvasir-console-', encoding='utf-8')
        self.start = time.monotonic()
        self.p = pexpect.spawn(self.command[0], self.command[1:], encoding='utf-8',
                               codec_errors='replace', timeout=boot_limit, echo=False,
                               dimensions=(50, 200))
        self.p.logfile_read = self.log
        self.p.delaybeforesend = None
        self.limit = boot_limit
        self.n = 0

    def cpu(self):
        """Seconds of processor time, of the host, that it has taken."""
        with open(f'/proc/{self.p.pid}/stat', encoding='ascii') as f:
            fields = f.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def tail(self, lines=15):
        self.log.flush()
        with open(self.log.name, encoding='utf-8', errors='replace') as f:
            return ''.join(f.readlines()[-lines:])

    def expect(self, what, limit=None):
        try:
            self.p.expect(what, timeout=limit or self.limit)
        except (pexpect.EOF, pexpect.TIMEOUT) as e:
            kind = 'it ended' if isinstance(e, pexpect.EOF) else 'no answer'
            raise Gone(f'waiting for {what!r}: {kind}\n{self.tail()}') from None
        return self.p.match

    def login(self):
        """Seconds from the process's start to the login prompt; a root shell follows."""
        self.expect(LOGIN)
        took = time.monotonic() - self.start
        self.p.sendline('root')
        self.expect('# ')
        # no echo, no prompt, no kernel messages in between
        self.p.sendline("dmesg -n 1; bind 'set enable-bracketed-paste off'; PS1= PS2= TERM=dumb; stty -echo; echo @@'ready'@@")
        self.expect('@@ready@@')
        return took

    def sh(self, command, limit=60):
        """(status, output) of a command line of the shell, which keeps its state."""
        self.n += 1
        self.p.sendline(f'{{ {command}\n}} 2>&1 </dev/null; echo "@@"{self.n}:$?@@')
        m = self.expect(rf'@@{self.n}:(\d+)@@', limit)
        return int(m[1]), re.sub('\r+\n', '\n', self.p.before).lstrip('\r\n')

    def end(self, limit=90):
        """Wait for the process to end: its status, negative for a signal."""
        try:
            self.p.expect(pexpect.EOF, timeout=limit)
        except pexpect.TIMEOUT:
            return 'still running'
        self.p.close()
        return self.p.exitstatus if self.p.signalstatus is None else -self.p.signalstatus

    def poweroff(self, limit=90):
        self.p.sendline('poweroff')
        return self.end(limit)

    def kill(self):
        """End it without mercy, as a crash of the host would."""
        if not self.p.closed and self.p.isalive():
            os.kill(self.p.pid, signal.SIGKILL)
            self.p.wait()
        self.p.close()


def fsck(disk):
    """What e2fsck says of the root partition, on a copy and without repairs: (status, output)."""
    with tempfile.TemporaryDirectory(prefix='kvasir-fsck-') as tmp:
        r = subprocess.run(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', disk, f'{tmp}/raw'],
                           capture_output=True, text=True, check=False)
        if r.returncode == 0:
            r = subprocess.run(['e2fsck', '-fn', f'{tmp}/raw?offset={ROOT_AT}'], capture_output=True,
                               text=True, check=False)
        return r.returncode, r.stdout + r.stderr


def image_check(disk):
    """qemu-img check: (good, output). Leaked clusters are not good."""
    r = subprocess.run(['qemu-img', 'check', '-f', 'qcow2', disk], capture_output=True, text=True, check=False)
    return r.returncode == 0 and bool(re.search('No errors were found', r.stdout)), r.stdout + r.stderr
