//! Makes the program need no shared library but those of glibc.
//!
//! rustc links the unwinder dynamically, as `-lgcc_s`. The linker takes the first `libgcc_s.so` that it finds, and that
//! may be a text with commands (<https://sourceware.org/binutils/docs/ld/Implicit-Linker-Scripts.html>): ours names the
//! static unwinder instead, which every gcc has.
#![allow(clippy::disallowed_methods, reason = "nothing of this outlives the build")]

use std::path::Path;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let directory = std::env::var("OUT_DIR").map_err(std::io::Error::other)?;
        std::fs::write(Path::new(&directory).join("libgcc_s.so"), "INPUT(-lgcc_eh)\n")?;
        println!("cargo::rustc-link-search=native={directory}");
    }
    Ok(())
}
