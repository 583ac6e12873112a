#!/usr/bin/env bash
# Power may fail at any moment: each snapshot's files are written, then synced, then the folder renamed, then the folder
# above synced, in that order, as the system calls tell.
#
# Needs RINGTAPE (the program) and strace.
# apt: strace
set -euo pipefail
: "${RINGTAPE:?set RINGTAPE to the program}"
fail() { echo "fsync_order: $*" >&2; exit 1; }
command -v strace > /dev/null || fail "needs strace (apt install strace)"
PYTHON=${PYTHON:-python3}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for _ in $(seq 200); do echo "the cat sat on the mat; the dog sat on the log."; done > my.txt
"$RINGTAPE" -q data pack my.txt
strace -f -y -qq -e trace=write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2 -s 0 -o trace \
    "$RINGTAPE" -q train --set data.path=my.rtd --set model.layers=1 --set model.dim=16 --set model.heads=2 \
    --set model.context=8 --set batch_size=4 --set eval_every=0 --set snapshot_every=1 --steps 3 --out run > /dev/null

"$PYTHON" - trace << 'PY'
import re, sys

# Each line: "PID call(FD<path>, …) = result"; a call that another thread interrupted stands in two lines.
events, open_calls = [], {}
for line in open(sys.argv[1]):
    pid, rest = line.split(None, 1)
    if "<unfinished" in rest:
        open_calls[pid] = rest.split("<unfinished")[0]
        continue
    resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
    if resumed:
        rest = open_calls.pop(pid, "") + resumed.group(1)
    if re.match(r"(write|pwrite64|writev)\(", rest):
        kind = "write"
    elif re.match(r"(fsync|fdatasync)\(", rest):
        kind = "sync"
    elif rest.startswith("rename"):
        kind = "rename"
    else:
        continue
    if kind == "rename":
        names = re.findall(r'"([^"]*)"', rest)
        events.append((kind, names))
    else:
        path = re.search(r"\(\d+<([^>]*)>", rest)
        events.append((kind, path.group(1) if path else ""))

renames = [(i, e[1]) for i, e in enumerate(events) if e[0] == "rename" and re.search(r"step-\d+$", e[1][-1])]
assert len(renames) == 3, f"3 snapshots are renamed into place, seen {renames}"
for at, (source, target) in renames:
    step = target.rsplit("/", 1)[-1]
    files = ["model.safetensors", "optimizer.safetensors", "state.bin"]
    of = lambda kind, path: [i for i, e in enumerate(events) if e[0] == kind and isinstance(e[1], str) and e[1].endswith(path)]
    folder = source.rsplit("/", 1)[-1]
    for file in files:
        writes, syncs = of("write", f"{folder}/{file}"), of("sync", f"{folder}/{file}")
        assert writes and syncs, f"{step}/{file}: {len(writes)} writes and {len(syncs)} syncs were seen"
        assert max(writes) < max(syncs) < at, f"{step}/{file}: write {max(writes)}, sync {max(syncs)}, rename {at}"
    inner = of("sync", f"/{folder}")
    assert inner and max(of("sync", f"{folder}/state.bin")) < max(inner) < at, f"{step}: its folder is synced before the rename"
    outer = [i for i in of("sync", "/run") if i > at]
    assert outer, f"{step}: the run folder is synced after the rename"
print(f"{len(renames)} snapshots: write, sync of each file, sync of the folder, rename, sync of the folder above")
PY
