# Runs in the guest as process 1, modules loaded; the kernel's word t=NAME says what to do.  Then the guest powers off.
word() { sed -n "s/.*\\b$1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }
kib() { sed -n "s/^$1: *\\([0-9]*\\) kB/\\1/p" /proc/meminfo; }

echo 0 >/proc/sys/kernel/printk
# Names, types, sizes, modes and links of all that is below; then what is in the files.
walked() { (cd "$1" && find . | sort | while read -r f; do stat -c '%n %f %h %Y' "$f"; readlink "$f"; done | sha256sum); }
content() { (cd "$1" && find . -type f | sort | while read -r f; do sha256sum "$f"; done | sha256sum); }
refused() { "$@" 2>&1 | grep -q 'Read-only file system' || echo "GUEST not refused: $*"; }
fetch() { wget -q -O - "http://$1" | sha256sum; }
lease()
{
    mkdir -p /etc /www
    cat >/lease <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" >/etc/resolv.conf
echo "GUEST lease $ip $router $dns"
END
    chmod +x /lease
    ip link set lo up
    ip link set eth0 up
    udhcpc -i eth0 -n -q -t 20 -s /lease 2>/dev/null
}
# measure ADDRESS PORT: bulk data to a server of iperf3's, and back.
measure()
{
    for way in '' --reverse; do
        for i in $(seq 20); do # the server may still be at the one before
            iperf3 --client "$1" --port "$2" --bytes 2M $way >/iperf 2>&1 && continue 2
            sleep 1
        done
        tail -n 2 /iperf
        return
    done
    echo "GUEST measured both ways"
}
# Lines of 16 bytes, of which none straddles two pages: Linux would write that one in two parts.
appended() { for i in $(seq 200); do printf '%-15s\n' "$1 $i" >>/many/log; done; }
shared() { mkdir -p /mnt && mount -t virtiofs data /mnt; }

case $(word t) in
boot) echo "GUEST cpus=$(nproc) mem=$(($(kib MemTotal) / 1024)) rng=$(cat /sys/class/misc/hw_random/rng_current)" ;;
no-acpi)
    for data in /sys/kernel/boot_params/setup_data/*; do
        [ "$(cat "$data/type")" = 0x2 ] && echo "GUEST dtb $(sha256sum <"$data/data")"
    done
    echo "GUEST cpus=$(nproc) $(grep ttyS0 /proc/interrupts)"
    stty -F /dev/console raw # returns when all is out, for which the port's interrupts must work
    guest-exit 0             # without ACPI there is no power-off
    ;;
stext) echo "GUEST $(grep ' _stext$' /proc/kallsyms)" ;;
card)
    card=/sys/class/net/eth0
    echo "GUEST mac=$(cat $card/address) mtu=$(cat $card/mtu) queues=$(echo $card/queues/*)"
    ip link set eth0 up && ip addr add 10.9.8.1/24 dev eth0
    for i in $(seq 100); do [ "$(cat $card/carrier)" = 1 ] && echo "GUEST has a link" && break; sleep 0.1; done
    ip link set eth0 promisc on && ip link set eth0 promisc off && ip link set eth0 down &&
        ip link set eth0 address 52:54:00:00:00:09 && ip link set eth0 up && echo "GUEST has another address"
    ping -c 1 -W 1 10.9.8.7 >/dev/null # nobody
    echo "GUEST sent $(cat $card/statistics/tx_packets) frames, errors $(cat $card/statistics/tx_errors)"
    until [ "$(cat $card/carrier)" = 0 ]; do sleep 0.1; done
    echo "GUEST lost its link"
    until [ "$(cat $card/carrier)" = 1 ]; do sleep 0.1; done
    ;;
disk)
    mkdir /mnt
    mount -t ext4 /dev/vda /mnt && sha256sum -c /mnt/from-host.sum && dd if=/dev/urandom of=/mnt/from-guest bs=64k count=160 2>/dev/null &&
        sha256sum /mnt/from-guest >/mnt/from-guest.sum && rm /mnt/from-host && umount /mnt && echo "GUEST disk done"
    ;;
fio) # 4 jobs write at random places what they can tell again, and look at all of it
    mkfs.ext4 -q /dev/vda && mkdir /mnt && mount -t ext4 /dev/vda /mnt &&
        fio --name=verify --directory=/mnt --thread --numjobs=4 --size=8M --rw=randwrite --bsrange=4k-64k --direct=1 \
            --ioengine=libaio --iodepth=8 --end_fsync=1 --verify=crc32c --verify_fatal=1 --group_reporting &&
        umount /mnt && e2fsck -fn /dev/vda && echo "GUEST fio done"
    ;;
trim)
    mkdir /mnt
    mount -t ext4 /dev/vda /mnt && rm /mnt/from-host && sync && fstrim -v /mnt && umount /mnt && echo "GUEST trim done"
    ;;
resize) # the disk grows under a mounted file system
    mkdir /mnt
    mount -t ext4 /dev/vda /mnt || exit
    was=$(cat /sys/block/vda/size)
    echo "GUEST has $was sectors"
    while [ "$(cat /sys/block/vda/size)" = "$was" ]; do sleep 0.2; done
    dd if=/dev/urandom of=/part bs=1M count=10 2>/dev/null
    resize2fs /dev/vda && for i in $(seq 10); do cat /part; done >/mnt/from-guest &&
        sha256sum /mnt/from-guest >/mnt/from-guest.sum && umount /mnt && e2fsck -fn /dev/vda && echo "GUEST resize done"
    ;;
power) # counts in a file, and says what is safe; the host ends this at any moment
    mkdir /mnt
    mount -t ext4 /dev/vda /mnt || exit
    read -r count </mnt/count
    echo "GUEST has $count"
    while :; do
        count=$((count + 1))
        dd if=/dev/urandom of=/mnt/data$((count % 50)) bs=16k count=8 2>/dev/null
        echo $count >/mnt/new
        sync
        mv /mnt/new /mnt/count
        sync
        echo "GUEST synced $count"
    done
    ;;
fill)
    dd if=/dev/urandom of=/data bs=1M count=40 2>/dev/null
    echo "GUEST writes"
    dd if=/data of=/dev/vda bs=256k conv=fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches &&
        [ "$(sha256sum </data)" = "$(dd if=/dev/vda bs=1M count=40 2>/dev/null | sha256sum)" ] &&
        echo "GUEST wrote, and it is the same"
    ;;
share-ro)
    echo 'of the guest' >/escaped
    shared || exit
    echo "GUEST walk $(walked /mnt)"
    echo "GUEST content $(content /mnt)"
    echo "GUEST again $(walked /mnt)"
    echo "GUEST escape $(cat /mnt/escape)"
    refused touch /mnt/new
    refused rm /mnt/file
    refused mv /mnt/file /mnt/other
    refused chmod 600 /mnt/file
    refused dd if=/dev/null of=/mnt/file
    refused mkdir /mnt/dir
    umount /mnt && echo 'GUEST share done'
    ;;
share-rw)
    shared || exit
    for i in 1 2 3 4 5 6 7 8; do
        (for j in $(seq 8); do dd if=/dev/urandom of=/mnt/w$i.$j bs=2k count=$((j * i)) 2>/dev/null; done
            exercise /mnt/x$i $i 30 || echo "GUEST exercise $i failed"
            cat /mnt/w$i.* >/mnt/all$i && rm /mnt/w$i.1 && mkdir -p /mnt/deep/$i && mv /mnt/w$i.2 /mnt/deep/$i/moved) &
    done
    wait
    (exec 3<>/mnt/gone && rm /mnt/gone && echo text >&3 && [ "$(stat -L -c %s /proc/self/fd/3)" = 5 ]) || echo 'GUEST lost an open file'
    ln -s deep /mnt/link && ln /mnt/w3.3 /mnt/hard && mkfifo /mnt/fifo && chmod 640 /mnt/hard && chown 0:0 /mnt/hard
    mknod /mnt/dev c 1 3 2>/dev/null && echo 'GUEST made a device'
    echo "GUEST walk $(walked /mnt)"
    echo "GUEST content $(content /mnt)"
    umount /mnt && echo 'GUEST share done'
    ;;
share-cow)
    shared || exit
    echo "GUEST walk $(walked /mnt)"
    exercise /mnt/file 1 50 && exercise /mnt/new 2 50 || echo 'GUEST exercise failed'
    cp -a /mnt/tree /mnt/copy && [ "$(content /mnt/tree)" = "$(content /mnt/copy)" ] || echo 'GUEST bad copy'
    chown -R 1234:5678 /mnt/tree && mv /mnt/tree /mnt/moved && [ "$(content /mnt/moved)" = "$(content /mnt/copy)" ] || echo 'GUEST bad move'
    [ "$(stat -c %u:%g /mnt/moved)" = 1234:5678 ] || echo 'GUEST bad owner'
    rm -rf /mnt/* || echo 'GUEST cannot remove all'
    echo "GUEST left $(ls -A /mnt | wc -l)"
    umount /mnt && shared && echo "GUEST anew $(walked /mnt)"
    umount /mnt && echo 'GUEST share done'
    ;;
share-proof) # as on the disk, which has a file system of the guest's own
    mkdir /rw /cow /disk && mount -t virtiofs rw /rw && mount -t virtiofs cow /cow && mount -t ext4 /dev/vda /disk || exit
    for kind in rw cow; do
        mkdir /disk/$kind && tar -c -C /$kind/names . | tar -x -C /disk/$kind || exit
        for seed in $(seq "$(word seeds)"); do
            exercise /$kind/file "$seed" "$(word data)" && names $kind /$kind/names /disk/$kind "$seed" "$(word names)" || exit
        done
    done
    umount /rw && umount /cow && echo 'GUEST share done'
    ;;
share-faults)
    for tag in small many seen gone; do mkdir /$tag && mount -t virtiofs $tag /$tag || exit; done
    dd if=/dev/zero of=/small/large bs=64k count=200 2>&1 | grep -q 'No space left' && [ "$(wc -c </small/large)" -ge 3000000 ] &&
        rm /small/large && echo again >/small/after && echo 'GUEST had no room, then had'
    paste $(yes /many/file | head -n 300) 2>&1 >/dev/null | grep -q 'Too many open files' && cat /many/file >/dev/null &&
        echo 'GUEST had too many files, then fewer'
    stat /seen/file /seen/other >/dev/null && cd /seen/folder && exec 3</gone/file && echo 'GUEST looked'
    until [ -e /many/moved ]; do sleep 0.1; done
    [ "$(cat /seen/file)" = new ] && ! cat /seen/other 2>/dev/null && echo made >made && cd / && echo 'GUEST found what was moved'
    appended one
    until [ ! -e /gone/file ]; do sleep 0.1; done
    [ "$(cat <&3)" = kept ] && ! touch /gone/new 2>/dev/null && exec 3<&- && umount /gone && echo 'GUEST lost a share'
    ;;
share-appends)
    mkdir /many && mount -t virtiofs many /many || exit
    echo 'GUEST waits'
    until [ -e /many/moved ]; do sleep 0.1; done
    appended two
    ;;
readonly) dd if=/dev/zero of=/dev/vda bs=4k count=1 2>/dev/null || echo "GUEST write refused, ro=$(cat /sys/block/vda/ro)" ;;
echo)
    tty=/dev/$(word tty)
    stty -F "$tty" raw -echo
    echo "GUEST listens" >"$tty"
    read -r line <"$tty"
    echo "GUEST heard $line" >"$tty"
    ;;
net)
    lease
    ip addr show dev eth0 | grep -q 10.0.2.15 || echo "GUEST has no lease"
    echo "GUEST mtu=$(cat /sys/class/net/eth0/mtu)"
    for i in $(seq 4); do ping -c 1 -W 5 10.0.2.2 >/dev/null && echo "GUEST pong" && break; done
    sum4=$(fetch "10.0.2.2:$(word port4)")
    echo "GUEST host4 $sum4"
    for i in $(seq 200); do
        ip -6 addr show dev eth0 | grep 'inet6 fec0' | grep -qv tentative && break
        sleep 0.2
    done
    sum6=$(timeout 60 wget -q -O - "http://[fec0::2]:$(word port6)" | sha256sum) # a restricted guest gets no answer
    echo "GUEST host6 $sum6"
    name=$(nslookup example.org 10.0.2.3 2>/dev/null | sed -n 's/^Address[ 1]*: *\(192[0-9.]*\).*/\1/p')
    [ "$name" ] && echo "GUEST name $name"
    echo "GUEST asked $(echo what | nc 10.0.2.100 7)"
    [ "$(word iperf)" ] && measure 10.0.2.2 $(word iperf)
    echo 'served by the guest' >/www/index.html
    httpd -h /www
    udp-echo 7 &
    echo "GUEST serves"
    while :; do sleep 100; done
    ;;
flaps)
    lease
    boot=$(dd if=/dev/vda bs=1 count=1 2>/dev/null)
    echo $((boot + 1)) | dd of=/dev/vda bs=512 count=1 conv=sync,fsync 2>/dev/null
    for i in 1 2 3; do
        while :; do fetch "10.0.2.2:$(word port4)" >/dev/null 2>&1; done &
    done
    echo "GUEST loads"
    sum=$(fetch "10.0.2.2:$(word port4)")
    echo "GUEST fetched $boot $sum"
    stty -F /dev/console raw # returns when all is out
    [ "$boot" = 1 ] && echo b >/proc/sysrq-trigger # at once: nothing is shut down
    ;;
wire)
    ip link set eth0 up
    for i in $(seq 0$(word restarts)); do # the driver goes, and comes again
        card=$(basename "$(readlink /sys/class/net/eth0/device)")
        echo "$card" >/sys/bus/virtio/drivers/virtio_net/unbind
        echo "$card" >/sys/bus/virtio/drivers/virtio_net/bind
        ip link set eth0 up
    done
    ip addr add 10.9.0.$(word me)/24 dev eth0
    mkdir /www
    dd if=/dev/zero of=/www/zeroes bs=1M count=$(word mib) 2>/dev/null
    case $(word do) in
    serve)
        httpd -h /www
        iperf3 --server --daemon
        echo "GUEST serves"
        while :; do sleep 100; done
        ;;
    fetch)
        until ping -c 1 -W 1 10.9.0.1 >/dev/null; do :; done
        echo "GUEST fetches"
        sum=$(fetch 10.9.0.1/zeroes)
        echo "GUEST fetched $sum"
        /usr/sbin/tc qdisc add dev eth0 root netem delay 10ms && measure 10.9.0.1 5201
        ;;
    exchange)
        sum=$(fetch 10.9.0.1/zeroes)
        echo "GUEST fetched $sum"
        httpd -h /www
        echo "GUEST serves"
        while :; do sleep 100; done
        ;;
    ping)
        for i in $(seq 5); do
            ping -c 1 -W 1 10.9.0.1 >/dev/null && reached=1 && break
        done
        [ $reached ] && echo "GUEST reaches 10.9.0.1" || echo "GUEST is alone"
        ;;
    esac
    ;;
reboot)
    count=$(dd if=/dev/vda bs=1 count=1 2>/dev/null)
    echo "GUEST boot $count"
    echo "$((count + 1))" | dd of=/dev/vda bs=512 count=1 conv=sync 2>/dev/null
    sync
    [ "$count" = 1 ] && reboot -f
    ;;
button)
    exec 3</dev/input/event0 # what is pressed from now on is kept
    echo "GUEST waits"
    head -c 1 <&3 >/dev/null && echo "GUEST button"
    ;;
ticks)
    exec 3</dev/input/event0
    dmesg -c >/dev/null # of the boot
    while :; do echo "GUEST tick"; sleep 0.1; done &
    head -c 1 <&3 >/dev/null
    dmesg | grep -iE 'unstable|lockup|stall' && echo "GUEST wonders"
    echo "GUEST button"
    ;;
balloon)
    for i in $(seq 400); do
        [ "$(kib MemFree)" -lt 240000 ] && break
        sleep 0.5
    done
    echo "GUEST free=$(($(kib MemFree) / 1024))"
    ;;
free)
    dd if=/dev/zero of=/filled bs=1M count=200 2>/dev/null
    echo "GUEST filled"
    rm /filled
    while :; do sleep 100; done
    ;;
panic) echo c >/proc/sysrq-trigger ;;
splat)
    echo '<1>BUG: unable to handle page fault for address: 0000000000000000' >/dev/kmsg
    while :; do sleep 100; done
    ;;
gdb)
    echo "GUEST banner $(sed -n 's/ . linux_banner$//p' /proc/kallsyms)"
    while :; do :; done
    ;;
code) guest-exit 7 ;;
wait) echo "GUEST waits"; while :; do sleep 100; done ;;
esac
# Linux before 0d0eff39ceb3 (2026) may loop in virtio_net where it shuts down while packets are sent.
[ ! -e /sys/class/net/eth0 ] || ip link set eth0 down
