#!/usr/bin/env bash
# Too little memory, from far too little to enough: the program ends with exit code 5 and the size asked for wherever it
# strikes, never by an abort or a panic, and the last snapshot stays as it was and loads.
#
# Needs RINGTAPE (the program, built for release).
set -euo pipefail
: "${RINGTAPE:?set RINGTAPE to the program}"
fail() { echo "memory_limit: $*" >&2; exit 1; }
ulimit -c 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for _ in $(seq 3000); do echo "the cat sat on the mat; the dog sat on the log."; done > my.txt
"$RINGTAPE" -q data pack my.txt
model=(--set data.path=my.rtd --set model.layers=4 --set model.dim=256 --set model.heads=4 --set model.context=128
    --set eval_every=0 --set tensorboard=false --set threads=2)
"$RINGTAPE" -q train "${model[@]}" --set batch_size=2 --steps 1 --out run > /dev/null
sums=$(cd run/step-1 && sha256sum ./*)
cp -r run start

# limited KIB ARGS…: runs under so much address space; 5 with a size, or all well.
declare -A seen=()
limited() {
    local code=0 kib=$1
    shift
    (ulimit -v "$kib"; exec timeout 120 "$RINGTAPE" -q "$@") > out 2> err || code=$?
    case $code in
        0) ;;
        5) grep -qE "error: out of memory: [0-9]+ bytes asked" err || fail "$kib KiB: no size is named: $(cat err)" ;;
        *) fail "$kib KiB: exit code $code: $(cat err)" ;;
    esac
    ! grep -q panicked err || fail "$kib KiB: it panicked: $(cat err)"
    seen[$code]=$((${seen[$code]:-0} + 1))
}

# With less than this the system cannot even load the program.
least=12000
until (ulimit -v "$least"; exec "$RINGTAPE" --version) > /dev/null 2>&1; do
    least=$((least + 500))
    ((least < 40000)) || fail "40,000 KiB are too few to start"
done
least=$((least + 500))

for kib in $(seq "$least" 1500 110000) $(seq 110000 16000 520000); do
    rm -rf run
    cp -r start run
    limited "$kib" train --resume run --set batch_size=16 --steps 2
    [[ $(cd run/step-1 && sha256sum ./*) == "$sums" ]] || fail "$kib KiB: the snapshot was changed"
done
((${seen[5]:-0} >= 20)) || fail "the limits were too wide: only ${seen[5]:-0} of them struck"
struck=${seen[5]}
limited 4000000 train --resume run --steps 4
((${seen[0]:-0} >= 1)) || fail "with enough memory it does not go on"

# What does not fit this machine at all is refused by name.
rm -rf run
cp -r start run
seen=()
limited 1000000 train --resume run --set batch_size=900 --steps 2
((${seen[5]:-0} == 1)) || fail "a batch of 900 fits a gigabyte"
grep -qE "out of memory: [0-9]+ bytes asked for" err || fail "it is not said what for: $(cat err)"
"$RINGTAPE" -q eval run > /dev/null || fail "the snapshot does not load"
[[ -z $(find run -name 'step-2') ]] || fail "a snapshot of a step that never was"
for kib in $((least + 2000)) 30000 40000 60000; do limited "$kib" eval run; done
echo "$struck limits struck: exit 5 and a size each time; the snapshot before loads"
