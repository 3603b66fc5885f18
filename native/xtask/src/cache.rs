//! The cache folder: one writer at a time, and entries that are there whole or not at all.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform::{Os, Platform};
use crate::process::say;

const PARTIAL: &str = ".partial-";

/// The cache, locked for as long as this value lives.
pub struct Cache {
    root: PathBuf,
    _lock: File,
}

impl Cache {
    pub fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(Error::io("create", root))?;
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                say("waiting for another run that is preparing MLX");
                lock.lock().map_err(Error::io("lock", &path))?;
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
        Ok(Self { root, _lock: lock })
    }

    /// Returns the entry at `relative`, which `fill` makes in a folder that becomes the entry
    /// only once it is complete.
    pub fn entry(&self, relative: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let target = self.root.join(relative);
        if target.is_dir() {
            return Ok(target);
        }
        let parent = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        remove_partial(parent)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = parent.join(format!("{PARTIAL}{name}"));
        fs::create_dir(&partial).map_err(Error::io("create", &partial))?;
        let filled = fill(&partial)
            .and_then(|()| fs::rename(&partial, &target).map_err(Error::io("create", &target)));
        if let Err(error) = filled {
            // The first error is the one to report; the next run removes what is left.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
        Ok(target)
    }

    /// Removes everything that was prepared.
    pub fn clear(&self) -> Result<()> {
        for folder in ["runtime", "mlxc", "nvidia"] {
            let path = self.root.join(folder);
            if path.exists() {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// `MLX_CACHE`, or a folder in the platform's own cache.
pub fn root(platform: Platform) -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set("MLX_CACHE") {
        return std::path::absolute(&path).map_err(Error::io("find", Path::new(&path)));
    }
    let home = set("HOME")
        .map(PathBuf::from)
        .ok_or_else(|| Error::ToolMissing {
            tool: "the home folder (HOME)".to_owned(),
            purpose: "find the cache",
            remedy: "Set HOME, or name a folder in MLX_CACHE.".to_owned(),
        })?;
    Ok(match platform.os {
        Os::MacOs => home.join("Library/Caches/mlx"),
        Os::Linux => set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| home.join(".cache"))
            .join("mlx"),
    })
}

/// The lock is held, so whatever is partial belongs to a run that was interrupted.
fn remove_partial(parent: &Path) -> Result<()> {
    let entries = fs::read_dir(parent).map_err(Error::io("read", parent))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// A short name for what an entry depends on (64-bit FNV-1a: the same in every build of xtask).
pub fn key(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

/// Replaces a file in one step, so that no reader sees half of it.
pub fn replace_file(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!("{PARTIAL}{name}"));
    if fs::symlink_metadata(&partial).is_ok() {
        fs::remove_file(&partial).map_err(Error::io("remove", &partial))?;
    }
    let written = write(&partial).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.map_err(Error::io("write", path))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    /// A folder of one test, removed when the test ends.
    pub struct TempDir(pub PathBuf);

    impl TempDir {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("xtask-test-{}-{number}", std::process::id());
            let path = env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a temporary folder");
            Self(path.canonicalize().expect("a real path"))
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_entry_is_made_once() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0).expect("a cache");
        for _ in 0..2 {
            let entry = cache
                .entry("runtime/a", |path| {
                    assert!(!dir.0.join("runtime/a").exists());
                    fs::write(path.join("file"), "x").map_err(Error::io("write", path))
                })
                .expect("an entry");
            assert!(entry.join("file").is_file());
        }
    }

    #[test]
    fn a_failed_or_interrupted_entry_leaves_nothing() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0).expect("a cache");
        let stale = dir.0.join("runtime/.partial-old");
        fs::create_dir_all(stale.join("deep")).expect("a stale folder");
        let failed = cache.entry("runtime/a", |path| {
            fs::write(path.join("half"), "x").map_err(Error::io("write", path))?;
            Err(Error::UnknownVariant {
                value: "a failure".to_owned(),
            })
        });
        assert!(failed.is_err());
        let left = fs::read_dir(dir.0.join("runtime")).expect("the folder");
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_second_writer_waits() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0).expect("a cache");
        let root = dir.0.clone();
        let second = std::thread::spawn(move || {
            let cache = Cache::open(&root).expect("a cache");
            cache.root.join("runtime/a").is_dir()
        });
        cache
            .entry("runtime/a", |_| {
                std::thread::sleep(Duration::from_millis(100));
                Ok(())
            })
            .expect("an entry");
        drop(cache);
        assert!(second.join().expect("no panic"));
    }

    #[test]
    fn keys_tell_their_parts_apart() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }
}
