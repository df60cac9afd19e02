//! Offsets of struct members in the running kernel, from its BTF (Documentation/bpf/btf.rst). aya parses BTF as well but
//! keeps members to itself.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_INT: u32 = 1;
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_ENUM64: u32 = 19;

/// Structs and unions of a BTF blob.
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Type id → offset of its record and its kind, for structs and unions.
    composites: HashMap<u32, Composite>,
    /// Struct name → type id.
    by_name: HashMap<String, u32>,
    /// Type id → the type behind it, for const, volatile and typedef.
    aliases: HashMap<u32, u32>,
    /// Type id → bytes, but for arrays.
    sizes: HashMap<u32, u32>,
    /// Type id → what an array consists of, and how many.
    arrays: HashMap<u32, (u32, u32)>,
}

#[derive(Clone, Copy)]
struct Composite {
    members: usize,
    count: usize,
    bitfields: bool,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Result<Self> {
        let bytes = std::fs::read(VMLINUX).with_context(|| format!("cannot read {VMLINUX}"))?;
        Self::parse(bytes).with_context(|| format!("{VMLINUX} is not understood"))
    }

    /// Reads a BTF blob of this machine's byte order.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.get(..2) == Some(&0xeb9f_u16.to_ne_bytes()[..]), "no BTF magic");
        let mut btf = Self {
            strings: 0,
            composites: HashMap::new(),
            by_name: HashMap::new(),
            aliases: HashMap::new(),
            sizes: HashMap::new(),
            arrays: HashMap::new(),
            bytes,
        };
        let header = btf.word(4)? as usize;
        let types = header + btf.word(8)? as usize;
        let end = types + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        let (mut at, mut id) = (types, 1);
        while at < end {
            let (name, info, size_or_type) = (btf.word(at)?, btf.word(at + 4)?, btf.word(at + 8)?);
            let (count, kind) = ((info & 0xffff) as usize, info >> 24 & 0x1f);
            at += 12;
            match kind {
                KIND_POINTER => _ = btf.sizes.insert(id, size_of::<u64>() as u32),
                KIND_ARRAY => _ = btf.arrays.insert(id, (btf.word(at)?, btf.word(at + 8)?)),
                KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 => _ = btf.sizes.insert(id, size_or_type),
                _ => {}
            }
            match kind {
                KIND_STRUCT | KIND_UNION => {
                    btf.composites.insert(id, Composite { members: at, count, bitfields: info >> 31 == 1 });
                    let name = btf.string(name)?.to_owned();
                    if kind == KIND_STRUCT && !name.is_empty() {
                        btf.by_name.entry(name).or_insert(id);
                    }
                    at += count * 12;
                }
                // INT, VAR, DECL_TAG: one more word; ARRAY: three
                KIND_INT | 14 | 17 => at += 4,
                KIND_ARRAY => at += 12,
                // ENUM and FUNC_PROTO: two words an entry; DATASEC and ENUM64: three
                KIND_ENUM | 13 => at += count * 8,
                15 | KIND_ENUM64 => at += count * 12,
                // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
                8..=11 | 18 => {
                    btf.aliases.insert(id, size_or_type);
                }
                // PTR, FWD, FUNC, FLOAT
                KIND_POINTER | 7 | 12 | 16 => {}
                other => bail!("unknown kind {other} of type {id}"),
            }
            id += 1;
        }
        Ok(btf)
    }

    /// Byte offset of `path` (`member` or `member.member`) in `struct name`, of which so many bytes are read: fails where it has
    /// fewer, because what is behind it is something else. Anonymous structs and unions are looked into.
    pub fn offset(&self, name: &str, path: &str, read: u32) -> Result<u32> {
        let mut id = *self.by_name.get(name).with_context(|| format!("no struct {name}"))?;
        let mut offset = 0;
        for member in path.split('.') {
            let (member_offset, member_type) =
                self.member(id, member, 0)?.with_context(|| format!("struct {name} has no member {path}"))?;
            offset += member_offset;
            id = member_type;
        }
        let has = self.size(id).with_context(|| format!("{path} of struct {name} has no size"))?;
        ensure!(
            has >= read,
            "{path} of struct {name} has {has} bytes, not {read}: this kernel is newer than probe knows"
        );
        Ok(offset)
    }

    /// Bytes of a type.
    fn size(&self, id: u32) -> Option<u32> {
        let id = self.resolve(id);
        match self.arrays.get(&id) {
            Some(&(of, count)) => self.sizes.get(&self.resolve(of))?.checked_mul(count),
            None => self.sizes.get(&id).copied(),
        }
    }

    fn member(&self, id: u32, wanted: &str, depth: u32) -> Result<Option<(u32, u32)>> {
        ensure!(depth < 8, "structs nested too deep");
        let Some(composite) = self.composites.get(&self.resolve(id)) else { return Ok(None) };
        for index in 0..composite.count {
            let at = composite.members + index * 12;
            let (name, member_type, bits) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let offset = if composite.bitfields { bits & 0xff_ffff } else { bits } / 8;
            let name = self.string(name)?;
            if name == wanted {
                return Ok(Some((offset, member_type)));
            }
            if name.is_empty()
                && let Some((inner, inner_type)) = self.member(member_type, wanted, depth + 1)?
            {
                return Ok(Some((offset + inner, inner_type)));
            }
        }
        Ok(None)
    }

    fn resolve(&self, mut id: u32) -> u32 {
        for _ in 0..16 {
            match self.aliases.get(&id) {
                Some(&next) => id = next,
                None => break,
            }
        }
        id
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).context("cut short")?;
        Ok(u32::from_ne_bytes(*bytes))
    }

    fn string(&self, offset: u32) -> Result<&str> {
        let bytes = self.bytes.get(self.strings + offset as usize..).context("string out of bounds")?;
        let end = bytes.iter().position(|&b| b == 0).context("string without end")?;
        Ok(std::str::from_utf8(&bytes[..end])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { long b; int c; }; const struct inner d; }`, `struct inner { int x; int y; }`
    fn blob() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0d\0inner\0x\0y\0int\0";
        let name = |text: &str| {
            let needle = [b"\0", text.as_bytes(), b"\0"].concat();
            strings.windows(needle.len()).position(|w| w == needle).map_or(0, |at| at as u32 + 1)
        };
        let composite = |name, kind: u32, count, size| [name, kind << 24 | count, size];
        let mut types: Vec<u32> = Vec::new();
        types.extend([name("int"), 1 << 24, 4, 32]); // 1
        types.extend(composite(name("inner"), KIND_STRUCT, 2, 8)); // 2
        types.extend([name("x"), 1, 0, name("y"), 1, 32]);
        types.extend(composite(0, KIND_UNION, 2, 8)); // 3
        types.extend([name("b"), 1, 0, name("c"), 1, 0]);
        types.extend([0, 10 << 24, 2]); // 4: const struct inner
        types.extend(composite(name("outer"), KIND_STRUCT, 3, 24)); // 5
        types.extend([name("a"), 1, 0, 0, 3, 64, name("d"), 4, 128]);
        let mut blob = Vec::new();
        blob.extend(0xeb9f_u16.to_ne_bytes());
        blob.extend([1, 0]);
        let types_len = types.len() as u32 * 4;
        for word in [24, 0, types_len, types_len, strings.len() as u32] {
            blob.extend(word.to_ne_bytes());
        }
        types.iter().for_each(|word| blob.extend(word.to_ne_bytes()));
        blob.extend(strings);
        blob
    }

    #[test]
    fn members_are_found_also_in_anonymous_and_nested_structs() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset("outer", "a", 4).unwrap(), 0);
        assert_eq!(btf.offset("outer", "c", 4).unwrap(), 8);
        assert_eq!(btf.offset("outer", "d.y", 4).unwrap(), 20);
        assert_eq!(btf.offset("outer", "d", 8).unwrap(), 16);
        assert!(btf.offset("outer", "z", 4).unwrap_err().to_string().contains("no member z"));
        assert!(btf.offset("outer", "a", 8).unwrap_err().to_string().contains("has 4 bytes, not 8"));
        assert!(btf.offset("nothing", "z", 4).is_err());
    }

    #[test]
    fn a_cut_blob_is_an_error() {
        let blob = blob();
        for length in 0..blob.len() - 1 {
            let parsed = Btf::parse(blob[..length].to_vec());
            if let Ok(btf) = parsed {
                let _ = btf.offset("outer", "d.y", 4);
            }
        }
    }
}
