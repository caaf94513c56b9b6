#!/usr/bin/env python3
"""Run one guest test image and print its results as TAP.

    run.py [--vmm build/kvasir|qemu-system-x86_64] [--accel soft,jit=off] [--smp N] IMAGE

A hard timeout ends a guest that hangs; tests it did not report count as failed. With QEMU's TCG the
tests in TCG_WRONG are expected to fail: there the guest keeps to the manual and TCG does not.
"""
import argparse
import os
import re
import signal
import subprocess
import sys

# image, test -> what QEMU 7.2's TCG does instead
TCG_WRONG = {
}


def is_tcg(a):
    return a.on_tcg or os.path.basename(a.vmm).startswith("qemu") and a.accel != "kvm"


def command(a, image):
    name = os.path.basename(a.vmm)
    if name.startswith("qemu"):
        cmd = [a.vmm, "-accel", a.accel or "tcg", "-M", "pc", "-cpu", "host" if a.accel == "kvm" else "max",
               "-display", "none", "-nodefaults"]
    else:
        cmd = [a.vmm, "-accel", a.accel or "soft,jit=off", "-M", "microvm", "-display", "none",
               "-nodefaults"]
    return cmd + ["-m", "128", "-smp", str(a.smp), "-no-reboot",
                  "-chardev", "stdio,id=con,signal=off", "-device", "isa-debugcon,iobase=0x403,chardev=con",
                  "-device", "isa-debug-exit,iobase=0x501,iosize=2", "-device", "pc-testdev",
                  "-kernel", image, "-append", f"smp={a.smp} vmm={'tcg' if is_tcg(a) else 'kvm'} only={a.only}"]


def run(cmd, limit):
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         start_new_session=True)
    try:
        out, err = p.communicate(timeout=limit)
        state = f"exit status {p.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, err = p.communicate()
        state = f"no end after {limit} s"
    return out.decode("latin-1"), err.decode("latin-1"), p.returncode, state


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--vmm", default="build/kvasir")
    ap.add_argument("--accel", default="")
    ap.add_argument("--smp", type=int, default=1)
    ap.add_argument("--timeout", type=float, default=60)
    ap.add_argument("--only", default="", help="run only tests whose name contains this")
    ap.add_argument("--on-tcg", action="store_true", help="the host's own processor is QEMU's TCG")
    ap.add_argument("image")
    a = ap.parse_args()
    image = os.path.basename(a.image)
    out, err, rc, state = run(command(a, a.image), a.timeout)

    planned, seen, last, bad = 0, set(), "", False
    for line in out.splitlines():
        m = re.match(r"(not )?ok (\d+) - (\w+)", line)
        if m:
            n, name = int(m.group(2)), m.group(3)
            seen.add(n)
            if m.group(1) and is_tcg(a) and (image, name) in TCG_WRONG:
                line += " # TODO TCG: " + TCG_WRONG[(image, name)]
            elif m.group(1):
                bad = True
        elif line.startswith("1.."):
            planned = int(line[3:])
        elif line.startswith("Bail out!"):
            line = "# " + line
        elif line.startswith("# "):
            last = line[2:] if not line.startswith("# also") else last
        print(line)
    if not planned:
        print("1..1")
        planned = 1
    for n in range(1, planned + 1):
        if n not in seen:
            bad = True
            print(f"not ok {n} - no result; last test begun: {last}; {state}")
    for line in err.splitlines()[:20]:
        print("# stderr:", line)
    if rc not in (1, 3):
        print("#", state)
    return 1 if bad else 0


sys.exit(main())
