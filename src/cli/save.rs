//! Writes a changed text over a config file: whole or not at all, and never over what somebody else wrote meanwhile.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, Mode, RenameFlags, fchmod, flock, renameat_with};

/// Why a file was not written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSaved {
    #[error("{path} was changed meanwhile by somebody else: nothing is written; look at it, and try again")]
    Changed { path: PathBuf },
    #[error("cannot {doing} {path}: {cause}")]
    Io { doing: &'static str, path: PathBuf, cause: io::Error },
}

/// Puts `text` in place of `before`, which the file at `path` is expected to hold.
///
/// Through a symlink to the file that it means. Owner, group and mode stay; the text is on the disk before its name is.
pub(super) fn save(path: &Path, before: &str, text: &str) -> Result<(), NotSaved> {
    let target = fs::canonicalize(path).map_err(failed("find", path))?;
    let held = File::open(&target).map_err(failed("read", &target))?;
    // Two commands at once: the second waits, and then sees another file than it read.
    flock(&held, FlockOperation::LockExclusive).map_err(|error| failed("lock", &target)(error.into()))?;
    unchanged(&target, before)?;
    let about = held.metadata().map_err(failed("read", &target))?;
    let temporary = beside(&target);
    let result = put(&temporary, text, &about)
        .map_err(failed("write", &temporary))
        .and_then(|()| exchange(&temporary, &target, before));
    let _ = fs::remove_file(&temporary);
    result?;
    let folder = target.parent().unwrap_or_else(|| Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}

fn failed<'p>(doing: &'static str, path: &'p Path) -> impl Fn(io::Error) -> NotSaved + 'p {
    move |cause| NotSaved::Io { doing, path: path.to_owned(), cause }
}

fn unchanged(path: &Path, before: &str) -> Result<(), NotSaved> {
    match fs::read(path) {
        Ok(now) if now == before.as_bytes() => Ok(()),
        Ok(_) => Err(NotSaved::Changed { path: path.to_owned() }),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Hidden, so that no glob of an include finds it.
fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.gatepost-{}", std::process::id()))
}

fn put(temporary: &Path, text: &str, like: &fs::Metadata) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    // After the owner, whose change may take bits away.
    fchmod(&file, Mode::from_raw_mode(like.mode() & 0o7777))?;
    file.sync_all()
}

/// Swaps the two, so that what was there is still at hand if it is not what was expected.
fn exchange(temporary: &Path, target: &Path, before: &str) -> Result<(), NotSaved> {
    match renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // A file system that can't.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            return fs::rename(temporary, target).map_err(failed("replace", target));
        }
        Err(error) => return Err(failed("replace", target)(error.into())),
    }
    let swapped = unchanged(temporary, before);
    if swapped.is_err() {
        // Written between the look and the swap: theirs goes back.
        renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE)
            .map_err(|error| failed("restore", target)(error.into()))?;
        return Err(NotSaved::Changed { path: target.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_file_behind_a_symlink_changes_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
        fs::write(&file, "a = 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o641)).unwrap();
        symlink("real.toml", &link).unwrap();
        save(&link, "a = 1\n", "a = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 2\n");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o641);
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real.toml");
        fs::write(&file, "a = 3\n").unwrap();
        let error = save(&file, "a = 1\n", "a = 2\n").unwrap_err().to_string();
        assert!(error.contains("was changed meanwhile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 3\n");
        // Between the look and the swap.
        let temporary = beside(&file);
        fs::write(&temporary, "a = 2\n").unwrap();
        assert!(exchange(&temporary, &file, "a = 1\n").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "a = 3\n");
    }

    #[test]
    fn of_two_at_once_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real.toml");
        for _ in 0..50 {
            fs::write(&file, "a = 1\n").unwrap();
            let saves = ["a = 2\n", "a = 3\n"].map(|text| {
                let file = file.clone();
                std::thread::spawn(move || {
                    let temporary = file.with_file_name(format!(".{}", text.trim()));
                    let held = File::open(&file).unwrap();
                    flock(&held, FlockOperation::LockExclusive).unwrap();
                    unchanged(&file, "a = 1\n")?;
                    put(&temporary, text, &held.metadata().unwrap()).unwrap();
                    let result = exchange(&temporary, &file, "a = 1\n");
                    fs::remove_file(&temporary).unwrap();
                    result
                })
            });
            let done = saves.map(|save| save.join().unwrap()).into_iter().filter(Result::is_ok).count();
            assert_eq!(done, 1);
        }
    }
}
