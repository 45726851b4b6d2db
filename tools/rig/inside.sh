# Runs in the machine as process 1, once / and /dev are ready: run the job, send back its output and results, power off.
# Serial ports: 1 the console, 2 the job's output (or its terminal), 3 its errors, 4 a gzipped tar with the exit code and
# the files asked for.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
ip link set lo up
if [ -e /rig/net ]; then
    # The emulator stands between the two machines; what is sent to 127.0.0.1 gets there as it is.
    ip link set eth0 up
    ip addr add 10.0.5.15/24 dev eth0
    ip route add default via 10.0.5.2
    ip addr del 127.0.0.1/8 dev lo
    echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
    ip route add 127.0.0.0/8 via 10.0.5.2
fi
# What the rig knows it by; it shows nowhere.
[ ! -e /rig/breathe ] || while sleep 5; do printf '\r' >/dev/ttyS0; done &
for port in 1 2 3; do stty -F /dev/ttyS$port 115200 raw -echo; done

if [ -e /rig/tty ]; then
    read -r rows columns </rig/tty
    exec 9<>/dev/ttyS1 # whoever closes it last takes its size away
    stty 115200 sane rows $rows cols $columns <&9
    setsid -c /bin/sh /rig/job <&9 >&9 2>&1 9>&-
    echo $? >/rig/code
    exec 9>&-
    out= err=
else
    # The job writes to pipes, not to the ports, so that it sees no terminal.
    mkfifo /rig/stdout /rig/stderr
    cat /rig/stdout >/dev/ttyS1 & out=$!
    cat /rig/stderr >/dev/ttyS2 & err=$!
    setsid /bin/sh /rig/job </dev/null >/rig/stdout 2>/rig/stderr
    echo $? >/rig/code
fi

# What the job left running may hold its pipes. Kernel threads have no exe.
for process in /proc/[0-9]*; do
    case ${process#/proc/} in
    1 | $out | $err) ;;
    *) [ -e $process/exe ] && kill -9 ${process#/proc/} ;;
    esac
done
wait $out $err
stty -F /dev/ttyS1 raw # returns when all is out

set -- rig/code
while read -r file; do [ -e "$file" ] && set -- "$@" "${file#/}"; done </rig/out
tar -C / -chzf - "$@" >/dev/ttyS3
poweroff -f
