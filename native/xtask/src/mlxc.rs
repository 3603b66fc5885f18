//! mlx-c as a static library, and the bindings to it.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bindings;
use crate::cache::{key, Cache};
use crate::compiler::Compiler;
use crate::error::{disk_is_full, Error, Result};
use crate::platform::Platform;
use crate::process::{output_of, run_quietly, say, tail};
use crate::runtime::Runtime;
use crate::sources::MlxC;

/// Part of every key; raise it when this module or the bindings change what they make.
const RECIPE: &str = "1";

const BUILD_REMEDY: &str =
    "Check that the C++ compiler can build C++20 programs; CXX names another one.";

/// Builds mlx-c against the headers of `runtime`, or finds it built.
pub fn prepare(
    cache: &Cache,
    platform: Platform,
    runtime: &Runtime,
    sources: &MlxC,
    compiler: &Compiler,
) -> Result<PathBuf> {
    let key = key(&[
        RECIPE,
        &sources.mlx_sys,
        &runtime.headers_id,
        &compiler.command,
        &compiler.version,
        platform.target(),
    ]);
    let relative = format!("mlxc/{}-{key}", sources.version);
    cache.entry(&relative, |dir| {
        say("bindings: generating");
        bindings::generate(&sources.dir, &dir.join("bindings.rs"))?;
        say(&format!(
            "mlx-c {}: building with {} ({}), about a minute",
            sources.version, compiler.command, compiler.version
        ));
        compiler.check(dir)?;
        build(compiler, runtime, sources, dir)?;
        link_standard_library(compiler, platform, dir)
    })
}

fn build(compiler: &Compiler, runtime: &Runtime, sources: &MlxC, dir: &Path) -> Result<()> {
    if output_of("cmake", &["--version"]).is_none() {
        return Err(Error::ToolMissing {
            tool: "cmake".to_owned(),
            purpose: "build mlx-c",
            remedy: "Install it (Debian: apt install cmake; macOS: brew install cmake).".to_owned(),
        });
    }
    let package = dir.join("package");
    let tree = dir.join("build");
    write_package(&package, &runtime.include())?;
    let mut configure = Command::new("cmake");
    configure
        .env("CXX", &compiler.command)
        .arg("-S")
        .arg(&sources.dir)
        .arg("-B")
        .arg(&tree)
        .arg(format!("-DMLX_DIR={}", package.display()))
        .args([
            "-DMLX_C_USE_SYSTEM_MLX=ON",
            "-DMLX_C_BUILD_EXAMPLES=OFF",
            "-DBUILD_SHARED_LIBS=OFF",
            "-DCMAKE_BUILD_TYPE=Release",
        ]);
    run_quietly(
        &mut configure,
        "cmake's configuration of mlx-c",
        BUILD_REMEDY,
    )?;
    compile(&tree)?;
    let lib = dir.join("lib");
    fs::create_dir(&lib).map_err(Error::io("create", &lib))?;
    let archive = lib.join("libmlxc.a");
    fs::copy(tree.join("libmlxc.a"), &archive).map_err(Error::io("write", &archive))?;
    for scratch in [tree, package] {
        fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))?;
    }
    Ok(())
}

/// MLX's own CMake package asks for the CUDA toolkit or Metal's compiler; mlx-c needs the headers only.
fn write_package(dir: &Path, include: &Path) -> Result<()> {
    let mut folders = vec![include.to_path_buf()];
    folders.extend(Some(include.join("metal_cpp")).filter(|path| path.is_dir()));
    let folders: Vec<String> = folders
        .iter()
        .map(|path| format!("\"{}\"", path.display()))
        .collect();
    let text = format!(
        "add_library(mlx INTERFACE IMPORTED)\n\
         target_include_directories(mlx INTERFACE {})\n\
         target_compile_features(mlx INTERFACE cxx_std_20)\n\
         set(MLX_FOUND TRUE)\n",
        folders.join(" ")
    );
    let path = dir.join("MLXConfig.cmake");
    fs::create_dir(dir)
        .and_then(|()| fs::write(&path, text))
        .map_err(Error::io("write", &path))
}

/// Runs the build, with a percentage on a terminal.
fn compile(tree: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let (reader, writer) = std::io::pipe().map_err(Error::io("build in", tree))?;
    let stderr = writer.try_clone().map_err(Error::io("build in", tree))?;
    let mut child = Command::new("cmake")
        .arg("--build")
        .arg(tree)
        .args(["--target", "mlxc", "--parallel", &jobs.to_string()])
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(stderr)
        .spawn()
        .map_err(Error::io("build in", tree))?;
    let output = follow(BufReader::new(reader));
    let status = child.wait().map_err(Error::io("build in", tree))?;
    if status.success() {
        return Ok(());
    }
    if disk_is_full(tree) {
        return Err(Error::DiskFull {
            path: tree.to_path_buf(),
        });
    }
    Err(Error::CommandFailed {
        what: "the build of mlx-c".to_owned(),
        status: status.to_string(),
        output: tail(&output),
        remedy: BUILD_REMEDY.to_owned(),
    })
}

fn follow(reader: impl BufRead) -> String {
    let mut terminal = Some(std::io::stdout()).filter(|stdout| stdout.is_terminal());
    let mut output = String::new();
    for line in reader.lines().map_while(|line| line.ok()) {
        let percent = line.get(..6).filter(|start| start.ends_with("%]"));
        if let (Some(stdout), Some(percent)) = (&mut terminal, percent) {
            let _ = write!(stdout, "\r  mlx-c: {percent}\r");
            let _ = stdout.flush();
        }
        output.push_str(&line);
        output.push('\n');
    }
    output
}

/// Rust links with `cc`, which may be an older compiler with an older C++ library; a link in a
/// searched folder picks the right one and nothing else of the newer compiler.
fn link_standard_library(compiler: &Compiler, platform: Platform, dir: &Path) -> Result<()> {
    let Some(library) = compiler.standard_library(platform) else {
        return Ok(());
    };
    let link = dir.join("lib/libstdc++.so");
    std::os::unix::fs::symlink(library, &link).map_err(Error::io("link", &link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    #[test]
    fn the_cmake_package_names_the_headers() {
        let dir = TempDir::new();
        let include = dir.0.join("include");
        fs::create_dir_all(include.join("metal_cpp")).expect("a folder");
        write_package(&dir.0.join("package"), &include).expect("a package");
        let text = fs::read_to_string(dir.0.join("package/MLXConfig.cmake")).expect("text");
        assert!(text.contains("include/metal_cpp\""));
    }
}
