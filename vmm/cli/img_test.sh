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

# No room: files may not grow beyond 100 KiB
echo x >kept.img
said=$(trap '' XFSZ; ulimit -f 100; "$bothy" img convert a.raw kept.img 2>&1) && fail "convert into a full disk: $said"
[[ $said == *"File too large"* && $(cat kept.img) = x ]] || fail "convert into a full disk: $said"
parts

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

# ---- qcow2. ----
ok create -q a.qcow2 10G
alike info --output=json a.qcow2
judge check a.qcow2
says 0 "cluster_size=" create -f qcow2 -o help
ok create -q -o cluster_size=4K,refcount_bits=8,lazy_refcounts=on b.qcow2 100M
alike info --output=json b.qcow2
judge check b.qcow2
for options in compat=0.10 cluster_size=512 cluster_size=2M extended_l2=on refcount_bits=1; do
    ok convert -o $options a.raw a.qcow2
    judge check a.qcow2
    judge compare -f raw -F qcow2 a.raw a.qcow2
    ok check a.qcow2
    ok compare a.raw a.qcow2
    ok convert a.qcow2 b.img
    same a.raw b.img
done
for type in zlib zstd; do
    ok convert -c -o compression_type=$type a.raw z.qcow2
    judge check z.qcow2
    judge compare -f raw -F qcow2 a.raw z.qcow2
    ok convert z.qcow2 b.img
    same a.raw b.img
done
alike check --output=json z.qcow2
alike map --output=json z.qcow2
says 1 "is compressed" map z.qcow2
ok convert a.raw new.img a.qcow2
ok compare a.qcow2 both
for options in cluster_size=64K cluster_size=2M,refcount_bits=64 extended_l2=on,cluster_size=128K; do
    alike measure --output=json -O qcow2 -o $options --size 123G
    alike measure --output=json -f raw -O qcow2 -o $options a.raw
done
alike measure --output=json -O qcow2 z.qcow2
ok resize a.qcow2 1G
judge check a.qcow2
says 0 "virtual size: 1 GiB" info a.qcow2
says 1 "did you mean" convert -f qcow3 a.raw b.img
mv a.qcow2 named.img
says 1 "looks like a qcow2 image" convert named.img b.raw
says 0 "file format: qcow2" info named.img
ok convert -f qcow2 named.img b.raw
cp a.raw false.qcow2
says 2 "does not begin as a qcow2 image" compare a.raw false.qcow2
parts

# Chains: base < middle < top, each with something of its own.
ok convert a.raw base.qcow2
ok create -q -b base.qcow2 middle.qcow2
ok create -q -f qcow2 -F qcow2 -b middle.qcow2 top.qcow2 6M
io() { judge --version && qemu-io -f qcow2 -c "$1" "$2" >judged 2>&1 || fail "qemu-io: $(cat judged)"; }
if type qemu-io >/dev/null 2>&1; then
    io "write -P 1 1M 200k" middle.qcow2
    io "write -z 64k 64k" middle.qcow2
    io "write -P 2 1200k 300k" top.qcow2
    io "write -P 3 5M 64k" top.qcow2
    alike info --output=json --backing-chain top.qcow2
    alike map --output=json top.qcow2
    says 0 "backing file: middle.qcow2" info top.qcow2
    qemu-img convert -O raw top.qcow2 top.raw
    ok convert top.qcow2 b.raw
    same top.raw b.raw
    ok convert -B middle.qcow2 -F qcow2 -O qcow2 top.qcow2 same.qcow2
    ok compare same.qcow2 top.raw
    says 0 "backing file: middle.qcow2" info same.qcow2
    judge check same.qcow2
    [ "$(stat -c %s same.qcow2)" -lt 2000000 ] || fail "convert -B copied what the backing image has"

    ok rebase -b base.qcow2 top.qcow2
    ok compare top.qcow2 top.raw
    judge check top.qcow2
    judge compare -f qcow2 -F raw top.qcow2 top.raw
    says 0 "backing file: base.qcow2" info top.qcow2
    cp base.qcow2 moved.qcow2
    ok rebase -u -F qcow2 -b moved.qcow2 top.qcow2
    ok compare top.qcow2 top.raw
    ok rebase -b "" top.qcow2
    says 0 "Images are identical." compare top.qcow2 top.raw
    [[ $("$bothy" img info top.qcow2) != *backing* ]] || fail "rebase -b \"\" left a backing image"
    judge check top.qcow2

    qemu-img convert -O raw middle.qcow2 middle.raw
    ok commit middle.qcow2
    judge check base.qcow2
    ok compare base.qcow2 middle.raw
    ok compare middle.qcow2 middle.raw
    judge check middle.qcow2
fi
says 1 "on which image" rebase top.qcow2
says 1 "only qcow2 images" rebase -b a.raw b.raw
says 1 "is based on no other image" commit base.qcow2

# Snapshots.
ok snapshot -c one base.qcow2
ok bench -q -w --pattern 7 -c 10 -s 64K base.qcow2
ok snapshot -c two base.qcow2
alike info --output=json base.qcow2
[ "$("$bothy" img snapshot -l base.qcow2 | wc -l)" = 4 ] || fail "two snapshots are not listed"
if type qemu-img >/dev/null 2>&1; then
    [ "$("$bothy" img snapshot base.qcow2)" = "$(qemu-img snapshot -l base.qcow2)" ] ||
        fail "snapshots are not listed as by qemu-img"
    qemu-img convert -l one -O raw base.qcow2 one.raw
    ok convert -l one base.qcow2 b.raw
    same one.raw b.raw
fi
ok convert base.qcow2 two.raw
ok snapshot -a one base.qcow2
ok convert base.qcow2 b.raw
ok compare -q b.raw base.qcow2
says 1 "Content mismatch at offset 0!" compare b.raw two.raw
ok snapshot -d one base.qcow2
says 1 "no snapshot" snapshot -d one base.qcow2
says 1 "at a time" snapshot -l -c x base.qcow2
says 1 "only qcow2 images" snapshot -c x a.raw
judge check base.qcow2
parts

# Bitmaps and other properties.
ok create -q m.qcow2 64M
ok bitmap --add -g 32K m.qcow2 one
ok bench -q -w -c 20 -s 64K -S 1M m.qcow2
ok bitmap --add --disable m.qcow2 two
ok bitmap --merge one m.qcow2 two
alike info --output=json m.qcow2
judge bitmap --merge two m.qcow2 one
alike measure --output=json -O qcow2 m.qcow2
ok convert --bitmaps m.qcow2 n.qcow2
judge check n.qcow2
alike info --output=json n.qcow2
ok bitmap --clear --disable m.qcow2 one
ok bitmap --remove m.qcow2 two
judge check m.qcow2
[[ $("$bothy" img info m.qcow2) != *two* ]] || fail "the bitmap is still there"
says 1 "what is to be done" bitmap m.qcow2 one
says 1 "only qcow2 images" bitmap --add a.raw one
ok create -q -o compat=0.10 -b base.qcow2 old.qcow2
ok amend -o compat=1.1,lazy_refcounts=on old.qcow2
alike info --output=json --backing-chain old.qcow2
judge check old.qcow2
ok amend -o backing_file=moved.qcow2,backing_fmt=qcow2 old.qcow2
says 0 "backing file: moved.qcow2" info old.qcow2
says 1 'unknown option "cluster_size"' amend -o cluster_size=4K old.qcow2
says 1 "what is to be changed" amend old.qcow2

# ---- Encrypted images. ----
printf letmein >key
printf 'other\n' >line
sec=(--object secret,id=s,file=key)
luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
# theirs ARGUMENTS…: qemu-img makes one.  Where the clock that it asks is coarse it gives up at random.
theirs()
{
    for ((try = 0; try < 50; try++)); do
        qemu-img "$@" >judged 2>&1 && return 0
        grep -q "accurate CPU usage" judged || fail "qemu-img $*: $(cat judged)"
    done
    fail "qemu-img $*: $(cat judged)"
}
# QEMU's own images take it seconds to make: each kind of them in long runs only.
slowly() { [ -z "$1" ] || [ "${BOTHY_TEST_FACTOR:-1}" -gt 1 ]; }
says 1 "needs a key" create -f qcow2 -o encrypt.format=luks e.qcow2 4M
says 1 'no key has the id "s"' create -f qcow2 -o $luks e.qcow2 4M
says 1 "key-secret needs encrypt.format" create "${sec[@]}" -f qcow2 -o encrypt.key-secret=s e.qcow2 4M
says 1 "either file= or data=" create --object secret,id=s -f qcow2 e.qcow2 4M
says 1 "objects of type secret only" create --object iothread,id=s -f qcow2 e.qcow2 4M
says 1 "hold nothing compressed" convert "${sec[@]}" -c -o $luks a.raw e.qcow2
for options in "" ,encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1,extended_l2=on ,compat=0.10,cluster_size=4K \
    ,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.hash-alg=sha512 ,data_file=e.data; do
    rm -f e.data
    ok convert "${sec[@]}" -o $luks$options a.raw e.qcow2
    grep -q 12345 e.qcow2 e.data 2>/dev/null && fail "what is encrypted can be read"
    at=driver=qcow2,file.filename=e.qcow2,encrypt.key-secret=s
    ok check e.qcow2
    alike info --output=json e.qcow2
    ok compare "${sec[@]}" e.qcow2 a.raw
    judge check "${sec[@]}" --image-opts $at
    judge compare "${sec[@]}" --image-opts $at driver=raw,file.filename=a.raw
    type qemu-io >/dev/null 2>&1 && slowly "$options" || continue
    rm -f e.data
    theirs create "${sec[@]}" -f qcow2 -o $luks$options e.qcow2 4M
    judge --version && qemu-io "${sec[@]}" --image-opts $at -c "write -P 7 123k 456k" >judged 2>&1
    ok convert "${sec[@]}" e.qcow2 b.raw
    judge compare "${sec[@]}" --image-opts $at driver=raw,file.filename=b.raw
    ok convert "${sec[@]}" -n a.raw e.qcow2
    judge check "${sec[@]}" --image-opts $at
    judge compare "${sec[@]}" --image-opts $at driver=raw,file.filename=a.raw
done
if type qemu-img >/dev/null 2>&1; then
    theirs measure -f raw -O qcow2 "${sec[@]}" -o $luks a.raw
    [ "$("$bothy" img measure -f raw -O qcow2 "${sec[@]}" -o $luks a.raw)" = "$(cat judged)" ] || fail "measure with luks"
fi
for options in "" ,cipher-alg=aes-192,hash-alg=sha1,ivgen-alg=plain ,cipher-mode=cbc,cipher-alg=aes-128; do
    ok convert "${sec[@]}" -o key-secret=s,iter-time=10$options a.raw e.luks
    at=driver=luks,file.filename=e.luks,key-secret=s
    alike info --output=json e.luks
    ok compare "${sec[@]}" e.luks a.raw
    judge compare "${sec[@]}" --image-opts $at driver=raw,file.filename=a.raw
    ! type cryptsetup >/dev/null 2>&1 || cryptsetup luksDump e.luks >judged 2>&1 || fail "luksDump: $(cat judged)"
    type qemu-img >/dev/null 2>&1 && slowly "$options" || continue
    theirs create "${sec[@]}" -f luks -o key-secret=s,iter-time=10$options e.luks 4M
    ok convert "${sec[@]}" -n a.raw e.luks
    judge compare "${sec[@]}" --image-opts $at driver=raw,file.filename=a.raw
done
ok resize "${sec[@]}" e.luks +1M
ok convert "${sec[@]}" e.luks b.raw
cmp -n 4194304 a.raw b.raw || fail "a larger encrypted disk holds something else"
if type cryptsetup >/dev/null 2>&1; then
    truncate -s 8M c.luks
    cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --key-file key c.luks 2>judged ||
        fail "luksFormat: $(cat judged)"
    ok convert "${sec[@]}" -n a.raw c.luks
    ok convert "${sec[@]}" c.luks b.raw
    cmp -n 4194304 a.raw b.raw || fail "what cryptsetup made holds something else"
fi
cp e.luks named.img # a guest may encrypt its disk itself
ok convert named.img b.raw
same named.img b.raw
says 0 "file format: luks" info named.img
says 0 "encrypted: yes" info e.qcow2
says 1 "is encrypted; give a file with its key" convert e.qcow2 b.raw
says 1 "e.qcow2: wrong key: t does not open it" convert --object secret,id=t,data=x e.qcow2 b.raw
says 1 "wrong key; mind that t ends with a line's end" convert --object secret,id=t,file=line e.qcow2 b.raw
# A chain with two keys, which a commit and a rebase take apart.
two=("${sec[@]}" --object secret,id=t,data=x)
ok convert "${sec[@]}" -o $luks a.raw low.qcow2
ok create "${two[@]}" -q -b low.qcow2 -F qcow2 -o ${luks/=s,/=t,} high.qcow2
ok bench "${two[@]}" -q -w -c 20 -s 3000 -S 70K --pattern 5 high.qcow2
says 1 "low.qcow2: wrong key" convert --object secret,id=t,data=x high.qcow2 b.raw
ok convert "${two[@]}" high.qcow2 b.raw
says 1 "is encrypted" rebase -b "" high.qcow2
cp high.qcow2 alone.qcow2
ok rebase "${two[@]}" -b "" alone.qcow2
ok compare --object secret,id=t,data=x alone.qcow2 b.raw
ok commit "${two[@]}" high.qcow2
ok compare "${sec[@]}" low.qcow2 b.raw
ok snapshot -c kept low.qcow2
ok bench "${sec[@]}" -q -w -c 20 -s 3000 -S 70K --pattern 6 low.qcow2
ok convert "${sec[@]}" -l kept low.qcow2 c.raw
same b.raw c.raw
ok check low.qcow2
judge check "${sec[@]}" --image-opts driver=qcow2,file.filename=low.qcow2,encrypt.key-secret=s
parts

# ---- The others. ----
for image in a.vdi a.vmdk a.vhd a.vhdx; do
    format=${image#a.}
    [ $format != vhd ] || format=vpc
    ok convert a.raw $image
    judge compare -f raw -F $format a.raw $image
    says 0 "file format: $format" info $image
    ok compare a.raw $image
    ok convert $image b.raw
    cmp -n 4194304 a.raw b.raw || fail "$image holds something else" # VHD sizes are rounded up
    [ $format != vdi ] || alike map --output=json $image
done
ok convert -o subformat=streamOptimized a.raw a.vmdk
judge compare -f raw -F vmdk a.raw a.vmdk
ok compare a.raw a.vmdk
says 1 "only read" convert -O bochs a.raw a.bochs
parts

# ---- A log of writes: nothing but the flush of a machine makes one, so it is told where there is none. ----
says 1 "No such file" replay no.log b.raw
says 1 "leave the image out" replay --list no.log b.raw
exit 0
