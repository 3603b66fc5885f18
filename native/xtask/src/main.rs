//! `cargo xtask`: prepares the MLX runtime that this workspace builds against.

mod bindings;
mod blas;
mod cache;
mod cargo_config;
mod compiler;
mod cuda;
mod error;
mod mlxc;
mod package;
mod platform;
mod process;
mod runtime;
mod sources;
mod variant;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cache::Cache;
use cargo_config::Override;
use compiler::Compiler;
use error::{Error, Result};
use platform::Platform;
use process::say;
use runtime::Runtime;
use sources::MlxC;

const USAGE: &str = "\
Usage: cargo xtask [COMMAND]

  mlx     prepare MLX: package, OpenBLAS, mlx-c, bindings, .cargo/config.toml (default)
  clean   remove what was prepared, in the cache and here

  MLX_VARIANT   auto (default), cpu, cuda12, cuda13 or metal
  MLX_DIR       the prefix of an installed MLX to use instead of a package
  MLX_CACHE     the folder for all that is prepared
  CXX           the C++ compiler for mlx-c and mlx_core (it needs std::format)";

fn main() -> ExitCode {
    let command = std::env::args().nth(1).unwrap_or_default();
    let done = match command.as_str() {
        "" | "mlx" => prepare(),
        "clean" => clean(),
        "help" | "-h" | "--help" => {
            say(USAGE);
            Ok(())
        }
        _ => Err(Error::Usage {
            command,
            usage: USAGE,
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> Result<()> {
    let platform = Platform::current()?;
    let workspace = workspace()?;
    let sources = MlxC::find(&workspace)?;
    let cache = Cache::open(&cache::root(platform)?)?;
    let runtime = Runtime::prepare(&cache, platform, &sources)?;
    cuda::prepare(&cache, platform, &runtime)?;
    blas::prepare(platform, &runtime)?;
    let compiler = Compiler::find(platform)?;
    let mlxc = mlxc::prepare(&cache, platform, &runtime, &sources, &compiler)?;
    link_runtime(&workspace, &runtime.root)?;
    let settings = Override {
        platform,
        mlxc: &mlxc,
        runtime_lib: &runtime.lib(),
        compiler: &compiler.command,
    };
    if cargo_config::write(&workspace, &settings)? {
        say(".cargo/config.toml written");
    }
    say(&format!("{} is ready", runtime.name));
    Ok(())
}

fn clean() -> Result<()> {
    let platform = Platform::current()?;
    let workspace = workspace()?;
    let root = cache::root(platform)?;
    if root.is_dir() {
        Cache::open(&root)?.clear()?;
    }
    cargo_config::remove(&workspace)?;
    let link = workspace.join("priv/runtime");
    if link.is_symlink() {
        fs::remove_file(&link).map_err(Error::io("remove", &link))?;
    }
    say("removed what was prepared");
    Ok(())
}

/// xtask lives in `native/xtask` of the workspace.
fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    root.canonicalize().map_err(Error::io("find", &root))
}

/// `priv/runtime` is where the NIF looks for MLX, relative to itself.
fn link_runtime(workspace: &Path, runtime: &Path) -> Result<()> {
    let folder = workspace.join("priv");
    let link = folder.join("runtime");
    if fs::read_link(&link).is_ok_and(|present| present == runtime) {
        return Ok(());
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    cache::replace_file(&link, |partial| symlink(runtime, partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    #[test]
    fn the_link_follows_the_runtime() {
        let dir = TempDir::new();
        for runtime in ["/cache/a", "/cache/b", "/cache/b"] {
            link_runtime(&dir.0, Path::new(runtime)).expect("linked");
            let target = fs::read_link(dir.0.join("priv/runtime")).expect("a link");
            assert_eq!(target, Path::new(runtime));
        }
    }
}
