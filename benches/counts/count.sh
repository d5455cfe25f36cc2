#!/usr/bin/env bash
# Builds the program beside this script against the library of the same tree, runs it under
# callgrind, and prints one row a line: its name, a tab, and the instructions per operation.
#
# The program calls `counts_mark` three times per row. Callgrind writes what was counted since the
# last call each time: in turn the row's preparation, n operations, and 2n. The difference of the
# last two is n operations without what a run costs whatever its length. Of rows with the same name
# the least is printed.
set -euo pipefail
cd "$(dirname "$0")"
target="${CARGO_TARGET_DIR:-target}"
cargo build --release --target-dir "$target"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Without a random layout of memory. A container may forbid that.
fixed=(setarch -R)
"${fixed[@]}" true 2>/dev/null || fixed=()
"${fixed[@]}" valgrind --tool=callgrind --dump-before='*counts_mark*' --callgrind-out-file="$out/part" \
    "$target/release/sluicegate-counts" >"$out/rows" 2>"$out/log" || {
    cat "$out/log" >&2
    exit 1
}

instructions() {
    local total
    total=$(sed -n 's/^totals: //p' "$out/part.$1")
    [ -n "$total" ] || { echo "callgrind wrote no part $1: was a mark inlined?" >&2; exit 1; }
    echo "$total"
}

part=0
while IFS=$'\t' read -r name operations; do
    once=$(instructions $((part + 2)))
    twice=$(instructions $((part + 3)))
    part=$((part + 3))
    awk -v name="$name" -v cost=$((twice - once)) -v of="$operations" \
        'BEGIN { printf "%s\t%.1f\n", name, cost / of }'
done <"$out/rows" >"$out/counts"
awk -F'\t' '
    !($1 in least) { names[++rows] = $1; least[$1] = $2 }
    $2 + 0 < least[$1] + 0 { least[$1] = $2 }
    END { for (row = 1; row <= rows; row++) printf "%s\t%s\n", names[row], least[names[row]] }
' "$out/counts"
