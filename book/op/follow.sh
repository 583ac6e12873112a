#!/usr/bin/env bash
# Does what the chapter "Writing an op" says, in a fresh clone: every line of its `sh` blocks, in order, as it stands there.
# A line that ends in `# fails` must fail. Stops with exit code 1 at the first that does not do what the chapter says of it.
#
#   book/op/follow.sh             as CI runs it
#   PROFILE=dev book/op/follow.sh without --release
#
# Needs git, Rust, and in PYTHON an interpreter with torch, numpy and safetensors. What is compiled goes to the sources'
# own target folder, so that no dependency is compiled twice.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
chapter=$here/book/src/writing_an_op.md
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target} CARGO_INCREMENTAL=1
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
# Always the same place, so that what was compiled for the clone of another run serves this one.
scratch=$CARGO_TARGET_DIR/book-clone
rm -rf "$scratch"
mkdir -p "$scratch"
trap 'rm -rf "$scratch"' EXIT

# The clone, with what is not committed yet; without what is ignored.
git clone --quiet "$here" "$scratch/ringtape"
(cd "$here" && git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c '
    for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh | tar --null --files-from - --create --file -) |
    tar --extract --file - --directory "$scratch/ringtape"

# `python` is the interpreter that was named.
mkdir "$scratch/bin"
printf '#!/bin/sh\nexec "%s" "$@"\n' "${PYTHON:-$(command -v python3)}" >"$scratch/bin/python"
chmod +x "$scratch/bin/python"
export PATH=$scratch/bin:$PATH

commands=$(awk '/^```/ { inside = $0 == "```sh"; next } inside' "$chapter")
count=0
cd "$scratch/ringtape"
while IFS= read -r line <&3; do
    [[ -n $line ]] || continue
    [[ ${PROFILE:-} != dev ]] || line=${line/ --release/}
    echo "\$ $line"
    start=$SECONDS code=0
    said=$(bash -c "$line" 2>&1 </dev/null) || code=$?
    grep -vE '^ *(Compiling|Finished|Running)' <<<"$said" | tail -n 25 || true
    echo "  ($((SECONDS - start)) s, exit code $code)"
    if [[ $line == *'# fails' ]]; then expected=1; else expected=0; fi
    # A build that fails has another code, 101.
    if ((code != expected)); then
        echo "the chapter says otherwise: exit code $expected" >&2
        exit 1
    fi
    # What the chapter shows of a failure is in what was said; … stands for lines that are left out.
    if ((expected)); then
        while IFS= read -r shown; do
            [[ $shown == … ]] || grep -qF -- "$(cut -c 1-16 <<<"$shown")" <<<"$said" ||
                { echo "the chapter shows what was not said: $shown" >&2; exit 1; }
            [[ $shown != *FAILED* && $shown != error* ]] || grep -qF -- "$shown" <<<"$said" ||
                { echo "the chapter shows what was not said: $shown" >&2; exit 1; }
        done <"$here/book/op/first.txt"
    fi
    count=$((count + 1))
done 3<<<"$commands"
((count >= 8)) || { echo "$chapter: only $count commands" >&2; exit 1; }
echo "$count commands do what the chapter says"
