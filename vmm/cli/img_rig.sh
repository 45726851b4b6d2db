# What the tests of `bothy img` share, which source it with BOTHY as their argument: a folder of their own, commands that
# must work or must fail, and qemu-img as judge where it is there.
set -u
bothy=$(realpath "$1")
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir" || exit 1

fail() { echo "${0##*/}, line ${BASH_LINENO[1]}: $*"; exit 1; }

# ok VERB…: it works.  says CODE TEXT VERB…: it ends with CODE, and what it says has TEXT in it.
ok() { said=$("$bothy" img "$@" 2>&1) || fail "img $*: $said"; }
says()
{
    local code=$1 text=$2
    shift 2
    said=$("$bothy" img "$@" 2>&1)
    local got=$?
    [ $got = "$code" ] || fail "img $*: ended with $got, not $code: $said"
    [[ $said == *"$text"* ]] || fail "img $*: said \"$said\", not \"$text\""
}
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
judge() { ! type qemu-img >/dev/null 2>&1 || qemu-img "$@" >judged 2>&1 || fail "qemu-img $*: $(cat judged)"; }
# alike VERB…: qemu-img prints the same JSON.
alike()
{
    type qemu-img python3 >/dev/null 2>&1 || return 0
    "$bothy" img "$@" >ours 2>said || fail "img $*: $(cat said)"
    qemu-img "$@" >theirs 2>said || fail "qemu-img $*: $(cat said)"
    python3 -c 'import json; a, b = (json.load(open(n)) for n in ("ours", "theirs")); exit(a != b)' ||
        fail "img $*: $(diff ours theirs)"
}
# a disk NAME of 4 MiB: holes, zeroes that are written, text, noise
disk()
{
    truncate -s 4M "$1"
    seq 20000 | dd of="$1" conv=notrunc bs=4k seek=3 status=none
    head -c 300000 /dev/urandom | dd of="$1" conv=notrunc bs=4k seek=200 status=none
    head -c 512k /dev/zero | dd of="$1" conv=notrunc bs=4k seek=600 status=none
    echo end | dd of="$1" conv=notrunc bs=1 seek=4194300 status=none
}
parts() { find . -name '*.part' | grep -q . && fail "half an image was left: $(ls)"; }
