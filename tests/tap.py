"""
What the Python tests share: results in TAP, a guest made of a few bytes of machine code, and
running kvasir with a time limit. Reference: [MULTIBOOT 3.1] for the header.
"""
import os
import struct
import subprocess
import sys
import tempfile


class Tap:
    def __init__(self):
        self.n = self.bad = 0

    def ok(self, good, name, detail=''):
        self.n += 1
        self.bad += not good
        print(f"{'ok' if good else 'not ok'} {self.n} - {name}", flush=True)
        if not good:
            for line in str(detail).splitlines()[-20:]:
                print(f'# {line}', flush=True)
        return good

    def skip(self, name, why):
        self.n += 1
        print(f'ok {self.n} - {name} # SKIP {why}', flush=True)

    def end(self):
        print(f'1..{self.n}', flush=True)
        sys.exit(self.bad > 0)


def kvasir(binary, *args, timeout=60, stdin=subprocess.DEVNULL, env=None):
    """Run to the end: (status, stdout, stderr). Status None: it did not end in time."""
    p = subprocess.Popen([binary, *args], stdin=stdin, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=env)
    try:
        out, err = p.communicate(timeout=timeout)
        return p.returncode, out, err.decode(errors='replace')
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        return None, out, err.decode(errors='replace')


def multiboot(code):
    """A multiboot 1 kernel at 1 MiB whose 32-bit code is entered at its first byte."""
    base, flags, magic = 0x100000, 0x10003, 0x1badb002
    header = struct.pack('<8I', magic, flags, -(magic + flags) & 0xffffffff, base, base,
                         base + 32 + len(code), base + 32 + len(code), base + 32)
    return header + code


class Guest:
    """A temporary file with such a kernel."""

    def __init__(self, code):
        fd, self.path = tempfile.mkstemp(prefix='kvasir-guest-')
        os.write(fd, multiboot(code))
        os.close(fd)

    def __enter__(self):
        return self.path

    def __exit__(self, *a):
        os.unlink(self.path)
