#!/usr/bin/env bash
# Recipes and run folders from elsewhere, archives with hostile names, pipes and devices: refused with exit code 2 or 4,
# and as the system calls tell, nothing outside is opened.
#
# Needs RINGTAPE (the program) and strace.
# apt: strace
set -euo pipefail
: "${RINGTAPE:?set RINGTAPE to the program}"
fail() { echo "paths: $*" >&2; exit 1; }
command -v strace > /dev/null || fail "needs strace (apt install strace)"
PYTHON=${PYTHON:-python3}

top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
mkdir "$top/work" "$top/outside"
cd "$top/work"
for _ in $(seq 200); do echo "the cat sat on the mat; the dog sat on the log."; done > my.txt
"$RINGTAPE" -q data pack my.txt
cp my.rtd "$top/outside/secret.rtd"
echo "to be left as it is" > "$top/outside/precious.txt"
before=$(cd "$top/outside" && sha256sum -- *)
recipe() {
    printf 'steps = 2\nbatch_size = 4\neval_every = 0\ntensorboard = false\n[data]\npath = "%s"\n' "$1" > r.toml
    printf '[model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 8\n' >> r.toml
}

cases=0
# refused CODE WORD ARGS…: the program ends with CODE and says WORD, opening nothing outside, no pipe and no device.
refused() {
    local code=0 want=$1 word=$2
    shift 2
    timeout 20 strace -f -y -qq -e trace=open,openat,openat2,creat,truncate,rename,renameat,renameat2,unlink,unlinkat \
        -o trace "$RINGTAPE" "$@" > out 2> err || code=$?
    [[ $code == "$want" ]] || fail "$*: exit code $code, $want is wanted: $(cat err)"
    grep -q -- "$word" err || fail "$*: the error does not say $word: $(cat err)"
    # With -y a call that succeeded ends in the true path of what it opened.
    if grep -E "= [0-9]+<($top/outside|/dev/(zero|full)|$top/work/[a-z/-]*pipe)|(trunc|renam|unlink)[a-z0-9]*\(.*outside" trace; then
        fail "$*: something outside was opened or changed"
    fi
    cases=$((cases + 1))
}

# That the trace shows what it should: the same set, typed, is opened.
recipe my.rtd
strace -f -y -qq -e trace=openat -o trace "$RINGTAPE" -q train r.toml --out typed --set "data.path=$top/outside/secret.rtd" > out
grep -qE "= [0-9]+<$top/outside/secret.rtd>" trace || fail "the trace does not show what is opened"

ln -s "$top/outside/secret.rtd" link.rtd
ln -s "$top/outside" folder
ln -s /dev/zero zero.rtd
mkfifo pipe
for path in ../outside/secret.rtd x/../../outside/secret.rtd "$top/outside/secret.rtd" /dev/zero 'my.rtd\u0000' \
    link.rtd folder/secret.rtd zero.rtd pipe .; do
    recipe "$path"
    refused 2 data.path train r.toml --out no
done

recipe my.rtd
"$RINGTAPE" -q train r.toml --out run > /dev/null
for name in metrics.jsonl lock step-2/state.bin step-2/model.safetensors step-2 step-9; do
    for to in "$top/outside/precious.txt" "$top/outside" /dev/full ../../outside/precious.txt; do
        [[ -e run/$name ]] && mv "run/$name" kept
        ln -s "$to" "run/$name"
        refused 2 "leads out" train --resume run --steps 3
        refused 2 "leads out" eval run
        rm "run/$name"
        [[ -e kept ]] && mv kept "run/$name"
    done
done
mv run/metrics.jsonl kept
mkfifo run/metrics.jsonl
refused 2 "neither a file" train --resume run --steps 3
rm run/metrics.jsonl
mv kept run/metrics.jsonl

"$PYTHON" - "$top/outside" << 'PY'
import io, sys, tarfile, zipfile

def tar(path, names):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as t:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            t.addfile(info, io.BytesIO(b"data"))

tar("up.tar", ["package/../../outside/idx-made"])
tar("absolute.tar", [f"{sys.argv[1]}/idx-made"])
with zipfile.ZipFile("up.zip", "w") as z:
    z.writestr("../outside/idx-made.npy", "data")
with tarfile.open("link.tar", "w", format=tarfile.USTAR_FORMAT) as t:
    info = tarfile.TarInfo("train-images-idx3-ubyte")
    info.type, info.linkname = tarfile.SYMTYPE, f"{sys.argv[1]}/secret.rtd"
    t.addfile(info)
PY
refused 4 "leads out" data pack mnist-full --from up.tar
refused 4 "leads out" data pack mnist-full --from absolute.tar
refused 4 "leads out" data pack mnist-full --from up.zip
refused 4 "no file with the pinned" data pack mnist-full --from link.tar
cp up.zip up.npz
refused 4 "leads out" data pack up.npz

for ending in txt csv npy bin; do
    ln -s /dev/zero "d.$ending"
    ln -s "$top/work/pipe" "p.$ending"
    refused 4 "a device" data pack "d.$ending"
    refused 4 "a pipe" data pack "p.$ending"
done
for what in pipe /dev/zero .; do
    refused 4 "wanted" data verify "$what"
    refused 4 "wanted" train "$what"
    refused 4 "wanted" train --set "data.path=$what"
done

[[ $(cd "$top/outside" && sha256sum -- *) == "$before" ]] || fail "something outside was changed"
"$RINGTAPE" -q train --resume run --steps 3 > /dev/null || fail "the run that was left alone does not go on"
echo "$cases paths refused; nothing outside was opened"
