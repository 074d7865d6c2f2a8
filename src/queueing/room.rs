//! How many places a queue has, and which of them are kept for those who have few.

/// The places of a queue.
///
/// The last quarter is for clients with few places, fewer than a sixteenth of that quarter; the others share the first three
/// quarters, and one client alone may have all of those. So one with few places is refused only where those with few have a
/// quarter of the queue between them, however much the others ask for: while the last quarter fills, nobody gets a place who has
/// his sixteenth of it, so at least sixteen have come to fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Places.
    places: usize,
    /// The last of them.
    kept: usize,
    /// A client with as many gets none of those.
    few: usize,
}

/// One in so many places is kept for those who have few.
const KEPT: usize = 4;
/// At least so many clients fill what is kept.
const SHARES: usize = 16;

impl Room {
    /// Of so many places; where they are fewer than four, none is kept.
    pub fn new(places: usize) -> Self {
        let kept = places / KEPT;
        Self {
            places,
            kept,
            few: kept.div_ceil(SHARES),
        }
    }

    /// Whether a client with `own` places may have another where `taken` are taken; if not, the limit it met.
    ///
    /// # Errors
    ///
    /// The number of places that there are for it.
    pub fn admits(&self, taken: usize, own: usize) -> Result<(), usize> {
        let open = self.places - self.kept;
        if taken >= self.places {
            Err(self.places)
        } else if taken >= open && own >= self.few {
            Err(open)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_client_has_three_quarters_and_a_new_one_a_place() {
        let room = Room::new(1024);
        assert_eq!((room.kept, room.few), (256, 16));
        assert_eq!(room.admits(767, 767), Ok(()));
        assert_eq!(room.admits(768, 768), Err(768));
        assert_eq!(room.admits(768, 16), Err(768));
        assert_eq!(room.admits(768, 15), Ok(()));
        assert_eq!(room.admits(1023, 0), Ok(()));
        assert_eq!(room.admits(1024, 0), Err(1024));
        for places in 1..4 {
            assert_eq!(
                Room::new(places).admits(places - 1, places - 1),
                Ok(()),
                "{places}"
            );
        }
        assert_eq!(Room::new(0).admits(0, 0), Err(0));
        assert_eq!((Room::new(4).kept, Room::new(4).few), (1, 1));
    }

    proptest! {
        /// Whoever came and went before: one with few places is refused only where those with few have all that is kept.
        #[test]
        fn who_has_few_has_a_place(
            places in 1usize..200,
            events in prop::collection::vec((0usize..20, 0u8..4), 1..1000),
        ) {
            let room = Room::new(places);
            let mut own = [0usize; 20];
            for (client, what) in events {
                let taken: usize = own.iter().sum();
                // Mostly the first, who asks for whatever there is.
                let client = if what == 1 { 0 } else { client };
                if what == 0 {
                    own[client] = own[client].saturating_sub(1);
                } else if room.admits(taken, own[client]).is_ok() {
                    own[client] += 1;
                } else {
                    let modest: usize = own.iter().map(|&own| own.min(room.few)).sum();
                    prop_assert!(own[client] >= room.few || modest >= room.kept, "{own:?}");
                }
                prop_assert!(own.iter().sum::<usize>() <= places);
            }
        }
    }
}
