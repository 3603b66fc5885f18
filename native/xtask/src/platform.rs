//! The machine that MLX is prepared for.

use std::fmt;

use crate::error::{Error, Result};
use crate::process::output_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Os {
    Linux,
    MacOs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    Aarch64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: Os,
    pub arch: Arch,
}

impl Platform {
    /// The platform that xtask itself was built for.
    pub fn current() -> Result<Self> {
        let musl = cfg!(target_env = "musl");
        let os = if musl {
            "linux-musl"
        } else {
            std::env::consts::OS
        };
        Self::of(os, std::env::consts::ARCH)
    }

    pub fn of(os: &str, arch: &str) -> Result<Self> {
        let (os, arch) = match (os, arch) {
            ("linux", "x86_64") => (Os::Linux, Arch::X86_64),
            ("linux", "aarch64") => (Os::Linux, Arch::Aarch64),
            ("macos", "aarch64") => (Os::MacOs, Arch::Aarch64),
            _ => {
                return Err(Error::UnsupportedPlatform {
                    os: os.to_owned(),
                    arch: arch.to_owned(),
                })
            }
        };
        Ok(Self { os, arch })
    }

    /// The target triple that cargo builds for by default here.
    pub fn target(self) -> &'static str {
        match (self.os, self.arch) {
            (Os::Linux, Arch::X86_64) => "x86_64-unknown-linux-gnu",
            (Os::Linux, Arch::Aarch64) => "aarch64-unknown-linux-gnu",
            (Os::MacOs, _) => "aarch64-apple-darwin",
        }
    }

    /// The file name of MLX's shared library.
    pub fn library(self) -> &'static str {
        match self.os {
            Os::Linux => "libmlx.so",
            Os::MacOs => "libmlx.dylib",
        }
    }

    /// The folders under a prefix that may hold libraries.
    pub fn library_dirs(self) -> &'static [&'static str] {
        match (self.os, self.arch) {
            (Os::Linux, Arch::X86_64) => &["lib", "lib64", "lib/x86_64-linux-gnu"],
            (Os::Linux, Arch::Aarch64) => &["lib", "lib64", "lib/aarch64-linux-gnu"],
            (Os::MacOs, _) => &["lib"],
        }
    }

    /// The tags of wheels that suit this system; checks that the system is new enough.
    pub fn wheel_tags(self) -> Result<Vec<String>> {
        match self.os {
            Os::Linux => {
                let libc = output_of("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default();
                linux_tags(self.arch, libc.trim())
            }
            Os::MacOs => {
                let version = output_of("sw_vers", &["-productVersion"]).unwrap_or_default();
                macos_tag(version.trim()).map(|tag| vec![tag])
            }
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.os, self.arch) {
            (Os::Linux, Arch::X86_64) => "linux-x86_64",
            (Os::Linux, Arch::Aarch64) => "linux-aarch64",
            (Os::MacOs, _) => "macos-arm64",
        })
    }
}

/// pip takes each glibc version by name: MLX is built for 2.35, NVIDIA's libraries for older ones.
fn linux_tags(arch: Arch, libc: &str) -> Result<Vec<String>> {
    let version = libc.rsplit(' ').next().unwrap_or_default();
    if !libc.starts_with("glibc") || version_pair(version) < Some((2, 35)) {
        return Err(Error::OldSystem {
            what: "glibc",
            needed: "2.35",
            found: libc.to_owned(),
        });
    }
    let arch = match arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
    };
    let built = ["_2_35", "_2_28", "_2_27", "_2_17", "2014"];
    Ok(built.map(|glibc| format!("manylinux{glibc}_{arch}")).into())
}

fn macos_tag(version: &str) -> Result<String> {
    let major = version_pair(version).map_or(0, |(major, _)| major);
    let newest = [26, 15, 14].into_iter().find(|built| *built <= major);
    match newest {
        Some(built) => Ok(format!("macosx_{built}_0_arm64")),
        None => Err(Error::OldSystem {
            what: "macOS",
            needed: "14",
            found: version.to_owned(),
        }),
    }
}

/// The first two numbers of a version.
pub fn version_pair(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next().and_then(|minor| minor.ok()).unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_supported_platforms_only() {
        assert!(Platform::of("linux", "x86_64").is_ok());
        assert!(Platform::of("macos", "aarch64").is_ok());
        for (os, arch) in [
            ("macos", "x86_64"),
            ("linux", "riscv64"),
            ("linux-musl", "x86_64"),
        ] {
            let error = Platform::of(os, arch).expect_err("not supported");
            assert!(matches!(error, Error::UnsupportedPlatform { .. }));
        }
    }

    #[test]
    fn picks_the_newest_wheel_that_the_system_can_load() {
        assert_eq!(macos_tag("26.1").expect("supported"), "macosx_26_0_arm64");
        assert_eq!(macos_tag("15.6.1").expect("supported"), "macosx_15_0_arm64");
        assert!(matches!(macos_tag("13.4"), Err(Error::OldSystem { .. })));
        let tags = linux_tags(Arch::Aarch64, "glibc 2.36").expect("supported");
        assert_eq!(tags[0], "manylinux_2_35_aarch64");
        assert!(linux_tags(Arch::X86_64, "glibc 2.31").is_err());
        assert!(linux_tags(Arch::X86_64, "").is_err());
    }
}
