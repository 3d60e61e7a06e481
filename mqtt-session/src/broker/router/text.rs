use alloc::boxed::Box;
use alloc::vec::Vec;

/// The bytes of a topic level, in 16 bytes as long as they are short.
#[derive(Debug)]
pub(super) enum Text {
    Short(u8, [u8; SHORT]),
    #[expect(
        clippy::box_collection,
        reason = "one pointer, so that the short ones, which are most, decide the size"
    )]
    Long(Box<Vec<u8>>),
}

const SHORT: usize = 14;
const _: () = assert!(size_of::<Text>() == 16 || size_of::<usize>() != 8);

impl Text {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text);
                Self::Short(len, short)
            }
            _ => Self::Long(Box::new(text.to_vec())),
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, text) => text.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_stay_what_they_are() {
        for len in [0, 1, 13, 14, 15, 300] {
            let text: Vec<u8> = (0..len).map(|n| u8::try_from(n % 100).unwrap()).collect();
            assert_eq!(Text::new(&text).as_bytes(), text);
        }
    }
}
