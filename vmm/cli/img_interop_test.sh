#!/bin/bash
# Usage: img_interop_test.sh BOTHY: qcow2 images go to and fro between bothy and qemu-img: each makes, fills, snapshots and
# marks what the other then reads, writes to and changes.  BOTHY_TEST_FACTOR=2 or more: the whole matrix of options.
set -u
type qemu-img qemu-io python3 >/dev/null 2>&1 || exit 77
bothy=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

# A row: the options of an image.
rows=(
    compat=0.10,cluster_size=64k
    compat=1.1,cluster_size=512,refcount_bits=64,lazy_refcounts=on
    compat=1.1,cluster_size=64k,refcount_bits=32,extended_l2=on,compression_type=zstd
    compat=1.1,cluster_size=4k,data_file=x.data,data_file_raw=on
)
if ((${BOTHY_TEST_FACTOR:-1} > 1)); then
    rows=(compat=0.10,cluster_size={512,4k,64k,2M}
        compat=1.1,cluster_size={512,4k,64k,2M},refcount_bits={1,2,4,8,16,32,64},compression_type={zlib,zstd}
        compat=1.1,cluster_size={16k,64k,2M},refcount_bits={1,2,4,8,16,32,64},extended_l2=on,compression_type={zlib,zstd}
        compat=1.1,cluster_size={4k,64k,2M},refcount_bits={1,16,64},data_file=x.data,data_file_raw={off,on}
        compat=1.1,cluster_size=64k,extended_l2=on,data_file=x.data)
fi

fail() { echo "img_interop_test.sh: ${row:-}, made by ${maker:-}: $*"; exit 1; }
img() # bothy|qemu-img VERB…
{
    local who=$1 verb=("$bothy" img)
    shift
    [[ $who = bothy ]] || verb=(qemu-img)
    "${verb[@]}" "$@" >said 2>&1 || fail "$who $*: $(cat said)"
}
both() { img bothy "$@"; img qemu-img "$@"; }
# fill bothy|qemu-img SEED: writes here and there.
fill()
{
    if [[ $1 = bothy ]]; then
        img bothy bench -q -w --pattern "$2" -c 30 -s 7k -o $(($2 * 10240)) -S 100k x.qcow2
    else
        qemu-io -f qcow2 -c "write -P $2 $(($2 * 20))k 300k" -c "write -P $2 1900k 5k" -c "write -z 1M 70k" \
            -c "write -zu 2M 128k" -c 'discard 3000k 200k' -c "write -P $2 3100k 1k" x.qcow2 >said 2>&1 ||
            fail "qemu-io: $(cat said)"
    fi
}
# alike [-l SNAPSHOT]: both read the same, and find nothing wrong.
alike()
{
    both check -q x.qcow2
    img bothy convert -O raw "$@" x.qcow2 ours.raw
    img qemu-img convert -O raw "$@" x.qcow2 theirs.raw
    cmp ours.raw theirs.raw >said || fail "$(cat said)"
    img bothy info --output=json x.qcow2
    mv said ours.json
    img qemu-img info --output=json x.qcow2
    python3 -c 'import json; a, b = (json.load(open(n)) for n in ("ours.json", "said")); exit(a != b)' ||
        fail "info: $(diff ours.json said)"
}

for row in "${rows[@]}"; do
    for maker in bothy qemu-img; do
        other=bothy
        [[ $maker = qemu-img ]] || other=qemu-img
        rm -f x.* y.*
        img $maker create -q -f qcow2 -o "$row" x.qcow2 4M
        fill qemu-img 1
        alike
        fill bothy 2
        alike
        if [[ $row != *data_file* ]]; then # nothing is compressed in a data file
            img $maker convert -c -O qcow2 -o "$row" x.qcow2 y.qcow2
            img $other compare -q x.qcow2 y.qcow2
            mv y.qcow2 x.qcow2
            fill $other 3
            alike
        fi
        # Compressed clusters share one of the file, so narrow counts are soon at their end.
        if [[ $row != *data_file* && ! $row =~ refcount_bits=[1248](,|$) ]]; then
            img $maker snapshot -c one x.qcow2
            alike -l one
            cp ours.raw one.raw
            fill $other 4
            img $other snapshot -c two x.qcow2
            fill $maker 5
            alike -l one
            cmp one.raw ours.raw >said || fail "the snapshot has changed: $(cat said)"
            img $other snapshot -a one x.qcow2
            alike
            cmp one.raw ours.raw >said || fail "the snapshot was not applied: $(cat said)"
            img $other snapshot -d one x.qcow2
            fill $maker 6
            img $maker snapshot -d two x.qcow2
            alike
        fi
        if [[ $row = compat=1.1* ]]; then
            img $maker bitmap --add -g 64k x.qcow2 dirt
            fill $other 7
            alike
            img $other bitmap --add -g 32k x.qcow2 more
            img $other bitmap --merge dirt x.qcow2 more
            alike
            img $other bitmap --remove x.qcow2 dirt
            img $maker bitmap --clear x.qcow2 more
            alike
        fi
    done
done
echo "${#rows[@]} images, made by each"
