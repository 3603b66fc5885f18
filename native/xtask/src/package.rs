//! The official MLX packages: pinned by version and sha256, fetched with pip, unpacked as they are.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{disk_is_full, Error, Result};
use crate::process::{output_of, run_quietly, run_shown, say, tail};
use crate::variant::Variant;

const PIP_REMEDY: &str =
    "Install Python 3 with pip (Debian: python3-pip; macOS: it is part of the Command Line Tools).";

/// A package and the requirement lines that pin it.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    pub name: &'static str,
    pub requirements: &'static str,
}

impl Pin {
    pub fn of(variant: Variant) -> Self {
        let (name, requirements) = match variant {
            Variant::Cpu => ("mlx-cpu", include_str!("../wheels/mlx-cpu.txt")),
            Variant::Cuda12 => ("mlx-cuda-12", include_str!("../wheels/mlx-cuda-12.txt")),
            Variant::Cuda13 => ("mlx-cuda-13", include_str!("../wheels/mlx-cuda-13.txt")),
            Variant::Metal => ("mlx-metal", include_str!("../wheels/mlx-metal.txt")),
        };
        Self { name, requirements }
    }

    /// The pinned version.
    pub fn version(&self) -> &'static str {
        self.requirements
            .lines()
            .find_map(|line| line.split_once("=="))
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or_default()
    }

    /// The libraries of NVIDIA that a CUDA package needs. Those for CUDA 13 are of release 13.0,
    /// because a driver runs what was made for its own release or an earlier one.
    pub fn of_nvidia(variant: Variant) -> Option<Self> {
        let (name, requirements) = match variant {
            Variant::Cuda12 => (
                "NVIDIA's libraries for CUDA 12",
                include_str!("../wheels/nvidia-cuda-12.txt"),
            ),
            Variant::Cuda13 => (
                "NVIDIA's libraries for CUDA 13",
                include_str!("../wheels/nvidia-cuda-13.txt"),
            ),
            Variant::Cpu | Variant::Metal => return None,
        };
        Some(Self { name, requirements })
    }

    /// Downloads what is pinned, for the first of `tags` that there is, and unpacks it into `dir`.
    pub fn install(&self, tags: &[String], dir: &Path) -> Result<()> {
        let wheels = dir.join("wheels");
        fs::create_dir(&wheels).map_err(Error::io("create", &wheels))?;
        let list = wheels.join("requirements.txt");
        fs::write(&list, self.requirements).map_err(Error::io("write", &list))?;
        say(&format!("{}: downloading", self.name));
        self.download(tags, &list, &wheels)?;
        say(&format!("{}: unpacking", self.name));
        for wheel in files_in(&wheels, "whl")? {
            unpack(&wheel, dir)?;
            fs::remove_file(&wheel).map_err(Error::io("remove", &wheel))?;
        }
        fs::remove_dir_all(&wheels).map_err(Error::io("remove", &wheels))
    }

    fn download(&self, tags: &[String], list: &Path, wheels: &Path) -> Result<()> {
        if output_of("python3", &["-m", "pip", "--version"]).is_none() {
            return Err(Error::ToolMissing {
                tool: "pip for python3".to_owned(),
                purpose: "download the MLX package",
                remedy: PIP_REMEDY.to_owned(),
            });
        }
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"])
            .args(["download", "--no-deps", "--only-binary=:all:"])
            .args(["--require-hashes", "--retries", "2"])
            .args(tags.iter().flat_map(|tag| ["--platform", tag]))
            .arg("--dest")
            .arg(wheels)
            .arg("--requirement")
            .arg(list);
        if !std::io::stdout().is_terminal() {
            pip.arg("--quiet").stdout(Stdio::null());
        }
        let (success, errors) = run_shown(&mut pip, "pip download")?;
        if success {
            Ok(())
        } else {
            Err(self.download_failure(&errors, wheels))
        }
    }

    fn download_failure(&self, errors: &str, wheels: &Path) -> Error {
        let package = self.name.to_owned();
        let output = tail(errors);
        let says = |words: &[&str]| words.iter().any(|word| errors.contains(word));
        if says(&["DO NOT MATCH THE HASHES", "Hashes are required"]) {
            return Error::HashMismatch { package, output };
        }
        if says(&["No space left on device"]) || disk_is_full(wheels) {
            return Error::DiskFull {
                path: wheels.to_path_buf(),
            };
        }
        if says(&[
            "onnection",
            "timed out",
            "Temporary failure",
            "roxy",
            "Max retries",
        ]) {
            return Error::NoNetwork { package, output };
        }
        Error::CommandFailed {
            what: format!("the download of {package}"),
            status: "pip".to_owned(),
            output,
            remedy: "Check pip's settings (pip config list): its index must carry this version."
                .to_owned(),
        }
    }
}

fn unpack(wheel: &Path, dir: &Path) -> Result<()> {
    let mut command = Command::new("python3");
    command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(dir);
    run_quietly(
        &mut command,
        "unpacking",
        "Free some space where the cache is, then run this again.",
    )
    .map_err(|error| match error {
        Error::CommandFailed { output, .. } if output.contains("No space left on device") => {
            Error::DiskFull {
                path: dir.to_path_buf(),
            }
        }
        error => error,
    })
}

fn files_in(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;
    use crate::cache::Cache;

    const ALL: [Variant; 4] = [
        Variant::Cpu,
        Variant::Cuda12,
        Variant::Cuda13,
        Variant::Metal,
    ];

    #[test]
    fn all_variants_are_pinned_to_one_version() {
        for variant in ALL {
            let pin = Pin::of(variant);
            assert_eq!(pin.version(), Pin::of(Variant::Cpu).version());
            let pinned = format!("{}=={}", pin.name, pin.version());
            assert!(pin.requirements.starts_with(&pinned));
            assert!(pin.requirements.contains("--hash=sha256:"));
        }
    }

    #[test]
    fn nvidia_libraries_are_pinned_for_both_architectures() {
        for variant in [Variant::Cuda12, Variant::Cuda13] {
            let pin = Pin::of_nvidia(variant).expect("a pin");
            let lines = pin.requirements.lines();
            let packages = lines.clone().filter(|line| line.contains("==")).count();
            let hashes = lines.filter(|line| line.contains("--hash=")).count();
            assert_eq!(hashes, 2 * packages);
        }
    }

    /// A wheel that pip accepts, and requirements that find it without a network.
    fn local_pin(dir: &Path, hash: &str) -> Pin {
        let wheel = dir.join("mlx_probe-1.0-py3-none-any.whl");
        let script = "import sys, zipfile\nz = zipfile.ZipFile(sys.argv[1], 'w')\n\
            z.writestr('mlx/lib/libmlx.so', 'x')\n\
            z.writestr('mlx_probe-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: mlx-probe\\nVersion: 1.0\\n')\n\
            z.writestr('mlx_probe-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n\
            z.close()\nimport hashlib\nprint(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";
        let real = output_of("python3", &["-c", script, &wheel.to_string_lossy()]);
        let real = real.expect("a wheel");
        let hash = if hash.is_empty() { real.trim() } else { hash };
        let requirements = format!(
            "--no-index\n--find-links {}\nmlx-probe==1.0 --hash=sha256:{hash}\n",
            dir.display()
        );
        Pin {
            name: "mlx-probe",
            requirements: requirements.leak(),
        }
    }

    #[test]
    fn a_wrong_hash_installs_nothing() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0.join("cache")).expect("a cache");
        let pin = local_pin(&dir.0, &"0".repeat(64));
        let error = cache
            .entry("runtime/probe", |path| {
                pin.install(&["any".to_owned()], path)
            })
            .expect_err("refused");
        assert!(matches!(error, Error::HashMismatch { .. }), "{error}");
        let left = fs::read_dir(dir.0.join("cache/runtime")).expect("the folder");
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_right_hash_installs_the_package_and_nothing_else() {
        let dir = TempDir::new();
        let cache = Cache::open(&dir.0.join("cache")).expect("a cache");
        let pin = local_pin(&dir.0, "");
        let entry = cache
            .entry("runtime/probe", |path| {
                pin.install(&["any".to_owned()], path)
            })
            .expect("installed");
        assert!(entry.join("mlx/lib/libmlx.so").is_file());
        assert!(!entry.join("wheels").exists());
    }

    #[test]
    fn tells_the_failures_of_a_download_apart() {
        let pin = Pin::of(Variant::Cpu);
        let failure = |text| pin.download_failure(text, Path::new("/cache"));
        assert!(matches!(
            failure("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."),
            Error::HashMismatch { .. }
        ));
        assert!(matches!(
            failure("WARNING: Retrying after connection broken by NewConnectionError"),
            Error::NoNetwork { .. }
        ));
        assert!(matches!(
            failure("ERROR: Could not install: [Errno 28] No space left on device"),
            Error::DiskFull { .. }
        ));
        assert!(matches!(
            failure("ERROR: No matching distribution found for mlx-cpu==0.32.2"),
            Error::CommandFailed { .. }
        ));
    }
}
