#!/bin/bash
# Usage: img_test.sh BOTHY: the verbs of `bothy img`.
. "${0%/*}/img_rig.sh" "$1"

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
for format in vdi vhdx; do
    ok convert -O $format a.raw c.$format
    says 0 "No errors were found" check c.$format
    says 1 "$format images are only read" check -r all c.$format
done
alike check --output=json c.vdi
printf '\0\0\0\0\0\0\0\0' | dd of=c.vdi bs=1 seek=512 conv=notrunc status=none # two entries of the map
says 2 "two blocks or tables lie at" check c.vdi
printf '\377\377\0\0' | dd of=c.vdi bs=1 seek=512 conv=notrunc status=none
says 2 "beyond the file's end" check c.vdi
! type qemu-img >/dev/null 2>&1 || ! qemu-img check -q c.vdi 2>judged || fail "qemu-img finds c.vdi whole"
ok convert -O vdi a.raw c.vdi
printf '\1' | dd of=c.vdi bs=1 seek=388 conv=notrunc status=none
says 2 "another number of blocks" check c.vdi
# VMDK: the copies of the directory and of the table begin at sectors 21 and 22, they themselves at 26 and 27.
for subformat in streamOptimized monolithicSparse; do
    damage() # SECTOR ENTRY WORD TEXT: the check finds it, and finds nothing before
    {
        ok convert -o subformat=$subformat a.raw c.vmdk
        alike check --output=json c.vmdk
        printf "$3" | dd of=c.vmdk bs=1 seek=$(($1 * 512 + $2 * 4)) conv=notrunc status=none
        says 2 "$4" check c.vmdk
    }
    damage 22 0 '\377\377\0\0' "grain table 0 and its copy differ"
    damage 21 0 '\0\0\0\0' "only one of the two directories"
    damage 21 0 '\33\0\0\0' "two blocks or tables lie at"
    damage 26 0 '\377\377\377\0' "beyond the file's end"
    damage 27 0 '\377\377\0\0' "the block at 0"
    ok convert -o subformat=$subformat a.raw c.vmdk
    dd if=c.vmdk of=c.vmdk bs=4 skip=$((27 * 128)) seek=$((27 * 128 + 1)) count=1 conv=notrunc status=none
    says 2 "two blocks or tables lie at" check c.vmdk
done
damage 27 0 '\30\0\0\0' "two blocks or tables lie at" # within the table's copy
if type qemu-img >/dev/null 2>&1; then
    for options in subformat={monolithicSparse,monolithicFlat,streamOptimized,twoGbMaxExtent{Sparse,Flat}}; do
        judge convert -f raw -O vmdk -o $options a.raw theirs.vmdk
        alike check --output=json theirs.vmdk
    done
fi

ok convert a.raw b.img
same a.raw b.img
[ "$(stat -c %b b.img)" -lt "$(stat -c %b a.raw)" ] || fail "written zeroes became no hole"
ok convert -S 0 a.raw b.img
same a.raw b.img
[ "$(stat -c %b b.img)" -ge 8192 ] || fail "-S 0 left holes"
# -C: written zeroes are copied, too, on hosts where qemu-img's -C works as well.
ok convert a.raw plain.img
judge convert -C -f raw -O raw a.raw theirs.img
for format in raw qcow2; do
    ok convert -C -O $format a.raw copied.$format
    ok compare -f raw -F $format a.raw copied.$format
    judge compare -f raw -F $format a.raw copied.$format
    [ ! -e theirs.img ] || [ "$(stat -c %b theirs.img)" -lt $(($(stat -c %b plain.img) + 1000)) ] ||
        [ "$(stat -c %b copied.$format)" -ge $(($(stat -c %b plain.img) + 1000)) ] || fail "-C copied nothing"
done
ok check copied.qcow2
head -c 1000000 a.raw >odd.img
cat odd.img <(head -c 448 /dev/zero) a.raw >both
ok convert -C odd.img a.raw -O qcow2 -o cluster_size=2M b.qcow2
ok convert -C -f qcow2 -O raw b.qcow2 b.img
same both b.img
ok convert -C -O vdi b.qcow2 b.vdi
ok compare b.vdi both
says 1 "does not compress" convert -C -c a.raw b.qcow2
says 1 "does not look for zeroes" convert -C -S 64K a.raw b.img
says 1 "does not go on" convert -C --salvage a.raw b.img
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
said=$(ulimit -f 100; "$bothy" img convert a.raw kept.img 2>&1) && fail "convert into a full disk: $said"
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

says 1 "no.raw: No such file or directory" convert no.raw b.img
[[ $said != *img\ create* ]] || fail "a source that is not there is to be made: $said"
says 1 "bothy img create" resize no.raw 1M
ok convert -r 100M -m 2 a.raw b.img
same a.raw b.img

# Somebody else writes to it; to ask bothy whether that has begun could lock him out.
touch -d @0 new.img
(exec "$bothy" img bench -q -w -c 4000000000 new.img) &
pid=$!
until [ "$(stat -c %Y new.img)" != 0 ]; do kill -0 $pid || fail "bench ended early"; done
says 1 "is in use by process $pid" info new.img
[[ $said == *"or say -U"* ]] || fail "who may read it all the same? $said"
says 0 "file format: raw" info -U new.img
says 1 "is in use by process $pid" resize new.img +1M
[[ $said != *"-U"* ]] || fail "nobody may write to it: $said"
kill $pid
wait $pid 2>/dev/null

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
for space in falloc full; do
    ok resize --preallocation=$space b.img +1M
    [ "$(stat -c %b b.img)" -ge 2048 ] || fail "resize --preallocation=$space reserved nothing"
    ok resize --shrink b.img 4M
    same a.raw b.img
done
says 1 "no metadata" resize --preallocation=metadata b.img +1M
says 1 "disks that grow" resize --preallocation=full --shrink b.img 1M

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
cp z.qcow2 bad.qcow2
head -c 4096 /dev/zero | tr '\0' '\377' | dd of=bad.qcow2 conv=notrunc bs=64K seek=4 status=none # behind the tables
says 1 "Input/output error" convert bad.qcow2 b.img
says 0 "zeroes instead" convert --salvage bad.qcow2 b.img
says 1 "Content mismatch" compare a.raw b.img
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
# Bitmaps get the size of the disk.
ok bitmap --add -g 64K a.qcow2 on
ok bench -q -w -c 5 -s 64K -S 1M a.qcow2
ok bitmap --add -g 4K --disable a.qcow2 off
ok bitmap --merge on a.qcow2 off
ok resize a.qcow2 1500M
judge check a.qcow2
alike info --output=json a.qcow2
cp a.qcow2 c.qcow2
judge resize -q c.qcow2 1600M
ok resize --shrink a.qcow2 5M
judge check a.qcow2
alike info --output=json a.qcow2
ok bitmap --remove a.qcow2 on
ok bitmap --remove a.qcow2 off
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
    # Through the image between: top < middle < base.
    for name in base middle; do cp $name.qcow2 deep-$name.qcow2; done
    ok rebase -u -b deep-base.qcow2 -F qcow2 deep-middle.qcow2
    ok create -q -b deep-middle.qcow2 -F qcow2 deep.qcow2
    io "write -P 9 1300k 100k" deep.qcow2
    ok convert deep.qcow2 deep.raw
    says 1 "is not in the chain" commit -b top.qcow2 deep.qcow2
    ok commit -b deep-base.qcow2 deep.qcow2
    ok compare deep-base.qcow2 deep.raw
    ok compare deep.qcow2 deep.raw
    judge check deep-base.qcow2

    ok commit middle.qcow2
    judge check base.qcow2
    ok compare base.qcow2 middle.raw
    ok compare middle.qcow2 middle.raw
    judge check middle.qcow2
fi
says 1 "on which image" rebase top.qcow2
says 1 "only qcow2 images" rebase -b a.raw b.raw
says 1 "is based on no other image" commit base.qcow2

# QEMU's words for an image.
alike info --output=json --image-opts driver=qcow2,file.filename=base.qcow2
ok convert --image-opts driver=qcow2,file.driver=file,file.filename=base.qcow2 b.raw
ok compare base.qcow2 b.raw
says 1 "which file?" info --image-opts driver=qcow2
says 1 "no protocols" info --image-opts driver=raw,file.driver=nbd,filename=x
says 1 'unknown option "backing"' info --image-opts driver=qcow2,filename=base.qcow2,backing=

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
