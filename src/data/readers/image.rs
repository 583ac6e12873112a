//! PNG images, as bytes `[channels, height, width]`, or as grey of a wanted size.

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

/// Shares of red, green and blue in what the eye sees as brightness (ITU-R BT.601).
const GREY: [f32; 3] = [0.299, 0.587, 0.114];

/// Reads the bytes of a PNG as grey pixels 0 to 255 of the wanted size, row-major. Also gives a notice for each change: of
/// colour, and of size.
pub fn read_grey_png(
    path: &Path,
    bytes: &[u8],
    height: usize,
    width: usize,
) -> Result<(Vec<f32>, Vec<String>)> {
    let image = read_png(path, bytes)?;
    let &[channels, h, w] = &image.shape[..] else {
        return Err(Error::data(path, None, format!("an image of shape {:?}", image.shape)));
    };
    let mut notices = vec![];
    let mut pixels: Vec<f32> = image.data.iter().map(|&p| f32::from(p)).collect();
    if channels == 3 {
        let at = |k: usize| (0..3).map(|c| GREY[c] * pixels[c * h * w + k]).sum();
        let grey = (0..h * w).map(at).collect();
        let coloured = (0..h * w).any(|k| (1..3).any(|c| image.data[c * h * w + k] != image.data[k]));
        pixels = grey;
        if coloured {
            notices.push(format!("{}: colours, taken as their brightness", path.display()));
        }
    }
    if (h, w) != (height, width) {
        notices.push(format!("{}: {w}×{h} pixels, resized to {width}×{height}", path.display()));
        let narrow = resize(&pixels, w, width);
        pixels = transpose(&resize(&transpose(&narrow, width), h, height), height);
    }
    Ok((pixels, notices))
}

/// Rows of `from` values as rows of `to`: each new one is a mean of the old ones around its place under a triangle, as wide
/// as a new pixel where rows shrink, as an old one where they grow (bilinear).
fn resize(rows: &[f32], from: usize, to: usize) -> Vec<f32> {
    let step = from as f32 / to as f32;
    let reach = step.max(1.0);
    let place = |n: usize| {
        let middle = (n as f32 + 0.5) * step;
        let first = (middle - reach).floor().max(0.0) as usize;
        let last = ((middle + reach).ceil() as usize).min(from);
        let weight = |k: usize| (1.0 - (k as f32 + 0.5 - middle).abs() / reach).max(0.0);
        let weights: Vec<f32> = (first..last).map(weight).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.into_iter().map(move |w| w / sum).collect::<Vec<f32>>())
    };
    let places: Vec<(usize, Vec<f32>)> = (0..to).map(place).collect();
    let one = |row: &[f32], (first, weights): &(usize, Vec<f32>)| {
        weights.iter().zip(&row[*first..]).map(|(w, v)| w * v).sum()
    };
    rows.chunks_exact(from).flat_map(|row| places.iter().map(move |p| one(row, p))).collect()
}

/// Columns of rows of `width` values as rows.
fn transpose(rows: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|x| rows.iter().skip(x).step_by(width).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_change_and_means_stay() {
        assert_eq!(resize(&[1.0, 5.0], 2, 1), [3.0]);
        assert_eq!(resize(&[0.0, 4.0], 2, 4), [0.0, 1.0, 3.0, 4.0]);
        let flat = resize(&[7.0; 30], 10, 3);
        assert!(flat.len() == 9 && flat.iter().all(|v| (v - 7.0).abs() < 1e-5), "{flat:?}");
        let bar: Vec<f32> = (0..100).map(|k| if k == 51 { 255.0 } else { 0.0 }).collect();
        let small = resize(&bar, 100, 10);
        let sum: f32 = small.iter().sum();
        assert!((sum - 25.5).abs() < 0.5, "light is kept: {small:?}");
        assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
