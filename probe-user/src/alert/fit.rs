//! Fitting text into a channel's limit: every character is escaped as the channel needs it, and what is too long is cut
//! between two characters, never within an escape.

/// What a channel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Bytes of UTF-8.
    Bytes,
    /// Characters as telephones count them: units of UTF-16.
    Characters,
}

impl Measure {
    /// The size of a text.
    pub(super) fn of(self, text: &str) -> usize {
        match self {
            Self::Bytes => text.len(),
            Self::Characters => text.encode_utf16().count(),
        }
    }
}

/// Writes a character so that it has no meaning in a channel's markup.
pub(super) type Escape = fn(char, &mut String);

/// For channels without markup.
pub(super) fn plain(c: char, out: &mut String) {
    out.push(c);
}

/// For Slack: the three characters that make links and mentions.
pub(super) fn slack(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

/// For chats whose markup has no escapes: characters that make links, tags and mentions become wide ones that look alike.
pub(super) fn wide(c: char, out: &mut String) {
    out.push(match c {
        '<' => '＜',
        '>' => '＞',
        '[' => '［',
        ']' => '］',
        '@' => '＠',
        '`' => '｀',
        c => c,
    });
}

/// A text, escaped, of at most `limit`; what is cut ends in `…`.
pub(super) fn cut(text: &str, limit: usize, measure: Measure, escape: Escape) -> String {
    const END: char = '…';
    let end = measure.of(END.encode_utf8(&mut [0; 4]));
    let (mut out, mut size) = (String::new(), 0);
    // Where it is cut if it does not fit.
    let mut cut_at = 0;
    for c in text.chars() {
        let start = out.len();
        escape(c, &mut out);
        size += measure.of(&out[start..]);
        if size > limit {
            out.truncate(cut_at);
            if end <= limit {
                out.push(END);
            }
            return out;
        }
        if size + end <= limit {
            cut_at = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_between_characters() {
        for (text, limit, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "…"),
            ("abcdef", 5, "ab…"),
            ("größer", 7, "grö…"),
            ("größer", 8, "größer"),
            ("x", 0, ""),
        ] {
            assert_eq!(cut(text, limit, Measure::Bytes, plain), expected, "{text} {limit}");
        }
        assert_eq!(cut("größer", 5, Measure::Characters, plain), "größ…");
        // Two units each.
        assert_eq!(cut("😀😀😀", 5, Measure::Characters, plain), "😀😀…");
        for limit in 0..40 {
            let cut = cut("é<a>&😀 größer als zuvor", limit, Measure::Bytes, slack);
            assert!(cut.len() <= limit, "{limit}: {cut}");
            let plain = cut.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "");
            assert!(!plain.contains('&'), "an escape is whole: {cut}");
        }
    }

    #[test]
    fn markup_is_taken_apart() {
        assert_eq!(cut("<!channel> & <@U1>", 99, Measure::Bytes, slack), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
        let wide = cut("<@all> @all [x](http://evil) <at user_id=\"all\">", 99, Measure::Bytes, wide);
        assert!(!wide.contains(['<', '>', '@', '[', ']']), "{wide}");
    }
}
