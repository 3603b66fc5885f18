//! `.cargo/config.toml`: cargo's links override for mlx-sys, in place of its build script.

use std::fs;
use std::path::Path;

use crate::cache::replace_file;
use crate::error::{Error, Result};
use crate::platform::{Os, Platform};

const MARKER: &str = "# Written by `cargo xtask mlx`; edits are overwritten.";

pub struct Override<'a> {
    pub platform: Platform,
    /// Holds `lib/libmlxc.a` and `bindings.rs`.
    pub mlxc: &'a Path,
    /// Holds MLX's shared library.
    pub runtime_lib: &'a Path,
    /// The C++ compiler, as it would stand in `CXX`.
    pub compiler: &'a str,
}

/// Writes the file unless it says the same already: cargo rebuilds what depends on it.
pub fn write(workspace: &Path, settings: &Override) -> Result<bool> {
    let path = workspace.join(".cargo/config.toml");
    let text = render(settings);
    match fs::read_to_string(&path) {
        Ok(present) if present == text => return Ok(false),
        Ok(present) if !present.starts_with(MARKER) => {
            return Err(Error::ForeignCargoConfig { path });
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", &path)(error)),
    }
    let folder = workspace.join(".cargo");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    replace_file(&path, |partial| fs::write(partial, &text))?;
    Ok(true)
}

/// Removes the file if this tool wrote it.
pub fn remove(workspace: &Path) -> Result<()> {
    let path = workspace.join(".cargo/config.toml");
    match fs::read_to_string(&path) {
        Ok(text) if text.starts_with(MARKER) => {
            fs::remove_file(&path).map_err(Error::io("remove", &path))
        }
        _ => Ok(()),
    }
}

fn render(settings: &Override) -> String {
    let standard_library = match settings.platform.os {
        Os::Linux => "stdc++",
        Os::MacOs => "c++",
    };
    let quoted = |path: &Path| quote(&path.to_string_lossy());
    let search = |path: &Path| quote(&format!("native={}", path.display()));
    format!(
        "{MARKER}\n\n\
         [alias]\n\
         xtask = \"run --quiet --package xtask --\"\n\n\
         [target.{target}.mlx]\n\
         rustc-link-search = [{mlxc_lib}, {runtime_search}]\n\
         rustc-link-lib = [\"static=mlxc\", \"mlx\", \"{standard_library}\"]\n\
         rustc-env = {{ OUT_DIR = {out_dir} }}\n\
         runtime = {runtime}\n\
         compiler = {compiler}\n",
        target = settings.platform.target(),
        mlxc_lib = search(&settings.mlxc.join("lib")),
        runtime_search = search(settings.runtime_lib),
        out_dir = quoted(settings.mlxc),
        runtime = quoted(settings.runtime_lib),
        compiler = quote(settings.compiler),
    )
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    fn settings<'a>(mlxc: &'a Path, runtime_lib: &'a Path) -> Override<'a> {
        Override {
            platform: Platform::of("linux", "x86_64").expect("a platform"),
            mlxc,
            runtime_lib,
            compiler: "g++-14 -m64",
        }
    }

    #[test]
    fn writing_twice_changes_nothing() {
        let dir = TempDir::new();
        let settings = settings(Path::new("/cache/mlxc"), Path::new("/cache/mlx/lib"));
        assert!(write(&dir.0, &settings).expect("written"));
        assert!(!write(&dir.0, &settings).expect("the same"));
        let moved = Override {
            mlxc: Path::new("/other"),
            ..settings
        };
        assert!(write(&dir.0, &moved).expect("rewritten"));
        remove(&dir.0).expect("removed");
        assert!(!dir.0.join(".cargo/config.toml").exists());
    }

    #[test]
    fn a_file_of_the_users_own_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.0.join(".cargo/config.toml");
        fs::create_dir(dir.0.join(".cargo")).expect("a folder");
        fs::write(&path, "[build]\njobs = 1\n").expect("a file");
        let settings = settings(Path::new("/a"), Path::new("/b"));
        let error = write(&dir.0, &settings).expect_err("refused");
        assert!(matches!(error, Error::ForeignCargoConfig { .. }));
        remove(&dir.0).expect("nothing to do");
        assert_eq!(
            fs::read_to_string(&path).expect("kept"),
            "[build]\njobs = 1\n"
        );
    }

    #[test]
    fn the_override_names_what_rustc_needs() {
        let text = render(&settings(Path::new("/a \"b\""), Path::new("/r/mlx/lib")));
        assert!(text.contains("[target.x86_64-unknown-linux-gnu.mlx]"));
        assert!(text.contains("OUT_DIR = \"/a \\\"b\\\"\""));
        assert!(text.contains("runtime = \"/r/mlx/lib\""));
        assert!(text.contains("\"native=/r/mlx/lib\""));
        assert!(text.contains("compiler = \"g++-14 -m64\""));
    }
}
