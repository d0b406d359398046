// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which keys are meant.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::Key;

/// Which keys are meant, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// This one.
    Key(Key),
    /// Those that begin with these bytes; all, if there are none.
    Prefix(Key),
    /// Those from the first on and before the second.
    Range {
        /// The first.
        from: Key,
        /// The first that is not meant any more.
        to: Key,
    },
}

impl Selector {
    /// Whether a key is meant.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(wanted) => wanted == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Range { from, to } => from.as_slice() <= key && key < to.as_slice(),
        }
    }

    /// The same as bounds; `None` if no key can be meant.
    pub(super) fn bounds(&self) -> Option<(Bound<Key>, Bound<Key>)> {
        match self {
            Self::Key(key) => Some((Bound::Included(key.clone()), Bound::Included(key.clone()))),
            Self::Prefix(prefix) => {
                // The first key that begins otherwise: the last byte that can grow does, and what follows goes.
                let end = prefix.iter().rposition(|byte| *byte != u8::MAX).map(|last| {
                    let mut end = prefix[..=last].to_vec();
                    end[last] += 1;
                    end
                });
                Some((
                    Bound::Included(prefix.clone()),
                    end.map_or(Bound::Unbounded, Bound::Excluded),
                ))
            }
            Self::Range { from, to } => {
                (from < to).then(|| (Bound::Included(from.clone()), Bound::Excluded(to.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(254), Just(255)], 0..4)
    }

    proptest! {
        #[test]
        fn bounds_hold_what_the_selector_contains(
            keys in prop::collection::btree_set(key(), 0..40),
            from in key(),
            to in key(),
        ) {
            let all = [
                Selector::Key(from.clone()),
                Selector::Prefix(from.clone()),
                Selector::Range { from, to },
            ];
            for selector in all {
                let wanted: BTreeSet<_> =
                    keys.iter().filter(|key| selector.contains(key)).cloned().collect();
                let found: BTreeSet<_> = selector
                    .bounds()
                    .map(|bounds| keys.range(bounds).cloned().collect())
                    .unwrap_or_default();
                prop_assert_eq!(found, wanted, "{:?}", selector);
            }
        }
    }
}
