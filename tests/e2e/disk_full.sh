#!/usr/bin/env bash
# A disk that is full while a snapshot is written: exit code 5, the error names the file, the snapshot before stays
# complete and loads, and nothing half-written is left.
#
# Needs RINGTAPE (the program), and to be root, for a tmpfs of two megabytes.
# root
set -euo pipefail
: "${RINGTAPE:?set RINGTAPE to the program}"
fail() { echo "disk_full: $*" >&2; exit 1; }
[[ $(id -u) == 0 ]] || fail "must be root, to mount a small tmpfs (sudo, or a container)"

work=$(mktemp -d)
trap 'umount "$work/disk" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
mkdir disk
mount -t tmpfs -o size=2m tmpfs disk || fail "cannot mount a tmpfs here"

for _ in $(seq 200); do echo "the cat sat on the mat; the dog sat on the log."; done > my.txt
"$RINGTAPE" -q data pack my.txt
settings=(--set data.path=my.rtd --set model.layers=2 --set model.dim=32 --set model.heads=2 --set model.context=16
    --set batch_size=4 --set eval_every=0 --set tensorboard=false)
"$RINGTAPE" -q train "${settings[@]}" --steps 3 --out disk/run > /dev/null
before=$("$RINGTAPE" -q eval disk/run)
sums=$(cd disk/run/step-3 && sha256sum ./*)

# All but 20 KiB of what is left.
free=$(df --output=avail -k disk | tail -1)
head -c $(((free - 20) * 1024)) /dev/zero > disk/filler
code=0
"$RINGTAPE" -q train --resume disk/run --steps 6 2> err > /dev/null || code=$?
cat err
[[ $code == 5 ]] || fail "exit code $code, 5 is wanted"
grep -q "error:.*disk/run" err || fail "the error names no file"
! grep -q panicked err || fail "it panicked"
[[ $(cd disk/run/step-3 && sha256sum ./*) == "$sums" ]] || fail "the snapshot before was changed"
[[ $("$RINGTAPE" -q eval disk/run) == "$before" ]] || fail "the snapshot before does not load as it was"
left=$(find disk/run -name '*.tmp*')
[[ -z $left ]] || fail "left behind: $left"

# With room again it goes on as if nothing had happened.
rm disk/filler
"$RINGTAPE" -q train --resume disk/run --steps 6 > /dev/null
"$RINGTAPE" -q train "${settings[@]}" --steps 6 --out undisturbed > /dev/null
cmp disk/run/step-6/model.safetensors undisturbed/step-6/model.safetensors || fail "the resumed run ends elsewhere"
echo "disk full: exit 5, the snapshot before loads, nothing is left behind, and the run goes on to the same bits"
