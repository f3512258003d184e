//! What may stand around a message in a record's value.

use super::wire;

/// How a record's value holds its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The value is the message.
    #[default]
    None,
    /// The value is a varint, which is the message's length, and the message.
    LengthDelimited,
}

impl Framing {
    /// Where the message is in `buffer[start..end]`; else what is wrong with its frame.
    pub(super) fn unwrap(self, buffer: &[u8], start: usize, end: usize) -> Result<(usize, usize), &'static str> {
        match self {
            Framing::None => Ok((start, end)),
            Framing::LengthDelimited => {
                let (length, message) = wire::bounded_varint(buffer, start, end)
                    .map_err(|_| "the value does not start with a message's length")?;
                if length == (end - message) as u64 {
                    Ok((message, end))
                } else {
                    Err("the length in front of the message is not that of the rest of the value")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_delimited() {
        let check = |value: &[u8], expected: Option<(usize, usize)>| {
            let buffer = [value, &[0; wire::PADDING]].concat();
            assert_eq!(Framing::LengthDelimited.unwrap(&buffer, 0, value.len()).ok(), expected, "{value:x?}");
        };
        check(&[2, 8, 1], Some((1, 3)));
        check(&[0x82, 0, 8, 1], Some((2, 4)));
        check(&[0], Some((1, 1)));
        check(&[], None);
        check(&[3, 8, 1], None);
        check(&[1, 8, 1], None);
        check(&[2, 8, 1, 2, 8, 1], None);
        check(&[0x80], None);
    }
}
