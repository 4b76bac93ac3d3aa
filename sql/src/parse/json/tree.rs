//! The columns of a table as a tree of the names that their paths consist of.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use memchr::memchr;

use super::DOT;

/// A place in the tree.
pub(super) type Node = usize;

/// What all paths begin at.
pub(super) const ROOT: Node = 0;

pub(super) struct Tree {
    nodes: Vec<Branch>,
}

#[derive(Default)]
struct Branch {
    /// The column whose path ends here.
    column: Option<usize>,
    members: Vec<Member>,
    places: HashMap<Box<[u8]>, usize, FixedState>,
}

struct Member {
    name: Box<[u8]>,
    node: Node,
    /// Which one came behind it in the last object: lines of one program mostly have the same names in the same order.
    next: usize,
}

impl Tree {
    /// Of the paths of the columns, by place.
    pub(super) fn new<'c>(paths: impl Iterator<Item = &'c str>) -> Self {
        let mut tree = Self {
            nodes: vec![Branch::default()],
        };
        for (column, path) in paths.enumerate() {
            let mut node = ROOT;
            for name in path.split(DOT) {
                node = tree.member(node, name.as_bytes());
            }
            tree.nodes[node].column = Some(column);
        }
        tree
    }

    fn member(&mut self, node: Node, name: &[u8]) -> Node {
        if let Some(&place) = self.nodes[node].places.get(name) {
            return self.nodes[node].members[place].node;
        }
        let made = self.nodes.len();
        self.nodes.push(Branch::default());
        let branch = &mut self.nodes[node];
        let place = branch.members.len();
        branch.places.insert(name.into(), place);
        branch.members.push(Member {
            name: name.into(),
            node: made,
            next: place + 1,
        });
        made
    }

    pub(super) fn column(&self, node: Node) -> Option<usize> {
        self.nodes[node].column
    }

    pub(super) fn has_members(&self, node: Node) -> bool {
        !self.nodes[node].members.is_empty()
    }

    /// Where a member of this name leads to: the names of a path may stand in objects within each other, or with dots between
    /// them in one name, or both. `last` is the place of the member before it, to be given with the next one.
    #[inline]
    pub(super) fn find(&mut self, node: Node, name: &[u8], last: &mut Option<usize>) -> Option<Node> {
        let branch = &mut self.nodes[node];
        let expected = match *last {
            Some(last) => branch.members.get(last).map_or(0, |member| member.next),
            None => 0,
        };
        if let Some(member) = branch.members.get(expected)
            && *member.name == *name
        {
            *last = Some(expected);
            return Some(member.node);
        }
        if let Some(&place) = branch.places.get(name) {
            if let Some(member) = last.and_then(|last| branch.members.get_mut(last)) {
                member.next = place;
            }
            *last = Some(place);
            return Some(branch.members[place].node);
        }
        memchr(DOT as u8, name)?;
        name.split(|&byte| byte == DOT as u8)
            .try_fold(node, |node, name| {
                let branch = &self.nodes[node];
                let place = branch.places.get(name)?;
                Some(branch.members[*place].node)
            })
    }
}
