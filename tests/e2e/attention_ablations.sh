#!/usr/bin/env bash
# Windows that learn their size and place against the same ones frozen, on tasks that need it: fails when the idea is removed.
#
# Needs RINGTAPE (the program), REPO and PYTHON.
set -euo pipefail
: "${RINGTAPE:?set RINGTAPE to the program}"

# right RECIPE STEPS: the held-out share of right answers in %, then the lag or spans
right() {
    local run=${1/\//-}
    (cd "$REPO" && "$RINGTAPE" -q train "datasets/$1.toml" --steps "$2" --set eval_every=0 --set eval_batches=8 \
        --out "$OLDPWD/$run") > /dev/null
    "$RINGTAPE" eval "$run" --json | "$PYTHON" -c '
import json, sys
told = json.load(sys.stdin)
print(100 * told["accuracy"], *(h.get("lag") or h["span"] for h in told["attention"]))'
}
check() { "$PYTHON" -c "import sys; a = sys.argv[1].split(); a = [float(x) for x in a]; b = [float(x) for x in sys.argv[2].split()]; sys.exit(not ($3))" "$1" "$2" \
    || { echo "attention_ablations: learned $1, frozen $2; expected $3" >&2; exit 1; }; }

learned=$(right spans/learned 400) frozen=$(right spans/frozen 400)
echo "spans: learned $learned, frozen $frozen"
check "$learned" "$frozen" "a[0] > b[0] + 20 and min(a[1:]) < 12 and max(a[1:]) > 45 and all(abs(x - 23) < 0.01 for x in b[1:])"

learned=$(right copy/learned 300) frozen=$(right copy/frozen 300)
echo "copy: learned $learned, frozen $frozen"
check "$learned" "$frozen" "a[0] > b[0] + 5 and abs(a[1] - 96) < 1 and abs(b[1] - 96) > 40"
