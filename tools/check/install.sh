#!/bin/sh
# Usage: install.sh BUILD-DIR: does `meson install` put the program, its manual and its completion where they belong?
set -e
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT
meson install -C "$1" --no-rebuild --quiet --destdir "$dest"
for file in bin/bothy share/man/man1/bothy.1 share/bash-completion/completions/bothy.bash; do
    find "$dest" -path "*/$file" -size +0 | grep -q . || { echo "not installed: $file"; exit 1; }
done
"$(find "$dest" -path '*/bin/bothy')" --version
