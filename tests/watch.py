#!/usr/bin/env python3
"""
Looking at the translator from the command line: -d in_asm, out_asm and jit, -dfilter, -D, SIGUSR1,
-perfmap, and Linux's perf where it works. The guest is a loop in 64-bit mode.
Argument: the kvasir binary.
"""
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from tap import Guest, Tap, kvasir

binary = sys.argv[1]
t = Tap()
HEAD = 32  # bytes of the multiboot header before the code
BASE = 0x100000 + HEAD
HIGH = 0xffffffff80000000  # where the first 2 MiB are mapped again, as a kernel would be


def guest(loops, end):
    """Enter 64-bit mode, go round the loop, and end: machine code for 1 MiB + HEAD."""
    def mem(at, v):
        return b'\xc7\x05' + struct.pack('<II', at, v)  # mov dword [at], v
    c = mem(0x4000, 0x5003) + mem(0x5000, 0x6003) + mem(0x6000, 0x83)
    c += mem(0x4ff8, 0x5003) + mem(0x5ff0, 0x6003)
    c += b'\xb8\x00\x40\x00\x00\x0f\x22\xd8'            # cr3 = 4000h
    c += b'\xb8\x20\x00\x00\x00\x0f\x22\xe0'            # cr4 = PAE
    c += b'\xb9\x80\x00\x00\xc0\x0f\x32\x80\xcc\x01\x0f\x30'  # EFER.LME
    c += b'\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0'      # CR0.PG
    gdt_at = BASE + len(c) + 14
    c += b'\x0f\x01\x15' + struct.pack('<I', gdt_at)    # lgdt
    c += b'\xea' + struct.pack('<IH', gdt_at + 6 + 16, 8)
    c += struct.pack('<HI', 15, gdt_at + 6) + bytes(8) + struct.pack('<Q', 0x00af9b000000ffff)
    c += b'\x48\xc7\xc0' + struct.pack('<i', BASE + len(c) + 9 - (1 << 31)) + b'\xff\xe0'
    loop = HIGH + BASE + len(c) + 5                     # mov rax; jmp rax
    c += b'\xb9' + struct.pack('<I', loops)             # mov ecx, loops
    c += b'\x83\xc0\x03'                            # add eax, 3
    c += b'\xff\xc9\x75\xf9'                            # dec ecx; jnz
    return c + end, loop


EXIT = b'\xb0\x05\xe6\xf4\xf4'  # mov al, 5; out f4h, al; hlt
FOREVER = b'\xe6\x80\xeb\xf0'   # out 80h, al; jmp to the mov
ARGS = ['-accel', 'soft,jit-trace=0', '-m', '64', '-nodefaults', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']
LOOPS = 100000
code, LOOP = guest(LOOPS, EXIT)


def run(*args, status=11):
    with Guest(code) as g:
        rc, out, err = kvasir(binary, *ARGS, *args, g)
    if rc != status:
        err = f'status {rc}\n{err}'
    return rc == status, err


def perf_map(pid):
    try:
        with open(f'/tmp/perf-{pid}.map', encoding='ascii') as f:
            return f.read()
    except OSError as e:
        return str(e)


good, err = run()
t.ok(good and not err, 'the guest runs', err)

good, err = run('-d', 'in_asm')
t.ok(good and re.search(rf'^0x{LOOP:016x}:  83 c0 03 +add eax, 0x3$', err, re.M)
     and f'jne {LOOP:#x}\n' in err and 'OUT:' not in err, '-d in_asm shows guest code', err)
good, err = run('-d', 'out_asm')
t.ok(good and f'bytes for {LOOP:#x}\n' in err and 'IN:' not in err
     and re.search(r'^0x[0-9a-f]{16}:  83 c0 03 +add eax, 0x3$', err, re.M),
     '-d out_asm shows host code', err)
good, err = run('-d', 'in_asm', '-d', 'out_asm')
t.ok(good and 'IN: kernel' in err and 'OUT: ' in err, '-d in_asm -d out_asm', err)
good, err = run('-d', 'in_asm,out_asm', '-dfilter', f'{LOOP:#x}+1')
t.ok(good and f'{LOOP:#x}' in err, '-dfilter with the loop', err)
good, err = run('-d', 'in_asm,out_asm', '-dfilter', '0x200000..0xffffffff7fffffff,0xfff-0x1000')
t.ok(good and not err, '-dfilter without it', err)
with tempfile.TemporaryDirectory() as tmp:
    good, err = run('-d', 'in_asm', '-D', f'{tmp}/log')
    with open(f'{tmp}/log', encoding='ascii') as f:
        text = f.read()
    t.ok(good and not err and 'IN: kernel' in text, '-D takes the log', f'{err}\n{text}')

good, err = run('-d', 'jit')
t.ok(good and 'Translator, 1 vCPU' in err and 'blocks ' in err and 'Hottest' not in err,
     '-d jit prints counters at the end', err)
good, err = run('-d', 'jit', '-accel', 'soft,jit=off')
t.ok(good and 'everything is interpreted' in err, '-d jit with jit=off', err)
good, err = run('-d', 'jit', '-accel', 'soft,jit-profile=on,jit-trace=0')
m = re.search(rf'(\d+\.\d+) % +(\d+) +3 +\d+  0x{LOOP:016x} kernel', err)
t.ok(good and m and float(m[1]) > 99 and LOOPS - 50 < int(m[2]) <= LOOPS,
     'jit-profile=on names the hottest block', err)
good, err = run('-d', 'jit,in_asm', '-accel', 'soft,jit-profile=on,jit-trace=100')
t.ok(good and 'IN: kernel trace, ' in err
     and re.search(rf'^ *\d\d\.\d\d % .* 0x{LOOP:016x} kernel trace$', err, re.M), 'traces, too', err)

with Guest(guest(LOOPS, FOREVER)[0]) as g:
    p = subprocess.Popen([binary, *ARGS, '-perfmap', g], stderr=subprocess.PIPE)
    os.set_blocking(p.stderr.fileno(), False)
    text, end = b'', time.time() + 10
    while b'interpreter calls' not in text and time.time() < end:
        time.sleep(0.2)
        p.send_signal(signal.SIGUSR1)
        text += p.stderr.read() or b''
    alive = p.poll() is None
    names = perf_map(p.pid)
    p.send_signal(signal.SIGTERM)
    rc = p.wait(10)
    text += p.stderr.read() or b''
    t.ok(alive and rc == 0 and b'interpreter calls' in text,
         'SIGUSR1 prints counters, and the guest goes on', f'{alive} {rc} {text}')
    t.ok(re.search(rf'^[0-9a-f]+ [0-9a-f]+ kernel:{LOOP:#x}$', names, re.M)
         and re.search(r'^[0-9a-f]+ [0-9a-f]+ glue:enter$', names, re.M),
         '-perfmap writes names', names)
    if names == perf_map(p.pid):
        os.unlink(f'/tmp/perf-{p.pid}.map')


def perf():
    """perf names the loop. None: perf does not work here, with the reason."""
    if not shutil.which('perf'):
        return None, 'no perf'
    with tempfile.TemporaryDirectory() as tmp, Guest(guest(300000000, EXIT)[0]) as g:
        r = subprocess.run(['perf', 'record', '-q', '-e', 'cpu-clock', '-o', f'{tmp}/data', binary,
                            *ARGS, '-accel', 'soft,perf-map=on,jit-trace=1000', g], capture_output=True,
                           text=True, check=False, timeout=120)
        if not os.path.exists(f'{tmp}/data'):
            return None, (r.stderr.splitlines() or ['perf record failed'])[-1]
        r = subprocess.run(['perf', 'report', '--stdio', '-i', f'{tmp}/data'], capture_output=True,
                           text=True, check=False, timeout=120)
    for pid in re.findall(r'\[JIT\] tid (\d+)', r.stdout)[:1]:
        os.unlink(f'/tmp/perf-{pid}.map')
    if not r.stdout.strip():
        return None, 'perf report shows nothing'
    m = re.search(rf'(\d+\.\d+)% .* kernel:{LOOP:#x}( trace)? *$', r.stdout, re.M)
    return bool(m) and float(m[1]) > 50, r.stdout


good, why = perf()
if good is None:
    t.skip('perf report names guest blocks', why)
else:
    t.ok(good, 'perf report names guest blocks', why)

for args, says in ((['-d', 'op'], 'no intermediate code'), (['-d', 'exec'], 'jit-profile=on'),
                   (['-d', 'in_asm', '-accel', 'soft,jit=off'], 'jit=off leaves out'),
                   (['-d', 'in_asm', '-accel', 'kvm'], '-accel kvm'),
                   (['-dfilter', '0x1000'], 'a range looks like'),
                   (['-dfilter', '0x2000..0x1000'], 'a range looks like')):
    args = args if '-accel' in args else ['-accel', 'soft', *args]
    rc, out, err = kvasir(binary, *args, '/dev/null')
    t.ok(rc == 1 and says in err and err.count('\n') == 1, ' '.join(args), f'{rc} {err}')
for args, says in ((['-d', 'help'], b'out_asm'), (['-accel', 'help'], b'jit-profile')):
    rc, out, err = kvasir(binary, *args)
    t.ok(rc == 0 and says in out and not err, ' '.join(args), f'{rc} {out} {err}')
t.end()
