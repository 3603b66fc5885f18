//! The MLX runtime: a folder with `mlx/lib` and `mlx/include`, packaged or already installed.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cache::{key, Cache};
use crate::error::{Error, Result};
use crate::package::Pin;
use crate::platform::Platform;
use crate::sources::MlxC;
use crate::variant::Variant;

/// What an installed MLX keeps beside each other in its folder of headers.
const HEADER_FOLDERS: [&str; 6] = ["mlx", "metal_cpp", "jaccl", "cccl", "cute", "cutlass"];
/// What belongs to MLX in a system's folder of libraries.
const LIBRARY_FILES: [&str; 3] = ["libmlx.", "libjaccl.", "mlx.metallib"];

pub struct Runtime {
    pub root: PathBuf,
    /// What to call it in messages.
    pub name: String,
    /// Differs when the headers do: mlx-c is built once for all packages of a version.
    pub headers_id: String,
    /// The package that it is; this tool may change only what it unpacked itself.
    pub variant: Option<Variant>,
}

impl Runtime {
    /// `MLX_DIR` if it is set, else the package that `MLX_VARIANT` asks for.
    pub fn prepare(cache: &Cache, platform: Platform, sources: &MlxC) -> Result<Self> {
        match env::var_os("MLX_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => Self::installed(cache, platform, sources, Path::new(&dir)),
            None => Self::packaged(cache, platform, sources, Variant::from_env(platform)?),
        }
    }

    fn packaged(
        cache: &Cache,
        platform: Platform,
        sources: &MlxC,
        variant: Variant,
    ) -> Result<Self> {
        let pin = Pin::of(variant);
        let version = pin.version();
        if version != sources.mlx {
            return Err(Error::PinMismatch {
                pinned: version.to_owned(),
                mlx_sys: sources.mlx_sys.clone(),
                wanted: sources.mlx.clone(),
            });
        }
        let tags = platform.wheel_tags()?;
        let relative = format!("runtime/{version}-{}-{platform}", variant.name());
        let root = cache.entry(&relative, |dir| pin.install(&tags, dir))?;
        Ok(Self {
            root,
            name: format!("{} {version}", pin.name),
            headers_id: format!("package {version}"),
            variant: Some(variant),
        })
    }

    fn installed(cache: &Cache, platform: Platform, sources: &MlxC, dir: &Path) -> Result<Self> {
        let prefix = Prefix::read(dir, platform)?;
        let version = &prefix.version;
        if *version != sources.mlx {
            return Err(Error::MlxDirVersion {
                dir: dir.to_path_buf(),
                found: prefix.version,
                wanted: sources.mlx.clone(),
            });
        }
        let links = prefix.links()?;
        let parts: Vec<String> = links
            .iter()
            .map(|(name, source)| format!("{name}={}", source.display()))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let relative = format!("runtime/{version}-dir-{}", key(&parts));
        let root = cache.entry(&relative, |entry| make_links(&entry.join("mlx"), &links))?;
        Ok(Self {
            root,
            name: format!("MLX {version} in {}", dir.display()),
            headers_id: headers_id(&prefix.include)?,
            variant: None,
        })
    }

    pub fn lib(&self) -> PathBuf {
        self.root.join("mlx/lib")
    }

    pub fn include(&self) -> PathBuf {
        self.root.join("mlx/include")
    }
}

/// An installed MLX.
struct Prefix {
    lib: PathBuf,
    include: PathBuf,
    version: String,
}

impl Prefix {
    fn read(dir: &Path, platform: Platform) -> Result<Self> {
        let missing = |missing: String| Error::MlxDirIncomplete {
            dir: dir.to_path_buf(),
            missing,
        };
        let dir = dir
            .canonicalize()
            .map_err(|_| missing("the folder itself".to_owned()))?;
        let header = dir.join("include/mlx/version.h");
        let text =
            fs::read_to_string(&header).map_err(|_| missing("include/mlx/version.h".to_owned()))?;
        let version =
            version_in(&text).ok_or_else(|| missing("a version in mlx/version.h".to_owned()))?;
        let lib = platform
            .library_dirs()
            .iter()
            .map(|lib| dir.join(lib))
            .find(|lib| lib.join(platform.library()).exists())
            .ok_or_else(|| missing(format!("lib/{}", platform.library())))?;
        Ok(Self {
            lib,
            include: dir.join("include"),
            version,
        })
    }

    /// The links that make a runtime folder: names in it and what they stand for. A library folder
    /// of MLX's own is linked whole, because libraries in it may look for each other; a system's is
    /// not, for it holds everything else too.
    fn links(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut links: Vec<(String, PathBuf)> = HEADER_FOLDERS
            .iter()
            .map(|folder| (format!("include/{folder}"), self.include.join(folder)))
            .filter(|(_, source)| source.is_dir())
            .collect();
        if !self.lib.starts_with("/usr") {
            links.push(("lib".to_owned(), self.lib.clone()));
            return Ok(links);
        }
        let entries = fs::read_dir(&self.lib).map_err(Error::io("read", &self.lib))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if LIBRARY_FILES.iter().any(|start| name.starts_with(start)) {
                links.push((format!("lib/{name}"), entry.path()));
            }
        }
        links.sort();
        Ok(links)
    }
}

fn make_links(mlx: &Path, links: &[(String, PathBuf)]) -> Result<()> {
    for (name, source) in links {
        let link = mlx.join(name);
        let folder = link.parent().unwrap_or(mlx);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        symlink(source, &link).map_err(Error::io("link", &link))?;
    }
    Ok(())
}

/// Changes when MLX is built anew with other headers, even if its version stays.
fn headers_id(include: &Path) -> Result<String> {
    let mut folders = vec![include.join("mlx")];
    let mut parts = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
                let modified = metadata.modified().map_err(Error::io("read", &path))?;
                parts.push(format!("{} {modified:?}", path.display()));
            }
        }
    }
    parts.sort();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(key(&parts))
}

fn version_in(header: &str) -> Option<String> {
    let number = |name: &str| {
        header.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("#define")?.trim_start();
            rest.strip_prefix(name)?.trim().parse::<u32>().ok()
        })
    };
    Some(format!(
        "{}.{}.{}",
        number("MLX_VERSION_MAJOR ")?,
        number("MLX_VERSION_MINOR ")?,
        number("MLX_VERSION_PATCH ")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;
    use crate::platform::Platform;

    fn linux() -> Platform {
        Platform::of("linux", "x86_64").expect("a platform")
    }

    fn sources(mlx: &str) -> MlxC {
        MlxC {
            dir: PathBuf::new(),
            mlx_sys: "0.7.0".to_owned(),
            version: "0.7.0".to_owned(),
            mlx: mlx.to_owned(),
        }
    }

    /// A prefix as a distribution would install it, with its library in `lib`.
    fn prefix(dir: &Path, lib: &str) -> PathBuf {
        let prefix = dir.join("prefix");
        fs::create_dir_all(prefix.join("include/mlx")).expect("a folder");
        fs::create_dir_all(prefix.join(lib)).expect("a folder");
        let header = "#pragma once\n#define MLX_VERSION_MAJOR 0\n#define MLX_VERSION_MINOR 32\n#define MLX_VERSION_PATCH 2\n";
        fs::write(prefix.join("include/mlx/version.h"), header).expect("a header");
        fs::write(prefix.join(lib).join("libmlx.so"), "").expect("a library");
        prefix
    }

    #[test]
    fn an_installed_mlx_is_linked() {
        for lib in ["lib", "lib64", "lib/x86_64-linux-gnu"] {
            let dir = TempDir::new();
            let cache = Cache::open(&dir.0.join("cache")).expect("a cache");
            let prefix = prefix(&dir.0, lib);
            let runtime = Runtime::installed(&cache, linux(), &sources("0.32.2"), &prefix)
                .expect("a runtime");
            assert!(runtime.lib().join("libmlx.so").is_file());
            assert!(runtime.include().join("mlx/version.h").is_file());
        }
    }

    #[test]
    fn an_installed_mlx_of_another_version_is_refused() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0.join("cache")).expect("a cache");
        let prefix = prefix(&dir.0, "lib");
        let error = Runtime::installed(&cache, linux(), &sources("0.33.0"), &prefix)
            .err()
            .expect("versions differ");
        assert!(
            matches!(&error, Error::MlxDirVersion { found, wanted, .. } if found == "0.32.2" && wanted == "0.33.0")
        );
        assert!(!dir.0.join("cache/runtime").exists());
    }

    #[test]
    fn a_prefix_without_mlx_is_refused() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0.join("cache")).expect("a cache");
        let prefix = prefix(&dir.0, "elsewhere");
        let error = Runtime::installed(&cache, linux(), &sources("0.32.2"), &prefix)
            .err()
            .expect("no library");
        assert!(
            matches!(error, Error::MlxDirIncomplete { missing, .. } if missing == "lib/libmlx.so")
        );
    }
}
