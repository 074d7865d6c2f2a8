//! Times as crontab(5) writes them, in UTC.

use crate::registry::civil;

/// When something is due; an empty one never is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule(Option<Fields>);

/// Minute, hour, day of the month, month, day of the week: which values each takes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields([Field; 5]);

/// A bit for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    values: u64,
    /// Whether it was written as `*`.
    is_any: bool,
}

/// Name, least and greatest value of each field. 7 is Sunday too.
const RANGES: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
];

const MINUTE_MS: i64 = 60_000;
/// How far back a missed time is looked for.
const CATCH_UP_MINUTES: i64 = 8 * 24 * 60;

impl Schedule {
    /// Five fields of `*`, numbers, ranges `a-b`, steps `*/n` or `a-b/n`, and lists of them with commas; an empty text is never.
    /// The error is what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return Ok(Self(None));
        }
        let words: [&str; 5] = words.try_into().map_err(|_| {
            "five fields are expected (minute, hour, day, month, weekday), such as \"30 3 * * 1\"".to_owned()
        })?;
        let mut fields = [Field {
            values: 0,
            is_any: false,
        }; 5];
        for ((field, word), range) in fields.iter_mut().zip(words).zip(RANGES) {
            *field = Field::parse(word, range)?;
        }
        Ok(Self(Some(Fields(fields))))
    }

    /// Whether it was empty.
    pub(super) fn is_never(&self) -> bool {
        self.0.is_none()
    }

    /// The last minute that is due after `since_ms` and not after `now_ms`, at most eight days back, in Unix milliseconds.
    pub(super) fn last(&self, since_ms: i64, now_ms: i64) -> Option<i64> {
        let fields = self.0.as_ref()?;
        let (since, now) = (since_ms.div_euclid(MINUTE_MS), now_ms.div_euclid(MINUTE_MS));
        let first = (since + 1).max(now - CATCH_UP_MINUTES).max(0);
        let due = (first..=now)
            .rev()
            .find(|&minute| fields.hold(minute.unsigned_abs()));
        due.map(|minute| minute * MINUTE_MS)
    }
}

impl Fields {
    /// Whether this minute since 1970 is due.
    fn hold(&self, minute: u64) -> bool {
        let (days, of_day) = (minute / 1440, minute % 1440);
        let [_, month, day] = civil(days);
        // 1970-01-01 was a Thursday.
        let weekday = (days + 4) % 7;
        let Self([minutes, hours, month_days, months, weekdays]) = self;
        let (is_day, is_weekday) = (month_days.holds(day), weekdays.holds(weekday));
        // crontab(5): where both are restricted, either will do.
        let is_date = if month_days.is_any || weekdays.is_any {
            is_day && is_weekday
        } else {
            is_day || is_weekday
        };
        minutes.holds(of_day % 60) && hours.holds(of_day / 60) && months.holds(month) && is_date
    }
}

impl Field {
    fn parse(text: &str, (name, least, most): (&str, u32, u32)) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no {name}, {least} to {most}");
        let number = |text: &str| {
            let number = text.parse::<u32>().ok();
            let number = number.filter(|number| (least..=most).contains(number));
            number.filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        };
        let mut values = 0;
        for part in text.split(',') {
            let (range, step) = part
                .split_once('/')
                .map_or((part, None), |(range, step)| (range, Some(step)));
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (least, most),
                Some((from, to)) => number(from).zip(number(to)).ok_or_else(wrong)?,
                None if step.is_none() => number(range).map(|only| (only, only)).ok_or_else(wrong)?,
                None => return Err(wrong()),
            };
            let step = step.map_or(Some(1), |step| {
                step.parse::<usize>().ok().filter(|&step| step > 0)
            });
            let step = step.ok_or_else(wrong)?;
            if from > to {
                return Err(wrong());
            }
            values |= (from..=to)
                .step_by(step)
                .fold(0, |bits, value| bits | 1_u64 << value);
        }
        // Sunday under both its numbers.
        if most == 7 && values & (1 << 7) != 0 {
            values |= 1;
        }
        let is_any = text == "*";
        Ok(Self { values, is_any })
    }

    fn holds(self, value: u64) -> bool {
        self.values >> value & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-01T09:30:00Z, a Sunday.
    const NOW: i64 = 1_772_357_400_000;
    const DAY: i64 = 86_400_000;

    #[test]
    fn the_last_time_is_the_one_before() {
        // Minutes before NOW, within the eight days before it.
        let check = |text: &str, minutes: Option<i64>| {
            let schedule = Schedule::parse(text).unwrap();
            let found = schedule.last(NOW - 8 * DAY, NOW);
            assert_eq!(found.map(|at| (NOW - at) / MINUTE_MS), minutes, "{text}");
        };
        check("", None);
        check("* * * * *", Some(0));
        check("30 9 * * *", Some(0));
        check("29 9 * * *", Some(1));
        check("31 9 * * *", Some(1439));
        check("*/20 * * * *", Some(10));
        check("0-10/5 8 * * *", Some(80));
        check("0 9,11 * * *", Some(30));
        check("0 0 * * 0", Some(570));
        check("0 0 * * 7", Some(570));
        check("0 0 * * 1", Some(570 + 6 * 1440));
        check("0 0 1 * *", Some(570));
        check("0 0 28 2 *", Some(570 + 1440));
        check("0 0 28 2 6", Some(570 + 1440));
        check("0 0 27 2 6", Some(570 + 1440));
        check("0 0 1 4 *", None);
    }

    #[test]
    fn what_is_no_time_is_named() {
        let check = |text: &str, part: &str| {
            let problem = Schedule::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        };
        check("* * * *", "five fields");
        check("* * * * * *", "five fields");
        check("60 * * * *", "'60' is no minute, 0 to 59");
        check("* 24 * * *", "no hour");
        check("* * 0 * *", "no day of the month");
        check("* * * 13 *", "no month");
        check("* * * * 8", "no day of the week");
        check("5-1 * * * *", "no minute");
        check("*/0 * * * *", "no minute");
        check("5/2 * * * *", "no minute");
        check("+5 * * * *", "no minute");
        check("1,,2 * * * *", "no minute");
        check("@daily", "five fields");
    }

    proptest! {
        #[test]
        fn a_time_lies_in_its_span_and_none_is_after_it(minute in 0_u32..60, hour in 0_u32..24, back in 0..20 * 1440_i64) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *")).unwrap();
            let since = NOW - back * MINUTE_MS;
            let found = schedule.last(since, NOW);
            // A daily time is always found in more than a day, and never twice in one.
            prop_assert!(found.is_some() || back < 1440);
            if let Some(at) = found {
                prop_assert!(since < at && at <= NOW && NOW - at < DAY);
                prop_assert_eq!(at / MINUTE_MS % 1440, i64::from(hour * 60 + minute));
                prop_assert_eq!(schedule.last(at, NOW), None);
            }
        }
    }
}
