#!/usr/bin/env bash
# Everything that must hold, from nothing: about 25 minutes on two cores. Needs the Rust toolchain
# and a C compiler (the examples build SQLite). `./ci.sh STAGE ...` runs those stages alone.
set -euo pipefail
cd "$(dirname "$0")"
unset LOOM_MAX_BRANCHES LOOM_MAX_PERMUTATIONS LOOM_MAX_DURATION LOOM_MAX_PREEMPTIONS
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

library=(-p sluicegate)

format() {
    cargo fmt --all --check
    cargo fmt --manifest-path benches/Cargo.toml --all --check
}

lint() {
    cargo clippy "${library[@]}" --all-targets --all-features -- -D warnings
    cargo clippy "${library[@]}" --all-targets --no-default-features -- -D warnings
    cargo clippy -p sluicegate-examples --all-targets -- -D warnings
    cargo clippy --manifest-path benches/Cargo.toml --all-targets -- -D warnings
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

# Exhaustive: a model that does not end in time fails, it is not cut short.
loom() {
    local model
    for model in tests/loom_*.rs; do
        RUSTFLAGS="--cfg loom" timeout 900 cargo test "${library[@]}" --release \
            --no-default-features --target-dir target/loom --test "$(basename "$model" .rs)"
    done
}

examples() {
    timeout 1200 cargo test --release -p sluicegate-examples
}

benchmarks() {
    (cd benches && cargo bench -- --quick)
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
