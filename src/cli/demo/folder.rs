//! The folder that the demo's files are in.

use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;

/// A folder, removed when it is dropped if it was made for the demo alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Folder {
    /// `given`, or a new one among the temporary files, closed to others.
    pub(super) fn new(given: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = given {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            return Ok(Self { path, ours: false });
        }
        // A folder that is there already is not taken over: it could be anybody's.
        let mut nth = 0;
        loop {
            let path = env::temp_dir().join(format!("gatepost-demo-{}-{nth}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, ours: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && nth < 1000 => nth += 1,
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where gatepost keeps its state.
    pub(super) fn state(&self) -> anyhow::Result<PathBuf> {
        let state = self.path.join("state");
        match DirBuilder::new().mode(0o700).create(&state) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot make {}", state.display()))
            }
            _ => Ok(state),
        }
    }

    /// Removes it, if it was made for the demo; what was removed.
    pub(super) fn remove(mut self) -> anyhow::Result<Option<PathBuf>> {
        if !self.ours {
            return Ok(None);
        }
        self.ours = false;
        fs::remove_dir_all(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        Ok(Some(std::mem::take(&mut self.path)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_its_own_goes_and_a_given_one_stays() {
        let own = Folder::new(None).unwrap();
        let path = own.path().to_owned();
        own.state().unwrap();
        assert!(path.join("state").is_dir());
        assert_eq!(own.remove().unwrap(), Some(path.clone()));
        assert!(!path.exists());

        let given = tempfile::tempdir().unwrap();
        let folder = Folder::new(Some(given.path().join("new"))).unwrap();
        assert_eq!(folder.remove().unwrap(), None);
        assert!(given.path().join("new").is_dir());
    }

    #[test]
    fn an_own_folder_goes_even_when_the_demo_fails() {
        let path = Folder::new(None).unwrap().path().to_owned();
        assert!(!path.exists());
    }
}
