#!/usr/bin/env python3
"""
Character devices of the whole program: a guest of a few bytes that echoes its serial port, over every
backend; what cannot be opened is one clear line. Argument: the kvasir binary.
"""
import os
import pty
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from tap import Guest, Tap, kvasir

binary = sys.argv[1]
t = Tap()
work = tempfile.mkdtemp(prefix='kvasir-char-')


def path(name):
    return os.path.join(work, name)


def echo(base=0x3f8):
    """Say '>', then send back each byte that arrives at the UART; 'Q' ends with status 7."""
    lsr = struct.pack('<BBH', 0x66, 0xba, base + 5)  # mov dx, base + 5
    thr = struct.pack('<BBH', 0x66, 0xba, base)
    wait = lsr + b'\xec\xa8\x01\x74\xfb'  # in al, dx; test al, 1; jz back to the in
    body = wait + thr + b'\xec'  # in al, dx
    body += b'\x3c\x51\x74\x03\xee'  # cmp al, 'Q'; je over the next two; out dx, al
    jump = b'\xeb' + struct.pack('<b', -(len(body) + 2))
    return thr + b'\xb0\x3e\xee' + body + jump + b'\x66\xba\xf4\x00\xb0\x03\xee\xf4'


guest = Guest(echo())
flood_code = b'\x66\xba\xf8\x03\xb0\x78\xee\xeb\xfd'  # mov dx, 3f8h; mov al, 'x'; out; jmp to the out
flood = Guest(flood_code)
ender = Guest(b'\x66\xba\xf4\x00\xb0\x03\xee\xf4')  # status 7 at once
BASE = [binary, '-accel', 'soft', '-m', '16', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4']


class Run:
    def __init__(self, *args, kernel=None, **kw):
        self.p = subprocess.Popen([*BASE, *args, '-kernel', kernel or guest.path],
                                  stdin=kw.pop('stdin', subprocess.DEVNULL),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)

    def line(self, stream, seconds=20):
        """One line of stdout or stderr."""
        data, end = b'', time.time() + seconds
        while not data.endswith(b'\n') and time.time() < end:
            if select.select([stream], [], [], 0.2)[0]:
                c = os.read(stream.fileno(), 1)
                if not c:
                    break
                data += c
        return data.decode()

    def end(self, sig=None):
        if sig:
            self.p.send_signal(sig)
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            return None
        self.out, self.err = self.p.stdout.read(), self.p.stderr.read().decode()
        return self.p.returncode


def talk(fd, text, seconds=20):
    """Write it to a descriptor, and read until as much has come back."""
    os.write(fd, text)
    data, end = b'', time.time() + seconds
    while len(data) < len(text) and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            piece = os.read(fd, 4096)
            if not piece:
                break
            data += piece
    return data


def sync(fd):
    """Until '~' has come back; whatever came before (the '>' of the start) is gone."""
    got = talk(fd, b'~')
    while got and not got.endswith(b'~'):
        got += os.read(fd, 1)


def connect(where, seconds=20):
    """A connected socket to a path or port."""
    end = time.time() + seconds
    while True:
        s = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        try:
            s.connect(where if isinstance(where, str) else ('127.0.0.1', where))
            return s
        except OSError:
            s.close()
            if time.time() > end:
                raise
            time.sleep(0.02)


TEXT = bytes(range(32, 80)) * 60  # no 'Q'


def unix_server():
    r = Run('-serial', f'unix:{path("s")},server=on,wait=off')
    for i in range(3):
        with connect(path('s')) as s:
            sync(s.fileno())
            got = talk(s.fileno(), TEXT)
            t.ok(got == TEXT, f'unix server: echo, connection {i + 1}', got[:80])
    with connect(path('s')) as s:
        s.send(b'Q')
        t.ok(r.end() == 7, 'unix server: the guest ends', r.p.returncode)
    t.ok(not os.path.exists(path('s')), 'unix server: the socket is removed')


def server_waits():
    r = Run('-chardev', f'socket,id=c,path={path("w")},server=on', '-serial', 'chardev:c')
    line = r.line(r.p.stderr)
    t.ok(line == f'kvasir: chardev c: waiting for connection on: '
         f'disconnected:unix:{path("w")},server=on\n', 'wait=on says what it waits for', line)
    with connect(path('w')) as s:
        got = talk(s.fileno(), b'>')[:1]
        t.ok(got == b'>', 'wait=on: nothing of the output is missing', got)
        s.send(b'Q')
        t.ok(r.end() == 7, 'wait=on: the guest runs then')
    r = Run('-serial', f'unix:{path("w")},server=on')
    r.line(r.p.stderr)
    t.ok(r.end(signal.SIGTERM) == 0, 'wait=on: a signal ends the wait', r.p.returncode)
    t.ok(not os.path.exists(path('w')), 'wait=on: and the socket is removed')


def tcp(kind):
    r = Run('-serial', f'{kind}:127.0.0.1:0,server=on')
    line = r.line(r.p.stderr)
    m = re.search(r':(\d+),server=on$', line)
    if not t.ok(m, f'{kind} server: the port is told', line):
        r.end(signal.SIGKILL)
        return
    with connect(int(m.group(1))) as s:
        if kind == 'telnet':
            start = b'\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00'
            got = s.recv(len(start), socket.MSG_WAITALL)
            t.ok(got == start, 'telnet: what is offered', got)
        t.ok(s.recv(1) == b'>', f'{kind}: output')
        text = b'\xff\xff'.join([b'ab'] * 20) if kind == 'telnet' else bytes(range(96, 256)) * 20
        got = talk(s.fileno(), text)
        t.ok(got == text, f'{kind}: all bytes pass', got[:80])
        second = connect(int(m.group(1)))  # must not disturb
        got = talk(s.fileno(), b'still')
        t.ok(got == b'still', f'{kind}: a second client waits', got)
        second.close()
        s.send(b'Q')
        t.ok(r.end() == 7, f'{kind}: end', r.p.returncode)


def client():
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path('c'))
        s.listen()
        r = Run('-serial', f'unix:{path("c")},reconnect=1')
        for i in range(2):
            peer, _ = s.accept()
            got = talk(peer.fileno(), b'hello') if i else talk(peer.fileno(), b'hello')[:5]
            t.ok(b'hell' in got, f'client: connection {i + 1}', got)
            if i:
                peer.send(b'Q')
                t.ok(r.end() == 7, 'client: end')
            peer.close()
    os.unlink(path('c'))


def passed():
    a, b = socket.socketpair()
    r = Run('-chardev', f'socket,id=c,fd={b.fileno()}', '-serial', 'chardev:c',
            pass_fds=[b.fileno()])
    b.close()
    got = talk(a.fileno(), b'x')
    t.ok(got[:1] == b'>', 'fd=: a connected socket', got)
    a.send(b'Q')
    t.ok(r.end() == 7, 'fd=: end')
    a.close()
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        r = Run('-chardev', f'socket,id=c,fd={s.fileno()},server=on,wait=off', '-serial',
                'chardev:c', pass_fds=[s.fileno()])
        with connect(s.getsockname()[1]) as peer:
            peer.send(b'Q')
            t.ok(r.end() == 7, 'fd=: a listening socket')


def passed_twice():
    """One descriptor for two chardevs: both would read it."""
    a, b = socket.socketpair()
    p = subprocess.run([*BASE, '-chardev', f'socket,id=c,fd={b.fileno()}', '-chardev',
                        f'socket,id=d,fd={b.fileno()}', '-kernel', ender.path], timeout=30,
                       stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[b.fileno()],
                       check=False)
    t.ok(p.returncode == 1 and b'in use by this program already' in p.stderr, 'fd=: twice',
         f'{p.returncode} {p.stderr}')


def terminal():
    r = Run('-serial', f'pty:{path("pty")}')
    line = r.line(r.p.stdout)
    m = re.fullmatch(r'char device redirected to (/dev/pts/\d+) \(label serial0\)\n', line)
    if not t.ok(m and os.readlink(path('pty')) == m.group(1), "pty: QEMU's line, and a link", line):
        r.end(signal.SIGKILL)
        return
    for name in (m.group(1), path('pty')):
        fd = os.open(name, os.O_RDWR | os.O_NOCTTY)
        sync(fd)
        got = talk(fd, TEXT)
        t.ok(got == TEXT, f'pty: echo over {"the link" if name == path("pty") else "the name"}',
             got[:80])
        os.close(fd)
    fd = os.open(path('pty'), os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b'Q')
    t.ok(r.end() == 7 and not os.path.lexists(path('pty')), 'pty: end, the link is gone')
    os.close(fd)
    master, slave = pty.openpty()
    r = Run('-serial', os.ttyname(slave))
    first = os.read(master, 1)
    got = talk(master, b'ab\r\n')
    t.ok(first + got == b'>ab\r\n', '/dev/TTY: a host terminal, raw', got)
    os.write(master, b'Q')
    t.ok(r.end() == 7, '/dev/TTY: end')
    os.close(master)
    os.close(slave)


def fifo():
    for end in ('.in', '.out'):
        os.mkfifo(path('p') + end)
    r = Run('-serial', f'pipe:{path("p")}')
    out = os.open(path('p.out'), os.O_RDONLY)
    t.ok(os.read(out, 1) == b'>', 'pipe: what was written before there was a reader')
    for i in range(2):  # a writer that comes and goes is no end
        with open(path('p.in'), 'wb') as f:
            f.write(b'abc')
        got = b''
        while len(got) < 3:
            got += os.read(out, 3)
        t.ok(got == b'abc', f'pipe: echo {i + 1}', got)
    with open(path('p.in'), 'wb') as f:
        f.write(b'Q')
    t.ok(r.end() == 7, 'pipe: end')
    os.close(out)
    for end in ('.in', '.out'):
        os.unlink(path('p') + end)


def datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 0))
        s.settimeout(20)
        r = Run('-serial', f'udp:127.0.0.1:{s.getsockname()[1]}@127.0.0.1:0')
        data, where = s.recvfrom(100)
        t.ok(data == b'>', 'udp: output', data)
        s.sendto(b'0123456789' * 5, where)
        got = b''
        while len(got) < 50:
            got += s.recv(100)
        t.ok(got == b'0123456789' * 5, 'udp: echo', got)
        s.sendto(b'Q', where)
        t.ok(r.end() == 7, 'udp: end')


def files():
    with open(path('in'), 'wb') as f:
        f.write(b'from a fileQ')
    for append in ('off', 'on'):
        rc = Run('-chardev', f'file,id=c,path={path("out")},append={append},'
                 f'input-path={path("in")},logfile={path("log")},logappend={append}',
                 '-serial', 'chardev:c').end()
        want = b'>from a file' * (2 if append == 'on' else 1)
        got = open(path('out'), 'rb').read(), open(path('log'), 'rb').read()
        t.ok(rc == 7 and got == (want, want), f'file: input-path, logfile, append={append}',
             f'{rc} {got}')


def full_disk():
    """Output that the disk does not take is lost: a warning, and the guest goes on."""
    r = Run('-serial', 'file:/dev/full', kernel=flood.path)
    line = r.line(r.p.stderr)
    t.ok(line == 'kvasir: warning: output to /dev/full: No space left on device; '
         'what does not fit is lost\n', 'file: a full disk is told', line)
    t.ok(r.end(signal.SIGTERM) == 0 and not r.err, 'file: once, and the guest runs', r.err)
    with open(path('limit'), 'wb') as f:
        f.truncate(1 << 30)
    r = Run('-chardev', f'file,id=c,append=on,path={path("limit")}', '-serial', 'chardev:c',
            kernel=flood.path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30)))
    line = r.line(r.p.stderr)
    t.ok('File too large' in line, 'file: the limit of ulimit -f is told', line)
    t.ok(r.end(signal.SIGTERM) == 0, 'file: and kills nobody', r.p.returncode)


def muxed():
    """Two ports on one terminal; C-a c goes from one to the other."""
    with Guest(echo(0x2f8)) as g:
        r = Run('-chardev', 'stdio,id=m,mux=on', '-serial', 'chardev:m', '-serial', 'chardev:m',
                kernel=g, stdin=subprocess.PIPE)
        got = r.p.stdout.read(1)
        r.p.stdin.write(b'for the first\x01csecond')  # only the second port echoes
        r.p.stdin.flush()
        got += r.p.stdout.read(6)
        t.ok(got == b'>second', 'mux: the port in focus gets the keys', got)
        r.p.stdin.write(b'\x01x')
        r.p.stdin.flush()
        t.ok(r.end() == 0 and b'terminated' in r.out, 'mux: C-a x', r.out)


def floods():
    """A guest that writes for ever: with nobody there, with somebody who does not read."""
    r = Run('-serial', f'unix:{path("f")},server=on,wait=off', kernel=flood.path)
    s = connect(path('f'))
    time.sleep(1)
    rss = int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{r.p.pid}/status').read()).group(1))
    t.ok(rss < 120000, 'a peer that does not read: memory is bounded', rss)
    got = s.recv(1000000)
    t.ok(got and not got.strip(b'x'), 'and has its output when it reads', got[:80])
    t.ok(r.end(signal.SIGTERM) == 0, 'and the machine ends', r.p.returncode)
    s.close()


LISTENER = socket.socket()
LISTENER.bind(('127.0.0.1', 0))
LISTENER.listen()
PORT = LISTENER.getsockname()[1]
open(path('file'), 'w').close()
os.mkfifo(path('fifo'))
socket.socket(socket.AF_UNIX).bind(path('socket'))

WRONG = [
    (['-serial', f'tcp:127.0.0.1:{PORT},server=on'], f'127.0.0.1:{PORT}: Address already in use'),
    (['-serial', 'tcp:127.0.0.1:1'], '127.0.0.1:1: Connection refused'),
    (['-serial', 'tcp:192.0.2.1.invalid:1'], '192.0.2.1.invalid'),
    (['-serial', f'unix:{work}/no/s,server=on'], 'No such file'),
    (['-serial', f'unix:{work}/nobody'], 'No such file'),
    (['-serial', f'unix:{path("file")},server=on'], 'is no socket'),
    (['-serial', f'pipe:{work}/nopipe'], 'mkfifo'),
    (['-serial', f'pipe:{path("file")}'], 'is no FIFO'),
    (['-serial', '/dev/nosuch'], '/dev/nosuch: No such file'),
    (['-serial', '/dev/null'], 'no serial line'),
    (['-serial', f'pty:{path("file")}'], 'File exists'),
    (['-serial', 'udp:127.0.0.1:1@192.0.2.77:1'], '192.0.2.77:1'),
    (['-serial', 'vc'], 'not supported'),
    (['-serial', 'tn3270:h:1'], 'not supported'),
    (['-chardev', 'socket,id=a,fd=99'], 'fd=99'),
    (['-chardev', 'socket,id=a,host=h'], 'a port is needed'),
    (['-chardev', 'socket,id=a,path=/x,websocket=on'], 'websocket is not supported'),
    (['-chardev', 'ringbuf,id=a,size=100'], 'power of two'),
    (['-chardev', 'ringbuf,id=a,size=0'], 'power of two'),
    (['-chardev', f'file,id=a,path={work}/out2,input-path={work}/absent'], 'absent: No such file'),
    (['-chardev', f'null,id=a,logfile={work}/no/log'], 'no/log: No such file'),
    (['-chardev', 'null,id=a', '-serial', 'chardev:a', '-serial', 'chardev:a'], 'in use already'),
    (['-device', 'virtio-serial,id=vs', '-device', 'virtserialport,bus=vx.0'],
     'no virtio-serial with the id vx.0'),
    (['-device', 'virtserialport,chardev=nobody'], 'no chardev with the id nobody'),
    (['-device', 'virtserialport,nr=0'], 'port 0 of virtio-serial is for a virtconsole'),
    (['-device', 'virtio-serial,max_ports=99'], '1 to 31'),
    (['-chardev', 'null,id=a', '-device', 'virtconsole,chardev=a', '-device',
      'virtconsole,chardev=a'], 'in use already'),
    (['-serial', f'file:{path("fifo")}'], 'fifo: nobody reads this FIFO yet'),
    (['-serial', f'file:{path("socket")}'], 'socket is a socket'),
    (['-chardev', f'null,id=a,logfile={path("fifo")}'], 'fifo: nobody reads this FIFO yet'),
    (['-parallel', 'stdio'], 'only -parallel none'),
    (['-monitor', 'stdio'], 'only -monitor none'),
]

for f in (unix_server, server_waits, lambda: tcp('tcp'), lambda: tcp('telnet'), client, passed, passed_twice,
          terminal, fifo, datagrams, files, full_disk, muxed, floods):
    f()
for args, says in WRONG:
    rc, out, err = kvasir(*BASE, *args, '-kernel', guest.path, timeout=30)
    t.ok(rc == 1 and says in err and err.count('\n') == 1 and err.startswith('kvasir: ') and
         not out, ' '.join(args).replace('#', '').replace(work, 'DIR'), f'{rc}, "{says}": {err}')
for args in (['-device', 'virtconsole'],
             ['-device', 'virtconsole,'],
             ['-chardev', 'ringbuf,id=r', '-device', 'virtconsole,chardev=r'],
             ['-M', 'pc', '-device', 'virtio-serial-pci,id=vs,max_ports=4', '-device',
              'virtserialport,bus=vs.0,nr=3,name=x', '-device', 'virtconsole,bus=vs'],
             ['-chardev', 'null,id=m,mux=on', '-device', 'virtconsole,chardev=m', '-device',
              'virtconsole,chardev=m'],
             ['-device', 'virtio-serial-device,max_ports=1', '-device', 'virtconsole', '-device',
              'virtserialport,name=second-device']):
    rc = Run(*args, kernel=ender.path).end()
    t.ok(rc == 7, ' '.join(args), rc)
rc, out, err = kvasir(binary, '-chardev', 'help')
t.ok(rc == 0 and b'socket' in out and not err, '-chardev help', f'{rc} {out} {err}')
guest.__exit__()
flood.__exit__()
ender.__exit__()
subprocess.run(['rm', '-rf', work], check=False)
t.end()
