//! Where a function begins and ends that no symbol names: stripped files still say it for exceptions, in `.eh_frame`.

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};

use super::image::Image;

/// The function around an address, as the file's unwind information has it: address and size. `None` without any, or where it is
/// damaged before that.
pub(super) fn around(image: &Image<'_>, address: u64) -> Option<(u64, u64)> {
    let section = image.section(".eh_frame")?;
    let bytes = image.data(section)?;
    let text = image.section(".text").map_or(0, |text| text.address);
    let bases = BaseAddresses::default().set_eh_frame(section.address).set_text(text);
    let frames = EhFrame::new(&bytes, LittleEndian);
    let mut entries = frames.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        // What is damaged in one entry is not in the next.
        let Ok(frame) = partial.parse(EhFrame::cie_from_offset) else { continue };
        if frame.contains(address) {
            return Some((frame.initial_address(), frame.len()));
        }
    }
    None
}
