# Sourced by the initramfs's /init in the svm rig: the host's root, which 9p shows read-only, under a tmpfs that takes
# writes.
mkdir -p /host /new /over
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro host /host
mount -t tmpfs over /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work root /new

# KVM takes the TSC's rate from the kernel when it is loaded, which may be before the kernel has measured it well. Where
# the good rate is over 250 ppm higher, KVM without TSC scaling believes that every vCPU's TSC stands still, and guests'
# timers come late by this machine's whole age. So it is loaded again.
until [ "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)" = tsc ]; do sleep 0.02; done
rmmod kvm_amd kvm
for module in kvm kvm-amd; do insmod /modules/$module.ko; done

for dir in proc sys dev; do mount --move /$dir /new/$dir; done
mount -t tmpfs run /new/run
mkdir /new/dev/hugepages
mount -t hugetlbfs hugepages /new/dev/hugepages

# So that modprobe, and the kernel when somebody opens /dev/loop-control or mounts ext4, find the rest of the modules.
version=$(uname -r)
mkdir -p /new/lib/modules
[ -e /new/lib/modules/$version ] || ln -s $modules /new/lib/modules/$version
grep -v '^#' /new$modules/modules.devname | while read -r module node kind; do
    number=${kind#?}
    [ $node = ${node#*/} ] || mkdir -p /new/dev/${node%/*}
    [ -e /new/dev/$node ] || mknod /new/dev/$node ${kind%$number} ${number%:*} ${number#*:}
done

mkdir /new/rig
cp -r /rig/. /new/rig
cp /bin/busybox /new/rig/
exec switch_root /new /rig/busybox sh /rig/inside.sh
