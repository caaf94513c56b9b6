#!/usr/bin/env python3
"""Run one guest test image and print its results as TAP.

    run.py [--vmm build/kvasir|qemu-system-x86_64] [--accel soft,jit=off] [--smp N] IMAGE

A hard timeout ends a guest that hangs; tests it did not report count as failed. With QEMU's TCG the
tests in TCG_WRONG may fail and are then reported as skipped: there the guest keeps to the manual
and TCG does not. The same holds for the host engine on a KVM whose processor is TCG (--on-tcg).
"""
import argparse
import os
import re
import signal
import subprocess
import sys

# suite -> tests -> what QEMU 7.2's TCG does instead
TCG_WRONG = {
    "long64": {
        "noncanonical_data noncanonical_stack": "accesses at non-canonical addresses walk the page tables",
        "compat_segment_limit": "no limit checks in compatibility mode",
        "far_jump_faults": "a code segment with L and D is accepted",
        "stack_alignment_and_ist": "an IST stack switch nulls ss without a change of privilege",
        "iretq": "a null ss with the wrong RPL is accepted; #NP for a stack segment that is not present",
        "idt_gate_faults idt_gate_dpl double_fault": "error codes for IDT entries count 16 a vector",
        "segment_loads": "a null ss with the wrong RPL is accepted",
        "lar_lsl_verr": "task gates and 16-bit TSSs still exist in long mode",
    },
    "paging64": {
        "matrix_kernel_read matrix_kernel_write matrix_kernel_fetch matrix_user_read matrix_user_write "
        "matrix_user_fetch upper_levels large_pages": "P is clear in the error code of a reserved-bit fault",
        "push_and_string_faults": "a read-modify-write of an absent page faults as a read",
    },
    "syscall64": {
        "syscall_entry": "SYSCALL loses the arithmetic flags",
        "syscall_msr_checks": "non-canonical bases are accepted",
        "sysenter": "SYSENTER works in long mode on an AMD model",
        "fsgsbase": "WRFSBASE takes non-canonical addresses",
    },
    "irq64": {
        "lapic_registers": "an LVT mask bit can be cleared while the APIC is software-disabled",
        "apic_error": "an IPI with vector 5 is delivered",
    },
    "fpu64": {
        "fxrstor_checks": "reserved MXCSR bits are accepted",
        "mf_is_delayed": "only some waiting instructions look for a pending x87 error",
        "mf_environment": "the tag of an unchanged operand",
        "x87_stack": "no stack underflow or overflow",
        "mmx_tags": "MMX writes leave the exponent alone",
        "xm denormals": "SSE exceptions are not raised; no denormal flag",
        "xsave_layout": "no XSAVEOPT init optimisation",
    },
    "except64": {
        "lock_prefix": "LOCK is accepted on several instructions",
        "undefined_opcodes": "VEX after REX is accepted",
        "availability": "#NM before #UD when EM and TS are both set",
        "alignment_check": "no #AC",
        "fault_pushes_rf": "RF is never pushed set",
        "msr_rules": "unknown MSRs and reserved bits are accepted",
        "cpuid_sanity": "57 linear address bits",
    },
    "debug64": {
        "general_detect": "no GD",
        "icebp_and_int3": "INT1 is #UD",
        "mov_ss_breakpoint": "no delay of the trap after MOV SS",
        "step_fault": "RF is never pushed set",
    },
    "multi64": {"cross_modifying_code": "now and then a stale translation is run"},
    "segment32": {
        "limit_bytes limit_pages expand_down types stack_16bit": "no limits and types in data accesses",
        "selector_faults": "a bad LDT selector with a null LDT",
        "call_gate_stack_faults": "#TS for an inner stack that is not present",
    },
    "task32": {
        "faults_in_the_new_task": "#NP for a stack segment that is not present",
        "debug_trap_bit": "the T bit is ignored",
    },
    "real32": {"segments far_transfers strings": "no limit of 64 KiB"},
    "v8632": {"segments": "no limit of 64 KiB"},
    "paging3232": {"four_mib_pages pae_permissions": "P is clear in the error code of a reserved-bit fault"},
}


def tcg_reason(suite, test):
    for names, why in TCG_WRONG.get(suite.removesuffix(".guest"), {}).items():
        if test in names.split():
            return why
    return None


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
    ap.add_argument("--timeout", type=float, default=100)
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
            why = tcg_reason(image, name) if is_tcg(a) else None
            if m.group(1) and why:
                line = f"ok {n} - {name} # SKIP TCG: {why}"
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
