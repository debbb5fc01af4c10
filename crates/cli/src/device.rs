//! The flag that says where to compute.

use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use ironlens::tensor::{Device, DeviceError};

/// `--device`, for commands that take a hardware GPU if there is one.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct DeviceArg {
    /// Where to compute: auto takes a hardware GPU if there is one
    #[arg(long, value_name = "auto|cpu|gpu", default_value = "auto")]
    pub device: DeviceName,
}

impl DeviceArg {
    /// The device.
    ///
    /// # Errors
    /// If it is a GPU, and there is none.
    pub fn open(self) -> Result<Device> {
        Ok(self.device.open()?.0)
    }
}

/// A device by name, not yet opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    Auto,
    Cpu,
    Gpu,
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<DeviceName, DeviceError> {
        match name {
            "auto" => Ok(DeviceName::Auto),
            "cpu" => Ok(DeviceName::Cpu),
            "gpu" => Ok(DeviceName::Gpu),
            _ => Err(DeviceError::Unknown { given: name.into() }),
        }
    }
}

impl DeviceName {
    /// The device and, where `auto` took the CPU, why it did not take a GPU.
    ///
    /// # Errors
    /// If it is a GPU, and there is none.
    pub fn open(self) -> Result<(Device, Option<DeviceError>), DeviceError> {
        match self {
            DeviceName::Auto => Ok(Device::best_with_reason()),
            DeviceName::Cpu => Ok((Device::Cpu, None)),
            DeviceName::Gpu => Ok((Device::gpu()?, None)),
        }
    }
}
