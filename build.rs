//! Rebuilds when a migration is added: `sqlx::migrate!` embeds the folder, and the compiler does not watch folders.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
