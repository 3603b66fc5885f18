//! Compiles what only MLX's C++ interface offers, and lets tests and examples find the MLX
//! that `cargo xtask mlx` prepared.

use std::path::Path;

const SOURCES: [&str; 3] = ["src/buffer.cpp", "src/stream.cpp", "src/simd/primitive.cpp"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let (Some(runtime), Some(compiler)) = (prepared("RUNTIME"), prepared("COMPILER")) else {
        println!("cargo::error=MLX is not prepared, or by an older version: run `cargo xtask mlx`");
        return;
    };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{runtime}");
    compile(&Path::new(&runtime).join("../include"), &compiler);
}

/// What the links override in `.cargo/config.toml` says.
fn prepared(key: &str) -> Option<String> {
    std::env::var(format!("DEP_MLX_{key}")).ok()
}

fn compile(include: &Path, compiler: &str) {
    let mut build = cc::Build::new();
    let mut words = compiler.split_whitespace();
    build.compiler(words.next().unwrap_or_default());
    for word in words {
        build.flag(word);
    }
    build
        .cpp(true)
        .std("c++20")
        // The override names the library that this compiler needs.
        .cpp_link_stdlib(None)
        .flag("-isystem")
        .flag(include)
        .extra_warnings(true)
        .files(SOURCES)
        .compile("mlx_core_cpp");
}
