//! Lets tests and examples find the MLX that `cargo xtask mlx` prepared.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/buffer.cpp");
    if let Ok(runtime) = std::env::var("DEP_MLX_RUNTIME") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{runtime}");
        cc::Build::new()
            .cpp(true)
            .std("c++20")
            .cpp_link_stdlib(None)
            .flag("-isystem")
            .flag(format!("{runtime}/../include"))
            .file("src/buffer.cpp")
            .compile("mlx_core_buffer");
    }
}
