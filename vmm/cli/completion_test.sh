#!/bin/bash
# Usage: completion_test.sh BOTHY.BASH MAN-PAGE: does bash complete, does groff accept the manual without a word?
source "$1" || exit 1
compopt() { :; } # works only while bash itself completes

expect() # WANTED WORD...: completes the last word
{
    local wanted=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _bothy
    [ "${COMPREPLY[*]}" = "$wanted" ] || { echo "$*: got \"${COMPREPLY[*]}\", wanted \"$wanted\""; exit 1; }
}

expect help bothy he
expect --version bothy --v
expect "--as --help" bothy help -
expect help bothy help hel
expect "man" bothy help --as m
expect "man" bothy help --as = m
expect "text man bash" bothy help --as =
expect "" bothy no-such-verb x
expect "--no-kaslr --no-kernel-cache" bothy run --no-k
expect "stdio" bothy run --serial st
expect "file:" bothy run --console fi
expect "$1" bothy run --console file : "${1%h}"
expect "$1" bothy run -k "${1%h}"
expect "$1" bothy run --kernel = "${1%h}"
expect "virtio-blk" bothy run --device virtio-bl
expect "" bothy run --memory 1
expect "info" bothy img inf
expect "--backing-chain" bothy img info --b
expect "human json" bothy img info --output ""
expect "$1" bothy img info "${1%h}"

type groff >/dev/null 2>&1 || { echo "no groff: manual not checked"; exit 0; }
said=$(groff -man -Tutf8 -wall -z "$2" 2>&1)
[ -z "$said" ] || { echo "$said"; exit 1; }
