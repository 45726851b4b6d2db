#!/bin/bash
# Fails when a C file is not as clang-format would write it.
#
#   format.sh ROOT CLANG-FORMAT
set -euo pipefail
cd "$1"
find . -path './build*' -prune -o -name '*.[ch]' -print0 | xargs -0 "$2" --dry-run -Werror
