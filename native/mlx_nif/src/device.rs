use mlx_core::Device;
use rustler::NifUnitEnum;

#[derive(NifUnitEnum, Clone, Copy)]
pub enum DeviceAtom {
    Cpu,
    Gpu,
}

impl From<DeviceAtom> for Device {
    fn from(atom: DeviceAtom) -> Self {
        match atom {
            DeviceAtom::Cpu => Device::Cpu,
            DeviceAtom::Gpu => Device::Gpu,
        }
    }
}

impl From<Device> for DeviceAtom {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => DeviceAtom::Cpu,
            Device::Gpu => DeviceAtom::Gpu,
        }
    }
}

#[rustler::nif]
fn device_available() -> Vec<DeviceAtom> {
    Device::available().map(DeviceAtom::from).collect()
}
