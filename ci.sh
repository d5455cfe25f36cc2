#!/usr/bin/env bash
# Everything that must hold, from nothing: about 25 minutes on two cores. Needs the Rust toolchain
# and a C compiler (the examples build SQLite). `./ci.sh STAGE ...` runs those stages alone.
#
# `./ci.sh counts [BASE]` is no part of that: it compares the instructions per operation of the hot
# paths, here and at BASE, and marks what costs more than 1.03 x. Without BASE that is the last
# commit or, if nothing has changed since, the one before. Needs valgrind; two or three minutes, most
# of them for two builds. Both revisions are built at the same path with the same versions of all
# dependencies, each with the rows of its own `benches/counts`, which are matched by name. Two runs
# count the same, but for spawned items (0.5 %), whose chunks depend on the clock.
set -euo pipefail
cd "$(dirname "$0")"
unset LOOM_MAX_BRANCHES LOOM_MAX_PERMUTATIONS LOOM_MAX_DURATION LOOM_MAX_PREEMPTIONS
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

library=(-p sluicegate)

format() {
    cargo fmt --all --check
    cargo fmt --manifest-path benches/Cargo.toml --all --check
    cargo fmt --manifest-path benches/counts/Cargo.toml --check
}

lint() {
    cargo clippy "${library[@]}" --all-targets --all-features -- -D warnings
    cargo clippy "${library[@]}" --all-targets --no-default-features -- -D warnings
    cargo clippy -p sluicegate-examples --all-targets -- -D warnings
    cargo clippy --manifest-path benches/Cargo.toml --all-targets -- -D warnings
    cargo clippy --manifest-path benches/counts/Cargo.toml --all-targets -- -D warnings
    RUSTFLAGS="--cfg loom" cargo clippy "${library[@]}" --tests --no-default-features \
        --target-dir target/loom -- -D warnings
}

# Each feature builds alone, and none does.
features() {
    local feature
    for feature in $(sed -n '/^\[features\]/,/^\[d/s/^\([a-z-]*\) = .*/\1/p' Cargo.toml); do
        cargo check "${library[@]}" --no-default-features --features "$feature"
    done
}

tests() {
    timeout 900 cargo test "${library[@]}" --all-features
    timeout 900 cargo test "${library[@]}" --no-default-features
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc "${library[@]}" --no-deps --all-features
    RUSTDOCFLAGS="-D warnings" cargo doc "${library[@]}" --no-deps --no-default-features
}

# Exhaustive: a model that does not end in time fails, it is not cut short. A module at a time.
loom() {
    local module modules
    modules=$(sed -n 's/^mod \([a-z_]*\);/\1/p' tests/loom/main.rs)
    for module in $modules; do
        [ "$module" = run ] && continue
        echo "-- $module"
        RUSTFLAGS="--cfg loom" timeout 900 cargo test "${library[@]}" --release \
            --no-default-features --target-dir target/loom --test loom -- "$module::"
    done
}

examples() {
    timeout 1200 cargo test --release -p sluicegate-examples
}

benchmarks() {
    (cd benches && cargo bench -- --quick)
}

# Prints the rows of a tree that comes as a tar archive. The place is the same for all: the paths of
# a build can change its code.
count_tree() {
    local name=$1 tree=target/counts/tree
    rm -rf "$tree"
    mkdir -p "$tree"
    # As of now, so that cargo builds it afresh.
    tar -xmC "$tree"
    if [ ! -d "$tree/benches/counts" ]; then
        echo "counts: $name has no benches/counts: counted with the rows of this tree" >&2
        mkdir -p "$tree/benches"
        tar -c --exclude=target --exclude=Cargo.lock benches/counts | tar -xmC "$tree"
    fi
    if [ -f target/counts/Cargo.lock ]; then
        cp target/counts/Cargo.lock "$tree/benches/counts"
    else
        cargo generate-lockfile --quiet --manifest-path "$tree/benches/counts/Cargo.toml"
        cp "$tree/benches/counts/Cargo.lock" target/counts
    fi
    CARGO_TARGET_DIR="$PWD/target/counts/build" "$tree/benches/counts/count.sh"
}

counts() {
    if ! command -v valgrind >/dev/null; then
        echo "counts: needs valgrind, which is not installed" >&2
        return 1
    fi
    local base=$counts_base dir=target/counts
    if [ -z "$base" ]; then
        base=HEAD
        [ -n "$(git status --porcelain)" ] || base=HEAD~1
    fi
    base=$(git rev-parse --verify --short "$base^{commit}")
    mkdir -p "$dir"
    rm -f "$dir/Cargo.lock"
    tar -c --exclude=target --exclude=Cargo.lock Cargo.toml src benches/counts |
        count_tree "this tree" >"$dir/head"
    git archive "$base" | count_tree "$base" >"$dir/base"
    awk -F'\t' -v base="$base" '
        function line(name, from, to, note) {
            printf "%-60s %12s %12s %7s\n", name, from, to, note
        }
        NR == FNR { from[$1] = $2; next }
        FNR == 1 { line("instructions per operation", base, "here", "ratio") }
        !($1 in from) { line($1, "-", $2, "new"); next }
        {
            ratio = $2 / from[$1]
            line($1, from[$1], $2, sprintf("%.3f%s", ratio, ratio > 1.03 ? " > 1.03" : ""))
            more += ratio > 1.03
            delete from[$1]
        }
        END {
            for (name in from) line(name, from[name], "-", "gone")
            printf "%d rows cost more than 1.03 x\n", more
        }' "$dir/base" "$dir/head"
}

package() {
    cargo package "${library[@]}" --allow-dirty
}

# Every command of the README, as it stands there, but for this script itself.
readme() {
    local command
    while read -r command; do
        [ "$command" = ./ci.sh ] && continue
        echo "\$ $command"
        timeout 900 bash -euo pipefail -c "$command" </dev/null
    done < <(sed -n '/^```sh$/,/^```$/{/^```/d;p}' README.md)
}

counts_base=
if [ "${1:-}" = counts ]; then
    counts_base=${2:-}
    set -- counts
fi
stages=("$@")
[ $# -gt 0 ] || stages=(format lint features tests docs loom examples benchmarks package readme)
times=()
for stage in "${stages[@]}"; do
    printf '\n== %s\n' "$stage"
    start=$SECONDS
    # Not in a condition: there `set -e` would not stop a stage at its first failure.
    "$stage"
    times+=("$(printf '%-12s %4d s' "$stage" $((SECONDS - start)))")
done
printf '\n== all stages passed\n'
printf '%s\n' "${times[@]}"
