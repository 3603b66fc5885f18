//! The sources of mlx-c, which the mlx-sys crate carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::{capture, tail};

pub struct MlxC {
    pub dir: PathBuf,
    /// The version of mlx-sys.
    pub mlx_sys: String,
    /// The version of mlx-c itself.
    pub version: String,
    /// The version of MLX that mlx-c is written for.
    pub mlx: String,
}

impl MlxC {
    /// Finds mlx-sys among the workspace's dependencies; cargo downloads it when it must.
    pub fn find(workspace: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["metadata", "--format-version", "1"])
            .current_dir(workspace);
        let output = capture(&mut command, "cargo metadata")?;
        let metadata = serde_json::from_slice::<Value>(&output.stdout).ok();
        let Some(metadata) = metadata.filter(|_| output.status.success()) else {
            return Err(Error::CommandFailed {
                what: "cargo metadata".to_owned(),
                status: output.status.to_string(),
                output: tail(&String::from_utf8_lossy(&output.stderr)),
                remedy: "Check that crates.io can be reached, then run this again.".to_owned(),
            });
        };
        Self::in_metadata(&metadata).unwrap_or_else(|| {
            Err(Error::Unexpected {
                path: workspace.join("Cargo.toml"),
                what: "dependency on mlx-sys",
            })
        })
    }

    fn in_metadata(metadata: &Value) -> Option<Result<Self>> {
        let package = metadata["packages"]
            .as_array()?
            .iter()
            .find(|package| package["name"] == "mlx-sys")?;
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let dir = manifest.parent()?.join("src/mlx-c");
        Some(Self::read(dir, package["version"].as_str()?))
    }

    fn read(dir: PathBuf, mlx_sys: &str) -> Result<Self> {
        let path = dir.join("CMakeLists.txt");
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let missing = |what| Error::Unexpected {
            path: path.clone(),
            what,
        };
        Ok(Self {
            version: word_after(&text, "set(MLX_C_VERSION ")
                .ok_or_else(|| missing("MLX_C_VERSION"))?,
            mlx: word_after(&text, "GIT_TAG v").ok_or_else(|| missing("GIT_TAG of MLX"))?,
            mlx_sys: mlx_sys.to_owned(),
            dir,
        })
    }
}

/// The word that follows `marker`, up to a blank or a closing parenthesis.
fn word_after(text: &str, marker: &str) -> Option<String> {
    let (_, rest) = text.split_once(marker)?;
    let end = rest.find(|c: char| c == ')' || c.is_whitespace())?;
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    #[test]
    fn reads_the_versions_from_the_build_file() {
        let dir = TempDir::new();
        let text = "set(MLX_C_VERSION 0.7.0)\nFetchContent_Declare(\n  mlx\n  GIT_TAG v0.32.2)\n";
        fs::write(dir.0.join("CMakeLists.txt"), text).expect("a file");
        let mlx_c = MlxC::read(dir.0.clone(), "0.7.0").expect("versions");
        assert_eq!(mlx_c.version, "0.7.0");
        assert_eq!(mlx_c.mlx, "0.32.2");
    }

    #[test]
    fn says_what_a_changed_build_file_lacks() {
        let dir = TempDir::new();
        fs::write(dir.0.join("CMakeLists.txt"), "project(mlx)\n").expect("a file");
        let error = MlxC::read(dir.0.clone(), "0.7.0")
            .err()
            .expect("no version");
        assert!(matches!(error, Error::Unexpected { .. }));
    }
}
