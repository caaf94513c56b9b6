#!/usr/bin/env python3
"""Compile one guest test image: mkguest.py BITS CC OUT SOURCE... (a multiboot-1 ELF32 kernel)."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = ("-std=gnu11 -O1 -g0 -ffreestanding -nostdlib -static -fno-pic -fno-pie -fno-stack-protector "
         "-fno-asynchronous-unwind-tables -fcf-protection=none -mno-red-zone -mgeneral-regs-only "
         "-fno-strict-aliasing -fno-omit-frame-pointer -Wall -Wextra -Wno-unused-parameter "
         "-Wno-unknown-warning-option -Wno-array-bounds -Wno-clobbered -Werror -fno-builtin -fno-toplevel-reorder").split()


def main():
    bits, cc, out, *sources = sys.argv[1:]
    lib = os.path.join(HERE, "lib")
    names = ["lib.c", "trap.c", f"start{bits}.S", f"trap{bits}.S"] + (["smp.c"] if bits == "64" else [])
    cmd = cc.split() + FLAGS + [f"-m{bits}", f"-DGUEST{bits}", "-I", lib]
    cmd += [os.path.join(lib, n) for n in names] + sources
    cmd += ["-no-pie", "-Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments",
            "-Wl,-T," + os.path.join(lib, "guest.ld"), "-o", out + ".elf"]
    subprocess.run(cmd, check=True)
    subprocess.run(["objcopy", "-O", "elf32-i386", out + ".elf", out], check=True)


main()
