//! Text in UTF-8, plain or gzip, piece by piece.

use super::expanded;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

/// Bytes looked at together.
const PIECE: usize = 1 << 16;

/// The text in the bytes of a file.
pub fn read_text(path: &Path, bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for_each_text(path, expanded(bytes).map_err(|e| Error::io(path, e))?, |piece| {
        text.push_str(piece);
        Ok(())
    })?;
    Ok(text)
}

/// Calls `with` on piece after piece of the text that `source` gives, each of whole characters.
pub(crate) fn for_each_text(
    path: &Path,
    mut source: impl Read,
    mut with: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    // Bytes at the buffer's start that begin a character, and where in the text the buffer begins.
    let (mut kept, mut at) = (0, 0);
    loop {
        let n = match source.read(&mut buffer[kept..]) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            n => n.map_err(|e| Error::io(path, e))?,
        };
        let have = &buffer[..kept + n];
        let whole = match std::str::from_utf8(have) {
            Ok(text) => text,
            // A character that is cut by the buffer's end is none that is cut by the file's.
            Err(e) if e.error_len().is_none() && n > 0 => {
                std::str::from_utf8(&have[..e.valid_up_to()]).unwrap_or_default()
            }
            Err(e) => {
                let what = "not UTF-8 from here on; convert the file (iconv -t utf-8)";
                return Err(Error::data(path, Some(at + e.valid_up_to() as u64), what));
            }
        };
        if !whole.is_empty() {
            with(whole)?;
        }
        if n == 0 {
            return Ok(());
        }
        let (done, end) = (whole.len(), kept + n);
        at += done as u64;
        buffer.copy_within(done..end, 0);
        kept = end - done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(1);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn characters_are_whole_wherever_a_piece_ends() {
        let text = "aé漢🙂".repeat(20_000);
        let collect = |source: &mut dyn Read| {
            let mut all = String::new();
            let done = for_each_text(Path::new("t.txt"), source, |s| {
                all.push_str(s);
                Ok(())
            });
            done.map(|()| all)
        };
        assert_eq!(collect(&mut text.as_bytes()).unwrap(), text);
        assert_eq!(collect(&mut Slow(&text.as_bytes()[..400])).unwrap(), text[..400]);
        for (tail, at) in [(&b"\xff"[..], 200_000), (b"\xe6\xbc", 200_000), (b"a\xf0\x9f\x99", 200_001)] {
            let bad = [text.as_bytes(), tail].concat();
            let e = collect(&mut &bad[..]).unwrap_err().to_string();
            assert!(e.contains(&format!("at byte {at}")), "{e}");
            assert!(collect(&mut Slow(&bad[199_990..])).is_err());
        }
    }
}
