//! The library finds MLX in `priv/runtime`, beside `priv/native` where it lies itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let origin = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{origin}/../runtime/mlx/lib");
}
