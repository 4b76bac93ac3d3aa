//! Which nodes keep a block.

use model::place::{COPIES, Placement, Spread, TEXT_BYTES};

use super::Malformed;
use crate::v1::{self, node_placement};

impl From<&Placement> for v1::NodePlacement {
    fn from(placement: &Placement) -> Self {
        let spread = match &placement.spread {
            Spread::Receiver => None,
            Spread::Key(key) => Some(node_placement::Spread::Key(key.clone())),
            Spread::Turn(turn) => Some(node_placement::Spread::Turn(*turn)),
        };
        Self {
            copies: placement.copies,
            spread,
            nodes: placement.nodes.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::NodePlacement> for Placement {
    type Error = Malformed;

    fn try_from(placement: v1::NodePlacement) -> Result<Self, Malformed> {
        let spread = match placement.spread {
            None => Spread::Receiver,
            Some(node_placement::Spread::Key(key)) => Spread::Key(key),
            Some(node_placement::Spread::Turn(turn)) => Spread::Turn(turn),
        };
        if !COPIES.contains(&placement.copies) {
            let (least, most) = (COPIES.start(), COPIES.end());
            let why = format!("a block has {least} to {most} copies, not {}", placement.copies);
            return Err(Malformed::new("placement.copies", why));
        }
        let longest = match &spread {
            Spread::Key(key) => key.len().max(placement.nodes.len()),
            Spread::Receiver | Spread::Turn(_) => placement.nodes.len(),
        };
        if longest > TEXT_BYTES {
            return Err(Malformed::new(
                "placement",
                format!("it has a text of {longest} bytes"),
            ));
        }
        Ok(Self {
            copies: placement.copies,
            spread,
            nodes: Some(placement.nodes).filter(|nodes| !nodes.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_come_back_as_they_were() {
        for spread in [Spread::Receiver, Spread::Key("a/b.log".into()), Spread::Turn(7)] {
            for nodes in [None, Some("rack1-*".to_string())] {
                let placement = Placement {
                    copies: 2,
                    spread: spread.clone(),
                    nodes,
                };
                assert_eq!(
                    Placement::try_from(v1::NodePlacement::from(&placement)).unwrap(),
                    placement
                );
            }
        }
        let bad = |copies, nodes: String| {
            let placement = v1::NodePlacement {
                copies,
                nodes,
                ..v1::NodePlacement::default()
            };
            Placement::try_from(placement).is_err()
        };
        assert!(bad(0, String::new()) && bad(4, String::new()) && bad(1, "x".repeat(TEXT_BYTES + 1)));
    }
}
