//! NVIDIA's own libraries, which the CUDA packages of MLX need beside the driver.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cache::{key, replace_file, Cache};
use crate::error::{Error, Result};
use crate::package::Pin;
use crate::platform::Platform;
use crate::process::{output_of, say};
use crate::runtime::Runtime;

/// Comes with the driver and never from a package.
const DRIVER: &str = "libcuda.so.1";

/// Prints the folder of the `nvidia` packages that Python has, if any.
const IN_PYTHON: &str = "import nvidia; print(list(nvidia.__path__)[0])";

/// Makes sure that the runtime finds its libraries: the system's, else Python's, else the pinned ones.
pub fn prepare(cache: &Cache, platform: Platform, runtime: &Runtime) -> Result<()> {
    let Some(pin) = runtime.variant.and_then(Pin::of_nvidia) else {
        return Ok(());
    };
    let library = runtime.lib().join(platform.library());
    if missing(&library).is_empty() {
        return Ok(());
    }
    let link = runtime.root.join("nvidia");
    if let Some(folder) = in_python() {
        replace_file(&link, |partial| symlink(&folder, partial))?;
        if missing(&library).is_empty() {
            say(&format!("{}: found in {}", pin.name, folder.display()));
            return Ok(());
        }
    }
    let relative = format!("nvidia/{platform}-{}", key(&[pin.requirements]));
    let tags = platform.wheel_tags()?;
    let entry = cache.entry(&relative, |dir| {
        say("some 2 GB of NVIDIA's libraries are needed (MLX_VARIANT=cpu does without)");
        pin.install(&tags, dir)
    })?;
    replace_file(&link, |partial| symlink(entry.join("nvidia"), partial))?;
    match missing(&library) {
        none if none.is_empty() => Ok(()),
        some => {
            // Without the link, the next run starts from the same place.
            let _ = fs::remove_file(&link);
            Err(Error::LibrariesMissing {
                package: runtime.name.clone(),
                missing: some.join(", "),
            })
        }
    }
}

fn in_python() -> Option<PathBuf> {
    let path = PathBuf::from(output_of("python3", &["-c", IN_PYTHON])?.trim());
    path.is_dir().then_some(path)
}

/// The libraries that the loader can't find for `library`.
fn missing(library: &Path) -> Vec<String> {
    let listing = output_of("ldd", &[&library.to_string_lossy()]).unwrap_or_default();
    missing_in(&listing)
}

fn missing_in(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" => not found"))
        .filter(|name| *name != DRIVER)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_not_counted_as_missing() {
        let listing = "\tlibcuda.so.1 => not found\n\tlibnccl.so.2 => not found\n\tlibm.so.6 => /lib/libm.so.6 (0x0)\n";
        assert_eq!(missing_in(listing), ["libnccl.so.2"]);
    }
}
