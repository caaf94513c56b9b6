#!/usr/bin/env python3
"""Compare the decoder with objdump: lengths and mnemonics.

usage: decode_objdump.py INSNDUMP [--sample N] [FILE...]

Two corpora: every opcode of every map with each mandatory prefix, W, L and a set of ModRM bytes, in
the three modes (--sample N takes each Nth), and the code of real programs (FILE, default: busybox or
libc, whichever is there). Prints the first differences and exits 1 if there are any that are not
in the lists of exceptions below, each of which has its reason. Exits 77 (skip) without objdump.
"""
import os, re, shutil, subprocess, sys, tempfile

STRIDE = 48  # 16 bytes of instruction, then zeros enough for objdump to get in step again

# Prefixes that objdump prints as words of their own.
PREFIX = re.compile(r'^(?:(?:rep[nez]*|lock|data16|data32|addr16|addr32|cs|ds|es|ss|fs|gs|xacquire|'
                    r'xrelease|notrack|bnd|rex(?:\.[WRXB]+)?|\{vex\}|\{load\}|\{store\})\s+)+')

# Same instruction, other name: objdump's to ours.
NAMES = {
    'movabs': 'mov', 'xlat': 'xlatb', 'sal': 'shl', 'fcompi': 'fcomip', 'fucompi': 'fucomip',
    'icebp': 'int1', 'ljmp': 'jmp', 'lcall': 'call', 'fs': '', 'jmpw': 'jmp', 'callw': 'call',
    'fneni(8087 only)': 'fneni', 'fndisi(8087 only)': 'fndisi', 'fnsetpm(287 only)': 'fnsetpm',
    'prefetchwt1': 'prefetch', 'nopw': 'nop', 'nopl': 'nop', 'retw': 'ret', 'retq': 'ret',
    'leavew': 'leave', 'leaveq': 'leave', 'enterw': 'enter', 'popw': 'pop', 'pushw': 'push',
    'loopw': 'loop', 'lretw': 'retf', 'fwait': 'fwait', 'sysretl': 'sysret', 'sysretd': 'sysret',
    'sysexitl': 'sysexit', 'sysexitd': 'sysexit', 'pclmullqlqdq': 'pclmulqdq',
    'ud2a': 'ud2', 'ud2b': 'ud1', 'pushaw': 'pusha', 'popaw': 'popa', 'pushad': 'pusha',
    'movsxd': 'movsxd', 'rdrandw': 'rdrand', 'sysretq': 'sysret', 'sysexitq': 'sysexit',
    'cvtsi2sd': 'cvtsi2sd', 'fstpnce': 'fstp', 'retfw': 'retf', 'retfq': 'retf',
}
SUFFIXED = {'pushf', 'popf', 'iret', 'pusha', 'popa'}


def normal(mnem):
    """Mnemonic only, without prefixes, sizes and synonyms."""
    m = PREFIX.sub('', mnem.strip())
    m = m.split(None, 1)[0].split('(')[0] if m and m[0] != '(' else m
    m = NAMES.get(m, m)
    m = re.sub(r'^(push|pop|call|jmp|ret|retf|enter|leave|[sl][gi]dt|fldenv|fn?stenv|frstor|fn?save|'
               r'loop)[wdlq]$', r'\1', m)
    m = re.sub(r'^(v?pcmpestr[im])q$', r'\1', m)
    for s in SUFFIXED:
        if re.fullmatch(s + '[wdlq]', m):
            return s
    if re.fullmatch(r'(movs|cmps|stos|lods|scas|ins|outs)[bwdq]', m):
        return m[:-1]
    m = re.sub(r'^(v?cmp)(eq|lt|le|unord|neq|nlt|nle|ord|nge|ngt|false|ge|gt|true)(_[a-z]+)?'
               r'([ps][sd])$', r'\1\4', m)
    m = re.sub(r'^(v?)pclmul[lh]q[lh]qdq$', r'\1pclmulqdq', m)
    return m


def objdump(path, mode):
    arch = {16: 'i8086', 32: 'i386', 64: 'i386:x86-64'}[mode]
    out = subprocess.Popen(['objdump', '-D', '-b', 'binary', '-m', arch, '-M', 'intel,intel64',
                            '--insn-width=16', path], stdout=subprocess.PIPE, text=True,
                           errors='replace')
    for line in out.stdout:
        part = line.rstrip('\n').split('\t')
        if len(part) >= 2 and part[0].endswith(':'):
            yield int(part[0][:-1], 16), len(part[1].split()), part[2] if len(part) > 2 else ''
    out.wait()


def ours(tool, path, mode, stride=None):
    cmd = [tool, str(mode), path] + ([str(stride)] if stride else [])
    out = subprocess.run(cmd, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        addr, length, text, row = line.split('\t')
        yield int(addr, 16), int(length), text, row


def corpus(mode, sample):
    """Encodings, not taken from the table, so that what the table lacks is seen."""
    tail = bytes([0x24, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x19, 0x2a])
    few = [r << 3 | b for r in range(8) for b in (0x03, 0xc1)]
    full = [r << 3 | 3 for r in range(8)] + list(range(0xc0, 0x100))
    count = 0
    legacy = [(b'', 0), (b'\x0f', 1), (b'\x0f\x38', 2), (b'\x0f\x3a', 3)]
    for prefix in (b'', b'\x66', b'\xf3', b'\xf2'):
        for rex in (b'', b'\x48', b'\x45') if mode == 64 else (b'',):
            for escape, m in legacy:
                for op in range(256):
                    if m == 0 and op in (0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67,
                                         0xf0, 0xf2, 0xf3, 0x62, 0xc4, 0xc5, 0x8f):
                        continue
                    if m == 0 and mode == 64 and 0x40 <= op < 0x50:
                        continue
                    if m == 1 and op in (0x38, 0x3a, 0x0f):
                        continue
                    for modrm in full if (m, op) in ((1, 1), (1, 0xae), (1, 0x1e)) or \
                            m == 0 and 0xd8 <= op <= 0xdf else few:
                        count += 1
                        if count % sample == 0:
                            yield prefix + rex + escape + bytes([op, modrm]) + tail
    for m in (1, 2, 3):
        for op in range(256):
            for pp in range(4):
                for wl in range(4):
                    for v in (0, 1):
                        for modrm in few:
                            count += 1
                            if count % sample == 0:
                                yield bytes([0xc4, 0xe0 | m, (wl >> 1) << 7 | (15 - v) << 3 |
                                             (wl & 1) << 2 | pp, op, modrm]) + tail


# Mnemonics that objdump knows and a vCPU never offers: #UD here is right.
ABSENT = re.compile(
    r'^(v[a-z0-9]*\{|k[a-z]+[bwdq]|vm(xon|xoff|ptrld|ptrst|clear|read|write|launch|resume|func|run|'
    r'load|save|gexit)|invept|invvpid|invlpga|invlpgb|tlbsync|stgi|clgi|skinit|getsec|rsm|xabort|'
    r'xbegin|xend|xtest|bnd[a-z]+|rdssp[dq]|incssp[dq]|saveprevssp|rstorssp|wrss[dq]|wruss[dq]|'
    r'setssbsy|clrssbsy|encl[suv]|pconfig|tpause|umonitor|umwait|ptwrite|cldemote|movdir[a-z0-9]+|'
    r'enqcmds?|monitorx|mwaitx|clzero|rdpru|mcommit|psmash|pvalidate|rmp[a-z]+|serialize|xsusldtrk|'
    r'xresldtrk|aes[a-z]*(wide)?(128|256)kl|loadiwkey|encodekey[0-9]+|hreset|clui|stui|testui|uiret|'
    r'senduipi|[a-z]*tile[a-z0-9]*|tdp[a-z0-9]+|vpdp[a-z]+|vpmadd52[a-z]+|prefetchit[01]|'
    r'[a-z]*3dnow|femms|pf[a-z0-9]+|pi2f[dw]|pmulhrw|pswapd|pavgusb|jmpe|cpu_read|cpu_write|'
    r'frstpm|seamops|seamcall|seamret|tdcall|x(store|crypt|sha)[a-z0-9-]*|montmul|sysexit.*|wrmsrns|(rd|wr)msrlist|rdudbg|'
    r'vf[a-z]*(p|s)[sd]4?|v(bcstn|cvtn)[a-z0-9]+|a(add|and|or|xor)|cmp[a-z]+xadd|rao.*|ud[01]|'
    r'vfrcz[a-z]*|vprot[bwdq]|vpsha[bwdq]|vpshl[bwdq]|vpcom[a-z]+|vpcmov|vpperm|vpmac[a-z]+|vphadd.*|'
    r'vphsub.*|bl[cs][a-z]+|t1mskc|tzmsk|l[lw][pw][a-z]+|slwpcb|vpermil2p[sd])$')
# Pairs of (objdump, ours, reason not to worry). The native test (decode_native) is the judge.
LENIENT = [
    (r'xchg', r'nop', '66 90 is "xchg ax,ax" to objdump'),
    (r'\(bad\)', r'fcom|fcomp|fxch|fstp', 'note 6 of insn.def: opcodes no manual lists'),
    (r'\(bad\)', r'[lms]fence', 'ModRM.rm of a fence is ignored'),
    (r'\(bad\)', r'wbinvd|bsf|bsr', 'F2 is ignored'),
    (r'\(bad\)', r'swapgs|rdtscp|vmcall|vmmcall', '66, F2 and F3 are ignored'),
    (r'bnd.*|rdssp[dq]|cldemote|prefetchit.', r'nop', 'note 3: hint NOPs of features not offered'),
    (r'.*', r'fwait', 'objdump joins 9B with the x87 instruction behind it'),
    (r'vzero.*|v(ld|st)mxcsr|v?maskmovdqu|vpextr.*|vmov[lh].*|vinsert.*|vextract.*|vphmin.*',
     r'\(bad\)', 'objdump does not check VEX.vvvv or VEX.pp there'),
    (r'\(bad\)', r'salc', 'objdump does not know D6'),
    (r'vpinsrd|vpextrd', r'\(bad\)', 'W = 1 is #UD outside 64-bit mode: decode_native shows it'),
    (r'vmgexit', r'vmmcall', 'F3 matters to VMMCALL only under SEV-ES'),
    (r'rex.*', r'.*', 'objdump shows a REX that is not before the opcode on a line of its own'),
]


def explained(a, b, data, mode, row, text):
    """a: objdump's mnemonic, b: ours or '(bad)'; True if the difference is meant."""
    legacy = data.lstrip(b'\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65')
    if mode == 64:
        legacy = legacy.lstrip(bytes(range(0x40, 0x50)))
    if b == '(bad)':
        # An operand objdump does not like, or something a vCPU never offers (62, 8F: EVEX, XOP).
        if '(bad)' in text or ABSENT.match(a) or legacy[:1] in (b'\x62', b'\x8f'):
            return True
        # objdump prints LOCK, and prefixes that make #UD, as words of their own.
        if re.match(r'.*\b(lock|data16|repn?z|rex\S*) ', text):
            return True
        # Control, debug and segment registers that do not exist.
        if a == 'mov' and (legacy[:1] in (b'\x8c', b'\x8e') or legacy[:1] == b'\x0f'):
            return True
    return any(re.fullmatch(x, a) and re.fullmatch(y, b) for x, y, _ in LENIENT)


def compare_corpus(tool, mode, sample):
    enc = list(corpus(mode, sample))
    with tempfile.NamedTemporaryFile(suffix='.bin') as f:
        for e in enc:
            f.write(e[:16].ljust(STRIDE, b'\0'))
        f.flush()
        mine = {a: (l, t, r) for a, l, t, r in ours(tool, f.name, mode, STRIDE)}
        return diff(objdump(f.name, mode), mine, lambda a: enc[a // STRIDE][:15], mode)


def diff(dump, mine, data, mode):
    seen, bad = 0, []
    for addr, length, text in dump:
        if addr not in mine:
            continue
        seen += 1
        mylen, mytext, row = mine[addr]
        a, b = normal(text), normal(mytext) if mylen else '(bad)'
        if a == b and (length == mylen or not mylen):
            continue
        if not explained(a, b, data(addr), mode, row, text):
            bad.append((mode, data(addr).hex(' '), a, length, b, mylen, row, text))
    return seen, bad


def text_section(path, out):
    subprocess.run(['objcopy', '-O', 'binary', '-j', '.text', path, out], check=True,
                   stderr=subprocess.DEVNULL)


def compare_file(tool, path):
    with tempfile.NamedTemporaryFile(suffix='.bin') as f:
        text_section(path, f.name)
        code = open(f.name, 'rb').read()
        mine = {a: (l, t, r) for a, l, t, r in ours(tool, f.name, 64)}
        return diff(objdump(f.name, 64), mine, lambda a: code[a:a + 15], 64)


def main():
    args = sys.argv[1:]
    sample = 1
    if '--sample' in args:
        at = args.index('--sample')
        sample = int(args[at + 1])
        del args[at:at + 2]
    tool, files = args[0], args[1:]
    if not shutil.which('objdump') or not shutil.which('objcopy'):
        print('skipped: no objdump (package binutils)')
        return 77
    failed = False
    jobs = [('corpus, %d bit' % m, lambda m=m: compare_corpus(tool, m, sample)) for m in (64, 32, 16)]
    usual = ['/bin/busybox', '/lib/x86_64-linux-gnu/libc.so.6', '/lib64/libc.so.6']
    for path in files or [p for p in usual if os.path.exists(p)][:1]:
        jobs.append((path, lambda p=path: compare_file(tool, p)))
    for name, job in jobs:
        seen, bad = job()
        print('%s: %d instructions, %d differences' % (name, seen, len(bad)))
        for d in bad[:int(os.environ.get('SHOW', '20'))]:
            print('  %d-bit %s: objdump "%s" (%d), here "%s" (%d, row %s): %s' % d)
        failed |= bool(bad) or seen < 1000
    return 1 if failed else 0


sys.exit(main())
