#!/usr/bin/env python3
"""Compiles cuda/*.cu and triton/*.py to the PTX that is committed beside them.

usage: compile.py [NAME...]      needs no GPU: nvcc in $NVCC or on the path for .cu, `pip install triton` for .py

A .cu file may give more flags in its first line, `// nvcc: -lineinfo`; a .py file has a function
`compiled()` that yields (name, PTX). Paths in debug lines are cut to file names, so that the text is the same
from any folder.
"""
import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def tidy(ptx):
    """Drops folders from `.file` lines and from strings, and empty lines at the end."""
    ptx = re.sub(r'(\.file\s+\d+\s+)"[^"]*/([^"/]+)"', r'\1"\2"', ptx)
    return ptx.rstrip() + "\n"


def cuda(source):
    """One .cu through nvcc."""
    first = source.read_text().splitlines()[0]
    flags = first.split("nvcc:")[1].split() if first.startswith("// nvcc:") else []
    if not any(f.startswith("-arch") for f in flags):
        flags.append("-arch=compute_80")
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc") or sys.exit("compile.py: no nvcc: set NVCC")
    out = source.with_suffix(".ptx")
    subprocess.run([nvcc, "-ptx", "-std=c++17", *flags, source.name, "-o", str(out)], check=True, cwd=source.parent)
    out.write_text(tidy(out.read_text()))


def triton(source):
    """The kernels of one Triton file, compiled in a folder of a fixed name: debug sections hold it as bytes."""
    folder = pathlib.Path(tempfile.gettempdir()) / "triton-corpus"
    shutil.copytree(source.parent, folder, dirs_exist_ok=True)
    sys.path.insert(0, str(folder))
    for name, ptx in importlib.import_module(source.stem).compiled():
        (source.parent / f"{name}.ptx").write_text(tidy(ptx))


def main():
    wanted = sys.argv[1:]
    for source in sorted([*HERE.glob("cuda/*.cu"), *HERE.glob("triton/*.py")]):
        if (wanted and source.stem not in wanted) or source.stem == "common":
            continue
        print(source.relative_to(HERE), flush=True)
        cuda(source) if source.suffix == ".cu" else triton(source)


if __name__ == "__main__":
    main()
