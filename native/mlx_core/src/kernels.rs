//! Where MLX puts the libraries that it compiles on a CPU: by itself in a folder that
//! everyone on the machine can foresee and fill.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use once_cell::sync::OnceCell;

use crate::error::{Error, Result};

static FOLDER: OnceCell<PathBuf> = OnceCell::new();

/// Gives this process a folder of its own.
pub(crate) fn prepare() -> Result<()> {
    FOLDER.get_or_try_init(make).map(|_| ())
}

fn make() -> Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    let name = format!("mlx-{}-{nanoseconds:x}", process::id());
    let folder = std::env::temp_dir().join(name);
    // A folder that is there already is not ours.
    let made = DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| Error::KernelFolder {
        folder: folder.display().to_string(),
        message: error.to_string(),
    })?;
    // MLX asks for this when it compiles its first kernel, which is later.
    std::env::set_var("TMPDIR", &folder);
    Ok(folder)
}

/// At the end of the process.
pub(crate) fn remove() {
    if let Some(folder) = FOLDER.get() {
        // What can't be removed stays, as files in temporary folders do.
        let _ = std::fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_folder_is_the_users_own_and_goes() {
        let folder = make().unwrap();
        let mode = folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(std::env::temp_dir(), folder);
        FOLDER.set(folder.clone()).unwrap();
        remove();
        assert!(!folder.exists());
    }
}
