#!/usr/bin/env python3
"""
The machine without an operating system: guests of a few bytes that exit, reset, power off, hang and
talk, on each engine that works here. Argument: the kvasir binary.
"""
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

from tap import Guest, Tap, kvasir

binary = sys.argv[1]
t = Tap()


def out8(port, v):
    return struct.pack('<BBHBBB', 0x66, 0xba, port, 0xb0, v, 0xee)  # mov dx; mov al; out dx, al


def out16(port, v):
    return struct.pack('<BBHBBHBB', 0x66, 0xba, port, 0x66, 0xb8, v, 0x66, 0xef)


EXIT = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4']
HANG = b'\xfa\xf4\xeb\xfc'  # cli; hlt; jmp
TRIPLE = b'\x0f\x01\x1d\x00\x00\x0a\x00\x0f\x0b'  # lidt [0a0000h]: limit 0 there; ud2
COMMON = ['-m', '64', '-serial', 'null']


def run(engine, code, *args, **kw):
    with Guest(code) as g:
        return kvasir(binary, '-accel', engine, *COMMON, *EXIT, *args, '-kernel', g, **kw)


def counted(action):
    """Act twice, then exit with what the counter in memory says: memory survives resets."""
    # inc byte [5000h]; cmp byte [5000h], 3; je over the action
    head = b'\xfe\x05\x00\x50\x00\x00\x80\x3d\x00\x50\x00\x00\x03'
    body = action + HANG
    return head + b'\x0f\x84' + struct.pack('<I', len(body)) + body + out8(0xf4, 3) + HANG


def engine_works(engine):
    rc, _, err = run(engine, out8(0xf4, 0x10) + HANG, timeout=20)
    return rc == 33, f'{rc} {err}'


def wait_for(f, seconds=10):
    end = time.time() + seconds
    while time.time() < end:
        if f():
            return True
        time.sleep(0.02)
    return False


def signals(engine):
    for sig in (signal.SIGTERM, signal.SIGINT):
        with Guest(out8(0x3f8, ord('!')) + b'\xeb\xfe') as g:
            p = subprocess.Popen([binary, '-accel', engine, '-m', '64', '-serial', 'stdio',
                                  '-kernel', g], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            os.set_blocking(p.stdout.fileno(), True)
            first = p.stdout.read(1)
            p.send_signal(sig)
            try:
                rc = p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                rc = None
            t.ok(rc == 0 and first == b'!', f'{engine}: {sig.name} ends a busy guest',
                 f'{rc} {first} {p.stderr.read()}')


def button(engine, board):
    """SIGUSR2 presses the power button; the guest sees it at the PM registers and powers off."""
    # "!"; l: mov dx, 600h; in ax, dx; test ah, 1; jz l; S5 to 604h
    code = (out8(0x3f8, ord('!')) + b'\x66\xba\x00\x06\x66\xed\xf6\xc4\x01\x74\xf5' +
            out16(0x604, 0x3400) + HANG)
    with Guest(code) as g:
        p = subprocess.Popen([binary, '-accel', engine, '-M', board, '-m', '64', '-serial', 'stdio',
                              '-kernel', g], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = p.stdout.read(1)
        time.sleep(0.2)
        early = p.poll()
        p.send_signal(signal.SIGUSR2)
        try:
            rc = p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
            rc = None
        t.ok(rc == 0 and first == b'!' and early is None,
             f'{engine}, {board}: SIGUSR2 is the power button', f'{rc} {early} {p.stderr.read()}')


def configuration(engine):
    """Configuration mechanism 1 on pc, nobody there on microvm: exit with the vendor's low byte."""
    code = (b'\x66\xba\xf8\x0c\xb8\x00\x00\x00\x80\xef'  # mov dx, cf8h; mov eax; out dx, eax
            b'\x66\xba\xfc\x0c\xed'                       # mov dx, cfch; in eax, dx
            b'\x24\x7f\x66\xba\xf4\x00\xee') + HANG       # and al, 7fh; out f4h, al
    for board, want in (('pc', 0x86 & 0x7f), ('microvm', 0x7f), ('pc-i440fx-7.2', 0x86 & 0x7f)):
        rc, _, err = run(engine, code, '-M', board)
        t.ok(rc == want << 1 | 1, f'{engine}: PCI on {board}', f'{rc} {err}')


def terminal(engine, how):
    """On a terminal: raw while the guest runs, as before afterwards, however it ends."""
    pid, fd = pty.fork()
    with_keys = how == 'C-a x'
    if pid == 0:
        code = out8(0x3f8, ord('>')) + b'\xeb\xfe'
        with Guest(code) as g:
            before = termios.tcgetattr(0)
            p = subprocess.Popen([binary, '-accel', engine, '-m', '64', '-nographic', '-kernel', g])
            raw = wait_for(lambda: not termios.tcgetattr(0)[3] & termios.ICANON)
            os.write(2, b'[raw]' if raw else b'[not raw]')
            if how.startswith('SIG'):
                time.sleep(0.2)
                p.send_signal(getattr(signal, how))
            rc = p.wait()
            after = termios.tcgetattr(0)
            os.write(2, f'[{rc} {"same" if before == after else "changed"}]'.encode())
            os._exit(0)
    data = b''
    os.set_blocking(fd, False)

    def pump():
        nonlocal data
        try:
            data += os.read(fd, 4096)
        except (BlockingIOError, OSError):
            pass
        return data

    wait_for(lambda: b'[raw]' in pump() and b'>' in data)
    if with_keys:
        os.write(fd, b'\x01h')
        helped = wait_for(lambda: b'C-a' in pump() or b'Ctrl' in data, 5)
        t.ok(helped, f'{engine}: C-a h shows help', data)
        os.write(fd, b'\x01x')
    ended = wait_for(lambda: b'same]' in pump() or b'changed]' in data)
    want = {'C-a x': b'[0 same]', 'SIGTERM': b'[0 same]',
            'SIGSEGV': b'[-11 same]', 'SIGABRT': b'[-6 same]'}[how]
    t.ok(ended and want in data, f'{engine}: terminal restored after {how}', data)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    os.close(fd)
    os.waitpid(pid, 0)


def machine(engine):
    rc, _, err = run(engine, out8(0xf4, 0) + HANG)
    t.ok(rc == 1, f'{engine}: isa-debug-exit 0 is status 1', f'{rc} {err}')
    rc, _, err = run(engine, TRIPLE, '-no-reboot')
    t.ok(rc == 0 and not err, f'{engine}: triple fault with -no-reboot ends', f'{rc} {err}')
    for name, code in (('triple fault', TRIPLE), ('port CF9', out8(0xcf9, 2) + out8(0xcf9, 6)),
                       ('i8042', out8(0x64, 0xfe)), ('port 92', out8(0x92, 1))):
        rc, _, err = run(engine, counted(code))
        t.ok(rc == 7, f'{engine}: reset by {name}, twice', f'{rc} {err}')
        rc, _, err = run(engine, counted(code), '-no-reboot')
        t.ok(rc == 0, f'{engine}: {name} with -no-reboot ends', f'{rc} {err}')
    pci = b'\x66\xba\xf8\x0c\xb8\x00\x06\x00\x80\xef'  # mov eax, 80000600h; out 0cf8h, eax
    rc, _, err = run(engine, pci + out8(0xf4, 5) + HANG, '-no-reboot')
    t.ok(rc == 11, f'{engine}: looking for PCI does not reset', f'{rc} {err}')
    off = out16(0x604, 5 << 10 | 1 << 13)
    rc, _, err = run(engine, off + HANG)
    t.ok(rc == 0 and not err, f'{engine}: ACPI power-off ends with 0', f'{rc} {err}')
    with tempfile.NamedTemporaryFile() as f:
        text = b''.join(out8(0x3f8, c) for c in b'serial') + \
            b''.join(out8(0xe9, c) for c in b'debugcon')
        rc, _, err = run(engine, text + off + HANG, '-chardev', f'file,id=d,path={f.name}',
                         '-device', 'isa-debugcon,chardev=d')
        t.ok(f.read() == b'debugcon', f'{engine}: isa-debugcon writes to its file', f'{rc} {err}')
    with Guest(text + off + HANG) as g:
        rc, out, err = kvasir(binary, '-accel', engine, '-m', '64', '-nographic', g)
        t.ok(rc == 0 and out == b'serial', f'{engine}: serial output on stdout', f'{rc} {out} {err}')
    with Guest(off + HANG) as g:
        p = subprocess.Popen([binary, '-accel', engine, *COMMON, '-no-shutdown', g],
                             stderr=subprocess.PIPE)
        try:
            rc = p.wait(1.5)
        except subprocess.TimeoutExpired:
            rc = 'alive'
            p.send_signal(signal.SIGTERM)
            rc = (rc, p.wait(10))
        t.ok(rc == ('alive', 0), f'{engine}: -no-shutdown stays after power-off', rc)
    for smp, mem in ((8, '64'), (1, '16G'), (3, '5G')):
        rc, _, err = run(engine, out8(0xf4, 1) + HANG, '-smp', str(smp), '-m', mem)
        t.ok(rc == 3, f'{engine}: -smp {smp} -m {mem}', f'{rc} {err}')
    rc, _, err = run(engine, out8(0xf4, 1) + HANG, '-M', 'microvm,acpi=off', '-smp', '4')
    t.ok(rc == 3, f'{engine}: acpi=off', f'{rc} {err}')
    signals(engine)
    button(engine, 'microvm')
    button(engine, 'pc')
    configuration(engine)
    for how in ('C-a x', 'SIGTERM', 'SIGSEGV', 'SIGABRT'):
        terminal(engine, how)


for engine in ('soft', 'kvm'):
    works, why = engine_works(engine)
    if works:
        t.ok(True, f'{engine}: isa-debug-exit 10h is status 33')
        machine(engine)
    elif engine == 'kvm':
        t.skip('kvm', f"the host's KVM does not run the smallest guest: {why.splitlines()[0]}")
    else:
        t.ok(False, f'{engine}: isa-debug-exit 10h is status 33', why)
t.end()
