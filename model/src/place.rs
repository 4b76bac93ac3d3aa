//! Blocks that nodes keep in directories of their own: how they are named, and which nodes keep them.
//!
//! Such a block has the URL `node://HOST[,HOST…]/KEY`: the nodes that keep a copy, and the key under which each does.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    block::{Block, Content},
    name::Name,
    rendezvous,
};

/// How many nodes may keep a block.
pub const COPIES: RangeInclusive<u32> = 1..=3;
/// Longest pattern of node names, and longest key that decides among nodes, in bytes.
pub const TEXT_BYTES: usize = 4096;

const SCHEME: &str = "node://";
/// Folder of all keys.
const FOLDER: &str = "blocks";
/// Most characters of what a database is called.
const MILL_CHARS: usize = 64;
/// Digits of a number in a key, at least.
const DIGITS: usize = 12;
const ENDING: &str = ".zst";

/// Under what nodes keep a block: `blocks/MILL/DATASET/AGENT/INSTANCE/NUMBER.zst`, and nothing else, so that it is safe
/// as a path below a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey(String);

/// A text that is no [`BlockKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key of a block: expected blocks/MILL/DATASET/AGENT/INSTANCE/NUMBER.zst")]
pub struct BadKey(pub String);

impl BlockKey {
    /// The key as text, which is also its path below the directory of a node.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder of all blocks of one database.
    pub fn folder(mill: &str) -> String {
        format!("{FOLDER}/{mill}")
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BlockKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        if is_key(text) {
            Ok(Self(text.to_string()))
        } else {
            // What others send may be of any length.
            Err(BadKey(text.chars().take(100).collect()))
        }
    }
}

fn is_key(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(7, '/').collect();
    let [folder, mill, dataset, agent, instance, file] = parts[..] else {
        return false;
    };
    let digits = file.strip_suffix(ENDING).unwrap_or_default();
    let is_number = (DIGITS..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_mill = (1..=MILL_CHARS).contains(&mill.len())
        && mill
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    // As it is written, so that no block has two keys.
    let is_instance = Uuid::try_parse(instance).is_ok_and(|uuid| uuid.to_string() == instance);
    folder == FOLDER && is_mill && is_name(dataset) && is_name(agent) && is_instance && is_number
}

fn is_name(text: &str) -> bool {
    Name::new(text).is_ok()
}

/// Where a block lies that nodes keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUrl {
    /// The nodes that keep it, the first first; at least one, each once.
    pub hosts: Vec<Name>,
    /// Under what.
    pub key: BlockKey,
}

impl NodeUrl {
    /// Whether a URL is of this kind, well formed or not.
    pub fn is_one(url: &str) -> bool {
        url.starts_with(SCHEME)
    }

    /// Takes a URL apart; none for one of another kind, or malformed.
    pub fn parse(url: &str) -> Option<Self> {
        let (hosts, key) = url.strip_prefix(SCHEME)?.split_once('/')?;
        if hosts.split(',').count() > *COPIES.end() as usize {
            return None;
        }
        let hosts: Vec<Name> = hosts.split(',').map(Name::new).collect::<Result<_, _>>().ok()?;
        let different: BTreeSet<&Name> = hosts.iter().collect();
        if different.len() != hosts.len() {
            return None;
        }
        let key = key.parse().ok()?;
        Some(Self { hosts, key })
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self.hosts.iter().map(Name::as_str).collect();
        write!(f, "{SCHEME}{}/{}", hosts.join(","), self.key)
    }
}

impl Block {
    /// The nodes that keep it in directories of their own; none where all nodes reach it alike.
    pub fn hosts(&self) -> Vec<Name> {
        let Content::Object { url, .. } = &self.content else {
            return Vec::new();
        };
        NodeUrl::parse(url).map(|url| url.hosts).unwrap_or_default()
    }
}

/// How shipped blocks are to be kept by nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// By how many, see [`COPIES`].
    pub copies: u32,
    /// By which.
    pub spread: Spread,
    /// Only nodes whose names match this pattern (`*` and `?`); none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// Which node keeps the first copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// The one that receives it; where that keeps none, as by its key.
    Receiver,
    /// The nearest to a key, by rendezvous hash.
    Key(String),
    /// They take turns, by a number.
    Turn(u64),
}

/// Why no nodes are to be had for a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// None at all.
    #[error("no live node keeps blocks of its own: start nodes with the setting local_store")]
    NoNode,
    /// None of such a name.
    #[error("no live node that keeps blocks of its own has a name like {pattern:?}; there are {}", .nodes.join(", "))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Those that there are.
        nodes: Vec<String>,
    },
    /// Fewer than copies.
    #[error("{copies} copies need as many live nodes that keep blocks of their own, and there are {}: {}", .nodes.len(), .nodes.join(", "))]
    TooFew {
        /// Copies that were asked for.
        copies: u32,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// A number of copies that can't be.
    #[error("a block has {least} to {most} copies, not {0}", least = COPIES.start(), most = COPIES.end())]
    BadCopies(u32),
}

impl Misplaced {
    /// Whether more nodes may come by themselves, as after a restart.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoNode | Self::TooFew { .. })
    }
}

impl Placement {
    /// The nodes that are to keep a block with this key, the first first. `live` are the nodes that keep blocks.
    ///
    /// # Errors
    /// [`Misplaced`].
    pub fn choose(&self, key: &str, receiver: Option<&Name>, live: &[Name]) -> Result<Vec<Name>, Misplaced> {
        if !COPIES.contains(&self.copies) {
            return Err(Misplaced::BadCopies(self.copies));
        }
        let all: BTreeSet<&Name> = live.iter().collect();
        let names = |nodes: &[&Name]| -> Vec<String> { nodes.iter().map(ToString::to_string).collect() };
        let fitting: Vec<&Name> = match &self.nodes {
            Some(pattern) => all
                .iter()
                .copied()
                .filter(|node| matches(pattern, node.as_str()))
                .collect(),
            None => all.iter().copied().collect(),
        };
        match (&self.nodes, all.is_empty(), fitting.is_empty()) {
            (_, true, _) => return Err(Misplaced::NoNode),
            (Some(pattern), _, true) => {
                let nodes: Vec<&Name> = all.into_iter().collect();
                return Err(Misplaced::NoMatch {
                    pattern: pattern.clone(),
                    nodes: names(&nodes),
                });
            }
            _ if fitting.len() < self.copies as usize => {
                return Err(Misplaced::TooFew {
                    copies: self.copies,
                    nodes: names(&fitting),
                });
            }
            _ => {}
        }
        let mut ranked = fitting;
        let key = match &self.spread {
            Spread::Key(key) => key.as_str(),
            Spread::Receiver | Spread::Turn(_) => key,
        };
        let weight = |node: &Name| std::cmp::Reverse(rendezvous::weight(key.as_bytes(), node.as_str()));
        match &self.spread {
            // So that further copies are shared as evenly as the first.
            Spread::Turn(turn) => {
                let at = usize::try_from(turn % ranked.len() as u64).unwrap_or(0);
                ranked.rotate_left(at);
            }
            Spread::Key(_) => ranked.sort_by_key(|node| (weight(node), *node)),
            Spread::Receiver => ranked.sort_by_key(|node| (Some(*node) != receiver, weight(node), *node)),
        }
        Ok(ranked.into_iter().take(self.copies as usize).cloned().collect())
    }
}

/// Whether a name matches a pattern, in which `*` stands for any characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Behind the last star: where to go on when what follows does not match.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[from] => (at, from) = (at + 1, from + 1),
            _ => match &mut star {
                Some((behind, tried)) => {
                    *tried += 1;
                    (at, from) = (*behind, *tried);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "blocks/019/access/web7/00000000-0000-4000-8000-00000000000a/000000000017.zst";

    fn nodes(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::new(*name).unwrap()).collect()
    }

    fn placement(copies: u32, spread: Spread, nodes: Option<&str>) -> Placement {
        Placement {
            copies,
            spread,
            nodes: nodes.map(str::to_string),
        }
    }

    #[test]
    fn only_what_ingest_makes_is_a_key() {
        assert_eq!(KEY.parse::<BlockKey>().unwrap().as_str(), KEY);
        let instance = "00000000-0000-4000-8000-00000000000a";
        let long = format!("blocks/019/access/web7/{instance}/{}.zst", "1".repeat(21));
        for bad in [
            "",
            "/etc/passwd",
            "blocks",
            "../blocks/019/access/web7/00000000-0000-4000-8000-00000000000a/000000000017.zst",
            &KEY.replace("access", ".."),
            &KEY.replace("019", ".."),
            &KEY.replace("web7", ""),
            &KEY.replace("blocks", "block"),
            &KEY.replace("000000000017", "17"),
            &KEY.replace("000000000017", "00000000001x"),
            &KEY.replace(".zst", ".zst/x"),
            &KEY.replace(".zst", ""),
            &KEY.replace("00000000a", "00000000A"),
            &KEY.replace("access", "acc\0ess"),
            &format!("/{KEY}"),
            &format!("{KEY}/"),
            &long,
        ] {
            assert!(bad.parse::<BlockKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_name_hosts_and_key() {
        let url = format!("node://rack1-a,vm.2/{KEY}");
        let parsed = NodeUrl::parse(&url).unwrap();
        assert_eq!(
            (parsed.hosts.clone(), parsed.to_string()),
            (nodes(&["rack1-a", "vm.2"]), url)
        );
        for bad in [
            format!("node:///{KEY}"),
            format!("node://a,/{KEY}"),
            format!("node://a,a/{KEY}"),
            format!("node://a,b,c,d/{KEY}"),
            format!("node://../{KEY}"),
            format!("node://a//{KEY}"),
            format!("file://a/{KEY}"),
            "node://a".to_string(),
        ] {
            assert_eq!(NodeUrl::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_of_names() {
        for (pattern, name, expected) in [
            ("rack1-*", "rack1-a", true),
            ("rack1-*", "rack2-a", false),
            ("*", "x", true),
            ("*-?", "a-b-c", true),
            ("*a*b", "xxaxxbxb", true),
            ("*a*b", "xxaxxbx", false),
            ("a?", "a", false),
            ("a", "a", true),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn who_keeps_a_block() {
        let (me, live) = (Name::new("b").unwrap(), nodes(&["c", "a", "b"]));
        let choose = |placement: Placement| placement.choose("k", Some(&me), &live);
        assert_eq!(
            choose(placement(1, Spread::Receiver, None)).unwrap(),
            nodes(&["b"])
        );
        assert_eq!(
            choose(placement(1, Spread::Receiver, Some("[a]"))).unwrap_err(),
            Misplaced::NoMatch {
                pattern: "[a]".into(),
                nodes: vec!["a".into(), "b".into(), "c".into()],
            }
        );
        assert_eq!(
            choose(placement(1, Spread::Receiver, Some("a*"))).unwrap(),
            nodes(&["a"])
        );
        for turn in 0..6 {
            let chosen = choose(placement(2, Spread::Turn(turn), None)).unwrap();
            assert_eq!(chosen[0].as_str(), ["a", "b", "c"][turn as usize % 3]);
            assert_ne!(chosen[0], chosen[1]);
        }
        assert!(matches!(choose(placement(3, Spread::Turn(0), Some("?"))), Ok(chosen) if chosen.len() == 3));
        assert!(matches!(
            choose(placement(2, Spread::Turn(0), Some("a"))),
            Err(Misplaced::TooFew { .. })
        ));
        assert!(matches!(
            choose(placement(4, Spread::Turn(0), None)),
            Err(Misplaced::BadCopies(4))
        ));
        let none = placement(1, Spread::Receiver, None).choose("k", Some(&me), &[]);
        assert_eq!(none, Err(Misplaced::NoNode));
    }

    proptest! {
        #[test]
        fn a_node_that_leaves_moves_only_its_own_files(files in prop::collection::vec("[a-z/]{1,20}", 1..40)) {
            let live = nodes(&["n1", "n2", "n3", "n4"]);
            let by = |file: &str, live: &[Name]| {
                placement(1, Spread::Key(file.to_string()), None).choose("k", Some(&live[0]), live).unwrap().remove(0)
            };
            for file in &files {
                let before = by(file, &live);
                if before != live[3] {
                    prop_assert_eq!(before, by(file, &live[..3]));
                }
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<BlockKey>();
            let _ = NodeUrl::parse(&text);
            let _ = NodeUrl::parse(&format!("node://{text}"));
            let _ = matches(&text, "abc");
        }
    }
}
