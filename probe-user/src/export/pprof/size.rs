//! How many records a pprof file has, counted before any of them is built.

use anyhow::{Context, Result, bail, ensure};
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

/// Most records and table entries of a file. A record of two bytes takes a hundred in memory, so the size of the file
/// alone bounds too little.
const MAX_RECORDS: usize = 8 << 20;

/// Fails when there are more records than are read, or the bytes are no protocol buffers.
pub fn check(raw: &[u8]) -> Result<()> {
    count_records(raw, 0, &mut 0)
}

/// Walks over the messages without building them, two levels deep, to know how many there are.
fn count_records(mut raw: &[u8], depth: u32, records: &mut usize) -> Result<()> {
    while raw.has_remaining() {
        let (_, wire) = decode_key(&mut raw).context("it is not a pprof file")?;
        *records += 1;
        ensure!(*records <= MAX_RECORDS, "it has more than {MAX_RECORDS} records");
        let skip = match wire {
            WireType::Varint => {
                decode_varint(&mut raw).context("it is not a pprof file")?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut raw).context("it is not a pprof file")?,
            WireType::StartGroup | WireType::EndGroup => bail!("it is not a pprof file: it has groups"),
        };
        let skip = usize::try_from(skip).ok().filter(|&skip| skip <= raw.len());
        let skip = skip.context("it is not a pprof file, or it was cut short")?;
        if wire == WireType::LengthDelimited && depth == 0 {
            // Strings and packed numbers are no messages; what cannot be walked counts as it is.
            let _ = count_records(&raw[..skip], depth + 1, records);
            ensure!(*records <= MAX_RECORDS, "it has more than {MAX_RECORDS} records");
        }
        raw = &raw[skip..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_records_than_memory_are_refused_before_they_are_built() {
        // Samples without content: two bytes each.
        let raw = [0x12, 0x00].repeat(MAX_RECORDS + 1);
        assert!(check(&raw).unwrap_err().to_string().contains("records"));
        // Labels without content, in one sample.
        let labels = [0x1a, 0x00].repeat(MAX_RECORDS + 1);
        let mut raw = vec![0x12];
        prost::encoding::encode_varint(labels.len() as u64, &mut raw);
        raw.extend(labels);
        assert!(check(&raw).unwrap_err().to_string().contains("records"));
    }
}
