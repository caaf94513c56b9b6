#!/usr/bin/env python3
"""Fail when a class of devices.def has no tests/device/NAME.c. Arguments: devices.def, top, stamp."""
import pathlib
import re
import sys

deff, top, stamp = sys.argv[1:]
names = re.findall(r'^DEVICE\((\w+)\)', pathlib.Path(deff).read_text(), re.M)
missing = [n for n in names if not (pathlib.Path(top) / f'tests/device/{n}.c').exists()]
for n in missing:
    print(f'{deff}: DEVICE({n}) has no tests/device/{n}.c')
if missing or not names:
    sys.exit(1)
pathlib.Path(stamp).write_text('ok\n')
