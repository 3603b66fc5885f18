//! What can go wrong while MLX is prepared, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path}: {source}\n{remedy}", path = path.display(), remedy = io_remedy(source))]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("MLX has no package for {os} on {arch}\nUse Linux (glibc) on x86-64 or aarch64, or macOS on Apple silicon; or build MLX and name its prefix in MLX_DIR.")]
    UnsupportedPlatform { os: String, arch: String },
    #[error("the MLX package needs {what} {needed} or newer, and this system has {found}\nUpgrade the system, or build MLX and name its prefix in MLX_DIR.")]
    OldSystem {
        what: &'static str,
        needed: &'static str,
        found: String,
    },
    #[error("MLX_VARIANT={value} is not a variant\nSet it to auto, cpu, cuda12, cuda13 or metal.")]
    UnknownVariant { value: String },
    #[error(
        "there is no {variant} package of MLX for {platform}\nSet MLX_VARIANT to auto or {choices}."
    )]
    VariantNotHere {
        variant: &'static str,
        platform: String,
        choices: &'static str,
    },
    #[error("{tool} was not found; it is needed to {purpose}\n{remedy}")]
    ToolMissing {
        tool: String,
        purpose: &'static str,
        remedy: String,
    },
    #[error("no C++ compiler with std::format was found (tried {tried})\nInstall GCC 13 or newer (Debian: g++-14), or name a compiler in CXX.")]
    CompilerMissing { tried: String },
    #[error("CXX={compiler} cannot compile C++20 with std::format:\n{output}\nName GCC 13 or newer, or Clang 17 with libstdc++ 13 or newer, or unset CXX.")]
    CompilerTooOld { compiler: String, output: String },
    #[error("the download of {package} does not match its pinned sha256; nothing was installed\n{output}\nA proxy or mirror may have changed it: try another network, and report it if it stays.")]
    HashMismatch { package: String, output: String },
    #[error("{package} could not be downloaded: the package index cannot be reached\n{output}\nCheck the network and pip's proxy and index settings, then run this again.")]
    NoNetwork { package: String, output: String },
    #[error("the disk that holds {path} is full; nothing was installed\nFree some space (a variant needs 0.1 to 4 GB), or name a roomier folder in MLX_CACHE.", path = path.display())]
    DiskFull { path: PathBuf },
    #[error("{what} failed ({status})\n{output}\n{remedy}")]
    CommandFailed {
        what: String,
        status: String,
        output: String,
        remedy: String,
    },
    #[error("MLX_DIR={dir} holds no MLX: {missing} is not there\nName a prefix with include/mlx and libmlx in lib, or unset MLX_DIR to use the packaged MLX.", dir = dir.display())]
    MlxDirIncomplete { dir: PathBuf, missing: String },
    #[error("MLX_DIR={dir} holds MLX {found}, and mlx-c wants MLX {wanted}\nInstall MLX {wanted} there, or unset MLX_DIR to use the packaged MLX.", dir = dir.display())]
    MlxDirVersion {
        dir: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("the pinned MLX packages are {pinned}, and mlx-c of mlx-sys {mlx_sys} wants MLX {wanted}\nPin the packages in native/xtask/wheels and mlx-sys in Cargo.toml to versions that belong together.")]
    PinMismatch {
        pinned: String,
        mlx_sys: String,
        wanted: String,
    },
    #[error("{path} has no {what}\nThe pinned mlx-sys may have changed; xtask has to follow it.", path = path.display())]
    Unexpected { path: PathBuf, what: &'static str },
    #[error("{path} exists and was not written by this tool\nMove its settings to ~/.cargo/config.toml or to the environment, remove the file, and run this again.", path = path.display())]
    ForeignCargoConfig { path: PathBuf },
    #[error("the bindings to mlx-c could not be generated: {detail}\nCheck that libclang and its headers are of one version (Debian: libclang-dev).")]
    Bindings { detail: String },
    #[error("{package} needs {missing}, which neither this system nor NVIDIA's pinned packages have\nInstall them, name their folder in LD_LIBRARY_PATH, or set MLX_VARIANT=cpu.")]
    LibrariesMissing { package: String, missing: String },
    #[error("unknown command {command}\n{usage}")]
    Usage {
        command: String,
        usage: &'static str,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| {
            if source.kind() == io::ErrorKind::StorageFull {
                Error::DiskFull { path }
            } else {
                Error::Io {
                    action,
                    path,
                    source,
                }
            }
        }
    }
}

/// Whether a few megabytes more don't fit where `dir` is: not every tool that fails for want of
/// space says so.
pub fn disk_is_full(dir: &Path) -> bool {
    let probe = dir.join("space");
    let written = std::fs::write(&probe, vec![1_u8; 4 << 20]);
    let _ = std::fs::remove_file(&probe);
    written.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

fn io_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "Make the folder writable, or name another one in MLX_CACHE."
        }
        io::ErrorKind::ReadOnlyFilesystem => "Name a writable folder in MLX_CACHE.",
        _ => "Check the path, then run this again.",
    }
}
