#!/bin/bash
# Usage: img_luks_test.sh BOTHY: encrypted images, made here and read there, and the reverse.
. "${0%/*}/img_rig.sh" "$1"

disk a.raw
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
# Keys come and go, in images of both sorts; qemu-img opens them with what is there.
new=(--object secret,id=n,data=newer) both=("${sec[@]}" "${new[@]}")
ok convert "${sec[@]}" -o $luks a.raw k.qcow2
ok convert "${sec[@]}" -o key-secret=s,iter-time=10 a.raw k.luks
for k in k.qcow2:encrypt.:qcow2 k.luks::luks; do
    IFS=: read -r image p format <<<"$k"
    at=driver=$format,file.filename=$image,${p}key-secret
    says 1 "no key has the id" amend "${sec[@]}" -o ${p}state=active,${p}new-secret=n $image
    says 1 "wrong key: n does not open it" amend "${new[@]}" -o ${p}state=active,${p}new-secret=n $image
    says 1 "that key slot is in use" amend "${both[@]}" -o ${p}state=active,${p}new-secret=n,${p}keyslot=0 $image
    says 1 "say which by old-secret" amend "${sec[@]}" -o ${p}state=inactive $image
    says 1 "nothing could ever open it" amend "${sec[@]}" -o ${p}state=inactive,${p}old-secret=s $image
    ok amend "${both[@]}" -o ${p}state=active,${p}new-secret=n,${p}iter-time=10 $image
    ok compare "${new[@]}" $image a.raw
    judge compare "${both[@]}" --image-opts $at=n driver=raw,file.filename=a.raw
    judge compare "${both[@]}" --image-opts $at=s driver=raw,file.filename=a.raw
    ok amend "${sec[@]}" -o ${p}state=inactive,${p}old-secret=s $image
    says 1 "wrong key: s does not open it" convert "${sec[@]}" $image b.raw
    ok compare "${new[@]}" $image a.raw
    judge compare "${both[@]}" --image-opts $at=n driver=raw,file.filename=a.raw
    [ $format = luks ] || continue
    for slot in 0 2 3 4 5 6 7; do
        ok amend "${both[@]}" -o ${p}state=active,${p}new-secret=s,${p}keyslot=$slot,${p}iter-time=1 $image
    done
    says 1 "all its key slots are in use" amend "${both[@]}" -o ${p}state=active,${p}new-secret=n $image
    ok amend -o ${p}state=inactive,${p}keyslot=1 $image
    says 1 "slot 1 is free already" amend -o ${p}state=inactive,${p}keyslot=1 $image
    ok amend "${sec[@]}" --force -o ${p}state=inactive,${p}old-secret=s $image
    says 1 "none of the 2 keys opens it" convert "${both[@]}" $image b.raw
done
ok create -f qcow2 plain.qcow2 1M
says 1 "is not encrypted" amend "${sec[@]}" -o encrypt.state=active,encrypt.new-secret=s plain.qcow2
! type qemu-img >/dev/null 2>&1 || ! slowly x || for k in k.qcow2:encrypt.:qcow2 k.luks::luks; do
    IFS=: read -r image p format <<<"$k"
    theirs create "${sec[@]}" -f $format -o ${p:+encrypt.format=luks,}${p}key-secret=s,${p}iter-time=10 $image 4M
    ok amend "${both[@]}" -o ${p}state=active,${p}new-secret=n,${p}iter-time=10 $image
    judge compare "${both[@]}" --image-opts driver=$format,file.filename=$image,${p}key-secret=n \
        driver=$format,file.filename=$image,${p}key-secret=s
done
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
exit 0
