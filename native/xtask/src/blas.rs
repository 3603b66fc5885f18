//! OpenBLAS in the place of the reference BLAS and LAPACK that the Linux packages bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::cache::replace_file;
use crate::error::{Error, Result};
use crate::platform::{Arch, Os, Platform};
use crate::process::{output_of, run_quietly, say};
use crate::runtime::Runtime;

/// Records which OpenBLAS was copied; written last, so an interrupted swap is done again.
const MARKER: &str = "openblas.txt";
/// Keeps the libraries that were replaced.
const BUNDLED: &str = "bundled";
/// What OpenBLAS needs beyond the C library; copied beside it, so that the folder is whole.
const COMPANIONS: [&str; 3] = ["libgfortran.so", "libquadmath.so", "libgomp.so"];
/// MLX calls both of these; some builds of OpenBLAS leave LAPACK out.
const NEEDED_SYMBOLS: [&[u8]; 2] = [b"\0cblas_sgemm\0", b"\0ssyevd_\0"];

/// Puts OpenBLAS among the runtime's libraries if it is installed, and says so if it isn't.
pub fn prepare(platform: Platform, runtime: &Runtime) -> Result<()> {
    if platform.os != Os::Linux || runtime.variant.is_none() {
        return Ok(());
    }
    let Some(folder) = library_folder(&runtime.root)? else {
        return Ok(());
    };
    let marker = folder.join(MARKER);
    let Some(openblas) = find(platform) else {
        if !marker.exists() {
            say("warning: OpenBLAS is not installed, so matrix products on the CPU will be some 30 times slower");
            say(
                "         install it (Debian: apt install libopenblas0-pthread) and run this again",
            );
        }
        return Ok(());
    };
    let identity = identity(&openblas)?;
    if fs::read_to_string(&marker).is_ok_and(|present| present == identity) {
        return Ok(());
    }
    if !has_lapack(&openblas)? {
        say(&format!(
            "warning: {} lacks LAPACK and is not used",
            openblas.display()
        ));
        return Ok(());
    }
    swap(&folder, &openblas, &companions(&openblas))?;
    replace_file(&marker, |path| fs::write(path, &identity))?;
    say(&format!("OpenBLAS: {} put in place", openblas.display()));
    Ok(())
}

/// The folder beside `mlx` where the package keeps the libraries that it brings along.
fn library_folder(root: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(root).map_err(Error::io("read", root))?;
    Ok(entries.flatten().map(|entry| entry.path()).find(|path| {
        path.extension()
            .is_some_and(|extension| extension == "libs")
    }))
}

fn find(platform: Platform) -> Option<PathBuf> {
    let triplet = match platform.arch {
        Arch::X86_64 => "x86_64-linux-gnu",
        Arch::Aarch64 => "aarch64-linux-gnu",
    };
    let known = [
        format!("/usr/lib/{triplet}/openblas-pthread/libopenblas.so.0"),
        format!("/usr/lib/{triplet}/libopenblas.so.0"),
        "/usr/lib64/libopenblasp.so.0".to_owned(),
        "/usr/lib64/libopenblas.so.0".to_owned(),
        "/usr/lib/libopenblas.so.0".to_owned(),
    ];
    known
        .into_iter()
        .map(PathBuf::from)
        .chain(in_linker_cache())
        .find_map(|path| path.canonicalize().ok())
}

fn in_linker_cache() -> Option<PathBuf> {
    let listing =
        output_of("ldconfig", &["-p"]).or_else(|| output_of("/sbin/ldconfig", &["-p"]))?;
    listing.lines().find_map(|line| {
        let (name, path) = line.split_once("=>")?;
        name.trim()
            .starts_with("libopenblas.so.0")
            .then(|| PathBuf::from(path.trim()))
    })
}

fn identity(library: &Path) -> Result<String> {
    let metadata = fs::metadata(library).map_err(Error::io("read", library))?;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |age| age.as_secs());
    Ok(format!(
        "{} {} {modified}\n",
        library.display(),
        metadata.len()
    ))
}

fn has_lapack(library: &Path) -> Result<bool> {
    let bytes = fs::read(library).map_err(Error::io("read", library))?;
    Ok(NEEDED_SYMBOLS.iter().all(|symbol| contains(&bytes, symbol)))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Where the loader finds the libraries that OpenBLAS needs, by the names it asks for.
fn companions(library: &Path) -> Vec<(String, PathBuf)> {
    let listing = output_of("ldd", &[&library.to_string_lossy()]).unwrap_or_default();
    listing
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" => ")?;
            let path = rest.split(" (").next()?.trim();
            let wanted = COMPANIONS.iter().any(|start| name.starts_with(start));
            (wanted && path.starts_with('/')).then(|| (name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

/// The libraries keep their file names, for libmlx asks for those; every step leaves a folder that works.
fn swap(folder: &Path, openblas: &Path, companions: &[(String, PathBuf)]) -> Result<()> {
    for (name, path) in companions {
        replace_file(&folder.join(name), |partial| {
            fs::copy(path, partial).map(drop)
        })?;
    }
    let blas = named(folder, "libblas")?;
    let lapack = named(folder, "liblapack")?;
    for name in [&blas, &lapack] {
        keep_bundled(folder, name)?;
    }
    replace_file(&folder.join(&blas), |partial| {
        fs::copy(openblas, partial).map(drop)
    })?;
    let stub = build_stub(folder, &lapack)?;
    let lapack = folder.join(&lapack);
    fs::rename(&stub, &lapack).map_err(Error::io("write", &lapack))
}

/// An empty library for the place of LAPACK, whose functions libmlx finds in OpenBLAS. A link to
/// OpenBLAS would become a second copy of it in a release, loaded with threads of its own.
fn build_stub(folder: &Path, name: &str) -> Result<PathBuf> {
    let stub = folder.join("stub.so");
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-nostdlib", "-x", "c", "/dev/null"])
        .arg(format!("-Wl,-soname,{name}"))
        .arg("-o")
        .arg(&stub);
    run_quietly(
        &mut command,
        "linking an empty library",
        "Install a C compiler (Debian: gcc); cargo needs it too.",
    )?;
    Ok(stub)
}

fn named(folder: &Path, start: &str) -> Result<String> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with(start))
        .ok_or_else(|| Error::Unexpected {
            path: folder.to_path_buf(),
            what: "BLAS and LAPACK library",
        })
}

fn keep_bundled(folder: &Path, name: &str) -> Result<()> {
    let bundled = folder.join(BUNDLED);
    let kept = bundled.join(name);
    if kept.exists() {
        return Ok(());
    }
    fs::create_dir_all(&bundled).map_err(Error::io("create", &bundled))?;
    replace_file(&kept, |partial| fs::hard_link(folder.join(name), partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    fn package(dir: &Path) -> PathBuf {
        let folder = dir.join("mlx_cpu.libs");
        fs::create_dir(&folder).expect("a folder");
        for name in ["libblas-1.so.3", "liblapack-2.so.3"] {
            fs::write(folder.join(name), name).expect("a library");
        }
        folder
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).expect("a file")
    }

    #[test]
    fn one_openblas_takes_both_places_and_the_bundled_ones_are_kept() {
        let dir = TempDir::new();
        let folder = package(&dir.0);
        let openblas = dir.0.join("libopenblas.so.0");
        let fortran = dir.0.join("libgfortran.so.5");
        fs::write(&openblas, "openblas").expect("a library");
        fs::write(&fortran, "fortran").expect("a library");
        let companions = [("libgfortran.so.5".to_owned(), fortran)];
        for _ in 0..2 {
            swap(&folder, &openblas, &companions).expect("swapped");
            assert_eq!(read(folder.join("libblas-1.so.3")), "openblas");
            let lapack = fs::read(folder.join("liblapack-2.so.3")).expect("a stub");
            assert!(lapack.starts_with(b"\x7fELF"));
            assert_eq!(read(folder.join("libgfortran.so.5")), "fortran");
            assert_eq!(
                read(folder.join("bundled/libblas-1.so.3")),
                "libblas-1.so.3"
            );
            assert_eq!(
                read(folder.join("bundled/liblapack-2.so.3")),
                "liblapack-2.so.3"
            );
        }
    }

    #[test]
    fn a_blas_without_lapack_is_recognized() {
        assert!(contains(b"x\0cblas_sgemm\0y", NEEDED_SYMBOLS[0]));
        assert!(!contains(b"x\0cblas_sgemm\0y", NEEDED_SYMBOLS[1]));
    }
}
