//! A moment as RFC 3339 writes it.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// In UTC, to the millisecond: `2026-03-01T09:30:00.125Z`. A moment before 1970 is written as its first.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ([year, month, day], second) = (civil(since.as_secs() / DAY), since.as_secs() % DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

/// Year, month (from 1) and day (from 1) of a number of days since 1970-01-01: Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>), in which a year begins with March.
pub fn civil(days: u64) -> [u64; 3] {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    [year + era * 400 + u64::from(month <= 2), month, day]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_date_writes_them() {
        // `date -u -d @SECONDS +%FT%TZ`
        let check = |ms: u64, expected: &str| {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(ms)), expected);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(951_868_799_999, "2000-02-29T23:59:59.999Z");
        check(951_868_800_000, "2000-03-01T00:00:00.000Z");
        check(1_772_357_400_125, "2026-03-01T09:30:00.125Z");
        check(4_102_444_799_000, "2099-12-31T23:59:59.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_moment_before_1970_is_its_first() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), rfc3339(UNIX_EPOCH));
    }
}
