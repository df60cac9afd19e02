//! SVG: a flamegraph as an image, drawn by inferno.

use std::io::Write;

use anyhow::{Result, ensure};
use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Options as Drawing, TextTruncateDirection, from_lines};

use super::flat::{self, Weight};
use super::{Options, folded};
use crate::symbolize::Profile;

/// Characters of a line of text that fit into the picture.
const WIDE: usize = 150;

/// Draws the flamegraph of `profile`. Fails when it has no samples.
pub fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let lines: Vec<String> = folded::lines(profile, options)
        .into_iter()
        .map(|(stack, weight)| format!("{} {weight}", drawable(&stack)))
        .collect();
    ensure!(!lines.is_empty(), "it has no samples to draw");
    let mut drawing = Drawing::default();
    drawing.title = drawable(&flat::title(profile, options));
    // It is centred, and what does not fit is missing on both sides.
    let summary = Some(flat::summary(profile)).filter(|summary| summary.chars().count() <= WIDE);
    drawing.subtitle = Some(drawable(&summary.unwrap_or_else(|| flat::short_summary(profile))));
    drawing.count_name = Weight::of(&profile.header).unit().into();
    drawing.colors = Palette::Multi(MultiPalette::Java);
    drawing.text_truncate_direction = TextTruncateDirection::Right;
    // Names always have the same colour, and a profile always the same image.
    drawing.deterministic = true;
    from_lines(&mut drawing, lines.iter().map(String::as_str), out)?;
    Ok(())
}

/// Replaces the two characters that sanitized text may have and XML may not.
fn drawable(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::super::{Format, fixture, golden, write as export};
    use super::*;

    /// Reads well-formed XML: element names, and the texts that are shown.
    fn parse(svg: &str) -> (Vec<String>, String) {
        let mut reader = Reader::from_str(svg);
        reader.config_mut().check_end_names = true;
        let (mut elements, mut texts) = (Vec::new(), String::new());
        loop {
            match reader.read_event().unwrap() {
                Event::Eof => break,
                Event::Start(start) | Event::Empty(start) => {
                    elements.push(String::from_utf8(start.name().as_ref().to_vec()).unwrap());
                    for attribute in start.attributes() {
                        attribute.unwrap();
                    }
                }
                Event::Text(text) => texts.push_str(&text.decode().unwrap()),
                Event::GeneralRef(entity) => {
                    let name = entity.decode().unwrap();
                    texts.push_str(quick_xml::escape::resolve_predefined_entity(&name).expect(&name));
                }
                _ => {}
            }
        }
        (elements, texts)
    }

    #[test]
    fn what_is_lost_for_many_reasons_fits_above_the_picture() {
        let mut profile = fixture::profile();
        for reason in ["stacks truncated: no frame pointer", "stacks with frames guessed by frame pointer", "overflow"]
        {
            profile.losses.insert(format!("{reason} in a process of a long name"), 7);
        }
        let mut out = Vec::new();
        write(&profile, &Options::default(), &mut out).expect("drawn");
        let (_, texts) = parse(std::str::from_utf8(&out).expect("text"));
        assert!(texts.contains("lost, cut or guessed: ") && !texts.contains("long name"), "{texts}");
    }

    #[test]
    fn the_image() {
        let mut bytes = Vec::new();
        export(&fixture::profile(), Format::Svg, &Options::default(), &mut bytes).unwrap();
        let svg = String::from_utf8(bytes).unwrap();
        // Its script and style are inferno's.
        let (head, rest) = svg.split_once("<style").unwrap();
        let (_, drawing) = rest.split_once("</script>").unwrap();
        golden::check_bytes(format!("{head}{drawing}").replace("><", ">\n<").as_bytes(), "flamegraph.svg");
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut bytes = Vec::new();
        let mut profile = fixture::clean();
        profile.threads[0].name = "]]>\u{ffff}</text><script>alert(1)</script>".into();
        let options = Options { threads: true, ..Options::default() };
        write(&profile, &options, &mut bytes).unwrap();
        let (elements, texts) = parse(std::str::from_utf8(&bytes).unwrap());
        assert_eq!(elements.iter().filter(|name| *name == "script").count(), 1, "only the drawing's own script");
        assert!(texts.contains("<script>alert"), "{texts}");
        assert!(!texts.contains('\u{ffff}'));
        assert!(texts.contains("23 samples") && texts.contains("lost: ring buffer full 3"), "{texts}");
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        assert!(write(&Profile::default(), &Options::default(), &mut Vec::new()).is_err());
    }
}
