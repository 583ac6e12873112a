//! PNG images, as bytes `[channels, height, width]`.

use super::{Array, DEFLATE_MOST, zeros};
use crate::error::{Error, Result};
use crate::shape::DType;
use png::{ColorType, Decoder, Limits, Transformations};
use std::io::Cursor;
use std::path::Path;

/// Reads the bytes of a PNG: 1 channel for grey, 3 for colour. Palettes are looked up, 16 bits are cut to 8,
/// and transparency is left out.
pub fn read_png(path: &Path, bytes: &[u8]) -> Result<Array> {
    let bad = |what: String| Error::data(path, None, what);
    let sound = |e: png::DecodingError| bad(format!("not a sound PNG image: {e}"));
    let most = bytes.len() as u64 * DEFLATE_MOST;
    let limits = Limits { bytes: usize::try_from(most).unwrap_or(usize::MAX).max(1 << 16) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(sound)?;
    let size = reader.output_buffer_size().filter(|&n| n as u64 <= most.saturating_mul(8));
    let size = size.ok_or_else(|| bad("the image claims more pixels than its bytes can hold".into()))?;
    let mut pixels = zeros(path, size)?;
    let frame = reader.next_frame(&mut pixels).map_err(sound)?;
    reader.finish().map_err(sound)?;
    let (stored, kept) = match frame.color_type {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
        ColorType::Indexed => return Err(bad("a palette image without its palette".into())),
    };
    let (w, h) = (frame.width as usize, frame.height as usize);
    let mut data = Vec::with_capacity(kept * w * h);
    for channel in 0..kept {
        data.extend(pixels.chunks_exact(stored).take(w * h).map(|p| p[channel]));
    }
    if data.len() != kept * w * h {
        return Err(bad(format!("{} pixels of {w}×{h}", data.len() / kept)));
    }
    Ok(Array { dtype: DType::U8, shape: vec![kept, h, w], data })
}
