# What the rigs share: the command line, the job that goes in, what comes back. Sourced by svm and vmx, which define
#   rig_about, rig_memory (MiB), rig_seconds; where it can be chosen, rig_cpus; where the rig can have them, rig_tty=1
#                 and rig_net=1; where its clock is this machine's, rig_still: the seconds after which a machine that
#                 does not breathe stands still
#   rig_prepare   makes what the machine boots from, with rig_initrd
#   rig_start     is the emulator (exec): the machine's console goes to $job/console, its 2nd, 3rd and 4th serial port
#                 to $job/out and $job/err (both pipes) and $job/result; with $tty, the 2nd is stdin and stdout
# and end with rig_main "$@". $job is a directory that lives as long as the run.
set -euo pipefail
shopt -s inherit_errexit

rig_dir=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
rig=$(basename "$0")
guest=$rig_dir/../guest
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bothy/rig

rig_usage()
{
    cat <<END
usage: tools/rig/$rig [OPTION]... -- COMMAND [ARGUMENT]...
Runs COMMAND in $rig_about.
Its output and exit code are passed on. 124: time-out, 125: the rig itself failed.

  --timeout SECONDS  end everything after that time, the rig's start included ($rig_seconds)
  --memory MIB       the machine's memory ($rig_memory)${rig_cpus:+
  --cpus N           its number of CPUs ($rig_cpus)}
  --in FILE          take this file or directory in, under its own name (may be repeated)
  --out FILE         bring this file back when the command has ended (may be repeated)
  -e NAME=VALUE      set an environment word (may be repeated)
  -v                 show the machine's console on stderr${rig_tty:+
  -t                 give the command your terminal}${rig_net:+
  --net              give the machine this one's networks, 127.0.0.1 too
  --port [ADDRESS:]PORT[/udp]
                     --net, and lead this port to the machine's of that number (may be repeated)}
END
}

rig_fail() { echo "$rig: $*" >&2; exit 125; }

# rig_number OPTION VALUE LEAST
rig_number()
{
    [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] && (($2 >= $3)) || rig_fail "$1 $2: a number from $3 up is wanted"
}

# A word as a POSIX shell reads it back.
rig_quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# Writes what inside.sh reads: /rig/job, the command as a script, and /rig/out, the files that are to come back.
rig_write_job()
{
    local word
    mkdir -p "$job/files/rig"
    cp "$rig_dir/inside.sh" "$job/files/rig/"
    {
        printf 'cd %s || exit 125\n' "$(rig_quote "$PWD")"
        for word in "${env[@]}"; do printf 'export %s=%s\n' "${word%%=*}" "$(rig_quote "${word#*=}")"; done
        printf 'exec'
        for word in "${command[@]}"; do printf ' %s' "$(rig_quote "$word")"; done
        echo
    } >"$job/files/rig/job"
    [[ ! ${rig_still-} ]] || : >"$job/files/rig/breathe"
    [[ ! $tty ]] || stty size >"$job/files/rig/tty"
    [[ ! $net ]] || : >"$job/files/rig/net"
    for word in "${out[@]}"; do realpath -ms "$word"; done >"$job/files/rig/out"
}

# rig_initrd INIT cloud|full MODULE...: packs $job/initrd, with $job/files in its root.
rig_initrd()
{
    "$guest" initrd -o "$job/initrd" --init "$1" --modules "${@:2}" --file "$job/files:/" || rig_fail 'no initramfs'
}

# Puts what the machine sent back where it belongs and sets code; fails where the machine did not send all.
rig_take_result()
{
    local file path
    mkdir "$job/back"
    tar -xzf "$job/result" -C "$job/back" 2>/dev/null && code=$(cat "$job/back/rig/code" 2>/dev/null) || return
    for file in "${out[@]}"; do
        path=$(realpath -ms "$file")
        if [[ -e $job/back$path ]]; then
            mkdir -p "$(dirname "$file")" && cp -rT "$job/back$path" "$file" ||
                rig_fail "--out $file: cannot write it here"
        else
            echo "$rig: --out $file: the command left no such file" >&2
            ((code)) || code=125
        fi
    done
}

# Ends the emulator $1 when nothing has come to the console for rig_still seconds.
rig_watch()
{
    local size last='' still=0
    while sleep 2; do
        size=$(stat -c %s "$job/console")
        if [[ $size != "$last" ]]; then
            last=$size still=0
        elif (((still += 2) >= rig_still)); then # looks, not the clock: this machine may have stood still, too
            : >"$job/still"
            kill "$1"
            return
        fi
    done
}

rig_main()
{
    local in=() out=() env=() command=() ports=() verbose='' tty='' net='' cooked='' readers='' emulator watch='' status log code
    while (($#)); do
        case $1 in
        --timeout | --memory | --cpus | --in | --out | --port | -e) (($# > 1)) || rig_fail "$1 wants a value" ;;&
        --timeout) rig_number "$1" "$2" 1; rig_seconds=$2; shift 2 ;;
        --memory) rig_number "$1" "$2" 512; rig_memory=$2; shift 2 ;;
        --cpus)
            [[ ${rig_cpus-} ]] || rig_fail '--cpus: this rig has one CPU'
            rig_number "$1" "$2" 1; rig_cpus=$2; shift 2
            ;;
        --in) [[ -e $2 ]] || rig_fail "--in $2: no such file"; in+=("$2"); shift 2 ;;
        --out) out+=("$2"); shift 2 ;;
        -e)
            [[ $2 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || rig_fail "-e $2: NAME=VALUE is wanted"
            env+=("$2"); shift 2
            ;;
        -v) verbose=1; shift ;;
        -t) [[ ${rig_tty-} ]] || rig_fail '-t: this rig has no terminal'; tty=1; shift ;;
        --net | --port) [[ ${rig_net-} ]] || rig_fail "$1: this rig has no network"; net=1 ;;&
        --net) shift ;;
        --port)
            [[ $2 =~ ^([0-9.]+:)?[1-9][0-9]*(/(tcp|udp))?$ ]] || rig_fail "--port $2: write [ADDRESS:]PORT[/udp], with a port from 1 up"
            ports+=("$2"); shift 2
            ;;
        -h | --help) rig_usage; exit ;;
        --) command=("${@:2}"); break ;;
        *) rig_fail "unknown option '$1' (tools/rig/$rig --help; a command comes after --)" ;;
        esac
    done
    ((${#command[@]})) || rig_fail "no command (tools/rig/$rig --help)"
    [[ ! $tty || (-t 0 && -t 1) ]] || rig_fail '-t: stdin and stdout are no terminal; without -t none is needed'

    children=
    job=$(mktemp -d "${TMPDIR:-/tmp}/bothy-rig.XXXXXX")
    trap '[[ ! $children ]] || kill $children 2>/dev/null || true; wait; [[ ! $cooked ]] || stty "$cooked"; rm -rf "$job"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    rig_write_job
    rig_prepare

    : >"$job/console"
    # timeout(1) passes our signal on to the emulator.
    if [[ $tty ]]; then
        cooked=$(stty -g)
        stty -onlcr # the machine's terminal ends lines as they should
        (rig_start) <&0 2>"$job/emulator" &
        emulator=$! children=$!
    else
        # Line by line, so that neither breaks into the other's.
        mkfifo "$job/out" "$job/err"
        stdbuf -oL sed '' "$job/out" &
        readers=$! children=$!
        stdbuf -oL sed '' "$job/err" >&2 &
        readers+=" $!" children+=" $!"
        (rig_start) </dev/null >"$job/emulator" 2>&1 &
        emulator=$! children+=" $!"
    fi
    if [[ $verbose ]]; then
        tail -n +1 -f --pid=$emulator "$job/console" > >(sed -u 's/\r//g' >&2) &
        readers+=" $!" children+=" $!"
    fi
    if [[ ${rig_still-} ]]; then
        rig_watch $emulator &
        watch=$! children+=" $!"
    fi

    status=0
    wait $emulator || status=$?
    # Opened for both, a pipe opens at once, and so wakes a reader whose pipe the emulator never opened.
    : <>"$job/out" <>"$job/err"
    kill $watch 2>/dev/null || true
    wait $readers $watch || true
    children=

    rig_take_result && exit "$code"
    mkdir -p "$cache"
    log=$cache/$rig.log
    sed 's/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r//g' "$job/emulator" "$job/console" >"$log.$$" && mv "$log.$$" "$log"
    [[ ! -e $job/still ]] || rig_fail "the machine stood still for $rig_still s; the console's log is $log"
    case $status in
    124 | 137)
        echo "$rig: time-out after $rig_seconds s; the console's log is $log" >&2
        exit 124
        ;;
    *) rig_fail "no result: $(grep -m1 'Kernel panic' "$log" || tail -n1 "$log"); the console's log is $log" ;;
    esac
}
