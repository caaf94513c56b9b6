#!/usr/bin/env python3
"""
kvasir-img next to qemu-img: the same images, outputs and exit statuses; bad images end in one clear
line. Arguments: the kvasir-img binary, and --long for more kinds of images and more damage.
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from tap import Tap

binary = os.path.abspath(sys.argv[1])
long = '--long' in sys.argv
t = Tap()
work = tempfile.mkdtemp(prefix='kvasir-img-')
os.chdir(work)
rng = random.Random(7)


def run(tool, *args, timeout=60):
    """(status, stdout, stderr) with the tool's name taken out."""
    p = subprocess.run([tool, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True,
                       timeout=timeout)
    name = os.path.basename(tool)
    return p.returncode, p.stdout.decode(errors='replace'), \
        p.stderr.decode(errors='replace').replace(name + ':', 'img:')


def kv(*args, **kw):
    return run(binary, *args, **kw)


def qemu(*args, **kw):
    return run('qemu-img', *args, **kw)


def both(name, *args, ignore=()):
    """The same command of both tools: the same status and output."""
    a, b = kv(*args), qemu(*args)
    if '--output=json' in args:
        strip = [[x for x in (json.loads(s) if s.strip() else [])] if s.strip().startswith('[')
                 else json.loads(s or '{}') for s in (a[1], b[1])]
        same = strip[0] == strip[1]
    else:
        lines = [[x for x in s.splitlines() if not x.startswith(ignore or '\0')]
                 for s in (a[1], b[1])]
        same = lines[0] == lines[1]
    t.ok(a[0] == b[0] and same, name, f'kvasir-img: {a}\nqemu-img: {b}')


def pattern(size):
    """Sectors of random bytes, of one byte, and holes."""
    out = bytearray()
    while len(out) < size:
        n = rng.randrange(1, 200) * 512
        kind = rng.randrange(4)
        out += bytes(n) if kind < 2 else rng.randbytes(n) if kind == 2 else \
            bytes([rng.randrange(1, 256)]) * n
    return bytes(out[:size])


def write(path, data):
    with open(path, 'wb') as f:
        f.write(data)


def qemu_io(image, *commands):
    args = [x for c in commands for x in ('-c', c)]
    p = subprocess.run(['qemu-io', '-f', 'qcow2', *args, image], capture_output=True)
    if p.returncode or b'rror' in p.stdout + p.stderr:
        raise RuntimeError(f'qemu-io {commands}: {p.stdout + p.stderr}')


# ---- Images of each kind, in both directions ---------------------------------------------------------

SIZE = 3 << 20
write('ref.raw', pattern(SIZE))
write('base.raw', pattern(SIZE - 70144))
write('odd.raw', pattern(SIZE - 70000))
kinds = [f'compat=1.1,cluster_size={c}' for c in (512, 4096, 65536, 2 << 20)]
kinds += ['compat=0.10', 'compat=0.10,cluster_size=1024', 'lazy_refcounts=on',
          'extended_l2=on', 'extended_l2=on,cluster_size=16384', 'compression_type=zstd',
          'data_file=ext.raw', 'data_file=ext.raw,data_file_raw=on',
          'preallocation=metadata', 'preallocation=falloc', 'preallocation=full']
kinds += [f'refcount_bits={1 << n}' for n in range(7)]
if long:
    kinds += [f'cluster_size={c},refcount_bits={1 << n}' for c in (512, 8192) for n in range(7)]
for o in kinds:
    if os.path.exists('ext.raw'):
        os.unlink('ext.raw')
    a = qemu('convert', '-f', 'raw', '-O', 'qcow2', '-o', o, 'ref.raw', 'q.qcow2')
    b = kv('convert', '-f', 'qcow2', '-O', 'raw', 'q.qcow2', 'back.raw')
    t.ok(not a[0] and not b[0] and open('back.raw', 'rb').read() == open('ref.raw', 'rb').read(),
         f'read what qemu-img wrote: {o}', f'{a}\n{b}')
    for compressed in ([], ['-c']) if 'data_file' not in o and 'prealloc' not in o else ([],):
        if os.path.exists('ext.raw'):
            os.unlink('ext.raw')
        a = kv('convert', '-f', 'raw', '-O', 'qcow2', *compressed, '-o', o, 'ref.raw', 'k.qcow2')
        b = qemu('check', 'k.qcow2')
        c = qemu('compare', '-f', 'qcow2', '-F', 'raw', 'k.qcow2', 'ref.raw')
        t.ok(not a[0] and not b[0] and not c[0],
             f'qemu-img reads what was written: {" ".join(compressed)} {o}', f'{a}\n{b}\n{c}')
for c in (['-c'], ['-W'], ['-m', '1'], ['-S', '0'], ['-S', '64k'], ['-t', 'none'], ['-p']):
    a = kv('convert', '-O', 'qcow2', *c, 'ref.raw', 'k.qcow2')
    t.ok(not a[0] and not qemu('check', 'k.qcow2')[0] and
         not qemu('compare', 'k.qcow2', 'ref.raw')[0], f'convert {" ".join(c)}', a)
a = kv('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'odd.raw', 'k.qcow2')
t.ok(not a[0], 'convert -n into an image with content', a)
write('joined.raw', open('odd.raw', 'rb').read().ljust(SIZE - 69632, b'\0') +
      open('ref.raw', 'rb').read()[SIZE - 69632:])
a = qemu('compare', 'k.qcow2', 'joined.raw')
t.ok(not a[0], 'the part behind the source stays', a)

# ---- Chains, what qemu-io writes, outputs -------------------------------------------------------------

shutil.copy('base.raw', 'b.raw')
a = kv('create', '-f', 'qcow2', '-b', 'b.raw', '-F', 'raw', 'mid.qcow2')
a2 = kv('create', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', '-o', 'cluster_size=4k',
        'top.qcow2', '4M')
t.ok(not a[0] and not a2[0], 'create a chain', f'{a}\n{a2}')
qemu_io('mid.qcow2', 'write -P 1 0 100k', 'write -z 1M 256k', 'write -P 9 2M 3k')
qemu_io('top.qcow2', 'write -P 2 40k 50k', 'write -z -u 1100k 64k', 'discard 0 64k',
        'write -P 7 3500k 64k', 'write -c -P 3 512k 4k', 'write -c -P 4 516k 4k')
both('compare a chain with itself', 'compare', 'top.qcow2', 'top.qcow2')
for image in ('top.qcow2', 'mid.qcow2', 'b.raw'):
    both(f'info {image}', 'info', image)
    both(f'info --output=json {image}', 'info', '--output=json', '--backing-chain', image)
    both(f'map --output=json {image}', 'map', '--output=json', image)
    both(f'check --output=json {image}', 'check', '--output=json', image)
both('map', 'map', 'mid.qcow2')
both('map of compressed clusters', 'map', 'top.qcow2')
both('check', 'check', 'top.qcow2')
both('info -U --backing-chain', 'info', '-U', '--backing-chain', 'top.qcow2')
os.mkdir('sub')
kv('create', '-f', 'qcow2', '-b', '../mid.qcow2', '-F', 'qcow2', 'sub/rel.qcow2')
both('a relative backing name', 'info', 'sub/rel.qcow2')
both('its content', 'compare', 'sub/rel.qcow2', 'mid.qcow2')
a, b = kv('convert', '-O', 'raw', 'top.qcow2', 'k.raw'), qemu('convert', '-O', 'raw', 'top.qcow2',
                                                              'q.raw')
t.ok(not a[0] and not b[0] and open('k.raw', 'rb').read() == open('q.raw', 'rb').read(),
     'convert a chain to raw', f'{a}\n{b}')
for o in ('', 'cluster_size=4k', 'extended_l2=on', 'refcount_bits=1'):
    both(f'measure -O qcow2 {o}', 'measure', '-O', 'qcow2', *(['-o', o] if o else []), 'k.raw',
         ignore='bitmaps')
    both(f'measure --size {o}', 'measure', '-O', 'qcow2', *(['-o', o] if o else []), '--size', '7G')
both('compare: difference', 'compare', 'k.raw', 'ref.raw')
both('compare -s', 'compare', '-s', 'k.raw', 'mid.qcow2')

# ---- Snapshots, resize, rebase, commit ----------------------------------------------------------------

shutil.copy('k.raw', 's0.raw')
kv('convert', '-O', 'qcow2', '-o', 'cluster_size=4k', 's0.raw', 's.qcow2')
t.ok(not kv('snapshot', '-c', 'first', 's.qcow2')[0], 'snapshot -c')
qemu_io('s.qcow2', 'write -P 5 0 300k')
t.ok(not qemu('snapshot', '-c', 'second', 's.qcow2')[0], 'qemu-img adds one')
qemu_io('s.qcow2', 'write -P 6 100k 300k')
both('snapshot -l', 'snapshot', '-l', 's.qcow2')
both('info with snapshots', 'info', '--output=json', 's.qcow2')
both('check with snapshots', 'check', 's.qcow2')
kv('convert', '-l', 'first', '-O', 'raw', 's.qcow2', 's1.raw')
t.ok(open('s0.raw', 'rb').read() == open('s1.raw', 'rb').read(), 'convert -l')
a = kv('snapshot', '-a', 'first', 's.qcow2')
t.ok(not a[0] and not qemu('compare', 's.qcow2', 's0.raw')[0] and not qemu('check', 's.qcow2')[0],
     'snapshot -a', a)
a = kv('snapshot', '-d', 'first', 's.qcow2')
t.ok(not a[0] and not qemu('check', 's.qcow2')[0], 'snapshot -d', a)
a = qemu('snapshot', '-a', 'second', 's.qcow2')
t.ok(not a[0] and not qemu('check', 's.qcow2')[0], 'qemu-img applies the other', a)
both('snapshot -d of none', 'snapshot', '-d', 'nope', 's.qcow2')
for size in ('+1M', '10M', '--shrink 2M', '+0'):
    args = size.split()
    a = kv('resize', *args[:-1], 's.qcow2', args[-1])
    b = qemu('check', 's.qcow2')
    t.ok(not a[0] and not b[0], f'resize {size}', f'{a}\n{b}')
t.ok(json.loads(qemu('info', '--output=json', 's.qcow2')[1])['virtual-size'] == 2 << 20,
     'the size is right')
both('resize to less', 'resize', '-q', 's.qcow2', '1M')
qemu('convert', '-O', 'raw', 'top.qcow2', 'top.raw')
a = kv('rebase', '-b', 'b.raw', '-F', 'raw', 'top.qcow2')
t.ok(not a[0] and not qemu('check', 'top.qcow2')[0] and not qemu('compare', 'top.qcow2', 'top.raw')[0],
     'rebase to the base', a)
a = kv('commit', 'top.qcow2')
t.ok(not a[0] and not qemu('compare', 'b.raw', 'top.raw')[0] and not qemu('check', 'top.qcow2')[0],
     'commit', a)
t.ok(not qemu('compare', 'top.qcow2', 'top.raw')[0], 'the emptied overlay shows it')
a = kv('rebase', '-u', '-b', '', 'top.qcow2')
t.ok(not a[0] and 'backing' not in qemu('info', 'top.qcow2')[1], 'rebase -u -b ""', a)

# a source that ends within a cluster of the target
write('odd.raw', os.urandom(100000))
for size in (100000, 99840, 1):
    both(f'measure of {size} bytes', 'measure', '-O', 'qcow2', '--size', size)
both('measure of an odd raw image', 'measure', '-O', 'raw', 'odd.raw')
both('measure of an odd raw image as qcow2', 'measure', '-O', 'qcow2', 'odd.raw')
a = kv('convert', '-c', '-O', 'qcow2', '-o', 'size=1M', 'odd.raw', 'odd.qcow2')
b = qemu('compare', 'odd.raw', 'odd.qcow2'), qemu('check', 'odd.qcow2')
t.ok(not a[0] and not b[0][0] and not b[1][0], 'convert -c to a larger disk', f'{a}\n{b}')
kv('create', '-f', 'qcow2', 'tail.qcow2', '1M')
qemu_io('tail.qcow2', 'write -P 5 0 1M')
for _ in range(2):
    a = kv('convert', '-n', '-c', '-O', 'qcow2', 'odd.raw', 'tail.qcow2')
qemu('convert', '-O', 'raw', 'tail.qcow2', 'tail.raw')
b = qemu('check', 'tail.qcow2')
want = open('odd.raw', 'rb').read()
want += bytes(-len(want) % 512)
t.ok(not a[0] and not b[0] and open('tail.raw', 'rb').read() == want + b'\5' * ((1 << 20) - len(want)),
     'convert -n -c keeps what lies behind the source', f'{a}\n{b}')

kv('create', '-f', 'qcow2', 'bench.qcow2', '16M')
for args in ('-w -c 500 -d 8 --flush-interval=50', '-c 500 -d 8', '-w -c 100 -d 4 -s 70000'):
    a = kv('bench', '-f', 'qcow2', *args.split(), 'bench.qcow2')
    b = qemu('check', 'bench.qcow2')
    t.ok(not a[0] and 'Run completed' in a[1] and not b[0], f'bench {args}', f'{a}\n{b}')


def peak(*args):
    """Status, and the most memory it used, MiB."""
    p = subprocess.Popen([binary, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, use = os.wait4(p.pid, 0)
    return status, use.ru_maxrss >> 10


# many requests at a time for clusters that have to be uncompressed or copied as a whole
with open('spots.raw', 'wb') as f:
    for i in range(100):
        f.seek(i << 21)
        f.write(os.urandom(4096))
    f.truncate(200 << 20)
kv('convert', '-c', '-O', 'qcow2', '-o', 'cluster_size=2M', 'spots.raw', 'spots.qcow2')
kv('create', '-f', 'qcow2', '-o', 'cluster_size=2M', '-b', 'spots.raw', '-F', 'raw', 'spots.cow')
few = peak('bench', '-c', '100', '-d', '1', '-S', '2M', 'spots.qcow2')
for name, args in (('reads of compressed clusters', ['spots.qcow2']), ('copies on write', ['-w', 'spots.cow'])):
    a = peak('bench', '-c', '100', '-d', '100', '-S', '2M', *args)
    t.ok(not a[0] and not few[0] and a[1] < few[1] + 80, f'memory is bounded: {name}', f'{few} {a} MiB')
both('compare after copies', 'compare', '-F', 'raw', 'spots.qcow2', 'spots.raw')

# blocks of 4 KiB, with O_DIRECT, around an end that is none: no byte behind it gets into the image
write('lp', bytes(8 << 20))
write('behind', b'\x55' * 65536)
p = run('losetup', '-b', '4096', '--show', '-f', 'lp')
if p[0]:
    t.skip('a device of 4096-byte blocks', 'no loop device')
else:
    disk = p[1].strip()
    kv('create', '-f', 'qcow2', '-o', 'cluster_size=512', '-b', f'{work}/behind', '-F', 'raw', disk, '33280')
    kv('bench', '-t', 'none', '-w', '-f', 'qcow2', '-s', '512', '-c', '1', '-o', '32768', disk)
    a = (kv('rebase', '-f', 'qcow2', '-b', '', disk), kv('resize', '-f', 'qcow2', disk, '64K'),
         kv('convert', '-f', 'qcow2', '-O', 'raw', disk, 'behind.raw'), qemu('check', '-f', 'qcow2', disk))
    t.ok(not any(x[0] for x in a) and not any(open('behind.raw', 'rb').read()[33280:]),
         'a device of 4096-byte blocks: nothing from behind the end', a)
    run('losetup', '-d', disk)

# ---- Bad input: one clear line, status 1, nothing written ----------------------------------------------


def clear(name, *args, status=1, mention=''):
    r, out, err = kv(*args)
    first = err.splitlines()[0] if err else ''
    t.ok(r == status and first.startswith('img: ') and mention in err, name, (r, out, err))


kv('create', '-f', 'qcow2', '-b', 'loop2.qcow2', '-F', 'qcow2', '-u', 'loop1.qcow2', '1M')
kv('create', '-f', 'qcow2', '-b', 'loop1.qcow2', '-F', 'qcow2', '-u', 'loop2.qcow2', '1M')
kv('create', '-f', 'qcow2', '-b', 'self.qcow2', '-F', 'qcow2', '-u', 'self.qcow2', '1M')
kv('create', '-f', 'qcow2', '-b', 'gone.qcow2', '-F', 'qcow2', '-u', 'miss.qcow2', '1M')
clear('a chain that is a circle', 'map', 'loop1.qcow2')
clear('info of a circle', 'info', '--backing-chain', 'loop1.qcow2', mention='infinite')
clear('an image that is its own backing file', 'map', 'self.qcow2')
write('deep0', bytes(65536) + b'\x09' * 65536 + bytes(1 << 20))
for i in range(1, 201):
    kv('create', '-q', '-f', 'qcow2', '-u', '-b', f'deep{i - 1}', '-F', 'qcow2' if i > 1 else 'raw', f'deep{i}',
       '1M')
a = kv('convert', '-O', 'raw', 'deep199', 'deep.raw')
b = kv('bench', '-f', 'qcow2', '-w', '-c', '20', '-d', '4', '-s', '5000', 'deep199')
t.ok(not a[0] and not b[0] and open('deep.raw', 'rb').read()[65530:65540] == bytes(6) + b'\x09' * 4,
     'a chain as deep as is allowed is read and written', f'{a}\n{b}')
clear('a deeper chain', 'map', 'deep200', mention='longer than')
clear('a missing backing file', 'map', 'miss.qcow2', mention='gone.qcow2')
clear('a missing image', 'info', 'nothing', mention='nothing')
clear('a folder', 'info', '.', mention='irectory')
clear('convert of a missing image', 'convert', '-O', 'qcow2', 'nothing', 'out.qcow2')
t.ok(not os.path.exists('out.qcow2'), 'and nothing is made')
clear('an unknown command', 'frob', mention='frob')
clear('dd', 'dd', 'if=a', mention='not supported')
clear('an unknown format', 'create', '-f', 'vmdk', 'x', '1M', mention='vmdk')
clear('an unknown option', 'create', '-f', 'qcow2', '-o', 'foo=1', 'x', '1M', mention='foo')
clear('a bad size', 'create', '-f', 'qcow2', 'x', '1X')
clear('no size', 'create', '-f', 'qcow2', 'x')
clear('encryption', 'create', '-f', 'qcow2', '-o', 'encrypt.format=luks', 'x', '1M', mention='encr')
clear('a bad cluster size', 'create', '-f', 'qcow2', '-o', 'cluster_size=3000', 'x', '1M')
clear('a backing file without a format', 'create', '-f', 'qcow2', '-b', 'b.raw', 'x')
clear('no such folder', 'create', '-f', 'qcow2', 'no/x', '1M')
clear('check of raw', 'check', '-f', 'raw', 'ref.raw', status=63)
t.ok(not os.path.exists('x'), 'no refused image was made')
kv('create', '-f', 'qcow2', 'twin.qcow2', '1M')
os.symlink('twin.qcow2', 'twin2.qcow2')
clear('an image that would be its own backing file, by another name', 'create', '-f', 'qcow2', '-b',
      './twin.qcow2', '-F', 'qcow2', 'twin2.qcow2', mention='same')
clear('convert onto itself', 'convert', '-O', 'qcow2', 'ref.raw', 'ref.raw', mention='both')

# every field of the header, with values that are wrong, large or larger
fields = {'magic': (0, 4), 'version': (4, 4), 'backing offset': (8, 8), 'backing length': (16, 4),
          'cluster bits': (20, 4), 'size': (24, 8), 'encryption': (32, 4), 'L1 size': (36, 4),
          'L1 offset': (40, 8), 'refcount table': (48, 8), 'its clusters': (56, 4),
          'snapshots': (60, 4), 'snapshot table': (64, 8), 'incompatible': (72, 8),
          'refcount order': (96, 4), 'header length': (100, 4)}
kv('create', '-f', 'qcow2', '-b', 'ref.raw', '-F', 'raw', 'good.qcow2')
qemu_io('good.qcow2', 'write -P 1 0 1M')
kv('snapshot', '-c', 'one', 'good.qcow2')
good = open('good.qcow2', 'rb').read()


def damaged(name, data, note=''):
    """Every command survives it: a status below 64 without a signal, and text when it is not 0."""
    write('bad.qcow2', data)
    bad = []
    for args in (['info'], ['map', '--output=json'], ['check'], ['check', '-r', 'all'],
                 ['convert', '-O', 'raw'], ['snapshot', '-c', 'x'], ['resize', '-q']):
        more = ['bad.raw'] if args[0] == 'convert' else ['+1M'] if args[0] == 'resize' else []
        try:
            r, out, err = kv(*args, 'bad.qcow2', *more, timeout=30)
        except subprocess.TimeoutExpired:
            bad.append((args, 'no end'))
            continue
        if r < 0 or r > 63 or (r and not err and not out):
            bad.append((args, r, out, err))
        if os.path.exists('bad.raw') and os.path.getsize('bad.raw') > 1 << 40:
            os.unlink('bad.raw')
    return bad


for name, (off, n) in fields.items():
    bad = []
    for v in (0, 1, 0x7fffffff, (1 << 8 * n) - 1, 1 << (8 * n - 1), 0x10000, 0x1ff):
        if name == 'size' and v > 1 << 40:
            continue  # a sparse disk of that size is valid, and converting it takes a while
        v &= (1 << 8 * n) - 1
        data = good[:off] + v.to_bytes(n, 'big') + good[off + n:]
        bad += [(hex(v), x) for x in damaged(name, data)]
    t.ok(not bad, f'a wrong header: {name}', bad)
bad = []
for cut in (0, 3, 71, 103, 511, 65536, 65600, 131072, 200000, len(good) - 65536, len(good) - 1):
    bad += [(cut, x) for x in damaged('cut', good[:cut])]
t.ok(not bad, 'truncated images', bad)
bad = []
for i in range(100 if long else 12):
    data = bytearray(good)
    for _ in range(rng.randrange(1, 8)):
        # the header, or tables: what is not guest data
        at = rng.choice((rng.randrange(200), rng.randrange(65536, 65536 * 5)))
        data[at] ^= 1 << rng.randrange(8)
    bad += [(i, x) for x in damaged('flip', bytes(data))]
t.ok(not bad, 'bit flips in metadata', bad)
bad = []
l1 = struct.unpack('>Q', good[40:48])[0]
l2 = struct.unpack('>Q', good[l1:l1 + 8])[0] & 0xfffffffffffe00
rt = struct.unpack('>Q', good[48:56])[0]
rb = struct.unpack('>Q', good[rt:rt + 8])[0]
for at in (l1, l2, rt):
    for v in (1, 0x200, 0, rb, rt, l1, l2, 1 << 55, 0xffffffffffffffff, 1 << 62, 3 << 62):
        for flag in (0, 1 << 63):
            data = good[:at] + ((v | flag) & ((1 << 64) - 1)).to_bytes(8, 'big') + good[at + 8:]
            bad += [(at, hex(v), x) for x in damaged('entry', data)]
t.ok(not bad, 'table entries that point to wrong places', bad)
table = bytearray(48)
table[1] = 9
table[2:9] = b'future!'
data = good[:72] + (1 << 9).to_bytes(8, 'big') + good[80:]
at = struct.unpack('>I', data[100:104])[0]
while data[at:at + 4] not in (b'\x68\x03\xf8\x57', bytes(4)):
    at += 8 + (struct.unpack('>I', data[at + 4:at + 8])[0] + 7) // 8 * 8
data = data[:at + 8] + bytes(table) + data[at + 8 + 48:]
write('future.qcow2', data)
clear('an unknown feature, by its name in the image', 'map', 'future.qcow2', mention="'future!'")

# what check must find, and repair or go on finding
kv('create', '-f', 'qcow2', '-o', 'extended_l2=on', 'sub.qcow2', '4M')
qemu_io('sub.qcow2', 'write -P 1 0 128k')
sub = open('sub.qcow2', 'rb').read()
sub_l2 = struct.unpack('>Q', sub[(at := struct.unpack('>Q', sub[40:48])[0]):at + 8])[0] & 0xfffffffffffe00
for name, data, at, bit, mended in (
        ('a reserved bit in the refcount table', good, rt + 15, 1, True),
        ('a subcluster allocated in an entry without a cluster', sub, sub_l2 + 20 * 16 + 15, 1, False)):
    bad = bytearray(data)
    bad[at] |= bit
    write('bad.qcow2', bad)
    a, b = kv('check', 'bad.qcow2'), qemu('check', 'bad.qcow2')
    c = kv('check', '-r', 'all', 'bad.qcow2'), qemu('check', 'bad.qcow2')
    t.ok(a[0] == b[0] == 2 and c[0][0] == c[1][0] == (0 if mended else 2), f'check finds {name}', f'{a}\n{b}\n{c}')

# tables that are made to be walked for ever
def evil(name, chunks, length, l1=2, rt_clusters=1, rt=0x10000, snapshots=0, autoclear=0, ext=b''):
    with open(name, 'wb') as f:
        f.write(struct.pack('>IIQIIQIIQQIIQQQQII', 0x514649fb, 3, 0, 0, 16, 1 << 30, 0, l1, 0x1000000, rt,
                            rt_clusters, snapshots, 0x3000000, 0, 0, autoclear, 4, 104) + ext)
        for at, data in chunks:
            f.seek(at)
            f.write(data)
        f.truncate(length)


def entries(v, n):
    return struct.pack('>Q', v) * n


def snap(i, l1):
    return struct.pack('>QIHHIIQII', l1, 1 << 22, 2, 2, 0, 0, 0, 0, 16) + bytes(16) + b'%02dxx\0\0\0\0' % (i % 100)


one_block = [(0x10000, entries(0x20000, 1)), (0x20000, b'\0\1' * 32768)]
evil('evil1', [(0x100000, entries(0x20000, 64 * 8192)), one_block[1]], 0x1100000, rt=0x100000, rt_clusters=64)
evil('evil2', one_block + [(0x30000, entries(1 << 63 | 0x800000, 8192)), (0x1000000, entries(0x30000, 1 << 22))],
     0x4000000, l1=1 << 22)
evil('evil3', one_block + [(0x3000000, b''.join(snap(i, 0x4000000 + (3999 - i) * 65536) for i in range(4000)))],
     0x4000000 + 4000 * 65536 + (32 << 20), snapshots=4000)
evil('evil4', one_block + [(0x50000, struct.pack('>QIIBBHI', 0x2000000, 1 << 27, 0, 1, 16, 0, 0))],
     0x2000000 + (1 << 30), autoclear=1, ext=struct.pack('>IIIIQQQ', 0x23852875, 24, 1, 0, 24, 0x50000, 0))
for i, what in enumerate(('one refcount block for all', 'one L2 table for all', 'L1 tables one over the other',
                          'a bitmap of 1 GiB of entries'), 1):
    bad = []
    for args in (['check', '-q'], ['bench', '-w', '-c', '1'], ['snapshot', '-c', 'x'], ['check', '-q', '-r', 'all']):
        try:
            r, out, err = kv(*args, f'evil{i}', timeout=30)
            bad += [(args, r)] if r < 0 else []
        except subprocess.TimeoutExpired:
            bad.append((args, 'no end'))
    t.ok(not bad, f'an image that takes for ever: {what}', bad)

# a write that would hit metadata: refused, noted in the image, and repaired
data = good[:l2] + ((1 << 63) | rb).to_bytes(8, 'big') + good[l2 + 8:]
write('bad.qcow2', data)
a = kv('bench', '-f', 'qcow2', '-w', '-c', '1', '-d', '1', 'bad.qcow2')
b = qemu('info', 'bad.qcow2')
t.ok(a[0] == 1 and 'refcount block' in a[2] and 'corrupt: true' in b[1],
     'a write that would hit a refcount block marks the image corrupt', f'{a}\n{b}')
clear('it is not opened for writing again', 'bench', '-w', '-c', '1', 'bad.qcow2', mention='corrupt')

# persistent bitmaps: kept by readers, stale after a write
kv('create', '-f', 'qcow2', 'bm.qcow2', '4M')
if qemu('bitmap', '--add', 'bm.qcow2', 'b0')[0] == 0:
    kv('convert', '-O', 'raw', 'bm.qcow2', 'bm.raw')
    a = kv('check', 'bm.qcow2')
    t.ok(not a[0] and 'b0' in qemu('info', 'bm.qcow2')[1], 'bitmaps stay when nothing is written', a)
    a = kv('bench', '-f', 'qcow2', '-w', '-c', '1', 'bm.qcow2')
    b = qemu('check', 'bm.qcow2')
    t.ok(not a[0] and 'b0' not in qemu('info', 'bm.qcow2')[1] and b[0] in (0, 3),
         'and are gone after a write', f'{a}\n{b}')
    t.ok(not kv('check', '-r', 'all', 'bm.qcow2')[0] and not qemu('check', 'bm.qcow2')[0],
         'their space is repaired')

# leaks and errors: the statuses of check, and both repair them
for name, at, value, status in (('leak', rb + 2 * (len(good) // 65536 + 20), 1, 3),
                                ('error', rb + 2 * (l2 // 65536), 0, 2)):
    data = good[:at] + value.to_bytes(2, 'big') + good[at + 2:]
    if name == 'leak':
        data = data.ljust((len(good) // 65536 + 21) * 65536, b'\0')
    write('bad.qcow2', data)
    both(f'check finds a {name}', 'check', 'bad.qcow2')
    both(f'check --output=json of a {name}', 'check', '--output=json', 'bad.qcow2')
    t.ok(kv('check', 'bad.qcow2')[0] == status, f'{name}: status {status}')
    a = kv('check', '-r', 'all', 'bad.qcow2')
    b = qemu('check', 'bad.qcow2')
    t.ok(not a[0] and not b[0], f'check -r all repairs a {name}', f'{a}\n{b}')

os.chdir('/')
shutil.rmtree(work)
t.end()
