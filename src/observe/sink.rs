//! Where access-log lines end up, and how a file is followed through rotation.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use crate::config::model::AccessSink;

/// An opened [`AccessSink`].
#[derive(Debug)]
pub struct Sink(Target);

#[derive(Debug)]
enum Target {
    Off,
    Stdout(File),
    File {
        path: PathBuf,
        file: File,
        /// Device and inode, by which a rotated file is told.
        identity: (u64, u64),
    },
}

/// What [`Sink::follow`] found at the path.
#[derive(Debug)]
pub(super) enum Followed {
    Same,
    /// Another file is there now (or was made), and is in use.
    Replaced,
    /// It can't be opened; lines still go to the old file, which somebody moved.
    Moved(io::Error),
    /// It can't be opened, and the old file is removed: there is nowhere to write.
    Gone(io::Error),
}

impl Sink {
    pub(super) fn open(sink: &AccessSink) -> io::Result<Self> {
        Ok(Self(match sink {
            AccessSink::Off => Target::Off,
            // Its own descriptor: lines bypass the buffer and the lock of std's stdout.
            AccessSink::Stdout => Target::Stdout(io::stdout().as_fd().try_clone_to_owned()?.into()),
            AccessSink::File(path) => {
                let (file, identity) = open_file(path)?;
                Target::File { path: path.clone(), file, identity }
            }
        }))
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self.0, Target::Off)
    }

    /// What to call it in a log message.
    pub(super) fn name(&self) -> &str {
        match &self.0 {
            Target::Off => "off",
            Target::Stdout(_) => "stdout",
            Target::File { path, .. } => path.to_str().unwrap_or("(a path that is not UTF-8)"),
        }
    }

    /// Writes a part of `bytes` and says how much.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.0 {
            Target::Off => bytes.len(),
            Target::Stdout(file) | Target::File { file, .. } => file.write(bytes)?,
        };
        if written == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(written)
    }

    /// Sees to it that lines go to the file that is now at the path; `force` opens it anew in any case.
    pub(super) fn follow(&mut self, force: bool) -> Followed {
        let Target::File { path, file, identity } = &mut self.0 else {
            return Followed::Same;
        };
        let there = fs::metadata(&*path).map(|meta| (meta.dev(), meta.ino()));
        if !force && there.is_ok_and(|there| there == *identity) {
            return Followed::Same;
        }
        match open_file(path) {
            Ok((_, new)) if new == *identity => Followed::Same,
            Ok((new_file, new)) => {
                (*file, *identity) = (new_file, new);
                Followed::Replaced
            }
            Err(error) if file.metadata().is_ok_and(|meta| meta.nlink() > 0) => Followed::Moved(error),
            Err(error) => Followed::Gone(error),
        }
    }
}

fn open_file(path: &Path) -> io::Result<(File, (u64, u64))> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot open access log `{}`: {error}", path.display()))
    };
    // Opening a pipe would wait for its reader.
    if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo()) {
        return Err(named(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a named pipe; name a file, or write \"stdout\" and pipe that",
        )));
    }
    let open = || {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            // It tells who called whom: not for everybody.
            .mode(0o640)
            .open(path)?;
        let meta = file.metadata()?;
        Ok((file, (meta.dev(), meta.ino())))
    };
    open().map_err(named)
}
