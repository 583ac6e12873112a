//! Conversions between element types, on the host.

use super::{Element, Tensor};
use crate::error::{Error, Result};
use crate::shape::DType;
use half::{bf16, f16};

impl Tensor {
    /// The elements as `f64`, whatever their type, from any device. Errors are those of the device.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        fn of<T: Element>(t: &Tensor, f: impl Fn(T) -> f64) -> Result<Vec<f64>> {
            Ok(t.as_slice::<T>()?.iter().map(|&x| f(x)).collect())
        }
        let host = self.to_host()?;
        match self.dtype() {
            DType::F32 => of::<f32>(&host, f64::from),
            DType::F64 => of::<f64>(&host, |x| x),
            DType::I32 => of::<i32>(&host, f64::from),
            DType::U8 => of::<u8>(&host, f64::from),
            DType::U16 => of::<u16>(&host, f64::from),
            DType::Bf16 => of::<bf16>(&host, f64::from),
            DType::F16 => of::<f16>(&host, f64::from),
        }
    }

    /// A copy as another element type (this tensor itself when the type is the same). Narrowing rounds to nearest even;
    /// real to integer rounds, and is an error when a value does not fit.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let v = self.to_f64()?;
        let dims = self.dims();
        let ints = |lo: f64, hi: f64| match v.iter().find(|x| !(x.round() >= lo && x.round() <= hi)) {
            Some(x) => Err(Error::dtype("to_dtype", format!("{x} does not fit {dtype}"))),
            None => Ok(()),
        };
        match dtype {
            DType::F32 => self.map(&v, dims, |x| x as f32),
            DType::F64 => self.map(&v, dims, |x| x),
            DType::I32 => {
                ints(i32::MIN.into(), i32::MAX.into())?;
                self.map(&v, dims, |x| x.round() as i32)
            }
            DType::U8 => {
                ints(0.0, 255.0)?;
                self.map(&v, dims, |x| x.round() as u8)
            }
            DType::U16 => {
                ints(0.0, 65535.0)?;
                self.map(&v, dims, |x| x.round() as u16)
            }
            DType::Bf16 => self.map(&v, dims, |x| bf16::from_f32(x as f32)),
            DType::F16 => self.map(&v, dims, f16::from_f64),
        }
    }

    fn map<T: Element>(&self, v: &[f64], dims: &[usize], f: impl Fn(f64) -> T) -> Result<Tensor> {
        let v: Vec<T> = v.iter().map(|&x| f(x)).collect();
        Tensor::from_slice(self.device(), &v, dims)
    }

    /// The one element of a scalar or one-element tensor.
    pub fn item(&self) -> Result<f64> {
        match self.len() {
            1 => Ok(self.to_f64()?[0]),
            n => Err(Error::shape(
                "item",
                format!("tensor of shape {} has {n} elements, not one", self.shape()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn narrowing_is_checked_and_storage_types_round_trip() {
        let d = Device::cpu();
        let t = Tensor::from_slice(&d, &[1.5f32, -2.0, 300.0], &[3]).unwrap();
        assert_eq!(t.to_dtype(DType::Bf16).unwrap().to_f64().unwrap(), [1.5, -2.0, 300.0]);
        assert_eq!(t.to_dtype(DType::F16).unwrap().to_f64().unwrap(), [1.5, -2.0, 300.0]);
        assert!(t.to_dtype(DType::U8).unwrap_err().to_string().contains("-2 does not fit u8"));
        let nan = Tensor::from_slice(&d, &[f64::NAN], &[1]).unwrap();
        assert!(nan.to_dtype(DType::I32).is_err());
    }

    #[test]
    fn a_shared_buffer_cannot_be_written() {
        let d = Device::cpu();
        let mut t = Tensor::from_slice(&d, &[1.0f32, 2.0], &[2]).unwrap();
        let other = t.reshape(&[2, 1]).unwrap();
        let e = t.as_mut_slice::<f32>().unwrap_err().to_string();
        assert!(e.contains("[2]") && e.contains("2 holders"), "{e}");
        drop(other);
        t.as_mut_slice::<f32>().unwrap()[0] = 5.0;
        assert_eq!(t.to_f64().unwrap(), [5.0, 2.0]);
    }
}
