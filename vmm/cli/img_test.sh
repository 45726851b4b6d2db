#!/bin/bash
# Usage: img_test.sh BOTHY: the verbs of `bothy img`, with qemu-img as judge where it is there.
set -u
bothy=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

fail() { echo "img_test.sh, line ${BASH_LINENO[1]}: $*"; exit 1; }

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

# ---- Raw, and what all formats share. ----
disk a.raw
ok create -q -f raw new.img 10M
[ "$(stat -c %s new.img)" = 10485760 ] || fail "size of a new image"
says 1 "how large?" create new.img
says 1 'unknown option "preallocatoin"' create -o preallocatoin=off new.img 1M
says 1 'unknown format "rwa"' create -f rwa new.img 1M
says 1 "is not a size" create new.img 1Q
says 0 "preallocation=off" create -f raw -o help
ok create -q -o preallocation=falloc full.img 1M
[ "$(stat -c %b full.img)" -ge 2048 ] || fail "preallocation=falloc reserved nothing"

alike info -f raw --output=json a.raw
says 0 "file format: raw" info a.raw
says 1 "No such file" info no.raw
says 1 "the image's name is missing" info
alike map -f raw --output=json a.raw
says 63 "nothing that could be checked" check a.raw

ok convert a.raw b.img
same a.raw b.img
[ "$(stat -c %b b.img)" -lt "$(stat -c %b a.raw)" ] || fail "written zeroes became no hole"
ok convert -S 0 a.raw b.img
same a.raw b.img
[ "$(stat -c %b b.img)" -ge 8192 ] || fail "-S 0 left holes"
ok convert -m 3 -W a.raw new.img b.img
cat a.raw new.img >both
same both b.img
ok create -q b.img 5M
tr '\0' x <new.img | head -c 5M >b.img
ok convert -n a.raw b.img
cmp -s -n 4194304 a.raw b.img || fail "convert -n"
says 1 "the source" convert -n new.img b.img
chmod 600 b.img
ok convert a.raw b.img
[ "$(stat -c %a b.img)" = 600 ] || fail "the new image took another mode"
says 1 "hold nothing compressed" convert -c a.raw c.img
says 1 "in use" convert a.raw a.raw
echo x >kept.img
says 1 "unknown option" convert -o x=1 a.raw kept.img
[ "$(cat kept.img)" = x ] || fail "a failed convert lost what was there"
parts
says 0 "100.0%" convert -p a.raw b.img
[ -z "$("$bothy" img convert -q a.raw b.img 2>&1)" ] || fail "convert -q says something"

# Ctrl-C
(exec "$bothy" img create -q -o preallocation=full big.img 64G) &
pid=$!
until [ -e "big.img.$pid.part" ]; do kill -0 $pid || fail "create ended early"; done
kill -INT $pid
wait $pid
[ $? = 130 ] || fail "an interrupted create did not end with 130"
[ ! -e big.img ] || fail "an interrupted create left half an image"
parts

ok compare a.raw a.raw
[ "$said" = "Images are identical." ] || fail "compare: $said"
cp a.raw d.raw
echo y | dd of=d.raw conv=notrunc bs=1 seek=3000000 status=none
says 1 "Content mismatch at offset 2999808!" compare a.raw d.raw
says 0 "Warning: Image size mismatch!" compare new.img full.img
says 1 "Strict mode" compare -s new.img full.img
says 2 "No such file" compare a.raw no.raw

ok resize b.img +1M
[ "$(stat -c %s b.img)" = 5242880 ] || fail "resize +1M"
says 1 "say --shrink" resize b.img -1M
ok resize --shrink b.img -1M
same a.raw b.img

alike measure --output=json -f raw -O raw a.raw
alike measure --output=json --size 10G -O raw
says 1 "not both" measure --size 1G a.raw
ok dd if=a.raw of=part.img bs=64k count=20 skip=3
dd if=a.raw of=part.raw bs=64k count=17 skip=3 status=none
same part.img part.raw
says 1 "past the end" dd if=a.raw of=part.img skip=1000000
says 1 "of=FILE is missing" dd if=a.raw
says 0 "Sending 100 read requests, 4096 bytes each, 4 in parallel" bench -c 100 -d 4 a.raw
ok bench -q -c 16 -w --pattern 120 -s 64k --flush-interval 4 full.img
same full.img <(head -c 1M /dev/zero | tr '\0' x)
exit 0
