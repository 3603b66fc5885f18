//! Lets tests and examples find the MLX that `cargo xtask mlx` prepared.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(runtime) = std::env::var("DEP_MLX_RUNTIME") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{runtime}");
    }
}
