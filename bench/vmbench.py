"""
What the benchmarks share: small initial file systems, the uncompressed kernel out of a bzImage,
the command lines of Kvasir and QEMU for the same guest, and running one until it prints a line.

References: [LINUX-BOOT] for the bzImage's header; buffer-format.rst of the kernel for the cpio
archive; lz4_Block_format.md for the decoder, used where the lz4 program is absent.
"""
import glob
import lzma
import os
import platform
import re
import shutil
import signal
import statistics
import struct
import subprocess
import threading
import time
import zlib

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def default_kvasir():
    return os.environ.get('KVASIR_BINARY', f'{TOP}/build/kvasir')


def default_kernel(which='cloud'):
    """The kernel that ./run keeps in its cache, or None."""
    cache = os.environ.get('KVASIR_CACHE') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'kvasir')
    meta = {'cloud': 'linux-image-cloud-amd64', 'generic': 'linux-image-amd64'}[which]
    found = sorted(glob.glob(f'{cache}/{meta}/vmlinuz-*'), key=os.path.getmtime)
    return found[-1] if found else None


def cpio(files):
    """A newc archive of {name: bytes}; /dev/console and the directories come by themselves."""
    out = bytearray()

    def add(name, mode, data=b'', major=0, minor=0):
        n = name.encode() + b'\0'
        ino = len(out) + 1
        head = [ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(n), 0]
        out.extend(b'070701' + b''.join(b'%08X' % h for h in head) + n)
        out.extend(bytes(-len(out) % 4) + data)
        out.extend(bytes(-len(out) % 4))

    for d in ('dev', 'proc', 'sys', 'tmp'):
        add(d, 0o40755)
    add('dev/console', 0o20600, major=5, minor=1)
    add('dev/null', 0o20666, major=1, minor=3)
    for name, data in files.items():
        add(name, 0o100755, data)
    add('TRAILER!!!', 0)
    return bytes(out)


# ---- The kernel itself -------------------------------------------------------------------------

def lz4_block(src, out):
    """One block, appended to out; matches may reach back into earlier output of this block."""
    i, start, n = 0, len(out), len(src)
    while i < n:
        token = src[i]
        i += 1
        lit = token >> 4
        if lit == 15:
            while True:
                lit += src[i]
                i += 1
                if src[i - 1] != 255:
                    break
        out += src[i:i + lit]
        i += lit
        if i >= n:
            break
        dist = src[i] | src[i + 1] << 8
        i += 2
        size = (token & 15) + 4
        if size == 19:
            while True:
                size += src[i]
                i += 1
                if src[i - 1] != 255:
                    break
        at = len(out) - dist
        if dist == 0 or at < start:
            raise ValueError('lz4: a match before the block')
        while size > 0:
            part = out[at:at + min(size, len(out) - at)]
            out += part
            at += len(part)
            size -= len(part)


def unlz4(data):
    if shutil.which('lz4'):
        p = subprocess.run(['lz4', '-dc'], input=data, capture_output=True, check=False)
        if p.stdout.startswith(b'\x7fELF'):
            return p.stdout
    out, at = bytearray(), 4  # the legacy frame: a magic number, then sized blocks
    while at + 4 <= len(data):
        size = struct.unpack_from('<I', data, at)[0]
        at += 4
        if size == 0 or at + size > len(data):
            break
        lz4_block(data[at:at + size], out)
        at += size
    return bytes(out)


def extract_vmlinux(bzimage, to):
    """Write the ELF file inside a bzImage; None, or why that cannot be done."""
    with open(bzimage, 'rb') as f:
        data = f.read()
    if data[0x202:0x206] != b'HdrS':
        return 'not a bzImage'
    setup = (data[0x1f1] or 4) + 1
    off, size = struct.unpack_from('<II', data, 0x248)
    payload = data[setup * 512 + off:setup * 512 + off + size]
    if payload.startswith(b'\x02\x21\x4c\x18'):
        elf = unlz4(payload)
    elif payload.startswith(b'\xfd7zXZ'):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b'\x1f\x8b'):
        elf = zlib.decompressobj(31).decompress(payload)
    elif payload.startswith(b'\x28\xb5\x2f\xfd') and shutil.which('zstd'):
        elf = subprocess.run(['zstd', '-dc'], input=payload, capture_output=True,
                             check=False).stdout
    else:
        return 'compressed with something unknown here'
    if not elf.startswith(b'\x7fELF'):
        return 'its payload is no ELF file'
    with open(to + '.new', 'wb') as f:
        f.write(elf)
    os.replace(to + '.new', to)
    return None


# ---- Machines ----------------------------------------------------------------------------------

def kvasir_command(binary, accel, kernel, initrd, append, smp=1, mem=512):
    return [binary, '-accel', accel, '-M', 'microvm', '-nodefaults', '-m', str(mem),
            '-smp', str(smp), '-serial', 'stdio', '-no-reboot', '-kernel', kernel,
            '-initrd', initrd, '-append', append]


def qemu_command(kernel, initrd, append, smp=1, mem=512, machine='microvm'):
    return ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max', '-M', machine, '-nodefaults',
            '-no-user-config', '-m', str(mem), '-smp', str(smp), '-display', 'none',
            '-serial', 'stdio', '-no-reboot', '-kernel', kernel, '-initrd', initrd,
            '-append', append]


def run_until(command, end, limit, at_end=None):
    """
    Run until a line that starts with end; at_end(process) is called then. (seconds, lines before), or
    (None, lines) when the time limit passes or the process ends without it.
    """
    start = time.monotonic()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, start_new_session=True)

    def stop():
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    timer = threading.Timer(limit, stop)
    timer.start()
    lines, took = [], None
    for raw in p.stdout:
        line = raw.decode(errors='replace').strip('\r\n\0')
        # the firmware of some machines leaves the line it was on
        if re.search(rf'(^|\s|\x1b\S*){re.escape(end)}', line):
            took = time.monotonic() - start
            if at_end:
                at_end(p)
            break
        lines.append(line)
    timer.cancel()
    stop()
    p.wait()
    p.stdout.close()
    return took, lines


def try_until(command, end, limit, tries=3, at_end=None):
    """run_until, again after a run that failed: (seconds, lines, number of failed runs)."""
    for i in range(tries):
        took, lines = run_until(command, end, limit, at_end)
        if took is not None:
            return took, lines, i
    return None, lines, tries


# ---- Results -----------------------------------------------------------------------------------

def write_section(begin, end, text):
    """Put text into docs/performance.md, in the place of what is between the two lines, or at its end."""
    path = f'{TOP}/docs/performance.md'
    with open(path, encoding='utf-8') as f:
        old = f.read()
    new = f'{begin}\n{text}\n{end}\n'
    if begin in old:
        a, b = old.index(begin), old.index(end) + len(end) + 1
        old = old[:a] + new + old[b:]
    else:
        old = old.rstrip('\n') + '\n\n' + new
    with open(path + '.new', 'w', encoding='utf-8') as f:
        f.write(old)
    os.replace(path + '.new', path)


# ---- Numbers -----------------------------------------------------------------------------------

def median(values):
    return statistics.median(values) if values else None


def processor():
    try:
        with open('/proc/cpuinfo', encoding='ascii', errors='replace') as f:
            return re.search(r'^model name\s*:\s*(.*)$', f.read(), re.M)[1].strip()
    except (OSError, TypeError):
        return platform.machine()


def version(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              check=False).stdout.splitlines()[0]
    except (OSError, IndexError):
        return None


def table(head, rows):
    """A markdown table whose columns line up."""
    cells = [head, *rows]
    width = [max(len(str(r[i])) for r in cells) for i in range(len(head))]

    def row(r):
        return '| ' + ' | '.join(str(c).ljust(w) if i == 0 else str(c).rjust(w)
                                 for i, (c, w) in enumerate(zip(r, width))) + ' |'
    rule = '|' + '|'.join('-' * (w + 1) + ('-' if i == 0 else ':')
                          for i, w in enumerate(width)) + '|'
    return '\n'.join([row(head), rule, *(row(r) for r in rows)])
