//! Rendezvous (highest random weight) hashing: everybody who knows the same members agrees who is nearest to a key,
//! and a member that comes or goes moves only its own keys.
//!
//! Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The weight of `member` for `key`; the highest weight wins.
pub fn weight(key: &[u8], member: &str) -> u64 {
    xxh3_64_with_seed(member.as_bytes(), xxh3_64_with_seed(key, 0))
}

/// The member that `key` belongs to; none without members. Equal weights go to the smaller name.
pub fn nearest<'a, M: AsRef<str> + 'a>(
    key: &[u8],
    members: impl IntoIterator<Item = &'a M>,
) -> Option<&'a M> {
    members.into_iter().max_by(|a, b| {
        weight(key, a.as_ref())
            .cmp(&weight(key, b.as_ref()))
            .then_with(|| b.as_ref().cmp(a.as_ref()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaving_member_moves_only_its_own_keys() {
        let all: Vec<String> = (0..10).map(|i| format!("node{i}")).collect();
        let fewer = &all[1..];
        let mut moved = 0;
        for key in 0..2000u32 {
            let before = nearest(&key.to_le_bytes(), &all).unwrap();
            let after = nearest(&key.to_le_bytes(), fewer).unwrap();
            if before == "node0" {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(
            (120..=280).contains(&moved),
            "{moved} of 2000 keys were the tenth member's"
        );
    }

    #[test]
    fn nobody_is_nearest_among_none() {
        assert_eq!(nearest::<String>(b"k", &[]), None);
    }
}
