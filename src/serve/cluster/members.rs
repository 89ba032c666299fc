//! Who is there, and with which config.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::admin::{ClusterStatus, MemberStatus};

/// Whoever was not seen for so long is no member.
const FRESH: Duration = Duration::from_secs(5);
const FILE: &str = "cluster.json";

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub name: String,
    /// Of this life of the process.
    pub run: u64,
    pub version: String,
    pub generation: u64,
    pub hash: String,
    /// Since when the config is in use.
    pub since: String,
}

/// A member as the store has it.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: String,
    pub age: Duration,
    pub card: Card,
}

impl Member {
    fn is_there(&self) -> bool {
        self.age < FRESH
    }
}

/// How many are there: this one at least.
pub fn count(members: &[Member]) -> u64 {
    members.iter().filter(|member| member.is_there()).count().max(1) as u64
}

/// How it stands, for the status, the metrics and `/readyz`.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The store, as the file has it.
    pub store: String,
    pub own: String,
    /// As last heard.
    pub members: Vec<Member>,
    /// How many are counted with.
    pub count: u64,
    /// Why the store does not answer, and since when.
    pub lost: Option<(String, Timestamp)>,
    /// Questions to the store.
    pub commands: u64,
}

impl Standing {
    /// Members that are there with another config than this one's.
    pub fn differing(&self) -> impl Iterator<Item = &Member> {
        let own = self.members.iter().find(|member| member.id == self.own).map(|member| &member.card.hash);
        self.members.iter().filter(move |member| member.is_there() && Some(&member.card.hash) != own)
    }

    pub fn degraded(&self) -> Option<String> {
        let (why, _) = self.lost.as_ref()?;
        Some(format!("the cluster's store {} does not answer: {why}; {}", self.store, part(self.count)))
    }

    pub fn status(&self) -> ClusterStatus {
        let own = self.members.iter().find(|member| member.id == self.own).map(|member| &member.card.hash);
        let row = |member: &Member| MemberStatus {
            name: member.card.name.clone(),
            here: member.id == self.own,
            config: match (member.is_there(), Some(&member.card.hash) == own) {
                (false, _) => "gone",
                (true, true) => "same",
                (true, false) => "another",
            }
            .to_owned(),
            generation: member.card.generation,
            hash: member.card.hash.chars().take(12).collect(),
            since: member.card.since.clone(),
            version: member.card.version.clone(),
            seen_seconds: member.age.as_secs(),
        };
        let differing: Vec<String> = self.differing().map(|member| member.card.name.clone()).collect();
        ClusterStatus {
            store: self.store.clone(),
            answers: self.lost.is_none(),
            error: self.lost.as_ref().map(|(why, _)| why.clone()),
            lost_since: self.lost.as_ref().map(|(_, since)| since.to_string()),
            counted: self.count,
            says: (!differing.is_empty())
                .then(|| format!("{} with another config than this one", differing.join(", "))),
            members: self.members.iter().map(row).collect(),
        }
    }
}

/// In words, what a limit of the cluster comes to without the store.
pub fn part(count: u64) -> String {
    match count {
        1 => "its limits count here alone".to_owned(),
        count => format!("each of {count} members takes 1/{count} of its limits"),
    }
}

/// What outlives the process: who this is to the others, and how many they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub id: String,
    pub members: u64,
}

impl Remembered {
    /// `fresh`: the id, where nothing is remembered.
    pub fn read(state_dir: &Path, fresh: u64) -> Self {
        let text = fs::read(state_dir.join(FILE)).ok();
        let known = text.and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        known.filter(|known| !known.id.is_empty() && known.id.len() <= 64).unwrap_or_else(|| Self::named(fresh))
    }

    pub fn named(id: u64) -> Self {
        Self { id: format!("{id:016x}"), members: 1 }
    }

    /// Whole or not at all. Not synced: after a power cut the others are asked anew.
    pub fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        let temporary = state_dir.join(format!(".{FILE}"));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&temporary, state_dir.join(FILE))
    }
}

/// The host's name, of what a member's may have.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fine = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = name.trim().chars().filter(fine).take(64).collect();
    if name.is_empty() { "gatepost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, hash: &str, age: u64) -> Member {
        let card = Card {
            name: format!("name-{id}"),
            run: 1,
            version: "0".into(),
            generation: 7,
            hash: hash.into(),
            since: "then".into(),
        };
        Member { id: id.into(), age: Duration::from_secs(age), card }
    }

    #[test]
    fn a_member_with_another_config_is_named_and_one_that_is_gone_is_not() {
        let members = vec![member("a", "1", 0), member("b", "2", 1), member("c", "1", 2), member("d", "3", 60)];
        let standing = Standing { own: "a".into(), count: count(&members), members, ..Standing::default() };
        assert_eq!(standing.count, 3);
        let status = standing.status();
        assert_eq!(status.says.as_deref(), Some("name-b with another config than this one"));
        let configs: Vec<&str> = status.members.iter().map(|member| &*member.config).collect();
        assert_eq!(configs, ["same", "another", "same", "gone"]);
    }

    #[test]
    fn who_one_is_and_how_many_they_were_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let first = Remembered::read(dir.path(), 7);
        assert_eq!(first, Remembered { id: "0000000000000007".into(), members: 1 });
        let told = Remembered { members: 3, ..first };
        told.write(dir.path()).unwrap();
        assert_eq!(Remembered::read(dir.path(), 8), told);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Remembered::read(dir.path(), 8).id, "0000000000000008");
    }
}
