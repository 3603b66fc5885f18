//! The builds of MLX to choose from.

use std::env;
use std::path::Path;

use crate::error::{Error, Result};
use crate::platform::{version_pair, Os, Platform};
use crate::process::output_of;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Cpu,
    Cuda12,
    Cuda13,
    Metal,
}

impl Variant {
    /// What `MLX_VARIANT` asks for on this platform.
    pub fn from_env(platform: Platform) -> Result<Self> {
        let value = env::var("MLX_VARIANT").unwrap_or_default();
        Self::choose(&value, platform, driver_cuda_version)
    }

    fn choose(
        value: &str,
        platform: Platform,
        driver: impl FnOnce() -> Option<(u32, u32)>,
    ) -> Result<Self> {
        let variant = match value {
            "" | "auto" => return Ok(Self::automatic(platform, driver)),
            "cpu" => Self::Cpu,
            "cuda12" => Self::Cuda12,
            "cuda13" => Self::Cuda13,
            "metal" => Self::Metal,
            _ => {
                return Err(Error::UnknownVariant {
                    value: value.to_owned(),
                })
            }
        };
        match (platform.os, variant) {
            (Os::MacOs, Self::Metal) => Ok(variant),
            (Os::Linux, Self::Cpu | Self::Cuda12 | Self::Cuda13) => Ok(variant),
            _ => Err(Error::VariantNotHere {
                variant: variant.name(),
                platform: platform.to_string(),
                choices: match platform.os {
                    Os::MacOs => "metal (it computes on the CPU too)",
                    Os::Linux => "cpu, cuda12 or cuda13",
                },
            }),
        }
    }

    fn automatic(platform: Platform, driver: impl FnOnce() -> Option<(u32, u32)>) -> Self {
        if platform.os == Os::MacOs {
            return Self::Metal;
        }
        match driver() {
            Some((major, _)) if major >= 13 => Self::Cuda13,
            Some((12, _)) => Self::Cuda12,
            _ => Self::Cpu,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda12 => "cuda12",
            Self::Cuda13 => "cuda13",
            Self::Metal => "metal",
        }
    }
}

/// The newest CUDA version that the installed NVIDIA driver can run.
fn driver_cuda_version() -> Option<(u32, u32)> {
    if !Path::new("/proc/driver/nvidia/version").exists()
        && output_of("nvidia-smi", &["-L"]).is_none()
    {
        return None;
    }
    output_of("nvidia-smi", &[])
        .as_deref()
        .and_then(cuda_version_in)
        .or_else(driver_release_cuda_version)
}

fn cuda_version_in(report: &str) -> Option<(u32, u32)> {
    let (_, rest) = report.split_once("CUDA Version:")?;
    version_pair(rest.split_whitespace().next()?)
}

/// Falls back on the driver's release where nvidia-smi isn't installed: CUDA 13 came with release 580.
fn driver_release_cuda_version() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    release_in(&text).and_then(cuda_of_release)
}

fn release_in(text: &str) -> Option<u32> {
    text.lines()
        .find(|line| line.starts_with("NVRM"))?
        .split_whitespace()
        .find_map(|word| {
            let (major, rest) = word.split_once('.')?;
            rest.starts_with(|c: char| c.is_ascii_digit())
                .then(|| major.parse().ok())?
        })
}

fn cuda_of_release(release: u32) -> Option<(u32, u32)> {
    match release {
        580.. => Some((13, 0)),
        525.. => Some((12, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Arch;

    const LINUX: Platform = Platform {
        os: Os::Linux,
        arch: Arch::X86_64,
    };
    const MAC: Platform = Platform {
        os: Os::MacOs,
        arch: Arch::Aarch64,
    };

    #[test]
    fn auto_follows_the_driver() {
        let auto = |cuda| Variant::choose("auto", LINUX, || cuda).expect("a variant");
        assert_eq!(auto(None), Variant::Cpu);
        assert_eq!(auto(Some((11, 8))), Variant::Cpu);
        assert_eq!(auto(Some((12, 4))), Variant::Cuda12);
        assert_eq!(auto(Some((13, 1))), Variant::Cuda13);
        let mac = Variant::choose("", MAC, || Some((13, 0))).expect("a variant");
        assert_eq!(mac, Variant::Metal);
    }

    #[test]
    fn refuses_what_the_platform_has_no_package_for() {
        let none = || None;
        assert!(matches!(
            Variant::choose("metal", LINUX, none),
            Err(Error::VariantNotHere { .. })
        ));
        assert!(matches!(
            Variant::choose("cuda13", MAC, none),
            Err(Error::VariantNotHere { .. })
        ));
        assert!(matches!(
            Variant::choose("rocm", LINUX, none),
            Err(Error::UnknownVariant { .. })
        ));
        assert_eq!(
            Variant::choose("cuda12", LINUX, none).expect("a variant"),
            Variant::Cuda12
        );
    }

    #[test]
    fn reads_the_driver_reports() {
        let smi = "| NVIDIA-SMI 580.65  Driver Version: 580.65  CUDA Version: 13.0     |";
        assert_eq!(cuda_version_in(smi), Some((13, 0)));
        let proc = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\nGCC version: gcc version 12.2.0";
        assert_eq!(release_in(proc).and_then(cuda_of_release), Some((12, 0)));
    }
}
