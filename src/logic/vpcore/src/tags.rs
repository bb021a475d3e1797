//! Tags of translations, one space per LP: VPIDs of VT-x, ASIDs of AMD-V.
//!
//! A VP gets a tag when it is loaded, and keeps it until it is loaded elsewhere or the LP has run out of tags; then all
//! tags of the LP become void at once, by a new generation. Whoever gets a tag drops what is left under its number, so
//! nothing has to be dropped when a generation ends.

/// What a VP holds. Void until the first [`Tags::renew`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// LP and generation; 0 is nobody's.
    generation: u64,
    number: u32,
}

impl Tag {
    /// The number for the hardware, 1 or more once the tag was renewed.
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// The tags of one LP.
#[derive(Debug)]
pub struct Tags {
    generation: u64,
    last: u32,
    count: u32,
}

impl Tags {
    /// The tags 1 to `count`, at least one, of the LP with index `lp`.
    pub const fn new(lp: u32, count: u32) -> Self {
        Self {
            // 2^32 generations are more than any LP lives to see.
            generation: (lp as u64 + 1) << 32,
            last: 0,
            count: if count == 0 { 1 } else { count },
        }
    }

    /// Makes `tag` one that its VP may run with on this LP. True if it is new: then what is cached under its number
    /// must be dropped before it is used, and of the VP nothing is cached under it.
    pub const fn renew(&mut self, tag: &mut Tag) -> bool {
        if tag.generation == self.generation {
            return false;
        }
        if self.last == self.count {
            self.generation = self.generation.wrapping_add(1);
            self.last = 0;
        }
        self.last += 1;
        *tag = Tag {
            generation: self.generation,
            number: self.last,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vp_that_stays_keeps_its_tag() {
        let mut tags = Tags::new(0, 4);
        let mut tag = Tag::default();
        assert!(tags.renew(&mut tag));
        assert_eq!(tag.number(), 1);
        assert!(!tags.renew(&mut tag));
    }

    #[test]
    fn a_vp_that_comes_back_gets_a_new_tag() {
        let (mut here, mut there) = (Tags::new(0, 4), Tags::new(1, 4));
        let mut tag = Tag::default();
        here.renew(&mut tag);
        assert!(there.renew(&mut tag));
        assert!(here.renew(&mut tag));
        assert_eq!(tag.number(), 2);
    }

    #[test]
    fn no_two_valid_tags_have_one_number() {
        let mut tags = Tags::new(3, 2);
        let mut vps = [Tag::default(); 5];
        for turn in 0..40 {
            let who = turn * 7 % 5;
            tags.renew(&mut vps[who]);
            assert!((1..=2).contains(&vps[who].number()));
            for (other, tag) in vps.iter().enumerate() {
                let is_valid = tag.generation == tags.generation && other != who;
                assert!(!is_valid || tag.number() != vps[who].number());
            }
        }
    }
}
