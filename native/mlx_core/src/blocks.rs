//! Weights that are quantized in blocks of 32, as GGUF has them, in the order of MLX.
//!
//! A block is one or two half-precision numbers and 32 integers. MLX wants the integers of all
//! blocks in one array and the numbers in others, so each is read by itself.

/// What of each block is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The half-precision number at a byte.
    Number(usize),
    /// Integers of 4 bits at the end: the first 16 in the low halves of the bytes.
    Nibbles,
    /// Signed bytes at the end, as unsigned ones that are 128 more.
    Bytes,
}

/// The bytes of a block, and what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    pub size: usize,
    pub field: Field,
}

impl Field {
    /// Bytes that a block gives.
    pub(crate) fn len(self) -> usize {
        match self {
            Field::Number(_) => 2,
            Field::Nibbles => 16,
            Field::Bytes => 32,
        }
    }
}

impl Blocks {
    /// Whether a block has the field at all.
    pub(crate) fn is_sound(&self) -> bool {
        match self.field {
            Field::Number(at) => at.checked_add(2).is_some_and(|end| end <= self.size),
            field => field.len() <= self.size,
        }
    }

    /// Writes the field of each block.
    pub(crate) fn unpack(&self, blocks: &[u8], target: &mut [u8]) {
        let fields = target.chunks_exact_mut(self.field.len());
        for (block, out) in blocks.chunks_exact(self.size).zip(fields) {
            match self.field {
                Field::Number(at) => out.copy_from_slice(&block[at..at + 2]),
                Field::Nibbles => nibbles(&block[self.size - 16..], out),
                Field::Bytes => {
                    let bytes = &block[self.size - 32..];
                    out.iter_mut()
                        .zip(bytes)
                        .for_each(|(out, q)| *out = q ^ 0x80);
                }
            }
        }
    }
}

/// MLX has the first of two integers in the low half of a byte.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(8);
    for ((low, high), pair) in low.iter_mut().zip(high).zip(bytes.chunks_exact(2)) {
        *low = (pair[0] & 0x0F) | (pair[1] << 4);
        *high = (pair[0] >> 4) | (pair[1] & 0xF0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(size: usize, field: Field, blocks: &[u8]) -> Vec<u8> {
        let mut out = vec![0; blocks.len() / size * field.len()];
        let blocks_of = Blocks { size, field };
        assert!(blocks_of.is_sound());
        blocks_of.unpack(blocks, &mut out);
        out
    }

    #[test]
    fn integers_come_in_order() {
        // Integer i is i modulo 16, or for the second block 15 less that.
        let mut blocks = vec![1, 2];
        blocks.extend((0..16u8).map(|i| i | i << 4));
        blocks.extend([3, 4]);
        blocks.extend((0..16u8).map(|i| (15 - i) | (15 - i) << 4));
        let out = unpack(18, Field::Nibbles, &blocks);
        let integers: Vec<u8> = out.iter().flat_map(|b| [b & 15, b >> 4]).collect();
        let expected: Vec<u8> = (0..32).map(|i| i % 16).collect();
        assert_eq!(integers[..32], expected);
        assert!(integers[32..]
            .iter()
            .zip(expected)
            .all(|(a, b)| *a == 15 - b));
        assert_eq!(unpack(18, Field::Number(0), &blocks), [1, 2, 3, 4]);
    }

    #[test]
    fn signed_bytes_are_shifted() {
        let mut block = vec![0, 0];
        block.extend((-16..16i8).map(|q| q as u8));
        let expected: Vec<u8> = (112..144).collect();
        assert_eq!(unpack(34, Field::Bytes, &block), expected);
    }

    #[test]
    fn fields_lie_in_the_block() {
        let sound = |size, field| Blocks { size, field }.is_sound();
        assert!(sound(18, Field::Number(16)));
        assert!(!sound(18, Field::Number(17)));
        assert!(!sound(18, Field::Number(usize::MAX)));
        assert!(!sound(18, Field::Bytes));
        assert!(!sound(0, Field::Nibbles));
    }
}
