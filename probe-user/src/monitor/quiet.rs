//! Quiet hours: times of the week in which no breach begins, as `Mon-Fri 22:00-06:00`, in a time zone.

use anyhow::{Context, Result, anyhow, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZone;

const MINUTES_OF_A_DAY: u16 = 24 * 60;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Hours of the week, in a time zone. None by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quiet {
    hours: Vec<Hours>,
    zone: Option<TimeZone>,
}

/// Hours of some days. What ends before it begins ends on the day after.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hours {
    /// From Monday on.
    days: [bool; 7],
    /// Minutes of the day.
    from: u16,
    to: u16,
    written: String,
}

impl Quiet {
    /// Hours as they are written, in a time zone: `UTC`, a name of the time-zone database, or an offset such as `+02:00`.
    pub fn parse<'a>(hours: impl IntoIterator<Item = &'a str>, zone: Option<&str>) -> Result<Self> {
        let hours = hours.into_iter().map(Hours::parse).collect::<Result<_>>()?;
        Ok(Self { hours, zone: zone.map(parse_zone).transpose()? })
    }

    /// The hours as they were written.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        self.hours.iter().map(|hours| hours.written.as_str())
    }

    /// The zone as it is written; `None` for UTC by default.
    pub fn zone(&self) -> Option<String> {
        let zone = self.zone.as_ref()?;
        match (zone.iana_name(), zone.to_fixed_offset()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Ok(offset)) => {
                let minutes = offset.seconds() / 60;
                Some(format!(
                    "{}{:02}:{:02}",
                    if minutes < 0 { '-' } else { '+' },
                    minutes.abs() / 60,
                    minutes.abs() % 60
                ))
            }
            (None, Err(_)) => None,
        }
    }

    /// Is this time among them? `wall_ns` is in nanoseconds since the Unix epoch.
    pub fn covers(&self, wall_ns: u64) -> bool {
        if self.hours.is_empty() {
            return false;
        }
        let Ok(time) = Timestamp::from_nanosecond(i128::from(wall_ns)) else { return false };
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let local = zone.to_datetime(time);
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let day = local.weekday().to_monday_zero_offset() as usize;
        self.hours.iter().any(|hours| hours.covers(day, minute))
    }
}

impl Hours {
    fn parse(text: &str) -> Result<Self> {
        let bad =
            || anyhow!("`{text}` is not a time of the week; write `22:00-06:00`, `Mon-Fri 22:00-06:00`, or `Sat,Sun`");
        let mut days = [false; 7];
        let mut times = None;
        for (index, word) in text.split_ascii_whitespace().enumerate() {
            if word.starts_with(|first: char| first.is_ascii_digit()) {
                ensure!(times.is_none(), bad());
                times = Some(span(word).with_context(bad)?);
            } else {
                ensure!(index == 0, bad());
                for range in word.split(',') {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    let (first, last) = (day(first).with_context(bad)?, day(last).with_context(bad)?);
                    let count = (last + 7 - first) % 7;
                    (0..=count).for_each(|next| days[(first + next) % 7] = true);
                }
            }
        }
        ensure!(times.is_some() || days.contains(&true), bad());
        if !days.contains(&true) {
            days = [true; 7];
        }
        let (from, to) = times.unwrap_or((0, MINUTES_OF_A_DAY));
        ensure!(from != to, "`{text}` is empty: it ends when it begins; write `00:00-24:00` for a whole day");
        Ok(Self { days, from, to, written: text.trim().to_owned() })
    }

    fn covers(&self, day: usize, minute: u16) -> bool {
        if self.from < self.to {
            return self.days[day] && (self.from..self.to).contains(&minute);
        }
        // Over midnight: the evening of one of the days, or the morning after.
        (self.days[day] && minute >= self.from) || (self.days[(day + 6) % 7] && minute < self.to)
    }
}

fn day(name: &str) -> Option<usize> {
    DAYS.iter().position(|short| {
        // `Monday` as well as `Mon`.
        name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(short)) && name.chars().all(char::is_alphabetic)
    })
}

/// Begin and end in minutes of the day.
fn span(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    Some((minutes(from).filter(|from| *from < MINUTES_OF_A_DAY)?, minutes(to)?))
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60).then(|| hours.checked_mul(60)?.checked_add(minutes))?.filter(|sum| *sum <= MINUTES_OF_A_DAY)
}

fn parse_zone(name: &str) -> Result<TimeZone> {
    let wrong = || anyhow!("`{name}` is not a time zone; write `UTC`, a name such as `Europe/Berlin`, or `+02:00`");
    if name.starts_with(['+', '-']) {
        let (sign, text) = name.split_at(1);
        let seconds = i32::from(minutes(text).with_context(wrong)?) * 60;
        let offset = jiff::tz::Offset::from_seconds(if sign == "-" { -seconds } else { seconds });
        return Ok(TimeZone::fixed(offset.map_err(|_| wrong())?));
    }
    TimeZone::get(name).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> u64 {
        let time: Timestamp = time.parse().expect("a time");
        u64::try_from(time.as_nanosecond()).expect("after 1970")
    }

    #[test]
    fn hours_of_the_week() {
        // 2026-03-02 is a Monday.
        for (hours, zone, time, expected) in [
            ("22:00-06:00", None, "2026-03-02T22:00:00Z", true),
            ("22:00-06:00", None, "2026-03-02T21:59:59Z", false),
            ("22:00-06:00", None, "2026-03-03T05:59:59Z", true),
            ("22:00-06:00", None, "2026-03-03T06:00:00Z", false),
            ("Mon-Fri 22:00-06:00", None, "2026-03-07T05:00:00Z", true),
            ("Mon-Fri 22:00-06:00", None, "2026-03-07T23:00:00Z", false),
            ("Mon-Fri 22:00-06:00", None, "2026-03-02T05:00:00Z", false),
            ("Sat,Sun", None, "2026-03-07T12:00:00Z", true),
            ("saturday-sunday", None, "2026-03-09T00:00:00Z", false),
            ("Fri-Mon 10:00-11:00", None, "2026-03-02T10:30:00Z", true),
            ("Fri-Mon 10:00-11:00", None, "2026-03-05T10:30:00Z", false),
            ("00:00-24:00", None, "2026-03-05T23:59:59Z", true),
            ("22:00-23:00", Some("+02:00"), "2026-03-02T20:30:00Z", true),
            ("22:00-23:00", Some("-03:30"), "2026-03-03T01:30:00Z", true),
            // Summer time begins in Berlin on 2026-03-29.
            ("22:00-23:00", Some("Europe/Berlin"), "2026-03-28T21:30:00Z", true),
            ("22:00-23:00", Some("Europe/Berlin"), "2026-03-29T20:30:00Z", true),
            ("22:00-23:00", Some("Europe/Berlin"), "2026-03-29T21:30:00Z", false),
        ] {
            let quiet = Quiet::parse([hours], zone).expect(hours);
            assert_eq!(quiet.covers(at(time)), expected, "{hours} {zone:?} at {time}");
            assert_eq!((quiet.written().collect::<Vec<_>>(), quiet.zone().as_deref()), (vec![hours], zone));
        }
        assert!(!Quiet::default().covers(at("2026-03-02T22:00:00Z")));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for hours in [
            "",
            "22",
            "22:00",
            "22:00-22:00",
            "22:60-23:00",
            "25:00-26:00",
            "24:00-06:00",
            "Mon-",
            "Mxy",
            "10:00-11:00 Mon",
        ] {
            let error = Quiet::parse([hours], None).expect_err(hours).to_string();
            assert!(error.contains(hours), "{error}");
        }
        assert!(Quiet::parse([], Some("Mars/Olympus")).expect_err("no zone").to_string().contains("Europe/Berlin"));
        assert!(Quiet::parse([], Some("+99:00")).is_err());
    }
}
