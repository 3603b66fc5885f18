//! The devices MLX can compute on.

use std::fmt;

use once_cell::sync::OnceCell;

use crate::error::{Error, Result};
use crate::ffi;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    Cpu,
    Gpu,
}

impl Device {
    pub const ALL: [Device; 2] = [Device::Cpu, Device::Gpu];

    /// Whether this machine and this build of MLX have the device.
    pub fn is_available(self) -> bool {
        static GPU: OnceCell<bool> = OnceCell::new();
        match self {
            Device::Cpu => true,
            Device::Gpu => *GPU.get_or_init(|| ffi::device_available(self)),
        }
    }

    /// The device that a stream computes on.
    pub(crate) fn of(stream: &mlx_rs::Stream) -> Device {
        if ffi::on_gpu(stream) {
            Device::Gpu
        } else {
            Device::Cpu
        }
    }

    pub fn available() -> impl Iterator<Item = Device> {
        Device::ALL
            .into_iter()
            .filter(|device| device.is_available())
    }

    pub fn check(self) -> Result<Device> {
        if self.is_available() {
            Ok(self)
        } else {
            Err(Error::NoDevice { device: self })
        }
    }

    pub(crate) fn list() -> String {
        let names: Vec<String> = Device::available()
            .map(|device| device.to_string())
            .collect();
        names.join(", ")
    }

    pub(crate) fn handle(self) -> mlx_rs::Device {
        match self {
            Device::Cpu => mlx_rs::Device::cpu(),
            Device::Gpu => mlx_rs::Device::gpu(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        })
    }
}
