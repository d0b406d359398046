// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of one file, without a name.

use crate::tree::{pieces, About, Error, Sink, Top};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const PIECE: usize = 64 << 10;

/// Tells of a file that has what is read here.
///
/// # Errors
/// Those of the sink, and of reading.
pub fn read_from(content: &mut dyn Read, now_s: u64, sink: &mut dyn Sink) -> Result<(), Error> {
    sink.begin(&Top::default())?;
    sink.file(Path::new(""), About { mode: 0o644, modified_s: now_s }, content)?;
    sink.end()
}

/// Writes the content of the only file.
#[derive(Debug)]
pub struct Raw<W>(pub W);

impl<W: Write> Sink for Raw<W> {
    fn begin(&mut self, _: &Top) -> Result<(), Error> {
        Ok(())
    }

    fn directory(&mut self, _: &Path, _: About) -> Result<(), Error> {
        Err(Error::OnlyFile)
    }

    fn file(&mut self, path: &Path, _: About, content: &mut dyn Read) -> Result<(), Error> {
        pieces(path, content, PIECE, |piece| self.0.write_all(piece).map_err(failed)).map(drop)
    }

    fn link(&mut self, _: &Path, _: &Path) -> Result<(), Error> {
        Err(Error::OnlyFile)
    }

    fn end(&mut self) -> Result<(), Error> {
        self.0.flush().map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::File { what: "write", path: PathBuf::from("the output"), error }
}
