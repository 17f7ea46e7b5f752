# The commands of a developer. `just` lists them; https://just.systems installs it.

[private]
default:
    @just --list --unsorted

# Everything that must pass before a change is merged
check:
    .ci/run

# The tests, or those whose names contain a text: just test breaker
test *FILTER:
    cargo test --locked {{ FILTER }}

# The story of a user who leaves and returns, on embedded tenants
demo:
    cargo run --locked -- demo

# Rewrite the snapshots of everything that operators read; review their diff
snapshots:
    INSTA_UPDATE=always cargo test --locked --test all screens::

# The long runs of the random and simulated tests: hours on two cores
soak: soak-lives soak-histories soak-days soak-disk soak-fuzz

# A process that dies at every point, one life after the other, on one state
soak-lives lives="500":
    OKTA_AUTH0_SYNC_LIVES={{ lives }} cargo test --locked --profile soak --test all end_to_end::crashes:: -- --include-ignored --nocapture

# Random histories of both tenants, compared with a model; and a reconcile at scale
soak-histories count="2000":
    OKTA_AUTH0_SYNC_HISTORIES={{ count }} cargo test --locked --profile soak --test all decisions::property::
    OKTA_AUTH0_SYNC_SCALE=100000,5000,50 cargo test --locked --profile soak --test all decisions::reconcile:: -- --nocapture
    cargo test --locked --profile soak --test all catch_up::

# A month of normal days: files, tasks, memory and state must not grow
soak-days days="31":
    OKTA_AUTH0_SYNC_DAYS={{ days }} cargo test --locked --profile soak --test days -- --nocapture

# A disk that fails at each write
soak-disk:
    OKTA_AUTH0_SYNC_DISK_STEP=1 cargo test --locked --profile soak --test all disk:: -- --nocapture

# Random inputs for each fuzz target, and many cases for each property
soak-fuzz inputs="100000":
    OKTA_AUTH0_SYNC_INPUTS={{ inputs }} cargo test --locked --profile soak --test all fuzz:: -- --nocapture
    PROPTEST_CASES={{ inputs }} cargo test --locked --profile soak --lib

# One fuzz target, guided by coverage; needs cargo-fuzz and a nightly compiler: just fuzz log_page 300
fuzz target seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}

# Break each expression of domain, engine and store; needs cargo-mutants and cargo-nextest: just mutants --file 'src/domain/*'
mutants *OPTIONS:
    cargo mutants --workspace {{ OPTIONS }}

# Break each rule on purpose, and see that a test notices
broken-rules *NAMES:
    tests/mutations/run.sh {{ NAMES }}

# What storing a page and claiming due users cost; how much of the smallest plans' limits is used
bench:
    cargo bench --locked --bench micro
    cargo bench --locked --bench small_plan

# Calls, throughput, delay and size beside two baselines; needs Python 3.11 and PyPI
bench-end-to-end *OPTIONS:
    benches/run.sh {{ OPTIONS }}

# Build the Debian package
deb *OPTIONS:
    packaging/build-deb.sh {{ OPTIONS }}

# Install, upgrade, remove and purge the package in a temporary Debian; needs root and debootstrap
deb-test *FILE:
    packaging/test-deb.sh {{ FILE }}

# Boot a Debian with the package in an emulated machine; needs root, qemu-system-x86 and debootstrap
boot-test *OPTIONS:
    packaging/test-boot.sh {{ OPTIONS }}

# Raise, fix and clear every alarm on the sandbox, as its page says; needs curl
drills:
    cargo build --locked
    docs/drill-alarms.sh
    docs/drill-status.sh

# Licenses, sources and duplicates of the dependencies; needs cargo-deny
deny:
    cargo deny --all-features check bans licenses sources advisories
