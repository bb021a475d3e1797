//! Links the child's program where its loader can put it.
fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("garbage.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    if std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    }
}
