"""
What is alarming in a kernel's log, and what the same kernels also print under QEMU.
"""
import re

# Warnings that the same kernels print under QEMU, on its machines without PCI or on any.
KNOWN = [
    'PCI: Fatal: No config space access function found',
    'PCI: System does not support PCI',
    'tsc: Unable to calibrate against PIT',
    r'APIC calibration not consistent with PM-Timer',
    r'mtrr: your CPUs had inconsistent',
    'Unstable clock detected, switching default tracing clock',
    'If you want to keep using the local clock, then add:',
    '"trace_clock=local"',
    'on the kernel command line',
    'hrtimer: interrupt took',  # a loaded host; a guest slowed down by check=on
    'clocksource: timekeeping watchdog on CPU',  # a loaded host
    'clocksource: Long readout interval',  # the same
    'clocksource: +\'',
    'kvasir-status',
    'ACPI: MPS support code is not built-in',  # Debian's kernels with acpi=off
    'smpboot: weird, boot CPU',  # the same
    'PMU not available due to virtualization',
    'ACPI: setting ELCR to',  # in PIC mode, whatever it was
]
ALARM = re.compile(r'Oops|BUG|WARNING:|Call Trace|soft lockup|rcu.*stall|general protection|hung task')


def warnings(log):
    """Lines of "dmesg -r" of level warning or worse that are not known, and whatever alarms."""
    bad = []
    for line in log.decode(errors='replace').splitlines():
        m = re.match(r'<(\d+)>\[ *[\d.]+\] (.*)', line)
        if m and (int(m[1]) & 7) <= 4 and not any(re.search(k, m[2]) for k in KNOWN) \
                or ALARM.search(line):
            bad.append(line)
    return bad
