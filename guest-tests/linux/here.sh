# Linux scenarios, on a machine where /dev/kvm runs kernels: here.sh WORK BOTHY SECONDS-A-BOOT POWER-CUTS NAME…
# A name is a scenario's, or boot_with=PROGRAM.
set -uo pipefail
work=$1 bothy=$2 limit=$3 cuts=$4
shift 4
scratch=$(mktemp -d)
# A subshell that is killed as soon as it is forked still has this shell's trap.
trap '[[ $BASHPID != $$ ]] || rm -rf "$scratch"' EXIT
export XDG_CACHE_HOME=$scratch/cache WORD='a word'
out=$scratch/out

why() { reason=$*; return 1; }

# guest WANTED-CODE NAME OPTION…: one run of bothy; what it prints is in $out. One that hangs leaves a bundle.
kernel=$(cat "$work/kernel.cloud") initrd=$work/initrd.cloud network=()
[[ ! -e $work/no-network ]] || network=(-n none)
guest()
{
    local want=$1 name=$2 code=0
    shift 2
    timeout -s QUIT -k 100 "$limit" "$bothy" run "${network[@]}" -k "$kernel" -i "$initrd" -a "quiet t=$name" \
        --bundle "$scratch/bundle" "$@" >"$out" 2>&1 || code=$?
    [[ $code == "$want" ]] || why "bothy ended with $code, not $want"
}
says() { grep -qa "$1" "$out" || why "no \"$1\" in the output"; }

# started NAME OPTION…: the same in the background, once it says "GUEST …"; sets pid.
within=() # the command that runs it
started()
{
    local name=$1
    shift
    : >"$out"
    "${within[@]}" "$bothy" run -k "$kernel" -i "$initrd" -a "quiet t=$name" --bundle "$scratch/bundle" "$@" >"$out" 2>&1 &
    pid=$!
    for ((i = 0; i < 1500; i++)); do
        grep -qa $'GUEST.*\r' "$out" && return # all of the line
        kill -0 $pid 2>/dev/null || break
        sleep 0.2
    done
    kill -QUIT $pid 2>/dev/null && ended 126
    why 'the guest does not come up'
}
# ended WANTED-CODE: waits for $pid.
ended()
{
    local code=0
    (sleep "$limit"; kill -QUIT $pid; sleep 100; kill -9 $pid) >/dev/null 2>&1 &
    local watchdog=$!
    wait $pid || code=$?
    kill $watchdog 2>/dev/null
    [[ $code == "$1" ]] || why "bothy ended with $code, not $1"
}

# boots CPUS MIB LEAST-MIB OPTION…
boots()
{
    guest 0 boot -c "$1" -m "$2M" "${@:4}" && says "GUEST cpus=$1 " && says 'rng=virtio_rng' || return
    local mem
    mem=$(sed -n 's/.*GUEST.* mem=\([0-9]*\).*/\1/p' "$out")
    ((mem >= $3 && mem <= $2)) || why "the guest sees $mem MiB"
}

scenario_boot_1_cpu_256m() { boots 1 256 180; }
scenario_boot_4_cpus_5g() { boots 4 5120 4700; }
scenario_boot_mmio() { boots 4 512 400 --machine mmio; }
scenario_boot_full_kernel()
{
    local kernel=$(cat "$work/kernel.full") initrd=$work/initrd.full
    boots 2 512 400
}
scenario_boot_full_kernel_mmio()
{
    local kernel=$(cat "$work/kernel.full") initrd=$work/initrd.full
    boots 1 512 400 --machine mmio
}
scenario_boot_without_cache() { boots 1 256 180 --kernel-cache=off; }
scenario_boot_pit_and_pics() { boots 1 256 180 --pit; }
scenario_boot_vmlinux()
{
    local kernel=$(cat "$work/kernel.vmlinux")
    boots 1 256 180
}

# What Debian's kernels can use of that: processors and interrupts from the MP table, in the full one.
scenario_no_acpi_mp_table_and_device_tree()
{
    local kernel=$(cat "$work/kernel.full") initrd=$work/initrd.full machine=(--machine mmio --acpi=off -c 2 --serial stdio)
    guest 0 no-acpi "${machine[@]}" --dump-dtb "$scratch/dtb" && guest 0 no-acpi "${machine[@]}" || return
    says "GUEST dtb $(sha256sum <"$scratch/dtb")" && says 'GUEST cpus=2 .* 4-edge .*ttyS0'
}

stext() { guest 0 stext "$@" && sed -n 's/.*GUEST \([0-9a-f]*\) T _stext.*/\1/p' "$out"; }
scenario_kaslr_moves_the_kernel()
{
    local a b
    a=$(stext) && b=$(stext) || return
    [[ $a && $b && $a != "$b" ]] || why "_stext is $a, then $b"
}
scenario_nokaslr_leaves_it()
{
    local a b
    a=$(stext -a nokaslr) && b=$(stext --kaslr=off) || return
    [[ $a == ffffffff81000000 && $a == "$b" ]] || why "_stext is $a, then $b"
}

# disk_made FILE: a raw disk with a file system and a file; disk_judged FILE: what the guest did to it is there and whole.
disk_made()
{
    local root=$scratch/root
    rm -rf "$root" "$1"
    mkdir "$root"
    head -c 5000000 /dev/urandom >"$root/from-host"
    (cd "$root" && sha256sum from-host | sed 's,from-host,/mnt/from-host,' >from-host.sum)
    mkfs.ext4 -q -d "$root" "$1" 64M >/dev/null 2>&1 || why 'mkfs.ext4 failed'
}
disk_judged()
{
    local back=$scratch/back sum=$scratch/sum
    e2fsck -fn "$1" >"$scratch/fsck" 2>&1 || { why "fsck: $(tail -n1 "$scratch/fsck")"; return; }
    debugfs -R "dump /from-guest $back" "$1" 2>/dev/null
    debugfs -R "dump /from-guest.sum $sum" "$1" 2>/dev/null
    [[ $(sha256sum <"$back") == "$(sed 's, .*,  -,' "$sum")" ]] || why 'the file from the guest is not what it wrote'
}
img() { "$bothy" img "$@" >"$out" 2>&1 || why "bothy img $1: $(tail -n1 "$out")"; }

disk_round_trip() # OPTION…
{
    local disk=$scratch/disk.raw
    disk_made "$disk" && guest 0 disk -d "$disk" "$@" && says 'GUEST disk done' && disk_judged "$disk"
}
scenario_disk_pci() { disk_round_trip -c 2; }
scenario_disk_mmio() { disk_round_trip -c 2 --machine mmio; }
scenario_disk_qcow2()
{
    local disk=$scratch/disk
    disk_made "$disk.raw" && img convert -O qcow2 "$disk.raw" "$disk.qcow2" &&
        guest 0 disk -c 4 -d "$disk.qcow2,queues=4" && says 'GUEST disk done' && img check "$disk.qcow2" &&
        img convert -O raw "$disk.qcow2" "$disk.raw" && disk_judged "$disk.raw"
}
disk_overlay_on() # FORMAT
{
    local disk=$scratch/disk
    disk_made "$disk.raw" && img convert -O "$1" "$disk.raw" "$disk.$1" &&
        img create -f qcow2 -b "disk.$1" -F "$1" "$disk.qcow2" &&
        guest 0 disk -c 2 -d "$disk.qcow2,queues=2" && says 'GUEST disk done' && img check "$disk.qcow2" &&
        img convert -O raw "$disk.qcow2" "$disk.raw" && disk_judged "$disk.raw"
}
scenario_disk_overlay_on_vmdk() { disk_overlay_on vmdk; }
scenario_disk_overlay_on_vdi() { disk_overlay_on vdi; }
scenario_disk_overlay_on_vhdx() { disk_overlay_on vhdx; }
scenario_disk_encrypted()
{
    local disk=$scratch/disk key=(--object "secret,id=k,file=$scratch/key")
    printf %s 'correct horse' >"$scratch/key"
    disk_made "$disk.raw" &&
        img convert "${key[@]}" -o encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10 "$disk.raw" "$disk.qcow2" &&
        guest 0 disk -c 2 -d "$disk.qcow2,key-file=$scratch/key,queues=2" && says 'GUEST disk done' && img check "$disk.qcow2" &&
        img convert "${key[@]}" -O raw "$disk.qcow2" "$disk.raw" && disk_judged "$disk.raw"
}
scenario_disk_fio_verifies()
{
    local disk=$scratch/disk initrd=$work/initrd.disk
    rm -f "$disk.qcow2"
    img create -f qcow2 "$disk.qcow2" 128M && guest 0 fio -c 4 -m 768M -d "$disk.qcow2,queues=4" &&
        says 'GUEST fio done' && img check "$disk.qcow2"
}
scenario_disk_discard_frees()
{
    local disk=$scratch/disk before after
    disk_made "$disk.raw" && img convert -O qcow2 "$disk.raw" "$disk.qcow2" || return
    before=$(stat -c %b "$disk.qcow2")
    guest 0 trim -c 2 -d "$disk.qcow2,queues=2" && says 'GUEST trim done' && img check "$disk.qcow2" || return
    after=$(stat -c %b "$disk.qcow2")
    ((after < before - 4000000 / 512)) || why "the image had $before blocks and has $after after its file was trimmed"
}
scenario_disk_snapshot_leaves_the_image()
{
    local disk=$scratch/disk before
    disk_made "$disk.raw" && img convert -O vdi "$disk.raw" "$disk.vdi" && before=$(sha256sum "$disk.vdi") &&
        guest 0 disk -c 2 -d "$disk.vdi,snapshot" && says 'GUEST disk done' || return
    [[ $before == "$(sha256sum "$disk.vdi")" ]] || why 'the image has changed'
}
scenario_disk_grows()
{
    local disk=$scratch/disk initrd=$work/initrd.disk answer=''
    disk_made "$disk.raw" && img convert -O qcow2 "$disk.raw" "$disk.qcow2" &&
        started resize -c 4 -m 768M --control "$scratch/ctl" -d "$disk.qcow2,queues=4" &&
        ctl disk0.resize size=256M && ended 0 && says 'GUEST resize done' && img check "$disk.qcow2" &&
        img convert -O raw "$disk.qcow2" "$disk.raw" && disk_judged "$disk.raw"
}
# fs_whole IMAGE: the file system in it is whole once its journal is replayed.
fs_whole()
{
    img convert -O raw "$1" "$scratch/whole.raw" || return
    e2fsck -fp "$scratch/whole.raw" >/dev/null 2>&1
    e2fsck -fn "$scratch/whole.raw" >"$scratch/fsck" 2>&1 || why "fsck: $(tail -n1 "$scratch/fsck")"
}
# Whatever the guest was told to be safe is there after bothy is killed, and nothing is broken.
scenario_disk_power_cuts()
{
    local disk=$scratch/disk root=$scratch/root safe=0 has
    rm -rf "$root" "$disk".*
    mkdir "$root" && echo 0 >"$root/count"
    mkfs.ext4 -q -d "$root" "$disk.raw" 64M >/dev/null 2>&1 || { why 'mkfs.ext4 failed'; return; }
    img convert -O qcow2 "$disk.raw" "$disk.qcow2" || return
    for ((cut = 1; cut <= cuts; cut++)); do
        started power -c 4 -d "$disk.qcow2,queues=4" || return
        has=$(sed -n 's/.*GUEST has \([0-9]*\).*/\1/p' "$out")
        for ((i = 0; i < 3000; i++)); do
            grep -qa "GUEST synced $((safe + 4))\b" "$out" && break
            sleep 0.1
        done
        kill -9 $pid
        wait $pid 2>/dev/null
        ((${has:--1} >= safe)) || { why "the guest finds ${has:-nothing}, and $safe was safe"; return; }
        safe=$(sed -n 's/.*GUEST synced \([0-9]*\)\r.*/\1/p' "$out" | tail -n1)
        [[ $safe ]] || { why "the guest has synced nothing before cut $cut"; return; }
        img check -r leaks "$disk.qcow2" && fs_whole "$disk.qcow2" || return
    done
}
# ctl COMMAND…: asks the guest that was started with "--control $scratch/ctl"; the answer is in $answer.
ctl() { answer=$(timeout "$limit" "$bothy" ctl "$scratch/ctl" "$@" 2>&1) || why "bothy ctl $1: $answer"; }
# The host's disk is full in the middle of the guest's writes: it waits, then goes on, and nothing is lost.
until_paused()
{
    for ((i = 0; i < 600; i++)); do
        ctl status || return
        [[ $answer == *'state: paused'* ]] && return
        sleep 0.2
    done
    why "the guest is not paused: $answer"
}
disk_fills() # FOLDER IMAGE
{
    local answer=''
    img create "$1/$2" 64M &&
        started fill -c 2 -m 512M --control "$scratch/ctl" -d "$1/$2,werror=enospc,queues=2" && until_paused || return
    [[ $answer == *"reason: disk0: write at byte "*" of $1/$2: No space left on device; make room"* ]] ||
        { why "the reason is not told: $answer"; return; }
    says 'is paused: disk0: write at byte' && ctl resume && until_paused || return # there is still no room
    ! grep -qa 'GUEST wrote' "$out" || { why 'the guest has written what cannot be there'; return; }
    mount -o remount,size=128M "$1" && ctl resume && ended 0 && says 'GUEST wrote, and it is the same' &&
        { [[ $2 == *.raw ]] || img check "$1/$2"; }
}
disk_full() # IMAGE
{
    local small=$scratch/small code=0
    mkdir -p "$small" && mount -t tmpfs -o size=24M small "$small" || { why 'no tmpfs'; return; }
    disk_fills "$small" "$1" || code=1
    kill -9 "${pid-}" 2>/dev/null && wait "$pid"
    umount "$small"
    return $code
}
scenario_disk_full_raw() { disk_full disk.raw; }
scenario_disk_full_qcow2() { disk_full disk.qcow2; }
scenario_disk_read_only()
{
    truncate -s 1M "$scratch/ro.raw"
    guest 0 readonly -d "$scratch/ro.raw,ro" && says 'GUEST write refused, ro=1'
}

# As guest.sh has them.
walked() { (cd "$1" && find . | LC_ALL=C sort | while read -r f; do stat -c '%n %f %h %Y' "$f"; readlink "$f"; done | sha256sum); }
content() { (cd "$1" && find . -type f | LC_ALL=C sort | while read -r f; do sha256sum "$f"; done | sha256sum); }
share_made()
{
    rm -rf "$scratch/share"
    mkdir "$scratch/share"
    cp -a vmm/base "$scratch/share/tree"
    head -c 300000 /dev/urandom >"$scratch/share/file"
    ln -s /escaped "$scratch/share/escape"
}
scenario_share_read_only()
{
    local share=$scratch/share before
    share_made
    before=$(walked "$share")
    guest 0 share-ro -c 2 -s "$share:data" && says 'GUEST share done' && says "GUEST walk $before" &&
        says "GUEST again $before" && says "GUEST content $(content "$share")" && says 'GUEST escape of the guest' || return
    ! grep -a 'GUEST not refused' "$out" && [[ $before == "$(walked "$share")" ]] || why 'the share was written to'
}
scenario_share_writable()
{
    local share=$scratch/share
    rm -rf "$share"
    mkdir "$share"
    guest 0 share-rw -c 4 -s "$share:data,rw" && says 'GUEST share done' && says "GUEST walk $(walked "$share")" &&
        says "GUEST content $(content "$share")" || return
    ! grep -aE 'GUEST (exercise|lost|made)' "$out" || why 'something was lost'
}
scenario_share_copy_on_write()
{
    local share=$scratch/share before was
    share_made
    before=$(walked "$share") was=$(content "$share")
    TMPDIR=$scratch guest 0 share-cow -c 2 -s "$share:data,cow" && says 'GUEST share done' && says 'GUEST left 0' &&
        says "GUEST walk $before" && says "GUEST anew $before" || return
    ! grep -aE 'GUEST (bad|exercise|cannot)' "$out" || { why 'something went wrong in the guest'; return; }
    [[ $before == "$(walked "$share")" && $was == "$(content "$share")" ]] || { why 'the host files have changed'; return; }
    ! ls -d "$scratch"/bothy-share-* >"$scratch/left" 2>/dev/null || why 'a temporary directory is left'
}

# A writable share and a cow share, each on a file system that can do all, beside a disk with one of the guest's own.
share_proved() # FOLDER: with such a file system on it
{
    local share=$1/rw/names seeds=1 limit=$limit
    ((cuts == 3)) || seeds=50 limit=2000
    mkdir -p "$share"/{a/b/c,d/e} "$1/tmp" && head -c 100000 /dev/urandom >"$share/a/c" && echo text >"$share/b" && ln "$share/b" "$share/d/b" &&
        ln -s a/c "$share/c" && ln -s none "$share/a/e" && mkfifo "$share/e" && chmod 4755 "$share/b" && chmod 2775 "$share/a/b" &&
        chmod 1777 "$share/d" && chown -R 1000:1000 "$share/d/e" && cp /bin/busybox "$1/rw/file" && cp -a "$1/rw" "$1/cow" || return
    TMPDIR=$1/tmp guest 0 share-proof -c 2 --machine mmio -s "$1/rw:rw,rw" -s "$1/cow:cow,cow" -d "$scratch/own.raw" \
        -a "seeds=$seeds data=100 names=300" && says 'GUEST share done' || return
    ! grep -a 'is not known here' "$out" || { why 'something was not tried'; return; }
    cmp /bin/busybox "$1/cow/file" || why 'the cow share has changed'
}
on_ext4() # COMMAND: with a folder that has all that ext4 can do
{
    local folder=$scratch/ext4 code=0
    truncate -s 256M "$scratch/ext4.raw" && mkfs.ext4 -q -b 4096 "$scratch/ext4.raw" && mkdir "$folder" &&
        mount -o loop "$scratch/ext4.raw" "$folder" || { why 'no ext4'; return; }
    "$1" "$folder" || code=1
    umount "$folder"
    return $code
}
scenario_share_like_a_disk_mmio()
{
    truncate -s 256M "$scratch/own.raw" && mkfs.ext4 -q -b 4096 "$scratch/own.raw" && on_ext4 share_proved
}

# The host's disk is full, bothy's open files are few, what the guest has looked at is moved and replaced, a share's folder
# is removed, and another guest uses the same share.
share_faults()
{
    local within=(sh -c 'ulimit -n 1024 && exec "$@"' sh)
    local shares=(-s "$scratch/small:small,rw" -s "$scratch/many:many,rw" -s "$scratch/seen:seen,rw,cache=always" -s "$scratch/gone:gone,rw")
    mkdir -p "$scratch"/{many,seen/folder,gone} && echo kept >"$scratch/gone/file" && echo text >"$scratch/many/file" &&
        echo old >"$scratch/seen/file" && echo other >"$scratch/seen/other" || return
    (ulimit -n 100 && timeout "$limit" "$bothy" run -k "$kernel" -s "$scratch/many" >"$out" 2>&1)
    says 'takes 256 open files, and the limit is 100; raise it (ulimit -n)' || return
    out=$scratch/out2 started share-appends -s "$scratch/many:many,rw" && second=$pid || return
    started share-faults "${shares[@]}" && until_says 'GUEST looked' || return
    echo new >"$scratch/new" && mv "$scratch/new" "$scratch/seen/file" && mv "$scratch/seen/other" "$scratch/seen/moved" &&
        mv "$scratch/seen/folder" "$scratch/seen/elsewhere" && : >"$scratch/many/moved" && until_says 'GUEST found' || return
    rm -r "$scratch/gone"
    ended 0 && says 'GUEST had no room' && says 'GUEST had too many files' && says 'GUEST lost a share' &&
        pid=$second ended 0 || return
    [[ $(<"$scratch/small/after") == again && ! -e $scratch/small/large && -e $scratch/seen/elsewhere/made ]] ||
        { why 'the shares are not as the guest left them'; return; }
    [[ $(sort "$scratch/many/log") == "$(printf '%-15s\n' one\ {1..200} two\ {1..200} | sort)" ]] ||
        why 'not all lines of both guests are there'
}
scenario_share_faults()
{
    local code=0 pid='' second=''
    mkdir -p "$scratch/small" && mount -t tmpfs -o size=4M small "$scratch/small" || { why 'no tmpfs'; return; }
    share_faults || { code=1; kill -9 $pid $second; wait $pid $second; } 2>/dev/null
    umount "$scratch/small"
    return $code
}

echoes() # TTY OPTION…
{
    rm -f "$scratch/typed" && mkfifo "$scratch/typed" || return
    (until grep -qa 'GUEST listens' "$out"; do sleep 0.2; done; echo 'over the wire') >"$scratch/typed" &
    guest 0 echo -a "tty=$1" "${@:2}" <"$scratch/typed" && says 'GUEST heard over the wire'
}
scenario_console_both_ways() { : >"$out"; echoes hvc0 --console stdio; }
scenario_serial_both_ways() { : >"$out"; echoes ttyS0; }

# with_servers COMMAND…: while servers.py runs, whose ports are then in port4, port6 and iperf.
with_servers()
{
    local code=0
    coproc servers { exec python3 guest-tests/linux/servers.py 2>"$scratch/servers"; }
    read -r -t "$limit" port4 port6 iperf <&"${servers[0]}" || { why "no servers: $(tail -n1 "$scratch/servers")"; return; }
    "$@" || code=$?
    kill "$servers_PID"
    wait "$servers_PID" 2>/dev/null
    return $code
}
# until_says TEXT: the guest, some time.
until_says()
{
    for ((i = 0; i < 3000; i++)); do
        grep -qa "$1" "$out" && return
        kill -0 $pid 2>/dev/null || break
        sleep 0.2
    done
    says "$1"
}
# sound CAPTURE: what tshark reads of it is whole, with right checksums; it does not like TCP's 0xffff, which Linux writes
# for 0. seen CAPTURE FILTER: some of it is so.
sound()
{
    local bad
    bad=$(tshark -n -r "$1" -o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE -Y '_ws.malformed ||
        ip.checksum.status == 0 || (tcp.checksum.status == 0 && tcp.checksum != 0xffff) || udp.checksum.status == 0 ||
        icmp.checksum.status == 0 || icmpv6.checksum.status == 0' 2>"$scratch/tshark") || { why "tshark: $(tail -n1 "$scratch/tshark")"; return; }
    [[ ! $bad ]] || why "in the capture: ${bad%%$'\n'*}"
}
seen() { [[ $(tshark -n -l -r "$1" -Y "$2" 2>/dev/null | head -n 1) ]] || why "nothing of \"$2\" in the capture"; }
ask() { timeout 300 python3 guest-tests/linux/ask.py "$@"; }
# forward PROTOCOL: the port of the host's that is forwarded.
forward() { sed -n "s/.*$1 127.0.0.1:\([0-9]*\) is forwarded.*/\1/p" "$out"; }

# on_user_net OPTION…: a guest that asks for all there is, and at last serves the host, which gets what follows GUEST www.
on_user_net()
{
    local within=(unshare -m sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$scratch/resolv.conf") code=0
    echo 'nameserver 127.9.9.9' >"$scratch/resolv.conf"
    started net -m 256M --net "user$1" -p 127.0.0.1:0:80 -a "port4=$port4 port6=$port6 ${words-}" || return
    until_says 'GUEST serves' && www=$(timeout 300 busybox wget -q -O - "http://127.0.0.1:$(forward tcp)/index.html") ||
        { why "the guest's server cannot be reached"; code=1; }
    ((code)) || [[ ! ${2-} ]] || "$2" || code=1
    kill -INT $pid
    ended 130 && ((!code))
}
zeroes=$(head -c 8388608 /dev/zero | sha256sum)
served='served by the guest'
all_forwards()
{
    local large
    large=$(head -c 60000 /dev/zero | tr '\0' x)
    [[ $(ask udp "$(forward udp)" "$large") == "$large" ]] || { why "no echo over UDP"; return; }
    [[ $(ask unix "$scratch/www" $'GET /index.html HTTP/1.0\r\n\r\n') == *"$served" ]] || why "nothing is served by the socket"
}
net_all()
{
    local capture=$scratch/net.pcap initrd=$work/initrd.net words=iperf=$iperf
    on_user_net ",host-loopback,pcap=$capture,hostfwd=udp:127.0.0.1:0-:7,hostfwd=unix:$scratch/www-:80,guestfwd=tcp:10.0.2.100:7-cmd:sed \
s/what/this/" all_forwards && says 'GUEST lease 10.0.2.15 10.0.2.2 10.0.2.3' && says 'GUEST mtu=65520' &&
        says "GUEST host4 $zeroes" && says "GUEST host6 $zeroes" && says 'GUEST name 192.0.2.7' && says 'GUEST pong' &&
        says 'GUEST asked this' && says 'GUEST measured both ways' || return
    [[ $www == "$served" ]] || { why "the guest serves \"$www\""; return; }
    # Packets are as large as they get, without a word to the guest but by the card and DHCP.
    sound "$capture" && seen "$capture" 'udp.srcport == 7 && frame.len > 60000' &&
        seen "$capture" 'udp.dstport == 7 && frame.len > 60000' && seen "$capture" 'ip && tcp && frame.len > 9014' &&
        seen "$capture" 'ipv6 && frame.len > 9014' && seen "$capture" 'dhcp.option.interface_mtu == 65520'
}
net_no_loopback()
{
    on_user_net '' && says 'GUEST lease 10.0.2.15' && says 'GUEST name 192.0.2.7' && ! grep -qa "$zeroes" "$out"
}
net_restricted()
{
    on_user_net ,host-loopback,restrict && says 'GUEST lease 10.0.2.15' && ! grep -qaE "$zeroes|GUEST name" "$out" || return
    [[ $www == "$served" ]] || why "the guest serves \"$www\""
}
# Connections outlive a cable that is pulled now and then, and a guest that reboots amid them finds a network again.
net_flaps_and_reboots()
{
    local answer=''
    truncate -s 1M "$scratch/count.raw"
    printf 1 | dd of="$scratch/count.raw" conv=notrunc status=none
    started flaps -m 256M -c 2 --net user,host-loopback -d "$scratch/count.raw" -a "port4=$port4" --control "$scratch/ctl" &&
        until_says 'GUEST loads' || return
    for ((n = 0; n < 5; n++)); do
        ctl net0.link state=down && sleep 0.2 && ctl net0.link state=up && sleep 0.5 || return
    done
    ended 0 && says "GUEST fetched 1 $zeroes" && says "GUEST fetched 2 $zeroes"
}
scenario_net_user() { with_servers net_all; }
scenario_net_user_without_loopback() { with_servers net_no_loopback; }
scenario_net_user_restricted() { with_servers net_restricted; }
scenario_net_user_flaps_and_reboots() { with_servers net_flaps_and_reboots; }

# on_lan NAME NUMBER DOES: a guest on that lan, with 10.9.0.NUMBER, in the background until it says "GUEST …"; sets pid.
on_lan()
{
    out=$scratch/out$2
    XDG_RUNTIME_DIR=$scratch started wire -m 256M -n "lan=$1" -a "me=$2 do=$3 mib=3"
}
# One guest fetches from another, then sends and fetches with 10 ms between them; a third is on another lan, and who was
# the first on this one ends badly meanwhile.
scenario_lan()
{
    local first server fetcher code=0 initrd=$work/initrd.net
    on_lan one 9 serve && first=$pid && on_lan one 1 serve && server=$pid || return
    on_lan two 2 ping && ended 0 && says 'GUEST is alone' && on_lan one 3 fetch && fetcher=$pid || code=1
    kill -9 "$first"
    ((code)) || {
        pid=$fetcher && ended 0 && says "GUEST fetched $(head -c 3145728 /dev/zero | sha256sum)" &&
            says 'GUEST measured both ways' || code=1
    }
    kill -9 "$server"
    wait "$first" "$server" 2>/dev/null
    return $code
}

# With a tap, where nobody else is. on_tap OPTION…: a guest that has fetched from the host serves it.
on_tap()
{
    started wire -m 256M -c 2 --control "$scratch/ctl" -n "tap,ifname=tap0,queues=2,$1" -a "me=2 do=exchange mib=2 ${2-}" &&
        until_says 'GUEST serves' && says "GUEST fetched $want"
}
tap_fetches()
{
    [[ $("${within[@]}" timeout 300 busybox wget -q -O - http://10.9.0.2/zeroes | sha256sum) == "$want" ]] ||
        why 'the host has fetched something else'
}
# Large segments come and go as they are.
tap_here()
{
    local capture=$scratch/net.pcap
    on_tap "pcap=$capture" && tap_fetches && ctl net0.info && [[ $answer == *'vhost-rings: 0'* ]] && kill -INT $pid && ended 130 &&
        sound "$capture" && seen "$capture" 'ip.src == 10.9.0.2 && frame.len > 1514' && seen "$capture" 'ip.dst == 10.9.0.2 && frame.len > 1514'
}
# tap_count: sets sent, to the bytes that the guest has.
tap_count()
{
    ctl net0.info && [[ $answer =~ interface:\ .*tx-bytes=([0-9]+) ]] && sent=${BASH_REMATCH[1]} || why "nothing counted: $answer"
}
# The kernel has all four rings, and again after whatever takes them away from it: drivers, pauses, cables.
tap_in_the_kernel()
{
    local sent before
    on_tap vhost=on restarts=1 && tap_fetches && ctl pause && ctl resume && tap_fetches && ctl net0.link state=down &&
        ctl net0.info && [[ $answer == *'vhost-rings: 0'* ]] && ctl net0.link state=up && tap_count || return
    before=$sent
    tap_fetches && tap_count || return
    [[ $answer == *'vhost-rings: 4'* ]] || { why "the kernel does not serve the rings: $answer"; return; }
    ((sent - before > 2097152)) || { why "the kernel counts $((sent - before)) bytes"; return; }
    kill -INT $pid
    ended 130
}
tap_both_ways()
{
    local www=$scratch/www want answer=''
    mkdir -p "$www" && head -c 2097152 /dev/zero >"$www/zeroes" && want=$(sha256sum <"$www/zeroes")
    ip -n lab link set lo up && ip -n lab tuntap add tap0 mode tap multi_queue && ip -n lab addr add 10.9.0.1/24 dev tap0 &&
        ip -n lab link set tap0 up && "${within[@]}" busybox httpd -h "$www" || { why 'no tap'; return; }
    tap_here && tap_in_the_kernel
}
scenario_tap()
{
    local within=(ip netns exec lab) code=0
    ip netns add lab || { why 'no network namespace'; return; }
    tap_both_ways || code=1
    ip netns pids lab | xargs -r kill -9
    ip netns del lab
    return $code
}

scenario_reboot_starts_anew()
{
    truncate -s 1M "$scratch/count.raw"
    printf 1 | dd of="$scratch/count.raw" conv=notrunc status=none
    guest 0 reboot -d "$scratch/count.raw" && says 'GUEST boot 1' && says 'GUEST boot 2'
}
scenario_no_reboot_ends()
{
    printf 1 | dd of="$scratch/count.raw" conv=notrunc status=none
    guest 0 reboot -d "$scratch/count.raw" --no-reboot && says 'GUEST boot 1' && ! grep -qa 'GUEST boot 2' "$out"
}
scenario_sigterm_presses_the_button()
{
    started button || return
    kill -TERM $pid
    ended 0 && says 'GUEST button'
}
scenario_second_sigterm_ends_at_once()
{
    local answer=''
    started wait --control "$scratch/ctl" || return
    kill -TERM $pid
    ctl status # answered after the signal was taken: two that wait are one
    kill -TERM $pid
    ended 130
}
# The driver of Linux finds what it was promised, and the cable can be pulled; nobody is on this network.
network_card() # OPTION…
{
    local answer='' mac=52:54:00:12:34:56
    started card -c 2 --control "$scratch/ctl" -n "null,mac=$mac,mtu=9000,queues=2,pcap=$scratch/net.pcap" "$@" &&
        until_says 'GUEST sent [1-9][0-9]* frames, errors 0' && says "GUEST mac=$mac mtu=9000 " &&
        says 'queues=.*rx-0 .*rx-1 .*tx-0 .*tx-1' && says 'GUEST has a link' && says 'GUEST has another address' &&
        ctl net0.link state=down && until_says 'GUEST lost its link' && ctl net0.link state=up || return
    ended 0 || return
    # Of the ARP request: from whom, Ethernet and IPv4, asking, and again from whom.
    od -An -tx1 -v "$scratch/net.pcap" | tr -d ' \n' | grep -q 'ffffffffffff52540000000908060001080006040001525400000009' ||
        why "no ARP request in the capture"
}
scenario_network_card_pci() { network_card; }
scenario_network_card_mmio() { network_card --machine mmio; }
ticks() { grep -ca 'GUEST tick' "$out"; }
scenario_pause_and_resume()
{
    local before answer=''
    started ticks -c 2 --control "$scratch/ctl" && ctl pause && sleep 1 || return
    before=$(ticks)
    sleep 3
    [[ $before == "$(ticks)" ]] || { why 'a paused guest goes on'; return; }
    ctl resume || return
    for ((i = 0; i < 1500; i++)); do (($(ticks) > before + 5)) && break; sleep 0.2; done
    (($(ticks) > before + 5)) || { why 'a resumed guest stands still'; return; }
    ctl powerdown && ended 0 && says 'GUEST button' || return
    ! grep -qa 'GUEST wonders' "$out" || why 'the guest has noticed'
}
scenario_balloon_takes_memory()
{
    guest 0 balloon -m 512M --device virtio-balloon,size=256M || return
    local mem
    mem=$(sed -n 's/.*GUEST free=\([0-9]*\).*/\1/p' "$out")
    ((mem < 240)) || why "the guest still has $mem MiB of 512 free"
}
resident() { echo $(($(sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" /proc/$pid/status) / 1024)); } # MiB
scenario_free_memory_comes_back()
{
    started free -m 512M --device virtio-balloon || return
    local full now i
    full=$(resident VmHWM) # the most until now: the guest frees it at once
    for ((i = 0; i < 300; i++)); do
        now=$(resident VmRSS)
        ((now < full - 150)) && break
        sleep 0.2
    done
    kill -KILL $pid
    wait $pid 2>/dev/null
    ((full > 200 && now < full - 150)) || why "$full MiB were resident and $now are after the guest freed 200"
}
scenario_memory_shared() { boots 2 512 400 --memory-backing shared; }
# on_huge_pages KIB COUNT MIB: a guest of that much RAM on so many pages of that size, which are free again afterwards.
on_huge_pages()
{
    local pool=/sys/kernel/mm/hugepages/hugepages-$1kB free
    echo "$2" >"$pool/nr_hugepages"
    [[ $(<"$pool/nr_hugepages") == "$2" ]] || { why "the host cannot reserve $2 pages of $1 KiB"; return; }
    boots 1 "$3" $(($3 - 80)) --memory-backing hugetlb --hugepage-size "$1K" || return
    free=$(<"$pool/free_hugepages")
    echo 0 >"$pool/nr_hugepages"
    ((free == $2)) || why "$free huge pages are free afterwards, not $2"
}
scenario_memory_hugetlb() { on_huge_pages 2048 140 256; }
scenario_memory_hugetlb_1g() { on_huge_pages 1048576 1 1024; }
scenario_panic_ends_with_126() { guest 126 panic; }

# bundled OPTION…: a panic, the bundle's summary begins with what happened and where; log and back-traces say so, too.
bundled()
{
    local dir=$scratch/bundle
    rm -rf "$dir"
    guest 126 panic -c 2 "$@" || return
    grep -q '^panic in sysrq_handle_crash: Kernel panic' "$dir/summary" ||
        { why "the summary begins with: $(head -n1 "$dir/summary")"; return; }
    grep -q 'Trigger a crash' "$dir/kernel.log" || { why 'the log is not whole'; return; }
    grep -q '^  sysrq_handle_crash+' "$dir/cpus" || why 'no back-trace leads there'
}
scenario_panic_leaves_a_bundle()
{
    bundled --core || return
    gdb -nx -batch -ex 'thread 2' -ex 'x/i $pc' "$(cat "$work/kernel.vmlinux")" "$scratch/bundle/vmcore" >"$out" 2>&1
    says '^=> 0x'
}
scenario_panic_that_reboots_leaves_a_bundle() { bundled -a 'panic=-1 module_blacklist=pvpanic_mmio'; }
scenario_splat_ends_with_126() { guest 126 splat --fail-on oops && says 'kernel says: BUG: unable to handle page fault'; }

# asked COMMAND…: gdb at the guest; what it prints is in $scratch/said.
asked()
{
    local words=()
    for word; do words+=(-ex "$word"); done
    timeout "$limit" gdb -nx -batch -iex 'set remotetimeout 100' -ex "target remote $scratch/gdb" "${words[@]}" >"$scratch/said" 2>&1
    grep -q 'CPU 1, ' "$scratch/said" || why "gdb says: $(tail -n1 "$scratch/said")"
}
scenario_gdb_looks_and_leaves()
{
    local banner
    started gdb -c 2 --gdb "unix:$scratch/gdb" || return
    banner=$(sed -n 's/.*GUEST banner \([0-9a-f]*\).*/\1/p' "$out")
    asked 'info threads' "x/s 0x$banner" 'set $was = $pc' 'stepi 3' 'p $pc != $was' 'p $cr3 != 0' detach || return
    grep -q 'Linux version' "$scratch/said" || { why 'gdb cannot read memory'; return; }
    [[ $(grep -c ' = 1$' "$scratch/said") == 2 ]] || { why 'gdb steps nowhere'; return; }
    asked 'info threads' kill && ended 130
}
scenario_exit_port_sets_the_code() { guest 7 code; }

# tests WANTED-CODE OPTION… -- COMMAND…: one run of bothy test; its streams are in $out and $scratch/err.
tests()
{
    local want=$1 code=0
    shift
    timeout -k 60 "$limit" "$bothy" test --boot-timeout "$limit" -k "$kernel" "$@" >"$out" 2>"$scratch/err" || code=$?
    [[ $code == "$want" ]] || why "bothy test ended with $code, not $want: $(tail -n 1 "$scratch/err")"
}
complains() { grep -qa "$1" "$scratch/err" || why "no \"$1\" on standard error: $(tail -n 1 "$scratch/err")"; }
scenario_test_carries_streams_user_and_code()
{
    head -c 3000000 /dev/urandom >"$scratch/in"
    tests 7 --user nobody --cwd /usr/lib -- \
        sh -c 'cat; (id -un; pwd; tty; echo "$WORD"; echo again >/dev/stderr; touch /etc/mine) >&2; exit 7' <"$scratch/in" || return
    cmp "$scratch/in" "$out" || why 'the input did not come back whole' || return
    complains '^nobody$' && complains '^/usr/lib$' && complains 'not a tty' && complains '^a word$' && complains '^again$' &&
        complains 'touch.*Permission denied'
}
test_on_user_net()
{
    tests 139 --machine mmio -n user,net=10.7.0.0/16,host-loopback -- \
        sh -c "cat /etc/resolv.conf; busybox wget -q -O - http://10.7.0.2:$port4 | sha256sum; kill -SEGV \$\$" && complains 'signal 11' &&
        says '^nameserver 10.7.0.3$' && says "^$zeroes"
}
scenario_test_command_killed_on_user_net() { with_servers test_on_user_net; }

# Its guest is kept first, then leaves the bundle.
scenario_test_command_silent()
{
    : >"$scratch/err"
    timeout "$limit" "$bothy" test -k "$kernel" --silence-timeout 10 --bundle "$scratch/hung" --keep --control "$scratch/control" -- \
        sh -c 'echo begun; (sleep 1000 &); sleep 1000' </dev/null >"$out" 2>"$scratch/err" &
    pid=$!
    until grep -q 'is kept for bothy ctl' "$scratch/err" || ! kill -0 $pid; do sleep 0.2; done
    "$bothy" ctl "$scratch/control" status >"$scratch/status"
    kill $pid
    ended 124 && says '^begun$' && complains 'timeout: not a byte of output after 10 s; .*see .*/hung' || return
    grep -q '^state: running' "$scratch/status" || why "the kept guest's status is $(cat "$scratch/status")" || return
    grep -q '^CPU 0, looked at 5 times: ' "$scratch/hung/summary" || why "the summary is $(cat "$scratch/hung/summary")"
}
scenario_test_panic_is_a_crash()
{
    tests 126 --bundle "$scratch/died" -- sh -c 'echo c >/proc/sysrq-trigger' &&
        complains 'crash: .*sysrq triggered crash; see .*/died' || return
    head -n1 "$scratch/died/summary" | grep -q sysrq_handle_crash || why "the summary begins with $(head -n1 "$scratch/died/summary")"
}
# scripted VMLINUX WORD…: what gdb, with the scripts of that kernel, makes of commands.
scripted()
{
    timeout "$limit" gdb -nx -batch -iex 'set remotetimeout 100' -iex 'set auto-load safe-path /' "$@" >"$scratch/said" 2>&1
}
tells() { grep -qa -- "$1" "$scratch/said" || why "no \"$1\" from gdb: $(tail -n 1 "$scratch/said")"; }
# A bare file: what it has is known by the configuration in it.  Its program's 40 MB are not in the core.
scenario_own_kernel_panics_for_debuggers()
{
    local kernel=$scratch/kernel.own own size
    own=$(dirname "$(cat "$work/kernel.own")")
    cp "$own/bzImage" "$kernel" && tests 126 -c 2 --lean-core --bundle "$scratch/died" -- \
        sh -c "busybox insmod '$own/lib/crc7.ko'; data=\$(tr '\\0' x </dev/zero | head -c 40000000); echo c >/proc/sysrq-trigger" || return
    grep -q '^CONFIG_IKCONFIG=y$' "$scratch/died/kernel.config" || { why 'no configuration in the bundle'; return; }
    size=$(du -m "$scratch/died/vmcore" | cut -f 1)
    ((size < 40)) || { why "the core has $size MiB"; return; }
    printf 'log\nbt\nexit\n' | crash -s "$own/vmlinux" "$scratch/died/vmcore" >"$out" 2>&1
    says 'sysrq: Trigger a crash' && says '^PID: .*COMMAND: "sh"' && says '^ *#[0-9]* .* panic at ' && says ' write_sysrq_trigger at ' || return
    scripted "$own/vmlinux" "$scratch/died/vmcore" -ex lx-version -ex lx-dmesg -ex lx-ps -ex "lx-symbols $own" \
        -ex 'info address crc7_be'
    tells '^Linux version' && tells 'sysrq: Trigger a crash' && tells '^0x.* 1 .*init' &&
        tells 'crc7_be" is a function at address 0x' || return
    tests 126 -c 2 --packed-core --bundle "$scratch/died" -- sh -c 'echo c >/proc/sysrq-trigger' || return
    printf 'log\nbt\nexit\n' | crash -s "$own/vmlinux" "$scratch/died/vmcore" >"$out" 2>&1
    says 'sysrq: Trigger a crash' && says ' write_sysrq_trigger at '
}
# Breakpoints are guest-tests' business: this rig's emulator does not have those of a guest in a guest.
scenario_own_kernel_has_scripts_for_gdb()
{
    local own kernel at
    own=$(dirname "$(cat "$work/kernel.own")") kernel=$own/bzImage
    : >"$out"
    timeout "$limit" "$bothy" test -k "$kernel" -a nokaslr --gdb "unix:$scratch/gdb" -- \
        sh -c "busybox insmod '$own/lib/crc7.ko'; grep ' crc7_be' /proc/kallsyms; sleep 1000" </dev/null >"$out" 2>"$scratch/err" &
    pid=$!
    until grep -q crc7_be "$out" || ! kill -0 $pid; do sleep 0.2; done
    at=$(sed -n 's/^\([0-9a-f]*\) .* crc7_be.*/\1/p' "$out")
    scripted "$own/vmlinux" -ex "target remote $scratch/gdb" -ex lx-version -ex lx-dmesg -ex lx-ps \
        -ex "lx-symbols $own" -ex 'info address crc7_be' -ex 'p $lx_task_by_pid(1)->comm' -ex kill
    ended 130 && tells '^Linux version' && tells 'Command line: .*nokaslr' && tells '^0x.* 1 .*init' &&
        tells "crc7_be\" is a function at address 0x$at" && tells ' = "init"'
}
scenario_own_kernel_tests_itself()
{
    local kernel
    kernel=$(cat "$work/kernel.own")
    tests 0 --kunit 'list*' && says '^pass .* tests: [1-9][0-9]* passed$' && tests 125 --kunit 'nosuch*' &&
        says 'no KUnit suite in this kernel is called "nosuch\*"'
}
# The kernel survives both, and the command has ended at once.
scenario_own_kernel_oopses()
{
    local kernel what
    kernel=$(cat "$work/kernel.own")
    for what in oops:EXCEPTION bug:BUG; do
        tests 126 --fail-on ${what%:*} --bundle "$scratch/died" -- \
            sh -c "echo ${what#*:} >/sys/kernel/debug/provoke-crash/DIRECT" || return
        grep -q "^${what%:*} in lkdtm_${what#*:}: " "$scratch/died/summary" || why "$(head -n 1 "$scratch/died/summary")" || return
    done
}
scenario_test_kernel_in_a_package_powers_off()
{
    local version=${kernel##*/vmlinuz-} tree=$scratch/tree from to folder
    from=${kernel%/*}/../lib/modules/$version to=$tree/lib/modules/$version
    mkdir -p "$tree/DEBIAN" "$tree/boot" "$to" && cp "$kernel" "$tree/boot" && cp "$from"/modules.{order,builtin} "$to" || return
    printf 'Package: kernel\nVersion: 1\nArchitecture: amd64\nMaintainer: none\nDescription: none\n' >"$tree/DEBIAN/control"
    for folder in fs/fuse drivers/{virtio,misc/pvpanic,char}; do
        mkdir -p "$to/kernel/${folder%/*}" && cp -r "$from/kernel/$folder" "$to/kernel/$folder" || return
    done
    dpkg-deb -Zgzip -z1 --root-owner-group -b "$tree" "$scratch/kernel.deb" >"$out" && rm -r "$tree" || return
    local kernel=$scratch/kernel.deb
    tests 126 -- sh -c 'uname -r; busybox poweroff -f' && complains 'before its command ended' && says "^$version$"
}
scenario_test_leaves_files_as_they_were()
{
    local kernel=$(cat "$work/kernel.full") was
    mkdir "$scratch/tree" && cp /etc/passwd /bin/busybox "$scratch/tree" && ln -s passwd "$scratch/tree/link" || return
    was=$(cd "$scratch" && tar -c tree | sha256sum; sha256sum /etc/passwd)
    tests 0 --profile-boot --log "$scratch/log" -- sh -c "cd '$scratch' && echo more >>tree/passwd && chown 5:6 tree/busybox && rm tree/link &&
        mv tree moved && echo more >>/etc/passwd && rm /etc/hostname && cat moved/passwd" || return
    says '^more$' && [[ $(cd "$scratch" && tar -c tree | sha256sum; sha256sum /etc/passwd) == "$was" ]] ||
        why "the host's files have changed" || return
    grep -q 'Linux version' "$scratch/log" || why "the kernel's log lacks its beginning" || return
    complains "^boot profile: .* to the command's first byte\$" && complains '^ .* s  kernel: initcalls$' &&
        complains '^ .* s  initcall [a-z_]*_init' && complains '^ .* ×  pci-ecam$'
}
scenario_test_root_on_a_disk()
{
    local was
    mkdir -p "$scratch/root"/{bin,etc,proc,sys,dev,run,tmp} && cp /bin/busybox "$scratch/root/bin/sh" &&
        cp /bin/busybox "$scratch/root/bin/cat" && truncate -s 64M "$scratch/root.raw" &&
        mkfs.ext4 -q -d "$scratch/root" "$scratch/root.raw" || return
    was=$(sha256sum "$scratch/root.raw")
    tests 3 --root "$scratch/root.raw" -- sh -c 'echo x >/etc/new && echo written && cat /proc/mounts; exit 3' && says '^written$' &&
        says '^/dev/vda / ext4' || return
    [[ $(sha256sum "$scratch/root.raw") == "$was" ]] || why 'the image has changed'
}
# With no more than systemd itself, and one target.
scenario_test_as_a_unit_of_systemd()
{
    local root=$scratch/unit
    mkdir -p "$root"/usr/{bin,lib/systemd/system,lib64} "$root"/{etc,proc,sys,dev,run,tmp} && ln -s usr/{bin,lib,lib64} "$root" &&
        cp -L --parents /lib/systemd/systemd $(ldd /lib/systemd/systemd | grep -o '/[^ ]*') "$root" &&
        cp /bin/busybox "$root/bin/sh" && ln -s sh "$root/bin/cat" && ln -s sh "$root/bin/hostname" &&
        echo '[Unit]' >"$root/lib/systemd/system/basic.target" || return
    tests 6 --systemd --root "$root" -a systemd.unit=basic.target -- \
        sh -c 'cat /proc/1/comm /proc/self/cgroup; echo apart >&2; hostname; exit 6' &&
        says '^systemd$' && says '/bothy.service$' && says '^bothy$' && complains '^apart$'
}
# A kernel whose modules leave it nothing but memory and virtio-mmio.
scenario_test_root_in_memory()
{
    local version=${kernel##*/vmlinuz-} from modules=$scratch/poor root=$scratch/small
    from=${kernel%/*}/../lib/modules/$version
    mkdir -p "$modules" "$root"/{bin,etc,proc,sys,dev,run,tmp} && ln -s "$from/kernel" "$modules" &&
        cp "$from/modules.builtin" "$modules" && sed '/virtiofs/d; /virtio_pci/d' "$from/modules.dep" >"$modules/modules.dep" &&
        cp /bin/busybox "$root/bin/sh" && ln -s sh "$root/bin/cat" || return
    tests 3 --modules "$modules" --root "$root" -- sh -c 'echo written >/etc/new; cat /etc/new; exit 3' && says '^written$' &&
        complains 'no CONFIG_VIRTIO_PCI' && complains 'no CONFIG_VIRTIO_FS' || return
    [[ ! -e $root/etc/new ]] || { why 'the directory has changed'; return; }
    tests 125 --modules "$modules" -- true && complains 'no CONFIG_VIRTIO_FS, which it needs' || return
    cp "$kernel" "$scratch/alone" && kernel=$scratch/alone tests 125 -- true &&
        complains 'no virtio console (CONFIG_VIRTIO_CONSOLE); no modules of its kernel are known'
}
scenario_test_at_a_terminal()
{
    timeout -k 5 "$limit" script -qec "stty rows 31 cols 97; '$bothy' test -k '$kernel' --shell-on-failure -- sh -c 'stty size; tty; exit 5'" \
        /dev/null <<<'echo the answer is $((6 * 7)); exit' >"$out" && why 'no code' && return 1
    says '^31 97' && says '^/dev/pts/' && says 'sh ended with code 5' && says 'the answer is 42'
}
# The guest has no memory left, what it writes has no room here, it reboots, and the terminal goes away.
scenario_test_hard_ends()
{
    local small=$scratch/no-room code=0
    tests 137 -m 160M -- tail /dev/zero || return
    mkdir "$small" && mount -t tmpfs -o size=8M small "$small" || { why 'no tmpfs'; return; }
    TMPDIR=$small tests 1 -- dd if=/dev/zero of=/large bs=1M count=20 && complains 'No space left on device' || code=1
    [[ ! $(ls -A "$small") ]] || { why 'something is left there'; code=1; }
    umount "$small"
    ((!code)) && tests 126 -- busybox reboot -f && complains 'before its command ended' || return
    timeout -k 5 "$limit" python3 - "$bothy" test -k "$kernel" -- sh -c 'echo begun; sleep 1000' <<'EOF' || code=$?
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], sys.argv[1:])
said = b''
while b'begun' not in said:
    said += os.read(terminal, 4096)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
EOF
    [[ $code == 130 ]] || why "it ended with $code when its terminal went away"
}
scenario_test_matrix_in_junit()
{
    local xml=$scratch/report.xml
    tests 1 -j2 --matrix "kernel=$(cat "$work/kernel.cloud"),$(cat "$work/kernel.full")" --matrix cpus=1,2 --format junit --report "$xml" -- \
        sh -c 'echo 1..2; echo ok 1 - speaks; [ $(nproc) = 1 ] && echo ok 2 - alone || echo "not ok 2 - alone"' || return
    python3 - "$xml" >"$out" <<'EOF'
import sys
import xml.etree.ElementTree as E
t = E.parse(sys.argv[1]).getroot()
print(len(t.findall('testsuite')), 'suites', *(t.get(k) for k in ('tests', 'failures', 'errors')))
print('failed', *sorted(c.get('classname').rsplit(' ', 1)[1] + '.' + c.get('name') for c in t.iter('testcase') if len(c)))
print(len({p.get('value') for p in t.iter('property') if p.get('name') == 'kernel'}), 'kernels')
EOF
    says '^4 suites 8 2 0$' && says '^failed cpus=2.alone cpus=2.alone$' && says '^2 kernels$'
}
# As many of them as fit.
scenario_twenty_at_a_time()
{
    local all
    all=$(printf ',n=%d' {1..20})
    limit=2000 tests 0 -m 256M -j4 --matrix "append=${all#,}" --format json -- sh -c 'grep -o "n=[0-9]*" /proc/cmdline' || return
    [[ $(grep -c '"outcome": "pass"' "$out") == 21 ]] || why "$(grep -c '"outcome": "pass"' "$out") passed, of 20 and all"
}
scenario_test_retry_until_it_passes()
{
    mkdir "$scratch/state"
    tests 0 --retry 2 -s "$scratch/state:state,rw" --format json -- \
        sh -c 'mount -t virtiofs state /mnt && echo once more >>/mnt/tries && [ $(wc -l </mnt/tries) = 2 ]' || return
    says '"tries": 2' && says '"outcome": "pass"' && complains '^again .*ended with code 1'
}
scenario_test_matrix_goes_on_after_a_crash()
{
    printf '# as a file\nappend=, die\n' >"$scratch/matrix"
    tests 126 --matrix "$scratch/matrix" --bundle "$scratch/died" --format tap -- \
        sh -c 'grep -q " die" /proc/cmdline || exit 0; echo last words; echo c >/proc/sysrq-trigger; sleep 1000' &&
        says '^ok 1 - append=$' && says '^not ok 2 - append=die # ERROR .*panic' && says '^# last words$' &&
        says "^# bundle: $scratch/died/append=die$" && says '^# .*sysrq triggered crash'
}
# By the client that is there as an example: copies, streams, a time-out's bundle, a fresh start.
scenario_test_serve()
{
    timeout -k 5 "$limit" "$bothy" test -k "$kernel" --bundle "$scratch/pool" --serve "unix:$scratch/sock" 2>"$scratch/err" &
    local server=$! code=0
    PYTHONPATH=tools timeout -k 5 "$limit" python3 -B - "$scratch" >"$out" 2>&1 <<'EOF' || code=$?
import sys
from serve_client import Bothy, Refused
b = Bothy(sys.argv[1] + '/sock', lambda m: m.get('stream') in ('out', 'err') and print(m['stream'], m['data'], end=''), 200)
vm, = b.create(memory='384M')
b.put(vm, 'tools/test', '/tmp/in')
print('code', b.run(vm, ['sh', '-c', 'tac /tmp/in >/tmp/out; [ -x /tmp/in ] && echo spoken; echo apart >&2; exit 3'])['code'])
b.get(vm, '/tmp/out', sys.argv[1] + '/back')
print('signal', b.run(vm, ['sh', '-c', 'kill -9 $$'])['signal'])
try:
    b.run(vm, ['sleep', '1000'], timeout=1)
except Refused as why:
    print('late', why, b.diagnose(vm)['bundle'])
b.reset(vm)
print('again', b.run(vm, ['test', '!', '-e', '/tmp/out'])['code'])
EOF
    kill $server
    wait $server
    ((code == 0)) && says '^out spoken$' && says '^err apart$' && says '^code 3$' && says '^signal 9$' && says '^again 0$' &&
        says "^late run: not ended in time.*$scratch/pool/vm1-1\$" || return
    tac tools/test | cmp - "$scratch/back" || why 'the copy is not the same' || return
    grep -q 'looked at 5 times' "$scratch/pool/vm1-1/summary" || why "the summary is $(cat "$scratch/pool/vm1-1/summary")"
}
scenario_test_kselftest()
{
    mkdir "$scratch/kst"
    printf 'net:tls\ntimers:posix_timers\ntimers:nanosleep\n' >"$scratch/kst/kselftest-list.txt"
    cat >"$scratch/kst/run_kselftest.sh" <<'EOF'
#!/bin/sh
[ "$*" = "-t timers:posix_timers -t timers:nanosleep" ] || exit 9
printf 'TAP version 13\n1..2\n# TAP version 13\n# 1..2\n# ok 1 itimer\n# not ok 2 timer\n'
printf 'not ok 1 selftests: timers: posix_timers # exit=1\nok 2 selftests: timers: nanosleep # SKIP\n'
EOF
    chmod +x "$scratch/kst/run_kselftest.sh"
    tests 1 --kselftest "$scratch/kst:timers" && says '^# ok 1 itimer$' && complains '3 tests: 1 passed, 1 skipped, 1 failed$' &&
        complains 'fail  selftests: timers: posix_timers: timer$'
}

# Says how it ended: a line that begins with "ok NAME" or "FAIL NAME".
report() # NAME CODE SECONDS
{
    if (($2 == 0)); then
        echo "ok $1 ($3 s)"
    else
        echo "FAIL $1: $reason ($3 s)"
        tail -n 15 "$out" | sed 's/\r//g; s/^/    | /'
        sed 's/^/    > /' "$scratch/bundle/summary" 2>/dev/null
    fi
    rm -rf "$scratch/bundle"
}
for name; do
    reason='' start=$SECONDS code=0
    if [[ $name == boot_with=* ]]; then
        truncate -s 1M "$scratch/disk.raw"
        bothy=${name#*=} boots 2 512 400 -n none -d "$scratch/disk.raw" && ! grep -aE 'Sanitizer|runtime error' "$out" || code=1
    else
        "scenario_$name" || code=1
    fi
    report "$name" $code $((SECONDS - start))
    # What one that failed has left running would be in the way of the next.
    for left in $(jobs -rp); do kill -9 "$left" -"$left"; wait "$left"; done 2>/dev/null
done
