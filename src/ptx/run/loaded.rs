//! A program's variables in the memory of a device.

use super::Memory;
use crate::error::{Error, Result};
use crate::ptx::program::Program;

/// A program whose variables lie in a device's memory. The caller frees them by [`Loaded::unload`].
pub struct Loaded {
    /// Address of each of `Program::variables`.
    pub variables: Vec<u64>,
}

impl Loaded {
    /// Places the variables of `program` in `memory` and writes their first values.
    ///
    /// # Errors
    /// When the memory is full.
    pub fn new(program: &Program, memory: &Memory) -> Result<Loaded> {
        let mut loaded = Loaded { variables: Vec::new() };
        for v in &program.variables {
            match memory.alloc(v.bytes) {
                Ok(at) => loaded.variables.push(at),
                Err(e) => {
                    loaded.unload(memory);
                    return Err(e);
                }
            }
        }
        for (v, &at) in program.variables.iter().zip(&loaded.variables) {
            // PTX gives variables without a value zeros (PTX ISA 9.0, section 5.4.4).
            let mut bytes = vec![0; usize::try_from(v.bytes).unwrap_or(0)];
            bytes[..v.init.len()].copy_from_slice(&v.init);
            for &(offset, of, plus) in &v.relocations {
                let to = loaded.variables[of as usize].wrapping_add_signed(plus).to_le_bytes();
                let place = offset as usize..(offset as usize + 8).min(bytes.len());
                let n = place.len();
                bytes[place].copy_from_slice(&to[..n]);
            }
            if !memory.write(at, &bytes) {
                return Err(Error::Fault(format!("{}: its place is outside the device's memory", v.name)));
            }
        }
        Ok(loaded)
    }

    /// Frees the variables.
    pub fn unload(&mut self, memory: &Memory) {
        self.variables.drain(..).for_each(|at| {
            memory.free(at);
        });
    }
}
